"""How a cube is decoded: the parameters that a clear mask, a correction of masks and a fill have in common."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.masks import MaskRule
from xr_cloudfree.cube.merge import Scenes
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.cube.timestamps import Times
from xr_cloudfree.cube.validity import ValidRange


@dataclass(frozen=True, eq=False)
class Decoding:
    """How the arrays of a cube are decoded.

    Parameters
    ----------
    rule : MaskRule
        How the quality layer is read.
    scaling : Scaling
        How stored numbers become reflectance.
    times : ndarray of datetime64[ns], shape (time,)
        The time stamps of the cube's dates, in the cube's order; with `scenes` those of the merged dates.
    scenes : Scenes, optional
        The scenes that are merged into each date; None if each date is one scene.
    extras : tuple of int
        Positions along the arrays' band axis of layers that are not bands.
    valid_range : ValidRange, optional
        Which stored numbers can be measurements; None for all.
    """

    rule: MaskRule
    scaling: Scaling
    times: Times
    scenes: Scenes | None = None
    extras: tuple[int, ...] = ()
    valid_range: ValidRange | None = None

    @property
    def dates(self) -> NDArray[np.intp]:
        """Indices of all dates."""
        return np.arange(self.times.size)

    @property
    def reads(self) -> NDArray[np.intp]:
        """Indices of all images: the dates, or the scenes of all of them."""
        return self.dates if self.scenes is None else np.arange(self.scenes.n_scenes)
