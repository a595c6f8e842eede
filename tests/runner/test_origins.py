"""Origins: the path and the settings with which another process opens the same Dataset."""

import shutil

import pytest
import xarray as xr

from tests.support.cubes import as_dataset, make_cube
from xr_cloudfree import io
from xr_cloudfree.runner.origins import Origin, origin


@pytest.fixture
def path(tmp_path):
    """A store of packed numbers with a CRS."""
    cube = as_dataset(*make_cube()).drop_vars("platform")
    packed = {"dtype": "int16", "scale_factor": 1e-4, "_FillValue": -1, "grid_mapping": "spatial_ref"}
    names = [name for name in cube.data_vars if cube[name].dtype.kind == "f"]
    io.for_zarr(cube).to_zarr(
        tmp_path / "cube.zarr", zarr_format=3, consolidated=False, encoding={name: packed for name in names}
    )
    return tmp_path / "cube.zarr"


@pytest.mark.parametrize("scaled", [True, False])
@pytest.mark.parametrize("coords", ["all", True])
def test_a_store_is_opened_again_as_it_was(path, scaled, coords):
    opened = xr.open_zarr(path, mask_and_scale=scaled, decode_coords=coords, consolidated=False)
    found = origin(opened)
    assert found is not None and found.path == str(path)
    again = found.open()
    assert {name: array.dtype for name, array in again.variables.items()} == {
        name: array.dtype for name, array in opened.variables.items()
    }
    assert set(again.coords) == set(opened.coords)
    xr.testing.assert_equal(again.compute(), opened.compute())


def test_a_cube_opened_by_its_path_needs_no_settings(path):
    assert origin(io.open_cube(path)) == Origin(str(path))
    assert origin(io.open_cube(path).isel(y=slice(8))) == Origin(str(path))  # the fingerprint tells the difference


def test_what_comes_from_no_file(path):
    opened = io.open_cube(path)
    assert origin(opened["B04"]) is None and origin(None) is None and origin(str(path)) is None
    assert origin(as_dataset(*make_cube())) is None
    assert origin(opened.assign(B04=opened["B04"].astype("int32"))) is None
    shutil.rmtree(path)
    assert origin(opened) is None


def test_netcdf(path, tmp_path):
    pytest.importorskip("netCDF4")
    opened = io.open_cube(path)
    opened.compute().drop_encoding().to_netcdf(tmp_path / "cube.nc")
    assert origin(io.open_cube(tmp_path / "cube.nc")) == Origin(str(tmp_path / "cube.nc"))
