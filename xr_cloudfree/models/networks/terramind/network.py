"""The TerraMind network: the default network's image, corrected with features of TerraMind's encoder.

The default network (`base`) is applied first; its image is passed on together with its abstract temporal features and
its final features of each band. The image, in TerraMind's units and slots, becomes tokens of 16 x 16 pixels. All other
inputs pass through a small stem and are added to the tokens through weights that start at zero: initially the encoder
gets exactly the input that it was trained on. Four of its levels are upsampled by pixel shuffles and combined with the
stem's features at each resolution, because tokens cannot resolve details smaller than themselves. Finally, each band is
corrected separately, through weights that start at zero: initially the output is the base's, bit for bit.
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
from xr_cloudfree.models.networks.unet import UNET_STEP, BaseOutput, FusionUNet

# Channels of the decoder at full, quarter and sixteenth resolution: few compared with the encoder.
FINE, MIDDLE, COARSE = 16, 32, 64
# Downsampling factor between resolutions; applied twice it gives the edge of a token.
STEP = 4
# Probability with which Sentinel-1 is dropped from a tile in training.
WITHOUT_S1 = 0.5


class Residual(nn.Module):
    """Two 3 x 3 convolutions on a residual path that starts at zero.

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
        """Return the output, of the shape of `x`."""
        out: Tensor = x + self.second(F.silu(self.first(F.silu(x))))
        return out


class TerraMindNet(Network):
    """Network that corrects the default network's image with TerraMind's encoder; see the module.

    Parameters
    ----------
    size : str
        Size of the encoder: ``"tiny"``, ``"small"``, ``"base"`` or ``"large"``.
    encoder : {"terramind", "none"}
        ``"none"`` omits only the encoder, to measure its effect.
    base : sequence of (str, value)
        Arguments of the default network; ``from_pretrained("unet").spec.config`` for the published one.
    s1 : bool
        Whether it also uses Sentinel-1.
    calibration : pair of float
        Factors on the uncertainty: where a regression was fitted to the target's own pixels, and elsewhere.

    Raises
    ------
    ModelError
        If there is no such size, or Sentinel-1 is requested without an encoder.
    MissingDependencyError
        If terratorch is not installed.

    Notes
    -----
    All weights start at random, those of the encoder and the base included. TerraMind's own come from
    `xr_cloudfree.models.networks.terramind.weights`, those of the base from a bundle of the default network.
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
        layout = find_size(size)
        if encoder not in ("terramind", "none"):
            raise ModelError(f"encoder is {encoder!r}", "'terramind' or 'none'", "encoder: terramind")
        if s1 and encoder == "none":
            raise ModelError("s1 is true and encoder is 'none'", "an encoder, which uses Sentinel-1", "s1: false")
        self.calibration = calibration[0], calibration[1]
        self.size, self.levels, self.s1 = size, layout.levels, s1
        self.base = FusionUNet(**{str(name): value for name, value in base})
        self.stem = Stem(len(bands.SLOTS) + 2 + len(SHARED) + self.base.hidden + self.base.abstract)
        self.encoder = None
        if encoder == "terramind":
            self.encoder = build_encoder(size, (S2, S1) if s1 else (S2,))
            # Projects the stem's features to the tokens; bundles store it under this name.
            self.told = nn.Conv2d(COARSE + len(bands.SLOTS), layout.width, 1, bias=False)
            nn.init.zeros_(self.told.weight)
        self.decoder = Decoder(layout.width, len(layout.levels) if encoder == "terramind" else 0)
        self.bands = Bands(self.base.hidden)
        statistics = {
            "mean": bands.MEAN,
            "std": bands.STD,
            "s1_mean": bands.S1_MEAN,
            "s1_std": bands.S1_STD,
        }
        for name, values in statistics.items():
            self.register_buffer(name, torch.from_numpy(values)[:, None, None], persistent=False)

    def parts(self) -> dict[Literal["base", "encoder"], nn.Module]:
        """Return the base, and the encoder if there is one."""
        return {"base": self.base} if self.encoder is None else {"base": self.base, "encoder": self.encoder}

    def encoder_blocks(self) -> Iterable[nn.Module]:
        """Return the encoder's transformer blocks."""
        vit: Any = self.encoder
        return () if vit is None else tuple(vit.encoder)

    def start_from_pretrained(self) -> str:
        """Load TerraMind's own weights into the encoder; download them if they are not cached.

        Returns
        -------
        str
            Name of the weights, for the model card.

        Raises
        ------
        HubError
            If they cannot be downloaded.
        WeightsError
            If they are not those of the release.
        ModelError
            If there is no encoder.
        """
        if self.encoder is None:
            raise ModelError("the network has no encoder", "one, to give weights to", "encoder: terramind")
        weights.load(self.encoder, weights.fetch(self.size))
        return str(weights.RELEASES[self.size])

    def forward(self, batch: Batch) -> Output:
        """Return the image of the target date with its uncertainty."""
        base = self.base.reason(batch)
        own, seen = batch.target_clear, batch.known() | (batch.target_clear > 0)
        image = self.standard(
            layers.keep_clear(base.image, batch.target, own), seen, batch.features["interpolation_weights"]
        )
        y, x = image.shape[-2:]
        maps = F.pad(self._maps(batch, base, image, seen), (0, -x % PATCH, 0, -y % PATCH), mode="replicate")
        fine, middle, coarse = self.stem(maps)
        levels = self._levels(maps[:, : len(bands.SLOTS)], coarse, batch) if self.encoder is not None else []
        shared = self.decoder(levels, fine, middle, coarse)[..., :y, :x]
        hidden = layers.enlarged(base.hidden, UNET_STEP, (y, x))
        correction, logarithm = self.bands(hidden, shared, batch.features["one_hot"]).unbind(dim=2)
        unit = base.scale[:, :, None, None]
        corrected = torch.where(base.taught, layers.bounded(base.image, correction, unit), base.image)
        uncertainty = layers.calibrated(layers.scaled(base.uncertainty, logarithm), base.fitted, self.calibration)
        if not self.training:
            uncertainty = layers.in_context(uncertainty, batch)
        return Output(layers.keep_clear(corrected, batch.target, own), batch.known(), uncertainty)

    def standard(self, image: Tensor, seen: Tensor, band_weights: Tensor) -> Tensor:
        """Return an image in TerraMind's slots and standardised units, of shape (batch, slot, y, x).

        Parameters
        ----------
        image : Tensor, shape (batch, band, y, x)
            Reflectance.
        seen : Tensor of bool, shape (batch, 1, y, x)
            False where nothing is known: set to 0, the mean of TerraMind's training data.
        band_weights : Tensor, shape (batch, band, slot)
            See `xr_cloudfree.models.networks.terramind.bands.interpolation_weights`.
        """
        # One non-finite value would spread to all tokens. Padded bands have weight 0, but 0 x NaN is NaN.
        seen = seen & image.isfinite().all(dim=1, keepdim=True)
        with torch.autocast(image.device.type, enabled=False):  # half precision is coarser than the sensor
            numbers = torch.einsum("bcyx,bcs->bsyx", torch.where(seen, image.float(), 0.0), band_weights.float())
        return torch.where(seen, (numbers * bands.DIGITAL - self.mean) / self.std, 0.0)

    def tokens(self, image: Tensor, context: Tensor | None = None, s1: Tensor | None = None) -> list[Tensor]:
        """Return levels of the encoder, each of shape (batch, width, y / 16, x / 16).

        Parameters
        ----------
        image : Tensor, shape (batch, slot, y, x)
            Standardised, with a multiple of 16 rows and columns.
        context : Tensor, shape (batch, width, y / 16, x / 16), optional
            Added to the image's tokens.
        s1 : Tensor, shape (batch, 2, y, x), optional
            VV and VH, standardised.
        """
        assert self.encoder is not None
        vit: Any = self.encoder
        y, x = (n // PATCH for n in image.shape[-2:])
        embedded = [vit.encoder_embeddings[vit.mod_name_mapping[S2]](image)]
        if s1 is not None:
            embedded.append(vit.encoder_embeddings[vit.mod_name_mapping[S1]](s1))
        parts = [part["x"] + part["emb"] for part in embedded]
        if context is not None:
            parts[0] = parts[0] + context.flatten(2).mT
        tokens, levels = torch.cat(parts, dim=1), []
        for i, block in enumerate(vit.encoder):
            tokens = block(tokens)
            if i in self.levels:
                out = vit.encoder_norm(tokens) if i + 1 == len(vit.encoder) else tokens
                # The mean over the modalities at each position, as the encoder merges them.
                merged = out.unflatten(1, (len(parts), y * x)).mean(dim=1)
                levels.append(merged.mT.unflatten(2, (y, x)))
        return levels

    def _maps(self, batch: Batch, base: BaseOutput, image: Tensor, seen: Tensor) -> Tensor:
        """Return the maps that all bands share, shape (batch, map, y, x); the image's slots come first."""
        valid = batch.band_valid[:, :, None, None].to(image.dtype)
        count = valid.sum(dim=1, keepdim=True)
        doubt = torch.log(base.uncertainty.clamp(min=1e-4) / base.scale[:, :, None, None])
        doubt = (doubt * valid).sum(dim=1, keepdim=True) / count
        hidden = (base.hidden * valid[:, :, None]).sum(dim=1) / count
        hidden = layers.enlarged(hidden, UNET_STEP, (image.shape[-2], image.shape[-1]))
        known = seen.to(image.dtype)
        return torch.cat([image, known, doubt, batch.features["shared"], layers.squash(hidden), base.abstract], dim=1)

    def _levels(self, image: Tensor, coarse: Tensor, batch: Batch) -> list[Tensor]:
        """Return levels of the encoder for tiles, some of which may have Sentinel-1."""
        lacking = 1 - batch.features["one_hot"].sum(dim=1)
        maps = lacking[:, :, None, None].expand(-1, -1, *coarse.shape[-2:])
        context = self.told(torch.cat([F.silu(coarse), maps.to(coarse.dtype)], dim=1))
        if not (self.s1 and "s1" in batch.features):
            return self.tokens(image, context)
        radar, available = batch.features["s1"], batch.features["s1 seen"] > 0
        have = available.flatten(1).any(dim=1)
        if self.training:
            have &= torch.rand(have.shape, device=have.device) >= WITHOUT_S1
        y, x = image.shape[-2:]
        radar = torch.where(available & radar.isfinite(), (radar - self.s1_mean) / self.s1_std, 0.0)
        radar = F.pad(radar, (0, x - radar.shape[-1], 0, y - radar.shape[-2]))
        # Tokens of both modalities attend to each other, so tiles with both are processed separately from the others.
        levels: list[Tensor] | None = None
        for rows, has_radar in ((have, True), (~have, False)):
            if rows.any():
                part = self.tokens(image[rows], context[rows], radar[rows] if has_radar else None)
                levels = levels or [level.new_empty(len(image), *level.shape[1:]) for level in part]
                levels = [level.index_put((rows,), new) for level, new in zip(levels, part, strict=True)]
        assert levels is not None
        return levels


class Stem(nn.Module):
    """Maps at full, quarter and sixteenth resolution, each pixel computed from the area that it covers.

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
        """Return the three maps of an input of shape (batch, map, y, x), where 16 divides y and x."""
        fine = self.fine(maps)
        middle = self.middle(F.silu(fine))
        return fine, middle, self.coarse(F.silu(middle))


class Decoder(nn.Module):
    """Upsampling from tokens to pixels by pixel shuffles, combined with the stem's maps.

    Parameters
    ----------
    width : int
        Channels per token.
    levels : int
        Number of levels of the encoder; 0 without one.
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
        """Return features of shape (batch, channel, y, x)."""
        for norm, project, level in zip(self.norm, self.level, levels, strict=True):
            coarse = coarse + project(norm(level.movedim(1, -1)).movedim(-1, 1))
        coarse = self.coarse(coarse)
        middle = self.middle(middle + F.pixel_shuffle(self.up[0](F.silu(coarse)), STEP))
        fine = fine + F.pixel_shuffle(self.up[1](F.silu(middle)), STEP)
        out: Tensor = fine + self.fine(F.silu(fine))
        return out


class Bands(nn.Module):
    """Correction of each band and logarithm of its uncertainty, from the band's own features and the shared ones.

    The shared features are modulated by weights of the band's slot, so that the encoder's information on a colour
    reaches that colour; a band without a slot gets them unmodulated.

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

    def forward(self, hidden: Tensor, shared: Tensor, slots: Tensor) -> Tensor:
        """Return shape (batch, band, 2, y, x); `hidden` (batch, band, feature, y, x), `slots` (batch, band, slot)."""
        size = hidden.shape[:2]
        own = self.own(F.silu(hidden.flatten(0, 1))).unflatten(0, size)
        modulated = self.shared(F.silu(shared))[:, None] * (1 + self.gain(slots))[..., None, None]
        combined = F.silu(own + modulated + self.shift(slots)[..., None, None])
        out: Tensor = self.out(combined.flatten(0, 1)).unflatten(0, size)
        return out
