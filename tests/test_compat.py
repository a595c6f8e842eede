"""Access to private parts of xarray, dask and zarr, as installed."""

import numpy as np
import pytest
import xarray as xr

from xr_cloudfree import compat


@pytest.fixture
def packed(tmp_path):
    """A store with packed values, and the values it decodes to."""
    values = xr.DataArray(np.arange(12, dtype="int16").reshape(3, 4), dims=("y", "x"), coords={"x": np.arange(4)})
    values.attrs = {"scale_factor": 0.1, "_FillValue": np.int16(5)}
    values.to_dataset(name="band").to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    return tmp_path / "a.zarr"


def open_band(path, **chunks):
    return xr.open_zarr(path, consolidated=False, **chunks).band


def test_values_in_memory(packed):
    lazy = open_band(packed, chunks=None)
    assert not compat.is_numpy(lazy.variable) and not compat.is_in_memory(lazy)
    assert compat.is_numpy(lazy.load().variable) and compat.is_in_memory(lazy)
    assert compat.is_in_memory(lazy.x) and not compat.is_numpy(lazy.x.variable)


def test_stored_values_and_how_they_are_decoded(packed):
    lazy = open_band(packed, chunks=None)
    layers = list(compat.lazy_layers(compat.raw_data(lazy.variable)))
    assert [array.path for array in map(compat.zarr_array, layers) if array is not None] == ["band"]
    stored, steps = compat.split_decoding(layers[0])
    values = np.asarray(stored.get_duck_array())
    assert values.dtype == "int16" and steps
    for step in steps:
        values = step(values)
    np.testing.assert_array_equal(values, lazy.values)


def test_transposed_and_sliced_arrays(packed):
    lazy = open_band(packed, chunks=None)
    assert not compat.is_transposed(compat.raw_data(lazy.variable))
    assert compat.is_transposed(compat.raw_data(lazy.T.variable))
    indices = [compat.index_of(layer) for layer in compat.lazy_layers(compat.raw_data(lazy[1:, ::2].variable))]
    assert (slice(1, 3, 1), slice(0, 4, 2)) in indices


def test_what_a_graph_was_opened_from(packed):
    chunked = open_band(packed, chunks={})
    opened = compat.opened_array(chunked.data)
    assert opened.shape == chunked.shape and list(compat.opened_adapters(chunked.data))
    assert compat.opened_array((chunked + 1).data) is None
    assert any(hasattr(source, "get_duck_array") for source in compat.graph_inputs((chunked + 1).data))


def test_stores(packed):
    import zarr
    from zarr.storage import LoggingStore, MemoryStore

    inner = MemoryStore()
    assert compat.unwrap_store(LoggingStore(inner)) is inner
    array = zarr.create_array(inner, name="a", shape=(4,), chunks=(2,), dtype="u1", fill_value=0)
    array[:] = 0
    assert not any("c/" in key for key in compat.memory_contents(inner))
    compat.write_empty_chunks(array)[:] = 0
    assert [key for key in compat.memory_contents(inner) if "c/" in key] == ["a/c/0", "a/c/1"]
