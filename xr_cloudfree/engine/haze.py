"""Detection of haze and thin cloud among the target's clear-flagged pixels.

The rule treats each pixel by itself, so it needs no halo and gives the same result under any chunking.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.kernels import dispatch as kernels
from xr_cloudfree.models.protocol import Observations

VISIBLE = frozenset({"coastal", "blue", "green", "green05", "yellow", "red"})
# A suspect pixel is brighter than expected by at least this many of its standard deviations in time,
MIN_DEVIATIONS = 4.0
# and by at least this much reflectance.
MIN_BRIGHTENING = 0.03
# Cloud brightens all visible bands alike: the least brightening is at least this share of the greatest.
MIN_FLATNESS = 0.5
# Clear dates needed to estimate a pixel's deviation.
MIN_DATES = 4


def suspect(obs: Observations) -> NDArray[np.bool_]:
    """Return the target's clear pixels that are brighter in all visible bands than their own series explains.

    Parameters
    ----------
    obs : Observations
        A tile in reflectance. Without an observation of the target date no pixel is suspect.

    Returns
    -------
    ndarray of bool, shape (y, x)
        True where the target looks like haze or thin cloud.

    Notes
    -----
    The expected value is the linear interpolation of the other dates. The deviation is 1.4826 times the median absolute
    deviation of the other clear dates from their median. If no band is known to be visible, all bands are used.
    """
    if obs.target < 0 or not obs.clear[obs.target].any():
        return np.zeros(obs.shape, bool)
    clear = obs.clear.copy()
    clear[obs.target] = False
    common_names = obs.common_names or (None,) * obs.n_bands
    visible = [i for i, role in enumerate(common_names) if role in VISIBLE] or list(range(obs.n_bands))
    bands = np.ascontiguousarray(obs.bands[:, visible], np.float32)
    expected = Linear().predict([Observations(bands, clear, obs.day_offset)])[0]

    flat, flat_clear = bands.reshape(obs.n_dates, len(visible), -1), clear.reshape(obs.n_dates, -1)
    median = kernels.median(flat, flat_clear)
    deviation = 1.4826 * kernels.median(np.abs(flat - median), flat_clear)
    rise = (bands[obs.target] - expected.bands).reshape(len(visible), -1)
    with np.errstate(invalid="ignore"):
        bright = (rise > MIN_DEVIATIONS * deviation).all(axis=0) & (rise > MIN_BRIGHTENING).all(axis=0)
        even = rise.min(axis=0) >= MIN_FLATNESS * rise.max(axis=0)
    enough = flat_clear.sum(axis=0) >= MIN_DATES
    hazy = (bright & even & enough).reshape(obs.shape)
    return np.asarray(hazy & obs.clear[obs.target] & expected.known)
