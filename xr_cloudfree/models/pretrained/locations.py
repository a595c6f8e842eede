"""Locations of learned models: the package itself, a folder, or a hub."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from xr_cloudfree.errors import ModelNotFoundError, OptionError, OptionTypeError, option
from xr_cloudfree.models.bundles import bundle, hub
from xr_cloudfree.models.networks.terramind import weights
from xr_cloudfree.models.pretrained.model import BundleLocation, Precision, PretrainedModel

LOCAL, HUB = "local-dir:", "hf-hub:"

_SHIPPED = Path(__file__).parent / "weights"
# Each part begins with a letter or a digit, so none is ".." or looks like a command-line option.
_REPO = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)


@dataclass(frozen=True)
class Shipped:
    """Weights included in the package."""

    name: str

    def __str__(self) -> str:
        return self.name

    def folder(self) -> Path:
        """Return their folder in this installation; other machines may have another."""
        return _SHIPPED / self.name


@dataclass(frozen=True)
class LocalDir:
    """A folder; other machines need it under the same path."""

    path: str

    def __str__(self) -> str:
        return f"{LOCAL}{self.path}"

    def folder(self) -> Path:
        """Return the folder."""
        return Path(self.path)


@dataclass(frozen=True)
class Hub:
    """A revision of a model on a hub; each machine downloads its own copy."""

    repo: str
    revision: str

    def __str__(self) -> str:
        return f"{HUB}{self.repo}@{self.revision}"

    def folder(self) -> Path:
        """Return its copy in the hub's cache."""
        return hub.fetch(self.repo, self.revision)


def shipped() -> list[str]:
    """Return the names of the learned models whose weights are included in the package, sorted."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{bundle.SPEC}"))


def from_pretrained(source: str, device: str | None = None, precision: Precision = "fp32") -> PretrainedModel:
    """Return a learned model with its weights.

    The hash of the weights is checked at once; the network is built when the model first predicts.

    Parameters
    ----------
    source : str
        The name of an included model (``"unet"``), ``"local-dir:PATH"`` for a folder written by
        `PretrainedModel.save_pretrained`, or ``"hf-hub:organisation/name"`` for a model on the Hugging Face hub,
        followed by ``@revision`` for another revision than the newest.
    device : str, optional
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"``. By default CUDA if it is available when the model runs.
    precision : {"fp32", "bf16"}
        Numeric precision of the network. ``"bf16"`` takes less memory and time on a GPU; its error is about 0.001 in
        reflectance.

    Returns
    -------
    PretrainedModel
        A model for ``fill(model=...)``.

    Raises
    ------
    ModelNotFoundError
        If there is no such model.
    WeightsError
        If its files are damaged, incomplete or unsafe.
    HubError
        If the hub cannot be reached.
    OptionError
        If an option has an invalid value.
    """
    if not isinstance(source, str):
        raise OptionTypeError(
            f"source is {source!r}",
            "a name, 'local-dir:PATH' or 'hf-hub:organisation/name', as text",
            f"'{LOCAL}{os.fspath(source)}'" if isinstance(source, os.PathLike) else "from_pretrained('unet')",
        )
    location = _location(source)
    folder = location.folder()
    if isinstance(location, Hub):
        location = Hub(location.repo, folder.name)  # the commit, since branches move
    spec = bundle.read_spec(folder)
    bundle.verify(folder, spec)
    return PretrainedModel(location, spec, device, precision)


def unet(device: str | None = None, precision: Precision = "fp32") -> PretrainedModel:
    """Return the default network with the included weights. See `from_pretrained`."""
    return from_pretrained("unet", device, precision)


def terramind(device: str | None = None, precision: Precision = "fp32") -> PretrainedModel:
    """Return TerraMind's smallest architecture with the included weights. See `from_pretrained`."""
    return from_pretrained("terramind", device, precision)


def _location(text: str) -> BundleLocation:
    if text.startswith(LOCAL):
        path = text.removeprefix(LOCAL)
        if not path.strip() or "\0" in path:
            raise OptionError(f"the model {text!r} names no folder", "a path", option(f"model='{LOCAL}my_model'"))
        # Absolute, because workers may have another working directory.
        return LocalDir(os.path.abspath(os.path.expanduser(path)))
    if text.startswith(HUB):
        match = _REPO.fullmatch(text.removeprefix(HUB))
        if match is None or ".." in text:
            raise OptionError(
                f"the model {text!r} names no model on a hub",
                f"'{HUB}organisation/name', or '{HUB}organisation/name@revision'",
                option(f"model='{HUB}organisation/name'") + f"; '{LOCAL}PATH' is a folder",
            )
        weights.refuse_alone(match[1])
        return Hub(match[1], match[2] or "main")
    if text not in shipped():
        raise ModelNotFoundError(
            f"no weights included in the package are called {text!r}",
            f"one of {', '.join(shipped()) or '(none are included in this version)'}, '{LOCAL}PATH' or "
            f"'{HUB}organisation/name'",
            f"from_pretrained('{LOCAL}{text}') if it is a folder; xr_cloudfree.list_models() for all models",
        )
    return Shipped(text)
