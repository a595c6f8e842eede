"""Tiles of several blocks in the model's batches."""

import threading
from dataclasses import replace

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.cubes import SIZES, make_cube
from tests.support.models import MODELS, Blended, Greedy, TileWide
from xr_cloudfree.engine import fill, parameters
from xr_cloudfree.engine.answers import parts_of
from xr_cloudfree.engine.grid import TileGrid
from xr_cloudfree.models.protocol import optional


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


class Counted(Blended):
    """It counts the tiles that it is given."""

    n = 0

    def predict(self, tiles):
        self.n += len(tiles)
        return super().predict(tiles)


class Overlapping(Blended):
    """Tiles of several blocks, in batches of two; it waits until a tile of the next batch is cut."""

    overlaps = True

    def __init__(self, monkeypatch, expected):
        self.given, self.threads, self.expected, self.cut = 0, set(), expected, threading.Condition()
        self.n_cut, cut_tile = 0, fill.cut_tile

        def counted(*arguments):
            with self.cut:
                self.n_cut += 1
                self.cut.notify_all()
            return cut_tile(*arguments)

        monkeypatch.setattr(fill, "cut_tile", counted)

    def predict(self, tiles):
        self.given += len(tiles)
        self.threads.add(threading.current_thread())
        with self.cut:
            assert self.cut.wait_for(lambda: self.n_cut > self.given or self.given == self.expected, timeout=30)
        return super().predict(tiles)


@pytest.mark.parametrize("dates", ["2021-06-03", ["2021-06-03", "2021-06-15"]], ids=["one date", "a series"])
def test_tiles_are_cut_while_a_model_that_waits_for_its_device_predicts(monkeypatch, tmp_path, dates):
    da, clear = make_cube()
    how = dict(date=dates, clear=clear)
    number = Counted()
    assert not optional(number).overlaps
    expected = xr_cloudfree.fill(da, model=number, block=32, **how)
    ahead = Overlapping(monkeypatch, number.n)
    xr.testing.assert_equal(xr_cloudfree.fill(da, model=ahead, block=32, **how), expected)
    assert ahead.given == number.n and threading.current_thread() not in ahead.threads and len(ahead.threads) == 1
    ahead = Overlapping(monkeypatch, number.n)
    streamed = xr_cloudfree.to_zarr(da, tmp_path / "out.zarr", model=ahead, shard=64, block=32, **how)["reflectance"]
    xr.testing.assert_equal(streamed, expected)


def test_an_error_of_a_model_in_another_thread_is_raised():
    class Failing(Blended):
        overlaps = True

        def predict(self, tiles):
            raise ValueError("no")

    da, clear = make_cube()
    with pytest.raises(ValueError, match="no"):
        xr_cloudfree.fill(da, "2021-06-03", clear=clear, model=Failing(), block=32)


class WithLayers(Counted):
    """It has all layers that a tile may have."""

    spec = replace(Blended.spec, layers=("source_time", "uncertainty", "gate"))

    def predict(self, tiles):
        rows = []
        for obs, answer in zip(tiles, super().predict(tiles), strict=True):
            gate = (obs.clear / np.maximum(obs.clear.sum(axis=0), 1)).astype(np.float32)
            rows.append(replace(answer, source=np.zeros(obs.shape, np.int16), uncertainty=answer.bands / 9, gate=gate))
        return rows


@pytest.mark.parametrize("layers", [("filled", "uncertainty", "source_time"), "gate"])
def test_a_model_is_not_asked_for_tiles_that_the_target_shows_whole(monkeypatch, layers):
    da, clear = make_cube()
    when = da["time"].values[3]
    clear[3] = True
    da[3] = da[3].fillna(0.1)
    clear[3, 5, 7] = clear[3, 40:44, 50] = False
    how = dict(date=when, clear=clear, layers=layers, block=32)
    asked, all_tiles = WithLayers(), WithLayers()
    image = xr_cloudfree.fill(da, model=asked, **how)
    lazy = xr_cloudfree.fill(da.chunk(y=20, x=20), model=WithLayers(), **how)
    monkeypatch.setattr(fill, "_observed", lambda job, obs: None)
    xr.testing.assert_identical(image, xr_cloudfree.fill(da, model=all_tiles, **how))
    xr.testing.assert_identical(image, lazy.compute())
    grid = TileGrid((SIZES["y"], SIZES["x"]), (32, 32), 32, 16, taper=True)
    extents = parts_of(grid, grid.cube)
    touched = [e for e in extents if not clear[3].values[max(e.y0, 0) : e.y1, max(e.x0, 0) : e.x1].all()]
    assert all_tiles.n == len(extents)
    assert asked.n == (len(extents) if layers == "gate" else len(touched)) and 0 < len(touched) < len(extents)
