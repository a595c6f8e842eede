"""Ridge regression of one window that is robust to clouds missed by the mask.

All functions work on a flat pixel axis: features are (feature, pixel), values are (band, pixel). Nothing is random and
sums have a fixed order, so results are reproducible.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Candidate ridge penalties per observation, on standardised features; the one with the least held-out error is used.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 4
# Candidate edges, in pixels, of the squares that are held out together: the first with at least a twentieth of all
# pixels in every fold is used.
SQUARES = (16, 8, 4)
# Standardised features are clipped to this range, because a fit does not extrapolate reliably.
CLIP = 4.0
# A residual above (below) this many scales in every band is haze (shadow); one of OUTLIER_SCALES in the root mean
# square over bands is an outlier of another kind.
HAZE_SCALES = 3.0
OUTLIER_SCALES = 8.0
# Minimum scale, in reflectance: residuals below the noise of the sensors do not reject a pixel.
LEAST_SCALE = 0.002
# Approximate maximum number of pixels in a fit.
MAX_FIT = 8192
# Pixels that are predicted at once.
SLAB = 8192
# Multiplications that BLAS does on one thread. For larger products it starts threads of its own, which compete with
# those of the scheduler and may change the order of the sums.
ONE_THREAD = 1 << 18


def robust_scale(residual: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute the scale of each band: the median absolute residual as a standard deviation, plus a minimum.

    Parameters
    ----------
    residual : ndarray, shape (band, pixel)
        Residuals around zero.

    Returns
    -------
    ndarray, shape (band,)
        In the units of `residual`.
    """
    return np.asarray(1.4826 * np.median(np.abs(residual), axis=1) + LEAST_SCALE)


def tukey_weight(residual: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """Compute robust weights of residuals: 1 for small ones, 0 for haze, shadow and gross errors.

    A harvested field gets brighter in some bands and darker in others, whereas haze is brighter and shadow darker in
    all bands. The standardised residual that is least over the bands separates the two.

    Parameters
    ----------
    residual : ndarray, shape (band, pixel)
        Observed minus predicted.
    scale : ndarray, shape (band,)
        Scale of each band.

    Returns
    -------
    ndarray, shape (pixel,)
        Tukey's biweight, in [0, 1].

    Examples
    --------
    >>> scale = np.ones(2)
    >>> tukey_weight(np.array([[0.0, 5.0, -4.0], [0.0, -4.0, -4.0]]), scale).round(2).tolist()
    [1.0, 0.46, 0.0]
    """
    z = residual / scale[:, None]
    haze = np.maximum(z.min(axis=0), (-z).min(axis=0))
    rms = np.sqrt(np.square(z).mean(axis=0))
    distance = np.maximum(haze / HAZE_SCALES, rms / OUTLIER_SCALES)
    return np.asarray(np.square(np.clip(1 - np.square(distance), 0, None)))


def product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Compute a matrix product in parts that BLAS does on one thread, with a fixed order of the sums.

    Parameters
    ----------
    a : ndarray, shape (m, k)
        Left factor.
    b : ndarray, shape (k, n)
        Right factor.

    Returns
    -------
    ndarray, shape (m, n)
        ``a @ b``.
    """
    (m, k), n = a.shape, b.shape[1]
    out = np.zeros((m, n), np.result_type(a, b))
    if k > n:
        step = max(1, ONE_THREAD // max(1, m * n))
        for i in range(0, k, step):
            out += a[:, i : i + step] @ b[i : i + step]
    else:
        step = max(1, ONE_THREAD // max(1, m * k))
        for i in range(0, n, step):
            out[:, i : i + step] = a @ b[:, i : i + step]
    return out


@dataclass(frozen=True, eq=False)
class RidgeFit:
    """A fitted ridge regression, with predictions bounded to the range of the values it was fitted to.

    Parameters
    ----------
    centre, width : ndarray of float32, shape (feature,)
        Mean and standard deviation of the features over the pixels of the fit.
    slope : ndarray of float32, shape (band, feature)
        Coefficients of the standardised features.
    level : ndarray of float32, shape (band,)
        Value at the centre.
    low, high : ndarray of float32, shape (band,)
        Range of the values over the pixels of the fit.
    scale : ndarray of float64, shape (band,)
        Robust scale of the residuals.
    pixels : ndarray of int, shape (sample,)
        The pixels of the fit.
    held_out : ndarray of float64, shape (band, sample)
        Their errors in a fit without the square of pixels around them; NaN where they look like haze.
    """

    centre: NDArray[np.float32]
    width: NDArray[np.float32]
    slope: NDArray[np.float32]
    level: NDArray[np.float32]
    low: NDArray[np.float32]
    high: NDArray[np.float32]
    scale: NDArray[np.float64]
    pixels: NDArray[np.intp]
    held_out: NDArray[np.float64]

    def __call__(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict the values of all pixels, shape (band, pixel), from features of shape (feature, pixel)."""
        values = np.empty((len(self.level), features.shape[1]), np.float32)
        for start in range(0, features.shape[1], SLAB):  # a copy of all features would be the largest array of a fit
            slab = slice(start, start + SLAB)
            standard = self.standard(features[:, slab])
            values[:, slab] = product(self.slope, standard)
        values += self.level[:, None]
        return np.clip(values, self.low[:, None], self.high[:, None], out=values)

    def standard(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Standardise features, and clip them to the range in which the fit is reliable."""
        standard = features - self.centre[:, None]
        standard /= self.width[:, None]
        return np.clip(standard, -CLIP, CLIP, out=standard)


def _solve(gram: NDArray[np.float64], moment: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Solve for the coefficients (feature, band); the last feature is the constant, which is not penalised."""
    weight = gram[-1, -1]
    if weight < 1:
        return np.zeros_like(moment)  # the weights add up to less than one pixel
    ridge = np.full(len(gram), penalty * weight)
    ridge[-1] = 1e-9 * weight
    return np.asarray(np.linalg.solve(gram + np.diag(ridge), moment))


def fit(
    features: NDArray[np.float32],
    values: NDArray[np.float32],
    where: NDArray[np.bool_],
    shape: tuple[int, int],
) -> RidgeFit:
    """Fit `values` by `features` on the pixels in `where`, except those that look like haze.

    Parameters
    ----------
    features : ndarray of float32, shape (feature, pixel)
        Features, finite everywhere.
    values : ndarray of float32, shape (band, pixel)
        Values to fit, valid in `where`.
    where : ndarray of bool, shape (pixel,)
        Pixels to use.
    shape : tuple of int
        Rows and columns of the window.

    Returns
    -------
    RidgeFit
        The regression.
    """
    pixels = thin(np.flatnonzero(where), shape)
    x, y = features[:, pixels].astype(np.float64), values[:, pixels].astype(np.float64)
    centre, width = x.mean(axis=1), x.std(axis=1) + 3e-3
    x = np.clip((x - centre[:, None]) / width[:, None], -CLIP, CLIP)
    x = np.concatenate([x, np.ones((1, x.shape[1]))])

    # The penalty decreases, so that the first steps cannot fit the haze that they are meant to detect.
    residual = y - np.median(y, axis=1)[:, None]
    weight = tukey_weight(residual, robust_scale(residual))
    for penalty in np.geomspace(1, 1e-2, 5):
        weighted = x * weight
        slope = _solve(product(weighted, x.T), product(weighted, y.T), float(penalty))
        residual = y - product(slope.T, x)
        weight = tukey_weight(residual, robust_scale(residual))

    fold = folds(pixels, shape)
    grams, moments = [], []
    for k in range(FOLDS):
        part = fold == k
        weighted = x[:, part] * weight[part]
        grams.append(product(weighted, x[:, part].T))
        moments.append(product(weighted, y[:, part].T))
    gram, moment = np.sum(grams, axis=0), np.sum(moments, axis=0)
    least, held_out, best = float("inf"), y, PENALTIES[-1]
    for penalty in PENALTIES:
        errors = np.empty_like(y)
        for k in range(FOLDS):
            part = fold == k
            slope = _solve(gram - grams[k], moment - moments[k], penalty)
            errors[:, part] = y[:, part] - product(slope.T, x[:, part])
        total = float((weight * np.square(errors)).sum())
        if total < least:
            least, held_out, best = total, errors, penalty
    # Coefficients are shrunk, per band, by the regression of the values on their held-out predictions.
    predicted = y - held_out
    shrinkage = (weight * y * predicted).sum(axis=1) / np.maximum((weight * np.square(predicted)).sum(axis=1), 1e-12)
    slope = _solve(gram, moment, best) * np.clip(shrinkage, 0, 1)
    residual = y - product(slope.T, x)
    used = y[:, weight > 0.1]
    low, high = np.percentile(used if used.size else y, [0.5, 99.5], axis=1)
    f4 = np.float32
    return RidgeFit(
        centre.astype(f4),
        width.astype(f4),
        slope[:-1].T.astype(f4),
        slope[-1].astype(f4),
        low.astype(f4),
        high.astype(f4),
        robust_scale(residual),
        pixels,
        np.where(weight > 0, held_out, np.nan),
    )


def thin(pixels: NDArray[np.intp], shape: tuple[int, int], most: int = MAX_FIT) -> NDArray[np.intp]:
    """Select about `most` of the pixels at most, spread over the window by a hash of their position."""
    if len(pixels) <= most:
        return pixels
    row, column = pixels // shape[1], pixels % shape[1]
    hashed = (row * 73856093 ^ column * 19349663) % 1009
    return np.asarray(pixels[hashed < 1009 * most / len(pixels)])


def folds(pixels: NDArray[np.intp], shape: tuple[int, int]) -> NDArray[np.intp]:
    """Return the fold of each pixel, below `FOLDS`; whole squares are held out, because neighbours are correlated."""
    row, column = pixels // shape[1], pixels % shape[1]
    for edge in SQUARES:
        fold = (row // edge + 2 * (column // edge)) % FOLDS
        if np.min(np.bincount(fold, minlength=FOLDS)) * 20 >= len(pixels):
            break
    return np.asarray(fold)


def trusted_pixels(
    residual: NDArray[np.float64],
    usable: NDArray[np.bool_],
    core: NDArray[np.bool_],
    distance: NDArray[np.float64],
    rings: int,
) -> NDArray[np.bool_]:
    """Select the usable pixels except for rings beside the gap that are brighter or darker than the core.

    Parameters
    ----------
    residual : ndarray, shape (pixel,)
        Mean over bands of observed minus predicted.
    usable : ndarray of bool, shape (pixel,)
        Clear pixels of the target.
    core : ndarray of bool, shape (pixel,)
        Usable pixels far from the edge of the mask.
    distance : ndarray, shape (pixel,)
        Distance in pixels to the nearest hidden one.
    rings : int
        Number of rings to examine.

    Returns
    -------
    ndarray of bool, shape (pixel,)
        The core, and the rings outwards from it up to the first that does not look like ground.
    """
    middle = np.median(residual[core])
    scale = 1.4826 * np.median(np.abs(residual[core] - middle)) + LEAST_SCALE / 2
    trust = core & usable
    ring = np.ceil(distance)
    for number in range(rings, 0, -1):
        members = usable & (ring == number)
        count = int(members.sum())
        if count < 10:
            continue
        # Neighbours are correlated: about nine of them count as one independent sample.
        tolerance = 0.5 * scale + 3 * 1.25 * scale / np.sqrt(count / 9)
        if abs(float(np.median(residual[members])) - middle) > tolerance:
            break
        trust |= members
    return np.asarray(trust)
