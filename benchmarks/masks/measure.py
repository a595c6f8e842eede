"""Scores of every mask on every case."""

from __future__ import annotations

import multiprocessing
import os
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.masks.change import changed
from benchmarks.masks.places import COVERS, Place, read_places
from benchmarks.noise_test import noise_test
from benchmarks.tmask import tmask
from xr_cloudfree.accuracy import mask_tracks, metrics
from xr_cloudfree.accuracy.mask_tracks import MASK_TRACKS, MaskCase, MaskTrack
from xr_cloudfree.accuracy.simulate import TRACKS, Track, make_cases, real_masks
from xr_cloudfree.masking.repair import LEAST_DATES, repair
from xr_cloudfree.models.protocol import FillModel, Observations, Prediction
from xr_cloudfree.models.registry import create

MODEL = "regress"
GIVEN, REPAIR, TRUE, TMASK, NOISE = "given", "repair", "true", "Tmask", "FORCE"
CHANGE = "change"
DILATIONS = range(1, 9)
CASE = ["place", "sensor", "track", "seed", "frame"]
ALL = "all"
# A cover of fewer pixels is not scored.
LEAST_PIXELS = 50
_ENVIRONMENT = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


def dilation(pixels: int) -> str:
    """Return the name of a dilated mask."""
    return f"dilate {pixels}"


@dataclass(frozen=True)
class Task:
    """Data and settings of a measurement.

    Parameters
    ----------
    data : Path
        Folder of series.
    sample : Path or None
        A series apart.
    frames : int
        At most so many frames per place, track and seed.
    seeds : tuple of int
        Choices of frames, donors and wrong masks.
    dates : int
        At most so many dates of a series, its first ones.
    """

    data: Path
    sample: Path | None
    frames: int = 5
    seeds: tuple[int, ...] = (0, 1, 2)
    dates: int = 120


class Bench:
    """Everything that a process needs to measure: the series and the model."""

    def __init__(self, task: Task) -> None:
        self.task = task
        self.places = read_places(task.data, task.sample, task.dates)
        self.model: FillModel = create(MODEL)
        self.linear: FillModel = create("linear")

    def jobs(self) -> list[tuple[str, str, int]]:
        """Return place, track and seed of each job, longest jobs first."""
        large = sorted(self.places.values(), key=lambda place: -place.site.bands.size)
        tracks = (*MASK_TRACKS, *TRACKS)
        jobs = [(place.site.name, track, seed) for place in large for track in tracks for seed in self.task.seeds]
        return jobs + [(place.site.name, CHANGE, 0) for place in large]

    def rows(self, name: str, track: Any, seed: int) -> list[dict[str, Any]]:
        """Return the scores of one job: a row for each case, mask and cover."""
        place = self.places[name]
        told = {"place": name, "sensor": place.sensor, "track": track, "seed": seed}
        if track == CHANGE:
            return [told | row for row in self._change(place)]
        score = self._wrong if track in MASK_TRACKS else self._hidden
        return [told | row for row in score(place, track, seed)]

    def _change(self, place: Place) -> Iterator[dict[str, Any]]:
        """Yield the share of the pixels of real change that are masked, of the series as it is."""
        site = place.site
        usable = np.asarray(np.isfinite(site.bands).all(axis=1))
        days = (site.time - site.time[0]) / np.timedelta64(1, "D")
        found = changed(site.bands, site.clear)
        if found.sum() < LEAST_PIXELS or len(days) < LEAST_DATES:
            return
        names = site.common_names
        corrected = repair(site.bands, site.clear, days, usable=usable, keep=~usable)
        masks = {
            REPAIR: corrected.clear,
            TMASK: tmask(site.bands, site.clear, days, names),
            NOISE: noise_test(site.bands, site.clear, days, usable),
        }
        for mask, clear in masks.items():
            told = {"frame": -1, "mask": mask, "cover": ALL, "pixels": int(found.sum())}
            yield told | {"newly_masked": float((~clear)[found].mean())}

    def _wrong(self, place: Place, track: MaskTrack, seed: int) -> Iterator[dict[str, Any]]:
        """Yield the scores of masks that are wrong."""
        site = place.site
        how: dict[str, Any] = {"suspect": site.suspect, "limit": self.task.frames, "seed": seed}
        for case in mask_tracks.make_mask_cases(site.bands, site.clear, site.time, track, **how):
            cover = place.cover(case.frame)
            fallback = self._predict(self.linear, case.bands, case.true, case, site.common_names)
            for mask, clear, seconds in self._masks(case, site.common_names):
                answer = self._predict(self.model, case.bands, clear, case, site.common_names)
                image = mask_tracks.compose(case, clear, answer.bands, answer.known)
                # What is left unknown is filled from the true masks, so that all masks are judged on the same pixels.
                image = np.where(np.isfinite(image).all(axis=0), image, fallback.bands)
                told = {"frame": case.frame, "donor": case.donor, "mask": mask, "seconds": seconds}
                yield told | {"cover": ALL, "pixels": int(case.scored.sum())} | _scores(case, clear, image)
                if mask in (GIVEN, REPAIR, TRUE):
                    for code, kind in enumerate(COVERS):
                        part = replace(case, scored=case.scored & (cover == code))
                        if part.scored.sum() >= LEAST_PIXELS:
                            told |= {"cover": kind, "pixels": int(part.scored.sum())}
                            yield told | _scores(part, clear, image)

    def _masks(
        self, case: MaskCase, common_names: tuple[str | None, ...]
    ) -> Iterator[tuple[str, NDArray[np.bool_], float]]:
        """Yield each mask: its name, the clear mask and the seconds that it took."""
        yield GIVEN, case.given, 0.0
        yield TRUE, case.true, 0.0
        start = time.perf_counter()
        found = mask_tracks.repaired(case).clear
        yield REPAIR, found, time.perf_counter() - start
        start = time.perf_counter()
        found = tmask(case.bands, case.given, case.day_offset, common_names)
        yield TMASK, found, time.perf_counter() - start
        start = time.perf_counter()
        found = noise_test(case.bands, case.given, case.day_offset, case.usable)
        yield NOISE, found, time.perf_counter() - start
        if case.track != "no mask":
            for pixels in DILATIONS:
                yield dilation(pixels), mask_tracks.dilated(case, pixels), 0.0

    def _hidden(self, place: Place, track: Track, seed: int) -> Iterator[dict[str, Any]]:
        """Yield the scores of the tracks whose masks are right: what correcting them costs."""
        site = place.site
        pool = real_masks(site.clear)
        if not pool and track != "full":
            return
        how: dict[str, Any] = {"masks": pool, "suspect": site.suspect, "limit": self.task.frames, "seed": seed}
        for case in make_cases(site.bands, site.clear, site.time, track, keep_values=True, **how):
            found = mask_tracks.repaired(case).clear
            fallback = self._predict(self.linear, case.bands, case.clear, case, site.common_names)
            shown = case.bands[case.target]
            # Of *haze*, only pixels without haze are truly clear.
            with np.errstate(invalid="ignore"):
                still = case.clear[case.target] & (shown == case.truth).all(axis=0)
            for mask, clear in ((GIVEN, case.clear), (REPAIR, found)):
                answer = self._predict(self.model, case.bands, clear, case, site.common_names)
                image = np.where(answer.known, answer.bands, fallback.bands)
                newly = float((~clear[case.target])[still].mean()) if still.any() else np.nan
                yield {
                    "frame": case.frame,
                    "mask": mask,
                    "cover": ALL,
                    "pixels": int(case.scored.sum()),
                    "whole": metrics.psnr(image, case.truth, case.scored),
                    "newly_masked": newly,
                }

    def _predict(
        self, model: FillModel, bands: NDArray[np.float32], clear: NDArray[np.bool_], case: Any, names: Any
    ) -> Prediction:
        if model.spec.units == "storage":  # they would return the target's own clear pixels
            clear = clear.copy()
            clear[case.target] = False
        return model.predict([Observations(bands, clear, case.day_offset, case.target, common_names=names)])[0]


def _scores(case: MaskCase, clear: NDArray[np.bool_], image: NDArray[np.float32]) -> dict[str, float]:
    return mask_tracks.image_scores(case, image) | mask_tracks.mask_scores(case, clear)


def measure(task: Task, workers: int) -> pd.DataFrame:
    """Return all scores, computed in several processes."""
    bench = Bench(task)
    jobs = bench.jobs()
    if workers < 2:
        tables = [bench.rows(*job) for job in jobs]
    else:
        os.environ.update(_ENVIRONMENT)
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, mp_context=context, initializer=_start, initargs=(task,)) as pool:
            tables = list(pool.map(_run, jobs))
    return pd.DataFrame([row for table in tables for row in table])


_bench: Bench | None = None


def _start(task: Task) -> None:
    global _bench
    _bench = Bench(task)


def _run(job: tuple[str, str, int]) -> list[dict[str, Any]]:
    assert _bench is not None
    return _bench.rows(*job)
