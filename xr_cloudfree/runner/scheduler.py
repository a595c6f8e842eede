"""Regions on a dask cluster: one future each, a few in flight, and an error in place of a wait without end.

It knows nothing of cubes and stores: `work` is any function of a region's number. A graph of all regions would not fit
into a scheduler; a rolling window of futures does, however many regions there are.
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
    """Who is there to work.

    Parameters
    ----------
    threads : int
        Of all workers.
    gpus : int
        That all workers announce together.
    hosts : dict of str to int
        Threads of all workers on each machine.
    """

    threads: int
    gpus: int
    hosts: dict[str, int]


def census(client: Client, resume: str = RESUME) -> Census:
    """Count the workers, in one question to the scheduler.

    Raises
    ------
    RunError
        If there is no scheduler any more.
    """
    try:
        return Census(*client.run_on_scheduler(_count))
    except Exception as error:
        raise RunError(
            f"the scheduler does not answer: {type(error).__name__}: {error}", "a cluster that runs", resume
        ) from error


def _count(dask_scheduler: Any) -> tuple[int, int, dict[str, int]]:
    """Runs on the scheduler; client.scheduler_info() leaves out workers in some versions."""
    threads, gpus = 0, 0.0
    hosts: dict[str, int] = {}
    for worker in dask_scheduler.workers.values():
        threads += worker.nthreads
        gpus += worker.resources.get("GPU", 0)
        hosts[worker.host] = hosts.get(worker.host, 0) + worker.nthreads
    return threads, int(gpus), hosts


def distributed() -> Any:
    """The package of that name.

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
    """Refuse what is no dask client, and one that cannot be waited for.

    Raises
    ------
    OptionTypeError
        If it is no client.
    OptionError
        If it is asynchronous, or closed.
    """
    if not isinstance(client, distributed().Client):
        raise OptionTypeError(
            f"client is a {type(client).__name__}", "a dask.distributed.Client", "client=dask.distributed.Client()"
        )
    if client.asynchronous or getattr(client, "_asynchronous", False):
        raise OptionError(
            "the client is asynchronous", "one that can be waited for", "client=dask.distributed.Client(address)"
        )
    if client.status != "running":
        raise OptionError(
            f"the client is {client.status}", "one that is connected", "client=dask.distributed.Client(address)"
        )


@dataclass(frozen=True)
class _One:
    """What a task runs; the answer carries the region's number, so that answers may come in any order."""

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
    window: int = 4,
    retries: int = 2,
    stall: float = 900.0,
    gpu: bool = False,
    resume: str = RESUME,
) -> None:
    """Run regions on a cluster until each has succeeded, or has failed for good.

    Parameters
    ----------
    client : distributed.Client
        Of any cluster.
    work : callable
        From a region's number to a small answer. It is sent with each task, so it has to be small as well.
    indices : iterable of int
        Regions to do. They are taken one after the other, as room is made for them.
    name : str
        Tasks are called ``cloudfree-<name>-<run>-<index>``; the dashboard shows ``cloudfree-<name>``.
    done : callable
        Called here with each answer.
    window : int
        Regions in flight for each thread of the cluster.
    retries : int
        How often a region that failed is tried again. One that took its worker down with it is tried again when all
        others are done, and alone.
    stall : float
        Seconds without a finished region, or without a worker, after which to give up.
    gpu : bool
        Run only where workers announce a GPU, one region at a time on each.
    resume : str
        What to type to go on after an error.

    Raises
    ------
    RunError
        When all is over, if regions failed; it names them. Or at once if the cluster is gone, or stands still.
    OptionError
        If GPUs are asked for and no worker announces one.
    """
    _Run(client, _One(work), iter(indices), name, done, window, retries, stall, gpu, resume).run()


@dataclass
class _Run:
    client: Client
    one: _One
    todo: Iterator[int]
    name: str
    done: Callable[[Any], None]
    window: int
    retries: int
    stall: float
    gpu: bool
    resume: str
    token: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    again: deque[int] = field(default_factory=deque)
    alone: deque[int] = field(default_factory=deque)
    attempts: dict[int, int] = field(default_factory=dict)
    failed: dict[int, BaseException] = field(default_factory=dict)
    running: dict[Any, tuple[int, Future]] = field(default_factory=dict)
    ended: Queue[Future] = field(default_factory=Queue)
    n_done: int = 0
    slots: int = 0
    counted: float = float("-inf")
    moved: float = field(default_factory=time.monotonic)

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
        """Put regions in flight, as many as there is room for; whether some wait."""
        self._look_around()
        room = self.slots * (1 if self.gpu else self.window) - len(self.running)
        batch: dict[str, int] = {}
        while len(batch) < room:
            index = self._next(alone=not (self.running or batch))
            if index is None:
                break
            attempt = self.attempts.get(index, 0)
            # A name of its own for each try: a failed one may not have been forgotten yet.
            batch[f"cloudfree-{self.name}-{self.token}-{index}" + (f"-{attempt}" if attempt else "")] = index
        if batch:
            resources = {GPU: 1} if self.gpu else None
            futures = self.client.map(self.one, batch.values(), key=list(batch), pure=False, resources=resources)
            for (key, index), future in zip(batch.items(), futures, strict=True):
                self.running[key] = (index, future)
                future.add_done_callback(self.ended.put)
        return bool(self.again or self.alone) or len(batch) == room

    def _next(self, alone: bool) -> int | None:
        index = next(self.todo, None)
        if index is not None:
            return int(index)
        if self.again:
            return self.again.popleft()
        # Nobody else's work is lost if it takes its worker down once more.
        return self.alone.popleft() if self.alone and alone else None

    def _look_around(self) -> None:
        now = time.monotonic()
        if self.client.status not in ("running", "connecting"):
            raise RunError(
                f"the client is {self.client.status}: the scheduler is gone", "a cluster that runs", self.resume
            )
        if now - self.counted < _COUNT_EVERY:
            return
        found = census(self.client, self.resume)
        self.slots, first = (found.gpus if self.gpu else found.threads), self.counted == float("-inf")
        self.counted = now
        if self.gpu and found.threads and not found.gpus and (first or not self.n_done):
            raise OptionError(
                f"none of the workers, which have {found.threads} threads, announces a GPU",
                "workers that were started with the resource GPU",
                "dask worker ADDRESS --resources GPU=1, LocalCUDACluster(resources={'GPU': 1}), or gpu=False",
            )

    def _collect(self) -> None:
        """Take what has ended within a second."""
        ended: dict[Any, Future] = {}
        with suppress(Empty):
            future = self.ended.get(timeout=1.0)
            while True:
                ended[future.key] = future
                future = self.ended.get_nowait()
        known = {key: future for key, future in ended.items() if key in self.running}
        succeeded = {self.running[key][0]: key for key, future in known.items() if future.status == "finished"}
        for index, answer in self._answers([known[key] for key in succeeded.values()]):
            self._forget(succeeded[index])
            self.n_done += 1
            self.moved = time.monotonic()
            self.done(answer)
        left = [known[key] for key in known if key in self.running]
        for future in left:
            if future.status in ("error", "cancelled"):
                self._failed(future)
        # A worker died before the answer was fetched, which is no failure of the region: it is on its way again.
        waiting = [future for future in left if future.key in self.running]
        if waiting:
            time.sleep(0.1)
        for future in waiting:
            future.add_done_callback(self.ended.put)

    def _answers(self, futures: list[Future]) -> list[tuple[int, Any]]:
        """Answers of tasks that have ended, fetched together."""
        if not futures:
            return []
        box: SimpleQueue[Any] = SimpleQueue()
        # In a thread: if a worker dies now, this waits for another one to do its work, and the watch has to go on.
        threading.Thread(target=_gather, args=(self.client, futures, box), daemon=True).start()
        until = time.monotonic() + min(_GATHER_WITHIN, self.stall)
        while time.monotonic() < until:
            with suppress(Empty):
                return [answer for answer in box.get(timeout=0.2) if answer is not None]
            if any(future.status != "finished" for future in futures):
                return []  # nor are the other answers to wait for the one that was lost
        return []

    def _forget(self, key: Any) -> int:
        index, future = self.running.pop(key)
        future.release()
        return index

    def _failed(self, future: Future) -> None:
        from distributed.scheduler import KilledWorker

        error = future.exception() if future.status == "error" else RuntimeError(f"the task is {future.status}")
        index = self._forget(future.key)
        self.attempts[index] = self.attempts.get(index, 0) + 1
        # What is wrong with a cube or an option stays wrong; what a disk, a network or memory refuse may pass.
        final = isinstance(error, CloudfreeError) and not isinstance(error, OSError | MemoryError)
        if final or self.attempts[index] > self.retries:
            self.failed[index] = error
            self.moved = time.monotonic()
            log.warning("region %d failed: %s: %s", index, type(error).__name__, error)
        else:
            (self.alone if isinstance(error, KilledWorker) else self.again).append(index)
            log.warning("region %d is tried again: %s: %s", index, type(error).__name__, error)

    def _watch(self) -> None:
        waited = time.monotonic() - self.moved
        if waited < self.stall:
            return
        if not self.slots:
            found, needed = f"there has been no worker for {waited:.0f} s", "a cluster with workers"
        else:
            found = f"no region was finished within {waited:.0f} s, and {len(self.running)} are under way"
            needed = f"a region every {self.stall:g} s, or more patience (stall=)"
        raise RunError(found, needed, self.resume)

    def _cancel(self) -> None:
        if not self.running:
            return
        futures = [future for _, future in self.running.values()]
        # In a thread: the scheduler may be what has failed.
        cancel = threading.Thread(target=quietly, args=(self.client.cancel, futures), daemon=True)
        cancel.start()
        cancel.join(5.0)


def _gather(client: Client, futures: list[Future], box: SimpleQueue[Any]) -> None:
    try:
        box.put(client.gather(futures, errors="skip"))
    except Exception:  # the cluster is going; the watch finds out
        box.put([])


def quietly(function: Callable[..., Any], *arguments: Any) -> None:
    """Call a function that may fail because there is nobody left who could be asked."""
    try:
        function(*arguments)
    except Exception:  # there is nobody left who could be asked
        log.debug("%s failed", function, exc_info=True)
