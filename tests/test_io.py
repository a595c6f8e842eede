"""Cubes from files; images into Zarr and GeoTIFF, bit for bit and with their CRS."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import rasterio
import xarray as xr

import xr_cloudfree
from tests.support.cubes import as_dataset, make_cube
from xr_cloudfree import io
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.errors import OptionError, OutputError
from xr_cloudfree.models.protocol import Prediction
from xr_cloudfree.models.spec import ModelSpec
from xr_cloudfree.storage import geotiff

DATA = Path(__file__).resolve().parents[1] / "data"
LAYERS = ["filled", "n_clear", "days_to_clear", "source_time", "suspect"]


@pytest.fixture
def lazy() -> xr.Dataset:
    """Digital numbers as odc-stac loads them, in chunks that do not divide the grid."""
    return as_dataset(*make_cube(dtype="uint16")).chunk({"y": 20, "x": 31})


class Counted:
    """Answers 0.2, and counts how often it is asked."""

    asked: ClassVar[list[tuple[int, int]]] = []
    spec = ModelSpec("counted", "0.2", units="reflectance")

    def predict(self, tiles):
        self.asked.extend(obs.shape for obs in tiles)
        image = [np.full((obs.n_bands, *obs.shape), 0.2, np.float32) for obs in tiles]
        return [Prediction(i, np.ones(i.shape[1:], bool)) for i in image]


class Failing:
    """Fails when it is asked."""

    spec = ModelSpec("failing", "fails", units="reflectance")

    def predict(self, tiles):
        raise ZeroDivisionError("as planned")


def fill(cube, date="2021-05-15", **options):
    return xr_cloudfree.fill(cube, date, **{"model": "linear", "layers": "filled", **options})


# -- reading


@pytest.mark.parametrize("stored", [None, (1, 20, 20)])
def test_netcdf_opens_lazily_with_its_crs(tmp_path, stored) -> None:
    cube = as_dataset(*make_cube())
    names = ("B02", "B04", "B08", "SCL")
    for name in names:
        cube[name].encoding["chunksizes"] = stored
    cube.to_netcdf(tmp_path / "cube.nc")
    opened = io.open_cube(tmp_path / "cube.nc")
    assert all(opened[name].chunks is not None for name in names)
    assert opened["B04"].data.chunksize == (stored or (7, 53, 61))
    assert opened.rio.crs == cube.rio.crs
    xr.testing.assert_equal(opened["B04"].load(), cube["B04"])


def test_zarr_opens_in_its_own_chunks() -> None:
    opened = io.open_cube(DATA / "s2_portugal.zarr")
    assert opened["reflectance"].data.chunksize == (30, 4, 64, 64)
    assert opened.rio.crs.to_epsg() == 4326


def test_what_is_no_cube_is_refused(tmp_path) -> None:
    (tmp_path / "readme.txt").write_text("hello")
    (tmp_path / "folder.zarr").mkdir()
    for name in ("readme.txt", "folder.zarr", "absent.zarr"):
        with pytest.raises(OptionError, match=name) as caught:
            io.open_cube(tmp_path / name)
        assert ".nc" in caught.value.needed


# -- Zarr


@pytest.mark.parametrize("date", ["2021-05-15", ["2021-05-21", "2021-05-15T10:30", "2021-07-17"], None])
def test_zarr_holds_what_fill_gave_bit_for_bit(tmp_path, lazy, date) -> None:
    image = fill(lazy, date, layers="all", block=64)
    assert io.write(image, tmp_path / "out.zarr") == [tmp_path / "out.zarr"]
    # As stored: opened plainly, xarray would scale the digital numbers, as their attributes ask for.
    back = xr.open_zarr(tmp_path / "out.zarr", decode_coords="all", mask_and_scale=False)
    assert back.rio.crs.to_epsg() == 32629
    assert back["B04"].dtype == np.uint16
    assert back["B04"].data.chunksize == image["B04"].data.chunksize
    xr.testing.assert_identical(back.compute()[list(image.data_vars)].drop_attrs(), image.compute().drop_attrs())
    assert back.attrs["cloudfree_model"] == "linear"
    assert (tmp_path / "out.zarr" / "zarr.json").is_file()  # format 3


def test_zarr_keeps_the_packing_of_the_cube(tmp_path) -> None:
    image = fill(io.open_cube(DATA / "s2_portugal.zarr"), "2021-07-23").compute()
    io.write(image, tmp_path / "out.zarr")
    raw = xr.open_zarr(tmp_path / "out.zarr", mask_and_scale=False)["reflectance"]
    assert raw.dtype == np.int16
    back = xr.open_zarr(tmp_path / "out.zarr", decode_coords="all")
    observed = image["filled"] == 1
    assert 0 < int(observed.sum()) < observed.size
    # What was observed is a whole number of steps; what was estimated is rounded to one.
    assert bool((back["reflectance"] == image["reflectance"]).where(observed, True).all())
    np.testing.assert_allclose(back["reflectance"], image["reflectance"], rtol=0, atol=0.5001e-4)


def test_arrays_in_memory_are_written_too(tmp_path) -> None:
    da, clear = make_cube()
    image = fill(da, clear=clear)
    io.write(image, tmp_path / "out.zarr")
    io.write(image, tmp_path / "out.tif")
    back = xr.open_zarr(tmp_path / "out.zarr", decode_coords="all").compute()
    np.testing.assert_array_equal(back["reflectance"], image["reflectance"])
    with rasterio.open(tmp_path / "out.tif") as file:
        np.testing.assert_array_equal(file.read(), image["reflectance"])
        assert np.isnan(file.nodata)


# -- GeoTIFF


def test_geotiff_holds_what_fill_gave_bit_for_bit(tmp_path, lazy) -> None:
    dates = ["2021-05-21", "2021-06-30"]
    image = fill(lazy, dates, layers=LAYERS, block=64)
    files = io.write(image, tmp_path / "out.tif", scaling=Scaling(1e-4, 0.0, 0.0))
    assert [file.name for file in files[:3]] == [
        "out_2021-05-21.tif",
        "out_2021-06-30.tif",
        "out_2021-05-21.filled.tif",
    ]
    assert len(files) == 2 * (1 + len(LAYERS)) and all(file.is_file() for file in files)
    now = image.compute()
    for i, date in enumerate(dates):
        with rasterio.open(files[i]) as file:
            assert file.crs.to_epsg() == 32629
            # Pixel centres are the cube's coordinates: edges lie half a pixel, 5 m, outside.
            assert file.transform[:6] == (10, 0, 499_995, 0, -10, 4_400_005)
            assert file.descriptions == ("B02", "B04", "B08")
            assert file.nodata == 0 and file.scales == (1e-4,) * 3 and file.dtypes == ("uint16",) * 3
            assert file.profile["compress"] == "deflate" and file.profile["tiled"]
            assert file.tags()["cloudfree_model"] == "linear" and file.tags()["time"].startswith(date)
            for band, name in enumerate(file.descriptions):
                np.testing.assert_array_equal(file.read(band + 1), now[name][i])
        for layer in ("filled", "n_clear", "days_to_clear", "suspect"):
            with rasterio.open(geotiff.layer_path(files[i], layer)) as file:
                np.testing.assert_array_equal(file.read(1), now[layer][i])
                assert file.scales == (1.0,)
        with rasterio.open(geotiff.layer_path(files[i], "source_time")) as file:
            days = file.read(1)
            told = now["source_time"][i].to_numpy()
            np.testing.assert_array_equal(days == file.nodata, np.isnat(told))
            seen = ~np.isnat(told)
            np.testing.assert_array_equal(days[seen], told[seen].astype("M8[D]").astype(int))


def test_geotiff_restores_physical_values(tmp_path) -> None:
    import rioxarray

    cube = io.open_cube(DATA / "s2_portugal.zarr")
    image = fill(cube, "2021-07-23")
    io.write(image, tmp_path / "out.tif")
    back = rioxarray.open_rasterio(tmp_path / "out.tif", mask_and_scale=True)
    np.testing.assert_allclose(back, image["reflectance"].compute(), rtol=0, atol=0.51e-4)
    back.close()
    with rasterio.open(tmp_path / "out.tif") as file:
        assert file.dtypes[0] == "int16" and file.scales[0] == 1e-4 and file.nodata == -32768


@pytest.mark.parametrize("names", [("y", "x"), ("latitude", "longitude")])
def test_geotiff_has_north_up(tmp_path, names) -> None:
    da, clear = make_cube()
    cube = xr.Dataset({"reflectance": da, "clear": clear}).isel(y=slice(None, None, -1), x=slice(None, None, -1))
    cube = cube.rename(dict(zip(("y", "x"), names, strict=True))).chunk()
    image = fill(cube, clear="clear")
    [file, _] = io.write(image, tmp_path / "out.tif")
    upright = image["reflectance"].sortby(names[0], ascending=False).sortby(names[1]).compute()
    with rasterio.open(file) as opened:
        assert opened.transform[:6] == (10, 0, 499_995, 0, -10, 4_400_005)
        np.testing.assert_array_equal(opened.read(), upright)
    # Opened again, it lies as it lay before.
    back = io.open_image(file, like=image)
    np.testing.assert_array_equal(back["reflectance"], image["reflectance"].compute())
    np.testing.assert_array_equal(back["filled"], image["filled"].compute())
    back.close()


@pytest.mark.parametrize("how", ["no crs", "no coordinates"])
def test_geotiff_needs_a_place_on_earth(tmp_path, lazy, how) -> None:
    lazy = lazy.drop_vars("spatial_ref" if how == "no crs" else ["y", "x"])
    with pytest.raises(OutputError, match="CRS") as caught:
        io.write(fill(lazy), tmp_path / "out.tif")
    assert ".zarr" in caught.value.remedy and "write_crs" in caught.value.remedy
    assert list(tmp_path.iterdir()) == []


# -- both


@pytest.mark.parametrize("ending", ["zarr", "tif"])
def test_each_block_is_computed_once(tmp_path, lazy, ending) -> None:
    Counted.asked.clear()
    image = fill(lazy, ["2021-05-15", "2021-05-21"], model=Counted(), layers=["filled", "n_clear"], block=32)
    io.write(image, tmp_path / f"out.{ending}")
    # Four blocks of a grid of 53 x 61 pixels, two dates.
    assert sorted(Counted.asked) == sorted([(32, 32), (32, 29), (21, 32), (21, 29)] * 2)


@pytest.mark.parametrize("ending", ["zarr", "tif"])
def test_what_is_there_is_kept_unless_told(tmp_path, lazy, ending) -> None:
    out = tmp_path / f"out.{ending}"
    io.write(fill(lazy), out)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(OutputError, match="already exists"):
        io.write(fill(lazy, model="median"), out)
    # Nor does an error on the way harm it, or leave anything behind.
    with pytest.raises(ZeroDivisionError):
        io.write(fill(lazy, model=Failing()), out, overwrite=True)
    assert {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()} == before
    image = fill(lazy, model="median")
    io.write(image, out, overwrite=True)
    back = io.open_image(out, like=image)
    assert back.attrs["cloudfree_model"] == "median"
    np.testing.assert_array_equal(back["filled"], image["filled"].compute())
    back.close()


def test_a_folder_that_is_no_store_is_never_replaced(tmp_path, lazy) -> None:
    (tmp_path / "mine.zarr").mkdir()
    (tmp_path / "mine.zarr" / "thesis.txt").write_text("three years")
    with pytest.raises(OutputError, match="not a Zarr store"):
        io.write(fill(lazy), tmp_path / "mine.zarr", overwrite=True)
    assert (tmp_path / "mine.zarr" / "thesis.txt").exists()


def test_other_endings_are_refused(tmp_path, lazy) -> None:
    with pytest.raises(OutputError, match=r"out\.png") as caught:
        io.write(fill(lazy), tmp_path / "out.png")
    assert "out.zarr" in caught.value.remedy


def test_two_times_of_a_day_get_two_files() -> None:
    times = np.array(["2021-07-08T10:00", "2021-07-08T11:30"], "M8[ns]")
    assert [path.name for path in io.dated_paths("a/b.png", times)] == [
        "b_2021-07-08T100000.png",
        "b_2021-07-08T113000.png",
    ]
