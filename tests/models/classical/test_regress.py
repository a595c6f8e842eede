"""The robust regression: better than linear interpolation with a partly clear target, and robust to haze."""

from __future__ import annotations

import pickle

import numpy as np
import pytest

from tests.support.fields import DAYS, ROLES, SHAPE, TARGET, disc, hide, land
from xr_cloudfree.accuracy import metrics, simulate
from xr_cloudfree.models.auto import Auto
from xr_cloudfree.models.classical import regress, robust_ridge, stacking
from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.classical.regress import Regress
from xr_cloudfree.models.classical.series import Series
from xr_cloudfree.models.pretrained import locations
from xr_cloudfree.models.protocol import Observations


@pytest.fixture
def blob():
    return disc()


def psnr(model, obs, truth, where):
    return metrics.psnr(model.predict([obs])[0].bands, truth, where)


def test_it_beats_linear_where_the_target_is_partly_clear(blob):
    bands = land()
    obs = hide(bands, blob)
    assert psnr(Regress(), obs, bands[TARGET], blob) > psnr(Linear(), obs, bands[TARGET], blob) + 4


def test_a_constant_error_is_removed(blob):
    # All dates look alike but the target, which is brighter by a constant that no other date shows.
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
    assert target_is_ignored(hazy)


def target_is_ignored(obs):
    """Return whether the prediction is the same as without the target date."""
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
def test_with_too_few_clear_pixels_it_is_identical_to_the_prediction_without_the_target(clear_pixels):
    hidden = np.ones(SHAPE, bool)
    hidden.flat[:clear_pixels] = False
    assert target_is_ignored(hide(land(), hidden))


@pytest.mark.parametrize("away", [20, 60, 150])
def test_a_cloudy_target_is_ignored_also_in_a_long_gap(away):
    days = np.array([-75.0, -60, -45, -30, -15, 0, 15, 30, 45, 60, 75]) + np.sign(np.arange(-5.0, 6)) * away
    rng = np.random.default_rng(0)
    bands = rng.uniform(0.1, 0.3, (1, 4, *SHAPE)) + rng.normal(0, 0.02, (len(days), 4, *SHAPE))
    clear = np.ones((len(days), *SHAPE), bool)
    clear[5] = False
    assert target_is_ignored(Observations(bands.astype(np.float32), clear, days, 5, common_names=ROLES))


def test_without_the_target_it_is_the_stacked_interpolation():
    bands = land()
    kept = np.arange(len(DAYS)) != TARGET
    clear = np.random.default_rng(0).random((kept.sum(), *SHAPE)) < 0.4
    obs = Observations(bands[kept], clear, DAYS[kept], -1)
    expected, _, _ = stacking.interpolate(Series.of(obs), np.ones(clear[0].size, bool))
    answer = Regress().predict([obs])[0]
    np.testing.assert_array_equal(answer.bands.reshape(expected.shape), expected)
    np.testing.assert_array_equal(answer.known, clear.any(axis=0))


def test_values_that_are_not_clear_have_no_influence(blob):
    bands = land()
    obs = hide(bands, blob)
    rng = np.random.default_rng(1)
    clear = obs.clear.copy()
    others = np.arange(len(DAYS)) != TARGET
    clear[others] = rng.random((others.sum(), *SHAPE)) < 0.7
    answers = []
    for garbage in (np.nan, 0.0, 1e6):
        values = np.where(clear[:, None], obs.bands, np.float32(garbage))
        answers.append(Regress().predict([Observations(values, clear, DAYS, TARGET)])[0])
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


def test_clear_pixels_in_one_corner_are_enough():
    # All of them lie in one held-out block: the other folds are empty.
    hidden = np.ones(SHAPE, bool)
    hidden[:13, :13] = False
    answer = Regress().predict([hide(land(), hidden)])[0]
    assert np.isfinite(answer.bands).all() and np.isfinite(answer.uncertainty).all()


@pytest.mark.parametrize("seed", range(4))
def test_any_sprinkle_of_clear_pixels_gives_an_answer(seed):
    rng = np.random.default_rng(seed)
    hidden = rng.random(SHAPE) < (0.995, 0.95, 0.6, 0.01)[seed]
    bands = land(seed)
    bands[TARGET] = (0.1, 0.9, 0.5, 0.0)[seed]  # nothing like the other dates
    answer = Regress().predict([hide(bands, hidden)])[0]
    assert np.isfinite(answer.bands).all() and np.isfinite(answer.uncertainty).all()


def test_means_of_squares_and_their_interpolation_keep_levels_and_slopes():
    rows, columns = np.indices((22, 35)).astype(np.float32)
    maps = np.stack([np.full((22, 35), 0.25, np.float32), 2 * rows - columns])
    means = regress._block_means(maps[:, :20, :32], 4)
    np.testing.assert_allclose(means[0], 0.25)
    back = regress._interpolate(means, 4, (20, 32))
    np.testing.assert_allclose(back[0], 0.25)
    # Beyond the centres of the outermost squares the last value is kept.
    np.testing.assert_allclose(back[1, 2:-2, 2:-2], maps[1, 2:18, 2:30], atol=1e-4)
    # A window that is no multiple of the square gets as many pixels as it has; outside it there is nothing.
    assert regress._interpolate(regress._block_means(maps, 4), 4, (22, 35)).shape == maps.shape
    assert regress._block_means(maps, 4)[0, -1, -1] == 0.25 * 2 * 3 / 16
