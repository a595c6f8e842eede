"""A summary of how the package reads a cube: the accessor's repr."""

from __future__ import annotations

import html
import warnings
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr

from xr_cloudfree.api import clear_mask_of, merge_days
from xr_cloudfree.cube.checks import check_scale
from xr_cloudfree.cube.conventions import parse_cube
from xr_cloudfree.cube.crs import crs_as_coordinate
from xr_cloudfree.cube.merge import scenes_of
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.cube.timestamps import MERGE_REMEDY, cube_times
from xr_cloudfree.cube.validity import clear_where
from xr_cloudfree.engine.blocks import stack
from xr_cloudfree.errors import CloudfreeError, CloudfreeWarning, MaskError
from xr_cloudfree.options import Merge, ReadOptions
from xr_cloudfree.plan import CubeInfo, read

# A repr appears unasked: of a larger cube, values are not read.
MAX_BYTES = 2**29


@dataclass(frozen=True)
class Summary:
    """Lines of (label, text), and the clear share of each date if it is known without computing a lazy cube."""

    title: str
    lines: tuple[tuple[str, str], ...]
    dates: tuple[str, ...] = ()
    shares: tuple[float, ...] | None = None

    def text(self) -> str:
        """Return the summary as plain text."""
        width = max(len(label) for label, _ in self.lines)
        rows = [f"<{self.title}>", *(f"  {label:<{width}}  {value}" for label, value in self.lines)]
        if self.shares is not None:
            rows.append("  clear per date [%]")
            marks = [f"{day} {share:4.0%}" for day, share in zip(self.dates, self.shares, strict=True)]
            marks = _abbreviated(marks)
            rows += ["    " + "   ".join(marks[i : i + 5]) for i in range(0, len(marks), 5)]
        return "\n".join(rows)

    def html(self) -> str:
        """Return the summary as HTML for notebooks."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for label, value in self.lines
        )
        bars = ""
        if self.shares is not None:
            width = max(2, 480 // len(self.shares))
            parts = "".join(
                f"<div title='{day}: {share:.0%} clear' style='display:inline-block;width:{width}px;"
                f"height:{max(1, round(40 * share))}px;background:#3b82c4;margin-right:1px'></div>"
                for day, share in zip(self.dates, self.shares, strict=True)
            )
            bars = (
                "<div style='font-size:smaller'>clear share per date, "
                f"{self.dates[0]} to {self.dates[-1]}</div><div style='height:42px'>{parts}</div>"
            )
        return f"<div><strong>{html.escape(self.title)}</strong><table>{rows}</table>{bars}</div>"


def describe(obj: xr.DataArray | xr.Dataset, merge: Merge | None = None) -> Summary:
    """Summarise how the package reads a cube. A chunked cube is not computed.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube.
    merge : {"day"}, optional
        As in `fill`.

    Returns
    -------
    Summary
        With the text of an error in place of what cannot be read: a repr must not raise.
    """
    title = f"xr_cloudfree: {type(obj).__name__}"
    try:
        cube = parse_cube(crs_as_coordinate(obj) if isinstance(obj, xr.Dataset) else obj)
        times = cube_times(cube.arrays[0], several=None if merge else MERGE_REMEDY)
        times = scenes_of(cube.arrays[0], times).times if merge else times
        crs = cube.crs
    except CloudfreeError as error:
        return Summary(title, (("not usable", str(error)),))
    order = np.sort(times)
    bands = ", ".join(
        name if role in (None, name) else f"{name} ({role})"
        for name, role in zip(cube.bands, cube.common_names, strict=True)
    )
    kind = "" if cube.limits is None else f", an index between {cube.limits[0]:g} and {cube.limits[1]:g}"
    lines = [
        ("bands", bands + kind),
        ("sensor", cube.sensor or "unknown"),
        ("grid", f"{cube.shape[0]} x {cube.shape[1]} pixels, {crs or 'no CRS'}"),
        ("dates", f"{times.size}, {order[0].astype('M8[D]')} to {order[-1].astype('M8[D]')}"),
    ]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CloudfreeWarning)  # a repr is shown unasked
            info = read(obj, ReadOptions(merge=merge))
    except MaskError as error:
        return Summary(title, (*lines, ("mask", f"none: {error.remedy}")))
    except CloudfreeError as error:
        return Summary(title, (*lines, ("not usable", str(error))))
    lines.append(("mask", info.rule.label))
    lazy = any(array.chunks is not None for array in (*cube.arrays, info.quality))
    large = sum(array.nbytes for array in cube.arrays) > MAX_BYTES
    checked = not lazy and not large
    values, by_time = info.scaling.source, None
    if cube.limits is not None and values == Scaling.source:
        values = "float values are the index"
    try:
        check_scale(cube.dtype, info.scaling, cube.sensor, cube.limits is not None)
        if checked:
            by_time = _clear_shares(info)
        elif info.scaling.scale == 1:
            values += " (looked at when they are computed)"
    except CloudfreeError as error:  # as `fill` refuses it
        values = f"not usable: {error}"
    lines.append(("values", values))
    if cube.extras:
        names = ", ".join(cube.labels[i] for i in cube.extras)
        lines.append(("layers", f"{names}: taken from the nearest clear date, not estimated"))
    used = {*cube.bands, cube.name, info.quality.name}
    variables = crs_as_coordinate(obj).data_vars if isinstance(obj, xr.Dataset) else ()
    unused = [str(name) for name in variables if name not in used]
    if unused:
        lines.append(("not used", ", ".join(unused) + " (to take one as the mask: mask=name)"))
    if not checked:
        reason = "lazy" if lazy else "large"
        lines.append(("clear", f"the cube is {reason}; ask for .cloudfree.clear_mask().mean(('y', 'x')).compute()"))
    if by_time is None:
        return Summary(title, tuple(lines))
    by_time = by_time[np.argsort(times)]
    return Summary(
        title,
        tuple(lines),
        tuple(str(day) for day in order.astype("M8[D]")),
        tuple(float(share) for share in by_time),
    )


def _clear_shares(info: CubeInfo) -> np.ndarray[Any, Any]:
    """Return the clear share of each date, after the checks of values that `fill` makes.

    Raises
    ------
    CloudfreeError
        If the values are refused.
    """
    cube = info.cube
    clear = clear_mask_of(info, check=False)
    clear = clear.rename({name: role for role, name in cube.dims.items() if role != "band"})
    seen = clear.transpose("time", "y", "x").to_numpy()
    merged = merge_days(replace(info, repair=False))  # the masks are known by now
    stored = stack([array.to_numpy() for array in merged.cube.measured])
    info.check_reflectance(stored, seen)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CloudfreeWarning)  # a repr is shown unasked
        clear_values = clear_where(stored, seen, info.scaling, info.valid_range)
    return np.asarray(clear_values.mean(axis=(1, 2)))


def _abbreviated(marks: list[str], limit: int = 40) -> list[str]:
    if len(marks) <= limit:
        return marks
    half = limit // 2
    return [*marks[:half], f"… {len(marks) - limit} more …", *marks[-half:]]
