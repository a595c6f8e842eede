"""The base class of networks: what the engine and the training call."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import ClassVar, Literal

import torch
from torch import nn

from xr_cloudfree.errors import OptionError
from xr_cloudfree.models.networks import on_device
from xr_cloudfree.models.networks.batch import Batch, Output
from xr_cloudfree.models.networks.features import FEATURES_VERSION, compute_features
from xr_cloudfree.models.networks.inputs import MAX_DATES, NetworkInput, prepare
from xr_cloudfree.models.protocol import Observations


class Network(nn.Module):
    """Base class of networks. Only `forward` has to be written; the other members have defaults.

    The constructor takes plain values (numbers, text, booleans, None, and tuples of them), because ``spec.json`` stores
    its arguments. A tile's output may not depend on the other tiles in the batch, on padded dates or on padded bands.

    Examples
    --------
    >>> import torch
    >>> from xr_cloudfree.models.networks.batch import Batch, Output
    >>> from xr_cloudfree.models.networks.network import Network
    >>> class NearMean(Network):
    ...     def __init__(self, days: float = 10.0) -> None:
    ...         super().__init__()
    ...         self.days = torch.nn.Parameter(torch.tensor(days))
    ...
    ...     def forward(self, batch: Batch) -> Output:
    ...         weight = torch.exp(-batch.day_offset.abs() / self.days)[:, :, None, None, None] * batch.clear
    ...         weight = weight * batch.date_valid[:, :, None, None, None]
    ...         gate = weight / weight.sum(dim=1, keepdim=True).clamp_min(1e-12)
    ...         return Output((gate * batch.bands).sum(dim=1), batch.known(), gate=gate)
    >>> NearMean().parts()
    {}
    """

    input_version: ClassVar[int] = FEATURES_VERSION
    """Version of what `prepare` returns; training makes stored samples of another version again."""

    calibration: tuple[float, float] | None = None
    """Factors on the uncertainty where the target date was fitted, and elsewhere; None if it cannot be calibrated."""

    def forward(self, batch: Batch) -> Output:
        """Return the image of the target date for each tile of a batch.

        Parameters
        ----------
        batch : Batch
            Tiles, with the features that `prepare` and `describe` added.
        """
        raise NotImplementedError(f"{type(self).__name__}.forward(batch)")

    @staticmethod
    def prepare(obs: Observations, max_dates: int = MAX_DATES) -> NetworkInput:
        """Return the network's input for a tile: NumPy only, deterministic, the same in training and inference.

        Training stores the result with the samples, for all networks that share this function.

        Parameters
        ----------
        obs : Observations
            A tile, in reflectance.
        max_dates : int
            Maximum number of dates.
        """
        return prepare(obs, max_dates)

    @staticmethod
    def describe(tile: NetworkInput, common_names: Sequence[str | None]) -> NetworkInput:
        """Return the input with features that depend on the bands' names; cheap, since it is never stored.

        Parameters
        ----------
        tile : NetworkInput
            Result of `prepare`.
        common_names : sequence of (str or None)
            Common names of the bands; empty if none is known.
        """
        return tile

    @classmethod
    def make_input(
        cls, obs: Observations, max_dates: int | None = None, device: torch.device | None = None
    ) -> NetworkInput:
        """Return the complete input of the network for a tile.

        Parameters
        ----------
        obs : Observations
            A tile, in reflectance.
        max_dates : int, optional
            Maximum number of dates; by default that of `prepare`.
        device : device, optional
            Device on which `on_device` computes the features of `compute_features`, for networks that have these; by
            default, and for all others, `prepare` is called.
        """
        if device is not None and cls.prepare is compute_features:
            tile = on_device.compute_features(obs, MAX_DATES if max_dates is None else max_dates, device)
        else:
            tile = cls.prepare(obs) if max_dates is None else cls.prepare(obs, max_dates)
        return cls.describe(tile, obs.common_names)

    def parts(self) -> dict[Literal["base", "encoder"], nn.Module]:
        """Return the parts that training stages treat separately.

        ``"base"`` is a network that this one continues from, ``"encoder"`` a pretrained encoder. Everything else is
        new. Networks without such parts, the default, are new as a whole.
        """
        return {}

    def encoder_blocks(self) -> Iterable[nn.Module]:
        """Return the blocks of the encoder whose activations may be recomputed to save memory; none by default."""
        return ()

    def start_from_pretrained(self) -> str:
        """Load published weights into the encoder.

        Returns
        -------
        str
            Name of the weights, for the model card; empty if they could not be had and the encoder is unchanged.

        Raises
        ------
        OptionError
            If the network has no such encoder, the default.
        """
        raise OptionError(
            f"the network {type(self).__name__} has no encoder with published weights",
            "a network that has one",
            "--model.pretrained false",
        )
