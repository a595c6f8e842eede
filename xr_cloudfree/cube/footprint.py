"""Grids of two sensors: what a coarser sensor sees of an image, and its image on finer pixels.

Both are products with one sparse matrix for rows and one for columns, because point spread functions and interpolation
are separable. The grids need the same axes; their pixels need not nest. The sums have a fixed order.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

# Full width at half maximum, in pixels, of the Gaussian that blurs a pixel of a sensor, before it is averaged over the
# pixel's square.
WIDTH = 1.0
FWHM = 2.3548  # of a Gaussian, in standard deviations
# Least share of the footprint of a coarse pixel that has to be inside of the image.
LEAST_INSIDE = 0.7
# Least share of what a coarse pixel sees that has to be clear.
LEAST_CLEAR = 0.95
# Weights below this are left out of a footprint.
NEGLIGIBLE = 1e-4


@dataclass(frozen=True, eq=False)
class Footprint:
    """The relation of coarse pixels to the fine pixels of a tile.

    Parameters
    ----------
    rows, columns : ndarray of float64, shape (row,) and (column,)
        Centres of the coarse pixels in fine pixels from the tile's first edge, increasing and evenly spaced.
    shape : tuple of int
        Rows and columns of the tile.
    step : tuple of float
        Distance of coarse pixels along rows and columns, in fine pixels.
    width : tuple of float
        Size of what a coarse pixel sees, in fine pixels: `step`, or more for an image that was resampled.

    Examples
    --------
    >>> centres = np.array([1.5, 4.5, 7.5])
    >>> footprint = Footprint(centres, centres, (9, 9), (3.0, 3.0), (3.0, 3.0))
    >>> flat = np.full((1, 9, 9), 0.25, np.float32)
    >>> footprint.degrade(flat).round(6).tolist()
    [[[0.25, 0.25, 0.25], [0.25, 0.25, 0.25], [0.25, 0.25, 0.25]]]
    >>> bool(abs(footprint.interpolate(footprint.degrade(flat)) - flat).max() < 1e-6)
    True
    """

    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    shape: tuple[int, int]
    step: tuple[float, float]
    width: tuple[float, float]

    @cached_property
    def inside(self) -> NDArray[np.bool_]:
        """Coarse pixels whose footprint lies inside of the tile, shape (row, column)."""
        (_, rows), (_, columns) = self._spread
        return np.asarray(rows[:, None] & columns)

    @cached_property
    def _spread(self) -> tuple[tuple[NDArray[np.float32], NDArray[np.bool_]], ...]:
        axes = zip((self.rows, self.columns), self.shape, self.width, strict=True)
        return tuple(spread_weights(*axis) for axis in axes)

    @cached_property
    def _degrading(self) -> tuple[Any, Any]:
        return _sparse(weights for weights, _ in self._spread)

    @cached_property
    def _cubic(self) -> tuple[Any, Any]:
        axes = zip((self.rows, self.columns), self.shape, self.step, strict=True)
        return _sparse(cubic_weights(*axis) for axis in axes)

    @cached_property
    def _linear(self) -> tuple[Any, Any]:
        axes = zip((self.rows, self.columns), self.shape, self.step, strict=True)
        return _sparse(linear_weights(*axis) for axis in axes)

    def degrade(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return images (n, y, x) as the coarser sensor sees them, shape (n, row, column); 0 where not inside."""
        return _transform(self._degrading, images)

    def covered(self, clear: NDArray[np.bool_]) -> NDArray[np.bool_]:
        """Return the coarse pixels that see clear fine ones (y, x) almost only; shape (row, column)."""
        return np.asarray(self.degrade(clear[None].astype(np.float32))[0] >= LEAST_CLEAR)

    def degrade_clear(
        self, images: NDArray[np.float32], clear: NDArray[np.bool_]
    ) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
        """Return images as the coarser sensor sees them, from their clear pixels alone, and where that is possible.

        Parameters
        ----------
        images : ndarray of float32, shape (n, y, x)
            The images.
        clear : ndarray of bool, shape (y, x)
            Where they are clear; other values may be NaN.

        Returns
        -------
        images : ndarray of float32, shape (n, row, column)
            What it sees; arbitrary where not valid.
        valid : ndarray of bool, shape (row, column)
            Where the footprint lies inside of the tile and `LEAST_CLEAR` of it are clear.
        """
        share = self.degrade(clear[None].astype(np.float32))[0]
        seen = self.degrade(np.where(clear, images, np.float32(0))) / np.maximum(share, LEAST_CLEAR)
        return seen, self.inside & (share >= LEAST_CLEAR)

    def smooth(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return images (n, y, x) as the coarser sensor sees them, with the outer pixels that are inside repeated."""
        (_, rows), (_, columns) = self._spread
        coarse = self.degrade(images)
        if not rows.any() or not columns.any():
            return coarse
        row, column = (
            np.clip(np.arange(len(inside)), np.flatnonzero(inside)[0], np.flatnonzero(inside)[-1])
            for inside in (rows, columns)
        )
        return coarse[:, row[:, None], column]

    def interpolate(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return coarse images (n, row, column) on the fine pixels, by cubic interpolation; shape (n, y, x)."""
        return _transform(self._cubic, images)

    def interpolate_linearly(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return coarse images (n, row, column) on the fine pixels, by linear interpolation; shape (n, y, x)."""
        return _transform(self._linear, images)

    def interpolate_at(
        self, images: NDArray[np.float32], pixels: NDArray[np.intp], linear: bool = False
    ) -> NDArray[np.float32]:
        """Return coarse images (n, row, column) at some fine pixels, as the functions for all pixels do; (n, pixel)."""
        weights = self._linear if linear else self._cubic
        row, column = np.divmod(pixels, self.shape[1])
        total = np.zeros((len(images), len(pixels)), np.float32)
        (rows, of_rows), (columns, of_columns) = (
            _taps(matrix, place) for matrix, place in zip(weights, (row, column), strict=True)
        )
        for i in range(rows.shape[1]):
            for j in range(columns.shape[1]):
                total += images[:, rows[:, i], columns[:, j]] * (of_rows[:, i] * of_columns[:, j])
        return total

    def repeat(self, images: NDArray[np.float32]) -> NDArray[np.float32]:
        """Return coarse images (n, row, column) on the fine pixels, each from the nearest; shape (n, y, x)."""
        rows, columns = (
            np.clip(np.rint((np.arange(size) + 0.5 - centres[0]) / step), 0, len(centres) - 1).astype(np.intp)
            for centres, size, step in zip((self.rows, self.columns), self.shape, self.step, strict=True)
        )
        return images[:, rows[:, None], columns]


def _taps(matrix: Any, places: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.float32]]:
    """Return the positions and the weights of the entries of some rows of a sparse matrix, shape (row, entry)."""
    counts = np.diff(matrix.indptr)[places]
    number = np.arange(int(counts.max(initial=0)))
    entries = np.minimum(matrix.indptr[places][:, None] + number, len(matrix.data) - 1)
    used = number < counts[:, None]
    return matrix.indices[entries], np.where(used, matrix.data[entries], np.float32(0))


def _sparse(matrices: Any) -> tuple[Any, Any]:
    from scipy.sparse import csr_array

    rows, columns = (csr_array(matrix) for matrix in matrices)
    return rows, columns


def _transform(matrices: tuple[Any, Any], images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Multiply images (n, a, b) by one matrix from the left and by the transpose of another from the right."""
    left, right = matrices
    n, a, b = images.shape
    first = left @ np.moveaxis(images, 1, 0).reshape(a, n * b)
    second = right @ np.moveaxis(first.reshape(-1, n, b), 2, 0).reshape(b, -1)
    return np.ascontiguousarray(second.reshape(-1, left.shape[0], n).transpose(2, 1, 0), np.float32)


def spread_weights(
    centres: NDArray[np.float64], size: int, width: float
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the weights of fine pixels in coarse ones along an axis, and which of these lie inside.

    Parameters
    ----------
    centres : ndarray of float64, shape (coarse,)
        Centres of the coarse pixels, in fine pixels from the first edge.
    size : int
        Number of fine pixels.
    width : float
        Size of a coarse pixel in fine ones.

    Returns
    -------
    weights : ndarray of float32, shape (coarse, fine)
        Each row is 1 in sum, or 0 throughout.
    inside : ndarray of bool, shape (coarse,)
        Where at least `LEAST_INSIDE` of the footprint are within the axis.

    Notes
    -----
    The point spread function is a square of one pixel blurred by a Gaussian as wide as the pixel at half of its
    maximum: a modulation of 0.26 at the Nyquist frequency.

    Examples
    --------
    >>> weights, inside = spread_weights(np.array([1.5, 4.5, 7.5]), 9, 3.0)
    >>> [round(float(w), 2) for w in weights[1]]
    [0.01, 0.04, 0.12, 0.21, 0.25, 0.21, 0.12, 0.04, 0.01]
    >>> inside.tolist()
    [True, True, True]
    """
    from scipy.special import erf

    scale = np.sqrt(2) * WIDTH * width / FWHM
    away = np.arange(size) + 0.5 - centres[:, None]
    weights = (erf((away + width / 2) / scale) - erf((away - width / 2) / scale)) / (2 * width)
    total = weights.sum(axis=1)
    inside = total >= LEAST_INSIDE
    weights[weights < NEGLIGIBLE] = 0
    weights = np.where(inside[:, None], weights / np.where(inside, weights.sum(axis=1), 1.0)[:, None], 0.0)
    return weights.astype(np.float32), inside


def linear_weights(centres: NDArray[np.float64], size: int, step: float) -> NDArray[np.float32]:
    """Return the weights of linear interpolation from coarse to fine pixels; constant beyond the outer centres.

    Examples
    --------
    >>> linear_weights(np.array([1.0, 3.0]), 4, 2.0).tolist()
    [[1.0, 0.0], [0.75, 0.25], [0.25, 0.75], [0.0, 1.0]]
    """
    return _convolution_weights(centres, size, step, lambda t: np.clip(1 - t, 0, None), 1)


def cubic_weights(centres: NDArray[np.float64], size: int, step: float) -> NDArray[np.float32]:
    """Return the weights of cubic interpolation from coarse to fine pixels; the outer pixels are repeated beyond.

    References
    ----------
    Keys 1981, Cubic convolution interpolation for digital image processing, doi 10.1109/TASSP.1981.1163711.

    Examples
    --------
    >>> cubic_weights(np.arange(4) + 0.5, 4, 1.0).tolist() == np.eye(4).tolist()  # the same pixels
    True
    """

    def kernel(t: NDArray[np.float64]) -> NDArray[np.float64]:
        near, far = 1.5 * t**3 - 2.5 * t**2 + 1, -0.5 * t**3 + 2.5 * t**2 - 4 * t + 2
        return np.where(t <= 1, near, np.where(t < 2, far, 0.0))

    return _convolution_weights(centres, size, step, kernel, 2)


def _convolution_weights(
    centres: NDArray[np.float64],
    size: int,
    step: float,
    kernel: Callable[[NDArray[np.float64]], NDArray[np.float64]],
    reach: int,
) -> NDArray[np.float32]:
    n = len(centres)
    weights = np.zeros((size, n))
    if not n:
        return weights.astype(np.float32)
    place = np.clip((np.arange(size) + 0.5 - centres[0]) / step, 0, n - 1)
    first = np.floor(place).astype(np.intp)
    for neighbour in range(1 - reach, reach + 1):
        index = np.clip(first + neighbour, 0, n - 1)
        np.add.at(weights, (np.arange(size), index), kernel(np.abs(place - (first + neighbour))))
    return weights.astype(np.float32)
