"""Plots of a cube and its filled images; matplotlib is imported when a plot is drawn."""

from xr_cloudfree.plot.figures import before_after, mask, rgb, timeline

__all__ = ["before_after", "mask", "rgb", "timeline"]
