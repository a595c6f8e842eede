"""What the engine asks of a model. Nothing more is needed to plug one in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from xr_cloudfree.cube.observations import Observations, Prediction
from xr_cloudfree.models.spec import ModelSpec


@runtime_checkable
class FillModel(Protocol):
    """A model that makes the image of a target date from a tile's observations.

    An instance travels to workers, so it must pickle; load heavy things on first use.

    A model that works on several tiles side by side may have an attribute `tiles_at_once` as well: the number, a
    multiple of ``spec.batch``, that it is given where nothing else is at work in the process. One that treats each band
    by itself may set an attribute `by_band` to True: where a pixel lacks a band on some date, it is asked for each band
    with that band's own dates.
    """

    @property
    def spec(self) -> ModelSpec:
        """What the model says of itself."""
        ...

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """One prediction per tile. The answer for a tile may not depend on the others."""
        ...
