"""The command ``cloudfree train``. Everything slow to import is imported when a training starts."""

from __future__ import annotations

import difflib
import itertools
import shlex
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Annotated, Any

import typer

from xr_cloudfree.cli.commands import parse_value, plain_errors
from xr_cloudfree.errors import MissingDependencyError, OptionError
from xr_cloudfree.models.networks.terramind import weights
from xr_cloudfree.options import ReadOptions

RECIPES = Path(__file__).parent / "recipes"
DEFAULT = "unet-plus"

app = typer.Typer(
    help="Train a model on your own cubes.",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
)


@app.callback()
def _main() -> None:
    pass


_LIGHTNING: dict[str, Any] = {
    "add_help_option": False,
    "context_settings": {"allow_extra_args": True, "ignore_unknown_options": True},
}


@app.command(**_LIGHTNING)
def unet(context: typer.Context) -> None:
    """Train a U-Net: see unet --help, and unet fit --help for all options.

    [bold]Examples[/bold]

    [cyan]cloudfree train unet fit --config unet-plus --data my_cube.zarr
    cloudfree train unet fit --config my_recipe.yaml --data cubes/ --out my_model
    cloudfree train unet fit --config unet-plus --data my_cube.zarr --ckpt_path last[/cyan]
    """
    _train("unet", DEFAULT, context.args)


@app.command(**_LIGHTNING)
def terramind(context: typer.Context) -> None:
    """Train a network based on TerraMind: see terramind --help, and terramind fit --help for all options.

    [bold]Examples[/bold]

    [cyan]cloudfree train terramind fit --config terramind-base --data cubes/
    cloudfree train terramind fit --config terramind-tiny-scratch --data my_cube.zarr[/cyan]
    """
    _train("terramind", "terramind-tiny-scratch", context.args)


def _train(pathway: str, default: str, arguments: Sequence[str]) -> None:
    """Run Lightning's command line for a pathway; pathways differ in their recipes only."""
    with plain_errors("--debug" in arguments, _flag):
        lightning = translate([argument for argument in arguments if argument != "--debug"], default)
        # A missing network connection is reported before the slow imports.
        if (size := _pretrained_size(lightning)) is not None:
            weights.fetch(size)
        try:
            from xr_cloudfree_training.run import run
        except ModuleNotFoundError as error:
            raise MissingDependencyError(
                f"training needs {error.name}, which is not installed",
                "the packages for training",
                "pip install 'xr-cloudfree[train]'",
            ) from error
        run(lightning, pathway)


@app.command()
def recipes(
    name: Annotated[str | None, typer.Argument(help="Print this recipe, to be changed and saved in a file.")] = None,
) -> None:
    """List the recipes, or print one."""
    with plain_errors(False):
        if name is not None:
            typer.echo(find_recipe(name).read_text(), nl=False)
            return
        paths = _recipes()
        width = max(map(len, paths)) + 2
        for recipe, path in paths.items():
            typer.echo(f"{recipe:<{width}}{path.read_text().splitlines()[0].removeprefix('# ')}")


def _recipes() -> dict[str, Path]:
    """Return the paths of the recipes by name; recipes for another program are named after it: ``terratorch/…``."""
    paths = sorted(RECIPES.rglob("*.yaml"), key=lambda path: (path.parent, path))
    return {path.relative_to(RECIPES).with_suffix("").as_posix(): path for path in paths}


def find_recipe(name: str) -> Path:
    """Return the path of a recipe that is named or given as a path.

    Raises
    ------
    OptionError
        If there is none.
    """
    path = Path(name).expanduser()
    if path.suffix in (".yaml", ".yml"):
        if not path.is_file():
            raise OptionError(f"there is no recipe at {name}", "the path of a recipe, or a name", "--config unet-plus")
        return path
    names = _recipes()
    if name not in names:
        near = difflib.get_close_matches(name, names, n=1) or [DEFAULT]
        raise OptionError(
            f"no recipe is called {name!r}", f"one of {', '.join(names)}, or a path.yaml", f"--config {near[0]}"
        )
    return names[name]


def translate(arguments: list[str], default: str = DEFAULT) -> list[str]:
    """Translate the arguments of this command into those of Lightning's command line.

    ``--config`` takes the name of a recipe, ``--data`` several cubes.

    Examples
    --------
    >>> translate(["fit", "--data", "a.zarr", "b.nc", "--data=c.nc", "--model.lr", "0.001"])[2:]
    ['--model.lr', '0.001', '--data.cubes=["a.zarr", "b.nc", "c.nc"]']
    """
    import json

    out: list[str] = []
    cubes: list[str] = []
    recipe = False
    remaining = list(arguments)
    while remaining:
        argument = remaining.pop(0)
        option, equals, value = argument.partition("=")
        if option not in ("--data", "--config", "-c"):
            out.append(argument)
            continue
        values = [value] if equals else []
        # The shell expands a pattern into several words.
        while not equals and remaining and not remaining[0].startswith("-") and (option == "--data" or not values):
            values.append(remaining.pop(0))
        if not values:
            what, example = ("cube", "my_cube.zarr") if option == "--data" else ("recipe", default)
            raise OptionError(f"nothing follows {option}", f"a {what}", f"{option} {example}")
        if option == "--data":
            cubes += values
        else:
            recipe = True
            out.append(f"--config={find_recipe(values[0])}")
    if not out:
        return ["--help"]
    if not out[0].startswith("-"):
        if not recipe and not {"--help", "-h"} & set(out):
            out.insert(1, f"--config={find_recipe(default)}")
        if cubes:
            out.append(f"--data.cubes={json.dumps(cubes)}")
    return out


def _pretrained_size(arguments: Sequence[str]) -> str | None:
    """Return the size of the published TerraMind that a training starts from, or None.

    Examples
    --------
    >>> _pretrained_size(["fit", f"--config={find_recipe('terramind-base')}"])
    'base'
    >>> _pretrained_size(["fit", f"--config={find_recipe('terramind-base')}", "--model.pretrained", "false"])
    """
    import yaml

    if arguments[0] != "fit" or {"--help", "-h"} & set(arguments):
        return None
    model: dict[str, Any] = {}
    words = [word for argument in arguments for word in argument.split("=", 1)]
    for option, value in itertools.pairwise(words):
        if option == "--config":
            model |= (yaml.safe_load(Path(value).read_text()) or {}).get("model") or {}
        elif option in ("--model.architecture", "--model.pretrained", "--model.config"):
            model[option.removeprefix("--model.")] = yaml.safe_load(value)
        elif option == "--model.config.size":
            model["config"] = (model.get("config") or {}) | {"size": value}
    if model.get("architecture") != "terramind" or not model.get("pretrained"):
        return None
    return str((model.get("config") or {}).get("size", "tiny"))


def _flag(name: str, value: str) -> str | None:
    """Return an option that says how cubes are read as typed for a training; None for others, and for expressions.

    Examples
    --------
    >>> _flag("scale", "1e-4")
    '--data.reading.scale 1e-4'
    >>> print(_flag("bands", "['B02', 'B03']"))
    --data.reading.bands '["B02", "B03"]'
    """
    import json

    if name not in {field.name for field in fields(ReadOptions)}:
        return None
    if not value:
        return f"--data.reading.{name}"
    try:
        literal = parse_value(value)
    except ValueError:
        return None
    if isinstance(literal, bool | list | tuple | None):
        value = json.dumps(literal)
    elif isinstance(literal, str):
        value = literal
    return f"--data.reading.{name} {shlex.quote(value)}"
