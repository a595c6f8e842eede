"""What metadata say of coarse bands and their guide: bands, dates, grids and scaling. Nothing is computed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from xr_cloudfree.cube.alignment import Axes, align
from xr_cloudfree.cube.checks import check_scale
from xr_cloudfree.cube.conventions import Cube, parse_cube
from xr_cloudfree.cube.crs import crs_as_coordinate, crs_of
from xr_cloudfree.cube.dims import dims_of
from xr_cloudfree.cube.scaling import Scaling, resolve_scaling
from xr_cloudfree.cube.timestamps import cube_times
from xr_cloudfree.cube.validity import derive_valid_range
from xr_cloudfree.errors import BandError, GridError, OptionTypeError, TimeError, option
from xr_cloudfree.plan import packing_of
from xr_cloudfree.sharpening.job import SharpenJob, lay_out

# Larger factors leave too few coarse pixels in a tile to degrade it once more.
MOST = 12
# Largest difference of coordinates, in fine pixels, between grids that nest.
TOLERANCE = 1e-3
ONLY_DATE = "1970-01-01"
"""The date that an image without one gets while it is sharpened."""


@dataclass(frozen=True, eq=False)
class Inputs:
    """Coarse bands and their guide, and the job that sharpens them.

    Parameters
    ----------
    coarse, guide : Cube
        The cubes, on the same dates.
    clear : DataArray of bool, shape (time, y, x), or None
        The clear mask, in its own pixels.
    job : SharpenJob
        The job.
    dated : bool
        Whether the coarse bands have a time dimension.
    """

    coarse: Cube
    guide: Cube
    clear: xr.DataArray | None
    job: SharpenJob
    dated: bool


def read_inputs(
    obj: Any,
    to: Any,
    *,
    bands: Sequence[str] | None,
    clear: Any,
    scale: float | None,
    offset: float | None,
    nodata: float | None,
) -> Inputs:
    """Read coarse bands and their guide from their metadata; see `xr_cloudfree.sharpen` for the parameters."""
    dated = _is_dated(obj, "obj")
    if dated is not _is_dated(to, "to"):
        with_time, without = ("obj", "to") if dated else ("to", "obj")
        raise TimeError(
            f"{with_time} has a time dimension, {without} has none",
            "both with the same dates, or both without a time dimension",
            f"{with_time}.isel(time=0) with the date of {without}",
        )
    coarse, guide = parse_cube(_dated(obj, dated), bands), parse_cube(_dated(to, dated))
    same = sorted(set(coarse.bands) & set(guide.bands))
    if same:
        others = [band for band in coarse.bands if band not in same]
        raise BandError(
            f"{', '.join(same)} in both the coarse bands and the guide",
            "each band once",
            option(f"bands={others!r}") if others else "to= with the fine bands, and obj with the other ones",
        )
    coarse = _on_dates_of(guide, coarse)
    factor = _factor(coarse, guide)
    scalings = []
    # Beside integers, floating-point numbers are reflectance, and the options are for the integers.
    mixed = {guide.dtype.kind == "f", coarse.dtype.kind == "f"} == {True, False}
    for cube in (guide, coarse):
        stored = not (mixed and cube.dtype.kind == "f")
        scaling = resolve_scaling(
            cube.measured,
            scale=scale if stored else None,
            offset=offset if stored else None,
            nodata=nodata if stored else None,
            index=cube.limits is not None,
        )
        check_scale(cube.dtype, scaling, cube.sensor, cube.limits is not None)
        scalings.append(scaling)
    dtype = coarse.dtype
    if coarse.layout != "bands":  # all bands in one array
        encodings = [(s.scale, s.offset, s.nodata) for s in scalings]
        if encodings[0] != encodings[1] or (guide.dtype != dtype and not guide.dtype.kind == dtype.kind == "f"):
            described = [
                f"{cube.dtype} with scale {s.scale}, offset {s.offset} and nodata {s.nodata}"
                for cube, s in zip((guide, coarse), scalings, strict=True)
            ]
            raise BandError(
                f"the guide holds {described[0]}, the coarse bands {described[1]}",
                "one encoding for bands in one array",
                f"obj={_decoded('coarse', scalings[1])}, to={_decoded('fine', scalings[0])}",
            )
        dtype = guide.dtype
    mask, mask_factor = None, None
    if clear is not None:
        if not isinstance(clear, xr.DataArray) or clear.dtype != bool:
            kind = f"an array of {clear.dtype}" if isinstance(clear, xr.DataArray) else f"a {type(clear).__name__}"
            raise OptionTypeError(
                f"clear is {kind}",
                "a DataArray of bool, True where the guide is clear",
                "clear=xr_cloudfree.clear_mask(guide), with the cube of the fine bands and its mask",
            )
        own = Axes(*(guide.dims[role] for role in Axes._fields))
        renamed = _dated(clear, dated).rename(
            {name: role for role, name in guide.dims.items() if name in clear.dims and role != name}
        )
        mask, mask_factor = align(renamed, "clear", "clear", guide.template, own)
    job = SharpenJob(
        grid=lay_out(guide.shape, factor),
        factor=factor,
        n_guide=len(guide.measured),
        n_coarse=len(coarse.measured),
        guide=scalings[0],
        coarse=scalings[1],
        guide_range=derive_valid_range(guide.measured, scalings[0], guide.limits),
        coarse_range=derive_valid_range(coarse.measured, scalings[1], coarse.limits),
        clear_factor=mask_factor,
        bands=len(coarse.bands),
        dtype=dtype,
        limits=_limits(coarse),
    )
    return Inputs(coarse, guide, mask, job, dated)


def _decoded(name: str, scaling: Scaling) -> str:
    """Return the expression for an array as reflectance."""
    known = name if scaling.nodata is None else f"{name}.where({name} != {scaling.nodata:g})"
    return f"({known}.drop_attrs(deep=False) * {scaling.scale} + {scaling.offset}).astype('float32')"


def _is_dated(obj: Any, name: str) -> bool:
    if not isinstance(obj, xr.DataArray | xr.Dataset):
        raise OptionTypeError(
            f"{name} is a {type(obj).__name__}",
            "an xarray DataArray or Dataset",
            "xr_cloudfree.sharpen(ds20, to=ds10), with the coarse bands first",
        )
    arrays = [obj] if isinstance(obj, xr.DataArray) else list(obj.data_vars.values())
    return any("time" in dims_of(array) for array in arrays)


def _dated(obj: Any, dated: bool) -> Any:
    """Return an object with a time dimension: its own, or one of its only date."""
    if isinstance(obj, xr.Dataset):
        obj = crs_as_coordinate(obj)
    if dated:
        return obj
    if "time" not in obj.coords or obj["time"].dtype.kind != "M":
        obj = obj.drop_vars("time", errors="ignore").assign_coords(time=np.datetime64(ONLY_DATE, "ns"))
    return obj.expand_dims("time")


def _on_dates_of(guide: Cube, coarse: Cube) -> Cube:
    """Return the coarse cube with its dates in the order of the guide's."""
    ours, theirs = (pd.Index(cube_times(cube.arrays[0])) for cube in (guide, coarse))
    if ours.equals(theirs):
        return coarse
    order = theirs.get_indexer(ours)
    if len(ours) != len(theirs) or (order < 0).any():
        time = coarse.dims["time"]
        if len(ours.intersection(theirs)):
            both = [f"{a}.sel({time}={a}.{time}.isin({b}.{time}))" for a, b in (("coarse", "fine"), ("fine", "coarse"))]
            remedy = f"obj={both[0]}, to={both[1]}"
        else:
            days = [pd.DatetimeIndex(index).floor("D") for index in (ours, theirs)]
            remedy = "images of both of the same dates"
            if len(days[0].intersection(days[1])):
                remedy = f"coarse.assign_coords({time}=coarse.{time}.dt.floor('D')), and the same for the fine bands"
        raise TimeError(
            f"the coarse bands have {len(theirs)} dates, the guide {len(ours)}, and {len(ours.intersection(theirs))} "
            "of them are the same",
            "the same dates: what was seen at another time cannot guide",
            remedy,
        )
    arrays = tuple(array.isel(time=order) for array in coarse.arrays)
    return Cube(**{**coarse.__dict__, "arrays": arrays})


def _factor(coarse: Cube, guide: Cube) -> int:
    """Return the number of fine pixels per coarse pixel along each axis, of grids that nest exactly."""
    fine, large = guide.template, coarse.template
    crs = [crs_of(array) for array in (fine, large)]
    if None not in crs and crs[0] != crs[1]:
        raise GridError(
            f"the coarse bands have the CRS {coarse.crs}, the guide {guide.crs}",
            "one CRS",
            "import odc.geo.xr, then coarse.odc.reproject(fine.odc.geobox.zoom_out(2)) for pixels twice as large",
        )
    if any(dim not in array.coords for array in (fine, large) for dim in ("y", "x")):
        raise GridError(
            "the grids have no coordinates along y and x",
            "the centres of the pixels, from which it is seen how the grids nest",
            "assign_coords(y=..., x=...) on both",
        )
    if min(*guide.shape, *coarse.shape) < 2:
        raise GridError(
            f"{coarse.shape[0]} x {coarse.shape[1]} coarse pixels, {guide.shape[0]} x {guide.shape[1]} fine ones",
            "at least two along each axis",
            "a larger area",
        )
    steps = {(dim, i): _step(array, dim) for dim in ("y", "x") for i, array in enumerate((fine, large))}
    ratios = [steps[dim, 1] / steps[dim, 0] for dim in ("y", "x")]
    factor = round(abs(ratios[0]))
    if factor == 0:
        raise GridError(
            f"the guide has larger pixels than the coarse bands: {abs(steps['y', 0]):g} and {abs(steps['y', 1]):g}",
            "the coarse bands first, and the fine ones as the guide",
            "xr_cloudfree.sharpen(fine, to=coarse) the other way round: what is called fine here has the larger pixels",
        )
    if factor == 1:
        raise GridError(
            f"pixels of {abs(steps['y', 1]):g} in both the coarse bands and the guide",
            "coarse bands of larger pixels than the guide's",
            "xarray.merge([fine, coarse]), because there is nothing to sharpen",
        )
    if factor > MOST:
        raise GridError(
            f"coarse pixels of {factor} fine ones along each axis",
            f"at most {MOST}",
            "sharpening in two steps, with a guide of pixels in between",
        )
    if any(abs(ratio - factor) > TOLERANCE for ratio in ratios):
        raise GridError(
            f"coarse pixels of {abs(ratios[0]):.6g} x {abs(ratios[1]):.6g} fine ones",
            "a whole number, the same along y and x, and both axes in the same direction",
            _resample(guide, max(2, factor)),
        )
    cuts = [_cut(fine, large, dim, factor) for dim in ("y", "x")]
    if any(cut is None for cut in cuts):
        raise GridError(
            f"coarse pixels whose edges are not edges of fine ones: the first fine pixel is at "
            f"y={float(fine.y[0]):.9g}, x={float(fine.x[0]):.9g}, the first coarse one at y={float(large.y[0]):.9g}, "
            f"x={float(large.x[0]):.9g}",
            "grids that nest",
            _resample(guide, factor),
        )
    whole = all(cut == (slice(0, n), slice(0, k)) for cut, n, k in zip(cuts, guide.shape, coarse.shape, strict=True))
    if not whole:
        spelled = [
            f"{name}.isel({dims['y']}={_text(cut[0])}, {dims['x']}={_text(cut[1])})"
            for name, dims, cut in (
                ("fine", guide.dims, [c[0] for c in cuts if c]),
                ("coarse", coarse.dims, [c[1] for c in cuts if c]),
            )
        ]
        raise GridError(
            f"the guide covers {guide.shape[0]} x {guide.shape[1]} fine pixels, the coarse bands "
            f"{coarse.shape[0] * factor} x {coarse.shape[1] * factor} from another first pixel or to another last one",
            "the same area",
            f"obj={spelled[1]}, to={spelled[0]}",
        )
    return factor


def _step(array: xr.DataArray, dim: str) -> float:
    values = array[dim].values.astype(np.float64)
    return float(values[-1] - values[0]) / (len(values) - 1)


def _cut(fine: xr.DataArray, large: xr.DataArray, dim: str, factor: int) -> tuple[slice, slice] | None:
    """Return the parts of the fine and of the coarse axis that cover the same ground; None if edges do not agree."""
    step = _step(fine, dim)
    n, k = fine.sizes[dim], large.sizes[dim]
    first = (float(large[dim][0]) - float(fine[dim][0])) / step - (
        factor - 1
    ) / 2  # fine pixel that the coarse begin at
    start = round(first)
    if abs(first - start) > TOLERANCE * max(1, n / 1000):
        return None
    skipped = max(0, -(start // factor) if start < 0 else 0)  # coarse pixels before the fine ones
    count = min(k - skipped, (n - start - skipped * factor) // factor)
    if count < 2:
        return None
    begin = start + skipped * factor
    return slice(begin, begin + count * factor), slice(skipped, skipped + count)


def _text(part: slice) -> str:
    return f"slice({part.start}, {part.stop})"


def _resample(guide: Cube, factor: int) -> str:
    y, x = guide.dims["y"], guide.dims["x"]
    grid = f"fine.coarsen({y}={factor}, {x}={factor}, boundary='trim').mean()"
    return f"coarse.interp({y}={grid}.{y}, {x}={grid}.{x}), which loses sharpness"


def _limits(cube: Cube) -> tuple[float, float]:
    """Return the least and the greatest value that the packing of decoded values can hold."""
    low, high = -np.inf, np.inf
    for array in cube.arrays:
        packed = packing_of(array)
        if packed is not None:
            scale, offset = float(array.encoding["scale_factor"]), float(array.encoding.get("add_offset") or 0.0)
            # One step inside at each end, which is usually nodata.
            ends = sorted(((packed.min + 1) * scale + offset, (packed.max - 1) * scale + offset))
            low, high = max(low, ends[0]), min(high, ends[1])
    return low, high
