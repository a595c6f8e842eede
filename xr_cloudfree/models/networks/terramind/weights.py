"""TerraMind's own weights: found in a cache, or fetched from where IBM and ESA publish them.

Each release is pinned by the SHA-256 of its file. A file is a pickle, so nothing of it is read before its hash is
known to be right, and then only tensors; what the encoder needs is kept as safetensors, and the rest is not. torch is
imported only when there is something to read.
"""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.request import Request, urlopen

from xr_cloudfree.errors import HubError, ModelError, WeightsError, either, option
from xr_cloudfree.models.bundles import bundle, hub

if TYPE_CHECKING:
    from torch import Tensor, nn

STALL = 20.0
"""Seconds within which a download has to get on."""

# What gets on brings so many bytes in that time; one that does not is taken up again, so often in a row.
_LEAST, _TRIES = 2**17, 3
_CHUNK = 2**20
_PARTS = ("encoder.", "encoder_norm.", "encoder_embeddings.untok_sen2l2a@224.", "encoder_embeddings.untok_sen1grd@224.")
_FIRST = "encoder_embeddings.untok_sen2l2a@224.proj.weight"
_SCRATCH = either(
    "cloudfree train terramind fit --config terramind-tiny-scratch --data cube.zarr",
    option("model='terramind'") + ", which need none",
)


@dataclass(frozen=True)
class Release:
    """A published file of weights.

    Parameters
    ----------
    repo, file : str
        Where it is on the hub.
    revision : str
        The commit, or a branch: the hash is what counts.
    sha256 : str
        Its hash, in hexadecimal digits.
    size : int
        Its bytes.
    """

    repo: str
    file: str
    revision: str
    sha256: str
    size: int

    def __str__(self) -> str:
        return f"{self.repo}@{self.revision}, {self.file}, SHA-256 {self.sha256}"


def _release(size: str, revision: str, sha256: str, length: int) -> Release:
    return Release(f"ibm-esa-geospatial/TerraMind-1.0-{size}", f"TerraMind_v1_{size}.pt", revision, sha256, length)


RELEASES = {
    "tiny": _release(
        "tiny",
        "2b5ac0a3ed7dd7e922ccfd595b56607f342df343",
        "e56ea9ebcd4451078b9ca4893d5cd8a89bbee376ae16829c3e7fbbbc76de0eba",
        211_873_402,
    ),
    "small": _release(
        "small",
        "960f7549bfe9d7a08946860042f83badd604c779",
        "755e9cce9483fd61334ef66c79f805406db5151a8b44a685c8fbbe023c684701",
        504_231_662,
    ),
    "base": _release(
        "base",
        "fb96c70d0a5f68dcc44030b89cbfd8ec3fb0c67a",
        "83c3a0938067c83867a46e564443c2fa38383bf4f966d931b11cb025b847d7ec",
        1_518_713_958,
    ),
    "large": _release(
        "large",
        "main",
        "a1c6b567ce6862c7ac07181551add840edce52f652abccfe5f17d23544060f81",
        3_787_890_978,
    ),
}
"""By size. The hashes are those that several projects have published of the files that they downloaded."""


def fetch(size: str) -> Path:
    """The weights of TerraMind's encoder, as a file of safetensors on this machine.

    What was fetched before is used again, if it is still what it was; a file in the hub's own cache is used too. Then
    the hub is asked, and has to answer in time. A download that breaks off goes on where it stopped.

    Parameters
    ----------
    size : str
        ``"tiny"``, ``"small"``, ``"base"`` or ``"large"``.

    Raises
    ------
    HubError
        If they are not here, and the hub cannot be reached or stops in between.
    WeightsError
        If what the hub has, or what is here, is not the release.
    ModelError
        If there is no such size.
    MissingDependencyError
        If ``huggingface_hub`` is not installed.
    """
    if size not in RELEASES:
        raise ModelError(f"there is no TerraMind of size {size!r}", f"one of {', '.join(RELEASES)}", "size: tiny")
    release, library = RELEASES[size], hub.library()
    folder = _folder(library, release)
    kept = folder / f"{size}.safetensors"
    if _is_kept(kept, release):
        return kept
    for revision in (release.revision, "main"):
        path = library.try_to_load_from_cache(release.repo, release.file, revision=revision)
        if isinstance(path, str) and _hash(Path(path)) == release.sha256:
            return _keep(Path(path), kept, release)
    _ask(library, release)
    partial = folder / f"{release.file}.partial"
    _download(library, release, partial)
    _keep(partial, kept, release)
    partial.unlink()
    return kept


def load(encoder: nn.Module, path: Path) -> None:
    """Give an encoder TerraMind's weights.

    Parameters
    ----------
    encoder : Module
        Of `xr_cloudfree.models.networks.terramind.encoder.build_encoder`.
    path : Path
        What `fetch` gave.

    Raises
    ------
    WeightsError
        If a weight is missing, is of another shape, is not finite, or belongs to another size.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        given: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unfit(path, f"cannot be read: {error}") from error
    state = encoder.state_dict()
    learned = {name for name, _ in encoder.named_parameters()}
    if lacking := sorted(learned - given.keys()):
        raise _unfit(path, f"lacks {len(lacking)} of {len(learned)} weights: {lacking[0]!r} …")
    deep = [name for name in sorted(given.keys() - state.keys()) if name.startswith(_PARTS[:2])]
    if deep:
        raise _unfit(path, f"has weights of a larger encoder: {deep[0]!r} …")
    wanted = {name: tensor for name, tensor in given.items() if name in state}
    for name, tensor in wanted.items():
        if tensor.shape != state[name].shape:
            raise _unfit(path, f"{name!r} has shape {tuple(tensor.shape)}, and not {tuple(state[name].shape)}")
        if not tensor.isfinite().all():
            raise _unfit(path, f"{name!r} holds NaN or infinity")
    # What is not learned, such as the places of tokens, is computed and need not be in the file.
    encoder.load_state_dict(state | wanted)


def refuse_alone(repo: str) -> None:
    """Say of one of TerraMind's repositories that it is no model that fills; say nothing of another one.

    Raises
    ------
    WeightsError
        If it is one.
    HubError
        If it is one, is not here, and cannot be reached.
    """
    for size, release in RELEASES.items():
        if repo == release.repo:
            library = hub.library()
            if not _is_kept(_folder(library, release) / f"{size}.safetensors", release):
                _ask(library, release)
            raise WeightsError(
                f"{repo!r} is TerraMind's encoder alone, which makes no image",
                "a model that was fine-tuned from it",
                either(
                    f"cloudfree train terramind fit --config terramind-{size} --data cube.zarr, which fetches it",
                    option("model='terramind'") + ", which was trained from a random start",
                    by="; or ",
                ),
            )


def _folder(library: Any, release: Release) -> Path:
    return Path(library.cached_assets_path("xr_cloudfree", namespace="terramind", subfolder=release.sha256[:16]))


def _ask(library: Any, release: Release) -> None:
    """Ask the hub for what it says of the file: this tells at once whether it is there, and the right one."""
    url = library.hf_hub_url(release.repo, release.file, revision=release.revision)
    try:
        told = hub.in_time(lambda: library.get_hf_file_metadata(url, timeout=hub.PATIENCE))
    except Exception as error:  # those of the hub and of what it fetches with have no base of their own
        raise _unreachable(library, release, hub.text(error)) from error
    length = told.size
    # Of a large file the hub says the SHA-256 before it is fetched.
    announced = str(told.etag or "")
    if (len(announced) == 64 and announced != release.sha256) or (length is not None and length != release.size):
        raise WeightsError(
            f"{hub.host(library)} has {release.repo}/{release.file} with {length} bytes and the SHA-256 "
            f"{announced[:12]}…",
            f"the release, with {release.size} bytes and {release.sha256[:12]}…",
            either("pip install --upgrade xr-cloudfree, which may know a newer release", _SCRATCH, by="; or "),
        )


def _download(library: Any, release: Release, partial: Path) -> None:
    """Fetch the file, from where an earlier try stopped, and check it."""
    url = library.hf_hub_url(release.repo, release.file, revision=release.revision)
    print(
        f"xr_cloudfree: fetching {release.repo} ({release.size / 1e9:.2g} GB) from {hub.host(library)} …",
        file=sys.stderr,
        flush=True,
    )
    tries = _TRIES
    while (have := partial.stat().st_size if partial.exists() else 0) < release.size:
        try:
            with urlopen(Request(url, headers={"Range": f"bytes={have}-"}), timeout=STALL) as answer:
                # Whoever does not know how to go on sends all of it again.
                with partial.open("ab" if answer.status == 206 else "wb") as out:
                    for chunk in _moving(answer):
                        out.write(chunk)
            why = "the connection was closed"
        except OSError as error:
            why = hub.text(error)
        now = partial.stat().st_size if partial.exists() else 0
        tries = _TRIES if now >= have + _LEAST else tries - 1
        if now < release.size and tries == 0:
            raise _unreachable(
                library, release, f"it stopped after {now} of {release.size} bytes, which are kept in {partial}: {why}"
            )
    if (found := _hash(partial)) != release.sha256:
        length = partial.stat().st_size
        partial.unlink()
        raise WeightsError(
            f"what {hub.host(library)} sent as {release.repo}/{release.file} ({length} bytes) has the SHA-256 "
            f"{found[:12]}…",
            f"{release.size} bytes with {release.sha256[:12]}…",
            f"try again, it is fetched anew; if that does not help: {_SCRATCH}",
        )


def _moving(answer: Any) -> Iterator[bytes]:
    """What comes, for as long as it comes fast enough."""
    since, got = time.monotonic(), 0
    while chunk := answer.read1(_CHUNK):
        yield chunk
        got += len(chunk)
        if time.monotonic() - since > STALL:
            if got < _LEAST:
                raise TimeoutError(f"{got} bytes in {STALL:g} s")
            since, got = time.monotonic(), 0


def _keep(path: Path, kept: Path, release: Release) -> Path:
    """Keep what the encoder needs of a file that is known to be the release."""
    try:
        import torch
        from safetensors.torch import save
    except ImportError as error:
        raise bundle.missing("torch, or safetensors,") from error
    try:
        given = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # a pickle fails in any way
        raise WeightsError(
            f"{path} cannot be read as tensors: {hub.text(error)}",
            "a file of weights as torch.save() writes it",
            _SCRATCH,
        ) from error
    given = given if isinstance(given, dict) else {}
    chosen = {
        name: value.detach().clone().contiguous()
        for name, value in given.items()
        if isinstance(value, torch.Tensor) and name.startswith(_PARTS)
    }
    if _FIRST not in chosen or len(chosen) < 3:
        raise _unfit(path, f"has no {_FIRST!r}, but {', '.join(map(repr, sorted(map(str, given))[:3]))}")
    data = save(chosen, {"source": str(release)})
    record = {"source": str(release), "sha256": hashlib.sha256(data).hexdigest()}
    # The record comes last: with it the file is valid.
    for target, content in ((kept, data), (kept.with_suffix(".json"), json.dumps(record).encode())):
        draft = target.with_suffix(f".{os.getpid()}.tmp")
        draft.write_bytes(content)
        draft.replace(target)
    return kept


def _is_kept(kept: Path, release: Release) -> bool:
    """Whether the file is here, and still what it was."""
    try:
        told = json.loads(kept.with_suffix(".json").read_text())
        return bool(told["sha256"] == _hash(kept))
    except (OSError, ValueError, TypeError, KeyError):
        return False


def _hash(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _unreachable(library: Any, release: Release, why: str) -> HubError:
    return HubError(
        f"TerraMind's weights {release.repo}/{release.file} are not in the cache {library.constants.HF_HUB_CACHE}, and "
        f"{hub.host(library)} cannot give them: {why}",
        "a network, or a copy of the file",
        f"hf download {release.repo} {release.file} --revision {release.revision} --cache-dir PATH where there is a "
        f"network, then HF_HUB_CACHE=PATH here; or {_SCRATCH}",
    )


def _unfit(path: Path, why: str) -> WeightsError:
    return WeightsError(
        f"{path} {why}",
        "the weights of TerraMind 1.0 of this size",
        f"rm -r {path.parent}, and they are fetched again; or {_SCRATCH}",
    )
