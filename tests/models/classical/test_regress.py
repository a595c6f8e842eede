"""The robust regression: as without the target where that teaches nothing, else better, and not fooled by haze."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from xr_cloudfree.accuracy import metrics, simulate
from xr_cloudfree.engine import haze
from xr_cloudfree.models.auto import Auto
from xr_cloudfree.models.classical import robust_ridge, stacking
from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.classical.regress import Regress
from xr_cloudfree.models.classical.series import Series
from xr_cloudfree.models.pretrained import locations
from xr_cloudfree.models.protocol import Observations

SHAPE = (72, 80)
ROLES = ("blue", "green", "red", "nir")
DAYS = np.array([-45.0, -30, -15, 0, 15, 30])
TARGET = 3


def land(seed=0):
    """Fields that green up at their own times: reflectance (time, band, y, x), with a little noise."""
    rng = np.random.default_rng(seed)
    field = rng.uniform(-60, 60, (9, 10)).repeat(8, axis=0).repeat(8, axis=1)
    soil = rng.uniform(0.8, 1.2, SHAPE)
    green = 1 / (1 + np.exp(-(DAYS[:, None, None] - field) / 6))
    bare, leafy = np.array([0.08, 0.11, 0.14, 0.22]), np.array([0.03, 0.06, 0.04, 0.45])
    bands = (1 - green[:, None]) * bare[:, None, None] * soil + green[:, None] * leafy[:, None, None]
    return (bands + rng.normal(0, 0.003, bands.shape)).astype(np.float32)


def hide(bands, hidden, hazy=None):
    """What a model is given: the target's hidden part is not clear, and its clear part may be hazy."""
    clear = np.ones((len(bands), *SHAPE), bool)
    clear[TARGET] = ~hidden
    given = bands.copy()
    if hazy is not None:
        given[TARGET] = hazy
    given[TARGET][:, hidden] = np.nan
    return Observations(given, clear, DAYS, TARGET, common_names=ROLES)


@pytest.fixture
def blob():
    """A round cloud."""
    row, column = np.indices(SHAPE)
    return (row - 30) ** 2 + (column - 35) ** 2 < 18**2


def psnr(model, obs, truth, where):
    return metrics.psnr(model.predict([obs])[0].bands, truth, where)


def test_it_beats_linear_where_the_target_is_partly_clear(blob):
    bands = land()
    obs = hide(bands, blob)
    assert psnr(Regress(), obs, bands[TARGET], blob) > psnr(Linear(), obs, bands[TARGET], blob) + 4


def test_an_error_that_is_the_same_everywhere_is_taken_back(blob):
    # All dates look alike but the target, which is brighter by a constant that nothing else could tell.
    image = np.random.default_rng(0).uniform(0.1, 0.3, (4, *SHAPE)).astype(np.float32)
    bands = np.stack([image] * len(DAYS))
    bands[TARGET] += 0.05
    answer = Regress().predict([hide(bands, blob)])[0].bands
    assert np.abs(answer - bands[TARGET])[:, blob].max() < 1e-3


@pytest.mark.parametrize("seed", range(3))
def test_haze_beyond_the_mask_does_no_harm(blob, seed):
    bands = land(seed)
    hazy = simulate.haze(bands[TARGET], blob, np.random.default_rng(seed))
    clean = psnr(Regress(), hide(bands, blob), bands[TARGET], blob)
    obs = hide(bands, blob, hazy)
    assert psnr(Regress(), obs, bands[TARGET], blob) > psnr(Linear(), obs, bands[TARGET], blob) + 2
    assert psnr(Regress(), obs, bands[TARGET], blob) > clean - 2


def test_a_shadow_beyond_the_mask_does_no_harm(blob):
    bands = land()
    obs = hide(bands, blob, simulate.haze(bands[TARGET], blob, np.random.default_rng(0), cloud=0.01))
    assert psnr(Regress(), obs, bands[TARGET], blob) > psnr(Linear(), obs, bands[TARGET], blob) + 2


def test_strips_too_narrow_for_a_core_are_used_if_they_look_like_ground():
    bands = land()
    hidden = np.indices(SHAPE)[1] // 6 % 2 == 0
    obs = hide(bands, hidden)
    assert psnr(Regress(), obs, bands[TARGET], hidden) > psnr(Linear(), obs, bands[TARGET], hidden) + 3
    hazy = hide(bands, hidden, simulate.haze(bands[TARGET], hidden, np.random.default_rng(0)))
    assert nothing_is_learned(hazy)


def nothing_is_learned(obs):
    """Whether the answer is what it would be without the target date."""
    kept = np.arange(obs.n_dates) != obs.target
    rest = Observations(obs.bands[kept], obs.clear[kept], obs.day_offset[kept], common_names=obs.common_names)
    answer, expected = Regress().predict([obs, rest])
    known = expected.known
    return (
        (answer.known == known).all()
        and (answer.bands[:, known] == expected.bands[:, known]).all()
        and (np.append(np.flatnonzero(kept), -1)[expected.source] == answer.source).all()
    )


@pytest.mark.parametrize("clear_pixels", [0, robust_ridge.FOLDS])
def test_with_too_little_to_learn_from_it_is_as_without_the_target_to_the_last_bit(clear_pixels):
    hidden = np.ones(SHAPE, bool)
    hidden.flat[:clear_pixels] = False
    assert nothing_is_learned(hide(land(), hidden))


@pytest.mark.parametrize("away", [20, 60, 150])
def test_a_cloudy_target_is_as_none_also_in_a_long_gap(away):
    days = np.array([-75.0, -60, -45, -30, -15, 0, 15, 30, 45, 60, 75]) + np.sign(np.arange(-5.0, 6)) * away
    rng = np.random.default_rng(0)
    bands = rng.uniform(0.1, 0.3, (1, 4, *SHAPE)) + rng.normal(0, 0.02, (len(days), 4, *SHAPE))
    clear = np.ones((len(days), *SHAPE), bool)
    clear[5] = False
    assert nothing_is_learned(Observations(bands.astype(np.float32), clear, days, 5, common_names=ROLES))


def test_without_the_target_it_is_what_the_other_dates_tell():
    bands = land()
    kept = np.arange(len(DAYS)) != TARGET
    clear = np.random.default_rng(0).random((kept.sum(), *SHAPE)) < 0.4
    obs = Observations(bands[kept], clear, DAYS[kept], -1)
    expected, _ = stacking.interpolate(Series.of(obs), np.ones(clear[0].size, bool))
    answer = Regress().predict([obs])[0]
    np.testing.assert_array_equal(answer.bands.reshape(expected.shape), expected)
    np.testing.assert_array_equal(answer.known, clear.any(axis=0))


def test_hidden_pixels_and_the_rest_of_the_unclear_decide_nothing(blob):
    bands = land()
    obs = hide(bands, blob)
    rng = np.random.default_rng(1)
    clear = obs.clear.copy()
    others = np.arange(len(DAYS)) != TARGET
    clear[others] = rng.random((others.sum(), *SHAPE)) < 0.7
    answers = []
    for garbage in (np.nan, 0.0, 1e6):
        given = np.where(clear[:, None], obs.bands, np.float32(garbage))
        answers.append(Regress().predict([Observations(given, clear, DAYS, TARGET)])[0])
    for answer in answers[1:]:
        assert (answer.known == answers[0].known).all()
        where = answer.known
        assert (answer.bands[:, where] == answers[0].bands[:, where]).all()
        assert (answer.uncertainty[:, where] == answers[0].uncertainty[:, where]).all()


def test_the_answer_is_a_function_of_the_window_alone(blob):
    obs = hide(land(), blob)
    model = pickle.loads(pickle.dumps(Regress()))
    first, second = model.predict([obs, obs])
    alone = Regress().predict([obs])[0]
    for answer in (first, second):
        assert (answer.bands == alone.bands).all()
        assert (answer.uncertainty == alone.uncertainty).all()


def test_a_window_with_one_other_date_and_one_without_any(blob):
    bands = land()
    clear = np.zeros((len(DAYS), *SHAPE), bool)
    clear[TARGET] = ~blob
    answer = Regress().predict([Observations(bands, clear, DAYS, TARGET)])[0]
    assert not answer.known.any()
    clear[1, :40] = True
    answer = Regress().predict([Observations(bands, clear, DAYS, TARGET)])[0]
    assert (answer.known == clear[1]).all()
    assert np.isfinite(answer.bands[:, answer.known]).all()


def test_intervals_hold_what_they_promise(blob):
    inside = []
    for seed in range(6):
        bands = land(seed)
        answer = Regress().predict([hide(bands, blob)])[0]
        coverage, _ = metrics.interval_coverage(answer.bands, bands[TARGET], answer.uncertainty, blob)
        inside.append(coverage)
    assert 0.85 < np.mean(inside) < 0.97


def test_without_a_target_intervals_grow_with_the_gap():
    bands = land()
    clear = np.ones((len(DAYS), *SHAPE), bool)
    clear[TARGET] = False
    clear[2:5, :, :40] = False
    answer = Regress().predict([Observations(bands, clear, DAYS, -1)])[0]
    narrow, wide = answer.uncertainty[:, :, 40:], answer.uncertainty[:, :, :40]
    assert (wide.mean(axis=(1, 2)) > 1.2 * narrow.mean(axis=(1, 2))).all()


def test_with_a_single_date_there_is_no_uncertainty():
    bands = land()[:1]
    obs = Observations(bands, np.ones((1, *SHAPE), bool), np.array([-5.0]), -1)
    assert np.isnan(Regress().predict([obs])[0].uncertainty).all()


def test_ground_weight_tells_haze_from_harvest():
    scale = np.full(4, 0.01)
    haze = np.array([0.05, 0.05, 0.05, 0.05])
    harvest = np.array([0.05, 0.04, 0.06, -0.08])
    weight = robust_ridge.tukey_weight(np.stack([haze, -haze, harvest, 0 * haze], axis=1), scale)
    assert weight[0] == weight[1] == 0
    assert 0 < weight[2] < weight[3] == 1


def test_thinning_is_even_and_the_same_every_time():
    pixels = np.arange(256 * 256)
    thin = robust_ridge.thin(pixels, (256, 256))
    assert 0.8 * robust_ridge.MAX_FIT < len(thin) < 1.2 * robust_ridge.MAX_FIT
    share = np.bincount(thin // 256 // 64 * 4 + thin % 256 // 64, minlength=16) / len(thin)
    assert share.min() > 0.04 and share.max() < 0.09
    assert (thin == robust_ridge.thin(pixels, (256, 256))).all()


def test_without_learned_models_auto_answers_as_regress_whatever_it_chooses(blob, monkeypatch):
    monkeypatch.setattr(locations, "shipped", list)
    bands = land()
    observed = hide(bands, blob)
    kept = np.arange(len(DAYS)) != TARGET
    unobserved = Observations(bands[kept], np.ones((kept.sum(), *SHAPE), bool), DAYS[kept], -1)
    for obs in (observed, unobserved):
        chosen = Auto().choose(layers=(), bands=ROLES, common_names=ROLES)
        expected = Regress().predict([obs])[0].bands
        assert (chosen.predict([obs])[0].bands == expected).all()
        assert (Auto().predict([obs])[0].bands == expected).all()


def test_screen_finds_thin_cloud_and_leaves_clear_ground(blob):
    bands = land()
    # With dates on which the fields differ, a field that greens up is no cloud.
    assert haze.suspect(hide(bands, np.zeros(SHAPE, bool))).mean() < 0.002
    hazy = bands[TARGET] + 0.3 * blob * (0.6 - bands[TARGET])
    still = np.stack([bands[TARGET]] * len(DAYS)) + np.random.default_rng(0).normal(0, 0.003, bands.shape).astype(
        np.float32
    )
    found = haze.suspect(hide(still, np.zeros(SHAPE, bool), hazy.astype(np.float32)))
    assert found[blob].mean() > 0.95
    assert not found[~blob].any()


def test_screen_looks_at_one_pixel_at_a_time(blob):
    bands = land()
    hazy = (bands[TARGET] + 0.3 * blob * (0.6 - bands[TARGET])).astype(np.float32)
    obs = hide(bands, np.zeros(SHAPE, bool), hazy)
    whole = haze.suspect(obs)
    part = Observations(obs.bands[:, :, 20:40, 30:50], obs.clear[:, 20:40, 30:50], DAYS, TARGET, common_names=ROLES)
    assert (haze.suspect(part) == whole[20:40, 30:50]).all()


def test_screen_suspects_nothing_where_it_knows_nothing():
    bands = land()
    clear = np.ones((len(DAYS), *SHAPE), bool)
    assert not haze.suspect(Observations(bands + 0.3, clear, DAYS, -1)).any()
    clear[:TARGET] = False
    clear[TARGET + 1 :] = False
    assert not haze.suspect(Observations(bands, clear, DAYS, TARGET)).any()


def test_clear_pixels_in_one_corner_are_enough():
    # All of them lie in one held-out block: the other folds are empty.
    hidden = np.ones(SHAPE, bool)
    hidden[:13, :13] = False
    answer = Regress().predict([hide(land(), hidden)])[0]
    assert np.isfinite(answer.bands).all() and np.isfinite(answer.uncertainty).all()


def test_products_in_parts_are_products():
    rng = np.random.default_rng(0)
    for m, k, n in ((3, 5000, 40), (40, 7, 50_000), (2, 3, 0), (4, 0, 2)):
        a, b = rng.normal(size=(m, k)), rng.normal(size=(k, n))
        np.testing.assert_allclose(robust_ridge.product(a, b), a @ b, atol=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_any_sprinkle_of_clear_pixels_gives_an_answer(seed):
    rng = np.random.default_rng(seed)
    hidden = rng.random(SHAPE) < (0.995, 0.95, 0.6, 0.01)[seed]
    bands = land(seed)
    bands[TARGET] = (0.1, 0.9, 0.5, 0.0)[seed]  # nothing like the other dates
    answer = Regress().predict([hide(bands, hidden)])[0]
    assert np.isfinite(answer.bands).all() and np.isfinite(answer.uncertainty).all()
