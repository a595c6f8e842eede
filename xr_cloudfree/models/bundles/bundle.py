"""A learned model as a folder: ``spec.json``, ``weights.safetensors`` and ``README.md``, and nothing else is read.

The files may come from anywhere, so they are looked at in an order that trusts nothing: the spec's text, then the hash
of the weights, then their form, and only then are they given to a network.
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

from xr_cloudfree.errors import MissingDependencyError, ModelError, OutputError, WeightsError
from xr_cloudfree.models.spec import ModelSpec

if TYPE_CHECKING:
    from torch import Tensor

SPEC, WEIGHTS, CARD = "spec.json", "weights.safetensors", "README.md"
FILES = (SPEC, WEIGHTS, CARD)

# A spec is a page of text. What is larger is none, and is not read into memory.
_MAX_SPEC = 2**20
_PICKLES = (".pt", ".pth", ".ckpt", ".bin", ".pkl", ".pickle")
# What pickles, and the zip archives that torch keeps them in, begin with.
_PICKLE_STARTS = {b"\x80": "a pickle", b"PK\x03\x04": "a zip archive, as torch.save() writes it"}
# Eight bytes of length, which may be any, precede the header of a safetensors file.
_HEADER = slice(8, 9)


def read_spec(folder: Path) -> ModelSpec:
    """The spec of a bundle; needs no torch, and does not look at the weights.

    Parameters
    ----------
    folder : Path
        The bundle.

    Raises
    ------
    WeightsError
        If there is no spec, or one that does not describe a learned model.
    """
    path = _find(folder, SPEC)
    if path.stat().st_size > _MAX_SPEC:
        _refuse(f"{path} has {path.stat().st_size} bytes", "a spec of at most a mebibyte", _again(folder))
    try:
        spec = ModelSpec.from_json(_read(path).decode())
    except UnicodeDecodeError as error:
        raise WeightsError(f"{path} is no text: {error}", "an object of JSON in UTF-8", _again(folder)) from error
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
    """The bytes of the weights, if they are those that the spec names; needs no torch.

    Raises
    ------
    WeightsError
        If there are none, or others.
    """
    path = _find(folder, WEIGHTS)
    data = _read(path)
    for start, what in _PICKLE_STARTS.items():
        if data.startswith(start) and data[_HEADER] != b"{":
            # Unpickling runs what the file says: it is refused even if the spec vouches for it.
            _refuse(
                f"{path} is {what}, whatever its name says",
                "weights in the form of safetensors: a pickle can run any program",
                "load it where you trust it, then model.save_pretrained(folder)",
            )
    found = hashlib.sha256(data).hexdigest()
    if found != spec.weights_sha256:
        _refuse(
            f"{path} ({len(data)} bytes) has the SHA-256 {found[:12]}…",
            f"{str(spec.weights_sha256)[:12]}…, as {SPEC} says",
            _again(folder),
        )
    return data


def read_weights(folder: Path, spec: ModelSpec, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The weights of a bundle, on the CPU. What was kept in 16 bits is widened to the network's numbers.

    Parameters
    ----------
    folder : Path
        The bundle.
    spec : ModelSpec
        Its spec, as it was read before.
    like : mapping of str to Tensor
        The state of the network that they are for: names, shapes and types have to be the same, but for the width of
        floating-point numbers that were kept in 16 bits.

    Raises
    ------
    WeightsError
        If the file is not the one that the spec names, is damaged, does not fit the network, or holds NaN or
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
    # Types and shapes that no tensor can have surface as built-in errors.
    except (SafetensorError, KeyError, ValueError, TypeError, RuntimeError, AssertionError) as error:
        raise WeightsError(
            f"{path} is no file of safetensors: {error}",
            "weights as model.save_pretrained() writes them",
            _again(folder),
        ) from error
    _compare(path, spec, weights, like)
    for name, tensor in weights.items():
        _check_finite(str(path), name, tensor)
    return {name: tensor.to(like[name].dtype) for name, tensor in weights.items()}


def contents(folder: Path, spec: ModelSpec) -> dict[str, bytes]:
    """The files of a bundle, checked, in the order in which they are to be written.

    Raises
    ------
    WeightsError
        If the weights are not those that the spec names.
    """
    found = {WEIGHTS: verify(folder, spec)}
    if os.path.lexists(folder / CARD):
        found[CARD] = _read(_find(folder, CARD))
    # The spec comes last: with it a bundle is valid, and until then an old spec refuses new weights.
    return found | {SPEC: spec.to_json().encode()}


def write(
    folder: Path,
    spec: ModelSpec,
    state: Mapping[str, Tensor],
    card: str,
    *,
    overwrite: bool = False,
    half: bool = False,
) -> ModelSpec:
    """Write a bundle. What was there stays as it was until the new one is complete.

    Parameters
    ----------
    folder : Path
        Where to; it is made if it is not there.
    spec : ModelSpec
        The spec; the hash of the weights is put into it.
    state : mapping of str to Tensor
        The network's state.
    card : str
        The model card, Markdown.
    overwrite : bool
        Whether another model's bundle may be replaced. One of the same name always is.
    half : bool
        Keep floating-point numbers in 16 bits: half the size, and weights that are exact to a 2000th.

    Returns
    -------
    ModelSpec
        The spec as it was written.

    Raises
    ------
    WeightsError
        If a weight is NaN or infinite.
    OutputError
        If there is something else, or it cannot be written.
    MissingDependencyError
        If safetensors is not installed.
    """
    try:
        from safetensors.torch import save
    except ImportError as error:
        raise missing("safetensors") from error
    # Tensors that share memory are refused by the format; each gets its own.
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
        Where to.
    contents : mapping of str to bytes
        The files, in the order in which they replace those that are there.
    name : str
        Name of the model.
    overwrite : bool
        Whether another model's files may be replaced.

    Raises
    ------
    OutputError
        If they may not, or cannot be written.
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
    """The error for a learned model without the packages that it needs."""
    return MissingDependencyError(
        f"{package} is not installed", "the packages of learned models", "pip install 'xr-cloudfree[torch]'"
    )


def _again(folder: Path) -> str:
    """What to do with files that are damaged."""
    if folder.parent.name == "snapshots":  # a hub's cache
        return f"rm -r {folder.parents[1]}, and they are fetched again; if that does not help, ask their owner"
    return (
        f"copy {SPEC} and {WEIGHTS} again from where they came (they belong together), or write them anew with "
        "model.save_pretrained(folder)"
    )


def _refuse(found: str, needed: str, remedy: str) -> NoReturn:
    raise WeightsError(found, needed, remedy)


def _find(folder: Path, name: str) -> Path:
    """A file of a bundle that really lies in it."""
    path = folder / name
    if not os.path.isdir(folder):
        what = "is a file" if os.path.exists(folder) else "does not exist"
        _refuse(
            f"{folder} {what}",
            f"a folder with {SPEC} and {WEIGHTS}",
            "model='local-dir:PATH' with the folder that save_pretrained wrote",
        )
    if not os.path.lexists(path):
        pickles = sorted(p.name for p in folder.iterdir() if p.suffix.lower() in _PICKLES)
        if name == WEIGHTS and pickles:
            _refuse(
                f"{folder} has no {WEIGHTS}, but {pickles[0]}, a pickle",
                "weights in the form of safetensors: a pickle can run any program",
                "load it where you trust it, then model.save_pretrained(folder)",
            )
        _refuse(f"{folder} has no {name}", f"a folder with {SPEC} and {WEIGHTS}", _again(folder))
    real = Path(os.path.realpath(path))
    roots = [Path(os.path.realpath(folder))]
    if folder.parent.name == "snapshots":
        # The hub's cache keeps the files of a repository, or those of all, in one place, and links to them from each
        # revision: cache/repository/snapshots/revision.
        roots += [Path(os.path.realpath(above / "blobs")) for above in folder.parents[1:3]]
    if not any(real.is_relative_to(root) for root in roots):
        _refuse(
            f"{path} is a link to {real}", "a file that lies in the folder itself", f"cp --dereference {real} {path}"
        )
    if not os.path.isfile(real):
        _refuse(f"{path} is no file", f"a folder with the files {SPEC} and {WEIGHTS}", _again(folder))
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
        found = weights[name]
        widened = str(found.dtype) == "torch.float16" and expected.is_floating_point()
        if found.shape != expected.shape or (found.dtype != expected.dtype and not widened):
            _refuse(
                f"{path}: {name!r} has shape {tuple(found.shape)} and type {found.dtype}",
                f"shape {tuple(expected.shape)} and type {expected.dtype}, those of {network}",
                _again(path.parent),
            )


def _check_finite(where: str, name: str, tensor: Tensor) -> None:
    if tensor.is_floating_point() and not bool(tensor.isfinite().all()):
        _refuse(
            f"{where}: {name!r} holds NaN or infinity",
            "finite weights: a training that diverged gives none",
            "an earlier checkpoint, saved with model.save_pretrained(folder)",
        )


def _check_free(folder: Path, name: str, overwrite: bool) -> None:
    if overwrite or not any(os.path.lexists(folder / file) for file in FILES):
        return
    try:
        there = read_spec(folder).name
    except WeightsError:
        there = None
    if there != name:
        raise OutputError(
            f"{folder} holds " + (f"the model {there!r}" if there else "files that are no readable model"),
            f"an empty folder, or one of the model {name!r}",
            "another folder, or save_pretrained(folder, overwrite=True)",
        )
