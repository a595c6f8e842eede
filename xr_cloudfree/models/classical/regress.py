"""Linear interpolation in time plus a robust regression fitted to the target's clear pixels.

Without enough clear pixels on the target date, the other dates are combined by `stacking`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical import conformal, robust_ridge, stacking
from xr_cloudfree.models.classical.series import Series
from xr_cloudfree.models.protocol import Observations, Prediction, prediction
from xr_cloudfree.models.spec import ModelSpec

# Width, in pixels, of the rim beside the gap that the first fit leaves out, since masks miss the edges of clouds: the
# widest that leaves a core of at least GOOD_CORE pixels, else the narrowest.
RIMS = (8, 7, 6, 5, 4)
GOOD_CORE = 200
# Minimum number of clear pixels for a fit.
LEAST_CORE = 40
# Standard deviations, in pixels, of the kernels that spread residuals into the gap, from coarse to fine. Those of at
# least COARSE times DECIMATION pixels are applied to means of DECIMATION x DECIMATION pixels.
SPREADS, DECIMATION, COARSE = (16.0, 4.0, 1.5), 4, 4
# The kernels end at so many standard deviations.
SPREAD_TRUNCATE = 3.0
# Weight of a residual of zero in each average, so that a few distant pixels have little influence.
SHRINK = 0.05
# Factor on the uncertainty beside the pixels of the fit, and its growth with the logarithm of the distance in pixels;
# tuned on hidden pixels of real frames.
NEAR, GROWTH = 0.85, 0.2
# Number of groups in which local errors are measured, and minimum number of samples for more than one group.
GROUPS, LEAST_GROUPED = 4, 160


class Regress:
    """Linear interpolation in time plus a robust regression of its error, fitted to the target's clear pixels.

    Features are the linear prediction, the change across the gap, the neighbourhood, and the dates near the target. The
    rim of the mask is used only where it looks like ground. Residuals at trusted pixels are spread into the gap. Where
    the target has too few clear pixels, or none that look like ground, temporal interpolators are stacked with weights
    from their leave-one-date-out errors (see `stacking`).

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
        tile=384,
        stride=320,
        taper=True,
        layers=("source_time", "uncertainty"),
    )

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """Return one prediction per tile; the values at the target's own clear pixels are not meant to be used."""
        return [_predict(obs) for obs in tiles]


def _predict(obs: Observations) -> Prediction:
    series = Series.of(obs)
    target = fit_target(obs, series)
    if target is None:
        image, source, evidence = stacking.interpolate(series, hidden_pixels(obs))
        uncertainty = series.uncertainty() * evidence.shrunk[:, None]
        return prediction(obs, image, series.known, source, uncertainty)
    correction = np.where(series.known, target.fitted + target.spread, np.float32(0))
    return prediction(obs, series.image + correction, series.known, series.source, target.uncertainty)


def hidden_pixels(obs: Observations) -> NDArray[np.bool_]:
    """Return True where the target date is not clear, shape (pixel,)."""
    return np.ones(obs.clear[0].size, bool) if obs.target < 0 else ~obs.clear[obs.target].ravel()


@dataclass(frozen=True, eq=False)
class GroundFit:
    """A regression fitted to those of the target's own clear pixels that look like ground; pixels are on one axis.

    Parameters
    ----------
    fit : RidgeFit
        The regression of the error of the linear prediction; it standardises the features.
    trust : ndarray of bool, shape (pixel,)
        Clear pixels that look like ground, rings beside the gap included.
    to_trusted, to_gap : ndarray of float64, shape (pixel,)
        Distance in pixels to the nearest trusted one, and to the nearest one that is not clear.
    widths : Widths
        Uncertainty beside the pixels of the fit, by the size of the change across the gap.
    """

    fit: robust_ridge.RidgeFit
    trust: NDArray[np.bool_]
    to_trusted: NDArray[np.float64]
    to_gap: NDArray[np.float64]
    widths: conformal.Widths


@dataclass(frozen=True, eq=False)
class TargetFit:
    """A regression fitted to the target's own clear pixels, for the pixels of the window; they are on one axis.

    Parameters
    ----------
    ground : GroundFit
        The regression.
    features : ndarray of float32, shape (feature, pixel)
        Features of every pixel.
    error : ndarray of float32, shape (band, pixel)
        Observed minus linear prediction; 0 where the target is not clear.
    change : ndarray of float32, shape (band, pixel)
        Change across the gap.
    fitted : ndarray of float32, shape (band, pixel)
        The error as predicted by the regression.
    spread : ndarray of float32, shape (band, pixel)
        Residuals of the regression at trusted pixels, spread over the window.
    weight : ndarray of float64, shape (pixel,)
        Robust weight of a trusted pixel's residual, in [0, 1]; 0 elsewhere.
    uncertainty : ndarray of float32, shape (band, pixel)
        Uncertainty of the linear prediction with both corrections.
    """

    ground: GroundFit
    features: NDArray[np.float32]
    error: NDArray[np.float32]
    change: NDArray[np.float32]
    fitted: NDArray[np.float32]
    spread: NDArray[np.float32]
    weight: NDArray[np.float64]
    uncertainty: NDArray[np.float32]


def fit_target(obs: Observations, series: Series) -> TargetFit | None:
    """Fit the error of the linear prediction to the target's clear pixels.

    Parameters
    ----------
    obs : Observations
        The tile.
    series : Series
        Its other dates.

    Returns
    -------
    TargetFit or None
        None if there are too few trustworthy clear pixels, or no pixel to predict.
    """
    if obs.target < 0:
        return None
    seen = obs.clear[obs.target].ravel()
    error = np.where(seen & series.known, series.bands[obs.target] - series.image, np.float32(0))
    features = cache(series.features)  # most of the time of a tile without a fit
    ground = fit_ground(
        seen,
        series.known,
        obs.shape,
        lambda pixels: features()[:, pixels],
        lambda pixels: error[:, pixels],
        lambda pixels: series.change[:, pixels],
    )
    if ground is None:
        return None
    fitted = ground.fit(features())
    residual = (error - fitted).astype(np.float64)
    weight = np.where(ground.trust, robust_ridge.tukey_weight(residual, ground.fit.scale), 0.0)
    spread = _spread(residual, weight, obs.shape)
    uncertainty = ground.widths(np.abs(series.change))
    uncertainty *= (NEAR + GROWTH * np.log1p(ground.to_trusted)).astype(np.float32)
    return TargetFit(ground, features(), error, series.change, fitted, spread, weight, uncertainty)


def fit_ground(
    seen: NDArray[np.bool_],
    known: NDArray[np.bool_],
    shape: tuple[int, int],
    features: robust_ridge.Columns,
    error: robust_ridge.Columns,
    change: robust_ridge.Columns,
) -> GroundFit | None:
    """Fit the error of the linear prediction to the target's clear pixels; the values of others are not needed.

    Parameters
    ----------
    seen : ndarray of bool, shape (pixel,)
        Where the target is clear.
    known : ndarray of bool, shape (pixel,)
        Where another date is clear.
    shape : tuple of int
        Rows and columns of the window.
    features, error, change : callable
        Return, for indices of clear pixels, their features, of shape (feature, n), and the error of the linear
        prediction and the change across the gap, of shape (band, n).

    Returns
    -------
    GroundFit or None
        None if there are too few trustworthy clear pixels, or no pixel to predict.
    """
    from scipy.ndimage import distance_transform_edt

    usable = seen & known
    if usable.sum() < LEAST_CORE or not (known & ~seen).any():
        return None
    distance = distance_transform_edt(seen.reshape(shape)).ravel()
    rim = next((rim for rim in RIMS if (usable & (distance > rim)).sum() >= GOOD_CORE), RIMS[-1])
    core = usable & (distance > rim)
    if core.sum() < LEAST_CORE:
        if not _is_ground_to_the_edge(error, usable, distance):
            return None
        core = usable

    fit = robust_ridge.fit(features, error, core, shape, robust_ridge.MAX_ROUGH)
    # Only the sample of the core and the rings beside the gap are judged.
    judged = np.union1d(fit.pixels, np.flatnonzero(usable & (distance <= rim)))
    brightness = np.full(seen.size, np.nan)
    brightness[judged] = (error(judged) - fit(features(judged))).mean(axis=0)
    trust = robust_ridge.trusted_pixels(brightness, usable, core, distance, rim)
    if len(fit.pixels) < trust.sum():
        fit = robust_ridge.fit(features, error, trust, shape)
    to_trusted = distance_transform_edt(~trust.reshape(shape)).ravel()
    widths = conformal.Widths.of(np.abs(change(fit.pixels)), np.abs(fit.held_out), GROUPS, LEAST_GROUPED)
    return GroundFit(fit, trust, to_trusted, distance, widths)


def _is_ground_to_the_edge(
    error: robust_ridge.Columns, usable: NDArray[np.bool_], distance: NDArray[np.float64]
) -> bool:
    """Return whether clear parts too narrow to have a core are as bright beside the gap as further inside."""
    inner = usable & (distance > 1)
    if inner.sum() < LEAST_CORE:
        return False
    brightness = np.full(usable.size, np.nan)
    brightness[usable] = error(np.flatnonzero(usable)).mean(axis=0)
    return bool(robust_ridge.trusted_pixels(brightness, usable, inner, distance, 1)[usable].all())


def _spread(residual: NDArray[np.float64], weight: NDArray[np.float64], shape: tuple[int, int]) -> NDArray[np.float32]:
    """Spread residuals at trusted pixels over the window by normalised convolution, from coarse to fine.

    References
    ----------
    Knutsson and Westin 1993, Normalized and differential convolution, doi 10.1109/CVPR.1993.341081.
    """
    from scipy.ndimage import gaussian_filter

    residuals, weights = residual.reshape(-1, *shape).astype(np.float32), weight.reshape(shape).astype(np.float32)
    estimate = np.zeros_like(residuals)
    for sigma in SPREADS:
        # The weights are the last map.
        maps = np.concatenate([weights * (residuals - estimate), weights[None]])
        step = DECIMATION if sigma >= COARSE * DECIMATION else 1
        if step > 1:
            maps = _block_means(maps, step)
        width = sigma / step
        maps = gaussian_filter(maps, (0.0, width, width), truncate=SPREAD_TRUNCATE, mode="constant")
        spread = maps[:-1] / (maps[-1] + np.float32(SHRINK))
        estimate += spread if step == 1 else _interpolate(spread, step, shape)
    return estimate.reshape(residual.shape)


def _block_means(maps: NDArray[np.float32], step: int) -> NDArray[np.float32]:
    """Return the means over squares of `step` x `step` pixels, shape (map, y, x); beyond the edge there are zeros."""
    y, x = (-(-n // step) for n in maps.shape[1:])
    padded = np.zeros((len(maps), y * step, x * step), np.float32)
    padded[:, : maps.shape[1], : maps.shape[2]] = maps
    return np.asarray(padded.reshape(len(maps), y, step, x, step).mean(axis=(2, 4)))


def _interpolate(maps: NDArray[np.float32], step: int, shape: tuple[int, int]) -> NDArray[np.float32]:
    """Interpolate means over squares of `step` x `step` pixels linearly to pixels; the inverse of `_block_means`."""
    for axis, size in enumerate(shape, start=1):
        place = np.clip((np.arange(size) + 0.5) / step - 0.5, 0, maps.shape[axis] - 1)
        first = np.minimum(place.astype(np.intp), maps.shape[axis] - 1)
        second = np.minimum(first + 1, maps.shape[axis] - 1)
        part = (place - first).astype(np.float32).reshape(-1, *[1] * (2 - axis))
        start = maps.take(first, axis)
        maps = start + part * (maps.take(second, axis) - start)
    return maps
