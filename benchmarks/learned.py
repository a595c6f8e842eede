"""Cost of a fill with the default network, lazy and streamed, compared with its forward pass, and its parts.

    python -m benchmarks.learned [EDGE]

The cube lies in a Zarr store, chunked by scene: 12 dates, 4 bands, uint16. *The network alone* is the model on the very
tiles that the fill asks for, their halos included, kept in memory; the preparation of its input is included.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from functools import wraps
from importlib.util import find_spec
from pathlib import Path
from typing import Any

EDGE, DATES, BANDS = 1024, 12, 4
CORES = 2
MODEL = "unet"
# Frames of the sample on which forests are compared.
FRAMES = 4
SAMPLE = Path(__file__).parents[1] / "data" / "s2_portugal.zarr"


class Recorder:
    """Model that predicts linearly and records the tiles that it is given; of equal tiles the first."""

    def __init__(self, spec: Any) -> None:
        self.spec, self.tiles, self._first = spec, [], {}

    def predict(self, tiles: Sequence[Any]) -> list[Any]:
        """One prediction per tile."""
        from xr_cloudfree.models.classical.pixelwise import Linear

        for obs in tiles:
            self.tiles.append(self._first.setdefault(hash((obs.bands.tobytes(), obs.clear.tobytes())), obs))
        return Linear().predict(tiles)


class Clock:
    """Wall and CPU seconds of all threads."""

    def __enter__(self) -> Clock:
        self.start = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *raised: object) -> None:
        self.wall, self.cpu = time.perf_counter() - self.start[0], time.process_time() - self.start[1]


def one(store: str, device: str, cores: int) -> None:
    """Fill the cube, then run the network alone on the same tiles, and print both costs."""
    import os

    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])  # before anything counts them
    import resource
    from concurrent.futures import ThreadPoolExecutor

    import dask
    import torch
    import xarray as xr
    from dask.system import CPU_COUNT

    from xr_cloudfree import fill, from_pretrained, to_zarr

    warnings.simplefilter("ignore")
    model = from_pretrained(MODEL, device)
    ds = xr.open_zarr(store, mask_and_scale=False, consolidated=False)
    date = ds["time"].to_numpy()[DATES // 2]

    def lazy(out: str, model: Any) -> None:
        fill(ds, date, model=model, repair=False).to_zarr(out, consolidated=False)

    def streamed(out: str, model: Any) -> None:
        to_zarr(ds, out, date=date, model=model, repair=False)

    filled, peaks, asked = {}, {}, {}
    with tempfile.TemporaryDirectory() as folder:  # compile and load before the clock starts
        small = ds.isel(y=slice(256), x=slice(256)).load()
        to_zarr(small, f"{folder}/small.zarr", date=date, model=model, repair=False)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with tempfile.TemporaryDirectory() as folder:
        # Streaming goes first: it holds less, and the peak of a process never falls.
        for name, run in (("streamed", streamed), ("lazy", lazy)):
            with Clock() as filled[name]:
                run(f"{folder}/{name}.zarr", model)
            peaks[name] = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
        for name, run in (("streamed", streamed), ("lazy", lazy)):
            recorder = Recorder(model.spec)
            with dask.config.set(scheduler="synchronous"):
                run(f"{folder}/{name} tiles.zarr", recorder)
            asked[name] = recorder.tiles
    threads = cores or CPU_COUNT

    def alone(tiles: list[Any]) -> Clock:
        with ThreadPoolExecutor(threads) as pool, Clock() as clock:
            for _ in pool.map(lambda tile: model.predict([tile]), tiles):
                pass
        return clock

    edge = ds.sizes["x"]
    print(f"\nFrom Zarr to Zarr: {DATES} dates x {BANDS} bands x {edge} x {edge}, {device}, {threads} threads")
    print(f"{'':44}{'wall s':>9}{'CPU s':>9}{'peak MiB':>10}")
    for name, goal in (("streamed", 1.2), ("lazy", 1.5)):
        fill_took, tiles = filled[name], asked[name]
        within = "  goal < 60 s" if name == "lazy" and device == "cpu" and edge == EDGE else ""
        network = alone(tiles)
        print(f"{f'{name} fill with {MODEL}':44}{fill_took.wall:9.1f}{fill_took.cpu:9.1f}{peaks[name]:10.0f}{within}")
        told = f"network alone, its {len(tiles)} tiles, {len(set(map(id, tiles)))} distinct"
        print(f"{told:44}{network.wall:9.1f}{network.cpu:9.1f}")
        print(f"CPU against the network alone: {fill_took.cpu / network.cpu:.2f} x, goal <= {goal} x")
        if device != "cpu":
            print(f"throughput against the network alone: {network.wall / fill_took.wall:.0%}, goal >= 90 %")
    tiles = asked["lazy"]
    if device != "cpu":
        exact = model.predict([tiles[0]])[0].bands
        rough = from_pretrained(MODEL, device, "bf16").predict([tiles[0]])[0].bands
        error = abs(exact - rough)
        print(f"bf16 against fp32: {error.mean():.1e} in the mean, {error.max():.1e} at most, goal <= 1e-3")
    torch.set_num_threads(1)
    middle = tiles[len(tiles) // 2]
    print(f"\nOne tile of {middle.shape[0]} x {middle.shape[1]} pixels, one thread, CPU s")
    for name, seconds in parts(model, middle).items():
        print(f"{name:34}{seconds:9.2f}")


def parts(model: Any, obs: Any) -> dict[str, float]:
    """Return CPU seconds of the parts of a fill with a network."""
    import torch

    from xr_cloudfree.models.classical.pixelwise import Linear
    from xr_cloudfree.models.classical.regress import Regress
    from xr_cloudfree.models.networks import features
    from xr_cloudfree.models.networks.batch import Batch

    spent: dict[str, float] = {}

    def timed(name: str, run: Callable[..., Any]) -> Callable[..., Any]:
        @wraps(run)
        def timing(*given: Any, **how: Any) -> Any:
            with Clock() as clock:
                done = run(*given, **how)
            spent[name] = spent.get(name, 0.0) + clock.cpu
            return done

        return timing

    timed("linear", Linear().predict)([obs])
    timed("regress", Regress().predict)([obs])
    network, device = model._network()
    forests, gate = features._nonlinear, network.gate.forward
    features._nonlinear, network.gate.forward = timed("  of it forests", forests), timed("  of it gate", gate)
    try:
        prepared = timed("what the network is given", network.prepare)(obs)
        batch = Batch.of([prepared]).to(device)
        with torch.inference_mode():
            timed("network", network)(batch)
    finally:
        features._nonlinear, network.gate.forward = forests, gate
    spent["  of it U-Net"] = spent["network"] - spent["  of it gate"]
    order = ("linear", "regress", "what the network is given", "  of it forests", "network", "  of it gate")
    return {name: spent[name] for name in (*order, "  of it U-Net") if name in spent}


def forests() -> None:
    """Compare our extremely randomised trees with scikit-learn's for the same trees, leaves and samples."""
    import numpy as np
    import xarray as xr

    from xr_cloudfree import api
    from xr_cloudfree.accuracy.simulate import make_cases
    from xr_cloudfree.cube.scaling import to_reflectance
    from xr_cloudfree.models.classical import robust_ridge
    from xr_cloudfree.models.classical.regress import fit_target
    from xr_cloudfree.models.classical.series import Series
    from xr_cloudfree.models.kernels import extra_trees
    from xr_cloudfree.models.networks import features
    from xr_cloudfree.models.protocol import Observations

    if find_spec("sklearn") is None:
        print("\nOur forest beside scikit-learn's: not measured, pip install scikit-learn")
        return
    from sklearn.ensemble import ExtraTreesRegressor

    with xr.open_zarr(SAMPLE, decode_coords="all", mask_and_scale=False, chunks=None) as ds:
        understood = api.read(ds)
        bands = to_reflectance(ds["reflectance"].to_numpy(), understood.scaling)
        clear, suspect = api.clear_mask(ds, repair=False).to_numpy(), ds["suspect"].to_numpy()
    totals = {name: np.zeros(3) for name in ("ours", "scikit-learn")}
    without, number = 0.0, 0
    for case in make_cases(bands, clear, understood.times, "partial", suspect=suspect, limit=FRAMES):
        obs = Observations(
            case.bands, case.clear, case.day_offset, case.target, common_names=understood.cube.common_names
        )
        found = fit_target(obs, series := Series.of(obs))
        if found is None:
            continue
        shape, where = obs.shape, np.flatnonzero(case.scored)
        samples = robust_ridge.thin(np.flatnonzero(found.weight > features.LEAST_WEIGHT), shape, features.SAMPLES)
        places = np.indices(shape).reshape(2, -1) / np.float32(features.PIXELS)

        def inputs(pixels: Any, found: Any = found, places: Any = places) -> Any:
            standard = found.ground.fit.standard(found.features[:, pixels])
            return np.ascontiguousarray(np.concatenate([standard, places[:, pixels]]).T, np.float32)

        seen, asked = inputs(samples), inputs(where)
        values = np.ascontiguousarray((found.error - found.fitted)[:, samples].T, np.float32)
        weight = found.weight[samples].astype(np.float32)
        base = series.image + found.fitted
        left = (case.truth.reshape(base.shape) - base)[:, where].T
        without, number = without + float(np.sqrt(np.square(left).mean())), number + 1

        def theirs(seen: Any = seen, values: Any = values, weight: Any = weight) -> Any:
            trees = ExtraTreesRegressor(
                extra_trees.TREES,
                min_samples_leaf=extra_trees.LEAF,
                max_features=min(extra_trees.CANDIDATES, seen.shape[1]),
                random_state=0,
                n_jobs=1,
            )
            return trees.fit(seen, values, sample_weight=weight).predict

        def ours(seen: Any = seen, values: Any = values, weight: Any = weight) -> Any:
            grown = extra_trees.grow(seen, values, weight)
            return lambda pixels: grown(pixels)[0]

        ours()(asked[:1])  # compiled before the clock starts
        for name, grow in (("ours", ours), ("scikit-learn", theirs)):
            with Clock() as growing:
                told = grow()
            with Clock() as asking:
                answer = told(asked)
            totals[name] += growing.cpu, asking.cpu, np.sqrt(np.square(left - answer).mean())
    print(
        f"\nForests of {extra_trees.TREES} trees on the residual of regress, "
        f"means over {number} frames of the sample, CPU s"
    )
    print(f"{'':34}{'grow':>9}{'ask':>9}{'RMSE at hidden pixels':>24}")
    print(f"{'no forest':34}{'':18}{without / number:24.5f}")
    for name, (growing, asking, error) in ((name, total / number) for name, total in totals.items()):
        print(f"{name:34}{growing:9.3f}{asking:9.3f}{error:24.5f}")


def main(edge: int = EDGE) -> None:
    """Measure and print the tables."""
    if find_spec("torch") is None:
        print("\nLearned models: not measured, pip install 'xr-cloudfree[torch]'")
        return
    import torch

    from xr_cloudfree import synthetic

    warnings.simplefilter("ignore")
    with tempfile.TemporaryDirectory() as folder:
        store = f"{folder}/cube.zarr"
        ds = synthetic.cube(shape=(DATES, BANDS, edge, edge), chunks={"time": 1, "y": 512, "x": 512})
        ds.to_zarr(store, consolidated=False)
        for device, cores in (("cpu", CORES), *([("cuda", 0)] if torch.cuda.is_available() else [])):
            command = [sys.executable, "-m", "benchmarks.learned", store, device, str(cores)]
            subprocess.run(command, check=True)
    forests()


if __name__ == "__main__":
    if len(sys.argv) == 4:
        one(sys.argv[1], sys.argv[2], int(sys.argv[3]))
    else:
        main(*map(int, sys.argv[1:]))
