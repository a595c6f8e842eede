"""The default network: it starts as the classical answers, and what is not clear never reaches it."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.ndimage import distance_transform_edt

from tests.support.season import observations
from xr_cloudfree.models.classical.conformal import student_widening
from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.classical.regress import Regress
from xr_cloudfree.models.classical.series import UNSEEN
from xr_cloudfree.models.networks import features as evidence
from xr_cloudfree.models.networks import layers as head
from xr_cloudfree.models.networks import unet as plus
from xr_cloudfree.models.networks.batch import Batch
from xr_cloudfree.models.protocol import Observations


def random_net(seed=0):
    """A network whose every weight matters."""
    torch.manual_seed(seed)
    net = plus.FusionUNet(widths=(8, 12, 16))
    with torch.no_grad():
        for weight in net.parameters():
            weight.add_(0.2 * torch.randn_like(weight))
    return net.eval()


@torch.inference_mode()
def answer(net, *tiles):
    return net(Batch.of([net.prepare(obs) for obs in tiles]))


def test_untrained_it_is_the_stacked_candidate_bit_for_bit():
    obs = observations()
    net = plus.FusionUNet().eval()
    out, candidates = answer(net, obs), net.prepare(obs).features["candidates"]
    hidden = ~obs.clear[obs.target] & out.known[0, 0].numpy()
    assert hidden.any()
    np.testing.assert_array_equal(out.reflectance[0].numpy()[:, hidden], candidates[:, 0][:, hidden])


def test_the_candidates_are_what_their_names_say():
    obs = observations()
    features = evidence.compute_features(obs).features
    named = dict(zip(evidence.CANDIDATES, features["candidates"].swapaxes(0, 1), strict=True))
    regress, linear = Regress().predict([obs])[0], Linear().predict([_without_target(obs)])[0]
    known = linear.known
    np.testing.assert_array_equal(named["regress"][:, known], regress.bands[:, known])
    np.testing.assert_array_equal(named["linear"][:, known], linear.bands[:, known])
    sigma = np.maximum(regress.uncertainty, evidence.LEAST_SCALE)
    np.testing.assert_allclose(features["uncertainty"][:, known], sigma[:, known], rtol=1e-6)
    shares = [
        features["shared"][evidence.SHARED.index(f"weight of the forest on the {on}")] for on in ("residual", "error")
    ]
    first, second = (share.ravel()[0] for share in shares)
    assert first >= 0 and second >= 0 and 0 < first + second <= 1 + 1e-6
    mixed = (1 - first - second) * named["regress"]
    mixed = mixed + first * named["forest on the residual"] + second * named["forest on the error"]
    np.testing.assert_allclose(named["stacked"][:, known], mixed[:, known], atol=1e-5)


def test_forests_are_believed_where_they_prove_themselves():
    """An error that is a step in the features, which no line follows, against one that is a line."""
    rng = np.random.default_rng(0)
    truth = rng.normal(size=(2000, 2))
    noise = 0.01 * rng.normal(size=(2000, 2))
    weight, scale = np.ones(2000, np.float32), np.ones(2)
    right = evidence._shares(truth, truth + noise, rng.normal(size=(2000, 2)), weight, scale)
    assert right[0] > 0.9 and right[1] < 0.05
    nothing = evidence._shares(truth, rng.normal(size=(2000, 2)), rng.normal(size=(2000, 2)), weight, scale)
    assert max(nothing) < 0.08


def _without_target(obs):
    clear = obs.clear.copy()
    clear[obs.target] = False
    return replace(obs, clear=clear, target=-1)


def test_untrained_on_a_date_without_an_image_it_is_what_regress_says():
    obs = replace(observations(cloudy=False), target=-1)
    keep = np.arange(obs.n_dates) != 5
    obs = replace(obs, bands=obs.bands[keep], clear=obs.clear[keep], day_offset=obs.day_offset[keep])
    out = answer(plus.FusionUNet().eval(), obs)
    expected = Regress().predict([obs])[0]
    known = expected.known
    np.testing.assert_array_equal(out.reflectance[0].numpy()[:, known], expected.bands[:, known])
    np.testing.assert_array_equal(out.known[0, 0].numpy(), known)


def test_the_targets_clear_pixels_come_back():
    obs = observations()
    out = answer(random_net(), obs)
    seen = obs.clear[obs.target]
    np.testing.assert_array_equal(out.reflectance[0].numpy()[:, seen], obs.bands[obs.target][:, seen])


@pytest.mark.parametrize("junk", [np.nan, np.inf, -1e6, 0.0])
def test_what_is_not_clear_never_reaches_the_answer(junk):
    obs = observations()
    net = random_net()
    expected = answer(net, obs)
    bands = np.where(obs.clear[:, None], obs.bands, np.float32(junk))
    out = answer(net, replace(obs, bands=bands))
    known = expected.known.expand_as(expected.reflectance)
    assert torch.equal(out.reflectance[known], expected.reflectance[known])
    assert torch.isfinite(out.reflectance).all() and torch.isfinite(out.uncertainty).all()
    assert (out.uncertainty[known] > 0).all()


def test_the_network_treats_all_bands_alike():
    net, order = random_net(), [2, 0, 3, 1]
    tile = net.prepare(observations())
    features = {name: part if name == "shared" else part[order] for name, part in tile.features.items()}
    other = replace(tile, bands=tile.bands[:, order], target=tile.target[order], features=features)
    with torch.inference_mode():
        first, second = net(Batch.of([tile])), net(Batch.of([other]))
    np.testing.assert_allclose(second.reflectance, first.reflectance[:, order], atol=1e-5)


@pytest.mark.parametrize("bands", [1, 3, 10])
def test_any_number_of_bands_with_the_same_weights(bands):
    out = answer(random_net(), observations(bands=bands, edge=32))
    assert out.reflectance.shape == (1, bands, 32, 32)


def test_companions_in_a_batch_change_nothing():
    net = random_net()
    few, many = observations(bands=3), observations(seed=1, bands=5)
    together = answer(net, few, many)
    for i, obs in enumerate((few, many)):
        alone = answer(net, obs)
        np.testing.assert_allclose(together.reflectance[i, : obs.n_bands], alone.reflectance[0], atol=1e-5)
        np.testing.assert_allclose(together.uncertainty[i, : obs.n_bands], alone.uncertainty[0], atol=1e-5)


def test_the_gate_does_not_depend_on_how_many_dates_it_takes_together(monkeypatch):
    net, obs = random_net(), observations()
    whole = answer(net, obs)
    monkeypatch.setattr(plus, "TOGETHER", 2)
    np.testing.assert_allclose(answer(net, obs).reflectance, whole.reflectance, atol=1e-5)


def test_where_nothing_varies_the_gate_does_not_depend_on_its_resolution(monkeypatch):
    days = np.array([-20.0, -6.0, 0.0, 4.0, 15.0])
    bands = np.broadcast_to(np.linspace(0.1, 0.4, 15, dtype=np.float32).reshape(5, 3, 1, 1), (5, 3, 24, 24)).copy()
    clear = np.ones((5, 24, 24), bool)
    clear[2] = False
    tile, net = Observations(bands, clear, days, 2), random_net()
    coarse = answer(net, tile)
    for name in ("GATE_STEP", "GATE_SAMPLE"):
        monkeypatch.setattr(plus, name, 1)
    np.testing.assert_allclose(coarse.reflectance, answer(net, tile).reflectance, atol=1e-5)


def test_sizes_that_no_power_of_two_divides():
    obs = observations(edge=45)
    out = answer(random_net(), obs)
    assert out.reflectance.shape[-2:] == (45, 45)


def test_gradients_reach_every_weight():
    net = random_net().train()
    out = net(Batch.of([net.prepare(observations())]))
    (out.reflectance.mean() + out.uncertainty.mean()).backward()
    still = [name for name, weight in net.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0]
    assert still == []


def test_corrections_are_bounded():
    base, scale = torch.zeros(3), torch.full((3,), 0.01)
    far = head.bounded(base, torch.tensor([-1e9, 0.0, 1e9]), scale)
    np.testing.assert_allclose(far, [-0.01 * head.REACH, 0, 0.01 * head.REACH], rtol=1e-6)
    near = head.bounded(base, torch.tensor([0.01, 0.1, -0.1]), scale)
    np.testing.assert_allclose(near, [1e-4, 1e-3, -1e-3], rtol=1e-3)
    sigma = head.scaled(torch.ones(2), torch.tensor([-1e9, 1e9]))
    np.testing.assert_allclose(sigma, np.exp([-head.LOG_REACH, head.LOG_REACH]), rtol=1e-5)


def test_candidates_where_nothing_teaches():
    """Without a clear pixel of the target all candidates are linear."""
    obs = observations()
    clear = obs.clear.copy()
    clear[obs.target] = False
    made = evidence.compute_features(replace(obs, clear=clear))
    candidates = made.features["candidates"]
    assert (candidates == candidates[:, :1]).all()
    fitted = made.features["shared"][evidence.SHARED.index("fitted")]
    assert (fitted == 0).all()


def test_no_clear_date_at_all():
    obs = observations()
    made = evidence.compute_features(replace(obs, clear=np.zeros_like(obs.clear)))
    assert made.bands.shape[0] == 0
    assert all(np.isfinite(part).all() for part in made.features.values())


def test_the_nearest_dates_are_used():
    obs = observations()
    made = evidence.compute_features(obs, max_dates=4)
    assert len(made.day_offset) == 4
    others = np.delete(obs.day_offset, obs.target)[np.delete(obs.clear, obs.target, axis=0).any(axis=(1, 2))]
    assert np.abs(made.day_offset).max() <= np.sort(np.abs(others))[3]


def test_calibration_by_what_the_target_shows():
    obs = observations()
    clear = obs.clear.copy()
    clear[obs.target] = False
    unseen = replace(obs, clear=clear)
    plain, wider = plus.FusionUNet().eval(), plus.FusionUNet(calibration=(1.5, 3.0)).eval()
    for tile, factor in ((obs, 1.5), (unseen, 3.0)):
        weight = plain.prepare(tile).features["evidence"][:, 1]
        assert 0 < weight[0] < 1  # the calibration counts as far as the tile's own evidence does not
        expected = factor ** (1 - weight[:, None, None]) * answer(plain, tile).uncertainty.numpy()[0]
        np.testing.assert_allclose(answer(wider, tile).uncertainty[0], expected, rtol=1e-5)


def growth(batch):
    """Return the factor by which uncertainties of a tile with a fit grow with the distance to its pixels, (y, x)."""
    trusted = batch.features["shared"][0, evidence.SHARED.index("trusted")].numpy() > 0
    return torch.as_tensor(0.83 * (1 + distance_transform_edt(~trusted)) ** 0.08, dtype=torch.float32)


def test_the_tile_gives_the_size_of_the_uncertainty_and_the_network_its_pattern():
    obs, net = observations(), random_net()
    batch = Batch.of([net.prepare(obs)])
    hidden = (batch.target_clear[0, 0] == 0) & batch.known()[0, 0]
    with torch.inference_mode():
        own, scaled = net.reason(batch).uncertainty[0], net(batch).uncertainty[0]
    scaled = scaled / growth(batch)
    ratio = (scaled / own).numpy()
    np.testing.assert_allclose(ratio, np.broadcast_to(ratio[:, :1, :1], ratio.shape), rtol=1e-5)
    factor, weight, widening = batch.features["evidence"][0].unbind(dim=1)
    assert (widening == 1).all()  # the squares of a date that shows something are many
    relative = torch.log(own / batch.features["uncertainty"][0])[:, hidden].mean(dim=1)
    new = torch.log(scaled / batch.features["uncertainty"][0])[:, hidden].mean(dim=1)
    np.testing.assert_allclose(new, weight * torch.log(factor) + (1 - weight) * relative, rtol=1e-4)


@pytest.mark.parametrize("weight", [0.0, None])
def test_without_evidence_the_uncertainty_is_the_networks_own(weight):
    obs, net = observations(), random_net()
    batch = Batch.of([net.prepare(obs)])
    evidence = batch.features.pop("evidence")
    if weight is not None:
        evidence[..., 1] = weight
        batch.features["evidence"] = evidence
    with torch.inference_mode():
        factor = 1.0 if weight is None else growth(batch)
        np.testing.assert_allclose(net(batch).uncertainty, net.reason(batch).uncertainty * factor, rtol=1e-5)


def test_the_uncertainty_of_a_short_series_is_wider():
    """By the same factor in every band and pixel; padded bands stay finite."""
    obs, net = observations(), random_net()
    near = np.sort(np.argsort(np.abs(obs.day_offset), kind="stable")[:2])
    few = Observations(obs.bands[near], np.ones_like(obs.clear[near]), obs.day_offset[near] + 1)
    tile, longer = net.prepare(few), replace(obs, bands=obs.bands[:, :1])
    widening = tile.features["evidence"][:, 2]
    assert widening == pytest.approx(student_widening(2) / UNSEEN)
    assert (tile.features["evidence"][:, 1] == 0).all()
    with torch.inference_mode():
        alone, own = net(Batch.of([tile])).uncertainty, net.reason(Batch.of([tile])).uncertainty
        both = net(Batch.of([net.prepare(longer), tile])).uncertainty
    np.testing.assert_allclose(alone, own * widening[0], rtol=1e-5)
    np.testing.assert_allclose(both[1], alone[0], rtol=1e-4)
    assert both.isfinite().all()


def test_the_network_is_trained_on_uncertainties_of_its_own():
    net = random_net().train()
    batch = Batch.of([net.prepare(observations())])
    with torch.no_grad():
        np.testing.assert_array_equal(net(batch).uncertainty, net.reason(batch).uncertainty)


@pytest.mark.parametrize("target", [-1, 5])
def test_where_no_date_shows_anything_there_is_nothing_to_give(target):
    obs = replace(observations(), clear=np.zeros((11, 48, 48), bool), target=target)
    tile = plus.FusionUNet.prepare(obs)
    assert not tile.clear.any() and (tile.source == -1).all()
    assert all(np.isfinite(feature).all() for feature in tile.features.values())
