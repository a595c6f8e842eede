"""Per-frame hold-out on real series: writes docs/accuracy.md.

Usable frames of every place are hidden under real masks, filled by each method, and compared::

    python benchmarks/accuracy.py --data DIR --sample FILE

DIR holds the training series as NetCDF, FILE is the sample cube.
"""

from __future__ import annotations

import argparse
import time
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from plain_regress import PlainRegress

from xr_cloudfree.accuracy import metrics
from xr_cloudfree.accuracy.simulate import TRACKS, Case, make_cases, real_masks, target_frames
from xr_cloudfree.cube.observations import Observations, Prediction
from xr_cloudfree.models.protocol import FillModel
from xr_cloudfree.models.registry import create

NAMES = ("nearest", "median", "geomedian", "linear", "harmonic", "timegate", "regress")
REFERENCE, OURS, PLAIN = "linear", "regress", "plain regress"
SAMPLE = Path(__file__).parents[1] / "data" / "s2_portugal.zarr"
# Series of one place and the same dates: what is known of one's frames holds for the other's.
TWINS = {"s2_romania_20m_2015_2019": "s2_romania_10m_2015_2019"}
GAPS = (10.0, 20.0, 40.0, 80.0)
DRAWS = 2000


@dataclass
class Place:
    """A series in memory."""

    name: str
    bands: NDArray[np.float32]
    clear: NDArray[np.bool_]
    time: NDArray[np.datetime64]
    suspect: NDArray[np.bool_] | None


@dataclass
class Score:
    """What one method reached on one case."""

    place: str
    track: str
    gap: float
    hidden: float
    values: dict[str, dict[str, float]] = field(default_factory=dict)


def read(path: Path) -> Place | None:
    """A series, or None if the file holds no reflectance."""
    with xr.open_dataset(path, decode_coords="all") as cube:
        if "reflectance" not in cube:
            return None
        bands = cube["reflectance"].transpose("time", "band", "y", "x").to_numpy().astype(np.float32)
        clear = (cube["cloud_mask"].to_numpy() == 0) & np.isfinite(bands).all(axis=1)
        suspect = cube["suspect"].to_numpy().astype(bool) if "suspect" in cube else None
        return Place(path.stem, bands, clear, cube["time"].to_numpy(), suspect)


def places(data: Path, sample: Path) -> tuple[list[Place], list[NDArray[np.bool_]]]:
    """All series with at least two frames that can be truth, and the masks of those without reflectance."""
    found: dict[str, Place] = {}
    shapes: list[NDArray[np.bool_]] = []
    for path in [*sorted(data.glob("*.nc")), sample]:
        place = read(path)
        if place is not None:
            found[place.name] = place
            continue
        with xr.open_dataset(path) as cube:
            shapes += real_masks(cube["cloud_mask"].to_numpy() == 0)
    for name, twin in TWINS.items():
        if name in found and twin in found:
            found[name] = replace(found[name], suspect=found[twin].suspect)
    return [p for p in found.values() if len(target_frames(p.clear, p.suspect)) > 1], shapes


def answer(model: FillModel, case: Case) -> Prediction:
    """A model's answer, with the window of dates that it asks for."""
    window = model.spec.window_days
    near = np.ones(len(case.day_offset), bool) if window is None else np.abs(case.day_offset) <= window
    clear = case.clear[near]
    target = int(near[: case.target].sum())
    if model.spec.units == "storage":
        # The pixelwise models would take the target's own clear pixels for the answer; they are not scored.
        clear = clear.copy()
        clear[target] = False
    bands = np.ascontiguousarray(case.bands[near])
    return model.predict([Observations(bands, clear, case.day_offset[near], target)])[0]


def judge(case: Case, prediction: Prediction, linear: Prediction) -> dict[str, float]:
    """All metrics of one answer; what a model does not know is linear's, and its share is told."""
    where = case.scored
    known = prediction.known & np.isfinite(prediction.bands).all(axis=0)
    image = np.where(known, prediction.bands, linear.bands)
    whole = np.isfinite(case.truth).all(axis=0)
    filled, truth = np.where(where, image, case.truth), np.where(whole, case.truth, 0)
    values = {
        "mae": metrics.mae(image, truth, where),
        "rmse": metrics.rmse(image, truth, where),
        "psnr": metrics.psnr(image, truth, where),
        "sam": metrics.sam(image, truth, where),
        "ssim": metrics.ssim(np.where(whole, filled, 0), truth, where, metrics.data_range(truth, whole)),
        "ssim1": metrics.ssim(np.where(whole, filled, 0), truth, where),
        "unknown": float((~known)[where].mean()),
    }
    if prediction.uncertainty is not None and np.isfinite(prediction.uncertainty[:, where]).all():
        for level in (0.5, 0.8, 0.9, 0.95):
            covered, width = metrics.interval_coverage(image, truth, prediction.uncertainty, where, level)
            values[f"cover{level:.0%}"] = covered
            if level == 0.9:
                values["width"] = width
        values["crps"] = metrics.crps(image, truth, prediction.uncertainty, where)
    return values


def measure(found: list[Place], shapes: list[NDArray[np.bool_]], limit: int, seeds: Iterable[int]) -> Iterator[Score]:
    """Every method on every case."""
    models: dict[str, FillModel] = {name: create(name) for name in NAMES}
    models[PLAIN] = PlainRegress()
    for place in found:
        masks = [*real_masks(place.clear), *shapes]
        for track in TRACKS:
            for seed in seeds:
                cases = make_cases(
                    place.bands,
                    place.clear,
                    place.time,
                    track,
                    masks=masks,
                    suspect=place.suspect,
                    limit=limit,
                    seed=seed,
                )
                for case in cases:
                    hidden = float((~case.clear[case.target]).mean())
                    score = Score(place.name, track, case.gap_days, hidden)
                    linear = answer(models[REFERENCE], case)
                    for name, model in models.items():
                        start = time.perf_counter()
                        prediction = answer(model, case)
                        seconds = time.perf_counter() - start
                        score.values[name] = judge(case, prediction, linear) | {"seconds": seconds}
                    yield score


def mean(scores: list[Score], name: str, metric: str) -> float:
    """Mean over frames; NaN where no frame has it."""
    values = [s.values[name][metric] for s in scores if metric in s.values[name]]
    return float(np.mean(values)) if values else float("nan")


def gains(scores: list[Score]) -> NDArray[np.float64]:
    """PSNR of ours less the reference's, per frame."""
    return np.array([s.values[OURS]["psnr"] - s.values[REFERENCE]["psnr"] for s in scores])


def interval(scores: list[Score]) -> tuple[float, float]:
    """Paired bootstrap 95 % interval of the mean gain: places are drawn first, then frames within them."""
    rng = np.random.default_rng(0)
    by_place: dict[str, list[Score]] = defaultdict(list)
    for score in scores:
        by_place[score.place].append(score)
    groups = [gains(group) for group in by_place.values()]
    drawn = []
    for _ in range(DRAWS):
        chosen = rng.integers(len(groups), size=len(groups))
        drawn.append(np.concatenate([rng.choice(groups[i], len(groups[i])) for i in chosen]).mean())
    low, high = np.percentile(drawn, [2.5, 97.5])
    return float(low), float(high)


def stratum(gap: float) -> str:
    """Name of the gap's length."""
    if not np.isfinite(gap):
        return "one-sided"
    for low, high in zip((0.0, *GAPS), GAPS, strict=False):
        if gap <= high:
            return f"{low:.0f} to {high:.0f} days" if low else f"up to {high:.0f} days"
    return f"over {GAPS[-1]:.0f} days"


def table(head: list[str], rows: list[list[str]]) -> str:
    """A table in Markdown."""
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(row) + " |" for row in rows]) + "\n"


def summary(scores: list[Score]) -> str:
    """Gain of ours per place and track."""
    names = sorted({s.place for s in scores})
    rows = []
    for track in TRACKS:
        for name in [*names, None]:
            chosen = [s for s in scores if s.track == track and name in (None, s.place)]
            gain, (low, high) = gains(chosen), interval(chosen)
            cells = [f"{mean(chosen, m, 'psnr'):.2f}" for m in (REFERENCE, PLAIN, OURS)]
            difference = f"{gain.mean():+.2f} ({low:+.2f} … {high:+.2f})"
            lost = f"{int((gain < -0.005).sum())} of {len(gain)}"
            rows.append([track, name or "**all**", *cells, difference, f"{gain.min():+.2f}", lost])
    head = [
        "track",
        "place",
        "linear",
        "plain regress",
        "regress",
        "gain (95 %)",
        "worst frame",
        "frames lost",
    ]
    return table(head, rows)


def methods(scores: list[Score], track: str) -> str:
    """All methods and metrics of one track, over all places."""
    chosen = [s for s in scores if s.track == track]
    rows = []
    for name in (*NAMES, PLAIN):
        v = {m: mean(chosen, name, m) for m in ("mae", "rmse", "psnr", "sam", "ssim", "ssim1", "unknown", "seconds")}
        row = [name, f"{v['mae']:.4f}", f"{v['rmse']:.4f}", f"{v['psnr']:.2f}", f"{v['sam']:.2f}"]
        rows.append([*row, f"{v['ssim']:.3f}", f"{v['ssim1']:.3f}", f"{v['unknown']:.1%}", f"{v['seconds']:.3f}"])
    return table(["method", "MAE", "RMSE", "PSNR", "SAM (°)", "SSIM", "SSIM, range 1", "unknown", "seconds"], rows)


def strata(scores: list[Score]) -> str:
    """Gain of ours by the length of the gap and by the hidden share."""
    rows = []
    order = [stratum(gap) for gap in (*GAPS, 1e3, np.inf)]
    for track in TRACKS:
        for name in order:
            chosen = [s for s in scores if s.track == track and stratum(s.gap) == name]
            if chosen:
                gain = gains(chosen)
                rows.append(
                    [
                        track,
                        name,
                        str(len(gain)),
                        f"{mean(chosen, REFERENCE, 'psnr'):.2f}",
                        f"{gain.mean():+.2f}",
                    ]
                )
    for track in [t for t in TRACKS if t != "full"]:
        for low, high in ((0.0, 0.3), (0.3, 0.6), (0.6, 1.0)):
            chosen = [s for s in scores if s.track == track and low < s.hidden <= high]
            if chosen:
                gain, share = gains(chosen), f"{low:.0%} to {high:.0%} hidden"
                rows.append(
                    [
                        track,
                        share,
                        str(len(gain)),
                        f"{mean(chosen, REFERENCE, 'psnr'):.2f}",
                        f"{gain.mean():+.2f}",
                    ]
                )
    return table(["track", "stratum", "frames", "linear", "gain of regress"], rows)


def coverage(scores: list[Score]) -> str:
    """Coverage of ours' intervals."""
    rows = []
    for track in TRACKS:
        chosen = [s for s in scores if s.track == track]
        levels = [f"{mean(chosen, OURS, f'cover{level}'):.1%}" for level in ("50%", "80%", "90%", "95%")]
        rows.append([track, *levels, f"{mean(chosen, OURS, 'width'):.3f}", f"{mean(chosen, OURS, 'crps'):.4f}"])
    return table(["track", "50 %", "80 %", "90 %", "95 %", "mean width of 90 %", "CRPS"], rows)


def losses(scores: list[Score]) -> str:
    """Where ours is worse than the reference, in words."""
    lost = []
    for track in TRACKS:
        for kind, key in (("place", lambda s: s.place), ("stratum", lambda s: stratum(s.gap))):
            for name in sorted({key(s) for s in scores}):
                chosen = [s for s in scores if s.track == track and key(s) == name]
                if chosen and (loss := gains(chosen).mean()) < -0.005:
                    lost.append(f"- {track}, {kind} {name}: {loss:+.2f} dB")
    return "\n".join(lost) + "\n" if lost else "None: no place and no stratum of any track is lost in the mean.\n"


PAGE = """# Accuracy

Every figure on this page comes from one run of

```
{command}
```

It took {minutes:.0f} minutes on {cores} cores, over {frames} hold-outs.

## What is measured

A frame that is more than 95 % clear, and is not known to hold clouds that its mask missed, is hidden under a
real mask of another date or place. The other dates keep their clouds, and whatever was seen on the same day
is left out. Each method predicts the hidden pixels, and is compared with what was there. There are four
tracks:

- *partial*: 10 to 80 % of the frame is hidden;
- *gap*: the same, with all dates within 20 days of the target removed;
- *full*: the whole frame is hidden;
- *haze*: as *partial*, but the cloud reaches three pixels beyond its mask (with opacities of 0.5, 0.3 and
  0.18), and two to four small thin clouds are not in the mask at all. Hidden pixels are scored, as in the
  others.

Reflectance runs from 0 to 1. PSNR has a peak of 1 and is a mean over frames, as all figures are. SAM is the
angle between spectra. SSIM is taken on the filled image, over the hidden pixels, with each band's span from
the 1st to the 99th percentile, and with a range of 1. What a method does not know is filled with `linear`
before it is scored; the column *unknown* tells how much that is. *plain regress* is one least-squares fit
over the scene, the usual form.

## regress and linear, place by place

PSNR in dB. The interval is a paired bootstrap over places and frames. *Worst frame* is the least gain of a
single frame, and *frames lost* counts those where `regress` is worse.

{summary}
On *full* the target has no clear pixel to learn from; there `regress` is `linear`, number for number.

## Where regress loses to linear

{losses}
## By length of the gap and by hidden share

Days between the clear observations around the target, the median over the hidden pixels. Gains are in dB of
PSNR.

{strata}
## All methods

Means over all places. The time is for one frame of the size of the series (50 to 250 pixels square), on one
core or two.

{methods}
## Uncertainty

Share of the truth inside the intervals that `regress` gives, a mean over frames. On *full* the intervals
come from how well the dates around the target predict each other.

{coverage}
## What these figures do not say

- There are few places. Two of the series show the same forest at 10 m and 20 m, one is a series of monthly
  composites that someone else has made cloud-free, and one has seven dates. The intervals over places are
  wide for that reason.
- The constants of `regress` were chosen on these training series, by coarse steps (see
  {{doc}}`experiments`). They have seen these places, so other places will show somewhat less. The sample cube
  set none of them; it was looked at when the last step, the shrinkage of slopes, was judged. The constants of
  `timegate` (its time scale) and `harmonic` (its ridge), and the growth of the uncertainty of `linear` with the gap,
  were chosen by coarse sweeps over these series and the sample together.
- Truth is what the sensor measured. It holds the haze of its own day, and the noise of two sensors and their
  atmospheric correction.
- The haze is simulated, grey and brighter than the ground. Shadows and wider rims were tried apart (see
  {{doc}}`experiments`).
"""


def page(scores: list[Score], command: str, seconds: float, cores: int) -> str:
    """The text of docs/accuracy.md."""
    return PAGE.format(
        command=command,
        minutes=max(1.0, seconds / 60),
        cores=cores,
        frames=len(scores),
        summary=summary(scores),
        losses=losses(scores),
        strata=strata(scores),
        methods="\n".join(f"### {track}\n\n{methods(scores, track)}" for track in TRACKS),
        coverage=coverage(scores),
    )


def main() -> None:
    """Measure and write."""
    import os

    parser = argparse.ArgumentParser(description="Hold-out on real series; writes a page with all tables.")
    parser.add_argument("--data", type=Path, required=True, help="folder with the training series (NetCDF)")
    parser.add_argument("--sample", type=Path, default=SAMPLE, help="the sample cube (Zarr or NetCDF)")
    parser.add_argument("--frames", type=int, default=5, help="at most so many frames per place, track and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="choices of frames and masks")
    parser.add_argument("--out", type=Path, default=Path(__file__).parents[1] / "docs" / "accuracy.md")
    options = parser.parse_args()
    start = time.perf_counter()
    found, shapes = places(options.data, options.sample)
    scores = []
    for score in measure(found, shapes, options.frames, options.seeds):
        scores.append(score)
        psnr = {name: round(values["psnr"], 2) for name, values in score.values.items()}
        print(score.place, score.track, f"gap {score.gap:.0f}", psnr, flush=True)
    seeds = " ".join(map(str, options.seeds))
    command = f"python benchmarks/accuracy.py --data DIR --frames {options.frames} --seeds {seeds}"
    options.out.write_text(page(scores, command, time.perf_counter() - start, os.cpu_count() or 1))
    print(summary(scores), losses(scores), sep="\n")


if __name__ == "__main__":
    main()
