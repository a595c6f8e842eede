"""Signs of progress on a terminal, for commands that compute in this process."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def progress_bar(quiet: bool) -> Iterator[None]:
    """Show a bar for what dask computes, once it takes more than two seconds."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from dask.diagnostics.progress import ProgressBar

    with ProgressBar(minimum=2, out=sys.stderr):
        yield


@contextmanager
def reading_bar(quiet: bool) -> Iterator[None]:
    """Show a bar for what is read from an archive."""
    from xr_cloudfree.loading.progress import ReadingProgress

    with ReadingProgress(display=not quiet):
        yield


@contextmanager
def spinner(text: str, quiet: bool) -> Iterator[None]:
    """Show a spinner for work of unknown length."""
    if quiet or not sys.stderr.isatty():
        yield
        return
    from rich.console import Console

    with Console(stderr=True).status(f"{text} …"):
        yield
