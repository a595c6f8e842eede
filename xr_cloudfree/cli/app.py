"""The command ``cloudfree``: fill, evaluate and look at cubes in files.

What takes long to import is imported inside the commands, so that ``--help`` comes at once.
"""

from __future__ import annotations

import sys
import time as clock
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from xr_cloudfree.cli import runs
from xr_cloudfree.cli.commands import Commands, plain_errors
from xr_cloudfree.cli.options import (
    RUN,
    S1,
    Bands,
    Check,
    Clear,
    CubePath,
    Dates,
    Debug,
    Dilate,
    Freq,
    Mask,
    MaskScheme,
    Merge,
    Nodata,
    Offset,
    Overwrite,
    Quiet,
    Scale,
    Snow,
    Strict,
    Threshold,
    dates_of,
    layers_of,
    names,
    reading,
    window_of,
)
from xr_cloudfree.errors import OutputError
from xr_cloudfree.storage.files import aside
from xr_cloudfree.storage.locations import local

if TYPE_CHECKING:
    import pandas as pd
    import xarray as xr

app = typer.Typer(
    name="cloudfree",
    cls=Commands,
    help="Cloud-free satellite images of any date, from a cube in a Zarr store or a NetCDF file.",
    epilog="Start with: cloudfree info CUBE, then cloudfree fill CUBE --date 2021-07-08 --out july.tif",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_show_locals=False,
)
app.add_typer(runs.app)


@app.command()
def fill(
    cube: CubePath,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="PATH",
            help="OUT.zarr: all in one store. OUT.tif: a GeoTIFF for each date, and one for each layer.",
            rich_help_panel="Output",
            show_default=False,
        ),
    ],
    date: Dates = None,
    freq: Freq = None,
    model: Annotated[str, typer.Option("--model", "-m", help="See: cloudfree models.")] = "auto",
    window: Annotated[
        str | None,
        typer.Option(metavar="DAYS", help="Days before and after the target from which dates are taken: 60, or 60,0."),
    ] = None,
    screen: Annotated[
        bool, typer.Option("--screen", help="Fill pixels too that are flagged clear but look like haze.")
    ] = False,
    s1: S1 = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="all",
            help="Layers that tell how values came about: all, or names with commas. 'filled' is always written.",
            rich_help_panel="Output",
        ),
    ] = None,
    preview: Annotated[
        str | None,
        typer.Option(metavar="PNG", help="Picture of before and after, for each date.", rich_help_panel="Output"),
    ] = None,
    overwrite: Overwrite = False,
    clear: Clear = None,
    mask: Mask = None,
    scheme: MaskScheme = None,
    threshold: Threshold = None,
    snow: Snow = True,
    strict: Strict = False,
    dilate: Dilate = 0,
    bands: Bands = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    merge: Merge = None,
    check: Check = True,
    block: Annotated[
        int | None,
        typer.Option(help="Pixels along the edge of a block, the work of one task.", rich_help_panel=RUN),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fill the clouds of one date, of several or of all.

    Clear pixels stay what they are; the others are estimated from the other dates.
    The layer 'filled' tells which is which: 1 observed, 2 filled, 3 filled in some bands only, 0 not
    filled (nodata).

    [bold]Examples[/bold]

    [cyan]cloudfree fill cube.zarr --date 2021-07-08 --out july.tif
    cloudfree fill cube.zarr --out filled.zarr --model regress --layers all
    cloudfree fill s2.nc -d 2021-07-08 -d 2021-08-02 -o s2.tif --preview s2.png
    cloudfree fill cube.zarr --date 2021-05/2021-07 --freq 10D --out summer.zarr
    cloudfree fill s2.nc --mask SCL --scale 1e-4 --offset -0.1 -o filled.zarr[/cyan]
    """
    with plain_errors(debug):
        from xr_cloudfree import api, io, plan
        from xr_cloudfree.options import ReadOptions
        from xr_cloudfree.runner import windows

        read = reading(clear, mask, scheme, threshold, snow, strict, dilate, scale, offset, nodata, merge)
        target, drawn = local(out), None if preview is None else local(preview, "preview")
        io.refuse_source(target, windows.places(cube, s1))
        opened = io.open_cube(cube)
        wanted = names(bands)
        image = api.fill(
            opened,
            dates_of(date),
            freq=freq,
            model=model,
            bands=wanted,
            window=window_of(window),
            layers=layers_of(layers),
            screen=screen,
            block=block,
            s1=s1,
            check=check,
            **read,
        )
        opened = plan.open_s1(s1, opened)[1]
        pictures = _pictures(drawn, image, overwrite)
        scaling = api.read(opened, ReadOptions(bands=wanted, **read)).scaling
        start = clock.perf_counter()
        with _progress(quiet):
            files = io.write(image, target, scaling=scaling, overwrite=overwrite)
        seconds = clock.perf_counter() - start
        written = _by_date(image, files)
        if not quiet:
            _report(written, files, seconds)
        for (time, single), picture in zip(written, pictures, strict=False):
            _draw(opened, time, single, picture, wanted, {"check": check, **read})
            if not quiet:
                typer.echo(f"Drew {picture}")


@app.command()
def evaluate(
    cube: CubePath,
    models: Annotated[
        str, typer.Option("--models", "-m", help="Models to compare, with commas.")
    ] = "nearest,median,linear,regress,auto",
    tracks: Annotated[
        str,
        typer.Option(
            help="How pixels are hidden. partial: under another date's clouds; gap: the same, without the "
            "dates within 20 days; full: the whole date; haze: under clouds that reach beyond their mask."
        ),
    ] = "partial,gap,full,haze",
    frames: Annotated[int, typer.Option(min=0, help="Clear dates to use at most; 0 uses all.")] = 10,
    size: Annotated[int, typer.Option(min=16, help="Edge of the part in the cube's middle that is used.")] = 256,
    seed: Annotated[int, typer.Option(help="The same seed hides the same pixels.")] = 0,
    s1: S1 = None,
    csv: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Write the table as CSV too.", rich_help_panel="Output"),
    ] = None,
    overwrite: Overwrite = False,
    clear: Clear = None,
    mask: Mask = None,
    scheme: MaskScheme = None,
    threshold: Threshold = None,
    snow: Snow = True,
    strict: Strict = False,
    dilate: Dilate = 0,
    bands: Bands = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    merge: Merge = None,
    check: Check = True,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Score models on your own cube.

    Clear pixels are hidden under the cube's own clouds, filled, and compared with the truth.
    Errors are in reflectance: an MAE of 0.01 is one hundredth.

    [bold]Examples[/bold]

    [cyan]cloudfree evaluate cube.zarr
    cloudfree evaluate cube.zarr --models linear,regress --csv score.csv[/cyan]
    """
    with plain_errors(debug):
        from xr_cloudfree import io
        from xr_cloudfree.accuracy.evaluate import evaluate as score

        read = reading(clear, mask, scheme, threshold, snow, strict, dilate, scale, offset, nodata, merge)
        file = None if csv is None else local(csv, "csv")
        if file is not None:
            io.check_free([file], overwrite)
        opened: Any = io.open_cube(cube)
        with _working("Hiding clear pixels and filling them", quiet):
            table = score(
                opened,
                names(models) or (),
                tracks=names(tracks) or (),  # type: ignore[arg-type]  # checked there, with what may be typed
                frames=frames or None,
                size=size,
                seed=seed,
                check=check,
                s1=s1,
                bands=names(bands),
                **read,
            )
        typer.echo(_score_table(table))
        if file is not None:
            with aside([file]) as parts:
                table.to_csv(parts[file])
            if not quiet:
                typer.echo(f"Wrote {file}")


@app.command()
def info(
    cube: CubePath,
    dates: Annotated[
        bool, typer.Option("--dates", help="The clear share of each date too: reads the whole cube once.")
    ] = False,
    merge: Merge = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Say what is understood of a cube: bands, grid, dates, mask, scaling.

    [bold]Examples[/bold]

    [cyan]cloudfree info cube.zarr
    cloudfree info cube.zarr --dates[/cyan]
    """
    with plain_errors(debug):
        from dataclasses import replace

        from xr_cloudfree import api, io, summary
        from xr_cloudfree.cube.merge import parse_merge

        opened: Any = io.open_cube(cube)
        merged = parse_merge(merge)
        told = summary.describe(opened, merged)
        if dates:
            share = api.clear_mask(opened, merge=merged)
            share = share.mean(share.dims[1:])
            with _progress(quiet):
                share = share.compute().sortby(share.dims[0])
            days = tuple(str(day) for day in share[share.dims[0]].to_numpy().astype("datetime64[D]"))
            lines = tuple(line for line in told.lines if line[0] != "clear")
            told = replace(told, lines=lines, dates=days, shares=tuple(float(s) for s in share))
        typer.echo(told.text())


@app.command()
def models(debug: Debug = False) -> None:
    """List the models, with what each can give."""
    with plain_errors(debug):
        import textwrap

        from xr_cloudfree import api

        table = api.list_models()
        width = max(len(str(name)) for name in table.index) + 2
        for name, row in table.iterrows():
            days = row["window_days"]
            window = "all dates" if days is None or days != days else f"dates within {days:g} days"
            text = f"{row['summary']}. By default from {window}. Layers: {row['layers']}."
            typer.echo(textwrap.fill(text, 96, initial_indent=f"{name!s:<{width}}", subsequent_indent=" " * width))


def _version(asked: bool) -> None:
    if asked:
        from importlib.metadata import version

        typer.echo(f"cloudfree {version('xr-cloudfree')}")
        raise typer.Exit


@app.callback()
def _main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


@contextmanager
def _progress(quiet: bool) -> Iterator[None]:
    """A bar for what dask computes, once it takes more than two seconds."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from dask.diagnostics.progress import ProgressBar

    with ProgressBar(minimum=2, out=sys.stderr):
        yield


@contextmanager
def _working(what: str, quiet: bool) -> Iterator[None]:
    """A sign of life for work whose length is not known."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{what} …"):
        yield


def _by_date(image: xr.Dataset, files: Sequence[Path]) -> list[tuple[Any, xr.Dataset]]:
    """What was written for each date: the date, and its image with 'filled', opened again."""
    from xr_cloudfree import io

    times = image[_time(image)].to_numpy()
    if files[0].suffix != ".zarr":
        return [(time, io.open_image(file, like=image)) for time, file in zip(times.reshape(-1), files, strict=False)]
    store = io.open_image(files[0], like=image)
    if times.ndim == 0:
        return [(times[()], store)]
    return [(time, store.isel({_time(image): i})) for i, time in enumerate(times)]


def _time(image: xr.Dataset) -> str:
    from xr_cloudfree.cube.dims import time_of

    return str(time_of(image))


def _report(written: Sequence[tuple[Any, xr.Dataset]], files: Sequence[Path], seconds: float) -> None:
    """Say in plain words what was done, counted in what was written."""
    from dask.base import compute

    from xr_cloudfree.layers import FILLED, NOT_FILLED, OBSERVED, PARTLY

    states = (OBSERVED, FILLED, PARTLY, NOT_FILLED)
    counts = compute([[(single["filled"] == state).sum() for state in states] for _, single in written])[0]
    lines = [(_day(time), [int(n) for n in count]) for (time, _), count in zip(written, counts, strict=True)]
    total = [sum(column) for column in zip(*(count for _, count in lines), strict=True)]
    model = written[0][1].attrs["cloudfree_model"]
    if len(lines) > 1:
        lines = [*(lines if len(lines) <= _MOST_LINES else []), (f"All {len(lines)} dates", total)]
    for label, count in lines:
        observed, filled, partly, lacking = (f"{n:,} ({_percent(n / sum(count))})" if n else "0" for n in count)
        some = f"{partly} filled in some bands only, " if count[2] else ""
        typer.echo(f"{label}: {observed} pixels observed, {filled} filled by {model}, {some}{lacking} not filled")
    if total[-1]:
        typer.echo("Pixels not filled hold nodata: no clear observation lies within reach. Try a wider --window.")
    more = f" and {len(files) - _MOST_LINES} more files" if len(files) > _MOST_LINES else ""
    typer.echo(f"Wrote {', '.join(str(file) for file in files[:_MOST_LINES])}{more} in {seconds:.1f} s")


def _percent(share: float) -> str:
    """A share that is neither nothing nor all, and never said to be when it is not."""
    return "100 %" if share == 1 else f"{100 * min(max(share, 0.001), 0.999):.1f} %"


def _day(time: Any) -> str:
    return str(time.astype("datetime64[D]"))


def _pictures(preview: Path | None, image: xr.Dataset, overwrite: bool) -> list[Path]:
    """Where the pictures go; refused before anything is computed."""
    if preview is None:
        return []
    from xr_cloudfree import io
    from xr_cloudfree.plot.figures import pyplot

    # A file is drawn: no window opens, with or without a display.
    pyplot().switch_backend("agg")
    if preview.suffix.lower() not in _PICTURES:
        raise OutputError(
            f"the preview is called {preview.name}",
            f"an ending of {_PICTURES}",
            f"--preview {preview.stem}.png",
        )
    paths = io.dated_paths(preview, image[_time(image)].to_numpy())
    io.check_free(paths, overwrite)
    return paths


def _draw(
    cube: Any,
    time: Any,
    image: xr.Dataset,
    picture: Path,
    bands: Sequence[str] | None,
    read: dict[str, Any],
) -> None:
    from xr_cloudfree.cube.conventions import parse_cube
    from xr_cloudfree.plot import before_after
    from xr_cloudfree.plot.figures import pyplot
    from xr_cloudfree.plot.picture import choose_bands

    understood = parse_cube(cube, bands)
    shown = [understood.bands[i] for i in choose_bands(understood).index]
    figure = before_after(cube, time, image=image, bands=shown, **read)
    with aside([picture]) as parts:
        figure.savefig(parts[picture], dpi=150)
    pyplot().close(figure)


def _score_table(table: pd.DataFrame) -> str:
    """The table as text, with units, and a dash where a model does not give a figure."""
    table = table.rename(columns=_SCORES).dropna(axis=1, how="all")
    digits = {_SCORES[name]: n for name, n in _DIGITS.items()}
    texts = table.apply(
        lambda column: ["–" if value != value else f"{value:.{digits.get(str(column.name), 0)}f}" for value in column]
    )
    return str(texts.to_string())


_MOST_LINES = 12
_PICTURES = (".png", ".jpg", ".pdf", ".svg", ".webp")
_SCORES = {
    "frames": "dates",
    "answered": "answered",
    "MAE": "MAE",
    "RMSE": "RMSE",
    "PSNR": "PSNR [dB]",
    "SAM": "SAM [°]",
    "SSIM": "SSIM",
    "coverage90": "in 90 % interval",
    "seconds": "seconds per date",
}
_DIGITS = {
    "answered": 2,
    "MAE": 4,
    "RMSE": 4,
    "PSNR": 1,
    "SAM": 2,
    "SSIM": 3,
    "coverage90": 2,
    "seconds": 2,
}
