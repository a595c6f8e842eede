"""Remedies as expressions: they run as typed, for a DataArray and for a Dataset of bands."""

import numpy as np
import pytest
import xarray as xr

from xr_cloudfree.cube.remedies import ANYWAY, Spelling

TIMES = np.array(["2021-05-01", "2021-05-02", "2021-05-03"], "datetime64[ns]")


def cube(dtype):
    values = np.array([[10.0, 0], [2000, 0], [3000, 7]]).astype(dtype)
    return xr.DataArray(values, dims=("t", "x"), coords={"t": TIMES}, name="red")


def test_days_are_excluded():
    da = cube("uint16")
    expression = Spelling(time="t").except_on(["2021-05-02"])
    np.testing.assert_array_equal(eval(expression, {"cube": da}).t, TIMES[[0, 2]])


@pytest.mark.parametrize("dtype", ["uint16", "int16", "float32"])
@pytest.mark.parametrize("variables", [(), ("red",)])
def test_a_subtraction_keeps_missing_values_and_does_not_wrap(dtype, variables):
    da = cube(dtype)
    spelling = Spelling("t", variables)
    expression = spelling.subtract(1000, spelling.on(["2021-05-03"]), da.dtype, 0)
    result = eval(expression, {"cube": da.to_dataset() if variables else da})
    result = result["red"] if variables else result
    np.testing.assert_array_equal(result, [[-990, 0], [1000, 0], [3000, 7]])


def test_a_value_is_replaced_by_nodata():
    result = eval(Spelling().replace("7", 0.0), {"cube": cube("uint16")})
    np.testing.assert_array_equal(result, [[10, 0], [2000, 0], [3000, 0]])


def test_check_false_is_always_an_alternative():
    assert "check=False" in ANYWAY
