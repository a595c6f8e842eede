"""Sentinel-1 in runs: recorded by its path as the cube is, part of what has to be the same, and resumed with."""

import json
import os

import numpy as np
import pytest
import xarray as xr

pytest.importorskip("torch")

import xr_cloudfree
from tests.support.cubes import as_dataset, contents, make_cube, make_s1
from tests.support.networks import RADAR, make_bundle
from xr_cloudfree import errors, io
from xr_cloudfree.runner import local, regions, runs
from xr_cloudfree.runner.plan import plan_run
from xr_cloudfree.stores import resume

DATE = "2021-06-03"


@pytest.fixture(autouse=True)
def no_sync(monkeypatch):
    monkeypatch.setattr(os, "fsync", lambda file: None)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with a cube, its radar and a model that looks at it."""
    monkeypatch.chdir(tmp_path)
    da, clear = make_cube()
    for name, ds in {"cube": as_dataset(da, clear).drop_vars("platform"), "s1": make_s1(da).to_dataset("band")}.items():
        ds.chunk({"y": 20, "x": 20}).to_zarr(f"{name}.zarr", zarr_format=3, consolidated=False)
    make_bundle(tmp_path / "radar", **RADAR)
    return tmp_path


HOW = {"model": "local-dir:radar", "shard": 32, "layers": "filled"}


def fill(store, s1="s1.zarr", cube="cube.zarr", **how):
    return xr_cloudfree.to_zarr(cube, store, DATE, s1=s1, **HOW | how)


def begin(store, s1="s1.zarr", cube="cube.zarr", **how):
    """Two of its regions, and then it is stopped."""
    run = runs.prepare(cube, store, DATE, s1=s1, **HOW | how)
    with runs.started(run) as missing:
        local.fill_locally(run, missing[:2])
    return run


def test_a_store_is_what_fill_gives_and_other_than_without(folder):
    done = fill("out.zarr").compute()
    cube, s1 = (io.open_cube(f"{name}.zarr").load() for name in ("cube", "s1"))
    expected = xr_cloudfree.fill(cube, DATE, model="local-dir:radar", layers="filled", s1=s1)
    for name in expected.data_vars:
        np.testing.assert_array_equal(done[name], expected[name])
    assert done.attrs["cloudfree_s1"] == expected.attrs["cloudfree_s1"] == "2021-05-24, 2021-05-30, 2021-06-07"
    plain = xr_cloudfree.to_zarr("cube.zarr", "plain.zarr", DATE, **HOW).compute()
    assert (plain["B04"] != done["B04"]).any() and "cloudfree_s1" not in plain.attrs


@pytest.mark.parametrize("how", ["path", "relative path", "opened"])
def test_resumed_from_nothing_but_the_store(folder, how, monkeypatch):
    whole = fill("whole.zarr")
    s1 = {"path": folder / "s1.zarr", "relative path": "s1.zarr", "opened": io.open_cube("s1.zarr")}[how]
    begin("out.zarr", s1, model=f"local-dir:{folder / 'radar'}")
    told = json.loads((folder / "out.zarr.journal" / "run.json").read_text())["call"]
    assert told["s1"] == str(folder / "s1.zarr") and told["cube"] == str(folder / "cube.zarr")
    (folder / "elsewhere").mkdir()
    monkeypatch.chdir(folder / "elsewhere")
    again = resume(folder / "out.zarr", progress=False)
    xr.testing.assert_identical(again.compute(), whole.compute())
    assert contents(folder / "out.zarr") == contents(folder / "whole.zarr")
    shard = next(path for path in sorted((folder / "out.zarr" / "B04" / "c").rglob("*")) if path.is_file())
    data = shard.read_bytes()
    shard.write_bytes(data[:-1])
    assert len(xr_cloudfree.repair(folder / "out.zarr").regions) == 1
    assert shard.read_bytes() == data


def test_a_name_of_the_cubes_own_variables_is_kept_as_it_is(folder):
    s1 = io.open_cube("s1.zarr").rename(VV="s1_vv", VH="s1_vh").load()
    cube = io.open_cube("cube.zarr").load()
    both = cube.assign({n: s1[n].reindex(time=cube.time, method="nearest").drop_vars("spatial_ref") for n in s1})
    for variable in both.variables.values():
        variable.encoding = {}
    both.to_zarr("both.zarr", zarr_format=3, consolidated=False)
    run = begin("out.zarr", "s1_vv,s1_vh", "both.zarr")
    assert run.call["s1"] == "s1_vv,s1_vh"
    done = resume("out.zarr", progress=False).compute()
    expected = xr_cloudfree.fill(io.open_cube("both.zarr").load(), DATE, model="local-dir:radar", s1="s1_vv,s1_vh")
    np.testing.assert_array_equal(done["B04"], expected["B04"])
    assert begin("other.zarr", "s1_vv,s1_vh", io.open_cube("both.zarr")).call["s1"] == "s1_vv,s1_vh"


@pytest.mark.parametrize("how", ["in memory", "computed", "an array", "changed after it was opened"])
def test_what_cannot_be_opened_again_is_said_as_for_the_cube(folder, how):
    opened = io.open_cube("s1.zarr")
    s1 = {
        "in memory": opened.load().drop_encoding(),
        "computed": (opened - 0.5).drop_encoding(),
        "an array": opened.to_dataarray("band"),
        "changed after it was opened": opened.assign(VV=opened.VV - 1),
    }[how]
    run = begin("out.zarr", s1)
    assert run.call is None
    with pytest.raises(errors.StoreError, match="does not come from a file that can be reopened"):
        resume("out.zarr", progress=False)
    # The same call goes on all the same.
    done = fill("out.zarr", s1).compute()
    expected = xr_cloudfree.fill(io.open_cube("cube.zarr"), DATE, model="local-dir:radar", s1=s1).compute()
    np.testing.assert_array_equal(done["B04"], expected["B04"])


def test_another_radar_is_another_run(folder):
    begin("out.zarr")
    other = io.open_cube("s1.zarr").load() - 1
    with pytest.raises(errors.ChangedError, match="Sentinel-1"):
        fill("out.zarr", other)
    with pytest.raises(errors.ChangedError, match="Sentinel-1: changed since"):
        xr_cloudfree.to_zarr("cube.zarr", "out.zarr", DATE, **HOW)
    other.drop_encoding().to_zarr("s1.zarr", mode="w", zarr_format=3, consolidated=False)
    with pytest.raises(errors.ChangedError, match="Sentinel-1"):
        resume("out.zarr", progress=False)


def test_a_plan_is_small_and_holds_what_is_read(folder):
    import pickle

    plan, _ = plan_run(io.open_cube("cube.zarr"), DATE, s1="s1.zarr", **HOW)
    assert all(variable.chunks is None for variable in plan.s1) and len(pickle.dumps(plan)) < 25_000
    windows = regions.read_windows(plan, 0)
    bands, s1 = windows.bands, windows.s1
    assert [band.shape for band in s1] == [(3, *bands[0].shape[1:])] * 2
    without, _ = plan_run(io.open_cube("cube.zarr"), DATE, **HOW)
    assert without.s1 == () and without.memory < plan.memory
    assert regions.read_windows(without, 0).s1 == []


@pytest.mark.slow
def test_on_a_cluster(folder):
    distributed = pytest.importorskip("distributed")
    whole = fill("whole.zarr", model=f"local-dir:{folder / 'radar'}").compute()
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster) as client,
    ):
        done = xr_cloudfree.batch(
            "cube.zarr",
            "out.zarr",
            DATE,
            s1="s1.zarr",
            client=client,
            progress=False,
            **HOW | {"model": f"local-dir:{folder / 'radar'}"},
        )
    xr.testing.assert_identical(done.compute(), whole)
