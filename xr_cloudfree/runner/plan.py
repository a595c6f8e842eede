"""The plan of a run: its fill, its regions and their memory, and the fingerprint of what the answer depends on.

A region is the unit of work: one shard of the output for each date.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from xr_cloudfree.compat import is_in_memory
from xr_cloudfree.cube.conventions import Cube
from xr_cloudfree.engine.answers import Answers
from xr_cloudfree.engine.blocks import BlockJob, Windows
from xr_cloudfree.engine.corrections import Corrections, RepairJob
from xr_cloudfree.engine.detection import detection_of
from xr_cloudfree.engine.fill import FillJob
from xr_cloudfree.engine.grid import Box, TileGrid
from xr_cloudfree.engine.parameters import KERNEL_DTYPES
from xr_cloudfree.errors import OptionError, SizeError, option
from xr_cloudfree.inputs import open_others, open_s1
from xr_cloudfree.labels import Part, parts
from xr_cloudfree.models.protocol import optional
from xr_cloudfree.options import ReadOptions, parse_block
from xr_cloudfree.plan import FillPlan, plan_fill
from xr_cloudfree.runner import windows
from xr_cloudfree.runner.store import MOST_CHUNK, Layout, Skeleton, digest_of, largest_part, make_skeleton, sha256
from xr_cloudfree.version import __version__

# Bytes for a region's window and outputs: the target, and the limit where a larger region reads each chunk only once.
REGION_BYTES, MOST_BYTES = 192 * 2**20, 512 * 2**20
# Largest edge of a region in pixels: larger shards are unwieldy, and a crash loses more work.
MOST_EDGE = 2048
# Bytes of the answers for tiles that a row of regions shares with the next.
SHARED_BYTES = 256 * 2**20
# Pixels in a block of a model without a halo: a compromise between cache size and the overhead per block.
BLOCK_PIXELS = 2**16
# Topic of the fingerprint on the output's coordinates and attributes, which follow from the others and from the cube.
ATTRIBUTES = "coordinates and attributes"
# Upper limit of regions; enough for all land at 10 m resolution.
MAX_REGIONS = 5_000_000
# Memory that the allocator keeps, and a factor for the buffers of chunks being read and shards being encoded.
LOOSE, SPARE = 32 * 2**20, 1.1


@dataclass(frozen=True, eq=False)
class Addition:
    """The dates that a run adds to a finished store.

    Parameters
    ----------
    run : str
        Identity of the run that the store was finished by: regions with its markers lack only the new dates.
    first : int
        Number of dates that the store had.
    plan : RunPlan
        The plan of the new dates alone.
    """

    run: str
    first: int
    plan: RunPlan


@dataclass(frozen=True, eq=False)
class RunPlan:
    """Everything a process needs to fill any region; small when pickled if the cube is in files.

    Parameters
    ----------
    job : FillJob
        The computation of each block.
    bands : tuple of Variable
        One array (time, band, y, x), or one (time, y, x) per band; lazy where the cube is.
    quality : Variable
        The quality layer, or the clear mask.
    parts : tuple of Part
        The variables of the output.
    layout : Layout
        Their shards.
    metadata : mapping
        The ``zarr.json`` of each variable, by name.
    fingerprint : mapping
        Everything the output depends on, by topic, in words or as hashes.
    s1 : tuple of Variable
        Sentinel-1, in one of the forms of `bands`; empty for none.
    corrected : Corrections or None
        The masks as the series corrects them; None if they are used as they are.
    others : tuple of Windows
        Bands and quality layers of other sensors.
    added : Addition or None
        The dates that the store lacks, if it was finished with fewer.
    """

    job: FillJob
    bands: tuple[xr.Variable, ...]
    quality: xr.Variable
    parts: tuple[Part, ...]
    layout: Layout
    metadata: Mapping[str, bytes]
    fingerprint: Mapping[str, str]
    s1: tuple[xr.Variable, ...] = ()
    corrected: Corrections | None = None
    others: tuple[Windows, ...] = ()
    added: Addition | None = None

    @property
    def n_regions(self) -> int:
        """Number of regions."""
        return self.layout.n_regions

    @property
    def identity(self) -> str:
        """Identifier of the run: a digest of its fingerprint."""
        return digest_of({key: sha256(value.encode()) for key, value in self.fingerprint.items()})[:16]

    @property
    def largest(self) -> Box:
        """A region with the largest window."""
        rows, columns = self.layout.grid
        candidates = {self.layout.box(index) for index in (0, rows // 2 * columns + columns // 2)}
        return max(candidates, key=lambda box: (_pixels_of(self.job.windows(box)[0]), box))

    @property
    def window_bytes(self) -> int:
        """Bytes of a region's windows as read, before decoding."""
        job = self.job
        window, quality_window = map(_pixels_of, job.windows(self.largest))
        quality_bytes = job.reads.size * self.quality.dtype.itemsize
        read = window * _read_bytes(job, self.bands, self.s1) + quality_window * quality_bytes
        for other, arrays in zip(job.others, self.others, strict=True):
            own, own_quality = map(_pixels_of, other.windows(job.windows(self.largest)[0]))
            per_date = own * sum(map(_width, arrays.bands)) + own_quality * arrays.quality.dtype.itemsize
            # As read, and as reflectance.
            read += other.reads.size * (per_date + own * 4 * len(other.bands))
        return int(read)

    @property
    def memory(self) -> int:
        """Bytes needed to fill a region, in addition to what the process holds already.

        The sum of its windows, its outputs, one block in progress with the predictions for its tiles, and the tiles
        that the model processes together (for a network, including its activations); with a detector, or corrected
        masks, what these take; and the answers for tiles that regions share on one machine.
        """
        job, region = self.job, self.largest
        (height, width), n_bands, n_dates = job.grid.block, len(job.common_names), job.reads.size
        block = Box(region.y0, min(region.y0 + height, region.y1), region.x0, min(region.x0 + width, region.x1))
        inner, tiles = _pixels_of(job.windows(block)[0]), {tile.extent for tile in job.grid.tiles(block)}
        decoded = sum(_width(array, stored=False) for array in self.bands)
        if job.scenes is not None:
            n_dates += job.dates.size  # the scenes and the dates merged from them
        copied = block != region or any(windows.stored_bytes(a) != a.dtype.itemsize for a in self.bands)
        converted = 0 if job.dtype in KERNEL_DTYPES else 4 * n_bands
        # Values, two masks, and one date being decoded.
        work = inner * n_dates * (decoded * copied + converted + 2) + inner * decoded * 2 * copied
        work += sum(map(_pixels_of, tiles)) * _answer_bytes(job)
        if job.grid.tile is not None:
            work += job.tiles_at_once * job.grid.tile**2 * _tile_bytes(job)
        detection = detection_of(self.quality)
        loose = LOOSE + (0 if detection is None else detection.memory(job.windows(region)[1]))
        loose += self.strip * self.shared_bytes if self.n_regions > 1 else 0
        if self.corrected is not None:  # while another region is filled
            loose += self.corrected.memory(job.windows(region)[0])
        # Outputs count three times: the region, a block, and a shard being encoded.
        return int(loose + SPARE * (self.window_bytes + work + 3 * _pixels_of(region) * _output_bytes(job)))

    def box(self, index: int) -> Box:
        """The pixels of a region."""
        return self.layout.box(index)

    @property
    def shared_bytes(self) -> int:
        """Bytes of the answers for tiles that a region shares with the one below it."""
        job = self.job
        if not job.grid.taper or job.grid.tile is None or job.grid.stride is None:
            return 0
        # Half of each tile of a row of tiles, which overlap.
        pixels = job.grid.tile // 2 * job.grid.tile * self.layout.shard[1] / job.grid.stride
        return int(pixels * _answer_bytes(job) * len(job.targets.own))

    @property
    def strip(self) -> int:
        """Columns of regions that are filled together, so that they share the answers for tiles between them.

        What one row of a strip shares with the next takes at most `SHARED_BYTES`.
        """
        return min(max(SHARED_BYTES // max(self.shared_bytes, 1), 1), self.layout.grid[1])

    def in_order(self, regions: Iterable[int]) -> tuple[RunPlan, list[int], Answers]:
        """Return a plan to fill regions one after the other in this process, their order, and answers to share.

        Masks are then corrected in larger parts than a region needs, for the regions after it.
        """
        columns, strip, grid = self.layout.grid[1], self.strip, self.job.grid
        order = sorted(map(int, regions), key=lambda index: (index % columns // strip, index))
        blocks = strip * self.layout.shard[1] // grid.block[1]
        answers = Answers(grid, map(self.box, order), blocks)
        corrected = None if self.corrected is None else self.corrected.in_order()
        return replace(self, corrected=corrected), order, answers


def plan_run(
    obj: xr.DataArray | xr.Dataset,
    date: Any = None,
    reading: ReadOptions | None = None,
    *,
    shard: int | tuple[int, int] | None = None,
    block: int | tuple[int, int] | None = None,
    s1: Any = None,
    others: Any = None,
    **options: Any,
) -> tuple[RunPlan, Skeleton]:
    """Plan a run: the fill, its regions, and the store without its shards. Only coordinates are read.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube.
    date : str, datetime or sequence of these, optional
        The target dates.
    reading : ReadOptions, optional
        How the cube is read.
    shard : int or pair of int, optional
        Pixels along y and x of a shard. The default lets a region fit into memory and read each input chunk once.
    block : int or pair of int, optional
        Pixels along y and x of a block; must divide `shard`.
    s1 : DataArray, Dataset, str, path or sequence of str, optional
        As in `fill`.
    others : DataArray, Dataset, str, path or sequence of these, optional
        As in `fill`.
    **options
        The other options of `fill`.

    Raises
    ------
    SizeError
        If the cube has more than `MAX_REGIONS` regions.
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
        others=[windows.from_files(other) for other in open_others(others)],
        **options,
    )
    job, cube = plan.job, plan.info.cube
    requested = parse_block(shard, job.model.spec.stride, "shard")
    grid, shard = _grids(plan, requested, fixed=block is not None)
    n_regions = Layout(cube.shape, shard, ()).n_regions
    if n_regions > MAX_REGIONS:
        raise SizeError(
            f"the cube has {cube.shape[0]} x {cube.shape[1]} pixels, {n_regions} regions of {shard[0]} x {shard[1]}",
            f"at most {MAX_REGIONS} regions in one run",
            "a part of it: cube.isel(y=slice(0, 109800), x=slice(0, 109800))",
        )
    plan = replace(plan, job=replace(job, grid=grid))
    skeleton = make_skeleton(plan, shard)
    outputs = parts(plan)
    bands = tuple(array.variable for array in cube.arrays)
    quality = plan.info.quality.variable
    radar = tuple(array.variable for array in plan.s1_arrays)
    sources = Windows(bands, quality, radar)
    sensors = tuple(
        Windows(other.cube.arrays, other.quality).map(lambda array: array.variable) for other in plan.others
    )
    run = RunPlan(
        job=plan.job,
        bands=bands,
        quality=quality,
        parts=outputs,
        layout=Layout(cube.shape, shard, tuple((part.name, _leading(part, plan.job)) for part in outputs)),
        metadata={part.name: skeleton.files[f"{part.name}/zarr.json"] for part in outputs},
        fingerprint=_fingerprint(plan, skeleton, shard, (*bands, quality), radar, sensors),
        s1=radar,
        corrected=Corrections(RepairJob.of(plan.job), sources, windows.read) if plan.job.repair else None,
        others=sensors,
    )
    return run, skeleton


def in_regions(job: BlockJob, sources: Windows) -> Iterator[Box]:
    """Yield boxes of whole blocks that cover the cube, each small enough to read at once."""
    per_pixel = _read_bytes(job, sources.bands, sources.s1)
    per_pixel += job.reads.size * windows.stored_bytes(sources.quality)
    usual = int((REGION_BYTES / per_pixel) ** 0.5)
    rows, columns = (max(usual // edge, 1) * edge for edge in job.grid.block)
    return TileGrid(job.grid.shape, (rows, columns)).blocks()


def _leading(part: Part, job: FillJob) -> tuple[int, ...]:
    """Return the number of shards along the axes before rows and columns: one per date."""
    return tuple(len(job.targets.own) if axis == "time" else 1 for axis in part.dims[:-2])


def _width(array: xr.Variable, stored: bool = True) -> int:
    """Return the bytes of one pixel on one date, as stored in a window or (``stored=False``) as decoded for a block."""
    each = windows.stored_bytes(array) if stored else array.dtype.itemsize
    return int(each * np.prod(array.shape[1:-2], dtype=int))


def _read_bytes(job: BlockJob, bands: Sequence[xr.Variable], s1: Sequence[xr.Variable]) -> int:
    """Return the stored bytes of one pixel over all bands, Sentinel-1 and dates that are read."""
    return int(job.reads.size * sum(map(_width, bands)) + job.s1_reads.size * sum(map(_width, s1)))


def _tile_bytes(job: FillJob) -> int:
    """Return the working memory of the model per pixel of a tile."""
    return optional(job.model).pixel_bytes(job.dates.size, len(job.common_names))


def _answer_bytes(job: FillJob) -> int:
    """Return the bytes of one pixel of the model's answer for a tile, without layers that are not requested."""
    layers = 2 * ("source_time" in job.layers) + 4 * job.dates.size * ("gate" in job.layers)
    return 4 * len(job.common_names) * (1 + ("uncertainty" in job.layers)) + 1 + layers


def _pixels_of(box: Box) -> int:
    return box.shape[0] * box.shape[1]


def _output_bytes(job: FillJob) -> int:
    """Return the bytes of one pixel of all outputs."""
    lead = int(np.prod(job.lead, dtype=int))
    return sum(lead * o.dtype.itemsize * int(np.prod([job.sizes[d] for d in o.dims[:-2]])) for o in job.outputs)


def _grids(plan: FillPlan, shard: tuple[int, int] | None, fixed: bool) -> tuple[TileGrid, tuple[int, int]]:
    """Return the grid of blocks and the edges of a shard.

    A shard is a whole number of blocks. Without a halo it is also a whole number of input chunks if memory allows, so
    each chunk is decoded once; blocks are as wide as a shard, because contiguous rows are copied faster. With a halo
    a block is a shard, which shares the fewest tiles.
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
    """Return the rows or columns of a shard.

    Examples
    --------
    >>> _edge(10980, 1, 1024, usual=700, most=1200)  # one chunk
    1024
    >>> _edge(10980, 1, 250, usual=700, most=1200)  # several
    500
    >>> _edge(10980, 1, 10980, usual=700, most=1200)  # a part of one
    610
    >>> _edge(10980, 320, None, usual=900, most=1200)  # the nearest whole number of tiles
    960
    """
    usual = min(usual, MOST_EDGE)
    step = 64 if unit == 1 else unit
    # Larger regions compute and read less of their rims twice.
    number = round(usual / step) if unit > 1 and usual + step // 2 <= MOST_EDGE else usual // step
    plain = max(number, 1) * step
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
        edge = plain  # a prime number of pixels cannot be divided into chunks
    return min(edge, -(-size // step) * step)


def _fingerprint(
    plan: FillPlan,
    skeleton: Skeleton,
    shard: tuple[int, int],
    variables: Sequence[xr.Variable],
    radar: Sequence[xr.Variable],
    sensors: Sequence[Windows],
) -> dict[str, str]:
    """Return everything the output depends on, by topic, so that a later difference can be named."""
    job, info = plan.job, plan.info
    spec, targets, scenes = job.model.spec, job.targets, job.scenes
    model = (spec.to_json(), type(job.model).__qualname__, optional(job.model).precision)
    dates = [str(value) for value in np.datetime_as_string(targets.times, unit="s")]
    times = np.datetime_as_string(job.times, unit="ns")
    others = {
        "other sensors": _hash(
            [
                (
                    *map(
                        repr,
                        (
                            o.title,
                            o.decoding.rule,
                            o.decoding.scaling,
                            list(o.times),
                            o.rows,
                            o.columns,
                            o.width,
                            o.lines,
                        ),
                    ),
                    o.bands,
                    o.positions,
                    [windows.stamp(variable) for variable in arrays.arrays],
                )
                for o, arrays in zip(job.others, sensors, strict=True)
            ]
        )
    }
    return {
        "model": f"{spec.name} {_hash(model)}",
        "dates": f"{dates[0]} to {dates[-1]}, {len(dates)} {_hash([*dates, str(targets.scalar)])}",
        "window": "all dates" if job.window is None else f"{job.window[0]:g} and {job.window[1]:g} days",
        "layers": ", ".join(job.layers) or "none",
        "check": str(job.check),
        "mask": f"{job.rule.label} {_hash(job.rule)}",
        "repair": str(job.repair),
        "scaling": f"{job.scaling} {_hash(job.limits)}",
        "bands": ", ".join(info.cube.bands),
        "shape": f"{len(times)} dates, {job.grid.shape[0]} x {job.grid.shape[1]} pixels, {job.dtype}",
        "shards": f"{shard[0]} x {shard[1]}",
        "grid": _grid_in_words(info.cube),
        "times of the cube": f"{min(times)[:10]} to {max(times)[:10]} {_hash(list(times))}",
        "scenes": "each a date" if scenes is None else f"merged by day {_hash((scenes.members, list(scenes.stamps)))}",
        ATTRIBUTES: digest_of({k: sha256(v) for k, v in skeleton.finished.items()})[:12],
        "values of the cube": _hash([windows.stamp(variable) for variable in variables]),
        "Sentinel-1": _hash([list(plan.s1.times), *map(windows.stamp, radar)]) if plan.s1 is not None else "none",
        "version": __version__,
        **(others if job.others else {}),
    }


def _grid_in_words(cube: Cube) -> str:
    """Return the CRS of a cube and the first and last coordinate of its axes, as far as it has them."""
    ends = []
    for axis in ("y", "x"):
        coordinate = cube.template.coords.get(axis)
        if coordinate is not None and coordinate.ndim == 1 and is_in_memory(coordinate):
            values = coordinate.to_numpy()
            ends.append(f"{axis} {values[0]} to {values[-1]}")
    return f"{cube.crs or 'no CRS'}, {', '.join(ends) or 'no coordinates'}"


def _hash(value: Any) -> str:
    return sha256(repr(value).encode())[:12]
