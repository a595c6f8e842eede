"""Training with terratorch: ``terratorch fit --config …`` with this class as the model.

terratorch expects a torchgeo task, so `FillTask` is `FusionModule` with that base class. Its data module is
`xr_cloudfree_training.data.CubeData`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torchgeo.trainers import BaseTask

from xr_cloudfree_training.card import save_with_card
from xr_cloudfree_training.lit import FusionModule


class FillTask(FusionModule, BaseTask):
    """`FusionModule` for terratorch; writes its bundle to the folder of the run when the training ends.

    It takes the same arguments.
    """

    ignore = ("stages",)

    def configure_models(self) -> None:
        """Do nothing: `__init__` has built the network already."""

    @property
    def model(self) -> Any:
        """The network, under the name by which torchgeo knows it."""
        return self.network

    def on_fit_end(self) -> None:
        """Calibrate and save the final network."""
        trainer: Any = self.trainer
        if not trainer.fast_dev_run:
            save_with_card(self, trainer, Path(trainer.default_root_dir) / "bundle", self.spec.architecture or "mine")
