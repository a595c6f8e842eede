"""Corrected masks as a layer of the cube: each is made once, for all windows, drivers and target dates that need it.

A lazy graph has one task per block of `RepairJob`. Elsewhere the layer is a `Corrections`, which makes what a window
needs and keeps it for the windows beside it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.engine.blocks import (
    Array,
    Block,
    Output,
    Reader,
    Window,
    Windows,
    cut_windows,
    read_windows,
)
from xr_cloudfree.engine.clear import decode_window, quality_window
from xr_cloudfree.engine.decoding import Decoding
from xr_cloudfree.engine.grid import Box, TileGrid, choose_wide_block, surround
from xr_cloudfree.engine.kept import KEPT_BYTES, Kept
from xr_cloudfree.engine.parameters import FillParameters
from xr_cloudfree.engine.repairs import MARGIN, repair_bytes, repair_masks, repair_window
from xr_cloudfree.masking.context import CELL

# Edge of the patches that are kept: a whole number of cells.
PATCH = -(-64 // CELL) * CELL


@dataclass(frozen=True, eq=False)
class RepairJob:
    """The corrected masks of all dates of a cube, block by block, as `RepairedWindow.codes`.

    Parameters
    ----------
    grid : TileGrid
        Blocks.
    decoding : Decoding
        How the arrays are decoded.
    pixel_bytes : int
        Bytes per pixel of a window that the correction takes, with the window itself.
    """

    grid: TileGrid
    decoding: Decoding
    pixel_bytes: int

    name = "cloudfree-repair"
    outputs = (Output("corrected", ("time", "y", "x"), np.dtype(np.uint8)),)
    s1_reads = corrected_reads = np.empty(0, np.intp)
    others: tuple[Reader, ...] = ()
    lead: tuple[int, ...] = ()

    @classmethod
    def of(cls, job: FillParameters) -> RepairJob:
        """Return the job that corrects the masks of a fill."""
        decoding = job.decoding
        pixel_bytes = decoding.reads.size * ((len(job.common_names) + len(job.extras)) * job.dtype.itemsize + 3)
        pixel_bytes += repair_bytes(job.times.size, len(job.common_names))
        block = choose_wide_block(job.grid.shape, pixel_bytes, PATCH, MARGIN)
        return cls(TileGrid(job.grid.shape, block), decoding, pixel_bytes)

    @property
    def reads(self) -> NDArray[np.intp]:
        """All dates, or the scenes of all of them."""
        return self.decoding.reads

    @property
    def sizes(self) -> dict[str, int]:
        """Length of the output's dimensions, without rows and columns."""
        return {"time": self.decoding.times.size}

    def windows(self, box: Box) -> tuple[Box, Box]:
        """Return the windows of a block: of the bands, and of the quality layer in its own pixels."""
        window = repair_window(box, self.grid.cube)
        return window, quality_window(window, self.decoding.rule, self.grid)

    def run(self, box: Box, windows: Windows) -> tuple[Array, ...]:
        """Correct the masks of one block."""
        window, _ = self.windows(box)
        decoded = decode_window(windows, self.decoding, self.grid, window, self.decoding.dates)
        repaired = repair_masks(decoded, self.decoding)
        return (repaired.codes()[(..., *box.within(window))].copy(),)

    def stream(self, blocks: Iterable[Block]) -> Iterator[tuple[Box, tuple[Array, ...]]]:
        """Correct the masks of several blocks."""
        return ((box, self.run(box, windows)) for box, windows in blocks)


class Corrections:
    """The corrected masks of a cube, made where they are read for the first time.

    Either only the masks that a window needs are corrected, as for regions that are filled by many processes; or, where
    one process reads the windows of the whole cube, whole blocks of the job: what one window does not need, the next
    ones do.

    Parameters
    ----------
    job : RepairJob
        The correction.
    sources : Windows of Variable
        The arrays of the whole cube.
    read : callable
        From an array, indices of images and a box to a window.
    whole : bool
        Whether whole blocks are corrected.
    """

    def __init__(
        self,
        job: RepairJob,
        sources: Windows,
        read: Callable[[Any, NDArray[np.intp], Box], Window],
        whole: bool = False,
    ) -> None:
        self.job, self.sources, self.source_read, self.whole = job, sources, read, whole
        self._kept = Kept()

    def __getstate__(self) -> tuple[Any, ...]:
        """Pickle without what is kept."""
        return self.job, self.sources, self.source_read, self.whole

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Start without anything kept."""
        self.__init__(*state)  # type: ignore[misc]

    def in_order(self) -> Corrections:
        """Return the same for windows that are read one after the other: whole blocks are corrected."""
        return Corrections(self.job, self.sources, self.source_read, whole=True)

    def memory(self, box: Box) -> int:
        """Return the bytes that correcting the masks of a box takes, and those that are kept."""
        largest = max(map(self._pixels, self._pieces(box)))
        return largest * self.job.pixel_bytes + KEPT_BYTES

    def read(self, dates: NDArray[np.intp], box: Box) -> NDArray[np.uint8]:
        """Return the codes of some dates in a box; see `RepairedWindow.codes`."""
        cube = self.job.grid.cube
        patches = {patch: self._kept.take(patch) for patch in _patches(box, cube)}
        lacking = {patch for patch, values in patches.items() if values is None}
        for piece in self._pieces(surround(lacking)) if lacking else ():
            of_piece = _patches(piece, cube)
            if lacking.isdisjoint(of_piece):
                continue
            windows = read_windows(self.job, piece, self.sources, self.source_read)
            (codes,) = self.job.run(piece, cut_windows(self.job, piece, piece, windows))
            for patch in of_piece:
                made = codes[(..., *patch.within(piece))]
                self._kept.keep(patch, made)
                if patch in patches:
                    patches[patch] = made
        out = np.empty((dates.size, *box.shape), np.uint8)
        for patch, values in patches.items():
            inner = patch.clip(box)
            assert values is not None
            out[(..., *inner.within(box))] = values[(dates, ..., *inner.within(patch))]
        return out

    def _pieces(self, box: Box) -> list[Box]:
        """Return the parts in which the masks of a box are corrected, each at most a block of the job."""
        grid = self.job.grid
        if self.whole:
            return list(grid.blocks(box.snap(*grid.block).clip(grid.cube)))
        outer = _outer(box, grid.cube)
        edges = [  # of parts of about the same size
            -(-size // (-(-size // most) * PATCH)) * PATCH for size, most in zip(outer.shape, grid.block, strict=True)
        ]
        return [piece.clip(outer) for piece in TileGrid(grid.shape, (edges[0], edges[1])).blocks(outer)]

    def _pixels(self, piece: Box) -> int:
        height, width = self.job.windows(piece)[0].shape
        return height * width


def _outer(box: Box, cube: Box) -> Box:
    """Return the smallest box of whole patches around a box."""
    return box.snap(PATCH, PATCH).clip(cube)


def _patches(box: Box, cube: Box) -> list[Box]:
    """Return the patches that a box touches, each whole."""
    return list(TileGrid((cube.y1, cube.x1), (PATCH, PATCH)).blocks(_outer(box, cube)))
