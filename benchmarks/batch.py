"""Zarr-to-Zarr throughput: streamed fills, decoding only, dask's median, several workers, and the runner's overhead.

    python -m benchmarks.batch [EDGE ...]

The cube lies in a Zarr store, chunked by scene, as archives deliver it: 24 dates, 8 bands, uint16, half not clear.
Each row is a process of its own, so that none inherits the peak, the compiled kernels or the caches of another. CPU
seconds are those of all threads and, where there are workers, of the workers as well.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

EDGES = (1024, 2048, 4096)
DATES, BANDS, SCENE = 24, 8, 1024
TARGET = "2023-08-05"  # between two dates of the cube
# All dates, with the masks as they are.
HOW: Mapping[str, Any] = {"window": 1000, "repair": False}
REGIONS = 100_000


def make(path: str, edge: int) -> None:
    """Write the cube: a smooth season with noise, and 55 % clouds in squares of 32 pixels."""
    import numpy as np
    import xarray as xr
    import zarr

    rng = np.random.default_rng(0)
    times = np.datetime64("2023-04-01", "ns") + np.arange(DATES) * np.timedelta64(10, "D")
    chunks = {"reflectance": {"chunks": (1, 1, SCENE, SCENE)}, "cloud_mask": {"chunks": (1, SCENE, SCENE)}}
    for i, when in enumerate(times):
        values = rng.integers(300, 4000, (1, BANDS, edge, edge), dtype=np.uint16)
        clouds = np.repeat(np.repeat(rng.random((1, edge // 32, edge // 32)) > 0.45, 32, 1), 32, 2)
        ds = xr.Dataset(
            {
                "reflectance": (("time", "band", "y", "x"), values),
                "cloud_mask": (("time", "y", "x"), clouds.astype(np.uint8)),
            },
            coords={"time": [when], "band": np.array([f"B{n:02d}" for n in range(2, 2 + BANDS)], object)},
        )
        if i == 0:
            ds.to_zarr(path, mode="w", encoding=chunks, consolidated=False)
        else:
            ds.to_zarr(path, append_dim="time", consolidated=False)
    # What is appended would be packed by these, so they come last.
    group = zarr.open_group(path)
    group["reflectance"].attrs.update({"scale_factor": 1e-4, "nodata": 0})
    group["cloud_mask"].attrs.update({"flag_values": [0, 1], "flag_meanings": "clear cloud"})


def opened(path: str) -> Any:
    """Open the cube lazily as digital numbers."""
    import xarray as xr

    return xr.open_zarr(path, mask_and_scale=False, consolidated=False)


def decode(path: str, out: str) -> None:
    """Read and decompress the input of a fill only."""
    import zarr

    group = zarr.open_group(path, mode="r")
    for name in ("reflectance", "cloud_mask"):
        for date in range(DATES):
            group[name][date]


def dask_median(path: str, out: str) -> None:
    """Compute the median with dask: mask, rechunk the dates into one chunk, take the median."""
    ds = opened(path)
    seen = (ds["cloud_mask"] == 0) & (ds["reflectance"] != 0)
    values = ds["reflectance"].where(seen).astype("float32").chunk(time=-1, y=256, x=256)
    values.median("time", skipna=True).to_dataset(name="reflectance").to_zarr(out, mode="w", consolidated=False)


def lazy(model: str) -> Callable[[str, str], None]:
    """Fill lazily and write with xarray and dask."""

    def job(path: str, out: str) -> None:
        from xr_cloudfree import fill

        fill(opened(path), TARGET, **HOW, model=model).to_zarr(out, mode="w", consolidated=False)

    return job


def streamed(model: str) -> Callable[[str, str], None]:
    """Fill with the streaming runner into whole shards, with markers and checksums."""

    def job(path: str, out: str) -> None:
        from xr_cloudfree import to_zarr

        to_zarr(opened(path), out, date=TARGET, **HOW, model=model)

    return job


def batched(workers: int) -> Callable[[str, str], None]:
    """Fill on a LocalCluster with one thread per worker."""

    def job(path: str, out: str) -> None:
        from distributed import Client, LocalCluster

        from xr_cloudfree import batch

        with (
            LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as cluster,
            Client(cluster) as client,
        ):
            client.run(warm)
            start = time.perf_counter(), sum(client.run(time.process_time).values())
            batch(opened(path), out, date=TARGET, **HOW, model="median", client=client, progress=False)
            job.told = {  # type: ignore[attr-defined]
                "wall": time.perf_counter() - start[0],
                "workers": sum(client.run(time.process_time).values()) - start[1],
            }

    return job


JOBS: dict[str, Callable[[str, str], None]] = {
    "decoding alone, one thread": decode,
    "median, streamed": streamed("median"),
    "linear, streamed": streamed("linear"),
    "median, lazy": lazy("median"),
    "median, dask: rechunk + nanmedian": dask_median,
    "median, batch on 1 worker": batched(1),
    "median, batch on 2 workers": batched(2),
}


def _noop(index: int) -> int:
    """Return at once: a region without work."""
    return index


def peak_mib() -> float:
    """Return the peak memory of this process in MiB (ru_maxrss would include that of the parent)."""
    status = Path("/proc/self/status")
    if status.exists():
        told = dict(line.split(":", 1) for line in status.read_text().splitlines() if ":" in line)
        return int(told["VmHWM"].split()[0]) / 1024
    import resource

    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most / 2**20 if sys.platform == "darwin" else most / 1024


def warm() -> None:
    """Import and compile everything before the clock starts, with a run on a small cube."""
    from xr_cloudfree import synthetic, to_zarr

    small = synthetic.cube(shape=(DATES, 2, 32, 32), seed=1)
    with tempfile.TemporaryDirectory() as folder:
        small.to_zarr(f"{folder}/small.zarr", consolidated=False)
        for model in ("median", "linear"):
            to_zarr(opened(f"{folder}/small.zarr"), f"{folder}/{model}.zarr", date=TARGET, **HOW, model=model)


def one(name: str, path: str, out: str) -> None:
    """Run one job in this process and print its cost as JSON."""
    warnings.simplefilter("ignore")
    warm()
    job, before = JOBS[name], peak_mib()
    wall, cpu = time.perf_counter(), time.process_time()
    job(path, out)
    told = {"wall": time.perf_counter() - wall, "cpu": time.process_time() - cpu, "peak": peak_mib(), "import": before}
    told |= getattr(job, "told", {})
    print(json.dumps(told))


def apart(*arguments: str) -> dict[str, float]:
    """Run this module in a separate process and return its last line of output."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.batch", *arguments], check=True, stdout=subprocess.PIPE, text=True
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def runner(regions: int) -> None:
    """Run empty regions on a LocalCluster and print rate and memory over time."""
    import psutil
    from distributed import Client, LocalCluster

    from xr_cloudfree.runner.scheduler import run_regions

    warnings.simplefilter("ignore")
    here, start, done = psutil.Process(), 0.0, 0
    print(f"\nThe runner with {regions} regions without work; scheduler and driver are one process, 2 workers")
    print(f"{'regions':>9}{'wall s':>9}{'regions/s':>11}{'memory MiB':>12}", flush=True)

    def count(answer: int) -> None:
        nonlocal done
        done += 1
        if done in (1000, *range(10_000, regions + 1, 10_000)):
            seconds = time.perf_counter() - start
            memory = here.memory_info().rss / 2**20
            print(f"{done:9}{seconds:9.1f}{done / seconds:11.0f}{memory:12.0f}", flush=True)

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        Client(cluster) as client,
    ):
        start = time.perf_counter()
        run_regions(client, _noop, range(regions), name="nothing", done=count)
        kept = len(cluster.scheduler.tasks)
    print(f"tasks that the scheduler still knew at the end: {kept}")


def overhead(path: str, out: str) -> None:
    """Print the overhead of a region: the same pixels in few and in many regions."""
    from xr_cloudfree import to_zarr

    warnings.simplefilter("ignore")
    warm()
    ds = opened(path).isel(y=slice(SCENE), x=slice(SCENE)).load()
    took = {}
    for shard in (SCENE, 64):
        wall, cpu = time.perf_counter(), time.process_time()
        how: Mapping[str, Any] = {"date": TARGET, **HOW, "model": "median", "block": 64, "shard": shard}
        to_zarr(ds, f"{out}-{shard}.zarr", **how)
        took[shard] = time.perf_counter() - wall, time.process_time() - cpu
    more = (SCENE // 64) ** 2 - 1
    each = [1000 * (many - few) / more for few, many in zip(took[SCENE], took[64], strict=True)]
    print(json.dumps({"wall": each[0], "cpu": each[1]}))


def main(edges: tuple[int, ...] = EDGES) -> None:
    """Measure and print the tables."""
    peaks: dict[str, dict[int, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for edge in edges:
            path = f"{folder}/{edge}.zarr"
            subprocess.run([sys.executable, "-m", "benchmarks.batch", "make", path, str(edge)], check=True)
            print(f"\nZarr to Zarr, {DATES} dates x {BANDS} bands x {edge} x {edge}, chunks of one scene and band")
            print(f"{'':36}{'wall s':>9}{'CPU s':>9}{'MPix/core-s':>13}{'peak MiB':>10}", flush=True)
            took = {}
            for name in JOBS:
                if edge > 2048 and name.startswith("median, dask"):  # takes minutes, and says nothing new
                    continue
                told = took[name] = apart(name, path, f"{folder}/out.zarr")
                subprocess.run(["rm", "-rf", f"{folder}/out.zarr", f"{folder}/out.zarr.journal"], check=True)
                cpu = told.get("workers", 0.0) + told["cpu"]
                told["total"] = cpu
                peaks.setdefault(name, {})[edge] = told["peak"]
                rate = edge**2 / 1e6 / cpu
                print(f"{name:36}{told['wall']:9.1f}{cpu:9.1f}{rate:13.2f}{told['peak']:10.0f}", flush=True)
            alone, ours = took["decoding alone, one thread"]["total"], took["median, streamed"]
            print(f"CPU against decoding alone: {ours['total'] / alone:.2f} x, goal <= 1.3 x")
            if (peer := took.get("median, dask: rechunk + nanmedian")) is not None:
                print(
                    f"dask's rechunk + median against it: {peer['total'] / ours['total']:.1f} x the CPU, "
                    f"{peer['wall'] / ours['wall']:.1f} x the time, goal >= 8 x"
                )
            both = took["median, batch on 1 worker"]["wall"] / took["median, batch on 2 workers"]["wall"]
            print(f"2 workers against 1: {both:.2f} x as fast")
        told = apart("overhead", path, f"{folder}/small")
        print(f"\nA region costs {told['wall']:.1f} ms, {told['cpu']:.1f} ms of CPU, beside its pixels")
    if len(edges) > 1:
        first, last = min(edges), max(edges)
        growth = peaks["median, streamed"][last] / peaks["median, streamed"][first] - 1
        print(f"peak memory, streamed, from {first} to {last} pixels: {growth:+.1%}, goal <= 5 %")
    runner(REGIONS)


if __name__ == "__main__":
    if sys.argv[1:2] == ["make"]:
        make(sys.argv[2], int(sys.argv[3]))
    elif sys.argv[1:2] == ["overhead"]:
        overhead(*sys.argv[2:])
    elif sys.argv[1:2] == ["runner"]:
        runner(int(sys.argv[2]))
    elif len(sys.argv) == 4 and sys.argv[1] in JOBS:
        one(*sys.argv[1:])
    else:
        main(tuple(map(int, sys.argv[1:])) or EDGES)
