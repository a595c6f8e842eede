"""Accuracy, cost and intervals of the shipped models, at series that none of their weights were trained on.

    python -m benchmarks.unseen --data DIR
    python -m benchmarks.unseen

The first measures: PSNR on hidden pixels of the Belgian series and of the sample, CPU seconds of a synthetic cube on
one thread, and the coverage of 90 % intervals by the distance to the nearest evidence. It writes `unseen.csv` and
`coverage.csv` beside this file. Both write `docs/_static/accuracy_cost.png` and print the tables.
"""

from __future__ import annotations

import argparse
import warnings
from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import cost
from benchmarks.accuracy.measure import answer, judge
from benchmarks.accuracy.sites import GROUNDS, SAMPLE, read_all
from benchmarks.accuracy.tables import NONE, number, table
from xr_cloudfree.accuracy import metrics
from xr_cloudfree.accuracy.simulate import TRACKS, make_cases, real_masks
from xr_cloudfree.accuracy.strata import BY, LEAST_PIXELS, class_names, strata
from xr_cloudfree.models.registry import create

ROOT = Path(__file__).parents[1]
SCORES, COVERAGE = (Path(__file__).with_name(name) for name in ("unseen.csv", "coverage.csv"))
PICTURE = ROOT / "docs" / "_static" / "accuracy_cost.png"
MODELS = ("nearest", "median", "geomedian", "linear", "timegate", "harmonic", "regress", "unet", "terramind")
# Of each model that has intervals and is more than a baseline.
WITH_INTERVALS = ("regress", "unet", "terramind")
# Where the names of neighbouring points are drawn.
LEFT, BELOW = ("nearest", "median", "regress", "unet"), ("linear", "geomedian", "terramind", "median", "regress")
PLACES = GROUNDS["belgium"]
DATES, BANDS = 24, 4
FRAMES, SEEDS = 5, (0, 1)


def core_hours() -> dict[str, float]:
    """Return the core-hours of a granule by model."""
    return {name: cost.costs(ROOT, name, DATES, BANDS)[1] for name in MODELS}


def measure(data: Path, sample: Path, hours: dict[str, float]) -> None:
    """Measure accuracy and intervals of all models, and write both tables."""
    warnings.simplefilter("ignore")
    models = {name: create(name) for name in MODELS}
    places, shapes = read_all(data, sample)
    scores: list[dict[str, Any]] = []
    held: list[dict[str, Any]] = []
    for place in places:
        if place.name not in PLACES and place.ground != SAMPLE:
            continue
        masks = [*real_masks(place.clear), *shapes]
        for track in TRACKS:
            for seed in SEEDS:
                how: dict[str, Any] = {"masks": masks, "suspect": place.suspect, "limit": FRAMES, "seed": seed}
                for case in make_cases(place.bands, place.clear, place.time, track, **how):
                    linear = answer(models["linear"], case, place.common_names)
                    for name, model in models.items():
                        done = answer(model, case, place.common_names)
                        row = {"model": name, "track": track}
                        scores.append(row | {"psnr": judge(case, done, linear)["psnr"]})
                        if name not in WITH_INTERVALS or done.uncertainty is None:
                            continue
                        for by in BY:
                            for label, where in strata(by, case.clear, case.day_offset, case.target).items():
                                where = where & case.scored & done.known
                                if where.sum() < LEAST_PIXELS:
                                    continue
                                inside, width = metrics.interval_coverage(
                                    done.bands, case.truth, done.uncertainty, where
                                )
                                found = {"by": by, "class": label, "coverage90": inside, "width90": width}
                                held.append(row | found)
        print(f"{place.name}: done", flush=True)
    mean = pd.DataFrame(scores).pivot_table(index="model", columns="track", values="psnr", sort=False)
    mean = mean.reindex(index=MODELS, columns=TRACKS)
    mean.insert(0, "core_hours", pd.Series(hours))
    mean.insert(1, "frames", len(scores) // len(MODELS) // len(TRACKS))
    mean.to_csv(SCORES, float_format="%.4g")
    grouped = pd.DataFrame(held).groupby(["by", "class", "track", "model"], sort=False)
    grouped[["coverage90", "width90"]].mean().assign(frames=grouped.size()).to_csv(COVERAGE, float_format="%.4g")


def coverage_table(path: Path = COVERAGE) -> str:
    """Return the coverage of 90 % intervals by classes of pixels in Markdown, from the stored table."""
    if not path.is_file():
        return "Not measured.\n"
    held = pd.read_csv(path, index_col=["by", "class", "track", "model"])
    models = [name for name in WITH_INTERVALS if name in held.index.get_level_values("model")]
    rows = []
    for by in BY:
        for track in TRACKS:
            for label in class_names(by):
                found = [held.loc[key] if (key := (by, label, track, name)) in held.index else None for name in models]
                if all(row is None for row in found):
                    continue
                frames = max(int(row["frames"]) for row in found if row is not None)
                texts = [NONE if row is None else f"{row['coverage90']:.1%} ({row['width90']:.3f})" for row in found]
                rows.append([track, label, str(frames), *texts])
    return table(["track", "nearest clear pixel or date", "frames", *models], rows)


def cost_table(path: Path = SCORES) -> str:
    """Return accuracy and cost in Markdown, from the stored table."""
    scores = pd.read_csv(path, index_col="model")
    rows = [
        [name, f"{row['core_hours']:.3f}", *(number(row[track], ".2f") for track in TRACKS)]
        for name, row in scores.iterrows()
    ]
    return table(["model", "core-hours a granule", *TRACKS], rows)


def draw(path: Path = SCORES, into: Path = PICTURE) -> None:
    """Draw accuracy against cost, a panel for each track, from the stored table."""
    from matplotlib.figure import Figure

    from xr_cloudfree.plot.drawing import BLUE, INK, ORANGE

    scores = pd.read_csv(path, index_col="model")
    figure = Figure(figsize=(11, 3.6), layout="constrained", dpi=110)
    for ax, track in zip(figure.subplots(1, len(TRACKS)), TRACKS, strict=True):
        hours, psnr = scores["core_hours"], scores[track]
        best, points = -float("inf"), []
        for name in hours.sort_values().index:  # the models that nothing cheaper equals
            if psnr[name] > best:
                best = psnr[name]
                points.append(name)
        ax.plot(hours[points], psnr[points], color=BLUE, linewidth=1, drawstyle="steps-post", zorder=1)
        ax.scatter(hours, psnr, s=18, color=[BLUE if name in points else ORANGE for name in hours.index], zorder=2)
        for name in hours.index:
            left, below = name in LEFT, name in BELOW
            ax.annotate(
                str(name),
                (hours[name], psnr[name]),
                (-5 if left else 5, -3 if below else 3),
                textcoords="offset points",
                ha="right" if left else "left",
                va="top" if below else "bottom",
                fontsize=7,
                color=INK,
            )
        ax.set_xscale("log")
        ax.margins(x=0.4, y=0.12)
        ax.set(title=track, xlabel="core-hours a granule")
        ax.spines[["top", "right"]].set_visible(False)
    figure.axes[0].set_ylabel("PSNR, dB")
    figure.savefig(into, metadata={"Software": None})


def main() -> None:
    """Measure if there is data, then draw and print."""
    parser = argparse.ArgumentParser("python -m benchmarks.unseen", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with the series (NetCDF); without it, the stored tables")
    parser.add_argument("--sample", type=Path, default=ROOT / "data" / "s2_portugal.zarr", help="a series apart")
    options = parser.parse_args()
    if options.data is not None:
        measure(options.data, options.sample, core_hours())
    draw()
    print(cost_table(), coverage_table(), sep="\n")


if __name__ == "__main__":
    main()
