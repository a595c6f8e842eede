"""Synthetic satellite image time series of any size, for tests, examples and benchmarks.

Each pixel depends only on the seed and its position. So a cube may be computed chunk by chunk, in any chunks and on any
number of workers, with the same result, and never needs to fit in memory.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.cube.footprint import Footprint
from xr_cloudfree.cube.sensors import common_names_of, find_sensor
from xr_cloudfree.errors import OptionError

Sensor = Literal["sentinel-2", "landsat"]
Ints = NDArray[np.int64]
Floats = NDArray[np.float32]

# Bands of each sensor, in the order in which a cube of few bands has them.
_BANDS: dict[str, tuple[str, ...]] = {
    "sentinel-2": ("B02", "B03", "B04", "B08", "B11", "B12", "B05", "B06", "B07", "B8A"),
    "landsat": ("blue", "green", "red", "nir", "swir16", "swir22"),
}
# Reflectance of bare soil, full green cover, water and thick cloud, by common name.
_SPECTRA: dict[str, tuple[float, float, float, float]] = {
    "blue": (0.08, 0.03, 0.050, 0.70),
    "green": (0.11, 0.06, 0.045, 0.68),
    "red": (0.14, 0.035, 0.030, 0.68),
    "rededge071": (0.17, 0.10, 0.025, 0.68),
    "rededge075": (0.19, 0.28, 0.020, 0.69),
    "rededge078": (0.21, 0.36, 0.020, 0.69),
    "nir": (0.24, 0.42, 0.015, 0.70),
    "nir08": (0.26, 0.44, 0.015, 0.70),
    "swir16": (0.32, 0.20, 0.010, 0.55),
    "swir22": (0.28, 0.09, 0.008, 0.45),
}


@dataclass(frozen=True)
class _Crop:
    """Green cover over the year: `base`, plus `rise` around day `peak`; grown on a `share` of the fields."""

    share: float
    base: float
    rise: float
    peak: float
    width: float


_CROPS = (
    _Crop(0.27, 0.08, 0.80, 140, 34),  # winter cereals
    _Crop(0.27, 0.06, 0.85, 208, 32),  # maize
    _Crop(0.20, 0.45, 0.30, 165, 60),  # meadow
    _Crop(0.18, 0.50, 0.40, 195, 75),  # broad-leaved wood
    _Crop(0.05, 0.04, 0.04, 150, 60),  # bare or built
)
_SHIFTS = 16  # number of steps by which fields of one crop are shifted in time, from -15 to 15 days
_FIELD = (22, 30)  # rows and columns of a field
_OCTAVES = (64, 32, 16, 8)  # sizes of cloud structures, in pixels
_EDGE = 0.08  # width of a cloud's edge, in units of the cloud field
_SHADOW = (-12, -7)  # rows and columns from a cloud to its shadow, with the sun in the south-east
_CODES = {"clear": 0, "cloud": 1, "cloud_shadow": 2, "snow": 3, "nodata_or_other": 4}

_FIELD_STREAM, _WARP_STREAM, _TEXTURE_STREAM, _CLOUD_STREAM, _NOISE_STREAM, _COVER_STREAM, _SWATH_STREAM = range(7)


def cube(
    shape: tuple[int, int, int, int] = (24, 4, 256, 256),
    *,
    seed: int = 0,
    chunks: int | Mapping[str, int] | None = None,
    dtype: Literal["uint16", "int16", "float32"] = "uint16",
    cloud_share: float = 0.45,
    sensor: Sensor = "sentinel-2",
    start: str = "2023-04-01",
    days: int = 10,
) -> xr.Dataset:
    """Return a cloudy image time series of fields that green up and are harvested.

    Parameters
    ----------
    shape : tuple of int
        Number of dates, bands, rows and columns.
    seed : int
        Seed of the landscape and the clouds.
    chunks : int, mapping of dimension to int, or None
        None: an array in memory. Otherwise a lazy dask array with chunks of this size (an int means rows and
        columns; -1 or a missing dimension means the whole dimension). The values do not depend on it.
    dtype : {"uint16", "int16", "float32"}
        Digital numbers with ``scale_factor`` 1e-4 and nodata (0 for uint16, −32768 for int16) in the
        attributes, or reflectance with NaN.
    cloud_share : float
        Share of cloudy pixels, from 0 to 1, in addition to shadows and the edge of the swath.
    sensor : {"sentinel-2", "landsat"}
        Names of the bands, and 10 m or 30 m pixels.
    start : str
        First date, ISO 8601.
    days : int
        Days from one date to the next.

    Returns
    -------
    Dataset
        ``reflectance`` (time, band, y, x) and ``cloud_mask`` (time, y, x; uint8 with CF flags: 0 clear,
        1 cloud, 2 cloud shadow, 4 no data) in UTM zone 29 north.

    Raises
    ------
    OptionError
        If the value of an option is not allowed.

    See Also
    --------
    truth : The same landscape without clouds, on any date.

    Examples
    --------
    >>> ds = cube(shape=(6, 4, 32, 48), seed=1)
    >>> dict(ds.reflectance.sizes)
    {'time': 6, 'band': 4, 'y': 32, 'x': 48}
    >>> lazy = cube(shape=(6, 4, 32, 48), seed=1, chunks={"time": 2, "y": 20})
    >>> lazy.reflectance.chunks[2]
    (20, 12)
    >>> bool((lazy == ds).all().to_array().all())
    True
    """
    if dtype not in ("uint16", "int16", "float32"):
        raise OptionError(f"dtype is {dtype!r}", "'uint16', 'int16' or 'float32'", "dtype='uint16'")
    scene = _scene(shape, seed, cloud_share, sensor, start, days)
    values, mask = _Values(scene, np.dtype(dtype)), _Mask(scene)
    attrs: dict[str, Any] = {"long_name": "surface reflectance", "units": "1"}
    if dtype != "float32":
        attrs |= {"scale_factor": 1e-4, "_FillValue": values.nodata}
    flags = {
        "long_name": "clear, cloud, shadow or no data",
        "flag_values": list(_CODES.values()),
        "flag_meanings": " ".join(_CODES),
    }
    return _placed(
        {
            "reflectance": (("time", "band", "y", "x"), _data(values, chunks), attrs),
            "cloud_mask": (("time", "y", "x"), _data(mask, chunks), flags),
        },
        scene,
    ).assign_coords(time=scene.times)


def truth(
    date: str,
    shape: tuple[int, int, int, int] = (24, 4, 256, 256),
    *,
    seed: int = 0,
    sensor: Sensor = "sentinel-2",
) -> xr.DataArray:
    """Return the landscape of `cube` without clouds, shadows and noise, on any date.

    Parameters
    ----------
    date : str
        Date, ISO 8601, not necessarily one of the cube's.
    shape, seed, sensor
        As for `cube`; the number of dates does not matter.

    Returns
    -------
    DataArray of float32
        Reflectance [1], dimensions (band, y, x), with the date as scalar coordinate ``time``.

    Raises
    ------
    OptionError
        If the value of an option is not allowed.

    Examples
    --------
    >>> image = truth("2023-07-01", shape=(1, 4, 32, 48), seed=1)
    >>> bool(((image > 0) & (image < 0.6)).all())
    True
    """
    scene = _scene(shape, seed, 0.0, sensor, date, 1)
    fields = scene.fields(np.arange(scene.shape[2]), np.arange(scene.shape[3]))
    image = scene.ground(0, np.arange(scene.shape[1]), fields)
    attrs = {"long_name": "surface reflectance", "units": "1"}
    placed = _placed({"reflectance": (("band", "y", "x"), image, attrs)}, scene)
    return placed["reflectance"].assign_coords(time=scene.times[0])


def coarser(
    reflectance: xr.DataArray,
    clear: xr.DataArray,
    factor: float = 3.0,
    *,
    slope: float | Sequence[float] = 1.0,
    offset: float | Sequence[float] = 0.0,
    noise: float = 0.004,
    seed: int = 0,
) -> xr.Dataset:
    """Return a cube as a sensor with larger pixels would have seen it, to try out ``fill(..., others=)``.

    Parameters
    ----------
    reflectance : DataArray, shape (time, band, y, x)
        The cube, with coordinates and evenly spaced pixels.
    clear : DataArray of bool, shape (time, y, x)
        Where it is clear; other pixels of it are not used.
    factor : float
        Size of the sensor's pixels, in the cube's.
    slope, offset : float, or sequence of float with one for each band
        Difference between the sensors: the sensor sees ``slope * reflectance + offset``.
    noise : float
        Standard deviation of the noise that is added, in reflectance.
    seed : int
        Seed of the noise.

    Returns
    -------
    Dataset
        ``reflectance`` (time, band, y, x) of float32, NaN where not clear, and ``cloud_mask`` (time, y, x), 0 where at
        least 95 % of what a pixel sees is clear.

    Examples
    --------
    >>> import xr_cloudfree
    >>> from xr_cloudfree import synthetic
    >>> ds = synthetic.cube(shape=(3, 4, 30, 30), seed=1, dtype="float32")
    >>> seen = synthetic.coarser(ds.reflectance, ds.cloudfree.clear_mask())
    >>> dict(seen.reflectance.sizes), float(seen.x[1] - seen.x[0])
    ({'time': 3, 'band': 4, 'y': 10, 'x': 10}, 30.0)
    """
    shape = (reflectance.sizes["y"], reflectance.sizes["x"])
    rows, columns = (np.asarray((np.arange(int(size // factor)) + 0.5) * factor, np.float64) for size in shape)
    footprint = Footprint(rows, columns, shape, (factor, factor), (factor, factor))
    values = reflectance.transpose("time", "band", "y", "x").to_numpy().astype(np.float32)
    seen = clear.transpose("time", "y", "x").to_numpy() & np.isfinite(values).all(axis=1)
    draw = np.random.default_rng(seed)
    images = []
    for image, usable in zip(values, seen, strict=True):
        coarse, valid = footprint.degrade_clear(image, usable)
        coarse = (
            np.reshape(slope, (-1, 1, 1)) * coarse
            + np.reshape(offset, (-1, 1, 1))
            + draw.normal(0, noise, coarse.shape)
        )
        images.append(np.where(valid, coarse, np.nan).astype(np.float32))
    coords: dict[str, Any] = {
        name: reflectance[name] for name in ("time", "band", "spatial_ref") if name in reflectance.coords
    }
    for name, places in (("y", rows), ("x", columns)):
        axis = reflectance[name].to_numpy().astype(np.float64)
        step = (axis[-1] - axis[0]) / (axis.size - 1)
        coords[name] = (name, axis[0] + (places - 0.5) * step, reflectance[name].attrs)
    masked = np.isnan(images).any(axis=1).astype(np.uint8)
    return xr.Dataset(
        {
            "reflectance": (("time", "band", "y", "x"), np.stack(images), {"units": "1"}),
            "cloud_mask": (
                ("time", "y", "x"),
                masked,
                {"flag_values": np.array([0, 1], np.uint8), "flag_meanings": "clear cloud"},
            ),
        },
        coords,
    )


@dataclass(frozen=True)
class _Scene:
    """A landscape and its weather, computed on demand at any position."""

    shape: tuple[int, int, int, int]
    seed: int
    cloud_share: float
    sensor: Sensor
    start: str
    days: int

    @cached_property
    def times(self) -> NDArray[np.datetime64]:
        start = np.datetime64(self.start, "ns")
        return start + np.arange(self.shape[0]) * np.timedelta64(self.days, "D")

    @cached_property
    def bands(self) -> list[str]:
        return list(_BANDS[self.sensor][: self.shape[1]])

    @cached_property
    def spectra(self) -> Floats:
        """Reflectance of soil, green cover, water and cloud, shape (band, 4)."""
        common_names = common_names_of(self.bands, find_sensor(self.sensor))
        return np.array([_SPECTRA[str(name)] for name in common_names], "float32")

    @cached_property
    def cover(self) -> Floats:
        """Cloud share of each date, with `cloud_share` as its mean."""
        n = self.shape[0]
        if not 0 < self.cloud_share < 1:
            return np.full(n, self.cloud_share, "float32")
        # A quarter of the dates is clear (fewer for a high share), the others cover the range up to overcast
        # evenly, in random order.
        rank = np.argsort(_hash(self.seed, _COVER_STREAM, np.arange(n)))
        clear = int(n * min(0.25, (1 - self.cloud_share) / 2))
        cloudy = n - clear
        evenly = np.maximum(rank - clear + 0.5, 0) / cloudy
        return np.asarray(evenly ** (cloudy / (n * self.cloud_share) - 1), np.float32)

    def ground(self, date: int, bands: Ints, fields: tuple[Ints, Floats]) -> Floats:
        """Return the reflectance of `fields` without clouds and noise, shape (band, y, x)."""
        key, bright = fields
        green = self._green(date)
        out = np.empty((bands.size, *key.shape), "float32")
        for i, band in enumerate(bands):
            soil, leaf, water, _ = self.spectra[band]
            # One entry per crop and shift, the last for water.
            table = np.append(soil * (1 - green) + leaf * green, water).astype("float32")
            np.multiply(table[key], bright, out=out[i])
        return out

    def _green(self, date: int) -> Floats:
        """Return the green cover of each crop and shift, shape (crop * shift,)."""
        day = self.times[date]
        of_year = float((day - day.astype("M8[Y]").astype(day.dtype)) / np.timedelta64(1, "D"))
        shifts = [30 * i / (_SHIFTS - 1) - 15 for i in range(_SHIFTS)]
        return np.array(
            [
                crop.base + crop.rise * math.exp(-(((of_year - crop.peak - shift) / crop.width) ** 2))
                for crop in _CROPS
                for shift in shifts
            ],
            "float32",
        )

    def fields(self, rows: Ints, columns: Ints) -> tuple[Ints, Floats]:
        """Return the crop and shift of each pixel, as an index into the tables of `ground`, and its brightness."""
        bend_y = self._noise(rows, columns, 96, _WARP_STREAM, 0)
        bend_x = self._noise(rows, columns, 96, _WARP_STREAM, 1)
        # Fields laid out like bricks, with curved edges.
        row = np.floor((rows[:, None] + 24 * bend_y) / _FIELD[0]).astype("int64")
        column = np.floor((columns + 24 * bend_x) / _FIELD[1] + 0.5 * (row % 2)).astype("int64")
        drawn = _hash(self.seed, _FIELD_STREAM, row, column)
        edges = np.cumsum([crop.share for crop in _CROPS])
        crop = np.searchsorted(edges, _unit(drawn), side="right")
        shift = ((drawn >> np.uint64(8)) % np.uint64(_SHIFTS)).astype("int64")
        key = np.minimum(crop * _SHIFTS + shift, len(_CROPS) * _SHIFTS)
        own = ((drawn & np.uint64(0xFF)).astype("float32") / np.float32(255) - np.float32(0.5)) * np.float32(0.2)
        texture = self._noise(rows, columns, 5, _TEXTURE_STREAM, 0) - np.float32(0.5)
        return key, 1 + own + np.float32(0.12) * texture

    def weather(self, date: int, rows: Ints, columns: Ints) -> tuple[Floats, Floats, NDArray[np.bool_]]:
        """Return the opacity of clouds and shadows (0 to 1), and the pixels beyond the swath; shape (y, x)."""
        cloud = self._opacity(date, rows, columns)
        shadow = self._opacity(date, rows - _SHADOW[0], columns - _SHADOW[1])
        return cloud, np.where(cloud > 0, np.float32(0), shadow), self._beyond_swath(date, rows, columns)

    def _opacity(self, date: int, rows: Ints, columns: Ints) -> Floats:
        if self.cover[date] <= 0:
            return np.zeros((rows.size, columns.size), "float32")
        if self.cover[date] >= 1:
            return np.ones((rows.size, columns.size), "float32")
        begins = np.float32(np.interp(1 - self.cover[date], *_cloud_quantiles()))
        opacity: Floats = np.clip((self._billow(date, rows, columns) - begins) / np.float32(_EDGE), 0, 1)
        return opacity

    def _billow(self, date: int, rows: Ints, columns: Ints) -> Floats:
        """Return the smooth cloud field, which is cloud above a threshold."""
        out = np.zeros((rows.size, columns.size), "float32")
        for i, size in enumerate(_OCTAVES):
            out += self._noise(rows, columns, size, _CLOUD_STREAM, date * len(_OCTAVES) + i) * np.float32(0.5**i)
        return out

    def _beyond_swath(self, date: int, rows: Ints, columns: Ints) -> NDArray[np.bool_]:
        """Return the pixels beyond a slanted swath edge, on one date in six; none for a cloud share of 0."""
        drawn = int(_hash(self.seed, _SWATH_STREAM, np.array([date]))[0])
        if drawn % 6 or self.cloud_share <= 0:
            return np.zeros((rows.size, columns.size), "bool")
        reach = 0.1 + 0.5 * ((drawn >> 20) % 1000) / 1000
        along = columns[None, :] / self.shape[3] + 0.25 * (rows[:, None] / self.shape[2])
        return np.asarray(along < reach)

    def noise(self, date: int, band: int, rows: Ints, columns: Ints) -> Floats:
        """Return the noise of the sensor: uniform, ± 0.003."""
        # One hash has a byte for each of eight bands.
        drawn = _hash(self.seed, _NOISE_STREAM, date, band // 8, rows[:, None], columns)
        byte = ((drawn >> np.uint64(8 * (band % 8))) & np.uint64(0xFF)).astype("float32")
        return byte * np.float32(0.006 / 255) - np.float32(0.003)

    def _noise(self, rows: Ints, columns: Ints, size: int, stream: int, key: int) -> Floats:
        """Return smooth noise from 0 to 1, interpolated between random numbers `size` pixels apart.

        Only sums, products and table look-ups are used per pixel, so rounding does not depend on chunks.
        """
        (y, wy), (x, wx) = _between(rows, size), _between(columns, size)
        lattice = _unit(
            _hash(
                self.seed,
                stream,
                key,
                np.arange(y.min(), y.max() + 2)[:, None],
                np.arange(x.min(), x.max() + 2),
            )
        )
        y, x = y - y.min(), x - x.min()
        along = lattice[y] * (1 - wy)[:, None] + lattice[y + 1] * wy[:, None]
        blend: Floats = along[:, x] * (1 - wx) + along[:, x + 1] * wx
        return blend


class _Lazy:
    """An array that is computed when it is indexed, for `dask.array.from_array`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    def __init__(self, scene: _Scene) -> None:
        self.scene = scene

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        return type(self).__qualname__, self.scene, str(self.dtype)

    def __getitem__(self, key: tuple[int | slice, ...]) -> NDArray[Any]:
        axes = [np.arange(size)[part] for size, part in zip(self.shape, key, strict=True)]
        drawn = self._draw(*(np.atleast_1d(axis) for axis in axes))
        return drawn.reshape([axis.size for axis in axes if axis.ndim])

    def _draw(self, *axes: Ints) -> NDArray[Any]:
        raise NotImplementedError


class _Values(_Lazy):
    """Stored reflectance with clouds, shadows and noise."""

    def __init__(self, scene: _Scene, dtype: np.dtype[Any]) -> None:
        super().__init__(scene)
        self.shape, self.dtype = scene.shape, dtype
        self.nodata = {"uint16": 0, "int16": -32768}.get(str(dtype), math.nan)

    def _draw(self, *axes: Ints) -> NDArray[Any]:
        dates, bands, rows, columns = axes
        scene = self.scene
        fields = scene.fields(rows, columns)
        out = np.empty([axis.size for axis in axes], self.dtype)
        for i, date in enumerate(dates):
            cloud, shadow, beyond = scene.weather(int(date), rows, columns)
            ground = scene.ground(int(date), bands, fields)
            for j, band in enumerate(bands):
                lit = ground[j] * (1 - np.float32(0.5) * shadow)
                value = lit * (1 - cloud) + scene.spectra[band, 3] * cloud
                value += scene.noise(int(date), int(band), rows, columns)
                out[i, j] = self._stored(np.maximum(value, np.float32(0.001)))
                out[i, j][beyond] = self.nodata
        return out

    def _stored(self, value: Floats) -> NDArray[Any]:
        return value if self.dtype.kind == "f" else np.rint(value * np.float32(1e4))


class _Mask(_Lazy):
    """The quality layer."""

    dtype = np.dtype("uint8")

    def __init__(self, scene: _Scene) -> None:
        super().__init__(scene)
        self.shape = (scene.shape[0], *scene.shape[2:])

    def _draw(self, *axes: Ints) -> NDArray[Any]:
        dates, rows, columns = axes
        out = np.full([axis.size for axis in axes], _CODES["clear"], self.dtype)
        for i, date in enumerate(dates):
            cloud, shadow, beyond = self.scene.weather(int(date), rows, columns)
            out[i][shadow > 0] = _CODES["cloud_shadow"]
            out[i][cloud > 0] = _CODES["cloud"]
            out[i][beyond] = _CODES["nodata_or_other"]
        return out


def _scene(shape: Any, seed: int, cloud_share: float, sensor: Any, start: str, days: int) -> _Scene:
    if len(shape) != 4 or min(shape) < 1:
        raise OptionError(
            f"shape is {shape}", "dates, bands, rows and columns, each at least 1", "shape=(24, 4, 256, 256)"
        )
    if sensor not in _BANDS:
        raise OptionError(f"sensor is {sensor!r}", f"one of {tuple(_BANDS)}", "sensor='sentinel-2'")
    most = len(_BANDS[sensor])
    if shape[1] > most:
        raise OptionError(
            f"shape has {shape[1]} bands",
            f"at most {most} for {sensor}",
            f"shape=(24, {most}, 256, 256)",
        )
    if not 0 <= cloud_share <= 1:
        raise OptionError(f"cloud_share is {cloud_share}", "a share from 0 to 1", "cloud_share=0.45")
    if days < 1:
        raise OptionError(f"days is {days}", "at least 1", "days=10")
    t, b, y, x = (int(n) for n in shape)
    return _Scene((t, b, y, x), int(seed), float(cloud_share), sensor, start, int(days))


def _data(source: _Lazy, chunks: int | Mapping[str, int] | None) -> Any:
    whole = (slice(None),) * source.ndim
    if chunks is None:
        return source[whole]
    # Imported here because dask is only needed for lazy cubes.
    import dask.array as da

    if isinstance(chunks, int):
        chunks = {"y": chunks, "x": chunks}
    dims = ("time", "band", "y", "x") if source.ndim == 4 else ("time", "y", "x")
    meta = np.empty((0,) * source.ndim, source.dtype)
    return da.from_array(source, chunks=tuple(chunks.get(dim, -1) for dim in dims), meta=meta, fancy=False)


def _placed(variables: dict[str, Any], scene: _Scene) -> xr.Dataset:
    """Return a Dataset of the variables with coordinates and a CRS."""
    import rioxarray  # noqa: F401  registers .rio; slow to import

    pixel = find_sensor(scene.sensor).pixel
    coords = {
        "band": scene.bands,
        "y": ("y", 4_400_000.0 - pixel * (np.arange(scene.shape[2]) + 0.5)),
        "x": ("x", 500_000.0 + pixel * (np.arange(scene.shape[3]) + 0.5)),
    }
    placed: xr.Dataset = xr.Dataset(variables, coords=coords).rio.write_crs("EPSG:32629")
    return placed


def _between(positions: Ints, size: int) -> tuple[Ints, Floats]:
    """Return the index of the lattice point before each position, and the smooth weight of the next one."""
    before = positions // size
    part = ((positions - before * size) / size).astype("float32")
    return before, part * part * (3 - 2 * part)


def _hash(*parts: int | Ints) -> NDArray[np.uint64]:
    """Return a hash of integers; arrays are broadcast."""
    mixed = np.zeros(1, "uint64")
    for part in parts:
        mixed = mixed ^ np.asarray(part, "int64").astype("uint64")
        # The finalizer of splitmix64, once per part.
        mixed = mixed + np.uint64(0x9E3779B97F4A7C15)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        mixed = (mixed ^ (mixed >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        mixed = mixed ^ (mixed >> np.uint64(31))
    return mixed


def _unit(drawn: NDArray[np.uint64]) -> Floats:
    """Return the upper bits as a number from 0 to 1."""
    return (drawn >> np.uint64(40)).astype(np.float32) * np.float32(2**-24)


@lru_cache(maxsize=1)
def _cloud_quantiles() -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return shares and the corresponding quantiles of the cloud field, from a fixed sample."""
    scene = _Scene((16, 1, 1, 1), 0, 0.5, "sentinel-2", "2023-01-01", 1)
    spread = np.arange(0, 4096, 37)
    values = np.stack([scene._billow(date, spread, spread) for date in range(scene.shape[0])])
    shares = np.linspace(0, 1, 101)
    return shares, np.quantile(values, shares)
