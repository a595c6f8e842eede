"""A learned model as the engine sees it: a small object that travels, and a network that each process loads once.

torch is imported when the model predicts, not before.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeVar, get_args

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.errors import MissingDependencyError, ModelError, OptionError, SizeError, WeightsError
from xr_cloudfree.models.bundles import bundle, hub
from xr_cloudfree.models.networks import architectures
from xr_cloudfree.models.networks.inputs import NetworkInput
from xr_cloudfree.models.protocol import BaseModel, Observations, Prediction, dominant
from xr_cloudfree.models.spec import ModelSpec

if TYPE_CHECKING:
    import torch

    from xr_cloudfree.models.networks.network import Network

Precision = Literal["fp32", "bf16"]
R = TypeVar("R")

# Networks that a process keeps; whoever compares more loads again.
_KEPT = 4
_networks: dict[tuple[Any, ...], Network] = {}
_loading = threading.Lock()
# One forward pass at a time on each GPU: threads would only share its memory.
_on_gpu: dict[torch.device, threading.Lock] = {}
_forked = False
# Forward passes under way on the CPU, and the precision of torch's products before the first of them.
_passes, _precision_before, _counting = 0, "highest", threading.Lock()


def _after_fork() -> None:
    """Set up a forked child: locks that threads of the parent held would never be released in it."""
    global _forked, _loading, _passes, _counting
    _forked, _loading, _passes, _counting = True, threading.Lock(), 0, threading.Lock()
    _on_gpu.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@contextmanager
def _full_precision() -> Iterator[None]:
    """Multiply float32 in float32: other packages let torch use bfloat16 in the whole process where the CPU can."""
    global _passes, _precision_before
    import torch

    with _counting:
        if _passes == 0:
            _precision_before = torch.get_float32_matmul_precision()
            torch.set_float32_matmul_precision("highest")
        _passes += 1
    try:
        yield
    finally:
        with _counting:
            _passes -= 1
            if _passes == 0:
                torch.set_float32_matmul_precision(_precision_before)


class BundleLocation(Protocol):
    """Where a bundle comes from. It travels with the model, so that each process finds its own copy."""

    def folder(self) -> Path:
        """The bundle's folder on this machine."""
        ...


class PretrainedModel(BaseModel):
    """A learned model. `xr_cloudfree.from_pretrained` gives one.

    It holds the spec and where the weights are, not the weights: it pickles to less than two kilobytes, and equal
    weights get equal names in a dask graph. Several threads may predict at once.

    Parameters
    ----------
    source : BundleLocation
        Where the bundle is.
    spec : ModelSpec
        Its spec.
    device : str, optional
        ``"cpu"``, ``"cuda"`` or ``"cuda:1"``. By default CUDA where there is any when the model runs.
    precision : {"fp32", "bf16"}
        In which numbers the network computes.

    Raises
    ------
    OptionError
        If an option has a value that it cannot take.
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
        # The spec holds the hash of the weights; where they lie changes nothing.
        return type(self).__name__, self.spec.to_json(), self.device, self.precision

    def check_installed(self) -> None:
        """Refuse, before anything is computed, a model that cannot run here.

        Raises
        ------
        WeightsError
            If this version of the package has no such network.
        MissingDependencyError
            If torch, or what the network needs besides, is not installed.
        """
        if self.spec.architecture not in architectures.names():
            raise WeightsError(
                f"the model {self.spec.name!r} ({self.source}) has the architecture {self.spec.architecture!r} in "
                f"its {bundle.SPEC}",
                f"one of {', '.join(architectures.names())}",
                "pip install --upgrade xr-cloudfree",
            )
        if not installed():
            raise bundle.missing("torch")
        architectures.check_installed(self.spec.architecture)

    @property
    def tiles_at_once(self) -> int:
        """Tiles to predict together, where nothing else runs: whole batches, and work for each of torch's threads."""
        try:
            import torch
        except ImportError as error:
            raise bundle.missing("torch") from error
        return self.spec.batch * max(1, torch.get_num_threads() // self.spec.batch)

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """One prediction per tile.

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
        return _outside_fork(self._predict, tiles)

    def _predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        network, device = self._network()
        import torch

        order = [self._order(obs) for obs in tiles]
        arranged = [_take_bands(obs, bands) for obs, bands in zip(tiles, order, strict=True)]
        most = self.spec.max_dates
        threads = min(len(arranged), torch.get_num_threads())  # a dask worker has told torch its share of the machine
        if threads > 1:  # compiled code and NumPy let go of the interpreter, so threads are worth it
            with ThreadPoolExecutor(threads) as pool:
                prepared = list(pool.map(lambda obs: network.make_input(obs, most), arranged))
        else:
            prepared = [network.make_input(obs, most) for obs in arranged]
        # Tiles of one size make a batch; those without a clear date need no network.
        sizes: dict[tuple[int, int], list[int]] = {}
        answers: dict[int, Prediction] = {}
        for i, tile in enumerate(prepared):
            if tile.clear.any():
                sizes.setdefault(arranged[i].shape, []).append(i)
            else:
                answers[i] = self._unseen(arranged[i], tile)
        for which in _shares(sizes.values(), self.spec.batch if device.type != "cpu" else 1):
            done = self._run(network, device, [arranged[i] for i in which], [prepared[i] for i in which])
            answers.update(zip(which, done, strict=True))
        return [_give_bands(answers[i], bands) for i, bands in enumerate(order)]

    def save_pretrained(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write the model into a folder, from which ``"local-dir:PATH"`` reads it.

        Parameters
        ----------
        folder : path
            Where to; it is made if it is not there. What was there stays as it was until all is written.
        overwrite : bool
            Whether another model in this folder may be replaced. One of the same name always is.

        Raises
        ------
        OutputError
            If there is another model, or the folder cannot be written to.
        """
        files = bundle.contents(self.source.folder(), self.spec)
        bundle.write_files(Path(folder), files, self.spec.name, overwrite=overwrite)

    def push_to_hub(self, repo: str, *, token: str | None = None, private: bool | None = None) -> str:
        """Send the model to the Hugging Face hub, in one commit.

        Parameters
        ----------
        repo : str
            ``"organisation/name"``; it is made if it is not there.
        token : str, optional
            Access token; by default the one that ``hf auth login`` has kept.
        private : bool, optional
            Whether a repository that is made is private; by default as the organisation has it.

        Returns
        -------
        str
            Where it is now, as `from_pretrained` and ``fill(model=...)`` take it.

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
        _outside_fork(self._network)

    def pixel_bytes(self, dates: int, bands: int) -> int:
        """Return the bytes of working memory per pixel of a tile, as measured with the package's networks."""
        return 20 * dates * bands + 3300

    def _order(self, obs: Observations) -> NDArray[np.intp] | None:
        """Which of the tile's bands the network's are, in its order; None if it takes them as they come."""
        if self.spec.bands is None:
            return None
        common_names = obs.common_names or (None,) * obs.n_bands
        self.spec.check_bands([f"band{i + 1}" for i in range(obs.n_bands)], common_names)
        return np.array([common_names.index(band) for band in self.spec.bands])

    def _network(self) -> tuple[Network, torch.device]:
        """The network of this process, on the device on which it is to run."""
        try:
            import torch
        except ImportError as error:
            raise bundle.missing("torch") from error
        device = torch.device(self.device or ("cuda" if torch.cuda.is_available() else "cpu"))
        if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
            raise OptionError(
                f"device is {self.device!r}, and torch finds {torch.cuda.device_count()} CUDA devices here",
                "one that there is",
                "device='cpu', or device=None for CUDA where there is any",
            )
        if device.type == "cuda" and torch.cuda._is_in_bad_fork():  # type: ignore[no-untyped-call,unused-ignore]
            raise ModelError(
                f"process {os.getpid()} was forked from one that had used CUDA, which cannot be used in it",
                "a process that was not forked, or a model on the CPU",
                "multiprocessing.get_context('spawn'), or model=xr_cloudfree.from_pretrained(..., device='cpu')",
            )
        spec = self.spec
        key = (spec.weights_sha256, spec.architecture, repr(spec.config), device)
        with _loading:
            if key not in _networks:
                made = _load(self.source.folder(), spec).to(device)
                while len(_networks) >= _KEPT:
                    del _networks[next(iter(_networks))]
                _networks[key] = made
            return _networks[key], device

    def _run(
        self, network: Network, device: torch.device, tiles: list[Observations], prepared: list[NetworkInput]
    ) -> list[Prediction]:
        """Predictions of tiles of one size; by halves where all together do not fit into memory."""
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
        # Here the error is gone, and with it the tensors that it held.
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
        with (
            _on_gpu.setdefault(device, threading.Lock()) if device.type == "cuda" else _full_precision(),
            torch.inference_mode(),
            torch.autocast(device.type, torch.bfloat16, enabled=self.precision == "bf16"),
        ):
            output = network(batch)
            answer = {
                name: np.asarray(part.cpu() if part.dtype == torch.bool else part.float().cpu())
                for name, part in vars(output).items()
                if part is not None
            }
        lacking = {"reflectance", "known", *({"uncertainty", "gate"} & set(self.spec.layers))} - answer.keys()
        if lacking or answer["reflectance"].shape != tuple(batch.target.shape):
            shapes = {name: part.shape for name, part in answer.items()}
            raise ModelError(
                f"the network {self.spec.architecture!r} answered {shapes}",
                f"reflectance of shape {tuple(batch.target.shape)}, known, and the layers {self.spec.layers}",
                "mend the network's forward(batch), or `layers` in its spec",
            )
        return [
            self._prediction(obs, tile, {name: part[i] for name, part in answer.items()})
            for i, (obs, tile) in enumerate(zip(tiles, prepared, strict=True))
        ]

    def _prediction(self, obs: Observations, tile: NetworkInput, answer: dict[str, NDArray[Any]]) -> Prediction:
        """What the network answered for one tile, as the engine wants it."""
        layers = self.spec.layers
        bands = answer["reflectance"][: obs.n_bands]
        # A network may predict pixels that no date shows; they are not given out.
        seen = (tile.clear > 0).any(axis=(0, 1)) | (tile.target_clear[0] > 0)
        known = answer["known"][0] & seen & np.isfinite(bands).all(axis=0)
        gate = _on_dates(answer["gate"][:, 0], obs, tile) if "gate" in layers else None
        sigma = np.where(known, answer["uncertainty"][: obs.n_bands], 0) if "uncertainty" in layers else None
        source = None
        if "source_time" in layers and gate is not None:
            source = dominant(gate.reshape(obs.n_dates, -1)).reshape(obs.shape)
        elif "source_time" in layers and tile.source is not None:
            source = np.append(_dates(obs, tile), -1)[tile.source].astype(np.int16)
        return Prediction(np.where(known, bands, np.float32(0)), known, source, sigma, gate)

    def _unseen(self, obs: Observations, tile: NetworkInput) -> Prediction:
        """The answer where no other date is clear: what the target date itself shows, if anything."""
        known = tile.target_clear > 0
        nothing = np.zeros((len(tile.day_offset), 1, *obs.shape), np.float32)
        answer = {
            "reflectance": tile.target,
            "known": known,
            "uncertainty": np.zeros_like(tile.target),
            "gate": nothing,
        }
        return self._prediction(obs, tile, answer)


def _outside_fork(function: Callable[..., R], *arguments: Any) -> R:
    """The answer of a function that uses torch; in a forked child's main thread it runs in a thread of its own.

    That thread was copied from one for which OpenMP had started others. They were not copied, and OpenMP would wait for
    them without end. A new thread gets its own, as many as torch had, so the answer is that of the parent.
    """
    if not _forked or threading.current_thread() is not threading.main_thread():
        return function(*arguments)
    with ThreadPoolExecutor(1, thread_name_prefix="cloudfree-torch") as pool:
        return pool.submit(function, *arguments).result()


def installed() -> bool:
    """Whether what learned models need is installed; nothing is imported to find out."""
    return find_spec("torch") is not None and find_spec("safetensors") is not None


def _load(folder: Path, spec: ModelSpec) -> Network:
    """The network of a bundle with its weights, ready to predict."""
    import torch

    try:
        # Fresh weights are drawn only to be replaced; the user's random numbers go on as if nothing had been.
        with torch.random.fork_rng(devices=[]):
            network = architectures.build(spec)
    except MissingDependencyError:
        raise
    except Exception as error:  # the config comes from a file, and a constructor may fail on it in any way
        found, needed = (error.found, error.needed) if isinstance(error, ModelError) else (str(error), "")
        raise WeightsError(
            f"{folder / bundle.SPEC}: the config {dict(spec.config)} does not make a network: {found}",
            needed or f"a config that the architecture {spec.architecture!r} takes",
            "model.save_pretrained(folder) anew, or pip install --upgrade xr-cloudfree",
        ) from error
    network.load_state_dict(bundle.read_weights(folder, spec, network.state_dict()))
    return network.eval().requires_grad_(False)


def _shares(alike: Iterable[list[int]], batch: int) -> list[list[int]]:
    """What goes through the network together: tiles of one size, so many on a GPU, each by itself on a CPU.

    There a batch is no faster, and in one the last digits depend on who else is in it.
    """
    return [which[i : i + batch] for which in alike for i in range(0, len(which), batch)]


def _take_bands(obs: Observations, order: NDArray[np.intp] | None) -> Observations:
    """The tile with its bands in the network's order."""
    if order is None:
        return obs
    return replace(obs, bands=obs.bands[:, order], common_names=tuple(obs.common_names[i] for i in order))


def _give_bands(answer: Prediction, order: NDArray[np.intp] | None) -> Prediction:
    """The answer with its bands in the tile's order."""
    if order is None:
        return answer
    back = np.argsort(order)
    sigma = answer.uncertainty
    return replace(answer, bands=answer.bands[back], uncertainty=None if sigma is None else sigma[back])


def _dates(obs: Observations, tile: NetworkInput) -> NDArray[np.intp]:
    """The dates that a network was given among all of a tile's, shape (time,)."""
    return np.searchsorted(obs.day_offset.astype(np.float32), tile.day_offset)


def _on_dates(gate: NDArray[np.float32], obs: Observations, tile: NetworkInput) -> NDArray[np.float32]:
    """Weights on the dates that the network was given, as weights on all of the tile's."""
    out = np.zeros((obs.n_dates, *obs.shape), np.float32)
    np.add.at(out, _dates(obs, tile)[tile.date_valid], gate[: len(tile.day_offset)][tile.date_valid])
    if obs.target >= 0:
        # The target's own pixels are no date that a network is given; what the others lack to 1 is theirs.
        out[obs.target] = np.where(tile.target_clear[0] > 0, np.maximum(1 - out.sum(axis=0), 0), 0)
    return out
