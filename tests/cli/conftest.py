"""The cube that the commands are tried on."""

from __future__ import annotations

import pytest

from tests.support.cubes import as_dataset, make_cube


@pytest.fixture
def cube(tmp_path, monkeypatch) -> str:
    """A cube of float32 reflectance with SCL, in a Zarr store of several chunks, in the current folder."""
    monkeypatch.chdir(tmp_path)
    ds = as_dataset(*make_cube()).drop_vars("platform").chunk({"y": 32, "x": 32})
    ds.to_zarr("cube.zarr", zarr_format=3, consolidated=False)
    return "cube.zarr"
