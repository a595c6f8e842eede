"""One answer: whatever the chunks, the block size, the scheduler and the order of the dates."""

import dask
import numpy as np
import pytest
import xarray as xr
from dask.base import tokenize
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xr_cloudfree
from tests.support.cubes import CLASSICAL, SIZES, make_cube, nearly_same
from tests.support.models import LEARNED, MODELS, Greedy, TileWide, model_of
from tests.support.strategies import chunkings
from xr_cloudfree.engine import parameters


def same(a, b, model=None):
    if model in LEARNED:
        nearly_same(a, b)
        return
    xr.testing.assert_identical(a, b)
    if isinstance(a, xr.Dataset):
        assert all(a[name].dtype == b[name].dtype for name in a.variables)


@pytest.mark.parametrize("dtype", ["float32", "uint16"])
@pytest.mark.parametrize("model", [*MODELS, *CLASSICAL, *LEARNED])
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(chunks=chunkings(), mask_chunks=chunkings(), target=st.sampled_from(["2021-06-03", "2021-06-15"]))
def test_eager_is_lazy_under_any_chunking(model, dtype, chunks, mask_chunks, target):
    da, clear = make_cube(dtype=dtype)
    mask_chunks.pop("band")
    how = dict(model=model_of(model), layers="all", nodata=0 if dtype == "uint16" else None)
    eager = xr_cloudfree.fill(da, target, clear=clear, **how)
    lazy = xr_cloudfree.fill(da.chunk(chunks), target, clear=clear.chunk(mask_chunks), **how)
    assert all(variable.chunks is not None for variable in lazy.data_vars.values())
    same(eager, lazy.compute(scheduler="synchronous"), model)


@pytest.mark.parametrize("model", [*MODELS, *CLASSICAL, *LEARNED])
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
@given(by=st.integers(1, 5), bx=st.integers(1, 5))
def test_block_size_changes_nothing(model, by, bx):
    da, clear = make_cube()
    made = model_of(model)
    stride = xr_cloudfree.models.registry.create(made).spec.stride or 13
    whole = xr_cloudfree.fill(da, "2021-06-03", clear=clear, model=made, layers="all")
    cut = xr_cloudfree.fill(da, "2021-06-03", clear=clear, model=made, layers="all", block=(by * stride, bx * stride))
    same(whole, cut, model)


@pytest.mark.parametrize("model", [*CLASSICAL, *LEARNED])
@settings(max_examples=4, deadline=None, suppress_health_check=list(HealthCheck))
@given(order=st.permutations(range(SIZES["time"])))
def test_order_of_dates_changes_nothing(model, order):
    da, clear = make_cube()
    how = dict(model=model_of(model), layers="filled")
    straight = xr_cloudfree.fill(da, None, clear=clear, **how)
    shuffled = xr_cloudfree.fill(da.isel(time=order), None, clear=clear.isel(time=order), **how)
    same(straight, shuffled, model)


@pytest.mark.parametrize("scheduler", ["synchronous", "threads", "processes"])
def test_scheduler_changes_nothing(scheduler):
    da, clear = make_cube()
    eager = xr_cloudfree.fill(da, "2021-06-03", clear=clear, model="regress", layers="all")
    lazy = xr_cloudfree.fill(da.chunk(y=20, x=20), "2021-06-03", clear=clear, model="regress", layers="all", block=128)
    same(eager, lazy.compute(scheduler=scheduler, num_workers=2))


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


@pytest.mark.parametrize("model", LEARNED)
@pytest.mark.parametrize("workers", [1, 4])
def test_threads_share_one_network_and_change_nothing(model, workers):
    da, clear = make_cube()
    made = model_of(model)
    how = dict(model=made, layers="all", block=made.spec.stride)
    eager = xr_cloudfree.fill(da, None, clear=clear, **how)
    lazy = xr_cloudfree.fill(da.chunk(time=2, y=20, x=20), None, clear=clear, **how)
    same(eager, lazy.compute(scheduler="threads", num_workers=workers), model)


@pytest.mark.slow
def test_a_learned_model_on_workers_that_are_threads():
    distributed = pytest.importorskip("distributed")
    da, clear = make_cube()
    how = dict(model=model_of("learned"), layers="all", block=16)
    eager = xr_cloudfree.fill(da, None, clear=clear, **how)
    lazy = xr_cloudfree.fill(da.chunk(y=20, x=20), None, clear=clear, **how)
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=2, processes=False, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        same(eager, lazy.compute(), "learned")


@pytest.mark.slow
def test_distributed_changes_nothing():
    distributed = pytest.importorskip("distributed")
    da, clear = make_cube()
    eager = xr_cloudfree.fill(da, None, clear=clear, model="regress", layers="all")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None) as cluster,
        distributed.Client(cluster),
    ):
        same(
            eager,
            xr_cloudfree.fill(da.chunk(time=2, y=20, x=20), clear=clear, model="regress", layers="all").compute(),
        )


def test_nothing_is_computed_when_built_and_once_when_computed():
    da, clear = make_cube()
    runs = []

    def scheduler(graph, keys, **kwargs):
        runs.append(1)
        return dask.get(graph, keys, **kwargs)

    with dask.config.set(scheduler=scheduler):
        out = xr_cloudfree.fill(da.chunk(y=20, time=3), "2021-06-03", clear=clear.chunk(y=7), layers="all")
        repr(out), out.cloudfree, repr(da.chunk().cloudfree), repr(da.chunk().to_dataset().cloudfree)
        assert not runs
        out.compute()
        assert len(runs) == 1


def test_task_names_are_the_same_when_built_again():
    da, clear = (a.chunk(y=20) for a in make_cube())

    def build(**how):
        return xr_cloudfree.fill(da, "2021-06-03", clear=clear, **how)

    assert build().data.name == build().data.name
    assert tokenize(build()) == tokenize(build())
    assert build().data.name != build(model="median").data.name
    assert build().data.name != build(dilate=1).data.name
    assert build().data.name != build(window=30).data.name


def test_one_task_per_block():
    da, clear = (a.chunk(time=1, y=10, x=10) for a in make_cube())
    da = da.drop_vars("platform")  # xarray chunks such a coordinate too, which adds a task of its own
    out = xr_cloudfree.fill(da, "2021-06-03", clear=clear, model="linear", block=20)
    assert out.data.npartitions == 3 * 4
    graph = out.__dask_graph__()
    assert len(graph.layers) == 3 and len(graph.layers[out.data.name]) == 12


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
