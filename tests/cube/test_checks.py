"""Values that cannot be reflectance are refused with a remedy, and no real scene is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from tests.support.scenes import SENTINEL, TIMES, check, scene, stored
from xr_cloudfree.cube.checks import check_reflectance, check_scale
from xr_cloudfree.cube.masks import decode
from xr_cloudfree.cube.quality import resolve_mask
from xr_cloudfree.cube.scaling import Scaling, resolve_scaling, to_reflectance
from xr_cloudfree.cube.validity import clear_where, derive_valid_range
from xr_cloudfree.errors import ScalingError
from xr_cloudfree.options import ReadOptions

DATA = Path(__file__).parents[2] / "data"


@pytest.mark.parametrize("sensor", ["sentinel-2", "landsat", None])
def test_silent_on_reflectance(sensor):
    check(scene(), Scaling(), sensor=sensor)
    check(stored(scene()), SENTINEL, sensor=sensor)
    landsat = Scaling(2.75e-5, -0.2, 0)
    check(stored(scene(), landsat), landsat, sensor=sensor)


@pytest.mark.parametrize(
    "change",
    [
        lambda r: r * 0.05,  # deep water: a few thousandths
        lambda r: 0.9 + 0.1 * r,  # snow
        lambda r: np.where(np.arange(6)[:, None, None, None] == 3, 0.12 + 0.85 * r, r),  # one date of haze
        lambda r: r - 0.05,  # an atmosphere corrected too far
        lambda r: np.where(np.arange(6)[:, None, None, None] < 3, r, r + np.reshape([0.02, 0.1, 0.1, 0.1], (4, 1, 1))),
        lambda r: r[:, :, :3, :3] * 0 + 1.8,  # a few pixels of a cloud that was missed
        lambda r: r[:, :, :3, :3] * 0,  # too few to tell
    ],
)
def test_silent_on_unusual_scenes(change):
    check(change(scene()).astype(np.float32), Scaling())


def test_silent_where_nothing_is_clear():
    check(scene() * 1e4, Scaling(), clear=np.zeros((6, 48, 48), bool))
    check(np.full((6, 4, 48, 48), np.nan, np.float32), Scaling())
    check(np.zeros((6, 4, 48, 48), np.uint16), SENTINEL)


@pytest.mark.parametrize(
    ("sensor", "remedy"),
    [
        ("sentinel-2", r"scale=1e-4, offset=-0\.1  # Sentinel-2 from processing baseline 04\.00"),
        ("landsat", r"Try: scale=2\.75e-5, offset=-0\.2  # Landsat"),
        (None, r"scale=1e-4, offset=-0\.1  # Sentinel-2.*; Landsat Collection 2: scale=2\.75e-5"),
    ],
)
def test_digital_numbers(sensor, remedy):
    numbers = stored(scene())
    with pytest.raises(ScalingError, match=rf"uint16, with unknown scale.*{remedy}"):
        check(numbers, Scaling(None, nodata=0), sensor=sensor)
    with pytest.raises(ScalingError, match=rf"looks like digital numbers.*{remedy}"):
        check(numbers.astype(np.float32), Scaling(), sensor=sensor)
    with pytest.raises(ScalingError, match=r"looks like digital numbers.*Try: scale=0\.01, offset=0"):
        check(scene() * 100, Scaling(), sensor=sensor)  # percent
    with pytest.raises(ScalingError, match="looks like digital numbers"):
        check(numbers[:, :, :3, :3].astype(np.float32), Scaling(), sensor=sensor)


def test_only_clear_pixels_are_checked():
    bands = scene()
    clear = np.ones((6, 48, 48), bool)
    bands[:, :, :40] = 5000
    clear[:, :40] = False
    check(bands, Scaling(), clear=clear)


def test_scaled_twice():
    with pytest.raises(ScalingError, match=r"scaled twice.*scale=1, offset=0"):
        check(scene(), Scaling(1e-4))


def test_undeclared_nodata():
    numbers = stored(scene())
    numbers[2, :, :, :20] = 0
    match = r"42% of the clear pixels are zero in every band on 2022-01-11 .*nodata=0"
    with pytest.raises(ScalingError, match=match):
        check(numbers, Scaling(1e-4, -0.1))
    check(numbers, SENTINEL)
    with pytest.raises(ScalingError, match=r"100% .* zero"):
        check(np.zeros((6, 4, 48, 48), np.uint16), Scaling(1e-4))


def test_unsigned_underflow():
    numbers = stored(scene() - 0.06)  # dark pixels below zero
    wrapped = numbers - np.uint16(1000)
    assert (wrapped > 60000).mean() > 0.05
    with pytest.raises(ScalingError, match=r"wrapped below zero.*offset=-0\.1"):
        check(wrapped, Scaling(1e-4))
    with pytest.raises(ScalingError, match="wrapped"):
        check(to_reflectance(wrapped, Scaling(1e-4)), Scaling())
    # The brightest that Landsat can store is no underflow.
    bright = stored(scene(), Scaling(2.75e-5, -0.2))
    bright[:, :, ::8] = 65535
    check(bright, Scaling(2.75e-5, -0.2), sensor="landsat")


def test_offset_twice_names_the_dates():
    bands = scene()
    bands[[1, 2]] -= 0.1
    match = r"below -0\.02 on 2022-01-06, 2022-01-11 .*isin\(\['2022-01-06', '2022-01-11'"
    with pytest.raises(ScalingError, match=match):
        check(bands, Scaling(), sensor=None)
    with pytest.raises(ScalingError, match=r"2022-01-01, 2022-01-06, .*\(offset -0\.2\)"):
        check(stored(scene()), Scaling(1e-4, -0.2, 0))


def test_offset_on_some_dates_and_asked_for_on_all():
    bands = stored(scene())
    bands[:3] -= 1000
    with pytest.raises(ScalingError, match=r"below -0\.02.*Try: offset=0 if .* all dates, or") as raised:
        check(bands, SENTINEL)
    cube = xr.DataArray(bands, dims=("time", "band", "y", "x"), coords={"time": TIMES})
    mended = eval(raised.value.remedy.partition("only: ")[2].partition(", with offset=0")[0], {"cube": cube})
    check(mended.values, Scaling(1e-4, 0, 0))
    np.testing.assert_allclose(mended.values * 1e-4, scene(), atol=1e-4)


@pytest.mark.parametrize(
    ("sensor", "dtype", "scaling", "remedy"),
    [
        ("hls", np.int16, Scaling(None), r"Try: scale=1e-4, offset=0, nodata=-9999  # HLS"),
        ("modis", np.int16, Scaling(None, nodata=-28672.0), r"Try: scale=1e-4, offset=0  # MODIS"),
        (None, np.int16, Scaling(None, nodata=-999.0), r"Try: scale=1e-4, offset=0  # most archives"),
        (None, np.uint16, Scaling(None, nodata=0.0), r"Try: scale=1e-4, offset=-0\.1  # Sentinel-2"),
    ],
)
def test_scales_that_are_proposed(sensor, dtype, scaling, remedy):
    with pytest.raises(ScalingError, match=remedy):
        check_scale(np.dtype(dtype), scaling, sensor)


@pytest.mark.parametrize(("dtype", "remedy"), [(np.int16, "scale=1e-4, offset=0$"), (np.uint8, "scale=0.004, ")])
def test_scales_that_are_proposed_for_indices(dtype, remedy):
    with pytest.raises(ScalingError, match=f"unknown scale to the index.*Try: {remedy}"):
        check_scale(np.dtype(dtype), Scaling(None), "sentinel-2", index=True)


def test_errors_come_back_from_another_process():
    with pytest.raises(ScalingError) as raised:
        check(scene() * 1e4, Scaling())
    assert str(pickle.loads(pickle.dumps(raised.value))) == str(raised.value)


@pytest.mark.parametrize(
    ("name", "mask", "sensor"),
    [
        ("s2_portugal.zarr", "cloud_mask", "sentinel-2"),
        ("s2_portugal.zarr", "scl", "sentinel-2"),
        ("s2_portugal.zarr", None, "sentinel-2"),  # clouds and all
        ("landsat_pnw.zarr", "cloud_mask", "landsat"),
        ("landsat_pnw.zarr", "cfmask", "landsat"),
    ],
)
@pytest.mark.parametrize("size", [128, 32])
def test_silent_on_real_scenes(name, mask, sensor, size):
    ds = xr.open_zarr(DATA / name, mask_and_scale=False, chunks=None)
    bands = ds.reflectance
    scaling = resolve_scaling([bands])
    if mask is None:
        clear = np.ones_like(ds.scl, bool)
    else:
        quality, rule = resolve_mask(dict(ds.data_vars), ReadOptions(mask=mask), template=bands.isel(band=0))
        clear = decode(quality.values, rule).clear
    assert clear.mean() > 0.2
    values = bands.values
    valid_range = derive_valid_range([bands], scaling)
    for y in range(0, values.shape[2], size):
        for x in range(0, values.shape[3], size):
            part = np.s_[:, y : y + size, x : x + size]
            cut = values[:, :, *part[1:]]
            check_reflectance(cut, clear[part], scaling, ds.time.values, sensor, valid_range=valid_range)
            clear_where(cut, clear[part], scaling, valid_range)  # warnings are errors here
