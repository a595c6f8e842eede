"""Other formats of a finished store: cloud-optimized GeoTIFFs, STAC items, a version in an Icechunk repository.

They are made from the store, at any time after the fill.
"""

from __future__ import annotations

import shlex
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xr_cloudfree import io
from xr_cloudfree.compat import raster_errors, run_async
from xr_cloudfree.cube.crs import crs_remedy
from xr_cloudfree.cube.dims import time_of
from xr_cloudfree.errors import MissingDependencyError, OutputError
from xr_cloudfree.layers import LAYERS
from xr_cloudfree.runner.store import ROOT
from xr_cloudfree.runner.verify import store_digest
from xr_cloudfree.storage import geotiff
from xr_cloudfree.storage.files import aside, write_error
from xr_cloudfree.storage.folders import PARTIAL, Folder, folder_at
from xr_cloudfree.storage.geotransform import transform_of
from xr_cloudfree.storage.locations import JOURNAL, name_of

_COG = "image/tiff; application=geotiff; profile=cloud-optimized"
_ZARR = "application/vnd.zarr; version=3"
_PROJECTION = "https://stac-extensions.github.io/projection/v2.0.0/schema.json"


def check_sinks(
    store: Path | str, *, cog: bool, stac: bool, icechunk: Path | None, overwrite: bool, times: Any
) -> None:
    """Check the options of exports before a run, so that exports do not fail after it.

    Parameters
    ----------
    store : Path or str
        The store of the run.
    cog, stac : bool
        Whether GeoTIFFs and items will be written.
    icechunk : Path or None
        The Icechunk repository, if any.
    overwrite : bool
        Whether files may be replaced.
    times : ndarray of datetime64
        The dates of the output.

    Raises
    ------
    MissingDependencyError
        If a package is missing.
    OutputError
        If a file exists already, or would be beside a store in an object store.
    """
    if isinstance(store, str) and (cog or stac):
        name, wanted = name_of(store), "--cog" if cog else "--stac"
        raise OutputError(
            f"{store} is in an object store, and {wanted} writes beside the store",
            "a store on a disk",
            f"copy it and its journal, {name}{JOURNAL}, to a disk; then: cloudfree resume {name} {wanted}",
        )
    for requested, package, extra in ((stac, "pystac", "stac"), (icechunk is not None, "icechunk", "icechunk")):
        if requested and find_spec(package) is None:
            raise MissingDependencyError(
                f"{package} is not installed",
                f"the package {package}, for --{extra}",
                f'pip install "xr-cloudfree[{extra}]"',
            )
    if cog:
        io.check_free(_paths(Path(store), ".tif", times), overwrite)
    if stac:
        io.check_free(_paths(Path(store), ".json", times), overwrite)


def write_cogs(store: Path, *, overwrite: bool = False) -> list[Path]:
    """Write a cloud-optimized GeoTIFF for each date beside a finished store, and one for each of its layers.

    They are written window by window and then reordered by GDAL: no image is in memory as a whole. GDAL's cache is
    limited by GDAL_CACHEMAX, by default a twentieth of the machine's memory.

    Parameters
    ----------
    store : Path
        A finished store; ``out.zarr`` gives ``out_2021-07-08.tif`` and ``out_2021-07-08.filled.tif``.
    overwrite : bool
        Whether files may be replaced.

    Returns
    -------
    list of Path
        The files written, sorted by date.

    Raises
    ------
    OutputError
        If a file exists, or the image has no CRS.
    """
    import rasterio.shutil

    image = _open(store)
    paths = _paths(store, ".tif", _times(image))
    io.check_free(paths, overwrite)
    written: list[Path] = []
    for path, single in zip(paths, _singles(image), strict=True):
        layers = [name for name in map(str, single.data_vars) if name in LAYERS]
        names = [path, *(geotiff.layer_path(path, name) for name in layers)]
        with _writing(store, "--cog"), aside(names) as parts:
            plain = io.write(single, parts[path].parent / "plain" / path.name)
            for part in plain:
                target = parts[path.with_name(part.name)]
                try:
                    rasterio.shutil.copy(
                        part,
                        target,
                        driver="COG",
                        compress="DEFLATE",
                        predictor="YES",
                        blocksize=512,
                        overview_resampling="NEAREST" if part.name != path.name else "AVERAGE",
                        bigtiff="IF_SAFER",
                    )
                except raster_errors() as error:
                    raise write_error(path.with_name(part.name), error) from error
                if not geotiff.same_raster(target, part):
                    raise write_error(path.with_name(part.name), "it differs from what was written")
                written.append(path.with_name(part.name))
    return written


def write_items(store: Path, *, overwrite: bool = False) -> list[Path]:
    """Write a STAC item for each date beside a finished store.

    Its assets are the store and the GeoTIFFs of the date beside it.

    Parameters
    ----------
    store : Path
        A finished store; ``out.zarr`` gives ``out_2021-07-08.json``.
    overwrite : bool
        Whether files may be replaced.

    Returns
    -------
    list of Path
        The items, sorted by date.

    Raises
    ------
    OutputError
        If a file exists, or the image has no CRS.
    """
    image = _open(store)
    paths = _paths(store, ".json", _times(image))
    rasters = _paths(store, ".tif", _times(image))
    io.check_free(paths, overwrite)
    for path, raster, single in zip(paths, rasters, _singles(image), strict=True):
        item = _item(single, path.stem)
        _add_assets(item, single, store, raster)
        with _writing(store, "--stac"), aside([path]) as parts:
            item.save_object(include_self_link=False, dest_href=str(parts[path]))
    return paths


def write_icechunk(store: Path | str, repository: Path) -> str:
    """Copy a finished store into an Icechunk repository, byte for byte, as a new version.

    Parameters
    ----------
    store : Path or str
        A finished store, a path or the URL of an object store.
    repository : Path
        A folder; the repository is created if it does not exist. Its present content stays in its history.

    Returns
    -------
    str
        The new snapshot, or the latest one if it has the same content.

    Raises
    ------
    OutputError
        If the folder contains something else.
    """
    import icechunk

    if repository.exists() and any(repository.iterdir()) and not icechunk.Repository.exists(_local(repository)):
        raise OutputError(f"{repository} is not an Icechunk repository", "one, or an empty folder", "another path")
    message = f"{Path(store).name}: {store_digest(store)}"
    opened = icechunk.Repository.open_or_create(_local(repository))
    head = next(iter(opened.ancestry(branch="main")))
    if head.message == message:
        return str(head.id)
    session = opened.writable_session("main")
    _copy(folder_at(store), session.store)
    metadata = {key: str(value) for key, value in _properties(io.open_store(store)).items()}
    return str(session.commit(message, metadata=metadata))


@contextmanager
def _writing(store: Path, option: str) -> Iterator[None]:
    """If an output cannot be written, add to the error how to write it later from the finished store."""
    try:
        yield
    except OutputError as error:
        if " cannot be written" not in error.found:
            raise
        remedy = f"free some space, then: cloudfree resume {shlex.quote(str(store))} {option} --overwrite"
        raise OutputError(error.found, error.needed, remedy) from error


def _local(repository: Path) -> Any:
    import icechunk

    repository.parent.mkdir(parents=True, exist_ok=True)
    return icechunk.local_filesystem_storage(str(repository))


def _copy(store: Folder, target: Any) -> None:
    from zarr.buffer import default_buffer_prototype

    async def copy() -> None:
        await target.clear()
        buffer = default_buffer_prototype().buffer
        # Metadata first: a chunk can only be written into an existing array.
        keys = sorted(
            (key for key, _ in store.list() if not key.endswith(PARTIAL)),
            key=lambda key: (key.rpartition("/")[2] != ROOT, key.count("/"), key),
        )
        for key in keys:
            if (data := store.read(key)) is not None:
                await target.set(key, buffer.from_bytes(data))

    run_async(copy())


def _open(store: Path) -> xr.Dataset:
    # As stored: decoding and encoding again would take time and could change a digit.
    opened: xr.Dataset = xr.open_zarr(store, decode_coords="all", mask_and_scale=False, consolidated=True)
    return opened


def _time(image: xr.Dataset) -> str:
    return str(time_of(image))


def _times(image: xr.Dataset) -> Any:
    return image[_time(image)].to_numpy()


def _singles(image: xr.Dataset) -> Iterator[xr.Dataset]:
    """Yield the image of each date."""
    time = _time(image)
    if time not in image.dims:
        yield image
        return
    for i in range(image.sizes[time]):
        yield image.isel({time: i})


def _paths(store: Path, suffix: str, times: Any) -> list[Path]:
    return io.dated_paths(store.with_suffix(suffix), times)


def _properties(image: xr.Dataset) -> dict[str, Any]:
    return {key.replace("_", ":", 1): value for key, value in image.attrs.items() if key.startswith("cloudfree_")}


def _item(single: xr.Dataset, name: str) -> Any:
    """Return an item without its assets: date, footprint and provenance."""
    import pystac
    from rasterio.warp import transform_geom

    crs = single.rio.crs
    if crs is None:
        raise OutputError(
            "the cube does not say where on Earth it lies (no CRS)",
            "a CRS, for a STAC item",
            f"{crs_remedy(single)} in Python before it is filled",
        )
    transform, (rows, columns) = transform_of(single), (single.rio.height, single.rio.width)
    west, east = sorted((transform.c, transform.c + columns * transform.a))
    south, north = sorted((transform.f, transform.f + rows * transform.e))
    geometry = transform_geom(crs, "EPSG:4326", _ring(west, south, east, north), precision=7)
    corners = np.array(geometry["coordinates"][0])
    lower, upper = corners.min(axis=0), corners.max(axis=0)
    code = crs.to_epsg()
    properties = {
        "proj:code": f"EPSG:{code}" if code else None,
        "proj:bbox": [west, south, east, north],
        "proj:shape": [rows, columns],
        "proj:transform": list(transform)[:6],
        **{key: _plain(value) for key, value in _properties(single).items()},
    }
    if not code:
        properties["proj:wkt2"] = crs.to_wkt()
    when = single[_time(single)].to_numpy().astype("datetime64[us]").item()
    return pystac.Item(
        id=name,
        geometry={"type": "Polygon", "coordinates": geometry["coordinates"]},
        bbox=[*map(float, lower), *map(float, upper)],
        datetime=when,
        properties=properties,
        stac_extensions=[_PROJECTION],
    )


def _ring(west: float, south: float, east: float, north: float, parts: int = 8) -> dict[str, Any]:
    """Return the outline with points along its edges, which are curved in another projection."""
    along = np.linspace(0, 1, parts + 1)[:-1]
    x, y = west + (east - west) * along, south + (north - south) * along
    points = [(v, south) for v in x] + [(east, v) for v in y]
    points += [(v, north) for v in (west + east - x)] + [(west, v) for v in (south + north - y)]
    return {"type": "Polygon", "coordinates": [[(float(a), float(b)) for a, b in [*points, points[0]]]]}


def _add_assets(item: Any, single: xr.Dataset, store: Path, raster: Path) -> None:
    import pystac

    bands = _bands(single)
    item.add_asset("zarr", pystac.Asset(f"./{store.name}", media_type=_ZARR, roles=["data"]))
    if raster.exists():
        fields = {"bands": [{"name": name} for name in bands]}
        item.add_asset("image", pystac.Asset(f"./{raster.name}", media_type=_COG, roles=["data"], extra_fields=fields))
    for name in map(str, single.data_vars):
        layer = geotiff.layer_path(raster, name)
        if name not in bands and layer.exists():
            title = single[name].attrs.get("long_name")
            item.add_asset(name, pystac.Asset(f"./{layer.name}", title=title, media_type=_COG, roles=["metadata"]))


def _bands(single: xr.Dataset) -> Sequence[str]:
    """Return the names of the bands, from variables or from the labels of an axis."""
    images = [str(name) for name, array in single.data_vars.items() if "cloudfree_model" in array.attrs]
    if len(images) == 1 and single[images[0]].ndim == 3:
        array = single[images[0]]
        axis = array.dims[0]
        return [str(label) for label in array[axis].to_numpy()] if axis in array.coords else images
    return images


def _plain(value: Any) -> Any:
    """Return a value as JSON stores it."""
    return value.tolist() if isinstance(value, np.generic | np.ndarray) else value
