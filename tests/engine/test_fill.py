"""Tiles of several blocks in the model's batches."""

import numpy as np
import xarray as xr

import xr_cloudfree
from tests.support.cubes import SIZES, make_cube
from tests.support.models import MODELS, Greedy, TileWide
from xr_cloudfree.engine import parameters


def test_a_model_is_given_more_tiles_where_nothing_else_runs(tmp_path):
    da, clear = make_cube()  # 4 x 4 tiles
    how = dict(date="2021-06-03", clear=clear)
    expected = xr_cloudfree.fill(da, model=TileWide(), **how)
    alone, beside, streamed, blocks = Greedy(), Greedy(), Greedy(), Greedy()
    images = [
        xr_cloudfree.fill(da, model=alone, **how),
        xr_cloudfree.fill(da.chunk(y=20, x=20), model=beside, block=64, **how).compute(),
        xr_cloudfree.to_zarr(da, tmp_path / "out.zarr", model=streamed, shard=64, **how)["reflectance"],
        xr_cloudfree.to_zarr(da, tmp_path / "blocks.zarr", model=blocks, shard=64, block=16, **how)["reflectance"],
    ]
    for image in images:
        xr.testing.assert_equal(image, expected)
    assert alone.given == streamed.given == blocks.given == [6, 6, 4]
    assert beside.given == [2] * 8


def test_tiles_that_do_not_fit_into_memory_are_given_in_batches(monkeypatch):
    da, clear = make_cube()
    tile = 3 * 4 * 24**2 * da.sizes["time"] * da.sizes["band"]
    for fit, at_once in ((7.5, 6), (5.5, 4), (0.5, 2)):
        monkeypatch.setattr(parameters, "TILE_BYTES", int(fit * tile))
        model = Greedy()
        xr_cloudfree.fill(da, date="2021-06-03", clear=clear, model=model)
        assert max(model.given) == at_once


def test_every_pixel_lands_in_its_place():
    da, clear = make_cube()
    expected = np.arange(SIZES["y"])[:, None] * 1000 + np.arange(SIZES["x"])
    da[:] = expected.astype(np.float32) / 1e6
    out = xr_cloudfree.fill(da, "2021-06-15", clear=clear, model=MODELS["tiled"], block=24)
    np.testing.assert_allclose(out.isel(band=1) * 1e6, expected, rtol=1e-4, atol=0.6)


def test_tiles_see_dates_and_values_as_they_are():
    da, clear = make_cube()
    da = da.fillna(0.2)
    out = xr_cloudfree.fill(da, "2021-06-15", clear=clear, model=MODELS["identity"])
    np.testing.assert_allclose(out, da.mean("time"), rtol=1e-6)
