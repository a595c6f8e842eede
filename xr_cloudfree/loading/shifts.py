"""Stored values of one encoding in another one that differs by a whole number of steps."""

from __future__ import annotations

from typing import Any

import numpy as np


def shifted(values: np.ndarray[Any, Any], shift: int, nodata: int) -> np.ndarray[Any, Any]:
    """Return stored values with a shift, except nodata; they saturate at the limits of their type.

    Parameters
    ----------
    values : ndarray of integers, any shape
        Stored values.
    shift : int
        What is added.
    nodata : int
        Value that stays as it is.

    Examples
    --------
    >>> shifted(np.array([0, 500, 65000], np.uint16), 1000, 0)
    array([    0,  1500, 65535], dtype=uint16)
    """
    if not shift:
        return values
    wide = values.astype(np.int64) + shift
    limits = np.iinfo(values.dtype)
    clipped: np.ndarray[Any, Any] = np.clip(wide, limits.min, limits.max).astype(values.dtype)
    clipped[values == nodata] = nodata
    return clipped
