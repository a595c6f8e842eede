"""What must not change a corrected mask: the window, the order in memory, values where there are none, float noise."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.masks.landscapes import Scene, make_land, make_weather, missed_cloud, scene_of
from benchmarks.masks.odd_series import swath_edges
from tests.support.mask_checks import consistent, same
from xr_cloudfree.masking.repair import CELL, REACH, Repaired

# Longer than the reach, so that a window can be smaller than the cube.
LONG, SHORT = REACH + 3 * CELL + 5, CELL + 9
BOTH = pytest.mark.parametrize("from_series", [False, True])
AXES = pytest.mark.parametrize("axis", [0, 1], ids=["rows", "columns"])


@cache
def long(axis: int) -> tuple[Scene, dict[bool, Repaired]]:
    """Return a scene of many cells along an axis, and its results with and without the given mask."""
    land = make_land(5, 9, (LONG, SHORT) if axis == 0 else (SHORT, LONG))
    scene = scene_of(land, make_weather(land))
    # Some clouds are missed, and some values are missing.
    given = scene.given.copy()
    given[1::2, :, :20] = True
    bands = scene.bands[:, 1:4].copy()
    bands[3, :, 20:, 30:] = np.nan
    bands[8, 1, :20] = np.nan
    scene = replace(scene, bands=bands, given=given, names=scene.names[1:4])
    return scene, {way: scene.repaired(from_series=way) for way in (False, True)}


def small() -> Scene:
    """Return a scene whose mask misses clouds."""
    return missed_cloud(3).window(slice(10, 58), slice(20, 84))


def small_swath_edges() -> Scene:
    """Return a scene with missing values."""
    return swath_edges().window(slice(20, 68), slice(20, 84))


def grown(first: int, last: int, size: int) -> slice:
    """Return a range grown by the reach, snapped outwards to whole cells and clipped to the cube."""
    begin, end = max(0, first - REACH), min(size, last + REACH)
    return slice(begin // CELL * CELL, min(size, -(-end // CELL) * CELL))


@AXES
@BOTH
@settings(max_examples=4)
@given(data=st.data())
def test_the_window_does_not_matter(axis, from_series, data):
    scene, whole = long(axis)
    inner, outer = [], []
    for size in scene.given.shape[1:]:
        first = data.draw(st.integers(0, size - 1))
        last = data.draw(st.integers(first + 1, min(size, first + 40)))
        inner.append(slice(first, last))
        outer.append(grown(first, last, size))
    part = scene.window(*outer).repaired(from_series=from_series)
    within = tuple(slice(i.start - o.start, i.stop - o.start) for i, o in zip(inner, outer, strict=True))
    for name in ("clear", "change", "score"):
        made, wanted = getattr(part, name)[:, within[0], within[1]], getattr(whole[from_series], name)
        np.testing.assert_array_equal(made, wanted[:, inner[0], inner[1]])


@AXES
@BOTH
def test_a_window_that_is_not_the_whole_cube_was_cut(axis, from_series):
    """The property above is about something: windows at both ends are smaller than the cube, and masks do change."""
    assert grown(5, 9, LONG).stop < LONG and grown(LONG - 9, LONG - 5, LONG).start > 0
    change = long(axis)[1][from_series].change
    for end in (change.take(range(40), axis + 1), change.take(range(LONG - 40, LONG), axis + 1)):
        assert len(np.unique(end)) > 1


@BOTH
def test_order_in_memory_does_not_matter(from_series):
    scene = small_swath_edges()
    fortran = {
        name: np.asfortranarray(value) for name, value in vars(scene).items() if name in ("bands", "given", "keep")
    }
    reversed_view = np.ascontiguousarray(scene.bands[..., ::-1, ::-1])[..., ::-1, ::-1]
    made = scene.repaired(from_series=from_series)
    same(made, replace(scene, bands=fortran["bands"], given=fortran["given"]).repaired(from_series=from_series))
    same(made, replace(scene, bands=reversed_view).repaired(from_series=from_series))


@BOTH
def test_values_of_unusable_pixels_do_not_matter(from_series):
    scene = small_swath_edges()
    usable = scene.usable
    assert not usable.all()
    made = scene.repaired(from_series=from_series)
    for value in (-9999.0, 0.0, 1.7, 65535.0, np.inf, np.nan):
        other = replace(scene, bands=np.where(usable[:, None], scene.bands, np.float32(value)))
        same(made, other.repaired(from_series=from_series, usable=usable))


@BOTH
def test_twice_gives_the_same_and_leaves_the_input_alone(from_series):
    scene = small()
    before = scene.bands.copy(), scene.given.copy(), scene.days.copy()
    for array in (scene.bands, scene.given, scene.days):
        array.setflags(write=False)
    same(scene.repaired(from_series=from_series), scene.repaired(from_series=from_series))
    for array, old in zip((scene.bands, scene.given, scene.days), before, strict=True):
        np.testing.assert_array_equal(array, old)


@settings(max_examples=5)
@given(first=st.floats(-20_000, 20_000, allow_nan=False))
def test_the_first_day_hardly_matters(first):
    """Days count from any date."""
    scene = small()
    moved = replace(scene, days=scene.days + first)
    assert (scene.repaired().clear != moved.repaired().clear).mean() < 1e-4


@BOTH
@settings(max_examples=4)
@given(seed=st.integers(0, 99))
def test_float_noise_hardly_matters(from_series, seed):
    """Noise of the last digits, as another scale factor causes it, changes next to nothing."""
    scene = small()
    noise = np.random.default_rng(seed).uniform(-1e-6, 1e-6, scene.bands.shape).astype(np.float32)
    made, other = (one.repaired(from_series=from_series) for one in (scene, replace(scene, bands=scene.bands + noise)))
    assert (made.clear != other.clear).mean() < 2e-3
    assert np.nanmean(np.abs(made.score - other.score)) < 1e-3


@BOTH
@settings(max_examples=4)
@given(order=st.permutations(range(5)))
def test_order_of_the_bands_hardly_matters(from_series, order):
    scene = small()
    other = replace(scene, bands=scene.bands[:, order], names=tuple(scene.names[i] for i in order))
    assert (
        scene.repaired(from_series=from_series).clear != other.repaired(from_series=from_series).clear
    ).mean() < 2e-3


@BOTH
def test_two_scenes_of_one_day_are_no_error(from_series):
    """Dates may be equal: two sensors on one day, or two tiles."""
    scene = small()
    days = scene.days.copy()
    days[5], days[12] = days[4], days[11]
    made = replace(scene, days=days).repaired(from_series=from_series)
    consistent(scene, made, from_series)
    assert made.clear.any()
