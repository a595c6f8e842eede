"""Compiled kernels of the correction of masks.

Sums run in a fixed order and fast-math is off, so the result at a pixel does not depend on the window that holds it.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.kernels.compiled import compiled

_LANES = 256  # pixels that the perceptron takes together
BLOCK = 4
"""Edge, in pixels, of the blocks on which coarse maps are computed; they start at pixel (0, 0) of the cube."""


@compiled
def _neighbours(clear: Any, before: Any, after: Any) -> None:
    dates, pixels = clear.shape
    for p in range(pixels):
        before[0, p] = -1
        after[dates - 1, p] = -1
    for t in range(1, dates):
        for p in range(pixels):
            before[t, p] = t - 1 if clear[t - 1, p] else before[t - 1, p]
    for t in range(dates - 2, -1, -1):
        for p in range(pixels):
            after[t, p] = t + 1 if clear[t + 1, p] else after[t + 1, p]


def neighbours(clear: NDArray[np.bool_]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Return the previous and the next clear date of every date.

    Parameters
    ----------
    clear : ndarray of bool, shape (time, pixel)
        True where clear; dates in increasing order.

    Returns
    -------
    before, after : ndarray of int16, shape (time, pixel)
        Indices of dates, -1 where there is none.
    """
    before, after = np.empty((2, *clear.shape), np.int16)
    _neighbours(clear.view(np.uint8), before, after)
    return before, after


@compiled
def _lasting(bands: Any, usable: Any, size: Any, share: float, out: Any) -> None:
    dates, n_bands, pixels = bands.shape
    seen = np.empty(dates, np.int64)
    for p in range(pixels):
        count = 0
        for t in range(dates):
            out[t, p] = 0
            if usable[t, p]:
                seen[count] = t
                count += 1
        for i in range(count):
            t, alike = seen[i], 0
            for j in range(max(i - 2, 0), min(i + 3, count)):
                most = 0.0
                for k in range(n_bands):
                    most = max(most, abs(bands[seen[j], k, p] - bands[t, k, p]))
                if j != i and most <= share * size[t, p]:
                    alike += 1
            out[t, p] = alike >= 2


def lasting(
    bands: NDArray[np.float32], usable: NDArray[np.bool_], size: NDArray[np.float32], share: float
) -> NDArray[np.bool_]:
    """Return which observations are like two of their four neighbours in time: land changes, cloud passes.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, pixel)
        Reflectance.
    usable : ndarray of bool, shape (time, pixel)
        Where there are values.
    size : ndarray of float32, shape (time, pixel)
        How far an observation is from what is expected, in reflectance.
    share : float
        The share of `size` by which those that are alike may differ, in every band.

    Returns
    -------
    ndarray of bool, shape (time, pixel)
    """
    out = np.empty(usable.shape, np.uint8)
    _lasting(bands, usable.view(np.uint8), size, share, out)
    return out.view(bool)


@compiled
def _compare(bands: Any, usable: Any, before: Any, after: Any, days: Any, t: int, out: Any, summary: Any) -> None:
    n_bands, pixels = bands.shape[1], bands.shape[2]
    for p in range(pixels):
        b, a = before[p], after[p]
        known = usable[p] and (b >= 0 or a >= 0)
        summary[0, p] = 1.0 if known else 0.0
        summary[1, p] = 0.0 if b >= 0 and a >= 0 else 1.0
        if not known:
            for k in range(1 + 3 * n_bands):
                out[k, p] = 0.0
            for k in range(2, 7):
                summary[k, p] = 0.0
            continue
        first, second = b if b >= 0 else a, a if a >= 0 else b
        span = days[second] - days[first]
        weight = np.float32((days[t] - days[first]) / span) if span > 0 else np.float32(0)
        rise, fall = np.float32(np.inf), np.float32(np.inf)
        gap, seen, expected = np.float32(0), np.float32(0), np.float32(0)
        for k in range(n_bands):
            x, y, v = bands[first, k, p], bands[second, k, p], bands[t, k, p]
            line = x + (y - x) * weight
            out[k, p] = line
            out[n_bands + k, p] = x - y
            out[2 * n_bands + k, p] = v - line
            gap += abs(x - y)
            seen += v
            expected += line
            rise = min(rise, v - max(x, y))
            fall = min(fall, min(x, y) - v)
        n = np.float32(n_bands)
        summary[2, p] = gap / n
        summary[3, p] = seen / n
        summary[4, p] = expected / n
        summary[5, p] = rise
        summary[6, p] = fall


def compare(
    bands: NDArray[np.float32],
    usable: NDArray[np.bool_],
    before: NDArray[np.int16],
    after: NDArray[np.int16],
    days: NDArray[np.float64],
    date: int,
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Compare a date with the linear interpolation between its clear neighbours in time.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, pixel)
        Reflectance.
    usable : ndarray of bool, shape (pixel,)
        True where the date has a value.
    before, after : ndarray of int16, shape (pixel,)
        Its clear neighbours, see `neighbours`.
    days : ndarray of float64, shape (time,)
        Increasing.
    date : int
        Index of the date.

    Returns
    -------
    per_band : ndarray of float32, shape (3 * band, pixel)
        The interpolation, the change between the neighbours, and the date less the interpolation; 0 where unknown.
    summary : ndarray of float32, shape (7, pixel)
        Whether both are known; whether there is a neighbour on one side only; means over the bands of the absolute
        change, of the date and of the interpolation; the least rise above both neighbours, and the least fall below
        both, of all bands.
    """
    n_bands, pixels = bands.shape[1:]
    per_band, summary = np.empty((3 * n_bands + 1, pixels), np.float32), np.empty((7, pixels), np.float32)
    _compare(bands, usable.view(np.uint8), before, after, days, date, per_band, summary)
    return per_band[:-1], summary


@compiled
def _predict_cells(coefficients: Any, features: Any, edge: int, columns: int, out: Any) -> None:
    n_features, height, width = features.shape
    n_bands = out.shape[0]
    for cell in range(coefficients.shape[0]):
        top, left = cell // columns * edge, cell % columns * edge
        bottom, right = min(top + edge, height), min(left + edge, width)
        values = coefficients[cell]
        for band in range(n_bands):
            for y in range(top, bottom):
                row = out[band, y]
                for x in range(left, right):
                    row[x] = values[0, band]
                for k in range(n_features):
                    factor, feature = values[1 + k, band], features[k, y]
                    for x in range(left, right):
                        row[x] += factor * feature[x]


def predict_cells(
    coefficients: NDArray[np.float32], features: NDArray[np.float32], edge: int, columns: int
) -> NDArray[np.float32]:
    """Predict every pixel with the coefficients of its cell.

    Parameters
    ----------
    coefficients : ndarray of float32, shape (cell, 1 + feature, band)
        Intercept and slopes of each cell, row by row.
    features : ndarray of float32, shape (feature, y, x)
        Features of each pixel.
    edge : int
        Edge of a cell in pixels.
    columns : int
        Number of cells in a row.

    Returns
    -------
    ndarray of float32, shape (band, y, x)
    """
    out = np.empty((coefficients.shape[2], *features.shape[1:]), np.float32)
    _predict_cells(np.ascontiguousarray(coefficients), np.ascontiguousarray(features), edge, columns, out)
    return out


@compiled
def _box(image: Any, reach: int, rows: Any, out: Any) -> None:
    height, width = image.shape
    share = np.float32(1.0 / (2 * reach + 1))
    for y in range(height):
        for x in range(width):
            rows[y, x] = 0.0
        for d in range(-reach, reach + 1):
            source = min(max(y + d, 0), height - 1)
            for x in range(width):
                rows[y, x] += image[source, x]
        for x in range(width):
            total = np.float32(0.0)
            for d in range(-reach, reach + 1):
                total += rows[y, min(max(x + d, 0), width - 1)]
            out[y, x] = total * share * share


def box(image: NDArray[np.float32], edge: int) -> NDArray[np.float32]:
    """Return the mean in a square around each pixel, of an odd edge; the image continues beyond its border.

    Parameters
    ----------
    image : ndarray of float32, shape (y, x)
        The image.
    edge : int
        Edge of the square in pixels.
    """
    out, rows = np.empty(image.shape, np.float32), np.empty(image.shape, np.float32)
    _box(np.ascontiguousarray(image), edge // 2, rows, out)
    return out


@compiled
def _extremes(images: Any, out: Any) -> None:
    n, height, width = images.shape
    ninth, share = np.float32(1.0 / 9.0), np.float32(1.0 / n)
    for y in range(height):
        up, down = max(y - 1, 0), min(y + 1, height - 1)
        for x in range(width):
            left, right = max(x - 1, 0), min(x + 1, width - 1)
            least, most, total = np.float32(np.inf), np.float32(-np.inf), np.float32(0.0)
            for k in range(n):
                image = images[k]
                value = (
                    (image[up, left] + image[up, x] + image[up, right])
                    + (image[y, left] + image[y, x] + image[y, right])
                    + (image[down, left] + image[down, x] + image[down, right])
                ) * ninth
                least, most, total = min(least, value), max(most, value), total + value
            out[0, y, x], out[1, y, x], out[2, y, x] = least, most, total * share


def extremes(images: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the least, the greatest and the mean over the bands of the means of 3 x 3 pixels.

    Parameters
    ----------
    images : ndarray of float32, shape (band, y, x)
        One image per band.

    Returns
    -------
    ndarray of float32, shape (3, y, x)
    """
    out = np.empty((3, *images.shape[1:]), np.float32)
    _extremes(np.ascontiguousarray(images), out)
    return out


@compiled
def _blocks(image: Any, edge: int, out: Any) -> None:
    height, width = image.shape
    for i in range(out.shape[0]):
        for j in range(out.shape[1]):
            total = np.float32(0.0)
            count = np.float32(0.0)
            for y in range(i * edge, min((i + 1) * edge, height)):
                for x in range(j * edge, min((j + 1) * edge, width)):
                    total += image[y, x]
                    count += np.float32(1.0)
            out[i, j] = total / count


def blocks(image: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the means of the blocks of an image; those at the lower and right border may be smaller.

    Parameters
    ----------
    image : ndarray of float32, shape (y, x)
        The image; its first pixel is that of a block.
    """
    height, width = image.shape
    out = np.empty((-(-height // BLOCK), -(-width // BLOCK)), np.float32)
    _blocks(np.ascontiguousarray(image), BLOCK, out)
    return out


@compiled
def _perceptron(inputs: Any, where: Any, first: Any, bias: Any, last: Any, shift: float, out: Any) -> None:
    n_inputs, n_hidden = first.shape[1], first.shape[0]
    part = np.zeros((n_inputs, _LANES), np.float32)
    hidden, total = np.empty(_LANES, np.float32), np.empty(_LANES, np.float32)
    for start in range(0, where.shape[0], _LANES):
        width = min(_LANES, where.shape[0] - start)
        for k in range(n_inputs):
            for i in range(width):
                part[k, i] = inputs[k, where[start + i]]
        total[:] = shift
        for h in range(n_hidden):
            hidden[:] = bias[h]
            for k in range(n_inputs):
                factor = first[h, k]
                row = part[k]
                for i in range(_LANES):
                    hidden[i] += factor * row[i]
            factor = last[h]
            for i in range(_LANES):
                total[i] += factor * max(hidden[i], np.float32(0))
        for i in range(width):
            out[where[start + i]] = total[i]


def perceptron(
    inputs: NDArray[np.float32],
    where: NDArray[np.intp],
    first: NDArray[np.float32],
    bias: NDArray[np.float32],
    last: NDArray[np.float32],
    shift: float,
) -> NDArray[np.float32]:
    """Return the output of a perceptron with one hidden layer of rectified units.

    Parameters
    ----------
    inputs : ndarray of float32, shape (input, pixel)
        Inputs.
    where : ndarray of int, shape (n,)
        The pixels for which it is computed; 0 elsewhere.
    first, bias : ndarray of float32, shapes (hidden, input) and (hidden,)
        The hidden layer.
    last : ndarray of float32, shape (hidden,)
        The output layer.
    shift : float
        Its bias.

    Returns
    -------
    ndarray of float32, shape (pixel,)
    """
    out = np.zeros(inputs.shape[1], np.float32)
    _perceptron(inputs, where, first, bias, last, shift, out)
    return out


@compiled
def _probability(odds: Any, out: Any) -> None:
    for i in range(odds.shape[0]):
        out[i] = 1.0 / (1.0 + math.exp(-odds[i]))


def probability(odds: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the probabilities of log-odds, shape (n,)."""
    out = np.empty(odds.shape, np.float32)
    _probability(odds, out)
    return out
