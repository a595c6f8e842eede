"""What holds for every result of correcting masks."""

from __future__ import annotations

from typing import Any

import numpy as np

from tests.support.mask_scenes import Scene
from xr_cloudfree.masking.repair import Change, Repaired


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
    # A pixel that could not be compared has no score, and is as given.
    known = np.isfinite(made.score)
    assert (made.change[~known] == Change.AS_GIVEN).all()
    assert ((made.score[known] >= 0) & (made.score[known] <= 1)).all()
    if scene.keep is not None:
        assert not (restored & scene.keep).any()


def same(one: Repaired, other: Repaired, where: Any = ...) -> None:
    """Check that two results are equal bit for bit."""
    np.testing.assert_array_equal(one.clear[where], other.clear[where])
    np.testing.assert_array_equal(one.change[where], other.change[where])
    np.testing.assert_array_equal(one.score[where], other.score[where])
