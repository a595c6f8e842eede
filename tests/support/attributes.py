"""Cubes with attributes and coordinates that files cannot hold."""

import numpy as np

from tests.support.cubes import make_cube


class RasterSpec:
    """An object of another package; its text contains its address in memory."""


def cube(**attrs):
    """Return a small cube with these attributes and the clear mask `good`."""
    da, clear = make_cube(shape=(20, 24))
    return da.drop_vars("platform").to_dataset().assign(good=clear).assign_attrs(attrs)


def objects(values):
    """Return an array of objects, whatever they are."""
    array = np.empty(len(values), object)
    array[:] = values
    return array
