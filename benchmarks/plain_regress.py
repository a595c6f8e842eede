"""Plain regression of the error of linear interpolation: the reference for accuracy claims.

One least-squares fit over the whole scene, which is not robust to clouds missed by the mask. The library's `regress` is
windowed, uses more dates and is robust to them.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xr_cloudfree.models.classical.series import Series
from xr_cloudfree.models.protocol import Observations, Prediction, prediction
from xr_cloudfree.models.spec import ModelSpec

RIDGE = 1e-6


class PlainRegress:
    """Linear interpolation plus a regression of its error on [linear, previous - next, 1] of all bands."""

    spec = ModelSpec("plain regress", "linear, corrected by one plain fit over the scene", units="reflectance")

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """Return one prediction per tile; a tile must be the whole scene."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        series = Series.of(obs)
        known, image = series.known, series.image
        usable = obs.clear[obs.target].ravel() & known if obs.target >= 0 else np.zeros_like(known)
        base = image.astype(np.float64)
        x = np.concatenate([base, series.change, np.ones((1, base.shape[1]))])
        if usable.sum() > len(x):
            y = series.bands[obs.target][:, usable] - base[:, usable]
            gram = x[:, usable] @ x[:, usable].T
            slope = np.linalg.solve(gram + RIDGE * usable.sum() * np.eye(len(x)), x[:, usable] @ y.T)
            image = (base + slope.T @ x).astype(np.float32)
        return prediction(obs, image, known, series.source)
