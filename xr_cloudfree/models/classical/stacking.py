"""Several ways to tell a date from the others, weighed by how well they would have told the dates that were seen.

Where a target date shows nothing of itself, only the other dates teach. How fast does this place change, how noisy is a
single date, does it come back every year? The series answers: each of its clear dates is left out in turn and predicted
from the rest. What a date does to the whole tile (its light and air) and what differs within it are weighed apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical import robust_ridge
from xr_cloudfree.models.classical.series import Series
from xr_cloudfree.models.kernels import dispatch as kernels
from xr_cloudfree.models.protocol import Observations

# Linear interpolation, the nearest date, the mean of the two nearest on each side, and weighted means of all dates: of
# those near in time, and of those near in the season of any year.
INTERPOLATORS = ("linear", "nearest", "four", "decay", "season")
# Days by which weights fall to 1/e: of "decay"; of "season", within the year and over the years.
DECAY, SEASON, YEARS = 15.0, 15.0, 1500.0
YEAR = 365.25
# Dates that are left out in turn, at most and at least, for fewer prove nothing.
HELD_OUT_DATES, LEAST_JUDGES = 16, 5
# What such a date has to show: a share of the pixels that are looked at, and a number; and how many are looked at.
LEAST_SHARE, LEAST_PIXELS, SAMPLE = 0.3, 50, 1024
# Of a date that counts as one of the target's nearest so much is clear.
LEAST_SEEN = 0.2
# Days within which observations are of one pass: they tell each other, and are left out together.
SAME_PASS = 0.5
# How many dates would have to speak against linear interpolation for it to be given up.
REGULARISATION = 0.5
# Weights of dates below this share of the largest are as good as none.
NEGLIGIBLE = 1e-4
# How firmly weights are held to 1 in sum while they are sought, against errors of about 1.
SUM = 1e3


def linear(series: Series) -> tuple[NDArray[np.bool_], NDArray[np.float32], NDArray[np.int16]]:
    """The linear prediction without rows and columns: known, image (0 where it is not known), and source."""
    known, source = series.linear.known.ravel(), series.linear.source
    assert source is not None
    return known, np.where(known, series.linear.bands.reshape(series.bands.shape[1:]), np.float32(0)), source.ravel()


def interpolate(series: Series, asked: NDArray[np.bool_]) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """The image of the target date from the other dates alone.

    Parameters
    ----------
    series : Series
        The other dates of a tile.
    asked : ndarray of bool, shape (pixel,)
        Where an answer is wanted.

    Returns
    -------
    image : ndarray of float32, shape (band, pixel)
        Reflectance, 0 where no date is clear. That of linear interpolation where nothing is asked, or where fewer than
        `LEAST_JUDGES` dates can be judged by.
    source : ndarray of int16, shape (pixel,)
        The date that weighs at least one half, as far as that is certain; else -1. In the tile's mean it is taken to
        weigh what it does at the pixel.

    References
    ----------
    Wolpert 1992, Stacked generalization, doi 10.1016/S0893-6080(05)80023-1.
    """
    known, base, source = linear(series)
    if not (asked & known).any():
        return base, source
    shares = _shares(series)
    used = [way for way in range(1, len(INTERPOLATORS)) if shares[:, way].any()]
    if not used:
        return base, source
    answers = _answers(series, used) - base
    middle = answers[..., known].mean(axis=2)[..., None]
    of_all, within = (part[used, None, None].astype(np.float32) for part in shares)
    image = np.where(known, base + (of_all * middle + within * (answers - middle)).sum(axis=0), np.float32(0))
    # What the date weighs in the other means comes on top.
    certain = (shares[:, :1] * _weight_of(series, source) + shares[:, 1:2]).min(axis=0) >= 0.5
    return image, np.where(certain, source, np.int16(-1))


def _shares(series: Series) -> NDArray[np.float64]:
    """Weights of the ways, for the tile's mean and for what differs within; shape (2, way)."""
    rows, columns = series.linear.known.shape
    step = max(1, math.ceil(math.sqrt(rows * columns / SAMPLE)))
    sample = np.arange(rows * columns).reshape(rows, columns)[step // 2 :: step, step // 2 :: step].ravel()
    bands, clear = series.bands[:, :, sample], series.clear[:, sample]
    nearest = np.argsort(np.abs(series.days), kind="stable")
    enough = clear.sum(axis=1) >= max(LEAST_PIXELS, LEAST_SHARE * len(sample))
    grams = []
    for judge in nearest[enough[nearest]][:HELD_OUT_DATES]:
        days = series.days - series.days[judge]
        others = _told_from(series, days)
        where = clear[judge] & clear[others].any(axis=0)
        if where.sum() < LEAST_PIXELS:
            continue
        rest = Observations(bands[others][:, :, None, where], clear[others][:, None, where], days[others])
        errors = _answers(Series.of(rest), range(len(INTERPOLATORS))).astype(np.float64) - bands[judge][:, where]
        size = np.mean(errors[0] ** 2)
        if size > 0:
            mean = errors.mean(axis=2, keepdims=True)
            grams.append([_gram(part) / size for part in (mean, errors - mean)])
    if len(grams) < LEAST_JUDGES:
        return np.eye(1, len(INTERPOLATORS)).repeat(2, axis=0)
    return np.stack([_least(gram, REGULARISATION / len(grams)) for gram in np.mean(grams, axis=0)])


def _told_from(series: Series, days: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Dates from which one at day 0 of `days` is told: those as far away as the target's nearest ones, on either side.

    Else a long gap would be judged by short ones, and a date beyond the series by dates within it.
    """
    seen = series.days[series.clear.mean(axis=1) > LEAST_SEEN]
    before, after = -seen[seen <= 0].max(initial=-np.inf), seen[seen > 0].min(initial=np.inf)
    return np.asarray((days <= -max(before, SAME_PASS)) | (days >= max(after, SAME_PASS)))


def _gram(errors: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean products of errors, shape (way, way), from (way, band, pixel)."""
    flat = errors.reshape(len(errors), -1)
    return robust_ridge.product(flat, np.ascontiguousarray(flat.T)) / flat.shape[1]


def _least(gram: NDArray[np.float64], pull: float) -> NDArray[np.float64]:
    """Weights, at least 0 and 1 in sum, with which errors of these products are least; drawn towards the first way."""
    from scipy.optimize import nnls

    first, unit = np.eye(len(gram))[0], np.eye(len(gram))
    # The last term is for errors that are many times those of the first way, and alike.
    root = np.linalg.cholesky(gram + pull * unit + SUM + 1e-10 * np.trace(gram) * unit).T
    shares, _ = nnls(root, np.linalg.solve(root.T, pull * first + SUM), maxiter=1000)
    return np.asarray(shares / shares.sum())


def _answers(series: Series, ways: Sequence[int]) -> NDArray[np.float32]:
    """What these ways say, shape (way, band, pixel); linear interpolation where they say nothing."""
    known, base, source = linear(series)
    made = []
    for way in ways:
        name = INTERPOLATORS[way]
        if name == "linear":
            made.append(base)
        elif name == "nearest":
            date = np.where(known, source, np.int16(0))
            made.append(np.where(known, kernels.blend(series.bands, date, date, np.zeros(len(date), np.float32)), base))
        elif name == "four":
            made.append(_four(series))
        elif name == "decay":
            made.append(_weighed(series, np.exp(-np.abs(series.days) / DECAY), base))
        else:
            away = np.abs((series.days + YEAR / 2) % YEAR - YEAR / 2)
            made.append(_weighed(series, np.exp(-away / SEASON - np.abs(series.days) / YEARS), base))
    return np.stack(made)


def _four(series: Series) -> NDArray[np.float32]:
    """Mean of the two nearest dates on each side, as far as there are any."""
    weight = np.zeros(series.clear.shape, np.float32)
    pixel = np.arange(series.bands.shape[2])
    for date in (series.before, series.after, *series.beyond()):
        weight[date[date >= 0], pixel[date >= 0]] = 1
    weight /= np.maximum(weight.sum(axis=0), 1)
    return kernels.mix(series.bands, series.clear, weight)


def _weighed(series: Series, weight: NDArray[np.float64], base: NDArray[np.float32]) -> NDArray[np.float32]:
    """Mean of all clear dates with a weight each."""
    weight = np.where(series.clear.any(axis=1), weight, 0.0)
    most = weight.max(initial=0)
    dates = np.flatnonzero(weight > NEGLIGIBLE * most)
    clear = series.clear[dates]
    weights = np.where(clear, (weight[dates, None] / most).astype(np.float32), np.float32(0))
    mass = weights.sum(axis=0)
    weights /= np.where(mass > 0, mass, np.float32(1))
    return np.where(mass > 0, kernels.mix(series.bands[dates], clear, weights), base)


def _weight_of(series: Series, source: NDArray[np.int16]) -> NDArray[np.float64]:
    """What the nearer date weighs in linear interpolation, shape (pixel,)."""
    before, after = (np.where(date >= 0, np.abs(series.days[date]), np.nan) for date in (series.before, series.after))
    span = before + after
    farther = np.divide(np.fmin(before, after), span, out=np.zeros_like(span), where=span > 0)
    return np.where(np.isnan(span) | (source < 0), 1.0, 1.0 - farther)
