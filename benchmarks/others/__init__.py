"""Fills with images of a coarser sensor, beside interpolation in space and the injection of what it saw."""
