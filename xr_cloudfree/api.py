"""The public functions: labelled cubes in, labelled images out."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal, TypeVar

import pandas as pd
import xarray as xr

from xr_cloudfree.cube.masks import MaskRule
from xr_cloudfree.engine.blocks import BlockJob, Windows
from xr_cloudfree.engine.clear import ClearJob
from xr_cloudfree.engine.corrections import Corrections, RepairJob
from xr_cloudfree.engine.decoding import Decoding
from xr_cloudfree.engine.eager import run_eager
from xr_cloudfree.engine.fill import FillJob
from xr_cloudfree.errors import ModelNotFoundError
from xr_cloudfree.inputs import finest_of
from xr_cloudfree.labels import label, repair_attrs, restore_kind
from xr_cloudfree.layers import COMMON_LAYERS, MASK_CHANGE, SCORE
from xr_cloudfree.models import registry
from xr_cloudfree.models.protocol import FillModel, optional
from xr_cloudfree.options import Merge, Others, ReadOptions, Repair, Snow, parse_flag, parse_mask_layers
from xr_cloudfree.plan import CubeInfo, FillPlan, make_grid, plan_fill, read
from xr_cloudfree.runner import windows
from xr_cloudfree.runner.plan import in_regions

__all__ = ["clear_mask", "fill", "list_models", "read"]

T = TypeVar("T", xr.DataArray, xr.Dataset, xr.DataTree)


def fill(
    obj: T,
    date: Any = None,
    *,
    freq: Any = None,
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
    merge: Merge | None = None,
    repair: Repair = False,
    layers: Literal["all"] | str | Sequence[str] | None = None,
    check: bool = True,
    block: int | tuple[int, int] | None = None,
    s1: xr.DataArray | xr.Dataset | str | os.PathLike[str] | Sequence[str] | None = None,
    others: Others = None,
) -> Any:
    """Make a cloud-free image of any date from a cloudy time series.

    The target's own clear pixels are returned bit for bit. The model estimates the others from the other dates, and
    some models also from the target's own clear pixels. Where nothing is known, the output is nodata. Chunked input
    gives a lazy result, one task per block, which does not depend on the chunks.

    Parameters
    ----------
    obj : DataArray, Dataset or DataTree
        The cube, in memory or in chunks: a DataArray (time, band, y, x), or (time, y, x) of one band or index; a
        Dataset with one such 4-D variable; or a Dataset with bands, or else indices, as variables (time, y, x), as
        odc-stac loads it. Dimensions may have any order and other names: the usual ones (``t``, ``lat``, ``easting``
        ...) and those given by CF attributes, rioxarray or odc-geo. Layers among the bands that are not reflectance
        (SCL, QA_PIXEL, AOT ...) are kept, each pixel from its nearest clear date. Values are reflectance, or stored
        numbers whose scale is given by metadata or by `scale`. Of a DataTree with cubes of several sensors in its
        leaves the one with the smallest pixels is filled, and the rest are `others`.
    date : str, datetime, pandas.Timestamp or Period, slice, a sequence of these, or None
        The target date or dates, in ISO 8601 and UTC. A date without a time (or at midnight) means that day's
        observation if there is one. A month or a year, ``"2023-06"`` or ``"2023"``, and a slice such as
        ``slice("2023-05", "2023-07")`` mean all of the cube's dates from the beginning of the first period to the end
        of the last, as xarray selects them; an end of a slice may be None. ``"2023-05/2023-07"`` and ``"2023-05/.."``
        are slices as text. None means every date of the cube. `numpy.datetime64` (a period if in months or years),
        cftime of the standard calendar, and indexes and arrays of such dates are accepted too. A date may lie between
        the cube's dates, or up to a year beyond them; farther only with `window`.
    freq : str, timedelta or pandas.DateOffset, optional
        Make a regular series, as `pandas.date_range` does from the first day on, such as ``"10D"`` or ``"MS"`` (the
        first of each month): over a slice, a month or a year, or without `date` over the span of the cube's dates.
    model : str or FillModel
        ``"auto"``, a name from `list_models`, ``"local-dir:PATH"`` or ``"hf-hub:organisation/name"`` for a learned
        model (see `from_pretrained`), or an object that follows the `FillModel` protocol. ``"auto"`` is the learned
        model that comes with the package if there is one and torch is installed, otherwise ``"regress"``. Attributes
        of the output name the model that was used.
    clear : DataArray of bool or str, optional
        True where a pixel is clear, or the name of such a layer. On the cube's grid, or on a coarser one that nests
        exactly.
    mask : DataArray or str, optional
        A quality layer or its name; exclusive with `clear`. On the cube's grid, or on a coarser one that nests
        exactly. By default ``cloud_mask``, or else the sensor's own layer (SCL, QA_PIXEL, Fmask, cfmask and others),
        as a variable of a Dataset or as one of the bands of an array. ``"series"`` makes the masks from the series
        alone, whatever `repair` is, as is done with a warning where no layer is found; pixels that lack a band are
        then not clear.
        A cloud detector of another package, where it is installed: ``"csmask"``, ``"omnicloudmask"``
        (``"omnicloudmask:FOLDER"`` with weights in a folder) or ``"s2cloudless"``.
    scheme : {"scl", "qa_pixel", "pixel_qa", "fmask", "dea_fmask", "cfmask", "cloudsen12", "csmask", "clm", "maja", \
"modis_state", "probability", "clear_score"}, optional
        How to read `mask`; takes precedence over the flags in its attributes and over its name. Without `mask`, the
        layer of that scheme is used.
    threshold : float, optional
        For a cloud probability: from this value on a pixel is not clear. For a clear score: from this value on it is
        clear. In the layer's units: 0 to 1, 0 to 100 or, for bytes, 0 to 255.
    snow : {"clear", "not clear"}
        Whether snow counts as clear.
    strict : bool
        Whether doubtful classes (SCL: dark areas and unclassified) count as not clear.
    dilate : int
        Pixels by which cloud and shadow are grown.
    bands : sequence of str, optional
        The bands to fill, in this order: the cube's own names or STAC common names.
    window : float, str, timedelta or pair of these, optional
        Days before and after the target from which dates are used; the model's own by default.
    scale, offset : float, optional
        Reflectance = stored * scale + offset: needed if the metadata do not give them, and taking precedence over the
        metadata.
    nodata : float, optional
        Stored value that means "missing"; NaN always does.
    merge : {"day"}, optional
        Merge all scenes of a day in UTC, such as the granules of one pass, into one date. Each pixel is taken from one
        scene, with its mask: a clear scene with all bands if there is one, else one with all bands, else the one with
        most bands; of several the earliest, and of those with the same time stamp the one with the smaller value in
        the first band that differs. The date has the time stamp, and the other coordinates along time, of the earliest
        scene of the day.
    repair : bool or {"auto"}
        Whether the masks are corrected by the series: cloud, haze and shadow that they miss are masked, and false
        alarms are restored. It is worth most where masks miss clouds; where they are right it may lose a little. All
        dates of the cube are read for it, whatever the target, which takes several times as long as
        ``model="regress"``. Pixels that lack a band, that were not measured, or that are snow with
        ``snow="not clear"``, are never restored. ``"auto"`` does so for reflectance on three dates or more, and
        otherwise takes masks as they are; True is then an error.
    layers : {"all"} or sequence of str, optional
        Provenance to return beside the reflectance, of ``"filled"``, ``"n_clear"``, ``"days_to_clear"``,
        ``"source_time"``, ``"uncertainty"``, ``"source_sensor"``, ``"consistency"``, ``"gate"``, ``"suspect"``,
        ``"mask_change"``, ``"snow"``. ``filled`` is 0 not filled, 1 observed, 2 filled, 3 filled in some bands only;
        ``n_clear`` and ``days_to_clear`` count dates on which the pixel is clear and has a value in some band;
        ``mask_change`` is 0 as given, 1 masked as cloud, 2 masked as shadow, 3 restored, and 0 everywhere if the
        target date was not observed. With `others`, ``source_sensor`` is the number of the one whose image corrected
        the pixel, 0 for none, and ``consistency`` what that sensor observed minus what it would see of the image.
    check : bool
        False accepts values that do not look like reflectance (such as an index with an unknown name), takes numbers
        that may mark missing values as measurements, and does not check whether a mask is inverted.
    block : int or pair of int, optional
        Pixels along y and x of a block, the work of one task. By default about 96 MiB of input.
    s1 : DataArray, Dataset, str, path or sequence of str, optional
        Sentinel-1 in decibels on the cube's pixels, on any dates, for a model that takes it: a DataArray (time, band,
        y, x) with the bands vv and vh, a Dataset with such variables (time, y, x), or their names in `obj`; or a
        Zarr store or a NetCDF file, or the URL of one. For each pixel the model gets the observation nearest to the
        target date, at most 12 days away, and the earlier of two equally near; where there is none, it does without.
        The attribute ``cloudfree_s1`` names the dates.
    others : DataArray, Dataset, str, path or sequence of these, optional
        Cubes of other sensors of the same place, such as Landsat for Sentinel-2, each on its own pixels: as large as
        the cube's or larger, in the same CRS; they need not nest. Each has its own dates and its own quality layer.
        Where one was clear within two and a half days of the target date, its image corrects the estimate: what it
        saw, less what it would have seen of the estimate, is brought to the cube's pixels by a regression that is
        fitted on other dates of the same place. Differences between the sensors are removed by published coefficients
        and by what pairs of their images show. The attribute ``cloudfree_others`` names the images that were used.

    Returns
    -------
    DataArray or Dataset
        The same kind as `obj`, with dimensions (band, y, x), or (y, x) if bands are variables or there is only one
        layer; time comes first for several dates. In the input's units, dtype and nodata, under its names, with its
        CRS. With `layers` a Dataset of the image, called ``reflectance`` for a DataArray with bands, and the layers.

    Raises
    ------
    DimensionError, BandError, TimeError, GridError, MaskError, ScalingError, OptionError
        If the cube or an option cannot be used: when called, if metadata show it.
    OptionError
        If `s1` is given to a model that does not use Sentinel-1, or names neither a variable nor a file.
    ScalingError
        If values do not look like reflectance, or those of `s1` not like decibels: when values are computed.
    ModelNotFoundError, WeightsError, HubError, MissingDependencyError
        If there is no such model, or it cannot be used; the last also for a detector whose package is not installed.

    Warns
    -----
    CloudfreeWarning
        When called: if a layer among the bands is not reflectance, or a date with a time falls on a day that was
        observed at another time, or a date lies more than 30 days outside of the series and no window is given, or the
        cube has no quality layer. When values are computed: if some dates lack a band, numbers are taken as missing
        values although no metadata declare them, or a mask seems to be inverted.

    Examples
    --------
    >>> import xr_cloudfree
    >>> from xr_cloudfree import synthetic
    >>> ds = synthetic.cube(shape=(12, 4, 64, 64), seed=1)
    >>> image = xr_cloudfree.fill(ds, date="2023-07-01", model="linear")
    >>> dict(image.sizes)
    {'band': 4, 'y': 64, 'x': 64}
    >>> series = xr_cloudfree.fill(ds, slice("2023-06", "2023-07"), freq="10D", model="linear")
    >>> series.time.dt.strftime("%m-%d").values.tolist()
    ['06-01', '06-11', '06-21', '07-01', '07-11', '07-21', '07-31']
    """
    reading = ReadOptions(
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
        merge=merge,
        repair=repair,
    )
    cube, others = finest_of(obj, others)
    plan = plan_fill(
        cube,
        date,
        reading,
        freq=freq,
        model=model,
        window=window,
        layers=layers,
        check=check,
        block=block,
        s1=s1,
        others=others,
    )
    return restore_kind(plan, run(plan))


def run(plan: FillPlan) -> xr.Dataset:
    """Run a planned fill on its cube, and label the outputs; see `restore_kind` for the form in which the cube came."""
    return label(plan, _run(plan.job, plan.info, plan.s1_arrays, plan.others))


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
    merge: Merge | None = None,
    repair: Repair = False,
    layers: Literal["all"] | str | Sequence[str] | None = None,
    check: bool = True,
) -> Any:
    """Return the clear mask that `fill` uses: True where a pixel is clear and valid in every band.

    Lazy for chunked input. The other parameters are those of `fill`; with ``merge="day"`` there is one date for each
    day, in chronological order.

    Parameters
    ----------
    layers : {"all"} or sequence of str, optional
        What to return beside the mask: ``"mask_change"``, how it differs from the given one (0 as given, 1 masked as
        cloud, 2 masked as shadow, 3 restored), and ``"score"``, the evidence of cloud or shadow in the series, from 0
        to 1, NaN where a pixel lacks a value. Masks that are neither corrected by the series nor made from it have
        none: ``"all"`` then gives the mask alone.

    Returns
    -------
    DataArray of bool, or Dataset
        Dimensions (time, y, x), under the cube's own names; with `layers` a Dataset of ``clear`` and the layers.

    Raises
    ------
    OptionError
        If `layers` are requested without `repair`, for masks that are not made from the series.
    ScalingError
        If most values cannot be reflectance: when values are computed, and unless `check` is False.

    Examples
    --------
    >>> import xr_cloudfree
    >>> from xr_cloudfree import synthetic
    >>> clear = xr_cloudfree.clear_mask(synthetic.cube(shape=(12, 4, 64, 64), seed=1))
    >>> clear.dtype, clear.dims
    (dtype('bool'), ('time', 'y', 'x'))
    >>> cube = synthetic.cube(shape=(12, 4, 64, 64), seed=1)
    >>> masks = xr_cloudfree.clear_mask(cube, repair=True, layers="mask_change")
    >>> list(masks.data_vars)
    ['clear', 'mask_change']
    """
    reading = ReadOptions(
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
        merge=merge,
        repair=repair,
    )
    info = read(obj, reading)
    # With repair="auto" a layer is given of uncorrected masks as well.
    requested = parse_mask_layers(layers, info.repair or repair == "auto")
    parse_flag("check", check)
    masks = masks_of(info, requested, check=check)
    return masks if requested or layers == "all" else masks["clear"]


def clear_mask_of(info: CubeInfo, *, check: bool = True) -> xr.DataArray:
    """Return the clear mask of a cube that has been read; see `clear_mask`."""
    return masks_of(info, check=check)["clear"]


def masks_of(info: CubeInfo, layers: Sequence[str] = (), *, check: bool = True) -> xr.Dataset:
    """Return the clear mask of a cube that has been read, and layers beside it; see `clear_mask`."""
    cube = info.cube
    how = {"cloudfree_mask": info.rule.label} | repair_attrs(info.repair, info.rule)
    attrs = {"clear": {"long_name": "seen as clear, and valid in every band", **how}}
    attrs |= {layer.name: layer.attrs for layer in (MASK_CHANGE, SCORE)}
    outputs = _run(_clear_job(info, check=check, layers=tuple(layers)), info)
    masks = {}
    for name, values in outputs.items():
        out = _dates_of(cube.template, info, values).rename(name)
        out.attrs, out.encoding = attrs[name], {}
        back = {role: own for role, own in cube.dims.items() if role in out.dims and role != own}
        masks[name] = out.rename(back)
    return xr.Dataset(masks, attrs=how)


def merge_days(info: CubeInfo) -> CubeInfo:
    """Return a cube with the scenes of each day merged, and its clear mask as the quality layer; lazy if the cube is.

    The mask is corrected by the series where the cube is read so. `fill` does not need it: it merges the scenes of each
    block itself.
    """
    if info.scenes is None:
        return info
    cube = info.cube
    outputs = _run(_clear_job(info, stored=True), info)
    if "band" in cube.arrays[0].dims:
        arrays = [_dates_of(cube.arrays[0], info, outputs["stored"])]
    else:
        arrays = [_dates_of(array, info, outputs["stored"][:, i]) for i, array in enumerate(cube.arrays)]
    return replace(
        info,
        cube=replace(cube, arrays=tuple(arrays)),
        quality=_dates_of(cube.template, info, outputs["clear"]),
        rule=MaskRule(label=info.rule.label),
        scenes=None,
        repair=False,
    )


def list_models() -> pd.DataFrame:
    """Return a table of the installed models. A learned model is listed if its weights are installed.

    Returns
    -------
    DataFrame
        Indexed by name, with the columns summary; kind (``"classical"``, ``"learned"``, or ``"rule"`` for a model that
        chooses among others); bands that it takes; window_days; layers that it gives; license of the weights; and
        weights, the first digits of their SHA-256.

    Examples
    --------
    >>> import xr_cloudfree
    >>> xr_cloudfree.list_models().loc["linear", ["kind", "bands"]].tolist()
    ['classical', 'any']
    """
    rows = []
    for name in registry.model_names():
        try:
            model = registry.create(name)
        except ModelNotFoundError:  # its weights are not installed
            continue
        spec = model.spec
        rows.append(
            {
                "name": name,
                "summary": spec.summary,
                "kind": optional(model).kind,
                "bands": spec.bands_text,
                "window_days": spec.window_days,
                "layers": ", ".join((*COMMON_LAYERS, *spec.layers)),
                "license": spec.license or "",
                "weights": (spec.weights_sha256 or "")[:12],
            }
        )
    return pd.DataFrame(rows).set_index("name")


def _clear_job(info: CubeInfo, stored: bool = False, check: bool = True, layers: tuple[str, ...] = ()) -> ClearJob:
    cube, n_times = info.cube, info.times.size
    return ClearJob(
        make_grid(cube, cube.arrays[0].sizes["time"], n_times if stored else 0, None, None, repair=info.repair),
        Decoding(info.rule, info.scaling, info.times, info.scenes, cube.extras, info.valid_range if check else None),
        (len(cube.labels), cube.dtype) if stored else None,
        cube.sensor,
        info.repair,
        layers,
    )


def _dates_of(array: xr.DataArray, info: CubeInfo, data: Any) -> xr.DataArray:
    """Return an array of the cube with other values, one image for each of the cube's dates."""
    first = [info.scene(date) for date in range(info.times.size)]
    like = array if info.scenes is None else array.isel(time=first)
    return like.copy(data=data)


def _run(
    job: BlockJob, info: CubeInfo, s1: Sequence[xr.DataArray] = (), others: Sequence[CubeInfo] = ()
) -> dict[str, Any]:
    """Run a job at once on arrays in memory or in files; build its lazy graph on chunked ones."""
    of_others = [Windows(other.cube.arrays, other.quality) for other in others]
    arrays = Windows(info.cube.arrays, info.quality, s1, others=of_others).map(lambda array: array.variable)
    repair = RepairJob.of(job) if isinstance(job, FillJob) and job.repair else None
    if any(variable.chunks is not None for variable in arrays.arrays):
        # dask is imported only where it is needed.
        from xr_cloudfree.engine.lazy import build_graph

        chunked = arrays.map(windows.chunked)
        if repair is not None:
            chunked = replace(chunked, corrected=build_graph(repair, chunked)["corrected"])
        return dict(build_graph(job, chunked))
    if repair is None and not any(windows.is_lazy(variable) for variable in arrays.arrays):
        return dict(run_eager(job, arrays.map(lambda variable: variable.data)))
    # Read by region: decoded as a whole, the arrays may not fit into memory.
    opened = arrays.map(windows.windowed)
    regions = in_regions(job, opened)
    if repair is not None:
        opened = replace(opened, corrected=Corrections(repair, opened, windows.read, whole=True))
    return dict(run_eager(job, opened, read=windows.read, regions=regions))
