"""Fill one region of a run: read its windows, run the model, encode its shards and write them."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np

from xr_cloudfree.engine import blocks
from xr_cloudfree.engine.answers import Answers
from xr_cloudfree.engine.blocks import Array, Windows
from xr_cloudfree.engine.grid import Box
from xr_cloudfree.engine.streaming import run_region
from xr_cloudfree.errors import StoreError
from xr_cloudfree.layers import FILLED, NOT_FILLED, OBSERVED, PARTLY
from xr_cloudfree.runner import windows
from xr_cloudfree.runner.journal import Journal, another_run
from xr_cloudfree.runner.plan import RunPlan
from xr_cloudfree.runner.store import digest_of, encode, sha256

# What a pixel of a date can be, and its number in the layer "filled".
STATES = {"observed": OBSERVED, "filled": FILLED, "filled in some bands": PARTLY, "not filled": NOT_FILLED}


@dataclass(frozen=True)
class RegionReport:
    """Report on a region that was filled.

    Parameters
    ----------
    index : int
        The region.
    digest : str
        SHA-256 over its shards.
    bytes : int
        Bytes written.
    seconds : float
        Time taken.
    process : str
        Host and process that filled it.
    pixels : mapping of str to int, or None
        Number of pixels in each of `STATES`, over all dates; None if the layer ``filled`` is not written.
    """

    index: int
    digest: str
    bytes: int
    seconds: float
    process: str
    pixels: Mapping[str, int] | None


def read_windows(plan: RunPlan, index: int) -> Windows:
    """Read the windows of a region into memory."""
    sources = Windows(plan.bands, plan.quality, plan.s1, plan.corrected, plan.others)
    return blocks.read_windows(plan.job, plan.box(index), sources, windows.read)


def part_to_fill(plan: RunPlan, journal: Journal, index: int) -> tuple[RunPlan, Mapping[str, Any] | None]:
    """Return the plan of what a region lacks, and the marker of the dates that it has.

    Parameters
    ----------
    plan : RunPlan
        The plan of the run.
    journal : Journal
        The journal of its store.
    index : int
        The region.

    Returns
    -------
    RunPlan
        `plan`, or the plan of the dates that it adds to the store.
    mapping or None
        The marker of the run that the dates are added to; None if all dates are to be filled.
    """
    if plan.added is not None:
        marker = journal.read(journal.marker(index))
        if marker is not None and marker["region"] == index and marker["run"] == plan.added.run:
            return plan.added.plan, marker
    return plan, None


def fill_region(
    plan: RunPlan,
    store: str | os.PathLike[str],
    index: int,
    *,
    windows: Windows | None = None,
    threads: int = 1,
    alone: bool = True,
    answers: Answers | None = None,
) -> RegionReport:
    """Read and fill one region, write its shards, then its marker in the journal. Safe to repeat at any time.

    Parameters
    ----------
    plan : RunPlan
        The run.
    store : path
        The store of the run, already begun.
    index : int
        The region.
    windows : Windows, optional
        The result of `read_windows`, if read ahead.
    threads : int
        Blocks to process at the same time.
    alone : bool
        Whether this process fills no other region at the same time.
    answers : Answers, optional
        Answers that this region shares with others, see `run_region`.

    Raises
    ------
    StoreError
        If the store belongs to another run by now.
    OutputError
        If the store cannot be written.
    """
    start = time.perf_counter()
    journal, box = Journal(store), plan.box(index)
    part, before = part_to_fill(plan, journal, index)
    windows = windows or read_windows(part, index)
    outputs = run_region(part.job, box, windows, threads=threads, alone=alone, answers=answers)
    del windows
    extends = _check_current(plan, journal)
    first = plan.added.first if plan.added is not None and before is not None else 0

    def write(shard: tuple[str, bytes]) -> tuple[str, str, int]:
        key, data = shard
        journal.store.write(key, data)
        return key, sha256(data), len(data)

    with ThreadPoolExecutor(8) as pool:  # writes one shard while the next is encoded
        written = list(pool.map(write, _encode(plan, box, outputs, first)))
    files, size = {key: digest for key, digest, _ in written}, sum(length for *_, length in written)
    pixels = _count_states(outputs)
    if before is not None:
        files = {**before["files"], **files}
        if pixels is not None:
            pixels = {name: n + before["pixels"][name] for name, n in pixels.items()}
    report = RegionReport(
        index=index,
        digest=digest_of(files),
        bytes=size,
        seconds=round(time.perf_counter() - start, 3),
        process=f"{socket.gethostname()}:{os.getpid()}",
        pixels=pixels,
    )
    marker = {
        "region": index,
        "run": plan.identity,
        "files": files,
        "bytes": size + (before["bytes"] if before is not None else 0),
        "seconds": report.seconds,
        "process": report.process,
        "pixels": report.pixels,
    }
    journal.mark(index, marker, extends)
    return report


def _count_states(outputs: Mapping[str, Array]) -> dict[str, int] | None:
    """Return the number of pixels in each of `STATES`; None without the layer ``filled``."""
    if (filled := outputs.get("filled")) is None:
        return None
    return {name: int(np.count_nonzero(filled == state)) for name, state in STATES.items()}


def _check_current(plan: RunPlan, journal: Journal) -> str | None:
    """Raise if the store was begun anew by another run in the meantime; return the run that this one adds dates to."""
    record = journal.needed()
    if record["run"] != plan.identity:
        raise another_run(journal)
    return record["earlier"]["run"] if record.get("earlier") else None


def _encode(plan: RunPlan, box: Box, outputs: Mapping[str, Array], first: int) -> Iterator[tuple[str, bytes]]:
    """Yield the key and the bytes of each shard of a region, for dates that begin with that of the index `first`.

    Raises
    ------
    StoreError
        If `box` is not exactly one region, or the outputs do not fit it.
    """
    index = plan.layout.index(box)
    for part in plan.parts:
        values = part.take(outputs)
        if values.shape[-2:] != box.shape:
            raise StoreError(
                f"{part.name} has {values.shape[-2]} x {values.shape[-1]} pixels",
                f"the shape of the region, {box.shape[0]} x {box.shape[1]}",
                "run_region(job, RunPlan.box(index), ...)",
            )
        yield from encode(part, plan.metadata[part.name], plan.layout, index, values, first)
