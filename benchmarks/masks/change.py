"""Real change of the ground: pixels that differ from before, and stay so."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

# A change is at least so large in some band; the two clear observations before it, and it and the two after it, differ
# by at most so much in every band.
CHANGE, STEADY = 0.06, 0.03


def changed(bands: NDArray[np.float32], clear: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Find the first clear observation after each lasting change.

    A cloud that the mask misses does not last, so it is not found.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance, dates increasing.
    clear : ndarray of bool, shape (time, y, x)
        True where clear.

    Returns
    -------
    ndarray of bool, shape (time, y, x)
    """
    before, earlier = _previous_two(bands, clear)
    after, later = (values[::-1] for values in _previous_two(bands[::-1], clear[::-1]))
    with np.errstate(invalid="ignore"):  # NaN, where there are no two on a side, is no change
        steady = [np.abs(a - b).max(axis=1) <= STEADY for a, b in ((before, earlier), (bands, after), (bands, later))]
        moved = np.abs(bands - before).max(axis=1) > CHANGE
    return np.asarray(clear & moved & steady[0] & steady[1] & steady[2])


def _previous_two(
    bands: NDArray[np.float32], clear: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the last and the last but one clear values before each date; NaN where there is none."""
    last, last_but_one = np.full_like(bands, np.nan), np.full_like(bands, np.nan)
    for date in range(1, len(bands)):
        seen = clear[date - 1]
        last[date] = np.where(seen, bands[date - 1], last[date - 1])
        last_but_one[date] = np.where(seen, last[date - 1], last_but_one[date - 1])
    return last, last_but_one
