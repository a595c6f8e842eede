"""Peak memory of a lazy fill into Zarr, above that of the imports.

    python -m benchmarks.memory [EDGE ...]

Each row is a process of its own, so that one does not inherit the peak of another.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
import warnings

EDGES = (1024, 2048, 3072)
# model, chunks; the date was observed, so that regress has something to learn from.
ROWS = (
    ("linear", {"time": 1, "y": 1024, "x": 1024}),
    ("median", {"time": 1, "y": 1024, "x": 1024}),
    ("auto", {"time": 24, "y": 256, "x": 256}),
    ("auto", {"time": 1, "y": 512, "x": 512}),
)


def one(model: str, edge: int, chunks: dict[str, int]) -> None:
    """Fill one synthetic cube and print seconds and megabytes."""
    import resource

    import zarr  # noqa: F401  (part of what importing takes)

    from xr_cloudfree import fill, synthetic
    from xr_cloudfree.models.kernels import dispatch as kernels

    warnings.simplefilter("ignore")
    kernels.median  # noqa: B018  (so is numba)
    small = synthetic.cube(shape=(24, 4, 32, 32))
    fill(small, "2023-08-09", model=model, repair=False)
    ds = synthetic.cube(shape=(24, 4, edge, edge), chunks=chunks)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        image = fill(ds, "2023-08-09", model=model, repair=False)
        image.to_zarr(f"{folder}/out.zarr", consolidated=False)
    seconds = time.perf_counter() - start
    above = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    cube = 24 * 4 * edge**2 * 2 / 2**20
    where = " x ".join(str(n) for n in chunks.values())
    print(f"{model:8}{edge:7}{where:>20}{seconds:9.1f}{cube:11.0f}{above:11.0f}", flush=True)


def main(edges: tuple[int, ...] = EDGES) -> None:
    """Run every row and print the table."""
    print("\nA lazy fill into Zarr: 24 dates x 4 bands, uint16, one observed date")
    print(
        f"{'model':8}{'edge':>7}{'chunks t x y x x':>20}{'wall s':>9}{'cube MiB':>11}{'peak MiB':>11}",
        flush=True,
    )
    for model, chunks in ROWS:
        for edge in edges:
            subprocess.run([sys.executable, "-m", "benchmarks.memory", model, str(edge), repr(chunks)], check=True)


if __name__ == "__main__":
    if len(sys.argv) == 4:
        import ast

        one(sys.argv[1], int(sys.argv[2]), ast.literal_eval(sys.argv[3]))
    else:
        main(tuple(map(int, sys.argv[1:])) or EDGES)
