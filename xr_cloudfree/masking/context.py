"""Regression of a date's deviation from its interpolation, fitted to its clear pixels cell by cell.

What differs between a date and the interpolation of its neighbours in time is phenology, moisture and illumination,
common to many pixels of a kind. A robust ridge regression on the clear pixels around each cell predicts it, and what it
leaves is far smaller than the deviation itself.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CELL = 32
"""Edge, in pixels, of the cells that fits are made on; they start at pixel (0, 0) of the cube."""
# Pixels between the samples of a cell.
STEP = 2
# Ridge penalty relative to the number of samples, and in samples.
RIDGE, PRIOR = 0.02, 20.0
# The residual, in scales, at which weights reach zero in the second fit.
CUT = 3.5
# Expected size of residuals, and the number of samples that this is worth.
USUAL_SIZE, USUAL_COUNT = 0.01, 5.0


def predict_deviation(
    features: NDArray[np.float32], deviation: NDArray[np.float32], weight: NDArray[np.float32]
) -> NDArray[np.float32]:
    """Predict the deviation of a date from its interpolation, with fits to each cell and the cells around it.

    Parameters
    ----------
    features : ndarray of float32, shape (feature, y, x)
        Features of each pixel; the first pixel is that of a cell.
    deviation : ndarray of float32, shape (band, y, x)
        What to predict.
    weight : ndarray of float32, shape (y, x)
        Weight of each pixel in the fits; 0 for pixels that may be cloud.

    Returns
    -------
    ndarray of float32, shape (band, y, x)
    """
    from xr_cloudfree.masking.kernels import predict_cells  # compiled: imported only where it is needed

    height, width = weight.shape
    rows, columns = -(-height // CELL), -(-width // CELL)
    if not weight.any():
        return np.zeros_like(deviation)
    inputs = _by_cell(features, rows, columns).astype(np.float64)
    outputs = _by_cell(deviation, rows, columns).astype(np.float64)
    inputs = np.concatenate([np.ones_like(inputs[..., :1]), inputs], axis=2)
    fit = _by_cell(weight[None], rows, columns)[..., 0].astype(np.float64)
    coefficients = _fit(inputs, outputs, fit, rows, columns)
    residual = outputs - np.matmul(inputs, coefficients)
    size = np.sqrt(np.mean(residual * residual, axis=2))
    # The scale is that of the cell alone, so that a pixel depends on no more than the second cells around its own.
    total = (size * fit).sum(axis=1) + USUAL_SIZE * USUAL_COUNT
    scale = 1.2 * total / (fit.sum(axis=1) + USUAL_COUNT)
    coefficients = _fit(inputs, outputs, fit * _tukey(size, scale[:, None]), rows, columns)
    return predict_cells(coefficients.astype(np.float32), features, CELL, columns)


def _fit(
    inputs: NDArray[np.float64], outputs: NDArray[np.float64], weights: NDArray[np.float64], rows: int, columns: int
) -> NDArray[np.float64]:
    """Return the coefficients of each cell, fitted to its samples and those of the cells around it."""
    moments = np.matmul((inputs * weights[..., None]).transpose(0, 2, 1), np.concatenate([inputs, outputs], axis=2))
    return _solve(_around(moments, rows, columns))


def _by_cell(images: NDArray[np.generic], rows: int, columns: int) -> NDArray[np.generic]:
    """Return the samples of each cell, shape (cell, sample, image); 0 beyond the border."""
    n = len(images)
    sampled = images[:, ::STEP, ::STEP]
    edge = CELL // STEP
    padding = [(0, 0), (0, rows * edge - sampled.shape[1]), (0, columns * edge - sampled.shape[2])]
    padded = np.pad(sampled, padding)
    cells = padded.reshape(n, rows, edge, columns, edge).transpose(1, 3, 2, 4, 0)
    return np.ascontiguousarray(cells.reshape(rows * columns, edge * edge, n))


def _around(own: NDArray[np.float64], rows: int, columns: int) -> NDArray[np.float64]:
    """Sum values of the cells over the 3 x 3 cells around each."""
    padded = np.pad(own.reshape(rows, columns, *own.shape[1:]), [(1, 1), (1, 1)] + [(0, 0)] * (own.ndim - 1))
    total = np.zeros_like(padded[1:-1, 1:-1])
    for y in range(3):
        for x in range(3):
            total += padded[y : y + rows, x : x + columns]
    return total.reshape(own.shape)


def _solve(moments: NDArray[np.float64]) -> NDArray[np.float64]:
    """Solve the ridge regression of each cell from its moments; the first input is 1."""
    n = moments.shape[1]
    count = np.maximum(moments[:, 0, 0], 1e-9)[:, None, None]
    mean = moments[:, :1, 1:n] / count
    target = moments[:, :1, n:]
    gram = moments[:, 1:, 1:n] - count * np.matmul(mean.transpose(0, 2, 1), mean)
    cross = moments[:, 1:, n:] - np.matmul(mean.transpose(0, 2, 1), target)
    index = np.arange(n - 1)
    spread = np.maximum(gram[:, index, index] / count[:, 0], 1e-8)
    gram[:, index, index] += (RIDGE * count[:, 0] + PRIOR) * spread
    slopes = np.linalg.solve(gram, cross)
    level = target / (count * (1 + RIDGE) + PRIOR)
    return np.concatenate([level - np.matmul(mean, slopes), slopes], axis=1)


def _tukey(size: NDArray[np.float64], scale: NDArray[np.float64]) -> NDArray[np.float64]:
    ratio = np.minimum(size / (CUT * scale), 1.0)
    return np.asarray((1.0 - ratio * ratio) ** 2)
