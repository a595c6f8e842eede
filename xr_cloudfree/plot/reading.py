"""What the plots read of a cube: its bands and dates, and the values to show."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree import api
from xr_cloudfree.cube.conventions import Cube, parse_cube
from xr_cloudfree.cube.dates import parse_targets
from xr_cloudfree.cube.dims import dim_of, time_of
from xr_cloudfree.cube.masks import decode, repeat
from xr_cloudfree.cube.scaling import Scaling, valid
from xr_cloudfree.cube.timestamps import Times
from xr_cloudfree.errors import BandError, CloudfreeError, CloudfreeWarning, OptionError, TimeError
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.plot.picture import Composite, thin


def read_cube(
    obj: xr.DataArray | xr.Dataset, bands: Sequence[str] | None, options: dict[str, Any]
) -> tuple[Cube, dict[str, Any]]:
    """Return the cube, and the options to fill it with.

    All bands are filled; if they cannot be recognised by their names, only the bands to show are read and filled.
    """
    try:
        return _as_dates(parse_cube(obj), obj, options), options
    except BandError:
        if bands is None:
            raise
        options = {**options, "bands": bands}
        return _as_dates(parse_cube(obj, bands), obj, options), options


def _as_dates(cube: Cube, obj: xr.DataArray | xr.Dataset, options: dict[str, Any]) -> Cube:
    """Merge the scenes of the cube if the options request it."""
    if options.get("merge") is None:
        return cube
    reading, _ = ReadOptions.split(options)
    return api.merge_days(replace(api.read(obj, reading), repair=False)).cube  # the masks are not needed


def with_time(obj: xr.DataArray | xr.Dataset) -> xr.DataArray | xr.Dataset:
    """Return an image without a time dimension as a cube of one date."""
    if isinstance(obj, xr.DataArray | xr.Dataset) and dim_of(obj, "time") is None:
        return obj.expand_dims(time_of(obj) or "time")
    return obj


def observed_index(date: Any, times: Times) -> int:
    """Return the index of an observed date.

    Raises
    ------
    OptionError
        If `date` is not a single date.
    TimeError
        If it was not observed.
    """
    targets = parse_targets(date, times)
    if not targets.scalar:
        raise OptionError(f"date is {date!r}", "one date", f"date={day(targets.times[0])!r}")
    if targets.own[0] < 0:
        nearest = day(times[np.argmin(np.abs(times - targets.times[0]))])
        raise TimeError(
            f"nothing was observed on {day(targets.times[0])}",
            "an observed date",
            f"date={nearest!r}, which is the nearest, or cube.cloudfree.fill({day(targets.times[0])!r})",
        )
    return targets.own[0]


def band_layers(cube: Cube, show: Composite, which: int) -> list[xr.DataArray]:
    """Return the bands to show of one date, each (y, x)."""
    if "band" in cube.arrays[0].dims:
        return [thin(cube.arrays[0].isel(time=which, band=i)) for i in show.index]
    return [thin(cube.arrays[i].isel(time=which)) for i in show.index]


def given_clear(obj: Any, cube: Cube, show: Composite, which: int) -> NDArray[np.bool_] | None:
    """Return where the quality layer has one date as clear, shape (y, x); None without a layer that can be read."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CloudfreeWarning)
            info = api.read(obj, ReadOptions(bands=[cube.bands[i] for i in show.index]))
        if info.rule.from_series:
            return None
        layer = info.quality.isel(time=[which]).to_numpy()
        clear = repeat(decode(layer, info.rule), info.rule.factor).clear[0]
    except CloudfreeError:
        return None
    rows, columns = cube.shape
    return thin(xr.DataArray(clear[:rows, :columns], dims=("y", "x"))).to_numpy()


def all_valid(values: NDArray[Any], scaling: Scaling) -> NDArray[np.bool_]:
    """Return True where all bands shown are valid, shape (y, x)."""
    everywhere: NDArray[np.bool_] = np.logical_and.reduce(valid(values, scaling), axis=0)
    return everywhere


def compute_all(arrays: Sequence[xr.DataArray]) -> list[NDArray[Any]]:
    """Compute all arrays at once."""
    from dask.base import compute

    return [array.to_numpy() for array in compute(*arrays)]


def day(time: np.datetime64) -> str:
    """Format the date."""
    return str(time.astype("datetime64[D]"))
