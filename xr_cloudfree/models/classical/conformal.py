"""Conformal calibration in context: how wide the intervals of a tile must be, by errors that the tile itself left out.

References
----------
Papadopoulos et al. 2002, Inductive confidence machines for regression, doi 10.1007/3-540-36755-1_29.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.classical.series import Z90

LEVEL = 0.9
# Bounds of a factor: a few errors of 0, or gross errors, say little about the others.
LEAST, MOST = 1 / 4, 4.0
# Weight of the prior, in groups of errors: towards a common factor of all bands, and of that towards 1.
BANDS_PRIOR, TILE_PRIOR = 8.0, 8.0


@dataclass(frozen=True, eq=False)
class Evidence:
    """Factor on the uncertainty of a tile by which its left-out errors lie in their intervals.

    Parameters
    ----------
    factor : ndarray of float32, shape (band,)
        Factor, not shrunk towards 1; positive.
    weight : float
        Weight of the factor against what is known without it, in [0, 1]; 0 without left-out errors.
    widening : float
        Factor in addition to it, whatever its weight, by the number of errors behind the uncertainty itself; positive.
    """

    factor: NDArray[np.float32]
    weight: float
    widening: float = 1.0

    @property
    def shrunk(self) -> NDArray[np.float32]:
        """The widening times the factor to the power of its weight, shape (band,): what multiplies uncertainties."""
        return np.asarray(self.widening * self.factor**self.weight, np.float32)

    @property
    def rows(self) -> NDArray[np.float32]:
        """Factor, weight and widening of each band, shape (band, 3)."""
        alone = np.ones_like(self.factor)
        return np.stack([self.factor, self.weight * alone, self.widening * alone], axis=1)


def no_evidence(n_bands: int) -> Evidence:
    """Return the evidence of a tile without left-out errors: a factor of 1 with no weight."""
    return Evidence(np.ones(n_bands, np.float32), 0.0)


def evidence(errors: NDArray[np.floating], uncertainty: NDArray[np.floating], groups: NDArray[np.integer]) -> Evidence:
    """Return the factor by which uncertainties have to be multiplied so that 90 % of left-out errors are inside.

    The errors of a group, for example those of one date, have causes in common, so groups have equal weight, and
    their number is the number of samples: few groups shrink the factor of a band towards that of all bands, and the
    weight of both towards 0.

    Parameters
    ----------
    errors : ndarray, shape (band, sample)
        Left-out errors. Samples that are not finite in any band do not count.
    uncertainty : ndarray, shape (band, sample)
        Uncertainty that was predicted for them, in the same units.
    groups : ndarray of int, shape (sample,)
        Group of each sample.

    Returns
    -------
    Evidence
        In the order of the bands; the order of samples and groups has no influence.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.classical.conformal import evidence
    >>> errors = np.linspace(0, 2 * 1.645, 101)[None]  # nine tenths of the errors are below 1.8 half widths
    >>> found = evidence(errors, np.ones((1, 101)), np.arange(101))
    >>> [round(factor, 2) for factor in found.factor.tolist()], round(found.weight, 2)
    ([1.8], 0.93)
    """
    n_bands = len(errors)
    valid = (np.isfinite(errors) & np.isfinite(uncertainty) & (uncertainty > 0)).all(axis=0)
    if not valid.any():
        return no_evidence(n_bands)
    ratios = np.abs(errors[:, valid]) / (Z90 * uncertainty[:, valid])
    _, group, count = np.unique(groups[valid], return_inverse=True, return_counts=True)
    weight = 1.0 / count[group]
    own = np.array([weighted_quantile(row, weight, LEVEL) for row in ratios])
    own, number = np.log(np.clip(own, LEAST, MOST)), len(count)
    common = own.mean()
    factor = np.exp(common + number / (number + BANDS_PRIOR) * (own - common))
    return Evidence(factor.astype(np.float32), number / (number + TILE_PRIOR))


def student_widening(freedom: int) -> float:
    """Return how much wider the 90 % interval is if its scale was estimated from few independent errors.

    It is the ratio of the quantiles of Student's t distribution and of the normal distribution.

    Parameters
    ----------
    freedom : int
        Degrees of freedom: number of errors, at least 1.

    References
    ----------
    Student 1908, The probable error of a mean, doi 10.1093/biomet/6.1.1.

    Examples
    --------
    >>> [round(student_widening(freedom), 3) for freedom in (2, 18, 10_000)]
    [1.775, 1.054, 1.0]
    """
    from scipy.special import stdtrit

    return float(stdtrit(freedom, (1 + LEVEL) / 2)) / Z90


def weighted_quantile(values: NDArray[np.floating], weight: NDArray[np.floating], level: float) -> float:
    """Return the least value at or below which lies a share `level` of the weight.

    Examples
    --------
    >>> weighted_quantile(np.array([3.0, 1.0, 2.0]), np.array([1.0, 1.0, 2.0]), 0.75)
    2.0
    """
    order = np.argsort(values, kind="stable")
    reached = np.cumsum(weight[order])
    # The sum of many weights is not exact.
    place = int(np.searchsorted(reached, level * reached[-1] * (1 - 1e-9)))
    return float(values[order[min(place, len(values) - 1)]])


@dataclass(frozen=True, eq=False)
class Widths:
    """Uncertainty as a function of the size of what was predicted: for each band, linear between a few points.

    Parameters
    ----------
    sizes, widths : tuple of ndarray of float64, shape (point,)
        Sizes in increasing order, and the uncertainty there; no point for bands without an error.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.classical.conformal import Widths
    >>> errors = np.linspace(0, 1.645, 101)[None]
    >>> round(Widths.of(np.ones((1, 101)), errors, 4, 160)(np.ones((1, 2)))[0, 0].item(), 2)
    0.9
    """

    sizes: tuple[NDArray[np.float64], ...]
    widths: tuple[NDArray[np.float64], ...]

    @classmethod
    def of(cls, size: NDArray[np.floating], errors: NDArray[np.floating], groups: int, least: int) -> Widths:
        """Estimate it from left-out errors.

        Parameters
        ----------
        size, errors : ndarray, shape (band, sample)
            Size, at least 0, and absolute left-out error; NaN errors do not count.
        groups, least : int
            Number of groups of equal numbers of samples by size, and number of samples below which there is one.
        """
        sizes, widths = [], []
        for own, error in zip(size, errors, strict=True):
            valid = np.flatnonzero(np.isfinite(error))
            order = valid[np.argsort(own[valid], kind="stable")]
            parts = [part for part in np.array_split(order, groups if len(order) >= least else 1) if len(part)]
            sizes.append(np.array([float(np.median(own[part])) for part in parts]))
            widths.append(np.array([float(np.quantile(error[part], LEVEL)) / Z90 for part in parts]))
        return cls(tuple(sizes), tuple(widths))

    def __call__(self, size: NDArray[np.floating]) -> NDArray[np.float32]:
        """Return the uncertainty for sizes of shape (band, n): ± 1.645 of it is the 90 % interval, NaN if unknown."""
        uncertainty = np.full(size.shape, np.nan, np.float32)
        for out, own, sizes, widths in zip(uncertainty, size, self.sizes, self.widths, strict=True):
            if len(sizes):
                out[:] = np.interp(own, sizes, widths)
        return uncertainty
