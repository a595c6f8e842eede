"""Items of an archive as scenes: time, platform, baseline, assets by common name, and the offset of their values."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pandas as pd

from xr_cloudfree.cube.schemes import scheme_of_layer
from xr_cloudfree.cube.sensors import Sensor, common_names_of, sensor_of
from xr_cloudfree.errors import BandError, MaskError, OptionError, OptionTypeError, ScalingError, TimeError, option
from xr_cloudfree.loading.geojson import Bounds, bounds_of
from xr_cloudfree.loading.products import PRODUCTS, Product, product_of

Assets = Mapping[str, Mapping[str, Any]]

_BASELINES = ("s2:processing_baseline", "processing:version", "sentinel:processing_baseline")
_APPLIED = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied")
_PRODUCTS = ("s2:product_uri", "s2:product_id", "sentinel:product_id", "title")
_CODES = ("proj:code", "proj:epsg")
_WORDS = ("platform", "constellation", "instruments", "product:type", "title")
# Suffixes by which some catalogues tell copies of a band apart: its pixel size.
_SIZE = re.compile(r"_(\d+)m$", re.IGNORECASE)
_OFFSET_SINCE = 4.0


@dataclass(frozen=True, eq=False)
class Scene:
    """An item of an archive.

    Parameters
    ----------
    id : str
        The item's identifier.
    when : datetime64[ns]
        Its time in UTC.
    product : Product
        The product that it belongs to.
    sensor : Sensor
        Its sensor, which numbers the bands.
    platform : str
        The satellite, such as ``"sentinel-2b"``; empty if unknown.
    baseline : str
        Processing baseline of Sentinel-2, such as ``"05.10"``; empty if unknown or of another sensor.
    cloud_cover : float
        Cloud cover of the whole item in percent; NaN if unknown.
    collection : str
        Identifier of the collection; empty if unknown.
    crs : str or None
        Coordinate reference system of its assets as ``"EPSG:32629"``, None if the item does not say.
    assets : mapping of str to mapping
        Assets by the common name of the band or the name of the quality layer, as in the item, with absolute ``href``.
    geometry : mapping or None
        Footprint in longitude and latitude, as GeoJSON.
    shift : int
        What is added to stored values, so that they have the encoding of the product.
    doubtful : bool
        Whether the item's metadata on its offset are of a kind that is wrong in places.
    """

    id: str
    when: np.datetime64
    product: Product
    sensor: Sensor
    platform: str
    baseline: str
    cloud_cover: float
    collection: str
    crs: str | None
    assets: Assets
    geometry: Mapping[str, Any] | None
    shift: int = 0
    doubtful: bool = False

    @property
    def day(self) -> np.datetime64:
        """The day of the overpass in the local time of the place, which no overpass of a sunlit scene divides."""
        bbox = self.bbox
        longitude = 0.0 if bbox is None else (bbox[0] + bbox[2]) / 2
        day: np.datetime64 = (self.when + np.timedelta64(round(longitude * 240), "s")).astype("datetime64[D]")
        return day

    @property
    def bbox(self) -> Bounds | None:
        """West, south, east and north of the footprint, in degrees."""
        return bounds_of(self.geometry)


def parse_scenes(items: Iterable[Any], offset: float | Mapping[str, float] | None = None) -> list[Scene]:
    """Return the scenes of items, each item once.

    Parameters
    ----------
    items : iterable of pystac.Item or mapping
        Items with absolute links to their assets, or as GeoJSON.
    offset : float or mapping of str to float, optional
        Reflectance of a stored zero, which takes precedence over metadata: of all items, or by the item's identifier.

    Raises
    ------
    OptionTypeError
        If something is not an item.
    OptionError
        If an item belongs to no known product, or items to several.
    TimeError
        If an item has no time.
    ScalingError
        If the scaling of an item is unknown, or cannot be converted to that of its product.
    """
    found: dict[tuple[str, str], Any] = {}
    for item in items:
        record = as_record(item)
        found.setdefault((str(record.get("collection") or ""), str(record["id"])), record)
    scenes = [_parse_scene(record, offset) for record in found.values()]
    families = {scene.product.family: scene.id for scene in reversed(scenes)}
    if len(families) > 1:
        raise OptionError(
            "the items are of several products: " + ", ".join(f"{name} ({first})" for name, first in families.items()),
            "items of one product, whose bands and masks have one meaning",
            f"load the items of {next(iter(families))} alone, and then the others",
        )
    if isinstance(offset, Mapping) and (unknown := sorted(set(offset) - {scene.id for scene in scenes})):
        raise OptionError(
            f"offset= names {unknown[0]!r}, which is none of the {len(scenes)} items",
            "identifiers of items",
            f"one of {', '.join(scene.id for scene in scenes[:3])}",
        )
    return scenes


def as_record(item: Any) -> dict[str, Any]:
    """Return an item as GeoJSON, with absolute links to its assets.

    Parameters
    ----------
    item : pystac.Item or mapping
        The item.

    Raises
    ------
    OptionTypeError
        If it is neither.
    """
    if isinstance(item, Mapping):
        record = dict(item)
    elif hasattr(item, "to_dict") and hasattr(item, "assets"):
        record = item.to_dict(include_self_link=False, transform_hrefs=False)
        for key, asset in item.assets.items():
            record["assets"][key] = {**record["assets"][key], "href": asset.get_absolute_href() or asset.href}
    else:
        record = {}
    if "id" not in record or "assets" not in record:
        raise OptionTypeError(
            f"an item is a {type(item).__name__}",
            "STAC items: pystac.Item, or their GeoJSON",
            "xr_cloudfree.load(search.items(), bbox=(-8.5, 40.1, -8.4, 40.2))",
        )
    return record


def _parse_scene(record: Mapping[str, Any], offset: float | Mapping[str, float] | None) -> Scene:
    properties = record.get("properties") or {}
    collection = str(record.get("collection") or "")
    words = " ".join(str(properties.get(key, "")) for key in _WORDS)
    keys = [str(key) for key in record["assets"]]
    plain = [_SIZE.sub("", key) for key in keys]
    sensor = sensor_of(plain, plain, f"{collection} {words}")
    product = None if sensor is None else product_of(sensor.name)
    if sensor is None or product is None:
        raise OptionError(
            f"the item {record['id']} of {collection or 'no collection'} is of an unknown product",
            "items of " + ", ".join(known.sensor.title for known in PRODUCTS[:1]) + ", Landsat Collection 2 or HLS",
            "odc.stac.load(items, ...), whose cubes fill takes as well",
        )
    assets: dict[str, Mapping[str, Any]] = {}
    # Where a catalogue has several sizes of a band, the finest.
    for key, name in sorted(
        zip(keys, common_names_of(plain, sensor), strict=True), key=lambda pair: float(_size_of(pair[0]))
    ):
        layer = _SIZE.sub("", key).lower()
        if name is None and layer in sensor.layers and scheme_of_layer(layer) is not None:
            name = layer
        if name is not None:
            assets.setdefault(name, record["assets"][key])
    baseline = _baseline(record["id"], properties) if product.family == "sentinel-2" else ""
    applied = next((properties[key] for key in _APPLIED if key in properties), None)
    scene = Scene(
        id=str(record["id"]),
        when=_time_of(record["id"], properties),
        product=product,
        sensor=sensor,
        platform=str(properties.get("platform") or "").lower(),
        baseline=baseline,
        cloud_cover=_number(properties.get("eo:cloud_cover")),
        collection=collection,
        crs=_crs(properties, assets.values()),
        assets=assets,
        geometry=record.get("geometry"),
    )
    given = offset.get(scene.id) if isinstance(offset, Mapping) else offset
    return _with_shift(scene, given, applied)


def _size_of(key: str) -> str:
    match = _SIZE.search(key)
    return match[1] if match else "0"


def _time_of(name: Any, properties: Mapping[str, Any]) -> np.datetime64:
    """Return the time of an item, or the beginning of its span, in UTC."""
    text: Any = properties.get("datetime") or properties.get("start_datetime")
    try:
        stamp = pd.Timestamp(text)
    except (TypeError, ValueError) as error:
        raise TimeError(
            f"the datetime of the item {name} is {text!r}", "a time as in ISO 8601", "item.datetime = datetime(...)"
        ) from error
    if pd.isna(stamp):
        raise TimeError(f"the item {name} has no datetime", "a time", "item.datetime = datetime(...)")
    utc = stamp if stamp.tzinfo is None else stamp.tz_convert("UTC").tz_localize(None)
    when: np.datetime64 = utc.as_unit("ns").to_datetime64()
    return when


def _number(value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        return float("nan")


def _baseline(name: Any, properties: Mapping[str, Any]) -> str:
    """Return the processing baseline of Sentinel-2 as ``"05.10"``; empty if metadata and names do not tell it.

    It is text in metadata, but a number in some copies of them: 5.1 is 05.10.
    """
    for key in _BASELINES:
        text = str(properties.get(key) or "").strip().upper().removeprefix("N")
        if text.isdecimal() and len(text) == 4:
            return f"{text[:2]}.{text[2:]}"
        number = _number(text)
        if 0 < number < 100:
            return f"{number:05.2f}"
    for text in (*(str(properties.get(key) or "") for key in _PRODUCTS), str(name)):
        if match := re.search(r"_N(\d{2})(\d{2})_", text):
            return f"{match[1]}.{match[2]}"
    return ""


def _crs(properties: Mapping[str, Any], assets: Iterable[Mapping[str, Any]]) -> str | None:
    """Return the CRS of an item, or of its assets, as ``"EPSG:32629"``."""
    for source in (properties, *assets):
        for key in _CODES:
            value = source.get(key)
            if value is not None:
                return str(value) if ":" in str(value) else f"EPSG:{value}"
    return None


def _with_shift(scene: Scene, given: float | None, applied: Any) -> Scene:
    """Return the scene with the difference of its encoding and that of its product, in stored units."""
    encoding = scene.product.encoding
    scale, offset = _band_encoding(scene)
    if scale is not None and not np.isclose(scale, encoding.scale, rtol=1e-3):
        raise ScalingError(
            f"the values of the item {scene.id} have scale {scale:g}, those of {encoding.product} {encoding.scale:g}",
            "items of one scale",
            "leave this item out",
        )
    if given is not None:
        offset = float(given)
    elif scene.product.family == "sentinel-2":
        offset = _sentinel_offset(scene, offset, applied)
    elif offset is None:
        offset = encoding.offset
    steps = (offset - encoding.offset) / encoding.scale
    shift = round(steps)
    if abs(steps - shift) > 0.01 or shift < 0:
        raise ScalingError(
            f"the values of the item {scene.id} have the offset {offset:g}, those of {encoding.product} "
            f"{encoding.offset:g}",
            "an offset that is larger by whole steps, so that no value is lost",
            option(f"offset={{{scene.id!r}: {encoding.offset:g}}}"),
        )
    doubtful = given is None and applied is not None and _number(scene.baseline or "nan") >= _OFFSET_SINCE
    return replace(scene, shift=shift, doubtful=doubtful)


def _sentinel_offset(scene: Scene, described: float | None, applied: Any) -> float:
    """Return the offset of an item of Sentinel-2: by its own band metadata, else by its baseline.

    Where an archive says whether it has subtracted the offset from the values, its band metadata hold the offset in
    either case; then what it says counts.
    """
    encoding = scene.product.encoding
    baseline = _number(scene.baseline or "nan")
    if str(applied).lower() == "true":
        return 0.0
    if applied is None and described is not None:
        return described
    if np.isnan(baseline):
        raise ScalingError(
            f"neither the bands nor the processing baseline of the item {scene.id} tell the offset of its values",
            "the offset: -0.1 from processing baseline 04.00 on, else 0",
            option(f"offset={encoding.offset:g}") + " or " + option("offset=0"),
        )
    return encoding.offset if baseline >= _OFFSET_SINCE else 0.0


def _band_encoding(scene: Scene) -> tuple[float | None, float | None]:
    """Return scale and offset of the bands as the item's metadata tell them; None for what they do not tell."""
    found: dict[tuple[float, float], str] = {}
    for name, asset in scene.assets.items():
        if name == scene.product.mask:
            continue
        bands = asset.get("raster:bands") or asset.get("bands") or [{}]
        entry = {**asset, **(bands[0] if isinstance(bands, list) and isinstance(bands[0], Mapping) else {})}
        scale = _number(entry.get("raster:scale", entry.get("scale")))
        offset = _number(entry.get("raster:offset", entry.get("offset")))
        if np.isnan(scale) or (scale == 1 and not offset):  # as GDAL writes them for a file without
            continue
        found.setdefault((scale, 0.0 if np.isnan(offset) else offset), name)
    if len(found) > 1:
        (first, second) = list(found.items())[:2]
        raise ScalingError(
            f"the bands of the item {scene.id} have several encodings: {first[1]} scale {first[0][0]:g}, offset "
            f"{first[0][1]:g}; {second[1]} scale {second[0][0]:g}, offset {second[0][1]:g}",
            "one scale and offset for all bands",
            option(f"bands=[{first[1]!r}]"),
        )
    return next(iter(found), (None, None))


def check_bands(scenes: Sequence[Scene], bands: Sequence[str] | None, mask: bool) -> dict[str, str]:
    """Return the bands to load with their common names, and the quality layer, in order.

    Parameters
    ----------
    scenes : sequence of Scene
        The scenes, of one product.
    bands : sequence of str, optional
        Names of bands: common names or those of the sensor. By default all bands of the ground that every item has.
    mask : bool
        Whether to load the quality layer.

    Returns
    -------
    dict of str to str
        Names of the cube's variables, and the name of the asset of each in `Scene.assets`.

    Raises
    ------
    BandError
        If items lack a band, or have none in common.
    MaskError
        If items lack the quality layer.
    """
    product = scenes[0].product
    common = [name for name in product.bands if all(name in scene.assets for scene in scenes)]
    if not common:
        few = [f"{scene.id} has {', '.join(scene.assets) or 'none'}" for scene in scenes[:2]]
        raise BandError(
            "the items have no band in common: " + "; ".join(few), "bands that all items have", "items of one sensor"
        )
    names = bands if bands is not None else [name for name in common if name not in product.on_request] or common
    wanted: dict[str, str] = {}
    for name in names:
        # One number may mean different bands on different sensors of a product.
        own = {scene.sensor.title: name if name in product.bands else _common(name, scene.sensor) for scene in scenes}
        lacking = [scene.id for scene in scenes if own[scene.sensor.title] not in scene.assets]
        if lacking or len(set(own.values())) > 1:
            found = f"no item has the band {name!r}"
            if not lacking:
                found = f"{name!r} is " + ", ".join(f"{band} of {title}" for title, band in own.items())
            elif len(lacking) < len(scenes):
                found = f"{len(lacking)} of {len(scenes)} items lack the band {name!r}: {', '.join(lacking[:3])}"
            raise BandError(found, f"bands that all items have: {', '.join(common)}", option(f"bands={common!r}"))
        wanted[name] = str(next(iter(own.values())))
    lacking = [scene.id for scene in scenes if mask and product.mask not in scene.assets]
    if lacking:
        raise MaskError(
            f"{len(lacking)} of {len(scenes)} items lack the quality layer {product.mask!r}: {', '.join(lacking[:3])}",
            f"items with a quality layer, as those of {product.example} have it",
            option("mask=False") + ", to make the masks from the series when the cube is filled",
        )
    return wanted | ({product.mask: product.mask} if mask else {})


def _common(name: str, sensor: Sensor) -> str | None:
    return common_names_of([name], sensor)[0]
