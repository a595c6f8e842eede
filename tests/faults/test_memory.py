"""Memory: of a region compared with its plan, of a cube that was only opened, and of workers that run out of it."""

import os
import subprocess
import sys
import textwrap

import numpy as np
import pytest
import xarray as xr

import xr_cloudfree
from tests.support import runs
from tests.support.work import Hungry
from xr_cloudfree import errors, io, synthetic
from xr_cloudfree.cli import commands
from xr_cloudfree.runner import plan
from xr_cloudfree.runner import runs as runner

pytestmark = pytest.mark.xdist_group("clusters")


def measure(code, **values):
    """MiB by which a piece of code goes beyond what a process held in which all is imported and compiled."""
    code = f"""
        import ctypes, resource, xarray as xr, xr_cloudfree
        from xr_cloudfree import synthetic
        from xr_cloudfree.runner import regions, runs
        # Not ru_maxrss: a process inherits that of the one that started it.
        peak = lambda: int(open("/proc/self/status").read().split("VmHWM:")[1].split()[0]) / 1024
        for model in ("linear", "regress"):
            synthetic.cube((4, 3, 64, 64), seed=1).cloudfree.fill("2023-04-11", model=model)
        values = {values!r}
        ctypes.CDLL(None).malloc_trim(0)
        held = int(open("/proc/self/statm").read().split()[1]) * resource.getpagesize() / 2**20
        {code}
        print(peak() - held)
    """
    # Clusters of other tests leave what they tell their workers: how much memory to keep, how many threads to use.
    env = {
        key: value for key, value in os.environ.items() if not key.startswith("MALLOC_") and "NUM_THREADS" not in key
    }
    command = [sys.executable, "-c", textwrap.dedent(code)]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    assert done.returncode == 0, done.stderr
    return float(done.stdout.split()[-1])


@pytest.fixture(scope="module")
def packed(tmp_path_factory):
    """A packed cube, as xarray decodes it to float64."""
    path = tmp_path_factory.mktemp("packed") / "cube.zarr"
    made = io.for_zarr(synthetic.cube(shape=(10, 4, 1024, 1024), seed=1, chunks=256))
    made.to_zarr(path, zarr_format=3, consolidated=False)
    return path


FILL = """
        run = runs.prepare(values["cube"], values["out"], "2023-05-11", model=values["model"], shard=values["shard"])
        which = next(i for i in range(run.plan.n_regions) if run.plan.box(i) == run.plan.largest)
        with runs.started(run):
            regions.fill_region(run.plan, run.path, which)"""


@pytest.mark.slow
@pytest.mark.parametrize(("model", "shard"), [("linear", 512), ("linear", 1024), ("regress", 320), ("regress", 640)])
def test_a_region_takes_what_its_plan_says(packed, tmp_path, model, shard):
    told = runner.prepare(packed, tmp_path / "a.zarr", "2023-05-11", model=model, shard=shard).plan.memory / 2**20
    values = {"cube": str(packed), "out": str(tmp_path / "a.zarr"), "model": model, "shard": shard}
    taken = measure(FILL.strip(), **values)
    assert taken < told < 1.3 * taken + 32, (taken, told)


def test_a_cube_that_was_only_opened_is_not_read_as_a_whole(packed):
    code = """
        ds = xr.open_zarr(values["cube"], decode_coords="all", consolidated=False, chunks=None)
        ds.cloudfree.fill("2023-05-11", model="linear", repair=False)""".strip()
    whole = 10 * 4 * 1024**2 * 8 / 2**20
    # A region as it is stored and a block at work; decoded as a whole and copied it would be more than twice as much.
    assert measure(code, cube=str(packed)) < 1.4 * whole


@pytest.mark.parametrize("model", ["linear", "regress"])
@pytest.mark.parametrize("opened", ["decoded", "as stored"])
def test_how_a_cube_is_opened_changes_no_bit(tmp_path, monkeypatch, model, opened):
    path = tmp_path / "cube.zarr"
    made = io.for_zarr(synthetic.cube(shape=(6, 2, 340, 350), seed=3, chunks=64))
    made.to_zarr(path, zarr_format=3, consolidated=False)
    how = {"decode_coords": "all", "consolidated": False, "mask_and_scale": opened == "decoded"}
    wanted = {"date": "2023-05-11", "model": model, "layers": "all", "block": 320}
    lazy = xr.open_zarr(path, **how)
    monkeypatch.setattr(plan, "REGION_BYTES", 2**19)  # several regions
    opened = xr.open_zarr(path, **how, chunks=None)
    memory = xr_cloudfree.fill(lazy.load().copy(deep=True), **wanted)
    assert memory.identical(xr_cloudfree.fill(opened, **wanted))
    assert memory.identical(xr_cloudfree.fill(xr.open_zarr(path, **how), **wanted).compute())
    turned = xr_cloudfree.fill(opened.transpose("x", "y", ...), **wanted)
    assert memory.transpose("band", "y", "x").equals(turned.transpose("band", "y", "x"))
    clear = xr_cloudfree.clear_mask(xr.open_zarr(path, **how, chunks=None))
    assert np.array_equal(clear, xr_cloudfree.clear_mask(lazy))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_worker_that_dies_of_memory_is_told_with_a_shard_that_works(cube, tmp_path):
    pytest.importorskip("distributed")
    import dask

    from tests.support.clusters import cluster

    given = {"date": runs.HOW["date"], "model": Hungry(0), "progress": False, "retries": 0}
    with (
        dask.config.set({"distributed.scheduler.allowed-failures": 0}),
        cluster(workers=1, memory_limit="700MB") as client,
    ):
        with pytest.raises(errors.RunError, match=r"memory: a region of 96 x 96 pixels takes about \d+ MiB") as info:
            xr_cloudfree.batch(cube, tmp_path / "a.zarr", shard=96, client=client, **given)
        typed = info.value.remedy.spell(commands.flag)
        assert typed.startswith("--shard 32 --overwrite")
        shard = int(typed.split()[1])
        xr_cloudfree.batch(cube, tmp_path / "a.zarr", shard=shard, overwrite=True, client=client, **given)
