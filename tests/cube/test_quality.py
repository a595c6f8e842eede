"""Finding the quality layer of a cube and its scheme: precedence, names, thresholds, and what is refused."""

import dask
import dask.array as dask_array
import numpy as np
import pytest

from tests.support.layers import CLOUD_MASK, layer, resolve, states
from xr_cloudfree.cube.masks import MaskRule, decode
from xr_cloudfree.cube.schemes import SCHEMES
from xr_cloudfree.errors import (
    MaskError,
    MaskTypeError,
    OptionError,
    OptionTypeError,
)


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


def test_an_explicit_scheme_finds_layers_of_ambiguous_names():
    assert resolve(layer(name="Fmask"), scheme="dea_fmask")[1].label == "Fmask (dea_fmask)"
    both = layer(name="fmask"), layer(name="oa_fmask")
    assert resolve(*both, scheme="dea_fmask")[1].label == "oa_fmask (dea_fmask)"
    assert resolve(layer(name="cloud_mask"), scheme="cloudsen12")[1].label == "cloud_mask (cloudsen12)"
    with pytest.raises(MaskError, match=r"no layer of scheme 'scl'.*scheme=None"):
        resolve(layer(name="cloud_mask", **CLOUD_MASK), scheme="scl")


def test_units_of_bytes_are_not_those_of_probabilities():
    attrs = {"units": "1"}  # as the Open Data Cube writes for everything
    assert resolve(layer(name="CLD", **attrs), mask="CLD", threshold=40)[1].threshold == 40


def test_an_explicit_scheme_takes_precedence_over_flags_and_name():
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
def test_layers_of_unknown_meaning_are_refused(layers, options, error, match):
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


def test_nothing_is_computed():
    def fail(_):
        raise AssertionError("computed")

    lazy = layer().copy(data=dask_array.map_blocks(fail, dask_array.zeros((3, 4, 6)), dtype=np.uint8))
    quality, rule = resolve(lazy.isel(time=[2, 0, 1]).transpose("x", "time", "y"))
    assert dask.is_dask_collection(quality.data) and rule.factor == 1
    assert quality.dims == ("time", "y", "x")


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


@pytest.mark.parametrize(
    ("names", "mask", "remedy"),
    [
        (("SCL",), "Series", "mask='series'"),
        ((), "Series", "mask='series'"),
        ((), "sries", "mask='series'"),
        (("SCL",), "scl", "mask='SCL'"),
        (("SCL",), "none", 'mask=None, which uses SCL; or mask="series" to make masks from the series'),
        (("SCL",), "fmask", "mask='SCL', scheme='fmask' if its values are read so; or mask=\"series\""),
        ((), "nothing", 'dims=("time", "y", "x")); or mask="series"'),
        (("quality",), "quality", 'if only 0 means clear, or mask="series"'),
        (("cloud_prob",), None, 'threshold=0.4; or mask="series"'),
    ],
)
def test_errors_offer_the_series_and_the_nearest_name(names, mask, remedy):
    layers = [layer(name=name, dtype=np.float32 if name == "cloud_prob" else np.uint8) for name in names]
    with pytest.raises(MaskError) as raised:
        resolve(*layers, mask=mask, from_series=True)
    assert remedy in raised.value.remedy
    if mask != "Series":  # of a single date no masks can be made
        with pytest.raises(MaskError) as raised:
            resolve(*layers, mask=mask)
        assert "series" not in raised.value.remedy and "series" not in raised.value.needed


def test_without_a_scheme_that_is_not_found_masks_can_be_made_from_the_series():
    with pytest.raises(MaskError, match=r'scheme=None, strict=False, mask="series" to make') as raised:
        resolve(layer(name="B03"), scheme="scl", strict=True, from_series=True)
    assert 'mask="series"' in raised.value.remedy


def test_a_variable_of_the_cube_is_named_as_one_however_it_was_given():
    one = layer(name="cloud_mask", dtype=bool)
    for given in (one, one.copy(deep=False)):
        with pytest.raises(MaskTypeError, match=r"clear=ds\.cloud_mask if True means clear"):
            resolve(one, mask=given)
    with pytest.raises(MaskTypeError, match=r"clear=cloud_mask if True means clear"):
        resolve(one, mask=~one)  # another layer of this name
