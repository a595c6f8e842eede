"""What stored numbers mean: ``reflectance = stored * scale + offset``, and back without a wrap."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.cube.archives import (
    APPLIED,
    BASELINE,
    SENTINEL_OFFSET,
    SENTINEL_SCALE,
    Told,
    number,
    offset_applied,
    sentinel_offsets,
    told_by_archive,
)
from xr_cloudfree.cube.remedies import Spelling
from xr_cloudfree.errors import OptionError, OptionTypeError, ScalingError, code, either, option
from xr_cloudfree.storage.attributes import pending, same_number

# Beyond these a float32 could not hold what becomes of the values.
LEAST_SCALE = 1e-12
# What of a variable's encoding belongs to the values; the rest (chunks, compression) belongs to the old file.
NODATA_KEYS = ("_FillValue", "missing_value", "nodata")
PACKING = ("dtype", "scale_factor", "add_offset", "_FillValue", "grid_mapping")


@dataclass(frozen=True)
class Scaling:
    """How stored numbers become reflectance.

    Parameters
    ----------
    scale : float or None
        Reflectance per stored unit. None: integers of which nothing told it.
    offset : float
        Reflectance of a stored zero.
    nodata : float or None
        Stored value of pixels without a measurement; NaN always is one.
    source : str
        Where the scale was told, for people.
    """

    scale: float | None = 1.0
    offset: float = 0.0
    nodata: float | None = None
    source: str = "float values are reflectance"


def resolve_scaling(
    arrays: Sequence[xr.DataArray],
    *,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    spelling: Spelling | None = None,
    index: bool = False,
) -> Scaling:
    """Read the scaling of a cube from the arguments, else from metadata, else from the dtype.

    Of metadata the bands' own come first (see `told_by_archive`), then the processing baseline of Sentinel-2, then the
    attributes ``scale_factor`` and ``add_offset``, which are still to be applied. In the encoding they were applied
    when the cube was opened. What archives say beside them counts for integers alone. Nothing is computed.

    Parameters
    ----------
    arrays : sequence of DataArray
        The bands, or the one array that holds them all.
    scale, offset, nodata : float, optional
        What the user says; wins over metadata.
    spelling : Spelling, optional
        What the cube is made of, for remedies.
    index : bool
        Whether the bands are indices, such as NDVI.

    Returns
    -------
    Scaling
        One scaling for all bands. `Scaling.scale` is None for integers of which nothing tells it: that is an
        error only once values are needed.

    Raises
    ------
    ScalingError
        If bands or dates differ, metadata cannot be read or contradict each other, the offset is in digital numbers,
        or nodata does not fit the dtype.
    OptionError
        If an argument is not a number, or the scale is not positive.

    Examples
    --------
    >>> band = xr.DataArray(np.zeros((1, 2, 2), np.uint16), attrs={"nodata": 0})
    >>> resolve_scaling([band], scale=1e-4, offset=-0.1)
    Scaling(scale=0.0001, offset=-0.1, nodata=0.0, source='scale=')
    """
    spelling = spelling or Spelling()
    example = _example(arrays[0])
    for name, value in (("scale", scale), ("offset", offset), ("nodata", nodata)):
        if value is not None and (isinstance(value, bool | np.bool_) or not isinstance(value, Real)):
            raise OptionTypeError(f"{name} is {value!r}", "a number", example)
        try:
            float(value or 0)
        except OverflowError as error:  # integers of Python have no end
            raise OptionError(f"{name} is a number of more than 300 digits", "a smaller one", example) from error
    if scale is not None and not LEAST_SCALE <= float(scale) <= 1 / LEAST_SCALE:
        raise OptionError(f"scale is {scale}", "a positive number, usually below 1", example)
    if offset is not None and not np.isfinite(float(offset)):
        raise OptionError(f"offset is {offset}", "a finite number", example)
    said = [None if value is None else float(value) for value in (scale, offset, nodata)]
    given = Told(said[0], said[1], said[2], "scale=")
    found: list[tuple[str, Scaling]] = []
    for array in arrays:
        labels = array["band"].to_numpy().tolist() if "band" in array.coords and array["band"].ndim else [array.name]
        told = _of_item(array, given, spelling)
        found += zip(map(str, labels), [_of_one(array, given, one, index) for one in told] * len(labels), strict=False)
    for name, other in found:
        if other != found[0][1]:
            alike = [label for label, one in found if one == found[0][1]]
            raise ScalingError(
                f"bands are stored in different ways: {_told(*found[0])}; {_told(name, other)}",
                "one scale, offset and nodata for all bands",
                either(
                    option(f"bands={alike!r}") + "  # the bands that go with the first",
                    option("scale=", "offset=") + " and " + option("nodata=") + " where the metadata are wrong",
                    by="; or ",
                ),
            )
    return found[0][1]


def _example(array: xr.DataArray) -> str:
    """What may be typed for values of this dtype, if they are what they look like."""
    if array.dtype.kind == "f":
        return option("scale=1", "offset=0")
    nodata = () if {"_FillValue", "missing_value", "nodata"} & set(array.attrs) else ("nodata=0",)
    return option("scale=1e-4", "offset=0", *nodata)


def _of_item(array: xr.DataArray, given: Told, spelling: Spelling) -> list[Told]:
    """What the item tells of an array of integers; of floats it was applied when they were made."""
    if array.dtype.kind not in "iu" or (given.scale is not None and given.offset is not None):
        told = told_by_archive(array) if array.dtype.kind in "iu" and given.nodata is None else []
        return [Told(nodata=one.nodata) for one in told] or [Told()]
    told = told_by_archive(array)
    offsets = sentinel_offsets(array)
    if given.offset is not None:
        offsets = None if offsets is None else np.array([given.offset])
    elif offsets is not None and np.ptp(offsets):
        low = offsets < 0
        days = np.unique(array["time"].to_numpy()[low].astype("datetime64[D]")).astype(str).tolist()
        fill = _first_nodata(array, given, told)
        keep = f"~{spelling.on(days)}"
        units = 1 / (given.scale or SENTINEL_SCALE)
        raise ScalingError(
            f"{int(low.sum())} of {low.size} dates carry the offset of processing baseline 04.00, as {BASELINE} tells",
            "one offset for all dates",
            code(
                f"{spelling.subtract(-SENTINEL_OFFSET * units, keep, array.dtype, fill)}, with scale="
                f"{given.scale or SENTINEL_SCALE:g}, offset=0"
            ),
        )
    applied = offset_applied(array)
    if given.offset is None and applied is not None and applied.all() and any(one.offset for one in told):
        raise ScalingError(
            f"{told[0].source} tells the offset {next(one.offset for one in told if one.offset):g}, and {APPLIED} that "
            "it was subtracted already",
            "one offset",
            either(option("offset=0"), "the offset itself, if it was not", by="  # or "),
        )
    if offsets is None:
        return told or [Told()]
    by_baseline = Told(SENTINEL_SCALE, float(offsets[0]), None, BASELINE)
    if not told:
        return [by_baseline]
    return [
        Told(
            by_baseline.scale if one.scale is None else one.scale,
            by_baseline.offset if one.offset is None else one.offset,
            one.nodata,
            by_baseline.source if one.scale is None else one.source,
        )
        for one in told
    ]


def _first_nodata(array: xr.DataArray, given: Told, told: list[Told]) -> float | None:
    found = (given.nodata, *(number(array.attrs.get(key), key) for key in NODATA_KEYS), *(one.nodata for one in told))
    return next((value for value in found if value is not None and not np.isnan(value)), None)


def _of_one(array: xr.DataArray, given: Told, item: Told, index: bool) -> Scaling:
    is_float = array.dtype.kind == "f"
    attrs = pending(array)
    scale_attr = None if given.scale is not None else number(attrs.get("scale_factor"), "scale_factor")
    offset_attr = None if given.offset is not None else number(attrs.get("add_offset"), "add_offset")
    if array.dtype.kind in "iu" and scale_attr == 1 and not offset_attr:
        # Some readers write 1 and 0 where the file says nothing, and whole numbers cannot be reflectance.
        scale_attr = offset_attr = None
    used: float | None
    if given.scale is not None:
        used, source = given.scale, given.source
    elif item.scale is not None and not (item.scale == 1 and not item.offset):
        used, source = item.scale, item.source
    elif scale_attr is not None:
        used, source = scale_attr, "attribute scale_factor"
    elif is_float:
        used, source = 1.0, "float values are reflectance" if decoded_by(array) is None else "decoded when opened"
    else:
        used, source = None, "not told"
    offset = next((value for value in (given.offset, item.offset, offset_attr) if value is not None), None)
    return _checked(array, used, offset, _nodata(array, given.nodata, item), source, index)


def decoded_by(array: xr.DataArray) -> tuple[float, float] | None:
    """Scale and offset that were applied when an array was opened, None if none were.

    Parameters
    ----------
    array : DataArray
        The array, whose encoding tells.
    """
    scale = number(array.encoding.get("scale_factor"), "scale_factor")
    if array.dtype.kind != "f" or scale in (None, 1):
        return None
    return float(scale or 1), number(array.encoding.get("add_offset"), "add_offset") or 0.0


def _nodata(array: xr.DataArray, given: float | None, item: Told) -> float | None:
    if given is None:
        attrs = {**pending(array), "nodata": array.attrs.get("nodata")}
        if array.dtype.kind == "f" and same_number(attrs["nodata"], array.encoding.get("_FillValue")):
            attrs["nodata"] = None  # of the file; it was made NaN when it was opened
        told = {key: number(attrs.get(key), key) for key in NODATA_KEYS}
        told[item.source] = item.nodata
        known = {key: value for key, value in told.items() if value is not None and not np.isnan(value)}
        if len(set(known.values())) > 1:
            raise ScalingError(
                "the attributes tell of two values for nodata: " + ", ".join(f"{k} {v:g}" for k, v in known.items()),
                "one value",
                either(*(option(f"nodata={value:g}") for value in dict.fromkeys(known.values())), by=" or "),
            )
        given = next(iter(known.values()), None)
    return None if given is None or np.isnan(given) else given


def _checked(
    array: xr.DataArray, scale: float | None, offset: float | None, nodata: float | None, source: str, index: bool
) -> Scaling:
    if scale is not None and not LEAST_SCALE <= scale <= 1 / LEAST_SCALE:
        raise ScalingError(f"{source} is {scale}", "a positive number, usually below 1", option("scale=1e-4"))
    # An index in bytes begins at -1.
    if offset is not None and not abs(offset) < 1 and not (index and abs(offset) == 1):
        finite = bool(np.isfinite(offset))
        right = f"{offset * (scale if scale is not None and scale < 1 else 1e-4):g}" if finite else "0"
        raise ScalingError(
            f"the offset is {offset:g}" + ", which looks like digital numbers" * finite,
            "an offset in reflectance, which is added after scaling",
            option(f"offset={right}"),
        )
    if nodata is not None and array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        if not limits.min <= nodata <= limits.max or nodata != int(nodata):
            raise ScalingError(
                f"nodata is {nodata:g}, which {array.dtype} cannot hold",
                f"a whole number from {limits.min} to {limits.max}",
                option("nodata=0" if limits.min > -9999 else "nodata=-9999"),
            )
    elif nodata is not None:
        with np.errstate(over="ignore"):
            held = array.dtype.type(nodata)
        if np.isinf(held) and not np.isinf(float(nodata)):
            raise ScalingError(
                f"nodata is {nodata:g}, which {array.dtype} cannot hold", "a smaller number", option("nodata=-9999")
            )
    return Scaling(scale, float(offset or 0.0), None if nodata is None else float(nodata), source)


def _told(name: str, scaling: Scaling) -> str:
    return f"{name} has scale {scaling.scale}, offset {scaling.offset:g}, nodata {scaling.nodata}"


def valid(values: NDArray[Any], scaling: Scaling) -> NDArray[np.bool_]:
    """Tell where a stored value is a measurement: finite and not nodata.

    Parameters
    ----------
    values : ndarray, any shape
        Stored values.
    scaling : Scaling
        How they are stored.

    Returns
    -------
    ndarray of bool, shape of `values`
        True where measured.
    """
    measured: NDArray[np.bool_] | None = None
    if scaling.nodata is not None and not np.isnan(scaling.nodata):
        measured = values != values.dtype.type(scaling.nodata)
    if values.dtype.kind == "f":  # integers are always finite, and the look at each costs as much as a fill
        finite = np.isfinite(values)
        measured = finite if measured is None else measured & finite
    return np.ones(values.shape, bool) if measured is None else measured


def to_reflectance(values: NDArray[Any], scaling: Scaling) -> NDArray[np.float32]:
    """Turn stored values into reflectance. Nodata is scaled like the rest: see `valid`.

    Parameters
    ----------
    values : ndarray, any shape
        Stored values.
    scaling : Scaling
        How they are stored.

    Returns
    -------
    ndarray of float32, shape of `values`
        Reflectance [1].

    Raises
    ------
    ScalingError
        If the scale is not known.

    Examples
    --------
    >>> to_reflectance(np.array([500, 3500], np.uint16), Scaling(scale=1e-4, offset=-0.1))
    array([-0.05,  0.25], dtype=float32)
    """
    scale = _known(scaling)
    reflectance = values.astype(np.float32)  # before any arithmetic: unsigned integers would wrap
    if scale != 1:
        reflectance *= np.float32(scale)
    if scaling.offset:
        reflectance += np.float32(scaling.offset)
    return reflectance


def from_reflectance(reflectance: NDArray[Any], scaling: Scaling) -> NDArray[np.float32]:
    """Turn reflectance into stored units, not yet rounded: the inverse of `to_reflectance`.

    Parameters
    ----------
    reflectance : ndarray, any shape
        Reflectance [1].
    scaling : Scaling
        How values are stored.

    Returns
    -------
    ndarray of float32, shape of `reflectance`
        Stored units.

    Raises
    ------
    ScalingError
        If the scale is not known.
    """
    scale = _known(scaling)
    values = reflectance.astype(np.float32)
    if scaling.offset:
        values -= np.float32(scaling.offset)
    if scale != 1:
        values /= np.float32(scale)
    return values


def _known(scaling: Scaling) -> float:
    if scaling.scale is None:
        raise ScalingError(
            "whole numbers, of which nothing tells the scale",
            "reflectance, or its scale",
            option("scale=1e-4", "offset=0"),
        )
    return scaling.scale


def encode(values: NDArray[Any], dtype: np.dtype[Any], scaling: Scaling) -> NDArray[Any]:
    """Write values in stored units as the storage dtype.

    Parameters
    ----------
    values : ndarray of float32, any shape
        Values in stored units. Finite, unless the dtype is a float: what is unknown is put in afterwards.
    dtype : dtype
        Storage dtype.
    scaling : Scaling
        How values are stored.

    Returns
    -------
    ndarray of `dtype`, shape of `values`
        For integers rounded half to even and clipped to the range of the dtype, so that nothing wraps. A
        value that would land on nodata moves by one, into the range.

    Examples
    --------
    >>> encode(np.array([0.2, 70000.0, 12.5], np.float32), np.dtype("uint16"), Scaling(1e-4, nodata=0))
    array([    1, 65535,    12], dtype=uint16)
    """
    nodata = scaling.nodata
    if dtype.kind == "f":
        stored = values.astype(dtype)
        if nodata is not None:
            # Towards zero, beyond which the largest numbers have no neighbour.
            side = dtype.type(np.inf if nodata <= 0 else -np.inf)
            stored[stored == dtype.type(nodata)] = np.nextafter(dtype.type(nodata), side)
        return stored
    limits = np.iinfo(dtype)
    # float32 cannot hold the limits of wide integers, nor float64 those of the widest.
    wide: NDArray[Any] = values.astype(np.float64 if dtype.itemsize > 2 else np.float32)
    low, high = float(limits.min), float(limits.max)
    if int(high) > limits.max:
        high = float(np.nextafter(high, 0.0))
    rounded = np.rint(np.clip(wide, low, high))
    if nodata is not None:
        hit = rounded == nodata
        up = wide[hit] >= nodata if low < nodata < high else nodata == low
        rounded[hit] = np.where(up, nodata + 1, nodata - 1)
    return np.asarray(rounded.astype(dtype))
