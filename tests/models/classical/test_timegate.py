"""The exponentially weighted composite, ``model="timegate"``."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xr_cloudfree.errors import OptionError
from xr_cloudfree.models.classical.timegate import TAU_DAYS, ExponentialDecay, decay, gate_weights
from xr_cloudfree.models.kernels import dispatch as kernels
from xr_cloudfree.models.protocol import Observations


def random_tile(seed: int, dates: int = 9) -> Observations:
    rng = np.random.default_rng(seed)
    clear = rng.random((dates, 6, 7)) < rng.random((6, 7))
    bands = rng.uniform(0, 1, (dates, 3, 6, 7)).astype(np.float32)
    bands[~np.broadcast_to(clear[:, np.newaxis], bands.shape)] = np.nan
    return Observations(bands, clear, np.sort(rng.uniform(-60, 60, dates)))


def test_by_hand() -> None:
    bands = np.array([1000, 2000, 9000], np.uint16).reshape(3, 1, 1, 1)
    clear = np.array([True, True, False]).reshape(3, 1, 1)
    days = np.array([-2 * TAU_DAYS, TAU_DAYS, 2 * TAU_DAYS])
    prediction = ExponentialDecay().predict([Observations(bands, clear, days)])[0]
    share = math.exp(-2) / (math.exp(-2) + math.exp(-1))
    assert prediction.bands.item() == pytest.approx(share * 1000 + (1 - share) * 2000, rel=1e-6)
    assert prediction.gate is not None
    np.testing.assert_allclose(prediction.gate.ravel(), [share, 1 - share, 0], rtol=1e-6)
    assert prediction.source is not None
    assert prediction.source.item() == 1


def test_past_and_future_may_fade_differently() -> None:
    np.testing.assert_allclose(
        decay(np.array([-6.0, 0.0, 6.0]), tau_past=3.0, tau_future=12.0), np.exp([-2.0, 0.0, -0.5]), rtol=1e-6
    )


def test_a_quick_gate_is_the_nearest_date() -> None:
    bands = np.array([100, 200, 300, 400], np.uint16).reshape(4, 1, 1, 1)
    obs = Observations(bands, np.ones((4, 1, 1), bool), np.array([-9.0, -4.0, 3.0, 8.0]))
    assert ExponentialDecay(tau_past=0.1, tau_future=0.1).predict([obs])[0].bands.item() == pytest.approx(300, abs=0.1)


def test_no_gate_closes_fully() -> None:
    obs = Observations(np.full((1, 1, 1, 1), 0.3, np.float32), np.ones((1, 1, 1), bool), np.array([-1e5]))
    prediction = ExponentialDecay().predict([obs])[0]
    assert prediction.known.item()
    assert prediction.bands.item() == np.float32(0.3)


@given(st.integers(0, 2**32 - 1))
def test_gates_are_shares_of_clear_dates(seed: int) -> None:
    obs = random_tile(seed)
    prediction = ExponentialDecay().predict([obs])[0]
    assert prediction.gate is not None
    np.testing.assert_array_equal(prediction.known, obs.clear.any(axis=0))
    assert (prediction.gate[~obs.clear] == 0).all()
    assert (prediction.gate[obs.clear] > 0).all()
    np.testing.assert_allclose(prediction.gate.sum(axis=0)[prediction.known], 1, rtol=1e-5)
    # A mean with positive weights stays among what was seen.
    seen = np.where(obs.clear[:, np.newaxis], obs.bands, np.nan)[..., prediction.known]
    image = prediction.bands[:, prediction.known]
    assert (image >= np.nanmin(seen, axis=0) - 1e-5).all()
    assert (image <= np.nanmax(seen, axis=0) + 1e-5).all()


@given(st.integers(0, 2**32 - 1), st.integers(1, 8))
def test_composites_of_parts_add_up(seed: int, split: int) -> None:
    obs = random_tile(seed)
    bands, clear = obs.bands.reshape(9, 3, -1), obs.clear.reshape(9, -1)
    weights, _ = gate_weights(clear, decay(obs.day_offset))
    whole = kernels.mix(bands, clear, weights)
    early = kernels.mix(bands[:split], clear[:split], weights[:split])
    late = kernels.mix(bands[split:], clear[split:], weights[split:])
    np.testing.assert_allclose(early + late, whole, rtol=1e-5, atol=1e-7)


@given(st.integers(0, 2**32 - 1))
def test_a_part_of_a_tile_has_the_same_answer(seed: int) -> None:
    obs = random_tile(seed)
    whole = ExponentialDecay().predict([obs])[0]
    part = Observations(obs.bands[..., 2:3, 4:5], obs.clear[:, 2:3, 4:5], obs.day_offset)
    np.testing.assert_array_equal(ExponentialDecay().predict([part])[0].bands, whole.bands[:, 2:3, 4:5])


@pytest.mark.parametrize("tau", [0.0, -1.0, float("nan"), float("inf"), "5"])
def test_a_tau_is_a_positive_number(tau: float) -> None:
    with pytest.raises(OptionError, match="tau_past"):
        ExponentialDecay(tau_past=tau)


def test_settings_are_part_of_the_spec() -> None:
    assert ExponentialDecay().spec.settings == ()
    assert ExponentialDecay(tau_future=9.0).spec.settings == (("tau_future", 9.0),)
