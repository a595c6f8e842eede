"""Other sensors in runs: the store is what fill gives, a change of theirs is noticed, and resume finds them."""

import json

import numpy as np
import pytest

import xr_cloudfree
from tests.support.other_sensors import TARGET, two_sensors
from xr_cloudfree import errors, io
from xr_cloudfree.models.classical import enhance
from xr_cloudfree.runner import local, runs
from xr_cloudfree.stores import resume

HOW = {"model": "linear", "shard": 32, "layers": ["filled", "source_sensor"]}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(enhance, "TILE", 48)
    monkeypatch.setattr(enhance, "STRIDE", 32)
    cube, seen, _ = two_sensors()
    cube, seen = (ds.assign_coords(band=np.array(["B02", "B03", "B04"], "T")) for ds in (cube, seen))
    cube.chunk(y=30, x=30).to_zarr("cube.zarr", zarr_format=3, consolidated=False)
    seen.chunk(y=8, x=8).to_zarr("landsat.zarr", zarr_format=3, consolidated=False)
    return tmp_path


def test_a_store_is_what_fill_gives(folder):
    cube, seen = (io.open_cube(name).load() for name in ("cube.zarr", "landsat.zarr"))
    expected = xr_cloudfree.fill(cube, TARGET, others=seen, **{k: v for k, v in HOW.items() if k != "shard"})
    done = xr_cloudfree.to_zarr("cube.zarr", "out.zarr", TARGET, others="landsat.zarr", **HOW).compute()
    for name in expected.data_vars:
        np.testing.assert_array_equal(done[name], expected[name])
    assert done.attrs["cloudfree_others"] == expected.attrs["cloudfree_others"]


def test_a_run_is_resumed_by_its_journal_and_refuses_another_sensor(folder):
    run = runs.prepare("cube.zarr", "out.zarr", TARGET, others=["landsat.zarr"], **HOW)
    with runs.started(run) as missing:
        local.fill_locally(run, missing[:2])
    recorded = json.loads((folder / "out.zarr.journal" / "run.json").read_text())
    assert recorded["call"]["others"] == [str(folder / "landsat.zarr")]
    with pytest.raises(errors.ChangedError, match="was begun with other"):
        xr_cloudfree.to_zarr("cube.zarr", "out.zarr", TARGET, **HOW | {"layers": "filled"})
    changed = io.open_cube("landsat.zarr").load()
    changed.reflectance[:] = changed.reflectance + 0.01
    with pytest.raises(errors.ChangedError, match="other sensors"):
        xr_cloudfree.to_zarr("cube.zarr", "out.zarr", TARGET, others=changed, **HOW)
    done = resume("out.zarr").compute()
    whole = xr_cloudfree.to_zarr("cube.zarr", "whole.zarr", TARGET, others="landsat.zarr", **HOW).compute()
    np.testing.assert_array_equal(done.reflectance, whole.reflectance)
