"""Masks corrected by the series: missed clouds are masked, false alarms are restored, real change is neither.

The goals stand in `benchmarks.masks.scenes`, which prints what is reached of them; here, `PRESENT_LIMITS` guards that.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

from benchmarks.masks.landscapes import SCENES, right
from benchmarks.masks.odd_series import ODD
from benchmarks.masks.scenes import GIVEN, SERIES
from tests.support.mask_checks import as_good_as_before, consistent, repaired, same
from tests.support.mask_limits import PRESENT_LIMITS
from tests.support.steps import lasting_steps
from xr_cloudfree.masking.repair import Change, repair


def test_every_scene_has_limits():
    assert set(PRESENT_LIMITS) == {(name, mask) for name in [*SCENES, *ODD] for mask in (GIVEN, SERIES)}


@pytest.mark.parametrize("mask", [GIVEN, SERIES])
@pytest.mark.parametrize("name", SCENES)
def test_scenes(name, mask):
    """Codes, scores and masks agree, and masks are as good as they were."""
    scene, made = repaired(name, mask)
    consistent(scene, made, mask == SERIES)
    as_good_as_before(scene, made, mask == SERIES, PRESENT_LIMITS[name, mask])


class TestMissed:
    """Clouds, haze and shadows that the given mask has as clear."""

    @pytest.mark.parametrize(("name", "code"), [("missed_shadow", Change.SHADOW), ("missed_haze", Change.CLOUD)])
    def test_a_shadow_is_called_a_shadow_and_a_cloud_a_cloud(self, name, code):
        scene, made = repaired(name)
        newly = scene.covered & scene.given & ~made.clear
        assert (made.change[newly] == code).mean() > 0.9

    def test_the_score_ranks_what_is_covered_above_what_is_clean(self):
        scene, made = repaired("missed_cloud")
        assert np.quantile(made.score[scene.covered], 0.2) > np.quantile(made.score[scene.clean], 0.95)


def test_what_may_not_be_restored_is_not():
    scene, _ = repaired("blobs")
    scene = replace(scene, keep=np.indices(scene.given.shape)[2] < 48)
    made = scene.repaired()
    consistent(scene, made)
    assert (made.change[..., 48:] == Change.RESTORED).any()


@pytest.mark.parametrize("cube", ["portugal", "landsat"])
def test_change_in_a_real_series_stays(cube, request):
    """Where a real series jumps to another level and two more clear dates confirm it."""
    bands, given, days = arrays(request.getfixturevalue(cube))
    changed = lasting_steps(bands, given, days)
    assert changed.sum() > 5000
    usable = np.isfinite(bands).all(axis=1)
    made = repair(bands, given, days, usable=usable, keep=np.zeros_like(usable))
    assert (~made.clear)[changed].mean() <= 0.02


def test_without_a_given_mask_it_plays_no_part():
    scene, made = right(), repaired("right", SERIES)[1]
    assert not (made.change == Change.RESTORED).any()
    same(made, replace(scene, given=np.zeros_like(scene.given)).repaired(from_series=True))


def arrays(ds: xr.Dataset):
    """Return the bands, the given mask and the days of a cube."""
    bands = ds["reflectance"].transpose("time", "band", "y", "x").to_numpy().astype(np.float32)
    given = (ds["cloud_mask"].to_numpy() == 0) & np.isfinite(bands).all(axis=1)
    time = ds["time"].to_numpy()
    return bands, given, (time - time[0]) / np.timedelta64(1, "D")
