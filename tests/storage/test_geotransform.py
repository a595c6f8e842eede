"""The position on the map, also of images of one pixel."""

import numpy as np
import pytest
import xarray as xr

from xr_cloudfree import errors
from xr_cloudfree.storage.geotransform import assumed_of, axes_of, transform_of


def image(rows, columns, size=(10.0, -20.0), names=("y", "x"), crs="EPSG:32629", declared=None):
    """An image whose upper left corner is at (500000, 4000000)."""
    x = 500000 + size[0] * (np.arange(columns) + 0.5)
    y = 4000000 + size[1] * (np.arange(rows) + 0.5)
    made = xr.DataArray(np.zeros((rows, columns)), dims=names, coords={names[0]: y, names[1]: x}).rio.write_crs(crs)
    if declared:
        made.spatial_ref.attrs["GeoTransform"] = declared
    return made


@pytest.fixture(autouse=True)
def rio():
    pytest.importorskip("rioxarray")


def test_axes():
    assert axes_of(image(2, 2)) == {"y": "y", "x": "x"}
    assert axes_of(image(2, 2, names=("lat", "lon"))) == {"y": "lat", "x": "lon"}
    assert axes_of(image(2, 2).drop_vars("x")) == {"y": "y"}


@pytest.mark.parametrize("size", [(10.0, -20.0), (10.0, 20.0), (30.0, -30.0)])
def test_the_corner_is_half_a_pixel_from_the_first_centre(size):
    found = transform_of(image(3, 4, size))
    assert tuple(found)[:6] == (size[0], 0.0, 500000.0, 0.0, size[1], 4000000.0)
    assert assumed_of(image(3, 4, size)) is None


@pytest.mark.parametrize(("rows", "columns", "axis"), [(1, 4, "height"), (4, 1, "width")])
def test_one_row_or_column_takes_square_pixels(rows, columns, axis):
    single = image(rows, columns, (10.0, -10.0))
    assert tuple(transform_of(single))[:6] == (10.0, 0.0, 500000.0, 0.0, -10.0, 4000000.0)
    assert f"one pixel in {axis}" in assumed_of(single) and "10 wide" in assumed_of(single)


def test_the_declared_size_is_preferred_if_it_is_that_of_this_grid():
    single = image(1, 4, declared="500000 10 0 4000000 0 -20")
    assert tuple(transform_of(single))[:6] == (10.0, 0.0, 500000.0, 0.0, -20.0, 4000000.0)
    assert assumed_of(single) is None
    other = image(1, 4, (10.0, -10.0), declared="500000 60 0 4000000 0 -60")
    assert tuple(transform_of(other))[:6] == (10.0, 0.0, 500000.0, 0.0, -10.0, 4000000.0)
    assert assumed_of(other)


def test_one_pixel_of_unknown_size_and_what_is_told():
    single = image(1, 1)
    with pytest.raises(errors.OutputError, match="one pixel of unknown size") as caught:
        transform_of(single)
    mended = eval(caught.value.remedy, {"cube": single})
    assert tuple(transform_of(mended))[:6] == (10.0, 0.0, 500000.0, 0.0, -10.0, 3999995.0)
