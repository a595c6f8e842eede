"""Arrays in files, and what is said when they cannot be read: which file, which variable, which chunk."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends.common import BackendArray
from xarray.core.indexing import BasicIndexer

from xr_cloudfree.errors import CloudfreeError, InputError


class Guarded(BackendArray):
    """A backend's array that raises `InputError` where it cannot be read.

    Parameters
    ----------
    array : BackendArray
        What xarray's backend for a file format gives.
    """

    __slots__ = ("array", "dtype", "shape")

    def __init__(self, array: Any) -> None:
        self.array, self.dtype, self.shape = array, array.dtype, array.shape

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.array[key]
        except (MemoryError, CloudfreeError):
            raise
        except Exception as error:  # each file format and each codec has errors of its own
            raise _unreadable(self.array, key, error) from error


def guarded(data: Any) -> Any:
    """The same lazy array over a `Guarded` one; any other as it is.

    Parameters
    ----------
    data : array
        What xarray keeps as the data of a variable that was opened without chunks.
    """
    if isinstance(data, Guarded) or isinstance(data, np.ndarray):
        return data
    if isinstance(data, BackendArray):
        return Guarded(data)
    below = getattr(data, "array", None)
    inner = guarded(below)
    if inner is below:
        return data
    made = copy.copy(data)
    made.array = inner
    return made


def guard_opened(obj: xr.Dataset) -> xr.Dataset:
    """A Dataset that was just opened in chunks, its variables guarded; they are changed in place."""
    for variable in obj.variables.values():
        for layer in getattr(getattr(variable._data, "dask", None), "layers", {}).values():
            for adapter in layer.values():
                if hasattr(adapter, "get_duck_array"):
                    adapter.array = guarded(adapter.array)
    return obj


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Tell as an `InputError` why a store or a file cannot be opened.

    Parameters
    ----------
    path : Path
        Which.

    Raises
    ------
    InputError
        If opening it fails.
    """
    try:
        yield
    except (MemoryError, CloudfreeError):
        raise
    except Exception as error:  # as above
        raise InputError(
            f"{path} cannot be opened: {_words(error)}",
            "metadata and coordinates as they were written: some are damaged or cut short",
            f"copy {path} anew from where it came; then the same call again",
        ) from error


def _unreadable(array: Any, key: Any, error: Exception) -> InputError:
    """The error for a part of a file's array, which is read once more to find the chunk."""
    stored, name = getattr(array, "_array", None), getattr(array, "variable_name", None)
    if stored is not None and hasattr(stored, "store_path"):
        root = getattr(stored.store_path.store, "root", stored.store_path.store)
        where, name = str(root), stored.store_path.path
        edges = getattr(stored, "shards", None) or stored.chunks
    else:
        where, edges = str(getattr(getattr(array, "datastore", None), "_filename", "its file")), None
    chunk = None if edges is None else _chunk(array, key, edges)
    part = ""
    if chunk is not None and stored is not None:
        encode = getattr(stored.metadata, "encode_chunk_key", None)
        part = encode(chunk) if encode else ".".join(map(str, chunk))
    file = str(Path(where) / str(name) / part) if part and "://" not in where else where
    return InputError(
        f"{name} in {where} cannot be read" + (f", at chunk {part}" if part else "") + f": {_words(error)}",
        "files as they were written: this one is damaged or cut short",
        f"copy {file} anew from where it came; then the same call again",
    )


def _chunk(array: Any, key: Any, edges: tuple[int, ...]) -> tuple[int, ...] | None:
    """The first chunk among those that a key touches that cannot be read; None if each can be now."""
    touched = []
    for part, edge, size in zip(key.tuple, edges, array.shape, strict=True):
        index = np.arange(size)[part] if isinstance(part, slice) else np.atleast_1d(part)
        touched.append(np.unique(index // edge).tolist())
    for chunk in itertools.product(*touched):
        box = tuple(slice(i * n, min((i + 1) * n, size)) for i, n, size in zip(chunk, edges, array.shape, strict=True))
        try:
            array[BasicIndexer(box)]
        except Exception:  # as above
            return chunk
    return None


def _words(error: Exception) -> str:
    """The first line of an error, with its type."""
    told = str(error).strip().splitlines()
    return f"{type(error).__name__}: {told[0]}" if told else type(error).__name__
