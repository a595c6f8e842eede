"""CPU time of fills by `regress` and the default network, compared with an earlier revision of the package.

    python -m benchmarks.cost [REVISION]

Both revisions fill the same synthetic cubes in memory, one target date of 512 x 512 pixels on one thread, in turn. The
earlier revision is taken from the history of this repository and needs no installation. The cost of a granule of
10 980 x 10 980 pixels is that of a tile times the tiles that the revision computes for it, those that it computes
several times included; for models without tiles, that of the same area. The last lines compare a series, all dates of
a cube at once, with its dates one by one.
"""

from __future__ import annotations

import io
import os
import subprocess
import sys
import tarfile
import tempfile
import time
import warnings
from functools import cache
from pathlib import Path
from typing import Any

# The revision before the cost of a tile was reduced.
BEFORE = "2af91fd"
ROOT = Path(__file__).parents[1]
EDGE, TURNS = 512, 2
# Dates, bands and edge of the cube whose dates are all filled.
SERIES = (24, 4, 256)
GRANULE = 10980
SIZES = ((24, 4), (24, 10), (60, 10))
MODELS = ("linear", "regress", "unet")
# Of a granule, by model, dates and bands.
GOALS = {
    ("regress", 24, 10): ("ratio >= 4",),
    ("regress", 60, 10): ("ratio >= 4",),
    ("unet", 24, 4): ("ratio >= 6", "<= 0.4 core-hours"),
    ("unet", 60, 10): ("ratio >= 12", "<= 1.5 core-hours"),
}
THREADS = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


def one(model: str, dates: int, bands: int) -> None:
    """Print the CPU seconds of a fill of one date with the package on the path, on one thread, and its tiles."""
    import dask

    from xr_cloudfree import fill, synthetic
    from xr_cloudfree.models.registry import create

    _one_thread()
    created = create(model)
    predict, tiles = created.predict, 0

    def counted(given: Any) -> Any:
        nonlocal tiles
        tiles += len(given)
        return predict(given)

    created.predict = counted  # type: ignore[method-assign]
    with dask.config.set(scheduler="synchronous"):
        for edge in (64, EDGE):  # the first compiles and loads
            ds = synthetic.cube(shape=(dates, bands, edge, edge))
            date, tiles = ds["time"].to_numpy()[dates // 2], 0
            start = time.process_time()
            fill(ds, date, model=created, repair=False)
            seconds = time.process_time() - start
    print(seconds, tiles)


def granule(model: str, dates: int, bands: int) -> None:
    """Print how many tiles the package on the path computes for a granule; 0 for a model without tiles."""
    import dask.array
    import numpy as np
    import xarray as xr

    from xr_cloudfree import synthetic
    from xr_cloudfree.plan import plan_fill

    warnings.simplefilter("ignore")
    small = synthetic.cube(shape=(dates, bands, 64, 64))
    sizes = {**small.sizes, "y": GRANULE, "x": GRANULE}

    def large(array: Any) -> Any:
        shape = tuple(sizes[dim] for dim in array.dims)
        return array.dims, dask.array.zeros(shape, dtype=array.dtype, chunks=1024), array.attrs

    place = {dim: small[dim].to_numpy()[0] + 10.0 * np.arange(GRANULE) for dim in ("y", "x")}
    rest = {name: coord for name, coord in small.coords.items() if not {"y", "x"} & set(coord.dims)}
    arrays = {name: large(array) if "y" in array.dims else array for name, array in small.data_vars.items()}
    ds = xr.Dataset(arrays, rest | place, small.attrs)
    grid = plan_fill(ds, ds["time"].to_numpy()[dates // 2], model=model, check=False).job.grid
    if grid.tile is None:
        print(0)
        return
    try:  # each tile once
        from xr_cloudfree.engine.answers import parts_of
    except ImportError:  # each block computes its tiles
        print(sum(len({tile.extent for tile in grid.tiles(block)}) for block in grid.blocks()))
    else:
        print(len(parts_of(grid, grid.cube)))


def series(model: str) -> None:
    """Print the CPU seconds of a fill of all dates at once, and of the dates one by one."""
    from xr_cloudfree import fill, synthetic

    _one_thread()
    dates, bands, size = SERIES
    for edge in (64, size):
        ds = synthetic.cube(shape=(dates, bands, edge, edge))
        clock = [time.process_time()]
        for chosen in ([None], ds["time"].to_numpy()):
            for date in chosen:
                fill(ds, date, model=model, repair=False)
            clock.append(time.process_time())
    print(clock[1] - clock[0], clock[2] - clock[1])


def _one_thread() -> None:
    warnings.simplefilter("ignore")
    try:
        import torch
    except ImportError:
        return  # models without torch are measured all the same
    torch.set_num_threads(1)


def measure(root: Path, *arguments: object) -> list[float]:
    """Return what this script prints with some arguments, for the package in a folder, in a process of its own."""
    command = [sys.executable, str(Path(__file__)), *map(str, arguments)]
    environment = os.environ | THREADS | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=root)
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


@cache
def granule_tiles(root: Path, model: str, dates: int, bands: int) -> float:
    """Return how many tiles a package computes for a granule; 0 for a model without tiles."""
    [many] = measure(root, "--granule", model, dates, bands)
    return many


def costs(root: Path, model: str, dates: int, bands: int) -> tuple[float, float]:
    """Return the CPU seconds of a square of `EDGE` pixels and the core-hours of a granule, for a package."""
    seconds, tiles = measure(root, "--one", model, dates, bands)
    many = granule_tiles(root, model, dates, bands)
    times = many / tiles if many else (GRANULE / EDGE) ** 2
    return seconds, seconds * times / 3600


def extract(revision: str, folder: Path) -> bool:
    """Write the package of a revision into a folder; return False if there is no such revision here."""
    command = ["git", "-C", str(ROOT), "archive", revision, "xr_cloudfree"]
    try:
        archive = subprocess.run(command, check=True, capture_output=True).stdout
    except (subprocess.CalledProcessError, FileNotFoundError):
        return False
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(folder, filter="data")
    return True


def main(revision: str = BEFORE) -> None:
    """Measure and print the table."""
    with tempfile.TemporaryDirectory() as folder:
        if not extract(revision, before := Path(folder)):
            print(f"\nCost before and after: not measured, the history of the repository lacks {revision}")
            return
        print(f"\nOne date on one thread, the least of {TURNS} turns; before: {revision}")
        print(f"{'':24}{f'CPU s, {EDGE} x {EDGE} pixels':>25}{'core-hours, a granule':>25}")
        columns = f"{'before':>9}{'now':>8}{'ratio':>8}"
        print(f"{'model':10}{'dates':>7}{'bands':>7}{columns}{columns}")
        for model in MODELS:
            for dates, bands in SIZES:
                turns = [[costs(root, model, dates, bands) for root in (before, ROOT)] for _ in range(TURNS)]
                old, new = (min(of_revision) for of_revision in zip(*turns, strict=True))
                text = "".join(f"{a:9.2f}{b:8.2f}{a / b:8.1f}" for a, b in zip(old, new, strict=True))
                goals = GOALS.get((model, dates, bands), ())
                print(f"{model:10}{dates:7}{bands:7}{text}{''.join(f'  goal: {goal}' for goal in goals)}", flush=True)
    dates, bands, edge = SERIES
    print(f"\nAll {dates} dates of {edge} x {edge} pixels and {bands} bands, CPU s")
    print(f"{'model':10}{'at once':>9}{'one by one':>12}{'ratio':>8}")
    for model in MODELS:
        together, apart = measure(ROOT, "--series", model)
        print(f"{model:10}{together:9.2f}{apart:12.2f}{together / apart:8.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["--granule"]:
        granule(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    elif sys.argv[1:2] == ["--series"]:
        series(sys.argv[2])
    else:
        main(*sys.argv[1:])
