"""Dates between which all values shift by an offset of 0.1, found in the values alone.

From processing baseline 04.00 on, Sentinel-2 products carry an offset, and archives have subtracted it from some items.
A surface that changes does so pixel by pixel. Haze brightens dark pixels more than bright ones, and seldom as much
where it is thinnest. So bright and dark pixels have to shift alike, and so have all bands: the fewer there are, the
more alike.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Times = NDArray[np.datetime64]

OFFSET = 0.1
ENOUGH = 256  # pixels below which a shift says nothing
_FEW = 32  # pixels that tell on which side a date lies, once it is known that there are two
_BEFORE = 4  # dates that each date is compared with


@dataclass(frozen=True)
class _Need:
    """What has to hold for a shift to be an offset."""

    near: float  # of the median shift of each band to 0.1
    alike: float  # between bands
    spread: float  # between quartiles of the pixels
    darkest: float  # of the darkest pixels' shift to 0.1
    contrast: float  # between dark and bright, of bands or of pixels
    slope: float  # by which contrast may change
    days: float  # between the dates
    pixels: int  # that both dates show


_NEED = {
    1: _Need(near=0.02, alike=0.0, spread=0.03, darkest=0.005, contrast=0.12, slope=0.12, days=30, pixels=1024),
    2: _Need(near=0.025, alike=0.03, spread=0.03, darkest=0.006, contrast=0.12, slope=0.12, days=60, pixels=ENOUGH),
    3: _Need(near=0.03, alike=0.03, spread=0.04, darkest=0.02, contrast=0.1, slope=0.2, days=60, pixels=ENOUGH),
}


def find_jumps(reflectance: NDArray[np.float32], seen: NDArray[np.bool_], times: Times) -> list[tuple[int, int, float]]:
    """Pairs of dates between which an offset appears or disappears.

    Parameters
    ----------
    reflectance : ndarray, shape (time, pixel, band)
        Reflectance.
    seen : ndarray of bool, shape (time, pixel)
        Where it counts.
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
    for place, after in enumerate(order.tolist()):
        compared = 0
        for before in order[:place][::-1].tolist():
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
    """The shift from one date to another, if it is an offset."""
    need = _NEED[min(earlier.shape[1], 3)]
    if days > need.days or both.sum() < need.pixels:
        return None
    one_band = later[both, 0] - earlier[both, 0]
    if abs(abs(np.median(one_band)) - OFFSET) > need.near:  # as nearly always: the others need no look
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
    """The dates that carry the offset where others do not, as far as the pixels tell.

    Each date is put on the side on which it is most like the dates around it, in all bands.

    Parameters
    ----------
    jumps : sequence of (int, int, float)
        As `find_jumps` gives them, at least one.
    reflectance, seen, times : ndarray
        As for `find_jumps`.

    Returns
    -------
    ndarray of bool, shape (time,)
        True for a date with the offset. A date that cannot be compared is taken as the one before it.
    """
    order = np.argsort(times, kind="stable").tolist()
    sure = {(before, after) for before, after, _ in jumps}
    # Of each pair: what it costs if the later date is lower, equal or higher than the earlier one.
    near: dict[int, list[tuple[int, NDArray[np.float64]]]] = {date: [] for date in order}
    for place, after in enumerate(order):
        for before in order[:place][::-1]:
            both = seen[before] & seen[after]
            if both.sum() < _FEW and (before, after) not in sure:
                continue
            middle = np.median(reflectance[after, both] - reflectance[before, both], axis=0)
            cost = [min(float(np.abs(middle - step * OFFSET).mean()), OFFSET) for step in (-1, 0, 1)]
            costs = np.array(cost) * (4 if (before, after) in sure else 1)
            near[after].append((before, costs))
            near[before].append((after, costs[::-1]))
            if len([1 for other, _ in near[after] if other in order[:place]]) == _BEFORE:
                break
    level = np.zeros(len(times), int)
    done: set[int] = set()
    first = jumps[0]
    level[first[0]] = int(first[2] < 0)
    start = order.index(first[0])
    # Outwards from the first jump, and then again with what is known of both sides.
    outwards = [*order[start:], *order[:start][::-1]]
    for sweep in range(4):
        for date in outwards:
            known = [(other, costs) for other, costs in near[date] if other in done or sweep]
            if known and (sweep or date != first[0]):
                total = [sum(costs[1 + to - level[other]] for other, costs in known) for to in (0, 1)]
                level[date] = int(total[1] < total[0])
            done.add(date)
    for place, date in enumerate(order):
        if not near[date] and place:
            level[date] = level[order[place - 1]]
    return level.astype(bool)
