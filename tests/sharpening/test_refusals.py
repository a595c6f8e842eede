"""What `sharpen` refuses, and that what it tells to type works."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  registers .rio
import xarray as xr

import xr_cloudfree
from xr_cloudfree.errors import BandError, CloudfreeError, GridError, OptionError, ScalingError, TimeError


def cube(names, step, n, start="2023-05-01", dates=2, origin=(500_000.0, 4_400_000.0)):
    values = np.random.default_rng(len(names)).uniform(0.1, 0.4, (dates, len(names), n, n)).astype(np.float32)
    centres = step * (np.arange(n) + 0.5)
    coords = {
        "time": pd.date_range(start, periods=dates),
        "band": names,
        "y": origin[1] - centres,
        "x": origin[0] + centres,
    }
    return xr.DataArray(values, dims=("time", "band", "y", "x"), coords=coords).rio.write_crs("EPSG:32629")


@pytest.fixture
def fine():
    return cube(["B02", "B03"], 10.0, 96)


@pytest.fixture
def coarse():
    return cube(["B05", "B11"], 20.0, 48)


def numbers_with_offset(array):
    return (array * 1e4 + 1000).astype(np.uint16).assign_attrs(scale_factor=1e-4, add_offset=-0.1)


def refusal(kind, coarse, fine, **options):
    with pytest.raises(kind) as caught:
        xr_cloudfree.sharpen(coarse, to=fine, **options)
    return str(caught.value), str(caught.value.remedy)


def typed(remedy, coarse, fine):
    """Sharpen with the arguments that a remedy names."""
    return xr_cloudfree.sharpen(**eval(f"dict({remedy})", {"coarse": coarse, "fine": fine}))


@pytest.mark.parametrize("rows, columns", [(slice(3, 47), slice(0, 48)), (slice(0, 48), slice(5, 40))])
def test_another_area(fine, coarse, rows, columns):
    part = coarse[..., rows, columns]
    text, remedy = refusal(GridError, part, fine)
    assert "the same area" in text
    image = typed(remedy, part, fine)
    assert image.shape[-2:] == (2 * part.shape[-2], 2 * part.shape[-1])
    text, remedy = refusal(GridError, coarse, fine[..., 3:91, 5:])
    image = typed(remedy, coarse, fine[..., 3:91, 5:])
    assert image.shape[-2:] == (86, 90)  # from row 4 to 90, and from column 6 on


def test_edges_that_do_not_agree(fine, coarse):
    shifted = coarse.assign_coords(y=coarse.y + 5)
    text, remedy = refusal(GridError, shifted, fine)
    assert "edges" in text
    repaired = eval(remedy.split(", which")[0], {"coarse": shifted, "fine": fine})
    assert xr_cloudfree.sharpen(repaired, to=fine).shape == (2, 4, 96, 96)


def test_a_factor_that_is_no_whole_number(fine):
    other = cube(["B05"], 25.0, 38)
    text, remedy = refusal(GridError, other, fine)
    assert "2.5" in text
    repaired = eval(remedy.split(", which")[0], {"coarse": other, "fine": fine})
    assert xr_cloudfree.sharpen(repaired, to=fine).shape == (2, 3, 96, 96)


def test_nothing_to_sharpen_and_too_much(fine):
    assert "nothing to sharpen" in refusal(GridError, cube(["B05"], 10.0, 96), fine)[0]
    assert "at most 12" in refusal(GridError, cube(["B05"], 160.0, 6), fine)[0]


def test_another_crs(fine, coarse):
    assert "EPSG:32630" in refusal(GridError, coarse.rio.write_crs("EPSG:32630"), fine)[0]


def test_no_coordinates(fine, coarse):
    assert "assign_coords" in refusal(GridError, coarse.drop_vars(["y", "x"]), fine)[1]


def test_other_dates(fine, coarse):
    more = cube(["B02", "B03"], 10.0, 96, dates=4)
    text, remedy = refusal(TimeError, coarse, more)
    assert "2 of them are the same" in text
    assert typed(remedy, coarse, more).sizes["time"] == 2
    later = coarse.assign_coords(time=coarse.time + np.timedelta64(10, "m"))
    text, remedy = refusal(TimeError, later, fine)
    assert "floor('D')" in remedy
    repaired = eval(remedy.split(", and")[0], {"coarse": later, "fine": fine})
    assert xr_cloudfree.sharpen(repaired, to=fine).sizes["time"] == 2


def test_one_date_and_several(fine, coarse):
    text, remedy = refusal(TimeError, coarse[0], fine)
    assert "to has a time dimension" in text
    assert "to.isel(time=0)" in remedy


def test_the_same_band_twice(fine, coarse):
    both = coarse.assign_coords(band=["B03", "B11"])
    text, remedy = refusal(BandError, both, fine)
    assert "B03 in both" in text
    options = eval(f"dict({remedy})")
    assert list(xr_cloudfree.sharpen(both, to=fine, **options).band.values) == ["B02", "B03", "B11"]


def test_two_dtypes_in_one_array(fine, coarse):
    numbers = (coarse * 1e4).astype(np.uint16).assign_attrs(scale_factor=1e-4)
    text, remedy = refusal(BandError, numbers, fine)
    assert "float32 with scale 1.0" in text
    image = typed(remedy, numbers, fine)
    assert image.dtype == np.float32
    np.testing.assert_allclose(image, xr_cloudfree.sharpen(coarse, to=fine), atol=2e-3)
    text, remedy = refusal(BandError, numbers, numbers_with_offset(fine))
    assert "offset -0.1" in text
    np.testing.assert_allclose(typed(remedy, numbers, numbers_with_offset(fine)), image, atol=2e-3)
    assert xr_cloudfree.sharpen(coarse.astype(np.float64), to=fine).dtype == np.float32


def test_numbers_of_unknown_scale(fine, coarse):
    numbers = [(array * 1e4).astype(np.uint16) for array in (coarse, fine)]
    assert "scale=" in refusal(ScalingError, *numbers)[1]
    assert xr_cloudfree.sharpen(*numbers, scale=1e-4, offset=0).dtype == np.uint16


@pytest.mark.parametrize("clear", ["SCL", np.ones((2, 96, 96), bool)], ids=["name", "array"])
def test_a_mask_that_is_no_clear_mask(fine, coarse, clear):
    assert "clear_mask" in refusal(OptionError, coarse, fine, clear=clear)[1]


def test_a_layer_that_is_not_offered(fine, coarse):
    assert refusal(OptionError, coarse, fine, layers="filled")[1] == "layers='sharpened'"


def test_no_xarray_object(fine, coarse):
    assert "coarse bands first" in refusal(CloudfreeError, coarse.values, fine)[1]
    assert "to is a ndarray" in refusal(CloudfreeError, coarse, fine.values)[0]
