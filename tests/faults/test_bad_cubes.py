"""Malformed cubes and calls: each raises one typed error that says what was found, what is needed, what to type.

A remedy that can be typed as it is printed is taken from the message and run.
"""

import re
import tracemalloc
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import dask
import numpy as np
import pandas as pd
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import no_compute
from tests.support.malformed import cube, fill, huge, quality
from tests.support.rows import ROWS
from xr_cloudfree import errors

LATE = [row for row in ROWS if row.late]


def by_name(rows):
    return pytest.mark.parametrize("row", rows, ids=[row.name for row in rows])


def chunked(obj, options):
    def lazy(given):
        return given.chunk() if isinstance(given, xr.DataArray | xr.Dataset) else given

    return lazy(obj), {name: lazy(value) for name, value in options.items()}


def caught(row, call):
    with pytest.raises(errors.CloudfreeError) as info:
        call()
    assert type(info.value) is row.error, str(info.value)
    return info.value


def apply(cure, obj, options):
    """Apply a remedy: options, or an expression for the cube or the layer."""
    layers = {str(value.name): option for option, value in options.items() if isinstance(value, xr.DataArray)}
    names = {name: options[option] for name, option in layers.items()}
    names |= {"cube": obj, "ds": obj, "pd": pd, "np": np, "xr": xr, "original": quality()[0]["SCL"]}
    names["values"] = next((value for value in options.values() if isinstance(value, np.ndarray)), None)
    cure, _, more = cure.partition(", with ")
    if more:
        options = options | eval(f"dict({more})")
    if re.match(r"\w+=", cure):
        return obj, options | eval(f"dict({cure})", names)
    value = eval(cure, names)
    option = layers.get(re.match(r"\w+", cure)[0])
    return (obj, options | {option: value}) if option else (value, options)


@by_name(ROWS)
def test_the_error_teaches(row):
    error = caught(row, lambda: fill(*row.make()))
    assert isinstance(error, row.builtin)
    for part in (error.found, error.needed, error.remedy):
        assert isinstance(part, str) and part.strip() and part in str(error)
    for words in (*row.says, row.cure or ""):
        assert words in str(error)
    # Something that can be typed: an option, a call, a selection.
    assert re.search(r"\w+=|\w+\.\w+\(|\w+\(\)|\w+\['", error.remedy), error.remedy


def values_of(image):
    return (image["reflectance"] if isinstance(image, xr.Dataset) else image).to_numpy()


@pytest.mark.filterwarnings("ignore:.* days after the last date of the cube")
@by_name([row for row in ROWS if row.cure])
def test_the_remedy_works(row):
    obj, options = row.make()
    error = caught(row, lambda: fill(obj, options))
    assert row.cure in error.remedy
    obj, options = apply(row.cure, obj, options)
    image = fill(obj, options)
    assert row.holds is None or row.holds(image)
    if row.right is not None:
        np.testing.assert_array_equal(values_of(image), values_of(fill(*row.right())))
    if row.clear is not None:
        read = {name: options.get(name) for name in ("clear", "mask", "scheme", "threshold")} | {"repair": False}
        bands = obj["reflectance"] if "reflectance" in obj else obj
        expected = xr_cloudfree.clear_mask(bands, clear=row.clear(), repair=False)
        np.testing.assert_array_equal(xr_cloudfree.clear_mask(obj, **read), expected)


@by_name([row for row in ROWS if isinstance(row.make()[0], xr.DataArray | xr.Dataset)])
def test_a_lazy_cube_is_refused_when_called_unless_only_values_tell(row):
    obj, options = row.make()
    eager = caught(row, lambda: fill(obj, options))
    with dask.config.set(scheduler=no_compute):
        if not row.late:
            caught(row, lambda: fill(*chunked(obj, options)))
            return
        image = fill(*chunked(obj, options))
    late = caught(row, lambda: image.compute(scheduler="threads"))
    assert str(late) == str(eager)


def test_errors_come_back_from_other_processes():
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        for row in (LATE[0], next(row for row in LATE if row.error is errors.MaskError)):
            obj, options = row.make()
            eager = caught(row, lambda obj=obj, options=options: fill(obj, options))
            image = fill(*chunked(obj, options))
            late = caught(row, lambda image=image: image.compute(scheduler="processes", pool=pool))
            assert isinstance(late, row.builtin) and str(late) == str(eager)


def test_the_table_is_long_and_each_remedy_can_be_typed():
    assert len({row.name for row in ROWS}) == len(ROWS) >= 100
    assert sum(row.cure is not None for row in ROWS) >= 110


def test_a_cube_that_is_too_large_is_refused_before_anything_is_allocated():
    obj, options = huge()
    tracemalloc.start()
    try:
        with pytest.raises(MemoryError):
            fill(obj, options)
        assert tracemalloc.get_traced_memory()[1] < 2**20
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"tracks": ["partly"]}, errors.OptionError),
        ({"tracks": "partial"}, errors.OptionTypeError),
        ({"tracks": 3}, errors.OptionTypeError),
        ({"tracks": []}, errors.OptionError),
        ({"models": "linear"}, errors.OptionTypeError),
        ({"models": []}, errors.OptionError),
        ({"size": 0}, errors.OptionError),
        ({"size": "all"}, errors.OptionTypeError),
        ({"frames": 0}, errors.OptionError),
        ({"frames": 1.5}, errors.OptionTypeError),
        ({"seed": -1}, errors.OptionError),
        ({"models": ["Linear"]}, errors.ModelNotFoundError),
        ({"bands": "red"}, errors.OptionTypeError),
    ],
)
def test_evaluate_refuses(options, error):
    obj, given = cube()
    with pytest.raises(error) as info:
        xr_cloudfree.evaluate(obj, **given | options)
    assert info.value.remedy


@pytest.mark.parametrize(("track", "near"), [("nomask", "no mask"), ("Clouds", "clouds"), ("xyz", "partial")])
def test_evaluate_names_the_nearest_track(track, near):
    obj, given = cube()
    with pytest.raises(errors.OptionError, match=f"there is no track '{track}'") as info:
        xr_cloudfree.evaluate(obj, tracks=[track], **given)
    assert info.value.remedy == f"tracks=['{near}']"


def test_evaluate_without_a_clear_date_says_so():
    obj, options = cube()
    with pytest.raises(errors.TimeError, match="serve as truth"):
        xr_cloudfree.evaluate(obj, **options)
    obj["good"] = xr.zeros_like(obj["good"])
    with pytest.raises(errors.TimeError, match="0% clear"):
        xr_cloudfree.evaluate(obj, **options)
