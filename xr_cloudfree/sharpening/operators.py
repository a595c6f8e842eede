"""What a coarser sensor sees of a fine image, and the way back: degradation, interpolation, consistency.

Images are float32 arrays (..., y, x). Every sum has a fixed order, so a pixel has the same value in whichever window it
is computed, except within the reach of the kernels of the window's border, where images are continued by reflection.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

Image = NDArray[np.float32]

# Full width at half maximum of the Gaussian point-spread function, in coarse pixels. With the average over the pixel
# that follows, the transfer at the Nyquist frequency is 0.26; that of Sentinel-2 is specified as 0.15 to 0.3.
FWHM = 1.0
# Steps of back-projection. Each takes away most of what the degraded result still differs from the observation.
STEPS = 3


@lru_cache
def response_of(factor: int) -> tuple[tuple[float, ...], int]:
    """Return the response of a coarse pixel along one axis, in fine pixels, and how far it reaches to each side.

    Examples
    --------
    >>> response, reach = response_of(2)
    >>> len(response), reach, round(sum(response), 6)
    (8, 3, 1.0)
    """
    sigma = FWHM * factor / np.sqrt(8 * np.log(2))
    reach = int(np.ceil(3 * sigma))
    offset = np.arange(-reach, reach + 1)
    gaussian = np.exp(-np.square(offset / sigma) / 2)
    response = np.convolve(gaussian / gaussian.sum(), np.full(factor, 1 / factor))
    return tuple(response.tolist()), reach


def degrade(image: Image, factor: int) -> Image:
    """Return an image as a sensor with larger pixels sees it: blurred by its point-spread function, and averaged.

    Parameters
    ----------
    image : ndarray of float32, shape (..., y, x)
        The fine image, without missing values; rows and columns are multiples of `factor`.
    factor : int
        Fine pixels per coarse pixel along each axis.

    Returns
    -------
    ndarray of float32, shape (..., y / factor, x / factor)
        The coarse image.

    Examples
    --------
    >>> degrade(np.full((4, 6), 0.5, np.float32), 2)
    array([[0.5, 0.5, 0.5],
           [0.5, 0.5, 0.5]], dtype=float32)
    """
    response, reach = response_of(factor)
    for axis in (-2, -1):
        size = image.shape[axis] // factor
        padded = _pad(image, reach, axis, "symmetric")
        total = np.zeros(_resized(image.shape, axis, size), np.float32)
        for offset, weight in enumerate(response):
            part = _along(axis, slice(offset, offset + factor * (size - 1) + 1, factor))
            total += np.float32(weight) * padded[part]
        image = total
    return image


def upsample(image: Image, factor: int) -> Image:
    """Interpolate a coarse image at the centres of fine pixels, by cubic convolution.

    Parameters
    ----------
    image : ndarray of float32, shape (..., y, x)
        The coarse image, without missing values.
    factor : int
        Fine pixels per coarse pixel along each axis.

    Returns
    -------
    ndarray of float32, shape (..., y * factor, x * factor)
        The fine image.

    References
    ----------
    Keys 1981, Cubic convolution interpolation for digital image processing, doi 10.1109/TASSP.1981.1163711.

    Examples
    --------
    >>> upsample(np.array([[0.0, 1.0, 2.0, 3.0]], np.float32), 2)[0, 2:6].tolist()
    [0.7265625, 1.25, 1.75, 2.2734375]
    """
    for axis in (-2, -1):
        size = image.shape[axis]
        padded = _pad(image, 2, axis, "edge")
        fine = np.empty(_resized(image.shape, axis, size * factor), np.float32)
        for phase in range(factor):
            position = (phase + 0.5) / factor - 0.5  # in coarse pixels from the centre of the coarse pixel
            first = int(np.floor(position))
            weights = _cubic(position - first)
            total = np.zeros(_resized(image.shape, axis, size), np.float32)
            for offset, weight in enumerate(weights):
                start = 2 + first - 1 + offset
                total += np.float32(weight) * padded[_along(axis, slice(start, start + size))]
            fine[_along(axis, slice(phase, None, factor))] = total
        image = fine
    return image


def _cubic(t: float) -> tuple[float, float, float, float]:
    """Return the weights of four samples for a position between the second and the third."""
    return (
        -0.5 * (t**3 - 2 * t**2 + t),
        1.5 * t**3 - 2.5 * t**2 + 1,
        -1.5 * t**3 + 2 * t**2 + 0.5 * t,
        -0.5 * (t**2 - t**3),
    )


def back_project(image: Image, coarse: Image, factor: int) -> Image:
    """Return the image, changed smoothly so that it gives a coarse observation when degraded.

    Parameters
    ----------
    image : ndarray of float32, shape (..., y, x)
        The fine image.
    coarse : ndarray of float32, shape (..., y / factor, x / factor)
        The observation.
    factor : int
        Fine pixels per coarse pixel along each axis.

    Returns
    -------
    ndarray of float32, shape of `image`
        The image after `STEPS` steps of back-projection.

    References
    ----------
    Irani and Peleg 1991, Improving resolution by image registration, doi 10.1016/1049-9652(91)90045-L.
    """
    for _ in range(STEPS):
        image = image + upsample(coarse - degrade(image, factor), factor)
    return image


def interpolate(coarse: Image, factor: int) -> Image:
    """Return the smooth image that gives a coarse observation when degraded: its plain enlargement.

    Parameters
    ----------
    coarse : ndarray of float32, shape (..., y, x)
        The observation.
    factor : int
        Fine pixels per coarse pixel along each axis.
    """
    return back_project(upsample(coarse, factor), coarse, factor)


def detail(image: Image, factor: int) -> Image:
    """Return what degradation loses of a fine image: the image less the smooth one made of its degraded form."""
    return np.asarray(image - interpolate(degrade(image, factor), factor))


def _pad(image: Image, margin: int, axis: int, mode: str) -> Image:
    widths = [(0, 0)] * image.ndim
    widths[axis] = (margin, margin)
    return np.asarray(np.pad(image, widths, mode=mode))  # type: ignore[call-overload]


def _along(axis: int, part: slice) -> tuple[slice | type(Ellipsis), ...]:  # type: ignore[valid-type]
    return (..., part, slice(None)) if axis == -2 else (..., part)


def _resized(shape: tuple[int, ...], axis: int, size: int) -> tuple[int, ...]:
    resized = list(shape)
    resized[axis] = size
    return tuple(resized)
