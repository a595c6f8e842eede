"""Command line: measure, and write the tables of the page."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from benchmarks.others import page
from benchmarks.others.measure import measure


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure, and write the tables of the page."""
    parser = argparse.ArgumentParser("python -m benchmarks.others", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with series (NetCDF)")
    parser.add_argument("--sample", type=Path, help="a series apart")
    parser.add_argument("--frames", type=int, default=10, help="at most so many frames per place and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of frames, sensors and noise")
    parser.add_argument("--summary", type=Path, default=page.SUMMARY, help="the means by place (CSV)")
    parser.add_argument("--page", type=Path, default=page.PAGE, help="the page")
    parser.add_argument("--page-only", action="store_true", help="write the page from the means of the last run")
    options = parser.parse_args(arguments)
    if not options.page_only:
        if options.data is None or not options.data.is_dir():
            parser.error(f"--data: {options.data or 'not given'}; a folder of series is needed: --data my_cubes/")
        scores = measure(options.data, options.sample, options.frames, options.seeds)
        sample = "" if options.sample is None else " --sample FILE"
        how = f"--frames {options.frames} --seeds {' '.join(map(str, options.seeds))}"
        page.write(page.summarise(scores), f"python -m benchmarks.others --data DIR{sample} {how}", options.summary)
    elif not options.summary.is_file():
        parser.error(f"--page-only: there is no {options.summary}; measure first, without this option")
    summary, command = page.load(options.summary)
    options.page.write_text(page.refresh(options.page.read_text(), summary, command))
    print(page.places(summary), page.tracks(summary), sep="\n\n")


if __name__ == "__main__":
    main()
