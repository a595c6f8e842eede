"""The paper's U-Net on the time gate: its parts as they start, and what holds whatever the weights are."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import timm
import torch
from torch import nn
from torch.nn import functional

from tests.support.series import dates_of, observations, random_batch
from xr_cloudfree.errors import MissingDependencyError, ModelError
from xr_cloudfree.models.networks.batch import Batch
from xr_cloudfree.models.networks.inputs import prepare
from xr_cloudfree.models.networks.paper_unet import PixelShuffle, SelfAttention, TimeGateUNet, UNet

SMALL = "mnasnet_small"


def count(module):
    return sum(parameter.numel() for parameter in module.parameters())


def net(bands=3, seed=0, **options):
    """A small network that has left its start, so that every part has a say."""
    torch.manual_seed(seed)
    made = TimeGateUNet(bands, SMALL, **options)
    nn.init.constant_(made.gamma, 0.5)
    nn.init.constant_(made.unet.decoder[1].attention.scale, 0.5)
    return made.eval()


@torch.no_grad()
def answer(network, batch):
    return network(batch)


def test_the_number_of_parameters():
    paper = TimeGateUNet(6)
    assert count(paper) == 8_898_090
    assert f"{count(paper):,}" in TimeGateUNet.__doc__
    # By hand: the gate, with a convolution's weights and offsets and two numbers per channel for batch norm.
    gate = (1 + 1) + (9 * 32 + 3 * 32) + (32 + 64) * 2 + (32 * 64 * 9 + 64 * 3) + (64 * 6 + 6 * 3) + (6 * 8 + 8)
    assert count(paper.gate) == gate
    assert count(paper.unet.bridge) == (320 * 640 * 9 + 640 * 3) + (640 * 320 * 9 + 320 * 3)
    assert [len(f) for f in (paper.unet.decoder, paper.unet.bridge)] == [5, 2]


def test_the_paper_form_has_320_channels_at_the_bottom_and_attention_after_the_second_block():
    unet = UNet(14, 6)
    with torch.no_grad():
        levels = unet.eval().encoder(torch.zeros(1, 14, 64, 96))
    assert [tuple(level.shape[1:]) for level in levels] == [
        (16, 32, 48),
        (24, 16, 24),
        (40, 8, 12),
        (96, 4, 6),
        (320, 2, 3),
    ]
    assert [isinstance(block.attention, SelfAttention) for block in unet.decoder] == [False, True, False, False, False]


def test_upsampling_starts_as_nearest_neighbour():
    torch.manual_seed(0)
    up = PixelShuffle(6, 3)
    image = torch.randn(2, 6, 4, 5)
    made = up(image)
    conv = up[0]
    narrow = functional.conv2d(image, conv.weight[::4], conv.bias[::4])
    torch.testing.assert_close(made, functional.interpolate(narrow, scale_factor=2, mode="nearest"))
    assert conv.weight[::4].unique().numel() == 18


def test_attention_by_hand():
    torch.manual_seed(0)
    attention = SelfAttention(16).double()
    image = torch.randn(1, 16, 2, 3, dtype=torch.float64)
    assert torch.equal(attention(image), image)
    nn.init.constant_(attention.scale, 0.7)
    pixels = image[0].flatten(1).T.numpy()
    query, key, value = np.split(pixels @ attention.project.weight.detach().numpy()[:, :, 0, 0].T, [2, 4], axis=1)
    wanted = pixels.copy()
    for i in range(6):
        likeness = np.exp([query[i] @ key[j] / np.sqrt(2) for j in range(6)])
        wanted[i] += 0.7 * likeness @ value / likeness.sum()
    np.testing.assert_allclose(attention(image)[0].flatten(1).T.detach(), wanted, rtol=1e-10)


@pytest.mark.parametrize("shape", [(1, 1), (31, 33), (32, 64), (50, 7)])
def test_any_size(shape):
    batch = random_batch(1, dates=3, shape=shape)
    made = answer(net(), batch)
    assert made.reflectance.shape == (2, 3, *shape) and made.known.shape == (2, 1, *shape)
    assert made.gate.shape == (2, batch.bands.shape[1], 1, *shape)
    assert made.uncertainty is None
    assert made.reflectance.isfinite().all()


def test_the_output_is_the_composite_plus_gamma_times_the_unet():
    network, batch = net(), random_batch(2)
    composite = network.gate(batch)
    change = network.unet(torch.cat([composite.image, composite.features], dim=1))
    torch.testing.assert_close(network(batch).reflectance, composite.image + 0.5 * change)
    torch.testing.assert_close(network(batch).gate, composite.weights.mean(dim=2, keepdim=True))
    assert torch.equal(network(batch).known, composite.known)


def test_gamma_starts_at_zero_and_lets_the_unet_learn_from_the_second_step():
    torch.manual_seed(0)
    network, batch = TimeGateUNet(3, SMALL), random_batch(3, tiles=2, shape=(64, 64))
    assert torch.equal(network(batch).reflectance, network.gate(batch).image)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    learned = []
    for _ in range(2):
        optimizer.zero_grad()
        (network(batch).reflectance - 0.3).square().mean().backward()
        learned.append({name for name, p in network.named_parameters() if p.grad is not None and p.grad.any()})
        optimizer.step()
    assert "gamma" in learned[0]
    assert any(name.startswith("gate.") for name in learned[0])
    assert not any(name.startswith("unet.") for name in learned[0])
    assert {"unet.head.weight", "unet.encoder.conv_stem.weight", "unet.bridge.0.0.weight"} <= learned[1]


def test_the_targets_own_pixels_are_a_step():
    obs = observations(4, dates=5)
    batch = Batch.of([prepare(replace(obs, target=2, day_offset=obs.day_offset - obs.day_offset[2]))])
    network = net()
    made = answer(network, batch)
    own = 1 - made.gate.sum(dim=1)
    assert own.max() > 0.01
    inside = network.gate(batch.with_target_as_date())
    torch.testing.assert_close(made.gate, inside.weights[:, :-1].mean(dim=2, keepdim=True))
    alone = net(target_as_input=False)
    without = replace(batch, target=torch.zeros_like(batch.target), target_clear=torch.zeros_like(batch.target_clear))
    for one in (batch, without):
        torch.testing.assert_close(answer(alone, one).reflectance, answer(network, without).reflectance)
    assert not torch.allclose(made.reflectance, answer(network, without).reflectance)


def test_it_is_deterministic():
    network, batch = net(), random_batch(5)
    assert torch.equal(answer(network, batch).reflectance, answer(network, batch).reflectance)


def test_padding_and_the_others_in_a_batch_do_not_matter():
    # In float64: where gates barely open, the published form makes much of the last digits of float32.
    network = net().double()
    tiles = [prepare(observations(seed, dates=dates)) for seed, dates in ((6, 9), (7, 2), (8, 4))]
    together = answer(network, Batch.of(tiles).to(dtype=torch.float64))
    for i, tile in enumerate(tiles):
        alone = answer(network, Batch.of([tile]).to(dtype=torch.float64))
        torch.testing.assert_close(together.reflectance[i : i + 1], alone.reflectance, rtol=1e-9, atol=1e-10)
        dates = alone.gate.shape[1]
        torch.testing.assert_close(together.gate[i : i + 1, :dates], alone.gate, rtol=1e-9, atol=1e-10)
        assert not together.gate[i, dates:].any()


def test_the_order_of_dates_does_not_matter():
    network, batch = net(), random_batch(9, dates=6)
    order = list(reversed(range(batch.bands.shape[1])))
    made = answer(network, dates_of(batch, order)).reflectance
    torch.testing.assert_close(made, answer(network, batch).reflectance, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("encoder", "why"), [("mnasnet_1", "Unknown model"), ("vit_tiny_patch16_224", "reduced by"), ("mixnet_s", None)]
)
def test_encoders(encoder, why):
    if why is None:
        assert UNet(4, 2, encoder).eval()(torch.zeros(1, 4, 32, 32)).shape == (1, 2, 32, 32)
    else:
        with pytest.raises(ModelError, match=rf"{encoder}.*{why}.*mnasnet_100"):
            UNet(4, 2, encoder)


def test_without_timm(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "timm", None)
    with pytest.raises(MissingDependencyError, match="pip install"):
        TimeGateUNet(3, SMALL)


def test_the_encoder_starts_from_imagenet_where_that_can_be_reached(monkeypatch, caplog):
    create = timm.create_model

    def reached(name, pretrained, **options):
        assert pretrained
        made = create(name, **options)
        for parameter in made.parameters():
            nn.init.constant_(parameter, 0.25)
        return made

    network = TimeGateUNet(3, SMALL)
    monkeypatch.setattr(timm, "create_model", reached)
    with caplog.at_level(logging.INFO):
        assert network.start_from_pretrained()
    assert "starts from ImageNet" in caplog.text
    assert all((parameter == 0.25).all() for parameter in network.unet.encoder.parameters())


@pytest.mark.parametrize("error", [OSError("no connection"), RuntimeError("no pretrained weights exist")])
def test_the_encoder_stays_random_where_imagenet_cannot_be_reached(monkeypatch, caplog, error):
    def unreached(*_, **__):
        raise error

    network = TimeGateUNet(3, SMALL)
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    monkeypatch.setattr(timm, "create_model", unreached)
    assert not network.start_from_pretrained()
    assert f"{SMALL} are not available, so it starts with random weights: {error}" in caplog.text
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
