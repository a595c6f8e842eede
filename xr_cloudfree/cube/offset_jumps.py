"""Find dates between which all values shift by the Sentinel-2 offset of 0.1, from the values only.

From processing baseline 04.00 on, Sentinel-2 products have an offset, which archives have subtracted from some items.
A real change of the surface differs between pixels, and haze brightens dark pixels more than bright ones. So the shift
has to be the same for dark and bright pixels and for all bands, with tighter limits for fewer bands.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.datetime64]

OFFSET = 0.1
ENOUGH = 256  # least number of common pixels to detect a shift
_FEW = 32  # least number of common pixels to assign a date to a level, once a shift is known
_BEFORE = 4  # earlier dates that each date is compared with


@dataclass(frozen=True)
class _Criteria:
    """Conditions for a shift to be an offset."""

    near: float  # largest deviation of each band's median shift from 0.1
    alike: float  # largest difference of shifts between bands
    spread: float  # largest interquartile range of the shift
    darkest: float  # largest deviation of the darkest pixels' shift from 0.1
    contrast: float  # least contrast of dark and bright, between bands or pixels
    slope: float  # largest relative change of contrast
    days: float  # largest number of days between the dates
    pixels: int  # least number of common pixels


_CRITERIA = {
    1: _Criteria(near=0.02, alike=0.0, spread=0.03, darkest=0.005, contrast=0.12, slope=0.12, days=30, pixels=1024),
    2: _Criteria(near=0.025, alike=0.03, spread=0.03, darkest=0.006, contrast=0.12, slope=0.12, days=60, pixels=ENOUGH),
    3: _Criteria(near=0.03, alike=0.03, spread=0.04, darkest=0.02, contrast=0.1, slope=0.2, days=60, pixels=ENOUGH),
}


def find_jumps(reflectance: NDArray[np.float32], seen: NDArray[np.bool_], times: Times) -> list[tuple[int, int, float]]:
    """Return pairs of dates between which an offset appears or disappears.

    Parameters
    ----------
    reflectance : ndarray, shape (time, pixel, band)
        Reflectance.
    seen : ndarray of bool, shape (time, pixel)
        Pixels to use.
    times : ndarray of datetime64, shape (time,)
        Dates, in any order.

    Returns
    -------
    list of (int, int, float)
        Index of the earlier and of the later date, and the shift between them.
    """
    order = np.argsort(times, kind="stable")
    order = order[seen[order].sum(axis=1) >= ENOUGH]
    jumps = []
    for i, after in enumerate(order.tolist()):
        compared = 0
        for before in order[:i][::-1].tolist():
            both = seen[before] & seen[after]
            if both.sum() < ENOUGH:
                continue
            compared += 1
            shift = _shift(reflectance[before], reflectance[after], both, _days_between(times, before, after))
            if shift is not None:
                jumps.append((before, after, shift))
                break
            if compared == _BEFORE:
                break
    return jumps


def _days_between(times: Times, before: int, after: int) -> float:
    return float((times[after] - times[before]) / np.timedelta64(1, "D"))


def _shift(
    earlier: NDArray[np.float32], later: NDArray[np.float32], both: NDArray[np.bool_], days: float
) -> float | None:
    """Return the shift from one date to another if it is an offset, else None."""
    need = _CRITERIA[min(earlier.shape[1], 3)]
    if days > need.days or both.sum() < need.pixels:
        return None
    one_band = later[both, 0] - earlier[both, 0]
    if abs(abs(np.median(one_band)) - OFFSET) > need.near:  # the usual case: skip the other bands
        return None
    earlier, later = earlier[both], later[both]
    low, middle, high = np.percentile(later - earlier, (25, 50, 75), axis=0)
    if (np.abs(np.abs(middle) - OFFSET) > need.near).any() or np.ptp(middle) > need.alike:
        return None
    if (high - low).max() > need.spread:
        return None
    dark, bright = np.percentile(earlier, (2, 95), axis=0)
    darkest = np.percentile(later, 2, axis=0) - dark
    if (np.abs(darkest - np.sign(middle) * OFFSET) > need.darkest).any():
        return None
    contrast = bright - dark
    if max(contrast.max(), np.ptp(np.median(earlier, axis=0))) < need.contrast:
        return None
    centred = earlier - earlier.mean(axis=0)
    slope = (centred * (later - later.mean(axis=0))).sum(axis=0) / np.maximum((centred**2).sum(axis=0), 1e-12)
    if (np.abs(slope - 1) > need.slope)[contrast > 0.08].any():
        return None
    return float(middle.mean())


def brighter_dates(
    jumps: Sequence[tuple[int, int, float]],
    reflectance: NDArray[np.float32],
    seen: NDArray[np.bool_],
    times: Times,
) -> NDArray[np.bool_]:
    """Return the dates that have an offset which others do not have, as far as the pixels show.

    Each date is assigned the level at which it is most similar to the dates around it, in all bands.

    Parameters
    ----------
    jumps : sequence of (int, int, float)
        Result of `find_jumps`, at least one pair.
    reflectance, seen, times : ndarray
        As for `find_jumps`.

    Returns
    -------
    ndarray of bool, shape (time,)
        True for a date with the offset. A date that cannot be compared has the level of the one before it.
    """
    order = np.argsort(times, kind="stable").tolist()
    sure = {(before, after) for before, after, _ in jumps}
    # For each pair, the costs of the later date being lower than, equal to or higher than the earlier one.
    near: dict[int, list[tuple[int, NDArray[np.float64]]]] = {date: [] for date in order}
    for i, after in enumerate(order):
        for before in order[:i][::-1]:
            both = seen[before] & seen[after]
            if both.sum() < _FEW and (before, after) not in sure:
                continue
            middle = np.median(reflectance[after, both] - reflectance[before, both], axis=0)
            cost = [min(float(np.abs(middle - step * OFFSET).mean()), OFFSET) for step in (-1, 0, 1)]
            costs = np.array(cost) * (4 if (before, after) in sure else 1)
            near[after].append((before, costs))
            near[before].append((after, costs[::-1]))
            if len([1 for other, _ in near[after] if other in order[:i]]) == _BEFORE:
                break
    level = np.zeros(len(times), int)
    done: set[int] = set()
    first = jumps[0]
    level[first[0]] = int(first[2] < 0)
    start = order.index(first[0])
    # Outwards from the first jump, then repeatedly with the levels of both neighbours.
    outwards = [*order[start:], *order[:start][::-1]]
    for sweep in range(4):
        for date in outwards:
            known = [(other, costs) for other, costs in near[date] if other in done or sweep]
            if known and (sweep or date != first[0]):
                total = [sum(costs[1 + to - level[other]] for other, costs in known) for to in (0, 1)]
                level[date] = int(total[1] < total[0])
            done.add(date)
    for i, date in enumerate(order):
        if not near[date] and i:
            level[date] = level[order[i - 1]]
    return level.astype(bool)
