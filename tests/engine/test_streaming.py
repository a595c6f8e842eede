"""A region from its windows in memory is what the eager driver makes of the whole cube."""

import numpy as np
import pytest

from tests.support.cubes import make_cube
from tests.support.models import TileWide
from xr_cloudfree.engine.blocks import Windows, read_windows
from xr_cloudfree.engine.eager import cut, run_eager
from xr_cloudfree.engine.grid import Box
from xr_cloudfree.engine.streaming import run_region
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.plan import plan_fill


@pytest.mark.parametrize(("model", "threads"), [(TileWide(), 1), ("linear", 1), ("linear", 4)])
def test_a_region_is_part_of_the_whole(model, threads):
    da, clear = make_cube()
    reading = ReadOptions(clear=clear)
    plan = plan_fill(da, ["2021-06-03", "2021-06-15"], reading, model=model, block=16, layers="all")
    sources = Windows([plan.info.cube.arrays[0].data], plan.info.quality.data)
    whole = run_eager(plan.job, sources)
    region = Box(16, 48, 0, 32)
    windows = read_windows(plan.job, region, sources, cut)
    part = run_region(plan.job, region, windows, threads=threads)
    for name, array in part.items():
        np.testing.assert_array_equal(array, whole[name][(..., *region.slices)])
