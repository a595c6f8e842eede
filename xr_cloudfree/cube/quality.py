"""Find a cube's quality layer and how to read it, from names, attributes and coordinates only."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import replace
from numbers import Real
from typing import Any, cast

import numpy as np
import xarray as xr

from xr_cloudfree.compat import raw_data
from xr_cloudfree.cube.alignment import Axes, align
from xr_cloudfree.cube.flags import scheme_of_flags
from xr_cloudfree.cube.masks import MaskRule, not_boolean
from xr_cloudfree.cube.schemes import (
    SCHEMES,
    STATES,
    Flag,
    Scheme,
    find_scheme,
    layer_names,
    scheme_of_layer,
    states,
)
from xr_cloudfree.errors import (
    MaskError,
    MaskTypeError,
    OptionError,
    OptionTypeError,
    Remedy,
    either,
    option,
    warn,
)
from xr_cloudfree.options import ReadOptions, Snow

SERIES = "series"
"""Value of `mask` for masks that are made from the series, without a quality layer."""
# A larger dilation leaves nothing clear, and is slow.
MAX_DILATE = 1000
# Probabilities that are in percent although a byte could hold more.
_PERCENT = ("cld", "msk_cldprb")
_PERCENT_UNITS = ("%", "percent")


def resolve_mask(
    variables: Mapping[str, xr.DataArray],
    reading: ReadOptions,
    *,
    template: xr.DataArray,
    band: str = "cube",
    axes: Axes | None = None,
    from_series: bool = False,
) -> tuple[xr.DataArray, MaskRule]:
    """Return the quality layer of a cube and the rule to read it, from metadata only.

    ``reading.clear`` or ``reading.mask`` takes precedence over a variable ``cloud_mask``, which takes precedence over
    the sensor's own layer (SCL, QA_PIXEL, Fmask, CFMask and others known by name). The scheme comes from
    ``reading.scheme``, else from a table of flags in the layer's attributes (see `flags.scheme_of_flags`), else from
    the layer's name. A boolean layer is accepted as `clear` only: as `mask`, it would be unknown which of its values is
    cloud. With ``mask="series"`` there is no layer. Where the name or the flags identify a layer, a `scheme` of another
    type is refused: classes are not probabilities, and a clear score is not a cloud probability.

    Landsat's QA_RADSAT is not used; to exclude saturated pixels, pass
    ``mask=ds.QA_PIXEL.where(ds.QA_RADSAT == 0, 1)``.

    Parameters
    ----------
    variables : mapping of str to DataArray
        Variables of the cube's Dataset; empty for a DataArray.
    reading : ReadOptions
        The layer's name or the layer itself, and the options to read it; options for bands and values are not used.
    template : DataArray, shape (time, y, x)
        The grid of the cube.
    band : str
        Expression for one band of the cube, for remedies.
    axes : Axes, optional
        The user's names of the dimensions, for remedies.
    from_series : bool
        Whether masks can be made from the series if there is no layer.

    Returns
    -------
    quality : DataArray, shape (time, y, x)
        The layer on the dates of the cube and on its grid, or on one that is `MaskRule.factor` times coarser.
        Not computed. One pixel per date, True, if the masks are made from the series.
    rule : MaskRule
        How to read it.

    Raises
    ------
    MaskError
        If there is no layer, or the meaning of its values is unknown.
    MaskTypeError
        If `clear` is not boolean, or `mask` is.
    DimensionError
        If the layer lacks a dimension or has one too many.
    TimeError
        If its dates are not those of the cube.
    GridError
        If its pixels are neither those of the cube nor nest in them.
    OptionError
        If the value of an option is not allowed.

    Warns
    -----
    CloudfreeWarning
        If no layer is found and the masks are made from the series.
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
                "a boolean layer alone, which has no classes to select from",
                either(
                    option(*needless),
                    option("clear=None") + " and " + option("mask=") + " with the quality layer itself",
                ),
            )
        layer, name, typed = _layer(variables, clear, "clear", None)
        if layer.dtype != np.bool_:
            raise _not_clear(layer, name, typed)
        rule = MaskRule(dilate=int(dilate), label=f"{name} (boolean, True is clear)", typed=typed)
    elif isinstance(mask, str) and mask == SERIES:
        return _no_layer(template, reading)
    else:
        needless = [f"{name}={value}" for name, value in _reads_layer(reading).items()]
        series = option(*needless, 'mask="series"') + " to make masks from the series" if from_series else None
        if mask is None:
            mask = _find(variables, band, scheme, series, made=not needless)
            if mask == SERIES:
                return _no_layer(template, reading)
        layer, name, typed = _layer(variables, mask, "mask", series)
        known = _scheme(layer, name, typed, scheme, threshold, series)
        _check_capable(known, name, snow, strict)
        label = known.name
        if known.has_threshold:
            label += f", threshold {threshold:g}"
        rule = MaskRule(
            scheme=known,
            snow=snow,
            strict=bool(strict),
            threshold=None if threshold is None else float(threshold),
            top=_top(layer, name, threshold),
            dilate=int(dilate),
            label=f"{name} ({label})",
            typed=typed,
        )
    layer, factor = align(layer, name, typed, template, axes)
    return layer, replace(rule, factor=factor)


def _reads_layer(reading: ReadOptions) -> dict[str, str]:
    """Return the options that say how a layer is read, and their values without effect."""
    chosen = reading.chosen()
    return {
        name: value
        for name, value in {
            "scheme": "None",
            "threshold": "None",
            "strict": "False",
            "snow": '"clear"',
            "dilate": "0",
        }.items()
        if name in chosen
    }


def _no_layer(template: xr.DataArray, reading: ReadOptions) -> tuple[xr.DataArray, MaskRule]:
    """Return the layer and the rule for masks that are made from the series."""
    if needless := _reads_layer(reading):
        raise MaskError(
            f'mask="series" was given with {", ".join(f"{name}=" for name in needless)}',
            "no option that says how a quality layer is read: there is none",
            either(
                option(*(f"{name}={value}" for name, value in needless.items())),
                option("mask=") + " with a quality layer",
            ),
        )
    seen = np.ones((template.sizes["time"], 1, 1), bool)
    layer = xr.DataArray(seen, dims=("time", "y", "x"), name=SERIES)
    return layer, MaskRule(from_series=True, label=SERIES)


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
    """Raise for an option that would have no effect."""
    if snow == "not clear" and not scheme.has("snow"):
        raise MaskError(
            f'snow="not clear" with {name}, which has no snow class', "a layer with snow", option('snow="clear"')
        )
    if strict and not scheme.has("doubtful"):
        raise MaskError(
            f"strict=True with {name}, which has no doubtful classes",
            "a layer with such classes",
            option("strict=False"),
        )


def _not_clear(layer: xr.DataArray, name: str, typed: str) -> MaskTypeError:
    """Return the error for a layer given as `clear` that is not boolean, with a remedy for its scheme if known."""
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


def _layer(
    variables: Mapping[str, xr.DataArray], value: object, argument: str, series: Remedy | None
) -> tuple[xr.DataArray, str, str]:
    """Return the layer given by an argument, its name, and the expression for it."""
    if isinstance(value, xr.DataArray):
        name = str(value.name) if value.name is not None else "layer"
        stored = variables.get(name)
        if stored is not None and raw_data(stored.variable) is raw_data(value.variable):
            return value, name, _variable_expression(name)
        return value, name, name if name.isidentifier() else "layer"
    if not isinstance(value, str):
        own = _default_layer(variables)
        array = option(f'{argument}=xr.DataArray(values, dims=("time", "y", "x"))')
        raise MaskTypeError(
            f"{argument}= is a {type(value).__name__}",
            "the name of a variable, or a DataArray with the cube's coordinates",
            _or(array if own is None or hasattr(value, "__array__") else _without(argument, own), series),
        )
    if value not in variables:
        raise _no_variable(variables, value, argument, series)
    return variables[value], value, _variable_expression(value)


def _no_variable(variables: Mapping[str, xr.DataArray], value: str, argument: str, series: Remedy | None) -> MaskError:
    """Return the error for the name of a layer that the cube does not have."""
    found = f"the cube has no variable {value!r}"
    needed = f"one of {', '.join(variables)}" if variables else "a DataArray: the cube has no other variables"
    if series is not None:
        needed += f", or {SERIES!r}"
    own = _default_layer(variables)
    names = {name.lower(): name for name in (*variables, *([] if series is None else [SERIES]))}
    near = difflib.get_close_matches(value.lower(), names, n=1)
    if near and (names[near[0]] != SERIES or near[0] == value.lower()):
        return MaskError(found, needed, option(f"{argument}={names[near[0]]!r}"))
    remedy: str
    if value.lower() in SCHEMES and argument == "mask":
        found += f", which is the name of a scheme ({SCHEMES[value.lower()].title})"
        remedy = option(f"mask={own or 'layer'!r}", f"scheme={value.lower()!r}") + " if its values are read so"
    elif own is not None:
        remedy = _without(argument, own)
    elif near:
        return MaskError(found, needed, option(f"{argument}={SERIES!r}"))
    else:
        remedy = option(f'{argument}=xr.DataArray(values, dims=("time", "y", "x"))')
    return MaskError(found, needed, _or(remedy, series))


def _without(argument: str, own: str) -> Remedy:
    """Return the remedy that leaves an option out."""
    return option(f"{argument}=None") + f", which uses {own}"


def _variable_expression(name: str) -> str:
    """Return the expression for a variable of a Dataset."""
    plain = name.isidentifier() and not hasattr(xr.Dataset, name)
    return f"ds.{name}" if plain else f"ds[{name!r}]"


def _known(layer: xr.DataArray, name: str, typed: str) -> Scheme | None:
    """Return the scheme of a layer by its flags or its name, None if both are unknown."""
    by_name = scheme_of_layer(name)
    try:
        return scheme_of_flags(layer.attrs, name, typed, by_name) or by_name
    except MaskError:  # unknown flags do not matter here
        return by_name


def _default_layer(variables: Mapping[str, xr.DataArray], wanted: Sequence[str] = ()) -> str | None:
    """Return the name of the variable to use by default, None if there is none."""
    lower = {name.lower(): name for name in reversed(list(variables))}
    own = [name for known in SCHEMES.values() if not known.has_threshold for name in layer_names(known)]
    return next((lower[name] for name in wanted or ["cloud_mask", *own] if name in lower), None)


def _find(
    variables: Mapping[str, xr.DataArray], band: str, scheme: str | None, series: Remedy | None, made: bool
) -> str:
    """Return the name of the variable to use by default, for a scheme if one is given.

    It is `SERIES` if there is none, masks can be made from the series (`series` says how), and no option says how a
    layer is read (`made`).
    """
    wanted: list[str] = []
    if scheme is not None:
        requested = find_scheme(scheme)
        # The scheme's own names first, then those of schemes that its layers are mistaken for.
        wanted = [*layer_names(requested)]
        wanted += [n for s in SCHEMES.values() if requested.name in s.mistaken for n in layer_names(s)]
        if "cloud_mask" in variables and _known(variables["cloud_mask"], "cloud_mask", "") is None:
            wanted.append("cloud_mask")
    name = _default_layer(variables, wanted) if wanted or scheme is None else None
    if name is not None:
        return name
    scored = next((name for name in variables if (known := scheme_of_layer(name)) and known.has_threshold), None)
    own = _default_layer(variables)
    boolean = next((_variable_expression(name) for name, layer in variables.items() if layer.dtype == np.bool_), None)
    if scheme is not None and own is not None:
        remedy = _without("scheme", own)
    elif scored is not None:
        known = cast(Scheme, scheme_of_layer(scored))
        remedy = option(f"mask={scored!r}") + ", " + _example(known, variables[scored], scored)
    elif scheme is None and boolean is not None:
        remedy = either(
            option(f"clear={boolean}") + " if True means clear",
            option(f"clear=~{boolean}") + " if True means cloud",
            by="; ",
        )
    else:
        # Without a quality layer, clouds may have been masked before.
        remedy = either(
            option(f"clear={band}.notnull()") + " if cloudy pixels have no value",
            option("clear=") + " or " + option("mask=") + " with a quality layer",
        )
    if series is not None and made and scored is None:
        warn(
            f"the cube has no quality layer: its masks are made from the series, as with mask='series'. If this is not "
            f"wanted: {remedy}"
        )
        return SERIES
    what = "no quality layer" if scheme is None else f"no layer of scheme {scheme!r}"
    names = wanted or ["cloud_mask", "scl", "qa_pixel", "fmask", "cfmask"]
    raise MaskError(
        f"{what} among the variables: {', '.join(variables) or 'none'}",
        f"one of {', '.join(names)}",
        _or(remedy, series),
    )


def _or(remedy: str, series: Remedy | None) -> str:
    """Return a remedy, and that masks can be made from the series if they can."""
    return remedy if series is None else either(remedy, series, by="; or ")


def _scheme(
    layer: xr.DataArray,
    name: str,
    typed: str,
    scheme: str | None,
    threshold: float | None,
    series: Remedy | None,
) -> Scheme:
    """Return the scheme of a layer: the one given, or from its attributes, or from its name."""
    options = {"mask": True, "scheme": scheme is not None, "threshold": threshold is not None}
    unset = [f"{argument}=None" for argument, is_given in options.items() if is_given]
    if layer.dtype == np.bool_:
        raise MaskTypeError(
            f"mask= is {name}, a boolean layer with unknown meaning of True",
            "a layer that is True where clear, given as clear=",
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
    by_name = scheme_of_layer(name)
    result: Scheme | None
    if scheme is not None:
        result = find_scheme(scheme)
        _check_layer_type(result, layer, name, typed)
    else:
        result = scheme_of_flags(layer.attrs, name, typed, by_name) or by_name
    if result is None:
        classes = [known.name for known in SCHEMES.values() if not known.has_threshold]
        raise MaskError(
            f"the meaning of the values of {name} is unknown",
            "a table of flags in its attributes, a known name, or scheme=",
            either(
                option('scheme="scl"') + f" if they are the classes of SCL (others: {', '.join(classes[1:])})",
                option('scheme="probability"', "threshold=0.4") + " if they are cloud probabilities",
                option('scheme="clear_score"', "threshold=0.6") + " if they are clear-sky scores",
                option(*unset, f"clear={typed} == 0") + " if only 0 means clear",
                *([] if series is None else [series]),
            ),
        )
    if result.has_threshold and threshold is None:
        raise MaskError(
            f"{name} is a {_layer_type(result)} without a threshold", "a threshold", _threshold(result, layer, name)
        )
    if result.has_threshold:
        boolean = option(*unset, f"clear={typed} == {int(result.name == 'clear_score')}")
        _check_threshold(layer, name, boolean, cast(float, threshold))
    elif threshold is not None:
        raise MaskError(
            f"threshold={threshold:g} was given, but {name} is not a probability ({result.title})",
            "a threshold only with a probability",
            either(
                option("threshold=None") + f" to read {name} by its classes",
                option("mask=") + " with the layer that is a probability",
            ),
        )
    return _with_fill(result, layer, name, typed)


def _layer_type(scheme: Scheme) -> str:
    return scheme.name.replace("_", " ") if scheme.has_threshold else "layer of classes or bits"


def _check_layer_type(requested: Scheme, layer: xr.DataArray, name: str, typed: str) -> None:
    """Raise for a scheme with a threshold on a layer of another type: on classes, or a clear score on probabilities."""
    known = _known(layer, name, typed)
    if known is None or not requested.has_threshold or _layer_type(known) == _layer_type(requested):
        return
    bare = typed if known.name in SCHEMES else f"{typed}.drop_attrs()"
    options = _example(known, layer, name) if known.has_threshold else option("scheme=None", "threshold=None")
    raise MaskError(
        f"{name} is a {_layer_type(known)} ({known.title}), but scheme={requested.name!r} reads a "
        f"{_layer_type(requested)}",
        "the scheme of the layer, or another name for it",
        either(
            options,
            option(f'mask={bare}.rename("other")') + f" if it is a {_layer_type(requested)} nevertheless",
            by="; or ",
        ),
    )


def _example(scheme: Scheme, layer: xr.DataArray, name: str) -> str:
    """Return the options that read a layer by a scheme with a threshold, as typed."""
    return option(f'scheme="{scheme.name}"') + ", " + _threshold(scheme, layer, name)


def _threshold(scheme: Scheme, layer: xr.DataArray, name: str) -> str:
    """Return the option for the threshold of a layer, in its units as far as they are known."""
    share = cast(float, scheme.threshold)
    if name.lower() in _PERCENT or _units(layer) in _PERCENT_UNITS:
        return option(f"threshold={share * 100:g}")
    if _stored(layer).kind in "iu" and not _is_packed(layer):
        return _percent_or_byte(share)
    return option(f"threshold={share:g}")


def _percent_or_byte(share: float) -> Remedy:
    """Return the option for a threshold given as a fraction, if a layer of integers may be in percent or in bytes."""
    return either(
        option(f"threshold={share * 100:g}") + " if its values go up to 100",
        option(f"threshold={share * 255:g}") + " if up to 255",
    )


def _check_threshold(layer: xr.DataArray, name: str, boolean: str, threshold: float) -> None:
    """Raise for a threshold in other units than those given by the dtype and the attribute ``units``."""
    units = _units(layer)
    if units in _PERCENT_UNITS and threshold < 1:
        raise MaskError(
            f"{name} is in percent, but the threshold is {threshold:g}",
            "a threshold in percent",
            option(f"threshold={threshold * 100:g}"),
        )
    if _stored(layer).kind in "iu" and not _is_packed(layer) and threshold < 1:
        raise MaskError(
            f"{name} holds integers ({_stored(layer)}), but the threshold is {threshold:g}",
            "a threshold in the units of the layer",
            either(_percent_or_byte(threshold), boolean + " if it holds 0 and 1 only"),
        )
    if units == "1" and _stored(layer).kind == "f" and threshold > 1:
        raise MaskError(
            f"{name} has the units 1, but the threshold is {threshold:g}",
            "a threshold up to 1",
            option(f"threshold={threshold / (100 if threshold <= 100 else 255):g}"),
        )


def _units(layer: xr.DataArray) -> str:
    return str(layer.attrs.get("units", "")).strip().lower()


def _is_packed(layer: xr.DataArray) -> bool:
    return "scale_factor" in layer.attrs or "scale_factor" in layer.encoding


def _stored(layer: xr.DataArray) -> np.dtype[Any]:
    """Return the stored dtype of a layer: that of its file, if it was decoded."""
    stored = layer.encoding.get("dtype")
    return layer.dtype if stored is None or layer.dtype.kind != "f" else np.dtype(stored)


def _top(layer: xr.DataArray, name: str, threshold: float | None) -> float:
    """Return the highest possible value of a layer: 255 for bytes that are not percent, else 1 or 100."""
    percent = name.lower() in _PERCENT or _units(layer) in _PERCENT_UNITS
    if (threshold or 0) > 100 or (_stored(layer) == np.uint8 and not percent and not _is_packed(layer)):
        return 255.0
    is_integer = _stored(layer).kind in "iu" and not _is_packed(layer)
    return 1.0 if (threshold or 0) <= 1 and not is_integer and not percent else 100.0


def _with_fill(scheme: Scheme, layer: xr.DataArray, name: str, typed: str) -> Scheme:
    """Return the scheme with the layer's fill value as an additional flag."""
    for attrs in (layer.attrs, layer.encoding):
        for key in ("_FillValue", "missing_value", "nodata"):
            fill = attrs.get(key)
            if fill is None:
                continue
            in_encoding = attrs is layer.encoding
            try:
                number = float(np.asarray(fill).ravel().tolist()[0])
            except (TypeError, ValueError, IndexError, OverflowError) as error:
                raise MaskError(
                    f"the attribute {key} of {name} is {fill!r}",
                    "a number",
                    option(
                        f"mask={typed}.drop_encoding()" if in_encoding else f"mask={typed}.assign_attrs({key}=None)"
                    ),
                ) from error
            if not np.isfinite(number):
                continue
            flag = Flag(int(number), "fill value", "missing")
            if scheme.has_threshold:
                return replace(scheme, flags=(flag,))
            state = STATES[int(states(np.array([flag.value]), scheme)[0])]
            if state not in ("unknown", "missing"):
                # A decoded layer has NaN in place of this value.
                filled = f"{typed}.fillna({flag.value})" if layer.dtype.kind == "f" else typed
                raise MaskError(
                    f"{name} has the fill value {flag.value}, which also means {state} ({scheme.title})",
                    "a fill value without another meaning",
                    option(
                        f"mask={filled}.drop_encoding()" if in_encoding else f"mask={typed}.assign_attrs({key}=None)"
                    ),
                )
            return replace(scheme, flags=(*scheme.flags, flag)) if state == "unknown" else scheme
    return scheme
