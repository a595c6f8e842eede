"""Parse target dates and time windows, and match them with the dates of a cube."""

from __future__ import annotations

import datetime as dt
import re
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.cube.timestamps import (
    ISO,
    MERGE_REMEDY,
    ZONE,
    Times,
    as_text,
    parse_timestamp,
    possible_dates,
    to_utc,
)
from xr_cloudfree.errors import OptionError, OptionTypeError, SizeError, TimeError, either, option, warn

_DAY, _SECOND, _MINUTE = (np.timedelta64(1, unit) for unit in ("D", "s", "m"))
_LEAST = np.timedelta64(1, "ns")
_PERIOD = re.compile(r"\d{4}(-\d{2})?")
_END = re.compile(rf"(\.\.)?|{_PERIOD.pattern}|{ISO}({ZONE})?")
# A target farther than a year from all observations cannot be estimated; `window` has to be given explicitly.
MAX_GAP_DAYS = 366.0
# Days outside of the series beyond which a target is warned of: two passes of Landsat, in which fields change.
OUTSIDE_DAYS = 30.0
# A longer series is a mistake.
MAX_SERIES = 100_000
_STEPS = {"M": "MS", "Q": "QS", "Y": "YS", "A": "YS", "H": "h"}
_TYPES = "ISO 8601 text, datetime, numpy.datetime64, pandas.Timestamp or pandas.Period, a slice, or a list of these"


@dataclass(frozen=True, eq=False)
class Targets:
    """Target dates.

    Parameters
    ----------
    times : ndarray of datetime64[ns], shape (target,)
        Labels of the outputs.
    instants : ndarray of datetime64[ns], shape (target,)
        Reference times of the day offsets: that of the target date's observation if there is one.
    own : tuple of int
        Index in the cube of each target date's own observation, -1 if there is none.
    scalar : bool
        Whether a single date was given, as opposed to a list.
    """

    times: Times
    instants: Times
    own: tuple[int, ...]
    scalar: bool


@dataclass(frozen=True)
class _Span:
    """A time span, including both ends, with its text as an option."""

    start: np.datetime64
    end: np.datetime64
    text: str


def parse_targets(date: Any, times: Times, freq: Any = None) -> Targets:
    """Return the target dates, matched with the cube's observations.

    Parameters
    ----------
    date : str, datetime, numpy.datetime64, pandas.Timestamp, pandas.Period, slice, a sequence of these, or None
        One date, ISO 8601 in UTC: without a time (or at midnight) it matches that day's observation if there is one. A
        month, a year or any other period longer than a day, a slice, or text such as ``"2021-05/2021-07"``: all dates
        of the cube from the beginning of the first to the end of the last; an end that is omitted, or ``..``, is that
        of the cube. None: all dates of the cube.
    times : ndarray of datetime64[ns]
        The cube's time stamps.
    freq : str, timedelta or pandas.DateOffset, optional
        Step of a regular series within a span, as in `pandas.date_range`, instead of the cube's dates.

    Raises
    ------
    TimeError
        If a date cannot be read, does not exist, is duplicate, or has another time zone than UTC; if a day has several
        observations; if a span has no date.
    OptionTypeError
        If the type of a date is not allowed.
    OptionError
        If the list is empty, a slice has a step, or `freq` is not a frequency or given without a span.
    SizeError
        If `freq` results in too many dates.
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
        return _targets([(times[i], i) for i in _dates_in(span, times)], times)
    if isinstance(date, str | dt.date | np.datetime64 | pd.Period) or np.ndim(date) == 0:
        return _targets([_single(date, times)], times, scalar=True)
    dates: Sequence[Any] = list(date)
    if not dates:
        raise OptionError("date is an empty list", "at least one date", option(f'date="{_example(times)}"'))
    spans = [_span(item, times) for item in dates]
    singles = [None if span else _single(item, times) for item, span in zip(dates, spans, strict=True)]
    _check_once([single[0] for single in singles if single])
    taken = {single[1] for single in singles if single}
    targets: list[tuple[np.datetime64, int]] = []
    for span, single in zip(spans, singles, strict=True):
        if single is not None:
            targets.append(single)
        elif span is not None:  # without the dates that are listed elsewhere too
            more = [i for i in _dates_in(span, times) if i not in taken]
            taken.update(more)
            targets += [(times[i], i) for i in more]
    return _targets(targets, times)


def date_as_text(date: Any) -> Any:
    """Return dates as text with the same meaning for `parse_targets`; None, for all dates, remains None."""
    if date is None or isinstance(date, str):
        return date
    if isinstance(date, xr.DataArray):
        date = date.to_numpy()
    if isinstance(date, slice):
        first, last = (".." if end is None else str(date_as_text(end)) for end in (date.start, date.stop))
        return f"{first.partition('/')[0]}/{last.rpartition('/')[2]}"  # an end may be a period with two ends
    if isinstance(date, pd.Period) and not _is_period(date):
        return str(date.start_time.date())
    if isinstance(date, pd.Period):
        return f"{date.start_time.isoformat()}/{date.end_time.isoformat()}"
    if np.ndim(date) == 0:
        scalar = date[()] if isinstance(date, np.ndarray) else date
        if isinstance(scalar, np.datetime64):
            return str(scalar) if _is_period(scalar) else pd.Timestamp(scalar).isoformat()
        return str(getattr(scalar, "isoformat", scalar.__str__)())
    return [date_as_text(item) for item in date]


def freq_as_text(freq: Any) -> Any:
    """Return a frequency as text, or unchanged if no text is equivalent."""
    if freq is None or isinstance(freq, str):
        return freq
    step = pd.tseries.frequencies.to_offset(pd.Timedelta(freq) if isinstance(freq, np.timedelta64) else freq)
    try:
        return step.freqstr if pd.tseries.frequencies.to_offset(step.freqstr) == step else freq
    except ValueError:
        return freq


def parse_window(window: Any) -> tuple[float, float] | None:
    """Return the days before and after the target date from which observations are used.

    Parameters
    ----------
    window : float, str, timedelta, pair of these, or None
        A single number applies to both sides: ``30``, ``"30D"``, ``(60, 0)``.

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
    """Return the indices of the dates within the window, sorted by time, and their signed offsets in days.

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


def check_reach(times: Times, targets: Targets, window: tuple[float, float] | None, explicit: bool) -> None:
    """Raise for targets without an observation in their window, or far outside the cube; warn of those outside.

    Parameters
    ----------
    times : ndarray of datetime64[ns]
        The cube's time stamps.
    targets : Targets
        The target dates.
    window : tuple of float or None
        Days before and after.
    explicit : bool
        Whether the user gave the window; then the distance is not limited otherwise.

    Raises
    ------
    TimeError
        If a target has no candidate date, or none within a year without an explicit window.

    Warns
    -----
    CloudfreeWarning
        If targets lie more than `OUTSIDE_DAYS` before the first or after the last date, without an explicit window.
    """
    first, last = times.min(), times.max()
    outside = (np.maximum(first - targets.instants, targets.instants - last) / _DAY).astype(np.float64)
    for label, instant in zip(targets.times, targets.instants, strict=True):
        _, offsets = candidates(times, instant, window)
        if not offsets.size:
            nearest = float(np.abs((times - instant) / _DAY).min())
            raise TimeError(
                f"there is no observation within {_window_text(window)} of {as_text(label)}: the nearest is "
                f"{nearest:.0f} days away",
                "at least one",
                option(f"window={int(np.ceil(nearest))}"),
            )
        nearest = float(np.abs(offsets).min())
        if not explicit and nearest > MAX_GAP_DAYS:
            raise TimeError(
                f"{as_text(label)} is {nearest:.0f} days from the nearest observation (the cube runs from "
                f"{as_text(first)} to {as_text(last)})",
                f"a date within {MAX_GAP_DAYS:.0f} days of an observation",
                option(f"window={int(np.ceil(nearest))}") + " if this is intended",
            )
    far = int(outside.argmax())
    if not explicit and outside[far] > OUTSIDE_DAYS:
        side, end = ("after the last", last) if targets.instants[far] > last else ("before the first", first)
        count = int((outside > OUTSIDE_DAYS).sum())
        others = f"; {count} target dates lie more than {OUTSIDE_DAYS:.0f} days outside" if count > 1 else ""
        warn(
            f"{as_text(targets.times[far])} lies {outside[far]:.0f} days {side} date of the cube, {as_text(end)}: it "
            f"is estimated from one side only, and what changed in between is not seen{others}. "
            f"window={MAX_GAP_DAYS:.0f} confirms it, and takes dates within a year"
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
        raise OptionError(f"window is {value!r}", "a non-negative number of days", option("window=30"))
    return days


def _targets(targets: Sequence[tuple[np.datetime64, int]], times: Times, scalar: bool = False) -> Targets:
    labels = np.array([label for label, _ in targets], "datetime64[ns]")
    own = tuple(int(i) for _, i in targets)
    instants = np.array([times[i] if i >= 0 else label for i, label in zip(own, labels, strict=True)], "datetime64[ns]")
    return Targets(labels, instants, own, scalar)


def _single(value: Any, times: Times) -> tuple[np.datetime64, int]:
    """Return the label of one date, and the index of its observation."""
    label, tolerance = _parse(value, times)
    own = _own(label, tolerance, times)
    if own < 0:
        _warn_of_other_time(label, times)
    return label, own


def _check_once(labels: Sequence[np.datetime64]) -> None:
    unique = list(dict.fromkeys(labels))
    if len(unique) < len(labels):
        texts = [as_text(label) for label in unique]
        remedy = option(f"date={texts!r}" if len(texts) <= 12 else "date=pd.DatetimeIndex(date).unique()")
        raise TimeError("a date is given twice", "each date once", remedy)


def _example(times: Times) -> str:
    """Return the last date of the cube as text, for remedies."""
    return _as_option(times, int(np.argmax(times)))


def _as_option(times: Times, index: int) -> str:
    """Return a date of the cube as text: its day if it has one observation, else its time."""
    days = times.astype("datetime64[D]")
    return str(days[index]) if (days == days[index]).sum() == 1 else as_text(times[index])


def _is_near(text: str, times: Times) -> bool:
    gap = np.abs((times - pd.Timestamp(text).as_unit("ns").to_datetime64()) / _DAY).min()
    return bool(gap <= MAX_GAP_DAYS)


def _is_midnight(value: np.datetime64) -> bool:
    return bool(value == value.astype("datetime64[D]"))


def _is_period(value: Any) -> bool:
    """Return whether a value denotes a period longer than a day."""
    if isinstance(value, str):
        return _PERIOD.fullmatch(value.strip()) is not None
    if isinstance(value, np.datetime64):
        return np.datetime_data(value.dtype)[0] in "YM" and not np.isnat(value)
    return isinstance(value, pd.Period) and value.freqstr != "D"


def _span(value: Any, times: Times) -> _Span | None:
    """Return the span that a value denotes, None for a single date."""
    if isinstance(value, slice):
        if value.step is not None:
            text = date_as_text(slice(value.start, value.stop))
            raise OptionError(
                f"the date is a slice with the step {value.step!r}",
                "the two ends, and freq= for a series between them",
                option(f'date="{text}"', f'freq="{value.step if isinstance(value.step, str) else "10D"}"'),
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
    text = date_as_text(slice(*ends))
    if end < start and None in ends:
        return _Span(start, start - _LEAST, text)  # beyond the cube
    if end < start:
        raise TimeError(
            f"the dates {text} end before they begin",
            "the earlier date first",
            option(f'date="{"/".join(text.split("/")[::-1])}"'),
        )
    return _Span(start, end, text)


def _bounds(value: Any, times: Times) -> tuple[np.datetime64, np.datetime64]:
    """Return the first and last time of a date or a period."""
    if not _is_period(value):
        start, tolerance = _parse(value, times)
        exact = start != start.astype("datetime64[s]")  # given with a fraction of a second
        return start, start if exact else start + tolerance - _LEAST
    try:
        if isinstance(value, pd.Period):
            ends = value.start_time, value.end_time
            start, end = (time.as_unit("ns").to_datetime64() for time in ends)
            return start, end
        text = value.strip() if isinstance(value, str) else str(value)
        unit: Literal["Y", "M"] = "Y" if len(text) == 4 else "M"
        first, one = np.datetime64(text, unit), np.timedelta64(1, unit)
        pd.Timestamp(first + one).as_unit("ns")
    except (ValueError, OverflowError) as error:
        raise TimeError(
            f"{value!s} does not exist or is out of range",
            "a month or a year that exists",
            option(f'date="{_example(times)[:7]}"'),
        ) from error
    return first.astype("datetime64[ns]"), (first + one).astype("datetime64[ns]") - _LEAST


def _dates_in(span: _Span, times: Times) -> list[int]:
    """Return the indices of the cube's dates in a span, sorted by time."""
    inside = (times >= span.start) & (times <= span.end)
    if inside.any():
        order = np.argsort(times, kind="stable")
        return [int(i) for i in order[inside[order]]]
    before, after = np.flatnonzero(times < span.start), np.flatnonzero(times >= span.start)
    near = [int(before[np.argmax(times[before])])] if before.size else []
    near += [int(after[np.argmin(times[after])])] if after.size else []
    neighbours, verb = " and ".join(_as_option(times, i) for i in near), "are" if len(near) > 1 else "is"
    middle = span.start + (span.end - span.start) // 2
    nearest = min(near, key=lambda i: abs(times[i] - middle))
    far = max(np.abs(times - end).min() for end in (span.start, span.end)) > MAX_GAP_DAYS * _DAY
    remedy = option(f'date="{_as_option(times, nearest)}"')
    if not far and span.end >= span.start:
        remedy = either(remedy, option(f'date="{span.text}"', 'freq="10D"'))
    raise TimeError(
        f"the cube has no date in {span.text}: the nearest {verb} {neighbours}",
        "a span with a date of the cube, or freq= for a regular series of dates",
        remedy,
    )


def _series(date: Any, times: Times, freq: Any) -> list[np.datetime64]:
    """Return the dates of a regular series in a span, by default that of the cube."""
    span = _span(slice(None, None) if date is None else date, times)
    if span is not None and span.end < span.start:
        _dates_in(span, times)  # raises: the span is outside the cube, and its other end is unknown
    if span is None:
        days = np.sort(times).astype("datetime64[D]")
        raise OptionError(
            f"freq is {freq!r}, with the date {date!r}",
            "a time span: a month, a year, a slice, or no date for the whole cube",
            option(f'date="{days[0]}/{days[-1]}"', 'freq="10D"'),
        )
    try:
        if isinstance(freq, bool | int | float):
            raise TypeError("a number without a unit")
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # refuse deprecated frequencies
            step = pd.tseries.frequencies.to_offset(pd.Timedelta(freq) if isinstance(freq, np.timedelta64) else freq)
        start = pd.Timestamp(span.start)
        first = (start + step) - start
    except (ValueError, TypeError, OverflowError, Warning) as error:
        error_type = OptionError if isinstance(freq, str | dt.timedelta | np.timedelta64) else OptionTypeError
        # Letters that pandas no longer accepts.
        old = re.fullmatch(r"(\d*)([MQYAH])", freq) if isinstance(freq, str) else None
        suggestion = f"{old[1]}{_STEPS[old[2]]}" if old else "10D"
        raise error_type(
            f"freq is {freq!r}: {error}",
            "a pandas frequency, such as 10D, MS for months, or YS for years",
            option(f'freq="{suggestion}"'),
        ) from error
    if first <= pd.Timedelta(0):
        raise OptionError(f"freq is {freq!r}", "a positive time step", option('freq="10D"'))
    if (pd.Timestamp(span.end) - start) / first > MAX_SERIES:
        raise SizeError(
            f"freq={freq!r} results in more than {MAX_SERIES} dates in {span.text}",
            "fewer dates",
            option('freq="10D"'),
        )
    series = pd.date_range(start, pd.Timestamp(span.end), freq=step, unit="ns")
    if not len(series):
        raise TimeError(
            f"there is no date with the frequency {freq!r} in {span.text}", "at least one", option('freq="10D"')
        )
    return list(series.to_numpy())


def _parse(value: Any, times: Times) -> tuple[np.datetime64, np.timedelta64]:
    """Return the time of a date, and the tolerance after it for matching observations."""
    example = option(f'date="{_example(times)}"')
    try:
        time = parse_timestamp(value)
        if time is not None and not pd.isna(time):
            time.as_unit("ns")
    except (ValueError, OverflowError) as error:  # pandas' OutOfBoundsDatetime is a ValueError
        if isinstance(value, str) and (existing := _nearest_existing(value.strip(), times)):
            raise TimeError(
                f"the date {value!r} does not exist", "an existing date", option(f'date="{existing}"')
            ) from error
        raise TimeError(
            f"the date {value!r} does not exist or is out of range", "a date from 1678 to 2261", example
        ) from error
    if time is None:
        raise _ambiguous(value, times)
    if pd.isna(time):
        raise TimeError("the date is NaT", "a date", example)
    if time.tzinfo is not None and time.utcoffset() != dt.timedelta(0):
        raise TimeError(
            f"the date {value!s} has another time zone than UTC, in which its day may differ",
            "a date in UTC, like those of the cube",
            option(f'date="{to_utc(time).isoformat()}"'),
        )
    time = to_utc(time)
    if time == time.normalize():
        tolerance = _DAY
    else:
        to_the_minute = isinstance(value, str) and re.fullmatch(rf".{{11}}\d{{2}}:\d{{2}}({ZONE})?", value.strip())
        tolerance = _MINUTE if to_the_minute else _SECOND
    return time.as_unit("ns").to_datetime64(), tolerance


def _nearest_existing(text: str, times: Times) -> str | None:
    """Return a date near the cube for the text of a date that does not exist: its day, or the last of its month."""
    year, month = text[:4], text[5:7]
    candidates = [text[:10]]
    if "01" <= month <= "12" and year >= "1700" and year <= "2250":
        candidates.append(str(np.datetime64(f"{year}-{month}", "M") + 1 - np.timedelta64(1, "D")))
    for candidate in candidates:
        try:
            if _is_near(candidate, times):
                return candidate
        except (ValueError, OverflowError):
            continue
    return None


def _ambiguous(value: Any, times: Times) -> TimeError | OptionTypeError:
    """Return the error for a value that does not denote a date unambiguously."""
    text = str(value.isoformat())[:10] if hasattr(value, "isoformat") else str(value).strip()
    suggestions = [day for day in possible_dates(text) if _is_near(day, times)]
    if match := re.fullmatch(r"(\d{4})[-/](\d{1,2})|(\d{1,2})[-/](\d{4})", text):
        month = f"{match[1] or match[4]}-{int(match[2] or match[3]):02d}"
        suggestions = [month] if month in times.astype("datetime64[M]").astype(str) else []
    is_integer = isinstance(value, int | np.integer) and not isinstance(value, bool)
    if is_integer and _PERIOD.fullmatch(text) and suggestions:
        suggestions = [text]
    remedy = either(*(option(f'date="{suggestion}"') for suggestion in suggestions or [_example(times)]))
    if isinstance(value, str):
        return TimeError(
            f"the date {value!r} is not in the format year-month-day",
            "year-month-day, with or without a time, in UTC; a month, a year, or two of these with a slash",
            remedy,
        )
    if hasattr(value, "calendar") and hasattr(value, "isoformat"):
        return TimeError(
            f"the date {value} has the calendar {value.calendar}", "a date of the standard calendar", remedy
        )
    return OptionTypeError(f"the date {value!r} is a {type(value).__name__}", _TYPES, remedy)


def _own(value: np.datetime64, tolerance: np.timedelta64, times: Times) -> int:
    """Return the index of the observation on a date, -1 if there is none."""
    exact = np.flatnonzero(times == value)
    if exact.size:
        return int(exact[0])
    # Archives write one time with and without its fraction of a second: treat differences below a second as equal.
    earlier = np.timedelta64(0 if tolerance == _DAY else 999, "ms")
    same = np.flatnonzero((times >= value - earlier) & (times < value + tolerance))
    if same.size > 1:
        order = same[np.argsort(times[same])]
        observations = ", ".join(as_text(times[i]) for i in order)
        raise TimeError(
            f"there are {same.size} observations on {as_text(value)}: {observations}",
            "one",
            either(MERGE_REMEDY, option(f'date="{as_text(times[order[0]])}"') + " for one of them"),
        )
    return int(same[0]) if same.size else -1


def _warn_of_other_time(value: np.datetime64, times: Times) -> None:
    near = np.flatnonzero(times.astype("datetime64[D]") == value.astype("datetime64[D]"))
    if near.size:
        day, observed = str(value.astype("datetime64[D]")), as_text(times[near[0]])
        warn(
            f"there is no observation at {as_text(value)}, but one at {observed}: its clear pixels are only kept for "
            f'date="{day}" or date="{observed}"'
        )
