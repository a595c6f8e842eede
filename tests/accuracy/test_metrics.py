"""Metrics against values computed by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xr_cloudfree.accuracy import metrics
from xr_cloudfree.errors import DimensionError

TRUTH = np.array([[[0.1, 0.2]], [[0.3, 0.4]]])
IMAGES = arrays(np.float64, (3, 4, 5), elements=st.floats(0.01, 1))


def test_errors_by_hand():
    predicted = TRUTH + np.array([[[0.1, -0.1]], [[0.3, 0.1]]])
    assert metrics.mae(predicted, TRUTH) == pytest.approx(0.15)
    assert metrics.rmse(predicted, TRUTH) == pytest.approx(np.sqrt(0.03))
    assert metrics.psnr(predicted, TRUTH) == pytest.approx(-10 * np.log10(0.03))


def test_only_the_pixels_that_count_do():
    predicted = TRUTH + np.array([[[0.1, 5.0]], [[0.3, np.nan]]])
    where = np.array([[True, False]])
    assert metrics.mae(predicted, TRUTH, where) == pytest.approx(0.2)
    assert metrics.rmse(predicted, TRUTH, where) == pytest.approx(np.sqrt(0.05))


def test_equal_images():
    assert metrics.psnr(TRUTH, TRUTH) == np.inf
    assert metrics.sam(TRUTH, TRUTH) == 0


def test_angle_by_hand():
    predicted = np.array([[[1.0, 1.0]], [[0.0, np.sqrt(3)]]])
    truth = np.array([[[1.0, 1.0]], [[1.0, 0.0]]])
    assert metrics.sam(predicted, truth) == pytest.approx((45 + 60) / 2)


def test_small_angles_keep_their_digits():
    truth = np.array([[[1.0]], [[0.0]]])
    predicted = np.array([[[1.0]], [[1e-9]]])
    assert metrics.sam(predicted, truth) == pytest.approx(np.degrees(1e-9), rel=1e-6)


def test_a_dark_pixel_has_no_angle():
    predicted = np.array([[[1.0, 0.0]], [[1.0, 0.0]]])
    truth = np.array([[[1.0, 1.0]], [[0.0, 0.0]]])
    assert metrics.sam(predicted, truth) == pytest.approx(45)
    assert np.isnan(metrics.sam(np.zeros((2, 1, 1)), np.ones((2, 1, 1))))


@given(IMAGES, st.floats(1.2, 3))
def test_rescaling_a_pixel_keeps_the_angle_and_rescaling_a_band_changes_it(image, factor):
    # The angle is taken over bands: an angle over pixels would rank these two the other way round.
    brightness = np.linspace(1, factor, 20).reshape(4, 5)
    assert metrics.sam(image * brightness, image) == pytest.approx(0, abs=1e-5)
    assert metrics.sam(image * np.array([factor, 1, 1])[:, None, None], image) > 1e-3


@given(IMAGES, IMAGES)
def test_rmse_is_at_least_mae_and_both_are_symmetric(a, b):
    assert metrics.rmse(a, b) >= metrics.mae(a, b) - 1e-12
    assert metrics.mae(a, b) == metrics.mae(b, a)


def ssim_by_definition(a, b, row, column, span):
    """One pixel's similarity, summed up weight by weight; the pixel lies away from the border."""
    axis = np.exp(-np.square(np.arange(-5, 6)) / (2 * 1.5**2))
    weight = np.outer(axis, axis) / np.outer(axis, axis).sum()
    x, y = (image[row - 5 : row + 6, column - 5 : column + 6] for image in (a, b))
    mx, my = (weight * x).sum(), (weight * y).sum()
    vx, vy = (weight * (x - mx) ** 2).sum(), (weight * (y - my) ** 2).sum()
    cov = (weight * (x - mx) * (y - my)).sum()
    c1, c2 = (0.01 * span) ** 2, (0.03 * span) ** 2
    return (2 * mx * my + c1) * (2 * cov + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


@pytest.mark.parametrize("span", [1.0, 0.2])
def test_ssim_by_definition(span):
    rng = np.random.default_rng(0)
    a = rng.uniform(0, 0.3, (1, 20, 20))
    b = a + rng.normal(0, 0.02, a.shape)
    where = np.zeros((20, 20), bool)
    where[8, 11] = True
    expected = ssim_by_definition(a[0], b[0], 8, 11, span)
    assert metrics.ssim(a, b, where, span) == pytest.approx(expected, rel=1e-9)


def test_ssim_takes_a_range_per_band():
    rng = np.random.default_rng(1)
    a, b = rng.uniform(0, 1, (2, 2, 16, 16))
    alone = [metrics.ssim(a[i : i + 1], b[i : i + 1], data_range=span) for i, span in enumerate((0.5, 1.0))]
    assert metrics.ssim(a, b, data_range=[0.5, 1.0]) == pytest.approx(np.mean(alone))


def test_data_range_leaves_out_the_extremes():
    band = np.arange(101.0).reshape(1, 1, 101)
    assert metrics.data_range(band).tolist() == [98.0]


def test_coverage_and_width_by_hand():
    truth = np.array([[[0.0, 1.0, 1.7, -3.0]]])
    coverage, width = metrics.interval_coverage(np.zeros_like(truth), truth, np.ones_like(truth), level=0.9)
    assert coverage == 0.5
    assert width == pytest.approx(2 * 1.6448536, rel=1e-6)


def test_crps_is_the_integral_that_defines_it():
    from scipy.special import ndtr

    grid = np.linspace(-12, 12, 400_001)
    truth, mean, deviation = 0.7, -0.2, 1.3
    integrand = np.square(ndtr((grid - mean) / deviation) - (grid >= truth))
    expected = integrand.sum() * (grid[1] - grid[0])
    shape = (1, 1, 1)
    answer = metrics.crps(np.full(shape, mean), np.full(shape, truth), np.full(shape, deviation))
    assert answer == pytest.approx(expected, rel=1e-4)


def test_crps_without_spread_is_the_absolute_error():
    assert metrics.crps(TRUTH + 0.1, TRUTH, np.zeros_like(TRUTH)) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("predicted", "where"),
    [
        (TRUTH[0], None),
        (TRUTH[:1], None),
        (TRUTH, np.ones((2, 2), bool)),
        (TRUTH, np.zeros((1, 2), bool)),
    ],
    ids=["no band axis", "another shape", "where of another shape", "nothing counts"],
)
def test_what_cannot_be_compared_is_refused(predicted, where):
    with pytest.raises(DimensionError):
        metrics.mae(predicted, TRUTH, where)
