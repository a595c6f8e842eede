"""Damage to a finished store: `verify` finds all of it, and `repair` restores the same bytes.

150 flipped bits, 50 truncated files, 50 deleted files, 50 bad markers: 300 of 300.
"""

import json
import random
import shutil
from pathlib import Path

import pytest
import xarray as xr

from tests.support import runs
from tests.support.cubes import contents
from tests.support.runs import Child, N, markers
from tests.support.runs import fill_file as fill
from xr_cloudfree import errors
from xr_cloudfree.engine.grid import Box
from xr_cloudfree.runner.runs import prepare
from xr_cloudfree.runner.verify import repair, verify
from xr_cloudfree.storage.locations import journal_folder

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs fork, SIGKILL and /proc"),
]


@pytest.fixture(scope="module")
def store(cube, tmp_path_factory):
    """A finished store, which each test leaves as it was."""
    path = tmp_path_factory.mktemp("store") / "out.zarr"
    assert Child(fill, cube, path).error() is None
    assert verify(path).ok
    return path


@pytest.fixture(scope="module")
def clean(store):
    return contents(store)


def files_of(store):
    return [path for path in sorted(Path(store).rglob("*")) if path.is_file()]


def flip(path, chance):
    data = bytearray(path.read_bytes())
    data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
    path.write_bytes(data)


def truncate(path, chance):
    data = path.read_bytes()
    path.write_bytes(data[: chance.randrange(len(data))])


def delete(path, chance):
    path.unlink()


def spoil_marker(path, chance):
    """What can become of a marker: damaged, empty, of another region, with a digest that somebody wrote by hand."""
    told = json.loads(path.read_text())
    way = chance.randrange(5)
    if way == 0:
        flip(path, chance)
    elif way == 1:
        truncate(path, chance)
    elif way == 2:
        path.write_bytes(b"")
    elif way == 3:
        others = [other for other in path.parent.glob("*.json") if other != path]
        path.write_bytes(chance.choice(others).read_bytes())
    else:
        key = chance.choice(sorted(told["files"]))
        told["files"][key] = "0" * 64
        path.write_text(json.dumps(told, indent=1, sort_keys=True) + "\n")


DAMAGE = {
    "flipped bits": (150, flip, files_of),
    "truncated files": (50, truncate, files_of),
    "deleted files": (50, delete, files_of),
    "bad markers": (50, spoil_marker, markers),
}


@pytest.mark.parametrize("kind", DAMAGE)
def test_every_damage_is_found(store, clean, kind):
    number, spoil, among = DAMAGE[kind]
    chance, found = random.Random(0), 0
    for _ in range(number):
        path = chance.choice(among(store))
        before = path.read_bytes()
        spoil(path, chance)
        told = verify(store)
        found += not told.ok and len(told.problems) == 1
        path.write_bytes(before)
    assert found == number
    assert verify(store).ok and contents(store) == clean


@pytest.mark.parametrize("kind", DAMAGE)
def test_repair_heals_to_the_same_bytes(store, clean, kind):
    """Many at once: as many as there are, at most half of the files."""
    number, spoil, among = DAMAGE[kind]
    chance = random.Random(1)
    there = among(store)
    for path in chance.sample(there, min(number, len(there) // 2)):
        spoil(path, chance)
    assert not repair(store).ok  # what was wrong
    assert contents(store) == clean and verify(store).ok
    assert len(markers(store)) == N


def test_repair_does_only_what_is_needed(store, clean):
    chance = random.Random(2)
    path = store / "reflectance" / "c" / "0" / "3" / "3"
    before = {path: path.stat().st_mtime_ns for path in files_of(store)}
    flip(path, chance)
    assert repair(store).regions == (21,)
    touched = {path for path in files_of(store) if path.stat().st_mtime_ns != before[path]}
    assert touched <= {path, store / "filled" / "c" / "3" / "3", store / "zarr.json"}
    assert contents(store) == clean


def test_a_flipped_bit_is_an_error_for_whoever_reads_it(store, clean):
    """Also without `verify`: every chunk and the index of every shard carry a checksum. 150 of 150."""
    chance, caught = random.Random(3), 0
    shards = sorted((store / "reflectance" / "c").rglob("*"))
    shards = [path for path in shards if path.is_file()]
    for _ in range(150):
        path = chance.choice(shards)
        before = path.read_bytes()
        flip(path, chance)
        try:
            xr.open_zarr(store, chunks=None).load()
        except Exception:
            caught += 1
        path.write_bytes(before)
    assert caught == 150


def test_no_chunk_is_left_out_because_nothing_is_known_there(cube, tmp_path):
    """Chunks of nothing but nodata are written, so that one that is lost can be told from them."""
    store, ds = tmp_path / "out.zarr", runs.open_cube(cube)
    nothing = xr.zeros_like(ds["cloud_mask"], dtype=bool)
    runs.xr_cloudfree.to_zarr(ds["reflectance"], store, clear=nothing, **runs.HOW)
    image = xr.open_zarr(store, mask_and_scale=False).load()
    assert (image["reflectance"] == 0).all() and (image["filled"] == 0).all()
    shards = [path for path in files_of(store) if path.name.isdecimal() and path.parent.parent.parent.name == "c"]
    assert len(shards) == N and all(path.stat().st_size > 100 for path in shards)
    victim = shards[7]
    victim.unlink()
    assert not verify(store).ok


def unaligned(chance):
    """A box that is no region."""
    while True:
        y0, x0 = chance.randrange(0, 184, 8), chance.randrange(0, 184, 8)
        y1, x1 = y0 + chance.randrange(8, 72, 8), x0 + chance.randrange(8, 72, 8)
        whole = y0 % 32 == x0 % 32 == 0 and y1 - y0 == x1 - x0 == 32
        if not whole and max(y1, x1) <= runs.EDGE:
            return Box(y0, y1, x0, x1)


@pytest.mark.parametrize("number", range(20))
def test_regions_that_are_no_whole_shards_are_refused(cube, tmp_path, number):
    plan = prepare(runs.open_cube(cube), tmp_path / "out.zarr", **runs.HOW).plan
    box = unaligned(random.Random(number))
    with pytest.raises(errors.StoreError, match="not a whole shard") as info:
        plan.layout.index(box)
    assert isinstance(info.value, OSError) and info.value.remedy


@pytest.mark.parametrize("part", ["run.json", "done", "everything"])
def test_a_journal_that_is_lost_or_damaged(cube, store, clean, tmp_path, part):
    mine = tmp_path / "out.zarr"
    shutil.copytree(store, mine)
    shutil.copytree(journal_folder(store), journal_folder(mine))
    folder = journal_folder(mine)
    if part == "run.json":
        flip(folder / "run.json", random.Random(4))
        with pytest.raises(errors.StoreError, match=r"run\.json"):
            verify(mine)
        fill(cube, mine, overwrite=True)
    elif part == "done":
        shutil.rmtree(folder / "done")
        assert {problem.what for problem in verify(mine).problems} == {"missing"}
        assert len(repair(mine).regions) == N
    else:
        shutil.rmtree(folder)
        with pytest.raises(errors.CloudfreeError):
            verify(mine)
        fill(cube, mine, overwrite=True)
    assert contents(mine) == clean and verify(mine).ok
