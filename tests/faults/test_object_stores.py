"""Runs whose store is in an object store: the same bytes and the same promises as on a disk.

The server is that of moto, in a process of its own, with faults where a test wants them.
"""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support import runs, s3
from tests.support.commands import run as typed
from tests.support.cubes import contents, make_cube
from tests.support.runs import Child
from xr_cloudfree import errors, io, stores
from xr_cloudfree.runner import local
from xr_cloudfree.runner.journal import Journal
from xr_cloudfree.runner.status import status
from xr_cloudfree.runner.verify import repair, verify
from xr_cloudfree.storage import objects

pytest.importorskip("obstore")
pytest.importorskip("moto")
pytestmark = [
    pytest.mark.xdist_group("object stores"),
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs fork, SIGKILL and /proc"),
]
SHARD, N = 64, 9
HOW = runs.HOW | {"shard": SHARD}


@pytest.fixture(scope="module")
def server(cube):
    with s3.serving() as server:
        server.upload(cube, "cube.zarr")
        yield server


@pytest.fixture
def faults(server, monkeypatch):
    """The server's faults; requests are repeated at once."""
    backoff = {"init_backoff": timedelta(milliseconds=1), "max_backoff": timedelta(milliseconds=5), "base": 2}
    monkeypatch.setattr(objects, "RETRY", {"max_retries": 4, "backoff": backoff})
    objects.client.cache_clear()
    yield server.disturb
    server.disturb()
    objects.client.cache_clear()


@pytest.fixture
def store(server, tmp_path):
    return f"s3://{s3.BUCKET}/{tmp_path.name}/out.zarr"


@pytest.fixture(scope="module")
def clean(cube, tmp_path_factory):
    path = tmp_path_factory.mktemp("clean") / "out.zarr"
    fill(cube, path)
    return contents(path)


def fill(cube, store, **options):
    return xr_cloudfree.to_zarr(cube, store, **HOW | options)


def found_at(store):
    """The objects of a store: bytes by key."""
    folder = Journal(store).store
    return {key: folder.read(key) for key, _ in folder.list()}


def marked(store):
    return sum(1 for _ in Journal(store).folder.list("done"))


def check_whole(store, clean):
    assert found_at(store) == clean and verify(store).ok


def fill_there(environment, cube, store, call=None, where="", n=0, after=False, **options):
    """Fill, in a process that was forked; die before or after the n-th call for a key with `where` in it."""
    os.environ.update(environment)
    if call is not None:
        real, met = getattr(objects.ObjectFolder, call), []

        def deadly(self, key, *arguments):
            hit = where in f"{self.url}/{key}"
            met.extend([1] * hit)
            if hit and len(met) == n and not after:
                runs.kill_self()
            real(self, key, *arguments)
            if hit and len(met) == n and after:
                runs.kill_self()

        setattr(objects.ObjectFolder, call, deadly)
    fill(cube, store, **options)


def wait_for_markers(store, n, child):
    end = time.monotonic() + 300
    while marked(store) < n:
        assert time.monotonic() < end and child.process.is_alive(), f"{marked(store)} markers"
        time.sleep(0.01)


def test_the_bytes_are_those_on_a_disk(cube, clean, store, monkeypatch):
    made = fill(cube, store)
    check_whole(store, clean)
    assert made.rio.crs.to_epsg() == 32629
    xr.testing.assert_identical(made.load(), io.open_store(store).load())
    told = status(store)
    assert told.finished and told.done == N and f"cloudfree verify {store}" in told.text()
    monkeypatch.setattr(local, "fill_region", None)  # what is done is not done again
    fill(cube, store)
    stores.resume(store, progress=False)


def test_a_cube_in_the_bucket(clean, store, server):
    """It is opened again from the journal, and a change of it is noticed even if its size stays the same."""
    made = fill(f"s3://{s3.BUCKET}/cube.zarr", store)
    xr.testing.assert_equal(made.load(), io.open_store(store).load())
    check_whole(store, clean)
    Journal(store).folder.remove([Journal(store).marker(4)])
    stores.resume(store, progress=False)
    check_whole(store, clean)
    other = objects.ObjectFolder(f"s3://{s3.BUCKET}/cube.zarr")
    key, data = "reflectance/c/2/0/0/0", other.read("reflectance/c/2/0/0/0")
    other.write(key, data[:-1] + bytes([data[-1] ^ 1]))
    try:
        with pytest.raises(errors.ChangedError, match="values of the cube: changed since"):
            fill(f"s3://{s3.BUCKET}/cube.zarr", store)
    finally:
        other.write(key, data)


MOMENTS = {
    "before a shard": ("write", "/c/", 7, False),
    "before a marker": ("update", "/done/", 4, False),
    "after a marker": ("update", "/done/", 4, True),
    "before the digest": ("write", "finished.json", 1, False),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_a_driver_that_is_killed(cube, clean, store, server, moment):
    assert Child(fill_there, server.environment, cube, store, *MOMENTS[moment]).wait() == -signal.SIGKILL
    left = marked(store)
    assert left == {"before a shard": left, "before a marker": 3, "after a marker": 4, "before the digest": N}[moment]
    report = verify(store)
    assert not report.problems and len(report.unfinished) == N - left
    before = {key: data for key, data in found_at(store).items() if "/c/" in key}
    fill(cube, store)
    check_whole(store, clean)
    assert before.items() <= clean.items()


@pytest.mark.slow
def test_drivers_that_are_killed_again_and_again(cube, clean, store, server):
    for n in (2, 4, 6):
        child = Child(fill_there, server.environment, cube, store)
        wait_for_markers(store, n, child)
        child.kill()
    stores.resume(store, progress=False)
    check_whole(store, clean)


def test_a_driver_that_is_killed_while_it_removes_the_old_store(cube, clean, store, server):
    fill(cube, store, dilate=1)
    child = Child(fill_there, server.environment, cube, store, "write", "run.json", 1, overwrite=True)
    assert child.wait() == -signal.SIGKILL
    with pytest.raises(errors.StoreError, match="no journal"):
        verify(store)
    fill(cube, store)
    check_whole(store, clean)


def test_two_drivers(cube, clean, store, server):
    first = Child(fill_there, server.environment, cube, store)
    wait_for_markers(store, 2, first)
    first.send(signal.SIGSTOP)
    assert f"process {first.process.pid} on" in status(store).text()
    for options in ({}, {"overwrite": True}):
        with pytest.raises(errors.LockedError, match=f"process {first.process.pid} on "):
            fill(cube, store, **options)
    first.kill()
    assert status(store).driver is None
    fill(cube, store)  # at once
    check_whole(store, clean)


def test_a_late_worker_of_an_old_run_marks_nothing(cube, clean, store):
    fill(cube, store, dilate=1)
    old = Journal(store).read(Journal(store).marker(0))
    fill(cube, store, overwrite=True)
    with pytest.raises(errors.StoreError, match="belongs to another run"):
        Journal(store).mark(0, {key: value for key, value in old.items() if key != "check"})
    check_whole(store, clean)


def test_damage_is_found_and_mended(cube, clean, store):
    fill(cube, store)
    chance, journal = random.Random(0), Journal(store)
    places = [(journal.store, key) for key, _ in journal.store.list()]
    places += [(journal.folder, key) for key, _ in journal.folder.list() if key.startswith(("done", "finished"))]
    for i, (folder, key) in enumerate(chance.sample(places, 9)):
        before = folder.read(key)
        spoiled = bytearray(before)
        spoiled[chance.randrange(len(spoiled))] ^= 1 << chance.randrange(8)
        if (data := (bytes(spoiled), before[: len(before) // 2], None)[i % 3]) is None:
            folder.remove([key])
        else:
            folder.write(key, data)
        # A store without its digest is one that is not finished.
        assert verify(store).ok == (key == "finished.json" and data is None)
        folder.write(key, before)
    assert verify(store).ok
    for folder, key in chance.sample(places, 8):
        folder.remove([key])
    repair(store)
    check_whole(store, clean)


def test_a_server_that_fails_now_and_then_and_is_slow(cube, clean, store, faults):
    faults(
        {"method": ["PUT"], "every": 5, "status": 503, "late": True},
        {"method": ["GET", "HEAD"], "path": "/", "every": 4, "status": 503},
        {"method": ["GET"], "every": 7, "seconds": 0.2},
    )
    fill(f"s3://{s3.BUCKET}/cube.zarr", store)
    faults()
    check_whole(store, clean)


def test_a_server_that_fails_for_long_ends_the_run_with_a_typed_error(cube, clean, store, faults):
    faults({"method": ["PUT"], "path": "/c/", "status": 503})
    with pytest.raises(errors.OutputError, match="cannot be written") as caught:
        fill(cube, store)
    assert s3.SECRET not in str(caught.value)
    faults()
    fill(cube, store)
    check_whole(store, clean)


def test_a_store_that_ignores_conditions_is_refused(cube, store, faults):
    faults({"method": ["PUT"], "unconditional": True})
    with pytest.raises(errors.OutputError, match="ignores If-None-Match"):
        fill(cube, store)
    assert found_at(store) == {}


def test_credentials_are_never_stored(store, server):
    fill(f"s3://{s3.BUCKET}/cube.zarr", store)
    for folder in (Journal(store).store, Journal(store).folder):
        for key, _ in folder.list():
            data = folder.read(key)
            assert s3.SECRET.encode() not in data and b"somebody" not in data


def test_the_cube_is_never_replaced(server):
    for out in (f"s3://{s3.BUCKET}/cube.zarr", f"s3a://{s3.BUCKET}/cube.zarr/out.zarr"):
        for cube in (f"s3://{s3.BUCKET}/cube.zarr", io.open_cube(f"s3://{s3.BUCKET}/cube.zarr")):
            with pytest.raises(errors.OutputError, match="which it is made from"):
                fill(cube, out, overwrite=True)


def test_other_objects_are_left_alone(cube, store):
    objects.ObjectFolder(store).write("thesis.txt", b"mine")
    for overwrite in (False, True):
        with pytest.raises(errors.OutputError, match="not a Zarr store"):
            fill(cube, store, overwrite=overwrite)
    assert found_at(store) == {"thesis.txt": b"mine"}


def test_a_store_that_grows(cube, store, tmp_path):
    dates = ["2023-05-05", "2023-05-12"]
    xr_cloudfree.to_zarr(cube, tmp_path / "whole.zarr", **HOW | {"date": dates})
    for date in dates:
        fill(cube, store, date=date, append=True)
    check_whole(store, contents(tmp_path / "whole.zarr"))


def test_commands(cube, clean, store, tmp_path):
    given = ("--date", HOW["date"], "-m", "linear", "--shard", SHARD)
    assert f"{N} regions" in typed("batch", cube, "--out", store, *given, "--prepare")
    assert f"cloudfree resume {store}" in typed("status", store)
    typed("region", store, "--index", 3, "-q")
    typed("resume", store, "-q")
    assert found_at(store) == clean
    assert "are as they were written" in typed("verify", store)
    key = "reflectance/c/0/1/1"
    objects.ObjectFolder(store).remove([key])
    assert key in typed("verify", store, code=1)
    assert "1 regions were filled again" in typed("repair", store)
    assert found_at(store) == clean
    assert "writes beside the store" in typed("resume", store, "--cog", code=2)
    pytest.importorskip("icechunk")
    typed("resume", store, "--icechunk", tmp_path / "repository", "-q")
    assert (tmp_path / "repository").is_dir()


def test_a_cube_in_memory(store):
    da, clear = make_cube()
    options = {"clear": clear, "model": "linear", "shard": 40}
    made = xr_cloudfree.to_zarr(da, store, "2021-06-03", **options)
    expected = xr_cloudfree.fill(da, "2021-06-03", clear=clear, model="linear")
    np.testing.assert_array_equal(made["reflectance"], expected)
    assert "cloudfree resume" not in status(store).text()


@contextmanager
def workers(address, folder, hidden):
    """Two worker processes, each of which sees an empty folder in place of `hidden` and has a folder of its own."""
    started = []
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        "OMP_NUM_THREADS": "1",
    }
    for name in ("a", "b"):
        mine = folder / name
        mine.mkdir()
        code = (
            "import asyncio, os, sys; from distributed import Worker\n"
            "async def main():\n"
            "    async with Worker(sys.argv[1], nthreads=1, local_directory=os.getcwd()) as worker:\n"
            "        await worker.finished()\n"
            "asyncio.run(main())"
        )
        script = f'mount -t tmpfs none "{hidden}" && exec "{sys.executable}" -c "$0" "$1"'
        command = ["unshare", "--user", "--map-root-user", "--mount", "sh", "-c", script, code, address]
        started.append(subprocess.Popen(command, cwd=mine, env=environment))
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.wait()


def kill_one(processes, store):
    while marked(store) < 3:
        time.sleep(0.01)
    processes[0].kill()
    processes[0].wait()


def can_hide(folder):
    if shutil.which("unshare") is None:
        return False
    command = ["unshare", "--user", "--map-root-user", "--mount", "mount", "-t", "tmpfs", "none", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


@pytest.mark.slow
def test_workers_without_a_common_folder(clean, store, server, tmp_path):
    """Neither the driver's folders nor each other's: and one of them is killed half way."""
    distributed = pytest.importorskip("distributed")
    shared, own = tmp_path / "shared", tmp_path / "own"
    shared.mkdir()
    own.mkdir()
    if not can_hide(shared):
        pytest.skip("needs namespaces for mounts")
    (shared / "seen").touch()

    def sees(path):
        return os.path.exists(path), os.getcwd()

    with (
        distributed.LocalCluster(n_workers=0, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
        workers(cluster.scheduler_address, own, shared) as processes,
    ):
        client.wait_for_workers(2, timeout=300)
        seen = client.run(sees, str(shared / "seen"))
        assert {there for there, _ in seen.values()} == {False} and len({folder for _, folder in seen.values()}) == 2

        killer = threading.Thread(target=kill_one, args=(processes, store))
        killer.start()
        xr_cloudfree.batch(f"s3://{s3.BUCKET}/cube.zarr", store, client=client, progress=False, **HOW)
        killer.join()
        assert [process.poll() for process in processes].count(-signal.SIGKILL) == 1
    check_whole(store, clean)
    assert [path.name for path in shared.iterdir()] == ["seen"]
