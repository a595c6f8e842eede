"""Masks corrected in series of which the truth is known, beside what the correction should reach.

``python -m benchmarks.masks.scenes`` prints a table: for each scene of `landscapes` and each series of `odd_series`,
shares of pixels that are masked or restored, each beside its goal; ``*`` marks goals that are not reached.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence

import numpy as np

from benchmarks.masks.landscapes import SCENES, figures
from benchmarks.masks.odd_series import ODD

FIGURES = {
    "found": "of the cloud and shadow that the given mask missed: masked",
    "kept": "of the cloud and shadow that the given mask has as such: still masked",
    "restored": "of the false alarms: restored",
    "lost": "of the clean pixels that the given mask has as clear: masked, but for real change",
    "changed": "of the pixels of real change that the given mask has as clear: masked",
    "pure": "of the pixels that are clear in the end: not covered",
}
"""Figures in the table: the shares that they are."""
AT_MOST = ("lost", "changed")
"""Figures that should be low; all others should be high."""
GIVEN, SERIES = "given", "series"
GOALS = {
    GIVEN: {"found": 0.85, "kept": 0.98, "restored": 0.8, "lost": 0.01, "changed": 0.02, "pure": 0.97},
    SERIES: {"found": 0.85, "lost": 0.05, "changed": 0.05, "pure": 0.97},
}
"""Goals for a given mask that is corrected, and for a mask that is made from the series."""
# Where less can be asked of a series, with a given mask; without one, more clean pixels may be masked.
ODD_GOALS = {
    "three_dates": {"found": 0.5, "lost": 0.1},
    "all_clear": {"found": 0.85, "pure": 0.97, "lost": 0.05},
    "constant": {"lost": 0.0, "restored": 0.8},
    "offset_much_higher": {"kept": 0.9, "lost": 0.05},
    "offset_higher": {"kept": 0.9, "lost": 0.05},
    "offset_lower": {"kept": 0.9, "lost": 0.05},
    "swath_edges": {"found": 0.8, "lost": 0.015},
    "empty_date_and_column": {"lost": 0.01},
    "glint": {"kept": 0.98, "lost": 0.015},
    "winter": {"lost": 0.02},
    "two_sensors": {"found": 0.8, "lost": 0.02},
    "visible": {"found": 0.8, "lost": 0.01},
    **{f"only_{band}": {"found": 0.6, "lost": 0.02} for band in ("blue", "red", "nir")},
    **{
        f"{change}_in_{band}": {"changed": 0.02, "lost": 0.02}
        for change in ("harvest", "burn")
        for band in ("red", "nir")
    },
}


def goals(name: str, mask: str) -> dict[str, float]:
    """Return the goals of a scene.

    Parameters
    ----------
    name : str
        One of `SCENES` or `ODD`.
    mask : str
        "given": the given mask is corrected; "series": the mask is made from the series.
    """
    if name not in ODD_GOALS:
        return GOALS[mask]
    asked = {figure: goal for figure, goal in ODD_GOALS[name].items() if mask == GIVEN or figure in GOALS[SERIES]}
    if mask == SERIES and name != "constant":
        asked["lost"] = max(asked["lost"], GOALS[SERIES]["lost"])
    return asked


def measure(name: str, mask: str, seeds: Sequence[int]) -> dict[str, float]:
    """Return the figures of a scene, averaged over the seeds; NaN where a scene has none of the pixels.

    Parameters
    ----------
    name, mask : str
        As in `goals`.
    seeds : sequence of int
        Landscapes and clouds; the series in `ODD` have one only.
    """
    scenes = [ODD[name]()] if name in ODD else [SCENES[name](seed) for seed in seeds]
    from_series = mask == SERIES
    found = []
    for scene in scenes:
        found.append(figures(scene, scene.repaired(from_series=from_series).clear, from_series=from_series))
    return {figure: float(np.mean([getattr(one, figure) for one in found])) for figure in FIGURES}


def reached(figure: str, value: float, goal: float) -> bool:
    """Return whether a figure is as good as a goal."""
    return value <= goal if figure in AT_MOST else value >= goal


def cell(figure: str, value: float, goal: float | None) -> str:
    """Return a figure and its goal as text, such as "0.67 (≥ 0.85) *"; empty where a scene has none of the pixels."""
    if np.isnan(value):
        return ""
    if goal is None:
        return f"{value:.3f}"
    told = f"{value:.3f} ({'≤' if figure in AT_MOST else '≥'} {goal:g})"
    return told if reached(figure, value, goal) else f"{told} *"


def table(names: Sequence[str], masks: Sequence[str], seeds: Sequence[int]) -> str:
    """Return the table, a line for each scene and mask."""
    lines = [["scene", "mask", *FIGURES]]
    for name in names:
        for mask in masks:
            asked, values = goals(name, mask), measure(name, mask, seeds)
            lines.append([name, mask, *(cell(one, values[one], asked.get(one)) for one in FIGURES)])
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rows = ["  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines]
    legend = [f"{figure}: share {told}" for figure, told in FIGURES.items()]
    return "\n".join([*rows, "", *legend])


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser("python -m benchmarks.masks.scenes", description=__doc__)
    every = [*SCENES, *ODD]
    parser.add_argument("--scenes", nargs="+", choices=every, default=every, metavar="SCENE", help="all, by default")
    parser.add_argument("--masks", nargs="+", choices=[GIVEN, SERIES], default=[GIVEN, SERIES], help="both, by default")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1], help="landscapes and clouds")
    options = parser.parse_args(arguments)
    print(table(options.scenes, options.masks, options.seeds))


if __name__ == "__main__":
    main()
