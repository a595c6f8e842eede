"""Sharpening of coarse bands by fine bands of the same dates: labelled cubes in, labelled cubes out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import xarray as xr

from xr_cloudfree.cube.conventions import Cube
from xr_cloudfree.cube.scaling import PACKING
from xr_cloudfree.errors import OptionError, option
from xr_cloudfree.layers import SHARPENED
from xr_cloudfree.sharpening.inputs import ONLY_DATE, Inputs, read_inputs
from xr_cloudfree.sharpening.job import build_graph, run_in_memory
from xr_cloudfree.version import __version__


def sharpen(
    obj: xr.DataArray | xr.Dataset,
    to: xr.DataArray | xr.Dataset,
    *,
    bands: Sequence[str] | None = None,
    clear: xr.DataArray | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    layers: str | Sequence[str] | None = None,
) -> Any:
    """Bring coarse bands to the pixels of fine bands of the same dates, such as Sentinel-2's 20 m bands to 10 m.

    Each date is sharpened by itself. The detail that the coarse bands lack is a linear function of that of the fine
    bands, which is learned from the same tile at the scale of the coarse bands; no training data are needed. Degraded
    again, the result gives the coarse bands. Chunked input gives a lazy result, which does not depend on the chunks.

    Parameters
    ----------
    obj : DataArray or Dataset
        The coarse bands, in any form that `fill` takes: a cube (time, band, y, x), a layer (time, y, x), or a Dataset.
        An image without a time dimension is taken as well.
    to : DataArray or Dataset
        The guide: the fine bands, on the same dates. Each coarse pixel consists of n by n fine pixels, n from 2 to 12,
        and both cover the same area. Sentinel-2: the bands of 10 m. Landsat: the panchromatic band.
    bands : sequence of str, optional
        The coarse bands to sharpen, in this order; by default all.
    clear : DataArray of bool, optional
        True where the guide is clear, as `clear_mask` returns it; on the guide's grid, or on a coarser one that nests
        exactly. By default every measured pixel is used: a cloud is in the bands of both resolutions, so it is
        sharpened like ground, but it takes part in the fit.
    scale, offset, nodata : float, optional
        Reflectance = stored * scale + offset, and the stored value that means "missing", for the bands of both
        resolutions; needed if the metadata do not give them.
    layers : {"sharpened", "all"}, optional
        ``"sharpened"`` adds a layer (time, y, x) of that name: 0 where no coarse band is measured, 1 where the guide
        was used, 2 where it is missing or not clear, so that the coarse bands are only interpolated.

    Returns
    -------
    DataArray or Dataset
        All bands on the grid of `to`: its own, unchanged, then the sharpened ones, in their own units, dtype and
        nodata. A Dataset of bands if `obj` is one; otherwise one array with a band dimension, in a Dataset if `obj`
        is a Dataset or `layers` are requested. The attribute ``cloudfree_sharpened`` names the bands that were
        sharpened. A pixel is nodata where its coarse pixel is.

    Raises
    ------
    DimensionError, BandError, TimeError, GridError, ScalingError, OptionError
        If the bands cannot be used: when called.

    Notes
    -----
    Where the guide lacks detail that the coarse bands had, or shows detail that they lack, no method can tell; see the
    guide, *Sharpening*, for the errors measured. Calls can be chained, so that all bands of 10 and 20 m guide those
    of 60 m: ``sharpen(ds60, to=sharpen(ds20, to=ds10))``.

    References
    ----------
    Wald et al. 1997, Fusion of satellite images of different spatial resolutions: assessing the quality of resulting
    images, Photogrammetric Engineering and Remote Sensing 63(6), 691-699.

    Examples
    --------
    >>> import xr_cloudfree
    >>> from xr_cloudfree import synthetic
    >>> truth = synthetic.truth("2023-06-01", shape=(1, 6, 96, 96), seed=1)
    >>> fine, coarse = truth.isel(band=slice(4)), truth.isel(band=slice(4, 6)).coarsen(y=2, x=2).mean()
    >>> image = xr_cloudfree.sharpen(coarse, to=fine)
    >>> dict(image.sizes)
    {'band': 6, 'y': 96, 'x': 96}
    >>> image.attrs["cloudfree_sharpened"]
    'B11, B12: pixels of 20 to 10, guided by B02, B03, B04, B08'
    """
    requested = _parse_layers(layers)
    inputs = read_inputs(obj, to, bands=bands, clear=clear, scale=scale, offset=offset, nodata=nodata)
    image, layer = _run(inputs)
    return _label(inputs, to, image, layer if requested else None)


def _parse_layers(layers: Any) -> bool:
    """Return whether the only layer there is was requested."""
    if layers == "all":
        return True
    if layers is None:
        return False
    names = [layers] if isinstance(layers, str) else list(layers)
    other = [name for name in names if name != SHARPENED.name]
    if other:
        raise OptionError(f"there is no layer {other[0]!r} here", SHARPENED.name, option(f"layers={SHARPENED.name!r}"))
    return bool(names)


def _run(inputs: Inputs) -> tuple[Any, Any]:
    arrays = [*inputs.guide.measured, *inputs.coarse.measured]
    arrays += [] if inputs.clear is None else [inputs.clear]
    if any(array.chunks is not None for array in arrays):
        # dask is imported only where it is needed.
        return build_graph(
            inputs.job, [array.variable.chunk().data if array.chunks is None else array.data for array in arrays]
        )
    return run_in_memory(inputs.job, [array.to_numpy() for array in arrays])


def _label(inputs: Inputs, to: Any, image: Any, layer: Any) -> Any:
    """Return guide and sharpened bands as one object, in the form of the coarse bands."""
    coarse, guide = inputs.coarse, inputs.guide
    step = [abs(float(cube.template.x[1] - cube.template.x[0])) for cube in (coarse, guide)]
    made = f"{', '.join(coarse.bands)}: pixels of {step[0]:g} to {step[1]:g}, guided by {', '.join(guide.bands)}"
    template = guide.template
    coords = {name: c.variable for name, c in template.coords.items() if set(c.dims) <= {"time", "y", "x"}}
    coords = {name: c for name, c in coords.items() if name not in ("band", "variable")}

    def described(array: xr.DataArray, source: xr.DataArray) -> xr.DataArray:
        array.attrs = {**source.attrs, "cloudfree_sharpened": made, "cloudfree_version": __version__}
        array.encoding = {key: source.encoding[key] for key in PACKING if key in source.encoding}
        return array

    if coarse.layout == "bands":
        variables = {
            name: described(
                xr.DataArray(image[:, i].astype(source.dtype), dims=("time", "y", "x"), coords=coords), source
            )
            for i, (name, source) in enumerate(zip(coarse.bands, coarse.arrays, strict=True))
        }
        earlier = _as_bands(guide, to, inputs.dated)
        out = earlier.assign({name: _own(array, inputs) for name, array in variables.items()})
    else:
        stacked = xr.DataArray(image, dims=("time", "band", "y", "x"), coords={**coords, "band": list(coarse.bands)})
        joined = _joined(guide, described(stacked, coarse.arrays[0]), coarse)
        if joined.chunks is not None:  # of one size, as stores need them, whatever those of the guide are
            joined = joined.chunk(time=1, band=-1, y=inputs.job.grid.block[0], x=inputs.job.grid.block[1])
        own = _own(joined, inputs).rename(coarse.name)
        if coarse.layout != "variable" and layer is None:
            return own
        out = own.to_dataset(name=coarse.name or "reflectance")
        if coarse.layout == "variable" and guide.layout == "variable":
            out = to.drop_vars([guide.name, guide.dims["band"]], errors="ignore").assign(out)
    if layer is not None:
        flags = xr.DataArray(layer, dims=("time", "y", "x"), coords=coords, attrs=SHARPENED.attrs)
        out[SHARPENED.name] = _own(flags, inputs)
    return out


def _own(array: xr.DataArray, inputs: Inputs) -> xr.DataArray:
    """Return an array with the user's names of the dimensions, and without a time dimension that he did not give."""
    guide = inputs.guide
    if not inputs.dated:
        array = array.isel(time=0)
        given = guide.arrays[0]["time"].to_numpy()[0]
        if given == np.datetime64(ONLY_DATE, "ns"):
            array = array.drop_vars("time")
    dims = {role: inputs.coarse.dims.get(role, role) for role in ("band",)} | guide.dims
    return array.rename({role: name for role, name in dims.items() if role in array.dims and role != name})


def _as_bands(guide: Cube, to: Any, dated: bool) -> xr.Dataset:
    """Return the guide as a Dataset of bands, unchanged."""
    if isinstance(to, xr.Dataset) and guide.layout == "bands":
        return to
    array = to if isinstance(to, xr.DataArray) else to[guide.name]
    if guide.layout == "layer":
        return array.rename(guide.bands[0]).to_dataset()
    others = to.drop_vars([guide.name, guide.dims["band"]]) if isinstance(to, xr.Dataset) else xr.Dataset()
    dim = guide.dims["band"]
    bands = {name: array.isel({dim: guide.labels.index(name)}, drop=True) for name in guide.bands}
    return others.assign(bands)


def _joined(guide: Cube, sharpened: xr.DataArray, coarse: Cube) -> xr.DataArray:
    """Return the guide's bands and the sharpened ones along one band axis."""
    if len(guide.measured) == 1 and "band" in guide.measured[0].dims:
        fine = guide.measured[0]
    else:
        fine = xr.concat(
            [
                array.drop_vars(["band"], errors="ignore").expand_dims(band=[name], axis=1)
                for name, array in zip(guide.bands, guide.measured, strict=True)
            ],
            dim="band",
            coords="minimal",
            compat="override",
            join="override",
        )
    fine = fine.assign_coords(band=("band", list(guide.bands)))
    along = [name for name, c in fine.coords.items() if "band" in c.dims and name != "band"]
    extra = {}
    for name in along:  # of both, or of neither: an attribute of the guide's bands alone would be half empty
        other = coarse.arrays[0].coords.get(name)
        if other is not None and other.dims == ("band",) and fine[name].dims == ("band",):
            picked = other.values[[coarse.labels.index(band) for band in coarse.bands]]
            extra[name] = ("band", np.concatenate([fine[name].values, picked]))
    attrs, encoding = sharpened.attrs, sharpened.encoding
    out = xr.concat(
        [fine.drop_vars(along), sharpened], dim="band", coords="minimal", compat="override", join="override"
    )
    out = out.assign_coords(extra)
    own = {key: attrs[key] for key in attrs if key.startswith("cloudfree_")}
    if "cloudfree_sharpened" in fine.attrs:  # the guide is itself partly sharpened
        own["cloudfree_sharpened"] = f"{fine.attrs['cloudfree_sharpened']}; {own['cloudfree_sharpened']}"
    out.attrs = {**fine.attrs, **own}
    out.encoding = encoding
    return out
