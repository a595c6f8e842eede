"""Statistics of the scores: gains with intervals, ratios, strata, coverage, and goals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.accuracy.measure import ALL, CASE, CLASSICAL, FITTED, PLAIN, REFERENCE, UNET
from xr_cloudfree.accuracy.simulate import TRACKS

DRAWS = 2000
# Decibels: less is no difference.
NOTHING = 0.005
# Likewise a share of the error, about what that many decibels are.
ALIKE = 0.0005
# Days and shares at which strata end.
GAPS, SHARES = (10.0, 20.0, 40.0, 80.0), (0.3, 0.6, 1.0)
# In every stratum errors may be so much larger than those of linear.
LEEWAY = 0.02
POOLED, EACH = (0.88, 0.92), (0.85, 0.95)


def pick(scores: pd.DataFrame, track: str | None = None, place: str | None = None, bands: str = ALL) -> pd.DataFrame:
    """Return the rows of a track and a site; all where none is named."""
    chosen = scores["bands"] == bands
    for column, value in (("track", track), ("place", place)):
        if value is not None:
            chosen &= scores[column] == value
    return scores[chosen]


def by_case(scores: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Return one metric with a row per case and a column per method."""
    if metric not in scores:
        return pd.DataFrame()
    return scores.pivot(index=CASE, columns="method", values=metric)


def mean(scores: pd.DataFrame, method: str, metric: str) -> float:
    """Return the mean over frames; NaN without frames."""
    return float(by_case(scores, metric).get(method, pd.Series(dtype=float)).mean())


def gain(scores: pd.DataFrame, reference: str, ours: str = UNET) -> pd.Series:
    """Return the PSNR gain over another method, per case measured for both."""
    psnr = by_case(scores, "psnr")
    if ours not in psnr or reference not in psnr:
        return pd.Series(dtype=float)
    return (psnr[ours] - psnr[reference]).dropna()


def gain_over_best(scores: pd.DataFrame) -> pd.Series:
    """Return the PSNR gain over the best classical method of the site."""
    parts = [gain(group, best(group, "psnr")) for _, group in scores.groupby("place") if UNET in set(group["method"])]
    return pd.concat(parts) if parts else pd.Series(dtype=float)


def interval(gains: pd.Series) -> tuple[float, float]:
    """Return the paired bootstrap 95 % interval of a mean.

    Grounds are drawn first, each with all its series; then frames within each series, each with all its seeds.

    Parameters
    ----------
    gains : Series
        Per case, indexed as `by_case` does.
    """
    if gains.empty:
        return float("nan"), float("nan")
    rng = np.random.default_rng(0)
    grounds = [group for _, group in gains.groupby(level="ground")]
    slots = len(grounds)
    total, count = np.zeros((2, slots, DRAWS, slots))
    for i, ground in enumerate(grounds):
        for _, place in ground.groupby(level="place"):
            frames = place.groupby(level="frame")
            sums, sizes = frames.sum().to_numpy(), frames.size().to_numpy()
            drawn = rng.integers(len(sums), size=(DRAWS, slots, len(sums)))
            total[i] += sums[drawn].sum(axis=2)
            count[i] += sizes[drawn].sum(axis=2)
    chosen = rng.integers(slots, size=(1, DRAWS, slots))
    sums, sizes = (np.take_along_axis(part, chosen, axis=0)[0].sum(axis=1) for part in (total, count))
    low, high = np.percentile(sums / sizes, [2.5, 97.5])
    return float(low), float(high)


def ratio(scores: pd.DataFrame, metric: str, reference: str, ours: str = UNET) -> float:
    """Return the ratio of mean errors over the cases measured for both."""
    errors = by_case(scores, metric)
    if ours not in errors or reference not in errors:
        return float("nan")
    both = errors[[ours, reference]].dropna()
    return float(both[ours].mean() / both[reference].mean()) if len(both) else float("nan")


def best(scores: pd.DataFrame, metric: str) -> str:
    """Return the classical method with the least error, or the greatest PSNR, on the same cases."""
    errors = by_case(scores, metric)
    if UNET in errors:
        errors = errors[errors[UNET].notna()]
    means = errors[[name for name in CLASSICAL if name in errors]].mean()
    return str(means.idxmax() if metric == "psnr" else means.idxmin())


def stratum(gap: float) -> str:
    """Return the name of the stratum of a gap length."""
    if not np.isfinite(gap):
        return "one-sided"
    for low, high in zip((0.0, *GAPS), GAPS, strict=False):
        if gap <= high:
            return f"{low:.0f} to {high:.0f} days" if low else f"up to {high:.0f} days"
    return f"over {GAPS[-1]:.0f} days"


def strata(scores: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield track, name and rows of each non-empty stratum: gap lengths, then hidden shares."""
    gaps = scores["gap"].map(stratum)
    for track in TRACKS:
        of_track = (scores["track"] == track) & (scores["bands"] == ALL)
        for name in (stratum(gap) for gap in (*GAPS, 1e3, np.inf)):
            if (chosen := of_track & (gaps == name)).any():
                yield track, name, scores[chosen]
        for low, high in zip((0.0, *SHARES), SHARES, strict=False):
            chosen = of_track & (scores["hidden"] > low) & (scores["hidden"] <= high)
            if track != "full" and chosen.any():
                yield track, f"{low:.0%} to {high:.0%} hidden", scores[chosen]


@dataclass(frozen=True)
class Goal:
    """A goal and its result.

    Parameters
    ----------
    aim, found : str
        In words.
    reached : bool or None
        None if it was not measured.
    """

    aim: str
    found: str
    reached: bool | None

    def __str__(self) -> str:
        verdict = {True: "Reached", False: "Not reached", None: "Not measured"}[self.reached]
        return f"- **{verdict}**: {self.aim}. {self.found}".rstrip()


def goals(scores: pd.DataFrame) -> list[Goal]:
    """Return the goals of the project with their results."""
    found = []
    for track, least, name, reference in (
        ("partial", 2.0, "plain `regress`", PLAIN),
        ("gap", 2.0, "plain `regress`", PLAIN),
        ("partial", 0.5, "the library's best classical method at each place", None),
        ("gap", 0.5, "the library's best classical method at each place", None),
        ("full", 1.0, "`linear`", REFERENCE),
        ("haze", 3.0, "`linear`", REFERENCE),
    ):
        chosen = pick(scores, track)
        gains = gain_over_best(chosen) if reference is None else gain(chosen, reference)
        found.append(_least_gain(f"on *{track}*, at least +{least:g} dB over {name}", least, gains))
    found += [_every_place(scores, FITTED), _every_place(scores, None)]
    return [*found, _every_stratum(scores), _pooled(scores), _each_place(scores)]


def _least_gain(aim: str, least: float, gains: pd.Series) -> Goal:
    if gains.empty:
        return Goal(aim, "", None)
    low, high = interval(gains)
    short = least - gains.mean()
    text = f"{gains.mean():+.2f} dB ({low:+.2f} … {high:+.2f})"
    if short > 0:
        return Goal(aim, f"{text}: {short:.2f} dB short.", False)
    below = " The interval starts below the goal." if low < least else ""
    return Goal(aim, f"{text}.{below}", True)


def _places(scores: pd.DataFrame) -> Iterator[tuple[str, str, pd.DataFrame]]:
    """Yield track, site and rows wherever the method was measured."""
    ours = pick(scores[scores["method"] == UNET])
    for track in TRACKS:
        for place in sorted(set(ours.loc[ours["track"] == track, "place"])):
            yield track, place, pick(scores, track, place)


def _every_place(scores: pd.DataFrame, reference: str | None) -> Goal:
    """Compare with a method, or with the best one of each site."""
    name = f"`{reference}`" if reference else "the best classical method at that place on that track"
    worse, alike, number = [], [], 0
    for track, place, chosen in _places(scores):
        for metric in ("mae", "rmse"):
            number += 1
            other = reference or best(chosen, metric)
            more = ratio(chosen, metric, other) - 1
            where, against = f"*{track}*, {place}", "" if reference else f" against `{other}`"
            if more > ALIKE:
                worse.append(f"{where} ({metric.upper()} {more:+.1%}{against})")
            elif more >= -ALIKE:
                alike.append(f"{where} ({metric.upper()}{against})")
    return _all_but(f"less MAE and less RMSE than {name}, at every place and on every track", number, worse, alike)


def _every_stratum(scores: pd.DataFrame) -> Goal:
    aim = f"within {100 * LEEWAY:g} % of `linear` in MAE and RMSE in every stratum"
    worse, number = [], 0
    for track, name, chosen in strata(scores):
        for metric in ("mae", "rmse"):
            more = ratio(chosen, metric, REFERENCE) - 1
            number += bool(np.isfinite(more))
            if more > LEEWAY:
                worse.append(f"*{track}*, {name} ({metric.upper()} {more:+.1%})")
    return _all_but(aim, number, worse)


def _all_but(aim: str, number: int, worse: list[str], alike: Sequence[str] = ()) -> Goal:
    if not number:
        return Goal(aim, "", None)
    text = f"True in {number - len(worse) - len(alike)} of {number} comparisons"
    for what, where in (("larger in", worse), ("equal in", alike)):
        text += f"; {what} {len(where)}: {'; '.join(where)}" if where else ""
    return Goal(aim, f"{text}.", not worse and not alike)


def _pooled(scores: pd.DataFrame) -> Goal:
    aim = f"90 % intervals contain {100 * POOLED[0]:g} to {100 * POOLED[1]:g} % of the true values, over all frames"
    whole = mean(pick(scores), UNET, "cover90%")
    if not np.isfinite(whole):
        return Goal(aim, "", None)
    tracks = ", ".join(f"*{track}* {mean(pick(scores, track), UNET, 'cover90%'):.1%}" for track in TRACKS)
    return Goal(aim, f"{whole:.2%} ({tracks}).", _within(whole, POOLED))


def _each_place(scores: pd.DataFrame) -> Goal:
    aim = f"90 % intervals contain {100 * EACH[0]:g} to {100 * EACH[1]:g} % of the true values at each place"
    places = sorted(set(scores.loc[scores["method"] == UNET, "place"]))
    held = {place: mean(pick(scores, place=place), UNET, "cover90%") for place in places}
    if not held or not np.isfinite(list(held.values())).all():
        return Goal(aim, "", None)
    outside = [f"{place} ({value:.1%})" for place, value in held.items() if not _within(value, EACH)]
    text = f"From {min(held.values()):.1%} to {max(held.values()):.1%}"
    return Goal(aim, f"{text}; outside: {', '.join(outside)}." if outside else f"{text}.", not outside)


def _within(value: float, limits: tuple[float, float]) -> bool:
    return limits[0] <= value <= limits[1]


def losses(scores: pd.DataFrame) -> list[str]:
    """Describe where the method is worse than linear or regress on average."""
    lost = []
    for track, place, chosen in _places(scores):
        for reference in (REFERENCE, FITTED):
            gains = gain(chosen, reference)
            if gains.mean() < -NOTHING:
                lost.append(f"*{track}*, {place}: {gains.mean():+.2f} dB against `{reference}`")
    return lost


def worse(gains: pd.Series) -> NDArray[np.bool_]:
    """Return the frames with a loss."""
    return np.asarray(gains < -NOTHING)
