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
from xr_cloudfree.runner.plan import RunPlan
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
        If the store has a single date without an axis, or a layer whose size depends on the dates.
    ChangedError
        If the store was made from another cube, or with another model or other settings.
    """
    record = Journal(store).begun()
    asked = prepare(obj, store, date, **options)
    if record is None:
        return prepare(obj, store, dates_as_text(asked.plan), **_explicit(options)) if _is_single(asked.plan) else asked
    if record["dates"] is None:
        raise OutputError(
            f"{asked.path} has a single date, without an axis of dates",
            "a store that was begun with a list of dates",
            option(f"date={dates_as_text(asked.plan)!r}", "overwrite=True"),
        )
    options = _explicit(options)
    if options.get("shard") is None:
        options["shard"] = tuple(record["layout"]["shard"])
    old = list(record["dates"])
    run = prepare(obj, store, [*old, *(date for date in dates_as_text(asked.plan) if date not in old)], **options)
    earlier = record.get("earlier")
    if run.plan.identity != record["run"]:
        check_same(prepare(obj, store, old, **options), record, resume=True)
        earlier = {"run": record["run"], "dates": len(old)}
    elif run.journal.is_finished:
        return run
    if earlier is None:
        return run
    location = obj if isinstance(obj, str | os.PathLike) else None
    reading, others = ReadOptions.split(options)
    cube = io.open_cube(location) if location is not None else obj
    plan = with_addition(run.plan, earlier, cube, reading, others)
    _check_sizes(plan)
    return replace(run, plan=plan)


def _explicit(options: dict[str, Any]) -> dict[str, Any]:
    """Return the options without the step of a series: dates are given one by one."""
    return {name: value for name, value in options.items() if name != "freq"}


def _is_single(plan: RunPlan) -> bool:
    return bool(plan.job.targets.scalar)


def _check_sizes(plan: RunPlan) -> None:
    """Raise for layers that have another size with all dates than with some of them."""
    assert plan.added is not None
    alone = plan.added.plan.job
    for part in plan.parts:
        sizes = [(plan.job.sizes[dim], alone.sizes[dim]) for dim in part.dims[:-2] if dim != "time"]
        if part.dims[0] != "time" or any(a != b for a, b in sizes):
            axes = ", ".join(part.dims[:-2])
            raise OutputError(
                f"the size of {part.name} ({axes}) depends on the target dates",
                "layers to which dates can be added",
                option("window=None") + f", or layers without {part.name}",
            )
