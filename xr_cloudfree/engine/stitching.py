"""Stitching of tiles' predictions into that of a block, in a fixed order."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.engine.answers import Answer
from xr_cloudfree.engine.grid import Box, Tile, TileGrid
from xr_cloudfree.models.protocol import Prediction

# The source of a pixel to which no tile has contributed yet.
_UNSET = -2


def ramp(start: int, stop: int, centre: int, tile: int, stride: int) -> NDArray[np.float32]:
    """Return linear weights along one axis: 1 around the centre, 0 at half a tile from it.

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


def stitch(grid: TileGrid, block: Box, tiles: list[Tile], answers: list[Answer]) -> Prediction:
    """Return the prediction for a block from the answers for its tiles, one each.

    Without a taper each pixel is taken from the tile whose core it lies in. With one, the tiles in which a pixel is
    known are averaged with linear weights, always in the order of the grid, so that the sums of a pixel are the same
    in whichever block it lies.
    """
    predictions = [_made(answer) for answer in answers]
    # Place in the block, part of the answer.
    parts = [
        (tile.core.within(block), tile.core.within(answer.extent)) for tile, answer in zip(tiles, answers, strict=True)
    ]
    if grid.taper:
        return _blend(grid, block, tiles, parts, predictions)
    if len(tiles) == 1 and tiles[0].extent == block:
        return predictions[0]

    def join(arrays: list[NDArray[np.generic] | None]) -> NDArray[np.generic] | None:
        first = arrays[0]
        if first is None:
            return None
        out = np.empty(first.shape[:-2] + block.shape, dtype=first.dtype)
        for (place, part), array in zip(parts, arrays, strict=True):
            assert array is not None
            out[(..., *place)] = array[(..., *part)]
        return out

    return Prediction(
        bands=join([p.bands for p in predictions]),  # type: ignore[arg-type]
        known=join([p.known for p in predictions]),  # type: ignore[arg-type]
        source=join([p.source for p in predictions]),  # type: ignore[arg-type]
        uncertainty=join([p.uncertainty for p in predictions]),  # type: ignore[arg-type]
        gate=join([p.gate for p in predictions]),  # type: ignore[arg-type]
        sensor=join([p.sensor for p in predictions]),  # type: ignore[arg-type]
        consistency=join([p.consistency for p in predictions]),  # type: ignore[arg-type]
    )


def _made(answer: Answer) -> Prediction:
    assert answer.prediction is not None
    return answer.prediction


def _is_even(prediction: Prediction) -> bool:
    """Return whether each known pixel is known in all bands."""
    bands = prediction.bands
    return bool(np.isfinite(bands).all() or np.isfinite(bands[:, prediction.known]).all())


def _blend(
    grid: TileGrid,
    block: Box,
    tiles: list[Tile],
    parts: list[tuple[tuple[slice, slice], tuple[slice, slice]]],
    predictions: list[Prediction],
) -> Prediction:
    assert grid.tile is not None and grid.stride is not None
    first = predictions[0]
    total = np.zeros(block.shape, np.float32)
    sums = {
        name: np.zeros(getattr(first, name).shape[:-2] + block.shape, np.float32)
        for name in ("bands", "uncertainty", "gate")
        if getattr(first, name) is not None
    }
    # By band, where tiles know some bands of a pixel and not others.
    totals = None if all(map(_is_even, predictions)) else np.zeros_like(sums["bands"])
    source = None if first.source is None else np.full(block.shape, _UNSET, np.int16)
    sensor = None if first.sensor is None else np.zeros(block.shape, np.uint8)
    consistency = None if first.consistency is None else _Mean(first.consistency.shape[:-2] + block.shape)
    for tile, (place, part), prediction in zip(tiles, parts, predictions, strict=True):
        core = tile.core
        weight = np.outer(
            ramp(core.y0, core.y1, tile.centre[0], grid.tile, grid.stride),
            ramp(core.x0, core.x1, tile.centre[1], grid.tile, grid.stride),
        )
        weight *= prediction.known[part]
        total[place] += weight
        finite: NDArray[np.bool_] | None = None
        if totals is not None:
            finite = np.isfinite(prediction.bands[(..., *part)])
            totals[(..., *place)] += weight * finite
        for name, into in sums.items():
            # Values at unknown pixels may be NaN, and 0 x NaN is NaN.
            usable = weight > 0 if finite is None or name == "gate" else (weight > 0) & finite
            into[(..., *place)] += weight * np.where(usable, getattr(prediction, name)[(..., *part)], np.float32(0))
        if source is not None and prediction.source is not None:
            # A date certainly weighs one half of the blend if it does so in all tiles.
            new, before = prediction.source[part], source[place]
            common = np.where((before == _UNSET) | (before == new), new, np.int16(-1))
            source[place] = np.where(weight > 0, common, before)
        if sensor is not None and prediction.sensor is not None:
            sensor[place] = np.maximum(sensor[place], np.where(weight > 0, prediction.sensor[part], np.uint8(0)))
        if consistency is not None and prediction.consistency is not None:
            consistency.add((..., *place), weight, prediction.consistency[(..., *part)])
    if source is not None:
        source[source == _UNSET] = -1
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
        sensor=sensor,
        consistency=None if consistency is None else consistency.value(),
    )


class _Mean:
    """A weighted mean of arrays that may be NaN in places."""

    def __init__(self, shape: tuple[int, ...]) -> None:
        self._sum, self._total = np.zeros(shape, np.float32), np.zeros(shape, np.float32)

    def add(self, place: tuple[Any, ...], weight: NDArray[np.float32], values: NDArray[np.float32]) -> None:
        finite = np.isfinite(values) & (weight > 0)
        self._sum[place] += weight * np.where(finite, values, np.float32(0))
        self._total[place] += weight * finite

    def value(self) -> NDArray[np.float32]:
        out = np.full(self._sum.shape, np.nan, np.float32)
        return np.divide(self._sum, self._total, out=out, where=self._total > 0)
