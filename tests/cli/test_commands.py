"""Errors on the command line: three lines, an exit code, and a remedy that can be typed."""

from __future__ import annotations

import pytest

import xr_cloudfree
from tests.support.commands import run


@pytest.mark.parametrize(
    ("arguments", "found", "remedy"),
    [
        (["--date", "July"], "'July'", '--date "2021-07-17"'),
        (["--date", "2021-08"], "2021-08", '--date "2021-07-17", or --date "2021-08" --freq "10D"'),
        (["--date", "2021-05-15", "--freq", "10D"], "'2021-05-15'", '--date "2021-05-01/2021-07-17" --freq "10D"'),
        (["--date", "2021-05", "--freq", "often"], "'often'", '--freq "10D"'),
        (["--date", "2021-05", "--merge", "week"], "'week'", '--merge "day"'),
        (["--date", "2021-05-15", "--model", "liner"], "'liner'", "--model 'linear'"),
        (["--date", "2021-05-15", "--bands", "B2"], "'B2'", "--bands B02"),
        (["--date", "2021-05-15", "--window", "a,b"], "'a,b'", "--window 60,30"),
        (["--date", "2021-05-15", "--layers", "gates"], "'gates'", "--layers 'all'"),
        (["--date", "2021-05-15", "--mask", "QA"], "'QA'", "--mask"),
        (["--date", "2021-05-15", "--clear", "SCL"], "SCL", "--mask"),
    ],
)
def test_errors_are_three_lines(cube, tmp_path, arguments, found, remedy) -> None:
    output = run("fill", cube, "--out", "out.zarr", *arguments, code=2)
    lines = output.splitlines()
    assert [line[:8].strip() for line in lines] == ["found", "needed", "try"]
    assert found in lines[0] and remedy in lines[2]
    assert [path.name for path in tmp_path.iterdir()] == ["cube.zarr"]


def test_debug_shows_the_error_itself(cube) -> None:
    with pytest.raises(xr_cloudfree.errors.ModelNotFoundError):
        run("fill", cube, "--out", "out.zarr", "--model", "liner", "--debug")


def test_errors_of_the_shell_have_code_2(cube) -> None:
    assert "--out" in run("fill", cube, code=2)
    run("fill", cube, "--out", "a.zarr", "--dilate", "-1", code=2)
    assert "absent.nc" in run("info", "absent.nc", code=2)
