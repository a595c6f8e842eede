"""Sensors and products, one row each: band names, quality layers, metadata keywords, usual scaling and pixel size."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

BAND_NAMES: Mapping[str, tuple[str, ...]] = {
    "coastal": ("coastal", "B01", "coastal_aerosol", "coastal_blue"),
    "blue": ("blue", "B02"),
    "green": ("green", "B03"),
    "red": ("red", "B04"),
    "rededge071": ("rededge071", "rededge1", "B05", "rededge_1", "red_edge_1", "rededge"),
    "rededge075": ("rededge075", "rededge2", "B06", "rededge_2", "red_edge_2"),
    "rededge078": ("rededge078", "rededge3", "B07", "rededge_3", "red_edge_3"),
    "nir": ("nir", "B08", "nir_1"),
    "nir08": ("nir08", "B8A", "B08A", "nir_narrow", "nir_2"),
    "nir09": ("nir09", "B09", "water_vapour"),
    "cirrus": ("cirrus", "B10"),
    "swir16": ("swir16", "swir1", "B11", "swir_1", "swir_16"),
    "swir22": ("swir22", "swir2", "B12", "swir_2", "SR_B7", "swir_22"),
}
"""STAC common names with the usual names of each band; numbered names are those of Sentinel-2."""


@dataclass(frozen=True)
class Encoding:
    """How a product stores reflectance: ``reflectance = stored * scale + offset``.

    Parameters
    ----------
    product : str
        Name of the product in messages, with its version where versions differ.
    scale : float
        Reflectance per stored unit.
    offset : float
        Reflectance of a stored zero.
    nodata : int
        Stored value of pixels without a measurement.
    """

    product: str
    scale: float
    offset: float = 0.0
    nodata: int = 0

    def options(self, nodata: bool = True) -> tuple[str, ...]:
        """Return the options of `fill` for this encoding, as typed.

        Parameters
        ----------
        nodata : bool
            Whether to include ``nodata=``.

        Examples
        --------
        >>> Encoding("Landsat Collection 2", 2.75e-5, -0.2).options()
        ('scale=2.75e-5', 'offset=-0.2', 'nodata=0')
        """
        scale = np.format_float_scientific(self.scale, trim="-", exp_digits=1)
        return f"scale={scale}", f"offset={self.offset:g}", *((f"nodata={self.nodata}",) if nodata else ())


@dataclass(frozen=True)
class Sensor:
    """A sensor or product.

    Parameters
    ----------
    name : str
        Family, as in `Cube.sensor`. Rows of one family have the same encodings.
    title : str
        Display name.
    bands : mapping of str to (str or None)
        Producer's band names, in the form that `_plain` returns, to STAC common names. None marks a band without a
        common name.
    platforms : tuple of str
        Beginnings of words, in lower case, by which metadata name the sensor.
    layers : mapping of str to (str or None)
        Names of its quality layers, in lower case, to the scheme in `schemes.SCHEMES` that their values follow. None
        for a layer that is not read as a mask.
    encodings : tuple of Encoding
        Usual encodings, the current one first.
    pixel : float
        Size of a pixel of the finest bands, in metres.
    source : str
        Address of the producer's description.
    """

    name: str
    title: str
    bands: Mapping[str, str | None] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()
    layers: Mapping[str, str | None] = field(default_factory=dict)
    encodings: tuple[Encoding, ...] = ()
    pixel: float = 10.0
    source: str = ""

    @property
    def usual(self) -> str:
        """The current encoding as options of `fill`, empty if there is none."""
        return ", ".join(self.encodings[0].options()) if self.encodings else ""


_MSI: Mapping[str, str | None] = {
    "B1": "coastal",
    "B2": "blue",
    "B3": "green",
    "B4": "red",
    "B5": "rededge071",
    "B6": "rededge075",
    "B7": "rededge078",
    "B8": "nir",
    "B8A": "nir08",
    "B9": "nir09",
    "B10": "cirrus",
    "B11": "swir16",
    "B12": "swir22",
}
_COLLECTION_2 = (Encoding("Landsat Collection 2", 2.75e-5, -0.2),)
_LANDSAT_LAYERS = {"qa_pixel": "qa_pixel", "pixel_qa": "pixel_qa", "cfmask": "cfmask"}
_HLS = (Encoding("HLS", 1e-4, nodata=-9999),)

SENSORS = (
    Sensor(
        "sentinel-2",
        "Sentinel-2 L2A",
        _MSI,
        ("sentinel-2", "sentinel2", "sentinel 2", "s2a", "s2b", "s2c", "msi"),
        {"scl": "scl", "msk_cldprb": "probability", "msk_classi": None},
        (
            Encoding("Sentinel-2 from processing baseline 04.00 on", 1e-4, -0.1),
            Encoding("Sentinel-2 before processing baseline 04.00", 1e-4),
        ),
        10.0,
        "https://sentiwiki.copernicus.eu/web/s2-products",
    ),
    Sensor(
        "landsat",
        "Landsat 8 and 9 (OLI), Collection 2 Level 2",
        {
            "B1": "coastal",
            "B2": "blue",
            "B3": "green",
            "B4": "red",
            "B5": "nir",
            "B6": "swir16",
            "B7": "swir22",
            "B8": None,
            "B9": "cirrus",
            "B10": None,
            "B11": None,
        },
        ("landsat-8", "landsat-9", "landsat8", "landsat9", "landsat_8", "landsat_9", "lc08", "lc09", "oli"),
        _LANDSAT_LAYERS,
        _COLLECTION_2,
        30.0,
        "https://www.usgs.gov/landsat-missions/landsat-collection-2-level-2-science-products",
    ),
    Sensor(
        "landsat",
        "Landsat 4, 5 and 7 (TM, ETM+), Collection 2 Level 2",
        {"B1": "blue", "B2": "green", "B3": "red", "B4": "nir", "B5": "swir16", "B6": None, "B7": "swir22", "B8": None},
        (
            *(f"landsat{mark}{number}" for number in (4, 5, 7) for mark in ("-", "_", "")),
            *("lt04", "lt05", "le07", "tm", "etm"),
        ),
        _LANDSAT_LAYERS,
        _COLLECTION_2,
        30.0,
        "https://www.usgs.gov/landsat-missions/landsat-collection-2-level-2-science-products",
    ),
    Sensor(
        "hls",
        "HLS L30 (Landsat 8 and 9)",
        {
            "B1": "coastal",
            "B2": "blue",
            "B3": "green",
            "B4": "red",
            "B5": "nir08",
            "B6": "swir16",
            "B7": "swir22",
            "B9": "cirrus",
            "B10": None,
            "B11": None,
        },
        ("hls.l30", "hlsl30", "hls l30", "hls2-l30", "l30"),
        {"fmask": "fmask"},
        _HLS,
        30.0,
        "https://lpdaac.usgs.gov/products/hlsl30v002/",
    ),
    Sensor(
        "hls",
        "HLS S30 (Sentinel-2)",
        _MSI,
        ("hls.s30", "hlss30", "hls s30", "hls2-s30", "s30"),
        {"fmask": "fmask"},
        _HLS,
        30.0,
        "https://lpdaac.usgs.gov/products/hlss30v002/",
    ),
    Sensor(
        "modis",
        "MODIS surface reflectance (MOD09, MCD43)",
        {
            "SUR_REFL_B1": "red",
            "SUR_REFL_B2": "nir",
            "SUR_REFL_B3": "blue",
            "SUR_REFL_B4": "green",
            "SUR_REFL_B5": None,
            "SUR_REFL_B6": "swir16",
            "SUR_REFL_B7": "swir22",
        },
        ("modis", "mod09", "myd09", "mcd43", "terra", "aqua"),
        {"state_1km": "modis_state", "stateqa": "modis_state", "sur_refl_state_500m": "modis_state"},
        (Encoding("MODIS", 1e-4, nodata=-28672),),
        500.0,
        "https://lpdaac.usgs.gov/products/mod09a1v061/",
    ),
)
"""The known sensors. A cube's band names, quality layers and metadata decide between rows; see `sensor_of`."""

_S2, _OLI, _TM, _L30, _S30 = SENSORS[:5]
# Families that number their bands alike, so that a band's name alone does not tell which one it is.
_NUMBERED_ALIKE = ("sentinel-2", "landsat", "hls")
_COMMON = {name.lower(): common for common, names in BAND_NAMES.items() for name in names}
_NUMBERED = re.compile(r"(?:SR_)?B0*(\d{1,2})(A?)(?:_\d+M)?")
_PADDED = re.compile(r"B(0\d|0?8A|1[0-2])(_\d+M)?")  # written so by Sentinel-2 and HLS only
_MODIS_NAMES = re.compile(r"(?:SUR_REFL_B|NADIR_REFLECTANCE_BAND)0*(\d)(?:_\d)?")
# Prefixes of producers that name bands by colour: Geoscience Australia, Digital Earth Africa, Sentinel Hub, BOA files.
_PREFIX = re.compile(r"^(nbart|nbar|sr|boa|toa|reflectance|refl)_(?!b\d)")

INDICES: Mapping[str, tuple[float, float]] = {
    **dict.fromkeys(
        (
            "ndvi gndvi ndre ndre1 ndre2 ndvi705 ndwi mndwi ndmi ndsi nbr nbr2 ndbi ndti ndpi lswi ndyi bsi wdrvi"
        ).split(),
        (-1.0, 1.0),
    ),
    **dict.fromkeys("savi osavi msavi msavi2 evi evi2".split(), (-1.5, 1.5)),
    **dict.fromkeys("lai".split(), (0.0, 12.0)),
    **dict.fromkeys("fapar fcover fvc fpar".split(), (0.0, 1.0)),
}
"""Vegetation and water indices by name, in lower case, with the limits of their values."""


def index_limits(name: str) -> tuple[float, float] | None:
    """Return the limits of an index, None if the name is not that of an index.

    Examples
    --------
    >>> index_limits("NDVI"), index_limits("s2_ndvi"), index_limits("red")
    ((-1.0, 1.0), (-1.0, 1.0), None)
    """
    words = re.split(r"[^a-z0-9]+", name.lower())
    return next((INDICES[word] for word in words if word in INDICES), None)


def layer_schemes() -> dict[str, str]:
    """Return the names of the sensors' quality layers, in lower case, with the name of the scheme that each follows."""
    return {layer: scheme for sensor in SENSORS for layer, scheme in sensor.layers.items() if scheme is not None}


def find_sensor(family: str) -> Sensor:
    """Return the first sensor of a family.

    Raises
    ------
    LookupError
        If there is none.

    Examples
    --------
    >>> find_sensor("landsat").usual
    'scale=2.75e-5, offset=-0.2, nodata=0'
    """
    sensor = next((sensor for sensor in SENSORS if sensor.name == family), None)
    if sensor is None:
        raise LookupError(f"there is no sensor {family!r}")
    return sensor


def product_scalings() -> tuple[tuple[float, float], ...]:
    """Return the distinct pairs of scale and offset of all sensors."""
    return tuple(dict.fromkeys((e.scale, e.offset) for sensor in SENSORS for e in sensor.encodings))


def _plain(band: str) -> str:
    """Return a numbered band's name without zeros, prefix and resolution; any other name in capitals."""
    upper = band.upper()
    if match := _NUMBERED.fullmatch(upper):
        return f"B{int(match[1])}{match[2]}"
    if match := _MODIS_NAMES.fullmatch(upper):
        return f"SUR_REFL_B{match[1]}"
    return upper


def is_band(name: str) -> bool:
    """Return whether a variable of this name is a spectral band of any known sensor.

    Examples
    --------
    >>> [is_band(name) for name in ("B05", "SR_B6", "nbart_red", "sur_refl_b01", "SCL", "ndvi")]
    [True, True, True, True, False, False]
    """
    plain = _plain(name)
    return any(plain in sensor.bands for sensor in SENSORS) or _PREFIX.sub("", name.lower()) in _COMMON


def sensor_of(bands: Sequence[str], layers: Sequence[str] = (), metadata: str = "") -> Sensor | None:
    """Return the sensor identified by names and metadata, None if they leave it open.

    Parameters
    ----------
    bands : sequence of str
        Names of bands, or of all variables.
    layers : sequence of str
        Names of all variables, including quality layers.
    metadata : str
        Platform, instrument or collection as named by attributes and coordinates, in any case.

    Examples
    --------
    >>> sensor_of(["B02", "B8A"]).title, sensor_of(["B04", "B05", "B06"], ["Fmask"]).title
    ('Sentinel-2 L2A', 'HLS L30 (Landsat 8 and 9)')
    """
    plain = {_plain(band) for band in bands}
    names = {name.lower() for name in (*layers, *bands)}
    words = f" {metadata.lower()} "
    mentioned = [s for s in SENSORS if any(_mentions(words, platform) for platform in s.platforms)]
    if (sensor := _by_own_names(plain, names, mentioned)) is not None:
        return sensor
    if "fmask" in names or any(s.name == "hls" for s in mentioned):
        return _hls(plain, mentioned)
    landsat = any(band.upper().startswith("SR_B") for band in bands) or bool(names & set(_OLI.layers))
    if {s.name for s in mentioned} == {"landsat"} or (landsat and not any(s.name == "sentinel-2" for s in mentioned)):
        return _landsat(plain, mentioned)
    sentinel = plain & {"B2", "B3", "B4", "B8"} or any(_PADDED.fullmatch(band.upper()) for band in bands)
    return _S2 if sentinel or names & set(_S2.layers) or _S2 in mentioned else None


def _mentions(words: str, platform: str) -> bool:
    """Return whether a text contains a platform's name; a short name has to be a whole word."""
    end = "(?![a-z])" if len(platform) <= 5 else ""
    return re.search(rf"[^a-z0-9]{re.escape(platform)}{end}", words) is not None


def _by_own_names(plain: set[str], names: set[str], mentioned: Sequence[Sensor]) -> Sensor | None:
    """Return the sensor with one of these bands, if its bands, its quality layers or the metadata are unambiguous."""
    for sensor in SENSORS:
        if sensor.name in _NUMBERED_ALIKE or not plain & set(sensor.bands):
            continue
        others = [other for other in SENSORS if other is not sensor]
        own_bands = set(sensor.bands).difference(*(other.bands for other in others))
        own_layers = set(sensor.layers).difference(*(other.layers for other in others))
        if plain & own_bands or names & own_layers or sensor in mentioned:
            return sensor
    return None


def _hls(plain: set[str], mentioned: Sequence[Sensor]) -> Sensor:
    if plain & {"B8", "B8A", "B12"} or _S30 in mentioned:
        return _S30
    landsat = {s.name for s in mentioned} == {"landsat"}
    if _L30 in mentioned or landsat or plain & {"B5", "B6", "B7", "B10", "B11"}:
        return _L30
    return _S30  # the remaining bands have the same names in both


_ANY_LANDSAT = Sensor(
    "landsat",
    "Landsat",
    # OLI and TM disagree on these, so they have no common name.
    dict.fromkeys(("B1", "B2", "B3", "B4", "B5", "B6")) | {"B7": "swir22"},
    encodings=_COLLECTION_2,
)


def _landsat(plain: set[str], mentioned: Sequence[Sensor]) -> Sensor:
    """Return OLI or TM, which number their bands differently: by the metadata, else by the other bands."""
    candidates = [sensor for sensor in mentioned if sensor in (_OLI, _TM)]
    if len(candidates) == 1:
        return candidates[0]
    if plain & {"B6", "B9", "B10", "B11"}:  # B6 of TM is thermal, not surface reflectance
        return _OLI
    return _TM if "B1" in plain else _ANY_LANDSAT


def common_names_of(bands: Sequence[str], sensor: Sensor | None = None) -> tuple[str | None, ...]:
    """Return the STAC common name of each band, None where it is not known.

    Parameters
    ----------
    bands : sequence of str
        All bands of a cube: together they identify the sensor.
    sensor : Sensor, optional
        The sensor; by default the one that the band names identify.

    Examples
    --------
    >>> common_names_of(["B02", "B8A", "ndvi"])
    ('blue', 'nir08', None)
    >>> common_names_of(["SR_B4", "SR_B5", "SR_B6"])
    ('red', 'nir', 'swir16')
    """
    own = sensor or sensor_of(bands)
    lower = [_PREFIX.sub("", band.lower()) for band in bands]
    shifted = "swir_3" in lower  # Geoscience Australia counts the SWIR bands of Sentinel-2 from 1375 nm on
    names: list[str | None] = []
    for band, low in zip(bands, lower, strict=True):
        plain = _plain(band)
        if own is not None and plain in own.bands:
            names.append(own.bands[plain])
        elif shifted and low in ("swir_2", "swir_3"):
            names.append({"swir_2": "swir16", "swir_3": "swir22"}[low])
        else:
            names.append(_COMMON.get(low) if not _NUMBERED.fullmatch(band.upper()) else None)
    return tuple(names)
