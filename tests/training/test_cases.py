"""Training gaps: hidden pixels occur nowhere in the input, and a number determines a sample."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from tests.support.sites import BANDS, make_place
from xr_cloudfree.accuracy.simulate import TRACKS, real_masks
from xr_cloudfree.errors import OptionError, TimeError
from xr_cloudfree_training.cases import KINDS, MIN_CLEAR, Mixture, draw, examine

PLACE = make_place()
SHAPES = real_masks(PLACE.clear((slice(None), slice(None))))
PLAIN = {"block": 0.0, "thin": 0.0}


def only(kind: str, **others: float) -> Mixture:
    return Mixture(**{**dict.fromkeys(KINDS, 0.0), kind: 1.0, **PLAIN, **others})


def drawn(i, kind="masks", places=(PLACE,), seed=0, size=32, mixture=None, **options):
    return draw(list(places), SHAPES, seed, i, size=size, mixture=mixture or only(kind), **options)


def values_of(place):
    return place.arrays[0].to_numpy()


def test_a_number_stands_for_one_sample() -> None:
    mixture = Mixture()
    first = [drawn(i, mixture=mixture) for i in range(6)]
    again = [drawn(i, mixture=mixture) for i in (5, 3, 1, 0, 2, 4)]
    for i, other in zip((5, 3, 1, 0, 2, 4), again, strict=True):
        for name in ("bands", "clear", "day_offset", "truth", "scored"):
            np.testing.assert_array_equal(getattr(first[i].case, name), getattr(other.case, name))
        assert first[i].common_names == other.common_names
    assert len({d.case.truth.tobytes() for d in first}) == 6
    assert drawn(0, seed=1, mixture=mixture).case.truth.tobytes() != first[0].case.truth.tobytes()


@pytest.mark.parametrize("kind", KINDS)
def test_the_hidden_truth_is_nowhere_in_the_input(kind: str) -> None:
    for i in range(12):
        case = drawn(i, kind).case
        assert case.scored.any() and case.truth_clear[case.scored].all()
        assert not case.clear[case.target][case.scored].any()
        hidden = case.truth[:, case.scored]
        assert not np.isin(hidden, case.bands[np.isfinite(case.bands)]).any()
        assert np.isnan(case.bands[~np.broadcast_to(case.clear[:, None], case.bands.shape)]).all()
        assert case.truth_clear.mean() >= MIN_CLEAR
        if kind != "haze":
            shown = case.clear[case.target]
            np.testing.assert_array_equal(case.bands[case.target][:, shown], case.truth[:, shown])


def test_what_kinds_hide() -> None:
    share = {kind: [drawn(i, kind).case.scored.mean() for i in range(60)] for kind in KINDS}
    assert min(share["full"]) > MIN_CLEAR - 0.01  # all that is clear
    assert max(share["little"]) < 0.05
    assert np.mean(np.array(share["frames"]) > 0.9) == pytest.approx(1 / 3, abs=0.25) and min(share["frames"]) < 0.6
    assert 0.1 < np.mean(share["masks"]) < 0.5


def test_haze_dims_what_is_shown_and_nothing_else() -> None:
    changed = []
    for i in range(20):
        case = drawn(i, "haze").case
        assert case.track == "haze"
        shown = case.clear[case.target]
        changed.append((case.bands[case.target] != case.truth)[:, shown].mean())
        others = np.delete(case.bands, case.target, axis=0)
        assert np.isin(others[np.isfinite(others)], values_of(PLACE)).all()
    assert 0.01 < np.mean(changed) < 0.9 and max(changed) > 0.2


def test_shares_of_the_mixture() -> None:
    tracks = [drawn(i, mixture=Mixture(), size=16).case.track for i in range(400)]
    # haze 15 %, whole frames a third of 15 %, each with a deviation of 0.018 and 0.011
    assert tracks.count("haze") / 400 == pytest.approx(0.15, abs=0.06)
    assert tracks.count("full") / 400 == pytest.approx(0.05, abs=0.035)


def test_blocks_of_dates_are_dropped_around_the_target() -> None:
    gaps = []
    for i in range(30):
        case = drawn(i, mixture=only("masks", block=1.0)).case
        days = np.delete(case.day_offset, case.target)
        assert days.size >= 3
        before, after = days[days < 0], days[days > 0]
        if before.size and after.size:
            gaps.append(after.min() - before.max())
        # What is dropped is one block: within each side all dates are there.
        assert all((np.diff(side) == 5).all() for side in (before, after))
    assert max(gaps) > 60 and min(gaps) <= 20


def test_dates_are_dropped_at_random() -> None:
    counts = [len(drawn(i, mixture=only("masks", thin=1.0)).case.day_offset) - 1 for i in range(40)]
    assert min(counts) >= 3 and min(counts) < 10 and max(counts) > 20
    assert {len(drawn(i).case.day_offset) for i in range(5)} == {30}


def test_same_day_and_clouded_dates_are_no_inputs() -> None:
    place = make_place(dates=6)
    time = place.time.copy()
    time[3] = time[2] + np.timedelta64(3, "h")
    clear = place.seen.copy(deep=True)
    clear[4] = False
    place = replace(place, time=time, seen=clear)
    for i in range(20):
        case = drawn(i, places=[place]).case
        days = np.delete(case.day_offset, case.target)
        assert (np.abs(days) >= 1).all() and case.clear.any(axis=(1, 2)).all()


def test_frames_that_are_suspect_or_cloudy_are_no_truth() -> None:
    place = make_place(dates=5, cloudy=0)
    clear = place.seen.copy(deep=True)
    clear[1, :, :30] = False  # 18 of 48 columns are left
    suspect = np.array([True, False, False, True, False])
    place = replace(place, seen=clear, suspect=suspect)
    frames = {drawn(i, places=[place], size=64).case.truth[0, 0, 0] for i in range(40)}
    fitting = {values_of(place)[date, band, 0, 0] for date in (2, 4) for band in range(5)}
    assert frames <= fitting
    with pytest.raises(TimeError, match=r"no frame of field .* at least 60%"):
        drawn(0, places=[replace(place, suspect=np.ones(5, bool))])


def test_bands_vary_in_number_and_order() -> None:
    seen = [drawn(i) for i in range(40)]
    assert {len(d.common_names) for d in seen} == {3, 4, 5}
    assert len({d.common_names for d in seen}) > 20
    for d in seen[:10]:
        assert len(set(d.common_names)) == len(d.common_names) == d.case.bands.shape[1]
        # Values are those of the bands that the common_names say.
        band = BANDS.index(d.common_names[0])
        assert np.isin(d.case.truth[0], values_of(PLACE)[:, band]).all()
    fixed = drawn(0, bands=("nir", "blue"))
    assert fixed.common_names == ("nir", "blue") and np.isin(fixed.case.truth[0], values_of(PLACE)[:, 3]).all()
    two = make_place(bands=("red", "nir"))
    assert {len(drawn(i, places=[two]).common_names) for i in range(5)} == {2}


def test_places_smaller_than_a_crop_are_taken_whole() -> None:
    assert drawn(0, size=96).case.truth.shape[1:] == (40, 48)
    assert {drawn(i).case.truth.shape[1:] for i in range(5)} == {(32, 32)}


def test_validation_goes_through_the_tracks_of_evaluate() -> None:
    made = [examine([PLACE], SHAPES, 0, i, size=32) for i in range(8)]
    assert [d.case.track for d in made] == [*TRACKS, *TRACKS]
    assert all(d.common_names == BANDS for d in made)
    assert (np.abs(np.delete(made[1].case.day_offset, made[1].case.target)) > 20).all()
    assert {d.case.track for d in (examine([PLACE], [], 0, i, size=32) for i in range(4))} == {"full"}


@pytest.mark.parametrize(
    ("shares", "found"),
    [({"masks": 0.5}, "sum to 0.9"), ({"masks": -0.1}, "masks is -0.1"), ({"thin": 2}, "thin is 2")],
)
def test_shares_that_are_none(shares: dict[str, float], found: str) -> None:
    with pytest.raises(OptionError, match=found):
        Mixture(**shares)
