"""Small cubes whose values are known, and comparisons of images and of files."""

from pathlib import Path

import numpy as np
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr

DATES = np.array("2021-05-01", "M8[ns]") + np.array([0, 9, 20, 33, 41, 60, 77]) * np.timedelta64(1, "D")
SIZES = {"time": len(DATES), "band": 3, "y": 53, "x": 61}  # of `make_cube`, unless another shape is asked for
CLASSICAL = ["nearest", "median", "geomedian", "linear", "harmonic", "timegate", "regress", "auto"]


def make_cube(seed=0, dtype="float32", shape=(53, 61)):
    """A random cube (time, band, y, x) and its clear mask; the corner is never clear."""
    rng = np.random.default_rng(seed)
    ny, nx = shape
    values = rng.uniform(0.05, 0.4, (len(DATES), 3, ny, nx)).astype("float32")
    clear = rng.random((len(DATES), ny, nx)) > 0.45
    clear[:, :3, :3] = False
    attrs = {"units": "1"}
    if dtype != "float32":
        values = (values * 1e4).astype(dtype)
        attrs |= {"scale_factor": 1e-4, "_FillValue": 0}
    else:
        values[1, :, 5:9, 7:12] = np.nan
    da = xr.DataArray(
        values,
        dims=("time", "band", "y", "x"),
        coords={
            "time": DATES,
            "band": ["blue", "red", "nir"],
            "y": 4_400_000 - 10.0 * np.arange(ny),
            "x": 500_000 + 10.0 * np.arange(nx),
            "spatial_ref": 0,
            "platform": ("time", np.array(list("abababa"))),
        },
        attrs=attrs,
        name="reflectance",
    ).rio.write_crs("EPSG:32629")
    mask = xr.DataArray(clear, dims=("time", "y", "x"), coords={k: da.coords[k] for k in ("time", "y", "x")})
    return da, mask


def small_cube(shape=(20, 24), **options):
    """The cube of `make_cube`, smaller."""
    return make_cube(shape=shape, **options)


def make_s1(da, seed=0, gaps=0.4):
    """Sentinel-1 on a cube's pixels, in decibels, with gaps: two of its dates are equally near to 2021-06-03."""
    rng = np.random.default_rng(seed)
    days = ["2021-05-10", "2021-05-24T06:30", "2021-05-30", "2021-06-07", "2021-06-20", "2021-07-30"]
    values = rng.normal(-14, 3, (len(days), 2, da.sizes["y"], da.sizes["x"])).astype("float32")
    values[:, 1] -= 7
    values[rng.random(values.shape) < gaps] = np.nan
    return xr.DataArray(
        values,
        dims=("time", "band", "y", "x"),
        coords={"time": np.array(days, "M8[ns]"), "band": ["VV", "VH"], "y": da.y, "x": da.x, "spatial_ref": 0},
        name="s1",
    ).rio.write_crs("EPSG:32629")


def as_dataset(da, clear):
    """The cube as odc-stac loads one: bands as variables, SCL beside them, digital numbers."""
    ds = da.to_dataset("band").rename(blue="B02", red="B04", nir="B08")
    ds["SCL"] = xr.where(clear, np.uint8(4), np.uint8(9)).astype("uint8")
    for band in ("B02", "B04", "B08"):
        ds[band].attrs = dict(da.attrs)
    return ds


def contents(folder):
    """All files below a folder: bytes by name."""
    root = Path(folder)
    return {str(p.relative_to(root)): p.read_bytes() for p in sorted(root.rglob("*")) if p.is_file()}


def nearly_same(a, b):
    """Assert that two images are equal but for a network's last digits, which depend on the size of its batches."""
    xr.testing.assert_identical(a.drop_vars(a.data_vars), b.drop_vars(b.data_vars))
    assert list(a.data_vars) == list(b.data_vars)
    for name in a.data_vars:
        one, other = a[name], b[name]
        assert (one.dtype, one.dims, one.attrs) == (other.dtype, other.dims, other.attrs)
        if name in ("reflectance", "uncertainty", "gate"):
            step = 1 if one.dtype.kind in "ui" else 1e-5  # digits may be rounded to either side
            np.testing.assert_allclose(one.astype("float64"), other.astype("float64"), rtol=0, atol=step)
        else:
            np.testing.assert_array_equal(one, other)


def no_compute(*args, **kwargs):
    """Stand in for a scheduler of dask where nothing may be computed."""
    raise AssertionError("something was computed when the graph was built")


def bands_of(names, dtype="uint16"):
    """A Dataset with bands of these names as variables, and its clear mask."""
    da, clear = make_cube(dtype=dtype)
    ds = xr.Dataset({name: da.isel(band=i % 3, drop=True) for i, name in enumerate(names)})
    return ds.assign(clear=clear)
