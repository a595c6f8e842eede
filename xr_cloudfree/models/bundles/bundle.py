"""Bundles: learned models as folders with ``spec.json``, ``weights.safetensors`` and ``README.md``.

No other file is read. The files may come from untrusted sources, so they are checked step by step: the text of the
spec, the hash of the weights, their format, and only then are they loaded into a network.
"""

from __future__ import annotations

import hashlib
import os
import uuid
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

from xr_cloudfree.errors import MissingDependencyError, ModelError, OutputError, WeightsError, option
from xr_cloudfree.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

SPEC, WEIGHTS, CARD = "spec.json", "weights.safetensors", "README.md"
FILES = (SPEC, WEIGHTS, CARD)

# A spec is a page of text. Larger files are refused without reading them into memory.
_MAX_SPEC = 2**20
_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
# First bytes of pickles and of the zip archives in which torch stores them.
_PICKLE_STARTS = {b"\x80": "a pickle", b"PK\x03\x04": "a zip archive, as torch.save() writes it"}
# The header of a safetensors file follows eight bytes that hold its length.
_HEADER = slice(8, 9)


def read_spec(folder: Path) -> ModelSpec:
    """Return the spec of a bundle, without torch and without reading the weights.

    Parameters
    ----------
    folder : Path
        The bundle.

    Raises
    ------
    WeightsError
        If there is no spec, or it does not describe a learned model.
    """
    path = _find(folder, SPEC)
    if path.stat().st_size > _MAX_SPEC:
        _refuse(f"{path} has {path.stat().st_size} bytes", "a spec of at most a mebibyte", _again(folder))
    try:
        spec = ModelSpec.from_json(_read(path).decode())
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path} is not text: {error}", "a JSON object in UTF-8", _again(folder)) from error
    except ModelError as error:
        raise WeightsError(
            f"{path}: {error.found}", error.needed, f"{error.remedy} in {SPEC}, or {_again(folder)}"
        ) from error
    for name, value in (("architecture", spec.architecture), ("weights_sha256", spec.weights_sha256)):
        if value is None:
            _refuse(
                f"{path} has no {name}", "a spec of a learned model", f'"{name}": "…" in {SPEC}, or {_again(folder)}'
            )
    if spec.units != "reflectance":
        _refuse(f"{path}: units is {spec.units!r}", "'reflectance', which networks work in", '"units": "reflectance"')
    return spec


def verify(folder: Path, spec: ModelSpec) -> bytes:
    """Return the bytes of the weights after checking their hash, without torch.

    Raises
    ------
    WeightsError
        If there are none, or their hash is not the one in the spec.
    """
    path = _find(folder, WEIGHTS)
    data = _read(path)
    for start, what in _PICKLE_STARTS.items():
        if data.startswith(start) and data[_HEADER] != b"{":
            # Unpickling can run arbitrary code, so pickles are refused even if the hash matches.
            _refuse(
                f"{path} is {what}, despite its name",
                "weights in the safetensors format: a pickle can run any program",
                "load it where you trust it, then model.save_pretrained(folder)",
            )
    digest = hashlib.sha256(data).hexdigest()
    if digest != spec.weights_sha256:
        _refuse(
            f"{path} ({len(data)} bytes) has the SHA-256 {digest[:12]}…",
            f"{str(spec.weights_sha256)[:12]}…, as {SPEC} says",
            _again(folder),
        )
    return data


def read_weights(folder: Path, spec: ModelSpec, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the weights of a bundle, on the CPU. 16-bit values are widened to the network's types.

    Parameters
    ----------
    folder : Path
        The bundle.
    spec : ModelSpec
        Its spec, from `read_spec`.
    like : mapping of str to Tensor
        State of the network for which they are: names, shapes and types have to agree, except for floating-point
        values stored in 16 bits.

    Raises
    ------
    WeightsError
        If the file is not the one named in the spec, is damaged, does not fit the network, or contains NaN or
        infinity.
    MissingDependencyError
        If safetensors is not installed.
    """
    path = folder / WEIGHTS
    data = verify(folder, spec)
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load
    except ImportError as error:
        raise missing("safetensors") from error
    try:
        weights: dict[str, Tensor] = load(data)
    # Invalid types and shapes raise built-in errors.
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise WeightsError(
            f"{path} is not a safetensors file: {error}",
            "weights as model.save_pretrained() writes them",
            _again(folder),
        ) from error
    _compare(path, spec, weights, like)
    for name, tensor in weights.items():
        _check_finite(str(path), name, tensor)
    return {name: tensor.to(like[name].dtype) for name, tensor in weights.items()}


def contents(folder: Path, spec: ModelSpec) -> dict[str, bytes]:
    """Return the checked files of a bundle, in the order in which they have to be written.

    Raises
    ------
    WeightsError
        If the weights are not those named in the spec.
    """
    files = {WEIGHTS: verify(folder, spec)}
    if os.path.lexists(folder / CARD):
        files[CARD] = _read(_find(folder, CARD))
    # The spec is last: it makes the bundle valid, and until then an old spec refuses new weights.
    return files | {SPEC: spec.to_json().encode()}


def write(
    folder: Path,
    spec: ModelSpec,
    state: Mapping[str, Tensor],
    card: str,
    *,
    overwrite: bool = False,
    half: bool = False,
) -> ModelSpec:
    """Write a bundle. An existing one is only replaced once the new one is complete.

    Parameters
    ----------
    folder : Path
        Target folder, created if necessary.
    spec : ModelSpec
        The spec; the hash of the weights is added to it.
    state : mapping of str to Tensor
        The network's state.
    card : str
        The model card, Markdown.
    overwrite : bool
        Whether another model's bundle may be replaced. A bundle of the same name always is.
    half : bool
        Store floating-point values in 16 bits: half the size, with a relative error of up to 1/2000.

    Returns
    -------
    ModelSpec
        The spec as written.

    Raises
    ------
    WeightsError
        If a weight is NaN or infinite.
    OutputError
        If the folder holds another model or is not writable.
    MissingDependencyError
        If safetensors is not installed.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise missing("safetensors") from error
    # The format refuses tensors that share memory, so each is copied.
    kept = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in state.items()}
    if half:
        kept = {name: tensor.half() if tensor.is_floating_point() else tensor for name, tensor in kept.items()}
    for name, tensor in kept.items():
        _check_finite(f"the state of {spec.name!r}", name, tensor)
    data = save(kept, {"format": "pt"})
    written = replace(spec, weights_sha256=hashlib.sha256(data).hexdigest())
    files = {WEIGHTS: data, CARD: card.encode(), SPEC: written.to_json().encode()}  # in the order of `contents`
    write_files(folder, files, spec.name, overwrite=overwrite)
    return written


def write_files(folder: Path, contents: Mapping[str, bytes], name: str, *, overwrite: bool) -> None:
    """Write the files of a bundle, all of them or none.

    Parameters
    ----------
    folder : Path
        Target folder.
    contents : mapping of str to bytes
        The files, in the order in which they replace existing ones.
    name : str
        Name of the model.
    overwrite : bool
        Whether another model's files may be replaced.

    Raises
    ------
    OutputError
        If they may not be replaced or cannot be written.
    """
    _check_free(folder, name, overwrite)
    drafts = {file: folder / f".{file}.{uuid.uuid4().hex}.tmp" for file in contents}
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for file, draft in drafts.items():
            with draft.open("xb") as out:
                out.write(contents[file])
                out.flush()
                os.fsync(out.fileno())
        for file, draft in drafts.items():
            draft.replace(folder / file)
    except OSError as error:
        raise OutputError(
            f"the model {name!r} cannot be written into {folder}: {error}",
            "a folder that can be written to, with room for the weights",
            "model.save_pretrained(another_folder)",
        ) from error
    finally:
        for draft in drafts.values():
            with suppress(OSError):
                draft.unlink()


def missing(package: str) -> MissingDependencyError:
    """Return the error for a missing package of learned models."""
    return MissingDependencyError(
        f"{package} is not installed", "the packages of learned models", "pip install 'xr-cloudfree[torch]'"
    )


def _again(folder: Path) -> str:
    """Return the remedy for damaged files."""
    if folder.parent.name == "snapshots":  # a hub's cache
        return f"rm -r {folder.parents[1]}, and they are downloaded again; if that does not help, ask their owner"
    return (
        f"copy {SPEC} and {WEIGHTS} again from their source (they belong together), or write them anew with "
        "model.save_pretrained(folder)"
    )


def _refuse(found: str, needed: str, remedy: str) -> NoReturn:
    raise WeightsError(found, needed, remedy)


def _find(folder: Path, name: str) -> Path:
    """Return the path of a file that is really inside the bundle."""
    path = folder / name
    if not os.path.isdir(folder):
        what = "is a file" if os.path.exists(folder) else "does not exist"
        _refuse(
            f"{folder} {what}",
            f"a folder with {SPEC} and {WEIGHTS}",
            option("model='local-dir:PATH'") + " with the folder that save_pretrained wrote",
        )
    if not os.path.lexists(path):
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in _PICKLES)
        if name == WEIGHTS and pickles:
            _refuse(
                f"{folder} has no {WEIGHTS}, but {pickles[0]}, a pickle",
                "weights in the safetensors format: a pickle can run any program",
                "load it where you trust it, then model.save_pretrained(folder)",
            )
        _refuse(f"{folder} has no {name}", f"a folder with {SPEC} and {WEIGHTS}", _again(folder))
    real = Path(os.path.realpath(path))
    roots = [Path(os.path.realpath(folder))]
    if folder.parent.name == "snapshots":
        # The hub's cache stores files once per repository or once for all, and links to them from each revision:
        # cache/repository/snapshots/revision.
        roots += [Path(os.path.realpath(above / "blobs")) for above in folder.parents[1:3]]
    if not any(real.is_relative_to(root) for root in roots):
        _refuse(f"{path} is a link to {real}", "a file in the folder itself", f"cp --dereference {real} {path}")
    if not os.path.isfile(real):
        _refuse(f"{path} is not a file", f"a folder with the files {SPEC} and {WEIGHTS}", _again(folder))
    return path


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except OSError as error:
        raise WeightsError(
            f"{path} cannot be read: {error}", "a file that you may read", f"chmod u+r {path}"
        ) from error


def _compare(path: Path, spec: ModelSpec, weights: Mapping[str, Tensor], like: Mapping[str, Tensor]) -> None:
    network = f"the architecture {spec.architecture!r} with the config of {SPEC}"
    for which, names in (("lacks", like.keys() - weights.keys()), ("has besides", weights.keys() - like.keys())):
        if names:
            shown = ", ".join(map(repr, sorted(names)[:3])) + (" …" if len(names) > 3 else "")
            _refuse(
                f"{path} {which} {len(names)} of the tensors: {shown}",
                f"the {len(like)} of {network}",
                _again(path.parent),
            )
    for name, expected in like.items():
        tensor = weights[name]
        widened = str(tensor.dtype) == "torch.float16" and expected.is_floating_point()
        if tensor.shape != expected.shape or (tensor.dtype != expected.dtype and not widened):
            _refuse(
                f"{path}: {name!r} has shape {tuple(tensor.shape)} and type {tensor.dtype}",
                f"shape {tuple(expected.shape)} and type {expected.dtype}, those of {network}",
                _again(path.parent),
            )


def _check_finite(where: str, name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        _refuse(
            f"{where}: {name!r} holds NaN or infinity",
            "finite weights: a training that diverged has none",
            "an earlier checkpoint, saved with model.save_pretrained(folder)",
        )


def _check_free(folder: Path, name: str, overwrite: bool) -> None:
    if overwrite or not any(os.path.lexists(folder / file) for file in FILES):
        return
    try:
        existing = read_spec(folder).name
    except WeightsError:
        existing = None
    if existing != name:
        raise OutputError(
            f"{folder} holds " + (f"the model {existing!r}" if existing else "files that are not a readable model"),
            f"an empty folder, or one of the model {name!r}",
            "another folder, or save_pretrained(folder, overwrite=True)",
        )
