"""Robust harmonic fit of each pixel's own series, whose residuals tell what does not recur from year to year."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical.pixelwise import DAYS_PER_YEAR
from xr_cloudfree.models.kernels.compiled import compiled

ITERATIONS = 4
"""Times that the observations are weighted anew."""
# The residual, in scales, at which weights reach zero, and by how much more residuals of brighter dates count, since
# cloud is more frequent than shadow.
CUT, BRIGHTER = 3.0, 2.0
# Ridge penalty on all terms but the constant, in observations.
PENALTY = 1.0
# Expected size of residuals in reflectance, and the number of observations that this is worth.
USUAL_SIZE, USUAL_COUNT = 0.01, 3.0
_LANES = 64  # pixels that are fitted together
_SPREAD = 1.25  # standard deviation of normal residuals in mean absolute residuals


@dataclass(frozen=True, eq=False)
class Harmonics:
    """Fits of all pixels.

    Parameters
    ----------
    terms : ndarray of float64, shape (time, term)
        The terms of the model on each date.
    coefficients : ndarray of float32, shape (term, band, y, x)
        Coefficients.
    scale : ndarray of float32, shape (y, x)
        Size of the residuals in reflectance, root mean square over the bands.
    count : ndarray of float32, shape (y, x)
        Sum of the weights of the observations.
    """

    terms: NDArray[np.float64]
    coefficients: NDArray[np.float32]
    scale: NDArray[np.float32]
    count: NDArray[np.float32]

    def residual(self, bands: NDArray[np.float32], date: int) -> NDArray[np.float32]:
        """Return the difference of a date from the fit, shape (band, y, x).

        Parameters
        ----------
        bands : ndarray of float32, shape (time, band, y, x)
            Reflectance, finite.
        date : int
            Index of the date.
        """
        out: NDArray[np.float32] = bands[date].copy()
        for factor, term in zip(self.terms[date].astype(np.float32), self.coefficients, strict=True):
            out -= factor * term
        return out


def terms_of(days: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the terms of the model: a constant, a yearly harmonic, and one whose period is the number of years.

    The last one follows changes from year to year. A series within one year has none.

    Returns
    -------
    ndarray of float64, shape (time, term)

    References
    ----------
    Zhu and Woodcock 2014, doi 10.1016/j.rse.2014.06.012.
    """
    years = int(np.ceil((days.max() - days.min()) / DAYS_PER_YEAR))
    phase = 2 * np.pi * days / DAYS_PER_YEAR
    terms = [np.ones_like(phase), np.cos(phase), np.sin(phase)]
    if years > 1:
        terms += [np.cos(phase / years), np.sin(phase / years)]
    return np.stack(terms, axis=1)


@compiled
def _solve(gram: Any, moment: Any) -> None:
    """Replace the moments by the solutions, by Cholesky factorisations of the lower halves of the Gram matrices."""
    n_terms, n_bands, lanes = moment.shape
    for i in range(n_terms):
        for j in range(i + 1):
            value = gram[i, j]
            for q in range(j):
                for p in range(lanes):
                    value[p] -= gram[i, q, p] * gram[j, q, p]
            for p in range(lanes):
                value[p] = math.sqrt(max(value[p], 1e-12)) if i == j else value[p] / gram[j, j, p]
    for k in range(n_bands):
        for i in range(n_terms):
            value = moment[i, k]
            for q in range(i):
                for p in range(lanes):
                    value[p] -= gram[i, q, p] * moment[q, k, p]
            for p in range(lanes):
                value[p] /= gram[i, i, p]
        for i in range(n_terms - 1, -1, -1):
            value = moment[i, k]
            for q in range(i + 1, n_terms):
                for p in range(lanes):
                    value[p] -= gram[q, i, p] * moment[q, k, p]
            for p in range(lanes):
                value[p] /= gram[i, i, p]


@compiled
def _accumulate(observed: Any, weight: Any, terms: Any, gram: Any, moment: Any) -> None:
    """Set the weighted Gram matrices, lower halves, and moments."""
    dates, n_bands, lanes = observed.shape
    n_terms = terms.shape[1]
    factor = np.empty(lanes)
    gram[:] = 0.0
    moment[:] = 0.0
    for t in range(dates):
        for i in range(n_terms):
            for p in range(lanes):
                factor[p] = weight[t, p] * terms[t, i]
            for j in range(i + 1):
                for p in range(lanes):
                    gram[i, j, p] += factor[p] * terms[t, j]
            for k in range(n_bands):
                for p in range(lanes):
                    moment[i, k, p] += factor[p] * observed[t, k, p]
    gram[0, 0] += 1e-6
    for i in range(1, n_terms):
        gram[i, i] += PENALTY


@compiled
def _measure(observed: Any, terms: Any, solution: Any, brighter: float, size: Any) -> None:
    """Set the sizes of all residuals."""
    dates, n_bands, lanes = observed.shape
    n_terms = terms.shape[1]
    error, total = np.empty(lanes), np.empty(lanes)
    for t in range(dates):
        size[t] = 0.0
        total[:] = 0.0
        for k in range(n_bands):
            for p in range(lanes):
                error[p] = observed[t, k, p]
            for i in range(n_terms):
                factor = terms[t, i]
                for p in range(lanes):
                    error[p] -= factor * solution[i, k, p]
            for p in range(lanes):
                size[t, p] += error[p] * error[p]
                total[p] += error[p]
        for p in range(lanes):
            size[t, p] = math.sqrt(size[t, p] / n_bands) * (brighter if total[p] > 0 else 1.0)


@compiled
def _fit(
    bands: Any, usable: Any, clear: Any, terms: Any, readmit: bool, brighter: float, out: Any, scale: Any, count: Any
) -> None:
    dates, n_bands, pixels = bands.shape
    n_terms = terms.shape[1]
    gram, moment = np.empty((n_terms, n_terms, _LANES)), np.empty((n_terms, n_bands, _LANES))
    observed = np.zeros((dates, n_bands, _LANES), np.float32)
    weight, size = np.zeros((dates, _LANES)), np.empty((dates, _LANES))
    total, weights = np.empty(_LANES), np.empty(_LANES)
    for start in range(0, pixels, _LANES):
        width = min(_LANES, pixels - start)
        for t in range(dates):
            for p in range(width):
                weight[t, p] = clear[t, start + p]
            for k in range(n_bands):
                for p in range(width):
                    observed[t, k, p] = bands[t, k, start + p]
        for iteration in range(ITERATIONS + 1):
            _accumulate(observed, weight, terms, gram, moment)
            _solve(gram, moment)
            _measure(observed, terms, moment, brighter, size)
            total[:] = USUAL_COUNT * USUAL_SIZE
            weights[:] = USUAL_COUNT
            for t in range(dates):
                for p in range(_LANES):
                    total[p] += weight[t, p] * size[t, p]
                    weights[p] += weight[t, p]
            if iteration == ITERATIONS:
                break
            for t in range(dates):
                for p in range(width):
                    admitted = usable[t, start + p] if readmit else clear[t, start + p]
                    ratio = min(size[t, p] / (CUT * _SPREAD * total[p] / weights[p]), 1.0)
                    weight[t, p] = admitted * (1.0 - ratio * ratio) ** 2
        for p in range(width):
            scale[start + p] = _SPREAD * total[p] / weights[p]
            count[start + p] = weights[p] - USUAL_COUNT
            for i in range(n_terms):
                for k in range(n_bands):
                    out[i, k, start + p] = moment[i, k, p]


def fit_harmonics(
    bands: NDArray[np.float32],
    usable: NDArray[np.bool_],
    clear: NDArray[np.bool_],
    days: NDArray[np.float64],
    *,
    readmit: bool,
) -> Harmonics:
    """Fit each pixel's series by iteratively reweighted ridge regression with bisquare weights common to all bands.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance, finite.
    usable, clear : ndarray of bool, shape (time, y, x)
        Where there are values, and where they are presently taken as clear.
    days : ndarray of float64, shape (time,)
        Days from any date.
    readmit : bool
        Whether usable observations that are not clear get a weight once a first fit to the clear ones is known.

    Returns
    -------
    Harmonics
    """
    n_dates, n_bands, *shape = bands.shape
    terms, pixels = terms_of(days), int(np.prod(shape))
    coefficients = np.empty((terms.shape[1], n_bands, pixels), np.float32)
    scale, count = np.empty((2, pixels), np.float32)
    _fit(
        bands.reshape(n_dates, n_bands, -1),
        np.ascontiguousarray(usable).reshape(n_dates, -1).view(np.uint8),
        np.ascontiguousarray(clear).reshape(n_dates, -1).view(np.uint8),
        terms,
        readmit,
        BRIGHTER if n_bands > 1 else 1.0,  # a single band may be an index, which cloud lowers
        coefficients,
        scale,
        count,
    )
    return Harmonics(terms, coefficients.reshape(-1, n_bands, *shape), scale.reshape(*shape), count.reshape(*shape))
