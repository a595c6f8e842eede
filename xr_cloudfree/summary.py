"""A summary of how the package reads a cube: the accessor's repr."""

from __future__ import annotations

import html
import warnings
from dataclasses import dataclass, replace

import numpy as np
import xarray as xr

from xr_cloudfree.api import masks_of, merge_days
from xr_cloudfree.cube.checks import check_scale
from xr_cloudfree.cube.conventions import parse_cube
from xr_cloudfree.cube.crs import crs_as_coordinate
from xr_cloudfree.cube.merge import scenes_of
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.cube.timestamps import MERGE_REMEDY, cube_times
from xr_cloudfree.engine.blocks import stack
from xr_cloudfree.errors import CloudfreeError, CloudfreeWarning, InputError, MaskError
from xr_cloudfree.layers import MASK_CHANGE, SCORE
from xr_cloudfree.masking.repair import Change
from xr_cloudfree.options import Merge, ReadOptions
from xr_cloudfree.plan import CubeInfo, read

# A repr appears unasked: of a larger cube, values are not read.
MAX_BYTES = 2**29
# Of a cube with more values, masks are not made from the series: that takes seconds, not milliseconds.
MAX_MADE = 2**22
# The mask of a date and the series disagree if more than this share of the pixels that can be compared is changed.
_WHOLLY = 0.5


@dataclass(frozen=True)
class DateShare:
    """Shares of the pixels of one date, in [0, 1].

    Parameters
    ----------
    day : str
        The date.
    clear : float
        Clear by the given mask, or by the mask that is made from the series if there is none.
    masked, restored : float, optional
        Masked and restored if the mask is corrected by the series; None if that was not computed.
    compared : float
        Compared with the series.
    """

    day: str
    clear: float
    masked: float | None = None
    restored: float | None = None
    compared: float = 1.0

    @property
    def disagrees(self) -> bool:
        """Whether the series changes the mask of most pixels."""
        return (self.masked or 0.0) + (self.restored or 0.0) > _WHOLLY * self.compared

    @property
    def changes(self) -> str:
        """What the series masks and restores, in per cent of the pixels."""
        both = (("-", self.masked), ("+", self.restored))
        return " ".join(f"{sign}{share:.0%}"[:-1] for sign, share in both if share is not None and share >= 0.005)


@dataclass(frozen=True)
class Summary:
    """Lines of (label, text), and the shares of each date if they are known without computing a lazy cube."""

    title: str
    lines: tuple[tuple[str, str], ...]
    shares: tuple[DateShare, ...] = ()

    @property
    def compared(self) -> bool:
        """Whether the shares that the series masks and restores are known."""
        return any(date.masked is not None for date in self.shares)

    def text(self) -> str:
        """Return the summary as plain text."""
        width = max(len(label) for label, _ in self.lines)
        rows = [f"<{self.title}>", *(f"  {label:<{width}}  {value}" for label, value in self.lines)]
        if self.shares:
            note = ", with what the series masks (-) and restores (+)" if self.compared else ""
            rows.append(f"  clear per date [%]{note}")
            marks = _abbreviated([f"{date.day} {date.clear:4.0%} {date.changes}".rstrip() for date in self.shares])
            wide = max(len(mark) for mark in marks)
            each = 5 if wide <= 15 else 4
            lines = (marks[i : i + each] for i in range(0, len(marks), each))
            rows += ["    " + "   ".join(f"{mark:<{wide}}" for mark in line).rstrip() for line in lines]
        return "\n".join(rows)

    def html(self) -> str:
        """Return the summary as HTML for notebooks."""
        rows = "".join(
            f"<tr><th style='text-align:left'>{html.escape(label)}</th>"
            f"<td style='text-align:left'>{html.escape(value)}</td></tr>"
            for label, value in self.lines
        )
        bars = ""
        if self.shares:
            width = max(2, 480 // len(self.shares))
            parts = "".join(_bar(date, width) for date in self.shares)
            bars = (
                f"<div style='font-size:smaller'>clear share per date, "
                f"{self.shares[0].day} to {self.shares[-1].day}</div><div style='height:42px'>{parts}</div>"
            )
        return f"<div><strong>{html.escape(self.title)}</strong><table>{rows}</table>{bars}</div>"


def _bar(date: DateShare, width: int) -> str:
    """Return the bar of the clear share of one date."""
    height = max(round(40 * date.clear), 1)
    style = f"display:inline-block;width:{width}px;margin-right:1px;height:{height}px;background:#3b82c4"
    return f"<div title='{date.day}: {date.clear:.0%} clear' style='{style}'></div>"


def describe(obj: xr.DataArray | xr.Dataset, merge: Merge | None = None, *, compute: bool = False) -> Summary:
    """Summarise how the package reads a cube.

    By default a chunked cube is not computed, of one larger than `MAX_BYTES` no value is read, given masks are not
    compared with the series, and of a cube with more values than `MAX_MADE` no masks are made from it, because a repr
    appears unasked.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube.
    merge : {"day"}, optional
        As in `fill`.
    compute : bool
        Compute the shares of each date in any case, and what the series masks and restores, block by block.

    Returns
    -------
    Summary
        With the text of an error in place of what cannot be used: a repr must not raise.

    Raises
    ------
    InputError
        If `compute` is True and a file is damaged.
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
            info = read(obj, ReadOptions(merge=merge, repair="auto"))
    except MaskError as error:
        return Summary(title, (*lines, ("mask", f"none: {error.remedy}")))
    except CloudfreeError as error:
        return Summary(title, (*lines, ("not usable", str(error))))
    lines.append(("mask", "none: made from the series" if info.rule.from_series else info.rule.label))
    lazy = any(array.chunks is not None for array in (*cube.arrays, info.quality))
    large = sum(array.nbytes for array in cube.arrays) > MAX_BYTES
    checked = not lazy and not large
    values, shares = info.scaling.source, tuple[DateShare, ...]()
    if cube.limits is not None and values == Scaling.source:
        values = "float values are the index"
    try:
        check_scale(cube.dtype, info.scaling, cube.sensor, cube.limits is not None)
        if checked:
            _check_values(info)
        made = info.rule.from_series and checked and sum(array.size for array in cube.arrays) <= MAX_MADE
        if compute or made:
            shares = _date_shares(info)
        elif checked and not info.rule.from_series:
            shares = _date_shares(replace(info, repair=False))
        elif not checked and info.scaling.scale == 1:
            values += " (looked at when they are computed)"
    except CloudfreeError as error:  # as `fill` refuses it
        if compute and isinstance(error, InputError):
            raise
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
    if not shares and not values.startswith("not usable"):
        reason = "lazy" if lazy else "large"
        lines.append(("clear", f"the cube is {reason}; ask for .cloudfree.clear_mask().mean(('y', 'x')).compute()"))
    summary = Summary(title, tuple(lines), shares)
    if not info.repair or (info.rule.from_series and not summary.compared):
        return summary
    if not summary.compared:
        change = f".cloudfree.clear_mask(repair=True, layers={MASK_CHANGE.name!r})"
        how = f"repair=True corrects the mask by the series, which takes longer; ask for {change}"
        return replace(summary, lines=(*lines, ("repair", how)))
    lines.append(("repair", _repair_text(shares, info.rule.from_series)))
    wholly = [date.day for date in shares if date.disagrees]
    if wholly and not info.rule.from_series:
        lines.append(("warning", _wholly_text(wholly)))
    return replace(summary, lines=tuple(lines))


def _check_values(info: CubeInfo) -> None:
    """Make the checks of values that `fill` makes, on a cube in memory.

    Raises
    ------
    CloudfreeError
        If the values are refused.
    """
    given = replace(info, repair=False)
    clear = masks_of(given, check=False)["clear"]
    clear = clear.rename({name: role for role, name in info.cube.dims.items() if role != "band"})
    stored = stack([array.to_numpy() for array in merge_days(given).cube.measured])
    info.check_reflectance(stored, clear.transpose("time", "y", "x").to_numpy())


def _date_shares(info: CubeInfo) -> tuple[DateShare, ...]:
    """Return the shares of each date in order of time, with what the series changes if the cube is read so."""
    layers = (MASK_CHANGE.name, SCORE.name) if info.repair else ()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", CloudfreeWarning)  # a repr is shown unasked
        masks = masks_of(info, layers)
        parts = {"clear": masks["clear"]}
        if layers:
            change = masks[MASK_CHANGE.name]
            parts["masked"] = (change == Change.CLOUD) | (change == Change.SHADOW)
            parts["restored"] = change == Change.RESTORED
            parts["compared"] = masks[SCORE.name].notnull()
            if not info.rule.from_series:
                parts["clear"] = (masks["clear"] | parts["masked"]) & ~parts["restored"]
        over = [info.cube.dims[axis] for axis in ("y", "x")]
        means = xr.Dataset({name: part.mean(over) for name, part in parts.items()}).compute()
    columns = {str(name): mean.to_numpy().tolist() for name, mean in means.data_vars.items()}
    days = [str(day) for day in info.times.astype("M8[D]")]
    dates = [
        DateShare(day, **dict(zip(columns, row, strict=True)))
        for day, *row in zip(days, *columns.values(), strict=True)
    ]
    return tuple(dates[date] for date in np.argsort(info.times))


def _repair_text(shares: tuple[DateShare, ...], from_series: bool) -> str:
    masked = sum(date.masked or 0.0 for date in shares) / len(shares)
    restored = sum(date.restored or 0.0 for date in shares) / len(shares)
    more = "" if from_series else f", {100 * restored:.2g} % restored"
    how = "made from the series" if from_series else "with repair=True"
    return f"{how}: {100 * masked:.2g} % of all pixels masked{more}; .cloudfree.plot.mask(date) shows them"


def _wholly_text(days: list[str], most: int = 4) -> str:
    more = f" and {len(days) - most} more" if len(days) > most else ""
    look = f".cloudfree.plot.mask({days[0]!r})"
    return f"the mask and the series disagree on most pixels of {', '.join(days[:most])}{more}; see {look}"


def _abbreviated(marks: list[str], limit: int = 40) -> list[str]:
    if len(marks) <= limit:
        return marks
    half = limit // 2
    return [*marks[:half], f"… {len(marks) - limit} more …", *marks[-half:]]
