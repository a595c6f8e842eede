"""Which layer of a cube tells clear, and how it is read: from names, attributes and coordinates alone."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, cast

import numpy as np
import xarray as xr

from xr_cloudfree.cube.alignment import Axes, align
from xr_cloudfree.cube.flags import scheme_of_flags
from xr_cloudfree.cube.masks import MaskRule, not_boolean
from xr_cloudfree.cube.schemes import SCHEMES, STATES, Flag, Scheme, known_scheme, states
from xr_cloudfree.errors import MaskError, MaskTypeError, OptionError, OptionTypeError, Remedy, either, option
from xr_cloudfree.options import ReadOptions, Snow

# Cloud that grows by more than this leaves nothing clear, and takes long to do so.
MAX_DILATE = 1000
# Probabilities that their producers give in percent, though a byte could hold more.
_PERCENT = ("cld", "msk_cldprb")
_PERCENT_UNITS = ("%", "percent")


def resolve_mask(
    variables: Mapping[str, xr.DataArray],
    reading: ReadOptions,
    *,
    template: xr.DataArray,
    band: str = "cube",
    axes: Axes | None = None,
) -> tuple[xr.DataArray, MaskRule]:
    """The quality layer of a cube and how to read it, from metadata alone.

    ``reading.clear`` or ``reading.mask`` wins over a variable ``cloud_mask``, which wins over the sensor's own layer
    (SCL, QA_PIXEL, Fmask, CFMask and others that are known by name). The scheme comes from ``reading.scheme``, else
    from a table of flags in the layer's attributes (see `flags.scheme_of_flags`), else from the layer's name. A boolean
    layer is only taken as `clear`: given as `mask`, nothing says which of its values is cloud. Classes are not read as
    a probability, nor a clear score as a probability of cloud: where the name or the flags say what a layer is, a
    `scheme` of another kind is refused.

    Landsat's QA_RADSAT is not looked at; to leave saturated pixels out, give
    ``mask=ds.QA_PIXEL.where(ds.QA_RADSAT == 0, 1)``.

    Parameters
    ----------
    variables : mapping of str to DataArray
        Variables of the cube's Dataset; empty for a DataArray.
    reading : ReadOptions
        The layer's name or the layer itself, and how it is read; the options of bands and values are not looked at.
    template : DataArray, shape (time, y, x)
        The grid of the cube.
    band : str
        What is typed for one band of the cube, in remedies.
    axes : Axes, optional
        The user's names of the dimensions, for remedies.

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
    clear, mask, scheme, threshold = reading.clear, reading.mask, reading.scheme, reading.threshold
    snow, strict, dilate = reading.snow, reading.strict, reading.dilate
    _check_options(snow, strict, dilate, threshold)
    if clear is not None and mask is not None:
        raise MaskError(
            "clear= and mask= were both given",
            "one of the two",
            either(
                option("mask=None") + " to use " + option("clear="),
                option("clear=None") + " to use " + option("mask="),
            ),
        )
    if clear is not None:
        needless = ["scheme=None"] * (scheme is not None) + ["threshold=None"] * (threshold is not None)
        needless += ["strict=False"] * bool(strict) + ['snow="clear"'] * (snow != "clear")
        if needless:
            raise MaskError(
                "clear= was given with scheme=, threshold=, strict= or snow=",
                "a boolean layer alone: it has no classes that these could choose from",
                either(
                    option(*needless),
                    option("clear=None") + " and " + option("mask=") + " with the quality layer itself",
                ),
            )
        layer, name, typed = _layer(variables, clear, "clear")
        if layer.dtype != np.bool_:
            raise _not_clear(layer, name, typed)
        rule = MaskRule(dilate=int(dilate), label=f"{name} (boolean, True is clear)", typed=typed)
    else:
        layer, name, typed = _layer(variables, _find(variables, band, scheme) if mask is None else mask, "mask")
        known = _scheme(layer, name, typed, scheme, threshold)
        _check_capable(known, name, snow, strict)
        how = known.name
        if known.has_threshold:
            how += f", threshold {threshold:g}"
        rule = MaskRule(
            scheme=known,
            snow=snow,
            strict=bool(strict),
            threshold=None if threshold is None else float(threshold),
            top=_top(layer, name, threshold),
            dilate=int(dilate),
            label=f"{name} ({how})",
            typed=typed,
        )
    layer, factor = align(layer, name, typed, template, axes)
    return layer, replace(rule, factor=factor)


def _check_options(snow: object, strict: object, dilate: object, threshold: object) -> None:
    if not isinstance(snow, str) or snow not in ("clear", "not clear"):
        raise OptionError(f"snow is {snow!r}", '"clear" or "not clear"', option('snow="clear"'))
    if not isinstance(strict, bool | np.bool_):
        raise OptionTypeError(f"strict is {strict!r}", "True or False", option("strict=True"))
    if isinstance(dilate, bool) or not isinstance(dilate, int | np.integer):
        raise OptionTypeError(f"dilate is {dilate!r}", "a whole number of pixels", option("dilate=2"))
    if not 0 <= dilate <= MAX_DILATE:
        raise OptionError(f"dilate is {dilate}", f"0 to {MAX_DILATE} pixels", option("dilate=2"))
    if threshold is None:
        return
    if isinstance(threshold, bool) or not isinstance(threshold, Real):
        raise OptionTypeError(f"threshold is {threshold!r}", "a number", option("threshold=0.4"))
    if not 0 < cast(float, threshold) <= 255:  # no float yet: an integer of Python may be too large for one
        raise OptionError(f"threshold is {threshold}", "above 0 and at most 255", option("threshold=0.4"))


def _check_capable(scheme: Scheme, name: str, snow: Snow, strict: bool) -> None:
    """An option that could do nothing is refused, not ignored."""
    if snow == "not clear" and not scheme.has("snow"):
        raise MaskError(
            f'snow="not clear" with {name}, which does not tell snow', "a layer with snow", option('snow="clear"')
        )
    if strict and not scheme.has("doubtful"):
        raise MaskError(
            f"strict=True with {name}, which has no doubtful classes", "a layer that has them", option("strict=False")
        )


def _not_clear(layer: xr.DataArray, name: str, typed: str) -> MaskTypeError:
    """The error for a layer given as clear that is not boolean: what it is, where that is known."""
    known = _known(layer, name, typed)
    whole = option("clear=None", f"mask={name!r}" if typed.startswith(("ds.", "ds[")) else f"mask={typed}")
    if known is None or layer.dtype.kind not in "iuf":
        remedy = ""
    elif known.has_threshold:
        sign = ">=" if known.name == "clear_score" else "<"
        remedy = either(
            option(f"clear={typed} {sign} {known.threshold:g}") + ", in the layer's units",
            whole + ", " + known.example,
            by="; or ",
        )
    elif known.clear_values:
        remedy = either(option(f"clear={typed}.isin({known.clear_values})"), whole)
    else:
        remedy = whole
    return not_boolean(name, typed, layer.dtype, remedy)


def _layer(variables: Mapping[str, xr.DataArray], given: object, argument: str) -> tuple[xr.DataArray, str, str]:
    """The layer that was given, its name, and what is typed for it."""
    if isinstance(given, xr.DataArray):
        name = str(given.name) if given.name is not None else "layer"
        return given, name, name if name.isidentifier() else "layer"
    if not isinstance(given, str):
        own = _own(variables)
        array = option(f'{argument}=xr.DataArray(values, dims=("time", "y", "x"))')
        raise MaskTypeError(
            f"{argument}= is a {type(given).__name__}",
            "the name of a variable, or a DataArray with the cube's coordinates",
            array if own is None or hasattr(given, "__array__") else _without(argument, own),
        )
    if given not in variables:
        near = difflib.get_close_matches(given, variables, n=1)
        near = near or [name for name in variables if name.lower() == given.lower()]
        own = _own(variables)
        array = option(f'{argument}=xr.DataArray(values, dims=("time", "y", "x"))')
        raise MaskError(
            f"the cube has no variable {given!r}",
            f"one of {', '.join(variables)}" if variables else "a DataArray: the cube has no other variables",
            option(f"{argument}={near[0]!r}") if near else _without(argument, own) if own else array,
        )
    return variables[given], given, _of_dataset(given)


def _without(argument: str, own: str) -> str:
    """Return the remedy that leaves an option out."""
    return option(f"{argument}=None") + f", with which {own} is taken"


def _of_dataset(name: str) -> str:
    """What is typed for a variable of a Dataset."""
    plain = name.isidentifier() and not hasattr(xr.Dataset, name)
    return f"ds.{name}" if plain else f"ds[{name!r}]"


def _by_name(name: str) -> Scheme | None:
    """The scheme whose layers go by a name."""
    return next((known for known in SCHEMES.values() if name.lower() in known.names), None)


def _known(layer: xr.DataArray, name: str, typed: str) -> Scheme | None:
    """What a layer is by its flags or its name, None if neither tells."""
    by_name = _by_name(name)
    try:
        return scheme_of_flags(layer.attrs, name, typed, by_name) or by_name
    except MaskError:  # flags that are not understood say nothing
        return by_name


def _own(variables: Mapping[str, xr.DataArray], wanted: Sequence[str] = ()) -> str | None:
    """Name of the variable that is taken where none is given, None if there is none."""
    lower = {name.lower(): name for name in reversed(list(variables))}
    own = [name for known in SCHEMES.values() if not known.has_threshold for name in known.names]
    return next((lower[name] for name in wanted or ["cloud_mask", *own] if name in lower), None)


def _find(variables: Mapping[str, xr.DataArray], band: str, scheme: str | None) -> str:
    """Name of the variable to use where none was given."""
    wanted: list[str] = []
    if scheme is not None:
        told = known_scheme(scheme)
        # Its own names first, then those of layers that are taken for another scheme at first.
        wanted = [*told.names, *(n for s in SCHEMES.values() if told.name in s.mistaken for n in s.names)]
        if "cloud_mask" in variables and _known(variables["cloud_mask"], "cloud_mask", "") is None:
            wanted.append("cloud_mask")
    found = _own(variables, wanted) if wanted or scheme is None else None
    if found is not None:
        return found
    scored = next((name for name in variables if (known := _by_name(name)) and known.has_threshold), None)
    own = _own(variables)
    boolean = next((_of_dataset(name) for name, layer in variables.items() if layer.dtype == np.bool_), None)
    if scheme is not None and own is not None:
        remedy = _without("scheme", own)
    elif scored is not None:
        remedy = option(f"mask={scored!r}") + ", " + _example(cast(Scheme, _by_name(scored)), variables[scored], scored)
    elif scheme is None and boolean is not None:
        remedy = either(
            option(f"clear={boolean}") + " if True means clear",
            option(f"clear=~{boolean}") + " if True means cloud",
            by="; ",
        )
    else:
        # Where a layer is lacking, clouds may have been taken out before.
        remedy = either(
            option(f"clear={band}.notnull()") + " if what was cloudy has no value",
            option("clear=") + " or " + option("mask=") + " with a layer that tells",
        )
    what = "no quality layer" if scheme is None else f"no layer of scheme {scheme!r}"
    names = wanted or ["cloud_mask", "scl", "qa_pixel", "fmask", "cfmask"]
    raise MaskError(
        f"{what} among the variables: {', '.join(variables) or 'none'}", f"one of {', '.join(names)}", remedy
    )


def _scheme(layer: xr.DataArray, name: str, typed: str, scheme: str | None, threshold: float | None) -> Scheme:
    """What the values of a layer mean: told, or from its attributes, or from its name."""
    given = {"mask": True, "scheme": scheme is not None, "threshold": threshold is not None}
    unset = [f"{argument}=None" for argument, is_given in given.items() if is_given]
    if layer.dtype == np.bool_:
        raise MaskTypeError(
            f"mask= is {name}, a boolean layer, of which nothing tells what True means",
            "a layer of which True means clear, given as clear=",
            either(
                option(*unset, f"clear={typed}") + " if True means clear",
                option(*unset, f"clear=~{typed}") + " if True means cloud",
                by="; ",
            ),
        )
    if layer.dtype.kind not in "iuf":
        raise MaskTypeError(
            f"{name} has dtype {layer.dtype}",
            "a layer of numbers",
            either(
                option(f"mask={typed}.astype('float32')") + " if these are numbers",
                option(*unset, f"clear={typed} == 'clear'") + " if words",
                by=", ",
            ),
        )
    by_name = _by_name(name)
    found: Scheme | None
    if scheme is not None:
        found = known_scheme(scheme)
        _check_kind(found, layer, name, typed)
    else:
        found = scheme_of_flags(layer.attrs, name, typed, by_name) or by_name
    if found is None:
        classes = [known.name for known in SCHEMES.values() if not known.has_threshold]
        raise MaskError(
            f"nothing tells what the values of {name} mean",
            "a table of flags in its attributes, a known name, or scheme=",
            either(
                option('scheme="scl"') + f" if they are the classes of SCL (others: {', '.join(classes[1:])})",
                option('scheme="probability"', "threshold=0.4") + " if they are probabilities of cloud",
                option('scheme="clear_score"', "threshold=0.6") + " if of clear ground",
                option(*unset, f"clear={typed} == 0") + " if 0 alone means clear",
            ),
        )
    if found.has_threshold and threshold is None:
        raise MaskError(
            f"{name} is a {_kind(found)} without a threshold", "a threshold", _threshold(found, layer, name)
        )
    if found.has_threshold:
        boolean = option(*unset, f"clear={typed} == {int(found.name == 'clear_score')}")
        _check_threshold(layer, name, boolean, cast(float, threshold))
    elif threshold is not None:
        raise MaskError(
            f"threshold={threshold:g} was given, and {name} is no probability ({found.title})",
            "a threshold together with a probability",
            either(
                option("threshold=None") + f" to read {name} so",
                option("mask=") + " with the layer that is a probability",
            ),
        )
    return _with_fill(found, layer, name, typed)


def _kind(scheme: Scheme) -> str:
    return scheme.name.replace("_", " ") if scheme.has_threshold else "layer of classes or bits"


def _check_kind(told: Scheme, layer: xr.DataArray, name: str, typed: str) -> None:
    """Refuse a threshold on a layer of another kind: on classes, or on a score that says clear and not cloud."""
    known = _known(layer, name, typed)
    if known is None or not told.has_threshold or _kind(known) == _kind(told):
        return
    bare = typed if known.name in SCHEMES else f"{typed}.drop_attrs()"
    right = _example(known, layer, name) if known.has_threshold else option("scheme=None", "threshold=None")
    raise MaskError(
        f"{name} is a {_kind(known)} ({known.title}), and scheme={told.name!r} reads a {_kind(told)}",
        "the scheme of the layer, or another name for it",
        either(right, option(f'mask={bare}.rename("other")') + f" if it is a {_kind(told)} all the same", by="; or "),
    )


def _example(scheme: Scheme, layer: xr.DataArray, name: str) -> str:
    """What is typed to read a layer by a scheme with a threshold."""
    return option(f'scheme="{scheme.name}"') + ", " + _threshold(scheme, layer, name)


def _threshold(scheme: Scheme, layer: xr.DataArray, name: str) -> str:
    """What is typed as the threshold of a layer, in its units as far as they are known."""
    share = cast(float, scheme.threshold)
    if name.lower() in _PERCENT or _units(layer) in _PERCENT_UNITS:
        return option(f"threshold={share * 100:g}")
    if _stored(layer).kind in "iu" and not _is_packed(layer):
        return _of_100_or_255(share)
    return option(f"threshold={share:g}")


def _of_100_or_255(share: float) -> Remedy:
    """Return the remedy for a share of 1 where a layer of integers may be in percent or in bytes."""
    return either(
        option(f"threshold={share * 100:g}") + " if it goes up to 100",
        option(f"threshold={share * 255:g}") + " if up to 255",
    )


def _check_threshold(layer: xr.DataArray, name: str, boolean: str, threshold: float) -> None:
    """Refuse a threshold in other units than those that the dtype and the attribute ``units`` tell."""
    units = _units(layer)
    if units in _PERCENT_UNITS and threshold < 1:
        raise MaskError(
            f"{name} is in percent, and the threshold is {threshold:g}",
            "a threshold in percent",
            option(f"threshold={threshold * 100:g}"),
        )
    if _stored(layer).kind in "iu" and not _is_packed(layer) and threshold < 1:
        raise MaskError(
            f"{name} holds whole numbers ({_stored(layer)}), and the threshold is {threshold:g}",
            "a threshold in the units of the layer",
            either(_of_100_or_255(threshold), boolean + " if it holds 0 and 1 alone"),
        )
    if units == "1" and _stored(layer).kind == "f" and threshold > 1:
        raise MaskError(
            f"{name} is a share of 1, by its units, and the threshold is {threshold:g}",
            "a threshold up to 1",
            option(f"threshold={threshold / (100 if threshold <= 100 else 255):g}"),
        )


def _units(layer: xr.DataArray) -> str:
    return str(layer.attrs.get("units", "")).strip().lower()


def _is_packed(layer: xr.DataArray) -> bool:
    return "scale_factor" in layer.attrs or "scale_factor" in layer.encoding


def _stored(layer: xr.DataArray) -> np.dtype[Any]:
    """The type in which a layer is kept: that of its file, where it was decoded."""
    kept = layer.encoding.get("dtype")
    return layer.dtype if kept is None or layer.dtype.kind != "f" else np.dtype(kept)


def _top(layer: xr.DataArray, name: str, threshold: float | None) -> float:
    """The highest value of a layer: 255 for bytes that are not percent, 1 or 100 by the threshold for others."""
    percent = name.lower() in _PERCENT or _units(layer) in _PERCENT_UNITS
    if (threshold or 0) > 100 or (_stored(layer) == np.uint8 and not percent and not _is_packed(layer)):
        return 255.0
    whole = _stored(layer).kind in "iu" and not _is_packed(layer)
    return 1.0 if (threshold or 0) <= 1 and not whole and not percent else 100.0


def _with_fill(scheme: Scheme, layer: xr.DataArray, name: str, typed: str) -> Scheme:
    """The scheme, with the layer's fill value as one more flag."""
    for where in (layer.attrs, layer.encoding):
        for key in ("_FillValue", "missing_value", "nodata"):
            fill = where.get(key)
            if fill is None:
                continue
            kept = where is layer.encoding
            try:
                number = float(np.asarray(fill).ravel().tolist()[0])
            except (TypeError, ValueError, IndexError, OverflowError) as error:
                raise MaskError(
                    f"the attribute {key} of {name} is {fill!r}",
                    "a number",
                    option(f"mask={typed}.drop_encoding()" if kept else f"mask={typed}.assign_attrs({key}=None)"),
                ) from error
            if not np.isfinite(number):
                continue
            flag = Flag(int(number), "fill value", "missing")
            if scheme.has_threshold:
                return replace(scheme, flags=(flag,))
            state = STATES[int(states(np.array([flag.value]), scheme)[0])]
            if state not in ("unknown", "missing"):
                # What was decoded has NaN where this value was.
                back = f"{typed}.fillna({flag.value})" if layer.dtype.kind == "f" else typed
                raise MaskError(
                    f"{name} has the fill value {flag.value}, which also means {state} ({scheme.title})",
                    "a fill value that means nothing else",
                    option(f"mask={back}.drop_encoding()" if kept else f"mask={typed}.assign_attrs({key}=None)"),
                )
            return replace(scheme, flags=(*scheme.flags, flag)) if state == "unknown" else scheme
    return scheme
