"""From the values of a quality layer to one meaning: clear.

`decode` turns a window of values into booleans, by a `MaskRule` that `quality.resolve_mask` makes.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, NamedTuple, cast, overload

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.schemes import RANK, SCHEMES, Flag, Scheme, states
from xr_cloudfree.errors import MaskError, MaskTypeError, code, either, option
from xr_cloudfree.options import Snow

Bools = NDArray[np.bool_]


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
        Probability of cloud from which on a pixel is not clear, or score from which on it is, in the layer's units.
    top : float
        The highest value that the layer can hold where it has a threshold: 1, 100 or 255.
    dilate : int
        Pixels of the cube by which cloud and shadow grow.
    factor : int
        Pixels of the cube per pixel of the quality layer, along each axis.
    label : str
        The layer and its scheme, for people.
    typed : str
        What is typed for the layer, for remedies.
    """

    scheme: Scheme | None = None
    snow: Snow = "clear"
    strict: bool = False
    threshold: float | None = None
    top: float = 1.0
    dilate: int = 0
    factor: int = 1
    label: str = "clear"
    typed: str = field(default="layer", repr=False, compare=False)


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
            code(
                f'resampling={{"{rule.typed.removeprefix("ds.")}": "nearest"}} where the bands are loaded, or '
                f'mask=original.reindex_like({cube_of(rule.typed)}, method="nearest") with the '
                "layer before it was resampled"
            ),
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
            raise not_boolean(rule.label, rule.typed, values.dtype)
        return Decoded(values, np.zeros(values.shape, bool), np.zeros(values.shape, bool))
    if scheme.has_threshold:
        return _decode_threshold(values, rule, scheme)
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
        raise _strange(np.unique(values[unknown]), int(unknown.sum()), np.unique(values), rule, scheme)
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


def cube_of(typed: str) -> str:
    """What is typed for the cube of which a layer is typed so."""
    return "ds" if typed.startswith(("ds.", "ds[")) else "cube"


def not_boolean(label: str, typed: str, dtype: np.dtype[Any], remedy: str = "") -> MaskTypeError:
    """The error for a layer given as clear that is not boolean; `remedy` says more than its dtype does."""
    if not remedy and dtype.kind == "O":
        remedy = option(f"clear={typed} == True")
    return MaskTypeError(
        f"clear= is {label} of dtype {dtype}",
        "a boolean layer, True where clear",
        remedy
        or either(
            option(f"clear={typed} == 1") + " if 1 means clear",
            option(f"clear={typed} == 0") + " if 0 does",
            option("mask=") + " for a quality layer",
        ),
    )


def _strange(unknown: NDArray[Any], count: int, found: NDArray[Any], rule: MaskRule, scheme: Scheme) -> MaskError:
    """The error for values that a scheme does not have, which names the scheme that has them."""
    strange = [int(value) for value in unknown]
    others = [SCHEMES[name] for name in scheme.mistaken]
    fitting = [other for other in others if not (states(found.astype(np.int64), other) == RANK["unknown"]).any()]
    if scheme.bits is not None and found.dtype == np.dtype(f"int{-(-scheme.bits // 8) * 8}") and max(strange) < 0:
        remedy = option(f"mask={rule.typed}.astype('u{found.dtype}')")  # the highest bit was taken for a sign
    elif fitting:
        remedy = either(*(other.example + f" if {_first(other)}" for other in fitting))
    elif all(flag.mask is None for flag in scheme.flags):
        remedy = option(f"mask={rule.typed}.where({rule.typed}.isin({[flag.value for flag in scheme.flags]}))")
        remedy += " if the others are no data"
    else:
        remedy = option(f"mask={rule.typed}.where(~{rule.typed}.isin({strange[:64]}))") + " if these are no data"
    return MaskError(
        f"{rule.label} holds {', '.join(map(str, strange[:8]))}, with {count} pixels in all",
        f"the values of {scheme.title}: " + ", ".join(_named(flag) for flag in scheme.flags if flag.state != "unknown"),
        remedy,
    )


def _first(scheme: Scheme) -> str:
    """The head of a scheme, to tell it from another."""
    told = ", ".join(f"{flag.value} is {flag.meaning}" for flag in scheme.flags[:3] if flag.mask is None)
    return told if scheme.bits is None else f"it is {scheme.title}"


def _decode_threshold(values: NDArray[Any], rule: MaskRule, scheme: Scheme) -> Decoded:
    """Probabilities and scores, of which a threshold makes clear and not clear."""
    threshold = cast(float, rule.threshold)
    missing = np.isnan(values) if values.dtype.kind == "f" else np.zeros(values.shape, bool)
    for flag in scheme.flags:  # the layer's own fill value
        missing |= values == flag.value
    seen = values[~missing]
    if seen.size:
        low, high = float(seen.min()), float(seen.max())
        top = rule.top
        if low < 0 or high > top:
            raise MaskError(
                f"{rule.label} holds values from {low:g} to {high:g} with threshold={threshold:g}",
                f"values from 0 to {top:g}, in the units of the threshold",
                _in_units(low, high, threshold, rule.typed),
            )
        # In the wrong units nothing would ever be cloudy.
        if top > 1 >= high >= threshold / 100 and (seen != np.rint(seen)).any():
            raise MaskError(
                f"{rule.label} holds fractions up to {high:g} with threshold={threshold:g}",
                "a threshold in the units of the layer",
                either(
                    option(f"threshold={threshold / top:g}"),
                    option(f"mask={rule.typed}.round()") + " if they are percentages",
                ),
            )
    below = seen < threshold
    clear = ~missing
    clear[clear] = below if scheme.name == "probability" else ~below
    return Decoded(clear, np.zeros(values.shape, bool), missing)


def _in_units(low: float, high: float, threshold: float, typed: str) -> str:
    """What to type where values lie outside of those that go with a threshold."""
    if low < 0:
        return option(f"mask={typed}.where({typed} >= 0)") + " if values below zero are no data"
    if threshold <= 1 and high <= 100:
        return option(f"threshold={threshold * 100:g}")
    for top in (255, 1000, 10_000, 65_535):
        if high <= top:
            share = threshold if threshold <= 1 else threshold / 100
            return option(f"mask={typed} / {top}", f"threshold={share:g}") + f" if it goes up to {top}"
    return option(f"mask={typed}.where({typed} <= 100)") + " if higher values are no data"


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
