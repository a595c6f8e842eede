"""The commands of other packages, and errors as the command line prints them.

A package adds a command by an entry point of the group ``xr_cloudfree.commands`` that leads to a `typer.Typer`. It is
imported when the command is used, and never by this package.
"""

from __future__ import annotations

import ast
import shlex
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import typer
from typer.core import TyperGroup

from xr_cloudfree.errors import CloudfreeError, MissingDependencyError, RunError

GROUP = "xr_cloudfree.commands"
# Arguments in Python with another name on the command line.
_NAMES = {"store": "out"}


class Commands(TyperGroup):
    """The program's own commands, and those that entry points add."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Parse the command line, with ``--repair auto`` as one option."""
        rest: list[str] = super().parse_args(ctx, with_auto(args))
        return rest

    def list_commands(self, ctx: Any) -> list[str]:
        """Return the names of the commands, the program's own first."""
        own = list(super().list_commands(ctx))
        return own + sorted(point.name for point in entry_points(group=GROUP) if point.name not in own)

    def get_command(self, ctx: Any, cmd_name: str) -> Any:
        """Return a command, or None if there is none of this name."""
        own = super().get_command(ctx, cmd_name)
        points = entry_points(group=GROUP, name=cmd_name)
        if own is not None or not points:
            return own
        command: Any = typer.main.get_command(_load(next(iter(points))))
        command.name = cmd_name
        return command


def with_auto(args: list[str]) -> list[str]:
    """Return arguments with ``--repair-auto`` for ``--repair auto``: the other uses of ``--repair`` take no value.

    Examples
    --------
    >>> with_auto(["fill", "cube.zarr", "--repair", "auto", "--repair"])
    ['fill', 'cube.zarr', '--repair-auto', '--repair']
    """
    joined: list[str] = []
    for argument in args:
        if argument == "auto" and joined[-1:] == ["--repair"]:
            joined[-1] = "--repair-auto"
        else:
            joined.append("--repair-auto" if argument == "--repair=auto" else argument)
    return joined


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
    # The list of all commands has to work even if one of them is broken; the error appears when it is used.
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


def flag(name: str, value: str) -> str | None:
    """Return an option as typed on the command line; None if its value takes Python.

    Parameters
    ----------
    name : str
        Name of the argument in Python.
    value : str
        Its value as Python source; empty for the option alone.

    Examples
    --------
    >>> flag("bands", "['B02', 'B03']")
    '--bands B02,B03'
    >>> flag("check", "False")
    '--no-check'
    >>> flag("repair", "False")
    '--no-repair'
    >>> flag("mask", "None")
    'no --mask'
    >>> flag("clear", "ds.good")
    '--clear good'
    >>> flag("clear", "ds.good == 1")
    """
    name = _NAMES.get(name, name).replace("_", "-")
    if not value:
        return f"--{name}"
    try:
        literal = parse_value(value)
    except ValueError:
        return None
    if (name, literal) in (("check", False), ("repair", False), ("snow", "not clear")):
        return f"--no-{name}"
    if literal is None or literal is False:
        return f"no --{name}"
    if literal is True or (name, literal) == ("snow", "clear"):
        return f"--{name}"
    if isinstance(literal, list | tuple):
        return f"--{name} {shlex.quote(','.join(map(str, literal)))}"
    # Quotes of Python are quotes of the shell, unless the text holds anything that one of them treats specially.
    if isinstance(literal, str) and shlex.quote(literal) != literal:
        return f"--{name} {shlex.quote(literal)}"
    return f"--{name} {value.removeprefix('ds.')}"


def parse_value(value: str) -> Any:
    """Return the value of a literal, or the name of a variable of the dataset.

    Raises
    ------
    ValueError
        If the source is any other expression.

    Examples
    --------
    >>> parse_value("(60, 30)"), parse_value("ds.good")
    ((60, 30), 'good')
    """
    variable = value.removeprefix("ds.")
    if variable != value and variable.isidentifier():
        return variable
    try:
        return ast.literal_eval(value)
    except SyntaxError as error:
        raise ValueError(f"{value} is not a literal") from error


@contextmanager
def plain_errors(debug: bool, spelling: Callable[[str, str], str | None] = flag) -> Iterator[None]:
    """Print an error of this package as three lines and exit with code 2, or 3 if a run can be resumed.

    Parameters
    ----------
    debug : bool
        Raise the error instead, with its traceback.
    spelling : callable
        How options are typed for this command, see `Remedy.spell`.
    """
    try:
        yield
    except CloudfreeError as error:
        if debug:
            raise
        for label, text in (
            ("found", error.found),
            ("needed", error.needed),
            ("try", error.remedy.spell(spelling)),
        ):
            typer.echo(f"{typer.style(f'{label:>6}', bold=True)}  {text}", err=True)
        raise typer.Exit(3 if isinstance(error, RunError) else 2) from None
