"""Access to what xarray, zarr, dask, distributed, fsspec, rasterio and odc-loader do not make public, in one place.

Checked against xarray 2026.9 (lazy arrays as since 2025.7), zarr 3.1.6, dask and distributed 2026.8, fsspec 2026.9,
rasterio 1.4.4, rioxarray 0.19 and odc-loader 0.6.5. After an upgrade of one of these, run the tests of
`runner`, `storage` and `loading` first.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.coding.common import _ElementwiseFunctionArray
from xarray.core.indexing import BasicIndexer, LazilyVectorizedIndexedArray

# Prefix of the graph layer in which dask keeps an array that `from_array` was called with.
_ORIGINAL = "original-"


# xarray: the data of variables, and the layers of lazy arrays


def raw_data(variable: xr.Variable) -> Any:
    """Return the data of a variable as it is kept, without reading a lazy array."""
    return variable._data


def is_numpy(variable: xr.Variable) -> bool:
    """Return whether the data of a variable are a NumPy array already."""
    return isinstance(variable._data, np.ndarray)


def is_in_memory(array: xr.DataArray | xr.Variable) -> bool:
    """Return whether the values of an array are in memory, also those of an index."""
    return bool(array._in_memory)


def lazy_layers(data: Any) -> Iterator[Any]:
    """Yield a lazy array and the arrays it wraps, down to the array of the file."""
    while data is not None:
        yield data
        data = getattr(data, "array", None)


def is_transposed(data: Any) -> bool:
    """Return whether the axes of a lazy array were transposed: such an array is read pixel by pixel."""
    return any(isinstance(layer, LazilyVectorizedIndexedArray) for layer in lazy_layers(data))


def split_decoding(data: Any) -> tuple[Any, tuple[Callable[[Any], Any], ...]]:
    """Return the stored array below a lazy array, and the functions that decode it, in order of application."""
    steps: list[Callable[[Any], Any]] = []
    stored = data
    for layer in lazy_layers(data):
        if isinstance(layer, _ElementwiseFunctionArray):
            steps.append(layer.func)
            stored = layer.array
    return stored, tuple(reversed(steps))


def index_of(layer: Any) -> tuple[Any, ...] | None:
    """Return the index that one layer of a lazy array applies; None if it applies none."""
    key = getattr(layer, "key", None)
    return None if key is None else tuple(key.tuple)


def read_box(array: Any, box: tuple[slice, ...]) -> Any:
    """Read a part of a backend's array."""
    return array[BasicIndexer(box)]


# xarray's backends: the files below an array


def zarr_array(array: Any) -> Any:
    """Return the `zarr.Array` below the array of xarray's Zarr backend; None for other arrays."""
    stored = getattr(array, "_array", None)
    return stored if hasattr(stored, "store_path") else None


def file_name(array: Any) -> str | None:
    """Return the name of the file below an array of xarray's NetCDF backends, as it was opened; None if unknown."""
    name = getattr(getattr(array, "datastore", None), "_filename", None)
    return None if name is None else str(name)


def local_files(array: Any) -> list[Path]:
    """Return the existing local file below an array of xarray's NetCDF backends or of rioxarray, if any."""
    opened = getattr(getattr(array, "manager", None), "_args", ())  # rioxarray
    names = (file_name(array), *opened[:1])
    return [Path(n) for n in names if isinstance(n, str | os.PathLike) and os.path.exists(n)]


# dask: the arrays that a graph starts from


def has_graph(data: Any) -> bool:
    """Return whether an array is a dask array."""
    return hasattr(data, "__dask_graph__")


def opened_array(data: Any) -> Any:
    """Return the lazy array that a dask array was made of; None if the graph does more than open it."""
    layers = getattr(getattr(data, "dask", None), "layers", None)
    if layers is None or set(layers) != {data.name, f"{_ORIGINAL}{data.name}"}:
        return None
    adapter = next(iter(layers[f"{_ORIGINAL}{data.name}"].values()))
    lazy: Any = getattr(adapter, "array", None)
    # Anything else under that name is an array in memory, which dask slices as well as we do.
    return lazy if hasattr(lazy, "get_duck_array") else None


def opened_adapters(data: Any) -> Iterator[Any]:
    """Yield the adapters through which a graph reads lazy arrays; each keeps its array as ``array``."""
    for layer in getattr(getattr(data, "dask", None), "layers", {}).values():
        yield from (adapter for adapter in layer.values() if hasattr(adapter, "get_duck_array"))


def graph_inputs(data: Any) -> Iterator[Any]:
    """Yield the arrays a graph starts from: lazy arrays, and arrays in memory that its name does not identify."""
    for name, layer in data.dask.layers.items():
        if name.startswith(_ORIGINAL):
            yield from layer.values()
        elif hasattr(layer, "mapping"):  # a materialized layer; others are not materialized for this
            for task in layer.mapping.values():
                value = getattr(task, "value", task)
                if isinstance(value, np.ndarray) and not name.startswith("array-"):
                    yield value  # persisted: it keeps the name of the computation it came from


# zarr


def run_async(coroutine: Any) -> Any:
    """Run a coroutine on zarr's event loop and return its result."""
    from zarr.core.sync import sync

    return sync(coroutine)


def unwrap_store(store: Any) -> Any:
    """Return the innermost store, without the wrappers that log or cache reads."""
    from zarr.storage import WrapperStore

    while isinstance(store, WrapperStore):
        store = store._store
    return store


def obstore_client(store: Any) -> Any:
    """Return the client of a Zarr store that is in an object store that is read through obstore; None for others."""
    from zarr.storage import ObjectStore

    # A web server lists nothing.
    usable = isinstance(store, ObjectStore) and type(store.store).__name__ != "HTTPStore"
    return store.store if usable else None


def memory_contents(store: Any) -> dict[str, bytes]:
    """Return the files of a `zarr.storage.MemoryStore`: bytes by key, sorted by key."""
    files = store._store_dict
    return {key: files[key].to_bytes() for key in sorted(files)}


def write_empty_chunks(array: Any) -> Any:
    """Return the same `zarr.Array`, which writes chunks also where all values are the fill value."""
    import zarr

    inner = array.async_array
    return zarr.Array(zarr.AsyncArray(inner.metadata, inner.store_path, config={"write_empty_chunks": True}))


# fsspec: the coroutines of asynchronous file systems


async def find_objects(system: Any, path: str) -> dict[str, Any]:
    """Return the details of all objects below a path, by name, from a listing."""
    return dict(await system._find(path, detail=True))


async def object_info(system: Any, name: str) -> dict[str, Any]:
    """Return the details of one object."""
    return dict(await system._info(name))


# distributed


def is_asynchronous(client: Any) -> bool:
    """Return whether the calls of a dask client are coroutines; ``client.asynchronous`` depends on the thread."""
    return bool(client.asynchronous or getattr(client, "_asynchronous", False))


# rasterio


def raster_errors() -> tuple[type[Exception], ...]:
    """Return the types of GDAL's errors: some are not subclasses of rasterio's public ones."""
    from rasterio._err import CPLE_BaseError
    from rasterio.errors import RasterioError

    return OSError, RasterioError, CPLE_BaseError


# odc-loader


def configured_gdal() -> dict[str, Any]:
    """Return the options of GDAL set by `rasterio.Env` or `odc.stac.configure_rio`, as odc-loader passes them on."""
    from odc.loader._rio import GDAL_CLOUD_DEFAULTS, capture_rio_env

    options: dict[str, Any] = capture_rio_env()
    return {} if options == GDAL_CLOUD_DEFAULTS else options


def count_reads(graph: Mapping[Any, Any], driver: type) -> int:
    """Return how many reads a graph of dask holds that odc-loader makes with a driver: sources of all chunks."""
    opened = {
        key
        for key, task in graph.items()
        if str(key[0] if isinstance(key, tuple) else key).startswith("open-")
        and any(isinstance(argument, driver) for argument in getattr(task, "args", ()))
    }
    return sum(len(opened & set(getattr(task, "dependencies", ()))) for task in graph.values()) if opened else 0
