"""``cloudfree fill --collection``, end to end against a STAC API and files over HTTP on this machine."""

import numpy as np
import pytest
import rasterio
from typer.testing import CliRunner

from xr_cloudfree.cli.app import app

pytest.importorskip("odc.stac")

from tests.support import archives
from tests.support.archive_server import Fault, serving_archive


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


def test_remedies_are_options_of_the_command_line(archive, tmp_path):
    archive.faults = [Fault("404", "green")]
    options = [*archive_options(archive), "--bands", "green,blue", "--date", "2021-07-08", "--model", "linear"]
    result = call(*options, "--out", tmp_path / "a.tif")
    assert result.exit_code == 2 and "cannot be read" in result.output and "--on-error" in result.output
    assert not list(tmp_path.iterdir())
