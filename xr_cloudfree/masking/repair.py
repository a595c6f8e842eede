"""Masks corrected by the series: missed cloud and shadow are masked, false alarms are restored."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.masking.context import CELL

ROUNDS = 2
"""Times that the dates are judged, the second time by the others as the first has corrected them."""
REACH = ROUNDS * (3 * CELL + 32)
"""Pixels on each side on which the result at a pixel depends."""
LEAST_DATES = 3
"""Minimum number of dates of a series from which masks can be corrected."""
# Pixels beyond a given cloud within which missed cloud is likelier, as the edge of a square.
NEARBY = 21
EARLY = 1
# Probability of cloud or shadow from which a clear pixel is masked: near given cloud, and elsewhere.
MASKED_NEAR, MASKED = 0.7, 0.95
# Probability below which a pixel that is not clear is restored.
RESTORED = 0.5
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
    # numba is imported only where it is needed.
    from xr_cloudfree.masking.bootstrap import first_mask
    from xr_cloudfree.masking.classifier import load
    from xr_cloudfree.masking.detector import BRIGHTNESS, evidence
    from xr_cloudfree.masking.kernels import box, neighbours

    start = first_mask(bands, usable) if from_series else given & usable
    bands = np.where(usable[:, None], bands, np.float32(0))
    classifier = load()
    state, score = start, np.full(usable.shape, np.nan, np.float32)
    bright = np.zeros(usable.shape, bool)
    for round_ in range(ROUNDS):
        before, after = (
            index.reshape(usable.shape) for index in neighbours(state.reshape(len(state), -1))
        )
        judged = state.copy()
        for date in range(len(bands)):
            inputs, known = evidence(bands, days, date, usable[date], state[date], before[date], after[date], from_series)
            odds = classifier(inputs, known)
            if from_series:
                limits = np.full(odds.shape, _odds(MADE)), np.full(odds.shape, _odds(MADE))
            else:
                near = box((usable[date] & ~given[date]).astype(np.float32), NEARBY) > 0
                limits = np.where(near, _odds(MASKED_NEAR), _odds(MASKED)), np.full(odds.shape, _odds(RESTORED))
            masked = known & start[date] & (odds > limits[0])
            restored = known & usable[date] & ~start[date] & ~keep[date] & (odds < limits[1])
            if round_ < ROUNDS - 1 and not EARLY:
                restored &= False
            judged[date] = (start[date] & ~masked) | restored
            if round_ == ROUNDS - 1:
                score[date] = np.where(known, 1 / (1 + np.exp(-odds)), np.nan)
                bright[date] = inputs[BRIGHTNESS] > 0
        state = judged
    base = usable if from_series else given & usable
    masked = base & ~state
    change = np.where(masked, np.where(bright, Change.CLOUD, Change.SHADOW), Change.AS_GIVEN).astype(np.uint8)
    change[state & ~base] = Change.RESTORED
    return Repaired(state, change, score)


def _odds(probability: float) -> np.float32:
    """Return the log-odds of a probability."""
    return np.float32(np.log(probability / (1 - probability)))
