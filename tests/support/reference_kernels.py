"""The kernels in plain NumPy: the reference that the compiled ones are tested against.

Every function has a counterpart of the same name in `xr_cloudfree.models.kernels.compiled` with the same float
operations in the same order. `xr_cloudfree.models.kernels.dispatch` documents what each computes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_PIXELS = 1 << 15  # processed at once, so that temporaries of 24 dates stay within a few megabytes
_TINY = np.float32(1e-30)


def count(clear: NDArray[np.bool_]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """See `dispatch.count`."""
    last = np.int16(clear.shape[0] - 1) - np.argmax(clear[::-1], axis=0).astype(np.int16)
    last[~clear.any(axis=0)] = -1
    return clear.sum(axis=0, dtype=np.int16), last


def bracket(clear: NDArray[np.bool_], split: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """See `dispatch.bracket`."""
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
    """See `dispatch.blend`."""
    pixel = np.arange(bands.shape[2])
    out = np.empty(bands.shape[1:], np.float32)
    for band in range(bands.shape[1]):
        first = bands[before, band, pixel].astype(np.float32)
        out[band] = first + weight * (bands[after, band, pixel].astype(np.float32) - first)
    return out


def median(bands: NDArray[np.generic], clear: NDArray[np.bool_]) -> NDArray[np.float32]:
    """See `dispatch.median`."""
    out = np.empty(bands.shape[1:], np.float32)
    dtype: Any = bands.dtype
    high = np.inf if dtype.kind == "f" else np.iinfo(dtype).max
    for start in range(0, bands.shape[2], _PIXELS):
        part = slice(start, start + _PIXELS)
        seen = clear[:, part]
        number = seen.sum(axis=0)
        # Values that are not clear sort last, so the clear values are the first `number`.
        ranks = np.stack([np.maximum(number - 1, 0) // 2, np.maximum(number, 1) // 2])
        ranks[1] = np.minimum(ranks[1], len(clear) - 1)
        for band in range(bands.shape[1]):
            ordered = np.sort(np.where(seen, bands[:, band, part], high).astype(dtype), axis=0)
            low, up = np.take_along_axis(ordered, ranks, axis=0).astype(np.float32)
            out[band, part] = np.where(number > 0, np.where(number % 2, low, (low + up) * np.float32(0.5)), 0)
    return out


def mix(bands: NDArray[np.generic], clear: NDArray[np.bool_], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """See `dispatch.mix`."""
    out = np.zeros(bands.shape[1:], np.float32)
    for values, seen, weight in zip(bands, clear, weights, strict=True):
        out += np.where(seen, weight * np.where(seen, values, 0).astype(np.float32), np.float32(0))
    return out


def geomedian(
    bands: NDArray[np.generic], clear: NDArray[np.bool_], tolerance: float, limit: int
) -> NDArray[np.float32]:
    """See `dispatch.geomedian`."""
    out = np.empty(bands.shape[1:], np.float32)
    for start in range(0, bands.shape[2], _PIXELS):
        part = slice(start, start + _PIXELS)
        out[:, part] = _geomedian(bands[:, :, part], clear[:, part], tolerance, limit)
    return out


def _geomedian(
    bands: NDArray[np.generic], clear: NDArray[np.bool_], tolerance: float, limit: int
) -> NDArray[np.float32]:
    values = np.where(clear[:, None], bands, 0).astype(np.float32)
    number = clear.sum(axis=0).astype(np.float32)
    out = np.zeros(values.shape[1:], np.float32)
    for row in values:
        out += row
    out /= np.maximum(number, np.float32(1))

    active = np.flatnonzero(number > 2)
    point = out[:, active]
    before: NDArray[np.float32] = point
    last_move: NDArray[np.float32] = np.zeros_like(point)
    radius = np.zeros(len(active), np.float32)
    last_spread = np.full(len(active), np.inf, np.float32)
    for age in range(limit):
        if not len(active):
            break
        move, total, spread, touching = _weiszfeld_sums(values[:, :, active], clear[:, active], point, radius)
        size = np.zeros(len(active), np.float32)
        for row in move:
            size += row * row
        length = np.sqrt(size)
        keep = np.maximum(np.float32(0), np.float32(1) - touching / np.maximum(length, _TINY))
        factor = keep / np.maximum(total, _TINY)
        step = length * factor
        mean = spread / number[active]
        radius = np.float32(tolerance * tolerance) * mean * mean
        move *= factor
        along, change = np.zeros((2, len(active)), np.float32)
        for new, old in zip(move, last_move, strict=True):
            along += new * (new - old)
            change += (new - old) * (new - old)
        secant: NDArray[np.float32] = np.clip(along / np.maximum(change, _TINY), np.float32(-8), np.float32(0.9))
        done = (step * step <= radius) | (age + 1 >= limit)
        plain = (spread > last_spread) | (age == 0) | (touching > 0)
        secant[plain | done] = 0
        moved: NDArray[np.float32] = point + move - secant * ((point - before) + (move - last_move))
        out[:, active] = moved
        left = ~done
        active, radius, last_spread = active[left], radius[left], spread[left]
        before, last_move, point = point[:, left], move[:, left], moved[:, left]
    return out


def _weiszfeld_sums(
    values: NDArray[np.float32],
    clear: NDArray[np.bool_],
    point: NDArray[np.float32],
    radius: NDArray[np.float32],
) -> tuple[NDArray[np.float32], NDArray[np.float32], NDArray[np.float32], NDArray[np.float32]]:
    """Sum the unit vectors to the clear values, inverse distances and distances; count values within `radius`."""
    move = np.zeros_like(point)
    total, spread, touching = np.zeros((3, point.shape[1]), np.float32)
    for value, seen in zip(values, clear, strict=True):
        square = np.zeros(point.shape[1], np.float32)
        for row, x in zip(value, point, strict=True):
            square += (row - x) * (row - x)
        inverse = (np.int32(0x5F3759DF) - (square.view(np.int32) >> 1)).view(np.float32)
        half = np.float32(0.5) * square
        for _ in range(2):
            inverse = inverse * (np.float32(1.5) - half * inverse * inverse)
        touched = square <= radius
        weight = np.where(seen & ~touched, inverse, np.float32(0))
        touching += (seen & touched).astype(np.float32)
        total += weight
        spread += weight * square
        for row, x, target in zip(value, point, move, strict=True):
            target += weight * (row - x)
    return move, total, spread, touching


def interior_error(
    bands: NDArray[np.generic], clear: NDArray[np.bool_], days: NDArray[np.float32], growth: float
) -> NDArray[np.float32]:
    """See `dispatch.interior_error`."""
    one, zero = np.float32(1), np.float32(0)
    out = np.zeros(bands.shape[1:], np.float32)
    older, newer = np.zeros_like(out), np.zeros_like(out)
    older_day, newer_day = np.zeros((2, clear.shape[1]), np.float32)
    number = np.zeros(clear.shape[1], np.int16)
    for values, seen, now in zip(bands, clear, days, strict=True):
        use = seen & (number >= 2)
        gap = now - older_day
        part = np.where(use, (newer_day - older_day) / np.where(gap > 0, gap, one), zero)
        rest = one - part
        scale = one / np.sqrt(one + part * part + rest * rest + np.float32(growth) * gap * part * rest)
        present = np.where(seen, values, np.zeros((), values.dtype)).astype(np.float32)
        error = np.abs(newer - (older + part * (present - older))) * scale
        out += np.where(use, error, zero)
        older_day, newer_day = np.where(seen, newer_day, older_day), np.where(seen, now, newer_day)
        older, newer = np.where(seen, newer, older), np.where(seen, present, newer)
        number += seen
    out /= np.maximum(number - 2, 1).astype(np.float32)
    return out


def deviations(
    bands: NDArray[np.float32],
    clear: NDArray[np.bool_],
    days: NDArray[np.float64],
    dates: NDArray[np.intp],
    image: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """See `dispatch.deviations`."""
    clear, values = clear[dates], bands[dates]
    for p in range(bands.shape[2]):
        seen = np.flatnonzero(clear[:, p])
        for i, date in enumerate(dates):
            if not len(seen):
                out[i, :, p] = 0
                continue
            earlier, later = seen[seen <= i][-1:], seen[seen >= i][:1]
            first = (earlier if len(earlier) else later)[0]
            second = (later if len(later) else earlier)[0]
            begin, end = days[dates[first]], days[dates[second]]
            weight = np.float32(0 if first == second else (begin - days[date]) / (begin - end))
            start = values[first, :, p]
            out[i, :, p] = start + weight * (values[second, :, p] - start) - image[:, p]
