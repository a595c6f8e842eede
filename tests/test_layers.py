"""The table of layers is complete: each row has what computes it, and values of the type it names."""

import numpy as np
import pytest

import xr_cloudfree
from xr_cloudfree.engine.provenance import Provenance
from xr_cloudfree.layers import COMMON_LAYERS, LAYERS, MASK_LAYERS, MODEL_LAYERS, OTHER_LAYERS


@pytest.mark.parametrize("name", LAYERS)
def test_each_layer_has_a_method_that_computes_it(name):
    assert callable(getattr(Provenance, name))


def test_each_layer_has_one_source():
    assert sorted((*COMMON_LAYERS, *MODEL_LAYERS, *OTHER_LAYERS, *MASK_LAYERS)) == sorted(LAYERS)


def test_attributes_compare_as_equal():
    assert all(layer.attrs == layer.attrs for layer in LAYERS.values())


def test_outputs_are_what_the_table_says(portugal):
    image = xr_cloudfree.fill(portugal.isel(y=slice(40), x=slice(40)), "2021-07-08", model="regress", layers="all")
    for name in set(LAYERS) & set(image.data_vars):
        layer = LAYERS[name]
        assert (image[name].dims, image[name].dtype) == (layer.dims, np.dtype(layer.dtype))
        assert image[name].attrs["long_name"] == layer.long_name
