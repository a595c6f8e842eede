"""Dates: those of the cube, and those that are asked for."""

from __future__ import annotations

import datetime as dt
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.errors import OptionError, OptionTypeError, TimeError

Times = NDArray[np.datetime64]

_ISO = re.compile(r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?")
_DAY = np.timedelta64(1, "D")
# Beyond a year from all observations a fill would be an invention: it must be asked for with `window`.
MAX_GAP_DAYS = 366.0


@dataclass(frozen=True, eq=False)
class Targets:
    """The dates that are asked for.

    Parameters
    ----------
    times : ndarray of datetime64[ns], shape (target,)
        Labels of the outputs.
    instants : ndarray of datetime64[ns], shape (target,)
        The moments from which day offsets are counted: the observation's own where there is one.
    own : tuple of int
        Index of the target date's observation in the cube, -1 where it was not observed.
    scalar : bool
        Whether one date was asked for, not a list of one.
    """

    times: Times
    instants: Times
    own: tuple[int, ...]
    scalar: bool


def cube_times(array: xr.DataArray) -> Times:
    """The cube's time stamps as datetime64[ns], in the cube's order, checked.

    Raises
    ------
    TimeError
        If there are none, they are no dates, some are not a time, or some are there twice.
    """
    if "time" not in array.coords:
        raise TimeError(
            "the cube has a time dimension without coordinates",
            "a time stamp for each observation",
            "cube.assign_coords(time=pd.to_datetime([...]))",
        )
    values = array["time"].to_numpy()
    if values.dtype.kind != "M":
        what = type(values[0]).__module__.split(".")[0] + "." + type(values[0]).__name__
        raise TimeError(
            f"the time stamps have dtype {values.dtype} (the first is a {what})",
            "datetime64 in UTC, without a time zone",
            "cube.assign_coords(time=cube.indexes['time'].to_datetimeindex(time_unit='ns')) for cftime, "
            "cube.assign_coords(time=pd.to_datetime(list(cube.time.values), utc=True).tz_localize(None)) for others",
        )
    if np.isnat(values).any():
        raise TimeError(
            f"{int(np.isnat(values).sum())} of {values.size} time stamps are NaT",
            "a time stamp for each observation",
            "cube.sel(time=cube.time.notnull())",
        )
    # Nanoseconds reach 292 years from 1970. Beyond, a cast wraps in silence or fails, by the version of numpy.
    far = np.abs(values.astype("datetime64[Y]").astype(np.int64)) >= 290
    if far.any():
        raise TimeError(
            f"the time stamp {values[far][0]} is out of range",
            "dates from 1681 to 2259",
            "cube.sel(time=abs(cube.time.dt.year - 1970) < 290)",
        )
    times: Times = values.astype("datetime64[ns]")
    unique, counts = np.unique(times, return_counts=True)
    if (counts > 1).any():
        raise TimeError(
            f"the time stamp {_text(unique[counts > 1][0])} is there {counts.max()} times",
            "each time stamp once",
            "cube.drop_duplicates('time'), or merge the scenes of a pass: odc.stac.load(..., groupby='solar_day')",
        )
    return times


def parse_targets(date: Any, times: Times) -> Targets:
    """The dates asked for, matched with the cube's observations.

    Parameters
    ----------
    date : str, datetime, date, numpy.datetime64, pandas.Timestamp, a sequence of these, or None
        ISO 8601 only, in UTC. A date without a time (or at midnight) means that day's observation if there is one.
        None means every date of the cube.
    times : ndarray of datetime64[ns]
        The cube's time stamps.

    Raises
    ------
    TimeError
        If a date cannot be read, carries a time zone, is doubled, or a day has several observations.
    OptionTypeError
        If a date is of a type that is none.
    """
    if date is None:
        order = np.argsort(times, kind="stable")
        return Targets(times[order], times[order], tuple(int(i) for i in order), scalar=False)
    if isinstance(date, xr.DataArray):
        date = date.to_numpy()
    scalar = isinstance(date, str | dt.date | np.datetime64) or np.ndim(date) == 0
    if isinstance(date, np.ndarray) and date.ndim == 0:
        date = date[()]
    dates: Sequence[Any] = [date] if scalar else list(date)
    if not dates:
        raise OptionError("date is an empty list", "at least one date", 'date="2021-07-08"')
    parsed = [_parse(one) for one in dates]
    labels = np.array([p[0] for p in parsed], dtype="datetime64[ns]")
    if np.unique(labels).size < labels.size:
        raise TimeError("a date is asked for twice", "each date once", "date=sorted(set(dates))")
    own = tuple(_own(value, tolerance, times) for value, tolerance in parsed)
    instants = np.array([times[i] if i >= 0 else label for i, label in zip(own, labels, strict=True)], "datetime64[ns]")
    return Targets(labels, instants, own, scalar=scalar)


def parse_window(window: Any) -> tuple[float, float] | None:
    """Days before and after the target date from which observations are taken.

    Parameters
    ----------
    window : float, str, timedelta, pair of these, or None
        One number holds for both sides: ``30``, ``"30D"``, ``(60, 0)``.

    Examples
    --------
    >>> parse_window("30D")
    (30.0, 30.0)
    >>> parse_window((60, 0))
    (60.0, 0.0)
    """
    if window is None:
        return None
    if isinstance(window, tuple | list):
        if len(window) != 2:
            raise OptionError(f"window has {len(window)} elements", "days before and after", "window=(60, 30)")
        return _days(window[0]), _days(window[1])
    days = _days(window)
    return days, days


def candidates(
    times: Times, instant: np.datetime64, window: tuple[float, float] | None
) -> tuple[NDArray[np.intp], NDArray[np.float64]]:
    """Indices of the dates within the window, by time, and their signed offsets in days.

    Examples
    --------
    >>> times = np.array(["2021-01-09", "2021-01-01", "2021-03-01"], "datetime64[ns]")
    >>> candidates(times, np.datetime64("2021-01-05"), (10, 10))
    (array([1, 0]), array([-4.,  4.]))
    """
    offsets = (times - instant) / _DAY
    order = np.argsort(times, kind="stable")
    if window is not None:
        inside = (offsets >= -window[0]) & (offsets <= window[1])
        order = order[inside[order]]
    return order, offsets[order].astype(np.float64)


def check_reach(times: Times, targets: Targets, window: tuple[float, float] | None, told: bool) -> None:
    """Refuse targets that have no observation in their window, or lie far outside the cube.

    Parameters
    ----------
    times : ndarray of datetime64[ns]
        The cube's time stamps.
    targets : Targets
        The dates asked for.
    window : tuple of float or None
        Days before and after.
    told : bool
        Whether the user gave the window. Who gives one may reach as far as it goes.

    Raises
    ------
    TimeError
        If a target has no candidate date, or none within a year though no window was given.
    """
    for label, instant in zip(targets.times, targets.instants, strict=True):
        _, offsets = candidates(times, instant, window)
        if not offsets.size:
            nearest = float(np.abs((times - instant) / _DAY).min())
            raise TimeError(
                f"no observation lies within {_window_text(window)} of {_text(label)}: the nearest is {nearest:.0f} "
                "days away",
                "at least one",
                f"window={int(np.ceil(nearest))}",
            )
        nearest = float(np.abs(offsets).min())
        if not told and nearest > MAX_GAP_DAYS:
            raise TimeError(
                f"{_text(label)} is {nearest:.0f} days from the nearest observation (the cube runs from "
                f"{_text(times.min())} to {_text(times.max())})",
                f"a date within {MAX_GAP_DAYS:.0f} days of an observation",
                f"window={int(np.ceil(nearest))} if you mean it",
            )


def _window_text(window: tuple[float, float] | None) -> str:
    if window is None:
        return "reach"
    before, after = window
    return f"{before:g} days" if before == after else f"{before:g} days before and {after:g} days after"


def _text(value: np.datetime64) -> str:
    text = str(np.datetime_as_string(value, unit="s"))
    return text.removesuffix("T00:00:00")


def _days(value: Any) -> float:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number and not isinstance(value, str | dt.timedelta | np.timedelta64):
        raise OptionTypeError(f"window is {value!r}", "a number of days", "window=30, or window=(60, 0)")
    try:
        days = float(value) if number else float(pd.Timedelta(value) / pd.Timedelta(days=1))
    except (ValueError, OverflowError) as error:
        raise OptionError(f"window is {value!r}", "a number of days", "window=30, or window=(60, 0)") from error
    if not np.isfinite(days) or days < 0:
        raise OptionError(f"window is {value!r}", "a number of days that is not negative", "window=30")
    return days


def _in_utc(text: str) -> str:
    """A readable moment with a time zone, as it is to be typed."""
    try:
        return str(pd.Timestamp(text).tz_convert("UTC").tz_localize(None).isoformat())
    except ValueError:
        return text[:10]


def _parse(value: Any) -> tuple[np.datetime64, np.timedelta64]:
    """The moment, and the span after it that counts as the same."""
    second = np.timedelta64(1, "s")
    if isinstance(value, str):
        text = value.strip()
        if not _ISO.fullmatch(text):
            zone = re.fullmatch(_ISO.pattern + r"\s*(Z|[+-]\d{2}:?\d{2})", text)
            raise TimeError(
                f"the date {value!r} " + ("carries a time zone" if zone else "is not written as year-month-day"),
                "year-month-day, with or without a time, in UTC and without a zone, as the cube's are",
                f"date={_in_utc(text)!r}" if zone else 'date="2021-07-08"',
            )
        try:
            moment = pd.Timestamp(text)
        except ValueError as error:
            raise TimeError(
                f"there is no date {value!r}: {error}", "a date that exists", 'date="2021-07-08"'
            ) from error
        if len(text) == 16:  # to the minute
            second = np.timedelta64(60, "s")
    elif isinstance(value, dt.date | np.datetime64):
        try:
            moment = pd.Timestamp(value)
        except (ValueError, OverflowError) as error:
            raise TimeError(
                f"the date {value!r} is out of range", "a date from 1678 to 2261", 'date="2021-07-08"'
            ) from error
    else:
        raise OptionTypeError(
            f"the date {value!r} is a {type(value).__name__}",
            "an ISO text, datetime, numpy.datetime64 or pandas.Timestamp",
            'date="2021-07-08"',
        )
    if pd.isna(moment):
        raise TimeError("the date is NaT", "a date", 'date="2021-07-08"')
    if moment.tzinfo is not None:
        raise TimeError(
            f"the date {moment} carries the time zone {moment.tzinfo}",
            "a date in UTC without a time zone, as the cube's are",
            f'date="{moment.tz_convert("UTC").tz_localize(None).isoformat()}"',
        )
    try:
        nanoseconds = moment.as_unit("ns").to_datetime64()
    except (ValueError, OverflowError) as error:  # pandas' OutOfBoundsDatetime is a ValueError
        raise TimeError(
            f"the date {moment} is out of range", "a date from 1678 to 2261", 'date="2021-07-08"'
        ) from error
    return nanoseconds, (_DAY if moment == moment.normalize() else second)


def _own(value: np.datetime64, tolerance: np.timedelta64, times: Times) -> int:
    exact = np.flatnonzero(times == value)
    if exact.size:
        return int(exact[0])
    # Archives give one moment with and without its fraction of a second: less than a second apart is the same.
    earlier = np.timedelta64(0 if tolerance == _DAY else 999, "ms")
    same = np.flatnonzero((times >= value - earlier) & (times < value + tolerance))
    if same.size > 1:
        found = ", ".join(_text(times[i]) for i in same)
        raise TimeError(
            f"there are {same.size} observations on {_text(value)}: {found}",
            "one",
            f'date="{_text(times[same[0]])}", or merge the scenes of a day: odc.stac.load(..., groupby="solar_day")',
        )
    if same.size:
        return int(same[0])
    near = np.flatnonzero(times.astype("datetime64[D]") == value.astype("datetime64[D]"))
    if near.size:
        day = str(value.astype("datetime64[D]"))
        warnings.warn(
            f"{_text(value)} was not observed, but {_text(times[near[0]])} was: its clear pixels come back only for "
            f'date="{day}" or date="{_text(times[near[0]])}"',
            stacklevel=6,
        )
    return -1
