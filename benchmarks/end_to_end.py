"""Zarr-to-Zarr cost of a median composite and a linear fill, compared with dask's rechunk and median.

    python -m benchmarks.end_to_end [EDGE]

The cube lies in a Zarr store, chunked by scene, as archives deliver it: 24 dates, 8 bands, uint16.
"""

from __future__ import annotations

import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import xarray as xr

import xr_cloudfree

DATES, BANDS, EDGE = 24, 8, 2048


def make(path: Path, edge: int) -> None:
    """Write the cube: smooth fields with noise, half of the pixels not clear."""
    rng = np.random.default_rng(0)
    times = np.datetime64("2023-04-01", "ns") + np.arange(DATES) * np.timedelta64(10, "D")
    encoding = {
        "reflectance": {"chunks": (1, 1, 1024, 1024)},
        "cloud_mask": {"chunks": (1, 1024, 1024)},
    }
    for i, when in enumerate(times):
        values = rng.integers(300, 4000, (1, BANDS, edge, edge), dtype=np.uint16)
        clouds = np.repeat(np.repeat(rng.random((1, edge // 32, edge // 32)) > 0.45, 32, 1), 32, 2)
        ds = xr.Dataset(
            {
                "reflectance": (("time", "band", "y", "x"), values),
                "cloud_mask": (("time", "y", "x"), clouds.astype(np.uint8)),
            },
            coords={"time": [when], "band": np.arange(BANDS)},
        )
        if i == 0:
            ds.to_zarr(path, mode="w", encoding=encoding, consolidated=False)
        else:
            ds.drop_attrs().to_zarr(path, append_dim="time", consolidated=False)


def open_cube(path: Path) -> xr.Dataset:
    """Open the store lazily as digital numbers."""
    ds = xr.open_zarr(path, mask_and_scale=False, consolidated=False)
    ds["reflectance"].attrs = {"scale_factor": 1e-4, "_FillValue": 0}
    ds["cloud_mask"].attrs = {"flag_values": np.array([0, 1], np.uint8), "flag_meanings": "clear cloud"}
    return ds.assign_coords(band=[f"B{i:02d}" for i in range(2, 2 + BANDS)])


def fill(ds: xr.Dataset, model: str) -> xr.Dataset:
    """Fill one date with a model of the package."""
    return xr_cloudfree.fill(ds, "2023-08-05", model=model, window=1000, repair=False)


def peer(ds: xr.Dataset) -> xr.Dataset:
    """Compute the same median with dask: mask, rechunk the dates into one chunk, take the median."""
    clear = ds["reflectance"].where((ds["cloud_mask"] == 0) & (ds["reflectance"] != 0)).astype("float32")
    return clear.chunk(time=-1, y=256, x=256).median("time", skipna=True).to_dataset(name="reflectance")


def measure(job: Callable[[], object]) -> tuple[float, float]:
    """Return wall and CPU seconds of a job."""
    wall, cpu = time.perf_counter(), time.process_time()
    job()
    return time.perf_counter() - wall, time.process_time() - cpu


def main(edge: int = EDGE) -> None:
    """Measure and print the table."""
    warnings.filterwarnings("ignore", "Consolidated metadata")
    warnings.filterwarnings("ignore", "All-NaN slice")
    warnings.filterwarnings("ignore", category=FutureWarning)
    with tempfile.TemporaryDirectory() as folder:
        store, out = Path(folder) / "cube.zarr", Path(folder) / "out.zarr"
        make(store, edge)
        ds = open_cube(store)
        small = ds.isel(y=slice(64), x=slice(64)).load()
        for model in ("median", "linear"):  # compile before the clock starts
            fill(small, model)

        def write(made: xr.Dataset) -> None:
            made.to_zarr(out, mode="w", consolidated=False)

        rows = [
            ("decoding alone", lambda: [ds["reflectance"][i].load() for i in range(DATES)]),
            ("median, ours", lambda: write(fill(ds, "median"))),
            ("linear, ours", lambda: write(fill(ds, "linear"))),
            ("median, dask: rechunk + nanmedian", lambda: write(peer(ds))),
        ]
        print(f"\nZarr to Zarr, {DATES} dates x {BANDS} bands x {edge} x {edge}, chunks of one scene and band")
        print(f"{'':36}{'wall s':>9}{'CPU s':>9}{'MPix/core-s':>13}")
        cpu = {}
        for name, job in rows:
            wall, cpu[name] = measure(job)
            print(f"{name:36}{wall:9.1f}{cpu[name]:9.1f}{edge**2 / 1e6 / cpu[name]:13.2f}")
        print(
            f"ours against dask's: {cpu[rows[3][0]] / cpu[rows[1][0]]:.1f} x less CPU; "
            f"against decoding alone: {cpu[rows[1][0]] / cpu[rows[0][0]]:.2f} x"
        )


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
