"""Masks corrected by the series: missed cloud and shadow are masked, false alarms are restored."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.protocol import Observations

REACH = 24
"""Pixels on each side on which the result at a pixel depends."""
CELL = 64
"""Edge, in pixels, of the cells that fits are made on; they start at pixel (0, 0) of the cube."""
LEAST_DATES = 3
"""Minimum number of dates of a series from which masks can be corrected."""
_THRESHOLD = 0.02


class Change(IntEnum):
    """How the mask of a pixel differs from the given one."""

    AS_GIVEN = 0
    CLOUD = 1
    SHADOW = 2
    RESTORED = 3


@dataclass(frozen=True, eq=False)
class Repaired:
    """Corrected masks of a series.

    Parameters
    ----------
    clear : ndarray of bool, shape (time, y, x)
        True where a pixel is clear.
    change : ndarray of uint8, shape (time, y, x)
        `Change` codes.
    score : ndarray of float32, shape (time, y, x)
        From 0, clear, to 1, cloud or shadow; NaN where there is no value.
    """

    clear: NDArray[np.bool_]
    change: NDArray[np.uint8]
    score: NDArray[np.float32]


def repair(
    bands: NDArray[np.float32],
    given: NDArray[np.bool_],
    days: NDArray[np.float64],
    *,
    usable: NDArray[np.bool_],
    keep: NDArray[np.bool_],
    common_names: tuple[str | None, ...] = (),
    origin: tuple[int, int] = (0, 0),
    from_series: bool = False,
) -> Repaired:
    """Correct the masks of a series, or make them.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance, dates in increasing order; NaN where there is no value.
    given : ndarray of bool, shape (time, y, x)
        True where a pixel is clear according to the given mask.
    days : ndarray of float64, shape (time,)
        Days from any date.
    usable : ndarray of bool, shape (time, y, x)
        True where every band has a value.
    keep : ndarray of bool, shape (time, y, x)
        True where a pixel may not be restored.
    common_names : tuple of (str or None)
        STAC common name of each band.
    origin : tuple of int
        Row and column of the first pixel in the cube.
    from_series : bool
        Whether to make the masks without a given one.
    """
    from scipy.ndimage import uniform_filter

    clear = (usable if from_series else given & usable).copy()
    change = np.zeros(clear.shape, np.uint8)
    score = np.full(clear.shape, np.nan, np.float32)
    start = clear.copy()
    for date in range(len(bands)):
        others = start.copy()
        others[date] = False
        expected = Linear().predict([Observations(np.nan_to_num(bands), others, days - days[date])])[0]
        rise = np.where(usable[date] & expected.known, np.nan_to_num(bands[date]) - expected.bands, 0)
        rise = np.stack([uniform_filter(band, 3) for band in rise])
        cloud, shadow = rise.min(axis=0) > _THRESHOLD, rise.max(axis=0) < -_THRESHOLD
        score[date] = np.where(usable[date], np.clip(np.maximum(rise.min(axis=0), -rise.max(axis=0)) / 0.04, 0, 1), np.nan)
        change[date][start[date] & cloud] = Change.CLOUD
        change[date][start[date] & shadow] = Change.SHADOW
        calm = usable[date] & ~keep[date] & expected.known & (np.abs(rise).max(axis=0) < _THRESHOLD / 2)
        if not from_series:
            change[date][~start[date] & calm] = Change.RESTORED
        clear[date] = (start[date] & ~cloud & ~shadow) | (change[date] == Change.RESTORED)
    return Repaired(clear, change, score)
