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
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.errors import LockedError, OutputError, StoreError
from xr_cloudfree.locations import local
from xr_cloudfree.runner.store import sha256, write_file

# Markers in one folder.
_FOLDER = 1000


class Journal:
    """The journal of a store.

    Parameters
    ----------
    store : path
        The store; the journal is the folder beside it whose name ends with ``.journal``.
    """

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self.store = local(store, "store")
        self.folder = self.store.with_name(f"{self.store.name}.journal")
        self.run, self.finished = self.folder / "run.json", self.folder / "finished.json"

    def __repr__(self) -> str:
        return f"Journal({str(self.store)!r})"

    def marker(self, index: int) -> Path:
        """The file that says that a region is done."""
        return self.folder / "done" / f"{index // _FOLDER:04d}" / f"{index:07d}.json"

    def done(self, n_regions: int, run: str | None = None) -> NDArray[np.bool_]:
        """Which regions are done: those of `markers`."""
        found = np.zeros(n_regions, bool)
        for index, _ in self.markers(n_regions, run):
            found[index] = True
        return found

    def markers(self, n_regions: int, run: str | None = None) -> Iterator[tuple[int, dict[str, Any]]]:
        """Regions that are done, in any order, and what was told of each.

        Parameters
        ----------
        n_regions : int
            Number of regions.
        run : str, optional
            The run's identity: markers of another one do not count.
        """
        for index in self._marked():
            if index < n_regions:
                told = read_json(self.marker(index))
                if told is not None and told["region"] == index and run in (None, told["run"]):
                    yield index, told

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
                f"{self.run} is damaged", "the file as it was written", "fill again: the same call, overwrite=True"
            )
        return told

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the store for one driver. The system lets go of it when the process ends, however it does.

        Raises
        ------
        LockedError
            If another driver holds it.
        OutputError
            If there can be no journal.
        """
        path = self.folder / "lock"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            held = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(
                f"{path} cannot be written: {error.strerror or error}", "a folder you may write to", "another path"
            ) from error
        try:
            if not _claim(held):
                told = os.pread(held, 4096, 0).decode(errors="replace")
                who = {"pid": "?", "host": "?", "since": "?"}
                with suppress(ValueError):
                    who |= json.loads(told)
                raise LockedError(
                    f"{self.store} is being filled by process {who['pid']} on {who['host']} since {who['since']}",
                    "one driver for a store",
                    "wait for it, or end it; the same call then goes on where it stopped",
                )
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
            told = json.dumps({"pid": os.getpid(), "host": socket.gethostname(), "since": since})
            os.ftruncate(held, 0)
            os.pwrite(held, told.encode(), 0)
            yield
            os.ftruncate(held, 0)
        finally:
            os.close(held)


def _claim(file: int) -> bool:
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError:
            return False
        return True
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


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
