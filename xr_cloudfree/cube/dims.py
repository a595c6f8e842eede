"""Identify the dimensions time, band, y and x of an array: by usual names, CF attributes and readers' settings."""

from __future__ import annotations

import sys
from collections.abc import Hashable, Mapping, Sequence
from typing import Any

import xarray as xr

from xr_cloudfree.errors import DimensionError

ROLES = ("time", "band", "y", "x")

DIM_NAMES: Mapping[str, tuple[str, ...]] = {
    "time": ("time", "t", "date", "datetime", "valid_time", "phony_time"),
    "band": ("band", "bands", "variable", "channel", "channels", "wavelength", "spectral"),
    "y": ("y", "latitude", "lat", "northing", "northings", "row", "rows", "y_coordinate"),
    "x": ("x", "longitude", "lon", "easting", "eastings", "col", "cols", "column", "columns", "x_coordinate"),
}
"""Usual names of dimensions, in lower case; the first is used by this package. Case does not matter."""

STANDARD_NAMES: Mapping[str, str] = {
    "time": "time",
    "projection_y_coordinate": "y",
    "latitude": "y",
    "grid_latitude": "y",
    "projection_x_coordinate": "x",
    "longitude": "x",
    "grid_longitude": "x",
    "sensor_band_identifier": "band",
    "radiation_wavelength": "band",
}
"""CF standard names of coordinates, with the dimension that they identify."""

_AXES = {"T": "time", "Y": "y", "X": "x", "TIME": "time", "LAT": "y", "LON": "x", "GEOX": "x", "GEOY": "y"}
_UNITS = {
    **dict.fromkeys(("degrees_north", "degree_north", "degrees_n", "degree_n"), "y"),
    **dict.fromkeys(("degrees_east", "degree_east", "degrees_e", "degree_e"), "x"),
}
_BY_NAME = {name: role for role, names in DIM_NAMES.items() for name in names}


def dims_of(array: xr.DataArray) -> dict[str, str]:
    """Return the array's names of the dimensions time, band, y and x, as far as they are known.

    In order of precedence, a dimension is identified by a usual name, by attributes of its coordinate (``axis``,
    ``standard_name``, units of degrees), by the settings of rioxarray, or by the dtype of its coordinate:
    dates are time, text is bands.

    Parameters
    ----------
    array : DataArray
        An array with any dimensions.

    Returns
    -------
    dict of str to str
        Roles ``"time"``, ``"band"``, ``"y"`` and ``"x"`` to names of dimensions.

    Examples
    --------
    >>> import numpy as np
    >>> array = xr.DataArray(np.zeros((1, 2, 3, 4)), dims=("t", "channel", "Northing", "Easting"))
    >>> dims_of(array)
    {'time': 't', 'band': 'channel', 'y': 'Northing', 'x': 'Easting'}
    """
    dims: dict[str, str] = {}
    for roles_of in (_by_name, _by_attributes, _by_readers, _by_type):
        if len(dims) == array.ndim:  # names are sufficient in most cases
            break
        for dim, role in roles_of(array).items():
            if role not in dims and dim not in dims.values():
                dims[role] = dim
    return {role: dims[role] for role in ROLES if role in dims}


def _by_name(array: xr.DataArray) -> dict[str, str]:
    # Of two usual names of one role the more common one comes first: "time" before "date".
    named = [str(dim) for dim in array.dims if str(dim).lower() in _BY_NAME]
    role = {dim: _BY_NAME[dim.lower()] for dim in named}
    return dict(sorted(role.items(), key=lambda item: DIM_NAMES[item[1]].index(item[0].lower())))


def _by_attributes(array: xr.DataArray) -> dict[str, str]:
    roles = {}
    for dim in map(str, array.dims):
        if dim not in array.coords:
            continue
        attrs = array.coords[dim].attrs
        role = (
            _AXES.get(str(attrs.get("axis", "")).upper())
            or STANDARD_NAMES.get(str(attrs.get("standard_name", "")).lower())
            or _UNITS.get(str(attrs.get("units", "")).lower())
            or _AXES.get(str(attrs.get("_CoordinateAxisType", "")).upper())
        )
        if role:
            roles[dim] = role
    return roles


def _by_readers(array: xr.DataArray) -> dict[str, str]:
    """Return the settings of ``rio.set_spatial_dims``."""
    roles: dict[str, str] = {}
    if "rioxarray" in sys.modules:
        accessor: Any = array.rio
        roles |= {
            str(dim): role
            for role, dim in (("y", accessor._y_dim), ("x", accessor._x_dim))
            if dim is not None and dim in array.dims
        }
    return roles


def _by_type(array: xr.DataArray) -> dict[str, str]:
    roles: dict[str, str] = {}
    for dim in map(str, array.dims):
        kind = array.coords[dim].dtype.kind if dim in array.coords else "none"
        if kind == "M":
            roles[dim] = "time"
        elif kind in ("U", "T") or (
            kind == "O" and all(isinstance(label, str) for label in array.coords[dim].to_numpy())
        ):
            roles.setdefault(dim, "band")
    return {dim: role for dim, role in roles.items() if list(roles.values()).count(role) == 1}


def role_of(name: str) -> str | None:
    """Return the role of a dimension by its name, None for an unusual name.

    Examples
    --------
    >>> role_of("Latitude"), role_of("u")
    ('y', None)
    """
    return _BY_NAME.get(name.lower())


def dim_of(obj: xr.DataArray | xr.Dataset, role: str) -> str | None:
    """Return the name of one dimension of an array, or of a Dataset's variables; None if unknown.

    Parameters
    ----------
    obj : DataArray or Dataset
        An array, or variables on one grid.
    role : {"time", "band", "y", "x"}
        Role of the dimension.
    """
    arrays = obj.data_vars.values() if isinstance(obj, xr.Dataset) else (obj,)
    return next((dims[role] for dims in map(dims_of, arrays) if role in dims), None)


def time_of(obj: xr.DataArray | xr.Dataset) -> str | None:
    """Return the name of the coordinate with an image's date or dates, None if there is none."""
    usual = [str(name) for name in obj.coords if _BY_NAME.get(str(name).lower()) == "time"]
    return next(iter(sorted(usual, key=lambda name: DIM_NAMES["time"].index(name.lower()))), dim_of(obj, "time"))


def standardise(array: xr.DataArray, needed: Sequence[str], called: str) -> tuple[xr.DataArray, dict[str, str]]:
    """Return an array with its dimensions under this package's names, in order, and the user's names of them.

    Parameters
    ----------
    array : DataArray
        An array.
    needed : sequence of {"time", "band", "y", "x"}
        The required dimensions, in order.
    called : str
        Name of the array in messages.

    Raises
    ------
    DimensionError
        If a dimension is missing, there are too many, or one is empty or clashes with a coordinate.
    """
    known = dims_of(array)
    dims = {role: known[role] for role in needed if role in known}
    unknown = [str(dim) for dim in array.dims if str(dim) not in known.values()]
    missing = [role for role in needed if role not in dims]
    if missing:
        raise DimensionError(
            f"{called} has the dimensions {_listed(array.dims)}, none of which is known as "
            + " or ".join(repr(role) for role in missing),
            f"the dimensions {_listed(needed)}, or usual names of them "
            f"(for {missing[0]}: {', '.join(DIM_NAMES[missing[0]][:4])})",
            _rename_remedy(array, unknown, missing),
        )
    extra = [str(dim) for dim in array.dims if dim not in dims.values()]
    if extra:
        raise DimensionError(
            f"{called} has the additional dimensions {_listed(extra)}",
            f"the dimensions {_listed(needed)} and no other",
            f"cube.isel({{{extra[0]!r}: 0}}, drop=True)",
        )
    _check_not_empty(array, called, dims)
    for role, name in dims.items():
        if name != role and role in array.coords:
            raise DimensionError(
                f"{called} has a dimension {name!r} and also a coordinate {role!r}",
                f"the dimension's coordinate under one name, {role!r} or {name!r}",
                f"cube.swap_dims({{{name!r}: {role!r}}}) if it belongs to the dimension, else cube.drop_vars({role!r})"
                if array.coords[role].dims == (name,)
                else f"cube.drop_vars({role!r})",
            )
    renamed = array.rename({name: role for role, name in dims.items() if name != role})
    return renamed.transpose(*needed), dims


def check_sizes(obj: xr.DataArray | xr.Dataset, called: str = "cube") -> None:
    """Raise for chunks of unknown size, which dask produces by boolean selection.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube, or a layer.
    called : str
        Name of the argument.

    Raises
    ------
    DimensionError
        If the size along a dimension is unknown.
    """
    unknown = tuple(str(d) for d, size in obj.sizes.items() if size != size)
    if not unknown:
        return
    counted = f"{called}.copy(data={called}.data.compute_chunk_sizes())"
    if isinstance(obj, xr.Dataset):
        counted = f"{called}.map(lambda layer: layer.copy(data=layer.data.compute_chunk_sizes()))"
    raise DimensionError(
        f"the size of {called} along {unknown} is unknown: dask has not computed the selection",
        "a known size along each dimension",
        f"{counted}, which computes the selection",
    )


def _check_not_empty(array: xr.DataArray, called: str, dims: Mapping[str, str]) -> None:
    empty = [str(dim) for dim in array.dims if array.sizes[dim] == 0]
    if empty:
        raise DimensionError(
            f"{called} is empty along {_listed(empty)}",
            "at least one element along each dimension",
            f"cube.sel({empty[0]}=slice(larger, smaller)) if it was selected: y often decreases"
            if dims.get("y") == empty[0]
            else f"a selection along {empty[0]} that is not empty",
        )


def _listed(names: Sequence[Hashable]) -> str:
    return ", ".join(map(str, names)) or "(none)"


def _rename_remedy(array: xr.DataArray, unknown: Sequence[str], missing: Sequence[str]) -> str:
    """Return the remedy for unknown dimensions, with both spatial axes at once to avoid a transposed image."""
    if not unknown:
        return f"cube.expand_dims({missing[0]!r})"
    if set(missing) >= {"y", "x"} and len(unknown) >= 2:
        first, second = unknown[-2:]
        if _increases(array, first) and _increases(array, second) is False:
            first, second = second, first
        renamed = f"cube.rename({{{first!r}: 'y', {second!r}: 'x'}})"
        if _increases(array, first) is False and _increases(array, second):
            return renamed
        return f"{renamed} if {first} runs from north to south, else cube.rename({{{second!r}: 'y', {first!r}: 'x'}})"
    pairs = dict(zip(unknown, missing, strict=False))
    return f"cube.rename({pairs})"


def _increases(array: xr.DataArray, dim: str) -> bool | None:
    """Return whether a coordinate increases; None without coordinates, or for a single value."""
    if dim not in array.coords or array.sizes[dim] < 2 or array.coords[dim].dtype.kind not in "iuf":
        return None
    values = array.coords[dim].to_numpy()
    return bool(values[-1] > values[0])


def needs_axis_attrs(name: str) -> bool:
    """Return whether readers cannot identify a spatial dimension by this name alone."""
    return name not in ("y", "x", "latitude", "longitude")


def axis_attrs(role: str, geographic: bool) -> dict[str, Any]:
    """Return CF attributes that identify a spatial coordinate.

    Parameters
    ----------
    role : {"y", "x"}
        The axis.
    geographic : bool
        Whether the coordinates are degrees.
    """
    name = {"y": "latitude", "x": "longitude"}[role] if geographic else f"projection_{role}_coordinate"
    return {"axis": role.upper(), "standard_name": name}
