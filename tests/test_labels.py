"""The output's kind, names, coordinates, attributes and encoding are those of the cube."""

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import as_dataset, bands_of, make_cube

TARGET = "2021-06-03"
OWN = 3


@pytest.fixture(scope="module")
def cube():
    return make_cube()


@pytest.mark.parametrize("kind", ["array", "variable", "bands"])
@pytest.mark.parametrize("layers", [None, ["filled", "n_clear"]])
@pytest.mark.parametrize("date", [TARGET, [TARGET], None])
def test_kind_out_is_kind_in(kind, layers, date):
    da, clear = make_cube(dtype="uint16")
    if kind == "array":
        obj, how = da, {"clear": clear}
    elif kind == "variable":
        obj, how = da.to_dataset(name="sr").assign(seen=clear), {"clear": "seen"}
    else:
        obj, how = as_dataset(da, clear), {}
    out = xr_cloudfree.fill(obj, date, model="linear", layers=layers, **how)
    lead = () if date == TARGET else ("time",)
    expected = xr_cloudfree.fill(da, date, clear=clear, model="linear")
    if kind == "array" and not layers:
        xr.testing.assert_identical(out, expected)
        return
    assert isinstance(out, xr.Dataset)
    names = {"array": {"reflectance"}, "variable": {"sr"}, "bands": {"B02", "B04", "B08"}}[kind]
    assert set(out.data_vars) == names | set(layers or ())
    for name in names:
        dims = (*lead, "y", "x") if kind == "bands" else (*lead, "band", "y", "x")
        assert out[name].dims == dims and out[name].dtype == "uint16"
    if kind == "bands":
        np.testing.assert_array_equal(out["B04"], expected.sel(band="red"))
        assert out["B04"].attrs["scale_factor"] == 1e-4
    else:
        np.testing.assert_array_equal(out[next(iter(names))], expected)


def test_a_layer_wins_over_a_coordinate_of_its_name(cube):
    da, clear = cube
    told = da.assign_coords(suspect=("time", np.ones(da.sizes["time"], bool)))
    out = xr_cloudfree.fill(told, clear=clear, model="linear", layers=["suspect"])
    assert out["suspect"].dims == ("time", "y", "x") and "suspect" not in out.coords
    # Where no layer is asked for the coordinate stays.
    assert xr_cloudfree.fill(told, clear=clear, model="linear")["suspect"].dims == ("time",)


def test_encoding_of_a_decoded_cube_is_kept(tmp_path):
    da, clear = make_cube(dtype="int16")
    ds = da.to_dataset(name="reflectance")
    ds.attrs["title"] = "kept"
    path = tmp_path / "cube.nc"
    ds.to_netcdf(path)
    with xr.open_dataset(path, decode_coords="all") as opened:
        opened = opened.load()
    out = xr_cloudfree.fill(opened, TARGET, clear=clear, model="linear")
    assert out.attrs["title"] == "kept"
    assert out["reflectance"].encoding["scale_factor"] == 1e-4
    out.to_netcdf(tmp_path / "out.nc")
    with xr.open_dataset(tmp_path / "out.nc", decode_coords="all") as back:
        assert back["reflectance"].encoding["dtype"] == np.dtype("int16")
        assert back.rio.crs == da.rio.crs
        np.testing.assert_allclose(back["reflectance"], out["reflectance"], atol=5.1e-5)


def test_latitude_and_longitude_come_back():
    da, clear = make_cube()
    names = {"y": "latitude", "x": "longitude"}
    out = xr_cloudfree.fill(da.rename(names), TARGET, clear=clear.rename(names), model="linear", layers="all")
    assert out["reflectance"].dims == ("band", "latitude", "longitude")
    assert out["filled"].dims == ("latitude", "longitude")
    mask = xr_cloudfree.clear_mask(da.rename(names), clear=clear.rename(names))
    assert mask.dims == ("time", "latitude", "longitude")


def test_what_the_user_told_of_the_numbers_stays_with_them(tmp_path):
    da, clear = make_cube(dtype="uint16")
    expected = xr_cloudfree.fill(da, TARGET, clear=clear, model="linear")
    da.attrs = {"nodata": 0}
    out = xr_cloudfree.fill(da, TARGET, clear=clear, model="linear", scale=1e-4, offset=0, layers=["filled"])
    assert out["reflectance"].attrs["scale_factor"] == 1e-4
    out.drop_vars("band").to_netcdf(tmp_path / "out.nc")
    with xr.open_dataset(tmp_path / "out.nc") as back:
        reflectance = (expected.where(expected != 0) * 1e-4).values
        np.testing.assert_allclose(back["reflectance"], reflectance, rtol=1e-5)


def test_layers_of_a_dataset_of_bands_name_their_bands():
    da, clear = make_cube(dtype="uint16")
    out = xr_cloudfree.fill(as_dataset(da, clear), TARGET, model="regress", layers=["uncertainty"])
    assert list(out["uncertainty"]["band"].values) == ["B02", "B04", "B08"]
    assert "band" not in out["B04"].coords


@pytest.mark.parametrize("encoding", [{"missing_value": -9999}, {}])
def test_nodata_survives_a_file_without_a_fill_value(tmp_path, encoding):
    da, clear = make_cube()
    da.encoding = {"dtype": "int16", "scale_factor": 1e-4, **encoding}
    out = xr_cloudfree.fill(da, TARGET, clear=clear, model="linear", layers=["filled"])
    assert np.isnan(out["reflectance"]).any()
    out.drop_vars(["band", "platform"], errors="ignore").to_netcdf(tmp_path / "out.nc")
    with xr.open_dataset(tmp_path / "out.nc") as back:
        np.testing.assert_array_equal(np.isnan(back["reflectance"]), np.isnan(out["reflectance"]))


def test_each_band_is_clipped_to_its_own_packing():
    ds = bands_of(["B02", "B03"], "float32")
    ds["B02"].encoding = {"dtype": "uint8", "scale_factor": 0.001, "_FillValue": 0}
    ds["B03"].encoding = {"dtype": "uint16", "scale_factor": 1e-4, "_FillValue": 0}
    out = xr_cloudfree.fill(ds, "2021-06-15", clear="clear", model="linear")
    assert out["B02"].max() <= 0.2541 < 0.3 < out["B03"].max()


def test_a_scalar_band_coordinate_is_no_obstacle():
    ds = bands_of(["B02", "B03"]).assign_coords(band=1)
    out = xr_cloudfree.fill(ds, TARGET, clear="clear", model="regress", layers="all")
    assert list(out["uncertainty"]["band"].values) == ["B02", "B03"]


def test_what_is_known_of_an_observed_date_stays_with_it(cube):
    da, clear = cube
    assert xr_cloudfree.fill(da, TARGET, clear=clear, model="linear")["platform"] == da["platform"][OWN]
    assert "platform" not in xr_cloudfree.fill(da, "2021-06-15", clear=clear, model="linear").coords


def test_a_variable_called_like_a_layer_gives_way(cube):
    da, clear = cube
    ds = da.rename("gate").to_dataset().assign(clear=clear)
    out = xr_cloudfree.fill(ds, TARGET, clear="clear", model="timegate", layers=["gate"])
    assert out["reflectance"].dims == ("band", "y", "x") and out["gate"].dims[0] == "observation"
