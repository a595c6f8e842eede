"""The position of an image on the map, from the coordinates of its pixels."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import xarray as xr

from xr_cloudfree.cube.dims import dim_of
from xr_cloudfree.errors import OutputError


def axes_of(image: xr.DataArray | xr.Dataset) -> dict[str, str]:
    """Return the image's names of y and x, if it has coordinates for them."""
    names = {role: dim_of(image, role) or "" for role in ("y", "x")}
    return {role: name for role, name in names.items() if name in image.coords}


def transform_of(array: xr.DataArray | xr.Dataset) -> Any:
    """Return the affine transform of an image, from the coordinates of its pixels' centres.

    Along an axis of one pixel, the size is taken from the attribute ``GeoTransform`` of the CRS variable, otherwise
    from the other axis.

    Returns
    -------
    affine.Affine
        The transform, as used by rasterio.

    Raises
    ------
    OutputError
        If the size of a pixel is unknown.
    """
    from rasterio import Affine

    axes = axes_of(array)
    if all(array.sizes[name] > 1 for name in axes.values()):
        return array.rio.transform(recalc=True)
    own = {role: _step(array[name]) for role, name in axes.items()}
    declared = _declared_steps(array, own)
    any_step = own["y"] or own["x"]
    dx, dy = (
        own[role] or declared.get(role) or (any_step and sign * abs(any_step)) for role, sign in (("x", 1), ("y", -1))
    )
    x, y = (float(array[axes[role]][0]) for role in ("x", "y"))
    if not (dx and dy):
        name, size = array.rio.grid_mapping, 0.0001 if array.rio.crs.is_geographic else 10.0
        numbers = " ".join(f"{number!r}" for number in (x - size / 2, size, 0.0, y + size / 2, 0.0, -size))
        raise OutputError(
            "the image is one pixel of unknown size",
            f"the width and height of a pixel, for a GeoTIFF; in this example {size:g}",
            f"cube.assign_coords({name}=cube.{name}.assign_attrs(GeoTransform={numbers!r}))",
        )
    return Affine(dx, 0.0, x - dx / 2, 0.0, dy, y - dy / 2)


def _step(axis: xr.DataArray) -> float | None:
    """Return the distance between the centres of neighbouring pixels; None for one pixel."""
    return float(axis[-1] - axis[0]) / (axis.size - 1) if axis.size > 1 else None


def _declared_steps(array: xr.DataArray | xr.Dataset, own: Mapping[str, float | None]) -> dict[str, float]:
    """Return the steps of the attribute GeoTransform; empty if it belongs to another grid."""
    text = str(array.coords[array.rio.grid_mapping].attrs.get("GeoTransform", ""))
    try:
        _, dx, _, _, _, dy = map(float, text.split())
    except ValueError:
        return {}
    declared = {"x": dx, "y": dy}
    same = all(step is None or np.isclose(abs(step), abs(declared[role])) for role, step in own.items())
    return declared if same else {}


def assumed_of(array: xr.DataArray) -> str | None:
    """Return the assumption about the size of pixels, in words; None if there is none."""
    own = {role: _step(array[name]) for role, name in axes_of(array).items()}
    transform_of(array)
    if None not in own.values() or _declared_steps(array, own):
        return None
    unknown, size = ("width", own["y"]) if own["x"] is None else ("height", own["x"])
    return f"the image is one pixel in {unknown}: its pixels are taken to be square, {abs(size or 0):g} wide and high"
