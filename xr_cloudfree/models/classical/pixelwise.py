"""Models that look at one pixel at a time and learn nothing.

They give the same answer under any chunking, and none needs a halo. Dates outside the window are left out
before a model sees the observations; ``spec.window_days`` is only the default.
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
_GROWTH = 0.3  # of the variance of linear's error, per day of gap, in units of one date's noise
_MEAN_TO_SIGMA = 1.2533  # root of pi / 2: a normal distribution's sigma over its mean absolute value
_JUDGED = 6  # clear observations, so at least four errors, from which a pixel's uncertainty is told


def _neighbours(
    obs: Observations, clear: NDArray[np.bool_]
) -> tuple[NDArray[np.int16], NDArray[np.int16], NDArray[np.float32], NDArray[np.bool_]]:
    """The previous and the next clear date of each pixel, the weight of the next, and where there is any.

    One-sided pixels have the same date twice, with weight 0. A date at the target itself counts as previous.
    """
    before, after = kernels.bracket(clear, int(np.searchsorted(obs.day_offset, 0.0, side="right")))
    first = np.where(before < 0, after, before)
    second = np.where(after < 0, before, after)
    known = first >= 0
    np.maximum(first, 0, out=first)
    np.maximum(second, 0, out=second)
    start, end = obs.day_offset[first], obs.day_offset[second]
    weight = np.zeros(len(first), np.float32)
    np.divide(start, start - end, out=weight, where=first != second, casting="same_kind")
    return first, second, weight, known


def _linear(
    obs: Observations, bands: NDArray[np.generic], clear: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.int16], NDArray[np.bool_]]:
    """Image, source and known of the linear model, on one pixel axis."""
    before, after, weight, known = _neighbours(obs, clear)
    source = np.where(weight > 0.5, after, before)
    source[~known] = -1
    return kernels.blend(bands, before, after, weight), source, known


class Nearest:
    """The nearest clear observation in time; of two equally near the earlier.

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
        """One prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = flat(obs)
        before, after, weight, known = _neighbours(obs, clear)
        source = np.where(weight > 0.5, after, before)
        image = kernels.blend(bands, source, source, np.zeros_like(weight))
        return prediction(obs, image, known, np.where(known, source, np.int16(-1)))


class Linear:
    """Linear in time between the previous and the next clear observation; one-sided, the nearest.

    Parameters
    ----------
    uncertainty : bool
        Whether the uncertainty is told, too; that takes several times as long as the image. It is NaN at
        pixels with fewer than six clear observations.

    Notes
    -----
    The uncertainty is empirical. Each clear observation that lies between two others is predicted from them;
    the mean size of these errors, each over what its gap lets expect, is the pixel's own scale, band by
    band. Errors are expected to grow with the gap as those of a random walk that is tied to its ends, on top
    of each date's noise.

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
        """One prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = flat(obs)
        image, source, known = _linear(obs, bands, clear)
        sigma = _linear_uncertainty(obs, bands, clear) if self.uncertainty else None
        return prediction(obs, image, known, source, sigma)


def _linear_uncertainty(obs: Observations, bands: NDArray[np.generic], clear: NDArray[np.bool_]) -> NDArray[np.float32]:
    before, after, weight, _ = _neighbours(obs, clear)
    days = obs.day_offset.astype(np.float32)
    gap = days[after] - days[before]
    rest = np.float32(1) - weight
    two_sided = 1 + weight * weight + rest * rest + np.float32(_GROWTH) * gap * weight * rest
    one_sided = 2 + np.float32(_GROWTH) * np.abs(days[before])
    expected = np.sqrt(np.where(before == after, one_sided, two_sided))
    sigma = np.float32(_MEAN_TO_SIGMA) * kernels.interior_error(bands, clear, days, _GROWTH) * expected
    sigma[:, kernels.count(clear)[0] < _JUDGED] = np.nan
    return sigma


class Median:
    """The median of the clear observations, band by band.

    It ignores the target date, so its window is what ties it to a season: 60 days on either side by default.

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
        """One prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = flat(obs)
        number, last = kernels.count(clear)
        source = np.where(number == 1, last, np.int16(-1))
        return prediction(obs, kernels.median(bands, clear), number > 0, source)


class Geomedian:
    """The geometric median of the clear observations; it resists outliers and keeps the bands together.

    It ignores the target date, so its window is what ties it to a season: 60 days on either side by default.

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
        """One prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = flat(obs)
        number, last = kernels.count(clear)
        source = np.where(number == 1, last, np.int16(-1))
        return prediction(obs, kernels.geomedian(bands, clear), number > 0, source)


class Harmonic:
    """One annual harmonic, fitted to the clear observations by least squares; linear where they are few.

    Parameters
    ----------
    min_clear : int
        Clear observations from which on a pixel is fitted; below it is linear.
    ridge : float
        Penalty on the harmonic as a share of the observations' weight. It keeps the fit from swinging where
        the observations cover a part of the year only.
    rounds : int
        How often the observations are weighted anew by their distance from the fit, so that clouds which the
        mask missed lose their hold; 0 is plain least squares.

    Raises
    ------
    OptionError
        If a setting is out of range.

    Notes
    -----
    The fit is ``a + b (cos(w d) - 1) + c sin(w d)`` with d the days from the target date, so its value at the
    target is ``a``: a weighted sum of the observations, with the same weights for all bands. Whether an
    observation is an outlier is judged by the mean of its bands, with Cauchy weights.

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
        for name, value, needed, bad in (
            ("min_clear", min_clear, "a whole number of at least 3, the unknowns of the fit", min_clear < 3),
            ("ridge", ridge, "a positive number", not 0 < ridge < np.inf),
            ("rounds", rounds, "a whole number that is not negative", rounds < 0),
        ):
            if bad:
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
        """One prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = flat(obs)
        number, _ = kernels.count(clear)
        fitted = np.flatnonzero(number >= self.min_clear)
        image, source, known = _linear(obs, bands, clear)
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
        """Weight of each date in the fit's value at the target, shape (time, pixel)."""
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
    """Sum over dates, one after the other; ``sum(axis=0)`` may add in an order that depends on the shape."""
    total = np.zeros(terms.shape[1])
    for row, factor in zip(terms, np.ones(len(terms)) if factors is None else factors, strict=True):
        total += row * factor
    return total


def _inverse(trust: NDArray[np.float64], design: NDArray[np.float64], ridge: float) -> list[list[NDArray[np.float64]]]:
    """Inverse of each pixel's 3 x 3 normal matrix, by its cofactors."""
    one, cos, sin = design.T
    a, b, c = (_over_dates(trust, column) for column in (one, cos, sin))
    d, e, f = (_over_dates(trust, column) for column in (cos * cos, cos * sin, sin * sin))
    d, f = d + ridge * a, f + ridge * a
    p, q, r = d * f - e * e, c * e - b * f, b * e - c * d
    s, t, u = a * f - c * c, b * c - a * e, a * d - b * b
    determinant = a * p + b * q + c * r
    rows = [[p, q, r], [q, s, t], [r, t, u]]
    return [[cofactor / determinant for cofactor in row] for row in rows]
