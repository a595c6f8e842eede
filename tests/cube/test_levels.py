"""The processing level as attributes, coordinates and names tell it."""

import numpy as np
import pytest
import xarray as xr

from xr_cloudfree.cube.levels import processing_level

S2 = ["B02", "B03", "B04", "B08"]


def cube(attrs=None, **coords):
    return xr.DataArray(np.zeros((2, 1, 1)), dims=("time", "y", "x"), attrs=attrs or {}, coords=coords)


@pytest.mark.parametrize(
    "attrs, level",
    [
        ({"processing:level": "L1C"}, "toa"),
        ({"s2:product_type": "S2MSI1C"}, "toa"),
        ({"collection": "sentinel-2-l1c"}, "toa"),
        ({"PRODUCT_ID": "S2A_MSIL1C_20210501T112111"}, "toa"),
        ({"processing_level": "L1TP"}, "toa"),
        ({"LANDSAT_PRODUCT_ID": "LC08_L1TP_204032_20210501"}, "toa"),
        ({"title": "Landsat, top-of-atmosphere"}, "toa"),
        ({"processing:level": "L2A"}, "surface"),
        ({"s2:product_type": "S2MSI2A"}, "surface"),
        ({"collection": ["landsat-c2-l2"]}, "surface"),
        ({"processing_level": "L2SP"}, "surface"),
        ({"LANDSAT_PRODUCT_ID": "LC08_L2SP_204032_20210501"}, "surface"),
        ({"collection": "landsat_etm_c2_l2"}, "surface"),
        ({"title": "Sentinel-2 L2A minicube"}, "surface"),
        ({"title": "Level-1C and Level-2A"}, None),
        ({"platform": "sentinel-2a"}, None),
        ({"processing:level": 1}, None),
    ],
)
def test_attributes(attrs, level):
    assert processing_level(cube(attrs), S2, "sentinel-2") == level
    if level is not None:
        key, value = next(iter(attrs.items()))
        assert processing_level(cube(**{key: ("time", [str(value)] * 2)}), S2, "sentinel-2") == level
        assert processing_level(cube().to_dataset(name="red").assign_attrs(attrs), S2, "sentinel-2") == level


@pytest.mark.parametrize(
    "names, sensor, common, level",
    [
        ([*S2, "SCL"], "sentinel-2", (), "surface"),
        (["SR_B4"], "landsat", (), "surface"),
        (["nbart_red"], None, (), "surface"),
        (["toa_red"], None, (), "toa"),
        ([*S2, "B10"], "sentinel-2", ("blue", "green", "red", "nir", "cirrus"), "toa"),
        ([*S2, "B10", "SCL"], "sentinel-2", ("blue", "green", "red", "nir", "cirrus"), "surface"),
        ([*S2, "B10"], "hls", ("blue", "green", "red", "nir", "cirrus"), "surface"),
        (["sur_refl_b01"], "modis", ("red",), "surface"),
        (S2, "sentinel-2", ("blue", "green", "red", "nir"), None),
        (["red"], None, ("red",), None),
    ],
)
def test_names(names, sensor, common, level):
    assert processing_level(cube(), names, sensor, common) == level


def test_attributes_count_more_than_names():
    assert processing_level(cube({"processing:level": "L1C"}), ["SR_B4"], "landsat") == "toa"


def test_nothing_is_computed():
    lazy = xr.DataArray(np.array(["L1C", "L1C"]), dims="time").chunk()
    assert processing_level(cube(**{"processing:level": lazy}), S2, "sentinel-2") is None
