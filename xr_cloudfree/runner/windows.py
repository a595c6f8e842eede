"""Windows of a cube's arrays, read without a graph of the whole cube, and stamps that identify those arrays."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree import compat
from xr_cloudfree.cube.dims import ROLES, role_of
from xr_cloudfree.engine.blocks import Array, Stored, Window, as_slice
from xr_cloudfree.engine.corrections import Corrections
from xr_cloudfree.engine.detection import Detection, detection_of
from xr_cloudfree.engine.grid import Box
from xr_cloudfree.runner import fingerprints
from xr_cloudfree.storage.locations import parse_location
from xr_cloudfree.storage.read_errors import guarded

if TYPE_CHECKING:
    import dask.array as da


def from_files(obj: Any) -> Any:
    """Replace dask arrays that only open files by the lazy arrays of those files.

    Parameters
    ----------
    obj : DataArray or Dataset
        A cube or a layer. Arrays computed from files, or sliced after they were chunked, stay as they are; any other
        object is returned as it is.
    """
    if isinstance(obj, xr.DataArray):
        opened = _opened(obj.variable)
        return obj if opened is None else obj.copy(data=opened)
    if not isinstance(obj, xr.Dataset):
        return obj  # refused later, where cubes are read
    opened_arrays = {name: _opened(array.variable) for name, array in obj.data_vars.items()}
    return obj.assign(
        {
            name: (obj[name].dims, data, obj[name].attrs, obj[name].encoding)
            for name, data in opened_arrays.items()
            if data is not None
        }
    )


def _opened(variable: xr.Variable) -> Any:
    """Return the lazy array that a chunked variable was opened from; None if its graph does more than open it."""
    roles = [role_of(str(dim)) for dim in variable.dims]
    if roles != [role for role in ROLES if role in roles]:
        return None  # lazy arrays with transposed axes are read pixel by pixel
    lazy = compat.opened_array(compat.raw_data(variable))
    return guarded(lazy) if lazy is not None and lazy.shape == variable.shape else None


def read(variable: xr.Variable | Corrections, dates: NDArray[np.intp], box: Box) -> Window:
    """Read a window of an array into memory; each chunk it touches is decompressed once."""
    if isinstance(variable, Corrections):
        return variable.read(dates, box)
    if is_lazy(variable) and detection_of(variable) is None:  # a detection guards its own sources
        variable = xr.Variable(variable.dims, guarded(compat.raw_data(variable)))
    part = variable[(as_slice(dates), Ellipsis, *box.slices)]
    if part.chunks is not None:
        # Not the default scheduler: this may run inside one of its tasks.
        return np.asarray(part.data.compute(scheduler="threads"))
    stored, decode = compat.split_decoding(compat.raw_data(part))
    return Stored(np.asarray(stored.get_duck_array()), decode) if decode else np.asarray(part.values)


def is_lazy(variable: xr.Variable) -> bool:
    """Return whether an array is in files, opened without chunks."""
    return variable.chunks is None and not compat.is_numpy(variable)


def windowed(variable: xr.Variable) -> xr.Variable:
    """Return an array whose windows can be read: one with transposed axes, read pixel by pixel, is loaded."""
    transposed = compat.is_transposed(compat.raw_data(variable))
    return xr.Variable(variable.dims, variable.data) if transposed else variable


def chunked(variable: xr.Variable) -> da.Array | Stored:
    """Return an array in chunks for a graph, still encoded if it was only opened from a file.

    Chunks stay in memory while neighbouring blocks wait for them; decoded they would take four times as much. A layer
    that a detector makes becomes tasks of the graph.
    """
    if (detection := detection_of(variable)) is not None:
        made: da.Array = detection.chunked(chunked)
        return made
    if variable.chunks is None:
        variable = windowed(variable)
        edges = variable.encoding.get("preferred_chunks", {}) if is_lazy(variable) else {}
        variable = variable.chunk({dim: size for dim, size in edges.items() if dim in variable.dims})
    array: da.Array = variable.data
    if (opened := _opened(variable)) is None:
        return array
    stored, decode = compat.split_decoding(opened)
    chunks = dict(zip(variable.dims, array.chunks, strict=True))
    return Stored(xr.Variable(variable.dims, stored).chunk(chunks, name=f"stored-{array.name}").data, decode)


def stored_bytes(variable: xr.Variable) -> int:
    """Return the bytes per value of an array as `read` returns it."""
    stored, decode = compat.split_decoding(compat.raw_data(variable))
    return int(stored.dtype.itemsize if decode else variable.dtype.itemsize)


def chunk_edges(variable: xr.Variable) -> tuple[int, int] | None:
    """Return the rows and columns of an array's chunks; None if it has none."""
    if variable.chunks is not None:
        return max(variable.chunks[-2]), max(variable.chunks[-1])
    # The encoding keeps the file's names of dimensions, in their order.
    edges = list(variable.encoding.get("preferred_chunks", {}).values())[-2:]
    if len(edges) < 2 or not all(isinstance(edge, int) for edge in edges):
        return None
    return min(edges[0], variable.sizes["y"]), min(edges[1], variable.sizes["x"])


def stamp(variable: xr.Variable) -> str:
    """Return a text that changes when an array does, without reading values from files.

    It identifies an array in memory by its values; an opened array by its files or store (see `fingerprints.content`)
    and by how it was sliced; a dask array by the name of the computation and by the arrays opened for it.
    """
    data = compat.raw_data(variable)
    if isinstance(data, np.ndarray):
        return f"values {_hash_values(data)}"
    digest = hashlib.sha256()
    kind, sources = "files", [data]
    if compat.has_graph(data):
        kind, sources = "dask", list(compat.graph_inputs(data))
        digest.update(f"{data.name}\n".encode())
    for source in sources:
        for layer in compat.lazy_layers(source):
            if (index := compat.index_of(layer)) is not None:
                digest.update(_index_as_text(index).encode())
            digest.update(f"{_content(layer)}\n".encode())
    return f"{kind} {digest.hexdigest()[:16]}"


def _hash_values(values: Array) -> str:
    if values.dtype.kind == "O":
        return hashlib.sha256(repr(values.tolist()).encode()).hexdigest()[:16]
    return hashlib.sha256(np.ascontiguousarray(values).view(np.uint8).data).hexdigest()[:16]


def _index_as_text(index: tuple[Any, ...]) -> str:
    """Return an index as text: slices and numbers as they are, arrays by a hash of their values."""
    return " ".join(f"{k.shape} {_hash_values(k)}" if isinstance(k, np.ndarray) else repr(k) for k in index)


def _content(layer: Any) -> str:
    """Return the fingerprint of the content of one layer of a lazy array; empty for a layer without content."""
    if isinstance(layer, Detection):
        return " ".join([layer.identity, *map(stamp, layer.sources)])
    if isinstance(layer, np.ndarray):
        return _hash_values(layer)
    if (stored := compat.zarr_array(layer)) is not None:
        return fingerprints.content(stored)
    return " ".join(f"{path.name} {fingerprints.modified(path)}" for path in _files(layer))


def check_shared(variables: Iterable[xr.Variable]) -> None:
    """Refuse arrays in the memory of the process that opened them, if this is another process.

    Raises
    ------
    InputError
        If one was opened from a URL of the scheme ``memory``.
    """
    for layer in (layer for variable in variables for layer in _layers(variable)):
        stored = compat.zarr_array(layer)
        if stored is not None and hasattr(stored.store_path.store, "fs"):
            from xr_cloudfree.storage import remote

            if remote.in_memory(stored.store_path.store):
                raise remote.other_process_error(f"memory:/{stored.store_path.store.path}")


def _layers(variable: xr.Variable) -> list[Any]:
    """Return all layers of a variable's array, and of the arrays that its graph starts from."""
    data = compat.raw_data(variable)
    sources = [data, *(compat.graph_inputs(data) if compat.has_graph(data) else ())]
    return [layer for source in sources for layer in compat.lazy_layers(source)]


def sources(*inputs: Any) -> set[Path | str]:
    """Return the local files and stores, and the URLs, that inputs were opened from, as far as they are known.

    Parameters
    ----------
    *inputs : path, DataArray, Dataset or anything else
        Cubes and layers, also computed from files by dask.
    """
    paths: set[Path | str] = set()
    for obj in inputs:
        if isinstance(obj, str | os.PathLike):
            paths.add(parse_location(obj))
        if not isinstance(obj, xr.DataArray | xr.Dataset):
            continue
        variables = list(obj.variables.values()) if isinstance(obj, xr.Dataset) else [obj.variable]
        for named in (obj, *variables):
            if isinstance(source := named.encoding.get("source"), str):
                paths.add(parse_location(source))
        for layer in (layer for variable in variables for layer in _layers(variable)):
            paths.update(_files(layer, whole=True))
            if (stored := compat.zarr_array(layer)) is not None and (url := fingerprints.url(stored)):
                paths.add(url)
    # A text may also be the name of a variable, of any length, for which Path.exists() would raise.
    return {path for path in paths if isinstance(path, str) or os.path.exists(path)}


def _files(layer: Any, whole: bool = False) -> list[Path]:
    """Return the local files of a backend's array, or with `whole` the store that contains them."""
    if (stored := compat.zarr_array(layer)) is not None:
        return fingerprints.files(stored, whole)
    return compat.local_files(layer)
