"""Outputs that cannot be written as they are: refused with a remedy, or converted with one warning."""

import datetime as dt
import json
import re
import subprocess
import sys
import uuid
import warnings
from decimal import Decimal
from enum import Enum
from pathlib import Path

import affine
import dask.array as da
import numpy as np
import pandas as pd
import pyproj
import pytest
import rasterio
import xarray as xr

import xr_cloudfree
from tests.support.attributes import RasterSpec, cube, objects
from tests.support.commands import run
from tests.support.cubes import DATES, contents, make_cube
from tests.support.malformed import TARGET
from xr_cloudfree import errors, io
from xr_cloudfree.cube.attributes import storable
from xr_cloudfree.storage.geotransform import transform_of

HOW = {"model": "linear", "layers": "filled"}
N = len(DATES)


class Level(Enum):
    """Somebody else's enumeration."""

    A = "L2A"


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    monkeypatch.setattr("os.fsync", lambda file: None)


def packed(**attrs):
    """A cube as xarray decodes one that is packed."""
    ds = cube()
    ds["reflectance"].attrs |= attrs
    ds["reflectance"].encoding = {"dtype": "uint16", "scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0}
    return ds


def fill(ds, date=TARGET, **options):
    return xr_cloudfree.fill(ds, date, **{"clear": "good"} | HOW | options)


def stored(ds, folder, date=TARGET, **options):
    """What `to_zarr` writes, which `io.write` of what `fill` gives writes as well."""
    made = xr_cloudfree.to_zarr(ds, folder / "run.zarr", date, **{"clear": "good"} | HOW | options)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.CloudfreeWarning)
        io.write(fill(ds, date, **options), folder / "image.zarr")
    made, image = made.compute(), io.open_store(folder / "image.zarr").compute()
    xr.testing.assert_identical(made, image)
    return made


def warned(call, *words):
    """What a call gives, and that it warned once, of all that is to be told."""
    with pytest.warns(errors.CloudfreeWarning) as record:
        made = call()
    [told] = [str(one.message) for one in record if issubclass(one.category, errors.CloudfreeWarning)]
    for word in words:
        assert word in told
    return made


# -- attributes

CONVERTED = [
    ("a CRS", pyproj.CRS(32629), pyproj.CRS(32629).to_wkt()),
    ("rasterio's CRS", rasterio.crs.CRS.from_epsg(32629), rasterio.crs.CRS.from_epsg(32629).to_wkt()),
    ("a set", {"b", "a"}, ["a", "b"]),
    ("a set of several kinds", frozenset({2, "a"}), ["a", 2]),
    ("a date and time", dt.datetime(2021, 5, 1, 10), "2021-05-01T10:00:00"),
    ("a date", dt.date(2021, 5, 1), "2021-05-01"),
    ("a time stamp", pd.Timestamp("2021-05-01", tz="UTC"), "2021-05-01T00:00:00+00:00"),
    ("datetime64", np.datetime64("2021-05-01"), "2021-05-01T00:00:00"),
    ("dates", DATES[:2], ["2021-05-01T00:00:00", "2021-05-10T00:00:00"]),
    ("no time", pd.NaT, None),
    ("a duration", dt.timedelta(days=1), "P1DT0H0M0S"),
    ("nested", {"spec": {"crs": pyproj.CRS(4326), "n": np.int16(3)}, "of": ({1, 2},)}, None),
    ("keys of other types", {4326: "a", True: "b"}, {"4326": "a", "True": "b"}),
    ("a path", Path("a/b.tif"), "a/b.tif"),
    ("a decimal", Decimal("0.1"), "0.1"),
    ("an identifier", uuid.UUID(int=1), str(uuid.UUID(int=1))),
    ("an enumeration", Level.A, "L2A"),
    ("bytes", b"abc", "abc"),
    ("a transform", affine.Affine(10, 0, 5, 0, -10, 6), [10.0, 0.0, 5.0, 0.0, -10.0, 6.0]),
    ("a type", np.uint16, "uint16"),
    ("an index", pd.Index([1, 2]), [1, 2]),
]
SAME = [
    ("an array", np.array([[1, 2]]), [[1, 2]]),
    ("an array of text", np.array(["a", "b"]), ["a", "b"]),
    ("a number of numpy", np.float32(0.5), 0.5),
    ("a number of 16 bytes", np.longdouble(0.5), 0.5),
    ("a truth of numpy", np.bool_(True), True),
    ("nothing", None, None),
    ("a tuple", (1, ("a", None)), [1, ["a", None]]),
    ("a dict", {"a": [np.int64(1), {"b": np.arange(2)}]}, {"a": [1, {"b": [0, 1]}]}),
]
LEFT_OUT = [
    ("an object", RasterSpec()),
    ("an object within", {"a": [RasterSpec()]}),
    ("a class", RasterSpec),
    ("a complex number", 1j),
    ("complex numbers", np.array([1j])),
    ("bytes that are no text", b"\xff"),
    ("a function", len),
    ("an array of xarray", xr.DataArray([1])),
    ("a lazy array", da.zeros(3)),
]


@pytest.mark.parametrize(("value", "expected"), [row[1:] for row in CONVERTED], ids=[row[0] for row in CONVERTED])
def test_attributes_that_are_converted(value, expected):
    made = warned(lambda: storable(cube(odd=value)), "'odd' of the Dataset", type(value).__name__)
    json.dumps(made.attrs["odd"])
    if expected is not None:
        assert made.attrs["odd"] == expected


@pytest.mark.parametrize(("value", "expected"), [row[1:] for row in SAME], ids=[row[0] for row in SAME])
def test_attributes_that_stay(value, expected):
    assert storable(cube(odd=value)).attrs["odd"] == expected


@pytest.mark.parametrize("value", [row[1] for row in LEFT_OUT], ids=[row[0] for row in LEFT_OUT])
def test_attributes_that_are_left_out(value):
    assert warned(lambda: storable(cube(odd=value, kept=1)), "'odd'", "left out").attrs == {"kept": 1}


def test_a_dict_that_holds_itself_is_left_out():
    odd = {}
    odd["self"] = odd
    assert warned(lambda: storable(cube(odd=odd)), "'odd'").attrs == {}


def test_one_warning_for_all_and_nothing_changed_in_memory(tmp_path):
    ds = cube(crs=pyproj.CRS(32629), spec=RasterSpec())
    ds["reflectance"].attrs |= {"spec": RasterSpec(), "at": dt.date(2021, 5, 1), 7: "seven", ("a", "b"): 1}
    ds["y"].attrs["spec"] = RasterSpec()
    ds["good"].attrs["spec"] = RasterSpec()  # of the mask nothing is written
    image = fill(ds)
    assert image.attrs["spec"] is ds.attrs["spec"] and image["reflectance"].attrs["at"] == dt.date(2021, 5, 1)
    made = warned(lambda: stored(ds, tmp_path), "'crs' of the Dataset", "'spec' of the Dataset, ", "'at'", "'7'")
    assert made.attrs["crs"] == pyproj.CRS(32629).to_wkt() and "spec" not in made.attrs
    assert made["reflectance"].attrs["at"] == "2021-05-01" and made["reflectance"].attrs["7"] == "seven"
    xr.testing.assert_equal(made, image)
    assert made.rio.crs.to_epsg() == 32629
    files = warned(lambda: io.write(image, tmp_path / "out.tif"), "'at' of reflectance", "'spec'")
    with rasterio.open(files[0]) as file:
        assert file.tags()["at"] == "2021-05-01" and "spec" not in file.tags() and file.crs.to_epsg() == 32629


def test_the_bytes_are_the_same_in_other_processes(tmp_path):
    """Nothing of an address in memory, or of the order of a set, is written; so a run goes on in another process."""
    code = """if True:
        import os, sys, warnings
        warnings.simplefilter("ignore")
        os.fsync = lambda file: None
        import pyproj, xr_cloudfree
        from tests.support.attributes import RasterSpec, cube, objects
        ds = cube(spec=RasterSpec(), names={"a", "b", "c", "d"}, crs=pyproj.CRS(32629))
        ds = ds.assign_coords(odd=("time", objects([{"a", i} for i in range(ds.sizes["time"])])))
        dates = ["2021-06-03", "2021-05-21"]
        xr_cloudfree.to_zarr(ds, sys.argv[1], dates, clear="good", model="linear", layers="filled")
    """
    for name in ("one", "two"):
        subprocess.run([sys.executable, "-c", code, str(tmp_path / f"{name}.zarr")], check=True)
    assert contents(tmp_path / "one.zarr") == contents(tmp_path / "two.zarr")
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "one.zarr")], check=True)


# -- coordinates


COORDINATES = [
    ("text", list("abcdefg"), list("abcdefg"), None),
    ("lists", [[i, "a"] for i in range(N)], [f'[{i}, "a"]' for i in range(N)], "JSON"),
    ("tuples and nothing", [None, *[(i,) for i in range(N - 1)]], ["null", *[f"[{i}]" for i in range(N - 1)]], "JSON"),
    ("dicts", [{"b": i, "a": {2, 1}} for i in range(N)], [f'{{"a": [1, 2], "b": {i}}}' for i in range(N)], "JSON"),
    ("text and nothing", ["a", None] * 3 + ["b"], ['"a"', "null"] * 3 + ['"b"'], "JSON"),
    ("numbers and nothing", [0.5, None, 1, 2, 3, 4, 5], [0.5, np.nan, 1, 2, 3, 4, 5], "numbers"),
    ("whole numbers", list(range(N)), list(range(N)), "whole numbers"),
    ("truths", [True, False] * 3 + [True], [True, False] * 3 + [True], "booleans"),
    ("dates", [dt.date(2021, 5, 1)] * N, ["2021-05-01"] * N, "text"),
    ("bytes", [b"ab"] * N, ["ab"] * N, "text"),
    ("transforms", [affine.Affine(1, 0, 0, 0, 1, 0)] * N, ["[1.0, 0.0, 0.0, 0.0, 1.0, 0.0]"] * N, "JSON"),
    ("objects", [RasterSpec()] * N, None, "left out"),
]


@pytest.mark.parametrize(
    ("values", "expected", "says"), [row[1:] for row in COORDINATES], ids=[r[0] for r in COORDINATES]
)
def test_coordinates_of_objects(tmp_path, values, expected, says):
    ds = cube().assign_coords({"proj:odd": ("time", objects(values))})
    assert type(fill(ds)["proj:odd"].item()) in (type(values[3]), float)  # xarray has NaN for None
    made = warned(lambda: stored(ds, tmp_path, None), "'proj:odd'", says) if says else stored(ds, tmp_path, None)
    if expected is None:
        assert "proj:odd" not in made.coords
    else:
        np.testing.assert_array_equal(made["proj:odd"], expected)


def test_coordinates_of_one_object_of_numpy_or_of_dask(tmp_path):
    ds = cube().assign_coords(
        {
            "proj:transform": xr.Variable((), np.array({0.0, 10.0, -10.0}, object)),
            "code": ("time", np.array([b"ab"] * N)),
            "wide": ("time", np.arange(N, dtype=np.longdouble)),
            "lazy": ("time", da.from_array(objects([dt.date(2021, 5, 1)] * N), chunks=3)),
        }
    )
    made = warned(lambda: stored(ds, tmp_path), "'proj:transform'", "'code'", "'wide'", "'lazy'")
    assert made["proj:transform"].item() == "[-10.0, 0.0, 10.0]" and made["lazy"].item() == "2021-05-01"
    assert made["code"].item() == "ab" and made["wide"].item() == 3


def test_names_that_are_no_text(tmp_path):
    ds = cube().assign_coords({5: 1, ("a", "b"): 2, "a/b": 3})
    made = warned(lambda: stored(ds, tmp_path), "5", "'a/b'", "'a_b'", "tuple")
    assert made["5"] == 1 and made["a_b"] == 3


@pytest.mark.parametrize("name", ["B04/a", "..", "a\\b"])
def test_bands_that_cannot_be_folders(tmp_path, name):
    ds = cube().rename(reflectance=name)
    fill(ds)
    for call in (lambda: stored(ds, tmp_path), lambda: io.write(fill(ds), tmp_path / "a.zarr")):
        with pytest.raises(errors.OutputError, match="folder") as caught:
            call()
        cured = eval(caught.value.remedy, {"cube": ds})
    assert not any(tmp_path.iterdir())
    assert "band" in stored(cured, tmp_path)


# -- what xarray takes for its own


@pytest.mark.parametrize(
    ("attrs", "warns"),
    [
        ({"dtype": "uint16"}, False),
        ({"dtype": np.dtype("float32")}, True),
        ({"dtype": "bool"}, True),
        ({"dtype": "timedelta64[ns]"}, True),
        ({"chunks": (1, 2)}, False),
        ({"compressor": "zstd", "compressors": [1], "shards": 3, "preferred_chunks": {"x": 3}}, False),
        ({"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": 0}, False),
        ({"scale_factor": 1e-4}, False),
        ({"add_offset": np.float32(-0.1)}, False),
        ({"_FillValue": np.uint16(0), "missing_value": 0}, False),
        ({"units": "days since 2000-01-01"}, True),
        ({"units": "days", "calendar": "standard"}, False),
        ({"grid_mapping": "spatial_ref"}, False),
        ({"coordinates": "y x"}, False),
        ({"_Unsigned": "true"}, True),
        ({"_Encoding": "utf-8"}, True),
        ({"_ARRAY_DIMENSIONS": ["a"]}, False),
        ({"nodata": 0}, False),
    ],
    ids=str,
)
def test_attributes_that_xarray_takes_for_its_own(tmp_path, attrs, warns):
    """What is written keeps its packing, and reads as what it was."""
    ds = packed(**attrs)
    plain = fill(packed())
    made = warned(lambda: stored(ds, tmp_path)) if warns else stored(ds, tmp_path)
    raw = xr.open_zarr(tmp_path / "run.zarr", mask_and_scale=False)["reflectance"]
    assert raw.dtype == np.uint16 and raw.attrs["scale_factor"] == 1e-4 and raw.attrs["_FillValue"] == 0
    np.testing.assert_allclose(made["reflectance"], plain["reflectance"].clip(1e-4 - 0.1), rtol=0, atol=0.51e-4)
    assert np.isnan(made["reflectance"].values).sum() == np.isnan(plain["reflectance"].values).sum() > 0
    assert made.rio.crs.to_epsg() == 32629
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", errors.CloudfreeWarning)
        [file, _] = io.write(fill(ds), tmp_path / "out.tif")
    with rasterio.open(file) as opened:
        assert opened.dtypes[0] == "uint16" and opened.scales[0] == 1e-4 and opened.crs.to_epsg() == 32629


def test_attributes_that_are_still_to_be_applied_are_kept_with_the_values(tmp_path):
    """Another scale than that of the file: the values are digital numbers, and are written as they are."""
    ds = packed(scale_factor=2e-4)
    ds["reflectance"] = (ds["reflectance"] / 2e-4).assign_attrs(ds["reflectance"].attrs)
    ds["reflectance"].encoding = packed()["reflectance"].encoding
    image = fill(ds)
    stored(ds, tmp_path)
    raw = xr.open_zarr(tmp_path / "run.zarr", mask_and_scale=False)["reflectance"]
    assert raw.dtype == np.float32 and raw.attrs["scale_factor"] == 2e-4 and "add_offset" not in raw.attrs
    np.testing.assert_array_equal(raw, image["reflectance"])


def test_coordinates_that_say_what_xarray_says(tmp_path):
    ds = cube()
    ds["time"].attrs |= {"units": "days since 2000-01-01", "calendar": "standard", "dtype": "int64"}
    ds["y"].attrs |= {"scale_factor": 10.0, "_FillValue": 1.0, "dtype": "int16"}
    ds["y"].encoding |= {"scale_factor": 10.0, "_FillValue": 1.0, "dtype": "int16"}  # which cannot hold them
    made = stored(ds, tmp_path)
    np.testing.assert_array_equal(made["y"], ds["y"])
    assert made["time"].values == np.datetime64(TARGET)


# -- URLs


@pytest.mark.parametrize("how", ["text", "path"])
@pytest.mark.parametrize("url", ["memory://out.zarr", "https://host/out.zarr"])
def test_stores_at_urls_that_are_no_object_stores(tmp_path, monkeypatch, url, how):
    monkeypatch.chdir(tmp_path)
    where = url if how == "text" else Path(url)
    calls = [
        lambda: xr_cloudfree.to_zarr(cube(), where, TARGET, clear="good", **HOW),
        lambda: xr_cloudfree.batch(cube(), where, TARGET, clear="good", **HOW),
        lambda: xr_cloudfree.verify(where),
    ]
    for call in calls:
        with pytest.raises(errors.OutputError, match=r"at a URL of the scheme (memory|https)") as caught:
            call()
        assert "out." in caught.value.remedy
    assert not any(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["text", "path"])
@pytest.mark.parametrize("url", ["s3://b/out.zarr", "gs://b/a/out.zarr", "memory://out.zarr", "https://host/out.zarr"])
def test_images_at_urls(tmp_path, monkeypatch, url, how):
    monkeypatch.chdir(tmp_path)
    image = fill(cube())
    for name in (url, url.replace(".zarr", ".tif")):
        with pytest.raises(errors.OutputError, match="at a URL") as caught:
            io.write(image, name if how == "text" else Path(name))
        assert url.rsplit(".", 1)[0] in caught.value.found and "out." in caught.value.remedy
    assert not any(tmp_path.iterdir())


def test_the_command_that_copies_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    url = "local://" + str(tmp_path / "there.zarr")
    with pytest.raises(errors.OutputError) as caught:
        io.write(fill(cube()), url)
    here = re.search("out='(.*?)'", caught.value.remedy)[1]
    [made] = io.write(fill(cube()), here)
    made = made.rename(tmp_path / "here.zarr")
    command = caught.value.remedy.split("then: ")[1].replace(f"'{here}'", "'here.zarr'")
    subprocess.run(command.replace("python", sys.executable, 1), shell=True, check=True)
    assert contents(tmp_path / "there.zarr") == contents(made)


@pytest.mark.parametrize(
    "arguments",
    [
        ("fill", "--date", TARGET, "--out", "s3://b/out.zarr"),
        ("fill", "--date", TARGET, "--out", "gs://b/out.tif"),
        ("fill", "--date", TARGET, "--out", "a.tif", "--preview", "s3://b/out.png"),
        ("batch", "--dates", TARGET, "--out", "a.zarr", "--icechunk", "s3://b/out"),
        ("evaluate", "--csv", "memory://out.csv"),
    ],
)
def test_commands_that_would_write_to_urls(tmp_path, monkeypatch, arguments):
    monkeypatch.chdir(tmp_path)
    io.for_zarr(cube()).to_zarr("cube.zarr", zarr_format=3, consolidated=False)
    told = run(arguments[0], "cube.zarr", *arguments[1:], "--clear", "good", code=2)
    option, url = arguments[-2:]
    assert f"at a URL, {url}" in told and f"{option} '{url.rsplit('/', 1)[1]}', then: " in told
    assert [path.name for path in tmp_path.iterdir()] == ["cube.zarr"]


# -- where pixels lie


def test_one_pixel_wide_or_high_is_taken_to_be_square(tmp_path):
    for part, words in (({"x": [5]}, "width"), ({"y": [5]}, "height")):
        image = fill(cube().isel(part))
        [file, _] = warned(lambda image=image: io.write(image, tmp_path / "out.tif", overwrite=True), words, "10 wide")
        with rasterio.open(file) as opened:
            x, y = float(image.x[0]), float(image.y[0])
            assert opened.transform[:6] == (10, 0, x - 5, 0, -10, y + 5)
            np.testing.assert_array_equal(opened.read(), image["reflectance"])


def test_one_pixel_wide_as_the_file_says(tmp_path):
    for told, expected in (("0 30 0 0 0 -10", 30), ("0 30 0 0 0 -60", 10)):  # of another grid, it is not believed
        ds = cube().isel(x=[5])
        ds["spatial_ref"].attrs["GeoTransform"] = told
        image = fill(ds)
        if expected == 30:
            assert transform_of(image["reflectance"])[0] == 30
            io.write(image, tmp_path / "out.tif")
        else:
            warned(lambda image=image: io.write(image, tmp_path / "other.tif"), "square")


def test_one_pixel_of_unknown_size(tmp_path):
    ds = cube().isel(x=[5], y=[7])
    with pytest.raises(errors.OutputError, match="one pixel of unknown size") as caught:
        io.write(fill(ds), tmp_path / "out.tif")
    assert "CRS" not in str(caught.value) and not any(tmp_path.iterdir())
    [file, _] = io.write(fill(eval(caught.value.remedy, {"cube": ds})), tmp_path / "out.tif")
    with rasterio.open(file) as opened:
        assert opened.transform[:6] == (10, 0, 500_045, 0, -10, 4_399_935)


# -- sizes that are not known


def uncounted(array):
    """The same, of which dask does not know how many rows it has."""
    rows = da.from_array(np.ones(array.sizes["y"], bool), chunks=8)
    return xr.DataArray(
        da.from_array(array.values, chunks=-1)[..., rows, :],
        dims=array.dims,
        coords={name: array[name] for name in ("time", "band") if name in array.dims},
        name="reflectance",
    )


@pytest.mark.parametrize("which", ["cube", "clear", "Dataset"])
def test_sizes_that_dask_has_not_counted(tmp_path, which):
    array, clear = (layer.drop_vars(["y", "x"]) for layer in make_cube(shape=(20, 24)))
    expected = xr_cloudfree.fill(array, TARGET, clear=clear, model="linear")
    given = {"cube": array, "clear": clear}
    if which == "Dataset":
        given["cube"] = uncounted(array).to_dataset()
    else:
        given[which] = uncounted(given[which])
    calls = [
        lambda: xr_cloudfree.fill(given["cube"], TARGET, clear=given["clear"], model="linear"),
        lambda: xr_cloudfree.clear_mask(given["cube"], clear=given["clear"]),
        lambda: xr_cloudfree.to_zarr(given["cube"], tmp_path / "a.zarr", TARGET, clear=given["clear"], model="linear"),
    ]
    for call in calls:
        with pytest.raises(errors.DimensionError, match="is unknown: dask has not computed") as caught:
            call()
    remedy = caught.value.remedy.split(", which")[0]
    given[remedy.split(".")[0]] = eval(remedy, given)
    image = calls[0]()
    image = image["reflectance"] if which == "Dataset" else image
    np.testing.assert_array_equal(image, expected)


@pytest.mark.parametrize(
    ("attrs", "options"),
    [
        ({"_FillValue": 0, "scale_factor": 1e-4}, {}),
        ({"nodata": 0, "scale_factor": 1e-4}, {}),
        ({"missing_value": 0}, {"scale": 1e-4}),
        ({"scale_factor": 1e-3}, {"scale": 1e-4}),
        ({"scale_factor": 1.0, "add_offset": 0.0, "_FillValue": -9999}, {"scale": 1e-4}),
        ({"scale_factor": 1e-4, "nodata": -9999}, {"nodata": None}),
    ],
)
def test_outputs_are_read_as_the_caller_said_the_values_are(attrs, options, tmp_path):
    da, clear = make_cube(shape=(6, 7), dtype="uint16")
    stored_as = da.astype("int16").where(clear, -9999).astype("int16")
    stored_as = stored_as.where(stored_as.x != stored_as.x[0], -9999).drop_attrs().assign_attrs(attrs)
    options = {"nodata": -9999, "clear": stored_as.isel(band=0, drop=True) != -9999, "check": False} | options
    image = stored_as.rename("reflectance").cloudfree.fill(date=[TARGET], model="nearest", **options)
    assert (image == -9999).any()
    image.to_dataset().to_zarr(tmp_path / "image.zarr", zarr_format=2)
    read = xr.open_zarr(tmp_path / "image.zarr")["reflectance"]
    np.testing.assert_allclose(read, image.where(image != -9999) * 1e-4, rtol=1e-6)
    assert set(map(float, (v for k, v in image.attrs.items() if k in ("nodata", "_FillValue", "missing_value")))) == {
        -9999.0
    }


@pytest.mark.parametrize("attrs", [{}, {"nodata": 0.0}, {"_FillValue": -9999.0}])
@pytest.mark.parametrize("encoding", [{}, {"_FillValue": np.nan, "dtype": np.dtype("float32")}])
def test_numbers_in_floats_keep_their_mark_for_nodata(attrs, encoding, tmp_path):
    """As xee gives them: digital numbers in float32, where zero marks what is missing."""
    da, clear = make_cube(shape=(6, 7), dtype="uint16")
    da = da.astype("float32").drop_attrs().assign_attrs(attrs).where(da.x != da.x[0], 0)
    da.encoding = dict(encoding)
    how = {"clear": clear, "scale": 1e-4, "nodata": 0, "check": False, "model": "nearest"}
    image = da.cloudfree.fill(date=[TARGET], **how)
    missing = image == 0
    assert missing.any()
    image.to_dataset().to_zarr(tmp_path / "image.zarr", zarr_format=2)
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "image.zarr")["reflectance"], image.where(~missing))
    again = da.cloudfree.to_zarr(tmp_path / "run.zarr", date=[TARGET], **how)["reflectance"]
    np.testing.assert_array_equal(again, image.where(~missing))
