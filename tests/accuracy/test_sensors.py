"""Two sensors compared: lines that are put in are found, published ones named, and what cannot be compared refused."""

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from xr_cloudfree import errors, synthetic
from xr_cloudfree.cube.band_pass import MSI_TO_OLI

CUBE = synthetic.cube((10, 3, 96, 90), seed=2, dtype="float32", cloud_share=0.2)
CLEAR = CUBE.cloudfree.clear_mask()
SLOPES, OFFSETS = [0.93, 1.0, 1.05], [0.01, 0.0, -0.005]


def seen(**how):
    return synthetic.coarser(CUBE.reflectance, CLEAR, **{"slope": SLOPES, "offset": OFFSETS, "noise": 0.001} | how)


@pytest.mark.parametrize("chunked", [False, True])
@pytest.mark.parametrize("factor", [2.0, 3.0])
def test_lines_that_were_put_in_are_found(chunked, factor):
    cube, other = CUBE, seen(factor=factor)
    if chunked:
        cube, other = cube.chunk(y=40, x=40), other.chunk(y=10)
    table = xr_cloudfree.compare_sensors(cube, other)
    assert table.index.tolist() == ["blue", "green", "red"]
    reflectance = CUBE.reflectance.where(CLEAR).mean(["time", "y", "x"]).values  # lines are judged where values are
    found = table.slope * (np.array(SLOPES) * reflectance + OFFSETS) + table.offset
    np.testing.assert_allclose(found, reflectance, atol=0.002)
    assert (table.pairs > 3).all() and (table.rmse < 0.005).all()
    assert (table.published_slope == 1).all()


def test_published_coefficients_of_oli():
    names = ["blue", "green", "red"]
    slope, offset = np.array([np.mean(MSI_TO_OLI[name], axis=0) for name in names]).T
    landsat = seen(slope=slope, offset=offset).assign_coords(band=names, platform=("time", ["landsat-9"] * 10))
    table = xr_cloudfree.compare_sensors(CUBE, landsat)
    np.testing.assert_allclose(table.published_slope, 1 / slope)
    np.testing.assert_allclose(table.slope, table.published_slope, atol=0.02)


def test_what_cannot_be_compared():
    later = seen().assign_coords(time=CUBE.time + np.timedelta64(4, "D"))
    with pytest.raises(errors.TimeError, match="4 days apart"):
        xr_cloudfree.compare_sensors(CUBE, later)
    with pytest.raises(errors.TimeError, match="clear in the same place"):
        xr_cloudfree.compare_sensors(CUBE, seen().assign(cloud_mask=xr.ones_like(seen().cloud_mask)))
    with pytest.raises(errors.OptionError, match="size"):
        xr_cloudfree.compare_sensors(CUBE, seen(), size=3)
