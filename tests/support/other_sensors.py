"""Cubes of two sensors of the same place."""

from __future__ import annotations

import xarray as xr

from xr_cloudfree import synthetic

TARGET = "2023-05-31"


def two_sensors(
    shape: tuple[int, int, int, int] = (10, 3, 90, 96), factor: float = 3.0, seed: int = 3
) -> tuple[xr.Dataset, xr.Dataset, xr.DataArray]:
    """Return a cube that shows nothing of the target date, what a coarser sensor saw, and the true image.

    Parameters
    ----------
    shape : tuple of int
        Dates, bands, rows and columns of the cube.
    factor : float
        Size of the coarser pixels.
    seed : int
        Seed of the landscape and its clouds.
    """
    cube = synthetic.cube(shape, seed=seed, dtype="float32", cloud_share=0.25)
    clear = cube.cloudfree.clear_mask()
    truth = xr.concat(
        [synthetic.truth(str(day)[:10], shape, seed=seed) for day in cube.time.values], "time", coords="minimal"
    ).assign_coords(time=cube.time)
    seen = synthetic.coarser(truth.where(truth > -1), xr.ones_like(clear), factor, slope=0.97, offset=0.004)
    hidden = cube.assign(cloud_mask=cube.cloud_mask.where(cube.time != cube.time.sel(time=TARGET), 1))
    return hidden, seen, truth.sel(time=TARGET, drop=True)
