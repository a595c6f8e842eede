"""Error metrics between two images.

Images have the shape (band, y, x) and are in reflectance, 0 to 1. `where`, of shape (y, x), selects the pixels to
compare.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from xr_cloudfree.errors import DimensionError


def _pixels(
    predicted: ArrayLike, truth: ArrayLike, where: ArrayLike | None
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the selected pixels of both images, each of shape (pixel, band)."""
    a, b = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    if a.ndim != 3 or a.shape != b.shape:
        raise DimensionError(
            f"images of shape {a.shape} and {b.shape}",
            "two images of the same shape (band, y, x)",
            "image.transpose('band', 'y', 'x')",
        )
    selected = np.ones(a.shape[1:], bool) if where is None else np.asarray(where, bool)
    if selected.shape != a.shape[1:]:
        raise DimensionError(f"where has shape {selected.shape}", f"{a.shape[1:]}", "where=hidden of one image")
    if not selected.any():
        raise DimensionError("no pixel is selected", "at least one True in where", "where=None for all pixels")
    return a[:, selected].T, b[:, selected].T


def mae(predicted: ArrayLike, truth: ArrayLike, where: ArrayLike | None = None) -> float:
    """Compute the mean absolute error.

    Parameters
    ----------
    predicted, truth : array_like, shape (band, y, x)
        Images in reflectance.
    where : array_like of bool, shape (y, x), optional
        Pixels to compare; all by default.

    Returns
    -------
    float
        In reflectance.

    Raises
    ------
    DimensionError
        If the shapes do not agree, or no pixel is selected.

    Examples
    --------
    >>> round(mae(np.full((1, 1, 2), 0.2), [[[0.1, 0.5]]]), 3)
    0.2
    """
    a, b = _pixels(predicted, truth, where)
    return float(np.abs(a - b).mean())


def rmse(predicted: ArrayLike, truth: ArrayLike, where: ArrayLike | None = None) -> float:
    """Compute the root mean squared error.

    Parameters
    ----------
    predicted, truth : array_like, shape (band, y, x)
        Images in reflectance.
    where : array_like of bool, shape (y, x), optional
        Pixels to compare; all by default.

    Returns
    -------
    float
        In reflectance.

    Examples
    --------
    >>> round(rmse(np.zeros((1, 1, 2)), [[[0.3, 0.4]]]), 4)
    0.3536
    """
    a, b = _pixels(predicted, truth, where)
    return float(np.sqrt(np.square(a - b).mean()))


def psnr(predicted: ArrayLike, truth: ArrayLike, where: ArrayLike | None = None) -> float:
    """Compute the peak signal-to-noise ratio, with a peak of 1.

    Parameters
    ----------
    predicted, truth : array_like, shape (band, y, x)
        Images in reflectance.
    where : array_like of bool, shape (y, x), optional
        Pixels to compare; all by default.

    Returns
    -------
    float
        In decibels; infinite for equal images. Over several frames, average these values, not the squared errors.

    Examples
    --------
    >>> round(psnr(np.full((1, 2, 2), 0.1), np.zeros((1, 2, 2))), 6)
    20.0
    """
    error = rmse(predicted, truth, where)
    return float(-20 * np.log10(error)) if error > 0 else float("inf")


def sam(predicted: ArrayLike, truth: ArrayLike, where: ArrayLike | None = None) -> float:
    """Compute the mean spectral angle between the pixels of two images.

    Parameters
    ----------
    predicted, truth : array_like, shape (band, y, x)
        Images in reflectance.
    where : array_like of bool, shape (y, x), optional
        Pixels to compare; all by default.

    Returns
    -------
    float
        In degrees. Pixels that are zero in all bands of either image have no angle and are left out; NaN if
        none remains.

    References
    ----------
    Kruse et al. 1993, The spectral image processing system (SIPS), doi 10.1016/0034-4257(93)90013-N.

    Examples
    --------
    >>> round(sam([[[1.0]], [[0.0]]], [[[1.0]], [[1.0]]]), 6)
    45.0
    """
    a, b = _pixels(predicted, truth, where)
    norm_a, norm_b = np.linalg.norm(a, axis=1), np.linalg.norm(b, axis=1)
    defined = (norm_a > 0) & (norm_b > 0)
    if not defined.any():
        return float("nan")
    unit_a, unit_b = a[defined] / norm_a[defined, None], b[defined] / norm_b[defined, None]
    # At small angles the arc tangent is accurate, whereas the arc cosine loses half of the digits.
    angle = 2 * np.arctan2(np.linalg.norm(unit_a - unit_b, axis=1), np.linalg.norm(unit_a + unit_b, axis=1))
    return float(np.degrees(angle).mean())


def data_range(truth: ArrayLike, where: ArrayLike | None = None) -> NDArray[np.float64]:
    """Compute the span from the 1st to the 99th percentile of each band, for `ssim`.

    Parameters
    ----------
    truth : array_like, shape (band, y, x)
        Image in reflectance.
    where : array_like of bool, shape (y, x), optional
        Pixels to use, such as the clear ones; all by default.

    Returns
    -------
    ndarray, shape (band,)
        In reflectance.
    """
    _, b = _pixels(truth, truth, where)
    low, high = np.percentile(b, [1, 99], axis=0)
    return np.asarray(high - low)


def ssim(predicted: ArrayLike, truth: ArrayLike, where: ArrayLike | None = None, data_range: ArrayLike = 1.0) -> float:
    """Compute the structural similarity in a Gaussian window of 11 by 11 pixels with a sigma of 1.5.

    Both images must be complete: without missing values, or zeros in their place.

    Parameters
    ----------
    predicted, truth : array_like, shape (band, y, x)
        Images in reflectance.
    where : array_like of bool, shape (y, x), optional
        Pixels over which the map is averaged; all by default.
    data_range : float or array_like, shape (band,)
        Span of the values. Papers often use 1; the span of each band is more informative.

    Returns
    -------
    float
        At most 1, for equal images.

    References
    ----------
    Wang et al. 2004, Image quality assessment, doi 10.1109/TIP.2003.819861.

    Examples
    --------
    >>> image = np.linspace(0, 1, 400).reshape(1, 20, 20)
    >>> ssim(image, image)
    1.0
    """
    from scipy.ndimage import gaussian_filter

    _pixels(predicted, truth, where)
    a, b = np.asarray(predicted, np.float64), np.asarray(truth, np.float64)
    selected = np.ones(a.shape[1:], bool) if where is None else np.asarray(where, bool)
    span = np.broadcast_to(np.asarray(data_range, np.float64), a.shape[:1])

    def mean(image: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.asarray(gaussian_filter(image, 1.5, radius=5, mode="reflect"))

    scores = []
    for x, y, width in zip(a, b, span, strict=True):
        c1, c2 = (0.01 * width) ** 2, (0.03 * width) ** 2
        mx, my = mean(x), mean(y)
        vx, vy, vxy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
        score = (2 * mx * my + c1) * (2 * vxy + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
        scores.append(score[selected].mean())
    return float(np.mean(scores))


def interval_coverage(
    predicted: ArrayLike,
    truth: ArrayLike,
    uncertainty: ArrayLike,
    where: ArrayLike | None = None,
    level: float = 0.9,
) -> tuple[float, float]:
    """Compute the share of the truth inside the central interval, and the mean width of the interval.

    Parameters
    ----------
    predicted, truth, uncertainty : array_like, shape (band, y, x)
        Images in reflectance; ± 1.645 of the uncertainty is the 90 % interval, as of a normal distribution.
    where : array_like of bool, shape (y, x), optional
        Pixels to compare; all by default.
    level : float
        Nominal share, in (0, 1).

    Returns
    -------
    coverage : float
        In [0, 1].
    width : float
        In reflectance.

    Examples
    --------
    >>> zero = np.zeros((1, 1, 2))
    >>> coverage, width = interval_coverage(zero, [[[1.6, 1.7]]], zero + 1)
    >>> coverage, round(width, 2)
    (0.5, 3.29)
    """
    from scipy.special import ndtri

    a, b = _pixels(predicted, truth, where)
    spread, _ = _pixels(uncertainty, truth, where)
    half = float(ndtri((1 + level) / 2)) * spread
    return float((np.abs(a - b) <= half).mean()), float(2 * half.mean())


def crps(predicted: ArrayLike, truth: ArrayLike, uncertainty: ArrayLike, where: ArrayLike | None = None) -> float:
    """Compute the continuous ranked probability score of a normal distribution; lower is better.

    Parameters
    ----------
    predicted, truth, uncertainty : array_like, shape (band, y, x)
        Images in reflectance: mean, truth and standard deviation. For a standard deviation of 0 the score is the
        absolute error.
    where : array_like of bool, shape (y, x), optional
        Pixels to compare; all by default.

    Returns
    -------
    float
        In reflectance.

    References
    ----------
    Gneiting and Raftery 2007, Strictly proper scoring rules, doi 10.1198/016214506000001437.

    Examples
    --------
    >>> round(crps([[[0.0]]], [[[0.0]]], [[[1.0]]]), 4)
    0.2337
    """
    from scipy.special import ndtr

    a, b = _pixels(predicted, truth, where)
    spread, _ = _pixels(uncertainty, truth, where)
    error = b - a
    with np.errstate(divide="ignore", invalid="ignore"):
        z = error / spread
        density = np.exp(-0.5 * z * z) / np.sqrt(2 * np.pi)
        score = spread * (z * (2 * ndtr(z) - 1) + 2 * density - 1 / np.sqrt(np.pi))
    return float(np.where(spread > 0, score, np.abs(error)).mean())
