"""CPU time of fills by `regress` and the default network, compared with an earlier revision of the package.

    python -m benchmarks.cost [REVISION]

Both revisions fill the same synthetic cubes in memory, one target date of 512 x 512 pixels on one thread, in turn. The
earlier revision is taken from the history of this repository and needs no installation. The cost of a granule of
10 980 x 10 980 pixels is that of its tiles, each computed once; for models without tiles, that of the same area. The
last lines compare a series, all dates of a cube at once, with its dates one by one.
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
from pathlib import Path

# The revision before the cost of a tile was reduced.
BEFORE = "2af91fd"
ROOT = Path(__file__).parents[1]
EDGE, TURNS = 512, 2
# Dates, bands and edge of the cube whose dates are all filled.
SERIES = (24, 4, 256)
GRANULE = 10980
SIZES = ((24, 4), (24, 10), (60, 10))
# Models, and how much less CPU time each is to take, by numbers of dates and bands.
GOALS: dict[str, dict[tuple[int, int], float]] = {
    "linear": {},
    "regress": {(24, 10): 4.0, (60, 10): 4.0},
    "unet": {(24, 4): 6.0, (60, 10): 12.0},
}
THREADS = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


def cpu_seconds(model: str, dates: int, bands: int) -> float:
    """Return the CPU seconds of a fill of one date with the package on the path, on one thread."""
    import dask

    from xr_cloudfree import fill, synthetic

    _one_thread()
    with dask.config.set(scheduler="synchronous"):
        for edge in (64, EDGE):  # the first compiles and loads
            ds = synthetic.cube(shape=(dates, bands, edge, edge))
            date = ds["time"].to_numpy()[dates // 2]
            start = time.process_time()
            fill(ds, date, model=model, repair=False).compute()
            seconds = time.process_time() - start
    return seconds


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


def granule_hours(model: str, seconds: float) -> float:
    """Return the core-hours of a granule from the seconds of a square of `EDGE` pixels."""
    from xr_cloudfree.engine.answers import parts_of
    from xr_cloudfree.engine.grid import TileGrid
    from xr_cloudfree.models.registry import create

    spec = create(model).spec
    if spec.tile is None:
        return seconds * (GRANULE / EDGE) ** 2 / 3600
    few, many = (
        len(parts_of(grid, grid.cube))
        for grid in (TileGrid((n, n), (n, n), spec.tile, spec.stride, spec.taper) for n in (EDGE, GRANULE))
    )
    return seconds * many / few / 3600


def measure(root: Path, *arguments: object) -> list[float]:
    """Return what this script prints with some arguments, for the package in a folder, in a process of its own."""
    command = [sys.executable, str(Path(__file__)), *map(str, arguments)]
    environment = os.environ | THREADS | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=root)
    return [float(word) for word in done.stdout.splitlines()[-1].split()]


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
        print(f"\nOne date of {EDGE} x {EDGE} pixels, one thread, CPU s, the least of {TURNS}; before: {revision}")
        print(f"{'model':10}{'dates':>7}{'bands':>7}{'before':>9}{'now':>9}{'ratio':>8}{'core-hours a granule':>22}")
        for model, goals in GOALS.items():
            for dates, bands in SIZES:
                turns = [
                    [measure(root, "--one", model, dates, bands)[0] for root in (before, ROOT)] for _ in range(TURNS)
                ]
                old, new = (min(seconds) for seconds in zip(*turns, strict=True))
                goal = f"  goal: ratio >= {goals[dates, bands]:g}" if (dates, bands) in goals else ""
                figures = f"{old:9.2f}{new:9.2f}{old / new:8.1f}{granule_hours(model, new):22.2f}"
                print(f"{model:10}{dates:7}{bands:7}{figures}{goal}", flush=True)
    dates, bands, edge = SERIES
    print(f"\nAll {dates} dates of {edge} x {edge} pixels and {bands} bands, CPU s")
    print(f"{'model':10}{'at once':>9}{'one by one':>12}{'ratio':>8}")
    for model in GOALS:
        together, apart = measure(ROOT, "--series", model)
        print(f"{model:10}{together:9.2f}{apart:12.2f}{together / apart:8.2f}", flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        print(cpu_seconds(sys.argv[2], int(sys.argv[3]), int(sys.argv[4])))
    elif sys.argv[1:2] == ["--series"]:
        series(sys.argv[2])
    else:
        main(*sys.argv[1:])
