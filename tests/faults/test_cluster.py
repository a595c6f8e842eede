"""Runs on a cluster whose workers and drivers are killed write the bytes of an undisturbed run."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import dask
import numpy as np
import pytest
import rioxarray  # noqa: F401  for `.rio`
import xarray as xr

import xr_cloudfree
from tests.support import runs
from tests.support.cubes import contents
from tests.support.runs import Child, N, check_whole, markers
from tests.support.work import Slow
from xr_cloudfree import errors
from xr_cloudfree.runner.verify import verify

distributed = pytest.importorskip("distributed")
from tests.support.clusters import KillSome, cluster, pids  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("clusters"),
    pytest.mark.skipif(not Path("/proc/self/fd").is_dir(), reason="needs fork, SIGKILL and /proc"),
    # Workers that are killed leave connections behind.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]
HOW = runs.HOW | {"model": Slow(0.2)}


def batch(cube, store, client, **options):
    return xr_cloudfree.batch(runs.open_cube(cube), store, client=client, progress=False, **HOW | options)


def drive(cube, store, address):
    """What the driver does, in a process of its own."""
    with distributed.Client(address) as client:
        batch(cube, store, client)


@pytest.fixture(scope="module")
def clean(cube, tmp_path_factory):
    """The bytes that one machine writes, without a cluster."""
    store = tmp_path_factory.mktemp("clean") / "out.zarr"
    xr_cloudfree.to_zarr(runs.open_cube(cube), store, **HOW | {"model": Slow(0)})
    return contents(store)


def strike_at(store, shares, client, struck):
    """Kill a worker when so many regions are done."""
    for share in shares:
        while len(markers(store)) < share * N:
            time.sleep(0.005)
        victim = pids(client)[0]
        os.kill(victim, signal.SIGKILL)
        struck.append(victim)


def test_kill_a_worker_at_20_45_and_70_percent(cube, clean, tmp_path):
    store, struck = tmp_path / "out.zarr", []
    with dask.config.set({"distributed.scheduler.allowed-failures": 10}), cluster() as client:
        striker = threading.Thread(target=strike_at, args=(store, (0.2, 0.45, 0.7), client, struck))
        striker.start()
        batch(cube, store, client)
        striker.join()
    assert len(set(struck)) == 3
    check_whole(store, clean)


def test_kill_the_driver_then_resume_on_the_same_cluster(cube, clean, tmp_path):
    store = tmp_path / "out.zarr"
    with cluster() as client:
        driver = Child(drive, cube, store, client.scheduler.address)
        runs.wait_for_markers(store, 0.4 * N, driver)
        driver.send(signal.SIGSTOP)
        with pytest.raises(errors.LockedError):
            batch(cube, store, client)
        assert driver.kill() == -signal.SIGKILL
        assert 0.4 * N <= len(markers(store)) < N
        batch(cube, store, client)
    check_whole(store, clean)


@pytest.mark.parametrize("mode", ["sys.exit", "graceful", "segfault"])
def test_workers_that_die_at_random(cube, clean, tmp_path, mode):
    store = tmp_path / "out.zarr"
    with dask.config.set({"distributed.scheduler.allowed-failures": 30}), cluster(again=True) as client:
        before = set(pids(client))
        client.register_plugin(KillSome(tmp_path / "killed", "2 s", mode))
        batch(cube, store, client, model=Slow(0.5))
        written_by = {json.loads(path.read_text())["process"].rpartition(":")[2] for path in markers(store)}
    assert {int(pid) for pid in written_by} - before  # others than the first workers
    check_whole(store, clean)


def make_large(path):
    """24 dates of 4096 x 4096 pixels, one band of uint16: a pattern that is made and decoded fast."""
    rng = np.random.default_rng(0)
    edge, part, dates = 4096, 512, 24
    times = np.datetime64("2023-04-01", "ns") + np.arange(dates) * np.timedelta64(10, "D")
    grid = {"y": 4_400_000 - 10.0 * np.arange(edge), "x": 500_000 + 10.0 * np.arange(edge), "spatial_ref": 0}
    states = {"flag_values": [0, 1], "flag_meanings": "clear cloud"}
    for i, when in enumerate(times):
        values = np.tile(rng.integers(300, 4000, (part, part), dtype=np.uint16), (edge // part,) * 2)
        cloud = np.tile(rng.random((part // 32,) * 2) < 0.55, (edge // part,) * 2).repeat(32, 0).repeat(32, 1)
        ds = xr.Dataset(
            {
                "red": (("time", "y", "x"), values[None]),
                "cloud_mask": (("time", "y", "x"), cloud[None].astype(np.uint8), states),
            },
            coords={"time": [when], **grid},
        ).rio.write_crs("EPSG:32629")
        if i == 0:
            chunks = {"chunks": (1, 1024, 1024), "grid_mapping": "spatial_ref"}
            ds.to_zarr(path, encoding={"red": chunks, "cloud_mask": chunks}, zarr_format=3, consolidated=False)
        else:
            ds.drop_vars(["y", "x", "spatial_ref"]).drop_attrs().drop_encoding().to_zarr(
                path, append_dim="time", consolidated=False
            )


LARGE = {"date": "2023-08-05", "model": "median", "shard": 512, "window": 1000}
LARGE |= {"scale": 1e-4, "offset": 0, "nodata": 0}


def drive_large(cube, store, address):
    with distributed.Client(address) as client:
        xr_cloudfree.batch(cube, store, client=client, progress=False, **LARGE)


def test_4096_pixels_of_24_dates_under_kills_of_workers_and_driver(tmp_path):
    cube, store, other = (tmp_path / name for name in ("cube.zarr", "out.zarr", "clean.zarr"))
    make_large(cube)
    with dask.config.set({"distributed.scheduler.allowed-failures": 10}), cluster() as client:
        driver = Child(drive_large, cube, store, client.scheduler.address)
        for n in (5, 15):
            runs.wait_for_markers(store, n, driver)
            os.kill(pids(client)[0], signal.SIGKILL)
        runs.wait_for_markers(store, 26, driver)
        assert driver.kill() == -signal.SIGKILL
        done = len(markers(store))
        assert 26 <= done < 64 and not verify(store).ok
        xr_cloudfree.batch(cube, store, client=client, progress=False, **LARGE)
    xr_cloudfree.to_zarr(cube, other, **LARGE)
    found, expected = verify(store), verify(other)
    assert found.ok and expected.ok and found.digest == expected.digest
    assert contents(store) == contents(other)
