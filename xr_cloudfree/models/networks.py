"""Networks by the name of their architecture; each is imported only when it is built."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from xr_cloudfree.errors import MissingDependencyError, ModelError
from xr_cloudfree.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import nn

ARCHITECTURES = {
    "unet-paper": "xr_cloudfree.models.unet:PaperNet",
    "unet-plus": "xr_cloudfree.models.plus:PlusNet",
}
"""Module and class per architecture. A network's ``forward`` takes a `Batch` and gives an `Output`."""


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
