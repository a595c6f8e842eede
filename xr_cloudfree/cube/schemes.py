"""Schemes of quality layers: tables with one row per class or bit, each with a state."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.cube.sensors import layer_schemes
from xr_cloudfree.errors import MaskError, option

State = Literal["clear", "snow", "doubtful", "cloud", "shadow", "unknown", "missing"]

# Where several flags of a pixel match, the later state wins: a pixel that is cloud and snow is not clear.
STATES: tuple[State, ...] = ("clear", "snow", "doubtful", "cloud", "shadow", "unknown", "missing")
RANK = {state: np.uint8(rank) for rank, state in enumerate(STATES)}


class Flag(NamedTuple):
    """One row of a scheme: pixels with ``value & mask == flag.value`` have this state.

    Parameters
    ----------
    value : int
        Value after masking.
    meaning : str
        The producer's name for it.
    state : {"clear", "snow", "doubtful", "cloud", "shadow", "unknown", "missing"}
        State of such pixels. ``"doubtful"`` is clear unless ``strict``; ``"unknown"`` raises an error.
    mask : int or None
        Bits to compare; None compares the whole value.
    """

    value: int
    meaning: str
    state: State
    mask: int | None = None


@dataclass(frozen=True)
class Scheme:
    """The meaning of the values of a quality layer.

    Parameters
    ----------
    name : str
        Name, as given by ``scheme=``.
    title : str
        Description in one line.
    flags : tuple of Flag
        The table. Empty for a scheme with a threshold.
    bits : int or None
        Number of bits of a bit field, in which a value that matches no flag is clear. None: each value has to
        match a flag.
    names : tuple of str
        Lower-case names of layers that follow the scheme, besides those of `sensors.SENSORS`; see `layer_names`.
    mistaken : tuple of str
        Schemes whose layers have the same names; messages suggest them for values that this scheme lacks.
    threshold : float or None
        For a scheme with a threshold, the threshold that messages suggest, for values from 0 to 1. None for classes
        and bits.
    """

    name: str
    title: str
    flags: tuple[Flag, ...] = ()
    bits: int | None = None
    names: tuple[str, ...] = ()
    mistaken: tuple[str, ...] = ()
    threshold: float | None = None

    @property
    def has_threshold(self) -> bool:
        """Whether values are probabilities or scores, to be compared with a threshold."""
        return self.threshold is not None

    @property
    def example(self) -> str:
        """The options that read a layer by this scheme, as typed."""
        threshold = (f"threshold={self.threshold:g}",) if self.has_threshold else ()
        return option(f'scheme="{self.name}"', *threshold)

    @property
    def clear_values(self) -> list[int]:
        """The classes that are clear by default: clear, snow and doubtful ones. Empty for bits."""
        if self.bits is not None or any(flag.mask is not None for flag in self.flags):
            return []
        return [flag.value for flag in self.flags if flag.state in ("clear", "snow", "doubtful")]

    def has(self, state: State) -> bool:
        """Return whether the scheme has a state."""
        return any(flag.state == state for flag in self.flags)


def _bit(number: int, meaning: str, state: State) -> Flag:
    return Flag(1 << number, meaning, state, 1 << number)


_TABLE = (
    Scheme(
        name="scl",
        title="Sentinel-2 L2A scene classification",
        flags=(
            Flag(0, "no data", "missing"),
            Flag(1, "saturated or defective", "missing"),
            Flag(2, "dark area or topographic shadow", "doubtful"),
            Flag(3, "cloud shadow", "shadow"),
            Flag(4, "vegetation", "clear"),
            Flag(5, "not vegetated", "clear"),
            Flag(6, "water", "clear"),
            Flag(7, "unclassified", "doubtful"),
            Flag(8, "cloud, medium probability", "cloud"),
            Flag(9, "cloud, high probability", "cloud"),
            Flag(10, "thin cirrus", "cloud"),
            Flag(11, "snow or ice", "snow"),
        ),
    ),
    Scheme(
        name="qa_pixel",
        title="Landsat Collection 2 QA_PIXEL",
        flags=(
            # The producer never writes 0; a warp may leave it outside a scene.
            Flag(0, "nothing written", "missing"),
            _bit(0, "fill", "missing"),
            _bit(1, "dilated cloud", "cloud"),
            _bit(2, "cirrus", "cloud"),
            _bit(3, "cloud", "cloud"),
            _bit(4, "cloud shadow", "shadow"),
            _bit(5, "snow", "snow"),
            # Bit 6, "clear", is ignored: the producer also sets it for shadow, snow and cirrus.
            # Each pixel of Collection 2 has a snow confidence. Collection 1 has other bits (its cloud bit means snow
            # here) and none above 10, which identifies it.
            Flag(0, "no confidence, as in Collection 1", "unknown", 0xF000),
        ),
        bits=16,
        mistaken=("pixel_qa", "dea_fmask", "cfmask"),
    ),
    Scheme(
        name="pixel_qa",
        title="Landsat Collection 1 pixel_qa",
        flags=(
            Flag(0, "nothing written", "missing"),
            _bit(0, "fill", "missing"),
            _bit(3, "cloud shadow", "shadow"),
            _bit(4, "snow", "snow"),
            _bit(5, "cloud", "cloud"),
            Flag(0x300, "cirrus confidence high", "cloud", 0x300),
            # Each pixel has a cloud confidence; classes numbered from 0 on have none.
            Flag(0, "no confidence", "unknown", 0xC0),
        ),
        bits=11,
        mistaken=("qa_pixel", "dea_fmask", "cfmask"),
    ),
    Scheme(
        name="fmask",
        title="Harmonized Landsat Sentinel-2 Fmask",
        flags=(
            Flag(255, "no data", "missing"),
            # HLS never sets this bit; classes numbered from 0 on do.
            _bit(0, "not used", "unknown"),
            _bit(1, "cloud", "cloud"),
            _bit(2, "adjacent to cloud or shadow", "cloud"),
            _bit(3, "cloud shadow", "shadow"),
            _bit(4, "snow or ice", "snow"),
        ),
        bits=8,
        mistaken=("dea_fmask", "cfmask"),
    ),
    Scheme(
        name="dea_fmask",
        title="Fmask classes of Geoscience Australia and python-fmask",
        flags=(
            Flag(0, "no data", "missing"),
            Flag(1, "valid", "clear"),
            Flag(2, "cloud", "cloud"),
            Flag(3, "cloud shadow", "shadow"),
            Flag(4, "snow", "snow"),
            Flag(5, "water", "clear"),
        ),
        names=("oa_fmask", "dea_fmask"),
        mistaken=("cfmask", "fmask"),
    ),
    Scheme(
        name="cfmask",
        title="CFMask classes of Landsat",
        flags=(
            Flag(0, "clear", "clear"),
            Flag(1, "water", "clear"),
            Flag(2, "cloud shadow", "shadow"),
            Flag(3, "snow", "snow"),
            Flag(4, "cloud", "cloud"),
            Flag(255, "fill", "missing"),
        ),
        mistaken=("dea_fmask", "pixel_qa", "fmask"),
    ),
    Scheme(
        name="cloudsen12",
        title="Classes of OmniCloudMask and CloudSEN12",
        flags=(
            Flag(0, "clear", "clear"),
            Flag(1, "thick cloud", "cloud"),
            Flag(2, "thin cloud", "cloud"),
            Flag(3, "cloud shadow", "shadow"),
        ),
        names=("omnicloudmask", "ocm", "cloudsen12", "cloudmask_en"),
    ),
    Scheme(
        name="csmask",
        title="Classes of UKIS CSmask",
        flags=(
            Flag(0, "background", "clear"),
            Flag(1, "cloud", "cloud"),
            Flag(2, "cloud shadow", "shadow"),
        ),
        names=("csmask", "ukis_csmask"),
    ),
    Scheme(
        name="clm",
        title="Sentinel Hub's cloud mask CLM, of s2cloudless",
        flags=(
            Flag(0, "clear", "clear"),
            Flag(1, "cloud", "cloud"),
            Flag(255, "no data", "missing"),
        ),
        names=("clm",),
        mistaken=("maja",),
    ),
    Scheme(
        name="maja",
        title="Theia's cloud mask CLM, of MAJA",
        flags=(
            _bit(0, "cloud or shadow", "cloud"),
            _bit(1, "cloud", "cloud"),
            _bit(2, "cloud shadow", "shadow"),
            _bit(3, "shadow of a cloud outside the image", "shadow"),
            _bit(4, "cloud, from one date", "cloud"),
            _bit(5, "cloud, from several dates", "cloud"),
            _bit(6, "thinnest cloud", "cloud"),
            _bit(7, "high cloud", "cloud"),
        ),
        bits=8,
    ),
    Scheme(
        name="modis_state",
        title="MODIS surface reflectance state",
        flags=(
            Flag(65535, "fill", "missing"),
            Flag(1, "cloudy", "cloud", 0x3),
            Flag(2, "mixed", "cloud", 0x3),
            Flag(3, "not set, assumed clear", "doubtful", 0x3),
            _bit(2, "cloud shadow", "shadow"),
            Flag(0x100, "cirrus small", "doubtful", 0x300),
            Flag(0x200, "cirrus average", "cloud", 0x300),
            Flag(0x300, "cirrus high", "cloud", 0x300),
            _bit(10, "internal cloud flag", "cloud"),
            _bit(12, "snow or ice, of MOD35", "snow"),
            _bit(13, "adjacent to cloud", "cloud"),
            _bit(15, "internal snow mask", "snow"),
        ),
        bits=16,
    ),
    Scheme(
        name="probability",
        title="Cloud probability: 0 to 1, 0 to 100 or 0 to 255, with threshold=",
        names=("cloud_prob", "cloud_probability", "cld", "clp", "s2cloudless", "cloudprob"),
        threshold=0.4,
    ),
    Scheme(
        name="clear_score",
        title="Clear-sky score or probability: 0 to 1, 0 to 100 or 0 to 255, with threshold=",
        names=("cs", "cs_cdf", "clear_score", "clear_prob", "clear_probability", "clearprob", "clear_sky_probability"),
        threshold=0.6,
    ),
)

SCHEMES: Mapping[str, Scheme] = MappingProxyType({scheme.name: scheme for scheme in _TABLE})
"""The known schemes by name. Layers with a table of flags in their attributes need none."""


def layer_names(scheme: Scheme) -> tuple[str, ...]:
    """Return the names of layers that follow a scheme, in lower case: those of sensors first.

    Examples
    --------
    >>> layer_names(SCHEMES["fmask"]), layer_names(SCHEMES["dea_fmask"])
    (('fmask',), ('oa_fmask', 'dea_fmask'))
    """
    return (*(layer for layer, name in layer_schemes().items() if name == scheme.name), *scheme.names)


def scheme_of_layer(name: str) -> Scheme | None:
    """Return the scheme that a layer of this name follows, in any case; None for an unknown name.

    Examples
    --------
    >>> scheme_of_layer("QA_PIXEL").title
    'Landsat Collection 2 QA_PIXEL'
    """
    return next((scheme for scheme in SCHEMES.values() if name.lower() in layer_names(scheme)), None)


def states(values: NDArray[np.integer[Any]], scheme: Scheme) -> NDArray[np.uint8]:
    """Return the state of each value, as its index in `STATES`.

    Parameters
    ----------
    values : ndarray of int, any shape
        Values of a quality layer.
    scheme : Scheme
        Their meaning.

    Returns
    -------
    ndarray of uint8, shape of `values`
        Where several flags match, the later state of `STATES`.
    """
    ranks = np.zeros(values.shape, np.uint8)
    matched = np.zeros(values.shape, bool)
    for flag in scheme.flags:
        hit = (values if flag.mask is None else values & flag.mask) == flag.value
        np.maximum(ranks, RANK[flag.state], out=ranks, where=hit)
        matched |= hit
    if scheme.bits is not None:
        matched = (values >= 0) & (values < 1 << scheme.bits)
    ranks[~matched] = RANK["unknown"]
    return ranks


def find_scheme(name: object) -> Scheme:
    """Return the scheme of this name.

    Raises
    ------
    MaskError
        If there is none.
    """
    if not isinstance(name, str) or name not in SCHEMES:
        near = difflib.get_close_matches(str(name).lower(), SCHEMES, n=1)
        raise MaskError(
            f"no scheme is called {name!r}",
            f"one of {', '.join(SCHEMES)}",
            option(f"scheme={(near or ['scl'])[0]!r}"),
        )
    return SCHEMES[name]
