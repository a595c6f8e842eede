"""The detector OmniCloudMask: an ensemble of convolutional networks for cloud and shadow, of any sensor."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.levels import Level
from xr_cloudfree.errors import WeightsError, either, option
from xr_cloudfree.masking.detectors import DetectorSpec

# The package downloads and loads its networks in the first call, and torch uses all cores in each.
_LOCK = threading.Lock()
# Patches of the package, and what they overlap.
_PATCH, _OVERLAP = 1000, 300


@dataclass(frozen=True)
class OmniCloudMask:
    """OmniCloudMask, for red, green and near infrared of any sensor with pixels of 10 to 50 m, at either level.

    Its package downloads the weights when they are first needed, unless it finds them: in its own folder, or in the
    one that is given.

    Parameters
    ----------
    weights : str, optional
        The folder with the weights, under the names that the package gives them.

    References
    ----------
    Wright et al. 2025, Training sensor-agnostic deep learning models for remote sensing: Achieving state-of-the-art
    cloud and cloud shadow identification with OmniCloudMask, doi 10.1016/j.rse.2025.114694.

    Examples
    --------
    >>> OmniCloudMask().spec.bands
    ('red', 'green', 'nir')
    """

    weights: str | None = None

    spec = DetectorSpec(
        name="omnicloudmask",
        package="omnicloudmask",
        license="MIT",
        source="https://doi.org/10.1016/j.rse.2025.114694",
        bands=("red", "green", "nir"),
        scheme="cloudsen12",
        modules=("omnicloudmask", "torch"),
        install='pip install "xr-cloudfree[omnicloudmask]"',
        takes_weights=True,
        core=512,
        margin=128,
        least=64,
        memory=1280 * 2**20,
    )

    def detect(self, image: NDArray[np.float32], bands: tuple[str, ...], level: Level | None) -> NDArray[Any]:
        """Return the classes of one image; see `Detector.detect`."""
        from omnicloudmask import predict_from_array

        patch = min(_PATCH, *image.shape[1:])
        with _LOCK:
            self._load()
            found = predict_from_array(
                np.nan_to_num(image),
                patch_size=patch,
                patch_overlap=min(_OVERLAP, patch // 2),
                destination_model_dir=self.weights,
            )
        return np.asarray(found[0], np.uint8)

    def _load(self) -> None:
        """Raise if the package neither has its weights nor can download them."""
        from omnicloudmask.download_models import get_models

        try:
            get_models(model_dir=self.weights)
        except Exception as error:  # whatever the libraries for downloads raise
            place = "its own folder" if self.weights is None else self.weights
            cause = error.__cause__ or error
            why = str(cause).strip().splitlines() or [type(cause).__name__]
            raise WeightsError(
                f"the weights of omnicloudmask are not in {place}, and cannot be downloaded: {why[0].rstrip('.')}",
                "the files of https://huggingface.co/NickWright/OmniCloudMask in a folder, or access to it",
                either(
                    option("mask='omnicloudmask:FOLDER'"), option("mask=None") + " for the cube's own quality layer"
                ),
            ) from error
