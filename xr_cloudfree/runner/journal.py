"""The journal of a run, in a folder beside its store: what it was begun with, and which regions are done.

It holds what the store itself must not: times, processes, machines. Each of its files is written whole, and carries
a checksum of itself.
"""

from __future__ import annotations

import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.errors import LockedError, OutputError, StoreError, option
from xr_cloudfree.runner.store import Layout, sha256, sizes, write_file
from xr_cloudfree.storage.files import hold
from xr_cloudfree.storage.locations import local

# Markers in one folder.
_FOLDER = 1000


class Journal:
    """The journal of a store.

    Parameters
    ----------
    store : path
        The store; the journal is the folder beside it whose name ends with ``.journal``. Of a link to a store it may
        lie beside the store as well.
    """

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self.store = local(store, "store")
        self.folder = _beside(self.store)
        if self.store.is_symlink() and not self.folder.exists():
            there = _beside(Path(os.path.realpath(self.store)))
            self.folder = there if there.exists() else self.folder
        self.run, self.finished = self.folder / "run.json", self.folder / "finished.json"

    def __repr__(self) -> str:
        return f"Journal({str(self.store)!r})"

    def marker(self, index: int) -> Path:
        """The file that says that a region is done."""
        return self.folder / "done" / f"{index // _FOLDER:04d}" / f"{index:07d}.json"

    def regions(self, layout: Layout, run: str | None = None) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which regions are done, and which were done but lack a file by now.

        Parameters
        ----------
        layout : Layout
            The store's files.
        run : str, optional
            The run's identity: markers of another one do not count.

        Returns
        -------
        done, lost : ndarray of bool, shape (region,)
            A region is done if its marker says so, and each of its files is there and all have the marker's size.
            Their bytes are not read: `verify` does that.
        """
        done, lost = (np.zeros(layout.n_regions, bool) for _ in range(2))
        for index, _, whole in self._told(layout, run):
            (done if whole else lost)[index] = True
        return done, lost

    def markers(self, layout: Layout, run: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Regions that are done as `regions` has it, in any order, and what was told of each."""
        return ((index, told) for index, told, whole in self._told(layout, run) if whole)

    def _told(self, layout: Layout, run: str | None) -> Iterator[tuple[int, dict[str, Any], bool]]:
        """Regions with a good marker, what it tells, and whether their files are there."""
        number, size = sizes(self.store, layout)
        for index in self._marked():
            if index < layout.n_regions:
                told = read_json(self.marker(index))
                if told is not None and told["region"] == index and run in (None, told["run"]):
                    yield index, told, number[index] == len(told["files"]) and size[index] == told["bytes"]

    def _marked(self) -> Iterator[int]:
        """Regions for which there is a file, whatever is in it."""
        with suppress(FileNotFoundError), os.scandir(self.folder / "done") as folders:
            for folder in folders:
                with os.scandir(folder) as entries:  # closed also if somebody has seen enough
                    for entry in entries:
                        stem, ending = os.path.splitext(entry.name)
                        if ending == ".json" and stem.isdecimal():
                            yield int(stem)

    def begun(self) -> dict[str, Any] | None:
        """What the run was begun with; None if there is no journal.

        Raises
        ------
        StoreError
            If it is damaged.
        """
        if not self.run.exists():
            return None
        told = read_json(self.run)
        if told is None:
            raise StoreError(
                f"{self.run} is damaged",
                "the file as it was written",
                "fill again: the same call, " + option("overwrite=True"),
            )
        return told

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store for one driver. It is free again when the process ends, however it does; see `files.hold`.

        Raises
        ------
        LockedError
            If another driver holds it.
        OutputError
            If there can be no journal.
        """
        path = self.folder / "lock"
        with ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold(path))
            except BlockingIOError as error:
                who = {"pid": "?", "host": "?", "since": "?"}
                with suppress(ValueError, OSError):
                    who |= json.loads(path.read_text())
                raise LockedError(
                    f"{self.store} is being filled by process {who['pid']} on {who['host']} since {who['since']}",
                    "one driver for a store",
                    "wait for it, or end it; the same call then goes on where it stopped",
                ) from error
            except OSError as error:
                raise OutputError(
                    f"{path} cannot be written: {error.strerror or error}", "a folder you may write to", "another path"
                ) from error
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
            told = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
            try:
                with suppress(OSError):  # the disk is full: whoever writes more than this note says so
                    path.write_text(json.dumps(told))
                yield
            finally:
                with suppress(OSError):
                    os.truncate(path, 0)


def _beside(store: Path) -> Path:
    return store.with_name(f"{store.name}.journal")


def write_json(path: Path, told: Mapping[str, Any]) -> None:
    """Write an object with a checksum of itself."""
    write_file(path, _text({**told, "check": sha256(_text(told))[:16]}))


def read_json(path: Path) -> dict[str, Any] | None:
    """What `write_json` wrote; None if the file is not there, or not as it was written."""
    try:
        data = path.read_bytes()
        told = json.loads(data)
        check = told.pop("check")
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    whole = data == _text({**told, "check": check}) and check == sha256(_text(told))[:16]
    return dict(told) if whole else None


def _text(told: Mapping[str, Any]) -> bytes:
    return (json.dumps(told, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
