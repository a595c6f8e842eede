"""CPU time of fills by `regress` and the default network, compared with an earlier revision of the package.

    python -m benchmarks.cost [REVISION]

Both revisions fill the same synthetic cubes in memory, one target date of 512 x 512 pixels on one thread, in turn. The
earlier revision is taken from the history of this repository and needs no installation. The cost of a granule of
10 980 x 10 980 pixels is that of the same area; tiles that blocks share are counted as often as they are computed here.
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
GRANULE = 10980
SIZES = ((24, 4), (24, 10), (60, 10))
# Models, and how much less CPU time each is to take, by numbers of dates and bands.
GOALS: dict[str, dict[tuple[int, int], float]] = {
    "linear": {},
    "regress": {(24, 10): 4.0, (60, 10): 4.0},
    "unet": {(24, 4): 6.0, (60, 10): 12.0},
}
THREADS = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


def one(model: str, dates: int, bands: int) -> None:
    """Print the CPU seconds of a fill with the package on the path."""
    import dask

    from xr_cloudfree import fill, synthetic

    warnings.simplefilter("ignore")
    if model == "unet":
        import torch

        torch.set_num_threads(1)
    with dask.config.set(scheduler="synchronous"):
        for edge in (64, EDGE):  # the first compiles and loads
            ds = synthetic.cube(shape=(dates, bands, edge, edge))
            date = ds["time"].to_numpy()[dates // 2]
            start = time.process_time()
            fill(ds, date, model=model, repair=False).compute()
            seconds = time.process_time() - start
    print(seconds)


def measure(root: Path, model: str, dates: int, bands: int) -> float:
    """Return the CPU seconds of a fill by the package in a folder, in a process of its own."""
    command = [sys.executable, str(Path(__file__)), "--one", model, str(dates), str(bands)]
    environment = os.environ | THREADS | {"PYTHONPATH": str(root)}
    done = subprocess.run(command, check=True, capture_output=True, text=True, env=environment, cwd=root)
    return float(done.stdout.split()[-1])


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
                turns = [[measure(root, model, dates, bands) for root in (before, ROOT)] for _ in range(TURNS)]
                old, new = (min(seconds) for seconds in zip(*turns, strict=True))
                hours = new * (GRANULE / EDGE) ** 2 / 3600
                goal = f"  goal: ratio >= {goals[dates, bands]:g}" if (dates, bands) in goals else ""
                print(
                    f"{model:10}{dates:7}{bands:7}{old:9.2f}{new:9.2f}{old / new:8.1f}{hours:22.2f}{goal}", flush=True
                )


if __name__ == "__main__":
    if sys.argv[1:2] == ["--one"]:
        one(sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
    else:
        main(*sys.argv[1:])
