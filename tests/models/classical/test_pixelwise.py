"""Pixelwise models: results by hand, a reference per pixel, and invariances."""

from __future__ import annotations

import pickle
from typing import Any

import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from xr_cloudfree.errors import OptionError
from xr_cloudfree.models.classical.pixelwise import Geomedian, Harmonic, Linear, Median, Nearest, linear_weights
from xr_cloudfree.models.protocol import FillModel, Observations

MODELS: list[FillModel] = [
    Nearest(),
    Linear(),
    Linear(uncertainty=True),
    Median(),
    Geomedian(),
    Harmonic(min_clear=4),
]


def named(model: FillModel) -> str:
    return "-".join([model.spec.name, *(name for name, _ in model.spec.settings)])


def series(days: list[float], values: list[float], clear: list[bool] | None = None) -> Observations:
    """One pixel, one band."""
    bands = np.array(values, np.float32).reshape(-1, 1, 1, 1)
    seen = np.ones(len(days), bool) if clear is None else np.array(clear)
    return Observations(bands, seen.reshape(-1, 1, 1), np.array(days, float))


def answer(model: FillModel, obs: Observations) -> tuple[float, int]:
    """Value and source of a one-pixel tile."""
    prediction = model.predict([obs])[0]
    assert prediction.known.item()
    assert prediction.source is not None
    return prediction.bands.item(), prediction.source.item()


@st.composite
def tiles(draw: st.DrawFn) -> Observations:
    """A random tile of any dtype, with arbitrary values (NaN included) where it is not clear."""
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    dates, bands = draw(st.integers(1, 14)), draw(st.integers(1, 3))
    y, x = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    dtype = np.dtype(draw(st.sampled_from(["uint16", "int16", "float32"])))
    values = rng.integers(0, 9000, (dates, bands, y, x)).astype(dtype)
    clear = rng.random((dates, y, x)) < rng.random((y, x))
    junk = np.nan if dtype.kind == "f" else 30000
    values = np.where(clear[:, np.newaxis], values, np.asarray(junk, dtype))
    days = np.sort(rng.choice(np.arange(-90, 90), dates, replace=False)).astype(float)
    return Observations(values, clear, days)


def by_pixel(obs: Observations, y: int, x: int) -> tuple[list[float], int, list[float], int]:
    """Return value and source of linear and nearest at one pixel, found by search."""
    seen = np.flatnonzero(obs.clear[:, y, x])
    days = obs.day_offset
    order = sorted(seen, key=lambda t: (abs(days[t]), days[t]))
    nearest = order[0]
    earlier, later = [t for t in seen if days[t] <= 0], [t for t in seen if days[t] > 0]
    values = obs.bands[:, :, y, x].astype(np.float64)
    if not earlier or not later:
        return values[nearest].tolist(), nearest, values[nearest].tolist(), nearest
    p, n = earlier[-1], later[0]
    share = -days[p] / (days[n] - days[p])
    return (values[p] + share * (values[n] - values[p])).tolist(), nearest, values[nearest].tolist(), nearest


@given(tiles())
def test_linear_and_nearest_are_those_of_a_search(obs: Observations) -> None:
    linear, nearest = Linear().predict([obs])[0], Nearest().predict([obs])[0]
    np.testing.assert_array_equal(linear.known, obs.clear.any(axis=0))
    for y, x in np.argwhere(linear.known):
        line, line_source, near, near_source = by_pixel(obs, y, x)
        np.testing.assert_allclose(linear.bands[:, y, x], line, rtol=1e-6, atol=2e-3)
        np.testing.assert_array_equal(nearest.bands[:, y, x], near)
        assert (linear.source[y, x], nearest.source[y, x]) == (line_source, near_source)  # type: ignore[index]


@given(tiles())
def test_medians_take_the_clear_values(obs: Observations) -> None:
    prediction = Median().predict([obs])[0]
    for y, x in np.ndindex(obs.shape):
        seen = obs.clear[:, y, x]
        assert prediction.known[y, x] == seen.any()
        if seen.any():
            expected = np.median(obs.bands[seen][:, :, y, x].astype(np.float64), axis=0).astype(np.float32)
            np.testing.assert_array_equal(prediction.bands[:, y, x], expected)
            assert prediction.source is not None
            assert prediction.source[y, x] == (np.flatnonzero(seen)[0] if seen.sum() == 1 else -1)


@pytest.mark.parametrize("model", MODELS, ids=named)
@given(obs=tiles())
def test_a_part_of_a_tile_has_the_same_answer(model: FillModel, obs: Observations) -> None:
    whole = model.predict([obs])[0]
    for part in (np.s_[: obs.shape[0] // 2 + 1, :], np.s_[:, obs.shape[1] // 2 :], np.s_[:1, :1]):
        cut = (slice(None), *part)
        some = Observations(obs.bands[(slice(None), *cut)], obs.clear[cut], obs.day_offset)
        prediction = model.predict([some])[0]
        np.testing.assert_array_equal(prediction.bands, whole.bands[cut])
        np.testing.assert_array_equal(prediction.known, whole.known[part])
        np.testing.assert_array_equal(prediction.source, whole.source[part])  # type: ignore[index]
        if whole.uncertainty is not None:
            np.testing.assert_array_equal(prediction.uncertainty, whole.uncertainty[cut])


@pytest.mark.parametrize("model", MODELS, ids=named)
@given(obs=tiles())
def test_the_contract_of_a_prediction(model: FillModel, obs: Observations) -> None:
    prediction, again = model.predict([obs, obs])
    assert prediction.bands.dtype == np.float32
    assert prediction.bands.shape == obs.bands.shape[1:]
    np.testing.assert_array_equal(prediction.known, obs.clear.any(axis=0))
    assert np.isfinite(prediction.bands[:, prediction.known]).all()
    assert prediction.source is not None
    assert prediction.source.dtype == np.int16
    rows, columns = np.nonzero(prediction.source >= 0)
    assert obs.clear[prediction.source[rows, columns], rows, columns].all()
    np.testing.assert_array_equal(prediction.bands, again.bands)


@pytest.mark.parametrize("model", MODELS, ids=named)
def test_one_clear_observation_is_the_answer(model: FillModel) -> None:
    assert answer(model, series([-8, -1, 4], [3, 777, 5], [False, True, False])) == (777, 1)


@pytest.mark.parametrize("model", MODELS, ids=named)
def test_a_spec_travels(model: FillModel) -> None:
    assert pickle.loads(pickle.dumps(model)).spec == model.spec
    assert (model.spec.units, model.spec.tile) == ("storage", None)


@pytest.mark.parametrize(
    ("days", "values", "clear", "nearest", "linear"),
    [
        ([-6, 2], [100, 200], None, (200, 1), (175, 1)),
        ([-4, 4], [100, 200], None, (100, 0), (150, 0)),  # equally near: the earlier
        ([-9, -3], [100, 200], None, (200, 1), (200, 1)),  # one-sided
        ([3, 9], [100, 200], None, (100, 0), (100, 0)),
        ([-3, 0, 3], [100, 500, 200], None, (500, 1), (500, 1)),  # seen on the target date itself
        ([-3, 0, 1], [100, 500, 200], [True, False, True], (200, 2), (175, 2)),
        ([-1, 0, 0, 1], [1, 2, 3, 4], None, (3, 2), (3, 2)),  # twice on the target date: the later of them
    ],
)
def test_nearest_and_linear_by_hand(
    days: list[float],
    values: list[float],
    clear: list[bool] | None,
    nearest: tuple[float, int],
    linear: tuple[float, int],
) -> None:
    obs = series(days, values, clear)
    assert answer(Nearest(), obs) == nearest
    assert answer(Linear(), obs) == linear


def test_weights_between_two_dates() -> None:
    days = np.array([-6.0, 2.0, 2.0])
    before, after = np.array([0, -1, 0, -1, 1], np.int16), np.array([1, 1, -1, -1, 2], np.int16)
    first, second, weight = linear_weights(days, before, after)
    assert first.tolist() == [0, 1, 0, -1, 1] and second.tolist() == [1, 1, 0, -1, 2]
    assert weight.tolist() == [0.75, 0, 0, 0, 0]
    assert linear_weights(days, before, after, at=np.full(5, -4.0))[2].tolist() == [0.25, 0, 0, 0, 0]


def test_uncertainty_exists_where_errors_can_be_measured() -> None:
    few = series([-8, -6, -3, 2, 5], [1, 2, 4, 3, 1])
    enough = series([-8, -6, -3, 2, 5, 9], [1, 2, 4, 3, 1, 2])
    for obs, expected in ((few, False), (enough, True)):
        sigma = Linear(uncertainty=True).predict([obs])[0].uncertainty
        assert sigma is not None
        assert np.isfinite(sigma).all() == expected
    assert Linear().predict([enough])[0].uncertainty is None
    assert "uncertainty" not in Linear().spec.layers
    assert "uncertainty" in Linear(uncertainty=True).spec.layers


def test_uncertainty_of_plain_noise_holds_nine_of_ten() -> None:
    rng = np.random.default_rng(0)
    days = np.arange(-100.0, 101.0, 5.0)
    values = rng.normal(1000, 50, (len(days), 1, 60, 60)).astype(np.float32)
    clear = rng.random((len(days), 60, 60)) < 0.6
    clear[days == 0] = False
    prediction = Linear(uncertainty=True).predict([Observations(values, clear, days)])[0]
    assert prediction.uncertainty is not None
    inside = np.abs(prediction.bands - values[days == 0][0]) <= 1.645 * prediction.uncertainty
    assert 0.87 < inside.mean() < 0.93


def test_uncertainty_grows_with_the_gap() -> None:
    rng = np.random.default_rng(1)
    days = np.concatenate([np.arange(-200.0, -99.0, 5.0), np.arange(100.0, 201.0, 5.0)])
    values = rng.normal(1000, 50, (len(days), 1, 1, 1)).astype(np.float32)
    sigmas = []
    for target in (-150.5, -90.0, 0.0):
        obs = Observations(values, np.ones((len(days), 1, 1), bool), days - target)
        sigmas.append(Linear(uncertainty=True).predict([obs])[0].uncertainty)
    assert sigmas[0] < sigmas[1] < sigmas[2]  # type: ignore[operator]


def test_uncertainty_holds_on_a_real_cube(portugal: xr.Dataset) -> None:
    bands = portugal.reflectance.transpose("time", "band", "y", "x").values.astype(np.float32)
    clear = (portugal.cloud_mask.values == 0) & np.isfinite(bands).all(axis=1)
    days = (portugal.time.values - portugal.time.values[0]) / np.timedelta64(1, "D")
    inside = []
    for i in np.flatnonzero(clear.mean(axis=(1, 2)) > 0.95)[1:-1]:
        others = np.arange(len(days)) != i
        prediction = Linear(uncertainty=True).predict(
            [Observations(bands[others], clear[others], days[others] - days[i])]
        )[0]
        assert prediction.uncertainty is not None
        hit = np.abs(prediction.bands - bands[i]) <= 1.645 * prediction.uncertainty
        inside.append(hit[:, clear[i] & np.isfinite(prediction.uncertainty).all(axis=0)])
    assert 0.86 < np.concatenate(inside, axis=1).mean() < 0.95


def test_geomedian_keeps_to_the_majority() -> None:
    bands = np.array([[300, 900]] * 4 + [[5000, 5200]] * 3, np.uint16).reshape(7, 2, 1, 1)
    prediction = Geomedian().predict([Observations(bands, np.ones((7, 1, 1), bool), np.arange(7.0))])[0]
    np.testing.assert_allclose(prediction.bands.ravel(), [300, 900], atol=1)


def year(days: Any) -> Any:
    return 2000 + 500 * np.cos(2 * np.pi * (days + 40) / 365.25)


def test_harmonic_follows_the_year_through_a_gap_and_past_a_missed_cloud() -> None:
    days = np.arange(-200.0, 200.0, 12.5)
    values = year(days)
    values[4] = 9000  # a cloud that the mask missed
    clear = np.abs(days) > 45
    obs = series(days.tolist(), values.tolist(), clear.tolist())
    robust, _ = answer(Harmonic(), obs)
    plain, _ = answer(Harmonic(rounds=0), obs)
    truth = year(0.0)
    assert abs(robust - truth) < 15
    assert abs(plain - truth) > 5 * abs(robust - truth)
    assert abs(answer(Linear(), obs)[0] - truth) > 2 * abs(robust - truth)


def test_harmonic_is_least_squares() -> None:
    rng = np.random.default_rng(0)
    days = np.sort(rng.uniform(-300, 300, 25))
    values = rng.uniform(500, 1500, 25)
    angle = 2 * np.pi * days / 365.25
    design = np.stack([np.ones(25), np.cos(angle), np.sin(angle)], axis=1)
    a, b, _ = np.linalg.lstsq(design, values, rcond=None)[0]
    found, _ = answer(Harmonic(rounds=0, ridge=1e-9), series(days.tolist(), values.tolist()))
    assert found == pytest.approx(a + b, rel=1e-5)


def test_harmonic_is_linear_where_observations_are_few() -> None:
    few = series([-300, -200, -50, 20, 90, 200, 260], [1, 9, 3, 5, 4, 6, 8])
    assert answer(Harmonic(), few) == answer(Linear(), few)
    enough = series([-300, -200, -50, 20, 90, 200, 260, 300], [1, 9, 3, 5, 4, 6, 8, 7])
    assert answer(Harmonic(), enough) != answer(Linear(), enough)


def test_harmonic_of_a_constant_is_the_constant() -> None:
    days = [0.0] * 8  # nothing but ridge keeps this from being singular
    assert answer(Harmonic(), series(days, [123.0] * 8))[0] == pytest.approx(123, rel=1e-6)


@pytest.mark.parametrize(
    "settings", [{"min_clear": 2}, {"ridge": 0.0}, {"ridge": float("nan")}, {"rounds": -1}], ids=str
)
def test_harmonic_refuses(settings: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(settings))):
        Harmonic(**settings)


def test_settings_are_part_of_the_spec() -> None:
    assert Harmonic().spec.settings == ()
    assert Harmonic(ridge=0.5).spec.settings == (("ridge", 0.5),)


def test_on_a_real_cube_each_model_does_what_it_is_for(portugal: xr.Dataset) -> None:
    bands = portugal.reflectance.transpose("time", "band", "y", "x").values.astype(np.float32)
    clear = (portugal.cloud_mask.values == 0) & np.isfinite(bands).all(axis=1)
    days = (portugal.time.values - portugal.time.values[0]) / np.timedelta64(1, "D")
    error: dict[str, list[float]] = {}
    for i in np.flatnonzero(clear.mean(axis=(1, 2)) > 0.95)[2:-2:3]:
        others = np.arange(len(days)) != i
        obs = Observations(bands[others], clear[others], days[others] - days[i])
        for model in MODELS:
            prediction = model.predict([obs])[0]
            off = np.abs(prediction.bands - bands[i])[:, prediction.known & clear[i]]
            error.setdefault(model.spec.name, []).append(float(off.mean()))
    mean = {name: np.mean(values) for name, values in error.items()}
    assert mean["linear"] < mean["nearest"] < mean["median"]  # the nearer the date, the better
    assert mean["linear"] < 0.03
