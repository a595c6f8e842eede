"""`sharpen`: known answers, gaps, tiles, chunks, consistency, and the form of the output."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import rioxarray  # noqa: F401  registers .rio
import xarray as xr
from scipy.ndimage import gaussian_filter

import xr_cloudfree
from xr_cloudfree import io
from xr_cloudfree.sharpening import job
from xr_cloudfree.sharpening.job import lay_out
from xr_cloudfree.sharpening.operators import degrade, interpolate

FINE, COARSE = ["B02", "B03", "B04", "B08"], ["B05", "B8A", "B11"]
# The coarse bands as linear functions of the fine ones.
MIX = np.array([[0.2, 0.1, 0.7, 0.0], [0.0, 0.2, -0.3, 0.9], [-0.4, 0.3, 0.8, 0.4]])


def landscape(shape=(240, 240), seed=0, bands=4):
    """Fields with edges and texture, (band, y, x)."""
    rng = np.random.default_rng(seed)
    cells = gaussian_filter(rng.normal(size=(bands, *shape)), (0, 6, 6)) * 12
    spots = gaussian_filter(rng.normal(size=(bands, *shape)), (0, 0.7, 0.7))
    return (0.2 + 0.05 * np.tanh(4 * cells) + 0.01 * spots).astype(np.float32)


def cube(values, names, step, dates=None, origin=(500_000.0, 4_400_000.0)):
    dates = pd.date_range("2023-05-01", periods=len(values), freq="5D") if dates is None else dates
    y = origin[1] - step * (np.arange(values.shape[2]) + 0.5)
    x = origin[0] + step * (np.arange(values.shape[3]) + 0.5)
    array = xr.DataArray(
        values,
        dims=("time", "band", "y", "x"),
        coords={"time": dates, "band": names, "y": y, "x": x},
        name="reflectance",
    )
    return array.rio.write_crs("EPSG:32629")


def pair(shape=(240, 240), factor=2, dates=1, seed=0):
    """Return the guide, coarse bands that are mixtures of it, and their truth."""
    guide = np.stack([landscape(shape, seed + k) for k in range(dates)])
    truth = np.einsum("cb,tbyx->tcyx", MIX, guide).astype(np.float32) + np.float32(0.05)
    fine = cube(guide, FINE, 10.0)
    return fine, cube(degrade(truth, factor), COARSE, 10.0 * factor), truth


def rmse(a, b):
    return float(np.sqrt(np.nanmean(np.square(np.asarray(a, np.float64) - np.asarray(b, np.float64)))))


@pytest.mark.parametrize("factor", [2, 3, 6])
def test_bands_that_are_mixtures_of_the_guide_are_found(factor):
    fine, coarse, truth = pair(factor=factor)
    image = xr_cloudfree.sharpen(coarse, to=fine)
    assert list(image.band.values) == FINE + COARSE
    smooth = interpolate(coarse.values, factor)
    assert rmse(image.sel(band=COARSE), truth) < 0.2 * rmse(smooth, truth)
    assert rmse(image.sel(band=COARSE), truth) < 0.002


@pytest.mark.parametrize("factor", [2, 6])
def test_the_result_degraded_again_is_the_observation(factor):
    fine, coarse, _ = pair(factor=factor, seed=3)
    noisy = coarse + np.random.default_rng(0).normal(0, 0.003, coarse.shape).astype(np.float32)
    image = xr_cloudfree.sharpen(noisy.astype(np.float32), to=fine).sel(band=COARSE)
    assert rmse(degrade(image.values, factor), noisy) < 0.003


def test_a_guide_without_any_relation_does_no_harm():
    fine, coarse, truth = pair()
    other = fine.copy(data=landscape(seed=77)[None])
    image = xr_cloudfree.sharpen(coarse, to=other).sel(band=COARSE)
    assert rmse(image, truth) < 1.03 * rmse(interpolate(coarse.values, 2), truth)


def test_a_panchromatic_band_guides_landsat():
    """15 m and 30 m; the panchromatic band sees green and red."""
    truth = landscape((300, 270), 5)[:3][None]
    pan = truth[:, 1:3].mean(axis=1, keepdims=True)
    fine = cube(pan, ["pan"], 15.0).isel(band=0, drop=True).rename("pan")
    coarse = cube(degrade(truth, 2), ["blue", "green", "red"], 30.0)
    image = xr_cloudfree.sharpen(coarse.to_dataset("band"), to=fine)
    assert list(image.data_vars) == ["pan", "blue", "green", "red"]
    np.testing.assert_array_equal(image.pan.values, fine.values)
    smooth = interpolate(coarse.values, 2)
    for i, name in ((1, "green"), (2, "red")):
        assert rmse(image[name], truth[:, i]) < rmse(smooth[:, i], truth[:, i])


@pytest.mark.parametrize("which", ["fine", "coarse"])
def test_a_missing_pixel_hurts_only_its_surroundings(which):
    fine, coarse, _ = pair()
    whole = xr_cloudfree.sharpen(coarse, to=fine, layers="sharpened")
    holed = {"fine": fine.copy(deep=True), "coarse": coarse.copy(deep=True)}
    holed[which][0, 1, 50, 60] = np.nan
    image = xr_cloudfree.sharpen(holed["coarse"], to=holed["fine"], layers="sharpened")
    sharpened = image.reflectance.sel(band=COARSE)
    y, x = (50, 60) if which == "fine" else (100, 120)
    if which == "fine":
        assert sharpened.notnull().all()
        assert int((image.sharpened == 2).sum()) == 1
        assert image.sharpened.values[0, y, x] == 2
    else:
        assert int(sharpened.isnull().sum()) == 4
        assert np.isnan(sharpened.values[0, 1, y : y + 2, x : x + 2]).all()
        assert (image.sharpened == 1).all()  # other bands are measured there
    far = np.ones(fine.shape[-2:], bool)
    far[y - 20 : y + 22, x - 20 : x + 22] = False
    change = np.abs((sharpened - whole.reflectance.sel(band=COARSE)).values)[..., far]
    assert change.max() < 5e-4  # the fit has a few pixels less
    assert (image.reflectance.sel(band=FINE).values[..., far] == fine.values[..., far]).all()


def test_where_the_guide_is_not_clear_bands_are_interpolated():
    fine, coarse, _ = pair()
    clear = xr.ones_like(fine.isel(band=0, drop=True), dtype=bool)
    clear[0, 60:140, 80:200] = False
    clouded = fine.where(clear, 0.9)
    image = xr_cloudfree.sharpen(coarse, to=clouded, clear=clear, layers="all")
    expected = np.where(clear, 1, 2)
    np.testing.assert_array_equal(image.sharpened, expected)
    inside = (0, slice(None), slice(90, 110), slice(110, 170))
    smooth = interpolate(coarse.values, 2)
    np.testing.assert_allclose(image.reflectance.sel(band=COARSE).values[inside], smooth[inside], atol=2e-3)
    without = xr_cloudfree.sharpen(coarse, to=fine).sel(band=COARSE)
    far = (0, slice(None), slice(0, 40), slice(None))
    np.testing.assert_allclose(image.reflectance.sel(band=COARSE).values[far], without.values[far], atol=2e-3)


def test_a_clear_mask_of_coarser_pixels_is_repeated():
    fine, coarse, _ = pair()
    large = xr.ones_like(coarse.isel(band=0, drop=True), dtype=bool)
    large[0, 10:20, 30:50] = False
    small = xr.ones_like(fine.isel(band=0, drop=True), dtype=bool)
    small[0, 20:40, 60:100] = False
    a, b = (xr_cloudfree.sharpen(coarse, to=fine, clear=clear, layers="sharpened") for clear in (large, small))
    xr.testing.assert_identical(a, b)


def test_nothing_clear_is_interpolated_and_nothing_measured_is_nodata():
    fine, coarse, _ = pair(dates=2)
    fine[0] = np.nan
    coarse[1] = np.nan
    image = xr_cloudfree.sharpen(coarse, to=fine, layers="sharpened")
    assert (image.sharpened[0] == 2).all()
    assert (image.sharpened[1] == 0).all()
    np.testing.assert_allclose(image.reflectance[0].sel(band=COARSE), interpolate(coarse[0].values, 2), atol=1e-6)
    assert image.reflectance[1].sel(band=COARSE).isnull().all()


@pytest.mark.parametrize("factor", [2, 6])
def test_tiles_leave_no_seams(factor):
    """A crop has its tiles elsewhere: what differs is the local fit, and it changes smoothly."""
    shape, cut = (420, 360), 10 * factor
    fine, coarse, truth = pair(shape, factor, seed=11)
    truth = truth + landscape(shape, 90)[None, :3] * np.linspace(0, 1, shape[1], dtype=np.float32)
    coarse = coarse.copy(data=degrade(truth, factor))
    whole = xr_cloudfree.sharpen(coarse, to=fine).sel(band=COARSE).values
    part = xr_cloudfree.sharpen(coarse[..., 10:, 10:], to=fine[..., cut:, cut:]).sel(band=COARSE).values
    difference = whole[..., cut:, cut:] - part
    assert rmse(difference, 0) < 0.5 * rmse(whole, truth)
    # Steps from one row to the next, of the error: no larger where a tile's weight begins or ends than elsewhere.
    grid = lay_out(shape, factor)
    edges = [k * grid.stride + side * grid.tile // 2 for k in range(5) for side in (-1, 1)]
    steps = np.abs(np.diff(whole - truth, axis=-2)).mean(axis=(0, 1, 3))
    at = [edge - 1 for edge in edges if 0 < edge < shape[0]]
    assert len(at) >= 3
    assert steps[at].mean() < 1.05 * np.delete(steps, at).mean()


@pytest.fixture(scope="module")
def gappy():
    """A pair of two dates with gaps, and what is made of it in memory, in one block."""
    fine, coarse, _ = pair((360, 240), dates=2)
    fine[1, 0, 100:110, 20:90] = np.nan
    coarse[0, 1, 5:9, 50:70] = np.nan
    return fine, coarse, xr_cloudfree.sharpen(coarse, to=fine, layers="sharpened")


@pytest.mark.parametrize(
    "chunks",
    [{}, {"time": 1, "y": 77, "x": 50}, {"time": 2, "band": 1, "y": 300}, {"y": 8, "x": 600}],
    ids=["whole", "small", "bands", "rows"],
)
def test_any_chunks_and_blocks_give_one_answer(gappy, chunks, monkeypatch):
    monkeypatch.setattr(job, "BLOCK_TILES", 1)
    fine, coarse, expected = gappy
    small = {dim: -(-size // 3) if dim in ("y", "x") else size for dim, size in chunks.items()}
    lazy = xr_cloudfree.sharpen(coarse.chunk(small), to=fine.chunk(chunks), layers="sharpened")
    assert lazy.sharpened.chunks == ((1, 1), (180, 180), (180, 60))
    xr.testing.assert_identical(lazy.compute(scheduler="threads"), expected)


def test_a_lazy_result_can_be_written(tmp_path, monkeypatch):
    monkeypatch.setattr(job, "BLOCK_TILES", 1)
    fine, coarse, _ = pair((200, 200), dates=2)
    lazy = xr_cloudfree.sharpen(coarse.chunk(y=30), to=fine.chunk(y=70, band=1), layers="sharpened")
    io.write(lazy, tmp_path / "all.zarr")
    with xr.open_zarr(tmp_path / "all.zarr", decode_coords="all") as stored:
        xr.testing.assert_equal(stored.load(), xr_cloudfree.sharpen(coarse, to=fine, layers="sharpened"))


def test_filled_images_are_sharpened():
    fine, coarse, truth = pair(dates=3)
    clear = xr.ones_like(fine.isel(band=0, drop=True), dtype=bool)
    clear[1, 50:90, 40:100] = False
    small = clear[:, ::2, ::2].assign_coords(y=coarse.y, x=coarse.x)
    day = fine.time.values[1]
    ten, twenty = (cube.cloudfree.fill(day, clear=c, model="linear") for cube, c in ((fine, clear), (coarse, small)))
    image = xr_cloudfree.sharpen(twenty, to=ten)
    assert image.dims == ("band", "y", "x")
    assert image.attrs["cloudfree_model"] == "linear"
    seen = clear.values[1]
    assert rmse(image.sel(band=COARSE).values[:, seen], truth[1][:, seen]) < 0.003


def test_one_of_both_may_be_in_memory(gappy):
    fine, coarse, expected = gappy
    part = {"y": slice(0, 120), "x": slice(0, 120)}
    fine, coarse = fine.isel(part), coarse.isel(y=slice(0, 60), x=slice(0, 60))
    expected = xr_cloudfree.sharpen(coarse, to=fine)
    for a, b in ((coarse.chunk(y=7), fine), (coarse, fine.chunk(x=50))):
        lazy = xr_cloudfree.sharpen(a, to=b)
        assert lazy.chunks is not None
        xr.testing.assert_identical(lazy.compute(), expected)


def test_dates_are_independent_and_in_the_order_of_the_guide():
    fine, coarse, _ = pair(dates=3)
    whole = xr_cloudfree.sharpen(coarse[::-1], to=fine)
    xr.testing.assert_equal(whole.isel(time=[1]), xr_cloudfree.sharpen(coarse[[1]], to=fine[[1]]))
    image = xr_cloudfree.sharpen(coarse[1], to=fine[1])
    assert image.dims == ("band", "y", "x")
    assert image.time.values == fine.time.values[1]
    xr.testing.assert_equal(image, whole.isel(time=1))
    without = xr_cloudfree.sharpen(coarse[1].drop_vars("time"), to=fine[1].drop_vars("time"))
    assert "time" not in without.coords
    np.testing.assert_array_equal(without, image)


def test_units_dtype_and_nodata_of_each_resolution_are_kept():
    fine, coarse, truth = pair()
    stored = []
    for array, gap in ((fine, (5, 7)), (coarse, (40, 41))):
        numbers = np.rint((array + 0.1) * 1e4).astype(np.uint16)
        numbers[0, :, gap[0], gap[1]] = 0
        numbers.attrs = {"scale_factor": 1e-4, "add_offset": -0.1, "_FillValue": np.uint16(0), "units": "1"}
        stored.append(numbers.rio.write_crs("EPSG:32629"))
    image = xr_cloudfree.sharpen(stored[1], to=stored[0])
    assert image.dtype == np.uint16
    np.testing.assert_array_equal(image.sel(band=FINE), stored[0])
    assert {key: image.attrs[key] for key in stored[0].attrs} == stored[0].attrs
    sharpened = image.sel(band=COARSE).values
    assert (sharpened[0, :, 80:82, 82:84] == 0).all()
    assert int((sharpened == 0).sum()) == 4 * len(COARSE)
    known = sharpened > 0
    assert rmse((sharpened * 1e-4 - 0.1)[known], truth[known]) < 0.002
    assert image.rio.crs == stored[0].rio.crs
    xr.testing.assert_identical(image.drop_vars("band").isel(band=0).x, stored[0].x)


def test_a_dataset_of_bands_keeps_everything_of_the_guide():
    fine, coarse, _ = pair()
    ds10 = fine.to_dataset("band").assign(SCL=(("time", "y", "x"), np.full((1, 240, 240), 4, np.uint8)))
    ds10.attrs = {"platform": "sentinel-2a"}
    ds20 = coarse.to_dataset("band")
    ds20["B11"].attrs["note"] = "short-wave"
    image = ds20.cloudfree.sharpen(ds10, bands=["B11", "B05"], layers=["sharpened"])
    assert list(image.data_vars) == [*FINE, "SCL", "B11", "B05", "sharpened"]
    xr.testing.assert_identical(image[[*FINE, "SCL"]], ds10)
    assert image.B11.attrs["note"] == "short-wave"
    assert image.B11.attrs["cloudfree_sharpened"].startswith("B11, B05: pixels of 20 to 10, guided by B02")
    assert list(image.sharpened.attrs["flag_values"]) == [0, 1, 2]


def test_other_names_of_dimensions_and_both_forms():
    fine, coarse, _ = pair()
    names = {"y": "northing", "x": "easting", "band": "channel"}
    expected = xr_cloudfree.sharpen(coarse, to=fine)
    renamed = xr_cloudfree.sharpen(coarse.rename(names), to=fine.rename(names))
    assert renamed.dims == ("time", "channel", "northing", "easting")
    np.testing.assert_array_equal(renamed, expected)
    mixed = xr_cloudfree.sharpen(coarse, to=fine.to_dataset("band"))
    np.testing.assert_array_equal(mixed, expected)
    image = xr_cloudfree.sharpen(coarse.to_dataset(), to=fine.to_dataset().assign(mask=fine[:, 0] > 0))
    assert list(image.data_vars) == ["mask", "reflectance"]
    np.testing.assert_array_equal(image.reflectance, expected)


def test_bands_of_60_m_are_sharpened_by_all_others():
    fine, coarse, truth = pair((480, 480))
    third = cube(degrade(0.5 * truth[:, 1:2] + 0.5 * truth[:, 2:3], 6), ["B09"], 60.0)
    image = xr_cloudfree.sharpen(third, to=xr_cloudfree.sharpen(coarse, to=fine))
    assert list(image.band.values) == [*FINE, *COARSE, "B09"]
    assert "B05, B8A, B11: pixels of 20 to 10" in image.attrs["cloudfree_sharpened"]
    assert "B09: pixels of 60 to 10" in image.attrs["cloudfree_sharpened"]
    assert rmse(image.sel(band="B09"), (truth[:, 1] + truth[:, 2]) / 2) < 0.002


def test_packed_values_stay_within_their_packing():
    fine, coarse, _ = pair()
    dark = coarse - float(coarse.min())
    dark.encoding = {"dtype": "uint16", "scale_factor": 1e-4, "_FillValue": 0}
    image = xr_cloudfree.sharpen(dark.to_dataset("band"), to=fine.to_dataset("band"))
    assert float(image[COARSE].to_array().min()) >= 0
