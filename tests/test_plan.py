"""Planning a fill: dates, model and grid, before anything is computed."""

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import DATES, make_cube
from xr_cloudfree import errors

TARGET = "2021-06-03"


@pytest.fixture(scope="module")
def cube():
    return make_cube()


def test_window_leaves_dates_out(cube):
    da, clear = cube
    out = xr_cloudfree.fill(da, TARGET, clear=clear, model="nearest", window=(15, 0), layers="all")
    assert set(np.unique(out["source_time"].values[out["source_time"].notnull().values])) <= set(DATES[[2, 3]])
    assert (out["n_clear"] <= 2).all()


def test_a_cube_of_a_billion_pixels_a_side_is_refused_before_anything_is_made():
    import dask.array as da

    huge = xr.DataArray(
        da.zeros((2, 1, 10**9, 10**9), chunks=(1, 1, 10**8, 10**8), dtype="uint16"),
        dims=("time", "band", "y", "x"),
        coords={"time": DATES[:2], "band": ["red"]},
        attrs={"scale_factor": 1e-4},
    )
    clear = xr.DataArray(
        da.ones((2, 10**9, 10**9), chunks=(1, 10**8, 10**8), dtype=bool),
        dims=("time", "y", "x"),
        coords={"time": DATES[:2]},
    )
    with pytest.raises(errors.SizeError, match="blocks"):
        xr_cloudfree.fill(huge, clear=clear)


def test_auto_is_the_learned_model_wherever_it_takes_the_bands(cube):
    da, clear = cube
    for date in (TARGET, "2021-06-15"):
        image = xr_cloudfree.fill(da, date, clear=clear)
        assert image.attrs["cloudfree_model"] == "unet"
        shipped = xr_cloudfree.from_pretrained("unet").spec
        assert image.attrs["cloudfree_weights"] == shipped.weights_sha256
        xr.testing.assert_identical(image, xr_cloudfree.fill(da, date, clear=clear, model="unet"))


def test_auto_is_classical_with_bands_that_no_learned_model_takes(cube):
    da, clear = cube
    da = da.isel(band=[0, 1])
    for date in (TARGET, "2021-06-15"):
        image = xr_cloudfree.fill(da, date, clear=clear)
        assert image.attrs["cloudfree_model"] == "regress"
        assert "cloudfree_weights" not in image.attrs
        xr.testing.assert_identical(image, xr_cloudfree.fill(da, date, clear=clear, model="regress"))
    assert "uncertainty" in xr_cloudfree.fill(da, "2021-06-15", clear=clear, layers="all")
