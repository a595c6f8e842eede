"""Grids of two sensors: known answers of degrading and of interpolation, nested or not."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xr_cloudfree.cube.footprint import Footprint, cubic_weights, linear_weights, spread_weights


def footprint(size=30, step=3.0, first=1.5, width=None):
    centres = np.arange(first, size, step)
    return Footprint(centres, centres, (size, size), (step, step), (width or step, width or step))


@given(step=st.floats(1.0, 6.0), first=st.floats(0.0, 6.0))
def test_a_flat_image_stays_flat_whatever_the_grid(step, first):
    flat = np.full((1, 30, 30), 0.25, np.float32)
    grid = footprint(step=step, first=first)
    seen = grid.degrade(flat)
    np.testing.assert_allclose(seen[0][grid.inside], 0.25, rtol=1e-5)
    for back in (grid.interpolate, grid.interpolate_linearly, grid.repeat):
        np.testing.assert_allclose(back(np.full_like(seen, 0.25)), 0.25, rtol=1e-5)


@pytest.mark.parametrize("first", [1.5, 0.7, 2.9])
def test_a_ramp_is_seen_and_interpolated_as_a_ramp(first):
    """The point spread function is symmetrical, so that the mean of a ramp is its value at the centre."""
    ramp = np.broadcast_to(np.arange(30, dtype=np.float32) + 0.5, (1, 30, 30))
    grid = footprint(first=first)
    inner = slice(2, -2)
    np.testing.assert_allclose(
        grid.degrade(ramp)[0, inner, inner], np.tile(grid.columns[inner], (len(grid.rows) - 4, 1)), rtol=1e-4
    )
    seen = np.broadcast_to(grid.columns.astype(np.float32), (1, len(grid.rows), len(grid.columns)))
    for back in (grid.interpolate, grid.interpolate_linearly):
        np.testing.assert_allclose(back(seen)[0, 9:21, 9:21], ramp[0, 9:21, 9:21], rtol=1e-5)


def test_the_width_at_half_maximum_is_that_of_a_pixel_and_a_gaussian():
    """A square of 30 fine pixels blurred by a Gaussian of as much: its standard deviation by hand."""
    weights, _ = spread_weights(np.array([100.0]), 200, 30.0)
    place = np.arange(200) + 0.5 - 100
    assert weights.sum() == pytest.approx(1, abs=1e-5)
    expected = np.sqrt((30 / 2.3548) ** 2 + 30**2 / 12)
    assert np.sqrt((weights[0] * place**2).sum()) == pytest.approx(expected, rel=0.02)


def test_pixels_beyond_the_edge_are_not_inside_and_weigh_nothing():
    weights, inside = spread_weights(np.array([-3.0, 0.0, 1.5]), 9, 3.0)
    assert inside.tolist() == [False, False, True]
    assert not weights[:2].any()


def test_the_same_pixels_are_interpolated_as_they_are():
    centres = np.arange(5) + 0.5
    for weights in (cubic_weights(centres, 5, 1.0), linear_weights(centres, 5, 1.0)):
        np.testing.assert_array_equal(weights, np.eye(5))


def test_rows_and_columns_may_differ():
    grid = Footprint(np.array([1.0, 3.0]), np.array([2.5, 7.5, 12.5]), (4, 15), (2.0, 5.0), (2.0, 5.0))
    image = np.zeros((2, 4, 15), np.float32)
    assert grid.degrade(image).shape == (2, 2, 3)
    assert grid.interpolate(grid.degrade(image)).shape == image.shape
    left = grid.repeat(np.arange(6, dtype=np.float32).reshape(1, 2, 3))[0]
    assert left[0].tolist() == [0] * 5 + [1] * 5 + [2] * 5
    assert left[:, 0].tolist() == [0, 0, 3, 3]
