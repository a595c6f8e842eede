"""What only values can tell: whether they are reflectance at all.

Each check looks at a strided sample of one window, so that it costs little beside the work on the window, and
is meant to stay silent on any real scene: dark water, snow, haze that the mask missed.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import Any, NoReturn

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.scaling import Scaling, to_reflectance, valid
from xr_cloudfree.errors import BandError, ScalingError

ANYWAY = "  # or check=False, if the values are as they should be"
SAMPLE = 2048  # pixels per date
_ENOUGH = 256  # values below which a statistic says nothing
_CLASSES = 24  # different values that a layer of classes has at most
_USUAL = {
    "sentinel-2": "scale=1e-4, offset=-0.1, nodata=0 from processing baseline 04.00 on, else offset=0",
    "landsat": "scale=2.75e-5, offset=-0.2, nodata=0",
}

Times = NDArray[np.datetime64]


def check_reflectance(
    bands: NDArray[Any],
    clear: NDArray[np.bool_],
    scaling: Scaling,
    times: Times,
    sensor: str | None = None,
    roles: Sequence[str | None] = (),
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
        Sensor, whose usual scaling the remedy names. Offset jumps are looked for on Sentinel-2 alone.
    roles : sequence of (str or None)
        STAC common name per band, for messages.

    Raises
    ------
    ScalingError
        If nothing tells the scale of integers; if the values look like digital numbers, were scaled twice or
        wrapped below zero; if nodata was not told; if the offset was subtracted twice, or on some dates only.
    """
    check_scale(bands.dtype, scaling, sensor)
    step = max(1, math.ceil(math.sqrt(clear.shape[1] * clear.shape[2] / SAMPLE)))
    stored = bands[:, :, ::step, ::step]
    seen = clear[:, ::step, ::step] & valid(stored, scaling).all(axis=1)
    if not seen.any():
        return
    # (time, pixel, band), so that one index picks a pixel's whole spectrum.
    stored = np.moveaxis(stored, 1, -1).reshape(len(times), -1, bands.shape[1])
    seen = seen.reshape(len(times), -1)
    picked = stored[seen]
    reflectance = to_reflectance(picked, scaling)

    date = np.nonzero(seen)[0]
    _check_zeros(picked, date, times, scaling)
    _check_wrapped(picked, reflectance)
    _check_level(reflectance, scaling, sensor)
    _check_negative(reflectance, date, times, scaling)
    if sensor == "sentinel-2":
        _check_jump(to_reflectance(stored, scaling), seen, times, scaling)


def check_scale(dtype: np.dtype[Any], scaling: Scaling, sensor: str | None = None) -> None:
    """Raise if nothing tells how stored integers become reflectance; that needs no look at any value.

    Parameters
    ----------
    dtype : dtype
        Type of the stored values.
    scaling : Scaling
        How they are stored.
    sensor : {"sentinel-2", "landsat"} or None
        As for `check_reflectance`.

    Raises
    ------
    ScalingError
        If it has no scale.
    """
    if scaling.scale is None:
        raise ScalingError(
            f"the values are {dtype}, and nothing tells how they become reflectance",
            "reflectance, or scale= and offset=",
            _usual(sensor),
        )


def _usual(sensor: str | None) -> str:
    if sensor in _USUAL:
        return _USUAL[sensor]
    return "; ".join(f"{name}: {told}" for name, told in _USUAL.items())


def _mostly(hit: NDArray[np.bool_], share: float = 0.5) -> bool:
    """Whether a quantile lies on the one side, which is cheaper to count than to find."""
    return bool(np.count_nonzero(hit) > share * hit.size)


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
            "nodata=0",
        )


def _check_wrapped(picked: NDArray[Any], reflectance: NDArray[np.float32]) -> None:
    """Unsigned 500 - 1000 is 65036, and stays 6.5 once it is scaled."""
    if picked.dtype == np.uint16:
        wrapped = (picked > 60000) & (reflectance > 3)
    else:
        wrapped = (reflectance > 6.0) & (reflectance < 6.5536)
    share = float(wrapped.mean())
    if picked.size >= _ENOUGH and share > 0.001 and not _mostly(reflectance > 1.5):
        raise ScalingError(
            f"{share:.1%} of the clear values lie just below 65536 digital numbers: an unsigned integer fell "
            "below zero and wrapped",
            "the offset as an argument, or a subtraction in signed integers",
            "offset=-0.1 on the values as they came, or cube.astype('int32') - 1000",
        )


def _check_level(reflectance: NDArray[np.float32], scaling: Scaling, sensor: str | None) -> None:
    told = f"scale {scaling.scale:g}, offset {scaling.offset:g}, {scaling.source}"
    # A handful of pixels may all be of a cloud that was missed, which saturates at about 2.
    if _mostly(reflectance > (1.5 if reflectance.size >= _ENOUGH else 15.0)):
        middle = float(np.median(reflectance))
        raise ScalingError(
            f"the median of the clear values is {middle:.6g}, which looks like digital numbers ({told})",
            "reflectance, which lies between 0 and about 1",
            _usual(sensor) + ANYWAY,
        )
    if reflectance.size >= _ENOUGH and _mostly(np.abs(reflectance) < 1e-3, 0.99):
        raise ScalingError(
            f"99 % of the clear values are below 0.001: they seem to be scaled twice ({told})",
            "reflectance, which lies between 0 and about 1",
            "leave scale= out, or scale=1 for values that are reflectance already" + ANYWAY,
        )


def _check_negative(reflectance: NDArray[np.float32], date: NDArray[np.intp], times: Times, scaling: Scaling) -> None:
    """Look for dates that lie deeper than an atmosphere corrected too far, which makes dark pixels -0.04."""
    count = np.bincount(date, minlength=len(times)) * reflectance.shape[1]
    share = np.bincount(date, (reflectance < -0.02).sum(axis=1), len(times)) / np.maximum(count, 1)
    deep = np.bincount(date, (reflectance < -0.05).sum(axis=1), len(times)) / np.maximum(count, 1)
    bad = (share > 0.2) & (deep > 0.05) & (count >= _ENOUGH)
    if bad.any():
        raise ScalingError(
            f"{float(share[bad].max()):.0%} of the clear values lie below -0.02 on {_days(times[bad])} "
            f"(offset {scaling.offset:g})",
            "reflectance from which the offset was subtracted once",
            "offset=0 if it was subtracted before, or leave these dates out" + ANYWAY,
        )


def _check_jump(reflectance: NDArray[np.float32], seen: NDArray[np.bool_], times: Times, scaling: Scaling) -> None:
    """Look for neighbouring dates between which all bands shift alike, by an offset of 0.1.

    Haze brightens dark bands more than bright ones, and seldom as much where it is thinnest. So a bright band
    is needed to tell by, and the darkest pixels have to shift like the others.
    """
    order = np.argsort(times, kind="stable")
    order = order[seen[order].sum(axis=1) >= _ENOUGH]
    jumps: list[tuple[int, int, float]] = []
    for before, after in itertools.pairwise(order.tolist()):
        both = seen[before] & seen[after]
        if both.sum() < _ENOUGH or reflectance.shape[2] < 3:
            continue
        one_band = reflectance[after, both, 0] - reflectance[before, both, 0]
        if abs(abs(np.median(one_band)) - 0.1) > 0.02:  # as nearly always: the others need no look
            continue
        earlier, later = reflectance[before, both], reflectance[after, both]
        change = later - earlier
        low, middle, high = np.percentile(change, (25, 50, 75), axis=0)
        shift = float(middle.mean())
        darkest = np.percentile(later, 2, axis=0) - np.percentile(earlier, 2, axis=0)
        near = (np.abs(np.abs((middle, darkest)) - 0.1) < 0.02).all() and np.ptp(middle) < 0.02
        if near and (high - low).max() < 0.04 and np.ptp(np.median(earlier, axis=0)) > 0.1:
            jumps.append((before, after, shift))
    if jumps:
        _tell_jumps(jumps, order.tolist(), times, scaling)


def _tell_jumps(jumps: list[tuple[int, int, float]], order: list[int], times: Times, scaling: Scaling) -> NoReturn:
    told = "; ".join(f"{_days(times[[a]])} to {_days(times[[b]])}: {shift:+.3f}" for a, b, shift in jumps[:4])
    if len(jumps) == 1:
        side = "<" if jumps[0][2] > 0 else ">="
        right = f"cube.time {side} np.datetime64('{_days(times[[jumps[0][1]]])}')"
    else:
        shifts = {after: shift for _, after, shift in jumps}
        bright, higher = jumps[0][2] < 0, []
        for date in order:
            bright = shifts.get(date, 0) > 0 or (bright and date not in shifts)
            if bright:
                higher.append(str(times[date].astype("datetime64[D]")))
        right = f"~cube.time.dt.strftime('%Y-%m-%d').isin({higher})"
    raise ScalingError(
        f"all bands shift by about 0.1 between neighbouring dates ({told}): some items carry the offset of "
        "processing baseline 04.00 and some do not",
        "one offset for all dates",
        f"cube.where({right}, cube.astype('float32') - {0.1 / (scaling.scale or 1.0):g})" + ANYWAY,
    )


def _days(times: Times) -> str:
    days = [str(day) for day in np.sort(times).astype("datetime64[D]")]
    return ", ".join(days[:6]) + (f" and {len(days) - 6} more" if len(days) > 6 else "")


def check_classes(
    bands: NDArray[Any], names: Sequence[str], roles: Sequence[str | None], seen: NDArray[np.bool_]
) -> None:
    """Raise if a band of unknown name holds classes or bits while others hold measurements.

    Parameters
    ----------
    bands : ndarray, shape (time, band, y, x)
        Values as stored.
    names : sequence of str
        Names of the bands.
    roles : sequence of (str or None)
        Their STAC common names; bands that have one are not looked at.
    seen : ndarray of bool, shape (time, y, x)
        Pixels that are looked at.

    Raises
    ------
    BandError
        If a band holds few whole numbers below 256, and another one many values.
    """
    unknown = [i for i, role in enumerate(roles) if role is None]
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
                f"bands={rest}",
            )
