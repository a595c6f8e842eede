"""Network inputs as NumPy arrays, prepared from a tile's observations."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.errors import ModelError
from xr_cloudfree.models.protocol import Observations

MAX_DATES = 60
"""Maximum number of dates in a network's input; the nearest ones are used."""

S1, S1_SEEN = "s1", "s1 seen"
"""Features of Sentinel-1 near the target date: VV and VH in decibels (0 where missing), and 1 where it is available."""

SHARED_BY_BANDS = ("shared", S1, S1_SEEN)
"""Features without a band axis."""


@dataclass(frozen=True, eq=False)
class NetworkInput:
    """Input of a network for one tile: a row of a batch, without torch.

    Where a network's device prepares it (`on_device`), maps are tensors there, and all else arrays.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance, 0 where not clear.
    clear : ndarray of float32, shape (time, 1, y, x)
        1 where clear, 0 elsewhere.
    day_offset : ndarray of float32, shape (time,)
        Signed days from the target date, increasing.
    date_valid : ndarray of bool, shape (time,)
        False for padded dates.
    target : ndarray of float32, shape (band, y, x)
        The target date's own clear pixels, 0 elsewhere.
    target_clear : ndarray of float32, shape (1, y, x)
        1 where the target date's own observation is clear.
    band_valid : ndarray of bool, shape (band,)
        False for padded bands.
    features : dict of str to ndarray of float32
        Further maps by name, with the bands on their first axis except for those in `SHARED_BY_BANDS`.
    source : ndarray of int16, shape (y, x), optional
        Index of the date that contributes most, -1 where there is none, if it is known without the network. Not part
        of the network's input.
    """

    bands: NDArray[np.float32]
    clear: NDArray[np.float32]
    day_offset: NDArray[np.float32]
    date_valid: NDArray[np.bool_]
    target: NDArray[np.float32]
    target_clear: NDArray[np.float32]
    band_valid: NDArray[np.bool_]
    features: dict[str, NDArray[np.float32]] = field(default_factory=dict)
    source: NDArray[np.int16] | None = None


def prepare(obs: Observations, max_dates: int = MAX_DATES) -> NetworkInput:
    """Return the input of a network for a tile.

    The target date's own observation is separated from the series. Dates without a clear pixel are left out; of the
    others the nearest are kept (the earlier of two equally near ones), in order of time. The series may be empty.

    Parameters
    ----------
    obs : Observations
        A tile, in reflectance.
    max_dates : int
        Maximum number of dates.

    Returns
    -------
    NetworkInput
        With the features ``"s1"`` and ``"s1 seen"`` if the tile has Sentinel-1, otherwise without features.

    Raises
    ------
    ModelError
        If the observations are not in reflectance.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.protocol import Observations
    >>> from xr_cloudfree.models.networks.inputs import prepare
    >>> bands = np.array([0.5, 0.25, 0.5, 0.75], np.float32).reshape(4, 1, 1, 1)
    >>> clear = np.array([True, True, False, True]).reshape(4, 1, 1)
    >>> tile = prepare(Observations(bands, clear, np.array([-8.0, 0.0, 3.0, 9.0]), target=1))
    >>> tile.day_offset.tolist(), tile.target.item()
    ([-8.0, 9.0], 0.25)
    """
    if obs.scale != 1.0:
        raise ModelError(
            f"the observations are in units of {obs.scale} reflectance",
            "reflectance itself",
            "units='reflectance' in the model's spec",
        )
    dates = used_dates(obs, max_dates)
    target = np.zeros((obs.n_bands, *obs.shape), np.float32)
    target_clear = np.zeros(obs.shape, bool)
    if obs.target >= 0:
        target_clear = obs.clear[obs.target]
        np.copyto(target, obs.bands[obs.target], where=target_clear, casting="same_kind")
    clear = obs.clear[dates][:, np.newaxis]
    bands = np.zeros((len(dates), *target.shape), np.float32)
    for own, date, where in zip(bands, dates, clear, strict=True):
        np.copyto(own, obs.bands[date], where=where, casting="same_kind")
    return NetworkInput(
        bands,
        clear.astype(np.float32),
        obs.day_offset[dates].astype(np.float32),
        np.ones(len(dates), bool),
        target,
        target_clear[np.newaxis].astype(np.float32),
        np.ones(obs.n_bands, bool),
        {} if obs.s1 is None else radar(obs.s1),
    )


def used_dates(obs: Observations, max_dates: int = MAX_DATES) -> NDArray[np.intp]:
    """Return the indices of the dates in a network's input, the target's own not among them; see `prepare`."""
    dates = np.flatnonzero(obs.clear.any(axis=(1, 2)))
    dates = dates[dates != obs.target]
    near = np.argsort(np.abs(obs.day_offset[dates]), kind="stable")
    return np.sort(dates[near[:max_dates]])


def radar(s1: NDArray[np.float32]) -> dict[str, NDArray[np.float32]]:
    """Return the features of a Sentinel-1 image, shape (2, y, x), which is NaN where missing."""
    seen = np.asarray(np.isfinite(s1).all(axis=0))[np.newaxis]
    return {S1: np.where(seen, s1, np.float32(0)), S1_SEEN: seen.astype(np.float32)}
