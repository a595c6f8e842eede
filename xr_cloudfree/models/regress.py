"""Linear in time, corrected by what the target's own clear pixels say of its error."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.observations import Observations, Prediction
from xr_cloudfree.models import fitting, kernels
from xr_cloudfree.models.classical import Linear
from xr_cloudfree.models.spec import ModelSpec

# Pixels beside the gap that are not trusted before they were looked at.
RIM = 4
# Least number of clear pixels away from the rim for a fit.
LEAST_CORE = 150
# Dates that serve as features, and the number of features that they may make up.
MAX_DATES, MAX_FEATURES = 16, 128
LEAST_SHARE = 0.5
# Standard deviations, in pixels, of the kernels that spread residuals into the gap, from the coarsest.
SPREADS = (16.0, 4.0, 1.5)
SHRINK = 0.05


class Regress:
    """Linear in time plus a robust regression of its error on the other dates, fitted on the target's clear pixels.

    Features are the linear prediction, the difference of the two dates behind it, and the other dates near the
    target. The rim of the mask is used only where it looks like ground. What the fit leaves at trusted pixels is
    spread into the gap. With too few clear target pixels the answer is that of `Linear`.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.cube.observations import Observations
    >>> from xr_cloudfree.models.regress import Regress
    >>> bands = np.array([0.1, 0.2], np.float32).reshape(2, 1, 1, 1)
    >>> obs = Observations(bands, np.ones((2, 1, 1), bool), np.array([-6.0, 2.0]))
    >>> round(Regress().predict([obs])[0].bands.item(), 3)
    0.175
    """

    spec = ModelSpec(
        "regress",
        "linear, corrected by a robust fit of its error on the target's clear pixels",
        units="reflectance",
        tile=256,
        stride=128,
        taper=True,
        layers=("source_time", "uncertainty"),
    )

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """One prediction per tile."""
        return [_predict(obs) for obs in tiles]


def _predict(obs: Observations) -> Prediction:
    others = obs.clear
    if obs.target >= 0:
        others = obs.clear.copy()
        others[obs.target] = False
    given = Observations(obs.bands, others, obs.day_offset, -1, obs.scale, obs.origin, obs.roles)
    linear = Linear().predict([given])[0]
    correction = None
    if obs.target >= 0 and (linear.known & obs.clear[obs.target]).any():
        correction = _correct(obs, others, linear)
    bands = linear.bands if correction is None else (linear.bands + correction).astype(np.float32)
    return Prediction(bands, linear.known, linear.source)


def _correct(
    obs: Observations, others: NDArray[np.bool_], linear: Prediction
) -> NDArray[np.float32] | None:
    """What to add to the linear prediction, shape (band, y, x); None where nothing can be learned."""
    from scipy.ndimage import distance_transform_edt

    shape, n_bands = obs.shape, obs.n_bands
    seen = obs.clear[obs.target]
    usable = (seen & linear.known).ravel()
    distance = (distance_transform_edt(seen) if not seen.all() else np.full(shape, np.inf)).ravel()
    base = linear.bands.reshape(n_bands, -1)
    error = np.where(usable, obs.bands[obs.target].reshape(n_bands, -1) - base, np.float32(0)).astype(np.float32)
    features = _features(obs, others, linear)

    core = usable & (distance > RIM)
    if core.sum() < LEAST_CORE:
        core = _shallow_core(error.mean(axis=0).astype(np.float64), usable, distance)
        if core.sum() < LEAST_CORE:
            return None
    found = fitting.fit(features, error, core, shape)
    left = error - found(features)
    trust = fitting.trusted(left.mean(axis=0).astype(np.float64), usable, core, distance, RIM)
    if (trust & ~core).any():
        found = fitting.fit(features, error, trust, shape)
    value = found(features)
    left = (error - value).astype(np.float64)
    weight = np.where(trust, fitting.ground_weight(left, found.scale), 0.0)
    value += _spread(left, weight, shape)
    return np.where(linear.known, value.reshape(n_bands, *shape), np.float32(0))


def _shallow_core(
    brightness: NDArray[np.float64], usable: NDArray[np.bool_], distance: NDArray[np.float64]
) -> NDArray[np.bool_]:
    """All usable pixels, where the clear parts are too narrow to have a core and do not brighten towards the edge."""
    nothing = np.zeros_like(usable)
    ring = np.ceil(distance)
    inner = usable & (ring >= 2)
    if inner.sum() < 10 or usable.sum() < LEAST_CORE:
        return nothing
    return usable if (fitting.trusted(brightness, usable, inner, distance, 1) == usable).all() else nothing


def _features(obs: Observations, others: NDArray[np.bool_], linear: Prediction) -> NDArray[np.float32]:
    """What is known at every pixel of the window, shape (feature, pixel)."""
    n_bands = obs.n_bands
    bands = np.asarray(obs.bands, np.float32).reshape(obs.n_dates, n_bands, -1)
    clear = others.reshape(obs.n_dates, -1)
    base = linear.bands.reshape(n_bands, -1)
    known = linear.known.ravel()
    before, after = kernels.bracket(clear, int(np.searchsorted(obs.day_offset, 0.0, side="right")))
    two_sided = np.flatnonzero((before >= 0) & (after >= 0))
    slope = np.zeros_like(base)
    slope[:, two_sided] = (bands[before[two_sided], :, two_sided] - bands[after[two_sided], :, two_sided]).T

    share = clear.mean(axis=1)
    order = np.argsort(np.abs(obs.day_offset), kind="stable")
    limit = max(1, min(MAX_DATES, MAX_FEATURES // n_bands))
    chosen = np.sort([i for i in order if share[i] >= LEAST_SHARE][:limit]).astype(np.intp)
    rows = [np.where(known, base, np.float32(0)), slope]
    rows += _whole(bands[chosen], clear[chosen], obs.day_offset[chosen], base, known)
    return np.concatenate(rows)


def _whole(
    bands: NDArray[np.float32],
    clear: NDArray[np.bool_],
    days: NDArray[np.float64],
    base: NDArray[np.float32],
    known: NDArray[np.bool_],
) -> list[NDArray[np.float32]]:
    """Each date less `base`, its gaps filled linearly in time from the other dates; 0 where none is clear."""
    number = np.arange(len(days), dtype=np.int16)[:, None]
    previous = np.maximum.accumulate(np.where(clear, number, np.int16(-1)), axis=0)
    following = np.minimum.accumulate(np.where(clear, number, np.int16(len(days)))[::-1], axis=0)[::-1]
    rows = []
    for i in range(len(days)):
        row = np.zeros_like(base)
        np.subtract(bands[i], base, out=row, where=clear[i])
        gaps = np.flatnonzero(~clear[i] & known & clear.any(axis=0))
        a, b = previous[i, gaps], following[i, gaps]
        first, second = np.where(a < 0, b, a), np.where(b == len(days), a, b)
        span = days[second] - days[first]
        weight = np.divide(days[i] - days[first], span, out=np.zeros_like(span), where=span > 0)
        start = bands[first, :, gaps]
        row[:, gaps] = (start + weight[:, None] * (bands[second, :, gaps] - start)).T - base[:, gaps]
        rows.append(row)
    return rows


def _spread(
    residual: NDArray[np.float64], weight: NDArray[np.float64], shape: tuple[int, int]
) -> NDArray[np.float32]:
    """Residuals at trusted pixels, spread over the window by normalised convolution from coarse to fine."""
    from scipy.ndimage import gaussian_filter

    def smooth(image: NDArray[np.float64], sigma: float) -> NDArray[np.float64]:
        return np.asarray(gaussian_filter(image.reshape(shape), sigma, truncate=3.0, mode="constant")).ravel()

    estimate = np.zeros_like(residual)
    for sigma in SPREADS:
        total = smooth(weight, sigma) + SHRINK
        for band in range(len(residual)):
            estimate[band] += smooth(weight * (residual[band] - estimate[band]), sigma) / total
    return estimate.astype(np.float32)
