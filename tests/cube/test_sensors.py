"""Sensors: each row of the table, identification by names and metadata, and a row that is added."""

import pytest
import rioxarray  # noqa: F401  (registers .rio)

from tests.support.cubes import as_dataset, small_cube
from xr_cloudfree import errors
from xr_cloudfree.cube import sensors
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.cube.schemes import SCHEMES
from xr_cloudfree.cube.sensors import SENSORS, Encoding, Sensor, common_names_of, is_band, sensor_of
from xr_cloudfree.cube.validity import derive_valid_range
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.plan import read


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
def test_common_names_depend_on_the_sensor(bands, layers, metadata, title, common_names):
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
    for name in sensors.layer_schemes().values():
        assert name in SCHEMES
    assert len({sensor.name: sensor.encodings for sensor in SENSORS}) == len({(s.name, s.encodings) for s in SENSORS})


ADDED = Sensor(
    "newsat",
    "NewSat Level 2",
    {"N1": "blue", "N2": "red", "N3": "nir"},
    ("newsat",),
    {"newsat_cloud": "cloudsen12"},
    (Encoding("NewSat", 2e-4, nodata=-1),),
    5.0,
    "https://example.com/newsat",
)


def test_an_added_row_is_all_that_a_sensor_needs(monkeypatch):
    da, clear = small_cube(dtype="uint16")
    ds = as_dataset(da, clear).rename(B02="N1", B04="N2", B08="N3", SCL="newsat_cloud")
    ds["newsat_cloud"] = (~clear).astype("uint8")
    for band in ("N1", "N2", "N3"):
        ds[band].attrs = {}
    with pytest.raises(errors.BandError):
        read(ds, ReadOptions(scale=2e-4, nodata=0))

    monkeypatch.setattr(sensors, "SENSORS", (*SENSORS, ADDED))
    info = read(ds, ReadOptions(scale=2e-4, nodata=0))
    assert info.cube.sensor == "newsat"
    assert info.cube.bands == ("N1", "N2", "N3") and info.cube.common_names == ("blue", "red", "nir")
    assert info.quality.name == "newsat_cloud" and info.rule.scheme == SCHEMES["cloudsen12"]
    # Without a scale, the error proposes the sensor's own encoding.
    with pytest.raises(errors.ScalingError) as raised:
        ds.cloudfree.fill("2021-06-03", model="linear")
    assert raised.value.remedy == "scale=2e-4, offset=0, nodata=-1  # NewSat"
    image = ds.cloudfree.fill("2021-06-03", model="linear", bands=["red"], scale=2e-4, nodata=0)
    assert list(image.data_vars) == ["N2"]
    # Fill values that were scaled like the sensor's values are missing.
    floats = [ds["N1"].astype("float32")]
    assert 32767 * 2e-4 in derive_valid_range(floats, Scaling()).single


def test_names_of_other_sensors_mean_the_same_beside_an_added_row(monkeypatch):
    before = [(s.title, sensor_of(list(s.bands), list(s.layers), s.platforms[0])) for s in SENSORS]
    monkeypatch.setattr(sensors, "SENSORS", (*SENSORS, ADDED))
    assert before == [(s.title, sensor_of(list(s.bands), list(s.layers), s.platforms[0])) for s in SENSORS]
    assert all(found.title == title for title, found in before)
