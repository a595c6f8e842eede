"""The table of malformed masks and quality layers: the error, words of its message, a remedy and its result."""

import xarray as xr

from tests.support.cubes import make_cube
from tests.support.malformed import (
    NX,
    NY,
    Row,
    coded,
    cube,
    numbers,
    probability,
    quality,
    resampled,
    truth,
    without_quality,
)
from xr_cloudfree import errors

E = errors
V, T = ValueError, TypeError
TWO = {"flag_values": [4, 9], "flag_meanings": "clear cloud"}
CODES = "[0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]"


def bands_alone():
    """Return bands as variables, without other layers."""
    da, options = few_dates()
    return da.to_dataset("band").rename(blue="B02", red="B04", nir="B08"), options


def few_dates(**options):
    da, _ = make_cube(shape=(NY, NX))
    return da.isel(time=[2, 3]), options


def two_dates(**options):
    ds, given = cube()
    return ds.isel(time=[2, 3]), given | options


def index(**options):
    da, clear = make_cube(shape=(NY, NX))
    return da.sel(band="red", drop=True).rename("NDVI"), ({} if "mask" in options else {"clear": clear}) | options


def index_alone():
    return index()[0], {}


def cloudy():
    ds, _ = cube()
    return ds.assign(cloudy=~ds["good"]), {"mask": "cloudy"}


def decoded_fill():
    """Return a layer decoded by xarray with the fill value 4."""
    ds, options = quality(dtype="float32")
    layer = ds["SCL"].where(ds["SCL"] != 4)
    layer.encoding["_FillValue"] = 4
    return ds.assign(SCL=layer), options


def in_words(name="sky"):
    ds, _ = cube()
    return ds.assign({name: xr.where(ds["good"], "clear", "cloud")}), {"mask": name}


MASKS = [
    Row(
        "boolean mask",
        lambda: cube(clear=None, mask="good"),
        E.MaskTypeError,
        T,
        ("meaning of True",),
        "mask=None, clear=ds.good",
        clear=truth,
    ),
    Row("boolean of cloud", cloudy, E.MaskTypeError, T, ("True means",), "mask=None, clear=~ds.cloudy", clear=truth),
    Row(
        "numbers as clear",
        lambda: quality(clear="SCL"),
        E.MaskTypeError,
        T,
        ("uint8", "boolean"),
        "clear=ds.SCL.isin([2, 4, 5, 6, 7, 11])",
        clear=lambda: truth(True),
    ),
    Row(
        "ones as clear",
        lambda: coded("usable", 1, 0, clear="usable"),
        E.MaskTypeError,
        T,
        ("uint8", "boolean"),
        "clear=ds.usable == 1",
        clear=truth,
    ),
    Row(
        "booleans as objects",
        lambda: coded("usable", True, False, dtype=object, clear="usable"),
        E.MaskTypeError,
        T,
        ("object", "boolean"),
        "clear=ds.usable == True",
        clear=truth,
    ),
    Row(
        "bits as clear",
        lambda: coded("QA_PIXEL", 21824, 22280, dtype="uint16", clear="QA_PIXEL"),
        E.MaskTypeError,
        T,
        ("uint16",),
        "clear=None, mask='QA_PIXEL'",
        clear=truth,
    ),
    Row(
        "probability as clear",
        lambda: probability(clear="cloud_prob"),
        E.MaskTypeError,
        T,
        ("float32",),
        "clear=ds.cloud_prob < 0.4",
        clear=truth,
    ),
    Row("both", lambda: cube(mask="good"), E.MaskError, V, ("both",), "mask=None", clear=truth),
    Row(
        "no mask and too few dates",
        few_dates,
        E.MaskError,
        V,
        ("no quality layer",),
        "clear=cube.isel(band=0, drop=True).notnull()",
    ),
    Row(
        "masks from too few dates",
        lambda: few_dates(mask="series"),
        E.OptionError,
        V,
        ("2 dates", "at least 3"),
        "mask=None, clear=cube.isel(band=0, drop=True).notnull()",
    ),
    Row(
        "too few dates to correct",
        lambda: two_dates(repair=True),
        E.OptionError,
        V,
        ("2 dates", "at least 3"),
        "repair=False",
    ),
    Row(
        "masks of an index",
        lambda: index(mask="series"),
        E.OptionError,
        V,
        ("NDVI", "reflectance"),
        "mask=None, clear=cube.notnull()",
    ),
    Row("an index to correct", lambda: index(repair=True), E.OptionError, V, ("NDVI",), "repair=False", clear=truth),
    Row("no mask of an index", index_alone, E.MaskError, V, ("no quality layer",), "clear=cube.notnull()"),
    Row(
        "series, grown",
        lambda: without_quality(mask="series", dilate=2, repair=True),
        E.MaskError,
        V,
        ("dilate=",),
        "dilate=0",
    ),
    Row(
        "series by a scheme",
        lambda: quality(mask="series", scheme="scl", strict=True, snow="not clear"),
        E.MaskError,
        V,
        ("scheme=, strict=, snow=",),
        'scheme=None, strict=False, snow="clear"',
    ),
    Row(
        "series of a cube in unknown units",
        lambda: (numbers()[0], {"mask": "series", "nodata": 0}),
        E.ScalingError,
        V,
        ("unknown scale",),
        "scale=1e-4, offset=0",
    ),
    Row("no mask beside bands", bands_alone, E.MaskError, V, ("variables: none",), "clear=ds['B02'].notnull()"),
    Row("unknown name", lambda: quality(mask="SLC"), E.MaskError, V, ("'SLC'", "SCL"), "mask='SCL'"),
    Row("name not there", lambda: quality(mask="qc_band"), E.MaskError, V, ("'qc_band'",), "mask=None"),
    Row("unknown scheme", lambda: quality(scheme="slc"), E.MaskError, V, ("'slc'", "fmask"), "scheme='scl'"),
    Row("scheme that is a number", lambda: quality(scheme=3), E.MaskError, V, ("3",), "scheme='scl'"),
    Row("scheme without layer", lambda: quality(scheme="fmask"), E.MaskError, V, ("'fmask'", "SCL"), "scheme=None"),
    Row(
        "nothing tells",
        lambda: quality(name="qa", mask="qa"),
        E.MaskError,
        V,
        ("values of qa",),
        'scheme="scl"',
        clear=lambda: truth(True),
    ),
    Row(
        "OmniCloudMask's codes in cloud_mask",
        lambda: coded("cloud_mask", 0, 2, 3),
        E.MaskError,
        V,
        ("values of cloud_mask", "cloudsen12"),
        "mask=None, clear=ds.cloud_mask == 0",
        clear=lambda: truth(False),
    ),
    Row(
        "mask of digits",
        lambda: quality(dtype=str),
        E.MaskTypeError,
        T,
        ("dtype <U", "numbers"),
        "mask=ds.SCL.astype('float32')",
        clear=lambda: truth(True),
    ),
    Row("mask of words", in_words, E.MaskTypeError, T, ("<U5",), "mask=None, clear=ds.sky == 'clear'", clear=truth),
    Row("mask a number", lambda: quality(mask=5), E.MaskTypeError, T, ("mask= is a int",), "mask=None"),
    Row(
        "mask an array",
        lambda: cube(clear=truth().values),
        E.MaskTypeError,
        T,
        ("ndarray",),
        'clear=xr.DataArray(values, dims=("time", "y", "x"))',
        clear=truth,
    ),
    Row("scheme of clear", lambda: cube(scheme="scl"), E.MaskError, V, ("boolean layer alone",), "scheme=None"),
    Row(
        "options of classes for clear",
        lambda: cube(threshold=0.4, strict=True, snow="not clear"),
        E.MaskError,
        V,
        ("boolean layer alone",),
        'threshold=None, strict=False, snow="clear"',
        clear=truth,
    ),
    Row(
        "snow that is not told",
        lambda: quality(attrs=TWO, snow="not clear"),
        E.MaskError,
        V,
        ("no snow class",),
        'snow="clear"',
    ),
    Row(
        "strict without doubt",
        lambda: quality(attrs=TWO, strict=True),
        E.MaskError,
        V,
        ("no doubtful",),
        "strict=False",
    ),
]

# What layers hold, and what they say of themselves.
LAYERS = [
    Row(
        "flags not understood",
        lambda: quality(attrs={"flag_values": [4, 9], "flag_meanings": "fine foul"}),
        E.MaskError,
        V,
        ("fine, foul",),
        "scheme='scl'",
        clear=lambda: truth(True),
    ),
    Row(
        "flags understood in part",
        lambda: coded("qa", 4, 9, attrs={"flag_values": [4, 9], "flag_meanings": "clear foul"}, mask="qa"),
        E.MaskError,
        V,
        ("unknown flag_meanings: foul",),
        "mask=None, clear=ds.qa.isin([4])",
        clear=truth,
    ),
    Row(
        "flags of two lengths",
        lambda: quality(attrs={"flag_values": [4, 9, 1], "flag_meanings": "clear cloud"}),
        E.MaskError,
        V,
        ("2 flag_meanings, 3 flag_values",),
        "scheme='scl'",
        clear=lambda: truth(True),
    ),
    Row(
        "flags in words",
        lambda: quality(attrs={"flag_values": "a b", "flag_meanings": "clear cloud"}),
        E.MaskError,
        V,
        ("0 flag_values",),
        "scheme='scl'",
    ),
    Row(
        "flags_definition that is no table",
        lambda: quality(attrs={"flags_definition": "see the handbook"}),
        E.MaskError,
        V,
        ("flags_definition of SCL cannot be read",),
        "scheme='scl'",
        clear=lambda: truth(True),
    ),
    Row(
        "classes of STAC without values",
        lambda: quality(attrs={"classification:classes": [{"name": "cloud"}]}),
        E.MaskError,
        V,
        ("classification:classes of SCL",),
        "scheme='scl'",
    ),
    Row(
        "flags of something else",
        lambda: quality(attrs={"flag_masks": [1, 2], "flag_meanings": "ascending descending"}),
        E.MaskError,
        V,
        ("no flags for cloud",),
        "scheme='scl'",
    ),
    Row(
        "unknown class",
        lambda: quality(17),
        E.MaskError,
        V,
        ("SCL (scl) holds 17", "9 cloud"),
        f"mask=ds.SCL.where(ds.SCL.isin({CODES}))",
        True,
        clear=lambda: truth(False),
    ),
    Row(
        "class between",
        lambda: quality(4.5, dtype="float32"),
        E.MaskError,
        V,
        ("4.5", "not an integer"),
        'mask=original.reindex_like(ds, method="nearest")',
        True,
        clear=lambda: truth(True),
    ),
    Row(
        "SCL resampled bilinearly",
        resampled,
        E.MaskError,
        V,
        ("6.5", "not an integer", 'resampling={"SCL": "nearest"}'),
        'mask=original.reindex_like(ds, method="nearest")',
        True,
        clear=lambda: truth(True),
    ),
    *(
        Row(
            f"SCL resampled, as a {scheme} of {threshold}",
            lambda scheme=scheme, threshold=threshold: resampled(mask="SCL", scheme=scheme, threshold=threshold),
            E.MaskError,
            V,
            ("SCL is a layer of classes or bits", "rename"),
        )
        for scheme in ("probability", "clear_score")
        for threshold in (0.4, 40)
    ),
    Row(
        "SCL as a probability",
        lambda: quality(mask="SCL", scheme="probability", threshold=40),
        E.MaskError,
        V,
        ("SCL is a layer of classes",),
        "scheme=None, threshold=None",
        clear=lambda: truth(True),
    ),
    Row(
        "flags as a probability",
        lambda: coded("qa", 4, 9, attrs=TWO, mask="qa", scheme="probability", threshold=40),
        E.MaskError,
        V,
        ("the flags of qa",),
        "scheme=None, threshold=None",
        clear=truth,
    ),
    *(
        Row(f"{what} in {name}", made, E.MaskError, V, (name,), cure, True, clear=right)
        for what, name, made, cure, right in (
            ("Geoscience Australia's classes", "fmask", lambda: coded("fmask", 1, 2, 5), 'scheme="dea_fmask"', True),
            ("nodata and water", "Fmask", lambda: coded("Fmask", 5, 0, 3), 'scheme="dea_fmask"', False),
            ("Matlab's classes", "fmask", lambda: coded("fmask", 1, 4, 255), 'scheme="cfmask"', False),
            ("Collection 1", "QA_PIXEL", lambda: coded("QA_PIXEL", 322, 352, 1, "uint16"), 'scheme="pixel_qa"', False),
            (
                "Collection 2",
                "pixel_qa",
                lambda: coded("pixel_qa", 21824, 22280, dtype="uint16"),
                'scheme="qa_pixel"',
                None,
            ),
            ("classes", "qa_pixel", lambda: coded("qa_pixel", 5, 2, 0), 'scheme="dea_fmask"', False),
            ("water of Geoscience Australia", "cfmask", lambda: coded("cfmask", 1, 2, 5), 'scheme="dea_fmask"', True),
            ("CFMask's fill", "oa_fmask", lambda: coded("oa_fmask", 1, 4, 255), 'scheme="cfmask"', False),
            ("MAJA's bits", "CLM", lambda: coded("CLM", 0, 3, 9), 'scheme="maja"', False),
        )
        for right in [lambda right=right: truth(right)]
    ),
    Row(
        "bits with a sign",
        lambda: coded("QA_PIXEL", 21824, -10940, dtype="int16"),
        E.MaskError,
        V,
        ("holds -10940",),
        "mask=ds.QA_PIXEL.astype('uint16')",
        True,
        clear=truth,
    ),
    Row(
        "threshold of classes", lambda: quality(threshold=0.4), E.MaskError, V, ("not a probability",), "threshold=None"
    ),
    Row(
        "probability alone",
        lambda: probability(mask="cloud_prob"),
        E.MaskError,
        V,
        ("without a threshold",),
        "threshold=0.4",
        clear=truth,
    ),
    Row(
        "probability not chosen",
        probability,
        E.MaskError,
        V,
        ("no quality layer",),
        "mask='cloud_prob', scheme=\"probability\", threshold=0.4",
        clear=truth,
    ),
    Row(
        "clear score alone",
        lambda: probability(name="cs_cdf", mask="cs_cdf"),
        E.MaskError,
        V,
        ("cs_cdf is a clear score without a threshold",),
        "threshold=0.6",
        clear=truth,
    ),
    Row(
        "clear score not chosen",
        lambda: probability(name="clear_probability"),
        E.MaskError,
        V,
        ("no quality layer",),
        "mask='clear_probability', scheme=\"clear_score\", threshold=0.6",
        clear=truth,
    ),
    Row(
        "clear score as a probability",
        lambda: probability(name="cs", mask="cs", scheme="probability", threshold=0.6),
        E.MaskError,
        V,
        ("cs is a clear score",),
        'scheme="clear_score", threshold=0.6',
        clear=truth,
    ),
    Row(
        "probability as a clear score",
        lambda: probability(mask="cloud_prob", scheme="clear_score", threshold=0.6),
        E.MaskError,
        V,
        ("cloud_prob is a probability",),
        'scheme="probability", threshold=0.4',
        clear=truth,
    ),
    Row(
        "percent with a share",
        lambda: probability(100, mask="cloud_prob", threshold=0.4),
        E.MaskError,
        V,
        ("from 10 to 90",),
        "threshold=40",
        True,
        clear=truth,
    ),
    Row(
        "share with percent",
        lambda: probability(1, mask="cloud_prob", threshold=40),
        E.MaskError,
        V,
        ("fractions up to 0.9",),
        "threshold=0.4",
        True,
        clear=truth,
    ),
    Row(
        "floats up to 255 with percent",
        lambda: probability(255, mask="cloud_prob", threshold=40),
        E.MaskError,
        V,
        ("to 229.5",),
        "mask=ds.cloud_prob / 255, threshold=0.4",
        True,
        clear=truth,
    ),
    Row(
        "probability below zero",
        lambda: coded("cloud_prob", 10, 90, -9999, "int16", mask="cloud_prob", threshold=40),
        E.MaskError,
        V,
        ("from -9999 to 90",),
        "mask=ds.cloud_prob.where(ds.cloud_prob >= 0)",
        True,
        clear=lambda: truth(False),
    ),
    Row(
        "percent by its units with a share",
        lambda: coded("cloud_prob", 10, 90, None, "float32", {"units": "%"}, mask="cloud_prob", threshold=0.4),
        E.MaskError,
        V,
        ("in percent",),
        "threshold=40",
        clear=truth,
    ),
    Row(
        "share by its units with percent",
        lambda: coded("cloud_prob", 0.1, 0.9, None, "float32", {"units": "1"}, mask="cloud_prob", threshold=40),
        E.MaskError,
        V,
        ("units 1",),
        "threshold=0.4",
        clear=truth,
    ),
    Row(
        "bytes with a share",
        lambda: coded("cloud_prob", 20, 230, mask="cloud_prob", threshold=0.4),
        E.MaskError,
        V,
        ("integers (uint8)",),
        "threshold=102",
        clear=truth,
    ),
    Row(
        "noughts and ones with a share",
        lambda: coded("cloud_prob", 0, 1, mask="cloud_prob", threshold=0.4),
        E.MaskError,
        V,
        ("integers (uint8)",),
        "mask=None, threshold=None, clear=ds.cloud_prob == 0",
        clear=truth,
    ),
    Row(
        "fill that is clear",
        lambda: quality(attrs={"_FillValue": 4}),
        E.MaskError,
        V,
        ("fill value 4", "clear"),
        "mask=ds.SCL.assign_attrs(_FillValue=None)",
        clear=lambda: truth(True),
    ),
    Row(
        "fill that was clear in the file",
        decoded_fill,
        E.MaskError,
        V,
        ("fill value 4", "clear"),
        "mask=ds.SCL.fillna(4).drop_encoding()",
        clear=lambda: truth(True),
    ),
    Row(
        "fill in words",
        lambda: quality(attrs={"_FillValue": "none"}),
        E.MaskError,
        V,
        ("'none'",),
        "mask=ds.SCL.assign_attrs(_FillValue=None)",
        clear=lambda: truth(True),
    ),
    Row(
        "threshold zero",
        lambda: probability(mask="cloud_prob", threshold=0),
        E.OptionError,
        V,
        ("threshold is 0",),
        "threshold=0.4",
        clear=truth,
    ),
    Row(
        "threshold beyond bytes",
        lambda: probability(mask="cloud_prob", threshold=400),
        E.OptionError,
        V,
        ("at most 255",),
        "threshold=0.4",
        clear=truth,
    ),
]
