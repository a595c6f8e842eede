"""From labels to numbers: what `fill` settles before anything runs. Metadata only; nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr

from xr_cloudfree.cube.conventions import Cube, understand
from xr_cloudfree.cube.dates import check_reach, cube_times, parse_targets, parse_window
from xr_cloudfree.cube.masks import MaskRule, Snow, resolve_mask
from xr_cloudfree.cube.scaling import Scaling, resolve_scaling
from xr_cloudfree.engine.fill import FillJob
from xr_cloudfree.errors import OptionTypeError, SizeError
from xr_cloudfree.models import registry
from xr_cloudfree.models.auto import Auto
from xr_cloudfree.models.learned import Learned
from xr_cloudfree.models.protocol import FillModel
from xr_cloudfree.models.spec import ModelSpec
from xr_cloudfree.options import COMMON_LAYERS, LAYERS, parse_block, parse_layers
from xr_cloudfree.tiling.grid import TileGrid, choose_block

# A graph of more tasks than this does not run well anywhere.
MAX_BLOCKS = 500_000


@dataclass(frozen=True, eq=False)
class Understood:
    """A cube with its mask and scaling: everything that metadata tells."""

    cube: Cube
    times: Any
    quality: xr.DataArray
    rule: MaskRule
    scaling: Scaling


@dataclass(frozen=True, eq=False)
class FillPlan:
    """A fill before it runs.

    Parameters
    ----------
    understood : Understood
        The cube: its arrays and quality layer, lazy or not, and what they mean.
    job : FillJob
        What each block does.
    attrs : mapping
        Attributes of the Dataset that was given, none for a DataArray.
    """

    understood: Understood
    job: FillJob
    attrs: Mapping[Any, Any]


def read(
    obj: xr.DataArray | xr.Dataset,
    *,
    clear: xr.DataArray | str | None = None,
    mask: xr.DataArray | str | None = None,
    scheme: str | None = None,
    threshold: float | None = None,
    snow: Snow = "clear",
    strict: bool = False,
    dilate: int = 0,
    bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
) -> Understood:
    """Understand a cube, its mask and its scaling from metadata; nothing is computed. See `fill`."""
    if isinstance(obj, xr.Dataset):
        # Opened without decode_coords="all" the CRS is a variable beside the bands; the output needs it as well.
        told = {str(array.attrs.get("grid_mapping")) for array in obj.data_vars.values()}
        obj = obj.set_coords(sorted(told & {str(name) for name in obj.data_vars}))
    cube = understand(obj, bands)
    times = cube_times(cube.arrays[0])
    standard = {name: role for role, name in cube.dims.items()}

    def renamed(layer: Any) -> Any:
        if not isinstance(layer, xr.DataArray):
            return layer
        return layer.rename({a: b for a, b in standard.items() if a != b and a in (*layer.dims, *layer.coords)})

    layers = obj.data_vars if isinstance(obj, xr.Dataset) else {}
    quality, rule = resolve_mask(
        {str(name): renamed(layer) for name, layer in layers.items() if name not in cube.bands},
        clear=renamed(clear),
        mask=renamed(mask),
        scheme=scheme,
        threshold=threshold,
        snow=snow,
        strict=strict,
        dilate=dilate,
        template=cube.template,
    )
    scaling = resolve_scaling(cube.arrays, scale=scale, offset=offset, nodata=nodata)
    return Understood(cube, times, quality, rule, scaling)


def plan_fill(
    obj: xr.DataArray | xr.Dataset,
    date: Any = None,
    *,
    model: str | FillModel = "auto",
    window: Any = None,
    layers: Literal["all"] | str | Sequence[str] | None = None,
    screen: bool = False,
    check: bool = True,
    block: int | tuple[int, int] | None = None,
    bands: Sequence[str] | None = None,
    most_blocks: int = MAX_BLOCKS,
    **reading: Any,
) -> FillPlan:
    """Settle a fill: choose the model, match the dates, lay the grid. The parameters are those of `fill`.

    ``most_blocks`` is the number of blocks above which the cube is refused; ``reading`` goes to `read`.
    """
    made = registry.create(model)
    understood = read(obj, bands=bands, **reading)
    for name, flag in (("screen", screen), ("check", check)):
        if not isinstance(flag, bool):
            raise OptionTypeError(f"{name} is {flag!r}", "True or False", f"{name}=True")
    cube, times, rule = understood.cube, understood.times, understood.rule
    targets = parse_targets(date, times)
    tells_snow = rule.scheme is not None and any(flag.state == "snow" for flag in rule.scheme.flags)
    chosen = made
    if isinstance(made, Auto):
        asked = layers if isinstance(layers, str) and layers == "all" else parse_layers(layers, LAYERS, "auto")
        chosen = made.choose(observed=max(targets.own) >= 0, layers=asked, bands=cube.bands, roles=cube.roles)
    spec = chosen.spec
    offered = COMMON_LAYERS + spec.layers + (("snow",) if tells_snow else ())
    wanted = parse_layers(layers, offered, made.spec.name)
    spec.check_bands(cube.bands, cube.roles)
    if isinstance(chosen, Learned):
        chosen.check_installed()
    told = parse_window(window)
    days = told or parse_window(spec.window_days)
    check_reach(times, targets, days, told is not None)
    grid = make_grid(cube, times.size, len(targets.own), spec, parse_block(block, spec.stride), most_blocks)
    job = FillJob(
        model=chosen,
        grid=grid,
        rule=rule,
        scaling=understood.scaling,
        times=times,
        targets=targets,
        window=days,
        roles=cube.roles,
        sensor=cube.sensor,
        dtype=cube.dtype,
        limits=_packed_limits(cube.arrays),
        layers=wanted,
        screen=screen,
        check=check,
    )
    return FillPlan(understood, job, obj.attrs if isinstance(obj, xr.Dataset) else {})


def make_grid(
    cube: Cube,
    n_times: int,
    n_targets: int,
    spec: ModelSpec | None,
    block: tuple[int, int] | None,
    most_blocks: int = MAX_BLOCKS,
) -> TileGrid:
    """Blocks and tiles of a cube.

    Parameters
    ----------
    cube : Cube
        The cube.
    n_times, n_targets : int
        Dates that are read, and that are made.
    spec : ModelSpec or None
        The model's, which tells the tiles.
    block : tuple of int or None
        Rows and columns of a block; None chooses them.
    most_blocks : int
        A cube of more blocks is refused.

    Raises
    ------
    SizeError
        If there would be too many blocks.
    """
    tile, stride, taper = (spec.tile, spec.stride, spec.taper) if spec else (None, None, False)
    if block is None:
        n_bands, itemsize = len(cube.bands), cube.dtype.itemsize
        # The window as stored, its masks, and for each target the image as a float and as it is stored.
        per_pixel = n_times * (n_bands * itemsize + 3) + n_targets * n_bands * (itemsize + 4)
        chunks = cube.arrays[0].chunks
        edges = None if chunks is None else (max(chunks[-2]), max(chunks[-1]))
        block = choose_block(cube.shape, per_pixel, stride, edges, most_with_halo=spec.block if spec else 256)
    grid = TileGrid(cube.shape, block, tile, stride, taper)
    if grid.n_blocks > most_blocks:
        raise SizeError(
            f"the cube has {cube.shape[0]} x {cube.shape[1]} pixels, {grid.n_blocks} blocks of {block[0]} x {block[1]}",
            f"at most {most_blocks} blocks",
            "a part of it: cube.isel(y=slice(0, 10980), x=slice(0, 10980))",
        )
    return grid


def packing_of(array: xr.DataArray) -> np.iinfo[Any] | None:
    """The integers in which the values of a decoded array will be packed when it is written, if they will be."""
    encoding = array.encoding
    packed = np.dtype(encoding["dtype"]) if encoding.get("dtype") is not None else array.dtype
    if array.dtype.kind != "f" or packed.kind not in "ui" or not encoding.get("scale_factor"):
        return None
    return np.iinfo(packed)


def _packed_limits(arrays: Sequence[xr.DataArray]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The least and the largest value that each array's own packing can hold, where one has any.

    Integers wrap in silence when a value beyond is written; so it is clipped before.
    """
    limits = []
    for array in arrays:
        packed = packing_of(array)
        if packed is None:
            limits.append((-np.inf, np.inf))
            continue
        scale, offset = float(array.encoding["scale_factor"]), float(array.encoding.get("add_offset") or 0.0)
        # One step inside at each end, where nodata lies by custom.
        ends = (packed.min + 1) * scale + offset, (packed.max - 1) * scale + offset
        limits.append((min(ends), max(ends)))
    if not np.isfinite(limits).any():
        return None
    return tuple(low for low, _ in limits), tuple(high for _, high in limits)
