"""Optional members of models and their defaults."""

import numpy as np
import pytest

from xr_cloudfree.errors import ModelError
from xr_cloudfree.models.protocol import BaseModel, FillModel, Observations, optional
from xr_cloudfree.models.spec import ModelSpec


class Plain:
    """A model with the two members that are needed."""

    spec = ModelSpec("plain", "does nothing", batch=3)

    def predict(self, tiles):
        return []


class Rich(Plain):
    """A model that has some of the optional members and does not derive from `BaseModel`."""

    by_band, uses_gpu, tiles_at_once, precision = True, True, 9, "bf16"

    def choose(self, **request):
        return Plain()


class Derived(BaseModel, Plain):
    """A model that derives from `BaseModel`."""

    by_band = True


def test_a_plain_model_gets_all_defaults():
    model = Plain()
    members = optional(model)
    assert isinstance(model, FillModel)
    assert (members.by_band, members.uses_gpu, members.precision, members.kind) == (False, False, "", "classical")
    assert members.tiles_at_once == 3 and members.pixel_bytes(10, 4) == 4 * 40 + 8 * 4 * 14
    assert members.choose(layers="all", bands=["red"], common_names=["red"]) is model
    members.check_installed()
    members.load(2)


def test_own_members_come_first_whether_it_derives_or_not():
    rich = optional(Rich())
    assert (rich.by_band, rich.uses_gpu, rich.tiles_at_once, rich.precision) == (True, True, 9, "bf16")
    assert isinstance(rich.choose(layers=None, bands=[], common_names=[]), Plain) and rich.pixel_bytes(1, 1) > 0
    derived = Derived()
    assert optional(derived) is derived and derived.by_band and derived.tiles_at_once == 3
    assert derived.choose(layers=None, bands=[], common_names=[]) is derived


def test_a_spec_with_weights_is_a_learned_model():
    model = Plain()
    model.spec = ModelSpec("plain", "with weights", weights_sha256="0" * 64)
    assert optional(model).kind == "learned"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"clear": np.ones((2, 3, 4))}, "clear has shape"),
        ({"clear": np.ones((2, 4, 3), bool)}, "clear has shape"),
        ({"day_offset": np.array([2.0, 1.0])}, "increasing"),
        ({"target": 2}, "target is 2"),
        ({"s1": np.zeros((1, 3, 4), np.float32)}, "s1 has shape"),
    ],
)
def test_observations_that_do_not_fit_together(change, says):
    good = {
        "bands": np.zeros((2, 1, 3, 4), np.float32),
        "clear": np.ones((2, 3, 4), bool),
        "day_offset": np.array([-1.0, 2.0]),
    }
    obs = Observations(**good)
    assert (obs.n_dates, obs.n_bands, obs.shape) == (2, 1, (3, 4))
    with pytest.raises(ModelError, match=says):
        Observations(**good | change)
