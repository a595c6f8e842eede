"""The Zarr conventions for geospatial data, by which software without CF finds a store's CRS and grid.

``proj:`` holds the CRS, ``spatial:`` the dimensions, the affine transform, the extent and the shape; each is
registered in the attribute ``zarr_conventions``. They describe a store as it was written, so they are made anew when
an image is written, and left out when a store is opened: a part of an image has another grid.

Sources, at their release v0.1: https://github.com/zarr-conventions/zarr-conventions-spec,
https://github.com/zarr-conventions/proj, https://github.com/zarr-conventions/spatial
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from xr_cloudfree.cube.crs import crs_of
from xr_cloudfree.cube.dims import dim_of
from xr_cloudfree.errors import GridError

CONVENTIONS = "zarr_conventions"
_TAG = "v0.1"


def _registration(name: str, uuid: str, description: str) -> dict[str, str]:
    return {
        "uuid": uuid,
        "schema_url": f"https://raw.githubusercontent.com/zarr-conventions/{name}/refs/tags/{_TAG}/schema.json",
        "spec_url": f"https://github.com/zarr-conventions/{name}/blob/{_TAG}/README.md",
        "name": name,
        "description": description,
    }


PROJ = _registration(
    "proj", "f17cb550-5864-4468-aeb7-f3180cfb622f", "Coordinate reference system information for geospatial data"
)
SPATIAL = _registration("spatial", "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4", "Spatial coordinate information")
MULTISCALES = _registration("multiscales", "d35379db-88df-4056-af3a-620245f8e347", "Multiscale layout of zarr datasets")
"""Registrations of the conventions."""
_OWN = frozenset(convention["uuid"] for convention in (PROJ, SPATIAL, MULTISCALES))
_PREFIXES = ("proj:", "spatial:", "multiscales")
# Coordinates in float32 are not exactly even: a part of the size of a pixel.
_UNEVEN = 0.01


def with_conventions(image: xr.Dataset) -> xr.Dataset:
    """Return an image with the attributes of the conventions, in place of those it may have.

    Parameters
    ----------
    image : Dataset
        The image that is written.

    Returns
    -------
    Dataset
        The same values. ``proj:`` is left out if there is no CRS, ``spatial:`` if there are no evenly spaced
        coordinates along y and x.

    Examples
    --------
    >>> image = xr.Dataset({"red": (("y", "x"), np.ones((2, 3)))}, coords={"y": [45.0, 35.0], "x": [5.0, 15.0, 25.0]})
    >>> with_conventions(image).attrs["spatial:transform"]
    [10.0, 0.0, 0.0, 0.0, -10.0, 50.0]
    """
    attrs = without_conventions(image.attrs)
    for registration, values in ((PROJ, _crs(image)), (SPATIAL, _grid(image))):
        if values:
            attrs[CONVENTIONS] = [*attrs.get(CONVENTIONS, []), dict(registration)]
            attrs |= values
    image = image.copy()
    image.attrs = attrs
    return image


def without_conventions(attrs: Mapping[Any, Any]) -> dict[Any, Any]:
    """Return attributes without those of the conventions, if these are registered.

    Registrations of other conventions, and their attributes, stay.

    Parameters
    ----------
    attrs : mapping
        Attributes of a group.
    """
    registered = attrs.get(CONVENTIONS)
    if not isinstance(registered, list | tuple):
        return dict(attrs)
    others = [entry for entry in registered if not isinstance(entry, Mapping) or entry.get("uuid") not in _OWN]
    if len(others) == len(registered):
        return dict(attrs)
    kept = {key: value for key, value in attrs.items() if not str(key).startswith(_PREFIXES) and key != CONVENTIONS}
    return kept | ({CONVENTIONS: others} if others else {})


def _crs(image: xr.Dataset) -> dict[str, Any]:
    """Return the attributes of ``proj:``; WKT always, as the convention recommends, and the code if there is one."""
    names = {dim_of(image, "y"), dim_of(image, "x")}
    arrays = [array for array in image.data_vars.values() if names <= set(array.dims)]
    if not arrays:
        return {}
    try:
        crs = crs_of(arrays[0])
    except GridError:  # reported where the CRS is needed; an image can be written without
        return {}
    if crs is None:
        return {}
    authority = crs.to_authority(confidence_threshold=100)
    code = {"proj:code": ":".join(authority)} if authority else {}
    return {**code, "proj:wkt2": crs.to_wkt(version="WKT2_2019")}


def _grid(image: xr.Dataset) -> dict[str, Any]:
    """Return the attributes of ``spatial:``."""
    names = {role: dim_of(image, role) for role in ("y", "x")}
    along_y, along_x = (_even(image, name) for name in names.values())
    if along_y is None or along_x is None:
        return {}
    (first_y, dy), (first_x, dx) = along_y, along_x
    rows, columns = (int(image.sizes[str(name)]) for name in names.values())
    left, top = first_x - dx / 2, first_y - dy / 2
    x, y = sorted((left, left + columns * dx)), sorted((top, top + rows * dy))
    return {
        "spatial:dimensions": [str(name) for name in names.values()],
        "spatial:transform_type": "affine",
        "spatial:transform": [dx, 0.0, left, 0.0, dy, top],
        "spatial:bbox": [x[0], y[0], x[1], y[1]],
        "spatial:shape": [rows, columns],
        "spatial:registration": "pixel",
    }


def _even(image: xr.Dataset, name: str | None) -> tuple[float, float] | None:
    """Return the first coordinate along a dimension, and the distance of neighbours; None if it is not even."""
    if name is None or name not in image.coords or image.sizes.get(name, 0) < 2:
        return None
    axis = image[name]
    if axis.dims != (name,) or axis.dtype.kind not in "iuf":
        return None
    values = axis.to_numpy().astype(np.float64)
    step = float(values[-1] - values[0]) / (values.size - 1)
    even = values[0] + step * np.arange(values.size)
    if not np.isfinite(step) or step == 0 or np.abs(values - even).max() > _UNEVEN * abs(step):
        return None
    return float(values[0]), step
