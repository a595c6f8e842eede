"""Errors and their remedies: text for Python, options for the command line, and both survive pickling."""

from __future__ import annotations

import ast
import copy
import inspect
import pickle
import re
import shlex
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import make_cube
from xr_cloudfree import errors, io
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
# Errors that no command raises: those of plots, of sharpening, and of models on a GPU in a forked process.
PYTHON_ONLY = {
    *(f"sharpening/{path.name}" for path in (PACKAGE / "sharpening").glob("*.py")),
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


def test_warnings_are_issued_in_one_way() -> None:
    """By `errors.warn`, which finds the user's line."""
    package = Path(xr_cloudfree.__file__).parent
    calls = [path for path in sorted(package.rglob("*.py")) if "warnings.warn(" in path.read_text()]
    assert calls == [package / "errors.py"]


def _no_mask(cube, folder):
    xr_cloudfree.fill(cube, "2021-06-03", model="linear")


def _far_outside(cube, folder):
    cube.assign(SCL=_scl(cube)).cloudfree.fill("2021-12-03", model="linear")


def _only_when_computed(cube, folder):
    lacking = cube.assign(SCL=_scl(cube), B02=cube["B02"].where(cube.time > cube.time[0]))
    image = lacking.chunk().cloudfree.fill("2021-06-03", model="linear")
    image.compute(scheduler="synchronous")


def _in_a_run(cube, folder):
    xr_cloudfree.to_zarr(cube, folder / "out.zarr", "2021-06-03", model="linear")


def _when_written(cube, folder):
    image = xr_cloudfree.fill(cube.assign(SCL=_scl(cube)).assign_attrs(how=object()), "2021-06-03", model="linear")
    io.write(image, folder / "out.zarr")


def _scl(cube):
    return xr.full_like(cube["B02"], 4, dtype="uint8").drop_attrs()


@pytest.mark.parametrize("call", [_no_mask, _far_outside, _only_when_computed, _in_a_run, _when_written])
def test_a_warning_points_to_the_line_of_the_user(call, tmp_path) -> None:
    da, _ = make_cube()
    cube = da.to_dataset("band").rename(blue="B02", red="B04", nir="B08")
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        call(cube, tmp_path)
    own = [warning for warning in told if issubclass(warning.category, errors.CloudfreeWarning)]
    lines, first = inspect.getsourcelines(call)
    assert own and {warning.filename for warning in own} == {__file__}
    assert all(first < warning.lineno < first + len(lines) for warning in own)
