"""Cubes from files, and filled images into files: Zarr and GeoTIFF, block by block."""

from __future__ import annotations

import os
import warnings
import zlib
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xr_cloudfree.cube.dims import dim_of, time_of
from xr_cloudfree.cube.scaling import PACKING, Scaling
from xr_cloudfree.errors import CloudfreeError, MissingDependencyError, OptionError, OutputError, option
from xr_cloudfree.storage import geotiff
from xr_cloudfree.storage.attributes import storable
from xr_cloudfree.storage.files import aside, refused
from xr_cloudfree.storage.guard import guard_opened, opening
from xr_cloudfree.storage.locations import local, name_of, place
from xr_cloudfree.storage.placement import axes_of

_NETCDF = (".nc", ".nc4", ".cdf", ".h5", ".hdf5")
_TIFF = (".tif", ".tiff")
# Rows and columns of a chunk, for files that are stored in one piece or by lines.
_CHUNK = 512
_NO_FILL = ("_FillValue", None)


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
        If a server cannot be reached, or refuses, or a file cannot be opened. Chunks that cannot be read are found when
        they are.
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
    where = place(path)
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
            "no package is installed that reads NetCDF",
            "one, such as netCDF4",
            'pip install "xr-cloudfree[netcdf]"',
        )
    # Opened once: netCDF4 crashes when a file is closed and opened again while another handle to it is open.
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
    return guard_opened(ds)


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
    for name, file in (("reflectance", where), ("filled", geotiff.layer_path(where, "filled"))):
        decode = name == "reflectance"
        array: Any = rioxarray.open_rasterio(file, chunks={"y": 1024, "x": 1024}, mask_and_scale=decode)
        names = array.attrs.get("long_name")
        array = array.assign_coords(band=[names] if isinstance(names, str) else list(names))
        turned = (role for role, name in axes_of(like).items() if geotiff.runs_against_the_map(like[name], role))
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
        Whether they may be replaced; a folder that is no store never is, unless it is empty and is to become one.

    Raises
    ------
    OutputError
        If something is there.
    """
    for path in paths:
        empty = path.suffix.lower() == ".zarr" and path.is_dir() and not any(path.iterdir())
        if path.is_dir() and not empty and not is_store(path):
            raise OutputError(f"{path} is a folder and no Zarr store", "a path of its own", "another path")
        if path.exists() and not empty and not overwrite:
            raise OutputError(
                f"{path} is there already", "a new path, or permission to replace it", option("overwrite=True")
            )


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


def write(
    image: xr.Dataset,
    path: str | os.PathLike[str],
    *,
    scaling: Scaling | None = None,
    overwrite: bool = False,
) -> list[Path]:
    """Write what `fill` gave, block by block: each block is computed once, whatever is written of it.

    What is written is forced to the disk, read back and compared before it takes its place. Nothing is left behind, and
    nothing replaced, if the computation or the disk fails.

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
        If there is something at `path`, a GeoTIFF is asked for and the image has no CRS, or the disk is full, may not
        be written to, or does not give back what was written.
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
            raise refused(where, f"{wrong[0]} does not read as it was written")
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
    from xr_cloudfree.storage import remote

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

    from xr_cloudfree.storage import remote

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


def for_zarr(image: xr.Dataset) -> xr.Dataset:
    """The image as Zarr stores it: what belongs to the old file is left out of its encoding.

    Warns of what Zarr cannot hold, see `xr_cloudfree.storage.attributes.storable`.
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


def _write_zarr(image: xr.Dataset, path: Path) -> list[str]:
    """Write a store, and return those of its files that do not read as they were written."""
    with warnings.catch_warnings():
        # Consolidated metadata is an extension of Zarr format 3; without it xarray warns at each opening.
        warnings.filterwarnings("ignore", "Consolidated metadata", category=UserWarning)
        store, sums = _summed(path)
        for_zarr(image).to_zarr(store, mode="w", zarr_format=3, consolidated=True)
    return [key for key, told in sums.items() if zlib.crc32((path / key).read_bytes()) != told]


def _summed(path: Path) -> tuple[Any, dict[str, int]]:
    """A Zarr store in a folder, and the checksums of its files as they are written."""
    from zarr.storage import LocalStore, WrapperStore

    sums: dict[str, int] = {}

    class Summed(WrapperStore[LocalStore]):
        async def set(self, key: str, value: Any) -> None:
            await super().set(key, value)
            sums[key] = zlib.crc32(value.to_bytes())

    return Summed(LocalStore(path)), sums
