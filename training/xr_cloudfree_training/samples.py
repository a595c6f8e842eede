"""Training samples: network inputs with their truth, stored on disk and collated into batches."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import tempfile
import uuid
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor

from xr_cloudfree.models.networks.batch import Batch
from xr_cloudfree.models.networks.features import FEATURES_VERSION
from xr_cloudfree.models.networks.inputs import S1, S1_SEEN, SHARED_BY_BANDS, NetworkInput
from xr_cloudfree.models.networks.learned_gate import CONDITION
from xr_cloudfree.models.networks.network import Network
from xr_cloudfree.models.protocol import Observations
from xr_cloudfree_training.cases import LEAST_BANDS, Drawn

Maps = NDArray[np.float32]
# Least hidden share of a random crop, and number of tries to find one.
_HIDDEN, _TRIES = 0.1, 8
# Stored as float16: lossless for masks, and about the radiometric resolution of the sensors for reflectance.
_HALVED = ("bands", "target", "truth", "target_clear", "clear", "hidden", "measured")
# Features are stored under their own names; the source date is not used in training.
_APART = ("features", "source")


@dataclass(frozen=True, eq=False)
class Sample:
    """One training sample.

    Parameters
    ----------
    given : NetworkInput
        Input of the network.
    truth : ndarray of float32, shape (band, y, x)
        The target image as observed, clouds included; 0 where missing.
    hidden : ndarray of float32, shape (1, y, x)
        1 where the target is hidden, its truth is clear, and the pixel is clear on another date.
    clear, measured : ndarray of float32, shape (1, y, x)
        1 where the truth is clear, and where it is not missing.
    track : str
        Track of `xr_cloudfree.evaluate`: how the target was hidden.
    common_names : tuple of (str or None)
        Common names of the bands.
    """

    given: NetworkInput
    truth: Maps
    hidden: Maps
    clear: Maps
    measured: Maps
    track: str
    common_names: tuple[str | None, ...]

    @classmethod
    def of(cls, drawn: Drawn, prepare: Callable[[Observations], NetworkInput]) -> Sample:
        """Make the sample of a simulated case."""
        case = drawn.case
        tile = Observations(
            case.bands, case.clear, case.day_offset, case.target, common_names=drawn.common_names, s1=drawn.s1
        )
        given = replace(prepare(tile), source=None)
        measured = np.asarray(np.isfinite(case.truth).all(axis=0))
        truth = np.where(measured, case.truth, np.float32(0))
        hidden, clear, there = (m[np.newaxis].astype(np.float32) for m in (case.scored, case.truth_clear, measured))
        return cls(given, truth, hidden, clear, there, case.track, drawn.common_names)

    @property
    def shape(self) -> tuple[int, int]:
        """Rows and columns."""
        return self.truth.shape[1], self.truth.shape[2]

    def mapped(self, change: Callable[[Maps], Maps]) -> Sample:
        """Return the sample with a spatial transformation applied to all its maps."""
        y, x = self.shape

        def maps(owner: Any, names: Iterable[str]) -> dict[str, Any]:
            found = {name: getattr(owner, name) for name in names}
            return {n: change(m) if m.ndim > 1 and m.shape[-2:] == (y, x) else m for n, m in found.items()}

        features = {n: change(m) if m.shape[-2:] == (y, x) else m for n, m in self.given.features.items()}
        given = replace(self.given, features=features, **maps(self.given, ("bands", "clear", "target", "target_clear")))
        return replace(self, given=given, **maps(self, ("truth", "hidden", "clear", "measured")))

    def turned(self, way: int) -> Sample:
        """Return the sample under one of the 8 flips and rotations, numbered 0 to 7; 0 is the identity."""

        def change(image: Maps) -> Maps:
            image = image[..., :: -1 if way & 1 else 1, :: -1 if way & 2 else 1]
            return np.ascontiguousarray(image.swapaxes(-1, -2) if way & 4 else image)

        return self.mapped(change)

    def cropped(self, size: int, bands: int | None, dates: int | None, rng: np.random.Generator) -> Sample:
        """Return a random crop, with a hidden part if one is found within a few tries.

        Parameters
        ----------
        size : int
            Edge in pixels; limited by the size of the sample.
        bands : int, optional
            Largest number of bands, chosen at random.
        dates : int, optional
            Largest number of dates: two thirds are the nearest, the others are chosen at random.
        rng : numpy.random.Generator
            Random number generator.
        """
        rows, columns = (min(size, n) for n in self.shape)
        for _ in range(_TRIES):
            y, x = (int(rng.integers(n - m + 1)) for n, m in zip(self.shape, (rows, columns), strict=True))
            if self.hidden[0, y : y + rows, x : x + columns].mean() > _HIDDEN:
                break
        part = self.mapped(lambda image: np.ascontiguousarray(image[..., y : y + rows, x : x + columns]))
        given, chosen = part.given, np.arange(len(self.truth))
        if bands is not None and len(chosen) > bands:
            chosen = rng.permutation(len(chosen))[: rng.integers(min(LEAST_BANDS, bands), bands + 1)]
        kept = np.argsort(np.abs(given.day_offset), kind="stable")
        if dates is not None and len(kept) > dates:
            near = max(dates * 2 // 3, 1)
            kept = np.concatenate([kept[:near], rng.permutation(kept[near:])[: dates - near]])
        kept = np.sort(kept)
        given = NetworkInput(
            given.bands[kept][:, chosen],
            given.clear[kept],
            given.day_offset[kept],
            given.date_valid[kept],
            given.target[chosen],
            given.target_clear,
            given.band_valid[chosen],
            {n: m if n in SHARED_BY_BANDS else m[chosen] for n, m in given.features.items()},
        )
        return replace(
            part, given=given, truth=part.truth[chosen], common_names=tuple(self.common_names[i] for i in chosen)
        )

    def filled_up(self, shape: tuple[int, int]) -> Sample:
        """Return the sample padded with rows and columns in which nothing is clear."""
        more = [(0, n - have) for n, have in zip(shape, self.shape, strict=True)]
        if more == [(0, 0), (0, 0)]:
            return self
        return self.mapped(lambda image: np.pad(image, [(0, 0)] * (image.ndim - 2) + more))


@dataclass(frozen=True, eq=False)
class TrainingBatch:
    """Samples collated into a batch.

    Parameters
    ----------
    given : Batch
        Input of the network.
    truth : Tensor, shape (batch, band, y, x)
        Truth; 0 where missing.
    hidden, clear, measured : Tensor, shape (batch, 1, y, x)
        As of `Sample`.
    tracks : tuple of str
        As of `Sample`.
    common_names : tuple
        As of `Sample`.
    """

    given: Batch
    truth: Tensor
    hidden: Tensor
    clear: Tensor
    measured: Tensor
    tracks: tuple[str, ...]
    common_names: tuple[tuple[str | None, ...], ...]

    @classmethod
    def of(cls, samples: Sequence[Sample]) -> TrainingBatch:
        """Collate samples, padded to the same size."""
        shape = (max(s.shape[0] for s in samples), max(s.shape[1] for s in samples))
        same = [s.filled_up(shape) for s in samples]
        given = Batch.of([s.given for s in _with_radar(same)])
        truth = torch.zeros_like(given.target)
        for row, s in zip(truth, same, strict=True):
            row[: len(s.truth)] = torch.from_numpy(s.truth)
        hidden, clear, measured = (
            torch.from_numpy(np.stack([getattr(s, name) for s in same])) for name in ("hidden", "clear", "measured")
        )
        return cls(
            given, truth, hidden, clear, measured, tuple(s.track for s in same), tuple(s.common_names for s in same)
        )

    def to(self, device: torch.device | str) -> TrainingBatch:
        """Return the batch on another device."""
        moved: dict[str, Any] = {n: v.to(device) for n, v in vars(self).items() if isinstance(v, Tensor | Batch)}
        return replace(self, **moved)

    def conditioned(self) -> Batch:
        """Return the input with the target's distortions as a condition: cloud, shadow and missing."""
        condition = torch.cat([self.clear, self.clear, self.measured], dim=1)
        return replace(self.given, features={**self.given.features, CONDITION: condition})

    @property
    def counted(self) -> Tensor:
        """1 where a value is hidden and its truth is known: Tensor of shape (batch, band, y, x)."""
        return self.hidden * self.given.band_valid[:, :, None, None]


def _with_radar(samples: Sequence[Sample]) -> Sequence[Sample]:
    """Add empty Sentinel-1 features to samples without them, if any sample of the batch has them."""
    if not any(S1 in s.given.features for s in samples):
        return samples
    none = {name: np.zeros((n, *samples[0].shape), np.float32) for name, n in ((S1, 2), (S1_SEEN, 1))}
    return [replace(s, given=replace(s.given, features=none | s.given.features)) for s in samples]


class Store:
    """A store of samples on disk, one file per sample, shared by several processes.

    Parameters
    ----------
    folder : Path, optional
        Folder for samples of one kind. By default a temporary folder that is removed with this object.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self.folder = folder or Path(tempfile.mkdtemp(prefix="xr_cloudfree-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        if folder is None:
            weakref.finalize(self, _remove, self.folder, os.getpid())

    def get(self, i: int, make: Callable[[], Sample]) -> Sample:
        """Return sample number `i`, and make it first if it is not stored. The sample is always read from disk."""
        path = self.folder / f"{i:07d}.safetensors"
        try:
            return _read(path)
        except (FileNotFoundError, SafetensorError):  # missing or truncated
            self._write(path, make())
        return _read(path)

    def _write(self, path: Path, sample: Sample) -> None:
        arrays = {
            f"given.{f.name}": getattr(sample.given, f.name) for f in fields(NetworkInput) if f.name not in _APART
        }
        arrays |= {f"feature.{name}": array for name, array in sample.given.features.items()}
        arrays |= {name: getattr(sample, name) for name in ("truth", "hidden", "clear", "measured")}
        kept = {n: a.astype(np.float16) if n.rpartition(".")[2] in _HALVED else a for n, a in arrays.items()}
        draft = path.with_suffix(f".{uuid.uuid4().hex}")
        metadata = {"track": sample.track, "roles": json.dumps(sample.common_names)}
        save_file({n: np.ascontiguousarray(a) for n, a in kept.items()}, draft, metadata)
        os.replace(draft, path)


def _remove(folder: Path, owner: int) -> None:
    if os.getpid() == owner:  # a copy of this object in a worker process does not own the folder
        shutil.rmtree(folder, ignore_errors=True)


def _read(path: Path) -> Sample:
    with safe_open(path, "np") as file:
        arrays = {n: file.get_tensor(n) for n in file.keys()}
        metadata = file.metadata()
    whole = {n: a.astype(np.float32) if a.dtype == np.float16 else a for n, a in arrays.items()}
    given = {n.removeprefix("given."): a for n, a in whole.items() if n.startswith("given.")}
    features = {n.removeprefix("feature."): a for n, a in whole.items() if n.startswith("feature.")}
    own = {n: whole[n] for n in ("truth", "hidden", "clear", "measured")}
    return Sample(
        NetworkInput(**given, features=features),
        **own,
        track=metadata["track"],
        common_names=tuple(json.loads(metadata["roles"])),
    )


def fingerprint(arrays: Sequence[Any], network: type[Network], *settings: object) -> str:
    """Return a hash of the data, the settings and the version of the features that determine samples.

    Parameters
    ----------
    arrays : sequence of ndarray and DataArray
        Arrays in memory are hashed by value, lazy ones by source and modification time.
    network : type of Network
        Network whose `prepare` makes the samples, in the version that its `input_version` states.
    *settings
        Any other values that determine the samples; by their text.
    """
    from dask.base import tokenize

    prepare = network.prepare
    versions = prepare.__module__, prepare.__qualname__, network.input_version, FEATURES_VERSION
    digest = hashlib.sha256(repr((versions, settings)).encode())
    digest.update(tokenize(*arrays).encode())
    return digest.hexdigest()[:16]
