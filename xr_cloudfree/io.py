"""Cubes from files, and filled images into files: Zarr and GeoTIFF, block by block."""

from __future__ import annotations

import os
import shutil
import tempfile
import threading
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.attributes import storable
from xr_cloudfree.cube.crs import typed_crs
from xr_cloudfree.cube.dims import dim_of, time_of
from xr_cloudfree.cube.scaling import PACKING, Scaling
from xr_cloudfree.errors import CloudfreeError, CloudfreeWarning, MissingDependencyError, OptionError, OutputError
from xr_cloudfree.locations import local, name_of, place
from xr_cloudfree.placement import assumed_of, axes_of, transform_of

_NETCDF = (".nc", ".nc4", ".cdf", ".h5", ".hdf5")
_TIFF = (".tif", ".tiff")
# Rows and columns of a chunk, for files that are stored in one piece or by lines.
_CHUNK = 512
_NO_FILL = ("_FillValue", None)
_NO_DAY = np.iinfo(np.int32).min


def open_cube(path: str | os.PathLike[str]) -> xr.Dataset:
    """Open a cube from a Zarr store or a NetCDF file, here or at a URL, lazily and with its CRS.

    Parameters
    ----------
    path : str or path
        A ``.zarr`` store, a zipped one (``.zarr.zip``), or a ``.nc`` file; a path, or a URL that fsspec knows:
        ``https://``, ``s3://``, ``gs://``, ``az://``, ``memory://``, and chains such as ``zip::s3://``.

    Returns
    -------
    Dataset
        In chunks; nothing but coordinates is read.

    Raises
    ------
    OptionError
        If there is nothing at `path`, or it is neither.
    InputError
        If a server cannot be reached, or refuses.
    MissingDependencyError
        If no package is installed that reads NetCDF, or URLs of this kind.
    """
    where = place(path)
    if isinstance(where, str):
        return _open_remote(where)
    if not where.exists():
        raise OptionError(f"there is nothing at {where}", "a .zarr store or a .nc file", "the path as ls shows it")
    if is_store(where) or is_zipped(where):
        return open_store(where)
    if where.suffix.lower() not in _NETCDF or not where.is_file():
        raise OptionError(
            f"{where} is neither a Zarr store nor a NetCDF file",
            "a .zarr store or a .nc file",
            "in Python: open it with xarray, and xr_cloudfree.fill(cube, date)",
        )
    if not set(xr.backends.list_engines()) & {"netcdf4", "h5netcdf", "scipy"}:
        raise MissingDependencyError(
            "no package is installed that reads NetCDF",
            "one, such as netCDF4",
            'pip install "xr-cloudfree[netcdf]"',
        )
    # Opened once: netCDF4 crashes when a file is closed and opened again while another handle to it is open.
    return _in_chunks(xr.open_dataset(where, decode_coords="all", cache=False))


def _open_remote(url: str) -> xr.Dataset:
    if not is_netcdf(url):
        return open_store(url)
    from xr_cloudfree import remote

    file = remote.file_at(url)
    if "h5netcdf" not in xr.backends.list_engines():
        raise MissingDependencyError(
            f"{url} is a NetCDF file, and h5netcdf is not installed",
            "it, which reads NetCDF from URLs",
            "pip install h5netcdf",
        )
    try:
        opened = xr.open_dataset(file, engine="h5netcdf", decode_coords="all", cache=False)
    except Exception as error:
        raise remote.refused(url, error) from error
    opened.encoding["source"] = url
    return _in_chunks(opened)


def _in_chunks(ds: xr.Dataset) -> xr.Dataset:
    """A NetCDF file in its own chunks, or in chunks of ours where it has none."""
    stored = any(v.encoding.get("chunksizes") for v in ds.variables.values() if v.ndim > 2)
    edges = {name: _CHUNK for name in (dim_of(ds, "y"), dim_of(ds, "x")) if name is not None}
    for name, array in ds.data_vars.items():
        mine = array.encoding.get("preferred_chunks", {}) if stored else edges
        ds[name] = array.chunk({dim: size for dim, size in mine.items() if dim in array.dims})
    return ds


def open_image(path: str | os.PathLike[str], like: xr.Dataset) -> xr.Dataset:
    """Open what `write` wrote: an image with its layer ``filled``.

    Parameters
    ----------
    path : str or path
        A ``.zarr`` store, or the ``.tif`` of one date.
    like : Dataset
        The image as it was before it was written. A GeoTIFF has north up; the image comes back as it was.

    Returns
    -------
    Dataset
        Lazy.
    """
    where = Path(path)
    if where.suffix.lower() not in _TIFF:
        return open_store(where)
    import rioxarray

    opened: dict[str, Any] = {}
    for name, file in (("reflectance", where), ("filled", layer_path(where, "filled"))):
        decode = name == "reflectance"
        array: Any = rioxarray.open_rasterio(file, chunks={"y": 1024, "x": 1024}, mask_and_scale=decode)
        names = array.attrs.get("long_name")
        array = array.assign_coords(band=[names] if isinstance(names, str) else list(names))
        turned = (role for role, name in axes_of(like).items() if _runs_against_the_map(like[name], role))
        opened[name] = array.isel({role: slice(None, None, -1) for role in turned})
    opened["filled"] = opened["filled"].isel(band=0, drop=True)
    attrs = {key: value for key, value in opened["reflectance"].attrs.items() if key.startswith("cloudfree_")}
    return xr.Dataset(opened, attrs=attrs)


def dated_paths(path: str | os.PathLike[str], times: Any) -> list[Path]:
    """A path for each date: the date goes before the ending, unless there is only one.

    Parameters
    ----------
    path : str or path
        Where the output goes.
    times : datetime64 or ndarray of datetime64, shape () or (time,)
        The dates of the image; a single one has no axis.

    Returns
    -------
    list of Path
        With days, or to the second where a day comes twice.

    Examples
    --------
    >>> dates = np.array(["2021-07-08", "2021-07-13"], "datetime64[ns]")
    >>> [file.name for file in dated_paths("fields.tif", dates)]
    ['fields_2021-07-08.tif', 'fields_2021-07-13.tif']
    """
    where, stamps = local(path), np.asarray(times)
    if stamps.ndim == 0:
        return [where]
    days = stamps.astype("datetime64[D]")
    if np.unique(days).size == days.size:
        names = [str(day) for day in days]
    else:
        names = [str(stamp.astype("datetime64[s]")).replace(":", "") for stamp in stamps]
    return [where.with_name(f"{where.stem}_{name}{where.suffix}") for name in names]


def check_free(paths: Sequence[Path], overwrite: bool) -> None:
    """Refuse to write where something is.

    Parameters
    ----------
    paths : sequence of Path
        Files and Zarr stores to write.
    overwrite : bool
        Whether they may be replaced; a folder that is no store never is.

    Raises
    ------
    OutputError
        If something is there.
    """
    for path in paths:
        if path.is_dir() and not is_store(path):
            raise OutputError(f"{path} is a folder and no Zarr store", "a path of its own", "another path")
        if path.exists() and not overwrite:
            raise OutputError(f"{path} is there already", "a new path, or permission to replace it", "overwrite=True")


def refuse_source(path: Path, sources: Iterable[Path]) -> None:
    """Refuse an output that would replace what it is made from.

    Parameters
    ----------
    path : Path
        The output.
    sources : iterable of Path
        Files and stores that are read.

    Raises
    ------
    OutputError
        If one of them is the output, or lies in it, or the output in one of them.
    """
    out = path.resolve()
    for source in (source.resolve() for source in sources):
        if out == source or source in out.parents or out in source.parents:
            how = "would lie in" if source in out.parents else "would replace"
            remedy = f"{source.stem}-filled{path.suffix}"
            raise OutputError(f"{path} {how} {source}, which it is made from", "a path of its own", remedy)


def layer_path(path: Path, layer: str) -> Path:
    """The file of a layer beside the GeoTIFF of an image."""
    return path.with_name(f"{path.stem}.{layer}{path.suffix}")


def write(
    image: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    scaling: Scaling | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write what `fill` gave, block by block: each block is computed once, whatever is written of it.

    Nothing is left behind, and nothing replaced, if the computation fails.

    Parameters
    ----------
    image : Dataset
        An image, or several dates of one, with or without layers.
    path : str or path
        ``.zarr`` for a store of format 3 with everything. ``.tif`` for a GeoTIFF of the bands for each date,
        and one beside it for each layer.
    scaling : Scaling, optional
        What the stored numbers mean, where attributes do not tell; for the tags of a GeoTIFF.
    overwrite : bool
        Replace what is there.

    Returns
    -------
    list of Path
        What was written, the images first and then their layers.

    Raises
    ------
    OutputError
        If there is something at `path`, or a GeoTIFF is asked for and the image has no CRS.
    """
    time = str(time_of(image))
    where = local(path)
    ending = where.suffix.lower()
    if ending not in (".zarr", *_TIFF):
        raise OutputError(
            f"the output is called {where.name}",
            "an ending .zarr or .tif",
            f"out='{where.stem or where.name}.zarr'",
        )
    rasters = {}
    if ending in _TIFF:
        rasters = _plan(storable(image, coords=False), dated_paths(where, image[time].to_numpy()), time)
    files = list(rasters) or [where]
    check_free(files, overwrite)
    try:
        where.parent.mkdir(parents=True, exist_ok=True)
        with _beside(where, files) as parts:
            if rasters:
                _write_tiffs({parts[file]: array for file, array in rasters.items()}, scaling or Scaling())
            else:
                _write_zarr(image, parts[where])
    except PermissionError as error:
        raise OutputError(
            f"{error.filename or where} cannot be written", "a folder you may write to", "another path"
        ) from error
    return files


def open_store(path: str | os.PathLike[str], **how: bool) -> xr.Dataset:
    """Open a Zarr store, lazily and with its CRS.

    Parameters
    ----------
    path : str or path
        A folder, a zip file or a URL.
    **how
        What xarray is told otherwise: ``mask_and_scale``, ``decode_coords``.

    Raises
    ------
    OptionError, InputError, MissingDependencyError
        If what lies at a URL, or in a zip file, cannot be opened.
    """
    where = place(path)
    store, folder = _store(where)
    told: dict[str, Any] = {"decode_coords": "all", **how}
    if store is where:
        return _opened(store, folder, told)
    from xr_cloudfree import remote

    try:
        opened = _opened(store, folder, told)
    except CloudfreeError:
        raise
    except Exception as error:
        raise remote.refused(str(where), error) from error
    if not opened.variables:
        raise OptionError(
            f"the store at {where} names no arrays: it is empty, or its server does not list folders",
            "consolidated metadata",
            "zarr.consolidate_metadata(store) where the store lies",
        )
    opened.encoding["source"] = str(where)
    return opened


def _opened(store: Any, folder: str, told: Mapping[str, Any]) -> xr.Dataset:
    import zarr

    # xarray warns where it has to find out by itself.
    consolidated = zarr.open_group(store, path=folder, mode="r").metadata.consolidated_metadata is not None
    opened: xr.Dataset = xr.open_zarr(store, group=folder or None, consolidated=consolidated, **told)
    # Without consolidated metadata the variables come in the order in which their files happen to be found.
    return opened if consolidated else opened[sorted(map(str, opened.data_vars))]


def _store(where: Path | str) -> tuple[Any, str]:
    """What zarr opens, and the folder in it."""
    if isinstance(where, Path) and not is_zipped(where):
        return where, ""
    from zipfile import BadZipFile

    from zarr.storage import ZipStore

    from xr_cloudfree import remote

    if isinstance(where, str):
        return remote.store_at(where), ""
    try:
        return ZipStore(where, mode="r"), remote.zipped_folder(str(where))
    except BadZipFile as error:
        raise remote.refused(str(where), error) from error


def is_zipped(path: Path) -> bool:
    """Whether a file is called as a zipped Zarr store is."""
    return path.suffix.lower() == ".zip" and path.is_file()


def is_netcdf(url: str) -> bool:
    """Whether a URL names a NetCDF file."""
    return Path(name_of(url)).suffix.lower() in _NETCDF


def is_store(path: Path) -> bool:
    """Whether a folder is a Zarr store."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata"))


@contextmanager
def _beside(first: Path, files: Sequence[Path]) -> Iterator[dict[Path, Path]]:
    """Paths to write to, which take their places once all is written."""
    folder = Path(tempfile.mkdtemp(prefix=f".{first.stem}-", dir=first.parent))
    try:
        parts = {file: folder / file.name for file in files}
        yield parts
        for file, part in parts.items():
            if file.is_dir():
                shutil.rmtree(file)
            else:
                file.unlink(missing_ok=True)
            os.replace(part, file)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def for_zarr(image: xr.Dataset) -> xr.Dataset:
    """The image as Zarr stores it: what belongs to the old file is left out of its encoding.

    Warns of what Zarr cannot hold, see `xr_cloudfree.attributes.storable`.
    """
    from zarr.codecs import BloscCodec

    image = storable(image)
    compressor = BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle")
    for name in list(image.variables):
        kept = {key: value for key, value in image[name].encoding.items() if key in PACKING}
        if image[name].dtype.kind == "U":
            # Zarr has no specification for text of fixed length, and xarray none for lazy text of any length.
            image[name] = image[name].compute().astype(object)
        if name in image.coords or image[name].dtype.kind in "MOT":
            # The old file's unit of time may not hold the new dates, nor its packing coordinates that were changed.
            kept = {key: value for key, value in kept.items() if key == "grid_mapping" or (key, value) == _NO_FILL}
        if image[name].dtype.kind not in "MOT" and image[name].ndim > 1:
            kept["compressors"] = [compressor]
        image[name].encoding = kept
    return image


def _write_zarr(image: xr.Dataset, path: Path) -> None:
    with warnings.catch_warnings():
        # Consolidated metadata is an extension of Zarr format 3; without it xarray warns at each opening.
        warnings.filterwarnings("ignore", "Consolidated metadata", category=UserWarning)
        for_zarr(image).to_zarr(path, mode="w", zarr_format=3, consolidated=True)


def _plan(image: xr.Dataset, paths: Sequence[Path], time: str) -> dict[Path, xr.DataArray]:
    """What goes into which GeoTIFF, north up; the images first."""
    import rioxarray  # noqa: F401  registers .rio

    arrays = {str(name): array for name, array in image.data_vars.items()}
    bands = [name for name, array in arrays.items() if name not in _LAYERS and "cloudfree_model" in array.attrs]
    if not bands:
        raise OutputError("the image has no band", "what fill() gave", "xr_cloudfree.fill(cube, date, layers='filled')")
    first = arrays[bands[0]]
    axes = axes_of(image)
    if first.rio.crs is None or len(axes) < 2:
        raise OutputError(
            "the cube does not say where on Earth it lies (no CRS, or no coordinates)",
            "a CRS and coordinates, for a GeoTIFF",
            f"an output .zarr, or {typed_crs(first)} in Python before it is saved",
        )
    if told := assumed_of(first):
        warnings.warn(told, CloudfreeWarning, stacklevel=3)
    if len(bands) > 1:
        label = xr.Variable("band", np.array(bands, object))
        joined = xr.concat([arrays[name] for name in bands], label, coords="minimal", compat="override", join="exact")
        # The bands' dimension comes first in a file, after the dates.
        joined = joined.transpose(..., "band", axes["y"], axes["x"])
        joined.encoding = first.encoding
        first = joined
    layers = {name: array for name, array in arrays.items() if name not in bands}
    turned = {name: slice(None, None, -1) for role, name in axes.items() if _runs_against_the_map(image[name], role)}
    files: dict[Path, xr.DataArray] = {}
    for name, array in {"": first.rename(bands[0] if len(bands) == 1 else "reflectance"), **layers}.items():
        array = array.isel(turned)
        for i, path in enumerate(paths):
            one = array.isel({time: i}) if time in array.dims else array
            files[layer_path(path, name) if name else path] = one
    return files


def _runs_against_the_map(axis: xr.DataArray, role: str) -> bool:
    """Whether an axis has to be turned for north to be up and east to the right."""
    rises = bool(axis[-1] > axis[0])
    return rises if role == "y" else not rises


_LAYERS = ("filled", "n_clear", "days_to_clear", "source_time", "uncertainty", "gate", "suspect", "snow")


@dataclass(eq=False)
class _Target:
    """An open GeoTIFF that takes blocks as `dask.array.store` gives them."""

    file: Any
    token: str
    lock: Any = field(default_factory=threading.Lock)

    def __setitem__(self, region: tuple[slice, ...], block: NDArray[Any]) -> None:
        from rasterio.windows import Window

        rows, columns = region[-2:]
        window = Window.from_slices(rows, columns)
        if block.ndim == 2:
            self.file.write(block, 1, window=window)
        else:
            self.file.write(block, [i + 1 for i in range(region[0].start, region[0].stop)], window=window)

    def __dask_tokenize__(self) -> str:
        return self.token


def _write_tiffs(files: Mapping[Path, xr.DataArray], scaling: Scaling) -> None:
    import dask.array as da
    import rasterio

    sources: list[Any] = []
    targets: list[Any] = []
    with ExitStack() as stack:
        for path, array in files.items():
            data, profile = _encoded(array, scaling)
            told = profile.pop("scale"), profile.pop("offset")
            file = stack.enter_context(rasterio.open(path, "w", **profile))
            for i, name in enumerate(_descriptions(array)):
                file.set_band_description(i + 1, name)
            if told != (1.0, 0.0):
                file.scales, file.offsets = ([value] * file.count for value in told)
            file.update_tags(**_tags(array))
            sources.append(data if hasattr(data, "__dask_graph__") else da.from_array(data))
            targets.append(_Target(file, str(path)))
        # One graph for all files: what they share is computed once.
        da.store(sources, targets, lock=threading.Lock())


def _encoded(array: xr.DataArray, scaling: Scaling) -> tuple[Any, dict[str, Any]]:
    """The numbers as they are stored, and how the file is made."""
    layer = array.name in _LAYERS
    nodata: float | None
    if array.dtype.kind == "M":
        days = array.astype("datetime64[ns]").astype("int64") // (86400 * 10**9)
        stored, nodata = days.where(array.notnull(), _NO_DAY).astype("int32").variable, _NO_DAY
        scale, offset = 1.0, 0.0
    else:
        stored = xr.conventions.encode_cf_variable(array.variable)
        if stored.dtype.kind == "b":
            stored = stored.astype("uint8")
        attrs = stored.attrs
        known = Scaling() if layer or stored.dtype.kind == "f" else scaling
        nodata = attrs.get("_FillValue", known.nodata)
        if nodata is None and stored.dtype.kind == "f":
            nodata = np.nan
        scale = float(attrs.get("scale_factor", known.scale if known.scale is not None else 1.0))
        offset = float(attrs.get("add_offset", known.offset))
    rows, columns = stored.shape[-2:]
    chunks = stored.chunks[-2:] if stored.chunks else ((rows,), (columns,))
    return stored.data, {
        "driver": "GTiff",
        "height": rows,
        "width": columns,
        "count": 1 if stored.ndim == 2 else stored.shape[0],
        "dtype": stored.dtype.name,
        "crs": array.rio.crs,
        "transform": transform_of(array),
        "nodata": nodata,
        "tiled": True,
        "blockysize": _tile(chunks[0]),
        "blockxsize": _tile(chunks[1]),
        "interleave": "band",
        "compress": "deflate",
        "predictor": 3 if stored.dtype.kind == "f" else 2,
        "bigtiff": "if_safer",
        "scale": scale,
        "offset": offset,
    }


def _tile(chunks: tuple[int, ...]) -> int:
    """Edge of the file's tiles: such that a block fills whole ones."""
    return next((n for n in (512, 256, 128, 64) if chunks[0] % n == 0), 256)


def _descriptions(array: xr.DataArray) -> list[str]:
    if array.ndim == 2:
        return [str(array.name)]
    first = array.dims[0]
    if first not in array.coords:
        return [f"{first} {i + 1}" for i in range(array.sizes[first])]
    return [str(label) for label in array[first].to_numpy()]


def _tags(array: xr.DataArray) -> dict[str, str]:
    skipped = (
        "scale_factor",
        "add_offset",
        "_FillValue",
        "missing_value",
        "nodata",
        "grid_mapping",
        "long_name",
    )
    tags = {str(key): str(value) for key, value in array.attrs.items() if key not in skipped and value is not None}
    if array.dtype.kind == "M":
        tags["units"] = "days since 1970-01-01"
    if "flag_values" in array.attrs:
        tags["flag_values"] = " ".join(str(value) for value in array.attrs["flag_values"])
    time = time_of(array)
    if time is not None and array[time].ndim == 0:
        tags["time"] = str(np.datetime_as_string(array[time].to_numpy(), unit="s"))
    return tags
