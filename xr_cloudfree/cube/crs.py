"""The coordinate reference system of a cube: from its grid mapping, else from other coordinates and attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import xarray as xr

from xr_cloudfree.compat import has_graph, raw_data
from xr_cloudfree.errors import GridError

KEYS = ("proj:code", "proj:epsg", "epsg", "proj:wkt2", "crs", "crs_wkt", "spatial_ref", "proj:projjson")
"""Names of coordinates and attributes with a CRS (in stackstac, cubo, odc-stac, STAC items)."""

_METRES_PER_DEGREE = 111_195.0  # of latitude, on a sphere
_DEGREES = ("lat", "latitude", "lon", "longitude")


def crs_of(array: xr.DataArray) -> Any:
    """Return the coordinate reference system as a rasterio CRS, None if there is none.

    A CF grid mapping takes precedence over the coordinates and attributes in `KEYS`.

    Parameters
    ----------
    array : DataArray
        An array with its coordinates and attributes.

    Raises
    ------
    GridError
        If one cannot be read, or several differ.
    """
    import rioxarray  # noqa: F401  registers .rio

    called = "the cube" if array.name is None else str(array.name)
    try:
        crs = array.rio.crs
    except Exception as error:  # pyproj, rasterio and rioxarray have no common exception
        raise GridError(
            f"the CRS of {called} cannot be read: {error}",
            "a CRS that pyproj can read, or none",
            "cube.rio.write_crs('EPSG:32629') with the right one, or cube.drop_vars('spatial_ref')",
        ) from error
    if crs is not None:
        return crs
    candidates = {}
    for key, value in _metadata(array):
        crs = _parse(key, value)
        if crs is not None:
            candidates[key] = crs
    if len(set(map(str, candidates.values()))) > 1:
        raise GridError(
            f"{called} has several CRSs: " + "; ".join(f"{key} {crs}" for key, crs in candidates.items()),
            "one CRS",
            f"cube.rio.write_crs({str(next(iter(candidates.values())))!r})",
        )
    return next(iter(candidates.values()), None)


def _metadata(array: xr.DataArray) -> Iterator[tuple[str, Any]]:
    """Yield the names and values of the coordinates and attributes in `KEYS`."""
    for key in KEYS:
        if key in array.coords and not has_graph(raw_data(array.coords[key].variable)):
            values = np.atleast_1d(array.coords[key].to_numpy()).ravel()
            known = [value for value in values.tolist() if value is not None and value == value]
            distinct = {str(value): value for value in known}
            if len(distinct) > 1:
                raise GridError(
                    f"the coordinate {key} has several values: {', '.join(list(distinct)[:4])}",
                    "scenes on one grid, in one CRS",
                    "odc.stac.load(items, crs='EPSG:32629'), which puts all scenes on one grid",
                )
            yield from ((key, value) for value in distinct.values())
        if array.attrs.get(key) is not None:
            yield key, array.attrs[key]


def _parse(key: str, value: Any) -> Any:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, str) and value.strip().isdecimal():
        value = int(value)
    try:
        if isinstance(value, Mapping):
            return CRS.from_user_input(dict(value)) if value else None
        if isinstance(value, float) and value.is_integer():
            value = int(value)
        if isinstance(value, int):
            return CRS.from_epsg(value) if value > 0 else None  # 0 is the value of a grid mapping variable
        if hasattr(value, "to_wkt"):
            return CRS.from_wkt(value.to_wkt())
        return CRS.from_user_input(value) if isinstance(value, str) and value else None
    except CRSError as error:
        raise GridError(
            f"the CRS of the cube cannot be read: {key} is {value!r}",
            "a CRS that pyproj can read, or none",
            f"cube.drop_vars({key!r}).rio.write_crs('EPSG:32629') with the right one",
        ) from error


def crs_as_coordinate(ds: xr.Dataset) -> xr.Dataset:
    """Return the Dataset with its grid mapping as a coordinate. Without ``decode_coords="all"`` it is a variable.

    Parameters
    ----------
    ds : Dataset
        The Dataset as opened.
    """
    mappings = {
        str(attrs.get("grid_mapping")) for array in ds.data_vars.values() for attrs in (array.attrs, array.encoding)
    }
    names = [
        str(name)
        for name, array in ds.data_vars.items()
        if str(name) in mappings
        or (array.ndim == 0 and {"crs_wkt", "spatial_ref", "grid_mapping_name"} & set(map(str, array.attrs)))
    ]
    return ds.set_coords(sorted(names))


def with_crs(array: xr.DataArray) -> xr.DataArray:
    """Return the array with its CRS as a CF grid mapping.

    Parameters
    ----------
    array : DataArray
        Array with dimensions named time, band, y and x.
    """
    import rioxarray  # noqa: F401  registers .rio

    crs = crs_of(array)
    if crs is None or (array.rio.crs == crs and _has_mapping(array)):
        return array
    written: xr.DataArray = array.copy(deep=False)
    written.attrs = {key: value for key, value in array.attrs.items() if key not in ("crs", "crs_wkt")}
    written = written.rio.write_crs(crs)
    return written


def _has_mapping(array: xr.DataArray) -> bool:
    name = array.encoding.get("grid_mapping", array.attrs.get("grid_mapping", "spatial_ref"))
    return str(name) in array.coords


def crs_remedy(obj: xr.DataArray | xr.Dataset) -> str:
    """Return the remedy for a cube without a CRS: EPSG:4326 for degrees, else an example.

    Examples
    --------
    >>> crs_remedy(xr.DataArray([[0.0]], dims=("lat", "lon")))
    "cube.rio.write_crs('EPSG:4326')"
    >>> crs_remedy(xr.DataArray([[0.0]], dims=("y", "x")))
    "cube.rio.write_crs('EPSG:32629') with the right one"
    """
    degrees = [
        str(dim).lower() in _DEGREES or str(obj[dim].attrs.get("units", "")).lower().startswith("degree")
        for dim in obj.dims
    ]
    return f"cube.rio.write_crs('EPSG:{4326 if sum(degrees) == 2 else 32629}')" + (
        "" if sum(degrees) == 2 else " with the right one"
    )


def crs_text(crs: Any) -> str:
    """Return the code of a CRS, or its name if it has no code."""
    text = str(crs.to_string())
    # Without a code it is WKT, which begins with the name in quotes.
    return text.split('"')[1] if '"' in text else text


def pixel_metres(array: xr.DataArray) -> float | None:
    """Return the height of a pixel in metres; None if there is no CRS, or only one row.

    Examples
    --------
    >>> rows = xr.DataArray(np.zeros(3), dims="y", coords={"y": [50.002, 50.001, 50.0]})
    >>> round(pixel_metres(rows.assign_attrs(crs="EPSG:4326")))
    111
    """
    crs = crs_of(array)
    if crs is None or array.sizes["y"] < 2 or "y" not in array.coords:
        return None
    rows = array.coords["y"].to_numpy().astype(np.float64)
    step = abs(rows[-1] - rows[0]) / (rows.size - 1)
    unit = _METRES_PER_DEGREE if crs.is_geographic else crs.linear_units_factor[1]
    return float(step * unit)
