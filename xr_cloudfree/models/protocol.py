"""The model interface: observations in, predictions out, and the protocol that the engine calls.

Everything needed to write a model is here; nothing else has to be imported for it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.errors import ModelError
from xr_cloudfree.models.spec import ModelSpec


@dataclass(frozen=True, eq=False)
class Observations:
    """The observations of one tile for one target date.

    Parameters
    ----------
    bands : ndarray, shape (time, band, y, x)
        Values in the units that the model's spec asks for: ``"reflectance"`` (float32, 1) or ``"storage"`` (as
        stored: uint16, int16 or float32). What lies at pixels that are not clear is arbitrary, NaN included.
    clear : ndarray of bool, shape (time, y, x)
        True where a pixel was seen and is valid in every band.
    day_offset : ndarray of float64, shape (time,)
        Signed days from the target date, increasing; negative lies before it.
    target : int
        Index of the target date's own observation, or -1 where the target date was not observed.
    scale : float
        Reflectance per unit of `bands` (1 for models that work in reflectance).
    origin : tuple of int
        Row and column of the tile's first pixel in the cube; may be negative where the tile reaches beyond it.
    common_names : tuple of (str or None)
        STAC common name per band (``"blue"``, ``"nir"`` …), or None where it is not known.
    s1 : ndarray of float32, shape (2, y, x), optional
        Sentinel-1 near the target date: VV and VH in decibels, NaN where there is none. Only models that say that
        they take it are given it.
    """

    bands: NDArray[np.generic]
    clear: NDArray[np.bool_]
    day_offset: NDArray[np.float64]
    target: int = -1
    scale: float = 1.0
    origin: tuple[int, int] = (0, 0)
    common_names: tuple[str | None, ...] = ()
    s1: NDArray[np.float32] | None = None

    def __post_init__(self) -> None:
        t, _, y, x = self.bands.shape
        if self.clear.shape != (t, y, x) or self.clear.dtype != np.bool_:
            raise ModelError(
                f"clear has shape {self.clear.shape} and dtype {self.clear.dtype}",
                f"bool of shape {(t, y, x)}, the bands' without the band axis",
                "Observations(bands=bands, clear=np.isfinite(bands).all(axis=1), ...)",
            )
        if self.day_offset.shape != (t,) or (np.diff(self.day_offset) < 0).any():
            raise ModelError(
                f"day_offset has shape {self.day_offset.shape}",
                f"{t} increasing signed days, one per date",
                "sort the dates before you make Observations",
            )
        if not -1 <= self.target < t:
            raise ModelError(f"target is {self.target}", f"an index below {t}, or -1", "Observations(..., target=-1)")
        if self.s1 is not None and self.s1.shape != (2, y, x):
            raise ModelError(f"s1 has shape {self.s1.shape}", f"VV and VH, {(2, y, x)}", "Observations(..., s1=None)")

    @property
    def n_dates(self) -> int:
        """Number of dates."""
        return int(self.bands.shape[0])

    @property
    def n_bands(self) -> int:
        """Number of bands."""
        return int(self.bands.shape[1])

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return int(self.bands.shape[2]), int(self.bands.shape[3])


@dataclass(frozen=True, eq=False)
class Prediction:
    """What a model answers for one tile, in the units of its `Observations`.

    Parameters
    ----------
    bands : ndarray of float32, shape (band, y, x)
        The image of the target date. What lies where `known` is False is arbitrary; a band that is not known where
        others are is NaN.
    known : ndarray of bool, shape (y, x)
        False where the model has nothing to go by: the output is nodata there.
    source : ndarray of int16, shape (y, x), optional
        Index of the date that dominates the pixel (weight of at least one half), -1 where none does.
    uncertainty : ndarray of float32, shape (band, y, x), optional
        Such that ± 1.645 of it is the 90 % interval.
    gate : ndarray of float32, shape (time, y, x), optional
        Weight of each date, with sum 1 where `known`.
    """

    bands: NDArray[np.float32]
    known: NDArray[np.bool_]
    source: NDArray[np.int16] | None = None
    uncertainty: NDArray[np.float32] | None = None
    gate: NDArray[np.float32] | None = None


@runtime_checkable
class FillModel(Protocol):
    """A model that makes the image of a target date from a tile's observations.

    An instance travels to workers, so it must pickle; load heavy things on first use.

    A model that works on several tiles side by side may have an attribute `tiles_at_once` as well: the number, a
    multiple of ``spec.batch``, that it is given where nothing else is at work in the process. One that treats each band
    by itself may set an attribute `by_band` to True: where a pixel lacks a band on some date, it is asked for each band
    with that band's own dates.
    """

    @property
    def spec(self) -> ModelSpec:
        """What the model says of itself."""
        ...

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """One prediction per tile. The answer for a tile may not depend on the others."""
        ...


def flat(obs: Observations) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Bands (time, band, pixel) and clear (time, pixel), as the kernels take them."""
    t, b, y, x = obs.bands.shape
    bands = np.ascontiguousarray(obs.bands).reshape(t, b, y * x)
    return bands, np.ascontiguousarray(obs.clear).reshape(t, y * x)


def prediction(
    obs: Observations,
    image: NDArray[np.float32],
    known: NDArray[np.bool_],
    source: NDArray[np.int16],
    uncertainty: NDArray[np.float32] | None = None,
    gate: NDArray[np.float32] | None = None,
) -> Prediction:
    """Back from one pixel axis to rows and columns."""
    y, x = obs.shape
    return Prediction(
        image.reshape(-1, y, x),
        known.reshape(y, x),
        source.reshape(y, x),
        None if uncertainty is None else uncertainty.reshape(-1, y, x),
        None if gate is None else gate.reshape(-1, y, x),
    )


def dominant(weights: NDArray[np.float32]) -> NDArray[np.int16]:
    """Index of the date with at least half of the weight (of two the earlier), -1 where none has.

    Parameters
    ----------
    weights : ndarray of float32, shape (time, pixel)
        Weights of the dates.
    """
    source = np.full(weights.shape[1], -1, np.int16)
    for date in range(len(weights) - 1, -1, -1):
        source[weights[date] >= 0.5] = date
    return source
