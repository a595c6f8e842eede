"""Simulated masks that are wrong: what the target shows, which masks are given, what is scored, and by hand."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.ndimage import label

from xr_cloudfree.accuracy import mask_tracks
from xr_cloudfree.errors import OptionError, TimeError

EDGE = 40
# The donor's mask covers the first ten columns, and its cloud two more. A Gaussian of 0.7 pixels has the weights 0.57,
# 0.21 and 0.01: smoothed, a cloud of 0.2 is 0.043 in the next column, more than 0.008, and 0.002 in the one after.
MASKED, CLOUD, FOUND = slice(0, 10), slice(0, 12), slice(0, 13)


def at(*days):
    return np.datetime64("2021-06-01T10:00", "ns") + (np.array(days) * 86400e9).astype("timedelta64[ns]")


@pytest.fixture
def series():
    """Five dates on ground that brightens by 0.01 a day; the third is the donor, the last one of the fourth's day."""
    days = [0, 10, 20, 30, 30.2]
    ground = np.array([[0.1, 0.3]]) + 0.01 * np.array(days)[:, None]
    bands = np.broadcast_to(ground[:, :, None, None], (5, 2, EDGE, EDGE)).astype(np.float32)
    clear = np.ones((5, EDGE, EDGE), bool)
    bands[2, :, :, CLOUD] += np.array([0.2, 0.4], np.float32)[:, None, None]
    clear[2, :, MASKED] = False
    return bands, clear, at(*days)


def make(series, track="clouds", frame=1, donor=2, seed=0, **options):
    return mask_tracks.make_mask_case(*series, frame, donor, track, np.random.default_rng(seed), **options)


class TestClouds:
    def test_the_donors_anomaly_is_added_to_the_target(self, series):
        """The donor's ground lies on the line between its neighbours, so its cloud alone is added."""
        case = make(series)
        added = case.bands[case.target] - case.truth
        np.testing.assert_allclose(added[0, :, CLOUD], 0.2, atol=1e-6)
        np.testing.assert_allclose(added[1, :, CLOUD], 0.4, atol=1e-6)
        assert (added[:, :, 12:] == 0).all()
        np.testing.assert_allclose(case.truth[:, 0, 0], [0.2, 0.4], atol=1e-6)

    def test_the_donors_mask_is_given_and_the_rim_is_scored_apart(self, series):
        case = make(series)
        given, true = case.given[case.target], case.true[case.target]
        assert not given[:, MASKED].any() and given[:, 10:].all()
        assert not true[:, FOUND].any() and true[:, 13:].all()
        assert case.scored.all()
        assert (case.under == ~given).all() and case.under.sum() == 10 * EDGE
        assert (case.rim == given & ~true).all() and case.rim.sum() == 3 * EDGE
        for masks in (case.given, case.right, case.true):
            others = np.delete(masks, case.target, axis=0)
            assert (others == np.delete(series[1], 1, axis=0)).all()

    def test_the_signal_ends_ten_pixels_beyond_the_mask_and_below_the_threshold(self, series):
        bands, clear, _time = series
        bands[2] = bands[1] + 0.1
        bands[2, :, :, 10:] += np.where(np.arange(10, EDGE) < 18, 0.1, 0.008)
        cloud = mask_tracks.cloud_signal(bands, clear, np.array([0.0, 10, 20, 30, 30.2]), 2)[1]
        assert cloud[:, :18].all()  # 0.1, within ten pixels
        assert not cloud[:, 21:].any()  # 0.008 is not above 0.008; smoothing reaches two or three pixels
        bands[2, :, :, 10:] = bands[1, :, :, 10:] + 0.3
        cloud = mask_tracks.cloud_signal(bands, clear, np.array([0.0, 10, 20, 30, 30.2]), 2)[1]
        assert cloud[:, :20].all() and not cloud[:, 20:].any()  # columns 10 to 19 are 1 to 10 pixels from column 9

    def test_shadow_darkens_all_bands_and_a_change_of_colour_is_neither(self, series):
        bands, clear, _ = series
        days = np.array([0.0, 10, 20, 30, 30.2])
        expected = bands[1] + np.float32(0.1)
        bands[2] = expected - 0.05
        assert mask_tracks.cloud_signal(bands, clear, days, 2)[1][:, :20].all()
        bands[2] = expected + np.array([0.05, -0.05], np.float32)[:, None, None]
        signal, cloud, known = mask_tracks.cloud_signal(bands, clear, days, 2)
        assert (cloud == ~clear[2]).all() and known.all()
        assert (signal[:, clear[2]] == 0).all()

    def test_reflectance_of_cloudy_pixels_is_limited_and_of_clear_ones_is_not(self, series):
        bands, clear, time = series
        bands[:, :, 30:] -= 0.3  # dark water: below zero in the first band
        bands[2, :, :5, MASKED] = 5.0
        bands[2, :, 5:10, MASKED] = -0.2
        case = make((bands, clear, time))
        seen = case.bands[case.target]
        assert (seen[:, :5, MASKED] == np.float32(1.2)).all()
        assert (seen[:, 5:10, MASKED] == np.float32(0.005)).all()
        assert (seen[:, 30:, 13:] == bands[1, :, 30:, 13:]).all() and seen.min() < 0
        assert make((bands, clear, time), limits=(-1.0, 9.0)).bands[case.target].max() > 4

    def test_where_the_signal_is_unknown_the_target_has_no_value(self, series):
        bands, clear, time = series
        bands[2, 0, 5, 20] = np.nan
        clear[2, 5, 20] = False
        clear[[0, 1, 3, 4], 7, 3] = False  # clear on no other date: nothing to compare the donor with
        case = make((bands, clear, time))
        for row, column in ((5, 20), (7, 3)):
            assert np.isnan(case.bands[case.target, :, row, column]).all()
            assert not case.usable[case.target, row, column] and not case.scored[row, column]
            assert not case.given[case.target, row, column] and not case.true[case.target, row, column]

    def test_a_donor_that_is_clear_everywhere_adds_nothing(self, series):
        case = make(series, donor=0)
        assert (case.bands[case.target] == case.truth).all() and case.true.all(axis=(1, 2))[case.target]


def test_the_input_holds_no_other_date_of_the_targets_day(series):
    bands, _, _ = series
    case = make(series, frame=3)
    assert case.day_offset.tolist() == [-30, -20, -10, 0] and case.target == 3 and case.frame == 3
    assert (case.bands[:3] == bands[:3]).all() and (case.truth == bands[3]).all()
    with pytest.raises(TimeError, match="another pass"):
        make(series, frame=3, donor=4)


def test_the_hidden_truth_is_nowhere_in_the_input(series):
    bands, clear, time = series
    values = np.random.default_rng(0).permutation(bands.size).reshape(bands.shape) / np.float32(2 * bands.size)
    values[2, :, :, CLOUD] += 0.3 + 0.2 / bands.size  # between the values of the others
    for track in mask_tracks.MASK_TRACKS:
        case = make((values.astype(np.float32), clear, time), track)
        cloudy = case.scored & ~case.true[case.target]
        hidden = case.truth[:, cloudy]
        # What is blended with cloud may hit upon a value in the same place by chance, but not in many.
        assert (case.bands[case.target][:, cloudy] == hidden).mean() < 0.01
        assert not np.isin(hidden, np.delete(case.bands, case.target, axis=0)).any()


class TestMasks:
    def test_no_mask_calls_everything_with_a_value_clear(self, series):
        bands, clear, time = series
        bands[0, 1, 3] = np.nan
        clear[0, 3] = False
        case = make((bands, clear, time), "no mask")
        assert (case.given == case.usable).all() and not case.given[0, 3].any()
        assert (case.true == make((bands, clear, time)).true).all()
        assert mask_tracks.repaired(case).change.max() < 3  # nothing was masked that could be restored

    def test_wrong_masks_miss_whole_objects_and_flag_a_tenth_of_the_clear_pixels(self, series):
        bands, clear, time = series
        clear[0] = True
        clear[0, 2::4, 2::4] = False  # 100 objects of one pixel
        clear[0, 0, 0] = False
        bands[0, :, 0, 0] = np.nan  # no value: no object
        case = make((bands, clear, time), "wrong mask")
        missed, flagged = case.given & ~case.right, case.true & ~case.given
        assert missed[0].sum() == 20 and not missed[0, 0, 0]
        for date in range(len(flagged)):
            assert (case.right[date] & ~case.given[date]).sum() == round(0.1 * case.right[date].sum())
        number = label(flagged[1])[1]
        assert number < flagged[1].sum() / 5  # blobs, not single pixels
        assert set(np.unique(case.given[case.target][:, MASKED])) in ({False}, {True})  # one object, as a whole

    def test_a_fraction_of_an_object_is_a_chance(self):
        clear, usable = np.ones((8, 8), bool), np.ones((8, 8), bool)
        clear[2:4, 2:4] = clear[4, 4] = False  # they touch at a corner
        gone = [mask_tracks.unmask_objects(clear, usable, 0.2, np.random.default_rng(i)) for i in range(200)]
        assert all(mask.all() or (mask == clear).all() for mask in gone)
        assert 20 <= sum(mask.all() for mask in gone) <= 60  # 40 are expected, with a deviation of 5.7

    def test_blobs_keep_to_clear_pixels(self):
        clear = np.zeros((30, 30), bool)
        clear[:, 11:] = True
        flagged = mask_tracks.flag_blobs(clear, 0.25, np.random.default_rng(0))
        assert flagged.sum() == round(0.25 * 570) and not flagged[:, :11].any()
        assert not mask_tracks.flag_blobs(~np.ones((4, 4), bool), 0.1, np.random.default_rng(0)).any()


class TestScores:
    def test_the_true_mask_is_right_in_all_and_the_given_one_misses_the_rim(self, series):
        case = make(series)
        true = mask_tracks.mask_scores(case, case.true)
        assert (true["recall"], true["precision"], true["false_alarms"], true["newly_masked"]) == (1, 1, 0, 0)
        given = mask_tracks.mask_scores(case, case.given)
        assert given["recall"] == pytest.approx(10 / 13) and given["precision"] == pytest.approx(27 / 30)
        assert given["others_recall"] == given["others_precision"] == 1 and np.isnan(given["restored"])

    def test_dilation_finds_the_rim_and_flags_what_lies_beyond(self, series):
        case = make(series)
        score = mask_tracks.mask_scores(case, mask_tracks.dilated(case, 5))
        assert score["recall"] == 1 and score["false_alarms"] == pytest.approx(2 / 27)
        assert score["newly_masked"] == pytest.approx(2 / 27)
        assert score["others_false_alarms"] == pytest.approx(5 * EDGE / (4 * EDGE**2 - 10 * EDGE))
        assert (mask_tracks.dilated(case, 0) == case.given).all()

    def test_restored_counts_the_flagged_pixels_of_all_dates(self, series):
        case = make(series, "wrong mask")
        clear = case.given.copy()
        assert mask_tracks.mask_scores(case, clear)["restored"] == 0
        flagged = case.true & ~case.given
        clear[0] |= flagged[0]
        expected = flagged[0].sum() / flagged.sum()
        assert mask_tracks.mask_scores(case, clear)["restored"] == pytest.approx(expected)
        assert mask_tracks.mask_scores(case, case.right)["restored"] == 1

    def test_psnr_of_the_whole_image_the_mask_and_the_rim(self, series):
        """A prediction with an error of 0.1 under the mask, and the observed cloud of 0.2 and 0.4 on the rim."""
        case = make(series)
        image = mask_tracks.compose(case, case.given[:], case.truth + np.float32(0.1), np.ones((EDGE, EDGE), bool))
        score = mask_tracks.image_scores(case, image)
        assert score["answered"] == 1
        assert score["under"] == pytest.approx(20, abs=1e-4)
        # Two columns with squared errors of 0.04 and 0.16 in the two bands, and one without an error.
        assert score["rim"] == pytest.approx(-10 * np.log10(0.2 / 3), abs=1e-4)
        assert score["whole"] == pytest.approx(-10 * np.log10((10 * 0.01 + 2 * 0.1) / EDGE), abs=1e-4)

    def test_pixels_without_an_answer_are_left_out_and_counted(self, series):
        case = make(series)
        known = np.ones((EDGE, EDGE), bool)
        known[:20] = False
        score = mask_tracks.image_scores(case, mask_tracks.compose(case, case.true, case.truth, known))
        assert score["answered"] == pytest.approx(1 - 0.5 * 13 / EDGE)
        assert score["whole"] == score["under"] == np.inf
        nothing = mask_tracks.image_scores(case, np.full_like(case.truth, np.nan))
        assert nothing["answered"] == 0 and np.isnan(nothing["whole"])


class TestCases:
    def test_each_clear_frame_has_a_donor_of_another_pass(self, series):
        found = list(mask_tracks.make_mask_cases(*series, "clouds"))
        assert [case.frame for case in found] == [0, 1, 3, 4] and {case.donor for case in found} == {2}
        assert [case.frame for case in mask_tracks.make_mask_cases(*series, "clouds", limit=2, seed=1)] == [
            case.frame for case in mask_tracks.make_mask_cases(*series, "no mask", limit=2, seed=1)
        ]
        suspect = np.array([True, False, False, False, False])
        assert [case.frame for case in mask_tracks.make_mask_cases(*series, "clouds", suspect=suspect)] == [1, 3, 4]

    def test_donors_are_partly_cloudy_and_complete_and_of_another_pass(self, series):
        _, clear, time = series
        usable = np.ones_like(clear)
        assert mask_tracks.donors(clear, usable, time, 0).tolist() == [2]
        clear[0, :, :34] = False  # 85 %: too cloudy
        clear[1, :5] = False  # 12.5 %: too clear
        clear[3, :, 20:] = clear[4, :, 20:] = False
        assert mask_tracks.donors(clear, usable, time, 2).tolist() == [3, 4]
        assert mask_tracks.donors(clear, usable, time, 4).tolist() == [2]  # not the other scene of its day
        usable[3, :3] = False
        assert mask_tracks.donors(clear, usable, time, 2).tolist() == [4]
        near = at(0, 10, 20, 20.9, 30)  # the next day, but less than a day away
        assert mask_tracks.donors(clear, np.ones_like(clear), near, 3).tolist() == [4]

    def test_the_seed_decides(self, series):
        first, again, other = (
            list(mask_tracks.make_mask_cases(*series, "wrong mask", seed=seed)) for seed in (1, 1, 2)
        )
        assert all((a.given == b.given).all() for a, b in zip(first, again, strict=True))
        assert any((a.given != b.given).any() for a, b in zip(first, other, strict=True))

    def test_inputs_are_not_changed(self, series):
        before = [array.copy() for array in series]
        for track in mask_tracks.MASK_TRACKS:
            for case in mask_tracks.make_mask_cases(*series, track):
                case.bands[:] = 9
                case.truth[:] = 9
        assert all((a == b).all() for a, b in zip(before, series, strict=True))

    def test_no_donor_gives_no_case(self, series):
        bands, clear, time = series
        assert not list(mask_tracks.make_mask_cases(bands, np.ones_like(clear), time, "clouds"))


def test_errors(series):
    with pytest.raises(OptionError, match="no mask"):
        make(series, "half")
    with pytest.raises(TimeError):
        make((series[0], series[1], series[2][::-1]))
