"""Image time series of which is known what covers the ground: clouds, shadows, false alarms and real change.

A landscape of fields, woods and water has smooth growth, texture, and noise in every pixel. Over it pass clouds with
soft rims and their shadows. A given mask is right but for the fault that a scene is about.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import binary_dilation, binary_erosion, gaussian_filter, label, shift

from xr_cloudfree.masking import repair as masking

Bools = NDArray[np.bool_]
Floats = NDArray[np.float32]

NAMES = ("blue", "green", "red", "nir", "swir16")
SHAPE = (96, 96)
# Reflectance of the covers, in the order of `NAMES`.
SOIL = (0.08, 0.11, 0.14, 0.24, 0.32)
LEAF = (0.03, 0.06, 0.035, 0.42, 0.20)
STRAW = (0.10, 0.15, 0.20, 0.32, 0.38)
WOOD = (0.018, 0.030, 0.018, 0.22, 0.09)
WATER = (0.035, 0.035, 0.025, 0.015, 0.010)
ASH = (0.035, 0.040, 0.045, 0.060, 0.110)
SNOW = (0.80, 0.80, 0.78, 0.70, 0.10)
ROOF = (0.46, 0.48, 0.50, 0.52, 0.45)
SAND = (0.24, 0.30, 0.36, 0.42, 0.48)
CONCRETE = (0.22, 0.24, 0.26, 0.30, 0.33)
CLOUD = (0.70, 0.68, 0.68, 0.70, 0.55)
# What haze of opacity 1 adds, and the share of light that a full shadow takes.
HAZE = (0.75, 0.62, 0.52, 0.38, 0.16)
SHADE = (0.35, 0.45, 0.50, 0.60, 0.65)
# Rows and columns from a cloud to its shadow.
SUN = (-9, -6)


@dataclass(frozen=True, eq=False)
class Scene:
    """A series, its given mask, and the truth. A pixel that is neither covered nor clean is thinly covered."""

    bands: Floats  # (time, band, y, x)
    given: Bools  # (time, y, x)
    days: NDArray[np.float64]
    covered: Bools  # (time, y, x), cloud, haze or shadow that a mask should have
    clean: Bools  # (time, y, x), free of all three
    changed: Bools  # (time, y, x), clean, on the first dates of a real change
    alarms: Bools  # (time, y, x), clean, but not clear in the given mask: false alarms
    names: tuple[str | None, ...] = NAMES
    keep: Bools | None = None

    @property
    def usable(self) -> Bools:
        """True where all bands have a value."""
        return np.asarray(np.isfinite(self.bands).all(axis=1))

    def repaired(self, *, from_series: bool = False, **options: Any) -> masking.Repaired:
        """Return the mask corrected by the series, or made from it."""
        keep = np.zeros_like(self.given) if self.keep is None else self.keep
        return masking.repair(
            self.bands,
            self.given,
            self.days,
            **{"usable": self.usable, "keep": keep, "from_series": from_series, **options},
        )

    def window(self, rows: slice, columns: slice) -> Scene:
        """Return a window of the pixels."""
        parts = ("bands", "given", "covered", "clean", "changed", "alarms")
        chosen = {name: getattr(self, name)[..., rows, columns] for name in parts}
        return replace(self, **chosen, keep=None if self.keep is None else self.keep[..., rows, columns])

    def dates(self, which: Any) -> Scene:
        """Return some of the dates."""
        parts = ("bands", "given", "days", "covered", "clean", "changed", "alarms")
        chosen = {name: getattr(self, name)[which] for name in parts}
        return replace(self, **chosen, keep=None if self.keep is None else self.keep[which])


@dataclass(frozen=True)
class Figures:
    """Shares in [0, 1] of what should be masked, and of what should not; NaN where a scene has none of it."""

    found: float  # of the covered pixels that the given mask missed: masked
    kept: float  # of the covered pixels that the given mask has as such: still masked
    restored: float  # of the false alarms: restored
    lost: float  # of the clean pixels that the given mask has as clear: masked, but for real change
    changed: float  # of the changed pixels that the given mask has as clear: masked
    worst_change: float  # the same, on the worst date
    pure: float  # of the pixels that are clear in the end: not covered


def figures(scene: Scene, clear: Bools, *, from_series: bool = False) -> Figures:
    """Compare a mask, True where clear, with the truth."""
    given = scene.usable if from_series else scene.given & scene.usable
    hidden = ~given & scene.usable
    by_date = [_share(~c, w) for c, w in zip(clear, scene.changed & given, strict=True)]
    known = [share for share in by_date if not np.isnan(share)]
    return Figures(
        found=_share(~clear, scene.covered & given),
        kept=_share(~clear, scene.covered & hidden),
        restored=_share(clear, scene.alarms & scene.usable) if not from_series else float("nan"),
        lost=_share(~clear, scene.clean & given & ~scene.changed),
        changed=_share(~clear, scene.changed & given),
        worst_change=max(known, default=float("nan")),
        pure=_share(~scene.covered, clear & (scene.covered | scene.clean)),
    )


def _share(what: Bools, where: Bools) -> float:
    return float(what[where].mean()) if where.any() else float("nan")


# The landscape and its weather.


@dataclass(frozen=True, eq=False)
class Land:
    """A landscape without clouds, and what is drawn for it."""

    rng: np.random.Generator
    days: NDArray[np.float64]
    field: NDArray[np.intp]  # (y, x), number of the field
    kind: NDArray[np.intp]  # per field: an index into `_KINDS`
    ground: Floats  # (time, band, y, x), without noise

    def fields_of(self, *kinds: str, least: int = 120) -> Bools:
        """Return the pixels of all fields of some kinds and of at least so many pixels, shape (y, x)."""
        wanted = [_KINDS.index(kind) for kind in kinds]
        size = np.bincount(self.field.ravel(), minlength=len(self.kind))
        return np.asarray((np.isin(self.kind, wanted) & (size >= least))[self.field])


_KINDS = ("cereal", "maize", "meadow", "wood", "bare", "water")


def column(values: Any) -> Floats:
    """Return values of the bands with the shape (band, 1, 1)."""
    return np.asarray(values, np.float32)[:, None, None]


def make_land(seed: int = 0, dates: int = 20, shape: tuple[int, int] = SHAPE, step: float = 10.0) -> Land:
    """Return fields with straight edges, each of one cover, that green up and ripen at different times."""
    rng = np.random.default_rng([seed, 11])
    days = 90 + np.cumsum(rng.choice([0.5, 1.0, 1.5], dates) * step)
    rows, columns = np.indices(shape)
    number = max(6, shape[0] * shape[1] // 180)
    at = rng.uniform(0, 1, (number, 2)) * shape
    # Fields are longer along the columns.
    field = np.argmin((rows - at[:, 0, None, None]) ** 2 * 1.8 + (columns - at[:, 1, None, None]) ** 2, axis=0)
    # One in three fields has the cover of a neighbourhood, so that there are woods and lakes of some size.
    kind = rng.choice(5, number, p=[0.28, 0.22, 0.22, 0.2, 0.08])
    wood = (at - at[rng.integers(number)]) ** 2
    kind[np.argsort(wood.sum(axis=1))[: max(2, number // 8)]] = 3
    kind[rng.permutation(number)[: max(1, number // 25)]] = 5
    green = _growth(rng, days, kind)[:, field][:, None]
    texture = 1 + 0.05 * smooth(rng, shape, 1.5) + 0.025 * rng.standard_normal(shape)
    own = rng.uniform(0.88, 1.12, number)[field]
    ground = column(SOIL) * (1 - green) + column(LEAF) * green
    ground = np.where((kind == 3)[field], column(WOOD) * (0.8 + 0.4 * green), ground)
    ground = np.where((kind == 5)[field], column(WATER), ground)
    # Moisture and the angle of the sun: a little per field and date.
    passing = 1 + 0.012 * rng.standard_normal((len(days), number))[:, field][:, None]
    return Land(rng, days, field, kind, np.asarray(ground * texture * own * passing, np.float32))


def _growth(rng: np.random.Generator, days: NDArray[np.float64], kind: NDArray[np.intp]) -> NDArray[np.float64]:
    """Return the green cover of each date and field, in [0, 1]."""
    # Base, rise, mean first and last day of growth, in the order of `_KINDS`.
    table = np.array(
        [
            (0.1, 0.8, 100, 185),
            (0.06, 0.85, 170, 255),
            (0.5, 0.3, 105, 280),
            (0.4, 0.5, 115, 290),
            (0.04, 0.04, 120, 250),
            (0.0, 0.0, 0, 1),
        ]
    )
    base, rise, first, last = table[kind].T
    first, last = first + rng.uniform(-12, 12, len(kind)), last + rng.uniform(-12, 12, len(kind))
    day = days[:, None]
    return np.asarray(base + rise / (1 + np.exp(-(day - first) / 9)) / (1 + np.exp((day - last) / 9)))


def smooth(rng: np.random.Generator, shape: tuple[int, int], width: float) -> NDArray[np.float64]:
    """Return smooth noise of standard deviation 1."""
    noise = gaussian_filter(rng.standard_normal(shape), width)
    return np.asarray(noise / noise.std())


def observed(land: Land, noise: float = 0.006) -> Floats:
    """Return the ground with the noise of a sensor and of the correction of the atmosphere."""
    rng, shape = land.rng, land.ground.shape
    alike = rng.standard_normal((shape[0], 1, *shape[2:])) * noise / 2
    air = 0.002 * rng.standard_normal(shape[:2])[..., None, None]
    return np.asarray(land.ground + air + alike + noise * rng.standard_normal(shape), np.float32)


def clouds(rng: np.random.Generator, shape: tuple[int, int], cover: float, edge: float = 0.35) -> Floats:
    """Return the opacity of clouds with ragged, soft rims, shape (y, x)."""
    if cover <= 0:
        return np.zeros(shape, np.float32)
    billow = sum(width * smooth(rng, shape, width) for width in (2.0, 5.0, 11.0))
    billow = billow / np.std(billow)
    begins = np.quantile(billow, 1 - min(cover, 1.0))
    return np.clip((billow - begins) / edge, 0, 1).astype(np.float32)


@dataclass(frozen=True, eq=False)
class Weather:
    """Opacity of clouds, haze and shadows, (time, y, x)."""

    cloud: Floats
    haze: Floats
    shade: Floats

    @property
    def covered(self) -> Bools:
        """True where something is covered so that it can be seen."""
        return np.asarray((self.cloud > 0.06) | (self.haze > 0.06) | (self.shade > 0.25))

    @property
    def clean(self) -> Bools:
        """True where nothing is covered."""
        return np.asarray((self.cloud < 0.005) & (self.haze < 0.005) & (self.shade < 0.02))

    def right_mask(self) -> Bools:
        """Return the mask as it should be given, True where clear: one pixel more than is covered."""
        hidden = (self.cloud > 0.02) | (self.haze > 0.02) | (self.shade > 0.08)
        return ~np.stack([binary_dilation(date) if date.any() else date for date in hidden])


COVER = (0, 0.3, 0, 0.5, 0, 0.97, 0.15, 0, 0.6, 0)


def make_weather(land: Land, cover: tuple[float, ...] = COVER) -> Weather:
    """Return clouds and their shadows; the cover of the dates repeats. Half of the dates is free of clouds."""
    shape = land.field.shape
    cloud = np.stack([clouds(land.rng, shape, cover[i % len(cover)]) for i in range(len(land.days))])
    shade = np.stack([np.clip(gaussian_filter(shift(date, SUN, order=0), 0.8), 0, 1) for date in cloud])
    return Weather(cloud, np.zeros_like(cloud), np.where(cloud > 0.3, 0, shade).astype(np.float32))


def covered_by(bands: Floats, weather: Weather, rng: np.random.Generator) -> Floats:
    """Return what a sensor sees of the ground through clouds, haze and shadows."""
    bright = np.stack([1 + 0.08 * smooth(rng, date.shape, 3.0) for date in weather.cloud])[:, None]
    lit = bands * (1 - column(SHADE) * weather.shade[:, None])
    hazy = lit + column(HAZE)[None, : bands.shape[1]] * weather.haze[:, None] * (1 - lit)
    seen = hazy * (1 - weather.cloud[:, None]) + column(CLOUD) * bright * weather.cloud[:, None]
    return np.asarray(seen, np.float32)


def scene_of(
    land: Land,
    weather: Weather,
    given: Bools | None = None,
    changed: Bools | None = None,
    flagged: Bools | None = None,
) -> Scene:
    """Return the series of a land and its weather; by default with the right mask, without change or false alarms."""
    bands = covered_by(observed(land), weather, land.rng)
    given = weather.right_mask() if given is None else given
    never = np.zeros_like(given)
    changed, flagged = (never if some is None else weather.clean & some for some in (changed, flagged))
    return Scene(bands, given & ~flagged, land.days, weather.covered, weather.clean, changed, flagged & given)


# Masks that miss something.


def right(seed: int = 0) -> Scene:
    """Return a series whose mask is right."""
    land = make_land(seed)
    return scene_of(land, make_weather(land))


def missed_rim(seed: int = 0) -> Scene:
    """Return a series whose mask ends where clouds are half opaque: rims, thin parts and shadows' edges are missed."""
    land = make_land(seed)
    weather = make_weather(land)
    given = ~((weather.cloud > 0.5) | (weather.shade > 0.25))
    return scene_of(land, weather, given)


def missed_shadow(seed: int = 0) -> Scene:
    """Return a series whose mask has no shadow."""
    land = make_land(seed)
    weather = make_weather(land)
    given = ~np.stack([binary_dilation(date) if date.any() else date for date in weather.cloud > 0.02])
    return scene_of(land, weather, given)


def missed_cloud(seed: int = 0) -> Scene:
    """Return a series whose mask misses every third cloud as a whole, with its shadow."""
    land = make_land(seed)
    weather = make_weather(land)
    given = weather.right_mask()
    for date in given:
        objects, number = label(~date)
        sizes = np.bincount(objects.ravel(), minlength=number + 1)
        for one in range(1, number + 1):
            if sizes[one] >= 12 and land.rng.random() < 1 / 3:
                date[objects == one] = True
    return scene_of(land, weather, given)


def missed_haze(seed: int = 0) -> Scene:
    """Return a series with thin haze over half of some clear dates, which the mask misses."""
    land = make_land(seed)
    weather = make_weather(land)
    haze = weather.haze.copy()
    for date in (2, 7, 12, 17):
        haze[date] = 0.18 * clouds(land.rng, land.field.shape, 0.5, edge=1.2)
    given = weather.right_mask()
    return scene_of(land, replace(weather, haze=haze), given)


# Masks with false alarms.


def _flagged(seed: int, draw: Callable[[Land], tuple[Land, Bools]]) -> Scene:
    """Return a series whose mask flags clear pixels, too; `draw` may change the land and returns them."""
    land = make_land(seed)
    weather = make_weather(land)
    land, flagged = draw(land)
    return scene_of(land, weather, flagged=flagged)


def painted(land: Land, where: Bools, spectrum: Any) -> Land:
    """Return the land with another cover in some pixels (y, x) or (time, y, x), with the texture that it had."""
    where = np.broadcast_to(where, (len(land.days), *land.field.shape))
    texture = land.ground.mean(axis=1, keepdims=True)
    near = np.stack([gaussian_filter(date[0], 6.0) for date in texture])[:, None]
    texture = np.clip(1 + 0.5 * (texture / near - 1), 0.9, 1.1)
    return replace(land, ground=np.where(where[:, None], column(spectrum) * texture, land.ground).astype(np.float32))


def roofs(seed: int = 0) -> Scene:
    """Return a series with bright roofs that the mask has as cloud on every date."""

    def draw(land: Land) -> tuple[Land, Bools]:
        where = np.zeros(land.field.shape, bool)
        for row, col in land.rng.integers(6, min(land.field.shape) - 14, (7, 2)):
            where[row : row + land.rng.integers(3, 8), col : col + land.rng.integers(4, 9)] = True
        return painted(land, where, ROOF), np.broadcast_to(where, (len(land.days), *where.shape))

    return _flagged(seed, draw)


def sand(seed: int = 0) -> Scene:
    """Return a series with a beach that the mask has as cloud on three dates of four."""

    def draw(land: Land) -> tuple[Land, Bools]:
        rows, columns = np.indices(land.field.shape)
        where = np.abs(rows + 0.4 * columns - 70 + 3 * np.sin(columns / 9)) < 7
        return painted(land, where, SAND), where & (land.rng.random((len(land.days), 1, 1)) < 0.75)

    return _flagged(seed, draw)


def dark_wood(seed: int = 0) -> Scene:
    """Return a series with woods that the mask has as shadow on two dates of three."""

    def draw(land: Land) -> tuple[Land, Bools]:
        return land, land.fields_of("wood") & (land.rng.random((len(land.days), 1, 1)) < 0.67)

    return _flagged(seed, draw)


def blobs(seed: int = 0) -> Scene:
    """Return a series whose mask flags every tenth clear pixel, in blobs."""

    def draw(land: Land) -> tuple[Land, Bools]:
        fields = [smooth(land.rng, land.field.shape, 4.0) for _ in land.days]
        return land, np.stack([one > np.quantile(one, 0.9) for one in fields])

    return _flagged(seed, draw)


def overcast_alarm(seed: int = 0) -> Scene:
    """Return a series whose mask has two clear dates as cloudy from edge to edge."""

    def draw(land: Land) -> tuple[Land, Bools]:
        flagged = np.zeros((len(land.days), *land.field.shape), bool)
        flagged[[4, 14]] = True
        return land, flagged

    return _flagged(seed, draw)


def snow_edge(seed: int = 0) -> Scene:
    """Return a mountain whose snow line climbs from date to date; the mask has the snow's edge as cloud."""

    def draw(land: Land) -> tuple[Land, Bools]:
        rows, columns = np.indices(land.field.shape)
        height = 70 - np.hypot(rows - 45, columns - 50) + 4 * smooth(land.rng, land.field.shape, 4.0)
        line = np.linspace(35, 62, len(land.days))[:, None, None]
        snow = height > line
        edge = np.stack([date & ~binary_erosion(date, iterations=3) for date in snow])
        return painted(land, snow, SNOW), edge

    return _flagged(seed, draw)


# Real change.

FIRST_DATES = 3


def _change(seed: int, kinds: tuple[str, ...], spectrum: Any, *, lasts: int | None = None, part: float = 1.0) -> Scene:
    """Return a series in which fields of some kinds change to another cover, each at a date of its own."""
    land = make_land(seed)
    weather = make_weather(land)
    fields = land.fields_of(*kinds)
    event = np.full(land.field.shape, len(land.days))
    for field in np.unique(land.field[fields]):
        if land.rng.random() < part:
            event[land.field == field] = land.rng.integers(4, len(land.days) - 6)
    return _changed(land, weather, event, spectrum, lasts)


def _changed(land: Land, weather: Weather, event: NDArray[np.intp], spectrum: Any, lasts: int | None) -> Scene:
    """Return the series in which each pixel changes its cover at the date of its event, and keeps it so long."""
    date = np.arange(len(land.days))[:, None, None]
    since = date - event
    during = (since >= 0) & (since < (len(land.days) if lasts is None else lasts))
    return scene_of(painted(land, during, spectrum), weather, changed=during & (since < FIRST_DATES))


def harvest(seed: int = 0) -> Scene:
    """Return fields that are harvested: brighter in visible light, darker in near infrared, from one date on."""
    return _change(seed, ("cereal", "maize", "meadow"), STRAW, part=0.6)


def ploughed(seed: int = 0) -> Scene:
    """Return bare and meadow fields that are ploughed: darker in all bands but one, from one date on."""
    return _change(seed, ("bare", "meadow"), tuple(0.75 * value for value in SOIL))


def clear_cut(seed: int = 0) -> Scene:
    """Return woods that are cut: brighter in all bands, from one date on."""
    return _change(seed, ("wood",), tuple(0.9 * value for value in SOIL), part=0.5)


def region(land: Land, size: float) -> Bools:
    """Return one large, round, ragged region, shape (y, x)."""
    rows, columns = np.indices(land.field.shape)
    away = np.hypot(rows - 50, columns - 44)
    return np.asarray(away + 5 * smooth(land.rng, land.field.shape, 5.0) < size)


def _regional(seed: int, spectrum: Any, size: float, lasts: int | None, begin: int = 9) -> Scene:
    land = make_land(seed)
    weather = make_weather(land)
    event = np.where(region(land, size), begin, len(land.days))
    return _changed(land, weather, event, spectrum, lasts)


def burn(seed: int = 0) -> Scene:
    """Return land that burns: dark in all bands, from one date on."""
    return _regional(seed, ASH, 30, None)


def flood(seed: int = 0) -> Scene:
    """Return land that is flooded on four dates."""
    return _regional(seed, (0.06, 0.07, 0.07, 0.04, 0.02), 28, 4)


def short_flood(seed: int = 0) -> Scene:
    """Return land that is flooded on two dates."""
    return _regional(seed, (0.06, 0.07, 0.07, 0.04, 0.02), 28, 2)


def new_snow(seed: int = 0) -> Scene:
    """Return land with snow on five dates."""
    return _regional(seed, SNOW, 34, 5)


def building_site(seed: int = 0) -> Scene:
    """Return a site on which buildings grow: bright in all bands, from one date on."""
    return _regional(seed, CONCRETE, 13, None)


MISSED = {f.__name__: f for f in (missed_rim, missed_shadow, missed_cloud, missed_haze)}
FALSE_ALARMS = {f.__name__: f for f in (roofs, sand, dark_wood, blobs, overcast_alarm, snow_edge)}
CHANGES = {f.__name__: f for f in (harvest, ploughed, clear_cut, burn, flood, short_flood, new_snow, building_site)}
SCENES: dict[str, Callable[[int], Scene]] = {"right": right, **MISSED, **FALSE_ALARMS, **CHANGES}
