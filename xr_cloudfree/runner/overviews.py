"""Overviews of a finished store: its image at half the resolution, at a quarter, and so on, as groups of the store.

They follow the Zarr convention ``multiscales`` in its layout of arrays, see `xr_cloudfree.storage.geozarr`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree import io
from xr_cloudfree.compat import memory_contents
from xr_cloudfree.cube.scaling import Scaling, encode
from xr_cloudfree.engine.grid import Box, TileGrid
from xr_cloudfree.errors import OutputError, StoreError
from xr_cloudfree.runner import pyramids
from xr_cloudfree.runner.failures import how_to_resume
from xr_cloudfree.runner.journal import FINISHED, Journal, in_threads
from xr_cloudfree.runner.runs import layout_of
from xr_cloudfree.runner.store import MOST_CHUNK, ROOT, encode_stored, sha256
from xr_cloudfree.storage.geozarr import CONVENTIONS, MULTISCALES

# Rows and columns of a shard; the last level is no larger than a chunk.
_SHARD = 2 * MOST_CHUNK
_THREADS = 4


@dataclass(frozen=True)
class _Array:
    """An array of the image: its name, dtype, nodata value, method, and its shape without rows and columns."""

    name: str
    dtype: np.dtype[Any]
    nodata: float | None
    method: str
    lead: tuple[int, ...]
    dated: bool


@dataclass(frozen=True)
class _Level:
    """A level: its factor, and its rows and columns."""

    factor: int
    shape: tuple[int, int]

    @property
    def group(self) -> str:
        return f"{pyramids.PREFIX}{self.factor}x"

    @property
    def shard(self) -> int:
        return _SHARD if max(self.shape) > MOST_CHUNK else MOST_CHUNK


def add_overviews(store: str | os.PathLike[str]) -> tuple[int, ...]:
    """Add overviews to a finished store: the image at half the resolution, and so on, until it has at most 512 pixels.

    A level is made from the one before, 2 by 2 pixels at a time: of bands the average of the valid pixels, of layers
    the first pixel. Memory does not grow with the image. If the call ends early, the same call continues it; readers
    see the overviews once all are done. `verify` and `repair` include them, the store's digest does not.

    Parameters
    ----------
    store : path or URL
        A finished store of `to_zarr` or `batch`.

    Returns
    -------
    tuple of int
        The factors of the levels, as 2, 4, 8; empty if the image is small enough. The groups ``ovr_2x``, ``ovr_4x``
        and so on are images like the store: ``xarray.open_zarr(store, group="ovr_2x")``.

    Raises
    ------
    StoreError
        If the store is not finished, or its metadata are damaged.
    OutputError
        If its pixels are not evenly spaced, or it cannot be written.
    LockedError
        If the store is being filled.

    Examples
    --------
    >>> import tempfile, xr_cloudfree
    >>> from xr_cloudfree import synthetic
    >>> folder = tempfile.TemporaryDirectory()
    >>> cube = synthetic.cube(shape=(12, 4, 1100, 600), seed=1)
    >>> filled = cube.cloudfree.to_zarr(f"{folder.name}/july.zarr", "2023-07-01", model="median")
    >>> xr_cloudfree.add_overviews(f"{folder.name}/july.zarr")
    (2, 4)
    >>> import xarray as xr
    >>> dict(xr.open_zarr(f"{folder.name}/july.zarr", group="ovr_4x").sizes)
    {'band': 4, 'y': 275, 'x': 150}
    >>> folder.cleanup()
    """
    journal = Journal(store)
    with journal.lock():
        begun, finished = journal.needed(), journal.read(FINISHED)
        if finished is None:
            raise StoreError(
                f"{journal.store.location} is not finished",
                "a finished store, to add overviews to it",
                how_to_resume(journal.store.location, begun["call"] is not None),
            )
        files = _files(journal, begun)
        levels = _levels(layout_of(begun).shape)
        if not levels:
            return ()
        arrays = _arrays(journal, begun, files)
        made, root = _metadata(files, levels, arrays)
        record = {
            "run": begun["run"],
            "digest": finished["digest"],
            "factors": [level.factor for level in levels],
            "files": {key: sha256(data) for key, data in made.items()},
            "root": sha256(root),
        }
        pyramids.begin(journal, record, files[ROOT])
        for key, data in made.items():
            if journal.store.read(key) != data:
                journal.store.write(key, data)
        for level in levels:
            _make(journal, level, arrays, made)
        if journal.store.read(ROOT) != root:
            journal.store.write(ROOT, root)
        return tuple(record["factors"])


def _levels(shape: tuple[int, int]) -> list[_Level]:
    levels: list[_Level] = []
    factor = 1
    while max(shape) > MOST_CHUNK:
        factor, shape = 2 * factor, (-(-shape[0] // 2), -(-shape[1] // 2))
        levels.append(_Level(factor, shape))
    return levels


def _files(journal: Journal, begun: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the metadata and coordinates of a store, without overviews, as they were written."""
    expected = dict(begun["files"]) | {ROOT: begun["consolidated"]}
    files = {}
    for key, digest in expected.items():
        data = journal.store.read(key)
        if key == ROOT and (data is None or sha256(data) != digest):
            data = pyramids.plain_root(journal) or data
        if data is None or sha256(data) != digest:
            raise StoreError(
                f"{key} of {journal.store.location} is missing or was changed",
                "a store as it was written",
                "xr_cloudfree.repair(store), or in a shell: cloudfree repair",
            )
        files[key] = data
    return files


def _arrays(journal: Journal, begun: Mapping[str, Any], files: Mapping[str, bytes]) -> list[_Array]:
    opened = io.open_store(journal.store.location, mask_and_scale=False, decode_times=False)
    arrays = []
    for name, _ in begun["layout"]["arrays"]:
        head = json.loads(files[f"{name}/{ROOT}"])
        attrs = opened[name].attrs
        nodata = next((attrs[key] for key in ("_FillValue", "missing_value", "nodata") if key in attrs), None)
        arrays.append(
            _Array(
                name,
                opened[name].dtype,
                None if nodata is None or nodata != nodata else float(nodata),
                "average" if "cloudfree_model" in attrs else "nearest",
                tuple(head["shape"][:-2]),
                not begun["scalar"],
            )
        )
    return arrays


def _metadata(files: Mapping[str, bytes], levels: list[_Level], arrays: list[_Array]) -> tuple[dict[str, bytes], bytes]:
    """Return the metadata and coordinates of the levels, and the metadata of the root that show them."""
    import zarr
    from zarr.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    root = json.loads(files[ROOT])
    attrs = root["attributes"]
    if "spatial:transform" not in attrs:
        raise OutputError(
            "the coordinates of the store are not evenly spaced along y and x, or missing",
            "a regular grid, for overviews",
            "cube.assign_coords(y=..., x=...) before it is filled",
        )
    made: dict[str, bytes] = {}
    for level in levels:
        made |= {f"{level.group}/{key}": data for key, data in _level_files(files, level, arrays, attrs).items()}
    layout = [entry for array in arrays for entry in _entries(array, levels, attrs)]
    root["attributes"] = {
        **attrs,
        CONVENTIONS: [*attrs[CONVENTIONS], MULTISCALES],
        "multiscales": {"layout": layout},
    }
    root.pop("consolidated_metadata", None)
    everything = {**files, **made, ROOT: _json(root)}
    buffer = default_buffer_prototype().buffer
    store = MemoryStore({key: buffer.from_bytes(data) for key, data in everything.items()})
    with io.consolidating():
        zarr.consolidate_metadata(store)
    return made, memory_contents(store)[ROOT]


def _level_files(
    files: Mapping[str, bytes], level: _Level, arrays: list[_Array], attrs: Mapping[str, Any]
) -> dict[str, bytes]:
    """Return the files of a level except for its shards: like those of the store, with another grid."""
    names = [array.name for array in arrays]
    axes = dict(zip(attrs["spatial:dimensions"], level.shape, strict=True))
    transform = _transform(attrs, level.factor)
    made = {}
    for key, data in files.items():
        folder = key.partition("/")[0]
        if folder in axes or (folder in names and not key.endswith(ROOT)):
            continue
        if key.endswith(ROOT):
            data = _json(_changed(json.loads(data), level, transform, folder in names))
        made[key] = data
    group = json.loads(files[ROOT])
    group.pop("consolidated_metadata", None)
    group["attributes"] = {**attrs, **_grid(attrs, level)}
    made[ROOT] = _json(group)
    for (name, size), (first, step) in zip(
        axes.items(), ((transform[5], transform[4]), (transform[2], transform[0])), strict=True
    ):
        described = json.loads(files[f"{name}/{ROOT}"])["attributes"]
        made |= _axis(name, first + step * (np.arange(size) + 0.5), described)
    return made


def _changed(head: dict[str, Any], level: _Level, transform: list[float], is_image: bool) -> dict[str, Any]:
    """Return the metadata of an array at a level."""
    if is_image:
        head["shape"][-2:] = level.shape
        head["chunk_grid"]["configuration"]["chunk_shape"][-2:] = [level.shard] * 2
        head["codecs"][0]["configuration"]["chunk_shape"][-2:] = [MOST_CHUNK] * 2
    elif "GeoTransform" in head.get("attributes", {}):  # which rioxarray prefers to coordinates
        a, b, c, d, e, f = transform
        head["attributes"]["GeoTransform"] = " ".join(map(repr, (c, a, b, f, d, e)))
    return head


def _axis(name: str, values: NDArray[Any], attrs: Mapping[str, Any]) -> dict[str, bytes]:
    """Return the files of a coordinate."""
    import zarr
    from zarr.storage import MemoryStore

    store = MemoryStore()
    kept = {key: value for key, value in attrs.items() if key not in ("_FillValue", "scale_factor", "add_offset")}
    array = zarr.create_array(
        store, name=name, shape=values.shape, dtype="float64", dimension_names=(name,), attributes=kept
    )
    array[:] = values
    return {key: data for key, data in memory_contents(store).items() if key.startswith(f"{name}/")}


def _transform(attrs: Mapping[str, Any], factor: int) -> list[float]:
    a, b, c, d, e, f = attrs["spatial:transform"]
    return [a * factor, b, c, d, e * factor, f]


def _grid(attrs: Mapping[str, Any], level: _Level) -> dict[str, Any]:
    """Return the attributes of ``spatial:`` at a level: the last pixels may reach beyond the image."""
    a, _, c, _, e, f = transform = _transform(attrs, level.factor)
    rows, columns = level.shape
    x, y = sorted((c, c + columns * a)), sorted((f, f + rows * e))
    return {
        "spatial:transform": transform,
        "spatial:shape": [rows, columns],
        "spatial:bbox": [x[0], y[0], x[1], y[1]],
    }


def _entries(array: _Array, levels: list[_Level], attrs: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield the entries of an array in the layout: itself, and then its levels, each made from the one before."""
    n = len(array.lead)
    yield {
        "asset": array.name,
        "transform": {"scale": [1.0] * (n + 2), "translation": [0.0] * (n + 2)},
        "spatial:shape": attrs["spatial:shape"],
        "spatial:transform": attrs["spatial:transform"],
    }
    before = array.name
    for level in levels:
        grid = _grid(attrs, level)
        yield {
            "asset": f"{level.group}/{array.name}",
            "derived_from": before,
            "transform": {"scale": [1.0] * n + [2.0, 2.0], "translation": [0.0] * (n + 2)},
            "resampling_method": array.method,
            "spatial:shape": grid["spatial:shape"],
            "spatial:transform": grid["spatial:transform"],
        }
        before = f"{level.group}/{array.name}"


def _make(journal: Journal, level: _Level, arrays: list[_Array], made: Mapping[str, bytes]) -> None:
    """Write the shards of a level that are missing."""
    import zarr

    source, folder = io.zarr_store(journal.store.location)
    above = f"{pyramids.PREFIX}{level.factor // 2}x/" if level.factor > 2 else ""
    opened = {
        array.name: zarr.open_array(source, path=f"{folder}/{above}{array.name}".strip("/"), mode="r")
        for array in arrays
    }
    boxes = list(TileGrid(level.shape, (level.shard, level.shard)).blocks())
    have = pyramids.done(journal, level.factor)

    def make(index: int) -> None:
        files, size = {}, 0
        for array in arrays:
            head = made[f"{level.group}/{array.name}/{ROOT}"]
            values = _reduced(opened[array.name], array, boxes[index])
            for key, data in encode_stored(array.name, head, boxes[index].slices, values):
                journal.store.write(f"{level.group}/{key}", data)
                files[f"{level.group}/{key}"], size = sha256(data), size + len(data)
        pyramids.mark(journal, level.factor, index, files, size)

    for _ in in_threads(min(_THREADS, journal.store.at_once), make, [i for i in range(len(boxes)) if i not in have]):
        pass


def _reduced(source: Any, array: _Array, box: Box) -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
    """Yield the values of an array in a box of a level, date by date, with the index of the date."""
    ny, nx = source.shape[-2:]
    window = np.s_[2 * box.y0 : min(2 * box.y1, ny), 2 * box.x0 : min(2 * box.x1, nx)]
    rest = array.lead[1:] if array.dated else array.lead
    for which in np.ndindex(array.lead[:1] if array.dated else ()):
        values = np.empty((*rest, *box.shape), array.dtype)
        for plane in np.ndindex(rest):
            values[plane] = halved(source[(*which, *plane, *window)], array.nodata, array.method)
        yield which, values


def halved(values: NDArray[Any], nodata: float | None, method: str) -> NDArray[Any]:
    """Return an image at half its resolution; the last row and column of an odd number are pixels of their own.

    Parameters
    ----------
    values : ndarray, shape (y, x)
        Stored values.
    nodata : float or None
        Stored value of pixels that are not valid; NaN never is.
    method : {"average", "nearest"}
        The average of the valid pixels of 2 by 2, rounded half to even, or the first of them.

    Returns
    -------
    ndarray, shape (ceil(y / 2), ceil(x / 2))
        Of the same dtype; nodata, or NaN if that is None, where no pixel is valid.

    Examples
    --------
    >>> halved(np.array([[1, 3, 5], [0, 5, 0]], np.uint16), 0, "average")
    array([[3, 5]], dtype=uint16)
    """
    if method == "nearest":
        return values[::2, ::2]
    rows, columns = values.shape
    wide = np.zeros((rows + rows % 2, columns + columns % 2))
    valid = np.zeros(wide.shape, bool)
    inside = valid[:rows, :columns]
    inside[...] = True if nodata is None else values != values.dtype.type(nodata)
    if values.dtype.kind == "f":
        inside &= np.isfinite(values)
    np.copyto(wide[:rows, :columns], values, where=inside)
    corners = [np.s_[i::2, j::2] for i in (0, 1) for j in (0, 1)]
    total, count = sum(wide[c] for c in corners), sum(valid[c].astype(np.uint8) for c in corners)
    mean = total / np.maximum(count, 1)
    out = encode(mean, values.dtype, Scaling(1.0, nodata=nodata))
    empty = np.asarray(count) == 0
    if empty.any():
        out[empty] = np.nan if nodata is None else nodata
    return out


def _json(content: Mapping[str, Any]) -> bytes:
    return json.dumps(content, indent=2).encode()
