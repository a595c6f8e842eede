"""A package with a detector of its own, and cubes that detectors are run on."""

import importlib.util

import numpy as np
import pytest
import xarray as xr

from xr_cloudfree.masking import detectors
from xr_cloudfree.models import plugins

CORE, MARGIN, LEAST = 16, 4, 12
PACKAGE = {
    "bright/__init__.py": f'''
"""A detector whose answer depends on all pixels that it is given."""

import dataclasses

import numpy as np

from xr_cloudfree.masking.detectors import DetectorSpec

SPEC = DetectorSpec(
    name="bright",
    package="bright-pixels",
    license="MIT",
    source="https://doi.org/10.1000/1",
    bands=("red", "nir"),
    scheme="csmask",
    more_bands=("swir16",),
    core={CORE},
    margin={MARGIN},
    least={LEAST},
)


class Bright:
    """Cloud where a pixel is brighter than the mean of its tile, shadow where it is much darker."""

    spec = SPEC

    def detect(self, image, bands, level):
        assert image.dtype == np.float32 and len(bands) == len(image) and min(image.shape[1:]) >= {LEAST}
        mean = np.nan_to_num(image).mean(axis=0)
        return np.where(mean > mean.mean() * 1.6, 1, np.where(mean < mean.mean() * 0.4, 2, 0))


class Likely:
    spec = dataclasses.replace(SPEC, name="likely", scheme="probability", threshold=0.6, takes_weights=True)

    def __init__(self, weights=None):
        self.weights = weights

    def detect(self, image, bands, level):
        return np.clip(np.nan_to_num(image).max(axis=0) * (2 if self.weights else 1), 0, 1)


class Lacking(Bright):
    spec = dataclasses.replace(SPEC, name="lacking", modules=("no_such_module",), install="pip install bright-pixels")


class Failing(Bright):
    spec = dataclasses.replace(SPEC, name="failing")

    def detect(self, image, bands, level):
        raise RuntimeError("out of order")


class Cropping(Bright):
    spec = dataclasses.replace(SPEC, name="cropping")

    def detect(self, image, bands, level):
        return super().detect(image, bands, level)[1:]


def number():
    return 1
''',
    "bright_pixels-1.5.dist-info/METADATA": "Metadata-Version: 2.1\nName: bright-pixels\nVersion: 1.5\n",
    "bright_pixels-1.5.dist-info/entry_points.txt": """
[xr_cloudfree.detectors]
bright = bright:Bright
likely = bright:Likely
lacking = bright:Lacking
failing = bright:Failing
cropping = bright:Cropping
nothing = bright:SPEC
number = bright:number
""",
}


@pytest.fixture
def bright_pixels(tmp_path, monkeypatch):
    """Install the package of `PACKAGE`."""
    folder = tmp_path / "site-packages"
    for name, text in PACKAGE.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    monkeypatch.syspath_prepend(folder)
    for cached in (plugins.installed, detectors._create):
        cached.cache_clear()
    yield
    for cached in (plugins.installed, detectors._create):
        cached.cache_clear()


def needs(name):
    """Skip a test unless a detector of this package is known and its package is installed."""
    spec = getattr(importlib.import_module(f"xr_cloudfree.masking.{name}"), _CLASSES[name]).spec
    lacking = [module for module in spec.modules if importlib.util.find_spec(module) is None]
    return pytest.mark.skipif(bool(lacking), reason=f"{', '.join(lacking)} not installed: {spec.install}")


_CLASSES = {"csmask": "CSmask", "omnicloudmask": "OmniCloudMask", "s2cloudless": "S2Cloudless"}


def bright_by_hand(cube, reflectance, missing):
    """Return the layer of the detector `bright`: tile by tile, by the definition in the documentation."""
    n_times, _, ny, nx = reflectance.shape
    out = np.empty((n_times, ny, nx), np.uint8)
    for date in range(n_times):
        for y in range(0, ny, CORE):
            for x in range(0, nx, CORE):
                top, left = max(y - MARGIN, 0), max(x - MARGIN, 0)
                image = reflectance[date, :, top : min(y + CORE + MARGIN, ny), left : min(x + CORE + MARGIN, nx)]
                rows, columns = image.shape[1:]
                padding = [(0, 0), (0, max(LEAST - rows, 0)), (0, max(LEAST - columns, 0))]
                mean = np.pad(np.nan_to_num(image), padding, mode="symmetric").mean(axis=0)
                layer = np.where(mean > mean.mean() * 1.6, 1, np.where(mean < mean.mean() * 0.4, 2, 0))
                core = np.s_[y : min(y + CORE, ny), x : min(x + CORE, nx)]
                out[(date, *core)] = layer[y - top :, x - left :][: ny - y, : nx - x][:CORE, :CORE]
    out[missing] = 255
    return out


def level_1c(cube: xr.DataArray) -> xr.DataArray:
    """Return a cube with the ten bands that s2cloudless needs, made up from four of Level-2A.

    The air adds to the short waves; bands between two are their mean; only high cloud is seen in the cirrus band.
    """
    blue, red, nir = (cube.sel(band=name, drop=True) for name in ("B02", "B04", "B8A"))
    made = {
        "B01": blue + 0.05,
        "B02": blue + 0.04,
        "B04": red + 0.02,
        "B05": 0.7 * red + 0.3 * nir,
        "B08": nir,
        "B8A": nir,
        "B09": 0.4 * nir,
        "B10": 0.002 + 0 * nir,
        "B11": 0.5 * (red + nir),
        "B12": 0.6 * red + 0.2 * nir,
    }
    return xr.concat(list(made.values()), xr.Variable("band", list(made))).transpose("time", "band", "y", "x")
