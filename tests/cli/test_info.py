"""`cloudfree info` and `cloudfree models` print what the library says."""

from __future__ import annotations

from pathlib import Path

import pytest

import xr_cloudfree
from tests.support.commands import run
from xr_cloudfree import io, summary
from xr_cloudfree.cli.commands import flag

PORTUGAL = str(Path(__file__).resolve().parents[2] / "data" / "s2_portugal.zarr")


def test_info_is_the_repr_in_the_words_of_the_command_line(cube) -> None:
    output = run("info", PORTUGAL)
    printed = repr(io.open_cube(PORTUGAL).cloudfree).splitlines()
    differing = [line for line in output.splitlines() if line not in printed]
    assert [line.split()[0] for line in differing] == ["not", "clear", "repair"]
    assert "--mask 'scl'" in differing[0] and "ask for --dates" in differing[1] and "--repair" in differing[2]
    assert "EPSG:4326" in output and "2021-05-14 to 2021-10-06" in output
    dated = run("info", PORTUGAL, "--dates")
    share = float(io.open_cube(PORTUGAL).cloudfree.clear_mask().sel(time="2021-07-23").mean())
    assert f"2021-07-23 {share:4.0%}" in dated
    assert "lazy" not in dated
    # The same as of the cube in memory, but for where its scale comes from.
    loaded = summary.describe(io.open_cube(PORTUGAL).load(), compute=True, spelling=flag).text().splitlines()
    assert set(loaded) - set(dated.splitlines()) <= {line for line in loaded if line.startswith("  values")}


def test_models_are_listed() -> None:
    output = run("models")
    for name in xr_cloudfree.list_models().index:
        assert f"\n{name} " in f"\n{output}"
    assert "nan" not in output


def test_info_takes_the_options_of_reading(cube) -> None:
    assert "SCL (scl)" in run("info", cube)
    assert "none: made from the series" in run("info", cube, "--mask", "series")
    lines = run("info", cube, "--mask", "SCL", "--bands", "B04", "--dates", "--dilate", "3").splitlines()
    assert lines[1].split()[:2] == ["bands", "B04"]
    shares = xr_cloudfree.clear_mask(io.open_cube(cube), mask="SCL", bands=["B04"], dilate=3).mean(("y", "x"))
    assert f"2021-06-03 {float(shares.sel(time='2021-06-03').squeeze()):4.0%}" in "\n".join(lines)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--mask", "QA"], "--mask series"),
        (["--bands", "B2"], "--bands B02"),
        (["--mask", "SCL", "--scheme", "slc"], "--scheme 'scl'"),
    ],
)
def test_what_info_tells_to_type_is_for_the_command_line(cube, options, words) -> None:
    output = run("info", cube, *options)
    assert words in output.replace('"', "") and "=" not in output.split("Try:")[1]
