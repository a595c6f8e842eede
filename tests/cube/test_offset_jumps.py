"""Offsets that appear or disappear between dates."""

import numpy as np
import pytest
import xarray as xr

from tests.support.scenes import TIMES, check, scene, stored
from xr_cloudfree.cube.checks import check_reflectance
from xr_cloudfree.cube.remedies import Spelling
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.errors import ScalingError


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
def test_offset_jump_remedy_keeps_missing_values(form, dtype, nodata):
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
def test_offset_jumps_in_both_directions(dates):
    numbers = stored(scene(), Scaling(1e-4, nodata=0))
    numbers[dates] += 1000
    with pytest.raises(ScalingError, match="processing baseline") as raised:
        check(numbers, Scaling(1e-4, nodata=0))
    cube = xr.DataArray(numbers, dims=("time", "band", "y", "x"), coords={"time": TIMES})
    mended = eval(raised.value.remedy, {"cube": cube, "np": np})
    np.testing.assert_array_equal(mended.values, stored(scene(), Scaling(1e-4, nodata=0)))
