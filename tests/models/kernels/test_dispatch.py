"""Access to the kernels: what is answered without iteration, and when numba is loaded."""

from __future__ import annotations

import subprocess
import sys

import numpy as np

from xr_cloudfree.models.kernels import dispatch as kernels


def test_geomedian_of_one_band_is_the_median() -> None:
    rng = np.random.default_rng(4)
    bands, clear = rng.integers(0, 12000, (17, 1, 200)).astype(np.uint16), rng.random((17, 200)) < 0.5
    np.testing.assert_array_equal(kernels.geomedian(bands, clear), kernels.median(bands, clear))


def test_numba_is_imported_on_first_use_only() -> None:
    code = "import sys, xr_cloudfree, xr_cloudfree.models.classical.pixelwise; sys.exit('numba' in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
