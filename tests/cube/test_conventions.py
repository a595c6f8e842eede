"""Cubes as readers return them: bands of several sensors, single layers and indices, layers among the bands."""

import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr

import xr_cloudfree
from tests.support.cubes import small_cube
from xr_cloudfree import errors, synthetic
from xr_cloudfree.cube.conventions import parse_cube
from xr_cloudfree.cube.sensors import index_limits

TARGET = "2021-06-03"


def hls(layer="Fmask"):
    six = synthetic.cube((12, 6, 32, 36), seed=3, dtype="float32")
    names = ["B02", "B03", "B04", "B05", "B06", "B07"]
    l30 = xr.Dataset({n: six.reflectance.isel(band=i, drop=True) for i, n in enumerate(names)})
    return l30.assign({layer: xr.where(six.cloud_mask == 0, 64, 2).astype("uint8")})


def test_common_names_of_hls():
    assert list(hls().cloudfree.fill("2023-06-20", bands=["red", "nir08"], model="linear").data_vars) == ["B04", "B05"]
    # Landsat's only near infrared goes by either name.
    assert list(hls().cloudfree.fill("2023-06-20", bands=["nir"], model="linear").data_vars) == ["B05"]
    with pytest.warns(errors.CloudfreeWarning, match="rededge075"):
        image = hls().cloudfree.fill("2023-06-20", bands=["red", "rededge075"], model="linear")
    assert list(image.data_vars) == ["B04"]
    with pytest.raises(errors.BandError, match="rededge075"):
        hls().cloudfree.fill("2023-06-20", bands=["rededge075"], model="linear")


@pytest.mark.parametrize("where", ["attribute", "coordinate"])
def test_metadata_tell_the_sensor(where):
    da, clear = small_cube()
    ds = da.drop_vars("platform").to_dataset("band").rename(blue="SR_B2", red="SR_B4", nir="SR_B5").assign(good=clear)
    if where == "attribute":
        ds.attrs["platform"] = "LANDSAT_9"
    else:
        ds = ds.assign_coords(platform=("time", ["landsat-8", "landsat-9"] * 3 + ["landsat-8"]))
    assert parse_cube(ds).common_names == ("blue", "red", "nir")


# Single layers and indices


@pytest.mark.parametrize("chunks", [None, {"x": 10, "time": 3}])
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_a_single_band_without_a_dimension_for_it(dtype, chunks):
    da, clear = small_cube(dtype=dtype)
    one, mask = da.sel(band="red"), clear
    if chunks:
        one, mask = one.chunk(chunks), mask.chunk(chunks)
    image = xr_cloudfree.fill(one, TARGET, clear=mask, model="linear")
    expected = xr_cloudfree.fill(da.sel(band=["red"]), TARGET, clear=clear, model="linear").isel(band=0)
    assert image.dims == ("y", "x") and image.name == "reflectance" and image.dtype == dtype
    xr.testing.assert_equal(image.compute(), expected)
    series = xr_cloudfree.fill(one, None, clear=mask, model="linear", layers="all")
    assert series.reflectance.dims == ("time", "y", "x")
    assert xr_cloudfree.clear_mask(one, clear=mask).dims == ("time", "y", "x")
    assert parse_cube(one).common_names == ("red",)


def index_cube(name="NDVI"):
    da, clear = small_cube()
    red, nir = da.sel(band="red", drop=True), da.sel(band="nir", drop=True)
    return ((nir - red) / (nir + red)).rename(name), clear


@pytest.mark.parametrize("model", ["linear", "regress", "auto"])
def test_an_index_is_filled_within_its_own_limits(model):
    ndvi, clear = index_cube()
    image = xr_cloudfree.fill(ndvi, TARGET, clear=clear, model=model)
    assert float(image.min()) >= -1 and float(image.max()) <= 1 and float(image.min()) < -0.2
    own = clear.sel(time=TARGET) & ndvi.sel(time=TARGET).notnull()
    np.testing.assert_array_equal(image.where(own), ndvi.sel(time=TARGET).where(own))
    as_values = xr_cloudfree.fill(ndvi.rename("values"), TARGET, clear=clear, model="linear", check=False, repair=False)
    if model == "linear":
        np.testing.assert_array_equal(image, as_values)


def test_indices_of_a_dataset_are_filled_and_its_mask_is_not():
    ndvi, clear = index_cube()
    scl = xr.where(clear, np.uint8(4), np.uint8(9)).astype("uint8")
    ds = xr.Dataset({"NDVI": ndvi, "NDWI": -ndvi, "SCL": scl})
    image = ds.cloudfree.fill(TARGET, model="linear")
    assert list(image.data_vars) == ["NDVI", "NDWI"]
    assert "an index between -1 and 1" in repr(ds.cloudfree)
    with pytest.warns(errors.CloudfreeWarning, match="SCL"):
        xr.testing.assert_equal(ds.cloudfree.fill(TARGET, model="linear", bands=["NDVI", "SCL"]), image[["NDVI"]])


def test_a_packed_index():
    ndvi, clear = index_cube()
    packed = (ndvi.fillna(-3) * 1e4).round().astype("int16").assign_attrs(scale_factor=1e-4, _FillValue=-30000)
    image = xr_cloudfree.fill(packed, TARGET, clear=clear, model="regress")
    known = image != -30000
    assert image.dtype == "int16" and bool((abs(image.where(known)) <= 10000).sum() == known.sum())
    with pytest.raises(errors.ScalingError):
        xr_cloudfree.fill(packed.drop_attrs(), TARGET, clear=clear, model="linear")


def test_the_only_layer_of_numbers_is_the_cube():
    da, clear = small_cube()
    ds = xr.Dataset({"surface": da.sel(band="red", drop=True), "good": clear})
    assert list(ds.cloudfree.fill(TARGET, clear="good", model="linear").data_vars) == ["surface"]
    assert index_limits("surface") is None


# Layers among the bands


def stacked(dtype="float32", name="SCL"):
    da, clear = small_cube(dtype=dtype)
    da = da.drop_vars(["platform", "spatial_ref"])
    classes = xr.where(clear, 4, 9)
    classes = classes.where(~clear | (classes.x < classes.x[12]), 6).astype(da.dtype)
    return xr.concat([da.isel(band=[0, 1]), classes.expand_dims(band=[name]), da.isel(band=[2])], "band").transpose(
        "time", "band", "y", "x"
    ), clear


KEPT = pytest.mark.filterwarnings("ignore:SCL is not reflectance:xr_cloudfree.errors.CloudfreeWarning")


@KEPT
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("chunks", [None, {"band": 1, "x": 9, "time": 2}])
@pytest.mark.parametrize("model", ["linear", "regress"])
def test_a_classification_among_the_bands_keeps_its_classes(dtype, chunks, model):
    stack, clear = stacked(dtype)
    if chunks:
        stack = stack.chunk(chunks)
    how = {"scale": 1e-4, "nodata": 0} if dtype == "uint16" else {}
    how["repair"] = False
    image = xr_cloudfree.fill(stack, TARGET, model=model, **how).compute()  # the mask is found among the bands
    assert list(image.band.values) == ["blue", "red", "SCL", "nir"]
    da = small_cube(dtype=dtype)[0]
    expected = xr_cloudfree.fill(da, TARGET, clear=clear, model=model, **how)
    np.testing.assert_array_equal(image.sel(band=["blue", "red", "nir"]), expected)
    classes = image.sel(band="SCL")
    ever = xr_cloudfree.clear_mask(da, clear=clear, **how).any("time") if dtype != "uint16" else clear.any("time")
    np.testing.assert_array_equal(
        classes, np.where(ever, np.where(ever.x < ever.x[12], 4, 6), 0 if dtype == "uint16" else np.nan)
    )


def test_a_layer_that_is_not_estimated_causes_a_warning():
    with pytest.warns(errors.CloudfreeWarning, match="SCL is not reflectance"):
        xr_cloudfree.fill(stacked()[0], TARGET, model="linear")


@KEPT
def test_layers_of_a_stack_with_a_classification():
    stack, clear = stacked()
    image = xr_cloudfree.fill(stack, None, model="regress", layers="all")
    assert image.uncertainty.sizes["band"] == 4 and image.uncertainty.sel(band="SCL").isnull().all()
    np.testing.assert_array_equal(xr_cloudfree.clear_mask(stack), xr_cloudfree.clear_mask(small_cube()[0], clear=clear))
    part = xr_cloudfree.fill(stack, TARGET, bands=["nir", "red"], model="linear")
    assert list(part.band.values) == ["nir", "red"]


@pytest.mark.parametrize("chunks", [None, {"x": 12}])
def test_a_classification_of_unknown_name_is_recognised_by_its_values(chunks):
    stack, clear = stacked(name="what")
    da = small_cube()[0]
    how = {"clear": clear, "model": "linear"}
    with pytest.raises(errors.BandError, match="'what' holds only the integers 4, 6") as info:
        xr_cloudfree.fill(stack.chunk(chunks) if chunks else stack, TARGET, **how).compute()
    image = xr_cloudfree.fill(stack, TARGET, **how, **eval(f"dict({info.value.remedy})"))
    np.testing.assert_array_equal(image, xr_cloudfree.fill(da, TARGET, **how))


def test_names_of_bands_beside_numbers():
    """As in stackstac and rioxarray: numbers along the axis, names in another coordinate."""
    da, clear = small_cube()
    counted = da.assign_coords(band=[1, 2, 3], common_name=("band", ["blue", "red", "nir"]))
    assert parse_cube(counted).bands == ("blue", "red", "nir")
    named = da.assign_coords(band=[1, 2, 3]).assign_attrs(long_name=("blue", "red", "nir"))
    assert parse_cube(named).common_names == ("blue", "red", "nir")
    assets = da.assign_coords(band=["B02", "B04", "B08"], common_name=("band", ["blue", "red", "nir"]))
    assert parse_cube(assets).common_names == ("blue", "red", "nir")
    image = xr_cloudfree.fill(counted, TARGET, clear=clear, model="linear", bands=["red"], repair=False)
    np.testing.assert_array_equal(
        image, xr_cloudfree.fill(da, TARGET, clear=clear, model="linear", repair=False).sel(band=["red"])
    )


def test_the_summary_agrees_with_fill():
    da, clear = small_cube(dtype="uint16")
    numbers = da.drop_attrs().to_dataset(name="reflectance").assign(cloud_mask=xr.where(clear, 0, 1).astype("uint8"))
    numbers.cloud_mask.attrs = {"flag_values": [0, 1], "flag_meanings": "clear cloud"}
    with pytest.raises(errors.ScalingError) as info:
        numbers.cloudfree.fill(TARGET)
    assert "not usable" in repr(numbers.cloudfree) and info.value.found in repr(numbers.cloudfree)
    floats = numbers.astype("float32").assign(cloud_mask=numbers.cloud_mask)
    assert "digital numbers" in repr(floats.cloudfree)
