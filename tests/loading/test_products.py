"""Collections of several products: a cube of each with its own pixels, in one CRS, and filled together."""

import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr

import xr_cloudfree
from tests.support import archives
from tests.support.archive_server import serving_archive
from tests.support.archives import area, make_item

DAYS = [f"2021-06-{day:02d}" for day in (5, 10, 15, 20, 25)]
TARGET = "2021-06-15"
COLLECTIONS = ["sentinel-2-c1-l2a", "landsat-c2-l2"]


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    """Sentinel-2 every five days, and Landsat on each of these days, cloudless."""
    with serving_archive(tmp_path_factory.mktemp("archive")) as served:
        for form, collection in zip(("earth_search_c1", "landsat_oli"), COLLECTIONS, strict=True):
            for day in DAYS:
                clouds = form == "earth_search_c1"
                item = make_item(served.folder, form, f"{day}T11:21:21", url=served.url, clouds=clouds)
                served.items.append(item | {"collection": collection})
        yield served


@pytest.fixture
def tree(archive):
    catalog = f"{archive.url}/stac"
    return xr_cloudfree.load(COLLECTIONS, bbox=area(), catalog=catalog, bands=["blue", "red", "nir08"])


def test_each_product_has_its_own_pixels_in_one_crs(tree):
    assert list(tree.children) == COLLECTIONS
    fine, coarse = (tree[name].to_dataset() for name in COLLECTIONS)
    assert fine.rio.crs == coarse.rio.crs
    assert (fine.rio.resolution()[0], coarse.rio.resolution()[0]) == (10.0, 30.0)
    assert list(coarse.data_vars) == ["blue", "red", "nir08", "qa_pixel"]


def test_a_clouded_pixel_is_told_by_landsat(tree):
    cube = tree[COLLECTIONS[0]].to_dataset()
    hidden = tree.copy()
    hidden[COLLECTIONS[0]] = cube.assign(scl=cube.scl.where(cube.time.dt.strftime("%F") != TARGET, 9))
    found = hidden.cloudfree.fill(TARGET, model="linear", layers="source_sensor").compute()
    assert found.attrs["cloudfree_others"] == f"landsat {TARGET}"
    assert (found.source_sensor == 1).mean() > 0.9
    x, y = np.meshgrid(cube.x, cube.y)
    truth = archives.reflectance("red", x, y, np.datetime64(f"{TARGET}T11:21:21", "ns"), str(cube.rio.crs))
    red = xr.decode_cf(found).red
    assert float(np.sqrt(np.square(red - truth).mean())) < 0.01


def test_one_product_is_a_cube(archive):
    cube = xr_cloudfree.load(COLLECTIONS[:1], bbox=area(), catalog=f"{archive.url}/stac", bands=["red"])
    assert isinstance(cube, xr.Dataset)
