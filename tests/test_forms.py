"""The tables in docs/forms.py: a cube of each row is parsed and filled."""

import runpy
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from xr_cloudfree.cube.dims import DIM_NAMES, dims_of
from xr_cloudfree.errors import CloudfreeWarning
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.plan import read
from xr_cloudfree.synthetic import cube as synthetic_cube

FORMS = runpy.run_path(str(Path(__file__).parents[1] / "docs" / "forms.py"))
LAYOUTS, READERS = FORMS["LAYOUTS"], FORMS["READERS"]
DATE = "2023-05-11"
OWN = ["blue", "red", "nir"]
pytestmark = pytest.mark.filterwarnings("ignore:.*is not reflectance:xr_cloudfree.errors.CloudfreeWarning")


@pytest.fixture(scope="module")
def ds():
    """A Dataset with reflectance as float and its scene classification."""
    made = synthetic_cube(shape=(8, 4, 32, 32), seed=3)
    made = xr.decode_cf(made, decode_times=False).sel(band=["B02", "B04", "B08"])
    scl = xr.where(xr_cloudfree.clear_mask(made), 4, 9).astype("uint8").rename("SCL")
    return xr.Dataset({"reflectance": made.reflectance, "SCL": scl})


def image_of(filled, bands):
    """An image (band, y, x) as numbers."""
    if isinstance(filled, xr.Dataset):
        filled = filled[list(bands)].to_dataarray("band")
    dims = dims_of(filled)
    return filled.sel({dims["band"]: list(bands)}).transpose(dims["band"], dims["y"], dims["x"]).values


GIVEN = {f"{reader.name}-{'-'.join(dims)}": (reader, dims) for reader in READERS for dims in reader.dims}


@pytest.mark.parametrize(("reader", "dims"), GIVEN.values(), ids=GIVEN)
def test_what_a_reader_gives_is_filled(ds, reader, dims):
    how = {}
    for pair in filter(None, reader.options.split(", ")):
        name, value = pair.split("=")
        how[name] = float(value)
    scale, offset = how.get("scale", 1.0), how.get("offset", 0.0)
    stored = ((ds.reflectance.drop_attrs() - offset) / scale).assign_coords(band=list(reader.bands))
    if scale != 1:
        stored = stored.round()
    stored = stored.fillna(how.get("nodata", np.nan)).astype(reader.dtype)
    names = {"time": "time", "y": "y", "x": "x"}
    for dim in dims:
        names |= {role: dim for role, usual in DIM_NAMES.items() if dim.lower() in usual}
    scl = ds.SCL.drop_attrs()
    if "band" in dims:
        cube = stored.transpose("time", "band", "y", "x")
        if reader.mask:
            layer = scl.astype(reader.dtype).expand_dims(band=[reader.mask])
            cube = xr.concat([cube, layer], "band", coords="minimal", compat="override", join="exact")
            cube = cube.transpose("time", "band", "y", "x")
        else:
            cube = cube.assign_coords(band=[1, 2, 3]).assign_attrs(long_name=reader.bands)
            how["mask"] = scl
    else:
        cube = stored.to_dataset("band").assign({reader.mask: scl})
        cube = cube.rename({a: b for a, b in names.items() if a in cube.dims and a != b}).transpose(*dims)
    understood = read(cube, ReadOptions(**how))
    assert understood.cube.bands == tuple(reader.bands)
    assert list(understood.cube.common_names) == OWN
    assert understood.rule.scheme.name == "scl"

    image = xr_cloudfree.fill(cube, DATE, model="linear", **how)
    expected = xr_cloudfree.fill(ds.reflectance, DATE, mask=ds.SCL, model="linear").values
    labels = [1, 2, 3] if "band" in dims and not reader.mask else reader.bands
    assert np.allclose(image_of(image, labels) * scale + offset, expected, atol=2e-4)


def layouts(ds):
    """By the layout's name a cube, options, and the type and dimensions of what comes back."""
    array, scl = ds.reflectance, ds.SCL
    bands = array.to_dataset("band")
    red, nir = array.isel(band=1, drop=True), array.isel(band=2, drop=True)
    ndvi = ((nir - red) / (nir + red)).rename("NDVI").drop_attrs()
    layer = scl.astype(array.dtype).expand_dims(band=["SCL"])
    stack = xr.concat([array, layer], "band", coords="minimal", compat="override", join="exact")
    given = {"mask": scl}
    flat = ("y", "x")
    return {
        "DataArray": (array.transpose("y", "band", "x", "time"), given, ("band", *flat)),
        "DataArray of one band or index": (ndvi, given, flat),
        "Dataset with one such variable": (ds, {}, {"reflectance": ("band", *flat)}),
        "Dataset of bands": (bands.assign(SCL=scl), {}, dict.fromkeys(bands.data_vars, flat)),
        "Dataset of indices": (xr.Dataset({"NDVI": ndvi, "SCL": scl}), {}, {"NDVI": flat}),
        "Dataset of one layer": (xr.Dataset({"something": red.drop_attrs(), "SCL": scl}), {}, {"something": flat}),
        "DataArray with layers among its bands": (stack, {}, ("band", *flat)),
    }


@pytest.mark.parametrize("row", LAYOUTS, ids=lambda row: row[0])
def test_a_layout_comes_back_as_its_row_says(ds, row):
    cube, options, expected = layouts(ds)[row[0]]
    image = xr_cloudfree.fill(cube, DATE, model="linear", **options)
    assert row[2].startswith(("all", type(image).__name__))
    if isinstance(image, xr.Dataset):
        assert {name: array.dims for name, array in image.data_vars.items()} == expected
    else:
        assert image.dims == expected
        assert row[2].startswith("all") or row[2].endswith(f"({', '.join(expected)})")


def test_layers_among_bands_come_back_with_a_warning(ds):
    cube, _, _ = layouts(ds)["DataArray with layers among its bands"]
    with pytest.warns(CloudfreeWarning, match="SCL is not reflectance"):
        image = xr_cloudfree.fill(cube, DATE, model="linear")
    assert image.band.values.tolist() == cube.band.values.tolist()
