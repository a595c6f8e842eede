"""Tiles put together: what is said of a pixel holds for the blend."""

import numpy as np
import pytest

from xr_cloudfree.engine.answers import Answer
from xr_cloudfree.engine.grid import TileGrid
from xr_cloudfree.engine.stitching import stitch
from xr_cloudfree.models.protocol import Prediction


@pytest.mark.parametrize(("left", "right", "both"), [(1, 1, 1), (1, 2, -1), (1, -1, -1), (-1, -1, -1)])
def test_a_date_is_the_source_of_a_blend_if_it_is_that_of_all_tiles(left, right, both):
    grid = TileGrid((32, 48), (32, 48), tile=32, stride=16, taper=True)
    tiles = list(grid.tiles(grid.cube))
    answers = []
    for tile in tiles:
        shape = tile.extent.shape
        source = np.full(shape, left if tile.centre[1] <= 16 else right, np.int16)
        answers.append(Answer(tile.extent, Prediction(np.zeros((1, *shape), np.float32), np.ones(shape, bool), source)))
    found = stitch(grid, grid.cube, tiles, answers).source
    assert found is not None
    near = [tile.centre[1] for tile in tiles]
    assert min(near) <= 16 < max(near)
    assert (found[:, 0] == left).all() and (found[:, -1] == right).all()
    blended = [x for x in range(48) if 16.5 < x + 0.5 < 31.5]
    assert (found[:, blended] == both).all()


def test_a_tile_that_knows_nothing_of_a_pixel_has_no_say_in_its_source():
    grid = TileGrid((32, 48), (32, 48), tile=32, stride=16, taper=True)
    tiles = list(grid.tiles(grid.cube))
    answers = []
    for tile in tiles:
        shape, first = tile.extent.shape, tile.centre[1] <= 16
        source = np.full(shape, 1 if first else 2, np.int16)
        answers.append(
            Answer(tile.extent, Prediction(np.zeros((1, *shape), np.float32), np.full(shape, first), source))
        )
    found = stitch(grid, grid.cube, tiles, answers)
    assert found.source is not None
    assert (found.source[found.known] == 1).all() and (found.source[~found.known] == -1).all()
