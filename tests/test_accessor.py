"""The accessor forwards its arguments, and its repr describes the cube."""

import inspect

import pytest
import xarray as xr

import xr_cloudfree


@pytest.fixture(scope="module")
def sample():
    return xr.open_zarr("data/s2_portugal.zarr", decode_coords="all").load()


def test_it_forwards(sample):
    xr.testing.assert_identical(
        sample.cloudfree.fill("2021-07-23", model="linear"), xr_cloudfree.fill(sample, "2021-07-23", model="linear")
    )
    xr.testing.assert_identical(sample.cloudfree.clear_mask(dilate=1), xr_cloudfree.clear_mask(sample, dilate=1))
    assert sample.cloudfree.fill.__doc__ == xr_cloudfree.fill.__doc__


def test_methods_have_the_signature_of_the_functions(sample):
    parameters = inspect.signature(sample.cloudfree.fill).parameters
    assert list(parameters) == list(inspect.signature(xr_cloudfree.fill).parameters)[1:]
