"""What a cube means: which dimensions, which bands, which grid, which sensor. Metadata only; nothing is computed."""

from __future__ import annotations

import difflib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.errors import BandError, DimensionError, GridError, OptionTypeError
from xr_cloudfree.options import parse_list

Kind = Literal["array", "variable", "bands"]

DIM_NAMES: dict[str, tuple[str, ...]] = {
    "time": ("time", "t"),
    "band": ("band", "bands"),
    "y": ("y", "latitude", "lat"),
    "x": ("x", "longitude", "lon"),
}

# STAC common name -> the names that sensors and archives give to the band.
BAND_NAMES: dict[str, tuple[str, ...]] = {
    "coastal": ("coastal", "B01", "coastal_aerosol"),
    "blue": ("blue", "B02"),
    "green": ("green", "B03"),
    "red": ("red", "B04"),
    "rededge071": ("rededge071", "rededge1", "B05", "rededge_1", "red_edge_1"),
    "rededge075": ("rededge075", "rededge2", "B06", "rededge_2", "red_edge_2"),
    "rededge078": ("rededge078", "rededge3", "B07", "rededge_3", "red_edge_3"),
    "nir": ("nir", "B08", "nir_1"),
    "nir08": ("nir08", "B8A", "B08A", "nir_narrow", "nir_2"),
    "nir09": ("nir09", "B09", "water_vapour"),
    "cirrus": ("cirrus", "B10"),
    "swir16": ("swir16", "swir1", "B11", "swir_1", "swir_16"),
    "swir22": ("swir22", "swir2", "B12", "swir_2", "SR_B7", "swir_22"),
}
# Landsat numbers its bands by sensor: SR_B4 is red on OLI, nir on TM. Which one it is shows in the other bands.
_LANDSAT_OLI = {
    "SR_B1": "coastal",
    "SR_B2": "blue",
    "SR_B3": "green",
    "SR_B4": "red",
    "SR_B5": "nir",
    "SR_B6": "swir16",
    "SR_B7": "swir22",
}
_LANDSAT_TM = {
    "SR_B1": "blue",
    "SR_B2": "green",
    "SR_B3": "red",
    "SR_B4": "nir",
    "SR_B5": "swir16",
    "SR_B7": "swir22",
}
_COMMON = {name.lower(): common for common, names in BAND_NAMES.items() for name in names}


def common_names(bands: Sequence[str]) -> tuple[str | None, ...]:
    """STAC common name of each band, None where it is not known.

    Examples
    --------
    >>> common_names(["B02", "B8A", "ndvi"])
    ('blue', 'nir08', None)
    >>> common_names(["SR_B4", "SR_B5", "SR_B6"])
    ('red', 'nir', 'swir16')
    """
    upper = [band.upper() for band in bands]
    table = dict(_COMMON)
    if any(band.startswith("SR_B") for band in upper):
        # Only OLI has an SR_B6; TM and ETM+ put their thermal band there, which is no SR band.
        landsat = _LANDSAT_OLI if "SR_B6" in upper else _LANDSAT_TM
        table.update({name.lower(): common for name, common in landsat.items()})
    if "B1" in upper or "B2" in upper:
        table.update({f"b{i}": table[f"b{i:02d}"] for i in (1, 2, 3, 4, 5, 6, 7, 8, 9) if f"b{i:02d}" in table})
    return tuple(table.get(band.lower()) for band in bands)


def _sensor(bands: Sequence[str], names: Sequence[str]) -> str | None:
    upper = {band.upper() for band in bands}
    layers = {name.lower() for name in names}
    if "fmask" in layers:
        return None  # HLS carries either sensor's bands, scaled in its own way
    if upper & {"B8A", "B08", "B02", "B03", "B04"} or "scl" in layers:
        return "sentinel-2"
    if any(band.startswith("SR_B") for band in upper) or layers & {"qa_pixel", "pixel_qa", "cfmask"}:
        return "landsat"
    return None


@dataclass(frozen=True, eq=False)
class Cube:
    """A user's cube, understood.

    Parameters
    ----------
    arrays : tuple of DataArray
        One array (time, band, y, x), or one (time, y, x) per band. Dimensions carry these names.
    kind : {"array", "variable", "bands"}
        What the user gave: a DataArray, a Dataset with one 4-D variable, or a Dataset with bands as variables.
    bands : tuple of str
        Names of the bands, as the user gave them.
    roles : tuple of (str or None)
        Their STAC common names.
    dims : dict
        The user's names of ``time``, ``band``, ``y`` and ``x``.
    sensor : {"sentinel-2", "landsat"} or None
        The sensor, where names tell it.
    name : str or None
        Name of the 4-D array.
    """

    arrays: tuple[xr.DataArray, ...]
    kind: Kind
    bands: tuple[str, ...]
    roles: tuple[str | None, ...]
    dims: dict[str, str]
    sensor: str | None
    name: str | None

    @property
    def template(self) -> xr.DataArray:
        """An array (time, y, x) on the cube's grid."""
        first = self.arrays[0]
        return first.isel(band=0, drop=True) if "band" in first.dims else first

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


def crs_of(array: xr.DataArray) -> Any:
    """The coordinate reference system as rasterio has it, None where there is none.

    Raises
    ------
    GridError
        If there is one that cannot be read.
    """
    import rioxarray  # noqa: F401  registers .rio

    try:
        return array.rio.crs
    except Exception as error:  # those of pyproj, rasterio and rioxarray have no base of their own
        raise GridError(
            f"the CRS of {_called(array)} cannot be read: {error}",
            "a CRS that pyproj knows, or none",
            "cube.rio.write_crs('EPSG:32629') with the right one, or cube.drop_vars('spatial_ref')",
        ) from error


def crs_as_coordinate(ds: xr.Dataset) -> xr.Dataset:
    """The same with its CRS as a coordinate: opened without ``decode_coords="all"`` it is a variable beside others."""
    told = {str(array.attrs.get("grid_mapping")) for array in ds.data_vars.values()}
    return ds.set_coords(sorted(told & {str(name) for name in ds.data_vars}))


def understand(obj: xr.DataArray | xr.Dataset, bands: Sequence[str] | None = None) -> Cube:
    """Tell a cube's dimensions, bands and sensor from its names.

    Parameters
    ----------
    obj : DataArray or Dataset
        A cube (time, band, y, x), a Dataset with one such variable, or a Dataset with bands as variables
        (time, y, x).
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
    """
    bands = _names(bands)
    if isinstance(obj, xr.DataArray):
        check_sizes(obj)
        return _from_array(obj, "array", bands, ())
    if not isinstance(obj, xr.Dataset):
        raise OptionTypeError(
            f"the cube is a {type(obj).__name__}",
            "an xarray DataArray (time, band, y, x) or Dataset",
            "xr.DataArray(values, dims=('time', 'band', 'y', 'x'), coords={'time': dates, 'band': names})",
        )
    check_sizes(obj)
    names = [str(name) for name in obj.variables]
    array = _only_4d(obj)
    if array is not None and (bands is None or not set(bands) <= set(map(str, obj.data_vars))):
        return _from_array(array, "variable", bands, names)
    return _from_bands(obj, bands, names)


def _names(bands: Sequence[str] | None) -> list[str] | None:
    if bands is None:
        return None
    remedy = "bands=['red', 'nir'], or no bands= for all that there are"
    names = parse_list("bands", bands, remedy)
    strange = next((name for name in names if not isinstance(name, str)), None)
    if strange is not None:
        raise OptionTypeError(f"bands holds {strange!r}, a {type(strange).__name__}", "names, as text", remedy)
    return names


def _only_4d(ds: xr.Dataset) -> xr.DataArray | None:
    found = {
        str(name): variable
        for name, variable in ds.data_vars.items()
        if any(d in variable.dims for d in DIM_NAMES["band"]) and any(d in variable.dims for d in DIM_NAMES["time"])
    }
    if len(found) > 1 and "reflectance" in found:
        return found["reflectance"]
    if len(found) > 1:
        raise BandError(
            f"the Dataset has {len(found)} variables with a band dimension: {', '.join(found)}",
            "one, or one that is called 'reflectance'",
            f"ds.rename({next(iter(found))}='reflectance'), or ds[[{next(iter(found))!r}, 'cloud_mask']]",
        )
    return next(iter(found.values()), None)


def _called(array: xr.DataArray) -> str:
    return "the cube" if array.name is None else str(array.name)


def _rename(array: xr.DataArray, needed: Sequence[str]) -> tuple[xr.DataArray, dict[str, str]]:
    """The array with the dimensions that are needed, in this order, and the user's names of them."""
    dims: dict[str, str] = {}
    for role in needed:
        for name in DIM_NAMES[role]:
            if name in array.dims:
                dims[role] = name
                break
        else:
            strange = [d for d in array.dims if not any(d in names for names in DIM_NAMES.values())]
            raise DimensionError(
                f"{_called(array)} has dimensions {array.dims} and none of {DIM_NAMES[role]}",
                f"dimensions {tuple(needed)}",
                f"cube.rename({{{strange[0]!r}: {role!r}}})" if strange else f"cube.expand_dims({role!r})",
            )
    extra = [d for d in array.dims if d not in dims.values()]
    if extra:
        raise DimensionError(
            f"{_called(array)} has the further dimensions {tuple(extra)}",
            f"dimensions {tuple(needed)} and no other",
            f"cube.isel({{{extra[0]!r}: 0}}, drop=True)",
        )
    empty = [d for d in array.dims if array.sizes[d] == 0]
    if empty:
        raise DimensionError(
            f"{_called(array)} is empty along {tuple(empty)}",
            "at least one element along each dimension",
            f"cube.sel({empty[0]}=slice(larger, smaller)) if a selection made it: y often runs from large to small",
        )
    for role, name in dims.items():
        if name != role and role in array.coords:
            raise DimensionError(
                f"{_called(array)} has a dimension {name!r} and beside it a coordinate {role!r}",
                f"the coordinate of the dimension under one name, {role!r} or {name!r}",
                f"cube.swap_dims({name}={role!r}) if it is the dimension's own, else cube.drop_vars({role!r})",
            )
    renamed = array.rename({name: role for role, name in dims.items() if name != role})
    return renamed.transpose(*needed), dims


def check_sizes(obj: xr.DataArray | xr.Dataset, called: str = "cube") -> None:
    """Refuse chunks of unknown size, as dask has them after a selection by values.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube, or a layer.
    called : str
        The argument by which it was given.

    Raises
    ------
    DimensionError
        If the size along a dimension is not known.
    """
    unknown = tuple(str(d) for d, size in obj.sizes.items() if np.isnan(size))
    if not unknown:
        return
    counted = f"{called}.copy(data={called}.data.compute_chunk_sizes())"
    if isinstance(obj, xr.Dataset):
        counted = f"{called}.map(lambda layer: layer.copy(data=layer.data.compute_chunk_sizes()))"
    raise DimensionError(
        f"the size of {called} along {unknown} is not known: dask has not counted what was selected",
        "a size along each dimension",
        f"{counted}, which computes the selection",
    )


def _from_array(array: xr.DataArray, kind: Kind, bands: Sequence[str] | None, names: Sequence[str]) -> Cube:
    cube, dims = _rename(array, ("time", "band", "y", "x"))
    if "band" in cube.coords:
        labels = [str(label) for label in cube["band"].to_numpy()]
    else:
        labels = [f"band{i + 1}" for i in range(cube.sizes["band"])]
        cube = cube.assign_coords(band=labels)
    _check_bands(labels)
    # All bands together tell the sensor, and what a band's name means on it.
    sensor = _sensor(labels, names)
    roles = common_names(labels)
    if bands:
        index = [labels.index(_known(band, labels)) for band in bands]
        cube, labels, roles = cube.isel(band=index), [labels[i] for i in index], tuple(roles[i] for i in index)
        _check_bands(labels)
    _check_numbers(cube)
    _check_grid(cube)
    return Cube(
        arrays=(cube,),
        kind=kind,
        bands=tuple(labels),
        roles=roles,
        dims=dims,
        sensor=sensor,
        name=None if array.name is None else str(array.name),
    )


def _from_bands(ds: xr.Dataset, bands: Sequence[str] | None, names: Sequence[str]) -> Cube:
    variables = [str(name) for name in ds.data_vars]
    roles = dict(zip(variables, common_names(variables), strict=True))
    if bands:
        chosen = [_known(band, variables) for band in bands]
        _check_bands(chosen)
    else:
        chosen = [v for v in variables if roles[v]]
        if not chosen:
            for array in ds.data_vars.values():  # what may be meant as the cube has a dimension too few, or misnamed
                if array.ndim > 3 or any(d in array.dims and array.ndim == 3 for d in DIM_NAMES["band"]):
                    _rename(array, ("time", "band", "y", "x"))
            raise BandError(
                f"none of the variables ({', '.join(variables) or 'there are none'}) has the name of a band",
                "one variable (time, band, y, x), or variables named as bands (B02, red, SR_B4 …)",
                f"bands={variables[:3]!r}" if variables else "xr.Dataset({'B02': red, 'B03': green}), and so on",
            )
    first = ds[chosen[0]]
    alike = [band for band in chosen if set(ds[band].dims) == set(first.dims)]
    other = next((ds[band] for band in chosen if band not in alike), None)
    if other is not None:
        raise DimensionError(
            f"{other.name} has dimensions {other.dims}, {first.name} {first.dims}",
            "one grid and the same dates for all bands",
            f"bands={alike!r} with bands that go together, or load all with one resolution=",
        )
    arrays: list[xr.DataArray] = []
    dims: dict[str, str] = {}
    for band in chosen:
        array, dims = _rename(ds[band], ("time", "y", "x"))
        _check_numbers(array)
        arrays.append(array)
    _check_grid(arrays[0])
    kinds = {array.dtype.newbyteorder("=") for array in arrays}
    if len(kinds) > 1 and any(kind.kind in "ui" for kind in kinds):
        raise BandError(
            "the bands have different dtypes: " + ", ".join(f"{array.name} {array.dtype}" for array in arrays),
            "one dtype for all bands that are whole numbers",
            f"cube.astype({str(np.result_type(*kinds))!r}), or bands= with bands that go together",
        )
    return Cube(
        arrays=tuple(arrays),
        kind="bands",
        bands=tuple(chosen),
        roles=tuple(roles[band] for band in chosen),
        dims=dims,
        sensor=_sensor(variables, names),
        name=None,
    )


def _known(band: str, names: Sequence[str]) -> str:
    """The band of this name, or of this common name where one has it."""
    if band in names:
        return band
    # Only common names are translated: "B2" is another band on another sensor.
    meant = [name for name, role in zip(names, common_names(names), strict=True) if role == band]
    if band in BAND_NAMES and len(meant) == 1:
        return meant[0]
    near = difflib.get_close_matches(str(band), names, n=1, cutoff=0.4)
    raise BandError(f"there is no band {band!r}", f"one of {tuple(names)}", f"bands=[{(near or list(names))[0]!r}]")


def _check_bands(labels: Sequence[str]) -> None:
    doubled = [name for name, n in Counter(labels).items() if n > 1]
    if doubled:
        raise BandError(
            f"the band {doubled[0]!r} is there {Counter(labels)[doubled[0]]} times",
            "each band once",
            "cube.drop_duplicates('band')",
        )


def _check_numbers(array: xr.DataArray) -> None:
    if array.dtype.kind not in "uif":
        raise BandError(
            f"the values of {_called(array)} have dtype {array.dtype}",
            "numbers: unsigned or signed integers, or floats",
            "cube.astype('float32')",
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
