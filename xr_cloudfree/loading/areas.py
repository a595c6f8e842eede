"""Areas and their pixel grid, which depends on the area alone: any two loads of an area have the same pixels."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xr_cloudfree.errors import GridError, OptionError, OptionTypeError, SizeError, either, option
from xr_cloudfree.loading.geojson import Bounds, bounds_of
from xr_cloudfree.loading.scenes import Scene
from xr_cloudfree.options import parse_number

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

_EXAMPLE = option("bbox=(-8.5, 40.1, -8.4, 40.2)")
# Latitudes beyond which UTM is not defined.
_NORTH, _SOUTH = 84.0, -80.0
# Rounding errors of projections, in pixels.
_ROUNDING = 1e-6
_MOST_PIXELS = 2**31


@dataclass(frozen=True)
class Area:
    """An area to load.

    Parameters
    ----------
    bbox : tuple of float
        West, south, east and north in degrees.
    geobox : GeoBox or None
        The grid of the area, if it was given.
    """

    bbox: Bounds
    geobox: GeoBox | None = None


def parse_area(bbox: Any = None, geometry: Any = None, geobox: Any = None) -> Area | None:
    """Return the area that a call names, None if it names none.

    Parameters
    ----------
    bbox : sequence of four float, optional
        West, south, east and north in degrees.
    geometry : mapping or object with ``__geo_interface__``, optional
        A GeoJSON geometry, feature or collection of features, or an object of shapely or geopandas. In degrees,
        unless it has a CRS.
    geobox : GeoBox, DataArray or Dataset, optional
        A grid of odc-geo, or a cube whose grid is used.

    Raises
    ------
    OptionError, OptionTypeError
        If several are given, or one cannot be read.
    GridError
        If the area crosses the antimeridian, or a cube has no CRS.
    """
    given = [name for name, value in (("bbox", bbox), ("geometry", geometry), ("geobox", geobox)) if value is not None]
    if len(given) > 1:
        raise OptionError(f"{' and '.join(given)} are given", "one area", option(*(f"{n}=None" for n in given[1:])))
    if bbox is not None:
        return Area(_parse_bbox(bbox))
    if geometry is not None:
        return Area(_parse_bbox(_bounds_of(geometry)))
    if geobox is not None:
        grid = _parse_geobox(geobox)
        return Area(_to_degrees(tuple(grid.boundingbox), str(grid.crs)), grid)
    return None


def _parse_bbox(bbox: Any) -> Bounds:
    try:
        values = [float(value) for value in bbox]
    except (TypeError, ValueError) as error:
        raise OptionTypeError(f"bbox is {bbox!r}", "west, south, east and north in degrees", _EXAMPLE) from error
    if len(values) != 4 or not np.isfinite(values).all():
        raise OptionError(f"bbox is {tuple(values)}", "west, south, east and north in degrees", _EXAMPLE)
    west, south, east, north = values
    found = f"bbox is {tuple(values)}"
    other = turned((west, south, east, north))
    if max(abs(south), abs(north)) > 90 and other is not None and _is_box(other):
        raise OptionError(
            f"{found}: its latitudes, {south:g} and {north:g}, are beyond 90 degrees",
            "west, south, east and north: longitudes come first",
            option(f"bbox={other}"),
        )
    if max(abs(west), abs(east)) > 180 or max(abs(south), abs(north)) > 90:
        raise OptionError(
            f"bbox is {tuple(values)}, beyond 180 degrees east or 90 degrees north",
            "degrees of longitude and latitude",
            either(_EXAMPLE, option("geobox=") + " for a grid in metres", by="; "),
        )
    crosses = west > east and west - east > 180  # by the shorter way around the Earth
    if south >= north or (west >= east and not crosses):
        ends = [
            f"{low_name}, {low:g}, is not below {high_name}, {high:g}"
            for low_name, low, high_name, high in (("south", south, "north", north), ("west", west, "east", east))
            if low >= high and not (crosses and low_name == "west")
        ]
        w, e = (west, east) if crosses else sorted((west, east))
        s, n = sorted((south, north))
        raise OptionError(
            f"{found}: {' and '.join(ends)}",
            "west, south, east and north",
            option(f"bbox={(w, s, e, n)}") if w != e and s != n else _EXAMPLE,
        )
    if crosses:
        raise GridError(
            f"{found}: from {west:g} eastwards to {east:g} it crosses the antimeridian",
            "one area on each side of the antimeridian",
            either(
                option(f"bbox={(west, south, 180.0, north)}"),
                option(f"bbox={(-180.0, south, east, north)}"),
                by=" and ",
            ),
        )
    return west, south, east, north


def _is_box(bbox: Bounds) -> bool:
    west, south, east, north = bbox
    return -180 <= west < east <= 180 and -90 <= south < north <= 90


def turned(bbox: Bounds) -> Bounds | None:
    """Return the area that a box means if its latitudes come first; None if there is no such area.

    Parameters
    ----------
    bbox : tuple of float
        West, south, east and north in degrees.

    Examples
    --------
    >>> turned((40.1, -8.5, 40.2, -8.4)), turned((100.0, 10.0, 101.0, 11.0))
    ((-8.5, 40.1, -8.4, 40.2), None)
    """
    first, second, third, fourth = bbox
    return (second, first, fourth, third) if max(abs(first), abs(third)) <= 90 else None


def where_it_lies(bbox: Bounds) -> str:
    """Return an area in words, which show if longitude and latitude were exchanged.

    Examples
    --------
    >>> where_it_lies((-8.5, 40.1, -8.4, 40.2))
    'longitude -8.5 to -8.4, latitude 40.1 to 40.2'
    """
    west, south, east, north = (round(value, 4) for value in bbox)
    return f"longitude {west} to {east}, latitude {south} to {north}"


def _bounds_of(geometry: Any) -> Bounds:
    """Return the bounds of a geometry in degrees."""
    crs = getattr(geometry, "crs", None)
    shape = getattr(geometry, "__geo_interface__", geometry)
    bounds = bounds_of(shape)
    if bounds is None:
        raise OptionTypeError(
            f"geometry is a {type(geometry).__name__} without points",
            "GeoJSON, or an object of shapely or geopandas",
            option("geometry={'type': 'Polygon', 'coordinates': [[[-8.5, 40.1], [-8.4, 40.1], [-8.4, 40.2]]]}"),
        )
    return bounds if crs is None else _to_degrees(bounds, str(crs))


def _parse_geobox(geobox: Any) -> Any:
    from odc.geo.geobox import GeoBox

    grid = geobox
    if isinstance(geobox, xr.DataArray | xr.Dataset):
        import odc.geo.xr  # noqa: F401  registers .odc

        grid = geobox.odc.geobox
        if grid is None:
            raise GridError(
                "the cube given as geobox= has no regular grid with a CRS",
                "a grid",
                option("geobox=cube.rio.write_crs('EPSG:32629')") + " with the right CRS",
            )
    if not isinstance(grid, GeoBox):
        raise OptionTypeError(
            f"geobox is a {type(geobox).__name__}", "a GeoBox of odc-geo, or a cube", option("geobox=cube")
        )
    if grid.crs is None:
        raise GridError("geobox has no CRS", "a grid with a CRS", option("crs='EPSG:32629'") + " with bbox=")
    return grid


def _to_degrees(bounds: Bounds, crs: str) -> Bounds:
    from rasterio.warp import transform_bounds

    west, south, east, north = transform_bounds(crs, "EPSG:4326", *bounds, densify_pts=51)
    return _parse_bbox((west, south, east, north))


def utm_zone(longitude: float, latitude: float) -> int:
    """Return the UTM zone of a point, with the wider zones of southern Norway and Svalbard.

    Parameters
    ----------
    longitude, latitude : float
        Degrees.

    Examples
    --------
    >>> utm_zone(-8.4, 40.2), utm_zone(5.3, 60.4), utm_zone(10.0, 78.0)
    (29, 32, 33)
    """
    zone = min(int((longitude + 180) // 6) + 1, 60)
    if 56 <= latitude < 64 and 3 <= longitude < 12:
        return 32
    if latitude >= 72 and 0 <= longitude < 42:
        return 31 if longitude < 9 else 33 if longitude < 21 else 35 if longitude < 33 else 37
    return zone


def pinned_grid(
    area: Area | None, scenes: Sequence[Scene], finest: float, crs: Any = None, resolution: float | None = None
) -> GeoBox:
    """Return the grid of a load.

    With an area, the grid depends on the area, on the product and on the options alone, whatever the scenes: its pixel
    edges are whole multiples of the resolution (of half of it, where the product's own are), and its CRS is the UTM
    zone of the area's centre.

    Parameters
    ----------
    area : Area or None
        The area; None for all that the scenes cover, which has to be in one CRS.
    scenes : sequence of Scene
        The scenes.
    finest : float
        Pixel size of the finest band in metres.
    crs : CRS, str or int, optional
        Another CRS.
    resolution : float, optional
        Another pixel size, in units of the CRS.

    Raises
    ------
    GridError
        If there is no UTM zone, the scenes are in several ones without an area, or cover nothing.
    OptionError
        If the resolution is not positive, or missing, or 1 or more, for a CRS in degrees; or `crs` and `resolution` are
        given for a grid that is given.
    SizeError
        If the grid has too many pixels.
    """
    from affine import Affine
    from odc.geo.geobox import GeoBox
    from rasterio.warp import transform_bounds

    if area is not None and area.geobox is not None:
        if crs is not None or resolution is not None:
            raise OptionError(
                "crs= or resolution= is given beside geobox=",
                "the CRS and resolution of the grid",
                option("crs=None", "resolution=None"),
            )
        return area.geobox
    if resolution is not None:
        example = option(f"resolution={finest:g}")
        resolution = parse_number("resolution", resolution, "a positive number", example, above=0)
    product = scenes[0].product
    target = _crs_of(area, scenes) if crs is None else _parse_crs(crs)
    if resolution is None and target.is_geographic:
        raise OptionError(
            f"crs is {target.to_string()}, in degrees, without a resolution",
            "the size of a pixel in degrees",
            option(f"resolution={finest / 111_320:.2g}"),
        )
    if resolution is not None and target.is_geographic and resolution >= 1:
        raise OptionError(
            f"resolution is {resolution:g}, and {target.to_string()} is in degrees",
            "the size of a pixel in degrees",
            option(f"resolution={resolution / 111_320:.2g}") + f" for about {resolution:g} m",
        )
    step = finest if resolution is None else resolution
    anchor = 0.0 if target.is_geographic else product.anchor_of(step)
    bounds = (
        _extent_of(scenes, target)
        if area is None
        else transform_bounds("EPSG:4326", target, *area.bbox, densify_pts=51)
    )
    if not np.isfinite(bounds).all():
        raise GridError(
            f"the area {area.bbox if area else ''} cannot be projected to {target.to_string()}",
            "an area within the validity of the CRS",
            option("crs='EPSG:3413'") + " near the North Pole, " + option("crs='EPSG:3031'") + " near the South Pole",
        )
    left, bottom, right, top = (value / step - anchor for value in bounds)
    columns = math.floor(left + _ROUNDING), math.ceil(right - _ROUNDING)
    rows = math.floor(bottom + _ROUNDING), math.ceil(top - _ROUNDING)
    shape = max(rows[1] - rows[0], 1), max(columns[1] - columns[0], 1)
    if shape[0] * shape[1] > _MOST_PIXELS:
        raise SizeError(
            f"the area has {shape[0]} x {shape[1]} pixels of {step:g}",
            "a smaller area, or larger pixels",
            option(f"resolution={step * 10:g}"),
        )
    transform = Affine(step, 0.0, (columns[0] + anchor) * step, 0.0, -step, (rows[1] + anchor) * step)
    return GeoBox(shape, transform, target.to_string())


def _parse_crs(crs: Any) -> Any:
    from rasterio.crs import CRS
    from rasterio.errors import CRSError

    try:
        return CRS.from_user_input(crs)
    except CRSError as error:
        raise GridError(f"crs is {crs!r}", "a CRS that PROJ knows", option("crs='EPSG:32629'")) from error


def _crs_of(area: Area | None, scenes: Sequence[Scene]) -> Any:
    """Return the CRS of the grid of an area, or of scenes without an area."""
    own = sorted({scene.crs for scene in scenes if scene.crs is not None})
    if area is None:
        if len(own) == 1:
            return _parse_crs(own[0])
        found = f"the items are in {', '.join(own)}" if own else "the items have no CRS (proj:code, proj:epsg)"
        raise GridError(
            f"{found}, and no area is given",
            "an area, whose UTM zone is used, or a CRS",
            either(_EXAMPLE, option(f"crs={own[0] if own else 'EPSG:32629'!r}")),
        )
    west, south, east, north = area.bbox
    longitude, latitude = (west + east) / 2, (south + north) / 2
    if not _SOUTH <= latitude <= _NORTH:
        raise GridError(
            f"the area around latitude {latitude:.1f} is in no UTM zone",
            "a CRS",
            option(f"crs={'EPSG:3413' if latitude > 0 else 'EPSG:3031'!r}"),
        )
    # Landsat and HLS count northings from the equator in the southern hemisphere, too: they become negative.
    south = latitude < 0 and scenes[0].product.family == "sentinel-2"
    return _parse_crs(f"EPSG:{327 if south else 326}{utm_zone(longitude, latitude):02d}")


def _extent_of(scenes: Sequence[Scene], crs: Any) -> Bounds:
    """Return the bounds of all scenes in a CRS."""
    from rasterio.warp import transform_bounds

    bounds = []
    for scene in scenes:
        for asset in scene.assets.values():
            shape, transform = asset.get("proj:shape"), asset.get("proj:transform")
            if scene.crs is not None and shape and transform:
                left, top = transform[2], transform[5]
                box = left, top + transform[4] * shape[0], left + transform[0] * shape[1], top
                bounds.append(transform_bounds(scene.crs, crs, *box, densify_pts=51))
        if not bounds and scene.bbox is not None:
            bounds.append(transform_bounds("EPSG:4326", crs, *scene.bbox, densify_pts=51))
    if not bounds:
        raise GridError("the items have no footprint", "an area", _EXAMPLE)
    table = np.array(bounds)
    left, bottom = table[:, :2].min(axis=0).tolist()
    right, top = table[:, 2:].max(axis=0).tolist()
    return left, bottom, right, top
