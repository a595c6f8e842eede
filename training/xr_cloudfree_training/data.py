"""Training data straight from cubes."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
from lightning.pytorch import LightningDataModule
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset, Sampler

from xr_cloudfree.accuracy.simulate import fractal_shapes, real_masks
from xr_cloudfree.errors import BandError, CloudfreeError, OptionError
from xr_cloudfree.models.networks import architectures
from xr_cloudfree.models.networks.inputs import NetworkInput, prepare
from xr_cloudfree.options import parse_count
from xr_cloudfree_training.cases import Mixture, draw, examine
from xr_cloudfree_training.samples import Sample, Store, TrainingBatch, fingerprint
from xr_cloudfree_training.sites import Site, cloud_shapes, find_cubes, read_sites, split

MIXTURE = Mixture()
_GIBIBYTE = 2.0**30
# Of a place that is not in memory so many windows, of so many rows and columns, give shapes of clouds.
_WINDOWS, _WINDOW = 8, 512
# Streams of chance: whatever else the seed decides.
_PERMUTE, _TURN, _LOOK, _VALIDATE = 1, 2, 3, 4
_POOL = 0
PREFETCH = 4
"""Batches that a worker makes ahead."""
# A place with fewer shapes of clouds gets some by chance.
_FEW_SHAPES = 12


@dataclass(frozen=True, eq=False)
class Source:
    """A place with what its samples are hidden under, and where they are kept.

    A sample is a function of its place, its number and the settings. So what was kept of a place serves whichever other
    places are trained on beside it.
    """

    place: Site
    shapes: Sequence[NDArray[np.bool_]]
    store: Store | None


@dataclass(frozen=True)
class Crop:
    """The part of a prepared sample that a network in training sees, another one each time.

    Parameters
    ----------
    size : int
        Rows and columns.
    bands, dates : int, optional
        Bands and dates at most; all by default.
    """

    size: int
    bands: int | None = None
    dates: int | None = None

    def __post_init__(self) -> None:
        parse_count("crop.size", self.size, 16, "--data.crop.size 48")
        for name, value in (("bands", self.bands), ("dates", self.dates)):
            if value is not None:
                parse_count(f"crop.{name}", value, 1, f"--data.crop.{name} 4")


class Samples(Dataset[Sample]):
    """Samples by number: for training without end, for validation always the same. The places take turns.

    Parameters
    ----------
    sources : sequence of Source
        Places to draw from.
    network : type
        Class of the network, which says how what it is given is prepared.
    seed : int
        Decides the order of a pool, and how its samples are turned and cropped.
    chance : int
        Decides, with a sample's number, what is in it.
    size : int
        Rows and columns.
    bands : tuple of str or None
        The bands of all samples, or None for any.
    mixture : Mixture or None
        How training frames are hidden; None gives validation samples.
    pool : int
        Number of training samples that are made and used again, in another order and turned another way each time;
        0 makes each anew.
    crop : Crop or None
        What of a training sample is shown.
    """

    def __init__(
        self,
        sources: Sequence[Source],
        network: type,
        *,
        seed: int,
        chance: int,
        size: int,
        bands: tuple[str, ...] | None,
        mixture: Mixture | None,
        pool: int = 0,
        crop: Crop | None = None,
    ) -> None:
        self.sources, self.network = sources, network
        self.seed, self.chance, self.size, self.bands, self.mixture = seed, chance, size, bands, mixture
        self.pool, self.crop = pool, crop

    def __getitem__(self, number: int) -> Sample:
        """Sample by its number in the whole training."""
        if self.mixture is None:
            return self._described(self._kept(number))
        rng = np.random.default_rng([self.seed, number, _TURN])
        if self.pool:
            number = int(_order(self.seed, number // self.pool, self.pool)[number % self.pool])
        sample = self._kept(number).turned(int(rng.integers(8)))
        if self.crop is not None:
            sample = sample.cropped(self.crop.size, self.crop.bands, self.crop.dates, rng)
        return self._described(sample)

    def _described(self, sample: Sample) -> Sample:
        return replace(sample, given=architectures.described(self.network, sample.given, sample.common_names))

    def _kept(self, number: int) -> Sample:
        i, turn = divmod(number, len(self.sources))
        source = self.sources[turn]
        return self._make(source, i) if source.store is None else source.store.get(i, lambda: self._make(source, i))

    def _make(self, source: Source, i: int) -> Sample:
        where: dict[str, Any] = {"size": self.size, "bands": self.bands}
        if self.mixture is None:
            drawn = examine([source.place], source.shapes, self.chance, i, **where)
        else:
            drawn = draw([source.place], source.shapes, self.chance, i, mixture=self.mixture, **where)
        return Sample.of(drawn, _preparing(self.network))


@lru_cache(maxsize=2)
def _order(seed: int, turn: int, pool: int) -> NDArray[np.intp]:
    """The pool's order when it is gone through for the `turn`-th time."""
    return np.random.default_rng([seed, turn, _PERMUTE]).permutation(pool)


class Steps(Sampler[list[int]]):
    """Numbers of samples, batch by batch, from the step on at which training stands.

    So training that goes on from a checkpoint sees the samples that would have come.

    Parameters
    ----------
    batch_size : int
        Samples per batch and process.
    steps : int
        Batches per epoch.
    position : callable
        Gives the number of batches that were trained on, this process's number, and the number of processes.
    """

    def __init__(self, batch_size: int, steps: int, position: Callable[[], tuple[int, int, int]]) -> None:
        self.batch_size, self.steps, self.position = batch_size, steps, position

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[list[int]]:
        """The rest of an epoch."""
        done, rank, world = self.position()
        for step in range(done, (done // self.steps + 1) * self.steps):
            first = (step * world + rank) * self.batch_size
            yield list(range(first, first + self.batch_size))


class ResumableLoader(DataLoader[Sample]):
    """A loader that Lightning may resume: where it goes on is told by its sampler, so it has no state of its own."""

    def state_dict(self) -> dict[str, Any]:
        """Nothing."""
        return {}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Nothing to do."""


class CubeData(LightningDataModule):
    """Training and validation samples from any number of cubes.

    The cubes are read, checked and split when the object is made, so that what cannot be used is refused at once.
    Validation is on places that are not trained on, or on a part of the only place, with a buffer between.

    Parameters
    ----------
    cubes : sequence of str, path, DataArray or Dataset
        Zarr stores or NetCDF files, folders or patterns of them, or cubes that are open. One cube is one place; cubes
        that overlap are one place too.
    holdout : sequence of str, optional
        Names of the places to validate on: those of the files, without their endings. By default a fifth of the
        places by chance, or a quarter of the only one.
    masks : sequence of str or path
        Further cubes of which only the shapes of clouds are used, in training. A place is hidden under its own clouds
        and these; where they are few, shapes drawn by chance are added.
    reading : dict
        How the cubes are read: the options of `xr_cloudfree.fill` from `clear` to `nodata`.
    s1 : str, optional
        Name of the variable that holds Sentinel-1 in decibels, or of two with a comma between, as `xr_cloudfree.fill`
        takes them: for a network made with ``s1: true``. Samples of cubes that lack them have none.
    architecture : str
        Network that the samples are prepared for.
    bands : sequence of str, optional
        Bands to use, by their common names; by default those that a place has.
    vary_bands : bool
        True: a training sample has a random part of the bands, three at least, in random order, for networks that take
        any. False: all samples have the same bands, those that all places have.
    mixture : Mixture
        How frames are hidden, and how dates are dropped.
    size : int
        Rows and columns of a sample, as it is prepared.
    crop : Crop, optional
        The part of it that the network sees; the whole by default.
    batch_size : int
        Samples per step.
    samples : int
        Training samples per epoch.
    validation : int
        Validation samples; always the same.
    pool : int
        Number of training samples to make: they are used again, turned, in another order. For networks whose samples
        take long to prepare. 0 makes each sample anew.
    cache : str, optional
        Folder that keeps the samples of the pool and of the validation for the next run with the same data and
        settings. By default they are gone when this object is.
    workers : int, optional
        Processes that make samples; by default one less than there are processor cores.
    memory : float
        Gibibytes of cubes to hold in memory; cubes beyond that are read crop by crop.
    seed : int
        Decides the split and all samples.

    Raises
    ------
    CloudfreeError
        If a cube or an option cannot be used.

    Examples
    --------
    >>> from xr_cloudfree import synthetic
    >>> from xr_cloudfree_training.data import CubeData
    >>> data = CubeData([synthetic.cube(shape=(12, 4, 64, 64), seed=1)], size=32, batch_size=2, workers=0)
    >>> lesson = next(iter(data.train_dataloader()))
    >>> lesson.given.bands.shape[0], lesson.truth.shape[2:]
    (2, torch.Size([32, 32]))
    """

    def __init__(
        self,
        cubes: Sequence[Any] = (),
        *,
        holdout: Sequence[str] | None = None,
        masks: Sequence[str] = (),
        reading: Mapping[str, Any] | None = None,
        s1: str | None = None,
        architecture: str = "unet-plus",
        bands: Sequence[str] | None = None,
        vary_bands: bool = True,
        mixture: Mixture = MIXTURE,
        size: int = 128,
        crop: Crop | None = None,
        batch_size: int = 4,
        samples: int = 1000,
        validation: int = 64,
        pool: int = 0,
        cache: str | None = None,
        workers: int | None = None,
        memory: float = 4.0,
        seed: int = 0,
    ) -> None:
        super().__init__()
        counts = {"size": (size, 16), "batch_size": (batch_size, 1), "samples": (samples, batch_size)}
        counts |= {"validation": (validation, 1), "pool": (pool, 0), "workers": (workers or 0, 0)}
        for name, (value, least) in counts.items():
            parse_count(name, value, least, f"--data.{name} {least}")
        self.batch_size, self.samples, self.validation, self.seed = batch_size, samples, validation, seed
        self.workers = max(_cores() - 1, 0) if workers is None else workers
        self.mixture = mixture
        network = architectures.find(architecture)
        make = _preparing(network)
        reading = reading or {}
        places = _of_bands(read_sites(find_cubes(cubes), reading, memory * _GIBIBYTE, s1), bands)
        self.bands = None if vary_bands else _common_bands(places)
        self.places = tuple(place.name for place in places)
        self.train, self.held_out = split(places, holdout, seed)
        self.has_s1 = any(place.s1 for place in self.train)
        if s1 is not None and not self.has_s1:
            raise OptionError(
                f"of all that has the variables {s1!r}, everything is held out",
                "Sentinel-1 in some of the places that are trained on",
                f"--data.holdout [{self.train[0].name}], or no --data.s1",
            )
        further = [shape for mask in (find_cubes(masks) if masks else ()) for shape in cloud_shapes(mask, reading)]
        how: dict[str, Any] = {"size": size, "bands": self.bands}
        self.sets: dict[str, Samples] = {}
        for name, group, kind in (("train", self.train, self.mixture), ("validate", self.held_out, None)):
            keep = kind is None or pool > 0
            # Whatever the seed, the same samples are validated on, and a pool holds the same.
            chance = (_POOL if pool else seed) if kind else _VALIDATE
            sources = []
            for place in group:
                shapes = _shapes(place, chance)
                if kind is not None:
                    shapes = [*shapes, *further]
                shapes += fractal_shapes(max(_FEW_SHAPES - len(shapes), 0), chance)
                told: tuple[Any, ...] = (place.name, place.bands, place.suspect.tolist())
                arrays = [*place.arrays, place.seen, *shapes]
                if place.s1 is not None:
                    # Without it nothing is added, so that what was kept serves on.
                    told, arrays = (*told, "s1", place.s1.times.tolist()), [*arrays, *place.s1.arrays]
                key = fingerprint(arrays, make, told, how, kind, chance) if keep else ""
                folder = Path(cache) / f"{place.name}-{name}-{key}" if cache else None
                sources.append(Source(place, shapes, Store(folder) if keep else None))
            self.sets[name] = Samples(
                sources, network, seed=seed, chance=chance, mixture=kind, pool=pool, crop=crop if kind else None, **how
            )
            for source in sources:
                _check_place(source, kind, how)

    def train_dataloader(self) -> ResumableLoader:
        """Training samples, from the step on at which the trainer stands."""
        steps = Steps(self.batch_size, self.samples // self.batch_size, self._position)
        return ResumableLoader(self.sets["train"], batch_sampler=steps, **self._loading())

    def val_dataloader(self) -> DataLoader[Sample]:
        """Validation samples."""
        count = len(self.sets["validate"].sources)
        # A batch is of one place, so that none is filled up to the size of another: no cube that is filled is.
        turns = [range(turn, self.validation, count) for turn in range(count)]
        batches = [list(turn[i : i + self.batch_size]) for turn in turns for i in range(0, len(turn), self.batch_size)]
        return DataLoader(self.sets["validate"], batch_sampler=batches, **self._loading())

    def _position(self) -> tuple[int, int, int]:
        if self.trainer is None:
            return 0, 0, 1
        total: Any = self.trainer.fit_loop.epoch_loop.batch_progress.total
        return total.processed, self.trainer.global_rank, self.trainer.world_size

    def _loading(self) -> dict[str, Any]:
        how: dict[str, Any] = {"collate_fn": TrainingBatch.of, "num_workers": self.workers}
        if self.workers:
            how |= {"prefetch_factor": PREFETCH, "persistent_workers": True}
            if not all(place.in_memory for place in (*self.train, *self.held_out)):
                how["multiprocessing_context"] = "forkserver"  # files that are open do not survive a fork
        return how


def _preparing(network: type) -> Callable[..., NetworkInput]:
    """The costly part of what a network is given; samples are kept with it, for all networks that share it."""
    make: Callable[..., NetworkInput] = getattr(network, "prepare", prepare)
    return make


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _of_bands(places: Sequence[Site], bands: Sequence[str] | None) -> list[Site]:
    """The places with the wanted bands only, where they have them."""
    if bands is None:
        return list(places)
    for place in places:
        lacking = [band for band in bands if band not in place.bands]
        if lacking:
            raise BandError(
                f"{place.name} has no band {lacking[0]!r}, but {', '.join(place.bands)}",
                f"cubes with the bands {', '.join(bands)}",
                "other cubes, or fewer bands: --data.bands [blue, green, red]",
            )
    return [place.of_bands(bands) for place in places]


def _common_bands(places: Sequence[Site]) -> tuple[str, ...]:
    """The bands that all places have, in the order of the first."""
    common = tuple(band for band in places[0].bands if all(band in place.bands for place in places))
    if not common:
        raise BandError(
            "the cubes have no band in common: " + "; ".join(f"{p.name} has {', '.join(p.bands)}" for p in places),
            "bands that all cubes have, for a network with a fixed number of them",
            "cubes of one sensor, or --config unet-plus",
        )
    return common


def _shapes(place: Site, seed: int) -> list[NDArray[np.bool_]]:
    """Shapes of the place's own clouds."""
    if place.in_memory or max(place.shape) <= _WINDOW:
        return real_masks(place.clear((slice(None), slice(None))))
    rng = np.random.default_rng([seed, _LOOK])
    found = []
    for _ in range(_WINDOWS):
        first = [int(rng.integers(max(n - _WINDOW, 0) + 1)) for n in place.shape]
        found += real_masks(place.clear((slice(first[0], first[0] + _WINDOW), slice(first[1], first[1] + _WINDOW))))
    return found


def _check_place(source: Source, mixture: Mixture | None, how: Mapping[str, Any]) -> None:
    """Refuse a place of which no sample can be made."""
    try:
        if mixture is None:
            examine([source.place], source.shapes, _LOOK, 0, **how)
        else:
            draw([source.place], source.shapes, _LOOK, 0, mixture=mixture, **how)
    except CloudfreeError as error:
        raise type(error)(error.found, error.needed, f"leave {source.place.name} out; {error.remedy}") from error
