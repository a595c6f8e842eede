"""Real change in a real series: values that jump, and that two later dates confirm."""

from __future__ import annotations

import numpy as np
from scipy.ndimage import label


def lasting_steps(bands, clear, days, least=0.05, size=9):
    """Return where a value differs from the last clear one, and the next two clear ones agree with it.

    Clouds and shadows differ from date to date, so what is found is the ground, and clear.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, y, x)
        Reflectance.
    clear : ndarray of bool, shape (time, y, x)
        True where clear.
    days : ndarray of float64, shape (time,)
        Days, increasing.
    least : float
        Least change of any band, in reflectance.
    size : int
        Least number of connected pixels.

    Returns
    -------
    ndarray of bool, shape (time, y, x)
        True on the first clear date of a change.
    """
    before, after = _neighbours(clear), _neighbours(clear[::-1])[::-1]
    after = np.where(after >= 0, len(days) - 1 - after, -1)
    rows, columns = np.indices(clear.shape[1:])
    found = np.zeros_like(clear)
    for date, image in enumerate(bands):
        first, second = before[date], after[date]
        third = np.where(second >= 0, after[second, rows, columns], -1)
        old, new, newer = (np.moveaxis(bands[which, :, rows, columns], -1, 0) for which in (first, second, third))
        step = np.abs(image - old).max(axis=0)
        stays = (np.abs(new - image).max(axis=0) < step / 3) & (np.abs(newer - image).max(axis=0) < step / 2)
        soon = (days[date] - days[first] <= 45) & (days[third] - days[date] <= 90)
        known = clear[date] & (first >= 0) & (third >= 0)
        objects, _ = label(known & stays & soon & (step > least))
        large = np.bincount(objects.ravel()) >= size
        large[0] = False
        found[date] = large[objects]
    return found


def _neighbours(clear):
    """Return the index of the last clear date before each date, -1 if there is none, shape (time, y, x)."""
    last, out = np.full(clear.shape[1:], -1), np.empty(clear.shape, int)
    for date, seen in enumerate(clear):
        out[date] = last
        last = np.where(seen, date, last)
    return out
