"""Find areas of one constant value at the edge of a window, which archives write beyond a swath."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.cube.validity import ValidRange, measured

_RUN = 16  # pixels along the edge: more than repeated pixels of a coarse band on a finer grid
_ALONG = 512  # pixels tested along one side
_AREA = 48  # pixels
_GAP = 0.005  # reflectance between a fill value and all measurements
_DIFFERENT = 0.03  # reflectance by which other dates differ there


@dataclass(frozen=True)
class Edge:
    """An edge area: its value, the index of its date, and its numbers of pixels and bands."""

    value: float
    date: int
    pixels: int
    bands: int


def find_edge(
    bands: NDArray[Any], clear: NDArray[np.bool_], scaling: Scaling, valid_range: ValidRange | None
) -> Edge | None:
    """Return an area at the edge of a window with one value on a date, where other dates vary and differ from it.

    Water clipped at zero is as flat or as dark on other dates, and so is a coarse band with repeated pixels.

    Parameters
    ----------
    bands : ndarray, shape (time, band, y, x)
        Values as stored.
    clear : ndarray of bool, shape (time, y, x)
        Pixels to test.
    scaling : Scaling
        How the values are stored.
    valid_range : ValidRange or None
        Values that can be measurements; others are missing already.

    Returns
    -------
    Edge or None
        The first such area.
    """
    ring, rows, columns = _ring(bands)
    if ring.shape[-1] < _RUN or len(ring) < 2:
        return None
    flat = ring[..., 1:] == ring[..., :-1]
    runs = _starts(flat)
    if not runs.any():
        return None
    good = measured(ring, scaling, valid_range, axis=1) & clear[:, None, rows, columns]
    flat &= good[..., 1:] & good[..., :-1]
    runs = _starts(flat)
    for date, band in zip(*np.nonzero(runs.any(axis=-1)), strict=True):
        first = int(runs[date, band].argmax())
        ends = np.flatnonzero(~flat[date, band, first:])
        last = first + int(ends[0]) if ends.size else flat.shape[-1]
        run = np.arange(first, last + 1)
        if not _others_differ(ring[:, band, run], good[:, band, run], int(date), scaling):
            continue
        value = ring[date, band, first]
        area = _area(bands[date, band], clear[date], value, int(rows[first]), int(columns[first]))
        if area.sum() >= _AREA:
            alike = (bands[date][:, area] == value).mean(axis=1) > 0.99
            if alike.sum() < max(len(alike), 2) and _is_clipped(bands[date, band][clear[date]], value, scaling):
                continue
            return Edge(value.item(), int(date), int(area.sum()), int(alike.sum()))
    return None


def _ring(bands: NDArray[Any]) -> tuple[NDArray[Any], NDArray[np.intp], NDArray[np.intp]]:
    """Return the pixels around the window's border with their rows and columns; every n-th pixel of a large window."""
    ny, nx = bands.shape[-2:]
    step = -(-max(ny, nx) // _ALONG)
    down, right = np.arange(ny), np.arange(nx)
    top, east, south, west = right[::step], down[1::step], right[-2::-step], down[-2:0:-step]
    rows = np.concatenate([np.zeros_like(top), east, np.full_like(south, ny - 1), west])
    columns = np.concatenate([top, np.full_like(east, nx - 1), south, np.zeros_like(west)])
    sides = (
        bands[..., 0, ::step],
        bands[..., 1::step, -1],
        bands[..., -1, -2::-step],
        bands[..., -2:0:-step, 0],
    )
    return np.concatenate(sides, axis=-1), rows, columns


def _starts(flat: NDArray[np.bool_]) -> NDArray[np.bool_]:
    """Return where a run of equal values of sufficient length begins."""
    total = np.cumsum(flat, axis=-1, dtype=np.int32)
    length = _RUN - 1
    count = total[..., length - 1 :].copy()
    count[..., 1:] -= total[..., :-length]
    return np.asarray(count == length)


def _others_differ(values: NDArray[Any], good: NDArray[np.bool_], date: int, scaling: Scaling) -> bool:
    """Return whether enough other dates vary where one does not, and are brighter or darker."""
    vary = flat = 0
    mark = float(values[date, 0])
    for other in range(len(values)):
        seen = values[other][good[other]].astype(np.float64)
        if other == date or seen.size < _RUN // 2:
            continue
        if np.count_nonzero(seen[1:] == seen[:-1]) > 0.5 * seen.size:
            flat += 1
        elif abs(float(np.median(seen)) - mark) * (scaling.scale or 1.0) > _DIFFERENT:
            vary += 1
    return vary > 0 and 2 * vary >= flat


def _is_clipped(values: NDArray[Any], value: Any, scaling: Scaling) -> bool:
    """Return whether a band may be saturated or clipped at a value: other values reach it without a gap."""
    others = values[values != value].astype(np.float64)
    others = others[np.isfinite(others)]
    if not others.size:
        return True
    extreme = bool((others > value).all() or (others < value).all())
    reflectance = float(value) * (scaling.scale or 1.0) + scaling.offset
    gap = float(np.abs(others - float(value)).min()) * (scaling.scale or 1.0)
    return gap < _GAP and (extreme or reflectance < 0.05 or reflectance > 1)


def _area(values: NDArray[Any], clear: NDArray[np.bool_], value: Any, row: int, column: int) -> NDArray[np.bool_]:
    """Return the clear pixels with this value that are connected with a given one."""
    from scipy import ndimage

    labels, _ = ndimage.label((values == value) & clear)
    return np.asarray(labels == labels[row, column])
