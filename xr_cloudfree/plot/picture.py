"""From bands to an image for display: choice of bands, stretch, and position on the map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.cube.conventions import Cube
from xr_cloudfree.errors import BandError, OptionError

# Maximum number of pixels along the longer edge, more than a page or a screen resolves.
MOST_PIXELS = 1200
NEUTRAL = (0.72, 0.72, 0.72)
# In colour, the lower percentile is dark but not black: black lies below it by this share of the range, and mid-tones
# are raised by this exponent. Otherwise woods and irrigated fields beside bright soil would all be black.
_TOE, _EXPONENT = 0.1, 0.8


@dataclass(frozen=True)
class Composite:
    """The bands to display: three as red, green and blue, or one in grey.

    Parameters
    ----------
    index : tuple of int
        Positions of the bands in the cube.
    label : str
        Description of the colours.
    natural : bool
        Whether the bands are shown in their natural colours.
    """

    index: tuple[int, ...]
    label: str
    natural: bool = False


def choose_bands(cube: Cube, bands: Sequence[str] | None = None) -> Composite:
    """Choose the bands to show: true colour if the cube has these bands, else false colour, else the first bands.

    Parameters
    ----------
    cube : Cube
        The cube.
    bands : sequence of str, optional
        One band or three, by their names in the cube.

    Raises
    ------
    BandError
        If a band is not in the cube, or their number is neither one nor three.
    """
    names = list(cube.bands)
    usual = _usual(cube)
    if bands is None:
        return usual
    requested = [bands] if isinstance(bands, str) else list(bands)
    for band in requested:
        if band not in names:
            raise BandError(f"there is no band {band!r}", f"some of {cube.bands}", f"bands={names[:1]!r}")
    if len(requested) not in (1, 3):
        raise BandError(f"{len(requested)} bands to show", "three for colour, or one for grey", f"bands={names[:1]!r}")
    index = tuple(names.index(band) for band in requested)
    return usual if index == usual.index else Composite(index, ", ".join(requested))


def _usual(cube: Cube) -> Composite:
    names = cube.bands
    position: dict[str | None, int] = {}
    for i, common_name in enumerate(cube.common_names):
        position.setdefault(common_name, i)
    nir = "nir" if "nir" in position else "nir08"
    for common_names, label in ((("red", "green", "blue"), "true colour"), ((nir, "red", "green"), "false colour")):
        if all(common_name in position for common_name in common_names):
            index = tuple(position[common_name] for common_name in common_names)
            return Composite(index, f"{label} ({', '.join(names[i] for i in index)})", label == "true colour")
    index = (0, 1, 2) if len(names) >= 3 else (0,)
    return Composite(index, ", ".join(names[i] for i in index))


def check_stretch(stretch: tuple[float, float]) -> tuple[float, float]:
    """Return two percentiles after checking that the lower comes first.

    Raises
    ------
    OptionError
        If `stretch` is not a pair of increasing percentiles.
    """
    pair = tuple(stretch)
    if len(pair) != 2 or not 0 <= pair[0] < pair[1] <= 100:
        raise OptionError(f"stretch is {stretch!r}", "two percentiles, the lower first", "stretch=(2, 98)")
    return float(pair[0]), float(pair[1])


def limits(
    values: NDArray[Any], where: NDArray[np.bool_], stretch: tuple[float, float], natural: bool
) -> NDArray[np.float64]:
    """Compute the values that are displayed as black and white; in colour, black lies a little below the percentile.

    Parameters
    ----------
    values : ndarray, shape (band, y, x)
        Values of the bands to show.
    where : ndarray of bool, shape (y, x)
        Pixels to use.
    stretch : tuple of float
        Percentiles.
    natural : bool
        Whether all bands share black and white, for natural colours; otherwise each band is stretched by itself.

    Returns
    -------
    ndarray of float64, shape (2, band)
        Black and white of each band; 0 and 1 if no pixel is used.
    """
    if not where.any():
        return np.array([[0.0], [1.0]]).repeat(len(values), axis=1)
    ends = np.percentile(values[:, where].astype(np.float64), stretch, axis=1)
    if natural:
        ends[:] = [[ends[0].min()], [ends[1].max()]]
    ends[1] = np.where(ends[1] > ends[0], ends[1], ends[0] + 1.0)
    if len(values) == 3:
        ends[0] -= _TOE * (ends[1] - ends[0])
    return np.asarray(ends)


def colours(values: NDArray[Any], known: NDArray[np.bool_], ends: NDArray[np.float64]) -> NDArray[np.float32]:
    """Convert bands to colours, or one band to grey; neutral grey where there is no data.

    Parameters
    ----------
    values : ndarray, shape (band, y, x)
        One band or three.
    known : ndarray of bool, shape (y, x)
        False for nodata.
    ends : ndarray of float64, shape (2, band)
        Black and white of each band.

    Returns
    -------
    ndarray of float32, shape (y, x, 3)
        Colours from 0 to 1.

    Examples
    --------
    >>> band = np.array([[[0.0, 0.2, 0.9]]])
    >>> colours(band, np.array([[True, True, False]]), np.array([[0.0], [0.4]]))[0, :, 0]
    array([0.  , 0.5 , 0.72], dtype=float32)
    """
    black, white = ends[:, :, None, None]
    shown = np.clip((np.where(known, values, 0.0) - black) / (white - black), 0.0, 1.0)
    if len(values) == 3:
        shown **= _EXPONENT
    shown = np.broadcast_to(shown, (3, *known.shape))
    picture: NDArray[np.float32] = np.moveaxis(shown, 0, -1).astype(np.float32)
    picture[~known] = NEUTRAL
    return picture


def thin(array: xr.DataArray, most: int = MOST_PIXELS) -> xr.DataArray:
    """Subsample an array to at most `most` rows and columns: every n-th one."""
    dims = array.dims[-2:]
    step = -(-max(array.sizes[dim] for dim in dims) // most)
    return array.isel({dim: slice(None, None, step) for dim in dims}) if step > 1 else array


@dataclass(frozen=True)
class Place:
    """Position of an image on the map.

    Parameters
    ----------
    extent : tuple of float
        Left, right, bottom and top edge, in coordinates.
    flip : tuple of bool
        Whether to reverse rows, and columns, so that north is up and east is right.
    aspect : float
        Height of one unit of y, in units of x.
    labels : tuple of str
        Labels of the x and y axes.
    """

    extent: tuple[float, float, float, float]
    flip: tuple[bool, bool]
    aspect: float
    labels: tuple[str, str]

    @property
    def ratio(self) -> float:
        """Height over width of the displayed image."""
        left, right, bottom, top = self.extent
        return abs(top - bottom) / (right - left) * self.aspect

    def turned(self, picture: NDArray[Any]) -> NDArray[Any]:
        """Return an image (y, x, …) with north up and east to the right."""
        rows, columns = (slice(None, None, -1 if flip else 1) for flip in self.flip)
        return picture[rows, columns]


def place_of(cube: Cube) -> Place:
    """Return the position of a cube from its coordinates, or in pixels if it has none."""
    import rioxarray  # noqa: F401  registers .rio

    template = cube.template
    if not {"y", "x"} <= set(template.coords):
        rows, columns = cube.shape
        # Rows count downwards, as in the array.
        return Place((0.0, columns, rows, 0.0), (False, False), 1.0, ("column", "row"))
    left, right, decreasing_x = _edges(template["x"].to_numpy())
    bottom, top, decreasing_y = _edges(template["y"].to_numpy())
    crs = template.rio.crs
    degrees = crs.is_geographic if crs is not None else cube.dims["y"].lower().startswith("lat")
    if degrees:
        aspect = 1.0 / max(float(np.cos(np.deg2rad((bottom + top) / 2))), 0.05)
        return Place(
            (left, right, bottom, top), (not decreasing_y, decreasing_x), aspect, ("longitude [°]", "latitude [°]")
        )
    labels = "x", "y"
    if crs is not None:
        unit = {"metre": "m", "meter": "m"}.get(crs.linear_units, crs.linear_units)
        labels = f"easting [{unit}]", f"northing [{unit}]"
    return Place((left, right, bottom, top), (not decreasing_y, decreasing_x), 1.0, labels)


def _edges(centres: NDArray[Any]) -> tuple[float, float, bool]:
    """Return the outer edges of the pixels, the lower first, and whether the coordinates decrease."""
    first, last = float(centres[0]), float(centres[-1])
    half = (last - first) / (centres.size - 1) / 2 if centres.size > 1 else 0.5
    ends = first - half, last + half
    return min(ends), max(ends), last < first
