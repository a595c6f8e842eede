"""A run from its beginning to its end: planned, begun or resumed, filled on this machine, finished."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import xarray as xr
from numpy.typing import NDArray

from xr_cloudfree import io
from xr_cloudfree.cube.dates import date_as_text, freq_as_text
from xr_cloudfree.errors import (
    ChangedError,
    CloudfreeError,
    CloudfreeWarning,
    OutputError,
    StoreError,
    code,
    either,
    option,
)
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.plan import s1_variables
from xr_cloudfree.runner import windows
from xr_cloudfree.runner.failures import HOPELESS, how_to_resume, regions_failed
from xr_cloudfree.runner.journal import Journal, read_json, write_json
from xr_cloudfree.runner.origins import Origin, origin
from xr_cloudfree.runner.regions import MOST_BYTES, RegionReport, RunPlan, fill_region, plan_run, read_windows
from xr_cloudfree.runner.store import Layout, Skeleton, clear_partial, digest_of, sha256, write_file
from xr_cloudfree.storage.files import place, refused
from xr_cloudfree.storage.locations import is_url, lasting, local


@dataclass(frozen=True, eq=False)
class Run:
    """A run as its driver has it.

    Parameters
    ----------
    plan : RunPlan
        What processes need to fill regions.
    skeleton : Skeleton
        The store without its shards.
    path : Path
        The store.
    call : mapping or None
        The call as plain values, with the paths of the cube and of Sentinel-1, by which any process can plan the same
        run; None if one of them is no file, or an option no plain value.
    """

    plan: RunPlan
    skeleton: Skeleton
    path: Path
    call: Mapping[str, Any] | None

    @property
    def journal(self) -> Journal:
        """The journal beside the store."""
        return Journal(self.path)

    @property
    def how_to_resume(self) -> str:
        """What to type to go on with it."""
        return how_to_resume(self.path, self.call is not None)


def prepare(
    obj: xr.DataArray | xr.Dataset | str | os.PathLike[str],
    store: str | os.PathLike[str],
    date: Any = None,
    **options: Any,
) -> Run:
    """Plan a run; nothing is written, and of the cube only coordinates are read.

    Parameters
    ----------
    obj : DataArray, Dataset, path or URL
        The cube, or where it lies.
    store : path
        Where the output goes: a folder whose name ends with ``.zarr``.
    date : str, datetime, slice, sequence of these, or None
        The target dates.
    **options
        Those of `ReadOptions` and of `plan_run`.

    Raises
    ------
    OutputError
        If the output cannot be a store, or is where the cube lies, or what is given with it.
    """
    path = local(store, "store")
    if path.suffix.lower() != ".zarr":
        raise OutputError(f"the output is called {path.name}", "an ending .zarr", option(f"store='{path.name}.zarr'"))
    io.refuse_source(path, windows.places(obj, *(options.get(name) for name in ("clear", "mask", "s1"))))
    where = obj if isinstance(obj, str | os.PathLike) else None
    cube: Any = io.open_cube(where) if where is not None else obj
    reading, others = ReadOptions.split(options)
    plan, skeleton = plan_run(cube, date, reading, **others)
    return Run(plan, skeleton, path, _call(plan, cube, where, date, options))


def reopen(store: str | os.PathLike[str], cube: str | os.PathLike[str] | None = None) -> Run:
    """Plan a run again from the journal of its store.

    Parameters
    ----------
    store : path
        The store.
    cube : path, optional
        Where the cube lies now, if it was moved. The journal then tells it to all who open the run later.

    Raises
    ------
    StoreError
        If there is no journal, it is damaged, or the cube did not come from a file.
    ChangedError
        If the cube or the model is no longer the same.
    """
    journal = Journal(store)
    told = journal.begun()
    if told is None:
        raise StoreError(
            f"there is no journal of {journal.store}", "a store that to_zarr or batch has begun", "the store's path"
        )
    if told["call"] is None:
        raise StoreError(
            f"the cube of {journal.store}, or a layer given with it, did not come from a file that can be opened again",
            "the cube, and what was given with it",
            "the call by which the store was begun, once more: cube.cloudfree.to_zarr(store, ...)",
        )
    call = dict(told["call"])
    if cube is not None:
        call["cube"] = lasting(cube)
    now = dict(call)
    source, opened, date = call.pop("cube"), call.pop("opened", {}), call.pop("date")
    if not is_url(source) and not os.path.exists(source):
        name = shlex.quote(Path(source).name)
        raise StoreError(
            f"the cube of {journal.store} is not at {source} any more",
            "the cube with which it was begun, where it lies now",
            f"cloudfree resume {shlex.quote(str(journal.store))} --cube {name}, with its path",
        )
    reading, others = ReadOptions.split(call)
    plan, skeleton = plan_run(Origin(source, opened).open(), date, reading, **others)
    run = Run(plan, skeleton, journal.store, now)
    _check_same(run, told, resume=True)
    if now != told["call"]:
        with journal.lock():
            write_json(journal.run, {**told, "call": now})
    return run


@contextmanager
def started(run: Run, *, resume: bool = True, overwrite: bool = False) -> Iterator[NDArray[np.intp]]:
    """Begin a run or go on with it, as the only driver of its store.

    Parameters
    ----------
    run : Run
        The run.
    resume : bool
        Go on where the same run was left.
    overwrite : bool
        Replace another store.

    Yields
    ------
    ndarray of int
        The regions that are still to be filled: those without a marker, and those of which a file is missing or has
        another size than its marker tells. A `CloudfreeWarning` says how many of the latter there are.

    Raises
    ------
    LockedError
        If another driver is at work on the store.
    ChangedError
        If the store was begun with another cube, model or settings.
    OutputError
        If something else is there, or nothing can be written.
    """
    path, journal = run.path, run.journal
    there = path.is_dir() and any(path.iterdir())
    if there and not io.is_store(path) and not journal.run.exists():
        raise OutputError(f"{path} is a folder and no Zarr store", "a path of its own", "another path")
    if path.is_file():
        raise OutputError(f"{path} is a file", "a path of its own", "another path")
    if there and not overwrite and not journal.run.exists():
        raise OutputError(
            f"{path} is there already", "a new path, or permission to replace it", option("overwrite=True")
        )
    where = place(path)
    with journal.lock():
        begun = None if overwrite else journal.begun()
        if begun is not None:
            _check_same(run, begun, resume)
            for folder in (path, journal.folder):
                clear_partial(folder)
        else:
            _clear(run)
            told = {
                "run": run.plan.identity,
                "fingerprint": dict(run.plan.fingerprint),
                "layout": _layout_told(run.plan.layout),
                "files": {key: sha256(data) for key, data in run.skeleton.files.items()},
                "consolidated": sha256(run.skeleton.consolidated),
                "call": run.call,
            }
            write_json(journal.run, told)
        if where != path:  # a link, perhaps to what is no longer there
            where.mkdir(exist_ok=True)
        _write_skeleton(run)
        done, lost = journal.regions(run.plan.layout, run.plan.identity)
        if lost.any():
            warnings.warn(
                f"{lost.sum()} of {lost.size} regions of {path} had been filled and lack files by now, or have some of "
                "another size: they are filled again",
                CloudfreeWarning,
                stacklevel=3,
            )
        yield np.flatnonzero(~done)


def run_here(
    run: Run, regions: Iterable[int], *, report: Callable[[RegionReport], object] = lambda report: None
) -> None:
    """Fill regions on this machine, one after the other; the next one's input is read meanwhile if memory allows.

    Parameters
    ----------
    run : Run
        The run, which has been started.
    regions : iterable of int
        Which regions.
    report : callable
        Is told of each region that is done.

    Raises
    ------
    OutputError
        At once, if the store cannot be written.
    RunError
        At the end, if some regions failed; the others are done. If all failed of the same, what that is.
    """
    threads = os.cpu_count() or 1
    two_fit = 2 * run.plan.window_bytes <= MOST_BYTES
    failed: dict[int, Exception] = {}
    n_done = 0
    with ThreadPoolExecutor(1, thread_name_prefix="cloudfree-read") as ahead:

        def coming() -> Iterator[tuple[int, Callable[[], Any]]]:
            for index in regions:
                read = partial(read_windows, run.plan, int(index))
                yield int(index), ahead.submit(read).result if two_fit else read

        reading = coming()
        here = next(reading, None)
        while here is not None and (n_done or len(failed) < HOPELESS):
            index, get = here
            try:
                windows = get()
                here = next(reading, None)
                done = fill_region(run.plan, run.path, index, windows=windows, threads=threads)
            except OutputError:
                raise
            except Exception as error:  # whatever a file or a model may raise: the other regions are done all the same
                failed[index] = error
                here = next(reading, None) if here is not None and here[0] == index else here
            else:
                n_done += 1
                report(done)
            windows = None  # or two regions would be held while the next one is waited for
    if failed:
        first = failed[min(failed)]
        summary = regions_failed(failed, n_done, run.how_to_resume)
        raise summary from (None if summary is first else first)


def finish(run: Run) -> str:
    """Make the store known as a whole, once all regions are done.

    Returns
    -------
    str
        The store's digest.

    Raises
    ------
    StoreError
        If regions are missing.
    """
    n_regions = run.plan.n_regions
    told = run.journal.markers(run.plan.layout, run.plan.identity)
    files = {index: digest_of(region["files"]) for index, region in told}
    if len(files) < n_regions:
        first = next(index for index in range(n_regions) if index not in files)
        raise StoreError(
            f"{n_regions - len(files)} of {n_regions} regions of {run.path} are not done, such as {first}",
            "all of them",
            "the same call once more, which fills only these",
        )
    write_file(run.path / "zarr.json", run.skeleton.consolidated)
    # As `xr_cloudfree.runner.verify.store_digest` makes it from the bytes.
    digest = digest_of(
        {key: sha256(data) for key, data in run.skeleton.finished.items()}
        | {f"{index:07d}": told for index, told in files.items()}
    )
    finished = read_json(run.journal.finished)
    if finished is None or finished["digest"] != digest:
        write_json(run.journal.finished, {"digest": digest, "run": run.plan.identity})
    return digest


def _call(
    plan: RunPlan, cube: Any, where: str | os.PathLike[str] | None, date: Any, options: Mapping[str, Any]
) -> dict[str, Any] | None:
    """The call as plain values, None if by these the very same run cannot be planned again."""
    s1, named = options.get("s1"), where is not None
    if isinstance(s1, xr.Dataset):
        opened = origin(s1)
        # From a path it is opened in the usual way.
        s1, named = s1 if opened is None or opened.opened else opened.path, False
    elif isinstance(s1, str | os.PathLike) and not s1_variables(s1, cube):
        s1 = lasting(s1)
    found = origin(cube) if where is None else Origin(os.fspath(where))
    if found is None:
        return None
    told = {**options, **({} if s1 is None else {"s1": s1})}
    if options.get("freq") is not None:
        told["freq"] = freq_as_text(options["freq"])
    call = _plain({"cube": lasting(found.path), "opened": dict(found.opened), "date": date_as_text(date), **told})
    if call is None or named:
        return call
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CloudfreeWarning)  # they were told when it was planned first
            # What somebody opened may have been changed since.
            reading, others = ReadOptions.split(told)
            again, _ = plan_run(found.open(), date, reading, **others)
    except CloudfreeError:
        return None
    return call if again.fingerprint == plan.fingerprint else None


def _plain(call: Mapping[str, Any]) -> dict[str, Any] | None:
    """Options as JSON has them, None if one of them is more than that."""
    try:
        return dict(json.loads(json.dumps(dict(call))))
    except (TypeError, ValueError):
        return None


def _check_same(run: Run, begun: Mapping[str, Any], resume: bool) -> None:
    if not resume:
        raise OutputError(
            f"{run.path} is there already",
            "a new path, or permission to replace it",
            either(option("overwrite=True"), code("resume=True")),
        )
    before, now = begun["fingerprint"], run.plan.fingerprint
    keys = [key for key in now if before.get(key) != now[key]]
    if keys:
        # Attributes tell of the others; alone they are the cube's own.
        keys = [key for key in keys if key != "coordinates and attributes"] or keys
        differs = [_difference(key, before.get(key, ""), now[key]) for key in keys]
        raise ChangedError(
            f"{run.path} was begun with something else: {'; '.join(differs)}",
            "the same cube, model and settings to go on",
            either("the call as it was", option("overwrite=True") + " to begin anew"),
        )


def _difference(what: str, then: str, now: str) -> str:
    """A difference in words. Hashes are left out: they say nothing to a reader but that there is one."""
    words = [re.sub(r"\b[0-9a-f]{12}$", "", told).strip() for told in (then, now)]
    if not all(words) or words[0] == words[1]:
        return f"{what}: changed since"
    return f"{what}: '{words[0]}' then, '{words[1]}' now"


def _clear(run: Run) -> None:
    """Remove what was there, what vouches for it first; the journal's lock is held and stays. A link stays one."""
    journal = run.journal
    try:
        for file in (journal.run, journal.finished):
            file.unlink(missing_ok=True)
        for entry in journal.folder.iterdir():
            if entry.is_dir():
                shutil.rmtree(entry)
            elif not entry.name.startswith("lock"):
                entry.unlink()
        if (where := place(run.path)).exists():
            shutil.rmtree(where)
    except OutputError:
        raise
    except OSError as error:
        raise refused(run.path, error) from error


def _write_skeleton(run: Run) -> None:
    """Write metadata and coordinates where they are missing or not as they should be."""
    wanted = run.skeleton.finished if run.journal.finished.exists() else run.skeleton.files
    for key, data in wanted.items():
        path = run.path / key
        if not path.is_file() or path.read_bytes() != data:
            write_file(path, data)


def _layout_told(layout: Layout) -> dict[str, Any]:
    return {"shape": layout.shape, "shard": layout.shard, "arrays": [list(array) for array in layout.arrays]}


def layout_of(begun: Mapping[str, Any]) -> Layout:
    """The layout that a journal tells of."""
    told = begun["layout"]
    (ny, nx), (sy, sx) = told["shape"], told["shard"]
    return Layout((ny, nx), (sy, sx), tuple((name, tuple(counts)) for name, counts in told["arrays"]))
