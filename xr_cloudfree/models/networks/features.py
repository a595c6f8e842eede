"""Per-tile features: candidate predictions and the evidence for each.

Two regressions are fitted to the target's own clear pixels, a linear one and one of trees. Held-out blocks of clear
pixels show how reliable each is on this date; the network decides where. Everything is NumPy, and the same in training
and inference.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical import conformal, robust_ridge, stacking
from xr_cloudfree.models.classical.regress import GroundFit, TargetFit, fit_target, hidden_pixels
from xr_cloudfree.models.classical.series import Series
from xr_cloudfree.models.kernels import extra_trees
from xr_cloudfree.models.networks.inputs import MAX_DATES, NetworkInput, prepare, used_dates
from xr_cloudfree.models.protocol import Observations

FEATURES_VERSION = 5
"""Version of the samples that training stores. Raise it with any change after which stored samples would differ: to
`compute_features`, `prepare` or what they call, or to how training draws and stores samples."""

CANDIDATES = ("stacked", "linear", "regress", "forest on the residual", "forest on the error")
HINTS = ("change across the gap", "spread residual", "spread of the trees")
SHARED = (
    "target clear",
    "trusted",
    "looks like ground",
    "distance to trusted",
    "distance to the gap",
    "days before",
    "days after",
    "seen before",
    "seen after",
    "clear dates",
    "clear share of the target",
    "fitted",
    "uncertainty known",
    "weight of the forest on the residual",
    "weight of the forest on the error",
)
# Logarithm of 1 + a distance in pixels that is 1 in `SHARED`.
DISTANCE_UNIT = 4.0
# Maximum and minimum number of samples of a forest, and the minimum weight of a pixel to be one.
SAMPLES, LEAST_SAMPLES, LEAST_WEIGHT = 4096, 40, 0.1
# Regularisation of the weights of the forests towards equal weights.
REGULARISATION = 0.02
# Reflectance: the minimum scale of a band's errors, and the uncertainty where it cannot be estimated.
LEAST_SCALE, UNKNOWN = 0.002, 0.05
# Edge, in pixels, of squares of held-out samples whose errors count as one.
GROUP = 16
# Pixels per unit of the coordinates among the features of a forest.
PIXELS = 10.0


def compute_features(obs: Observations, max_dates: int = MAX_DATES) -> NetworkInput:
    """Return the input of networks that start from the classical predictions.

    Parameters
    ----------
    obs : Observations
        A tile, in reflectance.
    max_dates : int
        Maximum number of dates; the nearest ones are used.

    Returns
    -------
    NetworkInput
        With these features, in addition to those of `prepare`: ``candidates`` (band, candidate, y, x) in reflectance,
        named in `CANDIDATES`; ``hints`` (band, hint, y, x) in reflectance, named in `HINTS`; ``uncertainty``
        (band, y, x) in reflectance, of `regress` where there is a fit, otherwise of linear interpolation; ``scale``
        (band,) in reflectance, the typical error in this tile; ``evidence`` (band, 3), the factor by which
        ``uncertainty`` has to be multiplied for the first candidate, by errors that this tile left out, the weight of
        this evidence, and a factor for all uncertainties by the number of dates behind them; ``shared`` (map, y, x),
        named in `SHARED`, about 0 to 1.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.protocol import Observations
    >>> from xr_cloudfree.models.networks.features import compute_features
    >>> bands = np.array([0.1, 0.2], np.float32).reshape(2, 1, 1, 1)
    >>> tile = compute_features(Observations(bands, np.ones((2, 1, 1), bool), np.array([-6.0, 2.0])))
    >>> tile.features["candidates"].round(3).ravel().tolist()[:2]
    [0.17499999701976776, 0.17499999701976776]
    """
    tile = prepare(obs, max_dates)
    used = with_used_dates(obs, max_dates)
    series = Series.of(used)
    shape, n_bands = obs.shape, obs.n_bands
    regression = fit_target(used, series)
    known, base, source = series.known, series.image, series.source
    spread = uncertainty = trees = np.zeros_like(base)
    shares = 0.0, 0.0
    if regression is None:
        base, source, evidence = stacking.interpolate(series, hidden_pixels(used))
        candidates = [base] * len(CANDIDATES)
        uncertainty = series.uncertainty()
    else:
        forests, (residual, error, trees) = _nonlinear(regression, shape, known & (tile.target_clear.ravel() == 0))
        shares, evidence = forests.shares, forests.evidence
        corrections = (regression.fitted + regression.spread, regression.fitted + residual, error)
        stacked = np.zeros_like(base)
        for share, correction in zip((1 - sum(shares), *shares), corrections, strict=True):
            stacked += np.float32(share) * correction
        candidates = [base + stacked, base, *(base + correction for correction in corrections)]
        spread, uncertainty = regression.spread, regression.uncertainty
    judged = np.asarray(np.isfinite(uncertainty).all(axis=0))
    uncertainty = np.where(judged, np.maximum(uncertainty, LEAST_SCALE), np.float32(UNKNOWN))
    scale = np.median(uncertainty[:, known], axis=1) if known.any() else np.full(n_bands, UNKNOWN)
    hints = np.stack([series.change, spread, trees], axis=1)

    def image(flat: NDArray[np.generic]) -> NDArray[np.float32]:
        return flat.reshape(*flat.shape[:-1], *shape).astype(np.float32)

    features = {
        "candidates": image(np.where(known, np.stack(candidates, axis=1), 0)),
        "hints": image(np.where(known, hints, 0)),
        "uncertainty": image(uncertainty),
        "scale": scale.astype(np.float32),
        "evidence": evidence.rows,
        "shared": image(_shared(tile, series, regression, judged, shares)),
    }
    return replace(tile, features=tile.features | features, source=among_others(source, used.target).reshape(shape))


def among_others(date: NDArray[np.int16], target: int) -> NDArray[np.int16]:
    """Convert indices of the series' dates to indices of a tile's dates, which lack the target's own."""
    return date if target < 0 else np.where(date > target, date - np.int16(1), date)


def with_used_dates(obs: Observations, max_dates: int) -> Observations:
    """Return the dates of a network's input and the target's own as observations; `obs` itself if these are all."""
    dates, target = dates_and_target(obs, max_dates)
    if not len(dates):
        empty = np.zeros((1, obs.n_bands, *obs.shape), np.float32)  # a series needs a date
        return Observations(empty, np.zeros((1, *obs.shape), bool), np.array([-1.0]), common_names=obs.common_names)
    if len(dates) == obs.n_dates:
        return obs
    return Observations(
        obs.bands[dates], obs.clear[dates], obs.day_offset[dates], target, common_names=obs.common_names
    )


def dates_and_target(obs: Observations, max_dates: int) -> tuple[NDArray[np.intp], int]:
    """Return the indices of the dates of a network's input and of the target's own, and its index among these or -1."""
    dates = used_dates(obs, max_dates)
    if obs.target < 0:
        return dates, -1
    dates = np.sort(np.append(dates, obs.target))
    return dates, int(np.searchsorted(dates, obs.target))


@dataclass(frozen=True, eq=False)
class GrownForests:
    """Forests that predict the residual of the regression, then the error of the linear interpolation, of each band.

    Parameters
    ----------
    forests : tuple of Forest
        One per fold of the fit, grown without that fold; none if there are too few samples.
    shares : tuple of float
        Weights of the predictions of residual and error beside the regression's own prediction.
    evidence : Evidence
        By the errors that the weighted sum leaves on held-out squares, relative to the regression's uncertainty.
    """

    forests: tuple[extra_trees.Forest, ...]
    shares: tuple[float, float]
    evidence: conformal.Evidence


def grow_forests(
    ground: GroundFit,
    shape: tuple[int, int],
    features: robust_ridge.Columns,
    error: robust_ridge.Columns,
    change: robust_ridge.Columns,
) -> GrownForests:
    """Grow one forest per fold without that fold, and weight their predictions by the held-out folds.

    Parameters
    ----------
    ground : GroundFit
        The regression.
    shape : tuple of int
        Rows and columns of the tile.
    features, error, change : callable
        As in `fit_ground`.
    """
    ridge = ground.fit
    errors, n_bands = error(ridge.pixels), len(ridge.level)
    weight = robust_ridge.tukey_weight((errors - ridge.fitted).astype(np.float64), ridge.scale).astype(np.float32)
    proved = np.flatnonzero((weight > LEAST_WEIGHT) & np.isfinite(ridge.held_out).all(axis=0))
    # The hash of `robust_ridge.thin` has selected the pixels of the fit and would select most of them again.
    kept = proved[np.linspace(0, len(proved) - 1, min(SAMPLES, len(proved))).astype(np.intp)]
    samples, left, weight = ridge.pixels[kept], ridge.held_out[:, kept].T, weight[kept]
    fold = robust_ridge.folds(samples, shape)
    sizes = np.bincount(fold, minlength=robust_ridge.FOLDS)
    if len(samples) < LEAST_SAMPLES or not sizes.all():
        return GrownForests((), (0.0, 0.0), conformal.no_evidence(n_bands))
    standard = ridge.standard(features(samples))
    seen = np.ascontiguousarray(np.concatenate([standard, places(shape)[:, samples]]).T, np.float32)
    values = np.concatenate([errors - ridge.fitted, errors])[:, kept].T
    held_out, forests = np.empty_like(values), []
    for k in range(robust_ridge.FOLDS):
        own = fold == k
        forests.append(extra_trees.grow(seen[~own], values[~own], weight[~own], seed=k))
        held_out[own] = forests[-1](seen[own])[0]
    of_residual = held_out[:, :n_bands]
    of_error = held_out[:, n_bands:] - (errors[:, kept].T - left)
    shares = _shares(left, of_residual, of_error, weight, ridge.scale)
    remaining = left - shares[0] * of_residual - shares[1] * of_error
    # The samples are trusted pixels themselves, where the factor for the distance to them is NEAR.
    uncertainty = np.maximum(ground.widths(np.abs(change(samples))), LEAST_SCALE)
    row, column = (place // GROUP for place in np.unravel_index(samples, shape))
    evidence = conformal.evidence(remaining.T, uncertainty, row * shape[1] + column)
    return GrownForests(tuple(forests), shares, evidence)


def places(shape: tuple[int, int]) -> NDArray[np.float32]:
    """Return the coordinates among the features of a forest, shape (2, pixel)."""
    return np.asarray(np.indices(shape).reshape(2, -1) / np.float32(PIXELS), np.float32)


def _nonlinear(
    regression: TargetFit, shape: tuple[int, int], where: NDArray[np.bool_]
) -> tuple[GrownForests, tuple[NDArray[np.float32], ...]]:
    """Grow the forests and average their predictions in `where`, which have the shape (band, pixel).

    They predict the regression's residual, the error of the linear interpolation, and the spread of the trees. Outside
    `where`, at the target's clear pixels, the predictions are the regression's own.
    """
    residual, error = regression.spread.copy(), regression.fitted + regression.spread
    spread = np.zeros_like(error)
    grown = grow_forests(
        regression.ground,
        shape,
        lambda pixels: regression.features[:, pixels],
        lambda pixels: regression.error[:, pixels],
        lambda pixels: regression.change[:, pixels],
    )
    requested, n_bands = np.flatnonzero(where), len(error)
    if not grown.forests or not len(requested):
        return grown, (residual, error, spread)
    of_place = places(shape)
    for start in range(0, len(requested), robust_ridge.SLAB):  # a copy of all features would be the largest array
        some = requested[start : start + robust_ridge.SLAB]
        standard = regression.ground.fit.standard(regression.features[:, some])
        new = np.ascontiguousarray(np.concatenate([standard, of_place[:, some]]).T, np.float32)
        answers, squares = (np.zeros((len(some), 2 * n_bands), np.float32) for _ in range(2))
        for forest in grown.forests:
            mean, deviation = forest(new)
            answers += mean / np.float32(robust_ridge.FOLDS)
            squares += np.square(deviation) / np.float32(robust_ridge.FOLDS)
        residual[:, some], error[:, some] = answers[:, :n_bands].T, answers[:, n_bands:].T
        spread[:, some] = np.sqrt(squares[:, :n_bands]).T
    return grown, (residual, error, spread)


def _shares(
    left: NDArray[np.float64],
    residual: NDArray[np.floating],
    error: NDArray[np.floating],
    weight: NDArray[np.float32],
    scale: NDArray[np.float64],
) -> tuple[float, float]:
    """Return the non-negative weights, with sum up to 1, of two predictions that best fit the regression's residual.

    Predictions and residual have shape (sample, band), from held-out samples; `weight` is (sample,), `scale` (band,).

    References
    ----------
    Wolpert 1992, Stacked generalization, doi 10.1016/S0893-6080(05)80023-1.
    """
    unit = np.sqrt(weight.astype(np.float64))[:, None] / scale
    answers = np.stack([(part * unit).ravel() for part in (residual, error)], axis=1)
    truth = (left * unit).ravel()
    gram, moment = robust_ridge.product(answers.T, answers), robust_ridge.product(answers.T, truth[:, None])[:, 0]
    # Regularised towards a third each, the best choice without evidence.
    pull = REGULARISATION * np.trace(gram) / 2 + 1e-12
    shares = stacking.nonnegative_weights(gram + pull * np.eye(2), moment + pull / 3)
    shares /= max(1.0, shares.sum())
    return float(shares[0]), float(shares[1])


def _shared(
    tile: NetworkInput,
    series: Series,
    regression: TargetFit | None,
    judged: NDArray[np.bool_],
    shares: tuple[float, float],
) -> NDArray[np.float32]:
    """Return the maps that all bands share, shape (map, pixel); see `SHARED`."""
    seen = tile.target_clear.ravel() > 0
    nothing = np.zeros(seen.size)

    def days(date: NDArray[np.int16]) -> NDArray[np.float64]:
        if not len(tile.day_offset):
            return nothing
        return np.where(date >= 0, np.log1p(np.abs(series.days[date])) / 5.0, 0.0)

    ground = None if regression is None else regression.ground
    return np.stack(
        [
            seen,
            nothing > 0 if ground is None else ground.trust,
            nothing if regression is None else regression.weight,
            *distances(seen, series.shape, ground),
            days(series.before),
            days(series.after),
            series.before >= 0,
            series.after >= 0,
            np.log1p(series.clear.sum(axis=0)) / 4.0,
            nothing + seen.mean(),
            nothing + (regression is not None),
            judged,
            *(nothing + share for share in shares),
        ]
    ).astype(np.float32)


def distances(
    seen: NDArray[np.bool_], shape: tuple[int, int], ground: GroundFit | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the distances to the nearest trusted pixel and to the gap, scaled to about 0 to 1; shape (pixel,)."""
    from scipy.ndimage import distance_transform_edt

    far = np.ones(seen.size)
    if ground is not None:
        return np.log1p(ground.to_trusted) / DISTANCE_UNIT, np.log1p(ground.to_gap) / DISTANCE_UNIT
    if seen.all():
        return far, far
    return far, np.log1p(distance_transform_edt(seen.reshape(shape)).ravel()) / DISTANCE_UNIT
