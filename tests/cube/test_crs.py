"""Coordinate reference systems as archives write them."""

import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers .rio)

import xr_cloudfree
from tests.support.cubes import as_dataset, small_cube
from xr_cloudfree import errors
from xr_cloudfree.cube.conventions import parse_cube

TARGET = "2021-06-03"


@pytest.mark.parametrize(
    "tell",
    [
        lambda da: da.assign_coords({"proj:epsg": 32629}),
        lambda da: da.assign_coords({"proj:code": "EPSG:32629"}),
        lambda da: da.assign_coords(epsg=32629),
        lambda da: da.assign_coords({"proj:epsg": ("time", np.full(7, 32629))}),
        lambda da: da.assign_attrs(crs="EPSG:32629"),
        lambda da: da.assign_attrs(crs="epsg:32629", epsg=32629),
        lambda da: da.assign_attrs({"proj:code": "EPSG:32629"}),
        lambda da: da.assign_attrs(epsg="32629"),
    ],
)
@pytest.mark.parametrize("form", ["array", "bands"])
def test_the_crs_as_archives_tell_it(tell, form):
    da, clear = small_cube()
    bare = tell(da.drop_vars("spatial_ref").drop_encoding())
    if form == "array":
        image = xr_cloudfree.fill(bare, TARGET, clear=clear, model="linear")
        assert parse_cube(bare).crs == "EPSG:32629"
    else:
        bands = bare.to_dataset("band")
        bands.attrs = bare.attrs
        image = xr_cloudfree.fill(bands.assign(good=clear), TARGET, clear="good", model="linear")
    assert image.rio.crs.to_epsg() == 32629


def test_a_crs_that_changes_along_time_is_refused():
    da, clear = small_cube()
    zones = da.drop_vars("spatial_ref").assign_coords({"proj:epsg": ("time", [32629] * 3 + [32630] * 4)})
    with pytest.raises(errors.GridError, match="32629, 32630"):
        xr_cloudfree.fill(zones, TARGET, clear=clear, model="linear")


def test_a_crs_variable_is_no_mask_and_is_kept():
    ds = as_dataset(*small_cube(dtype="uint16")).reset_coords("spatial_ref").rename(spatial_ref="crs")
    for name in ("B02", "B04", "B08"):
        ds[name] = ds[name].drop_encoding().assign_attrs(grid_mapping="crs")
    text = repr(ds.cloudfree)
    assert "EPSG:32629" in text and "not used" not in text
    assert xr_cloudfree.fill(ds, TARGET, model="linear").rio.crs.to_epsg() == 32629
