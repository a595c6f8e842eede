"""Cloud-free satellite images of any target date, from xarray time series."""

__version__ = "0.1.0"
