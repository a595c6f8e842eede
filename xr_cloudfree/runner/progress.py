"""Progress of a run: a bar in a terminal and in Jupyter, lines of JSON in a log."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Protocol, Self

# Seconds between two lines of a log: some thousand lines for a run of a day.
EVERY = 10.0


@dataclass(frozen=True)
class Counts:
    """The state of a run.

    Parameters
    ----------
    total : int
        Regions of the output.
    done : int
        Regions that are done, by this call or an earlier one.
    fresh : int
        Regions done by this call; the rate is computed from these.
    size : int
        Bytes written by this call.
    seconds : float
        Seconds since this call began.
    """

    total: int
    done: int
    fresh: int = 0
    size: int = 0
    seconds: float = 0.0

    @property
    def rate(self) -> float:
        """Regions per second."""
        return self.fresh / self.seconds if self.seconds > 0 else 0.0

    @property
    def eta(self) -> float | None:
        """Estimated seconds to the end; None before the first region is done."""
        if self.done >= self.total:
            return 0.0
        return (self.total - self.done) / self.rate if self.rate else None

    def line(self) -> str:
        """Return the counts as one line of JSON.

        Examples
        --------
        >>> Counts(total=100, done=60, fresh=50, size=1_000_000, seconds=25).line().partition(", ")[2]
        '"done": 60, "total": 100, "rate": 2.0, "eta": 20.0, "bytes": 1000000}'
        """
        eta = self.eta
        fields = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "done": self.done,
            "total": self.total,
            "rate": round(self.rate, 3),
            "eta": None if eta is None else round(eta, 1),
            "bytes": self.size,
        }
        return json.dumps(fields)


class Display(Protocol):
    """A display of counts."""

    def show(self, counts: Counts) -> None:
        """Show the counts if an update is due."""
        ...

    def close(self, counts: Counts) -> None:
        """Show the counts for the last time."""
        ...


class Progress:
    """Counts regions and shows them; used as ``with Progress(total) as progress``.

    Parameters
    ----------
    total : int
        Regions of the output.
    done : int
        Regions done by an earlier call.
    display : Display, optional
        The default is a bar in a terminal and, with ipywidgets, in Jupyter; otherwise a line of JSON on standard
        error every ten seconds.

    Examples
    --------
    >>> class Silent:
    ...     def show(self, counts): pass
    ...     def close(self, counts): print(counts.done, "of", counts.total, "with", counts.size, "bytes")
    >>> with Progress(3, done=1, display=Silent()) as progress:
    ...     progress.add(100)
    ...     progress.add(100)
    3 of 3 with 200 bytes
    """

    def __init__(self, total: int, done: int = 0, display: Display | None = None) -> None:
        self.counts = Counts(total, done)
        self._display = display or _default_display(self.counts)
        self._start = time.monotonic()

    def add(self, size: int) -> None:
        """Count one more region of `size` bytes."""
        counts = self.counts
        seconds = time.monotonic() - self._start
        self.counts = Counts(counts.total, counts.done + 1, counts.fresh + 1, counts.size + size, seconds)
        self._display.show(self.counts)

    def __enter__(self) -> Self:
        self._display.show(self.counts)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._display.close(self.counts)


class Silent:
    """A display that shows nothing."""

    def show(self, counts: Counts) -> None:
        """Do nothing."""

    def close(self, counts: Counts) -> None:
        """Do nothing."""


class Lines:
    """Lines of JSON on standard error: at the beginning, at the end, and every `every` seconds."""

    def __init__(self, every: float = EVERY) -> None:
        self._every, self._last, self._shown = every, float("-inf"), -1

    def show(self, counts: Counts) -> None:
        """Write a line, unless one was written less than `every` seconds ago."""
        if time.monotonic() - self._last >= self._every:
            self._write(counts)

    def close(self, counts: Counts) -> None:
        """Write the last line, unless it would repeat the one before."""
        if counts.done != self._shown:
            self._write(counts)

    def _write(self, counts: Counts) -> None:
        print(counts.line(), file=sys.stderr, flush=True)
        self._last, self._shown = time.monotonic(), counts.done


class Bar:
    """A bar in a terminal or in Jupyter."""

    def __init__(self, counts: Counts) -> None:
        from rich import get_console, progress
        from rich.console import Console

        columns = (
            progress.TextColumn("regions"),
            progress.BarColumn(),
            progress.MofNCompleteColumn(),
            progress.TextColumn("{task.fields[rate]}"),
            progress.TimeElapsedColumn(),
            progress.TextColumn("ETA"),
            progress.TextColumn("{task.fields[eta]}"),
            progress.TextColumn("{task.fields[size]}"),
        )
        # In Jupyter rich draws into an output widget, which only its standard console does.
        console = get_console() if "ipykernel" in sys.modules else Console(stderr=True)
        self._bar = progress.Progress(*columns, console=console)
        self._task = self._bar.add_task("", total=counts.total, completed=counts.done, **_fields(counts))
        self._bar.start()

    def show(self, counts: Counts) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=counts.done, **_fields(counts))

    def close(self, counts: Counts) -> None:
        """Stop the bar and leave it where it is."""
        self.show(counts)
        self._bar.stop()


def _fields(counts: Counts) -> dict[str, Any]:
    return {
        "rate": f"{counts.rate:.2g}/s" if counts.rate else "",
        "eta": "–" if counts.eta is None else _duration(counts.eta),
        "size": f"{counts.size / 2**20:,.1f} MiB",
    }


def _duration(seconds: float) -> str:
    """Return seconds as hours, minutes and seconds.

    Examples
    --------
    >>> _duration(3725)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _default_display(counts: Counts) -> Display:
    # In Jupyter rich needs ipywidgets.
    bar = find_spec("ipywidgets") is not None if "ipykernel" in sys.modules else sys.stderr.isatty()
    return Bar(counts) if bar else Lines()
