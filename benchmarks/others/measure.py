"""Scores of fills with a coarser image, on frames of real series that are hidden whole.

The coarser image is made from the frame itself (track *coarse*), with the point spread function of `Footprint`, a
difference of the sensors drawn for each frame and band, and noise; a part of it is hidden under a real cloud. Track
*near* makes it from another date, one to two and a half days away, where a series has one.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter

from benchmarks.accuracy.sites import Site, read_all
from xr_cloudfree.accuracy import metrics, simulate
from xr_cloudfree.cube.footprint import Footprint
from xr_cloudfree.models.classical.enhance import Enhanced
from xr_cloudfree.models.protocol import FillModel, Observations, OtherImages
from xr_cloudfree.models.registry import create

FACTOR, NOISE = 3.0, 0.004
# Differences between the sensors: greatest deviation of the slope from 1, and of the offset, in reflectance.
SLOPE, OFFSET = 0.03, 0.003
# Share of the coarse image that is hidden under a cloud.
CLOUDS = (0.0, 0.3, 0.6)
MODELS = ("linear", "regress")
BICUBIC, INJECTION = "bicubic", "injection"
NEAR_DAYS = (0.5, 2.5)


@dataclass(frozen=True, eq=False)
class Case:
    """A frame that is hidden, and what a coarser sensor saw.

    Parameters
    ----------
    track : str
        ``coarse 0``, ``coarse 30``, ``coarse 60`` or ``near``.
    obs : Observations
        The series, with the coarser images.
    truth : ndarray of float32, shape (band, y, x)
        The frame.
    where : ndarray of bool, shape (y, x)
        Where it is known.
    footprint : Footprint
        The relation of the two grids.
    """

    track: str
    obs: Observations
    truth: NDArray[np.float32]
    where: NDArray[np.bool_]
    footprint: Footprint


def cases(site: Site, frames: int, seed: int) -> Iterator[Case]:
    """Yield the cases of a series: at most so many frames."""
    shape = site.bands.shape[2:]
    rows, columns = ((np.arange(int(size // FACTOR)) + 0.5) * FACTOR for size in shape)
    footprint = Footprint(rows, columns, shape, (FACTOR, FACTOR), (FACTOR, FACTOR))
    draw = np.random.default_rng(seed)
    chosen = simulate.choose_frames(site.clear, site.suspect, frames, seed)
    values = np.where(site.clear[:, None], site.bands, np.float32(0))
    clouds = simulate.real_masks(site.clear)
    for frame in chosen:
        offsets = simulate.days_from(site.time, frame)
        slope = 1 + draw.uniform(-SLOPE, SLOPE, site.bands.shape[1])[:, None, None]
        offset = draw.uniform(-OFFSET, OFFSET, site.bands.shape[1])[:, None, None]

        def see(date: int) -> NDArray[np.float32]:
            image, valid = footprint.degrade_clear(values[date], site.clear[date])
            image = slope * image + offset + draw.normal(0, NOISE, image.shape)  # noqa: B023
            return np.where(valid, image, np.nan).astype(np.float32)

        seen = see(frame)
        tracks: list[tuple[str, NDArray[np.float32], float]] = []
        for share in CLOUDS:
            cloudy = seen.copy()
            if share and clouds:
                nearest = min(clouds, key=lambda mask: abs(mask.mean() - share))
                cloudy[:, footprint.degrade(nearest[None].astype(np.float32))[0] > 0.05] = np.nan
            if not share or clouds:
                tracks.append((f"coarse {share:.0%}".removesuffix("%"), cloudy, 0.0))
        clear_share = site.clear.mean(axis=(1, 2))
        away = np.abs(offsets)
        near = np.flatnonzero((away > NEAR_DAYS[0]) & (away <= NEAR_DAYS[1]) & (clear_share > 0.9))
        if near.size:
            nearest_date = int(near[np.argmin(away[near])])
            tracks.append(("near", see(nearest_date), float(offsets[nearest_date])))
        for track, image, day in tracks:
            # The coarser image stands for a pass of its own: the series does not show that day, nor the target's.
            kept = (np.abs(offsets - day) > NEAR_DAYS[0]) & (away > NEAR_DAYS[0]) | (np.arange(len(offsets)) == frame)
            clear = site.clear[kept].copy()
            target = int(np.flatnonzero(np.flatnonzero(kept) == frame)[0])
            clear[target] = False
            positions = tuple(range(len(seen)))
            step = (FACTOR, FACTOR)
            other = OtherImages(image[None], np.array([day]), positions, rows, columns, step, step)
            obs = Observations(values[kept], clear, offsets[kept], target, others=(other,))
            yield Case(track, obs, site.bands[frame], site.clear[frame], footprint)


def fill_coarse(values: NDArray[np.float32], shrink: float = 0.05) -> NDArray[np.float32]:
    """Return a coarse image with estimates from the neighbours where it is NaN."""
    valid = np.isfinite(values).all(axis=0)
    maps = np.concatenate([np.where(valid, values, 0), valid[None]]).astype(np.float32)
    maps = gaussian_filter(maps, (0, 1, 1), truncate=3.0, mode="nearest")
    return np.where(valid, values, maps[:-1] / (maps[-1] + shrink)).astype(np.float32)


def score(case: Case, site: Site, seed: int) -> Iterator[dict[str, Any]]:
    """Yield the scores of each method on a case."""
    coarse = case.obs.others[0].bands[0]
    images: dict[str, tuple[NDArray[np.float32], NDArray[np.float32] | None, float]] = {}
    start = time.process_time()
    images[BICUBIC] = (case.footprint.interpolate(fill_coarse(coarse, 1e-6)), None, time.process_time() - start)
    for name in MODELS:
        model: FillModel = create(name)
        start = time.process_time()
        alone = model.predict([case.obs])[0]
        took = time.process_time() - start
        images[name] = (alone.bands, alone.uncertainty, took)
        if name == MODELS[0]:
            error = fill_coarse(coarse - case.footprint.degrade(alone.bands))
            images[INJECTION] = (alone.bands + case.footprint.interpolate_linearly(error), None, took)
        start = time.process_time()
        both = Enhanced(model).predict([case.obs])[0]
        images[f"{name} and others"] = (both.bands, both.uncertainty, time.process_time() - start)
    seen = case.footprint.repeat(np.isfinite(coarse).all(axis=0)[None])[0] & case.where
    for part, where in (("all", case.where), ("seen", seen)):
        for method, (image, uncertainty, seconds) in images.items():
            if not where.any():
                continue
            row: dict[str, Any] = {
                "place": site.name,
                "track": case.track,
                "part": part,
                "seed": seed,
                "method": method,
                "psnr": metrics.psnr(image, case.truth, where),
                "ergas": ergas(image, case.truth, where),
                "sam": metrics.sam(image, case.truth, where),
                "ssim": metrics.ssim(image, case.truth, where, metrics.data_range(case.truth, case.where)),
                "coverage": np.nan,
                "width": np.nan,
                "consistency": np.nan,
                "seconds": seconds,
            }
            if uncertainty is not None:
                row["coverage"], row["width"] = metrics.interval_coverage(image, case.truth, uncertainty, where)
            rest = (coarse - case.footprint.degrade(image))[:, case.footprint.inside]
            row["consistency"] = float(np.sqrt(np.nanmean(np.square(rest))))
            yield row


def ergas(image: NDArray[np.float32], truth: NDArray[np.float32], where: NDArray[np.bool_]) -> float:
    """Return the relative dimensionless global error, in per cent; 0 is best.

    References
    ----------
    Wald 2000, Quality of high resolution synthesised images: is there a simple criterion?
    """
    error = np.square(image - truth)[:, where].mean(axis=1)
    level = np.square(truth[:, where].mean(axis=1))
    return float(100 / FACTOR * np.sqrt((error / level).mean()))


def measure(data: Path, sample: Path | None, frames: int, seeds: Sequence[int]) -> pd.DataFrame:
    """Measure all series of a folder, one row per case and method."""
    rows = []
    for site in read_all(data, sample)[0]:
        for seed in seeds:
            for case in cases(site, frames, seed):
                rows += score(case, site, seed)
    return pd.DataFrame(rows)
