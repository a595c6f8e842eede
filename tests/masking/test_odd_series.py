"""What is done with series from which a mask can hardly be corrected: stated, never a crash, never all masked."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from benchmarks.masks import odd_series
from benchmarks.masks.landscapes import figures, harvest, missed_cloud, right
from benchmarks.masks.odd_series import ODD
from benchmarks.masks.scenes import GIVEN, SERIES
from tests.support.mask_checks import as_good_as_before, consistent, repaired
from tests.support.mask_limits import PRESENT_LIMITS
from xr_cloudfree import summary
from xr_cloudfree.errors import CloudfreeWarning, OptionError
from xr_cloudfree.masking.repair import LEAST_DATES, Change

BOTH = pytest.mark.parametrize("from_series", [False, True])


def made_of(scene, from_series=False):
    """Return the result of a scene after the checks that hold for every result, and its figures."""
    made = scene.repaired(from_series=from_series)
    consistent(scene, made, from_series)
    return made, figures(scene, made.clear, from_series=from_series)


@pytest.mark.parametrize("mask", [GIVEN, SERIES])
@pytest.mark.parametrize("name", ODD)
def test_odd_series(name, mask):
    """Codes, scores and masks agree, no date that is mostly clean is all masked, and masks are as good as they were."""
    scene, made = repaired(name, mask)
    consistent(scene, made, mask == SERIES)
    as_good_as_before(scene, made, mask == SERIES, PRESENT_LIMITS[name, mask])
    clean = (scene.clean & scene.usable & scene.given).sum(axis=(1, 2)) > 0.5 * scene.given[0].size
    assert clean.any()
    assert (made.clear[clean].mean(axis=(1, 2)) > 0.05).all()


class TestFewDates:
    @BOTH
    @pytest.mark.parametrize("dates", range(1, LEAST_DATES))
    def test_too_few_for_a_comparison_leave_the_mask_as_it_is(self, dates, from_series):
        """With one or two dates, nothing tells which of them is cloudy: nothing is masked, nothing restored."""
        scene = odd_series.two_dates().dates(slice(0, dates))
        made, _ = made_of(scene, from_series)
        assert (made.change == Change.AS_GIVEN).all()
        np.testing.assert_array_equal(made.clear, scene.usable if from_series else scene.given)

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
    @pytest.mark.parametrize("clear_dates", [(), (3,)])
    def test_all_cloudy_from_the_series_is_no_error(self, clear_dates, from_series):
        """A series cannot tell a permanent cloud from the ground; the codes agree with the mask, that is all."""
        made_of(odd_series.overcast(clear_dates, 8), from_series)

    @pytest.mark.parametrize("dates", [3, 5])
    def test_a_mask_that_is_never_clear_on_few_dates_stays(self, dates):
        """On a few dates without a clear pixel, clouds are not restored either."""
        _, got = made_of(odd_series.overcast((), dates))
        assert got.kept >= 0.98


def test_all_cloud_gives_no_ground_to_restore_from():
    """A mask that is cloud everywhere contradicts the series wholly: no cloud is given back.

    The computed summary of a cube warns of such dates.
    """
    scene = right()
    _, got = made_of(replace(scene, given=np.zeros_like(scene.given), alarms=scene.clean))
    assert got.kept >= 0.98


@BOTH
def test_a_date_and_a_column_without_any_value_stay_so(from_series):
    _, made = repaired("empty_date_and_column", SERIES if from_series else GIVEN)
    for missing in (made.clear[4], made.clear[..., 11], np.isfinite(made.score[4]), np.isfinite(made.score[..., 11])):
        assert not missing.any()
    assert made.clear[3, :, 12].any()


@BOTH
def test_a_constant_series_has_scores(from_series):
    """Where nothing ever differs, there is no division by zero."""
    _, made = repaired("constant", SERIES if from_series else GIVEN)
    assert np.isfinite(made.score).mean() > 0.99


@BOTH
def test_an_index_under_an_unknown_name_is_no_error(from_series):
    """An index is not corrected where it is known as one (see below); passed as a band it is no error."""
    made_of(odd_series.index(harvest()), from_series)


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
        """Where the mask and the series disagree on a whole date, the computed summary of the cube says so."""
        scene = right()
        given = scene.given.copy()
        given[4] = False
        da, clear = self.cube(replace(scene, given=given))
        mask = (~clear).astype(np.uint8).assign_attrs(flag_values=[0, 1], flag_meanings="clear cloud")
        text = summary.describe(xr.Dataset({"reflectance": da, "cloud_mask": mask}), compute=True).text()
        assert "disagree on most pixels of " + str(da.time[4].values)[:10] in text
