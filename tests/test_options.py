"""Options are parsed, and refused with a remedy."""

import dataclasses
import inspect

import numpy as np
import pytest

import xr_cloudfree
from tests.support.cubes import make_cube
from xr_cloudfree import errors
from xr_cloudfree.options import ReadOptions, check_names, parse_number

TARGET = "2021-06-03"


@pytest.fixture(scope="module")
def cube():
    return make_cube()


def test_layers_of_the_wrong_model_are_refused(cube):
    da, clear = cube
    with pytest.raises(errors.OptionError, match="has no layer 'gate'"):
        xr_cloudfree.fill(da, TARGET, clear=clear, model="median", layers=["gate"])


def test_options_of_reading_are_split_and_spelled_again():
    options = {"mask": "SCL", "strict": True, "bands": ["red"], "model": "linear", "date": None}
    reading, others = ReadOptions.split(options)
    assert others == {"model": "linear", "date": None}
    assert reading.chosen() == {"mask": "SCL", "strict": True, "bands": ["red"]}
    assert ReadOptions().chosen() == {}


def test_the_public_functions_take_every_option_of_reading_with_its_default():
    for function in (xr_cloudfree.fill, xr_cloudfree.clear_mask):
        parameters = inspect.signature(function).parameters
        for field in dataclasses.fields(ReadOptions):
            assert parameters[field.name].default is field.default


def test_unknown_options_are_refused_with_the_nearest_name():
    check_names(["mask", "seed"], xr_cloudfree.evaluate, ReadOptions)
    with pytest.raises(errors.OptionTypeError, match="there is no option 'maks'") as caught:
        check_names(["maks"], xr_cloudfree.evaluate, ReadOptions)
    assert "mask=" in str(caught.value.remedy)
    assert "clear" in caught.value.needed and "obj" not in caught.value.needed


@pytest.mark.parametrize(
    ("value", "error"),
    [
        (0, errors.OptionError),
        (101, errors.OptionError),
        (float("nan"), errors.OptionError),
        (float("inf"), errors.OptionError),
        ("60", errors.OptionTypeError),
        (True, errors.OptionTypeError),
        (None, errors.OptionTypeError),
    ],
)
def test_numbers_beyond_their_limits_are_refused(value, error):
    assert parse_number("timeout", np.float32(1.5), "a number", "timeout=60", above=0, most=100) == 1.5
    with pytest.raises(error, match="timeout is") as caught:
        parse_number("timeout", value, "a positive number", "timeout=60", above=0, most=100)
    assert caught.value.remedy == "timeout=60"
