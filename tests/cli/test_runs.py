"""The commands for runs: `batch`, `region`, `status`, `resume`, `verify`, `repair`, and what they write."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr
from dask.system import CPU_COUNT

import xr_cloudfree
from tests.support.commands import run
from tests.support.cubes import as_dataset, make_cube
from xr_cloudfree import io
from xr_cloudfree.cli.cluster import connect
from xr_cloudfree.runner.journal import Journal
from xr_cloudfree.runner.verify import store_digest

DATES = ["2021-05-15", "2021-05-21"]
BATCH = ("batch", "cube.zarr", "--out", "out.zarr", "--dates", ",".join(DATES), "-m", "linear", "--shard", "32")


@pytest.fixture
def folder(tmp_path, monkeypatch) -> Path:
    """A current folder with a cube in it, of 4 x 3 regions."""
    monkeypatch.chdir(tmp_path)
    ds = as_dataset(*make_cube(shape=(120, 96))).drop_vars("platform").chunk({"y": 50, "x": 40})
    ds.to_zarr("cube.zarr", zarr_format=3, consolidated=False)
    return tmp_path


def expected(model: str = "linear") -> xr.Dataset:
    return xr_cloudfree.fill(io.open_cube("cube.zarr"), DATES, model=model, layers="filled").compute()


def test_batch_is_what_fill_gives_and_says_how_far_it_is(folder) -> None:
    output = run(*BATCH)
    assert "Wrote out.zarr" in output
    lines = [json.loads(line) for line in output.splitlines() if line.startswith("{")]
    assert lines[0]["done"] == 0 and lines[-1]["done"] == lines[-1]["total"] == 12
    assert lines[-1]["bytes"] > 0 and lines[-1]["eta"] == 0
    image = xr.open_zarr("out.zarr", decode_coords="all").compute()
    xr.testing.assert_equal(image, expected())
    counted = [f"{int((image.filled == state).sum()):,}" for state in (1, 2, 0)]
    counted = "{} observed, {} filled, {} not filled".format(*counted)
    told = run("status", "out.zarr")
    assert counted in output and counted in told
    assert "12 of 12 done (100%), finished" in told and "nobody" in told and "cloudfree verify out.zarr" in told
    assert store_digest("out.zarr") in run("verify", "out.zarr")


def test_pixels_are_told_only_if_all_regions_counted_them(folder) -> None:
    run(*BATCH, "--quiet")
    journal = Journal("out.zarr")
    told = journal.read(journal.marker(0))
    assert told is not None and told.pop("pixels")["filled"] > 0
    journal.write(journal.marker(0), told)
    assert "not filled" not in run("status", "out.zarr")
    assert "Wrote out.zarr" in run(*BATCH)


@pytest.mark.slow
def test_a_cluster_on_this_machine(folder) -> None:
    pytest.importorskip("distributed")
    output = run(*BATCH, "--cluster", "local:2")
    assert "Dashboard at http" in output and "Wrote out.zarr" in output
    xr.testing.assert_equal(xr.open_zarr("out.zarr", decode_coords="all").compute(), expected())


@pytest.mark.slow
def test_it_has_as_many_processes_as_were_asked_for() -> None:
    pytest.importorskip("distributed")
    wanted = 1 if CPU_COUNT > 1 else 2  # not what it would have by itself
    with connect(f"local:{wanted}", quiet=True) as client:
        assert client is not None and len(client.ncores()) == wanted


@pytest.mark.slow
def test_the_readme_runs_as_it_is_written(folder) -> None:
    pytest.importorskip("distributed")
    root = Path(__file__).resolve().parents[2]
    section = (root / "README.md").read_text().partition("## On a cluster\n")[2].partition("\n## ")[0]
    (folder / "data").symlink_to(root / "data")
    commands = re.search(r"```bash\n(.*?)```", section, re.DOTALL)
    assert commands is not None
    for line in commands[1].splitlines():
        program, *arguments = line.partition("#")[0].split()
        assert program == "cloudfree"
        output = run(*arguments)
    assert "are as they were written" in output


def test_three_commands_for_an_array_of_jobs(folder) -> None:
    assert "12 regions, 12 to be filled: --index 0 to 11" in run(*BATCH, "--prepare")
    assert "cloudfree resume out.zarr" in run("status", "out.zarr")
    assert "region 7 of 12: done in" in run("region", "out.zarr", "--index", 7)
    assert "region 7 of 12: is done already" in run("region", "out.zarr", "--index", 7)
    assert run("region", "out.zarr", "--index", 1, "--of", 3).count("done in") == 3
    assert "4 of 12 done (33%)" in run("status", "out.zarr")
    assert "not filled yet: 8 regions" in run("verify", "out.zarr", code=1)
    assert "--index 11" in run("region", "out.zarr", "--index", 12, code=2)
    assert "none for job 13 of 20" in run("region", "out.zarr", "--index", 13, "--of", 20)
    assert "one below 3" in run("region", "out.zarr", "--index", 3, "--of", 3, code=2)
    assert "Wrote out.zarr" in run("resume", "out.zarr")
    xr.testing.assert_equal(xr.open_zarr("out.zarr", decode_coords="all").compute(), expected())


def test_what_has_changed_is_found_and_mended(folder) -> None:
    run(*BATCH, "--quiet")
    digest = store_digest("out.zarr")
    shard = Path("out.zarr/B04/c/1/2/1")
    data = bytearray(shard.read_bytes())
    data[40] ^= 1
    shard.write_bytes(data)
    Path("out.zarr/filled/c/0/0/0").unlink()
    output = run("verify", "out.zarr", code=1)
    assert "changed: B04/c/1/2/1 (region 7)" in output and "missing: filled/c/0/0/0 (region 0)" in output
    assert run("verify", "out.zarr", "--quiet", code=1) == ""
    assert "2 regions were filled again" in run("repair", "out.zarr")
    assert digest in run("verify", "out.zarr")


def test_sigterm_ends_a_run_cleanly_and_the_same_command_goes_on(folder) -> None:
    ds = as_dataset(*make_cube(shape=(240, 240))).drop_vars("platform").chunk({"y": 48, "x": 48})
    ds.to_zarr("cube.zarr", mode="w", zarr_format=3, consolidated=False)
    arguments = [*BATCH[:-1], "16"]
    code = "import sys; from xr_cloudfree.cli.app import app; app(sys.argv[1:])"
    with subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stderr=subprocess.PIPE, stdout=subprocess.DEVNULL, text=True
    ) as driver:
        done = Path("out.zarr.journal/done/0000")
        while driver.poll() is None and not (done.exists() and len(os.listdir(done)) > 3):
            time.sleep(0.01)
        driver.send_signal(signal.SIGTERM)
        _, told = driver.communicate(timeout=60)
    assert driver.returncode == 128 + signal.SIGTERM
    assert "Stopped by SIGTERM" in told and "cloudfree resume out.zarr" in told
    status = run("status", "out.zarr")
    count = re.search(r"(\d+) of 225 done", status)
    assert count is not None and 3 <= int(count[1]) < 225 and "nobody" in status
    run(*arguments, "--quiet")
    run("verify", "out.zarr")
    xr.testing.assert_equal(xr.open_zarr("out.zarr", decode_coords="all").compute(), expected())


def test_another_run_in_the_same_place_is_refused(folder) -> None:
    run(*BATCH, "--quiet")
    output = run(*BATCH, "--model", "nearest", code=2)
    assert "model" in output and "--overwrite" in output
    run(*BATCH, "--model", "nearest", "--overwrite", "--quiet")
    assert "nearest" in run("status", "out.zarr")


def test_a_scheduler_that_is_not_there(folder) -> None:
    pytest.importorskip("distributed")
    output = run(*BATCH, "--cluster", "tcp://127.0.0.1:9", code=3)
    assert "no scheduler answers at tcp://127.0.0.1:9" in output
    assert "local:N" in run(*BATCH, "--cluster", "local:none", code=2)


def test_commands_without_a_run(folder) -> None:
    for command in ("status", "resume", "verify", "repair"):
        assert "there is no journal" in run(command, "nothing.zarr", code=2)
    assert "there is no journal" in run("region", "nothing.zarr", "--index", 0, code=2)


def test_cogs_hold_what_the_store_holds(folder) -> None:
    output = run(*BATCH, "--cog")
    image = expected()
    for i, day in enumerate(DATES):
        assert f"Wrote out_{day}.tif" in output
        with rasterio.open(f"out_{day}.tif") as file:
            assert file.tags(ns="IMAGE_STRUCTURE")["LAYOUT"] == "COG"
            assert file.descriptions == ("B02", "B04", "B08") and file.crs.to_epsg() == 32629
            np.testing.assert_array_equal(file.read(2), image["B04"][i])
            assert file.tags()["cloudfree_model"] == "linear" and file.tags()["time"].startswith(day)
        with rasterio.open(f"out_{day}.filled.tif") as file:
            np.testing.assert_array_equal(file.read(1), image["filled"][i])
    assert {path.name for path in folder.iterdir() if path.name.startswith(".")} == set()
    assert "already exists" in run("resume", "out.zarr", "--cog", code=2)
    run("resume", "out.zarr", "--cog", "--overwrite")


def test_cogs_have_overviews_and_whole_numbers_stay(folder) -> None:
    ds = as_dataset(*make_cube(dtype="uint16", shape=(700, 640))).drop_vars("platform").chunk({"y": 256, "x": 256})
    ds.to_zarr("cube.zarr", mode="w", zarr_format=3, consolidated=False)
    run("batch", "cube.zarr", "--out", "out.zarr", "--date", DATES[1], "-m", "nearest", "--shard", "256", "--cog", "-q")
    stored = xr.open_zarr("out.zarr", decode_coords="all", mask_and_scale=False)
    with rasterio.open("out.tif") as file:
        assert file.overviews(1) == [2] and file.dtypes == ("uint16",) * 3
        assert file.nodata == 0 and file.scales == (1e-4,) * 3
        np.testing.assert_array_equal(file.read(1), stored["B02"])


def test_items_are_valid_stac(folder) -> None:
    pystac = pytest.importorskip("pystac")
    validation = pytest.importorskip("pystac.validation")
    pytest.importorskip("jsonschema")
    run(*BATCH, "--cog", "--stac")
    for day in DATES:
        item = pystac.Item.from_file(f"out_{day}.json")
        # The schemas of the core come with pystac; those of extensions would have to be fetched.
        assert len(item.stac_extensions) == 1
        fields, item.stac_extensions = item.properties, []
        assert validation.validate_dict(item.to_dict(), extensions=[])
        assert fields["proj:code"] == "EPSG:32629" and fields["proj:shape"] == [120, 96]
        assert fields["proj:transform"] == [10, 0, 499_995, 0, -10, 4_400_005]
        assert fields["cloudfree:model"] == "linear" and str(item.datetime.date()) == day
        assert -9.01 < item.bbox[0] < item.bbox[2] < -8.98 and 39.7 < item.bbox[1] < item.bbox[3] < 39.8
        assert [band["name"] for band in item.assets["image"].extra_fields["bands"]] == ["B02", "B04", "B08"]
        for asset in item.assets.values():
            assert Path(asset.href).exists()


def test_a_version_in_icechunk_has_the_same_bytes(folder, capfd) -> None:
    icechunk = pytest.importorskip("icechunk")
    run(*BATCH, "--icechunk", "repository", "-q")
    repository = icechunk.Repository.open(icechunk.local_filesystem_storage("repository"))
    head, *_ = repository.ancestry(branch="main")
    assert store_digest("out.zarr") in head.message
    store = repository.readonly_session("main").store
    xr.testing.assert_equal(xr.open_zarr(store, decode_coords="all", consolidated=False).compute(), expected())
    for path in sorted(Path("out.zarr").rglob("c/*/*/*")):
        assert read(store, path.relative_to("out.zarr").as_posix()) == path.read_bytes()
    run("resume", "out.zarr", "--icechunk", "repository", "-q")  # nothing new: no new version
    assert len(list(repository.ancestry(branch="main"))) == 2
    run(*BATCH, "--model", "nearest", "--overwrite", "--icechunk", "repository", "-q")
    assert len(list(repository.ancestry(branch="main"))) == 3
    old = repository.readonly_session(snapshot_id=head.id).store
    xr.testing.assert_equal(xr.open_zarr(old, decode_coords="all", consolidated=False).compute(), expected())
    assert "not an Icechunk repository" in run("resume", "out.zarr", "--icechunk", "cube.zarr", code=2)


def read(store, key: str) -> bytes:
    from zarr.core.buffer import default_buffer_prototype
    from zarr.core.sync import sync

    return sync(store.get(key, default_buffer_prototype())).to_bytes()
