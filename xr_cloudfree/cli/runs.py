"""The commands of ``cloudfree`` for runs over regions, from ``batch`` to ``repair``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import typer

from xr_cloudfree.cli.cluster import connect, stoppable
from xr_cloudfree.cli.commands import plain_errors
from xr_cloudfree.cli.options import (
    OUTPUT,
    RUN,
    AnyCube,
    Block,
    Check,
    Debug,
    Filling,
    Loading,
    Overwrite,
    Quiet,
    Reading,
    grouped,
)
from xr_cloudfree.errors import OptionError
from xr_cloudfree.storage.locations import local

_CLUSTER = "Cluster"
_MAX_LINES = 20
StorePath = Annotated[str, typer.Argument(metavar="STORE", help="The store that --out named.", show_default=False)]
Cog = Annotated[
    bool,
    typer.Option("--cog", help="Also write a cloud-optimized GeoTIFF per date and layer.", rich_help_panel=OUTPUT),
]
Stac = Annotated[bool, typer.Option("--stac", help="Also write a STAC item per date.", rich_help_panel=OUTPUT)]
Icechunk = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="Also commit a version to an Icechunk repository.", rich_help_panel=OUTPUT),
]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="tcp://…|local[:N]",
        help="Address of a dask scheduler, or processes on this machine. By default this process alone.",
        rich_help_panel=_CLUSTER,
    ),
]
Gpu = Annotated[
    bool | None,
    typer.Option(
        "--gpu/--no-gpu",
        help="Use only workers that announce the resource GPU, or any worker. By default those with GPU if there are "
        "some.",
        rich_help_panel=_CLUSTER,
        show_default=False,
    ),
]
Stall = Annotated[
    float,
    typer.Option(
        min=1,
        help="Seconds without a finished region, or without a worker, after which the run gives up.",
        rich_help_panel=_CLUSTER,
    ),
]


@dataclass(frozen=True)
class Products:
    """What is written besides the store."""

    cog: Cog = False
    stac: Stac = False
    icechunk: Icechunk = None


@dataclass(frozen=True)
class Workers:
    """Where regions are filled."""

    cluster: Cluster = None
    gpu: Gpu = None
    stall: Stall = 900.0


@grouped
def batch(
    cube: AnyCube = None,
    *,
    out: Annotated[
        str,
        typer.Option(
            "--out",
            "-o",
            metavar="STORE",
            help="OUT.zarr: a path, or a URL such as s3://bucket/out.zarr.",
            rich_help_panel=OUTPUT,
            show_default=False,
        ),
    ],
    filling: Filling,
    loading: Loading,
    products: Products,
    overwrite: Overwrite = False,
    append: Annotated[
        bool,
        typer.Option("--append", help="Add the dates to a finished store, and fill only them.", rich_help_panel=OUTPUT),
    ] = False,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare",
            help="Only begin the store. Then: cloudfree region STORE --index N for each region, and cloudfree resume.",
            rich_help_panel=_CLUSTER,
        ),
    ] = False,
    workers: Workers,
    reading: Reading,
    check: Check = True,
    shard: Annotated[
        int | None,
        typer.Option(help="Edge length in pixels of a region, which is one shard of the store.", rich_help_panel=RUN),
    ] = None,
    block: Block = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fill a cube of any size into a Zarr store, region by region, on a cluster or on this machine.

    After an interruption the same command resumes the run, and so does cloudfree resume STORE, also with --collection:
    the journal of the store records what was loaded.

    [bold]Examples[/bold]

    [cyan]cloudfree batch cube.zarr --out filled.zarr --dates 2021-06-01,2021-07-01 --cluster local:4
    cloudfree batch cube.zarr --out filled.zarr --model unet --cluster tcp://10.0.0.1:8786 --cog --stac
    cloudfree batch --collection sentinel-2-c1-l2a --bbox=-8.5,40.1,-8.4,40.2 --time 2021 --out filled.zarr
    cloudfree batch cube.zarr --out filled.zarr --prepare[/cyan]
    """
    with plain_errors(debug):
        from xr_cloudfree.runner import runs
        from xr_cloudfree.runner.additions import planner

        run = planner(append, overwrite=overwrite)(
            loading.source(cube, reading),
            out,
            shard=shard,
            block=block,
            check=check,
            **filling.options(),
            **reading.options(),
        )
        if prepare:
            with runs.started(run, overwrite=overwrite) as missing:
                n = run.plan.n_regions
                typer.echo(f"{out}: {n} regions, {len(missing)} to be filled: --index 0 to {n - 1}")
                typer.echo(f"a region takes about {run.plan.memory // 2**20} MiB of memory while it is filled")
                return
        _carry_out(run, workers, products, overwrite, overwrite, quiet)


def region(
    store: StorePath,
    index: Annotated[int, typer.Option("--index", "-i", min=0, help="Which region.", show_default=False)],
    of: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=1,
            help="The regions INDEX, INDEX + N, INDEX + 2 N, …: for an array of N jobs.",
            show_default=False,
        ),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fill one region, or every Nth region, of a prepared run: for job arrays.

    Regions that are done are skipped.

    [bold]Examples[/bold]

    [cyan]cloudfree batch cube.zarr --out filled.zarr --prepare
    sbatch --array=0-99 --wrap 'cloudfree region filled.zarr --index $SLURM_ARRAY_TASK_ID --of 100'
    cloudfree resume filled.zarr[/cyan]
    """
    with plain_errors(debug), stoppable(store):
        from xr_cloudfree.runner import regions, runs

        run = runs.reopen(store)
        n = run.plan.n_regions
        if index >= (of or n):
            raise OptionError(f"the index is {index}", f"one below {of or n}", f"--index {(of or n) - 1}")
        done, _ = run.journal.regions(run.plan.layout, run.plan.identity)
        if index >= n and not quiet:
            typer.echo(f"there are {n} regions, and none for job {index} of {of}")
        for number in range(index, n, of or n):
            if done[number]:
                outcome = "is done already"
            else:
                report = regions.fill_region(run.plan, run.path, number)
                outcome = f"done in {report.seconds:.1f} s, {report.bytes:,} bytes"
            if not quiet:
                typer.echo(f"region {number} of {n}: {outcome}")


def status(store: StorePath, debug: Debug = False) -> None:
    """Show the progress of a run."""
    with plain_errors(debug):
        from xr_cloudfree.runner.status import status as read

        typer.echo(read(store).text())


@grouped
def resume(
    store: StorePath,
    *,
    cube: Annotated[
        Path | None,
        typer.Option(metavar="CUBE", help="Where the cube is now, if it was moved.", show_default=False),
    ] = None,
    products: Products,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace existing GeoTIFFs and STAC items.", rich_help_panel=OUTPUT),
    ] = False,
    workers: Workers,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Resume a run, with the options that it was begun with.

    For a finished run it only writes the requested GeoTIFFs, STAC items and versions.
    """
    with plain_errors(debug):
        from xr_cloudfree.runner import runs

        _carry_out(runs.reopen(store, cube), workers, products, False, overwrite, quiet)


def verify(store: StorePath, quiet: Quiet = False, debug: Debug = False) -> None:
    """Compare every byte of a store with what was written; exit code 1 if any has changed or is missing."""
    with plain_errors(debug):
        from xr_cloudfree.runner.verify import verify as check

        report = check(store)
        if not quiet:
            _print_problems(report)
        if not report.ok:
            raise typer.Exit(1)


def repair(store: StorePath, quiet: Quiet = False, debug: Debug = False) -> None:
    """Fill the regions again in which verify finds a fault."""
    with plain_errors(debug), stoppable(store):
        from xr_cloudfree.runner.verify import repair as mend

        report = mend(store)
        if not quiet:
            typer.echo(f"{len(report.regions) + len(report.unfinished)} regions were filled again")


def _print_problems(report: Any) -> None:
    for problem in report.problems[:_MAX_LINES]:
        where = "" if problem.region is None else f" (region {problem.region})"
        typer.echo(f"{problem.what}: {problem.key}{where}")
    if len(report.problems) > _MAX_LINES:
        typer.echo(f"and {len(report.problems) - _MAX_LINES} more")
    if report.unfinished:
        typer.echo(f"not filled yet: {len(report.unfinished)} regions")
    if report.ok:
        typer.echo(f"{report.files} files, {report.bytes:,} bytes are as they were written. Digest {report.digest}")


def _carry_out(run: Any, workers: Workers, products: Products, overwrite: bool, replace: bool, quiet: bool) -> None:
    """Fill the missing regions of a run and write the products.

    Parameters
    ----------
    run : Run
        The run.
    workers : Workers
        Where regions are filled.
    products : Products
        What is written besides the store.
    overwrite : bool
        Whether to begin the store anew.
    replace : bool
        Whether to replace existing GeoTIFFs and STAC items.
    quiet : bool
        Whether to print nothing.
    """
    from xr_cloudfree.runner import exports
    from xr_cloudfree.runner.driver import execute
    from xr_cloudfree.runner.status import status as status_of

    store = run.path
    repository = None if products.icechunk is None else local(products.icechunk, "icechunk")
    exports.check_sinks(
        store,
        cog=products.cog,
        stac=products.stac,
        icechunk=repository,
        overwrite=replace,
        times=run.plan.job.targets.times,
    )
    with stoppable(store), connect(workers.cluster, quiet, run.how_to_resume) as client:
        execute(run, client, overwrite=overwrite, stall=workers.stall, gpu=workers.gpu, progress=not quiet)
        written = [store]
        written += exports.write_cogs(store, overwrite=replace) if products.cog else []
        written += exports.write_items(store, overwrite=replace) if products.stac else []
        if not quiet:
            if (summary := status_of(store)).pixels:
                typer.echo(f"{summary.counted()} (pixels of all dates)")
            for path in written:
                typer.echo(f"Wrote {path}")
        if repository is not None:
            snapshot = exports.write_icechunk(store, repository)
            if not quiet:
                typer.echo(f"Wrote {repository}, snapshot {snapshot}")
