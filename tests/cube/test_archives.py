"""Scale, offset and nodata in metadata of archives."""

import json

import numpy as np
import pytest
import xarray as xr

from xr_cloudfree.cube.archives import select_bands
from xr_cloudfree.cube.scaling import (
    Scaling,
    resolve_scaling,
)
from xr_cloudfree.errors import ScalingError


def cube_of(dtype=np.uint16, coords=None, **attrs):
    return xr.DataArray(
        np.zeros((3, 2, 2, 2), dtype),
        dims=("time", "band", "y", "x"),
        coords={"band": ["B02", "B04"], "time": np.array(["2021-01-01", "2021-02-01", "2022-03-01"], "M8[ns]")}
        | (coords or {}),
        attrs=attrs,
    )


def objects(*entries):
    array = np.empty(len(entries), object)
    array[:] = entries
    return array


ITEM = {"nodata": 0, "data_type": "uint16", "scale": 1e-4, "offset": -0.1}


EXPECTED = (1e-4, -0.1, 0)


@pytest.mark.parametrize(
    ("array", "expected"),
    [
        (cube_of(**{"raster:bands": [ITEM]}), EXPECTED),
        (cube_of(**{"raster:bands": ITEM}), EXPECTED),
        (cube_of(**{"raster:bands": (ITEM, ITEM)}), EXPECTED),
        (cube_of(**{"raster:bands": json.dumps([ITEM])}), EXPECTED),
        (cube_of(coords={"raster:bands": ("band", objects([ITEM], [ITEM]))}), EXPECTED),
        (cube_of(coords={"raster:bands": ("band", [json.dumps([ITEM])] * 2)}), EXPECTED),
        (cube_of(coords={"raster:bands": ("time", objects(ITEM, ITEM, dict(ITEM)))}), EXPECTED),
        (cube_of(coords={"raster:bands": ((), objects(ITEM)[0])}).isel(band=0), EXPECTED),
        (cube_of(**{"raster:bands": [{"nodata": 0}]}), (None, 0, 0)),
        (cube_of(**{"raster:bands": [{"nodata": "nan", "scale": 1e-4}]}), (1e-4, 0, None)),
        (cube_of(**{"raster:bands": []}), (None, 0, None)),
        # The item's own metadata come before CF.
        (cube_of(scale_factor=2e-4, _FillValue=0, **{"raster:bands": [ITEM]}), EXPECTED),
        (cube_of(_eopf_attrs={"scale_factor": 1e-4, "add_offset": -0.1, "fill_value": 0, "dtype": "<u2"}), EXPECTED),
        (cube_of(_eopf_attrs=json.dumps({"scale": 1e-4, "offset": -0.1, "fill_value": 0})), EXPECTED),
        (cube_of(scale_factor=1.0, add_offset=0.0, scales=(1e-4, 1e-4), offsets=(-0.1, -0.1), _FillValue=0), EXPECTED),
        (cube_of(scales=1e-4, offsets=-0.1, nodata=0), EXPECTED),
        (cube_of(scales=(1.0, 1.0), offsets=(0.0, 0.0), nodata=0), (None, 0, 0)),
        (cube_of(QUANTIFICATION_VALUE=10000, BOA_ADD_OFFSET=-1000, nodata=0), EXPECTED),
        (cube_of(BOA_QUANTIFICATION_VALUE="10000", BOA_ADD_OFFSET=[-1000, -1000], nodata=0), EXPECTED),
        # The processing baseline, as a text or as odc-stac turns it into a number.
        (cube_of(coords={"s2:processing_baseline": ("time", ["04.00", "05.09", "05.10"])}, nodata=0), EXPECTED),
        (cube_of(coords={"s2:processing_baseline": ("time", [5.1, 5.1, 5.1])}, nodata=0), EXPECTED),
        (cube_of(coords={"s2:processing_baseline": "N0214"}, nodata=0), (1e-4, 0, 0)),
        (cube_of(coords={"s2:processing_baseline": ("time", ["x", "05.09", "05.10"])}), (None, 0, None)),
        (
            cube_of(
                coords={
                    "s2:processing_baseline": ("time", ["03.01", "05.09", "05.10"]),
                    "earthsearch:boa_offset_applied": ("time", [False, True, True]),
                }
            ),
            (1e-4, 0, None),
        ),
        # Of floats it was applied by whoever made them.
        (cube_of(np.float32, **{"raster:bands": [ITEM]}), (1, 0, None)),
        (cube_of(np.float32, _eopf_attrs={"scale_factor": 1e-4, "add_offset": -0.1}), (1, 0, None)),
    ],
)
def test_archives(array, expected):
    found = resolve_scaling([array])
    assert (found.scale, found.offset, found.nodata) == expected
    assert resolve_scaling([array.chunk()]) == found
    # What the caller says comes first.
    given = resolve_scaling([array], scale=3e-4, offset=0.05, nodata=7)
    assert (given.scale, given.offset, given.nodata) == (3e-4, 0.05, 7)


def test_selected_bands_keep_their_entries_of_listed_attributes():
    array = cube_of(scales=(1e-4, 2e-4), offsets=(0.0, -0.1))
    chosen = select_bands(array, [1])
    assert resolve_scaling([chosen]) == Scaling(2e-4, -0.1, None, "scales and offsets")
    assert array.attrs["scales"] == (1e-4, 2e-4)
    with pytest.raises(ScalingError, match=r"bands=\['B02'\]"):
        resolve_scaling([array])
