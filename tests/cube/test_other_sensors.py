"""A cube of another sensor beside a cube: where its pixels lie, its bands, its dates, published coefficients."""

import numpy as np
import pytest
import xarray as xr

from xr_cloudfree.cube.band_pass import published_lines
from xr_cloudfree.cube.other_sensors import Axis, errors_about, match_bands, relate, useful_dates
from xr_cloudfree.errors import BandError, GridError, MaskError


def grid(y0, x0, step, shape=(6, 8), crs="EPSG:32629"):
    """Pixels in metres whose first centre is (y0, x0), rows from north to south."""
    coords = {"y": y0 - step * np.arange(shape[0]), "x": x0 + step * np.arange(shape[1])}
    return xr.DataArray(np.zeros((1, *shape)), coords, ("time", "y", "x"), attrs={"crs": crs})


CUBE = grid(4_400_095.0, 500_005.0, 10.0, (30, 30))


def test_pixels_of_landsat_lie_half_a_pixel_beside_those_of_sentinel_2():
    """Centres of Landsat are multiples of 30 m, edges of Sentinel-2 multiples of 10 m: the grids do not nest."""
    rows, columns = relate(grid(4_400_070.0, 500_040.0, 30.0), "others", CUBE)
    assert rows == Axis(3.0, 3.0, 6)  # 30 m below the first edge, at 4 400 100
    assert columns == Axis(4.0, 3.0, 8)
    assert rows.within(0, 30) == range(0, 6)
    assert rows.within(4, 10) == range(1, 3)  # centres 6 and 9
    np.testing.assert_array_equal(columns.centres(range(1, 3)), [7.0, 10.0])


def test_rows_that_run_the_other_way():
    turned = grid(4_400_070.0, 500_040.0, 30.0).isel(y=slice(None, None, -1))
    rows, _ = relate(turned, "others", CUBE)
    assert rows == Axis(3.0, 3.0, 6, flipped=True)


@pytest.mark.parametrize(
    ("other", "found"),
    [
        (grid(4_400_070.0, 500_040.0, 30.0, crs="EPSG:32630"), "EPSG:32630"),
        (grid(4_400_095.0, 500_005.0, 5.0), "0.5 of the cube's"),
        (grid(4_500_070.0, 500_040.0, 30.0), "beside the cube along y"),
        (grid(4_400_070.0, 600_040.0, 30.0), "beside the cube along x"),
        (grid(4_400_070.0, 500_040.0, 30.0).isel(y=[0]), "a single pixel along y"),
        (grid(4_400_070.0, 500_040.0, 30.0).drop_vars("x"), "no coordinates along x"),
        (grid(4_400_070.0, 500_040.0, 30.0).isel(x=[0, 1, 3]), "not evenly spaced along x"),
    ],
)
def test_grids_that_cannot_be_related(other, found):
    with pytest.raises(GridError, match=found):
        relate(other, "others", CUBE)


@pytest.mark.parametrize(
    ("theirs", "ours", "sensor", "expected"),
    [
        (["blue", "red"], ["red", "blue"], None, {0: 1, 1: 0}),
        (["nir"], ["nir", "nir08"], "landsat", {0: 1}),  # OLI's near infrared is as narrow as B8A
        (["nir"], ["nir", "nir08"], "sentinel-2", {0: 0}),
        (["nir"], ["nir08"], None, {0: 0}),
        (["nir08"], ["nir"], "hls", {0: 0}),
        (["nir", "nir08"], ["nir08"], "sentinel-2", {1: 0}),
        (["red", None], ["red"], None, {0: 0}),
    ],
)
def test_bands_by_their_common_names(theirs, ours, sensor, expected):
    assert match_bands(theirs, ours, "others", sensor) == expected


def test_no_band_in_common():
    with pytest.raises(BandError, match="no band of the cube"):
        match_bands(["lwir11", None], ["red", "nir"], "others")


def test_dates_near_the_target_and_pairs_with_the_cube():
    day = np.datetime64("2021-06-01", "ns")
    days = lambda *offsets: day + np.array(offsets) * np.timedelta64(24, "h")  # noqa: E731
    theirs, ours = days(-40, -20, -2, 3, 20), days(-40, -19, 5, 10)
    assert useful_dates(theirs, day, ours).tolist() == [0, 1, 2]
    # Of many pairs those nearest to the target, the same whether or not others were read for other targets.
    theirs = ours = days(*range(3, 40))
    assert useful_dates(theirs, day, ours).tolist() == list(range(12))
    assert useful_dates(theirs[:20], day, ours).tolist() == list(range(12))


def test_published_coefficients_in_both_directions():
    """HLS: OLI = 0.9778 MSI - 0.004 in the blue band of both satellites."""
    ((slope, offset),) = published_lines("sentinel-2", "landsat", ["blue"])
    assert (slope, offset) == (0.9778, -0.004)
    ((back, shift),) = published_lines("landsat", "sentinel-2", ["blue"])
    assert back * (slope * 0.1 + offset) + shift == pytest.approx(0.1)
    assert published_lines(None, "sentinel-2", ["blue"]) == ((1.0, 0.0),)
    assert published_lines("sentinel-2", "sentinel-2", ["blue"]) == ((1.0, 0.0),)
    assert published_lines("hls", "sentinel-2", ["rededge071"]) == ((1.0, 0.0),)


def test_errors_name_the_other_cube():
    with pytest.raises(GridError, match=r"others\[1\]: no rows"), errors_about("others[1]"):
        raise GridError("no rows", "rows", "cube.sortby('y')")
    with pytest.raises(MaskError, match="cloud_mask"), errors_about("others"):
        raise MaskError("the cube has no quality layer", "one", "fill(..., clear=good)")
