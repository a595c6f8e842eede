"""Quality layers: published values mean what their producers say, and nothing is guessed."""

import pickle

import dask
import dask.array as dask_array
import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from tests.support.layers import CLOUD_MASK, TEMPLATE, TIMES, layer, resolve, states
from xr_cloudfree.cube.masks import Decoded, MaskRule, decode, dilate_not_clear, repeat
from xr_cloudfree.cube.schemes import SCHEMES
from xr_cloudfree.errors import (
    DimensionError,
    GridError,
    MaskError,
    MaskTypeError,
    OptionError,
    OptionTypeError,
    TimeError,
)

# What the producers publish.


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


# Which layer, and by which scheme.


def test_precedence():
    own = [layer(name="SCL"), layer(name="QA_PIXEL"), layer(name="cloud_mask", **CLOUD_MASK)]
    assert resolve(*own)[1].label == "cloud_mask (CF flags)"
    assert resolve(*own[:2])[1].label == "SCL (scl)"
    assert resolve(*own, mask="QA_PIXEL")[1].label == "QA_PIXEL (qa_pixel)"
    assert resolve(*own, mask=layer(name="Fmask"))[1].label == "Fmask (fmask)"
    assert resolve(*own, scheme="scl")[1].label == "SCL (scl)"
    clear = layer(np.ones((3, 4, 6), bool), name="mine")
    assert resolve(*own, clear=clear)[1].scheme is None
    assert resolve(*own, clear, clear="mine")[1].label == "mine (boolean, True is clear)"


@pytest.mark.parametrize(
    ("name", "scheme"),
    [
        *((name, name.lower()) for name in ("SCL", "scl", "QA_PIXEL", "qa_pixel", "Fmask", "cfmask", "CFMask", "CLM")),
        ("pixel_qa", "pixel_qa"),
        ("oa_fmask", "dea_fmask"),
        ("cloudmask_en", "cloudsen12"),
        ("state_1km", "modis_state"),
    ],
)
def test_known_names(name, scheme):
    assert resolve(layer(name=name))[1].scheme.name == scheme


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


@pytest.mark.parametrize("scheme", ["probability", "clear_score"])
@pytest.mark.parametrize("threshold", [0.4, 40])
def test_classes_are_no_probability(scheme, threshold):
    flagged = layer(name="quality", **CLOUD_MASK)
    for one in (layer(name="SCL"), layer(name="SCL", dtype=np.float32), flagged):
        with pytest.raises(MaskError, match="layer of classes or bits") as raised:
            resolve(one, mask=str(one.name), scheme=scheme, threshold=threshold)
        assert "rename" in raised.value.remedy


def test_a_clear_score_is_no_probability_and_is_clear_from_its_threshold_on():
    assert states([0.1, 0.59, 0.6, 1.0, np.nan], MaskRule(SCHEMES["clear_score"], threshold=0.6), float) == "xxccm"
    score, probability = (layer(name=name, dtype=np.float32) for name in ("cs_cdf", "cloud_prob"))
    assert resolve(score, mask="cs_cdf", threshold=0.6)[1].scheme.name == "clear_score"
    with pytest.raises(MaskError, match=r"clear score without a threshold.*threshold=0\.6"):
        resolve(score, mask="cs_cdf")
    with pytest.raises(MaskError, match=r'cs_cdf is a clear score.*scheme="clear_score"'):
        resolve(score, mask="cs_cdf", scheme="probability", threshold=0.6)
    with pytest.raises(MaskError, match=r'cloud_prob is a probability.*scheme="probability"'):
        resolve(probability, mask="cloud_prob", scheme="clear_score", threshold=0.6)
    with pytest.raises(MaskError, match=r"mask='cs_cdf', scheme=.clear_score., threshold=0\.6"):
        resolve(score)


def test_bytes_go_up_to_255_unless_they_are_percent():
    values = np.array([0, 101, 102, 255], np.uint8)
    _, rule = resolve(layer(name="CLP"), mask="CLP", threshold=102)
    assert states(values, rule, np.uint8) == "ccxx"
    _, rule = resolve(layer(name="CLP"), mask="CLP", threshold=40)
    assert states(values, rule, np.uint8) == "cxxx"
    decoded = layer(name="CLP", dtype=np.float32)
    decoded.encoding["dtype"] = np.dtype("uint8")
    assert states([0, 101], resolve(decoded, mask="CLP", threshold=40)[1], np.float32) == "cx"
    for percent in (layer(name="CLP", units="%"), layer(name="MSK_CLDPRB")):
        _, rule = resolve(percent, mask=str(percent.name), threshold=40)
        with pytest.raises(MaskError, match="from 0 to 255"):
            decode(values, rule)


@pytest.mark.parametrize(
    ("attrs", "dtype", "threshold", "remedy"),
    [
        ({"units": "%"}, np.float32, 0.4, "threshold=40"),
        ({"units": "percent"}, np.uint8, 0.4, "threshold=40"),
        ({"units": "1"}, np.float32, 40, "threshold=0.4"),
        ({}, np.uint8, 0.4, "threshold=40 if its values go up to 100, or threshold=102 if up to 255"),
    ],
)
def test_units_tell_those_of_the_threshold(attrs, dtype, threshold, remedy):
    with pytest.raises(MaskError) as raised:
        resolve(layer(name="cloud_prob", dtype=dtype, **attrs), mask="cloud_prob", threshold=threshold)
    assert remedy in raised.value.remedy


def test_one_percent_is_a_threshold_of_percent():
    for one in (layer(name="CLD"), layer(name="q", dtype=np.float32, units="%")):
        rule = resolve(one, mask=str(one.name), scheme="probability", threshold=1)[1]
        assert states([0, 1, 90], rule, one.dtype) == "cxx"


def test_a_told_scheme_finds_layers_that_are_taken_for_another():
    assert resolve(layer(name="Fmask"), scheme="dea_fmask")[1].label == "Fmask (dea_fmask)"
    both = layer(name="fmask"), layer(name="oa_fmask")
    assert resolve(*both, scheme="dea_fmask")[1].label == "oa_fmask (dea_fmask)"
    assert resolve(layer(name="cloud_mask"), scheme="cloudsen12")[1].label == "cloud_mask (cloudsen12)"
    with pytest.raises(MaskError, match=r"no layer of scheme 'scl'.*scheme=None"):
        resolve(layer(name="cloud_mask", **CLOUD_MASK), scheme="scl")


def test_units_of_bytes_are_not_those_of_probabilities():
    attrs = {"units": "1"}  # as the Open Data Cube writes for everything
    assert resolve(layer(name="CLD", **attrs), mask="CLD", threshold=40)[1].threshold == 40


def test_told_scheme_wins_over_flags_and_name():
    assert resolve(layer(name="SCL"), mask="SCL", scheme="cfmask")[1].scheme.name == "cfmask"
    flagged = layer(name="q", flag_values=[0, 1], flag_meanings="apples pears")
    assert resolve(flagged, mask="q", scheme="scl")[1].scheme.name == "scl"


@pytest.mark.parametrize(("where", "key"), [("attrs", "_FillValue"), ("attrs", "nodata"), ("encoding", "_FillValue")])
def test_the_layers_own_fill_value_is_missing(where, key):
    quality = layer(name="cloud_mask", **CLOUD_MASK)
    getattr(quality, where)[key] = 255
    _, rule = resolve(quality)
    assert states([0, 255], rule, np.uint8) == "cm"
    probability = layer(name="MSK_CLDPRB")
    getattr(probability, where)[key] = 255
    _, rule = resolve(probability, mask="MSK_CLDPRB", threshold=40)
    assert states([0, 50, 255], rule, np.uint8) == "cxm"


def test_sentinel_fill_value_is_the_one_of_its_scheme():
    _, rule = resolve(layer(name="SCL", nodata=0))
    assert rule.scheme == SCHEMES["scl"]


@pytest.mark.parametrize(
    ("layers", "options", "error", "match"),
    [
        ((), {}, MaskError, "variables: none.*clear="),
        (("B03",), {}, MaskError, "variables: B03"),
        (("cloud_prob",), {}, MaskError, "mask='cloud_prob'.*threshold="),
        (("SCL",), {"mask": "SLC"}, MaskError, "mask='SCL'"),
        (("SCL",), {"clear": "SCL"}, MaskTypeError, "dtype uint8"),
        (("SCL",), {"mask": "SCL", "clear": "SCL"}, MaskError, "both"),
        (("SCL",), {"mask": np.zeros((3, 4, 6))}, MaskTypeError, "ndarray"),
        (("SCL",), {"clear": np.ones((3, 4, 6), bool)}, MaskTypeError, "xr.DataArray"),
        (("SCL",), {"scheme": "scll"}, MaskError, "scheme='scl'"),
        (("SCL",), {"scheme": 3}, MaskError, "scheme="),
        (("SCL",), {"scheme": "fmask"}, MaskError, "no layer of scheme 'fmask'"),
        (("SCL",), {"threshold": 0.4}, MaskError, "not a probability"),
        (("cloud_prob",), {"mask": "cloud_prob"}, MaskError, "without a threshold"),
        (("cloud_mask",), {}, MaskError, r"is unknown.*clear=ds.cloud_mask == 0"),
        (("quality",), {"mask": "quality"}, MaskError, "scheme="),
        (("quality",), {"mask": "quality", "threshold": 0.5}, MaskError, "scheme="),
        (("cfmask",), {"strict": True}, MaskError, "strict=False"),
        (("CLD",), {"mask": "CLD", "threshold": 40, "snow": "not clear"}, MaskError, "snow="),
        (("SCL",), {"snow": "cloud"}, OptionError, "not clear"),
        (("SCL",), {"snow": False}, OptionError, "not clear"),
        (("SCL",), {"strict": "yes"}, OptionTypeError, "strict=True"),
        (("SCL",), {"dilate": -1}, OptionError, "dilate"),
        (("SCL",), {"dilate": 1.5}, OptionTypeError, "dilate"),
        (("SCL",), {"dilate": True}, OptionTypeError, "dilate"),
        (("CLD",), {"mask": "CLD", "threshold": 300}, OptionError, "at most 255"),
        (("CLD",), {"mask": "CLD", "threshold": float("nan")}, OptionError, "at most 255"),
        (("CLD",), {"mask": "CLD", "threshold": "0.4"}, OptionTypeError, "a number"),
    ],
)
def test_what_cannot_be_understood(layers, options, error, match):
    with pytest.raises(error, match=match) as raised:
        resolve(*(layer(name=name) for name in layers), **options)
    assert isinstance(raised.value, ValueError)
    assert isinstance(raised.value, TypeError) == issubclass(error, OptionTypeError | MaskTypeError)
    assert raised.value.remedy


@pytest.mark.parametrize("as_name", [True, False])
def test_a_boolean_given_as_mask_is_not_guessed(as_name):
    cloudy = layer(np.zeros((3, 4, 6), bool), name="cloudy")
    with pytest.raises(MaskTypeError, match=r"clear=(ds\.)?cloudy if .* clear=~(ds\.)?cloudy if"):
        resolve(cloudy, mask="cloudy" if as_name else cloudy)
    with pytest.raises(MaskTypeError, match=r"clear=~ds\.cloud_mask"):
        resolve(cloudy.rename("cloud_mask"))


@pytest.mark.parametrize(
    ("attrs", "match"),
    [
        ({"flag_values": [0, 1], "flag_meanings": "clear apples"}, "apples"),
        ({"flag_values": [0, 1], "flag_meanings": "clear"}, "1 flag_meanings, 2 flag_values"),
        ({"flag_meanings": "clear cloud"}, "0 flag_values"),
        ({"flag_masks": [1], "flag_values": [0, 1], "flag_meanings": "clear cloud"}, "1 flag_masks"),
        ({**CLOUD_MASK, "_FillValue": 0}, "fill value 0, which also means clear"),
        ({**CLOUD_MASK, "nodata": 1}, "fill value 1, which also means cloud"),
    ],
)
def test_attributes_that_contradict_themselves(attrs, match):
    with pytest.raises(MaskError, match=match):
        resolve(layer(name="cloud_mask", **attrs))


@pytest.mark.parametrize("option", ["scheme", "threshold", "strict", "snow"])
def test_clear_takes_no_options_of_classes(option):
    given = {"scheme": "scl", "threshold": 0.5, "strict": True, "snow": "not clear"}[option]
    with pytest.raises(MaskError, match="boolean layer alone"):
        resolve(clear=layer(np.ones((3, 4, 6), bool)), **{option: given})


# On which dates and which grid.


def test_nothing_is_computed():
    def fail(_):
        raise AssertionError("computed")

    lazy = layer().copy(data=dask_array.map_blocks(fail, dask_array.zeros((3, 4, 6)), dtype=np.uint8))
    quality, rule = resolve(lazy.isel(time=[2, 0, 1]).transpose("x", "time", "y"))
    assert dask.is_dask_collection(quality.data) and rule.factor == 1
    assert quality.dims == ("time", "y", "x")


def test_dates_come_in_the_cubes_order():
    values = np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 6), np.uint8)
    quality, _ = resolve(layer(values).isel(time=[2, 0, 1]))
    assert (quality.time.values == TIMES).all()
    assert quality[:, 0, 0].values.tolist() == [0, 1, 2]


def test_dates_in_other_units_are_the_same_dates():
    quality = layer().assign_coords(time=TIMES.astype("datetime64[s]"))
    assert resolve(quality)[0].sizes["time"] == 3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda q: q.isel(time=[0, 1]), "2 dates, the cube 3, of which it lacks 1"),
        (lambda q: q.assign_coords(time=TIMES + np.timedelta64(1, "m")), "lacks 3"),
        (lambda q: q.isel(time=[0, 1, 1]), "lacks 1"),
        (lambda q: xr.concat([q, q.isel(time=[0])], "time"), "4 dates"),
        (lambda q: q.isel(time=[0, 1]).drop_vars("time"), "2 dates, the cube 3"),
    ],
)
def test_other_dates(change, match):
    with pytest.raises(TimeError, match=match):
        resolve(change(layer()))


def test_coarser_layer_that_nests():
    coarse = layer(ny=2, nx=3, step=20.0)
    assert resolve(coarse)[1].factor == 2
    # The last coarse pixel may reach beyond an odd edge.
    odd = layer(ny=3, nx=5, name="B02")
    assert resolve(coarse, template=odd)[1].factor == 2
    assert resolve(layer(ny=1, nx=1, step=60.0), template=layer(ny=6, nx=6))[1].factor == 6


def test_layers_without_coordinates_need_the_shape():
    bare = layer().drop_vars(["y", "x"])
    assert resolve(bare)[1].factor == 1
    with pytest.raises(GridError, match="without coordinates"):
        resolve(bare.isel(x=slice(1, None)))


def test_coordinates_may_have_been_rounded():
    y, x = TEMPLATE.y + 4.5e6, TEMPLATE.x
    template = TEMPLATE.assign_coords(y=y)
    assert resolve(layer().assign_coords(y=y.astype(np.float32), x=x), template=template)[1].factor == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda q: q.assign_coords(x=q.x + 5),  # half a pixel
        lambda q: q.assign_coords(y=q.y + 0.01),
        lambda q: q.isel(y=slice(None, None, -1)),
        lambda q: q.isel(x=slice(1, None)),
        lambda q: q.assign_coords(x=q.x + 10),
        lambda q: layer(ny=2, nx=3, step=20.0, x0=490.0),  # nests in the grid, not in its edges
        lambda q: layer(ny=2, nx=3, step=20.0, x0=505.0),
        lambda q: layer(ny=3, nx=4, step=15.0),
        lambda q: layer(ny=8, nx=12, step=5.0),
        lambda q: layer(ny=2, nx=6).assign_coords(y=[3990.0, 3970.0]),  # coarser along one axis only
    ],
)
def test_other_grids(change):
    with pytest.raises(GridError, match=r"another grid: .* pixels.*; the cube: 4 x 6 pixels.*nearest") as raised:
        resolve(change(layer()))
    assert "step -10, 10" in str(raised.value)


def test_other_crs():
    mask, template = layer().rio.write_crs(32633), TEMPLATE.rio.write_crs(32632)
    assert resolve(mask=mask, template=mask)[1].factor == 1
    with pytest.raises(GridError, match=r"EPSG:32633.*EPSG:32632.*reproject_match"):
        resolve(mask=mask, template=template)


def test_dimensions():
    quality = layer()
    assert resolve(quality.expand_dims("band"))[0].dims == ("time", "y", "x")
    for wrong in (
        quality.rename(y="lat"),
        quality.isel(time=0),
        xr.concat([quality, quality], "band"),
    ):
        with pytest.raises(DimensionError, match="time, y and x"):
            resolve(wrong)


def test_decoded_is_a_tuple_of_layers():
    found = decode(np.full((2, 3), 11, np.uint8), MaskRule(SCHEMES["scl"]))
    assert isinstance(found, Decoded) and found.snow.all() and found.clear.all() and not found.missing.any()
    values = np.ones((2, 3), bool)
    assert decode(values, MaskRule()).clear is values
    with pytest.raises(MaskTypeError):
        decode(values.astype(int), MaskRule())


@pytest.mark.parametrize(
    ("name", "dtype", "attrs", "threshold"),
    [
        ("cloud_prob", np.float32, {}, r"threshold=0\.4$"),
        ("cloud_prob", np.float32, {"units": "%"}, r"threshold=40$"),
        ("CLD", np.uint8, {}, r"threshold=40$"),
        ("CLP", np.uint8, {}, r"threshold=40 if its values go up to 100, or threshold=102 if up to 255$"),
        ("cs_cdf", np.uint16, {}, r"threshold=60 if its values go up to 100, or threshold=153 if up to 255$"),
        ("cloud_prob", np.uint8, {"scale_factor": 0.01}, r"threshold=0\.4$"),
    ],
)
def test_thresholds_are_proposed_in_the_units_of_the_layer(name, dtype, attrs, threshold):
    one = layer(name=name, dtype=dtype, **attrs)
    for chosen in (None, name):
        with pytest.raises(MaskError, match=threshold):
            resolve(one, mask=chosen)


def test_a_boolean_layer_is_proposed_where_there_is_no_other():
    with pytest.raises(
        MaskError, match=r"Try: clear=ds\.clouds if True means clear; clear=~ds\.clouds if True means cloud"
    ):
        resolve(layer(name="clouds", dtype=bool))
