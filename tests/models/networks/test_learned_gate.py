"""The learned time gate: the equations by hand, and what must hold whatever the weights are."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

from tests.support.series import close, dates_of, observations, random_batch, random_gate
from xr_cloudfree.errors import ModelError
from xr_cloudfree.models.networks import learned_gate
from xr_cloudfree.models.networks.batch import Batch
from xr_cloudfree.models.networks.inputs import prepare
from xr_cloudfree.models.networks.learned_gate import CONDITION, TimeGate
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


def block(layers, steps, training):
    """Convolution, Mish and batch norm of a list of steps."""
    return batch_norm(layers[2], [mish(conv(layers[0], s)) for s in steps], training)


@pytest.mark.parametrize("training", [False, True])
def test_the_papers_equations(training):
    gate = random_gate(bands=2).double().train(training)
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
    epsilon = learned_gate.EPSILON
    importance = [np.exp(np.maximum(s, 0)) - (1 - epsilon if training else 1) for s in g]
    total = sum(importance)
    image = sum(h / (total + epsilon) * s for h, s in zip(importance, series, strict=True))
    np.testing.assert_allclose(made.image[0].detach(), image, rtol=1e-10)
    np.testing.assert_allclose(made.weights[0].detach(), np.array(importance) / (total + epsilon), rtol=1e-9)
    np.testing.assert_allclose(
        made.features[0].detach(), np.max([conv(gate.abstract, h) for h in importance], axis=0), rtol=1e-10
    )


# Whatever the weights are.


def test_weights_sum_to_one_where_a_gate_is_open():
    made = random_gate()(random_batch(4, dates=8))
    total = made.weights.sum(dim=1)
    assert (made.weights >= 0).all()
    opened = made.weights.amax(dim=1) > 0
    assert opened.any() and not opened.all()
    assert (total[~opened] == 0).all() and (made.image[~opened] == 0).all()
    # What lacks to 1 is epsilon's share, which is small against any but the slightest opening.
    assert (total <= 1 + 1e-6).all() and total[opened].quantile(0.01) > 0.999


def test_in_training_closed_gates_give_the_mean():
    gate = random_gate().train()
    nn.init.constant_(gate.gate[1][2].weight, 0.0)
    nn.init.constant_(gate.gate[1][2].bias, -1.0)
    batch = random_batch(4, tiles=1, dates=6)
    steps = batch.date_valid.sum()
    torch.testing.assert_close(gate(batch).image, batch.bands.sum(dim=1) / (steps + 1))
    assert not gate.eval()(batch).image.any()


def test_a_wide_open_gate_does_not_overflow():
    gate = random_gate()
    nn.init.constant_(gate.gate[1][2].bias, 1e4)
    made = gate(random_batch(4))
    assert all(t.isfinite().all() for t in (made.image, made.features, made.weights))


@pytest.mark.parametrize("training", [False, True])
def test_the_order_of_dates_does_not_matter(training):
    gate = random_gate().train(training)
    batch = random_batch(5, dates=7)
    order = torch.randperm(batch.bands.shape[1], generator=torch.Generator().manual_seed(0))
    straight, shuffled = gate(batch), gate(dates_of(batch, order))
    close(shuffled, straight, atol=1e-6)
    torch.testing.assert_close(shuffled.weights, straight.weights[:, order], rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_dates_that_fill_up_do_not_matter(training):
    gate = random_gate().train(training)
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


def test_the_others_in_a_batch_do_not_matter():
    gate = random_gate()
    long, short = prepare(observations(9, dates=12)), prepare(observations(10, dates=2))
    both = gate(Batch.of([short, long]))
    for i, one in enumerate((short, long)):
        made = gate(Batch.of([one]))
        torch.testing.assert_close(both.image[i : i + 1], made.image, rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(both.features[i : i + 1], made.features, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("training", [False, True])
def test_a_series_without_a_date_is_unknown(training):
    batch = Batch.of(
        [prepare(Observations(np.zeros((0, 3, 4, 4), np.float32), np.zeros((0, 4, 4), bool), np.zeros(0)))]
    )
    made = random_gate().train(training)(batch)
    assert not made.known.any() and not made.image.any() and not made.features.any()


def test_steps_that_are_scored_in_parts_score_the_same(monkeypatch):
    gate = random_gate()
    batch = random_batch(11, dates=12)
    wanted = gate(batch)
    monkeypatch.setattr(learned_gate, "_STEPS", 5)
    close(gate(batch), wanted, atol=1e-6)


def test_it_is_deterministic():
    gate, batch = random_gate(), random_batch(12)
    first, second = gate(batch), gate(batch)
    assert all(torch.equal(a, b) for a, b in zip(vars(first).values(), vars(second).values(), strict=True))


def test_the_condition_is_for_training_only():
    gate = random_gate()
    batch = random_batch(13)
    hidden = replace(batch, features={CONDITION: torch.zeros(2, 3, 6, 7)})
    assert torch.equal(gate(hidden).image, gate(batch).image)
    gate.train()
    assert not torch.equal(gate(hidden).weights, gate(batch).weights)


def test_wrong_use():
    with pytest.raises(ModelError, match=r"3 bands.*TimeGate\(bands=3\)"):
        TimeGate(4)(random_batch(0))
