"""Evidence for cloud and shadow in a date, from what the other dates predict of it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.masking import kernels
from xr_cloudfree.masking.context import predict_deviation
from xr_cloudfree.masking.kernels import BLOCK

# Edges of the squares around cloud that a fit leaves out, and in which pixels count little, since masks miss rims.
RIM, FAR_RIM, RIM_WEIGHT = 9, 21, 0.1
# Least scale of noise, in reflectance.
LEAST_NOISE = 0.004
# A deviation is strong from this many scales of the noise on, and this reflectance.
STRONG, STRONG_REFLECTANCE = 3.0, 0.01
BRIGHTNESS = 5
"""The input that is positive where a date is brighter than predicted, and negative where it is darker."""


def evidence(
    bands: NDArray[np.float32],
    days: NDArray[np.float64],
    date: int,
    usable: NDArray[np.bool_],
    clear: NDArray[np.bool_],
    before: NDArray[np.int16],
    after: NDArray[np.int16],
    from_series: bool,
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """Return the inputs of the classifier for one date.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance, finite; the first pixel is that of a cell.
    days : ndarray of float64, shape (time,)
        Increasing.
    date : int
        Index of the date.
    usable, clear : ndarray of bool, shape (y, x)
        Where the date has values, and where it is presently taken as clear.
    before, after : ndarray of int16, shape (y, x)
        Its clear neighbours in time, see `kernels.neighbours`.
    from_series : bool
        Whether there is no given mask.

    Returns
    -------
    inputs : ndarray of float32, shape (input, y, x)
        Inputs of the classifier.
    known : ndarray of bool, shape (y, x)
        Where there is anything to compare the date with.
    """
    n_bands, shape = bands.shape[1], usable.shape
    per_band, summary = kernels.compare(
        bands.reshape(*bands.shape[:2], -1), usable.ravel(), before.ravel(), after.ravel(), days, date
    )
    per_band, summary = per_band.reshape(-1, *shape), summary.reshape(-1, *shape)
    known_share, one_sided, gap, seen, expected, rise, fall = summary
    known = known_share > 0
    deviation = per_band[2 * n_bands :]
    cloud = (usable & ~clear).astype(np.float32)
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
    absolute = (*fine[:2], *wider[:2], *enlarged[:2], noise, gap, seen, expected)
    shares = (one_sided, _enlarge(kernels.box(strong, 3), shape), np.full(shape, from_series, np.float32))
    scale = noise + np.float32(LEAST_NOISE)
    scaled = (*fine, *wider, *enlarged, gap, rise, fall)
    inputs = np.stack([*scaled, *absolute, *shares], dtype=np.float32)
    in_scales, in_reflectance = inputs[: len(scaled)], inputs[len(scaled) : -len(shares)]
    in_scales /= scale
    np.clip(in_scales, -12, 12, out=in_scales)
    in_scales /= 3
    in_reflectance *= 20
    np.clip(in_reflectance, -4, 4, out=in_reflectance)
    return inputs, known


def _enlarge(image: NDArray[np.float32], shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Repeat the blocks of a coarse map, cropped to the pixels."""
    return image.repeat(BLOCK, axis=0).repeat(BLOCK, axis=1)[: shape[0], : shape[1]]
