"""Malformed cubes and calls, and helpers to build them."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import cftime
import dask.array
import numpy as np
import pandas as pd
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr

import xr_cloudfree
from tests.support.cubes import DATES, make_cube
from xr_cloudfree import errors
from xr_cloudfree.models.protocol import Prediction
from xr_cloudfree.models.spec import ModelSpec

TARGET = "2021-06-03"
NY, NX = 20, 24


@dataclass(frozen=True)
class Row:
    """One malformed cube or call.

    `make` returns the cube and the options of `fill`; `cure` is the text of the remedy; `late` marks errors that depend
    on values, which a lazy cube raises when it is computed. Expected results with the remedy: `clear` returns the clear
    mask, `right` a cube and options with the same image, `holds` tests the image.
    """

    name: str
    make: Callable[[], tuple[Any, dict[str, Any]]]
    error: type[errors.CloudfreeError]
    builtin: type[Exception]
    says: tuple[str, ...]
    cure: str | None = None
    late: bool = False
    holds: Callable[[Any], bool] | None = None
    clear: Callable[[], xr.DataArray] | None = None
    right: Callable[[], tuple[Any, dict[str, Any]]] | None = None


def cube(**options):
    """Return the cube and its mask as one Dataset, so that a remedy for the cube applies to the mask too."""
    da, clear = make_cube(shape=(NY, NX))
    return da.to_dataset(name="reflectance").assign(good=clear), {"clear": "good"} | options


def pair(**options):
    """Return the cube and its mask as two arrays."""
    da, clear = make_cube(shape=(NY, NX))
    return da, {"clear": clear.rename("good")} | options


def timed(stamps):
    ds, options = cube()
    return ds.assign_coords(time=stamps), options


def texts():
    return np.datetime_as_string(DATES, "D")


def cftimes(calendar="standard"):
    kinds = {
        "noleap": "NoLeap",
        "360_day": "360Day",
        "standard": "Gregorian",
        "proleptic_gregorian": "ProlepticGregorian",
    }
    kind = getattr(cftime, f"Datetime{kinds[calendar]}")
    return np.array([kind(t.year, t.month, min(t.day, 30)) for t in pd.DatetimeIndex(DATES)])


def third_out():
    ds, options = cube()
    return ds.isel(time=[0, 1, 3, 4, 5, 6]), options


def as_one(case, first, second):
    """Return a cube with two scenes merged by hand: the first on top, or the smaller values at equal times."""
    ds, options = case
    one, other = ds.isel(time=first), ds.isel(time=second)
    known, others = (s["reflectance"].notnull().all("band") * (1 + s["good"].astype(int)) for s in (one, other))
    smaller = (one["reflectance"] < other["reflectance"]).isel(band=0, drop=True)
    own = (known > others) | ((known == others) & (smaller | bool(one.time != other.time)))
    both = one.assign({name: one[name].where(own, other[name]) for name in ("reflectance", "good")})
    both["good"] = both["good"].astype(bool)
    rest = ds.isel(time=[i for i in range(ds.sizes["time"]) if i not in (first, second)])
    return xr.concat([rest, both], "time", join="outer").sortby("time").assign(
        good=lambda d: d["good"].astype(bool)
    ), options


def asked(date):
    return cube(date=date)


def changed(change, **options):
    da, given = pair(**options)
    return change(da), given


def masked(change):
    """Return a pair with a changed mask."""
    da, options = pair()
    return da, {"clear": change(options["clear"])}


def degrees(change):
    """Return a pair with other names of its axes and a changed mask."""
    da, options = pair()
    named = {"time": "t", "y": "lat", "x": "lon"}
    return da.rename(named), {"clear": change(options["clear"]).rename(named)}


def both(change):
    ds, options = cube()
    return change(ds), options


def quality(values=4, name="SCL", attrs=None, dtype="uint8", **options):
    """Return a cube with a quality layer instead of the boolean one; one pixel holds `values`, the others are clear."""
    da, clear = make_cube(shape=(NY, NX))
    layer = clear.copy(data=np.where(clear, 4, 9).astype(dtype))
    layer[2, 5, 5] = values
    layer.attrs = attrs or {}
    return da.to_dataset(name="reflectance").assign({name: layer}), options


def truth(odd=None):
    """Return the clear mask of these cubes, with `odd` in the pixel that `quality` sets."""
    clear = make_cube(shape=(NY, NX))[1]
    if odd is not None:
        clear[2, 5, 5] = odd
    return clear


def coded(name, here, gone, odd=None, dtype="uint8", attrs=None, **options):
    """Return a cube with a quality layer of two codes, and another one in a single pixel."""
    ds, _ = quality(name=name, dtype=dtype)
    layer = ds[name].copy(data=np.where(truth(), here, gone).astype(dtype))
    if odd is not None:
        layer[2, 5, 5] = odd
    layer.attrs = attrs or {}
    return ds.assign({name: layer}), options


def resampled(**options):
    """Return a cube with an interpolated SCL."""
    ds, _ = quality()
    return ds.assign(SCL=ds["SCL"].astype("float32").rolling(x=2, min_periods=1).mean()), options


def probability(top=1.0, name="cloud_prob", **options):
    da, clear = make_cube(shape=(NY, NX))
    low, high = (0.9, 0.1) if name.startswith(("cs", "clear")) else (0.1, 0.9)
    layer = xr.where(clear, low * top, high * top).astype("float32")
    return da.to_dataset(name="reflectance").assign({name: layer}), options


def numbers(dtype="uint16", change=lambda values: values, attrs=None, **options):
    """Return a cube of digital numbers with no attributes but `attrs`."""
    da, clear = make_cube(shape=(NY, NX), dtype="uint16")
    da = da.copy(data=change(da.values.astype("int64")).astype(dtype))
    da.attrs = attrs or {}
    return da, {"clear": clear, "nodata": 0} | options


def as_bands(*names, dtype="float32"):
    da, clear = make_cube(shape=(NY, NX))
    ds = da.astype(dtype).to_dataset("band").rename(dict(zip(("blue", "red", "nir"), names, strict=True)))
    return ds.assign(good=clear), {"clear": "good"}


def offset_jump(level, late):
    """Return a cloudless landscape (band, y, x), brighter from the fourth date on."""
    da, clear = make_cube(shape=(NY, NX))
    da = da.copy(data=np.broadcast_to(level, da.shape).astype("float32")).assign_coords(band=["B02", "B04", "B08"])
    return da.where(da.time < da.time[3], da + late), {"clear": xr.ones_like(clear)}


def variable_of(values):
    return changed(lambda da: da.astype(values))


def without_quality(**options):
    da, _ = make_cube(shape=(NY, NX))
    return da, options


def huge():
    side = 10**9
    lazy = dask.array.zeros((2, 1, side, side), chunks=(1, 1, side // 10, side // 10), dtype="float32")
    coords = {"time": DATES[:2], "band": ["red"]}
    ds = xr.DataArray(lazy, dims=("time", "band", "y", "x"), coords=coords).to_dataset(name="reflectance")
    ds["good"] = ds["reflectance"].isel(band=0, drop=True).astype(bool)
    return ds, {"clear": "good", "date": "2021-05-05"}


class Answers:
    """A third-party model with a given answer."""

    def __init__(self, answer, **spec):
        self.answer = answer
        self.spec = ModelSpec("theirs", "answers anything", units="reflectance", **spec)

    def predict(self, tiles):
        return self.answer(tiles)


def small(tiles):
    return [Prediction(np.zeros((1, 2, 2), np.float32), np.ones((2, 2), bool)) for _ in tiles]


def floats(tiles):
    return [Prediction(obs.bands[0], np.ones(obs.shape, np.float32)) for obs in tiles]


def nothing(tiles):
    return None


def arrays(tiles):
    return [obs.bands.mean(axis=0) for obs in tiles]


def too_few(tiles):
    return []


def shifted(layer, by):
    return layer.assign_coords(x=layer.x + by)


def coarse(factor):
    return lambda layer: layer.coarsen(y=factor, x=factor, boundary="trim").max().astype(bool)


def spoiled(name, index, value):
    def change(ds):
        values = ds[name].values.copy()
        values[index] = value
        return ds.assign_coords({name: values})

    return change


def fill(obj, options):
    return xr_cloudfree.fill(obj, **{"date": TARGET, "model": "linear"} | options)
