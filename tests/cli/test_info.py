"""`cloudfree info` and `cloudfree models` print what the library says."""

from __future__ import annotations

from pathlib import Path

import xr_cloudfree
from tests.support.commands import run
from xr_cloudfree import io, summary

PORTUGAL = str(Path(__file__).resolve().parents[2] / "data" / "s2_portugal.zarr")


def test_info_is_the_repr(cube) -> None:
    output = run("info", PORTUGAL)
    assert output.rstrip("\n") == repr(io.open_cube(PORTUGAL).cloudfree)
    assert "EPSG:4326" in output and "2021-05-14 to 2021-10-06" in output
    dated = run("info", PORTUGAL, "--dates")
    share = float(io.open_cube(PORTUGAL).cloudfree.clear_mask().sel(time="2021-07-23").mean())
    assert f"2021-07-23 {share:4.0%}" in dated
    assert "lazy" not in dated
    # The same as of the cube in memory, but for where its scale comes from.
    loaded = summary.describe(io.open_cube(PORTUGAL).load(), compute=True).text().splitlines()
    assert set(loaded) - set(dated.splitlines()) <= {line for line in loaded if line.startswith("  values")}


def test_models_are_listed() -> None:
    output = run("models")
    for name in xr_cloudfree.list_models().index:
        assert f"\n{name} " in f"\n{output}"
    assert "nan" not in output
