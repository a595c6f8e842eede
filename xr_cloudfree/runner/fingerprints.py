"""Fingerprints of arrays in Zarr stores, which change when the content does, for each kind of store."""

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

from xr_cloudfree import compat

# Objects of one array that are queried one by one in stores that cannot list them; of more objects a sample of this
# size is taken, evenly spread.
_MOST_QUERIED = 10_000
_AT_ONCE = 32
# Details of an object that change with its content, by the names that file systems use, in lower case letters only.
_CONTENT_KEYS = {
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
    """Return a text that changes with an array's content.

    Parameters
    ----------
    array : zarr.Array
        The array.

    Returns
    -------
    str
        It consists of the array's metadata and, in a folder: sizes and modification times of the array's files; in a
        zip file: those of the zip file; in memory: a hash of all bytes; in Icechunk: the snapshot, or a hash of all
        bytes if there are uncommitted changes; through fsspec and obstore: the size of each object with its ETag,
        modification time or checksum, as far as the file system has them, from a listing or from queries for at most
        10 000 objects; elsewhere: the sizes of as many objects.
    """
    from zarr.storage import FsspecStore, MemoryStore

    store, path = compat.unwrap_store(array.store_path.store), array.store_path.path
    session: Any = getattr(store, "session", None)
    if local := files(array):
        state = f"{local[0].name} {modified(local[0])}"
    elif hasattr(session, "snapshot_id") and not session.has_uncommitted_changes:
        state = str(session.snapshot_id)
    elif isinstance(store, MemoryStore) or hasattr(session, "snapshot_id"):
        state = compat.run_async(_hash_bytes(store, path))
    elif (client := compat.obstore_client(store)) is not None:
        state = _hash_listing(client, path)
    elif isinstance(store, FsspecStore):
        state = compat.run_async(_hash_objects(store.fs, "/".join(filter(None, (store.path, path))), array))
    else:
        state = compat.run_async(_hash_sizes(store, path, array))
    return f"{state} {_hash([json.dumps(array.metadata.to_dict(), sort_keys=True, default=repr)])}"


def files(array: Any, whole: bool = False) -> list[Path]:
    """Return the folder or zip file of a local array, or with `whole` that of its store; empty for other arrays."""
    from zarr.storage import ZipStore

    store, path = compat.unwrap_store(array.store_path.store), array.store_path.path
    if isinstance(store, ZipStore):
        return [Path(store.path)]
    root = getattr(store, "root", None)
    return [Path(root) / ("" if whole else path)] if isinstance(root, str | os.PathLike) else []


def url(array: Any) -> str | None:
    """Return the URL of the store of an array that is read through fsspec or obstore; None for other arrays."""
    from zarr.storage import FsspecStore

    store = compat.unwrap_store(array.store_path.store)
    if isinstance(store, FsspecStore):
        protocol = store.fs.protocol
        return f"{protocol if isinstance(protocol, str) else protocol[0]}://{store.path.split('://')[-1].lstrip('/')}"
    if (client := compat.obstore_client(store)) is None:
        return None
    config = getattr(client, "config", {})
    bucket = config.get("bucket") or config.get("container_name") or ""
    return f"{type(client).__name__.removesuffix('Store').lower()}://{bucket}/{client.prefix or ''}"


def modified(path: Path) -> str:
    """Return size and modification time of a file, or a hash of those of all files below a folder, also linked ones."""
    if path.is_file():
        status = path.stat()
        return f"{status.st_size} {status.st_mtime_ns}"
    digest = hashlib.sha256()
    for folder, subfolders, names in os.walk(path, followlinks=True):
        subfolders.sort()
        for name in sorted(names):
            status = os.stat(os.path.join(folder, name))
            digest.update(f"{os.path.relpath(folder, path)} {name} {status.st_size} {status.st_mtime_ns}\n".encode())
    return digest.hexdigest()


def _hash(lines: Iterable[str]) -> str:
    digest = hashlib.sha256()
    for line in lines:
        digest.update(f"{line}\n".encode())
    return digest.hexdigest()[:16]


def _keys_below(store: Any, path: str) -> AsyncIterator[str]:
    keys: AsyncIterator[str] = store.list_prefix(f"{path}/" if path else "")
    return keys


async def _hash_bytes(store: Any, path: str) -> str:
    """Return a hash of all bytes of an array."""
    from zarr.buffer import default_buffer_prototype

    digest = hashlib.sha256()
    for key in sorted([key async for key in _keys_below(store, path)]):
        data = await store.get(key, default_buffer_prototype())
        digest.update(f"{key}\n".encode())
        digest.update(b"" if data is None else data.to_bytes())
    return digest.hexdigest()[:16]


async def _hash_sizes(store: Any, path: str, array: Any) -> str:
    """Return a hash of the sizes of an array's objects, for stores that give no other details."""

    async def size(key: str) -> str:
        return f"{key} {await store.getsize(key)}"

    if store.supports_listing:
        keys = sorted([key async for key in _keys_below(store, path)])
    else:
        keys = _sample_keys(array, path)
    return _hash(await _query(size, keys))


def _hash_listing(client: Any, path: str) -> str:
    """Return a hash of the sizes, the ETags and the times of an array's objects, which obstore lists."""
    import obstore

    found = (meta for some in obstore.list(client, path or None) for meta in some)
    return _hash(sorted(f"{m['path']} {m['size']} {m['e_tag']} {m['version']} {m['last_modified']}" for m in found))


async def _hash_objects(system: Any, path: str, array: Any) -> str:
    """Return a hash of what a file system of fsspec knows of an array's objects."""
    for cached in (system, getattr(system, "sync_fs", None)):
        if cached is not None:
            cached.invalidate_cache()  # or it would answer as it did before
    listing: dict[str, Any] = {}
    if "http" not in system.protocol:  # its listings, if any, consist of names only
        with suppress(Exception):  # each file system has its own error for what cannot be listed
            listing = await compat.find_objects(system, path)
    states = {name: _state(info) for name, info in listing.items()}
    if states and all(states.values()):
        return _hash(f"{name} {state}" for name, state in sorted(states.items()))

    async def query(name: str) -> str:
        info = await compat.object_info(system, name)
        return f"{name} {info.get('size')} {_state(info)}"

    return _hash(await _query(query, _sample_keys(array, path)))


def _state(info: dict[str, Any]) -> str:
    """Return the size and other details that change with an object's content; empty if there is only the size."""
    details = {"".join(filter(str.isalnum, key)).lower(): value for key, value in info.items()}
    kept = {key: value for key, value in details.items() if key in _CONTENT_KEYS and value is not None}
    if not kept and details.get("created") is not None:  # objects that are never modified, only replaced
        kept = {"created": details["created"]}
    return f"{info.get('size')} {sorted(kept.items())!r}" if kept else ""


def _sample_keys(array: Any, path: str) -> list[str]:
    """Return the keys of an array's objects by its metadata; of very many an evenly spread sample."""
    edges = array.shards or array.chunks
    grid = tuple(-(-size // edge) for size, edge in zip(array.shape, edges, strict=True))
    number = int(np.prod(grid, dtype=object))
    sample = range(number) if number <= _MOST_QUERIED else [i * number // _MOST_QUERIED for i in range(_MOST_QUERIED)]
    positions = [tuple(int(n) for n in np.unravel_index(i, grid)) for i in sample] if grid else [()]
    return ["/".join(filter(None, (path, array.metadata.encode_chunk_key(position)))) for position in positions]


async def _query(describe: Callable[[str], Awaitable[str]], keys: Iterable[str]) -> list[str]:
    """Query many objects, `_AT_ONCE` at a time."""
    limit = asyncio.Semaphore(_AT_ONCE)

    async def query(key: str) -> str:
        async with limit:
            try:
                return await describe(key)
            except FileNotFoundError:
                return f"{key} is not there"

    return await asyncio.gather(*map(query, keys))
