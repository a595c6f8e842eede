"""Models with known answers, which show what the engine does with them."""

import atexit
import tempfile
from functools import cache
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest

from xr_cloudfree.models.protocol import Prediction
from xr_cloudfree.models.spec import ModelSpec


class Identity:
    """Answers the mean of all dates, clear or not: a pixelwise model whose answer numpy gives too."""

    spec = ModelSpec("identity", "mean of all dates", units="reflectance")

    def predict(self, tiles):
        return [Prediction(obs.bands.mean(axis=0, dtype=np.float32), np.ones(obs.shape, bool)) for obs in tiles]


class Tiled(Identity):
    """The same with small tiles: on a cube whose values are its pixels' positions, a misplaced tile shows."""

    spec = ModelSpec("tiled", "mean of all dates", units="reflectance", tile=16, stride=8)


class TileWide:
    """Adds the mean of its whole tile, as attention and instance norm do: a tile that depends on chunks shows."""

    spec = ModelSpec("tilewide", "with a tile-wide term", units="reflectance", tile=24, stride=16)

    def __init__(self, spec=None):
        self.spec = spec or self.spec

    def predict(self, tiles):
        answers = []
        for obs in tiles:
            image = np.where(obs.clear[:, None], obs.bands, 0).mean(axis=0)
            image = image + image.mean(axis=(1, 2), keepdims=True)
            answers.append(Prediction(image.astype(np.float32), obs.clear.any(axis=0)))
        return answers


class Blended(TileWide):
    """The same with tapered tiles."""

    spec = ModelSpec("blended", "with a tile-wide term", units="reflectance", tile=32, stride=16, taper=True)


class Greedy(TileWide):
    """The same, with several tiles at once wherever nothing else runs; it remembers how many it was given."""

    spec = ModelSpec("greedy", "with a tile-wide term", units="reflectance", tile=24, stride=16, batch=2)
    tiles_at_once = 6

    def __init__(self):
        self.given = []

    def predict(self, tiles):
        self.given.append(len(tiles))
        return super().predict(tiles)


MODELS = {"identity": Identity(), "tiled": Tiled(), "tilewide": TileWide(), "blended": Blended()}
# Networks with a tile-wide term, with cores that are kept and with tapered tiles.
LEARNED = {
    "learned": {},
    "learned, blended": {"tile": 32, "stride": 16, "taper": True},
    "terramind": {
        "name": "terramind",
        "architecture": "terramind",
        "config": (("base", (("widths", (4, 6)), ("gate_width", 4))),),
        "tile": 48,
        "stride": 32,
        "layers": ("source_time", "uncertainty"),
    },
}


@cache
def model_of(name):
    """The model, or its name where the package has it."""
    if name not in LEARNED:
        return MODELS.get(name, name)
    pytest.importorskip("torch")
    pytest.importorskip("safetensors")
    if name == "terramind" and find_spec("terratorch") is None:
        pytest.skip("needs terratorch")
    from tests.support.networks import make_model

    folder = tempfile.TemporaryDirectory()
    atexit.register(folder.cleanup)
    return make_model(Path(folder.name), **LEARNED[name])
