"""The model's answers for tiles that several blocks need, kept until the last of them has used its part."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields, replace
from itertools import product
from typing import Any

import numpy as np

from xr_cloudfree.engine.grid import Box, TileGrid, surround
from xr_cloudfree.models.protocol import Prediction


@dataclass(eq=False)
class Answer:
    """The prediction for a tile, or for what is still needed of it; None until the model has made it.

    Parameters
    ----------
    extent : Box
        The pixels that it holds.
    prediction : Prediction or None
        The prediction for them.
    """

    extent: Box
    prediction: Prediction | None = None

    def crop(self, part: Box) -> Answer:
        """Return the answer for a part, without holding on to the rest."""
        if part == self.extent or self.prediction is None:
            return self
        cut = (..., *part.within(self.extent))
        arrays: dict[str, Any] = {
            field.name: None if (array := getattr(self.prediction, field.name)) is None else array[cut].copy()
            for field in fields(self.prediction)
        }
        return Answer(part, Prediction(**arrays))


def without_unused(prediction: Prediction, layers: Sequence[str]) -> Prediction:
    """Return a prediction without the fields that no requested layer needs."""
    return replace(
        prediction,
        uncertainty=prediction.uncertainty if "uncertainty" in layers else None,
        source=prediction.source if "source_time" in layers else None,
        gate=prediction.gate if "gate" in layers else None,
        sensor=prediction.sensor if "source_sensor" in layers else None,
        consistency=prediction.consistency if "consistency" in layers else None,
    )


class Answers:
    """Answers that blocks which are still to come need, by target and tile.

    Blocks begin in any order, one after the other, and finish in the same order.

    Parameters
    ----------
    grid : TileGrid
        The blocks and tiles.
    parts : iterable of Box, optional
        Parts of whole blocks, all that will begin; by default the whole cube.
    strip : int, optional
        Columns of blocks that share answers with each other only: with those of all columns, what is kept would grow
        with the width of the cube.
    """

    def __init__(self, grid: TileGrid, parts: Iterable[Box] | None = None, strip: int | None = None) -> None:
        self.grid, self._strip, self._kept = grid, strip, dict[tuple[int, Box], Answer]()
        self._awaited = np.full(tuple(map(len, grid.chunks)), parts is None)
        for part in (parts or ()) if grid.taper else ():
            rows, columns = self._numbers(part)
            self._awaited[rows.start : rows.stop, columns.start : columns.stop] = True

    def begin(self, block: Box) -> dict[Box, Box]:
        """Begin a block, and return the tiles of it that blocks to come need, with the part that they need."""
        if not self.grid.taper:  # cores do not overlap
            return {}
        (row, *_), (column, *_) = self._numbers(block)
        self._awaited[row, column] = False
        own = {tile.extent for tile in self.grid.tiles(block)}
        needed: dict[Box, Box] = {}
        for y, x in product(*self._numbers(surround(own).clip(self.grid.cube))):
            if self._awaited[y, x] and self._of_strip(x) == self._of_strip(column):
                for extent, part in parts_of(self.grid, self._box(y, x)).items():
                    if extent in own:
                        needed[extent] = surround((part, needed.get(extent, part)))
        return needed

    def of(self, target: int, extents: Iterable[Box], needed: dict[Box, Box]) -> tuple[dict[Box, Answer], list[Box]]:
        """Return the answers for the tiles of a block that begins, and the tiles that the model has to be asked for.

        Parameters
        ----------
        target : int
            The target date.
        extents : iterable of Box
            The tiles.
        needed : dict
            The result of `begin`.
        """
        answers, new = {}, []
        for extent in extents:
            answer = self._kept.pop((target, extent), None)
            if answer is None:
                answer = Answer(extent)
                new.append(extent)
            answers[extent] = answer
            if extent in needed:
                self._kept[target, extent] = answer
        return answers, new

    def finish(self, target: int, needed: dict[Box, Box]) -> None:
        """Finish a block for one target: what no block to come needs of its answers is dropped."""
        for extent, part in needed.items():
            if (target, extent) in self._kept:  # else a block that has begun since then was the last to need it
                self._kept[target, extent] = self._kept[target, extent].crop(part)

    def clear(self) -> None:
        """Drop all answers, as after an error: some may never be made."""
        self._kept.clear()

    def _numbers(self, part: Box) -> tuple[range, range]:
        """Return the rows and columns of the blocks that a part touches."""
        by, bx = self.grid.block
        return range(part.y0 // by, -(-part.y1 // by)), range(part.x0 // bx, -(-part.x1 // bx))

    def _box(self, row: int, column: int) -> Box:
        by, bx = self.grid.block
        return Box(row * by, (row + 1) * by, column * bx, (column + 1) * bx).clip(self.grid.cube)

    def _of_strip(self, column: int) -> int:
        return 0 if self._strip is None else column // self._strip


def parts_of(grid: TileGrid, block: Box) -> dict[Box, Box]:
    """Return the tiles of a block by their extent, each with the part of it that the block needs.

    Tiles that were moved inwards at the cube's border may coincide: they count once.
    """
    parts: dict[Box, Box] = {}
    for tile in grid.tiles(block):
        parts[tile.extent] = surround((tile.core, parts.get(tile.extent, tile.core)))
    return parts
