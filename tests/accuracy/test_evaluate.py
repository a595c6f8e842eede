"""`evaluate`: scores of models on hidden pixels of a cube."""

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from xr_cloudfree import errors
from xr_cloudfree.accuracy.evaluate import COLUMNS


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
    """Linear in time does not look at the target, so what is around the hidden pixels must not change its score."""
    score = sample.cloudfree.evaluate(models=["linear"], tracks=["partial", "haze"], frames=2).drop(columns="seconds")
    assert (score.loc["partial"] == score.loc["haze"]).loc["linear", ["MAE", "PSNR", "SSIM"]].all()


def test_digital_numbers_without_a_scale_are_refused_as_fill_refuses_them(sample):
    digits = (sample["reflectance"] * 1e4).fillna(0).astype("uint16").drop_attrs()
    with pytest.raises(errors.ScalingError, match="nodata=0"):
        xr_cloudfree.evaluate(digits, clear=sample["cloud_mask"] == 0)


def test_an_unknown_option_is_named(sample):
    with pytest.raises(errors.OptionTypeError, match="'model'"):
        xr_cloudfree.evaluate(sample, model="linear")
