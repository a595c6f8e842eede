"""The eager driver: blocks of arrays in memory, one after the other."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xr_cloudfree.engine.blocks import Array, Block, BlockJob, as_slice
from xr_cloudfree.tiling.grid import Box


def run_now(job: BlockJob, bands: Sequence[Array], quality: Array, s1: Sequence[Array] = ()) -> dict[str, Array]:
    """Run a job on arrays that lie in memory.

    Parameters
    ----------
    job : BlockJob
        What to do.
    bands : sequence of ndarray
        One array (time, band, y, x), or one (time, y, x) per band, of the whole cube.
    quality : ndarray, shape (time, y, x)
        The quality layer, or the clear mask, of the whole cube.
    s1 : sequence of ndarray
        Sentinel-1 of the whole cube, in one of the forms of `bands`; empty for none.

    Returns
    -------
    dict of ndarray
        The outputs by name.
    """
    out = {
        o.name: np.empty(job.lead + tuple(job.sizes[d] for d in o.dims[:-2]) + job.grid.shape, o.dtype)
        for o in job.outputs
    }
    dates, s1_dates = as_slice(job.reads), as_slice(job.s1_reads)

    def cut(box: Box) -> Block:
        window, quality_window = job.windows(box)
        return (
            box,
            [array[(dates, ..., *window.slices)] for array in bands],
            quality[(dates, *quality_window.slices)],
            [array[(s1_dates, ..., *window.slices)] for array in s1],
        )

    for box, done in job.stream(map(cut, job.grid.blocks())):
        for o, array in zip(job.outputs, done, strict=True):
            out[o.name][(..., *box.slices)] = array
    return out
