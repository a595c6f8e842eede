"""What the dates around the target say of a window: linear prediction, features, and how far to trust it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.kernels import dispatch as kernels
from xr_cloudfree.models.protocol import Observations, Prediction

# Dates that serve as features, the number of features that they may make up, and the clear share that they
# need.
MAX_DATES, MAX_FEATURES, LEAST_SHARE = 16, 128, 0.5
# Edge, in pixels, of the neighbourhood that a pixel is compared with.
CONTEXT = 5
# Days after which the error of an interpolation that spans no time at all would be as large as its noise.
NOISE_DAYS = 5.0
# Two dates beside the target show less than all that can happen between them: found on hidden frames.
UNSEEN = 1.2
Z90 = 1.645


@dataclass(frozen=True, eq=False)
class Series:
    """The other dates of a window, the target's own observation aside; pixels are on one axis.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, pixel)
        Reflectance; arbitrary where not clear.
    clear : ndarray of bool, shape (time, pixel)
        True where seen, and False all over the target's own date.
    days : ndarray of float64, shape (time,)
        Signed days from the target.
    before, after : ndarray of int16, shape (pixel,)
        Clear dates on either side of the target, -1 where there is none.
    linear : Prediction
        The linear prediction, with rows and columns.
    """

    bands: NDArray[np.float32]
    clear: NDArray[np.bool_]
    days: NDArray[np.float64]
    before: NDArray[np.int16]
    after: NDArray[np.int16]
    linear: Prediction

    @classmethod
    def of(cls, obs: Observations) -> Series:
        """The series of a window."""
        others = obs.clear
        if obs.target >= 0:
            others = obs.clear.copy()
            others[obs.target] = False
        linear = Linear().predict([Observations(obs.bands, others, obs.day_offset)])[0]
        bands = np.asarray(obs.bands, np.float32).reshape(obs.n_dates, obs.n_bands, -1)
        clear = others.reshape(obs.n_dates, -1)
        before, after = kernels.bracket(clear, int(np.searchsorted(obs.day_offset, 0.0, side="right")))
        return cls(bands, clear, obs.day_offset, before, after, linear)

    def change(self) -> NDArray[np.float32]:
        """Previous less next clear date, shape (band, pixel); 0 where one of them is missing."""
        both = np.flatnonzero((self.before >= 0) & (self.after >= 0))
        change = np.zeros(self.bands.shape[1:], np.float32)
        change[:, both] = (self.bands[self.before[both], :, both] - self.bands[self.after[both], :, both]).T
        return change

    def beyond(self) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
        """The next clear dates beyond `before` and `after`, shape (pixel,); -1 where there is none."""
        pixel, rest = np.arange(self.clear.shape[1]), self.clear.copy()
        for date in (self.before, self.after):
            rest[date[date >= 0], pixel[date >= 0]] = False
        return kernels.bracket(rest, int(np.searchsorted(self.days, 0.0, side="right")))

    def features(self) -> NDArray[np.float32]:
        """What is known at every pixel, shape (feature, pixel).

        The linear prediction, the change across the gap, what sets both apart from their neighbourhood, and
        the nearest dates that are clear in most of the window, as differences to the linear prediction.
        """
        from scipy.ndimage import uniform_filter

        shape, known = self.linear.known.shape, self.linear.known.ravel()
        base = np.where(known, self.linear.bands.reshape(self.bands.shape[1], -1), np.float32(0))
        own = np.concatenate([base, self.change()])
        around = [uniform_filter(row.reshape(shape), CONTEXT).ravel() - row for row in own]
        share = self.clear.mean(axis=1)
        near = np.argsort(np.abs(self.days), kind="stable")
        limit = max(1, min(MAX_DATES, MAX_FEATURES // len(base)))
        dates = np.sort(near[share[near] >= LEAST_SHARE][:limit])
        return np.concatenate([own, np.stack(around), *self._whole(dates, base)])

    def _whole(self, dates: NDArray[np.intp], base: NDArray[np.float32]) -> list[NDArray[np.float32]]:
        """Each date less `base`, gaps filled linearly in time from the other `dates`; 0 if none is clear."""
        bands, clear, days = self.bands[dates], self.clear[dates], self.days[dates]
        number = np.arange(len(days), dtype=np.int16)[:, None]
        previous = np.maximum.accumulate(np.where(clear, number, np.int16(-1)), axis=0)
        following = np.minimum.accumulate(np.where(clear, number, np.int16(len(days)))[::-1], axis=0)[::-1]
        seen = clear.any(axis=0)
        rows = []
        for i in range(len(days)):
            row = np.zeros_like(base)
            np.subtract(bands[i], base, out=row, where=clear[i])
            gaps = np.flatnonzero(~clear[i] & seen)
            a, b = previous[i, gaps], following[i, gaps]
            first, second = np.where(a < 0, b, a), np.where(b == len(days), a, b)
            weight = _weight(days[first], days[second], days[i]).astype(np.float32)
            start = bands[first, :, gaps]
            row[:, gaps] = (start + weight[:, None] * (bands[second, :, gaps] - start)).T - base[:, gaps]
            rows.append(row)
        return rows

    def uncertainty(self) -> NDArray[np.float32]:
        """Uncertainty of the linear prediction, shape (band, pixel); NaN if there is nothing to judge by.

        The dates on either side of the target are themselves predicted from their neighbours. Errors are
        taken to grow with the gap as those of a random walk that is tied to both its ends.
        """
        earlier, later = self.beyond()
        ratios = [
            self._error_rate(self.before, earlier, self.after),
            self._error_rate(self.after, self.before, later),
        ]
        rate = np.concatenate(ratios, axis=1)
        if not rate.shape[1]:
            return np.full(self.bands.shape[1:], np.nan, np.float32)
        width = UNSEEN * np.quantile(rate, 0.9, axis=1) / Z90
        walk = _walk(self._days(self.before), self._days(self.after), np.zeros(self.clear.shape[1]))
        return np.asarray(width[:, None] * np.sqrt(walk + NOISE_DAYS), np.float32)

    def _days(self, date: NDArray[np.int16]) -> NDArray[np.float64]:
        return np.where(date >= 0, self.days[date], np.nan)

    def _error_rate(
        self, date: NDArray[np.int16], left: NDArray[np.int16], right: NDArray[np.int16]
    ) -> NDArray[np.float64]:
        """Errors of `date` predicted from `left` and `right`, per root of the walk; shape (band, n)."""
        have = np.flatnonzero((date >= 0) & ((left >= 0) | (right >= 0)))
        date, left, right = date[have], left[have], right[have]
        first, second = np.where(left < 0, right, left), np.where(right < 0, left, right)
        weight = _weight(self.days[first], self.days[second], self.days[date])
        start = self.bands[first, :, have].astype(np.float64)
        guess = start + weight[:, None] * (self.bands[second, :, have] - start)
        walk = _walk(self._days(left), self._days(right), self.days[date])
        return np.asarray((np.abs(self.bands[date, :, have] - guess) / np.sqrt(walk + NOISE_DAYS)[:, None]).T)


def _weight(
    first: NDArray[np.float64], second: NDArray[np.float64], at: NDArray[np.float64] | np.float64
) -> NDArray[np.float64]:
    """Weight of `second` at a moment between two; 0 where they are one."""
    span = second - first
    return np.divide(at - first, span, out=np.zeros_like(span), where=span != 0)


def _walk(left: NDArray[np.float64], right: NDArray[np.float64], at: NDArray[np.float64]) -> NDArray[np.float64]:
    """Variance, in days, of a random walk that is known on `left` and `right`, or on one of them."""
    back, ahead = np.abs(at - left), np.abs(right - at)
    total = back + ahead
    both = np.divide(back * ahead, total, out=np.zeros_like(total), where=total > 0)
    return np.where(np.isnan(left), ahead, np.where(np.isnan(right), back, both))


def local_uncertainty(
    change: NDArray[np.float32], pixels: NDArray[np.intp], held_out: NDArray[np.float64]
) -> NDArray[np.float32]:
    """Uncertainty of a fit from its errors at held-out pixels, larger where more changed across the gap.

    Parameters
    ----------
    change : ndarray of float32, shape (band, pixel)
        Change across the gap.
    pixels : ndarray of int, shape (sample,)
        Pixels whose errors are known.
    held_out : ndarray of float64, shape (band, sample)
        The errors; NaN where they do not count.

    Returns
    -------
    ndarray of float32, shape (band, pixel)
        ± 1.645 of it holds nine errors of ten.
    """
    uncertainty = np.empty_like(change)
    size = np.abs(change)
    for band, errors in enumerate(np.abs(held_out)):
        counts = np.flatnonzero(np.isfinite(errors))
        order = counts[np.argsort(size[band, pixels[counts]], kind="stable")]
        groups = [group for group in np.array_split(order, 4 if len(order) >= 160 else 1) if len(group)]
        if not groups:
            uncertainty[band] = np.nan
            continue
        places = [float(np.median(size[band, pixels[group]])) for group in groups]
        widths = [float(np.quantile(errors[group], 0.9)) / Z90 for group in groups]
        uncertainty[band] = np.interp(size[band], places, widths)
    return uncertainty
