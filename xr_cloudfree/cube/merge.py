"""Several scenes of one day as one: which scenes belong together, and which of them a pixel is taken from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.cube.measured import ValidRange, measured
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.cube.stamps import Times
from xr_cloudfree.errors import OptionError, option
from xr_cloudfree.options import Merge

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Scenes:
    """The scenes of a cube, by the days of which each makes one date.

    Parameters
    ----------
    times : ndarray of datetime64[ns], shape (date,)
        Time stamps of the dates, increasing: of each day that of its earliest scene.
    stamps : ndarray of datetime64[ns], shape (scene,)
        Time stamps of the scenes, in the cube's order.
    members : tuple of tuple of int
        For each date the indices of its scenes in the cube, the earliest first.
    """

    times: Times
    stamps: Times
    members: tuple[tuple[int, ...], ...]

    @property
    def n_scenes(self) -> int:
        """Number of scenes."""
        return int(self.stamps.size)

    def of(self, dates: NDArray[np.intp]) -> NDArray[np.intp]:
        """Indices of the scenes of some dates, increasing."""
        return np.sort(np.concatenate([self.members[date] for date in dates]).astype(np.intp))

    def together(self, dates: NDArray[np.intp]) -> list[list[int]]:
        """For each of some dates where its scenes lie among those of all of them, the earliest first."""
        places = {int(scene): place for place, scene in enumerate(self.of(dates))}
        return [[places[scene] for scene in self.members[date]] for date in dates]


def parse_merge(merge: Any) -> Merge | None:
    """How scenes are merged, None if they are not.

    Raises
    ------
    OptionError
        If it is neither ``"day"`` nor None.
    """
    if merge is not None and not (isinstance(merge, str) and merge == "day"):
        raise OptionError(f"merge is {merge!r}", '"day", or None for scenes as they are', option('merge="day"'))
    return "day" if merge is not None else None


def scenes_of(array: xr.DataArray, times: Times) -> Scenes:
    """Group the scenes of a cube by their days in UTC.

    Of scenes that share a time stamp the first is the one of which other coordinates along time say what comes first
    as text; that decides on coordinates alone, and only where they lie in memory.

    Parameters
    ----------
    array : DataArray
        With the dimension ``time``.
    times : ndarray of datetime64[ns], shape (time,)
        Its time stamps; several scenes may share one.
    """
    others = [c.variable for c in array.coords.values() if c.dims == ("time",) and c.name != "time"]
    known = [c.to_numpy() for c in others if c._in_memory]
    told = [[str(values[i]) for values in known] for i in range(times.size)]
    ordered = sorted(range(times.size), key=lambda i: (times[i], told[i]))
    members = [tuple(found) for _, found in groupby(ordered, key=lambda i: times[i].astype("datetime64[D]"))]
    first = [together[0] for together in members]
    return Scenes(times[first], times, tuple(members))


@dataclass(frozen=True, eq=False)
class MaskedWindow:
    """A window of several dates: what was stored, and what of it was seen as clear and as snow."""

    stored: NDArray[Any]  # (time, band, y, x)
    clear: Bools  # (time, y, x), as the quality layer says
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
    """One image of the scenes of each date: a pixel is taken from one of them, its mask together with its bands.

    A scene that was seen as clear there and has all bands comes first, then one that has all bands, then the one with
    more of them. Of scenes that are equal in this the earliest is taken; of those that share its time stamp, the one of
    the smaller value in the first band in which they differ. So the order in which scenes are stored says nothing.

    Parameters
    ----------
    seen : MaskedWindow
        The scenes of the dates, in the order of ``scenes.of(dates)``.
    scenes : Scenes
        Which belong together.
    dates : ndarray of int
        The dates that are made, increasing.
    scaling : Scaling
        Which stored values are missing.
    extras : tuple of int
        Positions along the band axis of layers that are no bands: they come with the bands, and say nothing of them.
    valid_range : ValidRange, optional
        Which numbers can be measurements; None for all.
    """
    bands = tuple(i for i in range(seen.stored.shape[1]) if i not in extras)
    ranking = _Ranking(scaling, valid_range, bands)
    groups = scenes.together(dates)
    first = [group[0] for group in groups]
    out = MaskedWindow(seen.stored[first], seen.clear[first], seen.snow[first], seen.missing[first])
    for date, group, made in zip(dates, groups, range(len(groups)), strict=True):
        if len(group) > 1:
            one = MaskedWindow(
                out.stored[made], out.clear[made], out.snow[made], out.missing[made]
            )  # views, written to
            _merge_one(seen, group, scenes.stamps[list(scenes.members[date])], one, ranking)
    return out


@dataclass(frozen=True)
class _Ranking:
    """How much a scene knows of each pixel: the number of its bands first, then whether it was seen as clear."""

    scaling: Scaling
    valid_range: ValidRange | None
    bands: tuple[int, ...]

    def of(self, seen: MaskedWindow, place: int) -> NDArray[np.intp]:
        good = measured(seen.stored[place, list(self.bands)], self.scaling, self.valid_range, axis=0)
        return np.asarray(2 * good.sum(axis=0, dtype=np.intp) + seen.clear[place])


def _merge_one(seen: MaskedWindow, group: Sequence[int], stamps: Times, out: MaskedWindow, ranking: _Ranking) -> None:
    """Merge the scenes of one date into `out`, which holds the first of them."""
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
    """Where a scene has the smaller value in the first band in which it differs from what was taken."""
    undecided = np.ones(out.clear.shape, bool)
    smaller = np.zeros(out.clear.shape, bool)
    for value, other in zip((*seen.stored[place], seen.snow[place]), (*out.stored, out.snow), strict=True):
        less, more = value < other, value > other
        if value.dtype.kind == "f":  # NaN comes last
            less |= np.isnan(other) & ~np.isnan(value)
            more |= np.isnan(value) & ~np.isnan(other)
        smaller |= undecided & less
        undecided &= ~(less | more)
        if not undecided.any():
            break
    return smaller
