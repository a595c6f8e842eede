"""Numerical kernels along the time axis, one result per pixel, computed on the values as stored.

All kernels work on a flat pixel axis: `bands` is (time, band, pixel) of uint16, int16 or float32, `clear` is (time,
pixel). Values at pixels that are not clear, NaN included, never affect a result. The kernels are compiled by numba on
their first call; `compiled` is imported inside the functions because importing numba is slow.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray


def count(clear: NDArray[np.bool_]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Count the clear dates of each pixel, and find the last of them.

    Parameters
    ----------
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel is clear.

    Returns
    -------
    number : ndarray of int16, shape (pixel,)
        Number of clear dates.
    last : ndarray of int16, shape (pixel,)
        Index of the last clear date, -1 where none is clear.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.kernels import dispatch as kernels
    >>> number, last = kernels.count(np.array([[True, False], [True, False], [False, False]]))
    >>> number.tolist(), last.tolist()
    ([2, 0], [1, -1])
    """
    from xr_cloudfree.models.kernels import compiled

    return compiled.count(clear)


def bracket(clear: NDArray[np.bool_], split: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Find the clear dates around a moment: the last before it and the first after it.

    Parameters
    ----------
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel is clear.
    split : int
        Number of dates before or at the moment.

    Returns
    -------
    before, after : ndarray of int16, shape (pixel,)
        Indices of the two dates; -1 where there is none on that side.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.kernels import dispatch as kernels
    >>> clear = np.array([[True, False], [False, False], [True, True]])
    >>> before, after = kernels.bracket(clear, split=2)
    >>> before.tolist(), after.tolist()
    ([0, -1], [2, 2])
    """
    from xr_cloudfree.models.kernels import compiled

    return compiled.bracket(clear, split)


def blend(
    bands: NDArray[np.generic],
    before: NDArray[np.int16],
    after: NDArray[np.int16],
    weight: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Blend two dates of each pixel: ``before + weight * (after - before)``.

    Parameters
    ----------
    bands : ndarray, shape (time, band, pixel)
        Values.
    before, after : ndarray of int16, shape (pixel,)
        Indices of the dates; all must be valid.
    weight : ndarray of float32, shape (pixel,)
        Weight of `after`; where it is 0 the value of `before` is returned unchanged.

    Returns
    -------
    ndarray of float32, shape (band, pixel)
        Blended values, in the units of `bands`.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.kernels import dispatch as kernels
    >>> bands = np.array([[[100, 7]], [[200, 9]]], np.uint16)
    >>> first, second = np.zeros(2, np.int16), np.ones(2, np.int16)
    >>> kernels.blend(bands, first, second, np.array([0.25, 0], np.float32)).tolist()
    [[125.0, 7.0]]
    """
    from xr_cloudfree.models.kernels import compiled

    return compiled.blend(bands, before, after, weight)


def median(bands: NDArray[np.generic], clear: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Compute the median of each pixel's clear values per band; for an even number, the mean of the middle two.

    Parameters
    ----------
    bands : ndarray, shape (time, band, pixel)
        Values.
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel is clear.

    Returns
    -------
    ndarray of float32, shape (band, pixel)
        The median, exact; 0 where no date is clear.

    Notes
    -----
    A sorting network runs over many pixels at once. Its comparators are data, so one compilation serves every number
    of dates [1]_.

    References
    ----------
    .. [1] K. E. Batcher, "Sorting networks and their applications", AFIPS 1968. doi:10.1145/1468075.1468121

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.kernels import dispatch as kernels
    >>> bands = np.array([[[10]], [[65535]], [[13]]], np.uint16)
    >>> kernels.median(bands, np.array([[True], [False], [True]])).tolist()
    [[11.5]]
    """
    from xr_cloudfree.models.kernels import compiled

    return compiled.median(bands, clear)


def mix(bands: NDArray[np.generic], clear: NDArray[np.bool_], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Compute the weighted sum over the clear dates; all bands of a pixel share its weights.

    Parameters
    ----------
    bands : ndarray, shape (time, band, pixel)
        Values.
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel is clear; other dates get no weight.
    weights : ndarray of float32, shape (time, pixel)
        Weights of the dates.

    Returns
    -------
    ndarray of float32, shape (band, pixel)
        The sum, accumulated in the order of the dates.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.kernels import dispatch as kernels
    >>> bands = np.array([[[10.0]], [[np.nan]], [[30.0]]], np.float32)
    >>> clear = np.array([[True], [False], [True]])
    >>> kernels.mix(bands, clear, np.full((3, 1), 0.5, np.float32)).tolist()
    [[20.0]]
    """
    from xr_cloudfree.models.kernels import compiled

    return compiled.mix(bands, clear, weights)


def geomedian(
    bands: NDArray[np.generic], clear: NDArray[np.bool_], tolerance: float = 1e-4, limit: int = 60
) -> NDArray[np.float32]:
    """Compute the geometric median of each pixel's clear spectra, which minimises the sum of distances to them.

    Parameters
    ----------
    bands : ndarray, shape (time, band, pixel)
        Values.
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel is clear.
    tolerance : float
        The iteration stops when a step is shorter than this fraction of the mean distance to the clear spectra. It
        is dimensionless, so digital numbers and reflectance give the same spectrum.
    limit : int
        Maximum number of iterations.

    Returns
    -------
    ndarray of float32, shape (band, pixel)
        The geometric median; for two spectra, where it is not unique, their mean; 0 where no date is clear.

    Notes
    -----
    Weiszfeld's iteration, modified so that an iterate may coincide with a spectrum [1]_, with Anderson acceleration of
    depth one [2]_; a step that follows an increase of the sum of distances is not accelerated.

    References
    ----------
    .. [1] Y. Vardi and C.-H. Zhang, "The multivariate L1-median and associated data depth", PNAS 97, 2000.
       doi:10.1073/pnas.97.4.1423
    .. [2] H. F. Walker and P. Ni, "Anderson acceleration for fixed-point iterations", SIAM J. Numer. Anal.
       49, 2011.
       doi:10.1137/10078356X

    Examples
    --------
    The geometric median of the corners of a square is its centre:

    >>> import numpy as np
    >>> from xr_cloudfree.models.kernels import dispatch as kernels
    >>> corners = np.array([[0, 0], [0, 2], [2, 0], [2, 2]], np.uint16)[:, :, np.newaxis]
    >>> kernels.geomedian(corners, np.ones((4, 1), bool)).tolist()
    [[1.0], [1.0]]
    """
    if bands.shape[1] == 1:  # in one dimension it is the median, which needs no iteration
        return median(bands, clear)
    from xr_cloudfree.models.kernels import compiled

    return compiled.geomedian(bands, clear, tolerance, limit)


def interior_error(
    bands: NDArray[np.generic], clear: NDArray[np.bool_], days: NDArray[np.float32], growth: float
) -> NDArray[np.float32]:
    """Compute the error of predicting each clear date linearly in time from its two clear neighbours.

    Parameters
    ----------
    bands : ndarray, shape (time, band, pixel)
        Values.
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel is clear.
    days : ndarray of float32, shape (time,)
        Days, increasing.
    growth : float
        Growth of the error variance per day. Across a gap of g days, at the fraction w of its length, the variance is
        taken to be proportional to ``1 + w**2 + (1 - w)**2 + growth * g * w * (1 - w)``.

    Returns
    -------
    ndarray of float32, shape (band, pixel)
        Mean of the absolute errors, each divided by the square root of that variance; 0 where fewer than three dates
        are clear.

    Examples
    --------
    The middle of three dates is off by 30, with a relative variance of 1.5 for `growth` 0:

    >>> import numpy as np
    >>> from xr_cloudfree.models.kernels import dispatch as kernels
    >>> bands = np.array([10, 50, 30], np.uint16).reshape(3, 1, 1)
    >>> days = np.array([0, 5, 10], np.float32)
    >>> float(kernels.interior_error(bands, np.ones((3, 1), bool), days, 0.0)[0, 0] ** 2).__round__()
    600
    """
    from xr_cloudfree.models.kernels import compiled

    return compiled.interior_error(bands, clear, days, growth)


def deviations(
    bands: NDArray[np.float32],
    clear: NDArray[np.bool_],
    days: NDArray[np.float64],
    dates: NDArray[np.intp],
    image: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """Write the differences of some dates to an image, after the gaps of each are interpolated linearly in time.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, pixel)
        Values.
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel is clear.
    days : ndarray of float64, shape (time,)
        Days, increasing.
    dates : ndarray of int, shape (date,)
        Indices of the dates, increasing. A gap is interpolated between the clear ones among them; beyond the first or
        last clear one, its value is used.
    image : ndarray of float32, shape (band, pixel)
        The image that is subtracted.
    out : ndarray of float32, shape (date, band, pixel)
        The differences; 0 at pixels that are clear on none of these dates.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.kernels import dispatch as kernels
    >>> bands = np.array([1, 9, 4], np.float32).reshape(3, 1, 1)
    >>> clear, days = np.array([[True], [False], [True]]), np.array([0.0, 1, 3])
    >>> out = np.empty((3, 1, 1), np.float32)
    >>> kernels.deviations(bands, clear, days, np.arange(3), np.ones((1, 1), np.float32), out)
    >>> out.ravel().tolist()
    [0.0, 1.0, 3.0]
    """
    from xr_cloudfree.models.kernels import compiled

    compiled.deviations(bands, clear, days, dates, image, out)
