"""Decoding of quality layers: unknown values, thresholds, dilation and repetition."""

import pickle

import numpy as np
import pytest
from dask.base import tokenize
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.support.layers import CLOUD_MASK, layer, resolve, states
from xr_cloudfree.cube.masks import Decoded, MaskRule, decode, dilate_not_clear, repeat
from xr_cloudfree.cube.schemes import SCHEMES
from xr_cloudfree.errors import (
    MaskError,
    MaskTypeError,
)


@pytest.mark.parametrize(
    ("scheme", "values", "named"),
    [
        ("scl", np.array([[4, 17, 99]], np.uint8), "17, 99"),
        ("cfmask", np.array([[5]], np.int32), "5"),
        ("fmask", np.array([[300]], np.uint16), "300"),
        ("qa_pixel", np.array([[322, 352]], np.uint16), "322, 352"),  # Collection 1: clear and cloud
        ("scl", np.array([[-1]], np.int16), "-1"),
    ],
)
def test_values_outside_the_scheme_are_named(scheme, values, named):
    with pytest.raises(MaskError, match=f"holds {named},"):
        decode(values, MaskRule(SCHEMES[scheme], label=scheme))


def test_nan_is_missing_and_a_fraction_is_an_error():
    rule = MaskRule(SCHEMES["scl"])
    assert states([np.nan, 4, 9], rule, np.float32) == "mcx"
    with pytest.raises(MaskError, match=r"4\.5"):
        decode(np.array([4.5, 4.0]), rule)
    for value, told in ((np.inf, "inf"), (1e20, r"1e\+20"), (1e9, "1000000000")):
        with pytest.raises(MaskError, match=told):
            decode(np.array([value, 4.0]), rule)


@pytest.mark.parametrize(
    ("threshold", "top", "values", "expected"),
    [
        (0.4, 1, [0.0, 0.39, 0.4, 1.0, np.nan], "ccxxm"),
        (40, 100, [0, 39, 40, 100, np.nan], "ccxxm"),
        (102, 255, [0, 101, 102, 255, np.nan], "ccxxm"),
    ],
)
def test_probability(threshold, top, values, expected):
    assert states(values, MaskRule(SCHEMES["probability"], threshold=threshold, top=top), float) == expected


@pytest.mark.parametrize(
    ("threshold", "values", "remedy"),
    [
        (0.4, [3, 87], "threshold=40"),
        (40, [0.02, 0.93], r"threshold=0\.4"),
        (0.4, [-0.5, 0.3], "mask="),
        (40, [3, 255], "mask="),
    ],
)
def test_probability_in_other_units_than_its_threshold(threshold, values, remedy):
    with pytest.raises(MaskError, match=remedy):
        rule = resolve(layer(name="CLP", dtype=np.float32), mask="CLP", threshold=threshold)[1]
        decode(np.array(values, np.float32), rule)


# Growing and repeating.

masks = arrays(np.bool_, st.tuples(st.integers(1, 3), st.integers(1, 14), st.integers(1, 14)))


@given(masks, masks, st.integers(0, 6))
def test_dilation_is_a_euclidean_disc(clear, missing, pixels):
    missing = np.resize(missing, clear.shape)
    found = dilate_not_clear(clear, missing, pixels)
    for t in range(len(clear)):
        rows, columns = np.nonzero(~clear[t] & ~missing[t])
        y, x = np.indices(clear[t].shape)
        near = np.zeros(clear[t].shape, bool)
        for row, column in zip(rows, columns, strict=True):
            near |= (y - row) ** 2 + (x - column) ** 2 <= pixels**2
        assert (found[t] == (clear[t] & ~near)).all()


@given(st.data())
def test_dilation_on_a_window_is_that_of_the_whole(data):
    pixels = data.draw(st.integers(0, 5))
    whole = data.draw(arrays(np.bool_, (2, 24, 20)))
    missing = data.draw(arrays(np.bool_, (2, 24, 20)))
    y0, x0 = data.draw(st.integers(0, 23)), data.draw(st.integers(0, 19))
    y1, x1 = data.draw(st.integers(y0 + 1, 24)), data.draw(st.integers(x0 + 1, 20))
    top, left = max(y0 - pixels, 0), max(x0 - pixels, 0)
    part = np.s_[:, top : y1 + pixels, left : x1 + pixels]
    window = dilate_not_clear(whole[part], missing[part], pixels)
    expected = dilate_not_clear(whole, missing, pixels)[:, y0:y1, x0:x1]
    assert (window[:, y0 - top : y1 - top, x0 - left : x1 - left] == expected).all()


@given(arrays(np.uint8, (2, 3, 4), elements=st.integers(0, 11)), st.integers(1, 4))
def test_repeating_and_decoding_commute(values, factor):
    rule = MaskRule(SCHEMES["scl"])
    fine = values.repeat(factor, axis=1).repeat(factor, axis=2)
    for one, other in zip(repeat(decode(values, rule), factor), decode(fine, rule), strict=True):
        assert (one == other).all()


def test_rule_travels_and_names_its_work():
    _, rule = resolve(layer(name="cloud_mask", **CLOUD_MASK), dilate=2, snow="not clear")
    assert pickle.loads(pickle.dumps(rule)) == rule
    assert tokenize(rule) == tokenize(pickle.loads(pickle.dumps(rule)))
    _, other = resolve(layer(name="cloud_mask", **CLOUD_MASK), dilate=3, snow="not clear")
    assert tokenize(rule) != tokenize(other)


@pytest.mark.parametrize(
    ("scheme", "values", "remedies"),
    [
        ("fmask", [0, 1, 2, 3, 4, 5], ['scheme="dea_fmask" if 0 is no data']),
        ("fmask", [0, 1, 2, 3, 4, 255], ['scheme="cfmask" if 0 is clear']),
        ("fmask", [1, 2], ['scheme="dea_fmask"', 'or scheme="cfmask"']),
        ("qa_pixel", [322, 352, 1], ['scheme="pixel_qa"']),
        ("qa_pixel", [0, 1, 2, 5], ['scheme="dea_fmask"']),
        ("pixel_qa", [0, 1, 2, 4], ['scheme="dea_fmask"', 'scheme="cfmask"']),
        ("pixel_qa", [21824, 22280], ['scheme="qa_pixel"']),
        ("clm", [0, 3, 64], ['scheme="maja"']),
        ("cfmask", [0, 1, 5], ['scheme="dea_fmask"']),
        ("dea_fmask", [1, 255, 4], ['scheme="cfmask"']),
        ("scl", [4, 17], ["mask=layer.where(layer.isin([0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]))"]),
    ],
)
def test_values_of_another_scheme_name_it(scheme, values, remedies):
    with pytest.raises(MaskError) as raised:
        decode(np.array([values], np.uint16), MaskRule(SCHEMES[scheme], label=scheme))
    assert all(remedy in raised.value.remedy for remedy in remedies), raised.value.remedy


def test_decoded_is_a_tuple_of_layers():
    found = decode(np.full((2, 3), 11, np.uint8), MaskRule(SCHEMES["scl"]))
    assert isinstance(found, Decoded) and found.snow.all() and found.clear.all() and not found.missing.any()
    values = np.ones((2, 3), bool)
    assert decode(values, MaskRule()).clear is values
    with pytest.raises(MaskTypeError):
        decode(values.astype(int), MaskRule())
