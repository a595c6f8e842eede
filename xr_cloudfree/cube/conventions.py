"""What a cube means: which dimensions, which bands, which grid, which sensor. Metadata only; nothing is computed."""

from __future__ import annotations

import difflib
import warnings
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.cube.archives import select_bands
from xr_cloudfree.cube.crs import crs_of, with_crs
from xr_cloudfree.cube.dims import check_sizes, dims_of, standardise
from xr_cloudfree.cube.schemes import SCHEMES
from xr_cloudfree.cube.sensors import BAND_NAMES, common_names_of, index_limits, is_band, sensor_of
from xr_cloudfree.cube.stamps import decode_times
from xr_cloudfree.errors import (
    BandError,
    CloudfreeWarning,
    DimensionError,
    GridError,
    OptionTypeError,
    code,
    either,
    option,
)
from xr_cloudfree.options import parse_list

Layout = Literal["array", "layer", "variable", "bands"]

# Layers that archives keep among the bands and that are no reflectance: neither interpolated nor checked.
_NO_REFLECTANCE = frozenset(
    "aot wvp wv vaa vza saa sza cld snw cloud_mask datamask data_mask is_cloud".split()
) | frozenset(name for scheme in SCHEMES.values() for name in scheme.names)


# Landsat's only near infrared goes by either name.
_ALIAS = {"nir": "nir08", "nir08": "nir"}


@dataclass(frozen=True, eq=False)
class Cube:
    """A user's cube, understood.

    Parameters
    ----------
    arrays : tuple of DataArray
        One array (time, band, y, x), or one (time, y, x) per band. Dimensions carry these names.
    layout : {"array", "layer", "variable", "bands"}
        What the user gave: a DataArray with bands, a DataArray (time, y, x), a Dataset with one 4-D variable, or a
        Dataset with bands as variables.
    bands : tuple of str
        Names of the spectral bands or indices, as the user gave them.
    common_names : tuple of (str or None)
        Their STAC common names.
    dims : dict
        The user's names of ``time``, ``band``, ``y`` and ``x``.
    sensor : {"sentinel-2", "landsat", "hls", "modis"} or None
        The sensor's family, where names and metadata tell it.
    name : str or None
        Name of the 4-D array, or of the only one.
    labels : tuple of str
        All labels along the band axis of a 4-D array: the bands, and layers that are kept among them.
    limits : tuple of float or None
        The values between which all bands lie, if they are indices of that kind; None for reflectance.
    quality : mapping of str to DataArray
        Layers (time, y, x) that a 4-D array holds among its bands and that are no reflectance.
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
        """Positions along the band axis of what is no band, such as a scene classification."""
        return tuple(i for i, label in enumerate(self.labels) if label not in self.bands)

    @property
    def measured(self) -> tuple[xr.DataArray, ...]:
        """The arrays, without what is no band."""
        if not self.extras:
            return self.arrays
        chosen = [self.labels.index(band) for band in self.bands]
        return tuple(select_bands(array, chosen) for array in self.arrays)

    @property
    def template(self) -> xr.DataArray:
        """An array (time, y, x) on the cube's grid."""
        first = self.arrays[0]
        return first.isel(band=0, drop=True) if "band" in first.dims else first

    @property
    def band_expression(self) -> str:
        """What is typed for one band (time, y, x), in messages."""
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
        """Type in which the values are stored."""
        return np.result_type(*(array.dtype for array in self.arrays))

    @property
    def crs(self) -> str | None:
        """The coordinate reference system, as text for people."""
        found = crs_of(self.arrays[0])
        if found is None:
            return None
        text = str(found.to_string())
        # Without a code it is WKT, of which the name is enough for people.
        return text.split('"')[1] if '"' in text else text


def parse_cube(obj: xr.DataArray | xr.Dataset, bands: Sequence[str] | None = None) -> Cube:
    """Return a cube's dimensions, bands, grid, sensor and time stamps, from its names and metadata.

    Parameters
    ----------
    obj : DataArray or Dataset
        A cube (time, band, y, x) or a single layer (time, y, x), a Dataset with one such variable, or a Dataset with
        bands or indices as variables (time, y, x).
    bands : sequence of str, optional
        The bands to use, in this order. Needed where names do not tell which variables are bands.

    Raises
    ------
    OptionTypeError
        If `obj` is no xarray object.
    DimensionError
        If a dimension is missing or one is too many.
    BandError
        If the bands are not known, missing, doubled or not numbers.
    GridError
        If the coordinates do not form a regular grid.
    TimeError
        If a time stamp does not say which moment is meant.

    Warns
    -----
    CloudfreeWarning
        If `bands` names a quality layer, which is left out.
    """
    bands = _names(bands)
    if isinstance(obj, xr.DataArray):
        check_sizes(obj)
        obj = decode_times(obj)
        if "band" not in dims_of(obj) and "time" in dims_of(obj) and obj.ndim == 3:
            return _from_layer(obj, bands)
        return _from_array(obj, "array", bands, (), metadata_of(obj))
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
    """Return whether a layer of this name is no reflectance: classes, bits, probabilities, angles, aerosols.

    Examples
    --------
    >>> [is_quality(name) for name in ("SCL", "QA_PIXEL", "AOT", "B04", "ndvi")]
    [True, True, True, False, False]
    """
    return name.lower() in _NO_REFLECTANCE


def metadata_of(obj: xr.DataArray | xr.Dataset) -> str:
    """Return what attributes and coordinates in memory say of platform, instrument and collection, as one text."""
    return " ".join(_told(obj))


_TELLING = ("platform", "constellation", "instrument", "sensor", "mission", "satellite", "spacecraft", "collection")


def _told(obj: xr.DataArray | xr.Dataset) -> Iterator[str]:
    arrays = [obj, *obj.data_vars.values()] if isinstance(obj, xr.Dataset) else [obj]
    for one in arrays:
        yield from (
            str(value)[:200]
            for key, value in one.attrs.items()
            if any(word in str(key).lower() for word in _TELLING) and isinstance(value, str | list | tuple)
        )
    for name, coord in obj.coords.items():
        loaded = isinstance(coord.variable._data, np.ndarray)
        if loaded and coord.ndim <= 1 and any(word in str(name).lower() for word in _TELLING):
            yield from sorted({str(value)[:200] for value in np.atleast_1d(coord.to_numpy()).tolist()})


def _names(bands: Sequence[str] | None) -> list[str] | None:
    if bands is None:
        return None
    remedy = either(option("bands=['red', 'nir']"), "no " + option("bands=") + " for all that there are")
    names = parse_list("bands", bands, remedy)
    strange = next((name for name in names if not isinstance(name, str)), None)
    if strange is not None:
        raise OptionTypeError(f"bands holds {strange!r}, a {type(strange).__name__}", "names, as text", remedy)
    return names


def _only_4d(ds: xr.Dataset) -> xr.DataArray | None:
    found = {
        str(name): variable for name, variable in ds.data_vars.items() if {"band", "time"} <= dims_of(variable).keys()
    }
    if len(found) > 1 and "reflectance" in found:
        return found["reflectance"]
    if len(found) > 1:
        raise BandError(
            f"the Dataset has {len(found)} variables with a band dimension: {', '.join(found)}",
            "one, or one that is called 'reflectance'",
            f"ds.rename({{{next(iter(found))!r}: 'reflectance'}})",
        )
    return next(iter(found.values()), None)


def _called(array: xr.DataArray) -> str:
    return "the cube" if array.name is None else str(array.name)


def _labels(cube: xr.DataArray) -> list[str] | None:
    """Names of the bands; where they are plain numbers or paths, those of a coordinate beside them."""
    if "band" not in cube.coords:
        return None
    labels = [str(label) for label in cube["band"].to_numpy()]
    if cube["band"].dtype.kind in "iuf":
        for name in ("common_name", "eo:common_name", "long_name", "band_name", "title", "description"):
            told = cube.coords.get(name)
            if told is not None and told.dims == ("band",) and isinstance(told.variable._data, np.ndarray):
                named = [str(label) for label in told.to_numpy()]
                if len(set(named)) == len(named):
                    return named
        told = cube.attrs.get("long_name")
        if isinstance(told, list | tuple) and len(set(map(str, told))) == cube.sizes["band"]:
            return [str(label) for label in told]
    return labels


def _from_array(
    array: xr.DataArray, layout: Layout, bands: Sequence[str] | None, names: Sequence[str], metadata: str
) -> Cube:
    cube, dims = standardise(array, ("time", "band", "y", "x"), _called(array))
    labels = _labels(cube)
    if labels is None:
        labels = [f"band{i + 1}" for i in range(cube.sizes["band"])]
        cube = cube.assign_coords(band=labels)
    _check_bands(labels)
    # All bands together tell the sensor, and what a band's name means on it.
    sensor = sensor_of(labels, names, metadata)
    common_names = dict(zip(labels, _common_names(cube, labels, sensor), strict=True))
    quality = {name: cube.isel(band=i, drop=True) for i, name in enumerate(labels) if is_quality(name)}
    if bands:
        chosen = _chosen(bands, labels, list(common_names.values()))
        cube, labels = select_bands(cube, [labels.index(band) for band in chosen]), chosen
    _check_numbers(cube)
    _check_grid(cube)
    spectral = [label for label in labels if not is_quality(label)]
    if not spectral:
        raise BandError(
            f"no band of {_called(array)} is reflectance: {', '.join(labels)}",
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


def _common_names(cube: xr.DataArray, labels: Sequence[str], sensor: Any) -> tuple[str | None, ...]:
    """Common names of the bands: those that a coordinate tells, as stackstac has it, else by the bands' names."""
    by_name = common_names_of(labels, sensor)
    for key in ("common_name", "eo:common_name"):
        told = cube.coords.get(key)
        if told is not None and told.dims == ("band",) and isinstance(told.variable._data, np.ndarray):
            return tuple(
                str(name) if str(name) in BAND_NAMES else other
                for name, other in zip(told.to_numpy().tolist(), by_name, strict=True)
            )
    return by_name


def _from_layer(array: xr.DataArray, bands: Sequence[str] | None) -> Cube:
    """A cube of one band or index, without a dimension for it."""
    layer, dims = standardise(array, ("time", "y", "x"), _called(array))
    scalar = [c for c in ("band", "variable") if c in array.coords and array.coords[c].ndim == 0]
    label = str(array.coords[scalar[0]].item()) if scalar else str(array.name or "band1")
    if bands and [label] != list(bands):
        _known(bands[0], [label], common_names_of([label]))
    if is_quality(label):
        raise BandError(
            f"{label} is a quality layer", "reflectance or an index", option("mask=") + " with it, beside a cube"
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
    """The limits of indices, if all bands are; what is mixed is told by its values."""
    found = [index_limits(label) for label in labels]
    ends = [limits for limits in found if limits is not None]
    if len(ends) < len(labels):
        return None
    return min(low for low, _ in ends), max(high for _, high in ends)


def _chosen(wanted: Sequence[str], names: Sequence[str], common_names: Sequence[str | None]) -> list[str]:
    """The bands that were asked for; a warning names what is left out: quality layers, and colours that are not there.

    A common name that this sensor has no band for is left out where others are there, so that one list of common
    names serves several sensors. Any other name that is not there is an error.
    """
    lacking = [band for band in wanted if band in BAND_NAMES and not _has(band, names, common_names)]
    if len(lacking) == len(wanted):
        lacking = []
    chosen = [_known(band, names, common_names) for band in wanted if band not in lacking]
    _check_bands(chosen, option(f"bands={list(dict.fromkeys(chosen))}"))
    quality = [band for band in chosen if is_quality(band)]
    if len(quality) == len(chosen):
        raise BandError(
            f"bands names {', '.join(quality)} alone, which is no reflectance",
            "spectral bands or an index",
            option("bands=None") + " for all bands that there are",
        )
    for left, why in ((quality, "no reflectance"), (lacking, "not among the bands of this cube")):
        if left:
            warnings.warn(f"left out of bands: {', '.join(left)} ({why})", CloudfreeWarning, stacklevel=2)
    return [band for band in chosen if band not in quality]


def _has(band: str, names: Sequence[str], common_names: Sequence[str | None]) -> bool:
    return band in names or any(role is not None and role in (band, _ALIAS.get(band)) for role in common_names)


def _from_bands(ds: xr.Dataset, bands: Sequence[str] | None, names: Sequence[str]) -> Cube:
    variables = [str(name) for name in ds.data_vars]
    sensor = sensor_of(variables, names, metadata_of(ds))
    common_names = dict(zip(variables, common_names_of(variables, sensor), strict=True))
    if bands:
        chosen = _chosen(bands, variables, list(common_names.values()))
    else:
        chosen = _bands_among(ds, variables, common_names)
    if not chosen:
        for array in ds.data_vars.values():  # what may be meant as the cube has a dimension too few, or misnamed
            if array.ndim > 3 or (array.ndim == 3 and "band" in dims_of(array)):
                standardise(array, ("time", "band", "y", "x"), _called(array))
            elif array.ndim == 3 and array.dtype.kind in "uif" and not is_quality(str(array.name)):
                standardise(array, ("time", "y", "x"), _called(array))
        numeric = [v for v in variables if ds[v].ndim == 3 and ds[v].dtype.kind in "uif" and not is_quality(v)]
        raise BandError(
            f"none of the variables ({', '.join(variables) or 'there are none'}) has the name of a band",
            "one variable (time, band, y, x), or variables named as bands (B02, red, SR_B4 …) or as an index (NDVI …)",
            option(f"bands={numeric[:3]!r}") if numeric else code("xr.Dataset({'B02': red, 'B03': green}), and so on"),
        )
    first = ds[chosen[0]]
    alike = [band for band in chosen if set(ds[band].dims) == set(first.dims)]
    other = next((ds[band] for band in chosen if band not in alike), None)
    if other is not None:
        raise DimensionError(
            f"{other.name} has dimensions {other.dims}, {first.name} {first.dims}",
            "one grid and the same dates for all bands",
            either(option(f"bands={alike!r}") + " with bands that go together", code("load all with one resolution=")),
        )
    arrays: list[xr.DataArray] = []
    dims: dict[str, str] = {}
    for band in chosen:
        array, dims = standardise(ds[band], ("time", "y", "x"), band)
        _check_numbers(array)
        arrays.append(with_crs(_with_attrs_crs(array, ds)))
    _check_grid(arrays[0])
    kinds = {array.dtype.newbyteorder("=") for array in arrays}
    if len(kinds) > 1 and any(kind.kind in "ui" for kind in kinds):
        raise BandError(
            "the bands have different dtypes: " + ", ".join(f"{array.name} {array.dtype}" for array in arrays),
            "one dtype for all bands that are whole numbers",
            either(
                code(f"cube.astype({str(np.result_type(*kinds))!r})"),
                option("bands=") + " with bands that go together",
            ),
        )
    return Cube(
        arrays=tuple(arrays),
        layout="bands",
        bands=tuple(chosen),
        common_names=tuple(common_names[band] for band in chosen),
        dims=dims,
        sensor=sensor.name if sensor else None,
        name=None,
        labels=tuple(chosen),
        limits=_limits(chosen),
    )


def _bands_among(ds: xr.Dataset, variables: Sequence[str], common_names: dict[str, str | None]) -> list[str]:
    """The variables that are bands; where there are none the indices, or the only layer of numbers."""
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
    """The array with the CRS that only the Dataset's attributes tell."""
    told = {key: ds.attrs[key] for key in ("crs", "proj:code", "proj:epsg", "epsg") if ds.attrs.get(key) is not None}
    return array.assign_attrs(told) if told and crs_of(array) is None else array


def _known(band: str, names: Sequence[str], common_names: Sequence[str | None]) -> str:
    """The band of this name, or of this common name where one has it."""
    if band in names:
        return band
    # Only common names are translated: "B2" is another band on another sensor.
    for wanted in (band, _ALIAS.get(band)):
        meant = [name for name, role in zip(names, common_names, strict=True) if role is not None and role == wanted]
        if band in BAND_NAMES and len(meant) == 1:
            return meant[0]
    near = difflib.get_close_matches(str(band), names, n=1, cutoff=0.4)
    raise BandError(
        f"there is no band {band!r}", f"one of {tuple(names)}", option(f"bands=[{(near or list(names))[0]!r}]")
    )


def _check_bands(labels: Sequence[str], remedy: str = code("cube.drop_duplicates('band')")) -> None:
    doubled = [name for name, n in Counter(labels).items() if n > 1]
    if doubled:
        raise BandError(
            f"the band {doubled[0]!r} is there {Counter(labels)[doubled[0]]} times",
            "each band once",
            remedy,
        )


def _check_numbers(array: xr.DataArray) -> None:
    if array.dtype.kind not in "uif":
        raise BandError(
            f"the values of {_called(array)} have dtype {array.dtype}",
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
                f"cube.sel({dim}=np.isfinite(cube.{dim})), once it is known where they come from",
            )
        steps = np.diff(numbers)
        if steps.size and not _is_regular(steps):
            raise GridError(
                f"the coordinate {dim} has steps from {steps.min():g} to {steps.max():g}",
                "a regular grid, each coordinate once and in order",
                _make_regular(dim, numbers),
            )


def _is_regular(steps: NDArray[np.float64]) -> bool:
    step = np.median(steps)
    # Half a pixel is far more than rounding of coordinates to float32 does.
    return bool(step != 0 and np.abs(steps - step).max() <= 0.5 * abs(step))


def _make_regular(dim: str, values: NDArray[np.float64]) -> str:
    """What to type for coordinates that are not regular."""
    unique, first = np.unique(values, return_index=True)
    if unique.size < 2 or not _is_regular(np.diff(unique)):
        return "odc.stac.load(..., resolution=10), or .rio.reproject_match(other), which put scenes on one grid"
    once = values[np.sort(first)]
    doubled = f".drop_duplicates({dim!r})" if once.size < values.size else ""
    return f"cube{doubled}" + ("" if _is_regular(np.diff(once)) else f".sortby({dim!r})")
