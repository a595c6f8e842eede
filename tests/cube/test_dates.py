"""Target dates: single dates, months, slices and regular series."""

import datetime as dt
import json
import warnings

import cftime
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import DATES, make_cube
from xr_cloudfree.cube.dates import check_reach, date_as_text, freq_as_text, parse_targets
from xr_cloudfree.errors import OptionError, TimeError
from xr_cloudfree.io import open_cube
from xr_cloudfree.runner import runs
from xr_cloudfree.stores import resume

# In no order, at other times of the day; 2022 has one date.
TIMES = np.array(
    [
        "2021-06-03T11:21",
        "2021-05-01T11:21",
        "2021-05-10T23:59:59",
        "2021-05-21",
        "2021-06-30T11",
        "2022-01-01",
        "2021-07-17",
    ],
    "M8[ns]",
)


def days(date, freq=None, times=TIMES):
    found = parse_targets(date, times, freq)
    assert not found.scalar
    return [str(day) for day in found.times.astype("M8[D]")]


MAY = ["2021-05-01", "2021-05-10", "2021-05-21"]
JUNE = ["2021-06-03", "2021-06-30"]
Y21 = [*MAY, *JUNE, "2021-07-17"]


@pytest.mark.parametrize(
    ("date", "expected"),
    [
        ("2021-05", MAY),
        ("2021", Y21),
        ("2022", ["2022-01-01"]),
        (" 2021-05 ", MAY),
        (np.datetime64("2021-05"), MAY),
        (np.datetime64("2021"), Y21),
        (pd.Period("2021-05"), MAY),
        (pd.Period("2021Q2"), MAY + JUNE),
        (pd.Period("2021-06-28", freq="W"), ["2021-06-30"]),
        (pd.Period("2021-06-30T11:00", freq="h"), ["2021-06-30"]),
        (slice("2021-05", "2021-06"), MAY + JUNE),
        (slice("2021-05-10", "2021-05-21"), MAY[1:]),
        (slice("2021-05-01T11:21", "2021-05-10"), MAY[:2]),
        (slice("2021-05-01T11:22", "2021-05-10T23:59"), MAY[1:2]),
        (slice("2021-05-01T11:22", "2021-05-10T23:58"), None),
        (slice(None, "2021-05"), MAY),
        (slice("2021-07", None), ["2021-07-17", "2022-01-01"]),
        (slice(None), [*Y21, "2022-01-01"]),
        (slice(dt.date(2021, 6, 3), dt.date(2021, 6, 30)), JUNE),
        (slice(pd.Timestamp("2021-06-03"), pd.Timestamp("2021-06-30")), JUNE),
        (slice(pd.Period("2021-06"), np.datetime64("2021-07")), [*JUNE, "2021-07-17"]),
        (slice(cftime.DatetimeGregorian(2021, 6, 3), "2021-06-30T11:00Z"), JUNE),
        ("2021-05/2021-06", MAY + JUNE),
        ("2021-07/..", ["2021-07-17", "2022-01-01"]),
        ("../2021-05", MAY),
        ("/2021-05", MAY),
        ("2021-05-10 / 2021-05-21", MAY[1:]),
        ("2021/2022", [*Y21, "2022-01-01"]),
        (["2021-06", "2021-05"], JUNE + MAY),
        (["2021-05", "2021-05-11", "2021-05-10"], ["2021-05-01", "2021-05-21", "2021-05-11", "2021-05-10"]),
        (["2021", "2021-05"], Y21),
        (pd.PeriodIndex(["2021-05", "2021-06"], freq="M"), MAY + JUNE),
        (np.array(["2021-05", "2021-06"], "M8[M]"), MAY + JUNE),
        (pd.DatetimeIndex(["2021-06-30", "2021-06-04"]), ["2021-06-30", "2021-06-04"]),
        (pd.Series(pd.DatetimeIndex(["2021-06-30"])), ["2021-06-30"]),
        (xr.DataArray(pd.DatetimeIndex(["2021-06-30"]), dims="time"), ["2021-06-30"]),
        (("2021-06-03", "2021-06-30"), JUNE),
        ([pd.Period("2021-06-03", freq="D")], JUNE[:1]),
        (
            [slice("2021-06-29", None), slice(None, "2021-05-02")],
            ["2021-06-30", "2021-07-17", "2022-01-01", "2021-05-01"],
        ),
    ],
)
def test_periods_slices_and_lists(date, expected):
    if expected is None:
        with pytest.raises(TimeError, match="the cube has no date in"):
            days(date)
        return
    assert days(date) == expected
    text = json.loads(json.dumps(date_as_text(date)))
    one, other = parse_targets(date, TIMES), parse_targets(text, TIMES)
    np.testing.assert_array_equal(one.times, other.times)
    np.testing.assert_array_equal(one.instants, other.instants)
    assert one.own == other.own


@pytest.mark.parametrize(
    "date", ["2021-05", "2021", slice("2021-05", "2021-06"), slice("2021-05-10", None), slice(None)]
)
def test_a_selection_is_that_of_xarray(date):
    series = xr.DataArray(np.arange(7), dims="time", coords={"time": TIMES}).sortby("time")
    np.testing.assert_array_equal(parse_targets(date, TIMES).times, series.sel(time=date).time)


@pytest.mark.parametrize(
    "date",
    [
        "2021-06-03T00:00Z",
        "2021-06-03T00:00:00+00:00",
        "2021-06-03 00:00:00 Z",
        pd.Timestamp("2021-06-03", tz="UTC"),
        dt.datetime(2021, 6, 3, tzinfo=dt.UTC),
        pd.Period("2021-06-03", freq="D"),
        cftime.DatetimeGregorian(2021, 6, 3),
        xr.DataArray(cftime.DatetimeProlepticGregorian(2021, 6, 3)),
        np.array("2021-06-03", "M8[s]"),
    ],
)
def test_equivalent_types_of_one_date(date):
    found, plain = parse_targets(date, TIMES), parse_targets("2021-06-03", TIMES)
    assert found.scalar and found.own == plain.own == (0,)
    assert found.times == plain.times and found.instants == plain.instants
    again = parse_targets(date_as_text(date), TIMES)
    assert again.scalar and again.own == (0,) and again.times == plain.times


@pytest.mark.parametrize(
    ("date", "freq", "expected"),
    [
        ("2021-05", "10D", ["2021-05-01", "2021-05-11", "2021-05-21", "2021-05-31"]),
        (slice("2021-05-28", "2021-06-08"), np.timedelta64(5, "D"), ["2021-05-28", "2021-06-02", "2021-06-07"]),
        (slice("2021-05-28", "2021-06-08"), dt.timedelta(days=5), ["2021-05-28", "2021-06-02", "2021-06-07"]),
        ("2021-05-28/2021-06-08", pd.Timedelta("5D"), ["2021-05-28", "2021-06-02", "2021-06-07"]),
        ("2021", "QS", ["2021-01-01", "2021-04-01", "2021-07-01", "2021-10-01"]),
        (slice("2021-06-15", "2021-09"), pd.offsets.MonthBegin(), ["2021-07-01", "2021-08-01", "2021-09-01"]),
        (slice("2021-12-20", None), "10D", ["2021-12-20", "2021-12-30"]),
        (None, "100D", ["2021-05-01", "2021-08-09", "2021-11-17"]),
        ("2021-05-31/2021-06-01", "12h", ["2021-05-31", "2021-05-31", "2021-06-01", "2021-06-01"]),
    ],
)
def test_a_regular_series(date, freq, expected):
    with warnings.catch_warnings(action="error"):
        assert days(date, freq) == expected
    again = parse_targets(json.loads(json.dumps(date_as_text(date))), TIMES, freq_as_text(freq))
    np.testing.assert_array_equal(again.times, parse_targets(date, TIMES, freq).times)


def test_a_frequency_that_no_text_says_stays_as_it_is():
    assert freq_as_text(pd.offsets.MonthBegin()) == "MS" and freq_as_text(dt.timedelta(days=3)) in ("3D", "72h")
    step = pd.DateOffset(months=1)
    assert freq_as_text(step) is step


@pytest.mark.filterwarnings("ignore:.* days after the last date")
@pytest.mark.parametrize("date", ["2021-08", slice("2021-08", None), "2022", "2025", slice(None, "2021-04")])
def test_each_alternative_for_a_span_without_dates_can_be_typed(date):
    da, clear = make_cube(shape=(20, 24))
    with pytest.raises(TimeError) as info:
        xr_cloudfree.fill(da, date, clear=clear)
    for remedy in info.value.remedy.split(", or "):
        xr_cloudfree.fill(da, clear=clear, model="linear", **eval(f"dict({remedy})"))


def test_a_series_takes_the_observation_of_its_days():
    found = parse_targets(slice("2021-05-01", "2021-05-21"), TIMES, "5D")
    assert found.own == (1, -1, -1, -1, 3)
    assert found.instants[0] == TIMES[1] and found.times[0] == np.datetime64("2021-05-01")


def test_the_order_of_the_cube_says_nothing():
    order = [3, 6, 0, 5, 2, 4, 1]
    for date in ("2021", slice("2021-05", "2021-06"), ["2021-06", "2021-05-10"]):
        one, other = parse_targets(date, TIMES), parse_targets(date, TIMES[order])
        np.testing.assert_array_equal(one.times, other.times)
        np.testing.assert_array_equal(TIMES[list(one.own)], TIMES[order][list(other.own)])


@pytest.fixture(scope="module")
def cube():
    return make_cube(shape=(20, 24))


@pytest.mark.parametrize("chunks", [None, {"time": 3, "y": 7}])
@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ({"date": "2021-06"}, list(DATES[3:6])),
        ({"date": "2021-07"}, [DATES[6]]),
        ({"date": slice("2021-05-15", "2021-06-10")}, list(DATES[2:4])),
        ({"date": "2021-06", "freq": "10D"}, ["2021-06-01", "2021-06-11", "2021-06-21"]),
    ],
)
def test_fill_gives_the_same_as_for_the_dates_one_by_one(cube, how, expected, chunks):
    da, clear = cube
    expected = np.array(expected, "M8[ns]")
    given = (da.chunk(chunks), clear.chunk({"time": 2})) if chunks else (da, clear)
    found = xr_cloudfree.fill(given[0], clear=given[1], model="linear", layers=["filled"], **how)
    assert found["reflectance"].dims == ("time", "band", "y", "x")
    assert (found["reflectance"].chunks is None) == (chunks is None)
    np.testing.assert_array_equal(found["time"], expected)
    for one in expected:
        single = xr_cloudfree.fill(da, one, clear=clear, model="linear", layers=["filled"])
        for name in ("reflectance", "filled"):
            np.testing.assert_array_equal(found[name].sel(time=one), single[name])


@pytest.mark.parametrize(
    "how",
    [
        {"date": "2021-06"},
        {"date": slice("2021-05-15", None)},
        {"date": pd.Period("2021-06")},
        {"date": pd.DatetimeIndex(["2021-06-03", "2021-06-15"])},
        {"date": slice(pd.Timestamp("2021-06-01"), pd.Timestamp("2021-06-30")), "freq": pd.Timedelta("10D")},
        {"freq": "MS"},
    ],
    ids=str,
)
def test_a_run_is_planned_again_from_its_journal(tmp_path, cube, how):
    da, clear = cube[0].drop_vars("platform"), cube[1]
    store = tmp_path / "in.zarr"
    da.to_dataset("band").assign(good=clear).to_zarr(store, consolidated=False)
    opened = open_cube(store)
    image = xr_cloudfree.to_zarr(opened, tmp_path / "out.zarr", model="linear", clear="good", **how)
    expected = xr_cloudfree.fill(da, clear=clear, model="linear", **how)
    np.testing.assert_array_equal(image["nir"], expected.sel(band="nir"))
    assert json.loads((tmp_path / "out.zarr.journal" / "run.json").read_text())["call"] is not None
    runs.reopen(tmp_path / "out.zarr")
    xr.testing.assert_identical(resume(tmp_path / "out.zarr", progress=False), image)


def test_what_stands_beside_a_month_is_told(cube):
    da, clear = cube
    with pytest.raises(TimeError) as info:
        xr_cloudfree.fill(da, slice("2021-06-12", "2021-06-15"), clear=clear)
    assert "2021-06-11 and 2021-06-30" in info.value.found and 'date="2021-06-11"' in info.value.remedy


def test_freq_without_a_unit_is_explained(cube):
    da, clear = cube
    with pytest.raises(OptionError, match="MS for months"):
        xr_cloudfree.fill(da, "2021", freq="M2", clear=clear)


def test_a_date_far_outside_of_the_series_is_warned_of_once():
    series = np.array(["2021-05-01", "2021-07-17"], "datetime64[ns]")

    def told(dates, window=None):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            check_reach(series, parse_targets(dates, series), window or (366.0, 366.0), window is not None)
        return [str(warning.message) for warning in caught]

    assert told("2021-08-16") == told("2021-06-08") == told("2021-04-01") == []
    [after] = told("2021-09-17")
    assert "2021-09-17 lies 62 days after the last date of the cube, 2021-07-17" in after
    [before] = told(["2021-03-01", "2021-06-01", "2021-09-01"])
    assert "2021-03-01 lies 61 days before the first date" in before and "2 target dates" in before
    assert told("2021-09-17", (366.0, 366.0)) == []  # what the warning tells to type
