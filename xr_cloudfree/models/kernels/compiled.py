"""The kernels of `dispatch`, compiled by numba.

Each kernel processes a few hundred pixels at a time, so that the innermost loop runs over neighbouring pixels in SIMD
lanes and their series stay in the L1 cache. Fast-math is off: results are bit-identical to a NumPy implementation with
the same operations in the same order, which the tests compare against. `dispatch` documents what each kernel computes.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numba
import numpy as np
from numpy.typing import NDArray

_LANES = 512  # pixels processed together: 24 dates of uint16 take 24 KiB
_GROUP = 64  # pixels whose geometric medians are iterated together


def compiled(function: Callable[..., Any]) -> Callable[..., Any]:
    """Compile a function with numba, and keep the result on disk where possible."""
    try:
        return numba.njit(nogil=True, cache=True)(function)
    except RuntimeError:  # no writable cache directory: compile once per process
        return numba.njit(nogil=True)(function)


@compiled
def _count(clear: Any, number: Any, last: Any) -> None:
    dates, pixels = clear.shape
    for start in range(0, pixels, _LANES):
        width = min(_LANES, pixels - start)
        counts, index = number[start : start + width], last[start : start + width]
        counts[:] = 0
        index[:] = -1
        for t in range(dates):
            row, now = clear[t, start : start + width], np.int16(t)
            for p in range(width):
                counts[p] += row[p]
                index[p] = now if row[p] else index[p]


def count(clear: NDArray[np.bool_]) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """See `dispatch.count`."""
    number, last = np.empty((2, clear.shape[1]), np.int16)
    _count(clear.view(np.uint8), number, last)
    return number, last


@compiled
def _bracket(clear: Any, split: int, before: Any, after: Any) -> None:
    dates, pixels = clear.shape
    for start in range(0, pixels, _LANES):
        width = min(_LANES, pixels - start)
        first, second = before[start : start + width], after[start : start + width]
        first[:] = -1
        second[:] = -1
        for t in range(split):
            row, now = clear[t, start : start + width], np.int16(t)
            for p in range(width):
                first[p] = now if row[p] else first[p]
        for t in range(dates - 1, split - 1, -1):
            row, now = clear[t, start : start + width], np.int16(t)
            for p in range(width):
                second[p] = now if row[p] else second[p]


def bracket(clear: NDArray[np.bool_], split: int) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """See `dispatch.bracket`."""
    before, after = np.empty((2, clear.shape[1]), np.int16)
    _bracket(clear.view(np.uint8), split, before, after)
    return before, after


@compiled
def _blend(bands: Any, before: Any, after: Any, weight: Any, out: Any) -> None:
    _, n_bands, pixels = bands.shape
    for start in range(0, pixels, _LANES):
        width = min(_LANES, pixels - start)
        earlier, later = before[start : start + width], after[start : start + width]
        share = weight[start : start + width]
        for b in range(n_bands):
            values, result = bands[:, b, start : start + width], out[b, start : start + width]
            for p in range(width):
                # An unsigned index avoids the check for negative indices.
                first = np.float32(values[np.uint64(earlier[p]), p])
                second = np.float32(values[np.uint64(later[p]), p])
                result[p] = first + share[p] * (second - first)


def blend(
    bands: NDArray[np.generic],
    before: NDArray[np.int16],
    after: NDArray[np.int16],
    weight: NDArray[np.float32],
) -> NDArray[np.float32]:
    """See `dispatch.blend`."""
    out = np.empty(bands.shape[1:], np.float32)
    _blend(bands, before, after, weight, out)
    return out


@lru_cache(maxsize=256)
def network(dates: int) -> tuple[NDArray[np.int32], int, int]:
    """Return the comparators that sort the middle two of `dates` values into place, and the indices of these two.

    The comparators are those of Batcher's odd-even merge sort on which either of the two places depends.
    """
    low, high = max(dates // 2 - 1, 0), dates // 2
    pairs: list[tuple[int, int]] = []
    merge = 1
    while merge < dates:
        step = merge
        while step:
            for j in range(step % merge, dates - step, 2 * step):
                for i in range(j, min(j + step, dates - step)):
                    if i // (2 * merge) == (i + step) // (2 * merge):
                        pairs.append((i, i + step))
            step //= 2
        merge *= 2
    needed, kept = {low, high}, []
    for i, j in reversed(pairs):
        if i in needed or j in needed:
            needed |= {i, j}
            kept.append((i, j))
    return np.array(kept[::-1], np.int32).reshape(-1, 2), low, high


@compiled
def _median(bands: Any, clear: Any, pairs: Any, low: int, high: int, least: Any, most: Any, out: Any) -> None:
    dates, n_bands, pixels = bands.shape
    single = high if dates % 2 else low
    pad = np.empty((dates, _LANES), bands.dtype)
    series = np.zeros((dates, _LANES), bands.dtype)
    unclear = np.empty(_LANES, np.uint8)
    odd = np.empty(_LANES, np.uint8)
    known = np.empty(_LANES, np.uint8)
    for start in range(0, pixels, _LANES):
        width = min(_LANES, pixels - start)
        # Dates that are not clear are replaced alternately by the largest and the smallest value. That keeps the clear
        # values in the middle, so the two places hold their median whatever their number.
        unclear[:] = 0
        odd[:] = 0
        known[:] = 0
        for t in range(dates):
            seen, filler = clear[t, start : start + width], pad[t]
            for p in range(width):
                filler[p] = least if unclear[p] else most
                unclear[p] ^= seen[p] ^ np.uint8(1)
                odd[p] ^= seen[p]
                known[p] |= seen[p]
        for b in range(n_bands):
            for t in range(dates):
                seen, filler, row = clear[t, start : start + width], pad[t], series[t]
                values = bands[t, b, start : start + width]
                for p in range(width):
                    x, y = values[p], filler[p]  # reading both first compiles to one SIMD select
                    row[p] = x if seen[p] else y
            for k in range(len(pairs)):
                one, other = series[pairs[k, 0]], series[pairs[k, 1]]
                for p in range(_LANES):
                    x, y = one[p], other[p]
                    one[p] = min(x, y)
                    other[p] = max(x, y)
            under, over, middle, result = (
                series[low],
                series[high],
                series[single],
                out[b, start : start + width],
            )
            for p in range(width):
                mean = (np.float32(under[p]) + np.float32(over[p])) * np.float32(0.5)
                alone = np.float32(middle[p])
                value = alone if odd[p] else mean
                result[p] = value if known[p] else np.float32(0)


def median(bands: NDArray[np.generic], clear: NDArray[np.bool_]) -> NDArray[np.float32]:
    """See `dispatch.median`."""
    out = np.empty(bands.shape[1:], np.float32)
    dtype: Any = bands.dtype
    info: Any = np.finfo(dtype) if dtype.kind == "f" else np.iinfo(dtype)
    pairs, low, high = network(len(bands))
    _median(bands, clear.view(np.uint8), pairs, low, high, dtype.type(info.min), dtype.type(info.max), out)
    return out


@compiled
def _mix(bands: Any, clear: Any, weights: Any, out: Any) -> None:
    dates, n_bands, pixels = bands.shape
    nothing = np.float32(0)
    for start in range(0, pixels, _LANES):
        width = min(_LANES, pixels - start)
        for b in range(n_bands):
            total = out[b, start : start + width]
            total[:] = nothing
            for t in range(dates):
                seen, values = clear[t, start : start + width], bands[t, b, start : start + width]
                weight = weights[t, start : start + width]
                for p in range(width):
                    term = weight[p] * np.float32(values[p])
                    total[p] += term if seen[p] else nothing


def mix(bands: NDArray[np.generic], clear: NDArray[np.bool_], weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """See `dispatch.mix`."""
    out = np.empty(bands.shape[1:], np.float32)
    _mix(bands, clear.view(np.uint8), weights, out)
    return out


@compiled
def _load(bands: Any, clear: Any, p: int, values: Any, point: Any, lane: int, index: Any) -> int:
    """Copy the clear values of one pixel into a lane and their mean into `point`; return their number."""
    dates, n_bands, _ = bands.shape
    number = 0
    for t in range(dates):  # branch-free: whether a date is clear is unpredictable
        index[number] = t
        number += clear[t, p]
    for b in range(n_bands):
        total = np.float32(0)
        for k in range(number):
            value = np.float32(bands[index[k], b, p])
            values[k, b, lane] = value
            total += value
        point[b, lane] = total / np.float32(max(number, 1))
    return number


@compiled
def _weiszfeld_sums(
    values: Any,
    number: Any,
    most: int,
    point: Any,
    radius: Any,
    move: Any,
    total: Any,
    spread: Any,
    touching: Any,
) -> None:
    """Sum the unit vectors to the clear values, inverse distances and distances; count values within `radius`."""
    n_bands = point.shape[0]
    square = np.empty(_GROUP, np.float32)
    weight = np.empty(_GROUP, np.float32)
    zero, one = np.float32(0), np.float32(1)
    move[:] = zero
    total[:] = zero
    spread[:] = zero
    touching[:] = zero
    for k in range(most):
        square[:] = zero
        for b in range(n_bands):
            value, x = values[k, b], point[b]
            for p in range(_GROUP):
                difference = value[p] - x[p]
                square[p] += difference * difference
        for p in range(_GROUP):
            # The inverse square root from the bits of the number and two Newton steps (relative error 5e-6) is three
            # times as fast as a square root and a division, and the same on every machine.
            d = np.float32(square[p])
            y = np.int32(np.int32(0x5F3759DF) - (d.view(np.int32) >> np.int32(1))).view(np.float32)
            half = np.float32(0.5) * d
            y = y * (np.float32(1.5) - half * y * y)
            y = y * (np.float32(1.5) - half * y * y)
            exists = np.int32(k) < number[p]
            touched = d <= radius[p]
            y = zero if touched else y
            y = y if exists else zero
            touching[p] += one if (exists and touched) else zero
            weight[p] = y
            total[p] += y
            spread[p] += y * d
        for b in range(n_bands):
            value, x, target = values[k, b], point[b], move[b]
            for p in range(_GROUP):
                target[p] += weight[p] * (value[p] - x[p])


@compiled
def _geomedian(bands: Any, clear: Any, tolerance: float, limit: int, out: Any) -> None:
    dates, n_bands, pixels = bands.shape
    zero, one, tiny = np.float32(0), np.float32(1), np.float32(1e-30)
    square = np.float32(tolerance * tolerance)
    index = np.zeros(dates + 1, np.int64)
    values = np.zeros((dates, n_bands, _GROUP), np.float32)
    # Separate arrays, because rows of one array would keep the loops below from being vectorised.
    point, before = np.zeros((n_bands, _GROUP), np.float32), np.zeros((n_bands, _GROUP), np.float32)
    move, last_move = np.zeros((n_bands, _GROUP), np.float32), np.zeros((n_bands, _GROUP), np.float32)
    total, touching = np.zeros(_GROUP, np.float32), np.zeros(_GROUP, np.float32)
    spread, last_spread = np.zeros(_GROUP, np.float32), np.zeros(_GROUP, np.float32)
    radius, factor, step = (
        np.zeros(_GROUP, np.float32),
        np.zeros(_GROUP, np.float32),
        np.zeros(_GROUP, np.float32),
    )
    along, change = np.zeros(_GROUP, np.float32), np.zeros(_GROUP, np.float32)
    number, age = np.zeros(_GROUP, np.int32), np.zeros(_GROUP, np.int32)
    done = np.ones(_GROUP, np.uint8)
    pixel = np.full(_GROUP, -1, np.int64)
    upcoming = 0
    while True:
        # A lane that has converged stores its pixel and loads the next one, so that no lane idles.
        most, active = 0, 0
        for lane in range(_GROUP):
            if done[lane] and pixel[lane] >= 0:
                out[:, pixel[lane]] = point[:, lane]
                pixel[lane] = -1
                number[lane] = 0
            while pixel[lane] < 0 and upcoming < pixels:
                n_clear = _load(bands, clear, upcoming, values, point, lane, index)
                if n_clear > 2:
                    pixel[lane], number[lane], age[lane], done[lane] = upcoming, n_clear, 0, 0
                    last_spread[lane], radius[lane] = np.inf, zero
                    before[:, lane] = point[:, lane]
                    last_move[:, lane] = zero
                else:
                    out[:, upcoming] = point[:, lane]
                upcoming += 1
            active += pixel[lane] >= 0
            most = max(most, number[lane])
        if not active:
            return
        _weiszfeld_sums(values, number, most, point, radius, move, total, spread, touching)
        step[:] = zero
        along[:] = zero
        change[:] = zero
        for b in range(n_bands):
            row = move[b]
            for p in range(_GROUP):
                step[p] += row[p] * row[p]
        for p in range(_GROUP):
            length = np.sqrt(step[p])
            keep = max(zero, one - touching[p] / max(length, tiny))
            factor[p] = keep / max(total[p], tiny)
            step[p] = length * factor[p]
            mean = spread[p] / np.float32(max(number[p], 1))
            radius[p] = square * mean * mean
        for b in range(n_bands):
            row, old = move[b], last_move[b]
            for p in range(_GROUP):
                row[p] *= factor[p]
                difference = row[p] - old[p]
                along[p] += row[p] * difference
                change[p] += difference * difference
        for p in range(_GROUP):
            secant = min(max(along[p] / max(change[p], tiny), np.float32(-8)), np.float32(0.9))
            plain = spread[p] > last_spread[p] or age[p] == 0 or touching[p] > zero
            age[p] += 1
            arrived = step[p] * step[p] <= radius[p] or age[p] >= limit
            factor[p] = zero if (plain or arrived) else secant
            done[p] = arrived
            last_spread[p] = spread[p]
        for b in range(n_bands):
            row, old, x, x_before = move[b], last_move[b], point[b], before[b]
            for p in range(_GROUP):
                current = x[p]
                x[p] = current + row[p] - factor[p] * ((current - x_before[p]) + (row[p] - old[p]))
                x_before[p] = current
                old[p] = row[p]


def geomedian(
    bands: NDArray[np.generic], clear: NDArray[np.bool_], tolerance: float, limit: int
) -> NDArray[np.float32]:
    """See `dispatch.geomedian`."""
    out = np.empty(bands.shape[1:], np.float32)
    _geomedian(bands, clear.view(np.uint8), tolerance, limit, out)
    return out


@compiled
def _interior_error(bands: Any, clear: Any, days: Any, growth: Any, out: Any) -> None:
    dates, n_bands, pixels = bands.shape
    zero, one = np.float32(0), np.float32(1)
    older, newer = np.empty((n_bands, _LANES), np.float32), np.empty((n_bands, _LANES), np.float32)
    older_day, newer_day = np.empty(_LANES, np.float32), np.empty(_LANES, np.float32)
    share, scale = np.empty(_LANES, np.float32), np.empty(_LANES, np.float32)
    number = np.empty(_LANES, np.int16)
    for start in range(0, pixels, _LANES):
        width = min(_LANES, pixels - start)
        older[:] = zero
        newer[:] = zero
        older_day[:] = zero
        newer_day[:] = zero
        number[:] = 0
        out[:, start : start + width] = zero
        for t in range(dates):
            seen, now = clear[t, start : start + width], days[t]
            for p in range(width):
                use = (seen[p] != 0) and (number[p] >= 2)
                old, new, gap = older_day[p], newer_day[p], now - older_day[p]
                part = (new - old) / (gap if gap > zero else one)
                part = part if use else zero
                rest = one - part
                size = one / np.sqrt(one + part * part + rest * rest + growth * gap * part * rest)
                scale[p] = size if use else zero
                share[p] = part
                older_day[p] = new if seen[p] else old
                newer_day[p] = now if seen[p] else new
                number[p] += seen[p]
            for b in range(n_bands):
                values, first, second = bands[t, b, start : start + width], older[b], newer[b]
                total = out[b, start : start + width]
                for p in range(width):
                    old, new, value = first[p], second[p], np.float32(values[p])
                    error = abs(new - (old + share[p] * (value - old))) * scale[p]
                    total[p] += error if scale[p] > zero else zero
                    first[p] = new if seen[p] else old
                    second[p] = value if seen[p] else new
        for b in range(n_bands):
            total = out[b, start : start + width]
            for p in range(width):
                total[p] /= np.float32(max(number[p] - 2, 1))


def interior_error(
    bands: NDArray[np.generic], clear: NDArray[np.bool_], days: NDArray[np.float32], growth: float
) -> NDArray[np.float32]:
    """See `dispatch.interior_error`."""
    out = np.empty(bands.shape[1:], np.float32)
    _interior_error(bands, clear.view(np.uint8), days, np.float32(growth), out)
    return out


@compiled
def _deviations(bands: Any, clear: Any, days: Any, dates: Any, image: Any, out: Any) -> None:
    number, n_bands, pixels = out.shape
    following = np.empty((number + 1, _LANES), np.int16)
    previous, first, second = np.empty(_LANES, np.int16), np.empty(_LANES, np.int16), np.empty(_LANES, np.int16)
    weight, none = np.empty(_LANES, np.float32), np.int16(-1)
    for start in range(0, pixels, _LANES):
        width = min(_LANES, pixels - start)
        following[number] = none
        previous[:] = none
        for i in range(number - 1, -1, -1):
            seen, now = clear[dates[i], start : start + width], np.int16(i)
            below, above = following[i], following[i + 1]
            for p in range(width):
                below[p] = now if seen[p] else above[p]
        for i in range(number):
            seen, now = clear[dates[i], start : start + width], np.int16(i)
            above, at = following[i], days[dates[i]]
            for p in range(width):
                previous[p] = now if seen[p] else previous[p]
                first[p] = previous[p] if previous[p] >= 0 else above[p]
                second[p] = above[p] if above[p] >= 0 else previous[p]
            for p in range(width):
                begin = days[dates[max(first[p], 0)]]
                length = begin - days[dates[max(second[p], 0)]]
                weight[p] = (begin - at) / length if length != 0 else 0.0
            for b in range(n_bands):
                row, linear = out[i, b, start : start + width], image[b, start : start + width]
                values = bands[:, b, start : start + width]
                for p in range(width):
                    if first[p] >= 0:
                        begin32 = values[dates[first[p]], p]
                        row[p] = (begin32 + weight[p] * (values[dates[second[p]], p] - begin32)) - linear[p]
                    else:
                        row[p] = 0


def deviations(
    bands: NDArray[np.float32],
    clear: NDArray[np.bool_],
    days: NDArray[np.float64],
    dates: NDArray[np.intp],
    image: NDArray[np.float32],
    out: NDArray[np.float32],
) -> None:
    """See `dispatch.deviations`."""
    _deviations(bands, clear.view(np.uint8), days, dates.astype(np.uint64), image, out)
