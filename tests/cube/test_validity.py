"""Values that ground cannot have are missing, per pixel and with a warning; ordinary values are not."""

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import make_cube
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.cube.validity import clear_where, derive_valid_range, measured
from xr_cloudfree.errors import CloudfreeWarning, ScalingError

DIGITS, SENTINEL, LANDSAT = Scaling(1e-4), Scaling(1e-4, -0.1), Scaling(2.75e-5, -0.2)
DAY = "2021-06-03"


def within_of(values, scaling, limits=None):
    return derive_valid_range([xr.DataArray(values)], scaling, limits)


def kept(values, scaling, dtype):
    """Return whether each value is a measurement, alone and where three bands have the same value."""
    values = np.array(values, dtype)
    valid_range = within_of(values, scaling)
    alone = measured(values, scaling, valid_range)
    alike = measured(np.stack([values] * 3), scaling, valid_range, axis=0)
    return alone.tolist(), alike[0].tolist()


@pytest.mark.parametrize(
    ("scaling", "dtype", "values", "alone", "alike"),
    [
        (DIGITS, "uint16", [0, 1, 55537, 32768, 65535, 65526, 41000], [1, 1, 0, 0, 0, 0, 0], [0] * 7),
        (SENTINEL, "uint16", [0, 1, 9999, 32768, 40000], [0, 1, 1, 0, 1], [0, 0, 0, 0, 1]),
        (DIGITS, "int16", [-9999, -32768, 32767, -1, -900, 20000], [0, 0, 0, 1, 1, 1], [0, 0, 0, 0, 1, 1]),
        (LANDSAT, "uint16", [0, 65535, 55537, 7273, 43636], [0, 0, 1, 1, 1], [0, 0, 0, 1, 1]),
        (Scaling(), "float32", [0, -0.1, -0.2, 5.5537, 3.2768, -9999, 1], [1, 0, 0, 0, 0, 0, 1], [0] * 6 + [1]),
        (Scaling(), "float64", [1e-4, -0.05, 1.4, 3.5], [1, 1, 1, 1], [0, 1, 1, 1]),
    ],
)
def test_valid_values(scaling, dtype, values, alone, alike):
    assert kept(values, scaling, dtype) == ([bool(v) for v in alone], [bool(v) for v in alike])


def test_every_ordinary_number_is_one():
    for scaling, first, last in ((DIGITS, 2, 15000), (SENTINEL, 200, 16000), (LANDSAT, 7273, 43636)):
        values = np.arange(first, last, dtype=np.uint16)
        values = values[~np.isin(values, (9999, 32767, 32768))]
        assert all(map(all, kept(values, scaling, np.uint16)))


def test_limits_of_an_index():
    values = np.array([-1.5, -1, -0.2, 0, 1, 1.0000001, 1.2], np.float32)
    valid_range = within_of(values, Scaling(), (-1, 1))
    assert valid_range.index
    assert measured(values, Scaling(), valid_range).tolist() == [False, True, True, True, True, True, False]
    digits = np.array([-10001, -10000, 0, 10000, 10001], np.int16)
    valid_range = within_of(digits, DIGITS, (-1, 1))
    assert measured(digits, DIGITS, valid_range).tolist() == [False, True, True, True, False]


def test_declared_nodata_stays_missing():
    band = xr.DataArray(np.array([0, 42, 500], np.uint16), attrs={"nodata": 0})
    valid_range = derive_valid_range([band], Scaling(1e-4, 0, 42))
    assert measured(band.values, Scaling(1e-4, 0, 42), valid_range).tolist() == [False, False, True]


@pytest.mark.parametrize(
    ("dtype", "mark", "words"),
    [
        ("uint16", 55537, "clear pixels hold 55537,"),
        ("uint16", 1, "clear pixels hold 1,"),
        ("int16", -32768, "nodata=-32768 confirms this"),
        ("int16", -9999, "nodata=-9999 confirms this"),
        ("float32", -9999, "clear pixels hold -9999,"),
        ("float32", 0, "clear pixels hold 0,"),
    ],
)
def test_a_slanted_edge_is_missing_with_one_warning(dtype, mark, words):
    da, clear = make_cube(dtype="float32" if dtype == "float32" else "uint16")
    clear[:] = True
    da = da.astype(dtype)
    da.attrs = {} if dtype == "float32" else {"scale_factor": 1e-4}
    options = {"clear": clear, "model": "linear", "layers": ["filled"], "repair": False}
    rows, columns = np.indices(da.shape[2:])
    beyond = columns < 4 - rows // 8
    da[3].values[:, beyond] = mark
    with pytest.warns(CloudfreeWarning) as told:
        image = xr_cloudfree.fill(da, DAY, **options)
    assert {str(one.message).count(words) for one in told} == {1}
    assert (image["filled"].values[beyond] == 2).all() and (image["filled"].values[~beyond] == 1).mean() > 0.9
    assert ((image["reflectance"].values != mark)[:, beyond]).all()
    with pytest.warns(CloudfreeWarning, match=words):
        mask = xr_cloudfree.clear_mask(da, clear=clear, repair=False)
    assert not mask[3].values[beyond].any()
    with pytest.warns(CloudfreeWarning):
        lazy = xr_cloudfree.fill(da.chunk(y=7, x=11), DAY, **options, block=9).compute()
    xr.testing.assert_identical(lazy, image)
    # As it is, if that is what is wanted.
    raw = xr_cloudfree.fill(da, DAY, **options, check=False)
    assert (raw["reflectance"].values[:, beyond] == mark).all() and (raw["filled"].values[beyond] == 1).all()
    assert xr_cloudfree.clear_mask(da, clear=clear, check=False, repair=False)[3].values[beyond].all()


def test_a_single_number_that_wrapped_is_missing():
    da, clear = make_cube(dtype="uint16")
    clear[:] = True
    da[3, 1, 10, 10] = 500 - 1000 + 65536
    with pytest.warns(CloudfreeWarning, match=r"cannot be reflectance from -0\.3 to 4"):
        image = xr_cloudfree.fill(da, DAY, clear=clear, model="linear", layers=["filled"], repair=False)
    assert image["filled"][10, 10] == 2 and int((image["filled"] == 1).sum()) == image["filled"].size - 1
    assert image["reflectance"][1, 10, 10] < 4001


def test_a_mark_in_one_band_leaves_the_others():
    da, clear = make_cube()
    clear[:] = True
    da[3, 1, 10:14, 10:14] = -9999
    with pytest.warns(CloudfreeWarning, match="-9999"):
        image = xr_cloudfree.fill(da, DAY, clear=clear, model="linear", repair=False)
    np.testing.assert_array_equal(image[[0, 2]], da[3, [0, 2]])
    assert (image[1, 10:14, 10:14] > 0).all()


def test_no_warning_for_masked_values():
    values = np.full((2, 2, 4, 4), 500, np.uint16)
    values[0, :, :2] = 0
    seen = np.ones((2, 4, 4), bool)
    seen[0, :2] = False
    clear = clear_where(values, seen, DIGITS, within_of(values, DIGITS))
    np.testing.assert_array_equal(clear, seen)


def test_a_mask_of_percent_is_refused_as_the_fill_is():
    da, clear = make_cube()
    with pytest.raises(ScalingError, match="looks like digital numbers"):
        xr_cloudfree.clear_mask(da * 100, clear=clear)
    lazy = xr_cloudfree.clear_mask((da * 100).chunk(), clear=clear.chunk())
    with pytest.raises(ScalingError, match="looks like digital numbers"):
        lazy.compute()


# Edges of any other number.
