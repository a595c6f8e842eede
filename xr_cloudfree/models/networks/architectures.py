"""Networks by the name of their architecture, imported only when they are built.

The package's own networks and those of other packages are found through the entry-point group
``xr_cloudfree.networks``. Its objects are of class `Architecture`, so that a network can be named and its requirements
checked without importing torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from typing import TYPE_CHECKING

from xr_cloudfree.errors import MissingDependencyError, ModelError
from xr_cloudfree.models import plugins
from xr_cloudfree.models.spec import ModelSpec

if TYPE_CHECKING:
    from xr_cloudfree.models.networks.network import Network

GROUP = "xr_cloudfree.networks"


@dataclass(frozen=True)
class Architecture:
    """A network class and its requirements.

    Parameters
    ----------
    network : str
        ``"module:Class"`` of a `Network`.
    needs : tuple of str
        Import names of the packages that it needs besides torch.
    install : str
        Command that installs them.
    working_bytes : tuple of int
        Bytes of working memory for a pixel of a tile, the tile included: for each date and band, for each band, and
        besides.

    Examples
    --------
    A package offers a network under the name ``near-mean`` with these lines in its ``pyproject.toml``::

        [project.entry-points."xr_cloudfree.networks"]
        near-mean = "my_package:NEAR_MEAN"

    and this object in a module that does not import torch:

    >>> from xr_cloudfree.models.networks.architectures import Architecture
    >>> NEAR_MEAN = Architecture("my_package.network:NearMean")
    """

    network: str
    needs: tuple[str, ...] = ()
    install: str = "pip install 'xr-cloudfree[torch]'"
    working_bytes: tuple[int, int, int] = (20, 0, 3300)


UNET = Architecture("xr_cloudfree.models.networks.unet:FusionUNet", working_bytes=(8, 550, 300))
PAPER_UNET = Architecture("xr_cloudfree.models.networks.paper_unet:TimeGateUNet")
TERRAMIND = Architecture(
    "xr_cloudfree.models.networks.terramind.network:TerraMindNet",
    ("terratorch",),
    "pip install 'xr-cloudfree[terramind]'",
)

ARCHITECTURES: dict[str, Architecture] = {}
"""Architectures that were added in this process, by name, besides the installed ones."""


def names() -> list[str]:
    """Return the names of all architectures, sorted."""
    return sorted({*plugins.installed(GROUP), *ARCHITECTURES})


def architecture(name: str | None) -> Architecture:
    """Return an architecture by name.

    Parameters
    ----------
    name : str or None
        Its name.

    Raises
    ------
    ModelError
        If there is no such architecture, or its entry point is not one.
    """
    points = plugins.installed(GROUP)
    if name is not None and name in ARCHITECTURES:
        return ARCHITECTURES[name]
    if name is None or name not in points:
        raise ModelError(
            f"there is no architecture {name!r}",
            f"one of {', '.join(names())}",
            "pip install --upgrade xr-cloudfree, or the package that brings it",
        )
    point = points[name]
    loaded = plugins.load(point)
    if not isinstance(loaded, Architecture):
        raise ModelError(
            f"{point.value} is a {type(loaded).__name__}",
            f"an Architecture, which entry points of {GROUP} name",
            f"Architecture('{point.value}')",
        )
    return loaded


def find(name: str | None) -> type[Network]:
    """Return the class of a network.

    Parameters
    ----------
    name : str or None
        Name of the architecture.

    Raises
    ------
    ModelError
        If there is no such architecture, or its class is not a `Network`.
    MissingDependencyError
        If torch, or another package that the network needs, is not installed.
    """
    target = architecture(name).network
    module, _, class_name = target.partition(":")
    try:
        network: type[Network] = getattr(import_module(module), class_name)
        from xr_cloudfree.models.networks.network import Network as Base
    except ModuleNotFoundError as error:
        raise MissingDependencyError(
            f"the architecture {name!r} needs {error.name}, which is not installed",
            "the packages of learned models",
            "pip install 'xr-cloudfree[torch]'",
        ) from error
    if not (isinstance(network, type) and issubclass(network, Base)):
        raise ModelError(
            f"the architecture {name!r} names {target}, which is not a subclass of {Base.__qualname__}",
            f"a class derived from {Base.__module__}.{Base.__qualname__}",
            f"class {class_name}(Network)",
        )
    return network


def check_installed(name: str) -> None:
    """Raise if a package that a network needs besides torch is not installed; nothing is imported to find out.

    Raises
    ------
    ModelError
        If there is no such architecture.
    MissingDependencyError
        If a package is not installed.
    """
    needed = architecture(name)
    for package in needed.needs:
        if find_spec(package) is None:
            raise MissingDependencyError(
                f"the architecture {name!r} needs {package}, which is not installed",
                "the packages of this network",
                needed.install,
            )


def build(spec: ModelSpec) -> Network:
    """Return the network that a spec describes, with fresh weights.

    Parameters
    ----------
    spec : ModelSpec
        `architecture` names the network, `config` holds the arguments of its constructor.

    Raises
    ------
    ModelError
        If there is no such architecture, or it does not accept these arguments.
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
            "correct `config` in spec.json",
        ) from error
