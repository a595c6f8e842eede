"""Small archives: cloud-optimized GeoTIFFs with known values, and items in the form of public catalogues.

The forms in `catalogues/` follow the documentation of Earth Search, the Planetary Computer, the Copernicus Data Space,
and LP DAAC. Only files that the tests write are behind them.
"""

import copy
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import rasterio
from rasterio.transform import from_origin
from rasterio.warp import transform, transform_bounds

FORMS = {
    path.stem: json.loads(path.read_text())
    for path in sorted((Path(__file__).resolve().parent / "catalogues").glob("*.json"))
}
SENTINEL = ("earth_search_v1", "earth_search_c1", "planetary_computer_s2", "cdse")
LANDSAT = ("landsat_tm", "landsat_etm", "landsat_oli")
HLS = ("hls_l30", "hls_s30")
# The corner of a tile of Sentinel-2 in UTM zone 29; 1920 m are whole pixels of 10, 20, 30 and 60 m.
LEFT, TOP, EDGE = 549_960, 4_450_020, 1920
UTM = "EPSG:32629"
EPOCH = np.datetime64("2021-06-01", "ns")

COMMON = {
    "B01": "coastal",
    "B02": "blue",
    "B03": "green",
    "B04": "red",
    "B05": "rededge071",
    "B06": "rededge075",
    "B07": "rededge078",
    "B08": "nir",
    "B8A": "nir08",
    "B09": "nir09",
    "B10": "cirrus",
    "B11": "swir16",
    "B12": "swir22",
    "rededge1": "rededge071",
}
L30 = COMMON | {"B05": "nir08", "B06": "swir16", "B07": "swir22", "B09": "cirrus", "B10": "lwir11", "B11": "lwir12"}
LEVELS = {
    "coastal": 0.03,
    "blue": 0.05,
    "green": 0.08,
    "red": 0.1,
    "rededge071": 0.13,
    "nir": 0.3,
    "nir08": 0.31,
    "swir16": 0.2,
    "swir22": 0.15,
}


@dataclass(frozen=True)
class Encoding:
    """How a product stores reflectance and its mask."""

    scale: float
    offset: float
    nodata: int
    dtype: str
    clear: int
    cloudy: int
    empty: int
    mask: str


S2_NEW = Encoding(1e-4, -0.1, 0, "uint16", 4, 9, 0, "scl")
S2_OLD = Encoding(1e-4, 0.0, 0, "uint16", 4, 9, 0, "scl")
C2 = Encoding(2.75e-5, -0.2, 0, "uint16", 21824, 22280, 1, "qa_pixel")
HLS2 = Encoding(1e-4, 0.0, -9999, "int16", 64, 194, 255, "fmask")
# As the forms describe their values: Earth Search has subtracted the offset, the Planetary Computer's is an old one.
STORED = {
    "earth_search_v1": S2_OLD,
    "earth_search_c1": S2_NEW,
    "planetary_computer_s2": S2_OLD,
    "cdse": S2_NEW,
    **dict.fromkeys(LANDSAT, C2),
    **dict.fromkeys(HLS, HLS2),
}


def an_item(form="earth_search_v1", name=None, drop=(), **properties):
    """An item in the form of a catalogue, with no files behind it; properties as for `make_item`."""
    item = copy.deepcopy(FORMS[form])
    item["id"] = name or item["id"]
    item["properties"] |= {"datetime": "2021-07-08T11:21:21Z"} | {
        key.replace("__", ":"): value for key, value in properties.items()
    }
    for key in drop:
        del item["properties"][key]
    for asset in item["assets"].values():
        asset["href"] = "somewhere.tif"
    return item


def common_name(form, key):
    """The common name of an asset as the catalogue's documentation has it; None for no band."""
    plain = key.split("_")[0] if form == "cdse" else key
    name = (L30 if form == "hls_l30" else COMMON).get(plain, plain)
    return name if name in LEVELS or name in ("nir09", "cirrus", "rededge075", "rededge078") else None


def reflectance(name, x, y, when, crs=UTM):
    """The reflectance of a band on the ground, shape of `x` and `y`, the same in any CRS."""
    if crs != UTM:
        xs, ys = transform(crs, UTM, np.ravel(x), np.ravel(y))
        x, y = np.reshape(xs, np.shape(x)), np.reshape(ys, np.shape(y))
    days = (np.datetime64(when, "ns") - EPOCH) / np.timedelta64(1, "D")
    pattern = 0.03 * np.sin((x - LEFT) / 180) + 0.02 * np.cos((y - TOP) / 240)
    return LEVELS.get(name, 0.12) + pattern + 2e-4 * days


def cloud(x, y, when):
    """Where the clouds of a day are: rectangles of whole pixels of 60 m."""
    shift = int(np.datetime64(when, "D").astype(int)) * 360 % EDGE
    return ((x - LEFT + shift) % EDGE < 480) & ((TOP - y) % EDGE < 1380)


def pixels(left, top, step, size=EDGE):
    """Coordinates of pixel centres."""
    n = int(size // step)
    return np.meshgrid(left + step * (np.arange(n) + 0.5), top - step * (np.arange(n) + 0.5))


def write_tiff(path, values, left, top, step, nodata, crs=UTM):
    """Write a cloud-optimized GeoTIFF."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with rasterio.open(
        path,
        "w",
        driver="COG",
        count=1,
        dtype=values.dtype,
        width=values.shape[1],
        height=values.shape[0],
        crs=crs,
        transform=from_origin(left, top, step, step),
        nodata=nodata,
        blocksize=128,
        compress="deflate",
    ) as file:
        file.write(values, 1)


def make_item(
    folder,
    form,
    when,
    *,
    name=None,
    stored=None,
    crs=UTM,
    left=LEFT,
    top=TOP,
    gap=None,
    clouds=True,
    assets=None,
    url=None,
    **properties,
):
    """Write the files of an item, and return the item as GeoJSON.

    Parameters
    ----------
    folder : path
        Where the files are written, in a folder of the item.
    form : str
        One of `FORMS`.
    when : str
        The item's time.
    name : str, optional
        Its identifier; by default that of the form with the day.
    stored : Encoding, optional
        How the values are stored in truth, whatever the item says.
    crs, left, top
        The tile.
    gap : tuple of slice, optional
        Pixels of 60 m without a measurement, on rows and columns.
    clouds : bool
        Whether there are clouds.
    assets : sequence of str, optional
        The assets that have files; by default those of bands and mask.
    url : str, optional
        Where the folder is served; by default links are paths.
    **properties
        Properties to change, with ``__`` for a colon; None removes one.
    """
    stored = stored or STORED[form]
    item = copy.deepcopy(FORMS[form])
    day = when[:10].replace("-", "")
    item["id"] = name or f"{item['id']}_{day}"
    item["properties"]["datetime"] = when if when.endswith("Z") else f"{when}Z"
    for key, value in properties.items():
        key = key.replace("__", ":")
        item["properties"][key] = value
        if value is None:
            del item["properties"][key]
    instant = np.datetime64(when.removesuffix("Z"), "ns")
    if form in LANDSAT:  # centres of pixels are multiples of 30 m
        left, top = left + 15, top - 15
    bounds = transform_bounds(crs, "EPSG:4326", left, top - EDGE, left + EDGE, top, densify_pts=21)
    west, south, east, north = bounds
    item["bbox"] = list(bounds)
    item["geometry"] = {
        "type": "Polygon",
        "coordinates": [[[west, south], [east, south], [east, north], [west, north], [west, south]]],
    }
    if "proj:epsg" in item["properties"]:
        item["properties"]["proj:epsg"] = int(crs.split(":")[1])
    for key, asset in item["assets"].items():
        band = common_name(form, key)
        is_mask = key.lower() == stored.mask or key.lower().startswith(f"{stored.mask}_")
        path = Path(folder) / item["id"] / f"{key}.tif"
        asset["href"] = str(path) if url is None else f"{url}/{item['id']}/{key}.tif"
        if (assets is not None and key not in assets) or (band is None and not is_mask):
            continue
        step = float(asset.get("gsd") or (30 if form in (*LANDSAT, *HLS) else 10))
        x, y = pixels(left, top, step)
        seen = cloud(x, y, instant) & clouds
        values = reflectance(band, x, y, instant, crs) + 0.35 * seen
        missing = np.zeros(x.shape, bool)
        if gap is not None:
            size = int(60 // step)
            missing[tuple(slice(*(None if end is None else end * size for end in (s.start, s.stop))) for s in gap)] = (
                True
            )
        if is_mask:
            layer = np.where(missing, stored.empty, np.where(seen, stored.cloudy, stored.clear))
            write_tiff(path, layer.astype("uint16" if form in LANDSAT else "uint8"), left, top, step, stored.empty, crs)
        else:
            numbers = np.rint((values - stored.offset) / stored.scale)
            write_tiff(
                path,
                np.where(missing, stored.nodata, numbers).astype(stored.dtype),
                left,
                top,
                step,
                stored.nodata,
                crs,
            )
        if form not in HLS:
            n = x.shape
            asset |= {"proj:shape": list(n), "proj:transform": [step, 0, left, 0, -step, top, 0, 0, 1]}
    return item


def area(left=300, top=400, width=1200, height=900):
    """A bounding box in degrees, by metres from the corner of the tile."""
    return transform_bounds(UTM, "EPSG:4326", LEFT + left, TOP - top - height, LEFT + left + width, TOP - top)
