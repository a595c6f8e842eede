"""The remedies that commands print can be typed."""

import os
import shlex
import shutil
from pathlib import Path

import pytest
import xarray as xr
from typer.testing import CliRunner

import xr_cloudfree
from tests.support import runs
from tests.support.cubes import contents, make_cube
from xr_cloudfree.cli.app import app
from xr_cloudfree.runner.runs import prepare
from xr_cloudfree.runner.status import status

BATCH = ("--date", runs.HOW["date"], "-m", "linear", "--shard", "96", "-q")


@pytest.fixture
def folder(cube, tmp_path, monkeypatch):
    """A current folder with a cube in it, both with a blank and a quote in their names."""
    here = tmp_path / "it's here"
    here.mkdir()
    monkeypatch.chdir(here)
    shutil.copytree(cube, "a cube.zarr")
    return here


@pytest.fixture(scope="module")
def cube(tmp_path_factory):
    path = tmp_path_factory.mktemp("cube") / "cube.zarr"
    runs.make_cube(path)
    return path


def cli(*arguments, code=0):
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    assert done.exit_code == code, done.output
    return done.output


def typed(command, code=0):
    """Type a line as it was told."""
    program, *arguments = shlex.split(command)
    assert program == "cloudfree"
    return cli(*arguments, code=code)


def following(store):
    return next(line for line in cli("status", store).splitlines() if line.startswith("next")).split(maxsplit=1)[1]


@pytest.mark.parametrize("store", ["my run.zarr", "$HOME;x.zarr", "it's.zarr"])
def test_what_status_tells_to_do_next(folder, store):
    cli("batch", "a cube.zarr", "--out", store, *BATCH, "--prepare")
    typed(following(store))
    assert following(store).startswith("cloudfree verify")
    assert "are as they were written" in typed(following(store))


def test_a_run_whose_cube_is_in_memory_is_not_told_to_resume(folder):
    da, clear = make_cube()
    run = prepare(da, "a.zarr", "2021-06-03", clear=clear, model="linear")
    assert "cloudfree" not in run.how_to_resume
    xr_cloudfree.to_zarr(da, "a.zarr", "2021-06-03", clear=clear, model="linear")
    Path("a.zarr.journal/finished.json").unlink()
    assert "cloudfree" not in status("a.zarr").text().splitlines()[-1]


def test_a_run_that_failed_tells_its_own_store(folder):
    cli("batch", "a cube.zarr", "--out", "my run.zarr", *BATCH, "--prepare")
    chunk = Path("a cube.zarr/reflectance/c/2/0/0/0")
    whole, when = chunk.read_bytes(), chunk.stat()
    chunk.write_bytes(whole[:9])
    os.utime(chunk, ns=(when.st_atime_ns, when.st_mtime_ns))
    said = cli("batch", "a cube.zarr", "--out", "other.zarr", *BATCH, code=3)
    chunk.write_bytes(whole)
    os.utime(chunk, ns=(when.st_atime_ns, when.st_mtime_ns))
    assert "cloudfree resume other.zarr" in said


def test_a_cube_that_was_moved(folder):
    cli("batch", "a cube.zarr", "--out", "one.zarr", *BATCH)
    cli("batch", "a cube.zarr", "--out", "my run.zarr", *BATCH, "--prepare")
    cli("region", "my run.zarr", "--index", 1)
    Path("else where").mkdir()
    Path("a cube.zarr").rename("else where/a cube.zarr")
    for command in (("resume",), ("repair",), ("region", "--index", "0")):
        said = cli(command[0], "my run.zarr", *command[1:], code=2)
        told = said.split("try")[1].split(", with its path")[0].strip()
        assert told == "cloudfree resume 'my run.zarr' --cube 'a cube.zarr'"
    typed(told.replace("'a cube.zarr'", "'else where/a cube.zarr'") + " -q")
    assert contents("my run.zarr") == contents("one.zarr")
    assert "are as they were written" in cli("verify", "my run.zarr")
    next(Path("my run.zarr/reflectance").rglob("c/*/*/*")).unlink()
    assert "1 regions were filled again" in cli("repair", "my run.zarr")


def test_another_cube_is_not_taken_for_the_one_that_was_moved(folder):
    cli("batch", "a cube.zarr", "--out", "a.zarr", *BATCH, "--prepare")
    before = Path("a.zarr.journal/run.json").read_bytes()
    ds = xr.open_zarr("a cube.zarr", consolidated=False).load()
    Path("a cube.zarr").rename("gone.zarr")
    (ds + 0).assign_attrs(ds.attrs).to_zarr("b.zarr", zarr_format=3, consolidated=False)
    cli("resume", "a.zarr", "--cube", "b.zarr", code=2)
    assert Path("a.zarr.journal/run.json").read_bytes() == before


@pytest.mark.parametrize("option", ["--shard", "--block"])
@pytest.mark.parametrize("value", [64, 1])
def test_the_option_that_cannot_be_is_named_and_the_value_told_is_taken(folder, option, value):
    given = ("batch", "a cube.zarr", "--out", "a.zarr", "--date", runs.HOW["date"], "-m", "regress", "--prepare")
    said = cli(*given, option, value, code=2)
    assert f"{option.strip('-')} is {value}" in said
    told = said.split("try")[1].split()
    assert told[0] == option
    cli(*given, *told)


def test_a_shard_that_is_not_of_whole_blocks(folder):
    given = ("batch", "a cube.zarr", "--out", "a.zarr", "--date", runs.HOW["date"], "-m", "linear", "--prepare")
    said = cli(*given, "--shard", 96, "--block", 64, code=2)
    cli(*given, *said.split("try")[1].split())
