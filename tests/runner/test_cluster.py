"""Runs on a cluster of processes: the same bytes as on one machine, and errors instead of endless waits."""

from __future__ import annotations

import os
import pickle
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import as_dataset, make_cube
from xr_cloudfree import stores
from xr_cloudfree.errors import LockedError, OptionError, OptionTypeError, RunError
from xr_cloudfree.runner import cluster, runs
from xr_cloudfree.runner.journal import Journal
from xr_cloudfree.runner.verify import store_digest

distributed = pytest.importorskip("distributed")
from distributed.comm import CommClosedError  # noqa: E402
from distributed.protocol.pickle import dumps  # noqa: E402

pytestmark = pytest.mark.xdist_group("clusters")
DATES = ["2021-05-15", "2021-05-21"]
OPTIONS = {"model": "linear", "layers": "all", "shard": 32}


@pytest.fixture(scope="module")
def client():
    import dask

    with (
        # A worker that has died is given the time that it takes to start on a machine with much to do.
        dask.config.set({"distributed.deploy.lost-worker-timeout": "300 s"}),
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as local,
        distributed.Client(local) as client,
    ):
        yield client


@pytest.fixture(scope="module")
def cube(tmp_path_factory) -> Path:
    """A cube in a Zarr store whose chunks do not fit the shards."""
    path = tmp_path_factory.mktemp("cube") / "cube.zarr"
    ds = as_dataset(*make_cube(shape=(120, 96))).drop_vars("platform").chunk({"y": 50, "x": 40})
    ds.to_zarr(path, zarr_format=3, consolidated=False)
    return path


@pytest.fixture(scope="module")
def digest(cube, tmp_path_factory) -> str:
    """Of what one machine writes."""
    store = tmp_path_factory.mktemp("clean") / "out.zarr"
    xr_cloudfree.to_zarr(cube, store, DATES, **OPTIONS)
    return store_digest(store)


def batch(obj, store, client, **options) -> xr.Dataset:
    return stores.batch(obj, store, DATES, client=client, progress=False, **OPTIONS, **options)


def test_a_cluster_writes_the_bytes_that_one_machine_writes(cube, digest, client, tmp_path) -> None:
    image = batch(cube, tmp_path / "out.zarr", client)
    assert store_digest(tmp_path / "out.zarr") == digest
    opened = xr_cloudfree.io.open_cube(cube)
    xr.testing.assert_equal(image.compute(), opened.cloudfree.fill(DATES, model="linear", layers="all").compute())
    assert image.rio.crs.to_epsg() == 32629


def test_without_a_client_this_machine_writes_them(cube, digest, tmp_path) -> None:
    batch(str(cube), tmp_path / "out.zarr", None)
    assert store_digest(tmp_path / "out.zarr") == digest


def test_a_cube_in_memory_is_brought_to_the_workers(cube, client, tmp_path) -> None:
    batch(xr_cloudfree.io.open_cube(cube).load(), tmp_path / "out.zarr", client)
    image = xr_cloudfree.io.open_cube(cube).cloudfree.fill(DATES, model="linear", layers="all")
    xr.testing.assert_equal(xr_cloudfree.io.open_store(tmp_path / "out.zarr").compute(), image.compute())

    def ours(dask_worker) -> bool:
        return any(name.startswith("cloudfree") for name in dask_worker.plugins)

    assert not any(client.run(ours).values())


def test_a_process_without_the_plugin_reads_the_plan_from_the_journal(cube, digest, tmp_path) -> None:
    run = runs.prepare(cube, tmp_path / "out.zarr", DATES, **OPTIONS)
    with runs.started(run) as missing:
        reports = [cluster._Fill("unknown", str(run.path))(int(index)) for index in missing]
        runs.finish(run)
    assert store_digest(run.path) == digest
    assert max(len(pickle.dumps(report)) for report in reports) < 1000
    assert len(pickle.dumps(cluster._Fill("0" * 32, "/" * 200))) < 1000


def test_the_plugin_loads_nothing_of_the_package_before_its_thread_does(cube, tmp_path) -> None:
    run = runs.prepare(cube, tmp_path / "out.zarr", DATES, **OPTIONS)
    packed = dumps(cluster._plugin("0", run.plan, {}))
    code = "import pickle, sys; pickle.load(sys.stdin.buffer); print([m for m in sys.modules if 'cloudfree' in m])"
    done = subprocess.run([sys.executable, "-c", code], input=packed, capture_output=True, check=True)
    assert done.stdout.strip() == b"[]"


def test_a_worker_that_dies_while_the_plugin_is_brought_does_no_harm(monkeypatch) -> None:
    """The scheduler then fails the whole call, which the client sees as a closed connection."""

    class Client:
        def __init__(self, failures: int) -> None:
            self.failures = failures

        def register_plugin(self, plugin, name) -> None:
            self.failures -= 1
            if self.failures >= 0:
                raise CommClosedError("Stream is closed")

    monkeypatch.setattr(time, "sleep", lambda seconds: None)
    plugin = cluster._plugin("0", None, {})
    client = Client(3)
    cluster._register(client, plugin, "the same call")
    assert client.failures == -1
    with pytest.raises(RunError, match="Stream is closed"):
        cluster._register(Client(99), plugin, "the same call")


def test_tasks_have_names_and_few_are_in_flight(cube, client, tmp_path) -> None:
    def seen(dask_scheduler) -> tuple[set[str], int]:
        return set(dask_scheduler.task_prefixes), len(dask_scheduler.tasks)

    flight = []
    run = runs.prepare(cube, tmp_path / "out.zarr", DATES, **(OPTIONS | {"shard": 16}))
    with runs.started(run) as missing:
        cluster.fill_on_cluster(client, run, missing, report=lambda told: flight.append(client.run_on_scheduler(seen)))
    assert len(flight) == run.plan.n_regions == 48
    assert "cloudfree-linear" in flight[0][0]
    assert max(tasks for _, tasks in flight) <= 2 * 4 + 8  # those in flight, and some that are being forgotten
    assert run.journal.regions(run.plan.layout)[0].all()


def test_a_killed_worker_costs_time_and_nothing_else(cube, digest, client, tmp_path) -> None:
    run = runs.prepare(cube, tmp_path / "out.zarr", DATES, **OPTIONS)
    told = []

    def kill_once(report) -> None:
        if not told:
            os.kill(int(report.process.rpartition(":")[2]), signal.SIGKILL)
        told.append(report.index)

    with runs.started(run) as missing:
        cluster.fill_on_cluster(client, run, missing, report=kill_once)
        runs.finish(run)
    assert sorted(told) == list(range(run.plan.n_regions))
    assert store_digest(run.path) == digest


def test_only_what_is_missing_is_filled(cube, digest, client, tmp_path) -> None:
    store = tmp_path / "out.zarr"
    batch(cube, store, client)
    run = runs.reopen(store)
    for index in (2, 5):
        run.journal.folder.remove([run.journal.marker(index)])
    before = {path: path.stat().st_mtime_ns for path in (store / "B02").rglob("c/*/*/*")}
    batch(cube, store, client)
    changed = {path for path, when in before.items() if path.stat().st_mtime_ns != when}
    assert {path.relative_to(store).as_posix() for path in changed} == {
        key for index in (2, 5) for key in run.plan.layout.keys(index) if key.startswith("B02/")
    }
    assert store_digest(store) == digest


def test_a_second_driver_is_refused(cube, client, tmp_path) -> None:
    with runs.started(runs.prepare(cube, tmp_path / "out.zarr", DATES, **OPTIONS)):
        with pytest.raises(LockedError, match=f"process {os.getpid()}"):
            batch(cube, tmp_path / "out.zarr", client)


def test_a_worker_with_one_thread_does_one_region_at_a_time(client) -> None:
    assert client.submit(cluster._is_single_threaded).result() and cluster._is_single_threaded()


def test_gpus_that_are_not_there_are_missed_at_once(cube, client, tmp_path) -> None:
    start = time.monotonic()
    with pytest.raises(OptionError, match="announces a GPU"):
        batch(cube, tmp_path / "out.zarr", client, gpu=True)
    assert time.monotonic() - start < 5


def test_one_region_at_a_time_on_each_gpu(cube, digest, tmp_path) -> None:
    with (
        distributed.LocalCluster(
            n_workers=1, threads_per_worker=2, dashboard_address=":0", resources={"GPU": 1}, processes=False
        ) as local,
        distributed.Client(local) as client,
    ):
        assert cluster.census(client).gpus == 1
        assert not client.submit(cluster._is_single_threaded).result()  # it has two threads
        batch(cube, tmp_path / "out.zarr", client, gpu=True)
    assert store_digest(tmp_path / "out.zarr") == digest


def test_what_cannot_be_waited_for_is_refused(cube, tmp_path) -> None:
    with pytest.raises(OptionTypeError, match="client is a str"):
        batch(cube, tmp_path / "out.zarr", "tcp://127.0.0.1:8786")
    with distributed.Client(processes=False, n_workers=1, dashboard_address=":0", set_as_default=False) as closed:
        pass
    with pytest.raises(OptionError, match="client is closed"):
        batch(cube, tmp_path / "out.zarr", closed)

    async def asynchronous() -> None:
        async with distributed.Client(
            processes=False, n_workers=1, dashboard_address=":0", asynchronous=True
        ) as client:
            with pytest.raises(OptionError, match="asynchronous"):
                batch(cube, tmp_path / "out.zarr", client)

    import asyncio

    asyncio.run(asynchronous())
    assert not (tmp_path / "out.zarr.journal").exists()


def test_a_folder_that_is_not_shared_is_noticed(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(cluster, "_VISIBLE_WITHIN", 0.0)
    with pytest.raises(RunError, match="are not visible here"):
        cluster._check_shared(
            Journal(tmp_path / "out.zarr"), cluster.RegionReport(0, "", 0, 0.0, "host:1", None), "the same call"
        )


@pytest.mark.slow
def test_a_network_is_loaded_once_and_its_answer_is_the_same(cube, client, tmp_path) -> None:
    torch = pytest.importorskip("torch")
    from dask.system import CPU_COUNT

    def threads() -> int:
        import torch

        return torch.get_num_threads()

    options, share = {"model": "unet", "shard": 320}, max(1, CPU_COUNT // 2)
    stores.batch(cube, tmp_path / "there.zarr", DATES[1], client=client, progress=False, **options)
    assert set(client.run(threads).values()) == {share}
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(share)
        xr_cloudfree.to_zarr(cube, tmp_path / "here.zarr", DATES[1], **options)
        torch.set_num_threads(3 * share)
        xr_cloudfree.to_zarr(cube, tmp_path / "more.zarr", DATES[1], **options)
    finally:
        torch.set_num_threads(before)
    assert store_digest(tmp_path / "here.zarr") == store_digest(tmp_path / "there.zarr")
    # On another number of threads torch adds up in another order.
    there, more = (xr_cloudfree.io.open_store(tmp_path / name).compute() for name in ("there.zarr", "more.zarr"))
    np.testing.assert_allclose(more["B04"], there["B04"], atol=1e-5)
