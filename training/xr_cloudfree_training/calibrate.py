"""Conformal calibration: scale a network's uncertainty so that its intervals hold on unseen sites.

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
from xr_cloudfree.models.networks.layers import FITTED
from xr_cloudfree_training.samples import TrainingBatch

LEVEL = 0.9
# Number of quantiles kept per frame, so that all frames have equal weight.
_QUANTILES = 200
# Least number of frames for a factor, and the bounds of a factor.
_LEAST_FRAMES, _LEAST, _MOST = 4, 0.5, 4.0

Ratios = dict[bool, list[NDArray[np.float64]]]


@torch.no_grad()
def ratios(network: nn.Module, batches: Iterable[TrainingBatch]) -> Ratios:
    """Compute absolute errors in units of the half width of the 90 % interval, frame by frame.

    Parameters
    ----------
    network : Module
        A network that predicts uncertainties. An existing calibration of it is applied.
    batches : iterable of TrainingBatch
        Samples of sites on which it was not trained.

    Returns
    -------
    dict
        Quantiles per frame: under True for frames with enough clear pixels to fit a regression, under False for
        the others.
    """
    quantiles: Ratios = {True: [], False: []}
    training = network.training
    network.eval()
    for batch in batches:
        # The factors serve tiles that have no evidence of their own.
        features = {name: part for name, part in batch.given.features.items() if name != "evidence"}
        output = network(replace(batch.given, features=features))
        if output.uncertainty is None or "shared" not in batch.given.features:
            return quantiles
        size = (output.reflectance - batch.truth).abs() / (NORMAL_90 * output.uncertainty)
        for row, where in enumerate(batch.counted > 0):
            if where.sum() > _QUANTILES:
                fitted = bool(batch.given.features["shared"][row, FITTED].max() > 0)
                values = size[row][where].double().cpu().numpy()
                quantiles[fitted].append(np.quantile(values, (np.arange(_QUANTILES) + 0.5) / _QUANTILES))
    network.train(training)
    return quantiles


def factors(groups: Sequence[Ratios]) -> tuple[float, float]:
    """Compute the factors by which uncertainties are multiplied so that 90 % of the truth lies in the 90 % interval.

    Parameters
    ----------
    groups : sequence of dict
        Results of `ratios`, one per site or per network evaluated on its held-out sites; all have equal weight.

    Returns
    -------
    fitted, unfitted : float
        Factors for dates with a regression fitted to their clear pixels, and for the others. 1 where there are too
        few frames.

    Examples
    --------
    >>> twice = [np.linspace(0, 2, 201)] * 4  # nine tenths of the errors are below 1.8 half widths
    >>> factors([{True: twice, False: []}])
    (1.8, 1.0)
    """
    result = []
    for kind in (True, False):
        frames = [group[kind] for group in groups if len(group[kind])]
        if sum(map(len, frames)) < _LEAST_FRAMES:
            result.append(1.0)
            continue
        weight = np.concatenate([np.full(sum(map(len, group)), 1 / sum(map(len, group))) for group in frames])
        values = np.concatenate([np.concatenate(group) for group in frames])
        order = np.argsort(values, kind="stable")
        reached = np.cumsum(weight[order]) / weight.sum()
        result.append(float(np.clip(values[order][np.searchsorted(reached, LEVEL - 1e-9)], _LEAST, _MOST)))
    return round(result[0], 3), round(result[1], 3)


def calibrated(folder: Path, into: Path, pair: tuple[float, float]) -> None:
    """Write a copy of a bundle with another calibration and the same weights.

    Parameters
    ----------
    folder : Path
        The bundle.
    into : Path
        The folder to write; may be `folder` itself.
    pair : tuple of float
        Factors as returned by `factors`.
    """
    spec = bundle.read_spec(folder)
    config = dict(spec.config) | {"calibration": pair}
    files = bundle.contents(folder, spec)
    files[bundle.SPEC] = replace(spec, config=tuple(sorted(config.items()))).to_json().encode()
    bundle.write_files(into, files, spec.name, overwrite=True)
