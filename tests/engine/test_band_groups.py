"""Bands that are missing on some dates, or at some pixels: each is filled from the dates that have it."""

import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xr_cloudfree
from tests.support.cubes import CLASSICAL, make_cube
from xr_cloudfree import errors

TARGET = "2021-06-03"
BY_BAND = ["nearest", "linear", "median", "harmonic", "timegate"]
pytestmark = pytest.mark.filterwarnings(
    "ignore:on some dates there is no value of:xr_cloudfree.errors.CloudfreeWarning"
)


def union(dtype="float32", shape=(40, 44)):
    """Two sensors: nir is missing on every second date, red on the others but for one; some pixels lack a band too."""
    da, clear = make_cube(dtype=dtype, shape=shape)
    da = da.copy(deep=True)
    nothing = np.nan if dtype == "float32" else 0
    da[0::2, 2] = nothing
    da[[1, 5], 1] = nothing
    da[3, 0, 10:20, 10:20] = nothing
    return da, clear


def one_band(da, clear, band, **how):
    """The band alone, with its own clear pixels."""
    alone = da.sel(band=[band])
    return xr_cloudfree.fill(alone, TARGET, clear=clear, repair=False, **how)


@pytest.mark.parametrize("model", BY_BAND)
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_a_model_of_single_bands_answers_as_for_each_band_alone(model, dtype):
    da, clear = union(dtype)
    nodata = {"nodata": 0} if dtype == "uint16" else {}
    image = xr_cloudfree.fill(da, TARGET, clear=clear, model=model, repair=False, **nodata)
    for band in da.band.values:
        xr.testing.assert_equal(image.sel(band=[band]), one_band(da, clear, band, model=model, **nodata))


@pytest.mark.parametrize("model", CLASSICAL)
def test_nothing_that_can_be_filled_is_left_out(model):
    da, clear = union()
    image = xr_cloudfree.fill(da, TARGET, clear=clear, model=model, layers=["filled"], repair=False)
    seen = (clear & da.notnull()).any("time")
    np.testing.assert_array_equal(image.reflectance.notnull(), seen.transpose("band", "y", "x"))
    expected = np.where(seen.all("band"), 2, np.where(seen.any("band"), 3, 0))
    own = clear.sel(time=TARGET) & da.sel(time=TARGET).notnull()
    expected = np.where(own.all("band"), 1, expected)
    np.testing.assert_array_equal(image.filled, expected)
    # What was seen of the date itself comes back, band by band.
    np.testing.assert_array_equal(image.reflectance.where(own), da.sel(time=TARGET).where(own))


def test_bands_that_never_share_a_date_are_filled():
    da, clear = make_cube(shape=(30, 30))
    da = da.copy(deep=True)
    da[0::2, 2], da[1::2, 1] = np.nan, np.nan
    for model in ("linear", "regress"):
        image = xr_cloudfree.fill(da, "2021-06-05", clear=clear, model=model)
        seen = (clear & da.notnull()).any("time")
        np.testing.assert_array_equal(image.notnull(), seen.transpose("band", "y", "x"))


def test_regress_uses_all_dates_of_the_bands_that_have_them():
    """Red and blue are there on all dates: they are what a cube without nir gives."""
    da, clear = make_cube(shape=(40, 44))
    lacking = da.copy(deep=True)
    lacking[[0, 2, 5], 2] = np.nan
    image = xr_cloudfree.fill(lacking, TARGET, clear=clear, model="regress", repair=False)
    pair = xr_cloudfree.fill(da.sel(band=["blue", "red"]), TARGET, clear=clear, model="regress", repair=False)
    xr.testing.assert_equal(image.sel(band=["blue", "red"]), pair)
    there = [1, 3, 4, 6]
    whole = xr_cloudfree.fill(da.isel(time=there), TARGET, clear=clear.isel(time=there), model="regress", repair=False)
    xr.testing.assert_equal(image.sel(band=["nir"]).drop_vars("time"), whole.sel(band=["nir"]).drop_vars("time"))


@pytest.mark.filterwarnings("default:on some dates there is no value of:xr_cloudfree.errors.CloudfreeWarning")
def test_it_is_said():
    da, clear = union()
    with pytest.warns(errors.CloudfreeWarning, match="no value of red, nir"):
        xr_cloudfree.fill(da, TARGET, clear=clear, model="linear")


@pytest.mark.parametrize("model", ["linear", "geomedian", "regress"])
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data(), target=st.sampled_from([TARGET, "2021-06-15"]))
def test_one_answer_under_any_chunks_and_blocks(model, data, target):
    da, clear = union()
    how = dict(model=model, layers="all")
    whole = xr_cloudfree.fill(da, target, clear=clear, **how)
    stride = xr_cloudfree.models.registry.create(model).spec.stride or 7
    chunks = {dim: data.draw(st.integers(5, 50)) for dim in ("y", "x")} | {"time": data.draw(st.integers(1, 7))}
    block = data.draw(st.integers(1, 3)) * stride
    lazy = xr_cloudfree.fill(da.chunk(chunks), target, clear=clear.chunk(chunks), block=block, **how)
    xr.testing.assert_identical(lazy.compute(scheduler="synchronous"), whole)
    order = data.draw(st.permutations(range(da.sizes["time"])))
    mixed = xr_cloudfree.fill(da.isel(time=order), target, clear=clear.isel(time=order), **(how | {"layers": "filled"}))
    xr.testing.assert_equal(mixed.reflectance, whole.reflectance)


def test_the_same_in_a_store(tmp_path):
    da, clear = union()
    image = xr_cloudfree.fill(da, TARGET, clear=clear, model="regress", layers="filled")
    stored = xr_cloudfree.to_zarr(
        da, tmp_path / "out.zarr", TARGET, clear=clear, model="regress", layers="filled", shard=320
    )
    xr.testing.assert_equal(stored.reflectance.drop_vars("band"), image.reflectance.drop_vars("band"))
    np.testing.assert_array_equal(stored["filled"], image["filled"])


@pytest.mark.parametrize("model", ["linear", "regress"])
def test_what_lies_under_cloud_says_nothing_of_a_tile(model):
    """A band that is missing only where nothing is clear changes nothing, whatever else is in the window."""
    da, clear = make_cube(shape=(40, 560))
    clear = clear.copy(deep=True)
    clear[2, :, :200] = False
    lacking = da.copy(deep=True)
    lacking[2, 2, :, :200] = np.nan  # unseen
    lacking[4, 1, :20, 540:] = np.nan  # seen, and far from it
    how = dict(model=model, layers="all", repair=False)
    whole = xr_cloudfree.fill(lacking, TARGET, clear=clear, **how)
    stride = xr_cloudfree.models.registry.create(model).spec.stride or 20
    xr.testing.assert_identical(xr_cloudfree.fill(lacking, TARGET, clear=clear, block=stride, **how), whole)
    plain = xr_cloudfree.fill(da, TARGET, clear=clear, **how)
    far = {"x": slice(0, 100)}
    xr.testing.assert_identical(whole.isel(far), plain.isel(far))
