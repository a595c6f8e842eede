"""Verification of stores: whether every byte is as it was written, and the repair of those that are not."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from xr_cloudfree.runner import pyramids
from xr_cloudfree.runner.driver import execute
from xr_cloudfree.runner.journal import FINISHED, Journal, in_threads
from xr_cloudfree.runner.overviews import add_overviews
from xr_cloudfree.runner.runs import layout_of, reopen
from xr_cloudfree.runner.store import ROOT, Layout, digest_of, sha256
from xr_cloudfree.storage.folders import Folder


@dataclass(frozen=True)
class Problem:
    """A file that is missing, changed or damaged.

    Parameters
    ----------
    region : int or None
        The region; None for metadata, coordinates, overviews and the journal itself.
    key : str
        The file, relative to the store or its journal.
    what : {"missing", "changed", "damaged"}
        The file is missing; its bytes differ from what was written; a file of the journal cannot be read.
    """

    region: int | None
    key: str
    what: str


@dataclass(frozen=True)
class VerifyReport:
    """The result of `verify`.

    Parameters
    ----------
    problems : tuple of Problem
        The files that are missing, changed or damaged.
    unfinished : tuple of int
        Regions that were never done.
    files, bytes : int
        Number of files and bytes read.
    digest : str
        Digest of the store, from its bytes; overviews do not count.
    """

    problems: tuple[Problem, ...]
    unfinished: tuple[int, ...]
    files: int
    bytes: int
    digest: str

    @property
    def ok(self) -> bool:
        """Whether all regions are done and every byte is as it was written."""
        return not self.problems and not self.unfinished

    @property
    def regions(self) -> tuple[int, ...]:
        """Regions to fill again."""
        return tuple(sorted({p.region for p in self.problems if p.region is not None}))


def verify(store: str | os.PathLike[str]) -> VerifyReport:
    """Compare every byte of a store, and of its overviews, with the checksums of what was written.

    Parameters
    ----------
    store : path or URL
        A store that `to_zarr` or `batch` wrote.

    Returns
    -------
    VerifyReport
        ``report.ok`` is True if nothing is missing and nothing changed.

    Raises
    ------
    StoreError
        If there is no journal beside the store, or its record of the run cannot be read.

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
    begun = journal.needed()
    layout, problems, unfinished = layout_of(begun), [], []
    digests: dict[str, str] = {}
    expected = dict(begun["files"])
    finished, is_finished = journal.read(FINISHED), journal.is_finished
    # While dates are added, a region keeps its marker, and the store its metadata, until the new ones are done.
    earlier = None if is_finished else begun.get("earlier")
    if is_finished:
        expected[ROOT] = begun["consolidated"]
        if finished is None:
            problems.append(Problem(None, FINISHED, "damaged"))
    overviews, shown = pyramids.recorded(journal, begun["run"]) if is_finished else None, False
    files = size = 0
    for key, checksum in expected.items():
        digest, length = _read(journal.store, key)
        files, size, digests[key] = files + (digest is not None), size + length, digest or ""
        # A run killed just before its end has consolidated the metadata without recording it yet.
        accepted = {checksum, begun["consolidated"] if key == ROOT else checksum}
        if earlier is not None:
            accepted.add(earlier["consolidated"] if key == ROOT else earlier["files"].get(key))
        if key == ROOT and overviews is not None and digest == overviews["root"]:
            # The digest is that of the store without overviews.
            digests[key], shown = checksum, True
        elif digest not in accepted:
            problems.append(Problem(None, key, "missing" if digest is None else "changed"))
    regions = in_threads(journal.store.at_once, lambda i: _region(journal, layout, i), range(layout.n_regions))
    for index, is_marked, marker, shards in regions:
        digests[f"{index:07d}"] = digest_of({key: digest or "" for key, (digest, _) in shards.items()})
        files += sum(digest is not None for digest, _ in shards.values())
        size += sum(length for _, length in shards.values())
        if earlier is not None and marker is not None and marker["run"] == earlier["run"]:
            kept = {key: shards[key] for key in layout_of(earlier).keys(index)}
            problems += _compare(journal, index, marker, earlier["run"], kept)
            unfinished.append(index)
        elif is_marked:
            problems += _compare(journal, index, marker, begun["run"], shards)
        elif is_finished:
            problems.append(Problem(index, _name(journal, index), "missing"))
        else:  # not begun, or interrupted before its marker was written
            unfinished.append(index)
    for key, checksum, digest, length in pyramids.problems(journal, overviews) if overviews and shown else ():
        files, size = files + (digest is not None), size + length
        if digest != checksum:
            problems.append(Problem(None, key, "missing" if digest is None else "changed"))
    if finished is not None and not problems and not unfinished and finished["digest"] != digest_of(digests):
        problems.append(Problem(None, FINISHED, "changed"))
    return VerifyReport(tuple(problems), tuple(unfinished), files, size, digest_of(digests))


def repair(store: str | os.PathLike[str]) -> VerifyReport:
    """Fill the regions again in which `verify` finds problems, and those that were never done; so with overviews.

    Parameters
    ----------
    store : path or URL
        A store that `to_zarr` or `batch` wrote.

    Returns
    -------
    VerifyReport
        The problems before the repair.

    Raises
    ------
    StoreError
        If the cube does not come from a file: then repeat the call that began the store.
    ChangedError
        If the cube or the model is no longer the same.
    LockedError
        If the store is being filled.
    """
    journal = Journal(store)
    with journal.lock():
        report = verify(store)
        journal.folder.remove(journal.marker(index) for index in report.regions)
        overviews = pyramids.recorded(journal, journal.needed()["run"])
        if overviews is not None:
            pyramids.unmark(journal, overviews, [problem.key for problem in report.problems])
    if report.unfinished or any(not problem.key.startswith(pyramids.PREFIX) for problem in report.problems):
        execute(reopen(store), progress=False)
    if overviews is not None:
        add_overviews(store)
    return report


def store_digest(store: str | os.PathLike[str]) -> str:
    """Return the SHA-256 over all bytes of a store, which does not depend on how the run went.

    Parameters
    ----------
    store : path or URL
        A store that `to_zarr` or `batch` wrote.
    """
    return verify(store).digest


def _name(journal: Journal, index: int) -> str:
    return journal.marker(index).rpartition("/")[2]


def _region(
    journal: Journal, layout: Layout, index: int
) -> tuple[int, bool, dict[str, Any] | None, dict[str, tuple[str | None, int]]]:
    """Return a region, whether it has a marker, that marker, and the digest and length of its files by key."""
    shards = {key: _read(journal.store, key) for key in layout.keys(index)}
    marker = journal.read(journal.marker(index))
    return index, marker is not None or journal.folder.exists(journal.marker(index)), marker, shards


def _compare(
    journal: Journal,
    index: int,
    marker: Mapping[str, Any] | None,
    run: str,
    shards: Mapping[str, tuple[str | None, int]],
) -> Iterator[Problem]:
    if marker is None or marker["region"] != index or marker["run"] != run:
        yield Problem(index, _name(journal, index), "damaged")
        return
    for key, (digest, _) in shards.items():
        if digest != marker["files"].get(key):
            yield Problem(index, key, "missing" if digest is None else "changed")


def _read(store: Folder, key: str) -> tuple[str | None, int]:
    """Return the digest and length of a file; the digest is None if there is no file."""
    data = store.read(key)
    return (None, 0) if data is None else (sha256(data), len(data))
