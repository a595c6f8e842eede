"""Open cubes from Zarr and NetCDF; write filled images as Zarr and GeoTIFF, block by block."""

from __future__ import annotations

import os
import shutil
import warnings
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path, PurePath, PurePosixPath
from typing import Any

import numpy as np
import xarray as xr

from xr_cloudfree.cube.attributes import storable
from xr_cloudfree.cube.dims import dim_of, time_of
from xr_cloudfree.cube.scaling import PACKING, Scaling
from xr_cloudfree.errors import CloudfreeError, MissingDependencyError, OptionError, OutputError, code, option
from xr_cloudfree.storage import geotiff, geozarr
from xr_cloudfree.storage.files import aside, write_error
from xr_cloudfree.storage.geotransform import axes_of
from xr_cloudfree.storage.locations import bucket_and_key, journal_folder, local, name_of, parse_location
from xr_cloudfree.storage.read_errors import guard_opened, opening

_NETCDF = (".nc", ".nc4", ".cdf", ".h5", ".hdf5")
_TIFF = (".tif", ".tiff")
# Rows and columns of a chunk, for files stored contiguously or by lines.
_CHUNK = 512
_NO_FILL = ("_FillValue", None)


def open_cube(path: str | os.PathLike[str]) -> xr.Dataset:
    """Open a cube lazily from a Zarr store or a NetCDF file, local or at a URL, with its CRS.

    Parameters
    ----------
    path : str or path
        A ``.zarr`` store, a zipped one (``.zarr.zip``), or a ``.nc`` file; a path, or a URL that fsspec knows:
        ``https://``, ``s3://``, ``gs://``, ``az://``, ``memory://``, and chains such as ``zip::s3://``.

    Returns
    -------
    Dataset
        The cube in chunks; only coordinates are read.

    Raises
    ------
    OptionError
        If there is nothing at `path`, or it is neither a Zarr store nor a NetCDF file.
    InputError
        If a server cannot be reached, or refuses, or a file cannot be opened. Damaged chunks are found when they are
        read.
    MissingDependencyError
        If no package is installed that reads NetCDF, or URLs of this kind.

    Examples
    --------
    >>> import tempfile
    >>> from xr_cloudfree import synthetic
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     _ = synthetic.cube(shape=(12, 4, 64, 64)).to_zarr(f"{folder}/cube.zarr", zarr_format=2)
    ...     open_cube(f"{folder}/cube.zarr").reflectance.dims
    ('time', 'band', 'y', 'x')
    """
    where = parse_location(path)
    if isinstance(where, str):
        return _open_remote(where)
    if not where.exists():
        raise OptionError(f"there is nothing at {where}", "a .zarr store or a .nc file", "the path as ls shows it")
    if is_store(where) or is_zipped(where):
        with opening(where):
            return guard_opened(open_store(where))
    if where.suffix.lower() not in _NETCDF or not where.is_file():
        raise OptionError(
            f"{where} is neither a Zarr store nor a NetCDF file",
            "a .zarr store or a .nc file",
            "in Python: open it with xarray, and xr_cloudfree.fill(cube, date)",
        )
    if not set(xr.backends.list_engines()) & {"netcdf4", "h5netcdf", "scipy"}:
        raise MissingDependencyError(
            "no package that reads NetCDF is installed",
            "a package such as netCDF4",
            'pip install "xr-cloudfree[netcdf]"',
        )
    # Opened once: netCDF4 crashes if a file is closed and opened again while another handle to it is open.
    with opening(where):
        return _in_chunks(xr.open_dataset(where, decode_coords="all", cache=False))


def _open_remote(url: str) -> xr.Dataset:
    if not is_netcdf(url):
        return open_store(url)
    from xr_cloudfree.storage import remote

    file = remote.file_at(url)
    if "h5netcdf" not in xr.backends.list_engines():
        raise MissingDependencyError(
            f"{url} is a NetCDF file, and h5netcdf is not installed",
            "h5netcdf, which reads NetCDF from URLs",
            "pip install h5netcdf",
        )
    try:
        opened = xr.open_dataset(file, engine="h5netcdf", decode_coords="all", cache=False)
    except Exception as error:
        raise remote.read_error(url, error) from error
    opened.encoding["source"] = url
    return _in_chunks(opened)


def _in_chunks(ds: xr.Dataset) -> xr.Dataset:
    """Chunk a NetCDF file by its own chunks, or by `_CHUNK` if it has none."""
    stored = any(v.encoding.get("chunksizes") for v in ds.variables.values() if v.ndim > 2)
    edges = {name: _CHUNK for name in (dim_of(ds, "y"), dim_of(ds, "x")) if name is not None}
    for name, array in ds.data_vars.items():
        chunks = array.encoding.get("preferred_chunks", {}) if stored else edges
        ds[name] = array.chunk({dim: size for dim, size in chunks.items() if dim in array.dims})
    return guard_opened(ds)


def open_image(path: str | os.PathLike[str], like: xr.Dataset) -> xr.Dataset:
    """Open an image written by `write`, with its layer ``filled``.

    Parameters
    ----------
    path : str or path
        A ``.zarr`` store, or the ``.tif`` of one date.
    like : Dataset
        The image before it was written; a GeoTIFF, which has north up, is turned back to it.

    Returns
    -------
    Dataset
        The image, lazy.
    """
    where = Path(path)
    if where.suffix.lower() not in _TIFF:
        return open_store(where)
    import rioxarray

    opened: dict[str, Any] = {}
    for name, file in (("reflectance", where), ("filled", geotiff.layer_path(where, "filled"))):
        decode = name == "reflectance"
        array: Any = rioxarray.open_rasterio(file, chunks={"y": 1024, "x": 1024}, mask_and_scale=decode)
        names = array.attrs.get("long_name")
        array = array.assign_coords(band=[names] if isinstance(names, str) else list(names))
        reversed_axes = (role for role, name in axes_of(like).items() if geotiff.runs_against_the_map(like[name], role))
        opened[name] = array.isel({role: slice(None, None, -1) for role in reversed_axes})
    opened["filled"] = opened["filled"].isel(band=0, drop=True)
    attrs = {key: value for key, value in opened["reflectance"].attrs.items() if key.startswith("cloudfree_")}
    return xr.Dataset(opened, attrs=attrs)


def dated_paths(path: str | os.PathLike[str], times: Any) -> list[Path]:
    """Return a path for each date, with the date before the ending; the path itself for a single date.

    Parameters
    ----------
    path : str or path
        The output.
    times : datetime64 or ndarray of datetime64, shape () or (time,)
        The dates of the image; a single date has no axis.

    Returns
    -------
    list of Path
        The paths, with days, or with seconds if a day occurs twice.

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
    """Raise if an output would replace something.

    Parameters
    ----------
    paths : sequence of Path
        Files and Zarr stores to write.
    overwrite : bool
        Whether they may be replaced. A folder that is not a store is never replaced, unless it is empty.

    Raises
    ------
    OutputError
        If there is something at a path.
    """
    for path in paths:
        empty = path.suffix.lower() == ".zarr" and path.is_dir() and not any(path.iterdir())
        if path.is_dir() and not empty and not is_store(path):
            raise OutputError(f"{path} is a folder, but not a Zarr store", "a path of its own", "another path")
        if path.exists() and not empty and not overwrite:
            raise OutputError(
                f"{path} already exists", "a new path, or permission to replace it", option("overwrite=True")
            )


def refuse_source(path: Path | str, sources: Iterable[Path | str]) -> None:
    """Raise if an output would replace one of its sources.

    Parameters
    ----------
    path : Path or str
        The output, a path or a URL.
    sources : iterable of Path or str
        Files, stores and URLs the output is made from.

    Raises
    ------
    OutputError
        If a source is the output, or one of them contains the other.
    """
    out = _resolved(path)
    for original, source in ((source, _resolved(source)) for source in sources if type(source) is type(path)):
        if out == source or source in out.parents or out in source.parents:
            conflict = "would lie in" if source in out.parents else "would replace"
            name = f"{source.stem}-filled{out.suffix}"
            remedy = f"{path.rpartition('/')[0]}/{name}" if isinstance(path, str) else name
            where = source if isinstance(original, Path) else original
            raise OutputError(f"{path} {conflict} {where}, which it is made from", "a path of its own", remedy)


def _resolved(where: Path | str) -> PurePath:
    """Return a location as a path that can be compared with others of its kind."""
    return where.resolve() if isinstance(where, Path) else PurePosixPath(bucket_and_key(where))


def write(
    image: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    scaling: Scaling | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write the result of `fill` block by block; each block is computed once.

    The files are forced to the disk, read back and compared before they take their places. If the computation or the
    disk fails, nothing is left behind and nothing is replaced.

    Parameters
    ----------
    image : Dataset
        An image, or several dates of one, with or without layers.
    path : str or path
        ``.zarr`` for a store of format 3 with everything; ``.tif`` for a GeoTIFF of the bands for each date, with one
        beside it for each layer.
    scaling : Scaling, optional
        The scaling of the stored numbers, if attributes do not give it; for the tags of a GeoTIFF.
    overwrite : bool
        Replace existing files. The journal of a run that wrote the store is removed as well.

    Returns
    -------
    list of Path
        The files written, the images first and then their layers.

    Raises
    ------
    OutputError
        If there is something at `path`, the image has no CRS for a GeoTIFF, or the disk is full, read-only, or returns
        other bytes than were written.
    """
    time = str(time_of(image))
    where = local(path)
    ending = where.suffix.lower()
    if ending not in (".zarr", *_TIFF):
        raise OutputError(
            f"the output is called {where.name}",
            "an ending .zarr or .tif",
            option(f"out='{where.stem or where.name}.zarr'"),
        )
    rasters = {}
    if ending in _TIFF:
        rasters = geotiff.plan(storable(image, coords=False), dated_paths(where, image[time].to_numpy()), time)
    files = list(rasters) or [where]
    check_free(files, overwrite)
    with aside(files) as parts:
        if rasters:
            geotiff.write(rasters, parts, scaling or Scaling())
        elif wrong := _write_zarr(image, parts[where]):
            raise write_error(where, f"{wrong[0]} differs from what was written")
    if not rasters:
        _remove_journal(where)
    return files


def _remove_journal(store: Path) -> None:
    """Remove the journal of the run that wrote a store, after the store was replaced."""
    for folder in {journal_folder(store), journal_folder(Path(os.path.realpath(store)))}:
        if (folder / "run.json").is_file():
            shutil.rmtree(folder)


def open_store(path: str | os.PathLike[str], **settings: bool) -> xr.Dataset:
    """Open a Zarr store, lazily and with its CRS.

    Parameters
    ----------
    path : str or path
        A folder, a zip file or a URL.
    **settings
        Other settings of `xarray.open_zarr`: ``mask_and_scale``, ``decode_coords``.

    Raises
    ------
    OptionError, InputError, MissingDependencyError
        If a URL or a zip file cannot be opened.
    """
    where = parse_location(path)
    store, folder = zarr_store(where)
    options = {"decode_coords": "all", **settings}
    if store is where:
        return _open_zarr(store, folder, options)
    with _opening_remotely(str(where)):
        opened = _open_zarr(store, folder, options)
    if not opened.variables:
        raise OptionError(
            f"the store at {where} names no arrays: it is empty, or its server does not list folders",
            "consolidated metadata",
            "zarr.consolidate_metadata(store) where the store lies",
        )
    opened.encoding["source"] = str(where)
    return opened


def open_groups(
    path: str | os.PathLike[str], names: Sequence[str], **settings: Any
) -> tuple[dict[str, Any], dict[str, xr.Dataset]]:
    """Open some groups of a Zarr store, lazily and in the chunks of its files.

    Parameters
    ----------
    path : str or path
        A folder, a zip file or a URL.
    names : sequence of str
        Paths of groups in it, as ``"measurements/reflectance/r10m"``.
    **settings
        Settings of `xarray.open_zarr`.

    Returns
    -------
    dict, dict of str to Dataset
        The attributes of the store's root, and those of the groups that exist.

    Raises
    ------
    OptionError, InputError, MissingDependencyError
        If there is nothing at `path`, or it cannot be opened.
    """
    import zarr

    where = parse_location(path)
    if isinstance(where, Path) and not (is_store(where) or is_zipped(where)):
        found = "is no Zarr store" if where.exists() else "does not exist"
        raise OptionError(f"{where} {found}", "a Zarr store", "the path as ls shows it")
    store, folder = zarr_store(where)
    with opening(where) if isinstance(where, Path) else _opening_remotely(where):
        root = zarr.open_group(store, path=folder, mode="r")
        consolidated = root.metadata.consolidated_metadata is not None
        groups = {
            name: guard_opened(
                xr.open_zarr(store, group=f"{folder}/{name}".strip("/"), consolidated=consolidated, **settings)
            )
            for name in names
            if name in root
        }
        return dict(root.attrs), groups


@contextmanager
def _opening_remotely(where: str) -> Iterator[None]:
    from xr_cloudfree.storage import remote

    try:
        yield
    except CloudfreeError:
        raise
    except Exception as error:
        raise remote.read_error(where, error) from error


def _open_zarr(store: Any, folder: str, settings: Mapping[str, Any]) -> xr.Dataset:
    import zarr

    root = zarr.open_group(store, path=folder, mode="r")
    # xarray warns if it has to find out by itself.
    consolidated = root.metadata.consolidated_metadata is not None
    opened: xr.Dataset = xr.open_zarr(store, group=folder or None, consolidated=consolidated, **settings)
    if not opened.data_vars and "stac_discovery" in opened.attrs:
        raise OptionError(
            f"{opened.attrs['stac_discovery'].get('id', 'the store')} is a product in the Zarr format of EOPF",
            "a cube, of one or more products",
            code("xr_cloudfree.open_eopf([path])"),
        )
    # They describe the store; what is opened may be cut, or get another CRS.
    opened.attrs = geozarr.without_conventions(opened.attrs)
    # Without consolidated metadata the variables come in the arbitrary order of their files.
    return opened if consolidated else opened[sorted(map(str, opened.data_vars))]


def zarr_store(where: Path | str) -> tuple[Any, str]:
    """Return the store that zarr opens, and the folder in it.

    Parameters
    ----------
    where : Path or str
        A folder, a zip file or a URL.
    """
    if isinstance(where, Path) and not is_zipped(where):
        return where, ""
    from zipfile import BadZipFile

    from zarr.storage import ZipStore

    from xr_cloudfree.storage import remote

    if isinstance(where, str):
        return remote.store_at(where), ""
    try:
        return ZipStore(where, mode="r"), remote.zipped_folder(str(where))
    except BadZipFile as error:
        raise remote.read_error(str(where), error) from error


def is_zipped(path: Path) -> bool:
    """Return whether a file has the name of a zipped Zarr store."""
    return path.suffix.lower() == ".zip" and path.is_file()


def is_netcdf(url: str) -> bool:
    """Return whether a URL names a NetCDF file."""
    return Path(name_of(url)).suffix.lower() in _NETCDF


def is_store(path: Path) -> bool:
    """Return whether a folder is a Zarr store."""
    return any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata"))


def for_zarr(image: xr.Dataset) -> xr.Dataset:
    """Return the image as Zarr stores it, without the encoding that belongs to the old file.

    It has the attributes of the Zarr conventions for its CRS and grid, see `xr_cloudfree.storage.geozarr`. Warns of
    attributes that Zarr cannot store, see `xr_cloudfree.cube.attributes.storable`.
    """
    from zarr.codecs import BloscCodec

    image = storable(geozarr.with_conventions(image))
    compressor = BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle")
    for name in list(image.variables):
        kept = {key: value for key, value in image[name].encoding.items() if key in PACKING}
        if image[name].dtype.kind == "U":
            # Zarr does not specify text of fixed length, and xarray cannot write lazy text of variable length.
            image[name] = image[name].compute().astype(object)
        if name in image.coords or image[name].dtype.kind in "MOT":
            # The old file's unit of time may not fit the new dates, nor its packing changed coordinates.
            kept = {key: value for key, value in kept.items() if key == "grid_mapping" or (key, value) == _NO_FILL}
        if image[name].dtype.kind not in "MOT" and image[name].ndim > 1:
            kept["compressors"] = [compressor]
        image[name].encoding = kept
    return image


@contextmanager
def consolidating() -> Iterator[None]:
    """Write consolidated metadata without zarr's warning: they are an extension of Zarr format 3.

    Without them xarray warns on opening.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Consolidated metadata", category=UserWarning)
        yield


def _write_zarr(image: xr.Dataset, path: Path) -> list[str]:
    """Write a store and return those of its files that differ from what was written."""
    with consolidating():
        store, sums = _store_with_checksums(path)
        for_zarr(image).to_zarr(store, mode="w", zarr_format=3, consolidated=True)
    return [key for key, checksum in sums.items() if zlib.crc32((path / key).read_bytes()) != checksum]


def _store_with_checksums(path: Path) -> tuple[Any, dict[str, int]]:
    """Return a Zarr store in a folder, and the checksums of its files, filled in as they are written."""
    from zarr.storage import LocalStore, WrapperStore

    sums: dict[str, int] = {}

    class ChecksumStore(WrapperStore[LocalStore]):
        async def set(self, key: str, value: Any) -> None:
            await super().set(key, value)
            sums[key] = zlib.crc32(value.to_bytes())

    return ChecksumStore(LocalStore(path)), sums
