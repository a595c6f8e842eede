"""Areas, and their grids, which are pinned."""

import math

import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from odc.geo.geobox import GeoBox
from rasterio.warp import transform_bounds

from tests.support.archives import an_item
from xr_cloudfree import errors
from xr_cloudfree.loading.areas import parse_area, pinned_grid, utm_zone
from xr_cloudfree.loading.scenes import parse_scenes

BBOX = (-8.5, 40.1, -8.4, 40.2)
POLYGON = {"type": "Polygon", "coordinates": [[[-8.5, 40.1], [-8.4, 40.1], [-8.45, 40.2], [-8.5, 40.1]]]}


def scenes(form="earth_search_v1", **properties):
    return parse_scenes([an_item(form, **properties)])


def test_an_area_in_many_forms():
    class Shape:
        __geo_interface__ = POLYGON

    feature = {"type": "Feature", "geometry": POLYGON, "properties": {}}
    for geometry in (POLYGON, feature, {"type": "FeatureCollection", "features": [feature]}, Shape()):
        assert parse_area(geometry=geometry).bbox == BBOX
    assert parse_area(bbox=np.array(BBOX)).bbox == BBOX and parse_area() is None
    grid = GeoBox.from_bbox(BBOX, "EPSG:4326", resolution=0.001)
    cube = xr.DataArray(
        np.zeros(grid.shape),
        dims=("y", "x"),
        coords={"y": grid.coordinates["latitude"].values, "x": grid.coordinates["longitude"].values, "spatial_ref": 0},
    )
    for geobox in (grid, cube.rio.write_crs("EPSG:4326")):
        found = parse_area(geobox=geobox)
        np.testing.assert_allclose(found.bbox, BBOX, atol=1e-9)
        assert found.geobox.shape == grid.shape
    gpd = pytest.importorskip("geopandas")
    metres = gpd.GeoDataFrame.from_features([feature], crs="EPSG:4326").to_crs("EPSG:32629")
    np.testing.assert_allclose(parse_area(geometry=metres).bbox, BBOX, atol=1e-3)


@pytest.mark.parametrize(
    "area, error, words",
    [
        ({"bbox": BBOX, "geometry": POLYGON}, errors.OptionError, "bbox and geometry are given"),
        ({"bbox": "here"}, errors.OptionTypeError, "bbox is 'here'"),
        ({"bbox": (1, 2, 3)}, errors.OptionError, "west, south, east and north"),
        ({"bbox": (0, 0, math.nan, 1)}, errors.OptionError, "nan"),
        ({"bbox": (500000, 4400000, 501000, 4401000)}, errors.OptionError, "beyond 180 degrees"),
        ({"bbox": (-8.5, 40.2, -8.4, 40.1)}, errors.OptionError, r"south, 40\.2, is not below north, 40\.1"),
        ({"bbox": (-8.4, 40.1, -8.5, 40.2)}, errors.OptionError, r"west, -8\.4, is not below east, -8\.5"),
        ({"bbox": (-8.4, 40.2, -8.5, 40.1)}, errors.OptionError, "is not below north.* and west"),
        ({"bbox": (-8.4, 40.1, -8.4, 40.2)}, errors.OptionError, "west.*is not below east"),
        ({"bbox": (35.0, 139.6, 35.1, 139.7)}, errors.OptionError, "longitudes come first"),
        ({"bbox": (179.9, -16, -179.9, -17)}, errors.OptionError, "south, -16, is not below north, -17"),
        ({"bbox": (179.9, -17, -179.9, -16)}, errors.GridError, "antimeridian"),
        ({"geometry": {"type": "Polygon"}}, errors.OptionTypeError, "without points"),
        ({"geometry": "POINT (1 1)"}, errors.OptionTypeError, "geometry is a str"),
        ({"geobox": BBOX}, errors.OptionTypeError, "geobox is a tuple"),
        ({"geobox": xr.DataArray(np.zeros((2, 2)), dims=("y", "x"))}, errors.GridError, "no regular grid"),
    ],
)
def test_areas_that_cannot_be_used(area, error, words):
    with pytest.raises(error, match=words) as caught:
        parse_area(**area)
    assert caught.value.remedy


def test_remedies_for_boxes_work_as_typed():
    for bbox in ((-8.5, 40.2, -8.4, 40.1), (-8.4, 40.1, -8.5, 40.2), (-8.4, 40.2, -8.5, 40.1)):
        with pytest.raises(errors.OptionError) as caught:
            parse_area(bbox=bbox)
        assert parse_area(**eval(f"dict({caught.value.remedy})")).bbox == BBOX
    with pytest.raises(errors.OptionError) as caught:
        parse_area(bbox=(35.0, 139.6, 35.1, 139.7))
    assert parse_area(**eval(f"dict({caught.value.remedy})")).bbox == (139.6, 35.0, 139.7, 35.1)
    with pytest.raises(errors.GridError) as caught:
        parse_area(bbox=(179.9, -17, -179.9, -16))
    parts = [parse_area(**eval(f"dict({way})")).bbox for way in str(caught.value.remedy).split(" and ")]
    assert parts == [(179.9, -17, 180, -16), (-180, -17, -179.9, -16)]


ZONES = [(-8.4, 40.2, 29), (-180, 0, 1), (180, 0, 60), (5.3, 60.4, 32), (2.9, 60.4, 31), (8, 75, 31), (10, 75, 33)]


@pytest.mark.parametrize("longitude, latitude, zone", [*ZONES, (22, 75, 35), (34, 75, 37), (43, 75, 38), (10, 71, 32)])
def test_utm_zones(longitude, latitude, zone):
    assert utm_zone(longitude, latitude) == zone


boxes = st.tuples(st.floats(-170, 170), st.floats(-70, 75), st.floats(0.001, 0.3), st.floats(0.001, 0.3)).map(
    lambda t: (t[0], t[1], t[0] + t[2], t[1] + t[3])
)


@given(
    bbox=boxes,
    resolution=st.sampled_from([10.0, 20.0, 30.0, 60.0]),
    form=st.sampled_from(["earth_search_v1", "landsat_oli"]),
)
def test_a_grid_covers_its_area_in_whole_steps(bbox, resolution, form):
    found = scenes(form)
    grid = pinned_grid(parse_area(bbox=bbox), found, 10.0, resolution=resolution)
    anchor = 0.5 if form == "landsat_oli" and resolution == 30 else 0.0
    left, top = grid.transform.c, grid.transform.f
    assert (left / resolution - anchor) % 1 == 0 and (top / resolution - anchor) % 1 == 0
    bounds = transform_bounds("EPSG:4326", str(grid.crs), *bbox, densify_pts=51)
    box = grid.boundingbox
    assert box.left <= bounds[0] + 1e-4 and box.right >= bounds[2] - 1e-4
    assert box.bottom <= bounds[1] + 1e-4 and box.top >= bounds[3] - 1e-4
    # No more than a pixel on each side.
    assert box.right - box.left < bounds[2] - bounds[0] + 2 * resolution
    # Landsat counts northings from the equator everywhere, Sentinel-2 from the south of the southern hemisphere.
    south = (bbox[1] + bbox[3]) / 2 < 0 and form == "earth_search_v1"
    assert str(grid.crs).startswith("EPSG:327" if south else "EPSG:326")


@given(boxes, st.integers(0, 5), st.integers(0, 5))
def test_overlapping_areas_share_pixels(bbox, rows, columns):
    """Coordinates of the pixels of both grids are equal to the last bit."""
    first = pinned_grid(parse_area(bbox=bbox), scenes(), 10.0, crs="EPSG:3857", resolution=10)
    moved = (bbox[0] + columns * 1e-4, bbox[1] + rows * 1e-4, bbox[2] + columns * 1e-4, bbox[3] + rows * 1e-4)
    second = pinned_grid(parse_area(bbox=moved), scenes(), 10.0, crs="EPSG:3857", resolution=10)
    for name in ("x", "y"):
        a, b = (grid.coordinates[name].values for grid in (first, second))
        inside = b[(b >= a.min()) & (b <= a.max())]
        assert np.isin(inside, a).all()


def test_without_an_area_all_that_items_cover():
    item = an_item("landsat_oli")
    shape = {"proj:shape": [64, 50], "proj:transform": [30, 0, 500_085, 0, -30, 4_400_115, 0, 0, 1]}
    item["assets"] = {key: asset | shape for key, asset in item["assets"].items()}
    grid = pinned_grid(None, parse_scenes([item]), 30.0)
    assert tuple(grid.shape) == (64, 50) and grid.transform[2] == 500_085 and str(grid.crs) == "EPSG:32629"


def test_grids_that_are_refused():
    area, found = parse_area(bbox=BBOX), scenes()
    several = [*found, *scenes(name="b", proj__epsg=32630)]
    for call, error, words in (
        (lambda: pinned_grid(None, several, 10), errors.GridError, "EPSG:32629, EPSG:32630, and no area"),
        (lambda: pinned_grid(None, scenes("hls_l30"), 30), errors.GridError, "no CRS"),
        (lambda: pinned_grid(None, found, 10), errors.GridError, "no footprint"),
        (lambda: pinned_grid(area, found, 10, crs="EPSG:1"), errors.GridError, "crs is 'EPSG:1'"),
        (lambda: pinned_grid(area, found, 10, crs=4326), errors.OptionError, "degrees, without a resolution"),
        (lambda: pinned_grid(area, found, 10, crs=4326, resolution=20), errors.OptionError, r"resolution=0\.00018"),
        (lambda: pinned_grid(area, found, 10, resolution=-10), errors.OptionError, "resolution is -10"),
        (lambda: pinned_grid(area, found, 10, resolution="10"), errors.OptionError, "resolution is '10'"),
        (lambda: pinned_grid(area, found, 10, resolution=1e-3), errors.SizeError, "pixels of 0.001"),
        (lambda: pinned_grid(parse_area(bbox=(0, 85, 1, 86)), found, 10), errors.GridError, "no UTM zone"),
    ):
        with pytest.raises(error, match=words) as caught:
            call()
        assert caught.value.remedy
    grid = pinned_grid(area, found, 10)
    with pytest.raises(errors.OptionError, match="beside geobox="):
        pinned_grid(parse_area(geobox=grid), found, 10, resolution=20)
    polar = pinned_grid(parse_area(bbox=(0, 85, 1, 85.1)), found, 10, crs="EPSG:3413")
    assert str(polar.crs) == "EPSG:3413" and min(polar.shape) > 500
    assert pinned_grid(area, found, 10, crs=4326, resolution=0.001).shape == (100, 100)
