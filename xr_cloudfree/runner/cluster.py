"""A run on a dask cluster: what its workers need, and who looks after them."""

from __future__ import annotations

import os
import socket
import threading
import time
import uuid
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xr_cloudfree.errors import RunError, either, option, then
from xr_cloudfree.models.protocol import optional
from xr_cloudfree.runner import windows
from xr_cloudfree.runner.failures import RESUME
from xr_cloudfree.runner.regions import RegionReport, RunPlan, fill_region
from xr_cloudfree.runner.runs import Run, reopen
from xr_cloudfree.runner.scheduler import census, check_client, quietly, run_regions

if TYPE_CHECKING:
    from distributed import Client, Worker

# What a worker's process holds before it begins, dask and this package with what it imports; with torch.
WORKER_MIB, WITH_TORCH_MIB = 400, 900
# Shared file systems may be slow to show what another machine has written.
_VISIBLE_WITHIN = 30.0


def run_on(
    client: Client,
    run: Run,
    missing: Iterable[int],
    *,
    report: Callable[[RegionReport], object] = lambda report: None,
    retries: int = 2,
    stall: float = 900.0,
    gpu: bool | None = None,
) -> None:
    """Fill regions of a run on a cluster.

    Parameters
    ----------
    client : distributed.Client
        Of any cluster whose machines see the store under its path.
    run : Run
        A run that has been started.
    missing : iterable of int
        Regions to fill.
    report : callable
        Is told of each region that is done.
    retries, stall : int, float
        See `run_regions`.
    gpu : bool, optional
        True uses only workers that announce the resource GPU, False does not ask for it. None uses it for a learned
        model where any worker announces it.

    Raises
    ------
    RunError
        If regions failed, the cluster is gone or stands still, or its machines do not share the store.
    OptionError
        If GPUs are asked for and there is none, or the client cannot be used.
    """
    check_client(client)
    model, again = run.plan.job.model, run.how_to_resume
    found = census(client, again)
    if gpu is None:
        gpu = optional(model).uses_gpu and found.gpus > 0
    token = uuid.uuid4().hex
    plugin = _plugin(token, run.plan, found.hosts)
    _register(client, plugin, again)
    seen = False

    def tell(told: RegionReport) -> None:
        nonlocal seen
        if not seen:
            _check_shared(run.journal.marker(told.index), told, again)
            seen = True
        report(told)

    try:
        run_regions(
            client,
            _Fill(token, str(run.path.absolute())),
            map(int, missing),
            name=model.spec.name,
            done=tell,
            retries=retries,
            stall=stall,
            gpu=gpu,
            resume=again,
        )
    except RunError as error:
        if type(error.__cause__).__name__ != "KilledWorker":
            raise
        raise _starved(error, run.plan) from error.__cause__
    finally:
        # The scheduler may be what has failed.
        forget = threading.Thread(target=quietly, args=(client.unregister_worker_plugin, plugin.name), daemon=True)
        forget.start()
        forget.join(5.0)


def _starved(error: RunError, plan: RunPlan) -> RunError:
    """The error where regions took their workers down with them."""
    needs, edges = plan.memory // 2**20, plan.layout.shard
    unit = plan.job.model.spec.stride or 32
    half = max(min(edges) // 2 // unit, 1) * unit
    before = WITH_TORCH_MIB if optional(plan.job.model).uses_gpu else WORKER_MIB
    more = f"workers of {before + needs} MiB each"
    smaller = either(option(f"shard={half}", "overwrite=True") + " for smaller regions", f"{more}; then {RESUME}")
    return RunError(
        f"{error.found}. Most often it is the memory: a region of {edges[0]} x {edges[1]} pixels takes about "
        f"{needs} MiB beside the {before} MiB that a worker holds before",
        "workers with the memory that a region takes",
        smaller if half < min(edges) else then(more, error.remedy),
    )


@dataclass(frozen=True)
class _Fill:
    """What each task is sent: some hundred bytes. The plugin has the plan, or it is read from the journal."""

    token: str
    path: str

    def __call__(self, index: int) -> RegionReport:
        plan = _brought(self.token)
        return fill_region(plan or _reopened(self.token, self.path), self.path, index, alone=_one_at_a_time())


def _worker() -> Worker | None:
    """The worker whose task this is; None outside of one."""
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def _one_at_a_time() -> bool:
    """Whether this process does one region at a time."""
    worker = _worker()
    return worker is None or worker.state.nthreads == 1


def _brought(token: str) -> RunPlan | None:
    """The plan as the plugin of this worker has it, once it has; None where there is no plugin."""
    worker = _worker()
    plugin: Any = None if worker is None else worker.plugins.get(_plugin_name(token))
    if plugin is None:
        return None
    plan: RunPlan = plugin.plan.result()
    return plan


def _plugin_name(token: str) -> str:
    return f"cloudfree-{token}"


@lru_cache(maxsize=1)
def _reopened(token: str, path: str) -> RunPlan:
    return reopen(path).plan


def _plugin(token: str, plan: RunPlan, hosts: dict[str, int]) -> Any:
    """Brings the plan to every process that there is or will be, and has its model loaded before it is needed."""
    from distributed import WorkerPlugin
    from distributed.comm.addressing import get_address_host
    from distributed.protocol.pickle import dumps

    name, packed, driver = _plugin_name(token), dumps(plan), (socket.gethostname(), os.getpid())

    class Bring(WorkerPlugin):  # type: ignore[misc,unused-ignore]
        # It is pickled by value and loads this package in a thread of its own. That takes seconds, and minutes where
        # many processes start from one file system; a worker that does not answer meanwhile counts as one that did
        # not start, and those who look after it may give it up for good.
        def __init__(self) -> None:
            self.name, self.packed = name, packed

        def setup(self, worker: Any) -> None:
            on_host = hosts.get(get_address_host(worker.address), worker.state.nthreads)
            pool = ThreadPoolExecutor(1, thread_name_prefix="cloudfree-plan")
            self.plan = pool.submit(self.unpack, bool(worker.nanny), on_host)
            pool.shutdown(wait=False)

        def unpack(self, nanny: bool, threads: int) -> RunPlan:
            from xr_cloudfree.runner import cluster

            packed, self.packed = self.packed, b""
            return cluster._unpacked(packed, nanny, threads, driver)

    return Bring()


def _register(client: Client, plugin: Any, again: str) -> None:
    """Give the plugin to all workers; it fails for all of them if one dies meanwhile."""
    for wait in (0.5, 1.0, 2.0, 4.0, None):
        try:
            client.register_plugin(plugin, name=plugin.name)
        except OSError as error:
            if wait is None:
                raise RunError(f"the workers cannot be reached: {error}", "a cluster that runs", again) from error
            time.sleep(wait)
        else:
            return


def _unpacked(packed: bytes, nanny: bool, threads: int, driver: tuple[str, int]) -> RunPlan:
    from distributed.protocol.pickle import loads

    plan: RunPlan = loads(packed)
    if driver != (socket.gethostname(), os.getpid()):
        windows.check_shared((*plan.bands, plan.quality, *plan.s1))
    share = None
    # A nanny limits its process to one thread, whatever the machine has. Any other number was set on purpose.
    if nanny and os.environ.get("OMP_NUM_THREADS") == "1":
        from dask.system import CPU_COUNT

        share = max(1, CPU_COUNT // threads)
    quietly(optional(plan.job.model).load, share)  # errors are reported by the first region
    return plan


def _check_shared(marker: Path, told: RegionReport, again: str) -> None:
    """Whether what a worker wrote is to be seen from here."""
    until = time.monotonic() + _VISIBLE_WITHIN
    while not marker.exists():
        if time.monotonic() > until:
            raise RunError(
                f"region {told.index} was filled by {told.process}, and is not to be seen here",
                "a folder for the store that all machines share, under the same path",
                f"a store in such a folder; or, once it is shared, {again}",
            )
        time.sleep(0.5)
