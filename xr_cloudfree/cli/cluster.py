"""Dask clusters for the commands of runs, and how signals end a run."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, NoReturn

import typer

from xr_cloudfree.errors import OptionError, RunError

if TYPE_CHECKING:
    from distributed import Client


@contextmanager
def connect(cluster: str | None, quiet: bool, how_to_resume: str = "the same call again") -> Iterator[Client | None]:
    """Connect to a cluster; one that is started here is closed at the end.

    Parameters
    ----------
    cluster : str or None
        Address of a scheduler, ``"local"`` or ``"local:N"``; None gives no client.
    quiet : bool
        Whether to leave out the address of the dashboard.
    how_to_resume : str
        What to type to resume the run, for the error.

    Raises
    ------
    OptionError
        If the number of processes is invalid.
    RunError
        If no scheduler answers.
    MissingDependencyError
        If distributed is not installed.
    """
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
        # Port 0 is any free port: the usual one of the dashboard may be taken by another cluster.
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
        remedy = f"--cluster local:2, or an address such as tcp://10.0.0.1:8786; then {how_to_resume}"
        raise RunError(f"no scheduler answers at {cluster}: {error}", "a running dask scheduler", remedy) from error
    with client:
        yield client


class _Stopped(BaseException):
    """A signal asks this process to end."""

    def __init__(self, number: int) -> None:
        self.number = number


@contextmanager
def stoppable(store: str | Path) -> Iterator[None]:
    """End a run cleanly on SIGTERM or Ctrl-C, and print how to resume it."""

    def stop(number: int, frame: FrameType | None) -> NoReturn:
        raise _Stopped(number)

    before = {number: signal.signal(number, stop) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    except _Stopped as stopped:
        name = signal.Signals(stopped.number).name
        typer.echo(
            f"Stopped by {name}. Finished regions are kept. To go on: cloudfree resume {shlex.quote(str(store))}",
            err=True,
        )
        raise typer.Exit(128 + stopped.number) from None
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
