"""A store that grows: dates are added to it, and it becomes what one call with all dates would have written."""

import ast
import os
import re
import signal

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support import runs as support
from tests.support.commands import run as typed
from tests.support.cubes import as_dataset, contents, make_cube
from tests.support.runs import Child
from xr_cloudfree import errors, io, stores
from xr_cloudfree.runner import local, regions, runs
from xr_cloudfree.runner.additions import prepare_addition
from xr_cloudfree.runner.journal import Journal
from xr_cloudfree.runner.status import status
from xr_cloudfree.runner.verify import repair, store_digest, verify

# Observed, not observed, before the others.
DATES = ["2021-06-03", "2021-06-15", "2021-05-20"]
HOW = {"model": "linear", "layers": "filled", "nodata": 0, "shard": 40}


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """A cube in a store."""
    path = tmp_path_factory.mktemp("cube") / "cube.zarr"
    io.for_zarr(as_dataset(*make_cube(dtype="uint16")).drop_vars("platform")).to_zarr(path, consolidated=False)
    return path


def add(cube, store, date, **options):
    return xr_cloudfree.to_zarr(cube, store, date, append=True, **HOW | options)


def whole(cube, store, dates=DATES, **options):
    """What one call with all dates writes."""
    xr_cloudfree.to_zarr(cube, store, dates, **HOW | options)
    return contents(store)


def assert_is(store, expected):
    assert contents(store) == expected and verify(store).ok


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"layers": "all"},
        {"model": "median", "window": 20},
        {"repair": True, "window": 25},
        {"model": "regress", "shard": 320},
    ],
    ids=["linear", "all layers", "window", "repair", "regress"],
)
def test_a_store_that_has_grown_is_that_of_one_call(path, tmp_path, options):
    expected = whole(path, tmp_path / "whole.zarr", **options)
    store = tmp_path / "out.zarr"
    add(path, store, DATES[0], **options)
    first = contents(store)
    for date in DATES[1:]:
        grown = add(path, store, date, **options)
    assert_is(store, expected)
    assert store_digest(store) == store_digest(tmp_path / "whole.zarr")
    xr.testing.assert_identical(grown.load(), io.open_store(tmp_path / "whole.zarr").load())
    shards = {key: data for key, data in first.items() if "/c/" in key and not key.startswith("time/")}
    assert shards.items() <= expected.items()
    xr_cloudfree.to_zarr(path, store, DATES, **HOW | options)  # the same run by now


def test_only_the_new_dates_are_filled_and_once(path, tmp_path, monkeypatch):
    store = tmp_path / "out.zarr"
    add(path, store, DATES[:2])
    filled, real = [], regions.run_region

    def count(job, *arguments, **options):
        filled.append(len(job.targets.times))
        return real(job, *arguments, **options)

    monkeypatch.setattr(regions, "run_region", count)
    before = {key: (store / key).stat().st_mtime_ns for key in contents(store) if key.startswith("B04/c/")}
    add(path, store, DATES)
    assert set(filled) == {1}
    assert all((store / key).stat().st_mtime_ns == when for key, when in before.items())
    monkeypatch.setattr(local, "fill_region", None)
    add(path, store, DATES[1])  # it has that
    add(path, store, DATES)


def test_counts_of_pixels_are_added(path, tmp_path):
    whole(path, tmp_path / "whole.zarr")
    for date in DATES:
        add(path, tmp_path / "out.zarr", date)
    assert status(tmp_path / "out.zarr").pixels == status(tmp_path / "whole.zarr").pixels


def test_a_cube_in_memory_and_spans(tmp_path):
    da, clear = make_cube(dtype="uint16")
    expected = whole(da, tmp_path / "whole.zarr", [*DATES[:1], *map(str, da.time.values[:3])], clear=clear)
    add(da, tmp_path / "out.zarr", DATES[0], clear=clear)
    add(da, tmp_path / "out.zarr", slice(da.time.values[0], da.time.values[2]), clear=clear)
    assert_is(tmp_path / "out.zarr", expected)


class TestInterrupted:
    @pytest.mark.parametrize(
        ("how", "n"), [("the same call", 2), ("resume", 2), ("all dates", 3), ("repair", 1), ("the same call", 4)]
    )
    def test_and_continued(self, path, tmp_path, how, n):
        expected, store = whole(path, tmp_path / "whole.zarr"), tmp_path / "out.zarr"
        add(path, store, DATES[:1])
        finished = contents(store)
        run = prepare_addition(path, store, DATES[1:], **HOW)
        with runs.started(run) as missing:
            assert len(missing) == run.plan.n_regions
            local.fill_locally(run, missing[:n])
        report = verify(store)
        assert not report.problems and len(report.unfinished) == run.plan.n_regions - n
        # Readers see what was there.
        assert {key: data for key, data in contents(store).items() if key in finished} == finished
        assert io.open_store(store).sizes["time"] == 1 and io.open_store(store).load() is not None
        {
            "the same call": lambda: add(path, store, DATES[1:]),
            "resume": lambda: stores.resume(store, progress=False),
            "all dates": lambda: whole(path, store),
            "repair": lambda: repair(store),
        }[how]()
        assert_is(store, expected)

    def test_only_the_new_dates_are_filled_by_resume(self, path, tmp_path, monkeypatch):
        store = tmp_path / "out.zarr"
        add(path, store, DATES[:1])
        with runs.started(prepare_addition(path, store, DATES[1:], **HOW)):
            pass
        kept = (store / "B04/c/0/1/1").stat().st_mtime_ns
        stores.resume(store, progress=False)
        assert (store / "B04/c/0/1/1").stat().st_mtime_ns == kept

    @pytest.mark.parametrize("damage", ["lost", "flipped"])
    def test_and_damaged(self, path, tmp_path, damage):
        """Dates that the store had are filled again where they are lost."""
        expected, store = whole(path, tmp_path / "whole.zarr"), tmp_path / "out.zarr"
        add(path, store, DATES[:1])
        with runs.started(prepare_addition(path, store, DATES[1:], **HOW)):
            pass
        shard = store / "B04/c/0/1/1"
        data = shard.read_bytes()
        if damage == "lost":
            shard.unlink()
        else:
            shard.write_bytes(data[:9] + bytes([data[9] ^ 1]) + data[10:])
        assert verify(store).regions == (3,)
        if damage == "lost":
            with pytest.warns(errors.CloudfreeWarning, match="1 of 4 regions .* lack files"):
                add(path, store, DATES[1:])
        else:
            repair(store)
        assert_is(store, expected)

    def test_other_dates_wait_until_it_is_finished(self, path, tmp_path):
        store = tmp_path / "out.zarr"
        add(path, store, DATES[0])
        with runs.started(prepare_addition(path, store, DATES[1], **HOW)):
            pass
        with pytest.raises(errors.StoreError, match=r"4 of 4 regions .* are not done") as caught:
            add(path, store, DATES[2])
        assert f"cloudfree resume {store}" in caught.value.remedy
        stores.resume(store, progress=False)
        add(path, store, DATES[2])
        assert_is(store, whole(path, tmp_path / "whole.zarr"))

    @pytest.mark.skipif(not os.path.isdir("/proc/self/fd"), reason="needs fork and SIGKILL")
    @pytest.mark.parametrize("where", ["run.json", "0000002.json", "time/c/0", "out.zarr/zarr.json", "finished.json"])
    def test_by_kill(self, path, tmp_path, where):
        expected, store = whole(path, tmp_path / "whole.zarr"), tmp_path / "out.zarr"
        add(path, store, DATES[:1])
        assert Child(add_until, path, store, where).wait() == -signal.SIGKILL
        assert not verify(store).problems
        add(path, store, DATES[1:])
        assert_is(store, expected)


def add_until(path, store, where):
    """Add dates, and die before a file is put in place."""
    real = os.replace

    def deadly(source, target):
        if str(target).endswith(where):
            support.kill_self()
        real(source, target)

    os.replace = deadly
    add(path, store, DATES[1:])


class TestRefused:
    @pytest.mark.parametrize("other", [{"model": "median"}, {"layers": None}, {"shard": 32}, {"dilate": 1}])
    def test_other_settings(self, path, tmp_path, other):
        add(path, tmp_path / "out.zarr", DATES[0])
        before = contents(tmp_path / "out.zarr")
        with pytest.raises(errors.ChangedError):
            add(path, tmp_path / "out.zarr", DATES[1], **other)
        assert contents(tmp_path / "out.zarr") == before and verify(tmp_path / "out.zarr").ok

    def test_another_cube(self, tmp_path):
        (da, clear), (other, _) = make_cube(dtype="uint16"), make_cube(1, dtype="uint16")
        add(da, tmp_path / "out.zarr", DATES[0], clear=clear)
        with pytest.raises(errors.ChangedError, match="values of the cube: changed since"):
            add(other, tmp_path / "out.zarr", DATES[1], clear=clear)

    @pytest.mark.parametrize("date", [DATES[1], "1999-01-01", None, "2020-06", slice("2020-05", "2020-07")])
    def test_another_cube_is_told_before_its_dates(self, path, tmp_path, date):
        """Whatever the dates of the cube and of the call are; with what differs, and a way that loses nothing."""
        other, store = tmp_path / "other.zarr", tmp_path / "out.zarr"
        ds = xr.open_zarr(path, consolidated=False)
        moved = ds.assign_coords(x=ds.x + 1000, time=ds.time - np.timedelta64(3650, "D")).isel(y=slice(40))
        io.for_zarr(moved.load()).to_zarr(other, consolidated=False)
        add(path, store, DATES[0])
        before = contents(store)
        for cube in (other, io.open_cube(other)):
            with pytest.raises(errors.ChangedError) as caught:
                add(cube, store, date)
            for words in (
                f"cube: '{path}' then, '{other}' now",
                "53 x 61 pixels",
                "40 x 61 pixels",
                "x 500",
                "2011-05",
            ):
                assert words in caught.value.found
        safe = eval(f"dict({str(caught.value.remedy).split(' for a store')[0]})")
        assert safe == {"store": str(tmp_path / "out-2.zarr")}
        assert "append=False, overwrite=True" in caught.value.remedy.split("or the call")[1]
        assert contents(store) == before
        add(other, **safe, date=None)

    def test_other_dates_of_the_same_cube_are_told_as_such(self, path, tmp_path):
        add(path, tmp_path / "out.zarr", DATES[0])
        with pytest.raises(errors.TimeError):
            add(path, tmp_path / "out.zarr", "1999-01-01")
        with pytest.raises(errors.ChangedError, match="dates: ") as caught:
            xr_cloudfree.to_zarr(path, tmp_path / "out.zarr", DATES[:2], **HOW)
        assert caught.value.remedy.startswith("append=True")
        xr_cloudfree.to_zarr(path, tmp_path / "out.zarr", DATES[:2], **HOW, append=True)

    def test_a_store_of_a_single_date(self, path, tmp_path):
        xr_cloudfree.to_zarr(path, tmp_path / "out.zarr", DATES[0], **HOW)
        with pytest.raises(errors.OutputError, match="without an axis of dates") as caught:
            add(path, tmp_path / "out.zarr", DATES[1])
        remedy = re.fullmatch(r"date=(\[.*\]), append=False, overwrite=True, .*", caught.value.remedy)
        dates = ast.literal_eval(remedy[1])
        assert [date[:10] for date in dates] == list(DATES[:2])
        xr_cloudfree.to_zarr(path, tmp_path / "out.zarr", dates, append=False, overwrite=True, **HOW)
        assert xr.open_zarr(tmp_path / "out.zarr").sizes["time"] == 2

    @pytest.mark.parametrize("given", [{"overwrite": True}, {"resume": False}])
    def test_contradictions(self, path, tmp_path, given):
        with pytest.raises(errors.OptionError, match="append=True was given with"):
            add(path, tmp_path / "out.zarr", DATES[0], **given)


def test_on_a_cluster_and_by_command(path, tmp_path):
    distributed = pytest.importorskip("distributed")
    store = tmp_path / "out.zarr"
    with (
        distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        for date in DATES[:2]:
            xr_cloudfree.batch(path, store, date, append=True, client=client, progress=False, **HOW)
    typed(
        "batch",
        path,
        "--out",
        store,
        "--date",
        DATES[2],
        "-m",
        "linear",
        "--shard",
        40,
        "--nodata",
        0,
        "--append",
        "-q",
    )
    assert_is(store, whole(path, tmp_path / "whole.zarr"))
    assert Journal(store).begun()["dates"][2].startswith(DATES[2])
