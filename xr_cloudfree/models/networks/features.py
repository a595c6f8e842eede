"""What is found out about a tile before a network sees it: candidates for the answer, and what speaks for each.

The target's own clear pixels are the best teacher that a tile has. Two regressions learn from them, one linear and one
of trees. Blocks of clear pixels that are held out in turn tell how far each is to be believed on this date; a network
decides where. All of it is NumPy, and the same when training.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical import robust_ridge, stacking
from xr_cloudfree.models.classical.regress import TargetFit, fit_target, hidden_pixels
from xr_cloudfree.models.classical.series import Series
from xr_cloudfree.models.kernels import extra_trees
from xr_cloudfree.models.networks.inputs import MAX_DATES, NetworkInput, prepare
from xr_cloudfree.models.protocol import Observations

FEATURES_VERSION = 1
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
# Samples that a forest is grown on, at most and at least, and the weight that a pixel needs to be one.
SAMPLES, LEAST_SAMPLES, LEAST_WEIGHT = 4096, 40, 0.1
# How strongly the weights of the forests are drawn to what is right where nothing tells.
REGULARISATION = 0.02
# Reflectance: the least scale of a band's errors, and the uncertainty where nothing tells it.
LEAST_SCALE, UNKNOWN = 0.002, 0.05
# Pixels over which one step of a coordinate is as large as a spread of the other features.
PIXELS = 10.0


def compute_features(obs: Observations, max_dates: int = MAX_DATES) -> NetworkInput:
    """What a network that starts from the classical answers is given of a tile.

    Parameters
    ----------
    obs : Observations
        A tile, in reflectance.
    max_dates : int
        Dates to use at most; the nearest ones.

    Returns
    -------
    NetworkInput
        With these features: ``candidates`` (band, candidate, y, x) in reflectance, as `CANDIDATES` names them;
        ``hints`` (band, hint, y, x) in reflectance, as in `HINTS`; ``uncertainty`` (band, y, x) in reflectance, of
        `regress` where there is a fit, else of linear interpolation; ``scale`` (band,), the size of errors in this
        tile; ``shared`` (map, y, x), as in `SHARED`, about 0 to 1. Beside them those that `prepare` made.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.protocol import Observations
    >>> from xr_cloudfree.models.networks.features import compute_features
    >>> bands = np.array([0.1, 0.2], np.float32).reshape(2, 1, 1, 1)
    >>> made = compute_features(Observations(bands, np.ones((2, 1, 1), bool), np.array([-6.0, 2.0])))
    >>> made.features["candidates"].round(3).ravel().tolist()[:2]
    [0.17499999701976776, 0.17499999701976776]
    """
    tile = prepare(obs, max_dates)
    given = _given(tile, obs)
    series = Series.of(given)
    shape, n_bands = obs.shape, obs.n_bands
    found = fit_target(given, series)
    known, base, source = series.known, series.image, series.source
    spread = uncertainty = trees = np.zeros_like(base)
    shares = 0.0, 0.0
    if found is None:
        base, source = stacking.interpolate(series, hidden_pixels(given))
        candidates = [base] * len(CANDIDATES)
        uncertainty = series.uncertainty()
    else:
        told = _forests(found, shape, known & (tile.target_clear.ravel() == 0))
        trees, shares = told.spread, told.shares
        corrections = (found.fitted + found.spread, found.fitted + told.residual, told.error)
        stacked = np.zeros_like(base)
        for share, correction in zip((1 - sum(shares), *shares), corrections, strict=True):
            stacked += np.float32(share) * correction
        candidates = [base + stacked, base, *(base + correction for correction in corrections)]
        spread, uncertainty = found.spread, found.uncertainty
    judged = np.asarray(np.isfinite(uncertainty).all(axis=0))
    uncertainty = np.where(judged, np.maximum(uncertainty, LEAST_SCALE), np.float32(UNKNOWN))
    scale = np.median(uncertainty[:, known], axis=1) if known.any() else np.full(n_bands, UNKNOWN)
    hints = np.stack([series.change(), spread, trees], axis=1)

    def image(flat: NDArray[np.generic]) -> NDArray[np.float32]:
        return flat.reshape(*flat.shape[:-1], *shape).astype(np.float32)

    features = {
        "candidates": image(np.where(known, np.stack(candidates, axis=1), 0)),
        "hints": image(np.where(known, hints, 0)),
        "uncertainty": image(uncertainty),
        "scale": scale.astype(np.float32),
        "shared": image(_shared(tile, series, found, judged, shares)),
    }
    return replace(tile, features=tile.features | features, source=_among_others(source, given.target).reshape(shape))


def _among_others(date: NDArray[np.int16], target: int) -> NDArray[np.int16]:
    """Dates of the series as dates of a tile, among which the target's own is not."""
    return date if target < 0 else np.where(date > target, date - np.int16(1), date)


def _given(tile: NetworkInput, obs: Observations) -> Observations:
    """The prepared tile as observations: only the dates that count, the target among them."""
    if obs.target < 0 and not len(tile.day_offset):
        nothing = np.zeros((1, obs.n_bands, *obs.shape), np.float32)  # without any date there is no series
        return Observations(nothing, np.zeros((1, *obs.shape), bool), np.array([-1.0]), common_names=obs.common_names)
    if obs.target < 0:
        return Observations(
            tile.bands, tile.clear[:, 0] > 0, tile.day_offset.astype(np.float64), common_names=obs.common_names
        )
    at = int(np.searchsorted(tile.day_offset, 0.0, side="right"))
    return Observations(
        np.insert(tile.bands, at, tile.target, axis=0),
        np.insert(tile.clear[:, 0] > 0, at, tile.target_clear[0] > 0, axis=0),
        np.insert(tile.day_offset.astype(np.float64), at, 0.0),
        at,
        common_names=obs.common_names,
    )


@dataclass(frozen=True, eq=False)
class ForestOutput:
    """What trees say, each of shape (band, pixel), and how far to believe them.

    `residual` is what they say of the regression's residual, `error` of the linear prediction's error, `spread` how far
    they disagree. `shares` are the weights of both beside the regression's own answer.
    """

    residual: NDArray[np.float32]
    error: NDArray[np.float32]
    spread: NDArray[np.float32]
    shares: tuple[float, float] = (0.0, 0.0)


def _forests(found: TargetFit, shape: tuple[int, int], asked: NDArray[np.bool_]) -> ForestOutput:
    """Grow a forest without each fold in turn: all of them answer, and each is judged by what it did not see.

    Where nobody asks, that is at the target's clear pixels, the regression's answer stands for theirs.
    """
    told = ForestOutput(found.spread.copy(), found.fitted + found.spread, np.zeros_like(found.error))
    proved = (found.weight[found.fit.pixels] > LEAST_WEIGHT) & np.isfinite(found.fit.held_out).all(axis=0)
    kept = np.isin(found.fit.pixels, robust_ridge.thin(found.fit.pixels[proved], shape, SAMPLES))
    samples, left = found.fit.pixels[kept], found.fit.held_out[:, kept].T
    fold, where = robust_ridge.folds(samples, shape), np.flatnonzero(asked)
    sizes = np.bincount(fold, minlength=robust_ridge.FOLDS)
    if len(samples) < LEAST_SAMPLES or not sizes.all() or not len(where):
        return told
    places = np.indices(shape).reshape(2, -1) / np.float32(PIXELS)

    def features(pixels: NDArray[np.intp]) -> NDArray[np.float32]:
        standard = found.fit.standard(found.features[:, pixels])
        return np.ascontiguousarray(np.concatenate([standard, places[:, pixels]]).T, np.float32)

    seen, new = features(samples), features(where)
    values = np.concatenate([found.error - found.fitted, found.error])[:, samples].T
    weight = found.weight[samples].astype(np.float32)
    held_out = np.empty_like(values)
    answers, squares = (np.zeros((len(where), values.shape[1]), np.float32) for _ in range(2))
    for k in range(robust_ridge.FOLDS):
        own = fold == k
        grown = extra_trees.grow(seen[~own], values[~own], weight[~own], seed=k)
        held_out[own] = grown(seen[own])[0]
        mean, spread = grown(new)
        answers += mean / np.float32(robust_ridge.FOLDS)
        squares += np.square(spread) / np.float32(robust_ridge.FOLDS)
    n_bands = len(found.error)
    told.residual[:, where], told.error[:, where] = answers[:, :n_bands].T, answers[:, n_bands:].T
    told.spread[:, where] = np.sqrt(squares[:, :n_bands]).T
    regressed = found.error[:, samples].T - left
    shares = _shares(left, held_out[:, :n_bands], held_out[:, n_bands:] - regressed, weight, found.fit.scale)
    return replace(told, shares=shares)


def _shares(
    left: NDArray[np.float64],
    residual: NDArray[np.floating],
    error: NDArray[np.floating],
    weight: NDArray[np.float32],
    scale: NDArray[np.float64],
) -> tuple[float, float]:
    """Weights, at least 0 and 1 at most in sum, with which two answers say best what the regression leaves.

    All of shape (sample, band), from samples that were held out; `weight` is (sample,), `scale` is (band,).

    References
    ----------
    Wolpert 1992, Stacked generalization, doi 10.1016/S0893-6080(05)80023-1.
    """
    unit = np.sqrt(weight.astype(np.float64))[:, None] / scale
    answers = np.stack([(part * unit).ravel() for part in (residual, error)], axis=1)
    truth = (left * unit).ravel()
    gram, moment = robust_ridge.product(answers.T, answers), robust_ridge.product(answers.T, truth[:, None])[:, 0]
    # A little is drawn towards a third each, which is what is right where nothing tells.
    pull = REGULARISATION * np.trace(gram) / 2 + 1e-12
    shares = stacking.nonnegative_weights(gram + pull * np.eye(2), moment + pull / 3)
    shares /= max(1.0, shares.sum())
    return float(shares[0]), float(shares[1])


def _shared(
    tile: NetworkInput,
    series: Series,
    found: TargetFit | None,
    judged: NDArray[np.bool_],
    shares: tuple[float, float],
) -> NDArray[np.float32]:
    """Maps that all bands share, shape (map, pixel); see `SHARED`."""
    from scipy.ndimage import distance_transform_edt

    shape = tile.target.shape[1:]
    seen = tile.target_clear.ravel() > 0
    nothing = np.zeros(seen.size)
    trust = nothing > 0 if found is None else found.trust

    def distance(where: NDArray[np.bool_]) -> NDArray[np.float64]:
        """Pixels to the nearest that is False, as a number of about 0 to 1."""
        if where.all():
            return np.ones(where.size)
        return np.asarray(np.log1p(distance_transform_edt(where.reshape(shape)).ravel()) / 4.0)

    def days(date: NDArray[np.int16]) -> NDArray[np.float64]:
        if not len(tile.day_offset):
            return nothing
        return np.where(date >= 0, np.log1p(np.abs(series.days[date])) / 5.0, 0.0)

    return np.stack(
        [
            seen,
            trust,
            nothing if found is None else found.weight,
            distance(~trust),
            distance(seen),
            days(series.before),
            days(series.after),
            series.before >= 0,
            series.after >= 0,
            np.log1p(series.clear.sum(axis=0)) / 4.0,
            nothing + seen.mean(),
            nothing + (found is not None),
            judged,
            *(nothing + share for share in shares),
        ]
    ).astype(np.float32)
