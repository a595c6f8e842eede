"""The plots."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree import api
from xr_cloudfree.cube.conventions import Cube, parse_cube
from xr_cloudfree.cube.dates import parse_targets
from xr_cloudfree.cube.dims import dim_of, time_of
from xr_cloudfree.cube.scaling import Scaling, resolve_scaling, valid
from xr_cloudfree.cube.stamps import Times, cube_times
from xr_cloudfree.errors import BandError, MissingDependencyError, OptionError, TimeError
from xr_cloudfree.layers import FILLED, NOT_FILLED, OBSERVED, PARTLY
from xr_cloudfree.models.protocol import FillModel
from xr_cloudfree.options import Merge, ReadOptions
from xr_cloudfree.plot.picture import (
    NEUTRAL,
    Composite,
    Place,
    check_stretch,
    choose_bands,
    colours,
    limits,
    place_of,
    thin,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours of Okabe and Ito, which colour-blind readers tell apart; what was observed stays in the background.
_ORANGE = (0.90, 0.62, 0.0)
_BLUE = (0.0, 0.45, 0.70)
_PALE = (0.87, 0.92, 0.95)
_SAND = (0.94, 0.89, 0.26)
_STATES = (
    (OBSERVED, "observed", _PALE),
    (FILLED, "filled", _ORANGE),
    (PARTLY, "filled in some bands", _SAND),
    (NOT_FILLED, "not filled", NEUTRAL),
)
_INK = "0.25"
# With fewer clear pixels than this the stretch is taken from the filled image.
_FEW = 0.02


def before_after(
    obj: xr.DataArray | xr.Dataset,
    date: Any,
    *,
    image: xr.Dataset | None = None,
    model: str | FillModel = "auto",
    bands: Sequence[str] | None = None,
    stretch: tuple[float, float] = (2.0, 98.0),
    figsize: tuple[float, float] | None = None,
    **options: Any,
) -> Figure:
    """Show a date as it was observed, where it was filled, and the filled image.

    Computes that date. The panels share one stretch, taken from the clear pixels. Where the date was not
    observed the first panel shows the nearest observation and says so.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube, as for `fill`.
    date : str, datetime, numpy.datetime64 or pandas.Timestamp
        One date.
    image : Dataset, optional
        What `fill` gave for this date with ``layers="filled"`` or more, if you have it: then it is not
        filled again.
    model : str or FillModel
        The model that fills.
    bands : sequence of str, optional
        One band to show in grey, or three as red, green and blue; by default true colour if the cube has it.
    stretch : tuple of float
        Percentiles of the clear pixels that become black and white.
    figsize : tuple of float, optional
        Width and height in inches.
    **options
        Options of `fill`: the mask, the window and the scaling.

    Returns
    -------
    matplotlib.figure.Figure
        With three panels.

    Raises
    ------
    OptionError
        If there is not one date, or `image` lacks what is needed.
    BandError
        If there is no such band.
    MissingDependencyError
        If matplotlib is not installed.
    """
    plt = pyplot()
    stretch = check_stretch(stretch)
    cube, reading = _read(obj, bands, options)
    times = cube_times(cube.arrays[0])
    targets = parse_targets(date, times)
    if not targets.scalar:
        raise OptionError(f"date is {date!r}", "one date", f"date={_day(targets.times[0])!r}")
    show = choose_bands(cube, bands)
    if image is None:
        # The cast: `fill` takes one kind or the other, and here it is not known which.
        image = cast(xr.Dataset, api.fill(cast(Any, obj), date, model=model, layers="filled", **reading))
    own, instant = targets.own[0], targets.instants[0]
    shown = own if own >= 0 else int(np.argmin(np.abs(times - instant)))
    scene = _compute(obj, cube, show, image, times, shown, own, reading)
    done = str(image.attrs.get("cloudfree_model", model if isinstance(model, str) else model.spec.name))

    ends = limits(*scene.bright(), stretch, show.natural)
    place = place_of(cube)
    if figsize is None:
        figsize = 12.0, float(np.clip(3.55 * place.ratio, 2.0, 9.0)) + 1.1
    figure: Figure = plt.figure(figsize=figsize, layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)

    _show(axes[0], colours(scene.before, scene.measured, ends), place)
    hidden = scene.measured & ~scene.clear
    _hatch(axes[0], hidden, place)
    note = " (hatched: not clear)" if hidden.any() else ""
    what = "As observed" if own >= 0 else f"Observed {_day(times[shown])}"
    axes[0].set_title(f"{what}, {_percent(scene.clear_share)} clear{note}", fontsize=10)
    origin = np.empty((*scene.state.shape, 3), np.float32)
    for state, _, colour in _STATES:
        origin[scene.state == state] = colour
    _show(axes[1], origin, place)
    axes[1].set_title("Where the values come from", fontsize=10)
    _show(axes[2], colours(scene.after, scene.state != NOT_FILLED, ends), place)
    axes[2].set_title("Filled", fontsize=10)

    _legend(
        axes[1],
        [(f"{name} {_percent(scene.shares[s])}", c) for s, name, c in _STATES if scene.shares[s] > 0],
    )
    _map_axes(axes[0], place)
    for ax in axes[1:]:
        ax.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
    axes[2].set_xlabel(show.label, color=_INK, fontsize=9)
    told = "" if own >= 0 else f", not observed ({_distance(times[shown], instant)})"
    figure.suptitle(
        f"{_day(targets.times[0])}{told}: {_percent(scene.shares[FILLED])} filled by {done}",
        fontweight="bold",
    )
    return figure


def rgb(
    obj: xr.DataArray | xr.Dataset,
    date: Any = None,
    *,
    bands: Sequence[str] | None = None,
    ax: Axes | None = None,
    stretch: tuple[float, float] = (2.0, 98.0),
    nodata: float | None = None,
    merge: Merge | None = None,
    figsize: tuple[float, float] | None = None,
) -> Axes:
    """Show one date of a cube, or an image that was filled, in colour.

    Computes the bands of that date that are shown. No mask is needed: clouds are shown as they are.

    Parameters
    ----------
    obj : DataArray or Dataset
        A cube, or what `fill` gave for one date.
    date : str, datetime, numpy.datetime64 or pandas.Timestamp, optional
        An observed date; by default the last.
    bands : sequence of str, optional
        One band to show in grey, or three as red, green and blue; by default true colour if the cube has it,
        else near infrared, red and green, else the first three.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    stretch : tuple of float
        Percentiles of the date's values that become black and white.
    nodata : float, optional
        Stored value that means "missing", where the attributes do not tell.
    merge : {"day"}, optional
        Show all scenes of a day as one, the earliest on top; as no mask is asked for, its clouds as well.
    figsize : tuple of float, optional
        Width and height in inches of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        With the picture.

    Raises
    ------
    TimeError
        If the date was not observed.
    BandError
        If there is no such band.
    MissingDependencyError
        If matplotlib is not installed.
    """
    plt = pyplot()
    stretch = check_stretch(stretch)
    obj = _with_time(obj)
    options: dict[str, Any] = {"nodata": nodata, "merge": merge}
    if merge is not None:
        options["clear"] = xr.ones_like(_read(obj, bands, {})[0].template, dtype=bool)
    cube, _ = _read(obj, bands, options)
    show = choose_bands(cube, bands)
    which, title = 0, ""
    if "time" in cube.arrays[0].coords:
        times = cube_times(cube.arrays[0])
        which = int(np.argmax(times)) if date is None else _observed(date, times)
        title = _day(times[which])
    scaling = resolve_scaling(cube.arrays, nodata=nodata)
    values = np.stack(_now(_layers(cube, show, which)))
    known = _valid(values, scaling)
    place = place_of(cube)
    if ax is None:
        if figsize is None:
            figsize = 5.5, float(np.clip(4.6 * place.ratio, 2.0, 10.0)) + 0.8
        ax = plt.figure(figsize=figsize, layout="constrained").subplots()
    _show(ax, colours(values, known, limits(values, known, stretch, show.natural)), place)
    _map_axes(ax, place)
    ax.set_title(": ".join(part for part in (title, show.label) if part))
    return ax


def timeline(
    obj: xr.DataArray | xr.Dataset,
    *,
    ax: Axes | None = None,
    figsize: tuple[float, float] = (9.0, 2.8),
    **options: Any,
) -> Axes:
    """Show the clear share of each date.

    Computes the clear mask of all dates, block by block; of a lazy cube only the shares are kept.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube, as for `fill`.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    figsize : tuple of float
        Width and height in inches of a new figure.
    **options
        Options of `clear_mask`: the mask and the scaling.

    Returns
    -------
    matplotlib.axes.Axes
        With a line per date.

    Raises
    ------
    MissingDependencyError
        If matplotlib is not installed.
    """
    plt = pyplot()
    import matplotlib.dates
    from matplotlib.ticker import PercentFormatter

    dates: Any = matplotlib.dates

    clear = api.clear_mask(obj, **options)
    shares = _now([clear.mean(clear.dims[1:])])[0]
    times = cube_times(clear.rename({clear.dims[0]: "time"}))
    order = np.argsort(times)
    times, shares = times[order], shares[order]
    if ax is None:
        ax = plt.figure(figsize=figsize, layout="constrained").subplots()
    # Dates may lie close together: stems and dots stay apart where bars would run into one.
    few = times.size <= 80
    ax.vlines(times, 0, shares, color=_BLUE, lw=1.4 if few else 0.7)
    ax.plot(times, shares, "o", color=_BLUE, ms=4.5 if few else 2.2, clip_on=False)
    ax.set_ylim(0, 1)
    ax.margins(x=0.02)
    ax.yaxis.set_major_formatter(PercentFormatter(1.0))
    locator = dates.AutoDateLocator(minticks=4, maxticks=9)
    ax.xaxis.set_major_locator(locator)
    ax.xaxis.set_major_formatter(dates.ConciseDateFormatter(locator))
    ax.spines[["top", "right"]].set_visible(False)
    ax.grid(axis="y", color="0.9", lw=0.8)
    ax.set_axisbelow(True)
    ax.set_ylabel("clear")
    most, middle = int((shares > 0.95).sum()), _percent(float(np.median(shares)))
    ax.set_title(
        f"{times.size} dates, {most} of them more than 95 % clear; median {middle}",
        loc="left",
        fontsize=10,
    )
    return ax


@dataclass(frozen=True, eq=False)
class _Scene:
    """What before and after show, in memory."""

    before: NDArray[Any]  # (band, y, x), as observed
    measured: NDArray[np.bool_]
    clear: NDArray[np.bool_]
    clear_share: float
    after: NDArray[Any]  # (band, y, x), filled
    state: NDArray[np.uint8]
    shares: dict[int, float]  # of each state, in all pixels

    def bright(self) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """The pixels that make the stretch: those that are clear, unless they are too few."""
        if self.clear.mean() >= _FEW:
            return self.before, self.clear
        return self.after, self.state != NOT_FILLED


def _compute(
    obj: Any,
    cube: Cube,
    show: Composite,
    image: xr.Dataset,
    times: Times,
    shown: int,
    own: int,
    reading: dict[str, Any],
) -> _Scene:
    after, filled = _of_image(cube, show, image)
    if own >= 0:
        there = filled
    else:
        # A window without width: only the nearest observation is read, and what it observed is clear.
        seen = {**reading, "window": 0, "layers": "filled", "model": "nearest", "screen": False}
        there = api.fill(obj, times[shown], **seen)["filled"]
    counts = [(filled == state).mean() for state, *_ in _STATES]
    lazy = [
        *_layers(cube, show, shown),
        *(thin(layer) for layer in (*after, filled, there)),
        (there == OBSERVED).mean(),
        *counts,
    ]
    done = _now(lazy)
    n = len(show.index)
    before = np.stack(done[:n])
    return _Scene(
        before=before,
        measured=_valid(before, resolve_scaling(cube.arrays, nodata=reading.get("nodata"))),
        clear=done[2 * n + 1] == OBSERVED,
        clear_share=float(done[2 * n + 2]),
        after=np.stack(done[n : 2 * n]),
        state=done[2 * n],
        shares={state: float(share) for (state, *_), share in zip(_STATES, done[2 * n + 3 :], strict=True)},
    )


def _labels(band: xr.DataArray) -> list[str]:
    return [str(label) for label in band.to_numpy()]


def _of_image(cube: Cube, show: Composite, image: xr.Dataset) -> tuple[list[xr.DataArray], xr.DataArray]:
    """The bands to show and the layer of origin of a filled image, each (y, x)."""
    names = [cube.bands[i] for i in show.index]
    one = next((name for name in (cube.name, "reflectance") if name in image), None)
    if "filled" not in image or image["filled"].ndim > 2 or not (one or set(names) <= set(image)):
        raise OptionError(
            f"the image has the variables {tuple(map(str, image.data_vars))} along {tuple(image.dims)}",
            "the image of one date with its layer 'filled'",
            "image=cube.cloudfree.fill(date, layers='filled'), or leave image out",
        )
    if one is None or image[one].ndim == 2:
        return [image[one or name] for name in names], image["filled"]
    band = image[one].dims[0]
    labels = list(cube.labels) if image.sizes[band] == len(cube.labels) else _labels(image[band])
    return [image[one].isel({band: labels.index(name)}) for name in names], image["filled"]


def _read(
    obj: xr.DataArray | xr.Dataset, bands: Sequence[str] | None, options: dict[str, Any]
) -> tuple[Cube, dict[str, Any]]:
    """The cube, and the options with which it is filled.

    All bands are filled, and some shown; where names do not tell what is a band, only those shown are filled.
    """
    try:
        return _as_dates(parse_cube(obj), obj, options), options
    except BandError:
        if bands is None:
            raise
        options = {**options, "bands": bands}
        return _as_dates(parse_cube(obj, bands), obj, options), options


def _as_dates(cube: Cube, obj: xr.DataArray | xr.Dataset, options: dict[str, Any]) -> Cube:
    """The cube with its scenes merged, if that is asked for."""
    if options.get("merge") is None:
        return cube
    reading, _ = ReadOptions.split(options)
    return api.merged(api.read(obj, reading)).cube


def _with_time(obj: xr.DataArray | xr.Dataset) -> xr.DataArray | xr.Dataset:
    """An image of one date as a cube of one date."""
    if isinstance(obj, xr.DataArray | xr.Dataset) and dim_of(obj, "time") is None:
        return obj.expand_dims(time_of(obj) or "time")
    return obj


def _observed(date: Any, times: Times) -> int:
    targets = parse_targets(date, times)
    if not targets.scalar:
        raise OptionError(f"date is {date!r}", "one date", f"date={_day(targets.times[0])!r}")
    if targets.own[0] < 0:
        nearest = _day(times[np.argmin(np.abs(times - targets.times[0]))])
        raise TimeError(
            f"nothing was observed on {_day(targets.times[0])}",
            "an observed date",
            f"date={nearest!r}, which is the nearest, or cube.cloudfree.fill({_day(targets.times[0])!r})",
        )
    return targets.own[0]


def _layers(cube: Cube, show: Composite, which: int) -> list[xr.DataArray]:
    """The bands to show of one date, each (y, x)."""
    if "band" in cube.arrays[0].dims:
        return [thin(cube.arrays[0].isel(time=which, band=i)) for i in show.index]
    return [thin(cube.arrays[i].isel(time=which)) for i in show.index]


def _valid(values: NDArray[Any], scaling: Scaling) -> NDArray[np.bool_]:
    """Where all bands that are shown hold a value, (y, x)."""
    everywhere: NDArray[np.bool_] = np.logical_and.reduce(valid(values, scaling), axis=0)
    return everywhere


def _now(arrays: Sequence[xr.DataArray]) -> list[NDArray[Any]]:
    """The values, all from one computation: a plot shows numbers, so this is where they are made."""
    from dask.base import compute

    return [array.to_numpy() for array in compute(*arrays)]


def _show(ax: Axes, picture: NDArray[Any], place: Place) -> None:
    ax.imshow(place.turned(picture), extent=place.extent, aspect=place.aspect, interpolation="nearest")
    for spine in ax.spines.values():
        spine.set_color("0.6")


def _hatch(ax: Axes, where: NDArray[np.bool_], place: Place) -> None:
    """Hatch some pixels and draw their outline, so that what lies below stays visible."""
    if not where.any():
        return
    import matplotlib as mpl

    # Drawn at the pixels' centres, with a rim around: regions at the border are closed as well.
    inside = np.pad(place.turned(where).astype(float), 1)
    left, right, bottom, top = place.extent
    rows, columns = where.shape
    x = left + (right - left) * (np.arange(-1, columns + 1) + 0.5) / columns
    y = top + (bottom - top) * (np.arange(-1, rows + 1) + 0.5) / rows
    with mpl.rc_context({"hatch.color": _ORANGE, "hatch.linewidth": 0.7}):
        ax.contourf(x, y, inside, [0.5, 1.5], colors="none", hatches=["/////"])
    ax.contour(x, y, inside, [0.5], colors=[_ORANGE], linewidths=0.9)
    ax.set(xlim=(left, right), ylim=(bottom, top))


def _map_axes(ax: Axes, place: Place) -> None:
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel(place.labels[0])
    ax.set_ylabel(place.labels[1])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, prune="both"))
    ax.ticklabel_format(style="plain", useOffset=False)
    ax.tick_params(labelsize=8, color="0.6", labelcolor=_INK)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set(color=_INK, fontsize=9)


def _legend(ax: Axes, entries: Sequence[tuple[str, Any]]) -> None:
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=colour, edgecolor="0.6", lw=0.5, label=name) for name, colour in entries]
    ax.legend(
        handles=handles,
        loc="upper center",
        bbox_to_anchor=(0.5, 0.0),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        handlelength=1.0,
        handleheight=1.0,
        labelcolor=_INK,
    )


def _percent(share: float) -> str:
    """A share in per cent that says 0 and 100 only where it means it."""
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 < share < 1:
        return ">99 %"
    return f"{share:.0%}".replace("%", " %")


def _day(time: np.datetime64) -> str:
    """The date, with the time of day where it has one that matters to people: to the minute."""
    return str(time.astype("datetime64[D]"))


def _distance(seen: np.datetime64, wanted: np.datetime64) -> str:
    days = float((seen - wanted) / np.timedelta64(1, "D"))
    unit = "day" if abs(days) == 1 else "days"
    return f"nearest observation {abs(days):.3g} {unit} {'before' if days < 0 else 'after'}"


def pyplot() -> Any:
    """Import matplotlib's pyplot.

    Raises
    ------
    MissingDependencyError
        If it is not installed.
    """
    try:
        import matplotlib.pyplot as plt
    except ImportError as error:
        raise MissingDependencyError(
            "matplotlib is not installed", "matplotlib, to plot", 'pip install "xr-cloudfree[viz]"'
        ) from error
    return plt
