"""The table of what corrected masks reach, beside the goals."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
import pytest

from benchmarks.masks.landscapes import SCENES, figures
from benchmarks.masks.odd_series import ODD
from benchmarks.masks.scenes import FIGURES, GIVEN, ODD_GOALS, SERIES, cell, goals, main, reached
from tests.support.mask_checks import repaired


def test_a_line_for_each_scene_and_mask(capsys):
    main(["--scenes", "blobs", "constant", "--seeds", "0"])
    head, *lines = capsys.readouterr().out.split("\n\n")[0].splitlines()
    assert head.split() == ["scene", "mask", *FIGURES]
    assert [line.split()[:2] for line in lines] == [
        [name, mask] for name in ("blobs", "constant") for mask in (GIVEN, SERIES)
    ]
    assert "(≥ 0.98)" in lines[0] and "(≤ 0.01)" in lines[0] and "(≤ 0.05)" in lines[1]


@pytest.mark.parametrize(
    ("figure", "value", "goal", "text"),
    [
        ("found", 0.5, 0.85, "0.500 (≥ 0.85) *"),
        ("found", 0.85, 0.85, "0.850 (≥ 0.85)"),
        ("lost", 0.5, 0.01, "0.500 (≤ 0.01) *"),
        ("changed", 0.02, 0.02, "0.020 (≤ 0.02)"),
        ("kept", 0.3, None, "0.300"),
        ("kept", np.nan, 0.98, ""),
    ],
)
def test_cells_have_the_goal_and_a_mark_where_it_is_not_reached(figure, value, goal, text):
    assert cell(figure, value, goal) == text


def test_a_share_of_no_pixels_reaches_nothing():
    assert not reached("found", np.nan, 0.5) and not reached("lost", np.nan, 0.5)


def test_goals_are_about_pixels_that_the_scenes_have():
    """Every goal of an odd series is measured, and every figure has a goal in some scene."""
    assert set(ODD_GOALS) == set(ODD)
    for name in ODD:
        scene, made = repaired(name)
        got = asdict(figures(scene, made.clear))
        assert not np.isnan([got[figure] for figure in goals(name, GIVEN)]).any()
    assert {figure for name in SCENES for figure in goals(name, GIVEN)} == set(FIGURES)


def test_figures_are_shares_of_the_truth():
    """A mask of the truth has the best figures, its opposite the worst."""
    scene, _ = repaired("blobs")
    best, worst = figures(scene, scene.clean), figures(scene, ~scene.clean)
    assert (best.kept, best.restored, best.lost, best.pure) == (1, 1, 0, 1)
    assert (worst.kept, worst.restored, worst.lost) == (0, 0, 1)
