"""Sensors and products: one row each, with their names of bands, their quality layers and their usual scaling."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

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
"""STAC common names, each with the usual names of the band; numbers are those of Sentinel-2."""


@dataclass(frozen=True)
class Sensor:
    """A sensor or product.

    Parameters
    ----------
    name : str
        Family, as `Cube.sensor` has it: rows of one family are scaled alike.
    title : str
        Name for people.
    bands : mapping
        From the producer's names of bands, in the form that `_plain` gives them, to STAC common names. None marks a
        band that has no common name.
    platforms : tuple of str
        What metadata call it, in lower case: beginnings of words.
    layers : tuple of str
        Names of its quality layers, in lower case.
    usual : str
        Options of `fill` for its digital numbers, as they are typed.
    source : str
        Where the producer describes all this.
    """

    name: str
    title: str
    bands: Mapping[str, str | None] = field(default_factory=dict)
    platforms: tuple[str, ...] = ()
    layers: tuple[str, ...] = ()
    usual: str = ""
    source: str = ""


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

SENSORS = (
    Sensor(
        "sentinel-2",
        "Sentinel-2 L2A",
        _MSI,
        ("sentinel-2", "sentinel2", "sentinel 2", "s2a", "s2b", "s2c", "msi"),
        ("scl", "msk_cldprb", "msk_classi"),
        "scale=1e-4, offset=-0.1, nodata=0",
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
        ("qa_pixel", "pixel_qa", "cfmask"),
        "scale=2.75e-5, offset=-0.2, nodata=0",
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
        ("qa_pixel", "pixel_qa", "cfmask"),
        "scale=2.75e-5, offset=-0.2, nodata=0",
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
        ("fmask",),
        "scale=1e-4, nodata=-9999",
        "https://lpdaac.usgs.gov/products/hlsl30v002/",
    ),
    Sensor(
        "hls",
        "HLS S30 (Sentinel-2)",
        _MSI,
        ("hls.s30", "hlss30", "hls s30", "hls2-s30", "s30"),
        ("fmask",),
        "scale=1e-4, nodata=-9999",
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
        ("state_1km", "stateqa", "sur_refl_state_500m"),
        "scale=1e-4, nodata=-28672",
        "https://lpdaac.usgs.gov/products/mod09a1v061/",
    ),
)
"""What is known by name. Where rows share names of bands, quality layers and metadata decide between them."""

_S2, _OLI, _TM, _L30, _S30, _MODIS = SENSORS
_COMMON = {name.lower(): common for common, names in BAND_NAMES.items() for name in names}
_NUMBERED = re.compile(r"(?:SR_)?B0*(\d{1,2})(A?)(?:_\d+M)?")
_PADDED = re.compile(r"B(0\d|0?8A|1[0-2])(_\d+M)?")  # as only Sentinel-2 and HLS write them
_MODIS_NAMES = re.compile(r"(?:SUR_REFL_B|NADIR_REFLECTANCE_BAND)0*(\d)(?:_\d)?")
# Prefixes of producers who name bands by colour: Geoscience Australia, Digital Earth Africa, Sentinel Hub, BOA files.
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
"""Vegetation and water indices by name, in lower case, with the limits between which their values lie."""


def index_limits(name: str) -> tuple[float, float] | None:
    """Return the limits of an index, None if the name is none of an index.

    Examples
    --------
    >>> index_limits("NDVI"), index_limits("s2_ndvi"), index_limits("red")
    ((-1.0, 1.0), (-1.0, 1.0), None)
    """
    words = re.split(r"[^a-z0-9]+", name.lower())
    return next((INDICES[word] for word in words if word in INDICES), None)


def _plain(band: str) -> str:
    """The name of a numbered band without zeros, prefix and resolution; other names as they are, in capitals."""
    upper = band.upper()
    if found := _NUMBERED.fullmatch(upper):
        return f"B{int(found[1])}{found[2]}"
    if found := _MODIS_NAMES.fullmatch(upper):
        return f"SUR_REFL_B{found[1]}"
    return upper


def is_band(name: str) -> bool:
    """Return whether a variable of this name is a spectral band, whichever sensor's.

    Examples
    --------
    >>> [is_band(name) for name in ("B05", "SR_B6", "nbart_red", "sur_refl_b01", "SCL", "ndvi")]
    [True, True, True, True, False, False]
    """
    plain = _plain(name)
    return plain in _KNOWN or _PREFIX.sub("", name.lower()) in _COMMON


_KNOWN = {band for sensor in SENSORS for band in sensor.bands}


def sensor_of(bands: Sequence[str], layers: Sequence[str] = (), metadata: str = "") -> Sensor | None:
    """Return the sensor that names and metadata tell, None where they leave it open.

    Parameters
    ----------
    bands : sequence of str
        Names of bands, or of all variables.
    layers : sequence of str
        Names of all variables, quality layers among them.
    metadata : str
        What attributes and coordinates say of platform, instrument or collection, in any case.

    Examples
    --------
    >>> sensor_of(["B02", "B8A"]).title, sensor_of(["B04", "B05", "B06"], ["Fmask"]).title
    ('Sentinel-2 L2A', 'HLS L30 (Landsat 8 and 9)')
    """
    plain = {_plain(band) for band in bands}
    names = {name.lower() for name in (*layers, *bands)}
    words = f" {metadata.lower()} "
    told = [s for s in SENSORS if any(_says(words, platform) for platform in s.platforms)]
    if plain & set(_MODIS.bands):
        return _MODIS
    if "fmask" in names or any(s.name == "hls" for s in told):
        return _hls(plain, told)
    by_name = any(band.upper().startswith("SR_B") for band in bands)
    landsat = by_name or bool(names & set(_OLI.layers))
    if {s.name for s in told} == {"landsat"} or (landsat and not any(s.name == "sentinel-2" for s in told)):
        return _landsat(plain, told)
    two = plain & {"B2", "B3", "B4", "B8"} or any(_PADDED.fullmatch(band.upper()) for band in bands)
    return _S2 if two or names & set(_S2.layers) or _S2 in told else None


def _says(words: str, platform: str) -> bool:
    """Whether a text holds a platform's name; of short ones, as a word of its own."""
    end = "(?![a-z])" if len(platform) <= 5 else ""
    return re.search(rf"[^a-z0-9]{re.escape(platform)}{end}", words) is not None


def _hls(plain: set[str], told: Sequence[Sensor]) -> Sensor:
    if plain & {"B8", "B8A", "B12"} or _S30 in told:
        return _S30
    if _L30 in told or {s.name for s in told} == {"landsat"} or plain & {"B5", "B6", "B7", "B10", "B11"}:
        return _L30
    return _S30  # what both have is called alike


_ANY_LANDSAT = Sensor(
    "landsat",
    "Landsat",
    # Whatever the sensor, no two rows agree on these; each stays without a common name.
    dict.fromkeys(("B1", "B2", "B3", "B4", "B5", "B6")) | {"B7": "swir22"},
    usual=_OLI.usual,
)


def _landsat(plain: set[str], told: Sequence[Sensor]) -> Sensor:
    """OLI and TM number their bands differently; which one it is shows in metadata, else in the other bands."""
    one = [sensor for sensor in told if sensor in (_OLI, _TM)]
    if len(one) == 1:
        return one[0]
    if plain & {"B6", "B9", "B10", "B11"}:  # a B6 of TM is thermal, and no surface reflectance
        return _OLI
    return _TM if "B1" in plain else _ANY_LANDSAT


def common_names_of(bands: Sequence[str], sensor: Sensor | None = None) -> tuple[str | None, ...]:
    """Return the STAC common name of each band, None where it is not known.

    Parameters
    ----------
    bands : sequence of str
        All bands of a cube: what a number means may show in the others.
    sensor : Sensor, optional
        The sensor; by default what the bands' own names tell.

    Examples
    --------
    >>> common_names_of(["B02", "B8A", "ndvi"])
    ('blue', 'nir08', None)
    >>> common_names_of(["SR_B4", "SR_B5", "SR_B6"])
    ('red', 'nir', 'swir16')
    """
    own = sensor or sensor_of(bands)
    lower = [_PREFIX.sub("", band.lower()) for band in bands]
    shifted = "swir_3" in lower  # Geoscience Australia's Sentinel-2 counts its SWIR bands from 1375 nm on
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
