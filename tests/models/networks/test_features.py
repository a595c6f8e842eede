"""Features of a tile: what training stores of them may only change together with their version."""

import numpy as np
import pytest

from xr_cloudfree.models.networks.features import FEATURES_VERSION, compute_features
from xr_cloudfree.models.protocol import Observations

# Mean and standard deviation of each feature, in version 3.
EXPECTED = {
    "candidates": ((2, 5, 32, 32), 0.2235, 0.10424),
    "hints": ((2, 3, 32, 32), -0.00365, 0.00693),
    "uncertainty": ((2, 32, 32), 0.00295, 0.00041),
    "scale": ((2,), 0.00283, 0.00023),
    "evidence": ((2, 2), 0.67487, 0.34154),
    "shared": ((15, 32, 32), 0.57934, 0.39519),
}


def test_the_features_of_this_version():
    assert FEATURES_VERSION == 3, "write down the features of the new version"
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
