"""Options of the public functions: how a cube is read, and the parsing of values, refused with a remedy."""

from __future__ import annotations

import difflib
import inspect
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, fields
from numbers import Real
from typing import Any, Literal

import numpy as np
import xarray as xr

from xr_cloudfree.errors import OptionError, OptionTypeError, either, option
from xr_cloudfree.layers import LAYERS, MASK_CHANGE, SCORE

Snow = Literal["clear", "not clear"]
Merge = Literal["day"]
Repair = Literal["auto"] | bool
Cubes = xr.DataArray | xr.Dataset | str | os.PathLike[str]
Others = Cubes | Sequence[Cubes] | None


@dataclass(frozen=True, eq=False, kw_only=True)
class ReadOptions:
    """How a cube is read: which pixels are clear, which bands are used and what the stored values mean.

    The public functions take these options one by one and make this value of them; everything below takes the value.
    See `xr_cloudfree.fill` for what each option means.

    Parameters
    ----------
    clear : DataArray of bool or str, optional
        Layer that is True where a pixel is clear, or its name.
    mask : DataArray or str, optional
        Quality layer, its name, that of a detector, or ``"series"``; exclusive with `clear`.
    scheme : str, optional
        How to read `mask`: a name of `xr_cloudfree.cube.schemes.SCHEMES`.
    threshold : float, optional
        Threshold of a cloud probability or a clear score, in the layer's units.
    snow : {"clear", "not clear"}
        Whether snow counts as clear.
    strict : bool
        Whether doubtful classes count as not clear.
    dilate : int
        Pixels by which cloud and shadow are grown.
    bands : sequence of str, optional
        The bands to use, in this order.
    scale, offset : float, optional
        Reflectance = stored * scale + offset.
    nodata : float, optional
        Stored value that means "missing".
    merge : {"day"}, optional
        Make one date of all scenes of a day.
    repair : bool or {"auto"}
        Whether the masks are corrected by the series; those that are made from it are not affected.

    Examples
    --------
    >>> reading, others = ReadOptions.split({"mask": "SCL", "dilate": 2, "model": "linear"})
    >>> reading.mask, others
    ('SCL', {'model': 'linear'})
    >>> reading.chosen()
    {'mask': 'SCL', 'dilate': 2}
    """

    clear: xr.DataArray | str | None = None
    mask: xr.DataArray | str | None = None
    scheme: str | None = None
    threshold: float | None = None
    snow: Snow = "clear"
    strict: bool = False
    dilate: int = 0
    bands: Sequence[str] | None = None
    scale: float | None = None
    offset: float | None = None
    nodata: float | None = None
    merge: Merge | None = None
    repair: Repair = False

    @classmethod
    def split(cls, options: Mapping[str, Any]) -> tuple[ReadOptions, dict[str, Any]]:
        """Return the options of reading among options by name as one value, and the other options."""
        names = {field.name for field in fields(cls)}
        others = {name: value for name, value in options.items() if name not in names}
        return cls(**{name: value for name, value in options.items() if name in names}), others

    def chosen(self) -> dict[str, Any]:
        """Return the options that differ from their defaults, by name."""
        values = {field.name: (getattr(self, field.name), field.default) for field in fields(self)}
        return {name: value for name, (value, default) in values.items() if value is not default}


def check_names(names: Iterable[str], *takers: Callable[..., Any]) -> None:
    """Refuse options that none of the called functions accepts.

    Parameters
    ----------
    names : iterable of str
        Names of options.
    *takers : callable
        The functions; every parameter but a first positional one, the object itself, is an option.

    Raises
    ------
    OptionTypeError
        If there is no such option.
    """
    named = (inspect.Parameter.KEYWORD_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    known = set()
    for taker in takers:
        first, *rest = inspect.signature(taker).parameters.values()
        options = [first, *rest] if first.kind is inspect.Parameter.KEYWORD_ONLY else rest
        known |= {option.name for option in options if option.kind in named}
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, sorted(known), n=1)
            remedy = f"{near[0]}=..." if near else f"leave {name} out"
            raise OptionTypeError(f"there is no option {name!r} here", f"some of {', '.join(sorted(known))}", remedy)


def parse_layers(
    layers: Literal["all"] | str | Sequence[str] | None, offered: Sequence[str], model: str
) -> tuple[str, ...]:
    """Return the requested layers, in the order of the output.

    Parameters
    ----------
    layers : {"all"}, str, sequence of str or None
        ``"all"`` means all that the model and the mask can give; None means none.
    offered : sequence of str
        What the model and the mask can give.
    model : str
        The model's name, for the error.

    Raises
    ------
    OptionTypeError
        If a layer is not text.
    OptionError
        If a layer does not exist, or this model cannot give it.

    Examples
    --------
    >>> parse_layers(["n_clear", "filled"], offered=("filled", "n_clear"), model="median")
    ('filled', 'n_clear')
    """
    if layers is None:
        return ()
    if isinstance(layers, str) and layers == "all":
        return tuple(layer for layer in LAYERS if layer in offered)
    try:
        requested: list[Any] = [layers] if isinstance(layers, str) else list(layers)
    except TypeError:
        requested = [layers]
    if not all(isinstance(layer, str) for layer in requested):
        raise OptionTypeError(
            f"layers is {layers!r}", "names, as text", either(option("layers='all'"), option("layers=['filled']"))
        )
    for layer in requested:
        if layer not in LAYERS:
            raise OptionError(
                f"there is no layer {layer!r}", f"some of {tuple(LAYERS)}, or 'all'", option("layers='all'")
            )
        if layer not in offered:
            raise OptionError(
                f"model {model!r} with this mask has no layer {layer!r}",
                f"some of {tuple(offered)}",
                either(
                    option("layers='all'") + " for all available layers",
                    "another model (xr_cloudfree.list_models() names the layers of each)",
                ),
            )
    return tuple(layer for layer in LAYERS if layer in requested)


def parse_block(block: int | tuple[int, int] | None, stride: int | None, name: str = "block") -> tuple[int, int] | None:
    """Parse the rows and columns of a block or shard; `name` is the option's name in messages.

    Raises
    ------
    OptionTypeError
        If it is neither an integer nor a pair of integers.
    OptionError
        If it is not positive, or not a multiple of the model's stride.
    """
    if block is None:
        return None
    pair = tuple(block) if isinstance(block, tuple | list) else (block, block)
    example = option(f"{name}={4 * (stride or 128)}")
    if len(pair) != 2 or any(isinstance(n, bool) or not isinstance(n, int | np.integer) for n in pair):
        raise OptionTypeError(f"{name} is {block!r}", "pixels along y and x, as integers", example)
    if min(pair) < 1:
        raise OptionError(f"{name} is {block!r}", "at least one pixel", example)
    if stride is not None and any(n % stride for n in pair):
        near = max(round(max(pair) / stride), 1) * stride
        raise OptionError(
            f"{name} is {block!r}", f"a multiple of the model's stride, {stride}", option(f"{name}={near}")
        )
    return int(pair[0]), int(pair[1])


def parse_list(name: str, value: Any, example: str) -> list[Any]:
    """Return the elements of an option that takes a list with at least one element.

    Parameters
    ----------
    name : str
        The option.
    value : Any
        Its value.
    example : str
        A valid option, for the error message.

    Raises
    ------
    OptionTypeError
        If it is text, or not a sequence.
    OptionError
        If it is empty.

    Examples
    --------
    >>> parse_list("bands", ("red", "nir"), "bands=['red']")
    ['red', 'nir']
    """
    if isinstance(value, str):
        raise OptionTypeError(f"{name} is the text {value!r}", "a list", option(f"{name}=[{value!r}]"))
    try:
        elements = list(value)
    except TypeError as error:
        raise OptionTypeError(f"{name} is {value!r}", "a list", example) from error
    if not elements:
        raise OptionError(f"{name} is empty", "at least one element", example)
    return elements


def parse_count(name: str, value: Any, least: int, example: str) -> int:
    """Return an integer, checked against its least value.

    Raises
    ------
    OptionTypeError
        If it is not an integer.
    OptionError
        If it is below `least`.

    Examples
    --------
    >>> parse_count("size", 256, 1, "size=256")
    256
    """
    if isinstance(value, bool) or not isinstance(value, int | np.integer):
        raise OptionTypeError(f"{name} is {value!r}", "a whole number", example)
    if value < least:
        raise OptionError(f"{name} is {value}", f"at least {least}", example)
    return int(value)


def parse_number(
    name: str,
    value: Any,
    needed: str,
    example: str,
    *,
    above: float = -np.inf,
    least: float = -np.inf,
    most: float = np.inf,
) -> float:
    """Return a finite number, checked against its limits.

    Parameters
    ----------
    name : str
        The option.
    value : Any
        Its value.
    needed : str
        What it has to be, for the error.
    example : str
        A valid option, for the error.
    above, least, most : float
        Limits: the number is greater than the first, and neither less than the second nor greater than the third.

    Raises
    ------
    OptionTypeError
        If it is no number.
    OptionError
        If it is beyond the limits, or not finite.

    Examples
    --------
    >>> parse_number("timeout", 60, "a positive number of seconds", "timeout=60", above=0)
    60.0
    """
    if isinstance(value, bool | np.bool_) or not isinstance(value, Real):
        raise OptionTypeError(f"{name} is {value!r}", needed, example)
    number = float(value)
    if not (np.isfinite(number) and above < number and least <= number <= most):
        raise OptionError(f"{name} is {value!r}", needed, example)
    return number


def parse_flag(name: str, value: Any) -> bool:
    """Return the value of an option that is True or False.

    Raises
    ------
    OptionTypeError
        If it is neither True nor False.

    Examples
    --------
    >>> parse_flag("check", True)
    True
    """
    if not isinstance(value, bool):
        raise OptionTypeError(f"{name} is {value!r}", "True or False", option(f"{name}=True"))
    return value


def parse_repair(value: Any) -> Repair:
    """Return the option `repair`, checked.

    Raises
    ------
    OptionTypeError
        If it is neither text nor True or False.
    OptionError
        If it is another text than ``"auto"``.
    """
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and value == "auto":
        return "auto"
    error = OptionError if isinstance(value, str) else OptionTypeError
    raise error(f"repair is {value!r}", 'True, False or "auto"', option("repair=True"))


def parse_mask_layers(layers: Any, offered: bool) -> tuple[str, ...]:
    """Return the layers requested of `xr_cloudfree.clear_mask`, in the order of the output.

    Parameters
    ----------
    layers : {"all"}, str, sequence of str or None
        ``"all"`` means all that there are; None means none.
    offered : bool
        Whether masks are corrected by the series, or made from it, which the layers describe.

    Raises
    ------
    OptionTypeError
        If a layer is not text.
    OptionError
        If there is no such layer, or it is not offered.
    """
    if layers is None:
        return ()
    names = (MASK_CHANGE.name, SCORE.name)
    if isinstance(layers, str) and layers == "all":
        return names if offered else ()
    requested = [layers] if isinstance(layers, str) else layers if isinstance(layers, list | tuple) else [layers]
    for layer in requested:
        if not isinstance(layer, str) or layer not in names:
            error = OptionError if isinstance(layer, str) else OptionTypeError
            raise error(f"layers holds {layer!r}", f"some of {names}, or 'all'", option("layers='all'"))
    if requested and not offered:
        raise OptionError(
            f"layers={list(requested)} with repair=False",
            "repair, which they describe",
            either(option("repair=True"), option("layers=None")),
        )
    return tuple(name for name in names if name in requested)
