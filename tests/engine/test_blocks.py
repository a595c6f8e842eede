"""Windows of blocks: read from the whole cube, or cut out of those of a region."""

import numpy as np
import pytest

from xr_cloudfree.cube.masks import MaskRule
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.engine.blocks import Windows, as_slice, cut_windows, empty_outputs, read_windows, stack
from xr_cloudfree.engine.clear import ClearJob
from xr_cloudfree.engine.decoding import Decoding
from xr_cloudfree.engine.eager import cut
from xr_cloudfree.engine.grid import Box, TileGrid

RNG = np.random.default_rng(0)


@pytest.fixture
def sources():
    bands = [RNG.random((3, 40, 60), np.float32) for _ in range(2)]
    return Windows(bands, RNG.random((3, 20, 30)) < 0.5)


@pytest.fixture
def job():
    grid = TileGrid((40, 60), (16, 16))
    times = np.arange(3).astype("M8[ns]")
    decoding = Decoding(MaskRule(factor=2, dilate=3), Scaling(1.0, 0.0, None), times)
    return ClearJob(grid, decoding, stored=(2, np.dtype("float32")))


def test_cut_out_of_a_region_is_what_is_read_for_the_block(job, sources):
    region = Box(16, 40, 16, 48)
    held = read_windows(job, region, sources, cut)
    for box in job.grid.blocks(region):
        once, twice = read_windows(job, box, sources, cut), cut_windows(job, box, region, held)
        for a, b in zip(once.arrays, twice.arrays, strict=True):
            np.testing.assert_array_equal(a, b)
        assert once.bands[0].shape[-2:] == box.shape


def test_map_keeps_what_is_what(sources):
    shapes = sources.map(np.shape)
    assert shapes.bands == [(3, 40, 60)] * 2 and shapes.quality == (3, 20, 30) and shapes.s1 == []
    assert len(shapes.arrays) == 3


def test_outputs_have_the_dims_that_the_job_names(job):
    shapes = {name: array.shape for name, array in empty_outputs(job, (5, 7)).items()}
    assert shapes == {"clear": (3, 5, 7), "stored": (3, 2, 5, 7)}


@pytest.mark.parametrize("index", [[0, 1, 2], [4], [1, 3], [2, 1]])
def test_a_run_of_indices_is_a_slice_and_nothing_else(index):
    array = np.arange(10)
    taken = as_slice(np.array(index))
    assert isinstance(taken, slice) == (np.diff(index) == 1).all()
    np.testing.assert_array_equal(array[taken], index)


def test_bands_are_stacked_unless_they_are():
    whole = np.zeros((2, 3, 4, 5))
    assert stack([whole]) is whole
    assert stack([np.zeros((2, 4, 5))] * 3).shape == whole.shape
