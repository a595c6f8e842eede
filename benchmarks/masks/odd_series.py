"""Series that are hard to correct a mask from: few dates, no clear one, jumps, missing values, water, few bands."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial

import numpy as np

from benchmarks.masks.landscapes import (
    SNOW,
    WATER,
    Scene,
    Weather,
    burn,
    clouds,
    column,
    harvest,
    make_land,
    make_weather,
    missed_cloud,
    painted,
    region,
    right,
    scene_of,
    smooth,
)


def two_dates() -> Scene:
    """Return a clear and a partly cloudy date."""
    return missed_cloud().dates([0, 1])


def three_dates() -> Scene:
    """Return a clear date before and after one whose mask misses a third of the clouds."""
    return missed_cloud(1).dates([2, 3, 4])


def overcast(clear_dates: tuple[int, ...] = (), dates: int = 12) -> Scene:
    """Return a series under clouds of uneven brightness from edge to edge, but for some dates, with the right mask."""
    land = make_land(0, dates)
    cloud = np.ones((dates, *land.field.shape), np.float32)
    thin = np.stack([clouds(land.rng, land.field.shape, 0.5) for _ in cloud])
    cloud -= 0.3 * thin
    cloud[list(clear_dates)] = 0
    return scene_of(land, Weather(cloud, np.zeros_like(cloud), np.zeros_like(cloud)))


def constant() -> Scene:
    """Return a series of one value everywhere, with a mask of random pixels."""
    scene = right()
    given = np.random.default_rng(3).random(scene.given.shape) < 0.8
    never = np.zeros_like(given)
    bands = np.full_like(scene.bands, 0.2)
    return Scene(bands, given, scene.days, never, ~never, never, ~given)


def offset_jump(size: float = 0.1) -> Scene:
    """Return a series of which all bands are higher by one value from the middle on."""
    scene = right()
    late = np.arange(len(scene.days)) >= len(scene.days) // 2
    return replace(scene, bands=(scene.bands + size * late[:, None, None, None]).astype(np.float32))


def swath_edges() -> Scene:
    """Return a series whose images end at a slanted edge on one date in three, and have a hole on another."""
    scene = missed_cloud()
    bands = scene.bands.copy()
    rows, columns = np.indices(scene.given.shape[1:])
    for date in range(0, len(bands), 3):
        bands[date][:, rows + 0.3 * columns > 70 - 2 * date] = np.nan
    bands[1::3, 2, 20:30, 40:60] = np.nan
    return replace(scene, bands=bands, given=scene.given & np.isfinite(bands).all(axis=1))


def glint() -> tuple[Scene, np.ndarray]:
    """Return a series with a lake that glitters on one date in three, and where it does, shape (time, y, x)."""
    land = make_land(0)
    lake = region(land, 32)
    weather = make_weather(land)
    bright = np.zeros(weather.cloud.shape, np.float32)
    for date in range(1, len(bright), 3):
        # Waves: some pixels mirror the sun, others do not, the more the nearer to its mirror image.
        slope = 0.5 + 0.5 * np.tanh(smooth(land.rng, lake.shape, 12.0))
        bright[date] = np.where(lake, 0.12 * slope * land.rng.uniform(0.3, 1, lake.shape), 0)
    scene = scene_of(painted(land, lake, WATER), weather)
    seen = bright > 0.01
    bands = scene.bands + bright[:, None] * (1 - np.clip(weather.cloud, 0, 1))[:, None]
    return replace(scene, bands=bands.astype(np.float32), clean=scene.clean & ~seen), seen & scene.clean


def winter() -> Scene:
    """Return a series under snow for its first nine dates; the right mask has snow as clear."""
    land = make_land(0)
    snow = np.arange(len(land.days)) < 9
    fresh = 1 + 0.03 * land.rng.standard_normal(len(land.days))[:, None, None, None]
    white = painted(land, np.broadcast_to(snow[:, None, None], (len(snow), *land.field.shape)), SNOW)
    ground = np.where(snow[:, None, None, None], white.ground * fresh, land.ground)
    return scene_of(replace(land, ground=ground.astype(np.float32)), make_weather(land))


def two_sensors() -> Scene:
    """Return a series whose dates alternate between two sensors with other gains and offsets."""
    scene = missed_cloud()
    gain, offset = column((1.08, 1.05, 1.04, 0.95, 1.06)), column((0.012, 0.008, 0.006, -0.008, 0.01))
    bands = scene.bands.copy()
    bands[1::2] = bands[1::2] * gain + offset
    return replace(scene, bands=bands)


def only(name: str, scene: Scene) -> Scene:
    """Return a series of one band."""
    return replace(scene, bands=scene.bands[:, [scene.names.index(name)]], names=(name,))


def index(scene: Scene) -> Scene:
    """Return the NDVI of a series as its only band, which has no common name."""
    red, nir = scene.bands[:, 2], scene.bands[:, 3]
    return replace(scene, bands=np.clip((nir - red) / (nir + red), -1, 1)[:, None], names=(None,))


def all_clear() -> Scene:
    """Return a series whose mask is clear everywhere."""
    scene = right()
    return replace(scene, given=np.ones_like(scene.given))


def empty_date_and_column() -> Scene:
    """Return a series with a date and a column of pixels without any value."""
    scene = right()
    bands = scene.bands.copy()
    bands[4], bands[:, :, :, 11] = np.nan, np.nan
    return replace(scene, bands=bands)


def visible() -> Scene:
    """Return a series of three visible bands."""
    scene = missed_cloud()
    return replace(scene, bands=scene.bands[:, :3], names=scene.names[:3])


ODD: dict[str, Callable[[], Scene]] = {
    "three_dates": three_dates,
    "all_clear": all_clear,
    "constant": constant,
    "offset_much_higher": offset_jump,
    "offset_higher": partial(offset_jump, 0.03),
    "offset_lower": partial(offset_jump, -0.02),
    "swath_edges": swath_edges,
    "empty_date_and_column": empty_date_and_column,
    "glint": lambda: glint()[0],
    "winter": winter,
    "two_sensors": two_sensors,
    "visible": visible,
    "only_blue": lambda: only("blue", missed_cloud()),
    "only_red": lambda: only("red", missed_cloud()),
    "only_nir": lambda: only("nir", missed_cloud()),
    "harvest_in_red": lambda: only("red", harvest()),
    "harvest_in_nir": lambda: only("nir", harvest()),
    "burn_in_red": lambda: only("red", burn()),
    "burn_in_nir": lambda: only("nir", burn()),
}
