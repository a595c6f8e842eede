"""Outputs that are partly lost, behind links, on full disks, or beside the remains of runs that were killed."""

import os
import shutil
import signal
import subprocess
import time
import warnings
from pathlib import Path

import numpy as np
import pytest
import rasterio

import xr_cloudfree
from tests.support import runs
from tests.support.cubes import contents
from tests.support.runs import HOW, Child, N, check_whole, fill_file
from xr_cloudfree import errors, io
from xr_cloudfree.runner import exports
from xr_cloudfree.runner.runs import prepare
from xr_cloudfree.runner.status import status
from xr_cloudfree.runner.store import Layout, sizes
from xr_cloudfree.runner.verify import verify
from xr_cloudfree.storage import files, geotiff
from xr_cloudfree.storage.folders import LocalFolder
from xr_cloudfree.storage.locations import journal_folder

pytestmark = pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs fork, SIGKILL and /proc")


@pytest.fixture(scope="module")
def whole(cube, tmp_path_factory):
    """A finished store."""
    store = tmp_path_factory.mktemp("whole") / "out.zarr"
    assert Child(fill_file, cube, store).error() is None
    return store


@pytest.fixture(scope="module")
def clean(whole):
    return contents(whole)


@pytest.fixture
def store(whole, tmp_path):
    """A copy of a finished store with its journal."""
    mine = tmp_path / "out.zarr"
    shutil.copytree(whole, mine)
    shutil.copytree(journal_folder(whole), journal_folder(mine))
    return mine


# -- what is lost


def lose_all(store):
    shutil.rmtree(store)
    return N


def lose_an_array(store):
    shutil.rmtree(store / "filled")
    return N


def lose_some(store):
    for row, column in ((0, 0), (3, 4), (5, 5)):
        (store / "reflectance" / "c" / "0" / str(row) / str(column)).unlink()
    return 3


def lose_a_row(store):
    shutil.rmtree(store / "filled" / "c" / "2")
    return 6


def empty_some(store):
    for column in range(2):
        (store / "filled" / "c" / "1" / str(column)).write_bytes(b"")
    return 2


LOSSES = [lose_all, lose_an_array, lose_some, lose_a_row, empty_some]


@pytest.mark.parametrize("lose", LOSSES, ids=lambda lose: lose.__name__)
def test_what_is_lost_is_filled_again_and_told(cube, store, clean, lose):
    number = lose(store)
    assert status(store).done == N - number and not status(store).finished
    with pytest.warns(errors.CloudfreeWarning, match=f"^{number} of {N} regions .* lack files"):
        fill_file(cube, store)
    check_whole(store, clean)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fill_file(cube, store)


def test_what_is_lost_while_others_are_filled_is_told_at_the_end(cube, store):
    run = prepare(str(cube), store, **HOW)
    lose_some(store)
    with pytest.raises(errors.StoreError, match=f"3 of {N} regions"):
        xr_cloudfree.runner.runs.finish(run)


def test_many_regions_are_looked_at_in_seconds(tmp_path):
    layout = Layout((320 * 8, 320 * 8), (8, 8), (("a", ()),))
    for row in range(320):
        (tmp_path / "a" / "c" / str(row)).mkdir(parents=True)
    for row in (0, 7, 319):
        for column in range(0, 320, 3):
            (tmp_path / "a" / "c" / str(row) / str(column)).write_bytes(b"123")
    start = time.perf_counter()
    number, size = sizes(LocalFolder(tmp_path), layout)
    assert time.perf_counter() - start < 5
    assert number.sum() == 3 * 107 and size.sum() == 9 * 107 and number[7 * 320 + 3] == 1
    assert layout.n_regions > 100_000


# -- links


def test_a_store_that_was_moved_behind_a_link(cube, store, clean, tmp_path):
    lose_some(store)
    (tmp_path / "scratch").mkdir()
    shutil.move(store, tmp_path / "scratch" / "elsewhere.zarr")
    store.symlink_to(tmp_path / "scratch" / "elsewhere.zarr")
    with pytest.warns(errors.CloudfreeWarning, match="3 of"):
        fill_file(cube, store)
    check_whole(store, clean)
    assert store.is_symlink() and len(status(store).text()) > 0


def test_a_link_to_a_store_that_has_its_journal_beside_it(cube, store, clean, tmp_path):
    link = tmp_path / "link.zarr"
    link.symlink_to(store)
    assert verify(link).ok
    fill_file(cube, link)
    assert not (tmp_path / "link.zarr.journal").exists()


@pytest.mark.parametrize("there", ["an empty folder", "nothing"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_link_to(cube, clean, tmp_path, there, overwrite):
    store, target = tmp_path / "out.zarr", tmp_path / "target.zarr"
    if there == "an empty folder":
        target.mkdir()
    store.symlink_to(target)
    fill_file(cube, store, overwrite=overwrite)
    check_whole(store, clean)
    assert store.is_symlink() and contents(target) == clean
    # A store of another run behind it is replaced, and the link is kept.
    fill_file(cube, store, overwrite=True, dilate=1)
    assert store.is_symlink() and verify(store).ok


def test_a_link_into_a_folder_that_is_gone(cube, store, clean, tmp_path):
    """As when scratch was purged: what to type is told, and is typed."""
    shutil.rmtree(store)
    store.symlink_to(tmp_path / "scratch disk" / "out.zarr")
    with pytest.raises(errors.OutputError, match="is a link to") as caught:
        fill_file(cube, store)
    subprocess.run(caught.value.remedy, shell=True, check=True)
    with pytest.warns(errors.CloudfreeWarning, match=f"{N} of {N}"):
        fill_file(cube, store)
    check_whole(store, clean)


def test_a_cluster_sees_a_store_behind_a_link(cube, store, clean, tmp_path):
    pytest.importorskip("distributed")
    from tests.support.clusters import cluster

    lose_some(store)
    shutil.move(store, tmp_path / "elsewhere.zarr")
    store.symlink_to("elsewhere.zarr")
    with cluster(workers=1, processes=False) as client, pytest.warns(errors.CloudfreeWarning, match="3 of"):
        xr_cloudfree.batch(str(cube), store, client=client, progress=False, **HOW)
    check_whole(store, clean)


@pytest.fixture(scope="module")
def image(cube):
    return xr_cloudfree.fill(runs.open_cube(cube), "2023-05-05", model="linear", layers="filled")


@pytest.fixture(scope="module")
def large(image):
    """Values that do not shrink much when they are compressed."""
    noise = np.random.default_rng(0).integers(1, 60000, image["reflectance"].shape, np.uint16)
    made = image.load().copy(deep=True)
    made["reflectance"] = made["reflectance"].copy(data=noise)
    return made


@pytest.mark.parametrize("ending", ["zarr", "tif"])
@pytest.mark.parametrize("there", ["something", "an empty folder", "nothing"])
def test_files_go_where_links_lead(tmp_path, image, ending, there):
    link, target = tmp_path / f"out.{ending}", tmp_path / "disk" / f"target.{ending}"
    target.parent.mkdir()
    if there == "something":
        io.write(image.isel(y=slice(0, 64)), target)
    elif there == "an empty folder":
        if ending == "tif":
            return
        target.mkdir()
    link.symlink_to(target)
    io.write(image, link, overwrite=there == "something")
    assert link.is_symlink() and target.exists()
    back = io.open_image(link, like=image)
    np.testing.assert_array_equal(back["filled"], image["filled"])
    back.close()
    assert not [path for path in tmp_path.rglob(".*")]


# -- disks that fill up


@pytest.fixture
def disk(tmp_path):
    """A disk whose size a function sets, in kB."""
    folder = tmp_path / "disk"
    folder.mkdir()

    def of(size):
        how = "remount," if os.path.ismount(folder) else ""
        made = subprocess.run(
            ["mount", "-t", "tmpfs", "-o", f"{how}size={size}k", "tmpfs", folder], capture_output=True
        )
        if made.returncode:
            pytest.skip("a small disk can be made by root only")
        return folder

    yield of
    subprocess.run(["umount", "-l", folder], check=False)  # GDAL may have a file open


@pytest.mark.parametrize("share", [0.1, 0.5, 0.9, "the last flush"])
@pytest.mark.parametrize("ending", ["zarr", "tif"])
def test_a_disk_that_fills_up_harms_nothing_that_is_there(disk, tmp_path, large, ending, share):
    """GDAL writes its last blocks when a file is closed, and does not say if they found no room."""
    reference = tmp_path / f"r.{ending}"
    io.write(large, reference)
    size = sum(len(data) for data in contents(tmp_path).values()) // 1024
    folder = disk(10 * size)
    out = folder / f"out.{ending}"
    io.write(large.isel(y=slice(0, 64)), out)
    used = sum(-(-len(data) // 4096) * 4 for data in contents(folder).values())
    before = contents(folder)
    disk(used + (size - 16 if share == "the last flush" else int(share * size)))
    with pytest.raises(errors.OutputError, match=f"out.{ending} cannot be written"):
        io.write(large, out, overwrite=True)
    assert contents(folder) == before and not list(folder.rglob(".*"))
    disk(20 * size)
    io.write(large, out, overwrite=True)
    assert contents(folder).keys() - before.keys() == set() or ending == "zarr"
    back = io.open_image(out, like=large)
    np.testing.assert_array_equal(back["filled"], large["filled"])
    back.close()


def test_a_disk_that_fills_up_under_a_cloud_optimized_geotiff(disk, store):
    folder = disk(20_000)
    there = folder / "out.zarr"
    shutil.copytree(store, there)
    shutil.copytree(journal_folder(store), journal_folder(there))
    old = exports.write_cogs(there)
    before = {path: path.read_bytes() for path in old}
    used = 4 * sum(-(-len(data) // 4096) for data in contents(folder).values())
    for room in (16, 100, 140):  # the plain file does not fit, and then the one that is made of it
        disk(used + room)
        with pytest.raises(errors.OutputError, match="cannot be written"):
            exports.write_cogs(there, overwrite=True)
        assert {path: path.read_bytes() for path in old} == before and not list(folder.glob(".*"))
    disk(20_000)
    assert exports.write_cogs(there, overwrite=True) == old
    assert {path: path.read_bytes() for path in old} == before


def test_a_disk_that_fills_up_under_any_other_file(disk):
    """As tables and pictures are written."""
    folder = disk(64)
    (folder / "table.csv").write_text("old")
    for size in (100_000, 10_000):
        if size == 100_000:
            with pytest.raises(errors.OutputError, match=r"table\.csv cannot be written: No space left"):
                with files.aside([folder / "table.csv"]) as parts:
                    parts[folder / "table.csv"].write_bytes(b"1" * size)
            assert contents(folder) == {"table.csv": b"old"}
        else:
            with files.aside([folder / "table.csv"]) as parts:
                parts[folder / "table.csv"].write_bytes(b"1" * size)
    assert len(contents(folder)["table.csv"]) == 10_000


def test_errors_of_what_is_read_are_not_those_of_the_output(tmp_path):
    with pytest.raises(FileNotFoundError), files.aside([tmp_path / "out.csv"]):
        open(tmp_path / "is-not-there")


def test_a_raster_that_reads_otherwise_is_not_the_same(tmp_path, image):
    io.write(image, tmp_path / "a.tif")
    shutil.copy(tmp_path / "a.tif", tmp_path / "b.tif")
    assert geotiff.same_raster(tmp_path / "b.tif", tmp_path / "a.tif")
    with rasterio.open(tmp_path / "b.tif", "r+") as file:
        values = file.read(1)
        values[3, 3] += 1
        file.write(values, 1)
    assert not geotiff.same_raster(tmp_path / "b.tif", tmp_path / "a.tif")
    shutil.copy(tmp_path / "a.tif", tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif", "r+") as file:
        file.scales = [2.0] * file.count
    assert not geotiff.same_raster(tmp_path / "b.tif", tmp_path / "a.tif")
    data = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "b.tif").write_bytes(data[: len(data) // 2])
    assert not geotiff.same_raster(tmp_path / "b.tif", tmp_path / "a.tif")


# -- what the dead left


def write_until(out, cube, locks, where):
    """Write an image, and stay there when it is being written (or between the two steps of replacing a folder)."""
    if not locks:
        import fcntl

        fcntl.flock = runs.without_locks()
    made = xr_cloudfree.fill(runs.open_cube(cube), "2023-05-05", model="linear", layers="filled")
    if where == "while it is written":
        files._sync = lambda path: time.sleep(600)
    else:
        real = os.replace
        os.replace = lambda part, to: time.sleep(600) if to == out else real(part, to)
    io.write(made, out, overwrite=True)


def hidden(folder):
    return [path for path in folder.iterdir() if path.name.startswith(".out.")]


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM], ids=["SIGKILL", "SIGTERM"])
@pytest.mark.parametrize("locks", [True, False], ids=["locks", "no locks"])
@pytest.mark.parametrize("ending", ["zarr", "tif"])
def test_the_next_run_removes_what_one_that_died_has_left(cube, image, tmp_path, monkeypatch, ending, locks, number):
    out = tmp_path / f"out.{ending}"
    (tmp_path / ".out.zarr-mine0000").mkdir()  # of somebody else
    if not locks:
        fcntl = pytest.importorskip("fcntl")
        monkeypatch.setattr(fcntl, "flock", runs.without_locks())
    child = Child(write_until, out, cube, locks, "while it is written")
    until = time.monotonic() + 60
    while not [path for folder in hidden(tmp_path) for path in folder.glob("out*")]:
        assert time.monotonic() < until and child.process.is_alive()
        time.sleep(0.01)
    alive = {path.name for path in hidden(tmp_path)}
    io.write(image, out, overwrite=True)
    assert {path.name for path in hidden(tmp_path)} == alive  # its writer lives
    child.send(number)
    assert child.wait() == -number
    assert {path.name for path in hidden(tmp_path)} == alive
    io.write(image, out, overwrite=True)
    assert [path.name for path in hidden(tmp_path)] == [".out.zarr-mine0000"]


def test_a_store_that_was_being_replaced_comes_back(cube, image, tmp_path):
    out = tmp_path / "out.zarr"
    io.write(image, out)
    before = contents(out)
    child = Child(write_until, out, cube, True, "between")
    until = time.monotonic() + 60
    while out.exists():
        assert time.monotonic() < until and child.process.is_alive()
        time.sleep(0.01)
    assert child.kill() == -signal.SIGKILL
    with pytest.raises(ZeroDivisionError), files.aside([out]):
        raise ZeroDivisionError
    assert contents(tmp_path) == {f"out.zarr/{key}": data for key, data in before.items()}


def test_partial_files_of_the_dead_are_removed_and_those_of_the_living_stay(cube, store, clean):
    row = store / "filled" / "c" / "0"
    dead, here = 2**22 + 1, files.machine()
    gone = [row / f"0.{here}-{dead}-1.partial", journal_folder(store) / f"run.json.{here}-{dead}-1.partial"]
    old = row / "0.00000000-1-1.partial"
    stay = [row / f"0.{here}-{os.getppid()}-1.partial", row / "0.00000001-1-1.partial"]
    for path in (*gone, old, *stay):
        path.write_text("1")
    os.utime(old, (1, 1))
    fill_file(cube, store)
    assert not any(path.exists() for path in (*gone, old)) and all(path.exists() for path in stay)
    for path in stay:
        path.unlink()
    check_whole(store, clean)
