"""Images of other sensors: their windows, decoded on their own pixels, and cut for tiles."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube import checks, scaling
from xr_cloudfree.cube.other_sensors import Axis, errors_about, useful_dates
from xr_cloudfree.cube.remedies import Spelling
from xr_cloudfree.cube.timestamps import Times
from xr_cloudfree.cube.validity import clear_where
from xr_cloudfree.engine.blocks import Windows
from xr_cloudfree.engine.clear import decode_window, quality_window, split_extras
from xr_cloudfree.engine.decoding import Decoding
from xr_cloudfree.engine.grid import Box, TileGrid
from xr_cloudfree.models.protocol import OtherImages


@dataclass(frozen=True, eq=False)
class OtherSensor:
    """How images of another sensor are read, and how they lie on a cube.

    Parameters
    ----------
    title : str
        Its name, for attributes.
    decoding : Decoding
        How its arrays are decoded, with the time stamps of all its images.
    reads : ndarray of int
        Indices of the images that are read, by time.
    rows, columns : Axis
        Its pixels, in those of the cube.
    width : tuple of float
        Size of what a pixel sees, in the cube's pixels.
    bands : tuple of int
        The bands that it shares with the cube, among its own.
    positions : tuple of int
        Their positions among the cube's.
    lines : tuple of (float, float)
        For each of them slope and offset by which reflectance becomes the cube's.
    sensor, common_names, spelling
        As in `FillParameters`, for the checks of values.
    """

    title: str
    decoding: Decoding
    reads: NDArray[np.intp]
    rows: Axis
    columns: Axis
    width: tuple[float, float]
    bands: tuple[int, ...]
    positions: tuple[int, ...]
    lines: tuple[tuple[float, float], ...]
    sensor: str | None
    common_names: tuple[str | None, ...]
    spelling: Spelling

    @property
    def times(self) -> Times:
        """Time stamps of all its images."""
        return self.decoding.times

    @property
    def grid(self) -> TileGrid:
        """Its pixels, as one block."""
        shape = (self.rows.size, self.columns.size)
        return TileGrid(shape, shape)

    def windows(self, window: Box) -> tuple[Box, Box]:
        """Return the pixels that lie in a window of the cube, and those of its quality layer: at least one of each."""
        rows, columns = self.rows.within(window.y0, window.y1), self.columns.within(window.x0, window.x1)
        own = Box(*_not_empty(rows, self.rows.size), *_not_empty(columns, self.columns.size))
        return own, quality_window(own, self.decoding.rule, self.grid)


def _not_empty(pixels: range, size: int) -> tuple[int, int]:
    start = min(pixels.start, size - 1)
    return start, max(pixels.stop, start + 1)


@dataclass(frozen=True, eq=False)
class DecodedOther:
    """Images of another sensor in a window of the cube.

    Parameters
    ----------
    sensor : OtherSensor
        The sensor.
    box : Box
        The window, in its own pixels.
    bands : ndarray of float32, shape (time, band, row, column)
        Reflectance of the images in ``sensor.reads``; NaN where not clear.
    """

    sensor: OtherSensor
    box: Box
    bands: NDArray[np.float32]

    def cut(self, extent: Box, window: Box, instant: np.datetime64, dates: Times) -> OtherImages:
        """Return the images for a tile and a target date.

        Parameters
        ----------
        extent : Box
            The tile, which may reach beyond the cube.
        window : Box
            The window of the cube that was decoded.
        instant : datetime64
            The target.
        dates : ndarray of datetime64[ns]
            The cube's dates that the target can use.
        """
        own, inside = self.sensor, extent.clip(window)
        rows, columns = own.rows.within(inside.y0, inside.y1), own.columns.within(inside.x0, inside.x1)
        times = own.times[own.reads]
        order = useful_dates(times, instant, dates)
        part = Box(rows.start, rows.stop, columns.start, columns.stop)
        cut = self.bands[order] if not rows or not columns else self.bands[(order, ..., *part.within(self.box))]
        return OtherImages(
            cut if rows and columns else cut[..., :0, :0],
            (times[order] - instant) / np.timedelta64(1, "D"),
            own.positions,
            own.rows.centres(rows) - extent.y0,
            own.columns.centres(columns) - extent.x0,
            (own.rows.step, own.columns.step),
            own.width,
        )


def decode_others(
    others: Sequence[OtherSensor], windows: Sequence[Windows], window: Box, check: bool
) -> tuple[DecodedOther, ...]:
    """Decode the images of other sensors in a window of the cube.

    Parameters
    ----------
    others : sequence of OtherSensor
        The sensors.
    windows : sequence of Windows
        Their arrays in `OtherSensor.windows`.
    window : Box
        The window of the cube.
    check : bool
        Whether values that do not look like reflectance are refused.
    """
    decoded = []
    for other, arrays in zip(others, windows, strict=True):
        box, _ = other.windows(window)
        how = other.decoding
        seen = decode_window(arrays, how, other.grid, box, other.reads)
        stored, _ = split_extras(seen.stored, how.extras)
        if check and stored.size:
            times = other.times[other.reads]
            with errors_about("others"):
                checks.check_reflectance(
                    stored,
                    seen.clear,
                    how.scaling,
                    times,
                    other.sensor,
                    other.common_names,
                    how.valid_range,
                    other.spelling,
                )
        clear = clear_where(stored, seen.clear, how.scaling, how.valid_range)
        reflectance = scaling.to_reflectance(stored[:, list(other.bands)], how.scaling)
        slope, offset = np.array(other.lines, np.float32).T[..., None, None]
        bands = np.where(clear[:, None], slope * reflectance + offset, np.float32(np.nan))
        decoded.append(DecodedOther(other, box, bands.astype(np.float32, copy=False)))
    return tuple(decoded)
