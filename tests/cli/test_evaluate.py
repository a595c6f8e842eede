"""`cloudfree evaluate` prints the table and writes it."""

from __future__ import annotations

from pathlib import Path

import pandas as pd

from tests.support.commands import run

PORTUGAL = str(Path(__file__).resolve().parents[2] / "data" / "s2_portugal.zarr")


def test_evaluate_prints_the_table_and_writes_it(tmp_path) -> None:
    csv = tmp_path / "score.csv"
    arguments = "--models nearest,linear --tracks full,partial --frames 1 --size 48 --csv".split()
    output = run("evaluate", PORTUGAL, *arguments, csv)
    table = pd.read_csv(csv).set_index(["track", "model"])
    assert list(table.index) == [(t, m) for t in ("full", "partial") for m in ("nearest", "linear")]
    assert f"{table.loc[('full', 'linear'), 'MAE']:.4f}" in output
    assert "PSNR [dB]" in output and "nan" not in output.lower()
    assert "already exists" in run("evaluate", PORTUGAL, *arguments, csv, code=2)
    assert "--tracks" in run("evaluate", PORTUGAL, "--tracks", "none", code=2)


def test_evaluate_scores_masks(tmp_path) -> None:
    csv = tmp_path / "score.csv"
    arguments = ["--models", "linear", "--tracks", "clouds,wrong mask", "--frames", "1", "--size", "64", "--csv"]
    output = run("evaluate", PORTUGAL, *arguments, csv)
    table = pd.read_csv(csv).set_index(["track", "model"])
    assert list(table.index) == [("clouds", "linear"), ("wrong mask", "linear")]
    assert "on its rim" in output and f"{table.loc[('clouds', 'linear'), 'recall']:.2f}" in output
    plain = tmp_path / "plain.csv"
    run("evaluate", PORTUGAL, *arguments, plain, "--no-repair")
    assert (pd.read_csv(plain).set_index(["track", "model"])["newly_masked"] == 0).all()
    assert "on its rim" not in run("evaluate", PORTUGAL, *arguments[:2], "--tracks", "full", *arguments[4:8])


def test_evaluate_divides_the_pixels() -> None:
    arguments = ["--models", "regress", "--tracks", "partial", "--frames", "1", "--size", "64", "--by"]
    output = run("evaluate", PORTUGAL, *arguments, "distance")
    assert "up to 4 px" in output and "in 90 % interval" in output and "seconds per date" not in output
    assert "--by" in run("evaluate", PORTUGAL, *arguments, "bands", code=2)
