"""Estimate a date by stacking temporal interpolators, weighted by their leave-one-date-out error.

It serves target dates without usable observations of their own. Each of the other clear dates is left out in turn and
predicted from the rest; the errors show how fast this place changes, how noisy single dates are, and whether it repeats
every year. The mean of the tile, which varies with illumination and atmosphere, and the deviations from it get separate
weights.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical import conformal, robust_ridge
from xr_cloudfree.models.classical.pixelwise import DAYS_PER_YEAR, linear_weights
from xr_cloudfree.models.classical.series import UNSEEN, Series
from xr_cloudfree.models.kernels import dispatch as kernels
from xr_cloudfree.models.protocol import Observations

# Linear interpolation, the nearest date, the mean of the two nearest on each side, and weighted means of all dates,
# with weights that decay with the distance in time, and with the distance in the season of any year.
INTERPOLATORS = ("linear", "nearest", "four", "decay", "season")
# Days over which weights decay by a factor e: of "decay"; of "season", within the year and over the years.
DECAY, SEASON, YEARS = 15.0, 15.0, 1500.0
# Maximum number of dates that are left out in turn, and minimum number for weights to be fitted.
HELD_OUT_DATES, LEAST_HELD_OUT = 16, 5
# A date that is left out needs this clear share and number of the sampled pixels; number of sampled pixels.
LEAST_SHARE, LEAST_PIXELS, SAMPLE = 0.3, 50, 1024
# Number of dates whose errors give the uncertainty of linear interpolation: one on either side of the target.
JUDGED = 2
# Clear share that a date needs to count as one of the target's nearest.
LEAST_CLEAR = 0.2
# Observations within so many days are from one pass: they share their errors, so they are left out together.
SAME_PASS = 0.5
# Strength of the regularisation towards linear interpolation, in held-out dates.
REGULARISATION = 0.5
# Weights of dates below this fraction of the largest are neglected.
NEGLIGIBLE = 1e-4
# Penalty on the deviation of the sum of weights from 1, for errors of about 1.
SUM_PENALTY = 1e3


def interpolate(
    series: Series, requested: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int16], conformal.Evidence]:
    """Estimate the image of the target date from the other dates alone.

    Parameters
    ----------
    series : Series
        The other dates of a tile.
    requested : ndarray of bool, shape (pixel,)
        Pixels that are to be estimated.

    Returns
    -------
    image : ndarray of float32, shape (band, pixel)
        Reflectance, 0 where no date is clear. Linear interpolation if no pixel is requested, or if fewer than
        `LEAST_HELD_OUT` dates can be left out.
    source : ndarray of int16, shape (pixel,)
        The date that certainly has a weight of at least one half, else -1. In the tile's mean a date is taken to have
        the weight that it has at the pixel.
    evidence : Evidence
        Factor on `Series.uncertainty`, by the errors of the left-out dates, without weight if there are too few; and
        its widening by the number of dates with such an uncertainty of their own.

    References
    ----------
    Wolpert 1992, Stacked generalization, doi 10.1016/S0893-6080(05)80023-1.
    """
    known = series.known
    if not (requested & known).any():
        return series.image, series.source, conformal.no_evidence(len(series.image))
    left_out = _leave_out(series)
    weights = _fit_weights(left_out)
    evidence = _evidence(weights, left_out, len(series.image))
    used = [i for i in range(1, len(INTERPOLATORS)) if weights[:, i].any()]
    if not used:
        return series.image, series.source, evidence
    changes = _predict(series, used) - series.image
    mean = changes[..., known].mean(axis=2)[..., None]
    of_mean, of_deviation = (part[used, None, None].astype(np.float32) for part in weights)
    change = (of_mean * mean + of_deviation * (changes - mean)).sum(axis=0)
    # A lower bound: "four", "decay" and "season" may give the date some weight, too.
    least = (weights[:, :1] * _nearer_weight(series) + weights[:, 1:2]).min(axis=0)
    image = np.where(known, series.image + change, np.float32(0))
    return image, np.where(least >= 0.5, series.source, np.int16(-1)), evidence


def nonnegative_weights(gram: NDArray[np.float64], moment: NDArray[np.float64]) -> NDArray[np.float64]:
    """Minimise ``w @ gram @ w - 2 * moment @ w`` over weights w of at least 0.

    Parameters
    ----------
    gram : ndarray of float64, shape (n, n)
        Positive definite matrix of mean products.
    moment : ndarray of float64, shape (n,)
        Mean products with what is to be explained.

    Returns
    -------
    ndarray of float64, shape (n,)
        The weights.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.classical.stacking import nonnegative_weights
    >>> nonnegative_weights(np.eye(2), np.array([0.5, -0.5])).tolist()
    [0.5, 0.0]
    """
    from scipy.optimize import nnls

    root = np.linalg.cholesky(gram).T
    return np.asarray(nnls(root, np.linalg.solve(root.T, moment), maxiter=1000)[0])


@dataclass(frozen=True, eq=False)
class LeftOut:
    """A date that was left out: errors of the interpolators, and the predicted uncertainty of linear interpolation.

    Parameters
    ----------
    errors : ndarray of float64, shape (interpolator, band, sample)
        Predicted minus observed reflectance at some pixels.
    uncertainty : ndarray of float32, shape (band, sample)
        Reflectance.
    """

    errors: NDArray[np.float64]
    uncertainty: NDArray[np.float32]

    def parts(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Return the mean errors over the tile, shape (interpolator, band, 1), and the deviations from them."""
        mean = self.errors.mean(axis=2, keepdims=True)
        return mean, self.errors - mean


def _leave_out(series: Series) -> list[LeftOut]:
    """Leave out each of the clear dates nearest to the target and predict it from the others."""
    rows, columns = series.shape
    step = max(1, math.ceil(math.sqrt(rows * columns / SAMPLE)))
    sample = np.arange(rows * columns).reshape(rows, columns)[step // 2 :: step, step // 2 :: step].ravel()
    bands, clear = series.bands[:, :, sample], series.clear[:, sample]
    nearest = np.argsort(np.abs(series.days), kind="stable")
    enough = clear.sum(axis=1) >= max(LEAST_PIXELS, LEAST_SHARE * len(sample))
    found = []
    for date in nearest[enough[nearest]][:HELD_OUT_DATES]:
        days = series.days - series.days[date]
        others = _comparable_dates(series, days)
        where = clear[date] & clear[others].any(axis=0)
        if where.sum() < LEAST_PIXELS:
            continue
        rest = Observations(bands[others][:, :, None, where], clear[others][:, None, where], days[others])
        known = Series.of(rest)
        errors = _predict(known, range(len(INTERPOLATORS))).astype(np.float64) - bands[date][:, where]
        if errors[0].any():
            found.append(LeftOut(errors, known.uncertainty()))
    return found


def _fit_weights(left_out: Sequence[LeftOut]) -> NDArray[np.float64]:
    """Fit the weights of the interpolators, for the tile's mean and for deviations from it; shape (2, interpolator)."""
    if len(left_out) < LEAST_HELD_OUT:
        return np.eye(1, len(INTERPOLATORS)).repeat(2, axis=0)
    grams = [[_gram(part) / np.mean(date.errors[0] ** 2) for part in date.parts()] for date in left_out]
    return np.stack([_least_error_weights(gram, REGULARISATION / len(grams)) for gram in np.mean(grams, axis=0)])


def _evidence(weights: NDArray[np.float64], left_out: Sequence[LeftOut], n_bands: int) -> conformal.Evidence:
    """Return the factor on the uncertainty by the errors of left-out dates, which have equal weights.

    `UNSEEN`, which the uncertainty contains, widens it for a series of typical length. Here the number of dates that
    tell the size of errors takes its place.
    """
    number = sum(bool(np.isfinite(date.uncertainty).all(axis=0).any()) for date in left_out)
    widening = conformal.student_widening(JUDGED + number) / UNSEEN
    if len(left_out) < LEAST_HELD_OUT:
        return replace(conformal.no_evidence(n_bands), widening=widening)
    errors = []
    for date in left_out:
        of_mean, of_deviation = (np.tensordot(w, part, 1) for w, part in zip(weights, date.parts(), strict=True))
        errors.append(of_mean + of_deviation)
    groups = np.repeat(np.arange(len(errors)), [part.shape[1] for part in errors])
    uncertainty = np.concatenate([date.uncertainty for date in left_out], axis=1)
    return replace(conformal.evidence(np.concatenate(errors, axis=1), uncertainty, groups), widening=widening)


def _comparable_dates(series: Series, days: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Select the dates that predict one at day 0 of `days`: those at least as far away as the target's nearest dates.

    The distances hold on each side of the date. Otherwise a long gap would be assessed by the errors of short ones, and
    a date beyond the series by those of dates within it.
    """
    seen = series.days[series.clear.mean(axis=1) > LEAST_CLEAR]
    before, after = -seen[seen <= 0].max(initial=-np.inf), seen[seen > 0].min(initial=np.inf)
    return np.asarray((days <= -max(before, SAME_PASS)) | (days >= max(after, SAME_PASS)))


def _gram(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the mean products of errors, shape (interpolator, interpolator), from (interpolator, band, pixel)."""
    flat = errors.reshape(len(errors), -1)
    return robust_ridge.product(flat, np.ascontiguousarray(flat.T)) / flat.shape[1]


def _least_error_weights(gram: NDArray[np.float64], regularisation: float) -> NDArray[np.float64]:
    """Return the weights, at least 0 and 1 in sum, that minimise the error; regularised towards the first."""
    first, unit = np.eye(len(gram))[0], np.eye(len(gram))
    # The last term keeps the matrix positive definite if the errors are large compared to the first and equal.
    penalised = gram + regularisation * unit + SUM_PENALTY + 1e-10 * np.trace(gram) * unit
    weights = nonnegative_weights(penalised, regularisation * first + SUM_PENALTY)
    return np.asarray(weights / weights.sum())


def _predict(series: Series, which: Sequence[int]) -> NDArray[np.float32]:
    """Predict by some interpolators, shape (interpolator, band, pixel); by linear interpolation where one cannot."""
    images = []
    for i in which:
        name = INTERPOLATORS[i]
        if name == "linear":
            images.append(series.image)
        elif name == "nearest":
            date = np.maximum(series.source, 0)
            nearest = kernels.blend(series.bands, date, date, np.zeros(len(date), np.float32))
            images.append(np.where(series.known, nearest, series.image))
        elif name == "four":
            images.append(_mean_of_four(series))
        elif name == "decay":
            images.append(_weighted_mean(series, np.exp(-np.abs(series.days) / DECAY)))
        else:
            away = np.abs((series.days + DAYS_PER_YEAR / 2) % DAYS_PER_YEAR - DAYS_PER_YEAR / 2)
            images.append(_weighted_mean(series, np.exp(-away / SEASON - np.abs(series.days) / YEARS)))
    return np.stack(images)


def _mean_of_four(series: Series) -> NDArray[np.float32]:
    """Return the mean of the two nearest clear dates on each side, as far as they exist."""
    weights = np.zeros(series.clear.shape, np.float32)
    pixel = np.arange(series.bands.shape[2])
    for date in (series.before, series.after, *series.beyond()):
        weights[date[date >= 0], pixel[date >= 0]] = 1
    weights /= np.maximum(weights.sum(axis=0), 1)
    return kernels.mix(series.bands, series.clear, weights)


def _weighted_mean(series: Series, weight: NDArray[np.float64]) -> NDArray[np.float32]:
    """Return the mean of all clear dates with one weight per date."""
    weight = np.where(series.clear.any(axis=1), weight, 0.0)
    largest = weight.max(initial=0)
    dates = np.flatnonzero(weight > NEGLIGIBLE * largest)
    clear = series.clear[dates]
    weights = np.where(clear, (weight[dates, None] / largest).astype(np.float32), np.float32(0))
    total = weights.sum(axis=0)
    weights /= np.where(total > 0, total, np.float32(1))
    return np.where(total > 0, kernels.mix(series.bands[dates], clear, weights), series.image)


def _nearer_weight(series: Series) -> NDArray[np.float64]:
    """Return the weight of the nearer date in linear interpolation, shape (pixel,)."""
    first, second, _ = linear_weights(series.days, series.before, series.after)
    swap = np.abs(series.days[second]) < np.abs(series.days[first])
    nearer, farther = np.where(swap, second, first), np.where(swap, first, second)
    return 1.0 - linear_weights(series.days, nearer, farther)[2]
