"""Runs that add target dates to a finished store, and fill only these."""

from __future__ import annotations

import os
from collections.abc import Callable, Collection
from dataclasses import replace
from typing import Any

import pandas as pd
import xarray as xr

from xr_cloudfree.errors import OptionError, OutputError, TimeError, option
from xr_cloudfree.inputs import open_s1
from xr_cloudfree.options import ReadOptions, parse_flag
from xr_cloudfree.plan import read
from xr_cloudfree.runner.journal import Journal
from xr_cloudfree.runner.plan import ATTRIBUTES, RunPlan, plan_run
from xr_cloudfree.runner.runs import Run, check_same, dates_as_text, open_input, plan_store, prepare, with_addition
from xr_cloudfree.storage.locations import absolute

# Topics of the fingerprint that depend on the target dates.
_OF_DATES = ("dates", "Sentinel-1", "other sensors", ATTRIBUTES)


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
    path, location, cube, options = open_input(obj, store, options)
    if record is None:
        run = plan_store(cube, location, path, date, options)
        if not run.plan.job.targets.scalar:
            return run
        return plan_store(cube, location, path, dates_as_text(run.plan), _explicit(options))
    if options.get("shard") is None:
        options["shard"] = tuple(record["layout"]["shard"])
    reading, others = ReadOptions.split(options)

    def check(dates: Any, others: dict[str, Any], but: Collection[str]) -> RunPlan:
        """Return the plan of some dates of a cube that, but for some topics, is that of the store."""
        run = Run(*plan_run(cube, dates, reading, **others), path, None)
        check_same(run, record, append=True, but=but, source=_source_of(cube, location))
        return run.plan

    try:
        asked = check(date, others, _OF_DATES)
    except TimeError:
        # If it is another cube, that should be said before anything about its dates. Its own first date is one of them.
        check(_first_date(cube, reading, others), _explicit(others), _OF_DATES)
        raise
    old, dates = list(record["dates"]), dates_as_text(asked)
    every = [*old, *(date for date in dates if date not in old)]
    if record["scalar"]:
        raise OutputError(
            f"{store} has a single date, without an axis of dates",
            "a store that was begun with a list of dates",
            option(f"date={every!r}", "append=False", "overwrite=True") + ", which fills all of them",
        )
    options, others = _explicit(options), _explicit(others)
    run = plan_store(cube, location, path, every, options)
    earlier = record.get("earlier")
    if run.plan.identity != record["run"]:
        check(old, others, ())
        earlier = {"run": record["run"], "dates": len(old)}
    elif run.journal.is_finished:
        return run
    if earlier is None:
        return run
    return replace(run, plan=with_addition(run.plan, earlier, cube, reading, others, asked))


def _first_date(cube: Any, reading: ReadOptions, others: dict[str, Any]) -> str:
    """Return a date of a cube, as text that denotes it exactly."""
    _, cut = open_s1(others.get("s1"), cube)
    return pd.Timestamp(read(cut, reading).times[0]).isoformat()


def _source_of(cube: Any, location: str | os.PathLike[str] | None) -> str | None:
    """Return where a cube lies, None if it was not opened from a file."""
    source = cube.encoding.get("source") if location is None else location
    return absolute(source) if isinstance(source, str | os.PathLike) else None


def _explicit(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without the step of a series: dates are given one by one."""
    return {name: value for name, value in options.items() if name != "freq"}
