"""The text of the page around its tables."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd

from benchmarks import unseen
from benchmarks.accuracy import figures, tables
from benchmarks.accuracy.measure import REFERENCE, UNET
from benchmarks.accuracy.sites import SAMPLE
from xr_cloudfree.accuracy.simulate import TRACKS

PAGE = """# Accuracy

All figures on this page, except those of the published networks, come from one run of

```
{command}
```

It took {minutes:.0f} minutes on {cores} cores, excluding training, over {frames} hold-outs.{later}

## What is measured

A frame that is more than 95 % clear, and is not known to contain clouds that its mask missed, is hidden under a
real mask of another date or place. The other dates keep their clouds; other observations of the same day are
left out. Each method predicts the hidden pixels, and the prediction is compared with the observed values. There
are four tracks:

- *partial*: 10 to 80 % of the frame is hidden;
- *gap*: the same, with all dates within 20 days of the target removed;
- *full*: the whole frame is hidden;
- *haze*: as *partial*, but the cloud extends three pixels beyond its mask (with opacities of 0.5, 0.3 and 0.18),
  and two to four small thin clouds are missing from the mask. Hidden pixels are scored, as in the other tracks.

Reflectance ranges from 0 to 1. PSNR uses a peak of 1; all figures are means over frames. SAM is the angle between
spectra. SSIM is computed on the filled image, over the hidden pixels, once with the data range of each band from
its 1st to its 99th percentile, and once with a range of 1. Pixels that a method leaves as nodata are filled with
`linear` before scoring; the column *unknown* gives their share. *plain regress* is a single least-squares fit over
the scene, the usual form.

## Goals and results

`unet`, at places that were not in its training:

{goals}

## How the learned model was evaluated

A network must not be evaluated at places that it was trained on. For each area there is therefore a network that
was trained without it and is evaluated there; series of the same area are held out together. The sample cube was
not used in any training.

{weights}
Each seed of the masks is paired with the same seed of training if that was trained, else with seed 0; the table
says which, with the first digits of the weights' hash. Where hashes are equal, several areas were held out together.
{missing}

Training runs for the number of steps in the recipe, and the last weights are evaluated: no checkpoint is
selected. {scaled}

The masks of the tests are not those of training. Training hides a place under its own clouds and under random
shapes; tests hide the held-out place under its own clouds and those of a series that is used for nothing else. A
tile is the whole frame, passed to the network as `fill` does. `auto` is scored as the model that its rule chooses,
with the weights that were trained without the place.

## Place by place

PSNR in dB. *Over* is the gain of `unet`, with a paired bootstrap interval: areas are drawn first, each with all its
series, then frames, each with all its seeds. *Worst frame* is the smallest gain over `linear` in a single frame;
*lost* counts the frames where `unet` is worse.

{summary}
On *full* the target has no clear pixel to learn from. There `regress` and `unet` stack several temporal interpolators,
weighted by their leave-one-date-out error, and `unet` corrects the sum.

Errors of `unet` divided by those of other methods; less than 1 is better. *Best classical* is the classical method of
the library, named in brackets, that is best at that place on that track.

{ratios}
## Where unet loses

Mean over the frames of a place, PSNR in dB:

{losses}

## By gap length and hidden share

The gap length is the number of days between the clear observations around the target, the median over the hidden
pixels. *MAE* and *RMSE* are those of `unet` relative to those of `linear`.

{strata}
## Transfer between sensors

Two networks: one trained on Landsat only, evaluated at the places of Sentinel-2 (its 200 samples, instead of 1000,
come from one series, and its intervals are not scaled); and one trained on Sentinel-2 only, evaluated on Landsat,
which is the network of that fold. *unet of the fold* is the network above, on the same frames.

{transfer}
## All methods

Means over all places. Times are for one frame of the size of the series (50 to 250 pixels square), on one thread.

{methods}
## The published networks

The paper's network, trained with its perceptual loss (FEAT) and with the mean squared error (MSE), on all places
except the held-out one. It takes a fixed set of bands and is evaluated on these, at places that have them. `linear`
and `regress` receive the same bands; `unet` receives all bands of the place and is evaluated on the same ones. All
places have only two bands in common.

{published}
## TerraMind

`terramind` starts from the `unet` of its fold and corrects it with an encoder of TerraMind's architecture. The weights
in the package were trained from a random start, because the weights of IBM and ESA were not available where it was
trained: these figures say nothing about them. *Same decoder without the encoder* and *frozen random encoder* show the
contribution of the encoder itself. The first network was trained once for each area; the others once, without the
Belgian series, and are evaluated on these and on the sample; all use the first seed of the masks. Intervals of the
first were scaled as those of `unet`, those of the others on the Belgian series: for these, only the sample is
independent of the scaling.

{terramind}
With an internet connection, this trains the pretrained encoder on the same folds and adds its rows to the table:

```
python -m benchmarks.accuracy --data DIR --also terramind-base
```

## Ablation

PSNR in dB, means over up to three frames of each series (23 per track, seed 0), with the networks of the folds and the
one in the package. The mask is applied before the network: values that are not clear never reach it. Variants that
needed a new training are compared on their own frames, which are stated.

{ablation}
## Uncertainty

Share of true values inside the intervals, mean over frames. Where no pixel of the target is clear, the intervals of
`regress` are derived from how well the dates around the target predict each other.

{coverage}
90 % intervals by place, `regress` / `unet`:

{coverage_by_place}
{by_class}
## Limits of these figures

- There are few places. Two of the series show the same forest at 10 m and 20 m, one consists of monthly composites
  that its producer made cloud-free, and one has seven dates. This is why the intervals over places are wide.
- The constants of `regress` were chosen on these training series, in coarse steps ([Experiments](experiments.md)),
  so other places will show somewhat smaller gains. The constants of the temporal interpolators were chosen on the
  same *full* frames of all eight series that are reported here: for these few numbers the track *full* is not a
  test at unseen places.
- The architecture, losses and recipe of the network were chosen by their results on these same folds: no network was
  trained on its test place, but the choice among networks used it. The sample cube set no other constant of
  `regress`; it was considered when the shrinkage of slopes was chosen.
- The constants of `timegate` (its time scale) and `harmonic` (its ridge), and the growth of the uncertainty of
  `linear` with the gap, were chosen by coarse sweeps over these series and the sample together.
- The truth is what the sensor measured. It includes the haze of its own day, the noise of two sensors and their
  atmospheric correction.
- The haze is simulated, grey and brighter than the ground. Training simulates haze too, of many widths, opacities and
  colours, including shadows; real haze may differ from both. Shadows and wider rims were tried separately for
  `regress` ([Experiments](experiments.md)).
"""

BY_CLASS = """### By distance to the nearest evidence

90 % intervals of the models in the package, in a run of their own (`python -m benchmarks.unseen --data DIR`) at the
series that none of their weights were trained on: the two Belgian ones and the sample. Share of true values inside, and
in brackets the mean width in reflectance; means over frames with at least 30 pixels of the class. Distances are to the
nearest clear pixel of the frame, days to the nearest other date on which the pixel is clear. On your own cube,
`evaluate(by="distance")` and `evaluate(by="days")` return the same.

{table}"""


def scaled(scores: pd.DataFrame) -> str:
    """Return a sentence on how the intervals of the learned models were scaled."""
    judged = figures.pick(scores[scores["method"] == UNET])
    if judged.empty:
        return "No learned model was measured."
    # Whatever the weights in the package were calibrated on, it did not include the sample.
    scaling = judged["scaled"].mask((judged["ground"] == SAMPLE) & (judged["scaled"] != "not"), "apart")
    weights = {label: sorted(set(group)) for label, group in judged["weights"].groupby(scaling)}
    words = {
        "apart": "Intervals are scaled to contain 90 % of the true values, by the errors of networks at places "
        "that they were not trained on, excluding the evaluated place",
        "not": "Intervals are not scaled",
        "unknown": "Intervals are scaled, possibly by the errors of the network at the evaluated place itself, so "
        "their coverage says little",
    }
    if len(weights) == 1:
        return f"{words[next(iter(weights))]}."
    return " ".join(f"{words[label]}: {', '.join(texts)}." for label, texts in weights.items())


def page(scores: pd.DataFrame, run: dict[str, Any], kept: Path) -> str:
    """Return the text of docs/development/accuracy.md.

    Parameters
    ----------
    scores : DataFrame
        Table made by `measure`.
    run : dict
        ``command``, ``minutes``, ``cores`` and ``missing`` of the run; ``later``, commands that added to it.
    kept : Path
        Folder of tables from separate runs, if present: ``ablation.csv``, ``coverage.csv`` and ``published.md``.
    """
    missing = "None is missing."
    if run["missing"]:
        missing = f"These were not trained: {', '.join(run['missing'])}."
    lost = figures.losses(scores)
    nowhere = f"None: at no place and on no track is `{UNET}` worse than `{REFERENCE}` or `regress` in the mean."
    if UNET not in set(scores["method"]):
        nowhere = "Not measured."
    return PAGE.format(
        command=run["command"],
        minutes=max(1.0, run["minutes"]),
        cores=run["cores"],
        frames=len(figures.by_case(figures.pick(scores), "psnr")),
        later="".join(f" Rows of other networks were added by\n\n```\n{text}\n```" for text in run.get("later", [])),
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
        by_class=BY_CLASS.format(table=unseen.coverage_table(kept / "coverage.csv")),
    )
