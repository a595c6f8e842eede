"""Networks by the name of their architecture; each is imported only when it is built."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from xr_cloudfree.errors import MissingDependencyError, ModelError
from xr_cloudfree.models.networks.inputs import NetworkInput, prepare
from xr_cloudfree.models.protocol import Observations
from xr_cloudfree.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

ARCHITECTURES = {
    "unet-paper": "xr_cloudfree.models.networks.paper_unet:TimeGateUNet",
    "unet-plus": "xr_cloudfree.models.networks.unet:FusionUNet",
    "terramind": "xr_cloudfree.models.networks.terramind.network:TerraMindNet",
}
"""Module and class per architecture. A network's ``forward`` takes a `Batch` and gives an `Output`."""

_NEEDS = {"terramind": "terratorch"}


def find(architecture: str | None) -> type[nn.Module]:
    """The class of a network.

    Parameters
    ----------
    architecture : str or None
        Its name.

    Raises
    ------
    ModelError
        If there is no such architecture.
    MissingDependencyError
        If torch, or another package that the network needs, is not installed.
    """
    if architecture not in ARCHITECTURES:
        raise ModelError(
            f"there is no architecture {architecture!r}",
            f"one of {', '.join(sorted(ARCHITECTURES))}",
            "pip install --upgrade xr-cloudfree",
        )
    module, name = ARCHITECTURES[architecture].split(":")
    try:
        network: type[nn.Module] = getattr(import_module(module), name)
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the architecture {architecture!r} needs {error.name}, which is not installed",
            "the packages of learned models",
            "pip install 'xr-cloudfree[torch]'",
        ) from error
    return network


def check_installed(architecture: str) -> None:
    """Refuse a network that needs a package besides torch which is not installed; nothing is imported to find out.

    Raises
    ------
    MissingDependencyError
        If it is not.
    """
    package = _NEEDS.get(architecture)
    if package is not None and find_spec(package) is None:
        raise MissingDependencyError(
            f"the architecture {architecture!r} needs {package}, which is not installed",
            "the packages of this network",
            f"pip install 'xr-cloudfree[{architecture}]'",
        )


def build(spec: ModelSpec) -> nn.Module:
    """The network that a spec describes, with fresh weights.

    Parameters
    ----------
    spec : ModelSpec
        Its `architecture` names the network, its `config` holds the constructor's arguments.

    Raises
    ------
    ModelError
        If there is no such architecture, or it does not take these arguments.
    MissingDependencyError
        If torch, or another package that the network needs, is not installed.
    """
    network = find(spec.architecture)
    try:
        return network(**dict(spec.config))
    except TypeError as error:
        raise ModelError(
            f"the architecture {spec.architecture!r} does not take its config: {error}",
            f"the arguments of {network.__name__}",
            "mend `config` in spec.json",
        ) from error


def prepared(network: Any, obs: Observations, **limit: int) -> NetworkInput:
    """What a network is given of a tile, as the network wants it.

    Parameters
    ----------
    network : Module or its class
        With a static ``prepare(obs, max_dates)``, or `xr_cloudfree.models.networks.inputs.prepare` serves it.
    obs : Observations
        A tile, in reflectance.
    **limit
        ``max_dates``, the dates to use at most.
    """
    make: Callable[..., NetworkInput] = getattr(network, "prepare", prepare)
    return described(network, make(obs, **limit), obs.common_names)


def described(network: Any, tile: NetworkInput, common_names: Sequence[str | None]) -> NetworkInput:
    """A prepared tile with what a network wants to know of its bands.

    It is told apart from the rest, because it costs nothing: what is costly can be kept for other networks too.

    Parameters
    ----------
    network : Module or its class
        With a static ``describe(tile, common_names)`` that adds features with the bands on their first axis;
        or nothing is added.
    tile : NetworkInput
        What ``prepare`` made.
    common_names : sequence of (str or None)
        Common names of the bands; empty where none is known.
    """
    describe: Callable[..., NetworkInput] = getattr(network, "describe", lambda tile, common_names: tile)
    return describe(tile, common_names)
