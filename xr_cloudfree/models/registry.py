"""Models by name.

The package's own models and those of other packages are found through the entry-point group ``xr_cloudfree.models``;
models in a folder or on a hub are named by their location.
"""

from __future__ import annotations

import difflib
import os
from typing import Any

from xr_cloudfree.errors import ModelError, ModelNotFoundError, OptionTypeError, option
from xr_cloudfree.models import plugins
from xr_cloudfree.models.bundles import bundle
from xr_cloudfree.models.pretrained import locations
from xr_cloudfree.models.protocol import FillModel

GROUP = "xr_cloudfree.models"


def model_names() -> list[str]:
    """Return the names of the installed models, sorted."""
    return sorted(plugins.installed(GROUP))


def create(model: str | FillModel, **settings: Any) -> FillModel:
    """Return a model by name, or `model` itself if it is one.

    Parameters
    ----------
    model : str or FillModel
        Name, ``"local-dir:PATH"``, ``"hf-hub:organisation/name"`` (see `xr_cloudfree.from_pretrained`), or an object
        that follows the `FillModel` protocol.
    **settings
        Arguments of the model, if `model` is a name.

    Raises
    ------
    ModelNotFoundError
        If no installed model has this name.
    ModelError
        If the entry point does not return a model or cannot be imported; a `WeightsError` if the weights of a learned
        model are damaged.
    HubError
        If the model is on a hub that cannot be reached.
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
    points = plugins.installed(GROUP)
    if model not in points:
        near = difflib.get_close_matches(model, points, n=1)
        if os.path.isfile(os.path.join(model, bundle.SPEC)):  # Path.is_file() raises where a name is too long
            near = [f"{locations.LOCAL}{model}"]
        raise ModelNotFoundError(
            f"no model is called {model!r}",
            f"one of {', '.join(sorted(points)) or '(none: the package is not installed)'}",
            option(f"model={near[0]!r}") if near else "xr_cloudfree.list_models()",
        )
    created = plugins.load(points[model])(**settings)
    if not isinstance(created, FillModel):
        raise ModelError(
            f"{points[model].value} returns a {type(created).__name__}",
            "an object with `spec` and `predict`",
            "see the FillModel protocol in the documentation",
        )
    return created
