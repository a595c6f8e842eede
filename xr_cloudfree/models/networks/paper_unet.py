"""The network of the paper: the time gate's composite, refined by a U-Net.

The paper [1]_ describes the U-Net in words: an encoder of MnasNet-B1 [2]_, a bridge, a decoder of pixel shuffles [3]_
that start as nearest-neighbour upsampling [4]_, and self-attention [5]_ after its second block. The text does not
state the widths of the decoder. This is the architecture as described, not a copy of the authors' network.

References
----------
.. [1] S. Oehmcke, T.-H. K. Chen, A. V. Prishchepov and F. Gieseke, "Creating cloud-free satellite imagery
   from image time series with deep learning", BIGSPATIAL 2020. doi:10.1145/3423336.3429345
.. [2] M. Tan et al., "MnasNet: platform-aware neural architecture search for mobile", CVPR 2019.
   doi:10.1109/CVPR.2019.00293
.. [3] W. Shi et al., "Real-time single image and video super-resolution using an efficient sub-pixel
   convolutional neural network", CVPR 2016. doi:10.1109/CVPR.2016.207
.. [4] A. Aitken et al., "Checkerboard artifact free sub-pixel convolution", 2017. arXiv:1707.02937
.. [5] H. Zhang, I. Goodfellow, D. Metaxas and A. Odena, "Self-attention generative adversarial networks", ICML
   2019. arXiv:1805.08318
"""

from __future__ import annotations

import logging
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from xr_cloudfree.errors import MissingDependencyError, ModelError
from xr_cloudfree.models.networks.batch import Batch, Output
from xr_cloudfree.models.networks.layers import as_nearest, normed_conv
from xr_cloudfree.models.networks.learned_gate import TimeGate
from xr_cloudfree.models.networks.network import Network

ENCODER = "mnasnet_100"
"""timm's name of MnasNet-B1."""

_REDUCTIONS = [2, 4, 8, 16, 32]
_log = logging.getLogger(__name__)


class TimeGateUNet(Network):
    """The composite of `TimeGate` plus a correction by a U-Net.

    With 6 bands, as in the paper, it has 8,898,090 parameters; the paper reports 15.05 million.

    Parameters
    ----------
    bands : int
        Number of bands, in the same order in training and inference.
    encoder : str
        Encoder of the U-Net, by its name in timm: ``"mnasnet_100"`` is the paper's, ``"mnasnet_small"`` a small one.
    h_agg : int
        Number of abstract temporal features; the paper does not state it.
    target_as_input : bool
        Whether the target date's own clear pixels are one of the steps, at a distance of 0 days. (The paper trains
        with that in 5 % of the samples.) The weight of the target's own pixels is then 1 minus the sum of the weights
        in the output.

    Raises
    ------
    ModelError
        If timm has no such encoder, or it does not halve the image five times.
    MissingDependencyError
        If timm is not installed.

    Notes
    -----
    ``Y = image + gamma * UNet(concat[image, features])`` with a learned scalar gamma that starts at 0, as in the
    paper. While it is 0 the U-Net gets no gradient: the first step changes only gamma (its gradient is the U-Net's
    output times the error) and the gate, and the U-Net learns from the second step on.

    The encoder starts with random weights; the paper uses those of `start_from_pretrained`.
    """

    def __init__(self, bands: int, encoder: str = ENCODER, h_agg: int = 8, target_as_input: bool = True) -> None:
        super().__init__()
        self.target_as_input = target_as_input
        self.gate = TimeGate(bands, h_agg)
        self.unet = UNet(bands + h_agg, bands, encoder)
        self.gamma = nn.Parameter(torch.zeros(()))

    def forward(self, batch: Batch) -> Output:
        """Return the images of the target dates; `gate` is the mean over the bands of each step's weight.

        Parameters
        ----------
        batch : Batch
            Series with as many bands as the network has.
        """
        composite = self.gate(batch.with_target_as_date() if self.target_as_input else batch)
        gate = composite.weights[:, : batch.bands.shape[1]].mean(dim=2, keepdim=True)
        change = self.unet(torch.cat([composite.image, composite.features], dim=1))
        return Output(composite.image + self.gamma * change, composite.known, gate=gate)

    def start_from_pretrained(self) -> str:
        """Load timm's ImageNet weights into the encoder, if they are available.

        Returns
        -------
        str
            Name of the weights; empty if the encoder is unchanged. The log states the reason.
        """
        name = self.unet.encoder_name
        try:
            pretrained = _encoder(name, self.unet.inputs, pretrained=True)
        except (OSError, RuntimeError) as error:  # not reachable, or none exist for this encoder
            _log.warning("ImageNet weights of %s are not available, so it starts with random weights: %s", name, error)
            return ""
        self.unet.encoder.load_state_dict(pretrained.state_dict())
        _log.info("%s starts from ImageNet weights", name)
        return f"ImageNet weights of {name}"


class UNet(nn.Module):
    """U-Net on an encoder of timm that halves the image five times; the output has the size of the input.

    Parameters
    ----------
    inputs, outputs : int
        Numbers of channels.
    encoder : str
        timm's name of the encoder.

    Raises
    ------
    ModelError
        If timm has no such encoder, or it does not halve the image five times.
    MissingDependencyError
        If timm is not installed.

    Notes
    -----
    The bridge doubles the channels of the lowest level and halves them again. Each block of the decoder halves the
    channels and doubles the image size, concatenates the skip connection, and applies two 3 x 3 convolutions; the last
    skip connection is the input. Images are padded by replication to a multiple of 32, and the output is cropped.
    """

    def __init__(self, inputs: int, outputs: int, encoder: str = ENCODER) -> None:
        super().__init__()
        self.inputs, self.encoder_name = inputs, encoder
        try:
            self.encoder = _encoder(encoder, inputs, pretrained=False)
        except RuntimeError as error:
            raise _no_encoder(encoder, str(error)) from error
        if (reductions := self.encoder.feature_info.reduction()) != _REDUCTIONS:
            raise _no_encoder(encoder, f"its levels are reduced by {reductions}")
        *skips, width = self.encoder.feature_info.channels()
        self.bridge = nn.Sequential(normed_conv(width, 2 * width, 3), normed_conv(2 * width, width, 3))
        decoder: list[nn.Module] = []
        for skip in [*reversed(skips), inputs]:
            decoder.append(_Block(width, skip, attention=len(decoder) == 1))
            width = width // 2 + skip
        self.decoder = nn.ModuleList(decoder)
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Return the output, shape (batch, outputs, y, x).

        Parameters
        ----------
        image : Tensor, shape (batch, inputs, y, x)
            Of any size.
        """
        y, x = image.shape[2:]
        image = functional.pad(image, (0, -x % 32, 0, -y % 32), mode="replicate")
        *skips, bottom = self.encoder(image)
        up = self.bridge(bottom)
        for block, skip in zip(self.decoder, [*reversed(skips), image], strict=True):
            up = block(up, skip)
        output: Tensor = self.head(up)[:, :, :y, :x]
        return output


class PixelShuffle(nn.Sequential):
    """Upsampling by two that starts as nearest-neighbour: see `as_nearest`.

    Parameters
    ----------
    inputs, outputs : int
        Numbers of channels.
    """

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__(as_nearest(nn.Conv2d(inputs, 4 * outputs, 1), 2), nn.PixelShuffle(2))


class SelfAttention(nn.Module):
    """Self-attention over all pixels, added to the input with a learned scale that starts at 0.

    Parameters
    ----------
    channels : int
        Number of channels.
    """

    def __init__(self, channels: int) -> None:
        super().__init__()
        narrow = max(1, channels // 8)
        self.split = [narrow, narrow, channels]
        self.project = nn.Conv2d(channels, sum(self.split), 1, bias=False)
        self.scale = nn.Parameter(torch.zeros(()))

    def forward(self, image: Tensor) -> Tensor:
        """Return the output, of the input's shape (batch, channels, y, x)."""
        query, key, value = torch.split(self.project(image).flatten(2).mT, self.split, dim=2)
        mean = functional.scaled_dot_product_attention(query, key, value)
        output: Tensor = image + self.scale * mean.mT.reshape(image.shape)
        return output


class _Block(nn.Module):
    """Level of the decoder."""

    def __init__(self, inputs: int, skip: int, attention: bool) -> None:
        super().__init__()
        width = inputs // 2 + skip
        self.up = PixelShuffle(inputs, inputs // 2)
        self.convs = nn.Sequential(normed_conv(width, width, 3), normed_conv(width, width, 3))
        self.attention = SelfAttention(width) if attention else nn.Identity()

    def forward(self, image: Tensor, skip: Tensor) -> Tensor:
        """Return the level's output."""
        output: Tensor = self.attention(self.convs(torch.cat([self.up(image), skip], dim=1)))
        return output


def _encoder(name: str, inputs: int, pretrained: bool) -> Any:
    try:
        import timm
    except ImportError as error:
        raise MissingDependencyError(
            "timm, which provides the encoders, is not installed", "timm", "pip install 'xr-cloudfree[train]'"
        ) from error
    return timm.create_model(name, pretrained=pretrained, features_only=True, in_chans=inputs)


def _no_encoder(name: str, why: str) -> ModelError:
    return ModelError(
        f"{name!r} cannot be used as the encoder: {why}",
        f"an encoder of timm with features reduced by {_REDUCTIONS}",
        f"encoder={ENCODER!r}",
    )
