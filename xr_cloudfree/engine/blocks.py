"""Windows of blocks, and the interface of jobs that turn them into outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.engine.grid import Box, TileGrid

Array = NDArray[np.generic]


class Window(Protocol):
    """An array, or an object from which arrays are cut."""

    def __getitem__(self, part: Any, /) -> Array:
        """Return a part in memory."""
        ...


@dataclass(frozen=True, eq=False)
class Stored:
    """A window as stored in its file, mostly of integers; the parts cut out of it are decoded.

    Decoded as a whole, it would take four times the memory, because xarray decodes to float64.

    Parameters
    ----------
    values : array, shape (time, ...)
        As stored; in memory, or chunked for `build_graph`.
    decode : tuple of callable
        The steps by which xarray decodes them, in order.
    """

    values: Any
    decode: tuple[Callable[[Array], Array], ...]

    def __getitem__(self, part: Any) -> Array:
        values = self.values[part]
        out: Array | None = None
        for i in range(len(values)):  # each step copies, so decode one date at a time
            date = values[i]
            for step in self.decode:
                date = step(date)
            if out is None:
                out = np.empty(values.shape, date.dtype)
            out[i] = date
        return np.asarray(values) if out is None else out


@dataclass(frozen=True, eq=False)
class Windows:
    """The bands, the quality layer, Sentinel-1 and other sensors: of one window, or of the whole cube.

    Parameters
    ----------
    bands : sequence of array
        One array (time, band, y, x), or one (time, y, x) per band.
    quality : array, shape (time, y, x), or None
        The quality layer, or the clear mask, in its own pixels; None where it is being made.
    s1 : sequence of array
        Sentinel-1: one array (time, 2, y, x), or VV and VH (time, y, x); empty for none.
    corrected : array of uint8, shape (time, y, x), or None
        Corrected masks, see `RepairedWindow.codes`; of the whole cube, something that is read like the other arrays.
    others : sequence of Windows
        Bands and quality layers of other sensors, in their own pixels; empty for none.
    """

    bands: Sequence[Any]
    quality: Any
    s1: Sequence[Any] = ()
    corrected: Any = None
    others: Sequence[Windows] = ()

    @property
    def arrays(self) -> tuple[Any, ...]:
        """All arrays: the bands, the quality layer, Sentinel-1, corrected masks, those of other sensors."""
        single = [() if array is None else (array,) for array in (self.quality, self.corrected)]
        others = [array for other in self.others for array in other.arrays]
        return (*self.bands, *single[0], *self.s1, *single[1], *others)

    def map(self, function: Callable[[Any], Any]) -> Windows:
        """Return the same with a function applied to each array."""
        bands = [function(a) for a in self.bands]  # before the quality layer: the order of `arrays`
        quality = None if self.quality is None else function(self.quality)
        s1 = [function(a) for a in self.s1]
        corrected = None if self.corrected is None else function(self.corrected)
        return Windows(bands, quality, s1, corrected, [other.map(function) for other in self.others])


class Reader(Protocol):
    """Another cube of which windows are read for blocks of a cube, in its own pixels."""

    @property
    def reads(self) -> NDArray[np.intp]:
        """Indices of the images that are read, increasing."""
        ...

    def windows(self, window: Box) -> tuple[Box, Box]:
        """Return the pixels that lie in a window of the cube, and those of the quality layer."""
        ...


Block = tuple[Box, Windows]
"""A block and its windows."""


@dataclass(frozen=True)
class Output:
    """One output of a block: its name, its dimensions (without that of several targets) and its type."""

    name: str
    dims: tuple[str, ...]
    dtype: np.dtype[np.generic]


class BlockJob(Protocol):
    """A job that computes outputs block by block, each from its own windows of the sources."""

    @property
    def name(self) -> str:
        """Prefix of the tasks' names."""
        ...

    @property
    def grid(self) -> TileGrid:
        """Blocks and tiles."""
        ...

    @property
    def reads(self) -> NDArray[np.intp]:
        """Indices of the images that are read, increasing."""
        ...

    @property
    def s1_reads(self) -> NDArray[np.intp]:
        """Indices of the Sentinel-1 images that are read, increasing."""
        ...

    @property
    def corrected_reads(self) -> NDArray[np.intp]:
        """Indices of the dates whose corrected masks are read, increasing."""
        ...

    @property
    def others(self) -> Sequence[Reader]:
        """Other sensors whose images are read."""
        ...

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Outputs of a block, in order."""
        ...

    @property
    def lead(self) -> tuple[int, ...]:
        """Lengths of axes that come before the outputs' own."""
        ...

    @property
    def sizes(self) -> dict[str, int]:
        """Length of the outputs' dimensions, without rows and columns."""
        ...

    def windows(self, box: Box) -> tuple[Box, Box]:
        """Return the windows of a block: of all on the cube's pixels, and of the quality layer in its own pixels."""
        ...

    def run(self, box: Box, windows: Windows) -> tuple[Array, ...]:
        """Compute the outputs of one block, one per ``outputs``; other blocks may run beside it."""
        ...

    def stream(self, blocks: Iterable[Block]) -> Iterator[tuple[Box, tuple[Array, ...]]]:
        """Compute the outputs of several blocks, in their order, where nothing else runs in this process."""
        ...


def read_windows(
    job: BlockJob, part: Box, sources: Windows, read: Callable[[Any, NDArray[np.intp], Box], Window]
) -> Windows:
    """Read the windows of a block, or of a part of the cube that is made of whole blocks.

    Parameters
    ----------
    job : BlockJob
        The job that they are for.
    part : Box
        The block or part.
    sources : Windows
        The arrays of the whole cube.
    read : callable
        From an array, indices of images and a box to a window.
    """
    window, quality_window = job.windows(part)
    others = []
    for other, arrays in zip(job.others, sources.others if job.others else (), strict=True):
        box, quality_box = other.windows(window)
        bands = [read(array, other.reads, box) for array in arrays.bands]
        others.append(Windows(bands, read(arrays.quality, other.reads, quality_box)))
    return Windows(
        [read(array, job.reads, window) for array in sources.bands],
        None if sources.quality is None else read(sources.quality, job.reads, quality_window),
        [read(array, job.s1_reads, window) for array in sources.s1],
        None if sources.corrected is None else read(sources.corrected, job.corrected_reads, window),
        others,
    )


def cut_windows(job: BlockJob, box: Box, part: Box, windows: Windows) -> Windows:
    """Cut the windows of a block out of those of a part of the cube that holds the block."""
    (inner, inner_quality), (outer, outer_quality) = job.windows(box), job.windows(part)
    cut = (..., *inner.within(outer))
    others = []
    for other, arrays in zip(job.others, windows.others, strict=True):
        own, whole = other.windows(inner), other.windows(outer)
        bands_cut, quality_cut = ((..., *a.within(b)) for a, b in zip(own, whole, strict=True))
        others.append(Windows([array[bands_cut] for array in arrays.bands], arrays.quality[quality_cut]))
    return Windows(
        [array[cut] for array in windows.bands],
        windows.quality[(..., *inner_quality.within(outer_quality))],
        [array[cut] for array in windows.s1],
        None if windows.corrected is None else windows.corrected[cut],
        others,
    )


def empty_outputs(job: BlockJob, shape: tuple[int, int]) -> dict[str, Array]:
    """Allocate the outputs of a job by name, for rows and columns of a given number."""
    return {
        output.name: np.empty(job.lead + tuple(job.sizes[dim] for dim in output.dims[:-2]) + shape, output.dtype)
        for output in job.outputs
    }


def stack(bands: Sequence[Array]) -> Array:
    """Return one array (time, band, y, x), from one such or from one (time, y, x) per band."""
    if len(bands) == 1 and bands[0].ndim == 4:
        return bands[0]
    return np.stack(bands, axis=1)


def as_slice(index: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """Return consecutive indices as a slice, so that indexing makes a view, not a copy; return others unchanged."""
    if index.size and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index
