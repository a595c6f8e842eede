"""The Zarr conventions of stores: what they say, and that software which reads them or CF finds the CRS."""

import json
import warnings

import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr
import zarr

import xr_cloudfree
from tests.support.cubes import as_dataset, make_cube
from xr_cloudfree import io
from xr_cloudfree.storage import geozarr

LAEA = "+proj=laea +lat_0=10 +lon_0=3 +datum=WGS84 +units=m"


def make_image(y=(4_400_000.0, 4_399_990.0, 4_399_980.0), x=(500_000.0, 500_010.0), crs="EPSG:32629", names=("y", "x")):
    image = xr.Dataset(
        {"red": (names, np.arange(len(y) * len(x), dtype="uint16").reshape(len(y), len(x)))},
        coords={names[0]: list(y), names[1]: list(x)},
    )
    return image if crs is None else image.rio.write_crs(crs)


def attributes(path):
    return dict(zarr.open_group(path, mode="r").attrs)


def registered(attrs):
    """The registrations by name; each is an object with the members that the specification allows, once."""
    entries = attrs["zarr_conventions"]
    for entry in entries:
        assert set(entry) == {"uuid", "schema_url", "spec_url", "name", "description"}
        assert "/v0.1/" in entry["schema_url"] and "/v0.1/" in entry["spec_url"]
    found = {entry["name"]: entry["uuid"] for entry in entries}
    assert len(found) == len(entries)
    return found


def test_known_answer(tmp_path):
    io.write(make_image(), tmp_path / "out.zarr")
    attrs = attributes(tmp_path / "out.zarr")
    assert registered(attrs) == {
        "proj": "f17cb550-5864-4468-aeb7-f3180cfb622f",
        "spatial": "689b58e2-cf7b-45e0-9fff-9cfc0883d6b4",
    }
    assert attrs["proj:code"] == "EPSG:32629" and attrs["proj:wkt2"].startswith("PROJCRS[")
    assert {key: value for key, value in attrs.items() if key.startswith("spatial:")} == {
        "spatial:dimensions": ["y", "x"],
        "spatial:transform_type": "affine",
        "spatial:transform": [10.0, 0.0, 499_995.0, 0.0, -10.0, 4_400_005.0],
        "spatial:bbox": [499_995.0, 4_399_975.0, 500_015.0, 4_400_005.0],
        "spatial:shape": [3, 2],
        "spatial:registration": "pixel",
    }


@pytest.mark.parametrize("date", ["2021-06-03", ["2021-06-03", "2021-06-15"]], ids=["one date", "two dates"])
def test_a_run_writes_what_write_does(tmp_path, date):
    obj = as_dataset(*make_cube(dtype="uint16")).rename(y="lat", x="lon")
    how = {"model": "linear", "nodata": 0, "layers": "all"}
    xr_cloudfree.to_zarr(obj, tmp_path / "run.zarr", date, shard=32, **how)
    io.write(xr_cloudfree.fill(obj, date, **how), tmp_path / "plain.zarr")
    attrs = attributes(tmp_path / "run.zarr")
    assert attrs == attributes(tmp_path / "plain.zarr")
    assert attrs["spatial:dimensions"] == ["lat", "lon"] and attrs["spatial:shape"] == [53, 61]
    # Each dimension that is named is one of the bands' arrays.
    array = json.loads((tmp_path / "run.zarr" / "B02" / "zarr.json").read_text())
    assert array["dimension_names"][-2:] == attrs["spatial:dimensions"]


@pytest.mark.parametrize("how", ["run", "plain"])
def test_xarray_and_rioxarray_find_crs_and_grid(tmp_path, how):
    obj = as_dataset(*make_cube(dtype="uint16"))
    if how == "run":
        xr_cloudfree.to_zarr(obj, tmp_path / "out.zarr", "2021-06-03", model="linear", nodata=0, shard=32)
    else:
        io.write(xr_cloudfree.fill(obj, "2021-06-03", model="linear", nodata=0), tmp_path / "out.zarr")
    attrs = attributes(tmp_path / "out.zarr")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = xr.open_zarr(tmp_path / "out.zarr", decode_coords="all")
    assert opened.rio.crs.to_string() == opened.B02.rio.crs.to_string() == attrs["proj:code"]
    assert list(opened.rio.transform(recalc=True))[:6] == attrs["spatial:transform"]
    assert list(opened.rio.bounds()) == attrs["spatial:bbox"] and list(opened.rio.shape) == attrs["spatial:shape"]


@pytest.mark.parametrize(("how", "needed"), [("plain", (3, 12)), ("run", (3, 13))])
def test_gdal_finds_crs_grid_and_values(tmp_path, how, needed):
    """GDAL reads the format from 3.12 on, shards from 3.13 on; older ones know a draft of it."""
    rasterio = pytest.importorskip("rasterio")
    if tuple(map(int, rasterio.__gdal_version__.split(".")[:2])) < needed:
        pytest.skip(f"GDAL {rasterio.__gdal_version__} cannot read these arrays")
    obj = as_dataset(*make_cube(dtype="uint16"))
    if how == "run":
        xr_cloudfree.to_zarr(obj, tmp_path / "out.zarr", "2021-06-03", model="linear", nodata=0, shard=32)
    else:
        io.write(xr_cloudfree.fill(obj, "2021-06-03", model="linear", nodata=0), tmp_path / "out.zarr")
    attrs = attributes(tmp_path / "out.zarr")
    expected = io.open_store(tmp_path / "out.zarr", mask_and_scale=False)
    with rasterio.open(f'ZARR:"{tmp_path / "out.zarr"}":/B02') as file:
        assert file.crs.to_string() == attrs["proj:code"] and list(file.transform)[:6] == attrs["spatial:transform"]
        np.testing.assert_array_equal(file.read(1), expected.B02)


def test_south_up_and_degrees(tmp_path):
    io.write(make_image(y=(40.0, 40.25, 40.5), x=(-8.0, -7.5), crs="EPSG:4326"), tmp_path / "out.zarr")
    attrs = attributes(tmp_path / "out.zarr")
    assert attrs["spatial:transform"] == [0.5, 0.0, -8.25, 0.0, 0.25, 39.875]
    assert attrs["spatial:bbox"] == [-8.25, 39.875, -7.25, 40.625] and attrs["proj:code"] == "EPSG:4326"


def test_a_crs_without_code_is_wkt(tmp_path):
    from rasterio.crs import CRS

    io.write(make_image(crs=LAEA), tmp_path / "out.zarr")
    attrs = attributes(tmp_path / "out.zarr")
    assert "proj:code" not in attrs and CRS.from_wkt(attrs["proj:wkt2"]) == CRS.from_string(LAEA)


@pytest.mark.parametrize(
    ("image", "conventions"),
    [
        (make_image(crs=None), {"spatial"}),
        (make_image(y=(10.0, 9.0, 7.0)), {"proj"}),
        (make_image(x=(3.0,)), {"proj"}),
        (make_image().drop_vars(["y", "x"]), {"proj"}),
        (make_image(x=(float("nan"), 4.0)), {"proj"}),
    ],
    ids=["no CRS", "uneven", "one column", "no coordinates", "NaN"],
)
def test_what_is_unknown_is_left_out(image, conventions):
    attrs = geozarr.with_conventions(image).attrs
    assert set(registered(attrs)) == conventions
    assert {key.partition(":")[0] for key in attrs if ":" in key} == conventions


def test_nothing_known():
    image = make_image(crs=None).drop_vars(["y", "x"])
    assert geozarr.with_conventions(image).attrs == {}


def test_coordinates_in_single_precision_are_even():
    x = np.linspace(-8.5, -8.4, 1000, dtype="float32")
    image = xr.Dataset({"red": (("y", "x"), np.zeros((2, 1000)))}, coords={"y": [1.0, 2.0], "x": x})
    assert geozarr.with_conventions(image).attrs["spatial:transform"][0] == pytest.approx(0.1 / 999, rel=1e-4)


def test_a_part_has_its_own_grid(tmp_path):
    """Attributes of the store that an image was cut from would put it in the wrong place."""
    io.write(make_image(), tmp_path / "whole.zarr")
    for name, opened in (
        ("ours", io.open_store(tmp_path / "whole.zarr")),
        ("xarray", xr.open_zarr(tmp_path / "whole.zarr", decode_coords="all")),
    ):
        io.write(opened.isel(y=slice(1, 3)), tmp_path / f"{name}.zarr")
        attrs = attributes(tmp_path / f"{name}.zarr")
        assert attrs["spatial:transform"][5] == 4_399_995.0 and attrs["spatial:shape"] == [2, 2]
        assert len(registered(attrs)) == 2


def test_a_store_opens_without_what_describes_the_store(tmp_path):
    io.write(make_image().assign_attrs(title="mine"), tmp_path / "out.zarr")
    assert io.open_store(tmp_path / "out.zarr").attrs == {"title": "mine"}
    assert io.open_store(tmp_path / "out.zarr").rio.crs.to_epsg() == 32629


def test_other_conventions_stay():
    other = {"uuid": "b77365e5-2b0c-4141-b917-c03b7c68e935", "name": "license"}
    image = make_image().assign_attrs(zarr_conventions=[other], license={"spdx": "CC0-1.0"})
    for _ in range(2):  # the second time it has those of the first
        image = geozarr.with_conventions(image)
        assert [entry["name"] for entry in image.attrs["zarr_conventions"]] == ["license", "proj", "spatial"]
    assert geozarr.without_conventions(image.attrs) == {"zarr_conventions": [other], "license": {"spdx": "CC0-1.0"}}


@pytest.mark.parametrize(
    "attrs", [{"proj:code": "EPSG:32629"}, {"zarr_conventions": "none"}, {"zarr_conventions": [1]}]
)
def test_attributes_that_are_not_registered_are_the_users(attrs):
    assert geozarr.without_conventions(attrs) == attrs
