"""Each tile is computed once, by whatever driver, and what is kept of it is what blocks to come need."""

from concurrent.futures import ThreadPoolExecutor
from threading import Lock

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xr_cloudfree
from tests.support.cubes import make_cube
from tests.support.models import Blended
from tests.support.strategies import chunkings
from xr_cloudfree.engine.answers import Answer, Answers, parts_of
from xr_cloudfree.engine.blocks import Windows, read_windows
from xr_cloudfree.engine.eager import cut
from xr_cloudfree.engine.fill import fill_blocks
from xr_cloudfree.engine.grid import Box, TileGrid
from xr_cloudfree.engine.streaming import run_region
from xr_cloudfree.models.protocol import Prediction
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.plan import plan_fill
from xr_cloudfree.runner import local, regions
from xr_cloudfree.runner import plan as plans

DATES = ["2021-06-03", "2021-06-15"]
N_TILES = 9  # those of the cube that differ
BLOCKS = [16, 32, (48, 16), (16, 64), None]
few = settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))


class Counted(Blended):
    """Counts the tiles that it is asked for, and fails at one of them."""

    def __init__(self, fails=None):
        self.run, self.fails, self.lock = 0, fails, Lock()

    def predict(self, tiles):
        with self.lock:
            self.run += len(tiles)
            if self.run == self.fails:
                raise RuntimeError("no answer")
        return super().predict(tiles)


@pytest.fixture(scope="module")
def expected():
    da, clear = make_cube()
    return xr_cloudfree.fill(da, DATES, clear=clear, model=Blended(), layers="all")


def how(model, **options):
    return {"clear": make_cube()[1], "model": model, "layers": "all"} | options


@pytest.mark.parametrize("block", BLOCKS)
def test_in_memory(expected, block):
    model = Counted()
    found = xr_cloudfree.fill(make_cube()[0], DATES, **how(model, block=block))
    xr.testing.assert_identical(found, expected)
    assert model.run == N_TILES * len(DATES)


@few
@given(chunks=chunkings(), y=st.integers(1, 4), x=st.integers(1, 4))
def test_in_a_graph(expected, chunks, y, x):
    model = Counted()
    lazy = xr_cloudfree.fill(make_cube()[0].chunk(chunks), DATES, **how(model, block=(16 * y, 16 * x)))
    xr.testing.assert_identical(lazy.compute(scheduler="synchronous"), expected)
    assert model.run == N_TILES * len(DATES)


def test_a_part_of_a_graph_asks_for_no_more_than_its_tiles(expected):
    model = Counted()
    lazy = xr_cloudfree.fill(make_cube()[0].chunk(y=20), DATES, **how(model, block=16))
    corner = {"y": slice(0, 8), "x": slice(0, 8)}
    with dask.config.set(scheduler="synchronous"):
        xr.testing.assert_identical(lazy.isel(corner).compute(), expected.isel(corner))
    assert model.run < N_TILES * len(DATES)


def test_the_graph_of_a_granule_is_small():
    """For each block one task finishes it, one answers its tiles, and up to four take out what blocks need of them."""
    band = dask.array.zeros((3, 10980, 10980), chunks=(1, 2745, 2745), dtype="uint16")
    cube = xr.Dataset({name: (("time", "y", "x"), band) for name in ("red", "nir")})
    cube = cube.assign_coords(time=np.array(["2021-06-03", "2021-06-10", "2021-06-15"], "M8[ns]"))
    clear = cube["red"] > 0
    image = xr_cloudfree.fill(cube, DATES[0], clear=clear, model="regress", scale=1e-4, nodata=0, block=320)
    n_blocks = 35 * 35
    tasks = sum(len(layer) for name, layer in image["red"].data.dask.layers.items() if "regress" in name)
    assert n_blocks < tasks <= 6 * n_blocks


@pytest.mark.parametrize("shard", BLOCKS)
def test_while_streaming(expected, tmp_path, shard):
    model = Counted()
    found = xr_cloudfree.to_zarr(make_cube()[0], tmp_path / "out.zarr", DATES, **how(model, shard=shard)).load()
    for name in ("reflectance", "filled", "n_clear"):
        np.testing.assert_array_equal(found[name], expected[name])
    assert model.run == N_TILES * len(DATES)


@pytest.mark.parametrize("threads", [1, 3])
def test_a_region_by_itself_asks_for_its_own_tiles(expected, threads):
    model = Counted()
    da, clear = make_cube()
    plan = plan_fill(da, DATES, ReadOptions(clear=clear), model=model, block=16, layers="all")
    sources = Windows([plan.info.cube.arrays[0].data], plan.info.quality.data)
    region = Box(16, 48, 16, 48)
    part = run_region(plan.job, region, read_windows(plan.job, region, sources, cut), threads=threads)
    np.testing.assert_array_equal(part["reflectance"], expected["reflectance"].to_numpy()[(..., *region.slices)])
    assert model.run == len(parts_of(plan.job.grid, region)) * len(DATES)


def test_blocks_by_themselves_share_nothing(expected):
    model = Counted()
    da, clear = make_cube()
    plan = plan_fill(da, DATES, ReadOptions(clear=clear), model=model, block=16)
    sources = Windows([plan.info.cube.arrays[0].data], plan.info.quality.data)
    grid = plan.job.grid
    blocks = ((box, read_windows(plan.job, box, sources, cut)) for box in grid.blocks())
    assert len(list(fill_blocks(plan.job, blocks))) == grid.n_blocks
    assert model.run == sum(len(parts_of(grid, box)) for box in grid.blocks()) * len(DATES) > N_TILES * len(DATES)


def test_a_run_that_is_continued_asks_only_for_what_it_lacks(expected, tmp_path, monkeypatch):
    da, _ = make_cube()

    def broken(plan, index):
        if index == 5:
            raise OSError("the disk")
        return read(plan, index)

    read = regions.read_windows
    monkeypatch.setattr(local, "read_windows", broken)
    with pytest.raises(Exception, match="the disk"):
        xr_cloudfree.to_zarr(da, tmp_path / "out.zarr", DATES, **how(Counted(), shard=16))
    monkeypatch.undo()
    model = Counted()
    found = xr_cloudfree.to_zarr(da, tmp_path / "out.zarr", DATES, **how(model, shard=16)).load()
    np.testing.assert_array_equal(found["reflectance"], expected["reflectance"])
    assert 0 < model.run <= 9 * len(DATES)


def test_after_an_error_of_the_model_nothing_that_was_not_answered_is_used(expected, tmp_path):
    da, _ = make_cube()
    with pytest.raises(Exception, match="no answer"):
        xr_cloudfree.to_zarr(da, tmp_path / "out.zarr", DATES, **how(Counted(fails=8), shard=16))
    assert xr_cloudfree.verify(tmp_path / "out.zarr").unfinished
    found = xr_cloudfree.to_zarr(da, tmp_path / "out.zarr", DATES, **how(Counted(), shard=16)).load()
    np.testing.assert_array_equal(found["reflectance"], expected["reflectance"])


def test_strips_of_a_wide_cube_bound_what_is_kept(expected, tmp_path, monkeypatch):
    da, _ = make_cube()
    monkeypatch.setattr(plans, "SHARED_BYTES", 1)
    model = Counted()
    found = xr_cloudfree.to_zarr(da, tmp_path / "out.zarr", DATES, **how(model, shard=32)).load()
    np.testing.assert_array_equal(found["reflectance"], expected["reflectance"])
    # Two strips of one column: 9 tiles, of which the 3 between them are answered twice.
    assert N_TILES * len(DATES) < model.run <= (N_TILES + 6) * len(DATES)


@few
@given(st.data())
def test_what_is_kept_is_what_blocks_to_come_need(data):
    stride = data.draw(st.integers(2, 8)) * 2
    tile = stride + 2 * data.draw(st.integers(1, stride // 2))
    grid = TileGrid(
        (data.draw(st.integers(1, 100)), data.draw(st.integers(1, 100))),
        (stride * data.draw(st.integers(1, 4)), stride * data.draw(st.integers(1, 4))),
        tile,
        stride,
        taper=True,
    )
    blocks = data.draw(st.permutations(list(grid.blocks())))
    answers, asked = Answers(grid), []
    for i, block in enumerate(blocks):
        needed = answers.begin(block)
        found, new = answers.of(0, parts_of(grid, block), needed)
        asked += new
        for extent, part in parts_of(grid, block).items():
            answer = found[extent]
            if extent in new:
                answer.prediction = Prediction(np.zeros((1, *extent.shape), np.float32), np.ones(extent.shape, bool))
            assert part.clip(answer.extent) == part
            assert answer.prediction.known.shape == answer.extent.shape
        answers.finish(0, needed)
        rest = [parts_of(grid, other) for other in blocks[i + 1 :]]
        assert {extent for _, extent in answers._kept} <= {extent for parts in rest for extent in parts}
    assert not answers._kept and len(asked) == len(set(asked))


def test_an_answer_is_cut_with_all_its_layers():
    shape = (4, 6)
    bands = np.arange(48, dtype=np.float32).reshape(2, *shape)
    whole = Prediction(bands, bands[0] > 3, bands[0].astype(np.int16), bands + 1, bands[:1])
    part = Answer(Box(10, 14, 20, 26), whole).crop(Box(11, 13, 20, 23)).prediction
    for name in ("bands", "known", "source", "uncertainty", "gate"):
        array = getattr(part, name)
        np.testing.assert_array_equal(array, getattr(whole, name)[..., 1:3, :3])
        assert array.base is None


def test_threads_answer_the_same(expected):
    da, clear = make_cube()
    with ThreadPoolExecutor(3) as pool:
        lazy = xr_cloudfree.fill(da.chunk(y=10, x=10), DATES, clear=clear, model=Blended(), layers="all", block=16)
        xr.testing.assert_identical(lazy.compute(scheduler="threads", pool=pool), expected)
