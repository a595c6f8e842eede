"""Model specifications, in memory and as JSON."""

from __future__ import annotations

import difflib
import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from typing import Any, Literal, NoReturn

from xr_cloudfree.errors import BandError, ModelError, OptionError, code, either, option
from xr_cloudfree.layers import MODEL_LAYERS

Units = Literal["storage", "reflectance"]

SCHEMA = 1
"""Version of the JSON form; raised when a reader of the old form would misunderstand the new one."""


@dataclass(frozen=True)
class ModelSpec:
    """Description of a model for the engine; small, immutable and cheap to send to a worker.

    Parameters
    ----------
    name : str
        Name of the model.
    summary : str
        One-line description.
    units : {"storage", "reflectance"}
        Units of the observations that the model expects. Models that commute with a linear change of units work on
        stored values, without a float copy.
    tile : int or None
        Edge of a tile in pixels, or None for a pixelwise model.
    stride : int or None
        Distance between tiles; ``(tile - stride) / 2`` pixels on each side are the halo.
    taper : bool
        False: each pixel comes from the tile whose core contains it. True: adjacent tiles, which then overlap by at
        most half (``stride < tile <= 2 * stride``), are blended with linear weights where they overlap.
    block : int
        Maximum edge of a block of a chunked cube, for models with tiles. Slow models benefit from large blocks, which
        share fewer tiles; small blocks take less memory.
    window_days : float or None
        Dates farther from the target date are left out by default; None uses all.
    batch : int
        Preferred number of tiles per call of `predict`.
    layers : tuple of str
        Optional layers that the model provides: ``"source_time"``, ``"uncertainty"``, ``"gate"``.
    settings : tuple of (str, value)
        Settings that differ from the model's defaults.
    architecture : str or None
        Name of the network, for a learned model.
    config : tuple of (str, value)
        Arguments of the network's constructor: numbers, text, booleans, None, and tuples of them.
    bands : tuple of str or None
        STAC common names of the bands that the weights were trained for, in the network's order; None takes any.
    min_bands : int
        Minimum number of bands of a cube.
    max_bands : int or None
        Maximum number of bands of a cube.
    max_dates : int or None
        Maximum number of dates that a learned model uses: the nearest. None leaves it to the network.
    weights_sha256 : str or None
        SHA-256 of the file of weights, in hexadecimal digits.
    license : str or None
        Licence of the weights, as an SPDX identifier.
    note : str or None
        Remark on the weights for users of the model's images; written to every output.
    schema : int
        Version of the JSON form.

    Raises
    ------
    ValueError
        If the values contradict each other.

    Examples
    --------
    >>> spec = ModelSpec("mine", "my own", tile=256, stride=224, architecture="unet-paper", config=(("bands", 4),))
    >>> ModelSpec.from_json(spec.to_json()) == spec
    True
    """

    name: str
    summary: str
    units: Units = "storage"
    tile: int | None = None
    stride: int | None = None
    taper: bool = False
    block: int = 256
    window_days: float | None = None
    batch: int = 1
    layers: tuple[str, ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()
    architecture: str | None = None
    config: tuple[tuple[str, Any], ...] = ()
    bands: tuple[str, ...] | None = None
    min_bands: int = 1
    max_bands: int | None = None
    max_dates: int | None = None
    weights_sha256: str | None = None
    license: str | None = None
    note: str | None = None
    schema: int = SCHEMA

    def __post_init__(self) -> None:
        if (self.tile is None) != (self.stride is None):
            raise ValueError("tile and stride go together")
        if self.tile is not None and self.stride is not None:
            if not 0 < self.stride <= self.tile or (self.tile - self.stride) % 2:
                raise ValueError("needed: 0 < stride <= tile, with an even difference")
            if self.taper and not self.stride < self.tile <= 2 * self.stride:
                raise ValueError("a taper needs tiles that overlap by at most half: stride < tile <= 2 * stride")
        if self.max_bands is not None and self.max_bands < self.min_bands:
            raise ValueError("max_bands is less than min_bands")
        if self.bands is not None and len(set(self.bands)) < len(self.bands):
            raise ValueError("a band is named twice")

    def to_json(self) -> str:
        """Return the spec as JSON, with every field."""
        values = {field.name: getattr(self, field.name) for field in fields(self)}
        values |= {name: dict(values[name]) for name in ("settings", "config")}
        return json.dumps(values, indent=2, ensure_ascii=False, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str) -> ModelSpec:
        """Read a spec from JSON; anything unknown is refused.

        Parameters
        ----------
        text : str
            As `to_json` writes it. Fields that have a default may be left out, `schema` may not.

        Raises
        ------
        ModelError
            If the text is not JSON, its schema is newer, or a field is unknown, missing or of the wrong type.
        """
        values = _parse(text)
        schema: Any = values.get("schema")
        if not _is_whole(1, 10**6)(schema):
            _refuse(f"schema is {schema!r}", f"the version of the form, {SCHEMA}", f'"schema": {SCHEMA}')
        if schema > SCHEMA:
            _refuse(
                f"schema is {schema}, and this version of the package reads up to {SCHEMA}",
                "a newer version of the package",
                "pip install --upgrade xr-cloudfree",
            )
        for name, value in values.items():
            if name not in _FIELDS:
                near = difflib.get_close_matches(name, _FIELDS, n=1)
                _refuse(
                    f"there is an unknown field {name!r}",
                    f"some of {', '.join(_FIELDS)}",
                    f'"{near[0]}": …' if near else f"remove {name!r}, or pip install --upgrade xr-cloudfree",
                )
            right, needed, example = _FIELDS[name]
            if not right(value):
                _refuse(f"{name} is {_short(value)}", needed, f'"{name}": {example}')
        for name in ("name", "summary"):
            if name not in values:
                _refuse(f"there is no field {name!r}", _FIELDS[name][1], f'"{name}": {_FIELDS[name][2]}')
        try:
            return cls(**{name: _frozen(value) for name, value in values.items() if name != "min_clear"})
        except ValueError as error:
            raise ModelError(str(error), "values that go together", "ModelSpec(...).to_json()") from error

    def check_bands(self, bands: Sequence[str], common_names: Sequence[str | None]) -> None:
        """Raise if the model cannot use a cube with these bands.

        Parameters
        ----------
        bands : sequence of str
            The cube's names of its bands.
        common_names : sequence of (str or None)
            Their STAC common names.

        Raises
        ------
        BandError
            If a band is missing or unknown, or there are too few or too many.
        """
        called = tuple(name or band for band, name in zip(bands, common_names, strict=True))
        other = option("model='linear'") + ", which takes any bands; xr_cloudfree.list_models() names the bands of each"
        if self.bands is not None:
            needed = f"bands {self.bands}, each once and in any order"
            for band in self.bands:
                if band not in common_names:
                    unknown = next(
                        (band for band, name in zip(bands, common_names, strict=True) if name is None), bands[0]
                    )
                    raise BandError(
                        f"model {self.name!r} needs band {band!r}, cube has {called}",
                        needed,
                        either(code(f"cube.rename({unknown}={band!r}) if that is what it is"), other),
                    )
            if len(called) > len(self.bands):
                known = [bands[list(common_names).index(band)] for band in self.bands]
                beyond = next(called[i] for i, band in enumerate(bands) if band not in known)
                raise BandError(
                    f"model {self.name!r} takes no band {beyond!r} besides {self.bands}, cube has {called}",
                    needed,
                    either(option(f"bands={known!r}"), other),
                )
        elif not self.min_bands <= len(called) <= (self.max_bands or len(called)):
            most = self.max_bands
            few = len(called) < self.min_bands
            raise BandError(
                f"model {self.name!r} takes {self.bands_text} bands, cube has {len(called)}: {called}",
                f"at least {self.min_bands} bands" if few else f"at most {most} bands",
                other if few else either(option(f"bands={list(bands[:most])!r}"), other),
            )

    def check_s1(self) -> None:
        """Raise if the model does not use Sentinel-1.

        Raises
        ------
        OptionError
            If it does not.
        """
        if not self.takes_s1:
            raise OptionError(
                f"the model {self.name!r} does not use Sentinel-1, but s1 was given",
                "a model of the TerraMind pathway that was trained with it (s1: true in its config)",
                either(
                    "cloudfree train terramind fit --config terramind-tiny-scratch --model.config.s1 true "
                    "--data.s1 NAME --data CUBES, and then "
                    + option("model='local-dir:runs/terramind-tiny-scratch/bundle'"),
                    "leave s1 out",
                    by="; or ",
                ),
            )

    @property
    def takes_s1(self) -> bool:
        """Whether the model uses Sentinel-1: its network was built with ``s1=True``."""
        return dict(self.config).get("s1") is True

    @property
    def bands_text(self) -> str:
        """Bands that the model takes, as text: their names, their number, or any."""
        if self.bands is not None:
            return ", ".join(self.bands)
        if self.max_bands is None:
            return "any" if self.min_bands == 1 else f"at least {self.min_bands}"
        return str(self.min_bands) if self.min_bands == self.max_bands else f"{self.min_bands} to {self.max_bands}"


def _refuse(found: str, needed: str, remedy: str) -> NoReturn:
    raise ModelError(found, needed, remedy)


def _parse(text: str) -> dict[str, Any]:
    def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        values = dict(pairs)
        if len(values) < len(pairs):
            raise ValueError("a field occurs twice")
        return values

    def number(name: str) -> NoReturn:
        raise ValueError(f"{name} is not a JSON number")

    try:
        values = json.loads(text, object_pairs_hook=once, parse_constant=number)
    except (ValueError, RecursionError) as error:
        raise ModelError(f"it is not valid JSON: {error}", "a JSON object", "ModelSpec(...).to_json()") from error
    if not isinstance(values, dict):
        _refuse(f"it holds {_short(values)}", "a JSON object", "ModelSpec(...).to_json()")
    return values


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _frozen(value: Any) -> Any:
    """Return a JSON value as the spec stores it: tuples for lists, pairs for objects."""
    if isinstance(value, list):
        return tuple(_frozen(element) for element in value)
    if isinstance(value, dict):
        return tuple((name, _frozen(element)) for name, element in value.items())
    return value


def _is_whole(least: int, most: int) -> Callable[[Any], bool]:
    return lambda value: type(value) is int and least <= value <= most


def _is_text(value: Any) -> bool:
    return isinstance(value, str) and value.strip() != ""


def _is_plain(value: Any) -> bool:
    """Whether a value is a number, text, a boolean, None, or a list of them."""
    if isinstance(value, list):
        return all(_is_plain(element) for element in value)
    return value is None or isinstance(value, str | bool | int | float)


def _is_object(value: Any) -> bool:
    return isinstance(value, dict) and all(_is_plain(element) for element in value.values())


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and len(value) > 0 and all(_is_text(name) for name in value)


def _or_none(right: Callable[[Any], bool]) -> Callable[[Any], bool]:
    return lambda value: value is None or right(value)


def _is_positive(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and 0 < value < 10**6


# Per field: a check, what is needed, an example. Numbers have an upper limit, because a spec may come from anywhere and
# tiles are allocated in the size that it states.
_FIELDS: dict[str, tuple[Callable[[Any], bool], str, str]] = {
    "name": (
        lambda value: isinstance(value, str) and re.fullmatch(r"[a-z0-9][a-z0-9._-]{0,63}", value) is not None,
        "a name of small letters, digits, '.', '_' and '-'",
        '"my-model"',
    ),
    "summary": (_is_text, "one line of text", '"what it does"'),
    "units": (lambda value: value in ("storage", "reflectance"), "'storage' or 'reflectance'", '"reflectance"'),
    "tile": (_or_none(_is_whole(1, 4096)), "pixels from 1 to 4096, or null", "256"),
    "stride": (_or_none(_is_whole(1, 4096)), "pixels from 1 to 4096, or null", "224"),
    "taper": (lambda value: isinstance(value, bool), "true or false", "false"),
    "block": (_is_whole(1, 10**6), "a number of pixels", "256"),
    "window_days": (_or_none(_is_positive), "a positive number of days, or null", "90"),
    # A field of earlier versions; only its default has a meaning now.
    "min_clear": (lambda value: type(value) is int and value == 1, "1, the only value that is supported", "1"),
    "batch": (_is_whole(1, 1024), "a whole number from 1 to 1024", "4"),
    "layers": (
        lambda value: isinstance(value, list) and all(layer in MODEL_LAYERS for layer in value),
        f"a list of some of {MODEL_LAYERS}",
        '["uncertainty"]',
    ),
    "settings": (_is_object, "an object of plain values", "{}"),
    "architecture": (_or_none(_is_text), "the name of a network, or null", '"unet-plus"'),
    "config": (_is_object, "an object of plain values, the arguments of the network", '{"bands": 4}'),
    "bands": (_or_none(_is_names), "a list of common names, or null", '["blue", "green", "red", "nir"]'),
    "min_bands": (_is_whole(1, 1000), "a whole number from 1 to 1000", "1"),
    "max_bands": (_or_none(_is_whole(1, 1000)), "a whole number from 1 to 1000, or null", "12"),
    "max_dates": (_or_none(_is_whole(1, 10_000)), "a whole number from 1 to 10000, or null", "60"),
    "weights_sha256": (
        _or_none(lambda value: isinstance(value, str) and re.fullmatch(r"[0-9a-f]{64}", value) is not None),
        "64 hexadecimal digits in small letters, or null",
        '"e3b0…"',
    ),
    "license": (_or_none(_is_text), "the name of a licence, or null", '"Apache-2.0"'),
    "note": (_or_none(_is_text), "a line of text, or null", '"trained on forests only"'),
    "schema": (_is_whole(1, SCHEMA), f"a whole number up to {SCHEMA}", str(SCHEMA)),
}
