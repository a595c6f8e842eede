"""Quality layers, how they are resolved, and the states that decoding gives."""

import numpy as np
import xarray as xr

from xr_cloudfree.cube.masks import decode
from xr_cloudfree.cube.quality import resolve_mask
from xr_cloudfree.options import ReadOptions

TIMES = np.array(["2023-05-01T10:00", "2023-05-06T10:00", "2023-05-11T10:00"], "datetime64[ns]")


def layer(values=None, name="SCL", *, ny=4, nx=6, step=10.0, y0=4000.0, x0=500.0, dtype=np.uint8, **attrs):
    """A layer whose first pixel's outer corner lies at (y0, x0)."""
    values = np.full((3, ny, nx), 4, dtype) if values is None else values
    coords = {
        "time": TIMES,
        "y": y0 - step * (np.arange(ny) + 0.5),
        "x": x0 + step * (np.arange(nx) + 0.5),
    }
    return xr.DataArray(values, dims=("time", "y", "x"), coords=coords, name=name, attrs=attrs)


TEMPLATE = layer(dtype=np.uint16, name="B02")
CLOUD_MASK = {
    "flag_values": np.arange(5, dtype=np.uint8),
    "flag_meanings": "clear cloud cloud_shadow snow nodata_or_other",
}


def resolve(*layers, template=TEMPLATE, **options):
    reading, others = ReadOptions.split(options)
    return resolve_mask({str(one.name): one for one in layers}, reading, template=template, **others)


def states(values, rule, dtype):
    """One letter per value: c clear, s snow and clear, x not clear, n snow and not clear, m missing."""
    found = decode(np.asarray(values, dtype), rule)
    letters = []
    for clear, snow, missing in zip(*found, strict=True):
        assert not (missing and (clear or snow))
        letters.append("m" if missing else {(1, 0): "c", (1, 1): "s", (0, 1): "n", (0, 0): "x"}[clear, snow])
    return "".join(letters)
