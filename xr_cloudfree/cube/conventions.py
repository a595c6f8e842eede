"""Parse a cube's metadata: dimensions, bands, grid, CRS, sensor and time stamps. Nothing is computed."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.compat import is_numpy
from xr_cloudfree.cube.archives import select_bands
from xr_cloudfree.cube.crs import crs_of, crs_text, with_crs
from xr_cloudfree.cube.dims import check_sizes, dims_of, standardise
from xr_cloudfree.cube.schemes import scheme_of_layer
from xr_cloudfree.cube.sensors import BAND_NAMES, Sensor, common_names_of, index_limits, is_band, sensor_of
from xr_cloudfree.cube.timestamps import decode_times
from xr_cloudfree.errors import (
    BandError,
    DimensionError,
    GridError,
    OptionTypeError,
    code,
    either,
    option,
    warn,
)
from xr_cloudfree.options import parse_list

Layout = Literal["array", "layer", "variable", "bands"]

# Layers that archives store among the bands besides quality layers: neither interpolated nor checked.
_NO_REFLECTANCE = frozenset("aot wvp wv vaa vza saa sza cld snw cloud_mask datamask data_mask is_cloud".split())
# Landsat's only near-infrared band has either name.
_ALIAS = {"nir": "nir08", "nir08": "nir"}
# Attributes and coordinates that identify the sensor: parts of their names.
# Labels along time that are read from a file, to know the sensor.
_MOST_LABELS = 100_000
_SENSOR_KEYS = ("platform", "constellation", "instrument", "sensor", "mission", "satellite", "spacecraft", "collection")


@dataclass(frozen=True, eq=False)
class Cube:
    """A user's cube, with its dimensions under standard names and its metadata parsed.

    Parameters
    ----------
    arrays : tuple of DataArray
        One array (time, band, y, x), or one (time, y, x) per band, with dimensions of these names.
    layout : {"array", "layer", "variable", "bands"}
        The user's object: a DataArray with bands, a DataArray (time, y, x), a Dataset with one 4-D variable, or a
        Dataset with bands as variables.
    bands : tuple of str
        The user's names of the spectral bands or indices.
    common_names : tuple of (str or None)
        Their STAC common names.
    dims : dict
        The user's names of ``time``, ``band``, ``y`` and ``x``.
    sensor : str or None
        The sensor's family (`sensors.Sensor.name`), None if names and metadata do not identify it.
    name : str or None
        Name of the 4-D array, or of the only one.
    labels : tuple of str
        All labels along the band axis of a 4-D array: the bands and other layers among them.
    limits : tuple of float or None
        Lowest and highest value if all bands are indices; None for reflectance.
    quality : mapping of str to DataArray
        Layers (time, y, x) among the bands of a 4-D array that are not reflectance.
    """

    arrays: tuple[xr.DataArray, ...]
    layout: Layout
    bands: tuple[str, ...]
    common_names: tuple[str | None, ...]
    dims: dict[str, str]
    sensor: str | None
    name: str | None
    labels: tuple[str, ...]
    limits: tuple[float, float] | None = None
    quality: Mapping[str, xr.DataArray] = field(default_factory=dict)

    @property
    def extras(self) -> tuple[int, ...]:
        """Positions along the band axis of layers that are not bands, such as a scene classification."""
        return tuple(i for i, label in enumerate(self.labels) if label not in self.bands)

    @property
    def measured(self) -> tuple[xr.DataArray, ...]:
        """The arrays without layers that are not bands."""
        if not self.extras:
            return self.arrays
        positions = [self.labels.index(band) for band in self.bands]
        return tuple(select_bands(array, positions) for array in self.arrays)

    @property
    def template(self) -> xr.DataArray:
        """An array (time, y, x) on the cube's grid."""
        first = self.arrays[0]
        return first.isel(band=0, drop=True) if "band" in first.dims else first

    @property
    def band_expression(self) -> str:
        """The expression for one band (time, y, x), for messages."""
        if self.layout == "layer":
            return "cube"
        if self.layout == "bands":
            return f"ds[{self.bands[0]!r}]"
        return f"{'cube' if self.layout == 'array' else f'ds[{self.name!r}]'}.isel({self.dims['band']}=0, drop=True)"

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.arrays[0].sizes["y"]), int(self.arrays[0].sizes["x"])

    @property
    def dtype(self) -> np.dtype[np.generic]:
        """Dtype of the stored values."""
        return np.result_type(*(array.dtype for array in self.arrays))

    @property
    def crs(self) -> str | None:
        """The coordinate reference system: its code, or its name if it has no code."""
        crs = crs_of(self.arrays[0])
        return None if crs is None else crs_text(crs)


def parse_cube(obj: xr.DataArray | xr.Dataset, bands: Sequence[str] | None = None) -> Cube:
    """Return a cube with its dimensions, bands, grid, sensor and time stamps, from its names and metadata.

    Parameters
    ----------
    obj : DataArray or Dataset
        A cube (time, band, y, x) or a single layer (time, y, x), a Dataset with one such variable, or a Dataset with
        bands or indices as variables (time, y, x).
    bands : sequence of str, optional
        The bands to use, in this order. Needed if the variables' names are not those of bands.

    Raises
    ------
    OptionTypeError
        If `obj` is not an xarray object.
    DimensionError
        If a dimension is missing, or there are too many.
    BandError
        If bands are unknown, missing, duplicate or not numeric.
    GridError
        If the coordinates do not form a regular grid.
    TimeError
        If a time stamp is ambiguous.

    Warns
    -----
    CloudfreeWarning
        If `bands` names a quality layer, which is left out.
    """
    bands = _parse_bands(bands)
    if isinstance(obj, xr.DataArray):
        check_sizes(obj)
        obj = decode_times(obj)
        if "band" not in dims_of(obj) and "time" in dims_of(obj) and obj.ndim == 3:
            return _from_layer(obj, bands)
        return _from_array(obj, "array", bands, (), metadata_of(obj))
    if isinstance(obj, xr.DataTree):
        raise OptionTypeError(
            "the cube is a DataTree",
            "an xarray DataArray (time, band, y, x) or Dataset",
            "xr_cloudfree.open_eopf(trees) for products of Sentinel-2, tree['group'].to_dataset() for other trees",
        )
    if not isinstance(obj, xr.Dataset):
        raise OptionTypeError(
            f"the cube is a {type(obj).__name__}",
            "an xarray DataArray (time, band, y, x) or Dataset",
            "xr.DataArray(values, dims=('time', 'band', 'y', 'x'), coords={'time': dates, 'band': names})",
        )
    check_sizes(obj)
    obj = decode_times(obj)
    names = [str(name) for name in obj.variables]
    array = _only_4d(obj)
    if array is not None and (bands is None or not set(bands) <= set(map(str, obj.data_vars))):
        return _from_array(array, "variable", bands, names, metadata_of(obj))
    return _from_bands(obj, bands, names)


def is_quality(name: str) -> bool:
    """Return whether a layer of this name is not reflectance: classes, bits, probabilities, angles, aerosols.

    Examples
    --------
    >>> [is_quality(name) for name in ("SCL", "QA_PIXEL", "AOT", "B04", "ndvi")]
    [True, True, True, False, False]
    """
    return name.lower() in _NO_REFLECTANCE or scheme_of_layer(name) is not None


def metadata_of(obj: xr.DataArray | xr.Dataset) -> str:
    """Return platform, instrument and collection from attributes and small coordinates, as one text."""
    return " ".join(_sensor_metadata(obj))


def _sensor_metadata(obj: xr.DataArray | xr.Dataset) -> Iterator[str]:
    arrays = [obj, *obj.data_vars.values()] if isinstance(obj, xr.Dataset) else [obj]
    for array in arrays:
        yield from (
            str(value)[:200]
            for key, value in array.attrs.items()
            if any(word in str(key).lower() for word in _SENSOR_KEYS) and isinstance(value, str | list | tuple)
        )
    for name, coord in obj.coords.items():
        if coord.ndim <= 1 and any(word in str(name).lower() for word in _SENSOR_KEYS):
            known = _read_small(coord.variable)
            if known is not None:
                yield from sorted({str(value)[:200] for value in np.atleast_1d(known).tolist()})


def _read_small(variable: xr.Variable) -> NDArray[Any] | None:
    """Return the values of a coordinate in memory, or the labels of one in a file, so that both say the same."""
    if is_numpy(variable):
        return variable.to_numpy()
    if variable.size > _MOST_LABELS or variable.dtype.kind not in "OSTU":
        return None
    return np.asarray(variable.compute(scheduler="synchronous").to_numpy())


def _parse_bands(bands: Sequence[str] | None) -> list[str] | None:
    if bands is None:
        return None
    remedy = either(option("bands=['red', 'nir']"), "no " + option("bands=") + " for all bands")
    names = parse_list("bands", bands, remedy)
    other = next((name for name in names if not isinstance(name, str)), None)
    if other is not None:
        raise OptionTypeError(f"bands holds {other!r}, a {type(other).__name__}", "names, as text", remedy)
    return names


def _only_4d(ds: xr.Dataset) -> xr.DataArray | None:
    arrays = {
        str(name): variable for name, variable in ds.data_vars.items() if {"band", "time"} <= dims_of(variable).keys()
    }
    if len(arrays) > 1 and "reflectance" in arrays:
        return arrays["reflectance"]
    if len(arrays) > 1:
        raise BandError(
            f"the Dataset has {len(arrays)} variables with a band dimension: {', '.join(arrays)}",
            "one, or one named 'reflectance'",
            f"ds.rename({{{next(iter(arrays))!r}: 'reflectance'}})",
        )
    return next(iter(arrays.values()), None)


def _display_name(array: xr.DataArray) -> str:
    return "the cube" if array.name is None else str(array.name)


def _labels(cube: xr.DataArray) -> list[str] | None:
    """Return the names of the bands; if they are numbered, those of another coordinate or attribute."""
    if "band" not in cube.coords:
        return None
    labels = [str(label) for label in cube["band"].to_numpy()]
    if cube["band"].dtype.kind in "iuf":
        for name in ("common_name", "eo:common_name", "long_name", "band_name", "title", "description"):
            if (values := _band_coordinate(cube, name)) is not None and len(set(values)) == len(values):
                return values
        names = cube.attrs.get("long_name")
        if isinstance(names, list | tuple) and len(set(map(str, names))) == cube.sizes["band"]:
            return [str(label) for label in names]
    return labels


def _band_coordinate(cube: xr.DataArray, name: str) -> list[str] | None:
    """Return the values of a coordinate along the bands as text, None if there is none in memory."""
    coordinate = cube.coords.get(name)
    if coordinate is None or coordinate.dims != ("band",) or not is_numpy(coordinate.variable):
        return None
    return [str(value) for value in coordinate.to_numpy().tolist()]


def _from_array(
    array: xr.DataArray, layout: Layout, bands: Sequence[str] | None, names: Sequence[str], metadata: str
) -> Cube:
    cube, dims = standardise(array, ("time", "band", "y", "x"), _display_name(array))
    labels = _labels(cube)
    if labels is None:
        labels = [f"band{i + 1}" for i in range(cube.sizes["band"])]
        cube = cube.assign_coords(band=labels)
    _check_bands(labels)
    # All bands together identify the sensor, and so the common name of each.
    sensor = sensor_of(labels, names, metadata)
    common_names = dict(zip(labels, _common_names(cube, labels, sensor), strict=True))
    quality = {name: cube.isel(band=i, drop=True) for i, name in enumerate(labels) if is_quality(name)}
    if bands:
        selected = _select(bands, labels, list(common_names.values()))
        cube, labels = select_bands(cube, [labels.index(band) for band in selected]), selected
    _check_numbers(cube)
    _check_grid(cube)
    spectral = [label for label in labels if not is_quality(label)]
    if not spectral:
        raise BandError(
            f"no band of {_display_name(array)} is reflectance: {', '.join(labels)}",
            "spectral bands or an index",
            option("bands=['B04', 'B08']") + " with the bands to fill",
        )
    return Cube(
        arrays=(with_crs(cube),),
        layout=layout,
        bands=tuple(spectral),
        common_names=tuple(common_names[label] for label in spectral),
        dims=dims,
        sensor=sensor.name if sensor else None,
        name=None if array.name is None else str(array.name),
        labels=tuple(labels),
        limits=_limits(spectral),
        quality=quality,
    )


def _common_names(cube: xr.DataArray, labels: Sequence[str], sensor: Sensor | None) -> tuple[str | None, ...]:
    """Return the common names of the bands: from a coordinate, as stackstac writes it, else from the bands' names."""
    by_name = common_names_of(labels, sensor)
    for key in ("common_name", "eo:common_name"):
        if (values := _band_coordinate(cube, key)) is not None:
            return tuple(name if name in BAND_NAMES else other for name, other in zip(values, by_name, strict=True))
    return by_name


def _from_layer(array: xr.DataArray, bands: Sequence[str] | None) -> Cube:
    """Return a cube of one band or index, without a band dimension."""
    layer, dims = standardise(array, ("time", "y", "x"), _display_name(array))
    scalar = [c for c in ("band", "variable") if c in array.coords and array.coords[c].ndim == 0]
    label = str(array.coords[scalar[0]].item()) if scalar else str(array.name or "band1")
    if bands and [label] != list(bands):
        _known(bands[0], [label], common_names_of([label]))
    if is_quality(label):
        raise BandError(
            f"{label} is a quality layer", "reflectance or an index", option("mask=") + " with this layer, and a cube"
        )
    _check_numbers(layer)
    _check_grid(layer)
    sensor = sensor_of([label], (), metadata_of(array))
    return Cube(
        arrays=(with_crs(layer),),
        layout="layer",
        bands=(label,),
        common_names=common_names_of([label], sensor),
        dims=dims,
        sensor=sensor.name if sensor else None,
        name=None if array.name is None else str(array.name),
        labels=(label,),
        limits=_limits([label]),
    )


def _limits(labels: Sequence[str]) -> tuple[float, float] | None:
    """Return the limits of the bands if all of them are indices, else None."""
    limits = [index_limits(label) for label in labels]
    known = [pair for pair in limits if pair is not None]
    if len(known) < len(labels):
        return None
    return min(low for low, _ in known), max(high for _, high in known)


def _select(wanted: Sequence[str], names: Sequence[str], common_names: Sequence[str | None]) -> list[str]:
    """Return the requested bands, without quality layers and common names that the cube lacks, with a warning.

    A common name without a band is left out if other bands remain, so that one list of common names serves several
    sensors. Any other unknown name is an error.
    """
    missing = [band for band in wanted if band in BAND_NAMES and not _has(band, names, common_names)]
    if len(missing) == len(wanted):
        missing = []
    selected = [_known(band, names, common_names) for band in wanted if band not in missing]
    _check_bands(selected, option(f"bands={list(dict.fromkeys(selected))}"))
    quality = [band for band in selected if is_quality(band)]
    if len(quality) == len(selected):
        raise BandError(
            f"bands names only {', '.join(quality)}, which is not reflectance",
            "spectral bands or an index",
            option("bands=None") + " for all bands",
        )
    for omitted, reason in ((quality, "not reflectance"), (missing, "not among the bands of this cube")):
        if omitted:
            warn(f"left out of bands: {', '.join(omitted)} ({reason})")
    return [band for band in selected if band not in quality]


def _has(band: str, names: Sequence[str], common_names: Sequence[str | None]) -> bool:
    return band in names or any(name is not None and name in (band, _ALIAS.get(band)) for name in common_names)


def _from_bands(ds: xr.Dataset, bands: Sequence[str] | None, names: Sequence[str]) -> Cube:
    variables = [str(name) for name in ds.data_vars]
    sensor = sensor_of(variables, names, metadata_of(ds))
    common_names = dict(zip(variables, common_names_of(variables, sensor), strict=True))
    if bands:
        selected = _select(bands, variables, list(common_names.values()))
    else:
        selected = _bands_among(ds, variables, common_names)
    if not selected:
        for array in ds.data_vars.values():  # raises for an array with a missing or unknown dimension
            if array.ndim > 3 or (array.ndim == 3 and "band" in dims_of(array)):
                standardise(array, ("time", "band", "y", "x"), _display_name(array))
            elif array.ndim == 3 and array.dtype.kind in "uif" and not is_quality(str(array.name)):
                standardise(array, ("time", "y", "x"), _display_name(array))
        numeric = [v for v in variables if ds[v].ndim == 3 and ds[v].dtype.kind in "uif" and not is_quality(v)]
        raise BandError(
            f"no variable has the name of a band: {', '.join(variables) or 'there are no variables'}",
            "one variable (time, band, y, x), or variables named like bands (B02, red, SR_B4 …) or indices (NDVI …)",
            option(f"bands={numeric[:3]!r}") if numeric else code("xr.Dataset({'B02': red, 'B03': green}), and so on"),
        )
    first = ds[selected[0]]
    alike = [band for band in selected if set(ds[band].dims) == set(first.dims)]
    other = next((ds[band] for band in selected if band not in alike), None)
    if other is not None:
        raise DimensionError(
            f"{other.name} has dimensions {other.dims}, {first.name} {first.dims}",
            "one grid and the same dates for all bands",
            either(option(f"bands={alike!r}") + " for bands of one grid", code("load all bands with one resolution=")),
        )
    arrays: list[xr.DataArray] = []
    dims: dict[str, str] = {}
    for band in selected:
        array, dims = standardise(ds[band], ("time", "y", "x"), band)
        _check_numbers(array)
        arrays.append(with_crs(_with_attrs_crs(array, ds)))
    _check_grid(arrays[0])
    dtypes = {array.dtype.newbyteorder("=") for array in arrays}
    if len(dtypes) > 1 and any(dtype.kind in "ui" for dtype in dtypes):
        raise BandError(
            "the bands have different dtypes: " + ", ".join(f"{array.name} {array.dtype}" for array in arrays),
            "one dtype for all integer bands",
            either(
                code(f"cube.astype({str(np.result_type(*dtypes))!r})"), option("bands=") + " with bands of one dtype"
            ),
        )
    return Cube(
        arrays=tuple(arrays),
        layout="bands",
        bands=tuple(selected),
        common_names=tuple(common_names[band] for band in selected),
        dims=dims,
        sensor=sensor.name if sensor else None,
        name=None,
        labels=tuple(selected),
        limits=_limits(selected),
    )


def _bands_among(ds: xr.Dataset, variables: Sequence[str], common_names: dict[str, str | None]) -> list[str]:
    """Return the variables that are bands; else the indices, else the only numeric layer."""
    named = [v for v in variables if common_names[v] or (is_band(v) and not is_quality(v))]
    if named:
        return named
    layers = [
        v
        for v in variables
        if {"time", "y", "x"} <= dims_of(ds[v]).keys()
        and ds[v].ndim == 3
        and ds[v].dtype.kind in "uif"
        and not is_quality(v)
        and "flag_meanings" not in ds[v].attrs
    ]
    return [v for v in layers if index_limits(v)] or (layers if len(layers) == 1 else [])


def _with_attrs_crs(array: xr.DataArray, ds: xr.Dataset) -> xr.DataArray:
    """Return the array with the CRS of the Dataset's attributes, if it has none of its own."""
    attrs = {key: ds.attrs[key] for key in ("crs", "proj:code", "proj:epsg", "epsg") if ds.attrs.get(key) is not None}
    return array.assign_attrs(attrs) if attrs and crs_of(array) is None else array


def _known(band: str, names: Sequence[str], common_names: Sequence[str | None]) -> str:
    """Return the band with this name, or with this common name if exactly one has it."""
    if band in names:
        return band
    # Only common names are translated: "B2" is another band on another sensor.
    for wanted in (band, _ALIAS.get(band)):
        matches = [name for name, common in zip(names, common_names, strict=True) if common and common == wanted]
        if band in BAND_NAMES and len(matches) == 1:
            return matches[0]
    near = difflib.get_close_matches(str(band), names, n=1, cutoff=0.4)
    raise BandError(
        f"there is no band {band!r}", f"one of {tuple(names)}", option(f"bands=[{(near or list(names))[0]!r}]")
    )


def _check_bands(labels: Sequence[str], remedy: str = code("cube.drop_duplicates('band')")) -> None:
    duplicates = [name for name, n in Counter(labels).items() if n > 1]
    if duplicates:
        raise BandError(
            f"the band {duplicates[0]!r} occurs {Counter(labels)[duplicates[0]]} times",
            "each band once",
            remedy,
        )


def _check_numbers(array: xr.DataArray) -> None:
    if array.dtype.kind not in "uif":
        raise BandError(
            f"the values of {_display_name(array)} have dtype {array.dtype}",
            "numbers: unsigned or signed integers, or floats",
            "cube.real.astype('float32')" if array.dtype.kind == "c" else "cube.astype('float32')",
        )


def _check_grid(array: xr.DataArray) -> None:
    for dim in ("y", "x"):
        if dim not in array.coords:
            continue
        values = array[dim]
        if values.dtype.kind not in "iuf":
            raise GridError(f"the coordinate {dim} has dtype {values.dtype}", "numbers", f"cube.drop_vars('{dim}')")
        numbers = values.to_numpy().astype(np.float64)
        if not np.isfinite(numbers).all():
            raise GridError(
                f"the coordinate {dim} has values that are not finite",
                "one number for each pixel",
                f"cube.sel({dim}=np.isfinite(cube.{dim})), after finding out where they come from",
            )
        steps = np.diff(numbers)
        if steps.size and not _is_regular(steps):
            raise GridError(
                f"the coordinate {dim} has steps from {steps.min():g} to {steps.max():g}",
                "a regular grid, each coordinate once and in order",
                _regular_grid_remedy(dim, numbers),
            )


def _is_regular(steps: NDArray[np.float64]) -> bool:
    step = np.median(steps)
    # Half a pixel is far more than the rounding error of float32 coordinates.
    return bool(step != 0 and np.abs(steps - step).max() <= 0.5 * abs(step))


def _regular_grid_remedy(dim: str, values: NDArray[np.float64]) -> str:
    """Return the remedy for irregular coordinates."""
    unique, first = np.unique(values, return_index=True)
    if unique.size < 2 or not _is_regular(np.diff(unique)):
        return "odc.stac.load(..., resolution=10), or .rio.reproject_match(other), which put scenes on one grid"
    in_order = values[np.sort(first)]
    drop = f".drop_duplicates({dim!r})" if in_order.size < values.size else ""
    return f"cube{drop}" + ("" if _is_regular(np.diff(in_order)) else f".sortby({dim!r})")
