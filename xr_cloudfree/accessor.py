"""The accessor ``.cloudfree``: it forwards to the public functions and keeps no state but the object."""

from __future__ import annotations

from typing import Any

import pandas as pd
import xarray as xr

from xr_cloudfree import api, plot, summary
from xr_cloudfree.accuracy import evaluate as evaluation


class _Accessor:
    def __init__(self, obj: Any) -> None:
        self._obj = obj

    def __repr__(self) -> str:
        return summary.describe(self._obj).text()

    def _repr_html_(self) -> str:
        return summary.describe(self._obj).html()

    def fill(self, date: Any = None, **options: Any) -> Any:
        return api.fill(self._obj, date, **options)

    def clear_mask(self, **options: Any) -> xr.DataArray:
        return api.clear_mask(self._obj, **options)

    def evaluate(self, **options: Any) -> pd.DataFrame:
        return evaluation.evaluate(self._obj, **options)

    @property
    def plot(self) -> CloudfreePlots:
        """Plots of the cube and its fills (needs matplotlib)."""
        return CloudfreePlots(self._obj)

    fill.__doc__ = api.fill.__doc__
    clear_mask.__doc__ = api.clear_mask.__doc__
    evaluate.__doc__ = evaluation.evaluate.__doc__


@xr.register_dataarray_accessor("cloudfree")
class CloudfreeDataArray(_Accessor):
    """Cloud-free images of a DataArray (time, band, y, x)."""


@xr.register_dataset_accessor("cloudfree")
class CloudfreeDataset(_Accessor):
    """Cloud-free images of a Dataset: one 4-D variable, or bands as variables."""


class CloudfreePlots:
    """Plots of a cube: ``cube.cloudfree.plot``."""

    def __init__(self, obj: Any) -> None:
        self._obj = obj

    def before_after(self, date: Any, **options: Any) -> Any:
        """See `xr_cloudfree.plot.before_after`."""
        return plot.before_after(self._obj, date, **options)

    def timeline(self, **options: Any) -> Any:
        """See `xr_cloudfree.plot.timeline`."""
        return plot.timeline(self._obj, **options)

    def rgb(self, date: Any = None, **options: Any) -> Any:
        """See `xr_cloudfree.plot.rgb`."""
        return plot.rgb(self._obj, date, **options)

    before_after.__doc__ = plot.before_after.__doc__
    timeline.__doc__ = plot.timeline.__doc__
    rgb.__doc__ = plot.rgb.__doc__
