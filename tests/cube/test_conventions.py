"""Cubes as readers give them: names of dimensions, coordinate systems, bands of several sensors, single layers."""

import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr

import xr_cloudfree
from tests.support.cubes import as_dataset, make_cube
from xr_cloudfree import errors, synthetic
from xr_cloudfree.cube.conventions import parse_cube
from xr_cloudfree.cube.dims import dims_of
from xr_cloudfree.cube.sensors import SENSORS, common_names_of, index_limits, is_band, sensor_of

TARGET = "2021-06-03"
NAMES = {"time": "time", "band": "band", "y": "y", "x": "x"}


def plain(shape=(20, 24), **kwargs):
    return make_cube(shape=shape, **kwargs)


def filled_alike(da, clear, names, **how):
    """The cube under other names gives the same image, under those names."""
    expected = xr_cloudfree.fill(*plain()[:1], TARGET, clear=plain()[1], model="linear")
    got = xr_cloudfree.fill(da, TARGET, clear=clear, model="linear", **how)
    assert got.dims == (names["band"], names["y"], names["x"])
    np.testing.assert_array_equal(got.values, expected.values)
    for role in ("y", "x"):
        np.testing.assert_array_equal(got[names[role]].values, expected[role].values)
    return got


@pytest.mark.parametrize(
    "names",
    [
        {"y": "Y", "x": "X"},
        {"y": "northing", "x": "easting"},
        {"y": "lat", "x": "lon"},
        {"y": "Latitude", "x": "Longitude", "time": "date"},
        {"band": "variable", "time": "t"},
        {"band": "channel", "y": "row", "x": "col"},
    ],
    ids=str,
)
@pytest.mark.parametrize("order", [("time", "band", "y", "x"), ("x", "y", "time", "band")])
def test_usual_names_in_any_order(names, order):
    da, clear = plain()
    names = NAMES | names
    mine = da.rename({a: b for a, b in names.items() if a != b}).transpose(*(names[dim] for dim in order))
    mask = clear.rename({a: b for a, b in names.items() if a != b and a != "band"})
    filled_alike(mine, mask, names)
    filled_alike(mine.chunk(), mask.chunk(), names)
    filled_alike(mine, clear, names)  # a mask under our own names fits as well


def renamed(attrs_y, attrs_x):
    da, clear = plain()
    ours = {"y": "v", "x": "u"}
    da, clear = da.rename(ours), clear.rename(ours)
    for array in (da, clear):
        array["v"].attrs, array["u"].attrs = attrs_y, attrs_x
    return da, clear, NAMES | ours


@pytest.mark.parametrize(
    ("y", "x"),
    [
        ({"axis": "Y"}, {"axis": "X"}),
        ({"standard_name": "projection_y_coordinate"}, {"standard_name": "projection_x_coordinate"}),
        ({"standard_name": "latitude"}, {"standard_name": "longitude"}),
        ({"units": "degrees_north"}, {"units": "degrees_east"}),
        ({"_CoordinateAxisType": "GeoY"}, {"_CoordinateAxisType": "GeoX"}),
    ],
)
def test_cf_attributes(y, x):
    filled_alike(*renamed(y, x))


def test_what_rioxarray_was_told():
    da, clear, names = renamed({}, {})
    filled_alike(da.rio.set_spatial_dims(x_dim="u", y_dim="v"), clear, names)


def test_a_time_axis_is_known_by_its_dates_and_bands_by_their_text():
    da, clear = plain()
    assert dims_of(da.rename(time="acquired", band="what")) == NAMES | {"time": "acquired", "band": "what"}
    filled_alike(da.rename(time="acquired", band="what"), clear.rename(time="acquired"), NAMES | {"band": "what"})


def test_names_win_over_attributes_and_attributes_over_types():
    da, _ = plain()
    da["y"].attrs = {"axis": "X"}
    assert dims_of(da)["y"] == "y"


def test_axes_that_are_not_known_are_named_together():
    da, clear = plain()
    strange = da.rename(y="v", x="u").to_dataset(name="reflectance").assign(good=clear.rename(y="v", x="u"))
    with pytest.raises(errors.DimensionError) as info:
        strange.cloudfree.fill(TARGET, clear="good", model="linear")
    # y falls and x rises: which is which can be told.
    assert info.value.remedy == "cube.rename({'v': 'y', 'u': 'x'})"
    turned = strange.transpose("u", "v", ...)
    with pytest.raises(errors.DimensionError) as info:
        turned.cloudfree.fill(TARGET, clear="good", model="linear")
    assert info.value.remedy == "cube.rename({'v': 'y', 'u': 'x'})"
    cube = eval(info.value.remedy, {"cube": turned})
    filled_alike(cube.reflectance, cube.good, NAMES)


@pytest.mark.parametrize(
    "tell",
    [
        lambda da: da.assign_coords({"proj:epsg": 32629}),
        lambda da: da.assign_coords({"proj:code": "EPSG:32629"}),
        lambda da: da.assign_coords(epsg=32629),
        lambda da: da.assign_coords({"proj:epsg": ("time", np.full(7, 32629))}),
        lambda da: da.assign_attrs(crs="EPSG:32629"),
        lambda da: da.assign_attrs(crs="epsg:32629", epsg=32629),
        lambda da: da.assign_attrs({"proj:code": "EPSG:32629"}),
        lambda da: da.assign_attrs(epsg="32629"),
    ],
)
@pytest.mark.parametrize("form", ["array", "bands"])
def test_the_crs_as_archives_tell_it(tell, form):
    da, clear = plain()
    bare = tell(da.drop_vars("spatial_ref").drop_encoding())
    if form == "array":
        image = xr_cloudfree.fill(bare, TARGET, clear=clear, model="linear")
        assert parse_cube(bare).crs == "EPSG:32629"
    else:
        bands = bare.to_dataset("band")
        bands.attrs = bare.attrs
        image = xr_cloudfree.fill(bands.assign(good=clear), TARGET, clear="good", model="linear")
    assert image.rio.crs.to_epsg() == 32629


def test_a_crs_that_changes_along_time_is_refused():
    da, clear = plain()
    zones = da.drop_vars("spatial_ref").assign_coords({"proj:epsg": ("time", [32629] * 3 + [32630] * 4)})
    with pytest.raises(errors.GridError, match="32629, 32630"):
        xr_cloudfree.fill(zones, TARGET, clear=clear, model="linear")


def test_a_crs_variable_is_no_mask_and_is_kept():
    ds = as_dataset(*plain(dtype="uint16")).reset_coords("spatial_ref").rename(spatial_ref="crs")
    for name in ("B02", "B04", "B08"):
        ds[name] = ds[name].drop_encoding().assign_attrs(grid_mapping="crs")
    text = repr(ds.cloudfree)
    assert "EPSG:32629" in text and "not used" not in text
    assert xr_cloudfree.fill(ds, TARGET, model="linear").rio.crs.to_epsg() == 32629


@pytest.mark.parametrize(
    ("bands", "layers", "metadata", "title", "common_names"),
    [
        ("B02 B8A", "", "", "Sentinel-2 L2A", "blue nir08"),
        ("B2 B3 B4 B8", "", "", "Sentinel-2 L2A", "blue green red nir"),
        ("B02_10m B05_20m", "", "", "Sentinel-2 L2A", "blue rededge071"),
        ("B02 B03 B04 B05 B06 B07", "Fmask", "", "HLS L30 (Landsat 8 and 9)", "blue green red nir08 swir16 swir22"),
        ("B04 B05 B06 B8A", "Fmask", "", "HLS S30 (Sentinel-2)", "red rededge071 rededge075 nir08"),
        ("B04 B10 B11", "Fmask", "", "HLS L30 (Landsat 8 and 9)", "red None None"),
        ("B04 B05", "", "HLSL30.v2.0", "HLS L30 (Landsat 8 and 9)", "red nir08"),
        ("B2 B3 B4 B5 B6", "QA_PIXEL", "", "Landsat 8 and 9 (OLI), Collection 2 Level 2", "blue green red nir swir16"),
        ("B4 B5", "", "landsat-8", "Landsat 8 and 9 (OLI), Collection 2 Level 2", "red nir"),
        ("SR_B3 SR_B4", "", "LANDSAT_7", "Landsat 4, 5 and 7 (TM, ETM+), Collection 2 Level 2", "red nir"),
        ("SR_B4 SR_B5", "QA_PIXEL", "", "Landsat", "None None"),
        ("sur_refl_b01 sur_refl_b02", "", "", "MODIS surface reflectance (MOD09, MCD43)", "red nir"),
        ("Nadir_Reflectance_Band3", "", "", "MODIS surface reflectance (MOD09, MCD43)", "blue"),
    ],
)
def test_a_number_means_what_the_sensor_means(bands, layers, metadata, title, common_names):
    names = bands.split()
    sensor = sensor_of(names, layers.split(), metadata)
    assert sensor.title == title
    assert " ".join(map(str, common_names_of(names, sensor))) == common_names


def test_geoscience_australia_counts_swir_from_1375_nm():
    assert common_names_of(["nbart_nir_1", "nbart_swir_2", "nbart_swir_3"]) == ("nir", "swir16", "swir22")
    assert common_names_of(["nbart_swir_1", "nbart_swir_2"]) == ("swir16", "swir22")


def test_each_row_is_described():
    for sensor in SENSORS:
        assert sensor.bands and sensor.usual and sensor.source.startswith("https://")
        assert all(is_band(name) for name in sensor.bands)


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
    da, clear = plain()
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
    da, clear = plain(dtype=dtype)
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
    da, clear = plain()
    red, nir = da.sel(band="red", drop=True), da.sel(band="nir", drop=True)
    return ((nir - red) / (nir + red)).rename(name), clear


@pytest.mark.parametrize("model", ["linear", "regress", "auto"])
def test_an_index_is_filled_within_its_own_limits(model):
    ndvi, clear = index_cube()
    image = xr_cloudfree.fill(ndvi, TARGET, clear=clear, model=model)
    assert float(image.min()) >= -1 and float(image.max()) <= 1 and float(image.min()) < -0.2
    own = clear.sel(time=TARGET) & ndvi.sel(time=TARGET).notnull()
    np.testing.assert_array_equal(image.where(own), ndvi.sel(time=TARGET).where(own))
    as_values = xr_cloudfree.fill(ndvi.rename("values"), TARGET, clear=clear, model="linear", check=False)
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
    da, clear = plain()
    ds = xr.Dataset({"surface": da.sel(band="red", drop=True), "good": clear})
    assert list(ds.cloudfree.fill(TARGET, clear="good", model="linear").data_vars) == ["surface"]
    assert index_limits("surface") is None


# Layers among the bands


def stacked(dtype="float32", name="SCL"):
    da, clear = plain(dtype=dtype)
    da = da.drop_vars(["platform", "spatial_ref"])
    classes = xr.where(clear, 4, 9)
    classes = classes.where(~clear | (classes.x < classes.x[12]), 6).astype(da.dtype)
    return xr.concat([da.isel(band=[0, 1]), classes.expand_dims(band=[name]), da.isel(band=[2])], "band").transpose(
        "time", "band", "y", "x"
    ), clear


KEPT = pytest.mark.filterwarnings("ignore:SCL is no reflectance:xr_cloudfree.errors.CloudfreeWarning")


@KEPT
@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("chunks", [None, {"band": 1, "x": 9, "time": 2}])
@pytest.mark.parametrize("model", ["linear", "regress"])
def test_a_classification_among_the_bands_keeps_its_classes(dtype, chunks, model):
    stack, clear = stacked(dtype)
    if chunks:
        stack = stack.chunk(chunks)
    how = {"scale": 1e-4, "nodata": 0} if dtype == "uint16" else {}
    image = xr_cloudfree.fill(stack, TARGET, model=model, **how).compute()  # the mask is found among the bands
    assert list(image.band.values) == ["blue", "red", "SCL", "nir"]
    da = plain(dtype=dtype)[0]
    expected = xr_cloudfree.fill(da, TARGET, clear=clear, model=model, **how)
    np.testing.assert_array_equal(image.sel(band=["blue", "red", "nir"]), expected)
    classes = image.sel(band="SCL")
    ever = xr_cloudfree.clear_mask(da, clear=clear, **how).any("time") if not how else clear.any("time")
    np.testing.assert_array_equal(classes, np.where(ever, np.where(ever.x < ever.x[12], 4, 6), 0 if how else np.nan))


def test_it_is_said_that_a_layer_is_not_estimated():
    with pytest.warns(errors.CloudfreeWarning, match="SCL is no reflectance"):
        xr_cloudfree.fill(stacked()[0], TARGET, model="linear")


@KEPT
def test_layers_of_a_stack_with_a_classification():
    stack, clear = stacked()
    image = xr_cloudfree.fill(stack, None, model="regress", layers="all")
    assert image.uncertainty.sizes["band"] == 4 and image.uncertainty.sel(band="SCL").isnull().all()
    np.testing.assert_array_equal(xr_cloudfree.clear_mask(stack), xr_cloudfree.clear_mask(plain()[0], clear=clear))
    part = xr_cloudfree.fill(stack, TARGET, bands=["nir", "red"], model="linear")
    assert list(part.band.values) == ["nir", "red"]


@pytest.mark.parametrize("chunks", [None, {"x": 12}])
def test_a_classification_of_unknown_name_is_told_by_its_values(chunks):
    stack, clear = stacked(name="what")
    da = plain()[0]
    how = {"clear": clear, "model": "linear"}
    with pytest.raises(errors.BandError, match="'what' holds only the integers 4, 6") as info:
        xr_cloudfree.fill(stack.chunk(chunks) if chunks else stack, TARGET, **how).compute()
    image = xr_cloudfree.fill(stack, TARGET, **how, **eval(f"dict({info.value.remedy})"))
    np.testing.assert_array_equal(image, xr_cloudfree.fill(da, TARGET, **how))


def test_names_of_bands_beside_numbers():
    """As stackstac and rioxarray have them: the axis counts, another coordinate names."""
    da, clear = plain()
    counted = da.assign_coords(band=[1, 2, 3], common_name=("band", ["blue", "red", "nir"]))
    assert parse_cube(counted).bands == ("blue", "red", "nir")
    named = da.assign_coords(band=[1, 2, 3]).assign_attrs(long_name=("blue", "red", "nir"))
    assert parse_cube(named).common_names == ("blue", "red", "nir")
    assets = da.assign_coords(band=["B02", "B04", "B08"], common_name=("band", ["blue", "red", "nir"]))
    assert parse_cube(assets).common_names == ("blue", "red", "nir")
    image = xr_cloudfree.fill(counted, TARGET, clear=clear, model="linear", bands=["red"])
    np.testing.assert_array_equal(image, xr_cloudfree.fill(da, TARGET, clear=clear, model="linear").sel(band=["red"]))


def test_the_summary_says_what_fill_does():
    da, clear = plain(dtype="uint16")
    numbers = da.drop_attrs().to_dataset(name="reflectance").assign(cloud_mask=xr.where(clear, 0, 1).astype("uint8"))
    numbers.cloud_mask.attrs = {"flag_values": [0, 1], "flag_meanings": "clear cloud"}
    with pytest.raises(errors.ScalingError) as info:
        numbers.cloudfree.fill(TARGET)
    assert "not usable" in repr(numbers.cloudfree) and info.value.found in repr(numbers.cloudfree)
    floats = numbers.astype("float32").assign(cloud_mask=numbers.cloud_mask)
    assert "digital numbers" in repr(floats.cloudfree)
