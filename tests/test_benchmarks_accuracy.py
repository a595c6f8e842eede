"""The accuracy benchmark: which weights are tested where, what is scored, and the page made of the scores."""

import numpy as np
import pandas as pd
import pytest

pytest.importorskip("torch")
pytest.importorskip("netCDF4")

from benchmarks.accuracy import figures, folds, tables
from benchmarks.accuracy.__main__ import main
from benchmarks.accuracy.measure import ALL, Bench, Task, answer, judge, load
from benchmarks.accuracy.page import scaled
from benchmarks.accuracy.sites import read_all
from tests.support.networks import make_bundle
from xr_cloudfree import synthetic
from xr_cloudfree.accuracy.simulate import TRACKS, make_cases
from xr_cloudfree.models.pretrained.model import PretrainedModel
from xr_cloudfree.models.protocol import Prediction


def score(psnr, method="unet", place="a", track="partial", frame=0, seed=0, ground=None, **more):
    error = 10 ** (-psnr / 20)
    row = {"place": place, "ground": ground or place, "track": track, "seed": seed, "frame": frame, "bands": "all"}
    row |= {"gap": 15.0, "hidden": 0.5, "method": method, "weights": "", "psnr": psnr, "mae": error, "rmse": error}
    return row | more


def pairs(gains, **where):
    """Scores of linear and unet, a frame each."""
    rows = []
    for frame, gain in enumerate(gains):
        rows += [score(30.0, "linear", frame=frame, **where), score(30.0 + gain, frame=frame, **where)]
    return rows


class TestBootstrap:
    def test_equal_gains_leave_nothing_to_chance(self):
        scores = pd.DataFrame([*pairs([1.5, 1.5]), *pairs([1.5], place="b")])
        np.testing.assert_allclose(figures.interval(figures.gain(scores, "linear")), 1.5)

    def test_grounds_are_drawn_before_frames(self):
        # Ten frames each: by frames alone the interval would be narrow; of two grounds a quarter of the draws has one.
        scores = pd.DataFrame([*pairs([0.0] * 10), *pairs([2.0] * 10, place="b")])
        np.testing.assert_allclose(figures.interval(figures.gain(scores, "linear")), (0, 2))

    def test_series_of_one_ground_stay_together(self):
        scores = pd.DataFrame([*pairs([0.0] * 4, ground="g"), *pairs([2.0] * 4, place="b", ground="g")])
        np.testing.assert_allclose(figures.interval(figures.gain(scores, "linear")), 1)

    def test_seeds_stay_with_their_frame(self):
        scores = pd.DataFrame([*pairs([0.0]), *pairs([2.0], seed=1)])
        gains = figures.gain(scores, "linear")
        np.testing.assert_allclose(figures.interval(gains), 1)
        assert tables.gained(gains) == "+1.00"  # no interval from one frame


class TestGoals:
    def found(self, scores, words):
        return next(goal for goal in figures.goals(pd.DataFrame(scores)) if words in goal.aim)

    def test_reached_and_short(self):
        gain = "over `linear`"
        assert self.found(pairs([1.0, 1.0], track="full"), gain).reached is True
        short = str(self.found(pairs([0.75, 0.75], track="full"), gain))
        assert "**Not reached**" in short and "+0.75 dB" in short and "0.25 dB short" in short
        spread = str(self.found(pairs([0.0, 3.0, 3.0], track="full"), gain))
        assert "**Reached**" in spread and "The interval starts below the goal" in spread

    def test_not_measured(self):
        only_linear = [score(30.0, "linear", track=track) for track in TRACKS]
        assert {goal.reached for goal in figures.goals(pd.DataFrame(only_linear))} == {None}

    def test_the_best_classical_method_may_differ_between_places(self):
        scores = [*pairs([3.0]), *pairs([3.0], place="b"), score(32.0, "regress"), score(29.0, "regress", place="b")]
        best = self.found(scores, "best classical method at each place")
        # 1 dB over regress at a, 3 dB over linear at b.
        assert best.reached and "+2.00 dB" in best.found

    def test_strata_and_places_that_are_lost_are_named(self):
        # A decibel is 12 % of the error: of the two strata the one of long gaps is lost.
        scores = [*pairs([1.0]), *[row | {"gap": 60.0} for row in pairs([-1.0], place="b")]]
        goal = self.found(scores, "in every stratum")
        assert not goal.reached and "40 to 80 days (MAE +12.2%)" in goal.found and "10 to 20" not in goal.found
        assert figures.losses(pd.DataFrame(scores)) == ["*partial*, b: -1.00 dB against `linear`"]
        rows = tables.strata(pd.DataFrame(scores)).splitlines()
        assert [("worse" in row) for row in rows if "days" in row] == [False, True]
        place = self.found(scores, "best classical method at that place")
        assert "2 of 4" in place.found and "b (RMSE +12.2% against `linear`)" in place.found

    @pytest.mark.parametrize(("held", "pooled", "each"), [((0.9, 0.9), True, True), ((0.82, 0.96), True, False)])
    def test_coverage(self, held, pooled, each):
        scores = [row | {"cover90%": held[i]} for i in (0, 1) for row in pairs([0.0], place="ab"[i])]
        assert self.found(scores, "over all frames").reached is pooled
        assert self.found(scores, "true values at each place").reached is each


class TestJudging:
    def case(self):
        cube = synthetic.cube(shape=(12, 3, 24, 20), seed=4)
        bands = cube["reflectance"].to_numpy().astype(np.float32) * 1e-4
        clear = np.ones((12, 24, 20), bool)
        return next(make_cases(bands, clear, cube["time"].to_numpy(), "full"))

    def test_known_errors(self):
        case = self.case()
        known = np.ones(case.scored.shape, bool)
        off = Prediction(case.truth + np.float32(0.1), known, uncertainty=np.full_like(case.truth, 0.1))
        values = judge(case, off, off)
        assert values["mae"] == pytest.approx(0.1, abs=1e-6) and values["psnr"] == pytest.approx(20, abs=1e-4)
        # An error of one deviation lies within 80 % (1.28 of it), not within 50 % (0.67).
        assert [values[f"cover{level}%"] for level in (50, 80, 90, 95)] == [0, 1, 1, 1]
        assert values["unknown"] == 0

    def test_what_is_unknown_is_linears_and_has_no_interval(self):
        case = self.case()
        known = np.ones(case.scored.shape, bool)
        linear = Prediction(case.truth + np.float32(0.2), known)
        half = known.copy()
        half[:12] = False
        values = judge(case, Prediction(case.truth, half, uncertainty=np.full_like(case.truth, 0.1)), linear)
        assert values["unknown"] == 0.5 and values["mae"] == pytest.approx(0.1, abs=1e-6) and values["cover90%"] == 1


@pytest.fixture(scope="module")
def series(tmp_path_factory):
    """A folder of two grounds, a sample, and a training of each seed for one ground and of one for the other."""
    folder = tmp_path_factory.mktemp("accuracy")
    for seed, name in enumerate(("data/north.nc", "data/south.nc", "sample.nc")):
        (folder / name).parent.mkdir(exist_ok=True)
        synthetic.cube(shape=(14, 4, 40, 36 + 2 * seed), seed=seed + 1).to_netcdf(folder / name)
    labels = ("north/seed-0", "north/seed-1", "south/seed-0", "belgium/seed-0", "terramind/south/seed-0")
    for i, label in enumerate(labels):
        make_bundle(folder / "folds" / label / "bundle", i, min_bands=3, max_bands=12)
    return folder


class TestWhoseWeights:
    def labels(self, folder, ground):
        return [folds.for_ground(folder / "folds", ground, seed).label for seed in (0, 1)]

    def test_of_the_seed_or_else_of_the_first(self, series):
        assert self.labels(series, "north") == ["north/seed-0", "north/seed-1"]
        assert self.labels(series, "south") == ["south/seed-0", "south/seed-0"]
        assert folds.for_ground(series / "folds", "east", 0) is None
        assert folds.missing(series / "folds", ["north", "south"], [0, 1]) == ["south/seed-1"]

    def test_the_sample_has_the_shipped_ones(self, series, monkeypatch):
        monkeypatch.setattr(folds.locations, "shipped", lambda: ["unet"])
        assert self.labels(series, "sample") == ["unet, as shipped", "unet, as shipped"]
        monkeypatch.setattr(folds.locations, "shipped", list)
        assert self.labels(series, "sample") == ["belgium/seed-0", "belgium/seed-0"]

    def test_a_training_never_sees_its_ground(self, series, tmp_path):
        places, _ = read_all(series / "data", None)
        command = folds.fit(tmp_path, "south/seed-2", places)
        assert {"--data.holdout=[south]", "--seed_everything=2", "--calibrate=false"} <= set(command)
        assert "--ckpt_path=last" not in command
        checkpoints = tmp_path / "south/seed-2/checkpoints"
        checkpoints.mkdir(parents=True)
        folds.fit(tmp_path, "south/seed-2", places)
        assert not checkpoints.exists()  # an empty one would be taken for a training that is there
        checkpoints.mkdir()
        (checkpoints / "last.ckpt").touch()
        assert "--ckpt_path=last" in folds.fit(tmp_path, "south/seed-2", places)

    def test_networks_beside_it_never_see_the_ground_either(self, series, tmp_path):
        places, _ = read_all(series / "data", None)
        network = folds.BESIDE["same decoder without the encoder"]
        command = folds.fit(tmp_path, "terramind-no-encoder/south/seed-0", places, network)
        assert command[1:4] == ["train", "terramind", "fit"] and command[5] == "terramind-tiny-scratch"
        # It starts from the network that was trained without this ground.
        assert f"--model.base=local-dir:{tmp_path / 'south/seed-0/bundle'}" in command
        assert {"--data.holdout=[south]", "--seed_everything=0", "--model.config.encoder=none"} <= set(command)
        published = folds.fit(tmp_path, "paper-mse/south/seed-0", places, folds.BESIDE["unet-paper MSE"])
        assert published[2] == "unet" and not any(part.startswith("--model.base") for part in published)
        # What has intervals waits for the other folds, which scale them.
        assert "--calibrate=false" in command and "--calibrate=false" not in published

    def test_how_intervals_were_scaled(self, series):
        weights = folds.find(series / "folds", "north/seed-0")
        assert weights.scaled == "not"
        told = [score(30.0, scaled="not"), score(30.0, place="s", ground="sample", scaled="unknown")]
        assert "Intervals are not scaled" in scaled(pd.DataFrame(told)) and "unknown" not in scaled(pd.DataFrame(told))
        assert "says little" in scaled(pd.DataFrame([score(30.0, scaled="unknown")]))


def test_the_learned_model_is_asked_as_the_engine_asks(series):
    bench = Bench(Task(series / "data", series / "sample.nc", series / "folds", frames=1, seeds=(0,)))
    place = bench.places["north"]
    case = next(make_cases(place.bands, place.clear, place.time, "partial", limit=1))
    seen = []

    class Asked(PretrainedModel):
        def predict(self, tiles):
            seen.extend(tiles)
            return super().predict(tiles)

    weights = folds.find(series / "folds", "north/seed-0")
    answered = answer(Asked(weights.model.source, weights.model.spec), case, place.common_names)
    (tile,) = seen
    assert tile.common_names == place.common_names == ("blue", "green", "red", "nir") and tile.scale == 1
    assert tile.shape == answered.known.shape == (40, 36)  # the frame, whatever the spec's tile
    assert tile.clear[tile.target].any() and not tile.clear[tile.target][case.scored].any()


def test_from_series_to_the_page(series, monkeypatch):
    monkeypatch.setattr(folds.locations, "shipped", list)
    page, kept = series / "accuracy.md", series / "folds" / "scores.csv"
    asked = ["--data", str(series / "data"), "--sample", str(series / "sample.nc"), "--folds", str(series / "folds")]
    asked += ["--frames", "1", "--seeds", "0", "1", "--workers", "1", "--no-train", "--out", str(page)]
    main(asked)
    text = page.read_text()
    scores, told = load(kept)
    assert told["missing"] == ["south/seed-1"] and "These were not trained: south/seed-1." in text
    assert set(scores["track"]) == set(TRACKS) and {"unet", "auto", "linear", "plain regress"} <= set(scores["method"])
    used = scores[scores["method"] == "unet"].groupby(["ground", "seed"])["weights"].first()
    assert used["north", 1].startswith("north/seed-1 (") and used["south", 1].startswith("south/seed-0 (")
    unet = scores[(scores["method"] == "unet") & (scores["track"] == "partial")]["psnr"].mean()
    row = next(line for line in text.splitlines() if line.startswith("| **all** |"))
    assert f" {unet:.2f} |" in row
    beside = scores[scores["method"] == "terramind (tiny, from scratch)"]
    assert set(beside["ground"]) == {"south"} and set(beside["seed"]) == {0}
    rows = [line for line in text.splitlines() if line.startswith("| terramind (tiny, from scratch) |")]
    assert len(rows) == len(TRACKS) and all("| 1 |" in line for line in rows)
    assert "{" not in text.replace("{doc}", "") and "nan" not in text
    # What is measured anew takes the place of what was there; all else stays.
    main([*asked[: asked.index("--seeds")], "--seeds", "0", *asked[asked.index("--workers") :], "--only", "terramind"])
    again, told = load(kept)
    keys = ["place", "track", "seed", "frame", "bands", "method"]
    again, scores = (table.drop(columns="seconds").sort_values(keys, ignore_index=True) for table in (again, scores))
    pd.testing.assert_frame_equal(again, scores)
    assert told["later"][0].endswith("--seeds 0 --only terramind") and told["later"][0] in page.read_text()
    text = page.read_text()
    page.unlink()
    main([*asked[4:], "--page-only"])  # without the data
    assert page.read_text() == text


def test_what_is_missing_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit):
        main(["--page-only", "--folds", str(tmp_path)])
    assert "measure first" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        main(["--folds", str(tmp_path)])
    assert "--data my_cubes/" in capsys.readouterr().err
    (tmp_path / "ablation.csv").write_text("what,partial\nno prior,-0.3\n")
    assert tables.ablation(tmp_path / "ablation.csv").splitlines()[-1] == "| no prior | -0.3 |"
    assert tables.ablation(tmp_path / "none.csv") == "Not measured.\n"


def test_tables_of_an_earlier_run_are_kept(tmp_path):
    nothing = pd.DataFrame({"bands": [ALL]})
    assert tables.published(nothing, tmp_path / "published.md") == "The published networks were not measured.\n"
    (tmp_path / "published.md").write_text("| method |\n")
    assert tables.published(nothing, tmp_path / "published.md").endswith("\n\n| method |\n")
