"""Inverted masks are recognised by brightness; correct ones cause no warning."""

import warnings

import numpy as np
import pytest
import xarray as xr

from xr_cloudfree import synthetic
from xr_cloudfree.cube.inverted_masks import check_polarity
from xr_cloudfree.cube.masks import MaskRule
from xr_cloudfree.cube.merge import MaskedWindow
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.cube.schemes import SCHEMES
from xr_cloudfree.errors import CloudfreeWarning

SHAPE = (12, 4, 48, 48)
DAY = "2023-06-20"
ROLES = ("blue", "green", "red", "nir")


def cube(chunks=None):
    ds = synthetic.cube(SHAPE, seed=3, dtype="float32")
    clear = ds["cloud_mask"] == 0
    score = xr.where(clear, 0.9, 0.1).astype("float32")
    ds = ds[["reflectance"]].assign(good=clear, bad=~clear, cs=score, cloud_prob=1 - score, swapped=score)
    return ds.chunk(chunks) if chunks else ds


WRONG = [
    ({"clear": "bad"}, "clear=~ds.bad", {"clear": "good"}),
    (
        {"mask": "swapped", "scheme": "probability", "threshold": 0.5},
        'mask=ds.swapped.rename("clear_score"), scheme="clear_score"',
        {"mask": "cs", "threshold": 0.5},
    ),
]


@pytest.mark.parametrize(("given", "remedy", "right"), WRONG, ids=["boolean", "probability"])
@pytest.mark.parametrize("chunks", [None, {"y": 24, "x": 24, "time": 5}], ids=["eager", "lazy"])
def test_an_inverted_layer_causes_a_warning_with_a_remedy(given, remedy, right, chunks):
    ds = cube(chunks)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # nothing is known yet where the graph is built
        image = ds.cloudfree.fill(DAY, model="linear", **given) if chunks else None
    with pytest.warns(CloudfreeWarning, match="seems to be inverted") as said:
        image = image.compute(scheduler="sync") if chunks else ds.cloudfree.fill(DAY, model="linear", **given)
    assert len({str(one.message) for one in said}) == 1  # said once for all windows
    assert f"Try: {remedy};" in str(said[0].message)
    typed = eval(f"dict({remedy})", {"ds": ds})
    mended = ds.cloudfree.fill(DAY, model="linear", **{**given, **typed})
    np.testing.assert_array_equal(mended["reflectance"], ds.cloudfree.fill(DAY, model="linear", **right)["reflectance"])


def test_correct_layers_cause_no_warning():
    ds = cube()
    for given in ({"clear": "good"}, {"mask": "cs", "threshold": 0.5}, {"mask": "cloud_prob", "threshold": 0.5}):
        ds.cloudfree.fill(DAY, model="linear", **given)


def test_nothing_is_said_unasked():
    cube().cloudfree.fill(DAY, model="linear", clear="bad", check=False)


def values(ground, cloud, shadow=0.0, seed=0):
    """Return bands and a mask that is half cloud; part of the cloud is shadow."""
    rng = np.random.default_rng(seed)
    clear = rng.random((10, 32, 32)) < 0.5
    level = np.where(clear, ground, np.where(rng.random(clear.shape) < shadow, 0.3 * ground, cloud))
    bands = level[:, None] + rng.normal(0, 0.02, (10, 4, 32, 32))
    return bands.astype("float32"), clear


def looked_at(bands, clear, common_names=ROLES, rule=None):
    nowhere = np.zeros(clear.shape, bool)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        check_polarity(
            bands, clear, MaskedWindow(bands, clear, nowhere, nowhere), Scaling(), common_names, rule or MaskRule()
        )
    return bool(said)


@pytest.mark.parametrize(
    ("ground", "cloud", "shadow"),
    [(0.06, 0.5, 0.0), (0.06, 0.5, 0.6), (0.3, 0.4, 0.7), (0.8, 0.5, 0.0), (0.8, 0.4, 0.3), (0.03, 0.02, 0.0)],
    ids=["cloud", "much shadow", "desert and shadow", "snow", "snow and shadow", "water"],
)
def test_correct_masks_of_unusual_scenes(ground, cloud, shadow):
    assert not looked_at(*values(ground, cloud, shadow))


@pytest.mark.parametrize("shadow", [0.0, 0.1])
def test_inverted_masks(shadow):
    bands, clear = values(0.06, 0.5, shadow)
    assert looked_at(bands, ~clear)
    assert looked_at(bands, ~clear, rule=MaskRule(SCHEMES["clear_score"], threshold=0.5))
    assert not looked_at(bands, ~clear, rule=MaskRule(SCHEMES["scl"]))  # classes say what they mean
    assert not looked_at(bands, ~clear, common_names=(None,) * 4)
    assert not looked_at(bands[:, :, :5, :5], ~clear[:, :5, :5])  # too few
    assert not looked_at(bands[:2], ~clear[:2])
