"""The scheduler of regions with workers that die, without a scheduler, and with regions that always fail."""

import os
import signal
import subprocess
import sys
import threading
import time

import dask
import pytest

from tests.support.work import Failing, Greedy, Killing, Noted
from xr_cloudfree import errors

distributed = pytest.importorskip("distributed")

from tests.support.clusters import KillSome, cluster, pids  # noqa: E402
from xr_cloudfree.runner.scheduler import run_regions  # noqa: E402

pytestmark = [
    pytest.mark.slow,
    pytest.mark.xdist_group("clusters"),
    pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="processes are killed with SIGKILL"),
    # Workers that are killed leave connections behind.
    pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning"),
]


def run(client, work, n, **options):
    answers = []
    run_regions(client, work, range(n), name="test", done=answers.append, **options)
    return sorted(answers)


def test_a_region_that_kills_its_worker_once_is_done_by_another(tmp_path):
    work = Killing(str(tmp_path), 0.02, victims=(3, 17, 31))
    with cluster() as client:
        assert run(client, work, 40) == list(range(40))
    assert [work.times("begun", i) for i in (3, 17, 31)] == [2, 2, 2]


def test_a_region_that_kills_every_worker_is_named_and_the_others_are_done(tmp_path):
    work = Killing(str(tmp_path), 0.02, victims=(5,), times_each=10**9)
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        cluster() as client,
        pytest.raises(errors.RunError, match=r"region 5 failed, and 19 were done.*KilledWorker") as info,
    ):
        run(client, work, 20, retries=1)
    assert isinstance(info.value, RuntimeError) and "same call again" in info.value.remedy
    assert all(work.times("done", i) for i in range(20) if i != 5)


@pytest.mark.parametrize("share", [0.2, 0.45, 0.7])
def test_kill_a_worker_from_outside(tmp_path, share):
    work, n = Noted(str(tmp_path), 0.05), 60
    with cluster() as client:
        victim = pids(client)[0]

        def strike():
            while len(list(tmp_path.glob("done-*"))) < share * n:
                time.sleep(0.01)
            os.kill(victim, signal.SIGKILL)

        striker = threading.Thread(target=strike)
        striker.start()
        assert run(client, work, n) == list(range(n))
        striker.join()
        assert victim not in pids(client)


@pytest.mark.parametrize("mode", ["sys.exit", "graceful", "segfault"])
def test_workers_that_die_at_random(tmp_path, mode):
    work = Noted(str(tmp_path), 0.1)
    with dask.config.set({"distributed.scheduler.allowed-failures": 20}), cluster(again=True) as client:
        before = set(pids(client))
        client.register_plugin(KillSome(tmp_path / "killed", "2 s", mode))
        assert run(client, work, 80) == list(range(80))
        assert work.times("done", "*") >= 80
        assert before != set(pids(client))


def test_answers_that_die_with_their_workers_are_no_failures(tmp_path):
    work, answers = Noted(str(tmp_path)), []

    def strike(answer):
        if not answers:
            time.sleep(2)  # the other regions in flight are done meanwhile, and nobody has fetched their answers
            for victim in pids(client):
                os.kill(victim, signal.SIGKILL)
            time.sleep(1)  # and the scheduler has noticed
        answers.append(answer)

    with cluster() as client:
        run_regions(client, work, range(40), name="test", done=strike, retries=0)
    assert sorted(answers) == list(range(40))
    assert work.times("begun", "*") > 40


def test_errors_that_pass_and_errors_that_stay(tmp_path):
    passing = Failing(str(tmp_path), victims=(1, 2), times_each=2)
    staying = Failing(
        str(tmp_path / "b"), victims=(3,), error=errors.ScalingError("digits", "reflectance", "scale=1e-4")
    )
    (tmp_path / "b").mkdir()
    with cluster(processes=False) as client:
        assert run(client, passing, 10) == list(range(10))
        with pytest.raises(errors.RunError, match=r"region 3 failed, and 9 were done; region 3: digits") as info:
            run(client, staying, 10)
    assert staying.times("begun", 3) == 1  # what is wrong with the cube stays wrong
    assert "scale=1e-4" in info.value.remedy and isinstance(info.value.__cause__, errors.ScalingError)


def test_a_cluster_without_workers(tmp_path):
    with cluster(workers=0) as client:
        start = time.monotonic()
        with pytest.raises(errors.RunError, match="no worker") as info:
            run(client, Noted(str(tmp_path)), 5, stall=3)
        assert time.monotonic() - start < 20
        assert "same call again" in info.value.remedy


def test_workers_that_all_go_away(tmp_path):
    with cluster(workers=1) as client:
        threading.Timer(2.0, lambda: client.cluster.scale(0)).start()
        with pytest.raises(errors.RunError, match="no worker"):
            run(client, Noted(str(tmp_path), 0.1), 1000, stall=4)
        assert list(tmp_path.glob("done-*"))


def test_a_region_that_hangs(tmp_path):
    with cluster(workers=1, processes=False) as client, pytest.raises(errors.RunError, match="no region was finished"):
        run(client, Noted(str(tmp_path), 6.0), 2, stall=2)


def test_a_gpu_that_is_not_there(tmp_path):
    with cluster(processes=False) as client:
        start = time.monotonic()
        with pytest.raises(errors.OptionError, match="GPU") as info:
            run(client, Noted(str(tmp_path)), 5, gpu=True)
        assert time.monotonic() - start < 5
    assert "--resources GPU=1" in info.value.remedy


def test_gpus_do_one_region_at_a_time(tmp_path):
    with cluster(workers=1, threads_per_worker=4, processes=False, resources={"GPU": 1}) as client:
        work = Noted(str(tmp_path), 0.05)
        assert run(client, work, 8, gpu=True) == list(range(8))
    spans = sorted((min(int(p.name.split("-")[2]) for p in tmp_path.glob(f"begun-{i}-*")), i) for i in range(8))
    ends = {i: int(next(tmp_path.glob(f"done-{i}-*")).name.split("-")[2]) for i in range(8)}
    assert all(begun >= ends[before] for (begun, _), (_, before) in zip(spans[1:], spans, strict=False))


def test_a_worker_out_of_memory(tmp_path):
    work = Greedy(str(tmp_path), 0.02, victims=(2,))
    limits = {"distributed.scheduler.allowed-failures": 0, "distributed.worker.memory.spill": False}
    with (
        dask.config.set(limits),
        cluster(memory_limit="400 MiB") as client,
        pytest.raises(errors.RunError, match=r"region 2 failed, and 11 were done"),
    ):
        run(client, work, 12, stall=300)


def test_kill_the_scheduler(tmp_path):
    address = str(tmp_path / "scheduler.json")
    told = ["--scheduler-file", address, "--no-dashboard"]
    processes = [
        subprocess.Popen(
            [sys.executable, "-m", f"distributed.cli.dask_{who}", *told, *more],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        for who, more in (("scheduler", ["--port", "0"]), ("worker", ["--nthreads", "1", "--death-timeout", "60"]))
    ]
    try:
        with dask.config.set({"distributed.comm.timeouts.connect": "3s"}):
            client = distributed.Client(scheduler_file=address, timeout=120)
            client.wait_for_workers(1, timeout=120)
            threading.Timer(1.5, processes[0].kill).start()
            start = time.monotonic()
            with pytest.raises(errors.RunError, match="scheduler") as info:
                run(client, Noted(str(tmp_path), 0.1), 1000, stall=20)
            assert time.monotonic() - start < 180
            assert "same call again" in info.value.remedy
            client.close(timeout=2)
    finally:
        for process in processes:
            process.kill()
            process.wait()
