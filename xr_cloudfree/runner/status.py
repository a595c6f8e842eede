"""How far a run is, read from its journal by somebody who has no part in it."""

from __future__ import annotations

import json
import os
import shlex
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from xr_cloudfree.errors import StoreError
from xr_cloudfree.runner.journal import Journal
from xr_cloudfree.runner.regions import STATES
from xr_cloudfree.runner.runs import layout_of


@dataclass(frozen=True)
class Status:
    """How far a run is.

    Parameters
    ----------
    store : Path
        Its store.
    total, done : int
        Regions, and how many of them are done.
    finished : bool
        Whether the store is known as a whole.
    driver : str or None
        Who is at work on it, as far as the journal tells.
    begun : tuple of (str, str)
        What it was begun with.
    pixels : mapping of str to int
        How many are observed, filled and not filled in the regions that are done, over all dates; empty if the layer
        ``filled`` is not written.
    reopens : bool
        Whether the run can be opened again from its journal alone.
    """

    store: Path
    total: int
    done: int
    finished: bool
    driver: str | None
    begun: tuple[tuple[str, str], ...]
    pixels: Mapping[str, int]
    reopens: bool = True

    def text(self) -> str:
        """The status in lines, with what to do next."""
        if self.finished:
            following = f"cloudfree verify {shlex.quote(str(self.store))}"
        elif self.driver:
            following = "wait for it"
        elif self.reopens:
            following = f"cloudfree resume {shlex.quote(str(self.store))}"
        else:
            following = "the call by which it was begun, once more: its cube did not come from a file"
        share = self.done / self.total
        lines = [
            ("store", str(self.store)),
            *self.begun,
            ("regions", f"{self.done} of {self.total} done ({share:.0%})" + (", finished" if self.finished else "")),
            *([("pixels", self.counted())] if self.pixels else []),
            ("at work", self.driver or "nobody"),
            ("next", following),
        ]
        return "\n".join(f"{label:<9} {told}" for label, told in lines)

    def counted(self) -> str:
        """The pixels in words."""
        told = {name: self.pixels.get(name, 0) for name in STATES}
        return ", ".join(f"{n:,} {name}" for name, n in told.items() if n or name != "filled in some bands")


def status(store: str | os.PathLike[str]) -> Status:
    """How far the run of a store is.

    Parameters
    ----------
    store : path
        A store that `batch` or ``to_zarr`` has begun.

    Raises
    ------
    StoreError
        If there is no journal, or it is damaged.
    """
    journal = Journal(store)
    begun = journal.begun()
    if begun is None:
        raise StoreError(
            f"there is no journal of {journal.store}", "a store that to_zarr or batch has begun", "the store's path"
        )
    layout = layout_of(begun)
    total = layout.n_regions
    done, counted, pixels = 0, 0, Counter[str]()
    for _, told in journal.markers(layout, begun["run"]):
        done += 1
        if told.get("pixels") is not None:
            counted += 1
            pixels.update(told["pixels"])
    if counted < done:  # a sum of some of them would pass for the whole
        pixels.clear()
    with_what = [(key, begun["fingerprint"][key]) for key in ("model", "dates", "shape", "layers")]
    if begun["call"] is not None:
        with_what.insert(0, ("cube", begun["call"]["cube"]))
    finished = done == total and journal.finished.exists()
    return Status(
        journal.store,
        total,
        done,
        finished,
        _driver(journal.folder / "lock"),
        tuple(with_what),
        pixels,
        begun["call"] is not None,
    )


def _driver(lock: Path) -> str | None:
    """Who has left a note in the lock; on this machine one that has died is told from one that works."""
    try:
        told: dict[str, Any] = json.loads(lock.read_text())
        if told["host"] == socket.gethostname():
            os.kill(told["pid"], 0)
    except (OSError, ValueError, KeyError):
        return None
    return f"process {told['pid']} on {told['host']} since {told['since']}"
