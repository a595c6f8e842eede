"""Errors that summarize regions which could not be filled."""

from __future__ import annotations

import shlex
from collections.abc import Mapping
from pathlib import Path

from xr_cloudfree.errors import CloudfreeError, RunError, then

RESUME = "the same call again: what is done stays"
# If so many regions fail and none succeeds, the others would fail as well.
HOPELESS = 20
_MOST_LISTED = 20


def how_to_resume(store: Path | str, reopens: bool) -> str:
    """Return how to continue a run, for error messages.

    Parameters
    ----------
    store : Path or str
        The store of the run.
    reopens : bool
        Whether ``cloudfree resume`` can reopen it from its journal: the cube came from a file.
    """
    return f"cloudfree resume {shlex.quote(str(store))}, or {RESUME}" if reopens else RESUME


def regions_failed(failed: Mapping[int, BaseException], n_done: int, resume: str = RESUME) -> CloudfreeError:
    """Return one error for all regions that failed, to be raised from the first of theirs.

    Parameters
    ----------
    failed : mapping
        The error of each region.
    n_done : int
        Number of regions that succeeded.
    resume : str
        How to continue the run.

    Returns
    -------
    CloudfreeError
        The first region's own error if none succeeded and all errors are of its type: then the cube or an option is
        wrong. Otherwise a `RunError`.
    """
    numbers = sorted(failed)
    first = failed[numbers[0]]
    if isinstance(first, CloudfreeError) and not n_done and {type(error) for error in failed.values()} == {type(first)}:
        return first
    listed = ", ".join(map(str, numbers[:_MOST_LISTED]))
    more = f" and {len(numbers) - _MOST_LISTED} more" if len(numbers) > _MOST_LISTED else ""
    plural = "s" if len(numbers) > 1 else ""
    reason = first.found if isinstance(first, CloudfreeError) else f"{type(first).__name__}: {first}"
    return RunError(
        f"region{plural} {listed}{more} failed, and {n_done} were done; region {numbers[0]}: {reason}",
        first.needed if isinstance(first, CloudfreeError) else "regions that can be filled",
        then(first.remedy, resume) if isinstance(first, CloudfreeError) else resume,
    )
