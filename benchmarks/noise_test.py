"""The outlier test of FORCE: observations far above the noise of their pixel's series are masked, others restored.

A form of our own of the test that the higher-level processing of FORCE describes (parameters ``ABOVE_NOISE`` and
``BELOW_NOISE``), on the mean of all bands. An observation is compared with the line between the clear observations
before and after it; the noise of a pixel is the root mean square of these differences (Vermote et al. 2009,
doi 10.1109/TGRS.2008.2005977).

References
----------
Frantz 2019, FORCE: Landsat + Sentinel-2 analysis ready data and beyond, doi 10.3390/rs11091124.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.protocol import Observations

ABOVE_NOISE, BELOW_NOISE = 3.0, 1.0
ITERATIONS = 5


def noise_test(
    bands: NDArray[np.float32],
    clear: NDArray[np.bool_],
    days: NDArray[np.float64],
    usable: NDArray[np.bool_],
) -> NDArray[np.bool_]:
    """Correct masks by the noise of each pixel's series.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance.
    clear, usable : ndarray of bool, shape (time, y, x)
        Clear according to the given masks; a value in every band.
    days : ndarray of float64, shape (time,)
        Days from any date, increasing.

    Returns
    -------
    ndarray of bool, shape (time, y, x)
        Corrected masks.
    """
    values = np.where(usable, np.where(usable[:, None], bands, 0).mean(axis=1), 0)[:, None].astype(np.float32)
    seen = clear.copy()
    for _ in range(ITERATIONS):
        error, known = _differences(values, seen, days)
        outlier = seen & known & (np.abs(error) > ABOVE_NOISE * _noise(error, seen & known))
        if not outlier.any():
            break
        # An outlier spoils the lines of its neighbours: of neighbouring outliers the farthest goes first.
        seen &= ~(outlier & _farthest(np.where(outlier, np.abs(error), 0)))
    error, known = _differences(values, seen, days)
    quiet = np.abs(error) < BELOW_NOISE * _noise(error, seen & known)
    return np.asarray(seen | (usable & ~clear & known & quiet))


def _differences(
    values: NDArray[np.float32], seen: NDArray[np.bool_], days: NDArray[np.float64]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return each observation less the line between its clear neighbours, and where both exist; (time, y, x)."""
    error, known = np.zeros(seen.shape, np.float32), np.zeros(seen.shape, bool)
    for date in range(len(values)):
        others = seen.copy()
        others[date] = False
        line = Linear().predict([Observations(values, others, days - days[date])])[0]
        both = others[:date].any(axis=0) & others[date + 1 :].any(axis=0)
        known[date] = both
        error[date] = np.where(both, values[date, 0] - line.bands[0], 0)
    return error, known


def _noise(error: NDArray[np.float32], among: NDArray[np.bool_]) -> NDArray[np.float64]:
    squares = np.where(among, np.square(error, dtype=np.float64), 0).sum(axis=0)
    return np.asarray(np.sqrt(squares / np.maximum(among.sum(axis=0), 1)))


def _farthest(distance: NDArray[np.float32]) -> NDArray[np.bool_]:
    padded = np.pad(distance, [(1, 1), (0, 0), (0, 0)])
    return np.asarray((distance >= padded[:-2]) & (distance >= padded[2:]))
