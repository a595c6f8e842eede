"""`open_eopf`: products of Sentinel-2 in ESA's Zarr format as a lazy cube.

A product is a hierarchy of groups: ``measurements/reflectance`` has a group for each pixel size, with the bands at this
size, ``conditions/mask/l2a_classification`` the scene classification. The attributes of its root contain a STAC item,
``stac_discovery``. See https://zarr.eopf.copernicus.eu and the product definition at
https://cpm.pages.eopf.copernicus.eu/eopf-cpm/main/PSFD/index.html
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np
import xarray as xr

from xr_cloudfree import io
from xr_cloudfree.compat import has_graph, raw_data
from xr_cloudfree.cube.scaling import NODATA_KEYS
from xr_cloudfree.cube.sensors import common_names_of
from xr_cloudfree.errors import (
    BandError,
    GridError,
    InputError,
    OptionError,
    OptionTypeError,
    ScalingError,
    either,
    option,
)
from xr_cloudfree.loading.load import described
from xr_cloudfree.loading.products import PRODUCTS
from xr_cloudfree.loading.scenes import Scene, check_bands, parse_scenes
from xr_cloudfree.loading.shifts import shifted
from xr_cloudfree.options import parse_flag, parse_list

Resampling = Literal["nearest", "average"]

_BANDS, _CLASSES = "measurements/reflectance", "conditions/mask/l2a_classification"
# Pixel sizes in metres, and where a band is taken from at each of them: the nearest finer or coarser size.
_SIZES = {10: (10, 20, 60), 20: (20, 10, 60), 60: (60, 20, 10)}
_GROUPS = tuple(f"{folder}/r{size}m" for folder in (_BANDS, _CLASSES) for size in _SIZES)
_PRODUCT = PRODUCTS[0]
_EXAMPLE = "xr_cloudfree.open_eopf(['S2B_MSIL2A_20250627T101041_N0511_R022_T32TPS_20250627T134213.zarr'])"


@dataclass(frozen=True, eq=False)
class _Opened:
    """A product: its item, its groups by path, and where each band and the quality layer are, by pixel size."""

    scene: Scene
    groups: Mapping[str, xr.Dataset]
    places: Mapping[str, Mapping[int, xr.DataArray]]


def open_eopf(
    products: str | os.PathLike[str] | xr.DataTree | Iterable[str | os.PathLike[str] | xr.DataTree],
    *,
    resolution: int = 10,
    bands: Sequence[str] | None = None,
    mask: bool = True,
    resampling: Resampling | None = None,
    offset: float | Mapping[str, float] | None = None,
) -> xr.Dataset:
    """Open Sentinel-2 products in ESA's Zarr format (EOPF) as a lazy cube that `fill` takes as it is.

    Parameters
    ----------
    products : path, URL, DataTree, or iterable of these
        Level-2A products of one tile, one or more for each date: Zarr stores as the EOPF Sample Service has them, or
        what `xarray.open_datatree` returns for one, whether its values were decoded or not.
    resolution : {10, 20, 60}
        Pixel size in metres.
    bands : sequence of str, optional
        STAC common names (``"red"``) or those of the product (``"b04"``); the variables of the cube have the names
        that are given. By default those that the products have at this resolution, without the ones for the
        atmosphere.
    mask : bool
        Whether to open the scene classification. It is put on the grid by the nearest pixel.
    resampling : {"nearest", "average"}, optional
        How bands that the products do not have at this resolution are put on the grid. Pixels of coarser bands are
        repeated. Of finer bands, the pixel nearest to the centre is taken, or the average of the valid ones. By
        default they are an error.
    offset : float or mapping of str to float, optional
        Reflectance of a stored zero, where metadata are wrong: of all products, or by the identifier of a product.

    Returns
    -------
    Dataset
        Bands and ``scl`` as variables (time, y, x) in order of time, as stored: reflectance is stored *
        ``scale_factor`` + ``add_offset``, and ``_FillValue`` is missing, as their attributes say. All products have one
        encoding, that of processing baseline 04.00 and later. Coordinates along time: ``item_id``, ``platform``,
        ``baseline`` and ``cloud_cover`` in percent. Of several products of one acquisition, the newest baseline is
        taken.

    Raises
    ------
    OptionError, OptionTypeError
        If an option cannot be used, or there is nothing at a path.
    InputError
        If something is not a product, or cannot be read.
    BandError, MaskError
        If products lack a band or the classification.
    GridError
        If products are on different grids, or have no CRS.
    ScalingError
        If the encoding of a product is unknown.
    TimeError
        If a product has no time.

    Examples
    --------
    >>> import xr_cloudfree
    >>> cube = xr_cloudfree.open_eopf(
    ...     ["S2B_MSIL2A_20250627.zarr", "S2A_MSIL2A_20250629.zarr"], bands=["b04", "b08"]
    ... )  # doctest: +SKIP
    >>> image = cube.isel(x=slice(0, 1024), y=slice(0, 1024)).cloudfree.fill(date="2025-06-27")  # doctest: +SKIP
    """
    if isinstance(resolution, bool) or resolution not in _SIZES:
        raise OptionError(f"resolution is {resolution!r}", "10, 20 or 60 metres", option("resolution=20"))
    if resampling not in (None, "nearest", "average"):
        raise OptionError(f"resampling is {resampling!r}", "nearest or average", option("resampling='average'"))
    names = None if bands is None else parse_list("bands", bands, option("bands=['b04', 'b08']"))
    opened = _in_order([_open(source) for source in _sources(products)], offset)
    scenes = [product.scene for product in opened]
    size = int(resolution)
    if names is None:
        names = _native(opened, size)
    variables = check_bands(scenes, names, parse_flag("mask", mask))
    y, x, crs = _grid(opened, size)
    layers = {}
    for name, own in variables.items():
        is_mask = own == _PRODUCT.mask
        how = "nearest" if is_mask else resampling
        dates = [_on_grid(product, own, name, size, how, (y.size, x.size)) for product in opened]
        layers[own] = xr.concat([xr.DataArray(date, dims=("y", "x")) for date in dates], "time")
    cube = xr.Dataset(layers, coords={"y": y, "x": x}).rio.write_crs(crs)
    return described(cube, [[scene] for scene in scenes], variables)


def _sources(products: Any) -> list[Any]:
    single = (str, os.PathLike, xr.DataTree)
    if isinstance(products, single):
        return [products]
    try:
        # Iterating a Dataset would give names, which look like paths.
        sources = [products] if isinstance(products, xr.Dataset | xr.DataArray) else list(products)
    except TypeError:
        sources = [products]
    for source in sources:
        if not isinstance(source, single):
            raise OptionTypeError(
                f"a product is a {type(source).__name__}", "paths, URLs, or what open_datatree returns", _EXAMPLE
            )
    if not sources:
        raise OptionError("there are no products", "at least one", _EXAMPLE)
    return sources


def _open(source: str | os.PathLike[str] | xr.DataTree) -> tuple[str, Mapping[str, Any], Mapping[str, xr.Dataset]]:
    """Return the name of a product for messages, the attributes of its root, and those of its groups that are used."""
    if isinstance(source, xr.DataTree):
        name = f"the DataTree {source.name}" if source.name else "the DataTree"
        nodes = ((path.strip("/"), node) for path, node in source.subtree_with_keys)
        groups = {path: node.to_dataset(inherit=False) for path, node in nodes if path in _GROUPS}
        attrs = {str(key): value for key, value in source.attrs.items()}
    else:
        name = os.fspath(source)
        attrs, groups = io.open_groups(source, _GROUPS, mask_and_scale=False, decode_coords="all")
    if not any(path.startswith(_BANDS) for path in groups):
        raise InputError(
            f"{name} has no group {_BANDS}/r10m",
            "a product of Sentinel-2 in the Zarr format of EOPF",
            "xr_cloudfree.load(...) for STAC items, xr_cloudfree.io.open_cube(path) for cubes",
        )
    return name, attrs, groups


def _in_order(opened: Sequence[tuple[str, Mapping[str, Any], Mapping[str, xr.Dataset]]], offset: Any) -> list[_Opened]:
    """Return the products in order of time; of those of one acquisition, that of the newest baseline."""
    places = [_places(groups) for _, _, groups in opened]
    records = [_item(name, attrs, found) for (name, attrs, _), found in zip(opened, places, strict=True)]
    by_id = {record["id"]: i for i, record in enumerate(records)}
    scenes = parse_scenes(records, offset)
    newest: dict[np.datetime64, Scene] = {}
    for scene in sorted(scenes, key=lambda scene: (float(scene.baseline or 0), scene.id)):
        newest[scene.when] = scene
    order = sorted(newest.values(), key=lambda scene: scene.when)
    return [_Opened(scene, opened[by_id[scene.id]][2], places[by_id[scene.id]]) for scene in order]


def _places(groups: Mapping[str, xr.Dataset]) -> dict[str, dict[int, xr.DataArray]]:
    """Return the arrays of a product by common name, or name of the quality layer, and by pixel size."""
    places: dict[str, dict[int, xr.DataArray]] = {}
    for folder in (_BANDS, _CLASSES):
        for size in _SIZES:
            group = groups.get(f"{folder}/r{size}m")
            if group is None:
                continue
            keys = [str(name) for name in group.data_vars]
            names: Iterable[str | None] = common_names_of(keys, _PRODUCT.sensor)
            if folder == _CLASSES:
                names = [key if key == _PRODUCT.mask else None for key in keys]
            for key, name in zip(keys, names, strict=True):
                if name is not None and set(group[key].dims) == {"y", "x"}:
                    places.setdefault(name, {})[size] = group[key].transpose("y", "x")
    return places


def _item(name: str, attrs: Mapping[str, Any], places: Mapping[str, Mapping[int, xr.DataArray]]) -> dict[str, Any]:
    """Return a product as a STAC item: the one in its metadata, with its bands as assets and the encoding of each."""
    found = attrs.get("stac_discovery")
    record: dict[str, Any] = dict(found) if isinstance(found, Mapping) else {}
    properties = dict(record.get("properties") or {})
    other = attrs.get("other_metadata")
    code = other.get("horizontal_CRS_code") if isinstance(other, Mapping) else None
    if code:
        properties["proj:code"] = code
    assets = {}
    for own, sizes in places.items():
        array = next(iter(sizes.values()))
        projection = {key: array.attrs[key] for key in ("proj:code", "proj:epsg") if key in array.attrs}
        assets[own] = {**projection, **({} if own == _PRODUCT.mask else _encoding(name, array))}
    return {
        "type": "Feature",
        "id": str(record.get("id") or os.path.basename(name.rstrip("/")).removesuffix(".zarr")),
        "collection": str(record.get("collection") or _PRODUCT.example),
        "geometry": record.get("geometry"),
        "properties": properties,
        "assets": assets,
    }


def _encoding(name: str, array: xr.DataArray) -> dict[str, float]:
    """Return scale and offset of a band as stored, from CF attributes, applied already or not, or those of EOPF."""
    own = array.attrs.get("_eopf_attrs")
    sources: list[Mapping[Any, Any]] = [array.encoding, array.attrs] if array.dtype.kind == "f" else [array.attrs]
    sources += [own] if isinstance(own, Mapping) else []
    scale = next((source["scale_factor"] for source in sources if source.get("scale_factor") is not None), None)
    offset = next((source["add_offset"] for source in sources if source.get("add_offset") is not None), None)
    if array.dtype.kind == "f" and "scale_factor" not in array.encoding:
        raise ScalingError(
            f"{array.name} of {name} has {array.dtype} values, and its encoding is gone",
            "values as they are in the product, or as xarray decodes them",
            "xr_cloudfree.open_eopf(path), or xarray.open_datatree(path) without further computations",
        )
    marks = [source[key] for source in sources for key in (*NODATA_KEYS, "fill_value") if source.get(key) is not None]
    wrong = next((mark for mark in marks if float(mark) == float(mark) and float(mark) != 0), None)
    if wrong is not None:
        raise ScalingError(
            f"{array.name} of {name} has the nodata value {wrong:g}", "0, as products of Sentinel-2 have it", _EXAMPLE
        )
    return {} if scale is None else {"raster:scale": float(scale), "raster:offset": float(offset or 0.0)}


def _native(opened: Sequence[_Opened], size: int) -> list[str]:
    """Return the common names of the bands that all products have at a pixel size."""
    common = [name for name in _PRODUCT.bands if all(size in product.places.get(name, {}) for product in opened)]
    if not common:
        has = [f"{product.scene.id} has {', '.join(product.places) or 'none'}" for product in opened[:2]]
        raise BandError(
            f"the products have no band in common at {size} m: {'; '.join(has)}",
            "bands at this resolution",
            either(*(option(f"resolution={other}") for other in _SIZES if other != size)),
        )
    return [name for name in common if name not in _PRODUCT.on_request] or common


def _grid(opened: Sequence[_Opened], size: int) -> tuple[xr.Variable, xr.Variable, str]:
    """Return the coordinates of the pixels along y and x, and the CRS; the same for all products."""
    import rioxarray  # noqa: F401  registers .rio

    axes, first = [_axes(product, size) for product in opened], opened[0].scene
    for product, (y, x) in zip(opened, axes, strict=True):
        scene = product.scene
        if scene.crs is None:
            raise GridError(
                f"the product {scene.id} does not say its CRS",
                "horizontal_CRS_code in its metadata, or proj:code",
                "tree.attrs['other_metadata'] = {'horizontal_CRS_code': 'EPSG:32632'}, with the right code",
            )
        if scene.crs != first.crs or not (np.array_equal(y, axes[0][0]) and np.array_equal(x, axes[0][1])):
            raise GridError(
                f"the products are on different grids: {first.id} in {first.crs}, from ({axes[0][1][0]:g}, "
                f"{axes[0][0][0]:g}); {scene.id} in {scene.crs}, from ({x[0]:g}, {y[0]:g})",
                "products of one tile",
                "a call for each tile, or xr_cloudfree.load(..., bbox=...) for areas that cross tiles",
            )
    y, x = axes[0]
    return xr.Variable("y", y), xr.Variable("x", x), str(first.crs)


def _axes(product: _Opened, size: int) -> tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]:
    """Return the coordinates of a product's pixels at a size, from those of any size that it has."""
    for own in _SIZES[size]:
        group = product.groups.get(f"{_BANDS}/r{own}m")
        if group is None or not {"y", "x"} <= set(group.coords):
            continue
        found = []
        for name, sign in (("y", -1), ("x", 1)):
            axis = group[name].to_numpy().astype(np.float64)
            count, step = axis.size * own // size, sign * float(size)
            found.append(axis[0] - sign * own / 2 + step * (np.arange(count) + 0.5))
            if count * size != axis.size * own or not np.allclose(np.diff(axis), sign * own):
                raise GridError(
                    f"the pixels of {product.scene.id} along {name} are not {own} m apart, or no multiple of {size} m",
                    "the whole grid of a product",
                    "open the product itself, and cut the cube: cube.isel(y=slice(0, 1024), x=slice(0, 1024))",
                )
        return found[0], found[1]
    raise GridError(
        f"the product {product.scene.id} has no coordinates y and x", "coordinates of pixels", "the product itself"
    )


def _on_grid(
    product: _Opened, own: str, name: str, size: int, resampling: Resampling | None, shape: tuple[int, int]
) -> Any:
    """Return the stored values of a band or of the quality layer on the grid, as a dask array (y, x)."""
    found = product.places[own]
    source = next(other for other in _SIZES[size] if other in found)
    is_mask = own == _PRODUCT.mask
    data = _stored(found[source], _PRODUCT.mask_dtype if is_mask else _PRODUCT.dtype)
    if source != size and resampling is None:
        raise BandError(
            f"{product.scene.id} has the band {name!r} at {source} m, not at {size} m",
            "bands at one resolution, or how to put them on one grid",
            either(
                option(f"resolution={source}"),
                option("resampling='average'" if source < size else "resampling='nearest'"),
            ),
        )
    if tuple(edge * source for edge in data.shape) != tuple(edge * size for edge in shape):
        raise GridError(
            f"{name} of {product.scene.id} has {data.shape[0]} x {data.shape[1]} pixels of {source} m, and the grid "
            f"{shape[0]} x {shape[1]} of {size} m",
            "layers of one extent",
            "the product as it was published",
        )
    if source > size:
        data = _blockwise(data, partial(_repeated, factor=source // size), source // size, 1)
    elif source < size:
        change = _averaged if resampling == "average" else _nearest
        data = _blockwise(data, partial(change, factor=size // source), 1, size // source)
    if product.scene.shift and not is_mask:
        data = data.map_blocks(shifted, product.scene.shift, 0, dtype=data.dtype)
    return data


def _stored(array: xr.DataArray, dtype: str) -> Any:
    """Return the values of an array as they are in the product, as a dask array."""
    if not has_graph(raw_data(array.variable)):
        array = array.chunk(array.encoding.get("preferred_chunks", {}))
    if array.dtype == dtype:
        return array.data
    scale = float(array.encoding.get("scale_factor", 1.0)) if array.dtype.kind == "f" else 1.0
    offset = float(array.encoding.get("add_offset", 0.0)) if array.dtype.kind == "f" else 0.0
    return array.data.map_blocks(_packed, scale, offset, dtype, dtype=np.dtype(dtype))


def _packed(values: np.ndarray[Any, Any], scale: float, offset: float, dtype: str) -> np.ndarray[Any, Any]:
    """Undo the decoding of whole numbers; NaN was 0."""
    wide = values.astype(np.float64)
    stored = np.rint((wide - offset) / scale)
    return np.where(np.isnan(wide), 0, stored).astype(dtype)


def _blockwise(data: Any, change: Any, up: int, down: int) -> Any:
    """Apply a change of resolution to the chunks of a dask array, which are whole numbers of coarse pixels."""
    if down > 1:
        data = data.rechunk(tuple(-(-max(sizes) // down) * down for sizes in data.chunks))
    chunks = tuple(tuple(size * up // down for size in sizes) for sizes in data.chunks)
    return data.map_blocks(change, chunks=chunks, dtype=data.dtype)


def _repeated(values: np.ndarray[Any, Any], factor: int) -> np.ndarray[Any, Any]:
    return values.repeat(factor, axis=0).repeat(factor, axis=1)


def _nearest(values: np.ndarray[Any, Any], factor: int) -> np.ndarray[Any, Any]:
    return values[factor // 2 :: factor, factor // 2 :: factor]


def _averaged(values: np.ndarray[Any, Any], factor: int) -> np.ndarray[Any, Any]:
    """Return the rounded average of the pixels that are not 0; 0 where all are."""
    rows, columns = (edge // factor for edge in values.shape)
    parts = values.reshape(rows, factor, columns, factor)
    count = (parts != 0).sum(axis=(1, 3))
    total = parts.sum(axis=(1, 3), dtype=np.float64)
    mean: np.ndarray[Any, Any] = np.rint(total / np.maximum(count, 1)).astype(values.dtype)
    return mean
