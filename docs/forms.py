"""Tables of the documentation: layouts of cubes, and cubes of common readers. Tests fill a cube of each row."""

from __future__ import annotations

from dataclasses import dataclass

LAYOUTS = (
    ("DataArray", "(time, band, y, x), in any order", "DataArray (band, y, x)"),
    ("DataArray of one band or index", "(time, y, x)", "DataArray (y, x)"),
    ("Dataset with one such variable", "(time, band, y, x), beside a quality layer", "Dataset with that variable"),
    ("Dataset of bands", "variables (time, y, x) with names of bands, beside a quality layer", "Dataset of the bands"),
    ("Dataset of indices", "variables (time, y, x) with names of indices, where none is a band", "Dataset of them"),
    ("Dataset of one layer", "one variable (time, y, x) of any name, beside a quality layer", "Dataset of it"),
    ("DataArray with layers among its bands", "SCL, QA_PIXEL, AOT … along the band axis", "all of them, see below"),
)
"""Layouts of a cube: its type, its dimensions, and the result for one date."""


@dataclass(frozen=True)
class Reader:
    """A package or service that loads cubes, with its conventions for Sentinel-2 L2A.

    Parameters
    ----------
    name : str
        Name of the package.
    dims : tuple of tuple of str
        Dimensions, one tuple per variant; with a band dimension the cube is a DataArray, else a Dataset of bands.
    bands : tuple of str
        Names of the blue, red and near-infrared bands.
    mask : str
        Name of the scene classification: one of the bands if there is a band dimension, else a variable. Empty for
        a file of its own, which is given as ``mask=``.
    dtype : str
        Dtype of the values.
    options : str
        Options for the values that the metadata lack.
    hint : str
        Further notes.
    source : str
        Address of the package's documentation.
    """

    name: str
    dims: tuple[tuple[str, ...], ...]
    bands: tuple[str, str, str]
    mask: str
    dtype: str
    options: str
    hint: str
    source: str

    @property
    def form(self) -> str:
        """The layout as text."""
        layout = "DataArray" if len(self.dims[0]) == 4 else "Dataset of bands"
        return f"{layout} " + " or ".join(f"({', '.join(dims)})" for dims in self.dims)


_PADDED = ("B02", "B04", "B08")
_YX = ("time", "y", "x")

READERS = (
    Reader(
        "odc-stac",
        (_YX, ("time", "latitude", "longitude")),
        _PADDED,
        "SCL",
        "uint16",
        "scale=1e-4, offset=-0.1, nodata=0",
        "stored numbers; scale and offset are never applied",
        "https://odc-stac.readthedocs.io/en/latest/",
    ),
    Reader(
        "stackstac",
        (("time", "band", "y", "x"),),
        _PADDED,
        "SCL",
        "float64",
        "",
        'scaled if the items have `raster:bands`, else as stored; `xy_coords="center"` for pixel centres',
        "https://stackstac.readthedocs.io/en/latest/",
    ),
    Reader(
        "cubo",
        (("time", "band", "y", "x"),),
        _PADDED,
        "SCL",
        "float64",
        "scale=1e-4, offset=-0.1, nodata=0",
        "made by stackstac; `scale=` where the items have no `raster:bands`",
        "https://cubo.readthedocs.io/en/latest/",
    ),
    Reader(
        "xee",
        (_YX, ("time", "X", "Y"), ("time", "lon", "lat")),
        ("B2", "B4", "B8"),
        "SCL",
        "float32",
        "scale=1e-4",
        "for `COPERNICUS/S2_SR_HARMONIZED`, which has no offset; x before y in versions before 0.1",
        "https://github.com/google/Xee",
    ),
    Reader(
        "openEO",
        (("t", "y", "x"),),
        _PADDED,
        "SCL",
        "float32",
        "scale=1e-4",
        "NetCDF; scale and offset as the back end describes the collection",
        "https://open-eo.github.io/openeo-python-client/",
    ),
    Reader(
        "xarray-eopf, xcube-eopf",
        (_YX, ("time", "lat", "lon")),
        ("b02", "b04", "b08"),
        "scl",
        "float32",
        "",
        "decoded, one product; `xr_cloudfree.open_eopf` opens several as stored",
        "https://eopf-sample-service.github.io/xarray-eopf/",
    ),
    Reader(
        "xcube-sh",
        (_YX, ("time", "lat", "lon")),
        _PADDED,
        "SCL",
        "float32",
        "",
        "reflectance, if requested in these units",
        "https://github.com/xcube-dev/xcube-sh",
    ),
    Reader(
        "rioxarray",
        (("time", "band", "y", "x"),),
        _PADDED,
        "",
        "uint16",
        "scale=1e-4, offset=-0.1, nodata=0",
        "files combined with `xr.concat`; numbered bands are named by `long_name`",
        "https://corteva.github.io/rioxarray/stable/",
    ),
)
"""Common readers, with their cubes of Sentinel-2 L2A since processing baseline 04.00."""
