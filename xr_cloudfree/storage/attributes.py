"""Attributes and coordinates as files can hold them: what JSON has no form for is converted, or left out."""

from __future__ import annotations

import datetime as dt
import json
import os
import uuid
import warnings
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from xr_cloudfree.errors import CloudfreeWarning, OutputError

# What xarray puts into the attributes of a file by itself, from what it knows of the values.
_OF_TIMES = ("units", "calendar", "dtype", "_FillValue", "missing_value", "scale_factor", "add_offset")
# How values are stored: as an attribute of what is in memory, still to be applied.
SCALING = ("scale_factor", "add_offset", "_FillValue", "missing_value")


class _CannotBeHeld(Exception):
    """JSON has no form for a value."""


class _Told:
    """What was converted and what was left out, for one warning."""

    def __init__(self) -> None:
        self.found: dict[tuple[str, str], list[str]] = {}

    def add(self, what: str, how: str, of: str = "") -> None:
        """Note a thing, how it is written, and the variable that has it."""
        self.found.setdefault((what, how), []).append(of)

    def warn(self) -> None:
        """Warn once, if there is anything to tell."""
        if self.found:
            lines = []
            for (what, how), of in self.found.items():
                names = ", ".join(name for name in of if name)
                lines.append(f"{what}{f' of {names}' if names else ''} {how}")
            text = f"files cannot hold all that the cube says: {'; '.join(lines)}"
            warnings.warn(text, CloudfreeWarning, stacklevel=3)


def storable(image: xr.Dataset, *, coords: bool = True) -> xr.Dataset:
    """An image with attributes and coordinates that can be written, and read again as they are.

    Numbers, text and lists stay. A CRS becomes WKT, a date ISO 8601, a set a sorted list, a coordinate of objects text
    or numbers, or else JSON. What has no such form is left out.

    Parameters
    ----------
    image : Dataset
        The image; it is not changed.
    coords : bool
        Whether coordinates and the Dataset's attributes are written too. A GeoTIFF has neither.

    Returns
    -------
    Dataset
        The same values.

    Warns
    -----
    CloudfreeWarning
        Once, naming what was converted or left out.

    Raises
    ------
    OutputError
        If the name of a variable cannot be that of a folder.

    Examples
    --------
    >>> image = xr.Dataset(attrs={"tiles": (1, 2), "sensor": None})
    >>> storable(image).attrs
    {'tiles': [1, 2], 'sensor': None}
    """
    told = _Told()
    image = image.copy()
    if coords:
        image = _coordinates(_names(image, told), told)
        image.attrs = _attrs(image.attrs, told, "the Dataset")
        image.attrs.pop("coordinates", None)  # xarray makes it anew
    for name in image.variables if coords else image.data_vars:
        variable = image[name]
        attrs = _unambiguous(variable, _attrs(variable.attrs, told, str(name)), told, name in image.data_vars)
        encoding = {key: value for key, value in variable.encoding.items() if key != "grid_mapping" or key not in attrs}
        if any(key in attrs for key in SCALING):  # they tell of the values in memory, which are written as they are
            encoding = {key: value for key, value in encoding.items() if key not in (*SCALING, "dtype")}
        variable.attrs, variable.encoding = attrs, encoding
    told.warn()
    return image


def pending(array: xr.DataArray) -> dict[str, Any]:
    """Attributes that tell how values are stored and are still to be applied to those in memory.

    Of decoded values, those that are in the encoding as well have been applied; the attribute was left over.

    Examples
    --------
    >>> array = xr.DataArray([0.2], attrs={"scale_factor": 1e-4, "add_offset": -0.1})
    >>> array.encoding["scale_factor"] = 1e-4
    >>> pending(array)
    {'add_offset': -0.1}
    """
    applied = dict(array.encoding) if array.dtype.kind in "fMm" else {}
    for one, other in (("_FillValue", "missing_value"), ("missing_value", "_FillValue")):
        applied.setdefault(one, applied.get(other))
    attrs = array.attrs
    return {key: attrs[key] for key in SCALING if key in attrs and not same_number(attrs[key], applied.get(key))}


def same_number(one: Any, other: Any) -> bool:
    """Whether two attributes are the same number, be it in another precision."""
    try:
        return other is not None and bool(np.allclose(float(one), float(other), rtol=1e-6, atol=0, equal_nan=True))
    except (TypeError, ValueError):
        return False


def _unambiguous(variable: xr.DataArray, attrs: dict[str, Any], told: _Told, values: bool) -> dict[str, Any]:
    """Attributes without those by which xarray would read something else than was written."""
    kind = variable.dtype.kind
    if kind in "Mm":
        return {key: value for key, value in attrs.items() if key not in _OF_TIMES}
    left = {key for key in SCALING if key in attrs} - set(pending(variable))
    dtype, units = str(attrs.get("dtype", "")), str(attrs.get("units", ""))
    misread = {
        "dtype": dtype == "bool" or dtype.startswith("timedelta64"),
        "units": values and kind in "iuf" and " since " in units,
        "_Encoding": True,
        "_Unsigned": kind == "f",
    }
    for key, wrong in misread.items():
        if key in attrs and wrong:
            left.add(key)
            if not (key == "dtype" and kind == "b"):
                told.add(
                    f"attribute {key!r}", "was left out: by it, values would be read otherwise", str(variable.name)
                )
    return {key: value for key, value in attrs.items() if key not in left}


def _attrs(attrs: Mapping[Any, Any], told: _Told, of: str) -> dict[str, Any]:
    made: dict[str, Any] = {}
    for key, value in attrs.items():
        name = key if isinstance(key, str) else None
        try:
            name = name or _key(key)
            if name in made or (name is not key and name in attrs):
                raise _CannotBeHeld
            made[name], same = _plain(value)
        except (_CannotBeHeld, RecursionError):
            told.add(f"attribute {name or type(key).__name__!r}", f"was left out (a {type(value).__name__})", of)
            continue
        if not same or name is not key:
            told.add(f"attribute {name!r}", f"is written as {_form(made[name])} (a {type(value).__name__})", of)
    return made


def _plain(value: Any) -> tuple[Any, bool]:
    """A value as JSON has it, and whether it is the same but for numpy's types and tuples."""
    if isinstance(value, Enum):
        return _plain(value.value)[0], False
    if value is None or isinstance(value, bool):
        return value, True
    if isinstance(value, np.ndarray | np.generic):
        return _plain_array(np.asarray(value))
    for kind in (int, float, str):
        if isinstance(value, kind):
            return kind(value), True
    if isinstance(value, Mapping):
        made = {_key(key): _plain(one) for key, one in value.items()}
        if len(made) < len(value):
            raise _CannotBeHeld
        texts = all(isinstance(key, str) for key in value)
        return {key: one for key, (one, _) in made.items()}, texts and all(same for _, same in made.values())
    if isinstance(value, list | tuple):
        items = [_plain(one) for one in value]
        return [one for one, _ in items], all(same for _, same in items)
    if isinstance(value, set | frozenset):
        return _sorted(_plain(one)[0] for one in value), False
    if isinstance(value, pd.Index | pd.Series):
        return _plain(value.to_numpy())[0], False
    return _as_text(value), False


def _plain_array(value: np.ndarray[Any, Any]) -> tuple[Any, bool]:
    if value.dtype.kind in "biuU":
        return value.tolist(), True
    if value.dtype.kind == "f":
        return value.astype(np.float64).tolist(), True  # wider ones have no list of plain numbers
    if value.dtype.kind in "Mm":
        items = value.reshape(-1)
        texts = [_as_text((pd.Timestamp if value.dtype.kind == "M" else pd.Timedelta)(one)) for one in items]
        return np.array(texts, object).reshape(value.shape).tolist(), False
    if value.dtype.kind == "O":
        return _plain(value.tolist())
    return _plain(value.tolist())[0], False  # bytes, records; complex numbers cannot be held


def _as_text(value: Any) -> Any:
    """Dates, CRS and what else has one form as text; geometries as GeoJSON."""
    if value is pd.NaT:
        return None
    if isinstance(value, dt.datetime | dt.date | dt.time):
        return value.isoformat()
    if isinstance(value, dt.timedelta):
        return pd.Timedelta(value).isoformat()
    if isinstance(value, Decimal | Fraction | uuid.UUID):
        return str(value)
    if isinstance(value, PurePath):
        return os.fspath(value)
    try:
        if isinstance(value, bytes):
            return value.decode()
        if isinstance(value, type) and issubclass(value, np.generic):
            return np.dtype(value).name
        if isinstance(value, np.dtype):
            return value.name
        if not isinstance(value, type):
            if callable(wkt := getattr(value, "to_wkt", None)) and isinstance(text := wkt(), str):
                return text
            if callable(getattr(value, "to_gdal", None)):  # an affine transform
                return [float(number) for number in tuple(value)[:6]]
            if isinstance(geometry := getattr(value, "__geo_interface__", None), Mapping):
                return _plain(geometry)[0]
    except Exception as error:  # theirs may raise anything
        raise _CannotBeHeld from error
    raise _CannotBeHeld


def _key(key: Any) -> str:
    """A key as text."""
    made = key if isinstance(key, str) else _plain(key)[0]
    if isinstance(made, list | dict):
        raise _CannotBeHeld
    return str(made)


def _sorted(items: Iterable[Any]) -> list[Any]:
    made = list(items)
    try:
        return sorted(made)
    except TypeError:
        return sorted(made, key=_json)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _form(value: Any) -> str:
    return "text" if isinstance(value, str) else "nothing" if value is None else "JSON"


def _names(image: xr.Dataset, told: _Told) -> xr.Dataset:
    """Variables under names that can be those of folders; bands have to have them."""
    renamed: dict[Any, str] = {}
    for name in image.variables:
        if isinstance(name, str) and name.strip(".") and not set(name) & set("/\\\0"):
            continue
        if name in image.data_vars or name in image.dims:
            raise OutputError(
                f"a variable is called {name!r}",
                "a name without slashes, which is that of a folder in the store",
                f"cube.rename({{{name!r}: 'image'}})",
            )
        text = "".join("_" if letter in "/\\\0" else letter for letter in str(name)) if _is_scalar(name) else ""
        if not text.strip(".") or text in image.variables or text in renamed.values():
            image = image.drop_vars([name])
            told.add(f"the coordinate {text or type(name).__name__!r}", "was left out: it has no name that is text")
        else:
            renamed[name] = text
            told.add(f"the coordinate {name!r}", f"is called {text!r}")
    return image.rename(renamed)


def _is_scalar(name: Any) -> bool:
    return isinstance(name, str | int | float)


def _coordinates(image: xr.Dataset, told: _Told) -> xr.Dataset:
    """Coordinates of types that Zarr has."""
    for name, coordinate in image.coords.items():
        if coordinate.dtype.kind not in "OSV" and coordinate.dtype != np.longdouble:
            continue
        values = coordinate.to_numpy()
        try:
            made, how = _typed(values)
        except (_CannotBeHeld, RecursionError):
            image = image.drop_vars([name])
            told.add(f"the coordinate {name!r}", "was left out: it holds objects of no form in JSON")
            continue
        if how:
            told.add(f"the coordinate {name!r}", f"is written as {how}")
        if made is not values:
            attrs, encoding = coordinate.attrs, {k: v for k, v in coordinate.encoding.items() if k == "grid_mapping"}
            image = image.assign_coords({name: xr.Variable(coordinate.dims, made, attrs, encoding)})
    return image


def _typed(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], str]:
    """An array of objects as text, numbers or JSON, and which of them if it is another than before."""
    if values.dtype.kind == "f":
        return values.astype(np.float64), "float64"
    items = list(values.reshape(-1)) if values.dtype.kind == "O" else values.reshape(-1).tolist()
    if all(isinstance(item, str) for item in items):
        return values, ""
    if items and all(type(item).__module__.partition(".")[0] == "cftime" for item in items):
        return values, ""  # dates of other calendars, which xarray writes as numbers
    # xarray has NaN for None.
    plain = [None if isinstance(item, float) and np.isnan(item) else _plain(item)[0] for item in items]
    if plain and all(isinstance(item, bool) for item in plain):
        return np.array(plain, bool).reshape(values.shape), "booleans"
    if all(item is None or (isinstance(item, int | float) and not isinstance(item, bool)) for item in plain):
        if all(isinstance(item, int) and abs(item) < 2**63 for item in plain):
            return np.array(plain, np.int64).reshape(values.shape), "whole numbers"
        numbers = [np.nan if item is None else float(item) for item in plain]
        return np.array(numbers, np.float64).reshape(values.shape), "numbers"
    text = all(isinstance(item, str) for item in plain)
    made = np.empty(len(plain), object)
    made[:] = plain if text else [_json(item) for item in plain]
    return made.reshape(values.shape), "text" if text else "JSON"
