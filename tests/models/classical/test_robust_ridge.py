"""The robust ridge regression: weights, thinning and products."""

from __future__ import annotations

import numpy as np

from xr_cloudfree.models.classical import robust_ridge


def test_tukey_weight_tells_haze_from_harvest():
    scale = np.full(4, 0.01)
    haze = np.array([0.05, 0.05, 0.05, 0.05])
    harvest = np.array([0.05, 0.04, 0.06, -0.08])
    weight = robust_ridge.tukey_weight(np.stack([haze, -haze, harvest, 0 * haze], axis=1), scale)
    assert weight[0] == weight[1] == 0
    assert 0 < weight[2] < weight[3] == 1


def test_thinning_is_even_and_the_same_every_time():
    pixels = np.arange(256 * 256)
    thin = robust_ridge.thin(pixels, (256, 256))
    assert 0.8 * robust_ridge.MAX_FIT < len(thin) < 1.2 * robust_ridge.MAX_FIT
    share = np.bincount(thin // 256 // 64 * 4 + thin % 256 // 64, minlength=16) / len(thin)
    assert share.min() > 0.04 and share.max() < 0.09
    assert (thin == robust_ridge.thin(pixels, (256, 256))).all()


def test_products_in_parts_are_products():
    rng = np.random.default_rng(0)
    for m, k, n in ((3, 5000, 40), (40, 7, 50_000), (2, 3, 0), (4, 0, 2)):
        a, b = rng.normal(size=(m, k)), rng.normal(size=(k, n))
        np.testing.assert_allclose(robust_ridge.product(a, b), a @ b, atol=1e-9)


def test_gram_matrices_in_blocks_are_products_with_a_row_of_ones():
    rng = np.random.default_rng(1)
    depth = robust_ridge.ONE_THREAD // robust_ridge.BLOCK**2
    for size, n in ((1, 1), (3, depth), (robust_ridge.BLOCK + 5, 2 * depth + 3), (2 * robust_ridge.BLOCK, 17)):
        x, weight = rng.normal(size=(size, n)).astype(np.float32), rng.uniform(size=n).astype(np.float32)
        whole = np.concatenate([x, np.ones((1, n))]).astype(np.float64)
        expected = (whole * weight) @ whole.T
        np.testing.assert_allclose(robust_ridge.gram_matrix(x, weight), expected, rtol=1e-5, atol=1e-4)
