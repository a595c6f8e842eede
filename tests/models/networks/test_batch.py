"""Inputs of a network: choice of dates, padding and checks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

from xr_cloudfree.errors import ModelError
from xr_cloudfree.models.networks.batch import Batch
from xr_cloudfree.models.networks.inputs import prepare
from xr_cloudfree.models.protocol import Observations


def tile(days, target=-1, bands=2, shape=(3, 4), seed=0, hide=0.4):
    """Random observations, NaN where not clear."""
    rng = np.random.default_rng(seed)
    clear = rng.random((len(days), *shape)) > hide
    clear[:, 0, 0] = True
    values = rng.uniform(0.05, 0.4, (len(days), bands, *shape)).astype(np.float32)
    values[~np.broadcast_to(clear[:, None], values.shape)] = np.nan
    return Observations(values, clear, np.array(days, float), target)


def test_the_targets_own_observation_stands_by_itself():
    obs = tile([-5, 0, 7], target=1)
    made = prepare(obs)
    assert made.day_offset.tolist() == [-5, 7]
    np.testing.assert_array_equal(made.target_clear[0], obs.clear[1])
    np.testing.assert_array_equal(made.target, np.where(obs.clear[1], obs.bands[1], 0))
    np.testing.assert_array_equal(made.bands, np.where(obs.clear[[0, 2], None], obs.bands[[0, 2]], 0))
    np.testing.assert_array_equal(made.clear[:, 0], obs.clear[[0, 2]])
    assert made.date_valid.all() and made.band_valid.all()
    assert {made.bands.dtype, made.clear.dtype, made.target.dtype, made.day_offset.dtype} == {np.dtype("float32")}


def test_an_unobserved_target_is_nowhere_clear():
    made = prepare(tile([-5, 7]))
    assert len(made.bands) == 2
    assert not made.target.any() and not made.target_clear.any()


def test_the_nearest_dates_are_kept_in_the_order_of_time():
    assert prepare(tile([-20, -9, -3, 2, 9, 30]), max_dates=3).day_offset.tolist() == [-9, -3, 2]
    assert prepare(tile([-20, -9, -3, 2, 9, 30]), max_dates=4).day_offset.tolist() == [-9, -3, 2, 9]


def test_cloudy_dates_take_no_place():
    obs = tile([-2, -1, 0, 1, 2])
    obs.clear[[1, 3]] = False
    assert prepare(obs, max_dates=2).day_offset.tolist() == [-2, 0]
    obs.clear[:] = False
    made = prepare(obs)
    assert made.bands.shape == (0, 2, 3, 4)
    batch = Batch.of([made])
    assert batch.bands.shape == (1, 1, 2, 3, 4)
    assert not batch.date_valid.any() and not batch.known().any()


def test_observations_must_be_reflectance():
    obs = tile([-2, 3])
    with pytest.raises(ModelError, match="units='reflectance'"):
        prepare(replace(obs, scale=1e-4))


def test_a_batch_is_filled_up():
    long, wide = prepare(tile([-9, -3, 2, 9])), prepare(tile([-1, 4], bands=5, seed=1))
    long, wide = (replace(p, features={"n": p.bands[:, 0]}) for p in (long, wide))
    batch = Batch.of([long, wide])
    assert batch.bands.shape == (2, 4, 5, 3, 4)
    assert batch.band_valid.tolist() == [[True] * 2 + [False] * 3, [True] * 5]
    assert batch.date_valid.tolist() == [[True] * 4, [True, True, False, False]]
    np.testing.assert_array_equal(batch.bands[0, :, :2], long.bands)
    np.testing.assert_array_equal(batch.bands[1, :2], wide.bands)
    assert not batch.bands[0, :, 2:].any() and not batch.bands[1, 2:].any() and not batch.clear[1, 2:].any()
    assert batch.features["n"].shape == (2, 4, 3, 4)
    np.testing.assert_array_equal(batch.features["n"][1, :2], wide.bands[:, 0])


def test_tiles_that_do_not_go_together():
    with pytest.raises(ModelError, match="at least one"):
        Batch.of([])
    with pytest.raises(ModelError, match="the tiles differ"):
        Batch.of([prepare(tile([1])), prepare(tile([1], shape=(4, 4)))])
    plain = prepare(tile([1]))
    with pytest.raises(ModelError, match="the tiles differ"):
        Batch.of([plain, replace(plain, features={"n": plain.target})])


@pytest.mark.parametrize(
    ("name", "wrong"),
    [
        ("bands", torch.zeros(1, 2, 2, 3)),
        ("bands", torch.zeros(1, 0, 2, 3, 4)),
        ("bands", torch.zeros(1, 2, 2, 3, 4, dtype=torch.int16)),
        ("clear", torch.ones(1, 2, 3, 4)),
        ("clear", torch.ones(1, 2, 1, 3, 4, dtype=torch.bool)),
        ("day_offset", torch.zeros(1, 3)),
        ("day_offset", torch.zeros(1, 2, dtype=torch.float64)),
        ("date_valid", torch.ones(1, 2)),
        ("target", torch.zeros(1, 3, 3, 4)),
        ("target_clear", torch.zeros(1, 2, 3, 4)),
        ("band_valid", torch.ones(2, dtype=torch.bool)),
        ("features", {"n": torch.zeros(2, 3)}),
    ],
)
def test_a_batch_checks_itself(name, wrong):
    batch = Batch.of([prepare(tile([-3, 4]))])
    with pytest.raises(ModelError, match=name.removesuffix("s")):
        replace(batch, **{name: wrong})


def test_another_type_keeps_the_days():
    batch = Batch.of([replace(prepare(tile([-301, 303])), features={"n": np.ones(3, np.float32)})])
    for kind, days in ((torch.bfloat16, torch.float32), (torch.float64, torch.float64)):
        moved = batch.to(dtype=kind)
        assert moved.bands.dtype == moved.target.dtype == moved.clear.dtype == moved.features["n"].dtype == kind
        assert moved.day_offset.dtype == days and moved.day_offset.tolist() == [[-301, 303]]
        assert moved.date_valid.dtype == torch.bool
    assert batch.to("cpu").bands.dtype == torch.float32


def test_the_target_as_one_more_date():
    seen, unseen = prepare(tile([-3, 0, 4], target=1)), prepare(tile([-6, -2], seed=1))
    batch = Batch.of([seen, unseen])
    more = batch.with_target_as_date()
    assert more.day_offset.tolist() == [[-3, 4, 0], [-6, -2, 0]]
    assert more.date_valid.tolist() == [[True, True, True], [True, True, False]]
    assert torch.equal(more.bands[:, 2], batch.target) and torch.equal(more.clear[:, 2], batch.target_clear)
    assert torch.equal(more.known()[0], batch.known()[0] | (batch.target_clear[0] > 0))
    assert torch.equal(more.known()[1], batch.known()[1])
