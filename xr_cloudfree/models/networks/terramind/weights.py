"""TerraMind's own weights: from a cache, or downloaded from the hub where IBM and ESA publish them.

Each release is pinned by the SHA-256 of its file. The file is a pickle, so it is read only after its hash has been
checked, and only tensors are loaded; the encoder's part is stored as safetensors, and the rest is discarded. The
download continues after interruptions and detects connections that stall, which that of ``huggingface_hub`` does not.
torch is imported only when there is a file to read.
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
"""Seconds within which a download has to make progress."""

# Bytes per STALL that count as progress, and the number of consecutive attempts without it.
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
        Its location on the hub.
    revision : str
        The commit, or a branch; the hash is decisive.
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
"""By size. The hashes agree with those that several projects have published for their downloads."""


def fetch(size: str) -> Path:
    """Return the path of the weights of TerraMind's encoder as a local safetensors file.

    A file from an earlier call is used if it is intact, and so is one in the hub's own cache. Otherwise it is
    downloaded; the hub has to respond in time, and an interrupted download continues where it stopped.

    Parameters
    ----------
    size : str
        ``"tiny"``, ``"small"``, ``"base"`` or ``"large"``.

    Raises
    ------
    HubError
        If they are not cached, and the hub cannot be reached or the download stops.
    WeightsError
        If the file on the hub, or the cached one, is not the release.
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
    _check_release(library, release)
    partial = folder / f"{release.file}.partial"
    _download(library, release, partial)
    _keep(partial, kept, release)
    partial.unlink()
    return kept


def load(encoder: nn.Module, path: Path) -> None:
    """Load TerraMind's weights into an encoder.

    Parameters
    ----------
    encoder : Module
        Of `xr_cloudfree.models.networks.terramind.encoder.build_encoder`.
    path : Path
        Path returned by `fetch`.

    Raises
    ------
    WeightsError
        If a weight is missing, has another shape, is not finite, or belongs to another size.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (SafetensorError, OSError) as error:
        raise _unfit(path, f"cannot be read: {error}") from error
    state = encoder.state_dict()
    learned = {name for name, _ in encoder.named_parameters()}
    if lacking := sorted(learned - tensors.keys()):
        raise _unfit(path, f"lacks {len(lacking)} of {len(learned)} weights: {lacking[0]!r} …")
    deep = [name for name in sorted(tensors.keys() - state.keys()) if name.startswith(_PARTS[:2])]
    if deep:
        raise _unfit(path, f"has weights of a larger encoder: {deep[0]!r} …")
    wanted = {name: tensor for name, tensor in tensors.items() if name in state}
    for name, tensor in wanted.items():
        if tensor.shape != state[name].shape:
            raise _unfit(path, f"{name!r} has shape {tuple(tensor.shape)}, and not {tuple(state[name].shape)}")
        if not tensor.isfinite().all():
            raise _unfit(path, f"{name!r} holds NaN or infinity")
    # Buffers such as positional embeddings are computed and need not be in the file.
    encoder.load_state_dict(state | wanted)


def refuse_alone(repo: str) -> None:
    """Raise if a repository is one of TerraMind's, which hold an encoder but no model that fills.

    Raises
    ------
    WeightsError
        If it is one.
    HubError
        If it is one, is not cached, and cannot be reached.
    """
    for size, release in RELEASES.items():
        if repo == release.repo:
            library = hub.library()
            if not _is_kept(_folder(library, release) / f"{size}.safetensors", release):
                _check_release(library, release)
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


def _check_release(library: Any, release: Release) -> None:
    """Check the hub's metadata of the file: whether it exists, and is the release."""
    url = library.hf_hub_url(release.repo, release.file, revision=release.revision)
    try:
        metadata = hub.in_time(lambda: library.get_hf_file_metadata(url, timeout=hub.PATIENCE))
    except Exception as error:  # errors of the hub and of its HTTP library have no common base class
        raise _unreachable(library, release, hub.text(error)) from error
    length = metadata.size
    # For large files the ETag is the SHA-256.
    announced = str(metadata.etag or "")
    if (len(announced) == 64 and announced != release.sha256) or (length is not None and length != release.size):
        raise WeightsError(
            f"{hub.host(library)} has {release.repo}/{release.file} with {length} bytes and the SHA-256 "
            f"{announced[:12]}…",
            f"the release, with {release.size} bytes and {release.sha256[:12]}…",
            either("pip install --upgrade xr-cloudfree, which may know a newer release", _SCRATCH, by="; or "),
        )


def _download(library: Any, release: Release, partial: Path) -> None:
    """Download the file, continuing an earlier attempt, and check it."""
    url = library.hf_hub_url(release.repo, release.file, revision=release.revision)
    print(
        f"xr_cloudfree: downloading {release.repo} ({release.size / 1e9:.2g} GB) from {hub.host(library)} …",
        file=sys.stderr,
        flush=True,
    )
    tries = _TRIES
    while (have := partial.stat().st_size if partial.exists() else 0) < release.size:
        try:
            with urlopen(Request(url, headers={"Range": f"bytes={have}-"}), timeout=STALL) as answer:
                # Servers without range requests send the whole file again.
                with partial.open("ab" if answer.status == 206 else "wb") as out:
                    for chunk in _chunks(answer):
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
    if (digest := _hash(partial)) != release.sha256:
        length = partial.stat().st_size
        partial.unlink()
        raise WeightsError(
            f"what {hub.host(library)} sent as {release.repo}/{release.file} ({length} bytes) has the SHA-256 "
            f"{digest[:12]}…",
            f"{release.size} bytes with {release.sha256[:12]}…",
            f"try again, it is downloaded anew; if that does not help: {_SCRATCH}",
        )


def _chunks(answer: Any) -> Iterator[bytes]:
    """Yield the chunks of a response, and raise TimeoutError if it becomes too slow."""
    since, got = time.monotonic(), 0
    while chunk := answer.read1(_CHUNK):
        yield chunk
        got += len(chunk)
        if time.monotonic() - since > STALL:
            if got < _LEAST:
                raise TimeoutError(f"{got} bytes in {STALL:g} s")
            since, got = time.monotonic(), 0


def _keep(path: Path, kept: Path, release: Release) -> Path:
    """Store the encoder's part of a file that has been verified to be the release."""
    try:
        import torch
        from safetensors.torch import save
    except ImportError as error:
        raise bundle.missing("torch, or safetensors,") from error
    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # unpickling can raise anything
        raise WeightsError(
            f"{path} cannot be read as tensors: {hub.text(error)}",
            "a file of weights as torch.save() writes it",
            _SCRATCH,
        ) from error
    loaded = loaded if isinstance(loaded, dict) else {}
    chosen = {
        name: value.detach().clone().contiguous()
        for name, value in loaded.items()
        if isinstance(value, torch.Tensor) and name.startswith(_PARTS)
    }
    if _FIRST not in chosen or len(chosen) < 3:
        raise _unfit(path, f"has no {_FIRST!r}, but {', '.join(map(repr, sorted(map(str, loaded))[:3]))}")
    data = save(chosen, {"source": str(release)})
    record = {"source": str(release), "sha256": hashlib.sha256(data).hexdigest()}
    # The record is written last: it makes the file valid.
    for target, content in ((kept, data), (kept.with_suffix(".json"), json.dumps(record).encode())):
        draft = target.with_suffix(f".{os.getpid()}.tmp")
        draft.write_bytes(content)
        draft.replace(target)
    return kept


def _is_kept(kept: Path, release: Release) -> bool:
    """Return whether the file exists and is intact."""
    try:
        record = json.loads(kept.with_suffix(".json").read_text())
        return bool(record["sha256"] == _hash(kept))
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
        f"rm -r {path.parent}, and they are downloaded again; or {_SCRATCH}",
    )
