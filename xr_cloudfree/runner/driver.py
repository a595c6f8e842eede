"""Drive a run from its beginning, or from where it stopped, to a finished store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xarray as xr

from xr_cloudfree import io
from xr_cloudfree.errors import OptionError
from xr_cloudfree.runner.local import fill_locally
from xr_cloudfree.runner.progress import Progress, Silent
from xr_cloudfree.runner.regions import RegionReport
from xr_cloudfree.runner.runs import Run, finish, started

if TYPE_CHECKING:
    from distributed import Client


def execute(
    run: Run,
    client: Client | None = None,
    *,
    resume: bool = True,
    overwrite: bool = False,
    retries: int = 2,
    stall: float = 900.0,
    gpu: bool | None = None,
    progress: bool = True,
) -> xr.Dataset:
    """Fill the regions that a run still lacks, on a cluster or on this machine, and finish its store.

    Parameters
    ----------
    run : Run
        The run, from `prepare` or `reopen`.
    client : distributed.Client, optional
        Client of a dask cluster. Without one the regions are filled on this machine.
    resume, overwrite : bool
        See `started`.
    retries, stall, gpu : int, float, bool
        See `fill_on_cluster`; without a client only `gpu` is looked at.
    progress : bool
        Show the progress: a bar in a terminal and in Jupyter, lines of JSON elsewhere.

    Returns
    -------
    Dataset
        The finished store, opened lazily.

    Raises
    ------
    OptionError
        If a GPU is requested without a client.
    """
    if gpu and client is None:
        raise OptionError(
            "gpu=True was given, and there is no cluster", "a client whose workers announce GPUs", "gpu=None"
        )
    n_regions = run.plan.n_regions
    with started(run, resume=resume, overwrite=overwrite) as missing:
        with Progress(n_regions, n_regions - len(missing), None if progress else Silent()) as shown:

            def report(region: RegionReport) -> None:
                shown.add(region.bytes)

            if client is None:
                fill_locally(run, missing, report=report)
            else:
                from xr_cloudfree.runner.cluster import fill_on_cluster

                fill_on_cluster(client, run, missing, report=report, retries=retries, stall=stall, gpu=gpu)
        finish(run)
    return io.open_store(run.path)
