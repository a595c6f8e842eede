"""Learned models: small picklable objects whose network each process loads once.

torch is imported when the model predicts, not before.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.errors import ModelError, OptionError, SizeError, WeightsError
from xr_cloudfree.models.bundles import bundle, hub
from xr_cloudfree.models.networks import architectures
from xr_cloudfree.models.networks.inputs import NetworkInput
from xr_cloudfree.models.pretrained import runtime
from xr_cloudfree.models.protocol import BaseModel, Observations, Prediction, dominant
from xr_cloudfree.models.spec import ModelSpec

if TYPE_CHECKING:
    import torch

    from xr_cloudfree.models.networks.network import Network

Precision = Literal["fp32", "bf16"]
T = TypeVar("T")
R = TypeVar("R")


class BundleLocation(Protocol):
    """Location of a bundle. It is sent with the model, so that each process finds its own copy."""

    def folder(self) -> Path:
        """Return the bundle's folder on this machine."""
        ...


class PretrainedModel(BaseModel):
    """A learned model, as returned by `xr_cloudfree.from_pretrained`.

    It holds the spec and the location of the weights, not the weights: it pickles to less than two kilobytes, and equal
    weights get equal names in a dask graph. Several threads may call `predict` at once.

    Parameters
    ----------
    source : BundleLocation
        Location of the bundle.
    spec : ModelSpec
        Its spec.
    device : str, optional
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"``. By default CUDA if it is available when the model runs.
    precision : {"fp32", "bf16"}
        Numeric precision of the network.

    Raises
    ------
    OptionError
        If an option has an invalid value.
    """

    uses_gpu = True

    def __init__(
        self, source: BundleLocation, spec: ModelSpec, device: str | None = None, precision: Precision = "fp32"
    ) -> None:
        if device is not None and not (isinstance(device, str) and re.fullmatch(r"cpu|cuda(:\d+)?", device)):
            raise OptionError(f"device is {device!r}", "'cpu', 'cuda', 'cuda:1' or None", "device='cpu'")
        if precision not in get_args(Precision):
            raise OptionError(f"precision is {precision!r}", f"one of {get_args(Precision)}", "precision='fp32'")
        self.source, self.spec, self.device, self.precision = source, spec, device, precision

    def __repr__(self) -> str:
        return f"<PretrainedModel {self.spec.name!r} from {self.source}, weights {str(self.spec.weights_sha256)[:12]}>"

    def __dask_tokenize__(self) -> tuple[Any, ...]:
        # The spec holds the hash of the weights; their location does not matter.
        return type(self).__name__, self.spec.to_json(), self.device, self.precision

    def check_installed(self) -> None:
        """Raise, before anything is computed, if the model cannot run in this environment.

        Raises
        ------
        WeightsError
            If there is no such architecture.
        MissingDependencyError
            If torch, or another package that the network needs, is not installed.
        """
        if self.spec.architecture not in architectures.names():
            raise WeightsError(
                f"the model {self.spec.name!r} ({self.source}) has the architecture {self.spec.architecture!r} in "
                f"its {bundle.SPEC}",
                f"one of {', '.join(architectures.names())}",
                "pip install --upgrade xr-cloudfree",
            )
        if not runtime.installed():
            raise bundle.missing("torch")
        architectures.check_installed(self.spec.architecture)

    @property
    def tiles_at_once(self) -> int:
        """Number of tiles to predict together where nothing else runs: whole batches, enough for torch's threads."""
        try:
            import torch
        except ImportError as error:
            raise bundle.missing("torch") from error
        threads: int = torch.get_num_threads()
        return self.spec.batch * max(1, threads // self.spec.batch)

    @property
    def overlaps(self) -> bool:
        """Whether the next tiles are cut while `predict` runs: on a GPU, in whose memory tiles are prepared."""
        return runtime.prepares_on(runtime.target_device(self.device))

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """Return one prediction per tile.

        Parameters
        ----------
        tiles : sequence of Observations
            Tiles in reflectance.

        Raises
        ------
        WeightsError
            If the weights are damaged or do not fit the network.
        SizeError
            If a single tile does not fit into the GPU's memory.
        ModelError
            If this process was forked from one that uses the GPU.
        """
        return runtime.outside_fork(self._predict, tiles)

    def _predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        network, device = self._network()
        import torch

        order = [self._order(obs) for obs in tiles]
        arranged = [_take_bands(obs, bands) for obs, bands in zip(tiles, order, strict=True)]
        most, on = self.spec.max_dates, device if runtime.prepares_on(device) else None
        answers: dict[int, Prediction] = {}
        threads = min(len(arranged), torch.get_num_threads())  # dask workers limit this number
        with _mapped(lambda obs: network.make_input(obs, most, on), arranged, threads) as inputs:

            def seen() -> Iterator[tuple[tuple[int, int], tuple[int, NetworkInput]]]:
                for i, (obs, tile) in enumerate(zip(arranged, inputs, strict=True)):
                    if tile.clear.any():
                        yield obs.shape, (i, tile)
                    else:  # without a clear date there is nothing for the network
                        answers[i] = self._unseen(obs, tile)

            for batch in _batches(seen(), self.spec.batch if device.type != "cpu" else 1):
                which, prepared = zip(*batch, strict=True)
                done = self._run(network, device, [arranged[i] for i in which], list(prepared))
                answers.update(zip(which, done, strict=True))
        return [_give_bands(answers[i], bands) for i, bands in enumerate(order)]

    def save_pretrained(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model into a folder, from which ``"local-dir:PATH"`` loads it.

        Parameters
        ----------
        folder : path
            Target folder, created if necessary. Existing files are only replaced once everything is written.
        overwrite : bool
            Whether another model in this folder may be replaced. A model of the same name always is.

        Raises
        ------
        OutputError
            If the folder holds another model or is not writable.
        """
        files = bundle.contents(self.source.folder(), self.spec)
        bundle.write_files(Path(folder), files, self.spec.name, overwrite=overwrite)

    def push_to_hub(self, repo: str, *, token: str | None = None, private: bool | None = None) -> str:
        """Upload the model to the Hugging Face hub, in one commit.

        Parameters
        ----------
        repo : str
            ``"organisation/name"``, created if necessary.
        token : str, optional
            Access token; by default the one stored by ``hf auth login``.
        private : bool, optional
            Whether a new repository is private; by default the organisation's setting.

        Returns
        -------
        str
            Its location, as accepted by `from_pretrained` and ``fill(model=...)``.

        Raises
        ------
        HubError
            If the hub cannot be reached or refuses.
        """
        return hub.push(self.source.folder(), self.spec, repo, token=token, private=private)

    def load(self, threads: int | None = None) -> None:
        """Load the network into this process before it is needed.

        Parameters
        ----------
        threads : int, optional
            Threads for torch on the CPU; its own choice by default.
        """
        if threads is not None:
            import torch

            torch.set_num_threads(threads)
        runtime.outside_fork(self._network)

    def pixel_bytes(self, dates: int, bands: int) -> int:
        """Return the bytes of working memory per pixel of a tile: about a third more than measured."""
        each, of_band, rest = architectures.architecture(self.spec.architecture).working_bytes
        return each * dates * bands + of_band * bands + rest

    def _order(self, obs: Observations) -> NDArray[np.intp] | None:
        """Return the indices of the network's bands among the tile's, or None if it takes any bands."""
        if self.spec.bands is None:
            return None
        common_names = obs.common_names or (None,) * obs.n_bands
        self.spec.check_bands([f"band{i + 1}" for i in range(obs.n_bands)], common_names)
        return np.array([common_names.index(band) for band in self.spec.bands])

    def _network(self) -> tuple[Network, torch.device]:
        return runtime.network(self.source.folder, self.spec, self.device)

    def _run(
        self, network: Network, device: torch.device, tiles: list[Observations], prepared: list[NetworkInput]
    ) -> list[Prediction]:
        """Return the predictions of tiles of equal size, in halves if they do not fit into memory together."""
        import torch

        try:
            return self._forward(network, device, tiles, prepared)
        except torch.OutOfMemoryError as error:
            if len(tiles) == 1:
                dates, bands, y, x = prepared[0].bands.shape
                raise SizeError(
                    f"a single tile of {dates} dates, {bands} bands and {y} x {x} pixels does not fit into the memory "
                    f"of {device}: {str(error).splitlines()[0]}",
                    "a larger device, or a smaller tile",
                    "from_pretrained(..., device='cpu'), precision='bf16', or fewer dates: fill(window=60)",
                ) from error
        # Outside the except block the error no longer holds its tensors.
        torch.cuda.empty_cache()
        half = len(tiles) // 2
        parts = (slice(None, half), slice(half, None))
        return [done for part in parts for done in self._run(network, device, tiles[part], prepared[part])]

    def _forward(
        self, network: Network, device: torch.device, tiles: list[Observations], prepared: list[NetworkInput]
    ) -> list[Prediction]:
        import torch

        from xr_cloudfree.models.networks.batch import Batch

        batch = Batch.of(prepared).to(device)
        with runtime.forward_pass(device, self.precision):
            output = network(batch)
            parts = {name: part for name, part in vars(output).items() if part is not None}
            # A network may predict pixels that no date shows; they are not given out.
            parts["known"] = parts["known"] & (batch.known() | (batch.target_clear > 0))
            answer = {
                name: np.asarray(part.cpu() if part.dtype == torch.bool else part.float().cpu())
                for name, part in parts.items()
            }
        lacking = {"reflectance", "known", *({"uncertainty", "gate"} & set(self.spec.layers))} - answer.keys()
        if lacking or answer["reflectance"].shape != tuple(batch.target.shape):
            shapes = {name: part.shape for name, part in answer.items()}
            raise ModelError(
                f"the network {self.spec.architecture!r} returned {shapes}",
                f"reflectance of shape {tuple(batch.target.shape)}, known, and the layers {self.spec.layers}",
                "correct the network's forward(batch), or `layers` in its spec",
            )
        return [
            self._prediction(obs, tile, {name: part[i] for name, part in answer.items()})
            for i, (obs, tile) in enumerate(zip(tiles, prepared, strict=True))
        ]

    def _prediction(self, obs: Observations, tile: NetworkInput, answer: dict[str, NDArray[Any]]) -> Prediction:
        """Return the network's output for one tile as a prediction."""
        layers = self.spec.layers
        bands = answer["reflectance"][: obs.n_bands]
        known = answer["known"][0] & np.isfinite(bands).all(axis=0)
        gate = _on_dates(answer["gate"][:, 0], obs, tile) if "gate" in layers else None
        sigma = np.where(known, answer["uncertainty"][: obs.n_bands], 0) if "uncertainty" in layers else None
        source = None
        if "source_time" in layers and gate is not None:
            source = dominant(gate.reshape(obs.n_dates, -1)).reshape(obs.shape)
        elif "source_time" in layers and tile.source is not None:
            source = np.append(_dates(obs, tile), -1)[tile.source].astype(np.int16)
        return Prediction(np.where(known, bands, np.float32(0)), known, source, sigma, gate)

    def _unseen(self, obs: Observations, tile: NetworkInput) -> Prediction:
        """Return the prediction where no other date is clear: the target date's own clear pixels."""
        known = tile.target_clear > 0
        closed = np.zeros((len(tile.day_offset), 1, *obs.shape), np.float32)
        answer = {
            "reflectance": tile.target,
            "known": known,
            "uncertainty": np.zeros_like(tile.target),
            "gate": closed,
        }
        return self._prediction(obs, tile, answer)


@contextmanager
def _mapped(function: Callable[[T], R], items: Sequence[T], threads: int) -> Iterator[Iterable[R]]:
    """Give the results of a function in the order of the items; compiled code, NumPy and torch release the GIL."""
    if threads > 1:
        with ThreadPoolExecutor(threads) as pool:
            yield pool.map(function, items)
    else:
        yield map(function, items)


def _batches(tiles: Iterable[tuple[tuple[int, int], T]], batch: int) -> Iterator[list[T]]:
    """Yield batches of up to `batch` tiles of equal size, each as soon as it is complete.

    On a CPU batches of one are used: larger ones are no faster, and the last digits would depend on the other tiles.

    Parameters
    ----------
    tiles : iterable of (tuple of int, tile)
        Rows and columns of each tile, and the tile.
    batch : int
        Maximum number of tiles in a batch.
    """
    waiting: dict[tuple[int, int], list[T]] = {}
    for size, tile in tiles:
        waiting.setdefault(size, []).append(tile)
        if len(waiting[size]) == batch:
            yield waiting.pop(size)
    yield from waiting.values()


def _take_bands(obs: Observations, order: NDArray[np.intp] | None) -> Observations:
    """Return the tile with its bands in the network's order."""
    if order is None:
        return obs
    return replace(obs, bands=obs.bands[:, order], common_names=tuple(obs.common_names[i] for i in order))


def _give_bands(answer: Prediction, order: NDArray[np.intp] | None) -> Prediction:
    """Return the prediction with its bands in the tile's order."""
    if order is None:
        return answer
    back = np.argsort(order)
    sigma = answer.uncertainty
    return replace(answer, bands=answer.bands[back], uncertainty=None if sigma is None else sigma[back])


def _dates(obs: Observations, tile: NetworkInput) -> NDArray[np.intp]:
    """Return the indices of the input's dates among those of the tile, shape (time,)."""
    return np.searchsorted(obs.day_offset.astype(np.float32), tile.day_offset)


def _on_dates(gate: NDArray[np.float32], obs: Observations, tile: NetworkInput) -> NDArray[np.float32]:
    """Return weights of the input's dates as weights of all dates of the tile."""
    out = np.zeros((obs.n_dates, *obs.shape), np.float32)
    np.add.at(out, _dates(obs, tile)[tile.date_valid], gate[: len(tile.day_offset)][tile.date_valid])
    if obs.target >= 0:
        # The target's own pixels are not a date of the input; their weight is 1 minus the sum of the others.
        out[obs.target] = np.where(obs.clear[obs.target], np.maximum(1 - out.sum(axis=0), 0), 0)
    return out
