"""Tiles' answers put together into a block, in a fixed order."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.engine.grid import Box, Tile, TileGrid
from xr_cloudfree.models.protocol import Prediction

# Of a pixel that no tile has told of yet.
_UNTOLD = -2


def ramp(start: int, stop: int, centre: int, tile: int, stride: int) -> NDArray[np.float32]:
    """Linear weights along one axis: 1 around the centre, 0 at half a tile from it.

    They fall over the width by which neighbouring tiles overlap, so that the neighbours' weights add up to 1.

    Examples
    --------
    >>> ramp(0, 4, 0, 8, 4) + ramp(0, 4, 4, 8, 4)
    array([1., 1., 1., 1.], dtype=float32)
    >>> ramp(0, 6, 0, 8, 6)
    array([1.  , 1.  , 0.75, 0.25, 0.  , 0.  ], dtype=float32)
    """
    position = np.arange(start, stop) + 0.5
    return np.asarray(np.clip((tile / 2 - np.abs(position - centre)) / (tile - stride), 0, 1), dtype=np.float32)


def stitch(grid: TileGrid, block: Box, tiles: list[Tile], answers: list[Prediction]) -> Prediction:
    """The prediction of a block from those of its tiles.

    Without a taper each pixel is taken from the tile whose core it lies in. With one, the tiles that know a pixel
    are averaged with linear weights, always in the order of the grid, so that the same sums are made for a pixel
    whichever block asks for it.
    """
    if len(tiles) == 1 and tiles[0].extent == block and not grid.taper:
        return answers[0]
    if grid.taper:
        return _blend(grid, block, tiles, answers)
    parts = [(tile.core.within(block), tile.core.within(tile.extent)) for tile in tiles]  # where to, where from

    def join(arrays: list[NDArray[np.generic] | None]) -> NDArray[np.generic] | None:
        first = arrays[0]
        if first is None:
            return None
        out = np.empty(first.shape[:-2] + block.shape, dtype=first.dtype)
        for (to, source), array in zip(parts, arrays, strict=True):
            assert array is not None
            out[(..., *to)] = array[(..., *source)]
        return out

    return Prediction(
        bands=join([a.bands for a in answers]),  # type: ignore[arg-type]
        known=join([a.known for a in answers]),  # type: ignore[arg-type]
        source=join([a.source for a in answers]),  # type: ignore[arg-type]
        uncertainty=join([a.uncertainty for a in answers]),  # type: ignore[arg-type]
        gate=join([a.gate for a in answers]),  # type: ignore[arg-type]
    )


def _is_even(answer: Prediction) -> bool:
    """Whether each pixel that is known is known in all bands."""
    return bool(np.isfinite(answer.bands).all() or np.isfinite(answer.bands[:, answer.known]).all())


def _blend(grid: TileGrid, block: Box, tiles: list[Tile], answers: list[Prediction]) -> Prediction:
    assert grid.tile is not None and grid.stride is not None
    first = answers[0]
    total = np.zeros(block.shape, np.float32)
    sums = {
        name: np.zeros(getattr(first, name).shape[:-2] + block.shape, np.float32)
        for name in ("bands", "uncertainty", "gate")
        if getattr(first, name) is not None
    }
    # Of single bands, where tiles know some and not others.
    totals = None if all(_is_even(answer) for answer in answers) else np.zeros_like(sums["bands"])
    source = None if first.source is None else np.full(block.shape, _UNTOLD, np.int16)
    for tile, answer in zip(tiles, answers, strict=True):
        core = tile.core
        to, taken = core.within(block), core.within(tile.extent)
        weight = np.outer(
            ramp(core.y0, core.y1, tile.centre[0], grid.tile, grid.stride),
            ramp(core.x0, core.x1, tile.centre[1], grid.tile, grid.stride),
        )
        weight *= answer.known[taken]
        total[to] += weight
        there: NDArray[np.bool_] | None = None
        if totals is not None:
            there = np.isfinite(answer.bands[(..., *taken)])
            totals[(..., *to)] += weight * there
        for name, into in sums.items():
            # What lies where a tile knows nothing may be NaN, and 0 x NaN is NaN.
            shown = weight > 0 if there is None or name == "gate" else (weight > 0) & there
            part = np.where(shown, getattr(answer, name)[(..., *taken)], np.float32(0))
            into[(..., *to)] += weight * part
        if source is not None and answer.source is not None:
            # A date weighs one half of the blend for certain where it does so in all tiles.
            told, before = answer.source[taken], source[to]
            agreed = np.where((before == _UNTOLD) | (before == told), told, np.int16(-1))
            source[to] = np.where(weight > 0, agreed, before)
    if source is not None:
        source[source == _UNTOLD] = -1
    known = total > 0
    for name, into in sums.items():
        if totals is None or name == "gate":
            np.divide(into, total, out=into, where=known)
        else:
            np.divide(into, totals, out=into, where=totals > 0)
            into[totals == 0] = np.nan
    return Prediction(
        bands=sums["bands"],
        known=known,
        source=source,
        uncertainty=sums.get("uncertainty"),
        gate=sums.get("gate"),
    )
