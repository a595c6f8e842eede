"""Evidence for cloud and shadow in a date, from what the other dates predict of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.masking import kernels
from xr_cloudfree.masking.context import predict_deviation
from xr_cloudfree.masking.harmonic import Harmonics, fit_harmonics
from xr_cloudfree.masking.kernels import BLOCK

# Edges of the squares around cloud that a fit leaves out, and in which pixels count little, since masks miss rims.
RIM, FAR_RIM, RIM_WEIGHT = 9, 21, 0.1
# Least scale of noise, in reflectance.
LEAST_NOISE = 0.004
# A deviation is strong from this many scales of the noise on, and this reflectance.
STRONG, STRONG_REFLECTANCE = 3.0, 0.01
# Unit of inputs that are reflectance, and the most that inputs in units can be.
REFLECTANCE, MOST = np.float32(0.05), 4
INPUTS = 42
"""Number of inputs of the classifier."""
# Distance in days that stands for a clear neighbour that does not exist.
NO_NEIGHBOUR = 400.0
BRIGHTNESS = 5
"""The input that is positive where a date is brighter than predicted, and negative where it is darker."""


@dataclass(frozen=True, eq=False)
class State:
    """What is presently taken as clear, and what follows from it for all dates.

    Parameters
    ----------
    clear : ndarray of bool, shape (time, y, x)
        Where the dates are taken as clear.
    before, after : ndarray of int16, shape (time, y, x)
        Clear neighbours in time, see `kernels.neighbours`.
    dates : ndarray of float32, shape (y, x)
        Number of clear dates.
    harmonics : Harmonics
        Fits to the clear dates.
    from_series : bool
        Whether there is no given mask.
    """

    clear: NDArray[np.bool_]
    before: NDArray[np.int16]
    after: NDArray[np.int16]
    dates: NDArray[np.float32]
    harmonics: Harmonics
    from_series: bool


def make_state(
    bands: NDArray[np.float32],
    usable: NDArray[np.bool_],
    clear: NDArray[np.bool_],
    days: NDArray[np.float64],
    *,
    from_series: bool,
) -> State:
    """Return the state of a series in which certain pixels are taken as clear; the parameters are those of `State`."""
    before, after = (index.reshape(clear.shape) for index in kernels.neighbours(clear.reshape(len(clear), -1)))
    harmonics = fit_harmonics(bands, usable, clear, days, readmit=from_series)
    return State(clear, before, after, clear.sum(axis=0, dtype=np.float32), harmonics, from_series)


def evidence(
    bands: NDArray[np.float32], usable: NDArray[np.bool_], days: NDArray[np.float64], state: State, date: int
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the inputs of the classifier for one date.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance, finite; the first pixel is that of a cell.
    usable : ndarray of bool, shape (time, y, x)
        Where the dates have values.
    days : ndarray of float64, shape (time,)
        Increasing.
    state : State
        What is taken as clear.
    date : int
        Index of the date.

    Returns
    -------
    inputs : ndarray of float32, shape (input, y, x)
        Inputs of the classifier.
    known : ndarray of bool, shape (y, x)
        Where there is anything to compare the date with.
    """
    n_bands, shape = bands.shape[1], usable.shape[1:]
    seen_here, clear, before, after = usable[date], state.clear[date], state.before[date], state.after[date]
    per_band, summary = kernels.compare(
        bands.reshape(*bands.shape[:2], -1), seen_here.ravel(), before.ravel(), after.ravel(), days, date
    )
    per_band, summary = per_band.reshape(-1, *shape), summary.reshape(-1, *shape)
    known_share, one_sided, gap, seen, expected, rise, fall = summary
    known = known_share > 0
    deviation = per_band[2 * n_bands :]
    cloud = (seen_here & ~clear).astype(np.float32)
    weight = np.where(kernels.box(cloud, FAR_RIM) > 0, np.float32(RIM_WEIGHT), np.float32(1))
    weight[~(known & clear) | (kernels.box(cloud, RIM) > 0)] = 0
    context = predict_deviation(per_band[: 2 * n_bands], deviation, weight)
    rest = np.where(known, deviation - context, np.float32(0))

    fine = kernels.extremes(rest)
    wider = [kernels.box(image, 5) for image in fine]
    seen_clear = (known & clear).astype(np.float32)
    coarse = [kernels.blocks(image) for image in (*fine, np.abs(fine[2]) * seen_clear, seen_clear)]
    wide = [kernels.box(image, 3) for image in coarse[:3]]
    noise = kernels.box(coarse[3], 7) / (kernels.box(coarse[4], 7) + np.float32(0.02))
    uncorrected = np.stack([kernels.blocks(image) for image in deviation])
    level = [kernels.box(image, 3) for image in (uncorrected.min(axis=0), uncorrected.max(axis=0))]
    noise = _enlarge(noise, shape)
    bound = STRONG * noise + np.float32(STRONG_REFLECTANCE)
    strong = kernels.blocks((((fine[0] > bound) | (fine[1] < -bound)) & known).astype(np.float32))
    enlarged = [_enlarge(image, shape) for image in (*wide, *level, kernels.box(coarse[2], 7))]
    rise, fall = (kernels.box(np.where(known, image, np.float32(0)), 3) for image in (rise, fall))
    seasonal = state.harmonics.residual(bands, date)
    seasonal[:, ~known] = 0
    least, greatest = seasonal.min(axis=0), seasonal.max(axis=0)
    around = [kernels.box(image, 2) for image in (least, greatest)]

    groups = (
        (3 * (noise + np.float32(LEAST_NOISE)), (*fine, *wider, *enlarged, gap, rise, fall)),
        (3 * (state.harmonics.scale + np.float32(LEAST_NOISE)), (least, greatest, seasonal.mean(axis=0), *around)),
        (REFLECTANCE, (*fine[:2], *wider[:2], *enlarged[:2], noise, gap, seen, expected)),
        (REFLECTANCE, (least, greatest, *around, state.harmonics.scale)),
    )
    inputs, position = np.empty((INPUTS, *shape), np.float32), 0
    for unit, images in groups:
        for image in images:
            np.divide(image, unit, out=inputs[position])
            position += 1
    np.clip(inputs[:position], -MOST, MOST, out=inputs[:position])
    inputs[position:-4] = one_sided, _enlarge(kernels.box(strong, 3), shape), np.full(shape, state.from_series)
    inputs[-4:] = state.harmonics.count, state.dates, *_days_between(days, date, before, after)
    np.log1p(inputs[-4:], out=inputs[-4:])
    inputs[-4:] /= 3
    return inputs, known


def _days_between(
    days: NDArray[np.float64], date: int, before: NDArray[np.int16], after: NDArray[np.int16]
) -> list[NDArray[np.float64]]:
    """Return the days from a date to its clear neighbours."""
    return [np.where(index >= 0, np.abs(days[index] - days[date]), NO_NEIGHBOUR) for index in (before, after)]


def _enlarge(image: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Repeat the blocks of a coarse map, cropped to the pixels."""
    return image.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)[: shape[0], : shape[1]]
