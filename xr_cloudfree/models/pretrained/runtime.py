"""Networks in the current process: loading and caching, devices, forks, and numeric precision.

torch is imported when a network is loaded, not before.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from xr_cloudfree.errors import MissingDependencyError, ModelError, OptionError, WeightsError
from xr_cloudfree.models.bundles import bundle
from xr_cloudfree.models.networks import architectures
from xr_cloudfree.models.spec import ModelSpec

if TYPE_CHECKING:
    import torch

    from xr_cloudfree.models.networks.network import Network

R = TypeVar("R")

# Networks that a process keeps; comparisons of more models load again.
_KEPT = 4
_networks: dict[tuple[Any, ...], Network] = {}
_loading = threading.Lock()
# One forward pass at a time on each GPU: threads would only share its memory.
_on_gpu: dict[torch.device, threading.Lock] = {}
_forked = False
# Number of forward passes running on the CPU, and torch's matmul precision before the first of them.
_passes, _precision_before, _counting = 0, "highest", threading.Lock()


def _after_fork() -> None:
    """Reset a forked child: locks held by the parent's threads would never be released in it."""
    global _forked, _loading, _passes, _counting
    _forked, _loading, _passes, _counting = True, threading.Lock(), 0, threading.Lock()
    _on_gpu.clear()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


def installed() -> bool:
    """Return whether the packages that learned models need are installed; nothing is imported to find out."""
    return find_spec("torch") is not None and find_spec("safetensors") is not None


def outside_fork(function: Callable[..., R], *arguments: Any) -> R:
    """Return the result of a function that uses torch; in the main thread of a forked child, run it in a new thread.

    The main thread of the child is a copy of one for which OpenMP had started worker threads. Those were not copied,
    and OpenMP would wait for them forever. A new thread gets workers of its own, as many as torch had, so the result is
    the same as in the parent.
    """
    if not _forked or threading.current_thread() is not threading.main_thread():
        return function(*arguments)
    with ThreadPoolExecutor(1, thread_name_prefix="cloudfree-torch") as pool:
        return pool.submit(function, *arguments).result()


def target_device(device: str | None) -> torch.device:
    """Return the device on which a network is to run; None means CUDA if it is available.

    Raises
    ------
    MissingDependencyError
        If torch is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise bundle.missing("torch") from error
    return torch.device(device or ("cuda" if torch.cuda.is_available() else "cpu"))


def network(folder: Callable[[], Path], spec: ModelSpec, device: str | None) -> tuple[Network, torch.device]:
    """Return the network of a bundle and the device on which it runs; each process loads it once.

    Parameters
    ----------
    folder : callable
        Returns the folder of the bundle, if it has to be loaded.
    spec : ModelSpec
        Spec of the bundle.
    device : str or None
        Requested device; None means CUDA if it is available.

    Raises
    ------
    MissingDependencyError
        If torch or another package is not installed.
    OptionError
        If the device does not exist.
    ModelError
        If the process was forked from one that uses the GPU.
    WeightsError
        If the weights are damaged or do not fit the network.
    """
    target = target_device(device)
    import torch

    if target.type == "cuda" and (target.index or 0) >= torch.cuda.device_count():
        raise OptionError(
            f"device is {device!r}, and torch finds {torch.cuda.device_count()} CUDA devices here",
            "an existing device",
            "device='cpu', or device=None for CUDA if it is available",
        )
    if target.type == "cuda" and torch.cuda._is_in_bad_fork():  # type: ignore[no-untyped-call,unused-ignore]
        raise ModelError(
            f"process {os.getpid()} was forked from one that had used CUDA, which cannot be used in it",
            "a process that was not forked, or a model on the CPU",
            "multiprocessing.get_context('spawn'), or model=xr_cloudfree.from_pretrained(..., device='cpu')",
        )
    key = (spec.weights_sha256, spec.architecture, repr(spec.config), target)
    with _loading:
        if key not in _networks:
            loaded = _load(folder(), spec).to(target)
            while len(_networks) >= _KEPT:
                del _networks[next(iter(_networks))]
            _networks[key] = loaded
        return _networks[key], target


def prepares_on(device: torch.device) -> bool:
    """Return whether the input of a network is computed on its device; compiled code is faster on a processor."""
    return str(device.type) != "cpu"


@contextmanager
def forward_pass(device: torch.device, precision: str) -> Iterator[None]:
    """Set up torch for inference: exclusive use of a GPU, or full precision on a CPU, without gradients.

    Parameters
    ----------
    device : device
        Device of the network.
    precision : {"fp32", "bf16"}
        Numeric precision of the network.
    """
    import torch

    with (
        _on_gpu.setdefault(device, threading.Lock()) if device.type == "cuda" else _full_precision(),
        torch.inference_mode(),
        torch.autocast(device.type, torch.bfloat16, enabled=precision == "bf16"),
    ):
        yield


@contextmanager
def _full_precision() -> Iterator[None]:
    """Multiply float32 in float32: other packages may have set torch to use bfloat16 for it in the whole process."""
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


def _load(folder: Path, spec: ModelSpec) -> Network:
    """Return the network of a bundle with its weights, ready for inference."""
    import torch

    try:
        # Initial weights are random and then replaced; the user's random state is not affected.
        with torch.random.fork_rng(devices=[]):
            network = architectures.build(spec)
    except MissingDependencyError:
        raise
    except Exception as error:  # the config comes from a file, and the constructor may fail on it in any way
        found, needed = (error.found, error.needed) if isinstance(error, ModelError) else (str(error), "")
        raise WeightsError(
            f"{folder / bundle.SPEC}: the config {dict(spec.config)} does not make a network: {found}",
            needed or f"a config that the architecture {spec.architecture!r} takes",
            "model.save_pretrained(folder) anew, or pip install --upgrade xr-cloudfree",
        ) from error
    network.load_state_dict(bundle.read_weights(folder, spec, network.state_dict()))
    network.eval().requires_grad_(False)
    return network
