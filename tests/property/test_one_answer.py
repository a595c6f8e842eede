"""The result does not depend on chunks, block size, dask's scheduler or the order of the dates."""

import pytest
import xarray as xr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import xr_cloudfree
from tests.support.cubes import CLASSICAL, SIZES, make_cube, nearly_same
from tests.support.models import LEARNED, MODELS, model_of
from tests.support.strategies import chunkings


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
    lazy = xr_cloudfree.fill(da.chunk(y=20, x=20), "2021-06-03", clear=clear, model="regress", layers="all", block=320)
    same(eager, lazy.compute(scheduler=scheduler, num_workers=2))


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
        distributed.LocalCluster(n_workers=2, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
    ):
        same(eager, lazy.compute(), "learned")


@pytest.mark.slow
def test_distributed_changes_nothing():
    distributed = pytest.importorskip("distributed")
    da, clear = make_cube()
    eager = xr_cloudfree.fill(da, None, clear=clear, model="regress", layers="all")
    with (
        distributed.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        distributed.Client(cluster),
    ):
        same(
            eager,
            xr_cloudfree.fill(da.chunk(time=2, y=20, x=20), clear=clear, model="regress", layers="all").compute(),
        )
