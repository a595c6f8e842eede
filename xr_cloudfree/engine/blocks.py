"""Work that is done block by block: what a driver needs to know of a job."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.engine.grid import Box, TileGrid

Array = NDArray[np.generic]
Block = tuple[Box, Sequence[Array], Array, Sequence[Array]]
"""A block with its windows of the bands, the quality layer and Sentinel-1."""


class Window(Protocol):
    """What blocks are cut from: an array, or what gives arrays."""

    def __getitem__(self, part: Any, /) -> Array:
        """A part in memory."""
        ...


@dataclass(frozen=True, eq=False)
class Stored:
    """A window as its file has it, mostly of whole numbers; what is cut out of it is decoded.

    Decoded as a whole, it would take four times the memory: xarray decodes to float64.

    Parameters
    ----------
    values : array, shape (time, ...)
        As stored; in memory, or chunked for `build_graph`.
    decode : tuple of callable
        What xarray does to them when they are opened, in this order.
    """

    values: Any
    decode: tuple[Callable[[Array], Array], ...]

    def __getitem__(self, part: Any) -> Array:
        values = self.values[part]
        out: Array | None = None
        for i in range(len(values)):  # each step makes a copy, which is as large as one date
            date = values[i]
            for step in self.decode:
                date = step(date)
            if out is None:
                out = np.empty(values.shape, date.dtype)
            out[i] = date
        return np.asarray(values) if out is None else out


@dataclass(frozen=True)
class Output:
    """One array that a block gives: its name, its dimensions (without that of several targets) and its type."""

    name: str
    dims: tuple[str, ...]
    dtype: np.dtype[np.generic]


class BlockJob(Protocol):
    """A job that gives outputs block by block, each from its own window of the sources."""

    @property
    def name(self) -> str:
        """What tasks are called."""
        ...

    @property
    def grid(self) -> TileGrid:
        """Blocks and tiles."""
        ...

    @property
    def reads(self) -> NDArray[np.intp]:
        """Indices of the dates that are read, increasing."""
        ...

    @property
    def s1_reads(self) -> NDArray[np.intp]:
        """The same of Sentinel-1, where it is given."""
        ...

    @property
    def outputs(self) -> tuple[Output, ...]:
        """What a block gives, in order."""
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
        """What must be read for a block: of the bands and Sentinel-1, and of the quality layer in its own pixels."""
        ...

    def run(self, box: Box, bands: Sequence[Array], quality: Array, s1: Sequence[Array] = ()) -> tuple[Array, ...]:
        """The outputs of one block from its windows, one per ``outputs``; other blocks may be at work beside it."""
        ...

    def stream(self, blocks: Iterable[Block]) -> Iterator[tuple[Box, tuple[Array, ...]]]:
        """The outputs of several blocks, in their order, where nothing else is at work in this process."""
        ...


def stack(bands: Sequence[Array]) -> Array:
    """One array (time, band, y, x), from such a one or from one (time, y, x) per band."""
    if len(bands) == 1 and bands[0].ndim == 4:
        return bands[0]
    return np.stack(bands, axis=1)


def as_slice(index: NDArray[np.intp]) -> slice | NDArray[np.intp]:
    """A run of indices as a slice, which makes a view and no copy."""
    if index.size and (np.diff(index) == 1).all():
        return slice(int(index[0]), int(index[-1]) + 1)
    return index
