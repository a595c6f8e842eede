"""Pictures of the training progress: input, prediction and truth side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.loggers import TensorBoardLogger
from numpy.typing import NDArray

from xr_cloudfree_training.samples import TrainingBatch

_ROWS = 4
_COLOURS = ("red", "green", "blue")
_HIDDEN = np.array([0.55, 0.55, 0.6], np.float32)
_GAMMA = 1 / 1.6


class Pictures(Callback):
    """Write a picture after each validation, beside the log and to TensorBoard."""

    def on_validation_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Draw the first samples of the validation data."""
        shown: Any = getattr(pl_module, "shown", None)
        if shown is None or trainer.sanity_checking or not trainer.is_global_zero or trainer.log_dir is None:
            return
        from PIL import Image

        picture = draw(*shown)
        folder = Path(trainer.log_dir) / "pictures"
        folder.mkdir(parents=True, exist_ok=True)
        Image.fromarray((255 * picture).astype(np.uint8)).save(folder / f"step-{trainer.global_step:07d}.png")
        for logger in trainer.loggers:
            if isinstance(logger, TensorBoardLogger):
                logger.experiment.add_image("given, filled, truth", picture, trainer.global_step, dataformats="HWC")


def draw(batch: TrainingBatch, filled: torch.Tensor) -> NDArray[np.float32]:
    """Draw one row per sample: the input (grey where hidden), the prediction, and the truth (grey where not clear).

    Parameters
    ----------
    batch : TrainingBatch
        Samples.
    filled : Tensor, shape (batch, band, y, x)
        The truth, with the prediction at hidden pixels.

    Returns
    -------
    ndarray of float32, shape (y, x, 3)
        In [0, 1].
    """
    return np.concatenate([_row(batch, filled, i) for i in range(min(_ROWS, len(filled)))])


def _row(batch: TrainingBatch, filled: torch.Tensor, i: int) -> NDArray[np.float32]:
    common_names = batch.common_names[i]
    bands = (
        [common_names.index(c) for c in _COLOURS]
        if set(_COLOURS) <= set(common_names)
        else [0, len(common_names) // 2, len(common_names) - 1]
    )
    truth, clear = batch.truth[i, bands].float().cpu().numpy(), batch.clear[i, 0].cpu().numpy() > 0
    low, high = np.percentile(truth[:, clear], (1, 99), axis=1)[..., None, None]

    def shown(image: torch.Tensor, where: torch.Tensor) -> NDArray[np.float32]:
        stretched = (image[i, bands].float().cpu().numpy() - low) / np.maximum(high - low, 1e-3)
        colour = np.moveaxis(np.clip(stretched, 0, 1) ** _GAMMA, 0, -1)
        return np.where(where[i, 0].cpu().numpy()[..., None] > 0, colour, _HIDDEN).astype(np.float32)

    images = (
        shown(batch.given.target, batch.given.target_clear),
        shown(filled, torch.maximum(batch.hidden, batch.clear)),
        shown(batch.truth, batch.clear),
    )
    return np.concatenate(images, axis=1)
