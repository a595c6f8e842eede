"""Metadata that are wrong about the offset: found in the values, and the remedy loads the right cube."""

import re

import pytest
import xarray as xr

import xr_cloudfree
from tests.support import archives
from tests.support.archives import S2_NEW, S2_OLD, area, make_item
from xr_cloudfree import errors

TIMES = [f"2021-07-{day:02d}T11:21:21" for day in (3, 8, 13, 18)]


def items(folder, truths, told, form="earth_search_v1"):
    """Items of which the archive tells whether it has subtracted the offset, truly or not."""
    return [
        make_item(folder, form, when, stored=truth, clouds=False, earthsearch__boa_offset_applied=applied)
        for when, truth, applied in zip(TIMES, truths, told, strict=True)
    ]


def fill(cube):
    return xr.decode_cf(cube.cloudfree.fill("2021-07-13", model="linear").compute())


@pytest.mark.parametrize(
    "truths, told, bands",
    [
        # It tells that it has subtracted the offset of all, but has not of two.
        ([S2_NEW, S2_OLD, S2_NEW, S2_OLD], [True] * 4, None),
        # It tells that it has not, but has of one.
        ([S2_NEW, S2_NEW, S2_OLD, S2_NEW], [False] * 4, None),
        # It tells that it has not, but has of all: found where much of the ground is dark.
        ([S2_OLD] * 4, [False] * 4, ["blue", "green", "red"]),
    ],
)
def test_wrong_metadata_are_found_in_the_values(tmp_path, truths, told, bands):
    found = items(tmp_path, truths, told)
    cube = xr_cloudfree.load(found, bbox=area(), bands=bands)
    with pytest.raises(errors.ScalingError) as caught:
        fill(cube)
    wrong = {item["id"] for item, truth, flag in zip(found, truths, told, strict=True) if (truth is S2_OLD) != flag}
    assert all(name in caught.value.found for name in wrong)
    # One of the ways is right; what it says is typed as it stands, but for the dots.
    offsets = [eval(text) for text in re.findall(r"offset=(\{.*?\})\)", str(caught.value.remedy))]
    right = [offset for offset in offsets if set(offset) == wrong]
    assert right
    again = xr_cloudfree.load(found, bbox=area(), bands=bands, offset=right[0])
    image = fill(again)
    x, y = xr.broadcast(image.x, image.y)
    truth = archives.reflectance("red", x.transpose("y", "x"), y.transpose("y", "x"), "2021-07-13T11:21:21")
    assert float(abs(image.red - truth).max()) < 1e-4


def test_true_metadata_are_no_error(tmp_path):
    fill(xr_cloudfree.load(items(tmp_path, [S2_OLD, S2_NEW] * 2, [True, False] * 2), bbox=area()))
