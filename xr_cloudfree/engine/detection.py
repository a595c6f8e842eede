"""Quality layers made by detectors: lazily, date by date, in tiles that start at pixel (0, 0) of the cube.

Of each tile the core is kept; the margin around it is only seen. So a value depends neither on the chunks of the cube
nor on the part of it that is asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import groupby
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray
from xarray.backends import BackendArray
from xarray.core.indexing import IndexingSupport, LazilyIndexedArray, explicit_indexing_adapter

from xr_cloudfree import compat
from xr_cloudfree.cube.archives import select_bands
from xr_cloudfree.cube.conventions import Cube, is_quality, parse_cube
from xr_cloudfree.cube.levels import Level, processing_level
from xr_cloudfree.cube.remedies import Spelling
from xr_cloudfree.cube.scaling import Scaling, resolve_scaling, to_reflectance
from xr_cloudfree.cube.validity import ValidRange, derive_valid_range, measured
from xr_cloudfree.engine.blocks import Array, Block, Output, Reader, Windows, stack
from xr_cloudfree.engine.grid import Box, Tile, TileGrid, surround
from xr_cloudfree.engine.kept import KEPT_BYTES, Kept
from xr_cloudfree.errors import CloudfreeError, MaskError, either, option
from xr_cloudfree.masking.detectors import Detector, choose_bands
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.storage.read_errors import guarded

MISSING = 255
"""Value of a layer of classes where nothing was measured; probabilities are NaN there."""
# Bytes of a cube that one task reads, unless one date takes more.
_TASK_BYTES = 96 * 2**20


@dataclass(frozen=True, eq=False)
class DetectJob:
    """The quality layer of a cube by a detector, tile by tile.

    Parameters
    ----------
    detector : Detector
        The detector.
    bands : tuple of str
        Common names of the bands that it takes, in its order.
    level : {"toa", "surface"} or None
        The processing level.
    grid : TileGrid
        Its tiles; a block is the core of one.
    scaling : Scaling
        How stored numbers become reflectance.
    valid_range : ValidRange
        Which stored numbers can be measurements.
    reads : ndarray of int
        The dates, or scenes, that are read.
    positions : tuple of int or None
        Positions of the bands along the band axis of an array (time, band, y, x); None for one array per band.
    """

    detector: Detector
    bands: tuple[str, ...]
    level: Level | None
    grid: TileGrid
    scaling: Scaling
    valid_range: ValidRange
    reads: NDArray[np.intp]
    positions: tuple[int, ...] | None = None

    name = "cloudfree-detect"
    s1_reads = corrected_reads = np.empty(0, np.intp)
    others: tuple[Reader, ...] = ()
    lead: tuple[int, ...] = ()

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The quality layer."""
        return (Output("quality", ("time", "y", "x"), self.detector.spec.dtype),)

    @property
    def sizes(self) -> dict[str, int]:
        """Length of the output's dimensions, without rows and columns."""
        return {"time": self.reads.size}

    def windows(self, box: Box) -> tuple[Box, Box]:
        """Return the window of a block; there is no quality layer yet."""
        window = self.grid.window(box)
        return window, window

    def run(self, box: Box, windows: Windows) -> tuple[Array, ...]:
        """Detect in the tiles of one block, date by date."""
        window, tiles = self.grid.window(box), self.grid.tiles(box)
        out = np.empty((self.reads.size, *box.shape), self.detector.spec.dtype)
        for i in range(self.reads.size):
            image = stack([array[i : i + 1] for array in windows.bands])[0]
            for core, values in self.detect(image, window, tiles):
                out[(i, *core.within(box))] = values
        return (out,)

    def stream(self, blocks: Iterable[Block]) -> Iterator[tuple[Box, tuple[Array, ...]]]:
        """Detect in several blocks."""
        return ((box, self.run(box, windows)) for box, windows in blocks)

    def detect(self, stored: Array, window: Box, tiles: Sequence[Tile]) -> Iterator[tuple[Box, Array]]:
        """Yield the core of each tile, and the layer there.

        Parameters
        ----------
        stored : ndarray, shape (band, y, x)
            One image as stored, all bands that are read.
        window : Box
            Its place.
        tiles : sequence of Tile
            Tiles, each of whose extent, as far as it is in the cube, lies in the window.
        """
        for tile in tiles:
            extent = tile.extent.clip(self.grid.cube)
            part = stored[(slice(None), *extent.within(window))]
            values = self._layer(part if self.positions is None else part[list(self.positions)])
            yield tile.core, values[tile.core.within(extent)]

    def _layer(self, stored: Array) -> Array:
        """Return the layer of the extent of one tile."""
        spec = self.detector.spec
        seen = measured(stored, self.scaling, self.valid_range, axis=0)
        missing, shape = ~seen.any(axis=0), stored.shape[1:]
        unknown = np.nan if spec.reads.has_threshold else MISSING
        if missing.all():
            return np.full(shape, unknown, spec.dtype)
        image = np.where(seen, to_reflectance(stored, self.scaling), np.float32(np.nan))
        beyond = [(0, max(spec.least - size, 0)) for size in shape]
        if any(after for _, after in beyond):
            image = np.pad(image, [(0, 0), *beyond], mode="symmetric")
        values = self._detected(image)[: shape[0], : shape[1]].astype(spec.dtype)
        values[missing] = unknown
        return values

    def _detected(self, image: NDArray[np.float32]) -> Array:
        """Return what the detector says of an image; errors name the detector."""
        spec = self.detector.spec
        try:
            values = np.asarray(self.detector.detect(image, self.bands, self.level))
        except (CloudfreeError, MemoryError):
            raise
        except Exception as error:  # each package has its own errors
            raise MaskError(
                f"the detector {spec.name!r} failed: {type(error).__name__}: {error}",
                f"another release of {spec.package}, or another mask",
                either(f"pip install --upgrade {spec.package}", option("mask=None") + " for the cube's quality layer"),
            ) from error
        if values.shape != image.shape[1:]:
            raise MaskError(
                f"the detector {spec.name!r} returned the shape {values.shape} for {image.shape[1:]} pixels",
                "one value for each pixel",
                option("mask=None") + " for the cube's quality layer",
            )
        return values


class Detection(BackendArray):
    """A quality layer (time, y, x) that a detector makes of the parts that are read.

    The image of a date is read once for all tiles of a part, and recent tiles are kept for the parts beside it.

    Parameters
    ----------
    job : DetectJob
        The detector, its tiles and all dates.
    sources : tuple of Variable
        One array (time, band, y, x), or one (time, y, x) per band; in memory, in files or in chunks.
    """

    def __init__(self, job: DetectJob, sources: tuple[xr.Variable, ...]) -> None:
        self.job, self.sources = job, sources
        self.shape, self.dtype = (job.reads.size, *job.grid.shape), job.detector.spec.dtype
        self._kept = Kept()

    def __getstate__(self) -> tuple[Any, ...]:
        """Pickle without the tiles that are kept."""
        return self.job, self.sources

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        """Start without tiles."""
        self.__init__(*state)  # type: ignore[misc]

    @property
    def identity(self) -> str:
        """What values depend on besides the sources, as text."""
        job = self.job
        made = (job.detector.spec.label(), job.detector, job.bands, job.level, job.scaling, job.valid_range)
        return repr((*made, job.positions, job.grid.tile, job.grid.stride))

    def memory(self, box: Box) -> int:
        """Return the bytes that reading a part takes, besides its values: one date, the detector, the tiles kept."""
        (height, width), bands = self._window(self._tiles(box)).shape, sum(map(_date_values, self.sources))
        image = height * width * bands * int(self.sources[0].dtype.itemsize)
        return image + self.job.detector.spec.memory + KEPT_BYTES

    def __getitem__(self, key: Any) -> Any:
        """Return a part of the layer, in memory."""
        return explicit_indexing_adapter(key, self.shape, IndexingSupport.OUTER, self._part)

    def _part(self, key: tuple[Any, ...]) -> Array:
        dates, rows, columns = (np.atleast_1d(np.arange(n)[k]) for n, k in zip(self.shape, key, strict=True))
        out = np.empty((dates.size, rows.size, columns.size), self.dtype)
        if out.size:
            box = Box(int(rows.min()), int(rows.max()) + 1, int(columns.min()), int(columns.max()) + 1)
            for i, date in enumerate(dates.tolist()):
                out[i] = self._date(date, box)[np.ix_(rows - box.y0, columns - box.x0)]
        return out[tuple(0 if isinstance(k, int | np.integer) else slice(None) for k in key)]

    def _date(self, date: int, box: Box) -> Array:
        """Return the layer of one date in a box."""
        tiles = self._tiles(box)
        found = {tile.core: self._kept.take((date, tile.core)) for tile in tiles}
        if lacking := [tile for tile in tiles if found[tile.core] is None]:
            window = self._window(lacking)
            images = [_read(variable, date, window) for variable in self.sources]
            image = images[0] if images[0].ndim == 3 else np.stack(images)
            for place, values in self.job.detect(image, window, lacking):
                found[place] = values
                self._kept.keep((date, place), values)
        out = np.empty(box.shape, self.dtype)
        for place, layer in found.items():
            inner = place.clip(box)
            assert layer is not None
            out[inner.within(box)] = layer[inner.within(place)]
        return out

    def _tiles(self, box: Box) -> list[Tile]:
        """Return the tiles whose cores a box touches, each with its whole core."""
        grid, core = self.job.grid, self.job.detector.spec.core
        whole = Box(box.y0 // core * core, -(-box.y1 // core) * core, box.x0 // core * core, -(-box.x1 // core) * core)
        return grid.tiles(whole.clip(grid.cube))

    def _window(self, tiles: Sequence[Tile]) -> Box:
        """Return the part of the cube that some tiles need."""
        return surround(tile.extent for tile in tiles).clip(self.job.grid.cube)

    def chunked(self, chunk: Callable[[xr.Variable], Any]) -> Any:
        """Return the layer as a dask array, one task for each tile and a few dates; nothing is computed.

        Parameters
        ----------
        chunk : callable
            From a source to its array in chunks.
        """
        import dask.array as da

        from xr_cloudfree.engine.lazy import build_graph

        sources = Windows([chunk(variable) for variable in self.sources], None)
        tile = np.prod([min(self.job.grid.tile or 0, size) for size in self.job.grid.shape])
        date_bytes = int(tile) * self.sources[0].dtype.itemsize * sum(map(_date_values, self.sources))
        together = max(_TASK_BYTES // max(date_bytes, 1), 1)
        parts = []
        for _, group in groupby(self.job.reads.tolist(), key=lambda date: date // together):
            job = replace(self.job, reads=np.array(list(group), np.intp))
            parts.append(build_graph(job, sources)["quality"])
        return parts[0] if len(parts) == 1 else da.concatenate(parts)


def _date_values(variable: xr.Variable) -> int:
    """Return how many values an array has for one pixel of one date."""
    return int(np.prod(variable.shape[1:-2], dtype=int))


def _read(variable: xr.Variable, date: int, window: Box) -> Array:
    """Read a window of one date, decoded."""
    if variable.chunks is None and not compat.is_numpy(variable):
        variable = xr.Variable(variable.dims, guarded(compat.raw_data(variable)))
    part = variable[(date, Ellipsis, *window.slices)]
    if part.chunks is not None:
        # Not the default scheduler: this may run inside one of its tasks.
        return np.asarray(part.data.compute(scheduler="threads"))
    return np.asarray(part.values)


def detection_of(variable: xr.Variable) -> Detection | None:
    """Return the detection that a quality layer is, None for any other layer or a part of one."""
    data = compat.raw_data(variable)
    inner = getattr(data, "array", None)
    return inner if isinstance(inner, Detection) and data.shape == inner.shape else None


def detected(obj: xr.DataArray | xr.Dataset, cube: Cube, reading: ReadOptions, detector: Detector) -> ReadOptions:
    """Return the options that read a cube with the quality layer that a detector makes of it; nothing is computed.

    It is given the bands that it needs, also if they are not among those that are filled.

    Parameters
    ----------
    obj : DataArray or Dataset
        The user's cube.
    cube : Cube
        The same with the bands that are filled.
    reading : ReadOptions
        How it is read; the scaling of the detector's bands is found as that of the cube's.
    detector : Detector
        The detector.

    Returns
    -------
    ReadOptions
        With the layer as `mask`, a lazy array under the detector's name, its scheme, and its threshold unless one was
        given.

    Raises
    ------
    BandError
        If the detector needs a band that the cube lacks.
    MaskError
        If it is not made for this sensor or processing level, or other options contradict its scheme.
    ScalingError
        As `resolve_scaling`.
    """
    spec = detector.spec
    if reading.scheme is not None and reading.scheme != spec.scheme:
        raise MaskError(
            f"scheme={reading.scheme!r} with the detector {spec.name!r}",
            f"its own scheme, {spec.scheme}",
            option("scheme=None"),
        )
    source = cube if reading.bands is None else _with_all_bands(obj, cube)
    names = [*source.labels, *map(str, obj.data_vars if isinstance(obj, xr.Dataset) else ())]
    level = processing_level(obj, names, source.sensor, source.common_names)
    spec.check_product(source.sensor, level)
    chosen = choose_bands(spec, source, _others(obj, source))
    arrays, positions = source.arrays, None
    if arrays[0].ndim == 4:
        positions = tuple(source.labels.index(source.bands[i]) for i in chosen.values())
        stored: tuple[xr.DataArray, ...] = (select_bands(arrays[0], positions),)
    else:
        stored = arrays = tuple(arrays[i] for i in chosen.values())
    scaling = resolve_scaling(
        stored,
        scale=reading.scale,
        offset=reading.offset,
        nodata=reading.nodata,
        spelling=Spelling(source.dims["time"], (), source.bands),
    )
    job = DetectJob(
        detector=detector,
        bands=tuple(chosen),
        level=level,
        grid=TileGrid(source.shape, (spec.core, spec.core), spec.core + 2 * spec.margin, spec.core),
        scaling=scaling,
        valid_range=derive_valid_range(stored, scaling),
        reads=np.arange(arrays[0].sizes["time"]),
        positions=positions,
    )
    detection = Detection(job, tuple(array.variable for array in arrays))
    layer = source.template.copy(data=LazilyIndexedArray(detection)).rename(spec.name)
    layer.attrs = {} if spec.reads.has_threshold else {"_FillValue": MISSING}
    layer.encoding = {}
    threshold = spec.threshold if reading.threshold is None else reading.threshold
    return replace(reading, mask=layer, scheme=spec.scheme, threshold=threshold)


def _with_all_bands(obj: xr.DataArray | xr.Dataset, cube: Cube) -> Cube:
    """Return a cube with all bands that it has; with the selected ones if the others are on another grid."""
    try:
        return parse_cube(obj)
    except CloudfreeError:
        return cube


def _others(obj: xr.DataArray | xr.Dataset, cube: Cube) -> list[str]:
    """Return the variables of a Dataset that may be bands under names that are not recognised."""
    if not isinstance(obj, xr.Dataset) or cube.layout != "bands":
        return []
    dims = {cube.dims[role] for role in ("time", "y", "x")}
    like = [str(name) for name, array in obj.data_vars.items() if {*array.dims} == dims and array.dtype == cube.dtype]
    return [name for name in like if name not in cube.bands and not is_quality(name)]
