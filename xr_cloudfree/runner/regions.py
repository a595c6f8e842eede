"""The unit of a run: a region, which is one shard of the output for each date."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr

from xr_cloudfree.engine import blocks
from xr_cloudfree.engine.blocks import Array, BlockJob, Windows
from xr_cloudfree.engine.fill import FillJob
from xr_cloudfree.engine.grid import Box, TileGrid
from xr_cloudfree.engine.parameters import KERNEL_DTYPES
from xr_cloudfree.engine.streaming import run_region
from xr_cloudfree.errors import OptionError, SizeError, StoreError, option
from xr_cloudfree.labels import Part, parts
from xr_cloudfree.layers import FILLED, NOT_FILLED, OBSERVED, PARTLY
from xr_cloudfree.models.protocol import optional
from xr_cloudfree.options import ReadOptions, parse_block
from xr_cloudfree.plan import FillPlan, open_s1, plan_fill
from xr_cloudfree.runner import windows
from xr_cloudfree.runner.journal import Journal, read_json, write_json
from xr_cloudfree.runner.store import (
    MOST_CHUNK,
    Layout,
    Skeleton,
    digest_of,
    encode,
    largest_part,
    make_skeleton,
    sha256,
    write_file,
)
from xr_cloudfree.version import __version__

# Bytes that a region's window and outputs may take; more where it lets each chunk of the input be read only once.
REGION_BYTES, MOST_BYTES = 192 * 2**20, 512 * 2**20
# Rows and columns of a region at most: beyond, shards are unwieldy and a crash costs much.
MOST_EDGE = 2048
# Pixels of a block of a model without a halo: few fit into caches, many are cheaper to start.
BLOCK_PIXELS = 2**16
# More than the world's land at ten metres.
MAX_REGIONS = 5_000_000
# What is not given back to the system at once, and buffers of chunks that are read and shards that are encoded.
LOOSE, SPARE = 32 * 2**20, 1.1
# What a pixel of a date can be, and its number in the layer "filled".
STATES = {"observed": OBSERVED, "filled": FILLED, "filled in some bands": PARTLY, "not filled": NOT_FILLED}


@dataclass(frozen=True)
class RegionReport:
    """What is told of a region that is done.

    Parameters
    ----------
    index : int
        The region.
    digest : str
        SHA-256 over its shards.
    bytes : int
        Bytes that were written.
    seconds : float
        How long it took.
    process : str
        Where: host and process.
    pixels : mapping of str to int, or None
        How many are observed, filled and not filled, over all dates; None if the layer ``filled`` is not written.
    """

    index: int
    digest: str
    bytes: int
    seconds: float
    process: str
    pixels: Mapping[str, int] | None


@dataclass(frozen=True, eq=False)
class RunPlan:
    """All that a process needs to fill any region. It pickles small where the cube lies in files.

    Parameters
    ----------
    job : FillJob
        What each block does.
    bands : tuple of Variable
        One array (time, band, y, x), or one (time, y, x) per band; lazy where the cube is.
    quality : Variable
        The quality layer, or the clear mask.
    parts : tuple of Part
        The variables of the output.
    layout : Layout
        Their shards.
    metadata : mapping
        Their ``zarr.json`` by name.
    fingerprint : mapping
        What the answer depends on, in words or as hashes.
    s1 : tuple of Variable
        Sentinel-1, in one of the forms of `bands`; empty for none.
    """

    job: FillJob
    bands: tuple[xr.Variable, ...]
    quality: xr.Variable
    parts: tuple[Part, ...]
    layout: Layout
    metadata: Mapping[str, bytes]
    fingerprint: Mapping[str, str]
    s1: tuple[xr.Variable, ...] = ()

    @property
    def n_regions(self) -> int:
        """Number of regions."""
        return self.layout.n_regions

    @property
    def identity(self) -> str:
        """The fingerprint as one short text: that of the run."""
        return digest_of({key: sha256(value.encode()) for key, value in self.fingerprint.items()})[:16]

    @property
    def largest(self) -> Box:
        """A region of which as much is read as of any."""
        rows, columns = self.layout.grid
        some = {self.layout.box(index) for index in (0, rows // 2 * columns + columns // 2)}
        return max(some, key=lambda box: (_pixels_of(self.job.windows(box)[0]), box))

    @property
    def window_bytes(self) -> int:
        """Bytes of a region's windows, as they are read."""
        job = self.job
        window, quality = map(_pixels_of, job.windows(self.largest))
        of_quality = job.reads.size * self.quality.dtype.itemsize
        return int(window * _read_bytes(job, self.bands, self.s1) + quality * of_quality)

    @property
    def memory(self) -> int:
        """Bytes that a region takes while it is filled, beside what a process holds before.

        They are those of its windows, its outputs, one block at work with the answers for its tiles, and the tiles
        that the model works on side by side; for a network with what it computes between its layers.
        """
        job, region = self.job, self.largest
        (height, width), n_bands, n_dates = job.grid.block, len(job.common_names), job.reads.size
        block = Box(region.y0, min(region.y0 + height, region.y1), region.x0, min(region.x0 + width, region.x1))
        inner, tiles = _pixels_of(job.windows(block)[0]), {tile.extent for tile in job.grid.tiles(block)}
        decoded = sum(_width(array, stored=False) for array in self.bands)
        if job.scenes is not None:
            n_dates += job.dates.size  # the scenes, and what is made of them
        copied = block != region or any(windows.stored_bytes(a) != a.dtype.itemsize for a in self.bands)
        as_kernels_take_it = 0 if job.dtype in KERNEL_DTYPES else 4 * n_bands
        # Values, two masks, and one date while it is decoded.
        work = inner * n_dates * (decoded * copied + as_kernels_take_it + 2) + inner * decoded * 2 * copied
        answer = 8 * n_bands + 3 + 4 * n_dates * ("gate" in job.layers)
        work += sum(map(_pixels_of, tiles)) * answer
        if job.grid.tile is not None:
            work += job.tiles_at_once * job.grid.tile**2 * _tile_bytes(job)
        # As filled, as a block, and one shard as it is encoded.
        return int(LOOSE + SPARE * (self.window_bytes + work + 3 * _pixels_of(region) * _output_bytes(job)))

    def box(self, index: int) -> Box:
        """The pixels of a region."""
        return self.layout.box(index)


def plan_run(
    obj: xr.DataArray | xr.Dataset,
    date: Any = None,
    reading: ReadOptions | None = None,
    *,
    shard: int | tuple[int, int] | None = None,
    block: int | tuple[int, int] | None = None,
    s1: Any = None,
    **options: Any,
) -> tuple[RunPlan, Skeleton]:
    """Settle a run: the fill, its regions, and the store without its shards. Nothing is read but coordinates.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube.
    date : str, datetime or sequence of these, optional
        The target dates.
    reading : ReadOptions, optional
        How the cube is read.
    shard : int or pair of int, optional
        Pixels along y and x of a shard. By default chosen so that a region fits into memory and reads each chunk of
        the input once.
    block : int or pair of int, optional
        Pixels along y and x of a block; has to divide `shard`.
    s1 : DataArray, Dataset, str, path or sequence of str, optional
        As in `fill`.
    **options
        The other options of `fill`.

    Raises
    ------
    SizeError
        If the cube has more regions than can be kept in mind.
    """
    reading = reading or ReadOptions()
    s1, obj = open_s1(s1, obj)
    plan = plan_fill(
        windows.from_files(obj),
        date,
        replace(reading, clear=windows.from_files(reading.clear), mask=windows.from_files(reading.mask)),
        block=block,
        most_blocks=10**18,
        s1=windows.from_files(s1),
        **options,
    )
    job, cube = plan.job, plan.info.cube
    chosen = parse_block(shard, job.model.spec.stride, "shard")
    grid, shard = _grids(plan, chosen, fixed=block is not None)
    n_regions = Layout(cube.shape, shard, ()).n_regions
    if n_regions > MAX_REGIONS:
        raise SizeError(
            f"the cube has {cube.shape[0]} x {cube.shape[1]} pixels, {n_regions} regions of {shard[0]} x {shard[1]}",
            f"at most {MAX_REGIONS} regions in one run",
            "a part of it: cube.isel(y=slice(0, 109800), x=slice(0, 109800))",
        )
    plan = replace(plan, job=replace(job, grid=grid))
    skeleton = make_skeleton(plan, shard)
    made = parts(plan)
    bands = tuple(array.variable for array in cube.arrays)
    quality = plan.info.quality.variable
    radar = tuple(array.variable for array in plan.s1_arrays)
    run = RunPlan(
        job=plan.job,
        bands=bands,
        quality=quality,
        parts=made,
        layout=Layout(cube.shape, shard, tuple((part.name, _leading(part, plan.job)) for part in made)),
        metadata={part.name: skeleton.files[f"{part.name}/zarr.json"] for part in made},
        fingerprint=_fingerprint(plan, skeleton, shard, (*bands, quality), radar),
        s1=radar,
    )
    return run, skeleton


def read_windows(plan: RunPlan, index: int) -> Windows:
    """Read the windows of a region into memory."""
    sources = Windows(plan.bands, plan.quality, plan.s1)
    return blocks.read_windows(plan.job, plan.box(index), sources, windows.read)


def fill_region(
    plan: RunPlan,
    store: str | os.PathLike[str],
    index: int,
    *,
    windows: Windows | None = None,
    threads: int = 1,
    alone: bool = True,
) -> RegionReport:
    """Fill one region: read, fill, write its shards, and then the marker that says so. May be done again at any time.

    Parameters
    ----------
    plan : RunPlan
        The run.
    store : path
        Its store, which has been created.
    index : int
        The region.
    windows : Windows, optional
        What `read_windows` gave, where it has been read ahead.
    threads : int
        Blocks that may run side by side.
    alone : bool
        Whether no other region is at work in this process.
    """
    start = time.perf_counter()
    root, box = Path(store), plan.box(index)
    windows = windows or read_windows(plan, index)
    done = run_region(plan.job, box, windows, threads=threads, alone=alone)
    del windows
    _check_current(plan, Journal(root))

    def write(shard: tuple[str, bytes]) -> tuple[str, str, int]:
        key, data = shard
        write_file(root / key, data)
        return key, sha256(data), len(data)

    with ThreadPoolExecutor(8) as pool:  # one is written to disk while the next is encoded
        written = list(pool.map(write, _encoded(plan, box, done)))
    files, size = {key: digest for key, digest, _ in written}, sum(length for *_, length in written)
    report = RegionReport(
        index=index,
        digest=digest_of(files),
        bytes=size,
        seconds=round(time.perf_counter() - start, 3),
        process=f"{socket.gethostname()}:{os.getpid()}",
        pixels=_pixels(done),
    )
    told = {
        "region": index,
        "run": plan.identity,
        "files": files,
        "bytes": size,
        "seconds": report.seconds,
        "process": report.process,
        "pixels": report.pixels,
    }
    write_json(Journal(root).marker(index), told)
    return report


def _pixels(done: Mapping[str, Array]) -> dict[str, int] | None:
    if (filled := done.get("filled")) is None:
        return None
    return {name: int(np.count_nonzero(filled == state)) for name, state in STATES.items()}


def _check_current(plan: RunPlan, journal: Journal) -> None:
    """Refuse to write into a store that has been begun anew meanwhile."""
    begun = read_json(journal.run)
    if begun is None or begun["run"] != plan.identity:
        raise StoreError(
            f"{journal.store} is {'no store of a run' if begun is None else 'that of another run by now'}",
            "the run that is to be filled",
            "the call that begins it: to_zarr, or batch",
        )


def encode_region(plan: RunPlan, box: Box, done: Mapping[str, Array]) -> dict[str, bytes]:
    """The shards of a region, encoded: bytes by key.

    Parameters
    ----------
    plan : RunPlan
        The run.
    box : Box
        The region.
    done : mapping
        The job's outputs on it, by name.

    Raises
    ------
    StoreError
        If `box` is not exactly one region, or the outputs do not fit it.
    """
    return dict(_encoded(plan, box, done))


def _encoded(plan: RunPlan, box: Box, done: Mapping[str, Array]) -> Iterator[tuple[str, bytes]]:
    index = plan.layout.index(box)
    for part in plan.parts:
        values = part.take(done)
        if values.shape[-2:] != box.shape:
            raise StoreError(
                f"{part.name} has {values.shape[-2]} x {values.shape[-1]} pixels",
                f"those of the region, {box.shape[0]} x {box.shape[1]}",
                "run_region(job, RunPlan.box(index), ...)",
            )
        yield from encode(part, plan.metadata[part.name], plan.layout, index, values)


def in_regions(job: BlockJob, sources: Windows) -> Iterator[Box]:
    """Parts of whole blocks, all together the cube, that may be read in one piece."""
    per_pixel = _read_bytes(job, sources.bands, sources.s1)
    per_pixel += job.reads.size * windows.stored_bytes(sources.quality)
    usual = int((REGION_BYTES / per_pixel) ** 0.5)
    rows, columns = (max(usual // edge, 1) * edge for edge in job.grid.block)
    return TileGrid(job.grid.shape, (rows, columns)).blocks()


def _leading(part: Part, job: FillJob) -> tuple[int, ...]:
    """Shards of an array along its axes before rows and columns: one for each date."""
    return tuple(len(job.targets.own) if axis == "time" else 1 for axis in part.dims[:-2])


def _width(array: xr.Variable, stored: bool = True) -> int:
    """Bytes of one pixel on one date, as it lies in a region's window or as a block takes it."""
    each = windows.stored_bytes(array) if stored else array.dtype.itemsize
    return int(each * np.prod(array.shape[1:-2], dtype=int))


def _read_bytes(job: BlockJob, bands: Sequence[xr.Variable], s1: Sequence[xr.Variable]) -> int:
    """Bytes of one pixel of all bands and of Sentinel-1, on the dates that are read, as they are stored."""
    return int(job.reads.size * sum(map(_width, bands)) + job.s1_reads.size * sum(map(_width, s1)))


def _tile_bytes(job: FillJob) -> int:
    """Return the working memory of the model per pixel of a tile."""
    return optional(job.model).pixel_bytes(job.reads.size, len(job.common_names))


def _pixels_of(box: Box) -> int:
    return box.shape[0] * box.shape[1]


def _output_bytes(job: FillJob) -> int:
    """Bytes of one pixel of all outputs."""
    lead = int(np.prod(job.lead, dtype=int))
    return sum(lead * o.dtype.itemsize * int(np.prod([job.sizes[d] for d in o.dims[:-2]])) for o in job.outputs)


def _grids(plan: FillPlan, shard: tuple[int, int] | None, fixed: bool) -> tuple[TileGrid, tuple[int, int]]:
    """Blocks, and the shards that are made of them.

    A shard is a whole number of blocks. Without a halo, it is also a whole number of the input's chunks if memory
    allows, so that each of them is decoded once; blocks are as wide as a shard, since rows side by side in memory are
    copied faster. With a halo, blocks are as large as shards, which share fewest tiles.
    """
    job, cube = plan.job, plan.info.cube
    stride, block = job.model.spec.stride, job.grid.block
    if shard is None:
        variables, radar = ([array.variable for array in arrays] for arrays in (cube.arrays, plan.s1_arrays))
        per_pixel = _read_bytes(job, variables, radar) + job.reads.size * plan.info.quality.dtype.itemsize
        per_pixel += _output_bytes(job)
        usual, most = (int((size / per_pixel) ** 0.5) for size in (REGION_BYTES, MOST_BYTES))
        chunks = windows.chunk_edges(variables[0])
        edges = []
        for i, size in enumerate(cube.shape):
            unit = block[i] if fixed else stride or 1
            chunk = None if chunks is None or unit > 1 else chunks[i]
            edges.append(_edge(size, unit, chunk, usual, most))
        shard = edges[0], edges[1]
    if not fixed:
        rows = max(BLOCK_PIXELS // shard[1], 1)
        block = shard if stride else (largest_part(shard[0], rows), shard[1])
    elif any(edge % part for edge, part in zip(shard, block, strict=True)):
        raise OptionError(
            f"block is {block} and shard {shard}",
            "shards of whole blocks",
            option(f"shard={2 * block[0]}", f"block={block[0]}"),
        )
    return replace(job.grid, block=block), shard


def _edge(size: int, unit: int, chunk: int | None, usual: int, most: int) -> int:
    """Rows or columns of a shard.

    Examples
    --------
    >>> _edge(10980, 1, 1024, usual=700, most=1200)  # one chunk
    1024
    >>> _edge(10980, 1, 250, usual=700, most=1200)  # several
    500
    >>> _edge(10980, 1, 10980, usual=700, most=1200)  # a part of one
    610
    >>> _edge(10980, 192, None, usual=700, most=1200)
    576
    """
    usual = min(usual, MOST_EDGE)
    step = 64 if unit == 1 else unit
    plain = max(usual // step, 1) * step
    if chunk is None or chunk < 16:
        edge = plain
    elif chunk <= usual:
        edge = usual // chunk * chunk
    elif chunk <= most:
        edge = chunk
    else:
        part = largest_part(chunk, usual)
        edge = part if 2 * part > usual else plain
    if largest_part(edge, MOST_CHUNK) < 32:
        edge = plain  # of a prime number of pixels no chunks can be made
    return min(edge, -(-size // step) * step)


def _fingerprint(
    plan: FillPlan,
    skeleton: Skeleton,
    shard: tuple[int, int],
    variables: Sequence[xr.Variable],
    radar: Sequence[xr.Variable],
) -> dict[str, str]:
    """What the answer depends on, so that a difference can be told in words."""
    job, info = plan.job, plan.info
    spec, targets, scenes = job.model.spec, job.targets, job.scenes
    model = (spec.to_json(), type(job.model).__qualname__, optional(job.model).precision)
    dates = [str(value) for value in np.datetime_as_string(targets.times, unit="s")]
    times = np.datetime_as_string(job.times, unit="ns")
    return {
        "model": f"{spec.name} {_hash(model)}",
        "dates": f"{dates[0]} to {dates[-1]}, {len(dates)} {_hash([*dates, str(targets.scalar)])}",
        "window": "all dates" if job.window is None else f"{job.window[0]:g} and {job.window[1]:g} days",
        "layers": ", ".join(job.layers) or "none",
        "screen and check": f"{job.screen}, {job.check}",
        "mask": f"{job.rule.label} {_hash(job.rule)}",
        "scaling": f"{job.scaling} {_hash(job.limits)}",
        "bands": ", ".join(info.cube.bands),
        "shape": f"{len(times)} dates, {job.grid.shape[0]} x {job.grid.shape[1]} pixels, {job.dtype}",
        "shards": f"{shard[0]} x {shard[1]}",
        "times of the cube": _hash(list(times)),
        "scenes": "each a date" if scenes is None else f"merged by day {_hash((scenes.members, list(scenes.stamps)))}",
        "coordinates and attributes": digest_of({k: sha256(v) for k, v in skeleton.finished.items()})[:12],
        "values of the cube": _hash([windows.stamp(variable) for variable in variables]),
        "Sentinel-1": _hash([list(plan.s1.times), *map(windows.stamp, radar)]) if plan.s1 is not None else "none",
        "version": __version__,
    }


def _hash(value: Any) -> str:
    return sha256(repr(value).encode())[:12]
