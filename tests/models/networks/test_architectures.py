"""Networks by name."""

from __future__ import annotations

import subprocess
import sys

import pytest

from xr_cloudfree.errors import MissingDependencyError, ModelError
from xr_cloudfree.models.networks.architectures import build
from xr_cloudfree.models.networks.paper_unet import TimeGateUNet
from xr_cloudfree.models.spec import ModelSpec

CONFIG = (("bands", 3), ("encoder", "mnasnet_small"), ("h_agg", 4))


def spec(architecture, config=CONFIG):
    return ModelSpec("one", "a network", architecture=architecture, config=config)


def test_a_network_is_built_from_its_config():
    network = build(spec("unet-paper"))
    assert isinstance(network, TimeGateUNet)
    assert (network.gate.bands, network.gate.features, network.unet.encoder_name) == (3, 4, "mnasnet_small")


def test_names_alone_import_nothing():
    module = "xr_cloudfree.models.networks.architectures"
    code = f"import sys, {module}; print([m for m in ('torch', 'timm') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize("architecture", [None, "unet-minus"])
def test_an_unknown_architecture(architecture):
    with pytest.raises(ModelError, match=r"one of terramind, unet-paper, unet-plus"):
        build(spec(architecture))


@pytest.mark.parametrize("config", [(), (*CONFIG, ("depth", 3))])
def test_arguments_that_the_network_does_not_take(config):
    with pytest.raises(ModelError, match="does not take its config"):
        build(spec("unet-paper", config))


def test_without_torch(monkeypatch):
    monkeypatch.delitem(sys.modules, "xr_cloudfree.models.networks.paper_unet")
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(MissingDependencyError, match=r"torch.*pip install 'xr-cloudfree\[torch\]'"):
        build(spec("unet-paper"))
