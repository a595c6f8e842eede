"""Training sites: cubes as read by the library, held in memory if they fit and read crop by crop otherwise."""

from __future__ import annotations

import glob
import os
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree import api, io
from xr_cloudfree.accuracy.simulate import real_masks
from xr_cloudfree.cube.radar import Radar, check_decibels, nearby_dates, nearest_image, parse_radar
from xr_cloudfree.cube.remedies import ANYWAY
from xr_cloudfree.cube.scaling import Scaling, to_reflectance, valid
from xr_cloudfree.engine.blocks import stack
from xr_cloudfree.errors import BandError, CloudfreeError, CloudfreeWarning, MaskError, OptionError
from xr_cloudfree.inputs import open_s1, s1_variables
from xr_cloudfree.options import ReadOptions, check_names, parse_list

# Edge of the central crop whose values are checked before training starts.
_LOOK = 256
# A single site is split along its longer side: share held out, and pixels between the parts that belong to neither.
_HELD_OUT, _BUFFER, _LEAST_EDGE = 0.25, 16, 16
# Share of several sites that is held out; at least one.
_HELD_OUT_SITES = 0.2


@dataclass(frozen=True, eq=False)
class Site:
    """An image time series with dates in increasing order.

    Parameters
    ----------
    name : str
        Name of its file, without the ending.
    arrays : tuple of DataArray
        Values as stored: one array (time, band, y, x), or one (time, y, x) per band.
    seen : DataArray of bool, shape (time, y, x)
        True where a pixel is clear.
    time : ndarray of datetime64, shape (time,)
        Dates, increasing.
    suspect : ndarray of bool, shape (time,)
        True for dates that cannot serve as truth.
    bands : tuple of str
        Common names of the bands, or the cube's own name for a band without one.
    common_names : tuple of (str or None)
        Common names only.
    scaling : Scaling
        Scale, offset and nodata of the stored values.
    extent : tuple or None
        CRS, and minimum and maximum of x and y, if known.
    s1 : Radar or None
        Sentinel-1, if there is any.
    """

    name: str
    arrays: tuple[xr.DataArray, ...]
    seen: xr.DataArray
    time: NDArray[np.datetime64]
    suspect: NDArray[np.bool_]
    bands: tuple[str, ...]
    common_names: tuple[str | None, ...]
    scaling: Scaling
    extent: tuple[Any, float, float, float, float] | None
    s1: Radar | None = None

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.seen.sizes["y"]), int(self.seen.sizes["x"])

    @property
    def in_memory(self) -> bool:
        """Whether all values are in memory."""
        return isinstance(self.seen.data, np.ndarray)

    def clear(self, part: tuple[slice, slice]) -> NDArray[np.bool_]:
        """Return the clear mask of some rows and columns: ndarray of bool, shape (time, y, x)."""
        return np.asarray(_now(self.seen.isel(y=part[0], x=part[1])), bool)

    def reflectance(
        self, part: tuple[slice, slice], dates: NDArray[np.intp], bands: NDArray[np.intp]
    ) -> NDArray[np.float32]:
        """Return reflectance of some dates and bands in some rows and columns.

        Returns
        -------
        ndarray of float32, shape (time, band, y, x)
            Reflectance, NaN where missing.
        """
        where: dict[str, Any] = {"time": dates, "y": part[0], "x": part[1]}
        if len(self.arrays) == 1 and "band" in self.arrays[0].dims:
            stored = _now(self.arrays[0].isel(where | {"band": bands}))
        else:
            stored = stack([_now(self.arrays[band].isel(where)) for band in bands])
        values = to_reflectance(stored, self.scaling)
        values[~valid(stored, self.scaling)] = np.nan
        return values

    def radar(self, part: tuple[slice, slice], date: int) -> NDArray[np.float32] | None:
        """Return the Sentinel-1 image nearest to one of the dates in some rows and columns.

        Returns
        -------
        ndarray of float32, shape (2, y, x), or None
            VV and VH in decibels, NaN where missing; None for a site without Sentinel-1.
        """
        if self.s1 is None:
            return None
        near = nearby_dates(self.s1.times, self.time[[date]])
        where = {"time": near, "y": part[0], "x": part[1]}
        values: NDArray[Any] = stack([_now(array.isel(where)) for array in self.s1.arrays])
        return nearest_image(values, self.s1.times[near], self.time[date])

    def of_bands(self, bands: Sequence[str]) -> Site:
        """Return the site with some of its bands, in this order."""
        chosen = [self.bands.index(band) for band in bands]
        if len(self.arrays) == 1 and "band" in self.arrays[0].dims:
            arrays = [self.arrays[0].isel(band=chosen)]
        else:
            arrays = [self.arrays[band] for band in chosen]
        return replace(
            self,
            arrays=tuple(arrays),
            bands=tuple(bands),
            common_names=tuple(self.common_names[band] for band in chosen),
        )

    def cut(self, part: tuple[slice, slice], name: str) -> Site:
        """Return a part of the site as a site."""
        where = {"y": part[0], "x": part[1]}
        s1 = self.s1 and replace(self.s1, arrays=tuple(a.isel(where) for a in self.s1.arrays))
        arrays = tuple(a.isel(where) for a in self.arrays)
        return replace(self, name=name, arrays=arrays, seen=self.seen.isel(where), extent=None, s1=s1)

    def overlaps(self, other: Site) -> bool:
        """Whether the extents of both sites overlap; False if either is unknown."""
        if self.extent is None or other.extent is None or self.extent[0] != other.extent[0]:
            return False
        _, west, east, south, north = self.extent
        return other.extent[1] < east and west < other.extent[2] and other.extent[3] < north and south < other.extent[4]


def find_cubes(cubes: Sequence[Any]) -> list[Any]:
    """Return paths of cubes with folders and patterns expanded; opened cubes are returned unchanged.

    Parameters
    ----------
    cubes : sequence of str, path, DataArray or Dataset
        A folder that is not a Zarr store stands for all Zarr stores and NetCDF files in it.

    Raises
    ------
    OptionError
        If there is no cube.
    """
    found: list[Any] = []
    for cube in cubes:
        if not isinstance(cube, str | os.PathLike):
            found.append(cube)
            continue
        text = os.path.expanduser(os.fspath(cube))
        path = Path(text)
        if path.is_dir() and path.suffix != ".zarr" and not (path / "zarr.json").exists():
            inside = sorted(p for p in path.iterdir() if p.suffix in (".zarr", ".nc"))
            if not inside:
                raise OptionError(
                    f"the folder {text} holds no cube", "files .nc or stores .zarr", "--data my_cube.zarr"
                )
            found += inside
        elif glob.has_magic(text) and not path.exists():
            matching = sorted(Path(p) for p in glob.glob(text))
            if not matching:
                raise OptionError(f"nothing is called like {text}", "a pattern of cubes that exist", "--data '*.zarr'")
            found += matching
        else:
            found.append(path)
    if not found:
        raise OptionError("no cube is named to train on", "at least one", "--data my_cube.zarr")
    return found


def read_sites(cubes: Sequence[Any], reading: Mapping[str, Any], memory: float, s1: str | None = None) -> list[Site]:
    """Read cubes as sites.

    Parameters
    ----------
    cubes : sequence of path, DataArray or Dataset
        Cubes as returned by `find_cubes`.
    reading : mapping
        Mask and scaling options of `xr_cloudfree.fill`, from `clear` to `nodata`, and `repair`: masks are taken as they
        are given unless it says otherwise.
    memory : float
        Bytes that may be held in memory; further cubes are read crop by crop.
    s1 : str, optional
        Name of the variable that holds Sentinel-1, or of two separated by a comma.

    Raises
    ------
    CloudfreeError
        If a cube cannot be used (the message names it), or no cube has the Sentinel-1 variables.
    """
    check_names(reading, ReadOptions)
    places: list[Site] = []
    for number, cube in enumerate(cubes):
        named = isinstance(cube, str | os.PathLike)
        name = Path(cube).stem if named else f"cube{number}"
        try:
            place = _read(io.open_cube(cube) if named else cube, name, reading, memory, s1)
        except CloudfreeError as error:
            # Training on values that are not reflectance is never allowed, so the remedy does not offer it.
            remedy = error.remedy.removesuffix(ANYWAY)
            raise type(error)(f"{cube if named else name}: {error.found}", error.needed, remedy) from error
        if place.in_memory:
            memory -= _size(place)
        places.append(place)
    if s1 is not None and not any(place.s1 for place in places):
        raise OptionError(
            f"no cube has the variables {s1!r}",
            "one or two variables with VV and VH in decibels, in some of the cubes at least",
            "--data.s1 vv,vh",
        )
    for name in {p.name for p in places}:
        same = [i for i, p in enumerate(places) if p.name == name]
        for i in same if len(same) > 1 else ():
            places[i] = replace(places[i], name=f"{name}-{same.index(i) + 1}")
    return [_with_known_suspects(place, places) for place in places]


def _size(place: Site) -> int:
    return sum(array.nbytes for array in (*place.arrays, *(place.s1.arrays if place.s1 else ())))


def _read(obj: Any, name: str, reading: Mapping[str, Any], memory: float, s1: str | None) -> Site:
    from dask.base import compute

    found, obj = open_s1(s1, obj) if s1_variables(s1, obj) else (None, obj)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "the cube has no quality layer", CloudfreeWarning)  # refused below
        info = api.read(obj, ReadOptions(**{"repair": False, **reading}))
    if info.rule.from_series and reading.get("mask") != "series":
        raise MaskError(
            "the cube has no quality layer",
            "masks to learn from",
            "mask= or clear= with the name of one, or mask='series' to learn from masks that are made from the series",
        )
    cube = info.cube
    seen = api.clear_mask_of(info).rename({own: role for role, own in cube.dims.items() if role != "band"})
    arrays = tuple(array.drop_vars(list(array.coords)) for array in cube.measured)
    seen = seen.drop_vars(list(seen.coords))
    radar = None if found is None else parse_radar(found, cube.template)
    decibels = () if radar is None else tuple(array.drop_vars(list(array.coords)) for array in radar.arrays)
    if sum(array.nbytes for array in (*arrays, *decibels)) <= memory:
        seen, *loaded = compute(seen, *arrays, *decibels)
        arrays, decibels = tuple(loaded[: len(arrays)]), tuple(loaded[len(arrays) :])
    if radar is not None:
        radar = replace(radar, arrays=decibels)
    middle = {
        dim: slice(max((n - _LOOK) // 2, 0), max((n - _LOOK) // 2, 0) + _LOOK)
        for dim, n in zip(("y", "x"), cube.shape, strict=True)
    }
    look = stack([_now(array.isel(middle)) for array in arrays])
    info.check_reflectance(look, np.asarray(_now(seen.isel(middle))))
    if decibels:
        shown: NDArray[Any] = stack([_now(array.isel(middle)) for array in decibels])
        check_decibels(shown)
    order = np.argsort(info.times, kind="stable")
    if (np.diff(order) != 1).any():
        seen, arrays = seen.isel(time=order), tuple(array.isel(time=order) for array in arrays)
    doubtful = cube.arrays[0].coords.get("suspect")
    suspect = np.zeros(order.size, bool)
    if doubtful is not None and doubtful.dims == ("time",):
        suspect = doubtful.to_numpy().astype(bool)[order]
    labels = tuple(role or band for role, band in zip(cube.common_names, cube.bands, strict=True))
    return Site(
        name,
        arrays,
        seen,
        info.times[order],
        suspect,
        labels,
        cube.common_names,
        info.scaling,
        _extent(cube.template),
        radar,
    )


def _extent(template: xr.DataArray) -> tuple[Any, float, float, float, float] | None:
    import rioxarray  # noqa: F401  registers .rio

    if template.rio.crs is None or not {"y", "x"} <= set(template.coords):
        return None
    ends = [f(template[dim].to_numpy()) for dim in ("x", "y") for f in (np.min, np.max)]
    return template.rio.crs, *(float(end) for end in ends)


def _now(array: xr.DataArray) -> NDArray[Any]:
    """Load values in a single thread; the data loader runs several workers already."""
    return np.asarray(array.compute(scheduler="synchronous").data)


def _with_known_suspects(place: Site, places: Sequence[Site]) -> Site:
    """Add the suspect dates of overlapping sites."""
    suspect = place.suspect.copy()
    days = place.time.astype("datetime64[D]")
    for other in places:
        if other is not place and place.overlaps(other):
            suspect |= np.isin(days, other.time[other.suspect].astype("datetime64[D]"))
    return replace(place, suspect=suspect)


def cloud_shapes(obj: Any, reading: Mapping[str, Any]) -> list[NDArray[np.bool_]]:
    """Return cloud shapes from a cube that is used for its mask only, whatever its variables are.

    Parameters
    ----------
    obj : path, DataArray or Dataset
        The cube.
    reading : mapping
        As for `read_sites`.
    """
    cube = io.open_cube(obj) if isinstance(obj, str | os.PathLike) else obj
    reading = {"repair": False, **reading}
    try:
        clear = api.clear_mask(cube, **reading)
    except BandError:
        if not isinstance(cube, xr.Dataset):
            raise
        names = [str(name) for name, layer in cube.data_vars.items() if layer.ndim == 3 and layer.dtype.kind == "f"]
        clear = api.clear_mask(cube, **{**reading, "bands": names[:1]})
    return real_masks(np.asarray(_now(clear), bool))


def split(places: Sequence[Site], holdout: Sequence[str] | None, seed: int) -> tuple[list[Site], list[Site]]:
    """Split sites into those for training and those for validation.

    Overlapping cubes stay together. A single site is split along its longer side, with a buffer between the parts.

    Parameters
    ----------
    places : sequence of Site
        All sites.
    holdout : sequence of str, optional
        Names of the sites for validation. By default a random fifth of them, at least one.
    seed : int
        Seed of the random choice.

    Returns
    -------
    train, validate : list of Site

    Raises
    ------
    OptionError
        If no site has one of the names, no site is left for training, or a single site is too small.
    """
    groups: list[set[int]] = []
    for i, place in enumerate(places):
        near = [group for group in groups if any(place.overlaps(places[j]) for j in group)]
        groups = [group for group in groups if group not in near] + [{i}.union(*near)]
    if holdout is not None:
        names = [place.name for place in places]
        wanted = parse_list("holdout", holdout, f"--data.holdout [{names[-1]}]")
        for name in wanted:
            if name not in names:
                raise OptionError(
                    f"holdout names {name!r}", f"some of {', '.join(names)}", f"--data.holdout [{names[-1]}]"
                )
        held = set().union(*(group for group in groups if any(names[i] in wanted for i in group)))
        if len(held) == len(places):
            raise OptionError(
                "all sites are held out, or overlap sites that are",
                "a site to train on",
                "more cubes, or no --data.holdout",
            )
    elif len(groups) == 1:
        return _blocks(places)
    else:
        number = max(1, round(_HELD_OUT_SITES * len(groups)))
        chosen = np.random.default_rng(seed).choice(len(groups), number, replace=False)
        held = set().union(*(groups[i] for i in chosen))
    return [p for i, p in enumerate(places) if i not in held], [p for i, p in enumerate(places) if i in held]


def _blocks(places: Sequence[Site]) -> tuple[list[Site], list[Site]]:
    """Split a single site, and further cubes of the same ground, which are assumed to have the same extent."""
    train: list[Site] = []
    validate: list[Site] = []
    tall = places[0].shape[0] >= places[0].shape[1]
    for place in places:
        rows, columns = place.shape
        length = rows if tall else columns
        held = max(round(_HELD_OUT * length), _LEAST_EDGE)
        kept = length - held - _BUFFER
        if kept < _LEAST_EDGE:
            raise OptionError(
                f"the only site, {place.name}, has {rows} x {columns} pixels",
                f"at least {_LEAST_EDGE + _BUFFER + _LEAST_EDGE} along one side, to hold a part out, or several sites",
                "--data first.zarr --data second.zarr",
            )
        whole = slice(None)
        for part, span, into in (("train", slice(kept), train), ("held-out", slice(length - held, length), validate)):
            window = (span, whole) if tall else (whole, span)
            into.append(place.cut(window, f"{place.name}-{part}"))
    return train, validate
