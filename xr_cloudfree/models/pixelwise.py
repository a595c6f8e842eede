"""What models that look at one pixel at a time share: one pixel axis in, rows and columns out."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.observations import Observations, Prediction


def flat(obs: Observations) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Bands (time, band, pixel) and clear (time, pixel), as the kernels take them."""
    t, b, y, x = obs.bands.shape
    bands = np.ascontiguousarray(obs.bands).reshape(t, b, y * x)
    return bands, np.ascontiguousarray(obs.clear).reshape(t, y * x)


def prediction(
    obs: Observations,
    image: NDArray[np.float32],
    known: NDArray[np.bool_],
    source: NDArray[np.int16],
    uncertainty: NDArray[np.float32] | None = None,
    gate: NDArray[np.float32] | None = None,
) -> Prediction:
    """Back from one pixel axis to rows and columns."""
    y, x = obs.shape
    return Prediction(
        image.reshape(-1, y, x),
        known.reshape(y, x),
        source.reshape(y, x),
        None if uncertainty is None else uncertainty.reshape(-1, y, x),
        None if gate is None else gate.reshape(-1, y, x),
    )


def dominant(weights: NDArray[np.float32]) -> NDArray[np.int16]:
    """Index of the date with at least half of the weight (of two the earlier), -1 where none has.

    Parameters
    ----------
    weights : ndarray of float32, shape (time, pixel)
        Weights of the dates.
    """
    source = np.full(weights.shape[1], -1, np.int16)
    for date in range(len(weights) - 1, -1, -1):
        source[weights[date] >= 0.5] = date
    return source
