"""Write, kill, resume, damage, verify and repair in any order: `verify` reports the true state of the store."""

import os
import random
import shutil
import tempfile
import time
from functools import cache
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

import xr_cloudfree
from tests.support.cubes import contents
from xr_cloudfree import errors, io, synthetic
from xr_cloudfree.runner.journal import Journal
from xr_cloudfree.runner.verify import repair, verify
from xr_cloudfree.storage.folders import PARTIAL

HOW = {"date": "2023-05-05", "model": "linear", "shard": 16, "layers": ["filled"]}
N = 6
# Regions are done by threads: what a killed run leaves differs from one time to the next. So no rule is chosen and
# nothing is drawn by what is in the store, or hypothesis could not play a history again.
SEEDS = st.integers(0, 2**32 - 1)


class Killed(BaseException):
    """In place of SIGKILL, which the tests in tests/faults send: nothing that catches errors catches it."""


class Folder:
    """A cube, and the bytes that a run which nothing disturbed makes of it."""

    def __init__(self):
        self.kept = tempfile.TemporaryDirectory()
        self.path = Path(self.kept.name)
        self.cube, clean = self.path / "cube.zarr", self.path / "clean.zarr"
        ds = synthetic.cube(shape=(4, 1, 32, 48))
        ds["reflectance"].encoding["grid_mapping"] = "spatial_ref"
        io.for_zarr(ds).to_zarr(self.cube, zarr_format=3, consolidated=False)
        fill(self.cube, clean)
        self.clean = contents(clean)


def fill(cube, store, **options):
    xr_cloudfree.to_zarr(cube, store, **HOW | options)


@cache
def folder():
    return Folder()


def region(key):
    """The region that a file of the store belongs to; none for metadata, coordinates and what a killed writer left."""
    name, _, rest = key.partition("/c/")
    if name not in ("reflectance", "filled") or key.endswith(PARTIAL):
        return None
    row, column = map(int, rest.split("/")[-2:]) if rest else (0, None)
    return None if column is None else row * 3 + column


def spoil(path, way, chance):
    data = bytearray(path.read_bytes())
    if way == "delete":
        path.unlink()
    elif data:
        if way == "flip":
            data[chance.randrange(len(data))] ^= 1 << chance.randrange(8)
        else:
            del data[chance.randrange(len(data)) :]
        path.write_bytes(data)


class Store(RuleBasedStateMachine):
    """One store. What is wrong with it is told by comparing its bytes with those of the clean run."""

    @initialize()
    def begin(self):
        self.path = folder().path / f"{time.monotonic_ns():x}.zarr"
        self.journal = Journal(self.path)
        self.spoiled = {}

    def teardown(self):
        if not hasattr(self, "path"):
            return
        shutil.rmtree(self.path, ignore_errors=True)
        shutil.rmtree(self.journal.folder.path, ignore_errors=True)

    def marker(self, index):
        return self.journal.folder.path / self.journal.marker(index)

    @property
    def begun(self):
        return self.journal.folder.exists("run.json")

    def bad_markers(self):
        return {i for i, data in self.spoiled.items() if (m := self.marker(i)).exists() and m.read_bytes() == data}

    def marked(self):
        return {i for i in range(N) if self.marker(i).exists()}

    def damaged(self):
        """Files of regions with a good marker that are not as in the clean run."""
        there, good = contents(self.path), self.marked() - self.bad_markers()
        return {key for key, data in folder().clean.items() if region(key) in good and there.get(key) != data}

    @rule(n=st.integers(1, 30), before=st.booleans())
    def fill_and_be_killed(self, n, before):
        """The n-th file is not put in place, or is the last that was."""
        real, met = os.replace, []

        def deadly(*arguments):
            met.append(1)
            if len(met) == n and before:
                raise Killed
            real(*arguments)
            if len(met) == n:
                raise Killed

        os.replace = deadly
        try:
            fill(folder().cube, self.path)
        except Killed:
            pass
        finally:
            os.replace = real

    @rule()
    def fill_to_the_end(self):
        """Does what is not marked or lacks a file, and trusts the rest."""
        before = self.damaged() if self.begun else set()
        there, clean = contents(self.path), folder().clean
        lost = {region(key) for key in before if len(there.get(key, b"")) != len(clean[key])}
        before = {key for key in before if region(key) not in lost}
        fill(folder().cube, self.path)
        assert self.marked() == set(range(N)) and not self.bad_markers()
        assert self.damaged() == before and verify(self.path).ok == (not before)

    @rule(seed=SEEDS, way=st.sampled_from(["flip", "cut", "delete"]))
    def damage(self, seed, way):
        chance = random.Random(seed)
        there = [key for key in sorted(contents(self.path)) if region(key) in self.marked()]
        if there:
            spoil(self.path / chance.choice(there), way, chance)

    @rule(seed=SEEDS, way=st.sampled_from(["flip", "cut"]))
    def spoil_a_marker(self, seed, way):
        chance = random.Random(seed)
        if self.marked():
            index = chance.choice(sorted(self.marked()))
            spoil(self.marker(index), way, chance)
            self.spoiled[index] = self.marker(index).read_bytes()

    @rule(anew=st.booleans())
    def mend(self, anew):
        """Repair, or fill anew."""
        if not self.begun:
            return
        if anew:
            fill(folder().cube, self.path, overwrite=True)
        else:
            repair(self.path)
        assert verify(self.path).ok and contents(self.path) == folder().clean

    @rule()
    def another_call_is_refused(self):
        if not self.begun:
            return
        before = contents(self.path)
        with pytest.raises(errors.ChangedError):
            fill(folder().cube, self.path, dilate=1)
        assert contents(self.path) == before

    @invariant()
    def verify_tells_what_is_wrong(self):
        if not hasattr(self, "path") or not self.begun:
            return
        found = verify(self.path)
        told = {problem.key for problem in found.problems}
        assert {key for key in told if region(key) is not None} == self.damaged()
        assert {p.region for p in found.problems if p.what == "damaged"} == self.bad_markers()
        assert set(found.unfinished) == set(range(N)) - self.marked()
        if found.ok and self.journal.is_finished:  # its metadata are put together in the end
            assert contents(self.path) == folder().clean


TestStore = pytest.mark.slow(
    pytest.mark.filterwarnings("ignore:.* lack files:xr_cloudfree.errors.CloudfreeWarning")(Store.TestCase)
)
TestStore.settings = settings(
    max_examples=20, stateful_step_count=12, deadline=None, suppress_health_check=list(HealthCheck)
)
