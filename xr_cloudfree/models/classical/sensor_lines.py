"""The difference between two sensors, from pairs of their images of the same ground."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

# Differences between sensors that published coefficients leave: standard deviations of slope and offset.
SLOPE, OFFSET = 0.05, 0.01
# Error of a pair of images of both, from angles and atmosphere: its value and least value, and the number of pairs with
# which it is measured.
PAIR_ERROR, LEAST_PAIR_ERROR, ENOUGH_PAIRS = 0.01, 0.003, 3


def fit_line(pairs: Sequence[tuple[NDArray[np.floating], NDArray[np.floating]]]) -> tuple[float, float]:
    """Return slope and offset of a line, fitted robustly and regularised towards 1 and 0.

    Parameters
    ----------
    pairs : sequence of (ndarray, ndarray)
        What the other sensor saw and what the tile's saw, for each pair of images. The pixels of a pair share most of
        their errors, so each pair is one measurement, with an error by which the pairs differ among themselves.

    Examples
    --------
    >>> import numpy as np
    >>> x = np.linspace(0.0, 0.5, 1000)
    >>> y = 0.95 * x + 0.004
    >>> y[:50] = 0.9  # missed cloud
    >>> [round(value, 2) for value in fit_line([(x, y)] * 200)]
    [0.95, 0.0]
    """
    x, y = (np.concatenate(arrays).astype(np.float64) for arrays in zip(*pairs, strict=True))
    medians = np.array([np.median(theirs - own) for own, theirs in pairs])
    spread = float(medians.std(ddof=1)) if len(pairs) >= ENOUGH_PAIRS else PAIR_ERROR
    each = 1 / max(spread, LEAST_PAIR_ERROR) ** 2
    share = np.concatenate([np.full(len(own), each / len(own)) for own, _ in pairs])
    middle = float(np.median(x))
    design = np.stack([x - middle, np.ones_like(x)])
    prior = np.diag([1 / SLOPE**2, 1 / OFFSET**2])
    change, weight = y - x, share
    for _ in range(10):
        found = np.linalg.solve((design * weight) @ design.T + prior, (design * weight) @ change)
        residual = change - found @ design
        # Around their own middle: a strong prior may leave all of them on one side.
        residual = residual - np.median(residual)
        scale = 1.4826 * np.median(np.abs(residual)) + 1e-4
        weight = share * np.square(np.clip(1 - np.square(residual / (4.685 * scale)), 0, None))
    slope = 1 + float(found[0])
    return slope, float(found[1]) - float(found[0]) * middle
