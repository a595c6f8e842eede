"""Folders that runs write to: one interface for folders on a disk and prefixes in an object store.

A file is written completely or not at all, and nothing is renamed or appended to through this interface.
"""

from __future__ import annotations

import json
import os
import shutil
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from xr_cloudfree.errors import OutputError, either, option
from xr_cloudfree.storage import files
from xr_cloudfree.storage.files import abandoned, machine, resolve_link, write_error
from xr_cloudfree.storage.locations import journal_folder, parse_location
from xr_cloudfree.storage.objects import SCHEMES, ObjectFolder

PARTIAL = ".partial"


class Folder(Protocol):
    """A folder of a run: its store, or the journal beside it. Keys are paths in it, with slashes."""

    @property
    def location(self) -> Path | str:
        """The path or the URL."""

    @property
    def at_once(self) -> int:
        """Number of files that are best read at the same time."""

    def journal(self) -> Folder:
        """Return the folder of the journal, if this is a store."""

    def check(self) -> None:
        """Raise `OutputError` if this cannot be a folder; nothing is written."""

    def make(self) -> None:
        """Make the folder if it is a link whose target does not exist."""

    def is_empty(self) -> bool:
        """Return whether there is nothing in the folder, or no folder."""

    def exists(self, key: str) -> bool:
        """Return whether there is a file."""

    def read(self, key: str) -> bytes | None:
        """Return the content of a file, or None if there is none."""

    def write(self, key: str, data: bytes) -> None:
        """Write or replace a file, completely or not at all. Raises `OutputError` if this is not possible."""

    def update(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace a file by what `change` makes of its content, which is None if there is no file.

        In an object store the file is replaced only if it is still what `change` was given, else `change` is called
        again.
        """

    def remove(self, keys: Iterable[str]) -> None:
        """Remove files; those that do not exist are skipped."""

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield the key and the size of each file, or of those below the folder `prefix`, in any order."""

    def clear(self, keep: str = "") -> None:
        """Remove all files, except for those at the top whose names begin with `keep`."""

    def tidy(self) -> None:
        """Remove what writers that were killed left behind."""

    def hold(self, key: str, note: Mapping[str, Any]) -> Any:
        """Return a context manager that holds an exclusive lock, and shows a note on its owner meanwhile.

        Raises
        ------
        BlockingIOError
            If another process holds it.
        OSError
            If the lock cannot be written.
        """

    def holder(self, key: str) -> dict[str, Any] | None:
        """Return the note of the owner of a lock, as far as it is known; None if nobody holds it."""


def folder_at(where: str | os.PathLike[str], name: str = "store") -> Folder:
    """Return the folder at a location.

    Parameters
    ----------
    where : str or path
        A path, or a URL of an object store: ``s3://``, ``gs://``, ``az://`` or ``abfs://``.
    name : str
        Name of the option, for the message.

    Raises
    ------
    OutputError
        If it is a URL of another kind, or one that contains a password or a query.
    MissingDependencyError
        If the package for object stores is not installed.
    """
    location = parse_location(where)
    if isinstance(location, Path):
        return LocalFolder(location)
    scheme = location.split(":", 1)[0].lower()
    if scheme in SCHEMES:
        return ObjectFolder.at(location, name)
    raise OutputError(
        f"the output is at a URL of the scheme {scheme}",
        f"a local path, or a URL of an object store: {', '.join(f'{known}://' for known in SCHEMES)}",
        either(option(f"{name}='out.zarr'"), option(f"{name}='s3://bucket/out.zarr'")),
    )


def is_zarr(folder: Folder) -> bool:
    """Return whether a folder is a Zarr store."""
    return any(folder.exists(name) for name in ("zarr.json", ".zgroup", ".zmetadata"))


@dataclass(frozen=True)
class LocalFolder:
    """A folder on a disk.

    Parameters
    ----------
    path : Path
        The folder, or a link to it; it need not exist.
    """

    path: Path

    @property
    def location(self) -> Path:
        """The path."""
        return self.path

    @property
    def at_once(self) -> int:
        """Number of files that are best read at the same time."""
        return min(8, os.cpu_count() or 1)

    def journal(self) -> LocalFolder:
        """Return the folder of the journal: beside the store, or if that is a link maybe beside its target."""
        folder = journal_folder(self.path)
        if self.path.is_symlink() and not folder.exists():
            beside_target = journal_folder(Path(os.path.realpath(self.path)))
            folder = beside_target if beside_target.exists() else folder
        return LocalFolder(folder)

    def check(self) -> None:
        """Raise `OutputError` for a file, and for a link into a folder that does not exist."""
        if self.path.is_file():
            raise OutputError(f"{self.path} is a file", "a path of its own", "another path")
        resolve_link(self.path)

    def make(self) -> None:
        """Make the target of a link."""
        target = resolve_link(self.path)
        if target != self.path:
            target.mkdir(exist_ok=True)

    def is_empty(self) -> bool:
        """Return whether there is nothing in the folder, or no folder."""
        return not (self.path.is_dir() and any(self.path.iterdir()))

    def exists(self, key: str) -> bool:
        """Return whether there is a file."""
        return (self.path / key).is_file()

    def read(self, key: str) -> bytes | None:
        """Return the content of a file, or None if there is none."""
        try:
            return (self.path / key).read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None

    def write(self, key: str, data: bytes) -> None:
        """Write a file under another name and rename it, so that it is complete even if the machine fails meanwhile."""
        path = self.path / key
        part = path.with_name(f"{path.name}.{machine()}-{os.getpid()}-{threading.get_ident()}{PARTIAL}")
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            with open(part, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            os.replace(part, path)
        except BaseException as error:  # also when the process is asked to end
            with suppress(OSError):
                part.unlink(missing_ok=True)
            if not isinstance(error, OSError):
                raise
            raise OutputError(
                f"{path} cannot be written: {error.strerror or error}",
                "a folder you may write to, with space left",
                "free some space or correct the permissions; the same call then continues where it stopped",
            ) from error

    def update(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace a file by what `change` makes of its content."""
        self.write(key, change(self.read(key)))

    def remove(self, keys: Iterable[str]) -> None:
        """Remove files; those that do not exist are skipped."""
        for key in keys:
            (self.path / key).unlink(missing_ok=True)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield the key and the size of each file."""
        with suppress(FileNotFoundError, NotADirectoryError), os.scandir(self.path / prefix) as entries:
            for entry in entries:
                key = f"{prefix}/{entry.name}".lstrip("/")
                if entry.is_dir():
                    yield from self.list(key)
                elif entry.is_file():
                    yield key, entry.stat().st_size

    def clear(self, keep: str = "") -> None:
        """Remove all files; a link stays a link."""
        target = resolve_link(self.path)
        if not target.exists():
            return
        try:
            if not keep:
                shutil.rmtree(target)
                return
            for entry in target.iterdir():
                if entry.is_dir():
                    shutil.rmtree(entry)
                elif not entry.name.startswith(keep):
                    entry.unlink()
        except OSError as error:
            raise write_error(self.path, error) from error

    def tidy(self) -> None:
        """Remove the partial files of writers that were killed; those of running writers stay."""
        found = (Path(where) / name for where, _, names in os.walk(self.path) for name in names)
        for path in abandoned(path for path in found if path.name.endswith(PARTIAL)):
            path.unlink(missing_ok=True)

    @contextmanager
    def hold(self, key: str, note: Mapping[str, Any]) -> Iterator[None]:
        """Hold a lock; see `xr_cloudfree.storage.files.hold`."""
        path = self.path / key
        path.parent.mkdir(parents=True, exist_ok=True)
        with files.hold(path):
            try:
                with suppress(OSError):  # a full disk is reported when more than this note is written
                    path.write_text(json.dumps(dict(note)))
                yield
            finally:
                with suppress(OSError):
                    os.truncate(path, 0)

    def holder(self, key: str) -> dict[str, Any] | None:
        """Return the note of the owner of a lock."""
        with suppress(OSError, ValueError):
            return dict(json.loads((self.path / key).read_text()))
        return None
