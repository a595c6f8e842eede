"""The command ``cloudfree``: the program and its list of commands.

Everything slow to import is imported inside the commands, so that ``--help`` appears at once.
"""

from __future__ import annotations

from typing import Annotated

import typer

from xr_cloudfree.cli.commands import Commands
from xr_cloudfree.cli.evaluate import evaluate
from xr_cloudfree.cli.fill import fill
from xr_cloudfree.cli.info import info, models
from xr_cloudfree.cli.runs import batch, region, repair, resume, status, verify

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
for _command in (fill, evaluate, info, models, batch, region, status, resume, verify, repair):
    app.command()(_command)


def _version(requested: bool) -> None:
    if requested:
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
