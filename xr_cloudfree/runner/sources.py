"""The arrays of a cube as a run reads them: window by window, without a graph of the whole."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.coding.common import _ElementwiseFunctionArray
from xarray.core.indexing import LazilyVectorizedIndexedArray

from xr_cloudfree.cube.dims import ROLES, role_of
from xr_cloudfree.engine.blocks import Array, Stored, Window, as_slice
from xr_cloudfree.guard import guarded
from xr_cloudfree.locations import is_url, place
from xr_cloudfree.tiling.grid import Box

if TYPE_CHECKING:
    import dask.array as da


def from_files(obj: Any) -> Any:
    """The same cube, with the arrays that were only opened, in chunks, as files give them: without their graph.

    Parameters
    ----------
    obj : DataArray or Dataset
        A cube or a layer. What was computed from files, or cut out of them after they were chunked, stays as it is.
    """
    if isinstance(obj, xr.DataArray):
        opened = _opened(obj.variable)
        return obj if opened is None else obj.copy(data=opened)
    if not isinstance(obj, xr.Dataset):
        return obj  # what it is instead is said where it is understood
    found = {name: _opened(array.variable) for name, array in obj.data_vars.items()}
    return obj.assign(
        {
            name: (obj[name].dims, data, obj[name].attrs, obj[name].encoding)
            for name, data in found.items()
            if data is not None
        }
    )


def _opened(variable: xr.Variable) -> Any:
    """What a chunked variable was opened from; None if more than opening was done to it."""
    array: Any = variable._data
    roles = [role_of(str(dim)) for dim in variable.dims]
    if roles != [role for role in ROLES if role in roles]:
        return None  # lazy arrays with their axes turned are read pixel by pixel
    layers = getattr(getattr(array, "dask", None), "layers", None)
    if layers is None or set(layers) != {array.name, f"original-{array.name}"}:
        return None
    adapter = next(iter(layers[f"original-{array.name}"].values()))
    lazy: Any = getattr(adapter, "array", None)
    # Anything else under that name is an array in memory, which dask cuts as well as we do.
    return guarded(lazy) if hasattr(lazy, "get_duck_array") and lazy.shape == variable.shape else None


def read(variable: xr.Variable, dates: NDArray[np.intp], box: Box) -> Window:
    """A window of an array in memory; each of the chunks that it touches is decompressed once."""
    if is_lazy(variable):
        variable = xr.Variable(variable.dims, guarded(variable._data))
    part = variable[(as_slice(dates), Ellipsis, *box.slices)]
    if part.chunks is not None:
        # Not the scheduler of the process: this may run inside one of its tasks.
        return np.asarray(part.data.compute(scheduler="threads"))
    stored, decode = _stored(part)
    return Stored(np.asarray(stored.get_duck_array()), decode) if decode else np.asarray(part.values)


def is_lazy(variable: xr.Variable) -> bool:
    """Whether an array lies in files and is neither in chunks nor in memory."""
    return variable.chunks is None and not isinstance(variable._data, np.ndarray)


def windowed(variable: xr.Variable) -> xr.Variable:
    """The same array, of which windows can be read: one whose axes were turned would be read pixel by pixel."""
    turned = any(isinstance(layer, LazilyVectorizedIndexedArray) for layer in _below(variable._data))
    return xr.Variable(variable.dims, variable.data) if turned else variable


def chunked(variable: xr.Variable) -> da.Array | Stored:
    """An array as a graph takes it: in chunks, and as its file has it where it was only opened.

    Chunks are held while blocks beside them wait, decoded four times as much.
    """
    if variable.chunks is None:
        variable = windowed(variable)
        edges = variable.encoding.get("preferred_chunks", {}) if is_lazy(variable) else {}
        variable = variable.chunk({dim: size for dim, size in edges.items() if dim in variable.dims})
    array: da.Array = variable.data
    if (opened := _opened(variable)) is None:
        return array
    stored, decode = _stored(xr.Variable(variable.dims, opened))
    chunks = dict(zip(variable.dims, array.chunks, strict=True))
    return Stored(xr.Variable(variable.dims, stored).chunk(chunks, name=f"stored-{array.name}").data, decode)


def stored_bytes(variable: xr.Variable) -> int:
    """Bytes of a value of an array, as `read` holds it."""
    stored, decode = _stored(variable)
    return int(stored.dtype.itemsize if decode else variable.dtype.itemsize)


def _stored(variable: xr.Variable) -> tuple[Any, tuple[Callable[[Array], Array], ...]]:
    """What a lazy array decodes, and how; no steps where it decodes nothing."""
    steps: list[Callable[[Array], Array]] = []
    stored: Any = variable._data
    for layer in _below(variable._data):
        if isinstance(layer, _ElementwiseFunctionArray):
            steps.append(layer.func)
            stored = layer.array
    return stored, tuple(reversed(steps))


def chunk_edges(variable: xr.Variable) -> tuple[int, int] | None:
    """Rows and columns of an array's chunks, None if it has none."""
    if variable.chunks is not None:
        return max(variable.chunks[-2]), max(variable.chunks[-1])
    # The encoding keeps the file's names of the dimensions, in their order.
    edges = list(variable.encoding.get("preferred_chunks", {}).values())[-2:]
    if len(edges) < 2 or not all(isinstance(edge, int) for edge in edges):
        return None
    return min(edges[0], variable.sizes["y"]), min(edges[1], variable.sizes["x"])


def stamp(variable: xr.Variable) -> str:
    """What tells whether an array is still the same one, without reading what lies in files.

    For arrays in memory their values, for files their sizes and times of change, for arrays that dask computes the
    name that it gives to the computation.
    """
    data: Any = variable._data
    if hasattr(data, "__dask_graph__"):
        return f"dask {data.name}"
    if isinstance(data, np.ndarray):
        values = np.ascontiguousarray(data)
        return f"values {hashlib.sha256(values.view(np.uint8).data).hexdigest()[:16]}"
    told = hashlib.sha256()
    for part in _below(data):
        if hasattr(part, "key"):
            told.update(repr(part.key.tuple).encode())
        for path in _files(part):
            told.update(f"{path.name} {_changed(path)}\n".encode())
    return f"files {told.hexdigest()[:16]}"


def _below(data: Any) -> Iterator[Any]:
    """A lazy array and those that it wraps, down to the file's own."""
    while data is not None:
        yield data
        data = getattr(data, "array", None)


def check_shared(variables: Iterable[xr.Variable]) -> None:
    """Refuse arrays that lie in the memory of the process that opened them, in another one.

    Raises
    ------
    InputError
        If one was opened from a URL of the scheme ``memory``.
    """
    for part in (part for variable in variables for array in _opened_first(variable) for part in _below(array)):
        where = getattr(getattr(part, "_array", None), "store_path", None)
        if where is not None and hasattr(where.store, "fs"):
            from xr_cloudfree import remote

            if remote.in_memory(where.store):
                raise remote.elsewhere(f"memory:/{where.store.path}")


def _opened_first(variable: xr.Variable) -> list[Any]:
    """The arrays from which a variable was made: itself, and what a graph begins with."""
    layers = getattr(getattr(variable._data, "dask", None), "layers", {})
    # That is how dask calls what a graph begins with.
    first = [part for name in layers if name.startswith("original-") for part in layers[name].values()]
    return [variable._data, *first]


def places(*given: Any) -> set[Path]:
    """Where on this machine's disks lies what was opened: the files and stores, as far as they can be told.

    Parameters
    ----------
    *given : path, DataArray, Dataset or anything else
        Cubes and layers, also computed from files by dask.
    """
    found: set[Path] = set()
    for obj in given:
        if isinstance(obj, str | os.PathLike) and not is_url(obj):
            found.add(Path(place(obj)))
        if not isinstance(obj, xr.DataArray | xr.Dataset):
            continue
        variables = obj.variables.values() if isinstance(obj, xr.Dataset) else [obj.variable]
        for told in (obj, *variables):
            if isinstance(named := told.encoding.get("source"), str) and not is_url(named):
                found.add(Path(place(named)))
        for array in (array for variable in variables for array in _opened_first(variable)):
            found.update(where for part in _below(array) for where in _files(part, whole=True))
    # A text may be the name of a variable as well, of any length: Path.exists() would raise.
    return {where for where in found if os.path.exists(where)}


def _files(array: Any, whole: bool = False) -> list[Path]:
    """The files of a backend's array, where they lie on this machine's disks; or the whole store that holds them."""
    stored = getattr(array, "_array", None)  # of Zarr
    if stored is not None and hasattr(stored, "store_path"):
        root = getattr(stored.store_path.store, "root", None)
        return [] if root is None else [Path(root) / ("" if whole else stored.store_path.path)]
    name = getattr(getattr(array, "datastore", None), "_filename", None)  # of NetCDF
    return [Path(name)] if isinstance(name, str) and Path(name).exists() else []


def _changed(path: Path) -> str:
    """Sizes and times of change of a file, or of all in a folder."""
    if path.is_file():
        found = path.stat()
        return f"{found.st_size} {found.st_mtime_ns}"
    told = hashlib.sha256()
    for where, folders, names in os.walk(path):
        folders.sort()
        for name in sorted(names):
            found = os.stat(os.path.join(where, name))
            told.update(f"{os.path.relpath(where, path)} {name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return told.hexdigest()
