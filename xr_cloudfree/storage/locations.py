"""Locations of cubes and outputs: local paths and URLs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from xr_cloudfree.errors import OutputError
from xr_cloudfree.errors import option as typed_option

# Two letters at least: C:\cube.zarr is a path. So is a:b.zarr, which has no slashes.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Chained URLs of fsspec, each part read through the one before it: zip::http://host/cube.zarr.zip
_CHAIN = re.compile(r"(zip|simplecache|filecache|blockcache)(://[^:]*)?::")
# pathlib turns two slashes into one.
_FOLDED = re.compile(r"(https?|s3a?|gc?s|az|abfss?|memory|file|ftp|hf|zip):[/\\](?=[^/\\])")

# What the name of a run's journal adds to that of its store.
JOURNAL = ".journal"
# Commands that copy a file or a folder to a URL, by scheme.
_COPY = {
    "s3": "aws s3 cp{folder} {name} {url}",
    "gs": "gcloud storage cp{folder} {name} {url}",
}
_COPY |= {"s3a": _COPY["s3"], "gcs": _COPY["gs"]}


def is_url(where: str | os.PathLike[str]) -> bool:
    """Return whether a location is a URL and not a local path.

    Examples
    --------
    >>> is_url("https://host/cube.zarr"), is_url("zip::s3://bucket/cube.zarr.zip")
    (True, True)
    >>> is_url("cube.zarr"), is_url("a:b.zarr"), is_url("file:///data/cube.zarr")
    (False, False, False)
    """
    return isinstance(parse_location(where), str)


def parse_location(where: str | os.PathLike[str]) -> Path | str:
    """Return a local path as a Path, a URL as text.

    Examples
    --------
    >>> parse_location("s3://bucket/cube.zarr"), parse_location(Path("s3://bucket/cube.zarr"))
    ('s3://bucket/cube.zarr', 's3://bucket/cube.zarr')
    """
    text = os.fspath(where)
    if not isinstance(where, str) and (folded := _FOLDED.match(text)) and not os.path.exists(folded[0]):
        text = f"{folded[1]}://{text[folded.end() :]}"
        text = text.replace("file://", "file:///", 1)
    if text.startswith("file://"):
        return Path(url2pathname(urlsplit(text).path))
    if _URL.match(text) or (_CHAIN.match(text) and not os.path.exists(text)):
        return text
    return Path(text)


def absolute(where: str | os.PathLike[str]) -> str:
    """Return a location as text that is valid in any folder: an absolute path, or the URL."""
    location = parse_location(where)
    return location if isinstance(location, str) else str(location.absolute())


def journal_folder(store: Path) -> Path:
    """Return the folder beside a store in which the run that fills it keeps its journal."""
    return store.with_name(f"{store.name}{JOURNAL}")


def name_of(url: str) -> str:
    """Return the last name in a URL.

    Examples
    --------
    >>> name_of("https://host/data/cube.nc?version=3"), name_of("zip::s3://bucket/cube.zarr.zip/")
    ('cube.nc', 'cube.zarr.zip')
    """
    return re.split(r"[?#]", url.rsplit("::", 1)[-1])[0].rstrip("/").rsplit("/", 1)[-1]


def without_secrets(url: str) -> str:
    """Return a URL without its password and its query, either of which may give access to what it names.

    Examples
    --------
    >>> without_secrets("https://me:secret@host/cube.nc?sig=abc"), without_secrets("s3://bucket/cube.zarr")
    ('https://host/cube.nc?…', 's3://bucket/cube.zarr')
    """
    return re.sub(r"(?<=://)[^/@:]*:[^/@]*@", "", re.sub(r"\?[^:]*$", "?…", url))


def bucket_and_key(url: str) -> str:
    """Return a URL without its scheme and what else differs between two names of one object.

    Examples
    --------
    >>> bucket_and_key("s3a://bucket/cube.zarr/"), bucket_and_key("abfs://box@account.dfs.core.windows.net/cube.zarr")
    ('bucket/cube.zarr', 'box/cube.zarr')
    """
    parts = urlsplit(url.rsplit("::", 1)[-1])
    return f"{parts.netloc.partition('@')[0] if parts.scheme.startswith('abfs') else parts.netloc}{parts.path}".rstrip(
        "/"
    )


def local(where: str | os.PathLike[str], option: str = "out") -> Path:
    """Return the local path of an output.

    Parameters
    ----------
    where : str or path
        A path, or a URL of the scheme ``file``.
    option : str
        Name of the option, for the message.

    Raises
    ------
    OutputError
        If it is a URL: outputs are written in parts and moved into place when complete, which needs a file system.
    """
    location = parse_location(where)
    if isinstance(location, Path):
        return location
    name, scheme = name_of(location) or "out.zarr", location.split(":", 1)[0].lower()
    folder = Path(name).suffix not in (".tif", ".tiff", ".csv", ".png")
    default = (
        "python -c \"import fsspec; fs, path = fsspec.url_to_fs('{url}'); fs.put('{name}', path, recursive=True)\""
    )
    copy = _COPY.get(scheme, default).format(name=name, url=location, folder=" --recursive" if folder else "")
    raise OutputError(
        f"the output is at a URL, {location}",
        "a local path, from which it can be copied",
        typed_option(f"{option}='{name}'") + f", then: {copy}",
    )
