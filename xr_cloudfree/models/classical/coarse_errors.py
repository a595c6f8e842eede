"""From an error as a coarser sensor sees it to the error at fine pixels: features, and their ridge regression."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.footprint import Footprint
from xr_cloudfree.models.classical import conformal, robust_ridge

# Weight of a clear pixel's error where the errors of missing coarse pixels are estimated from their neighbours.
SHRINK = 0.05
# Standard deviation, in coarse pixels, of the neighbourhood that is a feature of its own.
AROUND = 4 / 3
# Standard deviations, in coarse pixels, of the kernels that spread errors to where the sensor saw nothing.
SPREADS = (4.0, 1.0)
# Standard deviations to which products of features are clipped: a square does not extrapolate reliably.
CLIP = 4.0
PENALTIES = (1e-4, 1e-3, 1e-2, 1e-1, 1.0)
# Number of groups, by the error at the coarse resolution, in which the error that remains is measured.
GROUPS, LEAST_GROUPED = 4, 160
# Widens the uncertainty by this much, divided by the number of dates that teach: few dates understate it.
FEW_DATES = 0.5


@dataclass(frozen=True, eq=False)
class SeenError:
    """The error of the linear prediction of a date, as another sensor sees it.

    Parameters
    ----------
    error : ndarray of float32, shape (band, row, column)
        What it sees of the date minus what it would see of the prediction; 0 where not valid.
    valid : ndarray of bool, shape (row, column)
        Where both are known.
    days : float
        Mean distance of what it sees from the date, in days.
    """

    error: NDArray[np.float32]
    valid: NDArray[np.bool_]
    days: float = 0.0


@dataclass(frozen=True, eq=False)
class Maps:
    """The maps that features are made of; see `features`.

    Parameters
    ----------
    image : ndarray of float32, shape (band, y, x)
        A prediction.
    error, around : ndarray of float32, shape (coarse band, row, column)
        Its error as the other sensor sees it, and the neighbourhood of that.
    smooth : ndarray of float32, shape (band, row, column)
        The prediction as the other sensor sees it.
    """

    image: NDArray[np.float32]
    error: NDArray[np.float32]
    around: NDArray[np.float32]
    smooth: NDArray[np.float32]

    @classmethod
    def of(cls, footprint: Footprint, image: NDArray[np.float32], seen: SeenError) -> Maps:
        """Make the maps of a prediction and its error; both are continued to where they are not known."""
        from scipy.ndimage import gaussian_filter

        error = fill(seen.error, seen.valid, SHRINK)
        around = gaussian_filter(error, (0, AROUND, AROUND), truncate=3.0, mode="nearest")
        return cls(image, error, around, footprint.smooth(image))

    def features(self, footprint: Footprint, bands: Sequence[int]) -> NDArray[np.float32]:
        """Return the features of every pixel, shape (feature, pixel).

        The error as the other sensor sees it, interpolated; its neighbourhood; the fine structure of the prediction,
        which the sensor cannot see; and the products of the first and the third.
        """
        upsampled, around = footprint.interpolate(self.error), footprint.interpolate_linearly(self.around)
        return _joined(upsampled, around, self.image - footprint.interpolate(self.smooth), bands)

    def features_at(self, footprint: Footprint, bands: Sequence[int], pixels: NDArray[np.intp]) -> NDArray[np.float32]:
        """Return the features of some pixels, shape (feature, sample)."""
        upsampled = footprint.interpolate_at(self.error, pixels)
        around = footprint.interpolate_at(self.around, pixels, linear=True)
        image = self.image.reshape(len(self.image), -1)[:, pixels]
        return _joined(upsampled, around, image - footprint.interpolate_at(self.smooth, pixels), bands)


def _joined(
    upsampled: NDArray[np.float32], around: NDArray[np.float32], structure: NDArray[np.float32], bands: Sequence[int]
) -> NDArray[np.float32]:
    rows = np.concatenate([upsampled, around, structure, upsampled * structure[list(bands)]])
    return rows.reshape(len(rows), -1)


def fill(values: NDArray[np.float32], valid: NDArray[np.bool_], shrink: float) -> NDArray[np.float32]:
    """Return coarse images with estimates from valid pixels around where they are not valid, from coarse to fine.

    References
    ----------
    Knutsson and Westin 1993, Normalized and differential convolution, doi 10.1109/CVPR.1993.341081.
    """
    from scipy.ndimage import gaussian_filter

    if valid.all():
        return values
    estimate = np.zeros_like(values)
    for width in SPREADS:
        maps = np.concatenate([np.where(valid, values - estimate, np.float32(0)), valid[None].astype(np.float32)])
        maps = gaussian_filter(maps, (0, width, width), truncate=3.0, mode="nearest")
        estimate += maps[:-1] / (maps[-1] + np.float32(shrink))
    return np.where(valid, values, estimate)


@dataclass(frozen=True, eq=False)
class Fit:
    """A ridge regression of the error by features; see `Maps`.

    Parameters
    ----------
    centre, width : ndarray of float32, shape (feature,)
        Mean and standard deviation of the features.
    slope : ndarray of float32, shape (band, feature + 1)
        Coefficients of the standardised features, and the constant.
    size : ndarray of float32, shape (band, sample)
        Size of the error as the other sensor sees it, at the sampled pixels.
    errors : ndarray of float32, shape (band, sample)
        Errors there in a fit without the pixel's date; no samples if there were too few dates.
    bands : tuple of int
        Position of each of the other sensor's bands.
    n_dates : int
        Number of dates that taught.
    """

    centre: NDArray[np.float32]
    width: NDArray[np.float32]
    slope: NDArray[np.float32]
    size: NDArray[np.float32]
    errors: NDArray[np.float32]
    bands: tuple[int, ...]
    n_dates: int

    def predict(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Predict the error, shape (band, pixel), from features of shape (feature, pixel)."""
        return robust_ridge.product(self.slope, _standard(features, self.centre, self.width, len(self.bands)))

    def uncertainty(self, features: NDArray[np.float32]) -> NDArray[np.float32]:
        """Estimate the uncertainty of the prediction, shape (band, pixel): ± 1.645 of it is the 90 % interval."""
        size = _sizes(features, self.bands, len(self.slope))
        width = conformal.Widths.of(self.size, np.abs(self.errors), GROUPS, LEAST_GROUPED)(size)
        return width * np.float32(1 + FEW_DATES / self.n_dates)


def _standard(
    features: NDArray[np.float32], centre: NDArray[np.float32], width: NDArray[np.float32], n_coarse: int
) -> NDArray[np.float32]:
    """Standardise features, clip the products among them, and add a row of ones."""
    out = np.ones((len(features) + 1, features.shape[1]), np.float32)
    np.subtract(features, centre[:, None], out=out[:-1])
    out[:-1] /= width[:, None]
    np.clip(out[-1 - n_coarse : -1], -CLIP, CLIP, out=out[-1 - n_coarse : -1])
    return out


def _sizes(features: NDArray[np.float32], bands: Sequence[int], n_bands: int) -> NDArray[np.float32]:
    """Return the size of the upsampled error by band of the tile, of a band that the sensor lacks the mean of all."""
    upsampled = np.abs(features[: len(bands)])
    size = np.repeat(upsampled.mean(axis=0, keepdims=True), n_bands, axis=0)
    size[list(bands)] = upsampled
    return size


def fit_errors(
    taught: Sequence[tuple[NDArray[np.float32], NDArray[np.float32]]], n_bands: int, bands: Sequence[int]
) -> Fit:
    """Fit the errors of the dates that teach, with the penalty by which dates that are left out are told best.

    With fewer than two dates, the error is taken as the other sensor sees it.
    """
    n_coarse = len(bands)
    n_features = 3 * n_coarse + n_bands
    if len(taught) < 2:
        slope = np.zeros((n_bands, n_features + 1), np.float32)
        slope[list(bands), np.arange(n_coarse)] = 1
        none, unit = np.zeros((n_bands, 0), np.float32), np.ones(n_features, np.float32)
        return Fit(np.zeros(n_features, np.float32), unit, slope, none, none, tuple(bands), len(taught))
    together = np.concatenate([features for features, _ in taught], axis=1)
    centre = together.mean(axis=1, dtype=np.float64).astype(np.float32)
    width = together.std(axis=1) + np.float32(1e-4)
    parts = [(_standard(features, centre, width, n_coarse), error) for features, error in taught]
    products = [_products(x, y) for x, y in parts]
    gram, moment = (np.sum(arrays, axis=0) for arrays in zip(*products, strict=True))
    left_out = []
    for (x, y), (own, of_own) in zip(parts, products, strict=True):
        slopes = [_solve(gram - own, moment - of_own, penalty) for penalty in PENALTIES]
        left_out.append(np.stack([y - robust_ridge.product(slope, x) for slope in slopes]))
    totals = np.sum([np.square(errors).sum(axis=(1, 2), dtype=np.float64) for errors in left_out], axis=0)
    best = int(np.argmin(totals))
    size = np.concatenate([_sizes(features, bands, n_bands) for features, _ in taught], axis=1)
    errors = np.concatenate([errors[best] for errors in left_out], axis=1)
    return Fit(centre, width, _solve(gram, moment, PENALTIES[best]), size, errors, tuple(bands), len(taught))


def _products(x: NDArray[np.float32], y: NDArray[np.float32]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the products of the features, with each other and with the errors."""
    gram = robust_ridge.gram_matrix(x[:-1], np.ones(x.shape[1], np.float32))
    return gram, robust_ridge.product(x, np.ascontiguousarray(y.T)).astype(np.float64)


def _solve(gram: NDArray[np.float64], moment: NDArray[np.float64], penalty: float) -> NDArray[np.float32]:
    """Return the coefficients (band, feature + 1); the constant is not penalised."""
    ridge = np.full(len(gram), penalty * gram[-1, -1])
    ridge[-1] = 1e-9 * gram[-1, -1]
    return np.asarray(np.linalg.solve(gram + np.diag(ridge), moment).T, np.float32)
