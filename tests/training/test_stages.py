"""Fine-tuning in stages: what is trained when and how fast, adapters that are merged, resuming within a stage."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import xarray as xr
from lightning.pytorch import Callback
from safetensors.torch import load_file
from torch import nn

from tests.support.training import EachStep, Recorder, trainer
from xr_cloudfree import from_pretrained, synthetic
from xr_cloudfree.errors import ModelError, OptionError
from xr_cloudfree.models.bundles import bundle
from xr_cloudfree.models.networks import architectures
from xr_cloudfree.models.networks.batch import Batch, Output
from xr_cloudfree.models.networks.network import Network
from xr_cloudfree.models.spec import ModelSpec
from xr_cloudfree_training import stages
from xr_cloudfree_training.data import CubeData
from xr_cloudfree_training.lit import FusionModule
from xr_cloudfree_training.stages import Plan, Stage, enter, parts, plain

BANDS = ("blue", "green", "red", "nir")
THREE = [Stage(0.25, "frozen", 1e-2), Stage(0.25, "lora", 1e-2, 1e-2), Stage(0.5, "full", 5e-3, 1e-3)]


class Level(Network):
    """A base: a mean of the clear dates and an offset."""

    def __init__(self, start: float = 0.01) -> None:
        super().__init__()
        self.offset = nn.Parameter(torch.tensor(start))

    def forward(self, batch: Batch) -> Output:
        image = batch.bands.sum(dim=1) / batch.clear.sum(dim=1).clamp(min=1)
        return Output(image + self.offset, batch.known())


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(4, 16), nn.Linear(16, 4)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.fc2(torch.tanh(self.fc1(x)))


class Tall(nn.Module):
    """An encoder with blocks, whose layers are called as TerraMind's."""

    def __init__(self) -> None:
        super().__init__()
        self.encoder = nn.ModuleList(Block() for _ in range(2))


class Staged(Network):
    """A network that goes on from another one, through an encoder, with dropout."""

    def __init__(self, bands: int = 4, base: Any = ()) -> None:
        super().__init__()
        self.base, self.encoder = Level(**dict(base)), Tall()
        self.head = nn.Sequential(nn.Dropout(0.3), nn.Conv2d(4, bands, 1))
        nn.init.zeros_(self.head[1].weight)

    def parts(self) -> dict[str, nn.Module]:
        return {"base": self.base, "encoder": self.encoder}

    def encoder_blocks(self) -> nn.ModuleList:
        return self.encoder.encoder

    def forward(self, batch: Batch) -> Output:
        found = self.base(batch)
        x = found.reflectance.movedim(1, -1)
        for block in self.encoder.encoder:
            x = block(x)
        image = found.reflectance + self.head(x.movedim(-1, 1))
        return Output(image, found.known, 0.02 + 0 * image.detach())


architectures.ARCHITECTURES["x-level"] = architectures.Architecture(f"{__name__}:Level")
architectures.ARCHITECTURES["x-staged"] = architectures.Architecture(f"{__name__}:Staged")


@pytest.fixture(scope="module")
def cube() -> xr.Dataset:
    return synthetic.cube(shape=(10, 4, 48, 64), seed=0, cloud_share=0.3)


def data(cube: xr.Dataset, **options: Any) -> CubeData:
    how = {"size": 16, "batch_size": 2, "samples": 8, "validation": 4, "workers": 0, "seed": 3, "vary_bands": False}
    return CubeData([cube], architecture="x-staged", **how, **options)


def module(**options: Any) -> FusionModule:
    torch.manual_seed(0)
    how = {"stages": THREE, "loss": {"mse": 1.0}, "schedule": "constant", "ema": 0.9}
    return FusionModule("x-staged", bands=BANDS, seed=3, **{**how, **options})


class Watch(Callback):
    """Which parts changed in each step, and the rates."""

    def __init__(self) -> None:
        self.moved: list[set[str]] = []
        self.rates: list[dict[str, float]] = []

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx) -> None:
        self.before = {n: p.detach().clone() for n, p in pl_module.network.named_parameters()}
        self.rates.append({group["name"]: group["lr"] for group in trainer.optimizers[0].param_groups})

    def on_train_batch_end(self, trainer, pl_module, outputs, batch, batch_idx) -> None:
        moved = {n for n, p in pl_module.network.named_parameters() if not torch.equal(p, self.before[n])}
        self.moved.append({part(name) for name in moved})


def part(name: str) -> str:
    if "lora_" in name:
        return "adapters"
    return name.partition(".")[0] if name.startswith(("base.", "encoder.")) else "new"


def test_each_stage_trains_what_it_says(tmp_path: Path, cube: xr.Dataset) -> None:
    watch = Watch()
    made = module()
    trainer(tmp_path, watch, max_epochs=4).fit(made, data(cube))
    frozen, lora, full = [{"new"}] * 4, [{"new", "adapters"}] * 4, [{"new", "encoder"}] * 8
    # In the step in which adapters become part of the weights, both change; the first adapter step moves only one half.
    assert watch.moved[:8] == frozen + lora and watch.moved[9:] == full[1:]
    assert watch.rates[0] == {"base": 0.0, "encoder": 0.0, "adapters": 0.0, "new": 1e-2}
    assert watch.rates[5]["adapters"] == 1e-2 and watch.rates[5]["encoder"] == 0
    assert watch.rates[9] == {"base": 0.0, "encoder": 1e-3, "adapters": 0.0, "new": 5e-3}


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists:UserWarning")
@pytest.mark.parametrize("crash", [6, 10])
def test_what_stopped_within_a_stage_goes_on_with_the_same_losses(tmp_path: Path, cube: xr.Dataset, crash: int) -> None:
    how: dict[str, Any] = {"max_epochs": 4}
    whole = Recorder()
    first = module()
    trainer(tmp_path / "whole", whole, **how).fit(first, data(cube))
    assert len(set(whole.losses.values())) == 16

    def steps() -> EachStep:
        return EachStep(tmp_path / "steps", "{step}", every_n_train_steps=1, save_top_k=-1)

    with pytest.raises(RuntimeError, match="the power is gone"):
        trainer(tmp_path / "broken", Recorder(crash), steps(), **how).fit(module(), data(cube))
    rest, second = Recorder(), module()
    again = trainer(tmp_path / "broken", rest, steps(), **how)
    again.fit(second, data(cube), ckpt_path=tmp_path / f"steps/step={crash}.ckpt", weights_only=True)
    assert rest.losses == {step: loss for step, loss in whole.losses.items() if step > crash}
    one, other = plain(first.network), plain(second.network)
    assert one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


def test_steps_of_several_batches(tmp_path: Path, cube: xr.Dataset) -> None:
    watch = Watch()
    run = trainer(tmp_path, watch, max_epochs=4, accumulate_grad_batches=2)
    run.fit(module(), data(cube))
    assert run.global_step == 8
    # Two batches to each of the eight steps, two steps of which are of the first stage.
    assert watch.moved[:4] == [set(), {"new"}] * 2 and watch.moved[5] == watch.moved[7] == {"new", "adapters"}


@pytest.mark.parametrize("stage", [THREE[1], THREE[2]])
def test_adapters_leave_nothing_but_what_they_learned(tmp_path: Path, cube: xr.Dataset, stage: Stage) -> None:
    made = module()
    for name, parameter in made.network.named_parameters():
        if "lora_B" in name:
            nn.init.normal_(parameter, std=0.1)
    batch = next(iter(data(cube).train_dataloader()))
    made.network.head[1].weight.data.normal_()
    made.network.eval()
    with torch.no_grad():
        before = made.network(batch.given).reflectance
    enter(made.network, stage)
    enter(made.network, stage)
    spec = made.save_bundle(tmp_path, "mine", "# Mine\n")
    weights = load_file(tmp_path / bundle.WEIGHTS)
    assert not [name for name in weights if "lora" in name or "base_layer" in name]
    fresh = architectures.build(spec)
    fresh.load_state_dict(weights)
    with torch.no_grad():
        torch.testing.assert_close(fresh.eval()(batch.given).reflectance, before, rtol=1e-5, atol=1e-6)


def test_less_memory_for_the_same_gradients(cube: xr.Dataset) -> None:
    batch = next(iter(data(cube).train_dataloader()))
    found = []
    for spare in (False, True):
        made = module(stages=None, checkpointing=spare)
        made.network.head[1].weight.data.fill_(0.1)
        enter(made.network, made.plan.stages[0])
        torch.manual_seed(1)
        made.network(batch.given).reflectance.square().mean().backward()
        found.append({n: p.grad for n, p in made.network.named_parameters()})
    assert found[0]["base.offset"] is None and found[0].keys() == found[1].keys()
    assert all(torch.equal(grad, found[1][n]) for n, grad in found[0].items() if grad is not None)


def test_a_network_starts_from_the_bundle_of_another(tmp_path: Path, cube: xr.Dataset) -> None:
    spec = ModelSpec(
        "level", "a base", units="reflectance", tile=32, stride=16, architecture="x-level", config=(("start", 0.5),)
    )
    bundle.write(tmp_path / "base", spec, {"offset": torch.tensor(0.125)}, "# Base\n")
    made = module(base=f"local-dir:{tmp_path / 'base'}")
    assert made.network.base.offset.item() == 0.125
    written = made.save_bundle(tmp_path / "mine", "mine", "# Mine\n")
    assert dict(written.config)["base"] == (("start", 0.5),)
    assert from_pretrained(f"local-dir:{tmp_path / 'mine'}")._network()[0].base.offset.item() == 0.125
    assert "level" in made.began[0]
    with pytest.raises(ModelError, match="does not take its config"):
        module(base="unet")


def test_parts() -> None:
    made = module()
    found = parts(made.network)
    assert {name: len(members) for name, members in found.items()} == {
        "base": 1,
        "encoder": 8,
        "adapters": 8,
        "new": 2,
    }
    assert list(parts(Level())) == ["new"]


@pytest.mark.parametrize(
    ("wrong", "found"),
    [
        (lambda: Plan([Stage(0.5, "frozen", 1e-3)]), "shares of the stages are 0.5"),
        (lambda: Plan([]), "none"),
        (lambda: Stage(1.0, "lora", 1e-3), "encoder_lr"),
        (lambda: Stage(0.0, "frozen", 1e-3), "share"),
        (lambda: Stage(1.0, "frozen", -1.0), "lr=-1"),
        (lambda: stages.spare_memory(Level()), "no encoder that could have blocks"),
        (lambda: FusionModule("unet-plus", stages=THREE), "no encoder that could have adapters"),
        (lambda: FusionModule("unet-plus", base="unet"), "does not take its config"),
    ],
)
def test_what_cannot_be_is_told(wrong: Any, found: str) -> None:
    with pytest.raises((OptionError, ModelError), match=found):
        wrong()
