"""Drivers that are killed, refused or run out of space leave stores that resume to the bytes of a clean run."""

import os
import random
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support import runs
from tests.support.cubes import contents
from tests.support.runs import HOW, Child, N, check_whole, fill, fill_until, markers, part_done
from xr_cloudfree import errors
from xr_cloudfree.runner.verify import verify
from xr_cloudfree.storage.locations import journal_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs fork, SIGKILL and /proc"),
]
DONE = f"{os.sep}done{os.sep}"


@pytest.fixture(scope="module")
def clean(cube, tmp_path_factory):
    """The bytes of a run that nothing disturbed."""
    store = tmp_path_factory.mktemp("clean") / "out.zarr"
    assert Child(fill, cube, store).error() is None
    found = contents(store)
    check_whole(store, found)
    return found


def test_filled_in_memory_gives_the_same_values(cube, clean, tmp_path):
    store = tmp_path / "out.zarr"
    fill(cube, store)
    written = xr.open_zarr(store, mask_and_scale=False)
    eager = xr_cloudfree.fill(runs.open_cube(cube).load(), **{k: v for k, v in HOW.items() if k != "shard"})
    for name in ("reflectance", "filled"):
        np.testing.assert_array_equal(written[name], eager[name])
    assert contents(store) == clean


# Where a region's end is cut: its last shard's and its marker's way to the disk.
MOMENTS = {
    "before the shard is in place": ("replace", f"{os.sep}filled{os.sep}c{os.sep}", False),
    "after the shard is in place": ("replace", f"{os.sep}filled{os.sep}c{os.sep}", True),
    "before the marker is on the disk": ("fsync", DONE, False),
    "after the marker is on the disk": ("fsync", DONE, True),
    "before the marker is in place": ("replace", DONE, False),
    "after the marker is in place": ("replace", DONE, True),
}


@pytest.mark.parametrize("moment", MOMENTS)
def test_ten_kills_around_the_marker(cube, clean, tmp_path, moment):
    """Ten times six are sixty. Each run goes on from what the killed one has left."""
    store, (call, where, after) = tmp_path / "out.zarr", MOMENTS[moment]
    there = 0
    for kill in range(10):
        n = 1 + kill % 3
        assert Child(fill_until, cube, store, call, where, n, after).wait() == -9
        # A region's marker comes last: without it the region is not done.
        there += n if moment == "after the marker is in place" else n - 1
        assert len(markers(store)) == there
        found = verify(store)
        assert not found.ok and not found.problems and len(found.unfinished) == N - there
    assert Child(fill, cube, store).error() is None
    check_whole(store, clean)


def test_twenty_kills_at_random(cube, clean, tmp_path):
    chance, kills, store = random.Random(0), 0, tmp_path / "out.zarr"
    while kills < 20:
        child = Child(fill, cube, store)
        child.process.join(chance.uniform(0, 1.5))
        if child.process.exitcode is None:
            kills += child.kill() == -9
        if child.process.exitcode == 0:  # it was done before: begin anew
            check_whole(store, clean)
            shutil.rmtree(store)
            shutil.rmtree(journal_folder(store))
    assert Child(fill, cube, store).error() is None
    check_whole(store, clean)


@pytest.mark.parametrize("n", range(1, 5))
def test_a_kill_while_an_old_store_is_cleared(cube, clean, tmp_path, n):
    """Whatever is gone by then, the half of a store is never taken for a whole one."""
    store = tmp_path / "out.zarr"
    assert Child(fill, cube, store).error() is None
    child = Child(runs.overwrite_until, cube, store, n)
    if child.wait() == 0:  # there were fewer folders to clear
        return
    try:
        fill(cube, store)
    except errors.OutputError as error:
        assert "overwrite=True" in error.remedy
        fill(cube, store, overwrite=True)
    check_whole(store, clean)


def test_kill_the_driver_at_40_percent(cube, clean, tmp_path):
    store = tmp_path / "out.zarr"
    child = Child(fill, cube, store)
    runs.wait_for_markers(store, 0.4 * N, child)
    assert child.kill() == -9
    before = {path: path.stat().st_mtime_ns for path in markers(store)}
    assert 0.4 * N <= len(before) < N
    assert Child(fill, cube, store).error() is None
    check_whole(store, clean)
    assert all(path.stat().st_mtime_ns == when for path, when in before.items())  # what was done stays as it was


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_driver_that_is_asked_to_end(cube, clean, tmp_path, number):
    store = tmp_path / "out.zarr"
    child = Child(fill, cube, store)
    runs.wait_for_markers(store, 8, child)
    child.send(number)
    assert child.wait() != 0
    assert len(markers(store)) < N
    fill(cube, store)
    check_whole(store, clean)


def test_a_second_driver_is_refused_while_the_first_lives(cube, clean, tmp_path):
    store = tmp_path / "out.zarr"
    first = Child(fill, cube, store)
    runs.wait_for_markers(store, 4, first)
    first.send(signal.SIGSTOP)
    for options in ({}, {"overwrite": True}):
        with pytest.raises(errors.LockedError, match=f"process {first.process.pid} on ") as info:
            fill(cube, store, **options)
        assert isinstance(info.value, OSError) and info.value.remedy
    assert len(markers(store)) < N
    first.kill()
    fill(cube, store)  # the lock of the dead holds nobody up
    check_whole(store, clean)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"date": "2023-05-06"}, "date"),
        ({"model": "median"}, "model"),
        ({"dilate": 2}, "mask"),
        ({"window": 20}, "window"),
        ({"shard": 64}, "shard"),
        ({"layers": None}, "layers"),
        ({"bands": ["B02"]}, "band"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_another_call_does_not_resume(cube, clean, tmp_path, options, said):
    store = tmp_path / "out.zarr"
    part_done(cube, store, 5)
    before = contents(store)
    with pytest.raises(errors.ChangedError) as info:
        fill(cube, store, **options)
    assert "overwrite=True" in info.value.remedy
    assert contents(store) == before and len(markers(store)) == 5
    fill(cube, store)
    check_whole(store, clean)


def test_another_cube_another_version_and_a_store_of_somebody_else_do_not_resume(cube, tmp_path, monkeypatch):
    mine, store = tmp_path / "cube.zarr", tmp_path / "out.zarr"
    shutil.copytree(cube, mine)
    part_done(mine, store, 5)
    with monkeypatch.context() as patch:
        for module in ("version", "labels", "runner.plan"):
            patch.setattr(f"xr_cloudfree.{module}.__version__", "0.0", raising=False)
        with pytest.raises(errors.ChangedError, match="version"):
            fill(mine, store)
    chunk = next(path for path in sorted(mine.rglob("reflectance/c/**/*")) if path.is_file())
    chunk.write_bytes(chunk.read_bytes())  # written again, some time later
    with pytest.raises(errors.ChangedError):
        fill(mine, store)
    with pytest.raises(errors.OutputError):  # a cube is not overwritten by chance
        fill(cube, mine)
    fill(mine, store, overwrite=True)
    assert verify(store).ok


def test_a_region_that_cannot_be_read_does_not_stop_the_others(cube, tmp_path):
    mine, store = tmp_path / "cube.zarr", tmp_path / "out.zarr"
    shutil.copytree(cube, mine)
    chunk = mine / "reflectance" / "c" / "2" / "0" / "1" / "1"
    whole, when = chunk.read_bytes(), chunk.stat()
    chunk.write_bytes(whole[: len(whole) // 2])
    # Once all others are done, what is wrong with the four regions that need it is told as it is.
    for error, told in ((errors.RunError, "14, 15, 20, 21"), (errors.InputError, "c/2/0/1/1")):
        with pytest.raises(error, match=told):
            fill(mine, store)
        assert len(markers(store)) == N - 4
    chunk.write_bytes(whole)
    os.utime(chunk, ns=(when.st_atime_ns, when.st_mtime_ns))
    fill(mine, store, overwrite=True)
    assert verify(store).ok


@pytest.fixture
def small_disk(tmp_path):
    folder = tmp_path / "disk"
    folder.mkdir()
    made = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True)
    if made.returncode:
        pytest.skip("a small disk can be made by root only")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def test_disk_full(cube, clean, small_disk):
    store = small_disk / "out.zarr"
    error = Child(fill, cube, store).error()
    assert isinstance(error, errors.OutputError) and "No space left" in str(error), error
    assert 0 < len(markers(store)) < N
    subprocess.run(["mount", "-o", "remount,size=64m", small_disk], check=True)
    fill(cube, store)
    check_whole(store, clean)


def _limited(cube, store):
    import resource

    resource.setrlimit(resource.RLIMIT_FSIZE, (1500, 1500))
    fill(cube, store)


def test_files_that_may_not_be_as_large(cube, clean, tmp_path):
    store = tmp_path / "out.zarr"
    error = Child(_limited, cube, store).error()
    assert isinstance(error, errors.OutputError), error
    assert not list(Path(store).rglob("*.partial"))
    fill(cube, store)
    check_whole(store, clean)


def _as_nobody(cube, store):
    xr_cloudfree.fill(runs.open_cube(cube).load(), HOW["date"], model="linear")  # what is loaded when first used
    if os.geteuid() == 0:
        os.setgroups([])
        os.setgid(65534)
        os.setuid(65534)
    fill(cube, store)


def test_a_folder_that_may_not_be_written_to(cube):
    folder = Path(tempfile.mkdtemp())
    try:
        shutil.copytree(cube, folder / "cube.zarr")
        folder.chmod(0o555)
        error = Child(_as_nobody, folder / "cube.zarr", folder / "out.zarr").error()
        assert isinstance(error, errors.OutputError) and "ermission" in str(error), error
        assert not (folder / "out.zarr").exists()
    finally:
        folder.chmod(0o755)
        shutil.rmtree(folder)


def test_a_cube_that_is_too_large_is_refused_before_anything_is_written(tmp_path):
    from tests.support.malformed import huge

    obj, options = huge()
    with pytest.raises(MemoryError, match="1000000000 x 1000000000"):
        xr_cloudfree.to_zarr(obj, tmp_path / "out.zarr", **options)
    assert not list(tmp_path.iterdir())
