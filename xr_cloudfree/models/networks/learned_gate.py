"""The paper's time gate, a part of `unet-paper`: a learned, weighted composite (``model="timegate"`` is classical)."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from xr_cloudfree.errors import ModelError
from xr_cloudfree.models.networks.batch import Batch
from xr_cloudfree.models.networks.layers import normed_conv

DAYS = 30.0
"""Days per unit of temporal distance."""
CONDITION = "condition"
"""Feature map used in training only: which parts of the target image are distorted."""
EPSILON = 1e-6
"""Keeps the sum of the importance from 0; the paper gives no value."""

_STEPS = 32  # steps scored together outside training, which bounds the memory
_CAP = 10.0  # expm1 overflows half precision above 11


@dataclass(frozen=True, eq=False)
class Composite:
    """Output of a time gate.

    Parameters
    ----------
    image : Tensor, shape (batch, band, y, x)
        The weighted sum of the steps, in reflectance.
    features : Tensor, shape (batch, k, y, x)
        Abstract temporal features: the maximum over the steps; 0 where there is no step.
    known : Tensor of bool, shape (batch, 1, y, x)
        Where any step is clear.
    weights : Tensor, shape (batch, time, band, y, x)
        Weight of each step.
    """

    image: Tensor
    features: Tensor
    known: Tensor
    weights: Tensor


class TimeGate(nn.Module):
    """Time extraction, gate and aggregation, in the form of [1]_.

    Parameters
    ----------
    bands : int
        Number of bands; each has gates of its own.
    features : int
        Number k of abstract temporal features; the paper does not state it.

    Notes
    -----
    Per step, with values T, visibility C of cloud and shadow, presence M and signed distance d in units of 30 days::

        X = mish-norm(conv1x1(concat[T, M exp(-max(conv1x1(d), 0)), C]; 32)) + mish-norm(conv1x1(condition; 32))
        g = mish-norm(conv1x1(mish-norm(conv3x3(X; 64)); bands))
        H = exp(max(g, 0)) - 1
        W = H / (sum of H over the steps + epsilon)
        image = sum of W T;  features = max of conv1x1(H; k)

    The decay is that of [2]_. A `Batch` has a single mask, which serves as both channels of C; M is 1 wherever there
    is a value, so it equals C. The condition, used in training only, is the feature map ``"condition"`` of shape
    (batch, 3, y, x): visibility of cloud, visibility of shadow, and presence in the target image to be reproduced.
    Without it, and always at inference, it is all ones, which requests an undistorted image. In training H uses
    ``1 - epsilon`` for 1, so that the image is a mean, not 0, where all gates are closed.

    Padded steps are removed before anything is computed, so they do not enter batch norm's averages.

    References
    ----------
    .. [1] S. Oehmcke, T.-H. K. Chen, A. V. Prishchepov and F. Gieseke, "Creating cloud-free satellite imagery
       from image time series with deep learning", BIGSPATIAL 2020. doi:10.1145/3423336.3429345
    .. [2] Z. Che et al., "Recurrent neural networks for multivariate time series with missing values", Sci. Rep.
       8, 2018. doi:10.1038/s41598-018-24271-9

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.protocol import Observations
    >>> from xr_cloudfree.models.networks.batch import Batch
    >>> from xr_cloudfree.models.networks.inputs import prepare
    >>> from xr_cloudfree.models.networks.learned_gate import TimeGate
    >>> bands = np.array([0.25, 0.5], np.float32).reshape(2, 1, 1, 1)
    >>> obs = Observations(bands, np.ones((2, 1, 1), bool), np.array([-6.0, 2.0]))
    >>> TimeGate(bands=1).eval()(Batch.of([prepare(obs)])).weights.shape
    torch.Size([1, 2, 1, 1, 1])
    """

    def __init__(self, bands: int, features: int = 8) -> None:
        super().__init__()
        self.bands, self.features = bands, features
        self.decay = nn.Conv2d(1, 1, 1)
        self.extract = normed_conv(bands + 3, 32, 1)
        self.condition = normed_conv(3, 32, 1)
        self.gate = nn.Sequential(normed_conv(32, 64, 3), normed_conv(64, bands, 1))
        self.abstract = nn.Conv2d(bands, features, 1)

    def forward(self, batch: Batch) -> Composite:
        """Return the composite of a time series.

        Parameters
        ----------
        batch : Batch
            Series with as many bands as the gate has.

        Raises
        ------
        ModelError
            If the number of bands differs.
        """
        b, t, c, y, x = batch.bands.shape
        if c != self.bands:
            raise ModelError(
                f"the series has {c} bands", f"{self.bands}, for which the gate was made", f"TimeGate(bands={c})"
            )
        valid = batch.date_valid[:, :, None, None, None].expand(b, t, 1, y, x)
        values = torch.where(valid, batch.bands, 0)
        importance = torch.where(valid, self._importance(batch, values), 0)
        weights = importance / (importance.sum(dim=1, keepdim=True) + EPSILON)
        abstract = self.abstract(importance.flatten(0, 1)).unflatten(0, (b, t))
        peak = abstract.masked_fill(~valid, -torch.inf).amax(dim=1)
        features = torch.where(peak.isfinite(), peak, 0)
        return Composite((weights * values).sum(dim=1), features, batch.known(), weights)

    def _importance(self, batch: Batch, values: Tensor) -> Tensor:
        """Return H of each step, shape (batch, time, band, y, x); arbitrary at padded steps."""
        offset = (batch.day_offset / DAYS).to(values.dtype)[:, :, None, None, None]
        row, column = batch.date_valid.nonzero(as_tuple=True)
        seen = batch.clear[row, column]
        decay = torch.exp(-self.decay(offset[row, column]).relu())
        gate = torch.zeros_like(values)
        if len(row):
            inputs = torch.cat([values[row, column], decay * seen, seen, seen], dim=1)
            gate[row, column] = self._gate(inputs, self._condition(batch), row).to(gate.dtype)
        importance = torch.expm1(gate.clamp(0, _CAP))
        return importance + EPSILON if self.training else importance

    def _condition(self, batch: Batch) -> Tensor:
        ones = batch.clear.new_ones(len(batch.clear), 3, *batch.clear.shape[3:])
        condition: Tensor = self.condition(batch.features.get(CONDITION, ones) if self.training else ones)
        return condition

    def _gate(self, inputs: Tensor, condition: Tensor, row: Tensor) -> Tensor:
        """Return the gate g of each step, where `row` is the index of its series.

        Batch norm needs all steps at once in training; otherwise they are computed in parts.
        """
        size = len(inputs) if self.training else _STEPS
        parts = zip(torch.split(inputs, size), torch.split(row, size), strict=True)
        return torch.cat([self.gate(self.extract(part) + condition[rows]) for part, rows in parts])
