"""The benchmark of masks: the published methods it compares with, what is measured, and the page."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("netCDF4")

from benchmarks import noise_test, tmask
from benchmarks.accuracy.sites import Site
from benchmarks.masks import page, summary
from benchmarks.masks.__main__ import main
from benchmarks.masks.change import changed
from benchmarks.masks.measure import Task, measure
from benchmarks.masks.places import COVERS, Place, find_water
from benchmarks.masks.tables import tables
from xr_cloudfree import synthetic

NAMES = ("green", "nir", "swir16")


def harmonic_series():
    """Three years of an observation every 20 days, of a harmonic with a drift over three years; one row of pixels."""
    days = np.arange(0, 3 * 365.25, 20.0)
    phase = 2 * np.pi * days / 365.25
    curve = 0.02 * np.cos(phase) - 0.03 * np.sin(phase) + 0.01 * np.cos(phase / 3)
    bands = np.stack([0.1 + curve, 0.35 + 2 * curve, 0.25 - curve], axis=1)[:, :, None, None]
    return np.repeat(bands, 8, axis=3).astype(np.float32), np.ones((days.size, 1, 8), bool), days


class TestTmask:
    def test_a_harmonic_is_fitted_exactly_and_outliers_do_not_move_it(self):
        bands, clear, days = harmonic_series()
        values = bands[:, 0, 0].astype(np.float64)
        values[[5, 17, 18, 30]] += 0.4
        left = tmask.residual(values, clear[:, 0], days)
        expected = np.zeros_like(left)
        expected[[5, 17, 18, 30]] = 0.4
        np.testing.assert_allclose(left, expected, atol=1e-4)

    def test_cloud_brightens_green_and_shadow_darkens_nir_and_swir_by_more_than_four_hundredths(self):
        bands, clear, days = harmonic_series()
        changes = [(0.05, 0, 0), (0.03, 0, 0), (0, -0.05, -0.05), (0, -0.05, -0.03), (0, 0.3, 0.3), (-0.05, 0, 0)]
        for pixel, change in enumerate(changes):
            bands[20, :, 0, pixel] += change
        found = tmask.tmask(bands, clear, days, NAMES)
        assert found[20, 0].tolist() == [False, True, False, True, True, True, True, True]
        assert np.delete(found, 20, axis=0).all()
        without_swir = tmask.tmask(bands[:, :2], clear, days, NAMES[:2])
        assert without_swir[20, 0].tolist() == [False, True, False, False, True, True, True, True]

    def test_it_restores_nothing_and_does_not_look_at_what_is_not_clear(self):
        bands, clear, days = harmonic_series()
        clear[3, :, :4] = False
        bands[3, :, :, :4] = np.nan
        found = tmask.tmask(bands, clear, days, NAMES)
        assert (found == clear).all()

    def test_few_observations_are_compared_with_their_median(self):
        bands, clear, days = harmonic_series()
        bands = np.full_like(bands, 0.2)
        bands[1, 0], bands[2, 0] = 0.25, 0.23
        clear[14:] = False
        found = tmask.tmask(bands, clear, days, NAMES)
        assert not found[1].any() and found[[0, *range(2, 14)]].all() and not found[14:].any()
        assert tmask.median(np.array([[3.0], [1.0], [9.0], [5.0]]), np.array([[True], [True], [False], [True]])) == 3
        assert tmask.median(np.array([[3.0], [1.0], [9.0]]), np.array([[True], [True], [False]])) == 2

    def test_the_long_period_is_the_number_of_years(self):
        assert tmask.design(np.array([0.0, 100, 300])).shape == (3, 3)
        terms = tmask.design(np.array([0.0, 365.25, 1.5 * 365.25]))
        np.testing.assert_allclose(terms[1], [1, 1, 0, np.cos(np.pi), np.sin(np.pi)], atol=1e-12)

    def test_bands_that_it_cannot_do_without(self):
        bands, clear, days = harmonic_series()
        with pytest.raises(ValueError, match="NIR"):
            tmask.tmask(bands, clear, days, ("green", "swir16", "swir22"))


class TestNoiseTest:
    def test_outliers_are_masked_and_false_alarms_restored(self):
        days = np.arange(40.0)
        # An even zigzag of 0.01: each observation is 0.02 from the line of its neighbours, which is the noise.
        zigzag = 0.2 + 0.01 * (-1.0) ** np.arange(40)
        bands = np.broadcast_to(zigzag[:, None, None, None], (40, 2, 1, 4)).astype(np.float32).copy()
        clear, usable = np.ones((40, 1, 4), bool), np.ones((40, 1, 4), bool)
        # An outlier: with its neighbours, which it moves by half of that, the noise is 0.1.
        bands[5, :, :, 1] += 0.5
        clear[5, :, 2:] = False
        bands[5, :, :, 2] = 0.2 + 0.015  # beyond its neighbours by less than the noise
        bands[5, :, :, 3] = 0.2 + 0.1
        found = noise_test.noise_test(bands, clear, days, usable)
        assert found[5, 0].tolist() == [True, False, True, False]
        assert np.delete(found, 5, axis=0).all()

    def test_what_has_no_value_is_not_restored(self):
        bands, clear, days = harmonic_series()
        usable = clear.copy()
        usable[3] = clear[3] = False
        bands[3] = np.nan
        assert not noise_test.noise_test(bands, clear, days, usable)[3].any()


def rows(track, mask, whole, place="a", cover="all", sensor="Landsat", **more):
    return {"place": place, "sensor": sensor, "track": track, "mask": mask, "cover": cover, "whole": whole, **more}


class TestSummary:
    def test_means_over_frames_leave_out_what_has_no_error(self):
        scores = pd.DataFrame([rows("clouds", "given", value, recall=0.5) for value in (30.0, 32.0, np.inf)])
        found = summary.summarise(scores)
        assert found[["frames", "whole", "recall"]].to_numpy().tolist() == [[3, 31.0, 0.5]]

    def test_the_best_dilation_is_chosen_at_each_place_and_none_may_be_best(self):
        scores = [rows("clouds", "given", 30.0), rows("clouds", "dilate 2", 33.0), rows("clouds", "dilate 4", 32.0)]
        scores += [rows("clouds", "given", 30.0, "b"), rows("clouds", "dilate 2", 29.0, "b")]
        best = summary.best_dilation(summary.summarise(pd.DataFrame(scores)), "clouds")
        assert best["pixels"].to_dict() == {"a": 2, "b": 0} and best["whole"].to_dict() == {"a": 33.0, "b": 30.0}

    def test_goals_are_means_over_places(self):
        scores = []
        for place, gained in (("a", 6.0), ("b", 2.0)):
            scores += [rows("clouds", "given", 30.0, place), rows("clouds", "repair", 30.0 + gained, place)]
            scores += [rows("clouds", "dilate 3", 31.5, place)]
            scores += [rows("no mask", "repair", 30.0, place, recall=0.9, precision=0.96)]
            scores += [rows("wrong mask", "repair", 33.6, place, restored=0.8)]
            scores += [rows("full", "given", 30.0, place), rows("full", "repair", 29.9, place, newly_masked=np.nan)]
            scores += [rows("change", "repair", np.nan, place, newly_masked=0.001 * gained**2)]  # 0.036 and 0.004
            scores += [rows("haze", "given", 30.0, place), rows("haze", "repair", 30.0, place, newly_masked=0.01)]
        found = {goal.aim: goal for goal in summary.goals(summary.summarise(pd.DataFrame(scores)))}
        reached = [goal.reached for goal in found.values()]
        # clouds: +4, +2.5 over the dilation, none lost; no mask: -4 dB, recall, precision; wrong mask: -0.4, 80 %.
        assert reached == [True, True, True, False, True, False, True, True, None, None, False, True, True, False]
        assert "+4.00 dB; least at b +2.00 dB" in found[next(iter(found))].found
        assert str(found["on *full*, no loss beyond 0.05 dB"]).startswith("- **Not reached**: on *full*")

    def test_places_on_which_constants_were_chosen_are_not_judged(self):
        scores = [rows("clouds", "given", 30.0), rows("clouds", "repair", 36.0)]
        scores += [rows("clouds", "given", 30.0, "b"), rows("clouds", "repair", 32.0, "b")]
        found = summary.summarise(pd.DataFrame(scores), ["a"])
        first = summary.goals(found)[0]
        assert not first.reached and first.found == "+2.00 dB; least at b +2.00 dB."
        made = tables(found)
        assert "| a \\* |" in made["clouds"] and "| b |" in made["clouds"] and "Chosen on: a;" in made["goals"]
        assert "all places" in tables(summary.summarise(pd.DataFrame(scores)))["goals"]

    def test_nothing_measured_is_said(self):
        goals = summary.goals(summary.summarise(pd.DataFrame([rows("other", "given", 30.0)])))
        assert all(goal.reached is None for goal in goals) and str(goals[0]).startswith("- Not measured")


def test_covers_are_told_by_simple_rules():
    names = ("green", "red", "nir")
    spectra = {
        "vegetation": (0.08, 0.05, 0.4),
        "water": (0.05, 0.04, 0.02),
        "soil": (0.2, 0.25, 0.3),
        "snow": (0.8,) * 3,
    }
    bands = np.array(list(spectra.values()), np.float32).T[None, :, None, :].repeat(2, axis=0)
    clear = np.ones((2, 1, 4), bool)
    site = Site(Path("a.nc"), "a", bands, clear, np.array(["2021-01-01", "2021-01-09"], "M8[ns]"), names, None)
    snow = np.zeros((2, 1, 4), bool)
    snow[1, 0, 3] = True
    place = Place(site, "Landsat", snow, find_water(site))
    assert place.cover(1)[0].tolist() == [3, 1, 2, 0] and COVERS[3] == "other"
    assert place.cover(0)[0, 3] == 2  # bright, and not known as snow
    clear[:, 0, 1] = False
    assert not find_water(site).any()


def test_change_lasts_and_cloud_does_not():
    bands = np.full((8, 2, 1, 5), 0.2, np.float32)
    clear = np.ones((8, 1, 5), bool)
    bands[3:, 1, 0, 0] += 0.1  # a change of one band
    bands[3, :, 0, 1] += 0.3  # a cloud
    bands[3:, 1, 0, 2] += 0.05  # too little
    bands[3:, :, 0, 3] += 0.1  # first seen clear on the fifth date
    clear[3, 0, 3] = False
    bands[6:, :, 0, 4] += 0.1  # only one observation after the first
    found = changed(bands, clear)
    assert np.argwhere(found).tolist() == [[3, 0, 0], [4, 0, 3]]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("series")
    for name, seed in (("landsat_north", 1), ("south", 2)):
        cube = synthetic.cube(shape=(14, 4, 40, 36), seed=seed)
        cube[["reflectance", "cloud_mask"]].to_netcdf(folder / f"{name}.nc")
    return folder


def test_from_series_to_the_page(data, capsys):
    kept, out, scores = data / "summary.csv", data / "masks.md", data / "scores.csv"
    out.write_text(page.PAGE.read_text())
    asked = ["--data", str(data), "--frames", "1", "--seeds", "0", "--workers", "1", "--tuned", "south"]
    main([*asked, "--scores", str(scores), "--summary", str(kept), "--page", str(out)])
    found = pd.read_csv(scores)
    assert set(found["track"]) - {"change"} == {"clouds", "no mask", "wrong mask", "partial", "gap", "full", "haze"}
    assert set(found["sensor"][found["place"] == "landsat_north"]) == {"Landsat"}
    clouds = found[(found["track"] == "clouds") & (found["cover"] == "all")]
    dilated = {f"dilate {pixels}" for pixels in range(1, 9)}
    assert set(clouds["mask"]) == {"given", "repair", "true", "Tmask", "FORCE", *dilated}
    text = out.read_text()
    mean = clouds[clouds["mask"] == "true"].groupby("place")["whole"].mean()
    row = next(line for line in text.splitlines() if line.startswith("| south \\* |"))
    assert f" {mean['south']:.2f} |" in row
    assert "--data DIR --frames 1 --seeds 0 --dates 120 --tuned south" in text and "nan" not in text
    assert "on *clouds*" in capsys.readouterr().out
    again = data / "again.md"
    again.write_text(page.PAGE.read_text())
    main(["--page-only", "--summary", str(kept), "--page", str(again)])
    assert again.read_text() == text
    workers = measure(Task(data, None, 1, (0,)), 2)
    pd.testing.assert_frame_equal(workers.drop(columns="seconds"), found.drop(columns="seconds"), check_dtype=False)


def test_what_is_missing_is_told(tmp_path, capsys):
    for arguments, remedy in (
        (["--page-only", "--summary", str(tmp_path / "a.csv")], "measure first"),
        ([], "--data my_cubes/"),
    ):
        with pytest.raises(SystemExit):
            main(arguments)
        assert remedy in capsys.readouterr().err


def test_the_page_shows_what_was_measured():
    text = page.PAGE.read_text()
    assert set(tables(page.load()[0])) == {match[0] for match in page.MARKED.findall(text)} - {"command"}
    assert text == page.refresh(text, *page.load()), "python -m benchmarks.masks --page-only writes it again"
