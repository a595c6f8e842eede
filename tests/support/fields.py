"""A landscape of fields with one target date that is partly hidden."""

from __future__ import annotations

import numpy as np

from xr_cloudfree.models.protocol import Observations

SHAPE = (72, 80)
ROLES = ("blue", "green", "red", "nir")
DAYS = np.array([-45.0, -30, -15, 0, 15, 30])
TARGET = 3


def land(seed=0):
    """Return fields that green up at different times: reflectance (time, band, y, x), with a little noise."""
    rng = np.random.default_rng(seed)
    field = rng.uniform(-60, 60, (9, 10)).repeat(8, axis=0).repeat(8, axis=1)
    soil = rng.uniform(0.8, 1.2, SHAPE)
    green = 1 / (1 + np.exp(-(DAYS[:, None, None] - field) / 6))
    bare, leafy = np.array([0.08, 0.11, 0.14, 0.22]), np.array([0.03, 0.06, 0.04, 0.45])
    bands = (1 - green[:, None]) * bare[:, None, None] * soil + green[:, None] * leafy[:, None, None]
    return (bands + rng.normal(0, 0.003, bands.shape)).astype(np.float32)


def hide(bands, hidden, hazy=None):
    """Return observations of which the target is not clear where hidden, and may be hazy where clear."""
    clear = np.ones((len(bands), *SHAPE), bool)
    clear[TARGET] = ~hidden
    values = bands.copy()
    if hazy is not None:
        values[TARGET] = hazy
    values[TARGET][:, hidden] = np.nan
    return Observations(values, clear, DAYS, TARGET, common_names=ROLES)


def disc():
    """Return a round cloud of shape (y, x)."""
    row, column = np.indices(SHAPE)
    return (row - 30) ** 2 + (column - 35) ** 2 < 18**2
