"""How a remedy is spelled, so that it can be typed as it stands for the cube that was given."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xr_cloudfree.errors import code, either, option

AS_IT_IS = option("check=False") + ", if the values are as they should be"
ANYWAY = either("", AS_IT_IS, by="  # or ")


@dataclass(frozen=True)
class Spelling:
    """What the user's cube is made of.

    Parameters
    ----------
    time : str
        Its dimension of dates.
    variables : tuple of str
        Variables of a Dataset that hold bands; none for a DataArray.
    bands : tuple of str
        Names of the bands.
    """

    time: str = "time"
    variables: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()

    def except_on(self, days: Iterable[str]) -> str:
        """The cube without some days."""
        return code(f"cube.sel({self.time}=~{self.on(days)})")

    def on(self, days: Iterable[str]) -> str:
        """True on some days, written YYYY-MM-DD."""
        return f"cube[{self.time!r}].dt.strftime('%Y-%m-%d').isin({list(days)})"

    def subtract(self, amount: float, unless: str, dtype: np.dtype[Any], nodata: float | None) -> str:
        """The cube, its bands less by an amount in stored units, unless a condition holds. Missing values stay.

        The condition may speak of the values as ``{cube}``.

        Examples
        --------
        >>> Spelling().subtract(1000, "late", np.dtype("uint16"), 0)
        "cube.where((late) | (cube == 0), cube.astype('int32') - 1000)"
        >>> Spelling(variables=("red",)).subtract(0.1, "late", np.dtype("float32"), None)
        "cube.assign({b: cube[b].where(late, cube[b] - 0.1) for b in ['red']})"
        """
        whole = dtype.kind in "iu"
        # Zero marks what was not measured in digital numbers, whatever else is told.
        marks = {0.0} if whole else set()
        if nodata is not None:
            marks.add(float(nodata))
        kept = [f"({{cube}} == {mark:.17g})" for mark in sorted(marks)]
        keep = " | ".join([f"({unless})", *kept]) if kept else unless
        # Unsigned integers would wrap.
        wide = f".astype('int{32 if dtype.itemsize < 4 else 64}')" if whole else ""
        return self.each(f"{{cube}}.where({keep}, {{cube}}{wide} - {amount:.7g})")

    def replace(self, value: str, nodata: float) -> str:
        """The cube with nodata in place of a value.

        Examples
        --------
        >>> Spelling().replace("10", 0.0)
        'cube.where(cube != 10, 0)'
        """
        return self.each(f"{{cube}}.where({{cube}} != {value}, {nodata:.17g})")

    def each(self, made: str) -> str:
        """What is made of the values, ``{cube}``, for the cube or for each of its variables."""
        if not self.variables:
            return code(made.replace("{cube}", "cube"))
        return code(f"cube.assign({{b: {made.replace('{cube}', 'cube[b]')} for b in {list(self.variables)}}})")
