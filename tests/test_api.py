"""The output contract, for every model alike."""

import datetime as dt
import pickle

import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import CLASSICAL, DATES, as_dataset, bands_of, make_cube
from xr_cloudfree import errors
from xr_cloudfree.cube.conventions import parse_cube

TARGET = "2021-06-03"
OWN = 3


@pytest.fixture(scope="module")
def cube():
    return make_cube()


@pytest.mark.parametrize("model", CLASSICAL)
class TestContract:
    def test_labels(self, cube, model):
        da, clear = cube
        out = xr_cloudfree.fill(da, TARGET, clear=clear, model=model)
        assert isinstance(out, xr.DataArray)
        assert out.name == da.name and out.dims == ("band", "y", "x") and out.dtype == da.dtype
        for name in ("band", "y", "x", "spatial_ref"):
            xr.testing.assert_identical(out[name].drop_vars(["time", "platform"]), da[name])
        assert out["time"].ndim == 0 and out["time"] == np.datetime64(TARGET)
        assert out.rio.crs == da.rio.crs and out.rio.transform() == da.rio.transform()
        assert out.attrs["units"] == "1"
        assert out.attrs["cloudfree_model"] == ("unet" if model == "auto" else model)
        assert out.attrs["cloudfree_version"] == xr_cloudfree.__version__

    @pytest.mark.parametrize("dtype", ["float32", "float64", "uint16", "int16", "int32"])
    def test_clear_target_pixels_come_back_bit_for_bit(self, model, dtype):
        da, clear = make_cube(dtype="float32" if dtype.startswith("float") else dtype)
        da = da.astype(dtype)
        out = xr_cloudfree.fill(da, TARGET, clear=clear, model=model, layers="all", repair=False)
        assert out["reflectance"].dtype == dtype
        own, seen = da.isel(time=OWN), clear.isel(time=OWN)
        assert seen.any() and not seen.all()
        assert (out["reflectance"] == own).where(seen, True).all()
        assert (out["filled"] == 1).where(seen, True).all()
        assert not (out["filled"] == 1).where(~seen, False).any()

    @pytest.mark.parametrize("dtype", ["float32", "uint16"])
    def test_nothing_clear_is_nodata_with_its_flag(self, model, dtype):
        da, clear = make_cube(dtype=dtype)
        out = xr_cloudfree.fill(da, TARGET, clear=clear, model=model, layers="all")
        corner = out.isel(y=slice(3), x=slice(3))
        nothing = np.isnan(corner["reflectance"]) if dtype == "float32" else corner["reflectance"] == 0
        assert nothing.all()
        assert (corner["filled"] == 0).all() and (corner["n_clear"] == 0).all()
        assert np.isnan(corner["days_to_clear"]).all()
        if "source_time" in out:
            assert np.isnat(corner["source_time"]).all()
        if "uncertainty" in out:
            assert np.isnan(corner["uncertainty"]).all()
        rest = out.where(out["n_clear"] > 0, drop=True)
        assert (rest["filled"] > 0).where(rest["n_clear"] > 0, True).all()

    def test_what_is_not_clear_is_never_used(self, cube, model):
        da, clear = cube
        poisoned = da.where(clear, 7.0)
        for value in (np.nan, np.inf):
            other = da.where(clear, value)
            xr.testing.assert_identical(
                xr_cloudfree.fill(poisoned, TARGET, clear=clear, model=model, layers="all", repair=False),
                xr_cloudfree.fill(other, TARGET, clear=clear, model=model, layers="all", repair=False),
            )

    def test_provenance(self, cube, model):
        da, clear = cube
        out = xr_cloudfree.fill(da, TARGET, clear=clear, model=model, layers="all", repair=False)
        valid = clear & da.notnull().all("band")
        np.testing.assert_array_equal(out["n_clear"], valid.sum("time"))
        days = (da["time"] - np.datetime64(TARGET)) / np.timedelta64(1, "D")
        nearest = abs(days.where(valid)).min("time")
        np.testing.assert_array_equal(abs(out["days_to_clear"]), nearest.transpose("y", "x"))
        if "source_time" in out:
            told = out["source_time"].notnull()
            assert np.isin(out["source_time"].values[told.values], DATES).all()
            seen = valid.isel(time=OWN)
            assert (out["source_time"] == DATES[OWN]).where(seen, True).all()
        if "gate" in out:
            total = out["gate"].sum("observation")
            np.testing.assert_allclose(total.where(out["n_clear"] > 0, 1), 1, atol=1e-5)
            assert (out["gate"].drop_vars("time").rename(observation="time").where(~valid, 0) == 0).all()
        if "uncertainty" in out:
            spread = out["uncertainty"]
            assert (spread.where(out["filled"] == 2, 1) > 0).all() or spread.isnull().any()
            assert (spread.where(out["filled"] == 1, 0) == 0).all()

    def test_units_do_not_matter(self, model):
        """Digital numbers with a scale give what reflectance gives, to the rounding of the digits."""
        da, clear = make_cube(dtype="uint16")
        digits = xr_cloudfree.fill(da, "2021-06-15", clear=clear, model=model, layers=["filled"])
        floats = (da.where(da != 0) * 1e-4).astype("float32").drop_attrs()
        reflectance = xr_cloudfree.fill(floats, "2021-06-15", clear=clear, model=model, layers=["filled"])
        xr.testing.assert_equal(digits["filled"], reflectance["filled"])
        where = digits["filled"] > 0
        error = abs(digits["reflectance"] * 1e-4 - reflectance["reflectance"]).where(where, 0)
        # Rounding, and for the geometric median the tolerance of its iteration.
        assert error.max() < (5e-4 if model in ("geomedian", "regress", "auto") else 6e-5)


def test_every_date_keeps_the_cube(cube):
    da, clear = cube
    out = xr_cloudfree.fill(da, clear=clear, model="linear", repair=False)
    assert out.dims == da.dims
    xr.testing.assert_equal(out["time"], da["time"])
    xr.testing.assert_equal(out["platform"], da["platform"])
    xr.testing.assert_equal(out.where(clear & da.notnull()), da.where(clear))


@pytest.mark.parametrize(
    "date",
    [
        TARGET,
        "2021-06-03T00:00",
        dt.date(2021, 6, 3),
        dt.datetime(2021, 6, 3),
        np.datetime64(TARGET),
        pd.Timestamp(TARGET),
    ],
)
def test_a_date_may_be_written_in_many_ways(cube, date):
    da, clear = cube
    xr.testing.assert_identical(
        xr_cloudfree.fill(da, date, clear=clear, model="linear"),
        xr_cloudfree.fill(da, TARGET, clear=clear, model="linear"),
    )


def test_a_date_without_a_time_means_that_days_observation(cube):
    da, clear = cube
    later = da.assign_coords(time=da["time"] + np.timedelta64(11 * 60 + 3, "m"))
    mask = clear.assign_coords(time=later["time"])
    out = xr_cloudfree.fill(later, TARGET, clear=mask, model="linear", layers=["filled", "days_to_clear"], repair=False)
    assert (out["filled"] == 1).sum() == (clear.isel(time=OWN) & da.isel(time=OWN).notnull().all("band")).sum()
    assert (out["days_to_clear"].where(out["filled"] == 1, 0) == 0).all()


def test_an_unobserved_date_lies_between_its_neighbours(cube):
    da, clear = cube
    everything = xr.ones_like(clear)
    out = xr_cloudfree.fill(da.fillna(0.2), "2021-05-05", clear=everything, model="linear", repair=False)
    first, second = da.isel(time=0), da.isel(time=1).fillna(0.2)
    np.testing.assert_allclose(out, first + (second - first) * 4 / 9, atol=1e-6)


def test_transposed_cube_gives_the_same():
    da, clear = make_cube()
    out = xr_cloudfree.fill(
        da.transpose("y", "x", "time", "band"), TARGET, clear=clear.transpose("x", ...), model="linear"
    )
    xr.testing.assert_identical(out, xr_cloudfree.fill(da, TARGET, clear=clear, model="linear"))


def test_errors_survive_the_way_back_from_a_worker():
    error = errors.ScalingError("found", "needed", "remedy")
    again = pickle.loads(pickle.dumps(error))
    assert str(again) == str(error) and type(again) is errors.ScalingError


def test_digital_numbers_with_nothing_told_are_an_error():
    da, clear = make_cube(dtype="uint16")
    da.attrs = {}
    with pytest.raises(errors.ScalingError, match="scale="):
        xr_cloudfree.fill(da.chunk(), TARGET, clear=clear, model="linear", nodata=0)
    xr_cloudfree.fill(da.chunk(), TARGET, clear=clear, model="linear", nodata=0, check=False).compute()
    # Only values tell it of floats.
    lazy = xr_cloudfree.fill(da.astype("float32").chunk(), TARGET, clear=clear, model="linear")
    with pytest.raises(errors.ScalingError):
        lazy.compute()


def test_a_fraction_of_a_second_does_not_lose_the_observation(cube):
    da, clear = cube
    times = da["time"] + np.timedelta64(11 * 3600 + 21 * 60 + 9, "s")
    da, clear = da.assign_coords(time=times), clear.assign_coords(time=times)
    whole = xr_cloudfree.fill(da, TARGET, clear=clear, model="linear")
    for date in ("2021-06-03T11:21:09", "2021-06-03T11:21:09.024", "2021-06-03T11:21:08.500", "2021-06-03T11:21"):
        xr.testing.assert_equal(
            xr_cloudfree.fill(da, date, clear=clear, model="linear").drop_vars("time"), whole.drop_vars("time")
        )
    with pytest.warns(UserWarning, match='date="2021-06-03"'):
        xr_cloudfree.fill(da, "2021-06-03T09:00", clear=clear, model="linear")


def test_bands_may_be_asked_for_by_their_common_names():
    da, clear = make_cube(dtype="uint16")
    ds = as_dataset(da, clear)
    out = xr_cloudfree.fill(ds, TARGET, bands=["red", "B02"], model="linear", layers=["filled"])
    assert list(out.data_vars) == ["B04", "B02", "filled"]
    with pytest.raises(errors.BandError):
        xr_cloudfree.fill(ds, TARGET, bands=["B2"])


def test_values_that_are_no_reflectance_may_pass():
    da, clear = make_cube()
    index = da * 500 - 60
    index.attrs = {}
    with pytest.raises(errors.ScalingError, match="check=False"):
        xr_cloudfree.fill(index, TARGET, clear=clear, model="linear")
    out = xr_cloudfree.fill(index, TARGET, clear=clear, model="linear", check=False, repair=False)
    expected = xr_cloudfree.fill(da, TARGET, clear=clear, model="linear", repair=False) * 500 - 60
    np.testing.assert_allclose(out, expected, rtol=1e-4, atol=1e-3)


def test_the_roles_of_bands_come_from_all_of_them():
    few = bands_of(["SR_B2", "SR_B3", "SR_B4", "SR_B6"])
    assert parse_cube(few).common_names == ("blue", "green", "red", "swir16")
    assert parse_cube(few, ["SR_B2", "SR_B4"]).common_names == ("blue", "red")
    short = bands_of(["B4", "B3", "B2", "B8A"])
    assert parse_cube(short).common_names == ("red", "green", "blue", "nir08")
    assert list(xr_cloudfree.fill(short, TARGET, clear="clear", model="linear").data_vars) == ["B4", "B3", "B2", "B8A"]


def test_whole_numbers_of_different_types_are_refused():
    ds = bands_of(["B02", "B03"])
    ds["B03"] = ds["B03"].astype("int16")
    with pytest.raises(errors.BandError, match="int32"):
        xr_cloudfree.fill(ds, TARGET, clear="clear")
    xr_cloudfree.fill(ds[["B02", "B03"]].astype("int32"), TARGET, clear=ds["clear"], scale=1e-4, nodata=0)


def test_of_two_equally_near_the_earlier_counts():
    da, _ = make_cube()
    two = da.fillna(0.2).isel(time=[0, 1]).assign_coords(time=np.array(["2021-07-01", "2021-07-11"], "M8[ns]"))
    clear = xr.ones_like(two.isel(band=0, drop=True), dtype=bool)
    out = xr_cloudfree.fill(two, "2021-07-06", clear=clear, model="nearest", layers="all")
    assert (out["days_to_clear"] == -5).all() and (out["source_time"] == np.datetime64("2021-07-01")).all()


@pytest.mark.parametrize("date", ["2021-06-15", TARGET])
@pytest.mark.parametrize("model", ["unet", "regress", "linear"])
def test_a_cube_in_which_nothing_was_ever_seen_stays_without_values(cube, date, model):
    da, clear = cube
    image = xr_cloudfree.fill(da, date, clear=xr.zeros_like(clear), model=model, layers="all")
    assert (image["filled"] == 0).all() and np.isnat(image["source_time"]).all()
