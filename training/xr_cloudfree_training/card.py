"""The model card of what was trained."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from xr_cloudfree.version import __version__
from xr_cloudfree_training.data import CubeData
from xr_cloudfree_training.lit import FusionModule

_CARD = """---
library_name: xr-cloudfree
tags: [satellite, cloud-removal, image-time-series]
{license}---

# {name}

Network `{architecture}` with {parameters:,} parameters, trained with xr_cloudfree {version}.

```python
import xr_cloudfree

image = xr_cloudfree.fill(cube, date="2021-07-08", model="local-dir:PATH")
```

## Data

- Bands: {bands}{s1}
- Trained on: {train}
- Validated on: {held_out}, which it was not trained on

## Training

- Start: {start}
- Losses: {losses}; {counted} pixels count
- Steps: {step:,} of {batch} samples each
- Validation: {judged}

## Limits

It was validated on the places named above and on no others. Elsewhere, under another sensor or another season, errors
may be larger: `xr_cloudfree.evaluate(cube, ["linear", "regress", "local-dir:PATH"])` tells on a cube of yours.
"""


def model_card(name: str, module: FusionModule, data: CubeData, psnr: float | None, step: int) -> str:
    """A card in Markdown.

    Parameters
    ----------
    name : str
        Name of the model.
    module : FusionModule
        What was trained.
    data : CubeData
        What it was trained on.
    psnr : float or None
        In validation, dB; None if there was none.
    step : int
        Steps that led to it.
    """
    license = module.spec.license
    judged = "none"
    if psnr is not None:
        judged = f"PSNR {psnr:.2f} dB at hidden pixels (peak 1), mean over {data.validation} frames in the four tracks"
    return _CARD.format(
        name=name,
        license=f"license: {license}\n" if license else "",
        architecture=module.spec.architecture,
        parameters=sum(p.numel() for p in module.network.parameters()),
        version=__version__,
        bands=module.spec.bands_text,
        s1=f"\n- Sentinel-1 beside them: {', '.join(p.name for p in data.train if p.s1)}" if data.has_s1 else "",
        train=", ".join(place.name for place in data.train),
        held_out=", ".join(place.name for place in data.held_out),
        start="; ".join([*module.began, f"{'all else' if module.began else 'all'} at random"]),
        losses=", ".join(f"{weight:g} × {loss}" for loss, weight in module.weights.items()),
        counted=module.hparams["counted"],
        step=step,
        batch=data.batch_size,
        judged=judged,
    )


def save_with_card(
    module: FusionModule, trainer: Any, folder: Path, name: str, calibrate: bool = True
) -> tuple[float | None, tuple[float, float] | None]:
    """Save what a training ended with, with its card.

    The schedule leads there. A choice among checkpoints by their validation would make that look better than it is.

    Parameters
    ----------
    module : FusionModule
        What was trained.
    trainer : Trainer
        That trained it, on a `CubeData`.
    folder : Path
        Where to.
    name : str
        Name of the model.
    calibrate : bool
        Scale uncertainties first, so that they hold on what was validated on.

    Returns
    -------
    psnr : float or None
        In validation, dB; None if there was none.
    factors : tuple of float or None
        What uncertainties were scaled by, if they were.
    """
    data: CubeData = trainer.datamodule
    validated = trainer.callback_metrics.get("val/psnr")
    psnr = None if validated is None else float(validated)
    factors = module.calibrate(data.val_dataloader()) if calibrate else None
    module.save_bundle(folder, name, model_card(name, module, data, psnr, trainer.global_step))
    return psnr, factors
