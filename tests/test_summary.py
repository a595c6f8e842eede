"""The repr of the accessor: a summary of the cube."""

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree  # noqa: F401  registers .cloudfree
from tests.support.cubes import as_dataset, make_cube


@pytest.fixture(scope="module")
def sample():
    return xr.open_zarr("data/s2_portugal.zarr", decode_coords="all").load()


def test_the_repr_says_what_was_understood(sample):
    share = float(sample.cloudfree.clear_mask().sel(time="2021-07-23").mean())
    text = repr(sample.cloudfree)
    for part in (
        "B8A (nir08)",
        "sentinel-2",
        "EPSG:4326",
        "128 x 128",
        "cloud_mask",
        f"2021-07-23 {share:4.0%}",
        "scl",
    ):
        assert part in text
    page = sample.cloudfree._repr_html_()
    assert "<table>" in page and f"2021-07-23: {share:.0%} clear" in page


def test_the_repr_of_an_index_does_not_call_it_reflectance(sample):
    red, nir = (sample.reflectance.sel(band=band, drop=True) for band in ("B04", "B8A"))
    cube = xr.Dataset({"ndvi": (nir - red) / (nir + red), "cloud_mask": sample.cloud_mask})
    text = repr(cube.cloudfree)
    assert "an index between -1 and 1" in text and "float values are the index" in text and "reflectance" not in text


def test_the_repr_never_fails_and_never_computes():
    da, clear = make_cube()
    assert "mask    series" in repr(da.cloudfree)
    assert "clear=" in repr(da.isel(time=slice(2)).cloudfree)  # too few dates to make masks from
    assert "not usable" in repr(da.isel(time=0).cloudfree)
    assert "not usable" in repr(as_dataset(da, clear).drop_vars("time").cloudfree)
    lazy = as_dataset(da, clear).chunk(y=10)
    assert "SCL" in repr(lazy.cloudfree) and "lazy" in repr(lazy.cloudfree)


def test_the_repr_of_a_broken_mask_says_so():
    da, clear = make_cube()
    ds = as_dataset(da, clear)
    ds["SCL"] = ds["SCL"] * 0 + np.uint8(99)
    assert "not usable" in repr(ds.cloudfree) and "99" in repr(ds.cloudfree)
