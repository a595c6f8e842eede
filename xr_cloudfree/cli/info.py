"""The commands ``cloudfree info`` and ``cloudfree models``."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from xr_cloudfree.cli.commands import flag, plain_errors
from xr_cloudfree.cli.options import CubePath, Debug, Quiet, Reading, grouped
from xr_cloudfree.cli.progress import progress_bar


@grouped
def info(
    cube: CubePath,
    *,
    dates: Annotated[
        bool,
        typer.Option(
            "--dates",
            help="Also list the clear share of each date and what the series would change; reads the whole cube.",
        ),
    ] = False,
    reading: Reading,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Show how a cube is understood: bands, grid, dates, mask, scaling.

    With the options of fill for masks and values, how it is understood with them.

    [bold]Examples[/bold]

    [cyan]cloudfree info cube.zarr
    cloudfree info cube.zarr --dates
    cloudfree info cube.zarr --mask series --dates[/cyan]
    """
    with plain_errors(debug):
        from xr_cloudfree import io, summary
        from xr_cloudfree.options import ReadOptions

        opened: Any = io.open_cube(cube)
        with progress_bar(quiet or not dates):
            how = ReadOptions(**reading.options())
            described = summary.describe(opened, how, compute=dates, spelling=flag)
        typer.echo(described.text())


def models(debug: Debug = False) -> None:
    """List the models and the layers of each."""
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
