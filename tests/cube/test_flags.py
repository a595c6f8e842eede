"""Tables of flags in the attributes of a layer: CF, Open Data Cube, STAC and Earth Engine."""

import json

import numpy as np
import pytest

from tests.support.layers import CLOUD_MASK, layer, resolve, states
from xr_cloudfree.cube.masks import MaskRule, decode
from xr_cloudfree.cube.schemes import SCHEMES
from xr_cloudfree.errors import MaskError


def test_cf_classes():
    quality, rule = resolve(layer(name="cloud_mask", **CLOUD_MASK))
    assert states([0, 1, 2, 3, 4], rule, np.uint8) == "cxxsm"
    assert quality.dims == ("time", "y", "x")


@pytest.mark.parametrize(
    ("attrs", "values", "expected"),
    [
        # as a text file writes them
        ({"flag_values": "0b, 1b", "flag_meanings": "clear cloudy"}, [0, 1], "cx"),
        ({"flag_values": [0, 1], "flag_meanings": ["Clear sky", "Cloud shadows"]}, [0, 1], "cx"),
        # SCL as others write it
        (
            {
                "flag_values": list(range(12)),
                "flag_meanings": "no_data saturated_or_defective dark_area_pixels cloud_shadows vegetation "
                "not_vegetated water unclassified cloud_medium_probability cloud_high_probability "
                "thin_cirrus snow",
            },
            list(range(12)),
            "mmcxccccxxxs",
        ),
        # boolean bits: none of them is clear
        (
            {"flag_masks": [1, 2, 4, 128], "flag_meanings": "cloud cloud_shadow snow no_data"},
            [0, 1, 2, 3, 4, 5, 128, 129, 64],
            "cxxxsxmmc",
        ),
        # a bit that says clear: without any, a pixel was not looked at
        ({"flag_masks": [1, 2], "flag_meanings": "clear cloud"}, [0, 1, 2, 3], "mcxx"),
        # a field of two bits, and one bit
        (
            {
                "flag_masks": [3, 3, 3, 4],
                "flag_values": [0, 1, 2, 4],
                "flag_meanings": "clear cloud shadow snow",
            },
            [0, 1, 2, 4, 5],
            "cxxsx",
        ),
    ],
)
def test_cf_flags(attrs, values, expected):
    _, rule = resolve(layer(name="quality", **attrs), mask="quality")
    assert states(values, rule, np.uint8) == expected


SCL_WORDS = {
    "xcube-sh": "no_data saturated_or_defective dark_area_pixels cloud_shadows vegetation bare_soils water "
    "clouds_low_probability_or_unclassified clouds_medium_probability clouds_high_probability cirrus snow_or_ice",
    "xarray-eopf": "no_data sat_or_defect_pixel topo_casted_shadows cloud_shadows vegetation not_vegetation water "
    "unclassified cloud_medium_prob cloud_high_prob thin_cirrus snow_or_ice",
    "xcube-stac": "no_data saturated_or_defective_pixel topographic_casted_shadows cloud_shadows vegetation "
    "not_vegetated water unclassified cloud_medium_probability cloud_high_probability thin_cirrus snow_or_ice",
    "ESA": "SC_NODATA SC_SATURATED_DEFECTIVE SC_DARK_FEATURE_SHADOW SC_CLOUD_SHADOW SC_VEGETATION SC_NOT_VEGETATED "
    "SC_WATER SC_UNCLASSIFIED SC_CLOUD_MEDIUM_PROBA SC_CLOUD_HIGH_PROBA SC_THIN_CIRRUS SC_SNOW_ICE",
}


@pytest.mark.parametrize("words", SCL_WORDS.values(), ids=SCL_WORDS)
@pytest.mark.parametrize("strict", [False, True])
def test_the_words_for_scl_agree_with_its_numbers(words, strict):
    attrs = {"flag_values": ",".join(map(str, range(12))), "flag_meanings": words}
    _, rule = resolve(layer(**attrs), strict=strict)
    assert rule.scheme.name == "CF flags"
    assert states(range(12), rule, np.uint8) == states(range(12), MaskRule(SCHEMES["scl"], strict=strict), np.uint8)


DEA_WORDS = ("nodata", "valid", "cloud", "shadow", "snow", "water")
DEA = {"fmask": {"bits": list(range(8)), "values": dict(zip("012345", DEA_WORDS, strict=True))}}
LANDSAT = {
    "snow": {"bits": 5, "values": {"0": "not_high_confidence", "1": "high_confidence"}},
    "clear": {"bits": 6, "values": {"0": False, "1": True}},
    "cloud": {"bits": 3, "values": {"0": "not_high_confidence", "1": "high_confidence"}},
    "water": {"bits": 7, "values": {"0": "land_or_cloud", "1": "water"}},
    "cirrus": {"bits": 2, "values": {"0": "not_high_confidence", "1": "high_confidence"}},
    "nodata": {"bits": 0, "values": {"0": False, "1": True}},
    "qa_pixel": {"bits": list(range(16)), "values": {"1": "Fill", "2": "Dilated Cloud", "4": "Cirrus", "8": "Cloud"}},
    "cloud_shadow": {"bits": 4, "values": {"0": "not_high_confidence", "1": "high_confidence"}},
    "dilated_cloud": {"bits": 1, "values": {"0": "not_dilated", "1": "dilated"}},
    **{
        f"{what}_confidence": {"bits": bits, "values": dict(zip("0123", ("none", "low", third, "high"), strict=True))}
        for what, bits, third in (
            ("cloud", [8, 9], "medium"),
            ("cloud_shadow", [10, 11], "reserved"),
            ("snow_ice", [12, 13], "reserved"),
            ("cirrus", [14, 15], "reserved"),
        )
    },
}
WOFS = {
    "dry": {"bits": [7, 6, 5, 4, 3, 1, 0], "values": {"0": True}},
    "wet": {"bits": [7, 6, 5, 4, 3, 1, 0], "values": {"128": True}},
    **{
        name: {"bits": bit, "values": {"0": False, "1": True}}
        for bit, name in enumerate("nodata noncontiguous low_solar_angle terrain_shadow high_slope".split())
    },
    "cloud_shadow": {"bits": 5, "values": {"0": False, "1": True}},
    "cloud": {"bits": 6, "values": {"0": False, "1": True}},
    "water_observed": {"bits": 7, "values": {"0": False, "1": True}},
}
OLD_PQ = {  # where nought is the cloud
    "cloud_acca": {"bits": 10, "values": {"0": "cloud", "1": "no_cloud"}},
    "cloud_shadow_acca": {"bits": 12, "values": {"0": "cloud_shadow", "1": "no_cloud_shadow"}},
    "contiguous": {"bits": 8, "values": {"0": False, "1": True}},
    "blue_saturated": {"bits": 0, "values": {"0": True, "1": False}},
}
STAC_BITS = [
    {
        "name": name,
        "offset": offset,
        "length": 1,
        "classes": [{"value": 0, "name": f"not_{word}"}, {"value": 1, "name": word}],
    }
    for offset, (name, word) in enumerate([(w, w) for w in "fill dilated cirrus cloud shadow snow clear water".split()])
] + [
    {
        "name": "cloud_confidence",
        "offset": 8,
        "length": 2,
        "classes": [{"value": i, "name": w} for i, w in enumerate(("not_set", "low", "medium", "high"))],
    }
]
C2 = {21824: "c", 21952: "c", 22280: "x", 23888: "x", 30048: "s", 54596: "x", 5440: "c", 1: "m"}
GEE = {
    "SCL_class_values": [1, 4, 7, 8, 10, 11],
    "SCL_class_names": [
        "Saturated or defective",
        "Vegetation",
        "Clouds Low Probability / Unclassified",
        "Clouds Medium Probability",
        "Cirrus",
        "Snow / Ice",
    ],
}


@pytest.mark.parametrize(
    ("attrs", "known"),
    [
        ({"flags_definition": DEA}, dict(zip(range(6), "mcxxsc", strict=True))),
        ({"flags_definition": {"fmask": {**DEA["fmask"], "bits": 0}}}, dict(zip(range(6), "mcxxsc", strict=True))),
        ({"flags_definition": LANDSAT}, C2),
        ({"flags_definition": WOFS}, {0: "c", 128: "c", 64: "x", 32: "x", 1: "m", 2: "m", 8: "c", 16: "c", 192: "x"}),
        ({"flags_definition": OLD_PQ}, {0: "x", 0x1500: "c", 0x1100: "x", 0x0500: "x"}),
        ({"flags_definition": {"clear": {"bits": 6, "values": {"0": False, "1": True}}}}, {64: "c", 0: "x", 65: "c"}),
        ({"classification:bitfields": STAC_BITS}, C2),
        (
            {
                "classification:classes": [
                    {"value": 4, "name": "vegetation"},
                    {"value": 9, "name": "high", "description": "Cloud, high probability"},
                    {"value": 0, "name": "no_data"},
                ]
            },
            {4: "c", 9: "x", 0: "m"},
        ),
        (GEE, {1: "m", 4: "c", 7: "c", 8: "x", 10: "x", 11: "s"}),
        ({"class_names": {"0": "clear", "1": "thick cloud"}}, {0: "c", 1: "x"}),
        # as CF, with the name of the field in front
        (
            {
                "flag_masks": [8, 8, 16, 768, 768, 64],
                "flag_values": [0, 8, 16, 256, 768, 64],
                "flag_meanings": "cloud_not_cloud cloud_cloud cloud_shadow_shadow cloud_confidence_low "
                "cloud_confidence_high aerosol_high",
            },
            {256: "c", 8: "x", 16: "x", 768: "x", 320: "c"},
        ),
    ],
    ids=[
        "fmask",
        "first bit",
        "landsat",
        "wofs",
        "old",
        "clear",
        "bitfields",
        "classes",
        "gee",
        "names",
        "in one word",
    ],
)
@pytest.mark.parametrize("kept", [lambda table: table, json.dumps, str], ids=["dict", "json", "text"])
@pytest.mark.parametrize("name", ["fmask", "quality"])
def test_tables_of_other_dialects_win_over_the_name(attrs, known, kept, name):
    attrs = {key: kept(table) if isinstance(table, dict) or ":" in key else table for key, table in attrs.items()}
    _, rule = resolve(layer(name=name, **attrs), mask=name)
    assert states(list(known), rule, np.uint16) == "".join(known.values())


def test_a_list_of_names_without_values_is_no_table():
    assert resolve(layer(class_names=["nothing", "told"]))[1].scheme.name == "scl"


@pytest.mark.parametrize(
    ("attrs", "match"),
    [
        ({"flags_definition": "see the handbook"}, "flags_definition of fmask cannot be read"),
        ({"flags_definition": {"fmask": {"values": {"a": "cloud"}}}}, "cannot be read"),
        ({"classification:classes": [{"name": "cloud"}]}, "classification:classes of fmask cannot be read"),
        ({"x_class_names": ["clear", "cloud"], "x_class_values": [1]}, "x_class_names of fmask cannot be read"),
        (
            {"flags_definition": {"platform": {"bits": [0, 1], "values": {"0": "terra", "1": "aqua"}}}},
            "no flags for cloud",
        ),
        ({"flags_definition": {"cloudiness": {"bits": 0, "values": {"1": "odd"}}}}, "unknown flag_meanings: odd"),
    ],
)
def test_tables_that_cannot_be_read(attrs, match):
    with pytest.raises(MaskError, match=match) as raised:
        resolve(layer(name="fmask", **attrs))
    assert "scheme='fmask'" in raised.value.remedy


def test_a_field_value_that_no_meaning_has_is_an_error():
    attrs = {"flag_masks": [3, 3, 3], "flag_values": [0, 1, 2], "flag_meanings": "clear cloud shadow"}
    _, rule = resolve(layer(name="quality", **attrs), mask="quality")
    with pytest.raises(MaskError, match="holds 3"):
        decode(np.array([3], np.uint8), rule)
