"""The dates of a window other than the target: linear prediction, features and uncertainty."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.fields import DAYS, SHAPE, TARGET, disc, hide, land
from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.classical.series import CONTEXT, Series
from xr_cloudfree.models.protocol import Observations


@pytest.fixture
def obs():
    """A target with a hidden disc among dates with gaps; the first row is clear on no date."""
    obs = hide(land(), disc())
    clear = obs.clear & (np.random.default_rng(0).random(obs.clear.shape) < 0.7)
    clear[:, 0] = False
    return Observations(obs.bands, clear, obs.day_offset, obs.target)


def test_the_image_is_linear_interpolation_between_the_other_dates(obs):
    others = np.arange(len(DAYS)) != TARGET
    rest = Observations(obs.bands[others], obs.clear[others], DAYS[others])
    series, expected = Series.of(obs), Linear().predict([rest])[0]
    np.testing.assert_array_equal(series.known, expected.known.ravel())
    image = series.image.reshape(expected.bands.shape)
    np.testing.assert_array_equal(image[:, expected.known], expected.bands[:, expected.known])
    assert (image[:, ~expected.known] == 0).all()
    np.testing.assert_array_equal(series.source, np.append(np.flatnonzero(others), -1)[expected.source.ravel()])


def test_the_change_is_that_between_the_neighbours(obs):
    series = Series.of(obs)
    change = series.change
    for pixel in range(0, change.shape[1], 97):
        before, after = series.before[pixel], series.after[pixel]
        expected = 0
        if before >= 0 and after >= 0:
            expected = series.bands[before, :, pixel] - series.bands[after, :, pixel]
        np.testing.assert_array_equal(change[:, pixel], expected)


def test_dates_as_features_are_differences_to_the_image_with_gaps_interpolated(obs):
    series = Series.of(obs)
    features, bands = series.features(), obs.n_bands
    dates = np.delete(np.arange(len(DAYS)), TARGET)
    assert features.shape == ((2 + 2 + len(dates)) * bands, SHAPE[0] * SHAPE[1])
    for i, date in enumerate(dates):
        found = features[(4 + i) * bands :][:bands]
        clear = series.clear[date]
        np.testing.assert_array_equal(found[:, clear], (series.bands[date] - series.image)[:, clear])
        assert (found[:, ~series.known] == 0).all()
        # A gap is what linear interpolation between the other dates gives on that day.
        rest = Observations(obs.bands[dates], obs.clear[dates], DAYS[dates] - DAYS[date])
        expected = Linear().predict([rest])[0].bands.reshape(bands, -1) - series.image
        gaps = ~clear & series.known
        np.testing.assert_allclose(found[:, gaps], expected[:, gaps], atol=1e-6)


def test_features_of_the_neighbourhood_vanish_where_nothing_varies():
    bands = np.full((3, 2, 3 * CONTEXT, 3 * CONTEXT), 0.25, np.float32)
    series = Series.of(Observations(bands, np.ones((3, *bands.shape[2:]), bool), np.array([-5.0, 1.0, 6.0])))
    assert (series.features()[2 * 2 :] == 0).all()


def test_uncertainty_grows_with_the_gap():
    clear = np.ones((len(DAYS), *SHAPE), bool)
    clear[TARGET] = False
    clear[2:5, :, :40] = False
    uncertainty = Series.of(Observations(land(), clear, DAYS, -1)).uncertainty().reshape(-1, *SHAPE)
    narrow, wide = uncertainty[:, :, 40:], uncertainty[:, :, :40]
    assert (wide.mean(axis=(1, 2)) > 1.2 * narrow.mean(axis=(1, 2))).all()


def test_a_single_date_has_no_uncertainty():
    obs = Observations(land()[:1], np.ones((1, *SHAPE), bool), np.array([-5.0]), -1)
    assert np.isnan(Series.of(obs).uncertainty()).all()


def test_without_a_date_that_is_mostly_clear_there_are_no_dates_as_features(obs):
    clear = obs.clear.copy()
    clear[:, :, SHAPE[1] // 3 :] = False
    series = Series.of(Observations(obs.bands, clear, obs.day_offset, obs.target))
    assert series.features().shape == (4 * obs.n_bands, SHAPE[0] * SHAPE[1])
