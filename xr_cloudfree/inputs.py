"""Cubes as given beside the one that is filled: Sentinel-1 and other sensors, by name or path, or in a tree."""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import xarray as xr

from xr_cloudfree import io
from xr_cloudfree.cube.conventions import parse_cube
from xr_cloudfree.cube.crs import crs_as_coordinate, pixel_metres
from xr_cloudfree.errors import DimensionError, OptionError, code, either, option
from xr_cloudfree.storage.locations import is_url, parse_location


def open_s1(s1: Any, obj: Any) -> tuple[Any, Any]:
    """Return Sentinel-1 as an xarray object, and the cube without it.

    Parameters
    ----------
    s1 : DataArray, Dataset, str, path, sequence of str or None
        As `fill` takes it; text is first looked up among the names of the cube's variables.
    obj : DataArray or Dataset
        The cube.

    Raises
    ------
    OptionError
        If there is neither a variable nor a file of this name.
    """
    if not isinstance(s1, str | os.PathLike | list | tuple):
        return s1, obj
    if names := s1_variables(s1, obj):
        # A second variable with bands would leave open which of them is the cube.
        return obj[names], obj.drop_vars(names)
    if isinstance(s1, list | tuple) or not s1 or not (is_url(s1) or os.path.exists(parse_location(s1))):
        variables = ", ".join(map(str, obj.data_vars)) if isinstance(obj, xr.Dataset) else ""
        raise OptionError(
            f"s1 is {s1!r}, and there is neither a file nor a variable of the cube of that name",
            f"one or two of its variables ({variables or 'it has none'}), or a .zarr store or a .nc file",
            either(option("s1='s1.zarr'"), option("s1=xr.Dataset({'vv': vv, 'vh': vh})")),
        )
    return io.open_cube(s1), obj


def s1_variables(s1: Any, obj: Any) -> list[str]:
    """Return the cube's variables that `s1` names: one, or several separated by commas; empty if it names none.

    Examples
    --------
    >>> s1_variables("vv, vh", xr.Dataset({"vv": 1, "vh": 2})), s1_variables("s1.zarr", xr.Dataset())
    (['vv', 'vh'], [])
    """
    if not isinstance(obj, xr.Dataset) or not isinstance(s1, str | list | tuple):
        return []
    names = [part.strip() for part in s1.split(",")] if isinstance(s1, str) else list(s1)
    return names if all(isinstance(name, str) and name in obj.data_vars for name in names) else []


def open_others(others: Any) -> tuple[Any, ...]:
    """Return cubes of other sensors as xarray objects.

    Parameters
    ----------
    others : DataArray, Dataset, str, path, sequence of these, or None
        As `fill` takes them.
    """
    return tuple(io.open_cube(other) if isinstance(other, str | os.PathLike) else other for other in as_list(others))


def finest_of(obj: Any, others: Any = None) -> tuple[Any, Any]:
    """Return the cube of a DataTree that has the smallest pixels, of several the first, and the rest as others.

    Parameters
    ----------
    obj : DataArray, Dataset or DataTree
        A cube, or a tree with one cube in each leaf; a cube is returned as it is.
    others : DataArray, Dataset, str, path, sequence of these, or None
        Further cubes, which come after those of the tree.

    Raises
    ------
    DimensionError
        If the tree holds no cube.
    OptionError
        If the tree is a product, see `xr_cloudfree.open_eopf`.
    """
    if not isinstance(obj, xr.DataTree):
        return obj, others
    if "stac_discovery" in obj.attrs:
        raise OptionError(
            "the tree is a product in the Zarr format of EOPF",
            "a cube, of one or more products",
            code("xr_cloudfree.open_eopf([tree])"),
        )
    cubes = _leaves(obj)
    if not cubes:
        raise DimensionError(
            "the tree holds no cube", "a cube in each leaf", code("xr.DataTree.from_dict({'s2': cube})")
        )
    sizes = [pixel_metres(parse_cube(crs_as_coordinate(cube)).template) or np.inf for cube in cubes]
    finest = int(np.argmin(sizes))
    return cubes[finest], [*(cube for i, cube in enumerate(cubes) if i != finest), *as_list(others)] or None


def as_list(others: Any) -> list[Any]:
    """Return one or several cubes, or their paths, as a list; empty for None."""
    if others is None:
        return []
    each = others if isinstance(others, list | tuple) else [others]
    return [cube for other in each for cube in (_leaves(other) if isinstance(other, xr.DataTree) else [other])]


def _leaves(tree: xr.DataTree) -> list[xr.Dataset]:
    return [leaf.to_dataset() for leaf in tree.leaves if leaf.has_data]
