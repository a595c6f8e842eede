"""Masks corrected by the series: missed clouds are masked, false alarms are restored, real change is neither."""

from __future__ import annotations

from dataclasses import replace
from functools import cache

import numpy as np
import pytest
import xarray as xr

from tests.support.mask_checks import consistent, same
from tests.support.mask_scenes import CHANGES, FALSE_ALARMS, MISSED, SCENES, Figures, figures, right
from tests.support.steps import lasting_steps
from xr_cloudfree.masking.repair import Change, repair

SEEDS = (0, 1)


@cache
def measured(name: str, seed: int, from_series: bool = False) -> Figures:
    """Return the figures of a scene, computed once for all tests."""
    scene = SCENES[name](seed)
    return figures(scene, scene.repaired(from_series=from_series).clear, from_series=from_series)


def mean(name: str, figure: str, from_series: bool = False) -> float:
    """Return a figure of a scene, averaged over the seeds."""
    return float(np.mean([getattr(measured(name, seed, from_series), figure) for seed in SEEDS]))


class TestMissed:
    """Clouds, haze and shadows that the given mask has as clear."""

    @pytest.mark.parametrize("name", MISSED)
    def test_is_found(self, name):
        assert mean(name, "found") >= 0.85

    @pytest.mark.parametrize("name", MISSED)
    def test_what_is_clear_in_the_end_is_clear(self, name):
        assert mean(name, "pure") >= 0.97

    @pytest.mark.parametrize("name", ["right", *MISSED])
    def test_clean_pixels_stay(self, name):
        assert mean(name, "lost") <= 0.01

    def test_a_shadow_is_called_a_shadow_and_a_cloud_a_cloud(self):
        scene = SCENES["missed_shadow"](0)
        made = scene.repaired()
        newly = scene.covered & scene.given & ~made.clear
        assert (made.change[newly] == Change.SHADOW).mean() > 0.9
        scene = SCENES["missed_haze"](0)
        made = scene.repaired()
        newly = scene.covered & scene.given & ~made.clear
        assert (made.change[newly] == Change.CLOUD).mean() > 0.9

    def test_the_score_ranks_what_is_covered_above_what_is_clean(self):
        scene = SCENES["missed_cloud"](0)
        score = scene.repaired().score
        assert np.quantile(score[scene.covered], 0.2) > np.quantile(score[scene.clean], 0.95)


class TestFalseAlarms:
    """Bright roofs, sand, dark woods, edges of snow, and more that the given mask has as cloud or shadow."""

    @pytest.mark.parametrize("name", FALSE_ALARMS)
    def test_is_restored(self, name):
        assert mean(name, "restored") >= 0.8

    @pytest.mark.parametrize("name", [*FALSE_ALARMS, *MISSED, *CHANGES])
    def test_real_clouds_stay_masked(self, name):
        assert mean(name, "kept") >= 0.98

    @pytest.mark.parametrize("name", FALSE_ALARMS)
    def test_clean_pixels_stay(self, name):
        assert mean(name, "lost") <= 0.01

    def test_what_may_not_be_restored_is_not(self):
        scene = SCENES["blobs"](0)
        scene = replace(scene, keep=np.indices(scene.given.shape)[2] < 48)
        made = scene.repaired()
        consistent(scene, made)
        assert (made.change[..., 48:] == Change.RESTORED).any()


class TestChange:
    """Real change is not taken for cloud or shadow, neither on its first date nor later."""

    @pytest.mark.parametrize("name", CHANGES)
    def test_stays(self, name):
        assert mean(name, "changed") <= 0.02

    @pytest.mark.parametrize("name", CHANGES)
    def test_the_rest_of_the_land_stays(self, name):
        assert mean(name, "lost") <= 0.01

    @pytest.mark.parametrize("cube", ["portugal", "landsat"])
    def test_of_a_real_series_stays(self, cube, request):
        """Where a real series jumps to another level and two more clear dates confirm it."""
        bands, given, days = arrays(request.getfixturevalue(cube))
        changed = lasting_steps(bands, given, days)
        assert changed.sum() > 5000
        usable = np.isfinite(bands).all(axis=1)
        made = repair(bands, given, days, usable=usable, keep=np.zeros_like(usable))
        assert (~made.clear)[changed].mean() <= 0.02


class TestFromTheSeries:
    """Masks made without a given one."""

    @pytest.mark.parametrize("name", ["right", "missed_haze", *CHANGES])
    def test_clouds_are_found(self, name):
        assert mean(name, "found", from_series=True) >= 0.85
        assert mean(name, "pure", from_series=True) >= 0.97

    @pytest.mark.parametrize("name", ["right", "roofs", "sand", "dark_wood", "snow_edge"])
    def test_clean_pixels_stay(self, name):
        assert mean(name, "lost", from_series=True) <= 0.05

    @pytest.mark.parametrize("name", CHANGES)
    def test_real_change_stays(self, name):
        assert mean(name, "changed", from_series=True) <= 0.05

    def test_the_given_mask_plays_no_part(self):
        scene = right()
        made = scene.repaired(from_series=True)
        consistent(scene, made, from_series=True)
        assert not (made.change == Change.RESTORED).any()
        same(made, replace(scene, given=np.zeros_like(scene.given)).repaired(from_series=True))


@pytest.mark.parametrize("name", SCENES)
def test_codes_agree_with_the_masks(name):
    for from_series in (False, True):
        scene = SCENES[name](2)
        consistent(scene, scene.repaired(from_series=from_series), from_series)


def arrays(ds: xr.Dataset):
    """Return the bands, the given mask and the days of a cube."""
    bands = ds["reflectance"].transpose("time", "band", "y", "x").to_numpy().astype(np.float32)
    given = (ds["cloud_mask"].to_numpy() == 0) & np.isfinite(bands).all(axis=1)
    time = ds["time"].to_numpy()
    return bands, given, (time - time[0]) / np.timedelta64(1, "D")
