"""Masks of a window corrected by the series: the input of `xr_cloudfree.masking.repair`, and its output."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.merge import MaskedWindow
from xr_cloudfree.cube.scaling import to_reflectance
from xr_cloudfree.cube.validity import measured
from xr_cloudfree.engine.blocks import as_slice
from xr_cloudfree.engine.decoding import Decoding
from xr_cloudfree.engine.grid import Box
from xr_cloudfree.masking.context import CELL
from xr_cloudfree.masking.repair import REACH, repair

MARGIN = -(-REACH // CELL) * CELL
"""Pixels by which a window of whole cells grows on each side."""


def repair_window(window: Box, cube: Box) -> Box:
    """Return the part of the cube that the masks of a window depend on, in whole cells.

    Examples
    --------
    >>> repair_window(Box(0, 1000, 0, 1000), Box(0, 1000, 0, 1000))
    Box(y0=0, y1=1000, x0=0, x1=1000)
    """
    return window.grow(REACH).snap(CELL, CELL).clip(cube)


def repair_bytes(n_dates: int, n_bands: int) -> int:
    """Return the bytes per pixel of a window that the correction of its masks takes, besides the window itself."""
    # Reflectance and as much again while it is used; masks, changes and scores; what is computed of one date.
    return n_dates * (2 * 4 * n_bands + 30) + 20 * n_bands + 450


@dataclass(frozen=True, eq=False)
class RepairedWindow:
    """Corrected masks of a window; all arrays have the shape (time, y, x).

    Parameters
    ----------
    seen : ndarray of bool
        Clear by the corrected mask. Pixels that lack a band are as in the given mask; if there is none, not clear,
        because nothing says whether they are.
    clear : ndarray of bool
        Those that have a measurement in every band.
    change : ndarray of uint8
        Codes of `xr_cloudfree.masking.repair.Change`.
    score : ndarray of float32
        From 0, clear, to 1, cloud or shadow; NaN where there is no measurement.
    """

    seen: NDArray[np.bool_]
    clear: NDArray[np.bool_]
    change: NDArray[np.uint8]
    score: NDArray[np.float32]

    def crop(self, dates: NDArray[np.intp], part: tuple[slice, slice]) -> RepairedWindow:
        """Return the masks of some dates in a part of the window, without holding on to the others."""
        cut = (as_slice(dates), *part)
        return RepairedWindow(
            self.seen[cut].copy(), self.clear[cut].copy(), self.change[cut].copy(), self.score[cut].copy()
        )

    def codes(self) -> NDArray[np.uint8]:
        """Return `seen`, `clear` and `change` as one number per pixel, which `decode_codes` takes apart."""
        return np.asarray(self.seen | self.clear.view(np.uint8) << 1 | self.change << 2, np.uint8)


def decode_codes(codes: NDArray[np.uint8]) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.uint8]]:
    """Return the arrays `seen`, `clear` and `change` of `RepairedWindow`.

    Examples
    --------
    >>> masks = RepairedWindow(*(np.array([[[1, 0]]], kind) for kind in (bool, bool, np.uint8, np.float32)))
    >>> decode_codes(masks.codes())
    (array([[[ True, False]]]), array([[[ True, False]]]), array([[[1, 0]]], dtype=uint8))
    """
    return codes & 1 > 0, codes & 2 > 0, np.right_shift(codes, 2, dtype=np.uint8)


def repair_masks(decoded: MaskedWindow, decoding: Decoding) -> RepairedWindow:
    """Correct the masks of all dates in a window by the series, or make them (see `MaskRule.from_series`).

    Parameters
    ----------
    decoded : MaskedWindow
        The stored values of all dates of the cube, and what the quality layer says.
    decoding : Decoding
        How they were decoded. The result does not depend on the order of the dates.
    """
    times, rule, scaling, valid_range = decoding.times, decoding.rule, decoding.scaling, decoding.valid_range
    n_dates, n_bands, *shape = decoded.stored.shape
    spectral = np.array([band for band in range(n_bands) if band not in decoding.extras], np.intp)
    order = np.argsort(times, kind="stable")
    bands = np.empty((n_dates, spectral.size, *shape), np.float32)
    usable = np.empty((n_dates, *shape), bool)
    for position, date in enumerate(order):  # all at once would take as much memory again
        image = decoded.stored[date, as_slice(spectral)]
        good = measured(image, scaling, valid_range, axis=0)
        bands[position] = to_reflectance(image, scaling)
        usable[position] = good.all(axis=0)
        if not usable[position].all():
            np.copyto(bands[position], np.nan, where=~good)
    in_time = as_slice(order)
    kept = decoded.missing if rule.snow == "clear" else decoded.missing | decoded.snow
    found = repair(
        bands,
        decoded.clear[in_time],
        (times[order] - times[order[0]]) / np.timedelta64(1, "D"),
        usable=usable,
        keep=kept[in_time],
        from_series=rule.from_series,
    )
    del bands
    back = as_slice(np.argsort(order, kind="stable"))
    usable = usable[back]
    clear = found.clear[back] & usable
    seen = clear if rule.from_series else clear | (decoded.clear & ~usable)
    return RepairedWindow(seen, clear, found.change[back], found.score[back])
