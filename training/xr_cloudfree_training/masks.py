"""Train the classifier with which masks are corrected, from series whose masks are right on the whole.

Clouds of real dates are added to clear dates, so it is known where they are; the masks that are given with them are
those of the dates that the clouds are from, the same with whole clouds missing and false alarms, or none. Dates without
added cloud, and dates with a lasting change of the land, show what is not cloud. Most series are cut to a part of their
dates, since users have short ones as well. The dates are judged twice, so the classifier is trained twice: with the
masks as they are at first, and, added to that, with the masks as the first classifier leaves them.

::

    python -m xr_cloudfree_training.masks CUBES... --out classifier.json
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from xr_cloudfree.accuracy.mask_tracks import MASK_TRACKS, MaskCase, donors, make_mask_case
from xr_cloudfree.accuracy.simulate import target_frames
from xr_cloudfree.masking.classifier import Classifier, parse
from xr_cloudfree.masking.detector import evidence, make_state
from xr_cloudfree.masking.repair import first_state, judge
from xr_cloudfree_training.sites import Site, read_sites

# Pixels drawn from each case, and cases from each series; fewer from its variants of one to three bands.
PIXELS, FRAMES, FRAMES_OF_VARIANTS = 1500, 24, 8
# Weight of the variants, since they show the same land again.
WEIGHT_OF_VARIANTS = 0.35
# Share of the cases whose series are cut, the dates that are left, and the share of those that are not consecutive.
CUT, LEFT, SCATTERED = 0.6, (6, 36), 0.3
# Weights of clear pixels beside right masks and in lasting change, of cloud under the mask, and of pixels without mask.
CLEAR, CHANGE, UNDER, WITHOUT = 4.0, 5.0, 2.0, 1.5
# Error of a filled pixel, relative to which the harm of a missed cloud is measured, and the most that it counts.
FILL_ERROR, MOST_HARM = 0.012, 20.0
# The perceptron and its training.
HIDDEN, EPOCHS, BATCH, RATE, DECAY, MOST_PIXELS = 24, 10, 4096, 1.5e-2, 1e-3, 700_000


@dataclass(frozen=True, eq=False)
class Series:
    """A series in memory.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance, NaN where there is no value.
    clear : ndarray of bool, shape (time, y, x)
        True where clear according to its mask.
    time : ndarray of datetime64, shape (time,)
        Dates, increasing.
    suspect : ndarray of bool, shape (time,)
        Dates that cannot serve as truth.
    weight : float
        Weight of its pixels.
    frames : int
        Number of dates that clouds are added to.
    """

    bands: NDArray[np.float32]
    clear: NDArray[np.bool_]
    time: NDArray[np.datetime64]
    suspect: NDArray[np.bool_]
    weight: float = 1.0
    frames: int = FRAMES


@dataclass(frozen=True, eq=False)
class Samples:
    """Pixels to learn from: inputs of the classifier (n, input), whether they are cloud or shadow, and weights."""

    inputs: NDArray[np.float32]
    cloud: NDArray[np.bool_]
    weight: NDArray[np.float32]


def of_site(site: Site) -> list[Series]:
    """Return a site as series: with all bands, and with the bands that a cube of few bands may have."""
    whole = (slice(None), slice(None))
    dates, bands = np.arange(len(site.time)), np.arange(len(site.bands))
    values = site.reflectance(whole, dates, bands)
    series = [Series(values, site.clear(whole), site.time, site.suspect)]
    names = [name or "" for name in site.common_names]
    red, nir = (
        names.index("red") if "red" in names else -1,
        next((i for i, n in enumerate(names) if n[:3] == "nir"), -1),
    )
    few = [values[:, [i for i, name in enumerate(names) if name in ("blue", "green", "red")]]]
    if red >= 0 and nir >= 0:
        total = np.maximum(values[:, nir] + values[:, red], np.float32(0.02))
        index = np.clip((values[:, nir] - values[:, red]) / total, -1, 1)
        few += [values[:, [red]], values[:, [nir]], index[:, None]]
    return series + [
        replace(series[0], bands=part, weight=WEIGHT_OF_VARIANTS, frames=FRAMES_OF_VARIANTS)
        for part in few
        if part.shape[1]
    ]


def draw_samples(series: Series, rng: np.random.Generator, first: Classifier | None = None) -> Iterator[Samples]:
    """Draw pixels from the cases of a series.

    Parameters
    ----------
    series : Series
        The series.
    rng : Generator
        Of the cases and the pixels.
    first : Classifier, optional
        By which all dates of a case have been judged once; by default they have not.
    """
    usable = np.asarray(np.isfinite(series.bands).all(axis=1))
    clear = series.clear & usable
    frames = target_frames(clear, series.suspect)
    limits = (0.005, 1.2) if np.nanmin(series.bands) > -0.5 else (-1.0, 1.0)
    for number, frame in enumerate(rng.permutation(frames)[: series.frames]):
        candidates = donors(clear, usable, series.time, int(frame))
        if not candidates.size:
            continue
        args = series.bands, clear, series.time, int(frame), int(rng.choice(candidates))
        for track in MASK_TRACKS:
            without = track == "no mask"
            if without and number % 2:  # without a mask, whole dates are drawn as well
                continue
            case = make_mask_case(*args, track, rng, limits=limits)
            if track == "clouds":
                yield _draw(_cut(_without_cloud(case), rng), rng, CLEAR, series.weight, first)
            if track != "wrong mask" and _seen_later(case):
                yield _draw(_cut(_with_change(case, rng), rng), rng, CHANGE, series.weight, first)
            yield _draw(_cut(case, rng), rng, WITHOUT if without else 1.0, series.weight, first)
    yield from _without_mask(series, clear, usable, rng, first)


def _cut(case: MaskCase, rng: np.random.Generator) -> MaskCase:
    """Return most cases with a part of their dates only."""
    dates = _some_dates(len(case.bands), case.target, rng)
    return replace(
        case,
        bands=case.bands[dates],
        given=case.given[dates],
        right=case.right[dates],
        true=case.true[dates],
        usable=case.usable[dates],
        day_offset=case.day_offset[dates],
        target=int(np.searchsorted(dates, case.target)),
    )


def _some_dates(n_dates: int, target: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Return the dates that are left of a series, the target among them."""
    if rng.random() >= CUT or n_dates <= 2 * LEFT[0]:
        return np.arange(n_dates)
    left = int(rng.integers(LEFT[0], min(n_dates, LEFT[1])))
    start = int(np.clip(target - rng.integers(left), 0, n_dates - left))
    if rng.random() >= SCATTERED:
        return np.arange(start, start + left)
    return np.union1d(rng.choice(n_dates, left, replace=False), [target])


def _draw(
    case: MaskCase, rng: np.random.Generator, weight_of_clear: float, weight: float, first: Classifier | None
) -> Samples:
    """Draw pixels of the target of a case."""
    target, without = case.target, case.track == "no mask"
    given = case.usable if without else case.given & case.usable
    inputs, known = _evidence(case.bands, given, case.usable, case.day_offset, target, first, from_series=without)
    where = known & case.scored
    cloud = ~case.true[target]
    if not cloud.any():
        where &= given[target]
    chosen = np.flatnonzero(where)
    chosen = rng.choice(chosen, min(PIXELS, chosen.size), replace=False)
    error = np.nan_to_num(np.square(case.bands[target] - case.truth)).mean(axis=0).ravel()[chosen]
    harm = 0.3 + np.minimum(error / FILL_ERROR**2, MOST_HARM) / 4
    harm *= np.where(given[target].ravel()[chosen], WITHOUT if without else 1.0, UNDER)
    cloudy = cloud.ravel()[chosen]
    weights = weight * np.where(cloudy, harm, weight_of_clear)
    return Samples(inputs.reshape(len(inputs), -1)[:, chosen].T, cloudy, weights.astype(np.float32))


def _evidence(
    bands: NDArray[np.float32],
    given: NDArray[np.bool_],
    usable: NDArray[np.bool_],
    days: NDArray[np.float64],
    date: int,
    first: Classifier | None,
    *,
    from_series: bool,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    values = np.where(usable[:, None], bands, np.float32(0))
    clear, likely = first_state(values, given, days, usable=usable, from_series=from_series)
    if first is not None:
        found = judge(
            values,
            given,
            days,
            start=clear,
            clear=clear,
            usable=usable,
            keep=np.zeros_like(usable),
            likely=likely,
            from_series=from_series,
            by=first,
        )
        clear = found.clear
    return evidence(values, usable, days, make_state(values, usable, clear, days, from_series=from_series), date)


def _without_cloud(case: MaskCase) -> MaskCase:
    """Return a case whose target is as it was observed, beside the same mask."""
    bands, true = case.bands.copy(), case.true.copy()
    bands[case.target] = np.where(np.isfinite(bands[case.target]), case.truth, np.nan)
    true[case.target] = True
    return replace(case, bands=bands, true=true)


def _seen_later(case: MaskCase) -> bool:
    return bool((case.given[case.target + 1 :].mean(axis=(1, 2)) > 0.5).sum() >= 2 and case.target > 0)


def _with_change(case: MaskCase, rng: np.random.Generator) -> MaskCase:
    """Return a case without cloud whose land changes on the target date, for good or for some clear dates."""
    from scipy.ndimage import gaussian_filter

    case = _without_cloud(case)
    bands, shape = case.bands.copy(), case.bands.shape[2:]
    noise = gaussian_filter(rng.standard_normal(shape), 6)
    patch = noise > np.quantile(noise, rng.uniform(0.75, 0.95))
    size = rng.uniform(0.02, 0.15, (bands.shape[1], 1, 1))  # brighter in all bands, or darker in all, or either in each
    signs = np.stack([np.ones(size.shape), np.full(size.shape, -0.5), rng.choice([-1.0, 1.0], size.shape)])
    step = size * signs[int(rng.integers(3))]
    clear_dates = case.target + 1 + np.flatnonzero(case.given[case.target + 1 :].mean(axis=(1, 2)) > 0.5)
    last = min(int(rng.integers(1, 5)), clear_dates.size - 1)
    end = len(bands) if rng.random() < 0.6 else int(clear_dates[last]) + 1
    texture = np.clip(1 + 0.15 * rng.standard_normal(shape), 0.5, 1.5)
    bands[case.target : end] += np.where(patch, step * texture, 0).astype(np.float32)
    return replace(case, bands=bands, truth=bands[case.target], scored=case.scored & patch)


def _without_mask(
    series: Series,
    clear: NDArray[np.bool_],
    usable: NDArray[np.bool_],
    rng: np.random.Generator,
    first: Classifier | None,
) -> Iterator[Samples]:
    """Draw pixels of dates judged without a mask; away from the edges of clouds their own masks say what is right."""
    from scipy.ndimage import distance_transform_edt

    days = (series.time - series.time[0]) / np.timedelta64(1, "D")
    dates = np.flatnonzero((usable.mean(axis=(1, 2)) > 0.9) & ~series.suspect)
    for date in rng.permutation(dates)[: series.frames + 8]:
        left = _some_dates(len(days), int(date), rng)
        seen, target = usable[left], int(np.searchsorted(left, date))
        inputs, known = _evidence(series.bands[left], seen, seen, days[left], target, first, from_series=True)
        inside, outside = distance_transform_edt(clear[date]), distance_transform_edt(~clear[date])
        chosen = np.flatnonzero(known & ((inside > 4) | (outside > 1)))
        chosen = rng.choice(chosen, min(PIXELS, chosen.size), replace=False)
        weight = np.full(chosen.size, series.weight * WITHOUT, np.float32)
        yield Samples(inputs.reshape(len(inputs), -1)[:, chosen].T, ~clear[date].ravel()[chosen], weight)


def fit(samples: Sequence[Samples], seed: int = 0) -> dict[str, Any]:
    """Fit the classifier.

    Returns
    -------
    dict
        As `xr_cloudfree.masking.classifier` reads it: ``first`` (hidden, input), ``bias`` and ``last`` (hidden,), and
        ``shift``.
    """
    torch.manual_seed(seed)
    inputs = np.concatenate([part.inputs for part in samples])
    cloud = np.concatenate([part.cloud for part in samples])
    weight = np.concatenate([part.weight for part in samples])
    chosen = np.random.default_rng(seed).choice(len(inputs), min(len(inputs), MOST_PIXELS), replace=False)
    x, y = torch.tensor(inputs[chosen]), torch.tensor(cloud[chosen].astype(np.float32))
    w = torch.tensor(weight[chosen] / weight[chosen].mean())
    hidden, output = torch.nn.Linear(x.shape[1], HIDDEN), torch.nn.Linear(HIDDEN, 1)
    batch = min(BATCH, len(x))
    steps = EPOCHS * (len(x) // batch)
    optimizer = torch.optim.AdamW([*hidden.parameters(), *output.parameters()], lr=RATE, weight_decay=DECAY)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE, total_steps=steps)
    for _ in range(EPOCHS):
        for part in torch.randperm(len(x))[: len(x) // batch * batch].split(batch):
            optimizer.zero_grad()
            odds = output(torch.relu(hidden(x[part])))[:, 0]
            functional.binary_cross_entropy_with_logits(odds, y[part], weight=w[part]).backward()
            optimizer.step()
            schedule.step()

    def rounded(values: torch.Tensor) -> Any:
        return np.array([float(f"{v:.5g}") for v in values.detach().ravel()]).reshape(values.shape).tolist()

    return {
        "first": rounded(hidden.weight),
        "bias": rounded(hidden.bias),
        "last": rounded(output.weight[0]),
        "shift": rounded(output.bias)[0],
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Train the classifier and write its weights."""
    parser = argparse.ArgumentParser("python -m xr_cloudfree_training.masks", description=__doc__)
    parser.add_argument("cubes", nargs="+", help="image time series with their masks, as the library reads them")
    parser.add_argument("--out", type=Path, required=True, help="file for the weights (JSON)")
    parser.add_argument("--seed", type=int, default=0, help="of the cases and of the training")
    parser.add_argument("--workers", type=int, default=1, help="processes that draw the cases")
    options = parser.parse_args(arguments)
    series = [part for site in read_sites(options.cubes, {}, 2.0**33) for part in of_site(site)]
    samples = draw_all(series, options.seed, workers=options.workers)
    first = parse(fit(samples, options.seed))
    samples += draw_all(series, options.seed + 1, first, options.workers)
    options.out.write_text(json.dumps(fit(samples, options.seed)), encoding="utf-8")
    print(f"Wrote {options.out}", flush=True)


def draw_all(series: Sequence[Series], seed: int, first: Classifier | None = None, workers: int = 1) -> list[Samples]:
    """Draw pixels from all series; see `draw_samples`. The number of processes does not change them."""
    jobs = [(part, [seed, number], first) for number, part in enumerate(series)]
    samples: list[Samples] = []
    with ProcessPoolExecutor(workers, mp_context=get_context("spawn")) as pool:
        for number, drawn in enumerate(pool.map(_draw_job, jobs)):
            samples += drawn
            print(f"{number + 1} of {len(series)} series: {sum(len(s.cloud) for s in samples)} pixels", flush=True)
    return samples


def _draw_job(job: tuple[Series, list[int], Classifier | None]) -> list[Samples]:
    part, seed, first = job
    return list(draw_samples(part, np.random.default_rng(seed), first))


if __name__ == "__main__":
    main()
