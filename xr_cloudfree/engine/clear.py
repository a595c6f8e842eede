"""The clear mask of a window: read, grown, brought onto the cube's grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.checks import check_level
from xr_cloudfree.cube.masks import Decoded, MaskRule, decode, dilate_not_clear, repeat
from xr_cloudfree.cube.merge import MaskedWindow, merge_scenes
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.cube.validity import ValidRange, clear_where, measured
from xr_cloudfree.engine.blocks import Array, Block, Output, Reader, Windows, stack
from xr_cloudfree.engine.decoding import Decoding
from xr_cloudfree.engine.grid import Box, TileGrid
from xr_cloudfree.engine.repairs import repair_masks, repair_window
from xr_cloudfree.layers import MASK_CHANGE, SCORE


def quality_window(window: Box, rule: MaskRule, grid: TileGrid) -> Box:
    """Return the part of the quality layer, in its own pixels, from which a window of the cube is decoded."""
    if rule.from_series:
        return Box(0, 1, 0, 1)  # there is no layer, only one pixel in its place
    reach = window.grow(rule.dilate).clip(grid.cube)
    factor = rule.factor
    return Box(reach.y0 // factor, -(-reach.y1 // factor), reach.x0 // factor, -(-reach.x1 // factor))


def read_quality(
    quality: Array, rule: MaskRule, grid: TileGrid, window: Box, together: Sequence[Sequence[int]] = ()
) -> Decoded:
    """Decode the quality layer in a window, on the cube's grid.

    Parameters
    ----------
    quality : ndarray, shape (time, y, x)
        The layer in its `quality_window`.
    rule : MaskRule
        How it is read.
    grid : TileGrid
        The cube's grid.
    window : Box
        The window.
    together : sequence of sequence of int
        Scenes that are merged into one date: the cloud of one grows into those that lie beside it.
    """
    if rule.from_series:
        shape = (len(quality), *window.shape)
        return Decoded(np.ones(shape, bool), np.zeros(shape, bool), np.zeros(shape, bool))
    read = quality_window(window, rule, grid)
    seen = repeat(decode(quality, rule), rule.factor)
    fine = Box(*(edge * rule.factor for edge in read))
    # Cropped to the cube before growing: nothing beyond its border may grow into it.
    reach = fine.clip(grid.cube)
    seen = _crop(seen, reach.within(fine))
    if rule.dilate:
        # Only cloud and shadow grow, not missing pixels or snow.
        still = seen.missing | seen.snow
        clear = dilate_not_clear(seen.clear, still, rule.dilate)
        for scenes in map(list, together):
            open_sky = seen.clear[scenes].any(axis=0)
            cloud = np.asarray(~(seen.clear | still)[scenes].all(axis=0) & ~open_sky)
            clear[scenes] &= dilate_not_clear(~cloud, np.zeros_like(cloud), rule.dilate)
        seen = Decoded(clear, seen.snow, seen.missing)
    return _crop(seen, window.within(reach))


def decode_window(
    windows: Windows, decoding: Decoding, grid: TileGrid, window: Box, dates: NDArray[np.intp]
) -> MaskedWindow:
    """Return the stored values of a window and what its quality layer says, one image for each date.

    Parameters
    ----------
    windows : Windows
        The bands in the window, and the quality layer in its `quality_window`.
    decoding : Decoding
        How both are read.
    grid : TileGrid
        The cube's grid.
    window : Box
        The window.
    dates : ndarray of int
        The dates that are read.
    """
    scenes = decoding.scenes
    together = () if scenes is None else [group for group in scenes.together(dates) if len(group) > 1]
    quality = read_quality(windows.quality, decoding.rule, grid, window, together)
    decoded = MaskedWindow(stack(windows.bands), quality.clear, quality.snow, quality.missing)
    if scenes is None:
        return decoded
    return merge_scenes(decoded, scenes, dates, decoding.scaling, decoding.extras, decoding.valid_range)


def valid_by_band(
    stored: Array, seen: NDArray[np.bool_], clear: NDArray[np.bool_], scaling: Scaling, valid_range: ValidRange | None
) -> NDArray[np.bool_] | None:
    """Return where each band holds a measurement, None if, at every clear pixel, all bands or no band hold one.

    Parameters
    ----------
    stored : ndarray, shape (time, band, y, x)
        Stored values.
    seen : ndarray of bool, shape (time, y, x)
        Clear according to the quality layer.
    clear : ndarray of bool, shape (time, y, x)
        Clear and valid in all bands, see `clear_where`.
    scaling, valid_range
        As in `Decoding`.
    """
    # Date by date: all at once would take as much memory again as the window.
    for date in range(len(stored)):
        lacking = seen[date] & ~clear[date]
        if lacking.any() and (lacking & measured(stored[date], scaling, valid_range, axis=0).any(axis=0)).any():
            return np.stack([measured(image, scaling, valid_range, axis=0) for image in stored])
    return None


def split_extras(stored: Array, extras: tuple[int, ...]) -> tuple[Array, Array | None]:
    """Return the bands of an array (time, band, y, x), and the layers among them that are not bands."""
    if not extras:
        return stored, None
    return np.delete(stored, extras, axis=1), stored[:, list(extras)]


def _crop(seen: Decoded, part: tuple[slice, slice]) -> Decoded:
    return Decoded(seen.clear[(..., *part)], seen.snow[(..., *part)], seen.missing[(..., *part)])


@dataclass(frozen=True, eq=False)
class ClearJob:
    """The clear mask of a cube, block by block.

    Parameters
    ----------
    grid : TileGrid
        Blocks.
    decoding : Decoding
        How the arrays are decoded.
    stored : tuple of (int, dtype), optional
        Number of bands and their type, to return the values as well.
    sensor : str or None
        The sensor, where it is known.
    repair : bool
        Whether the masks are corrected by the series.
    layers : tuple of str
        Layers to return as well: the names of `MASK_CHANGE` and `SCORE`.
    """

    grid: TileGrid
    decoding: Decoding
    stored: tuple[int, np.dtype[np.generic]] | None = None
    sensor: str | None = None
    repair: bool = False
    layers: tuple[str, ...] = ()

    s1_reads = corrected_reads = np.empty(0, np.intp)
    others: tuple[Reader, ...] = ()
    lead: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """Prefix of the tasks' names; not that of one of several outputs."""
        return "cloudfree-clear" if len(self.outputs) == 1 else "cloudfree-masks"

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The clear mask, and the values and layers that are requested."""
        outputs = [Output("clear", ("time", "y", "x"), np.dtype(bool))]
        if self.stored is not None:
            outputs.append(Output("stored", ("time", "band", "y", "x"), self.stored[1]))
        for layer in (MASK_CHANGE, SCORE):
            if layer.name in self.layers:
                outputs.append(Output(layer.name, ("time", "y", "x"), np.dtype(layer.dtype)))
        return tuple(outputs)

    @property
    def reads(self) -> NDArray[np.intp]:
        """All dates, or the scenes of all of them."""
        return self.decoding.reads

    @property
    def sizes(self) -> dict[str, int]:
        """Length of the outputs' dimensions, without rows and columns."""
        return {"time": self.decoding.times.size, "band": 0 if self.stored is None else self.stored[0]}

    def windows(self, box: Box) -> tuple[Box, Box]:
        """Return the windows of a block: of the bands, and of the quality layer in its own pixels."""
        window = repair_window(box, self.grid.cube) if self.repair else box
        return window, quality_window(window, self.decoding.rule, self.grid)

    def run(self, box: Box, windows: Windows) -> tuple[Array, ...]:
        """Compute the clear mask of one block."""
        (window, _), how = self.windows(box), self.decoding
        decoded = decode_window(windows, how, self.grid, window, how.dates)
        part = box.within(window)
        stored, _ = split_extras(decoded.stored[(..., *part)], how.extras)
        seen = decoded.clear[(..., *part)]
        if how.valid_range is not None:
            check_level(stored, seen, how.scaling, how.valid_range, self.sensor)
        clear = clear_where(stored, seen, how.scaling, how.valid_range)
        layers: dict[str, Array] = {}
        if self.repair:
            repaired = repair_masks(decoded, how).crop(how.dates, part)
            clear, layers = repaired.clear, {MASK_CHANGE.name: repaired.change, SCORE.name: repaired.score}
        elif self.layers:
            layers = {
                MASK_CHANGE.name: np.zeros(clear.shape, np.uint8),
                SCORE.name: np.full(clear.shape, np.nan, np.float32),
            }
        values: list[Array] = [clear] if self.stored is None else [clear, decoded.stored[(..., *part)]]
        return (*values, *(layers[output.name] for output in self.outputs if output.name in layers))

    def stream(self, blocks: Iterable[Block]) -> Iterator[tuple[Box, tuple[Array, ...]]]:
        """Compute the clear masks of several blocks."""
        return ((box, self.run(box, windows)) for box, windows in blocks)
