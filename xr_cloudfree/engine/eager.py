"""The eager driver: blocks of arrays in memory or in files, one after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.engine.blocks import Array, Block, BlockJob, Window, as_slice
from xr_cloudfree.engine.grid import Box


def cut(array: Any, dates: NDArray[np.intp], box: Box) -> Window:
    """A window of an array in memory."""
    window: Window = array[(as_slice(dates), ..., *box.slices)]
    return window


def run_eager(
    job: BlockJob,
    bands: Sequence[Any],
    quality: Any,
    s1: Sequence[Any] = (),
    *,
    read: Callable[[Any, NDArray[np.intp], Box], Window] = cut,
    regions: Iterable[Box] | None = None,
) -> dict[str, Array]:
    """Run a job at once.

    Parameters
    ----------
    job : BlockJob
        What to do.
    bands : sequence of array
        One array (time, band, y, x), or one (time, y, x) per band, of the whole cube.
    quality : array, shape (time, y, x)
        The quality layer, or the clear mask, of the whole cube.
    s1 : sequence of array
        Sentinel-1 of the whole cube, in one of the forms of `bands`; empty for none.
    read : callable
        From an array, indices of dates and a box to a window.
    regions : iterable of Box, optional
        What is read in one piece: whole blocks, all of them together. By default each block.

    Returns
    -------
    dict of ndarray
        The outputs by name.
    """
    out = {
        o.name: np.empty(job.lead + tuple(job.sizes[d] for d in o.dims[:-2]) + job.grid.shape, o.dtype)
        for o in job.outputs
    }

    def blocks() -> Iterator[Block]:
        for region in job.grid.blocks() if regions is None else regions:
            window, quality_window = job.windows(region)
            held = [read(array, job.reads, window) for array in bands]
            held_quality = read(quality, job.reads, quality_window)
            held_s1 = [read(array, job.s1_reads, window) for array in s1]
            for box in job.grid.blocks(region):
                inner, inner_quality = job.windows(box)
                part = (..., *inner.within(window))
                yield (
                    box,
                    [array[part] for array in held],
                    held_quality[(..., *inner_quality.within(quality_window))],
                    [array[part] for array in held_s1],
                )

    for box, done in job.stream(blocks()):
        for o, array in zip(job.outputs, done, strict=True):
            out[o.name][(..., *box.slices)] = array
    return out
