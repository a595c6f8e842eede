"""Evaluation sites: series in memory, and cloud shapes that hide frames."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree import api
from xr_cloudfree.accuracy.simulate import real_masks, target_frames

# Series of the same ground stay together: whoever has seen one of them has seen the place. Any other is a ground of
# its own.
GROUNDS = {
    "landsat": ("landsat57_sr_pnw_30m_2000_2003",),
    "bouconne": ("s2_l3a_bouconne_10m",),
    "romania": ("s2_romania_10m_2015_2019", "s2_romania_20m_2015_2019"),
    "s2s1": ("s2s1_monthly_10m",),
    "belgium": ("s2_belgium_2023q4", "s2_belgium_quintad_2022_23"),
}
SAMPLE = "sample"
# Series of one place and the same dates: what is known of one's frames holds for the other's.
TWINS = {"s2_romania_20m_2015_2019": "s2_romania_10m_2015_2019"}


@dataclass(frozen=True, eq=False)
class Site:
    """An image time series in memory.

    Parameters
    ----------
    path : Path
        Its file.
    ground : str
        Name that all series of the same ground share.
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance.
    clear : ndarray of bool, shape (time, y, x)
        True where a pixel was seen and is valid.
    time : ndarray of datetime64, shape (time,)
        Dates.
    common_names : tuple of (str or None)
        Common names of the bands.
    suspect : ndarray of bool, shape (time,), or None
        Frames that cannot be truth.
    """

    path: Path
    ground: str
    bands: NDArray[np.float32]
    clear: NDArray[np.bool_]
    time: NDArray[np.datetime64]
    common_names: tuple[str | None, ...]
    suspect: NDArray[np.bool_] | None

    @property
    def name(self) -> str:
        """File name without suffix."""
        return self.path.stem

    @property
    def judged(self) -> bool:
        """Whether at least two frames can serve as truth."""
        return len(target_frames(self.clear, self.suspect)) > 1


def ground_of(name: str) -> str:
    """Return the ground of a series by its name."""
    return next((ground for ground, names in GROUNDS.items() if name in names), name)


def read(path: Path, ground: str) -> Site | None:
    """Read a series; None if the file holds no reflectance."""
    with xr.open_dataset(path, decode_coords="all") as cube:
        if "reflectance" not in cube:
            return None
        bands = cube["reflectance"].transpose("time", "band", "y", "x").to_numpy().astype(np.float32)
        clear = (cube["cloud_mask"].to_numpy() == 0) & np.isfinite(bands).all(axis=1)
        suspect = cube["suspect"].to_numpy().astype(bool) if "suspect" in cube else None
        common_names = api.read(cube).cube.common_names
        return Site(path, ground, bands, clear, cube["time"].to_numpy(), common_names, suspect)


def read_all(data: Path, sample: Path | None) -> tuple[list[Site], list[NDArray[np.bool_]]]:
    """Read all series, and the cloud shapes of those without reflectance."""
    found: dict[str, Site] = {}
    shapes: list[NDArray[np.bool_]] = []
    for path in [*sorted(data.glob("*.nc")), *([] if sample is None else [sample])]:
        place = read(path, SAMPLE if path == sample else ground_of(path.stem))
        if place is not None:
            found[place.name] = place
            continue
        with xr.open_dataset(path) as cube:
            shapes += real_masks(cube["cloud_mask"].to_numpy() == 0)
    for name, twin in TWINS.items():
        if name in found and twin in found:
            found[name] = replace(found[name], suspect=found[twin].suspect)
    return list(found.values()), shapes
