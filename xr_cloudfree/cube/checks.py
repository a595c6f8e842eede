"""Checks of the values of a window: whether they can be reflectance under the given scaling.

Each check uses a strided sample of the window or its border, so it costs little, and is designed to pass on any real
scene: dark water, snow, haze that the mask missed.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.offset_jumps import OFFSET, Times, brighter_dates, find_jumps
from xr_cloudfree.cube.remedies import ANYWAY, AS_IT_IS, Spelling
from xr_cloudfree.cube.scaling import Scaling, to_reflectance, valid
from xr_cloudfree.cube.sensors import Encoding, find_sensor
from xr_cloudfree.cube.swath_edges import find_edge
from xr_cloudfree.cube.validity import HIGH, LOW, ValidRange, fraction_outside, is_fill_value
from xr_cloudfree.errors import BandError, ScalingError, code, either, option

SAMPLE = 2048  # pixels per date
_ENOUGH = 256  # least number of values for a statistic
_CLASSES = 24  # largest number of distinct values in a layer of classes
_WRAP = 65536  # modulus of unsigned 16-bit integers


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
        Pixels to check.
    scaling : Scaling
        How the values are stored.
    times : ndarray of datetime64, shape (time,)
        Dates, in any order.
    sensor : str or None
        Family of the sensor, for its usual scaling in the remedy.
    common_names : sequence of (str or None)
        STAC common name per band, for messages.
    valid_range : ValidRange, optional
        Values that can be measurements; others are skipped. For the range of an index, the only check is that most
        values lie within its limits.
    spelling : Spelling, optional
        Names in the user's cube, for remedies.

    Raises
    ------
    ScalingError
        If integers have no known scale; if the values look like digital numbers, were scaled twice or wrapped below
        zero; if nodata is missing; if the offset was subtracted twice, or on some dates only; if many values are
        outside the range of ground, or one value fills an edge of the window.
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
        seen &= ~is_fill_value(stored, seen, valid_range)
        if not seen.any():
            return
        date = np.nonzero(seen)[0]
    sample = stored[seen]
    reflectance = to_reflectance(sample, scaling)
    _check_wrapped(sample, reflectance, scaling, spelling)
    _check_level(sample, reflectance, scaling, sensor)
    if valid_range is not None:
        _check_beyond(sample, date, times, scaling, sensor, valid_range, spelling)
    _check_negative(reflectance, date, times, scaling, sample.dtype, spelling)
    _check_jump(to_reflectance(stored, scaling), seen, times, scaling, stored.dtype, spelling)
    _check_edge(bands, clear, times, scaling, valid_range, spelling)


def check_level(
    bands: NDArray[Any],
    clear: NDArray[np.bool_],
    scaling: Scaling,
    valid_range: ValidRange,
    sensor: str | None = None,
) -> None:
    """Raise if most clear values of a window are outside the valid range, so that they would all be missing.

    Parameters
    ----------
    bands : ndarray, shape (time, band, y, x)
        Values as stored.
    clear : ndarray of bool, shape (time, y, x)
        Pixels to check.
    scaling : Scaling
        How the values are stored.
    valid_range : ValidRange
        Values that can be measurements.
    sensor : str or None
        Family of the sensor.

    Raises
    ------
    ScalingError
        If the median cannot be reflectance, or is outside the limits of an index.
    """
    if scaling.scale is None:  # then the range is unlimited
        return
    stored, seen = _sample(bands, clear, scaling)
    seen &= ~is_fill_value(stored, seen, valid_range)
    if not seen.any():
        return
    sample = stored[seen]
    if valid_range.index:
        _check_index(sample, scaling, valid_range)
    else:
        _check_level(sample, to_reflectance(sample, scaling), scaling, sensor)


def check_scale(dtype: np.dtype[Any], scaling: Scaling, sensor: str | None = None, index: bool = False) -> None:
    """Raise if the scale of stored integers is unknown. No value is used.

    Parameters
    ----------
    dtype : dtype
        Type of the stored values.
    scaling : Scaling
        How they are stored.
    sensor : str or None
        Family of the sensor.
    index : bool
        Whether the bands are indices, such as NDVI.

    Raises
    ------
    ScalingError
        If there is no scale.
    """
    if scaling.scale is None:
        quantity = "the index" if index else "reflectance"
        raise ScalingError(
            f"the values are {dtype}, with unknown scale to {quantity}",
            f"{quantity}, or scale= and offset=",
            _usual_index(dtype) if index else _usual(sensor, dtype, scaling),
        )


def _sample(bands: NDArray[Any], clear: NDArray[np.bool_], scaling: Scaling) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Return a sample of pixels (time, pixel, band), and which of them are clear and valid in all bands."""
    step = max(1, math.ceil(math.sqrt(clear.shape[1] * clear.shape[2] / SAMPLE)))
    stored = bands[:, :, ::step, ::step]
    seen = clear[:, ::step, ::step] & valid(stored, scaling).all(axis=1)
    # (time, pixel, band), so that one index selects a whole spectrum.
    stored = np.moveaxis(stored, 1, -1).reshape(len(bands), -1, bands.shape[1])
    return stored, seen.reshape(len(bands), -1)


def _usual(sensor: str | None, dtype: np.dtype[Any], scaling: Scaling, sample: NDArray[Any] | None = None) -> str:
    """Return the options for digital numbers: the most likely encoding first, followed by the alternatives."""
    if sample is not None and sample.size and float(np.median(sample)) < 100:
        return either(option("scale=0.01", "offset=0") + "  # percent", AS_IT_IS, by="; or ")
    own = find_sensor(sensor).encodings if sensor is not None else ()
    encodings = list(own or find_sensor("sentinel-2").encodings)
    # With an offset hardly any pixel is as dark as this.
    if sample is not None and np.count_nonzero(sample < 800) > 0.02 * sample.size:
        encodings.sort(key=lambda encoding: encoding.offset != 0)
    if not own and dtype.kind == "i" and (scaling.nodata or 0) < 0:
        # Sentinel-2 with the offset and Landsat Collection 2 are unsigned, with nodata 0.
        encodings = [Encoding("most archives with negative nodata", 1e-4)]
    if not own:
        encodings += find_sensor("landsat").encodings
    with_nodata = scaling.nodata is None and dtype.kind != "f"
    first, *others = encodings
    remedy = option(*first.options(with_nodata)) + f"  # {first.product}"
    for other in others:
        remedy = remedy + f"; {other.product}: " + option(*other.options(with_nodata))
    return remedy


def _usual_index(dtype: np.dtype[Any]) -> str:
    """Return the options for an index stored as integers."""
    if dtype.itemsize == 1:
        comment = "  # Copernicus Land Monitoring; or as in the product's description"
        return option("scale=0.004", "offset=-0.08") + comment
    return option("scale=1e-4", "offset=0")


def _mostly(hit: NDArray[np.bool_], share: float = 0.5) -> bool:
    """Return whether more than a share is True: whether a quantile exceeds a limit, cheaper than by the quantile."""
    return bool(np.count_nonzero(hit) > share * hit.size)


def _check_index(sample: NDArray[Any], scaling: Scaling, valid_range: ValidRange) -> None:
    share = fraction_outside(sample, valid_range)
    if share > 0.5:
        raise ScalingError(
            f"{share:.0%} of the clear values are not {valid_range.quantity}; their median is "
            f"{float(np.median(to_reflectance(sample, scaling))):.6g}",
            "values within these limits, or their scale",
            option("scale=1e-4", "offset=0") + ANYWAY,
        )


def _check_zeros(sample: NDArray[Any], date: NDArray[np.intp], times: Times, scaling: Scaling) -> None:
    """Raise if many pixels are zero in all bands, which archives write for missing pixels."""
    count = np.bincount(date, minlength=len(times))
    share = np.bincount(date, (sample == 0).all(axis=1), len(times)) / np.maximum(count, 1)
    bad = (share > 0.2) & (count * sample.shape[1] >= _ENOUGH)
    if bad.any():
        raise ScalingError(
            f"{float(share[bad].max()):.0%} of the clear pixels are zero in every band on "
            f"{_days(times[bad])} (nodata {scaling.nodata})",
            "the value of pixels without a measurement",
            option("nodata=0"),
        )


def _check_wrapped(
    sample: NDArray[Any], reflectance: NDArray[np.float32], scaling: Scaling, spelling: Spelling
) -> None:
    """Raise if unsigned integers wrapped below zero: 500 - 1000 is 65036, or 6.5 after scaling."""
    if sample.dtype == np.uint16:
        wrapped = (sample > 60000) & (reflectance > 3)
    else:
        wrapped = (reflectance > 6.0) & (reflectance < 6.5536)
    share = float(wrapped.mean())
    if share <= 0.001 or sample.size < _ENOUGH:
        return
    # Percentages, for instance, are also this high, but not exclusively.
    if share > 0.8 * float((reflectance > 2).mean()) and not _mostly(reflectance > 1.5):
        unit = 1.0 if sample.dtype.kind in "iu" or scaling.scale != 1 else 1e-4
        raise ScalingError(
            f"{share:.1%} of the clear values lie just below 65536 digital numbers: an unsigned integer "
            "wrapped below zero",
            "the offset as an argument, or a subtraction in signed integers",
            either(
                spelling.subtract(_WRAP * unit, f"{{cube}} < {60000 * unit:g}", sample.dtype, scaling.nodata),
                option("offset=-0.1") + " with the original values",
                by="  # or ",
            ),
        )


def _check_level(sample: NDArray[Any], reflectance: NDArray[np.float32], scaling: Scaling, sensor: str | None) -> None:
    description = f"scale {scaling.scale:g}, offset {scaling.offset:g}, {scaling.source}"
    # A few pixels may all belong to a missed cloud, which saturates at about 2.
    if _mostly(reflectance > (1.5 if reflectance.size >= _ENOUGH else 15.0)):
        middle = float(np.median(reflectance))
        raise ScalingError(
            f"the median of the clear values is {middle:.6g}, which looks like digital numbers ({description})",
            "reflectance, which lies between 0 and about 1",
            _usual(sensor, sample.dtype, scaling, sample),
        )
    if reflectance.size >= _ENOUGH and _mostly(np.abs(reflectance) < 1e-3, 0.99):
        is_integer = sample.dtype.kind in "iu"
        raise ScalingError(
            f"99 % of the clear values are below 0.001: they seem to be scaled twice ({description})",
            "reflectance, which lies between 0 and about 1",
            _usual(sensor, sample.dtype, scaling, sample) if is_integer else option("scale=1", "offset=0") + ANYWAY,
        )


def _check_beyond(
    sample: NDArray[Any],
    date: NDArray[np.intp],
    times: Times,
    scaling: Scaling,
    sensor: str | None,
    valid_range: ValidRange,
    spelling: Spelling,
) -> None:
    """Raise if many values of a date or band are outside the range of ground; a few count as missing."""
    wide = sample.astype(np.float64)
    odd = (wide < valid_range.low) | (wide > valid_range.high)
    if np.count_nonzero(odd) < 0.001 * odd.size:
        return
    count = np.bincount(date, minlength=len(times)) * sample.shape[1]
    share = np.bincount(date, odd.sum(axis=1), len(times)) / np.maximum(count, 1)
    bad = (share > 0.05) & (count >= _ENOUGH)
    if not bad.any():
        return
    present = count > 0
    good = [name for name, part in zip(spelling.bands, odd.mean(axis=0), strict=False) if part < 0.02]
    days = np.unique(times[bad].astype("datetime64[D]")).astype(str).tolist()
    if bad.sum() < 0.5 * present.sum():
        remedy = spelling.except_on(days)
    elif good and len(good) < sample.shape[1]:
        remedy = option(f"bands={good!r}")
    else:
        remedy = _usual(sensor, sample.dtype, scaling, sample)
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
    """Raise for dates darker than an overcorrected atmosphere makes dark pixels (-0.04)."""
    pixels = np.bincount(date, minlength=len(times))
    count = pixels * reflectance.shape[1]
    share = np.bincount(date, (reflectance < -0.02).sum(axis=1), len(times)) / np.maximum(count, 1)
    deep = np.bincount(date, (reflectance < -0.05).sum(axis=1), len(times)) / np.maximum(count, 1)
    bad = (share > 0.2) & (deep > 0.05) & (count >= _ENOUGH)
    if bad.any():
        found = np.unique(times[bad].astype("datetime64[D]")).astype(str).tolist()
        items = spelling.items_on(found)
        if scaling.offset < 0 and items:
            remedy: str = spelling.reload(found, 0) + "  # if the archive has subtracted the offset from them"
        elif scaling.offset < 0:
            remedy = option("offset=0")
            if bad.sum() < (count >= _ENOUGH).sum():
                keep = spelling.on(np.unique(times[bad].astype("datetime64[D]")).astype(str).tolist())
                units = -scaling.offset / (scaling.scale or 1.0)
                corrected = spelling.subtract(units, keep, dtype, scaling.nodata)
                remedy = either(
                    remedy + " if it was subtracted on all dates", code(f"if on these only: {corrected}, with offset=0")
                )
        elif bad.sum() < 0.5 * (pixels > 0).sum():
            remedy = spelling.except_on(np.unique(times[bad].astype("datetime64[D]")).astype(str).tolist())
        else:
            remedy = option(f"offset={scaling.offset + OFFSET:g}")
        raise ScalingError(
            f"{float(share[bad].max()):.0%} of the clear values lie below -0.02 on {_days(times[bad])} "
            f"(offset {scaling.offset:g})" + (f", items {', '.join(items)}" if items else ""),
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
    shifts = "; ".join(f"{_days(times[[a]])} to {_days(times[[b]])}: {shift:+.3f}" for a, b, shift in jumps[:4])
    bright = brighter_dates(jumps, reflectance, seen, times)
    dates = np.sort(times[bright]).astype("datetime64[D]")
    dark = np.sort(times[~bright]).astype("datetime64[D]")
    if dates[0] > dark[-1]:
        unless = f"cube[{spelling.time!r}] < np.datetime64('{dates[0]}')"
    elif dates[-1] < dark[0]:
        unless = f"cube[{spelling.time!r}] > np.datetime64('{dates[-1]}T23:59:59')"
    else:
        unless = f"~{spelling.on(np.unique(dates).astype(str).tolist())}"
    remedy, told = spelling.subtract(OFFSET / (scaling.scale or 1.0), unless, dtype, scaling.nodata), ""
    brighter, darker = (np.unique(days).astype(str).tolist() for days in (dates, dark))
    if spelling.items_on(brighter) and spelling.items_on(darker):
        told = f": {', '.join(spelling.items_on(brighter))} are brighter than {', '.join(spelling.items_on(darker))}"
        ways = [
            spelling.reload(brighter, -OFFSET) + "  # if these have it",
            spelling.reload(darker, 0) + "  # if it was subtracted from these",
        ]
        # If values of the darker ones are below zero, these are the wrong ones.
        below = (reflectance[~bright][seen[~bright]] < -0.01).mean() > 0.01
        remedy = either(*(ways[::-1] if below else ways), by="; or ")
    raise ScalingError(
        f"all bands shift by about 0.1 between dates ({shifts}): some items have the offset of processing baseline "
        f"04.00 and some do not{told}",
        "one offset for all dates",
        remedy + ANYWAY,
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
        f"of {bands.shape[1]} bands, while other dates vary there (nodata {scaling.nodata})",
        "the value of pixels without a measurement",
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
        Their STAC common names; bands that have one are not checked.
    seen : ndarray of bool, shape (time, y, x)
        Pixels to check.

    Raises
    ------
    BandError
        If a band holds few integers below 256, and another one many values.
    """
    unknown = [i for i, name in enumerate(common_names) if name is None]
    if not unknown or len(names) < 2:
        return
    step = max(1, math.ceil(math.sqrt(seen.shape[1] * seen.shape[2] / SAMPLE)))
    sampled = seen[:, ::step, ::step]

    def distinct(band: int) -> NDArray[Any]:
        sample = bands[:, band, ::step, ::step][sampled]
        return np.unique(sample[np.isfinite(sample)])

    for band in unknown:
        values = distinct(band)
        few = 2 <= values.size <= _CLASSES and 0 <= values[0] and values[-1] < 256 and (values == np.rint(values)).all()
        if few and any(distinct(other).size > 4 * _CLASSES for other in range(len(names)) if other != band):
            rest = [name for name in names if name != names[band]]
            raise BandError(
                f"the band {names[band]!r} holds only the integers {', '.join(f'{v:g}' for v in values[:8])}, like "
                "a layer of classes",
                "reflectance in each band; pass a quality layer separately, as mask=",
                option(f"bands={rest}"),
            )
