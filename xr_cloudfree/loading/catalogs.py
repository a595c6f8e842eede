"""Searches of STAC APIs for the items of a collection."""

from __future__ import annotations

import difflib
from collections.abc import Sequence
from typing import Any

from xr_cloudfree.errors import InputError, OptionError, option
from xr_cloudfree.loading.areas import Area, turned, where_it_lies
from xr_cloudfree.loading.geojson import Bounds
from xr_cloudfree.loading.intervals import Interval

CATALOGS = {
    "earth-search": "https://earth-search.aws.element84.com/v1",
    "planetary-computer": "https://planetarycomputer.microsoft.com/api/stac/v1",
    "cdse": "https://stac.dataspace.copernicus.eu/v1",
    "usgs": "https://landsatlook.usgs.gov/stac-server",
    "lpcloud": "https://cmr.earthdata.nasa.gov/stac/LPCLOUD",
}
"""Addresses of catalogues by name."""

HOMES = {
    "sentinel-2-l2a": "earth-search",
    "sentinel-2-c1-l2a": "earth-search",
    "landsat-c2-l2": "planetary-computer",
    "hls2-l30": "planetary-computer",
    "hls2-s30": "planetary-computer",
    "landsat-c2l2-sr": "usgs",
    "HLSL30_2.0": "lpcloud",
    "HLSS30_2.0": "lpcloud",
}
"""The catalogue in which a collection is searched by default."""

# Items for each request of a search.
_PAGE = 250
# HTTP status codes after which a request is repeated.
_BUSY = (429, 500, 502, 503, 504)


def search_items(
    collections: Sequence[str],
    area: Area | None,
    interval: Interval,
    *,
    catalog: str | None = None,
    timeout: float = 60.0,
    retries: int = 5,
) -> list[dict[str, Any]]:
    """Return the items of collections in an area and a span of time, as GeoJSON.

    Parameters
    ----------
    collections : sequence of str
        Identifiers of collections of one catalogue.
    area : Area
        The area.
    interval : Interval
        The span of time.
    catalog : str, optional
        A name in `CATALOGS`, or the address of a STAC API. By default that in which the first collection is usually
        searched, see `HOMES`.
    timeout : float
        Seconds until a request counts as failed.
    retries : int
        How often a failed request is repeated, with growing pauses.

    Raises
    ------
    OptionError
        If there is no area, no such collection, or no item in it; or the catalogue is not known.
    InputError
        If the catalogue cannot be reached, or refuses.
    """
    if area is None:
        raise OptionError(
            f"a search of {', '.join(collections)} without an area", "an area", option("bbox=(-8.5, 40.1, -8.4, 40.2)")
        )
    url = _address(collections, catalog)
    client = _client(url, timeout, retries)
    try:
        search = client.search(
            collections=list(collections), bbox=list(area.bbox), datetime=interval.search_text, limit=_PAGE
        )
        items = list(search.items_as_dicts())
    except Exception as error:  # pystac-client and requests have no common one
        raise _unreachable(url, error) from error
    if not items:
        _check_collections(client, url, collections)
        other = turned(area.bbox)
        if other is not None and not _has_items(client, collections, other, interval):
            other = None
        raise OptionError(
            f"{', '.join(collections)} at {url} has no item in the area of "
            f"{where_it_lies(area.bbox)} and the span {interval.text}",
            "an area and a span of time with items",
            option("time='2021'") + " for a whole year, or a larger area"
            if other is None
            else option(f"bbox={other}") + ", with longitudes first: there are items",
        )
    return items


def _address(collections: Sequence[str], catalog: str | None) -> str:
    if catalog is None:
        catalog = HOMES.get(collections[0])
        if catalog is None:
            near = difflib.get_close_matches(collections[0], HOMES, n=1)
            raise OptionError(
                f"no catalogue is known for the collection {collections[0]!r}",
                f"one of {', '.join(HOMES)}, or the catalogue",
                repr(near[0]) if near else option("catalog='https://host/stac'"),
            )
    if "://" not in catalog and catalog not in CATALOGS:
        near = difflib.get_close_matches(catalog, CATALOGS, n=1)
        raise OptionError(
            f"catalog is {catalog!r}",
            f"one of {', '.join(CATALOGS)}, or the address of a STAC API",
            option(f"catalog={(near or ['earth-search'])[0]!r}"),
        )
    return CATALOGS.get(catalog, catalog)


def _client(url: str, timeout: float, retries: int) -> Any:
    from pystac_client import Client
    from pystac_client.stac_api_io import StacApiIO
    from urllib3 import Retry

    # None: also for POST, by which searches are sent. They change nothing.
    retry = Retry(total=retries, backoff_factor=0.2, status_forcelist=_BUSY, allowed_methods=None)
    try:
        return Client.open(url, stac_io=StacApiIO(timeout=timeout, max_retries=retry))
    except Exception as error:  # as above
        raise _unreachable(url, error) from error


def _check_collections(client: Any, url: str, collections: Sequence[str]) -> None:
    """Raise if a collection does not exist: a search of it finds nothing."""
    try:
        known = sorted(collection.id for collection in client.get_collections())
    except Exception:  # an API without a list of its collections
        return
    for name in collections:
        if known and name not in known:
            near = difflib.get_close_matches(name, known, n=1)
            raise OptionError(
                f"{url} has no collection {name!r}",
                f"one of {', '.join(known[:12])}" + (" …" if len(known) > 12 else ""),
                repr((near or known)[0]),
            )


def _has_items(client: Any, collections: Sequence[str], bbox: Bounds, interval: Interval) -> bool:
    how = {"collections": list(collections), "bbox": list(bbox), "datetime": interval.search_text}
    try:
        return any(client.search(**how, limit=1, max_items=1).items_as_dicts())
    except Exception:  # it only helps to say more
        return False


def _unreachable(url: str, error: Exception) -> InputError:
    text = (str(error).strip() or "no details").splitlines()[0][:300]
    return InputError(
        f"the catalogue {url} cannot be searched ({type(error).__name__}: {text})",
        "a STAC API that answers",
        f"curl -fI {url}, which must answer 200; then the same call again",
    )
