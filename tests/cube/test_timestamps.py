"""Time stamps of all unambiguous types, of cubes and of layers."""

import datetime as dt

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import DATES, make_cube, make_s1
from tests.support.malformed import cftimes
from xr_cloudfree.cube.conventions import parse_cube
from xr_cloudfree.cube.radar import parse_radar
from xr_cloudfree.cube.timestamps import cube_times, decode_times, possible_dates
from xr_cloudfree.errors import TimeError
from xr_cloudfree.stores import resume

TARGET = "2021-06-03"
STAMPS = pd.DatetimeIndex(DATES)
FORMS = {
    "text": STAMPS.strftime("%Y-%m-%d").to_numpy(),
    "text of objects": STAMPS.strftime("%Y-%m-%dT%H:%M:%S").to_numpy(dtype=object),
    "text with Z": STAMPS.strftime("%Y-%m-%dT%H:%M:%SZ").to_numpy(),
    "text with an offset": (STAMPS + pd.Timedelta("2h")).strftime("%Y-%m-%d %H:%M:%S+02:00").to_numpy(),
    "text of both lengths": np.array([t.isoformat() if i % 2 else str(t.date()) for i, t in enumerate(STAMPS)]),
    "dates": np.array([t.date() for t in STAMPS]),
    "dates and datetimes": np.array([t.date() if i % 2 else t.to_pydatetime() for i, t in enumerate(STAMPS)]),
    "datetimes with a zone": np.array([t.to_pydatetime().replace(tzinfo=dt.UTC) for t in STAMPS]),
    "an index in UTC": STAMPS.tz_localize("UTC"),
    "an index of another zone": STAMPS.tz_localize("UTC").tz_convert("Europe/Lisbon"),
    "Timestamps in UTC": STAMPS.tz_localize("UTC").to_numpy(dtype=object),
    "periods of a day": STAMPS.to_period("D"),
    "cftime": cftimes(),
    "proleptic cftime": cftimes("proleptic_gregorian"),
    "cftime index": xr.CFTimeIndex(cftimes()),
    "categories": pd.CategoricalIndex(STAMPS.strftime("%Y-%m-%d")),
    "seconds": STAMPS.astype("M8[s]"),
}


@pytest.fixture(scope="module")
def plain():
    da, clear = make_cube(shape=(20, 24))
    return da, clear, xr_cloudfree.fill(da, None, clear=clear, model="linear", layers="all")


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunks", [None, {"time": 2, "x": 7}])
def test_one_answer_whatever_the_stamps_are(plain, form, chunks):
    da, clear, expected = plain
    other = da.assign_coords(time=FORMS[form])
    mask = clear.assign_coords(time=FORMS[form]).isel(time=[3, 0, 1, 2, 6, 5, 4])
    if chunks:
        other, mask = other.chunk(chunks), mask.chunk(chunks)
    for given in (mask, clear):  # of the same type and of the usual one
        found = xr_cloudfree.fill(other, None, clear=given, model="linear", layers="all")
        xr.testing.assert_identical(found.compute(), expected)
    xr.testing.assert_identical(
        xr_cloudfree.fill(da, None, clear=mask, model="linear", layers="all").compute(), expected
    )


@pytest.mark.parametrize("form", FORMS)
def test_a_dataset_and_its_mask_go_together(plain, form):
    da, clear, expected = plain
    ds = da.to_dataset(name="reflectance").assign(good=clear).rename(time="t").assign_coords(t=FORMS[form])
    found = xr_cloudfree.fill(ds, TARGET, clear="good", model="linear")
    np.testing.assert_array_equal(found["reflectance"], expected["reflectance"].sel(time=TARGET))
    assert found["t"] == np.datetime64(TARGET)
    mask = xr_cloudfree.clear_mask(ds, clear="good")
    np.testing.assert_array_equal(mask["t"], DATES)


@pytest.mark.parametrize("form", ["text with Z", "cftime", "dates", "an index in UTC"])
def test_sentinel_1_is_read_in_the_same_way(form):
    da, _ = make_cube(shape=(20, 24))
    s1 = make_s1(da).isel(time=slice(None, 6))
    stamps = pd.DatetimeIndex(s1.time.values).normalize()
    given = {
        "text with Z": stamps.strftime("%Y-%m-%dT%H:%M:%SZ").to_numpy(),
        "cftime": xr.date_range(str(stamps[0]), periods=6, freq="D", use_cftime=True),
        "dates": [t.date() for t in stamps],
        "an index in UTC": stamps.tz_localize("UTC"),
    }[form]
    template = parse_cube(da).template
    expected = pd.date_range(stamps[0], periods=6) if form == "cftime" else stamps
    np.testing.assert_array_equal(parse_radar(s1.assign_coords(time=given), template).times, expected)


def test_doubled_scenes_of_sentinel_1_become_one_by_the_remedy():
    da, _ = make_cube(shape=(20, 24))
    s1 = make_s1(da, gaps=0)
    halves = [s1.where(s1.x < s1.x[9]), s1.where(s1.x >= s1.x[9])]
    both = xr.concat(halves, "time").sortby("time")
    template = parse_cube(da).template
    with pytest.raises(TimeError, match="2 times") as info:
        parse_radar(both, template)
    cure = "s1=s1.groupby('time').first()"
    assert cure in info.value.remedy and "merge" not in info.value.remedy
    cured = eval(cure.removeprefix("s1="), {"s1": both})
    np.testing.assert_array_equal(parse_radar(cured, template).arrays[0], s1)


def test_a_store_with_stamps_as_text_is_filled_and_resumed(tmp_path, plain):
    da, clear, expected = plain
    ds = da.drop_vars("platform").to_dataset(name="reflectance").assign(good=clear)
    ds = ds.assign_coords(time=np.array([f"{day}T00:00:00Z" for day in np.datetime_as_string(DATES, "D")], object))
    ds.to_zarr(tmp_path / "in.zarr", zarr_format=2, consolidated=True)
    image = xr_cloudfree.to_zarr(tmp_path / "in.zarr", tmp_path / "out.zarr", TARGET, model="linear", clear="good")
    np.testing.assert_array_equal(image["reflectance"], expected["reflectance"].sel(time=TARGET))
    again = resume(tmp_path / "out.zarr", progress=False)
    xr.testing.assert_identical(again, image)


def test_lazy_values_stay_lazy():
    da, _ = make_cube(shape=(20, 24))
    lazy = da.assign_coords(time=FORMS["cftime"]).chunk()
    assert decode_times(lazy).chunks == lazy.chunks
    assert decode_times(da) is da


def test_units_of_text_that_was_read_do_not_stay():
    da, _ = make_cube(shape=(20, 24))
    stamps = ("time", FORMS["text"], {"units": "ISO 8601", "long_name": "when"})
    assert decode_times(da.assign_coords(time=stamps)).time.attrs == {"long_name": "when"}


def test_stamps_a_nanosecond_apart_are_two():
    da, _ = make_cube(shape=(20, 24))
    times = DATES.copy()
    times[1] = times[0] + np.timedelta64(1, "ns")
    assert cube_times(da.assign_coords(time=times)).size == 7


@pytest.mark.parametrize(
    ("text", "meant"),
    [
        ("01/02/2022", ["2022-02-01", "2022-01-02"]),
        ("13/02/2022", ["2022-02-13"]),
        ("20220213T101112", ["2022-02-13T10:11:12"]),
        ("2022/02/13", ["2022-02-13"]),
        ("2022-044", ["2022-02-13"]),
        ("13.2.2022", ["2022-02-13"]),
        ("13 Feb 2022", ["2022-02-13"]),
        ("2022-02-13T10", ["2022-02-13"]),
        ("soon", []),
        ("99/99/9999", []),
    ],
)
def test_possible_dates_of_ambiguous_texts(text, meant):
    assert possible_dates(text) == meant
