"""Stacked interpolators: weights follow the errors of held-out dates, else linear interpolation is used."""

from __future__ import annotations

import numpy as np
import pytest

from xr_cloudfree.models.classical import stacking
from xr_cloudfree.models.classical.pixelwise import DAYS_PER_YEAR, Linear
from xr_cloudfree.models.classical.regress import Regress
from xr_cloudfree.models.classical.series import Series
from xr_cloudfree.models.networks.features import compute_features
from xr_cloudfree.models.protocol import Observations

SHAPE, BANDS = (24, 30), 3
INDEX = {name: i for i, name in enumerate(stacking.INTERPOLATORS)}


def series(values, days, clear=None):
    """Return the series around a target that was not observed, from values (time, band, y, x)."""
    clear = np.ones((len(days), *values.shape[2:]), bool) if clear is None else clear
    return Series.of(Observations(values.astype(np.float32), clear, np.asarray(days, np.float64)))


def image(found, requested=True):
    return stacking.interpolate(found, np.full(found.clear.shape[1], requested))[:2]


def linear(found):
    return found.image


def noisy(days, date_noise, pixel_noise, seed=0):
    """Return land that does not change, and observations with noise per date and noise per pixel."""
    rng = np.random.default_rng(seed)
    land = rng.uniform(0.1, 0.4, (1, BANDS, *SHAPE))
    shared = date_noise * rng.normal(size=(len(days), BANDS, 1, 1))
    return land[0].reshape(BANDS, -1), land + shared + pixel_noise * rng.normal(size=(len(days), BANDS, *SHAPE))


def rms(error):
    return float(np.sqrt(np.mean(error**2)))


DAYS = np.array([-85.0, -70, -55, -40, -25, -10, 5, 20, 35, 50, 65])


def test_noise_is_averaged_out():
    land, values = noisy(DAYS, 0.0, 0.02)
    found = series(values, DAYS)
    # Of two dates at weights of 2/3 and 1/3 a share of 5/9 of the variance is left, of four a quarter.
    assert rms(linear(found) - land) == pytest.approx(0.02 * np.sqrt(5 / 9), rel=0.05)
    assert rms(image(found)[0] - land) < 0.02 * np.sqrt(0.35)
    shares = stacking._fit_weights(stacking._leave_out(found))
    assert shares[1, INDEX["linear"]] < 0.4 and shares[1, INDEX["nearest"]] == 0


def test_what_changes_steadily_is_left_to_linear_interpolation():
    rng = np.random.default_rng(0)
    slope = rng.uniform(-4e-3, 4e-3, (1, BANDS, *SHAPE))
    values = 0.4 + DAYS[:, None, None, None] * slope + 1e-4 * rng.normal(size=(len(DAYS), BANDS, *SHAPE))
    found = series(values, DAYS)
    assert (stacking._fit_weights(stacking._leave_out(found))[:, INDEX["linear"]] > 0.9).all()
    assert rms(image(found)[0] - 0.4) < 1.1 * rms(linear(found) - 0.4) + 1e-3


def test_what_repeats_every_year_is_predicted_from_other_years():
    days = np.sort(np.concatenate([year * 365.25 + np.arange(-170.0, 171.0, 20.0) for year in (-2, -1, 0, 1)]))
    rng = np.random.default_rng(1)
    cut = rng.uniform(-150, 150, SHAPE)  # each field is cut on a day of its own, the same in each year
    season = np.abs((days[:, None, None] - cut + 182.625) % 365.25 - 182.625) < 30
    values = np.repeat(np.where(season, 0.4, 0.1)[:, None], BANDS, axis=1) + 0.002 * rng.normal(
        size=(len(days), BANDS, *SHAPE)
    )
    at = int(np.flatnonzero(np.abs(days) < 11)[0])
    keep = np.abs(days - days[at]) > 35  # a gap over which fields come and go
    found = series(values[keep], days[keep] - days[at])
    assert stacking._fit_weights(stacking._leave_out(found))[1, INDEX["season"]] > 0.5
    truth = values[at].reshape(BANDS, -1)
    assert rms(image(found)[0] - truth) < 0.7 * rms(linear(found) - truth)


def test_the_mean_and_the_deviations_get_separate_weights():
    """The mean rises steadily, which only interpolation follows; the pattern is constant, with noise."""
    land, values = noisy(DAYS, 0.0, 0.02)
    found = series(values + 2e-3 * DAYS[:, None, None, None], DAYS)
    of_all, within = stacking._fit_weights(stacking._leave_out(found))
    assert of_all[INDEX["linear"]] > 0.9 > 0.5 > within[INDEX["linear"]]
    assert rms(image(found)[0] - land) < 0.8 * rms(linear(found) - land)


@pytest.mark.parametrize(
    ("gram", "expected"),
    [
        (np.diag([1.0, 1.0]), [0.5, 0.5]),
        (np.diag([1.0, 3.0]), [0.75, 0.25]),  # inverse to the variances
        (np.array([[1.0, 0.9], [0.9, 1.2]]), [0.75, 0.25]),  # (1.2 - 0.9) / (1 + 1.2 - 2 * 0.9)
        (np.array([[1.0, 1.0], [1.0, 2.0]]), [1.0, 0.0]),  # the second only adds to what the first is off by
        (np.array([[2.0, 1.0], [1.0, 1.0]]), [0.0, 1.0]),
    ],
)
def test_weights_by_hand(gram, expected):
    np.testing.assert_allclose(stacking._least_error_weights(gram, 1e-9), expected, atol=1e-3)


def test_the_regularisation_favours_linear_interpolation():
    gram = np.diag([1.0, 1.0])
    # (1 + 2 pull) / (2 + 2 pull), from the derivative of the sum
    for pull in (0.1, 0.5, 2.0):
        assert stacking._least_error_weights(gram, pull)[0] == pytest.approx((1 + 2 * pull) / (2 + 2 * pull), abs=1e-3)


@pytest.mark.parametrize("size", [1e-9, 1.0, 1e6, 1e9])
def test_weights_are_found_also_if_all_others_have_large_equal_errors(size):
    errors = np.concatenate([np.full((1, 9), 1.0), np.full((4, 9), size)])
    shares = stacking._least_error_weights(errors @ errors.T / 9, 0.03)
    assert (shares >= 0).all() and shares.sum() == pytest.approx(1)
    assert shares[0] > 0.9 or size <= 1


def test_weights_are_shares():
    rng = np.random.default_rng(0)
    for _ in range(50):
        errors = rng.normal(size=(5, 7)) * rng.uniform(0, 2, (5, 1))
        shares = stacking._least_error_weights(errors @ errors.T / 7, 0.03)
        assert (shares >= 0).all() and shares.sum() == pytest.approx(1)


@pytest.mark.parametrize("days", [[-5.0], [-5.0, 5.0], [5.0, 9.0], [-5.0, -5.0, -4.8], [-25.0, -15, -5, 5, 15]])
def test_without_five_dates_to_leave_out_it_is_linear_interpolation(days):
    _, values = noisy(np.array(days), 0.02, 0.02)
    clear = np.ones((len(days), *SHAPE), bool)
    clear[0, 3:] = False  # too little to be held out
    found = series(values, days, clear)
    answer, source = image(found)
    np.testing.assert_array_equal(answer, np.where(found.known, linear(found), 0))
    np.testing.assert_array_equal(source, found.source)


def test_nothing_is_fitted_if_no_pixel_is_requested(monkeypatch):
    found = series(noisy(DAYS, 0.02, 0.02)[1], DAYS)
    monkeypatch.setattr(stacking, "_leave_out", None)
    np.testing.assert_array_equal(image(found, requested=False)[0], linear(found))


def test_constant_land_is_predicted_exactly():
    values = np.full((len(DAYS), BANDS, *SHAPE), 0.3)
    np.testing.assert_array_equal(image(series(values, DAYS))[0], np.float32(0.3))


def test_values_that_are_not_clear_have_no_influence():
    _, values = noisy(DAYS, 0.01, 0.02)
    clear = np.random.default_rng(2).random((len(DAYS), *SHAPE)) < 0.6
    clear[:, :2] = False
    answers = []
    for junk in (0.0, np.nan, np.inf, 1e30):
        given = np.where(clear[:, None], values, junk)
        answer, source = image(series(given, DAYS, clear))
        answers.append((answer, source))
    for answer, source in answers[1:]:
        np.testing.assert_array_equal(answer, answers[0][0])
        np.testing.assert_array_equal(source, answers[0][1])
    assert (answers[0][0][:, : 2 * SHAPE[1]] == 0).all()


@pytest.mark.parametrize("first", [True, False])
def test_a_date_beyond_the_series_is_compared_to_predictions_from_one_side(first):
    """Fields vary with the year: half a year ahead the last date is wrong, and dates of other years are right."""
    days = np.arange(0.0, 3 * 365, 15)
    phase = np.random.default_rng(4).uniform(0, 2 * np.pi, SHAPE)

    def at(day):
        wave = np.sin(2 * np.pi * np.reshape(day, (-1, 1, 1)) / DAYS_PER_YEAR + phase)
        return np.repeat((0.25 + 0.1 * wave)[:, None], BANDS, axis=1)

    moment = -150.0 if first else days[-1] + 150
    found = series(at(days), days - moment)
    for date in range(len(days)):
        offsets = found.days[stacking._comparable_dates(found, found.days - found.days[date])] - found.days[date]
        assert (offsets >= 150).all() if first else (offsets <= -150).all()
    truth = at(moment)[0].reshape(BANDS, -1)
    assert stacking._fit_weights(stacking._leave_out(found))[1, INDEX["season"]] > 0.8
    assert rms(image(found)[0] - truth) < 0.3 * rms(linear(found) - truth)


def test_a_long_gap_is_compared_to_gaps_as_long():
    days = np.array([-85.0, -70, -55, -40, 35, 50, 65])
    found = series(noisy(days, 0.0, 0.02)[1], days)
    for date in (0, 3, 6):
        offsets = days[stacking._comparable_dates(found, days - days[date])] - days[date]
        assert ((offsets <= -40) | (offsets >= 35)).all() and len(offsets) == np.sum((offsets <= -40) | (offsets >= 35))
    clear = np.ones((len(days), *SHAPE), bool)
    clear[3, 3:] = False  # of this date too little is seen to be the target's nearest
    cloudy = series(noisy(days, 0.0, 0.02)[1], days, clear)
    assert (days[stacking._comparable_dates(cloudy, days - days[6])] <= days[6] - 55).all()


def test_observations_of_one_pass_are_left_out_together():
    """Each date exists twice, with the same noise: predicted from its double it would have no error."""
    land, values = noisy(DAYS, 0.0, 0.02)
    days = np.sort(np.concatenate([DAYS, DAYS + 0.01]))
    found = series(np.repeat(values, 2, axis=0), days)
    assert stacking._fit_weights(stacking._leave_out(found))[1, INDEX["nearest"]] < 0.1
    assert rms(image(found)[0] - land) < rms(linear(found) - land)


def test_units_do_not_matter():
    _, values = noisy(DAYS, 0.01, 0.02)
    one, two = image(series(values, DAYS))[0], image(series(4 * values, DAYS))[0]
    np.testing.assert_allclose(two, 4 * one, rtol=1e-5)


def test_a_source_has_a_weight_of_at_least_one_half():
    """Values of 1 on one date and 0 on the others give the weight of that date."""
    rng = np.random.default_rng(3)
    slope = rng.uniform(-1e-3, 1e-3, (1, BANDS, *SHAPE))
    values = noisy(DAYS, 0.0, 0.01)[1] + DAYS[:, None, None, None] * slope
    clear = rng.random((len(DAYS), *SHAPE)) < 0.7
    found = series(values, DAYS, clear)
    _, source = image(found)
    shares = stacking._fit_weights(stacking._leave_out(found))
    weights = np.stack(
        [
            (share[:, None, None] * stacking._predict(_only(found, date), range(len(INDEX)))).sum(axis=0)[0]
            for share in shares
            for date in range(len(DAYS))
        ]
    ).reshape(2, len(DAYS), -1)
    np.testing.assert_allclose(weights.sum(axis=1), found.known * np.ones((2, 1)), atol=1e-5)
    some = np.flatnonzero(source >= 0)
    assert len(some) and (weights[:, source[some], some] > 0.5 - 1e-6).all()
    assert (source < 0).any()


def _only(found, date):
    bands = np.zeros((len(DAYS), 1, *SHAPE), np.float32)
    bands[date] = 1
    return Series.of(Observations(bands, found.clear.reshape(len(DAYS), *SHAPE), found.days))


def test_models_use_it_on_dates_without_an_observation():
    land, values = noisy(DAYS, 0.0, 0.02)
    obs = Observations(values.astype(np.float32), np.ones((len(DAYS), *SHAPE), bool), DAYS)
    expected, source = image(Series.of(obs))
    answer, tile = Regress().predict([obs])[0], compute_features(obs)
    np.testing.assert_array_equal(answer.bands.reshape(BANDS, -1), expected)
    np.testing.assert_array_equal(answer.source.ravel(), source)
    for candidate in tile.features["candidates"].swapaxes(0, 1):
        np.testing.assert_array_equal(candidate.reshape(BANDS, -1), expected)
    np.testing.assert_array_equal(tile.source.ravel(), source)
    assert rms(expected - land) < rms(Linear().predict([obs])[0].bands.reshape(BANDS, -1) - land)
