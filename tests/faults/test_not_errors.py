"""Small, turned, cloudy and empty cubes are no errors: they are filled, or nodata with its flag."""

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import CLASSICAL, make_cube
from tests.support.malformed import NX, NY, TARGET, Answers, cube, fill
from xr_cloudfree.models.protocol import Prediction


@pytest.mark.parametrize("model", CLASSICAL)
class TestNotAnError:
    @pytest.mark.parametrize("dtype", ["float32", "uint16"])
    def test_a_cube_that_is_all_cloud_is_all_nodata(self, model, dtype):
        da, clear = make_cube(shape=(NY, NX), dtype=dtype)
        out = xr_cloudfree.fill(da, TARGET, clear=xr.zeros_like(clear), model=model, layers=["filled", "n_clear"])
        image = out["reflectance"]
        assert (image.isnull() if dtype == "float32" else image == 0).all()
        assert (out["filled"] == 0).all() and (out["n_clear"] == 0).all()

    def test_a_cube_without_a_value_is_all_nodata(self, model):
        da, clear = make_cube(shape=(NY, NX))
        out = xr_cloudfree.fill(da * np.nan, TARGET, clear=xr.ones_like(clear), model=model, layers=["filled"])
        assert out["reflectance"].isnull().all() and (out["filled"] == 0).all()

    def test_infinity_is_missing(self, model):
        da, clear = make_cube(shape=(NY, NX))
        sick, gone = da.copy(deep=True), da.copy(deep=True)
        sick[:, 0, 4:6, 4:6], gone[:, 0, 4:6, 4:6] = np.inf, np.nan
        sick[3, 1, 9, 9], gone[3, 1, 9, 9] = -np.inf, np.nan
        found, expected = (xr_cloudfree.fill(c, TARGET, clear=clear, model=model) for c in (sick, gone))
        xr.testing.assert_identical(found, expected)
        assert np.isnan(found[0, 4:6, 4:6]).all()

    @pytest.mark.parametrize(
        "part",
        [{"time": [3]}, {"time": [1]}, {"y": [7], "x": [9]}, {"band": [1]}, {"x": slice(None, None, -1)}],
        ids=["own date only", "one other date", "one pixel", "one band", "x downwards"],
    )
    def test_small_or_turned_cubes(self, model, part):
        da, clear = make_cube(shape=(NY, NX))
        da, clear = da.isel(part), clear.isel(part, missing_dims="ignore")
        out = xr_cloudfree.fill(da, TARGET, clear=clear, model=model, layers=["filled"])
        assert out["reflectance"].shape == da.shape[1:]
        np.testing.assert_array_equal(out["filled"] > 0, out["reflectance"].notnull().all("band"))
        if "x" in part and len(da.x) > 1:
            turned = make_cube(shape=(NY, NX))[0].isel(x=slice(None, None, -1))
            xr.testing.assert_identical(out["reflectance"]["x"].drop_vars(["time", "platform"]), turned["x"])

    def test_dates_in_disorder(self, model):
        da, clear = make_cube(shape=(NY, NX))
        order = [4, 0, 6, 3, 1, 5, 2]
        mixed = xr_cloudfree.fill(da.isel(time=order), TARGET, clear=clear.isel(time=order[::-1]), model=model)
        xr.testing.assert_allclose(mixed, xr_cloudfree.fill(da, TARGET, clear=clear, model=model))

    @pytest.mark.filterwarnings("ignore:on some dates there is no value of:xr_cloudfree.errors.CloudfreeWarning")
    def test_a_band_without_values_on_one_date(self, model):
        da, clear = make_cube(shape=(NY, NX))
        da[3, 1] = np.nan
        out = xr_cloudfree.fill(da, TARGET, clear=clear, model=model, layers=["filled"])
        assert (out["filled"] != 1).all()
        # The bands that were seen keep what was seen.
        seen = clear.isel(time=3) & da[3, 0].notnull()
        np.testing.assert_array_equal(out["reflectance"][0].where(seen), da[3, 0].where(seen))


def test_what_a_model_does_not_know_is_nodata():
    def nans(tiles):
        return [Prediction(np.full(obs.bands.shape[1:], np.nan, np.float32), np.ones(obs.shape, bool)) for obs in tiles]

    obj, options = cube(model=Answers(nans), layers="filled", date="2021-06-04")
    out = fill(obj, options)
    assert out["reflectance"].isnull().all() and (out["filled"] == 0).all()
