"""Sharpening of one tile: coarse bands, and fine bands of the same moment that guide them.

The coarse bands are taken apart into a smooth image and the detail that they lost. The detail is a linear function of
that of the guide, whose coefficients are learned from the tile itself, from two sets of equations:

- what the guide shows between one and about four coarse pixels, seen at the coarse scale, against the coarse bands;
- Wald's protocol: the tile degraded once more, and what the coarse bands lost by that against what the guide lost.

The first set has the sharper view of the point-spread function, the second is next in scale to the detail wanted. Both
are linear in the same coefficients. How much these are shrunk is chosen, per band, by the errors on held-out squares.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical.robust_ridge import FOLDS, folds, gram_matrix, product
from xr_cloudfree.sharpening.operators import Image, back_project, degrade, detail, interpolate, upsample

# Standard deviation, in coarse pixels, of the Gaussian that separates the band of scales of the first set.
SMOOTH = 2.0
# Directions of the coarse spectra in which coefficients may vary over the tile, of each of the averaged fits.
DIRECTIONS = (0, 2, 3)
# Ridge penalties, relative to the energy of the guide's own detail; and the prior variance of the coefficients of
# neighbours, and of those that vary over the tile, relative to that of the guide itself.
PENALTIES = np.geomspace(1e-6, 0.3, 8)
PRIORS = ((1.0, 1.0), (0.1, 0.1), (1.0, 0.1), (0.1, 1.0), (0.01, 0.01))
# Candidates are weighted by exp(-excess held-out error / this), relative to the least error.
SOFTNESS = 0.03
# A coarse pixel is used for fitting if its point-spread function sees at least this share of the guide.
SEEN = 0.999
# Coarse pixels below which nothing is fitted, and the smallest scale of a feature, in reflectance.
LEAST_PIXELS, LEAST_SCALE = 32, 1e-4


@dataclass(frozen=True, eq=False)
class Tile:
    """One tile of one date, in reflectance.

    Parameters
    ----------
    guide : ndarray of float32, shape (guide band, y, x)
        Fine bands; values where `clear` is False have no influence.
    clear : ndarray of bool, shape (y, x)
        Where the guide is measured and may be used.
    coarse : ndarray of float32, shape (band, y / factor, x / factor)
        Coarse bands; values where `measured` is False have no influence.
    measured : ndarray of bool, shape of `coarse`
        Where they are measured.
    factor : int
        Fine pixels per coarse pixel along each axis.
    """

    guide: Image
    clear: NDArray[np.bool_]
    coarse: Image
    measured: NDArray[np.bool_]
    factor: int


def sharpen_tile(tile: Tile) -> tuple[Image, bool]:
    """Estimate the coarse bands of a tile in the pixels of its guide.

    Parameters
    ----------
    tile : Tile
        The tile.

    Returns
    -------
    bands : ndarray of float32, shape (band, y, x)
        Finite everywhere. Where the guide is not clear it is a smooth interpolation.
    fitted : bool
        Whether the guide was used; False if too few coarse pixels are known beside it.
    """
    factor = tile.factor
    coarse = np.stack([_complete(band, known) for band, known in zip(tile.coarse, tile.measured, strict=True)])
    smooth = interpolate(coarse, factor)
    where = (degrade(tile.clear.astype(np.float32), factor) >= SEEN) & tile.measured.all(axis=0)
    if where.sum() < LEAST_PIXELS:
        return _bounded(smooth, tile), False
    guide = np.stack([_complete(band, tile.clear) for band in tile.guide])
    context = _context(np.concatenate([degrade(guide, factor), coarse]), where)
    features, group = _features(guide, context, factor)
    seen = degrade(features, factor)
    # Both sets of equations: features and values, (row, y, x), and where they are used.
    sets = [(_passed(seen), _passed(coarse), where)]
    reduced = tuple(n // factor * factor for n in where.shape)
    if min(reduced) >= 2 * factor:
        part = (..., slice(reduced[0]), slice(reduced[1]))
        again, _ = _features(degrade(guide, factor)[part], degrade(context[part], factor), factor)
        sets.append((detail(again, factor), detail(coarse[part], factor), where[part]))
    scale = np.maximum((features - upsample(seen, factor)).std(axis=(1, 2)), LEAST_SCALE)
    coefficients = _solve(sets, scale, group)
    # What is lost of a sum of features is the sum of what is lost of each, so it is computed once per band.
    added = product(coefficients.astype(np.float32), features.reshape(len(features), -1)).reshape(smooth.shape)
    return _bounded(back_project(smooth + detail(added, factor) * tile.clear, coarse, factor), tile), True


def _bounded(image: Image, tile: Tile) -> Image:
    """Return an image without the negative values that ringing makes beside dark pixels."""
    least = np.where(tile.measured, tile.coarse, np.inf).min(axis=(1, 2))
    return np.asarray(np.maximum(image, np.minimum(least, 0)[:, None, None].astype(np.float32)))


def _complete(band: Image, known: NDArray[np.bool_]) -> Image:
    """Return a band whose unknown pixels continue their surroundings smoothly."""
    from scipy.ndimage import gaussian_filter

    if known.all():
        return band
    out = np.where(known, band, np.float32(0)).astype(np.float32)
    if not known.any():
        return out
    left = ~known
    for sigma in (1.0, 3.0, 9.0):
        weight = gaussian_filter(known.astype(np.float32), sigma)
        near = left & (weight > 1e-2)
        # The unknown pixels that are already filled do not count: `known` stays as it was.
        value = gaussian_filter(np.where(known, band, np.float32(0)).astype(np.float32), sigma)
        out[near] = value[near] / weight[near]
        left &= ~near
    out[left] = band[known].mean(dtype=np.float64)
    return out


def _passed(image: Image) -> Image:
    """Return the scales of a coarse image below about four pixels."""
    from scipy.ndimage import gaussian_filter

    return np.asarray(image - gaussian_filter(image, (0, SMOOTH, SMOOTH)))


def _context(spectra: Image, where: NDArray[np.bool_]) -> Image:
    """Return the main directions of the spectra over a tile, (direction, y, x): what kind of ground a pixel is."""
    values = spectra[:, where].astype(np.float64)
    standard = values - values.mean(axis=1, keepdims=True)
    width = standard.std(axis=1, keepdims=True) + 1e-6
    standard /= width
    covariance = gram_matrix(standard.astype(np.float32), np.ones(standard.shape[1], np.float32))[:-1, :-1]
    energy, directions = np.linalg.eigh(covariance / standard.shape[1])
    n = min(max(DIRECTIONS), len(energy))
    axes = (directions[:, ::-1][:, :n] / np.sqrt(np.maximum(energy[::-1][:n], 1e-6))).T
    flat = (spectra.reshape(len(spectra), -1) - values.mean(axis=1, keepdims=True)) / width
    scores = product(axes.astype(np.float32), flat.astype(np.float32))
    return np.asarray(np.clip(scores, -2.5, 2.5).reshape(n, *spectra.shape[1:]))


def _features(guide: Image, context: Image, factor: int) -> tuple[Image, NDArray[np.intp]]:
    """Return features (feature, y, x) in the pixels of a guide, and the group of each.

    Groups are 0 the guide; 1 its neighbours, in which a fit finds the shape of the point-spread function; from 2 on
    the guide times each direction of the context.
    """
    from scipy.ndimage import gaussian_filter

    wide = gaussian_filter(degrade(guide, factor), (0, SMOOTH, SMOOTH))
    guide = guide - upsample(wide, factor)
    beside, across = _neighbours(guide)
    context = upsample(context, factor)
    varying = [guide * np.float32(0.5) * direction for direction in context]
    features = [guide, beside - guide, across - guide, *varying]
    group = np.repeat([0, 1, 1, *range(2, 2 + len(varying))], len(guide))
    return np.concatenate(features), group


def _neighbours(image: Image) -> tuple[Image, Image]:
    """Return the means of the four pixels beside each, and of the four across its corners."""
    p = np.pad(image, ((0, 0), (1, 1), (1, 1)), mode="symmetric")
    beside = p[:, :-2, 1:-1] + p[:, 2:, 1:-1] + p[:, 1:-1, :-2] + p[:, 1:-1, 2:]
    across = p[:, :-2, :-2] + p[:, :-2, 2:] + p[:, 2:, :-2] + p[:, 2:, 2:]
    return beside / np.float32(4), across / np.float32(4)


def _solve(
    sets: list[tuple[Image, Image, NDArray[np.bool_]]], scale: NDArray[np.floating], group: NDArray[np.intp]
) -> NDArray[np.float64]:
    """Return coefficients (band, feature): an average of ridge regressions that do well on held-out squares.

    Parameters
    ----------
    sets : list of tuple of ndarray
        Features (feature, y, x), values (band, y, x), and where they are used (y, x).
    scale : ndarray, shape (feature,)
        Scale of each feature at the scale at which the coefficients are used.
    group : ndarray of int, shape (feature,)
        Group of each feature.
    """
    n, n_bands = len(group), len(sets[0][1])
    moments = np.array([_moments(x, y, where, scale) for x, y, where in sets])  # set, fold, row, row
    grams, products, energy = moments[..., :n, :n], moments[..., :n, n:], moments[..., n:, n:]
    left, right = grams.sum(axis=0), products.sum(axis=0)
    total = np.maximum(np.einsum("sfkk->sk", energy), 1e-12)
    unit = np.trace(left.sum(axis=0)[np.ix_(group == 0, group == 0)]) / (group == 0).sum() + 1e-12
    chosen = np.zeros((n, n_bands))
    for directions in DIRECTIONS:
        used = np.flatnonzero(group < 2 + directions)
        at = np.ix_(np.arange(len(left)), used, used)
        gram, moment = left[at], right[:, used]
        candidates, errors = [], []
        for neighbour, varying in PRIORS:
            prior = np.choose(np.minimum(group[used], 2), (1.0, neighbour, varying))
            for penalty in PENALTIES:
                ridge = np.diag(penalty * unit / prior)
                rest = np.linalg.solve(gram.sum(axis=0) - gram + ridge, moment.sum(axis=0) - moment)
                error = np.stack([_error(g[at], m[:, used], rest) for g, m in zip(grams, products, strict=True)])
                errors.append((error + total) / total)
                candidates.append(np.linalg.solve(gram.sum(axis=0) + ridge, moment.sum(axis=0)))
        error = np.array(errors)  # candidate, set, band
        error = (error / np.maximum(error.min(axis=0), 1e-6)).mean(axis=1)
        weight = np.exp(-(error - error.min(axis=0)) / SOFTNESS)
        weight /= weight.sum(axis=0)
        chosen[used] += np.einsum("cb,cfb->fb", weight, np.array(candidates)) / len(DIRECTIONS)
    return np.asarray((chosen / scale[:, None]).T)


def _moments(x: Image, y: Image, where: NDArray[np.bool_], scale: NDArray[np.floating]) -> NDArray[np.float64]:
    """Return the products of standardised features and values with each other, by fold."""
    pixels = np.flatnonzero(where)
    rows = np.concatenate([x[:, where] / scale[:, None].astype(np.float32), y[:, where]])
    fold = folds(pixels, where.shape) if pixels.size else pixels
    return np.array(
        [
            gram_matrix(part, np.ones(part.shape[1], np.float32))[:-1, :-1]
            for part in (rows[:, fold == k] for k in range(FOLDS))
        ]
    )


def _error(gram: NDArray[np.float64], moment: NDArray[np.float64], slope: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the squared held-out error of each band, summed over folds, less the energy of the values."""
    return np.asarray(
        (np.einsum("fij,fjk->fik", gram, slope) * slope).sum(axis=(0, 1)) - 2 * (slope * moment).sum(axis=(0, 1))
    )
