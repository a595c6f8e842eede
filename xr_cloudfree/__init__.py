"""Cloud-free satellite images of any target date, from xarray time series.

Importing it registers the accessor ``.cloudfree`` on DataArray and Dataset.
"""

from xr_cloudfree.accessor import CloudfreeDataArray, CloudfreeDataset
from xr_cloudfree.accuracy.evaluate import evaluate
from xr_cloudfree.api import clear_mask, fill, list_models
from xr_cloudfree.loading.eopf import open_eopf
from xr_cloudfree.loading.load import load
from xr_cloudfree.loading.progress import ReadingProgress
from xr_cloudfree.models.pretrained.locations import from_pretrained
from xr_cloudfree.models.registry import create as create_model
from xr_cloudfree.runner.verify import repair, verify
from xr_cloudfree.sharpening.sharpen import sharpen
from xr_cloudfree.stores import batch, to_zarr
from xr_cloudfree.version import __version__

__all__ = [
    "CloudfreeDataArray",
    "CloudfreeDataset",
    "ReadingProgress",
    "__version__",
    "batch",
    "clear_mask",
    "create_model",
    "evaluate",
    "fill",
    "from_pretrained",
    "list_models",
    "load",
    "open_eopf",
    "repair",
    "sharpen",
    "to_zarr",
    "verify",
]
