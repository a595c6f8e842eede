"""Fills of any size on a dask cluster, or on this machine: begun, and gone on with."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import xarray as xr

from xr_cloudfree import api, io
from xr_cloudfree.errors import OptionError
from xr_cloudfree.models.protocol import FillModel
from xr_cloudfree.options import check_names
from xr_cloudfree.runner.progress import Progress, Silent
from xr_cloudfree.runner.runs import Run, finish, prepare, reopen, run_here, started

if TYPE_CHECKING:
    from distributed import Client


def batch(
    obj: xr.DataArray | xr.Dataset | str | os.PathLike[str],
    store: str | os.PathLike[str],
    date: Any = None,
    *,
    model: str | FillModel = "auto",
    client: Client | None = None,
    resume: bool = True,
    overwrite: bool = False,
    retries: int = 2,
    stall: float = 900.0,
    gpu: bool | None = None,
    progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """Fill a cube of any size into a Zarr store, on the workers of a dask cluster.

    The output is cut into regions, each a whole shard of the store. A worker reads the window of a region, fills it,
    writes it and then its marker into the journal beside the store; the driver keeps a few regions in flight for each
    thread, tries again what failed, and goes on when workers die. If the driver dies, the same call goes on where it
    stopped. However the run went, the store's bytes are the same, and the same as those of ``to_zarr``.

    Parameters
    ----------
    obj : DataArray, Dataset, path or URL
        The cube, see `fill`. Workers open one that was opened from a Zarr store or a NetCDF file by themselves, so
        they have to see it under the same path or address; any other is sent to each worker once.
    store : path
        Where to; a folder that all machines see under the same path.
    date : str, datetime, slice, sequence of these, or None
        The target date or dates, as in `fill`; None means every date of the cube. Input is read once for all of them.
    model : str or FillModel
        See `fill`.
    client : distributed.Client, optional
        Of any cluster: a LocalCluster, dask-gateway, Kubernetes, dask-jobqueue, a LocalCUDACluster. Without one no
        cluster is started: the regions are filled on this machine, one after the other, as ``to_zarr`` does.
    resume : bool
        Go on with what the same call has begun. False fills all regions anew.
    overwrite : bool
        Replace a store that another call has made: it is removed before the first region is filled.
    retries : int
        How often a region that failed on a worker is tried again.
    stall : float
        Seconds without a finished region, or without any worker, after which to give up.
    gpu : bool, optional
        True runs only on workers that announce the resource ``GPU``, one region at a time on each. None does so for
        a learned model if any worker announces it.
    progress : bool
        Show how far it is: a bar in a terminal and in Jupyter, lines of JSON elsewhere.
    **options
        Those of `fill`, and ``shard``, see ``to_zarr``.

    Returns
    -------
    Dataset
        The finished store, opened lazily.

    Raises
    ------
    RunError
        If regions failed (the others are done, and the error names those), if the cluster is gone, or if it stands
        still for `stall` seconds. What is done stays.
    ChangedError
        If the store was begun with another cube, model or setting.
    LockedError
        If another driver fills the store.
    OptionError, OptionTypeError
        If GPUs are asked for and there is no client or no worker has one, or the client is asynchronous or none.

    Examples
    --------
    >>> import tempfile
    >>> import xr_cloudfree
    >>> from distributed import Client
    >>> from xr_cloudfree import synthetic
    >>> cube = synthetic.cube(shape=(12, 4, 64, 64), seed=1)
    >>> with (
    ...     tempfile.TemporaryDirectory() as folder,
    ...     Client(processes=False, n_workers=1, dashboard_address=":0") as client,
    ... ):
    ...     image = xr_cloudfree.batch(
    ...         cube, f"{folder}/july.zarr", "2023-07-01", model="linear", client=client, progress=False
    ...     )
    ...     dict(image.sizes)
    {'band': 4, 'y': 64, 'x': 64}
    """
    check_names(options, batch, api.to_zarr, api.fill)
    if client is not None:
        from xr_cloudfree.runner.scheduler import check_client

        check_client(client)
    run = prepare(obj, store, date, model=model, **options)
    return carry_out(
        run,
        client,
        resume=resume,
        overwrite=overwrite,
        retries=retries,
        stall=stall,
        gpu=gpu,
        progress=progress,
    )


def resume(store: str | os.PathLike[str], *, cube: str | os.PathLike[str] | None = None, **options: Any) -> xr.Dataset:
    """Go on with a run, from nothing but its store. The cube has to be a file.

    Parameters
    ----------
    store : path
        Of a run that has begun.
    cube : path, optional
        Where the cube lies now, if it was moved.
    **options
        ``client``, ``retries``, ``stall``, ``gpu`` and ``progress`` of `batch`.

    Returns
    -------
    Dataset
        The finished store, opened lazily.
    """
    return carry_out(reopen(store, cube), **options)


def carry_out(
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
    """Fill what a run lacks, and finish it. See `batch`."""
    if gpu and client is None:
        raise OptionError(
            "a GPU is asked for, and there is no cluster", "a client, whose workers announce GPUs", "gpu=None"
        )
    n_regions = run.plan.n_regions
    with started(run, resume=resume, overwrite=overwrite) as missing:
        before = n_regions - len(missing)
        with Progress(n_regions, before, None if progress else Silent()) as shown:
            if client is None:
                run_here(run, missing, report=lambda told: shown.add(told.bytes))
            else:
                from xr_cloudfree.runner.cluster import run_on

                run_on(
                    client,
                    run,
                    missing,
                    report=lambda told: shown.add(told.bytes),
                    retries=retries,
                    stall=stall,
                    gpu=gpu,
                )
        finish(run)
    return io.open_store(Path(run.path))
