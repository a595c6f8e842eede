"""The kernels in plain NumPy: what runs where numba is not installed, and what the compiled ones are checked against.

Every function here has a twin of the same name in `kernels_numba` that does the same float operations in the same
order. What each computes is documented in `kernels`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

_PIXELS = 1 << 15  # pixels at once: the temporaries of 24 dates then stay within some megabytes


def count(clear: NDArray[np.bool_]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """See `kernels.count`."""
    last = np.int16(clear.shape[0] - 1) - np.argmax(clear[::-1], axis=0).astype(np.int16)
    last[~clear.any(axis=0)] = -1
    return clear.sum(axis=0, dtype=np.int16), last


def bracket(clear: NDArray[np.bool_], split: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """See `kernels.bracket`."""
    _, before = count(clear[:split]) if split else (None, np.full(clear.shape[1], -1, np.int16))
    after = np.full(clear.shape[1], -1, np.int16)
    if split < len(clear):
        later = clear[split:]
        after = np.where(later.any(axis=0), np.argmax(later, axis=0) + split, -1).astype(np.int16)
    return before, after


def blend(
    bands: NDArray[np.generic],
    before: NDArray[np.int16],
    after: NDArray[np.int16],
    weight: NDArray[np.float32],
) -> NDArray[np.float32]:
    """See `kernels.blend`."""
    pixel = np.arange(bands.shape[2])
    out = np.empty(bands.shape[1:], np.float32)
    for band in range(bands.shape[1]):
        first = bands[before, band, pixel].astype(np.float32)
        out[band] = first + weight * (bands[after, band, pixel].astype(np.float32) - first)
    return out


def median(bands: NDArray[np.generic], clear: NDArray[np.bool_]) -> NDArray[np.float32]:
    """See `kernels.median`."""
    out = np.empty(bands.shape[1:], np.float32)
    high = np.inf if bands.dtype.kind == "f" else np.iinfo(bands.dtype).max
    for start in range(0, bands.shape[2], _PIXELS):
        part = slice(start, start + _PIXELS)
        seen = clear[:, part]
        number = seen.sum(axis=0)
        # Whatever is not clear sorts last, so the clear values are the first `number`.
        ranks = np.stack([np.maximum(number - 1, 0) // 2, np.maximum(number, 1) // 2])
        ranks[1] = np.minimum(ranks[1], len(clear) - 1)
        for band in range(bands.shape[1]):
            ordered = np.sort(np.where(seen, bands[:, band, part], high).astype(bands.dtype), axis=0)
            low, up = np.take_along_axis(ordered, ranks, axis=0).astype(np.float32)
            out[band, part] = np.where(number > 0, np.where(number % 2, low, (low + up) * np.float32(0.5)), 0)
    return out


def mix(
    bands: NDArray[np.generic], clear: NDArray[np.bool_], weights: NDArray[np.float32]
) -> NDArray[np.float32]:
    """See `kernels.mix`."""
    out = np.zeros(bands.shape[1:], np.float32)
    for values, seen, weight in zip(bands, clear, weights, strict=True):
        out += np.where(seen, weight * np.where(seen, values, 0).astype(np.float32), np.float32(0))
    return out
