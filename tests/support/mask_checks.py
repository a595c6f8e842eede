"""What holds for every result of correcting masks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from functools import cache
from typing import Any

import numpy as np

from benchmarks.masks.landscapes import SCENES, Scene, figures
from benchmarks.masks.odd_series import ODD
from benchmarks.masks.scenes import GIVEN, SERIES, reached
from xr_cloudfree.masking.bootstrap import first_mask
from xr_cloudfree.masking.repair import LEAST_DATES, Change, Repaired


@cache
def repaired(name: str, mask: str = GIVEN) -> tuple[Scene, Repaired]:
    """Return a scene and its result, computed once for all tests."""
    scene = ODD[name]() if name in ODD else SCENES[name](0)
    return scene, scene.repaired(from_series=mask == SERIES)


def as_good_as_before(scene: Scene, made: Repaired, from_series: bool, limits: Mapping[str, float]) -> None:
    """Check figures of a result against limits."""
    got = asdict(figures(scene, made.clear, from_series=from_series))
    worse = {
        figure: (got[figure], limit) for figure, limit in limits.items() if not reached(figure, got[figure], limit)
    }
    assert not worse, f"figures and their limits: {worse}"


def consistent(scene: Scene, made: Repaired, from_series: bool = False) -> None:
    """Check what holds for every result: which pixels each code may have, and where there is a score."""
    usable = scene.usable
    given = usable if from_series else scene.given & usable
    newly = (made.change == Change.CLOUD) | (made.change == Change.SHADOW)
    restored = made.change == Change.RESTORED
    assert made.clear.dtype == bool and made.change.dtype == np.uint8 and made.score.dtype == np.float32
    assert made.clear.shape == made.change.shape == made.score.shape == scene.given.shape
    assert not (made.clear & ~usable).any()
    np.testing.assert_array_equal(made.clear, (given & ~newly) | restored)
    assert not (newly & ~given).any() and not (restored & given).any()
    assert (made.change[~usable] == Change.AS_GIVEN).all()
    assert np.isnan(made.score[~usable]).all()
    # A pixel that could not be compared has no score, and is as given, or as first guessed where there is no mask.
    known = np.isfinite(made.score)
    before = given
    if from_series and len(scene.bands) >= LEAST_DATES:
        before, _ = first_mask(np.where(usable[:, None], scene.bands, np.float32(0)), usable, scene.days)
    np.testing.assert_array_equal(made.clear[~known], before[~known])
    assert ((made.score[known] >= 0) & (made.score[known] <= 1)).all()
    if scene.keep is not None:
        assert not (restored & scene.keep).any()


def same(one: Repaired, other: Repaired, where: Any = ...) -> None:
    """Check that two results are equal bit for bit."""
    np.testing.assert_array_equal(one.clear[where], other.clear[where])
    np.testing.assert_array_equal(one.change[where], other.change[where])
    np.testing.assert_array_equal(one.score[where], other.score[where])
