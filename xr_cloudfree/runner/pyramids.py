"""The record of a store's overviews in its journal: which files they are, and whether readers are shown them.

Overviews are shown by the metadata of the store's root, which is written last. The store's digest is that of the store
without them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

from xr_cloudfree.runner.journal import Journal, in_threads
from xr_cloudfree.runner.store import ROOT, sha256

RECORD = "overviews.json"
_FOLDER = "overviews"
# Metadata of the root without overviews.
_PLAIN = f"{_FOLDER}/{ROOT}"
PREFIX = "ovr_"
"""Beginning of the names of groups with overviews, as GDAL calls them: ``ovr_2x``, ``ovr_4x``."""


def recorded(journal: Journal, run: str) -> dict[str, Any] | None:
    """Return the record of the overviews of a run; None if there are none, or they are those of another run."""
    record = journal.read(RECORD)
    return record if record is not None and record["run"] == run else None


def begin(journal: Journal, record: dict[str, Any], plain_root: bytes) -> None:
    """Record overviews before they are made; what was made of others is removed."""
    if journal.read(RECORD) != record:
        discard(journal)
        journal.folder.write(_PLAIN, plain_root)
        journal.write(RECORD, record)


def plain_root(journal: Journal) -> bytes | None:
    """Return the metadata of the root without overviews, as they were before; None if there are none."""
    return journal.folder.read(_PLAIN)


def discard(journal: Journal) -> bool:
    """Remove the overviews of a store, first from its metadata.

    Returns
    -------
    bool
        Whether there were any.
    """
    record, plain = journal.read(RECORD), journal.folder.read(_PLAIN)
    if record is None:
        return False
    if plain is not None and _digest(journal, ROOT) == record["root"]:
        journal.store.write(ROOT, plain)
    for factor in record["factors"]:
        journal.store.remove([key for key, _ in journal.store.list(f"{PREFIX}{factor}x")])
    journal.folder.remove([key for key, _ in journal.folder.list(_FOLDER)])
    journal.folder.remove([RECORD])
    return True


def mark(journal: Journal, factor: int, index: int, files: dict[str, str], size: int) -> None:
    """Mark a part of a level as done."""
    journal.write(_marker(factor, index), {"files": files, "bytes": size})


def done(journal: Journal, factor: int) -> set[int]:
    """Return the parts of a level that have a marker, and files of the size that it names."""
    sizes = dict(journal.store.list(f"{PREFIX}{factor}x"))
    return {
        index
        for index, marker in _markers(journal, factor)
        if all(key in sizes for key in marker["files"])
        and sum(sizes[key] for key in marker["files"]) == marker["bytes"]
    }


def problems(journal: Journal, record: dict[str, Any]) -> Iterator[tuple[str, str, str | None, int]]:
    """Yield the key of each file of the overviews, the digest that it should have and has, and its size."""
    expected = dict(record["files"])
    for factor in record["factors"]:
        for _, marker in _markers(journal, factor):
            expected |= marker["files"]

    def check(item: tuple[str, str]) -> tuple[str, str, str | None, int]:
        key, digest = item
        data = journal.store.read(key)
        return key, digest, None if data is None else sha256(data), len(data or b"")

    yield from in_threads(journal.store.at_once, check, expected.items())


def unmark(journal: Journal, record: dict[str, Any], keys: Iterable[str]) -> None:
    """Remove the markers of the parts that have some of these files."""
    damaged = set(keys)
    for factor in record["factors"]:
        journal.folder.remove(
            [_marker(factor, index) for index, marker in _markers(journal, factor) if damaged & set(marker["files"])]
        )


def _marker(factor: int, index: int) -> str:
    return f"{_FOLDER}/{factor}/{index:07d}.json"


def _markers(journal: Journal, factor: int) -> Iterator[tuple[int, dict[str, Any]]]:
    for key, _ in sorted(journal.folder.list(f"{_FOLDER}/{factor}")):
        name = key.rpartition("/")[2].removesuffix(".json")
        if name.isdecimal() and (marker := journal.read(key)) is not None:
            yield int(name), marker


def _digest(journal: Journal, key: str) -> str | None:
    data = journal.store.read(key)
    return None if data is None else sha256(data)


def are_shown(journal: Journal, record: dict[str, Any] | None) -> bool:
    """Return whether the metadata of the store's root are those with the overviews of a record."""
    return record is not None and _digest(journal, ROOT) == record["root"]
