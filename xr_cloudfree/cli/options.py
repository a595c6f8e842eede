"""Options that several commands of ``cloudfree`` share, and functions that parse their text."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass, is_dataclass
from functools import wraps
from typing import Annotated, Any, get_type_hints

import typer

from xr_cloudfree.cube.schemes import SCHEMES
from xr_cloudfree.errors import OptionError

CLEAR, VALUES, OUTPUT, RUN = "Which pixels are clear", "What the values mean", "Output", "Running"
ARCHIVE = "From an archive"
_CUBE = "A .zarr store (zipped or not) or a .nc file, or its URL"
# Paths are text: pathlib would merge the two slashes of a URL into one.
CubePath = Annotated[str, typer.Argument(metavar="CUBE", help=f"{_CUBE}.", show_default=False)]
AnyCube = Annotated[
    str | None, typer.Argument(metavar="CUBE", help=f"{_CUBE}; none with --collection.", show_default=False)
]
Collection = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Load a collection of an archive in place of CUBE, or several, separated by commas: "
        "sentinel-2-c1-l2a, sentinel-2-l2a, landsat-c2-l2, hls2-l30,hls2-s30.",
        rich_help_panel=ARCHIVE,
    ),
]
Bbox = Annotated[
    str | None,
    typer.Option(metavar="W,S,E,N", help="Its area: west, south, east and north in degrees.", rich_help_panel=ARCHIVE),
]
Time = Annotated[
    str | None,
    typer.Option(
        metavar="2021-05/2021-07",
        help="Its time: a month, a year or a span; the dates around --date are needed, too.",
        rich_help_panel=ARCHIVE,
    ),
]
Catalog = Annotated[
    str | None,
    typer.Option(
        metavar="NAME|URL",
        help="Where it is searched: earth-search, planetary-computer, cdse, usgs, lpcloud, or a STAC API.",
        rich_help_panel=ARCHIVE,
    ),
]
MaxCloudCover = Annotated[
    float | None, typer.Option(help="Leave out items with more clouds, in percent.", rich_help_panel=ARCHIVE)
]
Crs = Annotated[
    str | None, typer.Option(metavar="EPSG:32629", help="CRS of the grid, if not UTM.", rich_help_panel=ARCHIVE)
]
Resolution = Annotated[
    float | None,
    typer.Option(help="Pixel size in units of the CRS, if not that of the finest band.", rich_help_panel=ARCHIVE),
]
OnError = Annotated[
    str,
    typer.Option(
        metavar="raise|missing",
        help="What cannot be read is an error, or missing pixels with a warning.",
        rich_help_panel=ARCHIVE,
    ),
]
Dates = Annotated[
    list[str] | None,
    typer.Option(
        "--date",
        "--dates",
        "-d",
        metavar="2021-07-08,…",
        help="Target dates, observed or not: separated by commas, or one per --date. A month (2021-07), a year or a "
        "span (2021-05/2021-07) stands for the cube's dates in it. By default every date of the cube.",
        show_default=False,
    ),
]
Freq = Annotated[
    str | None,
    typer.Option(
        metavar="10D",
        help="Fill regular dates at this step, within the span of --date or of the cube: 10D, or MS for months.",
    ),
]
Model = Annotated[str, typer.Option("--model", "-m", help="Name of a model: see cloudfree models.")]
Window = Annotated[
    str | None,
    typer.Option(metavar="DAYS", help="Days before and after the target date from which to use dates: 60, or 60,0."),
]
S1 = Annotated[
    str | None,
    typer.Option(
        "--s1",
        metavar="PATH|NAMES",
        help="Sentinel-1 in decibels, for models that use it: a .zarr store or a .nc file with vv and vh, its URL, "
        "or the names of two layers of the cube.",
    ),
]
OtherSensors = Annotated[
    list[str] | None,
    typer.Option(
        "--others",
        metavar="PATH",
        help="Cube of another sensor of the same place, with pixels as large or larger, such as Landsat for "
        "Sentinel-2: its images near the target date correct the estimate. Several are separated by commas, or one per "
        "--others.",
        show_default=False,
    ),
]
Layers = Annotated[
    str | None,
    typer.Option(
        metavar="all",
        help="Layers that describe where values come from: all, or names separated by commas. 'filled' is always "
        "written.",
        rich_help_panel=OUTPUT,
    ),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="Replace existing outputs.", rich_help_panel=OUTPUT)]
Clear = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="Boolean layer that is True where a pixel is clear.", rich_help_panel=CLEAR),
]
Mask = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="Quality layer, or a cloud detector: csmask, omnicloudmask, s2cloudless. By default cloud_mask, then the "
        "sensor's own (SCL, QA_PIXEL, Fmask, cfmask and others). series makes the masks from the series, as where no "
        "layer is found.",
        rich_help_panel=CLEAR,
    ),
]
MaskScheme = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help=f"How to read the mask, if its flags and name do not say: {', '.join(SCHEMES)}.",
        rich_help_panel=CLEAR,
    ),
]
Threshold = Annotated[
    float | None,
    typer.Option(
        help="For a cloud probability: pixels from this value up are not clear. For a clear score: they are clear.",
        rich_help_panel=CLEAR,
    ),
]
Snow = Annotated[bool, typer.Option("--snow/--no-snow", help="Count snow as clear.", rich_help_panel=CLEAR)]
Strict = Annotated[
    bool,
    typer.Option("--strict", help="Count doubtful classes (SCL 2 and 7) as not clear.", rich_help_panel=CLEAR),
]
Dilate = Annotated[int, typer.Option(min=0, help="Grow clouds and shadows by this many pixels.", rich_help_panel=CLEAR)]
Repair = Annotated[
    bool,
    typer.Option(
        "--repair/--no-repair",
        help="Correct the masks by the series: missed clouds and shadows are masked, false alarms restored. "
        "Takes several times as long. --repair auto does so where it can be done: for reflectance on three dates or "
        "more.",
        rich_help_panel=CLEAR,
    ),
]
# `Commands` takes --repair auto for it: a flag has no value.
RepairAuto = Annotated[bool, typer.Option("--repair-auto", hidden=True)]
Bands = Annotated[
    str | None,
    typer.Option(metavar="B02,B03", help="Bands to use, in this order.", rich_help_panel=VALUES),
]
Scale = Annotated[
    float | None,
    typer.Option(help="Reflectance = stored × scale + offset, if the file does not say.", rich_help_panel=VALUES),
]
Offset = Annotated[
    float | None, typer.Option(help="See --scale; -0.1 for Sentinel-2 since 2022.", rich_help_panel=VALUES)
]
Nodata = Annotated[
    float | None,
    typer.Option(help='Stored value that means "missing"; NaN always does.', rich_help_panel=VALUES),
]
Merge = Annotated[
    str | None,
    typer.Option(metavar="day", help="day: merge all scenes of a day, such as the granules of one pass, into one."),
]
Check = Annotated[
    bool,
    typer.Option(
        "--check/--no-check",
        help="Refuse values that cannot be reflectance; --no-check takes them as they are.",
        rich_help_panel=VALUES,
    ),
]
Block = Annotated[
    int | None,
    typer.Option(help="Edge length in pixels of a block, the output of one task.", rich_help_panel=RUN),
]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Print neither progress nor a report.", rich_help_panel=RUN)]
Debug = Annotated[bool, typer.Option("--debug", help="Show the traceback of an error.", rich_help_panel=RUN)]


@dataclass(frozen=True)
class Reading:
    """How a cube is read: which pixels are clear, which bands are used and what the values mean."""

    clear: Clear = None
    mask: Mask = None
    scheme: MaskScheme = None
    threshold: Threshold = None
    snow: Snow = True
    strict: Strict = False
    dilate: Dilate = 0
    bands: Bands = None
    scale: Scale = None
    offset: Offset = None
    nodata: Nodata = None
    merge: Merge = None
    repair: Repair = False
    repair_auto: RepairAuto = False

    def options(self) -> dict[str, Any]:
        """Return the options as `xr_cloudfree.fill` takes them."""
        options = vars(self) | {
            "snow": "clear" if self.snow else "not clear",
            "bands": parse_names(self.bands),
            "repair": "auto" if self.repair_auto else self.repair,
        }
        del options["repair_auto"]
        return options


@dataclass(frozen=True)
class Loading:
    """A collection of an archive that is loaded in place of a cube."""

    collection: Collection = None
    bbox: Bbox = None
    time: Time = None
    catalog: Catalog = None
    max_cloud_cover: MaxCloudCover = None
    crs: Crs = None
    resolution: Resolution = None
    on_error: OnError = "raise"

    def open(self, cube: str | None, reading: Reading) -> Any:
        """Return the cube at a path or a URL, or the collection, as a lazy cube; see `source`."""
        from xr_cloudfree import io

        source = self.source(cube, reading)
        return io.open_cube(source) if isinstance(source, str) else source

    def source(self, cube: str | None, reading: Reading) -> Any:
        """Return the path or URL of a cube, or the collection as a lazy cube.

        Parameters
        ----------
        cube : str or None
            The cube's location, None for a collection.
        reading : Reading
            How the cube is read: the bands to load.

        Raises
        ------
        OptionError
            If both or neither are given.
        """
        from xr_cloudfree.loading.load import load

        options = {name: value for name, value in vars(self).items() if value != getattr(Loading, name)}
        collection = options.pop("collection", None)
        if cube is not None and (collection is not None or options):
            given = "--collection" if collection is not None else f"--{next(iter(options)).replace('_', '-')}"
            raise OptionError(
                f"{given} is given beside the cube {cube}", "a cube, or a collection of an archive", f"no {given}"
            )
        if cube is not None:
            return cube
        if collection is None:
            raise OptionError(
                "neither a cube nor --collection is given",
                "the path or URL of a cube, or a collection of an archive",
                "--collection sentinel-2-c1-l2a --bbox=-8.5,40.1,-8.4,40.2 --time 2021-05/2021-09",
            )
        # Without --bbox the search says what is needed.
        options["bbox"] = parse_names(self.bbox)
        return load(parse_names(collection), **options, bands=parse_names(reading.bands))


@dataclass(frozen=True)
class Filling:
    """What is filled, and with what."""

    date: Dates = None
    freq: Freq = None
    model: Model = "auto"
    window: Window = None
    s1: S1 = None
    others: OtherSensors = None
    layers: Layers = None

    def options(self) -> dict[str, Any]:
        """Return the options as `xr_cloudfree.fill` takes them."""
        return vars(self) | {
            "date": parse_dates(self.date),
            "window": parse_window(self.window),
            "layers": parse_layers(self.layers),
            "others": parse_several(self.others),
        }


def grouped(command: Callable[..., None]) -> Callable[..., None]:
    """Return a command whose parameters of a dataclass are replaced by the fields of the dataclass.

    Parameters
    ----------
    command : callable
        A function as typer takes it, except that the annotation of a parameter may be a dataclass. The fields of the
        dataclass are annotated as typer wants its parameters, and stand in its place among the options.

    Examples
    --------
    >>> def show(cube: CubePath, *, reading: Reading) -> None:
    ...     print(cube, reading.mask)
    >>> grouped(show)(cube="cube.zarr", mask="SCL")
    cube.zarr SCL
    >>> list(inspect.signature(grouped(show)).parameters)[:3]
    ['cube', 'clear', 'mask']
    """
    parameters: list[inspect.Parameter] = []
    groups: dict[str, tuple[Any, list[str]]] = {}
    for parameter in inspect.signature(command, eval_str=True).parameters.values():
        kind = parameter.annotation
        if not (isinstance(kind, type) and is_dataclass(kind)):
            parameters.append(parameter)
            continue
        hints = get_type_hints(kind, include_extras=True)
        own = inspect.signature(kind).parameters.values()
        parameters += [p.replace(annotation=hints[p.name], kind=inspect.Parameter.KEYWORD_ONLY) for p in own]
        groups[parameter.name] = kind, [p.name for p in own]

    @wraps(command)
    def run(**values: Any) -> None:
        for name, (kind, fields) in groups.items():
            values[name] = kind(**{field: values.pop(field) for field in fields if field in values})
        command(**values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]  # what typer looks at
    return run


def parse_names(text: str | None) -> list[str] | None:
    """Return the names in a list separated by commas."""
    return None if text is None else [part.strip() for part in text.split(",") if part.strip()]


def parse_several(texts: list[str] | None) -> list[str] | None:
    """Return what is in lists separated by commas, None if there is nothing."""
    return [part for text in texts or () for part in parse_names(text) or ()] or None


def parse_dates(texts: list[str] | None) -> str | list[str] | None:
    """Return target dates as `fill` takes them: text for a single date, whose output has no time dimension."""
    dates = parse_several(texts)
    if texts and not dates:
        raise OptionError(f"the date is {texts[0]!r}", "a date, or no --date for all dates", "--date 2021-07-08")
    return dates[0] if dates and len(dates) == 1 else dates


def parse_window(text: str | None) -> float | tuple[float, float] | None:
    """Return a window in days, or in days before and days after."""
    if text is None:
        return None
    try:
        days = [float(part) for part in text.split(",")]
    except ValueError:
        days = []
    if len(days) not in (1, 2):
        raise OptionError(f"the window is {text!r}", "days, or days before and days after", "--window 60,30")
    return days[0] if len(days) == 1 else (days[0], days[1])


def parse_layers(text: str | None) -> str | list[str]:
    """Return the requested layers and 'filled', from which the report is made."""
    return "all" if text == "all" else ["filled", *(parse_names(text) or [])]
