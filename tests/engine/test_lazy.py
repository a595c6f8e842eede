"""The lazy graph: one task per block, with stable names, computed once."""

import dask
from dask.base import tokenize

import xr_cloudfree
from tests.support.cubes import make_cube


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
