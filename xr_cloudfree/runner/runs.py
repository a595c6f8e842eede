"""A run and its store: planned, reopened from its journal, started or continued, finished."""

from __future__ import annotations

import json
import os
import re
import shlex
import warnings
from collections.abc import Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
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
    then,
    warn,
)
from xr_cloudfree.inputs import as_list, finest_of, s1_variables
from xr_cloudfree.options import ReadOptions
from xr_cloudfree.runner import pyramids, windows
from xr_cloudfree.runner.failures import how_to_resume
from xr_cloudfree.runner.journal import FINISHED, LOCK, RUN, Journal
from xr_cloudfree.runner.origins import Origin, origin
from xr_cloudfree.runner.plan import ATTRIBUTES, Addition, RunPlan, plan_run
from xr_cloudfree.runner.store import ROOT, Layout, Skeleton, digest_of, sha256
from xr_cloudfree.storage.folders import folder_at, is_zarr
from xr_cloudfree.storage.locations import absolute, is_url, name_of, without_secrets


@dataclass(frozen=True, eq=False)
class Run:
    """A run: its plan, its store, and the call that plans it again.

    Parameters
    ----------
    plan : RunPlan
        Everything a process needs to fill regions.
    skeleton : Skeleton
        The store without its shards.
    path : Path or str
        The store, a path or the URL of an object store.
    call : mapping or None
        The call as plain values, with the paths of the cube and of Sentinel-1, from which any process can plan the
        same run; None if one of them does not come from a file, has a URL with a password or a query, or if an option
        is not a plain value.
    """

    plan: RunPlan
    skeleton: Skeleton
    path: Path | str
    call: Mapping[str, Any] | None

    @property
    def journal(self) -> Journal:
        """The journal beside the store."""
        return Journal(self.path)

    @property
    def how_to_resume(self) -> str:
        """How to continue the run, for error messages."""
        return how_to_resume(self.path, self.call is not None)


def prepare(
    obj: xr.DataArray | xr.Dataset | str | os.PathLike[str],
    store: str | os.PathLike[str],
    date: Any = None,
    **options: Any,
) -> Run:
    """Plan a run without writing anything; only the coordinates of the cube are read.

    Parameters
    ----------
    obj : DataArray, Dataset, path or URL
        The cube, or its location.
    store : path or URL
        The output: a folder whose name ends with ``.zarr``, on a disk or in an object store.
    date : str, datetime, slice, sequence of these, or None
        The target dates.
    **options
        The options of `ReadOptions` and of `plan_run`.

    Raises
    ------
    OutputError
        If the output cannot be a store, or would replace the cube or a layer passed with it.
    """
    path, location, cube, options = open_input(obj, store, options)
    return plan_store(cube, location, path, date, options)


def open_input(
    obj: Any, store: str | os.PathLike[str], options: Mapping[str, Any]
) -> tuple[Path | str, str | os.PathLike[str] | None, Any, dict[str, Any]]:
    """Return the location of an output, that of a cube, the cube opened, and the options; raise as `prepare` does.

    Parameters
    ----------
    obj : DataArray, Dataset, DataTree, path or URL
        The cube, or its location. Of a tree it is the cube with the smallest pixels, and the options get the others.
    store : path or URL
        The output.
    options : mapping
        Options of `prepare`.
    """
    path = folder_at(store).location
    name = name_of(path) if isinstance(path, str) else path.name
    if Path(name).suffix.lower() != ".zarr":
        raise OutputError(f"the output is called {name}", "an ending .zarr", option(f"store='{name}.zarr'"))
    obj, sensors = finest_of(obj, options.get("others"))
    options = dict(options) if sensors is None else {**options, "others": sensors}
    layers = [options.get(name) for name in ("clear", "mask", "s1")]
    io.refuse_source(path, windows.sources(obj, *layers, *as_list(sensors)))
    location = obj if isinstance(obj, str | os.PathLike) else None
    return path, location, io.open_cube(location) if location is not None else obj, options


def plan_store(
    cube: Any, location: str | os.PathLike[str] | None, path: Path | str, date: Any, options: Mapping[str, Any]
) -> Run:
    """Plan the run of an open cube, whose location is None if it was not opened from one; see `prepare`."""
    reading, others = ReadOptions.split(options)
    plan, skeleton = plan_run(cube, date, reading, **others)
    return Run(plan, skeleton, path, _call(plan, cube, location, date, options))


def reopen(store: str | os.PathLike[str], cube: str | os.PathLike[str] | None = None) -> Run:
    """Plan a run again, from the journal of its store.

    Parameters
    ----------
    store : path
        The store.
    cube : path, optional
        The new location of the cube, if it was moved; it is recorded in the journal.

    Raises
    ------
    StoreError
        If there is no journal, it is damaged, or the cube does not come from a file.
    ChangedError
        If the cube or the model is no longer the same.
    """
    journal = Journal(store)
    record, location = journal.needed(), journal.store.location
    if record["call"] is None:
        raise StoreError(
            f"the cube of {location}, or a layer passed with it, does not come from a file that can be reopened",
            "the cube, and the layers passed with it",
            "the same call that began the store: cube.cloudfree.to_zarr(store, ...)",
        )
    call = dict(record["call"])
    if cube is not None:
        call["cube"] = absolute(cube)
        call.pop("loaded", None)
    current_call = dict(call)
    source, date = Origin.of_call(call), call.pop("date")
    if source.loaded is None and not is_url(source.path) and not os.path.exists(source.path):
        name = shlex.quote(Path(source.path).name)
        raise StoreError(
            f"the cube of {location} is not at {source.path} any more",
            "the cube of the run, at its new location",
            f"cloudfree resume {shlex.quote(str(location))} --cube {name}, with its path",
        )
    reading, others = ReadOptions.split(call)
    cube_again = source.open()
    plan, skeleton = plan_run(cube_again, date, reading, **others)
    if record.get("earlier") is not None and not journal.is_finished:
        plan = with_addition(plan, record["earlier"], cube_again, reading, others)
    run = Run(plan, skeleton, location, current_call)
    check_same(run, record, resume=True)
    if current_call != record["call"]:
        with journal.lock():
            journal.write(RUN, {**record, "call": current_call})
    return run


def with_addition(
    plan: RunPlan,
    earlier: Mapping[str, Any],
    cube: Any,
    reading: ReadOptions,
    others: Mapping[str, Any],
    asked: RunPlan | None = None,
) -> RunPlan:
    """Return a plan that fills only the last of its dates in regions that have the others.

    Parameters
    ----------
    plan : RunPlan
        The plan of all dates.
    earlier : mapping
        ``run``, the identity of the run that filled the other dates, and ``dates``, their number.
    cube, reading, others : Dataset or DataArray, ReadOptions, mapping
        What `plan` was made from.
    asked : RunPlan, optional
        A plan of some dates with the same settings, which is taken if they are those that are added.
    """
    dates = dates_as_text(plan)[earlier["dates"] :]
    if asked is None or asked.job.targets.scalar or dates_as_text(asked) != dates:
        asked, _ = plan_run(cube, dates, reading, **others)
    # The same arrays, so that they are sent to workers once.
    added = replace(
        asked, bands=plan.bands, quality=plan.quality, s1=plan.s1, corrected=plan.corrected, others=plan.others
    )
    return replace(plan, added=Addition(earlier["run"], earlier["dates"], added))


def dates_as_text(plan: RunPlan) -> list[str]:
    """Return the target dates of a plan as text that denotes them exactly."""
    return [pd.Timestamp(date).isoformat() for date in plan.job.targets.times]


@contextmanager
def started(run: Run, *, resume: bool = True, overwrite: bool = False) -> Iterator[NDArray[np.intp]]:
    """Begin a run or continue it, and hold the lock of its store meanwhile.

    Parameters
    ----------
    run : Run
        The run.
    resume : bool
        Continue where the same run stopped.
    overwrite : bool
        Replace an existing store.

    Yields
    ------
    ndarray of int
        The regions still to be filled: those without a marker, and those with a file that is missing or differs in
        size from its marker. A `CloudfreeWarning` gives the number of the latter.

    Raises
    ------
    LockedError
        If another process is filling the store.
    ChangedError
        If the store was begun with another cube, model or settings.
    OutputError
        If something else is at its path, or it cannot be written.
    """
    path, journal = run.path, run.journal
    journal.store.check()
    if not journal.folder.exists(RUN) and not journal.store.is_empty():
        if not is_zarr(journal.store):
            raise OutputError(f"{path} is a folder, but not a Zarr store", "a path of its own", "another path")
        if not overwrite:
            raise OutputError(
                f"{path} already exists", "a new path, or permission to replace it", option("overwrite=True")
            )
    with journal.lock():
        begun = None if overwrite else journal.begun()
        if begun is not None:
            if run.plan.added is not None and run.plan.added.run == begun["run"]:
                begun = _extend(run, begun)
            check_same(run, begun, resume)
            for folder in (journal.store, journal.folder):
                folder.tidy()
        else:
            # Without the record of the run a store that is half removed is never taken for a complete one.
            journal.folder.remove([RUN, FINISHED])
            journal.folder.clear(keep=LOCK)
            journal.store.clear()
            begun = _record(run)
            journal.write(RUN, begun)
        journal.store.make()
        done, lost = journal.regions(run.plan.layout, run.plan.identity)
        if begun.get("earlier") is None or journal.is_finished:
            _write_skeleton(run)
        else:  # readers see the dates that are done until the others are as well
            _, incomplete = journal.regions(layout_of(begun["earlier"]), begun["earlier"]["run"])
            journal.folder.remove(journal.marker(int(index)) for index in np.flatnonzero(incomplete))
            lost |= incomplete
        if lost.any():
            warn(
                f"{lost.sum()} of {lost.size} regions of {path} were filled before and lack files, or have files of "
                "another size: they are filled again"
            )
        yield np.flatnonzero(~done)


def finish(run: Run) -> str:
    """Write the consolidated metadata of a store whose regions are all done, and its digest into the journal.

    Returns
    -------
    str
        The store's digest.

    Raises
    ------
    StoreError
        If regions are missing.
    """
    n_regions, journal = run.plan.n_regions, run.journal
    markers = journal.markers(run.plan.layout, run.plan.identity)
    digests = {index: digest_of(marker["files"]) for index, marker in markers}
    if len(digests) < n_regions:
        first = next(index for index in range(n_regions) if index not in digests)
        raise StoreError(
            f"{n_regions - len(digests)} of {n_regions} regions of {run.path} are not done, such as {first}",
            "all of them",
            "the same call again, which fills only these",
        )
    # As `xr_cloudfree.runner.verify.store_digest` computes it from the bytes.
    digest = digest_of(
        {key: sha256(data) for key, data in run.skeleton.finished.items()}
        | {f"{index:07d}": shards for index, shards in digests.items()}
    )
    # The group's metadata last: they tell readers what the store contains.
    for key, data in run.skeleton.files.items():
        if key != ROOT and journal.store.read(key) != data:
            journal.store.write(key, data)
    overviews = pyramids.recorded(journal, run.plan.identity)
    if overviews is None or overviews["digest"] != digest or not pyramids.are_shown(journal, overviews):
        journal.store.write(ROOT, run.skeleton.consolidated)
    finished = journal.read(FINISHED)
    if finished is None or finished["digest"] != digest:
        journal.write(FINISHED, {"digest": digest, "run": run.plan.identity})
    return digest


def _call(
    plan: RunPlan, cube: Any, location: str | os.PathLike[str] | None, date: Any, options: Mapping[str, Any]
) -> dict[str, Any] | None:
    """Return the call as plain values; None if they would not reproduce exactly this run."""
    s1, from_paths = options.get("s1"), location is not None
    if isinstance(s1, xr.Dataset):
        opened = origin(s1)
        s1, from_paths = s1 if opened is None or not opened.is_path else opened.path, False
    elif isinstance(s1, str | os.PathLike) and not s1_variables(s1, cube):
        s1 = absolute(s1)
    sensors = [_located(other) for other in as_list(options.get("others"))]
    from_paths = from_paths and not any(isinstance(other, xr.Dataset) for other in as_list(options.get("others")))
    source = origin(cube) if location is None else Origin(os.fspath(location))
    if source is None or any(_is_secret(where) for where in (source.path, s1, *sensors)):
        return None
    plain_options = {
        **options,
        **({} if s1 is None else {"s1": s1}),
        **({"others": sensors} if sensors else {}),
    }
    if options.get("freq") is not None:
        plain_options["freq"] = freq_as_text(options["freq"])
    call = _as_json({**source.as_call(), "date": date_as_text(date), **plain_options})
    if call is None or from_paths:
        return call
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", CloudfreeWarning)  # issued by the first planning already
            # The cube may have been changed after it was opened.
            reading, others = ReadOptions.split(plain_options)
            again, _ = plan_run(source.open(), date, reading, **others)
    except CloudfreeError:
        return None
    return call if again.fingerprint == plan.fingerprint else None


def _located(cube: Any) -> Any:
    """Return the path or URL that another sensor's cube was opened from; the cube itself if that is not known."""
    if isinstance(cube, str | os.PathLike):
        return absolute(cube)
    opened = origin(cube) if isinstance(cube, xr.Dataset) else None
    return cube if opened is None or not opened.is_path else absolute(opened.path)


def _is_secret(where: Any) -> bool:
    """Return whether a location gives access to what it names, so that it must not be stored."""
    return isinstance(where, str) and is_url(where) and where != without_secrets(where)


def _as_json(call: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return options as JSON stores them; None if JSON cannot store one of them."""
    try:
        return dict(json.loads(json.dumps(dict(call))))
    except (TypeError, ValueError):
        return None


def check_same(
    run: Run,
    begun: Mapping[str, Any],
    resume: bool = True,
    *,
    append: bool = False,
    but: Collection[str] = (),
    source: str | None = None,
) -> None:
    """Raise if a store was begun with other inputs or settings than those of a run.

    Parameters
    ----------
    run : Run
        The run.
    begun : mapping
        The record of the store's journal.
    resume : bool
        Whether an existing store may be continued.
    append : bool
        Whether dates are added to the store.
    but : collection of str
        Topics of the fingerprint that are not compared.
    source : str, optional
        Where the cube lies; by default as the call of the run says.

    Raises
    ------
    ChangedError
        If anything that is compared differs.
    OutputError
        Without `resume`.
    """
    if not resume:
        raise OutputError(
            f"{run.path} already exists",
            "a new path, or permission to replace it",
            either(option("overwrite=True"), code("resume=True")),
        )
    before, now = begun["fingerprint"], run.plan.fingerprint
    keys = [key for key in now if key not in but and before.get(key) != now[key]]
    if not keys:
        return
    # The output's attributes follow from the other topics; if only they differ, it is the cube's own attributes.
    keys = [key for key in keys if key != ATTRIBUTES] or keys
    differences = [_difference(key, before.get(key, ""), now[key]) for key in keys]
    was = None if begun["call"] is None else str(begun["call"]["cube"])
    source = source or (None if run.call is None else str(run.call["cube"]))
    if was is not None and source is not None and source != was:
        differences.insert(0, f"cube: '{was}' then, '{without_secrets(source)}' now")
    ways: list[str] = [option(f"store={_free_name(run.path)!r}") + " for a store of its own"]
    if keys == ["dates"] and not append and not begun["scalar"]:
        ways.insert(0, option("append=True") + " to add these dates")
    if begun["call"] is not None and not append and not run.journal.is_finished:
        ways.insert(0, f"cloudfree resume {shlex.quote(str(run.path))}, which goes on with what it was begun with")
    again = option("append=False", "overwrite=True") if append else option("overwrite=True")
    raise ChangedError(
        f"{run.path} was begun with other inputs or settings: {'; '.join(differences)}",
        "the same cube, model and settings to continue",
        either(*ways, "the call that began it", again + " to remove what is there and start anew"),
    )


def _free_name(path: Path | str) -> str:
    """Return a path beside a store that does not exist yet; at a URL, one that is likely not to."""
    text = str(path)
    stem, ending = text[: -len(".zarr")], text[-len(".zarr") :]
    number = 2
    while not isinstance(path, str) and os.path.exists(f"{stem}-{number}{ending}"):
        number += 1
    return f"{stem}-{number}{ending}"


def _difference(topic: str, then: str, now: str) -> str:
    """Return a difference in words, without the hashes."""
    words = [re.sub(r"\b[0-9a-f]{12}$", "", text).strip() for text in (then, now)]
    if not all(words) or words[0] == words[1]:
        return f"{topic}: changed since"
    return f"{topic}: '{words[0]}' then, '{words[1]}' now"


def _record(run: Run) -> dict[str, Any]:
    """Return the settings of a run, as its journal keeps them."""
    plan = run.plan
    return {
        "run": plan.identity,
        "fingerprint": dict(plan.fingerprint),
        "layout": _layout_as_json(plan.layout),
        "files": {key: sha256(data) for key, data in run.skeleton.files.items()},
        "consolidated": sha256(run.skeleton.consolidated),
        "dates": dates_as_text(plan),
        "scalar": plan.job.targets.scalar,
        "call": run.call,
    }


def _extend(run: Run, begun: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a finished store into one that is begun with more dates, and return the new settings.

    Raises
    ------
    StoreError
        If regions are not done.
    """
    journal = run.journal
    done, _ = journal.regions(layout_of(begun), begun["run"])
    if not done.all():
        raise StoreError(
            f"{(~done).sum()} of {done.size} regions of {run.path} are not done",
            "a finished store, to add dates to it",
            then(how_to_resume(run.path, begun["call"] is not None), "this call again"),
        )
    kept = {key: begun[key] for key in ("run", "layout", "files", "consolidated")}
    record = {**_record(run), "earlier": {**kept, "dates": len(begun["dates"])}}
    if pyramids.discard(journal):
        warn(
            f"dates are added to {run.path}, so its overviews are removed: xr_cloudfree.add_overviews makes new ones "
            "when it is finished"
        )
    journal.folder.remove([FINISHED])
    journal.write(RUN, record)
    return record


def _write_skeleton(run: Run) -> None:
    """Write metadata and coordinates that are missing or differ."""
    journal = run.journal
    expected = run.skeleton.finished if journal.is_finished else dict(run.skeleton.files)
    if pyramids.are_shown(journal, pyramids.recorded(journal, run.plan.identity)):
        expected.pop(ROOT)
    for key, data in expected.items():
        if journal.store.read(key) != data:
            journal.store.write(key, data)


def _layout_as_json(layout: Layout) -> dict[str, Any]:
    return {"shape": layout.shape, "shard": layout.shard, "arrays": [list(array) for array in layout.arrays]}


def layout_of(begun: Mapping[str, Any]) -> Layout:
    """Return the layout recorded in a journal."""
    layout = begun["layout"]
    (ny, nx), (sy, sx) = layout["shape"], layout["shard"]
    return Layout((ny, nx), (sy, sx), tuple((name, tuple(counts)) for name, counts in layout["arrays"]))
