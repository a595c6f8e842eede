"""What only values can tell: whether they are reflectance at all.

Each check looks at a strided sample of one window or at its border, so that it costs little beside the work on the
window, and is meant to stay silent on any real scene: dark water, snow, haze that the mask missed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.edges import find_edge
from xr_cloudfree.cube.jumps import OFFSET, Times, brighter_dates, find_jumps
from xr_cloudfree.cube.measured import HIGH, LOW, ValidRange, is_mark, share_impossible
from xr_cloudfree.cube.remedies import ANYWAY, AS_IT_IS, Spelling
from xr_cloudfree.cube.scaling import Scaling, to_reflectance, valid
from xr_cloudfree.errors import BandError, ScalingError, code, either, option

SAMPLE = 2048  # pixels per date
_ENOUGH = 256  # values below which a statistic says nothing
_CLASSES = 24  # different values that a layer of classes has at most
_WRAP = 65536  # what unsigned numbers of 16 bits wrap by


def check_reflectance(
    bands: NDArray[Any],
    clear: NDArray[np.bool_],
    scaling: Scaling,
    times: Times,
    sensor: str | None = None,
    common_names: Sequence[str | None] = (),
    valid_range: ValidRange | None = None,
    spelling: Spelling | None = None,
) -> None:
    """Raise if the clear values of a window cannot be reflectance under this scaling.

    Parameters
    ----------
    bands : ndarray, shape (time, band, y, x)
        Values as stored.
    clear : ndarray of bool, shape (time, y, x)
        Pixels that are looked at.
    scaling : Scaling
        How the values are stored.
    times : ndarray of datetime64, shape (time,)
        Dates, in any order.
    sensor : {"sentinel-2", "landsat"} or None
        Sensor, whose usual scaling the remedy names.
    common_names : sequence of (str or None)
        STAC common name per band, for messages.
    valid_range : ValidRange, optional
        Which numbers count as measurements: what is missing by it is not looked at. If it is that of an index, nothing
        is asked but that most values lie within its limits.
    spelling : Spelling, optional
        What the user's cube is made of, for remedies.

    Raises
    ------
    ScalingError
        If nothing tells the scale of integers; if the values look like digital numbers, were scaled twice or
        wrapped below zero; if nodata was not told; if the offset was subtracted twice, or on some dates only; if
        many values are beyond what ground can have, or one number fills an edge of the window.
    """
    spelling = spelling or Spelling()
    check_scale(bands.dtype, scaling, sensor)
    stored, seen = _sample(bands, clear, scaling)
    if not seen.any():
        return
    if valid_range is not None and valid_range.index:
        _check_index(stored[seen], scaling, valid_range)
        return
    date = np.nonzero(seen)[0]
    _check_zeros(stored[seen], date, times, scaling)
    if valid_range is not None:
        seen &= ~is_mark(stored, seen, valid_range)
        if not seen.any():
            return
        date = np.nonzero(seen)[0]
    picked = stored[seen]
    reflectance = to_reflectance(picked, scaling)
    _check_wrapped(picked, reflectance, scaling, spelling)
    _check_level(picked, reflectance, scaling, sensor)
    if valid_range is not None:
        _check_beyond(picked, date, times, scaling, sensor, valid_range, spelling)
    _check_negative(reflectance, date, times, scaling, picked.dtype, spelling)
    _check_jump(to_reflectance(stored, scaling), seen, times, scaling, stored.dtype, spelling)
    _check_edge(bands, clear, times, scaling, valid_range, spelling)


def check_level(
    bands: NDArray[Any],
    clear: NDArray[np.bool_],
    scaling: Scaling,
    valid_range: ValidRange,
    sensor: str | None = None,
) -> None:
    """Raise if most clear values of a window are far from what they should be: they would all count as missing.

    Parameters
    ----------
    bands : ndarray, shape (time, band, y, x)
        Values as stored.
    clear : ndarray of bool, shape (time, y, x)
        Pixels that are looked at.
    scaling : Scaling
        How the values are stored.
    valid_range : ValidRange
        Which numbers count as measurements.
    sensor : {"sentinel-2", "landsat"} or None
        As for `check_reflectance`.

    Raises
    ------
    ScalingError
        If the median is no reflectance, or beyond the limits of an index.
    """
    if scaling.scale is None:  # then no number is beyond anything
        return
    stored, seen = _sample(bands, clear, scaling)
    seen &= ~is_mark(stored, seen, valid_range)
    if not seen.any():
        return
    picked = stored[seen]
    if valid_range.index:
        _check_index(picked, scaling, valid_range)
    else:
        _check_level(picked, to_reflectance(picked, scaling), scaling, sensor)


def check_scale(dtype: np.dtype[Any], scaling: Scaling, sensor: str | None = None, index: bool = False) -> None:
    """Raise if nothing tells how stored integers become reflectance; that needs no look at any value.

    Parameters
    ----------
    dtype : dtype
        Type of the stored values.
    scaling : Scaling
        How they are stored.
    sensor : {"sentinel-2", "landsat"} or None
        As for `check_reflectance`.
    index : bool
        Whether the bands are indices, such as NDVI.

    Raises
    ------
    ScalingError
        If it has no scale.
    """
    if scaling.scale is None:
        raise ScalingError(
            f"the values are {dtype}, and nothing tells how they become {'the index' if index else 'reflectance'}",
            f"{'the index' if index else 'reflectance'}, or scale= and offset=",
            _usual_index(dtype) if index else _usual(sensor, dtype, scaling),
        )


def _sample(bands: NDArray[Any], clear: NDArray[np.bool_], scaling: Scaling) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Some pixels of a window, (time, pixel, band), and which of them are clear and hold a value in all bands."""
    step = max(1, math.ceil(math.sqrt(clear.shape[1] * clear.shape[2] / SAMPLE)))
    stored = bands[:, :, ::step, ::step]
    seen = clear[:, ::step, ::step] & valid(stored, scaling).all(axis=1)
    # (time, pixel, band), so that one index picks a pixel's whole spectrum.
    stored = np.moveaxis(stored, 1, -1).reshape(len(bands), -1, bands.shape[1])
    return stored, seen.reshape(len(bands), -1)


def _usual(sensor: str | None, dtype: np.dtype[Any], scaling: Scaling, picked: NDArray[Any] | None = None) -> str:
    """What may be typed for digital numbers: the likeliest first, and behind it what else there is."""
    nodata = () if scaling.nodata is not None or dtype.kind == "f" else ("nodata=0",)
    late, early = (option("scale=1e-4", f"offset={offset}", *nodata) for offset in ("-0.1", "0"))
    landsat = option("scale=2.75e-5", "offset=-0.2", *nodata)
    if picked is not None and picked.size and float(np.median(picked)) < 100:
        return either(option("scale=0.01", "offset=0") + "  # percent", AS_IT_IS, by="; or ")
    # With the offset hardly anything is as dark as this.
    if picked is not None and np.count_nonzero(picked < 800) > 0.02 * picked.size:
        sentinel = early + "  # Sentinel-2 before processing baseline 04.00; from it on: " + late
    else:
        sentinel = late + "  # Sentinel-2 from processing baseline 04.00 on; before it: " + early
    if sensor == "sentinel-2":
        return sentinel
    if sensor in ("hls", "modis"):
        mark = (f"nodata={-9999 if sensor == 'hls' else -28672}",) if nodata else ()
        return option("scale=1e-4", "offset=0", *mark) + f"  # {sensor.upper()}"
    if sensor is None and dtype.kind == "i" and (scaling.nodata or 0) < 0:
        # Sentinel-2 with the offset and Landsat Collection 2 are unsigned, and mark what is missing by zero.
        return early + "  # as most archives that mark missing pixels by a negative number; Landsat: " + landsat
    return landsat + "  # Landsat Collection 2" if sensor == "landsat" else sentinel + "; Landsat: " + landsat


def _usual_index(dtype: np.dtype[Any]) -> str:
    """What may be typed for an index that is stored in integers."""
    if dtype.itemsize == 1:
        return option("scale=0.004", "offset=-0.08") + (
            "  # Copernicus Land Monitoring; or what the product's description tells"
        )
    return option("scale=1e-4", "offset=0")


def _mostly(hit: NDArray[np.bool_], share: float = 0.5) -> bool:
    """Whether a quantile lies on the one side, which is cheaper to count than to find."""
    return bool(np.count_nonzero(hit) > share * hit.size)


def _check_index(picked: NDArray[Any], scaling: Scaling, valid_range: ValidRange) -> None:
    share = share_impossible(picked, valid_range)
    if share > 0.5:
        raise ScalingError(
            f"{share:.0%} of the clear values are not {valid_range.meaning}; their median is "
            f"{float(np.median(to_reflectance(picked, scaling))):.6g}",
            "values within these limits, or a scale that brings them there",
            option("scale=1e-4", "offset=0") + ANYWAY,
        )


def _check_zeros(picked: NDArray[Any], date: NDArray[np.intp], times: Times, scaling: Scaling) -> None:
    """Look for zero in all bands at once: no surface, but what archives put where nothing was measured."""
    count = np.bincount(date, minlength=len(times))
    share = np.bincount(date, (picked == 0).all(axis=1), len(times)) / np.maximum(count, 1)
    bad = (share > 0.2) & (count * picked.shape[1] >= _ENOUGH)
    if bad.any():
        raise ScalingError(
            f"{float(share[bad].max()):.0%} of the clear pixels are zero in every band on "
            f"{_days(times[bad])} (nodata {scaling.nodata})",
            "the value that marks pixels without a measurement",
            option("nodata=0"),
        )


def _check_wrapped(
    picked: NDArray[Any], reflectance: NDArray[np.float32], scaling: Scaling, spelling: Spelling
) -> None:
    """Unsigned 500 - 1000 is 65036, and stays 6.5 once it is scaled."""
    if picked.dtype == np.uint16:
        wrapped = (picked > 60000) & (reflectance > 3)
    else:
        wrapped = (reflectance > 6.0) & (reflectance < 6.5536)
    share = float(wrapped.mean())
    if share <= 0.001 or picked.size < _ENOUGH:
        return
    # Percent, say, lie there as well, but not there alone.
    if share > 0.8 * float((reflectance > 2).mean()) and not _mostly(reflectance > 1.5):
        unit = 1.0 if picked.dtype.kind in "iu" or scaling.scale != 1 else 1e-4
        raise ScalingError(
            f"{share:.1%} of the clear values lie just below 65536 digital numbers: an unsigned integer fell "
            "below zero and wrapped",
            "the offset as an argument, or a subtraction in signed integers",
            either(
                spelling.subtract(_WRAP * unit, f"{{cube}} < {60000 * unit:g}", picked.dtype, scaling.nodata),
                option("offset=-0.1") + " with the values as they came",
                by="  # or ",
            ),
        )


def _check_level(picked: NDArray[Any], reflectance: NDArray[np.float32], scaling: Scaling, sensor: str | None) -> None:
    told = f"scale {scaling.scale:g}, offset {scaling.offset:g}, {scaling.source}"
    # A handful of pixels may all be of a cloud that was missed, which saturates at about 2.
    if _mostly(reflectance > (1.5 if reflectance.size >= _ENOUGH else 15.0)):
        middle = float(np.median(reflectance))
        raise ScalingError(
            f"the median of the clear values is {middle:.6g}, which looks like digital numbers ({told})",
            "reflectance, which lies between 0 and about 1",
            _usual(sensor, picked.dtype, scaling, picked),
        )
    if reflectance.size >= _ENOUGH and _mostly(np.abs(reflectance) < 1e-3, 0.99):
        whole = picked.dtype.kind in "iu"
        raise ScalingError(
            f"99 % of the clear values are below 0.001: they seem to be scaled twice ({told})",
            "reflectance, which lies between 0 and about 1",
            _usual(sensor, picked.dtype, scaling, picked) if whole else option("scale=1", "offset=0") + ANYWAY,
        )


def _check_beyond(
    picked: NDArray[Any],
    date: NDArray[np.intp],
    times: Times,
    scaling: Scaling,
    sensor: str | None,
    valid_range: ValidRange,
    spelling: Spelling,
) -> None:
    """Look for dates or bands of which much is beyond what ground can have: a few pixels may be, and are missing."""
    wide = picked.astype(np.float64)
    odd = (wide < valid_range.low) | (wide > valid_range.high)
    if np.count_nonzero(odd) < 0.001 * odd.size:
        return
    count = np.bincount(date, minlength=len(times)) * picked.shape[1]
    share = np.bincount(date, odd.sum(axis=1), len(times)) / np.maximum(count, 1)
    bad = (share > 0.05) & (count >= _ENOUGH)
    if not bad.any():
        return
    there = count > 0
    good = [name for name, part in zip(spelling.bands, odd.mean(axis=0), strict=False) if part < 0.02]
    days = np.unique(times[bad].astype("datetime64[D]")).astype(str).tolist()
    if bad.sum() < 0.5 * there.sum():
        remedy = spelling.except_on(days)
    elif good and len(good) < picked.shape[1]:
        remedy = option(f"bands={good!r}")
    else:
        remedy = _usual(sensor, picked.dtype, scaling, picked)
    raise ScalingError(
        f"{float(share[bad].max()):.0%} of the clear values lie below {LOW:g} or above {HIGH:g} on {_days(times[bad])}",
        "reflectance, which lies between 0 and about 1, on all dates and in all bands",
        remedy + ("" if "#" in remedy else ANYWAY),
    )


def _check_negative(
    reflectance: NDArray[np.float32],
    date: NDArray[np.intp],
    times: Times,
    scaling: Scaling,
    dtype: np.dtype[Any],
    spelling: Spelling,
) -> None:
    """Look for dates that lie deeper than an atmosphere corrected too far, which makes dark pixels -0.04."""
    pixels = np.bincount(date, minlength=len(times))
    count = pixels * reflectance.shape[1]
    share = np.bincount(date, (reflectance < -0.02).sum(axis=1), len(times)) / np.maximum(count, 1)
    deep = np.bincount(date, (reflectance < -0.05).sum(axis=1), len(times)) / np.maximum(count, 1)
    bad = (share > 0.2) & (deep > 0.05) & (count >= _ENOUGH)
    if bad.any():
        if scaling.offset < 0:
            remedy: str = option("offset=0")
            if bad.sum() < (count >= _ENOUGH).sum():
                keep = spelling.on(np.unique(times[bad].astype("datetime64[D]")).astype(str).tolist())
                units = -scaling.offset / (scaling.scale or 1.0)
                mended = spelling.subtract(units, keep, dtype, scaling.nodata)
                remedy = either(
                    remedy + " if it was subtracted on all dates", code(f"if on these alone: {mended}, with offset=0")
                )
        elif bad.sum() < 0.5 * (pixels > 0).sum():
            remedy = spelling.except_on(np.unique(times[bad].astype("datetime64[D]")).astype(str).tolist())
        else:
            remedy = option(f"offset={scaling.offset + OFFSET:g}")
        raise ScalingError(
            f"{float(share[bad].max()):.0%} of the clear values lie below -0.02 on {_days(times[bad])} "
            f"(offset {scaling.offset:g})",
            "reflectance from which the offset was subtracted once",
            remedy + ANYWAY,
        )


def _check_jump(
    reflectance: NDArray[np.float32],
    seen: NDArray[np.bool_],
    times: Times,
    scaling: Scaling,
    dtype: np.dtype[Any],
    spelling: Spelling,
) -> None:
    jumps = find_jumps(reflectance, seen, times)
    if not jumps:
        return
    told = "; ".join(f"{_days(times[[a]])} to {_days(times[[b]])}: {shift:+.3f}" for a, b, shift in jumps[:4])
    bright = brighter_dates(jumps, reflectance, seen, times)
    dates = np.sort(times[bright]).astype("datetime64[D]")
    dark = np.sort(times[~bright]).astype("datetime64[D]")
    if dates[0] > dark[-1]:
        unless = f"cube[{spelling.time!r}] < np.datetime64('{dates[0]}')"
    elif dates[-1] < dark[0]:
        unless = f"cube[{spelling.time!r}] > np.datetime64('{dates[-1]}T23:59:59')"
    else:
        unless = f"~{spelling.on(np.unique(dates).astype(str).tolist())}"
    raise ScalingError(
        f"all bands shift by about 0.1 between dates ({told}): some items carry the offset of processing baseline "
        "04.00 and some do not",
        "one offset for all dates",
        spelling.subtract(OFFSET / (scaling.scale or 1.0), unless, dtype, scaling.nodata) + ANYWAY,
    )


def _check_edge(
    bands: NDArray[Any],
    clear: NDArray[np.bool_],
    times: Times,
    scaling: Scaling,
    valid_range: ValidRange | None,
    spelling: Spelling,
) -> None:
    edge = find_edge(bands, clear, scaling, valid_range)
    if edge is None:
        return
    value = f"{edge.value:.17g}" if bands.dtype.kind in "iu" else repr(edge.value)
    raise ScalingError(
        f"{edge.pixels} clear pixels at the edge hold {edge.value:.7g} on {_days(times[[edge.date]])}, in {edge.bands} "
        f"of {bands.shape[1]} bands, where other dates vary (nodata {scaling.nodata})",
        "the value that marks pixels without a measurement",
        (option(f"nodata={value}") if scaling.nodata is None else spelling.replace(value, scaling.nodata)) + ANYWAY,
    )


def _days(times: Times) -> str:
    days = [str(day) for day in np.sort(times).astype("datetime64[D]")]
    return ", ".join(days[:6]) + (f" and {len(days) - 6} more" if len(days) > 6 else "")


def check_classes(
    bands: NDArray[Any], names: Sequence[str], common_names: Sequence[str | None], seen: NDArray[np.bool_]
) -> None:
    """Raise if a band of unknown name holds classes or bits while others hold measurements.

    Parameters
    ----------
    bands : ndarray, shape (time, band, y, x)
        Values as stored.
    names : sequence of str
        Names of the bands.
    common_names : sequence of (str or None)
        Their STAC common names; bands that have one are not looked at.
    seen : ndarray of bool, shape (time, y, x)
        Pixels that are looked at.

    Raises
    ------
    BandError
        If a band holds few whole numbers below 256, and another one many values.
    """
    unknown = [i for i, role in enumerate(common_names) if role is None]
    if not unknown or len(names) < 2:
        return
    step = max(1, math.ceil(math.sqrt(seen.shape[1] * seen.shape[2] / SAMPLE)))
    where = seen[:, ::step, ::step]

    def values(band: int) -> NDArray[Any]:
        sample = bands[:, band, ::step, ::step][where]
        return np.unique(sample[np.isfinite(sample)])

    for band in unknown:
        found = values(band)
        few = 2 <= found.size <= _CLASSES and 0 <= found[0] and found[-1] < 256 and (found == np.rint(found)).all()
        if few and any(values(other).size > 4 * _CLASSES for other in range(len(names)) if other != band):
            rest = [name for name in names if name != names[band]]
            raise BandError(
                f"the band {names[band]!r} holds the whole numbers {', '.join(f'{v:g}' for v in found[:8])}, as "
                "classes do",
                "reflectance in each band; a quality layer goes beside them, as mask=",
                option(f"bands={rest}"),
            )
