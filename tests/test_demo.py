"""The demo runs and writes the files that it lists."""

from __future__ import annotations

import runpy
from pathlib import Path

import numpy as np
import pytest
import rasterio
import xarray as xr

ROOT = Path(__file__).resolve().parents[1]


@pytest.mark.slow
def test_demo_writes_what_it_says(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(ROOT / "examples" / "demo.py"))["main"](tmp_path)
    said = capsys.readouterr().out
    assert "filled.tif" in said and "regress" in said

    source = xr.open_zarr(ROOT / "data" / "s2_portugal.zarr", decode_coords="all").sel(time="2021-07-23").load()
    with rasterio.open(tmp_path / "filled.tif") as file:
        assert file.crs.to_epsg() == 4326
        image = file.read()
    clear = (source["cloud_mask"] == 0).values
    assert np.isfinite(image).all()
    np.testing.assert_array_equal(image[:, clear], source["reflectance"].values.astype("float32")[:, clear])

    both = xr.open_zarr(tmp_path / "filled.zarr", decode_coords="all")
    assert both.sizes["time"] == 2
    assert bool((both["filled"].isel(time=1) == 2).all())
    assert (tmp_path / "before_after.png").stat().st_size > 10_000
