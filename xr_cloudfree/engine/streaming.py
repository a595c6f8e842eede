"""The streaming driver: a region of several blocks, from its windows in memory."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np

from xr_cloudfree.engine.answers import Answers
from xr_cloudfree.engine.blocks import Array, Block, Windows, cut_windows, empty_outputs
from xr_cloudfree.engine.fill import FillJob, fill_block, fill_blocks
from xr_cloudfree.engine.grid import Box


def run_region(
    job: FillJob,
    region: Box,
    windows: Windows,
    *,
    threads: int = 1,
    alone: bool = True,
    answers: Answers | None = None,
) -> dict[str, Array]:
    """Run a fill on a region that is made of whole blocks.

    Parameters
    ----------
    job : FillJob
        The job.
    region : Box
        The region.
    windows : Windows
        Its windows, images as in ``job.reads`` and ``job.s1_reads``.
    threads : int
        Blocks that run in parallel, or tiles where blocks share them, for models that take one tile per call. Models
        that take several get the tiles of all blocks as one stream, so that only the last batch may be incomplete.
    alone : bool
        Whether no other region is filled in this process at the same time. See `fill_blocks`.
    answers : Answers, optional
        Answers shared with regions before and after; by default the blocks of this one share theirs.

    Returns
    -------
    dict of ndarray
        The outputs by name.
    """
    out = empty_outputs(job, region.shape)

    def cut(box: Box) -> Block:
        block = cut_windows(job, box, region, windows)
        # Contiguous, because the computation passes over the bands several times.
        return box, replace(block, bands=[np.ascontiguousarray(array) for array in block.bands])

    def keep(box: Box, arrays: tuple[Array, ...]) -> None:
        for output, array in zip(job.outputs, arrays, strict=True):
            out[output.name][(..., *box.within(region))] = array

    boxes = job.grid.blocks(region)
    if threads > 1 and job.tiles_at_once == 1 and not job.grid.taper:
        with ThreadPoolExecutor(threads) as pool:
            for _ in pool.map(lambda box: keep(box, fill_block(job, *cut(box))), boxes):
                pass
    else:
        answers = answers or Answers(job.grid, [region])
        for box, arrays in fill_blocks(job, map(cut, boxes), alone=alone, answers=answers, threads=threads):
            keep(box, arrays)
    return out
