"""The layers that an output can have besides its reflectance: one table, used wherever layers are named or written.

To add a layer, add a row to the table and a method of its name to `xr_cloudfree.engine.provenance.Provenance`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

NOT_FILLED, OBSERVED, FILLED, PARTLY = 0, 1, 2, 3
"""Values of the layer ``filled``: no band of a pixel is known; all are observed; all are known; some are known."""


@dataclass(frozen=True)
class Layer:
    """A layer of the output.

    Parameters
    ----------
    name : str
        Its name, as a user asks for it.
    source : {"any model", "some models", "other sensors", "mask"}
        Whether it follows from any model's answer, is an answer that some models give (``ModelSpec.layers``), needs
        cubes of other sensors, or a quality layer that has snow.
    dims : tuple of str
        Its dimensions, without that of several target dates.
    dtype : str
        Type of its values.
    long_name : str
        What its values are, in one line.
    units : str or None
        Their units. A unit of days is left out: xarray would read the values back as time differences.
    flags : tuple of (int, str)
        The values of a layer of flags, and the meaning of each.
    """

    name: str
    source: Literal["any model", "some models", "other sensors", "mask"]
    dims: tuple[str, ...]
    dtype: str
    long_name: str
    units: str | None = None
    flags: tuple[tuple[int, str], ...] = ()

    @cached_property  # the same array of flags each time, so that attributes of two outputs compare as equal
    def attrs(self) -> dict[str, Any]:
        """CF attributes of the layer."""
        attrs: dict[str, Any] = {"long_name": self.long_name}
        if self.flags:
            attrs["flag_values"] = np.array([value for value, _ in self.flags], self.dtype)
            attrs["flag_meanings"] = " ".join(meaning for _, meaning in self.flags)
        if self.units is not None:
            attrs["units"] = self.units
        return attrs


MASK_CHANGE = Layer(
    "mask_change",
    "any model",
    ("y", "x"),
    "uint8",
    "how the mask of the target date differs from the given one",
    flags=((0, "as_given"), (1, "masked_cloud"), (2, "masked_shadow"), (3, "restored")),
)
SCORE = Layer(
    "score", "mask", ("y", "x"), "float32", "evidence of cloud or shadow in the series: 0 none, 1 certain", "1"
)
"""A layer of `xr_cloudfree.clear_mask` alone."""
SHARPENED = Layer(
    "sharpened",
    "any model",
    ("y", "x"),
    "uint8",
    "how coarse bands were brought to fine pixels",
    flags=((0, "not_known"), (1, "sharpened"), (2, "interpolated")),
)
"""A layer of `xr_cloudfree.sharpen` alone."""
_TABLE = (
    Layer(
        "filled",
        "any model",
        ("y", "x"),
        "uint8",
        "where the value comes from",
        flags=((NOT_FILLED, "not_filled"), (OBSERVED, "observed"), (FILLED, "filled"), (PARTLY, "partly_filled")),
    ),
    Layer(
        "n_clear",
        "any model",
        ("y", "x"),
        "uint16",
        "number of clear observations in the window, the target's own included",
        "1",
    ),
    Layer(
        "days_to_clear",
        "any model",
        ("y", "x"),
        "float32",
        "signed days from the target date to the nearest clear observation",
    ),
    Layer("source_time", "some models", ("y", "x"), "datetime64[ns]", "observation that weighs at least one half"),
    Layer(
        "uncertainty",
        "some models",
        ("band", "y", "x"),
        "float32",
        "spread of the estimate in reflectance: 1.645 of it to each side is the 90 % interval",
        "1",
    ),
    Layer(
        "source_sensor",
        "other sensors",
        ("y", "x"),
        "uint8",
        "other sensor whose image near the target date corrected the estimate: 0 none, 1 the first of others",
    ),
    Layer(
        "consistency",
        "other sensors",
        ("band", "y", "x"),
        "float32",
        "what the other sensor observed minus what it would see of the image, in reflectance",
        "1",
    ),
    Layer("gate", "some models", ("observation", "y", "x"), "float32", "weight of each observation", "1"),
    Layer(
        "suspect",
        "any model",
        ("y", "x"),
        "bool",
        "flagged clear on the target date, but looks like haze or thin cloud",
    ),
    MASK_CHANGE,
    Layer("snow", "mask", ("y", "x"), "bool", "observed as snow on the target date"),
)

LAYERS = {layer.name: layer for layer in _TABLE}
"""The layers by name, in the order in which they are returned."""
COMMON_LAYERS = tuple(layer.name for layer in _TABLE if layer.source == "any model")
MODEL_LAYERS = tuple(layer.name for layer in _TABLE if layer.source == "some models")
OTHER_LAYERS = tuple(layer.name for layer in _TABLE if layer.source == "other sensors")
MASK_LAYERS = tuple(layer.name for layer in _TABLE if layer.source == "mask")
