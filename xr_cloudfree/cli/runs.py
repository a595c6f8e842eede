"""The commands of ``cloudfree`` for runs over regions: begin one, go on with it, look at it, check it, mend it."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any, NoReturn

import typer

from xr_cloudfree.cli.commands import plain_errors
from xr_cloudfree.cli.options import (
    RUN,
    S1,
    Bands,
    Check,
    Clear,
    CubePath,
    Dates,
    Debug,
    Dilate,
    Freq,
    Mask,
    MaskScheme,
    Merge,
    Nodata,
    Offset,
    Overwrite,
    Quiet,
    Scale,
    Snow,
    Strict,
    Threshold,
    dates_of,
    layers_of,
    names,
    reading,
    window_of,
)
from xr_cloudfree.errors import OptionError, RunError
from xr_cloudfree.storage.locations import local

if TYPE_CHECKING:
    from distributed import Client

app = typer.Typer()

_CLUSTER = "Cluster"
_MOST_LINES = 20
StorePath = Annotated[str, typer.Argument(metavar="STORE", help="What --out named.", show_default=False)]
Cluster = Annotated[
    str | None,
    typer.Option(
        metavar="tcp://…|local[:N]",
        help="Address of a dask scheduler, or processes on this machine. Without it: this process alone.",
        rich_help_panel=_CLUSTER,
    ),
]
Gpu = Annotated[
    bool | None,
    typer.Option(
        "--gpu/--no-gpu",
        help="Only on workers that announce the resource GPU, or on any. By default where there are some.",
        rich_help_panel=_CLUSTER,
        show_default=False,
    ),
]
Stall = Annotated[
    float,
    typer.Option(
        min=1, help="Seconds without a finished region, or a worker, after which to give up.", rich_help_panel=_CLUSTER
    ),
]
Cog = Annotated[
    bool,
    typer.Option("--cog", help="A cloud-optimized GeoTIFF for each date and layer too.", rich_help_panel="Output"),
]
Stac = Annotated[bool, typer.Option("--stac", help="A STAC item for each date too.", rich_help_panel="Output")]
Icechunk = Annotated[
    str | None,
    typer.Option(metavar="FOLDER", help="A new version in an Icechunk repository too.", rich_help_panel="Output"),
]


@app.command()
def batch(
    cube: CubePath,
    out: Annotated[
        str,
        typer.Option("--out", "-o", metavar="STORE", help="OUT.zarr.", rich_help_panel="Output", show_default=False),
    ],
    dates: Dates = None,
    freq: Freq = None,
    model: Annotated[str, typer.Option("--model", "-m", help="See: cloudfree models.")] = "auto",
    window: Annotated[
        str | None,
        typer.Option(metavar="DAYS", help="Days before and after the target from which dates are taken: 60, or 60,0."),
    ] = None,
    screen: Annotated[
        bool, typer.Option("--screen", help="Fill pixels too that are flagged clear but look like haze.")
    ] = False,
    s1: S1 = None,
    layers: Annotated[
        str | None,
        typer.Option(
            metavar="all",
            help="Layers that tell how values came about: all, or names with commas. 'filled' is always written.",
            rich_help_panel="Output",
        ),
    ] = None,
    cog: Cog = False,
    stac: Stac = False,
    icechunk: Icechunk = None,
    overwrite: Overwrite = False,
    prepare: Annotated[
        bool,
        typer.Option(
            "--prepare",
            help="Only begin the store. Then: cloudfree region STORE --index N for each region, and cloudfree resume.",
            rich_help_panel=_CLUSTER,
        ),
    ] = False,
    cluster: Cluster = None,
    gpu: Gpu = None,
    stall: Stall = 900.0,
    clear: Clear = None,
    mask: Mask = None,
    scheme: MaskScheme = None,
    threshold: Threshold = None,
    snow: Snow = True,
    strict: Strict = False,
    dilate: Dilate = 0,
    bands: Bands = None,
    scale: Scale = None,
    offset: Offset = None,
    nodata: Nodata = None,
    merge: Merge = None,
    check: Check = True,
    shard: Annotated[
        int | None,
        typer.Option(help="Pixels along the edge of a region, which is one shard of the store.", rich_help_panel=RUN),
    ] = None,
    block: Annotated[
        int | None,
        typer.Option(help="Pixels along the edge of a block, the work of one step.", rich_help_panel=RUN),
    ] = None,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Fill a cube of any size into a Zarr store: region by region, on a cluster or here.

    The same command goes on where it was stopped, however it was stopped.

    [bold]Examples[/bold]

    [cyan]cloudfree batch cube.zarr --out filled.zarr --dates 2021-06-01,2021-07-01 --cluster local:4
    cloudfree batch cube.zarr --out filled.zarr --model unet --cluster tcp://10.0.0.1:8786 --cog --stac
    cloudfree batch cube.zarr --out filled.zarr --prepare[/cyan]
    """
    with plain_errors(debug):
        from xr_cloudfree.runner import runs

        run = runs.prepare(
            cube,
            local(out),
            dates_of(dates),
            freq=freq,
            model=model,
            bands=names(bands),
            window=window_of(window),
            layers=layers_of(layers),
            screen=screen,
            shard=shard,
            block=block,
            s1=s1,
            check=check,
            **reading(clear, mask, scheme, threshold, snow, strict, dilate, scale, offset, nodata, merge),
        )
        if prepare:
            with runs.started(run, overwrite=overwrite) as missing:
                n = run.plan.n_regions
                typer.echo(f"{out}: {n} regions, {len(missing)} to be filled: --index 0 to {n - 1}")
                typer.echo(f"a region takes about {run.plan.memory // 2**20} MiB of memory while it is filled")
                return
        _carry_out(run, cluster, gpu, stall, overwrite, cog, stac, icechunk, quiet)


@app.command()
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
    """Fill one region of a run that was prepared, or every so many of them: for job arrays.

    Regions that are done are left as they are.

    [bold]Examples[/bold]

    [cyan]cloudfree batch cube.zarr --out filled.zarr --prepare
    sbatch --array=0-99 --wrap 'cloudfree region filled.zarr --index $SLURM_ARRAY_TASK_ID --of 100'
    cloudfree resume filled.zarr[/cyan]
    """
    with plain_errors(debug), _stoppable(store):
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
                told = "is done already"
            else:
                report = regions.fill_region(run.plan, run.path, number)
                told = f"done in {report.seconds:.1f} s, {report.bytes:,} bytes"
            if not quiet:
                typer.echo(f"region {number} of {n}: {told}")


@app.command()
def status(store: StorePath, debug: Debug = False) -> None:
    """Say how far a run is."""
    with plain_errors(debug):
        from xr_cloudfree.runner.status import status as read

        typer.echo(read(store).text())


@app.command()
def resume(
    store: StorePath,
    cube: Annotated[
        Path | None,
        typer.Option(metavar="CUBE", help="Where the cube lies now, if it was moved.", show_default=False),
    ] = None,
    cog: Cog = False,
    stac: Stac = False,
    icechunk: Icechunk = None,
    overwrite: Annotated[
        bool,
        typer.Option("--overwrite", help="Replace GeoTIFFs and items that are there.", rich_help_panel="Output"),
    ] = False,
    cluster: Cluster = None,
    gpu: Gpu = None,
    stall: Stall = 900.0,
    quiet: Quiet = False,
    debug: Debug = False,
) -> None:
    """Go on with a run, with the options that it was begun with.

    Of a run that is finished it writes what is asked for besides the store.
    """
    with plain_errors(debug):
        from xr_cloudfree.runner import runs

        _carry_out(runs.reopen(store, cube), cluster, gpu, stall, False, cog, stac, icechunk, quiet, replace=overwrite)


@app.command()
def verify(store: StorePath, quiet: Quiet = False, debug: Debug = False) -> None:
    """Compare every byte of a store with what was written; exit code 1 if one has changed or is missing."""
    with plain_errors(debug):
        from xr_cloudfree.runner.verify import verify as check

        report = check(store)
        if not quiet:
            _tell(report)
        if not report.ok:
            raise typer.Exit(1)


@app.command()
def repair(store: StorePath, quiet: Quiet = False, debug: Debug = False) -> None:
    """Fill again the regions in which verify finds something."""
    with plain_errors(debug), _stoppable(store):
        from xr_cloudfree.runner.verify import repair as mend

        report = mend(store)
        if not quiet:
            typer.echo(f"{len(report.regions) + len(report.unfinished)} regions were filled again")


def _tell(report: Any) -> None:
    """What verify found, in lines."""
    for problem in report.problems[:_MOST_LINES]:
        where = "" if problem.region is None else f" (region {problem.region})"
        typer.echo(f"{problem.what}: {problem.key}{where}")
    if len(report.problems) > _MOST_LINES:
        typer.echo(f"and {len(report.problems) - _MOST_LINES} more")
    if report.unfinished:
        typer.echo(f"not filled yet: {len(report.unfinished)} regions")
    if report.ok:
        typer.echo(f"{report.files} files, {report.bytes:,} bytes are as they were written. Digest {report.digest}")


def _carry_out(
    run: Any,
    cluster: str | None,
    gpu: bool | None,
    stall: float,
    overwrite: bool,
    cog: bool,
    stac: bool,
    icechunk: str | None,
    quiet: bool,
    replace: bool | None = None,
) -> None:
    from xr_cloudfree.batching import carry_out
    from xr_cloudfree.runner import sinks
    from xr_cloudfree.runner.status import status as status_of

    store, repository = Path(run.path), None if icechunk is None else local(icechunk, "icechunk")
    replace = overwrite if replace is None else replace
    times = run.plan.job.targets.times
    sinks.check_sinks(store, cog=cog, stac=stac, icechunk=repository, overwrite=replace, times=times)
    with _stoppable(store), _client(cluster, quiet, run.how_to_resume) as client:
        carry_out(run, client, overwrite=overwrite, stall=stall, gpu=gpu, progress=not quiet)
        written = [store]
        written += sinks.write_cogs(store, overwrite=replace) if cog else []
        written += sinks.write_items(store, overwrite=replace) if stac else []
        if not quiet:
            if (told := status_of(store)).pixels:
                typer.echo(f"{told.counted()} (pixels of all dates)")
            for path in written:
                typer.echo(f"Wrote {path}")
        if repository is not None:
            snapshot = sinks.write_icechunk(store, repository)
            if not quiet:
                typer.echo(f"Wrote {repository}, snapshot {snapshot}")


@contextmanager
def _client(cluster: str | None, quiet: bool, again: str = "the same call again") -> Iterator[Client | None]:
    """The cluster that was named, and its end if it was started here."""
    if cluster is None:
        yield None
        return
    from dask.system import CPU_COUNT

    from xr_cloudfree.runner.scheduler import distributed

    dask = distributed()
    name, _, number = cluster.partition(":")
    if name == "local":
        if number and not (number.isdecimal() and int(number)):
            raise OptionError(f"the cluster is {cluster!r}", "local, or local:N with N processes", "--cluster local:4")
        workers = int(number) if number else CPU_COUNT
        # Any free port for the dashboard: the usual one may be another cluster's.
        with (
            dask.LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=":0") as local,
            dask.Client(local) as client,
        ):
            if not quiet:
                typer.echo(f"Dashboard at {client.dashboard_link}", err=True)
            yield client
        return
    try:
        client = dask.Client(cluster, timeout="10s")
    except (OSError, ValueError) as error:
        remedy = f"--cluster local:2, or an address such as tcp://10.0.0.1:8786; then {again}"
        raise RunError(f"no scheduler answers at {cluster}: {error}", "a dask scheduler that runs", remedy) from error
    with client:
        yield client


class _Stopped(BaseException):
    """Somebody wants this process to end."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def _stoppable(store: str | Path) -> Iterator[None]:
    """SIGTERM and Ctrl-C end the run cleanly, and say how to go on."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except _Stopped as stopped:
        name = signal.Signals(stopped.number).name
        typer.echo(
            f"Stopped by {name}. What is done stays. To go on: cloudfree resume {shlex.quote(str(store))}", err=True
        )
        raise typer.Exit(128 + stopped.number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
