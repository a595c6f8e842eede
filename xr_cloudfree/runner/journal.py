"""The journal of a run, a folder beside its store: the settings of the run and a marker for each region that is done.

It contains what the store itself must not: times, processes, machines. Each file is written atomically and contains a
checksum of itself.
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
from xr_cloudfree.storage.locations import journal_folder, local

# Number of markers in one folder.
_FOLDER = 1000


class Journal:
    """The journal of a store.

    Parameters
    ----------
    store : path
        The store. The journal is the folder beside it whose name ends with ``.journal``; if the store is a link, it
        may also be beside the target.
    """

    def __init__(self, store: str | os.PathLike[str]) -> None:
        self.store = local(store, "store")
        self.folder = journal_folder(self.store)
        if self.store.is_symlink() and not self.folder.exists():
            beside_target = journal_folder(Path(os.path.realpath(self.store)))
            self.folder = beside_target if beside_target.exists() else self.folder
        self.run, self.finished = self.folder / "run.json", self.folder / "finished.json"

    def __repr__(self) -> str:
        return f"Journal({str(self.store)!r})"

    def marker(self, index: int) -> Path:
        """The marker of a region: a file that exists once the region is done."""
        return self.folder / "done" / f"{index // _FOLDER:04d}" / f"{index:07d}.json"

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
        for index in self._marked():
            if index < layout.n_regions:
                marker = read_json(self.marker(index))
                if marker is not None and marker["region"] == index and run in (None, marker["run"]):
                    yield index, marker, number[index] == len(marker["files"]) and size[index] == marker["bytes"]

    def _marked(self) -> Iterator[int]:
        """Yield the regions that have a marker file, valid or not."""
        with suppress(FileNotFoundError), os.scandir(self.folder / "done") as folders:
            for folder in folders:
                with os.scandir(folder) as entries:  # closed also if the caller stops early
                    for entry in entries:
                        stem, ending = os.path.splitext(entry.name)
                        if ending == ".json" and stem.isdecimal():
                            yield int(stem)

    def begun(self) -> dict[str, Any] | None:
        """Return the record of the run, with the settings it was begun with; None if there is no journal.

        Raises
        ------
        StoreError
            If it is damaged.
        """
        if not self.run.exists():
            return None
        record = read_json(self.run)
        if record is None:
            raise StoreError(
                f"{self.run} is damaged",
                "the file as it was written",
                "fill again: the same call, " + option("overwrite=True"),
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
        path = self.folder / "lock"
        with ExitStack() as stack:
            try:
                self.folder.mkdir(parents=True, exist_ok=True)
                stack.enter_context(hold(path))
            except BlockingIOError as error:
                owner = {"pid": "?", "host": "?", "since": "?"}
                with suppress(ValueError, OSError):
                    owner |= json.loads(path.read_text())
                raise LockedError(
                    f"{self.store} is being filled by process {owner['pid']} on {owner['host']} since {owner['since']}",
                    "one driver for a store",
                    "wait for it, or end it; the same call then continues where it stopped",
                ) from error
            except OSError as error:
                raise OutputError(
                    f"{path} cannot be written: {error.strerror or error}", "a folder you may write to", "another path"
                ) from error
            since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
            own_note = {"pid": os.getpid(), "host": socket.gethostname(), "since": since}
            try:
                with suppress(OSError):  # a full disk is reported when more than this note is written
                    path.write_text(json.dumps(own_note))
                yield
            finally:
                with suppress(OSError):
                    os.truncate(path, 0)


def write_json(path: Path, content: Mapping[str, Any]) -> None:
    """Write an object as JSON, with a checksum of itself."""
    write_file(path, _text({**content, "check": sha256(_text(content))[:16]}))


def read_json(path: Path) -> dict[str, Any] | None:
    """Return what `write_json` wrote; None if the file is missing or differs from what was written."""
    try:
        data = path.read_bytes()
        content = json.loads(data)
        check = content.pop("check")
    except (OSError, ValueError, KeyError, AttributeError):
        return None
    intact = data == _text({**content, "check": check}) and check == sha256(_text(content))[:16]
    return dict(content) if intact else None


def _text(content: Mapping[str, Any]) -> bytes:
    return (json.dumps(content, indent=1, sort_keys=True, allow_nan=False) + "\n").encode()
