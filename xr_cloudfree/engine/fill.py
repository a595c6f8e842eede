"""Numerical core: every driver calls `fill_block` to turn a block's windows into its outputs.

All drivers call it: with a stream of blocks for arrays in memory (`eager.run_eager`) and for regions
(`streaming.run_region`), in a task per block for dask (`lazy.build_graph`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from xr_cloudfree.engine.band_groups import Part, join
from xr_cloudfree.engine.blocks import Array, Block, Windows
from xr_cloudfree.engine.grid import Box
from xr_cloudfree.engine.parameters import FillParameters
from xr_cloudfree.engine.targets import BlockTarget, TargetTile, cut_tile, decode_block, finish_target, make_target
from xr_cloudfree.errors import ModelError
from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.protocol import Observations, Prediction, optional


@dataclass(frozen=True, eq=False)
class FillJob(FillParameters):
    """A fill, block by block. See `FillParameters`."""

    def run(self, box: Box, windows: Windows) -> tuple[Array, ...]:
        """Compute the outputs of one block."""
        return fill_block(self, box, windows)

    def stream(self, blocks: Iterable[Block]) -> Iterator[tuple[Box, tuple[Array, ...]]]:
        """Compute the outputs of several blocks."""
        return fill_blocks(self, blocks, alone=True)


def fill_block(job: FillParameters, box: Box, windows: Windows) -> tuple[Array, ...]:
    """Compute the outputs of one block.

    Parameters
    ----------
    job : FillParameters
        The fill.
    box : Box
        The block.
    windows : Windows
        The block's windows, images as in ``job.reads`` and ``job.s1_reads``.

    Returns
    -------
    tuple of ndarray
        One per ``job.outputs``.
    """
    [(_, arrays)] = fill_blocks(job, [(box, windows)])
    return arrays


def fill_blocks(
    job: FillParameters, blocks: Iterable[Block], *, alone: bool = False
) -> Iterator[tuple[Box, tuple[Array, ...]]]:
    """Compute the outputs of several blocks, in their order.

    Blocks are taken one at a time, but the last tiles of one share a batch with the first of the next.

    Parameters
    ----------
    job : FillParameters
        The fill.
    blocks : iterable of (Box, Windows)
        As `fill_block` takes them.
    alone : bool
        Whether nothing else runs in this process: the model then gets ``job.tiles_at_once`` tiles per call. Otherwise
        it gets one batch, because other blocks need the cores and the memory too.

    Yields
    ------
    (Box, tuple of ndarray)
        A block and its outputs, one per ``job.outputs``.
    """
    n_targets = len(job.targets.own)
    outputs: list[tuple[Array, ...]] = []
    at_once = job.tiles_at_once if alone else job.model.spec.batch
    for target in _predicted(job, _block_targets(job, blocks), at_once):
        outputs.append(finish_target(job, target))
        if len(outputs) == n_targets:
            box = target.box
            del target
            if job.targets.scalar:
                yield box, outputs[0]
            else:
                yield box, tuple(np.stack(arrays) for arrays in zip(*outputs, strict=True))
            outputs = []


def _block_targets(job: FillParameters, blocks: Iterable[Block]) -> Iterator[BlockTarget]:
    """Yield the targets of each block, one after the other."""
    for box, windows in blocks:
        decoded = decode_block(job, box, windows)
        del windows
        for which in range(len(job.targets.own)):
            yield make_target(job, box, decoded, which)
        del decoded


def _predicted(job: FillParameters, targets: Iterable[BlockTarget], at_once: int) -> Iterator[BlockTarget]:
    """Yield the targets in their order with the model's predictions from batches of tiles."""
    waiting: deque[BlockTarget] = deque()
    batch: list[tuple[BlockTarget, TargetTile, Part]] = []
    observations: list[Observations] = []
    spec = job.model.spec
    by_band = optional(job.model).by_band

    def add(target: BlockTarget, tile: TargetTile, part: Part, prediction: Prediction) -> None:
        tile.predictions.append((part, prediction))
        if len(tile.predictions) == tile.n_parts:
            target.predictions[tile.extent] = join(tile.predictions, tile.obs, tile.seen, tile.valid, by_band)

    def predict() -> None:
        predictions = _checked(spec.name, observations, job.model.predict(observations))
        for (target, tile, part), prediction in zip(batch, predictions, strict=True):
            add(target, tile, part, prediction)
        batch.clear()
        observations.clear()  # else the next tiles would be cut while these are still held

    for target in targets:
        waiting.append(target)
        for extent in target.extents:
            tile, parts = cut_tile(job, target, extent)
            for part in parts:
                if not part.capable:
                    add(target, tile, part, Linear().predict([part.obs])[0])
                    continue
                batch.append((target, tile, part))
                observations.append(part.obs)
                if len(batch) >= at_once:
                    predict()
            del tile, parts, part  # else a block would be held while the next one is decoded
        del target
        while waiting and len(waiting[0].predictions) == len(waiting[0].extents):
            yield waiting.popleft()
    if batch:
        predict()
    while waiting:
        yield waiting.popleft()


def _checked(name: str, observations: list[Observations], predictions: object) -> list[Prediction]:
    """Return a model's predictions, checked: one per tile, as large as the tile. Models may be written by anyone."""
    remedy = "mend the model's predict(): one Prediction per tile, as large as the tile"
    if not isinstance(predictions, Sequence) or len(predictions) != len(observations):
        plural = isinstance(predictions, Sequence)
        found = f"{len(predictions)} predictions" if plural else f"a {type(predictions).__name__}"  # type: ignore[arg-type]
        raise ModelError(f"model {name!r} returned {found}", f"a list of {len(observations)}, one per tile", remedy)
    for obs, prediction in zip(observations, predictions, strict=True):
        if not isinstance(prediction, Prediction):
            raise ModelError(f"model {name!r} returned a {type(prediction).__name__}", "a Prediction", remedy)
        bands, known, needed = prediction.bands, prediction.known, (obs.n_bands, *obs.shape)
        if bands.shape != needed or bands.dtype.kind != "f" or known.shape != obs.shape or known.dtype != bool:
            raise ModelError(
                f"model {name!r} returned bands ({bands.dtype}) of shape {bands.shape} and known ({known.dtype}) of "
                f"shape {known.shape}",
                f"bands (float32) of shape {needed} and known (bool) of shape {obs.shape}",
                remedy,
            )
    return list(predictions)
