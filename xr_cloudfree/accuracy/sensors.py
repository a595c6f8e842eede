"""Compare two sensors on the user's own cubes: published coefficients, and what pairs of their images show."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree import api
from xr_cloudfree.cube.footprint import Footprint
from xr_cloudfree.cube.other_sensors import SAME
from xr_cloudfree.cube.scaling import to_reflectance
from xr_cloudfree.engine.grid import Box, middle
from xr_cloudfree.errors import TimeError, option
from xr_cloudfree.inputs import open_others
from xr_cloudfree.models.classical.sensor_lines import fit_line
from xr_cloudfree.options import parse_count
from xr_cloudfree.plan import CubeInfo, read, read_others

_LEAST_PIXELS = 16  # of a pair


def compare_sensors(obj: xr.DataArray | xr.Dataset, other: Any, *, size: int = 512) -> pd.DataFrame:
    """Compare the bands of a coarser sensor with those of a cube, on images of both within a day of each other.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube, as `fill` takes it.
    other : DataArray, Dataset, str or path
        The other sensor's cube, as in ``fill(others=)``.
    size : int
        Edge, in pixels of the cube, of the part in its middle that is compared.

    Returns
    -------
    DataFrame
        A row for each band that both have. ``published_slope`` and ``published_offset`` turn the other sensor's
        reflectance into the cube's by the coefficients of HLS; 1 and 0 where there are none. ``slope`` and ``offset``
        do so by a robust line through the pairs, drawn towards the published one as far as the pairs disagree. `fill`
        finds them in the same way for each tile. ``rmse`` is what remains, in reflectance; ``pairs`` and ``pixels``
        are the numbers of pairs of images and of coarse pixels.

    Raises
    ------
    TimeError
        If no two images are within a day of each other, and clear in pixels of both.
    GridError, BandError, MaskError, DimensionError, ScalingError
        As in `fill`.

    References
    ----------
    Claverie et al. 2018, The Harmonized Landsat and Sentinel-2 surface reflectance data set,
    doi 10.1016/j.rse.2018.09.002.

    Examples
    --------
    >>> import xr_cloudfree
    >>> from xr_cloudfree import synthetic
    >>> cube = synthetic.cube(shape=(12, 4, 96, 96), seed=1, dtype="float32")
    >>> seen = synthetic.coarser(cube.reflectance, cube.cloudfree.clear_mask(), slope=0.95, noise=0.001)
    >>> table = xr_cloudfree.compare_sensors(cube, seen)
    >>> abs(1 / float(table.slope["nir"]) - 0.95) < 0.02
    True
    """
    parse_count("size", size, 16, option("size=512"))
    info = read(obj)
    cube = info.cube
    [theirs], [sensor] = read_others(open_others([other]), cube)
    away = np.abs(theirs.times[:, None] - info.times) / np.timedelta64(1, "D")
    box = middle(cube.shape, size)
    coarse, _ = sensor.windows(box)
    footprint = Footprint(
        sensor.rows.centres(range(coarse.y0, coarse.y1)) - box.y0,
        sensor.columns.centres(range(coarse.x0, coarse.x1)) - box.x0,
        box.shape,
        (sensor.rows.step, sensor.columns.step),
        sensor.width,
    )
    slope, offset = np.array(sensor.lines).T[..., None, None]
    masks = api.clear_mask_of(info).variable, api.clear_mask_of(theirs).variable
    pairs = []
    for date in np.flatnonzero(away.min(axis=1) <= SAME):
        image, clear = _image(info, masks[0], int(away[date].argmin()), box)
        seen, seen_clear = _image(theirs, masks[1], int(date), coarse)
        expected, valid = footprint.degrade_clear(image[list(sensor.positions)], clear)
        valid &= seen_clear
        if valid.sum() >= _LEAST_PIXELS:
            published = slope * seen[list(sensor.bands)] + offset
            pairs.append((published[:, valid], expected[:, valid]))
    if not pairs:
        raise TimeError(
            f"the nearest images of the two are {away.min():.0f} days apart"
            if away.min() > SAME
            else "no images within a day of each other are clear in the same place",
            f"images within {SAME:g} day of each other that are clear in the middle of the cube",
            "cubes of the same months" if away.min() > SAME else option(f"size={2 * size}") + " for a larger part",
        )
    rows = []
    for i, position in enumerate(sensor.positions):
        ours = [(x[i], y[i]) for x, y in pairs]
        more, shift = fit_line(ours)
        x, y = (np.concatenate(arrays) for arrays in zip(*ours, strict=True))
        rows.append(
            {
                "band": cube.common_names[position] or cube.bands[position],
                "published_slope": sensor.lines[i][0],
                "published_offset": sensor.lines[i][1],
                "slope": more * sensor.lines[i][0],
                "offset": more * sensor.lines[i][1] + shift,
                "rmse": float(np.sqrt(np.square(y - more * x - shift).mean())),
                "pairs": len(pairs),
                "pixels": x.size,
            }
        )
    return pd.DataFrame(rows).set_index("band")


def _image(info: CubeInfo, mask: xr.Variable, date: int, box: Box) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return reflectance (band, y, x) and the clear pixels of a date in a part of a cube."""
    from dask.base import compute

    cut = (date, ..., *box.slices)
    clear, *arrays = compute(mask[cut], *(array.variable[cut] for array in info.cube.measured))
    stored = arrays[0].to_numpy() if arrays[0].ndim == 3 else np.stack([array.to_numpy() for array in arrays])
    return to_reflectance(stored, info.scaling), clear.to_numpy()
