"""What tells whether an array in a Zarr store is still the same one, for each kind of store."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np

# Objects of one array that are asked for one by one, in stores that cannot list them; more are represented by as many,
# evenly spread.
_MOST_ASKED = 10_000
_AT_ONCE = 32
# What a file system may tell of an object that changes with its content, in lower case and without what is no letter.
_TELLING = {
    "etag",
    "mtime",
    "lastmodified",
    "updated",
    "md5hash",
    "md5",
    "crc",
    "crc32c",
    "contentmd5",
    "digest",
    "generation",
    "version",
    "versionid",
}


def content(array: Any) -> str:
    """What tells of an array's content.

    Parameters
    ----------
    array : zarr.Array
        The array.

    Returns
    -------
    str
        In a folder: sizes and times of change of the array's files. In a zip file: those of the zip file. In memory:
        a hash of all its bytes. In Icechunk: the snapshot; a hash of all bytes if something was not committed. Through
        fsspec: of each object its size, and its ETag, time of change or checksum, as far as the file system tells
        them: from a listing, or else by asking for at most 10 000 objects. Elsewhere: the sizes of so many objects.
        Always also the array's metadata.
    """
    from zarr.core.sync import sync
    from zarr.storage import FsspecStore, MemoryStore

    store, path = _unwrapped(array), array.store_path.path
    session: Any = getattr(store, "session", None)
    if local := files(array):
        told = f"{local[0].name} {changed(local[0])}"
    elif hasattr(session, "snapshot_id") and not session.has_uncommitted_changes:
        told = str(session.snapshot_id)
    elif isinstance(store, MemoryStore) or hasattr(session, "snapshot_id"):
        told = sync(_bytes(store, path))
    elif isinstance(store, FsspecStore):
        told = sync(_objects(store.fs, "/".join(filter(None, (store.path, path))), array))
    else:
        told = sync(_sizes(store, path, array))
    return f"{told} {_hash([json.dumps(array.metadata.to_dict(), sort_keys=True, default=repr)])}"


def files(array: Any, whole: bool = False) -> list[Path]:
    """The folder or zip file of an array where it lies on this machine's disks, or with `whole` that of its store."""
    from zarr.storage import ZipStore

    store, path = _unwrapped(array), array.store_path.path
    if isinstance(store, ZipStore):
        return [Path(store.path)]
    root = getattr(store, "root", None)
    return [Path(root) / ("" if whole else path)] if isinstance(root, str | os.PathLike) else []


def changed(path: Path) -> str:
    """Sizes and times of change of a file, or of all in a folder and in those to which links in it lead."""
    if path.is_file():
        found = path.stat()
        return f"{found.st_size} {found.st_mtime_ns}"
    told = hashlib.sha256()
    for where, folders, names in os.walk(path, followlinks=True):
        folders.sort()
        for name in sorted(names):
            found = os.stat(os.path.join(where, name))
            told.update(f"{os.path.relpath(where, path)} {name} {found.st_size} {found.st_mtime_ns}\n".encode())
    return told.hexdigest()


def _unwrapped(array: Any) -> Any:
    """The store itself, without those that log or cache what is read from it."""
    from zarr.storage import WrapperStore

    store = array.store_path.store
    while isinstance(store, WrapperStore):
        store = store._store
    return store


def _hash(lines: Iterable[str]) -> str:
    told = hashlib.sha256()
    for line in lines:
        told.update(f"{line}\n".encode())
    return told.hexdigest()[:16]


def _below(store: Any, path: str) -> AsyncIterator[str]:
    found: AsyncIterator[str] = store.list_prefix(f"{path}/" if path else "")
    return found


async def _bytes(store: Any, path: str) -> str:
    """A hash of all bytes of an array."""
    from zarr.core.buffer import default_buffer_prototype

    told = hashlib.sha256()
    for key in sorted([key async for key in _below(store, path)]):
        found = await store.get(key, default_buffer_prototype())
        told.update(f"{key}\n".encode())
        told.update(b"" if found is None else found.to_bytes())
    return told.hexdigest()[:16]


async def _sizes(store: Any, path: str, array: Any) -> str:
    """Sizes of the objects of an array, in a store of which no more is known."""

    async def size(key: str) -> str:
        return f"{key} {await store.getsize(key)}"

    if store.supports_listing:
        keys = sorted([key async for key in _below(store, path)])
    else:
        keys = _keys(array, path)
    return _hash(await _ask(size, keys))


async def _objects(system: Any, path: str, array: Any) -> str:
    """What a file system of fsspec tells of an array's objects."""
    for cached in (system, getattr(system, "sync_fs", None)):
        if cached is not None:
            cached.invalidate_cache()  # or it would answer as it did before
    found: dict[str, Any] = {}
    if "http" not in system.protocol:  # whose listings, where there are any, name pages and no more
        with suppress(Exception):  # each has its own for what cannot be listed
            found = await system._find(path, detail=True)
    listed = {name: _telling(told) for name, told in found.items()}
    if listed and all(listed.values()):
        return _hash(f"{name} {told}" for name, told in sorted(listed.items()))

    async def info(name: str) -> str:
        told = await system._info(name)
        return f"{name} {told.get('size')} {_telling(told)}"

    return _hash(await _ask(info, _keys(array, path)))


def _telling(told: dict[str, Any]) -> str:
    """What changes with an object's content besides its size, which alone does not suffice; empty if it is not told."""
    plain = {"".join(filter(str.isalnum, key)).lower(): value for key, value in told.items()}
    kept = {key: value for key, value in plain.items() if key in _TELLING and value is not None}
    if not kept and plain.get("created") is not None:  # of objects that are never changed, only made anew
        kept = {"created": plain["created"]}
    return f"{told.get('size')} {sorted(kept.items())!r}" if kept else ""


def _keys(array: Any, path: str) -> list[str]:
    """The objects of an array, by its metadata; of very many some, evenly spread."""
    edges = array.shards or array.chunks
    grid = tuple(-(-size // edge) for size, edge in zip(array.shape, edges, strict=True))
    number = int(np.prod(grid, dtype=object))
    some = range(number) if number <= _MOST_ASKED else [i * number // _MOST_ASKED for i in range(_MOST_ASKED)]
    where = [tuple(int(n) for n in np.unravel_index(i, grid)) for i in some] if grid else [()]
    return ["/".join(filter(None, (path, array.metadata.encode_chunk_key(position)))) for position in where]


async def _ask(about: Callable[[str], Awaitable[str]], keys: Iterable[str]) -> list[str]:
    """Ask about many objects, some at once."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def one(key: str) -> str:
        async with limit:
            try:
                return await about(key)
            except FileNotFoundError:
                return f"{key} is not there"

    return await asyncio.gather(*map(one, keys))
