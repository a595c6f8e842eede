"""Files and folders that take their places whole or not at all, and locks that end with the process that holds them."""

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

# The lock of a folder that is being written, and what says that it has been taken.
_LOCK, _LOCKED = "cloudfree.lock", "cloudfree.locked"
# Seconds between the signs of life of a lock without the system's help, and without one after which it is void.
BEAT, STALE = 10.0, 180.0
# What only writing meets; other errors of the system may be those of a file that is read.
_WRITING = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS}


def refused(path: Path, why: object) -> OutputError:
    """An error that says why an output cannot be written.

    Parameters
    ----------
    path : Path
        The output.
    why : object
        What the system said, as an exception or as text.
    """
    text = getattr(why, "strerror", None) or getattr(why, "__cause__", None) or why
    return OutputError(
        f"{path} cannot be written: {text}",
        "a folder you may write to, with space left",
        "another path; or free some space or mend the permissions, then the same call again",
    )


def place(path: Path) -> Path:
    """Where an output goes: the path itself, or where the link leads that is there.

    Parameters
    ----------
    path : Path
        The output as it was named.

    Raises
    ------
    OutputError
        If the link leads into a folder that is not there.
    """
    if not path.is_symlink():
        return path
    where = Path(os.path.realpath(path))
    if not where.parent.is_dir():
        raise OutputError(
            f"{path} is a link to {where}, and there is no folder {where.parent}",
            "a link into a folder that is there",
            f"mkdir -p {shlex.quote(str(where.parent))}",
        )
    return where


@contextmanager
def aside(files: Sequence[Path]) -> Iterator[dict[Path, Path]]:
    """Paths to write to, which take their places once all is written and on the disk.

    Nothing is replaced if anything fails before. What a process that was killed has left of the same output is
    removed; what one has left that lives is not.

    Parameters
    ----------
    files : sequence of Path
        Files and folders to write. Links are followed.

    Yields
    ------
    dict of Path to Path
        Where to write each of them: under its own name, in a hidden folder beside its place.

    Raises
    ------
    OutputError
        If the disk is full, or may not be written to.
    """
    places = {file: place(file) for file in files}
    with ExitStack() as stack:
        try:
            folders: dict[Path, Path] = {}
            for where in places.values():
                if where.parent not in folders:
                    folders[where.parent] = stack.enter_context(_hidden(where))
        except OSError as error:
            raise refused(files[0], error) from error
        parts = {file: folders[where.parent] / file.name for file, where in places.items()}
        try:
            yield parts
            for part in parts.values():
                _sync(part)
            for file, part in parts.items():
                _swap(part, places[file])
        except OSError as error:
            named = str(error.filename or "")
            if isinstance(error, OutputError) or not (
                error.errno in _WRITING or any(named.startswith(str(folder)) for folder in folders.values())
            ):
                raise
            raise refused(files[0], error) from error


@contextmanager
def _hidden(first: Path) -> Iterator[Path]:
    """A folder beside an output which tells by its lock that somebody works in it."""
    first.parent.mkdir(parents=True, exist_ok=True)
    _clear_left(first)
    folder = Path(tempfile.mkdtemp(prefix=f".{first.name}-", dir=first.parent))
    try:
        with hold(folder / _LOCK):
            (folder / _LOCKED).touch()
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _clear_left(first: Path) -> None:
    """Remove what writers of an output have left that were killed."""
    for name in glob.glob(f".{glob.escape(first.name)}-????????", root_dir=first.parent):
        left = first.parent / name
        if not (left / _LOCKED).is_file():
            continue
        with suppress(OSError), hold(left / _LOCK):  # it is held: somebody is at work
            for old in _replaced(left).glob("*"):
                if not first.with_name(old.name).exists():  # killed between two renames
                    os.rename(old, first.with_name(old.name))
            shutil.rmtree(left)


def _replaced(folder: Path) -> Path:
    """Where folders wait that are being replaced."""
    return folder / "replaced"


def _swap(part: Path, where: Path) -> None:
    """Put what was written into its place."""
    if not where.is_dir():
        os.replace(part, where)
    else:
        # A folder cannot be replaced by another in one step: the old one is kept until the new one is there.
        old = _replaced(part.parent) / where.name
        old.parent.mkdir(exist_ok=True)
        os.rename(where, old)
        try:
            os.replace(part, where)
        except OSError:
            os.rename(old, where)
            raise
    _sync_one(where.parent)


def _sync(path: Path) -> None:
    """Force a file, or all in a folder, onto the disk; a disk that is full may say so only then."""
    if path.is_file():
        _sync_one(path)
        return
    found = [Path(where) / name for where, _, names in os.walk(path) for name in ("", *names)]
    with ThreadPoolExecutor(8) as pool:
        for _ in pool.map(_sync_one, found):
            pass


def _sync_one(path: Path) -> None:
    if os.name == "nt" and path.is_dir():
        return  # cannot be opened there
    file = os.open(path, os.O_RDONLY if path.is_dir() or os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(file)
    except OSError as error:
        # Some file systems have nothing to force for a folder.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP, errno.EBADF)):
            raise
    finally:
        os.close(file)


@contextmanager
def hold(path: Path) -> Iterator[None]:
    """Hold a file as the only process. Another one gets it when this one ends, however it does.

    By the system's lock on it. A file system that has none (some network and FUSE file systems) gets a second file,
    whose name ends with ``.held``: it is made only where there is none, tells whose it is, and is touched every
    10 seconds. It is void if its process has ended, as far as that can be told from here: at once on the same machine,
    after three minutes without a touch elsewhere.

    Parameters
    ----------
    path : Path
        The file; made if it is not there, and left.

    Raises
    ------
    BlockingIOError
        If another process holds it.
    OSError
        If the file cannot be made.
    """
    file = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        try:
            _claim(file)
        except BlockingIOError:
            raise
        except OSError:  # there are no locks: ENOLCK, ENOSYS, EOPNOTSUPP and others, as file systems have it
            with _hold_by_name(path.with_name(f"{path.name}.held")):
                yield
            return
        yield
    finally:
        os.close(file)


def _claim(file: int) -> None:
    """Take the system's lock on an open file."""
    try:
        import fcntl
    except ImportError:  # Windows
        import msvcrt

        try:
            msvcrt.locking(file, msvcrt.LK_NBLCK, 1)  # type: ignore[attr-defined,unused-ignore]
        except OSError as error:
            raise BlockingIOError(errno.EAGAIN, "another process has locked it") from error
        return
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@contextmanager
def _hold_by_name(path: Path) -> Iterator[None]:
    mine = json.dumps(
        {"machine": machine(), "pid": os.getpid(), "began": _began(os.getpid()), "by": secrets.token_hex(4)}
    )
    for _ in range(5):
        try:
            file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL, 0o644)
            break
        except FileExistsError:
            _take_away(path)
    else:
        raise BlockingIOError(errno.EAGAIN, "others take it, too")
    done = threading.Event()

    def beat() -> None:
        while not done.wait(BEAT):
            with suppress(OSError):
                os.utime(file)

    beating = threading.Thread(target=beat, daemon=True, name="cloudfree-lock")
    try:
        os.write(file, mine.encode())
        beating.start()
        yield
    finally:
        done.set()
        if beating.ident is not None:
            beating.join()
        os.close(file)
        path.unlink(missing_ok=True)


def _take_away(path: Path) -> None:
    """Remove a lock that is void; raise if it is not."""
    try:
        told, touched = path.read_text(), path.stat().st_mtime
    except FileNotFoundError:
        return
    try:
        holder: dict[str, Any] = json.loads(told)
        here = holder["machine"] == machine()
        void = here and not alive(int(holder["pid"]), holder["began"])
    except (ValueError, KeyError, TypeError):  # it is being written
        here = void = False
    if not void and (here or _now(path.parent) - touched < STALE):
        raise BlockingIOError(errno.EAGAIN, "another process has locked it")
    # Under a name of its own: of two that find it void, one takes away the lock that the other has made since.
    mine = path.with_name(f"{path.name}-{secrets.token_hex(4)}")
    with suppress(FileNotFoundError):
        os.rename(path, mine)
        if mine.read_text() != told:
            with suppress(FileExistsError):
                os.link(mine, path)
            mine.unlink()
            raise BlockingIOError(errno.EAGAIN, "another process has locked it")
        mine.unlink()


def _now(folder: Path) -> float:
    """The time by the clock of a file system, which may be another machine's."""
    with tempfile.NamedTemporaryFile(dir=folder, prefix=".cloudfree-") as file:
        return os.fstat(file.fileno()).st_mtime


@cache
def machine() -> str:
    """A short name of where processes have one set of numbers: the machine since it was started, or a container."""
    told = [socket.gethostname()]
    with suppress(OSError):
        told += [Path("/proc/sys/kernel/random/boot_id").read_text(), os.readlink("/proc/self/ns/pid")]
    return hashlib.sha256(" ".join(told).encode()).hexdigest()[:8]


def _began(pid: int) -> str:
    """When a process of this machine began, in the system's own unit; empty where that is not told."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19]
    except (OSError, IndexError):
        return ""


def alive(pid: int, began: str = "") -> bool:
    """Whether a process of this machine lives.

    Parameters
    ----------
    pid : int
        Its number.
    began : str
        When it began: another one may have its number by now.
    """
    if os.name == "nt":  # there the signal 0 is Ctrl-C
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:  # somebody else's
        pass
    return not began or _began(pid) in ("", began)


def left_by_the_dead(paths: Iterable[Path]) -> Iterator[Path]:
    """Those of several files, named ``….MACHINE-PID-THREAD.ENDING``, whose writers are gone.

    Writers of other machines are taken for gone ten minutes after they have written last.

    Parameters
    ----------
    paths : iterable of Path
        The files.
    """
    for path in paths:
        with suppress(FileNotFoundError):
            named = re.search(r"\.([0-9a-f]{8})-(\d+)-\d+\.\w+$", path.name)
            if named is not None and named[1] == machine():
                if not alive(int(named[2])):
                    yield path
            elif _now(path.parent) - path.stat().st_mtime > 600:
                yield path
