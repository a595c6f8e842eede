"""Entry points of installed packages, by name."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from xr_cloudfree.errors import ModelError


@cache
def installed(group: str) -> dict[str, EntryPoint]:
    """Return the entry points of a group by name; nothing is imported.

    Parameters
    ----------
    group : str
        ``"xr_cloudfree.models"``, ``"xr_cloudfree.networks"`` or ``"xr_cloudfree.detectors"``.

    Raises
    ------
    ModelError
        If two packages use the same name for different objects.
    """
    points: dict[str, EntryPoint] = {}
    for point in entry_points(group=group):
        if point.name in points and points[point.name].value != point.value:
            raise ModelError(
                f"two packages offer a {_noun(group)} {point.name!r}: {points[point.name].value} and {point.value}",
                f"one {_noun(group)} per name",
                "uninstall one of the two packages",
            )
        points[point.name] = point
    return points


def load(point: EntryPoint) -> Any:
    """Return the object that an entry point names.

    Raises
    ------
    ModelError
        If it cannot be imported.
    """
    try:
        return point.load()
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"{_noun(point.group)} {point.name!r} of {point.value} cannot be imported: {error}",
            "the packages that it needs",
            f"pip install --upgrade {point.dist.name if point.dist else point.value.split('.')[0]}",
        ) from error


def _noun(group: str) -> str:
    return group.rpartition(".")[2].removesuffix("s")
