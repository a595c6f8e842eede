"""Where a cube was opened from, and how, so that other processes can open it again in the same way."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from xr_cloudfree import io
from xr_cloudfree.errors import CloudfreeError
from xr_cloudfree.storage.locations import place

# What people tell xarray otherwise than `io.open_cube` does: numbers as they are stored, the CRS as a variable.
_WAYS: tuple[dict[str, bool], ...] = (
    {},
    {"mask_and_scale": False},
    {"decode_coords": True},
    {"mask_and_scale": False, "decode_coords": True},
)


@dataclass(frozen=True)
class Origin:
    """Where a Dataset was opened from.

    Parameters
    ----------
    path : str
        The store or file, or its URL.
    opened : mapping
        What xarray was told otherwise than `io.open_cube` tells it: ``mask_and_scale`` and ``decode_coords``. Only of
        stores.
    """

    path: str
    opened: Mapping[str, bool] = field(default_factory=dict)

    def open(self) -> xr.Dataset:
        """Open it again, lazily.

        Raises
        ------
        OptionError
            If it is not there any more, or neither a Zarr store nor a NetCDF file.
        """
        return io.open_store(self.path, **self.opened) if self.opened else io.open_cube(self.path)


def origin(obj: Any) -> Origin | None:
    """Where a Dataset was opened from, and how.

    Parameters
    ----------
    obj : Any
        A cube or a layer. What was done to it since is not found out here.

    Returns
    -------
    Origin or None
        None if it is no Dataset, or no way of opening a store gives variables of these types.
    """
    where = obj.encoding.get("source") if isinstance(obj, xr.Dataset) else None
    if not isinstance(where, str):
        return None
    found = place(where)
    if isinstance(found, Path) and not found.exists():
        return None
    if not (io.is_store(found) or io.is_zipped(found) if isinstance(found, Path) else not io.is_netcdf(found)):
        return Origin(where)  # some versions of netCDF4 crash if a file is opened often that is open already
    for opened in _WAYS:
        way = Origin(where, opened)
        try:
            if _alike(way.open(), obj):
                return way
        except CloudfreeError:
            return None
    return None


def _alike(one: xr.Dataset, other: xr.Dataset) -> bool:
    """Whether what two Datasets have in common is of the same types, and is coordinates in both or in neither."""
    common = set(one.variables) & set(other.variables)
    return all(
        one[name].dtype == other[name].dtype and (name in one.coords) == (name in other.coords) for name in common
    )
