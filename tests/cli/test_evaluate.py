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
