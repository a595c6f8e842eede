"""The TerraMind pathway: what the default network answers, seen by TerraMind's encoder, and corrected.

The default network (`base`) answers first; what it found of the time series, its abstract features and its last
features of each band go on beside its image. The image, in TerraMind's units and slots, becomes tokens of 16 x 16
pixels. What the encoder cannot take goes through a small stem, and from there, through weights that start at zero, onto
the tokens: at the start the encoder sees exactly what it was trained on. Four of its levels go down through pixel
shuffles that meet the stem's features at each resolution, for a token cannot carry what is smaller than itself. Last,
each band is corrected by itself, through weights that start at zero: at the start the answer is the base's, bit for
bit.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from xr_cloudfree.errors import ModelError
from xr_cloudfree.models.networks import layers
from xr_cloudfree.models.networks.batch import Batch, Output
from xr_cloudfree.models.networks.features import SHARED, compute_features
from xr_cloudfree.models.networks.network import Network
from xr_cloudfree.models.networks.terramind import bands, weights
from xr_cloudfree.models.networks.terramind.encoder import PATCH, S1, S2, build_encoder, find_size
from xr_cloudfree.models.networks.unet import BaseOutput, FusionUNet

# Channels of the decoder, at full resolution, at a quarter and at a sixteenth: little beside the encoder.
FINE, MIDDLE, COARSE = 16, 32, 64
# Pixels along the edge of what a pixel of the next coarser resolution covers; twice this makes a token.
STEP = 4
# In training, how often a tile that has Sentinel-1 is shown without it.
WITHOUT_S1 = 0.5


class Residual(nn.Module):
    """Two 3 x 3 convolutions on a path that starts at zero.

    Parameters
    ----------
    width : int
        Channels.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(width, width, 3, padding=1), nn.Conv2d(width, width, 3, padding=1)
        nn.init.zeros_(self.second.weight)

    def forward(self, x: Tensor) -> Tensor:
        """Of the shape of `x`."""
        out: Tensor = x + self.second(F.silu(self.first(F.silu(x))))
        return out


class TerraMindNet(Network):
    """The default network's answer, corrected by what TerraMind sees; see the module.

    Parameters
    ----------
    size : str
        Size of the encoder: ``"tiny"``, ``"small"``, ``"base"`` or ``"large"``.
    encoder : {"terramind", "none"}
        ``"none"`` leaves the encoder out and all else as it is, to measure what it is good for.
    base : sequence of (str, value)
        Arguments of the default network; ``from_pretrained("unet").spec.config`` for the published one.
    s1 : bool
        Whether it can look at Sentinel-1 too.
    calibration : pair of float
        What uncertainties are multiplied by: on dates that show enough of themselves to learn from, and on others.

    Raises
    ------
    ModelError
        If there is no such size, or Sentinel-1 is to be looked at without an encoder.
    MissingDependencyError
        If terratorch is not installed.

    Notes
    -----
    All weights start at random, the encoder's and the base's too: `xr_cloudfree.models.networks.terramind.weights` has
    TerraMind's own, and a bundle of the default network the base's.

    ``base``, ``encoder`` and the rest (``stem``, ``decoder``, ``bands``) are three parts that may be trained apart.
    """

    calibration: tuple[float, float]
    mean: Tensor
    std: Tensor
    s1_mean: Tensor
    s1_std: Tensor
    prepare, describe = staticmethod(compute_features), staticmethod(bands.describe)

    def __init__(
        self,
        size: str = "tiny",
        encoder: str = "terramind",
        base: Sequence[Sequence[Any]] = (),
        s1: bool = False,
        calibration: tuple[float, float] = (1.0, 1.0),
    ) -> None:
        super().__init__()
        found = find_size(size)
        if encoder not in ("terramind", "none"):
            raise ModelError(f"encoder is {encoder!r}", "'terramind' or 'none'", "encoder: terramind")
        if s1 and encoder == "none":
            raise ModelError("s1 is true and encoder is 'none'", "an encoder, which looks at Sentinel-1", "s1: false")
        self.calibration = calibration[0], calibration[1]
        self.size, self.levels, self.s1 = size, found.levels, s1
        self.base = FusionUNet(**{str(name): value for name, value in base})
        self.stem = Stem(len(bands.SLOTS) + 2 + len(SHARED) + self.base.hidden + self.base.abstract)
        self.encoder = None
        if encoder == "terramind":
            self.encoder = build_encoder(size, (S2, S1) if s1 else (S2,))
            self.told = nn.Conv2d(COARSE + len(bands.SLOTS), found.width, 1, bias=False)
            nn.init.zeros_(self.told.weight)
        self.decoder = Decoder(found.width, len(found.levels) if encoder == "terramind" else 0)
        self.bands = Bands(self.base.hidden)
        known = {
            "mean": bands.MEAN,
            "std": bands.STD,
            "s1_mean": bands.S1_MEAN,
            "s1_std": bands.S1_STD,
        }
        for name, values in known.items():
            self.register_buffer(name, torch.from_numpy(values)[:, None, None], persistent=False)

    def parts(self) -> dict[Literal["base", "encoder"], nn.Module]:
        """Return the base, and the encoder if there is one."""
        return {"base": self.base} if self.encoder is None else {"base": self.base, "encoder": self.encoder}

    def encoder_blocks(self) -> Iterable[nn.Module]:
        """Return the encoder's transformer blocks."""
        vit: Any = self.encoder
        return () if vit is None else tuple(vit.encoder)

    def start_from_pretrained(self) -> str:
        """Give the encoder TerraMind's own weights, which are fetched if they are not here.

        Returns
        -------
        str
            What they are, for a card.

        Raises
        ------
        HubError
            If they cannot be fetched.
        WeightsError
            If they are not what they should be.
        ModelError
            If there is no encoder.
        """
        if self.encoder is None:
            raise ModelError("the network has no encoder", "one, to give weights to", "encoder: terramind")
        weights.load(self.encoder, weights.fetch(self.size))
        return str(weights.RELEASES[self.size])

    def forward(self, batch: Batch) -> Output:
        """The image of the target date, with its uncertainty."""
        found = self.base.reason(batch)
        own, seen = batch.target_clear, batch.known() | (batch.target_clear > 0)
        image = self.standard(
            layers.keep_clear(found.image, batch.target, own), seen, batch.features["interpolation_weights"]
        )
        y, x = image.shape[-2:]
        maps = F.pad(self._maps(batch, found, image, seen), (0, -x % PATCH, 0, -y % PATCH), mode="replicate")
        fine, middle, coarse = self.stem(maps)
        levels = self._levels(maps[:, : len(bands.SLOTS)], coarse, batch) if self.encoder is not None else []
        shared = self.decoder(levels, fine, middle, coarse)[..., :y, :x]
        correction, logarithm = self.bands(found.hidden, shared, batch.features["one_hot"]).unbind(dim=2)
        unit = found.scale[:, :, None, None]
        corrected = torch.where(found.taught, layers.bounded(found.image, correction, unit), found.image)
        uncertainty = layers.calibrated(layers.scaled(found.uncertainty, logarithm), found.fitted, self.calibration)
        return Output(layers.keep_clear(corrected, batch.target, own), batch.known(), uncertainty)

    def standard(self, image: Tensor, seen: Tensor, shares: Tensor) -> Tensor:
        """An image in TerraMind's slots and units, of shape (batch, slot, y, x).

        Parameters
        ----------
        image : Tensor, shape (batch, band, y, x)
            Reflectance.
        seen : Tensor of bool, shape (batch, 1, y, x)
            False where nothing is known: the mean of TerraMind's training data, 0, is put there.
        shares : Tensor, shape (batch, band, slot)
            See `xr_cloudfree.models.networks.terramind.bands.shares`.
        """
        # One value that is not finite would make all the tokens so. Padded bands have no share, but 0 x NaN is NaN.
        seen = seen & image.isfinite().all(dim=1, keepdim=True)
        with torch.autocast(image.device.type, enabled=False):  # half precision would round what the sensor resolves
            numbers = torch.einsum("bcyx,bcs->bsyx", torch.where(seen, image.float(), 0.0), shares.float())
        return torch.where(seen, (numbers * bands.DIGITAL - self.mean) / self.std, 0.0)

    def tokens(self, image: Tensor, told: Tensor | None = None, s1: Tensor | None = None) -> list[Tensor]:
        """Levels of the encoder, each of shape (batch, width, y / 16, x / 16).

        Parameters
        ----------
        image : Tensor, shape (batch, slot, y, x)
            Standardised, of a multiple of 16 rows and columns.
        told : Tensor, shape (batch, width, y / 16, x / 16), optional
            What is added to the image's tokens.
        s1 : Tensor, shape (batch, 2, y, x), optional
            VV and VH, standardised.
        """
        assert self.encoder is not None
        vit: Any = self.encoder
        y, x = (n // PATCH for n in image.shape[-2:])
        given = [vit.encoder_embeddings[vit.mod_name_mapping[S2]](image)]
        if s1 is not None:
            given.append(vit.encoder_embeddings[vit.mod_name_mapping[S1]](s1))
        parts = [part["x"] + part["emb"] for part in given]
        if told is not None:
            parts[0] = parts[0] + told.flatten(2).mT
        now, levels = torch.cat(parts, dim=1), []
        for i, block in enumerate(vit.encoder):
            now = block(now)
            if i in self.levels:
                out = vit.encoder_norm(now) if i + 1 == len(vit.encoder) else now
                # The mean over the modalities of a place, as the encoder merges them.
                merged = out.unflatten(1, (len(parts), y * x)).mean(dim=1)
                levels.append(merged.mT.unflatten(2, (y, x)))
        return levels

    def _maps(self, batch: Batch, found: BaseOutput, image: Tensor, seen: Tensor) -> Tensor:
        """All that is known of a pixel whatever the band, shape (batch, map, y, x); the image's slots come first."""
        valid = batch.band_valid[:, :, None, None].to(image.dtype)
        count = valid.sum(dim=1, keepdim=True)
        doubt = torch.log(found.uncertainty.clamp(min=1e-4) / found.scale[:, :, None, None])
        doubt = (doubt * valid).sum(dim=1, keepdim=True) / count
        hidden = (found.hidden * valid[:, :, None]).sum(dim=1) / count
        known = seen.to(image.dtype)
        return torch.cat([image, known, doubt, batch.features["shared"], layers.squash(hidden), found.abstract], dim=1)

    def _levels(self, image: Tensor, coarse: Tensor, batch: Batch) -> list[Tensor]:
        """Levels of the encoder for tiles of which some may have Sentinel-1."""
        lacking = 1 - batch.features["one_hot"].sum(dim=1)
        maps = lacking[:, :, None, None].expand(-1, -1, *coarse.shape[-2:])
        told = self.told(torch.cat([F.silu(coarse), maps.to(coarse.dtype)], dim=1))
        if not (self.s1 and "s1" in batch.features):
            return self.tokens(image, told)
        radar, there = batch.features["s1"], batch.features["s1 seen"] > 0
        have = there.flatten(1).any(dim=1)
        if self.training:
            have &= torch.rand(have.shape, device=have.device) >= WITHOUT_S1
        y, x = image.shape[-2:]
        radar = torch.where(there & radar.isfinite(), (radar - self.s1_mean) / self.s1_std, 0.0)
        radar = F.pad(radar, (0, x - radar.shape[-1], 0, y - radar.shape[-2]))
        # Tokens of one kind attend to those of the other: tiles that have both go apart from those that have one.
        levels: list[Tensor] | None = None
        for rows, given in ((have, True), (~have, False)):
            if rows.any():
                some = self.tokens(image[rows], told[rows], radar[rows] if given else None)
                levels = levels or [level.new_empty(len(image), *level.shape[1:]) for level in some]
                levels = [level.index_put((rows,), one) for level, one in zip(levels, some, strict=True)]
        assert levels is not None
        return levels


class Stem(nn.Module):
    """Maps at full resolution, at a quarter, and at a sixteenth, each from what one of its pixels covers alone.

    Parameters
    ----------
    inputs : int
        Number of maps.
    """

    def __init__(self, inputs: int) -> None:
        super().__init__()
        self.fine = nn.Conv2d(inputs, FINE, 1)
        self.middle = nn.Conv2d(FINE, MIDDLE, STEP, stride=STEP)
        self.coarse = nn.Conv2d(MIDDLE, COARSE, STEP, stride=STEP)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """From shape (batch, map, y, x), where 16 divides y and x."""
        fine = self.fine(maps)
        middle = self.middle(F.silu(fine))
        return fine, middle, self.coarse(F.silu(middle))


class Decoder(nn.Module):
    """From tokens to pixels, by pixel shuffles that meet the stem's maps.

    Parameters
    ----------
    width : int
        Numbers per token.
    levels : int
        How many levels of the encoder there are; 0 for none.
    """

    def __init__(self, width: int, levels: int) -> None:
        super().__init__()
        self.norm = nn.ModuleList(nn.LayerNorm(width) for _ in range(levels))
        self.level = nn.ModuleList(nn.Conv2d(width, COARSE, 1) for _ in range(levels))
        self.coarse, self.middle = Residual(COARSE), Residual(MIDDLE)
        widths = (COARSE, MIDDLE), (MIDDLE, FINE)
        self.up = nn.ModuleList(layers.as_nearest(nn.Conv2d(below, own * STEP**2, 1), STEP) for below, own in widths)
        self.fine = nn.Conv2d(FINE, FINE, 3, padding=1, groups=FINE)

    def forward(self, levels: Sequence[Tensor], fine: Tensor, middle: Tensor, coarse: Tensor) -> Tensor:
        """Shape (batch, channel, y, x)."""
        for norm, project, level in zip(self.norm, self.level, levels, strict=True):
            coarse = coarse + project(norm(level.movedim(1, -1)).movedim(-1, 1))
        coarse = self.coarse(coarse)
        middle = self.middle(middle + F.pixel_shuffle(self.up[0](F.silu(coarse)), STEP))
        fine = fine + F.pixel_shuffle(self.up[1](F.silu(middle)), STEP)
        out: Tensor = fine + self.fine(F.silu(fine))
        return out


class Bands(nn.Module):
    """The correction of each band and the logarithm of its uncertainty, from its own features and the shared ones.

    A band hears of the shared features by weights of its slot, so that what the encoder knows of a colour reaches that
    colour; a band of no slot hears the same as all.

    Parameters
    ----------
    hidden : int
        Features per band.
    """

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.own, self.shared = nn.Conv2d(hidden, FINE, 1), nn.Conv2d(FINE, FINE, 1, bias=False)
        self.gain, self.shift = (nn.Linear(len(bands.SLOTS), FINE, bias=False) for _ in range(2))
        self.out = nn.Conv2d(FINE, 2, 1)
        for start in (self.gain, self.shift, self.out):
            for part in start.parameters():
                nn.init.zeros_(part)

    def forward(self, hidden: Tensor, shared: Tensor, places: Tensor) -> Tensor:
        """Shape (batch, band, 2, y, x); `hidden` is (batch, band, feature, y, x), `places` is (batch, band, slot)."""
        size = hidden.shape[:2]
        own = self.own(F.silu(hidden.flatten(0, 1))).unflatten(0, size)
        told = self.shared(F.silu(shared))[:, None] * (1 + self.gain(places))[..., None, None]
        made = F.silu(own + told + self.shift(places)[..., None, None])
        out: Tensor = self.out(made.flatten(0, 1)).unflatten(0, size)
        return out
