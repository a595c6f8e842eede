"""The status of a run: how far it is, who is at work, and what to type next."""

import json
import os
import socket

import pytest

from tests.support.cubes import make_cube
from xr_cloudfree import errors, io
from xr_cloudfree.runner import local, runs
from xr_cloudfree.runner.journal import Journal
from xr_cloudfree.runner.status import Status, status

DATE = "2021-06-03"


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)
    da, clear = make_cube()
    return runs.prepare(da, tmp_path / "out.zarr", DATE, clear=clear, model="linear", shard=24, layers="filled")


def test_from_the_beginning_to_the_end(run):
    with pytest.raises(errors.StoreError, match="no journal"):
        status(run.path)
    with runs.started(run) as missing:
        local.fill_locally(run, missing[:4])
        told = status(run.path)
        assert (told.done, told.total, told.finished) == (4, 9, False)
        assert told.driver.startswith(f"process {os.getpid()} on {socket.gethostname()}")
        assert "wait for it" in told.text() and "4 of 9 done (44%)" in told.text()
        local.fill_locally(run, missing[4:])
    told = status(run.path)
    assert (told.done, told.finished, told.driver) == (9, False, None) and "nobody" in told.text()
    assert "the call that began it" in told.text()  # its cube is in memory
    with runs.started(run):
        runs.finish(run)
    told = status(run.path)
    assert told.finished and f"cloudfree verify {run.path}" in told.text()
    assert dict(told.begun)["model"].startswith("linear") and "cube" not in dict(told.begun)


def finish(run):
    with runs.started(run) as missing:
        local.fill_locally(run, missing)
        runs.finish(run)


def test_pixels_are_counted(run):
    finish(run)
    told, filled = status(run.path), io.open_store(run.path)["filled"].load()
    assert told.pixels["observed"] == int((filled == 1).sum()) and told.pixels["not filled"] == int((filled == 0).sum())
    assert sum(told.pixels.values()) == filled.size
    assert f"{told.pixels['filled']:,} filled" in told.counted() and "in some bands" not in told.counted()


def test_a_file_that_is_lost_is_not_counted(run):
    finish(run)
    Journal(run.path).store.remove([run.plan.layout.keys(3)[0]])
    told = status(run.path)
    assert told.done == 8 and not told.finished


@pytest.mark.parametrize(
    ("owner", "shown"),
    [
        ({"pid": os.getpid(), "host": socket.gethostname(), "since": "noon"}, True),
        ({"pid": 2**22 + 1, "host": socket.gethostname(), "since": "noon"}, False),
        ({"pid": 1, "host": "elsewhere", "since": "noon"}, True),
        ({}, False),
        ("no owner", False),
    ],
)
def test_who_is_at_work(run, owner, shown):
    with runs.started(run):
        pass
    Journal(run.path).folder.write("lock", json.dumps(owner).encode())
    assert (status(run.path).driver is not None) == shown


def test_text_of_a_run_with_blanks_in_its_name():
    told = Status("s3://bucket/a run.zarr", 4, 1, False, None, (("model", "linear"),), {}, True)
    assert "cloudfree resume 's3://bucket/a run.zarr'" in told.text() and "pixels" not in told.text()
