"""The plots: a date before and after filling, a date in colour, and the clear share over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree import api
from xr_cloudfree.cube.conventions import Cube, parse_cube
from xr_cloudfree.cube.dates import parse_targets
from xr_cloudfree.cube.dims import dim_of, time_of
from xr_cloudfree.cube.scaling import Scaling, resolve_scaling, valid
from xr_cloudfree.cube.timestamps import Times, cube_times
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

# Colours by Okabe and Ito, which remain distinct with colour blindness; observed pixels are pale.
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
# Below this clear share the stretch is taken from the filled image.
_LEAST_CLEAR = 0.02


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
    """Plot a date as observed, the origin of its values, and the filled image, side by side.

    Computes that date. The panels share one stretch, taken from the clear pixels. If the date was not observed, the
    first panel shows the nearest observation, with its date as title.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube, as for `fill`.
    date : str, datetime, numpy.datetime64 or pandas.Timestamp
        One date.
    image : Dataset, optional
        Result of `fill` for this date, with ``layers="filled"`` or more. By default the date is filled for the plot.
    model : str or FillModel
        The model to fill with.
    bands : sequence of str, optional
        One band to show in grey, or three as red, green and blue; by default true colour if the cube has these bands.
    stretch : tuple of float
        Percentiles of the clear pixels that become black and white.
    figsize : tuple of float, optional
        Width and height in inches.
    **options
        Options of `fill`: the mask, the window and the scaling.

    Returns
    -------
    matplotlib.figure.Figure
        A figure with three panels.

    Raises
    ------
    OptionError
        If `date` is not a single date, or `image` is not the filled image of one date with its layer ``filled``.
    BandError
        If a band does not exist.
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
        # The cast is needed because the overloads of `fill` take either a DataArray or a Dataset.
        image = cast(xr.Dataset, api.fill(cast(Any, obj), date, model=model, layers="filled", **reading))
    own, instant = targets.own[0], targets.instants[0]
    shown = own if own >= 0 else int(np.argmin(np.abs(times - instant)))
    scene = _compute(obj, cube, show, image, times, shown, own, reading)
    model_name = str(image.attrs.get("cloudfree_model", model if isinstance(model, str) else model.spec.name))

    ends = limits(*scene.stretch_pixels(), stretch, show.natural)
    place = place_of(cube)
    if figsize is None:
        figsize = 12.0, float(np.clip(3.55 * place.ratio, 2.0, 9.0)) + 1.1
    figure: Figure = plt.figure(figsize=figsize, layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)

    _show(axes[0], colours(scene.before, scene.measured, ends), place)
    hidden = scene.measured & ~scene.clear
    _hatch(axes[0], hidden, place)
    note = " (hatched: not clear)" if hidden.any() else ""
    label = "As observed" if own >= 0 else f"Observed {_day(times[shown])}"
    axes[0].set_title(f"{label}, {_percent(scene.clear_share)} clear{note}", fontsize=10)
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
    remark = "" if own >= 0 else f", not observed ({_distance(times[shown], instant)})"
    figure.suptitle(
        f"{_day(targets.times[0])}{remark}: {_percent(scene.shares[FILLED])} filled by {model_name}",
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
    """Plot one date of a cube, or a filled image, in colour.

    Computes only the bands and the date that are shown. No mask is needed; clouds are shown as observed.

    Parameters
    ----------
    obj : DataArray or Dataset
        A cube, or the result of `fill` for one date.
    date : str, datetime, numpy.datetime64 or pandas.Timestamp, optional
        An observed date; by default the latest.
    bands : sequence of str, optional
        One band to show in grey, or three as red, green and blue; by default true colour if the cube has these
        bands, else near infrared, red and green, else the first three.
    ax : matplotlib.axes.Axes, optional
        Where to draw; a new figure by default.
    stretch : tuple of float
        Percentiles of the date's values that become black and white.
    nodata : float, optional
        Stored value that means "missing", if the attributes do not declare it.
    merge : {"day"}, optional
        Merge all scenes of a day, the earliest on top; without a mask, its clouds cover later scenes.
    figsize : tuple of float, optional
        Width and height in inches of a new figure.

    Returns
    -------
    matplotlib.axes.Axes
        The axes with the image.

    Raises
    ------
    TimeError
        If the date was not observed.
    BandError
        If a band does not exist.
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
    values = np.stack(_compute_all(_layers(cube, show, which)))
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
    """Plot the clear share of each date.

    Computes the clear mask of all dates, block by block; for a lazy cube only the shares are kept in memory.

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
        The axes with one line per date.

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
    shares = _compute_all([clear.mean(clear.dims[1:])])[0]
    times = cube_times(clear.rename({clear.dims[0]: "time"}))
    order = np.argsort(times)
    times, shares = times[order], shares[order]
    if ax is None:
        ax = plt.figure(figsize=figsize, layout="constrained").subplots()
    # Stems and dots remain distinct for dates close together, unlike bars.
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
    n_clear, median = int((shares > 0.95).sum()), _percent(float(np.median(shares)))
    ax.set_title(
        f"{times.size} dates, {n_clear} of them more than 95 % clear; median {median}",
        loc="left",
        fontsize=10,
    )
    return ax


@dataclass(frozen=True, eq=False)
class _Scene:
    """The arrays that `before_after` shows, in memory."""

    before: NDArray[Any]  # (band, y, x), as observed
    measured: NDArray[np.bool_]
    clear: NDArray[np.bool_]
    clear_share: float
    after: NDArray[Any]  # (band, y, x), filled
    state: NDArray[np.uint8]
    shares: dict[int, float]  # share of all pixels per state

    def stretch_pixels(self) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return the values and pixels that define the stretch: the clear ones, unless they are too few."""
        if self.clear.mean() >= _LEAST_CLEAR:
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
        shown_filled = filled
    else:
        # With a window of 0 days only that observation is read, and its observed pixels are the clear ones.
        options = {**reading, "window": 0, "layers": "filled", "model": "nearest"}
        shown_filled = api.fill(obj, times[shown], **options)["filled"]
    counts = [(filled == state).mean() for state, *_ in _STATES]
    lazy = [
        *_layers(cube, show, shown),
        *(thin(layer) for layer in (*after, filled, shown_filled)),
        (shown_filled == OBSERVED).mean(),
        *counts,
    ]
    values = _compute_all(lazy)
    n = len(show.index)
    before = np.stack(values[:n])
    return _Scene(
        before=before,
        measured=_valid(before, resolve_scaling(cube.arrays, nodata=reading.get("nodata"))),
        clear=values[2 * n + 1] == OBSERVED,
        clear_share=float(values[2 * n + 2]),
        after=np.stack(values[n : 2 * n]),
        state=values[2 * n],
        shares={state: float(share) for (state, *_), share in zip(_STATES, values[2 * n + 3 :], strict=True)},
    )


def _labels(band: xr.DataArray) -> list[str]:
    return [str(label) for label in band.to_numpy()]


def _of_image(cube: Cube, show: Composite, image: xr.Dataset) -> tuple[list[xr.DataArray], xr.DataArray]:
    """Return the bands to show and the layer ``filled`` of a filled image, each (y, x)."""
    names = [cube.bands[i] for i in show.index]
    variable = next((name for name in (cube.name, "reflectance") if name in image), None)
    if "filled" not in image or image["filled"].ndim > 2 or not (variable or set(names) <= set(image)):
        raise OptionError(
            f"the image has the variables {tuple(map(str, image.data_vars))} along {tuple(image.dims)}",
            "the filled image of one date with its layer 'filled'",
            "image=cube.cloudfree.fill(date, layers='filled'), or leave image out",
        )
    if variable is None or image[variable].ndim == 2:
        return [image[variable or name] for name in names], image["filled"]
    band = image[variable].dims[0]
    labels = list(cube.labels) if image.sizes[band] == len(cube.labels) else _labels(image[band])
    return [image[variable].isel({band: labels.index(name)}) for name in names], image["filled"]


def _read(
    obj: xr.DataArray | xr.Dataset, bands: Sequence[str] | None, options: dict[str, Any]
) -> tuple[Cube, dict[str, Any]]:
    """Return the cube, and the options to fill it with.

    All bands are filled; if they cannot be recognised by their names, only the bands to show are read and filled.
    """
    try:
        return _as_dates(parse_cube(obj), obj, options), options
    except BandError:
        if bands is None:
            raise
        options = {**options, "bands": bands}
        return _as_dates(parse_cube(obj, bands), obj, options), options


def _as_dates(cube: Cube, obj: xr.DataArray | xr.Dataset, options: dict[str, Any]) -> Cube:
    """Merge the scenes of the cube if the options request it."""
    if options.get("merge") is None:
        return cube
    reading, _ = ReadOptions.split(options)
    return api.merge_days(replace(api.read(obj, reading), repair=False)).cube  # the masks are not needed


def _with_time(obj: xr.DataArray | xr.Dataset) -> xr.DataArray | xr.Dataset:
    """Return an image without a time dimension as a cube of one date."""
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
    """Return the bands to show of one date, each (y, x)."""
    if "band" in cube.arrays[0].dims:
        return [thin(cube.arrays[0].isel(time=which, band=i)) for i in show.index]
    return [thin(cube.arrays[i].isel(time=which)) for i in show.index]


def _valid(values: NDArray[Any], scaling: Scaling) -> NDArray[np.bool_]:
    """Return True where all bands shown are valid, shape (y, x)."""
    everywhere: NDArray[np.bool_] = np.logical_and.reduce(valid(values, scaling), axis=0)
    return everywhere


def _compute_all(arrays: Sequence[xr.DataArray]) -> list[NDArray[Any]]:
    """Compute all arrays at once."""
    from dask.base import compute

    return [array.to_numpy() for array in compute(*arrays)]


def _show(ax: Axes, picture: NDArray[Any], place: Place) -> None:
    ax.imshow(place.turned(picture), extent=place.extent, aspect=place.aspect, interpolation="nearest")
    for spine in ax.spines.values():
        spine.set_color("0.6")


def _hatch(ax: Axes, where: NDArray[np.bool_], place: Place) -> None:
    """Hatch some pixels and draw their outline, leaving the image visible."""
    if not where.any():
        return
    import matplotlib as mpl

    # Contours are drawn through pixel centres; the padding closes regions at the border.
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
    """Format a share in per cent; 0 and 100 only if they are exact."""
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 < share < 1:
        return ">99 %"
    return f"{share:.0%}".replace("%", " %")


def _day(time: np.datetime64) -> str:
    """Format the date."""
    return str(time.astype("datetime64[D]"))


def _distance(observed: np.datetime64, target: np.datetime64) -> str:
    days = float((observed - target) / np.timedelta64(1, "D"))
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
