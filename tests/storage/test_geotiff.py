"""GeoTIFFs hold the numbers, the names and the position of an image."""

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import as_dataset, make_cube
from xr_cloudfree import errors, io
from xr_cloudfree.storage import geotiff

rasterio = pytest.importorskip("rasterio")
DATE = "2021-06-03"


def make_image(**options):
    da, clear = make_cube(dtype="uint16")
    cube = as_dataset(da, clear).drop_vars("platform")
    return xr_cloudfree.fill(cube, DATE, model="linear", nodata=0, **options)


def test_names_of_layers(tmp_path):
    assert geotiff.layer_path(tmp_path / "a.b.tif", "filled") == tmp_path / "a.b.filled.tif"


def test_bands_and_layers_are_files_of_their_own(tmp_path):
    image = make_image(layers=["filled", "source_time"])
    files = io.write(image, tmp_path / "out.tif")
    assert [file.name for file in files] == ["out.tif", "out.filled.tif", "out.source_time.tif"]
    bands = [name for name in image.data_vars if name not in ("filled", "source_time")]
    with rasterio.open(files[0]) as file:
        assert list(file.descriptions) == bands and file.nodata == 0 and file.crs.to_epsg() == 32629
        assert file.tags()["time"].startswith(DATE)
        north_up = image.isel(y=slice(None, None, -1)) if image.y[-1] > image.y[0] else image
        np.testing.assert_array_equal(file.read(), np.stack([north_up[name] for name in bands]))
        assert file.transform.e < 0 < file.transform.a
    with rasterio.open(files[2]) as file:
        days = file.read(1, masked=True)
        assert file.tags()["units"] == "days since 1970-01-01"
        expected = north_up.source_time.values.astype("datetime64[D]")
        np.testing.assert_array_equal(days.filled(0), np.where(np.isnat(expected), 0, expected.astype("int64")))


def test_an_image_that_lies_upside_down_is_turned(tmp_path):
    image = make_image().load()
    turned = image.isel(y=slice(None, None, -1))
    a, b = io.write(image, tmp_path / "a.tif")[0], io.write(turned, tmp_path / "b.tif")[0]
    assert geotiff.same_raster(a, b)
    assert geotiff.runs_against_the_map(image.y, "y") != geotiff.runs_against_the_map(turned.y, "y")


def test_several_dates(tmp_path):
    da, clear = make_cube(dtype="uint16")
    image = xr_cloudfree.fill(
        as_dataset(da, clear).drop_vars("platform"), [DATE, "2021-06-15"], model="linear", nodata=0
    )
    files = io.write(image, tmp_path / "out.tif")
    assert [file.name for file in files] == ["out_2021-06-03.tif", "out_2021-06-15.tif"]
    assert not geotiff.same_raster(*files)


def test_rasters_that_differ(tmp_path):
    file = io.write(make_image(), tmp_path / "a.tif")[0]
    (tmp_path / "b.tif").write_bytes(file.read_bytes())
    assert geotiff.same_raster(file, tmp_path / "b.tif")
    with rasterio.open(tmp_path / "b.tif", "r+") as other:
        values = other.read(1)
        values[0, 0] ^= 1
        other.write(values, 1)
    assert not geotiff.same_raster(file, tmp_path / "b.tif")
    (tmp_path / "b.tif").write_bytes(file.read_bytes()[:500])
    assert not geotiff.same_raster(file, tmp_path / "b.tif")


def test_what_cannot_be_a_geotiff(tmp_path):
    image = make_image(layers="filled")
    with pytest.raises(errors.OutputError, match="no band"):
        io.write(image[["filled"]], tmp_path / "out.tif")
    nowhere = image.drop_vars("spatial_ref")
    for array in nowhere.variables.values():
        array.attrs.pop("grid_mapping", None)
        array.encoding.pop("grid_mapping", None)
    with pytest.raises(errors.OutputError, match="no CRS"):
        io.write(nowhere, tmp_path / "out.tif")
    assert not list(tmp_path.iterdir())


def test_scaled_floats_are_told_in_the_file(tmp_path):
    from xr_cloudfree.cube.scaling import Scaling

    image = make_image()
    file = io.write(image, tmp_path / "out.tif", scaling=Scaling(scale=1e-4, offset=-0.1))[0]
    with rasterio.open(file) as opened:
        assert set(opened.scales) == {1e-4} and set(opened.offsets) == {-0.1}
    assert isinstance(image, xr.Dataset)
