"""Identify stored values that are measurements: finite, not nodata, and possible for ground.

Archives write a fill value where nothing was measured, and do not always document it. A value that ground cannot have
is missing anywhere; a value that ground seldom has, such as zero, is missing where all bands of a pixel hold it. Each
rule uses one pixel of one date only, so results do not depend on chunks and blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.cube.scaling import NODATA_KEYS, Scaling, decoded_with, valid
from xr_cloudfree.cube.sensors import product_scalings
from xr_cloudfree.errors import warn

LOW, HIGH = -0.3, 4.0
"""Limits of the reflectance of ground. An overcorrected atmosphere makes dark water -0.1, and the lowest value that
Landsat can store is -0.2. Reflectance assumes level ground: snow on a slope facing a low sun reaches 3.5, where
detectors saturate."""
TYPICAL = -0.09, 1.5
"""Reflectance range in which a fill value may also be a measurement of one band."""
# Fill values of archives, and their conversions between signed and unsigned integers.
FILL_VALUES = (0, 1, -1, 9999, -9999, 32767, -32768, 32768, 55537, 65535)
# Fill values that may have been scaled like a product's values, in floats of unknown encoding.
_SCALED_FILL_VALUES = (0, 1, 32767, 32768, 55537, 65535)
_SLAB = 2**16  # pixels processed together, few enough for the processor's cache


@dataclass(frozen=True)
class ValidRange:
    """Values that can be measurements, in stored units.

    Parameters
    ----------
    low, high : float
        Lowest and highest value of a measurement.
    single : tuple of float
        Fill values that are missing in any single band.
    all_bands : tuple of float
        Fill values that are missing where all bands of a pixel, at least two, hold the same one.
    two_bands : tuple of float
        The same for a cube of two bands, which may both hold 1 or -1 over dark water.
    typical : tuple of float
        A range without values of `single`, in which no further test is needed.
    declared : tuple of float
        Fill values that attributes declare as nodata while the caller gave another: missing in any single band.
    quantity : str
        What the limits apply to, for messages.
    """

    low: float = -np.inf
    high: float = np.inf
    single: tuple[float, ...] = ()
    all_bands: tuple[float, ...] = ()
    two_bands: tuple[float, ...] = ()
    typical: tuple[float, float] = (-np.inf, np.inf)
    declared: tuple[float, ...] = ()
    quantity: str = "reflectance"

    @property
    def index(self) -> bool:
        """Whether the values are those of an index, with limits of its own."""
        return self.quantity != "reflectance"


def derive_valid_range(
    arrays: Sequence[xr.DataArray], scaling: Scaling, limits: tuple[float, float] | None = None
) -> ValidRange:
    """Return the stored values that can be measurements, from the dtype and the scaling. Nothing is computed.

    Parameters
    ----------
    arrays : sequence of DataArray
        The bands, or the one array with all bands.
    scaling : Scaling
        How they are stored.
    limits : tuple of float, optional
        Lowest and highest value of an index, such as -1 and 1, in place of reflectance. Only values beyond them by
        more than a rounding error are then missing.

    Returns
    -------
    ValidRange
        The range, in stored units.

    Examples
    --------
    >>> band = xr.DataArray(np.zeros((1, 2, 2), np.uint16))
    >>> derive_valid_range([band], Scaling(1e-4, -0.1, 0)).high
    41000.0
    >>> derive_valid_range([band.astype(np.float32)], Scaling(), limits=(-1, 1)).all_bands
    ()
    """
    dtype = arrays[0].dtype
    if scaling.scale is None:
        marks = _without(_of_dtype(dtype), scaling.nodata)
        return ValidRange(all_bands=marks, two_bands=_without(marks, 1, -1))
    if limits is not None:
        # Half a step for integers, the rounding error for floats.
        slack = scaling.scale / 2 if dtype.kind in "iu" else 4 * float(np.finfo(dtype).eps) * max(map(abs, limits))
        low, high = _stored((limits[0] - slack, limits[1] + slack), scaling, dtype)
        quantity = f"an index from {limits[0]:g} to {limits[1]:g}"
        return ValidRange(low, high, typical=(low, high), quantity=quantity)
    marks = _of_dtype(dtype) if dtype.kind in "iu" or scaling.scale != 1 else _decoded(arrays)
    single = tuple(mark for mark in marks if mark not in (1, -1, 9999) and not _is_typical(mark, scaling))
    declared = {nodata for array in arrays for nodata in _nodata_of(array)} & set(map(float, FILL_VALUES))
    low, high = _stored((LOW, HIGH), scaling, dtype)
    return ValidRange(
        low,
        high,
        _without(single, scaling.nodata),
        _without(marks, scaling.nodata),
        _without(marks, scaling.nodata, *_ones(arrays, scaling)),
        _stored(TYPICAL, scaling, dtype),
        _without(sorted(declared), scaling.nodata),
    )


def _of_dtype(dtype: np.dtype[Any]) -> tuple[float, ...]:
    if dtype.kind == "f":
        return tuple(map(float, FILL_VALUES))
    limits = np.iinfo(dtype)
    return tuple(
        float(mark) for mark in sorted({*FILL_VALUES, limits.min, limits.max}) if limits.min <= mark <= limits.max
    )


def _decoded(arrays: Sequence[xr.DataArray]) -> tuple[float, ...]:
    """Return the fill values as reflectance, scaled and unscaled. 1 is left out: reflectance may be clipped there."""
    packing = decoded_with(arrays[0])
    packed = FILL_VALUES if packing is not None else _SCALED_FILL_VALUES
    products = product_scalings() if packing is None else (packing,)
    raw = (float(mark) for mark in FILL_VALUES if mark not in (1, -1))
    return tuple(sorted({*raw, *(mark * scale + offset for scale, offset in products for mark in packed)}))


def _nodata_of(array: xr.DataArray) -> list[float]:
    values = (array.attrs.get(key) for key in NODATA_KEYS)
    return [float(value) for value in values if isinstance(value, int | float | np.number)]


def _ones(arrays: Sequence[xr.DataArray], scaling: Scaling) -> list[float]:
    """Return 1 and -1 as stored or decoded."""
    if arrays[0].dtype.kind in "iu" or scaling.scale != 1:
        return [1.0, -1.0]
    packing = decoded_with(arrays[0])
    products = product_scalings() if packing is None else (packing,)
    return [stored * scale + offset for scale, offset in products for stored in (1, -1)]


def _without(marks: Sequence[float], *others: float | None) -> tuple[float, ...]:
    return tuple(mark for mark in marks if mark not in others)


def _is_typical(mark: float, scaling: Scaling) -> bool:
    return TYPICAL[0] <= mark * (scaling.scale or 1.0) + scaling.offset <= TYPICAL[1]


def _stored(limits: tuple[float, float], scaling: Scaling, dtype: np.dtype[Any]) -> tuple[float, float]:
    low, high = ((limit - scaling.offset) / (scaling.scale or 1.0) for limit in limits)
    if dtype.kind in "iu":  # integers, to compare without conversion to floats
        return float(np.ceil(low - 1e-6)), float(np.floor(high + 1e-6))
    return low, high


def measured(
    values: NDArray[Any], scaling: Scaling, valid_range: ValidRange | None = None, axis: int | None = None
) -> NDArray[np.bool_]:
    """Return where each stored value is a measurement.

    Parameters
    ----------
    values : ndarray, any shape
        Stored values.
    scaling : Scaling
        How they are stored.
    valid_range : ValidRange, optional
        Values that can be measurements; by default all that are finite and not nodata.
    axis : int, optional
        Axis of the bands; by default each value is tested by itself.

    Returns
    -------
    ndarray of bool, shape of `values`
        True where measured.

    Examples
    --------
    >>> spectra = np.array([[0, 500, 65526], [0, 0, 900]], np.uint16)  # two bands of three pixels
    >>> valid_range = derive_valid_range([xr.DataArray(spectra)], Scaling(1e-4))
    >>> measured(spectra, Scaling(1e-4), valid_range, axis=0)
    array([[False,  True, False],
           [False,  True,  True]])
    """
    good = valid(values, scaling)
    if valid_range is None:
        return good
    odd = _impossible(values, good, valid_range)
    if odd is not None:
        good &= ~odd
    if axis is not None:
        same = _alike(np.moveaxis(values, axis, 0), np.asarray(np.moveaxis(good, axis, 0).any(axis=0)), valid_range)
        if same is not None:
            good &= ~np.expand_dims(same, axis)
    return good


def clear_where(
    stored: NDArray[Any], seen: NDArray[np.bool_], scaling: Scaling, valid_range: ValidRange | None = None
) -> NDArray[np.bool_]:
    """Return where a pixel is clear and has a measurement in every band.

    Parameters
    ----------
    stored : ndarray, shape (time, band, y, x)
        Stored values.
    seen : ndarray of bool, shape (time, y, x)
        Clear pixels according to the quality layer.
    scaling : Scaling
        How values are stored.
    valid_range : ValidRange, optional
        Values that can be measurements.

    Returns
    -------
    ndarray of bool, shape of `seen`
        True where measured.

    Warns
    -----
    CloudfreeWarning
        Once for each value that is treated as missing without being declared as nodata.
    """
    clear = seen.copy()
    marks: set[float] = set()
    rows = max(1, _SLAB // max(stored.shape[-1], 1))
    for date in range(len(stored)):
        for y in range(0, stored.shape[2], rows):
            bands, good = stored[date, :, y : y + rows], clear[date, y : y + rows]
            for band in bands:
                good &= valid(band, scaling)
            if valid_range is not None:
                _exclude(bands, good, valid_range, marks)
    if valid_range is not None and marks:
        _warn_of_missing(marks, valid_range)
    return clear


def _exclude(bands: NDArray[Any], good: NDArray[np.bool_], valid_range: ValidRange, marks: set[float]) -> None:
    """Exclude values that cannot be measurements from `good`, and add them to `marks`."""
    same = _alike(bands, good, valid_range)
    if same is not None:
        marks.update(np.unique(bands[0][same]).tolist())
        good &= ~same
    low, high = _typical_limits(bands.dtype, valid_range)
    if bands.dtype.kind in "iu" and not valid_range.declared and (high is None or bands.max() <= high):
        if low is None or bands.min() >= low:
            return  # the usual case
    for band in bands:
        odd = _impossible(band, good, valid_range)
        if odd is not None:
            marks.update(np.unique(band[odd]).tolist())
            good &= ~odd


@lru_cache(maxsize=64)
def _typical_limits(dtype: np.dtype[Any], valid_range: ValidRange) -> tuple[Any, Any]:
    """Return the typical limits as numbers comparable with a dtype; None for a limit that it cannot exceed."""
    low, high = valid_range.typical
    if dtype.kind == "f":
        return low, high
    limits = np.iinfo(dtype)
    return (int(low) if low > limits.min else None), (int(high) if high < limits.max else None)


def _impossible(values: NDArray[Any], among: NDArray[np.bool_], valid_range: ValidRange) -> NDArray[np.bool_] | None:
    """Return where, among some values, one cannot be a measurement by itself; None for nowhere."""
    low, high = _typical_limits(values.dtype, valid_range)
    odd: NDArray[np.bool_] = np.zeros(values.shape, bool) if high is None else values > high
    if low is not None:
        odd |= values < low
    for mark in valid_range.declared:
        if _fits(mark, values.dtype):
            odd |= values == values.dtype.type(mark)
    odd &= among
    if not odd.any():
        return None
    picked = values[odd].astype(np.float64)
    bad = (
        (picked < valid_range.low)
        | (picked > valid_range.high)
        | _is_any(picked, (*valid_range.single, *valid_range.declared), values.dtype)
    )
    odd[odd] = bad
    return odd if bad.any() else None


def _alike(bands: NDArray[Any], among: NDArray[np.bool_], valid_range: ValidRange) -> NDArray[np.bool_] | None:
    """Return where, among some pixels, all bands (first axis) hold the same fill value; None for nowhere."""
    if len(bands) < 2 or not valid_range.all_bands:
        return None
    same: NDArray[np.bool_] = bands[0] == bands[1]
    same &= among
    for band in bands[2:]:
        if not same.any():
            return None
        same &= bands[0] == band
    if not same.any():
        return None
    marks = valid_range.all_bands if len(bands) > 2 else valid_range.two_bands
    bad = _is_any(bands[0][same].astype(np.float64), marks, bands.dtype)
    same[same] = bad
    return same if bad.any() else None


def _fits(mark: float, dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or bool(np.iinfo(dtype).min <= mark <= np.iinfo(dtype).max)


def _is_any(picked: NDArray[np.float64], marks: Sequence[float], dtype: np.dtype[Any]) -> NDArray[np.bool_]:
    matches = np.zeros(picked.shape, bool)
    slack = 2 * float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0
    for mark in marks:
        matches |= np.abs(picked - mark) <= slack * abs(mark) + (1e-6 if slack else 0.0)
    return matches


def _warn_of_missing(values: set[float], valid_range: ValidRange) -> None:
    """Warn of values treated as missing. The text depends on the value only, so each is shown once."""
    beyond = False
    for value in sorted(values):
        marks = (*valid_range.declared, *valid_range.all_bands, *valid_range.single)
        mark = next((mark for mark in marks if np.isclose(value, mark)), None)
        if mark is None:
            beyond = True
            continue
        warn(
            f"clear pixels hold {mark:.7g}, a usual fill value; they are treated as missing. "
            f"nodata={mark:.7g} confirms this, check=False uses them as measurements"
        )
    if beyond:
        limits = valid_range.quantity if valid_range.index else f"reflectance from {LOW:g} to {HIGH:g}"
        warn(
            f"clear pixels hold values that cannot be {limits}; they are treated as missing. check=False uses them as "
            "measurements"
        )


def is_fill_value(spectra: NDArray[Any], seen: NDArray[np.bool_], valid_range: ValidRange) -> NDArray[np.bool_]:
    """Return where a pixel holds a fill value, in one band or in all.

    Parameters
    ----------
    spectra : ndarray, shape (time, pixel, band)
        Stored values.
    seen : ndarray of bool, shape (time, pixel)
        Pixels to test.
    valid_range : ValidRange
        Values that can be measurements. Other values beyond its limits are not fill values.
    """
    bands = np.moveaxis(spectra, -1, 0)
    marks = _alike(bands, seen, valid_range)
    is_fill = np.zeros(seen.shape, bool) if marks is None else marks
    for band in bands:
        odd = _impossible(band, seen, valid_range)
        if odd is not None:
            picked = band[odd].astype(np.float64)
            odd[odd] = _is_any(picked, (*valid_range.single, *valid_range.declared), band.dtype)
            is_fill |= odd
    return is_fill


def fraction_outside(values: NDArray[Any], valid_range: ValidRange) -> float:
    """Return the fraction of measured values outside the limits."""
    wide = values.astype(np.float64)
    return float(((wide < valid_range.low) | (wide > valid_range.high)).mean())
