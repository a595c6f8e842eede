"""Series with the classes of their masks, and the cover of their pixels."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from benchmarks.accuracy.sites import Site, read_all

SNOW = 3
COVERS = ("snow", "water", "bright soil", "other")
# Water: the normalised difference of green and NIR is positive in the median over the clear dates, and NIR is dark.
WATER_NIR = 0.15
# Bright soil, on the target date: red from here on, and a vegetation index of less than this.
SOIL_RED, SOIL_NDVI = 0.18, 0.25


@dataclass(frozen=True, eq=False)
class Place:
    """A series, where snow is clear, as it is by default in `fill`.

    Parameters
    ----------
    site : Site
        The series.
    sensor : {"Landsat", "Sentinel-2"}
        The sensor.
    snow : ndarray of bool, shape (time, y, x)
        True where the mask's class is snow.
    water : ndarray of bool, shape (y, x)
        True where there is water.
    """

    site: Site
    sensor: str
    snow: NDArray[np.bool_]
    water: NDArray[np.bool_]

    def cover(self, frame: int) -> NDArray[np.intp]:
        """Return the cover of each pixel on one date, as an index into `COVERS`: ndarray of shape (y, x)."""
        bands, names = self.site.bands[frame], self.site.common_names
        red, nir = _band(bands, names, "red"), _band(bands, names, "nir", "nir08")
        with np.errstate(divide="ignore", invalid="ignore"):
            soil = (red >= SOIL_RED) & ((nir - red) / (nir + red) < SOIL_NDVI)
        return np.select([self.snow[frame], self.water, soil], [0, 1, 2], 3)


def read_places(data: Path, sample: Path | None, dates: int) -> dict[str, Place]:
    """Read all series of reflectance in a folder, and a sample apart: at most so many dates of each, the first ones."""
    places = {}
    for site in read_all(data, sample)[0]:
        with xr.open_dataset(site.path, decode_coords="all") as cube:
            snow = (cube["cloud_mask"].to_numpy() == SNOW) & np.isfinite(site.bands).all(axis=1)
        site = _first(replace(site, clear=site.clear | snow), dates)
        sensor = "Landsat" if "landsat" in site.name else "Sentinel-2"
        places[site.name] = Place(site, sensor, snow[:dates], find_water(site))
    return places


def _first(site: Site, dates: int) -> Site:
    suspect = None if site.suspect is None else site.suspect[:dates]
    values = {"bands": site.bands[:dates], "clear": site.clear[:dates], "time": site.time[:dates]}
    return replace(site, **values, suspect=suspect)


def find_water(site: Site) -> NDArray[np.bool_]:
    """Return where a series shows water: ndarray of bool, shape (y, x)."""
    green, nir = (
        np.stack([_band(image, site.common_names, *names) for image in site.bands])
        for names in (("green",), ("nir", "nir08"))
    )
    with np.errstate(divide="ignore", invalid="ignore"):
        wetness = np.ma.masked_where(~site.clear | ~np.isfinite(green + nir), (green - nir) / (green + nir))
    dark = np.ma.masked_where(~site.clear | ~np.isfinite(nir), nir)
    return np.asarray((np.ma.median(wetness, axis=0) > 0) & (np.ma.median(dark, axis=0) < WATER_NIR)).astype(bool)


def _band(image: NDArray[np.float32], common_names: tuple[str | None, ...], *names: str) -> NDArray[np.float32]:
    """Return the first of some bands that an image has; NaN without any."""
    found = next((common_names.index(name) for name in names if name in common_names), None)
    return np.full(image.shape[1:], np.nan, np.float32) if found is None else image[found]
