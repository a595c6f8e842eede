"""`cloudfree evaluate` prints the table and writes it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

import xr_cloudfree
from tests.support.commands import run
from xr_cloudfree.accuracy.evaluate import MEANINGS
from xr_cloudfree.cli.evaluate import _DIGITS

PORTUGAL = str(Path(__file__).resolve().parents[2] / "data" / "s2_portugal.zarr")


def test_evaluate_prints_the_table_and_writes_it(tmp_path) -> None:
    csv = tmp_path / "score.csv"
    arguments = "--models nearest,linear --tracks full,partial --frames 1 --size 48 --csv".split()
    output = run("evaluate", PORTUGAL, *arguments, csv)
    table = pd.read_csv(csv).set_index(["track", "model"])
    assert list(table.index) == [(t, m) for t in ("full", "partial") for m in ("nearest", "linear")]
    assert f"{table.loc[('full', 'linear'), 'MAE']:.4f}" in output
    assert "nan" not in output.lower()
    # The table has the names of Python, each explained below.
    shown = output.splitlines()[0].split()
    assert shown == list(table.dropna(axis=1, how="all").columns)
    assert [line.split()[0] for line in output.split("\n\n")[1].splitlines()[: len(shown)]] == shown
    assert all(f"{name} " in output and MEANINGS[name] in output for name in shown)
    assert "already exists" in run("evaluate", PORTUGAL, *arguments, csv, code=2)
    assert "--tracks" in run("evaluate", PORTUGAL, "--tracks", "none", code=2)


def test_every_column_is_explained_and_has_its_digits() -> None:
    assert set(_DIGITS) == set(MEANINGS) and all(MEANINGS.values())
    documented = xr_cloudfree.evaluate.__doc__.split("Returns")[1]
    assert all(name in documented for name in MEANINGS)


def test_evaluate_scores_masks(tmp_path) -> None:
    csv = tmp_path / "score.csv"
    arguments = ["--models", "linear", "--tracks", "clouds,wrong mask", "--frames", "1", "--size", "64", "--csv"]
    output = run("evaluate", PORTUGAL, *arguments, csv)
    table = pd.read_csv(csv).set_index(["track", "model"])
    assert list(table.index) == [("clouds", "linear"), ("wrong mask", "linear")]
    assert "PSNR_rim" in output and f"{table.loc[('clouds', 'linear'), 'recall']:.2f}" in output
    plain = tmp_path / "plain.csv"
    run("evaluate", PORTUGAL, *arguments, plain, "--no-repair")
    assert (pd.read_csv(plain).set_index(["track", "model"])["newly_masked"] == 0).all()
    assert "PSNR_rim" not in run("evaluate", PORTUGAL, *arguments[:2], "--tracks", "full", *arguments[4:8])


def test_evaluate_divides_the_pixels() -> None:
    arguments = ["--models", "regress", "--tracks", "partial", "--frames", "1", "--size", "64", "--by"]
    output = run("evaluate", PORTUGAL, *arguments, "distance")
    assert "up to 4 px" in output and "coverage90" in output and "seconds" not in output
    assert "--by" in run("evaluate", PORTUGAL, *arguments, "bands", code=2)
