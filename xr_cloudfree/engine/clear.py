"""The clear mask of a window: read, grown, brought onto the cube's grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.checks import check_level
from xr_cloudfree.cube.masks import Decoded, MaskRule, decode, dilate_not_clear, repeat
from xr_cloudfree.cube.measured import ValidRange, clear_where, measured
from xr_cloudfree.cube.merge import MaskedWindow, Scenes, merge_scenes
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.engine.blocks import Array, Block, Output, stack
from xr_cloudfree.engine.grid import Box, TileGrid


def quality_window(window: Box, rule: MaskRule, grid: TileGrid) -> Box:
    """What must be read of the quality layer, in its own pixels, to know a window of the cube."""
    reach = window.grow(rule.dilate).clip(grid.cube)
    factor = rule.factor
    return Box(reach.y0 // factor, -(-reach.y1 // factor), reach.x0 // factor, -(-reach.x1 // factor))


def read_quality(
    quality: Array, rule: MaskRule, grid: TileGrid, window: Box, together: Sequence[Sequence[int]] = ()
) -> Decoded:
    """The quality layer's meaning in a window, on the cube's grid.

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
        Scenes that will be one date: the cloud of one grows into those that lie beside it.
    """
    read = quality_window(window, rule, grid)
    seen = repeat(decode(quality, rule), rule.factor)
    fine = Box(*(edge * rule.factor for edge in read))
    # The cut to the cube comes before growing: beyond it there is nothing that could grow.
    reach = fine.clip(grid.cube)
    seen = _crop(seen, reach.within(fine))
    if rule.dilate:
        # Only cloud and shadow grow: neither what was not measured, nor snow.
        still = seen.missing | seen.snow
        clear = dilate_not_clear(seen.clear, still, rule.dilate)
        for scenes in map(list, together):
            open_sky = seen.clear[scenes].any(axis=0)
            cloud = np.asarray(~(seen.clear | still)[scenes].all(axis=0) & ~open_sky)
            clear[scenes] &= dilate_not_clear(~cloud, np.zeros_like(cloud), rule.dilate)
        seen = Decoded(clear, seen.snow, seen.missing)
    return _crop(seen, window.within(reach))


def look(
    bands: Sequence[Array],
    quality: Array,
    rule: MaskRule,
    how: Scaling,
    grid: TileGrid,
    window: Box,
    dates: NDArray[np.intp],
    scenes: Scenes | None = None,
    extras: tuple[int, ...] = (),
    valid_range: ValidRange | None = None,
) -> MaskedWindow:
    """What was stored in a window and what of it was seen as clear, one image for each date.

    Parameters
    ----------
    bands : sequence of ndarray
        The window, one array (time, band, y, x) or one (time, y, x) per band.
    quality : ndarray, shape (time, y, x)
        The layer in its `quality_window`.
    rule, how : MaskRule, Scaling
        How both are read.
    grid : TileGrid
        The cube's grid.
    window : Box
        The window.
    dates : ndarray of int
        The dates that are read.
    scenes : Scenes, optional
        Of which scenes they are made; None if each is one.
    extras : tuple of int
        Positions along the band axis of layers that are no bands.
    valid_range : ValidRange, optional
        Which numbers can be measurements; None for all.
    """
    together = () if scenes is None else [group for group in scenes.together(dates) if len(group) > 1]
    read = read_quality(quality, rule, grid, window, together)
    seen = MaskedWindow(stack(bands), read.clear, read.snow, read.missing)
    return seen if scenes is None else merge_scenes(seen, scenes, dates, how, extras, valid_range)


def uneven_bands(
    stored: Array, seen: NDArray[np.bool_], clear: NDArray[np.bool_], how: Scaling, valid_range: ValidRange | None
) -> NDArray[np.bool_] | None:
    """Return where each band holds a measurement, None if at each pixel that was seen all bands do or none does.

    Parameters
    ----------
    stored : ndarray, shape (time, band, y, x)
        Stored values.
    seen : ndarray of bool, shape (time, y, x)
        What the quality layer calls clear.
    clear : ndarray of bool, shape (time, y, x)
        What of it has all bands, see `clear_where`.
    how, valid_range
        As `look` takes them.
    """
    # Date by date: all at once would take as much memory again as the window.
    for date in range(len(stored)):
        lacking = seen[date] & ~clear[date]
        if lacking.any() and (lacking & measured(stored[date], how, valid_range, axis=0).any(axis=0)).any():
            return np.stack([measured(one, how, valid_range, axis=0) for one in stored])
    return None


def bands_alone(stored: Array, extras: tuple[int, ...]) -> tuple[Array, Array | None]:
    """Return the bands of an array (time, band, y, x), and the layers among them that are none."""
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
    rule : MaskRule
        How the quality layer is read.
    scaling : Scaling
        Which stored values are missing.
    n_times : int
        Number of dates.
    scenes : Scenes, optional
        Of which scenes they are made; None if each is one.
    stored : tuple of (int, dtype), optional
        Number of bands and their type, to give the values as well.
    extras : tuple of int
        Positions along the arrays' band axis of layers that are no bands.
    valid_range : ValidRange or None
        Which numbers can be measurements; None for all.
    sensor : str or None
        The sensor, where it is known.
    """

    grid: TileGrid
    rule: MaskRule
    scaling: Scaling
    n_times: int
    scenes: Scenes | None = None
    stored: tuple[int, np.dtype[np.generic]] | None = None
    extras: tuple[int, ...] = ()
    valid_range: ValidRange | None = None
    sensor: str | None = None

    s1_reads = np.empty(0, np.intp)
    lead: tuple[int, ...] = ()

    @property
    def name(self) -> str:
        """What tasks are called: not as one of several outputs is."""
        return "cloudfree-clear" if self.stored is None else "cloudfree-merge"

    @property
    def outputs(self) -> tuple[Output, ...]:
        """The clear mask, and the values if they are asked for."""
        clear = Output("clear", ("time", "y", "x"), np.dtype(bool))
        return (
            (clear,) if self.stored is None else (clear, Output("stored", ("time", "band", "y", "x"), self.stored[1]))
        )

    @property
    def reads(self) -> NDArray[np.intp]:
        """All dates, or the scenes of all of them."""
        return np.arange(self.n_times if self.scenes is None else self.scenes.n_scenes)

    @property
    def sizes(self) -> dict[str, int]:
        """Length of the outputs' dimensions, without rows and columns."""
        return {"time": self.n_times, "band": 0 if self.stored is None else self.stored[0]}

    def windows(self, box: Box) -> tuple[Box, Box]:
        """What must be read for a block: of the bands, and of the quality layer in its own pixels."""
        return box, quality_window(box, self.rule, self.grid)

    def run(self, box: Box, bands: Sequence[Array], quality: Array, s1: Sequence[Array] = ()) -> tuple[Array, ...]:
        """The clear mask of one block."""
        dates = np.arange(self.n_times)
        how = self.scaling, self.grid, box, dates, self.scenes, self.extras, self.valid_range
        seen = look(bands, quality, self.rule, *how)
        stored, _ = bands_alone(seen.stored, self.extras)
        if self.valid_range is not None:
            check_level(stored, seen.clear, self.scaling, self.valid_range, self.sensor)
        clear = clear_where(stored, seen.clear, self.scaling, self.valid_range)
        return (clear,) if self.stored is None else (clear, seen.stored)

    def stream(self, blocks: Iterable[Block]) -> Iterator[tuple[Box, tuple[Array, ...]]]:
        """The clear masks of several blocks."""
        return ((box, self.run(box, bands, quality)) for box, bands, quality, _ in blocks)
