"""Locks: file systems without them, owners that live, and owners that died."""

import errno
import json
import os
import signal
import time
from pathlib import Path

import pytest

from tests.support import runs
from tests.support.cubes import contents
from tests.support.runs import Child, check_whole, fill, without_locks
from xr_cloudfree import errors
from xr_cloudfree.runner.journal import Journal
from xr_cloudfree.runner.verify import verify
from xr_cloudfree.storage import files

fcntl = pytest.importorskip("fcntl")
pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs fork, SIGKILL and /proc")


def fill_without_locks(cube, store):
    fcntl.flock = without_locks()
    fill(cube, store)


@pytest.fixture(scope="module")
def clean(cube, tmp_path_factory):
    store = tmp_path_factory.mktemp("clean") / "out.zarr"
    assert Child(fill, cube, store).error() is None
    return contents(store)


@pytest.mark.parametrize(
    "number", [errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.EINVAL], ids=errno.errorcode.get
)
def test_a_file_system_without_locks(tmp_path, monkeypatch, number):
    monkeypatch.setattr(fcntl, "flock", without_locks(number))
    journal = Journal(tmp_path / "out.zarr")
    with journal.lock():
        held = json.loads((journal.folder.path / "lock.held").read_text())
        assert held["pid"] == os.getpid()
        with pytest.raises(errors.LockedError, match=f"process {os.getpid()} on "), journal.lock():
            pass
    assert sorted(path.name for path in journal.folder.path.iterdir()) == ["lock"]
    with journal.lock():
        pass


def test_a_second_driver_where_there_are_no_locks(cube, clean, tmp_path, monkeypatch):
    store = tmp_path / "out.zarr"
    first = Child(fill_without_locks, cube, store)
    runs.wait_for_markers(store, 4, first)
    first.send(signal.SIGSTOP)
    monkeypatch.setattr(fcntl, "flock", without_locks())
    for options in ({}, {"overwrite": True}):
        with pytest.raises(errors.LockedError, match=f"process {first.process.pid} on "):
            fill(cube, store, **options)
    first.kill()
    fill(cube, store)  # at once
    check_whole(store, clean)


HOLDERS = {
    "of another machine": ({"machine": "other", "pid": 1, "began": "1"}, True),
    "of a process that has died": ({"pid": 2**22 + 1, "began": "1"}, False),
    "of a process whose number another one has by now": ({"pid": os.getppid(), "began": "1"}, False),
    "that is being written": (None, True),
}


@pytest.mark.parametrize("whose", HOLDERS)
def test_a_lock(whose, tmp_path, monkeypatch):
    """One that tells of a process which can be looked for is void as soon as it has ended, others after a time."""
    monkeypatch.setattr(fcntl, "flock", without_locks())
    told, holds = HOLDERS[whose]
    held = tmp_path / "lock.held"
    held.write_text("" if told is None else json.dumps({"machine": files.machine()} | told))
    if holds:
        with pytest.raises(BlockingIOError), files.hold(tmp_path / "lock"):
            pass
        assert held.exists()
        before = time.time() - files.STALE - 1
        os.utime(held, (before, before))
    with files.hold(tmp_path / "lock"):
        assert json.loads(held.read_text())["pid"] == os.getpid()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock"]


def test_a_lock_is_touched_while_it_is_held(tmp_path, monkeypatch):
    monkeypatch.setattr(fcntl, "flock", without_locks())
    monkeypatch.setattr(files, "BEAT", 0.01)
    with files.hold(tmp_path / "lock"):
        held = tmp_path / "lock.held"
        os.utime(held, (1, 1))
        until = time.monotonic() + 30
        while held.stat().st_mtime < 2:
            assert time.monotonic() < until
            time.sleep(0.01)


def test_a_run_that_failed_leaves_nobody_at_work(tmp_path):
    journal = Journal(tmp_path / "out.zarr")
    with pytest.raises(ZeroDivisionError), journal.lock():
        raise ZeroDivisionError
    assert (journal.folder.path / "lock").read_text() == ""


def test_verify_needs_no_lock(cube, tmp_path, monkeypatch):
    store = tmp_path / "out.zarr"
    fill(cube, store)
    monkeypatch.setattr(fcntl, "flock", without_locks())
    assert verify(store).ok
