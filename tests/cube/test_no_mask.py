"""Cubes without a quality layer: their masks are made from the series, with one warning."""

import warnings

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support.clouded import CLOUD, CLOUDED, DATES, SEEN, clouded
from tests.support.commands import run
from tests.support.cubes import no_compute
from xr_cloudfree import api, errors, io
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.stores import resume

DATE = str(DATES[CLOUDED])[:10]


def forms():
    da, clear = clouded()
    bands = da.to_dataset("band")
    return {
        "array": da,
        "unknown names": da.assign_coords(band=["one", "two", "three"]),
        "numbers": da.drop_vars("band"),
        "one band": da.isel(band=[1]),
        "one layer": da.isel(band=1).rename("red"),
        "bands": bands,
        "dataset": da.to_dataset(),
        "transposed": da.transpose("y", "x", "time", "band").rename(y="lat", x="lon", time="t"),
        "beside a boolean layer": da.to_dataset().assign(land=clear),
        "digital numbers": clouded("uint16")[0],
    }


FORMS = forms()


def fill(cube, **options):
    return xr_cloudfree.fill(cube, DATE, **{"model": "linear", "layers": ["filled", "mask_change"]} | options)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("chunks", [None, {}], ids=["in memory", "chunked"])
def test_masks_are_made_from_the_series_with_one_warning(form, chunks):
    cube = FORMS[form] if chunks is None else FORMS[form].chunk()
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        found = fill(cube).compute()
    [one] = [str(w.message) for w in told if issubclass(w.category, errors.CloudfreeWarning)]
    assert "no quality layer" in one and "mask='series'" in one and "clear=" in one
    asked = fill(cube, mask="series").compute()
    xr.testing.assert_identical(found, asked)
    assert found.attrs["cloudfree_mask"] == "series" and "cloudfree_repair" not in found.attrs
    axes = ("y", "x") if "y" in found.dims else ("lat", "lon")
    filled = found["filled"].transpose(*axes).to_numpy()
    for part in (CLOUD, SEEN):
        assert (filled[part] == 2).mean() > 0.9
    assert (filled == 1).mean() > 0.6


def test_a_layer_is_taken_before_the_series_is():
    da, clear = clouded()
    scl = xr.where(clear, np.uint8(4), np.uint8(9)).astype("uint8")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image = fill(da.to_dataset().assign(SCL=scl))
    assert image.attrs["cloudfree_mask"] == "SCL (scl)"
    assert "cloudfree_repair" not in image.attrs and not image["mask_change"].any()
    corrected = fill(da.to_dataset().assign(SCL=scl), repair="auto")
    assert corrected.attrs["cloudfree_repair"] == "masks corrected by the series"
    xr.testing.assert_identical(corrected, fill(da.to_dataset().assign(SCL=scl), repair=True))
    assert fill(da.to_dataset().assign(SCL=scl), mask="series").attrs["cloudfree_mask"] == "series"
    assert xr_cloudfree.clear_mask(da, mask="series").attrs["cloudfree_mask"] == "series"


def test_masks_from_the_series_do_not_depend_on_repair():
    da, _ = clouded()
    how = {"mask": "series", "layers": ["mask_change", "score"]}
    expected = xr_cloudfree.clear_mask(da, **how)
    assert not expected["clear"].all() and expected["score"].notnull().any()
    for repair in (True, False, "auto"):
        xr.testing.assert_identical(xr_cloudfree.clear_mask(da, repair=repair, **how), expected)


def test_a_probability_is_not_passed_over():
    da, clear = clouded()
    cube = da.to_dataset().assign(cloud_prob=xr.where(clear, 0.1, 0.9))
    with pytest.raises(errors.MaskError, match=r"mask='cloud_prob', scheme=.probability., threshold=0\.4"):
        fill(cube)


@pytest.mark.parametrize(
    "option", [{"dilate": 2}, {"strict": True}, {"snow": "not clear"}, {"threshold": 0.4}, {"scheme": "scl"}]
)
def test_options_of_a_layer_need_one(option):
    with pytest.raises(errors.MaskError, match=r"no quality layer|no layer of scheme"):
        fill(FORMS["array"], **option)
    with pytest.raises(errors.MaskError, match="there is none"):
        fill(FORMS["array"], mask="series", **option)


def test_two_dates_are_too_few_and_no_mask_is_corrected():
    da, clear = clouded()
    two = da.isel(time=[2, 3])
    with pytest.raises(errors.MaskError, match="no quality layer"):
        fill(two)
    image = fill(two, clear=clear.isel(time=[2, 3]), repair="auto")
    assert not image["mask_change"].any() and "cloudfree_repair" not in image.attrs
    masks = xr_cloudfree.clear_mask(two, clear=clear.isel(time=[2, 3]), repair="auto", layers=["mask_change", "score"])
    assert not masks["mask_change"].any() and masks["score"].isnull().all()


def test_an_index_is_not_corrected_by_itself():
    da, clear = clouded()
    nir, red = (da.sel(band=band, drop=True) for band in ("nir", "red"))
    ndvi = ((nir - red) / (nir + red)).rename("NDVI")
    xr.testing.assert_identical(fill(ndvi, clear=clear, repair="auto"), fill(ndvi, clear=clear, repair=False))


def test_nothing_is_computed_when_called():
    import dask

    with dask.config.set(scheduler=no_compute):
        image = fill(FORMS["array"].chunk(y=50), mask="series")
        masks = xr_cloudfree.clear_mask(FORMS["array"].chunk(y=50), mask="series", layers=["score"])
    assert image["filled"].chunks is not None and masks["score"].chunks is not None


def test_the_layer_takes_no_memory():
    da = FORMS["array"]
    info = api.read(da, ReadOptions(mask="series"))
    assert info.quality.nbytes == da.sizes["time"] and info.repair and info.rule.from_series


def test_runs_are_told_apart_and_go_on(tmp_path):
    da, clear = clouded()
    cube = io.for_zarr(da.to_dataset().assign(good=clear))
    cube.to_zarr(tmp_path / "cube.zarr", zarr_format=3, consolidated=False)

    def run_(**how):
        how = {"model": "linear", "layers": "filled", "shard": 96} | how
        return xr_cloudfree.to_zarr(tmp_path / "cube.zarr", tmp_path / "out.zarr", DATE, **how)

    first = run_(clear="good", repair=True)
    assert first.attrs["cloudfree_repair"] == "masks corrected by the series"
    xr.testing.assert_identical(resume(tmp_path / "out.zarr", progress=False), first)
    with pytest.raises(errors.ChangedError, match="repair: 'True' then, 'False' now"):
        run_(clear="good")
    with pytest.raises(errors.ChangedError, match=r"mask: 'good \(boolean, True is clear\)' then, 'series' now"):
        run_(mask="series", repair=True)
    series = run_(mask="series", overwrite=True)
    assert series.attrs["cloudfree_mask"] == "series"
    xr.testing.assert_identical(resume(tmp_path / "out.zarr", progress=False), series)
    np.testing.assert_array_equal(series["filled"], fill(da, mask="series")["filled"])
    assert xr_cloudfree.verify(tmp_path / "out.zarr").ok


@pytest.mark.parametrize("command", ["fill", "batch"])
def test_the_command_line_takes_the_same_options(tmp_path, monkeypatch, command):
    monkeypatch.chdir(tmp_path)
    da, clear = clouded()
    cube = io.for_zarr(da.to_dataset().assign(good=clear))
    cube.to_zarr("cube.zarr", zarr_format=3, consolidated=False)
    call = [command, "cube.zarr", "--date", DATE, "--model", "linear", "--quiet", "--overwrite", "--out", "out.zarr"]
    ways = {
        ("--clear", "good"): {"clear": clear},
        ("--clear", "good", "--repair"): {"clear": clear, "repair": True},
        ("--clear", "good", "--no-repair"): {"clear": clear, "repair": False},
        ("--mask", "series"): {"mask": "series"},
    }
    seen = []
    for options, how in ways.items():
        run(*call, *options)
        written = xr.open_zarr("out.zarr").load()["filled"]
        np.testing.assert_array_equal(written, fill(da, **how)["filled"])
        seen.append(written)
    assert seen[0].equals(seen[2]) and not seen[0].equals(seen[1])
