"""Lightning's command line for the networks of this package."""

from __future__ import annotations

import logging
import re
import sys
import warnings
from pathlib import Path
from typing import Any, cast

import torch
import typer
from jsonargparse import ArgumentError
from lightning.pytorch import Trainer
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from xr_cloudfree.errors import OptionError
from xr_cloudfree_training.card import save_with_card
from xr_cloudfree_training.data import CubeData
from xr_cloudfree_training.lit import FusionModule


class TrainingCLI(LightningCLI):
    """Subcommands ``fit`` and ``validate``, with checks before training and a bundle saved after it."""

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Add options, and link those that data and model share."""
        parser.add_argument("--out", type=str | None, default=None, help="Folder for the model: RUN/bundle by default.")
        parser.add_argument(
            "--calibrate",
            type=bool,
            default=True,
            help="Calibrate uncertainties on the validation data.",
        )
        parser.link_arguments("model.architecture", "data.architecture")
        parser.link_arguments("seed_everything", "data.seed")
        parser.link_arguments("seed_everything", "model.seed")
        # The data are read first, so that their errors are raised before a network is built.
        parser.link_arguments("data", "model.bands", compute_fn=lambda data: data.bands, apply_on="instantiate")

    @staticmethod
    def subcommands() -> dict[str, set[str]]:
        """Return the supported subcommands and the arguments that they take from Lightning."""
        return {
            "fit": {"model", "train_dataloaders", "val_dataloaders", "datamodule"},
            "validate": {"model", "dataloaders", "datamodule"},
        }

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse the arguments; raise errors as `OptionError`."""
        try:
            self.config = parser.parse_args(args)
        except ArgumentError as error:
            raise OptionError(
                re.sub(r"\s+", " ", str(error)).strip().rstrip("."),
                "known options, and a recipe with known keys",
                f"{sys.argv[0]} fit --help, or cloudfree train recipes NAME",
            ) from error

    def _parse_ckpt_path(self) -> None:
        """Take no settings from the checkpoint: it holds weights and the training state, the recipe all settings."""

    def instantiate_trainer(self, **kwargs: Any) -> Trainer:
        """Return the trainer: loggers write to the folder of the run; the default precision on a GPU is bf16."""
        options = self._get(self.config_init, "trainer")
        folder = Path(options.default_root_dir or "runs/mine")
        checkpoints = folder / "checkpoints"
        requested = self._get(self.config_init, "ckpt_path")
        checkpoint = checkpoints / "last.ckpt" if requested == "last" else requested and Path(requested)
        if checkpoint and not checkpoint.is_file():
            existing = ", ".join(str(path) for path in sorted(checkpoints.glob("*.ckpt")))
            raise OptionError(f"there is no checkpoint {checkpoint}", existing or "a checkpoint", "--ckpt_path last")
        if self.subcommand == "fit" and not checkpoint and not options.fast_dev_run and checkpoints.exists():
            raise OptionError(
                f"{folder} holds a training already",
                "a separate folder for each training, or a checkpoint to resume from",
                "--ckpt_path last to resume, or --trainer.default_root_dir runs/another",
            )
        self.config_init[self.subcommand].ckpt_path = checkpoint and str(checkpoint)
        defaults: dict[str, Any] = {"default_root_dir": str(folder)}
        if options.logger in (None, True) and not options.fast_dev_run:
            board = TensorBoardLogger(folder, "log")
            # CSVLogger comes first, because it requires an empty folder.
            defaults["logger"] = [CSVLogger(folder, "log", f"version_{board.version}"), board]
        if options.precision is None:
            bf16 = options.accelerator != "cpu" and torch.cuda.is_available() and torch.cuda.is_bf16_supported()
            defaults["precision"] = "bf16-mixed" if bf16 else "32-true"
        return super().instantiate_trainer(**defaults, **kwargs)

    def after_fit(self) -> None:
        """Save the trained network as a bundle."""
        if cast(Any, self.trainer).fast_dev_run:
            typer.echo("fast_dev_run: nothing is saved.")
            return
        name = _recipe_name(self._get(self.config, "config"))
        folder = Path(self._get(self.config, "out") or Path(self.trainer.default_root_dir) / "bundle")
        calibrate = self._get(self.config, "calibrate")
        psnr, factors = save_with_card(self.model, self.trainer, folder, name, calibrate)
        held_out = ", ".join(site.name for site in self.datamodule.held_out)
        score = "not validated: no epoch was completed" if psnr is None else f"{psnr:.2f} dB on {held_out}"
        scaled = "" if factors is None else f"; uncertainties scaled by {factors[0]:g} and {factors[1]:g}"
        typer.echo(
            f"Saved the weights (step {self.trainer.global_step}, {score}{scaled}) into {folder}\n"
            f"Fill with them:  cloudfree fill CUBE --date DATE --out OUT.tif --model local-dir:{folder}"
        )


def run(arguments: list[str], pathway: str = "unet") -> None:
    """Train a network.

    Parameters
    ----------
    arguments : list of str
        Arguments of Lightning's command line: ``fit``, ``--config=recipe.yaml`` and so on.
    pathway : str
        Name of the command.

    Raises
    ------
    CloudfreeError
        If the recipe, an option or the data cannot be used.
    """
    for name in ("lightning.pytorch", "lightning.fabric"):
        logging.getLogger(name).setLevel(logging.WARNING)
    with warnings.catch_warnings():
        # Caused by the versions of Lightning and torch; users cannot act on it.
        warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
        # Resumed trainings write to the same folder, and machines with few cores have few workers.
        warnings.filterwarnings("ignore", "Checkpoint directory .* exists and is not empty")
        warnings.filterwarnings("ignore", ".*does not have many workers")
        sys.argv[0] = f"cloudfree train {pathway}"  # program name in the help
        TrainingCLI(
            FusionModule,
            CubeData,
            args=arguments,
            seed_everything_default=0,
            save_config_kwargs={"overwrite": True},
            auto_configure_optimizers=False,
            trainer_defaults={"use_distributed_sampler": False},
            parser_kwargs={
                "exit_on_error": False,
                "description": "Train a network, or validate a checkpoint.",
                "allow_abbrev": False,
            },
        )


def _recipe_name(paths: Any) -> str:
    """Return the model's name: the name of the last recipe, restricted to allowed characters."""
    path = str(paths[-1]) if paths else "mine"
    return re.sub(r"[^a-z0-9._-]+", "-", Path(path).stem.lower()).strip("-._")[:64] or "mine"
