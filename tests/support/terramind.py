"""Small networks of the TerraMind pathway. Needs terratorch."""

import torch

from xr_cloudfree.models.networks.terramind.network import TerraMindNet
from xr_cloudfree.models.spec import ModelSpec

BASE = (("widths", (8, 12)), ("gate_width", 8))
TEN = ("blue", "green", "red", "rededge071", "rededge075", "rededge078", "nir", "nir08", "swir16", "swir22")
NOTE = "trained from a random start: not the weights that IBM and ESA published"
SPEC = ModelSpec(
    "terramind",
    "TerraMind's tiny architecture from a random start, on the default network",
    units="reflectance",
    tile=48,
    stride=32,
    layers=("source_time", "uncertainty"),
    architecture="terramind",
    config=(("base", BASE),),
    min_bands=3,
    max_bands=12,
    note=NOTE,
)


def make(random=True, **config):
    """Return a network; `random` moves all weights but the encoder's away from their start, as training does."""
    torch.manual_seed(0)
    net = TerraMindNet(base=BASE, **config)
    with torch.no_grad():
        for name, weight in net.named_parameters():
            if name.startswith("base.") or (random and not name.startswith("encoder.")):
                weight.add_(0.1 * torch.randn_like(weight))
    return net.eval()
