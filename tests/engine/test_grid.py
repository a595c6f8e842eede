"""The grid covers every pixel once, sees what it needs and does not know of chunks."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xr_cloudfree.engine.grid import Box, TileGrid
from xr_cloudfree.engine.stitching import ramp

sizes = st.integers(1, 200)


@st.composite
def grids(draw):
    kind = draw(st.sampled_from(["pixel", "core", "taper"]))
    tile = stride = None
    if kind == "taper":
        stride = draw(st.integers(2, 40))
        tile = stride + 2 * draw(st.integers(1, stride // 2))
    elif kind == "core":
        stride, halo = draw(st.integers(1, 40)), draw(st.integers(0, 20))
        tile = stride + 2 * halo
    return TileGrid(
        shape=(draw(sizes), draw(sizes)),
        block=(draw(st.integers(1, 90)), draw(st.integers(1, 90))),
        tile=tile,
        stride=stride,
        taper=kind == "taper",
    )


@given(grids())
def test_blocks_cover_every_pixel_once(grid):
    seen = np.zeros(grid.shape, int)
    for block in grid.blocks():
        seen[block.slices] += 1
    assert (seen == 1).all()
    assert sum(1 for _ in grid.blocks()) == grid.n_blocks == len(grid.chunks[0]) * len(grid.chunks[1])
    assert tuple(map(sum, grid.chunks)) == grid.shape


@given(grids())
def test_tiles_cover_every_pixel_of_a_block(grid):
    for block in list(grid.blocks())[:6]:
        weight = np.zeros(block.shape)
        for tile in grid.tiles(block):
            core = tile.core
            assert core == core.clip(block) and core.clip(tile.extent) == core
            if grid.taper:
                weight[core.within(block)] += np.outer(
                    ramp(core.y0, core.y1, tile.centre[0], grid.tile, grid.stride),
                    ramp(core.x0, core.x1, tile.centre[1], grid.tile, grid.stride),
                )
            else:
                weight[core.within(block)] += 1
        np.testing.assert_allclose(weight, 1, atol=1e-6)


@given(grids())
def test_window_holds_all_tiles_and_lies_in_the_cube(grid):
    for block in list(grid.blocks())[:6]:
        window = grid.window(block)
        assert window.clip(grid.cube) == window
        for tile in grid.tiles(block):
            assert tile.extent.clip(grid.cube) == tile.extent.clip(window)


@given(grids(), st.integers(1, 90), st.integers(1, 90))
def test_a_pixel_has_the_same_tiles_in_whatever_block(grid, by, bx):
    other = TileGrid(grid.shape, (by, bx), grid.tile, grid.stride, grid.taper)
    if grid.tile is None:
        return
    y, x = grid.shape[0] // 2, grid.shape[1] // 2

    def extents(of):
        block = next(b for b in of.blocks() if b.y0 <= y < b.y1 and b.x0 <= x < b.x1)
        return [
            (t.extent, t.centre) for t in of.tiles(block) if t.core.y0 <= y < t.core.y1 and t.core.x0 <= x < t.core.x1
        ]

    assert extents(grid) == extents(other)


def test_blended_tiles_at_the_border_are_as_large_as_inside():
    grid = TileGrid((300, 520), (128, 128), tile=256, stride=128, taper=True)
    assert {tile.extent.shape for block in grid.blocks() for tile in grid.tiles(block)} == {(256, 256)}


def test_a_cube_smaller_than_a_tile_is_one_tile():
    grid = TileGrid((100, 90), (100, 90), tile=256, stride=128, taper=True)
    assert {tile.extent for tile in grid.tiles(grid.cube)} == {grid.cube}


@pytest.mark.parametrize("margin", [0, 3])
def test_box_arithmetic(margin):
    box = Box(2, 5, 4, 9)
    assert box.grow(margin).shape == (3 + 2 * margin, 5 + 2 * margin)
    assert box.within(Box(1, 9, 1, 9)) == (slice(1, 4), slice(3, 8))
