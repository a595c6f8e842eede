"""The forest: known answers, and determinism."""

import numpy as np
import pytest

from xr_cloudfree.models.kernels import extra_trees


def test_a_step_is_found_whatever_is_beside_it():
    rng = np.random.default_rng(0)
    x = rng.normal(size=(400, 5)).astype(np.float32)
    y = np.where(x[:, 2] > 0.3, 2.0, -1.0).astype(np.float32)
    mean, spread = extra_trees.grow(x, y[:, None], np.ones(400, np.float32))(np.eye(5, dtype=np.float32)[[2, 0]] * 1.5)
    assert mean[0, 0] > 1.0 and mean[1, 0] < 0.0
    assert (spread >= 0).all()


def test_answers_are_means_of_what_was_seen():
    rng = np.random.default_rng(1)
    x, y = rng.normal(size=(200, 3)).astype(np.float32), rng.uniform(2, 3, (200, 4)).astype(np.float32)
    mean, _ = extra_trees.grow(x, y, np.ones(200, np.float32))(10 * rng.normal(size=(50, 3)).astype(np.float32))
    assert (mean >= y.min(axis=0)).all() and (mean <= y.max(axis=0)).all()


def test_the_same_samples_give_the_same_forest():
    rng = np.random.default_rng(2)
    x, y = rng.normal(size=(300, 6)).astype(np.float32), rng.normal(size=(300, 2)).astype(np.float32)
    features = rng.normal(size=(40, 6)).astype(np.float32)
    first, second = (extra_trees.grow(x, y, np.ones(300, np.float32))(features)[0] for _ in range(2))
    np.testing.assert_array_equal(first, second)
    # Pixel by pixel or all at once: a prediction does not depend on the pixels beside it.
    whole = extra_trees.grow(x, y, np.ones(300, np.float32))
    np.testing.assert_array_equal(first, np.concatenate([whole(features[i : i + 1])[0] for i in range(40)]))


def test_weights_count():
    x = np.zeros((10, 1), np.float32)  # nothing to split by: one leaf
    y = np.arange(10, dtype=np.float32)[:, None]
    weight = np.where(np.arange(10) == 7, 1.0, 1e-6).astype(np.float32)
    mean, spread = extra_trees.grow(x, y, weight)(x[:1])
    assert mean[0, 0] == pytest.approx(7, abs=1e-3)
    assert spread[0, 0] == pytest.approx(0, abs=1e-3)


def test_values_of_one_kind_and_of_many():
    x = np.linspace(-1, 1, 100, dtype=np.float32)[:, None]
    for width in (1, extra_trees.COMPONENTS, extra_trees.COMPONENTS + 3):
        y = np.repeat(np.sign(x), width, axis=1) * np.arange(1, width + 1, dtype=np.float32)
        mean, _ = extra_trees.grow(x, y, np.ones(100, np.float32))(np.array([[0.5]], np.float32))
        np.testing.assert_allclose(mean[0], np.arange(1, width + 1), atol=0.05)
