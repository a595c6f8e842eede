"""Errors and their remedies: text for Python, options for the command line, and both survive pickling."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

import xr_cloudfree
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


PACKAGE = Path(xr_cloudfree.__file__).parent
OPTIONS = "|".join(
    [*inspect.signature(xr_cloudfree.fill).parameters, "shard", "overwrite", "stall", "tracks", "frames"]
)
# Errors that no command raises: those of plots, and of models on a GPU in a forked process.
PYTHON_ONLY = {
    "plot/drawing.py",
    "plot/figures.py",
    "plot/picture.py",
    "plot/reading.py",
    "models/pretrained/runtime.py",
}


def plain_text(node: ast.AST) -> Iterator[str]:
    """Text of an expression outside calls of `option` and `code`."""
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in ("option", "code"):
        return
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    for child in ast.iter_child_nodes(node):
        yield from plain_text(child)


def test_options_in_remedies_are_made_by_option() -> None:
    for path in sorted(PACKAGE.rglob("*.py")):
        if path.relative_to(PACKAGE).as_posix() in PYTHON_ONLY:
            continue
        for node in ast.walk(ast.parse(path.read_text())):
            name = node.func.id if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) else ""
            if isinstance(node, ast.Call) and name.endswith("Error") and len(node.args) == 3:
                for text in plain_text(node.args[2]):
                    assert not re.search(rf"(^|or |; )({OPTIONS})=", text), f"{path}:{node.lineno}: {text}"
