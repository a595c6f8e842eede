"""Whether a store is what its run wrote, byte for byte; and how it becomes so again."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xr_cloudfree.errors import StoreError
from xr_cloudfree.runner.journal import Journal, read_json
from xr_cloudfree.runner.runs import finish, layout_of, reopen, run_here, started
from xr_cloudfree.runner.store import ROOT, Layout, digest_of, sha256


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong.

    Parameters
    ----------
    region : int or None
        The region; None for metadata, coordinates and the journal itself.
    key : str
        The file, within the store or its journal.
    what : {"missing", "changed", "damaged"}
        Not there; other bytes than were written; a file of the journal that cannot be read.
    """

    region: int | None
    key: str
    what: str


@dataclass(frozen=True)
class VerifyReport:
    """What `verify` found.

    Parameters
    ----------
    problems : tuple of Problem
        What is wrong.
    unfinished : tuple of int
        Regions that have never been done.
    files, bytes : int
        How much was read.
    digest : str
        The store's digest, as its bytes have it.
    """

    problems: tuple[Problem, ...]
    unfinished: tuple[int, ...]
    files: int
    bytes: int
    digest: str

    @property
    def ok(self) -> bool:
        """Whether all regions are done, and each byte is as it was written."""
        return not self.problems and not self.unfinished

    @property
    def regions(self) -> tuple[int, ...]:
        """Regions that have to be filled again."""
        return tuple(sorted({p.region for p in self.problems if p.region is not None}))


def verify(store: str | os.PathLike[str]) -> VerifyReport:
    """Compare every byte of a store with what was written.

    Parameters
    ----------
    store : path
        A store that `to_zarr` or `batch` wrote.

    Returns
    -------
    VerifyReport
        ``report.ok`` is True if nothing is missing and nothing changed.

    Raises
    ------
    StoreError
        If there is no journal beside the store, or what the run was begun with cannot be read.

    Examples
    --------
    >>> import tempfile, xr_cloudfree
    >>> from xr_cloudfree import synthetic
    >>> folder = tempfile.TemporaryDirectory()
    >>> cube = synthetic.cube(shape=(12, 4, 64, 64), seed=1)
    >>> filled = cube.cloudfree.to_zarr(f"{folder.name}/july.zarr", "2023-07-01", model="linear")
    >>> xr_cloudfree.verify(f"{folder.name}/july.zarr").ok
    True
    >>> folder.cleanup()
    """
    journal = Journal(store)
    begun = _begun(journal)
    layout, problems, unfinished = layout_of(begun), [], []
    digests: dict[str, str] = {}
    wanted = dict(begun["files"])
    finished = read_json(journal.finished)
    if journal.finished.exists():
        wanted[ROOT] = begun["consolidated"]
        if finished is None:
            problems.append(Problem(None, journal.finished.name, "damaged"))
    files = size = 0
    for key, told in wanted.items():
        found, length = _read(journal.store / key)
        files, size, digests[key] = files + (found is not None), size + length, found or ""
        # Killed just before the end, a run has them together and does not say so yet.
        if found != told and not (key == ROOT and found == begun["consolidated"]):
            problems.append(Problem(None, key, "missing" if found is None else "changed"))
    with ThreadPoolExecutor(min(8, os.cpu_count() or 1)) as pool:
        for index, marked, shards in pool.map(lambda i: _region(journal, layout, i), range(layout.n_regions)):
            digests[f"{index:07d}"] = digest_of({key: found or "" for key, (found, _) in shards.items()})
            files += sum(found is not None for found, _ in shards.values())
            size += sum(length for _, length in shards.values())
            if marked is not None or journal.marker(index).exists():
                problems += _compare(journal, index, marked, begun["run"], shards)
            elif journal.finished.exists():
                problems.append(Problem(index, journal.marker(index).name, "missing"))
            else:  # not begun, or ended before it was marked
                unfinished.append(index)
    if finished is not None and not problems and not unfinished and finished["digest"] != digest_of(digests):
        problems.append(Problem(None, journal.finished.name, "changed"))
    return VerifyReport(tuple(problems), tuple(unfinished), files, size, digest_of(digests))


def repair(store: str | os.PathLike[str]) -> VerifyReport:
    """Mend a store: fill those regions again of which `verify` finds a byte missing or changed, and those undone.

    Parameters
    ----------
    store : path
        A store that `to_zarr` or `batch` wrote.

    Returns
    -------
    VerifyReport
        What was wrong before.

    Raises
    ------
    StoreError
        If the cube did not come from a file: then the call by which the store was begun mends it.
    ChangedError
        If the cube or the model is no longer the same.
    LockedError
        If the store is being filled.
    """
    journal = Journal(store)
    with journal.lock():
        report = verify(store)
        for index in report.regions:
            journal.marker(index).unlink(missing_ok=True)
    run = reopen(store)
    with started(run) as missing:
        run_here(run, missing)
        finish(run)
    return report


def store_digest(store: str | os.PathLike[str]) -> str:
    """SHA-256 over all bytes of a store: the same for every way to the same result.

    Parameters
    ----------
    store : path
        A store that `to_zarr` or `batch` wrote.
    """
    return verify(store).digest


def _begun(journal: Journal) -> Mapping[str, Any]:
    told = journal.begun()
    if told is None:
        raise StoreError(
            f"there is no journal of {journal.store}",
            "a store that to_zarr or batch has begun; fill(...).to_zarr keeps none",
            "cube.cloudfree.to_zarr(store, date)",
        )
    return told


def _region(
    journal: Journal, layout: Layout, index: int
) -> tuple[int, dict[str, Any] | None, dict[str, tuple[str | None, int]]]:
    """What the marker tells of a region, and what is there: digest and length by key."""
    return index, read_json(journal.marker(index)), {key: _read(journal.store / key) for key in layout.keys(index)}


def _compare(
    journal: Journal,
    index: int,
    marked: Mapping[str, Any] | None,
    run: str,
    shards: Mapping[str, tuple[str | None, int]],
) -> Iterator[Problem]:
    if marked is None or marked["region"] != index or marked["run"] != run:
        yield Problem(index, journal.marker(index).name, "damaged")
        return
    for key, (found, _) in shards.items():
        if found != marked["files"].get(key):
            yield Problem(index, key, "missing" if found is None else "changed")


def _read(path: Path) -> tuple[str | None, int]:
    """Digest and length of a file; None if it is not there."""
    try:
        data = path.read_bytes()
    except (FileNotFoundError, NotADirectoryError):
        return None, 0
    return sha256(data), len(data)
