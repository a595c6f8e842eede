"""Intervals that hold on places that were not trained on: conformal scaling of a network's uncertainty.

References
----------
Angelopoulos and Bates 2023, Conformal prediction: a gentle introduction, doi 10.1561/2200000101.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from xr_cloudfree.accuracy.losses import NORMAL_90
from xr_cloudfree.models.bundles import bundle
from xr_cloudfree.models.networks.unet import FITTED
from xr_cloudfree_training.samples import TrainingBatch

LEVEL = 0.9
# Of each frame so many quantiles are kept, so that all frames count alike.
_QUANTILES = 200
# A factor needs so many frames, and stays within these bounds.
_LEAST_FRAMES, _LEAST, _MOST = 4, 0.5, 4.0

Ratios = dict[bool, list[NDArray[np.float64]]]


@torch.no_grad()
def ratios(network: nn.Module, lessons: Iterable[TrainingBatch]) -> Ratios:
    """How large errors are in units of the 90 % interval's half width, frame by frame.

    Parameters
    ----------
    network : Module
        A network that gives uncertainties, as it is: a calibration that it has counts.
    lessons : iterable of TrainingBatch
        Samples of places that it was not trained on.

    Returns
    -------
    dict
        Quantiles per frame: under True of frames whose own clear pixels taught something, under False of others.
    """
    found: Ratios = {True: [], False: []}
    training = network.training
    network.eval()
    for lesson in lessons:
        output = network(lesson.given)
        if output.uncertainty is None or "shared" not in lesson.given.features:
            return found
        size = (output.reflectance - lesson.truth).abs() / (NORMAL_90 * output.uncertainty)
        for row, where in enumerate(lesson.counted > 0):
            if where.sum() > _QUANTILES:
                fitted = bool(lesson.given.features["shared"][row, FITTED].max() > 0)
                values = size[row][where].double().cpu().numpy()
                found[fitted].append(np.quantile(values, (np.arange(_QUANTILES) + 0.5) / _QUANTILES))
    network.train(training)
    return found


def factors(found: Sequence[Ratios]) -> tuple[float, float]:
    """What uncertainties have to be multiplied by for 90 % of the truth to lie within the 90 % interval.

    Parameters
    ----------
    found : sequence of dict
        Of some places, or of networks each of which was not trained on its own: they count alike.

    Returns
    -------
    fitted, unfitted : float
        For dates that teach something, and for others. 1 where too few frames tell.

    Examples
    --------
    >>> twice = [np.linspace(0, 2, 201)] * 4  # nine tenths of the errors are below 1.8 half widths
    >>> factors([{True: twice, False: []}])
    (1.8, 1.0)
    """
    told = []
    for kind in (True, False):
        groups = [group[kind] for group in found if len(group[kind])]
        if sum(map(len, groups)) < _LEAST_FRAMES:
            told.append(1.0)
            continue
        weight = np.concatenate([np.full(sum(map(len, group)), 1 / sum(map(len, group))) for group in groups])
        values = np.concatenate([np.concatenate(group) for group in groups])
        order = np.argsort(values, kind="stable")
        reached = np.cumsum(weight[order]) / weight.sum()
        told.append(float(np.clip(values[order][np.searchsorted(reached, LEVEL - 1e-9)], _LEAST, _MOST)))
    return round(told[0], 3), round(told[1], 3)


def calibrated(folder: Path, into: Path, pair: tuple[float, float]) -> None:
    """A bundle with another calibration; the weights are the same.

    Parameters
    ----------
    folder : Path
        The bundle.
    into : Path
        Where to; may be `folder` itself.
    pair : tuple of float
        As `factors` gives it.
    """
    spec = bundle.read_spec(folder)
    config = dict(spec.config) | {"calibration": pair}
    files = bundle.contents(folder, spec)
    files[bundle.SPEC] = replace(spec, config=tuple(sorted(config.items()))).to_json().encode()
    bundle.write_files(into, files, spec.name, overwrite=True)
