"""`cloudfree fill` writes what the library gives."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr

import xr_cloudfree
from tests.support.commands import run
from tests.support.cubes import as_dataset, make_cube
from xr_cloudfree import io

PORTUGAL = str(Path(__file__).resolve().parents[2] / "data" / "s2_portugal.zarr")


def expected(cube: str, date=None, **options) -> xr.Dataset:
    return xr_cloudfree.fill(io.open_cube(cube), date, layers="filled", **options).compute()


def files(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def test_fill_to_zarr_is_what_the_library_gives(cube) -> None:
    output = run("fill", cube, "--date", "2021-05-15", "--model", "linear", "--out", "out.zarr")
    back = xr.open_zarr("out.zarr", decode_coords="all")
    assert back.rio.crs.to_epsg() == 32629
    image = expected(cube, "2021-05-15", model="linear")
    assert set(back.data_vars) == {"B02", "B04", "B08", "filled"}
    assert back["B04"].dtype == np.float32
    xr.testing.assert_equal(back.compute(), image)
    n, lacking = 53 * 61, int((image["filled"] == 0).sum())
    assert lacking >= 9
    assert f"2021-05-15: 0 pixels observed, {n - lacking:,} (" in output
    assert f"filled by linear, {lacking} (" in output and "not filled" in output
    assert "nodata" in output and "Wrote out.zarr in" in output


@pytest.mark.parametrize(
    ("arguments", "how"),
    [
        (["--date", "2021-06"], {"date": "2021-06"}),
        (["--date", "2021-05/2021-06"], {"date": slice("2021-05", "2021-06")}),
        (["--date", "2021-05,2021-07-01"], {"date": ["2021-05", "2021-07-01"]}),
        (["--date", "2021-06/..", "--freq", "20D"], {"date": slice("2021-06", None), "freq": "20D"}),
        (["--freq", "MS"], {"freq": "MS"}),
    ],
)
@pytest.mark.parametrize("command", ["fill", "batch"])
def test_months_spans_and_series(cube, arguments, how, command) -> None:
    run(command, cube, *arguments, "--model", "linear", "--out", "out.zarr", "--quiet")
    image = xr.open_zarr("out.zarr", decode_coords="all").compute()
    xr.testing.assert_equal(image, expected(cube, **how, model="linear"))
    assert "time" in image.sizes
    if command == "batch":
        run("resume", "out.zarr", "--quiet")


@pytest.mark.parametrize("command", ["fill", "batch"])
def test_scenes_of_a_day_become_one(cube, command) -> None:
    whole = io.open_cube(cube).compute()
    sides = [whole.where(whole.x < whole.x[30]), whole.where(whole.x >= whole.x[30])]
    ds = xr.concat([side.assign(SCL=side.SCL.fillna(0).astype("uint8")) for side in sides], "time").sortby("time")
    ds.chunk({"time": 3}).to_zarr("scenes.zarr", zarr_format=3, consolidated=False)
    arguments = (command, "scenes.zarr", "--date", "2021-06-03", "--model", "linear", "--out", "out.zarr")
    output = run(*arguments, code=2)
    assert "2 times" in output and '--merge "day"' in output and "drop_duplicates" not in output
    run(*arguments, "--merge", "day", *(["--preview", "day.png"] if command == "fill" else []))
    xr.testing.assert_equal(
        xr.open_zarr("out.zarr", decode_coords="all").compute(), expected(cube, "2021-06-03", model="linear")
    )
    if command == "fill":
        assert Path("day.png").stat().st_size > 1000
        assert "14" not in run("info", "scenes.zarr", "--merge", "day").split("dates")[1].split(",")[0]


def test_fill_takes_all_options_of_the_library(cube) -> None:
    arguments = "--model median --window 15,30 --mask SCL --scheme scl --strict --no-snow --dilate 1 --block 64"
    run(
        "fill",
        cube,
        "-d",
        "2021-05-21",
        "-d",
        "2021-06-03",
        "-o",
        "out.zarr",
        "--layers",
        "all",
        *arguments.split(),
    )
    image = xr_cloudfree.fill(
        io.open_cube(cube),
        ["2021-05-21", "2021-06-03"],
        model="median",
        window=(15, 30),
        mask="SCL",
        scheme="scl",
        strict=True,
        snow="not clear",
        dilate=1,
        block=64,
        layers="all",
    ).compute()
    back = xr.open_zarr("out.zarr", decode_coords="all")
    assert {"filled", "n_clear", "days_to_clear", "source_time"} <= set(image.data_vars)
    xr.testing.assert_equal(back.compute()[list(image.data_vars)], image)
    assert back.attrs["cloudfree_window_days"] == [15.0, 30.0]


@pytest.mark.parametrize(
    ("typed", "repair"),
    [(["--repair", "auto"], "auto"), (["--repair=auto"], "auto"), (["--repair"], True), (["--no-repair"], False)],
)
def test_masks_are_corrected_as_in_python(cube, typed, repair) -> None:
    arguments = ["--date", "2021-06-03", "--model", "linear", "--layers", "mask_change", "--out", "out.zarr"]
    run("fill", cube, *typed, *arguments)
    image = xr_cloudfree.fill(
        io.open_cube(cube), "2021-06-03", model="linear", layers=["filled", "mask_change"], repair=repair
    )
    xr.testing.assert_equal(xr.open_zarr("out.zarr", decode_coords="all").compute(), image.compute())


def test_auto_takes_masks_as_they_are_where_they_cannot_be_corrected(cube) -> None:
    io.open_cube(cube).isel(time=[1, 3]).to_zarr("two.zarr", zarr_format=3, consolidated=False)
    arguments = ["two.zarr", "--model", "linear", "--out", "out.zarr"]
    assert "2 dates" in run("batch", *arguments, "--repair", code=2)
    run("batch", *arguments, "--repair", "auto", "--quiet")


def test_dates_come_with_commas_or_one_by_one(cube) -> None:
    dates = ["2021-05-15", "2021-06-03"]
    for number, typed in enumerate(
        (["-d", dates[0], "-d", dates[1]], ["--date", ",".join(dates)], ["--dates", ", ".join(dates)])
    ):
        run("fill", cube, *typed, "--model", "linear", "--out", f"{number}.zarr")
        xr.testing.assert_equal(io.open_cube(f"{number}.zarr").compute(), expected(cube, dates, model="linear"))


@pytest.mark.parametrize("date", ["", ",", " "])
def test_an_empty_date_is_not_all_dates(cube, date) -> None:
    for command in ("fill", "batch"):
        assert "the date is" in run(command, cube, "--date", date, "--out", "out.zarr", code=2)
    assert not Path("out.zarr").exists()


def test_values_that_are_no_reflectance_are_refused_unless_told(cube) -> None:
    calls = (
        ["fill", cube, "--date", "2021-05-15", "--model", "linear", "--out", "fill.zarr", "--preview", "fill.png"],
        ["batch", cube, "--date", "2021-05-15", "--model", "linear", "--out", "batch.zarr"],
        ["evaluate", PORTUGAL, "--models", "linear", "--frames", "1", "--tracks", "full"],
    )
    for call in calls:
        output = run(*call, "--scale", "100", code=2)
        assert "looks like digital numbers" in output and "--no-check" in output and "check=" not in output
        run(*call, "--scale", "100", "--no-check", "--no-repair", *(["--overwrite"] if call[0] == "batch" else []))
    xr.testing.assert_equal(io.open_cube("fill.zarr").compute(), io.open_cube("batch.zarr").compute())


def test_fill_of_bands_in_the_order_told(cube) -> None:
    run("fill", cube, "-d", "2021-05-21", "-o", "out.tif", "-m", "nearest", "--bands", "B08, B02")
    image = expected(cube, "2021-05-21", model="nearest", bands=["B08", "B02"])
    with rasterio.open("out.tif") as file:
        assert file.descriptions == ("B08", "B02")
        np.testing.assert_array_equal(file.read(1), image["B08"])


def test_fill_of_all_dates_to_geotiff(cube, tmp_path) -> None:
    output = run("fill", cube, "--model", "linear", "--out", "sub/out.tif")
    image = expected(cube, None, model="linear")
    assert len(files(tmp_path / "sub")) == 2 * 7
    for i, day in enumerate(image["time"].dt.strftime("%Y-%m-%d").to_numpy()):
        with rasterio.open(f"sub/out_{day}.tif") as file:
            assert file.crs.to_epsg() == 32629
            np.testing.assert_array_equal(file.read(file.descriptions.index("B04") + 1), image["B04"][i])
        observed = int((image["filled"][i] == 1).sum())
        assert f"{day}: {observed:,} (" in output
    assert "All 7 dates: " in output
    assert "sub/out_2021-05-01.tif" in output and "2 more files" in output


def test_digital_numbers_need_their_scale_and_keep_it(tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ds = as_dataset(*make_cube(dtype="uint16")).drop_vars("platform")
    for band in ("B02", "B04", "B08"):
        ds[band].attrs = {}
    ds.to_netcdf("raw.nc")
    output = run("fill", "raw.nc", "-d", "2021-05-15", "-o", "out.tif", code=2)
    assert "--scale 1e-4" in output
    assert files(tmp_path) == {"raw.nc"}
    arguments = "--scale 1e-4 --offset -0.01 --nodata 0 --model linear".split()
    run("fill", "raw.nc", "-d", "2021-05-15", "-o", "out.tif", *arguments)
    image = expected("raw.nc", "2021-05-15", model="linear", scale=1e-4, offset=-0.01, nodata=0)
    with rasterio.open("out.tif") as file:
        assert file.dtypes[0] == "uint16" and file.nodata == 0
        assert file.scales[0] == 1e-4 and file.offsets[0] == -0.01
        np.testing.assert_array_equal(file.read(file.descriptions.index("B02") + 1), image["B02"])


def test_the_sample_cube_fills_with_the_default_model(tmp_path) -> None:
    output = run("fill", PORTUGAL, "-d", "2021-07-23", "-o", tmp_path / "out.tif", "--preview", tmp_path / "o.png")
    image = expected(PORTUGAL, "2021-07-23")
    observed = int((image["filled"] == 1).sum())
    assert f"2021-07-23: {observed:,} ({observed / 128**2:.1%}".replace("%", " %") in output
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.crs.to_epsg() == 4326 and file.descriptions == ("B02", "B03", "B04", "B8A")
        # int16 in steps of 1e-4, as the cube packs it.
        np.testing.assert_allclose(file.read() * file.scales[0], image["reflectance"], rtol=0, atol=0.51e-4)


def test_quiet_says_nothing(cube) -> None:
    assert run("fill", cube, "-d", "2021-05-15", "-o", "out.zarr", "-m", "nearest", "--quiet") == ""


@pytest.mark.parametrize("out", ["out.zarr", "out.tif"])
def test_what_is_there_is_not_replaced_unless_told(cube, tmp_path, out) -> None:
    arguments = ("fill", cube, "-d", "2021-05-15", "-m", "nearest", "-o", out)
    run(*arguments)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    output = run(*arguments, code=2)
    assert output.splitlines()[0] == f" found  {out} already exists"
    assert output.splitlines()[2].endswith("--overwrite")
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    run(*arguments, "--overwrite")


def test_the_cube_is_never_its_own_output(cube) -> None:
    assert "would replace" in run("fill", cube, "-o", cube, "--overwrite", code=2)
    assert "would replace" in run("batch", cube, "-o", cube, "--overwrite", code=2)
    assert io.open_cube(cube)["B04"].sizes["time"] == 7
