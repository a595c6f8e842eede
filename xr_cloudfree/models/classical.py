"""Models that look at one pixel at a time and learn nothing.

They give the same answer under any chunking, and none needs a halo. Dates outside the window are left out before a
model sees the observations; ``spec.window_days`` is only the default.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.observations import Observations, Prediction
from xr_cloudfree.models import kernels
from xr_cloudfree.models.spec import ModelSpec


def _flat(obs: Observations) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Bands and clear mask with one pixel axis."""
    t, b, y, x = obs.bands.shape
    bands = np.ascontiguousarray(obs.bands).reshape(t, b, y * x)
    return bands, np.ascontiguousarray(obs.clear).reshape(t, y * x)


def _prediction(
    obs: Observations,
    image: NDArray[np.float32],
    known: NDArray[np.bool_],
    source: NDArray[np.int16],
) -> Prediction:
    """Back from one pixel axis to rows and columns."""
    y, x = obs.shape
    return Prediction(image.reshape(-1, y, x), known.reshape(y, x), source.reshape(y, x))


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


class Nearest:
    """The nearest clear observation in time; of two equally near the earlier.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.cube.observations import Observations
    >>> from xr_cloudfree.models.classical import Nearest
    >>> bands = np.array([100, 200], np.uint16).reshape(2, 1, 1, 1)
    >>> obs = Observations(bands, np.ones((2, 1, 1), bool), np.array([-5.0, 3.0]))
    >>> Nearest().predict([obs])[0].bands.item()
    200.0
    """

    spec = ModelSpec("nearest", "the nearest clear observation in time", layers=("source_time",))

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """One prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = _flat(obs)
        before, after, weight, known = _neighbours(obs, clear)
        source = np.where(weight > 0.5, after, before)
        image = kernels.blend(bands, source, source, np.zeros_like(weight))
        return _prediction(obs, image, known, np.where(known, source, np.int16(-1)))


class Linear:
    """Linear in time between the previous and the next clear observation; one-sided, the nearest.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.cube.observations import Observations
    >>> from xr_cloudfree.models.classical import Linear
    >>> bands = np.array([100, 200], np.uint16).reshape(2, 1, 1, 1)
    >>> obs = Observations(bands, np.ones((2, 1, 1), bool), np.array([-6.0, 2.0]))
    >>> Linear().predict([obs])[0].bands.item()
    175.0
    """

    spec = ModelSpec(
        "linear",
        "linear in time between the previous and the next clear observation",
        layers=("source_time",),
    )

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """One prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = _flat(obs)
        before, after, weight, known = _neighbours(obs, clear)
        image = kernels.blend(bands, before, after, weight)
        source = np.where(weight > 0.5, after, before)
        return _prediction(obs, image, known, np.where(known, source, np.int16(-1)))


class Median:
    """The median of the clear observations, band by band.

    It ignores the target date, so its window is what ties it to a season: 60 days on either side by default.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.cube.observations import Observations
    >>> from xr_cloudfree.models.classical import Median
    >>> bands = np.array([100, 900, 140], np.uint16).reshape(3, 1, 1, 1)
    >>> obs = Observations(bands, np.ones((3, 1, 1), bool), np.array([-9.0, 1.0, 4.0]))
    >>> Median().predict([obs])[0].bands.item()
    140.0
    """

    spec = ModelSpec("median", "median of the clear observations", window_days=60.0, layers=("source_time",))

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """One prediction per tile."""
        return [self._predict(obs) for obs in tiles]

    def _predict(self, obs: Observations) -> Prediction:
        bands, clear = _flat(obs)
        number, last = kernels.count(clear)
        source = np.where(number == 1, last, np.int16(-1))
        return _prediction(obs, kernels.median(bands, clear), number > 0, source)
