"""The model that is used unless another is asked for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xr_cloudfree.cube.observations import Observations, Prediction
from xr_cloudfree.models.regress import Regress


class Auto:
    """The best classical model by rule: `Regress`, or `Linear` where there is nothing to learn from.

    Examples
    --------
    >>> from xr_cloudfree.models.auto import Auto
    >>> dict(Auto().spec.settings)
    {'model': 'regress'}
    """

    spec = replace(
        Regress.spec,
        name="auto",
        summary="the best classical model by rule: regress",
        settings=(("model", "regress"),),
    )

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """One prediction per tile."""
        return Regress().predict(tiles)
