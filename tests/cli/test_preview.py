"""Pictures of `cloudfree fill --preview`."""

from __future__ import annotations

from tests.support.commands import run


def test_preview_is_drawn_for_each_date(cube, tmp_path) -> None:
    output = run("fill", cube, "-d", "2021-05-21", "-m", "linear", "-o", "a.zarr", "--preview", "a.png")
    assert (tmp_path / "a.png").read_bytes().startswith(b"\x89PNG") and "Drew a.png" in output
    dates = ("-d", "2021-05-21", "-d", "2021-05-25")
    run("fill", cube, *dates, "-m", "linear", "-o", "b.tif", "--preview", "b.png", "--bands", "B08")
    assert {"b_2021-05-21.png", "b_2021-05-25.png"} <= {path.name for path in tmp_path.iterdir()}


def test_a_preview_that_is_there_is_refused_before_the_work(cube, tmp_path) -> None:
    (tmp_path / "a.png").write_text("mine")
    output = run("fill", cube, "-d", "2021-05-15", "-o", "a.zarr", "--preview", "a.png", code=2)
    assert "a.png already exists" in output and not (tmp_path / "a.zarr").exists()
    assert ".png" in run("fill", cube, "-d", "2021-05-15", "-o", "a.zarr", "--preview", "a.docx", code=2)
