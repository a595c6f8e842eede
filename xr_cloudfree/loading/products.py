"""Products of archives that can be loaded: their bands, quality layer, data types and pixel grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from xr_cloudfree.cube.sensors import Encoding, Sensor, find_sensor


@dataclass(frozen=True)
class Product:
    """What all items of a product have in common.

    Parameters
    ----------
    family : str
        Name of the sensor's family, see `xr_cloudfree.cube.sensors.Sensor`.
    dtype : str
        Data type of stored reflectance.
    bands : mapping of str to float
        STAC common names of the bands, with the size of their pixels in metres.
    mask : str
        Name of the quality layer.
    mask_dtype : str
        Its data type.
    mask_nodata : int
        Value of the quality layer where nothing was measured.
    anchor : float
        Position of pixel edges on their grid, in pixels: 0 where edges are multiples of the pixel size, 0.5 where
        centres are.
    example : str
        A collection of the product, for messages.
    source : str
        Address of the description of the grid and of the quality layer.
    """

    family: str
    dtype: str
    bands: Mapping[str, float]
    mask: str
    mask_dtype: str
    mask_nodata: int
    anchor: float
    example: str
    source: str
    # Bands that are not loaded unless they are named: those of the atmosphere.
    on_request: tuple[str, ...] = field(default=("coastal", "nir09", "cirrus"))

    @property
    def sensor(self) -> Sensor:
        """The first sensor of the family."""
        return find_sensor(self.family)

    @property
    def encoding(self) -> Encoding:
        """The encoding in which all items are loaded, whatever their own."""
        return self.sensor.encodings[0]

    def anchor_of(self, resolution: float) -> float:
        """Return the position of pixel edges on a grid of this resolution: the product's own on its own grid."""
        return self.anchor if resolution in self.bands.values() else 0.0


_VISIBLE = ("blue", "green", "red")
_EDGES = ("rededge071", "rededge075", "rededge078")

PRODUCTS = (
    Product(
        "sentinel-2",
        "uint16",
        {
            **dict.fromkeys((*_VISIBLE, "nir"), 10.0),
            **dict.fromkeys((*_EDGES, "nir08", "swir16", "swir22"), 20.0),
            **dict.fromkeys(("coastal", "nir09"), 60.0),
        },
        mask="scl",
        mask_dtype="uint8",
        mask_nodata=0,
        anchor=0.0,
        example="sentinel-2-l2a",
        source="https://sentiwiki.copernicus.eu/web/s2-products",
    ),
    Product(
        "landsat",
        "uint16",
        dict.fromkeys(("coastal", *_VISIBLE, "nir08", "swir16", "swir22"), 30.0),
        mask="qa_pixel",
        mask_dtype="uint16",
        mask_nodata=1,
        anchor=0.5,
        example="landsat-c2-l2",
        source="https://www.usgs.gov/landsat-missions/landsat-collection-2-level-2-science-products",
    ),
    Product(
        "hls",
        "int16",
        dict.fromkeys(("coastal", *_VISIBLE, *_EDGES, "nir", "nir08", "swir16", "swir22", "nir09", "cirrus"), 30.0),
        mask="fmask",
        mask_dtype="uint8",
        mask_nodata=255,
        anchor=0.0,
        example="hls2-s30",
        source="https://lpdaac.usgs.gov/products/hlss30v002/",
    ),
)
"""The products that `xr_cloudfree.load` knows, one for each family of sensors."""


def product_of(family: str) -> Product | None:
    """Return the product of a family of sensors, None if it cannot be loaded.

    Examples
    --------
    >>> product_of("landsat").encoding.options()
    ('scale=2.75e-5', 'offset=-0.2', 'nodata=0')
    """
    return next((product for product in PRODUCTS if product.family == family), None)
