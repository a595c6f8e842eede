"""Which stored values are measurements: finite, not nodata, and such that ground can have them.

Archives put a number where nothing was measured, and do not always tell which. What no ground can have is missing
wherever it stands; what ground seldom has, zero say, is missing where all bands of a pixel hold the same. Each rule
looks at one pixel of one date, so that no answer depends on how a cube is cut.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.cube.scaling import Scaling, decoded_by, valid
from xr_cloudfree.errors import CloudfreeWarning

LOW, HIGH = -0.3, 4.0
"""Reflectance beyond which nothing is ground. An atmosphere that was corrected too far makes dark water -0.1, and the
least that Landsat can store is -0.2. Reflectance is reckoned for level ground: snow on a slope that faces a low sun
comes to 3.5, and there detectors saturate."""
USUAL = -0.09, 1.5
"""Reflectance within which a number that archives use as a mark may as well be a measurement of one band."""
# What archives put where nothing was measured, and what becomes of it where signed meets unsigned.
MARKS = (0, 1, -1, 9999, -9999, 32767, -32768, 32768, 55537, 65535)
# The same in values of which nothing tells how they were decoded: scale and offset that products have.
_PRODUCTS = ((1e-4, 0.0), (1e-4, -0.1), (2.75e-5, -0.2))
_PRODUCT_MARKS = (0, 1, 32767, 32768, 55537, 65535)
_SLAB = 2**16  # pixels looked at together, few enough for the processor's cache


@dataclass(frozen=True)
class ValidRange:
    """Which numbers can be measurements, in stored units.

    Parameters
    ----------
    low, high : float
        Least and greatest number that can be one.
    alone : tuple of float
        Numbers that are none wherever they stand.
    alike : tuple of float
        Numbers that are none where all bands of a pixel, two at least, hold the same one.
    pair : tuple of float
        The same where there are two bands alone, which may well both hold 1 or -1 over dark water.
    usual : tuple of float
        Between these lies no number of `alone`, so that nothing there needs a closer look.
    told : tuple of float
        Marks that attributes name as nodata where the caller named another: none wherever they stand.
    meaning : str
        What the limits are, for people.
    """

    low: float = -np.inf
    high: float = np.inf
    alone: tuple[float, ...] = ()
    alike: tuple[float, ...] = ()
    pair: tuple[float, ...] = ()
    usual: tuple[float, float] = (-np.inf, np.inf)
    told: tuple[float, ...] = ()
    meaning: str = "reflectance"

    @property
    def index(self) -> bool:
        """Whether the values are those of an index, with limits of its own."""
        return self.meaning != "reflectance"


def derive_valid_range(
    arrays: Sequence[xr.DataArray], scaling: Scaling, limits: tuple[float, float] | None = None
) -> ValidRange:
    """Tell which stored numbers can be measurements, from the dtype and the scaling; nothing is computed.

    Parameters
    ----------
    arrays : sequence of DataArray
        The bands, or the one array that holds them all.
    scaling : Scaling
        How they are stored.
    limits : tuple of float, optional
        Least and greatest value of an index, such as -1 and 1, in place of reflectance. Nothing but numbers beyond
        them, by more than rounding, is then missing.

    Returns
    -------
    ValidRange
        The range, in stored units.

    Examples
    --------
    >>> band = xr.DataArray(np.zeros((1, 2, 2), np.uint16))
    >>> derive_valid_range([band], Scaling(1e-4, -0.1, 0)).high
    41000.0
    >>> derive_valid_range([band.astype(np.float32)], Scaling(), limits=(-1, 1)).alike
    ()
    """
    dtype = arrays[0].dtype
    if scaling.scale is None:
        marks = _without(_of_dtype(dtype), scaling.nodata)
        return ValidRange(alike=marks, pair=_without(marks, 1, -1))
    if limits is not None:
        # Half a step for integers, for floats what rounding makes.
        slack = scaling.scale / 2 if dtype.kind in "iu" else 4 * float(np.finfo(dtype).eps) * max(map(abs, limits))
        low, high = _stored((limits[0] - slack, limits[1] + slack), scaling, dtype)
        meaning = f"an index from {limits[0]:g} to {limits[1]:g}"
        return ValidRange(low, high, usual=(low, high), meaning=meaning)
    marks = _of_dtype(dtype) if dtype.kind in "iu" or scaling.scale != 1 else _decoded(arrays)
    alone = tuple(mark for mark in marks if mark not in (1, -1, 9999) and not _is_usual(mark, scaling))
    told = {nodata for array in arrays for nodata in _nodata_of(array)} & set(map(float, MARKS))
    low, high = _stored((LOW, HIGH), scaling, dtype)
    return ValidRange(
        low,
        high,
        _without(alone, scaling.nodata),
        _without(marks, scaling.nodata),
        _without(marks, scaling.nodata, *_ones(arrays, scaling)),
        _stored(USUAL, scaling, dtype),
        _without(sorted(told), scaling.nodata),
    )


def _of_dtype(dtype: np.dtype[Any]) -> tuple[float, ...]:
    if dtype.kind == "f":
        return tuple(map(float, MARKS))
    limits = np.iinfo(dtype)
    return tuple(float(mark) for mark in sorted({*MARKS, limits.min, limits.max}) if limits.min <= mark <= limits.max)


def _decoded(arrays: Sequence[xr.DataArray]) -> tuple[float, ...]:
    """The marks as reflectance, decoded or not. 1 is left out: reflectance may be cut off there."""
    packing = decoded_by(arrays[0])
    packed = MARKS if packing is not None else _PRODUCT_MARKS
    products = _PRODUCTS if packing is None else (packing,)
    raw = (float(mark) for mark in MARKS if mark not in (1, -1))
    return tuple(sorted({*raw, *(mark * scale + offset for scale, offset in products for mark in packed)}))


def _nodata_of(array: xr.DataArray) -> list[float]:
    found = (array.attrs.get(key) for key in ("_FillValue", "missing_value", "nodata"))
    return [float(value) for value in found if isinstance(value, int | float | np.number)]


def _ones(arrays: Sequence[xr.DataArray], scaling: Scaling) -> list[float]:
    """1 and -1 as they are stored or were decoded."""
    if arrays[0].dtype.kind in "iu" or scaling.scale != 1:
        return [1.0, -1.0]
    packing = decoded_by(arrays[0])
    return [one * scale + offset for scale, offset in (_PRODUCTS if packing is None else (packing,)) for one in (1, -1)]


def _without(marks: Sequence[float], *others: float | None) -> tuple[float, ...]:
    return tuple(mark for mark in marks if mark not in others)


def _is_usual(mark: float, scaling: Scaling) -> bool:
    return USUAL[0] <= mark * (scaling.scale or 1.0) + scaling.offset <= USUAL[1]


def _stored(limits: tuple[float, float], scaling: Scaling, dtype: np.dtype[Any]) -> tuple[float, float]:
    low, high = ((limit - scaling.offset) / (scaling.scale or 1.0) for limit in limits)
    if dtype.kind in "iu":  # whole numbers compare with whole numbers, without a detour over floats
        return float(np.ceil(low - 1e-6)), float(np.floor(high + 1e-6))
    return low, high


def measured(
    values: NDArray[Any], scaling: Scaling, valid_range: ValidRange | None = None, axis: int | None = None
) -> NDArray[np.bool_]:
    """Tell where each stored value is a measurement.

    Parameters
    ----------
    values : ndarray, any shape
        Stored values.
    scaling : Scaling
        How they are stored.
    valid_range : ValidRange, optional
        Which numbers can be one; without it all that are finite and not nodata.
    axis : int, optional
        Axis of the bands; without it each value is looked at by itself.

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
    """Tell where a pixel is seen as clear and holds a measurement in every band.

    Parameters
    ----------
    stored : ndarray, shape (time, band, y, x)
        Stored values.
    seen : ndarray of bool, shape (time, y, x)
        What the quality layer calls clear.
    scaling : Scaling
        How values are stored.
    valid_range : ValidRange, optional
        Which numbers can be a measurement.

    Returns
    -------
    ndarray of bool, shape of `seen`
        True where measured.

    Warns
    -----
    CloudfreeWarning
        Once for each number that is taken as missing although nothing tells that it is.
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
                _leave_out(bands, good, valid_range, marks)
    if valid_range is not None and marks:
        _tell(marks, valid_range)
    return clear


def _leave_out(bands: NDArray[Any], good: NDArray[np.bool_], valid_range: ValidRange, marks: set[float]) -> None:
    """Take what cannot be a measurement out of `good`, and note which numbers these were."""
    same = _alike(bands, good, valid_range)
    if same is not None:
        marks.update(np.unique(bands[0][same]).tolist())
        good &= ~same
    low, high = _usual_of(bands.dtype, valid_range)
    if bands.dtype.kind in "iu" and not valid_range.told and (high is None or bands.max() <= high):
        if low is None or bands.min() >= low:
            return  # as nearly always, found without anything being written
    for band in bands:
        odd = _impossible(band, good, valid_range)
        if odd is not None:
            marks.update(np.unique(band[odd]).tolist())
            good &= ~odd


@lru_cache(maxsize=64)
def _usual_of(dtype: np.dtype[Any], valid_range: ValidRange) -> tuple[Any, Any]:
    """The usual limits as numbers that compare with a dtype; None for one beyond which it holds nothing."""
    low, high = valid_range.usual
    if dtype.kind == "f":
        return low, high
    limits = np.iinfo(dtype)
    return (int(low) if low > limits.min else None), (int(high) if high < limits.max else None)


def _impossible(values: NDArray[Any], among: NDArray[np.bool_], valid_range: ValidRange) -> NDArray[np.bool_] | None:
    """Where, among some, a value cannot be a measurement by itself; None for nowhere."""
    low, high = _usual_of(values.dtype, valid_range)
    odd: NDArray[np.bool_] = np.zeros(values.shape, bool) if high is None else values > high
    if low is not None:
        odd |= values < low
    for mark in valid_range.told:
        if _fits(mark, values.dtype):
            odd |= values == values.dtype.type(mark)
    odd &= among
    if not odd.any():
        return None
    picked = values[odd].astype(np.float64)
    bad = (
        (picked < valid_range.low)
        | (picked > valid_range.high)
        | _is_any(picked, (*valid_range.alone, *valid_range.told), values.dtype)
    )
    odd[odd] = bad
    return odd if bad.any() else None


def _alike(bands: NDArray[Any], among: NDArray[np.bool_], valid_range: ValidRange) -> NDArray[np.bool_] | None:
    """Where, among some, all bands (first axis) hold the same mark; None for nowhere."""
    if len(bands) < 2 or not valid_range.alike:
        return None
    same: NDArray[np.bool_] = bands[0] == bands[1]
    same &= among
    for band in bands[2:]:
        if not same.any():
            return None
        same &= bands[0] == band
    if not same.any():
        return None
    marks = valid_range.alike if len(bands) > 2 else valid_range.pair
    bad = _is_any(bands[0][same].astype(np.float64), marks, bands.dtype)
    same[same] = bad
    return same if bad.any() else None


def _fits(mark: float, dtype: np.dtype[Any]) -> bool:
    return dtype.kind == "f" or bool(np.iinfo(dtype).min <= mark <= np.iinfo(dtype).max)


def _is_any(picked: NDArray[np.float64], marks: Sequence[float], dtype: np.dtype[Any]) -> NDArray[np.bool_]:
    found = np.zeros(picked.shape, bool)
    slack = 2 * float(np.finfo(dtype).eps) if dtype.kind == "f" else 0.0
    for mark in marks:
        found |= np.abs(picked - mark) <= slack * abs(mark) + (1e-6 if slack else 0.0)
    return found


def _tell(found: set[float], valid_range: ValidRange) -> None:
    """Warn of numbers that are taken as missing. The words depend on the number alone, so that each is shown once."""
    beyond = False
    for value in sorted(found):
        mark = next(
            (mark for mark in (*valid_range.told, *valid_range.alike, *valid_range.alone) if np.isclose(value, mark)),
            None,
        )
        if mark is None:
            beyond = True
            continue
        warnings.warn(
            f"clear pixels hold {mark:.7g}, a number that marks missing values in archives; they are taken as "
            f"missing. nodata={mark:.7g} says so, check=False takes them as they are",
            CloudfreeWarning,
            stacklevel=2,
        )
    if beyond:
        limits = valid_range.meaning if valid_range.index else f"reflectance from {LOW:g} to {HIGH:g}"
        warnings.warn(
            f"clear pixels hold values that cannot be {limits}; they are taken as missing. check=False takes them as "
            "they are",
            CloudfreeWarning,
            stacklevel=2,
        )


def is_mark(spectra: NDArray[Any], seen: NDArray[np.bool_], valid_range: ValidRange) -> NDArray[np.bool_]:
    """Tell where a pixel holds a number that archives use as a mark, in one band or in all.

    Parameters
    ----------
    spectra : ndarray, shape (time, pixel, band)
        Stored values.
    seen : ndarray of bool, shape (time, pixel)
        Pixels that are looked at.
    valid_range : ValidRange
        Which numbers can be a measurement. What is merely beyond its limits is no mark.
    """
    bands = np.moveaxis(spectra, -1, 0)
    marks = _alike(bands, seen, valid_range)
    found = np.zeros(seen.shape, bool) if marks is None else marks
    for band in bands:
        odd = _impossible(band, seen, valid_range)
        if odd is not None:
            picked = band[odd].astype(np.float64)
            odd[odd] = _is_any(picked, (*valid_range.alone, *valid_range.told), band.dtype)
            found |= odd
    return found


def share_impossible(values: NDArray[Any], valid_range: ValidRange) -> float:
    """Share of values, all of them measured, that are beyond the limits."""
    wide = values.astype(np.float64)
    return float(((wide < valid_range.low) | (wide > valid_range.high)).mean())
