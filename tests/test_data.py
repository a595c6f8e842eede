"""The sample cubes match their description and checksums, and open without warnings."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import pytest
import rioxarray  # noqa: F401  (registers .rio)
import xarray as xr

import xr_cloudfree  # noqa: F401  (registers .cloudfree)

DATA = Path(__file__).resolve().parents[1] / "data"


def test_every_file_has_its_checksum() -> None:
    lines = (DATA / "SHA256SUMS").read_text().splitlines()
    stated = {name: digest for digest, name in (line.split("  ") for line in lines)}
    files = {path.relative_to(DATA).as_posix(): path for path in DATA.glob("*.zarr/**/*") if path.is_file()}
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in files.items()}
    assert found == stated


@pytest.mark.parametrize(
    ("name", "sizes", "bands", "epsg"),
    [
        ("s2_portugal.zarr", (30, 4, 128, 128), ["B02", "B03", "B04", "B8A"], 4326),
        ("landsat_pnw.zarr", (46, 6, 64, 64), ["blue", "green", "red", "nir", "swir1", "swir2"], None),
    ],
)
def test_cube_opens_with_its_grid_and_units(
    name: str, sizes: tuple[int, ...], bands: list[str], epsg: int | None
) -> None:
    cube = xr.open_zarr(DATA / name, decode_coords="all")
    assert cube["reflectance"].dims == ("time", "band", "y", "x")
    assert cube["reflectance"].shape == sizes
    assert [str(band) for band in cube["band"].values] == bands
    assert cube.rio.crs is not None
    assert cube.rio.crs.to_epsg() == epsg
    # The repr names the CRS in a word, also where it has no code.
    assert ("EPSG:4326" if epsg else "pixels, Albers\n") in repr(cube.cloudfree)
    # The transform that travels with the CRS agrees with the coordinates, which are those of pixel centres.
    stated = [float(n) for n in cube["spatial_ref"].attrs["GeoTransform"].split()]
    np.testing.assert_allclose(cube["x"][:2], stated[0] + stated[1] * np.array([0.5, 1.5]), rtol=0, atol=1e-7)
    np.testing.assert_allclose(cube["y"][:2], stated[3] + stated[5] * np.array([0.5, 1.5]), rtol=0, atol=1e-7)


@pytest.mark.parametrize("name", ["s2_portugal.zarr", "landsat_pnw.zarr"])
def test_clear_fraction_and_values_agree_with_the_mask(name: str) -> None:
    cube = xr.open_zarr(DATA / name, decode_coords="all").load()
    clear = cube["cloud_mask"] == 0
    np.testing.assert_allclose(cube["clear_fraction"], clear.mean(("y", "x")), atol=1e-6)
    seen = cube["reflectance"].where(clear)
    # What is clear was measured, and the ground is no brighter than bright soil.
    assert float(seen.notnull().sum() / (clear.sum() * cube.sizes["band"])) > 0.999
    assert 0.0 < float(seen.median()) < 0.4


def test_classes_of_the_sentinel_mask_are_what_they_are_called() -> None:
    cube = xr.open_zarr(DATA / "s2_portugal.zarr", decode_coords="all").load()
    codes = dict(
        zip(
            cube["cloud_mask"].attrs["flag_meanings"].split(),
            cube["cloud_mask"].attrs["flag_values"],
            strict=True,
        )
    )
    usual = cube["reflectance"].where(cube["cloud_mask"] == codes["clear"]).median("time")
    day = cube.sel(time="2021-07-23")

    def brightness(meaning: str) -> xr.DataArray:
        there = day["cloud_mask"] == codes[meaning]
        return (day["reflectance"] / usual).where(there).median(("y", "x"))

    assert bool((brightness("cloud_shadow") < 0.7).all())
    assert bool((brightness("thin_cloud") > 1.1).all())
    assert bool((brightness("cloud").sel(band="B02") > 2).all())


def test_landsat_sample_has_the_stripes_of_2003() -> None:
    cube = xr.open_zarr(DATA / "landsat_pnw.zarr")
    missing = (cube["cloud_mask"] == 4).mean(("y", "x")).load()
    late = (cube["sensor"] == "LE7").compute() & (cube["time"] > np.datetime64("2003-06-01"))
    assert float(missing.where(late).min()) > 0.1
    assert float(missing.sel(time=slice("2002-01-01", "2003-05-01")).max()) == 0.0
