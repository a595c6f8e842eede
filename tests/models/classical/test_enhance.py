"""Predictions corrected by images of a coarser sensor: known answers, consistency, gaps, other bands, few dates."""

from dataclasses import replace

import numpy as np
import pytest

from xr_cloudfree.cube.footprint import Footprint
from xr_cloudfree.models.classical import enhance
from xr_cloudfree.models.classical.enhance import Enhanced
from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.classical.regress import Regress
from xr_cloudfree.models.protocol import Observations, OtherImages

SHAPE, STEP = (48, 60), 3.0
DAYS = np.array([-30.0, -20.0, -10.0, 0.0, 10.0, 20.0, 30.0])
ROWS, COLUMNS = np.arange(1.5, 48, STEP), np.arange(1.5, 60, STEP)
FOOTPRINT = Footprint(ROWS, COLUMNS, SHAPE, (STEP, STEP), (STEP, STEP))


def landscape(seed=0, bands=2):
    """Fields of five crops, each of which changes by itself from date to date, with a texture that stays."""
    draw = np.random.default_rng(seed)
    y, x = np.mgrid[: SHAPE[0], : SHAPE[1]]
    crop = draw.integers(0, 5, (10, 10))[y // 7, x // 8]
    levels = np.linspace(0.08, 0.35, 5) + draw.normal(0, 0.05, (len(DAYS), bands, 5))
    texture = draw.normal(0, 0.01, (bands, *SHAPE))
    return (levels[:, :, crop] + texture).astype(np.float32)


def seen_by(images, slope=1.0, offset=0.0, noise=0.0, seed=1):
    seen = slope * FOOTPRINT.degrade(images) + offset
    return (seen + np.random.default_rng(seed).normal(0, noise, seen.shape)).astype(np.float32)


def tile(truth, others, clear=None, target=3):
    seen = np.ones((len(DAYS), *SHAPE), bool) if clear is None else clear
    if clear is None:
        seen[target] = False
    return Observations(truth, seen, DAYS, target, others=others)


def other(images, days=(0.0,), positions=(0, 1)):
    return OtherImages(
        np.stack(images), np.array(days, np.float64), positions, ROWS, COLUMNS, (STEP, STEP), (STEP, STEP)
    )


def rmse(prediction, truth, where=slice(None)):
    return float(np.sqrt(np.square(prediction.bands - truth)[:, where].mean()))


@pytest.mark.parametrize("model", [Linear(), Regress()], ids=["linear", "regress"])
def test_what_the_other_sensor_saw_is_better_than_time_and_than_interpolation_in_space(model):
    truth = landscape()
    coarse = seen_by(truth[3], noise=0.004)
    found = Enhanced(model).predict([tile(truth, (other([coarse]),))])[0]
    without = model.predict([tile(truth, ())])[0]
    upsampled = replace(found, bands=FOOTPRINT.interpolate(coarse))
    assert rmse(found, truth[3]) < 0.5 * rmse(without, truth[3])
    assert rmse(found, truth[3]) < 0.8 * rmse(upsampled, truth[3])
    assert (found.sensor == 1).all()


def test_degraded_again_the_image_is_what_was_seen():
    truth = landscape(3)
    coarse = seen_by(truth[3], noise=0.004)
    found = Enhanced(Linear()).predict([tile(truth, (other([coarse]),))])[0]
    rest = coarse - FOOTPRINT.degrade(found.bands)
    assert np.sqrt(np.square(rest).mean()) <= 0.005
    np.testing.assert_allclose(found.consistency, FOOTPRINT.repeat(rest), atol=1e-5)


def test_most_errors_are_within_the_intervals():
    inside = []
    for seed in range(6):
        truth = landscape(seed)
        obs = tile(truth, (other([seen_by(truth[3], noise=0.004)]),))
        found = Enhanced(Regress()).predict([obs])[0]
        inside.append(np.abs(found.bands - truth[3]) <= 1.645 * found.uncertainty)
    assert 0.85 < np.mean(inside) < 0.97


def test_pairs_of_images_show_how_the_sensors_differ():
    """With a pair the difference is removed; without, it stays in the image."""
    truth, line = landscape(4), {"slope": 0.93, "offset": 0.02}
    images = [seen_by(image, **line) for image in truth]
    alone = Enhanced(Linear()).predict([tile(truth, (other([images[3]]),))])[0]
    paired = Enhanced(Linear()).predict([tile(truth, (other(images, DAYS),))])[0]
    assert abs(float((alone.bands - truth[3]).mean())) > 0.003
    assert abs(float((paired.bands - truth[3]).mean())) < 0.0015
    assert rmse(paired, truth[3]) < rmse(alone, truth[3])


def test_missed_cloud_in_a_pair_changes_little():
    truth = landscape(5)
    images = [seen_by(image, slope=0.95) for image in truth]
    cloudy = [image.copy() for image in images]
    for date in (1, 5):
        cloudy[date][:, :4, :6] = 0.7
    good, bad = (Enhanced(Linear()).predict([tile(truth, (other(these, DAYS),))])[0] for these in (images, cloudy))
    assert rmse(bad, truth[3]) < 1.3 * rmse(good, truth[3])


def test_nothing_changes_far_from_what_was_seen():
    """One coarse pixel that is not clear hurts its surroundings alone."""
    truth = landscape(6)
    coarse, holed = seen_by(truth[3]), seen_by(truth[3])
    holed[:, 5, 5] = np.nan
    one, two = (Enhanced(Linear()).predict([tile(truth, (other([c]),))])[0] for c in (coarse, holed))
    far = np.ones(SHAPE, bool)
    far[5 : 5 * 3 + 14, 5 : 5 * 3 + 14] = False
    # The regression differs a little, because one pixel fewer teaches where the target itself is clear: it is not here.
    np.testing.assert_allclose(one.bands[:, far], two.bands[:, far], atol=0.01)
    assert np.isfinite(two.bands).all()
    assert np.isnan(two.consistency[:, 16, 16]).all()


def test_without_an_image_near_the_target_nothing_changes():
    truth = landscape(7)
    for others in ((), (other([seen_by(truth[3])], (5.0,)),), (other([np.full((2, 16, 20), np.nan, np.float32)]),)):
        obs = tile(truth, others)
        found, without = Enhanced(Linear()).predict([obs])[0], Linear().predict([obs])[0]
        np.testing.assert_array_equal(found.bands, without.bands)
        assert not found.sensor.any()
        assert np.isnan(found.consistency).all()


def test_the_nearest_of_two_sensors_has_the_last_word():
    truth = landscape(8)
    right, wrong = other([seen_by(truth[3])]), other([seen_by(truth[0])], (-2.0,))
    both = Enhanced(Linear()).predict([tile(truth, (wrong, right))])[0]
    assert (both.sensor == 2).all()
    alone = Enhanced(Linear()).predict([tile(truth, (right,))])[0]
    assert rmse(both, truth[3]) < 1.1 * rmse(alone, truth[3])


def test_an_image_two_days_away_shifts_by_what_time_alone_tells():
    """The series changes evenly in time and the other sensor saw what was expected: nothing is to be corrected."""
    start, rate = landscape(9)[0], 0.002
    truth = np.stack([start + np.float32(rate * day) for day in DAYS])
    seen = seen_by(start + np.float32(rate * 2))
    found = Enhanced(Linear()).predict([tile(truth, (other([seen], (2.0,)),))])[0]
    np.testing.assert_allclose(found.bands, truth[3], atol=2e-3)


def test_bands_that_the_other_sensor_lacks_are_learned_from_those_that_it_has():
    truth = landscape(10)
    truth[:, 1] = 0.8 * truth[:, 0] + 0.05
    obs = tile(truth, (other([seen_by(truth[3])[:1]], positions=(0,)),))
    found, without = Enhanced(Linear()).predict([obs])[0], Linear().predict([obs])[0]
    error = lambda p: float(np.sqrt(np.square(p.bands[1] - truth[3, 1]).mean()))  # noqa: E731
    assert error(found) < 0.6 * error(without)
    assert np.isnan(found.consistency[1]).all()


def test_pixels_that_no_date_shows_come_from_the_other_sensor_alone():
    truth = landscape(11)
    clear = np.ones((len(DAYS), *SHAPE), bool)
    clear[:, :20] = False
    clear[3] = False
    obs = tile(truth, (other([seen_by(truth[3])]),), clear)
    found = Enhanced(Linear()).predict([obs])[0]
    assert found.known.all()
    np.testing.assert_allclose(found.bands[:, :12], FOOTPRINT.interpolate(seen_by(truth[3]))[:, :12], atol=1e-6)


@pytest.mark.parametrize("dates", [1, 2])
def test_few_dates_take_the_error_as_it_was_seen(dates):
    truth = landscape(12)
    keep = [2, 3] if dates == 1 else [2, 3, 4]
    obs = Observations(truth[keep], np.ones((len(keep), *SHAPE), bool), DAYS[keep], 1)
    obs.clear[1] = False
    obs = replace(obs, others=(other([seen_by(truth[3])]),))
    found, without = Enhanced(Linear()).predict([obs])[0], Linear().predict([obs])[0]
    assert rmse(found, truth[3]) < 0.7 * rmse(without, truth[3])


def test_the_width_of_the_footprint_is_found():
    truth = landscape(13)
    sharp = Footprint(ROWS, COLUMNS, SHAPE, (STEP, STEP), (0.6 * STEP, 0.6 * STEP)).degrade(truth[2])
    slow = np.stack([truth[2]] * len(DAYS))  # nothing changes, so the prediction is the ground
    obs, images = tile(slow, ()), other([sharp.astype(np.float32)])
    found = enhance._footprint(obs, images, enhance._near_images(obs, images))
    assert found.width == pytest.approx((0.6 * STEP, 0.6 * STEP))


def test_the_order_of_tiles_does_not_matter():
    truth = landscape(14)
    one, two = (tile(truth, (other([seen_by(truth[3], noise=0.01, seed=seed)]),)) for seed in (1, 2))
    forward, backward = Enhanced(Regress()).predict([one, two]), Enhanced(Regress()).predict([two, one])[::-1]
    for a, b in zip(forward, backward, strict=True):
        np.testing.assert_array_equal(a.bands, b.bands)


def test_the_model_keeps_what_it_is():
    enhanced = Enhanced(Regress())
    assert enhanced.spec.name == "regress"
    assert enhanced.kind == "classical"
    assert enhanced.spec.tile == Regress.spec.tile
    assert enhanced.spec.layers == Regress.spec.layers
    assert Enhanced(Linear()).spec.tile is not None
