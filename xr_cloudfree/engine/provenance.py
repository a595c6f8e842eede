"""Provenance of a block's pixels: one method per layer of `xr_cloudfree.layers`."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.timestamps import Times
from xr_cloudfree.layers import FILLED, NOT_FILLED, OBSERVED, PARTLY
from xr_cloudfree.models.protocol import Prediction


@dataclass(frozen=True, eq=False)
class Provenance:
    """The pixels of a block for one target date, and where their values come from.

    Parameters
    ----------
    times : ndarray of datetime64, shape (time,)
        The candidate dates, in the order of their time.
    offsets : ndarray of float64, shape (time,)
        Their signed days from the target.
    clear : ndarray of bool, shape (time, y, x)
        Pixels that are clear and have a value in some band.
    prediction : Prediction
        The model's.
    known : ndarray of bool, shape (band, y, x)
        Where the model predicted a value.
    kept : ndarray of bool, shape (band, y, x)
        Where the value is the target's own.
    target : int
        Index of the target's own date among the candidates, -1 where there is none.
    reads : ndarray of int, shape (time,)
        Indices of the candidate dates in the cube.
    n_dates : int
        Number of dates of the cube.
    unit : float
        Reflectance per unit of the model's uncertainty.
    haze : ndarray of bool, shape (y, x), or None
        Where the target looks like haze; None if it was not observed or this was not requested.
    change : ndarray of uint8, shape (y, x), or None
        How the target's mask differs from the given one; None if it was not observed or this was not requested.
    snowy : ndarray of bool, shape (y, x), or None
        Where the target's quality layer says snow; None if it was not observed or this was not requested.
    """

    times: Times
    offsets: NDArray[np.float64]
    clear: NDArray[np.bool_]
    prediction: Prediction
    known: NDArray[np.bool_]
    kept: NDArray[np.bool_]
    target: int
    reads: NDArray[np.intp]
    n_dates: int
    unit: float
    haze: NDArray[np.bool_] | None = None
    change: NDArray[np.uint8] | None = None
    snowy: NDArray[np.bool_] | None = None

    @property
    def observed(self) -> NDArray[np.bool_]:
        """Where all bands are the target's own."""
        return np.asarray(self.kept.all(axis=0))

    def filled(self) -> NDArray[np.uint8]:
        """Return where values come from, as flags."""
        valued = self.known | self.kept
        flag = np.where(valued.all(axis=0), FILLED, np.where(valued.any(axis=0), PARTLY, NOT_FILLED))
        flag[self.observed] = OBSERVED
        return flag.astype(np.uint8)

    def n_clear(self) -> NDArray[np.uint16]:
        """Return the number of clear dates."""
        return np.asarray(self.clear.sum(axis=0, dtype=np.uint16))

    def days_to_clear(self) -> NDArray[np.float32]:
        """Return the signed days to the nearest clear date, NaN where there is none."""
        days = np.full(self.clear.shape[1:], np.nan, np.float32)
        for i in nearest_last(self.offsets):
            days[self.clear[i]] = self.offsets[i]
        return days

    def source_time(self) -> NDArray[np.datetime64]:
        """Return the date that weighs at least one half, NaT where none does."""
        out = np.full(self.clear.shape[1:], np.datetime64("NaT", "ns"))
        source = self.prediction.source
        if source is not None:
            dated = (source >= 0) & self.known.any(axis=0)
            out[dated] = self.times[source[dated]]
        if self.target >= 0:
            out[self.observed] = self.times[self.target]
        return out

    def uncertainty(self) -> NDArray[np.float32]:
        """Return the spread of the estimate in reflectance, 0 where a value is the target's own; shape (band, y, x)."""
        spread = self.prediction.uncertainty
        if spread is None:
            out = np.full(self.kept.shape, np.nan, np.float32)
        else:
            out = np.where(self.known, spread * np.float32(self.unit), np.float32(np.nan))
        return np.where(self.kept, np.float32(0), out)

    def gate(self) -> NDArray[np.float32]:
        """Return the weight of each of the cube's dates; shape (time, y, x)."""
        out = np.zeros((self.n_dates, *self.clear.shape[1:]), np.float32)
        if self.prediction.gate is not None:
            out[self.reads] = np.where(self.known.any(axis=0), self.prediction.gate, np.float32(0))
        return out

    def source_sensor(self) -> NDArray[np.uint8]:
        """Return which of the other sensors corrected the estimate, 0 for none and where the target was observed."""
        sensor = self.prediction.sensor
        used = np.zeros(self.clear.shape[1:], np.uint8) if sensor is None else sensor
        return np.where(self.observed, np.uint8(0), used)

    def consistency(self) -> NDArray[np.float32]:
        """Return what the other sensor observed minus what it would see of the image, in reflectance."""
        rest = self.prediction.consistency
        return np.full(self.kept.shape, np.nan, np.float32) if rest is None else rest

    def suspect(self) -> NDArray[np.bool_]:
        """Return where the target is flagged clear and looks like haze."""
        return np.zeros(self.clear.shape[1:], bool) if self.haze is None else self.haze

    def mask_change(self) -> NDArray[np.uint8]:
        """Return how the target's mask differs from the given one, as flags."""
        return np.zeros(self.clear.shape[1:], np.uint8) if self.change is None else self.change

    def snow(self) -> NDArray[np.bool_]:
        """Return where the target was observed as snow."""
        return np.zeros(self.clear.shape[1:], bool) if self.snowy is None else self.snowy & self.observed


def nearest_last(offsets: NDArray[np.float64]) -> NDArray[np.intp]:
    """Return dates from the farthest to the nearest; of two equally near the earlier is last, as in model `nearest`."""
    return np.argsort(np.abs(offsets), kind="stable")[::-1]
