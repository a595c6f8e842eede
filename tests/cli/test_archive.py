"""``cloudfree fill --collection``, end to end against a STAC API and files over HTTP on this machine."""

import pickle

import numpy as np
import pytest
import rasterio
import xarray as xr
from typer.testing import CliRunner

import xr_cloudfree
from xr_cloudfree.cli.app import app

pytest.importorskip("odc.stac")

from tests.support import archives
from tests.support.archive_server import Fault, serving_archive
from tests.support.commands import run
from tests.support.cubes import contents
from xr_cloudfree.loading.again import how_loaded, load_again
from xr_cloudfree.runner.journal import Journal
from xr_cloudfree.runner.runs import prepare


@pytest.fixture(scope="module")
def archive(tmp_path_factory):
    with serving_archive(tmp_path_factory.mktemp("archive")) as server:
        for day in (3, 8, 13, 18):
            when = f"2021-07-{day:02d}T11:21:21"
            server.items.append(archives.make_item(server.folder, "earth_search_c1", when, url=server.url))
        yield server


def call(*arguments):
    return CliRunner().invoke(app, ["fill", *map(str, arguments)])


def archive_options(archive):
    bbox = ",".join(f"{value:.6f}" for value in archives.area())
    return ["--collection", "sentinel-2-c1-l2a", f"--bbox={bbox}", "--catalog", f"{archive.url}/stac"]


def test_from_an_area_and_dates_to_a_geotiff(archive, tmp_path):
    out = tmp_path / "image.tif"
    options = [*archive_options(archive), "--time", "2021-07", "--bands", "red,nir", "--date", "2021-07-08"]
    result = call(*options, "--model", "linear", "--out", out)
    assert result.exit_code == 0, result.output
    assert "2021-07-08" in result.output and "filled by linear" in result.output
    with rasterio.open(out) as file, rasterio.open(tmp_path / "image.filled.tif") as layer:
        assert file.crs == "EPSG:32629" and file.descriptions == ("red", "nir") and file.nodata == 0
        scale, offset = file.scales[0], file.offsets[0]
        columns, rows = np.meshgrid(np.arange(file.width) + 0.5, np.arange(file.height) + 0.5)
        x, y = columns * file.transform.a + file.transform.c, rows * file.transform.e + file.transform.f
        values, known = file.read(1), layer.read(1) > 0
    assert (scale, offset) == (1e-4, -0.1) and known.any()
    truth = archives.reflectance("red", x, y, "2021-07-08T11:21:21")
    assert np.abs(values * scale + offset - truth)[known].max() < 2.1e-3


@pytest.mark.parametrize(
    "arguments, words",
    [
        ([], "neither a cube nor --collection"),
        (["cube.zarr", "--collection", "sentinel-2-l2a"], "--collection is given beside the cube"),
        (["cube.zarr", "--bbox", "1,2,3,4"], "--bbox is given beside the cube"),
        (["--collection", "sentinel-2-l2a"], "--bbox"),
        (["--collection", "sentinel-2-l2a", "--bbox", "1,2,3"], "west, south, east and north"),
        (["--collection", "sentinel-2-l2a", "--bbox", "3,1,2,2"], "--bbox 2.0,1.0,3.0,2.0"),
        (["--collection", "sentinel-2-l2a", "--bbox", "179,1,-179,2"], "antimeridian"),
    ],
)
def test_what_is_missing_or_too_much(arguments, words, tmp_path):
    result = call(*arguments, "--out", tmp_path / "a.tif")
    assert result.exit_code == 2 and words in result.output


def of_batch(archive, out, *more, code=0):
    options = ["--time", "2021-07", "--bands", "red,nir", "--model", "linear", "--shard", "64", "--quiet"]
    return run("batch", *archive_options(archive), *options, "--out", out, *more, code=code)


def test_a_batch_goes_on_with_the_same_arguments_or_by_resume(archive, tmp_path):
    archive.faults = []
    whole, same, again = (tmp_path / f"{name}.zarr" for name in ("whole", "same", "again"))
    of_batch(archive, whole)
    cube = xr.open_zarr(whole, decode_coords="all")
    assert cube.sizes["time"] == 4 and cube.rio.crs == "EPSG:32629" and "as they were written" in run("verify", whole)
    expected = contents(whole)
    for store in (same, again):
        of_batch(archive, store, "--prepare")
        run("region", store, "--index", 1)
        assert "sentinel-2-c1-l2a in (-8." in run("status", store) and "1 of 4 done" in run("status", store)
    of_batch(archive, same)
    assert contents(same) == expected
    # The archive grows: the run goes on with the items that it was begun with.
    late = archives.make_item(archive.folder, "earth_search_c1", "2021-07-23T11:21:21", url=archive.url)
    archive.items.append(late)
    try:
        told = of_batch(archive, again, code=2)
        assert "times of the cube: '2021-07-03 to 2021-07-18'" in told and f"cloudfree resume {again}" in told
        run("resume", again, "--quiet")
        assert contents(again) == expected
    finally:
        archive.items.remove(late)
    gone = archive.items.pop()
    try:
        assert f"no item {gone['id']}" in run("resume", again, code=2)
    finally:
        archive.items.append(gone)


def test_the_journal_holds_no_credentials(archive, tmp_path):
    """Neither a signature of assets nor a password of a catalogue; such a run is resumed by the same call."""
    archive.faults = []
    how = {"bbox": archives.area(), "bands": ["red"]}
    cube = xr_cloudfree.load("sentinel-2-c1-l2a", catalog=f"{archive.url}/stac", **how)
    known = how_loaded(cube)
    assert known["items"] == sorted(item["id"] for item in archive.items)
    xr.testing.assert_identical(load_again(known).compute(), cube.compute())
    signed = xr_cloudfree.load("sentinel-2-c1-l2a", catalog=f"{archive.url}/stac", sign=str, **how)
    secret = xr_cloudfree.load("sentinel-2-c1-l2a", catalog=f"{archive.url}/stac?key=hidden", **how)
    assert how_loaded(signed) is None and how_loaded(secret) is None
    xr_cloudfree.to_zarr(secret, tmp_path / "out.zarr", "2021-07-08", model="linear")
    written = [path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()]
    assert written and not any(b"hidden" in data for data in written)
    prepared = prepare(cube, tmp_path / "sent.zarr", "2021-07-08", model="linear")
    # What workers of a cluster are sent.
    assert pickle.loads(pickle.dumps(prepared.plan)).identity == prepared.plan.identity
    # A cube that was changed after it was loaded is not taken for the one that was loaded.
    xr_cloudfree.to_zarr(cube.isel(y=slice(50)), tmp_path / "part.zarr", "2021-07-08", model="linear")
    assert Journal(tmp_path / "part.zarr").begun()["call"] is None


def test_remedies_are_options_of_the_command_line(archive, tmp_path):
    archive.faults = [Fault("404", "green")]
    options = [*archive_options(archive), "--bands", "green,blue", "--date", "2021-07-08", "--model", "linear"]
    result = call(*options, "--out", tmp_path / "a.tif")
    assert result.exit_code == 2 and "cannot be read" in result.output and "--on-error" in result.output
    assert not list(tmp_path.iterdir())
