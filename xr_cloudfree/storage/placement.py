"""Where the pixels of an image lie on the map."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from xr_cloudfree.cube.dims import dim_of
from xr_cloudfree.errors import OutputError


def axes_of(image: xr.DataArray | xr.Dataset) -> dict[str, str]:
    """The image's names of y and x, where it has coordinates for them."""
    names = {role: dim_of(image, role) or "" for role in ("y", "x")}
    return {role: name for role, name in names.items() if name in image.coords}


def transform_of(array: xr.DataArray | xr.Dataset) -> Any:
    """Where an image lies on the map, from the coordinates of its pixels' centres.

    Along an axis of one pixel its size is that of the attribute ``GeoTransform`` of the CRS variable, else that of
    the other axis.

    Returns
    -------
    affine.Affine
        As rasterio has it.

    Raises
    ------
    OutputError
        If nothing tells how large a pixel is.
    """
    from rasterio import Affine

    axes = axes_of(array)
    if all(array.sizes[name] > 1 for name in axes.values()):
        return array.rio.transform(recalc=True)
    own = {role: _step(array[name]) for role, name in axes.items()}
    told = _told_steps(array, own)
    any_step = own["y"] or own["x"]
    dx, dy = (
        own[role] or told.get(role) or (any_step and sign * abs(any_step)) for role, sign in (("x", 1), ("y", -1))
    )
    x, y = (float(array[axes[role]][0]) for role in ("x", "y"))
    if not (dx and dy):
        name, size = array.rio.grid_mapping, 0.0001 if array.rio.crs.is_geographic else 10.0
        numbers = " ".join(f"{number!r}" for number in (x - size / 2, size, 0.0, y + size / 2, 0.0, -size))
        raise OutputError(
            "the image is one pixel, and nothing tells how large it is",
            f"the width and height of a pixel, for a GeoTIFF; here as if they were {size:g}",
            f"cube.assign_coords({name}=cube.{name}.assign_attrs(GeoTransform={numbers!r}))",
        )
    return Affine(dx, 0.0, x - dx / 2, 0.0, dy, y - dy / 2)


def _step(axis: xr.DataArray) -> float | None:
    """From one pixel's centre to the next."""
    return float(axis[-1] - axis[0]) / (axis.size - 1) if axis.size > 1 else None


def _told_steps(array: xr.DataArray | xr.Dataset, own: Mapping[str, float | None]) -> dict[str, float]:
    """The steps of the attribute GeoTransform, unless it is that of another grid."""
    text = str(array.coords[array.rio.grid_mapping].attrs.get("GeoTransform", ""))
    try:
        _, dx, _, _, _, dy = map(float, text.split())
    except ValueError:
        return {}
    told = {"x": dx, "y": dy}
    same = all(step is None or np.isclose(abs(step), abs(told[role])) for role, step in own.items())
    return told if same else {}


def assumed_of(array: xr.DataArray) -> str | None:
    """What is assumed of the size of pixels, in words."""
    own = {role: _step(array[name]) for role, name in axes_of(array).items()}
    transform_of(array)
    if None not in own.values() or _told_steps(array, own):
        return None
    lacking, size = ("width", own["y"]) if own["x"] is None else ("height", own["x"])
    return f"the image is one pixel in {lacking}: its pixels are taken to be square, {abs(size or 0):g} wide and high"
