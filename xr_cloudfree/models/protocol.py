"""The model interface: observations, predictions, the protocol that the engine calls, and its optional members.

Everything needed to write a model is here. Learned models whose network follows `xr_cloudfree.models.networks.network`
need no class of their own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from xr_cloudfree.errors import ModelError
from xr_cloudfree.models.spec import ModelSpec


@dataclass(frozen=True, eq=False)
class OtherImages:
    """Images of another sensor near the target date, on its own pixels around a tile.

    Parameters
    ----------
    bands : ndarray of float32, shape (time, band, row, column)
        Reflectance, by published coefficients brought near that of the tile's sensor; NaN where not clear.
    day_offset : ndarray of float64, shape (time,)
        Signed days from the target date, increasing.
    positions : tuple of int
        For each band its position among the bands of the tile.
    rows, columns : ndarray of float64, shape (row,) and (column,)
        Centres of the pixels, in pixels of the tile from its first edge, increasing and evenly spaced.
    step : tuple of float
        Distance between the pixels along rows and columns, in pixels of the tile.
    width : tuple of float
        Size of what a pixel of the sensor sees, in pixels of the tile.
    """

    bands: NDArray[np.float32]
    day_offset: NDArray[np.float64]
    positions: tuple[int, ...]
    rows: NDArray[np.float64]
    columns: NDArray[np.float64]
    step: tuple[float, float]
    width: tuple[float, float]

    def of_bands(self, members: Sequence[int]) -> OtherImages:
        """Return the images for a tile that has only some of the bands.

        Parameters
        ----------
        members : sequence of int
            Their positions among the bands of the tile.
        """
        kept = [i for i, position in enumerate(self.positions) if position in members]
        positions = tuple(list(members).index(self.positions[i]) for i in kept)
        return replace(self, bands=self.bands[:, kept], positions=positions)


@dataclass(frozen=True, eq=False)
class Observations:
    """The observations of one tile for one target date.

    Parameters
    ----------
    bands : ndarray, shape (time, band, y, x)
        Values in the units that the model's spec names: ``"reflectance"`` (float32, 1) or ``"storage"`` (as stored:
        uint16, int16 or float32). Values of pixels that are not clear are arbitrary and may be NaN.
    clear : ndarray of bool, shape (time, y, x)
        True where a pixel is clear and valid in every band.
    day_offset : ndarray of float64, shape (time,)
        Signed days from the target date, increasing; negative before it.
    target : int
        Index of the target date's own observation, or -1 if the target date was not observed.
    scale : float
        Reflectance per unit of `bands` (1 for models that work in reflectance).
    common_names : tuple of (str or None)
        STAC common name per band (``"blue"``, ``"nir"`` …), or None where it is not known.
    s1 : ndarray of float32, shape (2, y, x), optional
        Sentinel-1 near the target date: VV and VH in decibels, NaN where missing. Only passed to models whose spec
        says that they use it.
    others : tuple of OtherImages
        Images of other sensors, one value per sensor. Models need not look at them: `enhance.Enhanced` applies them to
        the prediction of any model.

    Raises
    ------
    ModelError
        If shapes or types do not fit together, or the days are not increasing.
    """

    bands: NDArray[np.generic]
    clear: NDArray[np.bool_]
    day_offset: NDArray[np.float64]
    target: int = -1
    scale: float = 1.0
    common_names: tuple[str | None, ...] = ()
    s1: NDArray[np.float32] | None = None
    others: tuple[OtherImages, ...] = ()

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
                "sort the dates before you create Observations",
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
    """A model's output for one tile, in the units of its `Observations`.

    Parameters
    ----------
    bands : ndarray of float32, shape (band, y, x)
        The image of the target date. Values where `known` is False are arbitrary; a band that is unknown where others
        are known is NaN.
    known : ndarray of bool, shape (y, x)
        False where the model has no information: the output is nodata there.
    source : ndarray of int16, shape (y, x), optional
        Index of the date that dominates the pixel (weight of at least one half), -1 where none does.
    uncertainty : ndarray of float32, shape (band, y, x), optional
        Standard uncertainty: ± 1.645 times it is the 90 % interval.
    gate : ndarray of float32, shape (time, y, x), optional
        Weight of each date, with sum 1 where `known`.
    sensor : ndarray of uint8, shape (y, x), optional
        Which sensor saw the pixel nearest to the target date: 0 that of the tile, 1 the first of the other sensors.
    consistency : ndarray of float32, shape (band, y, x), optional
        What the other sensor observed minus what it would see of the image; NaN where it saw nothing.
    """

    bands: NDArray[np.float32]
    known: NDArray[np.bool_]
    source: NDArray[np.int16] | None = None
    uncertainty: NDArray[np.float32] | None = None
    gate: NDArray[np.float32] | None = None
    sensor: NDArray[np.uint8] | None = None
    consistency: NDArray[np.float32] | None = None


@runtime_checkable
class FillModel(Protocol):
    """A model that estimates the image of a target date from a tile's observations.

    These two members are all that is needed. `BaseModel` documents the optional ones, which any model may define.
    An instance is sent to workers, so it must be picklable; load anything heavy on first use.
    """

    @property
    def spec(self) -> ModelSpec:
        """Description of the model."""
        ...

    def predict(self, tiles: Sequence[Observations]) -> list[Prediction]:
        """Return one prediction per tile. The prediction of a tile may not depend on the others."""
        ...


class BaseModel:
    """Optional members of a model and their defaults.

    Derive from it, or define members of the same names: `optional` supplies the others.

    Examples
    --------
    >>> from xr_cloudfree.models.protocol import BaseModel, Prediction
    >>> from xr_cloudfree.models.spec import ModelSpec
    >>> class Mean(BaseModel):
    ...     spec = ModelSpec("mean", "mean of all dates", units="reflectance")
    ...     by_band = True
    ...
    ...     def predict(self, tiles):
    ...         return [Prediction(obs.bands.mean(axis=0), obs.clear.any(axis=0)) for obs in tiles]
    >>> Mean().tiles_at_once, Mean().uses_gpu
    (1, False)
    """

    spec: ModelSpec

    by_band: bool = False
    """Whether each band is treated by itself: a pixel that lacks a band on some date is then predicted band by band."""
    uses_gpu: bool = False
    """Whether it computes on a GPU where there is one, with torch or the like: cluster runs then choose workers that
    announce a GPU, and account for the memory of such a library."""
    precision: str = ""
    """Numeric precision, for models that have several. A store is resumed only with the same."""

    @property
    def kind(self) -> Literal["classical", "learned", "rule"]:
        """Kind of model, as `xr_cloudfree.list_models` shows it: by default learned if the spec names weights."""
        return "classical" if self.spec.weights_sha256 is None else "learned"

    @property
    def tiles_at_once(self) -> int:
        """Number of tiles, a multiple of ``spec.batch``, that `predict` gets where nothing else runs in the process."""
        return self.spec.batch

    @property
    def overlaps(self) -> bool:
        """Whether the next tiles are cut in another thread while `predict` runs, as is useful if it waits for a GPU.

        This holds where nothing else runs in the process.
        """
        return False

    def pixel_bytes(self, dates: int, bands: int) -> int:
        """Return the bytes of working memory per pixel of a tile, observations included, for the size of regions.

        Parameters
        ----------
        dates, bands : int
            Numbers of dates and bands of the tile.
        """
        return 4 * dates * bands + 8 * bands * (4 + min(16, dates))

    def choose(
        self,
        *,
        layers: Literal["all"] | str | Sequence[str] | None,
        bands: Sequence[str],
        common_names: Sequence[str | None],
    ) -> FillModel:
        """Return the model to use for a cube: by default this one.

        Parameters
        ----------
        layers : {"all"}, str, sequence of str or None
            Requested layers.
        bands : sequence of str
            The cube's names of its bands.
        common_names : sequence of (str or None)
            Their STAC common names.
        """
        return self  # type: ignore[return-value]  # derived classes have predict

    def check_installed(self) -> None:
        """Raise, before anything is computed, if the model cannot run in this environment.

        Raises
        ------
        CloudfreeError
            If a package that it needs is not installed.
        """

    def load(self, threads: int | None = None) -> None:
        """Load anything heavy into this process before the first prediction; workers call it once.

        Parameters
        ----------
        threads : int, optional
            CPU threads that the process may use, where the library's own choice would be wrong.
        """


def optional(model: FillModel) -> BaseModel:
    """Return the model with the defaults of `BaseModel` for the optional members that it does not define.

    Examples
    --------
    >>> from xr_cloudfree.models.classical.pixelwise import Linear
    >>> from xr_cloudfree.models.protocol import optional
    >>> optional(Linear()).by_band, optional(Linear()).kind
    (True, 'classical')
    """
    return model if isinstance(model, BaseModel) else _Completed(model)


class _Completed(BaseModel):
    """A view of a model that does not derive from `BaseModel`: its own members first, then the defaults."""

    def __init__(self, model: FillModel) -> None:
        self._model = model

    def __getattribute__(self, name: str) -> Any:
        model = object.__getattribute__(self, "_model")
        return getattr(model, name) if hasattr(model, name) else object.__getattribute__(self, name)

    def choose(self, **request: Any) -> FillModel:
        return self._model


def flat(obs: Observations) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
    """Return bands (time, band, pixel) and clear (time, pixel), as the kernels take them."""
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
    """Return a prediction from arrays with one pixel axis, reshaped to rows and columns."""
    y, x = obs.shape
    return Prediction(
        image.reshape(-1, y, x),
        known.reshape(y, x),
        source.reshape(y, x),
        None if uncertainty is None else uncertainty.reshape(-1, y, x),
        None if gate is None else gate.reshape(-1, y, x),
    )


def dominant(weights: NDArray[np.float32]) -> NDArray[np.int16]:
    """Return the index of the date with at least half of the weight (the earlier of two), -1 where none has.

    Parameters
    ----------
    weights : ndarray of float32, shape (time, pixel)
        Weights of the dates.
    """
    source = np.full(weights.shape[1], -1, np.int16)
    for date in range(len(weights) - 1, -1, -1):
        source[weights[date] >= 0.5] = date
    return source
