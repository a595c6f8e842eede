"""What is kept comes back as it was, and takes no more than its limit."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from xr_cloudfree.engine.kept import Kept


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float32"])
def test_arrays_come_back_as_they_were(dtype):
    kept = Kept()
    values = np.random.default_rng(0).integers(0, 2, (3, 5, 7)).astype(dtype)
    kept.keep(1, values[:, ::2])
    found = kept.take(1)
    np.testing.assert_array_equal(found, values[:, ::2])
    assert found.dtype == values.dtype and kept.take(2) is None


def test_those_that_were_not_needed_for_longest_are_dropped():
    rng = np.random.default_rng(0)
    kept = Kept(limit=3500)
    for key in range(3):
        kept.keep(key, rng.integers(0, 256, 1000).astype(np.uint8))
    assert len(kept) == 3 and kept.take(0) is not None
    kept.keep(3, rng.integers(0, 256, 1000).astype(np.uint8))
    assert [key for key in range(4) if kept.take(key) is not None] == [0, 2, 3] and kept.size <= 3500


def test_an_array_that_is_kept_again_counts_once():
    kept = Kept()
    kept.keep(0, np.arange(100))
    size = kept.size
    kept.keep(0, np.arange(100))
    assert kept.size == size and len(kept) == 1


def test_threads_may_share_it():
    kept = Kept(limit=2000)

    def use(number):
        kept.keep(number % 7, np.full(50, number % 7))
        found = kept.take(number % 7)
        return found is None or (found == number % 7).all()

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(use, range(400)))
