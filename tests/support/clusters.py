"""Local clusters whose workers can be killed."""

import os
import random
import time
from contextlib import contextmanager
from pathlib import Path

import dask
import pytest

distributed = pytest.importorskip("distributed")
from distributed.chaos import KillWorker  # noqa: E402


class KillSome(KillWorker):
    """Kills the first few workers only: a machine on which they take longer to start than to die would never end."""

    def __init__(self, folder, delay, mode, most=4):
        super().__init__(delay, mode)
        self.folder, self.most = Path(folder), most

    async def setup(self, worker):
        self.folder.mkdir(exist_ok=True)
        if len(list(self.folder.iterdir())) < self.most:
            (self.folder / str(os.getpid())).touch()
            self.worker = worker
            # Not at once, or the test's own call that registers this would fail with a worker that dies, and not
            # later than expected, or there would be runs in which nobody dies.
            delay = 0.5 + min(random.expovariate(1 / self.delay), self.delay)
            kill = getattr(self, self.mode.replace(".", "_"))
            worker.loop.asyncio_loop.call_later(delay, kill)


@contextmanager
def cluster(workers=2, again=False, **options):
    """`again` brings back workers that ended while they started, as cluster managers do."""
    options = {"threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": 50} | options
    # A local cluster gives up workers that take longer than this to come back. On a busy machine they do, and are
    # missed where nobody starts others in their stead.
    patient = {"distributed.deploy.lost-worker-timeout": "3 s" if again else "300 s"}
    with (
        dask.config.set(patient),
        distributed.LocalCluster(n_workers=workers, **options) as local,
        distributed.Client(local) as client,
    ):
        if workers and again:
            local.adapt(minimum=workers, maximum=workers)
        yield client


def pids(client):
    """Processes of the workers that answer; some may be about to come back."""
    while not (found := client.run(os.getpid, on_error="ignore")):
        time.sleep(0.1)
    return list(found.values())
