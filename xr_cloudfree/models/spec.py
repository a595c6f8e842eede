"""What a model says of itself before it runs."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

Units = Literal["storage", "reflectance"]


@dataclass(frozen=True)
class ModelSpec:
    """What the engine needs to know of a model; small, immutable and cheap to send to a worker.

    Parameters
    ----------
    name : str
        Name under which the registry finds the model.
    summary : str
        One line for people.
    units : {"storage", "reflectance"}
        Units in which the model wants its observations. Models that commute with a linear change of units work on
        what is stored, without a float copy.
    tile : int or None
        Edge of a tile in pixels, or None for a model that looks at one pixel at a time.
    stride : int or None
        Distance between tiles; ``(tile - stride) / 2`` pixels on each side are the halo.
    taper : bool
        False: each pixel comes from the tile whose core it lies in. True: neighbouring tiles, which then overlap by
        half (``tile == 2 * stride``), are blended with linear weights.
    window_days : float or None
        Dates farther from the target than this are left out by default; None uses all.
    min_clear : int
        Clear observations below which the model leaves a pixel unknown.
    batch : int
        Number of tiles that the model likes to be given at once.
    layers : tuple of str
        The optional layers that it can give: ``"source_time"``, ``"uncertainty"``, ``"gate"``.
    settings : tuple of (str, value)
        Settings that differ from the model's defaults.
    """

    name: str
    summary: str
    units: Units = "storage"
    tile: int | None = None
    stride: int | None = None
    taper: bool = False
    window_days: float | None = None
    min_clear: int = 1
    batch: int = 1
    layers: tuple[str, ...] = ()
    settings: tuple[tuple[str, Any], ...] = ()

    def __post_init__(self) -> None:
        if (self.tile is None) != (self.stride is None):
            raise ValueError("tile and stride go together")
        if self.tile is not None and self.stride is not None:
            if not 0 < self.stride <= self.tile or (self.tile - self.stride) % 2:
                raise ValueError("needed: 0 < stride <= tile, with an even difference")
            if self.taper and self.tile != 2 * self.stride:
                raise ValueError("a taper needs tiles that overlap by half: tile == 2 * stride")
