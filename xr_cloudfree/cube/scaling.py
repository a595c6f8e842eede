"""Scaling of stored values: ``reflectance = stored * scale + offset``, and back without integer overflow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Real
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.cube.archives import (
    APPLIED,
    BASELINE,
    SENTINEL,
    BandEncoding,
    offset_applied,
    parse_number,
    read_encoding,
    sentinel_offsets,
)
from xr_cloudfree.cube.attributes import pending, same_number
from xr_cloudfree.cube.remedies import Spelling
from xr_cloudfree.errors import OptionError, OptionTypeError, ScalingError, code, either, option

# Beyond this and its inverse, scaled values would overflow float32.
MIN_SCALE = 1e-12
# Keys of a variable's encoding that concern its values; the rest (chunks, compression) concerns the old file.
NODATA_KEYS = ("_FillValue", "missing_value", "nodata")
PACKING = ("dtype", "scale_factor", "add_offset", "_FillValue", "grid_mapping")


@dataclass(frozen=True)
class Scaling:
    """How stored numbers become reflectance.

    Parameters
    ----------
    scale : float or None
        Reflectance per stored unit. None: integers with unknown scale.
    offset : float
        Reflectance of a stored zero.
    nodata : float or None
        Stored value of pixels without a measurement, in addition to NaN.
    source : str
        Source of the scale, for messages.
    """

    scale: float | None = 1.0
    offset: float = 0.0
    nodata: float | None = None
    source: str = "float values are reflectance"


def resolve_scaling(
    arrays: Sequence[xr.DataArray],
    *,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    spelling: Spelling | None = None,
    index: bool = False,
) -> Scaling:
    """Return the scaling of a cube from the arguments, else from metadata, else from the dtype.

    Metadata take precedence in this order: those of the bands (see `read_encoding`), the processing baseline of
    Sentinel-2, the attributes ``scale_factor`` and ``add_offset``. As attributes these are still to be applied; in the
    encoding they were applied when the cube was opened. Metadata of archives are used for integers only. Nothing is
    computed.

    Parameters
    ----------
    arrays : sequence of DataArray
        The bands, or the one array with all bands.
    scale, offset, nodata : float, optional
        The user's options, which take precedence over metadata.
    spelling : Spelling, optional
        Names in the user's cube, for remedies.
    index : bool
        Whether the bands are indices, such as NDVI.

    Returns
    -------
    Scaling
        One scaling for all bands. `Scaling.scale` is None for integers with unknown scale, which is an error only
        once values are needed.

    Raises
    ------
    ScalingError
        If bands or dates differ, metadata cannot be read or contradict each other, the offset is in digital numbers,
        or nodata does not fit the dtype.
    OptionError
        If an argument is not a number, or the scale is not positive.

    Examples
    --------
    >>> band = xr.DataArray(np.zeros((1, 2, 2), np.uint16), attrs={"nodata": 0})
    >>> resolve_scaling([band], scale=1e-4, offset=-0.1)
    Scaling(scale=0.0001, offset=-0.1, nodata=0.0, source='scale=')
    """
    spelling = spelling or Spelling()
    example = _example(arrays[0])
    for name, value in (("scale", scale), ("offset", offset), ("nodata", nodata)):
        if value is not None and (isinstance(value, bool | np.bool_) or not isinstance(value, Real)):
            raise OptionTypeError(f"{name} is {value!r}", "a number", example)
        try:
            float(value or 0)
        except OverflowError as error:  # Python integers are unlimited
            raise OptionError(f"{name} is a number of more than 300 digits", "a smaller one", example) from error
    if scale is not None and not MIN_SCALE <= float(scale) <= 1 / MIN_SCALE:
        raise OptionError(f"scale is {scale}", "a positive number, usually below 1", example)
    if offset is not None and not np.isfinite(float(offset)):
        raise OptionError(f"offset is {offset}", "a finite number", example)
    numbers = [None if value is None else float(value) for value in (scale, offset, nodata)]
    options = BandEncoding(numbers[0], numbers[1], numbers[2], "scale=")
    scalings: list[tuple[str, Scaling]] = []
    for array in arrays:
        labels = array["band"].to_numpy().tolist() if "band" in array.coords and array["band"].ndim else [array.name]
        bands = [_band_scaling(array, options, band, index) for band in _metadata(array, options, spelling)]
        scalings += zip(map(str, labels), bands * len(labels), strict=False)
    first = scalings[0][1]
    for name, other in scalings:
        if other != first:
            alike = [label for label, scaling in scalings if scaling == first]
            raise ScalingError(
                f"the bands have different encodings: {_describe(*scalings[0])}; {_describe(name, other)}",
                "one scale, offset and nodata for all bands",
                either(
                    option(f"bands={alike!r}") + "  # the bands with the encoding of the first",
                    option("scale=", "offset=") + " and " + option("nodata=") + " if the metadata are wrong",
                    by="; or ",
                ),
            )
    return first


def _example(array: xr.DataArray) -> str:
    """Return the most likely options for values of this dtype."""
    if array.dtype.kind == "f":
        return option("scale=1", "offset=0")
    nodata = () if set(NODATA_KEYS) & set(array.attrs) else ("nodata=0",)
    return option("scale=1e-4", "offset=0", *nodata)


def _metadata(array: xr.DataArray, options: BandEncoding, spelling: Spelling) -> list[BandEncoding]:
    """Return the encoding in the metadata of an integer array; for floats it has been applied already."""
    if array.dtype.kind not in "iu" or (options.scale is not None and options.offset is not None):
        bands = read_encoding(array) if array.dtype.kind in "iu" and options.nodata is None else []
        return [BandEncoding(nodata=band.nodata) for band in bands] or [BandEncoding()]
    bands = read_encoding(array)
    offsets = sentinel_offsets(array)
    if options.offset is not None:
        offsets = None if offsets is None else np.array([options.offset])
    elif offsets is not None and np.ptp(offsets):
        low = offsets < 0
        days = np.unique(array["time"].to_numpy()[low].astype("datetime64[D]")).astype(str).tolist()
        fill = _first_nodata(array, options, bands)
        keep = f"~{spelling.on(days)}"
        scale = options.scale or SENTINEL.scale
        raise ScalingError(
            f"{int(low.sum())} of {low.size} dates have the offset of processing baseline 04.00, according to "
            f"{BASELINE}",
            "one offset for all dates",
            code(
                f"{spelling.subtract(-SENTINEL.offset * (1 / scale), keep, array.dtype, fill)}, with "
                f"scale={scale:g}, offset=0"
            ),
        )
    applied = offset_applied(array)
    if options.offset is None and applied is not None and applied.all() and any(band.offset for band in bands):
        raise ScalingError(
            f"{bands[0].source} has the offset {next(band.offset for band in bands if band.offset):g}, but according "
            f"to {APPLIED} it was subtracted already",
            "one offset",
            either(option("offset=0"), "the offset itself, if it was not subtracted", by="  # or "),
        )
    if offsets is None:
        return bands or [BandEncoding()]
    by_baseline = BandEncoding(SENTINEL.scale, float(offsets[0]), None, BASELINE)
    if not bands:
        return [by_baseline]
    return [
        BandEncoding(
            by_baseline.scale if band.scale is None else band.scale,
            by_baseline.offset if band.offset is None else band.offset,
            band.nodata,
            by_baseline.source if band.scale is None else band.source,
        )
        for band in bands
    ]


def _first_nodata(array: xr.DataArray, options: BandEncoding, bands: list[BandEncoding]) -> float | None:
    attrs = [parse_number(array.attrs.get(key), key) for key in NODATA_KEYS]
    values = (options.nodata, *attrs, *(band.nodata for band in bands))
    return next((value for value in values if value is not None and not np.isnan(value)), None)


def _band_scaling(array: xr.DataArray, options: BandEncoding, band: BandEncoding, index: bool) -> Scaling:
    attrs = pending(array)
    scale_attr = None if options.scale is not None else parse_number(attrs.get("scale_factor"), "scale_factor")
    offset_attr = None if options.offset is not None else parse_number(attrs.get("add_offset"), "add_offset")
    if array.dtype.kind in "iu" and scale_attr == 1 and not offset_attr:
        # Some readers write 1 and 0 for a file without scale and offset, and integers cannot be reflectance.
        scale_attr = offset_attr = None
    scale: float | None
    if options.scale is not None:
        scale, source = options.scale, options.source
    elif band.scale is not None and not (band.scale == 1 and not band.offset):
        scale, source = band.scale, band.source
    elif scale_attr is not None:
        scale, source = scale_attr, "attribute scale_factor"
    elif array.dtype.kind == "f":
        scale, source = 1.0, "float values are reflectance" if decoded_with(array) is None else "decoded when opened"
    else:
        scale, source = None, "unknown"
    offset = next((value for value in (options.offset, band.offset, offset_attr) if value is not None), None)
    return _validated(array, scale, offset, _nodata(array, options.nodata, band), source, index)


def decoded_with(array: xr.DataArray) -> tuple[float, float] | None:
    """Return the scale and offset that were applied when an array was opened, None if none were.

    Parameters
    ----------
    array : DataArray
        The array with its encoding.
    """
    scale = parse_number(array.encoding.get("scale_factor"), "scale_factor")
    if array.dtype.kind != "f" or scale in (None, 1):
        return None
    return float(scale or 1), parse_number(array.encoding.get("add_offset"), "add_offset") or 0.0


def _nodata(array: xr.DataArray, nodata: float | None, band: BandEncoding) -> float | None:
    if nodata is None:
        attrs = {**pending(array), "nodata": array.attrs.get("nodata")}
        if array.dtype.kind == "f" and same_number(attrs["nodata"], array.encoding.get("_FillValue")):
            attrs["nodata"] = None  # the file's value, which became NaN when it was opened
        values = {key: parse_number(attrs.get(key), key) for key in NODATA_KEYS}
        values[band.source] = band.nodata
        known = {key: value for key, value in values.items() if value is not None and not np.isnan(value)}
        if len(set(known.values())) > 1:
            raise ScalingError(
                "the attributes have different values for nodata: " + ", ".join(f"{k} {v:g}" for k, v in known.items()),
                "one value",
                either(*(option(f"nodata={value:g}") for value in dict.fromkeys(known.values())), by=" or "),
            )
        nodata = next(iter(known.values()), None)
    return None if nodata is None or np.isnan(nodata) else nodata


def _validated(
    array: xr.DataArray, scale: float | None, offset: float | None, nodata: float | None, source: str, index: bool
) -> Scaling:
    if scale is not None and not MIN_SCALE <= scale <= 1 / MIN_SCALE:
        raise ScalingError(f"{source} is {scale}", "a positive number, usually below 1", option("scale=1e-4"))
    # An index stored as bytes may have the offset -1.
    if offset is not None and not abs(offset) < 1 and not (index and abs(offset) == 1):
        finite = bool(np.isfinite(offset))
        scaled = f"{offset * (scale if scale is not None and scale < 1 else 1e-4):g}" if finite else "0"
        raise ScalingError(
            f"the offset is {offset:g}" + ", which looks like digital numbers" * finite,
            "an offset in reflectance, which is added after scaling",
            option(f"offset={scaled}"),
        )
    if nodata is not None and array.dtype.kind in "iu":
        limits = np.iinfo(array.dtype)
        if not limits.min <= nodata <= limits.max or nodata != int(nodata):
            raise ScalingError(
                f"nodata is {nodata:g}, which {array.dtype} cannot hold",
                f"an integer from {limits.min} to {limits.max}",
                option("nodata=0" if limits.min > -9999 else "nodata=-9999"),
            )
    elif nodata is not None:
        with np.errstate(over="ignore"):
            cast = array.dtype.type(nodata)
        if np.isinf(cast) and not np.isinf(float(nodata)):
            raise ScalingError(
                f"nodata is {nodata:g}, which {array.dtype} cannot hold", "a smaller number", option("nodata=-9999")
            )
    return Scaling(scale, float(offset or 0.0), None if nodata is None else float(nodata), source)


def _describe(name: str, scaling: Scaling) -> str:
    return f"{name} has scale {scaling.scale}, offset {scaling.offset:g}, nodata {scaling.nodata}"


def valid(values: NDArray[Any], scaling: Scaling) -> NDArray[np.bool_]:
    """Return where a stored value is a measurement: finite and not nodata.

    Parameters
    ----------
    values : ndarray, any shape
        Stored values.
    scaling : Scaling
        How they are stored.

    Returns
    -------
    ndarray of bool, shape of `values`
        True where measured.
    """
    measured: NDArray[np.bool_] | None = None
    if scaling.nodata is not None and not np.isnan(scaling.nodata):
        measured = values != values.dtype.type(scaling.nodata)
    if values.dtype.kind == "f":  # integers are always finite, and np.isfinite is slow
        finite = np.isfinite(values)
        measured = finite if measured is None else measured & finite
    return np.ones(values.shape, bool) if measured is None else measured


def to_reflectance(values: NDArray[Any], scaling: Scaling) -> NDArray[np.float32]:
    """Convert stored values to reflectance. Nodata is scaled like other values; see `valid`.

    Parameters
    ----------
    values : ndarray, any shape
        Stored values.
    scaling : Scaling
        How they are stored.

    Returns
    -------
    ndarray of float32, shape of `values`
        Reflectance [1].

    Raises
    ------
    ScalingError
        If the scale is unknown.

    Examples
    --------
    >>> to_reflectance(np.array([500, 3500], np.uint16), Scaling(scale=1e-4, offset=-0.1))
    array([-0.05,  0.25], dtype=float32)
    """
    scale = _require_scale(scaling)
    reflectance = values.astype(np.float32)  # before any arithmetic, in which unsigned integers would wrap
    if scale != 1:
        reflectance *= np.float32(scale)
    if scaling.offset:
        reflectance += np.float32(scaling.offset)
    return reflectance


def from_reflectance(reflectance: NDArray[Any], scaling: Scaling) -> NDArray[np.float32]:
    """Convert reflectance to stored units without rounding, the inverse of `to_reflectance`.

    Parameters
    ----------
    reflectance : ndarray, any shape
        Reflectance [1].
    scaling : Scaling
        How values are stored.

    Returns
    -------
    ndarray of float32, shape of `reflectance`
        Stored units.

    Raises
    ------
    ScalingError
        If the scale is unknown.
    """
    scale = _require_scale(scaling)
    values = reflectance.astype(np.float32)
    if scaling.offset:
        values -= np.float32(scaling.offset)
    if scale != 1:
        values /= np.float32(scale)
    return values


def _require_scale(scaling: Scaling) -> float:
    if scaling.scale is None:
        raise ScalingError(
            "integer values with unknown scale",
            "reflectance, or its scale",
            option("scale=1e-4", "offset=0"),
        )
    return scaling.scale


def encode(values: NDArray[Any], dtype: np.dtype[Any], scaling: Scaling) -> NDArray[Any]:
    """Convert values in stored units to the storage dtype.

    Parameters
    ----------
    values : ndarray of float32, any shape
        Values in stored units. Finite, unless the dtype is a float: nodata is written afterwards.
    dtype : dtype
        Storage dtype.
    scaling : Scaling
        How values are stored.

    Returns
    -------
    ndarray of `dtype`, shape of `values`
        For integers rounded half to even and clipped to the range of the dtype. A value that would become nodata is
        moved by one, within the range.

    Examples
    --------
    >>> encode(np.array([0.2, 70000.0, 12.5], np.float32), np.dtype("uint16"), Scaling(1e-4, nodata=0))
    array([    1, 65535,    12], dtype=uint16)
    """
    nodata = scaling.nodata
    if dtype.kind == "f":
        stored = values.astype(dtype)
        if nodata is not None:
            # Towards zero: the largest numbers have no neighbour in the other direction.
            direction = dtype.type(np.inf if nodata <= 0 else -np.inf)
            stored[stored == dtype.type(nodata)] = np.nextafter(dtype.type(nodata), direction)
        return stored
    limits = np.iinfo(dtype)
    # float32 cannot represent the limits of 32-bit integers, nor float64 those of 64-bit integers.
    wide: NDArray[Any] = values.astype(np.float64 if dtype.itemsize > 2 else np.float32)
    low, high = float(limits.min), float(limits.max)
    if int(high) > limits.max:
        high = float(np.nextafter(high, 0.0))
    rounded = np.rint(np.clip(wide, low, high))
    if nodata is not None:
        hit = rounded == nodata
        up = wide[hit] >= nodata if low < nodata < high else nodata == low
        rounded[hit] = np.where(up, nodata + 1, nodata - 1)
    return np.asarray(rounded.astype(dtype))
