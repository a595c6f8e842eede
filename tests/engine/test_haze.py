"""Detection of haze in the target's clear pixels."""

from __future__ import annotations

import numpy as np
import pytest

from tests.support.fields import DAYS, ROLES, SHAPE, TARGET, disc, hide, land
from xr_cloudfree.engine import haze
from xr_cloudfree.models.protocol import Observations


@pytest.fixture
def blob():
    return disc()


def test_finds_thin_cloud_and_leaves_clear_ground(blob):
    bands = land()
    # With dates on which the fields differ, a field that greens up is no cloud.
    assert haze.suspect(hide(bands, np.zeros(SHAPE, bool))).mean() < 0.002
    hazy = bands[TARGET] + 0.3 * blob * (0.6 - bands[TARGET])
    still = np.stack([bands[TARGET]] * len(DAYS)) + np.random.default_rng(0).normal(0, 0.003, bands.shape).astype(
        np.float32
    )
    found = haze.suspect(hide(still, np.zeros(SHAPE, bool), hazy.astype(np.float32)))
    assert found[blob].mean() > 0.95
    assert not found[~blob].any()


def test_looks_at_one_pixel_at_a_time(blob):
    bands = land()
    hazy = (bands[TARGET] + 0.3 * blob * (0.6 - bands[TARGET])).astype(np.float32)
    obs = hide(bands, np.zeros(SHAPE, bool), hazy)
    whole = haze.suspect(obs)
    part = Observations(obs.bands[:, :, 20:40, 30:50], obs.clear[:, 20:40, 30:50], DAYS, TARGET, common_names=ROLES)
    assert (haze.suspect(part) == whole[20:40, 30:50]).all()


def test_suspects_nothing_where_it_knows_nothing():
    bands = land()
    clear = np.ones((len(DAYS), *SHAPE), bool)
    assert not haze.suspect(Observations(bands + 0.3, clear, DAYS, -1)).any()
    clear[:TARGET] = False
    clear[TARGET + 1 :] = False
    assert not haze.suspect(Observations(bands, clear, DAYS, TARGET)).any()
