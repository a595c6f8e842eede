"""Specs: their JSON form, and the bands that they accept."""

import json
from dataclasses import fields

import pytest
from hypothesis import given
from hypothesis import strategies as st

from xr_cloudfree import errors
from xr_cloudfree.models.spec import SCHEMA, ModelSpec

PLAIN = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-9, 9)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)
PAIRS = st.dictionaries(st.text(max_size=5), PLAIN, max_size=3).map(lambda d: tuple(d.items()))
SPECS = st.builds(
    ModelSpec,
    name=st.from_regex(r"[a-z0-9][a-z0-9._-]{0,20}", fullmatch=True),
    summary=st.text(min_size=1, max_size=20).filter(str.strip),
    units=st.sampled_from(["storage", "reflectance"]),
    window_days=st.none() | st.floats(0.5, 400),
    batch=st.integers(1, 64),
    layers=st.lists(st.sampled_from(["source_time", "uncertainty", "gate"]), unique=True).map(tuple),
    settings=PAIRS,
    architecture=st.none() | st.just("unet-plus"),
    config=PAIRS,
    bands=st.none() | st.just(("blue", "green", "red")),
    min_bands=st.integers(1, 3),
    max_bands=st.none() | st.integers(3, 12),
    max_dates=st.none() | st.integers(1, 60),
    weights_sha256=st.none() | st.from_regex(r"[0-9a-f]{64}", fullmatch=True),
    license=st.none() | st.just("CC-BY-4.0"),
)


@given(SPECS)
def test_json_brings_back_the_same(spec):
    back = ModelSpec.from_json(spec.to_json())
    assert back == spec and hash(back) == hash(spec) and back.to_json() == spec.to_json()


def test_json_names_every_field_and_its_version():
    told = json.loads(ModelSpec("mine", "my own", config=(("widths", (8, 16)),)).to_json())
    assert list(told) == [field.name for field in fields(ModelSpec)]
    assert told["schema"] == SCHEMA == 1 and told["config"] == {"widths": [8, 16]}


def test_what_has_a_default_may_be_left_out():
    assert ModelSpec.from_json('{"schema": 1, "name": "mine", "summary": "my own"}') == ModelSpec("mine", "my own")


def test_a_field_of_earlier_versions_is_read_and_only_with_its_default():
    text = '{"schema": 1, "name": "mine", "summary": "my own", "min_clear": VALUE}'
    assert ModelSpec.from_json(text.replace("VALUE", "1")) == ModelSpec("mine", "my own")
    with pytest.raises(errors.ModelError, match="min_clear is 3"):
        ModelSpec.from_json(text.replace("VALUE", "3"))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"tile": 24}, "go together"),
        ({"tile": 24, "stride": 15}, "even difference"),
        ({"tile": 40, "stride": 16, "taper": True}, "at most half"),
        ({"min_bands": 4, "max_bands": 3}, "less than min_bands"),
        ({"bands": ("red", "red")}, "twice"),
    ],
)
def test_contradictions_are_refused_in_memory_and_in_json(change, says):
    with pytest.raises(ValueError, match=says):
        ModelSpec("mine", "my own", **change)
    told = {"schema": 1, "name": "mine", "summary": "my own"} | change
    with pytest.raises(errors.ModelError, match=says):
        ModelSpec.from_json(json.dumps(told))


class TestBands:
    FOUR = ModelSpec("four", "for four bands", bands=("blue", "green", "red", "nir"))
    SOME = ModelSpec("some", "for some bands", min_bands=3, max_bands=4)

    def test_any_order_and_any_names(self):
        self.FOUR.check_bands(("B08", "B02", "B04", "B03"), ("nir", "blue", "red", "green"))
        self.SOME.check_bands(("vv", "vh", "ndvi"), (None, None, None))
        ModelSpec("any", "for any").check_bands(("ndvi",), (None,))

    @pytest.mark.parametrize(
        ("spec", "bands", "common_names", "says"),
        [
            (
                FOUR,
                ("B02", "B03", "B04", "extra"),
                ("blue", "green", "red", None),
                "model 'four' needs band 'nir', cube has ('blue', 'green', 'red', 'extra'). Needed: bands ('blue', "
                "'green', 'red', 'nir'), each once and in any order. Try: cube.rename(extra='nir')",
            ),
            (
                FOUR,
                ("B02", "B03", "B04", "B08", "B11"),
                ("blue", "green", "red", "nir", "swir16"),
                "takes no band 'swir16' besides ('blue', 'green', 'red', 'nir')",
            ),
            (
                FOUR,
                ("nir", "B08", "B02", "B03", "B04"),
                ("nir", "nir", "blue", "green", "red"),
                "bands=['B02', 'B03', 'B04', 'nir']",
            ),
            (SOME, ("red", "nir"), ("red", "nir"), "takes 3 to 4 bands, cube has 2: ('red', 'nir')"),
            (SOME, tuple("abcde"), (None,) * 5, "Try: bands=['a', 'b', 'c', 'd']"),
        ],
    )
    def test_other_bands_are_refused(self, spec, bands, common_names, says):
        with pytest.raises(errors.BandError) as info:
            spec.check_bands(bands, common_names)
        assert says in str(info.value)
        assert "model='linear'" in info.value.remedy

    def test_in_words(self):
        assert [
            self.FOUR.bands_text,
            self.SOME.bands_text,
            ModelSpec("a", "a").bands_text,
            ModelSpec("a", "a", min_bands=2).bands_text,
            ModelSpec("a", "a", min_bands=6, max_bands=6).bands_text,
        ] == ["blue, green, red, nir", "3 to 4", "any", "at least 2", "6"]
