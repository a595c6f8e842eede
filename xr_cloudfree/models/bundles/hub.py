"""Bundles from and to a model hub, through ``huggingface_hub``, which is imported only when one is asked for.

Nothing here waits long for a network that is not there: the hub is asked one small thing first, and has to answer in
time.
"""

from __future__ import annotations

import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from xr_cloudfree.errors import (
    CloudfreeWarning,
    HubError,
    MissingDependencyError,
    ModelNotFoundError,
    WeightsError,
    either,
    option,
)
from xr_cloudfree.models.bundles import bundle
from xr_cloudfree.models.spec import ModelSpec

T = TypeVar("T")

PATIENCE = 3.5
"""Seconds within which the hub has to answer."""


def fetch(repo: str, revision: str) -> Path:
    """The folder of a bundle in the hub's cache; what is not there is fetched.

    Parameters
    ----------
    repo : str
        ``"organisation/name"``.
    revision : str
        A branch, a tag, or a commit. A commit that is in the cache is not asked for again.

    Returns
    -------
    Path
        The bundle; the folder's name is the commit.

    Raises
    ------
    ModelNotFoundError
        If the hub has no such model, or none that you may see.
    WeightsError
        If it is no model of this package.
    HubError
        If the hub cannot be reached and the cache does not have it.
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
            raise OSError("the answer names no commit, as a hub's does")
    except Exception as error:  # those of the hub and of what it fetches with have no base of their own
        _refused(hub, repo, revision, error)
        if cached is None:
            raise _unreachable(hub, repo, revision, error) from error
        if not hub.constants.HF_HUB_OFFLINE:  # who asks for offline knows
            warnings.warn(
                f"{host(hub)} cannot be reached ({text(error)}): {repo} is used as it lies in the cache, "
                f"revision {cached.name}",
                CloudfreeWarning,
                stacklevel=2,
            )
        return cached
    if cached is not None and cached.name == commit:
        return cached
    for name in bundle.FILES:
        try:
            # The first is asked for as the user calls it, so that the cache knows the name; the others by the commit
            # that it had, or they could be of a newer one.
            folder = Path(hub.hf_hub_download(repo, name, revision=revision, etag_timeout=PATIENCE)).parent
            revision = folder.name
        except hub.errors.EntryNotFoundError as error:
            if isinstance(error, hub.errors.LocalEntryNotFoundError):  # it means: the network went away
                raise _unreachable(hub, repo, revision, error) from error
            if name != bundle.CARD:
                raise _no_bundle(hub, repo, name) from error
        except Exception as error:
            raise _unreachable(hub, repo, revision, error) from error
    return folder


def push(folder: Path, spec: ModelSpec, repo: str, *, token: str | None, private: bool | None) -> str:
    """Send a bundle to a hub, in one commit.

    Parameters
    ----------
    folder : Path
        The bundle.
    spec : ModelSpec
        Its spec.
    repo : str
        ``"organisation/name"``; it is made if it is not there.
    token : str or None
        Access token; None takes the one that the hub's own login has kept.
    private : bool or None
        Whether a repository that is made is private; None leaves it to the organisation.

    Returns
    -------
    str
        Where it is now, as `from_pretrained` takes it.

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
        made = api.create_commit(
            repo, operations, commit_message=f"{spec.name}, weights {str(spec.weights_sha256)[:12]}"
        )
    except Exception as error:  # as in fetch
        raise HubError(
            f"{host(hub)} did not take {spec.name!r} as {repo!r}: {text(error)}",
            "a name 'organisation/name' that you may write to, and a token that allows it",
            "hf auth login, or model.push_to_hub(repo, token='hf_…'); model.save_pretrained(folder) keeps it here",
        ) from error
    return f"hf-hub:{repo}@{made.oid}"


def library() -> Any:
    """The package ``huggingface_hub``.

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
            "huggingface_hub is not installed", "it, to exchange models with a hub", "pip install huggingface_hub"
        ) from error
    return huggingface_hub


def in_time(ask: Callable[[], T]) -> T:
    """What a call gives, if it does so in time; a thread that is stuck (in the name service, say) is left behind."""
    answer: list[T] = []
    failure: list[BaseException] = []

    def run() -> None:
        try:
            answer.append(ask())
        except BaseException as error:  # it is raised again, in the thread that asked
            failure.append(error)

    thread = threading.Thread(target=run, name="cloudfree-hub", daemon=True)
    thread.start()
    thread.join(PATIENCE)
    if failure:
        raise failure[0]
    if not answer:
        raise TimeoutError(f"no answer within {PATIENCE:g} s")
    return answer[0]


def _cached(hub: Any, repo: str, revision: str) -> Path | None:
    """The folder of a bundle that is wholly in the cache."""
    found = [hub.try_to_load_from_cache(repo, name, revision=revision) for name in (bundle.SPEC, bundle.WEIGHTS)]
    return Path(found[0]).parent if all(isinstance(path, str) for path in found) else None


def _refused(hub: Any, repo: str, revision: str, error: Exception) -> None:
    """Raise what a hub that did answer says."""
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
            f"{host(hub)} has no model {repo!r}, or none that you may see",
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
        "model.push_to_hub(repo) of a model that from_pretrained gave; xr_cloudfree.list_models() for those at hand",
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
    """The name of the hub, for people."""
    return str(urlsplit(hub.constants.ENDPOINT).netloc)


def text(error: Exception) -> str:
    """The first line of an error, or its type: some of a network's have no text."""
    return (str(error).strip() or type(error).__name__).splitlines()[0]
