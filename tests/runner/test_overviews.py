"""Overviews of stores: averages over valid pixels, on the right grid, made once, whatever happens."""

import json
import os
import shutil
import warnings

import numpy as np
import pytest
import xarray as xr
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from typer.testing import CliRunner

import xr_cloudfree
from tests.support.cubes import as_dataset, contents, make_cube
from xr_cloudfree import add_overviews, errors, io
from xr_cloudfree.cli.app import app
from xr_cloudfree.runner import overviews, pyramids
from xr_cloudfree.runner.verify import store_digest
from xr_cloudfree.storage.folders import folder_at

DATES = ["2021-06-03", "2021-06-15"]


@pytest.fixture(autouse=True)
def small(monkeypatch):
    """Levels, chunks and shards of few pixels, and no waiting for the disk."""
    monkeypatch.setattr(overviews, "MOST_CHUNK", 8)
    monkeypatch.setattr(overviews, "_SHARD", 16)
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture(scope="module")
def kept(tmp_path_factory):
    """Stores by form and dates, each filled once."""
    return tmp_path_factory.mktemp("kept")


@pytest.fixture
def make(kept):
    """Return a function that puts a store into a place: a copy of one that was filled before."""

    def copied(path, form="bands", date=DATES):
        source = kept / f"{form}-{len(date) if isinstance(date, list) else 'one'}.zarr"
        if not source.exists():
            make_store(source, form, date)
        for ending in ("", ".journal"):
            shutil.copytree(f"{source}{ending}", f"{path}{ending}")
        return path

    return copied


def make_store(path, form="bands", date=DATES, **options):
    da, clear = make_cube(dtype="float32" if form == "float" else "uint16")
    da = da.drop_vars("platform")
    how = {"model": "linear", "layers": "all", "shard": 24} | options
    if form == "bands":
        xr_cloudfree.to_zarr(as_dataset(da, clear), path, date, nodata=0, **how)
    else:
        nodata = {} if form == "float" else {"nodata": 0}
        xr_cloudfree.to_zarr(da, path, date, clear=clear, **nodata, **how)
    return path


def averaged(values, valid):
    """Averages of 2 by 2 pixels, pixel by pixel; the second array says where there is one."""
    rows, columns = (-(-edge // 2) for edge in values.shape[-2:])
    out, any_valid = np.zeros((*values.shape[:-2], rows, columns)), np.zeros((*values.shape[:-2], rows, columns), bool)
    for row in range(rows):
        for column in range(columns):
            part = np.s_[..., 2 * row : 2 * row + 2, 2 * column : 2 * column + 2]
            count = valid[part].sum((-2, -1))
            total = np.where(valid[part], values[part], 0).astype(float).sum((-2, -1))
            out[..., row, column] = total / np.maximum(count, 1)
            any_valid[..., row, column] = count > 0
    return out, any_valid


def opened(path, factor=None, **how):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return xr.open_zarr(
            path, group=None if factor is None else f"ovr_{factor}x", decode_coords="all", mask_and_scale=False, **how
        )


@pytest.mark.parametrize("form", ["bands", "variable", "float"])
@pytest.mark.parametrize("date", [DATES, DATES[0]], ids=["two dates", "one date"])
def test_known_answers(tmp_path, form, date, make):
    path = make(tmp_path / "out.zarr", form, date)
    assert add_overviews(path) == (2, 4, 8)
    image = opened(path)
    before = image
    for factor in (2, 4, 8):
        level = opened(path, factor)
        assert set(level.data_vars) == set(image.data_vars) and level.attrs["cloudfree_model"] == "linear"
        for name, array in level.data_vars.items():
            assert array.dtype == image[name].dtype and str(array.attrs) == str(image[name].attrs)  # NaN is not NaN
            if "cloudfree_model" not in array.attrs:
                np.testing.assert_array_equal(array, image[name][..., ::factor, ::factor])
                continue
            values = before[name].to_numpy()
            expected, known = averaged(values, np.isfinite(values) if form == "float" else values != 0)
            if form == "float":
                np.testing.assert_array_equal(array, np.where(known, expected, np.nan).astype("float32"))
            else:
                np.testing.assert_array_equal(array, np.where(known, np.rint(expected), 0).astype("uint16"))
        before = level
    assert xr_cloudfree.verify(path).ok


def test_nothing_invalid_is_averaged(tmp_path):
    """The corner of the cube is never clear and never observed: it is nodata, and does not darken its neighbours."""
    da, clear = make_cube(dtype="uint16")
    da[:, :, :3, :3] = 0
    xr_cloudfree.to_zarr(da, tmp_path / "out.zarr", DATES[0], clear=clear, nodata=0, model="linear", shard=24)
    add_overviews(tmp_path / "out.zarr")
    level, whole = opened(tmp_path / "out.zarr", 2).reflectance, opened(tmp_path / "out.zarr").reflectance.load()
    assert (whole[:, :3, :3] == 0).all() and (level[:, 0, 0] == 0).all()
    edge, corner = whole[:, 0:2, 2:4].astype(float), whole[:, 2:4, 2:4].astype(float)  # two and one of four are nodata
    np.testing.assert_array_equal(level[:, 0, 1], np.rint(edge.sum(("y", "x")) / 2))
    np.testing.assert_array_equal(level[:, 1, 1], np.rint(corner.sum(("y", "x")) / 3))


@pytest.mark.parametrize("form", ["bands", "variable"])
def test_the_grid_of_a_level(tmp_path, form, make):
    path = make(tmp_path / "out.zarr", form)
    add_overviews(path)
    whole = opened(path)
    for factor in (2, 4, 8):
        level = opened(path, factor)
        size = 10 * factor
        rows, columns = -(-53 // factor), -(-61 // factor)
        attrs = dict(zarr.open_group(path, path=f"ovr_{factor}x", mode="r").attrs)
        assert level.rio.crs.to_epsg() == 32629 and attrs["proj:code"] == "EPSG:32629"
        transform = [float(size), 0.0, 499_995.0, 0.0, -float(size), 4_400_005.0]
        assert list(level.rio.transform(recalc=True))[:6] == attrs["spatial:transform"] == transform
        assert list(level.rio.transform())[:6] == transform
        assert list(level.rio.shape) == attrs["spatial:shape"] == [rows, columns]
        assert list(level.rio.bounds()) == attrs["spatial:bbox"]
        np.testing.assert_array_equal(level.time, whole.time)
        assert {name for name in level.coords} == {name for name in whole.coords}


def test_the_transform_in_the_crs_follows(tmp_path):
    da, clear = make_cube(dtype="uint16")
    xr_cloudfree.to_zarr(
        da.rio.write_transform(), tmp_path / "out.zarr", DATES, clear=clear, nodata=0, model="linear", shard=24
    )
    assert "GeoTransform" in opened(tmp_path / "out.zarr").spatial_ref.attrs
    add_overviews(tmp_path / "out.zarr")
    assert list(opened(tmp_path / "out.zarr", 4).rio.transform())[:6] == [40, 0, 499_995, 0, -40, 4_400_005]


def test_the_layout_follows_the_convention(tmp_path, make):
    path = make(tmp_path / "out.zarr", "variable")
    add_overviews(path)
    attrs = dict(zarr.open_group(path, mode="r").attrs)
    registered = {entry["name"]: entry for entry in attrs["zarr_conventions"]}
    assert list(registered) == ["proj", "spatial", "multiscales"]
    assert registered["multiscales"]["uuid"] == "d35379db-88df-4056-af3a-620245f8e347"
    base = {name for name, array in opened(path).data_vars.items()}
    seen = {}
    for entry in attrs["multiscales"]["layout"]:
        array = zarr.open_array(path, path=entry["asset"], mode="r")
        assert entry["spatial:shape"] == list(array.shape[-2:])
        assert len(entry["transform"]["scale"]) == len(entry["transform"]["translation"]) == array.ndim
        if "derived_from" not in entry:
            assert entry["asset"] in base and set(entry["transform"]["scale"]) == {1.0}
        else:  # made from the level before, which comes first
            source, transform = seen[entry["derived_from"]]
            assert entry["transform"]["scale"] == [1.0] * (array.ndim - 2) + [2.0, 2.0]
            assert entry["spatial:transform"][0] == 2 * transform[0] and entry["spatial:transform"][2] == transform[2]
            name = entry["asset"].rpartition("/")[2]
            assert name == source.name.rpartition("/")[2]
            assert entry["resampling_method"] == ("average" if name == "reflectance" else "nearest")
        seen[entry["asset"]] = array, entry["spatial:transform"]
    assert len(seen) == 4 * len(base)


def test_readers_of_the_image_notice_nothing(tmp_path, make):
    path = make(tmp_path / "out.zarr")
    before, digest = io.open_store(path).load(), store_digest(path)
    files = contents(path)
    add_overviews(path)
    xr.testing.assert_identical(io.open_store(path).load(), before)
    assert store_digest(path) == digest
    after = contents(path)
    assert [key for key in files if after[key] != files[key]] == ["zarr.json"]
    again = xr.open_zarr(path, consolidated=False).load()
    xr.testing.assert_equal(again, xr.open_zarr(path).load())


def test_small_images_have_none(tmp_path, monkeypatch, make):
    path = make(tmp_path / "out.zarr")
    monkeypatch.setattr(overviews, "MOST_CHUNK", 64)
    before = contents(path)
    assert add_overviews(path) == () and contents(path) == before


def test_levels_of_a_tile(monkeypatch):
    monkeypatch.setattr(overviews, "MOST_CHUNK", 512)
    assert [(level.factor, level.shape) for level in overviews._levels((10980, 10980))] == [
        (2, (5490, 5490)),
        (4, (2745, 2745)),
        (8, (1373, 1373)),
        (16, (687, 687)),
        (32, (344, 344)),
    ]


@pytest.mark.parametrize("stop", [0, 1, 4, 5])
def test_interrupted_and_continued(tmp_path, monkeypatch, stop, make):
    """After any number of parts: readers see no overviews, and the same call makes the same bytes."""
    make(tmp_path / "whole.zarr")
    add_overviews(tmp_path / "whole.zarr")
    path = make(tmp_path / "out.zarr")
    plain = contents(path)
    real, written = pyramids.mark, []

    def failing(*arguments):
        if len(written) == stop:
            raise KeyboardInterrupt
        written.append(arguments[1:3])
        real(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(pyramids, "mark", failing)
        patched.setattr(overviews, "_THREADS", 1)
        with pytest.raises(KeyboardInterrupt):
            add_overviews(path)
    assert contents(path)["zarr.json"] == plain["zarr.json"] and xr_cloudfree.verify(path).ok
    made = []
    monkeypatch.setattr(pyramids, "mark", lambda *arguments: (made.append(arguments[1:3]), real(*arguments)))
    add_overviews(path)
    assert contents(path) == contents(tmp_path / "whole.zarr") and not set(made) & set(written)
    made.clear()
    assert add_overviews(path) == (2, 4, 8) and not made  # a third time nothing is made


def test_the_same_call_of_the_run_keeps_them(tmp_path, make):
    path = make(tmp_path / "out.zarr")
    add_overviews(path)
    before = contents(path)
    make_store(path)
    assert contents(path) == before and xr_cloudfree.verify(path).ok


def test_another_run_removes_them(tmp_path, make):
    path = make(tmp_path / "out.zarr")
    add_overviews(path)
    make_store(path, date=DATES[0], overwrite=True)
    assert not any("ovr_" in key for key in contents(path)) and xr_cloudfree.verify(path).ok
    assert add_overviews(path) == (2, 4, 8) and xr_cloudfree.verify(path).ok


def test_a_store_that_grows_gets_new_ones(tmp_path, make):
    path = make(tmp_path / "out.zarr", date=DATES[:1])
    add_overviews(path)
    with pytest.warns(errors.CloudfreeWarning, match="its overviews are removed"):
        make_store(path, date=DATES[1:], append=True)
    assert not any("ovr_" in key for key in contents(path)) and xr_cloudfree.verify(path).ok
    add_overviews(path)
    make(tmp_path / "whole.zarr")
    add_overviews(tmp_path / "whole.zarr")
    assert contents(path) == contents(tmp_path / "whole.zarr")


@pytest.mark.parametrize("key", ["ovr_2x/B04/c/1/0/1", "ovr_8x/filled/c/0/0/0", "ovr_4x/zarr.json", "ovr_4x/x/c/0"])
@pytest.mark.parametrize("how", ["flipped", "missing"])
def test_damage_is_found_and_mended(tmp_path, key, how, make):
    path = make(tmp_path / "out.zarr")
    add_overviews(path)
    before, digest = contents(path), store_digest(path)
    file = path / key
    if how == "missing":
        file.unlink()
    else:
        data = bytearray(file.read_bytes())
        data[len(data) // 2] ^= 1
        file.write_bytes(data)
    report = xr_cloudfree.verify(path)
    assert [(problem.region, problem.key, problem.what) for problem in report.problems] == [
        (None, key, {"flipped": "changed"}.get(how, how))
    ]
    assert report.digest == digest
    xr_cloudfree.repair(path)  # the cube is in memory: only the overviews are made again
    assert contents(path) == before and xr_cloudfree.verify(path).ok


def test_damaged_parts_of_the_image_are_filled_first(tmp_path):
    da, clear = make_cube(dtype="uint16")
    io.for_zarr(as_dataset(da, clear).drop_vars("platform")).to_zarr(tmp_path / "cube.zarr", consolidated=False)
    path = tmp_path / "out.zarr"
    xr_cloudfree.to_zarr(tmp_path / "cube.zarr", path, DATES, model="linear", shard=24)
    add_overviews(path)
    before = contents(path)
    (path / "B04" / "c" / "0" / "0" / "0").unlink()
    (path / "zarr.json").write_bytes(b"{}")
    (path / "ovr_2x" / "B04" / "c" / "0" / "0" / "0").unlink()
    assert len(xr_cloudfree.verify(path).problems) == 2  # overviews that nobody is shown are not looked at
    xr_cloudfree.repair(path)
    assert contents(path) == before and xr_cloudfree.verify(path).ok


def test_damaged_metadata_are_an_error(tmp_path, make):
    path = make(tmp_path / "out.zarr")
    (path / "x" / "zarr.json").write_bytes(b"{}")
    with pytest.raises(errors.StoreError, match=r"x/zarr\.json") as caught:
        add_overviews(path)
    assert "cloudfree repair" in caught.value.remedy


def test_an_unfinished_store_is_an_error(tmp_path, make):
    path = make(tmp_path / "out.zarr")
    (tmp_path / "out.zarr.journal" / "finished.json").unlink()
    with pytest.raises(errors.StoreError, match="is not finished"):
        add_overviews(path)
    with pytest.raises(errors.StoreError, match="no journal"):
        add_overviews(tmp_path / "none.zarr")


def test_a_grid_without_coordinates_is_an_error(tmp_path):
    da, clear = (array.drop_vars(["y", "x"]) for array in make_cube(dtype="uint16"))
    xr_cloudfree.to_zarr(da, tmp_path / "out.zarr", DATES, clear=clear, nodata=0, model="linear", shard=24)
    before = contents(tmp_path / "out.zarr")
    with pytest.raises(errors.OutputError, match="not evenly spaced along y and x, or missing"):
        add_overviews(tmp_path / "out.zarr")
    assert contents(tmp_path / "out.zarr") == before


def test_the_command(tmp_path, monkeypatch):
    da, clear = make_cube(dtype="uint16")
    io.for_zarr(as_dataset(da, clear).drop_vars("platform")).to_zarr(tmp_path / "cube.zarr", consolidated=False)
    monkeypatch.chdir(tmp_path)
    how = ["--model", "linear", "--shard", "24", "--quiet"]
    done = CliRunner().invoke(app, ["batch", "cube.zarr", "--out", "a.zarr", "--date", DATES[0], "--overviews", *how])
    assert done.exit_code == 0, done.output
    done = CliRunner().invoke(app, ["batch", "cube.zarr", "--out", "b.zarr", "--date", DATES[0], *how])
    assert done.exit_code == 0 and not (tmp_path / "b.zarr" / "ovr_2x").exists()
    done = CliRunner().invoke(app, ["resume", "b.zarr", "--overviews", "--quiet"])
    assert done.exit_code == 0, done.output
    assert contents(tmp_path / "a.zarr") == contents(tmp_path / "b.zarr") and (tmp_path / "a.zarr" / "ovr_2x").is_dir()
    done = CliRunner().invoke(app, ["verify", "a.zarr"])
    assert done.exit_code == 0 and "are as they were written" in done.output


def test_in_an_object_store(tmp_path, make):
    """The same bytes as on a disk, found and mended in the same way."""
    pytest.importorskip("obstore")
    pytest.importorskip("moto")
    from tests.support import s3

    make(tmp_path / "out.zarr")
    add_overviews(tmp_path / "out.zarr")
    with s3.serving():
        url = f"s3://{s3.BUCKET}/overviews/out.zarr"
        make_store(url)
        assert add_overviews(url) == (2, 4, 8)
        remote = folder_at(url)
        assert {key: remote.read(key) for key, _ in remote.list()} == contents(tmp_path / "out.zarr")
        remote.write("ovr_4x/B04/c/0/0/0", b"none")
        assert [problem.key for problem in xr_cloudfree.verify(url).problems] == ["ovr_4x/B04/c/0/0/0"]
        xr_cloudfree.repair(url)
        assert xr_cloudfree.verify(url).ok and xr_cloudfree.verify(url) == xr_cloudfree.verify(tmp_path / "out.zarr")


@given(
    values=arrays.arrays("int16", st.tuples(st.integers(1, 7), st.integers(1, 7)), elements=st.integers(-5, 5)),
    nodata=st.sampled_from([None, 0, -3, -32768]),
)
@settings(max_examples=50, deadline=None)
def test_halves_of_anything(values, nodata):
    half = overviews.halved(values, nodata, "average")
    expected, known = averaged(values, np.ones(values.shape, bool) if nodata is None else values != nodata)
    assert half.dtype == values.dtype and half.shape == expected.shape
    if nodata is not None:
        assert (half[~known] == nodata).all() and (half[known] != nodata).all()
        known &= np.rint(expected) != nodata  # a mean that would be nodata is moved by one
    np.testing.assert_array_equal(half[known], np.rint(expected[known]))
    np.testing.assert_array_equal(overviews.halved(values, nodata, "nearest"), values[::2, ::2])


def test_metadata_are_plain_json(tmp_path, make):
    path = make(tmp_path / "out.zarr")
    add_overviews(path)
    for file in path.rglob("zarr.json"):
        json.loads(file.read_text(), parse_constant=pytest.fail)  # of NaN and Infinity
