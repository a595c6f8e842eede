"""Options that several commands of ``cloudfree`` share, and how what was typed is read."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from xr_cloudfree.cube.schemes import SCHEMES
from xr_cloudfree.errors import OptionError

CLEAR, VALUES, RUN = "Which pixels are clear", "What the values mean", "Running"
# Places are text: pathlib would make one slash of the two in a URL.
CubePath = Annotated[
    str,
    typer.Argument(metavar="CUBE", help="A .zarr store, zipped or not, or a .nc file; or its URL.", show_default=False),
]
Dates = Annotated[
    list[str] | None,
    typer.Option(
        "--date",
        "--dates",
        "-d",
        metavar="2021-07-08,…",
        help="Target dates, observed or not, with commas or given again. A month (2021-07), a year, or a span "
        "(2021-05/2021-07): the cube's dates in it. Without: every date of the cube.",
        show_default=False,
    ),
]
Freq = Annotated[
    str | None,
    typer.Option(
        metavar="10D",
        help="A date at such steps within the span that --date tells, or the cube's own: 10D, MS for months.",
    ),
]
Merge = Annotated[
    str | None,
    typer.Option(metavar="day", help="day: make one date of all scenes of a day, such as the granules of one pass."),
]
Clear = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Boolean layer in which True means clear.", rich_help_panel=CLEAR),
]
Mask = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Quality layer. By default cloud_mask, then the sensor's own (SCL, QA_PIXEL, Fmask, cfmask and others).",
        rich_help_panel=CLEAR,
    ),
]
MaskScheme = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"How to read the mask where its flags and name do not tell: {', '.join(SCHEMES)}.",
        rich_help_panel=CLEAR,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="For a probability: from this value on a pixel is not clear. For a clear score: from it on it is.",
        rich_help_panel=CLEAR,
    ),
]
Snow = Annotated[bool, typer.Option("--snow/--no-snow", help="Snow counts as clear.", rich_help_panel=CLEAR)]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Leave out doubtful classes too (SCL 2 and 7).", rich_help_panel=CLEAR),
]
Dilate = Annotated[int, typer.Option(min=0, help="Pixels by which cloud and shadow are grown.", rich_help_panel=CLEAR)]
Bands = Annotated[
    str | None,
    typer.Option(metavar="B02,B03", help="Bands to use, in this order.", rich_help_panel=VALUES),
]
S1 = Annotated[
    str | None,
    typer.Option(
        "--s1",
        metavar="PATH|NAMES",
        help="Sentinel-1 in decibels, for a model that looks at it: a .zarr store or a .nc file with vv and vh, its "
        "URL, or the names of two layers of the cube.",
    ),
]
Scale = Annotated[
    float | None,
    typer.Option(help="Reflectance = stored × scale + offset, where the file does not tell.", rich_help_panel=VALUES),
]
Offset = Annotated[
    float | None, typer.Option(help="See --scale; -0.1 for Sentinel-2 since 2022.", rich_help_panel=VALUES)
]
Nodata = Annotated[
    float | None,
    typer.Option(help='Stored value that means "missing"; NaN always does.', rich_help_panel=VALUES),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check/--no-check",
        help="Refuse values that cannot be reflectance; without, they are taken as they are.",
        rich_help_panel=VALUES,
    ),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress bar and no report.", rich_help_panel=RUN)]
Debug = Annotated[bool, typer.Option("--debug", help="Show where in the code an error arose.", rich_help_panel=RUN)]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace what is there.", rich_help_panel="Output")]


def reading(
    clear: str | None,
    mask: str | None,
    scheme: str | None,
    threshold: float | None,
    snow: bool,
    strict: bool,
    dilate: int,
    scale: float | None,
    offset: float | None,
    nodata: float | None,
    merge: str | None,
) -> dict[str, Any]:
    """Options that say which pixels are clear and what the values mean, as `fill` takes them."""
    return {
        "clear": clear,
        "mask": mask,
        "scheme": scheme,
        "threshold": threshold,
        "snow": "clear" if snow else "not clear",
        "strict": strict,
        "dilate": dilate,
        "scale": scale,
        "offset": offset,
        "nodata": nodata,
        "merge": merge,
    }


def names(text: str | None) -> list[str] | None:
    """Names from a list with commas."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def dates_of(given: list[str] | None) -> str | list[str] | None:
    """Target dates as `fill` takes them: one of them has no axis."""
    dates = [day for text in given or () for day in names(text) or ()]
    if given and not dates:
        raise OptionError(f"the date is {given[0]!r}", "a date, or no --date for all dates", "--date 2021-07-08")
    return dates[0] if len(dates) == 1 else dates or None


def window_of(text: str | None) -> float | tuple[float, float] | None:
    """A window from what was typed: days, or two numbers with a comma."""
    if text is None:
        return None
    try:
        days = [float(part) for part in text.split(",")]
    except ValueError:
        days = []
    if len(days) not in (1, 2):
        raise OptionError(f"the window is {text!r}", "days, or days before and days after", "--window 60,30")
    return days[0] if len(days) == 1 else (days[0], days[1])


def layers_of(text: str | None) -> str | list[str]:
    """The layers asked for and 'filled', from which the report is made."""
    return "all" if text == "all" else ["filled", *(names(text) or [])]
