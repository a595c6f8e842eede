"""Tile borders leave no seam: across them the image jumps no more than elsewhere."""

import zlib

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.models import Blended, TileWide
from xr_cloudfree import synthetic
from xr_cloudfree.models.protocol import Prediction


def jumps(error, axis):
    """Mean absolute step of the error from one pixel to the next, along an axis."""
    return np.abs(np.diff(error, axis=axis)).mean(axis=tuple(a for a in range(error.ndim) if a != axis % error.ndim))


def excess(error, borders):
    """Largest step at a border over the 99th percentile of the steps elsewhere."""
    worst = 0.0
    for axis in (-1, -2):
        step = jumps(error, axis)
        at = np.isin(np.arange(step.size) + 1, borders)
        worst = max(worst, step[at].max() / np.percentile(step[~at], 99))
    return worst


@pytest.mark.slow
def test_regress_leaves_no_seam_at_tiles_or_blocks():
    ds = synthetic.cube(shape=(9, 3, 400, 720), seed=4, dtype="float32")
    date = ds["time"].values[4]
    truth = synthetic.truth(date=str(date)[:10], shape=(9, 3, 400, 720), seed=4)
    # What a tile could spoil is the estimate: hide half of the date in stripes that cross all borders.
    clear = xr_cloudfree.clear_mask(ds)
    stripes = (np.add.outer(np.arange(400), np.arange(720)) // 24) % 2 == 0
    clear = clear.where(~((clear["time"] == date) & xr.DataArray(stripes, dims=("y", "x"))), False)
    image = xr_cloudfree.fill(ds["reflectance"], date, clear=clear, model="regress", block=320)
    error = np.nan_to_num((image - truth).values)
    centres = np.arange(0, 720, 320)  # of tiles that reach 192 pixels to either side; blocks begin there
    assert excess(error, np.concatenate([centres - 192, centres, centres + 192])) < 1.0


class Uneven(TileWide):
    """Answers a level of its own in each tile: what it makes is all seam, unless tiles are blended."""

    def predict(self, tiles):
        answers = []
        for obs in tiles:
            level = 0.1 + 0.1 * (zlib.crc32(obs.bands.tobytes()) % 2)  # by chance, and always the same
            noise = 0.01 * np.sin(np.arange(obs.shape[0])[:, None] + np.arange(obs.shape[1]))
            image = np.broadcast_to(level + noise, (obs.n_bands, *obs.shape)).astype(np.float32)
            answers.append(Prediction(image, np.ones(obs.shape, bool)))
        return answers


@pytest.mark.parametrize(("spec", "seam"), [(TileWide().spec, True), (Blended().spec, False)])
def test_the_measure_sees_a_seam_where_there_is_one(spec, seam):
    da = synthetic.cube(shape=(3, 2, 96, 96), seed=1, dtype="float32")
    image = xr_cloudfree.fill(da.isel(time=[0, 2]), da["time"].values[1], model=Uneven(spec))
    found = excess(image["reflectance"].values, np.arange(16, 96, 16))
    assert (found > 2) == seam
