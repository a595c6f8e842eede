"""Simulate gaps with known truth: parts of clear frames are hidden under real cloud masks of other dates.

Truth and input are the same frame, so there is no change in time between them. Scores of the four tracks are never
mixed:

``"partial"``
    10 to 80 % of the target is hidden.
``"gap"``
    As *partial*, with all dates within 20 days of the target removed.
``"full"``
    The whole target is hidden.
``"haze"``
    As *partial*, but the clouds extend three pixels beyond the mask, and the mask misses a few small thin clouds
    completely.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.errors import OptionError, TimeError

Track = Literal["partial", "gap", "full", "haze"]
TRACKS: tuple[Track, ...] = get_args(Track)

MIN_CLEAR = 0.95
HIDDEN_SHARE = (0.1, 0.8)
GAP_DAYS = 20.0
CLOUD_REFLECTANCE = 0.6
# Opacity of a cloud at one, two and three pixels beyond its mask.
RIM_OPACITY = (0.5, 0.3, 0.18)
# Small thin clouds that the mask misses: number, radius in pixels, and opacity at the centre (minimum, maximum).
SMALL_CLOUDS, SMALL_RADIUS, SMALL_OPACITY = (2, 4), (1.0, 2.5), (0.15, 0.4)


@dataclass(frozen=True, eq=False)
class Case:
    """A simulated gap: the input of a model, and the truth.

    Parameters
    ----------
    track : {"partial", "gap", "full", "haze"}
        How the target was hidden.
    frame : int
        Index of the target in the original series.
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance of the input, including the target; NaN where not clear. With ``keep_values``, NaN only where there
        is no value, and at the hidden pixels of the target.
    clear : ndarray of bool, shape (time, y, x)
        Clear mask of the input; the hidden pixels of the target are not clear.
    day_offset : ndarray of float64, shape (time,)
        Signed days from the target date, increasing.
    target : int
        Index of the target in `bands`.
    truth : ndarray of float32, shape (band, y, x)
        The target as it was observed.
    truth_clear : ndarray of bool, shape (y, x)
        Where the truth is clear.
    scored : ndarray of bool, shape (y, x)
        Hidden pixels at which the truth is clear, and another date, too.
    """

    track: Track
    frame: int
    bands: NDArray[np.float32]
    clear: NDArray[np.bool_]
    day_offset: NDArray[np.float64]
    target: int
    truth: NDArray[np.float32]
    truth_clear: NDArray[np.bool_]
    scored: NDArray[np.bool_]

    @property
    def gap_days(self) -> float:
        """Median over the scored pixels of the days between the clear observations around the target.

        Infinite if most scored pixels have clear observations on one side only.
        """
        before = self.day_offset[:, None, None] < 0
        days = np.broadcast_to(self.day_offset[:, None, None], self.clear.shape)
        previous = np.where(self.clear & before, days, -np.inf).max(axis=0)
        following = np.where(self.clear & (days > 0), days, np.inf).min(axis=0)
        return float(np.median((following - previous)[self.scored]))


def target_frames(
    clear: NDArray[np.bool_], suspect: NDArray[np.bool_] | None = None, min_clear: float = MIN_CLEAR
) -> NDArray[np.intp]:
    """Find the frames that can serve as truth.

    Parameters
    ----------
    clear : ndarray of bool, shape (time, y, x)
        True where a pixel is clear and valid.
    suspect : ndarray of bool, shape (time,), optional
        Frames known to contain clouds that the mask missed.
    min_clear : float
        Share of clear pixels, in [0, 1], that a frame must exceed.

    Returns
    -------
    ndarray of int
        Indices into time.

    Examples
    --------
    >>> clear = np.ones((3, 4, 4), bool)
    >>> clear[1, :2] = False
    >>> target_frames(clear).tolist()
    [0, 2]
    """
    usable = clear.mean(axis=(1, 2)) > min_clear
    if suspect is not None:
        usable &= ~suspect
    return np.flatnonzero(usable)


def choose_frames(
    clear: NDArray[np.bool_], suspect: NDArray[np.bool_] | None, limit: int | None, seed: int
) -> NDArray[np.intp]:
    """Return the frames that can serve as truth, at most `limit` of them, drawn at random by `seed`."""
    frames = target_frames(clear, suspect)
    if limit is not None and len(frames) > limit:
        frames = np.sort(np.random.default_rng([seed, 1]).choice(frames, limit, replace=False))
    return frames


def real_masks(clear: NDArray[np.bool_], share: tuple[float, float] = HIDDEN_SHARE) -> list[NDArray[np.bool_]]:
    """Return the masks of partly cloudy frames.

    Parameters
    ----------
    clear : ndarray of bool, shape (time, y, x)
        True where a pixel is clear and valid.
    share : tuple of float
        Minimum and maximum share of hidden pixels.

    Returns
    -------
    list of ndarray of bool, shape (y, x)
        True where a pixel is hidden.
    """
    hidden = 1.0 - clear.mean(axis=(1, 2))
    return [~clear[i] for i in np.flatnonzero((hidden >= share[0]) & (hidden <= share[1]))]


def fractal_shapes(number: int, seed: int, edge: int = 256) -> list[NDArray[np.bool_]]:
    """Draw random cloud-like masks, for series with too few of their own.

    Parameters
    ----------
    number : int
        Number of masks.
    seed : int
        Seed of the random numbers.
    edge : int
        Rows and columns.

    Returns
    -------
    list of ndarray of bool, shape (y, x)
        True where a pixel is hidden: 10 to 75 % of each mask.
    """
    from scipy.ndimage import gaussian_filter

    rng, shapes = np.random.default_rng([seed, 3]), []
    for _ in range(number):
        noise = rng.standard_normal((edge, edge))
        # Noise at several scales, stronger the wider, gives outlines that are ragged at every scale.
        field = sum(width**1.5 * gaussian_filter(noise, width, mode="wrap") for width in (2.0, 6.0, 16.0))
        shapes.append(np.asarray(field > np.quantile(field, rng.uniform(0.25, 0.9))))
    return shapes


def transplant(
    masks: list[NDArray[np.bool_]],
    shape: tuple[int, int],
    share: tuple[float, float],
    rng: np.random.Generator,
) -> NDArray[np.bool_]:
    """Choose a mask of another date or site, flip it at random and crop it to `shape`.

    Parameters
    ----------
    masks : list of ndarray of bool, shape (y, x)
        Masks to choose from, True where hidden. Those smaller than `shape` are enlarged by an integer factor.
    shape : tuple of int
        Rows and columns of the result.
    share : tuple of float
        Minimum and maximum share of hidden pixels in the result.
    rng : numpy.random.Generator
        Random generator.

    Returns
    -------
    ndarray of bool, shape (y, x)
        True where a pixel is hidden.

    Raises
    ------
    OptionError
        If no crop with a share within the limits is found.
    """
    for _ in range(200):
        if not masks:
            break
        mask = masks[rng.integers(len(masks))]
        if rng.random() < 0.5:
            mask = mask.T
        mask = mask[:: rng.choice([-1, 1]), :: rng.choice([-1, 1])]
        factor = max(-(-shape[0] // mask.shape[0]), -(-shape[1] // mask.shape[1]))
        mask = mask.repeat(factor, axis=0).repeat(factor, axis=1)
        row = rng.integers(mask.shape[0] - shape[0] + 1)
        column = rng.integers(mask.shape[1] - shape[1] + 1)
        mask = mask[row : row + shape[0], column : column + shape[1]]
        if share[0] <= mask.mean() <= share[1]:
            return np.ascontiguousarray(mask)
    raise OptionError(
        f"none of {len(masks)} masks hides between {share[0]:.0%} and {share[1]:.0%} of a frame",
        "masks of partly cloudy frames",
        "masks=real_masks(clear) of a longer or another series",
    )


def haze(
    image: NDArray[np.float32],
    hidden: NDArray[np.bool_],
    rng: np.random.Generator,
    cloud: float | NDArray[np.floating] = CLOUD_REFLECTANCE,
    *,
    rim: Sequence[float] = RIM_OPACITY,
    small: tuple[int, int] = SMALL_CLOUDS,
    radius: tuple[float, float] = SMALL_RADIUS,
    peak: tuple[float, float] = SMALL_OPACITY,
) -> NDArray[np.float32]:
    """Add what a mask misses to an image: rims beyond the hidden pixels and a few small thin clouds.

    Parameters
    ----------
    image : ndarray of float32, shape (band, y, x)
        A clear image, in reflectance.
    hidden : ndarray of bool, shape (y, x)
        The mask, True where hidden.
    rng : numpy.random.Generator
        Random generator for the small clouds.
    cloud : float or ndarray, shape (band, 1, 1)
        Reflectance of a cloud, or of a shadow.
    rim : sequence of float
        Opacity at one, two, … pixels beyond the hidden ones.
    small : tuple of int
        Minimum and maximum number of small clouds.
    radius : tuple of float
        Their minimum and maximum radius, as the standard deviation of a Gaussian, in pixels.
    peak : tuple of float
        Their minimum and maximum opacity at the centre.

    Returns
    -------
    ndarray of float32, shape (band, y, x)
        The hazy image.
    """
    from scipy.ndimage import distance_transform_edt

    beyond = np.ceil(distance_transform_edt(~hidden)) if hidden.any() else np.full(hidden.shape, np.inf)
    opacity = np.zeros(hidden.shape)
    for distance, alpha in enumerate(rim, start=1):
        opacity[beyond == distance] = alpha
    visible = np.argwhere(~hidden)
    rows, columns = np.indices(hidden.shape)
    for _ in range(rng.integers(small[0], small[1] + 1) if len(visible) else 0):
        row, column = visible[rng.integers(len(visible))]
        width, height = rng.uniform(*radius), rng.uniform(*peak)
        blob = height * np.exp(-((rows - row) ** 2 + (columns - column) ** 2) / (2 * width**2))
        opacity = np.maximum(opacity, np.where(blob > 0.02, blob, 0))
    return (image + opacity * (cloud - image)).astype(np.float32)


def make_case(
    bands: NDArray[np.float32],
    clear: NDArray[np.bool_],
    time: NDArray[np.datetime64],
    frame: int,
    track: Track,
    hidden: NDArray[np.bool_],
    rng: np.random.Generator,
    *,
    keep_values: bool = False,
) -> Case:
    """Hide a part of one frame according to a track.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance.
    clear : ndarray of bool, shape (time, y, x)
        True where a pixel is clear and valid in every band.
    time : ndarray of datetime64, shape (time,)
        Dates, increasing.
    frame : int
        Index of the target.
    track : {"partial", "gap", "full", "haze"}
        How to hide it.
    hidden : ndarray of bool, shape (y, x)
        Pixels to hide; ignored by the track *full*, which hides all.
    rng : numpy.random.Generator
        Random generator, used by *haze* only.
    keep_values : bool
        True keeps values that are not clear, but for the hidden ones: masks cannot be corrected without them.

    Returns
    -------
    Case
        The input of a model, and the truth.

    Raises
    ------
    OptionError
        If the track is unknown.
    TimeError
        If the dates do not increase.
    """
    if track not in TRACKS:
        raise OptionError(f"track is {track!r}", f"one of {', '.join(TRACKS)}", "track='partial'")
    keep = others(time, frame)
    if track == "gap":
        keep &= np.abs(days_from(time, frame)) > GAP_DAYS
    if track == "full":
        hidden = np.ones_like(hidden)
    shown = haze(bands[frame].astype(np.float32), hidden, rng) if track == "haze" else None
    return hide(bands, clear, time, frame, track, hidden, keep, shown, keep_values=keep_values)


def days_from(time: NDArray[np.datetime64], frame: int) -> NDArray[np.float64]:
    """Return the signed days of all dates from that of one frame.

    Raises
    ------
    TimeError
        If the dates do not increase.
    """
    offset = (time - time[frame]) / np.timedelta64(1, "D")
    if (np.diff(offset) < 0).any():
        raise TimeError("the dates do not increase", "a sorted time axis", "ds.sortby('time')")
    return np.asarray(offset, np.float64)


def others(time: NDArray[np.datetime64], frame: int) -> NDArray[np.bool_]:
    """Select the dates that may serve as input: none of the target's day, since it would reveal the truth."""
    return np.asarray(time.astype("datetime64[D]") != time[frame].astype("datetime64[D]"))


def hide(
    bands: NDArray[np.float32],
    clear: NDArray[np.bool_],
    time: NDArray[np.datetime64],
    frame: int,
    track: Track,
    hidden: NDArray[np.bool_],
    keep: NDArray[np.bool_],
    shown: NDArray[np.float32] | None = None,
    *,
    keep_values: bool = False,
) -> Case:
    """Build a case from a frame, the pixels to hide and the dates to keep.

    Parameters
    ----------
    bands, clear, time, frame, track
        As for `make_case`.
    hidden : ndarray of bool, shape (y, x)
        Pixels of the target to hide.
    keep : ndarray of bool, shape (time,)
        Other dates to keep; the target is always kept.
    shown : ndarray of float32, shape (band, y, x), optional
        Values of the target in the input where it is not hidden; by default the frame itself.
    keep_values : bool
        As for `make_case`.
    """
    keep = keep.copy()
    keep[frame] = True
    offset, target = days_from(time, frame), int(keep[:frame].sum())
    values, seen = bands[keep].astype(np.float32), clear[keep]
    if shown is not None:
        values[target] = shown
    seen[target] &= ~hidden
    unseen = np.zeros_like(seen) if keep_values else ~seen
    unseen[target] |= hidden
    values[np.broadcast_to(unseen[:, None], values.shape)] = np.nan
    elsewhere = np.delete(seen, target, axis=0).any(axis=0)
    scored = hidden & clear[frame] & elsewhere
    return Case(track, frame, values, seen, offset[keep], target, bands[frame], clear[frame], scored)


def make_cases(
    bands: NDArray[np.float32],
    clear: NDArray[np.bool_],
    time: NDArray[np.datetime64],
    track: Track,
    *,
    masks: list[NDArray[np.bool_]] | None = None,
    suspect: NDArray[np.bool_] | None = None,
    limit: int | None = None,
    seed: int = 0,
    keep_values: bool = False,
) -> Iterator[Case]:
    """Hide each frame that can serve as truth under a real cloud mask.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance.
    clear : ndarray of bool, shape (time, y, x)
        True where a pixel is clear and valid in every band.
    time : ndarray of datetime64, shape (time,)
        Dates, increasing.
    track : {"partial", "gap", "full", "haze"}
        How to hide the targets.
    masks : list of ndarray of bool, shape (y, x), optional
        Cloud masks, True where hidden; by default those of the series itself.
    suspect : ndarray of bool, shape (time,), optional
        Frames that cannot serve as truth.
    limit : int, optional
        Maximum number of frames, drawn at random.
    seed : int
        Seed of the random numbers; for one seed, a frame has the same mask in every track.
    keep_values : bool
        As for `make_case`.

    Yields
    ------
    Case
        One per frame, in order of time. Frames without a pixel to score are left out.
    """
    pool = real_masks(clear) if masks is None else masks
    for frame in choose_frames(clear, suspect, limit, seed):
        rng = np.random.default_rng([seed, 2, int(frame)])
        shape = (clear.shape[1], clear.shape[2])
        hidden = transplant(pool, shape, HIDDEN_SHARE, rng) if track != "full" else np.ones(shape, bool)
        case = make_case(bands, clear, time, int(frame), track, hidden, rng, keep_values=keep_values)
        if case.scored.any():
            yield case
