"""Fill the regions of a run on this machine, one after another."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from xr_cloudfree.engine.answers import Answers
from xr_cloudfree.errors import OutputError
from xr_cloudfree.runner.failures import HOPELESS, regions_failed
from xr_cloudfree.runner.plan import MOST_BYTES, RunPlan
from xr_cloudfree.runner.regions import RegionReport, fill_region, part_to_fill, read_windows
from xr_cloudfree.runner.runs import Run


def fill_locally(
    run: Run, regions: Iterable[int], *, report: Callable[[RegionReport], object] = lambda report: None
) -> None:
    """Fill regions on this machine, one after another; the next region is read ahead if memory allows.

    What several regions need, masks as the series corrects them and answers of the model for tiles, is computed once.

    Parameters
    ----------
    run : Run
        A run that has been started.
    regions : iterable of int
        The regions to fill.
    report : callable
        Called with the report on each region that was filled.

    Raises
    ------
    OutputError
        Immediately, if the store cannot be written.
    RunError
        At the end, if some regions failed; the others are done. If all failed with the same error, that error.
    """
    threads = os.cpu_count() or 1
    groups = _groups(run, list(map(int, regions)))
    two_fit = 2 * run.plan.window_bytes <= MOST_BYTES
    failed: dict[int, Exception] = {}
    n_done = 0
    with ThreadPoolExecutor(1, thread_name_prefix="cloudfree-read") as reader:

        def reads() -> Iterator[tuple[int, Callable[[], Any], _Group]]:
            for group in groups:
                for index in group.order:
                    read = partial(read_windows, group.part, index)
                    yield index, reader.submit(read).result if two_fit else read, group

        queue = reads()
        current = next(queue, None)
        while current is not None and (n_done or len(failed) < HOPELESS):
            index, read, group = current
            try:
                windows = read()
                current = next(queue, None)
                done = fill_region(group.plan, run.path, index, windows=windows, threads=threads, answers=group.answers)
            except OutputError:
                raise
            except Exception as error:  # a file or a model may raise anything; fill the other regions nevertheless
                failed[index] = error
                group.answers.clear()
                current = next(queue, None) if current is not None and current[0] == index else current
            else:
                n_done += 1
                report(done)
            windows = None  # otherwise two regions are held in memory while the next one is read
    if failed:
        first = failed[min(failed)]
        summary = regions_failed(failed, n_done, run.how_to_resume)
        raise summary from (None if summary is first else first)


@dataclass(frozen=True, eq=False)
class _Group:
    """Regions that lack the same dates, and so can share answers of the model.

    Parameters
    ----------
    plan : RunPlan
        The plan of the run.
    part : RunPlan
        The plan of the dates that the regions lack.
    order : list of int
        The regions.
    answers : Answers
        What they share.
    """

    plan: RunPlan
    part: RunPlan
    order: list[int]
    answers: Answers


def _groups(run: Run, regions: list[int]) -> Iterator[_Group]:
    """Yield the regions that lack all dates, and those that lack only dates that are added to the store."""
    added = run.plan.added
    grown = () if added is None else [i for i in regions if part_to_fill(run.plan, run.journal, i)[1] is not None]
    plan, order, answers = run.plan.in_order(set(regions).difference(grown))
    if order:
        yield _Group(plan, plan, order, answers)
    if added is not None and grown:
        part, order, answers = added.plan.in_order(grown)
        yield _Group(replace(run.plan, added=replace(added, plan=part)), part, order, answers)
