"""Lightning module: network, losses, optimizer, and validation metrics."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal, cast

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint, WeightAveraging
from torch import Tensor, nn
from torchmetrics import MeanAbsoluteError, MeanMetric, MeanSquaredError, Metric

from xr_cloudfree.accuracy import losses
from xr_cloudfree.accuracy.losses import NORMAL_90
from xr_cloudfree.accuracy.simulate import TRACKS
from xr_cloudfree.errors import ModelError, OptionError
from xr_cloudfree.layers import MODEL_LAYERS
from xr_cloudfree.models.bundles import bundle
from xr_cloudfree.models.networks import architectures
from xr_cloudfree.models.networks.batch import Batch, Output
from xr_cloudfree.models.networks.network import Network
from xr_cloudfree.models.pretrained.locations import from_pretrained
from xr_cloudfree.models.protocol import Observations
from xr_cloudfree.models.spec import ModelSpec
from xr_cloudfree_training import stages as staging
from xr_cloudfree_training.calibrate import factors, ratios
from xr_cloudfree_training.pictures import Pictures
from xr_cloudfree_training.samples import TrainingBatch
from xr_cloudfree_training.stages import Plan, Stage

Counted = Literal["hidden", "measured"]
Optimizer = Literal["adam", "adamw"]
Schedule = Literal["constant", "late-linear", "one-cycle"]

# Least span of a band for the SSIM loss, about the noise of a sensor.
_LEAST_SPAN = 1e-3
# One-cycle schedule: share of steps in which it rises, and its first and last rate relative to the peak.
_RISE, _START, _END = 0.1, 1 / 25, 1e-3

Loss = Callable[[Output, Tensor, Tensor, Tensor], Tensor]
LOSSES: dict[str, Loss] = {
    "mse": lambda out, truth, where, span: losses.mse(out.reflectance, truth, where),
    "charbonnier": lambda out, truth, where, span: losses.charbonnier(out.reflectance, truth, where),
    "ssim": lambda out, truth, where, span: losses.ssim(out.reflectance, truth, where, span),
    "spectral-angle": lambda out, truth, where, span: losses.spectral_angle(out.reflectance, truth, where),
    "feat-vgg16": lambda out, truth, where, span: losses.feature(out.reflectance, truth, where, "vgg16"),
    "feat-efficientnet-lite0": lambda out, truth, where, span: losses.feature(
        out.reflectance, truth, where, "efficientnet-lite0"
    ),
    "log-error": lambda out, truth, where, span: losses.log_error(out.reflectance, truth, where),
    "interval": lambda out, truth, where, span: losses.interval(out.reflectance, truth, _sigma(out), where),
    "laplace": lambda out, truth, where, span: losses.laplace_nll(out.reflectance, truth, _sigma(out), where),
    "gaussian": lambda out, truth, where, span: losses.gaussian_nll(out.reflectance, truth, _sigma(out), where),
}


class FusionModule(LightningModule):
    """Lightning module that trains one network.

    Parameters
    ----------
    architecture : str
        Name of the network: see `xr_cloudfree.models.networks.architectures`.
    config : dict
        Arguments of the network's constructor.
    bands : sequence of str, optional
        Common names of the network's bands, in order; sets their number. None for a network that takes any bands.
    loss : dict
        Weight of each loss, by name: ``"mse"``, ``"charbonnier"``, ``"ssim"``, ``"spectral-angle"``, ``"feat-vgg16"``,
        ``"feat-efficientnet-lite0"``, ``"log-error"``, ``"interval"``, ``"laplace"`` and ``"gaussian"``.
    counted : {"hidden", "measured"}
        Pixels of the target that count: hidden ones with a clear truth, or all that are not missing, with the target's
        clouds as a condition.
    base : str, optional
        Model whose weights initialise the base of the network, as accepted by `xr_cloudfree.from_pretrained`, for
        instance ``"unet"``.
    pretrained : bool
        Start the encoder from its published weights.
    optimizer : {"adam", "adamw"}
        Optimizer.
    lr : float
        Peak learning rate.
    stages : sequence of Stage, optional
        Stages of the training in order, with the parts that learn and their rates; the schedule restarts in each. By
        default all of the network but its base learns with the rate `lr`.
    checkpointing : bool
        Gradient checkpointing: recompute the blocks of the encoder in the backward pass, which saves memory and takes
        more time.
    weight_decay : float
        Weight decay of the optimizer.
    schedule : {"constant", "late-linear", "one-cycle"}
        ``"late-linear"``: constant, then linear to 0 over the second half. ``"one-cycle"``: rises over a tenth of the
        steps, then falls along a cosine.
    ema : float, optional
        Decay per step of the exponential moving average of the weights, which is validated and saved; None uses the
        weights themselves.
    spec : dict
        Fields of the saved `ModelSpec`: tile and stride (256 and 224 by default), window_days and others.
    seed : int
        Seed of each step, together with its number.

    Raises
    ------
    ModelError
        If there is no such architecture, or it does not take its config.
    OptionError
        If an option has a value that it cannot take.
    """

    def __init__(
        self,
        architecture: str = "unet-plus",
        config: dict[str, Any] | None = None,
        bands: Sequence[str] | None = None,
        loss: dict[str, float] | None = None,
        counted: Counted = "hidden",
        base: str | None = None,
        pretrained: bool = False,
        optimizer: Optimizer = "adamw",
        lr: float = 1e-3,
        stages: Sequence[Stage] | None = None,
        checkpointing: bool = False,
        weight_decay: float = 1e-2,
        schedule: Schedule = "one-cycle",
        ema: float | None = 0.999,
        spec: dict[str, Any] | None = None,
        seed: int = 0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["stages"])  # a checkpoint holds plain values
        self.weights = loss or {"charbonnier": 1.0}
        for name in self.weights:
            if name not in LOSSES:
                raise OptionError(
                    f"there is no loss {name!r}", f"some of {', '.join(LOSSES)}", "--model.loss '{mse: 1.0}'"
                )
        self.plan = Plan(stages or [Stage(1.0, "full", lr, lr)])
        told = dict(config or {}) | ({} if bands is None else {"bands": len(bands)})
        start = None if base is None else Start.of(base)
        if start is not None:
            told["base"] = start.spec.config
        self.spec = ModelSpec(
            name=architecture,
            summary=f"the network {architecture}",
            units="reflectance",
            tile=256,
            stride=224,
            architecture=architecture,
            config=tuple(sorted((name, _frozen(value)) for name, value in told.items())),
            bands=None if bands is None else tuple(bands),
        )
        try:
            merged = replace(self.spec, **{name: _frozen(value) for name, value in (spec or {}).items()})
        except (TypeError, ValueError) as error:
            raise OptionError(
                f"the fields {spec} do not make a spec: {error}",
                "fields of ModelSpec, such as tile, stride and window_days",
                "--model.spec '{tile: 256, stride: 224}'",
            ) from error
        self.spec = ModelSpec.from_json(merged.to_json())  # which looks at types as well
        try:
            self.network = architectures.build(self.spec)
        except ModelError as error:
            raise type(error)(error.found, error.needed, "--model.architecture and --model.config") from error
        self.began: list[str] = []
        if start is not None:
            start.give(self.network)
            self.began.append(
                f"its base, `{start.spec.name}` (weights {str(start.spec.weights_sha256)[:12]}), as it was"
            )
        if pretrained:
            if published := self.network.start_from_pretrained():
                self.began.append(f"its encoder, {published}")
        if any(stage.encoder == "lora" for stage in self.plan.stages):
            staging.adapt(self.network)
        if checkpointing:
            staging.spare_memory(self.network)
        self.measures: Any = nn.ModuleDict({track: _Measures() for track in ("all", *TRACKS)})
        self.shown: tuple[TrainingBatch, Tensor] | None = None
        self._stage: Stage | None = None

    def on_fit_start(self) -> None:
        """Check that data and network agree on Sentinel-1."""
        told = getattr(getattr(self.trainer, "datamodule", None), "has_s1", None)
        if told is not None and told != self.spec.takes_s1:
            has, takes = ("have", "does not look at it") if told else ("have no", "looks at it")
            raise OptionError(
                f"the data {has} Sentinel-1, and the network {takes}",
                "both or neither",
                "--data.s1 vv,vh with --model.config.s1 true, or neither of them",
            )

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Enter the stage of the step."""
        self.enter(self._at(self.trainer.global_step)[0])

    def enter(self, stage: Stage) -> None:
        """Unfreeze the parts that learn in a stage, and freeze the others."""
        if stage is not self._stage:
            staging.enter(self.network, stage)
            self._stage = stage

    def _at(self, step: int) -> tuple[Stage, int, int]:
        # Asking for the number of steps starts the data loaders, which must not happen before a checkpoint is read.
        return self.plan.at(step, int(self.trainer.estimated_stepping_batches) if step else 10**9)

    def training_step(self, batch: TrainingBatch, batch_idx: int) -> Tensor:
        """Return the loss of a batch."""
        # Seed each step by its number, so that a resumed training is identical to an uninterrupted one.
        torch.manual_seed(self.hparams["seed"] * 1_000_003 + self.trainer.fit_loop.epoch_loop.total_batch_idx)
        if self.hparams["counted"] == "hidden":
            given, where = batch.given, batch.counted
        else:
            given = batch.conditioned()
            where = batch.measured * batch.given.band_valid[:, :, None, None]
        output = self.network(given)
        parts = self._losses(output, batch, where)
        total = torch.stack([self.weights[name] * part for name, part in parts.items()]).sum()
        size = len(batch.truth)
        self.log_dict({f"train/{name}": part.detach() for name, part in parts.items()}, batch_size=size)
        self.log("train/loss", total.detach(), prog_bar=True, batch_size=size)
        groups = self.trainer.optimizers[0].param_groups
        self.log_dict({f"lr/{group['name']}": group["lr"] for group in groups}, batch_size=size)
        return total

    def _losses(self, output: Output, batch: TrainingBatch, where: Tensor) -> dict[str, Tensor]:
        span = _span(batch) if "ssim" in self.weights else torch.ones(())
        with torch.autocast(where.device.type, enabled=False):
            exact = replace(
                output,
                reflectance=output.reflectance.float(),
                uncertainty=None if output.uncertainty is None else output.uncertainty.float(),
            )
            return {name: LOSSES[name](exact, batch.truth, where, span) for name in self.weights}

    def validation_step(self, batch: TrainingBatch, batch_idx: int) -> None:
        """Update the metrics at hidden pixels, over all samples and per track."""
        output: Output = self.network(batch.given)
        image = output.reflectance.float()
        spread = None if output.uncertainty is None else output.uncertainty.float()
        filled = torch.where(batch.counted > 0, image, batch.truth)
        similar = losses.ssim_map(filled, batch.truth, _span(batch))
        for row, track in enumerate(batch.tracks):
            where = batch.counted[row] > 0
            error = (image[row] - batch.truth[row])[where]
            inside = None if spread is None else error.abs() <= NORMAL_90 * spread[row][where]
            for name in ("all", track):
                self.measures[name].update(image[row][where], batch.truth[row][where], similar[row][where], inside)
        if batch_idx == 0:
            self.shown = batch, filled

    def on_validation_epoch_end(self) -> None:
        """Log the metrics."""
        for track, measures in self.measures.items():
            prefix = "val" if track == "all" else f"val-{track}"
            for name, value in measures.compute().items():
                self.log(f"{prefix}/{name}", value, prog_bar=prefix == "val" and name == "psnr")
            measures.reset()

    def configure_optimizers(self) -> Any:
        """Return the optimizer and its learning-rate schedule."""
        kind = {"adam": torch.optim.Adam, "adamw": torch.optim.AdamW}[self.hparams["optimizer"]]
        # With lr=1 the factors of the schedule are the rates themselves.
        groups: list[dict[str, Any]] = [
            {"name": part, "params": members} for part, members in staging.parts(self.network).items()
        ]
        made = kind(groups, lr=1.0, weight_decay=self.hparams["weight_decay"])

        def lr(part: str, step: int) -> float:
            stage, done, steps = self._at(step)
            return stage.rates()[part] * rate(self.hparams["schedule"], done, steps)

        schedule = torch.optim.lr_scheduler.LambdaLR(made, [partial(lr, group["name"]) for group in groups])
        return {"optimizer": made, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def configure_callbacks(self) -> list[Callback]:
        """Return the callbacks: weight averaging, checkpoints and pictures."""
        ema = self.hparams["ema"]
        folder = Path(self.trainer.default_root_dir) / "checkpoints"
        # Only the last epoch's checkpoint is kept, to resume from; it is not chosen by validation.
        keep = ModelCheckpoint(folder, "last", save_on_train_epoch_end=True, enable_version_counter=False)
        # `fast_dev_run` writes no checkpoints.
        return [
            *([Averaging(ema)] if ema else []),
            *([] if getattr(self.trainer, "fast_dev_run", False) else [keep, Pictures()]),
        ]

    def calibrate(self, batches: Iterable[TrainingBatch]) -> tuple[float, float] | None:
        """Calibrate the network's uncertainties on sites that were not trained on.

        Parameters
        ----------
        batches : iterable of TrainingBatch
            Samples of such sites.

        Returns
        -------
        tuple of float or None
            The factors, see `xr_cloudfree_training.calibrate.factors`; None for a network without uncertainties.
        """
        network = self.network
        if network.calibration is None:
            return None
        found = factors([ratios(network, (batch.to(self.device) for batch in batches))])
        first, second = (round(old * new, 3) for old, new in zip(network.calibration, found, strict=True))
        network.calibration = pair = first, second
        config = dict(self.spec.config) | {"calibration": pair}
        self.spec = replace(self.spec, config=tuple(sorted(config.items())))
        return pair

    def save_bundle(self, folder: Path, name: str, card: str) -> ModelSpec:
        """Save the network as a bundle, for ``fill(model="local-dir:…")``.

        Parameters
        ----------
        folder : Path
            The folder to write.
        name : str
            Name of the model.
        card : str
            Model card, in Markdown.

        Returns
        -------
        ModelSpec
            The saved spec.
        """
        was_training = self.network.training
        layers = self._layers()
        self.network.train(was_training)
        spec = replace(self.spec, name=name, layers=layers)
        return bundle.write(folder, spec, staging.plain(self.network), card, overwrite=True)

    @torch.no_grad()
    def _layers(self) -> tuple[str, ...]:
        """Determine the output layers of the network on a small example."""
        count = self.spec.min_bands if self.spec.bands is None else len(self.spec.bands)
        count = max(count, 3) if self.spec.bands is None else count
        values = np.random.default_rng(0).uniform(0.1, 0.3, (4, count, 64, 64)).astype(np.float32)
        clear = np.ones((4, 64, 64), bool)
        clear[1, 16:48] = False
        example = Observations(values, clear, np.array([-5.0, 0.0, 5.0, 10.0]), 1, common_names=self.spec.bands or ())
        tile = self.network.make_input(example)
        given = Batch.of([tile]).to(self.device)
        output: Output = self.network.eval()(given)
        given_out = {name for name in ("uncertainty", "gate") if getattr(output, name) is not None}
        if "gate" in given_out or tile.source is not None:
            given_out.add("source_time")
        return tuple(name for name in MODEL_LAYERS if name in given_out)


@dataclass(frozen=True)
class Start:
    """Spec and weights of a trained network that initialises another one.

    Parameters
    ----------
    spec : ModelSpec
        Its spec.
    weights : dict of str to Tensor
        Its weights.
    """

    spec: ModelSpec
    weights: dict[str, Tensor]

    @classmethod
    def of(cls, model: str) -> Start:
        """Load a model by its name."""
        learned = from_pretrained(model)
        like = architectures.build(learned.spec).state_dict()
        return cls(learned.spec, bundle.read_weights(learned.source.folder(), learned.spec, like))

    def give(self, network: Network) -> None:
        """Load the weights into the base of a network."""
        base = network.parts().get("base")
        if base is None or type(base) is not architectures.find(self.spec.architecture):
            raise ModelError(
                f"the base {self.spec.name!r} is a {self.spec.architecture!r}",
                f"a model whose network is {type(base).__name__}",
                "--model.base unet",
            )
        base.load_state_dict(self.weights)


class Averaging(WeightAveraging):
    """Exponential moving average of the weights, with a shorter memory in the first steps.

    Parameters
    ----------
    decay : float
        Decay per step, in [0, 1), reached after many steps.
    """

    def __init__(self, decay: float) -> None:
        def follow(average: Tensor, current: Tensor, count: Any) -> Tensor:
            return average + (current - average) * (1 - min(decay, (1 + int(count)) / (10 + int(count))))

        super().__init__(avg_fn=follow)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Enter the stage of the step in the averaged network as well."""
        module: Any = pl_module
        average: Any = self._average_model
        average.module.enter(module._at(trainer.global_step)[0])


class _Measures(nn.Module):
    """Metrics at hidden pixels: MAE and RMSE pooled, PSNR, SSIM and coverage as means over frames."""

    def __init__(self) -> None:
        super().__init__()
        self.mae, self.mse = MeanAbsoluteError(), MeanSquaredError()
        self.psnr, self.ssim, self.coverage = MeanMetric(), MeanMetric(), MeanMetric()

    def update(self, image: Tensor, truth: Tensor, similar: Tensor, inside: Tensor | None) -> None:
        """Add the hidden values of a frame, each of shape (value,)."""
        self.mae.update(image, truth)
        self.mse.update(image, truth)
        error = (image - truth).square().mean().clamp(min=1e-12)
        self.psnr.update(-10 * torch.log10(error))
        self.ssim.update(similar.mean())
        if inside is not None:
            self.coverage.update(inside.float().mean())

    def compute(self) -> dict[str, Tensor]:
        """Return the metrics; none before the first frame."""
        if not self.mae.update_called:
            return {}
        found = {
            "mae": self.mae.compute(),
            "rmse": self.mse.compute().sqrt(),
            "psnr": self.psnr.compute(),
            "ssim": self.ssim.compute(),
        }
        return found | ({"coverage90": self.coverage.compute()} if self.coverage.update_called else {})

    def reset(self) -> None:
        """Reset all metrics."""
        for measure in self.children():
            cast(Metric, measure).reset()


def rate(schedule: Schedule, step: int, steps: int) -> float:
    """Return the learning rate at a step relative to the peak.

    Examples
    --------
    >>> [rate("late-linear", step, 8) for step in (0, 4, 6, 8)]
    [1.0, 1.0, 0.5, 0.0]
    >>> [round(rate("one-cycle", step, 100), 3) for step in (0, 5, 10, 55, 100)]
    [0.04, 0.52, 1.0, 0.5, 0.001]
    """
    done = min(step / steps, 1.0)
    if schedule == "late-linear":
        return min(1.0, 2 * (1 - done))
    if schedule == "one-cycle":
        if done < _RISE:
            return _START + (1 - _START) * done / _RISE
        return _END + (1 - _END) * (1 + math.cos(math.pi * (done - _RISE) / (1 - _RISE))) / 2
    return 1.0


def _sigma(output: Output) -> Tensor:
    if output.uncertainty is None:
        raise ModelError(
            "the network does not predict uncertainty",
            "one that does, as this loss needs it",
            "--model.loss '{charbonnier: 1.0}'",
        )
    return output.uncertainty


def _span(batch: TrainingBatch) -> Tensor:
    """Return each band's span from the 1st to the 99th percentile of its clear truth, shape (batch, band, 1, 1)."""
    seen = torch.where(batch.clear > 0, batch.truth, torch.nan).flatten(2)
    low, high = torch.nanquantile(seen, torch.tensor([0.01, 0.99], device=seen.device), dim=2)
    span: Tensor = (high - low).nan_to_num().clamp(min=_LEAST_SPAN)[:, :, None, None]
    return span


def _frozen(value: Any) -> Any:
    return tuple(_frozen(v) for v in value) if isinstance(value, list | tuple) else value
