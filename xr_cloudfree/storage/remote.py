"""Zarr stores, zipped Zarr stores and files at URLs, opened for reading."""

from __future__ import annotations

import os
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any
from zipfile import BadZipFile

import fsspec
from zarr.errors import NodeNotFoundError
from zarr.storage import FsspecStore

from xr_cloudfree.errors import CloudfreeError, InputError, MissingDependencyError, OptionError
from xr_cloudfree.storage.locations import name_of, without_secrets
from xr_cloudfree.storage.objects import SCHEMES, client

if TYPE_CHECKING:
    from zarr.abc.buffer import Buffer, BufferPrototype
    from zarr.abc.store import ByteRequest, Store

# Packages that fsspec needs, by scheme.
_PACKAGES = {"http": "aiohttp", "https": "aiohttp", "s3": "s3fs", "s3a": "s3fs", "gs": "gcsfs", "gcs": "gcsfs"}
_PACKAGES |= dict.fromkeys(("az", "abfs", "abfss", "adl"), "adlfs")
# HTTP status codes.
_FORBIDDEN, _ABSENT = (401, 403, 407), (404, 410)


class RemoteStore(FsspecStore):
    """A read-only Zarr store at a URL. A server that refuses raises `InputError`, also when chunks are read."""

    # The process in whose memory the store is. In another one all chunks would be missing, and read as nodata.
    process: int | None = None

    async def get(self, key: str, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return the bytes of a key; None if the server has none."""
        if self.process not in (None, os.getpid()):
            raise other_process_error(f"memory:/{self.path}")
        try:
            return await super().get(key, prototype, byte_range)
        except Exception as error:  # the packages that read URLs have their own errors
            raise read_error(f"{self.path.rstrip('/')}/{key}", error) from error


def store_at(url: str) -> Store:
    """Open a Zarr store at a URL.

    Parameters
    ----------
    url : str
        URL with a scheme that fsspec knows, or that obstore knows if the package for fsspec is missing. A name that
        ends with ``.zip`` is a zipped store.

    Raises
    ------
    OptionError
        If the scheme is unknown, or there is nothing at the URL.
    MissingDependencyError
        If the package that reads it is not installed.
    InputError
        If the server cannot be reached, or refuses.
    """
    zipped = is_zip(url)
    try:
        store = RemoteStore.from_url(
            _zip_chain(url) if zipped else url,
            # Cached instances keep the table of contents, which may be that of an older file.
            storage_options={"skip_instance_cache": True} if zipped else None,
            read_only=True,
        )
    except CloudfreeError:
        raise
    except ImportError as error:
        if find_spec("obstore") is not None and not zipped:
            return _by_obstore(url)
        raise _lacking(url, error) from error
    except Exception as error:
        raise read_error(url, error) from error
    assert isinstance(store, RemoteStore)
    if "memory://" in url:
        store.process = os.getpid()
    return store


def file_at(url: str) -> Any:
    """Open a file at a URL; its parts are read on demand.

    Raises
    ------
    OptionError, MissingDependencyError, InputError
        See `store_at`.
    """
    try:
        return fsspec.open(url, "rb").open()
    except ImportError as error:
        raise _lacking(url, error) from error
    except Exception as error:
        raise read_error(url, error) from error


def is_zip(where: str) -> bool:
    """Return whether a path or a URL names a zipped store."""
    return name_of(where).lower().endswith(".zip")


def zipped_folder(where: str) -> str:
    """Return the folder inside a zip file that is a Zarr store: "" if its files were zipped without the folder.

    Parameters
    ----------
    where : str
        Path or URL of the zip file.

    Raises
    ------
    OptionError
        If there is none.
    BadZipFile
        If it is not a zip file.
    """
    files, _ = fsspec.url_to_fs(f"zip::{where}", skip_instance_cache=True)
    for name in ("", *sorted(files.ls("", detail=False))):
        if any(files.exists(f"{name}/{kind}".lstrip("/")) for kind in ("zarr.json", ".zgroup", ".zmetadata")):
            return str(name)
    raise OptionError(f"{where} holds no Zarr store", "a zipped Zarr store", "the path of one, such as cube.zarr.zip")


def _zip_chain(url: str) -> str:
    """Return the chained URL of fsspec for a zipped store, with the folder inside."""
    if url.startswith("zip://") and not url.startswith("zip://::"):
        return url
    file = url.removeprefix("zip://::").removeprefix("zip::")
    try:
        folder = zipped_folder(file)
    except ValueError as error:
        if "range requests" not in str(error):
            raise
        # The server does not support range requests: download the whole file into a temporary folder.
        file = f"simplecache::{file}"
        folder = zipped_folder(file)
    return f"zip://{folder}::{file}"


def read_error(url: str, error: Exception) -> CloudfreeError:
    """Return the error of this package for an error of reading a URL."""
    url = without_secrets(url)
    first: BaseException = error
    while first.__cause__ is not None:  # "not found" may hide any other error
        first = first.__cause__
    status = getattr(first, "status", None)
    if status in _ABSENT or isinstance(first, FileNotFoundError | NodeNotFoundError):
        return not_found_error(url)
    if isinstance(first, BadZipFile) or (is_zip(url) and isinstance(first, ValueError)):
        return OptionError(
            f"{url} is not a zip file: {first}", "a zipped Zarr store", "the path of one, such as cube.zarr.zip"
        )
    if isinstance(first, ValueError) and "rotocol not known" in str(first):
        return OptionError(
            f"the scheme of {url} is unknown",
            "http, https, s3, gs, az, abfs or memory",
            "https://host/cube.zarr",
        )
    reason = f"{type(first).__name__}: {(str(first).strip() or 'no details').splitlines()[0]}"
    if status in _FORBIDDEN or isinstance(first, PermissionError) or "Credential" in type(first).__name__:
        scheme = url.rsplit("::", 1)[-1].split(":", 1)[0].lower()
        return InputError(
            f"{url} may not be read ({reason})",
            "permission to read it, or a public cube",
            f"FSSPEC_{scheme.upper()}_ANON=true in the environment, for a public bucket; else its credentials there"
            if scheme in ("s3", "gs", "gcs", "az", "abfs")
            else f"curl -fI {url}, which must answer 200",
        )
    return InputError(
        f"{url} cannot be read ({reason})",
        "a server that answers",
        f"curl -fI {url}, which must answer 200; then the same call again",
    )


def other_process_error(path: str) -> InputError:
    """Return the error for a store in the memory of another process."""
    return InputError(
        f"{path} is in the memory of another process (memory://)",
        "a cube that all processes can read",
        "cube.to_zarr('cube.zarr') in the process that has it, and then 'cube.zarr'",
    )


def in_memory(store: Any) -> bool:
    """Return whether a store of fsspec is in the memory of a process."""
    files = getattr(store, "fs", None)
    protocol = getattr(getattr(files, "sync_fs", files), "protocol", ())
    return "memory" in ([protocol] if isinstance(protocol, str) else protocol)


def not_found_error(url: str) -> OptionError:
    """Return the error for a URL at which there is nothing."""
    url = without_secrets(url)
    return OptionError(
        f"there is nothing at {url}", "a Zarr store, or a .nc file", "the URL of the folder that contains zarr.json"
    )


def _lacking(url: str, error: ImportError) -> MissingDependencyError:
    url = without_secrets(url)
    scheme = url.rsplit("::", 1)[-1].split(":", 1)[0].lower()
    package = _PACKAGES.get(scheme)
    return MissingDependencyError(
        f"{url} cannot be read: {error}",
        f"{package or 'the package'}, which reads {scheme}://",
        f"pip install {package}" if package else 'pip install "xr-cloudfree[remote]"',
    )


def _by_obstore(url: str) -> Store:
    from obstore.store import from_url
    from zarr.storage import ObjectStore

    try:
        if url.split(":", 1)[0].lower() in SCHEMES:
            return ObjectStore(client(url, os.getpid()), read_only=True)
        options = {"client_options": {"allow_http": True}} if url.startswith("http://") else {}
        return ObjectStore(from_url(url, **options), read_only=True)
    except Exception as error:
        raise read_error(url, error) from error
