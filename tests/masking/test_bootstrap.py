import numpy as np
import pytest

from xr_cloudfree.masking.bootstrap import first_mask
from xr_cloudfree.masking.kernels import lasting

DAYS = np.arange(0, 240, 10.0)


def series(n_bands=3):
    rng = np.random.default_rng(2)
    return (0.15 + rng.normal(0, 0.004, (len(DAYS), n_bands, 8, 8))).astype(np.float32)


def masked(bands, usable=None):
    usable = np.ones((len(bands), *bands.shape[2:]), bool) if usable is None else usable
    return usable & ~first_mask(bands, usable, DAYS)[0]


@pytest.mark.parametrize("n_bands", [1, 3])
def test_an_ordinary_series_is_clear(n_bands):
    assert masked(series(n_bands)).mean() < 0.01


@pytest.mark.parametrize(("n_bands", "change"), [(3, 0.3), (3, -0.1), (1, 0.3), (1, -0.1)])
def test_a_date_that_is_brighter_or_darker_in_all_bands_is_not(n_bands, change):
    bands = series(n_bands)
    bands[9, :, 2:6, 2:6] += change
    found = masked(bands)
    assert found[9, 2:6, 2:6].all()
    assert found.sum() < 16 + 0.01 * found.size


def test_a_date_that_is_brighter_in_some_bands_only_is():
    bands = series()
    bands[9, :2] += 0.1
    bands[9, 2] -= 0.1
    assert not masked(bands)[9].any()


def test_clouds_on_most_dates_are_found():
    bands, cloudy = series(), np.zeros(len(DAYS), bool)
    cloudy[[0, 1, 3, 4, 6, 8, 9, 11, 13, 15, 16, 18, 20]] = True
    rises = [0.1, 0.4, 0.15, 0.6, 0.2, 0.5, 0.12, 0.3, 0.55, 0.1, 0.35, 0.6, 0.2]  # none is like two that are near
    bands[cloudy] += np.reshape(rises, (-1, 1, 1, 1)).astype(np.float32)
    found = masked(bands).mean(axis=(1, 2))
    assert (found[cloudy] > 0.9).all()
    assert (found[~cloudy] < 0.1).all()


def test_a_change_that_lasts_stays_clear():
    bands = series()
    bands[9:14] -= 0.1
    assert masked(bands).mean() < 0.02


def test_what_was_not_measured_is_not_clear():
    usable = np.ones((len(DAYS), 8, 8), bool)
    usable[4, :3] = False
    assert not first_mask(series(), usable, DAYS)[0][~usable].any()


def which_last(values, usable=None):
    bands = np.asarray(values, np.float32)[:, None, None]
    seen = np.ones((len(values), 1), bool) if usable is None else np.asarray(usable, bool)[:, None]
    return lasting(bands, seen, np.full(seen.shape, 0.1, np.float32), 0.2)[:, 0].tolist()


def test_two_of_four_neighbours_must_be_alike():
    # Dates that differ by at most 0.2 * 0.1 are alike.
    assert which_last([0.1, 0.2, 0.21, 0.195, 0.4]) == [False, True, True, True, False]
    assert which_last([0.1, 0.2, 0.21, 0.3, 0.4]) == [False] * 5
    assert which_last([0.1, 0.2, 0.3, 0.21, 0.195, 0.1]) == [False, False, False, True, False, False]


def test_dates_without_a_value_are_no_neighbours():
    values = [0.1, 0.2, 0.2, 0.21, 0.4, 0.2]
    assert which_last(values)[1]
    assert which_last(values, [1, 1, 0, 1, 1, 1]) == [False, False, False, True, False, False]
