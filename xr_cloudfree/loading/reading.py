"""Read the assets of scenes through odc-loader: one encoding for all, errors that name the date."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any, Literal
from urllib.parse import urlsplit

import numpy as np
import pystac
import rasterio
from odc.loader import RioDriver
from odc.loader.types import RasterBandMetadata, RasterGroupMetadata
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window

from xr_cloudfree.compat import configured_gdal, raster_errors
from xr_cloudfree.errors import InputError, either, option, warn
from xr_cloudfree.loading.progress import CountedDriver, counted
from xr_cloudfree.loading.scenes import Scene
from xr_cloudfree.loading.shifts import shifted

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

Failure = Literal["raise", "missing"]
Sign = Callable[[str], str]

# Pixels by which GDAL may approximate coordinates when it warps: so few that chunks do not matter. It refuses 0.
_TOLERANCE = 1e-6
_AGAIN = "the same call again, if the archive was busy"
# Metres of a degree of latitude.
_DEGREE = 111_320.0
# Property of an item that holds what the reader has to know of each asset.
SOURCES = "cloudfree:sources"
_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"
_TIFF = "image/tiff; application=geotiff"


@dataclass(frozen=True)
class Source:
    """One asset of a scene, as the reader has to know it.

    Parameters
    ----------
    name : str
        Name of the band or the quality layer.
    item : str
        Identifier of the item.
    day : str
        Its day, for messages.
    dtype : str
        Data type of the stored values.
    nodata : int
        Stored value of pixels without a measurement.
    shift : int
        What is added to all other values.
    failure : {"raise", "missing"}
        What happens if the asset cannot be read: `InputError`, or nodata and a warning.
    sign : callable, optional
        From a URL to the URL that is requested, called for each read; by default `sign_planetary_computer`.
    """

    name: str
    item: str
    day: str
    dtype: str
    nodata: int
    shift: int = 0
    failure: Failure = "raise"
    sign: Sign | None = None


class Parser:
    """Tells odc-loader the bands of an item; implements its protocol MDParser."""

    def extract(self, md: Any) -> Any:
        """Return data type and nodata of each band."""
        sources: Mapping[str, Source] = md.properties[SOURCES]
        bands = {(name, 1): RasterBandMetadata(s.dtype, float(s.nodata), "1") for name, s in sources.items()}
        return RasterGroupMetadata(bands)

    def driver_data(self, md: Any, band_key: tuple[str, int]) -> Source:
        """Return what the reader has to know of a band."""
        source: Source = md.properties[SOURCES][band_key[0]]
        return source


class Reader:
    """Reads one asset; implements odc-loader's protocol RasterReader."""

    def __init__(self, src: Any) -> None:
        self._src = src

    def read(self, cfg: Any, dst_geobox: Any, *, dst: Any = None, selection: Any = None) -> Any:
        """Return a part of the grid and the values of the asset on it."""
        source: Source = self._src.driver_data
        url = str(self._src.uri)
        unreadable: tuple[type[Exception], ...] = (*raster_errors(), ValueError)
        try:
            with counted() as done, rasterio.open(_location(url, source.sign), sharing=False) as file:
                values = read_on_grid(file, dst_geobox, np.dtype(source.dtype), source.nodata, cfg.resampling)
                done.append(values)
        except unreadable as error:
            _FAILURES[url] = _FAILURES.get(url, 0) + 1
            failure = _unreadable(source, url, error)
            if source.failure == "raise":
                raise failure from error
            warn(f"{failure.found}: its pixels are missing")
            return np.s_[0:0, 0:0], np.empty((0, 0), source.dtype)
        return np.s_[0 : values.shape[0], 0 : values.shape[1]], shifted(values, source.shift, source.nodata)


# How often each URL could not be read by this process.
_FAILURES: dict[str, int] = {}


def _location(url: str, sign: Sign | None) -> str:
    """Return where GDAL reads a URL, signed.

    GDAL remembers for as long as the process runs that a URL could not be read, and asks no more. A fragment, which is
    not sent, makes it another URL to GDAL's memory.
    """
    signed = (sign or sign_planetary_computer)(url)
    if url in _FAILURES and signed.startswith(("http://", "https://")):
        return f"/vsicurl/{signed}#{_FAILURES[url]}"
    return signed


def sign_planetary_computer(url: str) -> str:
    """Return the URL of an asset of the Planetary Computer signed, if its package is installed; others as they are.

    The package keeps a signature as long as it is valid.

    Examples
    --------
    >>> sign_planetary_computer("https://example.com/B04.tif")
    'https://example.com/B04.tif'
    """
    if not _of_planetary_computer(url) or find_spec("planetary_computer") is None:
        return url
    from planetary_computer import sign_url

    return str(sign_url(url))


def _of_planetary_computer(url: str) -> bool:
    return (urlsplit(url).hostname or "").endswith(".blob.core.windows.net")


def read_on_grid(
    file: Any, grid: GeoBox, dtype: np.dtype[Any], nodata: int, resampling: str
) -> np.ndarray[Any, np.dtype[Any]]:
    """Return the first band of a file on a grid.

    A pixel's value does not depend on the rest of the grid. By the nearest pixel in the file's own CRS it is the value
    of the pixel that contains its centre; otherwise GDAL warps.

    Parameters
    ----------
    file : rasterio dataset
        The file.
    grid : GeoBox
        The grid, of shape (y, x).
    dtype : dtype
        Data type of the result.
    nodata : int
        Value where the file has none, and beyond its edges.
    resampling : str
        Name of a method in `rasterio.enums.Resampling`.

    Returns
    -------
    ndarray of `dtype`, shape (y, x)
        The values.

    Raises
    ------
    ValueError
        If the file has no CRS, or holds values that are no integers of this type.
    """
    if file.crs is None:
        raise ValueError("the file has no CRS")
    if not np.can_cast(file.dtypes[0], dtype, "safe"):
        raise ValueError(f"the file holds {file.dtypes[0]}, not {dtype}")
    shape = (int(grid.shape[0]), int(grid.shape[1]))
    crs = rasterio.crs.CRS.from_user_input(str(grid.crs))
    finer = abs(grid.transform.a) <= abs(file.transform.a) and abs(grid.transform.e) <= abs(file.transform.e)
    straight = not any((*grid.transform[1:4:2], *file.transform[1:4:2]))
    values = np.full(shape, nodata, dtype)
    if crs == file.crs and resampling == "nearest" and finer and straight:
        columns = _nearest(grid.transform.c, grid.transform.a, shape[1], file.transform.c, file.transform.a)
        rows = _nearest(grid.transform.f, grid.transform.e, shape[0], file.transform.f, file.transform.e)
        inside = (rows >= 0) & (rows < file.height), (columns >= 0) & (columns < file.width)
        rows, columns = rows[inside[0]], columns[inside[1]]
        if not rows.size or not columns.size:
            return values
        top, left = rows.min(), columns.min()
        window = Window(left, top, columns.max() - left + 1, rows.max() - top + 1)
        block = file.read(1, window=window)[np.ix_(rows - top, columns - left)]
        if file.nodata is not None:
            block = np.where(block == file.nodata, nodata, block)
        values[np.ix_(*inside)] = block
        return values
    with WarpedVRT(
        file,
        crs=crs,
        transform=grid.transform,
        width=shape[1],
        height=shape[0],
        resampling=Resampling[resampling],
        src_nodata=nodata if file.nodata is None else file.nodata,
        nodata=nodata,
        tolerance=_TOLERANCE,
        # GDAL would derive the width of its kernel from each chunk.
        XSCALE=_scale(file.crs, file.transform.a, crs, grid.transform.a),
        YSCALE=_scale(file.crs, file.transform.e, crs, grid.transform.e),
    ) as warped:
        values[:] = warped.read(1)
    return values


def _scale(file_crs: Any, file_step: float, crs: Any, step: float) -> float:
    """Return the pixels of a grid for each pixel of a file, at most 1, by which GDAL widens its kernels."""
    metres = [abs(s) * (_DEGREE if c.is_geographic else 1.0) for c, s in ((file_crs, file_step), (crs, step))]
    return min(metres[0] / metres[1], 1.0)


def _nearest(start: float, step: float, count: int, origin: float, size: float) -> np.ndarray[Any, Any]:
    """Return the index of the file's pixel that contains the centre of each of the grid's pixels, along one axis."""
    centres = start + step * (np.arange(count) + 0.5)
    # A centre on an edge belongs to the pixel after it, whatever the rounding.
    index: np.ndarray[Any, Any] = np.floor((centres - origin) / size + 1e-6).astype(np.int64)
    return index


class Driver(CountedDriver):
    """Reads assets with rasterio; implements odc-loader's protocol ReaderDriver.

    Options of GDAL that are set by `rasterio.Env` or `odc.stac.configure_rio` take precedence.

    Parameters
    ----------
    timeout : float
        Seconds until a request counts as failed.
    retries : int
        How often a failed request is repeated.
    """

    md_parser = Parser()
    dask_reader = None
    aux_reader = None

    def __init__(self, timeout: float, retries: int) -> None:
        self._options = {
            "GDAL_DISABLE_READDIR_ON_OPEN": "EMPTY_DIR",
            "GDAL_HTTP_MAX_RETRY": str(retries),
            "GDAL_HTTP_RETRY_DELAY": "0.5",
            "GDAL_HTTP_TIMEOUT": f"{timeout:g}",
            "GDAL_HTTP_CONNECTTIMEOUT": f"{timeout:g}",
        }

    def new_load(self, geobox: Any, *, chunks: Any = None) -> Any:
        """Return the state of a load."""
        return RioDriver().new_load(geobox, chunks=chunks)

    def finalise_load(self, load_state: Any) -> Any:
        """Return the state after a load."""
        return RioDriver().finalise_load(load_state)

    def capture_env(self) -> dict[str, Any]:
        """Return the options of GDAL for all reads."""
        return {**self._options, **configured_gdal()}

    def restore_env(self, env: dict[str, Any], load_state: Any) -> AbstractContextManager[Any]:
        """Apply the options of GDAL in the thread that reads."""
        context: AbstractContextManager[Any] = RioDriver().restore_env(env, load_state)
        return context

    def open(self, src: Any, ctx: Any) -> Reader:
        """Return the reader of an asset; nothing is read yet."""
        return Reader(src)


def as_item(scene: Scene, names: Sequence[str], date: int, failure: Failure, sign: Sign | None) -> pystac.Item:
    """Return a scene as an item with the assets to read under their common names, as `Parser` and `Reader` take it.

    Parameters
    ----------
    scene : Scene
        The scene.
    names : sequence of str
        The assets to read.
    date : int
        Number of the date that the scene belongs to.
    failure, sign
        See `Source`.
    """
    product, day = scene.product, str(scene.when.astype("datetime64[D]"))
    sources = {}
    for name in names:
        is_mask = name == product.mask
        sources[name] = Source(
            name=name,
            item=scene.id,
            day=day,
            dtype=product.mask_dtype if is_mask else product.dtype,
            nodata=product.mask_nodata if is_mask else product.encoding.nodata,
            shift=0 if is_mask else scene.shift,
            failure=failure,
            sign=sign,
        )
    grids = {name: _grid_of(scene.assets[name]) for name in names}
    # Without grids, the footprint tells which chunks a scene touches; odc-stac wants all grids or none.
    known = scene.crs is not None and all(grids.values())
    item = pystac.Item(
        id=scene.id,
        geometry=None if scene.geometry is None else dict(scene.geometry),
        bbox=None if scene.bbox is None else list(scene.bbox),
        datetime=scene.when.astype("datetime64[us]").astype(object),
        properties={"cloudfree:date": date, SOURCES: sources} | ({"proj:code": scene.crs} if known else {}),
        stac_extensions=[_PROJECTION] if known else [],
        collection=None,
    )
    for name in names:
        fields = grids[name] if known else {}
        item.assets[name] = pystac.Asset(str(scene.assets[name]["href"]), media_type=_TIFF, extra_fields=fields)
        item.assets[name].set_owner(item)
    return item


def _grid_of(asset: Mapping[str, Any]) -> dict[str, Any]:
    """Return shape and transform of an asset, empty if the item does not tell both."""
    shape, transform = asset.get("proj:shape"), asset.get("proj:transform")
    return {"proj:shape": list(shape), "proj:transform": list(transform)} if shape and transform else {}


def without_query(text: str) -> str:
    """Return a text without the queries of URLs, which may hold a signature.

    Examples
    --------
    >>> without_query("'/vsicurl/https://host/B04.tif?sig=secret' not recognized")
    "'/vsicurl/https://host/B04.tif' not recognized"
    """
    return re.sub(r"\?[^\s'\"]*", "", text)


def _unreadable(source: Source, url: str, error: Exception) -> InputError:
    """Return the error for an asset that cannot be read."""
    reasons = [text for text in _reasons(error) if text]
    unsigned = _of_planetary_computer(url) and find_spec("planetary_computer") is None
    return InputError(
        f"{source.name} of {source.day}, item {source.item}, cannot be read from {without_query(url)}: "
        f"{'; '.join(dict.fromkeys(reasons))}",
        "an archive that answers, and an intact file",
        either(
            "pip install planetary-computer, which signs requests" if unsigned else _AGAIN,
            option("on_error='missing'") + ", which takes what cannot be read as missing, with a warning",
            by="; or ",
        ),
    )


def _reasons(error: BaseException | None) -> Iterator[str]:
    """Yield the first lines of an error and of its causes."""
    while error is not None:
        yield without_query((str(error).strip() or type(error).__name__).splitlines()[0])
        error = error.__cause__ or error.__context__
