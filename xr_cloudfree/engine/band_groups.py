"""Tiles whose bands do not share their dates: split into parts for the model, and joined from its predictions.

A cube may lack a band on some dates (the union of two sensors), or at some pixels. Which parts a tile is split into
depends on the tile alone, so the result depends neither on chunks nor on blocks.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.errors import BandError
from xr_cloudfree.models.classical.pixelwise import Linear
from xr_cloudfree.models.protocol import FillModel, Observations, Prediction

Bools = NDArray[np.bool_]


@dataclass(frozen=True, eq=False)
class Part:
    """Some bands of a tile on the dates that have them.

    Parameters
    ----------
    obs : Observations
        The model's input.
    keep : tuple of int
        The bands of the tile for which the prediction is used.
    positions : tuple of int
        Their positions among the bands of `obs`.
    dates : ndarray of int
        The dates of `obs` among those of the tile.
    where : ndarray of bool, shape (y, x), optional
        Pixels for which the prediction is used in place of that of all bands together; None for all.
    capable : bool
        Whether the model takes these bands; if not, `Linear` predicts them.
    """

    obs: Observations
    keep: tuple[int, ...]
    positions: tuple[int, ...]
    dates: NDArray[np.intp]
    where: Bools | None = None
    capable: bool = True


def split(obs: Observations, seen: Bools, valid: Bools | None, model: FillModel, names: Sequence[str]) -> list[Part]:
    """Return the parts of a tile, one if each of its dates has all bands or none.

    Parameters
    ----------
    obs : Observations
        The tile; clear are the pixels that have all bands.
    seen : ndarray of bool, shape (time, y, x)
        Pixels that are clear, whether or not they have all bands.
    valid : ndarray of bool, shape (time, band, y, x), or None
        Where each band has a value; None if at each pixel seen as clear on a date all bands have one or none has.
    model : FillModel
        The model, which may take only certain bands.
    names : sequence of str
        Names of the bands.
    """
    every = tuple(range(obs.n_bands))
    whole = Part(obs, every, every, np.arange(obs.n_dates))
    if valid is None or obs.n_bands == 1:
        return [whole]
    # Only pixels seen as clear count: under cloud, bands may lack values in any window.
    if model.spec.tile is None:
        uneven = _uneven(seen, valid)
        if not uneven.any():
            return [whole]
        return [whole, *(_single(obs, band, seen & valid[:, band], uneven) for band in every)]
    present = np.asarray((seen[:, None] & valid).any(axis=(2, 3)))
    used = np.asarray(present.any(axis=1))
    if present[used].all():
        return [whole]
    parts = []
    for pattern in np.unique(present, axis=1).T:
        if not pattern.any():
            continue
        dates = np.flatnonzero(pattern)
        members = np.array([band for band in every if present[pattern, band].all()], np.intp)
        keep = tuple(int(band) for band in members if (present[:, band] == pattern).all())
        positions = tuple(members.tolist().index(band) for band in keep)
        clear = seen[dates] & valid[np.ix_(dates, members)].all(axis=1)
        target = int(np.searchsorted(dates, obs.target)) if obs.target >= 0 and pattern[obs.target] else -1
        sub = replace(
            obs,
            bands=obs.bands[np.ix_(dates, members)],
            clear=clear,
            day_offset=obs.day_offset[dates],
            target=target,
            common_names=tuple(obs.common_names[band] for band in members) if obs.common_names else (),
            others=tuple(other.of_bands(members.tolist()) for other in obs.others),
        )
        parts.append(
            Part(sub, keep, positions, dates, capable=_takes(model, [names[i] for i in members], sub.common_names))
        )
    return parts or [whole]


def _uneven(seen: Bools, valid: Bools) -> Bools:
    """Return the pixels that are clear in some bands and missing in others on some date."""
    return np.asarray((seen & valid.any(axis=1) & ~valid.all(axis=1)).any(axis=0))


def _single(obs: Observations, band: int, clear: Bools, where: Bools) -> Part:
    common_names = obs.common_names[band : band + 1] if obs.common_names else ()
    others = tuple(other.of_bands([band]) for other in obs.others)
    single = replace(obs, bands=obs.bands[:, band : band + 1], clear=clear, common_names=common_names, others=others)
    return Part(single, (band,), (0,), np.arange(obs.n_dates), where)


def _takes(model: FillModel, names: Sequence[str], common_names: Sequence[str | None]) -> bool:
    try:
        model.spec.check_bands(tuple(names), tuple(common_names) or (None,) * len(names))
    except BandError:
        return False
    return True


def join(
    parts: Sequence[tuple[Part, Prediction]], tile: Observations, seen: Bools, valid: Bools | None, by_band: bool
) -> Prediction:
    """Return the prediction for a tile from those for its parts.

    Parameters
    ----------
    parts : sequence of (Part, Prediction)
        The parts in the order of `split`, each with the model's prediction.
    tile : Observations
        The tile, as `split` takes it.
    seen, valid
        As `split` takes them.
    by_band : bool
        Whether the model treats each band by itself. If so, a pixel that lacks a band on some date is estimated band
        by band; otherwise only where all bands together gave nothing.

    Returns
    -------
    Prediction
        Bands that are unknown at a pixel where others are known are NaN there.
    """
    (first, whole), *rest = parts
    if valid is None:
        return whole
    if rest and rest[0][0].where is not None:
        return _join_pixels(whole, rest, by_band)
    complete = not rest and len(first.keep) == tile.n_bands
    joined = whole if complete else _join_groups(parts, tile)
    return joined if tile.n_bands == 1 else _fill_uneven(joined, tile, seen, valid)


def _join_pixels(whole: Prediction, rest: Sequence[tuple[Part, Prediction]], by_band: bool) -> Prediction:
    """Return the prediction of all bands together, and at uneven pixels those of single bands."""
    assert rest[0][0].where is not None
    where = rest[0][0].where if by_band else rest[0][0].where & ~whole.known
    singles = [single for _, single in rest]
    known = np.where(where, np.any([s.known for s in singles], axis=0), whole.known)
    bands = whole.bands.copy()
    spread = None if whole.uncertainty is None else whole.uncertainty.copy()
    for i, single in enumerate(singles):
        bands[i] = np.where(where, np.where(single.known, single.bands[0], np.nan), bands[i])
        if spread is not None and single.uncertainty is not None:
            spread[i] = np.where(where, single.uncertainty[0], spread[i])
    source = whole.source
    if source is not None:
        source = np.where(where, _common_source([(s.known, s.source) for s in singles]), source)
    gate = whole.gate
    if gate is not None:
        gate = np.where(where, _mean_gate([(s.known, s.gate) for s in singles], gate.shape), gate)
    return Prediction(bands, known, source, spread, gate)


def _join_groups(parts: Sequence[tuple[Part, Prediction]], tile: Observations) -> Prediction:
    """Return the prediction for all bands from those for groups of bands that share their dates."""
    n_dates, shape = tile.n_dates, tile.shape
    bands = np.full((tile.n_bands, *shape), np.nan, np.float32)
    spread = np.full_like(bands, np.nan) if any(prediction.uncertainty is not None for _, prediction in parts) else None
    sources, gates = [], []
    sensors = [prediction.sensor for _, prediction in parts if prediction.sensor is not None]
    consistency = np.full_like(bands, np.nan) if any(p.consistency is not None for _, p in parts) else None
    for part, prediction in parts:
        for band, position in zip(part.keep, part.positions, strict=True):
            bands[band] = np.where(prediction.known, prediction.bands[position], np.nan)
            if spread is not None and prediction.uncertainty is not None:
                spread[band] = np.where(prediction.known, prediction.uncertainty[position], np.nan)
            if consistency is not None and prediction.consistency is not None:
                consistency[band] = prediction.consistency[position]
        if prediction.source is not None:
            dates = part.dates.astype(np.int16)
            sources.append((prediction.known, np.where(prediction.source >= 0, dates[prediction.source], np.int16(-1))))
        if prediction.gate is not None:
            gate = np.zeros((n_dates, *shape), np.float32)
            gate[part.dates] = prediction.gate
            gates.append((prediction.known, gate))
    known = np.any([prediction.known for _, prediction in parts], axis=0)
    source = _common_source(sources) if sources else None
    gate_of_all = _mean_gate(gates, (n_dates, *shape)) if gates else None
    sensor = np.max(sensors, axis=0) if sensors else None
    return Prediction(bands, known, source, spread, gate_of_all, sensor, consistency)


def _common_source(sources: Sequence[tuple[Bools, NDArray[np.int16] | None]]) -> NDArray[np.int16]:
    """Return the source date on which all parts that know a pixel agree; -1 where they differ."""
    out: NDArray[np.int16] | None = None
    for known, source in sources:
        assert source is not None
        if out is None:
            out = np.where(known, source, np.int16(-2)).astype(np.int16)
            continue
        new = known & (out == -2)
        differs = known & ~new & (out != source)
        out = np.where(new, source, np.where(differs, np.int16(-1), out)).astype(np.int16)
    assert out is not None
    return np.where(out == -2, np.int16(-1), out).astype(np.int16)


def _mean_gate(gates: Sequence[tuple[Bools, Any]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the mean weight of each date over the parts that know a pixel."""
    total, count = np.zeros(shape, np.float32), np.zeros(shape[1:], np.float32)
    for known, gate in gates:
        total += np.where(known, gate, np.float32(0))
        count += known
    return np.asarray(total / np.maximum(count, 1), np.float32)


def _fill_uneven(joined: Prediction, tile: Observations, seen: Bools, valid: Bools) -> Prediction:
    """Return the prediction, with `Linear` band by band at uneven pixels that the model left unknown."""
    known_bands = joined.known & np.isfinite(joined.bands)
    uneven = _uneven(seen, valid)
    if (known_bands | ~uneven).all():
        return joined
    bands = np.where(known_bands, joined.bands, np.float32(np.nan))
    known = joined.known.copy()
    for band in range(tile.n_bands):
        clear = seen & valid[:, band]
        lacking = ~known_bands[band] & uneven & clear.any(axis=0)
        if lacking.any():
            single = Observations(tile.bands[:, band : band + 1], clear, tile.day_offset, tile.target, tile.scale)
            linear = Linear().predict([single])[0]
            bands[band] = np.where(lacking, linear.bands[0], bands[band])
            known |= lacking
    spread, source, gate = joined.uncertainty, joined.source, joined.gate
    if spread is not None:
        spread = np.where(known_bands, spread, np.float32(np.nan))
    if source is not None:
        source = np.where(joined.known, source, np.int16(-1))
    if gate is not None:
        gate = np.where(joined.known, gate, np.float32(0))
    return replace(joined, bands=bands, known=known, source=source, uncertainty=spread, gate=gate)
