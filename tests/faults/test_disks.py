"""Commands on full and read-only disks, and on cubes with damaged or truncated files."""

import os
import shlex
import shutil
import subprocess

import numpy as np
import pytest
import rasterio
import xarray as xr
from typer.testing import CliRunner

import xr_cloudfree
from tests.support import runs
from xr_cloudfree import errors, io, synthetic
from xr_cloudfree.cli.app import app
from xr_cloudfree.storage import geozarr

DATE = runs.HOW["date"]


def cli(*arguments, code=2):
    """What a command says; an error is three lines and no traceback."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == code, done.output
    assert code not in (2, 3) or all(f"{label}  " in done.output for label in ("found", "needed", "try"))
    return done.output


def fill(cube, out, *more, code=2):
    return cli("fill", cube, "--date", DATE, "--model", "linear", "--out", out, "-q", *more, code=code)


@pytest.fixture
def disk(tmp_path):
    """Mounts a disk of its own: full after so many bytes, or read-only."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def mount(options):
        made = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", folder], capture_output=True)
        if made.returncode:
            pytest.skip("a disk can be mounted by root only")
        return folder

    yield mount
    subprocess.run(["umount", "-l", folder], check=False)  # GDAL may have a file open


@pytest.mark.parametrize("name", ["a.zarr", "a.tif"])
@pytest.mark.parametrize("options", ["size=32k", "ro"])
def test_fill_on_a_disk_that_takes_no_more(cube, disk, name, options):
    folder = disk(options)
    assert f"{name} cannot be written" in fill(cube, folder / name)
    assert not list(folder.iterdir())


def test_a_geotiff_of_which_the_last_bytes_do_not_fit(cube, disk, tmp_path):
    """GDAL writes them when the file is closed, and says nothing if it cannot."""
    fill(cube, tmp_path / "whole.tif", code=0)
    size = sum((tmp_path / name).stat().st_size // 4096 * 4 for name in ("whole.tif", "whole.filled.tif"))
    folder = disk(f"size={size}k")
    assert "a.tif cannot be written" in fill(cube, folder / "a.tif")
    assert not list(folder.iterdir())
    subprocess.run(["mount", "-o", f"remount,size={size + 16}k", folder], check=True)
    fill(cube, folder / "a.tif", code=0)
    with rasterio.open(folder / "a.tif") as one, rasterio.open(tmp_path / "whole.tif") as other:
        np.testing.assert_array_equal(one.read(), other.read())


def test_what_is_made_from_a_store_is_made_later(cube, disk):
    folder = disk("size=16m")
    batch = ("batch", cube, "--out", folder / "a b.zarr", "--date", DATE, "-m", "linear", "--shard", 96, "-q")
    cli(*batch, code=0)
    used = sum(os.stat(path).st_blocks for path in folder.rglob("*")) // 2
    subprocess.run(["mount", "-o", f"remount,size={used + 32}k", folder], check=True)
    said = cli(*batch, "--cog")
    assert ".tif cannot be written" in said
    subprocess.run(["mount", "-o", "remount,size=16m", folder], check=True)
    program, *told = shlex.split(said.split("then: ")[1])
    assert program == "cloudfree"
    cli(*told, "-q", code=0)
    with rasterio.open(folder / "a b.tif") as made:
        assert np.isfinite(made.read()).all()


@pytest.mark.parametrize("command", ["preview", "csv"])
def test_pictures_and_tables_on_a_read_only_disk(cube, disk, tmp_path, command):
    folder = disk("ro")
    if command == "csv":
        table = folder / "score.csv"
        said = cli("evaluate", cube, "--models", "nearest", "--frames", 1, "--size", 32, "--csv", table, "-q")
    else:
        pytest.importorskip("matplotlib")
        said = fill(cube, tmp_path / "a.zarr", "--preview", folder / "a.png")
    assert f"{folder}" in said and "cannot be written" in said


# What is damaged, and how.
CHUNKS = {
    "a band": "reflectance/c/2/0/1/1",
    "the mask": "cloud_mask/c/2/1/1",
}
DAMAGE = {
    "cut short": lambda data: data[: len(data) // 2],
    "emptied": lambda data: b"",
    "other bytes": lambda data: bytes(len(data)),
}


@pytest.mark.parametrize("how", DAMAGE)
@pytest.mark.parametrize("what", CHUNKS)
def test_a_damaged_chunk_is_named_by_each_command(cube, tmp_path, what, how):
    mine, chunk = tmp_path / "cube.zarr", CHUNKS[what]
    shutil.copytree(cube, mine)
    (mine / chunk).write_bytes(DAMAGE[how]((mine / chunk).read_bytes()))
    name, _, part = chunk.partition("/")
    commands = {
        "fill": lambda: fill(mine, tmp_path / "a.zarr"),
        "fill as GeoTIFF": lambda: fill(mine, tmp_path / "a.tif"),
        "fill of one band": lambda: fill(mine, tmp_path / "b.zarr", "--bands", "B03"),
        "batch": lambda: cli("batch", mine, "--out", tmp_path / "c.zarr", "--date", DATE, "-m", "linear", "-q"),
    }
    if how == "cut short":
        commands["info"] = lambda: cli("info", mine, "--dates")
        commands["evaluate"] = lambda: cli("evaluate", mine, "--models", "nearest", "--size", 192, "-q")
    for command, ask in commands.items():
        said = ask()
        assert f"{name} in {mine} cannot be read, at chunk {part}" in said and str(mine / chunk) in said, command
    assert not {path.name for path in tmp_path.iterdir()} & {"a.zarr", "a.tif", "b.zarr"}


@pytest.mark.parametrize("opened", ["in chunks", "without dask"])
def test_a_damaged_chunk_of_a_cube_that_was_opened(cube, tmp_path, opened):
    mine = tmp_path / "cube.zarr"
    shutil.copytree(cube, mine)
    (mine / CHUNKS["a band"]).write_bytes(b"1")
    chunks = {} if opened == "in chunks" else None
    ds = xr.open_zarr(mine, decode_coords="all", consolidated=False, chunks=chunks)
    with pytest.raises(errors.InputError, match=r"reflectance in .* at chunk c/2/0/1/1"):
        ds.cloudfree.fill(DATE, model="linear").compute()
    with pytest.raises(errors.CloudfreeError, match="at chunk c/2/0/1/1"):
        ds.cloudfree.to_zarr(tmp_path / "a.zarr", DATE, model="linear")


def test_damaged_metadata_and_coordinates(cube, tmp_path):
    mine = tmp_path / "cube.zarr"
    for key in ("reflectance/zarr.json", "time/c/0"):
        shutil.copytree(cube, mine)
        (mine / key).write_bytes((mine / key).read_bytes()[:9])
        assert f"{mine} cannot be opened" in cli("info", mine)
        shutil.rmtree(mine)


def test_a_netcdf_file_that_was_cut_short(tmp_path):
    pytest.importorskip("netCDF4")
    ds = synthetic.cube(shape=(4, 2, 64, 64), seed=1)
    ds.to_netcdf(tmp_path / "cube.nc", engine="netcdf4")
    os.truncate(tmp_path / "cube.nc", (tmp_path / "cube.nc").stat().st_size // 2)
    assert "cube.nc cannot be opened" in fill(tmp_path / "cube.nc", tmp_path / "a.zarr")


def test_a_sound_cube_is_not_changed_by_being_guarded(cube):
    plain = xr.open_zarr(cube, decode_coords="all", consolidated=False)
    described = geozarr.without_conventions(plain.attrs)
    assert io.open_cube(cube).identical(plain.drop_attrs(deep=False).assign_attrs(described))
    one = xr_cloudfree.fill(plain, DATE, model="linear")
    assert xr_cloudfree.fill(io.open_cube(cube), DATE, model="linear").identical(one)
