"""The model that is used unless another is asked for: a rule, not a model of its own."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from functools import cache
from typing import Literal

from xr_cloudfree.errors import BandError, CloudfreeWarning
from xr_cloudfree.layers import MODEL_LAYERS
from xr_cloudfree.models.classical.regress import Regress
from xr_cloudfree.models.pretrained import locations
from xr_cloudfree.models.pretrained import model as learned
from xr_cloudfree.models.pretrained.model import PretrainedModel
from xr_cloudfree.models.protocol import FillModel, Observations, Prediction
from xr_cloudfree.models.spec import ModelSpec

DEFAULT = "unet"


class Auto:
    """The best model by rule: the learned one, where its weights are there and it can do what is asked.

    Otherwise the best classical one, `Regress`.

    Examples
    --------
    >>> from xr_cloudfree.models.auto import Auto
    >>> Auto().choose(layers=("source_time",), bands=("ndvi",), common_names=(None,)).spec.name
    'regress'
    """

    def __init__(self) -> None:
        there = DEFAULT in locations.shipped()
        self._lacks_torch = there and not learned.installed()
        self._learned: PretrainedModel | None = (
            locations.from_pretrained(DEFAULT) if there and learned.installed() else None
        )
        best: FillModel = self._learned or Regress()
        like = best.spec
        self.spec = ModelSpec(
            "auto",
            f"by rule: {DEFAULT}; where it cannot be used, regress" if self._learned else "by rule: regress",
            units=like.units,
            tile=like.tile,
            stride=like.stride,
            taper=like.taper,
            batch=like.batch,
            layers=like.layers,
        )

    def choose(
        self,
        *,
        layers: Literal["all"] | Sequence[str],
        bands: Sequence[str],
        common_names: Sequence[str | None],
    ) -> FillModel:
        """The model for a request.

        Parameters
        ----------
        layers : {"all"} or sequence of str
            Layers asked for.
        bands : sequence of str
            The cube's names of its bands.
        common_names : sequence of (str or None)
            Their STAC common names.

        Warns
        -----
        CloudfreeWarning
            Once, if the learned model would be used and torch is not installed.
        """
        if self._lacks_torch:
            _say_torch_is_missing()
        asked = set() if layers == "all" else set(layers) & set(MODEL_LAYERS)
        if self._learned is not None and asked <= set(self._learned.spec.layers):
            try:
                self._learned.spec.check_bands(bands, common_names)
            except BandError:
                pass  # the classical models take any
            else:
                return self._learned
        return Regress()

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """One prediction per tile, by the rule."""
        return [self._choose_for(obs).predict([obs])[0] for obs in tiles]

    def _choose_for(self, obs: Observations) -> FillModel:
        common_names = obs.common_names or (None,) * obs.n_bands
        names = tuple(role or f"band{i + 1}" for i, role in enumerate(common_names))
        return self.choose(layers=self.spec.layers, bands=names, common_names=common_names)


@cache  # once per process
def _say_torch_is_missing() -> None:
    warnings.warn(
        f"the default model {DEFAULT!r} needs torch, which is not installed: a classical model is used instead, and "
        "the attribute cloudfree_model of the output names it. pip install 'xr-cloudfree[torch]' brings torch; "
        "model='regress' or model='linear' keeps to classical models without this warning",
        CloudfreeWarning,
        stacklevel=5,
    )
