"""The public functions: labels in, labels out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar

import numpy as np
import pandas as pd
import xarray as xr

from xr_cloudfree.cube.conventions import Cube, understand
from xr_cloudfree.cube.dates import check_reach, cube_times, parse_targets, parse_window
from xr_cloudfree.cube.masks import MaskRule, Snow, resolve_mask
from xr_cloudfree.cube.scaling import PACKING, Scaling, resolve_scaling
from xr_cloudfree.engine.blocks import BlockJob
from xr_cloudfree.engine.clear import ClearJob
from xr_cloudfree.engine.eager import run_now
from xr_cloudfree.engine.fill import FILLED, NOT_FILLED, OBSERVED, FillJob
from xr_cloudfree.errors import ModelNotFoundError, OptionTypeError, SizeError
from xr_cloudfree.models import registry
from xr_cloudfree.models.auto import Auto
from xr_cloudfree.models.learned import Learned
from xr_cloudfree.models.protocol import FillModel
from xr_cloudfree.models.spec import ModelSpec
from xr_cloudfree.options import COMMON_LAYERS, LAYERS, parse_block, parse_layers
from xr_cloudfree.tiling.grid import TileGrid, choose_block
from xr_cloudfree.version import __version__

T = TypeVar("T", xr.DataArray, xr.Dataset)

# A graph of more tasks than this does not run well anywhere.
MAX_BLOCKS = 500_000


@dataclass(frozen=True, eq=False)
class Understood:
    """A cube with its mask and scaling: everything that metadata tells."""

    cube: Cube
    times: Any
    quality: xr.DataArray
    rule: MaskRule
    scaling: Scaling


def read(
    obj: xr.DataArray | xr.Dataset,
    *,
    clear: xr.DataArray | str | None = None,
    mask: xr.DataArray | str | None = None,
    scheme: str | None = None,
    threshold: float | None = None,
    snow: Snow = "clear",
    strict: bool = False,
    dilate: int = 0,
    bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
) -> Understood:
    """Understand a cube, its mask and its scaling from metadata; nothing is computed. See `fill`."""
    cube = understand(obj, bands)
    times = cube_times(cube.arrays[0])
    standard = {name: role for role, name in cube.dims.items()}

    def renamed(layer: Any) -> Any:
        if not isinstance(layer, xr.DataArray):
            return layer
        return layer.rename({a: b for a, b in standard.items() if a != b and a in (*layer.dims, *layer.coords)})

    layers = obj.data_vars if isinstance(obj, xr.Dataset) else {}
    quality, rule = resolve_mask(
        {str(name): renamed(layer) for name, layer in layers.items() if name not in cube.bands},
        clear=renamed(clear),
        mask=renamed(mask),
        scheme=scheme,
        threshold=threshold,
        snow=snow,
        strict=strict,
        dilate=dilate,
        template=cube.template,
    )
    scaling = resolve_scaling(cube.arrays, scale=scale, offset=offset, nodata=nodata)
    return Understood(cube, times, quality, rule, scaling)


def fill(
    obj: T,
    date: Any = None,
    *,
    model: str | FillModel = "auto",
    clear: xr.DataArray | str | None = None,
    mask: xr.DataArray | str | None = None,
    scheme: str | None = None,
    threshold: float | None = None,
    snow: Snow = "clear",
    strict: bool = False,
    dilate: int = 0,
    bands: Sequence[str] | None = None,
    window: Any = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
    layers: Literal["all"] | str | Sequence[str] | None = None,
    screen: bool = False,
    check: bool = True,
    block: int | tuple[int, int] | None = None,
) -> Any:
    """Make the clear image of any date from a cloudy time series.

    The target's own clear pixels come back bit for bit; the others are estimated by the model from the other dates,
    and for some models from the target's own clear pixels as well. Where nothing is known the output is nodata.
    Chunked input gives a lazy result, one task per block; the answer does not depend on the chunks.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube: a DataArray (time, band, y, x), a Dataset with one such variable, or a Dataset with bands as
        variables (time, y, x), as odc-stac loads it. ``latitude``/``longitude`` are accepted for ``y``/``x``.
    date : str, datetime, numpy.datetime64, pandas.Timestamp, a sequence of these, or None
        The target date or dates, ISO 8601, UTC. A date without a time means that day's observation if there is one.
        None means every date of the cube.
    model : str or FillModel
        ``"auto"``, a name from `list_models`, ``"local-dir:PATH"`` or ``"hf-hub:organisation/name"`` for a learned
        model (see `from_pretrained`), or an object that follows the `FillModel` protocol. ``"auto"`` is the learned
        model that comes with the package, if there is one and torch is installed; else ``"regress"`` if a target
        date was observed, and ``"linear"`` if not. The output's attributes name what was used.
    clear : DataArray of bool or str, optional
        True = clear. On the cube's grid, or on a coarser one that nests exactly.
    mask : DataArray or str, optional
        A quality layer or its name; exclusive with `clear`. By default a Dataset's ``cloud_mask`` is taken, then the
        sensor's own (SCL, QA_PIXEL, Fmask, cfmask).
    scheme : {"scl", "qa_pixel", "fmask", "cfmask", "probability"}, optional
        How to read `mask`, where its CF flags and its name do not tell.
    threshold : float, optional
        For a probability layer: from this value on a pixel is not clear.
    snow : {"clear", "not clear"}
        Whether snow counts as clear.
    strict : bool
        Leave out doubtful classes as well (SCL: dark areas and unclassified).
    dilate : int
        Pixels by which cloud and shadow are grown.
    bands : sequence of str, optional
        The bands to fill, in this order.
    window : float, str, timedelta or pair of these, optional
        Days before and after the target from which dates are taken; the model's own by default.
    scale, offset : float, optional
        Reflectance = stored * scale + offset, where the cube's attributes do not tell.
    nodata : float, optional
        Stored value that means "missing"; NaN always does.
    layers : {"all"} or sequence of str, optional
        Provenance to return beside the reflectance, of ``"filled"``, ``"n_clear"``, ``"days_to_clear"``,
        ``"source_time"``, ``"uncertainty"``, ``"gate"``, ``"suspect"``, ``"snow"``.
    screen : bool
        Fill also the target's suspect pixels: flagged clear, but they look like haze.
    check : bool
        False lets values pass that do not look like reflectance: a vegetation index, say, or water that was
        corrected to less than zero.
    block : int or pair of int, optional
        Pixels along y and x of a block, the work of one task. By default about 96 MiB of input.

    Returns
    -------
    DataArray or Dataset
        What was given, with dimensions (band, y, x), and time first for several dates; in the input's units, dtype
        and nodata. With `layers` a Dataset of ``reflectance`` and the layers.

    Raises
    ------
    DimensionError, BandError, TimeError, GridError, MaskError, ScalingError, OptionError
        If the cube or an option cannot be used: when called, as far as metadata tell.
    ScalingError
        If values do not look like reflectance: when values are computed.
    ModelNotFoundError, WeightsError, HubError, MissingDependencyError
        If there is no such model, or it cannot be used.

    Examples
    --------
    >>> import xr_cloudfree
    >>> from xr_cloudfree import synthetic
    >>> ds = synthetic.cube(shape=(12, 4, 64, 64), seed=1)
    >>> image = xr_cloudfree.fill(ds, date="2023-07-01", model="linear")
    >>> dict(image.sizes)
    {'band': 4, 'y': 64, 'x': 64}
    """
    made = registry.create(model)
    understood = read(
        obj,
        clear=clear,
        mask=mask,
        scheme=scheme,
        threshold=threshold,
        snow=snow,
        strict=strict,
        dilate=dilate,
        bands=bands,
        scale=scale,
        offset=offset,
        nodata=nodata,
    )
    for name, flag in (("screen", screen), ("check", check)):
        if not isinstance(flag, bool):
            raise OptionTypeError(f"{name} is {flag!r}", "True or False", f"{name}=True")
    cube, times, rule = understood.cube, understood.times, understood.rule
    targets = parse_targets(date, times)
    tells_snow = rule.scheme is not None and any(flag.state == "snow" for flag in rule.scheme.flags)
    chosen = made
    if isinstance(made, Auto):
        asked = layers if isinstance(layers, str) and layers == "all" else parse_layers(layers, LAYERS, "auto")
        chosen = made.choose(observed=max(targets.own) >= 0, layers=asked, bands=cube.bands, roles=cube.roles)
    spec = chosen.spec
    offered = COMMON_LAYERS + spec.layers + (("snow",) if tells_snow else ())
    wanted = parse_layers(layers, offered, made.spec.name)
    spec.check_bands(cube.bands, cube.roles)
    if isinstance(chosen, Learned):
        chosen.check_installed()
    told = parse_window(window)
    days = told or parse_window(spec.window_days)
    check_reach(times, targets, days, told is not None)
    grid = _grid(cube, times.size, len(targets.own), spec, parse_block(block, spec.stride))
    job = FillJob(
        model=chosen,
        grid=grid,
        rule=rule,
        scaling=understood.scaling,
        times=times,
        targets=targets,
        window=days,
        roles=cube.roles,
        sensor=cube.sensor,
        dtype=cube.dtype,
        limits=_packed_limits(cube.arrays),
        layers=wanted,
        screen=screen,
        check=check,
    )
    return _label(obj, understood, job, _run(job, understood))


def clear_mask(
    obj: xr.DataArray | xr.Dataset,
    *,
    clear: xr.DataArray | str | None = None,
    mask: xr.DataArray | str | None = None,
    scheme: str | None = None,
    threshold: float | None = None,
    snow: Snow = "clear",
    strict: bool = False,
    dilate: int = 0,
    bands: Sequence[str] | None = None,
    scale: float | None = None,
    offset: float | None = None,
    nodata: float | None = None,
) -> xr.DataArray:
    """The clear mask that `fill` uses: True where a pixel was seen and is valid in every band.

    Lazy for chunked input. The parameters are those of `fill`.

    Returns
    -------
    DataArray of bool
        Dimensions (time, y, x), under the cube's own names.

    Examples
    --------
    >>> import xr_cloudfree
    >>> from xr_cloudfree import synthetic
    >>> clear = xr_cloudfree.clear_mask(synthetic.cube(shape=(12, 4, 64, 64), seed=1))
    >>> clear.dtype, clear.dims
    (dtype('bool'), ('time', 'y', 'x'))
    """
    understood = read(
        obj,
        clear=clear,
        mask=mask,
        scheme=scheme,
        threshold=threshold,
        snow=snow,
        strict=strict,
        dilate=dilate,
        bands=bands,
        scale=scale,
        offset=offset,
        nodata=nodata,
    )
    cube = understood.cube
    job = ClearJob(
        _grid(cube, understood.times.size, 0, None, None),
        understood.rule,
        understood.scaling,
        understood.times.size,
    )
    template = cube.template
    out = template.copy(data=_run(job, understood)["clear"]).rename("clear")
    out.attrs = {
        "long_name": "seen as clear, and valid in every band",
        "cloudfree_mask": understood.rule.label,
    }
    out.encoding = {}
    back = {role: name for role, name in cube.dims.items() if role in out.dims and role != name}
    return out.rename(back)


def list_models() -> pd.DataFrame:
    """The installed models, with what each can give. A learned model is listed if its weights are there.

    Returns
    -------
    DataFrame
        Indexed by name: summary; kind (``"classical"``, ``"learned"``, or ``"rule"`` for one that chooses among
        others); the bands that it takes; window in days; layers; licence of the weights, and the first digits of
        their SHA-256.

    Examples
    --------
    >>> import xr_cloudfree
    >>> xr_cloudfree.list_models().loc["linear", ["kind", "bands"]].tolist()
    ['classical', 'any']
    """
    rows = []
    for name in registry.model_names():
        try:
            made = registry.create(name)
        except ModelNotFoundError:  # its weights are not installed
            continue
        spec = made.spec
        learned = spec.weights_sha256 is not None
        rows.append(
            {
                "name": name,
                "summary": spec.summary,
                "kind": "learned" if learned else "rule" if isinstance(made, Auto) else "classical",
                "bands": spec.bands_text,
                "window_days": spec.window_days,
                "layers": ", ".join((*COMMON_LAYERS, *spec.layers)),
                "license": spec.license or "",
                "weights": (spec.weights_sha256 or "")[:12],
            }
        )
    return pd.DataFrame(rows).set_index("name")


def _run(job: BlockJob, understood: Understood) -> dict[str, Any]:
    """Run a job at once on arrays in memory, as a lazy graph on chunked ones."""
    sources = [*(array.data for array in understood.cube.arrays), understood.quality.data]
    if not any(_is_chunked(source) for source in sources):
        return dict(run_now(job, sources[:-1], sources[-1]))
    # dask is imported at the branch that needs it.
    import dask.array as da

    from xr_cloudfree.engine.lazy import run_later

    chunked = [source if _is_chunked(source) else da.from_array(source) for source in sources]
    return dict(run_later(job, chunked[:-1], chunked[-1]))


def _is_chunked(array: Any) -> bool:
    return hasattr(array, "__dask_graph__")


def _grid(cube: Cube, n_times: int, n_targets: int, spec: ModelSpec | None, block: tuple[int, int] | None) -> TileGrid:
    tile, stride, taper = (spec.tile, spec.stride, spec.taper) if spec else (None, None, False)
    if block is None:
        n_bands, itemsize = len(cube.bands), cube.dtype.itemsize
        # The window as stored, its masks, and for each target the image as a float and as it is stored.
        per_pixel = n_times * (n_bands * itemsize + 3) + n_targets * n_bands * (itemsize + 4)
        chunks = cube.arrays[0].chunks
        edges = None if chunks is None else (max(chunks[-2]), max(chunks[-1]))
        block = choose_block(cube.shape, per_pixel, stride, edges, most_with_halo=spec.block if spec else 256)
    grid = TileGrid(cube.shape, block, tile, stride, taper)
    if grid.n_blocks > MAX_BLOCKS:
        raise SizeError(
            f"the cube has {cube.shape[0]} x {cube.shape[1]} pixels, {grid.n_blocks} blocks of {block[0]} x {block[1]}",
            f"at most {MAX_BLOCKS} blocks in one graph",
            "a part of it: cube.isel(y=slice(0, 10980), x=slice(0, 10980))",
        )
    return grid


def _packing(array: xr.DataArray) -> np.iinfo[Any] | None:
    """The integers in which the values of a decoded array will be packed when it is written, if they will be."""
    encoding = array.encoding
    packed = np.dtype(encoding["dtype"]) if encoding.get("dtype") is not None else array.dtype
    if array.dtype.kind != "f" or packed.kind not in "ui" or not encoding.get("scale_factor"):
        return None
    return np.iinfo(packed)


def _packed_limits(arrays: Sequence[xr.DataArray]) -> tuple[tuple[float, ...], tuple[float, ...]] | None:
    """The least and the largest value that each array's own packing can hold, where one has any.

    Integers wrap in silence when a value beyond is written; so it is clipped before.
    """
    limits = []
    for array in arrays:
        packed = _packing(array)
        if packed is None:
            limits.append((-np.inf, np.inf))
            continue
        scale, offset = float(array.encoding["scale_factor"]), float(array.encoding.get("add_offset") or 0.0)
        # One step inside at each end, where nodata lies by custom.
        ends = (packed.min + 1) * scale + offset, (packed.max - 1) * scale + offset
        limits.append((min(ends), max(ends)))
    if not np.isfinite(limits).any():
        return None
    return tuple(low for low, _ in limits), tuple(high for _, high in limits)


def _label(obj: Any, understood: Understood, job: FillJob, done: dict[str, Any]) -> Any:
    """Give the outputs the cube's dimensions, coordinates, attributes and encoding."""
    cube, targets = understood.cube, job.targets
    source = cube.arrays[0]
    lead = () if targets.scalar else ("time",)
    coords = {name: c.variable for name, c in source.coords.items() if "time" not in c.dims}
    time_attrs = source["time"].attrs
    if targets.scalar:
        coords["time"] = xr.Variable((), targets.times[0], time_attrs)
    else:
        coords["time"] = xr.Variable(("time",), targets.times, time_attrs)
    if min(targets.own) >= 0:  # each date is one of the cube's: what is known of it stays with it
        which = targets.own[0] if targets.scalar else list(targets.own)
        for name, c in source.coords.items():
            if c.dims == ("time",) and name != "time":
                coords[name] = c.variable.isel(time=which)
    for output in job.outputs[1:]:
        coords.pop(output.name, None)  # the layer that was asked for wins over a coordinate of its name
    back = {role: name for role, name in cube.dims.items() if role != name}
    told: dict[str, Any] = {
        "cloudfree_model": job.model.spec.name,
        "cloudfree_mask": understood.rule.label,
        "cloudfree_version": __version__,
    }
    if job.model.spec.weights_sha256 is not None:
        told["cloudfree_weights"] = job.model.spec.weights_sha256
    if job.window is not None:
        told["cloudfree_window_days"] = list(job.window)
    mapping = source.encoding.get("grid_mapping")
    if cube.kind == "bands" and any("band" in output.dims for output in job.outputs[1:]):
        coords["band"] = xr.Variable(("band",), list(cube.bands))

    def array(name: str, dims: tuple[str, ...], data: Any, attrs: dict[str, Any]) -> xr.DataArray:
        keep = {k: v for k, v in coords.items() if set(v.dims) <= set(dims)}
        out = xr.DataArray(data, dims=dims, coords=keep, name=name, attrs=attrs)
        if mapping:
            out.encoding["grid_mapping"] = mapping
        return out.rename({a: b for a, b in back.items() if a in (*out.dims, *out.coords)})

    made: dict[str, xr.DataArray] = {}
    first, *rest = job.outputs
    reflectance = done[first.name]
    if cube.kind == "bands":
        for i, (name, band) in enumerate(zip(cube.bands, cube.arrays, strict=True)):
            data = reflectance[..., i, :, :].astype(band.dtype)
            made[name] = array(
                name, (*lead, "y", "x"), data, {**band.attrs, **_scale_attrs(band, understood.scaling), **told}
            )
            made[name].encoding.update(_kept(band, made[name].attrs))
    else:
        name = (cube.name if cube.kind == "variable" else None) or "reflectance"
        if name in job.layers:  # a variable that happens to be called like a layer gives way to it
            name = "reflectance"
        made[name] = array(
            name,
            (*lead, *first.dims),
            reflectance,
            {**source.attrs, **_scale_attrs(source, understood.scaling), **told},
        )
        made[name].encoding.update(_kept(source, made[name].attrs))
        if cube.kind == "array" and not rest:
            return made[name].rename(cube.name)
    for output in rest:
        out = array(output.name, (*lead, *output.dims), done[output.name], _LAYER_ATTRS[output.name])
        if "observation" in output.dims:
            out = out.assign_coords(observation=("observation", job.times))
        made[output.name] = out
    return xr.Dataset(made, attrs={**(obj.attrs if isinstance(obj, xr.Dataset) else {}), **told})


def _scale_attrs(array: xr.DataArray, scaling: Scaling) -> dict[str, Any]:
    """CF attributes of digital numbers whose scale the user told: without them a file of the output lacks it."""
    if array.dtype.kind not in "ui" or "scale_factor" in array.attrs or scaling.scale is None:
        return {}
    attrs: dict[str, Any] = {"scale_factor": scaling.scale, "add_offset": scaling.offset}
    if scaling.nodata is not None:
        attrs["_FillValue"] = array.dtype.type(scaling.nodata)
    return attrs


def _kept(array: xr.DataArray, attrs: dict[str, Any]) -> dict[str, Any]:
    """How the input was packed, so that the output is written alike; a value for nodata is always part of it."""
    kept = {k: array.encoding[k] for k in PACKING if k in array.encoding and k not in attrs}
    packed = _packing(array)
    if packed is not None and kept.get("_FillValue") is None:
        # Estimates stay one step inside both ends of the packing, so an end is free.
        unused = packed.min if packed.min < 0 else packed.max
        kept["_FillValue"] = array.encoding.get("missing_value", packed.dtype.type(unused))
    return kept


_LAYER_ATTRS: dict[str, dict[str, Any]] = {
    "filled": {
        "long_name": "where the value comes from",
        "flag_values": np.array([NOT_FILLED, OBSERVED, FILLED], np.uint8),
        "flag_meanings": "not_filled observed filled",
    },
    "n_clear": {
        "long_name": "number of clear observations in the window, the target's own included",
        "units": "1",
    },
    # No units attribute of days: xarray would read the numbers back as time differences.
    "days_to_clear": {"long_name": "signed days from the target date to the nearest clear observation"},
    "source_time": {"long_name": "observation that weighs at least one half"},
    "uncertainty": {
        "long_name": "spread of the estimate in reflectance: 1.645 of it to each side is the 90 % interval",
        "units": "1",
    },
    "gate": {"long_name": "weight of each observation", "units": "1"},
    "suspect": {"long_name": "flagged clear on the target date, but looks like haze or thin cloud"},
    "snow": {"long_name": "observed as snow on the target date"},
}
