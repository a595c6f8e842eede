"""Layers on the dates and the grid of a cube, or on coarser pixels; others are refused."""

import numpy as np
import pytest
import xarray as xr

from tests.support.layers import TEMPLATE, TIMES, layer, resolve
from xr_cloudfree.errors import (
    DimensionError,
    GridError,
    TimeError,
)


def test_dates_come_in_the_cubes_order():
    values = np.arange(3, dtype=np.uint8)[:, None, None] * np.ones((1, 4, 6), np.uint8)
    quality, _ = resolve(layer(values).isel(time=[2, 0, 1]))
    assert (quality.time.values == TIMES).all()
    assert quality[:, 0, 0].values.tolist() == [0, 1, 2]


def test_dates_in_other_units_are_the_same_dates():
    quality = layer().assign_coords(time=TIMES.astype("datetime64[s]"))
    assert resolve(quality)[0].sizes["time"] == 3


@pytest.mark.parametrize(
    ("change", "match"),
    [
        (lambda q: q.isel(time=[0, 1]), "2 dates, the cube 3, of which it lacks 1"),
        (lambda q: q.assign_coords(time=TIMES + np.timedelta64(1, "m")), "lacks 3"),
        (lambda q: q.isel(time=[0, 1, 1]), "lacks 1"),
        (lambda q: xr.concat([q, q.isel(time=[0])], "time"), "4 dates"),
        (lambda q: q.isel(time=[0, 1]).drop_vars("time"), "2 dates, the cube 3"),
    ],
)
def test_other_dates(change, match):
    with pytest.raises(TimeError, match=match):
        resolve(change(layer()))


def test_coarser_layer_that_nests():
    coarse = layer(ny=2, nx=3, step=20.0)
    assert resolve(coarse)[1].factor == 2
    # The last coarse pixel may reach beyond an odd edge.
    odd = layer(ny=3, nx=5, name="B02")
    assert resolve(coarse, template=odd)[1].factor == 2
    assert resolve(layer(ny=1, nx=1, step=60.0), template=layer(ny=6, nx=6))[1].factor == 6


def test_layers_without_coordinates_need_the_shape():
    bare = layer().drop_vars(["y", "x"])
    assert resolve(bare)[1].factor == 1
    with pytest.raises(GridError, match="without coordinates"):
        resolve(bare.isel(x=slice(1, None)))


def test_coordinates_may_have_been_rounded():
    y, x = TEMPLATE.y + 4.5e6, TEMPLATE.x
    template = TEMPLATE.assign_coords(y=y)
    assert resolve(layer().assign_coords(y=y.astype(np.float32), x=x), template=template)[1].factor == 1


@pytest.mark.parametrize(
    "change",
    [
        lambda q: q.assign_coords(x=q.x + 5),  # half a pixel
        lambda q: q.assign_coords(y=q.y + 0.01),
        lambda q: q.isel(y=slice(None, None, -1)),
        lambda q: q.isel(x=slice(1, None)),
        lambda q: q.assign_coords(x=q.x + 10),
        lambda q: layer(ny=2, nx=3, step=20.0, x0=490.0),  # nests in the grid, not in its edges
        lambda q: layer(ny=2, nx=3, step=20.0, x0=505.0),
        lambda q: layer(ny=3, nx=4, step=15.0),
        lambda q: layer(ny=8, nx=12, step=5.0),
        lambda q: layer(ny=2, nx=6).assign_coords(y=[3990.0, 3970.0]),  # coarser along one axis only
    ],
)
def test_other_grids(change):
    with pytest.raises(GridError, match=r"another grid: .* pixels.*; the cube: 4 x 6 pixels.*nearest") as raised:
        resolve(change(layer()))
    assert "step -10, 10" in str(raised.value)


def test_other_crs():
    mask, template = layer().rio.write_crs(32633), TEMPLATE.rio.write_crs(32632)
    assert resolve(mask=mask, template=mask)[1].factor == 1
    with pytest.raises(GridError, match=r"EPSG:32633.*EPSG:32632.*reproject_match"):
        resolve(mask=mask, template=template)


def test_dimensions():
    quality = layer()
    assert resolve(quality.expand_dims("band"))[0].dims == ("time", "y", "x")
    for wrong in (
        quality.rename(y="lat"),
        quality.isel(time=0),
        xr.concat([quality, quality], "band"),
    ):
        with pytest.raises(DimensionError, match="time, y and x"):
            resolve(wrong)
