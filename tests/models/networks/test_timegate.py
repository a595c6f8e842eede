"""The learned time gate: the equations by hand, and what must hold whatever the weights are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from tests.support.series import VARIANTS, close, dates_of, observations, random_batch, random_gate
from xr_cloudfree.errors import ModelError, OptionError
from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.networks import timegate
from xr_cloudfree.models.networks.batch import Batch
from xr_cloudfree.models.networks.inputs import prepare
from xr_cloudfree.models.networks.timegate import CONDITION, TimeGate
from xr_cloudfree.models.protocol import Observations

# By hand: plain loops over numbers, in float64.


def conv(layer, maps):
    """Convolution of (channel, y, x) with zeros around."""
    weight, bias = (p.detach().numpy() for p in (layer.weight, layer.bias))
    n, y, x = len(weight), *maps.shape[1:]
    half = weight.shape[2] // 2
    out = np.zeros((n, y, x))
    for o in range(n):
        for r in range(y):
            for c in range(x):
                out[o, r, c] = bias[o]
                for i in range(len(maps)):
                    for dr in range(-half, half + 1):
                        for dc in range(-half, half + 1):
                            if 0 <= r + dr < y and 0 <= c + dc < x:
                                out[o, r, c] += weight[o, i, dr + half, dc + half] * maps[i, r + dr, c + dc]
    return out


def mish(values):
    return values * np.tanh(np.log1p(np.exp(values)))


def batch_norm(layer, steps, training):
    """Batch norm of a list of (channel, y, x)."""
    if training:
        mean = np.mean(steps, axis=(0, 2, 3))
        variance = np.var(steps, axis=(0, 2, 3))
    else:
        mean, variance = layer.running_mean.numpy(), layer.running_var.numpy()
    scale, shift = (p.detach().numpy()[:, None, None] for p in (layer.weight, layer.bias))
    return [(s - mean[:, None, None]) / np.sqrt(variance + layer.eps)[:, None, None] * scale + shift for s in steps]


def group_norm(layer, maps):
    out = np.zeros_like(maps)
    size = len(maps) // layer.num_groups
    for start in range(0, len(maps), size):
        group = maps[start : start + size]
        out[start : start + size] = (group - group.mean()) / np.sqrt(group.var() + layer.eps)
    scale, shift = (p.detach().numpy()[:, None, None] for p in (layer.weight, layer.bias))
    return out * scale + shift


def block(layers, steps, training):
    """Convolution, Mish and batch norm of a list of steps."""
    return batch_norm(layers[2], [mish(conv(layers[0], s)) for s in steps], training)


@pytest.mark.parametrize("training", [False, True])
def test_the_papers_equations(training):
    gate = random_gate("paper", bands=2).double().train(training)
    averages = {k: v.clone() for k, v in gate.state_dict().items()}
    batch = random_batch(1, tiles=1, dates=3, bands=2, shape=(3, 2)).to(dtype=torch.float64)
    condition = torch.tensor(np.random.default_rng(5).random((1, 3, 3, 2)))
    made = gate(replace(batch, features={CONDITION: condition}))
    gate.load_state_dict(averages)

    series, clear = batch.bands[0].numpy(), batch.clear[0].numpy()
    steps = []
    for values, seen, days in zip(series, clear, batch.day_offset[0].numpy(), strict=True):
        distance = conv(gate.decay, np.full((1, 1, 1), days / 30)).item()
        steps.append(np.concatenate([values, seen * math.exp(-max(distance, 0)), seen, seen]))
    asked = condition[0].numpy() if training else np.ones((3, 3, 2))
    told = block(gate.condition, [asked], training)[0]
    extracted = [s + told for s in block(gate.extract, steps, training)]
    g = block(gate.gate[1], block(gate.gate[0], extracted, training), training)
    epsilon = gate.epsilon
    importance = [np.exp(np.maximum(s, 0)) - (1 - epsilon if training else 1) for s in g]
    total = sum(importance)
    image = sum(h / (total + epsilon) * s for h, s in zip(importance, series, strict=True))
    np.testing.assert_allclose(made.image[0].detach(), image, rtol=1e-10)
    np.testing.assert_allclose(made.weights[0].detach(), np.array(importance) / (total + epsilon), rtol=1e-9)
    np.testing.assert_allclose(
        made.features[0].detach(), np.max([conv(gate.abstract, h) for h in importance], axis=0), rtol=1e-10
    )


def test_the_masked_equations():
    gate = random_gate("masked", bands=2).double()
    batch = random_batch(1, tiles=1, dates=3, bands=2, shape=(3, 2)).to(dtype=torch.float64)
    batch.day_offset[:] = torch.tensor([-12.0, -6.0, 18.0])
    batch.clear[0, :, 0, 0, 0] = torch.tensor([1.0, 1.0, 1.0])  # between the second and the third
    batch.clear[0, :, 0, 0, 1] = torch.tensor([1.0, 0.0, 1.0])  # between the first and the third
    batch.clear[0, :, 0, 1, 0] = torch.tensor([1.0, 1.0, 0.0])  # the second
    batch.clear[0, :, 0, 1, 1] = torch.tensor([0.0, 0.0, 1.0])  # the third
    batch.clear[0, :, 0, 2, 0] = 0.0
    batch.clear[0, :, 0, 2, 1] = torch.tensor([1.0, 0.0, 0.0])
    prior = np.zeros((3, 3, 2))
    prior[:, 0, 0] = [0, 18 / 24, 6 / 24]
    prior[:, 0, 1] = [18 / 30, 0, 12 / 30]
    prior[1, 1, 0] = prior[2, 1, 1] = prior[0, 2, 1] = 1
    made = gate(batch)

    clear = batch.clear[0].numpy()
    series = batch.bands[0].numpy() * clear
    slope, shift = gate.decay.weight.detach().numpy().ravel(), gate.decay.bias.detach().numpy()
    importance = []
    for values, seen, days, share in zip(series, clear, batch.day_offset[0].numpy(), prior, strict=True):
        side = int(days > 0)
        decay = math.exp(-max(slope[side] * abs(days) / 30 + shift[side], 0))
        past, future = (seen * decay * (side == i) for i in (0, 1))
        extracted = np.concatenate([values, past, future, seen])
        for layers in (gate.extract, gate.gate[0]):
            extracted = group_norm(layers[2], mish(conv(layers[0], extracted)))
        g = conv(gate.gate[1], extracted)
        importance.append(seen * (share * np.exp(g) + decay * (np.exp(np.maximum(g, 0)) - 1)))
    total = sum(importance)
    known = clear.any(axis=0)
    weights = np.array(importance) / np.where(known, total, 1)
    np.testing.assert_allclose(made.weights[0].detach(), weights, rtol=1e-7)
    np.testing.assert_allclose(made.image[0].detach(), (weights * series).sum(axis=0), rtol=1e-7)
    abstract = np.array([np.where(s, conv(gate.abstract, h), -np.inf) for h, s in zip(importance, clear, strict=True)])
    np.testing.assert_allclose(made.features[0].detach(), np.where(known, abstract.max(axis=0), 0), rtol=1e-7)
    assert made.known[0].tolist() == known.tolist()


# Whatever the weights are.


@settings(max_examples=10)
@given(st.integers(0, 1000))
def test_the_untrained_masked_gate_interpolates_linearly(seed):
    obs = observations(seed, dates=1 + seed % 9)
    wanted = Linear().predict([obs])[0]
    made = TimeGate(3, "masked").eval()(Batch.of([prepare(obs)]))
    np.testing.assert_array_equal(made.known[0, 0], wanted.known)
    np.testing.assert_allclose(
        made.image[0].detach().numpy()[:, wanted.known], wanted.bands[:, wanted.known], rtol=1e-5, atol=1e-6
    )


def test_the_untrained_masked_gate_can_learn():
    gate = TimeGate(3, "masked")
    batch = random_batch(3)
    gate(batch).image.square().sum().backward()
    assert gate.gate[1].bias.grad.abs().min() > 0
    # Also where only steps beside the two neighbours could add something.
    grad = torch.autograd.grad(gate(batch).weights[:, 0].sum(), gate.gate[1].bias)[0]
    assert grad.abs().min() > 0


@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_sum_to_one_where_a_gate_is_open(variant):
    made = random_gate(variant)(random_batch(4, dates=8))
    total = made.weights.sum(dim=1)
    assert (made.weights >= 0).all()
    if variant == "masked":
        torch.testing.assert_close(total, made.known.expand_as(total).float())
    else:
        opened = made.weights.amax(dim=1) > 0
        assert opened.any() and not opened.all()
        assert (total[~opened] == 0).all() and (made.image[~opened] == 0).all()
        # What lacks to 1 is epsilon's share, which is small against any but the slightest opening.
        assert (total <= 1 + 1e-6).all() and total[opened].quantile(0.01) > 0.999


def test_in_training_closed_gates_give_the_mean():
    gate = random_gate("paper").train()
    nn.init.constant_(gate.gate[1][2].weight, 0.0)
    nn.init.constant_(gate.gate[1][2].bias, -1.0)
    batch = random_batch(4, tiles=1, dates=6)
    steps = batch.date_valid.sum()
    torch.testing.assert_close(gate(batch).image, batch.bands.sum(dim=1) / (steps + 1))
    assert not gate.eval()(batch).image.any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_a_wide_open_gate_does_not_overflow(variant):
    gate = random_gate(variant)
    last = gate.gate[1][2] if variant == "paper" else gate.gate[1]
    nn.init.constant_(last.bias, 1e4)
    made = gate(random_batch(4))
    assert all(t.isfinite().all() for t in (made.image, made.features, made.weights))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("training", [False, True])
def test_the_order_of_dates_does_not_matter(variant, training):
    gate = random_gate(variant).train(training)
    batch = random_batch(5, dates=7)
    order = torch.randperm(batch.bands.shape[1], generator=torch.Generator().manual_seed(0))
    straight, shuffled = gate(batch), gate(dates_of(batch, order))
    close(shuffled, straight, atol=1e-6)
    torch.testing.assert_close(shuffled.weights, straight.weights[:, order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_a_cloudy_pixel_never_reaches_the_masked_result(training):
    gate = random_gate("masked").train(training)
    batch = random_batch(6, dates=6)
    cloudy = (batch.clear == 0).expand_as(batch.bands)
    assert cloudy.any()
    wanted = gate(batch)
    for value in (7.0, -1e30, math.inf, math.nan):
        made = gate(replace(batch, bands=torch.where(cloudy, value, batch.bands)))
        for name in ("image", "features", "weights"):
            assert torch.equal(getattr(made, name), getattr(wanted, name))


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("training", [False, True])
def test_dates_that_fill_up_do_not_matter(variant, training):
    gate = random_gate(variant).train(training)
    batch = random_batch(7, tiles=1)
    more = random_batch(8, tiles=1, dates=40)  # anything may lie there
    names = ("bands", "clear", "day_offset")
    padded = replace(
        batch,
        **{name: torch.cat([getattr(batch, name), getattr(more, name)], dim=1) for name in names},
        date_valid=torch.cat([batch.date_valid, torch.zeros_like(more.date_valid)], dim=1),
    )
    wanted, made = gate(batch), gate(padded)
    close(made, wanted, atol=1e-6)
    assert not made.weights[:, batch.bands.shape[1] :].any()


@pytest.mark.parametrize(("variant", "training"), [("paper", False), ("masked", False), ("masked", True)])
def test_the_others_in_a_batch_do_not_matter(variant, training):
    gate = random_gate(variant).train(training)
    long, short = prepare(observations(9, dates=12)), prepare(observations(10, dates=2))
    both = gate(Batch.of([short, long]))
    for i, one in enumerate((short, long)):
        made = gate(Batch.of([one]))
        torch.testing.assert_close(both.image[i : i + 1], made.image, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(both.features[i : i + 1], made.features, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("training", [False, True])
def test_a_series_without_a_date_is_unknown(variant, training):
    batch = Batch.of(
        [prepare(Observations(np.zeros((0, 3, 4, 4), np.float32), np.zeros((0, 4, 4), bool), np.zeros(0)))]
    )
    made = random_gate(variant).train(training)(batch)
    assert not made.known.any() and not made.image.any() and not made.features.any()


@pytest.mark.parametrize("variant", VARIANTS)
def test_steps_that_are_scored_in_parts_score_the_same(variant, monkeypatch):
    gate = random_gate(variant)
    batch = random_batch(11, dates=12)
    wanted = gate(batch)
    monkeypatch.setattr(timegate, "_STEPS", 5)
    close(gate(batch), wanted, atol=1e-6)


@pytest.mark.parametrize("variant", VARIANTS)
def test_it_is_deterministic(variant):
    gate, batch = random_gate(variant), random_batch(12)
    first, second = gate(batch), gate(batch)
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


def test_the_condition_is_for_training_only():
    gate = random_gate("paper")
    batch = random_batch(13)
    hidden = replace(batch, features={CONDITION: torch.zeros(2, 3, 6, 7)})
    assert torch.equal(gate(hidden).image, gate(batch).image)
    gate.train()
    assert not torch.equal(gate(hidden).weights, gate(batch).weights)


def test_wrong_use():
    with pytest.raises(OptionError, match="one of paper, masked"):
        TimeGate(3, "plus")
    with pytest.raises(ModelError, match=r"3 bands.*TimeGate\(bands=3\)"):
        TimeGate(4)(random_batch(0))
