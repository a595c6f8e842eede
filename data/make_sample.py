"""Cut the two sample cubes of this folder from their sources.

    python data/make_sample.py S2_PORTUGAL.nc LANDSAT_PNW.nc

The sources are NetCDF files with ``reflectance(time, band, y, x)`` packed as int16,
``cloud_mask(time, y, x)`` and the original quality layer; where they come from is said in README.md beside
this script. Running it again on the same sources with the same versions of zarr and numcodecs gives the same
bytes, and so the same checksums.
"""

from __future__ import annotations

import argparse
import hashlib
import shutil
import warnings
from pathlib import Path
from typing import Any

import xarray as xr
from zarr.codecs import BloscCodec

HERE = Path(__file__).resolve().parent
CHECKSUMS = HERE / "SHA256SUMS"
# Rows and columns of the Landsat cut: farmland, forest and a piece of the river.
LANDSAT_CUT = {"y": slice(32, 96), "x": slice(32, 96)}
# From here on one season of clear Landsat 5 and 7 images, and one with the stripes of Landsat 7's failed SLC.
LANDSAT_DATES = slice("2002-06-01", "2003-11-30")


def sentinel(source: Path) -> xr.Dataset:
    """All of the Sentinel-2 series."""
    cube = xr.open_dataset(source, decode_coords="all", mask_and_scale=False).load()
    # The mask's network tells the four classes of its training data, CloudSEN12; the source names 2 and 3
    # after an older mask ("cloud_shadow" and "snow"). Pixels of class 3 have two thirds of their usual
    # brightness in every band, in July; those of class 2 are brighter than usual, and cloud in the scene
    # classification.
    cube["cloud_mask"].attrs["flag_meanings"] = "clear cloud thin_cloud cloud_shadow nodata_or_other"
    cube.attrs["references"] = "https://github.com/earthnet2021/earthnet-minicuber"
    return cube


def landsat(source: Path) -> xr.Dataset:
    """A corner of the Landsat series: the dates on which at least one pixel in twenty is clear."""
    cube = xr.open_dataset(source, decode_coords="all", mask_and_scale=False)
    cube = cube.sel(time=LANDSAT_DATES).isel(LANDSAT_CUT).load()
    clear = (cube["cloud_mask"] == 0).mean(("y", "x"), dtype="float64").astype("float32")
    cube = cube.assign_coords(clear_fraction=clear.assign_attrs(cube["clear_fraction"].attrs))
    cube = cube.isel(time=(clear >= 0.05).values)
    rows, columns = LANDSAT_CUT["y"].start, LANDSAT_CUT["x"].start
    x0, dx, _, y0, _, dy = (float(n) for n in cube["spatial_ref"].attrs["GeoTransform"].split())
    cube["spatial_ref"].attrs["GeoTransform"] = f"{x0 + columns * dx} {dx} 0.0 {y0 + rows * dy} 0.0 {dy}"
    cube.attrs["title"] = "Landsat 5/7 surface reflectance, Pacific North-West USA, 64 x 64 pixels, 2002-2003"
    return cube


def write(cube: xr.Dataset, path: Path) -> None:
    """Write a cube as Zarr format 3 in a handful of files."""
    shutil.rmtree(path, ignore_errors=True)
    compressor = BloscCodec(cname="zstd", clevel=9, shuffle="bitshuffle")
    encoding: dict[str, dict[str, Any]] = {}
    for name in map(str, cube.variables):
        variable = cube[name]
        variable.encoding = {}
        if variable.dtype.kind == "U":
            # Text of variable length: Zarr has no specification for text of fixed length.
            cube[name] = variable.astype(object)
        elif variable.ndim >= 3:
            encoding[name] = {"chunks": (*variable.shape[:-2], 64, 64), "compressors": [compressor]}
        if {"y", "x"} <= set(variable.dims):
            variable.attrs["grid_mapping"] = "spatial_ref"
        # The time axis stays whole seconds.
        if variable.dtype.kind == "M":
            encoding[name] = {"dtype": "int64", "units": "seconds since 1970-01-01"}
    for name in ("cloud_mask", "scl", "cfmask"):
        if name in encoding:
            encoding[name]["chunks"] = cube[name].shape
    # A chunk that is not there is missing data, not a black image.
    encoding["reflectance"]["fill_value"] = cube["reflectance"].attrs["_FillValue"]
    cube["reflectance"].attrs.pop("add_offset", None)  # it is zero
    cube["reflectance"].attrs["scale_factor"] = float(cube["reflectance"].attrs["scale_factor"])
    cube["cloud_mask"].attrs["flag_values"] = [int(v) for v in cube["cloud_mask"].attrs["flag_values"]]
    with warnings.catch_warnings():
        # Consolidated metadata is an extension of Zarr format 3; without it xarray warns at each opening.
        warnings.filterwarnings("ignore", "Consolidated metadata", category=UserWarning)
        cube.to_zarr(path, mode="w", zarr_format=3, consolidated=True, encoding=encoding)


def digests() -> str:
    """One line per file, as ``sha256sum`` writes them."""
    files = sorted(path for path in HERE.glob("*.zarr/**/*") if path.is_file())
    return "".join(
        f"{hashlib.sha256(path.read_bytes()).hexdigest()}  {path.relative_to(HERE).as_posix()}\n" for path in files
    )


def main() -> None:
    """Write both cubes and the checksums of their files."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sentinel", type=Path, help="the Sentinel-2 series of Portugal")
    parser.add_argument("landsat", type=Path, help="the Landsat 5/7 series of the Pacific North-West")
    sources = parser.parse_args()
    write(sentinel(sources.sentinel), HERE / "s2_portugal.zarr")
    write(landsat(sources.landsat), HERE / "landsat_pnw.zarr")
    CHECKSUMS.write_text(digests())
    for path in sorted(HERE.glob("*.zarr")):
        cube = xr.open_zarr(path, chunks=None)
        size = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
        print(f"{path.name}: {dict(cube.sizes)}, {size / 1e6:.2f} MB")


if __name__ == "__main__":
    main()
