"""Cross-validation folds: networks trained without the sites on which they are evaluated."""

from __future__ import annotations

import shlex
import subprocess
import sysconfig
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from benchmarks.accuracy.sites import SAMPLE, Site
from xr_cloudfree.models.bundles import bundle
from xr_cloudfree.models.pretrained import locations
from xr_cloudfree.models.pretrained.model import PretrainedModel

RECIPE = "unet-plus"
# The sample took no part in any training. The shipped weights are those of this fold, which trained on most.
SHIPPED, LIKE_SHIPPED = "unet", "belgium"
ONE_SENSOR, SENSOR = "landsat-only", "landsat"
# What the model card of a fold says of its intervals.
APART = "Intervals are scaled by what the other folds were off by, each at its own held-out places"


@dataclass(frozen=True)
class Beside:
    """A further network: trained on request, and evaluated where it exists.

    Parameters
    ----------
    folder : str
        Where its folds are, and what `--also` calls it.
    recipe : str
        How it is trained.
    arguments : tuple of str
        What differs from the recipe.
    """

    folder: str
    recipe: str
    arguments: tuple[str, ...] = ()

    @property
    def pathway(self) -> str:
        """Subcommand of `cloudfree train`."""
        return self.recipe.split("-")[0]


# The published networks take a fixed set of bands, and are judged on these.
PUBLISHED = {
    "unet-paper FEAT": Beside("paper-feat", "unet-paper-feat"),
    "unet-paper MSE": Beside("paper-mse", "unet-paper-mse"),
}
# Each starts from the default network of its own fold.
TERRAMIND = {
    "terramind (tiny, from scratch)": Beside("terramind", "terramind-tiny-scratch"),
    "same decoder without the encoder": Beside(
        "terramind-no-encoder", "terramind-tiny-scratch", ("--model.config.encoder=none",)
    ),
    "frozen random encoder": Beside(
        "terramind-frozen", "terramind-tiny-scratch", ("--model.stages=[{share: 1.0, encoder: frozen, lr: 2.0e-3}]",)
    ),
    "terramind (tiny, pretrained)": Beside("terramind-tiny", "terramind-tiny"),
    "terramind (base, pretrained)": Beside("terramind-base", "terramind-base"),
    "terramind (large, pretrained)": Beside("terramind-large", "terramind-large"),
}
BESIDE = PUBLISHED | TERRAMIND


@dataclass(frozen=True)
class Weights:
    """A bundle with its label.

    Parameters
    ----------
    label : str
        What the page calls it.
    source : str
        As `xr_cloudfree.from_pretrained` takes it.
    """

    label: str
    source: str

    @cached_property
    def model(self) -> PretrainedModel:
        """Load the model."""
        return locations.from_pretrained(self.source)

    @property
    def text(self) -> str:
        """Label and the first digits of the weights' hash."""
        return f"{self.label} ({str(self.model.spec.weights_sha256)[:8]})"

    @property
    def scaled(self) -> str:
        """Calibration of the intervals: ``"not"``, ``"apart"`` from the evaluation sites, or ``"unknown"``."""
        if set(dict(self.model.spec.config).get("calibration", (1.0,))) == {1.0}:
            return "not"
        card = self.model.source.folder() / bundle.CARD
        return "apart" if card.is_file() and APART in card.read_text() else "unknown"


def find(folds: Path, label: str, name: str = "bundle") -> Weights | None:
    """Return the bundle of a training, if it exists."""
    folder = folds / label / name
    return Weights(label, f"{locations.LOCAL}{folder}") if (folder / bundle.SPEC).is_file() else None


def for_ground(folds: Path, ground: str, seed: int) -> Weights | None:
    """Return the bundle to evaluate on a ground: of this seed if it exists, else of seed 0."""
    trainings = [find(folds, f"{LIKE_SHIPPED if ground == SAMPLE else ground}/seed-{n}") for n in (seed, 0)]
    if ground == SAMPLE:
        shipped = Weights(f"{SHIPPED}, as shipped", SHIPPED) if SHIPPED in locations.shipped() else None
        trainings.insert(0 if seed == 0 else 1, shipped)
    return next((weights for weights in trainings if weights is not None), None)


def missing(folds: Path, grounds: Iterable[str], seeds: Sequence[int]) -> list[str]:
    """Return labels of trainings without a bundle, those of the first seed first."""
    wanted = [f"{ground}/seed-{seed}" for seed in seeds for ground in grounds]
    return [label for label in wanted if find(folds, label) is None]


def train(folds: Path, places: Sequence[Site], seeds: Sequence[int], also: Sequence[Beside] = ()) -> None:
    """Train missing networks one after the other; interrupted trainings are resumed.

    Parameters
    ----------
    folds : Path
        Folder of all trainings.
    places : sequence of Site
        All series but the sample.
    seeds : sequence of int
        Seeds of training.
    also : sequence of Beside
        Networks to train beside the default one, with the first seed.
    """
    grounds = list(dict.fromkeys(place.ground for place in places))
    for seed in seeds:
        for label in missing(folds, grounds, [seed]):
            if find(folds, label, "trained") is None:
                _run(label, fit(folds, label, places))
        calibrate(folds, places, {ground: f"{ground}/seed-{seed}" for ground in grounds})
    for network in also:
        labels = {ground: f"{network.folder}/{ground}/seed-{seeds[0]}" for ground in grounds}
        for label in labels.values():
            if find(folds, label) is None and find(folds, label, "trained") is None:
                _run(label, fit(folds, label, places, network))
        if network in TERRAMIND.values():
            calibrate(folds, places, labels)


def _run(label: str, command: list[str]) -> None:
    print(f"{label}: {shlex.join(command)}", flush=True)
    subprocess.run(command, check=True)


def fit(folds: Path, label: str, places: Sequence[Site], network: Beside | None = None) -> list[str]:
    """Return the command that trains or resumes one fold, without any data of its evaluation sites."""
    *_, ground, name = label.split("/")
    run = folds / label
    checkpoints = run / "checkpoints"
    if checkpoints.is_dir() and not any(checkpoints.iterdir()):
        checkpoints.rmdir()  # it ended before there was anything to go on from
    held_out = ", ".join(place.name for place in places if place.ground == ground)
    pathway, recipe = ("unet", RECIPE) if network is None else (network.pathway, network.recipe)
    if network in PUBLISHED.values():  # they say nothing of how far off they are
        more = [f"--out={run / 'bundle'}"]
    else:
        more = ["--calibrate=false", f"--out={run / 'trained'}"]
    if network is not None:
        more += network.arguments
    if network in TERRAMIND.values():
        more.append(f"--model.base={locations.LOCAL}{folds / ground / name / 'bundle'}")
    return [
        str(Path(sysconfig.get_path("scripts")) / "cloudfree"),
        *("train", pathway, "fit", "--config", recipe),
        *("--data", *(str(place.path) for place in places)),
        f"--data.holdout=[{held_out}]",
        f"--data.cache={folds / 'samples'}",
        f"--seed_everything={name.removeprefix('seed-')}",
        *more,
        f"--trainer.default_root_dir={run}",
        "--trainer.callbacks+=OnExceptionCheckpoint",
        f"--trainer.callbacks.dirpath={checkpoints}",
        "--trainer.callbacks.filename=last",
        *(["--ckpt_path=last"] if (checkpoints / "last.ckpt").is_file() else []),
    ]


def calibrate(folds: Path, places: Sequence[Site], labels: Mapping[str, str]) -> None:
    """Write calibrated bundles: intervals are scaled by the errors of the *other* folds on their held-out sites.

    `labels` has the training of each ground that is held out.
    """
    from xr_cloudfree_training.calibrate import calibrated, factors

    waiting = [g for g, label in labels.items() if find(folds, label) is None and find(folds, label, "trained")]
    if not waiting:
        return
    there = {g: label for g, label in labels.items() if find(folds, label) or find(folds, label, "trained")}
    found = {ground: _ratios(folds, places, ground, label) for ground, label in there.items()}
    for ground in waiting:
        run = folds / labels[ground]
        pair = factors([ratios for other, ratios in found.items() if other != ground])
        calibrated(run / "trained", run / "bundle", pair)
        card = run / "bundle" / bundle.CARD
        card.write_text(f"{card.read_text()}\n{APART}: by {pair[0]:g} and {pair[1]:g}.\n")


def _ratios(folds: Path, places: Sequence[Site], ground: str, label: str) -> Any:
    """Return errors of a fold on its held-out sites in units of its uncalibrated intervals."""
    import yaml

    from xr_cloudfree_training.calibrate import ratios
    from xr_cloudfree_training.cases import Mixture
    from xr_cloudfree_training.cli import find_recipe
    from xr_cloudfree_training.data import Crop, CubeData

    weights = find(folds, label, "trained") or find(folds, label)
    assert weights is not None
    config = dict(weights.model.spec.config) | {"calibration": (1.0, 1.0)}
    spec = replace(weights.model.spec, config=tuple(sorted(config.items())))
    network, _ = PretrainedModel(weights.model.source, spec)._network()
    how = yaml.safe_load(find_recipe(RECIPE).read_text())["data"]
    how |= {"mixture": Mixture(**how["mixture"]), "crop": Crop(**how["crop"]), "cache": str(folds / "samples")}
    held_out = [place.name for place in places if place.ground == ground]
    how["architecture"] = spec.architecture
    data = CubeData([place.path for place in places], holdout=held_out, workers=0, **how)
    return ratios(network, data.val_dataloader())
