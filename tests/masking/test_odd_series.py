"""What is done with series from which a mask can hardly be corrected: stated, never a crash, never all masked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support import odd_series
from tests.support.mask_checks import consistent
from tests.support.mask_scenes import burn, figures, harvest, missed_cloud, right
from xr_cloudfree import summary
from xr_cloudfree.errors import CloudfreeWarning, OptionError
from xr_cloudfree.masking.repair import LEAST_DATES, Change

BOTH = pytest.mark.parametrize("from_series", [False, True])


def made_of(scene, from_series=False):
    """Return the result of a scene after the checks that hold for every result, and its figures."""
    made = scene.repaired(from_series=from_series)
    consistent(scene, made, from_series)
    return made, figures(scene, made.clear, from_series=from_series)


def never_all_masked(scene, made):
    """Check that no date which is mostly clean is masked from edge to edge."""
    clean = (scene.clean & scene.usable & scene.given).sum(axis=(1, 2)) > 0.5 * scene.given[0].size
    assert clean.any()
    assert (made.clear[clean].mean(axis=(1, 2)) > 0.25).all()


class TestFewDates:
    @BOTH
    @pytest.mark.parametrize("dates", range(1, LEAST_DATES))
    def test_too_few_for_a_comparison_leave_the_mask_as_it_is(self, dates, from_series):
        """With one or two dates, nothing tells which of them is cloudy: nothing is masked, nothing restored."""
        scene = odd_series.two_dates().dates(slice(0, dates))
        made, _ = made_of(scene, from_series)
        assert (made.change == Change.AS_GIVEN).all()
        np.testing.assert_array_equal(made.clear, scene.usable if from_series else scene.given)

    @BOTH
    def test_three_dates_show_a_cloud_on_the_second(self, from_series):
        """Of three dates, the first and the last say what is to be expected on the second; clean dates stay clear."""
        scene = odd_series.three_dates()
        made, got = made_of(scene, from_series)
        never_all_masked(scene, made)
        assert got.found > 0.5 and got.lost <= 0.1

    def test_no_date_at_all_is_no_error(self):
        """An empty series has an empty result."""
        made = right().dates(slice(0, 0)).repaired()
        assert made.clear.shape == made.score.shape == (0, 96, 96)


class TestHardlyAnythingClear:
    def test_one_clear_date_is_kept_and_the_clouds_stay(self):
        """Nothing is left to compare the only clear date with: it stays clear, and clouds are not restored."""
        scene = odd_series.overcast((5,))
        made, got = made_of(scene)
        assert made.clear[5].mean() > 0.99 and got.kept >= 0.98

    def test_all_cloudy_stays_so(self):
        """Without a clear date nothing can be restored: a permanent cloud is not taken for the ground."""
        made, got = made_of(odd_series.overcast())
        assert got.kept >= 0.98
        assert not (made.change == Change.CLOUD).any()

    @BOTH
    def test_all_cloudy_from_the_series_is_no_error(self, from_series):
        """A series cannot tell a permanent cloud from the ground; the codes agree with the mask, that is all."""
        made_of(odd_series.overcast((), 8), from_series)
        made_of(odd_series.overcast((3,), 8), from_series)

    @pytest.mark.parametrize("dates", [3, 5])
    def test_a_mask_that_is_never_clear_on_few_dates_stays(self, dates):
        """On a few dates without a clear pixel, clouds are not restored either."""
        _, got = made_of(odd_series.overcast((), dates))
        assert got.kept >= 0.98


class TestMasksOfOneValue:
    def test_all_clear_is_as_no_mask(self):
        """A mask that is clear everywhere says nothing; clouds are found as from the series alone."""
        scene = right()
        made, got = made_of(replace(scene, given=np.ones_like(scene.given)))
        never_all_masked(scene, made)
        assert got.found >= 0.85 and got.pure >= 0.97 and got.lost <= 0.05

    def test_all_cloud_gives_no_ground_to_restore_from(self):
        """A mask that is cloud everywhere contradicts the series wholly: it is kept, but for clearly clean pixels.

        No cloud is given back. The summary of a cube warns of such dates.
        """
        scene = right()
        _, got = made_of(replace(scene, given=np.zeros_like(scene.given), alarms=scene.clean))
        assert got.kept >= 0.98


class TestValues:
    @BOTH
    def test_a_constant_series_stays_clear(self, from_series):
        """Where nothing ever differs, nothing is masked; false alarms are restored, without a division by zero."""
        scene = odd_series.constant()
        made, got = made_of(scene, from_series)
        assert got.lost == 0
        assert from_series or got.restored >= 0.8
        assert np.isfinite(made.score).mean() > 0.99

    @pytest.mark.parametrize("size", [0.1, -0.02, 0.03])
    def test_a_jump_of_the_offset_is_not_a_cloud(self, size):
        """All pixels of all dates from one on are higher: the series starts anew there, and few pixels are masked."""
        scene = odd_series.offset_jump(size)
        made, got = made_of(scene)
        never_all_masked(scene, made)
        assert got.lost <= 0.05 and got.kept >= 0.9

    @BOTH
    def test_a_jump_of_the_offset_does_not_mask_all(self, from_series):
        """Also without a mask, no date is masked from edge to edge."""
        scene = odd_series.offset_jump()
        never_all_masked(scene, made_of(scene, from_series)[0])

    @BOTH
    def test_missing_values_are_never_clear_and_change_little(self, from_series):
        """Where a band has no value, a pixel is not clear, has no score and no change; elsewhere clouds are found."""
        scene = odd_series.swath_edges()
        _, got = made_of(scene, from_series)
        assert got.found >= 0.8 and got.lost <= (0.05 if from_series else 0.015)

    @BOTH
    def test_a_date_and_a_column_without_any_value(self, from_series):
        """A date without a value stays without; so does a pixel; nothing else is disturbed."""
        scene = right()
        bands = scene.bands.copy()
        bands[4], bands[:, :, :, 11] = np.nan, np.nan
        scene = replace(scene, bands=bands)
        made, got = made_of(scene, from_series)
        assert not made.clear[4].any() and not made.clear[..., 11].any()
        assert got.lost <= (0.05 if from_series else 0.01)

    def test_glint_is_masked_at_most_where_it_is(self):
        """Sun glint on water looks like thin cloud and may be masked; the lake on other dates, and the land, stay."""
        scene, bright = odd_series.glint()
        made, got = made_of(scene)
        never_all_masked(scene, made)
        assert bright.any() and got.lost <= 0.015 and got.kept >= 0.98

    @BOTH
    def test_snow_all_winter_stays(self, from_series):
        """Snow that lies for months is ground: it stays clear, and so does what is below it in spring."""
        scene = odd_series.winter()
        made, got = made_of(scene, from_series)
        never_all_masked(scene, made)
        assert got.lost <= (0.05 if from_series else 0.02)

    def test_sensors_that_differ_a_little_are_not_clouds(self):
        """Bands of two sensors differ in gain and offset from date to date: few pixels are masked for it."""
        scene = odd_series.two_sensors()
        made, got = made_of(scene)
        never_all_masked(scene, made)
        assert got.found >= 0.8 and got.lost <= 0.02


class TestFewBands:
    @pytest.mark.parametrize("name", ["blue", "red", "nir"])
    def test_clouds_are_found_in_one_band(self, name):
        """A single band shows thick clouds; growth and harvest look like them, so only what stands out is masked."""
        scene = odd_series.only(name, missed_cloud())
        made, got = made_of(scene)
        never_all_masked(scene, made)
        assert got.found >= 0.6 and got.lost <= 0.02

    @pytest.mark.parametrize("change", [harvest, burn])
    @pytest.mark.parametrize("name", ["red", "nir"])
    def test_real_change_in_one_band_stays(self, change, name):
        """A change that stays is not masked in a single band either."""
        _, got = made_of(odd_series.only(name, change()))
        assert got.changed <= 0.02 and got.lost <= 0.02

    @BOTH
    def test_an_index_under_an_unknown_name_is_no_error(self, from_series):
        """An index is not corrected where it is known as one (see below); passed as a band it is no error."""
        made_of(odd_series.index(harvest()), from_series)

    @BOTH
    def test_bands_without_names(self, from_series):
        """The bands need no names; three visible bands do as well."""
        scene = replace(missed_cloud(), names=())
        rgb = replace(scene, bands=scene.bands[:, :3])
        for one in (scene, rgb):
            _, got = made_of(one, from_series)
            assert got.found >= 0.8 and got.lost <= (0.05 if from_series else 0.01)


class TestWholeCubes:
    """The same as a user meets it: `repair="auto"` leaves alone what cannot be corrected, True says why not."""

    @staticmethod
    def cube(scene):
        time = np.datetime64("2023-01-01", "ns") + np.round(scene.days * 86400).astype("m8[s]")
        coords = {"time": time, "band": list(scene.names)}
        da = xr.DataArray(scene.bands, dims=("time", "band", "y", "x"), coords=coords)
        return da, xr.DataArray(scene.given, dims=("time", "y", "x"), coords={"time": time})

    def test_two_dates(self):
        """Two dates are left as they are; on request an error says that three are needed."""
        da, clear = self.cube(odd_series.two_dates())
        for repair in ("auto", False):
            np.testing.assert_array_equal(xr_cloudfree.clear_mask(da, clear=clear, repair=repair), clear)
        with pytest.raises(OptionError, match="at least 3 dates"):
            xr_cloudfree.clear_mask(da, clear=clear, repair=True)

    def test_an_index(self):
        """NDVI is not corrected, for clouds change reflectance, not every index; on request an error says so."""
        scene = right()
        da, clear = self.cube(replace(odd_series.index(scene), names=("ndvi",)))
        np.testing.assert_array_equal(xr_cloudfree.clear_mask(da, clear=clear), clear)
        with pytest.raises(OptionError, match="ndvi"):
            xr_cloudfree.clear_mask(da, clear=clear, repair=True)

    def test_a_date_without_any_value_and_edges_are_not_clear(self):
        """Missing values are not clear and not filled from; the rest of the cube is filled as usual."""
        scene = odd_series.swath_edges()
        bands = scene.bands.copy()
        bands[7] = np.nan
        da, clear = self.cube(replace(scene, bands=bands))
        image = xr_cloudfree.fill(da, da.time[7].values, clear=clear, model="linear", layers="all", repair=True)
        assert bool((image["filled"] == 2).mean() > 0.9) and bool((image["mask_change"] == 0).all())

    def test_no_mask_is_one_warning(self):
        """Without a mask it is made from the series, and one warning says so."""
        da, _ = self.cube(missed_cloud())
        with pytest.warns(CloudfreeWarning, match="made from the series") as caught:
            made = xr_cloudfree.clear_mask(da)
        assert len(caught) == 1
        np.testing.assert_array_equal(made, xr_cloudfree.clear_mask(da, mask="series"))

    def test_never_all_masked_in_silence(self):
        """Where the mask and the series disagree on a whole date, the summary of the cube says so."""
        scene = right()
        given = scene.given.copy()
        given[4] = False
        da, clear = self.cube(replace(scene, given=given))
        mask = (~clear).astype(np.uint8).assign_attrs(flag_values=[0, 1], flag_meanings="clear cloud")
        text = summary.describe(xr.Dataset({"reflectance": da, "cloud_mask": mask}), compute=True).text()
        assert "disagree on most pixels of " + str(da.time[4].values)[:10] in text
