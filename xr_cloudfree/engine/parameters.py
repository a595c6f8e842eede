"""Parameters of a fill that each block needs besides its windows."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.dates import Targets, candidates
from xr_cloudfree.cube.masks import MaskRule
from xr_cloudfree.cube.merge import Scenes
from xr_cloudfree.cube.radar import nearby_dates
from xr_cloudfree.cube.remedies import Spelling
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.cube.timestamps import Times
from xr_cloudfree.cube.validity import ValidRange
from xr_cloudfree.engine.blocks import Output
from xr_cloudfree.engine.clear import quality_window
from xr_cloudfree.engine.decoding import Decoding
from xr_cloudfree.engine.grid import Box, TileGrid
from xr_cloudfree.engine.others import OtherSensor
from xr_cloudfree.layers import LAYERS
from xr_cloudfree.models.protocol import FillModel, optional

TILE_BYTES = 3 * 2**29
"""Bytes that the tiles which a model gets in one call may take; one batch of the model is always allowed."""
# The types that the kernels are compiled for; values of any other type are converted to float32.
KERNEL_DTYPES = tuple(np.dtype(name) for name in ("uint16", "int16", "float32"))


@dataclass(frozen=True, eq=False)
class FillParameters:
    """The parameters of a fill; small, because they travel with every task.

    Parameters
    ----------
    model : FillModel
        The model.
    grid : TileGrid
        Blocks and tiles.
    rule : MaskRule
        How the quality layer is read.
    scaling : Scaling
        How stored numbers become reflectance.
    times : ndarray of datetime64[ns], shape (time,)
        The time stamps of the cube's dates, in the cube's order; with `scenes` those of the merged dates.
    targets : Targets
        The target dates.
    window : tuple of float or None
        Days before and after a target from which dates are taken.
    common_names : tuple of (str or None)
        STAC common names of the bands.
    sensor : str or None
        The sensor, where it is known.
    dtype : dtype
        Type of the output's reflectance: the cube's.
    limits : tuple of tuple of float, or None
        Least and greatest values that the cube's packing can hold, one for all bands or one per band; estimates are
        clipped to them.
    layers : tuple of str
        The layers requested.
    repair : bool
        Whether the masks are corrected by the series: corrected masks are read beside the quality layer.
    check : bool
        Whether values that do not look like reflectance, or like decibels, are refused.
    bands : tuple of str
        Names of the bands.
    extras : tuple of int
        Positions along the arrays' band axis of layers that are not bands: each pixel gets their value at its nearest
        clear observation.
    s1_times : ndarray of datetime64[ns], optional
        Time stamps of Sentinel-1, in its order, for a model that takes it; None without Sentinel-1.
    valid_range : ValidRange or None
        Which stored numbers can be measurements; None for all.
    spelling : Spelling
        Names of the user's cube, for the remedies in error messages.
    scenes : Scenes, optional
        The scenes that are merged into each date; None if each date is one scene.
    others : tuple of OtherSensor
        Other sensors whose images are read.

    Attributes
    ----------
    dates : ndarray of int
        Indices of the dates that some target can use.
    reads : ndarray of int
        Indices of the cube's images that are read: those of `dates`, or their scenes.
    s1_reads : ndarray of int
        Indices of the Sentinel-1 images that are read.
    """

    model: FillModel
    grid: TileGrid
    rule: MaskRule
    scaling: Scaling
    times: Times
    targets: Targets
    window: tuple[float, float] | None
    common_names: tuple[str | None, ...]
    sensor: str | None
    dtype: np.dtype[np.generic]
    limits: tuple[tuple[float, ...], tuple[float, ...]] | None = None
    layers: tuple[str, ...] = ()
    repair: bool = False
    check: bool = True
    bands: tuple[str, ...] = ()
    extras: tuple[int, ...] = ()
    s1_times: Times | None = None
    valid_range: ValidRange | None = None
    spelling: Spelling = field(default_factory=Spelling)
    scenes: Scenes | None = None
    others: tuple[OtherSensor, ...] = ()
    dates: NDArray[np.intp] = field(init=False)
    reads: NDArray[np.intp] = field(init=False)
    s1_reads: NDArray[np.intp] = field(init=False)

    def __post_init__(self) -> None:
        # Only dates that some target can use are read at all.
        used = [candidates(self.times, instant, self.window)[0] for instant in self.targets.instants]
        dates = np.unique(np.concatenate(used))
        object.__setattr__(self, "dates", dates)
        object.__setattr__(self, "reads", dates if self.scenes is None else self.scenes.of(dates))
        none = np.empty(0, np.intp)
        s1_reads = none if self.s1_times is None else nearby_dates(self.s1_times, self.targets.instants)
        object.__setattr__(self, "s1_reads", s1_reads)

    @property
    def decoding(self) -> Decoding:
        """How the arrays of the cube are decoded."""
        return Decoding(self.rule, self.scaling, self.times, self.scenes, self.extras, self.valid_range)

    @property
    def corrected_reads(self) -> NDArray[np.intp]:
        """Indices of the dates whose corrected masks are read."""
        return self.dates

    @property
    def outputs(self) -> tuple[Output, ...]:
        """Outputs of a block, in order; the reflectance is first."""
        layers = [LAYERS[name] for name in self.layers]
        return (
            Output("reflectance", ("band", "y", "x"), self.dtype),
            *(Output(layer.name, layer.dims, np.dtype(layer.dtype)) for layer in layers),
        )

    @property
    def name(self) -> str:
        """Prefix of the tasks' names."""
        return f"cloudfree-{self.model.spec.name}"

    @property
    def lead(self) -> tuple[int, ...]:
        """Length of the targets' axis, which comes first; empty for a scalar date."""
        return () if self.targets.scalar else (len(self.targets.own),)

    @property
    def sizes(self) -> dict[str, int]:
        """Length of the outputs' dimensions, without rows and columns."""
        return {"band": len(self.common_names) + len(self.extras), "observation": self.times.size}

    def windows(self, box: Box) -> tuple[Box, Box]:
        """Return the windows of a block: of all on the cube's pixels, and of the quality layer in its own pixels."""
        window = self.grid.window(box)
        return window, quality_window(window, self.rule, self.grid)

    @property
    def tiles_at_once(self) -> int:
        """Tiles in one call of the model where nothing else runs: as many as it asks for, as far as memory allows."""
        batch = self.model.spec.batch
        requested = optional(self.model).tiles_at_once
        edge = self.model.spec.tile or max(self.grid.block)
        # As read, as prepared, and what the model computes from it.
        tile_bytes = 3 * 4 * edge**2 * self.dates.size * len(self.common_names)
        return max(batch, min(requested, TILE_BYTES // max(tile_bytes, 1)) // batch * batch)
