"""The streaming driver: a region of several blocks, from its windows in memory."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from xr_cloudfree.engine.blocks import Array, Block, Window
from xr_cloudfree.engine.fill import FillJob, fill_block, fill_blocks
from xr_cloudfree.engine.grid import Box


def run_region(
    job: FillJob,
    region: Box,
    bands: Sequence[Window],
    quality: Window,
    s1: Sequence[Window] = (),
    *,
    threads: int = 1,
    alone: bool = True,
) -> dict[str, Array]:
    """Run a fill on a region that is made of whole blocks.

    Parameters
    ----------
    job : FillJob
        What to do.
    region : Box
        The region.
    bands : sequence of ndarray
        The region's window, dates as in ``job.reads``: one array (time, band, y, x) or one (time, y, x) per band.
    quality : ndarray, shape (time, y, x)
        The quality layer in its own window.
    s1 : sequence of ndarray
        Sentinel-1 in the region's window, dates as in ``job.s1_reads``; empty for none.
    threads : int
        Blocks that run side by side, for models that take their tiles one by one. Those that like batches, or work on
        several tiles side by side, get the tiles of all blocks in one stream, so that only the last batch may be less
        than full.
    alone : bool
        Whether no other region is at work in this process. See `fill_blocks`.

    Returns
    -------
    dict of ndarray
        The outputs by name.
    """
    window, quality_window = job.windows(region)
    out = {
        o.name: np.empty(job.lead + tuple(job.sizes[d] for d in o.dims[:-2]) + region.shape, o.dtype)
        for o in job.outputs
    }

    def cut(box: Box) -> Block:
        inner, inner_quality = job.windows(box)
        return (
            box,
            # In one piece: all that follows goes through it several times.
            [np.ascontiguousarray(array[(..., *inner.within(window))]) for array in bands],
            quality[(..., *inner_quality.within(quality_window))],
            [array[(..., *inner.within(window))] for array in s1],
        )

    def keep(box: Box, done: tuple[Array, ...]) -> None:
        for o, array in zip(job.outputs, done, strict=True):
            out[o.name][(..., *box.within(region))] = array

    boxes = job.grid.blocks(region)
    if threads > 1 and job.tiles_at_once == 1:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda box: keep(box, fill_block(job, *cut(box))), boxes):
                pass
    else:
        for box, done in fill_blocks(job, map(cut, boxes), alone=alone):
            keep(box, done)
    return out
