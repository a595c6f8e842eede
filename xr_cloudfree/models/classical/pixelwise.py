"""Pixelwise models without learned weights: nearest, linear, median, geometric median and harmonic.

Each pixel is computed from its own series alone, so results do not depend on the chunks and no halo is needed. Dates
outside the window are removed before a model receives the observations; ``spec.window_days`` is only the default.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.errors import OptionError
from xr_cloudfree.models.kernels import dispatch as kernels
from xr_cloudfree.models.protocol import Observations, Prediction, dominant, flat, prediction
from xr_cloudfree.models.spec import ModelSpec

DAYS_PER_YEAR = 365.25
_CAUCHY = 2.0  # multiples of the mean absolute residual at which an observation has half its weight
_PIXELS = 1 << 14  # pixels that are fitted at once
_GROWTH = 0.3  # of the error variance of linear interpolation, per day of gap, in units of one date's noise variance
_MEAN_TO_SIGMA = 1.2533  # sqrt(pi / 2): standard deviation over mean absolute value of a normal distribution
_LEAST_OBSERVATIONS = 6  # clear observations that an uncertainty needs: they give at least four errors


def clear_neighbours(
    days: NDArray[np.float64], clear: NDArray[np.bool_]
) -> tuple[NDArray[np.int16], NDArray[np.int16]]:
    """Find the last clear date at or before the target date and the first one after it.

    Parameters
    ----------
    days : ndarray of float64, shape (time,)
        Signed days from the target date, increasing.
    clear : ndarray of bool, shape (time, pixel)
        True where a pixel is clear.

    Returns
    -------
    before, after : ndarray of int16, shape (pixel,)
        Indices of the dates, -1 where there is none.
    """
    return kernels.bracket(clear, int(np.searchsorted(days, 0.0, side="right")))


def linear_weights(
    days: NDArray[np.float64],
    before: NDArray[np.int16],
    after: NDArray[np.int16],
    at: NDArray[np.float64] | float = 0.0,
) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.float64]]:
    """Compute the weights of two dates in linear interpolation in time.

    Parameters
    ----------
    days : ndarray of float64, shape (time,)
        Day of each date.
    before, after : ndarray of int16, shape (pixel,)
        Indices of the dates to interpolate between, -1 where there is none.
    at : float or ndarray of float64, shape (pixel,)
        Day to interpolate at.

    Returns
    -------
    first, second : ndarray of int16, shape (pixel,)
        Indices of the two dates: the same one twice where only one exists, -1 where neither does.
    weight : ndarray of float64, shape (pixel,)
        Weight of `second`; 0 where both are the same date. That of `first` is ``1 - weight``.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.classical.pixelwise import linear_weights
    >>> before, after = np.array([0, 0, -1], np.int16), np.array([1, -1, 1], np.int16)
    >>> first, second, weight = linear_weights(np.array([-6.0, 2.0]), before, after)
    >>> first.tolist(), second.tolist(), weight.tolist()
    ([0, 0, 1], [1, 0, 1], [0.75, 0.0, 0.0])
    """
    first, second = np.where(before < 0, after, before), np.where(after < 0, before, after)
    start, end = days[first], days[second]
    weight = np.divide(start - at, start - end, out=np.zeros_like(start), where=start != end)
    return first, second, weight


def interpolate_linearly(
    bands: NDArray[np.generic], days: NDArray[np.float64], before: NDArray[np.int16], after: NDArray[np.int16]
) -> tuple[NDArray[np.float32], NDArray[np.int16]]:
    """Interpolate linearly in time at day 0.

    Parameters
    ----------
    bands : ndarray, shape (time, band, pixel)
        Values.
    days : ndarray of float64, shape (time,)
        Signed days from the target date.
    before, after : ndarray of int16, shape (pixel,)
        Indices of the dates to interpolate between, -1 where there is none.

    Returns
    -------
    image : ndarray of float32, shape (band, pixel)
        Interpolated values; arbitrary where there is no date.
    source : ndarray of int16, shape (pixel,)
        The nearer of the two dates (of two equally near the earlier), -1 where there is none.
    """
    first, second, weight = linear_weights(days, before, after)
    image = kernels.blend(bands, np.maximum(first, 0), np.maximum(second, 0), weight.astype(np.float32))
    return image, _nearer(first, second, weight)


def _nearer(first: NDArray[np.int16], second: NDArray[np.int16], weight: NDArray[np.float64]) -> NDArray[np.int16]:
    """Return the date with the larger weight; of two with equal weights in single precision, the first."""
    return np.where(weight.astype(np.float32) > 0.5, second, first)


class Nearest:
    """The clear observation nearest in time; of two equally near, the earlier.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.protocol import Observations
    >>> from xr_cloudfree.models.classical.pixelwise import Nearest
    >>> bands = np.array([100, 200], np.uint16).reshape(2, 1, 1, 1)
    >>> obs = Observations(bands, np.ones((2, 1, 1), bool), np.array([-5.0, 3.0]))
    >>> Nearest().predict([obs])[0].bands.item()
    200.0
    """

    by_band = True

    spec = ModelSpec("nearest", "the nearest clear observation in time", layers=("source_time",))

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """Return one prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = flat(obs)
        source = _nearer(*linear_weights(obs.day_offset, *clear_neighbours(obs.day_offset, clear)))
        date = np.maximum(source, 0)
        image = kernels.blend(bands, date, date, np.zeros(len(date), np.float32))
        return prediction(obs, image, source >= 0, source)


class Linear:
    """Linear interpolation in time between the previous and the next clear observation.

    Where only one of the two exists, its values are used unchanged.

    Parameters
    ----------
    uncertainty : bool
        Whether to compute the uncertainty as well, which takes several times as long as the image. It is NaN at pixels
        with fewer than six clear observations.

    Notes
    -----
    The uncertainty is empirical. Each clear observation between two others is predicted from them; the mean of the
    absolute errors, each divided by the error expected for its gap, is the scale of the pixel, per band. The expected
    error is that of a Brownian bridge across the gap plus the noise of each date.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.protocol import Observations
    >>> from xr_cloudfree.models.classical.pixelwise import Linear
    >>> bands = np.array([100, 200], np.uint16).reshape(2, 1, 1, 1)
    >>> obs = Observations(bands, np.ones((2, 1, 1), bool), np.array([-6.0, 2.0]))
    >>> Linear().predict([obs])[0].bands.item()
    175.0
    """

    by_band = True

    def __init__(self, uncertainty: bool = False) -> None:
        self.uncertainty = uncertainty
        self.spec = ModelSpec(
            "linear",
            "linear in time between the previous and the next clear observation",
            layers=("source_time", "uncertainty") if uncertainty else ("source_time",),
            settings=(("uncertainty", True),) if uncertainty else (),
        )

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """Return one prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = flat(obs)
        before, after = clear_neighbours(obs.day_offset, clear)
        image, source = interpolate_linearly(bands, obs.day_offset, before, after)
        sigma = _linear_uncertainty(bands, clear, obs.day_offset, before, after) if self.uncertainty else None
        return prediction(obs, image, source >= 0, source, sigma)


def _linear_uncertainty(
    bands: NDArray[np.generic],
    clear: NDArray[np.bool_],
    day_offset: NDArray[np.float64],
    before: NDArray[np.int16],
    after: NDArray[np.int16],
) -> NDArray[np.float32]:
    first, second, weight64 = linear_weights(day_offset, before, after)
    days, weight = day_offset.astype(np.float32), weight64.astype(np.float32)
    gap = days[second] - days[first]
    rest = np.float32(1) - weight
    two_sided = 1 + weight * weight + rest * rest + np.float32(_GROWTH) * gap * weight * rest
    one_sided = 2 + np.float32(_GROWTH) * np.abs(days[first])
    expected = np.sqrt(np.where(first == second, one_sided, two_sided))
    sigma = np.float32(_MEAN_TO_SIGMA) * kernels.interior_error(bands, clear, days, _GROWTH) * expected
    sigma[:, kernels.count(clear)[0] < _LEAST_OBSERVATIONS] = np.nan
    return sigma


class Median:
    """The median of the clear observations, per band.

    It does not depend on the target date except through its window, which is 60 days on either side by default.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.protocol import Observations
    >>> from xr_cloudfree.models.classical.pixelwise import Median
    >>> bands = np.array([100, 900, 140], np.uint16).reshape(3, 1, 1, 1)
    >>> obs = Observations(bands, np.ones((3, 1, 1), bool), np.array([-9.0, 1.0, 4.0]))
    >>> Median().predict([obs])[0].bands.item()
    140.0
    """

    by_band = True

    spec = ModelSpec("median", "median of the clear observations", window_days=60.0, layers=("source_time",))

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """Return one prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = flat(obs)
        number, last = kernels.count(clear)
        source = np.where(number == 1, last, np.int16(-1))
        return prediction(obs, kernels.median(bands, clear), number > 0, source)


class Geomedian:
    """The geometric median of the clear observations: robust to outliers, and consistent across bands.

    It does not depend on the target date except through its window, which is 60 days on either side by default.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.protocol import Observations
    >>> from xr_cloudfree.models.classical.pixelwise import Geomedian
    >>> bands = np.array([[0, 0], [0, 2], [2, 0], [2, 2]], np.uint16).reshape(4, 2, 1, 1)
    >>> obs = Observations(bands, np.ones((4, 1, 1), bool), np.array([-9.0, 1.0, 4.0, 8.0]))
    >>> Geomedian().predict([obs])[0].bands.ravel().tolist()
    [1.0, 1.0]
    """

    spec = ModelSpec(
        "geomedian",
        "geometric median of the clear observations",
        window_days=60.0,
        layers=("source_time",),
    )

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """Return one prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = flat(obs)
        number, last = kernels.count(clear)
        source = np.where(number == 1, last, np.int16(-1))
        return prediction(obs, kernels.geomedian(bands, clear), number > 0, source)


class Harmonic:
    """An annual harmonic fitted to the clear observations by least squares; linear interpolation where they are few.

    Parameters
    ----------
    min_clear : int
        Minimum number of clear observations for a fit; pixels with fewer are interpolated linearly in time.
    ridge : float
        Ridge penalty on the harmonic, relative to the total weight of the observations. It stabilises the fit where the
        observations cover only a part of the year.
    rounds : int
        Number of times the observations are reweighted by their residuals, which reduces the influence of clouds
        missed by the mask; 0 is ordinary least squares.

    Raises
    ------
    OptionError
        If a setting is out of range.

    Notes
    -----
    The fit is ``a + b (cos(w d) - 1) + c sin(w d)`` with d the days from the target date, so its value at the target is
    ``a``: a weighted sum of the observations, with the same weights for all bands. Outliers get Cauchy weights by the
    residual of the mean over bands.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.protocol import Observations
    >>> from xr_cloudfree.models.classical.pixelwise import Harmonic
    >>> day_offset = np.arange(-180.0, 180.0, 20.0)
    >>> year = 2000 + 500 * np.cos(2 * np.pi * day_offset / 365.25)
    >>> bands = year.astype(np.float32).reshape(-1, 1, 1, 1)
    >>> clear = (np.abs(day_offset) > 30).reshape(-1, 1, 1)
    >>> Harmonic(ridge=1e-6).predict([Observations(bands, clear, day_offset)])[0].bands.round().item()
    2500.0
    """

    by_band = True

    def __init__(self, min_clear: int = 8, ridge: float = 0.01, rounds: int = 2) -> None:
        for name, value, needed, invalid in (
            ("min_clear", min_clear, "an integer of at least 3, the number of unknowns of the fit", min_clear < 3),
            ("ridge", ridge, "a positive number", not 0 < ridge < np.inf),
            ("rounds", rounds, "a non-negative integer", rounds < 0),
        ):
            if invalid:
                raise OptionError(f"{name} is {value!r}", needed, "Harmonic()")
        self.min_clear, self.ridge, self.rounds = min_clear, ridge, rounds
        defaults = {"min_clear": 8, "ridge": 0.01, "rounds": 2}
        self.spec = ModelSpec(
            "harmonic",
            "annual harmonic through the clear observations; linear where they are few",
            layers=("source_time",),
            settings=tuple((name, value) for name, value in vars(self).items() if value != defaults[name]),
        )

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """Return one prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = flat(obs)
        number, _ = kernels.count(clear)
        fitted = np.flatnonzero(number >= self.min_clear)
        before, after = clear_neighbours(obs.day_offset, clear)
        image, source = interpolate_linearly(bands, obs.day_offset, before, after)
        known = source >= 0
        for start in range(0, len(fitted), _PIXELS):
            part = fitted[start : start + _PIXELS]
            values, seen = bands[:, :, part], clear[:, part]
            weights = self._weights(values, seen, obs.day_offset)
            image[:, part] = kernels.mix(values, seen, weights)
            source[part] = dominant(weights)
        return prediction(obs, image, known, source)

    def _weights(
        self, values: NDArray[np.generic], clear: NDArray[np.bool_], day_offset: NDArray[np.float64]
    ) -> NDArray[np.float32]:
        """Return the weight of each date in the value of the fit at the target date, shape (time, pixel)."""
        angle = 2 * np.pi * day_offset / DAYS_PER_YEAR
        design = np.stack([np.ones_like(angle), np.cos(angle) - 1, np.sin(angle)], axis=1)
        trust = clear.astype(np.float64)
        inverse = _inverse(trust, design, self.ridge)
        brightness = np.zeros(clear.shape)
        if self.rounds:
            for band in range(values.shape[1]):
                brightness += np.where(clear, values[:, band], 0)
        for _ in range(self.rounds):
            moments = [_over_dates(trust * brightness, column) for column in design.T]
            residual = brightness.copy()
            for column, cofactors in zip(design.T, inverse, strict=True):
                value = sum(a * m for a, m in zip(cofactors, moments, strict=True))
                residual -= np.multiply.outer(column, value)
            residual = np.abs(residual)
            scale = _over_dates(trust * residual) / _over_dates(trust)
            trust = clear / (1 + (residual / np.maximum(_CAUCHY * scale, np.finfo(float).tiny)) ** 2)
            inverse = _inverse(trust, design, self.ridge)
        weights = np.zeros(clear.shape)
        for column, row in zip(design.T, inverse[0], strict=True):
            weights += np.multiply.outer(column, row)
        return (trust * weights).astype(np.float32)


def _over_dates(terms: NDArray[np.float64], factors: NDArray[np.float64] | None = None) -> NDArray[np.float64]:
    """Sum over dates in order; the summation order of ``sum(axis=0)`` may depend on the shape."""
    total = np.zeros(terms.shape[1])
    for row, factor in zip(terms, np.ones(len(terms)) if factors is None else factors, strict=True):
        total += row * factor
    return total


def _inverse(trust: NDArray[np.float64], design: NDArray[np.float64], ridge: float) -> list[list[NDArray[np.float64]]]:
    """Invert the 3 x 3 normal matrix of each pixel by cofactors."""
    one, cos, sin = design.T
    a, b, c = (_over_dates(trust, column) for column in (one, cos, sin))
    d, e, f = (_over_dates(trust, column) for column in (cos * cos, cos * sin, sin * sin))
    d, f = d + ridge * a, f + ridge * a
    p, q, r = d * f - e * e, c * e - b * f, b * e - c * d
    s, t, u = a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * p + b * q + c * r
    rows = [[p, q, r], [q, s, t], [r, t, u]]
    return [[cofactor / determinant for cofactor in row] for row in rows]
