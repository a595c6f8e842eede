"""Planning of a fill: cube, model, target dates and grid, from metadata alone; nothing is computed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.compat import is_in_memory
from xr_cloudfree.cube.alignment import Axes
from xr_cloudfree.cube.attributes import pending
from xr_cloudfree.cube.band_pass import MSI, published_lines
from xr_cloudfree.cube.checks import check_reflectance, check_scale
from xr_cloudfree.cube.conventions import Cube, parse_cube
from xr_cloudfree.cube.crs import crs_as_coordinate, pixel_metres
from xr_cloudfree.cube.dates import Targets, candidates, check_reach, parse_targets, parse_window
from xr_cloudfree.cube.dims import check_sizes, dims_of
from xr_cloudfree.cube.masks import MaskRule
from xr_cloudfree.cube.merge import Scenes, parse_merge, scenes_of
from xr_cloudfree.cube.other_sensors import NEAR, Axis, errors_about, match_bands, relate, useful_dates
from xr_cloudfree.cube.quality import resolve_mask
from xr_cloudfree.cube.radar import MAX_DAYS, Radar, nearby_dates, parse_radar
from xr_cloudfree.cube.remedies import Spelling
from xr_cloudfree.cube.scaling import Scaling, resolve_scaling
from xr_cloudfree.cube.sensors import SENSORS
from xr_cloudfree.cube.timestamps import MERGE_REMEDY, Times, cube_times
from xr_cloudfree.cube.validity import ValidRange, derive_valid_range
from xr_cloudfree.engine.decoding import Decoding
from xr_cloudfree.engine.detection import detected
from xr_cloudfree.engine.fill import FillJob
from xr_cloudfree.engine.grid import TileGrid, choose_block, choose_wide_block
from xr_cloudfree.engine.others import OtherSensor
from xr_cloudfree.engine.repairs import MARGIN, repair_bytes
from xr_cloudfree.errors import (
    OptionError,
    OptionTypeError,
    SizeError,
    code,
    either,
    option,
    warn,
)
from xr_cloudfree.inputs import open_others, open_s1
from xr_cloudfree.layers import COMMON_LAYERS, MASK_LAYERS, OTHER_LAYERS
from xr_cloudfree.masking import detectors
from xr_cloudfree.masking.repair import LEAST_DATES
from xr_cloudfree.models import registry
from xr_cloudfree.models.classical.enhance import Enhanced
from xr_cloudfree.models.protocol import FillModel, optional
from xr_cloudfree.models.spec import ModelSpec
from xr_cloudfree.options import ReadOptions, parse_block, parse_flag, parse_layers, parse_repair

# Larger graphs of dask do not run well anywhere.
MAX_BLOCKS = 500_000
_DAY = np.timedelta64(1, "D")


@dataclass(frozen=True, eq=False)
class CubeInfo:
    """A cube with its mask and scaling, as read from its metadata.

    Parameters
    ----------
    cube : Cube
        The cube: its arrays, bands and dimensions.
    times : ndarray of datetime64[ns], shape (time,)
        The time stamps of its dates.
    quality : DataArray, shape (time, y, x)
        The quality layer, or the clear mask; one pixel per date if the masks are made from the series.
    rule : MaskRule
        How the quality layer is read.
    scaling : Scaling
        How stored numbers become reflectance.
    valid_range : ValidRange
        Which stored numbers can be measurements.
    scenes : Scenes, optional
        The scenes that are merged into each date; the arrays then hold the scenes. None if each date is one scene.
    repair : bool
        Whether the masks are corrected by the series, or made from it.
    """

    cube: Cube
    times: Times
    quality: xr.DataArray
    rule: MaskRule
    scaling: Scaling
    valid_range: ValidRange
    scenes: Scenes | None = None
    repair: bool = False

    def scene(self, date: int) -> int:
        """Return the index in the arrays of a date, or of its earliest scene."""
        return date if self.scenes is None else self.scenes.members[date][0]

    def check_reflectance(self, stored: NDArray[Any], seen: NDArray[np.bool_]) -> None:
        """Raise if clear values of the cube cannot be reflectance; see `xr_cloudfree.cube.checks.check_reflectance`.

        Parameters
        ----------
        stored : ndarray, shape (time, band, y, x)
            Values as stored, of all dates in a window.
        seen : ndarray of bool, shape (time, y, x)
            Where they are clear.
        """
        sensor, common_names = self.cube.sensor, self.cube.common_names
        check_reflectance(stored, seen, self.scaling, self.times, sensor, common_names, self.valid_range, self.spelling)

    @property
    def spelling(self) -> Spelling:
        """Names of the user's cube, for the remedies in error messages."""
        return spelling_of(self.cube)


@dataclass(frozen=True, eq=False)
class FillPlan:
    """A fill before it runs.

    Parameters
    ----------
    info : CubeInfo
        The cube: its arrays and quality layer, lazy or not, and what they mean.
    job : FillJob
        The job of each block.
    attrs : mapping
        Attributes of the user's Dataset; empty for a DataArray.
    s1 : Radar or None
        Sentinel-1, if any.
    others : tuple of CubeInfo
        Cubes of other sensors, with rows and columns in the cube's direction.
    """

    info: CubeInfo
    job: FillJob
    attrs: Mapping[Any, Any]
    s1: Radar | None = None
    others: tuple[CubeInfo, ...] = ()

    @property
    def s1_arrays(self) -> tuple[xr.DataArray, ...]:
        """Arrays of Sentinel-1 to read; none if none of its dates is near a target."""
        return self.s1.arrays if self.s1 is not None and self.job.s1_reads.size else ()


def read(obj: xr.DataArray | xr.Dataset, reading: ReadOptions | None = None, series_masks: bool = True) -> CubeInfo:
    """Return what metadata say of a cube, its mask and its scaling; nothing is computed.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube, see `xr_cloudfree.fill`.
    reading : ReadOptions, optional
        How it is read; by default as its metadata say.
    series_masks : bool
        Whether masks are made from the series, with a warning, where there is no quality layer.

    Raises
    ------
    DimensionError, BandError, TimeError, GridError, MaskError, ScalingError, OptionError
        As `xr_cloudfree.fill` raises them.
    """
    reading = reading or ReadOptions()
    repair = parse_repair(reading.repair)
    if isinstance(obj, xr.Dataset):
        obj = crs_as_coordinate(obj)
    cube = parse_cube(obj, reading.bands)
    merge = parse_merge(reading.merge)
    times = cube_times(cube.arrays[0], several=None if merge else MERGE_REMEDY)
    scenes = scenes_of(cube.arrays[0], times) if merge else None
    times = times if scenes is None else scenes.times
    fits = _fits_repair(cube, times)
    layers = {str(name): layer for name, layer in (obj.data_vars.items() if isinstance(obj, xr.Dataset) else ())}
    for argument in ("clear", "mask"):
        if isinstance(layer := getattr(reading, argument), xr.DataArray):
            check_sizes(layer, argument)
    variables = {name: _renamed(layer, cube) for name, layer in layers.items() if name not in cube.bands}
    variables |= cube.quality
    detector = detectors.find(reading.mask, variables) if reading.clear is None else None
    if detector is None:
        chosen = replace(reading, clear=_renamed(reading.clear, cube), mask=_renamed(reading.mask, cube))
    else:
        chosen = detected(obj, cube, reading, detector)
    quality, rule = resolve_mask(
        variables,
        chosen,
        template=cube.template,
        band=cube.band_expression,
        axes=Axes(*(cube.dims[role] for role in Axes._fields)),
        from_series=series_masks and fits is None,
    )
    if detector is not None:
        rule = replace(rule, label=detector.spec.label(rule.threshold))
    spelling = spelling_of(cube)
    scaling = resolve_scaling(
        cube.measured,
        scale=reading.scale,
        offset=reading.offset,
        nodata=reading.nodata,
        spelling=spelling,
        index=cube.limits is not None,
    )
    valid_range = derive_valid_range(cube.measured, scaling, cube.limits)
    if rule.from_series or repair is True:
        _check_repair(rule, fits, cube)
        check_scale(cube.dtype, scaling, cube.sensor)
    fits_auto = fits is None and scaling.scale is not None
    repaired = rule.from_series or repair is True or (repair == "auto" and fits_auto)
    return CubeInfo(cube, times, quality, rule, scaling, valid_range, scenes, repaired)


def _fits_repair(cube: Cube, times: Times) -> tuple[str, str] | None:
    """Return None if masks can be corrected by the series; otherwise what was found, and what is needed."""
    if times.size < LEAST_DATES:
        return f"{times.size} date{'s' if times.size > 1 else ''}", f"at least {LEAST_DATES} dates"
    if cube.limits is not None:
        return f"{', '.join(cube.bands)}, which is not reflectance", "reflectance, which clouds and shadows change"
    return None


def _check_repair(rule: MaskRule, fits: tuple[str, str] | None, cube: Cube) -> None:
    """Raise if masks are to be corrected by the series, or made from it, and cannot be."""
    layer = either(
        option("mask=None") + " to use the cube's own layer",
        option("mask=None", f"clear={cube.band_expression}.notnull()") + " if cloudy pixels have no value",
    )
    if fits is not None:
        found, needed = fits
        given = 'mask="series"' if rule.from_series else "repair=True"
        raise OptionError(
            f"{given} was given for {found}", needed, layer if rule.from_series else option("repair=False")
        )


def _renamed(layer: Any, cube: Cube) -> Any:
    """Return a layer with its dimensions under the package's names; anything else as it is."""
    if not isinstance(layer, xr.DataArray):
        return layer
    own = {name: role for role, name in cube.dims.items() if name in (*layer.dims, *layer.coords)}
    own |= {name: role for role, name in dims_of(layer).items() if name not in own and role not in own.values()}
    names = {name: role for name, role in own.items() if name != role and role not in (*layer.dims, *layer.coords)}
    return layer.rename(names)


def spelling_of(cube: Cube) -> Spelling:
    """Return the names of the user's cube, for the remedies in error messages."""
    variables = {"array": (), "layer": (), "variable": (cube.name or "",), "bands": cube.bands}[cube.layout]
    return Spelling(cube.dims["time"], variables, cube.bands, _items_of(cube))


def _items_of(cube: Cube) -> tuple[tuple[str, str], ...]:
    """Return the days of a cube with the identifiers of their items, as `xr_cloudfree.load` gives them."""
    items = cube.arrays[0].coords.get("item_id")
    if items is None or items.dims != ("time",) or not is_in_memory(items):
        return ()
    days = cube_times(cube.arrays[0], several=None).astype("datetime64[D]").astype(str)
    return tuple(zip(days.tolist(), map(str, items.to_numpy().tolist()), strict=True))


def read_others(others: Sequence[Any], cube: Cube) -> tuple[tuple[CubeInfo, ...], tuple[OtherSensor, ...]]:
    """Return what metadata say of cubes of other sensors, and how they lie on a cube; no date is read yet.

    Parameters
    ----------
    others : sequence of (DataArray or Dataset)
        The cubes.
    cube : Cube
        The cube whose pixels are filled.

    Raises
    ------
    GridError
        If one has another CRS, finer pixels, or lies elsewhere.
    BandError
        If one has no band of the cube.
    MaskError
        If one has no quality layer.
    DimensionError, TimeError, ScalingError
        If one cannot be read.
    """
    infos, sensors = [], []
    for number, other in enumerate(others):
        name = "others" if len(others) == 1 else f"others[{number}]"
        with errors_about(name):
            if not isinstance(other, xr.DataArray | xr.Dataset):
                raise OptionTypeError(
                    f"others holds a {type(other).__name__}",
                    "cubes of other sensors: DataArrays, Datasets or paths",
                    code("others=[landsat]"),
                )
            check_sizes(other, name)
            info = read(other, series_masks=False)
            theirs = info.cube
            check_scale(theirs.arrays[0].dtype, info.scaling, theirs.sensor, theirs.limits is not None)
        rows, columns = relate(theirs.template, name, cube.template)
        pairs = match_bands(theirs.common_names, cube.common_names, name, theirs.sensor, theirs.bands)
        info = _in_direction(info, rows, columns)
        family = next((sensor for sensor in SENSORS if sensor.name == theirs.sensor), None)
        metres = pixel_metres(cube.template)
        names = [cube.common_names[ours] if cube.sensor in MSI else theirs.common_names[i] for i, ours in pairs.items()]
        # An image that was resampled to finer pixels still sees its own.
        size = 0.0 if family is None or metres is None else family.pixel / metres
        infos.append(info)
        sensors.append(
            OtherSensor(
                title=theirs.sensor or name,
                decoding=Decoding(
                    info.rule, info.scaling, info.times, extras=theirs.extras, valid_range=info.valid_range
                ),
                reads=np.empty(0, np.intp),
                rows=rows,
                columns=columns,
                width=(max(rows.step, size), max(columns.step, size)),
                bands=tuple(pairs),
                positions=tuple(pairs.values()),
                lines=published_lines(theirs.sensor, cube.sensor, names),
                sensor=theirs.sensor,
                common_names=theirs.common_names,
                spelling=info.spelling,
            )
        )
    return tuple(infos), tuple(sensors)


def _in_direction(info: CubeInfo, rows: Axis, columns: Axis) -> CubeInfo:
    """Return another sensor's cube with rows and columns in the direction of the cube's."""
    flips = {dim: slice(None, None, -1) for dim, axis in (("y", rows), ("x", columns)) if axis.flipped}
    if not flips:
        return info
    arrays = tuple(array.isel(flips) for array in info.cube.arrays)
    return replace(info, cube=replace(info.cube, arrays=arrays), quality=info.quality.isel(flips))


def _with_dates(sensors: Sequence[OtherSensor], job: FillJob) -> tuple[OtherSensor, ...]:
    """Return other sensors with the images that some target of a fill can use."""
    chosen = []
    for sensor in sensors:
        found = [np.empty(0, np.intp)]
        for instant in job.targets.instants:
            dates = job.times[candidates(job.times, instant, job.window)[0]]
            found.append(useful_dates(sensor.times, instant, dates))
        chosen.append(replace(sensor, reads=np.unique(np.concatenate(found))))
    return tuple(chosen)


def plan_fill(
    obj: xr.DataArray | xr.Dataset,
    date: Any = None,
    reading: ReadOptions | None = None,
    *,
    freq: Any = None,
    model: str | FillModel = "auto",
    window: Any = None,
    layers: Literal["all"] | str | Sequence[str] | None = None,
    check: bool = True,
    block: int | tuple[int, int] | None = None,
    s1: Any = None,
    others: Any = None,
    most_blocks: int = MAX_BLOCKS,
) -> FillPlan:
    """Plan a fill: choose the model, match the dates, lay out the grid.

    The parameters are those of `fill`, with the options of reading as one value. A cube of more than ``most_blocks``
    blocks is refused.
    """
    requested_model = registry.create(model)
    s1, cut = open_s1(s1, obj)
    info = read(cut, reading)
    parse_flag("check", check)
    cube, times, rule = info.cube, info.times, info.rule
    if cube.extras:
        named = [cube.labels[i] for i in cube.extras]
        warn(
            f"{', '.join(named)} {'is' if len(named) == 1 else 'are'} not reflectance: not estimated, but copied from "
            f"each pixel's nearest clear date; bands={list(cube.bands)} leaves such layers out"
        )
    if check:
        check_scale(cube.arrays[0].dtype, info.scaling, cube.sensor, cube.limits is not None)
    targets = parse_targets(date, times, freq)
    has_snow = rule.scheme is not None and any(flag.state == "snow" for flag in rule.scheme.flags)
    chosen = optional(requested_model).choose(layers=layers, bands=cube.bands, common_names=cube.common_names)
    infos, sensors = read_others(open_others(others), cube)
    if sensors:
        chosen = Enhanced(chosen)
    spec = chosen.spec
    offered = COMMON_LAYERS + spec.layers + (OTHER_LAYERS if sensors else ()) + (MASK_LAYERS if has_snow else ())
    asked = (layers,) if isinstance(layers, str) else tuple(layers) if isinstance(layers, list | tuple) else ()
    lacking = [] if sensors else [name for name in OTHER_LAYERS if name in asked]
    if lacking:
        raise OptionError(
            f"layers asks for {', '.join(lacking)}, and there are no others",
            "cubes of other sensors",
            option("others=landsat"),
        )
    requested_layers = parse_layers(layers, offered, requested_model.spec.name)
    spec.check_bands(cube.bands, cube.common_names)
    optional(chosen).check_installed()
    own_window = parse_window(window)
    days = own_window or parse_window(spec.window_days)
    check_reach(times, targets, days, own_window is not None)
    radar = None
    if s1 is not None:
        spec.check_s1()
        if isinstance(s1, xr.DataArray | xr.Dataset):
            check_sizes(s1, "s1")
        radar = parse_radar(s1, cube.template)
    grid = make_grid(
        cube,
        cube.arrays[0].sizes["time"],
        len(targets.own),
        spec,
        parse_block(block, spec.stride),
        most_blocks,
        0 if radar is None else _s1_bytes(radar, targets),
    )
    job = FillJob(
        model=chosen,
        grid=grid,
        rule=rule,
        scaling=info.scaling,
        times=times,
        targets=targets,
        window=days,
        common_names=cube.common_names,
        sensor=cube.sensor,
        dtype=cube.dtype,
        bands=cube.bands,
        extras=cube.extras,
        limits=_value_limits(cube, info.scaling),
        layers=requested_layers,
        repair=info.repair,
        check=check,
        s1_times=None if radar is None else radar.times,
        valid_range=info.valid_range if check else None,
        spelling=info.spelling,
        scenes=info.scenes,
    )
    job = replace(job, others=_with_dates(sensors, job))
    _warn_of_distant(job)
    if radar is not None and not job.s1_reads.size:
        warn(f"no date of s1 is within {MAX_DAYS:g} days of a target date: the result is as without it")
    return FillPlan(info, job, obj.attrs if isinstance(obj, xr.Dataset) else {}, radar, infos)


def _warn_of_distant(job: FillJob) -> None:
    """Warn if no image of other sensors is near a target date."""
    distances = [
        np.abs((other.times - instant) / _DAY).min() for other in job.others for instant in job.targets.instants
    ]
    if distances and min(distances) > NEAR:
        warn(
            f"no image of others is within {NEAR:g} days of a target date: the nearest is {min(distances):.0f} days "
            "away, and the result is as without others"
        )


def _s1_bytes(radar: Radar, targets: Targets) -> int:
    """Return the bytes of Sentinel-1 that a block holds for a pixel: the images read, and one for each target."""
    n_dates = nearby_dates(radar.times, targets.instants).size
    return int(n_dates * 2 * radar.arrays[0].dtype.itemsize + len(targets.own) * 8)


def make_grid(
    cube: Cube,
    n_times: int,
    n_targets: int,
    spec: ModelSpec | None,
    block: tuple[int, int] | None,
    most_blocks: int = MAX_BLOCKS,
    more_bytes: int = 0,
    repair: bool = False,
) -> TileGrid:
    """Lay out the blocks and tiles of a cube.

    Parameters
    ----------
    cube : Cube
        The cube.
    n_times, n_targets : int
        Number of images that are read, and of target dates.
    spec : ModelSpec or None
        The model's, with its tiles.
    block : tuple of int or None
        Rows and columns of a block; None chooses them.
    most_blocks : int
        Blocks above which the cube is refused.
    more_bytes : int
        Bytes that are held of a pixel besides the cube.
    repair : bool
        Whether masks are corrected by the series, which takes larger windows.

    Raises
    ------
    SizeError
        If there would be too many blocks.
    """
    tile, stride, taper = (spec.tile, spec.stride, spec.taper) if spec else (None, None, False)
    if block is None:
        n_bands, itemsize = len(cube.bands), cube.dtype.itemsize
        # The window as stored, its masks, and for each target the image as float and as stored.
        per_pixel = n_times * (n_bands * itemsize + 3) + n_targets * n_bands * (itemsize + 4) + more_bytes
        if repair:
            block = choose_wide_block(cube.shape, per_pixel + repair_bytes(n_times, n_bands), stride, MARGIN)
    if block is None:
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
    """Return the integer type in which a decoded array will be packed when written; None if it will not be."""
    encoding = array.encoding
    packed = np.dtype(encoding["dtype"]) if encoding.get("dtype") is not None else array.dtype
    if array.dtype.kind != "f" or packed.kind not in "ui" or not encoding.get("scale_factor") or pending(array):
        return None
    return np.iinfo(packed)


def _value_limits(cube: Cube, scaling: Scaling) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the least and greatest stored value of each array, from its packing and an index's own limits."""
    packed = _packed_limits(cube.arrays)
    if cube.limits is None:
        return packed
    own = [(end - scaling.offset) / (scaling.scale or 1.0) for end in cube.limits]
    n = len(cube.arrays)
    lows, highs = packed or ((-np.inf,) * n, (np.inf,) * n)
    return tuple(max(low, own[0]) for low in lows), tuple(min(high, own[1]) for high in highs)


def _packed_limits(arrays: Sequence[xr.DataArray]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """Return the least and greatest value that the packing of each array can hold; None if no array is packed.

    Values beyond are clipped, because integers wrap silently when they are written.
    """
    limits = []
    for array in arrays:
        packed = packing_of(array)
        if packed is None:
            limits.append((-np.inf, np.inf))
            continue
        scale, offset = float(array.encoding["scale_factor"]), float(array.encoding.get("add_offset") or 0.0)
        # One step inside at each end, which is usually nodata.
        ends = (packed.min + 1) * scale + offset, (packed.max - 1) * scale + offset
        limits.append((min(ends), max(ends)))
    if not np.isfinite(limits).any():
        return None
    return tuple(low for low, _ in limits), tuple(high for _, high in limits)
