"""The journal of a run, a folder beside its store: the settings of the run and a marker for each region that is done.

It contains what the store itself must not: times, processes, machines. Each file is written atomically and contains a
checksum of itself.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.errors import LockedError, OutputError, StoreError, option
from xr_cloudfree.runner.store import Layout, sha256, sizes
from xr_cloudfree.storage.folders import folder_at

# Number of markers in one folder.
_FOLDER = 1000


# Files of a journal: the settings of the run, the digest of a finished store, and the lock of its driver.
RUN, FINISHED, LOCK = "run.json", "finished.json", "lock"


class Journal:
    """The journal of a store.

    Parameters
    ----------
    store : path
        The store, also at a URL of an object store. The journal is the folder beside it whose name ends with
        ``.journal``; if the store is a link, it may also be beside the target.

    Attributes
    ----------
    store : Folder
        The store.
    folder : Folder
        The journal.
    """

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self.store = folder_at(store)
        self.folder = self.store.journal()

    def __repr__(self) -> str:
        return f"Journal({str(self.store.location)!r})"

    def marker(self, index: int) -> str:
        """The key of a region's marker, a file that exists once the region is done."""
        return f"done/{index // _FOLDER:04d}/{index:07d}.json"

    def read(self, key: str) -> dict[str, Any] | None:
        """Return the content of a file; None if it is missing, damaged, or not as it was written."""
        return _parse(self.folder.read(key))

    def write(self, key: str, content: Mapping[str, Any]) -> None:
        """Write an object as JSON, with a checksum of itself."""
        self.folder.write(key, _with_checksum(content))

    def mark(self, index: int, marker: Mapping[str, Any], extends: str | None = None) -> None:
        """Write the marker of a region.

        Parameters
        ----------
        index : int
            The region.
        marker : mapping
            The content, with the identity of the run.
        extends : str, optional
            Identity of the run that the marker's run adds dates to: its marker is replaced.

        Raises
        ------
        StoreError
            If another run has marked it: then the store was begun anew meanwhile.
        """

        def change(data: bytes | None) -> bytes:
            before = _parse(data)
            if before is not None and before["run"] not in (marker["run"], extends):
                raise another_run(self)
            return _with_checksum(marker)

        self.folder.update(self.marker(index), change)

    @property
    def is_finished(self) -> bool:
        """Whether the digest of a finished store has been recorded."""
        return self.folder.exists(FINISHED)

    def regions(self, layout: Layout, run: str | None = None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Return which regions are done, and which were done but have lost a file.

        Parameters
        ----------
        layout : Layout
            The layout of the store.
        run : str, optional
            Identity of the run; markers of other runs do not count.

        Returns
        -------
        done, lost : ndarray of bool, shape (region,)
            A region is done if it has a marker, all its files exist and their total size is that of the marker. The
            bytes are not read; see `verify`.
        """
        done, lost = (np.zeros(layout.n_regions, bool) for _ in range(2))
        for index, _, whole in self._read_markers(layout, run):
            (done if whole else lost)[index] = True
        return done, lost

    def markers(self, layout: Layout, run: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Yield the regions that are done, see `regions`, and the content of their markers, in any order."""
        return ((index, marker) for index, marker, whole in self._read_markers(layout, run) if whole)

    def _read_markers(self, layout: Layout, run: str | None) -> Iterator[tuple[int, dict[str, Any], bool]]:
        """Yield the regions with a valid marker, its content, and whether their files exist."""
        number, size = sizes(self.store, layout)
        indices = (index for index in self._marked() if index < layout.n_regions)
        for index, marker in in_threads(self.folder.at_once, lambda i: (i, self.read(self.marker(i))), indices):
            if marker is not None and marker["region"] == index and run in (None, marker["run"]):
                yield index, marker, number[index] == len(marker["files"]) and size[index] == marker["bytes"]

    def _marked(self) -> Iterator[int]:
        """Yield the regions that have a marker file, valid or not."""
        for key, _ in self.folder.list("done"):
            stem, ending = os.path.splitext(key.rpartition("/")[2])
            if ending == ".json" and stem.isdecimal():
                yield int(stem)

    def begun(self) -> dict[str, Any] | None:
        """Return the record of the run, with the settings it was begun with; None if there is no journal.

        Raises
        ------
        StoreError
            If it is damaged.
        """
        data = self.folder.read(RUN)
        if data is None:
            return None
        record = _parse(data)
        if record is None:
            raise StoreError(
                f"{self.folder.location}/{RUN} is damaged",
                "the file as it was written",
                "fill again: the same call, " + option("overwrite=True"),
            )
        return record

    def needed(self) -> dict[str, Any]:
        """Return the record of the run, as `begun` does.

        Raises
        ------
        StoreError
            If it is damaged, or there is no journal.
        """
        record = self.begun()
        if record is None:
            raise StoreError(
                f"there is no journal of {self.store.location}",
                "a store that to_zarr or batch has begun; fill(...).to_zarr keeps none",
                "cube.cloudfree.to_zarr(store, date)",
            )
        return record

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the lock of the store. It is released when the process ends, however it ends; see `files.hold`.

        Raises
        ------
        LockedError
            If another process holds it.
        OutputError
            If the journal cannot be written.
        """
        since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
        note = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
        with ExitStack() as stack:
            try:
                stack.enter_context(self.folder.hold(LOCK, note))
            except BlockingIOError as error:
                owner = {"pid": "?", "host": "?", "since": "?"} | (self.folder.holder(LOCK) or {})
                raise LockedError(
                    f"{self.store.location} is being filled by process {owner['pid']} on {owner['host']} since "
                    f"{owner['since']}",
                    "one driver for a store",
                    "wait for it, or end it; the same call then continues where it stopped",
                ) from error
            except OutputError:
                raise
            except OSError as error:
                raise OutputError(
                    f"{self.folder.location}/{LOCK} cannot be written: {error.strerror or error}",
                    "a folder you may write to",
                    "another path",
                ) from error
            yield


def another_run(journal: Journal) -> StoreError:
    """Return the error of a process whose store was begun anew by another run in the meantime."""
    return StoreError(
        f"{journal.store.location} belongs to another run by now",
        "a store begun by this run",
        "the call that begins it: to_zarr or batch",
    )


def in_threads(number: int, function: Callable[[Any], Any], items: Iterable[Any]) -> Iterator[Any]:
    """Yield what a function returns for each item, in order, computed by some threads a little ahead."""
    if number == 1:
        yield from map(function, items)
        return
    with ThreadPoolExecutor(number) as pool:
        ahead: deque[Future[Any]] = deque()
        for item in items:
            ahead.append(pool.submit(function, item))
            if len(ahead) > 4 * number:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()


def _with_checksum(content: Mapping[str, Any]) -> bytes:
    return _text({**content, "check": sha256(_text(content))[:16]})


def _parse(data: bytes | None) -> dict[str, Any] | None:
    """Return the content of a file with a checksum; None if there is no file, or it is not as it was written."""
    if data is None:
        return None
    try:
        content = json.loads(data)
        check = content.pop("check")
    except (ValueError, KeyError, AttributeError, TypeError):
        return None
    intact = data == _text({**content, "check": check}) and check == sha256(_text(content))[:16]
    return dict(content) if intact else None


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
