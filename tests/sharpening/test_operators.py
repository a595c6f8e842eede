"""Operators between grids, against answers known by hand."""

from __future__ import annotations

import numpy as np
import pytest

from xr_cloudfree.sharpening.operators import degrade, detail, interpolate, upsample


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_a_plane_stays_a_plane(factor):
    y, x = np.mgrid[: 20 * factor, : 18 * factor].astype(np.float32)
    plane = 0.1 + 0.002 * y - 0.001 * x
    means = plane.reshape(20, factor, 18, factor).mean(axis=(1, 3))
    coarse = degrade(plane, factor)
    np.testing.assert_allclose(coarse[3:-3, 3:-3], means[3:-3, 3:-3], atol=1e-6)
    np.testing.assert_allclose(upsample(means, factor)[12:-12, 12:-12], plane[12:-12, 12:-12], atol=1e-6)
    assert np.abs(detail(plane, factor)[8 * factor : -8 * factor, 8 * factor : -8 * factor]).max() < 1e-3


def test_the_response_of_a_pixel_has_the_width_of_the_pixel():
    """A Gaussian with a full width at half maximum of one coarse pixel, then the mean over the pixel."""
    factor = 6
    point = np.zeros((1, 60 * factor), np.float32)
    point[0, 30 * factor] = 1
    shifted = [degrade(np.repeat(np.roll(point, k, axis=1), factor, axis=0), factor)[0, 30] for k in range(-12, 13)]
    response = np.array(shifted)
    offset = np.arange(-12, 13) + 0.5 - factor / 2
    variance = float((response * offset**2).sum() / response.sum())
    expected = (factor / 2.3548) ** 2 + (factor**2 - 1) / 12
    assert variance == pytest.approx(expected, rel=0.05)


def test_nothing_is_lost_in_sum():
    image = np.random.default_rng(0).random((3, 24, 36)).astype(np.float32)
    np.testing.assert_allclose(degrade(image, 2).mean(axis=(1, 2)), image.mean(axis=(1, 2)), rtol=2e-2)
    np.testing.assert_allclose(upsample(np.full((5, 7), 0.3, np.float32), 3), np.full((15, 21), 0.3), atol=1e-6)


@pytest.mark.parametrize("factor", [2, 6])
def test_the_enlargement_gives_the_observation_when_degraded(factor):
    rng = np.random.default_rng(1)
    fine = rng.normal(0.2, 0.05, (40 * factor, 40 * factor)).astype(np.float32)
    coarse = degrade(fine, factor)
    rmse = float(np.sqrt(np.mean(np.square(degrade(interpolate(coarse, factor), factor) - coarse))))
    plain = float(np.sqrt(np.mean(np.square(degrade(upsample(coarse, factor), factor) - coarse))))
    assert rmse < 0.35 * plain


def test_a_part_gives_the_values_of_the_whole():
    image = np.random.default_rng(2).random((60, 60)).astype(np.float32)
    np.testing.assert_array_equal(degrade(image, 3)[5:-5, 5:-5], degrade(image[6:-6, 6:-6], 3)[3:-3, 3:-3])
    np.testing.assert_array_equal(upsample(image, 3)[30:90, 30:90], upsample(image[5:35, 5:35], 3)[15:75, 15:75])
