"""Features of a tile: what training stores of them may only change together with their version."""

import numpy as np
import pytest

from xr_cloudfree import synthetic
from xr_cloudfree.models.kernels import extra_trees
from xr_cloudfree.models.networks.features import FEATURES_VERSION, SAMPLES, compute_features
from xr_cloudfree.models.protocol import Observations

# Mean and standard deviation of each feature, in version 5.
EXPECTED = {
    "candidates": ((2, 5, 32, 32), 0.2235, 0.10424),
    "hints": ((2, 3, 32, 32), -0.00365, 0.00693),
    "uncertainty": ((2, 32, 32), 0.00295, 0.00041),
    "scale": ((2,), 0.00283, 0.00023),
    "evidence": ((2, 3), 0.78325, 0.31821),
    "shared": ((15, 32, 32), 0.57934, 0.39519),
}


def test_the_features_of_this_version():
    assert FEATURES_VERSION == 5, "write down the features of the new version"
    rng = np.random.default_rng(0)
    y, x = np.indices((32, 32)) / 32
    level = 0.1 + 0.05 * np.sin(6 * x) + 0.1 * y
    days = np.array([-30.0, -12.0, 0.0, 7.0, 25.0])
    bands = np.stack([[level * (1 + 0.004 * day), level * (2 + 0.003 * day)] for day in days])
    bands = (bands + rng.normal(0, 0.003, bands.shape)).astype(np.float32)
    clear = rng.random((5, 32, 32)) > 0.1
    clear[2, 8:24, 10:22] = False
    tile = compute_features(Observations(bands, clear, days, 2))
    assert tile.features.keys() == EXPECTED.keys()
    for name, (shape, mean, spread) in EXPECTED.items():
        feature = tile.features[name]
        assert feature.shape == shape and feature.dtype == np.float32
        # Training that goes on with stored samples needs a new FEATURES_VERSION if this fails.
        assert (feature.mean(), feature.std()) == pytest.approx((mean, spread), abs=2e-5), name


def test_forests_grow_on_the_stated_number_of_samples(monkeypatch):
    """Also where the regression has used twice as many, selected from the pixels of a large tile."""
    days = np.arange(-32.0, 40.0, 8.0)
    landscape = synthetic.truth("2023-06-01", shape=(9, 2, 192, 192), seed=2).values
    noise = np.random.default_rng(0).normal(0, 0.003, (9, *landscape.shape))
    bands = (landscape * (1 + 0.004 * days[:, None, None, None]) + noise).astype(np.float32)
    clear = np.ones((9, 192, 192), bool)
    clear[4, 60:90, 40:150] = False
    sizes, grow = [], extra_trees.grow

    def counted(features, *args, **options):
        sizes.append(len(features))
        return grow(features, *args, **options)

    monkeypatch.setattr(extra_trees, "grow", counted)
    compute_features(Observations(bands, clear, days, 4))
    assert len(sizes) == 4 and sum(sizes) == 3 * SAMPLES  # each without a quarter of them
