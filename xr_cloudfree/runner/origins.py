"""Origins of Datasets: what another process needs to open or load the same Dataset again."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import xarray as xr

from xr_cloudfree import io
from xr_cloudfree.errors import CloudfreeError
from xr_cloudfree.loading.again import how_loaded, in_words, load_again
from xr_cloudfree.storage.locations import absolute, parse_location

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
    loaded : mapping, optional
        How a collection of an archive was loaded, see `xr_cloudfree.loading.again`; `path` then says it in words.
    """

    path: str
    opened: Mapping[str, bool] = field(default_factory=dict)
    loaded: Mapping[str, Any] | None = None

    @property
    def is_path(self) -> bool:
        """Whether the path alone says how to open it: with the default settings."""
        return not self.opened and self.loaded is None

    def as_call(self) -> dict[str, Any]:
        """Return the origin as plain values of a call, which `of_call` takes out again."""
        if self.loaded is not None:
            return {"cube": self.path, "loaded": dict(self.loaded)}
        return {"cube": absolute(self.path), "opened": dict(self.opened)}

    @classmethod
    def of_call(cls, call: dict[str, Any]) -> Origin:
        """Take the origin out of the values of a call."""
        return cls(call.pop("cube"), call.pop("opened", {}), call.pop("loaded", None))

    def open(self) -> xr.Dataset:
        """Open the Dataset again, lazily.

        Raises
        ------
        OptionError
            If it does not exist any more, or is neither a Zarr store nor a NetCDF file.
        InputError
            If a catalogue cannot be searched, or lacks an item by now.
        """
        if self.loaded is not None:
            return load_again(self.loaded)
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
    if (loaded := how_loaded(obj)) is not None:
        return Origin(in_words(loaded), loaded=loaded)
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
