"""Attributes and coordinates as files can store them: values without a JSON form are converted or left out."""

from __future__ import annotations

import datetime as dt
import json
import os
import uuid
from collections.abc import Iterable, Mapping
from decimal import Decimal
from enum import Enum
from fractions import Fraction
from pathlib import PurePath
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr

from xr_cloudfree.errors import OutputError, warn

# Attributes that xarray writes itself for times.
_TIME_KEYS = ("units", "calendar", "dtype", "_FillValue", "missing_value", "scale_factor", "add_offset")
# Attributes of the packing of values. On values in memory they are still to be applied.
SCALING = ("scale_factor", "add_offset", "_FillValue", "missing_value")


class _NoJSON(Exception):
    """A value has no JSON form."""


class _Changes:
    """The changes made to attributes and coordinates, for one warning."""

    def __init__(self) -> None:
        self.variables: dict[tuple[str, str], list[str]] = {}

    def add(self, item: str, change: str, variable: str = "") -> None:
        """Record how an item of a variable is changed."""
        self.variables.setdefault((item, change), []).append(variable)

    def warn(self) -> None:
        """Issue one warning, if there are changes."""
        if self.variables:
            lines = []
            for (item, change), variables in self.variables.items():
                names = ", ".join(name for name in variables if name)
                lines.append(f"{item}{f' of {names}' if names else ''} {change}")
            text = f"files cannot hold all attributes and coordinates of the cube: {'; '.join(lines)}"
            warn(text)


def storable(image: xr.Dataset, *, coords: bool = True) -> xr.Dataset:
    """Return an image whose attributes and coordinates can be written and read back unchanged.

    Numbers, text and lists stay. A CRS becomes WKT, a date ISO 8601, a set a sorted list, a coordinate of objects text
    or numbers, or else JSON. Anything else is left out.

    Parameters
    ----------
    image : Dataset
        The image; it is not changed.
    coords : bool
        Whether coordinates and the Dataset's attributes are written too; a GeoTIFF has neither.

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
        If the name of a variable cannot be the name of a folder.

    Examples
    --------
    >>> image = xr.Dataset(attrs={"tiles": (1, 2), "sensor": None})
    >>> storable(image).attrs
    {'tiles': [1, 2], 'sensor': None}
    """
    changes = _Changes()
    image = image.copy()
    if coords:
        image = _coordinates(_names(image, changes), changes)
        image.attrs = _attrs(image.attrs, changes, "the Dataset")
        image.attrs.pop("coordinates", None)  # xarray writes it again
    for name in image.variables if coords else image.data_vars:
        variable = image[name]
        attrs = _unambiguous(variable, _attrs(variable.attrs, changes, str(name)), changes, name in image.data_vars)
        encoding = {key: value for key, value in variable.encoding.items() if key != "grid_mapping" or key not in attrs}
        if any(key in attrs for key in SCALING):  # they describe the values in memory, which are written as they are
            encoding = {key: value for key, value in encoding.items() if key not in (*SCALING, "dtype")}
        variable.attrs, variable.encoding = attrs, encoding
    changes.warn()
    return image


def pending(array: xr.DataArray) -> dict[str, Any]:
    """Return the packing attributes that are still to be applied to the values in memory.

    Attributes of decoded values that are also in the encoding have been applied already.

    Examples
    --------
    >>> array = xr.DataArray([0.2], attrs={"scale_factor": 1e-4, "add_offset": -0.1})
    >>> array.encoding["scale_factor"] = 1e-4
    >>> pending(array)
    {'add_offset': -0.1}
    """
    applied = dict(array.encoding) if array.dtype.kind in "fMm" else {}
    for key, synonym in (("_FillValue", "missing_value"), ("missing_value", "_FillValue")):
        applied.setdefault(key, applied.get(synonym))
    attrs = array.attrs
    return {key: attrs[key] for key in SCALING if key in attrs and not same_number(attrs[key], applied.get(key))}


def same_number(a: Any, b: Any) -> bool:
    """Return whether two attributes are the same number, possibly in different precision."""
    try:
        return b is not None and bool(np.allclose(float(a), float(b), rtol=1e-6, atol=0, equal_nan=True))
    except (TypeError, ValueError):
        return False


def _unambiguous(variable: xr.DataArray, attrs: dict[str, Any], changes: _Changes, values: bool) -> dict[str, Any]:
    """Return attributes without those that would make xarray read other values than were written."""
    kind = variable.dtype.kind
    if kind in "Mm":
        return {key: value for key, value in attrs.items() if key not in _TIME_KEYS}
    dropped = {key for key in SCALING if key in attrs} - set(pending(variable))
    dtype, units = str(attrs.get("dtype", "")), str(attrs.get("units", ""))
    misread = {
        "dtype": dtype == "bool" or dtype.startswith("timedelta64"),
        "units": values and kind in "iuf" and " since " in units,
        "_Encoding": True,
        "_Unsigned": kind == "f",
    }
    for key, wrong in misread.items():
        if key in attrs and wrong:
            dropped.add(key)
            if not (key == "dtype" and kind == "b"):
                changes.add(
                    f"attribute {key!r}", "was left out: with it, values would be read differently", str(variable.name)
                )
    return {key: value for key, value in attrs.items() if key not in dropped}


def _attrs(attrs: Mapping[Any, Any], changes: _Changes, variable: str) -> dict[str, Any]:
    stored: dict[str, Any] = {}
    for key, value in attrs.items():
        name = key if isinstance(key, str) else None
        try:
            name = name or _key(key)
            if name in stored or (name is not key and name in attrs):
                raise _NoJSON
            stored[name], same = _plain(value)
        except (_NoJSON, RecursionError):
            changes.add(
                f"attribute {name or type(key).__name__!r}", f"was left out (a {type(value).__name__})", variable
            )
            continue
        if not same or name is not key:
            changes.add(
                f"attribute {name!r}", f"is written as {_form(stored[name])} (a {type(value).__name__})", variable
            )
    return stored


def _plain(value: Any) -> tuple[Any, bool]:
    """Return a value as JSON stores it, and whether it is unchanged except for NumPy types and tuples."""
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
        items = {_key(key): _plain(item) for key, item in value.items()}
        if len(items) < len(value):
            raise _NoJSON
        texts = all(isinstance(key, str) for key in value)
        return {key: item for key, (item, _) in items.items()}, texts and all(same for _, same in items.values())
    if isinstance(value, list | tuple):
        plain = [_plain(item) for item in value]
        return [item for item, _ in plain], all(same for _, same in plain)
    if isinstance(value, set | frozenset):
        return _sorted(_plain(item)[0] for item in value), False
    if isinstance(value, pd.Index | pd.Series):
        return _plain(value.to_numpy())[0], False
    return _as_text(value), False


def _plain_array(value: np.ndarray[Any, Any]) -> tuple[Any, bool]:
    if value.dtype.kind in "biuU":
        return value.tolist(), True
    if value.dtype.kind == "f":
        return value.astype(np.float64).tolist(), True  # wider floats have no JSON form
    if value.dtype.kind in "Mm":
        items = value.reshape(-1)
        texts = [_as_text((pd.Timestamp if value.dtype.kind == "M" else pd.Timedelta)(item)) for item in items]
        return np.array(texts, object).reshape(value.shape).tolist(), False
    if value.dtype.kind == "O":
        return _plain(value.tolist())
    return _plain(value.tolist())[0], False  # bytes and records; complex numbers have no JSON form


def _as_text(value: Any) -> Any:
    """Return dates, CRS and other values with one text form as text; geometries as GeoJSON."""
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
    except Exception as error:  # methods of other packages may raise anything
        raise _NoJSON from error
    raise _NoJSON


def _key(key: Any) -> str:
    """Return a key as text."""
    plain = key if isinstance(key, str) else _plain(key)[0]
    if isinstance(plain, list | dict):
        raise _NoJSON
    return str(plain)


def _sorted(items: Iterable[Any]) -> list[Any]:
    values = list(items)
    try:
        return sorted(values)
    except TypeError:
        return sorted(values, key=_json)


def _json(value: Any) -> str:
    return json.dumps(value, sort_keys=True, ensure_ascii=False)


def _form(value: Any) -> str:
    return "text" if isinstance(value, str) else "nothing" if value is None else "JSON"


def _names(image: xr.Dataset, changes: _Changes) -> xr.Dataset:
    """Rename or drop coordinates whose names cannot be names of folders; raise for bands."""
    renamed: dict[Any, str] = {}
    for name in image.variables:
        if isinstance(name, str) and name.strip(".") and not set(name) & set("/\\\0"):
            continue
        if name in image.data_vars or name in image.dims:
            raise OutputError(
                f"a variable is called {name!r}",
                "a name without slashes: it becomes the name of a folder in the store",
                f"cube.rename({{{name!r}: 'image'}})",
            )
        text = "".join("_" if letter in "/\\\0" else letter for letter in str(name)) if _is_scalar(name) else ""
        if not text.strip(".") or text in image.variables or text in renamed.values():
            image = image.drop_vars([name])
            changes.add(f"the coordinate {text or type(name).__name__!r}", "was left out: it has no name that is text")
        else:
            renamed[name] = text
            changes.add(f"the coordinate {name!r}", f"is called {text!r}")
    return image.rename(renamed)


def _is_scalar(name: Any) -> bool:
    return isinstance(name, str | int | float)


def _coordinates(image: xr.Dataset, changes: _Changes) -> xr.Dataset:
    """Convert coordinates to types that Zarr can store."""
    for name, coordinate in image.coords.items():
        if coordinate.dtype.kind not in "OSV" and coordinate.dtype != np.longdouble:
            continue
        values = coordinate.to_numpy()
        try:
            converted, form = _typed(values)
        except (_NoJSON, RecursionError):
            image = image.drop_vars([name])
            changes.add(f"the coordinate {name!r}", "was left out: it holds objects without a JSON form")
            continue
        if form:
            changes.add(f"the coordinate {name!r}", f"is written as {form}")
        if converted is not values:
            attrs, encoding = coordinate.attrs, {k: v for k, v in coordinate.encoding.items() if k == "grid_mapping"}
            image = image.assign_coords({name: xr.Variable(coordinate.dims, converted, attrs, encoding)})
    return image


def _typed(values: np.ndarray[Any, Any]) -> tuple[np.ndarray[Any, Any], str]:
    """Return an array of objects as text, numbers or JSON, and the name of that form if it differs from before."""
    if values.dtype.kind == "f":
        return values.astype(np.float64), "float64"
    items = list(values.reshape(-1)) if values.dtype.kind == "O" else values.reshape(-1).tolist()
    if all(isinstance(item, str) for item in items):
        return values, ""
    if items and all(type(item).__module__.partition(".")[0] == "cftime" for item in items):
        return values, ""  # dates of other calendars, which xarray writes as numbers
    # xarray uses NaN for None.
    plain = [None if isinstance(item, float) and np.isnan(item) else _plain(item)[0] for item in items]
    if plain and all(isinstance(item, bool) for item in plain):
        return np.array(plain, bool).reshape(values.shape), "booleans"
    if all(item is None or (isinstance(item, int | float) and not isinstance(item, bool)) for item in plain):
        if all(isinstance(item, int) and abs(item) < 2**63 for item in plain):
            return np.array(plain, np.int64).reshape(values.shape), "whole numbers"
        numbers = [np.nan if item is None else float(item) for item in plain]
        return np.array(numbers, np.float64).reshape(values.shape), "numbers"
    text = all(isinstance(item, str) for item in plain)
    converted = np.empty(len(plain), object)
    converted[:] = plain if text else [_json(item) for item in plain]
    return converted.reshape(values.shape), "text" if text else "JSON"
