"""Compiled kernels: known answers, a reference per pixel, and the same bits as the NumPy form."""

from __future__ import annotations

from types import ModuleType
from typing import Any

import hypothesis.extra.numpy as npst
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import reference_kernels
from xr_cloudfree.models.kernels import compiled
from xr_cloudfree.models.kernels import dispatch as kernels

FORMS = [compiled, reference_kernels]
DTYPES = ["uint16", "int16", "float32"]


def cube(seed: int, dates: int, bands: int, pixels: int, dtype: str) -> tuple[Any, Any]:
    """Return a random cube, with arbitrary values (NaN included) where not clear and a clear share per pixel."""
    rng = np.random.default_rng(seed)
    low = 0 if dtype == "uint16" else -2000
    values = rng.integers(low, 12000, (dates, bands, pixels)).astype(dtype)
    clear = rng.random((dates, pixels)) < rng.random(pixels)
    return spoil(rng, values, clear), clear


def spoil(rng: np.random.Generator, values: Any, clear: Any) -> Any:
    """Replace the values at pixels that are not clear."""
    if values.dtype == np.float32:
        other = rng.choice(np.array([np.nan, np.inf, -np.inf, 7.0], np.float32), values.shape)
    else:
        info = np.iinfo(values.dtype)
        other = rng.choice(np.array([info.min, info.max, 7], values.dtype), values.shape)
    return np.where(clear[:, np.newaxis], values, other)


cubes = st.builds(
    cube,
    seed=st.integers(0, 2**32 - 1),
    dates=st.integers(1, 40),
    bands=st.integers(1, 5),
    pixels=st.integers(1, 70),
    dtype=st.sampled_from(DTYPES),
)


def median_by_pixel(bands: Any, clear: Any) -> Any:
    out = np.zeros(bands.shape[1:])
    for p in range(bands.shape[2]):
        if clear[:, p].any():
            out[:, p] = np.median(bands[clear[:, p], :, p].astype(np.float64), axis=0)
    return out.astype(np.float32)


def distances(bands: Any, clear: Any, point: Any) -> Any:
    """Return the sum of distances from each pixel's clear spectra, in float64."""
    values = np.where(clear[:, np.newaxis], bands, 0).astype(np.float64)
    return (clear * np.sqrt(((values - point) ** 2).sum(axis=1))).sum(axis=0)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("series", "expected"),
    [
        ([5], 5.0),
        ([5, 8], 6.5),
        ([9, 1, 5], 5.0),
        ([9, 1, 5, 6], 5.5),
        ([65535, 65534], 65534.5),
        ([0, 65535, 65535], 65535.0),
        ([0, 0, 65535], 0.0),
    ],
)
def test_median_by_hand(form: ModuleType, series: list[int], expected: float) -> None:
    bands = np.array(series, np.uint16).reshape(-1, 1, 1)
    assert form.median(bands, np.ones((len(series), 1), bool)).item() == expected


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dates", range(1, 41))
def test_median_of_every_number_of_dates(form: ModuleType, dates: int, dtype: str) -> None:
    bands, clear = cube(dates, dates, 2, 530, dtype)  # more than one SIMD block
    np.testing.assert_array_equal(form.median(bands, clear), median_by_pixel(bands, clear))


@pytest.mark.parametrize("dates", range(1, 13))
def test_the_network_sorts_the_middle(dates: int) -> None:
    # A network that places every row of zeros and ones places everything (the zero-one principle).
    rows = (np.arange(2**dates)[:, np.newaxis] >> np.arange(dates)) & 1
    pairs, low, high = compiled.network(dates)
    placed = rows.copy()
    for i, j in pairs:
        placed[:, i], placed[:, j] = placed[:, [i, j]].min(axis=1), placed[:, [i, j]].max(axis=1)
    expected = np.sort(rows, axis=1)
    np.testing.assert_array_equal(placed[:, [low, high]], expected[:, [low, high]])


@given(cubes)
def test_median_is_that_of_the_clear_values(bands_and_clear: tuple[Any, Any]) -> None:
    bands, clear = bands_and_clear
    for form in FORMS:
        np.testing.assert_array_equal(form.median(bands, clear), median_by_pixel(bands, clear))


@given(cubes, st.randoms(use_true_random=False))
def test_median_does_not_depend_on_the_order_of_dates(bands_and_clear: tuple[Any, Any], random: Any) -> None:
    bands, clear = bands_and_clear
    order = list(range(len(bands)))
    random.shuffle(order)
    np.testing.assert_array_equal(kernels.median(bands[order], clear[order]), kernels.median(bands, clear))


@given(cubes)
def test_count_and_bracket_find_the_clear_dates(bands_and_clear: tuple[Any, Any]) -> None:
    _, clear = bands_and_clear
    for form in FORMS:
        number, last = form.count(clear)
        for split in {0, len(clear) // 2, len(clear)}:
            before, after = form.bracket(clear, split)
            for p in range(clear.shape[1]):
                dates = np.flatnonzero(clear[:, p])
                assert number[p] == len(dates)
                assert last[p] == (dates[-1] if len(dates) else -1)
                earlier, later = dates[dates < split], dates[dates >= split]
                assert before[p] == (earlier[-1] if len(earlier) else -1)
                assert after[p] == (later[0] if len(later) else -1)


@given(cubes, st.integers(0, 2**32 - 1))
def test_both_forms_give_the_same_bits(bands_and_clear: tuple[Any, Any], seed: int) -> None:
    bands, clear = bands_and_clear
    rng = np.random.default_rng(seed)
    dates, _, pixels = bands.shape
    before, after = rng.integers(0, dates, (2, pixels)).astype(np.int16)
    weight = rng.random(pixels, np.float32)
    weights = rng.standard_normal((dates, pixels), np.float32)
    valid = np.where(clear[:, np.newaxis], bands, np.ones((), bands.dtype))
    for name, arguments in (
        ("count", (clear,)),
        ("bracket", (clear, dates // 2)),
        ("blend", (valid, before, after, weight)),
        ("median", (bands, clear)),
        ("mix", (bands, clear, weights)),
        ("geomedian", (bands, clear, 1e-4, 60)),
        ("interior_error", (bands, clear, np.cumsum(rng.integers(0, 30, dates)).astype(np.float32), 0.3)),
    ):
        one, other = (getattr(form, name)(*arguments) for form in FORMS)
        np.testing.assert_array_equal(one, other, err_msg=name, strict=True)


@given(cubes, st.integers(0, 2**32 - 1))
def test_values_that_are_not_clear_have_no_influence(bands_and_clear: tuple[Any, Any], seed: int) -> None:
    bands, clear = bands_and_clear
    other = spoil(np.random.default_rng(seed), bands, clear)
    weights = np.full(clear.shape, 0.1, np.float32)
    for form in FORMS:
        np.testing.assert_array_equal(form.median(bands, clear), form.median(other, clear))
        np.testing.assert_array_equal(form.mix(bands, clear, weights), form.mix(other, clear, weights))
        np.testing.assert_array_equal(form.geomedian(bands, clear, 1e-4, 60), form.geomedian(other, clear, 1e-4, 60))


@given(cubes, st.data())
def test_pixels_are_independent(bands_and_clear: tuple[Any, Any], data: st.DataObject) -> None:
    bands, clear = bands_and_clear
    some = data.draw(npst.arrays(np.bool_, bands.shape[2]))
    weights = np.full(clear.shape, 0.1, np.float32)
    part, seen = np.ascontiguousarray(bands[..., some]), np.ascontiguousarray(clear[:, some])
    for form in FORMS:
        np.testing.assert_array_equal(form.median(bands, clear)[:, some], form.median(part, seen))
        np.testing.assert_array_equal(
            form.mix(bands, clear, weights)[:, some], form.mix(part, seen, weights[:, some].copy())
        )
        np.testing.assert_array_equal(
            form.geomedian(bands, clear, 1e-4, 60)[:, some], form.geomedian(part, seen, 1e-4, 60)
        )


@pytest.mark.parametrize("form", FORMS)
def test_mix_by_hand(form: ModuleType) -> None:
    bands = np.array([[[10.0]], [[np.nan]], [[40.0]]], np.float32)
    clear = np.array([[True], [False], [True]])
    weights = np.array([[0.25], [9.0], [0.75]], np.float32)
    assert form.mix(bands, clear, weights).item() == 0.25 * 10 + 0.75 * 40


@pytest.mark.parametrize("form", FORMS)
def test_interior_error_by_hand(form: ModuleType) -> None:
    # Clear at days 0, 4, 10 and 20; each of the middle two is predicted from the clear dates beside it.
    days = np.array([0, 2, 4, 10, 20], np.float32)
    bands = np.array([100, np.nan, 180, 100, 400], np.float32).reshape(5, 1, 1)
    clear = np.array([1, 0, 1, 1, 1], bool).reshape(5, 1)
    first = abs(180 - 100) / np.sqrt(1 + 0.4**2 + 0.6**2 + 0.5 * 10 * 0.4 * 0.6)
    w = 6 / 16
    second = abs(100 - (180 + w * 220)) / np.sqrt(1 + w**2 + (1 - w) ** 2 + 0.5 * 16 * w * (1 - w))
    found = form.interior_error(bands, clear, days, 0.5).item()
    assert found == pytest.approx((first + second) / 2, rel=1e-6)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize(
    ("spectra", "expected"),
    [
        ([[3, 4]], [3, 4]),
        ([[0, 0], [10, 20]], [5, 10]),  # any point between would do: the mean
        ([[0, 0], [0, 2], [2, 0], [2, 2]], [1, 1]),  # crossing of the diagonals
        ([[0, 0], [0, 0], [0, 0], [90, 10]], [0, 0]),  # the majority's place
        ([[100, 0], [0, 0], [200, 0]], [100, 0]),  # on a line: the middle one, where the iteration starts
        # The first is seen from the two others under more than 120 degrees, so it is the point itself.
        ([[0, 0], [100, 1], [-100, 1]], [0, 0]),
        # Corners of an equilateral triangle: its centre.
        ([[-500, 0], [500, 0], [0, 866.0254]], [0, 288.675]),
    ],
)
def test_geomedian_by_hand(form: ModuleType, spectra: list[list[float]], expected: list[float]) -> None:
    bands = np.array(spectra, np.float32)[:, :, np.newaxis]
    found = form.geomedian(bands, np.ones((len(spectra), 1), bool), 1e-4, 60)[:, 0]
    np.testing.assert_allclose(found, expected, atol=0.03)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dates", range(1, 41))
def test_geomedian_is_where_the_distances_are_least(dates: int, dtype: str) -> None:
    bands, clear = cube(dates, dates, 4, 150, dtype)
    found = kernels.geomedian(bands, clear).astype(np.float64)
    least = distances(bands, clear, found)
    rng = np.random.default_rng(0)
    for size in (1000.0, 100.0, 10.0):  # nowhere around is it less; the sum is convex, so nowhere at all
        for _ in range(20):
            elsewhere = distances(bands, clear, found + rng.normal(0, size, found.shape))
            assert (least <= elsewhere * (1 + 1e-6)).all()


def test_geomedian_needs_no_unit() -> None:
    bands, clear = cube(3, 20, 4, 200, "float32")
    digital = kernels.geomedian(bands, clear)
    scaled = kernels.geomedian(bands * np.float32(2**-14), clear)  # a power of two: exact in float32
    np.testing.assert_allclose(scaled * 2**14, digital, rtol=1e-6, atol=1e-3)


@pytest.mark.parametrize("form", FORMS)
def test_read_only_arrays(form: ModuleType) -> None:
    bands, clear = cube(5, 6, 2, 20, "uint16")
    expected = form.median(bands, clear)
    bands.flags.writeable = clear.flags.writeable = False
    np.testing.assert_array_equal(form.median(bands, clear), expected)


@settings(max_examples=1)
@given(cubes)
def test_tiles_without_pixels(bands_and_clear: tuple[Any, Any]) -> None:
    bands, clear = bands_and_clear
    for form in FORMS:
        assert form.median(bands[..., :0].copy(), clear[:, :0].copy()).shape == (bands.shape[1], 0)


@settings(max_examples=60)
@given(st.integers(0, 2**32 - 1), st.integers(1, 20), st.integers(1, 4), st.integers(1, 600))
def test_deviations_in_both_forms(seed: int, dates: int, bands: int, pixels: int) -> None:
    values, clear = cube(seed, dates, bands, min(pixels, 70) if seed % 8 else pixels, "float32")
    rng = np.random.default_rng(seed)
    chosen = np.flatnonzero(rng.random(dates) < 0.7)
    days, image = np.cumsum(rng.choice([0.3, 1.0, 7.0], dates)), rng.random(values.shape[1:], np.float32)
    one, other = (np.full((len(chosen), *image.shape), np.nan, np.float32) for _ in FORMS)
    for form, out in zip(FORMS, (one, other), strict=True):
        form.deviations(values, clear, days, chosen, image, out)
    np.testing.assert_array_equal(one, other)
