"""The accessor ``.cloudfree``, which calls the public functions with its object."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable
from typing import Any

import pandas as pd
import xarray as xr

from xr_cloudfree import api, plot, stores, summary
from xr_cloudfree.accuracy import evaluate as evaluation
from xr_cloudfree.inputs import as_list, finest_of
from xr_cloudfree.sharpening import sharpen as sharpening


def _forward(method: Callable[..., Any], function: Callable[..., Any]) -> None:
    """Give a method the docstring and the signature of the function that it calls."""
    signature = inspect.signature(function)
    _, *options = signature.parameters.values()
    own = inspect.Parameter("self", inspect.Parameter.POSITIONAL_OR_KEYWORD)
    method.__doc__ = function.__doc__
    method.__signature__ = signature.replace(parameters=[own, *options])  # type: ignore[attr-defined]


class _Accessor:
    def __init__(self, obj: Any) -> None:
        self._obj = obj

    def __repr__(self) -> str:
        return summary.describe(self._obj).text()

    def _repr_html_(self) -> str:
        return summary.describe(self._obj).html()

    def fill(self, date: Any = None, **options: Any) -> Any:
        return api.fill(self._obj, date, **options)

    def to_zarr(self, store: str | os.PathLike[str], date: Any = None, **options: Any) -> xr.Dataset:
        return stores.to_zarr(self._obj, store, date, **options)

    def clear_mask(self, **options: Any) -> Any:
        return api.clear_mask(self._obj, **options)

    def evaluate(self, **options: Any) -> pd.DataFrame:
        return evaluation.evaluate(self._obj, **options)

    def sharpen(self, to: xr.DataArray | xr.Dataset, **options: Any) -> Any:
        return sharpening.sharpen(self._obj, to, **options)

    @property
    def plot(self) -> CloudfreePlots:
        """Plots of the cube and its fills (needs matplotlib)."""
        return CloudfreePlots(self._obj)

    _forward(fill, api.fill)
    _forward(to_zarr, stores.to_zarr)
    _forward(clear_mask, api.clear_mask)
    _forward(evaluate, evaluation.evaluate)
    _forward(sharpen, sharpening.sharpen)


@xr.register_dataarray_accessor("cloudfree")
class CloudfreeDataArray(_Accessor):
    """Cloud-free images of a DataArray: (time, band, y, x), or one band or index (time, y, x)."""


@xr.register_dataset_accessor("cloudfree")
class CloudfreeDataset(_Accessor):
    """Cloud-free images of a Dataset: one 4-D variable, or bands or indices as variables."""


@xr.register_datatree_accessor("cloudfree")
class CloudfreeTree:
    """Cloud-free images of a DataTree with a cube of each of several sensors, as `xr_cloudfree.load` gives it.

    The cube with the smallest pixels, of several the first, is filled; the others serve as `others`.
    """

    def __init__(self, obj: xr.DataTree) -> None:
        self._obj = obj

    def __repr__(self) -> str:
        cube, others = finest_of(self._obj)
        parts = [("filled", cube), *((f"others[{i}]", other) for i, other in enumerate(as_list(others)))]
        return "\n\n".join(f"{name}: {summary.describe(part).text()}" for name, part in parts)

    def evaluate(self, **options: Any) -> pd.DataFrame:
        """See `xr_cloudfree.evaluate`."""
        cube, others = finest_of(self._obj, options.pop("others", None))
        return evaluation.evaluate(cube, others=others, **options)

    def fill(self, date: Any = None, **options: Any) -> Any:
        """See `xr_cloudfree.fill`."""
        return api.fill(self._obj, date, **options)

    def to_zarr(self, store: str | os.PathLike[str], date: Any = None, **options: Any) -> xr.Dataset:
        """See `xr_cloudfree.to_zarr`."""
        return stores.to_zarr(self._obj, store, date, **options)

    _forward(evaluate, evaluation.evaluate)
    _forward(fill, api.fill)
    _forward(to_zarr, stores.to_zarr)


class CloudfreePlots:
    """Plots of a cube: ``cube.cloudfree.plot``."""

    def __init__(self, obj: Any) -> None:
        self._obj = obj

    def before_after(self, date: Any, **options: Any) -> Any:
        """See `xr_cloudfree.plot.before_after`."""
        return plot.before_after(self._obj, date, **options)

    def mask(self, date: Any, **options: Any) -> Any:
        """See `xr_cloudfree.plot.mask`."""
        return plot.mask(self._obj, date, **options)

    def timeline(self, **options: Any) -> Any:
        """See `xr_cloudfree.plot.timeline`."""
        return plot.timeline(self._obj, **options)

    def rgb(self, date: Any = None, **options: Any) -> Any:
        """See `xr_cloudfree.plot.rgb`."""
        return plot.rgb(self._obj, date, **options)

    _forward(before_after, plot.before_after)
    _forward(mask, plot.mask)
    _forward(timeline, plot.timeline)
    _forward(rgb, plot.rgb)
