"""Model cards of trained networks."""

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
- Validated on: {held_out} (not used in training)

## Training

- Start: {start}
- Losses: {losses}; {counted} pixels count
- Steps: {step:,} of {batch} samples each
- Validation: {judged}

## Limits

It was validated on the sites named above only. Errors may be larger at other sites, for other sensors and in other
seasons; `xr_cloudfree.evaluate(cube, ["linear", "regress", "local-dir:PATH"])` measures them on your own cube.
"""


def model_card(name: str, module: FusionModule, data: CubeData, psnr: float | None, step: int) -> str:
    """Return a model card in Markdown.

    Parameters
    ----------
    name : str
        Name of the model.
    module : FusionModule
        The trained network.
    data : CubeData
        Its training data.
    psnr : float or None
        PSNR in validation in dB; None without validation.
    step : int
        Number of training steps.
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
        train=", ".join(site.name for site in data.train),
        held_out=", ".join(site.name for site in data.held_out),
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
    """Save the network at the end of training, with its model card.

    The last weights are saved, because the learning rate has decayed to its minimum there. Choosing the checkpoint of
    the best validation score would bias that score.

    Parameters
    ----------
    module : FusionModule
        The trained network.
    trainer : Trainer
        Its trainer, with a `CubeData`.
    folder : Path
        The folder to write.
    name : str
        Name of the model.
    calibrate : bool
        Whether to calibrate uncertainties on the validation data first.

    Returns
    -------
    psnr : float or None
        PSNR in validation in dB; None without validation.
    factors : tuple of float or None
        Calibration factors of the uncertainties, if they were calibrated.
    """
    data: CubeData = trainer.datamodule
    validated = trainer.callback_metrics.get("val/psnr")
    psnr = None if validated is None else float(validated)
    factors = module.calibrate(data.val_dataloader()) if calibrate else None
    module.save_bundle(folder, name, model_card(name, module, data, psnr, trainer.global_step))
    return psnr, factors
