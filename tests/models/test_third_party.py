"""A package that brings a plain model and a network: both work, and the network is trained, like the package's own."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("safetensors")

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = {
    "other/__init__.py": """
from xr_cloudfree.models.networks.architectures import Architecture

NEAR_MEAN = Architecture("other.network:NearMean")
LACKING = Architecture("other.network:NearMean", ("no_such_package",), "pip install no-such-package")
NO_NETWORK = Architecture("other.network:Plain")
""",
    "other/model.py": """
from xr_cloudfree.models.protocol import BaseModel, Prediction
from xr_cloudfree.models.spec import ModelSpec


class Mean(BaseModel):
    spec = ModelSpec("other-mean", "mean of all dates", units="reflectance")
    uses_gpu = True

    def predict(self, tiles):
        return [Prediction(obs.bands.mean(axis=0, dtype="f4"), obs.clear.any(axis=0)) for obs in tiles]


class Chooser(BaseModel):
    spec = ModelSpec("other-chooser", "another model for each cube")

    def choose(self, *, layers, bands, common_names):
        return Mean()

    def predict(self, tiles):
        raise AssertionError("the chosen model predicts")
""",
    "other/network.py": '''
import torch
from torch import nn

from xr_cloudfree.models.networks.batch import Batch, Output
from xr_cloudfree.models.networks.network import Network


class NearMean(Network):
    """A mean of the clear dates that fades with the distance in time."""

    def __init__(self, days: float = 10.0) -> None:
        super().__init__()
        self.days = nn.Parameter(torch.tensor(days))

    def forward(self, batch: Batch) -> Output:
        near = torch.exp(-batch.day_offset.abs() / self.days)[:, :, None, None, None]
        weight = near * batch.clear * batch.date_valid[:, :, None, None, None]
        gate = weight / weight.sum(dim=1, keepdim=True).clamp_min(1e-12)
        return Output((gate * batch.bands).sum(dim=1), batch.known(), gate=gate)


class Plain(nn.Module):
    pass
''',
    "other-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: other\nVersion: 1.0\n",
    "other-1.0.dist-info/entry_points.txt": """
[xr_cloudfree.models]
other-mean = other.model:Mean
other-chooser = other.model:Chooser

[xr_cloudfree.networks]
near-mean = other:NEAR_MEAN
lacking = other:LACKING
no-network = other:NO_NETWORK
class-itself = other.network:NearMean
""",
}
USE = """
import sys, warnings
import xr_cloudfree
from xr_cloudfree import synthetic

cube, out = synthetic.cube(shape=(8, 3, 48, 48), seed=0), sys.argv[1]
date = str(cube.time.values[4])[:10]
models = xr_cloudfree.list_models()
assert models.loc["other-mean", "kind"] == "classical"
plain = xr_cloudfree.fill(cube, date, model="other-mean")
assert xr_cloudfree.fill(cube, date, model="other-chooser").identical(plain)
xr_cloudfree.fill(cube.chunk(y=24), date, model="other-mean")
assert "torch" not in sys.modules and "other.network" not in sys.modules

from xr_cloudfree.errors import MissingDependencyError, ModelError
from xr_cloudfree.models.bundles import bundle
from xr_cloudfree.models.networks import architectures
from xr_cloudfree.models.spec import ModelSpec

assert {"near-mean", "unet-plus", "unet-paper", "terramind"} <= set(architectures.names())
spec = ModelSpec("mine", "my own", units="reflectance", tile=32, stride=16, architecture="near-mean", layers=("gate",))
network = architectures.build(spec)
bundle.write(__import__("pathlib").Path(out) / "bundle", spec, network.state_dict(), "# Mine")
image = xr_cloudfree.fill(cube, date, model=f"local-dir:{out}/bundle", layers="all")
assert "gate" in image and image.attrs["cloudfree_model"] == "mine", image.attrs
model = xr_cloudfree.from_pretrained(f"local-dir:{out}/bundle")
assert model.tiles_at_once >= 1 and model.uses_gpu

def refusal(kind, call):
    try:
        call()
    except kind as error:
        return str(error)
    raise AssertionError("nothing was refused")

assert "no-such-package" in refusal(MissingDependencyError, lambda: architectures.check_installed("lacking"))
assert "subclass of Network" in refusal(ModelError, lambda: architectures.find("no-network"))
assert "Architecture(" in refusal(ModelError, lambda: architectures.find("class-itself"))
"""
TRAIN = """
import sys, warnings
from pathlib import Path
from lightning.pytorch import Trainer
import xr_cloudfree
from xr_cloudfree import synthetic
from xr_cloudfree_training.data import CubeData
from xr_cloudfree_training.lit import FusionModule

warnings.simplefilter("ignore")
out = sys.argv[1]
cube = synthetic.cube(shape=(8, 3, 48, 64), seed=0, cloud_share=0.3)
data = CubeData([cube], architecture="near-mean", size=16, batch_size=2, samples=2, validation=2, workers=0)
module = FusionModule("near-mean", loss={"mse": 1.0}, lr=0.1, ema=None)
trainer = Trainer(default_root_dir=out, max_steps=1, accelerator="cpu", logger=False, enable_progress_bar=False,
                  enable_model_summary=False, fast_dev_run=True)
trainer.fit(module, data)
assert module.network.days.item() != 10.0
module.save_bundle(Path(out) / "trained", "trained", "# Trained")
image = xr_cloudfree.fill(cube, str(cube.time.values[4])[:10], model=f"local-dir:{out}/trained")
assert image.attrs["cloudfree_model"] == "trained"
"""


@pytest.fixture(scope="module")
def installed(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    for name, text in PACKAGE.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(text)
    return folder


def run(code, installed, out):
    path = [str(installed), str(ROOT), str(ROOT / "training"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, path))}
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr


def test_a_plain_model_and_a_bundle_are_used(installed, tmp_path):
    run(USE, installed, tmp_path)


def test_a_network_is_trained(installed, tmp_path):
    pytest.importorskip("lightning")
    run(TRAIN, installed, tmp_path)
