"""The clear mask of a window: coarser layers, dilation, and agreement with fill."""

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import as_dataset, make_cube

TARGET = "2021-06-03"


def test_coarser_mask_that_nests_is_repeated():
    da, clear = make_cube(shape=(40, 60))
    coarse = clear.coarsen(y=2, x=2).max().astype(bool)
    fine = xr.DataArray(coarse.values.repeat(2, 1).repeat(2, 2), dims=clear.dims, coords=clear.coords)
    xr.testing.assert_equal(
        xr_cloudfree.fill(da, TARGET, clear=coarse, model="linear"),
        xr_cloudfree.fill(da, TARGET, clear=fine, model="linear"),
    )


@pytest.mark.parametrize("factor", [1, 2])
def test_dilation_is_the_same_whatever_the_blocks(factor):
    da, clear = make_cube(shape=(40, 60))
    rng = np.random.default_rng(1)
    clear = clear.copy(data=rng.random(clear.shape) > 0.02)
    if factor == 2:
        clear = clear.coarsen(y=2, x=2).min().astype(bool)
    whole = xr_cloudfree.fill(da, TARGET, clear=clear, model="linear", dilate=3)
    cut = xr_cloudfree.fill(da.chunk(y=7, x=9), TARGET, clear=clear.chunk(y=5), model="linear", dilate=3, block=11)
    xr.testing.assert_identical(whole, cut.compute())
    assert not whole.equals(xr_cloudfree.fill(da, TARGET, clear=clear, model="linear"))


def test_clear_mask_is_what_fill_uses():
    da, clear = make_cube()
    ds = as_dataset(da, clear)
    mask = xr_cloudfree.clear_mask(ds, repair=False)
    valid = clear & da.notnull().all("band")
    np.testing.assert_array_equal(mask, valid)
    lazy = xr_cloudfree.clear_mask(ds.chunk(y=10, time=2), dilate=2)
    assert lazy.chunks is not None
    xr.testing.assert_identical(lazy.compute(), xr_cloudfree.clear_mask(ds, dilate=2))
