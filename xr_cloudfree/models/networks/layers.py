"""Building blocks that networks share: convolutions, upsampling, and bounded outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xr_cloudfree.models.networks.batch import Batch
from xr_cloudfree.models.networks.features import DISTANCE_UNIT, SHARED

# Corrections are bounded by REACH times the scale of a band's errors, uncertainties by a factor of exp(LOG_REACH).
REACH, LOG_REACH = 6.0, 2.5
# Factor on the uncertainty at the pixels of a regression, and power of 1 + the distance to them in pixels by which it
# grows: the intervals of the regression grow too little. Chosen for equal coverage near and far, and the same mean.
AT_FIT, FARTHER = 0.83, 0.08
FITTED, DISTANCE = SHARED.index("fitted"), SHARED.index("distance to trusted")


def normed_conv(inputs: int, outputs: int, size: int) -> nn.Sequential:
    """Return a convolution with zero padding, then Mish and batch norm, as the paper uses throughout.

    Parameters
    ----------
    inputs, outputs : int
        Numbers of channels.
    size : int
        Edge of the kernel; odd.
    """
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, padding=size // 2), nn.Mish(), nn.BatchNorm2d(outputs))


def as_nearest(conv: nn.Conv2d, step: int) -> nn.Conv2d:
    """Initialise a convolution before a pixel shuffle as nearest-neighbour upsampling (ICNR).

    Parameters
    ----------
    conv : Conv2d
        Changed in place: the `step` x `step` channels of a pixel get the weights of the first of them.
    step : int
        Factor of the pixel shuffle.

    Returns
    -------
    Conv2d
        `conv`.
    """
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.copy_(parameter[:: step**2].repeat_interleave(step**2, dim=0))
    return conv


def squash(x: Tensor) -> Tensor:
    """Compress values of any size: linear near 0, logarithmic far from it."""
    return torch.asinh(x)


def reduced(maps: Tensor, step: int) -> Tensor:
    """Return the means over squares of `step` x `step` pixels; those beyond the edge repeat the last row and column.

    Parameters
    ----------
    maps : Tensor, shape (..., y, x)
        Maps.
    step : int
        Edge of a square.

    Examples
    --------
    >>> import torch
    >>> from xr_cloudfree.models.networks.layers import reduced
    >>> reduced(torch.tensor([[[1.0, 3.0, 5.0]]]), 2).tolist()
    [[[2.0, 5.0]]]
    """
    y, x = maps.shape[-2:]
    flat = maps.reshape(-1, 1, y, x)
    if y % step or x % step:
        flat = F.pad(flat, (0, -x % step, 0, -y % step), mode="replicate")
    return F.avg_pool2d(flat, step).reshape(*maps.shape[:-2], -(-y // step), -(-x // step))


def enlarged(maps: Tensor, step: int, size: tuple[int, int]) -> Tensor:
    """Interpolate means over squares of `step` x `step` pixels linearly to pixels: the inverse of `reduced`.

    Parameters
    ----------
    maps : Tensor, shape (..., y / step, x / step)
        Means, see `reduced`.
    step : int
        Edge of a square.
    size : tuple of int
        Rows and columns of the result.
    """
    flat = maps.reshape(1, -1, *maps.shape[-2:])
    wide = F.interpolate(flat, scale_factor=step, mode="bilinear", align_corners=False)
    return wide[0, :, : size[0], : size[1]].reshape(*maps.shape[:-2], *size)


def bound(correction: Tensor) -> Tensor:
    """Bound a correction by `REACH`; small ones hardly change."""
    return REACH * torch.tanh(correction / REACH)


def factor(logarithm: Tensor) -> Tensor:
    """Return the exponential of a logarithm of any size, bounded by the exponential of `LOG_REACH`."""
    return torch.exp(LOG_REACH * torch.tanh(logarithm / LOG_REACH))


def bounded(base: Tensor, correction: Tensor, scale: Tensor) -> Tensor:
    """Add a bounded correction to a base; a correction of 0 changes nothing.

    Parameters
    ----------
    base : Tensor
        Reflectance.
    correction : Tensor
        In units of `scale`, of any size.
    scale : Tensor
        Reflectance; typical error of the base.

    Examples
    --------
    >>> import torch
    >>> from xr_cloudfree.models.networks.layers import bounded
    >>> bounded(torch.tensor(0.25), torch.tensor([0.0, 1e9]), torch.tensor(0.0625)).tolist()
    [0.25, 0.625]
    """
    return base + scale * bound(correction)


def scaled(uncertainty: Tensor, logarithm: Tensor) -> Tensor:
    """Multiply an uncertainty by the exponential of a bounded logarithm; 0 changes nothing.

    Parameters
    ----------
    uncertainty : Tensor
        Reflectance, positive.
    logarithm : Tensor
        Any size.
    """
    return uncertainty * factor(logarithm)


def calibrated(uncertainty: Tensor, fitted: Tensor, factors: tuple[float, float]) -> Tensor:
    """Scale uncertainties by calibration factors, so that they hold at sites outside the training data.

    Parameters
    ----------
    uncertainty : Tensor, shape (batch, band, y, x)
        Reflectance, positive.
    fitted : Tensor of bool, shape (batch, 1, y, x)
        Where a regression was fitted to the target's own pixels.
    factors : pair of float
        Factor there, and elsewhere.
    """
    return uncertainty * torch.where(fitted, *factors).to(uncertainty.dtype)


def in_context(uncertainty: Tensor, batch: Batch) -> Tensor:
    """Scale uncertainties to the size of the errors that each tile left out itself; their pattern stays.

    The geometric mean of the uncertainty over the hidden pixels, relative to the feature ``"uncertainty"``, is replaced
    by the factor of the feature ``"evidence"``, as far as the weight of this evidence goes. Its last number, the
    widening, multiplies the result. Where a regression was fitted to the target's own pixels, the uncertainty then
    grows with the distance to them.

    Parameters
    ----------
    uncertainty : Tensor, shape (batch, band, y, x)
        Reflectance, positive.
    batch : Batch
        Tiles. Without the feature ``"evidence"`` nothing changes.
    """
    if "evidence" not in batch.features:
        return uncertainty
    factor, weight, widening = batch.features["evidence"].unbind(dim=2)
    hidden = ((batch.target_clear == 0) & batch.known()).to(uncertainty.dtype)
    relative = torch.log(uncertainty.clamp(min=1e-6) / batch.features["uncertainty"].clamp(min=1e-6))
    mean = (relative * hidden).sum(dim=(-2, -1)) / hidden.sum(dim=(-2, -1)).clamp(min=1)
    # Padded bands have zeros.
    logarithm = weight * (torch.log(factor.clamp(min=1e-6)) - mean)
    size = torch.where(widening > 0, widening, 1.0) * torch.exp(logarithm)
    shared = batch.features["shared"]
    growth = AT_FIT * torch.exp(FARTHER * DISTANCE_UNIT * shared[:, DISTANCE, None])
    return uncertainty * size[:, :, None, None] * torch.where(shared[:, FITTED, None] > 0, growth, 1.0)


def keep_clear(image: Tensor, target: Tensor, target_clear: Tensor) -> Tensor:
    """Return the image with the target's own clear pixels inserted.

    Parameters
    ----------
    image, target : Tensor, shape (batch, band, y, x)
        Reflectance.
    target_clear : Tensor, shape (batch, 1, y, x)
        1 where the target is clear.
    """
    return torch.where(target_clear > 0, target, image)
