"""Sentinel-1 for a cube: find VV and VH, check grid and values, and select the image of a date."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.cube.alignment import check_same_grid
from xr_cloudfree.cube.conventions import parse_cube
from xr_cloudfree.cube.crs import crs_as_coordinate
from xr_cloudfree.cube.dates import candidates
from xr_cloudfree.cube.dims import dims_of
from xr_cloudfree.cube.timestamps import Times, cube_times
from xr_cloudfree.errors import BandError, CloudfreeError, DimensionError, OptionTypeError, ScalingError, code

POLARISATIONS = ("vv", "vh")
"""Polarisations in the order of the networks' inputs."""

MAX_DAYS = 12.0
"""Largest distance of Sentinel-1 from the target date in days: the repeat cycle of one satellite."""

# Limits of decibels of ground and noise, and the upper limit of linear power of nearly all ground.
_LEAST, _MOST, _POWER = -90.0, 40.0, 2.0
_ENOUGH = 64  # least number of values to test whether all are positive: fewer may be a ship at the swath's edge
_SHAPE = "an xarray DataArray (time, band, y, x) with the bands vv and vh, or a Dataset with the variables vv and vh"


@dataclass(frozen=True, eq=False)
class Radar:
    """Sentinel-1 on the grid of a cube.

    Parameters
    ----------
    arrays : tuple of DataArray
        Decibels: one array (time, band, y, x) with VV and VH in this order, or one (time, y, x) for each, with
        dimensions of these names and the rows and columns of the cube.
    times : ndarray of datetime64[ns], shape (time,)
        Time stamps, in the arrays' order.
    """

    arrays: tuple[xr.DataArray, ...]
    times: Times


def parse_radar(s1: Any, template: xr.DataArray) -> Radar:
    """Return VV, VH and the dates of Sentinel-1, after checking that it has the cube's grid. Nothing is computed.

    Parameters
    ----------
    s1 : DataArray or Dataset
        Backscatter in decibels (time, band, y, x), or variables (time, y, x). The names of bands or variables are or
        contain vv and vh in any case: ``"VV"``, ``"s1_vv"``, ``"sigma0-VH"``.
    template : DataArray, shape (time, y, x)
        The cube's grid.

    Raises
    ------
    OptionTypeError
        If it is not an xarray object.
    DimensionError
        If a dimension is missing, or there are too many.
    BandError
        If VV or VH is missing or ambiguous.
    TimeError
        If its dates are missing, duplicate or cannot be read.
    GridError
        If it has another CRS or other pixels than the cube.
    ScalingError
        If its values are integers.
    """
    if not isinstance(s1, xr.DataArray | xr.Dataset):
        raise OptionTypeError(f"s1 is a {type(s1).__name__}", _SHAPE, code("s1=xr.Dataset({'vv': vv, 'vh': vh})"))
    with _errors_for_s1():
        obj, bands = _select(crs_as_coordinate(s1) if isinstance(s1, xr.Dataset) else s1)
        cube = parse_cube(obj, bands)
        first = f"s1=s1.groupby({cube.dims['time']!r}).first(), which takes the first valid value of each pixel"
        times = cube_times(cube.arrays[0], several=first)
    for array in cube.arrays:
        if array.dtype.kind != "f":
            raise ScalingError(
                f"s1 holds integers ({array.dtype})",
                "backscatter in decibels, as floating-point numbers",
                code("s1=s1.astype('float32') if these are decibels, xr.decode_cf(ds) if they are packed"),
            )
        flat = "s1" if isinstance(s1, xr.Dataset) else f"s1.to_dataset({cube.dims['band']!r})"
        check_same_grid(
            array if array.ndim == 3 else array.isel(band=0, drop=True),
            "s1",
            template,
            reproject=f"s1={flat}.rio.reproject_match(cube)",
            interpolate=f"s1=s1.interp({cube.dims['y']}=cube.y, {cube.dims['x']}=cube.x)",
        )
    return Radar(cube.arrays, times)


def nearby_dates(times: Times, instants: Sequence[np.datetime64] | Times) -> NDArray[np.intp]:
    """Return the indices of the dates within `MAX_DAYS` of any target, increasing.

    Examples
    --------
    >>> times = np.array(["2021-01-20", "2021-01-01", "2021-03-01"], "datetime64[ns]")
    >>> nearby_dates(times, [np.datetime64("2021-01-10")])
    array([0, 1])
    """
    reach = [candidates(times, instant, (MAX_DAYS, MAX_DAYS))[0] for instant in instants]
    return np.unique(np.concatenate(reach))


def nearest_image(values: NDArray[np.floating], times: Times, instant: np.datetime64) -> NDArray[np.float32]:
    """Return the Sentinel-1 image of a date: for each pixel the observation nearest in time.

    An observation needs finite VV and VH and may be at most `MAX_DAYS` days away. Of two equally near the earlier is
    taken.

    Parameters
    ----------
    values : ndarray, shape (time, 2, y, x)
        VV and VH, in decibels.
    times : ndarray of datetime64[ns], shape (time,)
        Their dates, in any order.
    instant : datetime64
        The target date.

    Returns
    -------
    ndarray of float32, shape (2, y, x)
        Decibels, NaN without an observation.

    Examples
    --------
    >>> times = np.array(["2021-01-01", "2021-01-07", "2021-01-11"], "datetime64[ns]")
    >>> values = np.array([[-8.0, np.nan], [np.nan, np.nan], [-9.0, np.nan]])[:, None, None].repeat(2, axis=1)
    >>> nearest_image(values, times, np.datetime64("2021-01-06"))[0]
    array([[-8., nan]], dtype=float32)
    """
    order, offsets = candidates(times, instant, (MAX_DAYS, MAX_DAYS))
    image = np.full(values.shape[1:], np.nan, np.float32)
    missing = np.ones(values.shape[2:], bool)
    for i in order[np.argsort(np.abs(offsets), kind="stable")]:
        taken = missing & np.isfinite(values[i]).all(axis=0)
        np.copyto(image, values[i], where=taken, casting="same_kind")
        missing &= ~taken
        if not missing.any():
            break
    return image


def check_decibels(values: NDArray[np.floating]) -> None:
    """Raise if the values of a window cannot be decibels.

    Parameters
    ----------
    values : ndarray, shape (time, 2, y, x)
        VV and VH.

    Raises
    ------
    ScalingError
        If they look like linear power or digital numbers, are zero in both bands instead of missing, or are outside
        the range of backscatter.
    """
    known = values[np.isfinite(values)]
    nonzero = known[known != 0]
    if nonzero.size >= _ENOUGH and nonzero.min() > 0:
        median = float(np.median(nonzero))
        if median < _POWER:
            raise ScalingError(
                f"all values of s1 are positive, with a median of {median:.3g}, like linear power",
                "decibels, which are nearly all negative",
                code("s1=10 * np.log10(s1), or 10 * np.log10(s1.where(s1 > 0)) if zero means no measurement"),
            )
        raise ScalingError(
            f"all values of s1 are positive, with a median of {median:.5g}, like digital numbers",
            "decibels, which are nearly all negative",
            code("s1=20 * np.log10(s1) - 83 for digital numbers with this calibration; see the product's description"),
        )
    if zeros := int((values == 0).all(axis=1).sum()):
        raise ScalingError(
            f"s1 is exactly 0 in VV and in VH {zeros} times",
            "NaN where nothing was measured",
            code("s1=s1.where(s1 != 0)"),
        )
    outside = known[(known < _LEAST) | (known > _MOST)]
    if outside.size:
        raise ScalingError(
            f"s1 holds values such as {float(outside[0]):g}",
            f"decibels from {_LEAST:g} to {_MOST:g}, and NaN where nothing was measured",
            code(f"s1=s1.where((s1 > {_LEAST:g}) & (s1 < {_MOST:g}))"),
        )


def _select(s1: xr.DataArray | xr.Dataset) -> tuple[xr.DataArray | xr.Dataset, list[str] | None]:
    """Return the object with VV and VH, and its names of them; None if it has only these two in this order."""
    if isinstance(s1, xr.DataArray):
        dim = dims_of(s1).get("band")
        if dim is None:
            raise DimensionError(
                f"s1 has the dimensions {s1.dims}",
                _SHAPE,
                code("s1=xr.concat([vv, vh], pd.Index(['vv', 'vh'], name='band'))"),
            )
        s1 = s1.rename("s1" if s1.name is None else s1.name)
        labels = [str(label) for label in s1[dim].to_numpy()] if dim in s1.coords else []
        named = _polarisation_names(labels, code(f"s1=s1.assign_coords({dim}=['vv', 'vh']), with the bands' own order"))
        return s1, None if named == labels else named
    whole = {str(name): array for name, array in s1.data_vars.items() if dims_of(array).get("band") in array.coords}
    selected = {}
    for name, array in whole.items():
        try:
            selected[name] = _select(array)
        except BandError:  # a variable with other bands, such as the cube itself
            continue
    names = [str(name) for name, array in s1.data_vars.items() if array.ndim == 3]
    if len(selected) == 1 and not any(map(_polarisation, names)):
        return next(iter(selected.values()))
    if selected:
        several = [*selected, *(name for name in names if _polarisation(name))]
        raise BandError(
            f"s1 has several variables with VV and VH: {', '.join(several)}", "one", code(f"s1=s1[{several[0]!r}]")
        )
    return s1, _polarisation_names(names, code("s1=s1.rename({'sigma0': 'vv'}), with the variables' own names"))


def _polarisation_names(labels: Sequence[str], remedy: str) -> list[str]:
    """Return the names of VV and VH among others.

    Examples
    --------
    >>> _polarisation_names(["S1_VH", "S1_VV", "angle"], "")
    ['S1_VV', 'S1_VH']
    """
    names = []
    for polarisation in POLARISATIONS:
        exact = [label for label in labels if label.lower() == polarisation]
        matches = exact or [label for label in labels if _polarisation(label) == polarisation]
        if len(matches) != 1:
            several = f"{len(matches)} bands that may be {polarisation.upper()}: {', '.join(matches)}"
            missing = f"no band {polarisation.upper()}, but {', '.join(labels) or 'no named bands'}"
            raise BandError(
                f"s1 has {several if matches else missing}",
                "VV and VH, each once",
                code("only one of them: s1=s1.sel(band=['VV', 'VH']), or s1=s1[['VV', 'VH']]") if matches else remedy,
            )
        names += matches
    return names


def _polarisation(name: str) -> str | None:
    """Return ``"vv"`` or ``"vh"`` if the name contains exactly one of them as a word, else None."""
    words = set(re.split(r"[^a-z0-9]+", name.lower())) & set(POLARISATIONS)
    return words.pop() if len(words) == 1 else None


@contextmanager
def _errors_for_s1() -> Iterator[None]:
    """Raise errors of `parse_cube` with messages for Sentinel-1."""
    try:
        yield
    except CloudfreeError as error:
        found = error.found.replace("the cube", "s1")
        if "s1" not in found:
            found = f"s1: {found}"
        raise type(error)(found, error.needed.replace("cube", "s1"), error.remedy.replace("cube", "s1")) from error
