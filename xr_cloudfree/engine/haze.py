"""Clear-flagged pixels of the target that look like haze or thin cloud.

The rule looks at one pixel at a time, so it needs no halo and is the same under any chunking.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.kernels import dispatch as kernels
from xr_cloudfree.models.protocol import Observations

VISIBLE = frozenset({"coastal", "blue", "green", "green05", "yellow", "red"})
# Brighter than expected by this many of the pixel's own spreads in time, and by this much reflectance.
LEAST_SPREADS = 4.0
LEAST_BRIGHTENING = 0.03
# A cloud brightens all visible bands alike: the least rise is at least this share of the greatest.
FLATNESS = 0.5
# Fewer clear dates tell nothing of a pixel's spread.
LEAST_DATES = 4


def suspect(obs: Observations) -> NDArray[np.bool_]:
    """Clear pixels of the target that are brighter in all visible bands than their own series explains.

    Parameters
    ----------
    obs : Observations
        A tile in reflectance. Without an observation of the target date nothing is suspect.

    Returns
    -------
    ndarray of bool, shape (y, x)
        True where the target looks like haze or thin cloud.

    Notes
    -----
    Expected is the linear prediction from the other dates. The spread is the median absolute deviation of
    the other clear dates from their median. Where no band is known to be visible, all bands count.
    """
    nothing = np.zeros(obs.shape, bool)
    if obs.target < 0 or not obs.clear[obs.target].any():
        return nothing
    clear = obs.clear.copy()
    clear[obs.target] = False
    common_names = obs.common_names or (None,) * obs.n_bands
    visible = [i for i, role in enumerate(common_names) if role in VISIBLE] or list(range(obs.n_bands))
    bands = np.ascontiguousarray(obs.bands[:, visible], np.float32)
    expected = Linear().predict([Observations(bands, clear, obs.day_offset)])[0]

    flat, seen = bands.reshape(obs.n_dates, len(visible), -1), clear.reshape(obs.n_dates, -1)
    middle = kernels.median(flat, seen)
    deviation = 1.4826 * kernels.median(np.abs(flat - middle), seen)
    rise = (bands[obs.target] - expected.bands).reshape(len(visible), -1)
    with np.errstate(invalid="ignore"):
        bright = (rise > LEAST_SPREADS * deviation).all(axis=0) & (rise > LEAST_BRIGHTENING).all(axis=0)
        even = rise.min(axis=0) >= FLATNESS * rise.max(axis=0)
    enough = seen.sum(axis=0) >= LEAST_DATES
    odd = (bright & even & enough).reshape(obs.shape)
    return np.asarray(odd & obs.clear[obs.target] & expected.known)
