"""Drawing of maps: images with the cube's coordinates, hatched regions, legends."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.errors import MissingDependencyError
from xr_cloudfree.plot.picture import Place

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# Colours by Okabe and Ito, which remain distinct with colour blindness; observed pixels are pale.
ORANGE = (0.90, 0.62, 0.0)
BLUE = (0.0, 0.45, 0.70)
GREEN = (0.0, 0.62, 0.45)
PALE = (0.87, 0.92, 0.95)
SAND = (0.94, 0.89, 0.26)
INK = "0.25"


def show_picture(ax: Axes, picture: NDArray[Any], place: Place) -> None:
    """Draw an image (y, x, colour) on a map."""
    ax.imshow(place.turned(picture), extent=place.extent, aspect=place.aspect, interpolation="nearest")
    for spine in ax.spines.values():
        spine.set_color("0.6")


def hatch(ax: Axes, where: NDArray[np.bool_], place: Place) -> None:
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
    with mpl.rc_context({"hatch.color": ORANGE, "hatch.linewidth": 0.7}):
        ax.contourf(x, y, inside, [0.5, 1.5], colors="none", hatches=["/////"])
    ax.contour(x, y, inside, [0.5], colors=[ORANGE], linewidths=0.9)
    ax.set(xlim=(left, right), ylim=(bottom, top))


def map_axes(ax: Axes, place: Place) -> None:
    """Label the axes of a map with its coordinates."""
    from matplotlib.ticker import MaxNLocator

    ax.set_xlabel(place.labels[0])
    ax.set_ylabel(place.labels[1])
    for axis in (ax.xaxis, ax.yaxis):
        axis.set_major_locator(MaxNLocator(4, prune="both"))
    ax.ticklabel_format(style="plain", useOffset=False)
    ax.tick_params(labelsize=8, color="0.6", labelcolor=INK)
    for label in (ax.xaxis.label, ax.yaxis.label):
        label.set(color=INK, fontsize=9)


def legend(of: Axes | Figure, entries: Sequence[tuple[str, Any]]) -> None:
    """Draw a legend of names and colours in one line below a map, or below all maps of a figure."""
    from matplotlib.figure import Figure
    from matplotlib.patches import Patch

    handles = [Patch(facecolor=colour, edgecolor="0.6", lw=0.5, label=name) for name, colour in entries]
    below: dict[str, Any] = {"loc": "upper center", "bbox_to_anchor": (0.5, 0.0)}
    of.legend(
        handles=handles,
        **({"loc": "outside lower center"} if isinstance(of, Figure) else below),
        ncols=len(handles),
        frameon=False,
        fontsize=9,
        handlelength=1.0,
        handleheight=1.0,
        labelcolor=INK,
    )


def percent(share: float) -> str:
    """Format a share in per cent; 0 and 100 only if they are exact."""
    if 0 < share < 0.005:
        return "<1 %"
    if 0.995 < share < 1:
        return ">99 %"
    return f"{share:.0%}".replace("%", " %")


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
