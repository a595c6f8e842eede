"""The store of a run: Zarr format 3 with one shard of each array per region and date.

Shards are encoded in memory and written as whole files: they can be hashed without being read back, a file either
exists or not, and no two writers share one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree import io
from xr_cloudfree.compat import memory_contents, write_empty_chunks
from xr_cloudfree.engine.grid import Box
from xr_cloudfree.errors import StoreError
from xr_cloudfree.labels import Part, label, parts
from xr_cloudfree.plan import FillPlan
from xr_cloudfree.storage.folders import Folder

ROOT = "zarr.json"
# Largest edge of a chunk in pixels: a reader of a few pixels has to decode a whole chunk.
MOST_CHUNK = 512


@dataclass(frozen=True)
class Layout:
    """The files of each region's shards.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the cube.
    shard : tuple of int
        Rows and columns of a shard, and so of a region.
    arrays : tuple of (str, tuple of int)
        Names of the arrays, and their numbers of shards along the axes before rows and columns.

    Examples
    --------
    >>> layout = Layout((300, 500), (256, 256), (("red", (2,)),))
    >>> layout.n_regions, layout.box(3)
    (4, Box(y0=256, y1=300, x0=256, x1=500))
    >>> layout.keys(3)
    ['red/c/0/1/1', 'red/c/1/1/1']
    """

    shape: tuple[int, int]
    shard: tuple[int, int]
    arrays: tuple[tuple[str, tuple[int, ...]], ...]

    @property
    def grid(self) -> tuple[int, int]:
        """Regions along rows and columns."""
        (ny, nx), (sy, sx) = self.shape, self.shard
        return -(-ny // sy), -(-nx // sx)

    @property
    def n_regions(self) -> int:
        """Number of regions."""
        rows, columns = self.grid
        return rows * columns

    def position(self, index: int) -> tuple[int, int]:
        """Return the row and column of a region in the grid of regions."""
        if not 0 <= index < self.n_regions:
            raise StoreError(
                f"there is no region {index}",
                f"a number from 0 to {self.n_regions - 1}",
                "a number below RunPlan.n_regions",
            )
        row, column = divmod(index, self.grid[1])
        return row, column

    def box(self, index: int) -> Box:
        """The pixels of a region."""
        row, column = self.position(index)
        (ny, nx), (sy, sx) = self.shape, self.shard
        return Box(row * sy, min((row + 1) * sy, ny), column * sx, min((column + 1) * sx, nx))

    def index(self, box: Box) -> int:
        """Return the region that a box covers.

        Raises
        ------
        StoreError
            If it is not exactly one region: only whole shards are written, or two writers could undo each other's work.
        """
        (sy, sx), columns = self.shard, self.grid[1]
        index = (box.y0 // sy) * columns + box.x0 // sx
        if not 0 <= index < self.n_regions or self.box(index) != box:
            raise StoreError(
                f"rows {box.y0} to {box.y1} and columns {box.x0} to {box.x1} are not a whole shard",
                f"a region: edges at multiples of {sy} rows and {sx} columns, or at the end of the cube",
                "RunPlan.box(index)",
            )
        return index

    def keys(self, index: int) -> list[str]:
        """Return the keys of a region's shards, in a fixed order."""
        row, column = self.position(index)
        return [
            "/".join([name, "c", *map(str, leading), str(row), str(column)])
            for name, counts in self.arrays
            for leading in np.ndindex(*counts)
        ]


@dataclass(frozen=True, eq=False)
class Skeleton:
    """All files of a store except its shards, in memory; the same plan gives the same bytes.

    Parameters
    ----------
    files : mapping
        Metadata and coordinates: bytes by key.
    consolidated : bytes
        The group's metadata once all regions are done.
    """

    files: Mapping[str, bytes]
    consolidated: bytes

    @property
    def finished(self) -> dict[str, bytes]:
        """The files as they are in a finished store."""
        return {**self.files, ROOT: self.consolidated}


def make_skeleton(plan: FillPlan, shard: tuple[int, int]) -> Skeleton:
    """Build the metadata and coordinates of the store that a fill is written to.

    Parameters
    ----------
    plan : FillPlan
        The fill.
    shard : tuple of int
        Rows and columns of a shard.
    """
    import dask.array as da
    import zarr
    from zarr.codecs import BloscCodec, Crc32cCodec
    from zarr.storage import MemoryStore

    job = plan.job

    def placeholder(dims: Sequence[str], dtype: np.dtype[Any]) -> Any:
        shape = job.lead + tuple(job.sizes[d] for d in dims[:-2]) + job.grid.shape
        return da.zeros(shape, dtype=dtype, chunks=shape)

    image = label(plan, {o.name: placeholder(o.dims, o.dtype) for o in job.outputs})
    # Coordinates may be lazy and are written here; the values follow later, shard by shard.
    image = image.assign_coords({name: c.compute() for name, c in image.coords.items() if c.chunks is not None})
    image = io.for_zarr(image)
    chunk = tuple(largest_part(edge, MOST_CHUNK) for edge in shard)
    for part in parts(plan):
        axes = dict(zip(part.dims[:-2], image[part.name].shape[:-2], strict=True))
        image[part.name].encoding = {
            **stored_encoding(part),
            "chunks": (*(1 for _ in axes), *chunk),
            # One file per date, which is encoded in memory as a whole.
            "shards": (*(1 if axis == "time" else size for axis, size in axes.items()), *shard),
            "compressors": (BloscCodec(cname="zstd", clevel=5, shuffle="bitshuffle"), Crc32cCodec()),
        }
    store = MemoryStore()
    with io.consolidating():
        image.to_zarr(
            store,
            mode="w",
            zarr_format=3,
            consolidated=False,
            compute=False,
            safe_chunks=False,
        )
        files = memory_contents(store)
        zarr.consolidate_metadata(store)
    return Skeleton(files, memory_contents(store)[ROOT])


def largest_part(edge: int, most: int) -> int:
    """Return the largest divisor of an edge that is at most `most`.

    Examples
    --------
    >>> largest_part(1024, 512), largest_part(960, 512), largest_part(250, 512)
    (512, 480, 250)
    """
    return next(edge // n for n in range(1, edge + 1) if edge % n == 0 and edge // n <= most)


def stored_encoding(part: Part) -> dict[str, Any]:
    """Return the encoding of a variable in the store."""
    if part.dtype.kind == "M":
        # The default unit depends on the values.
        return {**part.encoding, "units": "nanoseconds since 1970-01-01", "dtype": "int64"}
    return part.encoding


def encode(
    part: Part, metadata: bytes, layout: Layout, index: int, values: NDArray[Any], first: int = 0
) -> Iterator[tuple[str, bytes]]:
    """Encode the shards of one array in one region, one after another.

    Parameters
    ----------
    part : Part
        The variable.
    metadata : bytes
        The array's ``zarr.json``.
    layout : Layout
        The layout of the store.
    index : int
        The region.
    values : ndarray
        The variable's values in the region.
    first : int
        Index in the store of the first of their dates.

    Returns
    -------
    iterator of (str, bytes)
        Keys and contents.
    """
    dated = part.dims[0] == "time"

    def packed() -> Iterator[tuple[tuple[int, ...], NDArray[Any]]]:
        for which in np.ndindex(values.shape[:1] if dated else ()):
            variable = xr.Variable(part.dims[dated:], values[which], None, stored_encoding(part))
            stored = xr.conventions.encode_cf_variable(variable, name=part.name).values
            yield tuple(i + first for i in which), stored

    return encode_stored(part.name, metadata, layout.box(index).slices, packed())


def encode_stored(
    name: str,
    metadata: bytes,
    slices: tuple[slice, slice],
    values: Iterable[tuple[tuple[int, ...], NDArray[Any]]],
) -> Iterator[tuple[str, bytes]]:
    """Encode stored values as shards, one date after another.

    Parameters
    ----------
    name : str
        Name of the array.
    metadata : bytes
        Its ``zarr.json``.
    slices : tuple of slice
        Rows and columns of whole shards.
    values : iterable of (tuple of int, ndarray)
        The index of each date, empty without an axis of dates, and its stored values.

    Yields
    ------
    (str, bytes)
        Key and content.
    """
    import zarr
    from zarr.buffer import default_buffer_prototype
    from zarr.storage import MemoryStore

    head = f"{name}/{ROOT}"
    files: dict[str, Any] = {head: default_buffer_prototype().buffer.from_bytes(metadata)}
    store = MemoryStore(files)
    # A missing chunk reads as zeros: a lost one is found only if all are written.
    array = write_empty_chunks(zarr.open_array(store, path=name, mode="r+", zarr_format=3))
    for which, stored in values:
        array[(*which, Ellipsis, *slices)] = stored
        for key in [key for key in files if key != head]:
            yield key, files.pop(key).to_bytes()


def sizes(store: Folder, layout: Layout) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Count the files of each region in a store, and their total size.

    The folders are listed; no file is read.

    Parameters
    ----------
    store : Folder
        The store; it may be missing.
    layout : Layout
        Its layout.

    Returns
    -------
    number, size : ndarray of int, shape (region,)
        Number of files, and their total size in bytes.
    """
    rows, columns = layout.grid
    number, size = np.zeros(rows * columns, np.int64), np.zeros(rows * columns, np.int64)
    for name, counts in layout.arrays:
        limits = (*counts, rows, columns)
        for key, length in store.list(f"{name}/c"):
            position = key.split("/")[2:]
            if len(position) == len(limits) and all(
                part.isdecimal() and int(part) < limit for part, limit in zip(position, limits, strict=True)
            ):
                index = int(position[-2]) * columns + int(position[-1])
                number[index] += 1
                size[index] += length
    return number, size


def sha256(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def digest_of(files: Mapping[str, str]) -> str:
    """Return one digest for several files, from their digests by key."""
    return sha256("".join(f"{key} {files[key]}\n" for key in sorted(files)).encode())
