"""The program: its help, its version, and what it imports."""

from __future__ import annotations

import subprocess
import sys
import time

import pytest

import xr_cloudfree
from tests.support.commands import run


@pytest.mark.parametrize("command", [(), ("fill",), ("evaluate",), ("info",), ("models",)])
def test_help_is_there(command) -> None:
    output = run(*command, "--help")
    assert "Usage" in output
    if command in (("fill",), ("evaluate",), ("info",)):
        assert f"cloudfree {command[0]} " in output.split("Examples")[1]


def test_version() -> None:
    assert run("--version") == f"cloudfree {xr_cloudfree.__version__}\n"


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; sys.argv = ['cloudfree', '--help']\n"
        "from xr_cloudfree.cli.app import app\n"
        "try: app()\n"
        "except SystemExit: pass\n"
        "heavy = ('matplotlib', 'rasterio', 'numba', 'scipy', 'torch', 'dask.array')\n"
        "print([m for m in heavy if m in sys.modules])"
    )
    start = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.rstrip().endswith("[]"), done.stdout
    # Half a second where nothing else runs; far more would be felt.
    assert time.perf_counter() - start < 10


@pytest.mark.parametrize("module", ["xr_cloudfree", "xr_cloudfree.cli"])
def test_the_program_is_a_module_as_well(module) -> None:
    done = subprocess.run([sys.executable, "-m", module, "fill", "--help"], capture_output=True, text=True, check=True)
    assert "Usage: cloudfree fill" in done.stdout
    refused = subprocess.run([sys.executable, "-m", module, "info", "absent.zarr"], capture_output=True, text=True)
    assert refused.returncode == 2 and "there is nothing at" in refused.stderr
