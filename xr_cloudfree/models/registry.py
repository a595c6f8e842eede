"""Models by name. Ours and other packages' are found the same way: by the entry-point group ``xr_cloudfree.models``.

Weights in a folder or on a hub are named by where they are.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Callable
from functools import lru_cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, cast

from xr_cloudfree.errors import ModelError, ModelNotFoundError, OptionTypeError, option
from xr_cloudfree.models.bundles import bundle
from xr_cloudfree.models.pretrained import locations
from xr_cloudfree.models.protocol import FillModel

GROUP = "xr_cloudfree.models"


@lru_cache(maxsize=1)
def _entry_points() -> dict[str, EntryPoint]:
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group=GROUP):
        if point.name in found and found[point.name].value != point.value:
            raise ModelError(
                f"two packages offer a model {point.name!r}: {found[point.name].value} and {point.value}",
                "one model per name",
                "uninstall one of the two packages",
            )
        found[point.name] = point
    return found


def model_names() -> list[str]:
    """Names of the installed models, sorted."""
    return sorted(_entry_points())


def create(model: str | FillModel, **settings: Any) -> FillModel:
    """A model by its name, or the model itself where one is given.

    Parameters
    ----------
    model : str or FillModel
        Name, ``"local-dir:PATH"``, ``"hf-hub:organisation/name"`` (see `xr_cloudfree.from_pretrained`), or an object
        that follows the `FillModel` protocol.
    **settings
        Settings of the model, where it has any and `model` is a name.

    Raises
    ------
    ModelNotFoundError
        If no installed model has this name.
    ModelError
        If what the entry point gives is not a model, or cannot be imported; a `WeightsError` if the weights of a
        learned model are damaged.
    HubError
        If a model is on a hub that cannot be reached.
    """
    if not isinstance(model, str):
        if isinstance(model, type) or not isinstance(model, FillModel):
            raise OptionTypeError(
                f"model is {model!r}",
                "a name, or an object with `spec` and `predict`",
                option("model='auto'") + f", or one of {', '.join(model_names())}",
            )
        return model
    if model.startswith((locations.LOCAL, locations.HUB)):
        return locations.from_pretrained(model, **settings)
    points = _entry_points()
    if model not in points:
        near = difflib.get_close_matches(model, points, n=1)
        if os.path.isfile(os.path.join(model, bundle.SPEC)):  # Path.is_file() raises where a name is too long
            near = [f"{locations.LOCAL}{model}"]
        raise ModelNotFoundError(
            f"no model is called {model!r}",
            f"one of {', '.join(sorted(points)) or '(none: the package is not installed)'}",
            option(f"model={near[0]!r}") if near else "xr_cloudfree.list_models()",
        )
    point = points[model]
    try:
        factory = cast(Callable[..., Any], point.load())
    except (ImportError, AttributeError) as error:
        raise ModelError(
            f"model {model!r} of {point.value} cannot be imported: {error}",
            "the packages that it needs",
            f"pip install --upgrade {point.dist.name if point.dist else point.value.split('.')[0]}",
        ) from error
    made = factory(**settings)
    if not isinstance(made, FillModel):
        raise ModelError(
            f"{point.value} gives a {type(made).__name__}",
            "an object with `spec` and `predict`",
            "see the FillModel protocol in the documentation",
        )
    return made
