"""Relate a coarser cube of another sensor to a cube: its grid, its bands, its dates."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.cube.alignment import check_same_crs
from xr_cloudfree.cube.band_pass import OLI
from xr_cloudfree.cube.dates import candidates
from xr_cloudfree.cube.timestamps import Times
from xr_cloudfree.errors import BandError, CloudfreeError, GridError, MaskError, ScalingError, code

NEAR = 2.5
"""Largest distance of another sensor's image from the target date that is used, in days."""
SAME = 1.0
"""Images of two sensors within so many days show the same ground: pairs by which the sensors are compared."""
MAX_PAIRS = 12
"""Maximum number of images that are read for comparison alone: those nearest to the target."""
# A grid has to be regular within this many of its own pixels, and its pixels at least this many of the cube's.
_REGULAR, _LEAST_STEP = 0.01, 0.99
# Bands that see nearly the same, where a cube has only one of them.
_ALIKE = {"nir": "nir08", "nir08": "nir"}


@dataclass(frozen=True)
class Axis:
    """Pixels of another sensor along one axis of a cube.

    Parameters
    ----------
    first : float
        Centre of its first pixel, in the cube's pixels from the cube's first edge.
    step : float
        Distance of its pixels, in the cube's; positive.
    size : int
        Number of its pixels.
    flipped : bool
        Whether its coordinates run against the cube's, so that its arrays have to be reversed.

    Examples
    --------
    >>> axis = Axis(1.5, 3.0, 4)
    >>> axis.within(0, 6), axis.centres(range(0, 2)).tolist()
    (range(0, 2), [1.5, 4.5])
    """

    first: float
    step: float
    size: int
    flipped: bool = False

    def within(self, start: int, stop: int) -> range:
        """Return the pixels whose centre is between two edges of the cube's pixels; may be empty."""
        least = max(int(np.ceil((start - self.first) / self.step)), 0)
        return range(least, max(least, min(int(np.floor((stop - self.first) / self.step)) + 1, self.size)))

    def centres(self, pixels: Sequence[int]) -> NDArray[np.float64]:
        """Return the centres of some pixels, in the cube's pixels."""
        return self.first + self.step * np.asarray(pixels, np.float64)


def relate(layer: xr.DataArray, name: str, template: xr.DataArray) -> tuple[Axis, Axis]:
    """Return the rows and columns of a coarser grid in pixels of a cube's.

    Parameters
    ----------
    layer : DataArray, shape (time, y, x)
        The other sensor's grid.
    name : str
        Its name in messages.
    template : DataArray, shape (time, y, x)
        The cube's grid.

    Raises
    ------
    GridError
        If the CRS differs, a grid is not regular, its pixels are finer than the cube's, or it does not cover any.
    """
    reproject = f"{name}={name}.odc.reproject(cube.odc.geobox.zoom_out(3)), or load it with crs=cube.rio.crs"
    check_same_crs(layer, name, template, reproject)
    axes = []
    for dim in ("y", "x"):
        ours, theirs = (_regular(array, called, dim) for array, called in ((template, "the cube"), (layer, name)))
        first = (theirs[0] - ours[0]) / ours[1] + 0.5
        step = theirs[1] / ours[1]
        size = layer.sizes[dim]
        flipped = step < 0
        if flipped:
            first, step = first + step * (size - 1), -step
        if step < _LEAST_STEP:
            raise GridError(
                f"a pixel of {name} is {step:.3g} of the cube's along {dim}",
                "pixels as large as the cube's, or larger",
                f"the finer one as the cube: {name}.cloudfree.fill(..., others=[cube])",
            )
        axes.append(Axis(first, step, size, flipped))
    for axis, dim in zip(axes, ("y", "x"), strict=True):
        if not axis.within(0, template.sizes[dim]):
            raise GridError(
                f"{name} lies beside the cube along {dim}",
                "images of the same place",
                f"{name} loaded for the cube's own box: bbox=cube.rio.transform_bounds('EPSG:4326')",
            )
    return axes[0], axes[1]


def _regular(array: xr.DataArray, name: str, dim: str) -> tuple[float, float]:
    """Return the first coordinate along an axis and the distance of two, after checking that all are as far apart."""
    if dim not in array.coords or array.sizes[dim] < 2:
        raise GridError(
            f"{name} has {'no coordinates' if dim not in array.coords else 'a single pixel'} along {dim}",
            "at least two pixels with coordinates along rows and columns",
            f"{name}.assign_coords({dim}=...) with the centres of the pixels",
        )
    values = array.coords[dim].to_numpy().astype(np.float64)
    step = (values[-1] - values[0]) / (values.size - 1)
    if not step or (np.abs(values - values[0] - step * np.arange(values.size)) > _REGULAR * abs(step)).any():
        raise GridError(
            f"the pixels of {name} are not evenly spaced along {dim}", "a regular grid", f"{name}.rio.reproject(crs)"
        )
    return float(values[0]), float(step)


def match_bands(
    theirs: Sequence[str | None],
    ours: Sequence[str | None],
    name: str,
    sensor: str | None = None,
    labels: Sequence[str] = (),
) -> dict[int, int]:
    """Return the bands that two sensors share: the position of each among theirs, and among ours.

    ``nir`` and ``nir08`` stand for each other where a sensor has only one of them, and the near infrared of Landsat is
    that of Sentinel-2's narrow band.

    Parameters
    ----------
    theirs, ours : sequence of (str or None)
        STAC common names of the other sensor's bands, and of the cube's.
    name : str
        The other sensor's cube in messages.
    sensor : str, optional
        Its family.
    labels : sequence of str
        Its own names of its bands, for the message.

    Raises
    ------
    BandError
        If there is none.

    Examples
    --------
    >>> match_bands(["red", "nir08", "lwir11"], ["blue", "red", "nir"], "others[0]")
    {0: 1, 1: 2}
    """
    positions = {common: i for i, common in enumerate(ours) if common is not None}
    found: dict[int, int] = {}
    for i, common in enumerate(theirs):
        if common == "nir" and sensor in OLI and "nir08" not in theirs:
            common = next((narrow for narrow in ("nir08", "nir") if narrow in positions), common)
        alike = _ALIKE.get(common or "")
        if common in positions:
            found[i] = positions[common]
        elif alike in positions and alike not in theirs:
            found[i] = positions[alike]
    if not found:
        known = ", ".join(labels or (common for common in theirs if common)) or "none"
        raise BandError(
            f"{name} has no band of the cube: its bands are {known}",
            f"at least one of {', '.join(positions)}" if positions else "bands of reflectance in the cube, too",
            f"{name}.rename(SR_B4='red') for a band as a variable; {name}.assign_coords(band=['red']) in an array",
        )
    return found


def is_near(times: Times, instant: np.datetime64) -> NDArray[np.bool_]:
    """Return which of some images are within `NEAR` days of a target date."""
    return np.asarray(np.abs((times - instant) / np.timedelta64(1, "D")) <= NEAR)


def useful_dates(times: Times, instant: np.datetime64, dates: Times) -> NDArray[np.intp]:
    """Return the images of another sensor that are read for a target: those near it, and pairs with the cube's dates.

    Parameters
    ----------
    times : ndarray of datetime64[ns]
        The other sensor's.
    instant : datetime64
        The target.
    dates : ndarray of datetime64[ns]
        Those of the cube that the target can use.

    Returns
    -------
    ndarray of int
        Indices, sorted by time.

    Examples
    --------
    >>> times = np.array(["2021-01-01", "2021-01-05", "2021-02-01"], "datetime64[ns]")
    >>> useful_dates(times, np.datetime64("2021-01-06"), times[2:])
    array([1, 2])
    """
    order, offsets = candidates(times, instant, None)
    near = np.abs(offsets) <= NEAR
    day = np.timedelta64(1, "D")
    paired = np.array([bool((np.abs((dates - times[i]) / day) <= SAME).any()) for i in order], bool) & ~near
    nearest = np.argsort(np.abs(offsets), kind="stable")
    kept = [i for i in nearest if paired[i]][:MAX_PAIRS]
    near[kept] = True
    return order[near]


@contextmanager
def errors_about(name: str) -> Iterator[None]:
    """Raise errors about cubes with messages about another one of this name."""
    try:
        yield
    except CloudfreeError as error:
        found = error.found.replace("the cube", name)
        found = found if name in found else f"{name}: {found}"
        remedy: str = error.remedy.replace("cube", name)
        # The options of `fill` are about the cube itself.
        if isinstance(error, MaskError):
            remedy = code(
                f"xr.Dataset({{'reflectance': {name}, 'cloud_mask': mask}}), with a mask that is 0 where clear"
            )
        elif isinstance(error, ScalingError):
            remedy = code(f"{name}[band].attrs.update(scale_factor=2.75e-5, add_offset=-0.2) for each band of {name}")
        raise type(error)(found, error.needed, remedy) from error
