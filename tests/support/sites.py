"""Sites in which each value occurs once."""

from __future__ import annotations

import numpy as np
import xarray as xr

from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree_training.sites import Site

BANDS = ("blue", "green", "red", "nir", "swir16")


def make_place(name="field", dates=30, bands=BANDS, shape=(40, 48), step=5.0, cloudy=0.5, seed=0):
    """A place of known values, of which a share of the dates is cloudy in part."""
    rng = np.random.default_rng(seed)
    count = dates * len(bands) * shape[0] * shape[1]
    values = (rng.permutation(count).reshape(dates, len(bands), *shape) / np.float32(count)).astype(np.float32)
    clear = np.ones((dates, *shape), bool)
    for date in np.flatnonzero(rng.random(dates) < cloudy):
        row, column = rng.integers(0, shape[0] // 2), rng.integers(0, shape[1] // 2)
        clear[date, row : row + shape[0] // 2, column : column + shape[1] // 2] = False
    time = np.datetime64("2021-03-01T10:00", "ns") + (np.arange(dates) * step * 86400e9).astype("timedelta64[ns]")
    return Site(
        name,
        (xr.DataArray(values, dims=("time", "band", "y", "x")),),
        xr.DataArray(clear, dims=("time", "y", "x")),
        time,
        np.zeros(dates, bool),
        tuple(bands),
        tuple(bands),
        Scaling(scale=1.0),
        None,
    )
