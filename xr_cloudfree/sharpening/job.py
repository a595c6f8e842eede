"""Sharpening of blocks of a cube, date by date: at once on arrays in memory, or as a graph on chunked ones.

Tiles are anchored to pixel (0, 0) and blended linearly where they overlap, in a fixed order, so that values depend
neither on blocks nor on chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.scaling import Scaling, encode, from_reflectance, to_reflectance
from xr_cloudfree.cube.validity import ValidRange, measured
from xr_cloudfree.engine.blocks import Array
from xr_cloudfree.engine.grid import Box, TileGrid
from xr_cloudfree.engine.stitching import ramp
from xr_cloudfree.sharpening.fit import Tile, sharpen_tile

if TYPE_CHECKING:
    import dask.array as da

NOT_KNOWN, SHARPENED, INTERPOLATED = 0, 1, 2
"""Values of the layer ``sharpened``."""
# Coarse pixels along the edge of the largest tiles, and fine pixels of the smallest; tiles overlap by a quarter.
COARSE_EDGE, FINE_EDGE = 40, 240
# Tiles per block and axis: a block of 540 pixels holds the windows of few chunks, and computes few tiles twice.
BLOCK_TILES = 3


def lay_out(shape: tuple[int, int], factor: int) -> TileGrid:
    """Return blocks and tiles in fine pixels, for an image of some rows and columns.

    Examples
    --------
    >>> grid = lay_out((1000, 600), 2)
    >>> grid.tile, grid.stride, grid.block
    (240, 180, (540, 540))
    """
    quarter = -(-max(FINE_EDGE, COARSE_EDGE * factor) // (4 * factor)) * factor
    stride = 3 * quarter
    return TileGrid(shape, (BLOCK_TILES * stride,) * 2, tile=4 * quarter, stride=stride, taper=True)


@dataclass(frozen=True)
class SharpenJob:
    """What the tasks of all blocks share.

    Parameters
    ----------
    grid : TileGrid
        Blocks and tiles, in fine pixels.
    factor : int
        Fine pixels per coarse pixel along each axis.
    n_guide, n_coarse : int
        Number of the arrays of the guide, and of the coarse bands.
    guide, coarse : Scaling
        How the values of each are stored.
    guide_range, coarse_range : ValidRange
        Which of them can be measurements.
    clear_factor : int or None
        Fine pixels per pixel of the clear mask along each axis; None if there is none.
    bands : int
        Number of coarse bands.
    dtype : dtype
        Of the coarse bands, and of the output.
    limits : tuple of float
        Least and greatest stored value that can be written.
    """

    grid: TileGrid
    factor: int
    n_guide: int
    n_coarse: int
    guide: Scaling
    coarse: Scaling
    guide_range: ValidRange
    coarse_range: ValidRange
    clear_factor: int | None
    bands: int
    dtype: np.dtype[Any]
    limits: tuple[float, float]

    def windows(self, box: Box) -> list[Box]:
        """Return the window of a block in each of the sources, in its own pixels."""
        window = self.grid.window(box)
        mask = [] if self.clear_factor is None else [self.clear_factor]
        factors = [1] * self.n_guide + [self.factor] * self.n_coarse + mask
        return [_coarser(window, factor) for factor in factors]

    def run(self, box: Box, sources: Sequence[Array]) -> tuple[Array, Array]:
        """Return the sharpened bands (1, band, y, x) and the layer (1, y, x) of one block and one date.

        Parameters
        ----------
        box : Box
            The block.
        sources : sequence of ndarray
            The windows of the block, of one date: arrays of the guide, of the coarse bands, and the clear mask.
        """
        given = [array[0] for array in sources]
        window = self.grid.window(box)
        guide = _bands(given[: self.n_guide])
        mask = given.pop() if self.clear_factor is not None else None
        coarse = _bands(given[self.n_guide :])
        known = measured(coarse, self.coarse, self.coarse_range, axis=0)
        clear = np.asarray(measured(guide, self.guide, self.guide_range, axis=0).all(axis=0))
        if mask is not None and self.clear_factor is not None:
            clear &= _repeated(mask.astype(bool), _coarser(window, self.clear_factor), self.clear_factor, window)
        guide, values = to_reflectance(guide, self.guide), to_reflectance(coarse, self.coarse)

        total = np.zeros(box.shape, np.float32)
        fitted = np.zeros(box.shape, np.float32)
        image = np.zeros((self.bands, *box.shape), np.float32)
        # At the border of a cube several tiles are moved to the same place.
        answers: dict[Box, tuple[NDArray[np.float32], bool]] = {}
        for tile in self.grid.tiles(box):
            fine = tile.extent.within(window)
            small = _coarser(tile.extent, self.factor).within(_coarser(window, self.factor))
            if tile.extent not in answers:
                part = Tile(guide[(..., *fine)], clear[fine], values[(..., *small)], known[(..., *small)], self.factor)
                answers[tile.extent] = sharpen_tile(part)
            bands, guided = answers[tile.extent]
            place, inner = tile.core.within(box), tile.core.within(tile.extent)
            assert self.grid.tile is not None and self.grid.stride is not None
            weight = np.outer(
                ramp(tile.core.y0, tile.core.y1, tile.centre[0], self.grid.tile, self.grid.stride),
                ramp(tile.core.x0, tile.core.x1, tile.centre[1], self.grid.tile, self.grid.stride),
            )
            total[place] += weight
            fitted[place] += weight * np.float32(guided)
            image[(..., *place)] += weight * bands[(..., *inner)]
        image /= total

        where = _coarser(box, self.factor)
        cut = where.within(_coarser(window, self.factor))
        seen = _repeated(known[(..., *cut)], where, self.factor, box)
        used = clear[box.within(window)] & (fitted >= total / 2)
        layer = np.where(seen.any(axis=0), np.where(used, SHARPENED, INTERPOLATED), NOT_KNOWN).astype(np.uint8)
        return self._stored(image, seen)[None], layer[None]

    def _stored(self, image: NDArray[np.float32], seen: NDArray[np.bool_]) -> Array:
        stored = encode(np.clip(from_reflectance(image, self.coarse), *self.limits), self.dtype, self.coarse)
        if not seen.all():
            stored[~seen] = np.nan if self.coarse.nodata is None else self.coarse.nodata
        return np.asarray(stored)


def _bands(arrays: Sequence[Array]) -> Array:
    """Return one array (band, y, x), from one such or from one (y, x) per band."""
    return arrays[0] if len(arrays) == 1 and arrays[0].ndim == 3 else np.stack(arrays)


def _coarser(box: Box, factor: int) -> Box:
    """Return the pixels of a coarser grid that a box touches."""
    return Box(box.y0 // factor, -(-box.y1 // factor), box.x0 // factor, -(-box.x1 // factor))


def _repeated(values: NDArray[np.bool_], place: Box, factor: int, box: Box) -> NDArray[np.bool_]:
    """Return values of coarser pixels, which lie at `place` in their grid, in the fine pixels of a box."""
    fine = Box(*(edge * factor for edge in place))
    return np.asarray(values.repeat(factor, axis=-2).repeat(factor, axis=-1)[(..., *box.within(fine))])


def run_in_memory(job: SharpenJob, sources: Sequence[Array]) -> tuple[Array, Array]:
    """Return the sharpened bands (time, band, y, x) and the layer (time, y, x) of arrays in memory."""
    n, grid = len(sources[0]), job.grid
    image = np.empty((n, job.bands, *grid.shape), job.dtype)
    layer = np.empty((n, *grid.shape), np.uint8)
    for date in range(n):
        for box in grid.blocks():
            cut = [
                array[(slice(date, date + 1), ..., *window.slices)]
                for array, window in zip(sources, job.windows(box), strict=True)
            ]
            image[(date, ..., *box.slices)], layer[(date, *box.slices)] = (out[0] for out in job.run(box, cut))
    return image, layer


@dataclass(frozen=True, eq=False)
class _Task:
    """A task of one block and one date: it gets a list of chunks for each source."""

    job: SharpenJob
    box: Box
    assemblies: tuple[Callable[[Any], Array], ...]

    def __call__(self, *chunks: Any) -> tuple[Array, Array]:
        return self.job.run(self.box, [assemble(c) for assemble, c in zip(self.assemblies, chunks, strict=True)])


@dataclass(frozen=True)
class _Take:
    which: int

    def __call__(self, outputs: tuple[Array, Array]) -> Array:
        return outputs[self.which]


def build_graph(job: SharpenJob, sources: list[Any]) -> tuple[da.Array, da.Array]:
    """Build the graph of all blocks and dates of dask arrays; nothing is computed. See `run_in_memory`."""
    import dask.array as da
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    from xr_cloudfree.engine.lazy import plan_window

    n, token = sources[0].shape[0], tokenize(job, *(array.name for array in sources))
    name, columns = f"sharpen-{token}", len(job.grid.chunks[1])
    tasks: dict[Any, Any] = {}
    for number, box in enumerate(job.grid.blocks()):
        windows = job.windows(box)
        for date in range(n):
            plans = [plan_window(a, np.array([date]), w) for a, w in zip(sources, windows, strict=True)]
            assemblies = tuple(assembly for assembly, _ in plans)
            tasks[(name, date, *divmod(number, columns))] = (_Task(job, box, assemblies), *(keys for _, keys in plans))
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=sources)
    layers, dependencies = dict(graph.layers), dict(graph.dependencies)
    image, layer = f"sharpened-bands-{token}", f"sharpened-layer-{token}"
    taken = {
        image: {(image, key[1], 0, *key[2:]): (_Take(0), key) for key in tasks},
        layer: {(layer, *key[1:]): (_Take(1), key) for key in tasks},
    }
    for own, keys in taken.items():
        layers[own], dependencies[own] = keys, {name}  # type: ignore[assignment]
    graph = HighLevelGraph(layers, dependencies)
    dates = (1,) * n
    return (
        da.Array(graph, image, chunks=(dates, (job.bands,), *job.grid.chunks), dtype=job.dtype),
        da.Array(graph, layer, chunks=(dates, *job.grid.chunks), dtype=np.dtype(np.uint8)),
    )
