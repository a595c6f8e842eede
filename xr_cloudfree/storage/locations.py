"""Where cubes lie and where outputs go: paths of this machine, and URLs."""

from __future__ import annotations

import os
import re
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

from xr_cloudfree.errors import OutputError

# Two letters at least: C:\cube.zarr is a path, and so is a:b.zarr, which lacks the slashes.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
# Several parts, each read through the one before it, as fsspec has them: zip::http://host/cube.zarr.zip
_CHAIN = re.compile(r"(zip|simplecache|filecache|blockcache)(://[^:]*)?::")
# pathlib makes one slash of two.
_FOLDED = re.compile(r"(https?|s3a?|gc?s|az|abfss?|memory|file|ftp|hf|zip):[/\\](?=[^/\\])")

# How a folder, or a file, is copied to where such a URL leads.
_COPY = {
    "s3": "aws s3 cp{folder} {name} {url}",
    "gs": "gcloud storage cp{folder} {name} {url}",
}
_COPY |= {"s3a": _COPY["s3"], "gcs": _COPY["gs"]}


def is_url(where: str | os.PathLike[str]) -> bool:
    """Whether a text is a URL, and no path of this machine.

    Examples
    --------
    >>> is_url("https://host/cube.zarr"), is_url("zip::s3://bucket/cube.zarr.zip")
    (True, True)
    >>> is_url("cube.zarr"), is_url("a:b.zarr"), is_url("file:///data/cube.zarr")
    (False, False, False)
    """
    return isinstance(place(where), str)


def place(where: str | os.PathLike[str]) -> Path | str:
    """A path of this machine as a Path; a URL as text.

    Examples
    --------
    >>> place("s3://bucket/cube.zarr"), place(Path("s3://bucket/cube.zarr"))
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


def lasting(where: str | os.PathLike[str]) -> str:
    """The same as a text that leads there from any folder: a whole path, or the URL."""
    found = place(where)
    return found if isinstance(found, str) else str(found.absolute())


def name_of(url: str) -> str:
    """The last name in a URL.

    Examples
    --------
    >>> name_of("https://host/data/cube.nc?version=3"), name_of("zip::s3://bucket/cube.zarr.zip/")
    ('cube.nc', 'cube.zarr.zip')
    """
    return re.split(r"[?#]", url.rsplit("::", 1)[-1])[0].rstrip("/").rsplit("/", 1)[-1]


def local(where: str | os.PathLike[str], option: str = "out") -> Path:
    """Where an output goes.

    Parameters
    ----------
    where : str or path
        A path, or a URL of the scheme ``file``.
    option : str
        What names it, for the message.

    Raises
    ------
    OutputError
        If it is a URL: outputs are written piece by piece and put in place when they are whole, on a file system.
    """
    found = place(where)
    if isinstance(found, Path):
        return found
    name, scheme = name_of(found) or "out.zarr", found.split(":", 1)[0].lower()
    folder = Path(name).suffix not in (".tif", ".tiff", ".csv", ".png")
    usual = "python -c \"import fsspec; fs, path = fsspec.url_to_fs('{url}'); fs.put('{name}', path, recursive=True)\""
    copy = _COPY.get(scheme, usual).format(name=name, url=found, folder=" --recursive" if folder else "")
    raise OutputError(
        f"the output is at a URL, {found}",
        "a path on this machine, from which it can be copied",
        f"{option}='{name}', then: {copy}",
    )
