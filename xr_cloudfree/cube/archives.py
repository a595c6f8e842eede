"""Read scale, offset and nodata from metadata of archives beyond CF: attributes, and coordinates of bands or dates."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.cube.sensors import find_sensor
from xr_cloudfree.errors import ScalingError, option

_UNITS = ("QUANTIFICATION_VALUE", "BOA_QUANTIFICATION_VALUE")
BASELINE, APPLIED = "s2:processing_baseline", "earthsearch:boa_offset_applied"
SENTINEL = find_sensor("sentinel-2").encodings[0]
"""Encoding of Sentinel-2 L2A from processing baseline 04.00 on; before it the offset is 0."""


@dataclass(frozen=True)
class BandEncoding:
    """Scale, offset and nodata of one band from one source; None for what the source does not give."""

    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    source: str = ""


def parse_number(value: Any, key: str) -> float | None:
    """Return the number that an attribute holds, None for None.

    Raises
    ------
    ScalingError
        If the attribute is not a single number.
    """
    if value is None:
        return None
    try:
        return float(np.asarray(value).item())
    except (TypeError, ValueError, OverflowError) as error:
        raise ScalingError(
            f"the attribute {key} is {value!r}", "one number", option("scale=1e-4", "offset=0", "nodata=0")
        ) from error


def read_encoding(array: xr.DataArray) -> list[BandEncoding]:
    """Return the encoding in an array's metadata, one for all bands or one per band; empty if there is none.

    The sources are, in this order, STAC's ``raster:bands`` (an attribute or a coordinate), EOPF's ``_eopf_attrs``,
    GDAL's ``scales`` and ``offsets``, and ``QUANTIFICATION_VALUE`` with ``BOA_ADD_OFFSET``.

    Raises
    ------
    ScalingError
        If the metadata cannot be read.

    Examples
    --------
    >>> band = xr.DataArray(np.zeros((1, 2, 2)), attrs={"raster:bands": [{"scale": 1e-4, "offset": -0.1}]})
    >>> read_encoding(band)
    [BandEncoding(scale=0.0001, offset=-0.1, nodata=None, source='raster:bands')]
    """
    readers: tuple[Callable[[xr.DataArray], list[BandEncoding]], ...] = (_raster_bands, _eopf, _gdal, _product)
    for reader in readers:
        bands = reader(array)
        if any(band.scale is not None or band.offset is not None or band.nodata is not None for band in bands):
            return bands if any(band != bands[0] for band in bands) else bands[:1]
    return []


def select_bands(array: xr.DataArray, index: Sequence[int]) -> xr.DataArray:
    """Return some bands of an array, with the entries of attributes that list values per band.

    Examples
    --------
    >>> cube = xr.DataArray(np.zeros((3, 2)), dims=("band", "x"), attrs={"offsets": (0.0, 0.0, -0.1)})
    >>> select_bands(cube, [2]).attrs
    {'offsets': (-0.1,)}
    """
    selected = array.isel(band=list(index))
    for key in ("raster:bands", "scales", "offsets", *_UNITS, "BOA_ADD_OFFSET"):
        try:
            value = _parsed(array.attrs.get(key), key)
        except ScalingError:  # raised again when the value is needed
            continue
        if isinstance(value, list | tuple) and len(value) == array.sizes["band"]:
            selected.attrs[key] = type(value)(value[i] for i in index)
    return selected


def _values(coordinate: xr.DataArray) -> NDArray[Any]:
    """Return the values of a small coordinate, computed if lazy: ``cube.chunk()`` also chunks metadata."""
    data = coordinate.variable.data
    if hasattr(data, "__dask_graph__"):
        data = data.compute(scheduler="synchronous")
    return np.asarray(data)


def _n_bands(array: xr.DataArray) -> int:
    return int(array.sizes.get("band", 1))


def _bands_of(entries: list[Any], array: xr.DataArray, key: str) -> list[Any]:
    if len(entries) not in (1, _n_bands(array)):
        raise ScalingError(
            f"{key} has {len(entries)} entries, but there are {_n_bands(array)} bands",
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
    if isinstance(value, list | tuple) and value:  # an asset with one band
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
    """Return nodata, None for the texts by which JSON represents values that are not finite."""
    if isinstance(value, str) and value.lower() in ("nan", "inf", "-inf"):
        return None
    return parse_number(value, key)


def _raster_bands(array: xr.DataArray) -> list[BandEncoding]:
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
            dates = [[_from_mapping(_mapping(entry, key), key) for entry in row] for row in rows]
            if any(bands != dates[0] for bands in dates):
                raise ScalingError(
                    f"{key} differs between dates",
                    "one scale, offset and nodata for all dates",
                    option("scale=1e-4", "offset=0", "nodata=0") + "  # for dates that agree: cube.isel(time=[0, 1])",
                )
        entries = rows[0]
    else:
        return []
    return [_from_mapping(_mapping(entry, key), key) for entry in entries]


def _from_mapping(entry: Mapping[Any, Any], key: str) -> BandEncoding:
    return BandEncoding(
        parse_number(entry.get("scale"), f"{key} scale"),
        parse_number(entry.get("offset"), f"{key} offset"),
        _nodata(entry.get("nodata"), f"{key} nodata"),
        key,
    )


def _eopf(array: xr.DataArray) -> list[BandEncoding]:
    key = "_eopf_attrs"
    if key not in array.attrs:
        return []
    entry = _mapping(array.attrs[key], key)
    first = {name: next((entry[n] for n in names if entry.get(n) is not None), None) for name, names in _EOPF.items()}
    scale, offset, nodata = (parse_number(first[name], f"{key} {name}") for name in ("scale", "offset", "nodata"))
    return [BandEncoding(scale, offset, nodata, key)]


_EOPF = {"scale": ("scale_factor", "scale"), "offset": ("add_offset", "offset"), "nodata": ("fill_value", "_FillValue")}


def _listed(array: xr.DataArray, key: str) -> list[Any] | None:
    value = array.attrs.get(key)
    if value is None:
        return None
    value = _parsed(value, key) if isinstance(value, str | bytes | np.ndarray) else value
    return _bands_of(list(value), array, key) if isinstance(value, list | tuple) else [value]


def _per_band(values: Iterable[list[Any] | None]) -> Iterable[tuple[Any, ...]]:
    """Zip lists of entries per band, of which some may be None or have one entry for all bands."""
    lists = [[None] if entries is None else entries for entries in values]
    n = max(map(len, lists))
    return zip(*(entries * n if len(entries) == 1 else entries for entries in lists), strict=True)


def _gdal(array: xr.DataArray) -> list[BandEncoding]:
    bands = [
        BandEncoding(parse_number(scale, "scales"), parse_number(offset, "offsets"), None, "scales and offsets")
        for scale, offset in _per_band([_listed(array, "scales"), _listed(array, "offsets")])
    ]
    # GDAL writes 1 and 0 for a file without scale and offset.
    return [] if all(band.scale in (None, 1) and not band.offset for band in bands) else bands


def _product(array: xr.DataArray) -> list[BandEncoding]:
    units = next((u for u in _UNITS if u in array.attrs), None)
    shift = "BOA_ADD_OFFSET" if "BOA_ADD_OFFSET" in array.attrs else None
    if units is None and shift is None:
        return []
    bands = []
    lists = [_listed(array, units) if units else None, _listed(array, shift) if shift else None]
    for unit, offset in _per_band(lists):
        quantification = parse_number(unit, units or "") if units else 1 / SENTINEL.scale
        digits = parse_number(offset, shift or "") if shift else None
        if quantification is None or not 1 <= quantification <= 1e9:
            raise ScalingError(
                f"{units} is {unit!r}", "digital numbers for a reflectance of 1", option("scale=1e-4", "offset=0")
            )
        reflectance = None if digits is None else digits / quantification
        bands.append(BandEncoding(1 / quantification, reflectance, None, units or "BOA_ADD_OFFSET"))
    return bands


def sentinel_offsets(array: xr.DataArray) -> NDArray[np.float64] | None:
    """Return the offset of each date, or of all, by the processing baseline; None if unknown.

    Parameters
    ----------
    array : DataArray
        Array with the coordinate or attribute ``s2:processing_baseline`` and, if the archive has subtracted the offset
        on some dates, ``earthsearch:boa_offset_applied``.
    """
    baseline = _by_date(array, BASELINE)
    if baseline is None:
        return None
    versions = np.array([_version(value) for value in baseline])
    if np.isnan(versions).any():
        return None
    subtracted = offset_applied(array)
    has_offset = versions >= 4
    if subtracted is not None:
        has_offset = has_offset & ~subtracted
    return np.where(has_offset, SENTINEL.offset, 0.0)


def offset_applied(array: xr.DataArray) -> NDArray[np.bool_] | None:
    """Return whether the archive has subtracted the offset, for each date or for all; None if unknown."""
    applied = _by_date(array, APPLIED)
    if applied is None:
        return None
    known = {"true": True, "false": False, "1": True, "0": False, "1.0": True, "0.0": False}
    values = [known.get(str(value).lower()) for value in applied]
    return None if any(value is None for value in values) else np.array(values, bool)


def _by_date(array: xr.DataArray, key: str) -> list[Any] | None:
    if key in array.coords and array.coords[key].dims in ((), ("time",)):
        return list(np.atleast_1d(_values(array.coords[key])))
    return None if key not in array.attrs else [array.attrs[key]]


def _version(value: Any) -> float:
    """Return the baseline as a number: 5.1 for "05.10", 5.1 and "N0510"."""
    text = str(value).strip().upper()
    if text.startswith("N") and text[1:].isdigit():
        return int(text[1:]) / 100
    try:
        return float(text)
    except ValueError:
        return float("nan")
