"""Score models and masks on a cube: clouds of other dates are laid over clear ones, filled, and compared."""

from __future__ import annotations

import difflib
import os
import time as clock
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree import api
from xr_cloudfree.accuracy import metrics
from xr_cloudfree.accuracy.mask_tracks import (
    DONOR_SHARE,
    LIMITS,
    MASK_TRACKS,
    MaskCase,
    MaskTrack,
    image_scores,
    make_mask_cases,
    mask_scores,
    repaired,
)
from xr_cloudfree.accuracy.simulate import (
    HIDDEN_SHARE,
    MIN_CLEAR,
    TRACKS,
    Case,
    Track,
    make_cases,
    real_masks,
    target_frames,
)
from xr_cloudfree.accuracy.strata import BY, LEAST_PIXELS, By, class_names, strata
from xr_cloudfree.cube.other_sensors import NEAR, is_near
from xr_cloudfree.cube.radar import POLARISATIONS, nearby_dates, parse_radar
from xr_cloudfree.cube.scaling import to_reflectance
from xr_cloudfree.cube.timestamps import Times
from xr_cloudfree.cube.validity import clear_where, measured
from xr_cloudfree.engine.blocks import Windows, stack
from xr_cloudfree.engine.clear import decode_window, quality_window, split_extras
from xr_cloudfree.engine.decoding import Decoding
from xr_cloudfree.engine.grid import Box, middle
from xr_cloudfree.errors import OptionError, TimeError, code, either, option, warn
from xr_cloudfree.inputs import open_others, open_s1
from xr_cloudfree.masking.repair import repair
from xr_cloudfree.models import registry
from xr_cloudfree.models.protocol import FillModel
from xr_cloudfree.options import Others, ReadOptions, check_names, parse_count, parse_list
from xr_cloudfree.plan import CubeInfo, make_grid, read_others

# Minimum data range for the SSIM, about the noise of a sensor: a constant band has no structure to compare.
LEAST_RANGE = 1e-3
MASK_COLUMNS = ("recall", "precision", "false_alarms", "newly_masked", "restored")
COLUMNS = {
    "frames": "dates that serve as truth",
    "answered": "share of the scored pixels that have a value",
    "MAE": "mean absolute error, in reflectance",
    "RMSE": "root mean square error, in reflectance",
    "PSNR": "dB, of the peak 1 to the RMSE: higher is better",
    "PSNR_under": "dB, under the mask of the added clouds",
    "PSNR_rim": "dB, where the added clouds reach beyond their mask",
    "SAM": "degrees, the angle between the spectra",
    "SSIM": "likeness of structure, 1 at most",
    "coverage90": "share of the truth in the 90 % interval: 0.9 is right",
    "width90": "mean width of that interval, in reflectance",
    "recall": "share of cloud and shadow that the mask masks",
    "precision": "share of what the mask calls clear that is clear",
    "false_alarms": "share of the clear pixels that the mask masks",
    "newly_masked": "share of the clear pixels that only the correction masks",
    "restored": "share of wrongly masked pixels that the correction restores",
    "seconds": "per frame, of the fill alone",
}
"""Columns of the table, and what they mean."""
SHARE = {"share": "share of the scored pixels in the class"}
"""Another column of the table of `by`, and what it means."""
# Columns of that table.
PART_COLUMNS = ("frames", "share", "answered", "MAE", "RMSE", "PSNR", "SAM", "coverage90", "width90")
ALL_TRACKS = (*TRACKS, *MASK_TRACKS)


def evaluate(
    obj: xr.DataArray | xr.Dataset,
    models: Sequence[str | FillModel] = ("nearest", "median", "linear", "regress", "auto"),
    *,
    tracks: Sequence[Track | MaskTrack] = ("partial", "gap", "full", "haze"),
    frames: int | None = 10,
    size: int = 256,
    seed: int = 0,
    detail: bool = False,
    by: By | None = None,
    check: bool = True,
    s1: xr.DataArray | xr.Dataset | str | os.PathLike[str] | Sequence[str] | None = None,
    others: Others = None,
    **reading: Any,
) -> pd.DataFrame:
    """Score models on clear pixels of this cube, hidden under its own clouds.

    Frames that are more than 95 % clear, and that a coordinate ``suspect(time)`` does not flag, serve as truth. Such a
    frame is hidden under a real cloud mask of another date, the models fill it, and their results at the hidden pixels
    are compared with the frame.

    The tracks *clouds*, *no mask* and *wrong mask* measure masks as well: the clouds and shadows of another date, the
    donor, are added to the frame, also where the donor's mask misses them, and the whole image is compared. With
    ``repair=True`` the masks of all tracks are corrected by the series, once for each frame; hidden values take no part
    in it. To see what the correction is worth, call this function with it and without.

    Unlike `fill`, this function computes: it reads all dates of a window of at most `size` x `size` pixels at the
    centre of the cube.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube, as for `fill`.
    models : sequence of str or FillModel
        Models to compare; `auto` is the default of `fill`. A learned model takes seconds per frame.
    tracks : sequence of {"partial", "gap", "full", "haze", "clouds", "no mask", "wrong mask"}
        How frames are hidden: partly; partly, with all dates within 20 days removed; completely; partly, with clouds
        that extend beyond the mask. Or which masks are given with added clouds: the donor's; none; the donor's, but on
        every date 20 % of the cloud objects are missing, and 10 % of the clear pixels are masked. On *no mask* every
        pixel counts as clear; with `repair` masks are made from the series, as `fill` does with ``mask="series"`` and
        for a cube without a quality layer.
    frames : int or None
        Maximum number of frames, drawn at random; None uses all.
    size : int
        Maximum edge of the window that is read, in pixels.
    seed : int
        Seed of the random choices; the same seed hides the same pixels.
    detail : bool
        Return a row per frame instead of the mean over frames.
    by : {"distance", "days"}, optional
        Divide the hidden pixels by their distance to the nearest clear pixel of the frame, or by the days to the
        nearest other date on which they are clear, and return a row for each class, whose name is the last level of
        the index. Errors grow with both, and intervals should grow with them.
    check : bool
        False accepts values that do not look like reflectance, as for `fill`.
    s1 : DataArray, Dataset, str, path or sequence of str, optional
        Sentinel-1, as for `fill`. Only models that take it receive it.
    others : DataArray, Dataset, str, path or sequence of these, optional
        Cubes of other sensors, as in `fill`; they see frames that are hidden.
    **reading
        How to read the cube: `clear`, `mask`, `scheme`, `threshold`, `snow`, `strict`, `dilate`, `bands`, `scale`,
        `offset`, `nodata`, `merge`, `repair` as for `fill`.

    Returns
    -------
    DataFrame
        Indexed by track and model (and date, with `detail`). ``frames``, how many there are, ``MAE`` and ``RMSE`` in
        reflectance, ``PSNR`` in dB with a peak of 1, ``SAM`` in degrees, ``SSIM``, ``answered``, the share of the
        scored pixels that have a value, and ``seconds`` per frame for the fill alone. For models with an uncertainty,
        ``coverage90``, the share of the truth inside the 90 % interval, and ``width90``, the mean width of that
        interval in reflectance: of two models with the same coverage, the one with narrower intervals knows more.

        With `by`, ``share`` is the share of the scored pixels in the class, and frames are those with at least 30 of
        its pixels; SSIM, the time and the scores of masks, which belong to whole frames, are left out.

        With added clouds, PSNR also under the donor's mask (``PSNR_under``), and on the rim, the cloud that this mask
        misses (``PSNR_rim``); and of the mask of the target: ``recall``, the share of cloud and shadow that it masks;
        ``precision``, the share of what it calls clear that is clear; ``false_alarms``, the share of the clear pixels
        that it masks; ``restored``, the share of the pixels that *wrong mask* flagged that are clear again.
        ``newly_masked`` is the share of the clear pixels that only the correction masks, on any track.

    Raises
    ------
    TimeError
        If no frame is clear enough to serve as truth.
    OptionError
        If a track does not exist, there are no clouds to hide pixels under or to add, or `s1` is given and no model
        takes it.

    References
    ----------
    The clouds are those of `xr_cloudfree.accuracy.mask_tracks`.

    Examples
    --------
    >>> import xr_cloudfree
    >>> from xr_cloudfree import synthetic
    >>> ds = synthetic.cube(shape=(16, 4, 64, 64), seed=3)
    >>> score = xr_cloudfree.evaluate(ds, ["nearest", "linear"], tracks=["full"], frames=2)
    >>> bool(score.loc[("full", "linear"), "MAE"] < score.loc[("full", "nearest"), "MAE"])
    True
    >>> score = xr_cloudfree.evaluate(ds, ["linear"], tracks=["clouds"], frames=2)
    >>> bool(score.loc[("clouds", "linear"), "recall"] < 1)  # the masks of this cube miss some cloud
    True
    """
    size, seed = parse_count("size", size, 1, option("size=256")), parse_count("seed", seed, 0, option("seed=0"))
    if frames is not None:
        frames = parse_count("frames", frames, 1, either(option("frames=10"), code("frames=None for all")))
    tracks = parse_list("tracks", tracks, option("tracks=['partial']"))
    for track in tracks:
        if track not in ALL_TRACKS:
            near = difflib.get_close_matches(str(track).lower(), ALL_TRACKS, n=1) or ["partial"]
            raise OptionError(f"there is no track {track!r}", f"some of {ALL_TRACKS}", option(f"tracks={near}"))
    if by is not None and by not in BY:
        raise OptionError(f"by is {by!r}", f"one of {BY}, or None", option("by='distance'"))
    check_names(reading, evaluate, ReadOptions)
    requested = parse_list("models", models, option("models=['linear', 'regress']"))
    instances = [registry.create(model) for model in requested]
    if s1 is not None and not any(model.spec.takes_s1 for model in instances):
        instances[0].spec.check_s1()
    window = _window(obj, size, ReadOptions(**reading), s1, others, check)
    seen, times = window.seen, window.times
    if not target_frames(seen, window.suspect).size:
        best = seen.mean(axis=(1, 2)).max()
        raise TimeError(
            f"the clearest date is {best:.0%} clear in the central {seen.shape[1]} x {seen.shape[2]} pixels",
            f"a date that is more than {MIN_CLEAR:.0%} clear, to serve as truth",
            either(option("size=64") + " for a smaller window", "a longer series"),
        )
    if not real_masks(seen) and set(tracks) & {"partial", "gap", "haze"}:
        raise _no_clouds(HIDDEN_SHARE, "whose cloud mask is used to hide clear dates")
    if window.others and not any(is_near(window.other_times, day).any() for day in times):
        warn(f"no image of others is within {NEAR:g} days of a date of the cube: scores are as without others")
    rows = []
    for track in tracks:
        found = False
        for case in _cases(window, track, frames, seed):
            found = True
            row = {"track": track, "date": times[case.frame]}
            clear, masks = _masks(case, window)
            for model in instances:
                scores = _scores(case, clear, model, window, by)
                rows += [{**row, "model": model.spec.name, **score, **({} if by else masks)} for score in scores]
        if not found and track in MASK_TRACKS:
            raise _no_clouds(DONOR_SHARE, "of another pass than the clear dates, whose clouds are added to them")
    table, keys = pd.DataFrame(rows), ["track", "model"]
    if by is not None:
        table[by] = pd.Categorical(table[by], class_names(by), ordered=True)
    if detail:
        return table.set_index([*keys, "date", *([] if by is None else [by])])
    if by is not None:
        # Tracks and models stay in their order, and the classes of each rise.
        order = table.groupby(keys, sort=False).ngroup()
        table = table.iloc[np.lexsort([table[by].cat.codes, order])]
        keys.append(by)
    grouped = table.groupby(keys, sort=False, observed=True)
    out = grouped.mean(numeric_only=True)
    out.insert(0, "frames", grouped.size())
    return out.reindex(columns=list(COLUMNS if by is None else PART_COLUMNS))


def _no_clouds(share: tuple[float, float], use: str) -> OptionError:
    return OptionError(
        f"no date of this cube is partly cloudy ({share[0]:.0%} to {share[1]:.0%})".replace("%", " %"),
        f"a partly cloudy date, {use}",
        option("tracks=['full']"),
    )


@dataclass(frozen=True, eq=False)
class _Window:
    """The central part of a cube in memory, sorted by time; Sentinel-1 in its own order.

    Values that were not measured are NaN, and so are those of snow that is not clear: no correction restores them.
    """

    values: NDArray[np.float32]
    seen: NDArray[np.bool_]
    times: Times
    suspect: NDArray[np.bool_]
    bands: tuple[str, ...]
    common_names: tuple[str | None, ...]
    limits: tuple[float, float]
    repair: bool
    from_series: bool
    s1: xr.DataArray | None
    coords: dict[str, xr.DataArray]
    others: tuple[Any, ...]
    other_times: Times


def _window(
    obj: xr.DataArray | xr.Dataset, size: int, reading: ReadOptions, s1: Any, others: Any, check: bool
) -> _Window:
    from dask.base import compute

    s1, obj = open_s1(s1, obj)
    info = api.read(obj, reading)
    cube, rule = info.cube, info.rule
    box = middle(cube.shape, size)
    grid = make_grid(cube, cube.arrays[0].sizes["time"], 0, None, None)
    inner, of_quality = _part(box), _part(quality_window(box, rule, grid))
    # Scores are numbers, so lazy cubes are computed here, as documented.
    quality, *stored = compute(info.quality.isel(of_quality), *(array.isel(inner) for array in cube.arrays))
    windows = Windows([array.to_numpy() for array in stored], quality.to_numpy())
    valid_range = info.valid_range if check else None
    how = Decoding(rule, info.scaling, info.times, info.scenes, cube.extras, info.valid_range)
    decoded = decode_window(windows, how, grid, box, how.dates)
    digits, _ = split_extras(decoded.stored, cube.extras)
    if check:  # the values as stored, before any of them counts as missing
        info.check_reflectance(digits, decoded.clear)
    order = np.argsort(info.times, kind="stable")
    seen = clear_where(digits, decoded.clear, info.scaling, valid_range)[order]
    usable = np.stack([measured(image, info.scaling, valid_range, axis=0).all(axis=0) for image in digits])
    usable &= ~decoded.missing
    if rule.snow == "not clear":
        usable &= ~decoded.snow
    values = to_reflectance(digits, info.scaling)[order]
    values[~np.broadcast_to(usable[order][:, None], values.shape)] = np.nan
    times = info.times[order]
    if rule.from_series:
        days = (times - times[0]) / np.timedelta64(1, "D")
        seen = repair(values, seen, days, usable=usable[order], keep=~usable[order], from_series=True).clear
    radar = None
    if s1 is not None:
        sentinel1 = parse_radar(s1, cube.template)
        decibels = stack([array.to_numpy() for array in compute(*(array.isel(inner) for array in sentinel1.arrays))])
        coords = {"time": sentinel1.times, "band": list(POLARISATIONS)}
        radar = xr.DataArray(decibels, dims=("time", "band", "y", "x"), coords=coords)
    cubes = open_others(others)
    of_others = [info.times for info in read_others(cubes, cube)[0]]
    template = cube.template.isel(inner)
    return _Window(
        values,
        seen,
        times,
        _suspect(info)[order],
        cube.bands,
        cube.common_names,
        cube.limits or LIMITS,
        info.repair,
        rule.from_series,
        radar,
        {name: template.coords[name] for name in ("y", "x", "spatial_ref") if cubes and name in template.coords},
        cubes,
        np.concatenate(of_others) if of_others else np.empty(0, "datetime64[ns]"),
    )


def _part(box: Box) -> dict[str, slice]:
    return {"y": slice(box.y0, box.y1), "x": slice(box.x0, box.x1)}


def _suspect(info: CubeInfo) -> NDArray[np.bool_]:
    """Return the dates that the cube's coordinate ``suspect`` flags; of merged scenes, any of them."""
    flags = info.cube.arrays[0].coords.get("suspect")
    if flags is None or flags.dims != ("time",):
        return np.zeros(info.times.size, bool)
    of_scenes = flags.to_numpy().astype(bool)
    if info.scenes is None:
        return np.asarray(of_scenes)
    return np.array([of_scenes[list(members)].any() for members in info.scenes.members])


def _cases(window: _Window, track: Any, frames: int | None, seed: int) -> Iterator[Case | MaskCase]:
    how: dict[str, Any] = {"suspect": window.suspect, "limit": frames, "seed": seed}
    if track in MASK_TRACKS:
        yield from make_mask_cases(window.values, window.seen, window.times, track, limits=window.limits, **how)
    else:
        keep = window.repair
        yield from make_cases(window.values, window.seen, window.times, track, keep_values=keep, **how)


def _masks(case: Case | MaskCase, window: _Window) -> tuple[NDArray[np.bool_], dict[str, float]]:
    """Return the clear masks of a case, corrected if the cube is read so, and their scores."""
    clear = case.given if isinstance(case, MaskCase) else case.clear
    if window.repair:
        clear = repaired(case, from_series=window.from_series).clear
    if isinstance(case, MaskCase):
        scores = mask_scores(case, clear)
        return clear, {name: scores[name] for name in MASK_COLUMNS}
    with np.errstate(invalid="ignore"):  # of *haze*, only pixels without haze are clear
        still = case.clear[case.target] & (case.bands[case.target] == case.truth).all(axis=0)
    masked = ~clear[case.target]
    return clear, {"newly_masked": float(masked[still].mean()) if still.any() else np.nan}


def _scores(
    case: Case | MaskCase, mask: NDArray[np.bool_], model: FillModel, window: _Window, by: By | None
) -> list[dict[str, Any]]:
    """Fill a case, and return its scores: of all scored pixels, or of each class of them."""
    day, bands = window.times[case.frame], window.bands
    times = day + (case.day_offset * 86400e9).astype("timedelta64[ns]")
    cube = xr.DataArray(case.bands, dims=("time", "band", "y", "x"), coords={"time": times, "band": list(bands)})
    cube = cube.assign_coords(window.coords)
    clear = xr.DataArray(mask, dims=("time", "y", "x"), coords={"time": times} | window.coords)
    layers = ["filled", "uncertainty"] if "uncertainty" in model.spec.layers else ["filled"]
    # The cube has been checked, and simulated haze need not look like reflectance. Its masks are corrected already.
    options: dict[str, Any] = {"model": model, "scale": 1.0, "layers": layers, "check": False, "repair": False}
    radar = window.s1 if model.spec.takes_s1 else None
    if radar is not None and not nearby_dates(radar["time"].to_numpy(), [day]).size:
        radar = None
    corner = {"y": slice(8), "x": slice(8)}
    part = None if radar is None else radar.isel(corner)
    # Compile kernels and load weights before the time is measured.
    api.fill(cube.isel(corner), times[case.target], clear=clear.isel(corner), s1=part, **options)
    start = clock.perf_counter()
    others = window.others if is_near(window.other_times, day).any() else None
    filled = api.fill(cube, times[case.target], clear=clear, s1=radar, others=others, **options)
    seconds = clock.perf_counter() - start
    image, sigma = filled["reflectance"].to_numpy(), None
    if "uncertainty" in layers:
        sigma = np.where(mask[case.target], np.nan, filled["uncertainty"].to_numpy())  # only what was filled has one
    if by is None:
        return [_score(case, image, sigma, case.scored) | _whole_scores(case, image) | {"seconds": seconds}]
    classes = strata(by, mask, case.day_offset, case.target)
    return [
        {by: name, "share": float(inside.sum() / case.scored.sum())} | _score(case, image, sigma, inside)
        for name, where in classes.items()
        if (inside := where & case.scored).sum() >= LEAST_PIXELS
    ]


def _score(
    case: Case | MaskCase, image: NDArray[np.floating], sigma: NDArray[np.floating] | None, where: NDArray[np.bool_]
) -> dict[str, float]:
    """Return the scores of some pixels of an image, (band, y, x), and of its uncertainty, NaN where there is none."""
    known, truth = where & np.isfinite(image).all(axis=0), case.truth
    if not known.any():
        return {"answered": 0.0}
    score = {
        "answered": float(known.sum() / where.sum()),
        "MAE": metrics.mae(image, truth, known),
        "RMSE": metrics.rmse(image, truth, known),
        "PSNR": metrics.psnr(image, truth, known),
        "SAM": metrics.sam(image, truth, known),
    }
    if sigma is not None and (valid := known & np.isfinite(sigma).all(axis=0)).any():
        score["coverage90"], score["width90"] = metrics.interval_coverage(image, truth, sigma, valid)
    return score


def _whole_scores(case: Case | MaskCase, image: NDArray[np.floating]) -> dict[str, float]:
    """Return the scores that take a whole frame."""
    where = case.scored & np.isfinite(image).all(axis=0)
    if not where.any():
        return {}
    # SSIM windows reach beyond the hidden pixels: they are filled with the truth, because the model's input may be
    # hazy.
    whole = np.nan_to_num(case.truth)
    span = metrics.data_range(case.truth, np.isfinite(case.truth).all(axis=0))
    score = {"SSIM": metrics.ssim(np.where(where, image, whole), whole, where, np.maximum(span, LEAST_RANGE))}
    if isinstance(case, MaskCase):
        scores = image_scores(case, image)
        score |= {"PSNR_under": scores["under"], "PSNR_rim": scores["rim"]}
    return score
