"""A summary of how the package reads a cube: the accessor's repr."""

from __future__ import annotations

import html
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree.api import masks_of, merge_days
from xr_cloudfree.cube.checks import check_scale
from xr_cloudfree.cube.conventions import Cube, parse_cube
from xr_cloudfree.cube.crs import crs_as_coordinate
from xr_cloudfree.cube.merge import parse_merge, scenes_of
from xr_cloudfree.cube.scaling import Scaling
from xr_cloudfree.cube.timestamps import MERGE_REMEDY, cube_times
from xr_cloudfree.cube.validity import clear_where
from xr_cloudfree.engine.blocks import stack
from xr_cloudfree.errors import CloudfreeError, CloudfreeWarning, InputError, MaskError, Remedy, option
from xr_cloudfree.layers import MASK_CHANGE, SCORE
from xr_cloudfree.masking.repair import Change
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.plan import CubeInfo, read

# A repr appears unasked: of a larger cube, values are not read.
MAX_BYTES = 2**29
# Of a cube with more values, masks are not made from the series: that takes seconds, not milliseconds.
MAX_MADE = 2**22
# Days that a line names.
_MOST_DAYS = 4
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


@dataclass(frozen=True)
class _Typing:
    """What to type: in Python, or on a command line if it has a spelling of options."""

    spelling: Callable[[str, str], str | None] | None = None

    def options(self, *arguments: str) -> str:
        """Return options as they are typed."""
        return self.remedy(option(*arguments))

    def remedy(self, remedy: Remedy) -> str:
        """Return a remedy as it is typed."""
        return str(remedy) if self.spelling is None else remedy.spell(self.spelling)

    def call(self, python: str, command: str = "") -> str:
        """Return a call of Python, or the option that does the same, if there is one."""
        return python if self.spelling is None else command or f"in Python {python}"

    def error(self, error: CloudfreeError) -> str:
        """Return the message of an error."""
        return f"{error.found}. Needed: {error.needed}. Try: {self.remedy(error.remedy)}"


def describe(
    obj: xr.DataArray | xr.Dataset,
    reading: ReadOptions | None = None,
    *,
    compute: bool = False,
    spelling: Callable[[str, str], str | None] | None = None,
) -> Summary:
    """Summarise how the package reads a cube.

    By default a chunked cube is not computed, of one larger than `MAX_BYTES` no value is read, given masks are not
    compared with the series, and of a cube with more values than `MAX_MADE` no masks are made from it, because a repr
    appears unasked.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube.
    reading : ReadOptions, optional
        How it is read; by default as its metadata say. Without `repair`, what that would change is told as well.
    compute : bool
        Compute the shares of each date in any case, and what the series masks and restores, block by block.
    spelling : callable, optional
        How options are typed on a command line, see `Remedy.spell`; by default the text is for Python.

    Returns
    -------
    Summary
        With the text of an error in place of what cannot be used: a repr must not raise.

    Raises
    ------
    InputError
        If `compute` is True and a file is damaged.
    """
    title, typed = f"xr_cloudfree: {type(obj).__name__}", _Typing(spelling)
    reading = reading or ReadOptions()
    try:
        lines, cube = _lines_of_cube(obj, reading)
    except CloudfreeError as error:
        return Summary(title, (("not usable", typed.error(error)),))
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CloudfreeWarning)  # a repr is shown unasked
            info = read(obj, replace(reading, repair=reading.repair or "auto"))
    except CloudfreeError as error:
        found_none = isinstance(error, MaskError) and reading.mask is None and reading.clear is None
        text = f"none: {typed.remedy(error.remedy)}" if found_none else typed.error(error)
        return Summary(title, (*lines, ("mask" if isinstance(error, MaskError) else "not usable", text)))
    lines.append(("mask", "none: made from the series" if info.rule.from_series else info.rule.label))
    lazy = any(array.chunks is not None for array in (*cube.arrays, info.quality))
    large = sum(array.nbytes for array in cube.arrays) > MAX_BYTES
    checked = not lazy and not large
    values, shares = info.scaling.source, tuple[DateShare, ...]()
    if cube.limits is not None and values == Scaling.source:
        values = "float values are the index"
    try:
        check_scale(cube.dtype, info.scaling, cube.sensor, cube.limits is not None)
        clear = _checked_mask(info) if checked else None
        made = info.rule.from_series and checked and sum(array.size for array in cube.arrays) <= MAX_MADE
        if compute or made:
            shares = _corrected_shares(info)
        elif clear is not None and not info.rule.from_series:
            shares = _shares(info, {"clear": clear.mean(axis=(1, 2))})
        elif not checked and info.scaling.scale == 1:
            values += " (looked at when they are computed)"
    except CloudfreeError as error:  # as `fill` refuses it
        if compute and isinstance(error, InputError):
            raise
        values = f"not usable: {typed.error(error)}"
    lines.append(("values", values))
    if cube.extras:
        names = ", ".join(cube.labels[i] for i in cube.extras)
        lines.append(("layers", f"{names}: taken from the nearest clear date, not estimated"))
    used = {*cube.bands, cube.name, info.quality.name}
    variables = crs_as_coordinate(obj).data_vars if isinstance(obj, xr.Dataset) else ()
    unused = [str(name) for name in variables if name not in used]
    if unused:
        how = typed.options(f"mask={unused[0]!r}")
        lines.append(("not used", f"{', '.join(unused)} (to take one as the mask: {how})"))
    if not shares and not values.startswith("not usable"):
        ask = typed.call(".cloudfree.clear_mask().mean(('y', 'x')).compute()", "--dates")
        lines.append(("clear", f"the cube is {'lazy' if lazy else 'large'}; ask for {ask}"))
    summary = Summary(title, tuple(lines), shares)
    return replace(summary, lines=(*lines, *_lines_of_repair(info, summary, typed)))


def _lines_of_cube(obj: xr.DataArray | xr.Dataset, reading: ReadOptions) -> tuple[list[tuple[str, str]], Cube]:
    """Return the lines on bands, sensor, grid and dates, and the cube."""
    merge = parse_merge(reading.merge)
    cube = parse_cube(crs_as_coordinate(obj) if isinstance(obj, xr.Dataset) else obj, reading.bands)
    times = cube_times(cube.arrays[0], several=None if merge else MERGE_REMEDY)
    order = np.sort(scenes_of(cube.arrays[0], times).times if merge else times)
    bands = ", ".join(
        name if role in (None, name) else f"{name} ({role})"
        for name, role in zip(cube.bands, cube.common_names, strict=True)
    )
    kind = "" if cube.limits is None else f", an index between {cube.limits[0]:g} and {cube.limits[1]:g}"
    lines = [
        ("bands", bands + kind),
        ("sensor", cube.sensor or "unknown"),
        ("grid", f"{cube.shape[0]} x {cube.shape[1]} pixels, {cube.crs or 'no CRS'}"),
        (
            "dates",
            f"{times.size if not merge else order.size}, {order[0].astype('M8[D]')} to {order[-1].astype('M8[D]')}",
        ),
    ]
    return lines, cube


def _lines_of_repair(info: CubeInfo, summary: Summary, typed: _Typing) -> list[tuple[str, str]]:
    """Return the lines on what the correction of the masks changes, or would change."""
    from_series, shares = info.rule.from_series, summary.shares
    if not info.repair or (from_series and not summary.compared):
        return []
    repairing = typed.options("repair=True")
    if not summary.compared:
        change = typed.call(f".cloudfree.clear_mask(repair=True, layers={MASK_CHANGE.name!r})", "--dates")
        return [("repair", f"{repairing} corrects the mask by the series, which takes longer; ask for {change}")]
    masked = sum(date.masked or 0.0 for date in shares) / len(shares)
    restored = sum(date.restored or 0.0 for date in shares) / len(shares)
    more = "" if from_series else f", {100 * restored:.2g} % restored"
    how = "made from the series" if from_series else f"with {repairing}"
    look = typed.call(".cloudfree.plot.mask(date)")
    lines = [("repair", f"{how}: {100 * masked:.2g} % of all pixels masked{more}; {look} shows them")]
    wholly = [date.day for date in shares if date.disagrees]
    if wholly and not from_series:
        days = ", ".join(wholly[:_MOST_DAYS])
        days += f" and {len(wholly) - _MOST_DAYS} more" if len(wholly) > _MOST_DAYS else ""
        look = typed.call(f".cloudfree.plot.mask({wholly[0]!r})")
        lines.append(("warning", f"the mask and the series disagree on most pixels of {days}; see {look}"))
    return lines


def _checked_mask(info: CubeInfo) -> NDArray[np.bool_]:
    """Make the checks of values that `fill` makes on a cube in memory, and return its given clear mask (time, y, x).

    Raises
    ------
    CloudfreeError
        If the values are refused.
    """
    given = replace(info, repair=False)
    seen = masks_of(given, check=False)["clear"]
    seen = seen.rename({name: role for role, name in info.cube.dims.items() if role != "band"})
    clear = seen.transpose("time", "y", "x").to_numpy()
    stored = stack([array.to_numpy() for array in merge_days(given).cube.measured])
    info.check_reflectance(stored, clear)
    return clear_where(stored, clear, info.scaling, info.valid_range)


def _corrected_shares(info: CubeInfo) -> tuple[DateShare, ...]:
    """Return the shares of each date, with what the series changes if the cube is read so."""
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
    return _shares(info, {str(name): mean.to_numpy() for name, mean in means.data_vars.items()})


def _shares(info: CubeInfo, columns: Mapping[str, NDArray[np.floating[Any]]]) -> tuple[DateShare, ...]:
    """Return the shares of each date in order of time, from an array (time,) for each field of `DateShare`."""
    days = [str(day) for day in info.times.astype("M8[D]")]
    rows = zip(*(column.tolist() for column in columns.values()), strict=True)
    dates = [DateShare(day, **dict(zip(columns, row, strict=True))) for day, row in zip(days, rows, strict=True)]
    return tuple(dates[date] for date in np.argsort(info.times))


def _abbreviated(marks: list[str], limit: int = 40) -> list[str]:
    if len(marks) <= limit:
        return marks
    half = limit // 2
    return [*marks[:half], f"… {len(marks) - limit} more …", *marks[-half:]]
