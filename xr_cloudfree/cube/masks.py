"""From a quality layer to one meaning: clear.

A scheme is a table of flags, each with a state; what a pixel is follows from the table alone. `resolve_mask` looks at
names, attributes and coordinates only; `decode` turns one window of values into booleans.
"""

from __future__ import annotations

import difflib
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from numbers import Real
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, cast, overload

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.errors import (
    DimensionError,
    GridError,
    MaskError,
    MaskTypeError,
    OptionError,
    OptionTypeError,
    TimeError,
)

State = Literal["clear", "snow", "doubtful", "cloud", "shadow", "unknown", "missing"]
Snow = Literal["clear", "not clear"]
Bools = NDArray[np.bool_]

# Where several flags of a pixel match, the later state wins: a pixel that is cloud and snow is not clear.
_STATES: tuple[State, ...] = ("clear", "snow", "doubtful", "cloud", "shadow", "unknown", "missing")
_RANK = {state: np.uint8(rank) for rank, state in enumerate(_STATES)}


class Flag(NamedTuple):
    """One row of a scheme: pixels with ``value & mask == flag.value`` have this state.

    Parameters
    ----------
    value : int
        Value after masking.
    meaning : str
        The producer's word for it.
    state : {"clear", "snow", "doubtful", "cloud", "shadow", "unknown", "missing"}
        What it means here. ``"doubtful"`` is clear unless ``strict``; ``"unknown"`` is an error.
    mask : int or None
        Bits that are compared; None compares the whole value.
    """

    value: int
    meaning: str
    state: State
    mask: int | None = None


@dataclass(frozen=True)
class Scheme:
    """What the values of a quality layer mean.

    Parameters
    ----------
    name : str
        What is given as ``scheme=``.
    title : str
        One line for people.
    flags : tuple of Flag
        The table. Empty for a probability, which has a threshold in its place.
    bits : int or None
        Number of bits of a bit field, where a value that matches no flag is clear. None: each value has to match one.
    names : tuple of str
        Lower-case names of variables that are known to follow the scheme.
    """

    name: str
    title: str
    flags: tuple[Flag, ...] = ()
    bits: int | None = None
    names: tuple[str, ...] = ()

    @property
    def is_probability(self) -> bool:
        """Whether values are probabilities of cloud."""
        return self.name == "probability"

    def has(self, state: State) -> bool:
        """Whether the scheme can tell a state."""
        return any(flag.state == state for flag in self.flags)


def _bit(number: int, meaning: str, state: State) -> Flag:
    return Flag(1 << number, meaning, state, 1 << number)


_TABLE = (
    Scheme(
        name="scl",
        title="Sentinel-2 L2A scene classification",
        flags=(
            Flag(0, "no data", "missing"),
            Flag(1, "saturated or defective", "missing"),
            Flag(2, "dark area or topographic shadow", "doubtful"),
            Flag(3, "cloud shadow", "shadow"),
            Flag(4, "vegetation", "clear"),
            Flag(5, "not vegetated", "clear"),
            Flag(6, "water", "clear"),
            Flag(7, "unclassified", "doubtful"),
            Flag(8, "cloud, medium probability", "cloud"),
            Flag(9, "cloud, high probability", "cloud"),
            Flag(10, "thin cirrus", "cloud"),
            Flag(11, "snow or ice", "snow"),
        ),
        names=("scl",),
    ),
    Scheme(
        name="qa_pixel",
        title="Landsat Collection 2 QA_PIXEL",
        flags=(
            # Outside of a scene a warp may leave 0, which the producer never writes.
            Flag(0, "nothing written", "missing"),
            _bit(0, "fill", "missing"),
            _bit(1, "dilated cloud", "cloud"),
            _bit(2, "cirrus", "cloud"),
            _bit(3, "cloud", "cloud"),
            _bit(4, "cloud shadow", "shadow"),
            _bit(5, "snow", "snow"),
            # Bit 6, "clear", is left alone: the producer sets it on shadow, snow and cirrus too.
            # Each pixel of Collection 2 carries a snow confidence. Collection 1 has other bits (its cloud would pass
            # for snow) and none above 10, so it is told apart here.
            Flag(0, "no confidence, as in Collection 1", "unknown", 0xF000),
        ),
        bits=16,
        names=("qa_pixel", "pixel_qa"),
    ),
    Scheme(
        name="fmask",
        title="Harmonized Landsat Sentinel-2 Fmask",
        flags=(
            Flag(255, "no data", "missing"),
            _bit(1, "cloud", "cloud"),
            _bit(2, "adjacent to cloud or shadow", "cloud"),
            _bit(3, "cloud shadow", "shadow"),
            _bit(4, "snow or ice", "snow"),
        ),
        bits=8,
        names=("fmask",),
    ),
    Scheme(
        name="cfmask",
        title="CFMask classes of Landsat",
        flags=(
            Flag(0, "clear", "clear"),
            Flag(1, "water", "clear"),
            Flag(2, "cloud shadow", "shadow"),
            Flag(3, "snow", "snow"),
            Flag(4, "cloud", "cloud"),
            Flag(255, "fill", "missing"),
        ),
        names=("cfmask",),
    ),
    Scheme(
        name="probability",
        title="Probability of cloud, 0 to 1 or 0 to 100, with threshold=",
        names=("cloud_prob", "cloud_probability", "cld", "msk_cldprb", "s2cloudless", "cloudprob"),
    ),
)

SCHEMES: Mapping[str, Scheme] = MappingProxyType({scheme.name: scheme for scheme in _TABLE})
"""The schemes that are known by name. Layers with CF flag attributes need none."""

_CLEAR_WORDS = ("clear", "clear_sky", "cloud_free", "no_cloud", "not_cloud", "valid", "good")
_WORDS: Mapping[State, tuple[str, ...]] = {
    "clear": (
        *_CLEAR_WORDS,
        *(
            "land",
            "clear_land",
            "vegetation",
            "vegetated",
            "not_vegetated",
            "non_vegetated",
            "bare_soil",
            "soil",
        ),
        *("water", "clear_water"),
    ),
    "doubtful": (
        *("dark", "dark_area", "dark_area_pixel", "dark_feature", "dark_feature_shadow", "unclassified"),
        *(
            "topographic_shadow",
            "terrain_shadow",
            "cast_shadow",
            "casted_shadow",
            "topographic_casted_shadow",
        ),
        *("cloud_low_probability", "low_probability_cloud", "unclassified_or_cloud_low_probability"),
    ),
    "cloud": (
        *("cloud", "cloudy", "thick_cloud", "thin_cloud", "opaque_cloud", "semi_transparent_cloud", "haze"),
        *("cloud_medium_probability", "medium_probability_cloud", "cloud_high_probability"),
        *("high_probability_cloud", "cirrus", "thin_cirrus", "cirrus_cloud", "dilated_cloud", "cloud_edge"),
        *("adjacent", "adjacent_cloud", "adjacent_to_cloud", "adjacent_to_cloud_shadow"),
        *("adjacent_to_cloud_or_shadow", "cloud_or_shadow", "cloud_or_cloud_shadow"),
    ),
    "shadow": ("shadow", "cloud_shadow"),
    "snow": ("snow", "ice", "snow_ice", "snow_or_ice", "snow_and_ice"),
    "missing": (
        *("nodata", "no_data", "nodata_or_other", "fill", "fill_value", "missing", "invalid", "not_observed"),
        *("no_observation", "outside", "background", "saturated", "defective", "saturated_or_defective"),
        *("saturated_defective",),
    ),
}
_STATE_OF: Mapping[str, State] = {word: state for state, words in _WORDS.items() for word in words}


@dataclass(frozen=True)
class MaskRule:
    """How the values of a quality layer become clear, snow and missing; plain values, cheap to send to a worker.

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


def _ranks(values: NDArray[np.integer[Any]], scheme: Scheme) -> NDArray[np.uint8]:
    """State of each value as its place in `_STATES`."""
    inside = np.zeros(values.shape, bool)
    if scheme.bits is not None:
        inside = (values >= 0) & (values < 1 << scheme.bits)
    ranks = np.zeros(values.shape, np.uint8)
    for flag in scheme.flags:
        hit = (values if flag.mask is None else values & flag.mask) == flag.value
        np.maximum(ranks, _RANK[flag.state], out=ranks, where=hit)
        inside |= hit
    ranks[~inside] = _RANK["unknown"]
    return ranks


def _whole(values: NDArray[Any], rule: MaskRule) -> tuple[NDArray[np.integer[Any]], Bools | None]:
    """Values as integers, and where they are NaN (None: nowhere, for integers)."""
    if values.dtype.kind in "iu":
        return values.astype(np.int64, copy=False), None
    nan = np.isnan(values)
    filled = np.where(nan, 0, values)
    whole = np.isfinite(filled) & (filled == np.rint(filled))
    if not whole.all():
        raise MaskError(
            f"{rule.label} holds {float(filled[~whole][0]):g}, which is no whole number",
            "the classes or bits of the quality layer, untouched",
            'resample quality layers with "nearest", or give scheme="probability" and threshold=',
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
        If a value is unknown to the scheme, no whole number, or a probability that does not go with the threshold.
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
    if values.dtype in (np.uint8, np.uint16):
        ranks = _ranks(np.arange(np.iinfo(values.dtype).max + 1), scheme)[values]
    else:
        values, nan = _whole(values, rule)
        ranks = _ranks(values, scheme)
        if nan is not None:
            ranks[nan] = _RANK["missing"]
    unknown = ranks == _RANK["unknown"]
    if unknown.any():
        strange = ", ".join(str(int(v)) for v in np.unique(values[unknown])[:8])
        raise MaskError(
            f"{rule.label} holds {strange}, with {int(unknown.sum())} pixels in all",
            f"the values of {scheme.title}: " + ", ".join(_named(flag) for flag in scheme.flags),
            "scheme= with the layer's own scheme, or clear= with a boolean layer, True where clear",
        )
    snow = ranks == _RANK["snow"]
    clear = ranks == _RANK["clear"]
    if rule.snow == "clear":
        clear |= snow
    if not rule.strict:
        clear |= ranks == _RANK["doubtful"]
    return Decoded(clear, snow, ranks == _RANK["missing"])


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
                f"threshold={threshold * 100:g}"
                if 1 < high <= 100 and low >= 0
                else "a layer of probabilities",
            )
        # With the wrong units nothing would ever be cloudy. Percentages that stay below 1 are whole numbers, or all
        # far below the threshold.
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
    # A disc is a stack of rows; row dy reaches sqrt(pixels² − dy²) to each side. From the narrow rows at the disc's
    # poles to the wide one at its equator, each is the one before, widened: a few ORs in place of one per pixel.
    reach = 0
    for dy in range(pixels, -1, -1):
        half = math.isqrt(pixels * pixels - dy * dy)
        while reach < half:
            reach += 1
            narrow = wide
            wide = narrow.copy()
            # One step of a disc one pixel wide at a time keeps the row gapless.
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

    An argument wins over a variable ``cloud_mask``, which wins over the sensor's own layer (SCL, QA_PIXEL, Fmask,
    CFMask). The scheme comes from `scheme`, else from the CF attributes ``flag_values``, ``flag_masks`` and
    ``flag_meanings``, else from the layer's name. A boolean layer is only taken as `clear`: given as `mask`, nothing
    tells which of its values is cloud.

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
        The layer on the dates of the cube and on its grid, or on one that is `MaskRule.factor` times coarser. Never
        computed here.
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
        raise MaskError(
            "clear= and mask= were both given", "one of the two", "clear=... or mask=..., not both"
        )
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
    layer = _dimensions(layer, name)
    layer = _dates(layer, name, template)
    if isinstance(clear if mask is None else mask, xr.DataArray):
        _check_crs(layer, name, template)
    return layer, replace(rule, factor=_factor(layer, name, template))


def _check_options(snow: object, strict: object, dilate: object, threshold: object) -> None:
    if snow not in ("clear", "not clear"):
        raise OptionError(f"snow is {snow!r}", '"clear" or "not clear"', 'snow="clear"')
    if not isinstance(strict, bool | np.bool_):
        raise OptionTypeError(f"strict is {strict!r}", "True or False", "strict=True")
    if isinstance(dilate, bool) or not isinstance(dilate, int | np.integer):
        raise OptionTypeError(f"dilate is {dilate!r}", "a whole number of pixels", "dilate=2")
    if dilate < 0:
        raise OptionError(f"dilate is {dilate}", "zero or more pixels", "dilate=2")
    if threshold is None:
        return
    if isinstance(threshold, bool) or not isinstance(threshold, Real):
        raise OptionTypeError(f"threshold is {threshold!r}", "a number", "threshold=0.4")
    if not 0 < float(threshold) <= 100:
        raise OptionError(f"threshold is {threshold}", "above 0 and at most 100", "threshold=0.4")


def _check_capable(scheme: Scheme, name: str, snow: Snow, strict: bool) -> None:
    """An option that could do nothing is refused, not ignored."""
    if snow == "not clear" and not scheme.has("snow"):
        raise MaskError(
            f'snow="not clear" with {name}, which does not tell snow', "a layer with snow", 'snow="clear"'
        )
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
        return given, str(given.name) if given.name is not None else f"{option}="
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
        wanted: Sequence[str] = _known(scheme).names
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
        f"{what} among the variables {', '.join(variables) or '(none)'}",
        f"one of {', '.join(wanted)}",
        remedy,
    )


def _known(scheme: object) -> Scheme:
    if not isinstance(scheme, str) or scheme not in SCHEMES:
        near = difflib.get_close_matches(str(scheme), SCHEMES, n=1)
        raise MaskError(
            f"no scheme is called {scheme!r}",
            f"one of {', '.join(SCHEMES)}",
            f"scheme={(near or ['scl'])[0]!r}, or clear= with a boolean layer",
        )
    return SCHEMES[scheme]


def _scheme(layer: xr.DataArray, name: str, scheme: str | None, threshold: float | None) -> Scheme:
    """What the values of a layer mean: told, or from its attributes, or from its name."""
    if layer.dtype == np.bool_:
        raise MaskTypeError(
            f"mask= is {name}, a boolean layer, of which nothing tells what True means",
            "a layer of which True means clear, given as clear=",
            f"clear={name} if True means clear, clear=~{name} if True means cloud",
        )
    if layer.dtype.kind not in "iuf":
        raise MaskTypeError(
            f"{name} has dtype {layer.dtype}", "a layer of numbers", "mask= with the quality layer"
        )
    by_name = next((known for known in SCHEMES.values() if name.lower() in known.names), None)
    if scheme is not None:
        found = _known(scheme)
    elif "flag_meanings" in layer.attrs:
        found = _cf_scheme(layer.attrs, name, by_name)
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
            if fill is None or np.isnan(number := float(np.asarray(fill).ravel()[0])):
                continue
            flag = Flag(int(number), "fill value", "missing")
            if scheme.is_probability:
                return replace(scheme, flags=(flag,))
            state = _STATES[int(_ranks(np.array([flag.value]), scheme)[0])]
            if state not in ("unknown", "missing"):
                raise MaskError(
                    f"{name} has the fill value {flag.value}, which also means {state} ({scheme.title})",
                    "a fill value that means nothing else",
                    f"del {name}.encoding['_FillValue'] before it is written; then open the cube again",
                )
            return replace(scheme, flags=(*scheme.flags, flag)) if state == "unknown" else scheme
    return scheme


def _numbers(given: Any) -> list[int]:
    """Numbers of a CF attribute, whichever way it was written."""
    if isinstance(given, str):
        return [int(word) for word in re.findall(r"-?\d+", given)]
    return [int(number) for number in np.atleast_1d(np.asarray(given))]


def _cf_scheme(attrs: Mapping[str, Any], name: str, by_name: Scheme | None) -> Scheme:
    """A scheme from ``flag_values``, ``flag_masks`` and ``flag_meanings``."""
    meanings = attrs["flag_meanings"]
    words = meanings.split() if isinstance(meanings, str) else [str(word) for word in meanings]
    masks = _numbers(attrs["flag_masks"]) if "flag_masks" in attrs else None
    values = _numbers(attrs["flag_values"]) if "flag_values" in attrs else masks
    remedy = f"scheme={by_name.name!r}" if by_name else f"scheme= with one of {', '.join(SCHEMES)}"
    remedy += f", or clear={name} == 0 with the value that means clear"
    if values is None or len(values) != len(words) or (masks is not None and len(masks) != len(words)):
        raise MaskError(
            f"{name} has {len(words)} flag_meanings, {len(values or ())} flag_values, {len(masks or ())} flag_masks",
            "one value, or one mask, for each meaning",
            remedy,
        )
    plain = [_plain(word) for word in words]
    unknown = [word for word, key in zip(words, plain, strict=True) if key not in _STATE_OF]
    if unknown:
        raise MaskError(
            f"{name} has flag_meanings that are not understood: {', '.join(unknown)}",
            "meanings such as clear, cloud, cloud_shadow, snow, no_data",
            remedy,
        )
    flags = [
        Flag(value, word, _STATE_OF[key], masks[i] if masks else None)
        for i, (value, word, key) in enumerate(zip(values, words, plain, strict=True))
    ]
    if masks:
        every = 0
        for mask in masks:
            every |= mask
        if not any(flag.value == 0 for flag in flags):
            # With a bit that says clear, a pixel without any bit was not looked at.
            rest: State = "missing" if set(plain) & set(_CLEAR_WORDS) else "clear"
            flags.append(Flag(0, "no flag set", rest, every))
    return Scheme("cf", f"the flag attributes of {name}", tuple(flags))


def _plain(meaning: str) -> str:
    """A meaning in lower case, with single underscores and in the singular."""
    plain = re.sub(r"[^a-z0-9]+", "_", meaning.lower()).strip("_")
    return re.sub(r"(cloud|shadow|pixel|area|feature|soil)s(?=_|$)", r"\1", plain)


def _dimensions(layer: xr.DataArray, name: str) -> xr.DataArray:
    """The layer as (time, y, x)."""
    extra = [dim for dim in layer.dims if dim not in ("time", "y", "x") and layer.sizes[dim] == 1]
    layer = layer.squeeze(extra, drop=True)
    if set(layer.dims) != {"time", "y", "x"}:
        raise DimensionError(
            f"{name} has the dimensions {tuple(layer.dims)} with the sizes {layer.shape}",
            "time, y and x",
            f"{name}.rename(lat='y', lon='x') for other names, {name}.isel(band=0, drop=True) for one too many, "
            f"{name}.expand_dims(time=cube.time) for one date",
        )
    return layer.transpose("time", "y", "x")


def _dates(layer: xr.DataArray, name: str, template: xr.DataArray) -> xr.DataArray:
    """The layer with its dates in the order of the cube's."""
    wanted = template.indexes.get("time")
    found = layer.indexes.get("time")
    if wanted is None or found is None:
        if layer.sizes["time"] == template.sizes["time"]:
            return layer
        raise TimeError(
            f"{name} has {layer.sizes['time']} dates, the cube {template.sizes['time']}",
            "the same dates",
            f"{name}.sel(time=cube.time), with time coordinates on both",
        )
    if found.equals(wanted):
        return layer
    if found.is_unique and len(found) == len(wanted):
        order = found.get_indexer(pd.Index(wanted))
        if (order >= 0).all() and len(np.unique(order)) == len(order):
            return layer.isel(time=order)
    lacking = wanted.difference(found)
    first = f"; the first that it lacks is {lacking[0]}" if len(lacking) else ""
    raise TimeError(
        f"{name} has {len(found)} dates, the cube {len(wanted)}, and {len(lacking)} of the cube's are not in it{first}",
        "the same dates",
        f'{name}.reindex(time=cube.time, method="nearest", tolerance="1h") if only the clock differs, '
        f"or {name}.sel(time=cube.time) if it has more dates",
    )


def _check_crs(layer: xr.DataArray, name: str, template: xr.DataArray) -> None:
    import rioxarray  # noqa: F401  (registers .rio)

    ours, theirs = template.rio.crs, layer.rio.crs
    if ours is not None and theirs is not None and ours != theirs:
        raise GridError(
            f"{name} has the CRS {theirs.to_string()[:80]}, the cube {ours.to_string()[:80]}",
            "one CRS",
            f"mask={name}.rio.reproject_match(cube), nearest neighbour",
        )


def _factor(layer: xr.DataArray, name: str, template: xr.DataArray) -> int:
    """How many pixels of the cube make one of the layer; an error unless one grid nests in the other exactly."""
    factors = {dim: _axis_factor(layer, template, dim) for dim in ("y", "x")}
    known = {factor for factor in factors.values() if factor != 0}
    if None in known or len(known) > 1:
        raise GridError(
            f"{name} lies on another grid: {_grid(layer)}; the cube: {_grid(template)}",
            "the pixels of the cube, or coarser ones whose edges are edges of the cube's",
            f'{name}.sel(y=cube.y, x=cube.x, method="nearest"), or {name}.rio.reproject_match(cube) across CRS',
        )
    return cast(int, known.pop()) if known else 1


def _axis_factor(layer: xr.DataArray, template: xr.DataArray, dim: str) -> int | None:
    """Factor along one axis; 0 where one pixel allows any, None where the grids do not nest."""
    n, k = template.sizes[dim], layer.sizes[dim]
    if dim not in template.coords or dim not in layer.coords:
        return 1 if n == k else None
    ours = template.coords[dim].values.astype(np.float64)
    theirs = layer.coords[dim].values.astype(np.float64)
    if n == 1:
        return 0 if k == 1 else None
    step = (ours[-1] - ours[0]) / (n - 1)
    # A single coarse pixel has no step of its own: it nests if it covers the cube.
    factor = round((theirs[-1] - theirs[0]) / (k - 1) / step) if k > 1 else n
    if factor < 1 or k != -(-n // factor):
        return None
    expected = ours[0] + step * ((factor - 1) / 2 + factor * np.arange(k)) if factor > 1 else ours
    return (
        factor if (np.abs(theirs - expected) <= _tolerance(layer, template, dim) * abs(step)).all() else None
    )


def _tolerance(layer: xr.DataArray, template: xr.DataArray, dim: str) -> float:
    """Allowed distance in pixels: 1e-6, or what the coordinates' own precision makes of it, at most 0.1."""
    tolerance = 1e-6
    step = float(np.abs(np.diff(template.coords[dim].values.astype(np.float64))).mean())
    for array in (layer, template):
        coords = array.coords[dim].values
        if coords.dtype.kind == "f":
            precision = 4 * float(np.finfo(coords.dtype).eps) * float(np.abs(coords).max()) / step
            tolerance = max(tolerance, precision)
    return min(tolerance, 0.1)


def _grid(array: xr.DataArray) -> str:
    """Shape, first pixel and resolution, for messages."""
    told = f"{array.sizes['y']} x {array.sizes['x']} pixels"
    if "y" not in array.coords or "x" not in array.coords:
        return told + " without coordinates"
    y, x = array.coords["y"].values, array.coords["x"].values
    told += f", the first at y={float(y[0]):.9g}, x={float(x[0]):.9g}"
    if y.size > 1 and x.size > 1:
        told += f", step {float(y[1] - y[0]):.6g}, {float(x[1] - x[0]):.6g}"
    return told
