"""Command line: train missing networks, measure, and write the page."""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.accuracy import folds, tables
from benchmarks.accuracy.figures import goals
from benchmarks.accuracy.measure import Task, load, measure, merge, write
from benchmarks.accuracy.page import page
from benchmarks.accuracy.sites import SAMPLE, read_all
from xr_cloudfree.accuracy.simulate import TRACKS

ROOT = Path(__file__).parents[2]


def main(arguments: Sequence[str] | None = None) -> None:
    """Train missing networks, measure, and write the page."""
    parser = argparse.ArgumentParser("python -m benchmarks.accuracy", description=__doc__)
    parser.add_argument("--data", type=Path, help="folder with the training series (NetCDF)")
    parser.add_argument("--sample", type=Path, default=ROOT / "data" / "s2_portugal.zarr", help="a series apart")
    parser.add_argument("--folds", type=Path, default=Path("runs/folds"), help="folder of trainings and scores")
    parser.add_argument("--frames", type=int, default=5, help="at most so many frames per place, track and seed")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2], help="of masks and of training")
    also = {network.folder: network for network in folds.BESIDE.values()}
    parser.add_argument("--also", choices=also, nargs="+", default=[], help="train these too, with the first seed")
    parser.add_argument(
        "--only",
        choices=also,
        nargs="+",
        default=[],
        help="measure these alone, on the frames of --seeds, and put them to the scores of the last run",
    )
    parser.add_argument("--workers", type=int, default=2, help="processes that measure, one thread each")
    parser.add_argument("--no-train", action="store_true", help="judge the trainings that are there")
    parser.add_argument("--page-only", action="store_true", help="write the page from the scores of the last run")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "development" / "accuracy.md", help="the page")
    options = parser.parse_args(arguments)
    kept = options.folds / "scores.csv"
    if not options.page_only:
        if options.data is None or not options.data.is_dir():
            parser.error(f"--data: {options.data or 'not given'}; a folder of series is needed: --data my_cubes/")
        only = tuple(name for name, network in folds.BESIDE.items() if network.folder in options.only)
        task = Task(options.data, options.sample, options.folds, options.frames, tuple(options.seeds), only)
        if only and not kept.is_file():
            parser.error(f"--only: there is no {kept} to put them to; measure all first, without this option")
        training = [place for place in read_all(task.data, task.sample)[0] if place.ground != SAMPLE]
        if not options.no_train:
            folds.train(task.folds, training, task.seeds, [also[name] for name in options.also])
        missing = folds.missing(task.folds, dict.fromkeys(place.ground for place in training), task.seeds)
        if missing:
            print(f"Not trained, and left out: {', '.join(missing)}", flush=True)
        start = time.perf_counter()
        scores = measure(task, options.workers)
        seeds = " ".join(map(str, task.seeds))
        told = {
            "command": f"python -m benchmarks.accuracy --data DIR --frames {task.frames} --seeds {seeds}",
            "minutes": (time.perf_counter() - start) / 60,
            "cores": os.cpu_count() or 1,
            "missing": missing,
        }
        if only:
            before, first = load(kept)
            scores = merge(before, scores)
            later = f"{told['command']} --only {' '.join(options.only)}"
            told = first | {"later": [*first.get("later", []), later]}
        write(scores, kept, told)
    elif not kept.is_file():
        parser.error(f"--page-only: there is no {kept}; measure first, without this option")
    scores, told = load(kept)
    options.out.write_text(page(scores, told, ROOT / "benchmarks"))
    for track in TRACKS:
        print(track, tables.summary(scores, track), sep="\n")
    print(*goals(scores), sep="\n")


if __name__ == "__main__":
    main()
