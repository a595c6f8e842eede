"""From bands to an image: choice of bands, stretch, subsampling and position on the map."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
import xarray as xr

from tests.support.cubes import DATES
from xr_cloudfree.cube.conventions import parse_cube
from xr_cloudfree.plot.picture import choose_bands, colours, limits, place_of, thin


def test_degrees_of_longitude_are_drawn_shorter(portugal) -> None:
    place = place_of(parse_cube(portugal))
    assert place.labels == ("longitude [°]", "latitude [°]")
    assert place.aspect == pytest.approx(1 / np.cos(np.deg2rad(39.29)), rel=1e-3)
    # 128 pixels of about 20.2 m by 20.3 m.
    assert place.ratio == pytest.approx(1.0, abs=0.02)


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        (["B02", "B03", "B04", "B08"], ["B04", "B03", "B02"]),
        (["green", "red", "nir", "swir16"], ["nir", "red", "green"]),
        (["B03", "B04", "B8A"], ["B8A", "B04", "B03"]),
        (["a", "b", "c", "d"], ["a", "b", "c"]),
        (["a", "b"], ["a"]),
    ],
)
def test_bands_are_chosen_by_what_they_are(names, shown) -> None:
    da = xr.DataArray(
        np.zeros((1, len(names), 2, 2)),
        dims=("time", "band", "y", "x"),
        coords={"time": DATES[:1], "band": names},
    )
    assert [names[i] for i in choose_bands(parse_cube(da)).index] == shown


def test_large_pictures_are_thinned() -> None:
    array = xr.DataArray(np.zeros((2500, 3000)), dims=("y", "x"))
    assert thin(array, 1200).shape == (834, 1000)
    assert thin(array[:1200, :1200], 1200).shape == (1200, 1200)


def test_a_constant_image_has_a_stretch() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ends = limits(np.full((1, 2, 2), 0.3), np.ones((2, 2), bool), (2, 98), natural=False)
    assert ends[1, 0] > ends[0, 0] == pytest.approx(0.3)


def test_dark_fields_are_dark_but_not_black_in_colour() -> None:
    """Woods beside bright soil: the darkest pixels keep a tone and a hue, and grey pixels stay grey."""
    wood, soil, grey = (0.02, 0.035, 0.02), (0.3, 0.22, 0.15), (0.1, 0.1, 0.1)
    values = np.array([wood] * 30 + [soil] * 60 + [grey] * 10).T.reshape(3, 10, 10)
    everywhere = np.ones((10, 10), bool)
    picture = colours(values, everywhere, limits(values, everywhere, (2, 98), natural=True)).reshape(-1, 3)
    assert picture[0].min() > 0.1 and picture[0, 1] > picture[0, 0] + 0.03
    assert picture[-1].max() - picture[-1].min() < 1e-6
    assert picture[30].max() > 0.95
