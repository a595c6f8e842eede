"""Building blocks that networks share: convolutions, upsampling, and bounded outputs."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Corrections stay within so many times the scale of a band's errors; uncertainties within a factor of e to this.
REACH, LOG_REACH = 6.0, 2.5


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


def bounded(base: Tensor, correction: Tensor, scale: Tensor) -> Tensor:
    """The base with a correction that cannot run away; 0 changes nothing.

    Parameters
    ----------
    base : Tensor
        Reflectance.
    correction : Tensor
        In units of `scale`, any size.
    scale : Tensor
        Reflectance; how large errors of the base are.

    Examples
    --------
    >>> import torch
    >>> from xr_cloudfree.models.networks.layers import bounded
    >>> bounded(torch.tensor(0.25), torch.tensor([0.0, 1e9]), torch.tensor(0.0625)).tolist()
    [0.25, 0.625]
    """
    return base + scale * REACH * torch.tanh(correction / REACH)


def scaled(uncertainty: Tensor, logarithm: Tensor) -> Tensor:
    """An uncertainty times the exponential of a bounded logarithm; 0 changes nothing.

    Parameters
    ----------
    uncertainty : Tensor
        Reflectance, positive.
    logarithm : Tensor
        Any size.
    """
    return uncertainty * torch.exp(LOG_REACH * torch.tanh(logarithm / LOG_REACH))


def calibrated(uncertainty: Tensor, fitted: Tensor, factors: tuple[float, float]) -> Tensor:
    """Uncertainties as they hold on places that were not trained on.

    Parameters
    ----------
    uncertainty : Tensor, shape (batch, band, y, x)
        Reflectance, positive.
    fitted : Tensor of bool, shape (batch, 1, y, x)
        Where the target showed enough of itself to learn from.
    factors : pair of float
        What to multiply by there, and elsewhere.
    """
    return uncertainty * torch.where(fitted, *factors).to(uncertainty.dtype)


def keep_clear(image: Tensor, target: Tensor, target_clear: Tensor) -> Tensor:
    """The image with the target's own clear pixels as they are.

    Parameters
    ----------
    image, target : Tensor, shape (batch, band, y, x)
        Reflectance.
    target_clear : Tensor, shape (batch, 1, y, x)
        1 where the target is clear.
    """
    return torch.where(target_clear > 0, target, image)
