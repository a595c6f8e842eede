"""Sentinel-1: its bands, its grid, and the nearest observation of each pixel."""

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cubes import make_cube, make_s1
from xr_cloudfree import errors
from xr_cloudfree.cube.radar import MAX_DAYS, check_decibels, nearby_dates, nearest_image, parse_radar

DAYS = np.array(["2021-06-01", "2021-06-07", "2021-06-11", "2021-06-21", "2021-07-30"], "M8[ns]")
NAN = np.nan


def series(*vv):
    """Return a row of pixels with VV as given and VH seven decibels lower."""
    values = np.array(vv, np.float32)[:, None, None, :]
    return np.concatenate([values, values - 7], axis=1)


class TestNearest:
    def test_by_hand(self):
        #         pixel 0    1     2     3     4
        values = series(
            [-1.0, -1.0, -1.0, NAN, NAN],  # 8 days before
            [-2.0, -2.0, NAN, NAN, NAN],  # 2 before
            [-3.0, NAN, NAN, NAN, NAN],  # 2 after
            [-4.0, -4.0, -4.0, -4.0, NAN],  # 12 after
            [-5.0, -5.0, -5.0, -5.0, -5.0],  # 51 after
        )
        image = nearest_image(values, DAYS, np.datetime64("2021-06-09", "ns"))
        # Of two equally near the earlier; the nearest that is there; 12 days are near enough, more are not.
        np.testing.assert_array_equal(image[0, 0], [-2, -2, -1, -4, NAN])
        np.testing.assert_array_equal(image[1, 0], [-9, -9, -8, -11, NAN])
        assert image.dtype == np.float32

    def test_an_hour_beyond_twelve_days_is_too_far(self):
        assert MAX_DAYS == 12
        at = DAYS[3] - np.timedelta64(12 * 24, "h")
        assert np.isfinite(nearest_image(series([-4.0]), DAYS[3:4], at)).all()
        assert np.isnan(nearest_image(series([-4.0]), DAYS[3:4], at - np.timedelta64(1, "h"))).all()
        assert nearby_dates(DAYS[3:4], [at]).tolist() == [0]
        assert nearby_dates(DAYS[3:4], [at - np.timedelta64(1, "h")]).tolist() == []

    @pytest.mark.parametrize("lost", [NAN, np.inf, -np.inf])
    def test_one_polarisation_alone_is_none(self, lost):
        values = series([-1.0, -1.0], [-2.0, -2.0])
        values[1, 1, 0, 0] = lost
        image = nearest_image(values, DAYS[:2], DAYS[1])
        np.testing.assert_array_equal(image[:, 0], [[-1, -2], [-8, -9]])

    @given(order=st.permutations(range(5)), seed=st.integers(0, 99), day=st.integers(-20, 70))
    def test_any_order_and_any_part_gives_what_a_loop_over_pixels_gives(self, order, seed, day):
        rng = np.random.default_rng(seed)
        values = rng.normal(-12, 3, (5, 2, 3, 4)).astype(np.float32)
        values[rng.random(values.shape) < 0.3] = NAN
        at = DAYS[0] + np.timedelta64(day, "D")
        image = nearest_image(values[order], DAYS[order], at)
        expected = np.full((2, 3, 4), NAN, np.float32)
        for y in range(3):
            for x in range(4):
                near = [
                    (abs(d - at), d, i)
                    for i, d in enumerate(DAYS)
                    if np.isfinite(values[i, :, y, x]).all() and abs(d - at) <= np.timedelta64(12, "D")
                ]
                if near:
                    expected[:, y, x] = values[min(near)[2], :, y, x]
        np.testing.assert_array_equal(image, expected)
        np.testing.assert_array_equal(nearest_image(values[order][..., 1:3], DAYS[order], at), expected[..., 1:3])
        reach = nearby_dates(DAYS[order], [at])
        np.testing.assert_array_equal(nearest_image(values[order][reach], DAYS[order][reach], at), expected)


@pytest.fixture(scope="module")
def cube():
    return make_cube()[0]


@pytest.fixture(scope="module")
def s1(cube):
    return make_s1(cube)


def understood(s1, cube):
    return parse_radar(s1, cube.isel(band=0, drop=True))


def as_array(found):
    if len(found.arrays) == 1:
        return found.arrays[0].to_numpy()
    return np.stack([array.to_numpy() for array in found.arrays], axis=1)


class TestUnderstood:
    def test_each_form_is_the_same(self, cube, s1):
        flat = s1.to_dataset("band")
        turned = s1.isel(band=[1, 0])
        more = xr.concat([turned, turned.isel(band=[0]).assign_coords(band=["angle"])], "band")
        forms = {
            "array": s1,
            "turned": turned,
            "with another band": more,
            "other names": s1.rename(band="bands", y="lat", x="lon", time="t"),
            "other order": s1.transpose("y", "band", "x", "time"),
            "variables": flat,
            "long names": flat.rename(VV="s1_sigma0_vv", VH="s1_sigma0_vh").assign(dem=flat["VV"].isel(time=0)),
            "one variable": s1.to_dataset(name="backscatter"),
            "chunked": s1.chunk(y=7),
        }
        for name, form in forms.items():
            found = understood(form, cube)
            np.testing.assert_array_equal(as_array(found), s1.to_numpy(), err_msg=name)
            np.testing.assert_array_equal(found.times, s1.time, err_msg=name)

    def test_the_variable_with_vv_and_vh_is_taken_beside_one_with_other_bands(self, cube, s1):
        both = xr.Dataset({"reflectance": cube.drop_vars("platform"), "radar": s1.rename(band="bands", time="t")})
        np.testing.assert_array_equal(as_array(understood(both, cube)), s1.to_numpy())


def spoiled(s1, how):
    flat = s1.to_dataset("band")
    return {
        "a list": [1, 2],
        "a name of the wrong kind": 3,
        "no dates": s1.isel(time=0, drop=True),
        "no time stamps": s1.drop_vars("time"),
        "days as whole numbers": s1.assign_coords(time=s1.indexes["time"].strftime("%Y%m%d").astype(int)),
        "doubled": s1.isel(time=[0, 0, 1]),
        "empty": s1.isel(time=slice(0)),
        "one polarisation": s1.isel(band=[0]),
        "no bands": s1.isel(band=0, drop=True),
        "bands without names": s1.drop_vars("band"),
        "variables of other names": flat.rename(VV="a", VH="b"),
        "two of each": flat.assign(gamma_vv=flat.VV, gamma_vh=flat.VH).rename(VV="sigma_vv", VH="sigma_vh"),
        "several variables": xr.Dataset({"a": s1, "b": s1 + 1}),
        "whole numbers": (s1.fillna(0) * 100).astype("int16"),
        "another CRS": s1.drop_vars("spatial_ref").rio.write_crs("EPSG:32630"),
        "shifted": s1.assign_coords(x=s1.x + 5),
        "coarser": s1.coarsen(y=2, x=2, boundary="trim").mean(),
        "smaller": s1.isel(y=slice(4, None)),
        "turned over": s1.isel(y=slice(None, None, -1)),
    }[how]


@pytest.mark.parametrize(
    ("how", "error", "says", "cure"),
    [
        ("a list", errors.OptionTypeError, "a list", None),
        ("a name of the wrong kind", errors.OptionTypeError, "int", None),
        ("no dates", errors.DimensionError, "time", None),
        ("no time stamps", errors.TimeError, "s1 has a time dimension without", None),
        (
            "days as whole numbers",
            errors.TimeError,
            "of s1 have dtype int64",
            "s1.assign_coords(time=pd.to_datetime(s1.time.values.astype(str), format='%Y%m%d'))",
        ),
        ("doubled", errors.TimeError, "2 times", "s1.groupby('time').first()"),
        ("empty", errors.DimensionError, "s1 is empty", None),
        ("one polarisation", errors.BandError, "no band VH, but VV", None),
        ("no bands", errors.DimensionError, "vv and vh", None),
        ("bands without names", errors.BandError, "VV", "s1.assign_coords(band=['vv', 'vh'])"),
        ("variables of other names", errors.BandError, "a, b", None),
        ("two of each", errors.BandError, "sigma_vv, gamma_vv", None),
        ("several variables", errors.BandError, "a, b", "s1['a']"),
        ("whole numbers", errors.ScalingError, "int16", "s1.astype('float32')"),
        ("another CRS", errors.GridError, "EPSG:32630", "s1.to_dataset('band').rio.reproject_match(cube)"),
        ("shifted", errors.GridError, "another grid", "s1.interp(y=cube.y, x=cube.x)"),
        ("coarser", errors.GridError, "another grid", "s1.interp(y=cube.y, x=cube.x)"),
        ("smaller", errors.GridError, "another grid", "s1.interp(y=cube.y, x=cube.x)"),
        ("turned over", errors.GridError, "another grid", "s1.interp(y=cube.y, x=cube.x)"),
    ],
)
def test_invalid_sentinel_1_is_refused_and_the_remedy_works(cube, s1, how, error, says, cure):
    given = spoiled(s1, how)
    with pytest.raises(errors.CloudfreeError) as info:
        understood(given, cube)
    assert type(info.value) is error and says in str(info.value) and "s1" in info.value.found
    assert "the cube has" not in info.value.found
    if cure:
        assert cure in info.value.remedy
        understood(eval(cure, {"s1": given, "cube": cube, "pd": pd, "np": np, "xr": xr}), cube)


class TestDecibels:
    def test_decibels_pass(self, s1):
        check_decibels(s1.to_numpy())
        check_decibels(np.full((2, 2, 3, 3), NAN, np.float32))
        check_decibels(np.full((0, 2, 3, 3), NAN, np.float32))

    def test_a_few_bright_pixels_pass(self):
        values = np.full((2, 2, 30, 30), NAN, np.float32)
        values[0, :, 3, 4:8] = 12.0
        check_decibels(values)

    @pytest.mark.parametrize(
        ("change", "says", "cure"),
        [
            (lambda s1: 10 ** (s1 / 10), "linear power", "10 * np.log10(s1)"),
            (lambda s1: (10 ** (s1 / 10)).fillna(0), "linear power", "10 * np.log10(s1.where(s1 > 0))"),
            (lambda s1: 10 ** ((s1 + 83) / 20), "digital numbers", "20 * np.log10(s1) - 83"),
            (lambda s1: s1.fillna(-9999), "-9999", "s1.where((s1 > -90) & (s1 < 40))"),
            (lambda s1: s1.fillna(0), "exactly 0", "s1.where(s1 != 0)"),
        ],
        ids=["power", "power with zeros", "digital numbers", "fill value", "zeros"],
    )
    def test_other_values_are_refused_and_the_remedy_works(self, s1, change, says, cure):
        given = change(s1)
        with pytest.raises(errors.ScalingError, match=says) as info:
            check_decibels(given.to_numpy())
        assert cure in info.value.remedy
        mended = eval(cure, {"s1": given, "np": np})
        check_decibels(mended.to_numpy())
        np.testing.assert_allclose(mended, s1, rtol=1e-4)
