"""What all tests share."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import hypothesis
import pytest
import xarray as xr

# Before anything imports matplotlib: tests have no display.
os.environ["MPLBACKEND"] = "agg"

# The machine may be busy; a slow example is no failure. In CI every run tries the same examples.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture(autouse=True)
def full_precision() -> None:
    """Products of float32 in float32, whatever was imported: a module of terratorch lets torch use bfloat16."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_float32_matmul_precision("highest")


@pytest.fixture
def portugal() -> xr.Dataset:
    """The Sentinel-2 sample in memory: 30 dates, 4 bands, 128 x 128 pixels."""
    return xr.open_zarr(DATA / "s2_portugal.zarr", decode_coords="all", chunks=None).load()


@pytest.fixture
def landsat() -> xr.Dataset:
    """The Landsat sample in memory: 46 dates, 6 bands, 64 x 64 pixels, with the stripes of 2003."""
    return xr.open_zarr(DATA / "landsat_pnw.zarr", decode_coords="all", chunks=None).load()
