"""How often each tile and each corrected mask is computed, and the CPU seconds that this takes, by driver and block.

    python -m benchmarks.sharing [EDGE] [MODEL ...]

The cube has 12 dates, 4 bands, uint16. *Tiles* are those that the model was asked for, beside those that differ; *mask
pixels* are those that the correction of masks was given, with the margins that it takes.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

EDGE, DATES, BANDS = 1024, 12, 4
MODELS = ("linear", "regress", "unet")
# Blocks and shards, in strides of the model, or in 64 pixels for models without tiles.
BLOCKS = (1, 2, 4)


class Counted:
    """A model that remembers what it was asked for."""

    def __init__(self, model: Any) -> None:
        self.model, self.spec, self.run, self.asked = model, model.spec, 0, set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self.model, name)

    def predict(self, tiles: Sequence[Any]) -> list[Any]:
        """One prediction per tile."""
        self.run += len(tiles)
        self.asked |= {hash((obs.bands.tobytes(), obs.clear.tobytes(), obs.day_offset.tobytes())) for obs in tiles}
        return self.model.predict(tiles)


@contextmanager
def corrected(pixels: list[int]) -> Any:
    """Append to `pixels` the number of pixels that each call of the correction of masks is given."""
    from xr_cloudfree.engine import repairs

    original = repairs.repair

    def counted(bands: Any, *args: Any, **options: Any) -> Any:
        pixels.append(bands.shape[-2] * bands.shape[-1])
        return original(bands, *args, **options)

    repairs.repair = counted
    try:
        yield
    finally:
        repairs.repair = original


def ways(cube: Any, folder: Path) -> dict[str, Callable[..., Any]]:
    """Return the drivers: functions of the dates, the model, the block or shard and the other options."""
    import dask

    from xr_cloudfree import fill, io, to_zarr

    cube.to_zarr(folder / "cube.zarr", zarr_format=3, consolidated=False)
    chunked = cube.chunk(time=1, y=256, x=256)
    opened = io.open_cube(folder / "cube.zarr")

    def lazy(date: Any, block: int | None, **options: Any) -> None:
        with dask.config.set(scheduler="synchronous"):
            fill(chunked, date, block=block, **options).compute()

    def streamed(date: Any, block: int | None, **options: Any) -> None:
        to_zarr(opened, folder / "out.zarr", date, shard=block, overwrite=True, **options)

    return {
        "in memory": lambda date, block, **options: fill(cube, date, block=block, **options),
        "lazy": lazy,
        "streamed": streamed,
    }


def measure(run: Callable[..., Any], model: Any, date: Any, block: int | None, repair: bool) -> None:
    """Run one fill, and print what it took."""
    counted, pixels = Counted(model), []
    before = time.process_time(), time.perf_counter()
    with corrected(pixels):
        run(date, block, model=counted, repair=repair)
    cpu, wall = time.process_time() - before[0], time.perf_counter() - before[1]
    tiles = f"{counted.run:8}{len(counted.asked):8}{counted.run / len(counted.asked):8.2f}"
    print(f"{tiles}{sum(pixels):12}{cpu:9.1f}{wall:9.1f}", flush=True)


def main(edge: int, models: Sequence[str]) -> None:
    """Measure each model by each driver, with several blocks, one date and three, with and without corrected masks."""
    import numpy as np

    from xr_cloudfree import synthetic
    from xr_cloudfree.models import registry

    warnings.simplefilter("ignore")
    for name in ("OMP_NUM_THREADS", "NUMBA_NUM_THREADS"):
        os.environ.setdefault(name, "1")
    cube = synthetic.cube(shape=(DATES, BANDS, edge, edge), seed=1)
    small = synthetic.cube(shape=(DATES, BANDS, 64, 64), seed=1)
    print(f"{DATES} dates x {BANDS} bands x {edge} x {edge}")
    head = f"{'model':9}{'dates':>6}{'block':>6}{'masks':>11} {'driver':10}"
    print(f"{head}{'tiles':>8}{'differ':>8}{'ratio':>8}{'mask pixels':>12}{'CPU s':>9}{'wall s':>9}")
    with tempfile.TemporaryDirectory() as folder:
        drivers = ways(cube, Path(folder))
        for name in models:
            model = registry.create(name)
            unit = model.spec.stride or 64
            small.cloudfree.fill(small.time.values[0], model=model, repair=True)  # compile and load before the clock
            blocks: list[int | None] = [None, *(k * unit for k in BLOCKS)]
            for repair in (False, True):
                for block in blocks if not repair else [None, blocks[-1]]:
                    for n_dates in (1, 3) if block is None else (1,):
                        dates = cube.time.values[:: max(DATES // n_dates, 1)][:n_dates]
                        for way, run in drivers.items():
                            given = f"{name:9}{n_dates:6}{block or 'auto':>6}{'corrected' if repair else 'given':>11}"
                            print(f"{given} {way:10}", end="")
                            date = np.datetime64(dates[0]) if n_dates == 1 else list(dates)
                            measure(run, model, date, block, repair)


if __name__ == "__main__":
    given = sys.argv[1:]
    main(int(given[0]) if given else EDGE, tuple(given[1:]) or MODELS)
