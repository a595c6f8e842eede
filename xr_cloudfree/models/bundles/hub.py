"""Download and upload of bundles from and to a model hub, through ``huggingface_hub``.

The library is imported only when a hub is used. A missing network is detected quickly: before anything is downloaded,
one small request has to be answered in time.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from xr_cloudfree.errors import (
    HubError,
    MissingDependencyError,
    ModelNotFoundError,
    WeightsError,
    either,
    option,
    warn,
)
from xr_cloudfree.models.bundles import bundle
from xr_cloudfree.models.spec import ModelSpec

T = TypeVar("T")

PATIENCE = 3.5
"""Seconds within which the hub has to respond."""


def fetch(repo: str, revision: str) -> Path:
    """Return the folder of a bundle in the hub's cache, after downloading it if necessary.

    Parameters
    ----------
    repo : str
        ``"organisation/name"``.
    revision : str
        A branch, a tag, or a commit. For a cached commit the hub is not contacted.

    Returns
    -------
    Path
        The bundle; the name of the folder is the commit.

    Raises
    ------
    ModelNotFoundError
        If the hub has no such model, or no access to it is granted.
    WeightsError
        If it is not a model of this package.
    HubError
        If the hub cannot be reached and the bundle is not cached.
    MissingDependencyError
        If ``huggingface_hub`` is not installed.
    """
    hub = library()
    cached = _cached(hub, repo, revision)
    if cached is not None and cached.name == revision:
        return cached
    try:
        url = hub.hf_hub_url(repo, bundle.SPEC, revision=revision)
        commit = in_time(lambda: hub.get_hf_file_metadata(url, timeout=PATIENCE).commit_hash)
        if commit is None:
            raise OSError("the response names no commit")
    except Exception as error:  # errors of the hub and of its HTTP library have no common base class
        _raise_refusal(hub, repo, revision, error)
        if cached is None:
            raise _unreachable(hub, repo, revision, error) from error
        if not hub.constants.HF_HUB_OFFLINE:  # offline mode was requested
            warn(
                f"{host(hub)} cannot be reached ({text(error)}): the cached copy of {repo} is used, "
                f"revision {cached.name}"
            )
        return cached
    if cached is not None and cached.name == commit:
        return cached
    for name in bundle.FILES:
        try:
            # Request the first file by the revision's name, so that the cache records it; request the others by
            # commit, so that all belong to one version.
            folder = Path(hub.hf_hub_download(repo, name, revision=revision, etag_timeout=PATIENCE)).parent
            revision = folder.name
        except hub.errors.EntryNotFoundError as error:
            if isinstance(error, hub.errors.LocalEntryNotFoundError):  # the connection was lost
                raise _unreachable(hub, repo, revision, error) from error
            if name != bundle.CARD:
                raise _no_bundle(hub, repo, name) from error
        except Exception as error:
            raise _unreachable(hub, repo, revision, error) from error
    return folder


def push(folder: Path, spec: ModelSpec, repo: str, *, token: str | None, private: bool | None) -> str:
    """Upload a bundle to a hub, in one commit.

    Parameters
    ----------
    folder : Path
        The bundle.
    spec : ModelSpec
        Its spec.
    repo : str
        ``"organisation/name"``, created if necessary.
    token : str or None
        Access token; None takes the one stored by the hub's login.
    private : bool or None
        Whether a new repository is private; None takes the organisation's setting.

    Returns
    -------
    str
        Its location, as accepted by `from_pretrained`.

    Raises
    ------
    HubError
        If the hub cannot be reached or refuses.
    WeightsError
        If the bundle is damaged.
    MissingDependencyError
        If ``huggingface_hub`` is not installed.
    """
    contents = bundle.contents(folder, spec)
    hub = library()
    operations = [hub.CommitOperationAdd(path_in_repo=name, path_or_fileobj=data) for name, data in contents.items()]
    try:
        api = hub.HfApi(token=token)
        api.create_repo(repo, private=private, exist_ok=True)
        commit = api.create_commit(
            repo, operations, commit_message=f"{spec.name}, weights {str(spec.weights_sha256)[:12]}"
        )
    except Exception as error:  # as in fetch
        raise HubError(
            f"{host(hub)} did not take {spec.name!r} as {repo!r}: {text(error)}",
            "a name 'organisation/name' that you may write to, and a token that allows it",
            "hf auth login, or model.push_to_hub(repo, token='hf_…'); model.save_pretrained(folder) keeps it here",
        ) from error
    return f"hf-hub:{repo}@{commit.oid}"


def library() -> Any:
    """Return the package ``huggingface_hub``.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        import huggingface_hub.constants
        import huggingface_hub.errors
    except ImportError as error:
        raise MissingDependencyError(
            "huggingface_hub is not installed",
            "the package, to exchange models with a hub",
            "pip install huggingface_hub",
        ) from error
    return huggingface_hub


def in_time(call: Callable[[], T]) -> T:
    """Return the result of a call within `PATIENCE` seconds; a blocked thread (in a DNS lookup, say) is abandoned."""
    result: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            result.append(call())
        except BaseException as error:  # raised again in the calling thread
            failure.append(error)

    thread = threading.Thread(target=run, name="cloudfree-hub", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if failure:
        raise failure[0]
    if not result:
        raise TimeoutError(f"no response within {PATIENCE:g} s")
    return result[0]


def _cached(hub: Any, repo: str, revision: str) -> Path | None:
    """Return the folder of a bundle that is completely cached, or None."""
    paths = [hub.try_to_load_from_cache(repo, name, revision=revision) for name in (bundle.SPEC, bundle.WEIGHTS)]
    return Path(paths[0]).parent if all(isinstance(path, str) for path in paths) else None


def _raise_refusal(hub: Any, repo: str, revision: str, error: Exception) -> None:
    """Raise the error that corresponds to a hub's negative response, if it is one."""
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, hub.errors.RevisionNotFoundError):
        raise ModelNotFoundError(
            f"{repo!r} on {host(hub)} has no revision {revision!r}",
            "a branch, a tag or a commit of it",
            option(f"model='hf-hub:{repo}'") + " for the newest",
        ) from error
    if isinstance(error, hub.errors.EntryNotFoundError):
        raise _no_bundle(hub, repo, bundle.SPEC) from error
    if isinstance(error, hub.errors.RepositoryNotFoundError) or status in (401, 403, 404):
        raise ModelNotFoundError(
            f"{host(hub)} has no model {repo!r}, or you have no access to it",
            "the name of a model on the hub, 'organisation/name'",
            either(
                "hf auth login if it is private",
                option("model='local-dir:PATH'") + " with a copy of its folder",
                by="; or ",
            ),
        ) from error


def _no_bundle(hub: Any, repo: str, name: str) -> WeightsError:
    return WeightsError(
        f"{repo!r} on {host(hub)} has no {name}",
        f"a model of this package, with {bundle.SPEC} and {bundle.WEIGHTS}",
        "model.push_to_hub(repo) of a model from from_pretrained; xr_cloudfree.list_models() for installed models",
    )


def _unreachable(hub: Any, repo: str, revision: str, error: Exception) -> HubError:
    return HubError(
        f"the model {repo!r} (revision {revision}) is not in the cache {hub.constants.HF_HUB_CACHE}, and "
        f"{host(hub)} cannot be reached: {text(error)}",
        "a network, or a copy of the model",
        either(
            f"hf download {repo} --local-dir PATH where there is a network, then " + option("model='local-dir:PATH'"),
            option("model='auto'") + ", which needs none",
            by="; or ",
        ),
    )


def host(hub: Any) -> str:
    """Return the host name of the hub."""
    return str(urlsplit(hub.constants.ENDPOINT).netloc)


def text(error: Exception) -> str:
    """Return the first line of an error, or its type: some network errors have no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
