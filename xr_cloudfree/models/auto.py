"""The default model: a rule that chooses a model for each request."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import Literal

from xr_cloudfree.errors import BandError, warn
from xr_cloudfree.layers import LAYERS, MODEL_LAYERS
from xr_cloudfree.models.classical.regress import Regress
from xr_cloudfree.models.pretrained import locations, runtime
from xr_cloudfree.models.pretrained.model import PretrainedModel
from xr_cloudfree.models.protocol import BaseModel, FillModel, Observations, Prediction
from xr_cloudfree.models.spec import ModelSpec
from xr_cloudfree.options import parse_layers

DEFAULT = "unet"


class Auto(BaseModel):
    """The best model by rule: the default learned model where it is available and supports the request, else `Regress`.

    Examples
    --------
    >>> from xr_cloudfree.models.auto import Auto
    >>> Auto().choose(layers=("source_time",), bands=("ndvi",), common_names=(None,)).spec.name
    'regress'
    """

    def __init__(self) -> None:
        has_weights = DEFAULT in locations.shipped()
        self._lacks_torch = has_weights and not runtime.installed()
        self._learned: PretrainedModel | None = (
            locations.from_pretrained(DEFAULT) if has_weights and runtime.installed() else None
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

    @property
    def kind(self) -> Literal["classical", "learned", "rule"]:
        """A rule."""
        return "rule"

    def choose(
        self,
        *,
        layers: Literal["all"] | str | Sequence[str] | None,
        bands: Sequence[str],
        common_names: Sequence[str | None],
    ) -> FillModel:
        """Return the model for a request.

        Parameters
        ----------
        layers : {"all"}, str, sequence of str or None
            Requested layers.
        bands : sequence of str
            The cube's names of its bands.
        common_names : sequence of (str or None)
            Their STAC common names.

        Raises
        ------
        OptionError
            If a layer does not exist.

        Warns
        -----
        CloudfreeWarning
            Once per process, if the learned model would be used and torch is not installed.
        """
        everything = isinstance(layers, str) and layers == "all"
        requested = set() if everything else {*parse_layers(layers, tuple(LAYERS), "auto")} & {*MODEL_LAYERS}
        if self._lacks_torch:
            _warn_without_torch()
        if self._learned is not None and requested <= set(self._learned.spec.layers):
            try:
                self._learned.spec.check_bands(bands, common_names)
            except BandError:
                pass  # the classical models take any bands
            else:
                return self._learned
        return Regress()

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """Return one prediction per tile, by the rule."""
        return [self._choose_for(obs).predict([obs])[0] for obs in tiles]

    def _choose_for(self, obs: Observations) -> FillModel:
        common_names = obs.common_names or (None,) * obs.n_bands
        names = tuple(name or f"band{i + 1}" for i, name in enumerate(common_names))
        return self.choose(layers=self.spec.layers, bands=names, common_names=common_names)


@cache  # once per process
def _warn_without_torch() -> None:
    warn(
        f"the default model {DEFAULT!r} needs torch, which is not installed: a classical model is used instead, and "
        "the attribute cloudfree_model of the output names it. pip install 'xr-cloudfree[torch]' brings torch; "
        "model='regress' or model='linear' uses a classical model without this warning"
    )
