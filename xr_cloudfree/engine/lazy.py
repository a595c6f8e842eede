"""The lazy driver: a dask graph driven by the output, one task per block.

Each task names the source chunks that its window touches and puts the window together itself. Nothing is sliced,
concatenated or rechunked in the graph, so the number of tasks is that of the output's blocks, and the tile grid stays
anchored to the cube whatever the chunks are.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.engine.blocks import Array, BlockJob, Output, Stored
from xr_cloudfree.engine.grid import Box

if TYPE_CHECKING:
    import dask.array as da
    from dask.highlevelgraph import HighLevelGraph

    Source = da.Array | Stored


@dataclass(frozen=True)
class _Assembly:
    """How a window is put together from source chunks: for each, where it goes and which part of it; then decoded."""

    shape: tuple[int, ...]
    parts: tuple[tuple[tuple[Any, ...], tuple[Any, ...]], ...]
    decode: tuple[Callable[[Array], Array], ...] = ()

    def __call__(self, chunks: Sequence[Array]) -> Array:
        joined = self.join(chunks)
        return Stored(joined, self.decode)[...] if self.decode else joined

    def join(self, chunks: Sequence[Array]) -> Array:
        if len(chunks) == 1 and chunks[0].shape == self.shape and self.parts[0][1] == _everything(self.shape):
            return np.asarray(chunks[0])
        out = np.empty(self.shape, np.asarray(chunks[0]).dtype)
        for chunk, (to, source) in zip(chunks, self.parts, strict=True):
            out[to] = np.asarray(chunk)[source]
        return out


def _everything(shape: tuple[int, ...]) -> tuple[slice, ...]:
    return tuple(slice(0, n) for n in shape)


def _touched(sizes: Sequence[int], wanted: NDArray[np.intp]) -> list[tuple[int, Any, Any]]:
    """Chunks along one axis that hold some of the wanted indices: number, where they go, which part."""
    edges = np.concatenate([[0], np.cumsum(sizes)])
    number = np.searchsorted(edges, wanted, side="right") - 1
    found = []
    for chunk in np.unique(number):
        to = np.flatnonzero(number == chunk)
        found.append((int(chunk), _run(to), _run(wanted[to] - edges[chunk])))
    return found


def _run(index: NDArray[np.intp]) -> Any:
    if (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index


def _plan(source: Source, dates: NDArray[np.intp], window: Box) -> tuple[_Assembly, list[tuple[Any, ...]]]:
    """The assembly of a window of a source array, and the keys of the chunks that it takes."""
    array, decode = (source.values, source.decode) if isinstance(source, Stored) else (source, ())
    axes = [dates, *(np.arange(n) for n in array.shape[1:-2])]
    axes += [np.arange(window.y0, window.y1), np.arange(window.x0, window.x1)]
    touched = [_touched(sizes, wanted) for sizes, wanted in zip(array.chunks, axes, strict=True)]
    keys, parts = [], []
    for combination in itertools.product(*touched):
        keys.append((array.name, *(c[0] for c in combination)))
        parts.append((tuple(c[1] for c in combination), tuple(c[2] for c in combination)))
    return _Assembly(tuple(len(axis) for axis in axes), tuple(parts), decode), keys


@dataclass(frozen=True, eq=False)
class _BlockTask:
    """What one task runs: its sources' chunks come as lists, those of the bands, the quality layer, and Sentinel-1."""

    job: BlockJob
    box: Box
    n_bands: int
    assemblies: tuple[_Assembly, ...]

    def __call__(self, *chunks: Sequence[Array]) -> Any:
        windows = [assemble(part) for assemble, part in zip(self.assemblies, chunks, strict=True)]
        n = self.n_bands
        done = self.job.run(self.box, windows[:n], windows[n], windows[n + 1 :])
        return done if len(done) > 1 else done[0]


def build_graph(
    job: BlockJob, bands: Sequence[Source], quality: Source, s1: Sequence[Source] = ()
) -> dict[str, da.Array]:
    """Build the graph that runs a job on a chunked cube; nothing is computed.

    Parameters
    ----------
    job : BlockJob
        What to do.
    bands : sequence of dask.array.Array or Stored
        One array (time, band, y, x), or one (time, y, x) per band; as its file has it, with how it is decoded.
    quality : dask.array.Array or Stored, shape (time, y, x)
        The quality layer, or the clear mask.
    s1 : sequence of dask.array.Array or Stored
        Sentinel-1, in one of the forms of `bands`; empty for none.

    Returns
    -------
    dict of dask.array.Array
        The outputs by name.
    """
    from dask.base import tokenize
    from dask.highlevelgraph import HighLevelGraph

    sources = [source.values if isinstance(source, Stored) else source for source in (*bands, quality, *s1)]
    token = tokenize(job, *(source.name for source in sources))
    name = f"{job.name}-{token}"
    outputs, lead = job.outputs, job.lead
    n_columns = len(job.grid.chunks[1])

    tasks: dict[Any, Any] = {}
    single = len(outputs) == 1
    for number, box in enumerate(job.grid.blocks()):
        position = divmod(number, n_columns)
        window, quality_window = job.windows(box)
        plans = [_plan(array, job.reads, window) for array in bands]
        plans.append(_plan(quality, job.reads, quality_window))
        plans += [_plan(array, job.s1_reads, window) for array in s1]
        zeros = (0,) * (len(lead) + len(outputs[0].dims) - 2) if single else ()
        task = _BlockTask(job, box, len(bands), tuple(assembly for assembly, _ in plans))
        tasks[(name, *zeros, *position)] = (task, *(keys for _, keys in plans))
    graph = HighLevelGraph.from_collections(name, tasks, dependencies=sources)  # type: ignore[arg-type]
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

    def __call__(self, done: tuple[Array, ...]) -> Array:
        return done[self.which]


def _array(graph: HighLevelGraph, name: str, job: BlockJob, output: Output) -> da.Array:
    import dask.array as da

    whole = tuple((n,) for n in job.lead + tuple(job.sizes[d] for d in output.dims[:-2]))
    return da.Array(graph, name, chunks=whole + job.grid.chunks, dtype=output.dtype)
