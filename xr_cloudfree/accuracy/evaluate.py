"""Score models on a cube: clear pixels are hidden under real clouds of other dates, filled, and compared."""

from __future__ import annotations

import os
import time as clock
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree import api
from xr_cloudfree.accuracy import metrics
from xr_cloudfree.accuracy.simulate import (
    MIN_CLEAR,
    TRACKS,
    Case,
    Track,
    make_cases,
    real_masks,
    target_frames,
)
from xr_cloudfree.cube.radar import POLARISATIONS, nearby_dates, parse_radar
from xr_cloudfree.cube.scaling import to_reflectance
from xr_cloudfree.cube.timestamps import Times
from xr_cloudfree.cube.validity import clear_where
from xr_cloudfree.engine.blocks import stack
from xr_cloudfree.errors import OptionError, TimeError, code, either, option
from xr_cloudfree.models import registry
from xr_cloudfree.models.protocol import FillModel
from xr_cloudfree.options import ReadOptions, check_names, parse_count, parse_list
from xr_cloudfree.plan import open_s1

# Minimum data range for the SSIM, about the noise of a sensor: a constant band has no structure to compare.
LEAST_RANGE = 1e-3
COLUMNS = ("frames", "answered", "MAE", "RMSE", "PSNR", "SAM", "SSIM", "coverage90", "seconds")


def evaluate(
    obj: xr.DataArray | xr.Dataset,
    models: Sequence[str | FillModel] = ("nearest", "median", "linear", "regress", "auto"),
    *,
    tracks: Sequence[Track] = ("partial", "gap", "full", "haze"),
    frames: int | None = 10,
    size: int = 256,
    seed: int = 0,
    detail: bool = False,
    check: bool = True,
    s1: xr.DataArray | xr.Dataset | str | os.PathLike[str] | Sequence[str] | None = None,
    **reading: Any,
) -> pd.DataFrame:
    """Score models on clear pixels of this cube, hidden under its own clouds.

    Frames that are more than 95 % clear, and that a coordinate ``suspect(time)`` does not flag, serve as truth. Such a
    frame is hidden under a real cloud mask of another date, the models fill it, and their results at the hidden pixels
    are compared with the frame.

    Unlike `fill`, this function computes: it reads all dates of a window of at most `size` x `size` pixels at the
    centre of the cube.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube, as for `fill`.
    models : sequence of str or FillModel
        Models to compare; `auto` is the default of `fill`. A learned model takes seconds per frame.
    tracks : sequence of {"partial", "gap", "full", "haze"}
        How frames are hidden: partly; partly, with all dates within 20 days removed; completely; partly, with clouds
        that extend beyond the mask.
    frames : int or None
        Maximum number of frames, drawn at random; None uses all.
    size : int
        Maximum edge of the window that is read, in pixels.
    seed : int
        Seed of the random choices; the same seed hides the same pixels.
    detail : bool
        Return a row per frame instead of the mean over frames.
    check : bool
        False accepts values that do not look like reflectance, as for `fill`.
    s1 : DataArray, Dataset, str, path or sequence of str, optional
        Sentinel-1, as for `fill`. Only models that take it receive it.
    **reading
        How to read the cube: `clear`, `mask`, `scheme`, `threshold`, `snow`, `strict`, `dilate`, `bands`, `scale`,
        `offset`, `nodata`, `merge` as for `fill`.

    Returns
    -------
    DataFrame
        Indexed by track and model (and date, with `detail`). MAE and RMSE in reflectance, PSNR in dB with a peak of
        1, SAM in degrees, SSIM, the share of the truth inside the 90 % interval for models with an uncertainty, the
        share of the hidden pixels that were filled, and seconds per frame.

    Raises
    ------
    TimeError
        If no frame is clear enough to serve as truth.
    OptionError
        If a track does not exist, there are no clouds to hide pixels under, or `s1` is given and no model takes it.

    Examples
    --------
    >>> import xr_cloudfree
    >>> from xr_cloudfree import synthetic
    >>> ds = synthetic.cube(shape=(16, 4, 64, 64), seed=3)
    >>> score = xr_cloudfree.evaluate(ds, ["nearest", "linear"], tracks=["full"], frames=2)
    >>> bool(score.loc[("full", "linear"), "MAE"] < score.loc[("full", "nearest"), "MAE"])
    True
    """
    size, seed = parse_count("size", size, 1, option("size=256")), parse_count("seed", seed, 0, option("seed=0"))
    if frames is not None:
        frames = parse_count("frames", frames, 1, either(option("frames=10"), code("frames=None for all")))
    tracks = parse_list("tracks", tracks, option("tracks=['partial']"))
    for track in tracks:
        if track not in TRACKS:
            raise OptionError(f"there is no track {track!r}", f"some of {TRACKS}", option("tracks=['partial']"))
    check_names(reading, evaluate, ReadOptions)
    requested = parse_list("models", models, option("models=['linear', 'regress']"))
    instances = [registry.create(model) for model in requested]
    if s1 is not None and not any(model.spec.takes_s1 for model in instances):
        instances[0].spec.check_s1()
    window = _window(obj, size, ReadOptions(**reading), s1, check)
    values, seen, times, suspect = window.values, window.seen, window.times, window.suspect
    if not target_frames(seen, suspect).size:
        best = seen.mean(axis=(1, 2)).max()
        raise TimeError(
            f"the clearest date is {best:.0%} clear in the central {seen.shape[1]} x {seen.shape[2]} pixels",
            f"a date that is more than {MIN_CLEAR:.0%} clear, to serve as truth",
            either(option("size=64") + " for a smaller window", "a longer series"),
        )
    if not real_masks(seen) and set(tracks) - {"full"}:
        raise OptionError(
            "no date of this cube is partly cloudy (10 to 80 %)",
            "a partly cloudy date, whose cloud mask is used to hide clear dates",
            option("tracks=['full']"),
        )
    rows = []
    for track in tracks:
        for case in make_cases(values, seen, times, track, suspect=suspect, limit=frames, seed=seed):
            row = {"track": track, "date": times[case.frame]}
            rows += [{**row, "model": model.spec.name, **_score(case, model, window)} for model in instances]
    table = pd.DataFrame(rows)
    if detail:
        return table.set_index(["track", "model", "date"])
    grouped = table.groupby(["track", "model"], sort=False)
    out = grouped.mean(numeric_only=True)
    out.insert(0, "frames", grouped.size())
    return out.reindex(columns=list(COLUMNS))


@dataclass(frozen=True, eq=False)
class _Window:
    """The central part of a cube in memory, sorted by time; Sentinel-1 in its own order."""

    values: NDArray[np.float32]
    seen: NDArray[np.bool_]
    times: Times
    suspect: NDArray[np.bool_]
    bands: tuple[str, ...]
    s1: xr.DataArray | None


def _window(obj: xr.DataArray | xr.Dataset, size: int, reading: ReadOptions, s1: Any, check: bool) -> _Window:
    from dask.base import compute

    s1, obj = open_s1(s1, obj)
    scenes = api.read(obj, reading)
    info = api.merge_days(scenes)
    cube = info.cube
    order = np.argsort(info.times, kind="stable")
    middle = {}
    for dim, length in zip(("y", "x"), cube.shape, strict=True):
        first = max((length - size) // 2, 0)
        middle[dim] = slice(first, first + size)
    # The checks need the values as stored, before any of them counts as missing.
    clear = info.quality
    if scenes.scenes is None:
        back = {name: role for role, name in cube.dims.items() if role != "band"}
        clear = api.clear_mask_of(scenes, check=False).rename(back)
    # Scores are numbers, so lazy cubes are computed here, as documented.
    clear, *stored = compute(clear.isel(middle), *(array.isel(middle) for array in cube.measured))
    digits, seen = stack([array.to_numpy() for array in stored]), clear.to_numpy()
    if check:
        info.check_reflectance(digits, seen)
        seen = clear_where(digits, seen, info.scaling, info.valid_range)
    values = to_reflectance(digits, info.scaling)
    flags = cube.arrays[0].coords.get("suspect")
    suspect = np.zeros(order.size, bool)
    if flags is not None and flags.dims == ("time",):
        suspect = flags.to_numpy().astype(bool)
    radar = None
    if s1 is not None:
        sentinel1 = parse_radar(s1, cube.template)
        decibels = stack([array.to_numpy() for array in compute(*(array.isel(middle) for array in sentinel1.arrays))])
        coords = {"time": sentinel1.times, "band": list(POLARISATIONS)}
        radar = xr.DataArray(decibels, dims=("time", "band", "y", "x"), coords=coords)
    return _Window(values[order], seen[order], info.times[order], suspect[order], cube.bands, radar)


def _score(case: Case, model: FillModel, window: _Window) -> dict[str, float]:
    day, bands = window.times[case.frame], window.bands
    times = day + (case.day_offset * 86400e9).astype("timedelta64[ns]")
    cube = xr.DataArray(case.bands, dims=("time", "band", "y", "x"), coords={"time": times, "band": list(bands)})
    clear = xr.DataArray(case.clear, dims=("time", "y", "x"), coords={"time": times})
    layers = ["filled", "uncertainty"] if "uncertainty" in model.spec.layers else ["filled"]
    # The cube has been checked, and simulated haze need not look like reflectance.
    options: dict[str, Any] = {"model": model, "scale": 1.0, "layers": layers, "check": False}
    radar = window.s1 if model.spec.takes_s1 else None
    if radar is not None and not nearby_dates(radar["time"].to_numpy(), [day]).size:
        radar = None
    corner = {"y": slice(8), "x": slice(8)}
    part = None if radar is None else radar.isel(corner)
    # Compile kernels and load weights before the time is measured.
    api.fill(cube.isel(corner), times[case.target], clear=clear.isel(corner), s1=part, **options)
    start = clock.perf_counter()
    filled = api.fill(cube, times[case.target], clear=clear, s1=radar, **options)
    seconds = clock.perf_counter() - start
    image = filled["reflectance"].to_numpy()
    where = case.scored & np.isfinite(image).all(axis=0)
    truth = case.truth
    if not where.any():
        return {"answered": 0.0, "seconds": seconds}
    # SSIM windows reach beyond the hidden pixels: they are filled with the truth, because the model's input may be
    # hazy.
    whole = np.nan_to_num(truth)
    span = metrics.data_range(truth, np.isfinite(truth).all(axis=0))
    score = {
        "answered": float(where.sum() / case.scored.sum()),
        "MAE": metrics.mae(image, truth, where),
        "RMSE": metrics.rmse(image, truth, where),
        "PSNR": metrics.psnr(image, truth, where),
        "SAM": metrics.sam(image, truth, where),
        "SSIM": metrics.ssim(np.where(where, image, whole), whole, where, np.maximum(span, LEAST_RANGE)),
        "seconds": seconds,
    }
    if "uncertainty" in layers:
        sigma = filled["uncertainty"].to_numpy()
        valid = where & np.isfinite(sigma).all(axis=0)
        if valid.any():  # a filled pixel may lack an uncertainty
            score["coverage90"] = metrics.interval_coverage(image, truth, sigma, valid)[0]
    return score
