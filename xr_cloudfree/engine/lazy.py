"""The lazy driver: a dask graph driven by the output, one task per block.

Each task names the source chunks that its window touches and puts the window together itself. Nothing is sliced,
concatenated or rechunked in the graph, so the number of tasks is that of the output's blocks, and the tile grid stays
anchored to the cube whatever the chunks are.

Where tiles overlap, each is answered once, in a task of the block that its centre lies in; the blocks that need it
depend on that task, through one small task each that takes out their part, so that no block holds on to the rest.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.engine.answers import parts_of
from xr_cloudfree.engine.blocks import Array, BlockJob, Output, Stored, Windows, as_slice, read_windows
from xr_cloudfree.engine.fill import FillJob, TileGroup, answer_group, finish_block
from xr_cloudfree.engine.grid import Box, TileGrid, surround

if TYPE_CHECKING:
    import dask.array as da
    from dask.highlevelgraph import HighLevelGraph

    Source = da.Array | Stored


@dataclass(frozen=True)
class Assembly:
    """Assembles a window from source chunks: for each, its place in the window and the part of it; then decodes.

    Parameters
    ----------
    shape : tuple of int
        Shape of the window.
    parts : tuple of tuple
        For each chunk its place in the window, and the part of it, as indices along all axes.
    decode : tuple of callable
        The steps by which xarray decodes stored values, in order.
    """

    shape: tuple[int, ...]
    parts: tuple[tuple[tuple[Any, ...], tuple[Any, ...]], ...]
    decode: tuple[Callable[[Array], Array], ...] = ()

    def __call__(self, chunks: Sequence[Array]) -> Array:
        """Return the window, decoded."""
        joined = self.join(chunks)
        return Stored(joined, self.decode)[...] if self.decode else joined

    def join(self, chunks: Sequence[Array]) -> Array:
        """Return the window as stored."""
        if len(chunks) == 1 and chunks[0].shape == self.shape and self.parts[0][1] == _everything(self.shape):
            return np.asarray(chunks[0])
        out = np.empty(self.shape, np.asarray(chunks[0]).dtype)
        for chunk, (place, part) in zip(chunks, self.parts, strict=True):
            out[place] = np.asarray(chunk)[part]
        return out


def _everything(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in shape)


def _touched(sizes: Sequence[int], indices: NDArray[np.intp]) -> list[tuple[int, Any, Any]]:
    """Return the chunks along one axis that hold some of the indices: number, place in the window, part of it."""
    edges = np.concatenate([[0], np.cumsum(sizes)])
    numbers = np.searchsorted(edges, indices, side="right") - 1
    touched = []
    for number in np.unique(numbers):
        place = np.flatnonzero(numbers == number)
        touched.append((int(number), as_slice(place), as_slice(indices[place] - edges[number])))
    return touched


def plan_window(source: Source, dates: NDArray[np.intp], window: Box) -> tuple[Assembly, list[tuple[Any, ...]]]:
    """Return the assembly of a window of a source, and the keys of the chunks that it takes.

    Parameters
    ----------
    source : dask.array.Array or Stored, shape (time, ..., y, x)
        The source.
    dates : ndarray of int
        Indices along time.
    window : Box
        Rows and columns of the source.
    """
    array, decode = (source.values, source.decode) if isinstance(source, Stored) else (source, ())
    axes = [dates, *(np.arange(n) for n in array.shape[1:-2])]
    axes += [np.arange(window.y0, window.y1), np.arange(window.x0, window.x1)]
    touched = [_touched(sizes, indices) for sizes, indices in zip(array.chunks, axes, strict=True)]
    keys, parts = [], []
    for combination in itertools.product(*touched):
        numbers, places, cuts = zip(*combination, strict=True)
        keys.append((array.name, *numbers))
        parts.append((places, cuts))
    return Assembly(tuple(len(axis) for axis in axes), tuple(parts), decode), keys


@dataclass(frozen=True, eq=False)
class _Task:
    """A task on windows: it gets a list of chunks for each source, in the order of `Windows.arrays`, then the rest."""

    run: Callable[..., Any]
    assemblies: Windows

    def __call__(self, *given: Any) -> Any:
        left = iter(given)
        return self.run(self.assemblies.map(lambda assemble: assemble(next(left))), *left)


def _plan_task(
    run: Callable[..., Any], job: BlockJob, part: Box, sources: Windows
) -> tuple[_Task, *tuple[list[tuple[Any, ...]], ...]]:
    """Return a task that runs a function on the windows of a part, with the keys of their chunks."""
    plans = read_windows(job, part, sources, plan_window)  # type: ignore[arg-type]  # plans in place of windows
    return (_Task(run, plans.map(lambda plan: plan[0])), *(keys for _, keys in plans.arrays))


def _one_or_all(run: Callable[..., tuple[Array, ...]], *arguments: Any) -> Any:
    """Return the outputs of a block, a single one by itself."""
    outputs = run(*arguments)
    return outputs if len(outputs) > 1 else outputs[0]


def _group_tiles(grid: TileGrid) -> dict[tuple[int, int], dict[tuple[int, int], dict[Box, Box]]]:
    """Return the tiles of a grid by the block that answers them, and those by the blocks that need them."""
    groups: dict[tuple[int, int], dict[tuple[int, int], dict[Box, Box]]] = {}
    columns = len(grid.chunks[1])
    for number, block in enumerate(grid.blocks()):
        for extent, part in parts_of(grid, block).items():
            centre = ((extent.y0 + extent.y1) // 2, (extent.x0 + extent.x1) // 2)
            owner = (centre[0] // grid.block[0], centre[1] // grid.block[1])
            groups.setdefault(owner, {}).setdefault(divmod(number, columns), {})[extent] = part
    return groups


def _tile_tasks(
    job: FillJob, name: str, sources: Windows
) -> tuple[dict[Any, Any], dict[tuple[int, int], list[tuple[Any, ...]]]]:
    """Return the tasks that answer all tiles, and for each block the keys of those that it needs."""
    tasks: dict[Any, Any] = {}
    needed: dict[tuple[int, int], list[tuple[Any, ...]]] = {}
    by_pixel = job.by_pixel()
    for owner, blocks in _group_tiles(job.grid).items():
        window = surround(extent for parts in blocks.values() for extent in parts).clip(job.grid.cube)
        run = partial(answer_group, job, TileGroup(window, tuple(blocks.values())))
        tasks[name, *owner] = _plan_task(run, by_pixel, window, sources)
        for i, block in enumerate(blocks):
            key = (f"{name}-part", *owner, i)
            tasks[key] = (_Take(i), (name, *owner))
            needed.setdefault(block, []).append(key)
    return tasks, needed


def build_graph(job: BlockJob, sources: Windows) -> dict[str, da.Array]:
    """Build the graph that runs a job on a chunked cube; nothing is computed.

    Parameters
    ----------
    job : BlockJob
        The job.
    sources : Windows of dask.array.Array or Stored
        The arrays of the whole cube, each decoded or as stored in its file with the steps that decode it.

    Returns
    -------
    dict of dask.array.Array
        The outputs by name.
    """
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    arrays = [source.values if isinstance(source, Stored) else source for source in sources.arrays]
    token = tokenize(job, *(array.name for array in arrays))
    name = f"{job.name}-{token}"
    outputs, lead = job.outputs, job.lead
    n_columns = len(job.grid.chunks[1])

    tasks: dict[Any, Any] = {}
    single = len(outputs) == 1
    shared = job if isinstance(job, FillJob) and job.grid.taper and job.grid.n_blocks > 1 else None
    answers, needed = ({}, {}) if shared is None else _tile_tasks(shared, f"{job.name}-tiles-{token}", sources)
    by_pixel = None if shared is None else shared.by_pixel()
    for number, box in enumerate(job.grid.blocks()):
        position = divmod(number, n_columns)
        zeros = (0,) * (len(lead) + len(outputs[0].dims) - 2) if single else ()
        key = (name, *zeros, *position)
        if by_pixel is None:
            tasks[key] = _plan_task(partial(_one_or_all, job.run, box), job, box, sources)
        else:
            run = partial(_one_or_all, finish_block, shared, box)
            tasks[key] = (*_plan_task(run, by_pixel, box, sources), needed[position])
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=arrays)
    if shared is not None:
        layer = f"{job.name}-tiles-{token}"
        layers, dependencies = dict(graph.layers), dict(graph.dependencies)
        layers[layer], dependencies[layer] = answers, dependencies[name]  # type: ignore[assignment]
        dependencies[name] = {layer, *dependencies[name]}
        graph = HighLevelGraph(layers, dependencies)
    if single:
        return {outputs[0].name: _array(graph, name, job, outputs[0])}
    layers, dependencies = dict(graph.layers), dict(graph.dependencies)
    for i, output in enumerate(outputs):
        own = f"cloudfree-{output.name}-{token}"
        zeros = (0,) * (len(lead) + len(output.dims) - 2)
        layers[own] = {  # type: ignore[assignment]
            (own, *zeros, *key[1:]): (_Take(i), key) for key in tasks
        }
        dependencies[own] = {name}
    graph = HighLevelGraph(layers, dependencies)
    return {output.name: _array(graph, f"cloudfree-{output.name}-{token}", job, output) for output in outputs}


@dataclass(frozen=True)
class _Take:
    which: int

    def __call__(self, outputs: tuple[Array, ...]) -> Array:
        return outputs[self.which]


def _array(graph: HighLevelGraph, name: str, job: BlockJob, output: Output) -> da.Array:
    import dask.array as da

    whole = tuple((n,) for n in job.lead + tuple(job.sizes[d] for d in output.dims[:-2]))
    return da.Array(graph, name, chunks=whole + job.grid.chunks, dtype=output.dtype)
