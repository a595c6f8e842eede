"""Cost of filling and training with the TerraMind pathway by encoder size, with random weights.

    python -m benchmarks.terramind [fill|train|gpu|all] [SIZE …]

*Encoder*, *network* and *prepared* are of one tile of 256 x 256 pixels, 12 dates and 4 bands, on two cores; *fill* is a
lazy fill from Zarr to Zarr, per tile that the network is asked for, and *model alone* the model on the very same tiles.
Training is on one batch that is there, in crops of 224 x 224 pixels, without and with checkpointing.

*gpu*, where there is one: crops of 224 x 224 pixels in bf16, in batches that are doubled as long as they fit and it
makes samples a fiftieth faster. *Share* is what is reached of the rate of a product of two matrices of 8192 x 8192,
measured in the same process.
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.learned import BANDS, CORES, DATES, Clock, Recorder, cut

EDGE, TILE, CROP, BATCH = 512, 256, 224, 2
SIZES = ("tiny", "base")
PRECISIONS = ("fp32", "bf16")
WHAT = ("fill", "train", "gpu")


def make_bundle(folder: str, size: str) -> None:
    """Write a bundle of this size: weights of the default network for the base, random weights elsewhere."""
    import yaml

    from xr_cloudfree_training.cli import find_recipe
    from xr_cloudfree_training.lit import FusionModule

    told = yaml.safe_load(find_recipe(f"terramind-{size}").read_text())["model"]
    module = FusionModule("terramind", told["config"], base="unet", spec=told["spec"])
    module.save_bundle(Path(folder), f"terramind-{size}", "# Random weights\n")


def best(run: Callable[[], Any], repeats: int = 3) -> float:
    """Return wall milliseconds: best of several repeats after a warm-up."""
    run()
    found = []
    for _ in range(repeats):
        with Clock() as clock:
            run()
        found.append(clock.wall * 1e3)
    return min(found)


def fill_one(size: str, precision: str) -> None:
    """Measure one row of the first table, in a separate process."""
    import torch
    import xarray as xr

    from xr_cloudfree import fill, from_pretrained, synthetic
    from xr_cloudfree.models.networks.batch import Batch

    torch.set_num_threads(CORES)
    with tempfile.TemporaryDirectory() as folder:
        make_bundle(f"{folder}/model", size)
        model = from_pretrained(f"local-dir:{folder}/model", "cpu", precision)
        store = f"{folder}/cube.zarr"
        made = synthetic.cube(shape=(DATES, BANDS, EDGE, EDGE), chunks={"time": 1, "y": EDGE, "x": EDGE})
        made.to_zarr(store, consolidated=False)
        ds = xr.open_zarr(store, mask_and_scale=False, consolidated=False)
        date = ds["time"].to_numpy()[DATES // 2]
        tile = cut(ds.load(), date)
        network, _ = model._network()
        obs = tile((0, 0, TILE, TILE))
        prepared = best(lambda: network.make_input(obs), 1)
        batch, image = Batch.of([network.make_input(obs)]), torch.randn(1, 12, TILE, TILE)
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
            encoder, whole = best(lambda: network.tokens(image)), best(lambda: network(batch))
        ds = xr.open_zarr(store, mask_and_scale=False, consolidated=False)
        recorder = Recorder(model.spec)
        fill(ds, date, model=recorder, repair=False).compute(scheduler="synchronous")
        asked = recorder.asked
        with Clock() as filled:
            fill(ds, date, model=model, repair=False).to_zarr(f"{folder}/out.zarr", consolidated=False)
        with Clock() as alone:
            for first in range(0, len(asked), model.spec.batch):
                model.predict([tile(where) for where in asked[first : first + model.spec.batch]])
    each, ratio = filled.wall * 1e3 / len(asked), filled.cpu / alone.cpu
    figures = (encoder, whole, prepared, each, filled.cpu, alone.cpu, ratio)
    print(f"{size:7}{precision:6}" + "".join(f"{value:10.0f}" for value in figures[:4]), end="")
    print("".join(f"{value:10.1f}" for value in figures[4:6]) + f"{ratio:9.2f}", flush=True)


def train_one(size: str, checkpointing: str) -> None:
    """Measure one row of the second table, in a separate process."""
    import torch

    from benchmarks.training import steps
    from xr_cloudfree import synthetic
    from xr_cloudfree_training.data import Crop, CubeData
    from xr_cloudfree_training.lit import FusionModule
    from xr_cloudfree_training.stages import enter

    torch.set_num_threads(CORES)
    how: dict[str, Any] = {"size": CROP, "crop": Crop(CROP, BANDS, 10), "batch_size": BATCH, "samples": BATCH}
    cube = synthetic.cube(shape=(DATES, BANDS, 256, 384), seed=1, cloud_share=0.3)
    data = CubeData([cube], architecture="terramind", validation=1, workers=0, **how)
    batch = next(iter(data.train_dataloader()))
    module = FusionModule("terramind", {"size": size}, base="unet", checkpointing=checkpointing == "yes", lr=1e-4)
    enter(module.network, module.plan.stages[0])
    step = steps(module, "cpu")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    taken = []
    for _ in range(3):
        start = time.perf_counter()
        step(batch)
        taken.append(time.perf_counter() - start)
    more = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    count = sum(p.numel() for p in module.network.parameters()) / 1e6
    print(f"{size:7}{checkpointing:>14}{count:14.1f}{BATCH / min(taken):13.2f}{more:15.0f}", flush=True)


def matrix_rate() -> float:
    """Return TFLOP/s of a large bf16 matrix product."""
    import torch

    edge = 8192
    a, b = (torch.randn(edge, edge, device="cuda", dtype=torch.bfloat16) for _ in range(2))
    seconds = on_gpu(lambda: a @ b, 10)
    return 2 * edge**3 / seconds / 1e12


def on_gpu(run: Callable[[], Any], repeats: int = 5) -> float:
    """Return GPU seconds: median of several repeats after two warm-ups."""
    import torch

    for _ in range(2):
        run()
    taken = []
    for _ in range(repeats):
        torch.cuda.synchronize()
        with Clock() as clock:
            run()
            torch.cuda.synchronize()
        taken.append(clock.wall)
    return sorted(taken)[repeats // 2]


def gpu_one(size: str, kind: str) -> None:
    """Measure one row of the third table, in a separate process: filling, or a training step of all parts."""
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    from benchmarks.training import steps
    from xr_cloudfree import synthetic
    from xr_cloudfree_training.data import Crop, CubeData
    from xr_cloudfree_training.lit import FusionModule
    from xr_cloudfree_training.samples import TrainingBatch
    from xr_cloudfree_training.stages import Stage, enter

    ceiling = matrix_rate()
    cube = synthetic.cube(shape=(DATES, BANDS, 256, 384), seed=1, cloud_share=0.3)
    how: dict[str, Any] = {"size": CROP, "crop": Crop(CROP, BANDS, 10), "batch_size": 1, "samples": 1}
    data = CubeData([cube], architecture="terramind", validation=1, workers=0, **how)
    sample = data.sets["train"][0]
    checkpointing = kind == "train, checkpointing"
    module = FusionModule("terramind", {"size": size}, base="unet", checkpointing=checkpointing, lr=1e-4)
    enter(module.network, Stage(1.0, "full", 1e-4, encoder_lr=1e-4, base_lr=1e-4))

    def fill(batch: TrainingBatch) -> None:
        with torch.inference_mode(), torch.autocast("cuda", torch.bfloat16):
            module.network(batch.given)

    learn = steps(module, "cuda")  # puts the network there
    if kind == "fill":
        module.network.eval()
    step = fill if kind == "fill" else learn
    found = (0, 0.0, 0.0, 0)
    count = 1
    while True:
        try:
            batch = TrainingBatch.of([sample] * count).to("cuda")
            torch.cuda.reset_peak_memory_stats()
            rate = count / on_gpu(lambda batch=batch: step(batch))  # type: ignore[misc]
            peak = torch.cuda.max_memory_allocated()
            if rate < found[1] * 1.02:
                break
            with FlopCounterMode(display=False) as counter:
                step(batch)
        except torch.OutOfMemoryError:
            break
        found = (count, rate, counter.get_total_flops() / count, peak)
        count *= 2
        del batch
    count, rate, flops, peak = found
    if not count:
        print(f"{size:7}{kind:22}{'does not fit':>12}", flush=True)
        return
    reached = rate * flops / 1e12
    print(f"{size:7}{kind:22}{count:8}{rate:13.1f}{peak / 2**30:9.1f}", end="")
    print(f"{flops / 1e9:11.0f}{reached:11.1f}{reached / ceiling:8.1%}", flush=True)


def main() -> None:
    """Measure and print the tables."""
    import torch

    parser = argparse.ArgumentParser(description="Speed and memory of the TerraMind pathway.")
    parser.add_argument("what", nargs="?", default="all", choices=[*WHAT, "all", *(f"{one}-one" for one in WHAT)])
    parser.add_argument("sizes", nargs="*", default=list(SIZES))
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    if options.what == "fill-one":
        return fill_one(*options.sizes)
    if options.what == "train-one":
        return train_one(*options.sizes)
    if options.what == "gpu-one":
        return gpu_one(*options.sizes)
    if find_spec("terratorch") is None:
        print("\nTerraMind: not measured, pip install 'xr-cloudfree[terramind,train]'")
        return None
    tables = {
        "fill": (
            f"{'':13}{'encoder':>10}{'network':>10}{'prepared':>10}{'fill':>10}{'fill':>10}{'alone':>10}\n"
            f"{'size':7}{'':6}" + f"{'ms/tile':>10}" * 4 + f"{'CPU s':>10}" * 2 + f"{'ratio':>9}  goal <= 1.05",
            PRECISIONS,
        ),
        "train": (
            f"{'size':7}{'checkpointing':>14}{'M parameters':>14}{'samples/s':>13}{'more MiB':>15}",
            ("no", "yes"),
        ),
        "gpu": (
            f"{'size':7}{'':22}{'batch':>8}{'samples/s':>13}{'GiB':>9}{'GFLOP each':>11}{'TFLOP/s':>11}{'share':>8}",
            ("fill", "train", "train, checkpointing"),
        ),
    }
    for what, (title, kinds) in tables.items():
        if options.what not in (what, "all"):
            continue
        if what == "gpu" and not torch.cuda.is_available():
            print("\nTerraMind on a GPU: not measured, there is none")
            continue
        where = torch.cuda.get_device_name() if what == "gpu" else f"CPU, {CORES} threads"
        print(f"\nTerraMind, {what}, {where}\n{title}", flush=True)
        for size in options.sizes:
            for kind in kinds:
                subprocess.run([sys.executable, "-m", "benchmarks.terramind", f"{what}-one", size, kind], check=True)
    return None


if __name__ == "__main__":
    main()
