"""Progress of reading from archives: counts of what the reader does, and a bar that shows them."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from importlib.util import find_spec
from threading import Lock
from types import TracebackType
from typing import Any, Self

from numpy.typing import NDArray

from xr_cloudfree.compat import count_reads

# GDAL repeats requests by itself; it tells so in a warning, which rasterio logs.
_GDAL_LOG, _AGAIN = "rasterio._env", "Retrying again"


@dataclass(frozen=True)
class Reads:
    """What was read from archives by now.

    A read is one part of one file: that which a chunk of the cube needs of a band of an item.

    Parameters
    ----------
    total : int
        Reads that the computations since the beginning need; what they do not need is not counted.
    done : int
        Reads that have ended, with values or without.
    in_flight : int
        Reads that have begun and not ended.
    failed : int
        Reads that ended with an error, or with missing pixels where ``on_error="missing"`` was asked for.
    retries : int
        Requests that GDAL repeated because they failed.
    pixels : int
        Pixels that were read, on the grid of the cube.
    size : int
        Their bytes, decoded: files are compressed, and GDAL does not tell how many bytes it requested.
    """

    total: int = 0
    done: int = 0
    in_flight: int = 0
    failed: int = 0
    retries: int = 0
    pixels: int = 0
    size: int = 0

    def text(self) -> str:
        """Return the counts in words, without those of the bar.

        Examples
        --------
        >>> Reads(total=8, done=5, in_flight=2, retries=1, size=3 * 2**20).text()
        '2 in flight, 1 retry, 3.0 MiB decoded'
        """
        retries = f"{self.retries} {'retry' if self.retries == 1 else 'retries'}"
        failed = f"{self.failed} failed, " if self.failed else ""
        return f"{self.in_flight} in flight, {retries}, {failed}{self.size / 2**20:,.1f} MiB decoded"


class ReadingProgress:
    """Show what is read from archives while this is open: ``with xr_cloudfree.ReadingProgress(): cube.compute()``.

    It counts what `load` reads in this process, by any of dask's schedulers that run in it: threads and synchronous.
    In a terminal, and in Jupyter with ipywidgets, a bar shows it; elsewhere only the counts are kept.

    Parameters
    ----------
    display : bool
        Whether to show a bar.

    Attributes
    ----------
    reads : Reads
        The counts, also after it was closed.

    Examples
    --------
    >>> with ReadingProgress() as progress:
    ...     pass  # cube.compute(), fill(...).compute(), xr_cloudfree.io.write(...)
    >>> progress.reads.done
    0
    """

    def __init__(self, display: bool = True) -> None:
        self.reads = Reads()
        self._lock, self._stack = Lock(), ExitStack()
        self._bar: Any = None
        self._task: Any = None
        self._display = display and _can_display()

    def __enter__(self) -> Self:
        from dask.callbacks import Callback

        self._stack.enter_context(Callback(start=self._planned))
        log, counted = logging.getLogger(_GDAL_LOG), _Retries(self)
        log.addFilter(counted)
        self._stack.callback(log.removeFilter, counted)
        _OPEN.append(self)
        self._stack.callback(_OPEN.remove, self)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._stack.close()
        with self._lock:
            if self._bar is not None:
                self._bar.stop()

    def add(self, **more: int) -> None:
        """Add to counts, by the names of `Reads`."""
        with self._lock:
            counts = {name: getattr(self.reads, name) + number for name, number in more.items()}
            self.reads = replace(self.reads, **counts)
            if self._display:
                self._show()

    def _planned(self, graph: Mapping[Any, Any]) -> None:
        self.add(total=count_reads(graph, CountedDriver))

    def _show(self) -> None:
        reads = self.reads
        if self._bar is None:
            if not reads.total:  # nothing of an archive
                return
            self._bar, self._task = _make_bar()
        total = max(reads.total, reads.done + reads.in_flight)
        self._bar.update(self._task, completed=reads.done, total=total, counts=reads.text())


class CountedDriver:
    """Base class of the drivers whose reads are `counted`."""


# The displays that are open.
_OPEN: list[ReadingProgress] = []


@contextmanager
def counted() -> Iterator[list[NDArray[Any]]]:
    """Count one read; the values that were read are put into the list that is given."""
    shown, values = list(_OPEN), list[NDArray[Any]]()
    for one in shown:
        one.add(in_flight=1)
    try:
        yield values
    finally:
        pixels, size = sum(v.size for v in values), sum(v.nbytes for v in values)
        for one in shown:
            one.add(in_flight=-1, done=1, failed=int(not values), pixels=pixels, size=size)


class _Retries(logging.Filter):
    """Counts records of retries; lets all records pass."""

    def __init__(self, progress: ReadingProgress) -> None:
        super().__init__()
        self._progress = progress

    def filter(self, record: logging.LogRecord) -> bool:
        if _AGAIN in record.getMessage():
            self._progress.add(retries=1)
        return True


def _can_display() -> bool:
    # In Jupyter rich needs ipywidgets.
    return find_spec("ipywidgets") is not None if "ipykernel" in sys.modules else sys.stderr.isatty()


def _make_bar() -> tuple[Any, Any]:
    from rich import get_console, progress
    from rich.console import Console

    columns = (
        progress.TextColumn("reading"),
        progress.BarColumn(),
        progress.MofNCompleteColumn(),
        progress.TextColumn("reads, {task.fields[counts]}"),
        progress.TimeElapsedColumn(),
    )
    # In Jupyter rich draws into an output widget, which only its standard console does.
    console = get_console() if "ipykernel" in sys.modules else Console(stderr=True)
    bar = progress.Progress(*columns, console=console)
    task = bar.add_task("", total=None, counts="")
    bar.start()
    return bar, task
