"""Sentinel-1 beside a cube: what of it is VV and VH, whether it fits, and what it shows of a date."""

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
from xr_cloudfree.cube.stamps import Times, cube_times
from xr_cloudfree.errors import BandError, CloudfreeError, DimensionError, OptionTypeError, ScalingError, code

POLARISATIONS = ("vv", "vh")
"""In the order in which networks are given them."""

MAX_DAYS = 12.0
"""Days from the target date beyond which Sentinel-1 is not taken: one satellite is back on its orbit after so many."""

# Decibels that neither ground nor noise has, and below which linear power of nearly all ground lies.
_LEAST, _MOST, _POWER = -90.0, 40.0, 2.0
_ENOUGH = 64  # values below which it says nothing that all are positive: a ship at the swath's edge
_SHAPE = "an xarray DataArray (time, band, y, x) with the bands vv and vh, or a Dataset with the variables vv and vh"


@dataclass(frozen=True, eq=False)
class Radar:
    """Sentinel-1, understood.

    Parameters
    ----------
    arrays : tuple of DataArray
        Decibels: one array (time, band, y, x) with VV and VH in this order, or one (time, y, x) for each of them.
        Dimensions carry these names, rows and columns are those of the cube.
    times : ndarray of datetime64[ns], shape (time,)
        Time stamps, in the arrays' order.
    """

    arrays: tuple[xr.DataArray, ...]
    times: Times


def parse_radar(s1: Any, template: xr.DataArray) -> Radar:
    """Tell VV, VH and the dates of Sentinel-1, and refuse what does not fit a cube. Nothing is computed.

    Parameters
    ----------
    s1 : DataArray or Dataset
        Backscatter in decibels (time, band, y, x), or variables (time, y, x). Bands or variables are called vv and vh
        in any case, or have it as a part of their names: ``"VV"``, ``"s1_vv"``, ``"sigma0-VH"``.
    template : DataArray, shape (time, y, x)
        The cube's grid.

    Raises
    ------
    OptionTypeError
        If it is no xarray object.
    DimensionError
        If a dimension is missing, or one is too many.
    BandError
        If VV or VH is missing, or there several times.
    TimeError
        If its dates are missing, doubled or no dates in UTC without a time zone.
    GridError
        If it has another CRS or other pixels than the cube.
    ScalingError
        If its values are whole numbers.
    """
    if not isinstance(s1, xr.DataArray | xr.Dataset):
        raise OptionTypeError(f"s1 is a {type(s1).__name__}", _SHAPE, code("s1=xr.Dataset({'vv': vv, 'vh': vh})"))
    with _said_of_s1():
        obj, bands = _chosen(crs_as_coordinate(s1) if isinstance(s1, xr.Dataset) else s1)
        found = parse_cube(obj, bands)
        first = (
            f"s1=s1.groupby({found.dims['time']!r}).first(), which takes for each pixel the first value that is there"
        )
        times = cube_times(found.arrays[0], several=first)
    for array in found.arrays:
        if array.dtype.kind != "f":
            raise ScalingError(
                f"s1 holds whole numbers ({array.dtype})",
                "backscatter in decibels, as floating-point numbers",
                code("s1=s1.astype('float32') if these are decibels, xr.decode_cf(ds) if the file packs them"),
            )
        flat = "s1" if isinstance(s1, xr.Dataset) else f"s1.to_dataset({found.dims['band']!r})"
        check_same_grid(
            array if array.ndim == 3 else array.isel(band=0, drop=True),
            "s1",
            template,
            reproject=f"s1={flat}.rio.reproject_match(cube)",
            interpolate=f"s1=s1.interp({found.dims['y']}=cube.y, {found.dims['x']}=cube.x)",
        )
    return Radar(found.arrays, times)


def nearby_dates(times: Times, instants: Sequence[np.datetime64] | Times) -> NDArray[np.intp]:
    """Indices of the dates that some target may take, increasing.

    Examples
    --------
    >>> times = np.array(["2021-01-20", "2021-01-01", "2021-03-01"], "datetime64[ns]")
    >>> nearby_dates(times, [np.datetime64("2021-01-10")])
    array([0, 1])
    """
    reach = [candidates(times, instant, (MAX_DAYS, MAX_DAYS))[0] for instant in instants]
    return np.unique(np.concatenate(reach))


def nearest_image(values: NDArray[np.floating], times: Times, instant: np.datetime64) -> NDArray[np.float32]:
    """What Sentinel-1 shows at a moment: for each pixel the observation that is nearest in time.

    One counts where both VV and VH are finite, at most `MAX_DAYS` days away. Of two equally near the earlier is taken.

    Parameters
    ----------
    values : ndarray, shape (time, 2, y, x)
        VV and VH, in decibels.
    times : ndarray of datetime64[ns], shape (time,)
        Their dates, in any order.
    instant : datetime64
        The moment.

    Returns
    -------
    ndarray of float32, shape (2, y, x)
        Decibels, NaN where there is none.

    Examples
    --------
    >>> times = np.array(["2021-01-01", "2021-01-07", "2021-01-11"], "datetime64[ns]")
    >>> values = np.array([[-8.0, np.nan], [np.nan, np.nan], [-9.0, np.nan]])[:, None, None].repeat(2, axis=1)
    >>> nearest_image(values, times, np.datetime64("2021-01-06"))[0]
    array([[-8., nan]], dtype=float32)
    """
    order, offsets = candidates(times, instant, (MAX_DAYS, MAX_DAYS))
    image = np.full(values.shape[1:], np.nan, np.float32)
    lacking = np.ones(values.shape[2:], bool)
    for i in order[np.argsort(np.abs(offsets), kind="stable")]:
        taken = lacking & np.isfinite(values[i]).all(axis=0)
        np.copyto(image, values[i], where=taken, casting="same_kind")
        lacking &= ~taken
        if not lacking.any():
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
        If they look like linear power or digital numbers, are zero in both bands where nothing was measured, or lie
        where no backscatter does.
    """
    known = values[np.isfinite(values)]
    told = known[known != 0]
    if told.size >= _ENOUGH and told.min() > 0:
        middle = float(np.median(told))
        if middle < _POWER:
            raise ScalingError(
                f"all values of s1 are positive, with a median of {middle:.3g}, as linear power has it",
                "decibels, of which nearly all are negative",
                code("s1=10 * np.log10(s1), or 10 * np.log10(s1.where(s1 > 0)) if zero stands for no measurement"),
            )
        raise ScalingError(
            f"all values of s1 are positive, with a median of {middle:.5g}, as digital numbers have it",
            "decibels, of which nearly all are negative",
            code("s1=20 * np.log10(s1) - 83 if these are digital numbers of that packing; what describes them tells"),
        )
    if zeros := int((values == 0).all(axis=1).sum()):
        raise ScalingError(
            f"s1 is exactly 0 in VV and in VH {zeros} times",
            "NaN where nothing was measured",
            code("s1=s1.where(s1 != 0)"),
        )
    strange = known[(known < _LEAST) | (known > _MOST)]
    if strange.size:
        raise ScalingError(
            f"s1 holds values such as {float(strange[0]):g}",
            f"decibels from {_LEAST:g} to {_MOST:g}, and NaN where nothing was measured",
            code(f"s1=s1.where((s1 > {_LEAST:g}) & (s1 < {_MOST:g}))"),
        )


def _chosen(s1: xr.DataArray | xr.Dataset) -> tuple[xr.DataArray | xr.Dataset, list[str] | None]:
    """What holds VV and VH, and how it calls them; None if it holds just these two in this order."""
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
        named = _both(labels, code(f"s1=s1.assign_coords({dim}=['vv', 'vh']), with the bands' own order"))
        return s1, None if named == labels else named
    whole = {str(name): array for name, array in s1.data_vars.items() if dims_of(array).get("band") in array.coords}
    holds = {}
    for name, array in whole.items():
        try:
            holds[name] = _chosen(array)
        except BandError:  # a variable of other bands, such as the cube itself
            continue
    names = [str(name) for name, array in s1.data_vars.items() if array.ndim == 3]
    if len(holds) == 1 and not any(map(_polarisation, names)):
        return next(iter(holds.values()))
    if holds:
        several = [*holds, *(name for name in names if _polarisation(name))]
        raise BandError(
            f"s1 has several variables with VV and VH: {', '.join(several)}", "one", code(f"s1=s1[{several[0]!r}]")
        )
    return s1, _both(names, code("s1=s1.rename({'sigma0': 'vv'}), with the variables' own names"))


def _both(labels: Sequence[str], remedy: str) -> list[str]:
    """The names of VV and VH among others.

    Examples
    --------
    >>> _both(["S1_VH", "S1_VV", "angle"], "")
    ['S1_VV', 'S1_VH']
    """
    found = []
    for wanted in POLARISATIONS:
        exact = [label for label in labels if label.lower() == wanted]
        named = exact or [label for label in labels if _polarisation(label) == wanted]
        if len(named) != 1:
            several = f"{len(named)} bands that may be {wanted.upper()}: {', '.join(named)}"
            lacking = f"no band {wanted.upper()}, but {', '.join(labels) or 'none that has a name'}"
            raise BandError(
                f"s1 has {several if named else lacking}",
                "VV and VH, each once",
                code("only one of them: s1=s1.sel(band=['VV', 'VH']), or s1=s1[['VV', 'VH']]") if named else remedy,
            )
        found += named
    return found


def _polarisation(name: str) -> str | None:
    """``"vv"`` or ``"vh"``, if the name says just one of them."""
    said = set(re.split(r"[^a-z0-9]+", name.lower())) & set(POLARISATIONS)
    return said.pop() if len(said) == 1 else None


@contextmanager
def _said_of_s1() -> Iterator[None]:
    """What is found wrong with a cube, as it is said of Sentinel-1."""
    try:
        yield
    except CloudfreeError as error:
        found = error.found.replace("the cube", "s1")
        if "s1" not in found:
            found = f"s1: {found}"
        raise type(error)(found, error.needed.replace("cube", "s1"), error.remedy.replace("cube", "s1")) from error
