"""Reflectance of a small landscape, its digital numbers, and the check of both."""

import numpy as np

from xr_cloudfree.cube.checks import check_reflectance
from xr_cloudfree.cube.scaling import Scaling, encode, from_reflectance

TIMES = np.arange("2022-01-01", "2022-01-31", 5, dtype="datetime64[D]").astype("datetime64[ns]")
SENTINEL = Scaling(1e-4, -0.1, 0)


def scene(n=48, seed=0):
    """Reflectance of a landscape that changes little: blue, green, red, nir."""
    rng = np.random.default_rng(seed)
    green = rng.random((n, n), np.float32)[None]
    ground = np.concatenate([0.03 + 0.04 * green, 0.05 + 0.04 * green, 0.04 + 0.05 * green, 0.4 - 0.2 * green])
    noise = rng.normal(0, 0.004, (len(TIMES), 4, n, n)).astype(np.float32)
    season = np.linspace(0, 0.02, len(TIMES), dtype=np.float32)[:, None, None, None]
    return ground + season + noise


def check(bands, scaling, clear=None, sensor="sentinel-2", times=TIMES):
    clear = np.ones((len(bands), *bands.shape[2:]), bool) if clear is None else clear
    check_reflectance(bands, clear, scaling, times, sensor, ("blue", "green", "red", "nir"))


def stored(reflectance, scaling=SENTINEL, dtype=np.uint16):
    return encode(from_reflectance(reflectance, scaling), np.dtype(dtype), scaling)
