"""Tiles whose bands do not share their dates: what a model is given of them, and how its answers go together.

A cube may lack a band on some dates (the union of two sensors), or at some pixels. Which parts a tile is split into
depends on the tile alone, so the answer depends neither on chunks nor on blocks.
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
        What the model is given.
    keep : tuple of int
        The bands of the tile for which the answer is used.
    place : tuple of int
        Where these are among the bands of `obs`.
    dates : ndarray of int
        The dates of `obs` among those of the tile.
    where : ndarray of bool, shape (y, x), optional
        Pixels for which the answer is used in place of that of all bands together; None for all.
    capable : bool
        Whether the model takes these bands; if not, `Linear` does.
    """

    obs: Observations
    keep: tuple[int, ...]
    place: tuple[int, ...]
    dates: NDArray[np.intp]
    where: Bools | None = None
    capable: bool = True


def split(obs: Observations, seen: Bools, valid: Bools | None, model: FillModel, names: Sequence[str]) -> list[Part]:
    """Return the parts of a tile, one if each of its dates has all bands or none.

    Parameters
    ----------
    obs : Observations
        The tile, with pixels clear that have all bands.
    seen : ndarray of bool, shape (time, y, x)
        Pixels that are clear, whether or not they have all bands.
    valid : ndarray of bool, shape (time, band, y, x), or None
        Where each band has a value; None if at each pixel and date that was seen all have one or none has.
    model : FillModel
        The model, which may take certain bands only.
    names : sequence of str
        Names of the bands.
    """
    every = tuple(range(obs.n_bands))
    whole = Part(obs, every, every, np.arange(obs.n_dates))
    if valid is None or obs.n_bands == 1:
        return [whole]
    # What lies under cloud may not count: in a window where nothing else is uneven, nobody looks at it.
    if model.spec.tile is None:
        uneven = _uneven(seen, valid)
        if not uneven.any():
            return [whole]
        return [whole, *(_single(obs, band, seen & valid[:, band], uneven) for band in every)]
    present = np.asarray((seen[:, None] & valid).any(axis=(2, 3)))
    dated = np.asarray(present.any(axis=1))
    if present[dated].all():
        return [whole]
    parts = []
    for pattern in np.unique(present, axis=1).T:
        if not pattern.any():
            continue
        dates = np.flatnonzero(pattern)
        members = np.array([band for band in every if present[pattern, band].all()], np.intp)
        keep = tuple(int(band) for band in members if (present[:, band] == pattern).all())
        place = tuple(members.tolist().index(band) for band in keep)
        clear = seen[dates] & valid[np.ix_(dates, members)].all(axis=1)
        target = int(np.searchsorted(dates, obs.target)) if obs.target >= 0 and pattern[obs.target] else -1
        sub = replace(
            obs,
            bands=obs.bands[np.ix_(dates, members)],
            clear=clear,
            day_offset=obs.day_offset[dates],
            target=target,
            common_names=tuple(obs.common_names[band] for band in members) if obs.common_names else (),
        )
        parts.append(
            Part(sub, keep, place, dates, capable=_takes(model, [names[i] for i in members], sub.common_names))
        )
    return parts or [whole]


def _uneven(seen: Bools, valid: Bools) -> Bools:
    """Pixels that were seen with some bands and without others on some date."""
    return np.asarray((seen & valid.any(axis=1) & ~valid.all(axis=1)).any(axis=0))


def _single(obs: Observations, band: int, clear: Bools, where: Bools) -> Part:
    common_names = obs.common_names[band : band + 1] if obs.common_names else ()
    one = replace(obs, bands=obs.bands[:, band : band + 1], clear=clear, common_names=common_names)
    return Part(one, (band,), (0,), np.arange(obs.n_dates), where)


def _takes(model: FillModel, names: Sequence[str], common_names: Sequence[str | None]) -> bool:
    try:
        model.spec.check_bands(tuple(names), tuple(common_names) or (None,) * len(names))
    except BandError:
        return False
    return True


def join(
    parts: Sequence[tuple[Part, Prediction]], tile: Observations, seen: Bools, valid: Bools | None, by_band: bool
) -> Prediction:
    """Return the prediction of a tile from those of its parts.

    Parameters
    ----------
    parts : sequence of (Part, Prediction)
        The parts in the order of `split`, each with the model's answer.
    tile : Observations
        What `split` was given.
    seen, valid
        As `split` takes them.
    by_band : bool
        Whether the model treats each band by itself. Then at a pixel that lacks a band on some date each band is
        estimated by itself; else only where all together gave nothing.

    Returns
    -------
    Prediction
        Bands that are not known at a pixel, though others are, are NaN there.
    """
    (first, answer), *rest = parts
    if valid is None:
        return answer
    if rest and rest[0][0].where is not None:
        return _per_pixel(answer, rest, by_band)
    whole = not rest and len(first.keep) == tile.n_bands
    merged = answer if whole else _per_group(parts, tile)
    return merged if tile.n_bands == 1 else _completed(merged, tile, seen, valid)


def _per_pixel(answer: Prediction, rest: Sequence[tuple[Part, Prediction]], by_band: bool) -> Prediction:
    """The answer of all bands together, and at uneven pixels those of single bands."""
    assert rest[0][0].where is not None
    where = rest[0][0].where if by_band else rest[0][0].where & ~answer.known
    singles = [single for _, single in rest]
    known = np.where(where, np.any([s.known for s in singles], axis=0), answer.known)
    bands = answer.bands.copy()
    spread = None if answer.uncertainty is None else answer.uncertainty.copy()
    for i, single in enumerate(singles):
        bands[i] = np.where(where, np.where(single.known, single.bands[0], np.nan), bands[i])
        if spread is not None and single.uncertainty is not None:
            spread[i] = np.where(where, single.uncertainty[0], spread[i])
    source = answer.source
    if source is not None:
        source = np.where(where, _agreed([(s.known, s.source) for s in singles]), source)
    gate = answer.gate
    if gate is not None:
        gate = np.where(where, _mean_gate([(s.known, s.gate) for s in singles], gate.shape), gate)
    return Prediction(bands, known, source, spread, gate)


def _per_group(parts: Sequence[tuple[Part, Prediction]], tile: Observations) -> Prediction:
    """The answers of groups of bands that share their dates."""
    n_dates, shape = tile.n_dates, tile.shape
    bands = np.full((tile.n_bands, *shape), np.nan, np.float32)
    spread = np.full_like(bands, np.nan) if any(answer.uncertainty is not None for _, answer in parts) else None
    sources, gates = [], []
    for part, answer in parts:
        for band, place in zip(part.keep, part.place, strict=True):
            bands[band] = np.where(answer.known, answer.bands[place], np.nan)
            if spread is not None and answer.uncertainty is not None:
                spread[band] = np.where(answer.known, answer.uncertainty[place], np.nan)
        if answer.source is not None:
            dated = part.dates.astype(np.int16)
            sources.append((answer.known, np.where(answer.source >= 0, dated[answer.source], np.int16(-1))))
        if answer.gate is not None:
            gate = np.zeros((n_dates, *shape), np.float32)
            gate[part.dates] = answer.gate
            gates.append((answer.known, gate))
    known = np.any([answer.known for _, answer in parts], axis=0)
    source = _agreed(sources) if sources else None
    return Prediction(bands, known, source, spread, _mean_gate(gates, (n_dates, *shape)) if gates else None)


def _agreed(told: Sequence[tuple[Bools, NDArray[np.int16] | None]]) -> NDArray[np.int16]:
    """The date that all parts name which know a pixel; -1 where they differ."""
    out: NDArray[np.int16] | None = None
    for known, source in told:
        assert source is not None
        if out is None:
            out = np.where(known, source, np.int16(-2)).astype(np.int16)
            continue
        new = known & (out == -2)
        differs = known & ~new & (out != source)
        out = np.where(new, source, np.where(differs, np.int16(-1), out)).astype(np.int16)
    assert out is not None
    return np.where(out == -2, np.int16(-1), out).astype(np.int16)


def _mean_gate(told: Sequence[tuple[Bools, Any]], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """The mean weight of each date over the parts that know a pixel."""
    total, count = np.zeros(shape, np.float32), np.zeros(shape[1:], np.float32)
    for known, gate in told:
        total += np.where(known, gate, np.float32(0))
        count += known
    return np.asarray(total / np.maximum(count, 1), np.float32)


def _completed(merged: Prediction, tile: Observations, seen: Bools, valid: Bools) -> Prediction:
    """The prediction, with `Linear` of single bands at uneven pixels of which the model knew nothing."""
    known_bands = merged.known & np.isfinite(merged.bands)
    uneven = _uneven(seen, valid)
    if (known_bands | ~uneven).all():
        return merged
    bands = np.where(known_bands, merged.bands, np.float32(np.nan))
    known = merged.known.copy()
    for band in range(tile.n_bands):
        clear = seen & valid[:, band]
        lacking = ~known_bands[band] & uneven & clear.any(axis=0)
        if lacking.any():
            one = Observations(tile.bands[:, band : band + 1], clear, tile.day_offset, tile.target, tile.scale)
            told = Linear().predict([one])[0]
            bands[band] = np.where(lacking, told.bands[0], bands[band])
            known |= lacking
    spread, source, gate = merged.uncertainty, merged.source, merged.gate
    if spread is not None:
        spread = np.where(known_bands, spread, np.float32(np.nan))
    if source is not None:
        source = np.where(merged.known, source, np.int16(-1))
    if gate is not None:
        gate = np.where(merged.known, gate, np.float32(0))
    return Prediction(bands, known, source, spread, gate)
