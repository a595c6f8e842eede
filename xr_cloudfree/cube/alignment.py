"""A layer brought onto a cube's dates and grid, or refused with both grids named. Nothing is computed."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import xarray as xr

from xr_cloudfree.cube.crs import crs_of
from xr_cloudfree.cube.dims import role_of
from xr_cloudfree.cube.stamps import decode_times
from xr_cloudfree.errors import DimensionError, GridError, TimeError

_HOUR = 3_600_000_000_000  # in nanoseconds


class Axes(NamedTuple):
    """The user's names of the dimensions, for what is typed."""

    time: str = "time"
    y: str = "y"
    x: str = "x"


def align(
    layer: xr.DataArray, name: str, typed: str, template: xr.DataArray, axes: Axes | None = None
) -> tuple[xr.DataArray, int]:
    """Bring a layer onto the dates of a cube, and check that its pixels are the cube's or nest in them.

    Parameters
    ----------
    layer : DataArray
        With the dimensions time, y and x in any order; others of length one are dropped.
    name : str
        What to call the layer in messages.
    typed : str
        What is typed for the layer, in remedies: ``"good"``, or ``"ds.SCL"``.
    template : DataArray, shape (time, y, x)
        The cube's grid.
    axes : Axes, optional
        The user's names of the dimensions, for remedies.

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
    cube, axes = "ds" if typed.startswith(("ds.", "ds[")) else "cube", axes or Axes()
    layer = _dimensions(layer, name, typed, cube, axes)
    layer = _dates(decode_times(layer, name), name, typed, cube, template, axes.time)
    # GDAL warps no booleans, and what it finds beyond the layer is not clear.
    warped = f".rio.reproject_match({cube})"
    if layer.dtype == bool:
        warped = f".astype('uint8'){warped} == 1"
    _check_crs(layer, name, template, typed + warped)
    return layer, _factor(layer, name, typed, cube, template, axes)


def check_same_grid(
    layer: xr.DataArray, name: str, template: xr.DataArray, *, reproject: str, interpolate: str
) -> None:
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


def _dimensions(layer: xr.DataArray, name: str, typed: str, cube: str, axes: Axes) -> xr.DataArray:
    """The layer as (time, y, x)."""
    extra = [dim for dim in layer.dims if dim not in ("time", "y", "x") and layer.sizes[dim] == 1]
    layer = layer.squeeze(extra, drop=True)
    if set(layer.dims) != {"time", "y", "x"}:
        raise DimensionError(
            f"{name} has the dimensions {tuple(layer.dims)} with the sizes {layer.shape}",
            "time, y and x",
            _as_layer(layer, typed, cube, axes),
        )
    return layer.transpose("time", "y", "x")


def _as_layer(layer: xr.DataArray, typed: str, cube: str, axes: Axes) -> str:
    """What to type to make a layer (time, y, x)."""
    lacking = [dim for dim in ("time", "y", "x") if dim not in layer.dims]
    others = [str(dim) for dim in layer.dims if dim not in ("time", "y", "x")]
    if lacking == ["time"] and not others:
        time = axes.time
        bare = f"{typed}.drop_vars({time!r})" if "time" in layer.coords else typed
        return f"{bare}.expand_dims({time}={cube}.{time}) if it holds for all dates"
    if len(lacking) == len(others):
        told = {dim: role_of(dim) for dim in others}
        known = {dim: role for dim, role in told.items() if role in lacking}
        rest = [dim for dim in lacking if dim not in known.values()]
        renamed = known | dict(zip([dim for dim in others if dim not in known], rest, strict=True))
        return f"{typed}.rename({ {dim: getattr(axes, role) for dim, role in renamed.items()} })"
    return f"{typed}.isel({ {dim: 0 for dim in others} }, drop=True)"


def _dates(layer: xr.DataArray, name: str, typed: str, cube: str, template: xr.DataArray, time: str) -> xr.DataArray:
    """The layer with its dates in the order of the cube's."""
    wanted = template.indexes.get("time")
    found = layer.indexes.get("time")
    if wanted is None or found is None:
        if layer.sizes["time"] == template.sizes["time"]:
            return layer
        raise TimeError(
            f"{name} has {layer.sizes['time']} dates, the cube {template.sizes['time']}",
            "the same dates",
            f"{typed}.assign_coords({time}=dates).sel({time}={cube}.{time}), with the dates of the layer",
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
        _on_dates(layer, typed, f"{cube}.{time}", found, wanted, time),
    )


def _on_dates(
    layer: xr.DataArray, typed: str, dates: str, found: pd.Index[Any], wanted: pd.Index[Any], time: str
) -> str:
    """What to type to bring a layer onto the cube's dates."""
    once = typed if found.is_unique else f"{typed}.drop_duplicates({time!r})"
    beyond = ", fill_value=False" if layer.dtype == bool else ""  # elsewhere NaN, which is missing
    if wanted.isin(found).all():
        return f"{once}.sel({time}={dates})"
    ours, theirs = (index.to_numpy().astype("datetime64[ns]").astype(np.int64) for index in (wanted, found.unique()))
    away = np.abs(ours[:, None] - theirs[None]).min(axis=1, initial=np.iinfo(np.int64).max)
    near = f'method="nearest", tolerance="{"1h" if (away <= _HOUR).all() else "12h"}"'
    if (away <= 12 * _HOUR).all():
        once += "" if found.is_monotonic_increasing else f".sortby({time!r})"
        return f"{once}.reindex({time}={dates}, {near}{beyond}) if only the clock differs"
    if wanted.isin(found).any():
        return f"{once}.reindex({time}={dates}{beyond}), with which nothing is clear on the dates that it lacks"
    if len(found) == len(wanted):
        return f"{typed}.assign_coords({time}={dates}) if these are its dates, in this order"
    return f"{typed}.assign_coords({time}=its_dates).sel({time}={dates}), with the dates of the layer"


def _check_crs(layer: xr.DataArray, name: str, template: xr.DataArray, remedy: str) -> None:
    ours, theirs = crs_of(template), crs_of(layer)
    if ours is not None and theirs is not None and ours != theirs:
        raise GridError(
            f"{name} has the CRS {theirs.to_string()[:80]}, the cube {ours.to_string()[:80]}",
            "one CRS",
            remedy,
        )


def _factor(layer: xr.DataArray, name: str, typed: str, cube: str, template: xr.DataArray, axes: Axes) -> int:
    """How many pixels of the cube make one of the layer, which has to be a whole number with common edges."""
    factors = {dim: _axis_factor(layer, template, dim) for dim in ("y", "x")}
    known = {factor for factor in factors.values() if factor != 0}
    if None in known or len(known) > 1:
        raise GridError(
            f"{name} lies on another grid: {_grid(layer)}; the cube: {_grid(template)}",
            "the pixels of the cube, or coarser ones whose edges are edges of the cube's",
            _nearest(layer, typed, cube, template, axes),
        )
    return cast(int, known.pop()) if known else 1


def _nearest(layer: xr.DataArray, typed: str, cube: str, template: xr.DataArray, axes: Axes) -> str:
    """What to type to bring a layer onto the cube's grid, without stretching it beyond its edges."""
    y, x = axes.y, axes.x
    if any(dim not in array.coords for array in (layer, template) for dim in ("y", "x")):
        return f"{typed}.assign_coords({y}=y, {x}=x), and the same on the cube, with the centres of the pixels"
    step = max(float(abs(np.diff(layer.coords[dim].values)).max(initial=0)) for dim in ("y", "x"))
    beyond = ", fill_value=False" if layer.dtype == bool else ""  # elsewhere NaN, which is missing
    return f'{typed}.reindex({y}={cube}.{y}, {x}={cube}.{x}, method="nearest", tolerance={step:g}{beyond})'


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
