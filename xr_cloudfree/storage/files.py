"""Atomic replacement of files and folders, and locks that end with the process that holds them."""

from __future__ import annotations

import errno
import glob
import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
import socket
import tempfile
import threading
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from functools import cache
from pathlib import Path
from typing import Any

from xr_cloudfree.errors import OutputError

# The lock of a folder that is being written, and the file that marks the lock as taken.
_LOCK, _LOCKED = "cloudfree.lock", "cloudfree.locked"
# Seconds between two touches of a lock file by its owner, and seconds without a touch after which it is void.
BEAT, STALE = 10.0, 180.0
# Errors that occur only on writing; others may concern a file that is read.
_WRITE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def write_error(path: Path, reason: object) -> OutputError:
    """Return the error for an output that cannot be written.

    Parameters
    ----------
    path : Path
        The output.
    reason : object
        The system's error, as an exception or as text.
    """
    text = getattr(reason, "strerror", None) or getattr(reason, "__cause__", None) or reason
    return OutputError(
        f"{path} cannot be written: {text}",
        "a folder you may write to, with space left",
        "another path; or free some space or correct the permissions, then the same call again",
    )


def resolve_link(path: Path) -> Path:
    """Return the path of an output, or the target if it is a link.

    Parameters
    ----------
    path : Path
        The output.

    Raises
    ------
    OutputError
        If the target's folder does not exist.
    """
    if not path.is_symlink():
        return path
    target = Path(os.path.realpath(path))
    if not target.parent.is_dir():
        raise OutputError(
            f"{path} is a link to {target}, and there is no folder {target.parent}",
            "a link into an existing folder",
            f"mkdir -p {shlex.quote(str(target.parent))}",
        )
    return target


@contextmanager
def aside(files: Sequence[Path]) -> Iterator[dict[Path, Path]]:
    """Provide temporary paths that replace the outputs once everything is written and on the disk.

    Nothing is replaced if anything fails before. Remains of a process that was killed while it wrote the same output
    are removed; those of a running process are not.

    Parameters
    ----------
    files : sequence of Path
        Outputs, files or folders. Links are followed.

    Yields
    ------
    dict of Path to Path
        The temporary path of each output: its own name in a hidden folder beside it.

    Raises
    ------
    OutputError
        If the disk is full, or may not be written to.
    """
    targets = {file: resolve_link(file) for file in files}
    with ExitStack() as stack:
        try:
            folders: dict[Path, Path] = {}
            for target in targets.values():
                if target.parent not in folders:
                    folders[target.parent] = stack.enter_context(_hidden_folder(target))
        except OSError as error:
            raise write_error(files[0], error) from error
        parts = {file: folders[target.parent] / file.name for file, target in targets.items()}
        try:
            yield parts
            for part in parts.values():
                _sync(part)
            for file, part in parts.items():
                _replace(part, targets[file])
        except OSError as error:
            named = str(error.filename or "")
            if isinstance(error, OutputError) or not (
                error.errno in _WRITE_ERRORS or any(named.startswith(str(folder)) for folder in folders.values())
            ):
                raise
            raise write_error(files[0], error) from error


@contextmanager
def _hidden_folder(first: Path) -> Iterator[Path]:
    """Create a hidden folder beside an output, locked while it is in use."""
    first.parent.mkdir(parents=True, exist_ok=True)
    _remove_abandoned(first)
    folder = Path(tempfile.mkdtemp(prefix=f".{first.name}-", dir=first.parent))
    try:
        with hold(folder / _LOCK):
            (folder / _LOCKED).touch()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _remove_abandoned(first: Path) -> None:
    """Remove the hidden folders of processes that were killed while they wrote an output."""
    for name in glob.glob(f".{glob.escape(first.name)}-????????", root_dir=first.parent):
        folder = first.parent / name
        if not (folder / _LOCKED).is_file():
            continue
        with suppress(OSError), hold(folder / _LOCK):  # fails while another process uses the folder
            for old in _replaced(folder).glob("*"):
                if not first.with_name(old.name).exists():  # killed between two renames
                    os.rename(old, first.with_name(old.name))
            shutil.rmtree(folder)


def _replaced(folder: Path) -> Path:
    """Return the folder for outputs that are being replaced."""
    return folder / "replaced"


def _replace(part: Path, target: Path) -> None:
    """Move a temporary file or folder to its target."""
    if not target.is_dir():
        os.replace(part, target)
    else:
        # A folder cannot be replaced in one step: keep the old one until the new one is in place.
        old = _replaced(part.parent) / target.name
        old.parent.mkdir(exist_ok=True)
        os.rename(target, old)
        try:
            os.replace(part, target)
        except OSError:
            os.rename(old, target)
            raise
    _sync_one(target.parent)


def _sync(path: Path) -> None:
    """Force a file, or all files of a folder, onto the disk; a full disk may be reported only then."""
    if path.is_file():
        _sync_one(path)
        return
    paths = [Path(folder) / name for folder, _, names in os.walk(path) for name in ("", *names)]
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(_sync_one, paths):
            pass


def _sync_one(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # folders cannot be opened on Windows
    file = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(file)
    except OSError as error:
        # Some file systems do not support fsync for folders.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EBADF)):
            raise
    finally:
        os.close(file)


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold an exclusive lock on a file. It is released when the process ends, however it ends.

    The lock is the operating system's. On file systems without locks (some network and FUSE file systems) it is a
    second file, whose name ends with ``.held``: it is created exclusively, names its process and is touched every
    10 seconds. It is void if its process has ended on this machine, or after three minutes without a touch.

    Parameters
    ----------
    path : Path
        The file; created if it does not exist, and never removed.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    OSError
        If the file cannot be created.
    """
    from filelock import FileLock, Timeout

    # Raise for a file that cannot be opened; an error of the lock then means that there are no locks.
    os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o644))
    lock = FileLock(path, timeout=0, thread_local=False, fallback_to_soft=False)
    with ExitStack() as stack:
        try:
            stack.enter_context(lock)
        except Timeout as error:
            raise BlockingIOError(errno.EAGAIN, "another process has locked it") from error
        except OSError:  # the file system has no locks: ENOLCK, ENOSYS, EOPNOTSUPP and others
            stack.enter_context(_hold_by_name(path.with_name(f"{path.name}.held")))
        yield


@contextmanager
def _hold_by_name(path: Path) -> Iterator[None]:
    """Hold a lock by creating a file exclusively; see `hold`."""
    owner = json.dumps(process_note())
    for _ in range(5):
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            break
        except FileExistsError:
            _remove_void(path)
    else:
        raise BlockingIOError(errno.EAGAIN, "several processes try to lock it")
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT):
            with suppress(OSError):
                os.utime(file)

    beating = threading.Thread(target=beat, daemon=True, name="cloudfree-lock")
    try:
        os.write(file, owner.encode())
        beating.start()
        yield
    finally:
        done.set()
        if beating.ident is not None:
            beating.join()
        os.close(file)
        path.unlink(missing_ok=True)


def _remove_void(path: Path) -> None:
    """Remove a lock file that is void; raise `BlockingIOError` if it is not."""
    try:
        content, touched = path.read_text(), path.stat().st_mtime
    except FileNotFoundError:
        return
    try:
        ended = has_ended(json.loads(content))
    except ValueError:  # it is being written
        ended = None
    if ended is False or (ended is None and _now(path.parent) - touched < STALE):
        raise BlockingIOError(errno.EAGAIN, "another process has locked it")
    # Rename it first: of two processes that find it void, one may remove the new lock of the other.
    removed = path.with_name(f"{path.name}-{secrets.token_hex(4)}")
    with suppress(FileNotFoundError):
        os.rename(path, removed)
        if removed.read_text() != content:
            with suppress(FileExistsError):
                os.link(removed, path)
            removed.unlink()
            raise BlockingIOError(errno.EAGAIN, "another process has locked it")
        removed.unlink()


def _now(folder: Path) -> float:
    """Return the time by the clock of a file system, which may be that of another machine."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".cloudfree-") as file:
        return os.fstat(file.fileno()).st_mtime


@cache
def machine() -> str:
    """Return a short name of the machine since its boot, or of the container: process numbers are unique within it."""
    parts = [socket.gethostname()]
    with suppress(OSError):
        parts += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256(" ".join(parts).encode()).hexdigest()[:8]


def _began(pid: int) -> str:
    """Return the start time of a process of this machine, in units of the system; empty if unknown."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def process_note() -> dict[str, Any]:
    """Return a note by which other processes can find out whether this one has ended; another one in each call."""
    return {"machine": machine(), "pid": os.getpid(), "began": _began(os.getpid()), "by": secrets.token_hex(8)}


def has_ended(note: Any) -> bool | None:
    """Return whether the process of a note, from `process_note`, has ended; None if this cannot be told from here."""
    try:
        if note["machine"] == machine():
            return not is_alive(int(note["pid"]), note["began"])
    except (ValueError, KeyError, TypeError):
        pass
    return None


def is_alive(pid: int, began: str = "") -> bool:
    """Return whether a process of this machine is running.

    Parameters
    ----------
    pid : int
        Process number.
    began : str
        Start time, from `_began`: another process may have the number by now.
    """
    if os.name == "nt":  # on Windows signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # a process of another user
        pass
    return not began or _began(pid) in ("", began)


def abandoned(paths: Iterable[Path]) -> Iterator[Path]:
    """Yield the temporary files whose writers have ended.

    A writer on another machine counts as ended ten minutes after its last write.

    Parameters
    ----------
    paths : iterable of Path
        Temporary files, named ``….MACHINE-PID-THREAD.ENDING``.
    """
    for path in paths:
        with suppress(FileNotFoundError):
            named = re.search(r"\.([0-9a-f]{8})-(\d+)-\d+\.\w+$", path.name)
            if named is not None and named[1] == machine():
                if not is_alive(int(named[2])):
                    yield path
            elif _now(path.parent) - path.stat().st_mtime > 600:
                yield path
