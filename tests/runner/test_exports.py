"""Other formats of a finished store: the same pixels, in the right place."""

import json
import os
from importlib import util
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import as_dataset, contents, make_cube
from xr_cloudfree import errors, io
from xr_cloudfree.runner import exports
from xr_cloudfree.runner.verify import store_digest

DATES = ["2021-06-03", "2021-06-15"]


@pytest.fixture
def store(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    cube = as_dataset(*make_cube(dtype="uint16")).drop_vars("platform")
    xr_cloudfree.to_zarr(cube, tmp_path / "out.zarr", DATES, model="linear", nodata=0, shard=40, layers="filled")
    return tmp_path / "out.zarr"


def check(store, **given):
    default = {"cog": False, "stac": False, "icechunk": None, "overwrite": False}
    exports.check_sinks(store, **default | given, times=np.array(DATES, "datetime64[ns]"))


def test_cogs_hold_the_pixels_of_the_store(store):
    rasterio = pytest.importorskip("rasterio")
    written = exports.write_cogs(store)
    assert [path.name for path in written] == [f"out_{date}{layer}.tif" for date in DATES for layer in ("", ".filled")]
    image = io.open_store(store, mask_and_scale=False).load()
    bands = [name for name in image.data_vars if name != "filled"]
    turned = image.isel(y=slice(None, None, -1)) if image.y[-1] > image.y[0] else image
    for i, path in enumerate(written[::2]):
        with rasterio.open(path) as file:
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG" and file.crs.to_epsg() == 32629
            np.testing.assert_array_equal(file.read(), np.stack([turned[name][i] for name in bands]))
    with pytest.raises(errors.OutputError, match="already exists"):
        exports.write_cogs(store)
    with pytest.raises(errors.OutputError, match="already exists"):
        check(store, cog=True)
    check(store, cog=True, overwrite=True)
    before = written[0].read_bytes()
    assert exports.write_cogs(store, overwrite=True) == written and written[0].read_bytes() == before


def test_items_name_what_is_there(store):
    pystac = pytest.importorskip("pystac")
    [first, second] = exports.write_items(store)
    item = pystac.Item.from_file(str(first))
    assert set(item.assets) == {"zarr"} and item.id == f"out_{DATES[0]}"
    assert item.datetime.date().isoformat() == DATES[0] and item.properties["cloudfree:model"]
    assert item.properties["proj:code"] == "EPSG:32629"
    west, south, east, north = item.bbox
    assert -180 <= west < east <= 180 and -90 <= south < north <= 90
    exports.write_cogs(store)
    exports.write_items(store, overwrite=True)
    assert set(json.loads(second.read_text())["assets"]) == {"zarr", "image", "filled"}


def test_icechunk_holds_the_same_bytes(store, tmp_path):
    icechunk = pytest.importorskip("icechunk")
    snapshot = exports.write_icechunk(store, tmp_path / "repository")
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage(str(tmp_path / "repository")))
    session = repository.readonly_session("main")
    xr.testing.assert_identical(
        xr.open_zarr(session.store, consolidated=False, decode_coords="all").load(),
        xr.open_zarr(store, decode_coords="all").load(),
    )
    assert session.snapshot_id == snapshot and next(iter(repository.ancestry(branch="main"))).message == (
        f"out.zarr: {store_digest(store)}"
    )
    assert exports.write_icechunk(store, tmp_path / "repository") == snapshot  # the same content is no new version
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "thesis.txt").write_text("mine")
    with pytest.raises(errors.OutputError, match="not an Icechunk repository"):
        exports.write_icechunk(store, tmp_path / "other")
    assert contents(tmp_path / "other") == {"thesis.txt": b"mine"}


@pytest.mark.parametrize(("given", "extra"), [({"stac": True}, "stac"), ({"icechunk": Path("repository")}, "icechunk")])
def test_packages_are_missed_before_the_run(store, monkeypatch, given, extra):
    monkeypatch.setattr(exports, "find_spec", lambda name: None)
    with pytest.raises(errors.MissingDependencyError) as caught:
        check(store, **given)
    assert f"xr-cloudfree[{extra}]" in caught.value.remedy
    assert util.find_spec("xarray")


@pytest.mark.parametrize("sink", ["cog", "stac"])
def test_beside_an_object_store_nothing_is_written(sink):
    with pytest.raises(errors.OutputError, match=f"--{sink} writes beside the store") as caught:
        check("s3://bucket/out.zarr", **{sink: True})
    assert "out.zarr.journal" in caught.value.remedy and f"cloudfree resume out.zarr --{sink}" in caught.value.remedy
