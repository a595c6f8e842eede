"""The command ``cloudfree evaluate``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from xr_cloudfree.cli.commands import plain_errors
from xr_cloudfree.cli.options import (
    OUTPUT,
    S1,
    Check,
    CubePath,
    Debug,
    OtherSensors,
    Overwrite,
    Quiet,
    Reading,
    grouped,
    parse_names,
    parse_several,
)
from xr_cloudfree.cli.progress import spinner
from xr_cloudfree.storage.files import aside
from xr_cloudfree.storage.locations import local

if TYPE_CHECKING:
    import pandas as pd

# Digits after the point of each column.
_DIGITS = {
    "frames": 0,
    "share": 2,
    "answered": 2,
    "MAE": 4,
    "RMSE": 4,
    "PSNR": 1,
    "PSNR_under": 1,
    "PSNR_rim": 1,
    "SAM": 2,
    "SSIM": 3,
    "coverage90": 2,
    "width90": 4,
    "recall": 2,
    "precision": 2,
    "false_alarms": 2,
    "newly_masked": 3,
    "restored": 2,
    "seconds": 2,
}


@grouped
def evaluate(
    cube: CubePath,
    *,
    models: Annotated[
        str, typer.Option("--models", "-m", help="Models to compare, separated by commas.")
    ] = "nearest,median,linear,regress,auto",
    tracks: Annotated[
        str,
        typer.Option(
            help="How pixels are hidden. partial: under another date's clouds; gap: the same, without the dates "
            "within 20 days; full: the whole date; haze: under clouds that reach beyond their mask. Or, with added "
            "clouds of other dates, which masks are given: clouds: theirs, which miss some; no mask: all pixels count "
            "as clear, or with --repair as of a cube without a mask (--mask series); wrong mask: with whole clouds "
            "missing and clear pixels masked."
        ),
    ] = "partial,gap,full,haze",
    frames: Annotated[int, typer.Option(min=0, help="Use at most this many clear dates; 0 uses all.")] = 10,
    size: Annotated[
        int, typer.Option(min=16, help="Edge length in pixels of the part used, in the cube's middle.")
    ] = 256,
    seed: Annotated[int, typer.Option(help="The same seed hides the same pixels.")] = 0,
    by: Annotated[
        str | None,
        typer.Option(
            metavar="distance|days",
            help="Divide the hidden pixels by the distance to the nearest clear pixel, or by the days to the nearest "
            "clear date.",
        ),
    ] = None,
    s1: S1 = None,
    others: OtherSensors = None,
    csv: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Also write the table as CSV.", rich_help_panel=OUTPUT),
    ] = None,
    overwrite: Overwrite = False,
    reading: Reading,
    check: Check = True,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Measure the error of models on your own cube.

    Clear pixels are hidden under the cube's own clouds, filled, and compared with their true values.
    Errors are in reflectance: an MAE of 0.01 is one hundredth. With --repair the masks are corrected by the series.

    [bold]Examples[/bold]

    [cyan]cloudfree evaluate cube.zarr
    cloudfree evaluate cube.zarr --models linear,regress --csv score.csv
    cloudfree evaluate cube.zarr --models regress --tracks "clouds,no mask" --repair[/cyan]
    """
    with plain_errors(debug):
        from xr_cloudfree import io
        from xr_cloudfree.accuracy import evaluate as accuracy

        file = None if csv is None else local(csv, "csv")
        if file is not None:
            io.check_free([file], overwrite)
        opened: Any = io.open_cube(cube)
        with spinner("Hiding clear pixels and filling them", quiet):
            table = accuracy.evaluate(
                opened,
                parse_names(models) or (),
                tracks=parse_names(tracks) or (),  # type: ignore[arg-type]  # checked there, with a remedy
                frames=frames or None,
                size=size,
                seed=seed,
                by=by,  # type: ignore[arg-type]  # the same
                check=check,
                s1=s1,
                others=parse_several(others),
                **reading.options(),
            )
        shown = table.dropna(axis=1, how="all")
        typer.echo(_table_text(shown))
        if not quiet:
            width = max(map(len, shown.columns))
            about = accuracy.COLUMNS | accuracy.SHARE
            typer.echo("\n" + "\n".join(f"{name:<{width}}  {about[name]}" for name in shown.columns))
        if file is not None:
            with aside([file]) as parts:
                table.to_csv(parts[file])
            if not quiet:
                typer.echo(f"Wrote {file}")


def _table_text(table: pd.DataFrame) -> str:
    """Return the table as text, with a dash where a model has no figure."""
    texts = table.apply(
        lambda column: ["–" if value != value else f"{value:.{_DIGITS[str(column.name)]}f}" for value in column]
    )
    return str(texts.to_string())
