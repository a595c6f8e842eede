"""Masks corrected by the series: missed cloud and shadow are masked, false alarms are restored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.masking.context import CELL

if TYPE_CHECKING:
    from xr_cloudfree.masking.classifier import Classifier

ROUNDS = 2
"""Times that the dates are judged, the second time by the others as the first has corrected them."""
REACH = ROUNDS * (3 * CELL + 40)
"""Pixels on each side on which the result at a pixel depends."""
LEAST_DATES = 3
"""Minimum number of dates of a series from which masks can be corrected."""
# Pixels beyond a given cloud within which missed cloud is likelier, as the edge of a square.
NEARBY = 21


@dataclass(frozen=True)
class Limits:
    """When a mask is changed, as probabilities of cloud or shadow.

    Parameters
    ----------
    likely, unlikely : float
        From which a clear pixel is masked: where cloud is likelier, and elsewhere.
    calm : float
        Below which a pixel that is not clear is restored.
    dates : int
        Minimum number of clear dates of a pixel by which its other dates are judged.
    """

    likely: float
    unlikely: float
    calm: float
    dates: int


GIVEN = Limits(0.85, 0.96, 0.15, 5)
"""Limits where a given mask is corrected: missed cloud is likelier near given cloud."""
MADE = Limits(0.35, 0.7, 0.35, 8)
"""Limits where there is no given mask: what lasts for some dates is unlikely to be cloud."""


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
    from_series: bool = False,
) -> Repaired:
    """Correct the masks of a series, or make them.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance, dates in increasing order; NaN where there is no value. The first pixel is that of a cell.
    given : ndarray of bool, shape (time, y, x)
        True where a pixel is clear according to the given mask.
    days : ndarray of float64, shape (time,)
        Days from any date.
    usable : ndarray of bool, shape (time, y, x)
        True where every band has a value.
    keep : ndarray of bool, shape (time, y, x)
        True where a pixel may not be restored.
    from_series : bool
        Whether to make the masks without a given one.
    """
    base = usable if from_series else given & usable
    if len(bands) < LEAST_DATES:
        unknown, unchanged = np.full(usable.shape, np.nan, np.float32), np.zeros(usable.shape, np.uint8)
        return Repaired(base.copy(), unchanged, unknown)
    # numba is imported only where it is needed.
    from xr_cloudfree.masking.classifier import load

    bands = np.where(usable[:, None], bands, np.float32(0))
    start, likely = first_state(bands, base, days, usable=usable, from_series=from_series)
    clear = start
    for _ in range(ROUNDS):
        found = judge(
            bands,
            base,
            days,
            start=start,
            clear=clear,
            usable=usable,
            keep=keep,
            likely=likely,
            from_series=from_series,
            by=load(),
        )
        clear = found.clear
    return found


def first_state(
    bands: NDArray[np.float32],
    given: NDArray[np.bool_],
    days: NDArray[np.float64],
    *,
    usable: NDArray[np.bool_],
    from_series: bool,
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return the mask that is corrected, and where cloud is likelier than elsewhere.

    Parameters
    ----------
    bands, days, usable, from_series
        See `repair`; reflectance is finite.
    given : ndarray of bool, shape (time, y, x)
        Where the given mask is clear; where there are values, if there is none.

    Returns
    -------
    start, likely : ndarray of bool, shape (time, y, x)
    """
    from xr_cloudfree.masking.bootstrap import first_mask
    from xr_cloudfree.masking.kernels import box

    if from_series:
        start, lasts = first_mask(bands, usable, days)
        return start, ~lasts
    return given, np.stack([box(cloud.astype(np.float32), NEARBY) > 0 for cloud in usable & ~given])


def judge(
    bands: NDArray[np.float32],
    given: NDArray[np.bool_],
    days: NDArray[np.float64],
    *,
    start: NDArray[np.bool_],
    clear: NDArray[np.bool_],
    usable: NDArray[np.bool_],
    keep: NDArray[np.bool_],
    likely: NDArray[np.bool_],
    from_series: bool,
    by: Classifier,
) -> Repaired:
    """Judge all dates once, each by the others.

    Parameters
    ----------
    bands, days, usable, keep
        See `repair`; reflectance is finite.
    given : ndarray of bool, shape (time, y, x)
        Where the given mask is clear; where there are values, if there is none.
    start : ndarray of bool, shape (time, y, x)
        The mask that is corrected: the given one, or the first one made from the series.
    clear : ndarray of bool, shape (time, y, x)
        Where the dates are presently taken as clear, by which others are judged.
    likely : ndarray of bool, shape (time, y, x)
        Where cloud is likelier than elsewhere.
    from_series : bool
        Whether there is no given mask.
    by : Classifier
        Tells cloud and shadow from clear land.

    Returns
    -------
    Repaired
    """
    from xr_cloudfree.masking.detector import BRIGHTNESS, evidence, make_state
    from xr_cloudfree.masking.kernels import probability

    limits = MADE if from_series else GIVEN
    score, change = np.full(usable.shape, np.nan, np.float32), np.full(usable.shape, Change.AS_GIVEN, np.uint8)
    state = make_state(bands, usable, clear, days, from_series=from_series)
    judgeable = start.sum(axis=0) >= limits.dates
    if_likely, otherwise = np.float32(_odds(limits.likely)), np.float32(_odds(limits.unlikely))
    calm, judged = _odds(limits.calm), np.empty_like(usable)
    for date in range(len(bands)):
        inputs, known = evidence(bands, usable, days, state, date)
        known &= judgeable
        odds = by(inputs, known)
        cloudy = odds > np.where(likely[date], if_likely, otherwise)
        restored = known & usable[date] & ~start[date] & ~keep[date] & (odds < calm)
        judged[date] = (start[date] & ~(known & cloudy)) | restored
        score[date][known] = probability(odds[known])
        newly = given[date] & ~judged[date]
        change[date][newly] = np.where(inputs[BRIGHTNESS][newly] > 0, Change.CLOUD, Change.SHADOW)
        change[date][judged[date] & ~given[date]] = Change.RESTORED
    return Repaired(judged, change, score)


def _odds(share: float) -> float:
    """Return the log-odds of a probability."""
    return math.log(share / (1 - share))
