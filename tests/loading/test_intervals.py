"""Spans of time."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from xr_cloudfree import errors
from xr_cloudfree.loading.intervals import parse_interval


@pytest.mark.parametrize(
    "time, text",
    [
        ("2021-07-08", "2021-07-08T00:00:00Z/2021-07-08T23:59:59Z"),
        ("2021-02", "2021-02-01T00:00:00Z/2021-02-28T23:59:59Z"),
        ("2020", "2020-01-01T00:00:00Z/2020-12-31T23:59:59Z"),
        ("2021-05/2021-07", "2021-05-01T00:00:00Z/2021-07-31T23:59:59Z"),
        ("2021-05-15/..", "2021-05-15T00:00:00Z/.."),
        ("../2021-05-15", "../2021-05-15T23:59:59Z"),
        (slice("2021-05", "2021-07"), "2021-05-01T00:00:00Z/2021-07-31T23:59:59Z"),
        (slice(None, "2021"), "../2021-12-31T23:59:59Z"),
        (("2021-05-01", dt.date(2021, 5, 2)), "2021-05-01T00:00:00Z/2021-05-02T23:59:59Z"),
        (pd.Period("2021-07"), "2021-07-01T00:00:00Z/2021-07-31T23:59:59Z"),
        ("2021-07-08T11:00/2021-07-08T13:00:00+01:00", "2021-07-08T11:00:00Z/2021-07-08T12:00:00Z"),
        (None, "../.."),
    ],
)
def test_spans(time, text):
    assert parse_interval(time).text == text


def test_both_ends_are_included():
    july = parse_interval("2021-07")
    for when, inside in (("2021-06-30T23:59:59", 0), ("2021-07-01", 1), ("2021-07-31T23:59:59", 1), ("2021-08-01", 0)):
        assert (np.datetime64(when, "ns") in july) == bool(inside)
    assert np.datetime64("1970-01-01", "ns") in parse_interval(None)


@pytest.mark.parametrize("time", ["01/02/2022", "July 2021", "2021-13", "2021-07/2021-05", "2021-02-30", ("2021", "x")])
def test_dates_that_cannot_be_read(time):
    with pytest.raises(errors.TimeError, match="time is") as caught:
        parse_interval(time)
    assert caught.value.remedy == "time='2021-05/2021-07'"


@pytest.mark.parametrize("time", [2021, ("2021",), 3.5])
def test_types_that_are_no_dates(time):
    with pytest.raises(errors.OptionTypeError):
        parse_interval(time)
