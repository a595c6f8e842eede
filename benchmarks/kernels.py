"""Throughput of the kernels, compared to other packages.

Run ``python -m benchmarks.kernels``. The table lists million pixels per core-second (CPU time of all threads, best of
several repeats), where a pixel is one (y, x) with all its bands and dates.
"""

from __future__ import annotations

import importlib
import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xr_cloudfree.models.classical.pixelwise import Geomedian, Harmonic, Linear, Median, Nearest
from xr_cloudfree.models.classical.timegate import ExponentialDecay
from xr_cloudfree.models.protocol import Observations

DATES, BANDS, EDGE = 24, 8, 512
CLEAR_SHARE = 0.45


@dataclass(frozen=True)
class Row:
    """One row of the table."""

    step: str
    package: str
    rate: float | None
    goal: str = ""
    error: str = ""


def make_tile(edge: int, seed: int = 0) -> Observations:
    """Return a cube of digital numbers with seasonal change, noise and missed clouds, 55 % of it not clear."""
    rng = np.random.default_rng(seed)
    shape = (DATES, BANDS, edge, edge)
    values = rng.standard_normal(shape, np.float32) * np.float32(60)
    values += rng.uniform(200, 4000, (1, *shape[1:])).astype(np.float32)
    values += (rng.normal(size=(DATES, 1, edge, edge)) * rng.uniform(20, 500, (1, *shape[1:]))).astype(np.float32)
    missed = rng.random((DATES, 1, edge, edge)) < 0.07
    values += np.where(missed, rng.uniform(500, 4000, missed.shape), 0).astype(np.float32)
    bands = np.clip(np.rint(values), 0, 65535).astype(np.uint16)
    clear = rng.random((DATES, edge, edge)) < CLEAR_SHARE
    return Observations(bands, clear, np.arange(DATES) * 5.0 - 57.0)


def rate(run: Callable[[], Any], pixels: int, repeats: int) -> float:
    """Measure million pixels per second of CPU time: the best of several repeats, after one that compiles."""
    run()
    best = np.inf
    for _ in range(repeats):
        start = time.process_time()
        run()
        best = min(best, time.process_time() - start)
    return pixels / best / 1e6


def _of_model(model: Any, obs: Observations, repeats: int = 5) -> float:
    return rate(lambda: model.predict([obs]), obs.shape[0] * obs.shape[1], repeats)


def _nan(obs: Observations) -> np.ndarray:
    return np.where(obs.clear[:, np.newaxis], obs.bands, np.float32(np.nan)).astype(np.float32, copy=False)


def _peer(name: str) -> Any:
    """Import another package, or return None if it is not installed."""
    try:
        return importlib.import_module(name)
    except ImportError:
        return None


def _part(obs: Observations, edge: int) -> Observations:
    return Observations(obs.bands[:, :, :edge, :edge], obs.clear[:, :edge, :edge], obs.day_offset)


def medians(obs: Observations) -> list[Row]:
    """Measure the masked median; the time of the other packages includes the masking that they need."""
    rows = [Row("median", "ours", _of_model(Median(), obs), ">= 5")]
    bottleneck = _peer("bottleneck")
    part = _part(obs, 256)
    speed = None
    if bottleneck is not None:
        speed = rate(lambda: bottleneck.nanmedian(_nan(part), axis=0), 256**2, 2)
    rows.append(Row("median", "bottleneck.nanmedian", speed))
    small = _part(obs, 128)
    rows.append(Row("median", "numpy.nanmedian", rate(lambda: np.nanmedian(_nan(small), axis=0), 128**2, 1)))
    return rows


def linear(obs: Observations) -> list[Row]:
    """Measure linear interpolation in time at one date."""
    rows = [Row("linear", "ours", _of_model(Linear(), obs), ">= 8")]
    xarray = _peer("xarray")
    small = _part(obs, 64)

    def interpolate() -> Any:
        cube = xarray.DataArray(_nan(small), dims=("time", "band", "y", "x"), coords={"time": small.day_offset})
        return cube.interpolate_na("time", use_coordinate=True)

    rows.append(Row("linear", "xarray interpolate_na, all dates", rate(interpolate, 64**2, 1)))
    return rows


def _converged(obs: Observations, iterations: int = 600) -> tuple[np.ndarray, np.ndarray]:
    """Return geometric medians in float64 after many plain iterations, and where they are unique."""
    clear = obs.clear.reshape(len(obs.clear), -1)
    values = np.where(clear[:, np.newaxis], obs.bands.reshape(*obs.bands.shape[:2], -1), 0).astype(np.float64)
    number = clear.sum(axis=0)
    point = values.sum(axis=0) / np.maximum(number, 1)
    for iteration in range(iterations):
        distance = np.sqrt(((values - point) ** 2).sum(axis=1) + 1e-12)
        weight = clear / distance
        step = (weight[:, np.newaxis] * values).sum(axis=0) / np.maximum(weight.sum(axis=0), 1e-300) - point
        point = point + (1.6 if iteration % 2 else 1.0) * step
    return point, number > 2


def _error(image: np.ndarray, truth: np.ndarray, unique: np.ndarray) -> str:
    error = np.abs(image.reshape(len(truth), -1) - truth)[:, unique]
    return f"{100 * (error > 1).mean():.2f} % / {100 * (error > 0.1).mean():.1f} %"


def geomedians(obs: Observations) -> list[Row]:
    """Measure the geometric median and its error: the share of values off by more than 1 and by more than 0.1."""
    small, first = _part(obs, 128), _part(obs, 64)
    truth, unique = _converged(first)
    ours = Geomedian()
    error = _error(ours.predict([first])[0].bands, truth, unique)
    rows = [Row("geomedian", "ours", _of_model(ours, _part(obs, 256), 3), ">= 5x geomad", error)]
    geomad = _peer("geomad")
    for eps in (0.1, 1.0):
        if geomad is None:
            rows.append(Row("geomedian", f"geomad, eps {eps}", None))
            continue

        def run(tile: Observations, eps: float = eps) -> Any:
            series = np.ascontiguousarray(_nan(tile).transpose(2, 3, 1, 0))
            return geomad.nangeomedian_pcm(series, eps=eps, maxiters=1000, num_threads=1)

        error = _error(run(first).transpose(2, 0, 1), truth, unique)
        speed = rate(lambda run=run: run(small), 128**2, 1)  # type: ignore[misc]
        rows.append(Row("geomedian", f"geomad, eps {eps}", speed, "", error))
    return rows


def others(obs: Observations) -> list[Row]:
    """Measure the other models, without a counterpart elsewhere."""
    part = _part(obs, 256)
    return [
        Row("nearest", "ours", _of_model(Nearest(), obs)),
        Row("timegate", "ours", _of_model(ExponentialDecay(), part)),
        Row("harmonic", "ours", _of_model(Harmonic(), part, 2)),
        Row("linear +-", "ours", _of_model(Linear(uncertainty=True), part)),
    ]


def table(rows: list[Row]) -> str:
    """Format the rows as text, with the ratio of our rate to that of each other package."""
    ours = {row.step: row.rate for row in rows if row.package == "ours"}
    out = [f"{'step':10} {'package':34} {'MPix/core-s':>13} {'ours is':>8}  {'goal':13} off by > 1 / > 0.1"]
    for row in rows:
        own = ours[row.step]
        ratio = f"{own / row.rate:.1f}x" if row.rate and own and row.package != "ours" else ""
        speed = "not installed" if row.rate is None else f"{row.rate:.3f}"
        out.append(f"{row.step:10} {row.package:34} {speed:>13} {ratio:>8}  {row.goal:13} {row.error}".rstrip())
    return "\n".join(out)


def main() -> None:
    """Measure everything and print the table."""
    warnings.simplefilter("ignore")
    obs = make_tile(EDGE)
    print(f"{DATES} dates x {BANDS} bands, {obs.bands.dtype}, {100 * (1 - obs.clear.mean()):.0f} % not clear")
    print(table([*medians(obs), *linear(obs), *geomedians(obs), *others(obs)]))


if __name__ == "__main__":
    main()
