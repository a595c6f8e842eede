"""The training of the classifier of masks."""

from __future__ import annotations

import json

import numpy as np

from xr_cloudfree import synthetic
from xr_cloudfree.masking.classifier import Classifier, load
from xr_cloudfree_training import masks


def test_it_learns_to_tell_cloud_from_ground_and_writes_what_the_package_reads(tmp_path, monkeypatch):
    monkeypatch.setattr(masks, "FRAMES", 4)
    monkeypatch.setattr(masks, "FRAMES_OF_VARIANTS", 1)
    cube, out = tmp_path / "cube.nc", tmp_path / "classifier.json"
    synthetic.cube(shape=(24, 4, 64, 64), seed=3).to_netcdf(cube)
    masks.main([str(cube), "--out", str(out)])
    stored = json.loads(out.read_text())
    first, bias, last = (np.asarray(stored[name], np.float32) for name in ("first", "bias", "last"))
    made = Classifier(first, bias, last, stored["shift"])
    assert made.first.shape == load().first.shape
    [site] = masks.read_sites([str(cube)], {}, 2.0**30)
    drawn = masks.draw_samples(masks.of_site(site)[0], np.random.default_rng(1))
    part = next(part for part in drawn if part.cloud.any() and not part.cloud.all())
    inputs = np.ascontiguousarray(part.inputs.T)[:, None]
    odds = made(inputs, np.ones(inputs.shape[1:], bool))[0]
    assert odds[part.cloud].mean() > odds[~part.cloud].mean() + 1
