"""Align a layer with a cube's dates and grid, or raise with both grids in the message. Nothing is computed."""

from __future__ import annotations

from typing import Any, NamedTuple, cast

import numpy as np
import pandas as pd
import xarray as xr

from xr_cloudfree.cube.crs import crs_of, crs_text
from xr_cloudfree.cube.dims import role_of
from xr_cloudfree.cube.timestamps import decode_times
from xr_cloudfree.errors import DimensionError, GridError, TimeError

_HOUR = 3_600_000_000_000  # in nanoseconds


class Axes(NamedTuple):
    """The user's names of the dimensions, for remedies."""

    time: str = "time"
    y: str = "y"
    x: str = "x"


def align(
    layer: xr.DataArray, name: str, typed: str, template: xr.DataArray, axes: Axes | None = None
) -> tuple[xr.DataArray, int]:
    """Return a layer on the dates of a cube, after checking that its pixels are the cube's or coarser ones.

    Parameters
    ----------
    layer : DataArray
        Layer with the dimensions time, y and x in any order; others of length one are dropped.
    name : str
        Name of the layer in messages.
    typed : str
        Expression for the layer in remedies: ``"good"``, or ``"ds.SCL"``.
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
        If the layer lacks a dimension or has too many.
    TimeError
        If its dates are not those of the cube.
    GridError
        If its pixels are neither those of the cube nor coarser ones with edges on the cube's, or the CRS differs.
    """
    cube, axes = "ds" if typed.startswith(("ds.", "ds[")) else "cube", axes or Axes()
    layer = _dimensions(layer, name, typed, cube, axes)
    layer = _dates(decode_times(layer, name), name, typed, cube, template, axes.time)
    # GDAL does not warp booleans. Pixels outside the layer become not clear.
    warped = f".rio.reproject_match({cube})"
    if layer.dtype == bool:
        warped = f".astype('uint8'){warped} == 1"
    check_same_crs(layer, name, template, typed + warped)
    return layer, _factor(layer, name, typed, cube, template, axes)


def check_same_grid(
    layer: xr.DataArray, name: str, template: xr.DataArray, *, reproject: str, interpolate: str
) -> None:
    """Raise for a layer with other rows and columns than a cube.

    Parameters
    ----------
    layer : DataArray, shape (time, y, x)
        The layer.
    name : str
        Name of the layer in messages.
    template : DataArray, shape (time, y, x)
        The cube's grid.
    reproject, interpolate : str
        Remedies for another CRS and for other pixels.

    Raises
    ------
    GridError
        If its CRS or its pixels differ.
    """
    check_same_crs(layer, name, template, reproject)
    if {_axis_factor(layer, template, dim) for dim in ("y", "x")} - {0, 1}:
        raise GridError(
            f"{name} has another grid: {_grid(layer)}; the cube: {_grid(template)}",
            "the pixels of the cube",
            interpolate,
        )


def _dimensions(layer: xr.DataArray, name: str, typed: str, cube: str, axes: Axes) -> xr.DataArray:
    """Return the layer as (time, y, x)."""
    extra = [dim for dim in layer.dims if dim not in ("time", "y", "x") and layer.sizes[dim] == 1]
    layer = layer.squeeze(extra, drop=True)
    if set(layer.dims) != {"time", "y", "x"}:
        raise DimensionError(
            f"{name} has the dimensions {tuple(layer.dims)} with the sizes {layer.shape}",
            "time, y and x",
            _dims_remedy(layer, typed, cube, axes),
        )
    return layer.transpose("time", "y", "x")


def _dims_remedy(layer: xr.DataArray, typed: str, cube: str, axes: Axes) -> str:
    """Return the remedy for a layer with other dimensions than (time, y, x)."""
    missing = [dim for dim in ("time", "y", "x") if dim not in layer.dims]
    others = [str(dim) for dim in layer.dims if dim not in ("time", "y", "x")]
    if missing == ["time"] and not others:
        time = axes.time
        bare = f"{typed}.drop_vars({time!r})" if "time" in layer.coords else typed
        return f"{bare}.expand_dims({time}={cube}.{time}) if it applies to all dates"
    if len(missing) == len(others):
        known = {dim: role for dim in others if (role := role_of(dim)) in missing}
        rest = [dim for dim in missing if dim not in known.values()]
        renamed = known | dict(zip([dim for dim in others if dim not in known], rest, strict=True))
        return f"{typed}.rename({ {dim: getattr(axes, role) for dim, role in renamed.items()} })"
    return f"{typed}.isel({ {dim: 0 for dim in others} }, drop=True)"


def _dates(layer: xr.DataArray, name: str, typed: str, cube: str, template: xr.DataArray, time: str) -> xr.DataArray:
    """Return the layer with its dates in the order of the cube's."""
    cube_dates = template.indexes.get("time")
    dates = layer.indexes.get("time")
    if cube_dates is None or dates is None:
        if layer.sizes["time"] == template.sizes["time"]:
            return layer
        raise TimeError(
            f"{name} has {layer.sizes['time']} dates, the cube {template.sizes['time']}",
            "the same dates",
            f"{typed}.assign_coords({time}=dates).sel({time}={cube}.{time}), with the dates of the layer",
        )
    if dates.equals(cube_dates):
        return layer
    if dates.is_unique and len(dates) == len(cube_dates):
        order = dates.get_indexer(pd.Index(cube_dates))
        if (order >= 0).all() and len(np.unique(order)) == len(order):
            return layer.isel(time=order)
    if not cube_dates.is_unique and dates.sort_values().equals(cube_dates.sort_values()):
        raise TimeError(
            f"{name} has its dates in another order than the cube, which is ambiguous for scenes with the same time "
            "stamp",
            "the scenes in the order of the cube's",
            f"cube.sortby('time') and {name}.sortby('time') if both were loaded in one order, or the layer as a "
            "variable of the cube's Dataset",
        )
    missing = cube_dates.difference(dates)
    first = f" ({missing[0]} is the first)" if len(missing) else ""
    raise TimeError(
        f"{name} has {len(dates)} dates, the cube {len(cube_dates)}, of which it lacks {len(missing)}{first}",
        "the same dates",
        _dates_remedy(layer, typed, f"{cube}.{time}", dates, cube_dates, time),
    )


def _dates_remedy(
    layer: xr.DataArray, typed: str, target: str, dates: pd.Index[Any], cube_dates: pd.Index[Any], time: str
) -> str:
    """Return the remedy for a layer with other dates than the cube; `target` is the expression for the cube's."""
    unique = typed if dates.is_unique else f"{typed}.drop_duplicates({time!r})"
    fill = ", fill_value=False" if layer.dtype == bool else ""  # NaN, which is missing, for other dtypes
    if cube_dates.isin(dates).all():
        return f"{unique}.sel({time}={target})"
    ours, theirs = (
        index.to_numpy().astype("datetime64[ns]").astype(np.int64) for index in (cube_dates, dates.unique())
    )
    distance = np.abs(ours[:, None] - theirs[None]).min(axis=1, initial=np.iinfo(np.int64).max)
    nearest = f'method="nearest", tolerance="{"1h" if (distance <= _HOUR).all() else "12h"}"'
    if (distance <= 12 * _HOUR).all():
        unique += "" if dates.is_monotonic_increasing else f".sortby({time!r})"
        return f"{unique}.reindex({time}={target}, {nearest}{fill}) if only the time of day differs"
    if cube_dates.isin(dates).any():
        return f"{unique}.reindex({time}={target}{fill}), which makes its missing dates not clear"
    if len(dates) == len(cube_dates):
        return f"{typed}.assign_coords({time}={target}) if these are its dates, in this order"
    return f"{typed}.assign_coords({time}=its_dates).sel({time}={target}), with the dates of the layer"


def check_same_crs(layer: xr.DataArray, name: str, template: xr.DataArray, remedy: str) -> None:
    """Raise if a layer and a cube both have a CRS, and not the same."""
    ours, theirs = crs_of(template), crs_of(layer)
    if ours is not None and theirs is not None and ours != theirs:
        raise GridError(
            f"{name} has the CRS {crs_text(theirs)}, the cube {crs_text(ours)}",
            "one CRS",
            remedy,
        )


def _factor(layer: xr.DataArray, name: str, typed: str, cube: str, template: xr.DataArray, axes: Axes) -> int:
    """Return the number of the cube's pixels per pixel of the layer, an integer with common edges."""
    factors = {dim: _axis_factor(layer, template, dim) for dim in ("y", "x")}
    known = {factor for factor in factors.values() if factor != 0}
    if None in known or len(known) > 1:
        raise GridError(
            f"{name} has another grid: {_grid(layer)}; the cube: {_grid(template)}",
            "the pixels of the cube, or coarser ones whose edges are edges of the cube's",
            _grid_remedy(layer, typed, cube, template, axes),
        )
    return cast(int, known.pop()) if known else 1


def _grid_remedy(layer: xr.DataArray, typed: str, cube: str, template: xr.DataArray, axes: Axes) -> str:
    """Return the remedy for a layer on another grid, without extrapolation beyond its edges."""
    y, x = axes.y, axes.x
    if any(dim not in array.coords for array in (layer, template) for dim in ("y", "x")):
        return f"{typed}.assign_coords({y}=y, {x}=x), and the same on the cube, with the centres of the pixels"
    step = max(float(abs(np.diff(layer.coords[dim].values)).max(initial=0)) for dim in ("y", "x"))
    fill = ", fill_value=False" if layer.dtype == bool else ""  # NaN, which is missing, for other dtypes
    return f'{typed}.reindex({y}={cube}.{y}, {x}={cube}.{x}, method="nearest", tolerance={step:g}{fill})'


def _axis_factor(layer: xr.DataArray, template: xr.DataArray, dim: str) -> int | None:
    """Return the factor along one axis: 0 if a single pixel allows any, None if the grids do not nest."""
    n, k = template.sizes[dim], layer.sizes[dim]
    if dim not in template.coords or dim not in layer.coords:
        return 1 if n == k else None
    ours = template.coords[dim].values.astype(np.float64)
    theirs = layer.coords[dim].values.astype(np.float64)
    if n == 1:
        return 0 if k == 1 else None
    step = (ours[-1] - ours[0]) / (n - 1)
    # A single coarse pixel has no step; it has to cover the cube.
    factor = round((theirs[-1] - theirs[0]) / (k - 1) / step) if k > 1 else n
    if factor < 1 or k != -(-n // factor):
        return None
    expected = ours[0] + step * ((factor - 1) / 2 + factor * np.arange(k)) if factor > 1 else ours
    return factor if (np.abs(theirs - expected) <= _tolerance(layer, template, dim) * abs(step)).all() else None


def _tolerance(layer: xr.DataArray, template: xr.DataArray, dim: str) -> float:
    """Return the allowed distance in pixels: 1e-6, or more for coordinates of low precision, at most 0.1."""
    tolerance = 1e-6
    step = float(np.abs(np.diff(template.coords[dim].values.astype(np.float64))).mean())
    for array in (layer, template):
        coords = array.coords[dim].values
        if coords.dtype.kind == "f":
            precision = 4 * float(np.finfo(coords.dtype).eps) * float(np.abs(coords).max()) / step
            tolerance = max(tolerance, precision)
    return min(tolerance, 0.1)


def _grid(array: xr.DataArray) -> str:
    """Return shape, first pixel and resolution as text."""
    text = f"{array.sizes['y']} x {array.sizes['x']} pixels"
    if "y" not in array.coords or "x" not in array.coords:
        return text + " without coordinates"
    y, x = array.coords["y"].values, array.coords["x"].values
    text += f", the first at y={float(y[0]):.9g}, x={float(x[0]):.9g}"
    if y.size > 1 and x.size > 1:
        text += f", step {float(y[1] - y[0]):.6g}, {float(x[1] - x[0]):.6g}"
    return text
