"""Numerical kernels: one answer per pixel from its series, on the stored numbers themselves.

All work on a flat pixel axis: `bands` is (time, band, pixel) of uint16, int16 or float32, `clear` is (time,
pixel). What lies at pixels that are not clear never reaches an answer, NaN included. Compiled by numba on
first use; without numba, or with ``XR_CLOUDFREE_NUMBA=0`` in the environment, the same arithmetic runs in
NumPy.
"""

from __future__ import annotations

import importlib
import os
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray


@lru_cache(maxsize=1)
def _kernels() -> Any:
    """The module that computes: compiled where that is possible and not switched off."""
    if os.environ.get("XR_CLOUDFREE_NUMBA", "1") != "0":
        try:
            return importlib.import_module("xr_cloudfree.models.kernels.compiled")
        except ImportError:  # not installed, or not for this NumPy
            pass
    return importlib.import_module("xr_cloudfree.models.kernels.plain")


def count(clear: NDArray[np.bool_]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Number of clear dates, and the last of them.

    Parameters
    ----------
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel was seen.

    Returns
    -------
    number : ndarray of int16, shape (pixel,)
        How many dates are clear.
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
    return _kernels().count(clear)  # type: ignore[no-any-return]


def bracket(clear: NDArray[np.bool_], split: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Clear dates on either side of a moment: the last before it and the first after it.

    Parameters
    ----------
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel was seen.
    split : int
        Number of dates that lie before the moment, or on it.

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
    return _kernels().bracket(clear, split)  # type: ignore[no-any-return]


def blend(
    bands: NDArray[np.generic],
    before: NDArray[np.int16],
    after: NDArray[np.int16],
    weight: NDArray[np.float32],
) -> NDArray[np.float32]:
    """Two dates of each pixel, blended: ``before + weight * (after - before)``.

    Parameters
    ----------
    bands : ndarray, shape (time, band, pixel)
        Values.
    before, after : ndarray of int16, shape (pixel,)
        Indices of the dates; all must be valid.
    weight : ndarray of float32, shape (pixel,)
        Weight of `after`; where it is 0 the value of `before` comes back as it is.

    Returns
    -------
    ndarray of float32, shape (band, pixel)
        The blend, in the units of `bands`.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.kernels import dispatch as kernels
    >>> bands = np.array([[[100, 7]], [[200, 9]]], np.uint16)
    >>> first, second = np.zeros(2, np.int16), np.ones(2, np.int16)
    >>> kernels.blend(bands, first, second, np.array([0.25, 0], np.float32)).tolist()
    [[125.0, 7.0]]
    """
    return _kernels().blend(bands, before, after, weight)  # type: ignore[no-any-return]


def median(bands: NDArray[np.generic], clear: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Median of each pixel's clear values, band by band; of an even number the mean of the middle two.

    Parameters
    ----------
    bands : ndarray, shape (time, band, pixel)
        Values.
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel was seen.

    Returns
    -------
    ndarray of float32, shape (band, pixel)
        The median, exact; 0 where no date is clear.

    Notes
    -----
    The compiled form runs a sorting network over many pixels at once. Its comparators are data, so that one
    compilation serves every number of dates [1]_.

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
    return _kernels().median(bands, clear)  # type: ignore[no-any-return]


def mix(bands: NDArray[np.generic], clear: NDArray[np.bool_], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Weighted sum over the clear dates, with the weights of each pixel shared by its bands.

    Parameters
    ----------
    bands : ndarray, shape (time, band, pixel)
        Values.
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel was seen; other dates have no weight.
    weights : ndarray of float32, shape (time, pixel)
        Weights of the dates.

    Returns
    -------
    ndarray of float32, shape (band, pixel)
        The sum, added up in the order of the dates.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.kernels import dispatch as kernels
    >>> bands = np.array([[[10.0]], [[np.nan]], [[30.0]]], np.float32)
    >>> clear = np.array([[True], [False], [True]])
    >>> kernels.mix(bands, clear, np.full((3, 1), 0.5, np.float32)).tolist()
    [[20.0]]
    """
    return _kernels().mix(bands, clear, weights)  # type: ignore[no-any-return]


def geomedian(
    bands: NDArray[np.generic], clear: NDArray[np.bool_], tolerance: float = 1e-4, limit: int = 60
) -> NDArray[np.float32]:
    """Geometric median of each pixel's clear spectra: the one with the least sum of distances to them.

    Parameters
    ----------
    bands : ndarray, shape (time, band, pixel)
        Values.
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel was seen.
    tolerance : float
        The iteration ends when a step is shorter than this share of the mean distance to the clear spectra.
        It has no unit, so digital numbers and reflectance give the same spectrum.
    limit : int
        Most iterations.

    Returns
    -------
    ndarray of float32, shape (band, pixel)
        The geometric median. Of two spectra, for which it is not unique, the mean; 0 where no date is clear.

    Notes
    -----
    Weiszfeld's iteration in the form that may pass through a spectrum [1]_, with each step lengthened along
    the secant of the last two (Anderson acceleration of depth one [2]_), and not after a step that made
    matters worse.

    References
    ----------
    .. [1] Y. Vardi and C.-H. Zhang, "The multivariate L1-median and associated data depth", PNAS 97, 2000.
       doi:10.1073/pnas.97.4.1423
    .. [2] H. F. Walker and P. Ni, "Anderson acceleration for fixed-point iterations", SIAM J. Numer. Anal.
       49, 2011.
       doi:10.1137/10078356X

    Examples
    --------
    The middle of a square's corners:

    >>> import numpy as np
    >>> from xr_cloudfree.models.kernels import dispatch as kernels
    >>> corners = np.array([[0, 0], [0, 2], [2, 0], [2, 2]], np.uint16)[:, :, np.newaxis]
    >>> kernels.geomedian(corners, np.ones((4, 1), bool)).tolist()
    [[1.0], [1.0]]
    """
    if bands.shape[1] == 1:  # on a line it is the median, which needs no iteration
        return median(bands, clear)
    return _kernels().geomedian(bands, clear, tolerance, limit)  # type: ignore[no-any-return]


def interior_error(
    bands: NDArray[np.generic], clear: NDArray[np.bool_], days: NDArray[np.float32], growth: float
) -> NDArray[np.float32]:
    """How well each pixel's clear dates are predicted, linearly in time, by their clear neighbours.

    Parameters
    ----------
    bands : ndarray, shape (time, band, pixel)
        Values.
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel was seen.
    days : ndarray of float32, shape (time,)
        Increasing days.
    growth : float
        Per day: an error is expected to grow with the gap g that is bridged at the share w of its length, its
        variance in proportion to ``1 + w**2 + (1 - w)**2 + growth * g * w * (1 - w)``.

    Returns
    -------
    ndarray of float32, shape (band, pixel)
        Mean absolute error, each over the root of that variance; 0 where fewer than three dates are clear.

    Examples
    --------
    The middle of three is 30 off, with an expected variance of 1.5 where nothing grows:

    >>> import numpy as np
    >>> from xr_cloudfree.models.kernels import dispatch as kernels
    >>> bands = np.array([10, 50, 30], np.uint16).reshape(3, 1, 1)
    >>> days = np.array([0, 5, 10], np.float32)
    >>> float(kernels.interior_error(bands, np.ones((3, 1), bool), days, 0.0)[0, 0] ** 2).__round__()
    600
    """
    return _kernels().interior_error(bands, clear, days, growth)  # type: ignore[no-any-return]
