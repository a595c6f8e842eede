"""TerraMind's slots: which band goes where, and what is put where there is none."""

import numpy as np
import pytest

from xr_cloudfree.cube.sensors import BAND_NAMES, common_names_of
from xr_cloudfree.models.networks.inputs import prepare
from xr_cloudfree.models.networks.terramind.bands import DIGITAL, SLOTS, describe, interpolation_weights, one_hot
from xr_cloudfree.models.protocol import Observations

SENTINEL = "B01 B02 B03 B04 B05 B06 B07 B08 B8A B09 B11 B12".split()


def test_twelve_bands_of_sentinel_2_go_to_their_slots_in_any_order():
    common_names = common_names_of(SENTINEL)
    np.testing.assert_array_equal(one_hot(common_names), np.eye(12))
    np.testing.assert_array_equal(interpolation_weights(common_names), np.eye(12))
    np.testing.assert_array_equal(interpolation_weights(common_names[::-1]), np.eye(12)[::-1])


def test_ten_bands_leave_two_to_be_filled():
    common_names = common_names_of([band for band in SENTINEL if band not in ("B01", "B09")])
    found = interpolation_weights(common_names)
    filled = {slot.band: found[:, i] for i, slot in enumerate(SLOTS)}
    # B01 lies beyond blue, and is blue; B09 at 945.1 nm lies between B8A at 864.7 and B11 at 1613.7.
    assert filled["B01"].tolist() == [1, *[0] * 9]
    to_b11 = (945.1 - 864.7) / (1613.7 - 864.7)
    np.testing.assert_allclose(filled["B09"][[7, 8]], [1 - to_b11, to_b11], rtol=1e-6)
    assert np.count_nonzero(filled["B09"]) == 2
    np.testing.assert_array_equal(np.delete(found, [0, 9], axis=1), np.eye(10))


@pytest.mark.parametrize(
    ("bands", "expected"),
    [
        ("SR_B1 SR_B2 SR_B3 SR_B4 SR_B5 SR_B6 SR_B7", "B01 B02 B03 B04 B08 B11 B12"),
        ("SR_B1 SR_B2 SR_B3 SR_B4 SR_B5 SR_B7", "B02 B03 B04 B08 B11 B12"),
        ("blue green red nir", "B02 B03 B04 B08"),
    ],
)
def test_bands_of_landsat_go_where_their_colour_is(bands, expected):
    found = one_hot(common_names_of(bands.split()))
    assert [SLOTS[i].band for i in found.argmax(axis=1)] == expected.split() and (found.sum(axis=1) == 1).all()


def test_an_image_through_the_shares_by_hand():
    """Green 0.1 and swir16 0.3: red at 664.6 nm is a tenth of the way from 559.8 to 1613.7."""
    image = np.array([0.1, 0.3]) @ interpolation_weights(["green", "swir16"])
    way = (664.6 - 559.8) / (1613.7 - 559.8)
    expected = {"B01": 0.1, "B02": 0.1, "B03": 0.1, "B04": 0.1 + 0.2 * way, "B11": 0.3, "B12": 0.3}
    for i, slot in enumerate(SLOTS):
        if slot.band in expected:
            assert image[i] == pytest.approx(expected[slot.band], rel=1e-6)


def test_bands_without_a_slot_fill_none():
    found = interpolation_weights([None, "red", "cirrus"])
    np.testing.assert_array_equal(found, [[0] * 12, [1] * 12, [0] * 12])
    np.testing.assert_array_equal(one_hot([None, "red", "cirrus"]).sum(axis=1), [0, 1, 0])


def test_where_no_band_is_known_each_slot_is_the_mean():
    np.testing.assert_allclose(interpolation_weights([None, None]), np.full((2, 12), 0.5))


def test_a_colour_that_is_there_twice_is_taken_once():
    np.testing.assert_array_equal(one_hot(["red", "red"]).sum(axis=1), [1, 0])


@pytest.mark.parametrize("seed", range(20))
def test_shares_add_up_to_one(seed):
    rng = np.random.default_rng(seed)
    common_names = [str(role) for role in rng.permutation([*BAND_NAMES])[: rng.integers(1, 13)]]
    found = interpolation_weights(common_names)
    np.testing.assert_allclose(found.sum(axis=0), 1, rtol=1e-6)
    assert (found >= 0).all() and found.dtype == np.float32


def test_the_statistics_are_terraminds():
    """As the release has them; reflectance 0.1 is 1000 in its units."""
    by_band = {slot.band: slot for slot in SLOTS}
    assert (by_band["B02"].mean, by_band["B02"].std) == (1503.317, 2141.107)
    assert (by_band["B12"].mean, by_band["B12"].std) == (1857.648, 1334.311)
    assert [slot.band for slot in SLOTS] == SENTINEL and DIGITAL * 0.1 == 1000
    wavelengths = [slot.wavelength for slot in SLOTS]
    assert wavelengths == sorted(wavelengths)


def test_a_tile_is_described_by_its_roles():
    tile = prepare(
        Observations(np.full((2, 2, 1, 1), 0.1, np.float32), np.ones((2, 1, 1), bool), np.array([-1.0, 2.0]))
    )
    told = describe(tile, ("nir", None))
    np.testing.assert_array_equal(told.features["one_hot"], one_hot(["nir", None]))
    np.testing.assert_array_equal(describe(tile, ()).features["interpolation_weights"], np.full((2, 12), 0.5))
    assert tile.features == {}
