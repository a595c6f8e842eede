"""`ExponentialDecay`, registered as ``model="timegate"``: a composite with weights that decay with distance in time.

It is the time gate of [1]_ with constants in place of learned weights: the gate of a date is 0 where the pixel is not
clear, and decays exponentially with the distance in time [2]_. The network with a learned gate is in
`xr_cloudfree.models.networks.learned_gate`.

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
"""Days over which the gate decays by a factor e: Sentinel-2's revisit time, so that the nearest one or two
clear dates on either side make up most of the composite."""

# exp(-60) is far above the smallest float32, so no gate underflows to 0 and any clear date makes a pixel known.
_MAX_EXPONENT = 60.0


def decay(
    day_offset: NDArray[np.float64], tau_past: float = TAU_DAYS, tau_future: float = TAU_DAYS
) -> NDArray[np.float32]:
    """Compute the gate of each date: ``exp(-d / tau)`` at a distance of d days.

    Parameters
    ----------
    day_offset : ndarray of float64, shape (time,)
        Signed days from the target date.
    tau_past, tau_future : float
        Days over which the gate decays by a factor e, before and after the target.

    Returns
    -------
    ndarray of float32, shape (time,)
        In (0, 1].

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.classical.timegate import decay
    >>> decay(np.array([-10.0, 0.0, 5.0]), tau_past=10.0, tau_future=5.0).round(3).tolist()
    [0.36800000071525574, 1.0, 0.36800000071525574]
    """
    slope = np.where(day_offset < 0, -1.0 / tau_past, 1.0 / tau_future)
    return np.exp(-np.clip(day_offset * slope, 0.0, _MAX_EXPONENT)).astype(np.float32)


def gate_weights(clear: NDArray[np.bool_], gate: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Normalise the gates of the clear dates to weights with sum 1 at each pixel.

    Parameters
    ----------
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel is clear; the gate is 0 elsewhere.
    gate : ndarray of float32, shape (time,)
        Gate of each date, as from `decay`.

    Returns
    -------
    weights : ndarray of float32, shape (time, pixel)
        0 where a pixel is not clear.
    known : ndarray of bool, shape (pixel,)
        True where any date is clear.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.classical.timegate import gate_weights
    >>> clear = np.array([[True, False], [True, False]])
    >>> weights, known = gate_weights(clear, np.array([0.6, 0.2], np.float32))
    >>> weights.round(2)[:, 0].tolist(), known.tolist()
    ([0.75, 0.25], [True, False])
    """
    weights = np.where(clear, gate[:, np.newaxis], np.float32(0))
    total = np.zeros(clear.shape[1], np.float32)
    for row in weights:  # date by date: the summation order of ``sum`` depends on the number of pixels
        total += row
    known = total > 0
    weights /= np.where(known, total, np.float32(1))
    return weights, known


class ExponentialDecay:
    """A composite of all clear dates, weighted by an exponential decay with the days to the target (``"timegate"``).

    Parameters
    ----------
    tau_past, tau_future : float
        Days over which the weight of a date decays by a factor e, before and after the target date.

    Raises
    ------
    OptionError
        If `tau_past` or `tau_future` is not a positive number.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.protocol import Observations
    >>> from xr_cloudfree.models.classical.timegate import ExponentialDecay
    >>> bands = np.array([100, 200], np.uint16).reshape(2, 1, 1, 1)
    >>> obs = Observations(bands, np.ones((2, 1, 1), bool), np.array([-4.0, 4.0]))
    >>> ExponentialDecay().predict([obs])[0].gate.ravel().tolist()
    [0.5, 0.5]
    """

    by_band = True

    def __init__(self, tau_past: float = TAU_DAYS, tau_future: float = TAU_DAYS) -> None:
        settings: dict[str, Any] = {"tau_past": tau_past, "tau_future": tau_future}
        for name, tau in settings.items():
            if not (isinstance(tau, int | float) and 0 < tau < np.inf):
                raise OptionError(f"{name} is {tau!r}", "a positive number of days", f"{name}={TAU_DAYS}")
        self.tau_past, self.tau_future = tau_past, tau_future
        self.spec = ModelSpec(
            "timegate",
            "all clear dates, weighted by their distance in time",
            layers=("source_time", "gate"),
            settings=tuple((name, tau) for name, tau in settings.items() if tau != TAU_DAYS),
        )

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """Return one prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = flat(obs)
        weights, known = gate_weights(clear, decay(obs.day_offset, self.tau_past, self.tau_future))
        image = kernels.mix(bands, clear, weights)
        return prediction(obs, image, known, dominant(weights), gate=weights)
