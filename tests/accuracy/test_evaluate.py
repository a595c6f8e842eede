"""`evaluate`: scores of models on hidden pixels of a cube."""

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from xr_cloudfree import errors
from xr_cloudfree.accuracy.evaluate import COLUMNS, PART_COLUMNS
from xr_cloudfree.accuracy.strata import class_names


@pytest.fixture(scope="module")
def sample():
    return xr.open_zarr("data/s2_portugal.zarr", decode_coords="all").load()


def test_a_score_has_a_row_per_track_and_model(sample):
    score = sample.cloudfree.evaluate(models=["nearest", "linear"], tracks=["partial", "full"], frames=3)
    assert list(score.columns) == list(COLUMNS)
    assert list(score.index) == [(t, m) for t in ("partial", "full") for m in ("nearest", "linear")]
    assert (score["frames"] == 3).all() and (score["answered"] == 1).all()
    assert (score["RMSE"] >= score["MAE"]).all()


def test_the_same_seed_gives_the_same_score_whatever_the_chunks(sample):
    how = {"models": ["linear"], "tracks": ["partial"], "frames": 2, "size": 96, "seed": 5}
    a = xr_cloudfree.evaluate(sample, **how).drop(columns="seconds")
    b = xr_cloudfree.evaluate(sample.chunk(time=4, y=50), **how).drop(columns="seconds")
    c = xr_cloudfree.evaluate(sample.isel(time=slice(None, None, -1)), **how).drop(columns="seconds")
    assert a.equals(b) and a.equals(c)
    assert not a.equals(xr_cloudfree.evaluate(sample, **{**how, "seed": 6}).drop(columns="seconds"))


def test_a_model_that_knows_the_truth_scores_without_error(sample):
    """The frame itself, smuggled past the mask by a model that looks where it must not, gives no error at all."""
    from tests.support.models import ModelSpec
    from xr_cloudfree.models.protocol import Prediction

    class Constant:
        spec = ModelSpec("constant", "always a tenth", units="reflectance")

        def predict(self, tiles):
            return [Prediction(np.full((o.n_bands, *o.shape), 0.1, np.float32), np.ones(o.shape, bool)) for o in tiles]

    flat = sample[["reflectance", "cloud_mask"]].copy()
    flat["reflectance"] = xr.full_like(flat["reflectance"], 0.1)
    score = xr_cloudfree.evaluate(flat, [Constant(), "linear"], tracks=["partial"], frames=2)
    assert (score["MAE"] < 1e-7).all()


def test_detail_gives_a_row_per_date(sample):
    score = sample.cloudfree.evaluate(models=["linear"], tracks=["full"], frames=4, detail=True)
    assert score.index.names == ["track", "model", "date"] and len(score) == 4


def test_a_cube_that_is_never_clear_is_refused(sample):
    with pytest.raises(errors.TimeError, match="clearest date"):
        xr_cloudfree.evaluate(sample, clear=xr.zeros_like(sample["cloud_mask"], dtype=bool))


def test_a_cube_without_clouds_has_none_to_hide_under(sample):
    clear = xr.ones_like(sample["cloud_mask"], dtype=bool)
    with pytest.raises(errors.OptionError, match="partly cloudy"):
        xr_cloudfree.evaluate(sample, clear=clear)
    score = xr_cloudfree.evaluate(sample, ["nearest"], clear=clear, tracks=["full"], frames=1)
    assert np.isfinite(score["MAE"]).all()


def test_haze_around_the_hidden_pixels_does_not_count(sample):
    """Linear in time does not look at the target, so what is around the hidden pixels must not change its score.

    It would if masks were corrected: haze on one date bears on what the others are compared with.
    """
    how = {"models": ["linear"], "tracks": ["partial", "haze"], "frames": 2, "repair": False}
    score = sample.cloudfree.evaluate(**how).drop(columns="seconds")
    assert (score.loc["partial"] == score.loc["haze"]).loc["linear", ["MAE", "PSNR", "SSIM"]].all()


def test_digital_numbers_without_a_scale_are_refused_as_fill_refuses_them(sample):
    digits = (sample["reflectance"] * 1e4).fillna(0).astype("uint16").drop_attrs()
    with pytest.raises(errors.ScalingError, match="nodata=0"):
        xr_cloudfree.evaluate(digits, clear=sample["cloud_mask"] == 0)


def test_an_unknown_option_is_named(sample):
    with pytest.raises(errors.OptionTypeError, match="'model'"):
        xr_cloudfree.evaluate(sample, model="linear")


def test_added_clouds_are_scored_under_the_mask_and_on_its_rim(sample):
    how = {"models": ["linear"], "frames": 2, "size": 96, "repair": False}
    score = sample.cloudfree.evaluate(tracks=["clouds", "no mask", "partial"], **how)
    clouds, no_mask, partial = (score.loc[(track, "linear")] for track in ("clouds", "no mask", "partial"))
    # The donor's mask is all right but for its rim, on which the cloud is still there.
    assert (
        0 < clouds["recall"] < 1 and clouds["precision"] < 1 and clouds["false_alarms"] == clouds["newly_masked"] == 0
    )
    assert clouds["PSNR_under"] > no_mask["PSNR_under"] and clouds["PSNR_rim"] == no_mask["PSNR_rim"]
    assert no_mask["recall"] == 0 and np.isnan(clouds["restored"])
    assert partial["newly_masked"] == 0 and np.isnan(partial[["recall", "PSNR_under", "PSNR_rim"]].astype(float)).all()


def test_masks_are_corrected_if_requested_and_each_case_once(sample, monkeypatch):
    from xr_cloudfree.accuracy import evaluate as module
    from xr_cloudfree.accuracy import mask_tracks

    seen = []

    def keep(case, *how, **options):
        found = mask_tracks.repaired(case, *how, **options)
        seen.append((case, found))
        return found

    monkeypatch.setattr(module, "repaired", keep)
    how = {"models": ["nearest", "linear"], "tracks": ["partial", "wrong mask"], "frames": 2, "size": 96}
    score = sample.cloudfree.evaluate(repair=True, **how)
    assert [case.track for case, _ in seen] == ["partial", "partial", "wrong mask", "wrong mask"]
    wrong = [mask_tracks.mask_scores(case, found.clear) for case, found in seen[2:]]
    for name in ("recall", "restored", "newly_masked"):
        assert score.loc[("wrong mask", "linear"), name] == pytest.approx(np.mean([one[name] for one in wrong]))
    for case, found in seen[:2]:
        hidden = ~case.clear[case.target] & case.truth_clear
        # The hidden values are nowhere, those of the other dates are there, and what is hidden stays so.
        assert np.isnan(case.bands[case.target][:, hidden]).all() and not found.clear[case.target][hidden].any()
        others = np.delete(case.bands, case.target, axis=0)
        assert np.isfinite(others).mean() > np.delete(case.clear, case.target, axis=0).mean() + 0.1
    seen.clear()
    assert not sample.cloudfree.evaluate(**how).equals(score) and not seen


def test_snow_that_is_not_clear_and_what_was_not_measured_take_no_part(sample, monkeypatch):
    from xr_cloudfree.accuracy import evaluate as module

    date = int((sample["cloud_mask"] != 0).mean(["y", "x"]).argmax("time"))  # no truth
    classes = (sample["cloud_mask"] != 0).astype("u1")
    classes.attrs = {"flag_values": np.arange(4, dtype="u1"), "flag_meanings": "clear cloud snow nodata"}
    classes[date] = 0
    classes[date, :20], classes[date, 20:60] = 2, 3
    cases = []
    repaired = module.repaired
    monkeypatch.setattr(module, "repaired", lambda case, *a, **k: cases.append(case) or repaired(case, *a, **k))
    time = sample["time"].to_numpy()
    for snow in ("clear", "not clear"):
        ds = sample.assign(cloud_mask=classes)
        xr_cloudfree.evaluate(ds, ["linear"], tracks=["full"], frames=1, snow=snow, repair=True)
        days = (time[date] - time[cases[-1].frame]) / np.timedelta64(1, "D")
        usable = np.isfinite(cases[-1].bands[np.abs(cases[-1].day_offset - days).argmin()]).all(axis=0)
        assert usable[:20].all() if snow == "clear" else not usable[:20].any()
        assert not usable[20:60].any() and usable[60:].all()


def test_a_cube_without_a_mask_is_evaluated_on_masks_made_from_its_series(sample):
    bare = sample[["reflectance"]]
    how = {"models": ["linear"], "tracks": ["full", "clouds"], "frames": 1, "size": 64}
    score = xr_cloudfree.evaluate(bare, mask="series", **how)
    assert np.isfinite(score["MAE"]).all() and score.loc[("clouds", "linear"), "recall"] > 0
    with pytest.warns(errors.CloudfreeWarning, match="made from the series"):
        assert xr_cloudfree.evaluate(bare, **how).drop(columns="seconds").equals(score.drop(columns="seconds"))


def test_a_cube_without_clouds_has_none_to_add(sample):
    clear = xr.ones_like(sample["cloud_mask"], dtype=bool)
    with pytest.raises(errors.OptionError, match="15 % to 80 %"):
        xr_cloudfree.evaluate(sample, ["linear"], clear=clear, tracks=["clouds"])
    with pytest.raises(errors.OptionError, match="no track 'cloud'"):
        xr_cloudfree.evaluate(sample, tracks=["cloud"])


def test_a_day_of_several_scenes_is_suspect_if_one_is(sample):
    ds = sample.isel(time=slice(0, 12), y=slice(0, 48), x=slice(0, 48)).drop_vars("suspect", errors="ignore")
    date = int((ds["cloud_mask"] == 0).mean(["y", "x"]).argmax("time"))
    second = ds.isel(time=[date])
    second = second.assign_coords(time=second["time"] + np.timedelta64(1, "m"))
    both = xr.concat([ds, second], "time").sortby("time")
    flags = both["time"].isin(second["time"]).to_numpy()
    how = {"models": ["nearest"], "tracks": ["full"], "frames": None, "merge": "day", "detail": True}
    plain = xr_cloudfree.evaluate(both, **how)
    flagged = xr_cloudfree.evaluate(both.assign_coords(suspect=("time", flags)), **how)
    lost = plain.index.difference(flagged.index)
    assert list(lost.get_level_values("date")) == [ds["time"].to_numpy()[date]]


def test_added_clouds_keep_an_index_within_its_own_limits(sample, monkeypatch):
    from xr_cloudfree.accuracy import evaluate as module

    red, nir = sample["reflectance"].sel(band="B04", drop=True), sample["reflectance"].sel(band="B8A", drop=True)
    index = ((red - nir) / (red + nir)).rename("ndvi")  # of the other sign: mostly below zero
    limits = []
    make = module.make_mask_cases
    monkeypatch.setattr(
        module, "make_mask_cases", lambda *given, **how: limits.append(how["limits"]) or make(*given, **how)
    )
    cube = xr.Dataset({"ndvi": index, "cloud_mask": sample["cloud_mask"]})
    score = xr_cloudfree.evaluate(cube, ["linear"], tracks=["clouds"], frames=1, size=48)
    assert limits == [(-1, 1)] and score.loc[("clouds", "linear"), "PSNR"] > 15


@pytest.mark.parametrize("by", ["distance", "days"])
def test_classes_of_pixels_make_up_the_frame(sample, by):
    how = {"models": ["linear", "regress"], "tracks": ["partial", "full"], "frames": 3, "size": 64}
    parts = xr_cloudfree.evaluate(sample, by=by, **how)
    whole = xr_cloudfree.evaluate(sample, **how)
    assert parts.index.names == ["track", "model", by] and list(parts.columns) == list(PART_COLUMNS)
    order = {name: number for number, name in enumerate(class_names(by))}
    assert list(parts.groupby(level=["track", "model"], sort=False).groups) == list(whole.index)
    for key, group in parts.groupby(level=["track", "model"], sort=False):
        numbers = [order[name] for *_, name in group.index]
        assert numbers == sorted(numbers) and (group["frames"] <= whole.loc[key, "frames"]).all()
    # Where no class is too small to be scored, shares add up to 1, and errors to that of the frame.
    parts, whole = (xr_cloudfree.evaluate(sample, detail=True, by=b, **how) for b in (by, None))
    together = (parts["share"] * parts["MAE"]).groupby(level=["track", "model", "date"]).sum()
    share = parts["share"].groupby(level=["track", "model", "date"]).sum()
    assert (share > 0.9).all() and (share < 1 + 1e-9).all()
    complete = share.index[share > 1 - 1e-9]
    assert len(complete)
    np.testing.assert_allclose(together[complete], whole["MAE"][complete], rtol=1e-6)


def test_a_frame_without_a_clear_pixel_is_far_from_all(sample):
    parts = xr_cloudfree.evaluate(sample, ["linear"], tracks=["full"], frames=2, size=48, by="distance")
    assert [name for *_, name in parts.index] == ["over 16 px"] and (parts["share"] == 1).all()


def test_the_error_of_linear_grows_with_the_days_to_the_nearest_date(sample):
    parts = xr_cloudfree.evaluate(sample, ["linear"], tracks=["partial", "gap"], frames=8, by="days")
    near, far = parts.loc[("partial", "linear", "up to 5 days"), "MAE"], parts.loc["gap"]["MAE"].iloc[-1]
    assert far > 1.2 * near
    # Without the dates within 20 days, none of the classes up to 20 days is left.
    assert {name for *_, name in parts.loc[["gap"]].index} <= {"20 to 40 days", "over 40 days"}


def test_classes_that_do_not_exist_are_refused(sample):
    with pytest.raises(errors.OptionError, match="by='distance'"):
        xr_cloudfree.evaluate(sample, ["linear"], by="band")
