"""The detector s2cloudless of Sentinel Hub: gradient-boosted trees on the spectrum of each pixel."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.levels import Level
from xr_cloudfree.masking.detectors import DetectorSpec


@dataclass(frozen=True)
class S2Cloudless:
    """Cloud probability of s2cloudless, whose trees come with its package: for ten bands of Sentinel-2 Level-1C.

    The probability is that of each pixel by itself. It knows no shadow.

    References
    ----------
    Skakun et al. 2022, Cloud Mask Intercomparison eXercise (CMIX): An evaluation of cloud masking algorithms for
    Landsat 8 and Sentinel-2, doi 10.1016/j.rse.2022.112990, where it is one of those compared.

    Examples
    --------
    >>> S2Cloudless().spec.level
    'toa'
    """

    spec = DetectorSpec(
        name="s2cloudless",
        package="s2cloudless",
        license="CC-BY-SA-4.0",
        source="https://doi.org/10.1016/j.rse.2022.112990",
        bands=tuple("coastal blue red rededge071 nir nir08 nir09 cirrus swir16 swir22".split()),
        scheme="probability",
        threshold=0.4,
        sensors=("sentinel-2",),
        level="toa",
        modules=("s2cloudless", "lightgbm", "cv2", "sentinelhub"),
        install='pip install "xr-cloudfree[s2cloudless]"',
        core=256,
        margin=0,
    )

    def detect(self, image: NDArray[np.float32], bands: tuple[str, ...], level: Level | None) -> NDArray[Any]:
        """Return the cloud probability of one image; see `Detector.detect`."""
        pixels = np.moveaxis(image, 0, -1)[np.newaxis]
        found = _trees().get_cloud_probability_maps(pixels, num_threads=1)
        return np.asarray(found[0], np.float32)


@lru_cache(maxsize=1)
def _trees() -> Any:
    from s2cloudless import S2PixelCloudDetector

    return S2PixelCloudDetector(all_bands=False)
