"""Correct the prediction of any model by images of other, coarser sensors near the target date.

What the other sensor saw, less what it would have seen of the prediction, is the error of the prediction at the coarse
resolution. How that error looks at the fine one is learned in context: other dates of the tile are predicted from the
rest, their errors are seen at both resolutions, and a ridge regression relates the two. There are no trained weights.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.footprint import Footprint
from xr_cloudfree.cube.other_sensors import NEAR, SAME
from xr_cloudfree.models.classical import robust_ridge
from xr_cloudfree.models.classical.coarse_errors import SHRINK, Maps, SeenError, fill, fit_errors
from xr_cloudfree.models.classical.sensor_lines import fit_line
from xr_cloudfree.models.classical.series import Series
from xr_cloudfree.models.classical.stacking import SAME_PASS
from xr_cloudfree.models.protocol import BaseModel, FillModel, Observations, OtherImages, Prediction, optional

VERSION = 1
"""Version of the method, a part of what a run of a store is recognised by."""
TILE, STRIDE = 256, 192
"""Tiles for models that have none of their own."""
# Number of dates that teach, and least clear share of the tile of one; of the target itself, which it may be one of.
DATES, LEAST_SHARE, LEAST_OF_TARGET = 8, 0.5, 0.05
# Widths of what a coarse pixel sees that are tried, in units of the one that is expected.
WIDTHS = (0.6, 0.8, 1.0, 1.2)
# Least correlation with the linear prediction by which another width than the expected one is taken.
LEAST_LIKENESS = 0.5
# Pixels sampled of a date, and the fewest with which one teaches.
SAMPLE, LEAST_PIXELS = 1500, 50
# Standard deviation of the noise that is added to what a coarser sensor would have seen: that of its reflectance.
NOISE = 0.004
# Least share of a pixel's interpolated value that is from valid coarse pixels.
COVERED = 0.99
# Coarse pixels of a pair that are compared.
PAIR_SAMPLE = 512


class Enhanced(BaseModel):
    """A model whose predictions are corrected by images of other sensors.

    Parameters
    ----------
    model : FillModel
        The model.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.classical.enhance import Enhanced
    >>> from xr_cloudfree.models.classical.pixelwise import Linear
    >>> from xr_cloudfree.models.protocol import Observations, OtherImages
    >>> bands = np.full((2, 1, 12, 12), 0.2, np.float32)
    >>> coarse = np.full((1, 1, 4, 4), 0.3, np.float32)
    >>> centres = np.arange(4) * 3 + 1.5
    >>> other = OtherImages(coarse, np.zeros(1), (0,), centres, centres, (3.0, 3.0), (3.0, 3.0))
    >>> days = np.array([-8.0, 8.0])
    >>> obs = Observations(bands, np.ones((2, 12, 12), bool), days, others=(other,))
    >>> image = Enhanced(Linear()).predict([obs])[0].bands
    >>> round(float(image.mean()), 2)
    0.3
    """

    def __init__(self, model: FillModel) -> None:
        self.model = model
        own = model.spec
        self.spec = replace(
            own,
            units="reflectance",
            tile=own.tile or TILE,
            stride=own.stride or STRIDE,
            taper=own.taper or own.tile is None,
            settings=(*own.settings, ("enhance", VERSION)),
        )
        rest = optional(model)
        self.by_band, self.uses_gpu, self.precision = False, rest.uses_gpu, rest.precision

    @property
    def kind(self) -> Literal["classical", "learned", "rule"]:
        """Kind of the model."""
        return optional(self.model).kind

    @property
    def tiles_at_once(self) -> int:
        """Number of tiles that the model takes where nothing else runs."""
        return optional(self.model).tiles_at_once

    @property
    def overlaps(self) -> bool:
        """Whether the next tiles are cut while the model predicts."""
        return optional(self.model).overlaps

    def pixel_bytes(self, dates: int, bands: int) -> int:
        """Return the bytes of working memory per pixel of a tile: the model's, and of the dates that teach."""
        return optional(self.model).pixel_bytes(dates, bands) + 4 * bands * (12 + dates)

    def check_installed(self) -> None:
        """Raise if the model cannot run in this environment."""
        optional(self.model).check_installed()

    def load(self, threads: int | None = None) -> None:
        """Load the model into this process."""
        optional(self.model).load(threads)

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """Return one prediction per tile."""
        predictions = self.model.predict(tiles)
        return [enhance(obs, answer) for obs, answer in zip(tiles, predictions, strict=True)]


def enhance(obs: Observations, prediction: Prediction) -> Prediction:
    """Correct a prediction by the images of other sensors.

    Parameters
    ----------
    obs : Observations
        The tile, with reflectance and the images of other sensors.
    prediction : Prediction
        A model's prediction for it.

    Returns
    -------
    Prediction
        Unchanged where no image of another sensor within `NEAR` days is clear.

    References
    ----------
    Gao et al. 2006, On the blending of the Landsat and MODIS surface reflectance, doi 10.1109/TGRS.2006.872081, for the
    task; Wald et al. 1997, Fusion of satellite images of different spatial resolutions, for learning from degraded
    images.
    """
    sensor = np.zeros(obs.shape, np.uint8)
    consistency = np.full((obs.n_bands, *obs.shape), np.nan, np.float32)
    prediction = replace(prediction, sensor=sensor, consistency=consistency)
    near = [(i, other) for i, other in enumerate(obs.others, start=1) if _is_near(other) and other.positions]
    if not near:
        return prediction
    series = Series.of(obs)
    # The nearest in time is the last to be applied.
    for number, other in sorted(near, key=lambda item: -float(np.abs(item[1].day_offset).min())):
        prediction = _apply(obs, series, other, number, prediction)
    return prediction


def _is_near(other: OtherImages) -> bool:
    return bool(other.bands.size) and bool((np.abs(other.day_offset) <= NEAR).any())


def _apply(obs: Observations, series: Series, other: OtherImages, number: int, prediction: Prediction) -> Prediction:
    """Correct a prediction by the images of one other sensor."""
    near = _near_images(obs, other)
    footprint = _footprint(obs, other, near)
    bands = list(other.positions)
    lessons = list(_lessons(obs, other, footprint))
    other = _harmonise(other, footprint, lessons)
    prediction = _add_unknown(other, footprint, near, number, prediction)
    seen_error = _error_at_target(other, footprint, near)
    if not seen_error.valid.any():
        return prediction
    # The error is spread a little way to where the sensor saw nothing.
    valid = seen_error.valid
    weight = footprint.interpolate_linearly(fill(valid[None].astype(np.float32), valid, SHRINK))[0]
    known = series.known.reshape(obs.shape)
    linear = series.image.reshape(-1, *obs.shape)
    base = np.where(prediction.known & np.isfinite(prediction.bands), prediction.bands, linear)
    shift = footprint.degrade((base - linear)[bands])
    error = np.where(seen_error.valid, seen_error.error - shift, np.float32(0))
    features = Maps.of(footprint, base, SeenError(error, valid)).features(footprint, bands)
    fit = fit_errors(_taught(obs, other, footprint, lessons, seen_error, linear, known), obs.n_bands, bands)
    weight = weight * known
    image = base + weight * fit.predict(features).reshape(base.shape)
    # What the other sensor would see of the image may differ from what it saw by noise, but not by more.
    rest = np.where(seen_error.valid, error - footprint.degrade((image - base)[bands]), np.float32(0))
    image[bands] += weight * footprint.interpolate_linearly(_beyond_noise(rest))
    rest = np.where(seen_error.valid, error - footprint.degrade((image - base)[bands]), np.float32(np.nan))
    share = _coverage(footprint, valid) * known
    covered = share > 0.5
    consistency = prediction.consistency
    assert consistency is not None and prediction.sensor is not None
    consistency[bands] = np.where(covered, footprint.repeat(rest), consistency[bands])
    uncertainty = prediction.uncertainty
    if uncertainty is not None and fit.errors.shape[1]:
        own = fit.uncertainty(features).reshape(base.shape)
        if seen_error.days > SAME_PASS:  # the ground may have changed since
            own = np.hypot(own, np.sqrt(seen_error.days) * np.nan_to_num(series.daily_change())[:, None, None])
        uncertainty = np.where(np.isfinite(uncertainty), share * own + (1 - share) * uncertainty, own)
    return replace(
        prediction,
        bands=np.where(prediction.known & known, image, prediction.bands),
        uncertainty=uncertainty,
        sensor=np.where(covered, np.uint8(number), prediction.sensor),
        consistency=consistency,
    )


Near = dict[int, tuple[NDArray[np.float32], NDArray[np.bool_]]]
"""By index of an image near the target: the linear prediction of its day, and where it is known."""


def _near_images(obs: Observations, other: OtherImages) -> Near:
    """Predict the days of the sensor's images near the target, the nearest first."""
    return {
        int(i): _linear(obs, float(other.day_offset[i]), _own(obs))
        for i in np.argsort(np.abs(other.day_offset), kind="stable")
        if abs(other.day_offset[i]) <= NEAR
    }


def _footprint(obs: Observations, other: OtherImages, near: Near) -> Footprint:
    """Return the relation of the sensor's pixels to the tile, with the width that suits its images near the target.

    Sensors and ways to resample differ in how sharp they are. The linear prediction, as a sensor of each width would
    see it, is correlated with the images in what varies from pixel to pixel.
    """
    from scipy.ndimage import gaussian_filter

    candidates = [
        Footprint(other.rows, other.columns, obs.shape, other.step, (scale * other.width[0], scale * other.width[1]))
        for scale in WIDTHS
    ]
    usual = candidates[WIDTHS.index(1.0)]
    inside = np.all([candidate.inside for candidate in candidates], axis=0)
    likeness, compared = np.zeros(len(candidates)), 0
    for i, (linear, known) in sorted(near.items()):
        image = other.bands[i]
        valid = inside & np.isfinite(image).all(axis=0) & usual.covered(known)
        if valid.sum() < LEAST_PIXELS:
            continue

        def texture(values: NDArray[np.float32], valid: NDArray[np.bool_] = valid) -> NDArray[np.float32]:
            complete = fill(np.where(valid, values, np.float32(0)), valid, 1e-6)
            smooth = gaussian_filter(complete, (0, 1, 1), truncate=3.0, mode="nearest")
            return np.asarray((complete - smooth)[:, valid])

        seen = texture(image)
        compared += len(image)
        for number, candidate in enumerate(candidates):
            expected = texture(candidate.degrade(linear[list(other.positions)]))
            together = (seen * expected).sum(axis=1, dtype=np.float64)
            power = np.square(expected).sum(axis=1, dtype=np.float64) * np.square(seen).sum(axis=1, dtype=np.float64)
            likeness[number] += (together / np.sqrt(power + 1e-12)).sum()
    return candidates[int(np.argmax(likeness))] if likeness.max() > LEAST_LIKENESS * compared else usual


def _beyond_noise(values: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.sign(values) * np.maximum(np.abs(values) - np.float32(NOISE), 0))


@dataclass(frozen=True, eq=False)
class Lesson:
    """A date of the tile that is predicted from the others.

    Parameters
    ----------
    linear : ndarray of float32, shape (band, y, x)
        Its linear prediction.
    error : ndarray of float32, shape (band, y, x)
        Observed minus predicted; 0 where `usable` is False.
    usable : ndarray of bool, shape (y, x)
        Where it is clear and predicted.
    seen : SeenError
        What the other sensor would see of the error.
    pair : ndarray of float32, shape (band, row, column), or None
        The other sensor's own image within `SAME` days, NaN where not clear; None if there is none.
    """

    linear: NDArray[np.float32]
    error: NDArray[np.float32]
    usable: NDArray[np.bool_]
    seen: SeenError
    pair: NDArray[np.float32] | None


def _linear(obs: Observations, day: float, without: Sequence[int]) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Predict a day linearly from the dates of a tile, without some of them, as images and where they are known."""
    clear = obs.clear.copy()
    clear[list(without)] = False
    series = Series.of(replace(obs, clear=clear, day_offset=obs.day_offset - day, target=-1, others=()))
    return series.image.reshape(-1, *obs.shape), series.known.reshape(obs.shape)


def _own(obs: Observations) -> list[int]:
    """Return the index of the target's own observation, if there is one."""
    return [obs.target] if obs.target >= 0 else []


def _lessons(obs: Observations, other: OtherImages, footprint: Footprint) -> Iterator[Lesson]:
    """Predict each of the clear dates nearest to the target from the others."""
    share = obs.clear.reshape(obs.n_dates, -1).mean(axis=1)
    nearest = [int(date) for date in np.argsort(np.abs(obs.day_offset), kind="stable") if date != obs.target]
    bands, noise = list(other.positions), np.random.default_rng(0)
    for date in [date for date in nearest if share[date] >= LEAST_SHARE][:DATES]:
        same = np.flatnonzero(np.abs(obs.day_offset - obs.day_offset[date]) <= SAME_PASS)
        linear, known = _linear(obs, float(obs.day_offset[date]), [*same, *_own(obs)])
        usable = known & obs.clear[date]
        if not usable.any():
            continue
        error = np.where(usable, obs.bands[date] - linear, np.float32(0))
        seen, valid = footprint.degrade_clear(error[bands], usable)
        seen += noise.normal(0, NOISE, seen.shape).astype(np.float32)
        away = np.abs(other.day_offset - obs.day_offset[date])
        pair = other.bands[int(away.argmin())] if away.min() <= SAME else None
        yield Lesson(linear, error, usable, SeenError(np.where(valid, seen, np.float32(0)), valid), pair)


def _harmonise(other: OtherImages, footprint: Footprint, lessons: Sequence[Lesson]) -> OtherImages:
    """Remove the differences between the sensors that pairs of images of the same ground show, by a robust line.

    The line of each band is regularised towards 1 and 0, which published coefficients have left.
    """
    bands = list(other.positions)
    pairs = []
    for lesson in lessons:
        if lesson.pair is not None:
            valid = lesson.seen.valid & np.isfinite(lesson.pair).all(axis=0)
            ours = footprint.degrade((lesson.linear + lesson.error)[bands])
            pixels = np.flatnonzero(valid)
            if len(pixels):
                sample = pixels[:: -(-len(pixels) // PAIR_SAMPLE)]
                pairs.append(tuple(images.reshape(len(bands), -1)[:, sample] for images in (lesson.pair, ours)))
    if not pairs:
        return other
    lines = np.array([fit_line([(x[i], y[i]) for x, y in pairs]) for i in range(len(bands))], np.float32)
    slope, offset = lines.T[..., None, None]
    return replace(other, bands=slope * other.bands + offset)


def _error_at_target(other: OtherImages, footprint: Footprint, near: Near) -> SeenError:
    """Return what the sensor saw near the target date minus the linear prediction, from the nearest clear image."""
    shape = footprint.inside.shape
    error, valid, days = np.zeros((len(other.positions), *shape), np.float32), np.zeros(shape, bool), 0.0
    for i, (linear, known) in near.items():
        taken = footprint.inside & np.isfinite(other.bands[i]).all(axis=0) & ~valid
        if not taken.any():
            continue
        taken &= footprint.covered(known)
        np.copyto(error, other.bands[i] - footprint.degrade(linear[list(other.positions)]), where=taken)
        valid |= taken
        days += abs(float(other.day_offset[i])) * int(taken.sum())
    return SeenError(error, valid, days / max(int(valid.sum()), 1))


def _add_unknown(
    other: OtherImages, footprint: Footprint, near: Near, number: int, prediction: Prediction
) -> Prediction:
    """Take pixels that no date of the tile shows from the other sensor's nearest clear image, interpolated in space."""
    assert prediction.sensor is not None
    if prediction.known.all():
        return prediction
    shape = footprint.inside.shape
    level, valid = np.zeros((len(other.positions), *shape), np.float32), np.zeros(shape, bool)
    for i in near:
        taken = np.isfinite(other.bands[i]).all(axis=0) & ~valid
        np.copyto(level, other.bands[i], where=taken)
        valid |= taken
    covered = footprint.interpolate_linearly(valid[None].astype(np.float32))[0] >= COVERED
    added = ~prediction.known & covered
    if not added.any():
        return prediction
    upsampled = np.full_like(prediction.bands, np.nan)
    upsampled[list(other.positions)] = footprint.interpolate(fill(level, valid, 1e-6))
    uncertainty = prediction.uncertainty
    return replace(
        prediction,
        bands=np.where(added, upsampled, prediction.bands),
        known=prediction.known | added,
        source=None if prediction.source is None else np.where(added, np.int16(-1), prediction.source),
        uncertainty=None if uncertainty is None else np.where(added, np.float32(np.nan), uncertainty),
        gate=None if prediction.gate is None else np.where(added, np.float32(0), prediction.gate),
        sensor=np.where(added, np.uint8(number), prediction.sensor),
    )


def _coverage(footprint: Footprint, valid: NDArray[np.bool_]) -> NDArray[np.float32]:
    """Return how far each pixel is covered by valid coarse pixels, from 0 to 1, shape (y, x)."""
    inside = footprint.interpolate_linearly(footprint.inside[None].astype(np.float32))[0]
    covered = footprint.interpolate_linearly(valid[None].astype(np.float32))[0]
    # Coarse pixels that reach beyond the tile are missing, but their neighbours tell as much.
    return np.asarray(np.where(inside > 0, covered / np.where(inside > 0, inside, 1), 0), np.float32)


def _taught(
    obs: Observations,
    other: OtherImages,
    footprint: Footprint,
    lessons: Sequence[Lesson],
    at_target: SeenError,
    linear: NDArray[np.float32],
    known: NDArray[np.bool_],
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Return features and errors of sampled pixels, for each date that teaches."""
    bands = list(other.positions)
    dates = []
    for lesson in lessons:
        seen = lesson.seen
        if lesson.pair is not None:
            own = lesson.pair - footprint.degrade(lesson.linear[bands])
            valid = seen.valid & np.isfinite(own).all(axis=0)
            if 2 * valid.sum() >= seen.valid.sum():  # what the sensor really saw, with all that tells the two apart
                seen = SeenError(np.where(valid, own, np.float32(0)), valid)
        dates.append((lesson.linear, lesson.error, lesson.usable, seen))
    if obs.target >= 0 and obs.clear[obs.target].mean() >= LEAST_OF_TARGET:
        usable = obs.clear[obs.target] & known
        error = np.where(usable, obs.bands[obs.target] - linear, np.float32(0))
        dates.append((linear, error, usable, at_target))
    taught = []
    for image, error, usable, seen in dates:
        where = usable & (_coverage(footprint, seen.valid) >= COVERED)
        pixels = robust_ridge.thin(np.flatnonzero(where), obs.shape, SAMPLE)
        if len(pixels) < LEAST_PIXELS:
            continue
        features = Maps.of(footprint, image, seen).features_at(footprint, bands, pixels)
        taught.append((features, error.reshape(len(error), -1)[:, pixels]))
    return taught
