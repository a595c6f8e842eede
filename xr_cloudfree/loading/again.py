"""Loads as plain values, so that another process can load the same cube again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import xarray as xr

from xr_cloudfree.errors import InputError
from xr_cloudfree.loading.areas import Area, parse_area
from xr_cloudfree.loading.catalogs import search_items
from xr_cloudfree.loading.intervals import Interval, parse_interval
from xr_cloudfree.loading.load import LOADED, load
from xr_cloudfree.storage.locations import is_url, without_secrets

_SHOWN = 3


def how_loaded(cube: Any) -> dict[str, Any] | None:
    """Return how a cube was loaded from a collection; None if it was not, or not by plain values.

    Parameters
    ----------
    cube : Any
        A cube or a layer. Changes made after it was loaded are not detected here.

    Returns
    -------
    dict or None
        What `load_again` takes. It holds no credentials: a catalogue whose address has a password or a query gives
        None, and so do signatures, which are made when assets are read.
    """
    loaded = cube.encoding.get(LOADED) if isinstance(cube, xr.Dataset) else None
    catalog = None if loaded is None else loaded["catalog"]
    secret = isinstance(catalog, str) and is_url(catalog) and catalog != without_secrets(catalog)
    return None if loaded is None or secret else dict(loaded)


def in_words(loaded: Mapping[str, Any]) -> str:
    """Return a load in words.

    Examples
    --------
    >>> in_words({"source": ["sentinel-2-c1-l2a"], "bbox": [-8.5, 40.1, -8.4, 40.2], "time": None, "items": ["a", "b"]})
    'sentinel-2-c1-l2a in (-8.5, 40.1, -8.4, 40.2), 2 items'
    """
    where = tuple(round(value, 4) for value in loaded["bbox"])
    return f"{','.join(loaded['source'])} in {where}, {len(loaded['items'])} items"


def load_again(loaded: Mapping[str, Any]) -> xr.Dataset:
    """Load the same items of a collection again, even if the catalogue has changed since.

    Parameters
    ----------
    loaded : mapping
        As `how_loaded` returns it.

    Raises
    ------
    InputError
        If the catalogue cannot be searched, or lacks an item by now.
    """
    options = {name: value for name, value in loaded.items() if name not in ("source", "time", "catalog", "items")}
    found = _search(loaded["source"], parse_area(loaded["bbox"]), parse_interval(loaded["time"]), loaded)
    lacking = [name for name in loaded["items"] if name not in found]
    if lacking:
        more = f" and {len(lacking) - _SHOWN} more" if len(lacking) > _SHOWN else ""
        raise InputError(
            f"the catalogue has no item {', '.join(lacking[:_SHOWN])}{more} of {','.join(loaded['source'])} any more",
            "the items that were loaded",
            "the call that began it, with another output",
        )
    cube = load([found[name] for name in loaded["items"]], **options)
    assert isinstance(cube, xr.Dataset)  # of one product
    cube.encoding[LOADED] = dict(loaded)
    return cube


def _search(
    collections: Sequence[str], area: Area | None, interval: Interval, loaded: Mapping[str, Any]
) -> dict[str, dict[str, Any]]:
    how = {"catalog": loaded["catalog"], "timeout": loaded["timeout"], "retries": loaded["retries"]}
    return {str(item["id"]): item for item in search_items(collections, area, interval, **how)}
