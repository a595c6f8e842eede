"""Labelling of a fill's outputs with the dimensions, coordinates, attributes and encoding of the cube."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import xarray as xr

from xr_cloudfree.cube.attributes import SCALING, pending, same_number
from xr_cloudfree.cube.crs import crs_of
from xr_cloudfree.cube.dims import axis_attrs, needs_axis_attrs
from xr_cloudfree.cube.masks import MaskRule
from xr_cloudfree.cube.other_sensors import NEAR, is_near
from xr_cloudfree.cube.radar import MAX_DAYS
from xr_cloudfree.cube.scaling import NODATA_KEYS, PACKING, Scaling
from xr_cloudfree.engine.fill import FillJob
from xr_cloudfree.engine.others import OtherSensor
from xr_cloudfree.layers import LAYERS
from xr_cloudfree.plan import FillPlan, packing_of
from xr_cloudfree.storage.geozarr import without_conventions
from xr_cloudfree.version import __version__


@dataclass(frozen=True, eq=False)
class Part:
    """One variable of the output, and its place in a job's outputs.

    Parameters
    ----------
    name : str
        The variable.
    output : str
        The job's output.
    band : int or None
        Which band of it; None for all bands.
    dims : tuple of str
        Dimensions, under the package's names.
    dtype : dtype
        Type of its values.
    attrs, encoding : dict
        Its attributes, and how it is packed in a file.
    """

    name: str
    output: str
    band: int | None
    dims: tuple[str, ...]
    dtype: np.dtype[Any]
    attrs: dict[str, Any]
    encoding: dict[str, Any]

    def take(self, outputs: Mapping[str, Any]) -> Any:
        """Return its values, from a job's outputs by name."""
        data = outputs[self.output]
        return data if self.band is None else data[..., self.band, :, :].astype(self.dtype)


def parts(plan: FillPlan) -> tuple[Part, ...]:
    """Return the variables of the output: the bands first, then the layers."""
    cube, job = plan.info.cube, plan.job
    scaling, source = plan.info.scaling, cube.arrays[0]
    lead = () if job.targets.scalar else ("time",)
    provenance = _provenance_attrs(plan)
    mapping = source.encoding.get("grid_mapping")
    common = {"grid_mapping": mapping} if mapping else {}
    first, *rest = job.outputs

    def part(name: str, band: int | None, dims: tuple[str, ...], array: xr.DataArray, dtype: np.dtype[Any]) -> Part:
        attrs = {**array.attrs, **_scale_attrs(array, scaling), **provenance}
        return Part(name, first.name, band, dims, dtype, attrs, {**common, **_packing_encoding(array, attrs)})

    if source.ndim == 3:
        names = cube.bands if cube.layout == "bands" else (_free_name(plan, cube.name),)
        variables = [
            part(name, i, (*lead, "y", "x"), band, band.dtype)
            for i, (name, band) in enumerate(zip(names, cube.arrays, strict=True))
        ]
    else:
        name = _free_name(plan, cube.name if cube.layout == "variable" else None)
        variables = [part(name, None, (*lead, *first.dims), source, first.dtype)]
    variables += [
        Part(o.name, o.name, None, (*lead, *o.dims), o.dtype, LAYERS[o.name].attrs, dict(common)) for o in rest
    ]
    return tuple(variables)


def _free_name(plan: FillPlan, name: str | None) -> str:
    """Return the name of the image; ``reflectance`` if its own is that of a requested layer."""
    return "reflectance" if name is None or name in plan.job.layers else name


def label(plan: FillPlan, outputs: Mapping[str, Any]) -> xr.Dataset:
    """Give a job's outputs the cube's dimensions, coordinates, attributes and encoding.

    Parameters
    ----------
    plan : FillPlan
        The fill.
    outputs : mapping
        The outputs by name, in memory or lazy.

    Returns
    -------
    Dataset
        See `restore_kind` for the kind of object that the user gets.
    """
    cube, job = plan.info.cube, plan.job
    back = {role: name for role, name in cube.dims.items() if role != name}
    coords = _coords(plan)
    variables: dict[str, xr.Variable] = {}
    coordinates: dict[Any, xr.Variable] = {}
    for part in parts(plan):
        keep = {k: v for k, v in coords.items() if set(v.dims) <= set(part.dims)}
        out = xr.DataArray(part.take(outputs), dims=part.dims, coords=keep, name=part.name, attrs=part.attrs)
        out.encoding.update(part.encoding)
        out = out.rename({a: b for a, b in back.items() if a in (*out.dims, *out.coords)})
        if "observation" in part.dims:
            out = out.assign_coords(observation=("observation", job.times))
        variables[part.name] = out.variable
        # The same for all variables, and not compared: they may hold objects that compare as different.
        coordinates = {name: coordinate.variable for name, coordinate in out.coords.items()} | coordinates
    # Conventions describe a store: where the image is written, it gets its own.
    attrs = {**without_conventions(plan.attrs), **_provenance_attrs(plan)}
    return xr.Dataset(variables, coords=coordinates, attrs=attrs)


def restore_kind(plan: FillPlan, labelled: xr.Dataset) -> Any:
    """Return a DataArray if the cube is a DataArray and no layer was requested, otherwise the Dataset."""
    if plan.info.cube.layout in ("array", "layer") and len(labelled.data_vars) == 1:
        return labelled[next(iter(labelled.data_vars))].rename(plan.info.cube.name)
    return labelled


def _coords(plan: FillPlan) -> dict[Any, xr.Variable]:
    """Return the output's coordinates under the package's names of dimensions."""
    cube, job = plan.info.cube, plan.job
    targets, source = job.targets, cube.arrays[0]
    coords = {name: c.variable for name, c in source.coords.items() if "time" not in c.dims}
    time_attrs = source["time"].attrs
    if targets.scalar:
        coords["time"] = xr.Variable((), targets.times[0], time_attrs)
    else:
        coords["time"] = xr.Variable(("time",), targets.times, time_attrs)
    if min(targets.own) >= 0:  # each target was observed: coordinates along time are kept
        own = [plan.info.scene(date) for date in targets.own]
        which = own[0] if targets.scalar else own
        for name, c in source.coords.items():
            if c.dims == ("time",) and name != "time":
                coords[name] = c.variable.isel(time=which)
    for output in job.outputs[1:]:
        coords.pop(output.name, None)  # a requested layer takes precedence over a coordinate of its name
    for role in [role for role in ("y", "x") if role in coords and needs_axis_attrs(cube.dims[role])]:
        attrs = axis_attrs(role, geographic=_is_geographic(plan))
        coords[role] = coords[role].copy(deep=False)
        coords[role].attrs = {**attrs, **coords[role].attrs}
    if source.ndim == 3 and any("band" in output.dims for output in job.outputs[1:]):
        coords["band"] = xr.Variable(("band",), list(cube.bands))
    return coords


def _is_geographic(plan: FillPlan) -> bool:
    crs = crs_of(plan.info.cube.arrays[0])
    return bool(crs is not None and crs.is_geographic)


def _provenance_attrs(plan: FillPlan) -> dict[str, Any]:
    """Return the attributes of every output that say how it was made."""
    job = plan.job
    attrs: dict[str, Any] = {
        "cloudfree_model": job.model.spec.name,
        "cloudfree_mask": plan.info.rule.label,
        "cloudfree_version": __version__,
    }
    attrs |= repair_attrs(job.repair, job.rule)
    if job.model.spec.weights_sha256 is not None:
        attrs["cloudfree_weights"] = job.model.spec.weights_sha256
    if job.model.spec.note is not None:
        attrs["cloudfree_note"] = job.model.spec.note
    if plan.s1 is not None:
        days = np.unique(plan.s1.times[job.s1_reads].astype("datetime64[D]"))
        attrs["cloudfree_s1"] = ", ".join(map(str, days)) or f"none within {MAX_DAYS:g} days"
    if job.others:
        attrs["cloudfree_others"] = "; ".join(map(_used, job.others, [job] * len(job.others)))
    if job.window is not None:
        attrs["cloudfree_window_days"] = list(job.window)
    return attrs


def _used(other: OtherSensor, job: FillJob) -> str:
    """Return the name of another sensor, and the days of its images that are near a target date."""
    near = {
        str(time.astype("datetime64[D]"))
        for instant in job.targets.instants
        for time in other.times[is_near(other.times, instant)]
    }
    return f"{other.title} {', '.join(sorted(near)) or f'none within {NEAR:g} days'}"


def repair_attrs(repair: bool, rule: MaskRule) -> dict[str, str]:
    """Return the attribute that says whether the given masks were corrected; none if there were none to correct."""
    return {"cloudfree_repair": "masks corrected by the series"} if repair and not rule.from_series else {}


def _scale_attrs(array: xr.DataArray, scaling: Scaling) -> dict[str, Any]:
    """Return CF attributes with which a file of the output is read like the input, where the array's own differ."""
    own, attrs = pending(array), dict[str, Any]()
    if array.dtype.kind in "ui" and scaling.scale is not None:
        same_scale = same_number(scaling.scale, own.get("scale_factor"))
        if not same_scale or not same_number(scaling.offset, own.get("add_offset", 0.0)):
            attrs |= {"scale_factor": scaling.scale, "add_offset": scaling.offset}
    if scaling.nodata is None or (array.dtype.kind in "ui" and scaling.scale is None):
        return attrs
    mark = array.dtype.type(scaling.nodata)
    for key in NODATA_KEYS:
        if key in (array.attrs if key == "nodata" else own) and not same_number(array.attrs[key], mark):
            attrs[key] = mark
    if "_FillValue" not in own and "missing_value" not in own and (array.dtype.kind in "ui" or _is_bare(array)):
        attrs["_FillValue"] = mark
    return attrs


def _is_bare(array: xr.DataArray) -> bool:
    """Return whether floats are written unpacked, with NaN as the only nodata value."""
    marks = [array.encoding.get(key) for key in ("_FillValue", "missing_value")]
    written = array.encoding.get("dtype")
    return (written is None or np.dtype(written).kind == "f") and all(mark is None or mark != mark for mark in marks)


def _packing_encoding(array: xr.DataArray, attrs: dict[str, Any]) -> dict[str, Any]:
    """Return the encoding that packs the output like the input; it always has a nodata value."""
    encoding = {
        k: array.encoding[k] for k in PACKING if k in array.encoding and (k != "grid_mapping" or k not in attrs)
    }
    new = "_FillValue" in attrs and "_FillValue" not in array.attrs
    if any(key in attrs for key in SCALING) and (array.dtype.kind != "f" or new or pending(array)):
        # Attributes that have not been applied describe the values in memory, which are written unchanged.
        return {key: value for key, value in encoding.items() if key == "grid_mapping"}
    packed = packing_of(array)
    if packed is not None and encoding.get("_FillValue") is None:
        # Estimates stay one step inside both ends of the packing, so an end is unused.
        unused = packed.min if packed.min < 0 else packed.max
        encoding["_FillValue"] = array.encoding.get("missing_value", packed.dtype.type(unused))
    return encoding
