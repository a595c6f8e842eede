"""Fill the regions of a run on a dask cluster."""

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
from typing import TYPE_CHECKING, Any

from xr_cloudfree.errors import RunError, either, option, then
from xr_cloudfree.models.protocol import optional
from xr_cloudfree.runner import windows
from xr_cloudfree.runner.failures import RESUME
from xr_cloudfree.runner.journal import Journal
from xr_cloudfree.runner.plan import RunPlan
from xr_cloudfree.runner.regions import RegionReport, fill_region
from xr_cloudfree.runner.runs import Run, reopen
from xr_cloudfree.runner.scheduler import call_quietly, census, check_client, run_regions
from xr_cloudfree.storage.locations import absolute

if TYPE_CHECKING:
    from distributed import Client, Worker

# Memory of a worker process before it fills a region, in MiB: dask, this package and its imports; with torch.
WORKER_MIB, WITH_TORCH_MIB = 400, 900
# Seconds after which a file written by another machine must be visible on a shared file system.
_VISIBLE_WITHIN = 30.0


def fill_on_cluster(
    client: Client,
    run: Run,
    missing: Iterable[int],
    *,
    report: Callable[[RegionReport], object] = lambda report: None,
    retries: int = 2,
    stall: float = 900.0,
    gpu: bool | None = None,
) -> None:
    """Fill regions of a run on a dask cluster.

    Parameters
    ----------
    client : distributed.Client
        Client of any cluster whose machines see the store under its path.
    run : Run
        A run that has been started.
    missing : iterable of int
        The regions to fill.
    report : callable
        Called with the report on each region that was filled.
    retries, stall : int, float
        See `run_regions`.
    gpu : bool, optional
        True uses only workers that announce the resource GPU, False ignores the resource. None is True for a
        pretrained model if any worker announces it.

    Raises
    ------
    RunError
        If regions failed, the cluster is gone or stalls, or its machines do not share the store.
    OptionError
        If GPUs are requested and there is none, or the client cannot be used.
    """
    check_client(client)
    model, resume = run.plan.job.model, run.how_to_resume
    workers = census(client, resume)
    if gpu is None:
        gpu = optional(model).uses_gpu and workers.gpus > 0
    token = uuid.uuid4().hex
    plugin = _plugin(token, run.plan, workers.hosts)
    _register(client, plugin, resume)
    checked = False

    def check_and_report(region: RegionReport) -> None:
        nonlocal checked
        if not checked:
            _check_shared(run.journal, region, resume)
            checked = True
        report(region)

    try:
        run_regions(
            client,
            _Fill(token, absolute(run.path)),
            map(int, missing),
            name=model.spec.name,
            done=check_and_report,
            retries=retries,
            stall=stall,
            gpu=gpu,
            resume=resume,
        )
    except RunError as error:
        if type(error.__cause__).__name__ != "KilledWorker":
            raise
        raise _workers_died(error, run.plan) from error.__cause__
    finally:
        # In a thread: the scheduler may have failed.
        unregister = threading.Thread(
            target=call_quietly, args=(client.unregister_worker_plugin, plugin.name), daemon=True
        )
        unregister.start()
        unregister.join(5.0)


def _workers_died(error: RunError, plan: RunPlan) -> RunError:
    """Return the error for regions whose workers died, most often for lack of memory."""
    region_mib, edges = plan.memory // 2**20, plan.layout.shard
    unit = plan.job.model.spec.stride or 32
    half = max(min(edges) // 2 // unit, 1) * unit
    worker_mib = WITH_TORCH_MIB if optional(plan.job.model).uses_gpu else WORKER_MIB
    more = f"workers of {worker_mib + region_mib} MiB each"
    smaller = either(option(f"shard={half}", "overwrite=True") + " for smaller regions", f"{more}; then {RESUME}")
    return RunError(
        f"{error.found}. The usual cause is memory: a region of {edges[0]} x {edges[1]} pixels takes about "
        f"{region_mib} MiB in addition to the {worker_mib} MiB of a worker",
        "workers with the memory that a region takes",
        smaller if half < min(edges) else then(more, error.remedy),
    )


@dataclass(frozen=True)
class _Fill:
    """The function of a task, some hundred bytes: it takes the plan from the plugin, or from the journal."""

    token: str
    path: str

    def __call__(self, index: int) -> RegionReport:
        plan = _plan_of_plugin(self.token) or _plan_of_journal(self.token, self.path)
        return fill_region(plan, self.path, index, alone=_is_single_threaded())


def _worker() -> Worker | None:
    """Return the worker that runs this task; None outside of tasks."""
    from distributed import get_worker

    try:
        return get_worker()
    except ValueError:
        return None


def _is_single_threaded() -> bool:
    """Return whether this process fills one region at a time."""
    worker = _worker()
    return worker is None or worker.state.nthreads == 1


def _plan_of_plugin(token: str) -> RunPlan | None:
    """Wait for the plan that the plugin of this worker unpacks and return it; None without the plugin."""
    worker = _worker()
    plugin: Any = None if worker is None else worker.plugins.get(_plugin_name(token))
    if plugin is None:
        return None
    plan: RunPlan = plugin.plan.result()
    return plan


def _plugin_name(token: str) -> str:
    return f"cloudfree-{token}"


@lru_cache(maxsize=1)
def _plan_of_journal(token: str, path: str) -> RunPlan:
    return reopen(path).plan


def _plugin(token: str, plan: RunPlan, hosts: dict[str, int]) -> Any:
    """Return a plugin that brings the plan to all present and future workers and loads its model there."""
    from distributed import WorkerPlugin
    from distributed.comm.addressing import get_address_host
    from distributed.protocol.pickle import dumps

    name, packed, driver = _plugin_name(token), dumps(plan), (socket.gethostname(), os.getpid())

    class PlanPlugin(WorkerPlugin):  # type: ignore[misc,unused-ignore]
        # Pickled by value; it imports this package in a thread of its own. The import takes seconds, or minutes if
        # many processes start from one file system; a cluster manager may give up a worker that does not answer
        # meanwhile.
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
            return cluster._unpack(packed, nanny, threads, driver)

    return PlanPlugin()


def _register(client: Client, plugin: Any, resume: str) -> None:
    """Register the plugin with all workers; this fails, and is tried again, if a worker dies meanwhile."""
    for wait in (0.5, 1.0, 2.0, 4.0, None):
        try:
            client.register_plugin(plugin, name=plugin.name)
        except OSError as error:
            if wait is None:
                raise RunError(f"the workers cannot be reached: {error}", "a running cluster", resume) from error
            time.sleep(wait)
        else:
            return


def _unpack(packed: bytes, nanny: bool, threads: int, driver: tuple[str, int]) -> RunPlan:
    from distributed.protocol.pickle import loads

    plan: RunPlan = loads(packed)
    if driver != (socket.gethostname(), os.getpid()):
        windows.check_shared((*plan.bands, plan.quality, *plan.s1, *(a for o in plan.others for a in o.arrays)))
    share = None
    # A nanny limits its process to one thread, whatever the machine has; any other number was set on purpose.
    if nanny and os.environ.get("OMP_NUM_THREADS") == "1":
        from dask.system import CPU_COUNT

        share = max(1, CPU_COUNT // threads)
    call_quietly(optional(plan.job.model).load, share)  # the first region raises what is wrong with it
    return plan


def _check_shared(journal: Journal, region: RegionReport, resume: str) -> None:
    """Raise if a file that a worker wrote is not visible in this process."""
    deadline = time.monotonic() + _VISIBLE_WITHIN
    while not journal.folder.exists(journal.marker(region.index)):
        if time.monotonic() > deadline:
            raise RunError(
                f"region {region.index} was filled by {region.process}, and its files are not visible here",
                "a folder for the store that all machines share, under the same path",
                f"a store in such a folder; or, once it is shared, {resume}",
            )
        time.sleep(0.5)
