"""Tiles per second of a learned model on a GPU, the share of time in kernels, differences from a CPU, and memory.

    python -m benchmarks.gpu [--tiles N] [--edge PIXELS] [--dates N] [--bands N] [--model NAME] [--device DEVICE]

Tiles are in memory, each on a part of its own of a synthetic cube, on a GPU as large as the model's; the target date is
about half clear. The rate is in tiles of 256 x 256 pixels, by area. *Wall* and *processor* seconds are of whole calls
of the model, which prepares as many tiles in parallel as torch has threads; *fits and forests* are those that stay on
the processor where a device prepares tiles. Without a GPU the same path is measured on the CPU, by default on few small
tiles, and nothing is said about kernels.
"""

from __future__ import annotations

import argparse
import platform
import resource
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any

# Tiles that are compared with a CPU; edge, in pixels, of the tiles that rates are given in.
COMPARED, UNIT = 4, 256
GOALS = {"rate": 150.0, "kernels": 0.7, "difference": 1e-3}


def make_tiles(number: int, edge: int, dates: int, bands: int) -> list[Any]:
    """Return tiles in reflectance, with clouds, for the date in the middle."""
    import numpy as np

    from xr_cloudfree import synthetic
    from xr_cloudfree.models.protocol import Observations

    tiles = []
    for seed in range(number):
        cube = synthetic.cube((dates, bands, edge, edge), seed=seed)
        values = cube["reflectance"].to_numpy().astype(np.float32) * np.float32(1e-4)
        days = (cube["time"].to_numpy() - cube["time"].to_numpy()[dates // 2]) / np.timedelta64(1, "D")
        draw = np.random.default_rng(seed)
        step = max(1, edge // 16)
        clouds = draw.normal(size=(dates, -(-edge // step), -(-edge // step))).repeat(step, 1).repeat(step, 2)
        clear = clouds[:, :edge, :edge] > np.where(np.arange(dates) == dates // 2, 0.0, -0.5)[:, None, None]
        tiles.append(Observations(values, clear, days.astype(np.float64), dates // 2))
    return tiles


@contextmanager
def timed(owner: Any, *names: str) -> Iterator[dict[str, float]]:
    """Add up the seconds that the threads spend in functions of a module or class, by name."""
    spent, lock = dict.fromkeys(names, 0.0), threading.Lock()

    def timing(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(run)
        def call(*given: Any, **how: Any) -> Any:
            start = time.thread_time()
            done = run(*given, **how)
            with lock:
                spent[name] += time.thread_time() - start
            return done

        return call

    original = {name: getattr(owner, name) for name in names}
    for name, run in original.items():
        setattr(owner, name, timing(name, run))
    try:
        yield spent
    finally:
        for name, run in original.items():
            setattr(owner, name, run)


@contextmanager
def prepared(on_device: bool) -> Iterator[None]:
    """Prepare tiles on the device of the network, or on the processor."""
    from xr_cloudfree.models.pretrained import runtime

    original, runtime.prepares_on = runtime.prepares_on, lambda device: on_device
    try:
        yield
    finally:
        runtime.prepares_on = original


def predict(model: Any, tiles: list[Any]) -> tuple[list[Any], float, float]:
    """Return the predictions, and the wall and processor seconds; calls are as large as in a run."""
    at_once = max(model.tiles_at_once, 1)
    wall, processor, answers = time.perf_counter(), time.process_time(), []
    for start in range(0, len(tiles), at_once):
        answers += model.predict(tiles[start : start + at_once])
    return answers, time.perf_counter() - wall, time.process_time() - processor


def share_in_kernels(model: Any, tiles: list[Any]) -> float:
    """Return the share of the wall time in which at least one kernel runs on the GPU."""
    import torch
    from torch.autograd import DeviceType
    from torch.profiler import ProfilerActivity, profile

    torch.cuda.synchronize()
    with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as record:
        _, wall, _ = predict(model, tiles)
        torch.cuda.synchronize()
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in record.events()
        if event.device_type == DeviceType.CUDA and not event.name.startswith(("Memcpy", "Memset"))
    )
    busy, last = 0.0, 0.0
    for start, end in spans:  # microseconds; kernels of several streams may overlap
        busy += max(0.0, end - max(start, last))
        last = max(last, end)
    return busy / 1e6 / wall


def difference(model: Any, exact: Any, tiles: list[Any]) -> float:
    """Return the largest difference in reflectance from the model that runs and is prepared on a CPU."""
    import numpy as np

    with prepared(on_device=False):
        expected = exact.predict(tiles)
    found = model.predict(tiles)
    return max(float(np.abs(a.bands - b.bands).max()) for a, b in zip(found, expected, strict=True))


def against(value: float, goal: str) -> str:
    """Return a goal for a figure, and whether it is met."""
    least = goal != "difference"
    met = value >= GOALS[goal] if least else value <= GOALS[goal]
    return f"goal {'>=' if least else '<='} {GOALS[goal]:g}: {'met' if met else 'NOT met'}"


def main() -> None:
    """Measure and print the tables."""
    import torch

    from xr_cloudfree import from_pretrained
    from xr_cloudfree.models.networks import on_device

    gpu = torch.cuda.is_available()
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu", description=__doc__.splitlines()[0])
    parser.add_argument("--device", default="cuda" if gpu else "cpu")
    parser.add_argument("--tiles", type=int, default=64 if gpu else 2)
    parser.add_argument("--edge", type=int, help="pixels; by default those of the model's tiles, on a CPU 96")
    parser.add_argument("--dates", type=int, default=24)
    parser.add_argument("--bands", type=int, default=4)
    parser.add_argument("--model", default="unet")
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    gpu = given.device != "cpu"
    exact = from_pretrained(given.model, "cpu")
    edge = given.edge or ((exact.spec.tile or UNIT) if gpu else 96)
    tiles = make_tiles(given.tiles, edge, given.dates, given.bands)
    name = torch.cuda.get_device_name(given.device) if gpu else platform.processor() or platform.machine()
    print(f"\n{given.model}: {given.tiles} tiles of {edge}² x {given.dates} x {given.bands}, {name}")
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads")
    print(f"\n{'prepared by':14}{'precision':>10}{f'{UNIT}²/s':>9}{'processor s a tile':>20}{'fits and forests':>18}")
    models = {precision: from_pretrained(given.model, given.device, precision) for precision in ("fp32", "bf16")}
    rates = {}
    for precision, model in models.items() if gpu else [("fp32", exact)]:
        for where in ("processor", "device"):
            with (
                prepared(where == "device"),
                timed(on_device, "fit_ground") as fits,
                timed(on_device.DeviceSeries, "features") as columns,  # within the fits, on the device
                timed(on_device.on_processor, "grow_forests") as forests,
            ):
                predict(model, tiles[:2])  # compiles and loads
                for spent in (fits, columns, forests):
                    spent.update(dict.fromkeys(spent, 0.0))
                _, wall, processor = predict(model, tiles)
            n = len(tiles)
            rates[precision, where] = n / wall * (edge / UNIT) ** 2
            own = fits["fit_ground"] - columns["features"] + forests["grow_forests"]
            own = own / n if where == "device" else float("nan")
            print(f"{where:14}{precision:>10}{rates[precision, where]:9.1f}{processor / n:20.3f}{own:18.3f}")
    if gpu:
        print(f"\ntiles of {UNIT} x {UNIT} pixels per second: {against(max(rates.values()), 'rate')}")
    with prepared(on_device=True):
        for precision, model in models.items() if gpu else [("fp32", exact)]:
            largest = difference(model, exact, tiles[:COMPARED])
            print(f"largest difference from a CPU, {precision}: {largest:.1e}, {against(largest, 'difference')}")
        if gpu:
            torch.cuda.reset_peak_memory_stats()
            share = share_in_kernels(models["fp32"], tiles)
            print(f"share of the time in kernels: {share:.0%}, {against(share, 'kernels')}")
            print(f"peak memory of the GPU: {torch.cuda.max_memory_allocated() / 2**20:.0f} MiB")
        else:
            print("time in kernels and memory of a GPU: not measured, there is none")
    print(f"peak memory of the process: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
