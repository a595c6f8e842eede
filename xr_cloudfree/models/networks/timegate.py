"""The learned time gate: a composite of a series, each step weighted by what the gate makes of it.

Sum and maximum are associative, so the composite can also be made a few steps at a time, in any order, with memory
that does not grow with their number: see `TimeGateState`.
"""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Literal, get_args

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from xr_cloudfree.errors import ModelError, OptionError
from xr_cloudfree.models.networks.batch import Batch

Variant = Literal["paper", "masked"]

DAYS = 30.0
"""Days per unit of temporal distance."""
CONDITION = "condition"
"""Name of the feature map that tells, in training, what of the target image is distorted."""

_STEPS = 32  # steps that are scored at once where nothing is learned: what bounds the memory
_CAP = 10.0  # expm1 overflows half precision above 11
# The paper gives no number for its epsilon. The masked gate never closes below exp(-10), so it needs but a guard.
_EPSILON = {"paper": 1e-6, "masked": 1e-12}
_FORMAT = "xr_cloudfree TimeGateState 1"


@dataclass(frozen=True, eq=False)
class Composite:
    """What a time gate makes of a series.

    Parameters
    ----------
    image : Tensor, shape (batch, band, y, x)
        The weighted sum of the steps, in reflectance.
    features : Tensor, shape (batch, k, y, x)
        Abstract temporal features: the largest over the steps; 0 where there is no step.
    known : Tensor of bool, shape (batch, 1, y, x)
        Where any step is clear.
    weights : Tensor, shape (batch, time, band, y, x), optional
        Weight of each step; None where the series came in parts.
    """

    image: Tensor
    features: Tensor
    known: Tensor
    weights: Tensor | None = None


@dataclass(frozen=True, eq=False)
class _Steps:
    """Scored steps. Their importance is ``base``, and more by ``lead`` for the two next to the target."""

    values: Tensor  # (batch, time, band, y, x), 0 where not valid
    base: Tensor  # likewise
    lead: Tensor  # likewise
    offset: Tensor  # (batch, time, 1, y, x)
    valid: Tensor  # bool, likewise: what may contribute


class TimeGate(nn.Module):
    """Time extraction, gate and aggregation.

    Parameters
    ----------
    bands : int
        Number of bands; the gate weights each by itself.
    variant : {"paper", "masked"}
        ``"paper"`` is the form of [1]_. ``"masked"`` mends what it leaves weak: see the notes.
    features : int
        Number k of the abstract temporal features, which the paper does not give.

    Raises
    ------
    OptionError
        If there is no such variant.

    Notes
    -----
    *Paper.* Per step, with values T, visibility C of cloud and shadow, presence M and distance d in units of 30 days,
    signed::

        X = mish-norm(conv1x1(concat[T, M exp(-max(conv1x1(d), 0)), C]; 32)) + mish-norm(conv1x1(condition; 32))
        g = mish-norm(conv1x1(mish-norm(conv3x3(X; 64)); bands))
        H = exp(max(g, 0)) - 1
        W = H / (sum of H over the steps + epsilon)
        image = sum of W T;  features = max of conv1x1(H; k)

    The decay is that of [2]_. A `Batch` has one layer of what is clear, and 0 elsewhere: it stands for both channels
    of C, and M is 1 where there is a value, so it is the same. The condition, in training only, is the feature map
    ``"condition"`` of shape (batch, 3, y, x): visibility of cloud and of shadow and presence in the target image that
    is to be drawn. Without it, and always at inference, it is all ones: draw what is not distorted. In training H
    has ``1 - epsilon`` for 1, so that where all gates are closed the image is a mean and not 0.

    *Masked.* A step counts only where it is clear; what lies elsewhere is never read. With p the weights of linear
    interpolation in time between the clear steps next to the target::

        H = p exp(g) + decay (exp(max(g, 0)) - 1)

    with decays of their own for the past and the future. The last convolution starts at zero, so that the
    untrained gate interpolates linearly; it learns to move weight between the two neighbours, and to other steps.
    The weights sum to 1 wherever a step is clear. There is no condition, and group norm stands for batch norm: the
    answer for a series does not depend on the others in the batch, in training either.

    Steps that only fill up are left out before anything is computed, so they do not enter batch norm's averages.

    References
    ----------
    .. [1] S. Oehmcke, T.-H. K. Chen, A. V. Prishchepov and F. Gieseke, "Creating cloud-free satellite imagery
       from image time series with deep learning", BIGSPATIAL 2020. doi:10.1145/3423336.3429345
    .. [2] Z. Che et al., "Recurrent neural networks for multivariate time series with missing values", Sci. Rep.
       8, 2018. doi:10.1038/s41598-018-24271-9

    Examples
    --------
    >>> import numpy as np
    >>> from xr_cloudfree.models.protocol import Observations
    >>> from xr_cloudfree.models.networks.batch import Batch
    >>> from xr_cloudfree.models.networks.inputs import prepare
    >>> from xr_cloudfree.models.networks.timegate import TimeGate
    >>> bands = np.array([0.25, 0.5], np.float32).reshape(2, 1, 1, 1)
    >>> obs = Observations(bands, np.ones((2, 1, 1), bool), np.array([-6.0, 2.0]))
    >>> TimeGate(bands=1, variant="masked")(Batch.of([prepare(obs)])).image.item()
    0.4375
    """

    def __init__(self, bands: int, variant: Variant = "paper", features: int = 8) -> None:
        super().__init__()
        if variant not in get_args(Variant):
            raise OptionError(
                f"variant is {variant!r}", f"one of {', '.join(get_args(Variant))}", "TimeGate(bands, variant='paper')"
            )
        self.bands, self.variant, self.features = bands, variant, features
        self.masked = variant == "masked"
        if self.masked:
            # One factor and offset each for the past and the future, on distances without a sign.
            self.decay = _constant(nn.Conv2d(2, 2, 1, groups=2), 1.0)
            self.extract = _grouped_conv(bands + 3, 32, 1)
            self.gate = nn.Sequential(_grouped_conv(32, 64, 3), _constant(nn.Conv2d(64, bands, 1), 0.0))
        else:
            self.decay = nn.Conv2d(1, 1, 1)
            self.extract = normed_conv(bands + 3, 32, 1)
            self.condition = normed_conv(3, 32, 1)
            self.gate = nn.Sequential(normed_conv(32, 64, 3), normed_conv(64, bands, 1))
        self.abstract = nn.Conv2d(bands, features, 1)

    def forward(self, batch: Batch) -> Composite:
        """The composite of a series.

        Parameters
        ----------
        batch : Batch
            Series with as many bands as the gate has.

        Raises
        ------
        ModelError
            If the number of bands is another.
        """
        steps = self._score(batch)
        importance = steps.base
        if self.masked:
            index, _, share = _neighbours(steps)
            importance = importance + _scatter(index, share, steps) * steps.lead
        weights = importance / (importance.sum(dim=1, keepdim=True) + self.epsilon)
        image = (weights * steps.values).sum(dim=1)
        return Composite(image, _filled(self._peak(importance, steps.valid)), batch.known(), weights)

    @property
    def epsilon(self) -> float:
        """What keeps the sum of the importance from 0."""
        return _EPSILON[self.variant]

    def _score(self, batch: Batch) -> _Steps:
        """What each step is worth by itself."""
        b, t, c, y, x = batch.bands.shape
        if c != self.bands:
            raise ModelError(
                f"the series has {c} bands", f"{self.bands}, for which the gate was made", f"TimeGate(bands={c})"
            )
        valid = batch.date_valid[:, :, None, None, None].expand(b, t, 1, y, x)
        if self.masked:
            valid = valid & (batch.clear > 0)
        values = torch.where(valid, batch.bands, 0)
        offset = (batch.day_offset / DAYS).to(values.dtype)[:, :, None, None, None]
        row, column = batch.date_valid.nonzero(as_tuple=True)
        seen = batch.clear[row, column]
        decay = self._decay(offset[row, column])
        inputs = [values[row, column], decay * seen, seen] + ([] if self.masked else [seen])
        gate = values.new_zeros(b, t, c, y, x)
        if len(row):
            condition = None if self.masked else self._condition(batch)
            gate[row, column] = self._gate(torch.cat(inputs, dim=1), condition, row).to(gate.dtype)
        base, lead = torch.expm1(gate.clamp(0, _CAP)), gate.new_zeros(()).expand_as(gate)
        if self.masked:
            fade = values.new_zeros(b, t, 1, 1, 1)
            fade[row, column] = decay.sum(dim=1, keepdim=True).to(fade.dtype)
            base, lead = fade * base, gate.clamp(-_CAP, _CAP).exp()
        elif self.training:
            base = base + self.epsilon
        return _Steps(values, torch.where(valid, base, 0), lead, offset.expand_as(valid), valid)

    def _decay(self, offset: Tensor) -> Tensor:
        """Openness by distance, shape (step, 1 or 2, 1, 1); masked: that of the past and that of the future."""
        if not self.masked:
            return torch.exp(-self.decay(offset).relu())
        sides = torch.cat([offset <= 0, offset > 0], dim=1)
        return torch.exp(-self.decay(offset.abs().expand(-1, 2, -1, -1)).relu()) * sides

    def _condition(self, batch: Batch) -> Tensor:
        ones = batch.clear.new_ones(len(batch.clear), 3, *batch.clear.shape[3:])
        made: Tensor = self.condition(batch.features.get(CONDITION, ones) if self.training else ones)
        return made

    def _gate(self, inputs: Tensor, condition: Tensor | None, row: Tensor) -> Tensor:
        """The gate g of each step, where `row` is the series that it belongs to.

        Batch norm needs all steps at once in training; otherwise they go through in parts.
        """
        made = []
        size = len(inputs) if self.training else _STEPS
        for part, rows in zip(torch.split(inputs, size), torch.split(row, size), strict=True):
            extracted = self.extract(part)
            made.append(self.gate(extracted if condition is None else extracted + condition[rows]))
        return torch.cat(made)

    def _peak(self, importance: Tensor, valid: Tensor) -> Tensor:
        """Largest abstract feature over the valid steps, minus infinity where there is none."""
        found = self.abstract(importance.flatten(0, 1)).unflatten(0, importance.shape[:2])
        largest: Tensor = found.masked_fill(~valid, -torch.inf).amax(dim=1)
        return largest


@dataclass(frozen=True, eq=False)
class TimeGateState:
    """A composite in the making, for series that are too long to hold or not yet complete.

    Steps may come in any parts and any order, and the size does not grow with them. The composite is that of the
    whole series to 1e-5, for both variants, with a gate in eval mode. (Batch norm's averages over a part are not those
    of the whole, so there is no such form in training.) The paper's gate needs two sums and a maximum. The masked
    one also holds back the two clear steps next to the target at each pixel: their weights are known only
    when no nearer step can come.

    Parameters
    ----------
    weighted : Tensor, shape (batch, band, y, x)
        Sum of importance times values.
    total : Tensor, shape (batch, band, y, x)
        Sum of importance.
    peak : Tensor, shape (batch, k, y, x)
        Largest abstract features, minus infinity where there was no step.
    known : Tensor of bool, shape (batch, 1, y, x)
        Where any step was clear.
    count : Tensor of int64, shape (batch,)
        Number of steps.
    held : object or None
        The steps that are held back; None for the paper's variant.
    weights : str
        SHA-256 of the gate's weights, as `weights_sha256` gives it.
    target : str
        What the day offsets count from, such as a date: for those who add a scene later.

    Examples
    --------
    >>> import torch
    >>> from xr_cloudfree.models.networks.timegate import TimeGate, TimeGateState
    >>> gate = TimeGate(bands=4).eval()
    >>> state = TimeGateState.empty(gate, (1, 64, 64), target="2021-07-23")
    >>> state.composite(gate).image.shape, state.count.tolist()
    (torch.Size([1, 4, 64, 64]), [0])
    """

    weighted: Tensor
    total: Tensor
    peak: Tensor
    known: Tensor
    count: Tensor
    held: _Steps | None
    weights: str
    target: str = ""

    @classmethod
    def empty(cls, gate: TimeGate, shape: tuple[int, int, int], target: str = "") -> TimeGateState:
        """The state before the first step.

        Parameters
        ----------
        gate : TimeGate
            The gate, on the device on which the steps will be.
        shape : tuple of int
            Number of series, rows and columns.
        target : str
            What the day offsets count from.
        """
        b, y, x = shape
        like = gate.abstract.weight.detach()
        image = like.new_zeros(b, gate.bands, y, x)
        known = torch.zeros(b, 1, y, x, dtype=torch.bool, device=like.device)
        peak = like.new_full((b, gate.features, y, x), -torch.inf)
        held = None
        if gate.masked:
            two = image[:, None].repeat(1, 2, 1, 1, 1)
            held = _Steps(two, two, two, two[:, :, :1], known[:, None].repeat(1, 2, 1, 1, 1))
        count = torch.zeros(b, dtype=torch.int64, device=like.device)
        return cls(image, image, peak, known, count, held, weights_sha256(gate), target)

    def update(self, gate: TimeGate, batch: Batch) -> TimeGateState:
        """The state with more steps.

        Parameters
        ----------
        gate : TimeGate
            The gate that the state was made with, in eval mode.
        batch : Batch
            Further steps of the same series; none that was given before.

        Raises
        ------
        ModelError
            If the gate has other weights or is in training, or the series have another shape.
        """
        self._check(gate)
        b, _, _, y, x = batch.bands.shape
        if (b, 1, y, x) != self.known.shape:
            raise ModelError(
                f"the steps are {b} series of {y} x {x} pixels",
                f"{len(self.known)} of {self.known.shape[2]} x {self.known.shape[3]}, as the state has",
                "TimeGateState.empty(gate, shape)",
            )
        with torch.no_grad():
            added = self._add(gate, gate._score(batch))
        return replace(added, known=self.known | batch.known(), count=self.count + batch.date_valid.sum(dim=1))

    def merge(self, gate: TimeGate, other: TimeGateState) -> TimeGateState:
        """The state of the steps of two states, which have none in common.

        Parameters
        ----------
        gate : TimeGate
            The gate that both were made with, in eval mode.
        other : TimeGateState
            A state of other steps of the same series.

        Raises
        ------
        ModelError
            If the gate has other weights or is in training, or the states are not of the same series.
        """
        self._check(gate)
        other._check(gate)
        if (other.known.shape, other.target) != (self.known.shape, self.target):
            raise ModelError(
                f"one state has shape {tuple(self.known.shape)} and target {self.target!r}, the other "
                f"{tuple(other.known.shape)} and {other.target!r}",
                "states of the same series and target",
                "TimeGateState.empty(gate, shape, target)",
            )
        both = replace(
            self,
            weighted=self.weighted + other.weighted,
            total=self.total + other.total,
            peak=torch.maximum(self.peak, other.peak),
            known=self.known | other.known,
            count=self.count + other.count,
        )
        with torch.no_grad():
            return both if other.held is None else both._add(gate, other.held)

    def composite(self, gate: TimeGate) -> Composite:
        """The composite of the steps so far.

        Parameters
        ----------
        gate : TimeGate
            The gate that the state was made with, in eval mode.

        Raises
        ------
        ModelError
            If the gate has other weights or is in training.
        """
        self._check(gate)
        done = self
        if self.held is not None:
            _, _, share = _neighbours(self.held)
            importance = self.held.base + share * self.held.lead
            with torch.no_grad():
                done = self._sum(gate, self.held, importance, self.held.valid)
        image = done.weighted / (done.total + gate.epsilon)
        return Composite(image, _filled(done.peak), self.known)

    def save(self, path: str | os.PathLike[str]) -> None:
        """Write the state to a file of safetensors.

        Parameters
        ----------
        path : path
            File to write; what was there is replaced once the new one is complete.
        """
        partial = Path(path).with_name(f"{Path(path).name}.partial")
        metadata = {"format": _FORMAT, "weights": self.weights, "target": self.target}
        # Copies, because tensors that share memory are refused.
        save_file({k: v.contiguous().clone() for k, v in self._tensors().items()}, partial, metadata=metadata)
        os.replace(partial, path)

    @classmethod
    def load(cls, path: str | os.PathLike[str], gate: TimeGate) -> TimeGateState:
        """Read a state, to add steps or to make its composite.

        Parameters
        ----------
        path : path
            File that `save` wrote.
        gate : TimeGate
            The gate that the state was made with; the state comes to its device.

        Raises
        ------
        ModelError
            If the file is no such state, is damaged, or was made with other weights.
        """
        device = str(gate.abstract.weight.device)
        try:
            with safe_open(path, framework="pt", device=device) as file:
                metadata = file.metadata() or {}
                found = {name: file.get_tensor(name) for name in file.keys()}
        except (OSError, SafetensorError) as error:
            raise _damaged(path, f"cannot be read: {error}") from error
        if metadata.get("format") != _FORMAT:
            raise _damaged(path, f"says it is {metadata.get('format')!r}, not {_FORMAT!r}")
        known = found.get("known", torch.empty(0))
        shape = (known.shape[0], known.shape[2], known.shape[3]) if known.ndim == 4 else (0, 0, 0)
        state = replace(cls.empty(gate, shape), target=metadata.get("target", ""))
        if metadata.get("weights") != state.weights:
            raise ModelError(
                f"the state in {os.fspath(path)} was made with weights {metadata.get('weights')}",
                f"those of this gate, {state.weights}",
                "the network that it was made with, or a new state from the series",
            )
        expected = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in state._tensors().items()}
        given = {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in found.items()}
        if wrong := sorted(n for n in expected | given if expected.get(n) != given.get(n)):
            raise _damaged(path, f"has {wrong[0]} as {given.get(wrong[0])}, which should be {expected.get(wrong[0])}")
        for name, tensor in found.items():
            # Only a peak may be infinite: minus infinity is that of no step.
            if (tensor.isnan() | (tensor == torch.inf) | ((tensor == -torch.inf) & (name != "peak"))).any():
                raise _damaged(path, f"has {name} with values that are not finite")
        held = {name.removeprefix("held."): tensor for name, tensor in found.items() if name.startswith("held.")}
        rest = {name: tensor for name, tensor in found.items() if not name.startswith("held.")}
        return replace(state, **rest, held=_Steps(**held) if held else None)

    def _tensors(self) -> dict[str, Tensor]:
        named = {name: getattr(self, name) for name in ("weighted", "total", "peak", "known", "count")}
        if self.held is not None:
            named |= {f"held.{f.name}": getattr(self.held, f.name) for f in fields(self.held)}
        return named

    def _check(self, gate: TimeGate) -> None:
        if gate.training:
            raise ModelError("the gate is in training", "one in eval mode, which treats steps alike", "gate.eval()")
        if (given := weights_sha256(gate)) != self.weights:
            raise ModelError(
                f"the gate has weights {given}", f"those of the state, {self.weights}", "the gate that it was made with"
            )

    def _add(self, gate: TimeGate, steps: _Steps) -> TimeGateState:
        """With more steps in the sums, or held back where they are nearest."""
        if self.held is None:
            return self._sum(gate, steps, steps.base, steps.valid)
        steps = _Steps(*(torch.cat(pair, dim=1) for pair in zip(_parts(self.held), _parts(steps), strict=True)))
        index, nearest, _ = _neighbours(steps)
        stays = nearest.isfinite()
        gone = steps.valid & (_scatter(index, stays.to(steps.values.dtype), steps) == 0)
        held = [part.gather(1, index.expand(-1, -1, part.shape[2], -1, -1)) for part in _parts(steps)]
        return replace(self._sum(gate, steps, steps.base, gone), held=replace(_Steps(*held), valid=stays))

    def _sum(self, gate: TimeGate, steps: _Steps, importance: Tensor, valid: Tensor) -> TimeGateState:
        importance = torch.where(valid, importance, 0)
        return replace(
            self,
            weighted=self.weighted + (importance * steps.values).sum(dim=1),
            total=self.total + importance.sum(dim=1),
            peak=torch.maximum(self.peak, gate._peak(importance, valid)),
        )


def weights_sha256(module: nn.Module) -> str:
    """SHA-256 over the names, types, shapes and values of a module's parameters and buffers.

    Parameters
    ----------
    module : Module
        Equal modules give the same, on any device.
    """
    digest = hashlib.sha256()
    for name, tensor in sorted(module.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def normed_conv(inputs: int, outputs: int, size: int) -> nn.Sequential:
    """A convolution with zeros around, then Mish and batch norm, as all of the paper's.

    Parameters
    ----------
    inputs, outputs : int
        Numbers of channels.
    size : int
        Edge of the kernel; odd.
    """
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, padding=size // 2), nn.Mish(), nn.BatchNorm2d(outputs))


def _grouped_conv(inputs: int, outputs: int, size: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(inputs, outputs, size, padding=size // 2), nn.Mish(), nn.GroupNorm(8, outputs))


def _constant(layer: nn.Conv2d, weight: float) -> nn.Conv2d:
    """A convolution with all weights alike and no offset."""
    for name, parameter in layer.named_parameters():
        nn.init.constant_(parameter, weight if name == "weight" else 0.0)
    return layer


def _parts(steps: _Steps) -> tuple[Tensor, ...]:
    return tuple(getattr(steps, f.name) for f in fields(steps))


def _neighbours(steps: _Steps) -> tuple[Tensor, Tensor, Tensor]:
    """The valid steps next to the target: the last at or before it, and the first after it.

    Returns
    -------
    index, nearest, share : Tensor, shape (batch, 2, 1, y, x)
        Which they are, how far they are (infinite where there is none) and their weights in linear interpolation.
    """
    sides = torch.stack([steps.offset <= 0, steps.offset > 0], dim=1) & steps.valid[:, None]
    nearest, index = torch.where(sides, steps.offset.abs()[:, None], torch.inf).min(dim=2)
    span = nearest.sum(dim=1, keepdim=True)
    one_sided = nearest.isfinite().to(nearest.dtype)
    share = torch.where(span.isfinite(), nearest.flip(1) / span, one_sided)
    return index, nearest, share


def _scatter(index: Tensor, values: Tensor, steps: _Steps) -> Tensor:
    """`values` at their steps, 0 elsewhere, shape (batch, time, 1, y, x)."""
    return values.new_zeros(steps.valid.shape).scatter_add(1, index, values)


def _filled(peak: Tensor) -> Tensor:
    return torch.where(peak.isfinite(), peak, 0)


def _damaged(path: str | os.PathLike[str], what: str) -> ModelError:
    return ModelError(f"{os.fspath(path)} {what}", "a file that TimeGateState.save wrote", "make the state anew")
