"""Linear in time, corrected by what the target's own clear pixels say of its error; without them, see `temporal`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical import robust_ridge, stacking
from xr_cloudfree.models.classical.series import Series, local_uncertainty
from xr_cloudfree.models.protocol import Observations, Prediction
from xr_cloudfree.models.spec import ModelSpec

# Rings of pixels beside the gap that are not trusted before they were looked at: as many as leave a good
# core, and no fewer than a cloud's rim is wide.
RIMS = (8, 7, 6, 5, 4)
GOOD_CORE = 200
# Least number of clear pixels for a fit.
LEAST_CORE = 40
# Standard deviations, in pixels, of the kernels that spread residuals into the gap, from the coarsest.
SPREADS = (16.0, 4.0, 1.5)
# Weight with which a residual of zero takes part, so that a few far pixels decide little.
SHRINK = 0.05
# Errors grow with the distance to the pixels that were learned from: this factor beside them, and its growth
# with the logarithm of the pixels between. Found on hidden pixels of real frames.
NEAR, GROWTH = 0.85, 0.2


class Regress:
    """Linear in time, plus a robust regression of its error on the target's clear pixels; without them, other dates.

    Features are the linear prediction, the change across the gap, the neighbourhood, and the dates near the
    target. The rim of the mask is used only where it looks like ground. What the fit leaves at trusted
    pixels is spread into the gap. Where the target has too few clear pixels, or none that look like ground,
    ways to tell it from the other dates alone are weighed by how well they tell these dates from each other.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.protocol import Observations
    >>> from xr_cloudfree.models.classical.regress import Regress
    >>> bands = np.array([0.1, 0.2], np.float32).reshape(2, 1, 1, 1)
    >>> obs = Observations(bands, np.ones((2, 1, 1), bool), np.array([-6.0, 2.0]))
    >>> round(Regress().predict([obs])[0].bands.item(), 3)
    0.175
    """

    spec = ModelSpec(
        "regress",
        "linear, corrected by a robust fit on the target's clear pixels; without them, weighed ways to interpolate",
        units="reflectance",
        tile=256,
        stride=128,
        taper=True,
        layers=("source_time", "uncertainty"),
    )

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """One prediction per tile; what lies at the target's own clear pixels is of no use."""
        return [_predict(obs) for obs in tiles]


def _predict(obs: Observations) -> Prediction:
    series = Series.of(obs)
    linear = series.linear
    found = fit_target(obs, series)
    if found is None:
        image, source = stacking.interpolate(series, unseen(obs))
        uncertainty = series.uncertainty().reshape(linear.bands.shape)
        return Prediction(image.reshape(linear.bands.shape), linear.known, source.reshape(obs.shape), uncertainty)
    correction = np.where(linear.known.ravel(), found.fitted + found.spread, np.float32(0))
    return Prediction(
        linear.bands + correction.reshape(linear.bands.shape),
        linear.known,
        linear.source,
        found.uncertainty.reshape(linear.bands.shape),
    )


def unseen(obs: Observations) -> NDArray[np.bool_]:
    """Pixels that the target date does not show, shape (pixel,)."""
    return np.ones(obs.clear[0].size, bool) if obs.target < 0 else ~obs.clear[obs.target].ravel()


@dataclass(frozen=True, eq=False)
class TargetFit:
    """What the target's own clear pixels teach; pixels are on one axis.

    Parameters
    ----------
    features : ndarray of float32, shape (feature, pixel)
        What is known at every pixel.
    fit : RidgeFit
        The regression; it standardises the features.
    error : ndarray of float32, shape (band, pixel)
        Observed less the linear prediction; 0 where the target is not clear.
    fitted : ndarray of float32, shape (band, pixel)
        What the regression says of the error.
    spread : ndarray of float32, shape (band, pixel)
        What its residuals at trusted pixels say of their surroundings.
    trust : ndarray of bool, shape (pixel,)
        Clear pixels that look like ground, rings beside the gap included.
    weight : ndarray of float64, shape (pixel,)
        How far a trusted pixel's residual looks like ground, in [0, 1].
    uncertainty : ndarray of float32, shape (band, pixel)
        Of the linear prediction with both corrections.
    """

    features: NDArray[np.float32]
    fit: robust_ridge.RidgeFit
    error: NDArray[np.float32]
    fitted: NDArray[np.float32]
    spread: NDArray[np.float32]
    trust: NDArray[np.bool_]
    weight: NDArray[np.float64]
    uncertainty: NDArray[np.float32]


def fit_target(obs: Observations, series: Series) -> TargetFit | None:
    """Learn from the target's clear pixels how far the linear prediction is off.

    Parameters
    ----------
    obs : Observations
        The tile.
    series : Series
        Its other dates.

    Returns
    -------
    TargetFit or None
        None if there is nothing to learn from, or nothing to predict.
    """
    from scipy.ndimage import distance_transform_edt

    if obs.target < 0:
        return None
    seen, known = obs.clear[obs.target].ravel(), series.linear.known.ravel()
    usable = seen & known
    if usable.sum() < LEAST_CORE or not (known & ~seen).any():
        return None
    base = series.linear.bands.reshape(obs.n_bands, -1)
    error = np.where(usable, series.bands[obs.target] - base, np.float32(0))
    distance = distance_transform_edt(seen.reshape(obs.shape)).ravel()
    rim = next((rim for rim in RIMS if (usable & (distance > rim)).sum() >= GOOD_CORE), RIMS[-1])
    core = usable & (distance > rim)
    if core.sum() < LEAST_CORE:
        if not _ground_to_the_edge(error, usable, distance):
            return None
        core = usable

    features = series.features()
    found = robust_ridge.fit(features, error, core, obs.shape)
    left = (error - found(features)).mean(axis=0).astype(np.float64)
    trust = robust_ridge.trusted(left, usable, core, distance, rim)
    if (trust & ~core).any():
        found = robust_ridge.fit(features, error, trust, obs.shape)
    fitted = found(features)
    residual = (error - fitted).astype(np.float64)
    weight = np.where(trust, robust_ridge.tukey_weight(residual, found.scale), 0.0)
    spread = _spread(residual, weight, obs.shape)
    uncertainty = local_uncertainty(series.change(), found.pixels, found.held_out)
    away = distance_transform_edt(~trust.reshape(obs.shape)).ravel()
    uncertainty *= (NEAR + GROWTH * np.log1p(away)).astype(np.float32)
    return TargetFit(features, found, error, fitted, spread, trust, weight, uncertainty)


def _ground_to_the_edge(error: NDArray[np.float32], usable: NDArray[np.bool_], distance: NDArray[np.float64]) -> bool:
    """Whether clear parts too narrow to have a core are as bright beside the gap as within."""
    inner = usable & (distance > 1)
    if inner.sum() < LEAST_CORE:
        return False
    return bool(robust_ridge.trusted(error.mean(axis=0).astype(np.float64), usable, inner, distance, 1)[usable].all())


def _spread(residual: NDArray[np.float64], weight: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Residuals at trusted pixels, spread over the window by normalised convolution from coarse to fine.

    References
    ----------
    Knutsson and Westin 1993, Normalized and differential convolution, doi 10.1109/CVPR.1993.341081.
    """
    from scipy.ndimage import gaussian_filter

    def smooth(image: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
        return np.asarray(gaussian_filter(image.reshape(shape), sigma, truncate=3.0, mode="constant")).ravel()

    estimate = np.zeros_like(residual)
    for sigma in SPREADS:
        total = smooth(weight, sigma) + SHRINK
        for band in range(len(residual)):
            estimate[band] += smooth(weight * (residual[band] - estimate[band]), sigma) / total
    return estimate.astype(np.float32)
