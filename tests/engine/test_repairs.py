"""What the correction of masks is given, how large its windows are, and which pixels it may change."""

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.clouded import CLOUD, CLOUDED, DATES, SHAPE, clouded
from tests.support.cubes import as_dataset
from xr_cloudfree import errors
from xr_cloudfree.engine import repairs
from xr_cloudfree.engine.grid import Box, choose_wide_block
from xr_cloudfree.engine.repairs import repair_window
from xr_cloudfree.masking.context import CELL
from xr_cloudfree.masking.repair import REACH, Change, Repaired, repair
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.plan import plan_fill

CUBE = Box(0, 1000, 0, 700)


@pytest.fixture
def given(monkeypatch):
    """What `repair` was called with: the arguments by name, of each call."""
    calls = []

    def watched(bands, given, days, **options):
        calls.append({"bands": bands, "given": given, "days": days} | options)
        return repair(bands, given, days, **options)

    monkeypatch.setattr(repairs, "repair", watched)
    return calls


@pytest.mark.parametrize(
    "box", [Box(0, 1000, 0, 700), Box(300, 301, 300, 301), Box(512, 640, 0, 64), Box(999, 1000, 1, 9)]
)
def test_a_window_holds_the_reach_of_its_pixels_in_whole_cells(box):
    window = repair_window(box, CUBE)
    reach = box.grow(REACH).clip(CUBE)
    assert reach.clip(window) == reach
    assert window.y0 % CELL == window.x0 % CELL == 0
    assert window.y1 in (CUBE.y1, -(-window.y1 // CELL) * CELL) and window.x1 in (CUBE.x1, -(-window.x1 // CELL) * CELL)
    assert reach.y0 - window.y0 < CELL and window.y1 - reach.y1 < CELL


def test_windows_of_neighbours_lie_in_that_of_both():
    """Blocks are cut out of what is read for a region."""
    parts = [Box(128, 192, 64, 128), Box(192, 256, 64, 128)]
    whole = repair_window(Box(128, 256, 64, 128), CUBE)
    assert all(repair_window(part, CUBE).clip(whole) == repair_window(part, CUBE) for part in parts)


def largest_window(shape, block, margin):
    """Rows times columns of the largest window, and how often a pixel of the cube is in one."""
    largest, repeated = 1, 1.0
    for size, edge in zip(shape, block, strict=True):
        windows = [min(first + edge + margin, size) - max(first - margin, 0) for first in range(0, size, edge)]
        largest, repeated = largest * max(windows), repeated * sum(windows) / size
    return largest, repeated


@pytest.mark.parametrize("margin", [32, 64, 224])
@pytest.mark.parametrize("bytes_per_pixel", [10, 1000, 10_000])
@pytest.mark.parametrize("shape", [(10980, 5000), (1024, 1024), (300, 3000)])
def test_blocks_are_wide_enough_for_their_margin(shape, margin, bytes_per_pixel):
    block = choose_wide_block(shape, bytes_per_pixel, None, margin)
    assert block[0] % 64 == block[1] % 64 == 0 and max(block) <= 2048
    largest, repeated = largest_window(shape, block, margin)
    least = -(-margin // 64) * 64
    assert largest * bytes_per_pixel <= max(2**30, (least + 2 * margin) ** 2 * bytes_per_pixel)
    # No square block whose window takes as much repeats less.
    for edge in range(least, 2049, 64):
        window, more = largest_window(shape, (edge, edge), margin)
        assert window > largest or more >= repeated


def test_a_cube_that_fits_is_one_block():
    assert choose_wide_block((500, 90), 1000, None, 200) == (512, 128)
    assert choose_wide_block((5000, 90), 10_000, None, 32)[1] == 128


def test_all_layers_of_a_mask_are_those_that_there_are():
    da, clear = clouded()
    given = xr_cloudfree.clear_mask(da, clear=clear, layers="all")
    assert list(given.data_vars) == ["clear"]
    xr.testing.assert_equal(given["clear"], xr_cloudfree.clear_mask(da, clear=clear))
    corrected = xr_cloudfree.clear_mask(da, clear=clear, repair=True, layers="all")
    assert list(corrected.data_vars) == ["clear", "mask_change", "score"]
    assert list(xr_cloudfree.clear_mask(da, mask="series", layers="all")) == list(corrected)
    with pytest.raises(errors.OptionError, match="repair=False") as caught:
        xr_cloudfree.clear_mask(da, clear=clear, layers=["score"])
    assert caught.value.remedy.startswith("repair=True")
    with pytest.raises(errors.OptionError, match="layers='all'"):
        xr_cloudfree.clear_mask(da, clear=clear, layers="scores")


def test_a_small_cube_is_one_block():
    da, clear = clouded()
    plan = plan_fill(da, None, ReadOptions(clear=clear, repair=True), model="linear")
    assert plan.job.repair and plan.job.grid.n_blocks == 1


def test_dates_are_in_order_and_values_reflectance(given):
    da, clear = clouded("uint16")
    order = [5, 2, 7, 0, 1, 6, 4, 3]
    mixed, masks = da.isel(time=order), clear.isel(time=order)
    xr_cloudfree.clear_mask(mixed, clear=masks, repair=True)
    [call] = given
    np.testing.assert_array_equal(call["days"], (DATES - DATES[0]) / np.timedelta64(1, "D"))
    missing = da.to_numpy() == 0
    np.testing.assert_array_equal(np.isnan(call["bands"]), missing)
    np.testing.assert_allclose(np.nan_to_num(call["bands"]), da * np.float32(1e-4), rtol=1e-6)
    np.testing.assert_array_equal(call["given"], clear)
    np.testing.assert_array_equal(call["usable"], ~missing.any(axis=1))
    assert call["bands"].dtype == np.float32
    assert not call["from_series"] and not call["keep"].any()


def test_all_dates_are_read_whatever_the_target_and_its_window(given):
    da, clear = clouded()
    xr_cloudfree.fill(da, DATES[4], clear=clear, model="linear", window=10, repair=True, block=64)
    [call] = given
    assert call["bands"].shape == (len(DATES), 3, *SHAPE)


@pytest.mark.parametrize(("snow", "kept"), [("clear", [0]), ("not clear", [0, 11])])
def test_missing_pixels_and_excluded_snow_are_never_restored(given, snow, kept):
    da, clear = clouded()
    scl = xr.where(clear, np.uint8(4), np.uint8(9)).astype("uint8").rename("SCL")
    scl[2, 10:20, 10:20], scl[2, 40:50, 10:20] = 11, 0
    masks = xr_cloudfree.clear_mask(da, mask=scl, snow=snow, repair=True, layers="mask_change")
    [call] = given
    np.testing.assert_array_equal(call["keep"], np.isin(scl, kept))
    assert not (masks["mask_change"] == Change.RESTORED).to_numpy()[call["keep"]].any()


def test_pixels_that_lack_a_band_stay_as_they_were_given():
    da, clear = clouded()
    lacking = da.copy(deep=True)
    lacking[CLOUDED, 2, 30:50, 40:60] = np.nan  # within the cloud that the mask misses
    image = xr_cloudfree.fill(lacking, DATES[CLOUDED], clear=clear, model="linear", repair=True, layers="all")
    part = image.isel(y=slice(30, 50), x=slice(40, 60))
    assert (part["mask_change"] == Change.AS_GIVEN).all()
    np.testing.assert_array_equal(part["reflectance"][:2], lacking[CLOUDED, :2, 30:50, 40:60])
    around = image["mask_change"].to_numpy()[CLOUD]
    assert (around == Change.CLOUD).any()
    # Without a mask nothing says that such a pixel is clear.
    masks = xr_cloudfree.clear_mask(lacking, mask="series")
    assert not masks[CLOUDED, 30:50, 40:60].any()
    alone = xr_cloudfree.fill(lacking, DATES[CLOUDED], mask="series", model="linear", layers="filled")
    assert (alone["filled"][30:50, 40:60] != 1).all()


def test_layers_that_are_not_bands_are_left_out(given):
    da, clear = clouded()
    scl = xr.where(clear, 4.0, 9.0).astype("float32").expand_dims(band=["SCL"])
    stack = xr.concat([da.isel(band=[0]), scl, da.isel(band=[1, 2])], "band").transpose("time", "band", "y", "x")
    with pytest.warns(xr_cloudfree.errors.CloudfreeWarning, match="SCL is not reflectance"):
        image = xr_cloudfree.fill(stack, DATES[CLOUDED], model="linear", layers="mask_change", repair=True)
    expected = xr_cloudfree.fill(da, DATES[CLOUDED], clear=clear, model="linear", layers="mask_change", repair=True)
    np.testing.assert_array_equal(image["mask_change"], expected["mask_change"])
    np.testing.assert_array_equal(given[0]["bands"], given[1]["bands"])


def test_a_mask_that_is_found_wrong_everywhere_is_used_so(monkeypatch):
    """Whatever the correction says: clear pixels are kept, others are filled, and the layers agree."""
    da, clear = clouded()
    rng = np.random.default_rng(0)
    wanted = rng.random((len(DATES), *SHAPE)) < 0.7

    def any_mask(bands, given, days, *, usable, **options):
        assert given.shape == wanted.shape  # the window of each block spans the cube
        change = np.where(given == wanted, 0, np.where(given, Change.CLOUD, Change.RESTORED)).astype(np.uint8)
        return Repaired(wanted & usable, change, np.zeros(given.shape, np.float32))

    monkeypatch.setattr(repairs, "repair", any_mask)
    valid = wanted & da.notnull().all("band").to_numpy()
    image = xr_cloudfree.fill(da, None, clear=clear, model="linear", layers="all", repair=True, block=64)
    np.testing.assert_array_equal(image["filled"] == 1, valid)
    np.testing.assert_array_equal(image["n_clear"][0], valid.sum(axis=0))
    np.testing.assert_array_equal(xr_cloudfree.clear_mask(da, clear=clear, repair=True), valid)
    ds = as_dataset(da.rename(band="band").assign_coords(band=["blue", "red", "nir"]), clear)
    np.testing.assert_array_equal(xr_cloudfree.clear_mask(ds, repair=True), valid)
