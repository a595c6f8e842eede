"""The status of a run, read from its journal."""

from __future__ import annotations

import os
import shlex
import socket
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from xr_cloudfree.runner.journal import LOCK, Journal
from xr_cloudfree.runner.regions import STATES
from xr_cloudfree.runner.runs import layout_of


@dataclass(frozen=True)
class Status:
    """The status of a run.

    Parameters
    ----------
    store : Path or str
        Its store.
    total, done : int
        Number of regions, and of those that are done.
    finished : bool
        Whether the store is complete, with consolidated metadata.
    driver : str or None
        The process that is filling it, as far as the journal shows.
    begun : tuple of (str, str)
        The settings it was begun with, by topic.
    pixels : mapping of str to int
        Number of pixels in each of `xr_cloudfree.runner.regions.STATES` in the regions that are done, over all dates;
        empty if the layer ``filled`` is not written.
    reopens : bool
        Whether the run can be reopened from its journal alone.
    """

    store: Path | str
    total: int
    done: int
    finished: bool
    driver: str | None
    begun: tuple[tuple[str, str], ...]
    pixels: Mapping[str, int]
    reopens: bool = True

    def text(self) -> str:
        """Return the status as lines of text, with the next step."""
        if self.finished:
            next_step = f"cloudfree verify {shlex.quote(str(self.store))}"
        elif self.driver:
            next_step = "wait for it"
        elif self.reopens:
            next_step = f"cloudfree resume {shlex.quote(str(self.store))}"
        else:
            next_step = "the call that began it, again: its cube does not come from a file"
        share = self.done / self.total
        lines = [
            ("store", str(self.store)),
            *self.begun,
            ("regions", f"{self.done} of {self.total} done ({share:.0%})" + (", finished" if self.finished else "")),
            *([("pixels", self.counted())] if self.pixels else []),
            ("at work", self.driver or "nobody"),
            ("next", next_step),
        ]
        return "\n".join(f"{label:<9} {text}" for label, text in lines)

    def counted(self) -> str:
        """Return the number of pixels in words."""
        numbers = {name: self.pixels.get(name, 0) for name in STATES}
        return ", ".join(f"{n:,} {name}" for name, n in numbers.items() if n or name != "filled in some bands")


def status(store: str | os.PathLike[str]) -> Status:
    """Return the status of the run of a store.

    Parameters
    ----------
    store : path or URL
        A store that `batch` or ``to_zarr`` has begun.

    Raises
    ------
    StoreError
        If there is no journal, or it is damaged.
    """
    journal = Journal(store)
    begun = journal.needed()
    layout = layout_of(begun)
    total = layout.n_regions
    done, counted, pixels = 0, 0, Counter[str]()
    for _, marker in journal.markers(layout, begun["run"]):
        done += 1
        if marker.get("pixels") is not None:
            counted += 1
            pixels.update(marker["pixels"])
    if counted < done:  # an incomplete sum would be taken for the total
        pixels.clear()
    settings = [(key, begun["fingerprint"][key]) for key in ("model", "dates", "shape", "layers")]
    if begun["call"] is not None:
        settings.insert(0, ("cube", begun["call"]["cube"]))
    finished = done == total and journal.is_finished
    return Status(
        journal.store.location,
        total,
        done,
        finished,
        _driver(journal),
        tuple(settings),
        pixels,
        begun["call"] is not None,
    )


def _driver(journal: Journal) -> str | None:
    """Return the process named in the lock; None if it no longer runs on this machine."""
    try:
        owner = journal.folder.holder(LOCK) or {}
        if owner["host"] == socket.gethostname():
            os.kill(owner["pid"], 0)
    except (OSError, KeyError):
        return None
    return f"process {owner['pid']} on {owner['host']} since {owner['since']}"
