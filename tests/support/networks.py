"""Small networks with known answers, and bundles of them. Needs torch."""

from dataclasses import replace

import torch
from torch import nn

from xr_cloudfree.models.bundles import bundle
from xr_cloudfree.models.networks import architectures
from xr_cloudfree.models.networks.batch import Batch, Output
from xr_cloudfree.models.networks.inputs import prepare
from xr_cloudfree.models.networks.network import Network
from xr_cloudfree.models.pretrained.locations import from_pretrained
from xr_cloudfree.models.spec import ModelSpec

CARD = "# A network for tests\n"


class Tiny(Network):
    """A weighted mean of the clear dates, a learned texture, and the mean of the tile, as attention has it."""

    def __init__(self, hidden: int = 4, context: float = 0.1) -> None:
        super().__init__()
        self.texture = nn.Sequential(
            nn.Conv2d(1, hidden, 3, padding=1), nn.BatchNorm2d(hidden), nn.Conv2d(hidden, 1, 1)
        )
        self.reach = nn.Parameter(torch.tensor(20.0))
        self.context = context

    def forward(self, batch: Batch) -> Output:
        near = torch.exp(-batch.day_offset.abs() / self.reach)[:, :, None, None, None]
        weight = near * batch.clear * batch.date_valid[:, :, None, None, None]
        gate = weight / weight.sum(dim=1, keepdim=True).clamp_min(1e-12)
        image = (gate * batch.bands).sum(dim=1)
        drawn = torch.tanh(self.texture(image.flatten(0, 1)[:, None])).unflatten(0, image.shape[:2])[:, :, 0]
        image = image + 0.05 * drawn + self.context * image.mean(dim=(2, 3), keepdim=True)
        return Output(image, batch.known(), 0.01 + image.abs(), gate)


class PerBand(Network):
    """Answers for each band its own number: a band that takes another's place shows."""

    def __init__(self, bands: int) -> None:
        super().__init__()
        self.level = nn.Parameter(torch.linspace(0.1, 0.5, bands))

    def forward(self, batch: Batch) -> Output:
        image = self.level[None, :, None, None] + 0.0 * batch.bands.mean(dim=1)
        return Output(image, batch.known())


class Own(Network):
    """Prepares its tiles itself: it is given twice the reflectance."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Parameter(torch.ones(()))

    @staticmethod
    def prepare(obs, max_dates=60):
        made = prepare(obs, max_dates)
        return replace(made, bands=2 * made.bands)

    def forward(self, batch: Batch) -> Output:
        return Output(self.one * batch.bands.amax(dim=1), batch.known())


class Radar(Network):
    """The mean of the clear dates, and where Sentinel-1 was seen a thousandth of VV - VH less the tile's mean of it."""

    def __init__(self, s1: bool = False) -> None:
        super().__init__()
        self.share = nn.Parameter(torch.tensor(0.001))
        self.s1 = s1

    def forward(self, batch: Batch) -> Output:
        weight = batch.clear * batch.date_valid[:, :, None, None, None]
        image = (weight * batch.bands).sum(dim=1) / weight.sum(dim=1).clamp_min(1)
        if self.s1 and "s1" in batch.features and batch.features["s1 seen"].any():
            radar, seen = batch.features["s1"], batch.features["s1 seen"]
            ratio = (radar[:, :1] - radar[:, 1:]) * seen
            image = image + self.share * (ratio - ratio.mean(dim=(2, 3), keepdim=True))
        return Output(image, batch.known())


for name, network in {"x-tiny": Tiny, "x-per-band": PerBand, "x-own": Own, "x-radar": Radar}.items():
    architectures.ARCHITECTURES[name] = architectures.Architecture(f"{__name__}:{network.__name__}")

TINY = ModelSpec(
    "tiny",
    "a network for tests",
    units="reflectance",
    tile=24,
    stride=16,
    batch=3,
    layers=("source_time", "uncertainty", "gate"),
    architecture="x-tiny",
    config=(("hidden", 4),),
    max_dates=60,
    license="CC0-1.0",
)


RADAR = {"name": "radar", "architecture": "x-radar", "config": (("s1", True),), "layers": ()}


def state_of(spec, seed=0):
    """Weights of a network, other than those that it starts with."""
    torch.manual_seed(seed)
    state = architectures.build(spec).state_dict()
    return {name: t + 0.1 * torch.rand(t.shape) if t.is_floating_point() else t for name, t in state.items()}


def make_bundle(folder, seed=0, **changes):
    """Write a bundle and give its spec."""
    spec = replace(TINY, **changes)
    return bundle.write(folder, spec, state_of(spec, seed), CARD)


def make_model(folder, seed=0, device="cpu", precision="fp32", **changes):
    """A learned model from a bundle that is written for it."""
    make_bundle(folder, seed, **changes)
    return from_pretrained(f"local-dir:{folder}", device, precision)
