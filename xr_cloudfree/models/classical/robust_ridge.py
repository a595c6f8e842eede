"""Ridge regression of one window that is robust to clouds missed by the mask.

All functions work on a flat pixel axis: features are (feature, pixel), values are (band, pixel). Nothing is random and
sums have a fixed order, so results are reproducible.
"""

from __future__ import annotations

from collections.abc import Callable
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
# Approximate maximum number of pixels in a fit, and in a fit that only has to tell ground from haze.
MAX_FIT, MAX_ROUGH = 8192, 4096
# Pixels that are predicted at once: their features stay in the cache of a core.
SLAB = 1024
# Multiplications that BLAS does on one thread. For larger products it starts threads of its own, which compete with
# those of the scheduler and may change the order of the sums. Gram matrices are computed in blocks of such an edge that
# the parts of a product are as deep as that allows.
ONE_THREAD, BLOCK = 1 << 18, 32


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


def gram_matrix(x: NDArray[np.float32], weight: NDArray[np.float32]) -> NDArray[np.float64]:
    """Compute the weighted products of the rows of a matrix, and of a last row of ones, summed over its columns.

    Parameters
    ----------
    x : ndarray of float32, shape (feature, pixel)
        The rows.
    weight : ndarray of float32, shape (pixel,)
        Weight of each column.

    Returns
    -------
    ndarray of float64, shape (feature + 1, feature + 1)
        The sums, in a fixed order.

    Notes
    -----
    Products are single precision, in parts that BLAS does on one thread; sums of parts are double precision.

    Examples
    --------
    >>> x = np.array([[1.0, 2.0, 3.0]], np.float32)
    >>> gram_matrix(x, np.array([1.0, 0.0, 2.0], np.float32)).tolist()
    [[19.0, 7.0], [7.0, 3.0]]
    """
    size, n = x.shape
    weighted = x * weight
    out = np.empty((size + 1, size + 1))
    out[-1, :-1] = out[:-1, -1] = weighted.sum(axis=1, dtype=np.float64)
    out[-1, -1] = weight.sum(dtype=np.float64)
    depth = ONE_THREAD // BLOCK**2
    parts, whole = n // depth, n // depth * depth
    left = weighted[:, :whole].reshape(size, parts, depth).transpose(1, 0, 2)
    right = x[:, :whole].reshape(size, parts, depth).transpose(1, 2, 0)
    edges = [slice(start, min(start + BLOCK, size)) for start in range(0, size, BLOCK)]
    for number, rows in enumerate(edges):
        for columns in edges[number:]:
            block = np.matmul(left[:, rows], right[:, :, columns]).sum(axis=0, dtype=np.float64)
            block += weighted[rows, whole:] @ x[columns, whole:].T
            out[rows, columns] = block
            out[columns, rows] = block.T
    return out


def _moment(x: NDArray[np.float32], weighted: NDArray[np.float32]) -> NDArray[np.float64]:
    """Return the products of the rows of a matrix, and of a last row of ones, with weighted values (band, pixel)."""
    rest = weighted.sum(axis=1, dtype=np.float64)
    return np.concatenate([product(x, weighted.T).astype(np.float64), rest[None]])


Columns = Callable[[NDArray[np.intp]], NDArray[np.float32]]
"""Values of the pixels with given indices, shape (feature or band, n); all others may be on another device."""


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
    fitted : ndarray of float32, shape (band, sample)
        Their predictions.
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
    fitted: NDArray[np.float32]
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
        return _standard(features, self.centre, self.width)


def _solve(gram: NDArray[np.float64], moment: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Solve for the coefficients (feature, band); the last feature is the constant, which is not penalised."""
    weight = gram[-1, -1]
    if weight < 1:
        return np.zeros_like(moment)  # the weights add up to less than one pixel
    ridge = np.full(len(gram), penalty * weight)
    ridge[-1] = 1e-9 * weight
    return np.asarray(np.linalg.solve(gram + np.diag(ridge), moment))


def _apply(slope: NDArray[np.float64], x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the prediction (band, pixel) of coefficients (feature, band), the last of which is the constant."""
    return np.asarray(product(slope[:-1].T.astype(np.float32), x) + slope[-1].astype(np.float32)[:, None])


def fit(
    features: Columns,
    values: Columns,
    where: NDArray[np.bool_],
    shape: tuple[int, int],
    most: int = MAX_FIT,
) -> RidgeFit:
    """Fit values by features on the pixels in `where`, except those that look like haze.

    Parameters
    ----------
    features, values : callable
        Return, for indices of pixels in `where`, their features, float32 of shape (feature, n), and their values, of
        shape (band, n); all finite.
    where : ndarray of bool, shape (pixel,)
        Pixels to use.
    shape : tuple of int
        Rows and columns of the window.
    most : int
        Approximate maximum number of pixels to use.

    Returns
    -------
    RidgeFit
        The regression.
    """
    pixels = thin(np.flatnonzero(where), shape, most)
    fold = folds(pixels, shape)
    order = np.argsort(fold, kind="stable")  # the pixels of a fold follow each other
    pixels, ends = pixels[order], np.cumsum(np.bincount(fold, minlength=FOLDS))
    x, y = features(pixels), values(pixels)
    centre = x.mean(axis=1, dtype=np.float64).astype(np.float32)
    width = x.std(axis=1) + np.float32(3e-3)
    x = _standard(x, centre, width)

    # The penalty decreases, so that the first steps cannot fit the haze that they are meant to detect.
    residual = (y - np.median(y, axis=1)[:, None]).astype(np.float64)
    weight = tukey_weight(residual, robust_scale(residual)).astype(np.float32)
    for penalty in np.geomspace(1, 1e-2, 5):
        slope = _solve(gram_matrix(x, weight), _moment(x, y * weight), float(penalty))
        residual = (y - _apply(slope, x)).astype(np.float64)
        weight = tukey_weight(residual, robust_scale(residual)).astype(np.float32)

    parts = [slice(start, end) for start, end in zip((0, *ends[:-1]), ends, strict=True)]
    grams = [gram_matrix(x[:, part], weight[part]) for part in parts]
    moments = [_moment(x[:, part], y[:, part] * weight[part]) for part in parts]
    gram, moment = np.sum(grams, axis=0), np.sum(moments, axis=0)
    candidates = np.empty((len(PENALTIES), *y.shape), np.float32)
    for k, part in enumerate(parts):
        rest, of_rest = gram - grams[k], moment - moments[k]
        slopes = np.concatenate([_solve(rest, of_rest, penalty) for penalty in PENALTIES], axis=1)
        predicted = _apply(slopes, x[:, part])
        candidates[:, :, part] = y[:, part] - predicted.reshape(len(PENALTIES), len(y), -1)
    totals = (weight * np.square(candidates)).sum(axis=(1, 2), dtype=np.float64)
    best = int(np.argmin(totals))
    held_out = candidates[best].astype(np.float64)
    # Coefficients are shrunk, per band, by the regression of the values on their held-out predictions.
    predicted = y - held_out
    shrinkage = (weight * y * predicted).sum(axis=1) / np.maximum((weight * np.square(predicted)).sum(axis=1), 1e-12)
    slope = _solve(gram, moment, PENALTIES[best]) * np.clip(shrinkage, 0, 1)
    low, high = _range(y, weight)
    fitted = _apply(slope, x)
    return RidgeFit(
        centre,
        width,
        slope[:-1].T.astype(np.float32),
        slope[-1].astype(np.float32),
        low,
        high,
        robust_scale((y - fitted).astype(np.float64)),
        pixels,
        np.clip(fitted, low[:, None], high[:, None]),
        np.where(weight > 0, held_out, np.nan),
    )


def _range(values: NDArray[np.float32], weight: NDArray[np.float32]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return the range of each band's values (band, pixel) over the pixels with a weight."""
    used = values[:, weight > 0.1]
    low, high = np.percentile(used if used.size else values, [0.5, 99.5], axis=1)
    return low.astype(np.float32), high.astype(np.float32)


def _standard(
    features: NDArray[np.float32], centre: NDArray[np.float32], width: NDArray[np.float32]
) -> NDArray[np.float32]:
    standard = features - centre[:, None]
    standard /= width[:, None]
    return np.clip(standard, -CLIP, CLIP, out=standard)


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
        Mean over bands of observed minus predicted; NaN where it is not known, in the core.
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
    inner = residual[core & np.isfinite(residual)]
    middle = np.median(inner)
    scale = 1.4826 * np.median(np.abs(inner - middle)) + LEAST_SCALE / 2
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
