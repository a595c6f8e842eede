"""A composite of all dates, each weighted by a gate of constants: the time gate of [1]_ with nothing learned.

The gate of a date is open where the pixel is clear, and the wider the nearer the date lies to the target. The
sums over dates can be added up in any order and in parts, so that memory does not grow with the number of
dates.

References
----------
.. [1] S. Oehmcke, T.-H. K. Chen, A. V. Prishchepov and F. Gieseke, "Creating cloud-free satellite imagery
   from image time series with deep learning", BIGSPATIAL 2020. doi:10.1145/3423336.3429345
.. [2] Z. Che et al., "Recurrent neural networks for multivariate time series with missing values", Sci. Rep.
   8, 2018. doi:10.1038/s41598-018-24271-9
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.errors import OptionError
from xr_cloudfree.models.kernels import dispatch as kernels
from xr_cloudfree.models.protocol import Observations, Prediction, dominant, flat, prediction
from xr_cloudfree.models.spec import ModelSpec

TAU_DAYS = 5.0
"""Days over which a gate closes by a factor e: Sentinel-2's revisit time, so that the nearest one or two
clear dates on either side make up most of the composite."""

# exp(-60) is far above float32's smallest: no gate closes fully, so any clear date makes a pixel known.
_FLOOR = 60.0


def decay(
    day_offset: NDArray[np.float64], tau_past: float = TAU_DAYS, tau_future: float = TAU_DAYS
) -> NDArray[np.float32]:
    """How far the gate of each date is open: ``exp(-max(d / tau, 0))`` for its distance d in days.

    Parameters
    ----------
    day_offset : ndarray of float64, shape (time,)
        Signed days from the target date.
    tau_past, tau_future : float
        Days over which the gate closes by a factor e, before and after the target.

    Returns
    -------
    ndarray of float32, shape (time,)
        Between 0 and 1; never 0.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.classical.decay import decay
    >>> decay(np.array([-10.0, 0.0, 5.0]), tau_past=10.0, tau_future=5.0).round(3).tolist()
    [0.36800000071525574, 1.0, 0.36800000071525574]
    """
    slope = np.where(day_offset < 0, -1.0 / tau_past, 1.0 / tau_future)
    return np.exp(-np.clip(day_offset * slope, 0.0, _FLOOR)).astype(np.float32)


def gate_weights(
    clear: NDArray[np.bool_], openness: NDArray[np.float32]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Weight of each date at each pixel, with sum 1, and where there is any.

    Parameters
    ----------
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel was seen: the gate is shut elsewhere.
    openness : ndarray of float32, shape (time,)
        How far each date's gate is open.

    Returns
    -------
    weights : ndarray of float32, shape (time, pixel)
        0 where a pixel is not clear.
    known : ndarray of bool, shape (pixel,)
        True where any date is clear.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.classical.decay import gate_weights
    >>> clear = np.array([[True, False], [True, False]])
    >>> weights, known = gate_weights(clear, np.array([0.6, 0.2], np.float32))
    >>> weights.round(2)[:, 0].tolist(), known.tolist()
    ([0.75, 0.25], [True, False])
    """
    gate = np.where(clear, openness[:, np.newaxis], np.float32(0))
    total = np.zeros(clear.shape[1], np.float32)
    for row in gate:  # date by date: a sum along the axis would depend on how many pixels there are
        total += row
    known = total > 0
    gate /= np.where(known, total, np.float32(1))
    return gate, known


def composite(
    bands: NDArray[np.generic], clear: NDArray[np.bool_], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Sum of the clear dates, weighted.

    Parameters
    ----------
    bands : ndarray, shape (time, band, pixel)
        Values; arbitrary where they are not clear.
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel was seen.
    weights : ndarray of float32, shape (time, pixel)
        Weights, shared by the bands.

    Returns
    -------
    ndarray of float32, shape (band, pixel)
        The composite. Those of two parts of a series add up to that of the whole.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.classical.decay import composite
    >>> bands = np.array([[[100]], [[200]]], np.uint16)
    >>> composite(bands, np.ones((2, 1), bool), np.array([[0.75], [0.25]], np.float32)).tolist()
    [[125.0]]
    """
    return kernels.mix(bands, clear, weights)


class ExponentialDecay:
    """The composite with a gate of constants, without learned weights.

    Parameters
    ----------
    tau_past, tau_future : float
        Days over which the gate closes by a factor e, before and after the target date.

    Raises
    ------
    OptionError
        If a tau is not a positive number.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.protocol import Observations
    >>> from xr_cloudfree.models.classical.decay import ExponentialDecay
    >>> bands = np.array([100, 200], np.uint16).reshape(2, 1, 1, 1)
    >>> obs = Observations(bands, np.ones((2, 1, 1), bool), np.array([-4.0, 4.0]))
    >>> ExponentialDecay().predict([obs])[0].gate.ravel().tolist()
    [0.5, 0.5]
    """

    by_band = True

    def __init__(self, tau_past: float = TAU_DAYS, tau_future: float = TAU_DAYS) -> None:
        given: dict[str, Any] = {"tau_past": tau_past, "tau_future": tau_future}
        for name, tau in given.items():
            if not (isinstance(tau, int | float) and 0 < tau < np.inf):
                raise OptionError(f"{name} is {tau!r}", "a positive number of days", f"{name}={TAU_DAYS}")
        self.tau_past, self.tau_future = tau_past, tau_future
        self.spec = ModelSpec(
            "timegate",
            "all clear dates, weighted by their distance in time",
            layers=("source_time", "gate"),
            settings=tuple((name, tau) for name, tau in given.items() if tau != TAU_DAYS),
        )

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """One prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = flat(obs)
        weights, known = gate_weights(clear, decay(obs.day_offset, self.tau_past, self.tau_future))
        image = composite(bands, clear, weights)
        return prediction(obs, image, known, dominant(weights), gate=weights)
