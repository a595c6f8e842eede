"""Dates that are asked for, matched with those of a cube; windows around them."""

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

from xr_cloudfree.cube.stamps import ISO, MERGE_REMEDY, ZONE, Times, as_text, parse_timestamp, possible_dates, to_utc
from xr_cloudfree.errors import CloudfreeWarning, OptionError, OptionTypeError, SizeError, TimeError, either, option

_DAY, _SECOND, _MINUTE = (np.timedelta64(1, unit) for unit in ("D", "s", "m"))
_LEAST = np.timedelta64(1, "ns")
_PERIOD = re.compile(r"\d{4}(-\d{2})?")
_END = re.compile(rf"(\.\.)?|{_PERIOD.pattern}|{ISO}({ZONE})?")
# Beyond a year from all observations a fill would be an invention: it must be asked for with `window`.
MAX_GAP_DAYS = 366.0
# A series of more dates than this was not meant.
MAX_SERIES = 100_000
_STEPS = {"M": "MS", "Q": "QS", "Y": "YS", "A": "YS", "H": "h"}
_FORMS = "an ISO text, datetime, numpy.datetime64, pandas.Timestamp or pandas.Period, a slice, or a list of these"


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


@dataclass(frozen=True)
class _Span:
    """A span of time of which both ends are part; what it is called, as it may be typed."""

    start: np.datetime64
    end: np.datetime64
    text: str


def parse_targets(date: Any, times: Times, freq: Any = None) -> Targets:
    """The dates asked for, matched with the cube's observations.

    Parameters
    ----------
    date : str, datetime, numpy.datetime64, pandas.Timestamp, pandas.Period, slice, a sequence of these, or None
        One date, ISO 8601 in UTC: without a time (or at midnight) it means that day's observation if there is one. A
        month, a year or any other period but a day, a slice, or the text ``"2021-05/2021-07"``: all dates of the cube
        from the beginning of the first to the end of the last; an end that is left out, or ``..``, is the cube's own.
        None means every date of the cube.
    times : ndarray of datetime64[ns]
        The cube's time stamps.
    freq : str, timedelta or pandas.DateOffset, optional
        A date at such steps within a span instead of the cube's own, as `pandas.date_range` makes them.

    Raises
    ------
    TimeError
        If a date cannot be read, does not exist, is doubled, or has another time zone than UTC; if a day has several
        observations; if a span has no date.
    OptionTypeError
        If a date is of a type that is none.
    OptionError
        If the list is empty, a slice has a step, or `freq` is no frequency or goes with no span.
    SizeError
        If `freq` makes too many dates.
    """
    if isinstance(date, xr.DataArray):
        date = date.to_numpy()
    if isinstance(date, np.ndarray) and date.ndim == 0:
        date = date[()]
    if freq is not None:
        labels = _series(date, times, freq)
        return _targets(
            [(label, _own(label, _DAY if _is_midnight(label) else _SECOND, times)) for label in labels], times
        )
    if date is None:
        return _targets([(times[i], int(i)) for i in np.argsort(times, kind="stable")], times)
    if (span := _span(date, times)) is not None:
        return _targets([(times[i], i) for i in _within(span, times)], times)
    if isinstance(date, str | dt.date | np.datetime64 | pd.Period) or np.ndim(date) == 0:
        return _targets([_single(date, times)], times, scalar=True)
    given: Sequence[Any] = list(date)
    if not given:
        raise OptionError("date is an empty list", "at least one date", option(f'date="{_example(times)}"'))
    spans = [_span(one, times) for one in given]
    singles = [None if span else _single(one, times) for one, span in zip(given, spans, strict=True)]
    _check_once([single[0] for single in singles if single])
    taken = {single[1] for single in singles if single}
    found: list[tuple[np.datetime64, int]] = []
    for span, single in zip(spans, singles, strict=True):
        if single is not None:
            found.append(single)
        elif span is not None:  # what is named otherwise too is there only once
            more = [i for i in _within(span, times) if i not in taken]
            taken.update(more)
            found += [(times[i], i) for i in more]
    return _targets(found, times)


def date_as_text(date: Any) -> Any:
    """Dates as texts that `parse_targets` reads in the same way; None for all of the cube."""
    if date is None or isinstance(date, str):
        return date
    if isinstance(date, xr.DataArray):
        date = date.to_numpy()
    if isinstance(date, slice):
        first, last = (".." if end is None else str(date_as_text(end)) for end in (date.start, date.stop))
        return f"{first.partition('/')[0]}/{last.rpartition('/')[2]}"  # an end may be a period, told by its own ends
    if isinstance(date, pd.Period) and not _is_period(date):
        return str(date.start_time.date())
    if isinstance(date, pd.Period):
        return f"{date.start_time.isoformat()}/{date.end_time.isoformat()}"
    if np.ndim(date) == 0:
        one = date[()] if isinstance(date, np.ndarray) else date
        if isinstance(one, np.datetime64):
            return str(one) if _is_period(one) else pd.Timestamp(one).isoformat()
        return str(getattr(one, "isoformat", one.__str__)())
    return [date_as_text(one) for one in date]


def freq_as_text(freq: Any) -> Any:
    """A frequency as text; as it is, if no text says the same."""
    if freq is None or isinstance(freq, str):
        return freq
    step = pd.tseries.frequencies.to_offset(pd.Timedelta(freq) if isinstance(freq, np.timedelta64) else freq)
    try:
        return step.freqstr if pd.tseries.frequencies.to_offset(step.freqstr) == step else freq
    except ValueError:
        return freq


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
            raise OptionError(f"window has {len(window)} elements", "days before and after", option("window=(60, 30)"))
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
                f"no observation lies within {_window_text(window)} of {as_text(label)}: the nearest is {nearest:.0f} "
                "days away",
                "at least one",
                option(f"window={int(np.ceil(nearest))}"),
            )
        nearest = float(np.abs(offsets).min())
        if not told and nearest > MAX_GAP_DAYS:
            raise TimeError(
                f"{as_text(label)} is {nearest:.0f} days from the nearest observation (the cube runs from "
                f"{as_text(times.min())} to {as_text(times.max())})",
                f"a date within {MAX_GAP_DAYS:.0f} days of an observation",
                option(f"window={int(np.ceil(nearest))}") + " if you mean it",
            )


def _window_text(window: tuple[float, float] | None) -> str:
    if window is None:
        return "reach"
    before, after = window
    return f"{before:g} days" if before == after else f"{before:g} days before and {after:g} days after"


def _days(value: Any) -> float:
    number = isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)
    if not number and not isinstance(value, str | dt.timedelta | np.timedelta64):
        raise OptionTypeError(
            f"window is {value!r}", "a number of days", either(option("window=30"), option("window=(60, 0)"))
        )
    try:
        days = float(value) if number else float(pd.Timedelta(value) / pd.Timedelta(days=1))
    except (ValueError, OverflowError) as error:
        raise OptionError(
            f"window is {value!r}", "a number of days", either(option("window=30"), option("window=(60, 0)"))
        ) from error
    if not np.isfinite(days) or days < 0:
        raise OptionError(f"window is {value!r}", "a number of days that is not negative", option("window=30"))
    return days


def _targets(found: Sequence[tuple[np.datetime64, int]], times: Times, scalar: bool = False) -> Targets:
    labels = np.array([label for label, _ in found], "datetime64[ns]")
    own = tuple(int(i) for _, i in found)
    instants = np.array([times[i] if i >= 0 else label for i, label in zip(own, labels, strict=True)], "datetime64[ns]")
    return Targets(labels, instants, own, scalar)


def _single(value: Any, times: Times) -> tuple[np.datetime64, int]:
    """The label of one date, and which of the cube's it is."""
    label, tolerance = _parse(value, times)
    own = _own(label, tolerance, times)
    if own < 0:
        _warn_of_another_time(label, times)
    return label, own


def _check_once(labels: Sequence[np.datetime64]) -> None:
    once = list(dict.fromkeys(labels))
    if len(once) < len(labels):
        told = [as_text(label) for label in once]
        remedy = option(f"date={told!r}" if len(told) <= 12 else "date=pd.DatetimeIndex(date).unique()")
        raise TimeError("a date is asked for twice", "each date once", remedy)


def _example(times: Times) -> str:
    """A date of the cube, as it may be typed."""
    return _typed(times, int(np.argmax(times)))


def _typed(times: Times, which: int) -> str:
    """One of the cube's dates as it may be typed: its day, where it is alone on it."""
    days = times.astype("datetime64[D]")
    return str(days[which]) if (days == days[which]).sum() == 1 else as_text(times[which])


def _in_reach(text: str, times: Times) -> bool:
    gap = np.abs((times - pd.Timestamp(text).as_unit("ns").to_datetime64()) / _DAY).min()
    return bool(gap <= MAX_GAP_DAYS)


def _is_midnight(value: np.datetime64) -> bool:
    return bool(value == value.astype("datetime64[D]"))


def _is_period(value: Any) -> bool:
    """Whether a value names more than a day."""
    if isinstance(value, str):
        return _PERIOD.fullmatch(value.strip()) is not None
    if isinstance(value, np.datetime64):
        return np.datetime_data(value.dtype)[0] in "YM" and not np.isnat(value)
    return isinstance(value, pd.Period) and value.freqstr != "D"


def _span(value: Any, times: Times) -> _Span | None:
    """The span that a value names, None if it is one date."""
    if isinstance(value, slice):
        if value.step is not None:
            told = date_as_text(slice(value.start, value.stop))
            raise OptionError(
                f"the date is a slice with the step {value.step!r}",
                "the two ends, and freq= for a series between them",
                option(f'date="{told}"', f'freq="{value.step if isinstance(value.step, str) else "10D"}"'),
            )
        ends: tuple[Any, Any] = (value.start, value.stop)
    elif isinstance(value, str) and "/" in value:
        first, _, last = (part.strip() for part in value.partition("/"))
        if not _END.fullmatch(first) or not _END.fullmatch(last):
            return None
        ends = (None if first in ("", "..") else first, None if last in ("", "..") else last)
    elif _is_period(value):
        text = str(value).strip()
        return _Span(*_bounds(value, times), text if _PERIOD.fullmatch(text) else date_as_text(value))
    else:
        return None
    start = (
        times.min().astype("datetime64[D]").astype("datetime64[ns]") if ends[0] is None else _bounds(ends[0], times)[0]
    )
    last_day = times.max().astype("datetime64[D]").astype("datetime64[ns]") + _DAY - _LEAST
    end = last_day if ends[1] is None else _bounds(ends[1], times)[1]
    told = date_as_text(slice(*ends))
    if end < start and None in ends:
        return _Span(start, start - _LEAST, told)  # beyond the cube
    if end < start:
        raise TimeError(
            f"the dates {told} end before they begin",
            "the earlier date first",
            option(f'date="{"/".join(told.split("/")[::-1])}"'),
        )
    return _Span(start, end, told)


def _bounds(value: Any, times: Times) -> tuple[np.datetime64, np.datetime64]:
    """First and last moment of a date or a period."""
    if not _is_period(value):
        start, tolerance = _parse(value, times)
        exact = start != start.astype("datetime64[s]")  # told to a part of a second
        return start, start if exact else start + tolerance - _LEAST
    try:
        if isinstance(value, pd.Period):
            ends = value.start_time, value.end_time
            start, end = (when.as_unit("ns").to_datetime64() for when in ends)
            return start, end
        text = value.strip() if isinstance(value, str) else str(value)
        first = np.datetime64(text, "Y" if len(text) == 4 else "M")
        pd.Timestamp(first + 1).as_unit("ns")
    except (ValueError, OverflowError) as error:
        raise TimeError(
            f"there is no {value!s}, or it is out of range",
            "a month or a year that exists",
            option(f'date="{_example(times)[:7]}"'),
        ) from error
    return first.astype("datetime64[ns]"), (first + 1).astype("datetime64[ns]") - _LEAST


def _within(span: _Span, times: Times) -> list[int]:
    """Which of the cube's dates lie within a span, by time."""
    inside = (times >= span.start) & (times <= span.end)
    if inside.any():
        order = np.argsort(times, kind="stable")
        return [int(i) for i in order[inside[order]]]
    before, after = np.flatnonzero(times < span.start), np.flatnonzero(times >= span.start)
    near = [int(before[np.argmax(times[before])])] if before.size else []
    near += [int(after[np.argmin(times[after])])] if after.size else []
    told, verb = " and ".join(_typed(times, i) for i in near), "are" if len(near) > 1 else "is"
    middle = span.start + (span.end - span.start) // 2
    nearest = min(near, key=lambda i: abs(times[i] - middle))
    far = max(np.abs(times - end).min() for end in (span.start, span.end)) > MAX_GAP_DAYS * _DAY
    remedy = option(f'date="{_typed(times, nearest)}"')
    if not far and span.end >= span.start:
        remedy = either(remedy, option(f'date="{span.text}"', 'freq="10D"'))
    raise TimeError(
        f"no date of the cube lies in {span.text}: the nearest {verb} {told}",
        "a span with a date of the cube, or freq= for a series of dates that need not be observed",
        remedy,
    )


def _series(date: Any, times: Times, freq: Any) -> list[np.datetime64]:
    """The dates of a regular series within a span, all of the cube's if no date is given."""
    span = _span(slice(None, None) if date is None else date, times)
    if span is not None and span.end < span.start:
        _within(span, times)  # beyond the cube, of which nothing tells the other end
    if span is None:
        days = np.sort(times).astype("datetime64[D]")
        raise OptionError(
            f"freq is {freq!r}, with the date {date!r}",
            "a span of time: a month, a year, a slice, or no date for all of the cube's",
            option(f'date="{days[0]}/{days[-1]}"', 'freq="10D"'),
        )
    try:
        if isinstance(freq, bool | int | float):
            raise TypeError("a number without a unit")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # what is deprecated will be an error soon
            step = pd.tseries.frequencies.to_offset(pd.Timedelta(freq) if isinstance(freq, np.timedelta64) else freq)
        start = pd.Timestamp(span.start)
        first = (start + step) - start
    except (ValueError, TypeError, OverflowError, Warning) as error:
        kind = OptionError if isinstance(freq, str | dt.timedelta | np.timedelta64) else OptionTypeError
        # Letters of old that pandas does not take any more.
        old = re.fullmatch(r"(\d*)([MQYAH])", freq) if isinstance(freq, str) else None
        right = f"{old[1]}{_STEPS[old[2]]}" if old else "10D"
        raise kind(
            f"freq is {freq!r}: {error}",
            "a frequency of pandas, such as 10D, MS for months, or YS for years",
            option(f'freq="{right}"'),
        ) from error
    if first <= pd.Timedelta(0):
        raise OptionError(f"freq is {freq!r}", "a step forwards in time", option('freq="10D"'))
    if (pd.Timestamp(span.end) - start) / first > MAX_SERIES:
        raise SizeError(
            f"freq={freq!r} makes more than {MAX_SERIES} dates in {span.text}", "fewer dates", option('freq="10D"')
        )
    made = pd.date_range(start, pd.Timestamp(span.end), freq=step, unit="ns")
    if not len(made):
        raise TimeError(
            f"there is no date of the frequency {freq!r} in {span.text}", "at least one", option('freq="10D"')
        )
    return list(made.to_numpy())


def _parse(value: Any, times: Times) -> tuple[np.datetime64, np.timedelta64]:
    """The moment, and the span after it that counts as the same."""
    example = option(f'date="{_example(times)}"')
    try:
        when = parse_timestamp(value)
        if when is not None and not pd.isna(when):
            when.as_unit("ns")
    except (ValueError, OverflowError) as error:  # pandas' OutOfBoundsDatetime is a ValueError
        if isinstance(value, str) and (existing := _existing(value.strip(), times)):
            raise TimeError(
                f"there is no date {value!r}", "a date that exists", option(f'date="{existing}"')
            ) from error
        raise TimeError(
            f"the date {value!r} does not exist or is out of range", "a date from 1678 to 2261", example
        ) from error
    if when is None:
        raise _unreadable(value, times)
    if pd.isna(when):
        raise TimeError("the date is NaT", "a date", example)
    if when.tzinfo is not None and when.utcoffset() != dt.timedelta(0):
        raise TimeError(
            f"the date {value!s} has another time zone than UTC, by which its day may be another one",
            "a date in UTC, as the cube's are",
            option(f'date="{to_utc(when).isoformat()}"'),
        )
    when = to_utc(when)
    if when == when.normalize():
        tolerance = _DAY
    else:
        to_the_minute = isinstance(value, str) and re.fullmatch(rf".{{11}}\d{{2}}:\d{{2}}({ZONE})?", value.strip())
        tolerance = _MINUTE if to_the_minute else _SECOND
    return when.as_unit("ns").to_datetime64(), tolerance


def _existing(text: str, times: Times) -> str | None:
    """What may be meant by the text of a date that there is not: its day, or the last of its month."""
    year, month = text[:4], text[5:7]
    tries = [text[:10]]
    if "01" <= month <= "12" and year >= "1700" and year <= "2250":
        tries.append(str(np.datetime64(f"{year}-{month}", "M") + 1 - np.timedelta64(1, "D")))
    for one in tries:
        try:
            if _in_reach(one, times):
                return one
        except (ValueError, OverflowError):
            continue
    return None


def _unreadable(value: Any, times: Times) -> TimeError | OptionTypeError:
    """The error for a value that names no moment without doubt."""
    text = str(value.isoformat())[:10] if hasattr(value, "isoformat") else str(value).strip()
    meant = [one for one in possible_dates(text) if _in_reach(one, times)]
    if month := re.fullmatch(r"(\d{4})[-/](\d{1,2})|(\d{1,2})[-/](\d{4})", text):
        year, number = month[1] or month[4], int(month[2] or month[3])
        meant = [f"{year}-{number:02d}"] if f"{year}-{number:02d}" in times.astype("datetime64[M]").astype(str) else []
    number = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if number and _PERIOD.fullmatch(text) and meant:
        meant = [text]
    remedy = either(*(option(f'date="{one}"') for one in meant or [_example(times)]))
    if isinstance(value, str):
        return TimeError(
            f"the date {value!r} is not written as year-month-day",
            "year-month-day, with or without a time, in UTC; a month, a year, or two of these with a slash",
            remedy,
        )
    if hasattr(value, "calendar") and hasattr(value, "isoformat"):
        return TimeError(
            f"the date {value} is of the calendar {value.calendar}", "a date of the standard calendar", remedy
        )
    return OptionTypeError(f"the date {value!r} is a {type(value).__name__}", _FORMS, remedy)


def _own(value: np.datetime64, tolerance: np.timedelta64, times: Times) -> int:
    """Which of the cube's dates is meant, -1 if none is."""
    exact = np.flatnonzero(times == value)
    if exact.size:
        return int(exact[0])
    # Archives give one moment with and without its fraction of a second: less than a second apart is the same.
    earlier = np.timedelta64(0 if tolerance == _DAY else 999, "ms")
    same = np.flatnonzero((times >= value - earlier) & (times < value + tolerance))
    if same.size > 1:
        order = same[np.argsort(times[same])]
        found = ", ".join(as_text(times[i]) for i in order)
        raise TimeError(
            f"there are {same.size} observations on {as_text(value)}: {found}",
            "one",
            either(MERGE_REMEDY, option(f'date="{as_text(times[order[0]])}"') + " for one of them"),
        )
    return int(same[0]) if same.size else -1


def _warn_of_another_time(value: np.datetime64, times: Times) -> None:
    near = np.flatnonzero(times.astype("datetime64[D]") == value.astype("datetime64[D]"))
    if near.size:
        day, seen = str(value.astype("datetime64[D]")), as_text(times[near[0]])
        warnings.warn(
            f"{as_text(value)} was not observed, but {seen} was: its clear pixels come back only for "
            f'date="{day}" or date="{seen}"',
            CloudfreeWarning,
            stacklevel=6,
        )
