"""GeoTIFFs of filled images: the content of each file, written block by block and read back."""

from __future__ import annotations

import threading
import zlib
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.compat import raster_errors
from xr_cloudfree.cube.crs import crs_remedy
from xr_cloudfree.cube.dims import time_of
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.errors import OutputError, warn
from xr_cloudfree.layers import LAYERS
from xr_cloudfree.storage.files import write_error
from xr_cloudfree.storage.geotransform import assumed_of, axes_of, transform_of

_NO_DAY = np.iinfo(np.int32).min


def layer_path(path: Path, layer: str) -> Path:
    """Return the path of a layer beside the GeoTIFF of an image."""
    return path.with_name(f"{path.stem}.{layer}{path.suffix}")


def plan(image: xr.Dataset, paths: Sequence[Path], time: str) -> dict[Path, xr.DataArray]:
    """Return the array of each GeoTIFF, north up; the images first."""
    import rioxarray  # noqa: F401  registers .rio

    arrays = {str(name): array for name, array in image.data_vars.items()}
    bands = [name for name, array in arrays.items() if name not in LAYERS and "cloudfree_model" in array.attrs]
    if not bands:
        raise OutputError("the image has no band", "what fill() gave", "xr_cloudfree.fill(cube, date, layers='filled')")
    first = arrays[bands[0]]
    axes = axes_of(image)
    if first.rio.crs is None or len(axes) < 2:
        raise OutputError(
            "the cube does not say where on Earth it lies (no CRS, or no coordinates)",
            "a CRS and coordinates, for a GeoTIFF",
            f"an output .zarr, or {crs_remedy(first)} in Python before it is saved",
        )
    if assumption := assumed_of(first):
        warn(assumption)
    if len(bands) > 1:
        label = xr.Variable("band", np.array(bands, object))
        joined = xr.concat([arrays[name] for name in bands], label, coords="minimal", compat="override", join="exact")
        # Bands come first in a file, after the dates.
        joined = joined.transpose(..., "band", axes["y"], axes["x"])
        joined.encoding = first.encoding
        first = joined
    layers = {name: array for name, array in arrays.items() if name not in bands}
    turned = {name: slice(None, None, -1) for role, name in axes.items() if runs_against_the_map(image[name], role)}
    files: dict[Path, xr.DataArray] = {}
    for name, array in {"": first.rename(bands[0] if len(bands) == 1 else "reflectance"), **layers}.items():
        array = array.isel(turned)
        for i, path in enumerate(paths):
            single = array.isel({time: i}) if time in array.dims else array
            files[layer_path(path, name) if name else path] = single
    return files


def runs_against_the_map(axis: xr.DataArray, role: str) -> bool:
    """Return whether an axis must be reversed for north to be up and east to the right."""
    rises = bool(axis[-1] > axis[0])
    return rises if role == "y" else not rises


@dataclass(eq=False)
class _Target:
    """A GeoTIFF as a target of `dask.array.store`; closing it compares the file with the blocks written."""

    output: Path
    path: Path
    file: Any
    sums: dict[tuple[tuple[int, ...], Any], int] = field(default_factory=dict)

    def __setitem__(self, region: tuple[slice, ...], block: NDArray[Any]) -> None:
        from rasterio.windows import Window

        if self.file.closed:  # another block failed while this one was computed
            return
        bands = (1,) if block.ndim == 2 else tuple(range(region[0].start + 1, region[0].stop + 1))
        window = Window.from_slices(*region[-2:])
        values = np.ascontiguousarray(block, dtype=self.file.dtypes[0]).reshape(len(bands), *block.shape[-2:])
        try:
            self.file.write(values, bands, window=window)
        except raster_errors() as error:
            raise write_error(self.output, error) from error
        self.sums[bands, window] = zlib.crc32(values.data)

    def __dask_tokenize__(self) -> str:
        return str(self.path)

    def close(self) -> None:
        """Close the file and compare it with what was written: GDAL does not report a full disk for the last blocks."""
        import rasterio

        profile = _profile(self.file)
        try:
            self.file.close()
            with rasterio.open(self.path) as file:
                same = _profile(file) == profile and all(
                    zlib.crc32(file.read(bands, window=window).data) == sum_
                    for (bands, window), sum_ in self.sums.items()
                )
        except raster_errors() as error:
            raise write_error(self.output, error) from error
        if not same:
            raise write_error(self.output, "it differs from what was written")


def _profile(file: Any) -> dict[str, Any]:
    """Return everything an open GeoTIFF contains except its values."""
    return {
        "crs": file.crs is not None,
        "transform": tuple(file.transform),
        "nodata": repr(file.nodata),
        "scales": (file.scales, file.offsets),
        "names": file.descriptions,
        "tags": {key: value for key, value in file.tags().items() if key != "AREA_OR_POINT"},
        "shape": (file.count, *file.shape, file.dtypes),
    }


def same_raster(a: Path, b: Path) -> bool:
    """Return whether two GeoTIFFs have the same content and the overviews of the first can be read.

    Parameters
    ----------
    a, b : Path
        The files; a file that cannot be read differs.
    """
    import rasterio

    try:
        with rasterio.open(a) as first, rasterio.open(b) as second:
            if _profile(first) != _profile(second):
                return False
            for _, window in first.block_windows(1):
                if first.read(window=window).tobytes() != second.read(window=window).tobytes():
                    return False
            levels = range(len(first.overviews(1)))
        for level in levels:
            with rasterio.open(a, overview_level=level) as smaller:
                for _, window in smaller.block_windows(1):
                    smaller.read(window=window)
    except raster_errors():
        return False
    return True


def write(files: Mapping[Path, xr.DataArray], parts: Mapping[Path, Path], scaling: Scaling) -> None:
    """Write several GeoTIFFs, block by block, and read them back.

    Parameters
    ----------
    files : mapping of Path to DataArray
        The array of each output, see `plan`.
    parts : mapping of Path to Path
        The temporary path of each output.
    scaling : Scaling
        The scaling of the stored numbers, if attributes do not give it.

    Raises
    ------
    OutputError
        If a file cannot be written, or differs from what was written when read back.
    """
    import dask.array as da
    import rasterio

    sources: list[Any] = []
    targets: list[Any] = []
    with ExitStack() as stack:
        for output, array in files.items():
            data, profile = _encode(array, scaling)
            scale, offset = profile.pop("scale"), profile.pop("offset")
            try:
                file = stack.enter_context(rasterio.open(parts[output], "w", **profile))
            except raster_errors() as error:
                raise write_error(output, error) from error
            for i, name in enumerate(_descriptions(array)):
                file.set_band_description(i + 1, name)
            if (scale, offset) != (1.0, 0.0):
                file.scales, file.offsets = [scale] * file.count, [offset] * file.count
            file.update_tags(**_tags(array))
            sources.append(data if hasattr(data, "__dask_graph__") else da.from_array(data))
            targets.append(_Target(output, parts[output], file))
        lock = threading.Lock()
        try:
            # One graph for all files, so that shared blocks are computed once.
            da.store(sources, targets, lock=lock)
        except BaseException:
            with lock:  # other blocks may still be in progress, and GDAL crashes if it writes to a closed file
                stack.close()
            raise
        for target in targets:
            target.close()


def _encode(array: xr.DataArray, scaling: Scaling) -> tuple[Any, dict[str, Any]]:
    """Return the stored numbers and the profile of the file."""
    layer = array.name in LAYERS
    nodata: float | None
    if array.dtype.kind == "M":
        days = array.astype("datetime64[ns]").astype("int64") // (86400 * 10**9)
        stored, nodata = days.where(array.notnull(), _NO_DAY).astype("int32").variable, _NO_DAY
        scale, offset = 1.0, 0.0
    else:
        stored = xr.conventions.encode_cf_variable(array.variable)
        if stored.dtype.kind == "b":
            stored = stored.astype("uint8")
        attrs = stored.attrs
        known = Scaling() if layer or stored.dtype.kind == "f" else scaling
        nodata = attrs.get("_FillValue", known.nodata)
        if nodata is None and stored.dtype.kind == "f":
            nodata = np.nan
        scale = float(attrs.get("scale_factor", known.scale if known.scale is not None else 1.0))
        offset = float(attrs.get("add_offset", known.offset))
    rows, columns = stored.shape[-2:]
    chunks = stored.chunks[-2:] if stored.chunks else ((rows,), (columns,))
    return stored.data, {
        "driver": "GTiff",
        "height": rows,
        "width": columns,
        "count": 1 if stored.ndim == 2 else stored.shape[0],
        "dtype": stored.dtype.name,
        "crs": array.rio.crs,
        "transform": transform_of(array),
        "nodata": nodata,
        "tiled": True,
        "blockysize": _tile(chunks[0]),
        "blockxsize": _tile(chunks[1]),
        "interleave": "band",
        "compress": "deflate",
        "predictor": 3 if stored.dtype.kind == "f" else 2,
        "bigtiff": "if_safer",
        "scale": scale,
        "offset": offset,
    }


def _tile(chunks: tuple[int, ...]) -> int:
    """Return the edge of the file's tiles: a divisor of the block, so that each block fills whole tiles."""
    return next((n for n in (512, 256, 128, 64) if chunks[0] % n == 0), 256)


def _descriptions(array: xr.DataArray) -> list[str]:
    if array.ndim == 2:
        return [str(array.name)]
    first = array.dims[0]
    if first not in array.coords:
        return [f"{first} {i + 1}" for i in range(array.sizes[first])]
    return [str(label) for label in array[first].to_numpy()]


def _tags(array: xr.DataArray) -> dict[str, str]:
    skipped = (
        "scale_factor",
        "add_offset",
        "_FillValue",
        "missing_value",
        "nodata",
        "grid_mapping",
        "long_name",
    )
    tags = {str(key): str(value) for key, value in array.attrs.items() if key not in skipped and value is not None}
    if array.dtype.kind == "M":
        tags["units"] = "days since 1970-01-01"
    if "flag_values" in array.attrs:
        tags["flag_values"] = " ".join(str(value) for value in array.attrs["flag_values"])
    time = time_of(array)
    if time is not None and array[time].ndim == 0:
        tags["time"] = str(np.datetime_as_string(array[time].to_numpy(), unit="s"))
    return tags
