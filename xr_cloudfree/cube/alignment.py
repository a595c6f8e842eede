"""A layer brought onto a cube's dates and grid, or refused with both grids named. Nothing is computed."""

from __future__ import annotations

from typing import cast

import numpy as np
import pandas as pd
import xarray as xr

from xr_cloudfree.cube.crs import crs_of
from xr_cloudfree.cube.stamps import dated
from xr_cloudfree.errors import DimensionError, GridError, TimeError


def align(layer: xr.DataArray, name: str, template: xr.DataArray) -> tuple[xr.DataArray, int]:
    """Bring a layer onto the dates of a cube, and check that its pixels are the cube's or nest in them.

    Parameters
    ----------
    layer : DataArray
        With the dimensions time, y and x in any order; others of length one are dropped.
    name : str
        What to call the layer in messages.
    template : DataArray, shape (time, y, x)
        The cube's grid.

    Returns
    -------
    layer : DataArray, shape (time, y, x)
        In the order of the cube's dates.
    factor : int
        Pixels of the cube per pixel of the layer, along each axis.

    Raises
    ------
    DimensionError
        If the layer lacks a dimension or has one too many.
    TimeError
        If its dates are not those of the cube.
    GridError
        If its pixels are neither those of the cube nor coarser ones with edges on the cube's, or the CRS is
        another.
    """
    layer = _dates(dated(_dimensions(layer, name), name), name, template)
    # GDAL warps no booleans, and what it finds beyond the layer is not clear.
    warped = ".astype('uint8').rio.reproject_match(cube) == 1" if layer.dtype == bool else ".rio.reproject_match(cube)"
    _check_crs(layer, name, template, name + warped)
    return layer, _factor(layer, name, template)


def check_same(layer: xr.DataArray, name: str, template: xr.DataArray, *, reproject: str, interpolate: str) -> None:
    """Refuse a layer whose rows and columns are not just those of a cube.

    Parameters
    ----------
    layer : DataArray, shape (time, y, x)
        The layer.
    name : str
        What to call it in messages.
    template : DataArray, shape (time, y, x)
        The cube's grid.
    reproject, interpolate : str
        What to type if it has another CRS, and if it has other pixels.

    Raises
    ------
    GridError
        If its CRS or its pixels are others.
    """
    _check_crs(layer, name, template, reproject)
    if {_axis_factor(layer, template, dim) for dim in ("y", "x")} - {0, 1}:
        raise GridError(
            f"{name} lies on another grid: {_grid(layer)}; the cube: {_grid(template)}",
            "the pixels of the cube",
            interpolate,
        )


def _dimensions(layer: xr.DataArray, name: str) -> xr.DataArray:
    """The layer as (time, y, x)."""
    extra = [dim for dim in layer.dims if dim not in ("time", "y", "x") and layer.sizes[dim] == 1]
    layer = layer.squeeze(extra, drop=True)
    if set(layer.dims) != {"time", "y", "x"}:
        raise DimensionError(
            f"{name} has the dimensions {tuple(layer.dims)} with the sizes {layer.shape}",
            "time, y and x",
            f"{name}.rename(lat='y', lon='x') for other names, {name}.isel(band=0, drop=True) for one too "
            f"many, {name}.expand_dims(time=cube.time) for a single date",
        )
    return layer.transpose("time", "y", "x")


def _dates(layer: xr.DataArray, name: str, template: xr.DataArray) -> xr.DataArray:
    """The layer with its dates in the order of the cube's."""
    wanted = template.indexes.get("time")
    found = layer.indexes.get("time")
    if wanted is None or found is None:
        if layer.sizes["time"] == template.sizes["time"]:
            return layer
        raise TimeError(
            f"{name} has {layer.sizes['time']} dates, the cube {template.sizes['time']}",
            "the same dates",
            f"{name}.sel(time=cube.time), with time coordinates on both",
        )
    if found.equals(wanted):
        return layer
    if found.is_unique and len(found) == len(wanted):
        order = found.get_indexer(pd.Index(wanted))
        if (order >= 0).all() and len(np.unique(order)) == len(order):
            return layer.isel(time=order)
    if not wanted.is_unique and found.sort_values().equals(wanted.sort_values()):
        raise TimeError(
            f"{name} has its dates in another order than the cube, and of several that share a time stamp nothing "
            "tells which belong together",
            "the scenes in the order of the cube's",
            f"cube.sortby('time') and {name}.sortby('time') if both were loaded in one order, or the layer as a "
            "variable of the cube's Dataset",
        )
    lacking = wanted.difference(found)
    first = f" ({lacking[0]} is the first)" if len(lacking) else ""
    raise TimeError(
        f"{name} has {len(found)} dates, the cube {len(wanted)}, of which it lacks {len(lacking)}{first}",
        "the same dates",
        _same_dates(layer, name, template),
    )


def _same_dates(layer: xr.DataArray, name: str, template: xr.DataArray) -> str:
    """What to type for a layer whose dates are not those of the cube."""
    found, wanted = layer.indexes["time"], template.indexes["time"]
    if not found.is_unique:
        return f"{name}.groupby('time').max() if its scenes of one time were merged in the cube by their largest value"
    if wanted.isin(found).all():
        return f"{name}.sel(time=cube.time)"
    gaps = np.abs(found.to_numpy()[:, None] - wanted.to_numpy()[None]).min(axis=0)
    if (gaps <= np.timedelta64(1, "h")).all():
        by_time = name if found.is_monotonic_increasing else f"{name}.sortby('time')"
        return f'{by_time}.reindex(time=cube.time, method="nearest", tolerance="1h"), as only the clock differs'
    if not wanted.isin(found).any() and len(found) == len(wanted):
        return f"{name}.assign_coords(time=cube.time) if these are the same scenes in the same order"
    if layer.dtype == bool:
        return f"{name}.reindex(time=cube.time, fill_value=False), by which nothing is clear on the other dates"
    return f"cube.sel(time=cube.time.isin({name}.time)), and {name}.sel(time={name}.time.isin(cube.time))"


def _check_crs(layer: xr.DataArray, name: str, template: xr.DataArray, remedy: str) -> None:
    ours, theirs = crs_of(template), crs_of(layer)
    if ours is not None and theirs is not None and ours != theirs:
        raise GridError(
            f"{name} has the CRS {theirs.to_string()[:80]}, the cube {ours.to_string()[:80]}",
            "one CRS",
            remedy,
        )


def _factor(layer: xr.DataArray, name: str, template: xr.DataArray) -> int:
    """How many pixels of the cube make one of the layer, which has to be a whole number with common edges."""
    factors = {dim: _axis_factor(layer, template, dim) for dim in ("y", "x")}
    known = {factor for factor in factors.values() if factor != 0}
    if None in known or len(known) > 1:
        raise GridError(
            f"{name} lies on another grid: {_grid(layer)}; the cube: {_grid(template)}",
            "the pixels of the cube, or coarser ones whose edges are edges of the cube's",
            _nearest(layer, name, template),
        )
    return cast(int, known.pop()) if known else 1


def _nearest(layer: xr.DataArray, name: str, template: xr.DataArray) -> str:
    """What to type to bring a layer onto the cube's grid, without stretching it beyond its edges."""
    if any(dim not in array.coords for array in (layer, template) for dim in ("y", "x")):
        return f"{name}.assign_coords(y=..., x=...), and the same on the cube, with the centres of the pixels"
    step = max(float(abs(np.diff(layer.coords[dim].values)).max(initial=0)) for dim in ("y", "x"))
    beyond = ", fill_value=False" if layer.dtype == bool else ""  # elsewhere NaN, which is missing
    return f'{name}.reindex(y=cube.y, x=cube.x, method="nearest", tolerance={step:g}{beyond})'


def _axis_factor(layer: xr.DataArray, template: xr.DataArray, dim: str) -> int | None:
    """Factor along one axis; 0 where one pixel allows any, None where the grids do not nest."""
    n, k = template.sizes[dim], layer.sizes[dim]
    if dim not in template.coords or dim not in layer.coords:
        return 1 if n == k else None
    ours = template.coords[dim].values.astype(np.float64)
    theirs = layer.coords[dim].values.astype(np.float64)
    if n == 1:
        return 0 if k == 1 else None
    step = (ours[-1] - ours[0]) / (n - 1)
    # A single coarse pixel has no step of its own: it nests if it covers the cube.
    factor = round((theirs[-1] - theirs[0]) / (k - 1) / step) if k > 1 else n
    if factor < 1 or k != -(-n // factor):
        return None
    expected = ours[0] + step * ((factor - 1) / 2 + factor * np.arange(k)) if factor > 1 else ours
    return factor if (np.abs(theirs - expected) <= _tolerance(layer, template, dim) * abs(step)).all() else None


def _tolerance(layer: xr.DataArray, template: xr.DataArray, dim: str) -> float:
    """Allowed distance in pixels: 1e-6, or what the coordinates' own precision makes of it, at most 0.1."""
    tolerance = 1e-6
    step = float(np.abs(np.diff(template.coords[dim].values.astype(np.float64))).mean())
    for array in (layer, template):
        coords = array.coords[dim].values
        if coords.dtype.kind == "f":
            precision = 4 * float(np.finfo(coords.dtype).eps) * float(np.abs(coords).max()) / step
            tolerance = max(tolerance, precision)
    return min(tolerance, 0.1)


def _grid(array: xr.DataArray) -> str:
    """Shape, first pixel and resolution, for messages."""
    told = f"{array.sizes['y']} x {array.sizes['x']} pixels"
    if "y" not in array.coords or "x" not in array.coords:
        return told + " without coordinates"
    y, x = array.coords["y"].values, array.coords["x"].values
    told += f", the first at y={float(y[0]):.9g}, x={float(x[0]):.9g}"
    if y.size > 1 and x.size > 1:
        told += f", step {float(y[1] - y[0]):.6g}, {float(x[1] - x[0]):.6g}"
    return told
