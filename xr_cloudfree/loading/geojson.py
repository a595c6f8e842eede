"""Points and bounds of GeoJSON."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from numbers import Real
from typing import Any

Bounds = tuple[float, float, float, float]


def points_of(shape: Any) -> Iterator[Sequence[float]]:
    """Yield the points of a geometry, a feature, a collection of either, or of their coordinates.

    Parameters
    ----------
    shape : mapping or sequence
        GeoJSON, or the coordinates of a geometry.

    Examples
    --------
    >>> list(points_of({"type": "LineString", "coordinates": [[-8.5, 40.1], [-8.4, 40.2]]}))
    [[-8.5, 40.1], [-8.4, 40.2]]
    """
    if isinstance(shape, Mapping):
        for key in ("features", "geometries", "geometry", "coordinates"):
            yield from points_of(shape.get(key))
    elif isinstance(shape, Sequence) and not isinstance(shape, str) and shape:
        if isinstance(shape[0], Real):
            yield shape
        else:
            for part in shape:
                yield from points_of(part)


def bounds_of(shape: Any) -> Bounds | None:
    """Return the least and greatest coordinates of GeoJSON, None if it has no points.

    Parameters
    ----------
    shape : mapping or sequence
        See `points_of`.

    Examples
    --------
    >>> bounds_of({"type": "Point", "coordinates": [-8.5, 40.1]})
    (-8.5, 40.1, -8.5, 40.1)
    """
    points = [(float(point[0]), float(point[1])) for point in points_of(shape)]
    if not points:
        return None
    xs, ys = zip(*points, strict=True)
    return min(xs), min(ys), max(xs), max(ys)
