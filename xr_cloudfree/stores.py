"""Fills into Zarr stores: `to_zarr` on this machine, `batch` on a dask cluster, `resume` for runs that stopped."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any

import xarray as xr

from xr_cloudfree.api import fill
from xr_cloudfree.models.protocol import FillModel
from xr_cloudfree.options import check_names, parse_flag
from xr_cloudfree.runner.additions import planner
from xr_cloudfree.runner.driver import execute
from xr_cloudfree.runner.runs import reopen

if TYPE_CHECKING:
    from distributed import Client


def to_zarr(
    obj: xr.DataArray | xr.Dataset | str | os.PathLike[str],
    store: str | os.PathLike[str],
    date: Any = None,
    *,
    model: str | FillModel = "auto",
    resume: bool = True,
    overwrite: bool = False,
    append: bool = False,
    shard: int | tuple[int, int] | None = None,
    **options: Any,
) -> xr.Dataset:
    """Fill a cube of any size into a Zarr store, region by region, in memory that does not grow with the cube.

    The store contains what `fill` returns, byte for byte. Each region is read, filled and written as whole shards, and
    then marked as done in a journal beside the store, the folder ``STORE.journal``. If a run ends early, for whatever
    reason, the same call continues it. A cube that was only opened, lazily, is read from its files without a graph.

    Parameters
    ----------
    obj : DataArray, Dataset, path or URL
        The cube, or its location: see `fill` and `xr_cloudfree.io.open_cube`.
    store : path or URL
        The output, in Zarr format 3: a folder whose name ends with ``.zarr``, or such a name in an object store:
        ``s3://``, ``gs://``, ``az://`` or ``abfs://``, with credentials from the environment.
    date : str, datetime, slice, sequence of these, or None
        The target dates, as in `fill`. Each part of the cube is read once for all of them.
    model : str or FillModel
        As in `fill`.
    resume : bool
        Continue where the same run stopped.
    overwrite : bool
        Replace an existing store: it is removed before the first region is filled.
    append : bool
        Add the target dates to a finished store, after those that it has, and fill only them. The cube, the model and
        the settings must be those of the store. Its bytes are then those of one call with all dates. Readers see the
        dates that were there until the new ones are done.
    shard : int or pair of int, optional
        Pixels along y and x of a shard, one file for each date. By default chosen so that memory suffices and each
        chunk of the input is read only once.
    **options
        The other options of `fill`.

    Returns
    -------
    Dataset
        The store, opened lazily.

    Raises
    ------
    OutputError
        If something else is at `store`, or it cannot be written.
    ChangedError
        If the store was begun with another cube, model or settings.
    LockedError
        If another process is filling the store.
    CloudfreeError
        The errors of `fill`.

    See Also
    --------
    verify : check that a store is still what was written.
    repair : fill the regions again that are not.

    Examples
    --------
    >>> import tempfile, xr_cloudfree
    >>> from xr_cloudfree import synthetic
    >>> folder = tempfile.TemporaryDirectory()
    >>> cube = synthetic.cube(shape=(12, 4, 64, 64), seed=1)
    >>> filled = xr_cloudfree.to_zarr(cube, f"{folder.name}/july.zarr", "2023-07-01", model="linear")
    >>> dict(filled.sizes)
    {'band': 4, 'y': 64, 'x': 64}

    A store that grows:

    >>> for date in ("2023-07-01", "2023-07-06"):
    ...     grown = xr_cloudfree.to_zarr(cube, f"{folder.name}/grows.zarr", date, model="linear", append=True)
    >>> dict(grown.sizes)
    {'time': 2, 'band': 4, 'y': 64, 'x': 64}
    >>> folder.cleanup()
    """
    check_names(options, to_zarr, fill)
    parse_flag("resume", resume)
    parse_flag("overwrite", overwrite)
    run = planner(append, overwrite=overwrite, resume=resume)(obj, store, date, model=model, shard=shard, **options)
    return execute(run, resume=resume, overwrite=overwrite, progress=False)


def batch(
    obj: xr.DataArray | xr.Dataset | str | os.PathLike[str],
    store: str | os.PathLike[str],
    date: Any = None,
    *,
    model: str | FillModel = "auto",
    client: Client | None = None,
    resume: bool = True,
    overwrite: bool = False,
    append: bool = False,
    retries: int = 2,
    stall: float = 900.0,
    gpu: bool | None = None,
    progress: bool = True,
    **options: Any,
) -> xr.Dataset:
    """Fill a cube of any size into a Zarr store, on the workers of a dask cluster.

    The output is divided into regions, each a whole shard of the store. A worker reads the window of a region, fills
    it, writes it and then its marker into the journal beside the store. The driver keeps a few regions in flight for
    each thread, repeats regions that failed, and continues when workers die. If the driver dies, the same call
    continues where it stopped. The bytes of the store do not depend on how the run went; they are those of `to_zarr`.

    Parameters
    ----------
    obj : DataArray, Dataset, path or URL
        The cube, see `fill`. A cube opened from a Zarr store or a NetCDF file is opened by the workers themselves, so
        they must see it under the same path or address; any other cube is sent to each worker once.
    store : path or URL
        The output: a folder that all machines see under the same path, or a URL of an object store, see `to_zarr`.
    date : str, datetime, slice, sequence of these, or None
        The target date or dates, as in `fill`; None means every date of the cube. Input is read once for all of them.
    model : str or FillModel
        See `fill`.
    client : distributed.Client, optional
        Client of any cluster: a LocalCluster, dask-gateway, Kubernetes, dask-jobqueue, a LocalCUDACluster. Without a
        client the regions are filled on this machine, one after another, as by `to_zarr`.
    resume : bool
        Continue where the same run stopped.
    overwrite : bool
        Replace an existing store: it is removed before the first region is filled.
    append : bool
        Add the target dates to a finished store, see `to_zarr`.
    retries : int
        Number of times a region that failed on a worker is tried again.
    stall : float
        Seconds without a finished region, or without any worker, after which to give up.
    gpu : bool, optional
        True uses only workers that announce the resource ``GPU``, with one region at a time on each. None is True for
        a pretrained model if any worker announces it.
    progress : bool
        Show the progress: a bar in a terminal and in Jupyter, lines of JSON elsewhere.
    **options
        The other options of `fill`, and ``shard``, see `to_zarr`.

    Returns
    -------
    Dataset
        The finished store, opened lazily.

    Raises
    ------
    RunError
        If regions failed (the error names them, the others are done), if the cluster is gone, or if no region was
        finished for `stall` seconds. Regions that are done stay.
    ChangedError
        If the store was begun with another cube, model or setting.
    LockedError
        If another process is filling the store.
    OptionError, OptionTypeError
        If GPUs are requested without a client or no worker announces one, or `client` is not a synchronous client.

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
    check_names(options, batch, to_zarr, fill)
    if client is not None:
        from xr_cloudfree.runner.scheduler import check_client

        check_client(client)
    run = planner(append, overwrite=overwrite, resume=resume)(obj, store, date, model=model, **options)
    return execute(
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
    """Continue a run, given only its store; its cube must come from a file.

    Parameters
    ----------
    store : path or URL
        The store of a run that has begun.
    cube : path, optional
        The new location of the cube, if it was moved.
    **options
        ``client``, ``retries``, ``stall``, ``gpu`` and ``progress`` of `batch`.

    Returns
    -------
    Dataset
        The finished store, opened lazily.
    """
    return execute(reopen(store, cube), **options)
