"""Scores of every method on every case."""

from __future__ import annotations

import json
import multiprocessing
import os
import time
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from benchmarks.accuracy import folds
from benchmarks.accuracy.sites import SAMPLE, Site, read_all
from benchmarks.plain_regress import PlainRegress
from xr_cloudfree.accuracy import metrics
from xr_cloudfree.accuracy.simulate import TRACKS, Case, make_cases, real_masks
from xr_cloudfree.errors import BandError
from xr_cloudfree.models.auto import Auto
from xr_cloudfree.models.pretrained.model import PretrainedModel
from xr_cloudfree.models.pretrained.runtime import installed
from xr_cloudfree.models.protocol import FillModel, Observations, Prediction
from xr_cloudfree.models.registry import create

CLASSICAL = ("nearest", "median", "geomedian", "linear", "harmonic", "timegate", "regress")
REFERENCE, FITTED, PLAIN, UNET, AUTO = "linear", "regress", "plain regress", "unet", "auto"
ONE_SENSOR = "unet, Landsat only"
LEVELS = (0.5, 0.8, 0.9, 0.95)
CASE = ["place", "ground", "track", "seed", "frame"]
ALL = "all"
# One thread each: the workers share the cores.
_ENVIRONMENT = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS", "NUMBA")}


@dataclass(frozen=True)
class Task:
    """Data, methods and settings of a measurement.

    Parameters
    ----------
    data : Path
        Folder of series.
    sample : Path or None
        A series that took no part in training.
    folds : Path
        Folder of trainings.
    frames : int
        At most so many frames per place, track and seed.
    seeds : tuple of int
        Choices of frames and masks, each of which goes with a seed of training.
    only : tuple of str
        Of the networks beside the default one, those to measure, and nothing else; all by default.
    """

    data: Path
    sample: Path | None
    folds: Path
    frames: int = 5
    seeds: tuple[int, ...] = (0, 1, 2)
    only: tuple[str, ...] = ()


def answer(model: FillModel, case: Case, common_names: tuple[str | None, ...]) -> Prediction:
    """Return a model's prediction of a case as one tile, within the model's window of dates."""
    window = model.spec.window_days
    near = np.ones(len(case.day_offset), bool) if window is None else np.abs(case.day_offset) <= window
    clear = case.clear[near]
    target = int(near[: case.target].sum())
    if model.spec.units == "storage":
        # The pixelwise models would take the target's own clear pixels for the answer; they are not scored.
        clear = clear.copy()
        clear[target] = False
    bands = np.ascontiguousarray(case.bands[near])
    return model.predict([Observations(bands, clear, case.day_offset[near], target, common_names=common_names)])[0]


def judge(case: Case, prediction: Prediction, linear: Prediction) -> dict[str, float]:
    """Compute all metrics of a prediction; unknown pixels are filled by linear, and their share is reported."""
    where = case.scored
    known = prediction.known & np.isfinite(prediction.bands).all(axis=0)
    image = np.where(known, prediction.bands, linear.bands)
    whole = np.isfinite(case.truth).all(axis=0)
    filled, truth = np.where(where, image, case.truth), np.where(whole, case.truth, 0)
    values = {
        "mae": metrics.mae(image, truth, where),
        "rmse": metrics.rmse(image, truth, where),
        "psnr": metrics.psnr(image, truth, where),
        "sam": metrics.sam(image, truth, where),
        "ssim": metrics.ssim(np.where(whole, filled, 0), truth, where, metrics.data_range(truth, whole)),
        "ssim1": metrics.ssim(np.where(whole, filled, 0), truth, where),
        "unknown": float((~known)[where].mean()),
    }
    sigma = prediction.uncertainty
    if sigma is not None and (told := where & known & np.isfinite(sigma).all(axis=0)).any():
        for level in LEVELS:
            covered, width = metrics.interval_coverage(image, truth, sigma, told, level)
            values[f"cover{level:.0%}"] = covered
            if level == 0.9:
                values["width"] = width
        values["crps"] = metrics.crps(image, truth, sigma, told)
    return values


class Bench:
    """Everything that a process needs to measure: series, cloud shapes and models."""

    def __init__(self, task: Task) -> None:
        self.task = task
        found, self.shapes = read_all(task.data, task.sample)
        self.places = {place.name: place for place in found if place.judged}
        self.models: dict[str, FillModel] = {name: create(name) for name in CLASSICAL}
        self.models[PLAIN] = PlainRegress()

    def jobs(self) -> list[tuple[str, str, int]]:
        """Return site, track and seed of each job, longest jobs first."""
        large = sorted(self.places.values(), key=lambda place: -place.bands[0].size)
        return [(p.name, track, seed) for p in large for track in TRACKS for seed in self.task.seeds]

    def rows(self, name: str, track: Any, seed: int) -> list[dict[str, Any]]:
        """Return scores on the frames of one site."""
        place = self.places[name]
        masks = [*real_masks(place.clear), *self.shapes]
        how: dict[str, Any] = {"masks": masks, "suspect": place.suspect, "limit": self.task.frames, "seed": seed}
        told = {"place": name, "ground": place.ground, "track": track, "seed": seed}
        return [
            told | row
            for case in make_cases(place.bands, place.clear, place.time, track, **how)
            for row in self._case(case, place, seed)
        ]

    def _case(self, case: Case, place: Site, seed: int) -> Iterator[dict[str, Any]]:
        hidden = float((~case.clear[case.target]).mean())
        of_case = {"frame": case.frame, "gap": case.gap_days, "hidden": hidden, "bands": ALL, "weights": ""}
        linear = answer(self.models[REFERENCE], case, place.common_names)
        done: dict[str, dict[str, Any]] = {}
        answers: dict[str, Prediction] = {}
        for name, model, weights in self._models(place, seed):
            start = time.perf_counter()
            answers[name] = answer(model, case, place.common_names)
            seconds = time.perf_counter() - start
            done[name] = of_case | {"method": name, "seconds": seconds} | judge(case, answers[name], linear)
            if weights is not None:
                done[name] |= {"weights": weights.text, "scaled": weights.scaled}
        chosen = self._choice(place.common_names)
        if chosen in done:
            done[AUTO] = done[chosen] | {"method": AUTO}
        yield from done.values()
        yield from self._published(case, place, seed, of_case, answers)

    def _models(self, place: Site, seed: int) -> list[tuple[str, FillModel, folds.Weights | None]]:
        """Return the models evaluated on a site with all of its bands, by name."""
        found: list[tuple[str, FillModel, folds.Weights | None]] = [(n, m, None) for n, m in self.models.items()]
        for name in (UNET, ONE_SENSOR, *folds.TERRAMIND):
            weights = self._weights(name, place.ground, seed)
            if weights is not None and _takes(weights.model, place):
                found.append((name, weights.model, weights))
        only = self.task.only
        # The default network is judged anew on the bands that the published ones take.
        wanted = {*only, UNET} if folds.PUBLISHED.keys() & only else set(only)
        return [one for one in found if one[0] in wanted] if only else found

    @cache  # noqa: B019  there is one of these per process
    def _weights(self, name: str, ground: str, seed: int) -> folds.Weights | None:
        """Return the weights of a network to evaluate on a ground."""
        if not installed():
            return None
        if name == UNET:
            return folds.for_ground(self.task.folds, ground, seed)
        if name == ONE_SENSOR:
            label = f"{folds.ONE_SENSOR}/seed-{seed}"
            return None if ground == folds.SENSOR else folds.find(self.task.folds, label)
        ground = folds.LIKE_SHIPPED if ground == SAMPLE else ground
        return folds.find(self.task.folds, f"{folds.BESIDE[name].folder}/{ground}/seed-{seed}")

    @cache  # noqa: B019
    def _choice(self, common_names: tuple[str | None, ...]) -> str:
        """Return the model that `auto` chooses for such bands; scored with weights trained without the site."""
        chosen = Auto().choose(layers=(), bands=_names(common_names), common_names=common_names)
        return UNET if isinstance(chosen, PretrainedModel) else chosen.spec.name

    def _published(
        self, case: Case, place: Site, seed: int, of_case: dict[str, Any], answers: dict[str, Prediction]
    ) -> Iterator[dict[str, Any]]:
        """Yield the published networks on their bands, and the other models on the same bands."""
        beside: set[tuple[str, ...]] = set()
        for name in folds.PUBLISHED:
            if self.task.only and name not in self.task.only:
                continue
            weights = self._weights(name, place.ground, seed)
            bands = () if weights is None else weights.model.spec.bands or ()
            if weights is None or not bands or not set(bands) <= set(place.common_names):
                continue
            which = [place.common_names.index(band) for band in bands]
            part = replace(case, bands=case.bands[:, which], truth=case.truth[which])
            linear = answer(self.models[REFERENCE], part, bands)
            row = of_case | {"bands": " ".join(bands)}
            if bands not in beside:
                beside.add(bands)
                for other in (REFERENCE, FITTED):
                    yield row | {"method": other} | judge(part, answer(self.models[other], part, bands), linear)
                if UNET in answers:  # it was given all bands, and is judged on these
                    yield row | {"method": UNET} | judge(part, _of_bands(answers[UNET], which), linear)
            start = time.perf_counter()
            prediction = answer(weights.model, part, bands)
            row |= {"method": name, "seconds": time.perf_counter() - start}
            yield row | {"weights": weights.text, "scaled": weights.scaled} | judge(part, prediction, linear)


def measure(task: Task, workers: int) -> pd.DataFrame:
    """Return all scores, computed in several processes."""
    bench = Bench(task)
    jobs = bench.jobs()
    if workers < 2:
        tables = [bench.rows(*job) for job in jobs]
    else:
        os.environ |= _ENVIRONMENT  # the workers inherit it
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(workers, context, _start, (task,)) as pool:
            tables = list(_told(jobs, pool.map(_rows, jobs)))
    return _sorted(pd.DataFrame([row for table in tables for row in table]))


def merge(kept: pd.DataFrame, new: pd.DataFrame) -> pd.DataFrame:
    """Return the scores with new measurements in place of old ones."""
    keys = [*CASE, "bands", "method"]
    stays = ~pd.MultiIndex.from_frame(kept[keys]).isin(pd.MultiIndex.from_frame(new[keys]))
    return _sorted(pd.concat([kept[stays], new], ignore_index=True))


def _sorted(scores: pd.DataFrame) -> pd.DataFrame:
    order = {track: i for i, track in enumerate(TRACKS)}
    return scores.sort_values(
        CASE, kind="stable", key=lambda column: column.map(order) if column.name == "track" else column
    ).reset_index(drop=True)


def _told(jobs: Sequence[tuple[str, str, int]], tables: Iterable[list[dict[str, Any]]]) -> Iterator[list[Any]]:
    for i, (job, table) in enumerate(zip(jobs, tables, strict=True), start=1):
        print(f"{i} of {len(jobs)}: {job[0]}, {job[1]}, seed {job[2]}", flush=True)
        yield table


_bench: Bench | None = None


def _start(task: Task) -> None:
    global _bench
    _bench = Bench(task)
    if installed():
        import torch

        torch.set_num_threads(1)
    # What is compiled or loaded at its first call is not to be counted to whichever case comes first.
    _bench.rows(*_bench.jobs()[-1])


def _rows(job: tuple[str, str, int]) -> list[dict[str, Any]]:
    assert _bench is not None
    return _bench.rows(*job)


def _names(common_names: tuple[str | None, ...]) -> list[str]:
    return [role or f"band{i + 1}" for i, role in enumerate(common_names)]


def _takes(model: FillModel, place: Site) -> bool:
    try:
        model.spec.check_bands(_names(place.common_names), place.common_names)
    except BandError:
        return False
    return True


def _of_bands(prediction: Prediction, which: list[int]) -> Prediction:
    sigma: NDArray[np.float32] | None = prediction.uncertainty
    return replace(
        prediction, bands=prediction.bands[which], uncertainty=None if sigma is None else sigma[which], gate=None
    )


def write(scores: pd.DataFrame, path: Path, told: dict[str, Any]) -> None:
    """Write the scores; the first line holds the settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        file.write(f"# {json.dumps(told)}\n")
        scores.to_csv(file, index=False, float_format="%.6g")


def load(path: Path) -> tuple[pd.DataFrame, dict[str, Any]]:
    """Read scores and settings written by `write`."""
    with path.open() as file:
        told = json.loads(file.readline().removeprefix("# "))
        return pd.read_csv(file, dtype={"weights": str, "scaled": str}), told
