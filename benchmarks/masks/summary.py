"""Means of the scores by place, and the goals."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import pandas as pd

from benchmarks.masks.measure import ALL, CHANGE, DILATIONS, GIVEN, REPAIR, dilation
from xr_cloudfree.accuracy.mask_tracks import MASK_TRACKS
from xr_cloudfree.accuracy.simulate import TRACKS

KEYS = ["place", "sensor", "track", "mask", "cover"]
PSNR = ("whole", "under", "rim")
SHARES = (
    *("recall", "precision", "false_alarms", "newly_masked", "restored"),
    *("others_recall", "others_precision", "others_false_alarms"),
)
CLOUDS, NO_MASK, WRONG_MASK = MASK_TRACKS


def summarise(scores: pd.DataFrame, tuned: Iterable[str] = ()) -> pd.DataFrame:
    """Return the means over frames and seeds: a row for each place, track, mask and cover.

    Parameters
    ----------
    scores : DataFrame
        Made by `measure`.
    tuned : iterable of str
        Places on which constants of the correction were chosen.
    """
    finite = scores.replace([np.inf, -np.inf], np.nan)  # a cover without cloud has no error at all
    grouped = finite.groupby(KEYS, sort=False)
    metrics = [name for name in ("pixels", *PSNR, *SHARES, "seconds") if name in scores]
    out = grouped[metrics].mean()
    out.insert(0, "frames", grouped.size())
    out = out.reset_index()
    out.insert(1, "tuned", out["place"].isin(list(tuned)))
    return out


def pick(summary: pd.DataFrame, track: str, mask: str, cover: str = ALL) -> pd.DataFrame:
    """Return the rows of one track, mask and cover by place."""
    chosen = (summary["track"] == track) & (summary["mask"] == mask) & (summary["cover"] == cover)
    return summary[chosen].set_index("place")


def best_dilation(summary: pd.DataFrame, track: str) -> pd.DataFrame:
    """Return for each place the rows of the dilation of 0 to 8 pixels with the highest PSNR of the whole image.

    Returns
    -------
    DataFrame
        By place, with the column ``pixels``; empty for a track without dilations.
    """
    parts = [pick(summary, track, dilation(pixels)).assign(pixels=pixels) for pixels in DILATIONS]
    if not any(len(part) for part in parts):
        return pd.DataFrame(columns=[*summary.columns, "pixels"])
    every = pd.concat([pick(summary, track, GIVEN).assign(pixels=0), *parts]).reset_index()
    every = every.sort_values("whole", ascending=False, kind="stable")
    return every.drop_duplicates("place").set_index("place").sort_index()


def gain(ours: pd.DataFrame, other: pd.DataFrame, metric: str = "whole") -> pd.Series:
    """Return the difference of a metric by place, of the places that both have."""
    return (ours[metric] - other[metric]).dropna() if metric in ours and metric in other else pd.Series(dtype=float)


@dataclass(frozen=True)
class Goal:
    """A goal, and whether it was reached; None if nothing was measured.

    Parameters
    ----------
    aim : str
        What was to be reached.
    found : str
        What was.
    reached : bool or None
        Whether it was.
    """

    aim: str
    found: str
    reached: bool | None

    def __str__(self) -> str:
        word = {True: "**Reached**", False: "**Not reached**", None: "Not measured"}[self.reached]
        return f"- {word}: {self.aim}. {self.found}"


def goals(summary: pd.DataFrame) -> list[Goal]:
    """Return the goals with what was measured: means over the places that took no part in choosing constants."""
    summary = summary[~summary["tuned"]]
    clouds = pick(summary, CLOUDS, REPAIR)
    over_given = gain(clouds, pick(summary, CLOUDS, GIVEN))
    found = [
        _at_least("on *clouds*, at least +3.5 dB on the whole image over the given mask", over_given, 3.5),
        _at_least(
            "on *clouds*, at least +1 dB over the best dilation of 0 to 8 pixels at each place",
            gain(clouds, best_dilation(summary, CLOUDS)),
            1.0,
        ),
        Goal("on *clouds*, no place lost", _places(over_given[over_given < 0]), _all(over_given >= 0)),
    ]
    no_mask, wrong = pick(summary, NO_MASK, REPAIR), pick(summary, WRONG_MASK, REPAIR)
    found.append(_at_least("on *no mask*, within 1.5 dB of the corrected given mask", gain(no_mask, clouds), -1.5))
    for metric, aim, least in (
        ("recall", "on *no mask*, at least 85 % of the cloud is masked", 0.85),
        ("precision", "on *no mask*, at least 97 % of what is called clear is clear", 0.97),
    ):
        found.append(_share(aim, no_mask[metric].dropna() if metric in no_mask else [], least))
    found.append(_at_least("on *wrong mask*, within 0.5 dB of the corrected right mask", gain(wrong, clouds), -0.5))
    restored = wrong["restored"].dropna() if "restored" in wrong else []
    found.append(_share("on *wrong mask*, at least 80 % of the false alarms are restored", restored, 0.8))
    for track in TRACKS:
        ours, given = pick(summary, track, REPAIR), pick(summary, track, GIVEN)
        found.append(_at_least(f"on *{track}*, no loss beyond 0.05 dB", gain(ours, given), -0.05))
        newly = ours["newly_masked"].dropna() if "newly_masked" in ours else pd.Series(dtype=float)
        if len(newly):
            aim = f"on *{track}*, at most 1 % of the clear pixels newly masked"
            found.append(Goal(aim, f"{newly.mean():.1%}.", bool(newly.mean() <= 0.01)))
    changed = pick(summary, CHANGE, REPAIR)
    masked = changed["newly_masked"].dropna() if "newly_masked" in changed else pd.Series(dtype=float)
    aim = "at most 2 % of the pixels of real change are masked"
    if len(masked):
        worst = f"{masked.mean():.1%}; most at {masked.idxmax()}, {masked.max():.1%}."
        found.append(Goal(aim, worst, bool(masked.mean() <= 0.02)))
    else:
        found.append(Goal(aim, "", None))
    return found


def _at_least(aim: str, gains: pd.Series, least: float) -> Goal:
    if gains.empty:
        return Goal(aim, "", None)
    worst = f"{gains.idxmin()} {gains.min():+.2f} dB"
    return Goal(aim, f"{gains.mean():+.2f} dB; least at {worst}.", bool(gains.mean() >= least))


def _share(aim: str, shares: Iterable[float], least: float) -> Goal:
    values = list(shares)
    return Goal(aim, f"{np.mean(values):.1%}.", bool(np.mean(values) >= least)) if values else Goal(aim, "", None)


def _all(checks: pd.Series) -> bool | None:
    return bool(checks.all()) if len(checks) else None


def _places(lost: pd.Series) -> str:
    return ", ".join(f"{place} ({value:+.2f} dB)" for place, value in lost.items()) + "." if len(lost) else ""
