"""The features of a tile, computed by torch on the device of the network.

The results are those of `features.compute_features`. What is computed for every pixel runs on the device: interpolation
in time, the features and predictions of the regression, residuals and their spread, the predictions of the forests.
What is decided from a sample runs on the processor, by the functions that the classical models call: the choice of the
pixels of a fit, the regression on them, and the growth of the forests, whose splits depend on the last digits of their
values. So do the means of neighbourhoods, which are running sums. Only these, the samples, masks and distances are
copied back and forth.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property, lru_cache
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xr_cloudfree.models.classical import conformal, robust_ridge
from xr_cloudfree.models.classical.regress import (
    COARSE,
    DECIMATION,
    GROWTH,
    NEAR,
    SHRINK,
    SPREAD_TRUNCATE,
    SPREADS,
    GroundFit,
    fit_ground,
)
from xr_cloudfree.models.classical.series import context_means, feature_dates
from xr_cloudfree.models.kernels.extra_trees import Forest
from xr_cloudfree.models.networks import features as on_processor
from xr_cloudfree.models.networks.features import LEAST_SCALE, UNKNOWN, GrownForests
from xr_cloudfree.models.networks.inputs import NetworkInput, radar
from xr_cloudfree.models.protocol import Observations

# Steps down the trees between two tests whether any pixel has not reached a leaf: a test waits for the device.
STEPS = 4


def compute_features(obs: Observations, max_dates: int, device: torch.device) -> NetworkInput:
    """Return the same input as `features.compute_features`, with its maps on a device.

    A tile without a regression on the target's own pixels is prepared on the processor, since each of its dates is left
    out in turn there; so is one that does not fit into the memory of the device.

    Parameters
    ----------
    obs : Observations
        A tile, in reflectance.
    max_dates : int
        Maximum number of dates; the nearest ones are used.
    device : device
        The device.

    Returns
    -------
    NetworkInput
        Maps are tensors on the device, or arrays where the processor prepared the tile.
    """
    try:
        tile = _fitted(obs, max_dates, device) if obs.target >= 0 else None
    except torch.OutOfMemoryError:
        tile = None
    return on_processor.compute_features(obs, max_dates) if tile is None else tile


def to_device(array: NDArray[Any], device: torch.device) -> Tensor:
    """Return a copy of an array on a device; to a GPU it is copied through pinned memory, while others compute."""
    dtype = torch.from_numpy(np.empty(0, array.dtype)).dtype
    staged = torch.empty(array.shape, dtype=dtype, pin_memory=device.type == "cuda")
    np.copyto(staged.numpy(), array)
    return staged.to(device, non_blocking=True)


@dataclass(frozen=True, eq=False)
class DeviceSeries:
    """`Series` on a device; pixels are on one axis, and dates are indices of int64."""

    shape: tuple[int, int]
    bands: Tensor  # (time, band, pixel)
    clear: Tensor  # (time, pixel)
    days: Tensor  # (time,), float64
    before: Tensor
    after: Tensor
    image: Tensor
    source: Tensor

    @classmethod
    def of(cls, shape: tuple[int, int], bands: Tensor, clear: Tensor, days: NDArray[np.float64]) -> DeviceSeries:
        """Build the series from all dates but the target's, which is nowhere clear in `clear`."""
        split = int(np.searchsorted(days, 0.0, side="right"))
        number = torch.arange(len(days), device=bands.device)[:, None]
        nowhere = torch.full((1, clear.shape[1]), -1, device=bands.device)
        before = torch.cat([nowhere, torch.where(clear, number, -1)[:split]]).amax(dim=0)
        after = torch.where(clear, number, len(days))[split:]
        after = torch.cat([nowhere + len(days) + 1, after]).amin(dim=0)
        after = torch.where(after < len(days), after, -1)
        when = to_device(days, bands.device)
        first, second, weight = _linear_weights(when, before, after, 0.0)
        image = _blend(bands, first, second, weight)
        source = torch.where(weight.float() > 0.5, second, first)
        image = torch.where(source >= 0, image, 0)
        return cls(shape, bands, clear, when, before, after, image, source)

    @cached_property
    def change(self) -> Tensor:
        """The previous minus the next clear date, shape (band, pixel); 0 where either does not exist."""
        both = (self.before >= 0) & (self.after >= 0)
        return torch.where(both, _pick(self.bands, self.before) - _pick(self.bands, self.after), 0)

    def features(self) -> Tensor:
        """Return the features of every pixel, shape (feature, pixel); see `Series.features`."""
        share = self.clear.sum(dim=1).cpu().numpy() / self.clear.shape[1]
        dates = feature_dates(share, self.days.cpu().numpy(), len(self.image))
        own = torch.cat([self.image, self.change])
        rows = own.cpu().numpy()
        context_means(rows, self.shape, mean := np.empty_like(rows))  # running sums: last digits depend on their order
        return torch.cat([own, to_device(mean, own.device) - own, self._differences(dates).flatten(0, 1)])

    def _differences(self, dates: NDArray[np.intp]) -> Tensor:
        """Return some dates, their gaps interpolated between them, minus the linear prediction: (date, band, pixel)."""
        which = torch.from_numpy(dates).to(self.bands.device)
        clear, days, bands = self.clear[which], self.days[which], self.bands[which]
        if not len(dates):
            return bands
        number = torch.arange(len(dates), device=bands.device)[:, None]
        previous = torch.where(clear, number, -1).cummax(dim=0).values
        following = torch.where(clear, number, len(dates)).flip(0).cummin(dim=0).values.flip(0)
        following = torch.where(following < len(dates), following, -1)
        first, second, weight = _linear_weights(days, previous, following, days[:, None])
        filled = _blend(bands, first, second, weight)
        return torch.where(clear.any(dim=0), filled - self.image, 0)


def _linear_weights(days: Tensor, before: Tensor, after: Tensor, at: Tensor | float) -> tuple[Tensor, Tensor, Tensor]:
    """See `pixelwise.linear_weights`."""
    first, second = torch.where(before < 0, after, before), torch.where(after < 0, before, after)
    start, end = days[first.clamp(min=0)], days[second.clamp(min=0)]
    return first, second, torch.where(start != end, (start - at) / (start - end), 0)


def _pick(bands: Tensor, date: Tensor) -> Tensor:
    """Return the values of one date per pixel, or of several, shape (..., band, pixel); arbitrary for dates of -1."""
    where = date.clamp(min=0)[..., None, :].expand(*date.shape[:-1], *bands.shape[1:])
    return bands.gather(0, where) if where.ndim == 3 else bands.gather(0, where[None])[0]


def _blend(bands: Tensor, first: Tensor, second: Tensor, weight: Tensor) -> Tensor:
    """Return the linear interpolation of two dates per pixel, shape (..., band, pixel)."""
    start = _pick(bands, first)
    return start + weight.float()[..., None, :] * (_pick(bands, second) - start)


def _fitted(obs: Observations, max_dates: int, device: torch.device) -> NetworkInput | None:
    """Return the input of a tile if a regression can be fitted to the target's own clear pixels."""
    dates, target = on_processor.dates_and_target(obs, max_dates)
    shape, n_bands, days = obs.shape, obs.n_bands, obs.day_offset[dates]
    seen = obs.clear[obs.target].ravel()
    others = np.flatnonzero(dates != obs.target)
    known = obs.clear[dates[others]].any(axis=0).ravel()
    bands = to_device(obs.bands[dates].astype(np.float32, copy=False), device).flatten(2)
    clear = to_device(obs.clear[dates], device).flatten(1)
    target_clear = clear[target].clone()
    clear[target] = False
    series = DeviceSeries.of(shape, bands, clear, days)
    error = torch.where(target_clear & (series.source >= 0), bands[target] - series.image, 0)
    of_pixels = cache(series.features)
    columns = (
        lambda pixels: _columns(of_pixels(), pixels),
        lambda pixels: _columns(error, pixels),
        lambda pixels: _columns(series.change, pixels),
    )
    ground = fit_ground(seen, known, shape, *columns)
    if ground is None:
        return None
    forests = on_processor.grow_forests(ground, shape, *columns)
    kept = torch.from_numpy(others).to(device)
    own = clear[kept]
    tile: dict[str, Any] = {
        "bands": torch.where(own[:, None], bands[kept], 0).reshape(-1, n_bands, *shape),
        "clear": own.float().reshape(-1, 1, *shape),
        "day_offset": days[others].astype(np.float32),
        "date_valid": np.ones(len(others), bool),
        "target": torch.where(target_clear, bands[target], 0).reshape(n_bands, *shape),
        "target_clear": target_clear.float().reshape(1, *shape),
        "band_valid": np.ones(n_bands, bool),
        "features": {} if obs.s1 is None else radar(obs.s1),
    }
    tile["features"] |= _features(series, target_clear, error, of_pixels(), ground, forests)
    source = series.source.to(torch.int16).cpu().numpy()
    return NetworkInput(**tile, source=on_processor.among_others(source, target).reshape(shape))


def _columns(rows: Tensor, pixels: NDArray[np.intp]) -> NDArray[np.float32]:
    """Return the values of some pixels on the processor.

    They lie in memory as if picked by NumPy, one pixel after the other: the order of sums depends on it.
    """
    picked: NDArray[np.float32] = rows.T[torch.from_numpy(pixels).to(rows.device)].cpu().numpy()
    return picked.T


def _features(
    series: DeviceSeries, seen: Tensor, error: Tensor, of_pixels: Tensor, ground: GroundFit, grown: GrownForests
) -> dict[str, Any]:
    """Return the features that `features.compute_features` adds, from the fit and the forests."""
    device, shape, n_bands = error.device, series.shape, len(error)
    fit, base, known = ground.fit, series.image, series.source >= 0
    standard = _standard(fit, of_pixels)
    low, high = (to_device(end, device)[:, None] for end in (fit.low, fit.high))
    # In double precision, which no setting of torch rounds.
    fitted = to_device(fit.slope, device).double() @ standard.double() + to_device(fit.level, device)[:, None]
    fitted = torch.clamp(fitted.float(), low, high)
    residual, trust = (error - fitted).double(), to_device(ground.trust, device)
    weight = torch.where(trust, _tukey_weight(residual, to_device(fit.scale, device)), 0)
    spread = _spread(residual.float().reshape(-1, *shape), weight.float().reshape(shape)).flatten(1)
    far = NEAR + GROWTH * torch.log1p(to_device(ground.to_trusted, device))
    uncertainty = _widths(ground.widths, series.change.abs()) * far.float()
    judged = uncertainty.isfinite().all(dim=0)
    uncertainty = torch.where(judged, uncertainty.clamp(min=LEAST_SCALE), UNKNOWN)

    of_residual, of_error, trees = spread.clone(), fitted + spread, torch.zeros_like(fitted)
    requested = (known & ~seen).nonzero()[:, 0]
    if grown.forests and len(requested):
        places = to_device(on_processor.places(shape), device)
        inputs = torch.cat([standard, places])[:, requested].T.contiguous()
        answers, deviation = _answers(grown.forests, inputs)
        of_residual[:, requested], of_error[:, requested] = answers[:, :n_bands].T, answers[:, n_bands:].T
        trees[:, requested] = deviation[:, :n_bands].T
    corrections = (fitted + spread, fitted + of_residual, of_error)
    shares = 1 - sum(grown.shares), *grown.shares
    stacked = sum(float(np.float32(share)) * part for share, part in zip(shares, corrections, strict=True))
    candidates = torch.stack([base + stacked, base, *(base + part for part in corrections)], dim=1)
    ordered = uncertainty[:, known].sort(dim=1).values
    number = ordered.shape[1]
    scale = (ordered[:, (number - 1) // 2] + ordered[:, number // 2]) / 2
    hints = torch.stack([series.change, spread, trees], dim=1)
    return {
        "candidates": torch.where(known, candidates, 0).reshape(n_bands, -1, *shape),
        "hints": torch.where(known, hints, 0).reshape(n_bands, -1, *shape),
        "uncertainty": uncertainty.reshape(n_bands, *shape),
        "scale": scale,
        "evidence": grown.evidence.rows,
        "shared": _shared(series, seen, ground, weight, judged, grown.shares).reshape(-1, *shape),
    }


def _shared(
    series: DeviceSeries,
    seen: Tensor,
    ground: GroundFit,
    weight: Tensor,
    judged: Tensor,
    shares: tuple[float, float],
) -> Tensor:
    """Return the maps that all bands share, shape (map, pixel); see `features.SHARED`."""
    device = seen.device
    nothing = torch.zeros_like(weight)

    def days(date: Tensor) -> Tensor:
        return torch.where(date >= 0, torch.log1p(series.days[date.clamp(min=0)].abs()) / 5, 0)

    of_ground = on_processor.distances(seen.cpu().numpy(), series.shape, ground)
    maps = [
        seen,
        to_device(ground.trust, device),
        weight,
        *(to_device(distance, device) for distance in of_ground),
        days(series.before),
        days(series.after),
        series.before >= 0,
        series.after >= 0,
        torch.log1p(series.clear.sum(dim=0).double()) / 4,
        nothing + seen.double().mean(),
        nothing + 1,
        judged,
        *(nothing + share for share in shares),
    ]
    return torch.stack([map_.float() for map_ in maps])


def _standard(fit: robust_ridge.RidgeFit, of_pixels: Tensor) -> Tensor:
    """See `RidgeFit.standard`."""
    centre, width = (to_device(part, of_pixels.device)[:, None] for part in (fit.centre, fit.width))
    return ((of_pixels - centre) / width).clamp_(-robust_ridge.CLIP, robust_ridge.CLIP)


def _tukey_weight(residual: Tensor, scale: Tensor) -> Tensor:
    """See `robust_ridge.tukey_weight`."""
    z = residual / scale[:, None]
    haze = torch.maximum(z.amin(dim=0), (-z).amin(dim=0))
    rms = z.square().mean(dim=0).sqrt()
    distance = torch.maximum(haze / robust_ridge.HAZE_SCALES, rms / robust_ridge.OUTLIER_SCALES)
    return (1 - distance.square()).clamp(min=0).square()


def _widths(widths: conformal.Widths, size: Tensor) -> Tensor:
    """See `conformal.Widths`."""
    rows = []
    for own, x, y in zip(size.double(), widths.sizes, widths.widths, strict=True):
        if not len(x):
            rows.append(torch.full_like(own, torch.nan))
            continue
        sizes, values = to_device(x, size.device), to_device(y, size.device)
        left = (torch.searchsorted(sizes, own, right=True) - 1).clamp(0, max(len(x) - 2, 0))
        right = (left + 1).clamp(max=len(x) - 1)
        run = sizes[right] - sizes[left]
        part = torch.where(run > 0, (own - sizes[left]) / run, 0)
        inside = values[left] + part.clamp(0, 1) * (values[right] - values[left])
        rows.append(torch.where(own >= sizes[-1], values[-1], inside))
    return torch.stack(rows).float()


@lru_cache(maxsize=64)
def _smoothing(size: int, sigma: float, device: torch.device) -> Tensor:
    """Return the matrix of a convolution with a Gaussian, shape (size, size); beyond the edge there are zeros."""
    radius = int(SPREAD_TRUNCATE * sigma + 0.5)
    place = torch.arange(size, device=device)
    apart = (place[:, None] - place).double()
    kernel = torch.where(apart.abs() <= radius, torch.exp(-0.5 / sigma**2 * apart.square()), 0)
    around = torch.arange(-radius, radius + 1, device=device).double()
    return kernel / torch.exp(-0.5 / sigma**2 * around.square()).sum()


def _spread(residual: Tensor, weight: Tensor) -> Tensor:
    """Spread residuals (band, y, x) at pixels of some weight (y, x) over the window; see `regress`."""
    shape = (residual.shape[-2], residual.shape[-1])
    estimate = torch.zeros_like(residual)
    for sigma in SPREADS:
        maps = torch.cat([weight * (residual - estimate), weight[None]])
        step = DECIMATION if sigma >= COARSE * DECIMATION else 1
        if step > 1:
            maps = _block_means(maps, step)
        rows, columns = (_smoothing(n, sigma / step, maps.device) for n in maps.shape[1:])
        maps = (rows @ maps.double() @ columns).float()
        spread = maps[:-1] / (maps[-1] + SHRINK)
        estimate = estimate + (spread if step == 1 else _interpolate(spread, step, shape))
    return estimate


def _block_means(maps: Tensor, step: int) -> Tensor:
    """Return the means over squares of `step` x `step` pixels; beyond the edge there are zeros."""
    y, x = maps.shape[1:]
    padded = torch.nn.functional.pad(maps, (0, -x % step, 0, -y % step))
    return padded.unflatten(2, (-1, step)).unflatten(1, (-1, step)).mean(dim=(2, 4))


def _interpolate(maps: Tensor, step: int, shape: tuple[int, int]) -> Tensor:
    """Interpolate means over squares of `step` x `step` pixels linearly to pixels; the inverse of `_block_means`."""
    for axis, size in enumerate(shape, start=1):
        last = maps.shape[axis] - 1
        place = ((torch.arange(size, device=maps.device).double() + 0.5) / step - 0.5).clamp(0, last)
        first = place.long()
        start = maps.index_select(axis, first)
        part = (place - first).float().reshape(-1, *[1] * (2 - axis))
        maps = start + part * (maps.index_select(axis, (first + 1).clamp(max=last)) - start)
    return maps


def _answers(forests: tuple[Forest, ...], inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean over the forests' predictions and the root mean square of their spreads, shape (pixel, value)."""
    answers = squares = None
    for forest in forests:
        mean, square = _answer(forest, inputs)
        mean, square = mean / len(forests), square / len(forests)
        answers, squares = (mean, square) if answers is None or squares is None else (answers + mean, squares + square)
    assert answers is not None and squares is not None
    return answers, squares.sqrt()


def _answer(forest: Forest, inputs: Tensor) -> tuple[Tensor, Tensor]:
    """Return the mean of the trees' predictions and the variance around it, shape (pixel, value); see `Forest`."""
    start, feature, threshold, left, leaf = (
        to_device(part, inputs.device)
        for part in (forest.start, forest.feature, forest.threshold, forest.left, forest.leaf)
    )
    at = start.expand(len(inputs), -1)
    chosen = feature[at].long()
    while bool((chosen >= 0).any()):
        for _ in range(STEPS):  # a step from a leaf leads to itself
            value = inputs.gather(1, chosen.clamp(min=0))
            at = left[at] + (value > threshold[at]).long()
            chosen = feature[at].long()
    total, squares = (torch.zeros((len(inputs), leaf.shape[1]), device=inputs.device) for _ in range(2))
    for tree in range(len(start)):  # in the order of the processor
        values = leaf[at[:, tree]]
        total += values
        squares += values * values
    total, squares = total / len(start), squares / len(start)
    return total, (squares - total.square()).clamp(min=0)
