"""The eager driver: blocks of arrays in memory or in files, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.engine.blocks import (
    Array,
    Block,
    BlockJob,
    Window,
    Windows,
    as_slice,
    cut_windows,
    empty_outputs,
    read_windows,
)
from xr_cloudfree.engine.grid import Box


def cut(array: Any, dates: NDArray[np.intp], box: Box) -> Window:
    """Cut a window out of an array in memory."""
    window: Window = array[(as_slice(dates), ..., *box.slices)]
    return window


def run_eager(
    job: BlockJob,
    sources: Windows,
    *,
    read: Callable[[Any, NDArray[np.intp], Box], Window] = cut,
    regions: Iterable[Box] | None = None,
) -> dict[str, Array]:
    """Run a job at once.

    Parameters
    ----------
    job : BlockJob
        The job.
    sources : Windows
        The arrays of the whole cube.
    read : callable
        From an array, indices of images and a box to a window.
    regions : iterable of Box, optional
        Parts of whole blocks that together cover the cube, each read in one piece. By default each block.

    Returns
    -------
    dict of ndarray
        The outputs by name.
    """
    out = empty_outputs(job, job.grid.shape)

    def blocks() -> Iterator[Block]:
        for region in job.grid.blocks() if regions is None else regions:
            windows = read_windows(job, region, sources, read)
            for box in job.grid.blocks(region):
                yield box, cut_windows(job, box, region, windows)

    for box, arrays in job.stream(blocks()):
        for output, array in zip(job.outputs, arrays, strict=True):
            out[output.name][(..., *box.slices)] = array
    return out
