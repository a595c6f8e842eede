"""The plots: a date before and after filling, its mask, a date in colour, and the clear share over time."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree import api
from xr_cloudfree.cube.conventions import Cube
from xr_cloudfree.cube.dates import parse_targets
from xr_cloudfree.cube.quality import SERIES
from xr_cloudfree.cube.scaling import resolve_scaling
from xr_cloudfree.cube.timestamps import Times, cube_times
from xr_cloudfree.errors import (
    OptionError,
)
from xr_cloudfree.layers import FILLED, NOT_FILLED, OBSERVED, PARTLY
from xr_cloudfree.masking.repair import Change
from xr_cloudfree.models.protocol import FillModel
from xr_cloudfree.options import Merge
from xr_cloudfree.plot.drawing import (
    BLUE,
    GREEN,
    INK,
    ORANGE,
    PALE,
    SAND,
    hatch,
    legend,
    map_axes,
    percent,
    pyplot,
    show_picture,
)
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
from xr_cloudfree.plot.reading import (
    all_valid,
    band_layers,
    compute_all,
    day,
    given_clear,
    observed_index,
    read_cube,
    with_time,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_STATES = (
    (OBSERVED, "observed", PALE),
    (FILLED, "filled", ORANGE),
    (PARTLY, "filled in some bands", SAND),
    (NOT_FILLED, "not filled", NEUTRAL),
)
# How a pixel of the mask differs from the given one: code, whether it is clear now, name, colour.
_CHANGES = (
    (Change.AS_GIVEN, True, "clear as given", PALE),
    (Change.RESTORED, True, "restored", GREEN),
    (Change.AS_GIVEN, False, "not clear as given", NEUTRAL),
    (Change.CLOUD, False, "masked: cloud", ORANGE),
    (Change.SHADOW, False, "masked: shadow", BLUE),
)
# Below this clear share the stretch is taken from the filled image, or from all pixels.
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
        Percentiles of the clear pixels that become dark and white. In grey the lower one is black.
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
    cube, reading = read_cube(obj, bands, options)
    times = cube_times(cube.arrays[0])
    targets = parse_targets(date, times)
    if not targets.scalar:
        raise OptionError(f"date is {date!r}", "one date", f"date={day(targets.times[0])!r}")
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
    figure, axes = _three_panels(plt, place, figsize)
    show_picture(axes[0], colours(scene.before, scene.measured, ends), place)
    hidden = scene.measured & ~scene.clear
    hatch(axes[0], hidden, place)
    note = " (hatched: not clear)" if hidden.any() else ""
    label = "As observed" if own >= 0 else f"Observed {day(times[shown])}"
    axes[0].set_title(f"{label}, {percent(scene.clear_share)} clear{note}", fontsize=10)
    origin = np.empty((*scene.state.shape, 3), np.float32)
    for state, _, colour in _STATES:
        origin[scene.state == state] = colour
    show_picture(axes[1], origin, place)
    axes[1].set_title("Where the values come from", fontsize=10)
    show_picture(axes[2], colours(scene.after, scene.state != NOT_FILLED, ends), place)
    axes[2].set_title("Filled", fontsize=10)

    legend(
        axes[1],
        [(f"{name} {percent(scene.shares[s])}", c) for s, name, c in _STATES if scene.shares[s] > 0],
    )
    axes[2].set_xlabel(show.label, color=INK, fontsize=9)
    remark = "" if own >= 0 else f", not observed ({_distance(times[shown], instant)})"
    figure.suptitle(
        f"{day(targets.times[0])}{remark}: {percent(scene.shares[FILLED])} filled by {model_name}",
        fontweight="bold",
    )
    return figure


def mask(
    obj: xr.DataArray | xr.Dataset,
    date: Any,
    *,
    bands: Sequence[str] | None = None,
    stretch: tuple[float, float] = (2.0, 98.0),
    figsize: tuple[float, float] | None = None,
    **options: Any,
) -> Figure:
    """Plot a date as observed, its given mask, and how the series corrected the mask, side by side.

    Computes that date, and for the correction the masks of all dates, block by block.

    Parameters
    ----------
    obj : DataArray or Dataset
        The cube, as for `fill`.
    date : str, datetime, numpy.datetime64 or pandas.Timestamp
        An observed date.
    bands : sequence of str, optional
        One band to show in grey, or three as red, green and blue; by default true colour if the cube has these bands.
        The masks are corrected by all bands of the cube.
    stretch : tuple of float
        Percentiles of the pixels that are clear by the corrected mask, that become dark and white. In grey the lower
        one is black.
    figsize : tuple of float, optional
        Width and height in inches.
    **options
        Options of `clear_mask`: the mask and the scaling. `repair` is ``"auto"`` by default.

    Returns
    -------
    matplotlib.figure.Figure
        A figure with three panels.

    Raises
    ------
    TimeError
        If the date was not observed.
    BandError
        If a band does not exist.
    OptionError
        If ``repair=False`` is given for masks that are not made from the series.
    MissingDependencyError
        If matplotlib is not installed.
    """
    plt = pyplot()
    stretch = check_stretch(stretch)
    cube, reading = read_cube(obj, bands, options)
    times = cube_times(cube.arrays[0])
    which = observed_index(date, times)
    show = choose_bands(cube, bands)
    masks = api.clear_mask(obj, layers="mask_change", **{"repair": "auto", **reading})
    time = masks["clear"].dims[0]
    clear, change = (masks[name].isel({time: which}) for name in ("clear", "mask_change"))
    given = xr.where(change == Change.AS_GIVEN, clear, change != Change.RESTORED)
    states = [(change == code) & (clear == seen) for code, seen, *_ in _CHANGES]
    lazy = [*band_layers(cube, show, which), thin(clear), thin(given), *(thin(state) for state in states)]
    values = compute_all([*lazy, given.mean(), clear.mean(), *(state.mean() for state in states)])
    n = len(show.index)
    image, seen, was_seen = np.stack(values[:n]), values[n], values[n + 1]
    given_share, clear_share, *shares = (float(share) for share in values[len(lazy) :])

    known = all_valid(image, resolve_scaling(cube.arrays, nodata=reading.get("nodata")))
    where = known & seen if (known & seen).mean() >= _LEAST_CLEAR else known
    place = place_of(cube)
    figure, axes = _three_panels(plt, place, figsize, text=1.6)
    show_picture(axes[0], colours(image, known, limits(image, where, stretch, show.natural)), place)
    axes[0].set_title(f"As observed, {show.label}", fontsize=10)
    show_picture(axes[1], np.where(was_seen[..., None], PALE, NEUTRAL).astype(np.float32), place)
    made = masks.attrs["cloudfree_mask"] == SERIES
    title = "No mask given" if made else f"Given mask, {percent(given_share)} clear"
    axes[1].set_title(title, fontsize=10)
    picture = np.empty((*seen.shape, 3), np.float32)
    for (*_, colour), state in zip(_CHANGES, values[n + 2 : len(lazy)], strict=True):
        picture[state] = colour
    show_picture(axes[2], picture, place)
    axes[2].set_title(
        f"{'Made from' if made else 'Corrected by'} the series, {percent(clear_share)} clear", fontsize=10
    )
    part = dict(zip((name for *_, name, _ in _CHANGES), shares, strict=True))
    entries = ((name, colour) for *_, name, colour in _CHANGES)
    legend(figure, [(f"{name} {percent(part[name])}", colour) for name, colour in entries if part[name]])
    masked = f"{percent(part['masked: cloud'] + part['masked: shadow'])} masked"
    restored = "" if made else f" and {percent(part['restored'])} restored"
    figure.suptitle(f"{day(times[which])}: {masked}{restored} by the series", fontweight="bold")
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

    Computes only the bands and the date that are shown, and that date of the quality layer if there is one, for the
    stretch. No mask is needed; clouds are shown as observed.

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
        Percentiles of the date's clear pixels, or of all where that is not known or too few are clear, that become
        dark and white. In grey the lower one is black.
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
    obj = with_time(obj)
    options: dict[str, Any] = {"nodata": nodata, "merge": merge}
    if merge is not None:
        options["clear"] = xr.ones_like(read_cube(obj, bands, {})[0].template, dtype=bool)
    cube, _ = read_cube(obj, bands, options)
    show = choose_bands(cube, bands)
    which, title = 0, ""
    if "time" in cube.arrays[0].coords:
        times = cube_times(cube.arrays[0])
        which = int(np.argmax(times)) if date is None else observed_index(date, times)
        title = day(times[which])
    scaling = resolve_scaling(cube.arrays, nodata=nodata)
    values = np.stack(compute_all(band_layers(cube, show, which)))
    known = all_valid(values, scaling)
    place = place_of(cube)
    if ax is None:
        if figsize is None:
            figsize = 5.5, float(np.clip(4.6 * place.ratio, 2.0, 10.0)) + 0.8
        ax = plt.figure(figsize=figsize, layout="constrained").subplots()
    clear = None if merge is not None else given_clear(obj, cube, show, which)
    where = known if clear is None or (known & clear).mean() < _LEAST_CLEAR else known & clear
    show_picture(ax, colours(values, known, limits(values, where, stretch, show.natural)), place)
    map_axes(ax, place)
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
    shares = compute_all([clear.mean(clear.dims[1:])])[0]
    times = cube_times(clear.rename({clear.dims[0]: "time"}))
    order = np.argsort(times)
    times, shares = times[order], shares[order]
    if ax is None:
        ax = plt.figure(figsize=figsize, layout="constrained").subplots()
    # Stems and dots remain distinct for dates close together, unlike bars.
    few = times.size <= 80
    ax.vlines(times, 0, shares, color=BLUE, lw=1.4 if few else 0.7)
    ax.plot(times, shares, "o", color=BLUE, ms=4.5 if few else 2.2, clip_on=False)
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
    n_clear, median = int((shares > 0.95).sum()), percent(float(np.median(shares)))
    ax.set_title(
        f"{times.size} dates, {n_clear} of them more than 95 % clear; median {median}",
        loc="left",
        fontsize=10,
    )
    return ax


def _three_panels(
    plt: Any, place: Place, figsize: tuple[float, float] | None, text: float = 1.1
) -> tuple[Figure, Sequence[Axes]]:
    """Return a figure with three maps side by side, with coordinates at the first, and some inches for text."""
    if figsize is None:
        figsize = 12.0, float(np.clip(3.55 * place.ratio, 2.0, 9.0)) + text
    figure: Figure = plt.figure(figsize=figsize, layout="constrained")
    axes = figure.subplots(1, 3, sharex=True, sharey=True)
    map_axes(axes[0], place)
    for ax in axes[1:]:
        ax.tick_params(left=False, bottom=False, labelleft=False, labelbottom=False)
    return figure, axes


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
        *band_layers(cube, show, shown),
        *(thin(layer) for layer in (*after, filled, shown_filled)),
        (shown_filled == OBSERVED).mean(),
        *counts,
    ]
    values = compute_all(lazy)
    n = len(show.index)
    before = np.stack(values[:n])
    return _Scene(
        before=before,
        measured=all_valid(before, resolve_scaling(cube.arrays, nodata=reading.get("nodata"))),
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


def _distance(observed: np.datetime64, target: np.datetime64) -> str:
    days = float((observed - target) / np.timedelta64(1, "D"))
    unit = "day" if abs(days) == 1 else "days"
    return f"nearest observation {abs(days):.3g} {unit} {'before' if days < 0 else 'after'}"
