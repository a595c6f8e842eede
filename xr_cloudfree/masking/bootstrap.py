"""A first mask without a given one, from each pixel's own series."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.masking.harmonic import fit_harmonics
from xr_cloudfree.masking.kernels import lasting
from xr_cloudfree.models.kernels import dispatch as kernels

# Share of a pixel's dates, in increasing brightness, at which its reference lies: below the clouds of most series.
REFERENCE = 0.35
# Rise of all bands above the reference that is cloud, and fall that is shadow, as a share of the reference.
CLOUD_RISE, SHADOW_FALL = 0.04, 0.5
# Deviations from the median from which a single index is an outlier.
OUTLIER = 2.5
# Residual of a harmonic fit from which a date is not clear: in reflectance, in scales, the share of it that each band
# reaches, and the same in scales for a single index.
LEAST_RESIDUAL, RESIDUAL, EACH_BAND, RESIDUAL_OF_INDEX = 0.02, 2.0, 0.7, 3.0
# Share of its residual by which a date may differ from others that show the same.
ALIKE = 0.2


def first_mask(
    bands: NDArray[np.float32], usable: NDArray[np.bool_], days: NDArray[np.float64]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Return where the dates of a series may be clear: neither brighter nor darker in all bands than a harmonic fit.

    What differs from the fit and lasts for some dates is clear as well.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance, finite.
    usable : ndarray of bool, shape (time, y, x)
        Where there are values.
    days : ndarray of float64, shape (time,)
        Days from any date.

    Returns
    -------
    clear, lasts : ndarray of bool, shape (time, y, x)
        Where the dates may be clear, and where they are like dates near them, by far more than the fit.
    """
    harmonics = fit_harmonics(bands, usable, _quantile_mask(bands, usable), days, readmit=True)
    bound = np.maximum(np.float32(LEAST_RESIDUAL), RESIDUAL * harmonics.scale)
    size, out = np.empty(usable.shape, np.float32), usable.copy()
    for date in range(len(bands)):
        residual = harmonics.residual(bands, date)
        np.abs(residual).max(axis=0, out=size[date])
        if len(residual) == 1:
            out[date] &= size[date] <= RESIDUAL_OF_INDEX * harmonics.scale
            continue
        mean = residual.mean(axis=0)
        cloud = (residual > EACH_BAND * bound).all(axis=0) & (mean > bound)
        shadow = (residual < -EACH_BAND * bound).all(axis=0) & (mean < -bound)
        out[date] &= ~(cloud | shadow)
    seen = np.ascontiguousarray(usable).reshape(len(bands), -1)
    lasts = lasting(bands.reshape(*bands.shape[:2], -1), seen, size.reshape(seen.shape), ALIKE).reshape(usable.shape)
    return out | lasts, lasts


def _quantile_mask(bands: NDArray[np.float32], usable: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where the dates are neither brighter nor darker in all bands than most others."""
    dates, n_bands, *shape = bands.shape
    flat, seen = bands.reshape(dates, n_bands, -1), np.ascontiguousarray(usable.reshape(dates, -1))
    if n_bands == 1:
        median = kernels.median(flat, seen)
        spread = np.maximum(1.4826 * kernels.median(np.abs(flat - median), seen), np.float32(0.01))
        ordinary = (np.abs(flat - median) <= OUTLIER * spread)[:, 0]
        return np.asarray(usable & ordinary.reshape(usable.shape))
    reference = _quantile(flat, seen)
    out = usable.copy()
    for date in range(dates):
        rise = flat[date] - reference
        cloud = (rise > CLOUD_RISE).all(axis=0)
        shadow = (rise < -SHADOW_FALL * np.abs(reference)).all(axis=0)
        out[date] &= ~(cloud | shadow).reshape(shape)
    return out


def _quantile(flat: NDArray[np.float32], seen: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return the reference of each band and pixel, the value of one date; 0 where there is none."""
    out = np.zeros(flat.shape[1:], np.float32)
    rank = np.floor(REFERENCE * np.maximum(seen.sum(axis=0) - 1, 0)).astype(np.intp)
    for band in range(flat.shape[1]):
        ordered = np.sort(np.where(seen, flat[:, band], np.float32(np.inf)), axis=0)
        value = np.take_along_axis(ordered, rank[None], axis=0)[0]
        out[band] = np.where(np.isfinite(value), value, np.float32(0))
    return out
