"""`cloudfree train`: its entry point, its errors, and the bundle that it saves."""

from __future__ import annotations

import ast
import subprocess
import sys
from importlib.metadata import EntryPoint
from pathlib import Path

import numpy as np
import pytest
import typer
import yaml
from typer.testing import CliRunner

import xr_cloudfree
from tests.support.training import QUICK, SMALL, run
from xr_cloudfree import io
from xr_cloudfree.cli import commands
from xr_cloudfree.cli.app import app
from xr_cloudfree_training.cli import RECIPES

PACKAGE = Path(xr_cloudfree.__file__).parent
RECIPE_NAMES = sorted(path.stem for path in RECIPES.glob("*.yaml"))
# A small encoder and no download; the networks are otherwise those of the recipes.
PAPER = ["--model.pretrained", "false", "--model.config", "{encoder: mnasnet_small, h_agg: 4}"]
PAPER += ["--model.spec", "{tile: 64, stride: 48}"]
pytestmark = pytest.mark.usefixtures("folder")


def test_help_and_recipes() -> None:
    assert "unet" in run("--help") and "recipes" in run("--help")
    assert "train" in CliRunner().invoke(app, ["--help"]).output
    assert "{fit,validate}" in run("unet")
    fit = run("unet", "fit", "--help")
    assert all(option in fit for option in ("--out", "--data.holdout", "--model.loss", "--trainer.max_epochs"))
    listed = run("recipes")
    assert sorted(line.split()[0] for line in listed.splitlines()) == sorted(
        [*RECIPE_NAMES, "terratorch/terramind-tiny"]
    )
    assert {"unet-paper-feat", "unet-paper-mse", "unet-plus"} <= set(RECIPE_NAMES)
    assert run("recipes", "unet-plus") == (RECIPES / "unet-plus.yaml").read_text()


@pytest.mark.parametrize("recipe", [name for name in RECIPE_NAMES if name.startswith("unet")])
def test_each_recipe_runs(recipe: str, cube: str) -> None:
    small = SMALL + (PAPER if "paper" in recipe else [])
    output = run("unet", "fit", "--config", recipe, "--data", cube, *small, "--trainer.fast_dev_run", "true")
    assert "nothing is saved" in output and not Path("runs", recipe).exists()


def test_a_training_of_ones_own_is_saved_and_fills(cube: str, folder: Path) -> None:
    output = run("unet", "fit", "--config", "unet-paper-mse", "--data", cube, *QUICK, *PAPER)
    bundle = Path("runs/unet-paper-mse/bundle")
    assert f"--model local-dir:{bundle}" in output and "dB on field-held-out" in output
    card = (bundle / "README.md").read_text()
    assert "Trained on: field-train" in card and "1 × mse" in card and "blue, green, red, nir" in card
    ds = io.open_cube(cube).load()
    image = xr_cloudfree.fill(ds, "2023-06-10", model=f"local-dir:{bundle}", layers=["filled"])
    assert image.attrs["cloudfree_model"] == "unet-paper-mse" and np.isin(image["filled"], (1, 2)).mean() > 0.9
    logs = Path("runs/unet-paper-mse/log/version_0")
    assert {"metrics.csv", "config.yaml", "pictures"} <= {path.name for path in logs.iterdir()}
    # The settings of a run are kept, and are a recipe.
    assert yaml.safe_load((logs / "config.yaml").read_text())["data"]["cubes"] == [cube]

    # A second training does not write over the first; it goes on from it, or goes elsewhere.
    again = ("unet", "fit", "--config", "unet-paper-mse", "--data", cube, *QUICK, *PAPER)
    assert "holds a training already" in run(*again, code=2)
    more = run(*again, "--ckpt_path", "last", "--trainer.max_epochs", "2", "--out", "mine")
    assert "local-dir:mine" in more and Path("mine/weights.safetensors").is_file()
    rows = Path("runs/unet-paper-mse/log/version_1/metrics.csv").read_text().splitlines()
    step = rows[0].split(",").index("step")
    assert {int(row.split(",")[step]) for row in rows[1:]} == {2, 3}  # the second epoch alone


FIT = ("unet", "fit", "--config", "unet-paper-mse")
ERRORS = {
    "nothing follows --data": (*FIT, "--data"),
    "no recipe is called 'unet-plsu'": ("unet", "fit", "--config", "unet-plsu", "--data", "field.zarr"),
    "there is no recipe at mine.yaml": ("unet", "fit", "--config", "mine.yaml", "--data", "field.zarr"),
    "no recipe is called 'unet-minus'": ("recipes", "unet-minus"),
    # These take longer: Lightning's command line has to be made.
    "no cube is named": FIT,
    "nowhere.zarr: there is nothing": (*FIT, "--data", "nowhere.zarr"),
    "--data.reading.mask": (*FIT, "--data", "field.zarr", "--data.reading.mask", "nope"),
    "does not accept option 'model.depth'": ("unet", "fit", "--config", "unknown.yaml", "--data", "field.zarr"),
    "unrecognized arguments: --model.depth": (*FIT, "--data", "field.zarr", "--model.depth", "3"),
    "unrecognized arguments: --data.sample": (*FIT, "--data", "field.zarr", "--data.sample", "8"),
    "there is no checkpoint no.ckpt": (*FIT, "--data", "field.zarr", *PAPER, "--ckpt_path", "no.ckpt"),
}


@pytest.mark.parametrize("found", ERRORS)
def test_errors_come_before_training_and_without_a_traceback(found: str, cube: str) -> None:
    Path("unknown.yaml").write_text("model: {architecture: unet-paper, depth: 3}\n")
    output = run(*ERRORS[found], code=2)
    assert found in output and "needed" in output and "   try" in output
    assert "Traceback" not in output and not Path("runs").exists()


def test_without_the_extra_the_command_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in sys.modules if name.startswith(("lightning", "xr_cloudfree_training."))]:
        if name != "xr_cloudfree_training.cli":
            monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, "lightning", None)
    monkeypatch.setitem(sys.modules, "lightning.pytorch", None)
    output = run("unet", "fit", code=2)
    assert "pip install 'xr-cloudfree[train]'" in output and "Traceback" not in output
    # What does not train needs nothing.
    assert "unet-plus" in run("recipes")


def test_help_is_light() -> None:
    code = (
        "import sys; from typer.testing import CliRunner; from xr_cloudfree.cli.app import app;"
        "CliRunner().invoke(app, ['train', '--help']);"
        "print([m for m in ('torch', 'lightning', 'xarray') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() in ("[]", "['xarray']")


def test_a_package_that_fails_to_import_leaves_the_others_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = EntryPoint("broken", "no_such_module:app", commands.GROUP)
    odd = EntryPoint("odd", "xr_cloudfree.errors:CloudfreeError", commands.GROUP)

    def points(group: str, name: str | None = None) -> list[EntryPoint]:
        assert group == commands.GROUP
        return [point for point in (broken, odd) if name in (None, point.name)]

    monkeypatch.setattr(commands, "entry_points", points)
    listed = CliRunner().invoke(app, ["--help"])
    assert listed.exit_code == 0 and all(name in listed.output for name in ("fill", "broken", "odd"))
    for name, found in (("broken", "no_such_module"), ("odd", "not a typer.Typer")):
        result = CliRunner().invoke(app, [name, "--whatever"])
        assert result.exit_code == 2 and found in result.output and "pip install --upgrade" in result.output
    assert CliRunner().invoke(app, ["nothing"]).exit_code != 0


def test_the_programs_own_commands_win(monkeypatch: pytest.MonkeyPatch) -> None:
    point = EntryPoint("models", "no_such_module:app", commands.GROUP)
    monkeypatch.setattr(commands, "entry_points", lambda group, name=None: [point])
    assert "linear" in CliRunner().invoke(app, ["models"]).output


def test_a_command_of_another_package(monkeypatch: pytest.MonkeyPatch) -> None:
    theirs = typer.Typer(help="From elsewhere.")

    @theirs.command()
    def hello(name: str) -> None:
        typer.echo(f"hello {name}")

    monkeypatch.setattr(EntryPoint, "load", lambda self: theirs)
    monkeypatch.setattr(
        commands, "entry_points", lambda group, name=None: [EntryPoint("hello", "their:app", commands.GROUP)]
    )
    assert CliRunner().invoke(app, ["hello", "you"]).output == "hello you\n"


def test_the_library_never_imports_the_training() -> None:
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import) else []
            names += [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            assert not any(name.startswith("xr_cloudfree_training") for name in names), path
