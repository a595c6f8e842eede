"""Rate at which training samples are made, compared with the rate of training steps.

Run ``python -m benchmarks.training``. Samples per second of the wall clock, on the machine as it is:

- *made anew*: the data module alone, each sample prepared from the cube;
- *from the pool*: the data module alone, once its samples have been made;
- *network alone*: training steps on one batch that is there;
- *training*: both together, as a training has it after its first epoch.
"""

from __future__ import annotations

import argparse
import time
import warnings
from collections.abc import Callable, Iterator
from itertools import islice, repeat
from pathlib import Path
from typing import Any

import torch
import yaml

from xr_cloudfree_training.cases import Mixture
from xr_cloudfree_training.cli import find_recipe
from xr_cloudfree_training.data import PREFETCH, Crop, CubeData
from xr_cloudfree_training.lit import FusionModule
from xr_cloudfree_training.samples import TrainingBatch

SAMPLE = Path(__file__).parents[1] / "data" / "s2_portugal.zarr"


def steps(module: FusionModule, device: str) -> Callable[[TrainingBatch], None]:
    """Return a function that runs one training step without Lightning's logging."""
    network = module.network.to(device).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4)

    def step(batch: TrainingBatch) -> None:
        there = batch.to(device)
        with torch.autocast(device, torch.bfloat16, enabled=device == "cuda"):
            output = network(there.given)
        losses = module._losses(output, there, there.counted)
        optimizer.zero_grad()
        torch.stack([module.weights[name] * loss for name, loss in losses.items()]).sum().backward()
        optimizer.step()

    return step


def rate(
    batches: Iterator[TrainingBatch],
    work: Callable[[TrainingBatch], Any],
    batch_size: int,
    count: int,
    device: str,
    warm: int = 2,
) -> float:
    """Return samples per second over `count` batches after `warm` warm-up batches."""
    for batch in islice(batches, warm):
        work(batch)
    start = time.perf_counter()
    for batch in islice(batches, count):
        work(batch)
    if device == "cuda":
        torch.cuda.synchronize()
    return count * batch_size / (time.perf_counter() - start)


def main() -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(description="Samples per second in training.")
    parser.add_argument("--data", nargs="+", default=[str(SAMPLE)], help="cubes")
    parser.add_argument("--recipe", default="unet-plus")
    parser.add_argument("--batches", type=int, default=8)
    parser.add_argument("--workers", type=int)
    options = parser.parse_args()
    warnings.simplefilter("ignore")
    device = "cuda" if torch.cuda.is_available() else "cpu"
    recipe = yaml.safe_load(find_recipe(options.recipe).read_text())
    how: dict[str, Any] = recipe["data"] | {"architecture": recipe["model"]["architecture"], "workers": options.workers}
    how["mixture"], how["crop"] = Mixture(**how.get("mixture", {})), Crop(**how["crop"]) if "crop" in how else None
    batch_size = how["batch_size"]
    anew = CubeData(options.data, **how | {"pool": 0, "cache": None, "validation": 1})
    # What the workers have made before the clock starts is not counted, and they work on until it stops.
    ahead, count = PREFETCH * anew.workers, max(options.batches, 4 * anew.workers)
    warm = 2 + ahead
    samples = batch_size * (warm + count + ahead)
    anew.samples = samples
    pooled = CubeData(options.data, **how | {"pool": samples, "cache": None, "samples": samples, "validation": 1})
    torch.manual_seed(0)
    step = steps(FusionModule(bands=anew.bands, **recipe["model"] | {"pretrained": False}), device)
    nothing: Callable[[TrainingBatch], None] = lambda batch: None  # noqa: E731
    rates = {"made anew": rate(iter(anew.train_dataloader()), nothing, batch_size, count, device, warm)}
    loader = pooled.train_dataloader()
    batches = iter(loader)
    first = next(batches)
    for _ in batches:  # makes all of the pool
        pass
    rates["from the pool"] = rate(iter(loader), nothing, batch_size, count, device, warm)
    rates["network alone"] = rate(repeat(first), step, batch_size, count, device)
    rates["training"] = rate(iter(loader), step, batch_size, count, device, warm)
    print(f"{options.recipe}, batches of {batch_size}, {anew.workers} workers, {device}")
    for name, value in rates.items():
        print(f"{name:14} {value:8.1f} samples/s")
    print(f"training reaches {rates['training'] / rates['network alone']:.0%} of the network alone")


if __name__ == "__main__":
    main()
