"""Dimensions under the names and attributes of usual readers."""

import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers .rio)

import xr_cloudfree
from tests.support.cubes import small_cube
from xr_cloudfree import errors
from xr_cloudfree.cube.dims import dims_of

TARGET = "2021-06-03"


NAMES = {"time": "time", "band": "band", "y": "y", "x": "x"}


def filled_alike(da, clear, names, **how):
    """Assert that the cube under other names gives the same image, under those names."""
    expected = xr_cloudfree.fill(*small_cube()[:1], TARGET, clear=small_cube()[1], model="linear")
    got = xr_cloudfree.fill(da, TARGET, clear=clear, model="linear", **how)
    assert got.dims == (names["band"], names["y"], names["x"])
    np.testing.assert_array_equal(got.values, expected.values)
    for role in ("y", "x"):
        np.testing.assert_array_equal(got[names[role]].values, expected[role].values)
    return got


@pytest.mark.parametrize(
    "names",
    [
        {"y": "Y", "x": "X"},
        {"y": "northing", "x": "easting"},
        {"y": "lat", "x": "lon"},
        {"y": "Latitude", "x": "Longitude", "time": "date"},
        {"band": "variable", "time": "t"},
        {"band": "channel", "y": "row", "x": "col"},
    ],
    ids=str,
)
@pytest.mark.parametrize("order", [("time", "band", "y", "x"), ("x", "y", "time", "band")])
def test_usual_names_in_any_order(names, order):
    da, clear = small_cube()
    names = NAMES | names
    mine = da.rename({a: b for a, b in names.items() if a != b}).transpose(*(names[dim] for dim in order))
    mask = clear.rename({a: b for a, b in names.items() if a != b and a != "band"})
    filled_alike(mine, mask, names)
    filled_alike(mine.chunk(), mask.chunk(), names)
    filled_alike(mine, clear, names)  # a mask under our own names fits as well


def renamed(attrs_y, attrs_x):
    da, clear = small_cube()
    ours = {"y": "v", "x": "u"}
    da, clear = da.rename(ours), clear.rename(ours)
    for array in (da, clear):
        array["v"].attrs, array["u"].attrs = attrs_y, attrs_x
    return da, clear, NAMES | ours


@pytest.mark.parametrize(
    ("y", "x"),
    [
        ({"axis": "Y"}, {"axis": "X"}),
        ({"standard_name": "projection_y_coordinate"}, {"standard_name": "projection_x_coordinate"}),
        ({"standard_name": "latitude"}, {"standard_name": "longitude"}),
        ({"units": "degrees_north"}, {"units": "degrees_east"}),
        ({"_CoordinateAxisType": "GeoY"}, {"_CoordinateAxisType": "GeoX"}),
    ],
)
def test_cf_attributes(y, x):
    filled_alike(*renamed(y, x))


def test_settings_of_rioxarray():
    da, clear, names = renamed({}, {})
    filled_alike(da.rio.set_spatial_dims(x_dim="u", y_dim="v"), clear, names)


def test_a_time_axis_is_known_by_its_dates_and_bands_by_their_text():
    da, clear = small_cube()
    assert dims_of(da.rename(time="acquired", band="what")) == NAMES | {"time": "acquired", "band": "what"}
    filled_alike(da.rename(time="acquired", band="what"), clear.rename(time="acquired"), NAMES | {"band": "what"})


def test_names_win_over_attributes_and_attributes_over_types():
    da, _ = small_cube()
    da["y"].attrs = {"axis": "X"}
    assert dims_of(da)["y"] == "y"


def test_axes_that_are_not_known_are_named_together():
    import odc.geo.xr  # noqa: F401  # its guess of spatial dimensions must not count, whether it is imported or not

    da, clear = small_cube()
    strange = da.rename(y="v", x="u").to_dataset(name="reflectance").assign(good=clear.rename(y="v", x="u"))
    with pytest.raises(errors.DimensionError) as info:
        strange.cloudfree.fill(TARGET, clear="good", model="linear")
    # y falls and x rises: which is which can be told.
    assert info.value.remedy == "cube.rename({'v': 'y', 'u': 'x'})"
    turned = strange.transpose("u", "v", ...)
    with pytest.raises(errors.DimensionError) as info:
        turned.cloudfree.fill(TARGET, clear="good", model="linear")
    assert info.value.remedy == "cube.rename({'v': 'y', 'u': 'x'})"
    cube = eval(info.value.remedy, {"cube": turned})
    filled_alike(cube.reflectance, cube.good, NAMES)
