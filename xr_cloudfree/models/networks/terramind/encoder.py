"""TerraMind's encoder, imported from terratorch without the rest of that package.

``import terratorch`` takes half a minute and a gigabyte, nearly all of it for code that the encoder does not need.
Therefore the encoder's modules are imported with empty stand-ins for their parent packages.
"""

from __future__ import annotations

import importlib
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from torch import nn

from xr_cloudfree.errors import MissingDependencyError, ModelError

S2, S1 = "S2L2A", "S1GRD"
"""terratorch's names of the modalities in use."""

PATCH = 16
"""Edge of a token in pixels."""

# Seconds after which a message says what is being loaded.
_PATIENCE = 2.0
_PACKAGE = "terratorch.models.backbones.terramind.model"


@dataclass(frozen=True)
class Size:
    """Size of the encoder.

    Parameters
    ----------
    width : int
        Channels per token.
    depth, heads : int
        Number of blocks, and of attention heads in each.
    levels : tuple of int
        Blocks whose output is passed to the decoder.
    gated : bool
        Whether blocks have gated SiLU layers without biases, or plain GELU layers with biases.
    """

    width: int
    depth: int
    heads: int
    levels: tuple[int, ...]
    gated: bool


SIZES = {
    "tiny": Size(192, 12, 3, (2, 5, 8, 11), gated=False),
    "small": Size(384, 12, 6, (2, 5, 8, 11), gated=False),
    "base": Size(768, 12, 12, (2, 5, 8, 11), gated=True),
    "large": Size(1024, 24, 16, (5, 11, 17, 23), gated=True),
}


def find_size(size: str) -> Size:
    """Return a size by name.

    Raises
    ------
    ModelError
        If there is none.
    """
    if size not in SIZES:
        raise ModelError(f"there is no TerraMind of size {size!r}", f"one of {', '.join(SIZES)}", "size: tiny")
    return SIZES[size]


def build_encoder(size: str, modalities: Sequence[str] = (S2,)) -> nn.Module:
    """Return an encoder with random weights.

    Parameters
    ----------
    size : str
        ``"tiny"``, ``"small"``, ``"base"`` or ``"large"``.
    modalities : sequence of str
        Its inputs: `S2`, or `S2` and `S1`.

    Raises
    ------
    ModelError
        If there is no such size.
    MissingDependencyError
        If terratorch is not installed.
    """
    layout = find_size(size)
    vit, utils = _modules()
    encoder: nn.Module = vit.TerraMindViT(
        modalities=list(modalities),
        dim=layout.width,
        encoder_depth=layout.depth,
        num_heads=layout.heads,
        qkv_bias=not layout.gated,
        proj_bias=not layout.gated,
        mlp_bias=not layout.gated,
        act_layer=nn.SiLU if layout.gated else nn.GELU,
        gated_mlp=layout.gated,
        norm_layer=partial(utils.LayerNorm, eps=1e-6, bias=False),
    )
    return encoder


def _modules() -> tuple[ModuleType, ModuleType]:
    names = (f"{_PACKAGE}.terramind_vit", f"{_PACKAGE}.tm_utils")
    if "terratorch" in sys.modules:  # already imported as a whole
        return importlib.import_module(names[0]), importlib.import_module(names[1])
    with _announced("loading TerraMind's encoder (terratorch)"), _bare_parents():
        return importlib.import_module(names[0]), importlib.import_module(names[1])


@contextmanager
def _bare_parents() -> Iterator[None]:
    """Register the encoder's parent packages as empty modules, and remove them afterwards.

    Modules imported below them stay, and are reused if the whole of terratorch is imported later.
    """
    terratorch = find_spec("terratorch")
    if terratorch is None or not terratorch.submodule_search_locations:
        raise MissingDependencyError(
            "terratorch, which provides TerraMind's encoder, is not installed",
            "the packages of TerraMind",
            "pip install 'xr-cloudfree[terramind]'",
        )
    parts = _PACKAGE.split(".")
    folder, parents = Path(terratorch.submodule_search_locations[0]), []
    for end in range(1, len(parts) + 1):
        bare = ModuleType(".".join(parts[:end]))
        bare.__path__ = [str(folder.joinpath(*parts[1:end]))]
        parents.append(bare)
    sys.modules.update({bare.__name__: bare for bare in parents})
    try:
        yield
    except ImportError as error:
        raise MissingDependencyError(
            f"TerraMind's encoder cannot be imported from {folder}: {error}",
            "compatible versions of terratorch and its dependencies",
            "pip install --upgrade 'xr-cloudfree[terramind]'",
        ) from error
    finally:
        for bare in parents:
            if sys.modules.get(bare.__name__) is bare:
                del sys.modules[bare.__name__]


@contextmanager
def _announced(what: str) -> Iterator[None]:
    """Print to standard error what is being done, if it takes longer than a moment."""
    timer = threading.Timer(_PATIENCE, lambda: print(f"xr_cloudfree: {what} …", file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
