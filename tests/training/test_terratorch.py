"""``terratorch fit`` trains our network on our data, and what it saves fills a cube."""

from __future__ import annotations

import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest
import yaml

import xr_cloudfree
from xr_cloudfree import synthetic
from xr_cloudfree_training.cli import find_recipe

pytestmark = pytest.mark.skipif(find_spec("terratorch") is None, reason="terratorch is not installed")
RECIPE = find_recipe("terratorch/terramind-tiny")


def test_it_is_the_recipe_of_our_own_command_in_terratorchs_form() -> None:
    theirs, ours = (yaml.safe_load(find_recipe(n).read_text()) for n in ("terratorch/terramind-tiny", "terramind-tiny"))
    for part in ("model", "data"):
        told = theirs[part]["init_args"]
        for lists in (told, ours[part]):
            for name in ("spec", "cubes", "architecture"):
                lists.pop(name, None)
        assert told == ours[part]


@pytest.mark.slow
def test_two_steps(tmp_path: Path) -> None:
    cube = synthetic.cube(shape=(10, 4, 48, 80), seed=0, cloud_share=0.3)
    cube.assign_coords(band=cube["band"].astype(object)).to_zarr(tmp_path / "field.zarr", consolidated=False)
    how = {
        "trainer": ["max_steps=2", "accelerator=cpu", "default_root_dir=run", "logger=false"],
        "model.init_args": ["pretrained=false", "stages=[{share: 0.5, encoder: lora, lr: 1e-3, encoder_lr: 1e-3},"
                            " {share: 0.5, encoder: full, lr: 1e-3, encoder_lr: 1e-3}]"],
        "data.init_args": ["cubes=[field.zarr]", "size=32", "crop=null", "pool=4", "cache=null", "batch_size=2",
                           "samples=4", "validation=2", "workers=0"],
    }  # fmt: skip
    options = [f"--{part}.{option}" for part, given in how.items() for option in given]
    command = [sys.executable, "-m", "terratorch", "fit", "--config", str(RECIPE), *options]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    image = xr_cloudfree.fill(cube, "2023-06-10", model=f"local-dir:{tmp_path / 'run' / 'bundle'}")
    assert image.attrs["cloudfree_model"] == "terramind"
    card = (tmp_path / "run" / "bundle" / "README.md").read_text()
    assert "Steps: 2 of 2 samples" in card
