"""What all commands of ``cloudfree`` share: how errors are told, and how other packages add commands of their own.

A package adds a command by an entry point of the group ``xr_cloudfree.commands`` that leads to a `typer.Typer`. It is
imported when the command is asked for, and never by this package.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from xr_cloudfree.errors import CloudfreeError, MissingDependencyError, RunError

GROUP = "xr_cloudfree.commands"

_OPTIONS = (
    "block|bands|clear|csv|date|dilate|frames|freq|icechunk|layers|mask|merge|model|nodata|offset|out|preview|scale|"
    "scheme|screen|shard|size|snow|stall|strict|threshold|tracks|window"
)


class Commands(TyperGroup):
    """Commands by name: the program's own, and those that entry points add."""

    def list_commands(self, ctx: Any) -> list[str]:
        """The program's own commands first."""
        own = list(super().list_commands(ctx))
        return own + sorted(point.name for point in entry_points(group=GROUP) if point.name not in own)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """A command, or None if there is none of this name."""
        own = super().get_command(ctx, cmd_name)
        points = entry_points(group=GROUP, name=cmd_name)
        if own is not None or not points:
            return own
        command: Any = typer.main.get_command(_load(next(iter(points))))
        command.name = cmd_name
        return command


def _load(point: EntryPoint) -> typer.Typer:
    try:
        app = point.load()
        if not isinstance(app, typer.Typer):
            raise ImportError(f"it is a {type(app).__name__}, not a typer.Typer")
        return app
    except (ImportError, AttributeError) as error:
        failure = MissingDependencyError(
            f"the command {point.name!r} of {point.value} cannot be imported: {error}",
            "the packages that it needs",
            f"pip install --upgrade {point.dist.name if point.dist else point.module.split('.')[0]}",
        )
    # The help of all commands has to stand though one of them fails; the error is told when it is called.
    broken = typer.Typer()

    @broken.command(
        help="Cannot be imported.",
        add_help_option=False,
        context_settings={"allow_extra_args": True, "ignore_unknown_options": True},
    )
    def fail() -> None:
        with plain_errors(False):
            raise failure

    return broken


def as_typed(remedy: str) -> str:
    """A remedy written for Python, as it is typed on the command line.

    Examples
    --------
    >>> as_typed("scale=1e-4, offset=-0.1 for digital numbers")
    '--scale 1e-4 --offset -0.1 for digital numbers'
    >>> as_typed("bands=['B02', 'B03'], or cube.isel(band=0)")
    '--bands B02,B03, or cube.isel(band=0)'
    >>> as_typed("scale=1e-4  # or check=False, if the values are as they should be")
    '--scale 1e-4, or --no-check, if the values are as they should be'
    >>> as_typed("mask=None, clear=ds.good if True means clear; mask=None, clear=~ds.good if True means cloud")
    'no --mask --clear good if True means clear'
    """
    remedy = re.sub(r"\b(clear|mask)=ds\.(\w+)(?![\w.(])(?! [=<>/])", r"\1=\2", remedy)
    # Of several ways, those that take an expression are for Python.
    ways = re.split(r"; or |; |, or ", remedy)
    remedy = ", or ".join([way for way in ways if not re.search(r"\bds[.\[]", way)]) or remedy
    remedy = re.sub(rf"(?<![\w(.])({_OPTIONS})=(None|False)", r"no --\1", remedy)
    remedy = remedy.replace("snow='not clear'", "--no-snow").replace("overwrite=True", "--overwrite")
    remedy = remedy.replace("check=False", "--no-check").replace("  # or", ", or")
    remedy = re.sub(rf"(?<![\w(.])({_OPTIONS})=True", r"--\1", remedy)

    def flat(found: re.Match[str]) -> str:
        return f"--{found[1]} " + re.sub(r"['\" ]", "", found[2])

    remedy = re.sub(rf"(?<![\w(.-])({_OPTIONS})=[\[(]([^\])]*)[\])]", flat, remedy)
    remedy = re.sub(rf"(?<![\w(.-])({_OPTIONS})=", r"--\1 ", remedy)
    return remedy.replace(", --", " --").replace(" ,", ",")


@contextmanager
def plain_errors(debug: bool, typed: Callable[[str], str] = as_typed) -> Iterator[None]:
    """Errors of this package as three lines and exit code 2, or 3 if a run may go on; others as they are.

    Parameters
    ----------
    debug : bool
        Let them pass, to see where in the code they arose.
    typed : callable
        From a remedy as it is written for Python to what the user of this command types.
    """
    try:
        yield
    except CloudfreeError as error:
        if debug:
            raise
        for label, text in (
            ("found", error.found),
            ("needed", error.needed),
            ("try", typed(error.remedy)),
        ):
            typer.echo(f"{typer.style(f'{label:>6}', bold=True)}  {text}", err=True)
        raise typer.Exit(3 if isinstance(error, RunError) else 2) from None
