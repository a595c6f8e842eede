"""The default network: a U-Net that weights and corrects the candidate predictions of classical models.

`compute_features` computes the candidates (a robust regression on the target's clear pixels, linear interpolation, two
forests). A time gate adds a composite of all dates, which starts at linear interpolation. A small U-Net takes all of
them, weights them pixel by pixel, adds a bounded correction, and estimates the uncertainty of the result. The
gate and the U-Net run at a lower resolution and their results are interpolated; the candidates keep theirs.

One set of weights serves any bands: each band passes through the same network separately, and the bands exchange
information through the mean over bands at each level. There is no normalisation over the tile; only the fits and the
gates depend on the tile as a whole.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xr_cloudfree.models.networks import layers
from xr_cloudfree.models.networks.batch import Batch, Output
from xr_cloudfree.models.networks.features import CANDIDATES, HINTS, SHARED, compute_features
from xr_cloudfree.models.networks.network import Network

# Dates that the gate processes together, which bounds the memory; the result does not depend on it.
TOGETHER = 12
# Initial logit of the first candidate relative to the others.
LEAD = 6.0
# Initial logarithm of the weight of linear interpolation relative to the gates of the dates.
PRIOR = 5.0
SCENE_FEATURES, PIXEL_FEATURES = 9, 4
DATES = SHARED.index("clear dates")
# Feature value of 5.5 clear dates: pixels with fewer are corrected only where the target was fitted.
FEW_DATES = math.log1p(5.5) / 4.0
DAYS = [SHARED.index("days before"), SHARED.index("days after")]
# Pixels along the edge of a square for which the U-Net and the gate compute one result each. The gate sees every
# GATE_SAMPLE-th pixel of a square in both directions.
UNET_STEP, GATE_STEP, GATE_SAMPLE = 2, 4, 2


class DateGate(nn.Module):
    """Time gate for any bands: gates, the composite minus the linear prediction, and abstract temporal features.

    The gate of a date is a function of that date alone, shared by the bands, and closed where the date is not clear, so
    the sums over dates can be computed in any order and in parts. The second candidate, which is linear interpolation
    unless nothing of the target is clear, is a further term of the sums.

    Parameters
    ----------
    width : int
        Channels of the gate.
    abstract : int
        Number of abstract temporal features, each a maximum over the dates.
    """

    def __init__(self, width: int = 16, abstract: int = 4) -> None:
        super().__init__()
        # Scalars per date enter separately from maps, which saves expanding them over the pixels.
        self.scene, self.pixel = nn.Linear(SCENE_FEATURES, width), nn.Conv2d(PIXEL_FEATURES, width, 1)
        self.date = nn.Sequential(nn.SiLU(), nn.Conv2d(width, width, 1), nn.SiLU(), nn.Conv2d(width, 1 + abstract, 1))
        self.prior = nn.Parameter(torch.tensor(PRIOR))

    def forward(self, batch: Batch, linear: Tensor, scale: Tensor) -> tuple[Tensor, Tensor]:
        """Return the composite minus the linear prediction (B, C, H, W) and abstract features (B, k, H, W)."""
        size = (linear.shape[-2], linear.shape[-1])
        total: Tensor | None = None
        mass, abstract = torch.exp(self.prior), None
        sample = (..., slice(None, None, GATE_SAMPLE), slice(None, None, GATE_SAMPLE))
        step = GATE_STEP // GATE_SAMPLE
        linear = linear[sample]
        around = layers.reduced(batch.features["shared"][:, DAYS][sample], step)
        for start in range(0, batch.bands.shape[1], TOGETHER):
            part = slice(start, start + TOGETHER)
            seen = batch.clear[:, part][sample]
            clear = layers.reduced(seen, step)
            difference = layers.reduced((batch.bands[:, part][sample] - linear[:, None]) * seen, step)
            difference = difference / clear.clamp(min=1e-6)
            scores = self._dates(difference, clear, batch.day_offset[:, part], batch.band_valid, around, scale)
            # The clamp keeps the exponential within the range of half precision.
            gate = torch.exp(scores[:, :, :1].clamp(max=10.0)) * clear
            summed = (gate * difference).sum(dim=1)
            largest = torch.where(clear > 0, scores[:, :, 1:], -1e4).amax(dim=1)
            total = summed if total is None else total + summed
            mass = mass + gate.sum(dim=1)
            abstract = largest if abstract is None else torch.maximum(abstract, largest)
        assert total is not None and abstract is not None
        abstract = torch.where(abstract > -1e3, abstract, 0.0)
        return layers.enlarged(total / mass, GATE_STEP, size), layers.enlarged(abstract, GATE_STEP, size)

    def _dates(
        self, difference: Tensor, clear: Tensor, days: Tensor, band_valid: Tensor, around: Tensor, scale: Tensor
    ) -> Tensor:
        """Return gate and abstract features of some dates, (B, T, 1 + k, H, W), each from that date alone."""
        valid = band_valid.to(difference.dtype)
        count = valid.sum(dim=1)[:, None, None, None, None]
        relative = difference * (valid / scale)[:, None, :, None, None]
        mean = relative.sum(dim=2, keepdim=True) / count
        size = (relative.square().sum(dim=2, keepdim=True) / count + 1e-12).sqrt()
        pixels = clear.sum(dim=(-2, -1)).clamp(min=1 / GATE_STEP**2)
        level = (scale * valid).sum(dim=1) / valid.sum(dim=1)
        season = days * (2 * math.pi / 365.25)
        scene = torch.stack(
            [
                torch.log1p(days.abs()) / 4,
                (days >= 0).to(days.dtype),
                (days / 60).clamp(-3, 3),
                torch.cos(season),
                torch.sin(season),
                layers.squash((mean * clear).sum(dim=(-2, -1)) / pixels)[:, :, 0],
                layers.squash((size * clear).sum(dim=(-2, -1)) / pixels)[:, :, 0],
                pixels[:, :, 0] / clear[0, 0].numel(),
                (torch.log(level) + 4)[:, None].expand(days.shape),
            ],
            dim=2,
        ).to(clear.dtype)
        around = around[:, None].expand(-1, clear.shape[1], -1, -1, -1)
        maps = torch.cat([layers.squash(mean), layers.squash(size), around], dim=2)
        hidden = self.pixel(maps.flatten(0, 1)) + self.scene(scene).flatten(0, 1)[:, :, None, None]
        out: Tensor = self.date(hidden)
        return out.reshape(*clear.shape[:2], *out.shape[1:])


class Block(nn.Module):
    """Two 3 × 3 convolutions on a residual path that starts at zero, then the mean over bands added to each band."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        self.bands = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.bands.weight)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        """Map (batch x band, width, y, x) to the same shape; `valid` is (batch, band, 1, 1, 1)."""
        x = x + self.second(F.silu(self.first(F.silu(x))))
        apart = x.reshape(*valid.shape[:2], *x.shape[1:])
        mean = (apart * valid).sum(dim=1) / valid.sum(dim=1)
        shared: Tensor = self.bands(F.silu(mean))[:, None]
        return (apart + shared).flatten(0, 1)


@dataclass(frozen=True, eq=False)
class BaseOutput:
    """Output of `FusionUNet` before the target's own clear pixels are inserted, with the features behind it.

    Parameters
    ----------
    image, uncertainty : Tensor, shape (batch, band, y, x)
        Reflectance.
    scale : Tensor, shape (batch, band)
        Reflectance; typical error. 1 for padded bands.
    hidden : Tensor, shape (batch, band, width, y / UNET_STEP, x / UNET_STEP)
        The final features of each band, of squares of pixels: see `layers.enlarged`.
    abstract : Tensor, shape (batch, feature, y, x)
        Abstract temporal features.
    fitted, taught : Tensor of bool, shape (batch, 1, y, x)
        Where a regression was fitted to the target's own pixels; where corrections are applied: there, and where the
        series is long.
    """

    image: Tensor
    uncertainty: Tensor
    scale: Tensor
    hidden: Tensor
    abstract: Tensor
    fitted: Tensor
    taught: Tensor


class FusionUNet(Network):
    """Network that weights the classical candidates and corrects them; see the module.

    Parameters
    ----------
    widths : sequence of int
        Channels at full, half, quarter … resolution.
    gate_width, abstract : int
        See `DateGate`.
    calibration : pair of float
        Factors on the uncertainty, fitted at sites outside the training data: where a regression was fitted to the
        target's own pixels, and elsewhere.
    """

    prepare = staticmethod(compute_features)
    calibration: tuple[float, float]

    def __init__(
        self,
        widths: tuple[int, ...] = (16, 24, 32, 48),
        gate_width: int = 16,
        abstract: int = 4,
        calibration: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        widths = tuple(widths)
        self.calibration = calibration[0], calibration[1]
        self.hidden, self.abstract = widths[0], abstract
        self.candidates = len(CANDIDATES) + 1
        per_band = (self.candidates - 1) + len(HINTS) + 4
        self.gate = DateGate(gate_width, abstract)
        self.stem = nn.Conv2d(per_band + len(SHARED) + abstract, widths[0], 1)
        pairs = list(pairwise(widths))
        self.down = nn.ModuleList(nn.Conv2d(a, b, 2, stride=2) for a, b in pairs)
        self.encoder = nn.ModuleList(Block(b) for _, b in pairs)
        up = [layers.as_nearest(nn.Conv2d(b, 4 * a, 1), 2) for a, b in pairs]
        self.decoder = nn.ModuleList(Block(a) for a, _ in pairs[1:])
        self.mix = nn.Conv2d(2 * widths[0], widths[0], 1)
        self.fine = nn.Conv2d(widths[0], widths[0], 3, padding=1, groups=widths[0])
        self.out = nn.Conv2d(widths[0], self.candidates + 2, 1)
        for start in self.out.parameters():
            nn.init.zeros_(start)
        for conv in up:
            assert conv.bias is not None
            nn.init.zeros_(conv.bias)
        self.up = nn.ModuleList(up)

    def forward(self, batch: Batch) -> Output:
        """Return the image of the target date with its uncertainty."""
        base = self.reason(batch)
        # In training the network learns the size as well, for tiles without evidence.
        uncertainty = base.uncertainty if self.training else layers.in_context(base.uncertainty, batch)
        return Output(layers.keep_clear(base.image, batch.target, batch.target_clear), batch.known(), uncertainty)

    def reason(self, batch: Batch) -> BaseOutput:
        """Return the image, the uncertainty, and the features behind them."""
        b, c = batch.band_valid.shape
        inputs, scale = batch.features, batch.features["scale"]
        scale = torch.where(batch.band_valid, scale, torch.ones_like(scale))
        candidates = inputs["candidates"]
        best, linear = candidates[:, :, 0], candidates[:, :, 1]
        composite, abstract = self.gate(batch, linear, scale)
        differences = torch.cat(
            [candidates[:, :, 1:] - best[:, :, None], (linear + composite - best)[:, :, None]], dim=2
        )
        features = self._features(batch, best, differences, scale, abstract)
        valid = batch.band_valid[:, :, None, None, None].to(features.dtype)
        scores, hidden = (part.reshape(b, c, *part.shape[1:]) for part in self._unet(features.flatten(0, 1), valid))
        lead = torch.zeros(self.candidates, device=scores.device, dtype=scores.dtype)
        lead[0] = LEAD
        # Shares minus their initial values: the untrained network returns the first candidate exactly.
        share = torch.softmax(scores[:, :, : self.candidates] + lead[:, None, None], dim=2)
        share = share - torch.softmax(lead, dim=0)[:, None, None]
        told = [share[:, :, 1:], layers.bound(scores[:, :, -2:-1]), layers.factor(scores[:, :, -1:])]
        told = layers.enlarged(torch.cat(told, dim=2), UNET_STEP, (best.shape[-2], best.shape[-1]))
        image = best + (told[:, :, :-2] * differences).sum(dim=2) + scale[:, :, None, None] * told[:, :, -2]
        fitted = inputs["shared"][:, layers.FITTED, None] > 0
        # Nothing is corrected where neither the target nor a long series gives evidence.
        taught = fitted | (inputs["shared"][:, DATES, None] > FEW_DATES)
        image = torch.where(taught, image, best)
        uncertainty = inputs["uncertainty"] * told[:, :, -1]
        uncertainty = layers.calibrated(uncertainty, fitted, self.calibration)
        return BaseOutput(image, uncertainty, scale, hidden, abstract, fitted, taught)

    def _features(self, batch: Batch, best: Tensor, differences: Tensor, scale: Tensor, abstract: Tensor) -> Tensor:
        """Return the input of the U-Net, (B, C, feature, H / 2, W / 2)."""
        inputs = batch.features
        unit = scale[:, :, None, None]
        seen = batch.target_clear
        own = torch.where(seen > 0, batch.target - best, torch.zeros_like(best))
        middle = best.mean(dim=(-2, -1), keepdim=True)
        ratio = torch.log(inputs["uncertainty"].clamp(min=1e-4) / unit)
        errors = torch.cat([differences, inputs["hints"], own[:, :, None]], dim=2) / unit[:, :, None]
        others = torch.stack([(best - middle) / (4 * unit), ratio], dim=2)
        maps = layers.reduced(torch.cat([errors, others], dim=2), UNET_STEP)
        b, c, _, y, x = maps.shape
        size = (torch.log(unit) + 4).expand(b, c, y, x)[:, :, None]
        shared = layers.reduced(torch.cat([inputs["shared"], abstract], dim=1), UNET_STEP)
        shared = shared[:, None].expand(b, c, -1, y, x)
        return torch.cat([layers.squash(maps[:, :, :-1]), maps[:, :, -1:], size, shared], dim=2)

    def _unet(self, features: Tensor, valid: Tensor) -> tuple[Tensor, Tensor]:
        """Return the outputs for each pixel of each band, and the final features."""
        y, x = features.shape[-2:]
        step = 2 ** len(self.down)
        features = F.pad(features, (0, -x % step, 0, -y % step), mode="replicate")
        first = level = self.stem(features)
        levels = []
        for down, block in zip(self.down, self.encoder, strict=True):
            level = block(down(F.silu(level)), valid)
            levels.append(level)
        for i in reversed(range(1, len(self.down))):
            level = self.decoder[i - 1](levels[i - 1] + F.pixel_shuffle(self.up[i](level), 2), valid)
        level = torch.cat([first, F.pixel_shuffle(self.up[0](level), 2)], dim=1)
        level = F.silu(self.mix(F.silu(level)))
        level = level + F.silu(self.fine(level))
        return self.out(level)[..., :y, :x], level[..., :y, :x]
