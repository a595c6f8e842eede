"""A series with clouds and shadows whose masks are wrong in both ways."""

import numpy as np
import xarray as xr

DATES = np.array("2021-05-01", "M8[ns]") + np.array([0, 9, 20, 33, 41, 60, 77, 90]) * np.timedelta64(1, "D")
SHAPE = (150, 170)
CLOUDED = 3  # the date with a cloud and a shadow that its mask misses, and with a false alarm
CLOUD, SHADOW, ALARM = (
    (slice(20, 60), slice(30, 80)),
    (slice(90, 120), slice(20, 60)),
    (slice(70, 100), slice(110, 150)),
)
SEEN = (slice(125, 145), slice(100, 160))  # a cloud that the mask has


def clouded(dtype="float32", shape=SHAPE):
    """Return a cube (time, band, y, x) and its mask, True where clear; a larger one repeats the clouds."""
    rng = np.random.default_rng(5)
    row, column = np.indices(shape) // 10
    level = 0.08 + 0.03 * ((row * 7 + column * 3) % 5)
    season = 1 + 0.1 * np.sin(np.arange(len(DATES)) / 3)
    bands = level * season[:, None, None, None] * np.array([0.8, 1.0, 1.6])[:, None, None]
    bands = (bands + rng.normal(0, 0.001, bands.shape)).astype(np.float32)
    clear = np.ones((len(DATES), *shape), bool)
    for top, left in np.ndindex(-(-shape[0] // SHAPE[0]), -(-shape[1] // SHAPE[1])):
        part = (..., slice(top * SHAPE[0], (top + 1) * SHAPE[0]), slice(left * SHAPE[1], (left + 1) * SHAPE[1]))
        own, seen = bands[part], clear[part]
        own[CLOUDED][(..., *CLOUD)] += 0.2
        own[CLOUDED][(..., *SHADOW)] *= 0.4
        own[CLOUDED][(..., *SEEN)] += 0.3
        seen[CLOUDED][ALARM] = seen[CLOUDED][SEEN] = False
        for date in (1, 5, 6):  # clouds that the masks have
            y, x = rng.integers(0, 100, 2)
            own[date, :, y : y + 45, x : x + 60] += 0.25
            seen[date, y : y + 45, x : x + 60] = False
    bands[2, :, :30, 140:] = np.nan
    coords = {
        "time": DATES,
        "band": ["green", "red", "nir"],
        "y": 4_400_000 - 10.0 * np.arange(shape[0]),
        "x": 500_000 + 10.0 * np.arange(shape[1]),
    }
    attrs = {"units": "1"}
    if dtype != "float32":
        bands = np.nan_to_num(bands * 1e4).round().astype(dtype)
        attrs = {"scale_factor": 1e-4, "_FillValue": 0}
    cube = xr.DataArray(bands, dims=("time", "band", "y", "x"), coords=coords, attrs=attrs, name="reflectance")
    mask = xr.DataArray(clear, dims=("time", "y", "x"), coords={key: coords[key] for key in ("time", "y", "x")})
    return cube, mask
