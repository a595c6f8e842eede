"""Corrected masks are made once, by whatever driver, and are the same wherever they are asked for."""

import pickle
from dataclasses import replace

import dask
import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.clouded import DATES, clouded
from tests.support.models import MODELS
from xr_cloudfree.engine import corrections, repairs
from xr_cloudfree.engine.blocks import Windows
from xr_cloudfree.engine.corrections import PATCH, Corrections, RepairJob
from xr_cloudfree.engine.grid import Box, TileGrid
from xr_cloudfree.engine.kept import Kept
from xr_cloudfree.engine.repairs import decode_codes
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.plan import plan_fill
from xr_cloudfree.runner import windows

SHAPE = (330, 270)
BLOCK = (2 * PATCH, PATCH)
TARGETS = [DATES[3], DATES[5]]
# One that looks at single pixels, and one with tiles that reach into other blocks.
each_model = pytest.mark.parametrize("model", ["linear", MODELS["blended"]], ids=["linear", "blended"])


@pytest.fixture
def made(monkeypatch):
    """The boxes whose masks are corrected, in blocks that do not span the cube and with a margin of one cell."""
    boxes = []

    def watched(self, box, windows):
        boxes.append(box)
        return original(self, box, windows)

    original = RepairJob.run
    monkeypatch.setattr(RepairJob, "run", watched)
    monkeypatch.setattr(repairs, "REACH", 32)
    monkeypatch.setattr(corrections, "choose_wide_block", lambda *args: BLOCK)
    return boxes


@pytest.fixture(scope="module")
def cube():
    return clouded("uint16", SHAPE)


def times_made(boxes):
    times = np.zeros(SHAPE, int)
    for box in boxes:
        times[box.slices] += 1
    return times


@pytest.mark.parametrize("block", [128, (128, 256), None])
@each_model
def test_in_memory_each_mask_is_corrected_once(cube, made, model, block):
    da, clear = cube
    xr_cloudfree.fill(da, TARGETS, clear=clear, model=model, repair=True, block=block)
    assert (times_made(made) == 1).all() and max(box.shape for box in made) <= BLOCK


@pytest.mark.parametrize("block", [128, None])
@each_model
def test_in_a_graph_each_mask_is_corrected_once(cube, made, model, block):
    da, clear = cube
    lazy = xr_cloudfree.fill(
        da.chunk(y=100, x=90, time=3), TARGETS, clear=clear.chunk(y=80), model=model, repair=True, block=block
    )
    assert not made
    with dask.config.set(scheduler="synchronous"):
        lazy.compute()
        assert (times_made(made) == 1).all() and len(made) == 3 * 5
        if (model, block) == ("linear", 128):
            made.clear()
            lazy.isel(y=slice(0, 20), x=slice(0, 20)).compute()
            assert sorted(made) == [Box(0, 128, 0, 64), Box(0, 128, 64, 128)]  # what the first block needs


@pytest.mark.parametrize("shard", [128, None])
@each_model
def test_while_streaming_each_mask_is_corrected_once(cube, made, tmp_path, model, shard):
    da, clear = cube
    xr_cloudfree.to_zarr(da, tmp_path / "out.zarr", TARGETS, clear=clear, model=model, repair=True, shard=shard)
    assert (times_made(made) == 1).all()


def layer_of(cube, whole=True):
    da, clear = cube
    plan = plan_fill(da, TARGETS, ReadOptions(clear=clear, repair=True), model="linear")
    sources = Windows([da.variable], plan.info.quality.variable)
    return Corrections(RepairJob.of(plan.job), sources, windows.read, whole)


def test_only_what_a_region_by_itself_needs_is_corrected(cube, made):
    corrected = pickle.loads(pickle.dumps(layer_of(cube, whole=False)))
    box = Box(70, 200, 130, 190)
    corrected.read(np.arange(3), box)
    rounded = Box(64, 256, 128, 192)
    times = times_made(made)
    assert (times[rounded.slices] == 1).all() and times.sum() == 192 * 64
    assert max(box.shape for box in made) <= BLOCK
    made.clear()
    corrected.read(np.arange(8), box)
    assert not made
    corrected.read(np.arange(8), box.grow(30))  # reaches into patches on each side
    times = times_made(made)
    assert times.max() == 1 and times[rounded.slices].sum() <= 192 * 64


def test_what_was_dropped_is_made_again_and_the_same(cube, made):
    corrected, other = layer_of(cube), layer_of(cube)
    other._kept = Kept(limit=1)
    rng = np.random.default_rng(0)
    whole = corrected.read(np.arange(len(DATES)), Box(0, *SHAPE[:1], 0, *SHAPE[1:]))
    for _ in range(8):
        (y0, y1), (x0, x1) = (np.sort(rng.choice(size + 1, 2, replace=False)) for size in SHAPE)
        dates = np.sort(rng.choice(len(DATES), 3, replace=False))
        part = other.read(dates, Box(y0, y1, x0, x1))
        np.testing.assert_array_equal(part, whole[dates][:, y0:y1, x0:x1])
    assert times_made(made).max() > 2


def test_memory_is_that_of_the_largest_part(cube):
    corrected = layer_of(cube)
    assert corrected.memory(Box(0, 64, 0, 64)) >= np.prod(SHAPE) * corrected.job.pixel_bytes
    job = replace(corrected.job, grid=TileGrid(SHAPE, BLOCK))
    parts = Corrections(job, corrected.sources, windows.read)
    assert parts.memory(Box(0, 64, 0, 64)) <= corrected.memory(Box(0, 64, 0, 64))


def test_codes_are_masks(cube):
    da, clear = cube
    codes = layer_of(cube).read(np.arange(len(DATES)), Box(0, 150, 0, 170))
    seen, known, change = decode_codes(codes)
    masks = xr_cloudfree.clear_mask(da, clear=clear, repair=True, layers="mask_change").isel(y=slice(150), x=slice(170))
    np.testing.assert_array_equal(known, masks["clear"])
    np.testing.assert_array_equal(change, masks["mask_change"])
    assert (seen | ~known).all()


def test_several_dates_correct_no_more_than_one(cube, made):
    da, clear = cube
    how = dict(clear=clear, model="linear", repair=True, layers="all")
    one = [xr_cloudfree.fill(da, date, **how) for date in TARGETS]
    per_date = len(made) // len(TARGETS)
    made.clear()
    series = xr_cloudfree.fill(da, TARGETS, **how)
    assert len(made) == per_date
    for i, image in enumerate(one):
        xr.testing.assert_identical(series.isel(time=i), image)
