"""Tmask: cloud, snow and shadow of a Landsat series, found by a robust harmonic fit of each pixel.

A form of our own of the published method, to compare with. Its first step, Fmask, is replaced by the given masks, and
reflectance is that of the surface. It only masks, and restores nothing.

References
----------
Zhu and Woodcock 2014, Automated cloud, cloud shadow, and snow detection in multitemporal Landsat data,
doi 10.1016/j.rse.2014.06.012.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.masking.harmonic import terms_of as design

# Difference from the fit, in reflectance, from which a pixel is cloud or snow (green), or shadow (NIR and SWIR).
THRESHOLD = 0.04
# Clear observations that the harmonics need; with fewer, the median is the prediction.
LEAST_OBSERVATIONS = 15
ITERATIONS = 5
_TUNING = 4.685  # of the bisquare weights: 95 % efficiency for normal residuals
_MAD_TO_SIGMA = 1 / 0.6745
_LEAST_SIGMA = 1e-6
_RIDGE = 1e-9
_PIXELS = 1 << 12  # pixels that are fitted at once
# By preference: what stands in for each band of Landsat.
GREEN = ("green", "red", "blue")
NIR = ("nir", "nir08", "rededge783")
SWIR = ("swir16", "swir22")


def tmask(
    bands: NDArray[np.float32],
    clear: NDArray[np.bool_],
    days: NDArray[np.float64],
    common_names: tuple[str | None, ...],
) -> NDArray[np.bool_]:
    """Mask the cloud, snow and shadow that the given masks miss.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance; arbitrary where not clear.
    clear : ndarray of bool, shape (time, y, x)
        True where clear according to the given masks, with a value in every band.
    days : ndarray of float64, shape (time,)
        Days from any date.
    common_names : tuple of (str or None)
        Common names of the bands. A missing green or NIR band is replaced by its neighbour; without a SWIR band, shadow
        is found by NIR alone.

    Returns
    -------
    ndarray of bool, shape (time, y, x)
        The given masks without what was found.

    Raises
    ------
    ValueError
        If there is no visible or no NIR band.
    """
    chosen = [_find(common_names, names) for names in (GREEN, NIR, SWIR)]
    if chosen[0] is None or chosen[1] is None:
        raise ValueError(f"Tmask needs a visible and a NIR band, and the bands are {common_names}")
    n_dates, shape = len(bands), clear.shape[1:]
    flat = clear.reshape(n_dates, -1)
    excess = [
        None if i is None else residual(bands[:, i].reshape(n_dates, -1).astype(np.float64), flat, days) for i in chosen
    ]
    green, nir, swir = excess
    assert green is not None and nir is not None
    shadow = nir < -THRESHOLD
    if swir is not None:
        shadow &= swir < -THRESHOLD
    return np.asarray(flat & ~(green > THRESHOLD) & ~shadow).reshape(n_dates, *shape)


def residual(values: NDArray[np.float64], clear: NDArray[np.bool_], days: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the difference of one band from its robust fit in time, at each pixel.

    Parameters
    ----------
    values : ndarray of float64, shape (time, pixel)
        Reflectance.
    clear : ndarray of bool, shape (time, pixel)
        Observations to fit.
    days : ndarray of float64, shape (time,)
        Days from any date.

    Returns
    -------
    ndarray of float64, shape (time, pixel)
        0 where not clear.
    """
    terms = design(days)
    observed = np.where(clear, values, 0.0)
    out = np.zeros(values.shape)
    enough = clear.sum(axis=0) >= LEAST_OBSERVATIONS
    for start in range(0, values.shape[1], _PIXELS):
        part = np.arange(start, min(start + _PIXELS, values.shape[1]))
        many, few = part[enough[part]], part[~enough[part]]
        if many.size:
            fitted = terms @ robust_fit(terms, observed[:, many], clear[:, many])
            out[:, many] = np.where(clear[:, many], observed[:, many] - fitted, 0.0)
        few = few[clear[:, few].any(axis=0)]
        if few.size:
            out[:, few] = np.where(clear[:, few], observed[:, few] - median(values[:, few], clear[:, few]), 0.0)
    return out


def robust_fit(
    terms: NDArray[np.float64], values: NDArray[np.float64], clear: NDArray[np.bool_]
) -> NDArray[np.float64]:
    """Fit each pixel by iteratively reweighted least squares with bisquare weights.

    Parameters
    ----------
    terms : ndarray of float64, shape (time, term)
        The model.
    values : ndarray of float64, shape (time, pixel)
        Observations.
    clear : ndarray of bool, shape (time, pixel)
        Those to fit.

    Returns
    -------
    ndarray of float64, shape (term, pixel)
        Coefficients.
    """
    weights = clear.astype(np.float64)
    ridge = _RIDGE * np.eye(terms.shape[1])
    products = (terms[:, :, None] * terms[:, None, :]).reshape(len(terms), -1)
    coefficients = np.zeros((terms.shape[1], values.shape[1]))
    for _ in range(ITERATIONS + 1):
        normal = (weights.T @ products).reshape(-1, *ridge.shape) + ridge
        coefficients = np.linalg.solve(normal, (terms.T @ (weights * values)).T[..., None])[..., 0].T
        error = np.where(clear, np.abs(values - terms @ coefficients), np.inf)
        sigma = np.maximum(_MAD_TO_SIGMA * median(error, clear), _LEAST_SIGMA)
        scaled = error / (_TUNING * sigma)
        weights = (1 - np.minimum(scaled, 1) ** 2) ** 2
    return coefficients


def median(values: NDArray[np.float64], clear: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Return the median over the clear dates of each pixel, of which there is at least one."""
    ordered = np.sort(np.where(clear, values, np.inf), axis=0)
    count = clear.sum(axis=0)
    middle = np.stack([(count - 1) // 2, count // 2])
    return np.asarray(np.take_along_axis(ordered, middle, axis=0).mean(axis=0))


def _find(common_names: tuple[str | None, ...], names: tuple[str, ...]) -> int | None:
    return next((common_names.index(name) for name in names if name in common_names), None)
