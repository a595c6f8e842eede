"""Folders in object stores, through the package obstore: S3 and what is compatible with it, GCS, Azure.

An object is written in one request, which either replaces it completely or not at all. Where a writer must not undo the
work of another, the request carries a condition (``If-None-Match``, ``If-Match``), and the store refuses it if the
object has changed meanwhile.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import lru_cache
from importlib.util import find_spec
from typing import Any
from urllib.parse import urlsplit

from xr_cloudfree.errors import MissingDependencyError, OutputError, either, option
from xr_cloudfree.storage.files import BEAT, STALE, has_ended, process_note
from xr_cloudfree.storage.locations import JOURNAL, name_of

# How the environment names the credentials, by scheme.
_S3, _GS = "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY", "GOOGLE_APPLICATION_CREDENTIALS"
_AZ = "AZURE_STORAGE_ACCOUNT_NAME and AZURE_STORAGE_ACCOUNT_KEY"
SCHEMES = {"s3": _S3, "s3a": _S3, "gs": _GS, "gcs": _GS, "az": _AZ, "abfs": _AZ, "abfss": _AZ}
# A request is repeated after errors of the server and of the network, after 0.1 s, 0.2 s, … at most 15 s.
RETRY: dict[str, Any] = {"max_retries": 10, "retry_timeout": timedelta(minutes=3)}
# A request fails if no byte arrives for a minute, and a whole one may take as long as a large shard on a slow line.
CLIENT: dict[str, Any] = {"connect_timeout": "20s", "read_timeout": "60s", "timeout": "10m"}
# S3 removes at most a thousand objects with one request.
_MOST_REMOVED = 1000
# Attempts to change an object that other processes change at the same time.
_ATTEMPTS = 8


@dataclass(frozen=True)
class ObjectFolder:
    """A folder in an object store: all objects whose names begin with that of the folder and a slash.

    Parameters
    ----------
    url : str
        The URL, without a slash at its end.
    """

    url: str

    @classmethod
    def at(cls, url: str, name: str) -> ObjectFolder:
        """Return the folder at a URL.

        Raises
        ------
        OutputError
            If the URL contains a password or a query, or names no folder in a bucket.
        MissingDependencyError
            If obstore is not installed.
        """
        parts = urlsplit(url)
        plain = f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}{parts.path}".rstrip("/")
        if parts.query or parts.fragment or (parts.password is not None):
            raise OutputError(
                f"the URL of the output, {plain}, comes with a query or a password",
                "credentials in the environment: they are never stored",
                either(option(f"{name}={plain!r}"), f"{SCHEMES[parts.scheme]} in the environment"),
            )
        if not parts.netloc or not name_of(url) or not parts.path.strip("/"):
            raise OutputError(
                f"{plain} names no folder in a bucket", "a bucket and a name", option(f"{name}='s3://bucket/out.zarr'")
            )
        if find_spec("obstore") is None:
            raise MissingDependencyError(
                f"obstore is not installed, which writes to {parts.scheme}://",
                "the package obstore",
                'pip install "xr-cloudfree[object-store]"',
            )
        return cls(url.rstrip("/"))

    @property
    def location(self) -> str:
        """The URL."""
        return self.url

    @property
    def at_once(self) -> int:
        """Number of objects that are best read at the same time: each request waits for the network."""
        return 16

    def journal(self) -> ObjectFolder:
        """Return the folder of the journal, beside the store."""
        return ObjectFolder(self.url + JOURNAL)

    def check(self) -> None:
        """Do nothing: a name that is an object can be a folder as well."""

    def make(self) -> None:
        """Do nothing: folders exist as soon as there is an object in them."""

    def is_empty(self) -> bool:
        """Return whether there is no object."""
        return next(self.list(), None) is None

    def exists(self, key: str) -> bool:
        """Return whether there is an object."""
        import obstore

        try:
            with self._errors(key, "read", absent=True):
                obstore.head(self._store, key)
        except FileNotFoundError:
            return False
        return True

    def read(self, key: str) -> bytes | None:
        """Return the content of an object, or None if there is none."""
        found = self._get(key)
        return None if found is None else found[0]

    def write(self, key: str, data: bytes) -> None:
        """Write or replace an object in one request."""
        with self._errors(key, "written"):
            self._put(key, data, "overwrite")

    def update(self, key: str, change: Callable[[bytes | None], bytes]) -> None:
        """Replace an object by what `change` makes of its content, if it is still that content; else try again.

        Raises
        ------
        OutputError
            If others change it all the time.
        """
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        for _ in range(_ATTEMPTS):
            found = self._get(key)
            data = change(None if found is None else found[0])
            if found is not None and data == found[0]:
                return
            try:
                with self._errors(key, "written", absent=found is not None):
                    self._put(key, data, "create" if found is None else found[1])
                return
            except (AlreadyExistsError, PreconditionError, FileNotFoundError):
                continue
        raise self._error(key, "written", "other processes change it all the time")

    def remove(self, keys: Iterable[str]) -> None:
        """Remove objects; those that do not exist are skipped."""
        import obstore

        for key in keys:
            with suppress(FileNotFoundError), self._errors(key, "removed", absent=True):
                obstore.delete(self._store, key)

    def list(self, prefix: str = "") -> Iterator[tuple[str, int]]:
        """Yield the key and the size of each object."""
        import obstore

        with self._errors(prefix, "listed"):
            for some in obstore.list(self._store, prefix or None):
                yield from ((meta["path"], meta["size"]) for meta in some)

    def clear(self, keep: str = "") -> None:
        """Remove all objects."""
        import obstore

        batch: list[str] = []
        for key, _ in self.list():
            if not (keep and key.startswith(keep)):
                batch.append(key)
            if len(batch) == _MOST_REMOVED:
                with self._errors("", "removed"):
                    obstore.delete(self._store, batch)
                batch = []
        if batch:
            with self._errors("", "removed"):
                obstore.delete(self._store, batch)

    def tidy(self) -> None:
        """Do nothing: a writer that was killed leaves nothing behind."""

    @contextmanager
    def hold(self, key: str, note: Mapping[str, Any]) -> Iterator[None]:
        """Hold a lock: an object that names its owner, who replaces it every ten seconds.

        Only who knows the present version of the object can replace it, so two processes cannot both take it. The lock
        is void if its owner has ended on this machine, or has not replaced it for three minutes by the store's clock.

        Raises
        ------
        BlockingIOError
            If another process holds it.
        OutputError
            If it cannot be written, or the store ignores conditions of requests.
        """
        owner = {**note, **process_note(), "beat": 0}
        version: dict[str, str] | None = self._take(key, owner, self._check_conditions())
        done = threading.Event()

        def beat() -> None:
            nonlocal version
            while version is not None and not done.wait(BEAT):
                owner["beat"] += 1
                with suppress(OutputError):  # the network may be back at the next beat
                    version = self._renew(key, json.dumps(owner).encode(), version, owner)

        beating = threading.Thread(target=beat, daemon=True, name="cloudfree-lock")
        beating.start()
        try:
            yield
        finally:
            done.set()
            beating.join()
            if version is not None:
                with suppress(OutputError):  # void after three minutes
                    self._renew(key, b"", version, owner)

    def holder(self, key: str) -> dict[str, Any] | None:
        """Return the note of the owner of a lock; None if nobody holds it, or has not renewed it for long."""
        found = self._get(key)
        owner = None if found is None else _parse(found[0])
        # By the clock of this machine, which may be wrong: for a note to the user only.
        if found is None or not owner or has_ended(owner) or time.time() - found[2] > 2 * STALE:
            return None
        return owner

    def _take(self, key: str, owner: Mapping[str, Any], now: float) -> dict[str, str]:
        """Return the version of the lock that was written; raise `BlockingIOError` if another process holds it."""
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        mode: Any = "create"
        for _ in range(_ATTEMPTS):
            with (
                suppress(AlreadyExistsError, PreconditionError, FileNotFoundError),
                self._errors(key, "written", absent=True),
            ):
                return self._put(key, json.dumps(dict(owner)).encode(), mode)
            found = self._get(key)
            if found is None:
                mode = "create"
                continue
            data, mode, touched = found
            holder = _parse(data)
            if holder.get("by") == owner["by"]:  # written, and the answer was lost
                return dict(mode)
            ended = has_ended(holder)
            if holder and (ended is False or (ended is None and now - touched < STALE)):
                raise BlockingIOError("another process has locked it")
        raise BlockingIOError("several processes try to lock it")

    def _renew(self, key: str, data: bytes, version: dict[str, str], owner: Mapping[str, Any]) -> dict[str, str] | None:
        """Replace the content of the lock, and return its version; None if another process has taken the lock."""
        from obstore.exceptions import PreconditionError

        try:
            with self._errors(key, "written", absent=True):
                return self._put(key, data, version)
        except (PreconditionError, FileNotFoundError):  # taken by another process; or the answer was lost before
            found = self._get(key)
            return dict(found[1]) if found is not None and _parse(found[0]).get("by") == owner["by"] else None

    def _check_conditions(self) -> float:
        """Return the time by the store's clock; raise `OutputError` if the store ignores the conditions of requests."""
        from obstore.exceptions import AlreadyExistsError, NotSupportedError, PreconditionError

        for _ in range(_ATTEMPTS):
            key = f"probe-{secrets.token_hex(8)}"
            try:
                # Refused although it should not be: the answer was lost, and the request repeated.
                with suppress(AlreadyExistsError, PreconditionError):
                    return self._probe(key)
            except (NotSupportedError, NotImplementedError) as error:
                raise self._unconditional("conditions of requests") from error
            finally:
                with suppress(OutputError):
                    self.remove([key])
        raise self._error("", "written", "it refuses requests that it should not")

    def _probe(self, key: str) -> float:
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        with self._errors(key, "written"):
            first = self._put(key, b"1", "create")
            with suppress(AlreadyExistsError, PreconditionError):
                self._put(key, b"2", "create")
                raise self._unconditional("If-None-Match")
            self._put(key, b"3", first)
            with suppress(AlreadyExistsError, PreconditionError):
                self._put(key, b"4", first)
                raise self._unconditional("If-Match")
            return float(obstore.head(self._store, key)["last_modified"].timestamp())

    def _unconditional(self, header: str) -> OutputError:
        name = name_of(self.url).removesuffix(JOURNAL)
        return OutputError(
            f"the object store of {self.url} ignores {header}: two drivers could undo each other's work",
            "an object store with conditional writes, such as S3, GCS or Azure, or a disk",
            f"store='{name}' on a disk, and then: cloudfree resume {name} --icechunk FOLDER, or copy it",
        )

    def _put(self, key: str, data: bytes, mode: Any) -> dict[str, str]:
        """Write an object in one request, and return its version."""
        import obstore

        made = obstore.put(self._store, key, data, mode=mode, use_multipart=False)
        return {name: value for name, value in made.items() if value is not None}

    def _get(self, key: str) -> tuple[bytes, dict[str, str], float] | None:
        """Return an object's content, its version and the time of its last change; None if there is none."""
        import obstore

        try:
            with self._errors(key, "read", absent=True):
                found = obstore.get(self._store, key)
                data, meta = bytes(found.bytes()), found.meta
        except FileNotFoundError:
            return None
        version = {name: meta[name] for name in ("e_tag", "version") if meta[name] is not None}
        return data, version, meta["last_modified"].timestamp()

    @property
    def _store(self) -> Any:
        return client(self.url, os.getpid())

    @contextmanager
    def _errors(self, key: str, done: str, absent: bool = False) -> Iterator[None]:
        """Turn errors of the store into `OutputError`, except for answers; with `absent` that includes "not found"."""
        from obstore import exceptions

        answers = (exceptions.AlreadyExistsError, exceptions.PreconditionError, exceptions.NotSupportedError)
        try:
            yield
        except (*answers, NotImplementedError, OutputError):
            raise
        except (exceptions.BaseError, FileNotFoundError) as error:
            if absent and isinstance(error, FileNotFoundError):
                raise
            raise self._error(key, done, _words(error)) from error

    def _error(self, key: str, done: str, reason: str) -> OutputError:
        credentials = SCHEMES[self.url.split(":", 1)[0].lower()]
        return OutputError(
            f"{self.url}/{key}".rstrip("/") + f" cannot be {done}: {reason}",
            "an object store that answers, and credentials that may read and write there",
            f"{credentials} in the environment of each process; then the same call, which continues where it stopped",
        )


def _parse(data: bytes) -> dict[str, Any]:
    """Return the content of a lock; empty if nobody holds it."""
    with suppress(ValueError, TypeError):
        return dict(json.loads(data))
    return {}


def _words(error: Exception) -> str:
    """Return the first line of an error with the server's message, without queries, which may contain signatures."""
    text = str(error).strip() or type(error).__name__
    message = re.search("<Message>(.*?)</Message>", text)
    first = re.sub(r"\?[^\s)\"']+", "", text.splitlines()[0].partition(": <")[0])
    return f"{first}: {message[1]}" if message else first


@lru_cache(maxsize=64)
def client(url: str, process: int) -> Any:
    """Return obstore's client for the objects below a URL, for one process: clients do not survive a fork.

    Credentials come from the environment, or from the machine's role; see the documentation of obstore.
    """
    from obstore.store import AzureStore, GCSStore, S3Store

    parts = urlsplit(url)
    bucket, prefix, scheme = parts.netloc, parts.path.strip("/"), parts.scheme.lower()
    options: dict[str, Any] = {"prefix": prefix, "client_options": dict(CLIENT), "retry_config": RETRY}
    if scheme in ("gs", "gcs"):
        return GCSStore(bucket, **options)
    if scheme in ("s3", "s3a"):
        endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL", "")
        if endpoint.startswith("http://"):
            options["client_options"]["allow_http"] = True
        return S3Store(bucket, **options)
    container, _, host = bucket.partition("@")  # abfs://CONTAINER@ACCOUNT.dfs.core.windows.net/PATH
    return AzureStore(container, **options, **({"account_name": host.split(".")[0]} if host else {}))
