"""Network inputs and outputs as tensors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from xr_cloudfree.errors import ModelError
from xr_cloudfree.models.networks.inputs import NetworkInput


@dataclass(frozen=True, eq=False)
class Batch:
    """Tiles side by side as the input of a network, padded to the same number of dates and bands.

    Parameters
    ----------
    bands : Tensor, shape (batch, time, band, y, x)
        Reflectance, 0 where not clear.
    clear : Tensor, shape (batch, time, 1, y, x)
        1 where clear, 0 elsewhere; of the type of `bands`.
    day_offset : Tensor, shape (batch, time)
        Signed days from the target date.
    date_valid : Tensor of bool, shape (batch, time)
        False for padded dates.
    target : Tensor, shape (batch, band, y, x)
        The target date's own clear pixels, 0 elsewhere. This date is not among the others.
    target_clear : Tensor, shape (batch, 1, y, x)
        1 where the target date's own observation is clear.
    band_valid : Tensor of bool, shape (batch, band)
        False for padded bands.
    features : dict of str to Tensor, shape (batch, ...)
        Further maps by name.

    Raises
    ------
    ModelError
        If a tensor has the wrong shape or type.
    """

    bands: Tensor
    clear: Tensor
    day_offset: Tensor
    date_valid: Tensor
    target: Tensor
    target_clear: Tensor
    band_valid: Tensor
    features: dict[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.bands.ndim != 5 or 0 in self.bands.shape or not self.bands.is_floating_point():
            raise ModelError(
                f"bands have shape {tuple(self.bands.shape)} and type {self.bands.dtype}",
                "floating-point numbers of shape (batch, time, band, y, x), with no axis of length 0",
                "Batch.of([prepare(obs), ...])",
            )
        b, t, c, y, x = self.bands.shape
        kind = self.bands.dtype
        # Days keep at least float32: bfloat16 is exact for whole days up to 256 only.
        days = torch.promote_types(kind, torch.float32)
        expected = {
            "clear": ((b, t, 1, y, x), kind),
            "day_offset": ((b, t), days),
            "date_valid": ((b, t), torch.bool),
            "target": ((b, c, y, x), kind),
            "target_clear": ((b, 1, y, x), kind),
            "band_valid": ((b, c), torch.bool),
        }
        for name, (shape, dtype) in expected.items():
            tensor = getattr(self, name)
            if tensor.shape != shape or tensor.dtype != dtype:
                raise ModelError(
                    f"{name} has shape {tuple(tensor.shape)} and type {tensor.dtype}",
                    f"shape {shape} and type {dtype}, to go with bands of shape {(b, t, c, y, x)}",
                    "Batch.of([prepare(obs), ...])",
                )
        for name, map_ in self.features.items():
            if map_.ndim < 1 or len(map_) != b:
                raise ModelError(
                    f"the feature {name!r} has shape {tuple(map_.shape)}",
                    f"{b} rows, one per tile",
                    "Batch.of([prepare(obs), ...])",
                )

    @classmethod
    def of(cls, tiles: Sequence[NetworkInput]) -> Batch:
        """Return a batch of tiles, padded with invalid dates and bands where one has fewer than another.

        Parameters
        ----------
        tiles : sequence of NetworkInput
            At least one; all with the same rows and columns and the same features.

        Raises
        ------
        ModelError
            If there is none, or they differ in size or features.
        """
        if not tiles:
            raise ModelError("no tiles were given", "at least one", "Batch.of([prepare(obs)])")
        if len({(tile.bands.shape[2:], frozenset(tile.features)) for tile in tiles}) > 1:
            kinds = sorted({f"{tile.bands.shape[2:]} with features {sorted(tile.features)}" for tile in tiles})
            raise ModelError(
                f"the tiles differ: {', '.join(kinds)}",
                "the same rows and columns, and the same features",
                "make one batch per size",
            )
        # A series may be empty; a batch has at least one date, which is then invalid.
        padded = {
            name: _stack([getattr(tile, name) for tile in tiles], time)
            for name, time in (("bands", 1), ("clear", 1), ("day_offset", 1), ("date_valid", 1))
        }
        padded |= {
            name: _stack([getattr(tile, name) for tile in tiles]) for name in ("target", "target_clear", "band_valid")
        }
        features = {name: _stack([tile.features[name] for tile in tiles]) for name in tiles[0].features}
        return cls(**padded, features=features)

    def to(self, device: torch.device | str | None = None, dtype: torch.dtype | None = None) -> Batch:
        """Return the batch on another device or in another floating-point type.

        Parameters
        ----------
        device : device, optional
            Target device; the current one by default.
        dtype : dtype, optional
            Floating-point type; the current one by default. `day_offset` keeps at least float32.
        """

        def move(tensor: Tensor, least: torch.dtype | None = None) -> Tensor:
            target = dtype if tensor.is_floating_point() else None
            if target is not None and least is not None:
                target = torch.promote_types(target, least)
            if to_gpu and tensor.device.type == "cpu":  # pinned memory is copied while others compute
                return tensor.pin_memory().to(device, non_blocking=True).to(dtype=target)
            return tensor.to(device=device, dtype=target)

        to_gpu = device is not None and torch.device(device).type == "cuda"

        moved: dict[str, Any] = {f.name: move(getattr(self, f.name)) for f in fields(self) if f.name != "features"}
        moved["day_offset"] = move(self.day_offset, torch.float32)
        return Batch(**moved, features={name: move(map_) for name, map_ in self.features.items()})

    def with_target_as_date(self) -> Batch:
        """Return the batch with the target's own clear pixels as an additional last date, at a distance of 0 days."""
        seen = self.target_clear.flatten(1).any(dim=1, keepdim=True)
        return replace(
            self,
            bands=torch.cat([self.bands, self.target[:, None]], dim=1),
            clear=torch.cat([self.clear, self.target_clear[:, None]], dim=1),
            day_offset=torch.cat([self.day_offset, torch.zeros_like(self.day_offset[:, :1])], dim=1),
            date_valid=torch.cat([self.date_valid, seen], dim=1),
        )

    def known(self) -> Tensor:
        """Return where any date is clear: Tensor of bool, shape (batch, 1, y, x)."""
        return self._known

    @cached_property
    def _known(self) -> Tensor:
        seen: Tensor = ((self.clear > 0) & self.date_valid[:, :, None, None, None]).any(dim=1)
        return seen


@dataclass(frozen=True, eq=False)
class Output:
    """Output of a network.

    Parameters
    ----------
    reflectance : Tensor, shape (batch, band, y, x)
        The image of the target date. Values where `known` is False are arbitrary.
    known : Tensor of bool, shape (batch, 1, y, x)
        False where there is no information.
    uncertainty : Tensor, shape (batch, band, y, x), optional
        In reflectance; ± 1.645 of it is the 90 % interval.
    gate : Tensor, shape (batch, time, 1, y, x), optional
        Weight of each date.
    """

    reflectance: Tensor
    known: Tensor
    uncertainty: Tensor | None = None
    gate: Tensor | None = None


def _stack(rows: Sequence[NDArray[np.generic] | Tensor], at_least: int = 0) -> Tensor:
    """Stack maps on a new first axis, zero-padded to the largest shape, and to `at_least` on their first axis.

    Of arrays and tensors together, the arrays go to the device of the tensors.
    """
    largest = np.max([row.shape for row in rows], axis=0)
    largest[0] = max(largest[0], at_least)
    shape, tensors = (len(rows), *map(int, largest)), [row for row in rows if isinstance(row, Tensor)]
    if tensors:
        stacked = tensors[0].new_zeros(shape)
        for place, row in zip(stacked, rows, strict=True):
            place[tuple(slice(n) for n in row.shape)] = torch.as_tensor(row)
        return stacked
    arrays = [row for row in rows if not isinstance(row, Tensor)]
    if len(rows) == 1 and arrays[0].shape == shape[1:] and arrays[0].flags.writeable:
        return torch.from_numpy(arrays[0][np.newaxis])  # nothing to pad: the memory is shared
    padded = np.zeros(shape, arrays[0].dtype)
    for into, array in zip(padded, arrays, strict=True):
        into[tuple(slice(n) for n in array.shape)] = array
    return torch.from_numpy(padded)
