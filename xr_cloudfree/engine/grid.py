"""The geometry of blocks, tiles and windows, in pixels.

The grid is anchored to pixel (0, 0) of the cube and does not use the storage layout, so results cannot depend on
chunks.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import NamedTuple


class Box(NamedTuple):
    """Rows ``y0:y1`` and columns ``x0:x1`` of the cube; may reach beyond it."""

    y0: int
    y1: int
    x0: int
    x1: int

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.y1 - self.y0, self.x1 - self.x0

    @property
    def slices(self) -> tuple[slice, slice]:
        """Slices of rows and columns in the cube."""
        return slice(self.y0, self.y1), slice(self.x0, self.x1)

    def within(self, outer: Box) -> tuple[slice, slice]:
        """Return the slices of this box in an array that holds `outer`."""
        return (
            slice(self.y0 - outer.y0, self.y1 - outer.y0),
            slice(self.x0 - outer.x0, self.x1 - outer.x0),
        )

    def clip(self, outer: Box) -> Box:
        """Return the part that lies in `outer`."""
        return Box(max(self.y0, outer.y0), min(self.y1, outer.y1), max(self.x0, outer.x0), min(self.x1, outer.x1))

    def grow(self, margin: int) -> Box:
        """Return the box with a margin on each side."""
        return Box(self.y0 - margin, self.y1 + margin, self.x0 - margin, self.x1 + margin)

    def snap(self, rows: int, columns: int) -> Box:
        """Return the smallest box around this one whose edges are multiples of some rows and columns.

        Examples
        --------
        >>> Box(5, 64, 64, 65).snap(32, 64)
        Box(y0=0, y1=64, x0=64, x1=128)
        """
        return Box(
            self.y0 // rows * rows,
            -(-self.y1 // rows) * rows,
            self.x0 // columns * columns,
            -(-self.x1 // columns) * columns,
        )


def surround(boxes: Iterable[Box]) -> Box:
    """Return the smallest box that holds some boxes.

    Examples
    --------
    >>> surround([Box(0, 2, 5, 9), Box(1, 3, 0, 4)])
    Box(y0=0, y1=3, x0=0, x1=9)
    """
    y0, y1, x0, x1 = zip(*boxes, strict=True)
    return Box(min(y0), max(y1), min(x0), max(x1))


def middle(shape: tuple[int, int], size: int) -> Box:
    """Return the middle of a cube, at most `size` pixels along rows and columns.

    Examples
    --------
    >>> middle((100, 40), 50)
    Box(y0=25, y1=75, x0=0, x1=40)
    """
    y0, x0 = (max((length - size) // 2, 0) for length in shape)
    return Box(y0, min(y0 + size, shape[0]), x0, min(x0 + size, shape[1]))


class Tile(NamedTuple):
    """One input of a model.

    `extent` is the box of the input, `core` the pixels to which its prediction may contribute. `centre` is the pixel
    at which the weight of a blended tile peaks.
    """

    extent: Box
    core: Box
    centre: tuple[int, int]


@dataclass(frozen=True)
class TileGrid:
    """Blocks and tiles of a cube.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the cube.
    block : tuple of int
        Rows and columns of an output block, the work of one task.
    tile : int or None
        Edge of a tile, or None for models that treat each pixel by itself: the block is then the tile.
    stride : int or None
        Distance between tiles.
    taper : bool
        Whether neighbouring tiles are blended (see `ModelSpec`).

    Examples
    --------
    >>> grid = TileGrid(shape=(300, 300), block=(256, 256), tile=256, stride=128, taper=True)
    >>> [block for block in grid.blocks()][-1]
    Box(y0=256, y1=300, x0=256, x1=300)
    >>> grid.window(Box(256, 300, 256, 300))
    Box(y0=44, y1=300, x0=44, x1=300)
    """

    shape: tuple[int, int]
    block: tuple[int, int]
    tile: int | None = None
    stride: int | None = None
    taper: bool = False

    @property
    def cube(self) -> Box:
        """The whole cube."""
        return Box(0, self.shape[0], 0, self.shape[1])

    @property
    def chunks(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Sizes of the blocks along rows and columns, in dask's form."""
        rows, columns = (
            tuple(min(block, size - start) for start in range(0, size, block))
            for size, block in zip(self.shape, self.block, strict=True)
        )
        return rows, columns

    @property
    def n_blocks(self) -> int:
        """Number of blocks."""
        (ny, nx), (by, bx) = self.shape, self.block
        return -(-ny // by) * -(-nx // bx)

    def blocks(self, part: Box | None = None) -> Iterator[Box]:
        """Yield the blocks, row by row: of the cube, covering each pixel once, or of a part made of whole blocks."""
        by, bx = self.block
        part = part or self.cube
        for y in range(part.y0, part.y1, by):
            for x in range(part.x0, part.x1, bx):
                yield Box(y, y + by, x, x + bx).clip(self.cube)

    def tiles(self, block: Box) -> list[Tile]:
        """Return the tiles that the pixels of a block need, row by row."""
        if self.tile is None or self.stride is None:
            return [Tile(block, block, ((block.y0 + block.y1) // 2, (block.x0 + block.x1) // 2))]
        along = self._blended if self.taper else self._cored
        rows = along(block.y0, block.y1, self.shape[0])
        columns = along(block.x0, block.x1, self.shape[1])
        return [
            Tile(Box(*ye, *xe), Box(*yc, *xc).clip(block), (ym, xm)) for ye, yc, ym in rows for xe, xc, xm in columns
        ]

    def window(self, block: Box) -> Box:
        """Return the window of a block: the box of its tiles, clipped to the cube."""
        return surround(tile.extent for tile in self.tiles(block)).clip(self.cube)

    def _cored(self, start: int, stop: int, size: int) -> list[tuple[tuple[int, int], tuple[int, int], int]]:
        """Return tiles along one axis whose cores are kept; extents may reach beyond the cube and are padded there."""
        assert self.tile is not None and self.stride is not None
        halo = (self.tile - self.stride) // 2
        tiles = []
        for k in range(start // self.stride, -(-stop // self.stride)):
            first = k * self.stride
            core = (first, min(first + self.stride, size))
            tiles.append(((first - halo, first + self.stride + halo), core, first + self.stride // 2))
        return tiles

    def _blended(self, start: int, stop: int, size: int) -> list[tuple[tuple[int, int], tuple[int, int], int]]:
        """Return tiles along one axis with centres at multiples of the stride, moved inwards at the cube's border.

        Moving them keeps the first and the last tile as large as the others, so that a fit at the border uses as many
        pixels as one inside. The weights stay with the centres.
        """
        assert self.tile is not None and self.stride is not None
        before, after = self.tile // 2, self.tile - self.tile // 2
        tiles = []
        for k in range((start - after) // self.stride + 1, (stop - 1 + before) // self.stride + 1):
            centre = k * self.stride
            first = min(max(centre - before, 0), max(size - self.tile, 0))
            reach = (max(centre - before, 0), min(centre + after, size))
            if reach[0] < reach[1]:
                tiles.append(((first, min(first + self.tile, size)), reach, centre))
        return tiles


def choose_block(
    shape: tuple[int, int],
    bytes_per_pixel: int,
    stride: int | None = None,
    chunks: tuple[int, int] | None = None,
    budget: int = 96 * 2**20,
    most_with_halo: int = 256,
) -> tuple[int, int]:
    """Choose the rows and columns of a block: as large as memory allows, aligned with tiles and, if possible, chunks.

    The choice affects memory and how often a chunk is read, never the result.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the cube.
    bytes_per_pixel : int
        Bytes that a task holds for one pixel, all dates and bands together.
    stride : int, optional
        Distance between tiles; edges of blocks are multiples of it.
    chunks : tuple of int, optional
        Rows and columns of the source's chunks.
    budget : int
        Bytes that a block's pixels may take.
    most_with_halo : int
        Greatest edge of a block of a chunked cube, for tiles that reach beyond the block.

    Examples
    --------
    >>> choose_block((10980, 10980), bytes_per_pixel=192, chunks=(1024, 1024))
    (512, 512)
    >>> choose_block((10980, 10980), bytes_per_pixel=192, stride=128, chunks=(1024, 1024))
    (256, 256)
    """
    unit = stride or 64
    most = max(int((budget / max(bytes_per_pixel, 1)) ** 0.5) // unit, 1) * unit
    if stride is not None and chunks is not None:
        # Blocks with a halo keep their neighbours' chunks in memory; small blocks keep fewer of them at a time. Dask
        # held a quarter of a cube with blocks of 256, and half of it with blocks of 512 (benchmarks/memory.py).
        most = min(most, max(most_with_halo // unit, 1) * unit)
    edges = []
    for size, chunk in zip(shape, chunks or shape, strict=True):
        edge = most
        if chunk <= most and chunk % unit == 0:
            edge = most // chunk * chunk
        elif chunk > most:
            # A chunk is held until its last block is done; blocks that divide it release it soonest.
            parts = [n for n in range(unit, most * 5 // 4 + 1, unit) if chunk % n == 0]
            edge = max(parts, default=most)
        edges.append(min(edge, -(-size // unit) * unit))
    return edges[0], edges[1]


def choose_wide_block(
    shape: tuple[int, int], bytes_per_pixel: int, stride: int | None, margin: int, most: int = 2048
) -> tuple[int, int]:
    """Choose the rows and columns of a block whose window has a margin on each side, as where masks are corrected.

    Of the blocks whose windows take up to 1 GiB, or up to what a square block as wide as the margin takes, those that
    repeat the margins least: as large as possible, and across the whole cube if it is narrow.

    Parameters
    ----------
    shape : tuple of int
        Rows and columns of the cube.
    bytes_per_pixel : int
        Bytes that a task holds for one pixel of the window.
    stride : int or None
        Distance between tiles; edges of blocks are multiples of it.
    margin : int
        Pixels of the window on each side of the block.
    most : int
        Greatest edge of a block.

    Examples
    --------
    >>> choose_wide_block((10980, 10980), bytes_per_pixel=1000, stride=None, margin=64)
    (1152, 704)
    >>> choose_wide_block((10980, 400), bytes_per_pixel=1000, stride=None, margin=64)
    (1856, 448)
    """
    unit = stride or 64
    least = -(-margin // unit) * unit
    limit = max(2**30 // max(bytes_per_pixel, 1), (least + 2 * margin) ** 2)

    def candidates(size: int) -> Iterator[tuple[int, int, float]]:
        """Yield edges of blocks, with the rows of the largest window, and those of all for each row of the cube."""
        for edge in range(unit, min(most, size + unit - 1) // unit * unit + 1, unit):
            count = -(-size // edge)
            even = -(-size // (count * unit)) * unit  # with blocks of about the same size
            windows = [min(start + even + margin, size) - max(start - margin, 0) for start in range(0, size, even)]
            yield even, max(windows), sum(windows) / size

    fitting = [
        (repeated_y * repeated_x, (-y, -x))
        for y, rows, repeated_y in candidates(shape[0])
        for x, columns, repeated_x in candidates(shape[1])
        if rows * columns <= limit
    ]
    _, (height, width) = min(fitting)
    return -height, -width
