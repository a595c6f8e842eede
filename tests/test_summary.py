"""The repr of the accessor: a summary of the cube."""

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree  # noqa: F401  registers .cloudfree
from tests.support.clouded import clouded
from tests.support.cubes import as_dataset, make_cube
from xr_cloudfree import summary


@pytest.fixture(scope="module")
def sample():
    return xr.open_zarr("data/s2_portugal.zarr", decode_coords="all").load()


def test_the_repr_says_what_was_understood(sample):
    text = repr(sample.cloudfree)
    clear = sample.cloudfree.clear_mask().sel(time="2021-07-23").mean().item()
    for part in (
        "B8A (nir08)",
        "sentinel-2",
        "EPSG:4326",
        "128 x 128",
        "cloud_mask",
        f"2021-07-23 {clear:4.0%}",
        "scl",
    ):
        assert part in text
    page = sample.cloudfree._repr_html_()
    assert "<table>" in page and f"2021-07-23: {clear:.0%} clear" in page


def faulty():
    """Return a series with errors in its mask: some on one date, and one date that is masked but clear."""
    da, clear = clouded()
    clear[4] = False
    mask = (~clear).astype("uint8").assign_attrs(flag_values=[0, 1], flag_meanings="clear cloud")
    return xr.Dataset({"reflectance": da, "cloud_mask": mask})


def test_the_repr_does_not_correct_masks(monkeypatch):
    ds = faulty()
    monkeypatch.setattr("xr_cloudfree.engine.repairs.repair", None)
    text, page = repr(ds.cloudfree), ds.cloudfree._repr_html_()
    assert "2021-06-11   0%" in text and "(-)" not in text and "2021-06-11: 0% clear" in page
    monkeypatch.undo()
    layer = ds.cloudfree.clear_mask(repair=True, layers="mask_change")  # what the repr tells to type
    assert ".cloudfree.clear_mask(repair=True, layers='mask_change')" in text and "mask_change" in layer


@pytest.mark.parametrize("chunks", [None, {"y": 50}], ids=["in memory", "chunked"])
def test_a_computed_summary_says_what_the_series_changes_on_each_date(chunks):
    ds = faulty()
    masks = ds.cloudfree.clear_mask(repair=True, layers="mask_change")
    given = ds.cloudfree.clear_mask()
    text = summary.describe(ds if chunks is None else ds.chunk(chunks), compute=True).text()
    assert "with what the series masks (-) and restores (+)" in text
    for date, day in enumerate(ds.time.dt.strftime("%Y-%m-%d").values.tolist()):
        change = masks["mask_change"][date]
        masked, restored = float(change.isin([1, 2]).mean()), float((change == 3).mean())
        share = float(given[date].mean())
        parts = [f"{sign}{100 * part:.0f}" for sign, part in (("-", masked), ("+", restored)) if part >= 0.005]
        assert " ".join([f"{day} {share:4.0%}", *parts]) in text
    whole = masks["mask_change"]
    assert f"{100 * float(whole.isin([1, 2]).mean()):.2g} % of all pixels masked" in text


def test_a_computed_summary_warns_of_dates_on_which_mask_and_series_disagree():
    ds = faulty()
    text = summary.describe(ds, compute=True).text()
    [line] = [line for line in text.splitlines() if line.strip().startswith("warning")]
    assert "disagree" in line and "2021-06-11" in line and "2021-06-03" not in line
    assert ".cloudfree.plot.mask('2021-06-11')" in line
    ds["cloud_mask"][4] = 0
    assert "warning" not in summary.describe(ds, compute=True).text()


def test_the_repr_of_a_cube_without_a_mask_says_that_the_series_makes_it():
    da, _ = clouded()
    text = repr(da.cloudfree)
    assert "none: made from the series" in text and "restored" not in text
    assert "warning" not in text and "2021-06-11" in text


def test_of_a_large_cube_without_a_mask_the_repr_makes_none(monkeypatch):
    da, _ = clouded()
    monkeypatch.setattr(summary, "MAX_MADE", da.size - 1)
    text = repr(da.cloudfree)
    assert "none: made from the series" in text and "the cube is large" in text and "2021-06-11" not in text


def test_two_dates_are_not_corrected():
    text = repr(faulty().isel(time=[0, 3]).cloudfree)
    assert "repair" not in text and "2021-05-01 100%" in text


def test_the_repr_of_an_index_does_not_call_it_reflectance(sample):
    red, nir = (sample.reflectance.sel(band=band, drop=True) for band in ("B04", "B8A"))
    cube = xr.Dataset({"ndvi": (nir - red) / (nir + red), "cloud_mask": sample.cloud_mask})
    text = repr(cube.cloudfree)
    assert "an index between -1 and 1" in text and "float values are the index" in text and "reflectance" not in text


def test_the_repr_never_fails_and_never_computes():
    da, clear = make_cube()
    few = repr(da.isel(time=[0, 1]).cloudfree)
    assert "pass" in few or "clear=" in few
    assert "not usable" in repr(da.isel(time=0).cloudfree)
    assert "not usable" in repr(as_dataset(da, clear).drop_vars("time").cloudfree)
    lazy = as_dataset(da, clear).chunk(y=10)
    assert "SCL" in repr(lazy.cloudfree) and "lazy" in repr(lazy.cloudfree)


def test_the_repr_of_a_broken_mask_says_so():
    da, clear = make_cube()
    ds = as_dataset(da, clear)
    ds["SCL"] = ds["SCL"] * 0 + np.uint8(99)
    assert "not usable" in repr(ds.cloudfree) and "99" in repr(ds.cloudfree)
