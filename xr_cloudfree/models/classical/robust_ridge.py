"""A fit of the target's clear pixels that survives masks which miss a part of a cloud.

Everything here works on one window with a flat pixel axis: features are (feature, pixel), values are (band,
pixel). Nothing is drawn by chance, and sums run in a fixed order, so that a window has one answer.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Ridge penalties per observation, on features of unit spread, among which held-out blocks of pixels decide.
PENALTIES = (1e-3, 1e-2, 1e-1, 1.0)
FOLDS = 4
# Edge of the blocks in pixels; the first that leaves no fold with less than a twentieth of all pixels.
BLOCKS = (16, 8, 4)
# Standardised features beyond this are clipped: a fit says nothing about what it has not seen.
REACH = 4.0
# A residual that is brighter (or darker) than this many spreads in every band is haze (or shadow); one that
# is this large in the mean over bands is an outlier of another kind.
HAZE_SPREADS = 3.0
ODD_SPREADS = 8.0
# The least spread, in reflectance: residuals below the noise of the sensors are no reason to reject a pixel.
LEAST_SPREAD = 0.002
MAX_FIT = 8192
# Pixels that are predicted at once.
SLAB = 8192
# Multiplications that BLAS does on one thread. With more it starts threads of its own, which fight with those of
# a scheduler and may add in another order.
ONE_THREAD = 1 << 18


def spread(residual: NDArray[np.float64]) -> NDArray[np.float64]:
    """Robust spread of each band: the median of the absolute values, as a standard deviation, with a floor.

    Parameters
    ----------
    residual : ndarray, shape (band, pixel)
        Residuals around zero.

    Returns
    -------
    ndarray, shape (band,)
        In the units of `residual`.
    """
    return np.asarray(1.4826 * np.median(np.abs(residual), axis=1) + LEAST_SPREAD)


def tukey_weight(residual: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far a residual looks like ground: 1 for a small one, 0 for haze, shadow and gross errors.

    A field that was harvested is brighter in one band and darker in another; a cloud is brighter in all of
    them, and a shadow darker. The bands' least standardised residual tells the two apart.

    Parameters
    ----------
    residual : ndarray, shape (band, pixel)
        Observed less predicted.
    scale : ndarray, shape (band,)
        Spread of each band.

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
    hazy = np.maximum(z.min(axis=0), (-z).min(axis=0))
    odd = np.sqrt(np.square(z).mean(axis=0))
    distance = np.maximum(hazy / HAZE_SPREADS, odd / ODD_SPREADS)
    return np.asarray(np.square(np.clip(1 - np.square(distance), 0, None)))


def product(a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Matrix product in parts so small that none is worth a thread; the order of the sums is fixed.

    Parameters
    ----------
    a : ndarray, shape (m, k)
        Left.
    b : ndarray, shape (k, n)
        Right.

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
    """A ridge regression, bounded to what it was fitted on.

    Parameters
    ----------
    centre, width : ndarray of float32, shape (feature,)
        Mean and spread of the features among the pixels of the fit.
    slope : ndarray of float32, shape (band, feature)
        Coefficients of the standardised features.
    level : ndarray of float32, shape (band,)
        Value at the centre.
    low, high : ndarray of float32, shape (band,)
        Range of the values among the pixels of the fit.
    scale : ndarray of float64, shape (band,)
        Spread of the residuals.
    pixels : ndarray of int, shape (sample,)
        The pixels that took part.
    held_out : ndarray of float64, shape (band, sample)
        Their errors when the block of pixels around them was left out of the fit; NaN where they look like
        haze.
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
        """Values of all pixels, shape (band, pixel), from features of shape (feature, pixel)."""
        values = np.empty((len(self.level), features.shape[1]), np.float32)
        for start in range(0, features.shape[1], SLAB):  # a copy of all features would be the largest array of a fit
            slab = slice(start, start + SLAB)
            standard = self.standard(features[:, slab])
            values[:, slab] = product(self.slope, standard)
        values += self.level[:, None]
        return np.clip(values, self.low[:, None], self.high[:, None], out=values)

    def standard(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Features less their centre, over their width, clipped to what a fit can speak of."""
        standard = features - self.centre[:, None]
        standard /= self.width[:, None]
        return np.clip(standard, -REACH, REACH, out=standard)


def _solve(gram: NDArray[np.float64], moment: NDArray[np.float64], penalty: float) -> NDArray[np.float64]:
    """Coefficients (feature, band); the last feature is the constant, which is not penalised."""
    weight = gram[-1, -1]
    if weight < 1:
        return np.zeros_like(moment)  # less than one pixel is left
    ridge = np.full(len(gram), penalty * weight)
    ridge[-1] = 1e-9 * weight
    return np.asarray(np.linalg.solve(gram + np.diag(ridge), moment))


def fit(
    features: NDArray[np.float32],
    values: NDArray[np.float32],
    where: NDArray[np.bool_],
    shape: tuple[int, int],
) -> RidgeFit:
    """Fit `values` by `features` on the pixels in `where`, haze among them left out.

    Parameters
    ----------
    features : ndarray of float32, shape (feature, pixel)
        What is known everywhere.
    values : ndarray of float32, shape (band, pixel)
        What is known in `where`.
    where : ndarray of bool, shape (pixel,)
        Pixels that may be used.
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
    x = np.clip((x - centre[:, None]) / width[:, None], -REACH, REACH)
    x = np.concatenate([x, np.ones((1, x.shape[1]))])

    # From stiff to supple, so that the first steps cannot bend towards the haze that they are to find.
    start = y - np.median(y, axis=1)[:, None]
    weight = tukey_weight(start, spread(start))
    for penalty in np.geomspace(1, 1e-2, 5):
        weighted = x * weight
        slope = _solve(product(weighted, x.T), product(weighted, y.T), float(penalty))
        residual = y - product(slope.T, x)
        weight = tukey_weight(residual, spread(residual))

    fold = folds(pixels, shape)
    grams, moments = [], []
    for k in range(FOLDS):
        part = fold == k
        weighted = x[:, part] * weight[part]
        grams.append(product(weighted, x[:, part].T))
        moments.append(product(weighted, y[:, part].T))
    gram, moment = np.sum(grams, axis=0), np.sum(moments, axis=0)
    best, held_out, chosen = np.inf, y, PENALTIES[-1]
    for penalty in PENALTIES:
        left = np.empty_like(y)
        for k in range(FOLDS):
            part = fold == k
            slope = _solve(gram - grams[k], moment - moments[k], penalty)
            left[:, part] = y[:, part] - product(slope.T, x[:, part])
        error = float((weight * np.square(left)).sum())
        if error < best:
            best, held_out, chosen = error, left, penalty
    # What did not prove itself on pixels that were held out is taken back, band by band.
    fitted = y - held_out
    proved = (weight * y * fitted).sum(axis=1) / np.maximum((weight * np.square(fitted)).sum(axis=1), 1e-12)
    slope = _solve(gram, moment, chosen) * np.clip(proved, 0, 1)
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
        spread(residual),
        pixels,
        np.where(weight > 0, held_out, np.nan),
    )


def thin(pixels: NDArray[np.intp], shape: tuple[int, int], most: int = MAX_FIT) -> NDArray[np.intp]:
    """At most about `most` of the pixels, spread over the window by a hash of their place."""
    if len(pixels) <= most:
        return pixels
    row, column = pixels // shape[1], pixels % shape[1]
    mixed = (row * 73856093 ^ column * 19349663) % 1009
    return np.asarray(pixels[mixed < 1009 * most / len(pixels)])


def folds(pixels: NDArray[np.intp], shape: tuple[int, int]) -> NDArray[np.intp]:
    """Fold of each pixel, below `FOLDS`, by blocks: neighbours are alike, so single pixels would prove nothing."""
    row, column = pixels // shape[1], pixels % shape[1]
    for block in BLOCKS:
        fold = (row // block + 2 * (column // block)) % FOLDS
        if np.bincount(fold, minlength=FOLDS).min() * 20 >= len(pixels):
            break
    return np.asarray(fold)


def trusted(
    residual: NDArray[np.float64],
    usable: NDArray[np.bool_],
    core: NDArray[np.bool_],
    distance: NDArray[np.float64],
    reach: int,
) -> NDArray[np.bool_]:
    """Usable pixels without the rings beside the gap that are brighter or darker than the core.

    Parameters
    ----------
    residual : ndarray, shape (pixel,)
        Mean over bands of observed less predicted.
    usable : ndarray of bool, shape (pixel,)
        Clear pixels of the target.
    core : ndarray of bool, shape (pixel,)
        Those far from the mask's edge.
    distance : ndarray, shape (pixel,)
        Pixels to the nearest hidden one.
    reach : int
        Rings to look at.

    Returns
    -------
    ndarray of bool, shape (pixel,)
        The core and the rings that look like ground, from within.
    """
    middle = np.median(residual[core])
    scale = 1.4826 * np.median(np.abs(residual[core] - middle)) + LEAST_SPREAD / 2
    trust = core & usable
    ring = np.ceil(distance)
    for number in range(reach, 0, -1):
        members = usable & (ring == number)
        count = int(members.sum())
        if count < 10:
            continue
        # About nine neighbours tell as much as one pixel alone would.
        doubt = 0.5 * scale + 3 * 1.25 * scale / np.sqrt(count / 9)
        if abs(float(np.median(residual[members])) - middle) > doubt:
            break
        trust |= members
    return np.asarray(trust)
