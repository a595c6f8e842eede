"""Short trainings: through the command line with few samples, and by a trainer whose steps are recorded."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

from lightning.pytorch import Callback, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from tests.support import commands

SMALL = ["--data.size", "32", "--data.batch_size", "2", "--data.validation", "4", "--data.workers", "0"]
QUICK = [*SMALL, "--data.samples", "4", "--trainer.max_epochs", "1", "--trainer.log_every_n_steps", "1"]
run = partial(commands.run, "train")


def trainer(folder: Path, *callbacks: Callback, **options: Any) -> Trainer:
    """Return a trainer of three epochs on the CPU, which writes into `folder`."""
    defaults = {"max_epochs": 3, "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    return Trainer(default_root_dir=folder, accelerator="cpu", callbacks=list(callbacks), **{**defaults, **options})


class Recorder(Callback):
    """Record the loss of each step; raise before step `crash`."""

    def __init__(self, crash: int | None = None) -> None:
        self.losses: dict[int, float] = {}
        self.crash = crash

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        if trainer.global_step == self.crash:
            raise RuntimeError("the power is gone")

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        self.losses[trainer.global_step] = float(outputs["loss"])


class EachStep(ModelCheckpoint):
    """Save checkpoints within an epoch."""
