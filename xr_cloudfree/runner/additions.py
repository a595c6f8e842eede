"""Runs that add target dates to a finished store, and fill only these."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import xarray as xr

from xr_cloudfree import io
from xr_cloudfree.errors import OptionError, OutputError, option
from xr_cloudfree.options import ReadOptions, parse_flag
from xr_cloudfree.runner.journal import Journal
from xr_cloudfree.runner.plan import plan_run
from xr_cloudfree.runner.runs import Run, check_same, dates_as_text, prepare, with_addition


def planner(append: bool, *, overwrite: bool = False, resume: bool = True) -> Callable[..., Run]:
    """Return the function that plans a run: `prepare`, or `prepare_addition` with `append`.

    Raises
    ------
    OptionError
        If `append` is given with an option that contradicts it.
    """
    if not parse_flag("append", append):
        return prepare
    if overwrite or not resume:
        given = "overwrite=True" if overwrite else "resume=False"
        raise OptionError(f"append=True was given with {given}", "one of them", option("append=True"))
    return prepare_addition


def prepare_addition(
    obj: xr.DataArray | xr.Dataset | str | os.PathLike[str],
    store: str | os.PathLike[str],
    date: Any = None,
    **options: Any,
) -> Run:
    """Plan a run that adds dates to a store, after those that it has; it is that of all these dates.

    Parameters
    ----------
    obj, store, date
        As in `prepare`. Dates that the store has are not filled again. A store that does not exist is begun, with an
        axis of dates even for a single one.
    **options
        As in `prepare`.

    Raises
    ------
    OutputError
        If the store has a single date without an axis.
    ChangedError
        If the store was made from another cube, or with another model or other settings.
    """
    record = Journal(store).begun()
    location = obj if isinstance(obj, str | os.PathLike) else None
    cube: Any = io.open_cube(location) if location is not None else obj
    reading, others = ReadOptions.split(options)
    asked, _ = plan_run(cube, date, reading, **others)
    dates = dates_as_text(asked)
    if record is None:
        return (
            prepare(obj, store, dates, **_explicit(options))
            if asked.job.targets.scalar
            else (prepare(obj, store, date, **options))
        )
    old = list(record["dates"])
    every = [*old, *(date for date in dates if date not in old)]
    if record["scalar"]:
        raise OutputError(
            f"{store} has a single date, without an axis of dates",
            "a store that was begun with a list of dates",
            option(f"date={every!r}", "append=False", "overwrite=True") + ", which fills all of them",
        )
    options = _explicit(options)
    if options.get("shard") is None:
        options["shard"] = tuple(record["layout"]["shard"])
    run = prepare(obj, store, every, **options)
    reading, others = ReadOptions.split(options)
    earlier = record.get("earlier")
    if run.plan.identity != record["run"]:
        before = Run(*plan_run(cube, old, reading, **others), run.path, None)
        check_same(before, record, resume=True)
        earlier = {"run": record["run"], "dates": len(old)}
    elif run.journal.is_finished:
        return run
    if earlier is None:
        return run
    return replace(run, plan=with_addition(run.plan, earlier, cube, reading, others))


def _explicit(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without the step of a series: dates are given one by one."""
    return {name: value for name, value in options.items() if name != "freq"}
