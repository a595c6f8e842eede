"""Small products of Sentinel-2 in the Zarr format of EOPF, with known values.

Groups, names, types, attributes and the metadata of the root follow the products of the EOPF Sample Service
(https://zarr.eopf.copernicus.eu); the format of Zarr is that of its products (2), or that of later ones (3).
"""

import numpy as np
import xarray as xr

LEFT, TOP, EDGE = 600_000, 5_200_020, 480  # metres: 48, 24 and 8 pixels
BANDS = {
    10: ("b02", "b03", "b04", "b08"),
    20: ("b01", "b02", "b03", "b04", "b05", "b06", "b07", "b11", "b12", "b8a"),
    60: ("b01", "b02", "b03", "b04", "b05", "b06", "b07", "b09", "b11", "b12", "b8a"),
}
REFLECTANCE = {band: 0.02 * (i + 1) for i, band in enumerate(sorted(set().union(*BANDS.values())))}
NAME = "S2B_MSIL2A_{stamp}_N{baseline}_R022_T32TPS_20250627T134213"


def stored(band, size, offset, bright=0.0):
    """Stored values (y, x) of a band: of its own level, with a gradient along x; a corner is missing."""
    n = EDGE // size
    ground = REFLECTANCE[band] + bright + 0.1 * (np.arange(n) + 0.5) / n
    values = np.broadcast_to(np.rint((ground - offset) / 1e-4), (n, n)).astype("uint16").copy()
    values[: 120 // size, : 60 // size] = 0
    return values


def classes(size, cloud=0):
    """Scene classification (y, x): vegetation, with a cloud over the first `cloud` metres of y."""
    n = EDGE // size
    values = np.full((n, n), 4, "uint8")
    values[: cloud // size] = 9
    values[: 120 // size, : 60 // size] = 0
    return values


def make_tree(when="2025-06-27T10:10:41.024Z", baseline="0511", offset=-0.1, bright=0.0, cloud=0, encode="cf"):
    """A product as a DataTree of stored values, with the attributes by which they are decoded.

    `encode`: where scale and offset are told, in CF attributes, in those of EOPF, or nowhere.
    """

    def group(size, arrays):
        n = EDGE // size
        return xr.Dataset(
            {name: (("y", "x"), values, attrs) for name, (values, attrs) in arrays.items()},
            coords={
                "y": ("y", TOP - size * (np.arange(n) + 0.5), {"standard_name": "projection_y_coordinate"}),
                "x": ("x", LEFT + size * (np.arange(n) + 0.5), {"standard_name": "projection_x_coordinate"}),
            },
        )

    scaling = {"scale_factor": 1e-4, "add_offset": offset}
    own = {"_eopf_attrs": {**scaling, "fill_value": 0, "units": "digital_counts"}, "valid_min": 1, "valid_max": 65535}
    attrs = {"proj:epsg": 32632, "units": "digital_counts"}
    attrs |= {"cf": {**scaling, "_FillValue": 0, **own}, "eopf": own, "nowhere": {}}[encode]
    nodes = {
        f"measurements/reflectance/r{size}m": group(
            size, {band: (stored(band, size, offset, bright), attrs) for band in bands}
        )
        for size, bands in BANDS.items()
    }
    for size in (20, 60):
        nodes[f"conditions/mask/l2a_classification/r{size}m"] = group(
            size, {"scl": (classes(size, cloud), {"proj:epsg": 32632})}
        )
    nodes["quality/probability/r20m"] = group(20, {"cld": (np.zeros((24, 24), "uint8"), {})})
    nodes["conditions/geometry"] = xr.Dataset({"mean_sun_angles": ("angle", [30.0, 150.0])})
    name = NAME.format(stamp=when[:19].replace("-", "").replace(":", ""), baseline=baseline)
    root = xr.Dataset(
        attrs={
            "stac_discovery": {
                "type": "Feature",
                "stac_version": "1.1.0",
                "id": name,
                "geometry": {"type": "Polygon", "coordinates": [[[10, 46], [11, 46], [11, 47], [10, 47], [10, 46]]]},
                "bbox": [10, 46, 11, 47],
                "properties": {
                    "datetime": when,
                    "platform": "sentinel-2b",
                    "instrument": "msi",
                    "product:type": "S02MSIL2A",
                    "processing:level": "L2A",
                    "eo:cloud_cover": 100.0 * cloud / EDGE,
                    "proj:epsg": 32632,
                },
                "links": [],
                "assets": {},
            },
            "other_metadata": {"horizontal_CRS_code": "EPSG:32632", "horizontal_CRS_name": "WGS84 / UTM zone 32N"},
        }
    )
    return xr.DataTree.from_dict({"/": root, **nodes}, name=name)


def write_product(folder, zarr_format=2, chunk=12, **how):
    """Write a product into a folder, and return its path."""
    tree = make_tree(**how)
    path = folder / f"{tree.name}.zarr"
    encoding = {
        node.path: {
            name: {"chunks": (min(chunk, v.shape[0]),) * 2} for name, v in node.data_vars.items() if v.ndim == 2
        }
        for node in tree.subtree
        if node.data_vars
    }
    tree.to_zarr(path, zarr_format=zarr_format, consolidated=True, encoding=encoding)
    return path
