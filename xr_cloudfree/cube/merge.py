"""Merge the scenes of a day: group them by day, and select the scene for each pixel."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.compat import is_in_memory
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.cube.timestamps import Times
from xr_cloudfree.cube.validity import ValidRange, measured
from xr_cloudfree.errors import OptionError, option
from xr_cloudfree.options import Merge

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Scenes:
    """The scenes of a cube, grouped by day.

    Parameters
    ----------
    times : ndarray of datetime64[ns], shape (date,)
        Time stamps of the dates, increasing: that of the earliest scene of each day.
    stamps : ndarray of datetime64[ns], shape (scene,)
        Time stamps of the scenes, in the cube's order.
    members : tuple of tuple of int
        Indices in the cube of the scenes of each date, the earliest first.
    """

    times: Times
    stamps: Times
    members: tuple[tuple[int, ...], ...]

    @property
    def n_scenes(self) -> int:
        """Number of scenes."""
        return int(self.stamps.size)

    def of(self, dates: NDArray[np.intp]) -> NDArray[np.intp]:
        """Return the indices of the scenes of some dates, increasing."""
        return np.sort(np.concatenate([self.members[date] for date in dates]).astype(np.intp))

    def together(self, dates: NDArray[np.intp]) -> list[list[int]]:
        """Return, for each of some dates, the positions of its scenes in `of(dates)`, the earliest first."""
        positions = {int(scene): position for position, scene in enumerate(self.of(dates))}
        return [[positions[scene] for scene in self.members[date]] for date in dates]


def parse_merge(merge: Any) -> Merge | None:
    """Return how scenes are merged, None if they are not.

    Raises
    ------
    OptionError
        If it is neither ``"day"`` nor None.
    """
    if merge is not None and not (isinstance(merge, str) and merge == "day"):
        raise OptionError(f"merge is {merge!r}", '"day", or None to keep scenes apart', option('merge="day"'))
    return "day" if merge is not None else None


def scenes_of(array: xr.DataArray, times: Times) -> Scenes:
    """Return the scenes of a cube grouped by day in UTC.

    Scenes with the same time stamp are ordered by the text of other coordinates along time in memory. Only the
    coordinates of the result depend on this order.

    Parameters
    ----------
    array : DataArray
        Array with the dimension ``time``.
    times : ndarray of datetime64[ns], shape (time,)
        Its time stamps; several scenes may share one.
    """
    others = [c.variable for c in array.coords.values() if c.dims == ("time",) and c.name != "time"]
    known = [c.to_numpy() for c in others if is_in_memory(c)]
    texts = [[str(values[i]) for values in known] for i in range(times.size)]
    ordered = sorted(range(times.size), key=lambda i: (times[i], texts[i]))
    members = [tuple(group) for _, group in groupby(ordered, key=lambda i: times[i].astype("datetime64[D]"))]
    first = [group[0] for group in members]
    return Scenes(times[first], times, tuple(members))


@dataclass(frozen=True, eq=False)
class MaskedWindow:
    """A window of several dates: stored values, and where the quality layer has clear, snow and missing pixels."""

    stored: NDArray[Any]  # (time, band, y, x)
    clear: Bools  # (time, y, x), according to the quality layer
    snow: Bools
    missing: Bools


def merge_scenes(
    seen: MaskedWindow,
    scenes: Scenes,
    dates: NDArray[np.intp],
    scaling: Scaling,
    extras: tuple[int, ...] = (),
    valid_range: ValidRange | None = None,
) -> MaskedWindow:
    """Merge the scenes of each date: each pixel is taken from one scene, its mask together with its bands.

    A clear scene with all bands is preferred, then one with all bands, then the one with most bands. Among equals the
    earliest is taken; among those with the same time stamp, the one with the smaller value in the first band that
    differs. So the stored order of scenes does not matter.

    Parameters
    ----------
    seen : MaskedWindow
        The scenes of the dates, in the order of ``scenes.of(dates)``.
    scenes : Scenes
        Groups of scenes.
    dates : ndarray of int
        The dates to return, increasing.
    scaling : Scaling
        How values are stored.
    extras : tuple of int
        Positions along the band axis of layers that are not bands: they are taken along, but do not affect the choice.
    valid_range : ValidRange, optional
        Values that can be measurements; None for all.
    """
    bands = tuple(i for i in range(seen.stored.shape[1]) if i not in extras)
    ranking = _Ranking(scaling, valid_range, bands)
    groups = scenes.together(dates)
    first = [group[0] for group in groups]
    out = MaskedWindow(seen.stored[first], seen.clear[first], seen.snow[first], seen.missing[first])
    for i, (date, group) in enumerate(zip(dates, groups, strict=True)):
        if len(group) > 1:
            view = MaskedWindow(out.stored[i], out.clear[i], out.snow[i], out.missing[i])
            _merge_one(seen, group, scenes.stamps[list(scenes.members[date])], view, ranking)
    return out


@dataclass(frozen=True)
class _Ranking:
    """Rank of a scene per pixel: by the number of valid bands first, then whether it is clear."""

    scaling: Scaling
    valid_range: ValidRange | None
    bands: tuple[int, ...]

    def of(self, seen: MaskedWindow, place: int) -> NDArray[np.intp]:
        good = measured(seen.stored[place, list(self.bands)], self.scaling, self.valid_range, axis=0)
        return np.asarray(2 * good.sum(axis=0, dtype=np.intp) + seen.clear[place])


def _merge_one(seen: MaskedWindow, group: Sequence[int], stamps: Times, out: MaskedWindow, ranking: _Ranking) -> None:
    """Merge the scenes of one date into `out`, which contains the first."""
    best = ranking.of(seen, group[0])
    taken = np.full(best.shape, stamps[0])
    for place, stamp in zip(group[1:], stamps[1:], strict=True):
        rank = ranking.of(seen, place)
        better = rank > best
        tied = (rank == best) & (taken == stamp)
        if tied.any():
            better |= tied & _smaller(seen, place, out)
        np.copyto(out.stored, seen.stored[place], where=better)
        np.copyto(out.clear, seen.clear[place], where=better)
        np.copyto(out.snow, seen.snow[place], where=better)
        np.copyto(out.missing, seen.missing[place], where=better)
        np.copyto(best, rank, where=better)
        taken[better] = stamp


def _smaller(seen: MaskedWindow, place: int, out: MaskedWindow) -> Bools:
    """Return where a scene has the smaller value in the first band in which it differs from `out`."""
    undecided = np.ones(out.clear.shape, bool)
    smaller = np.zeros(out.clear.shape, bool)
    for value, other in zip((*seen.stored[place], seen.snow[place]), (*out.stored, out.snow), strict=True):
        less, more = value < other, value > other
        if value.dtype.kind == "f":  # NaN is the largest
            less |= np.isnan(other) & ~np.isnan(value)
            more |= np.isnan(value) & ~np.isnan(other)
        smaller |= undecided & less
        undecided &= ~(less | more)
        if not undecided.any():
            break
    return smaller
