"""The detector CSmask of the German Aerospace Center: a convolutional network for cloud and shadow."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.levels import Level
from xr_cloudfree.masking.detectors import DetectorSpec


@dataclass(frozen=True)
class CSmask:
    """UKIS CSmask, whose networks come with its package: for Sentinel-2 and Landsat, at either processing level.

    With the two short-wave infrared bands it runs the network of six bands, else that of four. Where the processing
    level is not known, the network for surface reflectance is used.

    References
    ----------
    Wieland et al. 2019, Multi-sensor cloud and cloud shadow segmentation with a convolutional neural network,
    doi 10.1016/j.rse.2019.05.022.

    Examples
    --------
    >>> CSmask().spec.more_bands
    ('swir16', 'swir22')
    """

    # The package divides an image into tiles of 256 pixels. 512 + 2 * 100 pixels are the most that four by four of
    # them cover, so that none is wasted.
    spec = DetectorSpec(
        name="csmask",
        package="ukis-csmask",
        license="Apache-2.0",
        source="https://doi.org/10.1016/j.rse.2019.05.022",
        bands=("blue", "green", "red", "nir"),
        more_bands=("swir16", "swir22"),
        scheme="csmask",
        sensors=("sentinel-2", "landsat", "hls"),
        modules=("ukis_csmask", "onnxruntime"),
        install='pip install "xr-cloudfree[csmask]"',
        core=512,
        margin=100,
        least=256,
        memory=512 * 2**20,
    )

    def detect(self, image: NDArray[np.float32], bands: tuple[str, ...], level: Level | None) -> NDArray[Any]:
        """Return the classes of one image; see `Detector.detect`."""
        from ukis_csmask.mask import CSmask as Network

        # One thread: tasks run beside each other already, and the sums do not depend on the number of cores.
        found = Network(
            np.ascontiguousarray(np.moveaxis(np.nan_to_num(image), 0, -1)),
            list(bands),
            product_level="l1c" if level == "toa" else "l2a",
            invalid_buffer=1,  # for a layer that is not used
            intra_op_num_threads=1,
            inter_op_num_threads=1,
            providers=["CPUExecutionProvider"],
        )
        return np.asarray(found.csm[..., 0])
