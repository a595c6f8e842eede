"""The clear mask of a window: read, grown, brought onto the cube's grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.checks import check_level
from xr_cloudfree.cube.masks import Decoded, MaskRule, decode, dilate_not_clear, repeat
from xr_cloudfree.cube.measured import ValidRange, clear_where
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.engine.blocks import Array, Block, Output, stack
from xr_cloudfree.tiling.grid import Box, TileGrid


def quality_window(window: Box, rule: MaskRule, grid: TileGrid) -> Box:
    """What must be read of the quality layer, in its own pixels, to know a window of the cube."""
    reach = window.grow(rule.dilate).clip(grid.cube)
    factor = rule.factor
    return Box(reach.y0 // factor, -(-reach.y1 // factor), reach.x0 // factor, -(-reach.x1 // factor))


def read_quality(quality: Array, rule: MaskRule, grid: TileGrid, window: Box) -> Decoded:
    """The quality layer's meaning in a window, on the cube's grid.

    Parameters
    ----------
    quality : ndarray, shape (time, y, x)
        The layer in its `quality_window`.
    rule : MaskRule
        How it is read.
    grid : TileGrid
        The cube's grid.
    window : Box
        The window.
    """
    read = quality_window(window, rule, grid)
    seen = repeat(decode(quality, rule), rule.factor)
    fine = Box(*(edge * rule.factor for edge in read))
    # The cut to the cube comes before growing: beyond it there is nothing that could grow.
    reach = fine.clip(grid.cube)
    seen = _crop(seen, reach.within(fine))
    if rule.dilate:
        # Only cloud and shadow grow: neither what was not measured, nor snow.
        still = seen.missing | seen.snow
        seen = Decoded(dilate_not_clear(seen.clear, still, rule.dilate), seen.snow, seen.missing)
    return _crop(seen, window.within(reach))


def _crop(seen: Decoded, part: tuple[slice, slice]) -> Decoded:
    return Decoded(seen.clear[(..., *part)], seen.snow[(..., *part)], seen.missing[(..., *part)])


@dataclass(frozen=True, eq=False)
class ClearJob:
    """The clear mask of a cube, block by block.

    Parameters
    ----------
    grid : TileGrid
        Blocks.
    rule : MaskRule
        How the quality layer is read.
    scaling : Scaling
        Which stored values are missing.
    n_times : int
        Number of dates.
    within : ValidRange or None
        Which numbers can be measurements; None for all.
    sensor : str or None
        The sensor, where it is known.
    """

    grid: TileGrid
    rule: MaskRule
    scaling: Scaling
    n_times: int
    within: ValidRange | None = None
    sensor: str | None = None

    name = "cloudfree-clear"
    s1_reads = np.empty(0, np.intp)
    lead: tuple[int, ...] = ()
    outputs = (Output("clear", ("time", "y", "x"), np.dtype(bool)),)

    @property
    def reads(self) -> NDArray[np.intp]:
        """All dates."""
        return np.arange(self.n_times)

    @property
    def sizes(self) -> dict[str, int]:
        """Length of the outputs' dimensions, without rows and columns."""
        return {"time": self.n_times}

    def windows(self, box: Box) -> tuple[Box, Box]:
        """What must be read for a block: of the bands, and of the quality layer in its own pixels."""
        return box, quality_window(box, self.rule, self.grid)

    def run(self, box: Box, bands: Sequence[Array], quality: Array, s1: Sequence[Array] = ()) -> tuple[Array, ...]:
        """The clear mask of one block."""
        seen = read_quality(quality, self.rule, self.grid, box)
        stored = stack(bands)
        if self.within is not None:
            check_level(stored, seen.clear, self.scaling, self.within, self.sensor)
        return (clear_where(stored, seen.clear, self.scaling, self.within),)

    def stream(self, blocks: Iterable[Block]) -> Iterator[tuple[Box, tuple[Array, ...]]]:
        """The clear masks of several blocks."""
        return ((box, self.run(box, bands, quality)) for box, bands, quality, _ in blocks)
