"""Run regions on a dask cluster: one future each, a few in flight, with retries and a watchdog.

This module does not depend on cubes or stores: `work` is any function of a region's number. A graph of all regions
would not fit into a scheduler; a rolling set of futures does, however many regions there are.

`distributed.as_completed` is not used: its timeout runs once, from its construction, so that the watchdog could not
wait for the next region for a limited time, and fetching results through it blocks while a worker that held one is
being replaced.
"""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from queue import Empty, Queue, SimpleQueue
from typing import TYPE_CHECKING, Any

from xr_cloudfree.compat import is_asynchronous
from xr_cloudfree.errors import CloudfreeError, MissingDependencyError, OptionError, OptionTypeError, RunError
from xr_cloudfree.runner.failures import HOPELESS, RESUME, regions_failed

if TYPE_CHECKING:
    from distributed import Client

Future = Any  # generic in some versions of distributed, and not in others

log = logging.getLogger(__name__)

GPU = "GPU"  # the resource that workers announce: dask worker --resources GPU=1

_COUNT_EVERY = 2.0
_GATHER_WITHIN = 60.0


@dataclass(frozen=True)
class Census:
    """The workers of a cluster.

    Parameters
    ----------
    threads : int
        Threads of all workers.
    gpus : int
        GPUs that all workers announce together.
    hosts : dict of str to int
        Threads of all workers on each machine.
    """

    threads: int
    gpus: int
    hosts: dict[str, int]


def census(client: Client, resume: str = RESUME) -> Census:
    """Count the workers of a cluster, with one request to the scheduler.

    Raises
    ------
    RunError
        If the scheduler does not answer.
    """
    try:
        return Census(*client.run_on_scheduler(_count))
    except Exception as error:
        raise RunError(
            f"the scheduler does not answer: {type(error).__name__}: {error}", "a running cluster", resume
        ) from error


def _count(dask_scheduler: Any) -> tuple[int, int, dict[str, int]]:
    """Count the workers, on the scheduler; ``client.scheduler_info()`` leaves out workers in some versions."""
    threads, gpus = 0, 0.0
    hosts: dict[str, int] = {}
    for worker in dask_scheduler.workers.values():
        threads += worker.nthreads
        gpus += worker.resources.get("GPU", 0)
        hosts[worker.host] = hosts.get(worker.host, 0) + worker.nthreads
    return threads, int(gpus), hosts


def distributed() -> Any:
    """Return the package `distributed`.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        import distributed as package
    except ImportError as error:
        raise MissingDependencyError(
            "distributed is not installed", "dask's distributed scheduler", 'pip install "xr-cloudfree[distributed]"'
        ) from error
    return package


def check_client(client: Any) -> None:
    """Raise unless `client` is a synchronous, connected dask client.

    Raises
    ------
    OptionTypeError
        If it is not a client.
    OptionError
        If it is asynchronous or closed.
    """
    if not isinstance(client, distributed().Client):
        raise OptionTypeError(
            f"client is a {type(client).__name__}", "a dask.distributed.Client", "client=dask.distributed.Client()"
        )
    if is_asynchronous(client):
        raise OptionError(
            "the client is asynchronous", "a synchronous client", "client=dask.distributed.Client(address)"
        )
    if client.status != "running":
        raise OptionError(
            f"the client is {client.status}", "a connected client", "client=dask.distributed.Client(address)"
        )


@dataclass(frozen=True)
class _Numbered:
    """The function of a task; its result includes the region's number, because results arrive in any order."""

    work: Callable[[int], Any]

    def __call__(self, index: int) -> tuple[int, Any]:
        return index, self.work(index)


def run_regions(
    client: Client,
    work: Callable[[int], Any],
    indices: Iterable[int],
    *,
    name: str,
    done: Callable[[Any], None],
    in_flight: int = 4,
    retries: int = 2,
    stall: float = 900.0,
    gpu: bool = False,
    resume: str = RESUME,
) -> None:
    """Run regions on a cluster until each has succeeded, or has failed for good.

    Parameters
    ----------
    client : distributed.Client
        Client of any cluster.
    work : callable
        Function of a region's number with a small result. It is sent with each task, so it must be small as well.
    indices : iterable of int
        Regions to run. They are consumed one by one, as slots become free.
    name : str
        Tasks are named ``cloudfree-<name>-<run>-<index>``; the dashboard shows ``cloudfree-<name>``.
    done : callable
        Called in this process with each result.
    in_flight : int
        Regions in flight for each thread of the cluster.
    retries : int
        Number of times a failed region is tried again. A region whose worker died is tried again after all others,
        and alone.
    stall : float
        Seconds without a finished region, or without a worker, after which to give up.
    gpu : bool
        Use only workers that announce a GPU, with one region at a time on each.
    resume : str
        How to continue the run, for error messages.

    Raises
    ------
    RunError
        At the end, if regions failed; it names them. Immediately, if the cluster is gone or the run stalls.
    OptionError
        If `gpu` is True and no worker announces a GPU.
    """
    _Run(client, _Numbered(work), iter(indices), name, done, in_flight, retries, stall, gpu, resume).run()


@dataclass
class _Run:
    client: Client
    task: _Numbered
    pending: Iterator[int]
    name: str
    done: Callable[[Any], None]
    in_flight: int
    retries: int
    stall: float
    gpu: bool
    resume: str
    token: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    retry: deque[int] = field(default_factory=deque)
    retry_alone: deque[int] = field(default_factory=deque)
    attempts: dict[int, int] = field(default_factory=dict)
    failed: dict[int, BaseException] = field(default_factory=dict)
    running: dict[Any, tuple[int, Future]] = field(default_factory=dict)
    ended: Queue[Future] = field(default_factory=Queue)
    n_done: int = 0
    slots: int = 0
    last_census: float = float("-inf")
    last_progress: float = field(default_factory=time.monotonic)

    def run(self) -> None:
        try:
            while self._submit() or self.running:
                self._collect()
                self._watch()
                if len(self.failed) >= HOPELESS and not self.n_done:
                    break
        finally:
            self._cancel()
        if self.failed:
            first, error = self.failed[min(self.failed)], regions_failed(self.failed, self.n_done, self.resume)
            raise error from None if error is first else first

    def _submit(self) -> bool:
        """Submit as many regions as there are free slots; return whether more are waiting."""
        self._check_cluster()
        free = self.slots * (1 if self.gpu else self.in_flight) - len(self.running)
        batch: dict[str, int] = {}
        while len(batch) < free:
            index = self._next(alone=not (self.running or batch))
            if index is None:
                break
            attempt = self.attempts.get(index, 0)
            # A new name for each attempt: the scheduler may still know the failed one.
            batch[f"cloudfree-{self.name}-{self.token}-{index}" + (f"-{attempt}" if attempt else "")] = index
        if batch:
            resources = {GPU: 1} if self.gpu else None
            futures = self.client.map(self.task, batch.values(), key=list(batch), pure=False, resources=resources)
            for (key, index), future in zip(batch.items(), futures, strict=True):
                self.running[key] = (index, future)
                future.add_done_callback(self.ended.put)
        return bool(self.retry or self.retry_alone) or len(batch) == free

    def _next(self, alone: bool) -> int | None:
        index = next(self.pending, None)
        if index is not None:
            return int(index)
        if self.retry:
            return self.retry.popleft()
        # Run it alone, so that no other region is lost if its worker dies again.
        return self.retry_alone.popleft() if self.retry_alone and alone else None

    def _check_cluster(self) -> None:
        now = time.monotonic()
        if self.client.status not in ("running", "connecting"):
            raise RunError(
                f"the client is {self.client.status}: the scheduler is gone", "a running cluster", self.resume
            )
        if now - self.last_census < _COUNT_EVERY:
            return
        workers = census(self.client, self.resume)
        self.slots, first = (workers.gpus if self.gpu else workers.threads), self.last_census == float("-inf")
        self.last_census = now
        if self.gpu and workers.threads and not workers.gpus and (first or not self.n_done):
            raise OptionError(
                f"none of the workers, which have {workers.threads} threads, announces a GPU",
                "workers started with the resource GPU",
                "dask worker ADDRESS --resources GPU=1, LocalCUDACluster(resources={'GPU': 1}), or gpu=False",
            )

    def _collect(self) -> None:
        """Process the tasks that end within a second."""
        ended: dict[Any, Future] = {}
        with suppress(Empty):
            future = self.ended.get(timeout=1.0)
            while True:
                ended[future.key] = future
                future = self.ended.get_nowait()
        known = {key: future for key, future in ended.items() if key in self.running}
        succeeded = {self.running[key][0]: key for key, future in known.items() if future.status == "finished"}
        for index, result in self._gather([known[key] for key in succeeded.values()]):
            self._forget(succeeded[index])
            self.n_done += 1
            self.last_progress = time.monotonic()
            self.done(result)
        remaining = [known[key] for key in known if key in self.running]
        for future in remaining:
            if future.status in ("error", "cancelled"):
                self._fail(future)
        # A worker that dies before its result is fetched is no failure of the region: dask computes it again.
        waiting = [future for future in remaining if future.key in self.running]
        if waiting:
            time.sleep(0.1)
        for future in waiting:
            future.add_done_callback(self.ended.put)

    def _gather(self, futures: list[Future]) -> list[tuple[int, Any]]:
        """Return the results of finished tasks, fetched together."""
        if not futures:
            return []
        results: SimpleQueue[Any] = SimpleQueue()
        # In a thread: if a worker dies now, gathering waits until its work is done again; the watchdog must go on.
        threading.Thread(target=_gather, args=(self.client, futures, results), daemon=True).start()
        deadline = time.monotonic() + min(_GATHER_WITHIN, self.stall)
        while time.monotonic() < deadline:
            with suppress(Empty):
                return [result for result in results.get(timeout=0.2) if result is not None]
            if any(future.status != "finished" for future in futures):
                return []  # one result was lost: do not let the others wait for it
        return []

    def _forget(self, key: Any) -> int:
        index, future = self.running.pop(key)
        future.release()
        return index

    def _fail(self, future: Future) -> None:
        from distributed import KilledWorker

        error = future.exception() if future.status == "error" else RuntimeError(f"the task is {future.status}")
        index = self._forget(future.key)
        self.attempts[index] = self.attempts.get(index, 0) + 1
        # Errors of a cube or an option are final; those of a disk, a network or memory may pass.
        final = isinstance(error, CloudfreeError) and not isinstance(error, OSError | MemoryError)
        if final or self.attempts[index] > self.retries:
            self.failed[index] = error
            self.last_progress = time.monotonic()
            log.warning("region %d failed: %s: %s", index, type(error).__name__, error)
        else:
            (self.retry_alone if isinstance(error, KilledWorker) else self.retry).append(index)
            log.warning("region %d is tried again: %s: %s", index, type(error).__name__, error)

    def _watch(self) -> None:
        waited = time.monotonic() - self.last_progress
        if waited < self.stall:
            return
        if not self.slots:
            found, needed = f"there has been no worker for {waited:.0f} s", "a cluster with workers"
        else:
            found = f"no region was finished within {waited:.0f} s, and {len(self.running)} are in progress"
            needed = f"a region every {self.stall:g} s, or a larger stall="
        raise RunError(found, needed, self.resume)

    def _cancel(self) -> None:
        if not self.running:
            return
        futures = [future for _, future in self.running.values()]
        # In a thread: the scheduler may have failed.
        cancel = threading.Thread(target=call_quietly, args=(self.client.cancel, futures), daemon=True)
        cancel.start()
        cancel.join(5.0)


def _gather(client: Client, futures: list[Future], results: SimpleQueue[Any]) -> None:
    try:
        results.put(client.gather(futures, errors="skip"))
    except Exception:  # the cluster is shutting down; the watchdog notices
        results.put([])


def call_quietly(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function and log its errors: the cluster it needs may be gone."""
    try:
        function(*arguments)
    except Exception:
        log.debug("%s failed", function, exc_info=True)
