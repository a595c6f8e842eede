"""Scaling: its sources, and encoding that neither overflows nor results in nodata."""

import dask.array as dask_array
import numpy as np
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from xr_cloudfree.cube.scaling import (
    Scaling,
    encode,
    from_reflectance,
    resolve_scaling,
    to_reflectance,
    valid,
)
from xr_cloudfree.errors import OptionError, OptionTypeError, ScalingError

SENTINEL = Scaling(1e-4, -0.1, 0)
LANDSAT = Scaling(2.75e-5, -0.2, 0)
HLS = Scaling(1e-4, 0.0, -9999)


def band(dtype=np.uint16, name="B02", encoding=None, **attrs):
    array = xr.DataArray(np.zeros((1, 2, 2), dtype), dims=("time", "y", "x"), name=name, attrs=attrs)
    array.encoding = encoding or {}
    return array


@pytest.mark.parametrize(
    ("scaling", "stored", "reflectance"),
    [
        (SENTINEL, np.array([500, 1000, 1001, 11000], np.uint16), [-0.05, 0.0, 0.0001, 1.0]),
        (LANDSAT, np.array([7273, 43636], np.uint16), [0.0000075, 0.99999]),  # the valid range as published
        (HLS, np.array([-120, 0, 10000], np.int16), [-0.012, 0.0, 1.0]),
        (Scaling(), np.array([0.25, -0.01], np.float64), [0.25, -0.01]),
    ],
)
def test_published_scaling(scaling, stored, reflectance):
    found = to_reflectance(stored, scaling)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reflectance, atol=2e-7)


def test_valid():
    assert valid(np.array([0, 1, 65535], np.uint16), SENTINEL).tolist() == [False, True, True]
    assert valid(np.array([-9999, 0], np.int16), HLS).tolist() == [False, True]
    assert valid(np.array([0, 1], np.uint16), Scaling()).all()
    values = np.array([np.nan, np.inf, -np.inf, -9999.0, 0.0], np.float32)
    assert valid(values, Scaling(nodata=-9999)).tolist() == [False, False, False, False, True]


# What tells the scaling.


@pytest.mark.parametrize(
    ("array", "given", "expected"),
    [
        # Whole numbers with attributes, opened without decoding.
        (
            band(np.int16, scale_factor=1e-4, add_offset=0.0, _FillValue=-9999),
            {},
            (1e-4, 0.0, -9999, "attribute scale_factor"),
        ),
        (
            band(scale_factor=np.array([2.75e-5]), add_offset=-0.2, _FillValue=np.uint16(0)),
            {},
            (2.75e-5, -0.2, 0, "attribute scale_factor"),
        ),
        # The argument wins, one by one.
        (
            band(np.int16, scale_factor=1e-4, _FillValue=-9999),
            {"scale": 2e-4, "offset": -0.1},
            (2e-4, -0.1, -9999, "scale="),
        ),
        (
            band(np.int16, scale_factor=1e-4, _FillValue=-9999),
            {"nodata": 0},
            (1e-4, 0.0, 0, "attribute scale_factor"),
        ),
        # odc-stac: digital numbers with nodata alone.
        (band(nodata=0), {}, (None, 0.0, 0, "unknown")),
        (band(nodata=0), {"scale": 1e-4, "offset": -0.1}, (1e-4, -0.1, 0, "scale=")),
        (band(nodata=np.nan), {"scale": 1e-4}, (1e-4, 0.0, None, "scale=")),
        # rioxarray writes 1 and 0 where a file says nothing.
        (band(scale_factor=1.0, add_offset=0.0, _FillValue=0), {}, (None, 0.0, 0, "unknown")),
        # rioxarray with masked=True has not applied what is left in the attributes.
        (
            band(np.float32, scale_factor=1e-4, add_offset=-0.1, _FillValue=np.nan),
            {},
            (1e-4, -0.1, None, "attribute scale_factor"),
        ),
        # Decoded by xarray: the encoding says what was applied.
        (
            band(float, encoding={"scale_factor": 1e-4, "add_offset": 0.0, "_FillValue": -32768}),
            {},
            (1.0, 0.0, None, "decoded when opened"),
        ),
        (band(np.float32), {}, (1.0, 0.0, None, "float values are reflectance")),
        (band(np.float32), {"nodata": -9999}, (1.0, 0.0, -9999, "float values are reflectance")),
        (band(np.float32, missing_value=-1.0), {}, (1.0, 0.0, -1.0, "float values are reflectance")),
    ],
)
def test_precedence(array, given, expected):
    assert resolve_scaling([array], **given) == Scaling(*expected)


def test_real_conventions(tmp_path):
    stored = np.array([[[0, 1500, 3000]]], np.uint16)
    packed = xr.Dataset({"B02": (("time", "y", "x"), stored)})
    packed.B02.attrs = {"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0}
    packed.to_zarr(tmp_path / "cube.zarr", zarr_format=2, consolidated=False)
    for decoded in (True, False):
        opened = xr.open_zarr(tmp_path / "cube.zarr", mask_and_scale=decoded, consolidated=False).B02
        scaling = resolve_scaling([opened])
        values = opened.values
        good = valid(values, scaling)
        assert good.ravel().tolist() == [False, True, True]
        np.testing.assert_allclose(to_reflectance(values, scaling)[good], [0.05, 0.2], atol=1e-6)


def test_nothing_is_computed():
    def fail(_):
        raise AssertionError("computed")

    lazy = band().copy(data=dask_array.map_blocks(fail, dask_array.zeros((1, 2, 2)), dtype=np.uint16))
    assert resolve_scaling([lazy], scale=1e-4).scale == 1e-4


@pytest.mark.parametrize(
    ("given", "error", "match"),
    [
        ({"scale": 0}, OptionError, "positive"),
        ({"scale": -1e-4}, OptionError, "positive"),
        ({"scale": float("nan")}, OptionError, "positive"),
        ({"scale": float("inf")}, OptionError, "positive"),
        ({"scale": True}, OptionTypeError, "a number"),
        ({"scale": "1e-4"}, OptionTypeError, "a number"),
        ({"offset": float("nan")}, OptionError, "finite"),
        ({"offset": [0.1]}, OptionTypeError, "a number"),
        ({"nodata": "0"}, OptionTypeError, "a number"),
        ({"scale": 1e-4, "offset": -1000}, ScalingError, r"Try: offset=-0\.1$"),
        ({"offset": -1000}, ScalingError, r"Try: offset=-0\.1$"),
        ({"nodata": -9999}, ScalingError, "uint16 cannot hold.*nodata=0"),
        ({"nodata": 0.5}, ScalingError, "an integer"),
        ({"nodata": float("inf")}, ScalingError, "an integer"),
    ],
)
def test_arguments_that_cannot_be(given, error, match):
    with pytest.raises(error, match=match):
        resolve_scaling([band()], **given)


@pytest.mark.parametrize(
    ("attrs", "match"),
    [
        ({"scale_factor": 1e-4, "add_offset": -1000}, r"Try: offset=-0\.1$"),
        ({"scale_factor": 1e-2, "add_offset": -1.0}, "digital numbers"),
        ({"scale_factor": 0.0}, "scale_factor is 0"),
        ({"scale_factor": "many"}, "one number"),
        ({"scale_factor": [1e-4, 1e-3]}, "one number"),
        ({"nodata": -9999}, "cannot hold"),
    ],
)
def test_attributes_that_cannot_be(attrs, match):
    with pytest.raises(ScalingError, match=match):
        resolve_scaling([band(**attrs)])


def test_an_index_in_bytes_begins_at_minus_one():
    one = band(np.uint8, scale_factor=0.01, add_offset=-1.0, _FillValue=255)
    assert resolve_scaling([one], index=True) == Scaling(0.01, -1.0, 255.0, "attribute scale_factor")


@pytest.mark.parametrize(
    "other", [band(scale_factor=2.75e-5), band(scale_factor=1e-4, add_offset=-0.1), band(np.float32)]
)
def test_bands_that_differ(other):
    first = band(scale_factor=1e-4)
    with pytest.raises(ScalingError, match=r"B02 has scale 0\.0001.*B11 has scale .*bands="):
        resolve_scaling([first, first, other.rename("B11")])


# There and back.


@given(arrays(np.uint16, 40), st.sampled_from([SENTINEL, LANDSAT]))
def test_unsigned_round_trip(stored, scaling):
    back = encode(from_reflectance(to_reflectance(stored, scaling), scaling), stored.dtype, scaling)
    assert back.dtype == stored.dtype
    assert (back == np.where(stored == 0, 1, stored)).all()


@given(arrays(np.int16, 40))
def test_signed_round_trip(stored):
    back = encode(from_reflectance(to_reflectance(stored, HLS), HLS), stored.dtype, HLS)
    expected = np.where(stored == -9999, -9998, stored)
    # float32 keeps these to 0.002, which may lie on either side of nodata.
    assert ((back == expected) | ((stored == -9999) & (back == -10000))).all()


@given(
    arrays(np.float32, 30, elements=st.floats(allow_nan=False, allow_infinity=False, width=32)),
    st.sampled_from([np.uint8, np.uint16, np.int16, np.int32, np.int64, np.uint64]),
    st.sampled_from([None, 0, 100, "lowest", "highest"]),
)
def test_encoding_clips_rounds_and_avoids_nodata(values, dtype, nodata):
    limits = np.iinfo(dtype)
    if isinstance(nodata, str):
        if limits.bits > 32:
            return  # a float cannot name these
        nodata = {"lowest": limits.min, "highest": limits.max}[nodata]
    stored = encode(values, np.dtype(dtype), Scaling(1e-4, 0.0, nodata))
    assert stored.dtype == dtype
    for value, found in zip(values.tolist(), stored.tolist(), strict=True):
        nearest = min(max(round(value), limits.min), limits.max)
        if nearest == nodata:
            assert abs(found - nearest) == 1
        else:
            assert abs(found - nearest) <= (2048 if limits.bits == 64 else 0)  # float64 near 2**64


def test_rounding_is_half_to_even():
    stored = encode(np.array([0.5, 1.5, 2.5, -1.5], np.float32), np.dtype(np.int16), Scaling(1e-4))
    assert stored.tolist() == [0, 2, 2, -2]


def test_too_bright_a_value_does_not_wrap():
    scaling = Scaling(1e-4)
    stored = encode(from_reflectance(np.array([9.0, -1.0]), scaling), np.dtype(np.int16), scaling)
    np.testing.assert_allclose(to_reflectance(stored, scaling), [3.2767, -1.0], atol=1e-6)


def test_float_dtypes_are_cast():
    values = np.array([0.25, np.nan, -9999.0], np.float32)
    stored = encode(values, np.dtype(np.float64), Scaling(nodata=-9999))
    assert stored.dtype == np.float64 and stored[0] == 0.25 and np.isnan(stored[1])
    assert stored[2] != -9999 and abs(stored[2] + 9999) < 1e-6


@pytest.mark.parametrize("convert", [to_reflectance, from_reflectance])
def test_unknown_scale(convert):
    with pytest.raises(ScalingError, match="scale=1e-4"):
        convert(np.ones(3, np.uint16), Scaling(None))


def test_conversions_do_not_modify_their_input():
    values = np.ones(3, np.float32)
    to_reflectance(values, SENTINEL)[:] = 7
    from_reflectance(values, SENTINEL)[:] = 7
    encode(values, np.dtype(np.float32), Scaling())[:] = 7
    assert (values == 1).all()


# What archives write beside CF.
