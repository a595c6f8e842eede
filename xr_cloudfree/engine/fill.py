"""The one numerical path: `fill_block` turns a block's window into the block's outputs.

All drivers call it: with a stream of blocks for arrays in memory (`eager.run_eager`) and for regions
(`streaming.run_region`), in a task per block for dask (`lazy.build_graph`).
"""

from __future__ import annotations

import warnings
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube import checks, scaling
from xr_cloudfree.cube.dates import Targets, candidates
from xr_cloudfree.cube.masks import MaskRule
from xr_cloudfree.cube.measured import ValidRange, clear_where, measured
from xr_cloudfree.cube.merge import Scenes
from xr_cloudfree.cube.polarity import check_polarity
from xr_cloudfree.cube.radar import check_decibels, nearby_dates, nearest_image
from xr_cloudfree.cube.remedies import Spelling
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.cube.stamps import Times
from xr_cloudfree.engine.blocks import Array, Block, Output, as_slice, stack
from xr_cloudfree.engine.clear import bands_alone, look, quality_window, uneven_bands
from xr_cloudfree.engine.grid import Box, Tile, TileGrid
from xr_cloudfree.engine.haze import suspect
from xr_cloudfree.engine.parts import Part, join, split
from xr_cloudfree.engine.provenance import Provenance, nearest_last
from xr_cloudfree.engine.stitching import stitch
from xr_cloudfree.errors import CloudfreeWarning, ModelError, ScalingError, option
from xr_cloudfree.layers import LAYERS, PARTLY
from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.protocol import FillModel, Observations, Prediction, optional

T = TypeVar("T", bound=np.generic)

TILE_BYTES = 2**30
"""Bytes that the tiles may take on which a model works side by side; a batch of it always goes."""
# What the kernels are compiled for; any other type is made float32 first.
KERNEL_DTYPES = tuple(np.dtype(name) for name in ("uint16", "int16", "float32"))


@dataclass(frozen=True, eq=False)
class FillJob:
    """All that a block needs to know besides its window; small, so that it can travel with every task.

    Parameters
    ----------
    model : FillModel
        The model.
    grid : TileGrid
        Blocks and tiles.
    rule : MaskRule
        How the quality layer is read.
    scaling : Scaling
        How stored numbers become reflectance.
    times : ndarray of datetime64[ns], shape (time,)
        The time stamps of the cube's dates, in the cube's order; with `scenes` theirs.
    targets : Targets
        The dates asked for.
    window : tuple of float or None
        Days before and after a target from which dates are taken.
    common_names : tuple of (str or None)
        STAC common names of the bands.
    sensor : str or None
        The sensor, where it is known.
    dtype : dtype
        Type of the outputs' reflectance: the cube's.
    limits : tuple of tuple of float, or None
        Least and largest values that the cube's packing can hold, one for all bands or one per band; estimates are
        clipped to them.
    layers : tuple of str
        Layers asked for.
    screen : bool
        Whether suspect pixels of the target are filled.
    check : bool
        Whether values that do not look like reflectance, or like decibels, are refused.
    bands : tuple of str
        Names of the bands.
    extras : tuple of int
        Positions along the arrays' band axis of layers that are no bands: each pixel gets their value at its nearest
        clear observation.
    s1_times : ndarray of datetime64[ns], optional
        Time stamps of Sentinel-1, in its order, for a model that takes it; None if none is given.
    valid_range : ValidRange or None
        Which stored numbers can be measurements; None for all.
    spelling : Spelling
        What the user's cube is made of, for remedies.
    scenes : Scenes, optional
        The scenes of which each date is made; None if each is one.
    """

    model: FillModel
    grid: TileGrid
    rule: MaskRule
    scaling: Scaling
    times: Times
    targets: Targets
    window: tuple[float, float] | None
    common_names: tuple[str | None, ...]
    sensor: str | None
    dtype: np.dtype[np.generic]
    limits: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    layers: tuple[str, ...] = ()
    screen: bool = False
    check: bool = True
    bands: tuple[str, ...] = ()
    extras: tuple[int, ...] = ()
    s1_times: Times | None = None
    valid_range: ValidRange | None = None
    spelling: Spelling = field(default_factory=Spelling)
    scenes: Scenes | None = None
    dates: NDArray[np.intp] = field(init=False)
    reads: NDArray[np.intp] = field(init=False)
    s1_reads: NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        # Only dates that some target can use are read at all.
        used = [candidates(self.times, instant, self.window)[0] for instant in self.targets.instants]
        dates = np.unique(np.concatenate(used))
        object.__setattr__(self, "dates", dates)
        object.__setattr__(self, "reads", dates if self.scenes is None else self.scenes.of(dates))
        none = np.empty(0, np.intp)
        reach = none if self.s1_times is None else nearby_dates(self.s1_times, self.targets.instants)
        object.__setattr__(self, "s1_reads", reach)

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What a block gives, in order; the reflectance is first."""
        layers = [LAYERS[name] for name in self.layers]
        return (
            Output("reflectance", ("band", "y", "x"), self.dtype),
            *(Output(layer.name, layer.dims, np.dtype(layer.dtype)) for layer in layers),
        )

    @property
    def name(self) -> str:
        """What tasks are called."""
        return f"cloudfree-{self.model.spec.name}"

    @property
    def lead(self) -> tuple[int, ...]:
        """Length of the targets' axis, which comes first; none if one date was asked for."""
        return () if self.targets.scalar else (len(self.targets.own),)

    @property
    def sizes(self) -> dict[str, int]:
        """Length of the outputs' dimensions, without rows and columns."""
        return {"band": len(self.common_names) + len(self.extras), "observation": self.times.size}

    def windows(self, box: Box) -> tuple[Box, Box]:
        """What must be read for a block: of the bands and Sentinel-1, and of the quality layer in its own pixels."""
        window = self.grid.window(box)
        return window, quality_window(window, self.rule, self.grid)

    def run(self, box: Box, bands: Sequence[Array], quality: Array, s1: Sequence[Array] = ()) -> tuple[Array, ...]:
        """The outputs of one block."""
        return fill_block(self, box, bands, quality, s1)

    def stream(self, blocks: Iterable[Block]) -> Iterator[tuple[Box, tuple[Array, ...]]]:
        """The outputs of several blocks."""
        return fill_blocks(self, blocks, alone=True)

    @property
    def tiles_at_once(self) -> int:
        """Tiles that the model is given at once where nothing else runs: what it asks for, as far as memory allows."""
        batch = self.model.spec.batch
        wanted = optional(self.model).tiles_at_once
        edge = self.model.spec.tile or max(self.grid.block)
        # As it was read, as it is prepared, and what is at work on it.
        one = 3 * 4 * edge**2 * self.reads.size * len(self.common_names)
        return max(batch, min(wanted, TILE_BYTES // max(one, 1)) // batch * batch)


def fill_block(
    job: FillJob, box: Box, bands: Sequence[Array], quality: Array, s1: Sequence[Array] = ()
) -> tuple[Array, ...]:
    """The outputs of one block.

    Parameters
    ----------
    job : FillJob
        What to do.
    box : Box
        The block.
    bands : sequence of ndarray
        The block's window, dates as in ``job.reads``: one array (time, band, y, x) or one (time, y, x) per band.
    quality : ndarray, shape (time, y, x)
        The quality layer in its own window.
    s1 : sequence of ndarray
        Sentinel-1 in the block's window, dates as in ``job.s1_reads``: one array (time, 2, y, x), or VV and VH
        (time, y, x); empty for none.

    Returns
    -------
    tuple of ndarray
        One per ``job.outputs``.
    """
    [(_, done)] = fill_blocks(job, [(box, bands, quality, s1)])
    return done


def fill_blocks(
    job: FillJob, blocks: Iterable[Block], *, alone: bool = False
) -> Iterator[tuple[Box, tuple[Array, ...]]]:
    """The outputs of several blocks, in their order.

    Blocks are taken one at a time, but the last tiles of one share a batch with the first of the next.

    Parameters
    ----------
    job : FillJob
        What to do.
    blocks : iterable of (Box, bands, quality, s1)
        As `fill_block` takes them.
    alone : bool
        Whether nothing else is at work in this process: the model is then given ``job.tiles_at_once`` tiles. Else it is
        given a batch, for other blocks need the cores and the memory too.

    Yields
    ------
    (Box, tuple of ndarray)
        A block and its outputs, one per ``job.outputs``.
    """
    n_targets = len(job.targets.own)
    made: list[tuple[Array, ...]] = []
    at_once = job.tiles_at_once if alone else job.model.spec.batch
    for share in _answered(job, _shares(job, blocks), at_once):
        made.append(_finish(job, share))
        if len(made) == n_targets:
            box = share.box
            del share
            yield box, made[0] if job.targets.scalar else tuple(np.stack(arrays) for arrays in zip(*made, strict=True))
            made = []


def _shares(job: FillJob, blocks: Iterable[Block]) -> Iterator[_BlockTarget]:
    """Blocks, and of each its targets, one after the other."""
    for box, bands, quality, s1 in blocks:
        scene = _scene(job, box, bands, quality, s1)
        for which in range(len(job.targets.own)):
            yield _share(job, box, scene, which)
        del scene


def _answered(job: FillJob, shares: Iterable[_BlockTarget], at_once: int) -> Iterator[_BlockTarget]:
    """The same, in the same order, with the model's answers, which is asked as soon as there are tiles enough."""
    waiting: deque[_BlockTarget] = deque()
    batch: list[tuple[_BlockTarget, _Tile, Part]] = []
    observed: list[Observations] = []
    spec = job.model.spec
    by_band = optional(job.model).by_band

    def answered(share: _BlockTarget, tile: _Tile, part: Part, answer: Prediction) -> None:
        tile.answers.append((part, answer))
        if len(tile.answers) == tile.n_parts:
            share.answers[tile.extent] = join(tile.answers, tile.obs, tile.seen, tile.valid, by_band)

    def predict() -> None:
        predicted = _checked(spec.name, observed, job.model.predict(observed))
        for (share, tile, part), answer in zip(batch, predicted, strict=True):
            answered(share, tile, part, answer)
        batch.clear()
        observed.clear()  # or the next tiles would be made while these are still held

    for share in shares:
        waiting.append(share)
        for extent in share.extents:
            tile, parts = _observe(job, share, extent)
            for part in parts:
                if not part.capable:
                    answered(share, tile, part, Linear().predict([part.obs])[0])
                    continue
                batch.append((share, tile, part))
                observed.append(part.obs)
                if len(batch) >= at_once:
                    predict()
            del tile, parts, part  # or a block would be held while the next one is made
        del share
        while waiting and len(waiting[0].answers) == len(waiting[0].extents):
            yield waiting.popleft()
    if batch:
        predict()
    while waiting:
        yield waiting.popleft()


def _scene(job: FillJob, box: Box, bands: Sequence[Array], quality: Array, s1: Sequence[Array]) -> _Scene:
    window = job.grid.window(box)
    how = job.scaling, job.grid, window, job.dates, job.scenes, job.extras, job.valid_range
    seen = look(bands, quality, job.rule, *how)
    stored, extras = bands_alone(seen.stored, job.extras)
    times = job.times[job.dates]
    if job.check:  # of the values as they are, before any of them counts as missing
        checks.check_classes(stored, job.bands, job.common_names, seen.clear)
        looked = times, job.sensor, job.common_names, job.valid_range, job.spelling
        checks.check_reflectance(stored, seen.clear, job.scaling, *looked)
    clear = clear_where(stored, seen.clear, job.scaling, job.valid_range)
    valid = uneven_bands(stored, seen.clear, clear, job.scaling, job.valid_range)
    if valid is not None:
        _tell_missing(job, valid)
    if job.check:
        check_polarity(stored, clear, seen, job.scaling, job.common_names, job.rule)
    # What no layer needs is not kept while the models run.
    snow = seen.snow if "snow" in job.layers else None
    radar: NDArray[Any] | None = stack(s1) if s1 else None
    if radar is not None and job.check:
        check_decibels(radar)
    return _Scene(stored, _for_kernels(stored), seen.clear, snow, clear, valid, times, window, radar, extras)


def _tell_missing(job: FillJob, valid: NDArray[np.bool_]) -> None:
    """Warn of bands that are missing on whole dates that have others."""
    present = np.asarray(valid.any(axis=(2, 3)))
    lacking = np.asarray((present.any(axis=1, keepdims=True) & ~present).any(axis=0))
    if lacking.any():
        names = [name for name, lacks in zip(job.bands, lacking, strict=False) if lacks]
        warnings.warn(
            f"on some dates there is no value of {', '.join(names)}: each band is filled from the dates that have it, "
            f"and layers='filled' says {PARTLY} where only some bands of a pixel are known",
            CloudfreeWarning,
            stacklevel=2,
        )


@dataclass(frozen=True, eq=False)
class _Scene:
    """A window in memory."""

    stored: Array  # as the user has it
    values: Array  # as kernels take it
    seen: NDArray[np.bool_]  # as clear
    snow: NDArray[np.bool_] | None
    clear: NDArray[np.bool_]  # seen as clear, and valid in every band
    valid: NDArray[np.bool_] | None  # in each band; None where all bands of a pixel have a value or none has
    times: Times
    window: Box
    s1: NDArray[Any] | None  # VV and VH of all dates that are read
    extras: Array | None  # layers that are no bands


@dataclass(frozen=True, eq=False)
class _BlockTarget:
    """One block for one target date, and what the model has answered so far."""

    box: Box
    scene: _Scene
    order: NDArray[np.intp]  # candidate dates among those that were read, by time
    offsets: NDArray[np.float64]
    own: int  # the target's own observation among the dates that were read, or -1
    target: int  # the same among the candidates
    clear: NDArray[np.bool_]  # of the candidates
    seen: NDArray[np.bool_]  # as clear, in whichever bands
    haze: NDArray[np.bool_] | None
    s1: NDArray[np.float32] | None  # its image for the target
    tiles: list[Tile]
    extents: tuple[Box, ...]  # tiles moved inwards at the cube's border may coincide: each is asked for once
    answers: dict[Box, Prediction] = field(default_factory=dict)


def _share(job: FillJob, box: Box, scene: _Scene, which: int) -> _BlockTarget:
    order, offsets = candidates(scene.times, job.targets.instants[which], job.window)
    own = int(np.searchsorted(job.dates, job.targets.own[which])) if job.targets.own[which] >= 0 else -1
    target = int(np.flatnonzero(order == own)[0]) if own >= 0 else -1
    clear = scene.clear[as_slice(order)]
    seen = clear if scene.valid is None else scene.seen[as_slice(order)] & scene.valid[as_slice(order)].any(axis=1)
    haze: NDArray[np.bool_] | None = None
    if target >= 0 and (job.screen or "suspect" in job.layers):
        haze = _suspect(job, scene, order, offsets, target)
    if haze is not None and job.screen:
        clear = clear.copy()
        clear[target] &= ~haze
        seen = clear if scene.valid is None else seen.copy()
        seen[target] &= ~haze
    tiles = job.grid.tiles(box)
    extents = tuple(dict.fromkeys(tile.extent for tile in tiles))
    s1 = None
    if scene.s1 is not None and job.s1_times is not None:
        s1 = nearest_image(scene.s1, job.s1_times[job.s1_reads], job.targets.instants[which])
    return _BlockTarget(box, scene, order, offsets, own, target, clear, seen, haze, s1, tiles, extents)


@dataclass(frozen=True, eq=False)
class _Tile:
    """A tile whose parts are being answered."""

    extent: Box
    obs: Observations
    seen: NDArray[np.bool_]
    valid: NDArray[np.bool_] | None
    n_parts: int
    answers: list[tuple[Part, Prediction]] = field(default_factory=list)


def _observe(job: FillJob, share: _BlockTarget, extent: Box) -> tuple[_Tile, list[Part]]:
    """A tile, and the parts of it that the model is asked for."""
    spec, scene = job.model.spec, share.scene
    part = _cut(scene.values[as_slice(share.order)], extent, scene.window)
    clear = _cut(share.clear, extent, scene.window)
    scale = job.scaling.scale or 1.0
    if spec.units == "reflectance":
        part, scale = scaling.to_reflectance(part, job.scaling), 1.0
    s1 = None if share.s1 is None else _cut(share.s1, extent, scene.window)
    obs = Observations(part, clear, share.offsets, share.target, scale, job.common_names, s1)
    seen = valid = None
    if scene.valid is not None:
        seen = _cut(share.seen, extent, scene.window)
        valid = _cut(scene.valid[as_slice(share.order)], extent, scene.window)
    parts = split(obs, clear if seen is None else seen, valid, job.model, job.bands)
    return _Tile(extent, obs, clear if seen is None else seen, valid, len(parts)), parts


def _finish(job: FillJob, share: _BlockTarget) -> tuple[Array, ...]:
    """The outputs of one block for one target date, from the model's answers."""
    box, scene, own, haze = share.box, share.scene, share.own, share.haze
    inner = box.within(scene.window)
    answer = stitch(job.grid, box, share.tiles, [share.answers[tile.extent] for tile in share.tiles])

    bands = answer.bands
    known = answer.known & np.isfinite(bands)
    if job.model.spec.units == "reflectance":
        bands = scaling.from_reflectance(bands, job.scaling)
    bands = np.where(known, bands, np.float32(0))
    if job.limits is not None:
        low, high = (np.asarray(ends, np.float32)[:, None, None] for ends in job.limits)
        bands = np.clip(bands, low, high)
    image = scaling.encode(bands, job.dtype, job.scaling)
    _set_nodata(image, known, job)
    kept = np.zeros(known.shape, bool)
    if own >= 0:
        kept = _restore(image, job, scene, own, inner, haze)
    clear = share.seen[(slice(None), *inner)]
    provenance = Provenance(
        times=scene.times[share.order],
        offsets=share.offsets,
        clear=clear,
        answer=answer,
        known=known,
        kept=kept,
        target=share.target,
        reads=job.dates[share.order],
        n_dates=job.times.size,
        unit=1.0 if job.model.spec.units == "reflectance" else (job.scaling.scale or 1.0),
        haze=None if haze is None else haze[inner],
        snowy=None if scene.snow is None or own < 0 else scene.snow[own][inner],
    )
    made: list[Array] = [image if scene.extras is None else _with_extras(job, share, image, inner)]
    for name in job.layers:
        values = getattr(provenance, name)()
        made.append(_with_nothing(job, values) if "band" in LAYERS[name].dims else values)
    return tuple(made)


def _checked(name: str, observed: list[Observations], predicted: object) -> list[Prediction]:
    """What a model answered, if it is one prediction per tile; models may be written by anyone."""
    remedy = "mend the model's predict(): one Prediction per tile, as large as the tile"
    if not isinstance(predicted, Sequence) or len(predicted) != len(observed):
        what = f"{len(predicted)} predictions" if isinstance(predicted, Sequence) else f"a {type(predicted).__name__}"
        raise ModelError(f"model {name!r} answered {what}", f"a list of {len(observed)}, one per tile", remedy)
    for obs, prediction in zip(observed, predicted, strict=True):
        if not isinstance(prediction, Prediction):
            raise ModelError(f"model {name!r} answered a {type(prediction).__name__}", "a Prediction", remedy)
        bands, known, needed = prediction.bands, prediction.known, (obs.n_bands, *obs.shape)
        if bands.shape != needed or bands.dtype.kind != "f" or known.shape != obs.shape or known.dtype != bool:
            raise ModelError(
                f"model {name!r} answered bands ({bands.dtype}) of shape {bands.shape} and known ({known.dtype}) of "
                f"shape {known.shape}",
                f"bands (float32) of shape {needed} and known (bool) of shape {obs.shape}",
                remedy,
            )
    return list(predicted)


def _suspect(
    job: FillJob, scene: _Scene, order: NDArray[np.intp], offsets: NDArray[np.float64], target: int
) -> NDArray[np.bool_]:
    """Suspect pixels of the target in the whole window: `screen` takes them from the neighbours' view as well."""
    dates = as_slice(order)
    clear = scene.clear[dates]
    reflectance = scaling.to_reflectance(scene.values[dates], job.scaling)
    return suspect(Observations(reflectance, clear, offsets, target, common_names=job.common_names))


def _restore(
    image: Array,
    job: FillJob,
    scene: _Scene,
    own: int,
    inner: tuple[slice, slice],
    haze: NDArray[np.bool_] | None,
) -> NDArray[np.bool_]:
    """Put the target's own clear values back, bit for bit, and tell where; shape (band, y, x)."""
    values = scene.stored[own][(slice(None), *inner)]
    keep = scene.seen[own][inner]
    if haze is not None and job.screen:
        keep = keep & ~haze[inner]
    valid = measured(values, job.scaling, job.valid_range, axis=0) & keep
    np.copyto(image, values, where=valid, casting="same_kind")
    return np.asarray(valid)


def _set_nodata(image: Array, known: NDArray[np.bool_], job: FillJob) -> None:
    if known.all():
        return
    nodata = job.scaling.nodata
    if nodata is None:
        if image.dtype.kind != "f":
            raise ScalingError(
                f"{int((~known).any(axis=0).sum())} pixels of a block have no clear observation, and {image.dtype} has "
                "no value that says so",
                "a nodata value",
                option("nodata=0") + " (or whichever value the cube does not use)",
            )
        nodata = np.nan
    np.copyto(image, np.asarray(nodata).astype(image.dtype), where=~known)


def _positions(job: FillJob) -> list[int]:
    """Where the bands are along the arrays' band axis, beside the extras."""
    return [i for i in range(job.sizes["band"]) if i not in job.extras]


def _with_nothing(job: FillJob, spread: NDArray[np.float32]) -> NDArray[np.float32]:
    """A layer of the bands along the arrays' band axis, NaN for what is no band."""
    if not job.extras:
        return spread
    whole = np.full((job.sizes["band"], *spread.shape[1:]), np.nan, np.float32)
    whole[_positions(job)] = spread
    return whole


def _with_extras(job: FillJob, share: _BlockTarget, image: Array, inner: tuple[slice, slice]) -> Array:
    """The image with the layers that are no bands, each pixel's value from its nearest clear observation."""
    layers = share.scene.extras
    assert layers is not None
    nodata = np.nan if image.dtype.kind == "f" else (job.scaling.nodata or 0)
    whole = np.full((job.sizes["band"], *image.shape[1:]), nodata, image.dtype)
    whole[_positions(job)] = image
    taken = np.full((len(job.extras), *image.shape[1:]), nodata, image.dtype)
    for i in nearest_last(share.offsets):
        values = layers[share.order[i]][(slice(None), *inner)]
        there = share.seen[i][inner] & (np.isfinite(values) if values.dtype.kind == "f" else True)
        np.copyto(taken, values, where=there, casting="same_kind")
    whole[list(job.extras)] = taken
    return whole


def _for_kernels(values: Array) -> Array:
    if values.dtype in KERNEL_DTYPES and values.dtype.isnative:
        return np.ascontiguousarray(values)
    return values.astype(np.float32)


def _cut(array: NDArray[T], extent: Box, window: Box) -> NDArray[T]:
    """A tile from the window; what lies beyond the cube mirrors what lies inside."""
    inside = extent.clip(window)
    part = array[(..., *inside.within(window))]
    if inside == extent:
        return part
    margins = [(inside.y0 - extent.y0, extent.y1 - inside.y1), (inside.x0 - extent.x0, extent.x1 - inside.x1)]
    return np.pad(part, [(0, 0)] * (array.ndim - 2) + margins, mode="symmetric")
