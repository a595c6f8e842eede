"""Simulated gaps for training: parts of real frames are hidden under real cloud masks, stripes and whole frames.

Sample number i depends on the seed and i only, not on the order of drawing or on the process.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.accuracy import simulate
from xr_cloudfree.accuracy.simulate import TRACKS, Case, Track
from xr_cloudfree.errors import OptionError, TimeError
from xr_cloudfree.models.networks.inputs import MAX_DATES
from xr_cloudfree_training.sites import Site

Kind = Literal["masks", "frames", "haze", "little", "full"]
KINDS: tuple[Kind, ...] = get_args(Kind)

# Least clear share of a crop for its frame to serve as truth; only clear pixels count.
MIN_CLEAR = 0.6
# Range of the hidden share of a transplanted mask; includes the range that `evaluate` scores.
HIDDEN_SHARE = (0.05, 0.9)
LEAST_DATES = 3
LEAST_BANDS = 3
# Range of the length in days of a dropped block of dates.
BLOCK_DAYS = (10.0, 120.0)
_TRIES = 60


@dataclass(frozen=True)
class Mixture:
    """Shares of the kinds of training gaps, and probabilities of dropping dates.

    Parameters
    ----------
    masks : float
        Share of frames hidden under real cloud masks of any site.
    frames : float
        Share of frames hidden entirely, by half, or under stripes like those of Landsat 7.
    haze : float
        Share of frames hidden under real masks that miss parts of the clouds: rims beyond the mask, and small thin
        clouds or shadows.
    little : float
        Share of frames with a small hidden part.
    full : float
        Share of frames hidden entirely, in addition to those in `frames`.
    block : float
        Probability that the dates around the target are dropped, which simulates long gaps.
    thin : float
        Probability that dates are dropped at random; at least three remain.

    Raises
    ------
    OptionError
        If a share is not in [0, 1], or the shares do not sum to 1.
    """

    masks: float = 0.6
    frames: float = 0.15
    haze: float = 0.15
    little: float = 0.1
    full: float = 0.0
    block: float = 0.4
    thin: float = 0.2

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if not 0 <= value <= 1:
                raise OptionError(
                    f"the share {field.name} is {value}", "a number from 0 to 1", f"--data.mixture.{field.name} 0.2"
                )
        if abs(sum(self.shares) - 1) > 1e-6:
            raise OptionError(
                f"masks, frames, haze, little and full are {self.shares} and sum to {sum(self.shares):g}",
                "shares that sum to 1",
                "--data.mixture.masks 0.6 --data.mixture.frames 0.4, and 0 for the others",
            )

    @property
    def shares(self) -> tuple[float, ...]:
        """Shares of the kinds in the order of `Kind`."""
        return astuple(self)[:5]


@dataclass(frozen=True, eq=False)
class Drawn:
    """A simulated case and its origin.

    Parameters
    ----------
    case : Case
        Input of a model, and the truth.
    common_names : tuple of (str or None)
        Common names of the case's bands.
    place : str
        Name of the site.
    s1 : ndarray of float32, shape (2, y, x), optional
        VV and VH in decibels near the target date, NaN where missing; None for a site without Sentinel-1.
    """

    case: Case
    common_names: tuple[str | None, ...]
    place: str
    s1: NDArray[np.float32] | None = None


def draw(
    places: Sequence[Site],
    shapes: Sequence[NDArray[np.bool_]],
    seed: int,
    i: int,
    *,
    size: int,
    mixture: Mixture,
    bands: Sequence[str] | None = None,
) -> Drawn:
    """Draw training sample number `i`.

    Parameters
    ----------
    places : sequence of Site
        Sites to draw from, with equal probability.
    shapes : sequence of ndarray of bool, shape (y, x)
        Shapes of real clouds, True inside a cloud.
    seed, i : int
        Seed and number of the sample; the sample depends on nothing else.
    size : int
        Edge of a crop in pixels; limited by the size of the site.
    mixture : Mixture
        Shares of the kinds of gaps.
    bands : sequence of str, optional
        The bands of a sample, in this order. By default a random subset of at least three, in random order.

    Raises
    ------
    TimeError
        If no frame can serve as truth.
    """
    rng = np.random.default_rng([seed, i])
    for place, part, clear, frame in _targets(places, size, rng):
        keep = _dates(clear, place.time, frame, mixture, rng)
        kind = KINDS[rng.choice(len(KINDS), p=mixture.shares)]
        try:
            hidden = _hidden(kind, shapes, (clear.shape[1], clear.shape[2]), rng)
        except OptionError:  # few shapes, and none with a part that hides the right share
            continue
        chosen = _bands(place, bands, rng)
        if not (hidden & clear[frame] & clear[keep].any(axis=0)).any():
            continue  # nothing could be learned from it
        given = keep.copy()
        given[frame] = True
        target = int(given[:frame].sum())
        values = place.reflectance(part, np.flatnonzero(given), chosen)
        shown = _miss(values[target], hidden, rng) if kind == "haze" else None
        track: Track = "haze" if kind == "haze" else "full" if hidden.all() else "partial"
        case = simulate.hide(values, clear[given], place.time[given], target, track, hidden, keep[given], shown)
        return Drawn(case, tuple(place.common_names[band] for band in chosen), place.name, place.radar(part, frame))
    raise _no_frame(places)


def examine(
    places: Sequence[Site],
    shapes: Sequence[NDArray[np.bool_]],
    seed: int,
    i: int,
    *,
    size: int,
    bands: Sequence[str] | None = None,
) -> Drawn:
    """Draw validation sample number `i`: the tracks of `xr_cloudfree.evaluate` in turn, with all bands and dates.

    The parameters are those of `draw`. Without cloud shapes, whole frames are hidden.
    """
    rng = np.random.default_rng([seed, i])
    track: Track = TRACKS[i % len(TRACKS)] if shapes else "full"
    for place, part, clear, frame in _targets(places, size, rng):
        crop = clear.shape[1], clear.shape[2]
        hidden = np.ones(crop, bool)
        if track != "full":
            try:
                hidden = simulate.transplant(list(shapes), crop, simulate.HIDDEN_SHARE, rng)
            except OptionError:
                continue
        near = _nearest(clear, place.time, frame, simulate.others(place.time, frame))
        near[frame] = True
        chosen = np.arange(len(place.bands)) if bands is None else _bands(place, bands, rng)
        values = place.reflectance(part, np.flatnonzero(near), chosen)
        case = simulate.make_case(values, clear[near], place.time[near], int(near[:frame].sum()), track, hidden, rng)
        if case.scored.any():
            return Drawn(case, tuple(place.common_names[band] for band in chosen), place.name, place.radar(part, frame))
    raise _no_frame(places)


def _targets(
    places: Sequence[Site], size: int, rng: np.random.Generator
) -> Iterator[tuple[Site, tuple[slice, slice], NDArray[np.bool_], int]]:
    """Yield frames that can serve as truth: site, rows and columns, clear mask, and index of the frame."""
    for _ in range(_TRIES):
        place = places[int(rng.integers(len(places)))]
        part = _window(place.shape, size, rng)
        clear = place.clear(part)
        usable = np.flatnonzero((clear.mean(axis=(1, 2)) >= MIN_CLEAR) & ~place.suspect)
        if usable.size:
            yield place, part, clear, int(rng.choice(usable))


def _no_frame(places: Sequence[Site]) -> TimeError:
    return TimeError(
        f"no frame of {', '.join(place.name for place in places)} was found to serve as truth in {_TRIES} tries",
        f"frames that are not suspect, at least {MIN_CLEAR:.0%} clear, and seen clear at another date",
        "other cubes, or a longer series",
    )


def _window(shape: tuple[int, int], size: int, rng: np.random.Generator) -> tuple[slice, slice]:
    part = []
    for n in shape:
        first = int(rng.integers(max(n - size, 0) + 1))
        part.append(slice(first, min(first + size, n)))
    return part[0], part[1]


def _dates(
    clear: NDArray[np.bool_], time: NDArray[np.datetime64], frame: int, mixture: Mixture, rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Choose the dates shown beside the target date."""
    keep = simulate.others(time, frame) & clear.any(axis=(1, 2))
    days = simulate.days_from(time, frame)
    if rng.random() < mixture.block:
        length, before = np.exp(rng.uniform(*np.log(BLOCK_DAYS))), rng.random()
        for reach in (length, length / 2, length / 4):  # a short series has no room for a long gap
            around = (days > -before * reach) & (days < (1 - before) * reach)
            if (keep & ~around).sum() >= LEAST_DATES:
                keep &= ~around
                break
    if rng.random() < mixture.thin and keep.sum() > LEAST_DATES:
        left = rng.integers(LEAST_DATES, keep.sum() + 1)
        keep = np.isin(np.arange(keep.size), rng.choice(np.flatnonzero(keep), left, replace=False))
    return _nearest(clear, time, frame, keep)


def _nearest(
    clear: NDArray[np.bool_], time: NDArray[np.datetime64], frame: int, keep: NDArray[np.bool_]
) -> NDArray[np.bool_]:
    """Restrict the dates to those that a network uses, so that no others are read."""
    dates = np.flatnonzero(keep & clear.any(axis=(1, 2)))
    near = dates[np.argsort(np.abs(simulate.days_from(time, frame)[dates]), kind="stable")[:MAX_DATES]]
    return np.isin(np.arange(keep.size), near)


def _hidden(
    kind: Kind, shapes: Sequence[NDArray[np.bool_]], size: tuple[int, int], rng: np.random.Generator
) -> NDArray[np.bool_]:
    """Draw the hidden part of the target."""
    if kind in ("masks", "haze"):
        return simulate.transplant(list(shapes), size, HIDDEN_SHARE, rng)
    rows, columns = np.indices(size)
    if kind == "little":
        radius = np.sqrt(rng.uniform(0.003, 0.03) * rows.size / np.pi)
        return np.asarray(np.hypot(rows - rng.integers(size[0]), columns - rng.integers(size[1])) <= max(radius, 1))
    form = rng.integers(3) if kind == "frames" else 0
    if form == 0:
        return np.ones(size, bool)
    angle = rng.uniform(0, 2 * np.pi)
    along = rows * np.sin(angle) + columns * np.cos(angle)
    if form == 1:
        return np.asarray(along >= np.quantile(along, rng.uniform(0.2, 0.8)))
    period = rng.uniform(10, 40)
    return np.asarray((along + rng.uniform(0, period)) % period < rng.uniform(0.2, 0.7) * period)


def _bands(place: Site, bands: Sequence[str] | None, rng: np.random.Generator) -> NDArray[np.intp]:
    """Choose the bands of a sample."""
    if bands is not None:
        return np.array([place.bands.index(band) for band in bands])
    count = len(place.bands)
    return rng.permutation(count)[: rng.integers(min(LEAST_BANDS, count), count + 1)]


def _miss(image: NDArray[np.float32], hidden: NDArray[np.bool_], rng: np.random.Generator) -> NDArray[np.float32]:
    """Add clouds that a mask misses, and shadows half of the time, of random width, opacity and colour."""
    shadow = rng.random() < 0.5
    for dark in (False, True)[: 1 + shadow]:
        colour = rng.uniform(0.0, 0.05) if dark else rng.uniform(0.25, 0.9)
        tint = colour * (1 + rng.uniform(-0.2, 0.2, (len(image), 1, 1)))
        width = int(rng.integers(0, 7))
        rim = rng.uniform(0.1, 0.7) * np.linspace(1, rng.uniform(0.1, 0.6), width)
        image = simulate.haze(
            image, hidden, rng, tint, rim=rim.tolist(), small=(0, 5), radius=(0.7, 5.0), peak=(0.08, 0.6)
        )
    return image
