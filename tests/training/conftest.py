"""Fixtures of the tests of training."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from xr_cloudfree import synthetic


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Use one thread: small networks gain nothing from more."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Make an empty folder the current one, and clear the command line, which Lightning reads."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "argv", ["cloudfree"])
    return tmp_path


@pytest.fixture
def cube(folder: Path) -> str:
    """Write a synthetic cube into the current folder and return its path."""
    ds = synthetic.cube(shape=(10, 4, 48, 80), seed=0, cloud_share=0.3)
    ds.assign_coords(band=ds["band"].astype(object)).to_zarr("field.zarr", consolidated=False)
    return "field.zarr"
