"""Items of archives as a cube: values, masks, dates and grids against files whose content is known."""

import warnings

import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr

import xr_cloudfree
from tests.support import archives
from tests.support.archives import area, make_item
from xr_cloudfree import errors
from xr_cloudfree.cube.masks import states
from xr_cloudfree.cube.schemes import SCHEMES

CLEAR = {"scl": 4, "qa_pixel": 21824, "fmask": 64}


def truth(cube, name, clouds=True):
    """The reflectance of a band as the archive's makers know it."""
    x, y = np.meshgrid(cube.x, cube.y)
    crs = str(cube.rio.crs)
    return np.stack(
        [
            archives.reflectance(name, x, y, t, crs) + 0.35 * (clouds and archives.cloud(x, y, t))
            for t in cube.time.to_numpy()
        ]
    )


def check_values(cube, bands, step):
    """Each pixel of each band within one stored step, each mask as the clouds are."""
    decoded = xr.decode_cf(cube.compute())
    for band in bands:
        error = np.abs(decoded[band].to_numpy() - truth(cube, cube[band].attrs["common_name"]))
        assert error.max() <= step, (band, float(error.max()))
    (mask,) = set(cube.data_vars) & set(CLEAR)
    x, y = np.meshgrid(cube.x, cube.y)
    cloudy = np.stack([archives.cloud(x, y, t) for t in cube.time.to_numpy()])
    np.testing.assert_array_equal(cube[mask] != CLEAR[mask], cloudy)


def test_sentinel_2_of_four_catalogues_is_one_cube(sentinel):
    cube = xr_cloudfree.load(sentinel, bbox=area())
    assert list(cube.data_vars) == ["blue", "green", "red", "nir", "rededge071", "nir08", "swir16", "scl"]
    assert cube.baseline.values.tolist() == ["05.10", "05.00", "02.14", "05.11", "05.10", "05.00"]
    assert cube.platform.values.tolist()[:3] == ["sentinel-2a", "sentinel-2b", "sentinel-2a"]
    assert cube.cloud_cover.values.tolist()[:3] == [12.5, 3.1, 20.0]
    assert cube.item_id.values.tolist() == [item["id"] for item in sentinel]
    assert cube.red.chunks[0] == (1,) * 6
    ten_metres = ["blue", "green", "red", "nir"]
    check_values(cube, ten_metres, 0.51e-4)
    coarse = xr_cloudfree.load(sentinel, bbox=area(), bands=["rededge071", "nir08", "swir16"])
    assert coarse.rio.resolution() == (20.0, -20.0)
    check_values(coarse, ["rededge071", "nir08", "swir16"], 0.51e-4)
    # On the grid of 10 m a pixel of 20 m is repeated.
    repeated = coarse.swir16.sel(x=cube.x, y=cube.y, method="nearest", tolerance=5.1)
    np.testing.assert_array_equal(cube.swir16, repeated)


def test_landsat_of_three_sensors_is_one_cube(landsat):
    cube = xr_cloudfree.load(landsat, bbox=area())
    assert list(cube.data_vars) == ["blue", "green", "red", "nir08", "swir16", "swir22", "qa_pixel"]
    assert set(cube.platform.values) == {"landsat-5", "landsat-7", "landsat-8"}
    # Pixel centres are multiples of 30 m, as in the files.
    assert not (cube.x % 30).any() and not (cube.y % 30).any()
    check_values(cube, ["blue", "red", "nir08", "swir22"], 1.4e-5)
    assert next(iter(xr_cloudfree.load(landsat[-1:], bbox=area()).data_vars)) == "blue"
    assert "coastal" in xr_cloudfree.load(landsat[-1:], bbox=area(), bands=["coastal", "red"])


def test_hls_of_two_sensors_is_one_cube(hls):
    """Without any metadata on grids, and numbers of bands that mean different bands."""
    cube = xr_cloudfree.load(hls, bbox=area())
    assert list(cube.data_vars) == ["blue", "green", "red", "nir08", "swir16", "swir22", "fmask"]
    check_values(cube, ["blue", "green", "red", "nir08", "swir16", "swir22"], 0.51e-4)
    with pytest.raises(errors.BandError, match="'B05' is"):
        xr_cloudfree.load(hls, bbox=area(), bands=["B05"])
    edges = xr_cloudfree.load(hls[1::2], bbox=area(), bands=["B05", "B8A"])
    assert edges.B05.attrs["common_name"] == "rededge071" and edges.B8A.attrs["common_name"] == "nir08"
    check_values(edges, ["B05", "B8A"], 0.51e-4)


@pytest.mark.parametrize("archive, band", [("sentinel", "red"), ("landsat", "nir08"), ("hls", "nir08")])
def test_fill_takes_the_cube_as_it_is(archive, band, request):
    cube = xr_cloudfree.load(request.getfixturevalue(archive), bbox=area())
    day = str(cube.time.values[2])[:10]
    filled = cube.cloudfree.fill(date=day, model="linear", layers="filled").compute()
    observed = cube[band].isel(time=2).compute()
    seen = (filled.filled == 1).to_numpy()
    assert 0.3 < seen.mean() < 0.9 and (filled.filled > 0).all()
    np.testing.assert_array_equal(filled[band].to_numpy()[seen], observed.to_numpy()[seen])
    x, y = np.meshgrid(cube.x, cube.y)
    error = xr.decode_cf(filled)[band] - archives.reflectance(band, x, y, cube.time.values[2])
    assert np.abs(error).max() < 2.1e-3  # two ten-thousandths a day, and at most ten days to a clear date
    assert str(filled.item_id.values) == cube.item_id.values[2]
    scheme = SCHEMES[{"sentinel": "scl", "landsat": "qa_pixel", "hls": "fmask"}[archive]]
    assert states(np.array([CLEAR[scheme.name]]), scheme).size


def test_nothing_is_read_before_values_are_needed(tmp_path):
    items = [make_item(tmp_path, "earth_search_c1", f"2021-07-{day:02d}T11:21:21", assets=()) for day in (8, 13)]
    cube = xr_cloudfree.load(items, bbox=area())
    assert dict(cube.sizes) == {"time": 2, "y": 92, "x": 122}
    with pytest.raises(errors.InputError, match=f"red of 2021-07-08, item {items[0]['id']}, cannot be read") as caught:
        cube.red.isel(time=0).compute()
    assert "on_error='missing'" in caught.value.remedy


def test_chunks_do_not_change_values(sentinel):
    whole = xr_cloudfree.load(sentinel[:2], bbox=area()).compute()
    for chunks in (37, {"x": 50}, {"y": 13, "x": 122}):
        xr.testing.assert_identical(xr_cloudfree.load(sentinel[:2], bbox=area(), chunks=chunks).compute(), whole)


def coordinates(cube):
    return cube.x.to_numpy().tobytes(), cube.y.to_numpy().tobytes(), str(cube.rio.crs)


def test_the_grid_depends_on_the_area_alone(sentinel, tmp_path):
    """Another date, another order, an item of the next zone first: the same coordinates to the last bit."""
    other = make_item(tmp_path, "earth_search_c1", "2021-06-28T11:11:21", crs="EPSG:32630", left=40_000, top=4_460_000)
    grids = {
        coordinates(xr_cloudfree.load(items, bbox=area(), bands=["red"]))
        for items in (sentinel[:1], sentinel[:1], sentinel[:2], sentinel[::-1], [other, *sentinel])
    }
    assert len(grids) == 1
    parts = [xr_cloudfree.load(sentinel, bbox=box, bands=["red"]) for box in (area(), area(500, 500, 300, 300))]
    assert np.isin(parts[1].x, parts[0].x).all() and np.isin(parts[1].y, parts[0].y).all()


def test_several_zones_land_on_one_grid(tmp_path):
    """An area at the edge of two UTM zones, whose files overlap there: the same ground in both."""
    from rasterio.warp import transform

    edge = -6.0
    (x29,), (y29,) = transform("EPSG:4326", "EPSG:32629", [edge], [40.0])
    (x30,), (y30,) = transform("EPSG:4326", "EPSG:32630", [edge], [40.0])
    corner = {
        crs: {"left": round(x / 60) * 60 - 960, "top": round(y / 60) * 60 + 960}
        for crs, x, y in (("EPSG:32629", x29, y29), ("EPSG:32630", x30, y30))
    }
    items = [
        make_item(
            tmp_path,
            "earth_search_c1",
            f"2021-07-{day:02d}T11:21:21",
            name=f"{crs[-2:]}_{day}",
            crs=crs,
            clouds=False,
            **corner[crs],
        )
        for day, crs in ((8, "EPSG:32629"), (13, "EPSG:32630"))
    ]
    box = (edge - 0.004, 39.998, edge + 0.005, 40.002)
    cube = xr_cloudfree.load(items, bbox=box, bands=["red"])
    assert str(cube.rio.crs) == "EPSG:32630" and cube.sizes["time"] == 2
    values = xr.decode_cf(cube.compute()).red
    x, y = np.meshgrid(cube.x, cube.y)
    for i in range(2):
        expected = archives.reflectance("red", x, y, cube.time.values[i], "EPSG:32630")
        # Half a pixel at most; the ground changes by less than 2e-4 per metre.
        assert np.abs(values[i] - expected).max() < (1e-3 * np.sqrt(2) if i == 0 else 0.51e-4)
    in_parts = xr_cloudfree.load(items, bbox=box, bands=["red"], chunks=7, resampling="bilinear").compute()
    whole = xr_cloudfree.load(items, bbox=box, bands=["red"], resampling="bilinear").compute()
    xr.testing.assert_identical(in_parts, whole)
    assert np.abs(xr.decode_cf(whole).red[0] - truth(whole, "red", clouds=False)[0]).max() < 1e-3
    np.testing.assert_array_equal(whole.red[1], cube.red[1])  # on its own grid nothing is resampled
    with pytest.warns(errors.CloudfreeWarning, match="crs='EPSG:32629' keeps their pixels"):
        xr_cloudfree.load(items[:1], bbox=box, bands=["red"])


def test_scenes_of_a_day_are_one_date(tmp_path):
    """Two tiles of a pass, the second of which fills what the first lacks; the order of items does not matter."""
    left = make_item(tmp_path, "earth_search_v1", "2021-07-08T11:21:21", name="left")
    right = make_item(
        tmp_path,
        "earth_search_v1",
        "2021-07-08T11:21:35",
        name="right",
        left=archives.LEFT + 1800,
        s2__processing_baseline="05.11",
        eo__cloud_cover=30.0,
    )
    cubes = [
        xr_cloudfree.load(items, bbox=area(1500, 400, 1200, 600)).compute() for items in ([left, right], [right, left])
    ]
    xr.testing.assert_identical(*cubes)
    cube = cubes[0]
    assert cube.sizes["time"] == 1 and str(cube.time.values[0]).startswith("2021-07-08T11:21:21")
    assert cube.item_id.values[0] == "right,left" and cube.baseline.values[0] == "05.11,05.10"
    assert cube.cloud_cover.values[0] == 21.25 and (cube.red > 0).all()
    check_values(cube, ["red", "nir"], 0.51e-4)


def test_the_newest_baseline_of_a_scene_counts(tmp_path):
    """An archive that has reprocessed a scene may hold both; the old one fills gaps of the new one."""
    new = make_item(tmp_path, "earth_search_c1", "2021-07-08T11:21:21", name="new", gap=np.s_[8:16, :], clouds=False)
    old = make_item(
        tmp_path, "planetary_computer_s2", "2021-07-08T11:21:21", name="old", s2__processing_baseline="02.14"
    )
    cube = xr_cloudfree.load([old, new, new], bbox=area(), bands=["red", "B08"]).compute()
    assert cube.item_id.values.tolist() == ["new,old"]
    rows = ((archives.TOP - cube.y) // 60).isin(np.arange(8, 16)).to_numpy()
    assert rows.any() and not rows.all()
    x, y = np.meshgrid(cube.x, cube.y)
    cloudy = archives.cloud(x, y, cube.time.values[0]) & rows[:, None]
    assert cloudy.any()
    np.testing.assert_array_equal(cube.scl[0] == 9, cloudy)
    expected = archives.reflectance("red", x, y, cube.time.values[0]) + 0.35 * cloudy
    assert np.abs(xr.decode_cf(cube).red[0] - expected).max() < 0.51e-4


def test_what_cannot_be_read_is_an_error_or_missing(tmp_path):
    good, bad = (make_item(tmp_path, "earth_search_c1", f"2021-07-{day:02d}T11:21:21") for day in (8, 13))
    (tmp_path / bad["id"] / "green.tif").write_bytes(b"<html>Please log in</html>")
    cube = xr_cloudfree.load([good, bad], bbox=area())
    with pytest.raises(errors.InputError, match=f"green of 2021-07-13, item {bad['id']}"):
        cube.compute()
    lenient = xr_cloudfree.load([good, bad], bbox=area(), on_error="missing")
    with pytest.warns(errors.CloudfreeWarning, match=f"green of 2021-07-13, item {bad['id']}.*its pixels are missing"):
        values = lenient.compute()
    assert (values.green[1] == 0).all() and (values.green[0] > 0).all() and (values.red > 0).all()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.CloudfreeWarning)
        filled = lenient.cloudfree.fill("2021-07-13", model="linear", layers="filled").compute()
    assert set(np.unique(filled.filled)) <= {0, 2, 3}  # green is missing everywhere
