"""Spans of time, as archives are searched by them."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from xr_cloudfree.cube.timestamps import parse_timestamp, to_utc
from xr_cloudfree.errors import OptionTypeError, TimeError, option

_EXAMPLE = option("time='2021-05/2021-07'")
_PERIODS = {r"\d{4}": "Y", r"\d{4}-\d{2}": "M", r"\d{4}-\d{2}-\d{2}": "D"}
_OPEN = ("", "..")


@dataclass(frozen=True)
class Interval:
    """A span of time in UTC.

    Parameters
    ----------
    first, last : datetime64[ns] or None
        Its ends, both included; None for an open end.
    """

    first: np.datetime64 | None
    last: np.datetime64 | None

    def __contains__(self, when: np.datetime64) -> bool:
        """Return whether a time lies within."""
        return bool((self.first is None or when >= self.first) and (self.last is None or when <= self.last))

    @property
    def search_text(self) -> str | None:
        """The span as STAC APIs take it; None for all times."""
        return None if self.first is None and self.last is None else self.text

    @property
    def text(self) -> str:
        """The span as ISO 8601, with ``..`` for an open end."""
        ends = [".." if end is None else f"{np.datetime_as_string(end, unit='s')}Z" for end in (self.first, self.last)]
        return "/".join(ends)


def parse_interval(time: Any) -> Interval:
    """Return the span of time that a value denotes.

    Parameters
    ----------
    time : str, datetime, pandas.Period, slice, pair of these, or None
        ISO 8601 in UTC: a day, a month (``"2021-07"``) or a year, from its beginning to its end; two of these as
        ``"2021-05/2021-07"``, a slice or a pair, from the beginning of the first to the end of the last; None or
        ``".."`` for an open end.

    Raises
    ------
    TimeError
        If it cannot be read, or ends before it begins.
    OptionTypeError
        If it is of another type.

    Examples
    --------
    >>> parse_interval("2021-05/2021-07").text
    '2021-05-01T00:00:00Z/2021-07-31T23:59:59Z'
    """
    if isinstance(time, slice):
        ends: tuple[Any, Any] = (time.start, time.stop)
    elif isinstance(time, tuple | list):
        if len(time) != 2:
            raise OptionTypeError(f"time has {len(time)} entries", "a first and a last date", _EXAMPLE)
        ends = (time[0], time[1])
    elif isinstance(time, str) and "/" in time:
        first, _, last = time.partition("/")
        ends = (first.strip(), last.strip())
    else:
        ends = (time, time)
    interval = Interval(_end(ends[0], False), _end(ends[1], True))
    if interval.first is not None and interval.last is not None and interval.first > interval.last:
        raise TimeError(f"time is {time!r}, which ends before it begins", "the earlier date first", _EXAMPLE)
    return interval


def _end(value: Any, last: bool) -> np.datetime64 | None:
    """Return the beginning or the end of the period that a value denotes."""
    if value is None or (isinstance(value, str) and value in _OPEN):
        return None
    try:
        if isinstance(value, str):
            unit = next((u for pattern, u in _PERIODS.items() if re.fullmatch(pattern, value)), None)
            if unit is not None:
                value = pd.Period(value, unit)
        if isinstance(value, pd.Period):
            stamp: pd.Timestamp | None = value.end_time if last else value.start_time
        else:
            stamp = parse_timestamp(value)
            if stamp is not None and last and not isinstance(value, str) and stamp == stamp.normalize():
                stamp = stamp + pd.Timedelta(1, "D") - pd.Timedelta(1, "ns")  # a day is given as its midnight
    except (ValueError, OverflowError) as error:
        raise TimeError(f"time is {value!r}: {error}", "a date in ISO 8601", _EXAMPLE) from error
    if stamp is None and not isinstance(value, str):
        raise OptionTypeError(f"time is a {type(value).__name__}", "a date in ISO 8601", _EXAMPLE)
    if stamp is None or pd.isna(stamp):
        raise TimeError(f"time is {value!r}", "a date in ISO 8601", _EXAMPLE)
    when: np.datetime64 = to_utc(stamp).as_unit("ns").to_datetime64()
    return when
