"""One block for one target date: decoded, cut into tiles for the model, and finished from the model's predictions."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube import checks, scaling
from xr_cloudfree.cube.dates import candidates
from xr_cloudfree.cube.inverted_masks import check_polarity
from xr_cloudfree.cube.radar import check_decibels, nearest_image
from xr_cloudfree.cube.timestamps import Times
from xr_cloudfree.cube.validity import clear_where, measured
from xr_cloudfree.engine.answers import Answer
from xr_cloudfree.engine.band_groups import Part, split
from xr_cloudfree.engine.blocks import Array, Windows, as_slice, stack
from xr_cloudfree.engine.clear import decode_window, split_extras, valid_by_band
from xr_cloudfree.engine.grid import Box
from xr_cloudfree.engine.haze import suspect
from xr_cloudfree.engine.others import DecodedOther, decode_others
from xr_cloudfree.engine.parameters import KERNEL_DTYPES, FillParameters
from xr_cloudfree.engine.provenance import Provenance, nearest_last
from xr_cloudfree.engine.repairs import decode_codes
from xr_cloudfree.engine.stitching import stitch
from xr_cloudfree.errors import ScalingError, option, warn
from xr_cloudfree.layers import LAYERS, MASK_CHANGE, PARTLY
from xr_cloudfree.models.protocol import Observations, Prediction

T = TypeVar("T", bound=np.generic)


@dataclass(frozen=True, eq=False)
class DecodedBlock:
    """A block's windows in memory, with the quality layer decoded."""

    stored: Array  # (time, band, y, x), in the user's type
    values: Array  # the same in a type that the kernels take
    seen: NDArray[np.bool_]  # (time, y, x), clear according to the quality layer
    snow: NDArray[np.bool_] | None
    clear: NDArray[np.bool_]  # seen as clear, and valid in every band
    valid: NDArray[np.bool_] | None  # by band; None where all bands of a pixel have a value or none has
    times: Times
    window: Box
    change: NDArray[np.uint8] | None  # (time, y, x), how the masks differ from the given ones
    s1: NDArray[Any] | None  # VV and VH of all images that are read
    extras: Array | None  # layers that are not bands
    others: tuple[DecodedOther, ...]  # images of other sensors; none where all tiles are answered already


@dataclass(frozen=True, eq=False)
class BlockTarget:
    """One block for one target date, and the model's answers for its tiles."""

    box: Box
    block: DecodedBlock
    order: NDArray[np.intp]  # candidate dates among those of the block, by time
    offsets: NDArray[np.float64]
    own: int  # the target's own observation among the dates of the block, or -1
    target: int  # the same among the candidates
    clear: NDArray[np.bool_]  # of the candidates
    seen: NDArray[np.bool_]  # clear and valid in some band
    haze: NDArray[np.bool_] | None  # of the block alone
    s1: NDArray[np.float32] | None  # the Sentinel-1 image for the target
    instant: np.datetime64
    answers: dict[Box, Answer]  # by the tile's extent
    asked: Sequence[Box]  # the tiles for which the model is asked for this block

    @property
    def is_answered(self) -> bool:
        """Whether the model has answered all tiles."""
        return all(answer.prediction is not None for answer in self.answers.values())


@dataclass(frozen=True, eq=False)
class TargetTile:
    """A tile, and the predictions for its parts so far."""

    extent: Box
    obs: Observations
    seen: NDArray[np.bool_]
    valid: NDArray[np.bool_] | None
    n_parts: int
    predictions: list[tuple[Part, Prediction]] = field(default_factory=list)


def decode_block(job: FillParameters, window: Box, windows: Windows, checked: bool = False) -> DecodedBlock:
    """Decode the arrays of a window, and check their values unless they were checked already."""
    check = job.check and not checked
    decoded = decode_window(windows, job.decoding, job.grid, window, job.dates)
    stored, extras = split_extras(decoded.stored, job.extras)
    times = job.times[job.dates]
    if check:  # the values as stored, before any of them counts as missing
        checks.check_classes(stored, job.bands, job.common_names, decoded.clear)
        checks.check_reflectance(
            stored,
            decoded.clear,
            job.scaling,
            times,
            job.sensor,
            job.common_names,
            job.valid_range,
            job.spelling,
        )
    seen, clear = decoded.clear, clear_where(stored, decoded.clear, job.scaling, job.valid_range)
    if check:
        check_polarity(stored, clear, decoded, job.scaling, job.common_names, job.rule)
    change: NDArray[np.uint8] | None = None
    if windows.corrected is not None:
        seen, clear, change = decode_codes(windows.corrected)
    valid = valid_by_band(stored, seen, clear, job.scaling, job.valid_range)
    if valid is not None and not checked:
        _warn_of_missing_bands(job, valid)
    # Free arrays that no layer needs before the models run.
    change = change if MASK_CHANGE.name in job.layers else None
    snow = decoded.snow if "snow" in job.layers else None
    s1: NDArray[Any] | None = np.ascontiguousarray(stack(windows.s1)) if windows.s1 else None
    if s1 is not None and check:
        check_decibels(s1)
    others = () if checked else decode_others(job.others, windows.others, window, job.check)
    values = _for_kernels(stored)
    return DecodedBlock(stored, values, seen, snow, clear, valid, times, window, change, s1, extras, others)


def _warn_of_missing_bands(job: FillParameters, valid: NDArray[np.bool_]) -> None:
    """Warn of bands that are missing on whole dates that have others."""
    present = np.asarray(valid.any(axis=(2, 3)))
    lacking = np.asarray((present.any(axis=1, keepdims=True) & ~present).any(axis=0))
    if lacking.any():
        names = [name for name, lacks in zip(job.bands, lacking, strict=False) if lacks]
        warn(
            f"on some dates there is no value of {', '.join(names)}: each band is filled from the dates that have it, "
            f"and layers='filled' says {PARTLY} where only some bands of a pixel are known"
        )


def _for_kernels(values: Array) -> Array:
    if values.dtype in KERNEL_DTYPES and values.dtype.isnative:
        return np.ascontiguousarray(values)
    return values.astype(np.float32)


def make_target(
    job: FillParameters,
    box: Box,
    block: DecodedBlock,
    which: int,
    answers: dict[Box, Answer],
    asked: Sequence[Box] = (),
) -> BlockTarget:
    """Prepare a block for one of the target dates: its candidate dates and their clear pixels."""
    order, offsets = candidates(block.times, job.targets.instants[which], job.window)
    own = int(np.searchsorted(job.dates, job.targets.own[which])) if job.targets.own[which] >= 0 else -1
    target = int(np.flatnonzero(order == own)[0]) if own >= 0 else -1
    dates = as_slice(order)
    clear = block.clear[dates]
    seen = clear if block.valid is None else block.seen[dates] & block.valid[dates].any(axis=1)
    haze: NDArray[np.bool_] | None = None
    if target >= 0 and "suspect" in job.layers:
        inner = (..., *box.within(block.window))
        reflectance = scaling.to_reflectance(block.values[dates][inner], job.scaling)
        haze = suspect(Observations(reflectance, clear[inner], offsets, target, common_names=job.common_names))
    s1 = None
    if block.s1 is not None and job.s1_times is not None:
        s1 = nearest_image(block.s1, job.s1_times[job.s1_reads], job.targets.instants[which])
    return BlockTarget(
        box, block, order, offsets, own, target, clear, seen, haze, s1, job.targets.instants[which], answers, asked
    )


def cut_tile(job: FillParameters, target: BlockTarget, extent: Box) -> tuple[TargetTile, list[Part]]:
    """Cut a tile out of a block's window, and split it into the parts that the model gets."""
    spec, block, dates = job.model.spec, target.block, as_slice(target.order)
    bands = _cut(block.values[dates], extent, block.window)
    clear = _cut(target.clear, extent, block.window)
    scale = job.scaling.scale or 1.0
    if spec.units == "reflectance":
        bands, scale = scaling.to_reflectance(bands, job.scaling), 1.0
    s1 = None if target.s1 is None else _cut(target.s1, extent, block.window)
    others = tuple(other.cut(extent, block.window, target.instant, block.times[target.order]) for other in block.others)
    obs = Observations(bands, clear, target.offsets, target.target, scale, job.common_names, s1, others)
    seen, valid = clear, None
    if block.valid is not None:
        seen = _cut(target.seen, extent, block.window)
        valid = _cut(block.valid[dates], extent, block.window)
    parts = split(obs, seen, valid, job.model, job.bands)
    return TargetTile(extent, obs, seen, valid, len(parts)), parts


def _cut(array: NDArray[T], extent: Box, window: Box) -> NDArray[T]:
    """Return a tile of the window; beyond the cube's border the pixels inside are mirrored."""
    inside = extent.clip(window)
    part = array[(..., *inside.within(window))]
    if inside == extent:
        return part
    margins = [(inside.y0 - extent.y0, extent.y1 - inside.y1), (inside.x0 - extent.x0, extent.x1 - inside.x1)]
    return np.pad(part, [(0, 0)] * (array.ndim - 2) + margins, mode="symmetric")


def finish_target(job: FillParameters, target: BlockTarget) -> tuple[Array, ...]:
    """Return the outputs of one block for one target date, from the model's answers."""
    box, block, own, haze = target.box, target.block, target.own, target.haze
    inner = box.within(block.window)
    tiles = job.grid.tiles(box)
    prediction = stitch(job.grid, box, tiles, [target.answers[tile.extent] for tile in tiles])

    bands = prediction.bands
    known = prediction.known & np.isfinite(bands)
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
        kept = _restore(image, job, target, inner)
    provenance = Provenance(
        times=block.times[target.order],
        offsets=target.offsets,
        clear=target.seen[(slice(None), *inner)],
        prediction=prediction,
        known=known,
        kept=kept,
        target=target.target,
        reads=job.dates[target.order],
        n_dates=job.times.size,
        unit=1.0 if job.model.spec.units == "reflectance" else (job.scaling.scale or 1.0),
        haze=haze,
        change=None if block.change is None or own < 0 else block.change[own][inner],
        snowy=None if block.snow is None or own < 0 else block.snow[own][inner],
    )
    outputs: list[Array] = [image if block.extras is None else _with_extras(job, target, image, inner)]
    for name in job.layers:
        layer = getattr(provenance, name)()
        outputs.append(_without_extras(job, layer) if "band" in LAYERS[name].dims else layer)
    return tuple(outputs)


def _restore(image: Array, job: FillParameters, target: BlockTarget, inner: tuple[slice, slice]) -> NDArray[np.bool_]:
    """Put the target's own clear values back, bit for bit, and return where; shape (band, y, x)."""
    values = target.block.stored[target.own][(slice(None), *inner)]
    keep = target.block.seen[target.own][inner]
    valid = measured(values, job.scaling, job.valid_range, axis=0) & keep
    np.copyto(image, values, where=valid, casting="same_kind")
    return np.asarray(valid)


def _set_nodata(image: Array, known: NDArray[np.bool_], job: FillParameters) -> None:
    if known.all():
        return
    nodata = job.scaling.nodata
    if nodata is None:
        if image.dtype.kind != "f":
            raise ScalingError(
                f"{int((~known).any(axis=0).sum())} pixels of a block have no clear observation, and {image.dtype} has "
                "no nodata value to mark them",
                "a nodata value",
                option("nodata=0") + " (or whichever value the cube does not use)",
            )
        nodata = np.nan
    np.copyto(image, np.asarray(nodata).astype(image.dtype), where=~known)


def _positions(job: FillParameters) -> list[int]:
    """Return the positions of the bands along the arrays' band axis, beside the extras."""
    return [i for i in range(job.sizes["band"]) if i not in job.extras]


def _without_extras(job: FillParameters, layer: Array) -> Array:
    """Return a layer by band along the arrays' band axis, NaN for the extras."""
    if not job.extras:
        return layer
    whole = np.full((job.sizes["band"], *layer.shape[1:]), np.nan, np.float32)
    whole[_positions(job)] = layer
    return whole


def _with_extras(job: FillParameters, target: BlockTarget, image: Array, inner: tuple[slice, slice]) -> Array:
    """Return the image with the extras, the value of each pixel from its nearest clear observation."""
    extras = target.block.extras
    assert extras is not None
    nodata = np.nan if image.dtype.kind == "f" else (job.scaling.nodata or 0)
    whole = np.full((job.sizes["band"], *image.shape[1:]), nodata, image.dtype)
    whole[_positions(job)] = image
    nearest = np.full((len(job.extras), *image.shape[1:]), nodata, image.dtype)
    for i in nearest_last(target.offsets):
        values = extras[target.order[i]][(slice(None), *inner)]
        usable = target.seen[i][inner] & (np.isfinite(values) if values.dtype.kind == "f" else True)
        np.copyto(nearest, values, where=usable, casting="same_kind")
    whole[list(job.extras)] = nearest
    return whole
