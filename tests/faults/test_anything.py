"""Arbitrary options, attributes and coordinates either work or raise an error of the package."""

import warnings

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support.malformed import TARGET, cube, fill, quality
from xr_cloudfree import errors

ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(10**25), 10**25),
    st.floats(),
    st.text(max_size=12),
    st.dates(),
    st.datetimes(timezones=st.none() | st.timezones()),
    st.timedeltas(),
    st.complex_numbers(),
    st.binary(max_size=3),
    st.lists(st.integers(-3, 3) | st.text(max_size=3) | st.floats(), max_size=3),
    st.tuples(st.floats(), st.floats()),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
    st.sampled_from(
        [np.array([1, 2]), np.array(["red", "nir"]), np.array(TARGET, "M8[D]"), np.int64(2), object(), int]
    ),
    st.sampled_from(
        ["all", "red", "SCL", "scl", "clear", "not clear", "linear", "filled", TARGET, "30D", "reflectance"]
    ),
)
OPTION_NAMES = (
    "date freq merge model clear mask scheme threshold snow strict dilate bands window scale offset nodata layers "
    "repair block"
).split()


def _tiny():
    """Two cubes of 4 x 5 pixels: with a boolean mask, and with SCL."""
    part = {"y": slice(5, 9), "x": slice(5, 10)}
    (plain, options), (scene, _) = cube(), quality()
    return (plain.isel(part), options), (scene.isel(part), {})


PLAIN, SCENE = _tiny()


def works_or_is_refused(obj, options):
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", errors.CloudfreeWarning)
            fill(obj, options)
    except errors.CloudfreeError as error:
        assert error.found and error.needed and error.remedy


@settings(max_examples=200)
@given(st.sampled_from(OPTION_NAMES), ANYTHING, st.sampled_from([PLAIN, SCENE]))
def test_any_option(name, value, case):
    obj, options = case
    works_or_is_refused(obj, options | {name: value})


@pytest.mark.parametrize("value", [-(2**63) - 1, 10**25, 10**40, 10**400])
@pytest.mark.parametrize("name", ["scale", "offset", "nodata", "threshold", "dilate", "block", "window"])
def test_numbers_that_fit_into_no_array(name, value):
    for obj, options in (PLAIN, SCENE):
        works_or_is_refused(obj, options | {name: value})


ATTRIBUTES = (
    "scale_factor add_offset _FillValue missing_value nodata flag_values flag_masks flag_meanings grid_mapping units "
    "flags_definition classification:classes classification:bitfields class_names SCL_class_names "
    "raster:bands _eopf_attrs scales offsets QUANTIFICATION_VALUE BOA_ADD_OFFSET s2:processing_baseline "
    "earthsearch:boa_offset_applied"
).split()


@settings(max_examples=200)
@given(st.sampled_from(ATTRIBUTES), ANYTHING, st.sampled_from(["reflectance", "SCL"]), st.booleans(), st.booleans())
def test_any_attribute(key, value, name, encoded, whole):
    ds, options = SCENE
    if whole:
        ds = ds.assign(reflectance=(ds["reflectance"] * 1e4).fillna(0).astype("uint16"))
    layer = ds[name].copy()
    (layer.encoding if encoded else layer.attrs)[key] = value
    works_or_is_refused(ds.assign({name: layer}), options)


PARTS = st.integers(-2, 70) | st.text(max_size=2) | st.booleans() | st.sampled_from([10**20, "cloud", "clear", None])
FIELDS = st.dictionaries(st.sampled_from(["bits", "values", "name", "value", "offset", "length", "classes"]), PARTS)
TABLES = st.recursive(
    PARTS | FIELDS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["cloud", "values", "0", "9"]), inner),
    max_leaves=6,
)


@settings(max_examples=300)
@given(st.sampled_from(ATTRIBUTES[-5:]), TABLES, st.sampled_from([lambda table: table, str]))
def test_any_table(key, table, kept):
    ds, options = SCENE
    works_or_is_refused(ds.assign(SCL=ds["SCL"].assign_attrs({key: kept(table)})), options)


LABELS = [st.integers(-9, 9), st.floats(width=32), st.text(max_size=3), st.dates(), st.none(), st.booleans()]


@settings(max_examples=100)
@given(st.sampled_from(["time", "band", "y", "x"]), st.sampled_from([*LABELS, st.datetimes()]), st.data())
def test_any_coordinate(dim, kind, data):
    ds, options = PLAIN
    n = ds.sizes[dim]
    works_or_is_refused(ds.assign_coords({dim: data.draw(st.lists(kind, min_size=n, max_size=n))}), options)
