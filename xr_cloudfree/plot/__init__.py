"""Plots of a cube and its fills; they need matplotlib, which is imported when a plot is made."""

from xr_cloudfree.plot.figures import before_after, rgb, timeline

__all__ = ["before_after", "rgb", "timeline"]
