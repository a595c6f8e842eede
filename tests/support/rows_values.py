"""Values and metadata that cannot be right: the error, and what the remedy gives."""

import json

import numpy as np
import xarray as xr

from tests.support.malformed import (
    NX,
    NY,
    Row,
    as_bands,
    changed,
    cube,
    fill,
    numbers,
    offset_jump,
    pair,
)
from xr_cloudfree import errors

E = errors
V, T = ValueError, TypeError
LATE_OFFSET = "cube.where(cube['time'] < np.datetime64('2021-06-03'), cube - 0.1)"


def values_of(image):
    """The bands of an image as floats; what is missing is NaN: zero marks it here in whole numbers."""
    if isinstance(image, xr.Dataset):
        image = image["reflectance"] if "reflectance" in image else image.to_dataarray("band")
    values = image.to_numpy()
    return np.where((values == 0) | np.isnan(values), np.nan, values.astype(float))


def gives(make, scale=1.0, offset=0.0):
    """Whether an image is what another cube gives, in its own units."""

    def right(image):
        expected, found = values_of(fill(*make())), values_of(image) * scale + offset
        near = 1 if np.nanmedian(expected) > 10 else 2e-4  # what rounding makes
        return found.shape == expected.shape and np.allclose(found, expected, rtol=0, atol=near, equal_nan=True)

    return right


def plain():
    return pair()


def part(*bands):
    return lambda: pair(bands=list(bands))


def digits(**options):
    return numbers(scale=1e-4, **options)


IS_PLAIN, DIGITS_ARE_PLAIN = gives(plain), gives(digits)


def dataset(change, **options):
    """The cube and its mask in one Dataset, so that a date can be taken out of both."""
    ds, given = cube(**options)
    return ds.assign(reflectance=change(ds["reflectance"])), given


def described(coords=None, **attrs):
    """Digital numbers with something told of them beside CF."""
    da, options = numbers(attrs=attrs)
    return da.assign_coords(coords or {}), options


def edged(value, bands=slice(None), where=slice(0, 4), make=pair, **options):
    """A number that was never measured along the left edge of three dates, which the mask calls clear."""
    da, given = make(**options)
    da = da.copy(deep=True)
    da[1:4, bands, :, where] = value
    return da, given | {"clear": xr.ones_like(given["clear"])}


def without_edge(make=pair, nodata=np.nan, **options):
    return lambda: edged(nodata, make=make, **options)


def landscape():
    rng = np.random.default_rng(2)
    return np.array([0.05, 0.15, 0.35])[:, None, None] + rng.uniform(0, 0.02, (3, NY, NX))


def jump(form="array", dtype="float32", bands=3):
    """Sentinel-2 of which the dates from the fourth on carry the offset; one corner was not measured."""
    da, options = offset_jump(landscape(), late=0.1)
    clear = options["clear"]
    if dtype != "float32":
        da = (da * 1e4).round().astype(dtype)
        da[:, :, :3, :3] = 0
        options |= {"scale": 1e-4, "nodata": 0}
    da = da.isel(band=slice(3 - bands, 3))
    if form == "variables":
        ds = da.to_dataset("band").assign(SCL=clear.astype("uint8") * np.uint8(4))
        return ds, {name: value for name, value in options.items() if name != "clear"}
    return da, options


def no_jump(**options):
    def make():
        da, given = offset_jump(landscape(), late=0.0)
        da[:, :, :3, :3] = np.where(options.get("dtype", "float32") == "float32", da[:, :, :3, :3], np.nan)
        return da.isel(band=slice(3 - options.get("bands", 3), 3)), given

    return make


def right_jump(scale=1.0, **options):
    def right(image):
        found, expected = values_of(image) * scale, values_of(fill(*no_jump(**options)()))
        return np.allclose(np.where(found == 0, np.nan, found), expected, atol=2e-4, equal_nan=True)

    return right


def baselines():
    """Digital numbers, of which the last four dates carry the offset, as their baseline tells."""
    da, options = numbers(nodata=0)
    da = da.where(da.time < da.time[3], da + 1000).astype("uint16")
    versions = ["02.14", "03.01", "03.01", "04.00", "05.09", "05.10", "05.10"]
    return da.assign_coords({"s2:processing_baseline": ("time", versions)}), options


def two_kinds():
    """Bands of which one has a scale of its own, as `raster:bands` tells."""
    entries = np.empty(3, object)
    entries[:] = [{"scale": 1e-4, "offset": 0}, {"scale": 1e-4, "offset": 0}, {"scale": 1e-3, "offset": 0}]
    return described({"raster:bands": ("band", entries)})


def by_date():
    entries = np.empty(7, object)
    entries[:] = [{"scale": 1e-4, "offset": 0}] * 3 + [{"scale": 1e-4, "offset": -0.1}] * 4
    return described({"raster:bands": ("time", entries)})


def raster_bands(*entries):
    return described(**{"raster:bands": list(entries)})


def deep(da):
    """Two dates from which the offset was subtracted twice."""
    return da.where(~da.time.isin(da.time[[1, 5]]), da * 0.5 - 0.2)


def without_dates(ds_and_options):
    ds, options = ds_and_options
    return ds.isel(time=[0, 2, 3, 4, 6]), options


OTHER_DATES = "cube.sel(time=~cube['time'].dt.strftime('%Y-%m-%d').isin(['2021-05-10', '2021-06-30']))"
GOOD = {"scale": 1e-4, "offset": 0}


def told(name, make, says, cure="scale=1e-4, offset=0", holds=DIGITS_ARE_PLAIN):
    """A row of digital numbers of whose meaning something was told that cannot be."""
    return Row(name, make, E.ScalingError, V, says, cure, holds=holds)


VALUES = [
    Row("digital numbers", numbers, E.ScalingError, V, ("uint16",), "scale=1e-4, offset=0", holds=DIGITS_ARE_PLAIN),
    Row(
        "digital numbers as floats",
        lambda: numbers("float32"),
        E.ScalingError,
        V,
        ("median", "digital numbers"),
        "scale=1e-4, offset=0",
        True,
        DIGITS_ARE_PLAIN,
    ),
    Row("scaled twice", lambda: pair(scale=1e-4), E.ScalingError, V, ("scaled twice",), "scale=1", True, IS_PLAIN),
    Row(
        "wrapped below zero",
        lambda: numbers(change=lambda v: (v - 1000 + (v == 1000)) % 2**16, scale=1e-4),
        E.ScalingError,
        V,
        ("wrapped below zero", "65536"),
        "cube.where((cube < 60000) | (cube == 0), cube.astype('int32') - 65536)",
        True,
        gives(digits, 1, 1000),
    ),
    Row(
        "wrapped below zero, then scaled",
        lambda: changed(lambda da: ((da * 1e4).round() - 999.5) % 2**16 * 1e-4),
        E.ScalingError,
        V,
        ("wrapped below zero",),
        "cube.where(cube < 6, cube - 6.5536)",
        True,
        gives(plain, 1, 0.09995),
    ),
    Row(
        "offset in numbers",
        lambda: numbers(change=lambda v: v + 1000, scale=1e-4, offset=-1000),
        E.ScalingError,
        V,
        ("-1000",),
        "offset=-0.1",
        holds=gives(digits, 1, -1000),
    ),
    Row(
        "offset jumps",
        jump,
        E.ScalingError,
        V,
        ("shift by about 0.1", "2021-06-03"),
        LATE_OFFSET,
        True,
        right_jump(),
    ),
    Row(
        "offset jumps in two bands",
        lambda: jump(bands=2),
        E.ScalingError,
        V,
        ("shift by about 0.1",),
        LATE_OFFSET,
        True,
        right_jump(bands=2),
    ),
    Row(
        "offset jumps in numbers",
        lambda: jump(dtype="uint16"),
        E.ScalingError,
        V,
        ("shift by about 0.1",),
        "cube.where((cube['time'] < np.datetime64('2021-06-03')) | (cube == 0), cube.astype('int32') - 1000)",
        True,
        right_jump(1e-4, dtype="uint16"),
    ),
    Row(
        "offset jumps beside a mask",
        lambda: jump("variables", "uint16"),
        E.ScalingError,
        V,
        ("shift by about 0.1",),
        "cube.assign({b: cube[b].where((cube['time'] < np.datetime64('2021-06-03')) | (cube[b] == 0), "
        "cube[b].astype('int32') - 1000) for b in ['B02', 'B04', 'B08']})",
        True,
        right_jump(1e-4, dtype="uint16"),
    ),
    Row(
        "zeros without nodata",
        lambda: changed(lambda da: da.where(da.x > da.x[9], 0)),
        E.ScalingError,
        V,
        ("zero in every band",),
        "nodata=0",
        True,
        gives(lambda: changed(lambda da: da.where(da.x > da.x[9]))),
    ),
    Row(
        "percent",
        lambda: changed(lambda da: da * 100),
        E.ScalingError,
        V,
        ("median", "0 and about 1"),
        "scale=0.01",
        True,
        gives(plain, 0.01),
    ),
    Row(
        "one band in percent",
        lambda: dataset(lambda da: da.where(da.band != "nir", da * 100)),
        E.ScalingError,
        V,
        ("above 4", "all bands"),
        "bands=['blue', 'red']",
        True,
        gives(part("blue", "red")),
    ),
    Row(
        "two dates in percent",
        lambda: dataset(lambda da: da.where(~da.time.isin(da.time[[1, 5]]), da * 100)),
        E.ScalingError,
        V,
        ("above 4", "2021-05-10, 2021-06-30"),
        OTHER_DATES,
        True,
        gives(lambda: without_dates(cube())),
    ),
    Row(
        "offset subtracted twice",
        lambda: changed(lambda da: da * 0.5 - 0.1),
        E.ScalingError,
        V,
        ("below -0.02", "once"),
        "offset=0.1",
        True,
        gives(lambda: changed(lambda da: da * 0.5), 1, 0.1),
    ),
    Row(
        "offset subtracted twice by the call",
        lambda: numbers(change=lambda v: v // 2, scale=1e-4, offset=-0.1),
        E.ScalingError,
        V,
        ("below -0.02", "once"),
        "offset=0",
        True,
        gives(lambda: numbers(change=lambda v: v // 2, scale=1e-4)),
    ),
    Row(
        "offset subtracted twice on two dates",
        lambda: dataset(deep),
        E.ScalingError,
        V,
        ("below -0.02", "2021-05-10, 2021-06-30"),
        OTHER_DATES,
        True,
        gives(lambda: without_dates(cube())),
    ),
    Row(
        "edge of one number",
        lambda: edged(0.9),
        E.ScalingError,
        V,
        ("at the edge", "0.9", "3 of 3 bands"),
        "nodata=0.899999976158142",
        True,
        gives(without_edge()),
    ),
    Row(
        "edge of one number in one band",
        lambda: edged(0.0123, bands=1),
        E.ScalingError,
        V,
        ("at the edge", "1 of 3 bands"),
        "nodata=0.012299999594688416",
        True,
        lambda image: (values_of(image)[1] > 0.04).all(),
    ),
    Row(
        "edge of one number and no nodata",
        lambda: edged(10, make=digits, nodata=None),
        E.ScalingError,
        V,
        ("at the edge", "hold 10"),
        "nodata=10",
        True,
        gives(without_edge(make=digits, nodata=0), 1),
    ),
    Row(
        "edge of another number than nodata",
        lambda: edged(10, make=digits),
        E.ScalingError,
        V,
        ("at the edge", "nodata 0"),
        "cube.where(cube != 10, 0)",
        True,
        gives(without_edge(make=digits, nodata=0), 1),
    ),
    Row(
        "nodata out of range",
        lambda: numbers(scale=1e-4, nodata=-9999),
        E.ScalingError,
        V,
        ("uint16",),
        "nodata=0",
        holds=DIGITS_ARE_PLAIN,
    ),
    Row(
        "nodata a fraction",
        lambda: numbers(scale=1e-4, nodata=0.5),
        E.ScalingError,
        V,
        ("0.5",),
        "nodata=0",
        holds=DIGITS_ARE_PLAIN,
    ),
    Row(
        "nodata not told",
        lambda: numbers("int16", scale=1e-4, nodata=None),
        E.ScalingError,
        V,
        ("no clear observation", "int16"),
        "nodata=0",
        True,
        DIGITS_ARE_PLAIN,
    ),
    Row(
        "nodata beyond float32",
        lambda: cube(nodata=1e39),
        E.ScalingError,
        V,
        ("1e+39",),
        "nodata=-9999",
        holds=lambda image: IS_PLAIN(image["reflectance"].where(image["reflectance"] != -9999)),
    ),
    Row("scale zero", lambda: cube(scale=0), E.OptionError, V, ("scale is 0", "positive"), "scale=1", holds=IS_PLAIN),
    Row("scale NaN", lambda: cube(scale=np.nan), E.OptionError, V, ("nan", "positive"), "scale=1", holds=IS_PLAIN),
    Row(
        "scale as text",
        lambda: cube(scale="1e-4"),
        E.OptionTypeError,
        T,
        ("'1e-4'", "number"),
        "scale=1",
        holds=IS_PLAIN,
    ),
    Row(
        "offset infinite",
        lambda: cube(offset=np.inf),
        E.OptionError,
        V,
        ("inf", "finite"),
        "scale=1, offset=0",
        holds=IS_PLAIN,
    ),
    Row(
        "nodata as text",
        lambda: numbers(scale=1e-4, nodata="none"),
        E.OptionTypeError,
        T,
        ("'none'",),
        "scale=1e-4, offset=0, nodata=0",
        holds=DIGITS_ARE_PLAIN,
    ),
    Row(
        "scale in words",
        lambda: numbers(attrs={"scale_factor": "tenth"}),
        E.ScalingError,
        V,
        ("scale_factor is 'tenth'",),
        "scale=1e-4, offset=0",
        holds=DIGITS_ARE_PLAIN,
    ),
    Row(
        "negative scale",
        lambda: numbers(attrs={"scale_factor": -1e-4}),
        E.ScalingError,
        V,
        ("-0.0001",),
        "scale=1e-4",
        holds=DIGITS_ARE_PLAIN,
    ),
    Row(
        "nodata in words",
        lambda: numbers(attrs={"scale_factor": 1e-4, "_FillValue": "none"}, nodata=None),
        E.ScalingError,
        V,
        ("_FillValue is 'none'",),
        "nodata=0",
        holds=DIGITS_ARE_PLAIN,
    ),
    Row(
        "two values for nodata",
        lambda: numbers("int16", attrs={"scale_factor": 1e-4, "_FillValue": 0, "missing_value": -1}, nodata=None),
        E.ScalingError,
        V,
        ("_FillValue 0, missing_value -1",),
        "nodata=0",
        holds=DIGITS_ARE_PLAIN,
    ),
    Row(
        "offset NaN in the attributes",
        lambda: numbers(attrs={"scale_factor": 1e-4, "add_offset": np.nan}),
        E.ScalingError,
        V,
        ("the offset is nan",),
        "offset=0",
        holds=DIGITS_ARE_PLAIN,
    ),
    Row(
        "bands stored in two ways",
        lambda: (
            as_bands("B02", "B04", "B08")[0].assign(B08=lambda d: d["B08"].assign_attrs(nodata=0)),
            {"clear": "good"},
        ),
        E.ScalingError,
        V,
        ("B02", "B08", "nodata 0"),
        "bands=['B02', 'B04']",
        holds=gives(part("blue", "red")),
    ),
    told(
        "raster:bands of two kinds",
        two_kinds,
        ("nir has scale 0.001", "blue has scale 0.0001"),
        "bands=['blue', 'red']",
        holds=gives(lambda: digits(bands=["blue", "red"])),
    ),
    told(
        "raster:bands by date",
        by_date,
        ("raster:bands differs between dates",),
    ),
    told(
        "raster:bands of fewer bands",
        lambda: raster_bands(GOOD, GOOD),
        ("raster:bands tells of 2 bands", "3"),
    ),
    told(
        "raster:bands that is no JSON",
        lambda: described(**{"raster:bands": "[{scale: 1e-4}"}),
        ("raster:bands is", "JSON"),
    ),
    told(
        "raster:bands of numbers",
        lambda: described(**{"raster:bands": json.dumps([1e-4])}),
        ("raster:bands holds", "mapping"),
    ),
    told(
        "raster:bands with a scale in words",
        lambda: raster_bands({"scale": "tenth"}),
        ("raster:bands scale is 'tenth'",),
    ),
    told(
        "raster:bands with a negative scale",
        lambda: raster_bands({"scale": -1e-4}),
        ("raster:bands is -0.0001", "positive"),
        "scale=1e-4",
    ),
    told(
        "raster:bands against nodata",
        lambda: numbers("int16", attrs={"raster:bands": [GOOD | {"nodata": -9999}], "nodata": 0}, nodata=None),
        ("nodata 0, raster:bands -9999",),
        "nodata=0",
    ),
    told(
        "offset told and subtracted",
        lambda: described(
            {"earthsearch:boa_offset_applied": ("time", [True] * 7)},
            **{"raster:bands": [{"scale": 1e-4, "offset": -0.1}]},
        ),
        ("boa_offset_applied", "-0.1"),
        "offset=0",
    ),
    told(
        "baselines of both kinds",
        baselines,
        ("4 of 7 dates", "s2:processing_baseline"),
        "cube.where((~cube['time'].dt.strftime('%Y-%m-%d').isin(['2021-06-03', '2021-06-11', '2021-06-30', "
        "'2021-07-17'])) | (cube == 0), cube.astype('int32') - 1000), with scale=0.0001, offset=0",
    ),
    told(
        "EOPF attributes that are none",
        lambda: described(_eopf_attrs="scale_factor=1e-4"),
        ("_eopf_attrs is",),
    ),
    told(
        "EOPF offset in numbers",
        lambda: described(_eopf_attrs={"scale_factor": 1e-4, "add_offset": -1000}),
        ("-1000", "digital numbers"),
        "offset=-0.1",
    ),
    told(
        "quantification of zero",
        lambda: described(QUANTIFICATION_VALUE=0, BOA_ADD_OFFSET=-1000),
        ("QUANTIFICATION_VALUE is 0",),
    ),
    told(
        "offsets of fewer bands",
        lambda: described(QUANTIFICATION_VALUE=10000, BOA_ADD_OFFSET=[-1000, -1000]),
        ("BOA_ADD_OFFSET tells of 2 bands",),
    ),
    told(
        "GDAL scales of two kinds",
        lambda: described(scales=(1e-4, 1e-4, 2e-4), offsets=(0.0, 0.0, 0.0)),
        ("nir has scale 0.0002",),
        "bands=['blue', 'red']",
        holds=gives(lambda: digits(bands=["blue", "red"])),
    ),
]
