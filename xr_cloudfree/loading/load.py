"""`load`: from items of an archive to a lazy cube on one grid."""

from __future__ import annotations

import inspect
from collections.abc import Mapping, Sequence
from importlib.util import find_spec
from itertools import groupby
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr

from xr_cloudfree.cube.crs import crs_of
from xr_cloudfree.errors import (
    MissingDependencyError,
    OptionError,
    OptionTypeError,
    Remedy,
    TimeError,
    option,
    warn,
)
from xr_cloudfree.loading.areas import Area, parse_area, pinned_grid, turned, where_it_lies
from xr_cloudfree.loading.catalogs import search_items
from xr_cloudfree.loading.intervals import parse_interval
from xr_cloudfree.loading.scenes import Scene, check_bands, parse_scenes
from xr_cloudfree.options import parse_count, parse_flag, parse_list, parse_number

if TYPE_CHECKING:
    from odc.geo.geobox import GeoBox

    from xr_cloudfree.loading.reading import Failure, Sign

# Pixels along y and x of a chunk: four to sixteen blocks of the files of archives.
_CHUNK = 2048
_FAILURES = ("raise", "missing")
# Key of a cube's encoding: how a collection was loaded, see `xr_cloudfree.loading.again`.
LOADED = "cloudfree_load"


def load(
    source: Any,
    *,
    bbox: Sequence[float] | None = None,
    geometry: Any = None,
    geobox: Any = None,
    time: Any = None,
    catalog: str | None = None,
    max_cloud_cover: float | None = None,
    bands: Sequence[str] | None = None,
    mask: bool = True,
    crs: Any = None,
    resolution: float | None = None,
    resampling: str = "nearest",
    chunks: int | Mapping[str, int] | None = None,
    offset: float | Mapping[str, float] | None = None,
    on_error: Failure = "raise",
    sign: Sign | None = None,
    timeout: float = 60.0,
    retries: int = 5,
) -> xr.Dataset | xr.DataTree:
    """Load Sentinel-2, Landsat or HLS from an archive as a lazy cube that `fill` takes as it is.

    All items get one encoding, whatever their processing baseline; scenes of a day become one date; several UTM zones
    land on one grid, which depends on the area alone. Nothing is read before values are needed.

    Parameters
    ----------
    source : str, sequence of str, search of pystac-client, or iterable of pystac.Item or mapping
        A collection, or several of one product, to be searched for an area: Sentinel-2 Level-2A
        (``"sentinel-2-l2a"``, ``"sentinel-2-c1-l2a"``), Landsat Collection 2 Level 2 (``"landsat-c2-l2"``) or HLS
        (``["hls2-l30", "hls2-s30"]``). Or collections of several products, such as
        ``["sentinel-2-c1-l2a", "landsat-c2-l2"]``: each is loaded by itself, with its own pixels, all in the CRS of the
        first. Or a search whose items are taken, or the items themselves.
    bbox : sequence of four float, optional
        The area: west, south, east and north in degrees.
    geometry : mapping, or object of shapely or geopandas, optional
        The area as a geometry in degrees, unless it has a CRS; its bounding box is loaded.
    geobox : GeoBox, DataArray or Dataset, optional
        The area as a grid of odc-geo, or as a cube with the same pixels. Without any area, all that the items cover is
        loaded.
    time : str, slice, pair or datetime, optional
        Days, months or years in ISO 8601 and UTC, as ``"2021-07"`` or ``"2021-05/2021-07"``, both ends included. Other
        items are left out.
    catalog : str, optional
        Where a collection is searched: ``"earth-search"``, ``"planetary-computer"``, ``"cdse"``, ``"usgs"``,
        ``"lpcloud"``, or the address of a STAC API. By default one that has it.
    max_cloud_cover : float, optional
        Items with more clouds than this, in percent, are left out.
    bands : sequence of str, optional
        STAC common names or the sensor's own; the variables of the cube have the names that are given. By default all
        bands of the ground that every item has, without those at 60 m.
    mask : bool
        Whether to load the quality layer: ``scl``, ``qa_pixel`` or ``fmask``.
    crs : CRS, str or int, optional
        CRS of the grid. By default the UTM zone of the centre of the area.
    resolution : float, optional
        Pixel size in units of the CRS. By default that of the finest band, 10, 20 or 30 m.
    resampling : str
        How bands at another pixel size, or in another CRS, are put on the grid, see `rasterio.enums.Resampling`. The
        quality layer always is by the nearest pixel.
    chunks : int or mapping of str to int, optional
        Pixels along ``y`` and ``x`` of a chunk; each date is a chunk of its own. By default 2048.
    offset : float or mapping of str to float, optional
        Reflectance of a stored zero, where metadata are wrong: of all items, or by item identifier. For Sentinel-2
        -0.1 from processing baseline 04.00 on, and 0 before, or where the archive has subtracted it.
    on_error : {"raise", "missing"}
        What happens if an asset cannot be read when values are needed: an error that names the item, or missing pixels
        in that band and date, with a warning.
    sign : callable, optional
        From the URL of an asset to the URL that is requested. It is called for each read, so that signatures do not
        expire before. By default assets of the Planetary Computer are signed if the package planetary-computer is
        installed.
    timeout : float
        Seconds until a request counts as failed.
    retries : int
        How often a failed request is repeated, with growing pauses.

    Returns
    -------
    Dataset, or DataTree of one for each product
        Bands and the quality layer as variables (time, y, x), as stored: reflectance is stored * ``scale_factor`` +
        ``add_offset``, and ``_FillValue`` is missing, as their attributes say (`xarray.decode_cf` applies them).
        Coordinates along time: ``item_id``, ``platform``, ``baseline`` and ``cloud_cover`` in percent; those of
        several scenes of a day are joined by a comma, and cloud cover is their mean.

    Raises
    ------
    MissingDependencyError
        If odc-stac is not installed.
    OptionError, OptionTypeError
        If an option or the items cannot be used.
    BandError, MaskError
        If items lack a band or the quality layer.
    GridError
        If there is no grid: no CRS, the antimeridian, the poles.
    ScalingError
        If the encoding of an item is unknown.
    TimeError
        If no item is left in the area and the span of time, or an item has no time.
    InputError
        If a catalogue cannot be searched; if an asset cannot be read, when values are computed.

    Warns
    -----
    CloudfreeWarning
        If no item is in the CRS of the grid, so that all values are resampled; and with ``on_error="missing"``, when
        values are computed, for each asset that cannot be read.

    Examples
    --------
    >>> import xr_cloudfree
    >>> cube = xr_cloudfree.load(
    ...     "sentinel-2-c1-l2a", bbox=(-8.5, 40.1, -8.4, 40.2), time="2021-05/2021-07", bands=["red", "nir"]
    ... )  # doctest: +SKIP
    >>> image = cube.cloudfree.fill(date="2021-07-08")  # doctest: +SKIP

    Several sensors, of which all serve to fill the one with the smallest pixels:

    >>> tree = xr_cloudfree.load(
    ...     ["sentinel-2-c1-l2a", "landsat-c2-l2"], bbox=(-8.5, 40.1, -8.4, 40.2), time="2021-05/2021-07"
    ... )  # doctest: +SKIP
    >>> image = tree.cloudfree.fill(date="2021-07-08")  # doctest: +SKIP
    """
    _require()
    if len(products := _by_product(source)) > 1:
        options = {name: value for name, value in locals().items() if name in _OPTIONS}
        return _load_products(products, options)
    if on_error not in _FAILURES:
        raise OptionError(f"on_error is {on_error!r}", "raise or missing", option("on_error='missing'"))
    area, interval = parse_area(bbox, geometry, geobox), parse_interval(time)
    _check_resampling(resampling)
    names = None if bands is None else parse_list("bands", bands, option("bands=['red', 'nir']"))
    edges = _parse_chunks(chunks)
    retries = parse_count("retries", retries, 0, option("retries=5"))
    seconds = parse_number("timeout", timeout, "a positive number of seconds", option("timeout=60"), above=0)
    clouds = np.inf
    if max_cloud_cover is not None:
        how = "percent from 0 to 100", option("max_cloud_cover=60")
        clouds = parse_number("max_cloud_cover", max_cloud_cover, *how, least=0, most=100)
    collections = _collections_of(source)
    if collections is not None:
        source = search_items(collections, area, interval, catalog=catalog, timeout=seconds, retries=retries)
    elif catalog is not None:
        raise OptionError("catalog= is given beside items", "a collection to search, or items", option("catalog=None"))
    found = parse_scenes(_items_of(source), offset)
    scenes = [scene for scene in found if scene.when in interval and _touches(scene, area)]
    if not scenes:
        where = "" if area is None else f" in the area of {where_it_lies(area.bbox)} and"
        raise TimeError(
            f"none of the {len(found)} items is{where} in the span {interval.text}",
            "items of this area and time",
            _other_area(found, area) or option("time='2021'") + " or a larger area",
        )
    scenes = [scene for scene in scenes if not scene.cloud_cover > clouds]
    if not scenes:
        raise TimeError(f"all items have more than {clouds:g} % clouds", "some items", option("max_cloud_cover=None"))
    variables = check_bands(scenes, names, parse_flag("mask", mask))
    product = scenes[0].product
    finest = min((product.bands[own] for own in variables.values() if own in product.bands), default=10.0)
    grid = pinned_grid(area, scenes, finest, crs, resolution)
    _warn_of_resampling(scenes, grid, given=crs is not None or (area is not None and area.geobox is not None))
    days = by_day(scenes)
    lazy = _read(days, variables, grid, edges, resampling, on_error, sign, seconds, retries)
    cube = described(lazy, days, variables)
    if collections is not None and area is not None and area.geobox is None and sign is None:
        cube.encoding[LOADED] = {
            "source": collections,
            "bbox": list(area.bbox),
            "time": interval.search_text,
            "catalog": catalog,
            "items": sorted(scene.id for scene in scenes),
            "bands": names,
            "mask": mask,
            "crs": crs if crs is None or isinstance(crs, int) else str(crs),
            "resolution": resolution,
            "resampling": resampling,
            "chunks": dict(edges),
            "offset": dict(offset) if isinstance(offset, Mapping) else offset,
            "on_error": on_error,
            "timeout": seconds,
            "retries": retries,
        }
    return cube


def _by_product(source: Any) -> dict[str, list[str]]:
    """Return the collections of each product, by the beginning of their names; empty for anything else.

    Examples
    --------
    >>> _by_product(["sentinel-2-c1-l2a", "hls2-l30", "hls2-s30"])
    {'sentinel': ['sentinel-2-c1-l2a'], 'hls': ['hls2-l30', 'hls2-s30']}
    >>> _by_product(["HLSL30_2.0", "HLSS30_2.0"])
    {'hls': ['HLSL30_2.0', 'HLSS30_2.0']}
    """
    products: dict[str, list[str]] = {}
    for name in _collections_of(source) or ():
        product = "hls" if name.lower().startswith("hls") else name.lower().split("-")[0].split("_")[0]
        products.setdefault(product, []).append(name)
    return products


def _load_products(products: Mapping[str, Sequence[str]], options: Mapping[str, Any]) -> xr.DataTree:
    """Load the collections of several products as the leaves of a tree, in the CRS of the first."""
    cubes: dict[str, xr.Dataset] = {}
    for names in products.values():
        cube = load(list(names), **options)
        assert isinstance(cube, xr.Dataset)
        cubes[names[0]] = cube
        if options["crs"] is None and options["geobox"] is None:
            options = {**options, "crs": crs_of(cube[next(iter(cube.data_vars))]).to_string()}
    return xr.DataTree.from_dict(cubes)


def by_day(scenes: Sequence[Scene]) -> list[list[Scene]]:
    """Return scenes grouped by day and sensor, in order of time.

    In each group the scene comes first whose pixels are taken where several have some: the newest baseline, then the
    fewest clouds, the earliest, and the order of the identifiers, so that the order of the input does not matter.

    Parameters
    ----------
    scenes : sequence of Scene
        Scenes in any order.
    """

    def key(scene: Scene) -> tuple[str, str]:
        return str(scene.day), scene.sensor.title

    def rank(scene: Scene) -> tuple[Any, ...]:
        clouds = 101.0 if np.isnan(scene.cloud_cover) else scene.cloud_cover
        return -float(scene.baseline or 0), clouds, scene.when, scene.id

    groups = [sorted(group, key=rank) for _, group in groupby(sorted(scenes, key=key), key=key)]
    return sorted(groups, key=lambda group: (min(scene.when for scene in group), group[0].id))


def _require() -> None:
    for module, package in (("odc.stac", "odc-stac"), ("pystac_client", "pystac-client")):
        try:
            missing = find_spec(module) is None
        except ModuleNotFoundError:
            missing = True
        if missing:
            raise MissingDependencyError(
                f"{package} is not installed",
                f"the package {package}, which reads items",
                'pip install "xr-cloudfree[stac]"',
            )


def _collections_of(source: Any) -> list[str] | None:
    """Return the identifiers of collections, None if the source is something else."""
    if isinstance(source, str):
        return [source]
    if isinstance(source, list | tuple) and source and all(isinstance(name, str) for name in source):
        return list(source)
    return None


def _items_of(source: Any) -> list[Any]:
    """Return the items of a search, a collection of items, or any iterable of them."""
    if isinstance(source, Mapping):
        source = source["features"] if "features" in source else [source]
    elif hasattr(source, "items") and callable(source.items):
        source = source.items()
    try:
        items = list(source)
    except TypeError as error:
        raise OptionTypeError(
            f"the source is a {type(source).__name__}",
            "items of a STAC catalogue, or a search of pystac-client",
            "xr_cloudfree.load(search, bbox=(-8.5, 40.1, -8.4, 40.2))",
        ) from error
    if not items:
        raise OptionError(
            "there are no items: the search is empty",
            "at least one item",
            option("time='2021'") + ", a larger area, or another collection in the search",
        )
    return items


def _touches(scene: Scene, area: Area | None) -> bool:
    box = scene.bbox
    if area is None or box is None:
        return True
    west, south, east, north = area.bbox
    return box[0] < east and west < box[2] and box[1] < north and south < box[3]


def _other_area(scenes: Sequence[Scene], area: Area | None) -> Remedy | None:
    """Return the remedy for a box with the latitudes first, None if that would not reach the scenes either."""
    box = None if area is None else turned(area.bbox)
    if box is None or not any(scene.bbox is not None and _touches(scene, Area(box)) for scene in scenes):
        return None
    return option(f"bbox={box}") + ", with longitudes first"


def _parse_chunks(chunks: Any) -> dict[str, int]:
    example = option("chunks={'y': 1024, 'x': 1024}")
    if chunks is None:
        chunks = _CHUNK
    if isinstance(chunks, Mapping):
        if unknown := [name for name in chunks if name not in ("time", "y", "x")]:
            raise OptionError(f"chunks names {unknown[0]!r}", "y and x; each date is a chunk of its own", example)
        sizes = {name: chunks.get(name, _CHUNK) for name in ("y", "x")}
        if chunks.get("time", 1) != 1:
            raise OptionError("chunks has several dates", "each date as a chunk of its own", example)
    else:
        sizes = {"y": chunks, "x": chunks}
    return {"time": 1} | {name: parse_count(f"chunks of {name}", size, 1, example) for name, size in sizes.items()}


def _check_resampling(name: Any) -> None:
    from rasterio.enums import Resampling

    known = [method.name for method in Resampling if method.name != "gauss"]
    if name not in known:
        raise OptionError(f"resampling is {name!r}", f"one of {', '.join(known)}", option("resampling='bilinear'"))


def _warn_of_resampling(scenes: Sequence[Scene], grid: GeoBox, given: bool) -> None:
    own = sorted({scene.crs for scene in scenes if scene.crs is not None})
    if own and not given and str(grid.crs) not in own:
        warn(
            f"the area lies in {grid.crs}, but the items are in {', '.join(own)}: all values are resampled. "
            f"crs={own[0]!r} keeps their pixels"
        )


def _read(
    days: Sequence[Sequence[Scene]],
    variables: Mapping[str, str],
    grid: GeoBox,
    chunks: Mapping[str, int],
    resampling: str,
    on_error: Failure,
    sign: Sign | None,
    timeout: float,
    retries: int,
) -> xr.Dataset:
    """Return the bands and the quality layer of each group of scenes as odc-stac builds them, one date for each."""
    import odc.stac
    import rioxarray  # noqa: F401  registers .rio

    from xr_cloudfree.loading.reading import Driver, as_item

    items = [
        as_item(scene, list(variables.values()), date, on_error, sign)
        for date, group in enumerate(days)
        for scene in group
    ]
    product = days[0][0].product
    cube: xr.Dataset = odc.stac.load(
        items,
        bands=list(variables.values()),
        groupby="cloudfree:date",
        preserve_original_order=True,
        geobox=grid,
        chunks=dict(chunks),
        resampling={product.mask: "nearest", "*": resampling},
        driver=Driver(timeout, retries),
    )
    return cube


def described(cube: xr.Dataset, days: Sequence[Sequence[Scene]], variables: Mapping[str, str]) -> xr.Dataset:
    """Return a cube with its coordinates along time, and attributes that say what the values mean.

    Parameters
    ----------
    cube : Dataset
        Bands and the quality layer (time, y, x), under common names.
    days : sequence of sequence of Scene
        The scenes of each date.
    variables : mapping of str to str
        Names of the cube's variables, and the common name of each.
    """
    product = days[0][0].product
    encoding = product.encoding
    # Sizes of `days` and of the cube agree: each group is a date.
    cube = cube.assign_coords(
        time=("time", np.array([min(scene.when for scene in group) for group in days], "datetime64[ns]")),
        item_id=("time", [_joined(scene.id for scene in group) for group in days]),
        platform=("time", [_joined(scene.platform for scene in group) for group in days]),
        baseline=("time", [_joined(scene.baseline for scene in group) for group in days]),
        cloud_cover=("time", [_mean([scene.cloud_cover for scene in group]) for group in days], {"units": "%"}),
    )
    for name, own in variables.items():
        if own == product.mask:
            cube[own].attrs = {"long_name": product.sensor.title + ", quality layer", "_FillValue": product.mask_nodata}
            continue
        cube[own].attrs = {
            "long_name": name,
            "common_name": own,
            "units": "1",
            "scale_factor": encoding.scale,
            "add_offset": encoding.offset,
            "_FillValue": encoding.nodata,
        }
    cube.attrs = {"collection": _joined(scene.collection for group in days for scene in group)}
    return cube.rename({own: name for name, own in variables.items() if own != name})


def _joined(texts: Any) -> str:
    return ",".join(dict.fromkeys(texts))


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


_OPTIONS = tuple(name for name in inspect.signature(load).parameters if name != "source")
