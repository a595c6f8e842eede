"""The benchmark of masks: the published methods it compares with, what is measured, and the page."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import noise_test, tmask

NAMES = ("green", "nir", "swir16")


def harmonic_series():
    """Three years of an observation every 20 days, of a harmonic with a drift over three years; one row of pixels."""
    days = np.arange(0, 3 * 365.25, 20.0)
    phase = 2 * np.pi * days / 365.25
    curve = 0.02 * np.cos(phase) - 0.03 * np.sin(phase) + 0.01 * np.cos(phase / 3)
    bands = np.stack([0.1 + curve, 0.35 + 2 * curve, 0.25 - curve], axis=1)[:, :, None, None]
    return np.repeat(bands, 8, axis=3).astype(np.float32), np.ones((days.size, 1, 8), bool), days


class TestTmask:
    def test_a_harmonic_is_fitted_exactly_and_outliers_do_not_move_it(self):
        bands, clear, days = harmonic_series()
        values = bands[:, 0, 0].astype(np.float64)
        values[[5, 17, 18, 30]] += 0.4
        left = tmask.residual(values, clear[:, 0], days)
        expected = np.zeros_like(left)
        expected[[5, 17, 18, 30]] = 0.4
        np.testing.assert_allclose(left, expected, atol=1e-4)

    def test_cloud_brightens_green_and_shadow_darkens_nir_and_swir_by_more_than_four_hundredths(self):
        bands, clear, days = harmonic_series()
        changes = [(0.05, 0, 0), (0.03, 0, 0), (0, -0.05, -0.05), (0, -0.05, -0.03), (0, 0.3, 0.3), (-0.05, 0, 0)]
        for pixel, change in enumerate(changes):
            bands[20, :, 0, pixel] += change
        found = tmask.tmask(bands, clear, days, NAMES)
        assert found[20, 0].tolist() == [False, True, False, True, True, True, True, True]
        assert np.delete(found, 20, axis=0).all()
        without_swir = tmask.tmask(bands[:, :2], clear, days, NAMES[:2])
        assert without_swir[20, 0].tolist() == [False, True, False, False, True, True, True, True]

    def test_it_restores_nothing_and_does_not_look_at_what_is_not_clear(self):
        bands, clear, days = harmonic_series()
        clear[3, :, :4] = False
        bands[3, :, :, :4] = np.nan
        found = tmask.tmask(bands, clear, days, NAMES)
        assert (found == clear).all()

    def test_few_observations_are_compared_with_their_median(self):
        bands, clear, days = harmonic_series()
        bands = np.full_like(bands, 0.2)
        bands[1, 0], bands[2, 0] = 0.25, 0.23
        clear[14:] = False
        found = tmask.tmask(bands, clear, days, NAMES)
        assert not found[1].any() and found[[0, *range(2, 14)]].all() and not found[14:].any()
        assert tmask.median(np.array([[3.0], [1.0], [9.0], [5.0]]), np.array([[True], [True], [False], [True]])) == 3
        assert tmask.median(np.array([[3.0], [1.0], [9.0]]), np.array([[True], [True], [False]])) == 2

    def test_the_long_period_is_the_number_of_years(self):
        assert tmask.design(np.array([0.0, 100, 300])).shape == (3, 3)
        terms = tmask.design(np.array([0.0, 365.25, 1.5 * 365.25]))
        np.testing.assert_allclose(terms[1], [1, 1, 0, np.cos(np.pi), np.sin(np.pi)], atol=1e-12)

    def test_bands_that_it_cannot_do_without(self):
        bands, clear, days = harmonic_series()
        with pytest.raises(ValueError, match="NIR"):
            tmask.tmask(bands, clear, days, ("green", "swir16", "swir22"))


class TestNoiseTest:
    def test_outliers_are_masked_and_false_alarms_restored(self):
        days = np.arange(40.0)
        # An even zigzag of 0.01: each observation is 0.02 from the line of its neighbours, which is the noise.
        zigzag = 0.2 + 0.01 * (-1.0) ** np.arange(40)
        bands = np.broadcast_to(zigzag[:, None, None, None], (40, 2, 1, 4)).astype(np.float32).copy()
        clear, usable = np.ones((40, 1, 4), bool), np.ones((40, 1, 4), bool)
        # An outlier: with its neighbours, which it moves by half of that, the noise is 0.1.
        bands[5, :, :, 1] += 0.5
        clear[5, :, 2:] = False
        bands[5, :, :, 2] = 0.2 + 0.015  # beyond its neighbours by less than the noise
        bands[5, :, :, 3] = 0.2 + 0.1
        found = noise_test.noise_test(bands, clear, days, usable)
        assert found[5, 0].tolist() == [True, False, True, False]
        assert np.delete(found, 5, axis=0).all()

    def test_what_has_no_value_is_not_restored(self):
        bands, clear, days = harmonic_series()
        usable = clear.copy()
        usable[3] = clear[3] = False
        bands[3] = np.nan
        assert not noise_test.noise_test(bands, clear, days, usable)[3].any()
