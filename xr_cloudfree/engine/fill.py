"""Numerical core: the windows of blocks become their outputs, with each tile that blocks share computed once.

For arrays in memory (`eager.run_eager`) and for regions (`streaming.run_region`) `fill_blocks` does so, one block after
the other; in a dask graph (`lazy.build_graph`) `fill_block` in a task per block or, where blocks share tiles,
`answer_group` and `finish_block` in two.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np

from xr_cloudfree.engine.answers import Answer, Answers, parts_of, without_unused
from xr_cloudfree.engine.band_groups import Part, join
from xr_cloudfree.engine.blocks import Array, Block, Windows
from xr_cloudfree.engine.grid import Box
from xr_cloudfree.engine.parameters import FillParameters
from xr_cloudfree.engine.targets import BlockTarget, TargetTile, cut_tile, decode_block, finish_target, make_target
from xr_cloudfree.errors import ModelError
from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.protocol import Observations, Prediction, optional

# Layers that describe the model's prediction at pixels that the target shows, too.
OF_ALL_PIXELS = frozenset({"gate", "consistency"})


@dataclass(frozen=True, eq=False)
class FillJob(FillParameters):
    """A fill, block by block. See `FillParameters`."""

    def run(self, box: Box, windows: Windows) -> tuple[Array, ...]:
        """Compute the outputs of one block."""
        return fill_block(self, box, windows)

    def by_pixel(self) -> FillJob:
        """Return the job without tiles: its windows are the pixels of a part alone."""
        return replace(self, grid=replace(self.grid, tile=None, stride=None, taper=False))

    def stream(self, blocks: Iterable[Block]) -> Iterator[tuple[Box, tuple[Array, ...]]]:
        """Compute the outputs of several blocks."""
        return fill_blocks(self, blocks, alone=True, answers=Answers(self.grid))


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
    job: FillParameters,
    blocks: Iterable[Block],
    *,
    alone: bool = False,
    answers: Answers | None = None,
    threads: int = 1,
) -> Iterator[tuple[Box, tuple[Array, ...]]]:
    """Compute the outputs of several blocks, in their order.

    Blocks are taken one at a time, but the last tiles of one share a batch with the first of the next, and a tile that
    several blocks need is computed once.

    Parameters
    ----------
    job : FillParameters
        The fill.
    blocks : iterable of (Box, Windows)
        As `fill_block` takes them.
    alone : bool
        Whether nothing else runs in this process: the model then gets ``job.tiles_at_once`` tiles per call, and the
        next ones are cut meanwhile if it `overlaps`. Otherwise it gets one batch, because other blocks need the cores
        and the memory too.
    answers : Answers, optional
        Answers shared by the blocks, and by other blocks before and after; by default each block is by itself.
    threads : int
        Tiles that are computed in parallel, for models that take one per call.

    Yields
    ------
    (Box, tuple of ndarray)
        A block and its outputs, one per ``job.outputs``.
    """
    answers = answers or Answers(job.grid, ())
    at_once = job.tiles_at_once if alone else job.model.spec.batch
    needed: deque[dict[Box, Box]] = deque()  # for each block that has begun

    def targets() -> Iterator[BlockTarget]:
        for box, windows in blocks:
            decoded = decode_block(job, job.grid.window(box), windows)
            del windows
            needed.append(answers.begin(box))
            extents = parts_of(job.grid, box)
            for which in range(len(job.targets.own)):
                yield make_target(job, box, decoded, which, *answers.of(which, extents, needed[-1]))
            del decoded

    outputs: list[tuple[Array, ...]] = []
    for target in answered(job, targets(), at_once, threads, overlap=alone and optional(job.model).overlaps):
        outputs.append(finish_target(job, target))
        answers.finish(len(outputs) - 1, needed[0])
        if len(outputs) == len(job.targets.own):
            box = target.box
            del target
            needed.popleft()
            yield box, _of_targets(job, outputs)
            outputs = []


@dataclass(frozen=True, eq=False)
class TileGroup:
    """Tiles that are answered together, for several blocks.

    Parameters
    ----------
    window : Box
        The part of the cube that they need.
    parts : tuple of dict
        For each block the tiles that it needs of the group, with the part that it needs of each.
    """

    window: Box
    parts: tuple[dict[Box, Box], ...]

    @property
    def extents(self) -> list[Box]:
        """The tiles, each once."""
        return list(dict.fromkeys(extent for part in self.parts for extent in part))


TileAnswers = dict[tuple[int, Box], Answer]
"""Answers by target and tile."""


def answer_group(job: FillParameters, group: TileGroup, windows: Windows) -> tuple[TileAnswers, ...]:
    """Return the model's answers for a group of tiles, for each block those that it needs.

    Parameters
    ----------
    job : FillParameters
        The fill.
    group : TileGroup
        The tiles.
    windows : Windows
        The arrays in the group's window.
    """
    decoded = decode_block(job, group.window, windows)
    lean = replace(job, layers=())  # what is computed of a block besides the answers is left to `finish_block`
    extents = group.extents

    def targets() -> Iterator[BlockTarget]:
        for which in range(len(job.targets.own)):
            answers = {extent: Answer(extent) for extent in extents}
            yield make_target(lean, group.window, decoded, which, answers, extents)

    found: tuple[TileAnswers, ...] = tuple({} for _ in group.parts)
    for which, target in enumerate(answered(job, targets(), job.model.spec.batch)):
        for answers, part in zip(found, group.parts, strict=True):
            answers |= {(which, extent): target.answers[extent].crop(needed) for extent, needed in part.items()}
    return found


def finish_block(job: FillParameters, box: Box, windows: Windows, answers: Iterable[TileAnswers]) -> tuple[Array, ...]:
    """Compute the outputs of one block from the answers for its tiles.

    Parameters
    ----------
    job : FillParameters
        The fill.
    box : Box
        The block.
    windows : Windows
        The arrays in the block alone.
    answers : iterable of dict
        From `answer_group`, of all groups that have some of its tiles.
    """
    found = {key: answer for part in answers for key, answer in part.items()}
    decoded = decode_block(job, box, windows, checked=True)
    extents = parts_of(job.grid, box)
    outputs = []
    for which in range(len(job.targets.own)):
        target = make_target(job, box, decoded, which, {extent: found[which, extent] for extent in extents})
        outputs.append(finish_target(job, target))
    return _of_targets(job, outputs)


def _of_targets(job: FillParameters, outputs: Sequence[tuple[Array, ...]]) -> tuple[Array, ...]:
    """Return the outputs of a block from those for each target."""
    return outputs[0] if job.targets.scalar else tuple(np.stack(arrays) for arrays in zip(*outputs, strict=True))


def answered(
    job: FillParameters, targets: Iterable[BlockTarget], at_once: int, threads: int = 1, overlap: bool = False
) -> Iterator[BlockTarget]:
    """Yield the targets in their order with the model's answers, from batches of tiles; see `fill_blocks`.

    With `overlap` the model predicts a batch in a thread of its own while the tiles of the next one are cut.
    """
    waiting: deque[BlockTarget] = deque()
    batch: list[tuple[BlockTarget, TargetTile, Part]] = []
    observations: list[Observations] = []
    running: deque[tuple[list[tuple[BlockTarget, TargetTile, Part]], Future[list[Prediction]]]] = deque()
    spec = job.model.spec
    by_band = optional(job.model).by_band
    parallel = threads > 1 and at_once == 1

    def add(target: BlockTarget, tile: TargetTile, part: Part, prediction: Prediction) -> None:
        tile.predictions.append((part, prediction))
        if len(tile.predictions) == tile.n_parts:
            joined = join(tile.predictions, tile.obs, tile.seen, tile.valid, by_band)
            target.answers[tile.extent].prediction = without_unused(joined, job.layers)

    def predictions(given: list[Observations]) -> list[Prediction]:
        if not parallel:
            return _checked(spec.name, given, job.model.predict(given))
        with ThreadPoolExecutor(threads) as pool:
            each = pool.map(lambda obs: _checked(spec.name, [obs], job.model.predict([obs])), given)
            return [prediction for [prediction] in each]

    def predict() -> None:
        group, given = batch.copy(), observations.copy()
        batch.clear()
        observations.clear()  # else the next tiles would be cut while these are still held
        collect()  # one batch at a time
        if overlap:
            running.append((group, ahead.submit(predictions, given)))
        else:
            for (target, tile, part), prediction in zip(group, predictions(given), strict=True):
                add(target, tile, part, prediction)

    def collect() -> None:
        while running:
            group, future = running.popleft()
            for (target, tile, part), prediction in zip(group, future.result(), strict=True):
                add(target, tile, part, prediction)

    with ThreadPoolExecutor(1) as ahead:  # starts its thread when it is given work
        for target in targets:
            waiting.append(target)
            for extent in target.asked:
                tile, parts = cut_tile(job, target, extent)
                for part in parts:
                    if (seen := _observed(job, part.obs)) is not None:
                        add(target, tile, part, seen)
                        continue
                    if not part.capable:
                        add(target, tile, part, Linear().predict([part.obs])[0])
                        continue
                    batch.append((target, tile, part))
                    observations.append(part.obs)
                    if len(batch) >= (threads if parallel else at_once):
                        predict()
                del tile, parts, part  # else a block would be held while the next one is decoded
            del target
            while waiting and waiting[0].is_answered:
                yield waiting.popleft()
        if batch:
            predict()
        collect()
    while waiting:
        yield waiting.popleft()


def _observed(job: FillParameters, obs: Observations) -> Prediction | None:
    """Return a tile's own observation of the target date as its prediction, if it is clear everywhere.

    Only layers of `OF_ALL_PIXELS` would show what the model says about such a tile: for them it has to be asked.
    """
    if obs.target < 0 or not OF_ALL_PIXELS.isdisjoint(job.layers) or not obs.clear[obs.target].all():
        return None
    given, bands = job.model.spec.layers, obs.bands[obs.target].astype(np.float32)
    return Prediction(
        bands,
        np.ones(obs.shape, bool),
        np.full(obs.shape, obs.target, np.int16) if "source_time" in given else None,
        np.zeros_like(bands) if "uncertainty" in given else None,
        sensor=np.zeros(obs.shape, np.uint8) if "source_sensor" in job.layers else None,
    )


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
