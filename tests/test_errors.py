"""Errors and their remedies: text for Python, options for the command line, and both survive pickling."""

from __future__ import annotations

import copy
import pickle
import shlex

import pytest

from xr_cloudfree import errors
from xr_cloudfree.cli.commands import flag
from xr_cloudfree.errors import Remedy, code, either, option, then

SCALE = option("scale=1e-4", "offset=-0.1")


@pytest.mark.parametrize(
    ("remedy", "text", "typed"),
    [
        ("pip install a, or b=1", "pip install a, or b=1", "pip install a, or b=1"),
        (SCALE, "scale=1e-4, offset=-0.1", "--scale 1e-4 --offset -0.1"),
        (SCALE + " for numbers", "scale=1e-4, offset=-0.1 for numbers", "--scale 1e-4 --offset -0.1 for numbers"),
        ("no " + option("bands=") + " for all", "no bands= for all", "no --bands for all"),
        (either(option("window=(60, 0)"), code("ds.x")), "window=(60, 0), or ds.x", "--window 60,0"),
        (either(code("a"), code("b"), by="; or "), "a; or b", "in Python: a; or b"),
        (option("clear=ds.good") + " if so", "clear=ds.good if so", "--clear good if so"),
        (either(option("clear=~ds.good"), option("mask=None"), by="; "), "clear=~ds.good; mask=None", "no --mask"),
        (then(option("nodata=0"), "go on"), "nodata=0; then go on", "--nodata 0; then go on"),
        (option('merge="day"'), 'merge="day"', '--merge "day"'),
        (option("out='it is.zarr'"), "out='it is.zarr'", "--out 'it is.zarr'"),
        (option("snow='not clear'"), "snow='not clear'", "--no-snow"),
        (option("check=False"), "check=False", "--no-check"),
        (option("store='a.zarr'"), "store='a.zarr'", "--out 'a.zarr'"),
    ],
)
def test_a_remedy_in_python_and_on_the_command_line(remedy, text, typed) -> None:
    error = errors.OptionError("found", "needed", remedy)
    assert str(error) == f"found. Needed: needed. Try: {text}"
    for again in (error, pickle.loads(pickle.dumps(error)), copy.deepcopy(error)):
        assert type(again) is errors.OptionError and str(again) == str(error)
        assert again.remedy == text and again.remedy.spell(flag) == typed


@pytest.mark.parametrize("value", ["$HOME;x.zarr", "it's", 'a "b" `c`', "back\\slash"])
def test_text_is_quoted_for_the_shell(value) -> None:
    assert shlex.split(option(f"out={value!r}").spell(flag)) == ["--out", value]


def test_an_ending_is_taken_off_with_its_options() -> None:
    ending = either("", option("check=False"), by="  # or ")
    remedy = SCALE + ending
    assert remedy == "scale=1e-4, offset=-0.1  # or check=False"
    assert remedy.spell(flag) == "--scale 1e-4 --offset -0.1, or --no-check"
    assert remedy.removesuffix(ending).parts == SCALE.parts
    assert SCALE.removesuffix(ending).parts == SCALE.parts and Remedy("x").removesuffix(ending) == "x"
