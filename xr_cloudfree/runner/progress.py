"""How far a run is: a bar in a terminal and in Jupyter, lines of JSON in a log."""

from __future__ import annotations

import json
import sys
import time
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.util import find_spec
from types import TracebackType
from typing import Any, Protocol, Self

# Between two lines of a log; a run of a day makes some thousand of them.
EVERY = 10.0


@dataclass(frozen=True)
class Counts:
    """Where a run stands.

    Parameters
    ----------
    total : int
        Regions of the output.
    done : int
        How many of them are done, by this run or by one before it.
    fresh : int
        How many this run has done itself; only these tell how fast it is.
    size : int
        Bytes that this run has written.
    seconds : float
        Since this run began.
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
        """Seconds to the end, or None while nothing tells."""
        if self.done >= self.total:
            return 0.0
        return (self.total - self.done) / self.rate if self.rate else None

    def line(self) -> str:
        """The counts as one line of JSON.

        Examples
        --------
        >>> Counts(total=100, done=60, fresh=50, size=1_000_000, seconds=25).line().partition(", ")[2]
        '"done": 60, "total": 100, "rate": 2.0, "eta": 20.0, "bytes": 1000000}'
        """
        eta = self.eta
        told = {
            "time": datetime.now(UTC).isoformat(timespec="seconds"),
            "done": self.done,
            "total": self.total,
            "rate": round(self.rate, 3),
            "eta": None if eta is None else round(eta, 1),
            "bytes": self.size,
        }
        return json.dumps(told)


class Display(Protocol):
    """Something that shows counts."""

    def show(self, counts: Counts) -> None:
        """Show them, if it is time to."""
        ...

    def close(self, counts: Counts) -> None:
        """Show them for the last time."""
        ...


class Progress:
    """Counts regions and shows them; used as ``with Progress(total) as progress``.

    Parameters
    ----------
    total : int
        Regions of the output.
    done : int
        Those that an earlier run has done.
    display : Display, optional
        By default what suits the place: a bar on a terminal (rich), one in Jupyter (tqdm, where it is installed),
        and else a line of JSON on standard error every ten seconds.

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
        self._display = display or _suitable(self.counts)
        self._start = time.monotonic()

    def add(self, size: int) -> None:
        """One more region is done, of so many bytes."""
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
    """Shows nothing."""

    def show(self, counts: Counts) -> None:
        """Nothing."""

    def close(self, counts: Counts) -> None:
        """Nothing."""


class Lines:
    """A line of JSON on standard error at the begin, at the end, and every `every` seconds."""

    def __init__(self, every: float = EVERY) -> None:
        self._every, self._last, self._shown = every, float("-inf"), -1

    def show(self, counts: Counts) -> None:
        """A line, unless there was one just now."""
        if time.monotonic() - self._last >= self._every:
            self._write(counts)

    def close(self, counts: Counts) -> None:
        """The last line, unless it would say what the one before says."""
        if counts.done != self._shown:
            self._write(counts)

    def _write(self, counts: Counts) -> None:
        print(counts.line(), file=sys.stderr, flush=True)
        self._last, self._shown = time.monotonic(), counts.done


class RichBar:
    """A bar on a terminal."""

    def __init__(self, counts: Counts) -> None:
        from rich import progress
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
        self._bar = progress.Progress(*columns, console=Console(stderr=True))
        self._task = self._bar.add_task("", total=counts.total, completed=counts.done, **_fields(counts))
        self._bar.start()

    def show(self, counts: Counts) -> None:
        """Move the bar."""
        self._bar.update(self._task, completed=counts.done, **_fields(counts))

    def close(self, counts: Counts) -> None:
        """Leave the bar as it is now."""
        self.show(counts)
        self._bar.stop()


class TqdmBar:
    """A bar in Jupyter, as a widget where there are widgets."""

    def __init__(self, counts: Counts) -> None:
        if find_spec("ipywidgets") is not None:
            from tqdm.notebook import tqdm
        else:
            from tqdm import tqdm
        self._bar: Any = tqdm(
            total=counts.total, initial=counts.done, desc="regions", unit="region", file=sys.stderr, mininterval=1.0
        )

    def show(self, counts: Counts) -> None:
        """Move the bar."""
        self._bar.set_postfix_str(str(_fields(counts)["size"]), refresh=False)
        self._bar.update(counts.done - self._bar.n)

    def close(self, counts: Counts) -> None:
        """Leave the bar as it is now."""
        self.show(counts)
        self._bar.close()


def _fields(counts: Counts) -> dict[str, Any]:
    return {
        "rate": f"{counts.rate:.2g}/s" if counts.rate else "",
        "eta": "–" if counts.eta is None else _duration(counts.eta),
        "size": f"{counts.size / 2**20:,.1f} MiB",
    }


def _duration(seconds: float) -> str:
    """Hours, minutes and seconds.

    Examples
    --------
    >>> _duration(3725)
    '1:02:05'
    """
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes // 60}:{minutes % 60:02}:{rest:02}"


def _suitable(counts: Counts) -> Display:
    if "ipykernel" in sys.modules and find_spec("tqdm") is not None:
        return TqdmBar(counts)
    if sys.stderr.isatty():
        return RichBar(counts)
    return Lines()
