"""A window of a synthetic season, as a model receives it."""

import numpy as np

from xr_cloudfree import synthetic
from xr_cloudfree.models.protocol import Observations


def observations(seed=0, bands=4, edge=48, target=5, cloudy=True):
    """Return 11 dates of a synthetic season; half of the target's pixels are cloudy unless `cloudy=False`."""
    rng = np.random.default_rng(seed)
    cube = synthetic.cube((11, bands, edge, edge), seed=seed)["reflectance"]
    values = cube.to_numpy().astype(np.float32) * 1e-4
    clear = rng.random((11, 1, 1)) < 0.9
    clear = np.broadcast_to(clear, (11, edge, edge)).copy()
    clear[:, : edge // 8, : edge // 8] = False
    clear[3, edge // 2 :] = False
    clear[target] = True
    if cloudy:
        clear[target, :, edge // 2 :] = False
    days = (cube["time"].to_numpy() - cube["time"].to_numpy()[target]) / np.timedelta64(1, "D")
    return Observations(values, clear, days.astype(np.float64), target)
