"""Write remedies in messages as Python expressions, with the names of the user's cube."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from xr_cloudfree.errors import code, either, option

AS_IT_IS = option("check=False") + ", if the values are correct"
ANYWAY = either("", AS_IT_IS, by="  # or ")


@dataclass(frozen=True)
class Spelling:
    """Names in the user's cube.

    Parameters
    ----------
    time : str
        Name of the time dimension.
    variables : tuple of str
        Variables of a Dataset with bands; empty for a DataArray.
    bands : tuple of str
        Names of the bands.
    items : tuple of (str, str)
        Days with the identifiers of their items in an archive, separated by commas, if the cube has them.
    """

    time: str = "time"
    variables: tuple[str, ...] = ()
    bands: tuple[str, ...] = ()
    items: tuple[tuple[str, str], ...] = ()

    def except_on(self, days: Iterable[str]) -> str:
        """Return an expression for the cube without some days."""
        return code(f"cube.sel({self.time}=~{self.on(days)})")

    def on(self, days: Iterable[str]) -> str:
        """Return a condition that is True on some days, given as YYYY-MM-DD."""
        return f"cube[{self.time!r}].dt.strftime('%Y-%m-%d').isin({list(days)})"

    def items_on(self, days: Iterable[str]) -> list[str]:
        """Return the identifiers of the items of some days; empty if the cube does not have all of them."""
        wanted = set(days)
        if not wanted <= {day for day, _ in self.items}:
            return []
        return [item for day, items in self.items if day in wanted for item in items.split(",") if item]

    def reload(self, days: Iterable[str], offset: float) -> str:
        """Return the call that loads the cube again with another offset of the items of some days.

        Examples
        --------
        >>> Spelling(items=(("2022-07-08", "S2A_0708"),)).reload(["2022-07-08"], 0)
        "xr_cloudfree.load(..., offset={'S2A_0708': 0})"
        """
        return code(f"xr_cloudfree.load(..., offset={dict.fromkeys(self.items_on(days), offset)!r})")

    def subtract(self, amount: float, unless: str, dtype: np.dtype[Any], nodata: float | None) -> str:
        """Return an expression that subtracts an amount in stored units from all values but missing ones.

        `unless` is a condition for values to keep. It may refer to the values as ``{cube}``.

        Examples
        --------
        >>> Spelling().subtract(1000, "late", np.dtype("uint16"), 0)
        "cube.where((late) | (cube == 0), cube.astype('int32') - 1000)"
        >>> Spelling(variables=("red",)).subtract(0.1, "late", np.dtype("float32"), None)
        "cube.assign({b: cube[b].where(late, cube[b] - 0.1) for b in ['red']})"
        """
        is_integer = dtype.kind in "iu"
        # Zero is missing in digital numbers, in addition to nodata.
        missing = {0.0} if is_integer else set()
        if nodata is not None:
            missing.add(float(nodata))
        kept = [f"({{cube}} == {value:.17g})" for value in sorted(missing)]
        keep = " | ".join([f"({unless})", *kept]) if kept else unless
        # Unsigned integers would wrap.
        wide = f".astype('int{32 if dtype.itemsize < 4 else 64}')" if is_integer else ""
        return self.each(f"{{cube}}.where({keep}, {{cube}}{wide} - {amount:.7g})")

    def replace(self, value: str, nodata: float) -> str:
        """Return an expression for the cube with nodata in place of a value.

        Examples
        --------
        >>> Spelling().replace("10", 0.0)
        'cube.where(cube != 10, 0)'
        """
        return self.each(f"{{cube}}.where({{cube}} != {value}, {nodata:.17g})")

    def each(self, expression: str) -> str:
        """Return an expression of the values, ``{cube}``, applied to the cube or to each of its variables."""
        if not self.variables:
            return code(expression.replace("{cube}", "cube"))
        return code(f"cube.assign({{b: {expression.replace('{cube}', 'cube[b]')} for b in {list(self.variables)}}})")
