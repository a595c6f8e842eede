"""Build schemes from tables of flags in a layer's attributes, as in CF, Open Data Cube, STAC and Earth Engine.

Each table is converted to rows of a value, a bit mask, a field and the producer's word, which is looked up in one list
of meanings.
"""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, cast

import numpy as np

from xr_cloudfree.cube.schemes import SCHEMES, Flag, Scheme, State
from xr_cloudfree.errors import MaskError, either, option

_CLEAR_WORDS = frozenset("clear clear_sky clear_land free_sky cloud_free no_cloud not_cloud valid good".split())
_WORDS: dict[State, str] = {
    "clear": """
        clear clear_sky free_sky cloud_free no_cloud not_cloud valid good land clear_land vegetation vegetated
        not_vegetated non_vegetated not_vegetation bare_soil soil water clear_water dry wet clear_dry clear_wet
        background
    """,
    "doubtful": """
        dark dark_area dark_area_pixel dark_area_pixel_or_cast_shadow dark_feature dark_feature_shadow unclassified
        topographic_shadow terrain_shadow cast_shadow casted_shadow topographic_casted_shadow topo_casted_shadow
        cloud_low_probability low_probability_cloud cloud_low_probability_or_unclassified
        cloud_low_probability_unclassified
    """,
    "cloud": """
        cloud cloudy thick_cloud thin_cloud opaque_cloud semi_transparent_cloud haze cloud_medium_probability
        medium_probability_cloud cloud_high_probability high_probability_cloud cirrus thin_cirrus cirrus_cloud
        dilated dilated_cloud cloud_edge adjacent adjacent_cloud adjacent_to_cloud adjacent_to_cloud_shadow
        adjacent_to_cloud_or_shadow cloud_or_shadow cloud_or_cloud_shadow
    """,
    "shadow": "shadow cloud_shadow",
    "snow": "snow ice snow_ice snow_or_ice snow_and_ice",
    "missing": """
        nodata no_data nodata_or_other fill fill_value missing invalid not_observed no_observation outside
        saturated defective saturated_or_defective saturated_defective saturated_or_defective_pixel
        sat_or_defect_pixel noncontiguous masked
    """,
}
_STATE_OF: dict[str, State] = {word: state for state, words in _WORDS.items() for word in words.split()}
_YES = frozenset("true yes set high high_confidence present detected".split())
_NO = frozenset("false no none not_set low low_confidence medium medium_confidence reserved land_or_cloud".split())
_OF_CLOUD = re.compile(r"cloud|shadow|cirrus|haze|snow|clear")


class _Row(NamedTuple):
    """One row of a table: pixels whose masked value equals `value` have the meaning `word` in a field."""

    value: int
    word: str
    mask: int | None = None
    field: str = ""


def scheme_of_flags(attrs: Mapping[Any, Any], name: str, typed: str, by_name: Scheme | None = None) -> Scheme | None:
    """Return the scheme given by a table of flags in the attributes of a layer, None if there is no table.

    Tables are searched in this order: ``flag_values``, ``flag_masks`` and ``flag_meanings`` of CF;
    ``flags_definition`` of the Open Data Cube; ``classification:bitfields`` and ``classification:classes`` of STAC;
    ``class_values`` and ``class_names`` of Earth Engine, with or without a band's name as prefix.

    Parameters
    ----------
    attrs : mapping
        Attributes of the layer.
    name : str
        Name of the layer, for messages.
    typed : str
        Expression for the layer, for messages.
    by_name : Scheme, optional
        The scheme suggested by the layer's name, for messages.

    Raises
    ------
    MaskError
        If a meaning is unknown, the attributes differ in length or the table cannot be read.

    Examples
    --------
    >>> table = {"fmask": {"bits": [0, 1, 2], "values": {"0": "nodata", "1": "valid", "2": "cloud"}}}
    >>> scheme_of_flags({"flags_definition": table}, "fmask", "ds.fmask").flags[2]
    Flag(value=2, meaning='cloud', state='cloud', mask=7)
    >>> scheme_of_flags({"flag_values": [0, 1], "flag_meanings": "clear cloud"}, "qa", "ds.qa").flags[1]
    Flag(value=1, meaning='cloud', state='cloud', mask=None)
    """
    named = by_name is not None and not by_name.has_threshold
    instead = option(f"scheme={by_name.name!r}" if by_name is not None and named else "scheme='scl'")
    classes = (known.name for known in SCHEMES.values() if not known.has_threshold)
    others = ", ".join(known for known in classes if f"'{known}'" not in instead)
    instead += f" if {name} follows it (or one of {others})"
    if "flag_meanings" in attrs:
        label, rows = "CF flags", _cf(attrs, name, instead)
    else:
        label, key = "flags", next((key for key in attrs if str(key).endswith(tuple(_READERS))), None)
        try:
            rows = [] if key is None else [_checked(row) for row in _rows(str(key), attrs)]
        except (TypeError, ValueError, LookupError, AttributeError, SyntaxError, ArithmeticError, MemoryError) as error:
            raise MaskError(
                f"the attribute {key} of {name} cannot be read: {str(attrs[key])[:80]}",
                "a table of values and meanings",
                instead,
            ) from error
    return Scheme(label, f"the flags of {name}", tuple(_flags(rows, name, typed, instead))) if rows else None


def _flags(rows: Sequence[_Row], name: str, typed: str, instead: str) -> list[Flag]:
    """Return the flags of a table, with their states."""
    unknown: list[_Row] = []
    flags: list[Flag] = []
    unclear: list[Flag] = []
    for row in rows:
        try:
            state = _state(row)
        except LookupError:
            unknown.append(row)
            continue
        if state is None:
            continue
        meaning = f"{row.field} {row.word}".strip() if _plain(row.word) in _YES | _NO else row.word
        flag = Flag(row.value, meaning, state, row.mask)
        if state == "clear" and _plain(row.field) in _CLEAR_WORDS and _plain(row.word) not in _STATE_OF:
            unclear.append(flag._replace(state="clear" if _plain(row.word) in _YES else "cloud"))
        else:
            flags.append(flag)
    if unknown:
        clear = [flag.value for flag in flags if flag.state in ("clear", "snow", "doubtful")]
        condition = f"{typed}.isin({clear}) if these mean" if clear else f"{typed} == {unknown[0].value} if it means"
        raise MaskError(
            f"{name} has unknown flag_meanings: {', '.join(row.word for row in unknown)}",
            "meanings such as clear, cloud, cloud_shadow, snow, no_data",
            either(instead, option("mask=None", f"clear={condition}") + " clear and no others do"),
        )
    # A clear bit is used only without cloud bits: producers also set it for snow and cirrus.
    if not any(flag.state == "cloud" for flag in flags):
        flags += unclear
    if not any(flag.state in ("cloud", "clear") for flag in flags):
        raise MaskError(f"{name} has no flags for cloud or clear", "flags for cloud, or for clear pixels", instead)
    masks = [flag.mask for flag in flags if flag.mask is not None]
    if masks and not any(flag.value == 0 for flag in flags):
        # With a clear bit, a pixel without any bit was not classified.
        rest: State = "missing" if _CLEAR_WORDS & {_plain(flag.meaning) for flag in flags} else "clear"
        flags.append(Flag(0, "no flag set", rest, int(np.bitwise_or.reduce(np.array(masks)))))
    return flags


def _state(row: _Row) -> State | None:
    """Return the state of a row, None if it does not concern clouds.

    Raises
    ------
    LookupError
        If it may concern clouds, but its meaning is unknown.
    """
    word = _plain(row.word)
    if word in _STATE_OF:
        return _STATE_OF[word]
    # A field and its value in one word, such as cloud_confidence_high, may be separated at any underscore.
    parts = word.split("_")
    splits = [("_".join(parts[:i]), "_".join(parts[i:])) for i in range(1, len(parts))] if row.mask is not None else []
    for field, value in [(_plain(row.field), word)] if row.field else splits:
        of_field = _STATE_OF.get(re.sub(r"_(confidence|conf|flag|mask|bit)$", "", field))
        if of_field is not None and value in _YES:
            return of_field
        if of_field is not None and (value in _NO or value.startswith(("not_", "no_"))):
            return "clear"
        if of_field is not None and not row.field and value in _STATE_OF:
            return _STATE_OF[value]
    about_cloud = _OF_CLOUD.search(f"{_plain(row.field)} {word}")
    if row.mask is not None and (word.startswith(("not_", "no_")) or not about_cloud):
        return None
    raise LookupError(row.word)


def _plain(meaning: str) -> str:
    """Return a meaning in lower case, with single underscores and in the singular."""
    plain = re.sub(r"[^a-z0-9]+", "_", meaning.lower()).strip("_")
    plain = re.sub(r"(cloud|shadow|pixel|area|feature|soil)s(?=_|$)", r"\1", plain)
    return re.sub(r"_proba?(?=_|$)", "_probability", plain.removeprefix("sc_"))


def _integers(attribute: Any) -> list[int]:
    """Return the integers of a CF attribute, as text or array; empty if it holds anything else."""
    if isinstance(attribute, str):
        return [int(word) for word in re.findall(r"-?\d+", attribute)]
    try:
        values = np.atleast_1d(attribute).ravel().tolist()
        integers = [int(value) for value in values]
        np.array(integers, np.int64)
    except (TypeError, ValueError, OverflowError):
        return []
    exact = all(isinstance(value, str) or value == integer for value, integer in zip(values, integers, strict=True))
    return integers if exact else []


def _cf(attrs: Mapping[Any, Any], name: str, instead: str) -> list[_Row]:
    """Return the rows of CF's three attributes."""
    meanings = attrs["flag_meanings"]
    words = meanings.split() if isinstance(meanings, str) else [str(word) for word in np.atleast_1d(meanings)]
    masks = _integers(attrs["flag_masks"]) if "flag_masks" in attrs else None
    values = _integers(attrs["flag_values"]) if "flag_values" in attrs else masks
    if values is None or len(values) != len(words) or (masks is not None and len(masks) != len(words)):
        raise MaskError(
            f"{name} has {len(words)} flag_meanings, {len(values or ())} flag_values and {len(masks or ())} flag_masks",
            "one value, or one mask, for each meaning",
            instead,
        )
    return [_Row(value, words[i], masks[i] if masks else None) for i, value in enumerate(values)]


def _parse(table: Any) -> Any:
    """Return a table, parsed if it is text: JSON or a Python literal."""
    if isinstance(table, np.ndarray):
        table = table.tolist()
    if not isinstance(table, str):
        return table
    try:
        return json.loads(table)
    except ValueError:
        return ast.literal_eval(table)


def _open_data_cube(table: Mapping[str, Any]) -> Iterator[_Row]:
    """Yield the rows of ``{"cloud": {"bits": 3, "values": {"0": "not_high_confidence", "1": "high_confidence"}}}``."""
    for field, entry in table.items():
        values = {int(value): str(word) for value, word in entry["values"].items()}
        bits = [int(bit) for bit in np.atleast_1d(entry["bits"])] if "bits" in entry else []
        shift = min(bits, default=0)
        # Some tables of classes have no bits, or the first only.
        mask = sum(1 << bit for bit in bits) if bits and max(values) << shift < 1 << (max(bits) + 1) else None
        # A field of all bits with single-bit values repeats the other fields.
        if len(table) > 1 and len(bits) > 1 and all(value.bit_count() == 1 for value in values):
            continue
        for value, word in values.items():
            yield _Row(value << shift, word, mask, str(field))


def _stac_fields(table: Sequence[Mapping[str, Any]]) -> Iterator[_Row]:
    """Yield the rows of ``[{"name": "cloud", "offset": 3, "length": 1, "classes": [{"value": 1, "name": "yes"}]}]``."""
    for field in table:
        shift, mask = int(field["offset"]), (1 << int(field["length"])) - 1
        for row in _stac_classes(field["classes"]):
            yield _Row(row.value << shift, row.word, mask << shift, str(field.get("name") or ""))


def _stac_classes(table: Sequence[Mapping[str, Any]]) -> Iterator[_Row]:
    """Yield the rows of ``[{"value": 9, "name": "cloud", "description": "Cloud, high probability"}]``."""
    for entry in table:
        words = [str(entry[key]) for key in ("name", "title", "description") if entry.get(key)]
        yield _Row(int(entry["value"]), next((word for word in words if _plain(word) in _STATE_OF), words[0]))


def _class_names(table: Mapping[Any, Any] | Sequence[Any], values: Sequence[int] = ()) -> Iterator[_Row]:
    """Yield the rows of ``{"0": "clear", "1": "cloud"}``, or of names and values; none for names without values."""
    if isinstance(table, Mapping):
        table, values = list(table.values()), [int(value) for value in table]
    if values:
        yield from (_Row(value, str(word)) for value, word in zip(values, table, strict=True))


_READERS = {
    "flags_definition": _open_data_cube,
    "classification:bitfields": _stac_fields,
    "classification:classes": _stac_classes,
    "class_names": _class_names,
}


def _checked(row: _Row) -> _Row:
    """Return the row if its numbers fit into 64 bits."""
    np.array([row.value, row.mask or 0], np.int64)
    return row


def _rows(key: str, attrs: Mapping[Any, Any]) -> Iterator[_Row]:
    """Return the rows of the table in an attribute; Earth Engine has its values in another attribute."""
    table = _parse(attrs[key])
    if key.endswith("class_names"):
        return _class_names(table, _integers(attrs.get(f"{key.removesuffix('names')}values", ())))
    reader: Any = _READERS[key]
    return cast(Iterator[_Row], reader(table))
