"""Classes of hidden pixels by how far the nearest evidence is: clear pixels of the frame, or clear dates."""

from __future__ import annotations

from itertools import pairwise
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

By = Literal["distance", "days"]
BY = get_args(By)
# Bounds between the classes: pixels to the nearest clear pixel of the frame, days to the nearest clear date.
BOUNDS: dict[str, tuple[float, ...]] = {"distance": (4, 16), "days": (5, 10, 20, 40)}
UNITS = {"distance": "px", "days": "days"}
# Classes with fewer pixels in a frame are not scored there: their scores would be noise.
LEAST_PIXELS = 30


def strata(
    by: By, clear: NDArray[np.bool_], day_offset: NDArray[np.float64], target: int
) -> dict[str, NDArray[np.bool_]]:
    """Divide the pixels of a frame into classes by the distance to the nearest evidence.

    Parameters
    ----------
    by : {"distance", "days"}
        Pixels to the nearest clear pixel of the frame, or days to the nearest other date on which the pixel is clear.
    clear : ndarray of bool, shape (time, y, x)
        Clear pixels, with some of the target's hidden.
    day_offset : ndarray of float64, shape (time,)
        Signed days from the target.
    target : int
        Index of the target date.

    Returns
    -------
    dict of str to ndarray of bool, shape (y, x)
        The classes in rising order, by name. The last holds pixels without any evidence as well: those of a frame
        without a clear pixel, or those that are never clear.

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.accuracy.strata import strata
    >>> clear = np.ones((2, 1, 9), bool)
    >>> clear[0, 0, 2:] = False
    >>> found = strata("distance", clear, np.array([0.0, 12.0]), 0)
    >>> {name: int(where.sum()) for name, where in found.items()}
    {'up to 4 px': 6, '4 to 16 px': 3, 'over 16 px': 0}
    >>> int(strata("days", clear, np.array([0.0, 12.0]), 0)["10 to 20 days"].sum())
    9
    """
    from scipy.ndimage import distance_transform_edt

    seen = clear[target]
    if by == "distance":
        value = distance_transform_edt(~seen) if seen.any() else np.full(seen.shape, np.inf)
    else:
        others = np.arange(len(day_offset)) != target
        days = np.abs(day_offset[others])[:, None, None]
        value = np.where(clear[others], days, np.inf).min(axis=0, initial=np.inf)
    ends = pairwise((-np.inf, *BOUNDS[by], np.inf))
    return {name: (value > low) & (value <= high) for name, (low, high) in zip(class_names(by), ends, strict=True)}


def class_names(by: By) -> list[str]:
    """Return the names of the classes in rising order.

    Examples
    --------
    >>> class_names("distance")
    ['up to 4 px', '4 to 16 px', 'over 16 px']
    """
    bounds, unit = BOUNDS[by], UNITS[by]
    inner = [f"{low:g} to {high:g} {unit}" for low, high in pairwise(bounds)]
    return [f"up to {bounds[0]:g} {unit}", *inner, f"over {bounds[-1]:g} {unit}"]
