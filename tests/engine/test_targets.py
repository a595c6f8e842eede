"""One block for one target date."""

import numpy as np
import xarray as xr

import xr_cloudfree
from tests.support.cubes import make_cube

TARGET = "2021-06-03"
OWN = 3


def test_what_looks_like_haze_is_suspect_and_kept_unless_the_mask_is_corrected():
    rng = np.random.default_rng(3)
    da, clear = make_cube()
    smooth = da.copy(data=(0.1 + 0.002 * rng.standard_normal(da.shape)).astype("float32"))
    smooth[OWN, :, 10:14, 10:14] += 0.15
    how = dict(clear=xr.ones_like(clear), layers=["filled", "suspect"])
    kept = xr_cloudfree.fill(smooth, TARGET, repair=False, **how)
    assert kept["suspect"].values[10:14, 10:14].all() and kept["suspect"].sum() == 16
    assert (kept["filled"] == 1).all()
    filled = xr_cloudfree.fill(smooth, TARGET, repair=True, **how)
    assert (filled["filled"].values[10:14, 10:14] == 2).all() and not filled["suspect"].any()
    assert abs(filled["reflectance"].values[:, 10:14, 10:14] - 0.1).max() < 0.02
