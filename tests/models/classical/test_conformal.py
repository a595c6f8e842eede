import numpy as np
import pytest

from xr_cloudfree.models.classical import conformal, stacking
from xr_cloudfree.models.classical.conformal import (
    BANDS_PRIOR,
    TILE_PRIOR,
    Z90,
    Evidence,
    evidence,
    student_widening,
    weighted_quantile,
)
from xr_cloudfree.models.classical.regress import Regress
from xr_cloudfree.models.classical.series import UNSEEN, Series
from xr_cloudfree.models.protocol import Observations

MANY = 10_000


def test_the_factor_is_the_quantile_of_errors_over_half_widths():
    # Ten errors of 1 ... 10 half widths of 0.1: the ninth is the least that nine tenths do not exceed.
    errors = np.arange(1.0, 11)[None] / 10 * Z90 * 2.0
    uncertainty = np.full((1, 10), 2.0)
    assert evidence(errors, uncertainty, np.arange(10)).factor == pytest.approx([0.9])
    assert evidence(-errors, uncertainty, np.arange(10)).factor == pytest.approx([0.9])


def test_errors_that_fit_their_intervals_change_nothing():
    errors = np.random.default_rng(0).normal(0, 0.02, (3, 100_000))
    found = evidence(errors, np.full(errors.shape, 0.02), np.arange(100_000))
    np.testing.assert_allclose(found.factor, 1, atol=0.02)


def test_intervals_scaled_by_the_factor_hold():
    rng = np.random.default_rng(1)
    errors, uncertainty = rng.standard_t(3, (2, MANY)) * 0.03, rng.uniform(0.01, 0.02, (2, MANY))
    found = evidence(errors, uncertainty, np.arange(MANY))
    held = (np.abs(errors) <= Z90 * uncertainty * found.factor[:, None]).mean(axis=1)
    np.testing.assert_allclose(held, 0.9, atol=0.01)


def test_groups_have_equal_weight_however_many_samples_they_have():
    # Ninety samples of one date are small, one sample of another date is large: half of the weight is each.
    errors = Z90 * np.concatenate([np.full(90, 0.5), [2.0]])[None]
    found = evidence(errors, np.ones((1, 91)), np.array([0] * 90 + [1]))
    assert found.factor == pytest.approx([2.0])
    assert found.weight == pytest.approx(2 / (2 + TILE_PRIOR))


def test_few_groups_share_a_factor_between_bands_and_stay_close_to_1():
    errors = Z90 * np.array([[0.5], [2.0]]) * np.ones((2, 100))
    one, many = (evidence(errors, np.ones((2, 100)), np.arange(100) % n) for n in (1, 100))
    # The geometric mean of the bands is 1; each band goes towards its own with the number of groups.
    assert one.factor == pytest.approx([2 ** -(1 / (1 + BANDS_PRIOR)), 2 ** (1 / (1 + BANDS_PRIOR))])
    assert many.factor == pytest.approx([2 ** -(100 / (100 + BANDS_PRIOR)), 2 ** (100 / (100 + BANDS_PRIOR))])
    np.testing.assert_allclose(one.shrunk, one.factor ** (1 / (1 + TILE_PRIOR)), rtol=1e-6)
    assert (np.abs(np.log(one.shrunk)) < np.abs(np.log(one.factor))).all()


@pytest.mark.parametrize("errors", [np.empty((2, 0)), np.full((2, 3), np.nan)])
def test_without_left_out_errors_the_factor_is_1(errors):
    found = evidence(errors, np.ones(errors.shape), np.arange(errors.shape[1]))
    assert found.factor.tolist() == found.shrunk.tolist() == [1, 1]
    assert found.weight == 0


def test_gross_errors_and_exact_answers_are_bounded():
    errors = np.array([np.zeros(MANY), np.full(MANY, 1e3)])
    found = evidence(errors, np.full((2, MANY), 0.01), np.arange(MANY))
    np.testing.assert_allclose(found.factor, [conformal.LEAST, conformal.MOST], rtol=0.01)


def test_the_order_of_samples_and_names_of_groups_have_no_influence():
    rng = np.random.default_rng(2)
    errors, uncertainty, group = rng.normal(size=(3, 500)), rng.uniform(1, 2, (3, 500)), rng.integers(0, 9, 500)
    order, names = rng.permutation(500), rng.permutation(9)
    a, b = evidence(errors, uncertainty, group), evidence(errors[:, order], uncertainty[:, order], names[group[order]])
    np.testing.assert_allclose(a.factor, b.factor, rtol=1e-6)
    assert a.weight == b.weight


@pytest.mark.parametrize(("freedom", "quantile"), [(1, 6.314), (2, 2.920), (5, 2.015), (10, 1.812), (120, 1.658)])
def test_the_widening_is_that_of_the_tables_of_students_t(freedom, quantile):
    assert student_widening(freedom) == pytest.approx(quantile / Z90, rel=3e-4)


@pytest.mark.parametrize("number", [1, 2, 4])
def test_intervals_from_few_errors_hold_if_widened(number):
    errors = np.random.default_rng(4).normal(0, 0.02, (MANY, number + 1))
    scale = np.sqrt(np.square(errors[:, :-1]).mean(axis=1))
    inside = [np.mean(np.abs(errors[:, -1]) <= Z90 * scale * factor) for factor in (1, student_widening(number))]
    assert inside[1] == pytest.approx(0.9, abs=0.01) and inside[0] < 0.9 - 0.07 / number


def test_the_widening_counts_whatever_the_weight():
    factor = np.array([1.0, 4.0], np.float32)
    assert Evidence(factor, 0.5, 1.5).shrunk.tolist() == [1.5, 3.0]
    assert Evidence(factor, 0.0, 1.5).shrunk.tolist() == [1.5, 1.5]
    assert Evidence(factor, 0.5, 1.5).rows.tolist() == [[1.0, 0.5, 1.5], [4.0, 0.5, 1.5]]


def test_a_weighted_quantile_is_a_value():
    values = np.array([4.0, 1.0, 3.0, 2.0])
    assert weighted_quantile(values, np.ones(4), 0.5) == 2
    assert weighted_quantile(values, np.array([9.0, 1, 1, 1]), 0.5) == 4


DAYS = np.arange(-80.0, 90, 10)


def observations(jumps, shape=(20, 20)):
    """Return a series with noise of one date in `jumps` spreads, and a target that was not observed."""
    rng = np.random.default_rng(3)
    shared = rng.choice([-1, 1], len(DAYS)) * jumps
    values = 0.3 + 0.01 * rng.normal(size=(len(DAYS), 2, *shape)) + shared[:, None, None, None]
    return values.astype(np.float32), np.ones((len(DAYS), *shape), bool)


def test_left_out_dates_widen_the_intervals_of_a_restless_series():
    """The uncertainty of linear interpolation comes from two dates; the others may be worse."""
    far = np.where(np.abs(DAYS) > 25, 0.1, 0.0)
    for jumps, wider in ((np.zeros(len(DAYS)), False), (far, True)):
        values, clear = observations(jumps)
        keep = DAYS != 0
        found = Series.of(Observations(values[keep], clear[keep], DAYS[keep]))
        shrunk = stacking.interpolate(found, np.ones(400, bool))[2].shrunk
        assert ((shrunk > 1.2) == wider).all()


@pytest.mark.parametrize(("number", "judged"), [(2, 0), (3, 3), (4, 4), (17, 16)])
def test_the_fewer_dates_the_wider_the_intervals(number, judged):
    """A left-out date is judged if there are two others, which give the uncertainty of its prediction."""
    values, clear = observations(np.zeros(len(DAYS)))
    keep = np.sort(np.argsort(np.abs(DAYS + 1), kind="stable")[:number])
    obs = Observations(values[keep], clear[keep], DAYS[keep] + 1)
    found = stacking.interpolate(Series.of(obs), np.ones(400, bool))[2]
    assert found.widening == pytest.approx(student_widening(2 + judged) / UNSEEN)
    expected = Series.of(obs).uncertainty() * found.shrunk[:, None]
    np.testing.assert_allclose(Regress().predict([obs])[0].uncertainty.reshape(2, -1), expected, rtol=1e-6)


def test_too_few_dates_are_no_evidence():
    values, clear = observations(np.zeros(len(DAYS)))
    found = Series.of(Observations(values[:4], clear[:4], DAYS[:4]))
    evidence = stacking.interpolate(found, np.ones(400, bool))[2]
    assert evidence.weight == 0 and evidence.factor.tolist() == [1, 1] and evidence.widening > 1
