"""Corrected masks are the same under any chunks, blocks, order of dates and way to run, and do what they say."""

from functools import partial

import dask
import numpy as np
import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xr_cloudfree
from tests.support.clouded import ALARM, CLOUD, CLOUDED, DATES, clouded
from xr_cloudfree import io
from xr_cloudfree.engine import corrections
from xr_cloudfree.layers import FILLED, OBSERVED
from xr_cloudfree.masking.repair import REACH, Change

TARGET = DATES[CLOUDED]
MODELS = ["linear", "regress"]
few = settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
sizes = st.integers(10, 180)  # with many thousand chunks dask takes longer to order the tasks than these take


@pytest.fixture(scope="module")
def cube():
    return clouded()


def fill(cube, date=TARGET, *, model="linear", layers="all", **options):
    da, clear = cube
    options = {"clear": clear} | options
    return xr_cloudfree.fill(da, date, model=model, layers=layers, repair=True, **options)


@pytest.mark.parametrize("model", MODELS)
@few
@given(y=sizes, x=sizes, mask_x=sizes, time=st.integers(1, 8))
def test_chunks_change_nothing(cube, model, y, x, mask_x, time):
    da, clear = cube
    lazy = fill((da.chunk(y=y, x=x, time=time), clear.chunk(x=mask_x)), model=model)
    assert all(variable.chunks is not None for variable in lazy.data_vars.values())
    xr.testing.assert_identical(fill(cube, model=model), lazy.compute(scheduler="synchronous"))


@pytest.mark.parametrize("model", MODELS)
@few
@given(y=st.integers(1, 5), x=st.integers(1, 5))
def test_blocks_change_nothing(cube, model, y, x):
    stride = xr_cloudfree.models.registry.create(model).spec.stride or 37
    xr.testing.assert_identical(fill(cube, model=model), fill(cube, model=model, block=(y * stride, x * stride)))


@pytest.mark.slow
@pytest.mark.parametrize("mask", ["given", "series"])
def test_windows_that_do_not_span_the_cube_change_nothing(mask, monkeypatch):
    """What masks are corrected from is less than the cube here."""
    shape = (2 * REACH + 160, 2 * REACH + 100)
    da, clear = clouded(shape=shape)
    how = {"clear": clear} if mask == "given" else {"clear": None, "mask": "series"}
    whole = fill((da, clear), **how)
    monkeypatch.setattr(corrections, "choose_wide_block", lambda *args: (128, 192))
    for block in (128, (200, 320)):
        xr.testing.assert_identical(whole, fill((da, clear), block=block, **how))
    lazy = fill((da.chunk(y=150, x=90, time=3), clear.chunk(x=70)), block=128, **how)
    far = {"y": slice(shape[0] - 40, None), "x": slice(shape[1] - 50, None)}
    corner = lazy.isel(far).compute(scheduler="synchronous")
    xr.testing.assert_identical(whole.isel(far), corner)


@pytest.mark.parametrize("mask", ["given", "series"])
@few
@given(order=st.permutations(range(len(DATES))))
def test_the_order_of_dates_changes_nothing(cube, mask, order):
    da, clear = cube
    how = {} if mask == "given" else {"clear": None, "mask": "series"}
    shuffled = fill((da.isel(time=order), clear.isel(time=order)), **how)
    xr.testing.assert_identical(fill(cube, **how), shuffled)


@pytest.mark.parametrize("window", [None, 20])
def test_a_single_date_is_as_in_a_series(cube, window):
    series = fill(cube, None, window=window)
    for i, date in enumerate(DATES):
        xr.testing.assert_identical(series.isel(time=i), fill(cube, date, window=window))


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("mask", ["given", "series"])
def test_each_way_to_run_gives_the_same(tmp_path, dtype, mask):
    da, clear = clouded(dtype)
    source = io.for_zarr(xr.Dataset({"reflectance": da, "good": clear}))
    source.to_zarr(tmp_path / "cube.zarr", zarr_format=3, consolidated=False)
    how = dict(model="linear", layers="all", repair=True)
    how |= {"clear": "good"} if mask == "given" else {"mask": "series"}
    opened = io.open_cube(tmp_path / "cube.zarr")
    eager = xr_cloudfree.fill(opened.load(), None, **how)
    xr.testing.assert_identical(eager, xr_cloudfree.fill(io.open_cube(tmp_path / "cube.zarr"), None, **how).load())
    io.write(eager, tmp_path / "eager.zarr")
    expected = io.open_store(tmp_path / "eager.zarr").load()
    for shard in (None, 64):
        for run in (xr_cloudfree.to_zarr, partial(xr_cloudfree.batch, progress=False)):
            found = run(tmp_path / "cube.zarr", tmp_path / "out.zarr", None, shard=shard, overwrite=True, **how)
            xr.testing.assert_identical(found.load(), expected)


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
def test_masked_pixels_are_filled_and_restored_ones_are_kept_bit_for_bit(dtype):
    da, clear = clouded(dtype)
    own, given_clear = da.isel(time=CLOUDED).to_numpy(), clear.isel(time=CLOUDED).to_numpy()
    image = fill((da, clear))
    change, filled = image["mask_change"].to_numpy(), image["filled"].to_numpy()
    assert (change[CLOUD] == Change.CLOUD).any() and (change[ALARM] == Change.RESTORED).all()
    masked = np.isin(change, [Change.CLOUD, Change.SHADOW])
    restored = change == Change.RESTORED
    assert given_clear[masked].all() and not given_clear[restored].any()
    np.testing.assert_array_equal(filled == OBSERVED, (given_clear & ~masked) | restored)
    assert (filled[masked] == FILLED).all()
    observed = filled == OBSERVED
    np.testing.assert_array_equal(image["reflectance"].to_numpy()[:, observed], own[:, observed])
    flags = image["mask_change"].attrs
    assert flags["flag_meanings"].split() == ["as_given", "masked_cloud", "masked_shadow", "restored"]
    assert flags["flag_values"].tolist() == [change.value for change in Change]


def test_the_layers_of_each_date_see_the_corrected_masks(cube):
    masks = xr_cloudfree.clear_mask(cube[0], clear=cube[1], repair=True, layers=["mask_change", "score"])
    image = fill(cube)
    np.testing.assert_array_equal(image["n_clear"], masks["clear"].sum("time"))
    np.testing.assert_array_equal(image["filled"] == OBSERVED, masks["clear"].isel(time=CLOUDED))
    np.testing.assert_array_equal(image["mask_change"], masks["mask_change"].isel(time=CLOUDED))
    days = abs(DATES - TARGET) / np.timedelta64(1, "D")
    nearest = np.where(masks["clear"], days[:, None, None], np.inf).min(axis=0)
    np.testing.assert_array_equal(abs(image["days_to_clear"]), nearest)


@few
@given(y=sizes, x=sizes, time=st.integers(1, 8))
def test_clear_masks_are_the_same_under_any_chunks(cube, y, x, time):
    da, clear = cube
    how = dict(repair=True, layers=["mask_change", "score"])
    whole = xr_cloudfree.clear_mask(da, clear=clear, **how)
    with dask.config.set(scheduler="synchronous"):
        lazy = xr_cloudfree.clear_mask(da.chunk(y=y, x=x, time=time), clear=clear.chunk(x=x), **how)
        xr.testing.assert_identical(whole, lazy.compute())


def test_a_date_that_was_not_observed_has_no_change(cube):
    assert not fill(cube, "2021-06-20").mask_change.any()


def test_scenes_of_a_day_are_merged_first():
    da, clear = clouded()
    halves = [da.where(da.x < 500_900), da.where(da.x >= 500_900).assign_coords(time=da.time + np.timedelta64(30, "s"))]
    scenes = xr.concat(halves, "time")
    masks = xr.concat([clear, clear.assign_coords(time=halves[1].time)], "time")
    whole = fill((da, clear), None)
    merged = fill((scenes, masks), None, merge="day", block=64)
    for name in ("reflectance", "mask_change", "filled"):
        np.testing.assert_array_equal(whole[name], merged[name])
