"""Training of the TerraMind pathway, with the real encoder: at random, or with a stand-in for the published weights."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from tests.support.training import QUICK, SMALL, run
from xr_cloudfree.errors import HubError
from xr_cloudfree.models.bundles import bundle
from xr_cloudfree.models.networks.terramind import encoder, weights
from xr_cloudfree_training.cli import RECIPES, translate

pytest.importorskip("terratorch")
pytestmark = pytest.mark.usefixtures("folder")
FIT = ("terramind", "fit", "--config")
# The sizes differ in numbers alone; a small encoder tells all that a recipe can be wrong in.
SHRUNK = ["--model.pretrained", "false", "--model.config", "{size: tiny, encoder: terramind}"]
SHRUNK += ["--data.crop", "{size: 32, bands: 4, dates: 4}", "--data.pool", "4", "--data.cache", "kept"]


@pytest.mark.parametrize("recipe", sorted(path.stem for path in RECIPES.glob("terramind-*.yaml")))
def test_each_recipe_runs(recipe: str, cube: str) -> None:
    small = [*SMALL, *SHRUNK]
    output = run(*FIT, recipe, "--data", cube, *small, "--trainer.fast_dev_run", "true")
    assert "nothing is saved" in output and not Path("runs", recipe).exists()


def test_a_training_through_all_stages_fills(cube: str) -> None:
    quick = [*QUICK, *SHRUNK, "--data.samples", "8", "--trainer.accumulate_grad_batches", "1", "--out", "mine"]
    output = run(*FIT, "terramind-base", "--data", cube, *quick)
    assert "local-dir:mine" in output
    weights = load_file(Path("mine") / bundle.WEIGHTS)
    assert not [name for name in weights if "lora" in name or "base_layer" in name]
    card = Path("mine/README.md").read_text()
    assert "its base, `unet` (weights" in card and "all else at random" in card
    import xr_cloudfree
    from xr_cloudfree import io

    image = xr_cloudfree.fill(io.open_cube(cube).load(), "2023-06-10", model="local-dir:mine", layers=["filled"])
    assert image.attrs["cloudfree_model"] == "terramind-base"


def test_ablations(cube: str) -> None:
    small = ["--data", cube, *SMALL, *SHRUNK, "--trainer.fast_dev_run", "true"]
    run(*FIT, "terramind-tiny-scratch", *small, "--model.config.encoder", "none")
    run(*FIT, "terramind-tiny-scratch", *small, "--model.stages", "[{share: 1.0, encoder: frozen, lr: 2.0e-3}]")


@pytest.fixture
def stand_in(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A file that is taken for the published weights: those of another random encoder."""
    torch.manual_seed(5)
    path = tmp_path / "tiny.safetensors"
    save_file({name: t.contiguous() for name, t in encoder.build_encoder("tiny").state_dict().items()}, path)
    monkeypatch.setattr(weights, "fetch", lambda size: path)
    return path


def test_published_weights_are_taken_key_by_key(stand_in: Path) -> None:
    from xr_cloudfree_training.lit import FusionModule

    torch.manual_seed(0)
    fresh = FusionModule("terramind", {"size": "tiny"}, base="unet").network
    torch.manual_seed(0)
    made = FusionModule("terramind", {"size": "tiny"}, base="unet", pretrained=True)
    given = load_file(stand_in)
    state, other = made.network.encoder.state_dict(), fresh.encoder.state_dict()
    assert given.keys() == state.keys() and all(torch.equal(given[name], state[name]) for name in given)
    image = torch.randn(1, 12, 32, 32)
    with torch.no_grad():
        one, two = made.network.tokens(image), fresh.tokens(image)
    assert all((a - b).abs().max() > 0.1 for a, b in zip(one, two, strict=True))
    assert other.keys() == state.keys()
    assert any("TerraMind-1.0-tiny" in line for line in made.began)


@pytest.mark.parametrize("wrong", ["lacking", "unknown", "shape"])
def test_other_weights_are_refused_before_training(stand_in: Path, cube: str, wrong: str) -> None:
    given = load_file(stand_in)
    first = next(name for name in given if name.startswith("encoder.0") and given[name].ndim == 2)
    if wrong == "lacking":
        del given[first]
    elif wrong == "unknown":
        given["encoder.12.norm1.weight"] = torch.ones(192)
    else:
        given[first] = given[first][1:]
    save_file({name: t.contiguous() for name, t in given.items()}, stand_in)
    output = run(*FIT, "terramind-tiny", "--data", cube, *QUICK, code=2)
    assert "the weights of TerraMind 1.0 of this size" in " ".join(output.split())
    assert not Path("runs", "terramind-tiny").exists()  # samples may have been made: they are good for any training


def test_without_a_network_it_is_told_at_once(tmp_path: Path) -> None:
    """In a process of its own: nothing heavy is imported, and no data are read."""
    code = (
        "import sys, time\n"
        "from typer.testing import CliRunner\n"
        "from xr_cloudfree.cli.app import app\n"
        "import xr_cloudfree_training.cli\n"
        "start = time.monotonic()\n"
        "call = ['train', 'terramind', 'fit', '--config', 'terramind-base', '--data', 'no.zarr']\n"
        "done = CliRunner().invoke(app, call)\n"
        "print(done.output, done.exit_code, [m for m in ('torch', 'lightning', 'terratorch') if m in sys.modules])\n"
        "print(time.monotonic() - start)\n"
    )
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "HF_HOME": str(tmp_path), "PATH": "", "HOME": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    assert "ibm-esa-geospatial/TerraMind-1.0-base" in done.stdout and "2 []" in done.stdout
    assert "terramind-tiny-scratch" in done.stdout
    assert float(done.stdout.splitlines()[-1]) < 5


def test_what_is_asked_for_is_fetched_once(monkeypatch: pytest.MonkeyPatch, cube: str) -> None:
    asked: list[str] = []

    def fetch(size: str) -> Path:
        asked.append(size)
        raise HubError("nothing here", "a network", "another day")

    monkeypatch.setattr(weights, "fetch", fetch)
    run(*FIT, "terramind-large", "--data", cube, code=2)
    run(*FIT, "terramind-large", "--data", cube, "--model.config.size", "small", code=2)
    run(*FIT, "terramind-tiny-scratch", "--data", cube, "--model.pretrained=true", code=2)
    assert asked == ["large", "small", "tiny"]
    assert translate(["fit"], "terramind-tiny-scratch")[1].endswith("terramind-tiny-scratch.yaml")
