import numpy as np
import pytest

from xr_cloudfree.masking.harmonic import DAYS_PER_YEAR, USUAL_SIZE, fit_harmonics, terms_of


def series(days, n_bands=2, shape=(7, 11), seed=0):
    """A seasonal series without noise, different in each pixel and band."""
    rng = np.random.default_rng(seed)
    level = rng.uniform(0.1, 0.3, (n_bands, *shape))
    phase = 2 * np.pi * days / DAYS_PER_YEAR
    swing = rng.uniform(-0.05, 0.05, (2, n_bands, *shape))
    cosine, sine = np.cos(phase)[:, None, None, None], np.sin(phase)[:, None, None, None]
    return (level + cosine * swing[0] + sine * swing[1]).astype(np.float32)


def fit(bands, clear=None, usable=None, days=None, readmit=False):
    every = np.ones((len(bands), *bands.shape[2:]), bool)
    usable = every if usable is None else usable
    return fit_harmonics(bands, usable, usable if clear is None else clear, days, readmit=readmit)


DAYS = np.arange(0, 700, 10.0)


def test_a_series_within_a_year_has_no_term_for_changes_between_years():
    assert terms_of(np.array([0.0, 100, 300])).shape == (3, 3)
    assert terms_of(np.array([0.0, 100, 800])).shape == (3, 5)


def test_a_seasonal_series_is_fitted_closely():
    bands = series(DAYS)
    fitted = fit(bands, days=DAYS)
    worst = max(np.abs(fitted.residual(bands, date)).max() for date in range(len(bands)))
    assert worst < 0.005  # what the penalty leaves of swings of at most 0.07
    assert (fitted.scale < USUAL_SIZE).all()
    assert (fitted.count > 0.8 * len(bands)).all()


@pytest.mark.parametrize("sign", [1, -1])
def test_an_outlier_does_not_move_the_fit(sign):
    bands = series(DAYS)
    spoilt = bands.copy()
    spoilt[20] += sign * 0.3
    with_outlier = fit(spoilt, days=DAYS).residual(spoilt, 20)
    np.testing.assert_allclose(with_outlier, sign * 0.3, atol=0.01)


def test_observations_that_are_not_clear_count_only_if_they_are_admitted_again():
    bands = series(DAYS)
    clear = np.ones((len(bands), *bands.shape[2:]), bool)
    clear[::2] = False
    left_out, readmitted = fit(bands, clear, None, DAYS), fit(bands, clear, np.ones_like(clear), DAYS, readmit=True)
    assert (left_out.count <= clear.sum(axis=0)).all()
    assert (readmitted.count > left_out.count).all()


def test_values_that_do_not_count_change_nothing():
    bands, usable = series(DAYS), np.ones((len(DAYS), 7, 11), bool)
    usable[5] = False
    changed = bands.copy()
    changed[5] = 9
    one, other = fit(bands, None, usable, DAYS, readmit=True), fit(changed, None, usable, DAYS, readmit=True)
    np.testing.assert_array_equal(one.coefficients, other.coefficients)
    np.testing.assert_array_equal(one.scale, other.scale)


def test_a_pixel_is_fitted_alone():
    rng = np.random.default_rng(1)
    bands = series(DAYS, shape=(9, 17)) + rng.normal(0, 0.02, (len(DAYS), 2, 9, 17)).astype(np.float32)
    whole = fit(bands, days=DAYS)
    part = fit(np.ascontiguousarray(bands[:, :, 3:5, 4:9]), days=DAYS)
    np.testing.assert_array_equal(part.coefficients, whole.coefficients[:, :, 3:5, 4:9])
    np.testing.assert_array_equal(part.scale, whole.scale[3:5, 4:9])
    np.testing.assert_array_equal(part.count, whole.count[3:5, 4:9])


def test_a_pixel_without_observations_is_no_error():
    bands = series(DAYS)
    nothing = np.zeros((len(DAYS), 7, 11), bool)
    fitted = fit(bands, nothing, nothing, DAYS)
    assert (fitted.count == 0).all()
    assert (fitted.coefficients == 0).all()
