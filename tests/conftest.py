"""Settings and fixtures of all tests."""

from __future__ import annotations

import os
import sys
from importlib.util import find_spec
from pathlib import Path

# Tests have no display.
os.environ["MPLBACKEND"] = "agg"
# Lightning 2.6 calls jsonargparse 4.53 in a deprecated way. A filter could not name the warning without the package.
os.environ["JSONARGPARSE_DEPRECATION_WARNINGS"] = "off"
if "PYTEST_XDIST_WORKER" in os.environ:
    # The workers share the processor; threads in each would only compete. NumPy and torch read this when imported.
    for variable in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
        os.environ.setdefault(variable, "1")

import hypothesis
import pytest
import xarray as xr

# The machine may be busy; a slow example is no failure. In CI every run tries the same examples.
hypothesis.settings.register_profile("default", deadline=None)
hypothesis.settings.register_profile("ci", deadline=None, derandomize=True)
hypothesis.settings.load_profile("ci" if os.environ.get("CI") else "default")

# Without torch these cannot be imported; other tests that need it skip themselves. For the doctests of the package
# there is --doctest-ignore-import-errors.
collect_ignore_glob = [] if find_spec("torch") else ["models/networks/*", "accuracy/test_losses.py", "training/*"]

DATA = Path(__file__).resolve().parents[1] / "data"


@pytest.fixture(autouse=True)
def full_precision() -> None:
    """Compute products of float32 in float32: a module of terratorch lets torch use bfloat16."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_float32_matmul_precision("highest")


@pytest.fixture
def portugal() -> xr.Dataset:
    """Return the Sentinel-2 sample in memory: 30 dates, 4 bands, 128 x 128 pixels."""
    return xr.open_zarr(DATA / "s2_portugal.zarr", decode_coords="all", chunks=None).load()


@pytest.fixture
def landsat() -> xr.Dataset:
    """Return the Landsat sample in memory: 46 dates, 6 bands, 64 x 64 pixels, with the stripes of 2003."""
    return xr.open_zarr(DATA / "landsat_pnw.zarr", decode_coords="all", chunks=None).load()
