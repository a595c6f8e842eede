"""Markdown tables of the accuracy page."""

from __future__ import annotations

import csv
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.accuracy import figures, folds
from benchmarks.accuracy.figures import by_case, gain, interval, mean, pick, ratio
from benchmarks.accuracy.measure import ALL, AUTO, CLASSICAL, FITTED, LEVELS, ONE_SENSOR, PLAIN, REFERENCE, UNET
from benchmarks.accuracy.sites import SAMPLE
from xr_cloudfree.accuracy.simulate import TRACKS

NONE = "–"


def table(head: list[str], rows: list[list[str]]) -> str:
    """Return a table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def number(value: float, form: str) -> str:
    """Format a number; a dash for NaN."""
    return format(value, form) if np.isfinite(value) else NONE


def gained(gains: pd.Series) -> str:
    """Format a mean gain and its interval."""
    if gains.empty:
        return NONE
    if len(set(gains.index.droplevel(["track", "seed"]))) == 1:
        return f"{gains.mean():+.2f}"  # one frame says nothing of others
    low, high = interval(gains)
    return f"{gains.mean():+.2f} ({low:+.2f} … {high:+.2f})"


def _lost(gains: pd.Series) -> str:
    return f"{int(figures.worse(gains).sum())} of {len(gains)}" if len(gains) else NONE


def summary(scores: pd.DataFrame, track: str) -> str:
    """Return the PSNR table of one track by site."""
    rows = []
    for place in [*sorted(set(pick(scores, track)["place"])), None]:
        chosen = pick(scores, track, place)
        over = {name: gain(chosen, name) for name in (REFERENCE, PLAIN, FITTED)}
        worst = over[REFERENCE].min() if len(over[REFERENCE]) else np.nan
        rows.append(
            [
                place or "**all**",
                *(number(mean(chosen, name, "psnr"), ".2f") for name in (REFERENCE, PLAIN, FITTED, UNET)),
                *(gained(gains) for gains in over.values()),
                number(worst, "+.2f"),
                _lost(over[FITTED]),
                _lost(over[REFERENCE]),
            ]
        )
    head = ["place", "linear", "plain regress", "regress", "unet", "over linear (95 %)", "over plain regress (95 %)"]
    return table([*head, "over regress (95 %)", "worst frame", "lost to regress", "lost to linear"], rows)


def ratios(scores: pd.DataFrame) -> str:
    """Return the table of error ratios by site."""
    rows = []
    for track in TRACKS:
        for place in [*sorted(set(pick(scores, track)["place"])), None]:
            chosen = pick(scores, track, place)
            row = [track, place or "**all**"]
            for metric in ("mae", "rmse"):
                strongest = figures.best(chosen, metric)
                of_best = number(ratio(chosen, metric, strongest), ".3f")
                row += [number(ratio(chosen, metric, name), ".3f") for name in (REFERENCE, FITTED)]
                row.append(f"{of_best} ({strongest})")
            rows.append(row)
    kinds = [f"{metric} / {name}" for metric in ("MAE", "RMSE") for name in ("linear", "regress", "best classical")]
    return table(["track", "place", *kinds], rows)


def strata(scores: pd.DataFrame) -> str:
    """Return errors by gap length and by hidden share, in percent of linear's."""
    rows = []
    for track, name, chosen in figures.strata(scores):
        more = {metric: ratio(chosen, metric, REFERENCE) - 1 for metric in ("mae", "rmse")}
        frames = gain(chosen, REFERENCE)
        flag = "**more than 2 % worse**" if any(value > figures.LEEWAY for value in more.values()) else ""
        psnr, over = number(mean(chosen, REFERENCE, "psnr"), ".2f"), number(frames.mean(), "+.2f")
        rows.append([track, name, str(len(frames)), psnr, over, *(number(v, "+.1%") for v in more.values()), flag])
    return table(["track", "stratum", "frames", "linear, dB", "gain, dB", "MAE", "RMSE", ""], rows)


def methods(scores: pd.DataFrame, names: tuple[str, ...] = (*CLASSICAL, PLAIN, UNET, AUTO)) -> str:
    """Return the metrics of all methods as means over frames."""
    forms = {"mae": ".4f", "rmse": ".4f", "psnr": ".2f", "sam": ".2f", "ssim": ".3f", "ssim1": ".3f"}
    forms |= {"unknown": ".1%", "cover90%": ".1%", "seconds": ".3f"}
    there = [name for name in names if name in set(scores["method"])]
    rows = [[name, *(number(mean(scores, name, metric), form) for metric, form in forms.items())] for name in there]
    head = ["method", "MAE", "RMSE", "PSNR", "SAM (°)", "SSIM", "SSIM, range 1", "unknown", "coverage90", "seconds"]
    return table(head, rows)


def coverage(scores: pd.DataFrame) -> str:
    """Return the coverage of intervals over all sites."""
    rows = []
    for method in (FITTED, UNET):
        for track in (*TRACKS, None):
            chosen = pick(scores, track)
            held = [number(mean(chosen, method, f"cover{level:.0%}"), ".1%") for level in LEVELS]
            rest = [number(mean(chosen, method, "width"), ".3f"), number(mean(chosen, method, "crps"), ".4f")]
            rows.append([method, track or "**all**", *held, *rest])
    return table(["method", "track", *(f"{level:.0%}" for level in LEVELS), "mean width of 90 %", "CRPS"], rows)


def coverage_by_place(scores: pd.DataFrame) -> str:
    """Return the coverage of 90 % intervals by site."""
    rows = []
    for place in sorted(set(scores["place"])):
        row = [place]
        for track in (*TRACKS, None):
            chosen = pick(scores, track, place)
            row.append(" / ".join(number(mean(chosen, name, "cover90%"), ".1%") for name in (FITTED, UNET)))
        rows.append(row)
    return table(["place", *TRACKS, "all tracks"], rows)


def weights(scores: pd.DataFrame) -> str:
    """Return the weights evaluated at each site."""
    seeds = sorted(set(scores["seed"]))
    rows = []
    for ground, rest in pick(scores).groupby("ground"):
        row = ["none" if ground == SAMPLE else str(ground), ", ".join(sorted(set(rest["place"])))]
        for seed in seeds:
            used = rest.loc[(rest["seed"] == seed) & (rest["method"] == UNET), "weights"]
            row.append(used.iloc[0] if len(used) else NONE)
        rows.append(row)
    return table(["held out", "evaluated on", *(f"seed {seed} of the masks" for seed in seeds)], rows)


def _judged(scores: pd.DataFrame, method: str) -> pd.DataFrame:
    """Return the cases on which a method was evaluated."""
    cases = by_case(scores, "psnr")[method].dropna().index
    return scores[pd.MultiIndex.from_frame(scores[list(cases.names)]).isin(cases)]


def transfer(scores: pd.DataFrame) -> str:
    """Return the table of transfer between sensors."""
    directions = [("Landsat → Sentinel-2", ONE_SENSOR, pick(scores[scores["ground"] != folds.SENSOR]))]
    directions.append(("Sentinel-2 → Landsat", UNET, pick(scores[scores["ground"] == folds.SENSOR])))
    rows = []
    for direction, method, chosen in directions:
        if method not in set(chosen["method"]):
            continue
        chosen = _judged(chosen, method)
        for track in TRACKS:
            part = pick(chosen, track)
            psnr = [number(mean(part, name, "psnr"), ".2f") for name in (REFERENCE, FITTED, UNET, method)]
            over = [gained(gain(part, name, method)) for name in (REFERENCE, FITTED)]
            frames = str(len(gain(part, REFERENCE, method)))
            rows.append([direction, track, frames, *psnr, *over, number(mean(part, method, "cover90%"), ".1%")])
    if not rows:
        return "No network was trained on one sensor only.\n"
    head = ["direction", "track", "frames", "linear", "regress", "unet of the fold", "unet of one sensor"]
    return table([*head, "over linear (95 %)", "over regress (95 %)", "coverage90"], rows)


def published(scores: pd.DataFrame, kept: Path) -> str:
    """Return the tables of published networks on their bands; stored tables where they were not measured."""
    parts = []
    for bands in sorted(set(scores["bands"]) - {ALL}):
        of_bands = scores[scores["bands"] == bands]
        places = ", ".join(sorted(set(of_bands["place"])))
        parts.append(f"Bands: {bands}. Places: {places}.\n")
        for track in TRACKS:
            chosen = pick(of_bands, track, bands=bands)
            if len(chosen):
                parts.append(f"*{track}*, {len(by_case(chosen, 'psnr'))} frames:\n")
                parts.append(methods(chosen, (REFERENCE, FITTED, *folds.PUBLISHED, UNET)))
    if not parts and kept.is_file():
        return f"From a separate run.\n\n{kept.read_text()}"
    return "\n".join(parts) or "The published networks were not measured.\n"


def terramind(scores: pd.DataFrame) -> str:
    """Return the table of the TerraMind networks and `unet` on the frames of each."""
    rows = []
    for name in folds.TERRAMIND:
        if name not in set(scores["method"]):
            continue
        judged = _judged(pick(scores), name)
        for track in TRACKS:
            part = pick(judged, track)
            psnr = [number(mean(part, method, "psnr"), ".2f") for method in (REFERENCE, FITTED, UNET, name)]
            over = [gained(gain(part, other, name)) for other in (UNET, FITTED, REFERENCE)]
            tail = [number(mean(part, name, metric), form) for metric, form in (("cover90%", ".1%"), ("crps", ".4f"))]
            rows.append([name, track, str(len(gain(part, UNET, name))), *psnr, *over, *tail])
    if not rows:
        return "Not measured.\n"
    head = ["network", "track", "frames", "linear", "regress", "unet", "it", "over unet (95 %)", "over regress (95 %)"]
    return table([*head, "over linear (95 %)", "coverage90", "CRPS"], rows)


def ablation(path: Path) -> str:
    """Return the stored ablation table of the network's parts."""
    if not path.is_file():
        return "Not measured.\n"
    with path.open(newline="") as file:
        head, *rows = csv.reader(file)
    return table(head, rows)
