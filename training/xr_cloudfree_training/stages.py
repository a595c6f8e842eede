"""Stages of fine-tuning: the parts of a network that learn, when, and at which rate.

Such a network has a pretrained `base` and an `encoder`; its other parts are new. Low-rank adapters exist in all stages
and are disabled where they do not learn, so that the checkpoint of any stage fits the network.

References
----------
Hu et al. 2022, LoRA: low-rank adaptation of large language models, arXiv:2106.09685.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import accumulate
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import Parameter
from torch.utils.checkpoint import checkpoint

from xr_cloudfree.errors import MissingDependencyError, ModelError, OptionError
from xr_cloudfree.models.networks.network import Network

Learning = Literal["frozen", "lora", "full"]

# LoRA adapters: rank, alpha, and names of the adapted layers.
RANK, ALPHA, ADAPTED = 8, 16, ("qkv", "attn.proj", "fc1", "fc2")
_NAME = "default"  # peft's name of a layer's only adapter


@dataclass(frozen=True)
class Stage:
    """A stage of a training.

    Parameters
    ----------
    share : float
        Share of the training's steps.
    encoder : {"frozen", "lora", "full"}
        Part of the encoder that learns: none, low-rank adapters of its layers, or all of it.
    lr : float
        Peak learning rate of the new parts.
    encoder_lr : float
        Peak learning rate of the encoder or of its adapters.
    base_lr : float
        Peak learning rate of the base; 0 freezes it.
    """

    share: float
    encoder: Learning
    lr: float
    encoder_lr: float = 0.0
    base_lr: float = 0.0

    def __post_init__(self) -> None:
        least = min(self.lr, self.encoder_lr, self.base_lr)
        if not 0 < self.share <= 1 or least < 0 or (self.encoder != "frozen" and self.encoder_lr == 0):
            raise OptionError(
                f"{self}",
                "a share above 0 and up to 1, rates of 0 or more, and an encoder_lr where the encoder learns",
                "--model.stages '[{share: 1.0, encoder: full, lr: 1e-3, encoder_lr: 1e-4}]'",
            )

    def rates(self) -> dict[str, float]:
        """Return the learning rate of each part of the network; see `parts`."""
        return {
            "new": self.lr,
            "base": self.base_lr,
            "encoder": self.encoder_lr if self.encoder == "full" else 0.0,
            "adapters": self.encoder_lr if self.encoder == "lora" else 0.0,
        }


class Plan:
    """Schedule of stages over the steps of a training.

    Parameters
    ----------
    stages : sequence of Stage
        Stages in order; their shares sum to 1.
    """

    def __init__(self, stages: Sequence[Stage]) -> None:
        if not stages or abs(sum(stage.share for stage in stages) - 1) > 1e-6:
            raise OptionError(
                f"the shares of the stages are {', '.join(f'{stage.share:g}' for stage in stages) or 'none'}",
                "shares that sum to 1",
                "--model.stages '[{share: 1.0, encoder: full, lr: 1e-3, encoder_lr: 1e-4}]'",
            )
        self.stages = tuple(stages)

    def at(self, step: int, steps: int) -> tuple[Stage, int, int]:
        """Return the stage of a step, the index of the step within it, and its number of steps.

        Examples
        --------
        >>> plan = Plan([Stage(0.25, "frozen", 1e-3), Stage(0.75, "full", 1e-4, 1e-5)])
        >>> [plan.at(step, 8)[1:] for step in (0, 1, 2, 7, 8)]
        [(0, 2), (1, 2), (0, 6), (5, 6), (6, 6)]
        """
        ends = [round(steps * share) for share in accumulate(stage.share for stage in self.stages)]
        ends[-1] = steps
        first = 0
        for stage, end in zip(self.stages[:-1], ends[:-1], strict=True):
            if step < end:
                return stage, step - first, end - first
            first = end
        return self.stages[-1], step - first, max(steps - first, 1)


def parts(network: Network) -> dict[str, list[Parameter]]:
    """Group the network's parameters into ``"base"``, ``"encoder"``, ``"adapters"`` and ``"new"``."""
    owner = {id(member): part for part, module in network.parts().items() for member in module.parameters()}
    groups: dict[str, list[Parameter]] = {}
    for name, parameter in network.named_parameters():
        part: str = owner.get(id(parameter), "new")
        if part == "encoder" and ".lora_" in name:
            part = "adapters"
        groups.setdefault(part, []).append(parameter)
    return groups


def adapt(network: Network) -> None:
    """Add low-rank adapters to the layers of the encoder; untrained adapters do not change its output."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise MissingDependencyError(
            "peft, which provides the adapters, is not installed", "peft", "pip install 'xr-cloudfree[terramind]'"
        ) from error
    encoder = _encoder(network, "adapters", "--model.stages null")
    inject_adapter_in_model(LoraConfig(r=RANK, lora_alpha=ALPHA, target_modules=list(ADAPTED)), encoder)


def enter(network: Network, stage: Stage) -> None:
    """Unfreeze the parts that learn in a stage; merge adapters into their layers when the full encoder learns.

    Entering the same stage again has no effect.
    """
    rates = stage.rates()
    for layer in _adapted(network):
        layer.enable_adapters(stage.encoder != "full")
        if stage.encoder == "full":
            with torch.no_grad():
                layer.base_layer.weight += layer.get_delta_weight(_NAME)
                layer.lora_B[_NAME].weight.zero_()
    for part, parameters in parts(network).items():
        for parameter in parameters:
            parameter.requires_grad_(rates[part] > 0)


def plain(network: nn.Module) -> dict[str, Tensor]:
    """Return the network's state with adapters merged into the weights."""
    state = {n.replace(".base_layer.", "."): t for n, t in network.state_dict().items() if ".lora_" not in n}
    names = {module: name for name, module in network.named_modules()}
    for layer in _adapted(network):
        name = f"{names[layer]}.weight"
        state[name] = state[name] + layer.get_delta_weight(_NAME).detach()
    return state


def spare_memory(network: Network) -> None:
    """Enable gradient checkpointing of the encoder's blocks."""
    _encoder(network, "blocks that are computed again", "--model.checkpointing false")
    for block in network.encoder_blocks():
        block.forward = partial(checkpoint, block.forward, use_reentrant=False)


def _encoder(network: Network, what: str, remedy: str) -> nn.Module:
    encoder = network.parts().get("encoder")
    if encoder is None:
        raise ModelError(f"the network has no encoder that could have {what}", "a network on top of a base", remedy)
    return encoder


def _adapted(network: nn.Module) -> Iterator[Any]:
    return (layer for layer in network.modules() if hasattr(layer, "lora_A"))
