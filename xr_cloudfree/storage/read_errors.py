"""Errors of files that cannot be read: they name the file, the variable and the chunk."""

from __future__ import annotations

import copy
import itertools
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from xarray.backends import BackendArray

from xr_cloudfree import compat
from xr_cloudfree.errors import CloudfreeError, InputError


class Guarded(BackendArray):
    """A backend's array that raises `InputError` if it cannot be read.

    Parameters
    ----------
    array : BackendArray
        The array of xarray's backend for a file format.
    """

    __slots__ = ("array", "dtype", "shape")

    def __init__(self, array: Any) -> None:
        self.array, self.dtype, self.shape = array, array.dtype, array.shape

    def __getitem__(self, key: Any) -> Any:
        try:
            return self.array[key]
        except (MemoryError, CloudfreeError):
            raise
        except Exception as error:  # each file format and codec has its own errors
            raise _unreadable(self.array, key, error) from error


def guarded(data: Any) -> Any:
    """Wrap the innermost array of a lazy array in `Guarded`; return any other array as it is.

    Parameters
    ----------
    data : array
        The data of a variable that was opened without chunks, see `xr_cloudfree.compat.raw_data`.
    """
    if isinstance(data, Guarded) or isinstance(data, np.ndarray):
        return data
    if isinstance(data, BackendArray):
        return Guarded(data)
    below = getattr(data, "array", None)
    inner = guarded(below)
    if inner is below:
        return data
    wrapped = copy.copy(data)
    wrapped.array = inner
    return wrapped


def guard_opened(obj: xr.Dataset) -> xr.Dataset:
    """Guard the variables of a Dataset that was just opened in chunks, in place."""
    for variable in obj.variables.values():
        for adapter in compat.opened_adapters(compat.raw_data(variable)):
            adapter.array = guarded(adapter.array)
    return obj


@contextmanager
def opening(path: Path) -> Iterator[None]:
    """Turn the errors of opening a store or a file into `InputError`.

    Parameters
    ----------
    path : Path
        The store or file.

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
            "intact metadata and coordinates: some are damaged or truncated",
            f"copy {path} again from its source; then the same call again",
        ) from error


def _unreadable(array: Any, key: Any, error: Exception) -> InputError:
    """Return the error for a part of an array that cannot be read; reads it once more to find the chunk."""
    stored, name = compat.zarr_array(array), getattr(array, "variable_name", None)
    if stored is not None:
        root = getattr(stored.store_path.store, "root", stored.store_path.store)
        location, name = str(root), stored.store_path.path
        edges = getattr(stored, "shards", None) or stored.chunks
    else:
        location, edges = compat.file_name(array) or "its file", None
    chunk = None if edges is None else _chunk(array, key, edges)
    part = ""
    if chunk is not None and stored is not None:
        encode = getattr(stored.metadata, "encode_chunk_key", None)
        part = encode(chunk) if encode else ".".join(map(str, chunk))
    file = str(Path(location) / str(name) / part) if part and "://" not in location else location
    return InputError(
        f"{name} in {location} cannot be read" + (f", at chunk {part}" if part else "") + f": {_words(error)}",
        "intact files: this one is damaged or truncated",
        f"copy {file} again from its source; then the same call again",
    )


def _chunk(array: Any, key: Any, edges: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return the first chunk below a key that cannot be read; None if all can be read now."""
    touched = []
    for part, edge, size in zip(key.tuple, edges, array.shape, strict=True):
        index = np.arange(size)[part] if isinstance(part, slice) else np.atleast_1d(part)
        touched.append(np.unique(index // edge).tolist())
    for chunk in itertools.product(*touched):
        box = tuple(slice(i * n, min((i + 1) * n, size)) for i, n, size in zip(chunk, edges, array.shape, strict=True))
        try:
            compat.read_box(array, box)
        except Exception:  # as above
            return chunk
    return None


def _words(error: Exception) -> str:
    """Return the first line of an error, with its type."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
