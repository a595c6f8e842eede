"""From a quality layer to one meaning: clear.

`resolve_mask` looks at names, attributes and coordinates only; `decode` turns a window of values into
booleans.
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from typing import Any, Literal, NamedTuple, cast, overload

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.cube.alignment import align
from xr_cloudfree.cube.schemes import RANK, SCHEMES, STATES, Flag, Scheme, cf_scheme, known_scheme, states
from xr_cloudfree.errors import MaskError, MaskTypeError, OptionError, OptionTypeError

Snow = Literal["clear", "not clear"]
Bools = NDArray[np.bool_]

# Cloud that grows by more than this leaves nothing clear, and takes long to do so.
MAX_DILATE = 1000


@dataclass(frozen=True)
class MaskRule:
    """How the values of a quality layer become clear, snow and missing; cheap to send to a worker.

    Parameters
    ----------
    scheme : Scheme or None
        What the values mean; None for a boolean layer in which True means clear.
    snow : {"clear", "not clear"}
        Whether a pixel that was seen as snow counts as clear.
    strict : bool
        Whether doubtful classes (SCL 2 and 7) are not clear.
    threshold : float or None
        Probability of cloud from which on a pixel is not clear, in the layer's units.
    dilate : int
        Pixels of the cube by which cloud and shadow grow.
    factor : int
        Pixels of the cube per pixel of the quality layer, along each axis.
    label : str
        The layer and its scheme, for people.
    """

    scheme: Scheme | None = None
    snow: Snow = "clear"
    strict: bool = False
    threshold: float | None = None
    dilate: int = 0
    factor: int = 1
    label: str = "clear"


class Decoded(NamedTuple):
    """What a quality layer says of each pixel; boolean arrays of one shape.

    Parameters
    ----------
    clear : ndarray of bool
        Seen and usable.
    snow : ndarray of bool
        Seen as snow; clear too, unless the rule says otherwise.
    missing : ndarray of bool
        Not measured, which is not the same as cloudy. Never clear.
    """

    clear: Bools
    snow: Bools
    missing: Bools


def _whole(values: NDArray[Any], rule: MaskRule) -> tuple[NDArray[np.integer[Any]], Bools]:
    """Floats as integers, and where they are NaN."""
    nan = np.isnan(values)
    filled = np.where(nan, values.dtype.type(0), values)
    whole = (np.abs(filled) < 2**53) & (filled == np.rint(filled))
    if not whole.all():
        raise MaskError(
            f"{rule.label} holds {float(filled[~whole][0]):g}, which is no whole number",
            "the classes or bits of the quality layer, untouched",
            'mask= with the layer resampled with "nearest", or scheme="probability", threshold=0.4',
        )
    return filled.astype(np.int64), nan


def decode(values: NDArray[Any], rule: MaskRule) -> Decoded:
    """What a quality layer says of each pixel.

    Parameters
    ----------
    values : ndarray, shape (..., y, x)
        Values of the quality layer. NaN, as xarray leaves it for a fill value, is missing.
    rule : MaskRule
        From `resolve_mask`. `rule.dilate` and `rule.factor` are not applied here.

    Returns
    -------
    Decoded
        Three boolean arrays of the shape of `values`.

    Raises
    ------
    MaskError
        If a value is unknown to the scheme, is no whole number, or is a probability that does not go with the
        threshold.
    MaskTypeError
        If the rule is for a boolean layer and the values are not boolean.

    Examples
    --------
    >>> decode(np.array([[21824, 22280, 30048, 1]], np.uint16), MaskRule(SCHEMES["qa_pixel"])).clear
    array([[ True, False,  True, False]])
    """
    scheme = rule.scheme
    if scheme is None:
        if values.dtype != np.bool_:
            raise _not_boolean(rule.label, values.dtype)
        return Decoded(values, np.zeros(values.shape, bool), np.zeros(values.shape, bool))
    if scheme.is_probability:
        return _decode_probability(values, rule, scheme)
    nan = None
    if values.dtype.kind == "f":
        values, nan = _whole(values, rule)
    if values.size and values.dtype.itemsize > 2 and 0 <= values.min() <= values.max() < 1 << 16:
        values = values.astype(np.uint16)
    if values.dtype in (np.uint8, np.uint16):  # looking values up is faster than comparing each
        ranks = _looked_up(states(np.arange(np.iinfo(values.dtype).max + 1), scheme), values)
    else:
        ranks = states(values.astype(np.int64), scheme)
    if nan is not None:
        ranks[nan] = RANK["missing"]
    unknown = ranks == RANK["unknown"]
    if unknown.any():
        strange = ", ".join(str(int(v)) for v in np.unique(values[unknown])[:8])
        raise MaskError(
            f"{rule.label} holds {strange}, with {int(unknown.sum())} pixels in all",
            f"the values of {scheme.title}: " + ", ".join(_named(flag) for flag in scheme.flags),
            "scheme= with the layer's own scheme, or clear= with a boolean layer, True where clear",
        )
    snow = ranks == RANK["snow"]
    clear = ranks == RANK["clear"]
    if rule.snow == "clear":
        clear |= snow
    if not rule.strict:
        clear |= ranks == RANK["doubtful"]
    return Decoded(clear, snow, ranks == RANK["missing"])


def _looked_up(table: NDArray[np.uint8], values: NDArray[Any]) -> NDArray[np.uint8]:
    """``table[values]``; bytes are translated, which takes a third of the time of numpy's indexing."""
    if values.dtype != np.uint8:
        return np.asarray(table[values])
    found = bytearray(values.tobytes()).translate(table.tobytes())  # of a bytearray, so that it can be written to
    return np.frombuffer(found, np.uint8).reshape(values.shape)


def _named(flag: Flag) -> str:
    return f"{flag.value} {flag.meaning}" if flag.mask is None else f"{flag.value}/{flag.mask} {flag.meaning}"


def _decode_probability(values: NDArray[Any], rule: MaskRule, scheme: Scheme) -> Decoded:
    threshold = cast(float, rule.threshold)
    missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    for flag in scheme.flags:  # the layer's own fill value
        missing |= values == flag.value
    seen = values[~missing]
    if seen.size:
        low, high = float(seen.min()), float(seen.max())
        top = 1.0 if threshold <= 1 else 100.0
        if low < 0 or high > top:
            raise MaskError(
                f"{rule.label} holds values from {low:g} to {high:g} with threshold={threshold:g}",
                f"probabilities from 0 to {top:g}, in the units of the threshold",
                f"threshold={threshold * 100:g}" if 0 <= low and high <= 100 else "mask= with a probability",
            )
        # In the wrong units nothing would ever be cloudy.
        if top > 1 >= high >= threshold / 100 and (seen != np.rint(seen)).any():
            raise MaskError(
                f"{rule.label} holds fractions up to {high:g} with threshold={threshold:g}",
                "a threshold in the units of the layer",
                f"threshold={threshold / 100:g}, or mask=layer.round() if they are percentages",
            )
    clear = ~missing
    clear[clear] = seen < threshold
    return Decoded(clear, np.zeros(values.shape, bool), missing)


@overload
def repeat(values: Decoded, factor: int) -> Decoded: ...
@overload
def repeat(values: NDArray[np.bool_], factor: int) -> NDArray[np.bool_]: ...
def repeat(values: Decoded | NDArray[np.bool_], factor: int) -> Decoded | NDArray[np.bool_]:
    """Each pixel `factor` times along y and x.

    Parameters
    ----------
    values : Decoded or ndarray, shape (..., y, x)
        What was decoded on the coarser grid.
    factor : int
        `MaskRule.factor`.

    Returns
    -------
    Decoded or ndarray, shape (..., y * factor, x * factor)
        The same on the grid of the cube, to be cropped where the coarser grid reaches beyond it.
    """
    if isinstance(values, Decoded):
        return Decoded(*(repeat(layer, factor) for layer in values))
    return values if factor == 1 else values.repeat(factor, axis=-2).repeat(factor, axis=-1)


def dilate_not_clear(clear: Bools, missing: Bools, pixels: int) -> Bools:
    """Clear, less a disc around each pixel that is cloud or shadow.

    Parameters
    ----------
    clear : ndarray of bool, shape (..., y, x)
        Seen and usable.
    missing : ndarray of bool, shape (..., y, x)
        Pixels that do not grow though they are not clear: not measured, or snow where it is not clear.
    pixels : int
        Radius of the disc: pixels at a Euclidean distance of at most this are not clear.

    Returns
    -------
    ndarray of bool, shape (..., y, x)
        On a window the same as on the whole, but for a margin of `pixels`.

    Examples
    --------
    >>> clear = np.ones((3, 4), bool)
    >>> clear[0, 0] = False
    >>> dilate_not_clear(clear, np.zeros((3, 4), bool), 2).astype(int)
    array([[0, 0, 0, 1],
           [0, 0, 1, 1],
           [0, 1, 1, 1]])
    """
    if pixels == 0:
        return clear
    wide = ~(clear | missing)
    grown = wide.copy()
    # A disc is a stack of rows, and row dy reaches sqrt(pixels² - dy²) to each side. From pole to equator
    # each row is the one before, widened: a few ORs in place of one per pixel of the disc.
    reach = 0
    for dy in range(pixels, -1, -1):
        half = math.isqrt(pixels * pixels - dy * dy)
        while reach < half:
            reach += 1
            narrow = wide
            wide = narrow.copy()
            wide[..., :, 1:] |= narrow[..., :, :-1]
            wide[..., :, :-1] |= narrow[..., :, 1:]
        if dy == 0:
            grown |= wide
        else:
            grown[..., dy:, :] |= wide[..., :-dy, :]
            grown[..., :-dy, :] |= wide[..., dy:, :]
    return clear & ~grown


def resolve_mask(
    variables: Mapping[str, xr.DataArray],
    *,
    clear: str | xr.DataArray | None = None,
    mask: str | xr.DataArray | None = None,
    scheme: str | None = None,
    threshold: float | None = None,
    snow: Snow = "clear",
    strict: bool = False,
    dilate: int = 0,
    template: xr.DataArray,
) -> tuple[xr.DataArray, MaskRule]:
    """The quality layer of a cube and how to read it, from metadata alone.

    An argument wins over a variable ``cloud_mask``, which wins over the sensor's own layer (SCL, QA_PIXEL,
    Fmask, CFMask). The scheme comes from `scheme`, else from the CF attributes ``flag_values``,
    ``flag_masks`` and ``flag_meanings``, else from the layer's name. A boolean layer is only taken as
    `clear`: given as `mask`, nothing tells which of its values is cloud.

    Landsat's QA_RADSAT is not looked at; to leave saturated pixels out, give
    ``mask=ds.QA_PIXEL.where(ds.QA_RADSAT == 0, 1)``.

    Parameters
    ----------
    variables : mapping of str to DataArray
        Variables of the cube's Dataset; empty for a DataArray.
    clear : str or DataArray of bool, optional
        Layer that is True where a pixel is clear, or its name.
    mask : str or DataArray, optional
        Quality layer, or its name.
    scheme : {"scl", "qa_pixel", "fmask", "cfmask", "probability"}, optional
        What the values of `mask` mean.
    threshold : float, optional
        Probability of cloud from which on a pixel is not clear, in the layer's units (0 to 1 or 0 to 100).
    snow : {"clear", "not clear"}
        Whether snow counts as clear.
    strict : bool
        Whether doubtful classes (SCL 2 and 7) are not clear.
    dilate : int
        Pixels by which cloud and shadow grow.
    template : DataArray, shape (time, y, x)
        The grid of the cube.

    Returns
    -------
    quality : DataArray, shape (time, y, x)
        The layer on the dates of the cube and on its grid, or on one that is `MaskRule.factor` times coarser.
        Never computed here.
    rule : MaskRule
        How to read it.

    Raises
    ------
    MaskError
        If there is no layer, or nothing tells what its values mean.
    MaskTypeError
        If `clear` is not boolean, or `mask` is.
    DimensionError
        If the layer lacks a dimension or has one too many.
    TimeError
        If its dates are not those of the cube.
    GridError
        If its pixels are neither those of the cube nor nest in them.
    OptionError
        If an option has a value that it cannot take.
    """
    _check_options(snow, strict, dilate, threshold)
    if clear is not None and mask is not None:
        raise MaskError("clear= and mask= were both given", "one of the two", "clear=... or mask=..., not both")
    if clear is not None:
        if scheme is not None or threshold is not None or strict or snow != "clear":
            raise MaskError(
                "clear= was given with scheme=, threshold=, strict= or snow=",
                "a boolean layer alone: it has no classes that these could choose from",
                "mask= with the quality layer itself",
            )
        layer, name = _layer(variables, clear, "clear")
        if layer.dtype != np.bool_:
            raise _not_boolean(name, layer.dtype)
        rule = MaskRule(dilate=int(dilate), label=f"{name} (boolean, True is clear)")
    else:
        layer, name = _layer(variables, _find(variables, scheme) if mask is None else mask, "mask")
        known = _scheme(layer, name, scheme, threshold)
        _check_capable(known, name, snow, strict)
        how = "CF flags" if known.name == "cf" else known.name
        if known.is_probability:
            how += f", threshold {threshold:g}"
        rule = MaskRule(
            scheme=known,
            snow=snow,
            strict=bool(strict),
            threshold=None if threshold is None else float(threshold),
            dilate=int(dilate),
            label=f"{name} ({how})",
        )
    layer, factor = align(layer, name, template)
    return layer, replace(rule, factor=factor)


def _check_options(snow: object, strict: object, dilate: object, threshold: object) -> None:
    if not isinstance(snow, str) or snow not in ("clear", "not clear"):
        raise OptionError(f"snow is {snow!r}", '"clear" or "not clear"', 'snow="clear"')
    if not isinstance(strict, bool | np.bool_):
        raise OptionTypeError(f"strict is {strict!r}", "True or False", "strict=True")
    if isinstance(dilate, bool) or not isinstance(dilate, int | np.integer):
        raise OptionTypeError(f"dilate is {dilate!r}", "a whole number of pixels", "dilate=2")
    if not 0 <= dilate <= MAX_DILATE:
        raise OptionError(f"dilate is {dilate}", f"0 to {MAX_DILATE} pixels", "dilate=2")
    if threshold is None:
        return
    if isinstance(threshold, bool) or not isinstance(threshold, Real):
        raise OptionTypeError(f"threshold is {threshold!r}", "a number", "threshold=0.4")
    if not 0 < cast(float, threshold) <= 100:  # no float yet: an integer of Python may be too large for one
        raise OptionError(f"threshold is {threshold}", "above 0 and at most 100", "threshold=0.4")


def _check_capable(scheme: Scheme, name: str, snow: Snow, strict: bool) -> None:
    """An option that could do nothing is refused, not ignored."""
    if snow == "not clear" and not scheme.has("snow"):
        raise MaskError(f'snow="not clear" with {name}, which does not tell snow', "a layer with snow", 'snow="clear"')
    if strict and not scheme.has("doubtful"):
        raise MaskError(
            f"strict=True with {name}, which has no doubtful classes", "a layer that has them", "strict=False"
        )


def _not_boolean(name: str, dtype: np.dtype[Any]) -> MaskTypeError:
    return MaskTypeError(
        f"clear= is {name} of dtype {dtype}",
        "a boolean layer, True where clear",
        "clear=layer == 0 with the value that means clear, or mask=layer for a quality layer",
    )


def _layer(variables: Mapping[str, xr.DataArray], given: object, option: str) -> tuple[xr.DataArray, str]:
    """The layer that was given, and what to call it."""
    if isinstance(given, xr.DataArray):
        return given, str(given.name) if given.name is not None else "layer"
    if not isinstance(given, str):
        raise MaskTypeError(
            f"{option}= is a {type(given).__name__}",
            "the name of a variable, or a DataArray with the cube's coordinates",
            f'{option}=xr.DataArray(values, dims=("time", "y", "x"))',
        )
    if given not in variables:
        near = difflib.get_close_matches(given, variables, n=1)
        raise MaskError(
            f"the cube has no variable {given!r}",
            f"one of {', '.join(variables)}" if variables else "a DataArray: the cube has no other variables",
            f"{option}={near[0]!r}" if near else f"{option}= with a DataArray",
        )
    return variables[given], given


def _find(variables: Mapping[str, xr.DataArray], scheme: str | None) -> str:
    """Name of the variable to use where none was given."""
    lower = {name.lower(): name for name in reversed(list(variables))}
    if scheme is not None:
        wanted: Sequence[str] = known_scheme(scheme).names
    else:
        own = (name for known in SCHEMES.values() if not known.is_probability for name in known.names)
        wanted = ("cloud_mask", *own)
    for name in wanted:
        if name in lower:
            return lower[name]
    probability = next((lower[name] for name in SCHEMES["probability"].names if name in lower), None)
    if probability is not None:
        remedy = f'mask={probability!r}, scheme="probability", threshold=0.4'
    else:
        remedy = "clear= with a boolean layer, True where clear, or mask= with a quality layer"
    what = "no quality layer" if scheme is None else f"no layer of scheme {scheme!r}"
    raise MaskError(
        f"{what} among the variables: {', '.join(variables) or 'none'}",
        f"one of {', '.join(wanted)}",
        remedy,
    )


def _scheme(layer: xr.DataArray, name: str, scheme: str | None, threshold: float | None) -> Scheme:
    """What the values of a layer mean: told, or from its attributes, or from its name."""
    if layer.dtype == np.bool_:
        raise MaskTypeError(
            f"mask= is {name}, a boolean layer, of which nothing tells what True means",
            "a layer of which True means clear, given as clear=",
            f"clear={name} if True means clear, clear=~{name} if True means cloud",
        )
    if layer.dtype.kind not in "iuf":
        raise MaskTypeError(f"{name} has dtype {layer.dtype}", "a layer of numbers", "mask= with the quality layer")
    by_name = next((known for known in SCHEMES.values() if name.lower() in known.names), None)
    if scheme is not None:
        found = known_scheme(scheme)
    elif "flag_meanings" in layer.attrs:
        found = cf_scheme(layer.attrs, name, by_name)
    elif by_name is not None:
        found = by_name
    else:
        raise MaskError(
            f"nothing tells what the values of {name} mean",
            "CF attributes flag_values and flag_meanings, a known name, or scheme=",
            f"scheme= with one of {', '.join(SCHEMES)}, or clear={name} == 0 with the value that means clear",
        )
    if found.is_probability and threshold is None:
        raise MaskError(f"{name} is a probability without a threshold", "a threshold", "threshold=0.4")
    if not found.is_probability and threshold is not None:
        raise MaskError(
            f"threshold={threshold:g} was given, and {name} is no probability ({found.title})",
            "a threshold together with a probability",
            f'scheme="probability" if {name} is one, or mask= with the layer that is',
        )
    return _with_fill(found, layer, name)


def _with_fill(scheme: Scheme, layer: xr.DataArray, name: str) -> Scheme:
    """The scheme, with the layer's fill value as one more flag."""
    for where in (layer.attrs, layer.encoding):
        for key in ("_FillValue", "missing_value", "nodata"):
            fill = where.get(key)
            if fill is None:
                continue
            try:
                number = float(np.asarray(fill).ravel().tolist()[0])
            except (TypeError, ValueError, IndexError, OverflowError) as error:
                raise MaskError(
                    f"the attribute {key} of {name} is {fill!r}", "a number", f"del {name}.attrs[{key!r}]"
                ) from error
            if not np.isfinite(number):
                continue
            flag = Flag(int(number), "fill value", "missing")
            if scheme.is_probability:
                return replace(scheme, flags=(flag,))
            state = STATES[int(states(np.array([flag.value]), scheme)[0])]
            if state not in ("unknown", "missing"):
                raise MaskError(
                    f"{name} has the fill value {flag.value}, which also means {state} ({scheme.title})",
                    "a fill value that means nothing else",
                    f"del {name}.encoding['_FillValue'] before it is written; then open the cube again",
                )
            return replace(scheme, flags=(*scheme.flags, flag)) if state == "unknown" else scheme
    return scheme
