"""Schemes: the published values of each product have the documented meaning."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra.numpy import arrays

from tests.support.layers import states
from xr_cloudfree.cube.masks import MaskRule, decode
from xr_cloudfree.cube.schemes import SCHEMES


@pytest.mark.parametrize(
    ("scheme", "dtype", "known"),
    [
        ("scl", np.uint8, dict(zip(range(12), "mmcxccccxxxs", strict=True))),
        (
            "qa_pixel",
            np.uint16,
            {
                21824: "c",
                21952: "c",
                22280: "x",
                23888: "x",
                30048: "s",
                54596: "x",
                5440: "c",
                1: "m",
                0: "m",
            },
        ),
        ("fmask", np.uint8, {64: "c", 194: "x", 196: "x", 200: "x", 208: "s", 224: "c", 255: "m", 0: "c"}),
        ("cfmask", np.uint8, {0: "c", 1: "c", 2: "x", 3: "s", 4: "x", 255: "m"}),
        ("dea_fmask", np.uint8, {0: "m", 1: "c", 2: "x", 3: "x", 4: "s", 5: "c"}),
        # Landsat 8: clear, clear with high cirrus, water, shadow, snow, cloud, fill; Landsat 5: clear, cloud
        (
            "pixel_qa",
            np.uint16,
            {322: "c", 834: "x", 324: "c", 328: "x", 336: "s", 352: "x", 1: "m", 66: "c", 224: "x", 0: "m"},
        ),
        ("cloudsen12", np.uint8, {0: "c", 1: "x", 2: "x", 3: "x"}),
        ("csmask", np.uint8, {0: "c", 1: "x", 2: "x"}),
        ("clm", np.uint8, {0: "c", 1: "x", 255: "m"}),
        ("maja", np.uint8, {0: "c", 3: "x", 5: "x", 9: "x", 64: "x", 128: "x"}),
        # clear land, cloudy, mixed, shadow, small and average cirrus, internal cloud, snow, adjacent, fill
        (
            "modis_state",
            np.uint16,
            {8: "c", 9: "x", 10: "x", 12: "x", 264: "c", 520: "x", 1032: "x", 4104: "s", 8200: "x", 65535: "m"},
        ),
    ],
)
def test_published_values(scheme, dtype, known):
    rule = MaskRule(SCHEMES[scheme])
    expected = "".join(known.values())
    assert states(list(known), rule, dtype) == expected
    for other in (np.int16, np.int32, np.int64, np.float32, np.float64):
        if max(known) <= (np.iinfo(other).max if np.dtype(other).kind == "i" else 2**24):
            assert states(list(known), rule, other) == expected
    not_clear = expected.replace("s", "n")
    assert states(list(known), MaskRule(SCHEMES[scheme], snow="not clear"), dtype) == not_clear


def test_strict_leaves_dark_and_unclassified_out():
    assert states(range(12), MaskRule(SCHEMES["scl"], strict=True), np.uint8) == "mmxxcccxxxxs"


def test_landsat_clear_bit_is_not_used():
    qa = np.array([23888, 30048, 54596, 22280], np.uint16)
    assert (qa[:3] & 1 << 6 == 0).sum() < 3  # the producer sets it where a pixel is anything but clear
    rule = MaskRule(SCHEMES["qa_pixel"])
    assert (decode(qa, rule).clear == decode(qa ^ np.uint16(1 << 6), rule).clear).all()


@given(arrays(np.uint16, 50))
def test_landsat_is_not_clear_as_the_bits_say(qa):
    qa |= np.uint16(1 << 12)  # a snow confidence, as each pixel of Collection 2 has
    expected = (qa & 0b11111) == 0
    assert (decode(qa, MaskRule(SCHEMES["qa_pixel"])).clear == expected).all()


@given(arrays(np.uint8, 50))
def test_fmask_nodata_comes_before_the_bits(fmask):
    fmask[fmask != 255] &= 0xFE  # as HLS leaves the first bit
    found = decode(fmask, MaskRule(SCHEMES["fmask"]))
    assert (found.clear == ((fmask & 0b1110) == 0)).all()
    assert (found.missing == (fmask == 255)).all()
