"""Command line: measure, and write the tables of the page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.masks import page
from benchmarks.masks.measure import Task, measure
from benchmarks.masks.summary import goals, summarise


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the tables of the page."""
    parser = argparse.ArgumentParser("python -m benchmarks.masks", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with series (NetCDF)")
    parser.add_argument("--sample", type=Path, help="a series apart")
    parser.add_argument("--frames", type=int, default=5, help="at most so many frames per place, track and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of frames, donors and wrong masks")
    parser.add_argument("--dates", type=int, default=120, help="at most so many dates of a series, its first ones")
    parser.add_argument(
        "--tuned",
        nargs="+",
        default=[],
        metavar="PLACE",
        help="series on which constants of the correction were chosen",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that measure, one thread each")
    parser.add_argument("--scores", type=Path, help="also write all scores to this file (CSV)")
    parser.add_argument("--summary", type=Path, default=page.SUMMARY, help="the means by place (CSV)")
    parser.add_argument("--page", type=Path, default=page.PAGE, help="the page")
    parser.add_argument("--page-only", action="store_true", help="write the page from the means of the last run")
    options = parser.parse_args(arguments)
    if not options.page_only:
        if options.data is None or not options.data.is_dir():
            parser.error(f"--data: {options.data or 'not given'}; a folder of series is needed: --data my_cubes/")
        task = Task(options.data, options.sample, options.frames, tuple(options.seeds), options.dates)
        scores = measure(task, options.workers)
        if options.scores is not None:
            scores.to_csv(options.scores, index=False, float_format="%.6g")
        sample = "" if task.sample is None else " --sample FILE"
        how = f"--frames {task.frames} --seeds {' '.join(map(str, task.seeds))} --dates {task.dates}"
        how += f" --tuned {' '.join(options.tuned)}" if options.tuned else ""
        summary = summarise(scores, options.tuned)
        page.write(summary, f"python -m benchmarks.masks --data DIR{sample} {how}", options.summary)
    elif not options.summary.is_file():
        parser.error(f"--page-only: there is no {options.summary}; measure first, without this option")
    summary, command = page.load(options.summary)
    options.page.write_text(page.refresh(options.page.read_text(), summary, command))
    print(*goals(summary), sep="\n")


if __name__ == "__main__":
    main()
