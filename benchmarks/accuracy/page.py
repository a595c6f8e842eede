"""The page: words around the tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks.accuracy import figures, tables
from benchmarks.accuracy.measure import REFERENCE, UNET
from benchmarks.accuracy.sites import SAMPLE
from xr_cloudfree.accuracy.simulate import TRACKS

PAGE = """# Accuracy

Every figure on this page but those of the published networks comes from one run of

```
{command}
```

It took {minutes:.0f} minutes on {cores} cores, training aside, over {frames} hold-outs.{later}

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

## What was aimed at, and what came of it

`unet`, at places that it has not seen:

{goals}

## How the learned model was judged

A network knows the places that it was trained on. So for each ground there is one that was trained without
it, and is judged there; series of the same ground are held out together. The sample cube took no part in any
training.

{weights}
Each seed of the masks goes with a seed of training where that was trained, else with seed 0; the table tells
which, with the beginning of the weights' hash. Where hashes are equal, several grounds were held out together.
{missing}

Training runs for the recipe's number of steps, and its last weights are judged: there is no choice among
checkpoints. {scaled}

The masks of the tests are not those of training. Training hides a place under its own clouds and under
shapes that are drawn by chance; tests hide the held-out place under its own clouds and those of a series that
serves for nothing else. A tile is the whole frame, given to the network as `fill` gives it. `auto` is scored
as the model that its rule chooses, with the weights that have not seen the place.

## Site by place

PSNR in dB. *Over* is the gain of `unet`, with a paired bootstrap interval: grounds are drawn first, each with
all its series, then frames, each with all its seeds. *Worst frame* is the least gain over `linear` of a
single frame; *lost* counts the frames where `unet` is worse.

{summary}
On *full* the target has no clear pixel to learn from; there `regress` and `unet` weigh several ways to tell a date from
the others by how well they tell the dates that were seen, and `unet` corrects the sum.

Errors of `unet` as shares of those of others; less than 1 is better. *Best classical* is the method of the
library, named in brackets, that is best at that very place and on that track.

{ratios}
## Where unet loses

In the mean over the frames of a place, in dB of PSNR:

{losses}

## By length of the gap and by hidden share

Days between the clear observations around the target, the median over the hidden pixels. *MAE* and *RMSE*
tell how much those of `unet` are above or below those of `linear`.

{strata}
## From one sensor to the other

A network that was trained on Landsat alone, at the places of Sentinel-2: its samples are those of one series,
200 where others have 1000, and its intervals are as it gives them. And one that was trained on Sentinel-2
alone, on Landsat, which is the network of that fold. *unet of the fold* is the one above, on the same frames.

{transfer}
## All methods

Means over all places. The time is for one frame of the size of the series (50 to 250 pixels square), on one
thread.

{methods}
## The published networks

The paper's network, trained with its loss on features of photographs (FEAT) and with the mean squared error
(MSE), on the places other than the held-out one. It takes a fixed set of bands, and is judged on these, where
a place has them. `linear` and `regress` are given the same bands; `unet` is given all of the place, and is
judged on these. The bands that all places share are two.

{published}
## TerraMind

`terramind` starts from the `unet` of its fold and corrects it with what an encoder of TerraMind's architecture sees.
What ships was trained from a random start, because the weights of IBM and ESA could not be had where it was trained:
nothing here speaks of them. *Same decoder without the encoder* and *frozen random encoder* tell what the encoder
itself buys. The first was trained once for each ground; the others once, without the Belgian series,
and are judged on these and on the sample; all on the first seed of the masks. Intervals of the first were
scaled as those of `unet`, those of the others on the Belgian series: only on the sample are these apart from
what they are judged on.

{terramind}
Where there is a network, this trains the pretrained encoder on the same folds, and puts its rows into the table:

```
python -m benchmarks.accuracy --data DIR --also terramind-base
```

## What each part bought

PSNR in dB, means over up to three frames of each series (23 per track, seed 0), with the networks of the folds and the
shipped one. The mask is hard before the network: what is not clear never reaches it. What had to be trained anew is
compared on frames of its own, which are told.

{ablation}
## Uncertainty

Share of the truth inside of the intervals, a mean over frames. Where nothing of the target is clear, those of
`regress` come from how well the dates around the target predict each other.

{coverage}
90 % intervals place by place, `regress` / `unet`:

{coverage_by_place}
## What these figures do not say

- There are few places. Two of the series show the same forest at 10 m and 20 m, one is a series of monthly
  composites that someone else has made cloud-free, and one has seven dates. The intervals over places are
  wide for that reason.
- The constants of `regress` were chosen on these training series, by coarse steps (see {{doc}}`experiments`). Those of
  the ways to tell a date from the others were chosen on the very *full* frames of this page, of all eight series: for
  these few numbers the track *full* is no test on places that were not seen.
  They have seen these places, so other places will show somewhat less. The form of the network, its losses
  and its recipe were chosen by what they reach on these same folds: each network has not seen its place, but
  who chose among networks has. The sample cube set no other constant of `regress`; it was looked at when the
  shrinkage of slopes was judged. The constants of `timegate` (its time scale) and `harmonic` (its ridge), and
  the growth of the uncertainty of `linear` with the gap, were chosen by coarse sweeps over these series and
  the sample together.
- Truth is what the sensor measured. It holds the haze of its own day, and the noise of two sensors and their
  atmospheric correction.
- The haze is simulated, grey and brighter than the ground. Training simulates haze too, of many widths,
  opacities and colours, shadows among them; real haze may be like neither. Shadows and wider rims were tried
  apart for `regress` (see {{doc}}`experiments`).
"""


def scaled(scores: pd.DataFrame) -> str:
    """How the learned models' intervals were scaled, in words."""
    judged = figures.pick(scores[scores["method"] == UNET])
    if judged.empty:
        return "No learned model was measured."
    # Whatever the shipped weights were calibrated on, the sample was not among it.
    told = judged["scaled"].mask((judged["ground"] == SAMPLE) & (judged["scaled"] != "not"), "apart")
    how = {label: sorted(set(group)) for label, group in judged["weights"].groupby(told)}
    words = {
        "apart": "Intervals are scaled, so that they hold 90 % of the truth, by what networks were off by at places "
        "that they had not seen, other than the one that is judged",
        "not": "Intervals are as the network gives them",
        "unknown": "Intervals are scaled, and perhaps by what the network was off by at the very place that it is "
        "judged on, so their coverage says little",
    }
    if len(how) == 1:
        return f"{words[next(iter(how))]}."
    return " ".join(f"{words[label]}: {', '.join(texts)}." for label, texts in how.items())


def page(scores: pd.DataFrame, told: dict[str, Any], kept: Path) -> str:
    """The text of docs/accuracy.md.

    Parameters
    ----------
    scores : DataFrame
        As `measure` makes it.
    told : dict
        ``command``, ``minutes``, ``cores`` and ``missing`` of the run, and ``later``, commands that added to it.
    kept : Path
        Folder of tables that take trainings of their own: ``ablation.csv`` and ``published.md``, if they are there.
    """
    missing = "None is missing."
    if told["missing"]:
        missing = f"These were not trained: {', '.join(told['missing'])}."
    lost = figures.losses(scores)
    nowhere = f"Nowhere: at no place and on no track is `{UNET}` worse than `{REFERENCE}` or `regress` in the mean."
    if UNET not in set(scores["method"]):
        nowhere = "Not measured."
    return PAGE.format(
        command=told["command"],
        minutes=max(1.0, told["minutes"]),
        cores=told["cores"],
        frames=len(figures.by_case(figures.pick(scores), "psnr")),
        later="".join(
            f" Rows of other networks were put to it by\n\n```\n{text}\n```" for text in told.get("later", [])
        ),
        goals="\n".join(map(str, figures.goals(scores))),
        weights=tables.weights(scores),
        missing=missing,
        scaled=scaled(scores),
        summary="\n".join(f"### {track}\n\n{tables.summary(scores, track)}" for track in TRACKS),
        ratios=tables.ratios(scores),
        losses="\n".join(f"- {text}" for text in lost) or nowhere,
        strata=tables.strata(scores),
        transfer=tables.transfer(scores),
        methods="\n".join(f"### {track}\n\n{tables.methods(figures.pick(scores, track))}" for track in TRACKS),
        published=tables.published(scores, kept / "published.md"),
        terramind=tables.terramind(scores),
        ablation=tables.ablation(kept / "ablation.csv"),
        coverage=tables.coverage(scores),
        coverage_by_place=tables.coverage_by_place(scores),
    )
