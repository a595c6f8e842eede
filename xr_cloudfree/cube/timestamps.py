"""Time stamps of cubes and layers: conversion of all usual types to datetime64, and checks."""

from __future__ import annotations

import contextlib
import datetime as dt
import re
import warnings
from collections.abc import Sequence
from typing import Any, TypeVar, cast

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.cube.dims import role_of
from xr_cloudfree.errors import TimeError, code, either, option

Times = NDArray[np.datetime64]
T = TypeVar("T", bound=xr.DataArray | xr.Dataset)

MERGE_REMEDY = either(
    option('merge="day"') + ", which makes the scenes of a day one", code("odc.stac.load(..., groupby='solar_day')")
)
"""Remedy for several scenes of one date."""

ISO = r"\d{4}-\d{2}-\d{2}([T ]\d{2}:\d{2}(:\d{2}(\.\d{1,9})?)?)?"
ZONE = r"\s*(Z|[+-]\d{2}:?\d{2})"
_MOMENT = re.compile(f"{ISO}({ZONE})?")
_GREGORIAN = ("standard", "gregorian", "proleptic_gregorian")
_FIRST, _LAST = 1681, 2259
# Formats in which archives write a day as text or as an integer.
_FORMATS = (
    (r"\d{4}", "%Y"),
    (r"\d{4}-\d{2}", "%Y-%m"),
    (r"\d{8}", "%Y%m%d"),
    (r"\d{8}T\d{6}", "%Y%m%dT%H%M%S"),
    (r"\d{8}T\d{6}Z", "%Y%m%dT%H%M%SZ"),
    (r"\d{4}/\d{2}/\d{2}", "%Y/%m/%d"),
    (r"\d{4}-\d{1,2}-\d{1,2}", "%Y-%m-%d"),
    (r"\d{4}-\d{3}", "%Y-%j"),
    (r"\d{1,2}/\d{1,2}/\d{4}", "%d/%m/%Y"),
    (r"\d{1,2}/\d{1,2}/\d{4}", "%m/%d/%Y"),
    (r"\d{1,2}\.\d{1,2}\.\d{4}", "%d.%m.%Y"),
)
# Orders of magnitude of time since 1970 in this century, by unit.
_UNITS = ((1e4, "D"), (1e9, "s"), (1e12, "ms"), (1e15, "us"), (1e18, "ns"))


def parse_timestamp(value: Any) -> pd.Timestamp | None:
    """Return the time that a value denotes, with its time zone if it has one; None if it is ambiguous.

    Parameters
    ----------
    value : str, date, datetime, numpy.datetime64, pandas.Timestamp, pandas.Period or cftime.datetime
        ISO 8601 text with a day, a cftime date of the standard calendar, a period of one day; NaT remains NaT.

    Raises
    ------
    ValueError, OverflowError
        If the day does not exist or is out of range.

    Examples
    --------
    >>> parse_timestamp("2021-06-03T11:21:09Z")
    Timestamp('2021-06-03 11:21:09+0000', tz='UTC')
    >>> parse_timestamp("03/06/2021") is None
    True
    """
    if isinstance(value, str):
        text = value.strip()
        return pd.Timestamp(text) if _MOMENT.fullmatch(text) else None
    if isinstance(value, pd.Period):
        return value.to_timestamp() if value.freqstr == "D" else None
    if isinstance(value, dt.date | np.datetime64):
        return pd.Timestamp(value)
    if (calendar := _calendar(value)) is not None:
        return pd.Timestamp(value.isoformat()) if calendar in _GREGORIAN else None
    return None


def to_utc(when: pd.Timestamp) -> pd.Timestamp:
    """Return the same time in UTC, without a time zone."""
    return when if when.tzinfo is None else when.tz_convert("UTC").tz_localize(None)


def decode_times(obj: T, name: str = "cube") -> T:
    """Return a cube or a layer with its time stamps as datetime64 in UTC. Only time stamps are read.

    Parameters
    ----------
    obj : DataArray or Dataset
        Object with a time dimension of a usual name, whose coordinate holds datetime64, ISO 8601 text,
        `datetime.date`, datetimes with or without a time zone, or cftime dates of the standard calendar.
    name : str
        Name of the object in messages.

    Raises
    ------
    TimeError
        If a time stamp is ambiguous or out of range.
    """
    for dim in [str(dim) for dim in obj.dims if role_of(str(dim)) == "time"]:
        if dim in obj.coords and not _is_datetime64(obj[dim]):
            stamps = obj[dim]
            attrs = {key: value for key, value in stamps.attrs.items() if key not in ("units", "calendar")}
            times = _decode(stamps.to_numpy(), name, dim, stamps.attrs, isinstance(obj, xr.Dataset))
            obj = cast(T, obj.assign_coords({dim: (dim, times, attrs)}))
    return obj


def cube_times(array: xr.DataArray, *, several: str | None = MERGE_REMEDY) -> Times:
    """Return the cube's time stamps as datetime64[ns], in the cube's order, after checks.

    Parameters
    ----------
    array : DataArray
        Array with the dimension ``time``.
    several : str or None
        Remedy for duplicate time stamps; None allows them.

    Raises
    ------
    TimeError
        If time stamps are missing, not dates, NaT, out of range or duplicate.
    """
    if "time" not in array.coords:
        n = array.sizes["time"]
        dates = [name for name, c in array.coords.items() if c.dims == ("time",) and c.dtype.kind == "M"]
        raise TimeError(
            "the cube has a time dimension without coordinates",
            f"a time stamp for each of the {n} observations",
            f"cube.assign_coords(time=cube[{dates[0]!r}])"
            if dates
            else f"cube.assign_coords(time=pd.to_datetime([...])) with the {n} dates",
        )
    values = decode_times(array)["time"].to_numpy()
    if np.isnat(values).any():
        raise TimeError(
            f"{int(np.isnat(values).sum())} of {values.size} time stamps are NaT",
            "a time stamp for each observation",
            "cube.sel(time=cube.time.notnull())",
        )
    # Nanoseconds cover 292 years from 1970. Beyond, a cast wraps silently or fails, depending on the numpy version.
    far = ~_within_range(values)
    if far.any():
        raise TimeError(
            f"the time stamp {values[far][0]} is out of range",
            f"dates from {_FIRST} to {_LAST}",
            "cube.sel(time=abs(cube.time.dt.year - 1970) < 290)",
        )
    times: Times = values.astype("datetime64[ns]")
    unique, counts = np.unique(times, return_counts=True)
    if several is not None and (counts > 1).any():
        raise TimeError(
            f"the time stamp {as_text(unique[counts > 1][0])} occurs {counts.max()} times",
            "each time stamp once",
            several,
        )
    return times


def as_text(value: np.datetime64) -> str:
    """Return a time as text to the second, midnight as its day."""
    text = str(np.datetime_as_string(value, unit="s"))
    return text.removesuffix("T00:00:00")


def possible_dates(text: str) -> list[str]:
    """Return the days or times that a text in another format may mean, in ISO 8601.

    Examples
    --------
    >>> possible_dates("01/02/2022")
    ['2022-02-01', '2022-01-02']
    """
    times: list[Any] = [pd.to_datetime(text, format=pattern) for pattern in _matching_formats([text])]
    if not times and re.search(r"[A-Za-z]{3}.*\d{4}|\d{4}.*[A-Za-z]{3}", text):  # names of months
        with warnings.catch_warnings(), contextlib.suppress(ValueError, OverflowError):
            warnings.simplefilter("ignore")
            times = [pd.Timestamp(text)]
    if not times and re.match(r"\d{4}-\d{2}-\d{2}\D", text):
        times = [pd.to_datetime(text[:10], errors="coerce")]
    return list(dict.fromkeys(as_text(to_utc(time).to_datetime64()) for time in times if not pd.isna(time)))


def _within_range(values: Times) -> NDArray[np.bool_]:
    return np.asarray(np.abs(values.astype("datetime64[Y]").astype(np.int64)) < 290)


def _is_datetime64(stamps: xr.DataArray) -> bool:
    return isinstance(stamps.dtype, np.dtype) and stamps.dtype.kind == "M"


def _calendar(value: Any) -> str | None:
    """Return the calendar of a cftime date, None for other types."""
    is_cftime = type(value).__module__.split(".")[0] == "cftime"
    return str(value.calendar) if is_cftime and hasattr(value, "calendar") else None


def _is_missing(value: Any) -> bool:
    return value is None or value is pd.NaT or (isinstance(value, float | np.floating) and bool(np.isnan(value)))


def _decode(values: NDArray[Any], name: str, dim: str, attrs: Any, is_dataset: bool) -> Times:
    """Return time stamps of any type as datetime64[ns], missing ones as NaT."""
    owner = "the cube" if name == "cube" else name
    times: list[np.datetime64] = []
    zoned: set[bool] = set()
    for i, value in enumerate(values.tolist() if values.dtype.kind in "UO" else values):
        if _is_missing(value):
            times.append(np.datetime64("NaT", "ns"))
            continue
        try:
            time = parse_timestamp(value)
        except (ValueError, OverflowError) as error:
            raise TimeError(
                f"the time stamp {value!r} of {owner} cannot be read: {error}",
                f"a day that exists, from {_FIRST} to {_LAST}",
                f"{name}.isel({dim}=[n for n in range({values.size}) if n != {i}])",
            ) from error
        if time is None:
            raise _ambiguous(values, value, name, dim, attrs, is_dataset)
        if pd.isna(time):
            times.append(np.datetime64("NaT", "ns"))
            continue
        if not _FIRST <= time.year <= _LAST:
            far = [n for n, other in enumerate(values) if _is_far(other)]
            raise TimeError(
                f"the time stamp {value} is out of range",
                f"dates from {_FIRST} to {_LAST}",
                f"{name}.isel({dim}=[n for n in range({values.size}) if n not in {far}])",
            )
        zoned.add(time.tzinfo is not None)
        times.append(to_utc(time).as_unit("ns").to_datetime64())
    if len(zoned) > 1:
        raise TimeError(
            f"some time stamps of {owner} have a time zone and some do not",
            "all with a time zone, or all in UTC without one",
            f"{name}.assign_coords({dim}=[pd.to_datetime(t, utc=True).tz_localize(None) for t in {name}.{dim}.values]) "
            "if those without are in UTC",
        )
    return np.array(times, "datetime64[ns]")


def _is_far(value: Any) -> bool:
    try:
        time = parse_timestamp(value)
    except (ValueError, OverflowError):
        return True
    return time is not None and not pd.isna(time) and not _FIRST <= time.year <= _LAST


def _ambiguous(values: NDArray[Any], value: Any, name: str, dim: str, attrs: Any, is_dataset: bool) -> TimeError:
    """Return the error for time stamps of an ambiguous type or format."""
    owner = "the cube" if name == "cube" else name
    cls = type(value)
    type_name = "text" if isinstance(value, str) else f"{cls.__module__.split('.')[0]}.{cls.__name__}"
    calendar = _calendar(value)
    if calendar is not None:
        type_name += f" of the calendar {calendar}"
    stamps = f"{name}.{dim}.values"
    assign = f"{name}.assign_coords({dim}=pd.to_datetime([...])) with the {values.size} dates"
    texts = [str(other) for other in values.tolist()]
    formats = _matching_formats(texts)
    units = str(attrs.get("units", ""))
    if calendar is not None:
        assign = f'{name}.convert_calendar("standard", dim={dim!r}, align_on="year", use_cftime=False)'
    elif isinstance(value, pd.Period):
        assign = f"{name}.assign_coords({dim}={name}.indexes[{dim!r}].to_timestamp())"
    elif " since " in units:
        assign = f"xr.decode_cf({name})"
        if not is_dataset:
            assign = f"xr.decode_cf({name}.to_dataset(name='stored'))['stored']"
    elif formats and isinstance(value, str | int | np.integer):
        as_str = stamps if isinstance(value, str) else f"{stamps}.astype(str)"
        assign = ", or ".join(
            f"{name}.assign_coords({dim}=pd.to_datetime({as_str}, format={pattern!r}))" for pattern in formats
        )
    elif values.dtype.kind in "iuf" and (unit := _unit(values)):
        assign = f"{name}.assign_coords({dim}=pd.to_datetime({stamps}, unit={unit!r})) if they count from 1970"
    return TimeError(
        f"the time stamps of {owner} have dtype {values.dtype} (such as {value!r}, a {type_name})",
        "datetime64 in UTC, dates or datetimes, cftime of the standard calendar, or ISO 8601 text",
        assign,
    )


def _matching_formats(texts: Sequence[str]) -> list[str]:
    """Return the formats in which all texts can be read."""
    formats = []
    for regex, pattern in _FORMATS:
        if not all(re.fullmatch(regex, text) for text in texts):
            continue
        try:
            years = pd.to_datetime(list(texts), format=pattern).year
        except (ValueError, OverflowError):
            continue
        if ((years >= _FIRST) & (years <= _LAST)).all():
            formats.append(pattern)
    return formats


def _unit(values: NDArray[Any]) -> str | None:
    """Return the unit in which numbers count from 1970 to dates of recent decades, None if there is none."""
    numbers = np.asarray(values, dtype=np.float64)
    median = float(np.nanmedian(np.abs(numbers)))
    return next((unit for size, unit in _UNITS if 0.3 * size <= median <= 3 * size), None)
