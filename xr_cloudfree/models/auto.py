"""The model that is used unless another is asked for: a rule, not a model of its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from xr_cloudfree.cube.observations import Observations, Prediction
from xr_cloudfree.models.classical import Linear
from xr_cloudfree.models.protocol import FillModel
from xr_cloudfree.models.regress import Regress


class Auto:
    """The best classical model by rule: `Regress` for a date that was observed, `Linear` for one that was not.

    Without clear pixels of the target `Regress` has nothing to learn from and answers as `Linear` does, which needs
    no surroundings. It is used all the same where its uncertainty is asked for.

    Examples
    --------
    >>> from xr_cloudfree.models.auto import Auto
    >>> Auto().choose(observed=True, layers=()).spec.name
    'regress'
    >>> Auto().choose(observed=False, layers=("filled",)).spec.name
    'linear'
    """

    spec = replace(Regress.spec, name="auto", summary="by rule: regress on observed dates, linear between them")

    def choose(self, *, observed: bool, layers: Sequence[str]) -> FillModel:
        """The model for a request.

        Parameters
        ----------
        observed : bool
            Whether the cube has an observation on one of the target dates.
        layers : sequence of str
            Layers asked for.
        """
        linear = Linear()
        lacking = set(Regress.spec.layers) - set(linear.spec.layers)
        return Regress() if observed or lacking & set(layers) else linear

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """One prediction per tile, by the rule."""
        return [self.choose(observed=obs.target >= 0, layers=Regress.spec.layers).predict([obs])[0] for obs in tiles]
