"""Masks corrected by the series: missed cloud and shadow are masked, false alarms are restored."""

from __future__ import annotations

import math
from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.masking.context import CELL

ROUNDS = 2
"""Times that the dates are judged, the second time by the others as the first has corrected them."""
REACH = ROUNDS * (3 * CELL + 40)
"""Pixels on each side on which the result at a pixel depends."""
LEAST_DATES = 3
"""Minimum number of dates of a series from which masks can be corrected."""
LEAST_CLEAR = 6
"""Minimum number of clear dates of a pixel by which its other dates are judged."""
# Pixels beyond a given cloud within which missed cloud is likelier, as the edge of a square.
NEARBY = 21
# Probability of cloud or shadow from which a clear pixel is masked: near given cloud, and elsewhere.
MASKED_NEAR, MASKED = 0.6, 0.95
# Probability below which a pixel that is not clear is restored.
RESTORED = 0.1
# Probability from which a pixel is masked without a given mask.
MADE = 0.5


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
    score, change = np.full(usable.shape, np.nan, np.float32), np.full(usable.shape, Change.AS_GIVEN, np.uint8)
    if len(bands) < LEAST_DATES:
        return Repaired(base.copy(), change, score)
    # numba is imported only where it is needed.
    from xr_cloudfree.masking.bootstrap import first_mask
    from xr_cloudfree.masking.classifier import load
    from xr_cloudfree.masking.detector import BRIGHTNESS, evidence
    from xr_cloudfree.masking.kernels import box, neighbours, probability

    classifier = load()
    bands = np.where(usable[:, None], bands, np.float32(0))
    start = first_mask(bands, usable) if from_series else base
    judgeable = start.sum(axis=0) >= LEAST_CLEAR
    if from_series:
        near = np.zeros(usable.shape, bool)
        beside, elsewhere, calm = _odds(MADE), _odds(MADE), _odds(MADE)
    else:
        near = np.stack([box(cloud.astype(np.float32), NEARBY) > 0 for cloud in usable & ~given])
        beside, elsewhere, calm = _odds(MASKED_NEAR), _odds(MASKED), _odds(RESTORED)
    state = start
    for round_ in range(ROUNDS):
        before, after = (index.reshape(usable.shape) for index in neighbours(state.reshape(len(state), -1)))
        judged = state.copy()
        for date in range(len(bands)):
            inputs, known = evidence(
                bands, days, date, usable[date], state[date], before[date], after[date], from_series
            )
            known &= judgeable
            odds = classifier(inputs, known)
            masked = known & start[date] & (odds > np.where(near[date], np.float32(beside), np.float32(elsewhere)))
            restored = known & usable[date] & ~start[date] & ~keep[date] & (odds < calm)
            judged[date] = (start[date] & ~masked) | restored
            if round_ == ROUNDS - 1:
                score[date][known] = probability(odds[known])
                newly = base[date] & ~judged[date]
                change[date][newly] = np.where(inputs[BRIGHTNESS][newly] > 0, Change.CLOUD, Change.SHADOW)
                change[date][judged[date] & ~base[date]] = Change.RESTORED
        state = judged
    return Repaired(state, change, score)


def _odds(share: float) -> float:
    """Return the log-odds of a probability."""
    return math.log(share / (1 - share))
