"""Simulated gaps: which pixels are hidden, which dates are kept, and that no input reveals the truth."""

from __future__ import annotations

import numpy as np
import pytest

from xr_cloudfree.accuracy import simulate
from xr_cloudfree.errors import OptionError, TimeError

SHAPE = (24, 30)


@pytest.fixture
def series():
    """Six dates, three of them clear, one on the same day as a clear one, one half hidden."""
    days = np.array([0, 10, 40, 50, 50.2, 75])
    time = np.datetime64("2021-06-01T10:00", "ns") + (days * 86400e9).astype("timedelta64[ns]")
    # All values are distinct.
    count = 6 * 3 * SHAPE[0] * SHAPE[1]
    values = np.random.default_rng(0).permutation(count).reshape(6, 3, *SHAPE)
    bands = (values / np.float32(count)).astype(np.float32)
    clear = np.ones((6, *SHAPE), bool)
    clear[1, :, :15] = False
    clear[4, :12] = False
    return bands, clear, time


def cases(series, track, **options):
    bands, clear, time = series
    return list(simulate.make_cases(bands, clear, time, track, **options))


@pytest.mark.parametrize("track", simulate.TRACKS)
def test_the_hidden_truth_is_nowhere_in_the_input(series, track):
    bands, _, _ = series
    for case in cases(series, track):
        assert case.scored.any()
        assert np.isnan(case.bands[case.target][:, case.scored]).all()
        assert not case.clear[case.target][case.scored].any()
        kept = case.clear[:, None] if track != "haze" else np.delete(case.clear, case.target, 0)[:, None]
        given = case.bands if track != "haze" else np.delete(case.bands, case.target, 0)
        # What is blended with cloud may hit upon any value; all else can only have come from the truth.
        assert not np.isin(case.truth[:, case.scored], given[np.broadcast_to(kept, given.shape)]).any()
        assert (case.truth == bands[case.frame]).all()
        assert case.day_offset[case.target] == 0


def test_what_was_seen_on_the_same_day_is_dropped(series):
    case = next(c for c in cases(series, "partial") if c.frame == 3)
    assert case.day_offset.round(6).tolist() == [-50, -40, -10, 0, 25]


def test_gap_drops_near_dates_and_keeps_those_beyond(series):
    case = next(c for c in cases(series, "gap") if c.frame == 3)
    assert case.day_offset.tolist() == [-50, -40, 0, 25]
    bands, clear, time = series
    rng, left = np.random.default_rng(0), np.zeros(SHAPE, bool)
    left[:, :15] = True  # where the date at -40 is not clear
    for hidden, days in ((left, 75), (~left, 65)):
        assert simulate.make_case(bands, clear, time, 3, "gap", hidden, rng).gap_days == days


def test_the_gap_of_a_one_sided_target_is_infinite(series):
    case = next(c for c in cases(series, "partial") if c.frame == 5)
    assert case.gap_days == np.inf


def test_full_hides_everything(series):
    for case in cases(series, "full"):
        assert not case.clear[case.target].any()


def test_others_keep_their_clouds_and_inputs_are_not_changed(series):
    bands, clear, _ = series
    before = bands.copy(), clear.copy()
    for track in simulate.TRACKS:
        for case in cases(series, track):
            others = np.delete(case.clear, case.target, axis=0)
            assert others.mean(axis=(1, 2)).min() == 0.5
            break
    assert (bands == before[0]).all() and (clear == before[1]).all()


def test_partial_hides_as_much_as_asked_for(series):
    for seed in range(5):
        for case in cases(series, "partial", seed=seed):
            assert 0.1 <= (~case.clear[case.target]).mean() <= 0.8


def test_a_seed_is_a_choice_and_tracks_share_it(series):
    first, again, other = (cases(series, "partial", seed=seed) for seed in (1, 1, 2))
    assert all((a.scored == b.scored).all() for a, b in zip(first, again, strict=True))
    assert any((a.scored != b.scored).any() for a, b in zip(first, other, strict=True))
    hazy = cases(series, "haze", seed=1)
    assert all((a.scored == b.scored).all() for a, b in zip(first, hazy, strict=True))


def test_limit_chooses_frames(series):
    assert len(cases(series, "partial", limit=2)) == 2
    assert len(cases(series, "partial")) == 4


def test_suspect_and_cloudy_frames_are_no_truth(series):
    _, clear, _ = series
    suspect = np.zeros(6, bool)
    suspect[2] = True
    assert simulate.target_frames(clear, suspect).tolist() == [0, 3, 5]


def test_haze_has_the_opacity_of_its_distance():
    image = np.full((2, 20, 20), 0.1, np.float32)
    hidden = np.zeros((20, 20), bool)
    hidden[:, :5] = True
    rng = np.random.default_rng(0)
    # Only the least of all brightenings over many draws is free of small clouds.
    least = np.min([simulate.haze(image, hidden, rng) for _ in range(40)], axis=0)
    expected = 0.1 + np.array([0.5, 0.3, 0.18, 0]) * 0.5
    assert least[0, 10, 5:9] == pytest.approx(expected, abs=1e-6)
    assert (least[0] == least[1]).all()


def test_haze_leaves_small_clouds_that_the_mask_does_not_know():
    image = np.full((1, 60, 60), 0.1, np.float32)
    hidden = np.zeros((60, 60), bool)
    hidden[:10] = True
    for seed in range(5):
        hazy = simulate.haze(image, hidden, np.random.default_rng(seed))[0, 14:]
        assert 0.005 < (hazy > 0.12).mean() < 0.1
        assert hazy.max() <= 0.1 + 0.4 * 0.5 + 1e-6


def test_real_masks_are_those_of_partly_cloudy_frames(series):
    _, clear, _ = series
    found = simulate.real_masks(clear)
    assert [mask.mean() for mask in found] == [0.5, 0.5]
    assert found[0][:, :15].all()


def test_small_masks_are_enlarged_and_large_ones_cut():
    rng = np.random.default_rng(0)
    mask = np.zeros((6, 6), bool)
    mask[:, :3] = True
    for shape in ((20, 13), (4, 5)):
        hidden = simulate.transplant([mask], shape, (0.05, 0.95), rng)
        assert hidden.shape == shape
        assert 0.05 <= hidden.mean() <= 0.95


def test_no_mask_is_an_error_that_says_so(series):
    with pytest.raises(OptionError, match="masks=real_masks"):
        cases(series, "partial", masks=[])
    with pytest.raises(OptionError):
        cases(series, "partial", masks=[np.ones(SHAPE, bool)])


def test_unknown_track_and_unsorted_dates(series):
    bands, clear, time = series
    rng, hidden = np.random.default_rng(0), np.zeros(SHAPE, bool)
    with pytest.raises(OptionError, match="half"):
        simulate.make_case(bands, clear, time, 0, "half", hidden, rng)
    with pytest.raises(TimeError):
        simulate.make_case(bands, clear, time[::-1], 0, "partial", hidden, rng)


@pytest.mark.parametrize("track", simulate.TRACKS)
def test_values_that_are_not_clear_are_kept_on_request_but_for_the_hidden_ones(series, track):
    for case, kept in zip(cases(series, track), cases(series, track, keep_values=True), strict=True):
        assert (kept.clear == case.clear).all() and (kept.scored == case.scored).all()
        given = np.broadcast_to(case.clear[:, None], case.bands.shape)
        assert (kept.bands[given] == case.bands[given]).all()
        assert np.isnan(kept.bands[kept.target][:, kept.scored]).all()
        assert np.isfinite(np.delete(kept.bands, kept.target, axis=0)).all()
        others = np.delete(kept.bands, kept.target, axis=0)
        assert not np.isin(kept.truth[:, kept.scored], others).any()
