"""The processing level of a cube: reflectance at the top of the atmosphere or at the surface, from metadata only."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np
import xarray as xr

from xr_cloudfree.compat import is_numpy

Level = Literal["toa", "surface"]

# Parts of the names of attributes and coordinates that tell the level.
_KEYS = ("level", "product", "collection", "title", "dataset", "data_type")
# Codes of products: Sentinel-2 Level-1C and -2A, Landsat Level 1 and 2, their collections in catalogues.
_WORD = r"(?<![a-z0-9])(%s)(?![a-z0-9])"
_TOA = re.compile(
    r"l-?1c|msi1c|level[-_ ]?1|c2-?l1|top[-_ ]of[-_ ](the[-_ ])?atmosphere|" + _WORD % "l1(tp|gt|gs)?|toa"
)
_SURFACE = re.compile(r"l-?2a|msi2a|level[-_ ]?2|c2-?l2|nbart|surface[-_ ]reflectance|" + _WORD % "l2(sp|sr)?|boa|sr")
# Beginnings of the names of bands, and names of layers, that one level alone has.
_TOA_NAMES = re.compile(r"toa_")
_SURFACE_NAMES = re.compile(r"(sr|boa|nbar|nbart|sur_refl)_|(scl|snw|cld|aot|wvp|oa_fmask)$")
# Families whose known products are surface reflectance, see `sensors.SENSORS`.
_SURFACE_SENSORS = ("hls", "modis")


def processing_level(
    obj: xr.DataArray | xr.Dataset, names: Sequence[str], sensor: str | None, common_names: Sequence[str | None] = ()
) -> Level | None:
    """Return the processing level of a cube, None if metadata leave it open or contradict each other.

    Attributes and coordinates in memory take precedence, then the names of bands and layers. Sentinel-2's band for
    cirrus exists in Level-1C only.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube.
    names : sequence of str
        Names of its bands and layers.
    sensor : str or None
        The sensor's family, see `sensors.Sensor`.
    common_names : sequence of (str or None)
        STAC common names of its bands.

    Examples
    --------
    >>> cube = xr.DataArray(np.zeros((1, 2, 2)), dims=("time", "y", "x"), attrs={"processing:level": "L1C"})
    >>> processing_level(cube, ["B04"], "sentinel-2"), processing_level(cube.drop_attrs(), ["B04"], "sentinel-2")
    ('toa', None)
    """
    if (told := _told(" ".join(_texts(obj)).lower(), _TOA, _SURFACE)) is not None:
        return told
    words = [name.lower() for name in names]
    toa, surface = (any(map(pattern.match, words)) for pattern in (_TOA_NAMES, _SURFACE_NAMES))
    if toa != surface:
        return "toa" if toa else "surface"
    if sensor in _SURFACE_SENSORS:
        return "surface"
    return "toa" if sensor == "sentinel-2" and "cirrus" in common_names and not surface else None


def _told(text: str, toa: re.Pattern[str], surface: re.Pattern[str]) -> Level | None:
    found = bool(toa.search(text)), bool(surface.search(text))
    return None if found[0] == found[1] else "toa" if found[0] else "surface"


def _texts(obj: xr.DataArray | xr.Dataset) -> Iterator[str]:
    """Yield the attributes and the coordinates in memory that may tell the level."""
    arrays = [obj, *obj.data_vars.values()] if isinstance(obj, xr.Dataset) else [obj]
    for array in arrays:
        for key, value in array.attrs.items():
            if _tells(key) and isinstance(value, str | list | tuple):
                yield str(value)[:500]
    for name, coord in obj.coords.items():
        if _tells(name) and is_numpy(coord.variable) and coord.ndim <= 1 and coord.dtype.kind in "OUST":
            yield from sorted({str(value)[:200] for value in np.atleast_1d(coord.to_numpy()).tolist()})


def _tells(key: object) -> bool:
    return any(word in str(key).lower() for word in _KEYS)
