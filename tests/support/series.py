"""Random series and time gates. Needs torch."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from torch import nn

from xr_cloudfree.models.networks.batch import Batch
from xr_cloudfree.models.networks.inputs import prepare
from xr_cloudfree.models.networks.learned_gate import TimeGate
from xr_cloudfree.models.protocol import Observations


def observations(seed, dates=5, bands=3, shape=(6, 7)):
    rng = np.random.default_rng(seed)
    clear = rng.random((dates, *shape)) < rng.random(shape)
    values = rng.uniform(0.02, 0.5, (dates, bands, *shape)).astype(np.float32)
    values[~np.broadcast_to(clear[:, None], values.shape)] = np.nan
    return Observations(values, clear, np.sort(rng.uniform(-90, 90, dates)))


def random_batch(seed, tiles=2, **shape):
    return Batch.of([prepare(observations(seed + i, **shape)) for i in range(tiles)])


def random_gate(bands=3, seed=0):
    """A gate that has moved: random weights everywhere, batch norm's averages as well."""
    torch.manual_seed(seed)
    gate = TimeGate(bands, features=4)
    for parameter in gate.parameters():
        nn.init.normal_(parameter, std=0.3)
    for module in gate.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.3)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
    return gate.eval()


def dates_of(batch, chosen):
    """Some dates of a batch."""
    names = ("bands", "clear", "day_offset", "date_valid")
    return replace(batch, **{name: getattr(batch, name)[:, chosen] for name in names})


def close(made, wanted, atol=1e-5):
    assert torch.equal(made.known, wanted.known)
    torch.testing.assert_close(made.image, wanted.image, rtol=1e-5, atol=atol)
    torch.testing.assert_close(made.features, wanted.features, rtol=1e-5, atol=atol)
