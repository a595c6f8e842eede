"""Areas of one value at the edge of a window."""

import numpy as np
import pytest
import xarray as xr

from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.cube.swath_edges import find_edge
from xr_cloudfree.cube.validity import derive_valid_range

DIGITS = Scaling(1e-4)


def scene(seed=0, n=64):
    return np.random.default_rng(seed).integers(300, 4000, (8, 3, n, n)).astype(np.uint16)


def edge_of(values, clear=None):
    clear = np.ones((len(values), *values.shape[2:]), bool) if clear is None else clear
    return find_edge(values, clear, DIGITS, derive_valid_range([xr.DataArray(values)], DIGITS))


ROWS, COLUMNS = np.indices((64, 64))


@pytest.mark.parametrize(
    "beyond",
    [COLUMNS < 4, COLUMNS > 59, ROWS < 3, ROWS > 60, COLUMNS + ROWS < 20, COLUMNS + 2 * ROWS > 170],
    ids=["left", "right", "top", "bottom", "corner", "slanted"],
)
@pytest.mark.parametrize("bands", [[0, 1, 2], [1]])
def test_an_edge_of_one_number_is_found(beyond, bands):
    values = scene()
    assert edge_of(values) is None
    for date in (2, 5):
        for band in bands:
            values[date, band, beyond] = 77
    found = edge_of(values)
    assert (found.value, found.date, found.bands) == (77, 2, len(bands))
    assert found.pixels == beyond.sum()


@pytest.mark.parametrize(
    "change",
    [
        lambda v: np.where(COLUMNS < 20, 77, v),  # water, cut off on all dates
        lambda v: np.where(COLUMNS < 20, np.where(np.arange(8)[:, None, None, None] % 2, 77, v // 40), v),  # on some
        lambda v: v[..., ::2, ::2].repeat(2, -1).repeat(2, -2),  # 20 m on 10 m
        lambda v: v[..., ::6, ::6].repeat(6, -1).repeat(6, -2)[..., :64, :64],  # 60 m on 10 m
        lambda v: v[..., ::30, ::30].repeat(30, -1).repeat(30, -2)[..., :64, :64],
        lambda v: v // 100 * 100,  # few levels
        lambda v: np.full_like(v, 900),
        lambda v: np.where((COLUMNS < 20) & (np.arange(8)[:, None, None, None] == 2), 15000, v * 5).clip(0, 15000),
        lambda v: np.where((COLUMNS < 20) & (np.arange(8)[:, None, None, None] == 2), 0, v).clip(301, 4000)[:, :1],
        lambda v: v[:1] * 0 + 900,
    ],
)
def test_no_edge_where_numbers_repeat(change):
    values = np.ascontiguousarray(change(scene()), np.uint16)
    assert edge_of(values) is None
