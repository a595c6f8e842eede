"""Where learned models come from: the package itself, a folder, or a hub."""

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
# Each part begins with a letter or a digit: none is "..", and none is an option of some program.
_REPO = re.compile(r"(\w[\w.-]*/\w[\w.-]*)(?:@(\w[\w./-]*))?", re.ASCII)


@dataclass(frozen=True)
class Shipped:
    """Weights that come with the package."""

    name: str

    def __str__(self) -> str:
        return self.name

    def folder(self) -> Path:
        """Where they are in this installation; another process may have another."""
        return _SHIPPED / self.name


@dataclass(frozen=True)
class LocalDir:
    """A folder; other machines have to see it under the same path."""

    path: str

    def __str__(self) -> str:
        return f"{LOCAL}{self.path}"

    def folder(self) -> Path:
        """The folder."""
        return Path(self.path)


@dataclass(frozen=True)
class Hub:
    """A revision of a model on a hub; another machine fetches its own copy."""

    repo: str
    revision: str

    def __str__(self) -> str:
        return f"{HUB}{self.repo}@{self.revision}"

    def folder(self) -> Path:
        """Its copy in the hub's cache."""
        return hub.fetch(self.repo, self.revision)


def shipped() -> list[str]:
    """Names of the learned models whose weights come with the package, sorted."""
    return sorted(path.parent.name for path in _SHIPPED.glob(f"*/{bundle.SPEC}"))


def from_pretrained(source: str, device: str | None = None, precision: Precision = "fp32") -> PretrainedModel:
    """A learned model with its weights.

    The weights' hash is checked at once; the network is made when the model first predicts.

    Parameters
    ----------
    source : str
        The name of a model that comes with the package (``"unet"``), ``"local-dir:PATH"`` for a folder that
        `PretrainedModel.save_pretrained` wrote, or ``"hf-hub:organisation/name"`` for a model on the Hugging Face hub,
        with ``@revision`` behind it where it is not to be the newest.
    device : str, optional
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"``. By default CUDA where there is any when the model runs.
    precision : {"fp32", "bf16"}
        In which numbers the network computes. ``"bf16"`` takes less memory and time on a GPU, and is exact to about
        0.001 in reflectance.

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
        If an option has a value that it cannot take.
    """
    if not isinstance(source, str):
        raise OptionTypeError(
            f"source is {source!r}",
            "a name, 'local-dir:PATH' or 'hf-hub:organisation/name', as text",
            f"'{LOCAL}{os.fspath(source)}'" if isinstance(source, os.PathLike) else "from_pretrained('unet')",
        )
    found = _source(source)
    folder = found.folder()
    if isinstance(found, Hub):
        found = Hub(found.repo, folder.name)  # the revision that was found, not what it is called today
    spec = bundle.read_spec(folder)
    bundle.verify(folder, spec)
    return PretrainedModel(found, spec, device, precision)


def unet(device: str | None = None, precision: Precision = "fp32") -> PretrainedModel:
    """The default network with the weights that come with the package. See `from_pretrained`."""
    return from_pretrained("unet", device, precision)


def terramind(device: str | None = None, precision: Precision = "fp32") -> PretrainedModel:
    """TerraMind's smallest architecture with the weights that come with the package. See `from_pretrained`."""
    return from_pretrained("terramind", device, precision)


def _source(text: str) -> BundleLocation:
    if text.startswith(LOCAL):
        path = text.removeprefix(LOCAL)
        if not path.strip() or "\0" in path:
            raise OptionError(f"the model {text!r} names no folder", "a path", option(f"model='{LOCAL}my_model'"))
        # Absolute: a worker may have been started in another folder.
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
            f"no weights that come with the package are called {text!r}",
            f"one of {', '.join(shipped()) or '(none come with this version)'}, '{LOCAL}PATH' or "
            f"'{HUB}organisation/name'",
            f"from_pretrained('{LOCAL}{text}') if it is a folder; xr_cloudfree.list_models() for all models",
        )
    return Shipped(text)
