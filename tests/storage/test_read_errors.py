"""Files that cannot be read are errors that name the file, the variable and the chunk."""

import numpy as np
import pytest
import xarray as xr

from xr_cloudfree import compat, errors
from xr_cloudfree.storage.read_errors import Guarded, guard_opened, guarded, opening


@pytest.fixture
def store(tmp_path):
    path = tmp_path / "cube.zarr"
    values = np.random.default_rng(0).integers(0, 1000, (2, 8, 8))
    xr.Dataset({"B04": (("time", "y", "x"), values)}).to_zarr(
        path, zarr_format=3, consolidated=False, encoding={"B04": {"chunks": (1, 4, 4)}}
    )
    return path


@pytest.mark.parametrize("chunks", [None, {}])
def test_the_damaged_chunk_is_named(store, chunks):
    (store / "B04/c/1/0/1").write_bytes(b"no chunk")
    opened = xr.open_zarr(store, chunks=chunks, consolidated=False)
    array = guard_opened(opened)["B04"] if chunks is not None else opened["B04"]
    if chunks is None:
        array = array.copy(data=guarded(compat.raw_data(array.variable)))
    assert array.isel(time=0).values.shape == (8, 8)
    with pytest.raises(errors.InputError, match=rf"B04 in {store} cannot be read, at chunk c/1/0/1") as caught:
        array.values  # noqa: B018
    assert str(store / "B04/c/1/0/1") in caught.value.remedy and isinstance(caught.value, OSError)


def test_what_is_in_memory_is_not_guarded(store):
    values = np.zeros(3)
    assert guarded(values) is values
    data = compat.raw_data(xr.open_zarr(store, chunks=None, consolidated=False)["B04"].variable)
    once = guarded(data)
    assert once is not data and guarded(once) is once


def test_errors_of_other_kinds_pass(store):
    class Array:
        dtype, shape = np.dtype("u1"), (1,)

        def __init__(self, error):
            self.error = error

        def __getitem__(self, key):
            raise self.error

    for error in (MemoryError(), errors.ModelError("a", "b", "c")):
        with pytest.raises(type(error)):
            Guarded(Array(error))[0]


def test_a_store_that_cannot_be_opened(store):
    with pytest.raises(errors.InputError, match="cannot be opened: KeyError: 'nothing'") as caught, opening(store):
        raise KeyError("nothing")
    assert f"copy {store} again" in caught.value.remedy
    with pytest.raises(MemoryError), opening(store):
        raise MemoryError
    with pytest.raises(errors.OptionError), opening(store):
        raise errors.OptionError("a", "b", "c")
    with pytest.raises(errors.InputError, match="cannot be opened: ValueError"), opening(store):
        raise ValueError
