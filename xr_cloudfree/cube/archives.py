"""What archives say of scale, offset and nodata beside CF: in attributes, and in coordinates of bands and dates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.errors import ScalingError, option

_UNITS = ("QUANTIFICATION_VALUE", "BOA_QUANTIFICATION_VALUE")
BASELINE, APPLIED = "s2:processing_baseline", "earthsearch:boa_offset_applied"
SENTINEL_SCALE, SENTINEL_OFFSET = 1e-4, -0.1
"""Sentinel-2 L2A from processing baseline 04.00 on; before it the offset is 0."""


@dataclass(frozen=True)
class Told:
    """What one source says of one band; None where it says nothing."""

    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    source: str = ""


def number(value: Any, key: str) -> float | None:
    """The one number that an attribute holds, None if it is not there.

    Raises
    ------
    ScalingError
        If it is anything else.
    """
    if value is None:
        return None
    try:
        return float(np.asarray(value).item())
    except (TypeError, ValueError, OverflowError) as error:
        raise ScalingError(
            f"the attribute {key} is {value!r}", "one number", option("scale=1e-4", "offset=0", "nodata=0")
        ) from error


def told_by_archive(array: xr.DataArray) -> list[Told]:
    """What an array's own band metadata say, one for all bands or one per band; empty if they say nothing.

    Looked at are, in this order, STAC's ``raster:bands`` (an attribute or a coordinate), EOPF's ``_eopf_attrs``, GDAL's
    ``scales`` and ``offsets``, and ``QUANTIFICATION_VALUE`` with ``BOA_ADD_OFFSET``.

    Raises
    ------
    ScalingError
        If they cannot be read.

    Examples
    --------
    >>> band = xr.DataArray(np.zeros((1, 2, 2)), attrs={"raster:bands": [{"scale": 1e-4, "offset": -0.1}]})
    >>> told_by_archive(band)
    [Told(scale=0.0001, offset=-0.1, nodata=None, source='raster:bands')]
    """
    readers: tuple[Callable[[xr.DataArray], list[Told]], ...] = (_raster_bands, _eopf, _gdal, _product)
    for reader in readers:
        told = [one for one in reader(array)]
        if any(one.scale is not None or one.offset is not None or one.nodata is not None for one in told):
            return told if any(one != told[0] for one in told) else told[:1]
    return []


def select_bands(array: xr.DataArray, index: Sequence[int]) -> xr.DataArray:
    """Some bands of an array, with what its attributes list band by band.

    Examples
    --------
    >>> cube = xr.DataArray(np.zeros((3, 2)), dims=("band", "x"), attrs={"offsets": (0.0, 0.0, -0.1)})
    >>> select_bands(cube, [2]).attrs
    {'offsets': (-0.1,)}
    """
    chosen = array.isel(band=list(index))
    for key in ("raster:bands", "scales", "offsets", *_UNITS, "BOA_ADD_OFFSET"):
        try:
            value = _parsed(array.attrs.get(key), key)
        except ScalingError:  # which is told when the value is needed
            continue
        if isinstance(value, list | tuple) and len(value) == array.sizes["band"]:
            chosen.attrs[key] = type(value)(value[i] for i in index)
    return chosen


def _values(coordinate: xr.DataArray) -> NDArray[Any]:
    """The values of a small coordinate. ``cube.chunk()`` makes it lazy like the cube, but it is still metadata."""
    data = coordinate.variable.data
    if hasattr(data, "__dask_graph__"):
        data = data.compute(scheduler="synchronous")
    return np.asarray(data)


def _n_bands(array: xr.DataArray) -> int:
    return int(array.sizes.get("band", 1))


def _bands_of(entries: list[Any], array: xr.DataArray, key: str) -> list[Any]:
    if len(entries) not in (1, _n_bands(array)):
        raise ScalingError(
            f"{key} tells of {len(entries)} bands, and there are {_n_bands(array)}",
            "one entry, or one for each band",
            option("scale=1e-4", "offset=0", "nodata=0"),
        )
    return entries


def _parsed(value: Any, key: str) -> Any:
    if isinstance(value, bytes | str):
        try:
            return json.loads(value)
        except ValueError as error:
            raise ScalingError(f"{key} is {value!r}", "JSON", option("scale=1e-4", "offset=0", "nodata=0")) from error
    if isinstance(value, np.ndarray):
        return value.tolist()
    return value


def _mapping(value: Any, key: str) -> Mapping[Any, Any]:
    value = _parsed(value, key)
    if isinstance(value, list | tuple) and value:  # an asset of one band
        value = value[0]
    if isinstance(value, Mapping):
        return value
    if value is None or (isinstance(value, float) and np.isnan(value)):  # an asset without the entry
        return {}
    raise ScalingError(
        f"{key} holds {value!r}",
        "a mapping with scale, offset and nodata",
        option("scale=1e-4", "offset=0", "nodata=0"),
    )


def _nodata(value: Any, key: str) -> float | None:
    """Nodata, which JSON has to write as a text where it is no number."""
    if isinstance(value, str) and value.lower() in ("nan", "inf", "-inf"):
        return None
    return number(value, key)


def _raster_bands(array: xr.DataArray) -> list[Told]:
    key = "raster:bands"
    if key in array.attrs:
        value = _parsed(array.attrs[key], key)
        entries = list(value) if isinstance(value, list | tuple) else [value]
        entries = _bands_of(entries, array, key) if entries else []
    elif key in array.coords and set(array.coords[key].dims) <= {"time", "band"}:
        coordinate = array.coords[key]
        values = coordinate.transpose("time", ...) if "time" in coordinate.dims else coordinate
        table = np.empty(values.shape, object)
        table[...] = _values(values)
        rows = [table.tolist()] if "time" not in coordinate.dims else table.tolist()
        rows = [row if "band" in coordinate.dims else [row] for row in rows]
        if any(row != rows[0] for row in rows):
            told = [[_as_told(_mapping(entry, key), key) for entry in row] for row in rows]
            if any(row != told[0] for row in told):
                raise ScalingError(
                    f"{key} differs between dates",
                    "one scale, offset and nodata for all dates",
                    option("scale=1e-4", "offset=0", "nodata=0")
                    + "  # for dates that go together: cube.isel(time=[0, 1])",
                )
        entries = rows[0]
    else:
        return []
    return [_as_told(_mapping(entry, key), key) for entry in entries]


def _as_told(entry: Mapping[Any, Any], key: str) -> Told:
    return Told(
        number(entry.get("scale"), f"{key} scale"),
        number(entry.get("offset"), f"{key} offset"),
        _nodata(entry.get("nodata"), f"{key} nodata"),
        key,
    )


def _eopf(array: xr.DataArray) -> list[Told]:
    key = "_eopf_attrs"
    if key not in array.attrs:
        return []
    entry = _mapping(array.attrs[key], key)
    first = {name: next((entry[n] for n in names if entry.get(n) is not None), None) for name, names in _EOPF.items()}
    scale, offset, nodata = (number(first[name], f"{key} {name}") for name in ("scale", "offset", "nodata"))
    return [Told(scale, offset, nodata, key)]


_EOPF = {"scale": ("scale_factor", "scale"), "offset": ("add_offset", "offset"), "nodata": ("fill_value", "_FillValue")}


def _listed(array: xr.DataArray, key: str) -> list[Any] | None:
    value = array.attrs.get(key)
    if value is None:
        return None
    value = _parsed(value, key) if isinstance(value, str | bytes | np.ndarray) else value
    return _bands_of(list(value), array, key) if isinstance(value, list | tuple) else [value]


def _per_band(values: Iterable[list[Any] | None]) -> Iterable[tuple[Any, ...]]:
    """Entries of several lists side by side, where a list may be missing, or have one entry for all."""
    lists = [[None] if one is None else one for one in values]
    n = max(map(len, lists))
    return zip(*(one * n if len(one) == 1 else one for one in lists), strict=True)


def _gdal(array: xr.DataArray) -> list[Told]:
    told = [
        Told(number(scale, "scales"), number(offset, "offsets"), None, "scales and offsets")
        for scale, offset in _per_band([_listed(array, "scales"), _listed(array, "offsets")])
    ]
    # GDAL writes 1 and 0 where a file says nothing.
    return [] if all(one.scale in (None, 1) and not one.offset for one in told) else told


def _product(array: xr.DataArray) -> list[Told]:
    units = next((u for u in _UNITS if u in array.attrs), None)
    shift = "BOA_ADD_OFFSET" if "BOA_ADD_OFFSET" in array.attrs else None
    if units is None and shift is None:
        return []
    made = []
    lists = [_listed(array, units) if units else None, _listed(array, shift) if shift else None]
    for unit, offset in _per_band(lists):
        per_one = number(unit, units or "") if units else 1 / SENTINEL_SCALE
        digits = number(offset, shift or "") if shift else None
        if per_one is None or not 1 <= per_one <= 1e9:
            raise ScalingError(
                f"{units} is {unit!r}", "digital numbers for a reflectance of 1", option("scale=1e-4", "offset=0")
            )
        made.append(Told(1 / per_one, None if digits is None else digits / per_one, None, units or "BOA_ADD_OFFSET"))
    return made


def sentinel_offsets(array: xr.DataArray) -> NDArray[np.float64] | None:
    """The offset of each date, or of all, as the processing baseline tells it; None if nothing tells.

    Parameters
    ----------
    array : DataArray
        With the coordinates or attributes ``s2:processing_baseline`` and, if the archive has subtracted the offset
        from some dates, ``earthsearch:boa_offset_applied``.
    """
    baseline = _by_date(array, BASELINE)
    if baseline is None:
        return None
    versions = np.array([_version(value) for value in baseline])
    if np.isnan(versions).any():
        return None
    subtracted = offset_applied(array)
    carries = versions >= 4
    if subtracted is not None:
        carries = carries & ~subtracted
    return np.where(carries, SENTINEL_OFFSET, 0.0)


def offset_applied(array: xr.DataArray) -> NDArray[np.bool_] | None:
    """Whether the archive has subtracted the offset, of each date or of all; None if nothing tells."""
    applied = _by_date(array, APPLIED)
    if applied is None:
        return None
    known = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
    found = [known.get(str(value).lower()) for value in applied]
    return None if any(one is None for one in found) else np.array(found, bool)


def _by_date(array: xr.DataArray, key: str) -> list[Any] | None:
    if key in array.coords and array.coords[key].dims in ((), ("time",)):
        return list(np.atleast_1d(_values(array.coords[key])))
    return None if key not in array.attrs else [array.attrs[key]]


def _version(value: Any) -> float:
    """The baseline as a number: "05.10", 5.1 and "N0510" are 5.1."""
    text = str(value).strip().upper()
    if text.startswith("N") and text[1:].isdigit():
        return int(text[1:]) / 100
    try:
        return float(text)
    except ValueError:
        return float("nan")
