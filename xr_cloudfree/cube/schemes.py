"""What the values of a quality layer mean, as tables: one row per class or bit, each with a state."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.errors import MaskError

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
        The producer's word for it.
    state : {"clear", "snow", "doubtful", "cloud", "shadow", "unknown", "missing"}
        What it means here. ``"doubtful"`` is clear unless ``strict``; ``"unknown"`` is an error.
    mask : int or None
        Bits that are compared; None compares the whole value.
    """

    value: int
    meaning: str
    state: State
    mask: int | None = None


@dataclass(frozen=True)
class Scheme:
    """What the values of a quality layer mean.

    Parameters
    ----------
    name : str
        What is given as ``scheme=``.
    title : str
        One line for people.
    flags : tuple of Flag
        The table. Empty for a probability, which has a threshold in its place.
    bits : int or None
        Number of bits of a bit field, where a value that matches no flag is clear. None: each value has to
        match one.
    names : tuple of str
        Lower-case names of variables that are known to follow the scheme.
    """

    name: str
    title: str
    flags: tuple[Flag, ...] = ()
    bits: int | None = None
    names: tuple[str, ...] = ()

    @property
    def is_probability(self) -> bool:
        """Whether values are probabilities of cloud."""
        return self.name == "probability"

    def has(self, state: State) -> bool:
        """Whether the scheme can tell a state."""
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
        names=("scl",),
    ),
    Scheme(
        name="qa_pixel",
        title="Landsat Collection 2 QA_PIXEL",
        flags=(
            # Outside of a scene a warp may leave 0, which the producer never writes.
            Flag(0, "nothing written", "missing"),
            _bit(0, "fill", "missing"),
            _bit(1, "dilated cloud", "cloud"),
            _bit(2, "cirrus", "cloud"),
            _bit(3, "cloud", "cloud"),
            _bit(4, "cloud shadow", "shadow"),
            _bit(5, "snow", "snow"),
            # Bit 6, "clear", is left alone: the producer sets it on shadow, snow and cirrus too.
            # Each pixel of Collection 2 carries a snow confidence. Collection 1 has other bits (its cloud
            # would pass for snow) and none above 10, so it is told apart here.
            Flag(0, "no confidence, as in Collection 1", "unknown", 0xF000),
        ),
        bits=16,
        names=("qa_pixel", "pixel_qa"),
    ),
    Scheme(
        name="fmask",
        title="Harmonized Landsat Sentinel-2 Fmask",
        flags=(
            Flag(255, "no data", "missing"),
            _bit(1, "cloud", "cloud"),
            _bit(2, "adjacent to cloud or shadow", "cloud"),
            _bit(3, "cloud shadow", "shadow"),
            _bit(4, "snow or ice", "snow"),
        ),
        bits=8,
        names=("fmask",),
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
        names=("cfmask",),
    ),
    Scheme(
        name="probability",
        title="Probability of cloud, 0 to 1 or 0 to 100, with threshold=",
        names=("cloud_prob", "cloud_probability", "cld", "msk_cldprb", "s2cloudless", "cloudprob"),
    ),
)

SCHEMES: Mapping[str, Scheme] = MappingProxyType({scheme.name: scheme for scheme in _TABLE})
"""The schemes that are known by name. Layers with CF flag attributes need none."""

_CLEAR_WORDS = frozenset("clear clear_sky cloud_free no_cloud not_cloud valid good".split())
_WORDS: dict[State, str] = {
    "clear": """
        clear clear_sky cloud_free no_cloud not_cloud valid good land clear_land vegetation vegetated
        not_vegetated non_vegetated bare_soil soil water clear_water
    """,
    "doubtful": """
        dark dark_area dark_area_pixel dark_feature dark_feature_shadow unclassified topographic_shadow
        terrain_shadow cast_shadow casted_shadow topographic_casted_shadow cloud_low_probability
        low_probability_cloud
    """,
    "cloud": """
        cloud cloudy thick_cloud thin_cloud opaque_cloud semi_transparent_cloud haze cloud_medium_probability
        medium_probability_cloud cloud_high_probability high_probability_cloud cirrus thin_cirrus cirrus_cloud
        dilated_cloud cloud_edge adjacent adjacent_cloud adjacent_to_cloud adjacent_to_cloud_shadow
        adjacent_to_cloud_or_shadow cloud_or_shadow cloud_or_cloud_shadow
    """,
    "shadow": "shadow cloud_shadow",
    "snow": "snow ice snow_ice snow_or_ice snow_and_ice",
    "missing": """
        nodata no_data nodata_or_other fill fill_value missing invalid not_observed no_observation outside
        background saturated defective saturated_or_defective saturated_defective
    """,
}
_STATE_OF: dict[str, State] = {word: state for state, words in _WORDS.items() for word in words.split()}


def states(values: NDArray[np.integer[Any]], scheme: Scheme) -> NDArray[np.uint8]:
    """The state of each value, as its place in `STATES`.

    Parameters
    ----------
    values : ndarray of int, any shape
        Values of a quality layer.
    scheme : Scheme
        What they mean.

    Returns
    -------
    ndarray of uint8, shape of `values`
        Where several flags match, the later state of `STATES`.
    """
    found = np.zeros(values.shape, np.uint8)
    matched = np.zeros(values.shape, bool)
    for flag in scheme.flags:
        hit = (values if flag.mask is None else values & flag.mask) == flag.value
        np.maximum(found, RANK[flag.state], out=found, where=hit)
        matched |= hit
    if scheme.bits is not None:
        matched = (values >= 0) & (values < 1 << scheme.bits)
    found[~matched] = RANK["unknown"]
    return found


def known_scheme(name: object) -> Scheme:
    """The scheme of a name.

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
            f"scheme={(near or ['scl'])[0]!r}, or clear= with a boolean layer",
        )
    return SCHEMES[name]


def _numbers(given: Any) -> list[int]:
    """Numbers of a CF attribute, whichever way it was written; none if it holds anything else."""
    if isinstance(given, str):
        return [int(word) for word in re.findall(r"-?\d+", given)]
    try:
        return [int(np.int64(number)) for number in np.atleast_1d(given)]
    except (TypeError, ValueError, OverflowError):
        return []


def cf_scheme(attrs: Mapping[Any, Any], name: str, by_name: Scheme | None = None) -> Scheme:
    """A scheme from the CF attributes ``flag_values``, ``flag_masks`` and ``flag_meanings``.

    Parameters
    ----------
    attrs : mapping
        Attributes of the layer.
    name : str
        Name of the layer, for messages.
    by_name : Scheme, optional
        The scheme that the name suggests, for messages.

    Raises
    ------
    MaskError
        If a meaning is not understood, or the attributes differ in length.

    Examples
    --------
    >>> cf_scheme({"flag_values": [0, 1, 4], "flag_meanings": "clear cloud no_data"}, "qa").flags[1]
    Flag(value=1, meaning='cloud', state='cloud', mask=None)
    """
    meanings = attrs["flag_meanings"]
    words = meanings.split() if isinstance(meanings, str) else [str(word) for word in np.atleast_1d(meanings)]
    masks = _numbers(attrs["flag_masks"]) if "flag_masks" in attrs else None
    values = _numbers(attrs["flag_values"]) if "flag_values" in attrs else masks
    remedy = f"scheme={by_name.name!r}" if by_name else f"scheme= with one of {', '.join(SCHEMES)}"
    remedy += f", or clear={name} == 0 with the value that means clear"
    if values is None or len(values) != len(words) or (masks is not None and len(masks) != len(words)):
        raise MaskError(
            f"{name} has {len(words)} flag_meanings, {len(values or ())} flag_values and {len(masks or ())} flag_masks",
            "one value, or one mask, for each meaning",
            remedy,
        )
    plain = [_plain(word) for word in words]
    unknown = [word for word, key in zip(words, plain, strict=True) if key not in _STATE_OF]
    if unknown:
        raise MaskError(
            f"{name} has flag_meanings that are not understood: {', '.join(unknown)}",
            "meanings such as clear, cloud, cloud_shadow, snow, no_data",
            remedy,
        )
    flags = [
        Flag(value, word, _STATE_OF[key], masks[i] if masks else None)
        for i, (value, word, key) in enumerate(zip(values, words, plain, strict=True))
    ]
    if masks:
        every = 0
        for mask in masks:
            every |= mask
        if not any(flag.value == 0 for flag in flags):
            # With a bit that says clear, a pixel without any bit was not looked at.
            rest: State = "missing" if _CLEAR_WORDS & set(plain) else "clear"
            flags.append(Flag(0, "no flag set", rest, every))
    return Scheme("cf", f"the flag attributes of {name}", tuple(flags))


def _plain(meaning: str) -> str:
    """A meaning in lower case, with single underscores and in the singular."""
    plain = re.sub(r"[^a-z0-9]+", "_", meaning.lower()).strip("_")
    return re.sub(r"(cloud|shadow|pixel|area|feature|soil)s(?=_|$)", r"\1", plain)
