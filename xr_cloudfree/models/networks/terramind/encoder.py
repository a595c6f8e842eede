"""TerraMind's encoder, through terratorch, of which nothing else is imported.

``import terratorch`` takes half a minute and a gigabyte, nearly all of it for what the encoder does not need. So its
modules are imported from where they lie, with the packages above them standing empty for as long as that takes.
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
"""terratorch's names of the modalities that are used here."""

PATCH = 16
"""Pixels along the edge of a token."""

# Seconds of silence after which a user is told what takes so long.
_PATIENCE = 2.0
_PACKAGE = "terratorch.models.backbones.terramind.model"


@dataclass(frozen=True)
class Size:
    """A size of the encoder.

    Parameters
    ----------
    width : int
        Numbers per token.
    depth, heads : int
        Blocks, and heads of attention in each.
    levels : tuple of int
        Blocks whose output a decoder is given.
    gated : bool
        Whether blocks have gated SiLU layers without biases, or plain GELU layers with them.
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
    """The size of this name.

    Raises
    ------
    ModelError
        If there is none.
    """
    if size not in SIZES:
        raise ModelError(f"there is no TerraMind of size {size!r}", f"one of {', '.join(SIZES)}", "size: tiny")
    return SIZES[size]


def build_encoder(size: str, modalities: Sequence[str] = (S2,)) -> nn.Module:
    """An encoder with random weights.

    Parameters
    ----------
    size : str
        ``"tiny"``, ``"small"``, ``"base"`` or ``"large"``.
    modalities : sequence of str
        What it is to look at: `S2`, or `S2` and `S1`.

    Raises
    ------
    ModelError
        If there is no such size.
    MissingDependencyError
        If terratorch is not installed.
    """
    found = find_size(size)
    vit, utils = _modules()
    encoder: nn.Module = vit.TerraMindViT(
        modalities=list(modalities),
        dim=found.width,
        encoder_depth=found.depth,
        num_heads=found.heads,
        qkv_bias=not found.gated,
        proj_bias=not found.gated,
        mlp_bias=not found.gated,
        act_layer=nn.SiLU if found.gated else nn.GELU,
        gated_mlp=found.gated,
        norm_layer=partial(utils.LayerNorm, eps=1e-6, bias=False),
    )
    return encoder


def _modules() -> tuple[ModuleType, ModuleType]:
    names = (f"{_PACKAGE}.terramind_vit", f"{_PACKAGE}.tm_utils")
    if "terratorch" in sys.modules:  # whoever has paid for all of it
        return importlib.import_module(names[0]), importlib.import_module(names[1])
    with _said("loading TerraMind's encoder (terratorch)"), _bare_parents():
        return importlib.import_module(names[0]), importlib.import_module(names[1])


@contextmanager
def _bare_parents() -> Iterator[None]:
    """The packages above the encoder as namespaces without content, and gone afterwards.

    What was imported below them stays, and serves whoever imports the whole of terratorch later.
    """
    found = find_spec("terratorch")
    if found is None or not found.submodule_search_locations:
        raise MissingDependencyError(
            "terratorch, which has TerraMind's encoder, is not installed",
            "the packages of TerraMind",
            "pip install 'xr-cloudfree[terramind]'",
        )
    parts = _PACKAGE.split(".")
    folder, parents = Path(found.submodule_search_locations[0]), []
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
            "the versions of terratorch and of its packages that go together",
            "pip install --upgrade 'xr-cloudfree[terramind]'",
        ) from error
    finally:
        for bare in parents:
            if sys.modules.get(bare.__name__) is bare:
                del sys.modules[bare.__name__]


@contextmanager
def _said(what: str) -> Iterator[None]:
    """Say on the error output what is going on, if it goes on for longer than a moment."""
    timer = threading.Timer(_PATIENCE, lambda: print(f"xr_cloudfree: {what} …", file=sys.stderr, flush=True))
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()
