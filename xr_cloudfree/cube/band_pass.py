"""Differences between the bands of two sensors: published coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

# OLI = slope * MSI + offset, for Sentinel-2A and Sentinel-2B, from 500 spectra of Hyperion scenes.
# Source: NASA, Harmonized Landsat and Sentinel-2, bandpass adjustment (user guide, version 2.0),
# https://hls.gsfc.nasa.gov/algorithms/bandpass-adjustment/; Claverie et al. 2018, doi 10.1016/j.rse.2018.09.002.
MSI_TO_OLI: dict[str, tuple[tuple[float, float], tuple[float, float]]] = {
    "coastal": ((0.9959, -0.0002), (0.9959, -0.0002)),
    "blue": ((0.9778, -0.0040), (0.9778, -0.0040)),
    "green": ((1.0053, -0.0009), (1.0075, -0.0008)),
    "red": ((0.9765, 0.0009), (0.9761, 0.0010)),
    "nir08": ((0.9983, -0.0001), (0.9966, 0.0000)),
    "swir16": ((0.9987, -0.0011), (1.0000, -0.0003)),
    "swir22": ((1.0030, -0.0012), (0.9867, 0.0004)),
}
# HLS gives Sentinel-2 the bands of OLI.
OLI, MSI = ("landsat", "hls"), ("sentinel-2",)


def published_lines(
    theirs: str | None, ours: str | None, common_names: Sequence[str | None]
) -> tuple[tuple[float, float], ...]:
    """Return slope and offset by which reflectance of one sensor becomes that of another, for each band.

    Parameters
    ----------
    theirs, ours : str or None
        Families of the two sensors, as `Cube.sensor` names them.
    common_names : sequence of (str or None)
        The bands.

    Returns
    -------
    tuple of (float, float)
        (1, 0) for bands and sensors without published coefficients: those are of OLI and MSI, the mean of
        Sentinel-2A and 2B. They are used for TM and ETM+ as well.

    Examples
    --------
    >>> [(round(slope, 4), round(offset, 4)) for slope, offset in published_lines("landsat", "sentinel-2", ["red"])]
    [(1.0243, -0.001)]
    >>> published_lines("landsat", "hls", ["red"])
    ((1.0, 0.0),)
    """
    lines = []
    for name in common_names:
        slope, offset = 1.0, 0.0
        if name in MSI_TO_OLI and {theirs in OLI, ours in OLI} == {True, False} and (theirs in MSI or ours in MSI):
            slope, offset = (float(value) for value in np.mean(MSI_TO_OLI[name], axis=0))
            if theirs in OLI:
                slope, offset = 1 / slope, -offset / slope
        lines.append((slope, offset))
    return tuple(lines)
