"""Origins of Datasets: the path and the settings with which another process opens the same Dataset again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from xr_cloudfree import io
from xr_cloudfree.errors import CloudfreeError
from xr_cloudfree.storage.locations import parse_location

# Settings of `xarray.open_zarr` that users change: stored numbers instead of decoded ones, the CRS as a variable.
_SETTINGS: tuple[dict[str, bool], ...] = (
    {},
    {"mask_and_scale": False},
    {"decode_coords": True},
    {"mask_and_scale": False, "decode_coords": True},
)


@dataclass(frozen=True)
class Origin:
    """The origin of a Dataset.

    Parameters
    ----------
    path : str
        The store or file, or its URL.
    opened : mapping
        Settings that differ from those of `io.open_cube`: ``mask_and_scale`` and ``decode_coords``. For stores only.
    """

    path: str
    opened: Mapping[str, bool] = field(default_factory=dict)

    def open(self) -> xr.Dataset:
        """Open the Dataset again, lazily.

        Raises
        ------
        OptionError
            If it does not exist any more, or is neither a Zarr store nor a NetCDF file.
        """
        return io.open_store(self.path, **self.opened) if self.opened else io.open_cube(self.path)


def origin(obj: Any) -> Origin | None:
    """Return the origin of a Dataset.

    Parameters
    ----------
    obj : Any
        A cube or a layer. Changes made after it was opened are not detected here.

    Returns
    -------
    Origin or None
        None if it is not a Dataset, or no settings for opening the store give variables of these types.
    """
    source = obj.encoding.get("source") if isinstance(obj, xr.Dataset) else None
    if not isinstance(source, str):
        return None
    location = parse_location(source)
    if isinstance(location, Path) and not location.exists():
        return None
    is_file = (
        not (io.is_store(location) or io.is_zipped(location)) if isinstance(location, Path) else io.is_netcdf(location)
    )
    if is_file:
        return Origin(source)  # some versions of netCDF4 crash if a file that is open is opened often
    for settings in _SETTINGS:
        candidate = Origin(source, settings)
        try:
            if _same_types(candidate.open(), obj):
                return candidate
        except CloudfreeError:
            return None
    return None


def _same_types(a: xr.Dataset, b: xr.Dataset) -> bool:
    """Return whether the common variables have the same dtypes and are coordinates in both or in neither."""
    common = set(a.variables) & set(b.variables)
    return all(a[name].dtype == b[name].dtype and (name in a.coords) == (name in b.coords) for name in common)
