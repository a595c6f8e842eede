"""What stored numbers mean: ``reflectance = stored * scale + offset``, and back without a wrap."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.attributes import pending, same_number
from xr_cloudfree.errors import OptionError, OptionTypeError, ScalingError

# Beyond these a float32 could not hold what becomes of the values.
LEAST_SCALE = 1e-12
# What of a variable's encoding belongs to the values; the rest (chunks, compression) belongs to the old file.
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
) -> Scaling:
    """Read the scaling of a cube from the arguments, else from attributes, else from the dtype.

    Attributes ``scale_factor`` and ``add_offset`` are still to be applied. In the encoding they were applied
    when the cube was opened. Nothing is computed.

    Parameters
    ----------
    arrays : sequence of DataArray
        The bands, or the one array that holds them all.
    scale, offset, nodata : float, optional
        What the user says; wins over attributes.

    Returns
    -------
    Scaling
        One scaling for all bands. `Scaling.scale` is None for integers of which nothing tells it: that is an
        error only once values are needed.

    Raises
    ------
    ScalingError
        If bands differ, the offset is in digital numbers, or nodata does not fit the dtype.
    OptionError
        If an argument is not a number, or the scale is not positive.

    Examples
    --------
    >>> band = xr.DataArray(np.zeros((1, 2, 2), np.uint16), attrs={"nodata": 0})
    >>> resolve_scaling([band], scale=1e-4, offset=-0.1)
    Scaling(scale=0.0001, offset=-0.1, nodata=0.0, source='scale=')
    """
    for name, value in (("scale", scale), ("offset", offset), ("nodata", nodata)):
        if value is not None and (isinstance(value, bool | np.bool_) or not isinstance(value, Real)):
            raise OptionTypeError(f"{name} is {value!r}", "a number", "scale=1e-4, offset=-0.1, nodata=0")
        try:
            float(value or 0)
        except OverflowError as error:  # integers of Python have no end
            raise OptionError(
                f"{name} is a number of more than 300 digits", "a smaller one", "scale=1e-4, offset=-0.1, nodata=0"
            ) from error
    if scale is not None and not LEAST_SCALE <= float(scale) <= 1 / LEAST_SCALE:
        raise OptionError(f"scale is {scale}", "a positive number, usually below 1", "scale=1e-4")
    if offset is not None and not np.isfinite(float(offset)):
        raise OptionError(f"offset is {offset}", "a finite number", "offset=-0.1")
    offset = None if offset is None else float(offset)
    found = [_of_one(array, scale, offset, nodata) for array in arrays]
    for array, other in zip(arrays, found, strict=True):
        if other != found[0]:
            raise ScalingError(
                f"bands are stored in different ways: {_told(arrays[0], found[0])}; {_told(array, other)}",
                "one scale, offset and nodata for all bands",
                "bands=['B02', 'B03'] with bands that go together, or scale=, offset= and nodata= where the "
                "attributes are wrong",
            )
    return found[0]


def _of_one(array: xr.DataArray, scale: float | None, offset: float | None, nodata: float | None) -> Scaling:
    is_float = array.dtype.kind == "f"
    attrs, encoding = pending(array), array.encoding
    scale_attr, offset_attr = _number(attrs, "scale_factor"), _number(attrs, "add_offset")
    if array.dtype.kind in "iu" and scale_attr == 1 and not offset_attr:
        # Some readers write 1 and 0 where the file says nothing, and whole numbers cannot be reflectance.
        scale_attr = offset_attr = None
    if scale is not None:
        used, source = float(scale), "scale="
    elif scale_attr is not None:
        used, source = scale_attr, "attribute scale_factor"
    elif is_float:
        decoded = _number(encoding, "scale_factor") not in (None, 1)
        used, source = 1.0, "decoded when opened" if decoded else "float values are reflectance"
    else:
        return _checked(array, None, offset_attr if offset is None else offset, nodata, "not told")
    return _checked(array, used, offset_attr if offset is None else offset, nodata, source)


def _checked(
    array: xr.DataArray, scale: float | None, offset: float | None, nodata: float | None, source: str
) -> Scaling:
    if scale is not None and not LEAST_SCALE <= scale <= 1 / LEAST_SCALE:
        raise ScalingError(f"the attribute scale_factor is {scale}", "a positive number, usually below 1", "scale=1e-4")
    if offset is not None and not abs(offset) < 1:
        finite = bool(np.isfinite(offset))
        right = f"{offset * (scale if scale is not None and scale < 1 else 1e-4):g}" if finite else "-0.1"
        raise ScalingError(
            f"the offset is {offset:g}" + ", which looks like digital numbers" * finite,
            "an offset in reflectance, which is added after scaling",
            f"offset={right}",
        )
    if nodata is None:
        attrs = {**pending(array), "nodata": array.attrs.get("nodata")}
        if array.dtype.kind == "f" and same_number(attrs["nodata"], array.encoding.get("_FillValue")):
            attrs["nodata"] = None  # of the file; it was made NaN when it was opened
        told = {key: _number(attrs, key) for key in ("_FillValue", "missing_value", "nodata")}
        told = {key: value for key, value in told.items() if value is not None and not np.isnan(value)}
        if len(set(told.values())) > 1:
            raise ScalingError(
                "the attributes tell of two values for nodata: " + ", ".join(f"{k} {v:g}" for k, v in told.items()),
                "one value",
                " or ".join(f"nodata={value:g}" for value in told.values()),
            )
        nodata = next(iter(told.values()), None)
    if nodata is not None and np.isnan(float(nodata)):
        nodata = None
    if nodata is not None and array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        if not limits.min <= nodata <= limits.max or nodata != int(nodata):
            raise ScalingError(
                f"nodata is {nodata:g}, which {array.dtype} cannot hold",
                f"a whole number from {limits.min} to {limits.max}",
                "nodata=0" if limits.min == 0 else "nodata=-9999",
            )
    elif nodata is not None:
        with np.errstate(over="ignore"):
            held = array.dtype.type(nodata)
        if np.isinf(held) and not np.isinf(float(nodata)):
            raise ScalingError(
                f"nodata is {nodata:g}, which {array.dtype} cannot hold", "a smaller number", "nodata=-9999"
            )
    return Scaling(scale, float(offset or 0.0), None if nodata is None else float(nodata), source)


def _number(attrs: Mapping[Any, Any], key: str) -> float | None:
    value = attrs.get(key)
    if value is None:
        return None
    try:
        return float(np.asarray(value).item())
    except (TypeError, ValueError) as error:
        raise ScalingError(
            f"the attribute {key} is {value!r}", "one number", "scale=1e-4, offset=0, nodata=0"
        ) from error


def _told(array: xr.DataArray, scaling: Scaling) -> str:
    name = array.name if array.name is not None else "the first"
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
            "scale=1e-4, offset=0",
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
