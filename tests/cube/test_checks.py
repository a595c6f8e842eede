"""Values that cannot be reflectance are refused with a remedy, and no real scene is refused."""

import pickle
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from xr_cloudfree.cube.checks import check_reflectance, check_scale
from xr_cloudfree.cube.masks import decode
from xr_cloudfree.cube.measured import clear_where, derive_valid_range
from xr_cloudfree.cube.quality import resolve_mask
from xr_cloudfree.cube.remedies import Spelling
from xr_cloudfree.cube.scaling import Scaling, encode, from_reflectance, resolve_scaling, to_reflectance
from xr_cloudfree.errors import ScalingError
from xr_cloudfree.options import ReadOptions

DATA = Path(__file__).parents[2] / "data"
TIMES = np.arange("2022-01-01", "2022-01-31", 5, dtype="datetime64[D]").astype("datetime64[ns]")
SENTINEL = Scaling(1e-4, -0.1, 0)


def scene(n=48, seed=0):
    """Reflectance of a landscape that changes little: blue, green, red, nir."""
    rng = np.random.default_rng(seed)
    green = rng.random((n, n), np.float32)[None]
    ground = np.concatenate([0.03 + 0.04 * green, 0.05 + 0.04 * green, 0.04 + 0.05 * green, 0.4 - 0.2 * green])
    noise = rng.normal(0, 0.004, (len(TIMES), 4, n, n)).astype(np.float32)
    season = np.linspace(0, 0.02, len(TIMES), dtype=np.float32)[:, None, None, None]
    return ground + season + noise


def check(bands, scaling, clear=None, sensor="sentinel-2", times=TIMES):
    clear = np.ones((len(bands), *bands.shape[2:]), bool) if clear is None else clear
    check_reflectance(bands, clear, scaling, times, sensor, ("blue", "green", "red", "nir"))


def stored(reflectance, scaling=SENTINEL, dtype=np.uint16):
    return encode(from_reflectance(reflectance, scaling), np.dtype(dtype), scaling)


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


def test_clear_pixels_alone_are_looked_at():
    bands = scene()
    clear = np.ones((6, 48, 48), bool)
    bands[:, :, :40] = 5000
    clear[:, :40] = False
    check(bands, Scaling(), clear=clear)


def test_scaled_twice():
    with pytest.raises(ScalingError, match=r"scaled twice.*scale=1, offset=0"):
        check(scene(), Scaling(1e-4))


def test_nodata_that_was_not_told():
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


def test_offset_jump_names_the_dates():
    bands = scene()
    bands[3:] += 0.1
    with pytest.raises(ScalingError, match=r"2022-01-11 to 2022-01-16: \+0\.10") as raised:
        check(bands, Scaling())
    cube = xr.DataArray(bands, dims=("time", "band", "y", "x"), coords={"time": TIMES})
    mended = eval(raised.value.remedy, {"cube": cube, "np": np})
    check(mended.values, Scaling())
    np.testing.assert_allclose(mended.values, scene(), atol=1e-6)
    # Whichever way the dates are stored, and whatever names tell.
    with pytest.raises(ScalingError, match="2022-01-11 to 2022-01-16"):
        check(bands[::-1], Scaling(), times=TIMES[::-1])
    for sensor in ("landsat", None):
        with pytest.raises(ScalingError, match="2022-01-11 to 2022-01-16"):
            check(bands, Scaling(), sensor=sensor)


@pytest.mark.parametrize("kept", [[3], [2, 3], [0, 1], [1, 2, 3]])
def test_offset_jump_in_few_bands(kept):
    bands = scene(64)[:, kept]
    check(bands, Scaling())
    bands[2:] += 0.1
    if kept == [0, 1]:  # as dark as each other everywhere: that may as well be haze
        check(bands, Scaling())
    else:
        with pytest.raises(ScalingError, match="2022-01-06 to 2022-01-11"):
            check(bands, Scaling())


def test_offset_jump_beyond_a_cloudy_date():
    bands = scene()
    bands[3:] += 0.1
    clear = np.ones((6, 48, 48), bool)
    clear[2:4, :, :42] = False  # the dates beside the jump show too little
    match = r"2022-01-06 to 2022-01-21: .*cube\['time'\] < np.datetime64\('2022-01-16'\)"
    with pytest.raises(ScalingError, match=match):
        check(bands, Scaling(), clear=clear)


@pytest.mark.parametrize("form", ["array", "variables"])
@pytest.mark.parametrize(("dtype", "nodata"), [(np.uint16, 0), (np.int16, -9999), (np.float32, None)])
def test_offset_jump_remedy_keeps_what_is_missing(form, dtype, nodata):
    how = Scaling() if dtype == np.float32 else Scaling(1e-4, nodata=nodata)
    right = scene() if dtype == np.float32 else stored(scene(), how, dtype)
    right[:, :, :5, :5] = np.nan if nodata is None else nodata
    wrong = right.copy()
    late = np.broadcast_to((np.arange(6) > 2)[:, None, None, None], wrong.shape) & (right != nodata)
    wrong[late] += np.asarray(0.1 / how.scale).astype(dtype)
    names = ("B02", "B03", "B04", "B08")
    dims = ("time", "band", "y", "x")
    cube = xr.DataArray(wrong, dims=dims, coords={"time": TIMES, "band": list(names)})
    spelling = Spelling()
    if form == "variables":
        cube = cube.to_dataset("band").assign(SCL=xr.zeros_like(cube[:, 0], dtype=np.uint8) + np.uint8(4))
        spelling = Spelling("time", names, names)
    clear = np.ones((6, 48, 48), bool)
    with pytest.raises(ScalingError, match="processing baseline") as raised:
        check_reflectance(wrong, clear, how, TIMES, spelling=spelling)
    mended = eval(raised.value.remedy, {"cube": cube, "np": np})
    if form == "variables":
        assert (mended.SCL == 4).all() and mended.SCL.dtype == np.uint8
        mended = mended[list(names)].to_dataarray("band").transpose(*dims)
    assert (mended.dtype.kind == "f") == (right.dtype.kind == "f")
    np.testing.assert_allclose(mended.values, right, atol=1e-6)


@pytest.mark.parametrize("dates", [[2], [0, 1], [1, 4], [0, 3, 4]])
def test_offset_jumps_there_and_back(dates):
    numbers = stored(scene(), Scaling(1e-4, nodata=0))
    numbers[dates] += 1000
    with pytest.raises(ScalingError, match="processing baseline") as raised:
        check(numbers, Scaling(1e-4, nodata=0))
    cube = xr.DataArray(numbers, dims=("time", "band", "y", "x"), coords={"time": TIMES})
    mended = eval(raised.value.remedy, {"cube": cube, "np": np})
    np.testing.assert_array_equal(mended.values, stored(scene(), Scaling(1e-4, nodata=0)))


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
