"""Plain regression of the error of linear interpolation: the reference for accuracy claims.

One least-squares fit over the whole scene, with no care for what a mask misses. The library's `regress` is
windowed, knows more dates and survives such masks; this form lives here alone.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xr_cloudfree.models.classical.series import Series
from xr_cloudfree.models.protocol import Observations, Prediction
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
        known, base = series.known, series.image.astype(np.float64)
        linear = Prediction(
            series.image.reshape(obs.n_bands, *obs.shape), known.reshape(obs.shape), series.source.reshape(obs.shape)
        )
        usable = obs.clear[obs.target].ravel() & known if obs.target >= 0 else np.zeros_like(known)
        x = np.concatenate([base, series.change(), np.ones((1, base.shape[1]))])
        if usable.sum() <= len(x):
            return linear
        y = series.bands[obs.target][:, usable] - base[:, usable]
        gram = x[:, usable] @ x[:, usable].T
        slope = np.linalg.solve(gram + RIDGE * usable.sum() * np.eye(len(x)), x[:, usable] @ y.T)
        image = (base + slope.T @ x).astype(np.float32).reshape(linear.bands.shape)
        return Prediction(image, linear.known, linear.source)
