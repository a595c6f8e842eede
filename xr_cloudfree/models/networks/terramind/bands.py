"""The bands that TerraMind was trained on, and the assignment of a cube's bands to them.

TerraMind takes the 12 bands of Sentinel-2 L2A, always all of them and in a fixed order: its slots. A cube's bands are
assigned by common name, so Landsat's bands go to the slot of the same colour. A slot without a band is interpolated in
wavelength between the two nearest bands, and takes the outermost band beyond them. Bands without a known name fill no
slot; if no band has a known name, each slot is the mean of all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.models.networks.inputs import NetworkInput

DIGITAL = 10_000.0
"""Digital numbers per unit of reflectance, as in TerraMind's training data."""


@dataclass(frozen=True)
class Slot:
    """A band of Sentinel-2 L2A as TerraMind uses it.

    Parameters
    ----------
    band : str
        Sentinel-2's name.
    common_name : str
        STAC common name.
    wavelength : float
        Centre, in nanometres.
    mean, std : float
        Statistics of TerraMind's training data, in digital numbers.
    """

    band: str
    common_name: str
    wavelength: float
    mean: float
    std: float


SLOTS = (
    Slot("B01", "coastal", 442.7, 1390.458, 2106.761),
    Slot("B02", "blue", 492.4, 1503.317, 2141.107),
    Slot("B03", "green", 559.8, 1718.197, 2038.973),
    Slot("B04", "red", 664.6, 1853.910, 2134.138),
    Slot("B05", "rededge071", 704.1, 2199.100, 2085.321),
    Slot("B06", "rededge075", 740.5, 2779.975, 1889.926),
    Slot("B07", "rededge078", 782.8, 2987.011, 1820.257),
    Slot("B08", "nir", 832.8, 3083.234, 1871.918),
    Slot("B8A", "nir08", 864.7, 3132.220, 1753.829),
    Slot("B09", "nir09", 945.1, 3162.988, 1797.379),
    Slot("B11", "swir16", 1613.7, 2424.884, 1434.261),
    Slot("B12", "swir22", 2202.4, 1857.648, 1334.311),
)
"""In TerraMind's order, which is by wavelength."""

COMMON_NAMES = tuple(slot.common_name for slot in SLOTS)
MEAN = np.array([slot.mean for slot in SLOTS], np.float32)
STD = np.array([slot.std for slot in SLOTS], np.float32)
# Sentinel-1 GRD, VV and VH, in decibels.
S1_MEAN = np.array([-12.599, -20.293], np.float32)
S1_STD = np.array([5.195, 5.890], np.float32)


def one_hot(common_names: Sequence[str | None]) -> NDArray[np.float32]:
    """Return an array of shape (band, slot) with 1 at each band's slot and 0 elsewhere.

    Parameters
    ----------
    common_names : sequence of (str or None)
        STAC common names of the bands.

    Examples
    --------
    >>> from xr_cloudfree.models.networks.terramind.bands import one_hot
    >>> one_hot(["red", None]).argmax(axis=1).tolist(), one_hot(["red", None]).sum(axis=1).tolist()
    ([3, 0], [1.0, 0.0])
    """
    slots = np.zeros((len(common_names), len(SLOTS)), np.float32)
    for band, common_name in enumerate(common_names):
        if common_name in COMMON_NAMES and common_name not in common_names[:band]:
            slots[band, COMMON_NAMES.index(common_name)] = 1
    return slots


def interpolation_weights(common_names: Sequence[str | None]) -> NDArray[np.float32]:
    """Return the weight of each band in each slot, shape (band, slot); the weights of a slot sum to 1.

    Parameters
    ----------
    common_names : sequence of (str or None)
        STAC common names of the bands.

    Examples
    --------
    Between green at 559.8 nm and nir at 832.8 nm, red at 664.6 nm is nearer to green:

    >>> from xr_cloudfree.models.networks.terramind.bands import interpolation_weights
    >>> [f"{weight:.3f}" for weight in interpolation_weights(["green", "nir"])[:, 3]]
    ['0.616', '0.384']
    """
    own = one_hot(common_names)
    band, slot = np.nonzero(own)
    if not len(slot):
        return np.full(own.shape, 1 / max(len(own), 1), np.float32)
    order = np.argsort(slot)
    band, slot = band[order], slot[order]
    at = np.array([s.wavelength for s in SLOTS])
    weights = np.zeros(own.shape)
    for row, unit in zip(band, np.eye(len(band)), strict=True):
        # Interpolation is linear in each band, so its response to one band alone gives that band's weights.
        weights[row] = np.interp(at, at[slot], unit)
    return weights.astype(np.float32)


def describe(tile: NetworkInput, common_names: Sequence[str | None]) -> NetworkInput:
    """Return a network's input with the assignment of its bands to TerraMind's slots.

    Parameters
    ----------
    tile : NetworkInput
        Input of the network, with all bands that it is to use.
    common_names : sequence of (str or None)
        STAC common names of these bands; empty if none is known.

    Returns
    -------
    NetworkInput
        With two additional features: ``one_hot`` and ``interpolation_weights``, both of shape (band, slot).
    """
    common_names = tuple(common_names) or (None,) * len(tile.band_valid)
    return replace(
        tile,
        features=tile.features
        | {"one_hot": one_hot(common_names), "interpolation_weights": interpolation_weights(common_names)},
    )
