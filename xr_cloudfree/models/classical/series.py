"""The dates of a window other than the target: linear prediction, features and uncertainty."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical.pixelwise import clear_neighbours, interpolate_linearly, linear_weights
from xr_cloudfree.models.kernels import dispatch as kernels
from xr_cloudfree.models.protocol import Observations

# Maximum number of dates that serve as features, maximum number of features they make up, and minimum clear share
# of such a date.
MAX_DATES, MAX_FEATURES, LEAST_SHARE = 16, 128, 0.5
# Edge, in pixels, of the neighbourhood that each pixel is compared with.
CONTEXT = 5
# Days added to the variance of the random walk: the noise of the dates themselves, without any gap.
NOISE_DAYS = 5.0
# Widens the uncertainty, because two held-out dates underestimate the error at the target; tuned on hidden frames.
UNSEEN = 1.2
# Half the width of the 90 % interval of a normal distribution, in standard deviations.
Z90 = 1.645


@dataclass(frozen=True, eq=False)
class Series:
    """The dates of a window without the target's own observation; pixels are on one axis.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the window.
    bands : ndarray of float32, shape (time, band, pixel)
        Reflectance; arbitrary where not clear.
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel is clear; False throughout on the target date.
    days : ndarray of float64, shape (time,)
        Signed days from the target date.
    before, after : ndarray of int16, shape (pixel,)
        Nearest clear dates on either side of the target, -1 where there is none.
    image : ndarray of float32, shape (band, pixel)
        Linear interpolation at the target date; 0 where no date is clear.
    source : ndarray of int16, shape (pixel,)
        The nearer of `before` and `after`, -1 where no date is clear.
    """

    shape: tuple[int, int]
    bands: NDArray[np.float32]
    clear: NDArray[np.bool_]
    days: NDArray[np.float64]
    before: NDArray[np.int16]
    after: NDArray[np.int16]
    image: NDArray[np.float32]
    source: NDArray[np.int16]

    @classmethod
    def of(cls, obs: Observations) -> Series:
        """Build the series of a window."""
        bands = np.ascontiguousarray(obs.bands, np.float32).reshape(obs.n_dates, obs.n_bands, -1)
        clear = obs.clear.reshape(obs.n_dates, -1).copy()
        if obs.target >= 0:
            clear[obs.target] = False
        before, after = clear_neighbours(obs.day_offset, clear)
        image, source = interpolate_linearly(bands, obs.day_offset, before, after)
        image = np.where(source >= 0, image, np.float32(0))
        return cls(obs.shape, bands, clear, obs.day_offset, before, after, image, source)

    @property
    def known(self) -> NDArray[np.bool_]:
        """True where any date is clear, shape (pixel,)."""
        return self.source >= 0

    @cached_property
    def change(self) -> NDArray[np.float32]:
        """The previous minus the next clear date, shape (band, pixel); 0 where either does not exist."""
        both = np.flatnonzero((self.before >= 0) & (self.after >= 0))
        change = np.zeros(self.bands.shape[1:], np.float32)
        change[:, both] = (self.bands[self.before[both], :, both] - self.bands[self.after[both], :, both]).T
        return change

    def beyond(self) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """Find the next clear dates beyond `before` and `after`, shape (pixel,); -1 where there is none."""
        pixel, rest = np.arange(self.clear.shape[1]), self.clear.copy()
        for date in (self.before, self.after):
            rest[date[date >= 0], pixel[date >= 0]] = False
        return clear_neighbours(self.days, rest)

    def features(self) -> NDArray[np.float32]:
        """Compute the features of every pixel, shape (feature, pixel).

        The features are the linear prediction, the change across the gap, the difference of both to the mean of their
        neighbourhood, and the nearest dates that are mostly clear, as differences to the linear prediction.
        """
        number = len(self.image)
        dates = feature_dates(self.clear.mean(axis=1), self.days, number)
        features = np.empty(((4 + len(dates)) * number, self.image.shape[1]), np.float32)
        own, around = features[: 2 * number], features[2 * number : 4 * number]
        own[:number], own[number:] = self.image, self.change
        context_means(own, self.shape, around)
        around -= own
        rows = features[4 * number :].reshape(len(dates), *self.image.shape)
        kernels.deviations(self.bands, self.clear, self.days, dates, self.image, rows)
        return features

    def uncertainty(self) -> NDArray[np.float32]:
        """Estimate the uncertainty of the linear prediction, shape (band, pixel); NaN where no error can be measured.

        The dates on either side of the target are predicted from their own neighbours. Errors are taken to grow with
        the gap like the standard deviation of a Brownian bridge.
        """
        width = self.daily_change()
        walk = _walk(self._days(self.before), self._days(self.after), np.zeros(self.clear.shape[1]))
        return np.asarray(width[:, None] * np.sqrt(walk + NOISE_DAYS), np.float32)

    def daily_change(self) -> NDArray[np.float64]:
        """Estimate the uncertainty by which a day that passes changes the ground, shape (band,); NaN if not measured.

        It grows with the square root of the number of days.
        """
        earlier, later = self.beyond()
        rates = [
            self._error_rate(self.before, earlier, self.after),
            self._error_rate(self.after, self.before, later),
        ]
        rate = np.concatenate(rates, axis=1)
        if not rate.shape[1]:
            return np.full(len(self.image), np.nan)
        return np.asarray(UNSEEN * np.quantile(rate, 0.9, axis=1) / Z90)

    def _days(self, date: NDArray[np.int16]) -> NDArray[np.float64]:
        return np.where(date >= 0, self.days[date], np.nan)

    def _error_rate(
        self, date: NDArray[np.int16], left: NDArray[np.int16], right: NDArray[np.int16]
    ) -> NDArray[np.float64]:
        """Return the errors of `date` predicted from `left` and `right`, over the expected ones; shape (band, n)."""
        pixels = np.flatnonzero((date >= 0) & ((left >= 0) | (right >= 0)))
        date, left, right = date[pixels], left[pixels], right[pixels]
        first, second, weight = linear_weights(self.days, left, right, self.days[date])
        start = self.bands[first, :, pixels].astype(np.float64)
        predicted = start + weight[:, None] * (self.bands[second, :, pixels] - start)
        expected = np.sqrt(_walk(self._days(left), self._days(right), self.days[date]) + NOISE_DAYS)
        return np.asarray((np.abs(self.bands[date, :, pixels] - predicted) / expected[:, None]).T)


def context_means(rows: NDArray[np.float32], shape: tuple[int, int], out: NDArray[np.float32]) -> None:
    """Write the means over the neighbourhood of each pixel into `out`; `rows` and `out` have the shape (row, pixel)."""
    from scipy.ndimage import uniform_filter

    for row, mean in zip(rows, out, strict=True):
        uniform_filter(row.reshape(shape), CONTEXT, output=mean.reshape(shape))


def feature_dates(share: NDArray[np.float64], days: NDArray[np.float64], n_bands: int) -> NDArray[np.intp]:
    """Return the indices of the dates that serve as features, by the clear share and the day of each."""
    near = np.argsort(np.abs(days), kind="stable")
    limit = max(1, min(MAX_DATES, MAX_FEATURES // n_bands))
    return np.sort(near[share[near] >= LEAST_SHARE][:limit])


def _walk(left: NDArray[np.float64], right: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return the variance, in days, of a random walk at `at` that is known at `left` and `right`, or at one of them."""
    back, ahead = np.abs(at - left), np.abs(right - at)
    total = back + ahead
    both = np.divide(back * ahead, total, out=np.zeros_like(total), where=total > 0)
    return np.where(np.isnan(left), ahead, np.where(np.isnan(right), back, both))
